"""``map(progress=True)`` in a real kernel of Jupyter: one output, redrawn, with text for who shows no HTML."""

from __future__ import annotations

import re
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat", reason="Jupyter is not installed")
nbclient = pytest.importorskip("nbclient", reason="Jupyter is not installed")
pytest.importorskip("ipykernel", reason="Jupyter is not installed")

CELL = """
import time, treadle
def thumbnail(number):
    time.sleep(0.01)
    return number
with treadle.Executor(threads=2) as pool:
    print(sum(pool.map(thumbnail, range(100), progress=True)))
"""


class Client(nbclient.NotebookClient):  # type: ignore[misc,name-defined]
    """Keeps the redrawings, of which a notebook holds only the last."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.shown: list[dict[str, Any]] = []

    def process_message(self, message: Any, cell: Any, cell_index: int) -> Any:
        if message["msg_type"] in ("display_data", "update_display_data"):
            self.shown.append(message["content"])
        return super().process_message(message, cell, cell_index)


@pytest.fixture(scope="module")
def ran() -> tuple[Any, Client]:
    """The cell after it ran, and its client."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
    client = Client(notebook, timeout=100, kernel_name="python3")
    client.execute()
    return notebook.cells[0], client


def test_one_output_is_redrawn(ran: tuple[Any, Client]) -> None:
    _cell, client = ran
    assert len(client.shown) >= 3
    displays = {shown["transient"]["display_id"] for shown in client.shown}
    assert len(displays) == 1
    done = [
        int(re.search(r"thumbnail: (\d+) of 100", shown["data"]["text/plain"])[1])
        for shown in client.shown
    ]  # type: ignore[index]
    assert done == sorted(done)
    assert (done[0], done[-1]) == (0, 100)
    assert any(0 < number < 100 for number in done)
    assert any(
        "/s, " in shown["data"]["text/plain"] and "left" in shown["data"]["text/plain"]
        for shown in client.shown
    )


def test_the_notebook_keeps_the_last_one(ran: tuple[Any, Client]) -> None:
    cell, _client = ran
    kinds = [output["output_type"] for output in cell.outputs]
    assert kinds.count("display_data") == 1
    (shown,) = (output for output in cell.outputs if output["output_type"] == "display_data")
    assert "thumbnail: 100 of 100 (100 %)" in shown["data"]["text/plain"]
    assert '<progress value="100" max="100"' in shown["data"]["text/html"]
    # Nothing of it on the error stream, and the cell's own output is whole.
    (stream,) = (output for output in cell.outputs if output["output_type"] == "stream")
    assert (stream["name"], stream["text"]) == ("stdout", "4950\n")

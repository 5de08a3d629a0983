"""serve_metrics: the numbers of this program's pools over HTTP, for Prometheus and for ``curl``.

*Guarantees*: reads only; listens on this machine unless another address is asked for; no thread keeps the program from
ending; a forked child does not listen.
"""

from __future__ import annotations

import atexit
import errno
import http.server
import os
import socket
import threading
import time
from typing import Any

from treadle import errors, metrics, strategies

__all__ = ["MetricsServer", "serve_metrics"]

#: What OpenTelemetry's exporter for Prometheus listens on too.
DEFAULT_PORT = 9464
#: A client that says nothing for so long is dropped, so that its thread ends.
_PATIENCE_S = 10.0


class _Handler(http.server.BaseHTTPRequestHandler):
    """One request: the metrics, or where they are."""

    server: _Server
    server_version = "treadle"
    sys_version = ""
    timeout = _PATIENCE_S

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/metrics":
            began = time.thread_time()
            body = metrics.text(self.server.own_cpu_s)
            self._answer(200, body, metrics.CONTENT_TYPE)
            self.server.spend(time.thread_time() - began)
        elif path == "/":
            self._answer(200, "treadle: the metrics are at /metrics\n")
        else:
            self._answer(404, "treadle: there is nothing here; the metrics are at /metrics\n")

    do_HEAD = do_GET

    def _answer(self, code: int, body: str, kind: str = "text/plain; charset=utf-8") -> None:
        content = body.encode()
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Nothing: the standard error stream is the program's."""


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    # Another program's socket on this port is an error, never a neighbour; a port that was just given up is free.
    allow_reuse_address = True
    allow_reuse_port = False

    def __init__(self, family: socket.AddressFamily, address: tuple[str, int]) -> None:
        self.address_family = family
        self.own_cpu_s = 0.0
        self._spending = threading.Lock()
        super().__init__(address, _Handler)

    def spend(self, seconds: float) -> None:
        """Adds what an answer has cost."""
        with self._spending:
            self.own_cpu_s += seconds

    def server_bind(self) -> None:
        # Not HTTPServer's, which looks the machine's own name up: that can take seconds and is not needed.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def handle_error(self, *_: Any) -> None:
        """A client that went away is not an error of this program."""


class MetricsServer:
    """A running endpoint. ``with`` it, or call `stop`; otherwise it lives as long as the program.

    Attributes: ``host``, ``port`` (the real one, when 0 was asked for) and ``url``.
    """

    def __init__(self, server: _Server) -> None:
        self._server: _Server | None = server
        self._process = os.getpid()
        self.host, self.port = str(server.server_address[0]), int(server.server_address[1])
        shown = f"[{self.host}]" if ":" in self.host else self.host
        self.url = f"http://{shown}:{self.port}/metrics"
        self._thread = threading.Thread(
            target=server.serve_forever, args=(0.5,), name="treadle-metrics", daemon=True
        )
        self._thread.start()
        _running.add(self)

    def stop(self) -> None:
        """Stops listening and frees the port; a second call does nothing."""
        server, self._server = self._server, None
        _running.discard(self)
        if server is None:
            return
        if self._process == os.getpid():
            server.shutdown()
            self._thread.join()
        server.server_close()

    def __enter__(self) -> MetricsServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<treadle.MetricsServer {self.url if self._server else 'stopped'}>"


#: Strong references: an endpoint whose handle was not kept goes on serving.
_running: set[MetricsServer] = set()


def serve_metrics(port: int = DEFAULT_PORT, *, host: str = "127.0.0.1") -> MetricsServer:
    """Serves the numbers of this program's pools at ``http://host:port/metrics``, as text that Prometheus reads.

    The endpoint covers every `Executor` of the program, whenever it was made, and reads them only when it is asked.
    Nobody can change anything through it, but whoever can reach it can read it: `host` is this machine alone unless
    another address is given.

    Args:
        port: 0 takes a free one, which the handle's ``port`` tells.
        host: an address or a name of this machine; ``"0.0.0.0"`` or ``"::"`` is all of them.

    Raises:
        ServingError: when it cannot listen there, with the way out. It is an ``OSError``, with its ``errno``.
        ValueError: for a port that is none.
    """
    if isinstance(port, bool) or not isinstance(port, int) or not 0 <= port <= 65535:
        raise ValueError(f"a port is a whole number from 0 to 65535, not {port!r}")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _kind, _protocol, _name, address = found[0]
        server = _Server(family, (str(address[0]), int(address[1])))
    except OSError as error:
        raise errors.ServingError(*_told(error, host, port)) from None
    strategies.on_end(metrics.ledger.note)
    return MetricsServer(server)


def _told(error: OSError, host: str, port: int) -> tuple[int, str]:
    """The error number and the message with its way out."""
    number = error.errno or 0
    if isinstance(error, socket.gaierror):
        hint = 'give an address or a name of this machine, such as host="127.0.0.1"'
    elif number == errno.EADDRINUSE:
        hint = "another program, or another endpoint of this one, listens there: give another port, or 0 for a free one"
    elif number == errno.EACCES:
        hint = "ports below 1024 are for the superuser: give another port, or 0 for a free one"
    elif number == errno.EADDRNOTAVAIL:
        hint = 'that is no address of this machine: host="0.0.0.0" is all that it has'
    else:
        hint = "give another host or port"
    what = error.strerror or str(error)
    return number, f"cannot serve metrics on {host}:{port}: {what}\n\nhint: {hint}"


@atexit.register
def _stop_all() -> None:
    for one in list(_running):
        one.stop()


def _leave_to_parent() -> None:
    """In a forked child: the sockets are the parent's."""
    for one in list(_running):
        one.stop()


os.register_at_fork(after_in_child=_leave_to_parent)

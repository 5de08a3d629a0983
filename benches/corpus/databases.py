"""sqlite3, on files that stay in the page cache."""

from __future__ import annotations

import sqlite3

from benches.corpus import material
from benches.corpus.workload import workload


def shop(seed: int) -> bytes:
    """A database file with 40,000 sales."""
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE sale (customer TEXT, sku TEXT, price REAL, count INTEGER)")
    connection.executemany(
        "INSERT INTO sale VALUES (?, ?, ?, ?)",
        (
            (order["customer"]["name"], line["sku"], line["price"], line["count"])
            for order in material.orders(seed, 20_000)
            for line in order["lines"]
        ),
    )
    connection.commit()
    # Before Python 3.11 a connection cannot be serialised; its backup to a file can be read.
    path = material.FOLDER / f"shop-{seed}.building"
    path.unlink(missing_ok=True)
    with sqlite3.connect(path) as onto:
        connection.backup(onto)
    onto.close()
    content = path.read_bytes()
    path.unlink()
    return content


def queries() -> list[tuple[str, float]]:
    """120 pairs of a database and a price, over 4 databases of 2 MB."""
    paths = material.files("shops", 4, shop)
    return [(paths[number % 4], 5.0 * number) for number in range(120)]


@workload(
    queries,
    "cpu-bound-releasing",
    because="sqlite3 releases the lock around sqlite3_step; grouping and sorting happen in the first "
    "step, and only five rows come back",
)
def best_customers(query: tuple[str, float]) -> list[tuple[str, float]]:
    """The five best customers, counting sales above a price."""
    path, price = query
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return connection.execute(
            "SELECT customer, SUM(price * count) AS total FROM sale WHERE price > ? "
            "GROUP BY customer ORDER BY total DESC LIMIT 5",
            (price,),
        ).fetchall()
    finally:
        connection.close()


@workload(
    queries,
    "cpu-bound",
    "cpu-bound-releasing",
    # On the border: the lock is released and taken again for every one of 40,000 rows, each of
    # which costs SQLite about as much as it costs Python to make a tuple of it.
    because="half of the time in sqlite3_step without the lock, half in making rows with it",
)
def sum_in_python(query: tuple[str, float]) -> float:
    """The same sum, row by row in Python."""
    path, price = query
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        rows = connection.execute("SELECT price, count FROM sale WHERE price > ?", (price / 2,))
        return sum(price * count for price, count in rows)
    finally:
        connection.close()

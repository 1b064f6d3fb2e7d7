"""SQLite: a table in memory, one core, which is all that it uses."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from functools import partial
from typing import Final

from benchmarks.competing import aligned_rows
from benchmarks.datasets import Dataset, Question
from benchmarks.peers import Way
from benchmarks.sql_forms import queries

# SQLite's own rule: a bare column beside a single MAX is of the row with the maximum; so the last
# cell is read beside it.
QUERIES: Final = queries("SELECT item, quantity AS last, MAX(timestamp) FROM cells GROUP BY item")


class SQLite:
    """See :class:`~benchmarks.peers.Peer`."""

    def __init__(self, dataset: Dataset) -> None:
        self._items = dataset.items
        self._connection = sqlite3.connect(":memory:")
        columns = "item INT, timestamp INT, quantity INT, is_set INT, seq INTEGER PRIMARY KEY"
        self._connection.execute(f"CREATE TABLE usage ({columns})")
        rows = zip(*(column.tolist() for column in dataset.columns().values()), strict=True)
        self._connection.executemany("INSERT INTO usage VALUES (?, ?, ?, ?, ?)", rows)
        self._connection.execute("ANALYZE")

    def ways(self, question: Question) -> Iterator[Way]:
        """Yield the ways to answer a question."""
        for form, text in QUERIES[question].items():
            yield Way(
                f"SQLite, {form}",
                partial(partial, self._run, text),
                partial(aligned_rows, self._items),
            )

    def _run(self, text: str) -> list[tuple[int, ...]]:
        return self._connection.execute(text).fetchall()

    def close(self) -> None:
        """Give everything back."""
        self._connection.close()

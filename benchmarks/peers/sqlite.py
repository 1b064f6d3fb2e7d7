"""SQLite: a table in memory, one core, which is all that it uses."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from functools import partial
from typing import Final

from benchmarks.competing import aligned_rows
from benchmarks.datasets import Dataset, Question
from benchmarks.peers import Way

JOIN: Final = """
WITH last_sets AS (
  SELECT item, timestamp, MAX(seq) AS last_set FROM usage WHERE is_set GROUP BY item, timestamp
),
counted AS (
  SELECT item, timestamp, quantity FROM usage LEFT JOIN last_sets USING (item, timestamp)
  WHERE last_set IS NULL OR seq >= last_set
)"""

WINDOW: Final = """
WITH marked AS (
  SELECT *, MAX(seq) FILTER (WHERE is_set) OVER (PARTITION BY item, timestamp) AS last_set FROM usage
),
counted AS (
  SELECT item, timestamp, quantity FROM marked WHERE last_set IS NULL OR seq >= last_set
)"""

CELLS: Final = ", cells AS (SELECT item, timestamp, SUM(quantity) AS quantity FROM counted GROUP BY item, timestamp)"

LATEST: Final = """
WITH latest AS (SELECT item, MAX(timestamp) AS timestamp FROM usage GROUP BY item),
recent AS (SELECT usage.* FROM latest JOIN usage USING (item, timestamp)),
last_sets AS (SELECT item, MAX(seq) AS last_set FROM recent WHERE is_set GROUP BY item)
SELECT item, SUM(quantity) FROM recent LEFT JOIN last_sets USING (item)
WHERE last_set IS NULL OR seq >= last_set
GROUP BY item"""

SUM: Final = " SELECT item, SUM(quantity) FROM counted GROUP BY item"
MAX: Final = " SELECT item, MAX(quantity) FROM cells GROUP BY item"
# SQLite's own rule: a bare column beside a single MAX is of the row with the maximum; so the last cell is read beside it.
EVERY_MODE: Final = """,
totals AS (SELECT item, SUM(quantity) AS sum, MAX(quantity) AS max FROM cells GROUP BY item),
lasts AS (SELECT item, quantity AS last, MAX(timestamp) FROM cells GROUP BY item)
SELECT item, sum, max, last FROM totals JOIN lasts USING (item)"""

QUERIES: Final = {
    Question.PLAIN_SUM: {"group by": "SELECT item, SUM(quantity) FROM usage GROUP BY item"},
    Question.SUM: {"join form": JOIN + SUM, "window form": WINDOW + SUM},
    Question.MAX: {"join form": JOIN + CELLS + MAX, "window form": WINDOW + CELLS + MAX},
    Question.LAST: {"two steps, join form": LATEST},
    Question.EVERY_MODE: {"join form": JOIN + CELLS + EVERY_MODE, "window form": WINDOW + CELLS + EVERY_MODE},
}


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
            yield Way(f"SQLite, {form}", partial(partial, self._run, text), partial(aligned_rows, self._items))

    def _run(self, text: str) -> list[tuple[int, ...]]:
        return self._connection.execute(text).fetchall()

    def close(self) -> None:
        """Give everything back."""
        self._connection.close()

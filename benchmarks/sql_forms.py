"""The same questions in the SQL that all databases share: two forms of what counts, and what is
asked of it.
"""

# ruff: noqa: S608 - queries of our own

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from benchmarks.datasets import Question

JOIN: Final = """
WITH last_sets AS (
  SELECT item, timestamp, MAX(seq) AS last_set FROM usage WHERE is_set GROUP BY item, timestamp
),
counted AS (
  SELECT item, timestamp, quantity FROM usage LEFT JOIN last_sets USING (item, timestamp)
  WHERE last_set IS NULL OR seq >= last_set
)"""
"""The records that count, by a join with the last ``set`` of each cell."""

WINDOW: Final = """
WITH marked AS (
  SELECT *, MAX(seq) FILTER (WHERE is_set) OVER (PARTITION BY item, timestamp) AS last_set
  FROM usage
),
counted AS (
  SELECT item, timestamp, quantity FROM marked WHERE last_set IS NULL OR seq >= last_set
)"""
"""The records that count, by a window over each cell."""

CELLS: Final = (
    ", cells AS (SELECT item, timestamp, SUM(quantity) AS quantity FROM counted GROUP BY item, "
    "timestamp)"
)

_LATEST: Final = """
WITH latest AS (SELECT item, MAX(timestamp) AS timestamp FROM usage GROUP BY item),
recent AS (SELECT usage.* FROM latest JOIN usage USING (item, timestamp)),
last_sets AS (SELECT item, MAX(seq) AS last_set FROM recent WHERE is_set GROUP BY item)
SELECT item, SUM(quantity) FROM recent LEFT JOIN last_sets USING (item)
WHERE last_set IS NULL OR seq >= last_set
GROUP BY item"""
_SUM: Final = " SELECT item, SUM(quantity) FROM counted GROUP BY item"
_MAX: Final = " SELECT item, MAX(quantity) FROM cells GROUP BY item"


def queries(lasts: str) -> Mapping[Question, Mapping[str, str]]:
    """Return the queries of a database of rows; ``lasts`` selects ``item`` and ``last`` of the
    latest cells in its idiom.
    """
    every_mode = f"""{CELLS},
totals AS (SELECT item, SUM(quantity) AS sum, MAX(quantity) AS max FROM cells GROUP BY item),
lasts AS ({lasts})
SELECT item, sum, max, last FROM totals JOIN lasts USING (item)"""
    return {
        Question.PLAIN_SUM: {"group by": "SELECT item, SUM(quantity) FROM usage GROUP BY item"},
        Question.SUM: {"join form": JOIN + _SUM, "window form": WINDOW + _SUM},
        Question.MAX: {"join form": JOIN + CELLS + _MAX, "window form": WINDOW + CELLS + _MAX},
        Question.LAST: {"two steps, join form": _LATEST},
        Question.EVERY_MODE: {"join form": JOIN + every_mode, "window form": WINDOW + every_mode},
    }

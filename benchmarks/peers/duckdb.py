"""DuckDB: a table in memory, both cores, the result as an Arrow table."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks import tariff
from benchmarks.competing import aligned
from benchmarks.datasets import Dataset, Question
from benchmarks.peers import Way
from benchmarks.sql_forms import CELLS, JOIN, WINDOW

TAKEN_BACK: Final = """
WITH last_sets AS (
  SELECT item, timestamp, MAX(seq) AS last_set FROM usage WHERE is_set GROUP BY item, timestamp
),
signed AS (
  SELECT item, quantity FROM usage
  UNION ALL
  SELECT item, -quantity FROM usage JOIN last_sets USING (item, timestamp) WHERE seq < last_set
)
SELECT item, CAST(SUM(quantity) AS BIGINT) AS sum FROM signed GROUP BY item"""

LATEST: Final = """
WITH latest AS (SELECT item, MAX(timestamp) AS timestamp FROM usage GROUP BY item),
usage AS (SELECT usage.* FROM usage JOIN latest USING (item, timestamp)),"""

PLAIN_SUM: Final = "SELECT item, CAST(SUM(quantity) AS BIGINT) AS sum FROM usage GROUP BY item"
SUM: Final = " SELECT item, CAST(SUM(quantity) AS BIGINT) AS sum FROM counted GROUP BY item"
MAX: Final = " SELECT item, CAST(MAX(quantity) AS BIGINT) AS max FROM cells GROUP BY item"
EVERY_MODE: Final = """
SELECT
  item, CAST(SUM(quantity) AS BIGINT) AS sum, CAST(MAX(quantity) AS BIGINT) AS max,
  CAST(ARG_MAX(quantity, timestamp) AS BIGINT) AS last
FROM cells
GROUP BY item"""


def _latest(form: str) -> str:
    """Return a form over the records of each item's latest timestamp only."""
    return LATEST + form.strip().removeprefix("WITH") + SUM


QUERIES: Final = {
    Question.PLAIN_SUM: {"group by": PLAIN_SUM},
    Question.SUM: {
        "join form": JOIN + SUM,
        "window form": WINDOW + SUM,
        "what a set undid taken back": TAKEN_BACK,
    },
    Question.MAX: {"join form": JOIN + CELLS + MAX, "window form": WINDOW + CELLS + MAX},
    Question.LAST: {
        "two steps, join form": _latest(JOIN),
        "two steps, window form": _latest(WINDOW),
    },
    Question.EVERY_MODE: {
        "join form": JOIN + CELLS + EVERY_MODE,
        "window form": WINDOW + CELLS + EVERY_MODE,
    },
}


class DuckDB:
    """See :class:`~benchmarks.peers.Peer`."""

    def __init__(self, dataset: Dataset) -> None:
        self._items = dataset.items
        self._connection = duckdb.connect()
        self._connection.from_arrow(pa.table(dataset.columns())).create("usage")

    def ways(self, question: Question) -> Iterator[Way]:
        """Yield the ways to answer a question."""
        for form, text in QUERIES[question].items():
            yield Way(
                f"DuckDB, {form}", partial(partial, self._run, text), partial(aligned, self._items)
            )

    def _run(self, text: str) -> Any:
        return self._connection.sql(text).to_arrow_table()

    def close(self) -> None:
        """Give everything back."""
        self._connection.close()


# From a file to lines -----------------------------------------------------------------------------

FROM_FILE: Final = """
WITH usage AS (
  SELECT subscription_item AS item, timestamp, quantity, action = 'set' AS is_set,
    file_row_number AS seq
  FROM read_parquet('{file}', file_row_number = true)
),"""

LINES: Final = """
, totals AS (SELECT item, CAST(SUM(quantity) AS BIGINT) AS used FROM counted GROUP BY item),
billed AS (
  SELECT items.item, price, COALESCE(used, 0) AS used FROM items LEFT JOIN totals USING (item)
)
SELECT
  item, tier, LEAST(used, up_to) - above AS quantity,
  CAST(ROUND((LEAST(used, up_to) - above) * unit_amount) AS BIGINT) AS amount
FROM billed
JOIN tiers USING (price)
WHERE used > above OR tier = 1"""


def invoicing_ways(file: Path, dataset: Dataset) -> Iterator[Way]:
    """Yield the ways from a Parquet file to lines; the catalog is loaded already."""
    connection = duckdb.connect()
    names = dataset.item_ids()
    prices = [tariff.price_of(item) for item in range(dataset.items)]
    connection.from_arrow(pa.table({"item": names, "price": prices})).create("items")
    connection.execute(
        "CREATE TABLE tiers (price INT, tier INT, above BIGINT, up_to BIGINT, unit_amount "
        "DECIMAL(12, 3))"
    )
    connection.executemany(
        "INSERT INTO tiers VALUES (?, ?, ?, ?, ?)",
        [
            (row.price, row.tier, row.above, row.up_to, row.unit_amount)
            for row in tariff.tier_rows()
        ],
    )
    numbers = {name: code for code, name in enumerate(names)}
    for name, form in {"join form": JOIN, "window form": WINDOW}.items():
        text = FROM_FILE.format(file=file) + form.strip().removeprefix("WITH") + LINES
        yield Way(
            f"DuckDB, {name}",
            partial(partial, _table_of, connection, text),
            partial(_lines_of, numbers),
        )


def _table_of(connection: duckdb.DuckDBPyConnection, text: str) -> Any:
    return connection.sql(text).to_arrow_table()


def _lines_of(numbers: dict[str, int], table: Any) -> NDArray[Any]:
    codes = np.array([numbers[name] for name in table["item"].to_pylist()])
    return tariff.in_order(
        np.array([codes, *(table[name].to_numpy() for name in ("tier", "quantity", "amount"))])
    )


# Rating -------------------------------------------------------------------------------------------


def rating_ways(quantities: NDArray[Any]) -> Iterator[Way]:
    """Yield the SQL expressions that rate a column of quantities at the first price: in decimals,
    and in whole thousandths.
    """
    connection = duckdb.connect()
    connection.from_arrow(pa.table({"quantity": quantities})).create("used")
    rows = [row for row in tariff.tier_rows() if row.price == 0]
    # As narrow as the quantities are: products of wider decimals take 128 bits.
    in_decimals = " + ".join(
        f"ROUND({_units('CAST(quantity AS DECIMAL(9, 0))', row)} * {row.unit_amount})"
        for row in rows
    )
    half, places = tariff.PLACES // 2, tariff.PLACES
    in_integers = " + ".join(
        f"({_units('quantity', row)} * {int(row.unit_amount * places)} + {half}) // {places}"
        for row in rows
    )
    for name, expression in {"decimals": in_decimals, "scaled integers": in_integers}.items():
        text = f"SELECT CAST({expression} AS BIGINT) AS amount FROM used"  # noqa: S608 - numbers of our own
        run = partial(partial, _table_of, connection, text)
        yield Way(
            f"DuckDB, SQL expression in {name}", run, lambda table: table["amount"].to_numpy()
        )


def _units(quantity: str, row: tariff.TierRow) -> str:
    """Return the expression of the units in a tier."""
    upper = quantity if row.up_to == tariff.OPEN else f"LEAST({quantity}, {row.up_to})"
    return f"GREATEST({upper} - {row.above}, 0)"

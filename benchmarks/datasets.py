"""Large usage for the comparison with other tools: seeded columns, and the right answers worked out
without the library.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import attrs
import numpy as np
from numpy.typing import NDArray

from benchmarks.inputs import SEED, START

MINUTES: Final = 30 * 1440
"""Timestamps are whole minutes of the thirty days from :data:`~benchmarks.inputs.START` on."""

RECORDS_AN_ITEM: Final = 100
ITEMS_MAX: Final = 100_000
ROW_GROUP: Final = 1_000_000
"""Rows of a Parquet file that are written at a time."""
QUANTITY_BELOW: Final = 1_000

Integers = NDArray[np.int64]


class Question(StrEnum):
    """What is asked of each item's usage in the month; one number an item, or three."""

    PLAIN_SUM = "plain sum"
    SUM = "sum"
    MAX = "max"
    LAST = "last"
    EVERY_MODE = "every mode"


@attrs.frozen(eq=False)
class Dataset:
    """Usage records in the order of arrival, column by column.

    Attributes:
        name: of the shape, for people.
        items: how many subscription items there are.
        codes: which item each record is of, from 0.
        timestamps: Unix seconds, all in one billing period.
        quantities: units.
        sets: where the action is ``set``.
    """

    name: str
    items: int
    codes: NDArray[np.int32]
    timestamps: Integers
    quantities: Integers
    sets: NDArray[np.bool_]

    def __len__(self) -> int:
        """Return the number of records."""
        return len(self.codes)

    def columns(self) -> dict[str, NDArray[Any]]:
        """Return what a peer loads; ``seq`` is the order of arrival."""
        return {
            "item": self.codes,
            "timestamp": self.timestamps,
            "quantity": self.quantities,
            "is_set": self.sets,
            "seq": np.arange(len(self), dtype=np.int64),
        }

    def item_ids(self) -> list[str]:
        """Return the ids of the items, by code."""
        return [f"si_{code:07d}" for code in range(self.items)]

    def digest(self) -> str:
        """Return a hash of the content, the same on every machine."""
        return digest_of(self.codes, self.timestamps, self.quantities, self.sets)


def digest_of(*arrays: NDArray[Any]) -> str:
    """Return a short hash of arrays, in little-endian order."""
    content = hashlib.sha256()
    for array in arrays:
        content.update(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).data)
    return content.hexdigest()[:16]


def generated(records: int, set_share: float, *, is_skewed: bool = False) -> Dataset:
    """Return random usage; of skewed usage, half the records are of one item."""
    chosen = np.random.default_rng(SEED)
    items = min(max(records // RECORDS_AN_ITEM, 1), ITEMS_MAX)
    codes = chosen.integers(0, items, records, dtype=np.int32)
    if is_skewed:
        codes[chosen.random(records) < 0.5] = items // 2
    return Dataset(
        f"{records:,} records on {items:,} items" + (", half of them on one" if is_skewed else ""),
        items,
        codes,
        START + 60 * chosen.integers(0, MINUTES, records),
        chosen.integers(0, QUANTITY_BELOW, records),
        chosen.random(records) < set_share,
    )


def expected(dataset: Dataset) -> dict[Question, Integers]:
    """Return the right answers, one row a number and one column an item: one stable sort, then cell
    by cell.
    """
    order = np.lexsort((dataset.timestamps, dataset.codes))
    codes, timestamps, quantities = (
        column[order] for column in (dataset.codes, dataset.timestamps, dataset.quantities)
    )
    is_first = np.ones(len(order), np.bool_)
    is_first[1:] = (codes[1:] != codes[:-1]) | (timestamps[1:] != timestamps[:-1])
    # A running maximum of places: where the row's cell began, or its last `set` so far.
    places = np.arange(len(order))
    counts_from = np.maximum.accumulate(np.where(is_first | dataset.sets[order], places, 0))
    lasts = np.append(np.flatnonzero(is_first)[1:], len(order)) - 1
    running = np.cumsum(quantities)
    cells = running[lasts] - running[counts_from[lasts]] + quantities[counts_from[lasts]]
    owners = codes[lasts]
    sums, greatest, latest = (np.zeros(dataset.items, np.int64) for _ in range(3))
    np.add.at(sums, owners, cells)
    np.maximum.at(greatest, owners, cells)
    latest[owners] = cells  # Cells ascend in time, and the last assignment to an item stays.
    plain = np.zeros(dataset.items, np.int64)
    np.add.at(plain, dataset.codes, dataset.quantities)
    answers = {
        Question.PLAIN_SUM: [plain],
        Question.SUM: [sums],
        Question.MAX: [greatest],
        Question.LAST: [latest],
    }
    return {
        name: np.array(rows)
        for name, rows in {**answers, Question.EVERY_MODE: [sums, greatest, latest]}.items()
    }


def write_parquet(dataset: Dataset, file: Path) -> None:
    """Write the usage as it is delivered: ids and actions as strings, in the order of arrival."""
    import pyarrow as pa  # noqa: PLC0415 - only here
    from pyarrow import parquet  # noqa: PLC0415

    def strings(codes: NDArray[Any], names: list[str]) -> pa.Array:
        return pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(names)).cast(pa.string())

    def rows(part: slice) -> pa.Table:
        return pa.table(
            {
                "subscription_item": strings(dataset.codes[part], names),
                "timestamp": dataset.timestamps[part],
                "quantity": dataset.quantities[part],
                "action": strings(dataset.sets[part].astype(np.int8), ["increment", "set"]),
            }
        )

    names = dataset.item_ids()
    with parquet.ParquetWriter(file, rows(slice(0)).schema) as writer:
        for at in range(0, len(dataset), ROW_GROUP):
            writer.write_table(rows(slice(at, at + ROW_GROUP)))

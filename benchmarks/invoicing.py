"""Workload D: from a Parquet file with string ids to invoice lines of item, tier, quantity and
cents.

Timed is all from opening the file to a table of lines. The catalog is loaded before, in each tool's
own form.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pyarrow.dataset import ParquetFileFormat, dataset

import metering_core as mc
from benchmarks import competing, ours, tariff
from benchmarks.datasets import ROW_GROUP, Dataset, Question, expected, generated, write_parquet
from benchmarks.inputs import NOW, START
from benchmarks.measuring import Group, Row
from benchmarks.peers import Way, imported
from metering_core.bulk import InvoiceLines, invoice_lines
from metering_core.columnar import ColumnarUsage, UsageBatch
from metering_core.sql import DuckDBUsage

PEERS: Final = ("duckdb", "polars")
TARGETS: Final = {"DuckDB, window form": 1.3, "DuckDB, join form": 1 / 1.1}
"""How much faster we are to be than each of these."""


def measure(records: int, rounds: int, say: Callable[[str], None]) -> tuple[Group, str]:
    """Return the speed of each way, with the hash of the usage."""
    usage = generated(records, 0.05)
    lines = tariff.expected_lines(expected(usage)[Question.SUM][0])
    with TemporaryDirectory() as folder:
        file = Path(folder) / "usage.parquet"
        write_parquet(usage, file)
        ways = [*_ours(file, usage), *_peers(file, usage, say)]
        field = competing.race(ways, lines, rounds)
    title = (
        f"D: from Parquet to {lines.shape[1]:,} invoice lines, {usage.name}, 5% set (from the "
        "file to a table of lines)"
    )
    return (title, _rows(field, records)), usage.digest()


def _rows(field: list[competing.Turns], records: int) -> list[Row]:
    """Return the rows, and our best beside each form that it has a target against."""
    best = {one.way.name: one.best for one in field}
    made = competing.rows(field, records, "million records/s")
    fastest = min((one for one in field if one.way.is_ours), key=lambda one: one.best)
    return made + [
        Row(
            f"our best ({fastest.way.name}) against {name}",
            records / fastest.best / 1e6,
            "million records/s",
            ratio=best[name] / fastest.best,
            relative_to=name,
            at_least=target,
            answer=fastest.answer,
        )
        for name, target in TARGETS.items()
        if name in best
    ]


def _ours(file: Path, usage: Dataset) -> Iterator[Way]:
    """Yield ours: columns in memory, and DuckDB's engine under our SQL."""
    names, prices = usage.item_ids(), tariff.catalog()
    subscribed = ours.subscribed(
        names, [prices[tariff.price_of(item)] for item in range(usage.items)]
    )
    numbers = {name: code for code, name in enumerate(names)}
    answer = partial(_lines_of, numbers)
    yield Way(
        "metering_core columnar", partial(_in_columns, file, subscribed), answer, is_ours=True
    )
    in_place = partial(partial, _in_place, file, subscribed)
    yield Way("metering_core DuckDBUsage", in_place, answer, is_ours=True)


def _in_columns(file: Path, subscribed: list[mc.Subscription]) -> Callable[[], InvoiceLines]:
    """Read the file on all cores, append it, and bill."""
    usage = ColumnarUsage(subscribed)

    def run() -> InvoiceLines:
        # There are two actions: as a dictionary they are neither decoded nor encoded again.
        parquet = ParquetFileFormat(dictionary_columns=["action"])
        batch = UsageBatch.from_arrow(
            dataset(file, format=parquet).to_table(batch_size=ROW_GROUP), copy=False
        )
        usage.append(batch, now=NOW)
        return invoice_lines(subscribed, usage, START)

    return run


def _in_place(file: Path, subscribed: list[mc.Subscription]) -> InvoiceLines:
    usage = DuckDBUsage(file, subscribed, now=NOW)
    try:
        return invoice_lines(subscribed, usage, START)
    finally:
        usage.close()


def _lines_of(numbers: dict[str, int], found: InvoiceLines) -> NDArray[Any]:
    codes = np.array([numbers[item.id] for item, _ in found.items])
    lines = found.lines
    return tariff.in_order(
        np.array([codes[lines.rows], lines.tiers, lines.quantities, lines.amounts])
    )


def _peers(file: Path, usage: Dataset, say: Callable[[str], None]) -> Iterator[Way]:
    for _, module in imported(PEERS, say):
        yield from module.invoicing_ways(file, usage)

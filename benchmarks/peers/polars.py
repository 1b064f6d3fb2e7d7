"""Polars: a data frame in memory, lazy queries, both cores; once with the default engine and once
with the streaming one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import attrs
import numpy as np
import polars as pl
from numpy.typing import NDArray

from benchmarks import tariff
from benchmarks.competing import aligned
from benchmarks.datasets import Dataset, Question
from benchmarks.peers import Way

CELL: Final = ["item", "timestamp"]
COUNTS: Final = pl.col("last_set").is_null() | (pl.col("seq") >= pl.col("last_set"))


def last_sets(usage: pl.LazyFrame) -> pl.LazyFrame:
    """Return the last `set` of each cell that has one."""
    return usage.filter("is_set").group_by(CELL).agg(last_set=pl.col("seq").max())


def joined(usage: pl.LazyFrame) -> pl.LazyFrame:
    """Return the records that count, by a join with the last `set` of each cell."""
    return usage.join(last_sets(usage), on=CELL, how="left").filter(COUNTS)


def windowed(usage: pl.LazyFrame) -> pl.LazyFrame:
    """Return the records that count, by a window over each cell."""
    return usage.with_columns(last_set=pl.when("is_set").then("seq").max().over(CELL)).filter(
        COUNTS
    )


def total(counted: pl.LazyFrame) -> pl.LazyFrame:
    """Return what the quantities of each item add up to."""
    return counted.group_by("item").agg(sum=pl.col("quantity").sum())


def cells(counted: pl.LazyFrame) -> pl.LazyFrame:
    """Return what the records of each cell add up to."""
    return counted.group_by(CELL).agg(pl.col("quantity").sum())


def taken_back(usage: pl.LazyFrame) -> pl.LazyFrame:
    """Return what all records add up to, less those that a later `set` undid."""
    undone = usage.join(last_sets(usage), on=CELL).filter(pl.col("seq") < pl.col("last_set"))
    return total(
        pl.concat([usage.select("item", "quantity"), undone.select("item", -pl.col("quantity"))])
    )


def greatest(counted: pl.LazyFrame) -> pl.LazyFrame:
    """Return the greatest cell of each item."""
    return cells(counted).group_by("item").agg(max=pl.col("quantity").max())


def last(usage: pl.LazyFrame) -> pl.LazyFrame:
    """Return the latest cells, in two steps: the greatest timestamps, and then only the records
    there.
    """
    latest = usage.group_by("item").agg(pl.col("timestamp").max())
    return total(joined(usage.join(latest, on=CELL, how="semi")))


def every_mode(counted: pl.LazyFrame) -> pl.LazyFrame:
    """Return sum, greatest and latest of each item's cells."""
    quantity = pl.col("quantity")
    latest = quantity.sort_by("timestamp").last()
    return cells(counted).group_by("item").agg(sum=quantity.sum(), max=quantity.max(), last=latest)


Query = Callable[[pl.LazyFrame], pl.LazyFrame]
QUERIES: Final[Mapping[Question, Mapping[str, Query]]] = {
    Question.PLAIN_SUM: {"group by": total},
    Question.SUM: {
        "join form": lambda usage: total(joined(usage)),
        "window form": lambda usage: total(windowed(usage)),
        "what a set undid taken back": taken_back,
    },
    Question.MAX: {"join form": lambda usage: greatest(joined(usage))},
    Question.LAST: {"two steps, join form": last},
    Question.EVERY_MODE: {"join form": lambda usage: every_mode(joined(usage))},
}
ENGINES: Final[Mapping[str, Literal["in-memory", "streaming"]]] = {
    "Polars": "in-memory",
    "Polars streaming": "streaming",
}
_NOT_STREAMED: Final = "window form"
"""The streaming engine hands windows over to the other one."""


class Polars:
    """See :class:`~benchmarks.peers.Peer`."""

    def __init__(self, dataset: Dataset) -> None:
        self._items = dataset.items
        self._usage = pl.DataFrame(dataset.columns()).lazy()

    def ways(self, question: Question) -> Iterator[Way]:
        """Yield the ways to answer a question."""
        for form, query in QUERIES[question].items():
            for name, engine in ENGINES.items():
                if engine == "in-memory" or form != _NOT_STREAMED:
                    run = partial(query(self._usage).collect, engine=engine)
                    yield Way(
                        f"{name}, {form}", partial(partial, run), partial(aligned, self._items)
                    )

    def close(self) -> None:
        """Give everything back."""
        del self._usage


# From a file to lines -----------------------------------------------------------------------------


def lines(usage: pl.LazyFrame, items: pl.LazyFrame, tiers: pl.LazyFrame) -> pl.LazyFrame:
    """Return the lines of each item: its usage cut at the bounds of its price, each part in whole
    thousandths of a cent.
    """
    used, above = pl.col("sum").fill_null(0), pl.col("above")
    billed = (
        items.join(total(joined(usage)), on="item", how="left")
        .with_columns(used=used)
        .join(tiers, on="price")
    )
    units = pl.min_horizontal("used", "up_to") - above
    half = tariff.PLACES // 2
    reached = billed.filter((pl.col("used") > above) | (pl.col("tier") == 1)).with_columns(
        quantity=units
    )
    amount = (pl.col("quantity") * pl.col("thousandths") + half) // tariff.PLACES
    return reached.select("item", "tier", "quantity", amount.alias("amount"))


def invoicing_ways(file: Path, dataset: Dataset) -> Iterator[Way]:
    """Yield the ways from a Parquet file to lines; the catalog is loaded already."""
    names = dataset.item_ids()
    items = pl.DataFrame(
        {"item": names, "price": [tariff.price_of(item) for item in range(dataset.items)]}
    ).lazy()
    rows = [
        attrs.asdict(row) | {"thousandths": int(row.unit_amount * tariff.PLACES)}
        for row in tariff.tier_rows()
    ]
    tiers = pl.DataFrame(rows).drop("unit_amount").lazy()
    scanned = pl.scan_parquet(file, row_index_name="seq")
    usage = scanned.select(
        "seq", "timestamp", "quantity", item="subscription_item", is_set=pl.col("action") == "set"
    )
    numbers = {name: code for code, name in enumerate(names)}
    for name, engine in ENGINES.items():
        run = partial(lines(usage, items, tiers).collect, engine=engine)
        yield Way(f"{name}, join form", partial(partial, run), partial(_lines_of, numbers))


def _lines_of(numbers: dict[str, int], found: pl.DataFrame) -> NDArray[Any]:
    codes = np.array([numbers[name] for name in found["item"].to_list()])
    return tariff.in_order(
        np.array([codes, *(found[name].to_numpy() for name in ("tier", "quantity", "amount"))])
    )


# Rating -------------------------------------------------------------------------------------------


def rating_ways(quantities: NDArray[Any]) -> Iterator[Way]:
    """Yield the expression that rates a column of quantities at the first price, in whole
    thousandths of a cent.
    """
    used = pl.DataFrame({"quantity": quantities}).lazy()
    half, quantity = tariff.PLACES // 2, pl.col("quantity")
    amount = pl.sum_horizontal(
        (
            (quantity.clip(row.above, row.up_to) - row.above) * int(row.unit_amount * tariff.PLACES)
            + half
        )
        // tariff.PLACES
        for row in tariff.tier_rows()
        if row.price == 0
    )
    run = used.select(amount=amount).collect
    yield Way(
        "Polars, expression in scaled integers",
        partial(partial, run),
        lambda found: found["amount"].to_numpy(),
    )

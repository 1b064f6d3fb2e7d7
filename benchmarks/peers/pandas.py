"""pandas: a data frame of NumPy columns, one core, which is all that it uses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Final

import pandas as pd

from benchmarks.competing import aligned
from benchmarks.datasets import Dataset, Question
from benchmarks.peers import Way

CELL: Final = ["item", "timestamp"]


def counted(usage: pd.DataFrame) -> pd.DataFrame:
    """Return the records that count: none before the last `set` of its cell."""
    last_sets = usage[usage["is_set"]].groupby(CELL, sort=False)["seq"].max().rename("last_set")
    if last_sets.empty:
        return usage
    joined = usage.join(last_sets, on=CELL)
    return joined[~(joined["seq"] < joined["last_set"])]


def plain_sum(usage: pd.DataFrame) -> pd.DataFrame:
    """Return what the quantities of each item add up to."""
    return usage.groupby("item", sort=False)["quantity"].sum().reset_index()


def cells(usage: pd.DataFrame) -> pd.DataFrame:
    """Return what the records of each cell that count add up to."""
    return counted(usage).groupby(CELL, sort=False)["quantity"].sum().reset_index()


def greatest(usage: pd.DataFrame) -> pd.DataFrame:
    """Return the greatest cell of each item."""
    return cells(usage).groupby("item", sort=False)["quantity"].max().reset_index()


def last(usage: pd.DataFrame) -> pd.DataFrame:
    """Return the latest cells, in two steps: the greatest timestamps, and then only the records
    there.
    """
    is_latest = usage["timestamp"] == usage.groupby("item", sort=False)["timestamp"].transform(
        "max"
    )
    return plain_sum(counted(usage[is_latest]))


def every_mode(usage: pd.DataFrame) -> pd.DataFrame:
    """Return sum, greatest and latest of each item's cells."""
    by_time = cells(usage).sort_values("timestamp")
    return by_time.groupby("item", sort=False)["quantity"].agg(["sum", "max", "last"]).reset_index()


QUERIES: Final[Mapping[Question, Callable[[pd.DataFrame], pd.DataFrame]]] = {
    Question.PLAIN_SUM: plain_sum,
    Question.SUM: lambda usage: plain_sum(counted(usage)),
    Question.MAX: greatest,
    Question.LAST: last,
    Question.EVERY_MODE: every_mode,
}


class Pandas:
    """See :class:`~benchmarks.peers.Peer`."""

    def __init__(self, dataset: Dataset) -> None:
        self._items = dataset.items
        self._usage = pd.DataFrame(dataset.columns())

    def ways(self, question: Question) -> Iterator[Way]:
        """Yield the ways to answer a question."""
        run = partial(QUERIES[question], self._usage)
        yield Way("pandas", partial(partial, run), partial(aligned, self._items))

    def close(self) -> None:
        """Give everything back."""
        del self._usage

"""Side by side with other tools: by turns, by the wall clock, best of several, every answer
compared.

Other tools use all cores, so the processor time of :mod:`~benchmarks.measuring` says nothing here:
the clock is the wall's. Who cannot win any more takes no further turn. Our own answer must be
right; of a peer's that is not, the row says by how much.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Sequence
from time import perf_counter
from typing import Any, Final

import attrs
import numpy as np
from numpy.typing import NDArray

from benchmarks.datasets import digest_of
from benchmarks.measuring import Row
from benchmarks.peers import Way

HOPELESS: Final = 2.0
"""Who is so many times slower than the fastest of its side takes no further turn: no ratio depends
on it.
"""


@attrs.define
class Turns:
    """What is known of one way.

    Attributes:
        way: whose turns they are.
        best: seconds of the fastest.
        answer: hash of the answer.
        fault: by how much the answer is wrong; None where it is right.
    """

    way: Way
    best: float = float("inf")
    answer: str | None = None
    fault: str | None = None

    def take(self, expected: NDArray[Any]) -> None:
        """Run once more; the first result is compared."""
        run = self.way.prepare()
        gc.collect()
        began = perf_counter()
        result = run()
        took = perf_counter() - began
        if self.answer is None:
            self._check(self.way.answer(result), expected)
        self.best = min(self.best, took)

    def _check(self, found: NDArray[Any], expected: NDArray[Any]) -> None:
        self.answer = digest_of(found)
        self.fault = fault_of(found, expected)
        assert self.fault is None or not self.way.is_ours, (
            f"fast, but {self.fault}: {self.way.name}"
        )


def fault_of(found: NDArray[Any], expected: NDArray[Any]) -> str | None:
    """Say by how much an answer is wrong; None where it is right to the last digit."""
    if found.shape != expected.shape:
        return f"wrong: {found.shape} numbers instead of {expected.shape}"
    wrong = found != expected
    if not wrong.any():
        return None
    most = float(np.abs(found[wrong] - expected[wrong]).max())
    return f"wrong in {np.count_nonzero(wrong):,} of {wrong.size:,}, by up to {most:g}"


def race(ways: Iterable[Way], expected: NDArray[Any], rounds: int) -> list[Turns]:
    """Run all by turns and return what is known of each, ours first, the others by speed."""
    field = [Turns(way) for way in ways]
    gc.freeze()  # Inputs would otherwise be walked again and again.
    try:
        for _ in range(rounds):
            for one in [one for one in field if _has_hope(one, field)]:
                one.take(expected)
    finally:
        gc.unfreeze()
    return sorted(field, key=lambda one: (not one.way.is_ours, one.best))


def _has_hope(one: Turns, field: Sequence[Turns]) -> bool:
    """Say whether another turn can matter: of ours each may have its own target, of the peers only
    the fastest counts.
    """
    fastest = min(other.best for other in field if other.way.is_ours == one.way.is_ours)
    return one.answer is None or one.best <= HOPELESS * fastest


def rows(
    field: Sequence[Turns], number: int, unit: str, at_least: float | None = None
) -> list[Row]:
    """Return a row each: ours in relation to the best peer that is right, each peer in relation to
    our best.

    Args:
        field: what :func:`race` returned.
        number: of records or whatever is counted in millions a second.
        unit: of the speed.
        at_least: the target of ours.
    """
    ours = [one for one in field if one.way.is_ours]
    peers = [one for one in field if not one.way.is_ours]
    right = [one for one in peers if one.fault is None]
    made = [
        _row(one, min(right, key=lambda peer: peer.best, default=None), number, unit, at_least)
        for one in ours
    ]
    return made + [_row(one, ours[0], number, unit, None) for one in peers]


def _row(one: Turns, other: Turns | None, number: int, unit: str, at_least: float | None) -> Row:
    return Row(
        one.way.name,
        number / one.best / 1e6,
        unit,
        ratio=None if other is None else other.best / one.best,
        relative_to=None if other is None else other.way.name,
        at_least=at_least if other is not None else None,
        answer=one.answer,
        note=one.fault,
    )


# Results as arrays --------------------------------------------------------------------------------


def aligned(items: int, table: Any) -> NDArray[Any]:
    """Return the columns of a table beside ``item`` as rows, in the order of the items; an item
    that is absent has 0.
    """
    names = list(table.columns) if not hasattr(table, "column_names") else table.column_names
    codes, *values = (np.asarray(table[name]) for name in names)
    return placed(items, codes, values)


def aligned_rows(items: int, found: list[Any]) -> NDArray[Any]:
    """Return rows of item and numbers as arrays in the order of the items."""
    codes, *values = (
        np.array([int(value) for value in column]) for column in zip(*found, strict=True)
    )
    return placed(items, codes, values)


def placed(items: int, codes: NDArray[Any], values: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Return numbers in the order of the items."""
    are_whole = all(value.dtype.kind in "iu" for value in values)
    answer = np.zeros((len(values), items), np.int64 if are_whole else np.float64)
    answer[:, codes] = values
    return answer

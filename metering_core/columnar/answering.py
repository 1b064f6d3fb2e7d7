"""Questions to columns: the partials of items, one by one from an index of cells, or of all items at once from the rows.

The index is made of sorted runs of cells. Later rows make later runs, and runs of like size are merged, so that asking between
small batches stays cheap. It is built when single items are asked for; many items at once need none.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import attrs
import numpy as np
from numpy.typing import NDArray

from metering_core.aggregation import AGGREGATORS, Partial
from metering_core.cells import ItemCells
from metering_core.columnar.kernel import (
    INT64_MAX,
    ORIGIN,
    Cells,
    Integers,
    Rows,
    Totals,
    Window,
    fold,
    lasts,
    maxima,
    merge,
    sums,
    whole,
)
from metering_core.periods import BillingCycle, BillingPeriod
from metering_core.prices import AggregateUsage

_MANY: Final = 64
"""So many questions at once are answered from the rows, item by item otherwise."""


@attrs.frozen(eq=False)
class Part:
    """Accepted rows that arrived together.

    Attributes:
        rows: the columns.
        numbers: the sequence numbers, ascending.
        received: when each was received in Unix microseconds, or when all were.
    """

    rows: Rows
    numbers: range | Integers
    received: int | Integers

    def where(self, flags: NDArray[np.bool_]) -> Part:
        """Return some of the rows."""
        if flags.all():
            return self
        received = self.received if isinstance(self.received, int) else self.received[flags]
        return Part(self.rows.part(flags), self.all_numbers()[flags], received)

    def all_numbers(self) -> Integers:
        """Return the sequence numbers as an array."""
        return np.asarray(self.numbers, dtype=np.int64)

    def place_of(self, number: int) -> int:
        """Return the row with a number."""
        return int(np.searchsorted(self.numbers, number)) if not isinstance(self.numbers, range) else self.numbers.index(number)

    def received_at(self, place: int) -> int:
        """Return when a row was received, in Unix microseconds."""
        return self.received if isinstance(self.received, int) else int(self.received[place])

    def is_seen(self, sequence: int, received_by: int | None) -> NDArray[np.bool_]:
        """Say which rows have at most this number and were received by this moment."""
        flags = self.all_numbers() <= sequence
        return flags if received_by is None else flags & (self.received <= received_by)


@attrs.frozen
class Question:
    """One item's period: the code, the mode and the period."""

    code: int
    mode: AggregateUsage
    period: BillingPeriod

    @property
    def first(self) -> int:
        """The first second that counts."""
        return ORIGIN if AGGREGATORS[self.mode].looks_back else self.period.start_seconds


class Answers:
    """Some accepted rows and what was derived from them.

    Attributes:
        parts: the rows, in the order of arrival.
        beside: the cells that are not in the rows, by code: those of late usage that was attributed to a later period, and
            what compaction kept.
    """

    def __init__(self, parts: Iterable[Part] = ()) -> None:
        self.parts: list[Part] = list(parts)
        self.beside: dict[int, ItemCells] = {}
        self._runs: list[Cells] = []
        self._indexed = 0

    # One by one ------------------------------------------------------------------------------------------------------

    def _index(self) -> list[Cells]:
        """Fold what came since the last question."""
        for part in self.parts[self._indexed :]:
            self._runs.append(fold(part.rows))
            while len(self._runs) > 1 and len(self._runs[-2]) <= 2 * len(self._runs[-1]):
                later, earlier = self._runs.pop(), self._runs.pop()
                self._runs.append(merge([earlier, later]))
        self._indexed = len(self.parts)
        return self._runs

    def cells(self, code: int, first: int, end: int) -> Cells:
        """Return an item's cells from ``first`` to before ``end``, those beside the rows excepted."""
        return merge([run.between(code, first, end) for run in self._index()])

    def partial(self, question: Question) -> Partial:
        """Answer one question."""
        found = self.cells(question.code, question.first, question.period.end_seconds)
        aggregator = AGGREGATORS[question.mode]
        partial = _PARTIALS.get(question.mode, _fold_of(question.mode))(found) if len(found) else aggregator.identity
        return self._with_beside(question, partial)

    def _with_beside(self, question: Question, partial: Partial) -> Partial:
        beside = self.beside.get(question.code)
        if beside is None:
            return partial
        aggregator = AGGREGATORS[question.mode]
        return aggregator.merge(partial, beside.partial(aggregator, question.period))

    def item_cells(self, code: int, cycle: BillingCycle) -> ItemCells:
        """Return all cells of an item by period, as the log keeps them."""
        found = self.cells(code, ORIGIN, 2**62)
        cells = ItemCells(cycle)
        for stamp, quantity in zip(found.stamps.tolist(), whole(found.limbs), strict=True):
            cells.at(stamp).cells[stamp] = quantity
        for period in self.beside.get(code, ()):
            if period.kept is not None or period.is_lost:
                cells.share(period)
            else:
                cells.at(period.start).cells.update(period.cells)
        return cells

    # Many at once ----------------------------------------------------------------------------------------------------

    def partials(self, questions: Sequence[Question], items: int) -> list[Partial]:
        """Answer many questions about ``items`` items in their order."""
        if len(questions) < _MANY or any(question.mode not in _BULK for question in questions):
            return [self.partial(question) for question in questions]
        answers: list[Partial] = [None] * len(questions)
        for places in _asked_together(questions):
            together = [questions[place] for place in places]
            for place, question, partial in zip(places, together, self._in_bulk(together, items), strict=True):
                answers[place] = self._with_beside(question, partial)
        return answers

    def _in_bulk(self, questions: Sequence[Question], items: int) -> list[Partial]:
        """Answer questions of one mode, each about another item."""
        codes = np.array([question.code for question in questions], np.intp)
        window = Window(np.full(items, INT64_MAX, np.int64), np.full(items, ORIGIN, np.int64))
        window.lows[codes] = [question.first for question in questions]
        window.highs[codes] = [question.period.end_seconds for question in questions]
        return _BULK[questions[0].mode](self._sources(), window, codes)

    def _sources(self) -> list[Rows]:
        """Return the cells where all rows are folded already, else the rows."""
        if self._indexed < len(self.parts) or not self._runs:
            return [part.rows for part in self.parts]
        self._runs = [merge(self._runs)]
        return [self._runs[0].as_rows()]


def _asked_together(questions: Sequence[Question]) -> list[list[int]]:
    """Group questions so that in each group the mode is one and no item occurs twice; by their places."""
    groups: defaultdict[tuple[AggregateUsage, int], list[int]] = defaultdict(list)
    asked: defaultdict[int, int] = defaultdict(int)
    for place, question in enumerate(questions):
        groups[question.mode, asked[question.code]].append(place)
        asked[question.code] += 1
    return list(groups.values())


# The partial of each mode, in the shape of its aggregator ---------------------------------------------------------------


def _sum_of(cells: Cells) -> int:
    if len(cells.limbs) == 2:
        upper, lower = (int(limb.sum()) for limb in cells.limbs)
        return (upper << 32) + lower
    assert cells.bound <= INT64_MAX, "or the fold would have made two limbs"
    return int(cells.limbs[0].sum())


def _max_of(cells: Cells) -> int:
    return max(whole(cells.limbs)) if len(cells.limbs) == 2 else int(cells.limbs[0].max())


def _last_of(cells: Cells) -> tuple[int, int]:
    latest = cells.part(slice(-1, None))
    return int(latest.stamps[0]), whole(latest.limbs)[0]


def _fold_of(mode: AggregateUsage) -> Callable[[Cells], Partial]:
    """Return what makes the partial of a mode that has no faster way."""
    return lambda cells: AGGREGATORS[mode].fold(dict(zip(cells.stamps.tolist(), whole(cells.limbs), strict=True)))


_PARTIALS: Final[Mapping[AggregateUsage, Callable[[Cells], Partial]]] = {
    AggregateUsage.SUM: _sum_of,
    AggregateUsage.MAX: _max_of,
    AggregateUsage.LAST_DURING_PERIOD: _last_of,
    AggregateUsage.LAST_EVER: _last_of,
}


def _chosen(totals: Totals, codes: NDArray[np.intp]) -> list[int]:
    return whole(tuple(limb[codes] for limb in totals.limbs))


def _sums_in_bulk(parts: Sequence[Rows], window: Window, codes: NDArray[np.intp]) -> list[Partial]:
    return _chosen(sums(parts, window), codes)


def _maxima_in_bulk(parts: Sequence[Rows], window: Window, codes: NDArray[np.intp]) -> list[Partial]:
    totals = maxima(parts, window)
    assert totals.is_there is not None, "a maximum may be absent"
    there = totals.is_there[codes].tolist()
    return [value if found else None for value, found in zip(_chosen(totals, codes), there, strict=True)]


def _lasts_in_bulk(parts: Sequence[Rows], window: Window, codes: NDArray[np.intp]) -> list[Partial]:
    totals = lasts(parts, window)
    assert totals.is_there is not None, "a last cell may be absent"
    assert totals.stamps is not None, "a last cell has a timestamp"
    columns = (totals.stamps[codes].tolist(), _chosen(totals, codes), totals.is_there[codes].tolist())
    return [(stamp, value) if found else None for stamp, value, found in zip(*columns, strict=True)]


_BULK: Final[Mapping[AggregateUsage, Callable[[Sequence[Rows], Window, NDArray[np.intp]], list[Partial]]]] = {
    AggregateUsage.SUM: _sums_in_bulk,
    AggregateUsage.MAX: _maxima_in_bulk,
    AggregateUsage.LAST_DURING_PERIOD: _lasts_in_bulk,
    AggregateUsage.LAST_EVER: _lasts_in_bulk,
}

"""Measures: how cells become one quantity. One row of a table knows everything that depends on a
mode or a formula.

Each row is a commutative monoid over the values of the cells (after Algebird's ``Aggregator``):
``prepare`` a cell, ``merge`` partials in any order, ``present`` the quantity. Partials of disjoint
cells merge to the partial of all of them, so usage may be split over machines as long as no cell is
cut.

Beside its algebra a row says what explanations call it and which cells decide, what computes it in
columns, what it takes of what SQL folds, and how snapshots write its partial. Engines, explanations
and snapshots read the row; one that lacks what a row names refuses it by name.

Usage records are measured by the modes of :data:`AGGREGATORS`; there a cell is all usage at one
timestamp. Meter events are measured by :data:`FORMULAS`; there every event that counts is a cell of
its own, told apart by its number in the log.

Adding a mode or a formula is one class in this file, its row in the table and its name in
:class:`~metering_core.AggregateUsage` or :class:`~metering_core.Formula`.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from functools import reduce
from itertools import pairwise
from typing import Any, ClassVar, Literal, TypeAlias, TypeVar

import attrs

from metering_core.errors import ErrorCode, InvoicingError
from metering_core.exact import (
    Number,
    add,
    multiply,
    read_number,
    read_whole,
    subtract,
    whole_if_possible,
    written,
)
from metering_core.meters import Formula, Meter
from metering_core.periods import MICROSECONDS
from metering_core.prices import AggregateUsage
from metering_core.usage import Cell

__all__ = ["AGGREGATORS", "Aggregator", "FORMULAS"]

Partial: TypeAlias = Any
"""What a mode needs to remember about some of the cells; only its own row looks inside."""


@attrs.frozen
class Folded:
    """What SQL's folding says of the cells of one question, in Python's own numbers.

    Attributes:
        texts: the different values, where they are texts that are counted.
        count: how many cells there are.
        total: their sum.
        greatest: the greatest of them.
        least: the least of them.
        latest: what is the latest cell's, as (moment, value).
        moment: the sum of the values times their moments, where they are weighed by time.
        peaks: the greatest cell of each window that has one, by the window's number, where they
            were folded by windows.
        window: over which time; SQL folds what lies within a window and what lies before it apart,
            and knows of none.
    """

    texts: frozenset[str | None]
    count: int
    total: Number
    greatest: Number
    least: Number
    latest: tuple[Any, Number]
    moment: Number
    peaks: tuple[tuple[int, Number], ...] = ()
    window: None = None


class Aggregator:
    """One aggregation mode or formula: a row of the table.

    Subclasses say the four functions; the rest is derived, and may be overridden for speed. What
    belongs to a row of this package and not to one of the user's own (words, kernels, codec) has
    defaults that refuse or say nothing.

    Attributes:
        identity: the partial of no cells.
        looks_back: whether the cells of all earlier periods count too, as in ``last_ever``.
        is_additive: whether the quantities of the parts of any split (of time, customers or
            dimensions) add up to the whole's.
        splits_cells: whether they do so even where the split goes through a cell: a part of what is
            used at one second may be billed beside the rest. Two parts of one second are one second
            for a count.
        is_weighed: whether the quantity is an average over the time of the window, so that a part
            of a billing period has that part of it.
        takes: what of an event's payload it works on: a ``number``, any ``text``, or ``nothing``,
            and an event counts as 1.
        window_seconds: the length of the UTC windows in which cells are looked at first; 0 where
            they are not.
        words: what the quantity is, for explanations; ``{cell}`` and ``{cells}`` stand for what the
            log calls them.
        column: the name of what computes it in columns; None where nothing does.
        sql: which fields of :class:`Folded` make its partial, one alone or several as a tuple; none
            where SQL cannot compute it.
    """

    identity: Partial = None
    looks_back: bool = False
    is_additive: bool = False
    splits_cells: bool = False
    is_weighed: bool = False
    window_seconds: int = 0
    takes: ClassVar[Literal["number", "text", "nothing"]] = "number"
    words: str = "what the {cells} come to"
    column: ClassVar[str | None] = None
    sql: ClassVar[tuple[str, ...]] = ()

    def prepare(self, timestamp: int, quantity: Number) -> Partial:
        """Return the partial of one cell."""
        raise NotImplementedError

    def merge(self, left: Partial, right: Partial) -> Partial:
        """Return the partial of two disjoint sets of cells; associative and commutative."""
        raise NotImplementedError

    def present(self, partial: Partial) -> Number:
        """Return the quantity that is billed."""
        raise NotImplementedError

    def billed(self, partial: Partial, share: Fraction) -> Number:
        """Return the quantity of a billing period, of which a subscription lived through a
        ``share``.

        A level counts for the time that it was there, of the whole period's: 10 on one day of 30 is
        a third. All else is what :meth:`present` says, since usage is billed as it was used.
        """
        quantity = self.present(partial)
        return (
            whole_if_possible(multiply(quantity, share))
            if self.is_weighed and share != 1
            else quantity
        )

    def prepare_event(self, microseconds: int, sequence: int, value: Any) -> Partial:
        """Return the partial of one event; ``sequence`` tells those of one moment apart."""
        return self.prepare(microseconds, value)

    def over(self, within: Partial, before: Partial, start: int, end: int) -> Partial:
        """Return what ``[start, end)`` comes to: its cells, and what was before them."""
        return self.merge(before, within) if self.looks_back else within

    def fold(self, cells: Mapping[int, Number]) -> Partial:
        """Return the partial of cells given as timestamp → quantity."""
        prepared = (self.prepare(timestamp, quantity) for timestamp, quantity in cells.items())
        return reduce(self.merge, prepared, self.identity)

    def running(self, cells: Mapping[int, Number]) -> Running:
        """Return a partial that is kept up to date while ``cells`` change."""
        return Running(self, cells)

    def follow(
        self, partial: Partial, timestamp: int, before: Number | None, after: Number
    ) -> Partial | None:
        """Return the partial after a cell changed (``before`` None: it came), or None."""
        return None

    def deciding(self, cells: Sequence[Cell], quantity: Number) -> Sequence[Cell]:
        """Return the cells, given in the order of time, that make their quantity."""
        return cells

    def of_folded(self, folded: Folded) -> Partial:
        """Return the partial of cells that SQL folded."""
        fields = tuple(getattr(folded, field) for field in self.sql)
        return fields[0] if len(fields) == 1 else fields

    def write(self, partial: Partial) -> Any:
        """Write a partial as plain data."""
        return written(partial)

    def read(self, data: Any) -> Partial:
        """Return the partial that :meth:`write` wrote; else raise TypeError or ValueError."""
        return read_number(data)


class Running:
    """The partial of a growing set of cells; constant time where the mode follows changes."""

    __slots__ = ("_aggregator", "_cells", "_partial")

    def __init__(self, aggregator: Aggregator, cells: Mapping[int, Number]) -> None:
        self._aggregator = aggregator
        self._cells = cells
        self._partial: Partial | None = None

    def changed(self, timestamp: int, before: Number | None, after: Number) -> None:
        """Take notice that a cell changed; ``cells`` holds ``after`` already."""
        if self._partial is not None:
            self._partial = self._aggregator.follow(self._partial, timestamp, before, after)

    def partial(self) -> Partial:
        """Return the partial of all cells as they are now."""
        if self._partial is None:
            self._partial = self._aggregator.fold(self._cells)
        return self._partial


class _Sum(Aggregator):
    """All usage added."""

    identity = 0
    is_additive = splits_cells = True
    words = "the sum of the {cells}"
    column = "sums"
    sql = ("total",)

    def prepare(self, timestamp: int, quantity: Number) -> Partial:
        return quantity

    def merge(self, left: Partial, right: Partial) -> Partial:
        return add(left, right)

    def present(self, partial: Partial) -> Number:
        quantity: Number = partial
        return quantity

    def fold(self, cells: Mapping[int, Number]) -> Partial:
        # The cells of usage records are ints, and summing them in C is 20 times the speed of
        # merging them.
        return sum(cells.values())

    def follow(
        self, partial: Partial, timestamp: int, before: Number | None, after: Number
    ) -> Partial | None:
        return add(partial, after if before is None else subtract(after, before))


class _Extreme(Aggregator):
    """One of the cells, by its value; 0 without one."""

    def prepare(self, timestamp: int, quantity: Number) -> Partial:
        return quantity

    def present(self, partial: Partial) -> Number:
        return 0 if partial is None else partial

    def deciding(self, cells: Sequence[Cell], quantity: Number) -> Sequence[Cell]:
        return tuple(cell for cell in cells if cell.quantity == quantity)

    def write(self, partial: Partial) -> Any:
        return None if partial is None else written(partial)

    def read(self, data: Any) -> Partial:
        return None if data is None else read_number(data)


class _Max(_Extreme):
    """The greatest cell; 0 without one."""

    words = "the greatest {cell}"
    column = "maxima"
    sql = ("greatest",)

    def merge(self, left: Partial, right: Partial) -> Partial:
        if left is None or right is None:
            return right if left is None else left
        return max(left, right)

    def fold(self, cells: Mapping[int, Number]) -> Partial:
        return max(cells.values(), default=None)

    def running(self, cells: Mapping[int, Number]) -> Running:
        return _RunningExtreme(self, cells, 1)


class _RunningExtreme(Running):
    """The best cell although cells may get worse: a heap of candidates, in which stale ones are
    dropped when they surface.

    Best is the greatest where ``sign`` is 1, and the least where it is -1. The heap is built when
    the best cell first gets worse; usage that only gets better never pays for it.
    """

    __slots__ = ("_heap", "_sign")

    def __init__(self, aggregator: Aggregator, cells: Mapping[int, Number], sign: int) -> None:
        super().__init__(aggregator, cells)
        self._sign = sign
        self._heap: list[tuple[Number, int]] | None = None

    def changed(self, timestamp: int, before: Number | None, after: Number) -> None:
        if self._heap is not None:
            heapq.heappush(self._heap, (-self._sign * after, timestamp))
            if len(self._heap) > 2 * len(self._cells) + 64:
                self._heap = None
        if self._partial is None:
            return
        if self._sign * after >= self._sign * self._partial:
            self._partial = after
        elif before == self._partial:
            self._partial = self._best()

    def _best(self) -> Number:
        if self._heap is None:
            self._heap = [
                (-self._sign * quantity, timestamp) for timestamp, quantity in self._cells.items()
            ]
            heapq.heapify(self._heap)
        while -self._sign * self._heap[0][0] != self._cells[self._heap[0][1]]:
            heapq.heappop(self._heap)
        return -self._sign * self._heap[0][0]


class _Last(Aggregator):
    """The cell with the greatest timestamp; 0 without one. A partial is (timestamp, quantity)."""

    words = "the latest {cell}"
    column = "lasts"
    sql = ("latest",)

    def prepare(self, timestamp: int, quantity: Number) -> Partial:
        return (timestamp, quantity)

    def prepare_event(self, microseconds: int, sequence: int, value: Any) -> Partial:
        # Of two events at one moment the one received later is the last.
        return ((microseconds, sequence), value)

    def merge(self, left: Partial, right: Partial) -> Partial:
        if left is None or right is None:
            return right if left is None else left
        # The quantity decides between equal timestamps, which disjoint cells do not have, to stay
        # commutative even so.
        return max(left, right)

    def present(self, partial: Partial) -> Number:
        return 0 if partial is None else partial[1]

    def fold(self, cells: Mapping[int, Number]) -> Partial:
        latest = max(cells, default=None)
        return None if latest is None else (latest, cells[latest])

    def follow(
        self, partial: Partial, timestamp: int, before: Number | None, after: Number
    ) -> Partial | None:
        return (timestamp, after) if timestamp >= partial[0] else partial

    def deciding(self, cells: Sequence[Cell], quantity: Number) -> Sequence[Cell]:
        return cells[-1:]

    def write(self, partial: Partial) -> Any:
        if partial is None:
            return None
        at, quantity = partial
        return [list(at) if isinstance(at, tuple) else at, written(quantity)]

    def read(self, data: Any) -> Partial:
        if data is None:
            return None
        at, quantity = data
        # A cell of records is told by its second, one of events by its moment and its number.
        moment, number = at if isinstance(at, list | tuple) else (at, None)
        stamp = read_whole(moment) if number is None else (read_whole(moment), read_whole(number))
        return stamp, read_number(quantity)


class _LastEver(_Last):
    """The latest cell up to the period's end, looking back through all periods of the item."""

    looks_back = True
    words = "the latest {cell} so far, looking back through earlier periods,"


class _Count(Aggregator):
    """How many cells there are, whatever they hold."""

    identity = 0
    is_additive = True
    takes = "nothing"
    words = "the number of {cells}"
    column = "counts"
    sql = ("count",)

    def prepare(self, timestamp: int, quantity: Number) -> Partial:
        return 1

    def merge(self, left: Partial, right: Partial) -> Partial:
        return left + right

    def present(self, partial: Partial) -> Number:
        count: int = partial
        return count

    def fold(self, cells: Mapping[int, Number]) -> Partial:
        return len(cells)

    def follow(
        self, partial: Partial, timestamp: int, before: Number | None, after: Number
    ) -> Partial | None:
        return partial + (before is None)

    def read(self, data: Any) -> Partial:
        return read_whole(data)


class _Min(_Extreme):
    """The least cell; 0 without one."""

    words = "the least {cell}"
    column = "minima"
    sql = ("least",)

    def merge(self, left: Partial, right: Partial) -> Partial:
        if left is None or right is None:
            return right if left is None else left
        return min(left, right)

    def fold(self, cells: Mapping[int, Number]) -> Partial:
        return min(cells.values(), default=None)

    def running(self, cells: Mapping[int, Number]) -> Running:
        return _RunningExtreme(self, cells, -1)


class _UniqueCount(Aggregator):
    """How many different values there are. Its partial is their set: two counts do not merge."""

    identity = frozenset()
    takes = "text"
    words = "the number of different values among the {cells}"
    column = "texts"
    sql = ("texts",)

    def prepare(self, timestamp: int, quantity: Number) -> Partial:
        return frozenset((quantity,))

    def merge(self, left: Partial, right: Partial) -> Partial:
        return left | right

    def present(self, partial: Partial) -> Number:
        return len(partial)

    def write(self, partial: Partial) -> Any:
        return sorted(partial)

    def read(self, data: Any) -> Partial:
        if not all(isinstance(one, str) for one in data):
            raise TypeError(f"{data!r} are not strings")
        return frozenset(data)


class _Average(Aggregator):
    """The mean of the cells; 0 without one. A partial is (sum, count): means do not merge."""

    identity = (0, 0)
    words = "the average of the {cells}"
    column = "averages"
    sql = ("total", "count")

    def prepare(self, timestamp: int, quantity: Number) -> Partial:
        return (quantity, 1)

    def merge(self, left: Partial, right: Partial) -> Partial:
        return (add(left[0], right[0]), left[1] + right[1])

    def present(self, partial: Partial) -> Number:
        total, count = partial
        return whole_if_possible(Fraction(total) / count) if count else 0

    def fold(self, cells: Mapping[int, Number]) -> Partial:
        return (_SUM.fold(cells), len(cells))

    def follow(
        self, partial: Partial, timestamp: int, before: Number | None, after: Number
    ) -> Partial | None:
        total, count = partial
        return add(total, after if before is None else subtract(after, before)), count + (
            before is None
        )

    def write(self, partial: Partial) -> Any:
        return list(map(written, partial))

    def read(self, data: Any) -> Partial:
        total, count = data
        return read_number(total), read_whole(count)


class _WeightedSum(Aggregator):
    """A level that cells raise and lower, averaged over the time of a window: 10 for half of it is
    5.

    The level at the window's start is what all earlier cells left, and the last one holds until the
    window's end. A partial is (level, moment, window): the sum of the changes, the sum of change
    times timestamp, and the window once it is known. The area under the level from the start to the
    end of a window is then ``level * end - moment``.
    """

    identity = (0, 0, None)
    looks_back = True
    is_weighed = True
    # So a preview takes the level of now to stay until the period's end.
    words = (
        "the average level, which each {cell} holds until the next one and the last until the end,"
    )
    column = "levels"
    sql = ("total", "moment", "window")

    def prepare(self, timestamp: int, quantity: Number) -> Partial:
        return (quantity, multiply(quantity, timestamp), None)

    def merge(self, left: Partial, right: Partial) -> Partial:
        assert left[2] is None or right[2] is None or left[2] == right[2], (
            "areas under two windows do not add up to one"
        )
        return (add(left[0], right[0]), add(left[1], right[1]), left[2] or right[2])

    def over(self, within: Partial, before: Partial, start: int, end: int) -> Partial:
        # What was there before the window counts as if it all came at its start.
        level, moment, _ = self.merge(within, (before[0], multiply(before[0], start), None))
        return (level, moment, (start, end))

    def present(self, partial: Partial) -> Number:
        level, moment, window = partial
        assert window is not None, "a level is averaged over a window"
        start, end = window
        return whole_if_possible(Fraction(subtract(multiply(level, end), moment)) / (end - start))

    def write(self, partial: Partial) -> Any:
        level, moment, window = partial
        return [written(level), written(moment), list(window)]

    def read(self, data: Any) -> Partial:
        level, moment, (start, end) = data
        return read_number(level), read_number(moment), (read_whole(start), read_whole(end))


class _Peaks(Aggregator):
    """The greatest cell of each UTC window, added up: 7 and 3 in one hour and 5 in the next come to
    12.

    A partial is the windows that have a cell, in order, each with its greatest: two sums alone
    would not merge where a window was cut.
    """

    identity = ()
    column = "peaks"
    sql = ("peaks",)

    def __init__(self, window_seconds: int, name: str) -> None:
        self.window_seconds = window_seconds
        self.words = f"the sum of the greatest {{cell}} of each {name}"

    def prepare(self, timestamp: int, quantity: Number) -> Partial:
        return ((timestamp // self.window_seconds, quantity),)

    def prepare_event(self, microseconds: int, sequence: int, value: Any) -> Partial:
        return self.prepare(microseconds // MICROSECONDS, value)

    def merge(self, left: Partial, right: Partial) -> Partial:
        if not left or not right:
            return left or right
        peaks = dict(left)
        for window, quantity in right:
            peaks[window] = max(peaks.get(window, quantity), quantity)
        return tuple(sorted(peaks.items()))

    def present(self, partial: Partial) -> Number:
        total: Number = 0
        for _, quantity in partial:
            total = add(total, quantity)
        return total

    def fold(self, cells: Mapping[int, Number]) -> Partial:
        return tuple(sorted(self.peaks(cells).items()))

    def running(self, cells: Mapping[int, Number]) -> Running:
        return _RunningPeaks(self, cells)

    def peaks(self, cells: Mapping[int, Number]) -> dict[int, Number]:
        """Return the greatest cell of each window that has one, by the window's number."""
        peaks: dict[int, Number] = {}
        for timestamp, quantity in cells.items():
            window = timestamp // self.window_seconds
            peaks[window] = max(peaks.get(window, quantity), quantity)
        return peaks

    def deciding(self, cells: Sequence[Cell], quantity: Number) -> Sequence[Cell]:
        peaks = self.peaks({cell.timestamp: cell.quantity for cell in cells})
        return tuple(
            cell for cell in cells if cell.quantity == peaks[cell.timestamp // self.window_seconds]
        )

    def write(self, partial: Partial) -> Any:
        return [[window, written(quantity)] for window, quantity in partial]

    def read(self, data: Any) -> Partial:
        peaks = tuple((read_whole(window), read_number(quantity)) for window, quantity in data)
        if any(one[0] >= other[0] for one, other in pairwise(peaks)):
            raise ValueError("windows are not in their order")
        return peaks


class _RunningPeaks(Running):
    """The peaks by window while cells change, each of which concerns one of many windows."""

    __slots__ = ("_length", "_peaks")

    def __init__(self, row: _Peaks, cells: Mapping[int, Number]) -> None:
        super().__init__(row, cells)
        self._length = row.window_seconds
        self._peaks: dict[int, Number] | None = None

    def changed(self, timestamp: int, before: Number | None, after: Number) -> None:
        if self._peaks is None:
            return
        window = timestamp // self._length
        peak = self._peaks.get(window)
        if peak is None or after >= peak:
            self._peaks[window] = after
        elif before == peak:
            # A peak that sinks has to be looked for again.
            self._peaks = None

    def partial(self) -> Partial:
        if self._peaks is None:
            self._peaks = dict(self._aggregator.fold(self._cells))
        return tuple(sorted(self._peaks.items()))


_SUM, _COUNT, _MAX, _MIN, _LAST, _AVERAGE = _Sum(), _Count(), _Max(), _Min(), _Last(), _Average()
_HOURLY, _DAILY = _Peaks(3600, "hour"), _Peaks(86_400, "day")

AGGREGATORS: dict[AggregateUsage, Aggregator] = {
    AggregateUsage.SUM: _SUM,
    AggregateUsage.MAX: _MAX,
    AggregateUsage.LAST_DURING_PERIOD: _LAST,
    AggregateUsage.LAST_EVER: _LastEver(),
    AggregateUsage.MIN: _MIN,
    AggregateUsage.COUNT: _COUNT,
    AggregateUsage.AVERAGE: _AVERAGE,
    AggregateUsage.HOURLY_PEAKS: _HOURLY,
    AggregateUsage.DAILY_PEAKS: _DAILY,
}
"""One row a mode of usage records."""

FORMULAS: dict[Formula, Aggregator] = {
    Formula.SUM: _SUM,
    Formula.COUNT: _COUNT,
    Formula.LAST: _LAST,
    Formula.MAX: _MAX,
    Formula.MIN: _MIN,
    Formula.UNIQUE_COUNT: _UniqueCount(),
    Formula.AVERAGE: _AVERAGE,
    Formula.WEIGHTED_SUM: _WeightedSum(),
    Formula.HOURLY_PEAKS: _HOURLY,
    Formula.DAILY_PEAKS: _DAILY,
}
"""One row a formula of meters."""


def formula_like(mode: AggregateUsage) -> Formula:
    """Return the formula that measures as a mode does; ``carry_forward`` where it looks back."""
    row = AGGREGATORS[mode]
    return next(
        formula
        for formula, other in FORMULAS.items()
        if other is row or (row.looks_back and formula is Formula.LAST)
    )


def formula_of(meter: Meter) -> Aggregator:
    """Return a meter's row: its formula's, or with ``carry_forward`` the one that looks back."""
    return AGGREGATORS[AggregateUsage.LAST_EVER] if meter.carry_forward else FORMULAS[meter.formula]


Kernel = TypeVar("Kernel")


def kernel_for(
    kernels: Mapping[str, Kernel], measure: AggregateUsage | Formula, engine: str
) -> Kernel:
    """Return what columns compute a mode or a formula with, of kernels by the names that rows give
    them.

    An engine without the kernel would otherwise answer with what nothing happens to come to.

    Raises:
        InvoicingError: ``formula_not_available``.
    """
    found = kernels.get(row_of(measure, engine).column or "")
    if found is None:
        raise _unavailable(measure, engine, lambda one: one.column in kernels)
    return found


def require_sql(measure: AggregateUsage | Formula, engine: str) -> None:
    """Refuse a mode or a formula that is not made of what SQL's folding says.

    Raises:
        InvoicingError: ``formula_not_available``.
    """
    if not row_of(measure, engine).sql:
        raise _unavailable(measure, engine, lambda one: bool(one.sql))


def row_of(measure: AggregateUsage | Formula, engine: str) -> Aggregator:
    """Return the row of a mode or a formula that an engine is asked for.

    Raises:
        InvoicingError: ``formula_not_available`` where there is none.
    """
    row = AGGREGATORS.get(measure) if isinstance(measure, AggregateUsage) else FORMULAS.get(measure)
    if row is None:
        raise _unavailable(measure, engine, lambda _: True)
    return row


def _unavailable(
    measure: AggregateUsage | Formula, engine: str, is_able: Callable[[Aggregator], bool]
) -> InvoicingError:
    table: Mapping[Any, Aggregator] = (
        AGGREGATORS if isinstance(measure, AggregateUsage) else FORMULAS
    )
    param = "aggregate_usage" if isinstance(measure, AggregateUsage) else "formula"
    able = ", ".join(repr(one.value) for one, row in table.items() if is_able(row))
    message = (
        f"{param}: expected one that {engine} can compute ({able}), received {measure.value!r}"
    )
    return InvoicingError(ErrorCode.FORMULA_NOT_AVAILABLE, message, param=param)

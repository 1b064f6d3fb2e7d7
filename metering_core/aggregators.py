"""Aggregation modes and formulas: how cells become one quantity, each four small functions and a row in a table.

Each is a commutative monoid over the values of the timestamps (after Algebird's ``Aggregator``): ``prepare`` a cell,
``merge`` partials in any order, ``present`` the quantity. Partials of disjoint timestamps merge to the partial of all of them,
so usage may be split over machines as long as no cell is cut.

Usage records are aggregated by the modes of :data:`AGGREGATORS`; there a cell is all usage at one timestamp. Meter events are
aggregated by :data:`FORMULAS`; there every event that counts is a cell of its own, told apart by its number in the log.

Adding a mode or a formula is one class in this file, its row in the table and its name in
:class:`~metering_core.AggregateUsage` or :class:`~metering_core.Formula`.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from fractions import Fraction
from functools import reduce
from typing import Any, TypeAlias, TypeVar

from metering_core.errors import ErrorCode, InvoicingError
from metering_core.exact import Number, add, multiply, subtract, whole_if_possible
from metering_core.meters import Formula, Meter
from metering_core.prices import AggregateUsage

Partial: TypeAlias = Any
"""What a mode needs to remember about some of the cells; only the mode's own functions look inside."""


class Aggregator:
    """One aggregation mode. Subclasses say the four functions; the rest is derived, and may be overridden for speed.

    Attributes:
        identity: the partial of no cells.
        looks_back: whether the cells of all earlier periods count too, as in ``last_ever``.
        is_additive: whether the quantities of the parts of any split (of time, customers or dimensions) add up to the whole's.
        is_weighed: whether the quantity is an average over the time of the window, so that a part of a billing period has that
            part of it.
    """

    identity: Partial = None
    looks_back: bool = False
    is_additive: bool = False
    is_weighed: bool = False

    def prepare(self, timestamp: int, quantity: Number) -> Partial:
        """Return the partial of one cell."""
        raise NotImplementedError

    def merge(self, left: Partial, right: Partial) -> Partial:
        """Return the partial of two disjoint sets of cells; associative, commutative, with ``identity``."""
        raise NotImplementedError

    def present(self, partial: Partial) -> Number:
        """Return the quantity that is billed."""
        raise NotImplementedError

    def billed(self, partial: Partial, share: Fraction) -> Number:
        """Return the quantity of a billing period, of which a subscription lived through a ``share``.

        A level counts for the time that it was there, of the whole period's: 10 on one day of 30 is a third. All else is what
        :meth:`present` says, since usage is billed as it was used.
        """
        quantity = self.present(partial)
        return whole_if_possible(multiply(quantity, share)) if self.is_weighed and share != 1 else quantity

    def prepare_event(self, microseconds: int, sequence: int, value: Any) -> Partial:  # noqa: ANN401 - a number, or any text
        """Return the partial of one meter event, a cell of its own; ``sequence`` tells events of one moment apart."""
        return self.prepare(microseconds, value)

    def over(self, within: Partial, before: Partial, start: int, end: int) -> Partial:
        """Return what a window ``[start, end)`` comes to: its cells and, for what looks back, those before it."""
        return self.merge(before, within) if self.looks_back else within

    def fold(self, cells: Mapping[int, Number]) -> Partial:
        """Return the partial of cells given as timestamp → quantity."""
        prepared = (self.prepare(timestamp, quantity) for timestamp, quantity in cells.items())
        return reduce(self.merge, prepared, self.identity)

    def running(self, cells: Mapping[int, Number]) -> Running:
        """Return a partial that is kept up to date while ``cells`` change."""
        return Running(self, cells)

    def follow(self, partial: Partial, timestamp: int, before: Number | None, after: Number) -> Partial | None:
        """Return the partial after one cell changed from ``before`` (None: it was not there), or None to fold again."""
        return None


class Running:
    """The partial of a growing set of cells, in constant time a change where the mode can follow changes."""

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
    is_additive = True

    def prepare(self, timestamp: int, quantity: Number) -> Partial:
        return quantity

    def merge(self, left: Partial, right: Partial) -> Partial:
        return add(left, right)

    def present(self, partial: Partial) -> Number:
        quantity: Number = partial
        return quantity

    def fold(self, cells: Mapping[int, Number]) -> Partial:
        # The cells of usage records are ints, and summing them in C is 20 times the speed of merging them.
        return sum(cells.values())

    def follow(self, partial: Partial, timestamp: int, before: Number | None, after: Number) -> Partial | None:
        return add(partial, after if before is None else subtract(after, before))


class _Max(Aggregator):
    """The greatest cell; 0 without one."""

    def prepare(self, timestamp: int, quantity: Number) -> Partial:
        return quantity

    def merge(self, left: Partial, right: Partial) -> Partial:
        if left is None or right is None:
            return right if left is None else left
        return max(left, right)

    def present(self, partial: Partial) -> Number:
        return 0 if partial is None else partial

    def fold(self, cells: Mapping[int, Number]) -> Partial:
        return max(cells.values(), default=None)

    def running(self, cells: Mapping[int, Number]) -> Running:
        return _RunningMax(self, cells)


class _RunningMax(Running):
    """The greatest cell although cells may sink: a heap of candidates, in which stale ones are dropped when they surface.

    The heap is built when the greatest cell first sinks; usage that only grows never pays for it.
    """

    __slots__ = ("_heap",)

    def __init__(self, aggregator: Aggregator, cells: Mapping[int, Number]) -> None:
        super().__init__(aggregator, cells)
        self._heap: list[tuple[Number, int]] | None = None

    def changed(self, timestamp: int, before: Number | None, after: Number) -> None:
        if self._heap is not None:
            heapq.heappush(self._heap, (-after, timestamp))
            if len(self._heap) > 2 * len(self._cells) + 64:
                self._heap = None
        if self._partial is None:
            return
        if after >= self._partial:
            self._partial = after
        elif before == self._partial:
            self._partial = self._greatest()

    def _greatest(self) -> Number:
        if self._heap is None:
            self._heap = [(-quantity, timestamp) for timestamp, quantity in self._cells.items()]
            heapq.heapify(self._heap)
        while -self._heap[0][0] != self._cells[self._heap[0][1]]:
            heapq.heappop(self._heap)
        return -self._heap[0][0]


class _Last(Aggregator):
    """The cell with the greatest timestamp (not the latest arrival); 0 without one. A partial is (timestamp, quantity)."""

    def prepare(self, timestamp: int, quantity: Number) -> Partial:
        return (timestamp, quantity)

    def prepare_event(self, microseconds: int, sequence: int, value: Any) -> Partial:  # noqa: ANN401 - as in the base
        # Of two events at one moment the one received later is the last.
        return ((microseconds, sequence), value)

    def merge(self, left: Partial, right: Partial) -> Partial:
        if left is None or right is None:
            return right if left is None else left
        # The quantity decides between equal timestamps, which disjoint cells do not have, to stay commutative even so.
        return max(left, right)

    def present(self, partial: Partial) -> Number:
        return 0 if partial is None else partial[1]

    def fold(self, cells: Mapping[int, Number]) -> Partial:
        latest = max(cells, default=None)
        return None if latest is None else (latest, cells[latest])

    def follow(self, partial: Partial, timestamp: int, before: Number | None, after: Number) -> Partial | None:
        return (timestamp, after) if timestamp >= partial[0] else partial


class _LastEver(_Last):
    """The latest cell up to the period's end, looking back through all periods of the item."""

    looks_back = True


AGGREGATORS: dict[AggregateUsage, Aggregator] = {
    AggregateUsage.SUM: _Sum(),
    AggregateUsage.MAX: _Max(),
    AggregateUsage.LAST_DURING_PERIOD: _Last(),
    AggregateUsage.LAST_EVER: _LastEver(),
}
"""One row a mode of usage records."""


class _Count(Aggregator):
    """How many cells there are, whatever they hold."""

    identity = 0
    is_additive = True

    def prepare(self, timestamp: int, quantity: Number) -> Partial:
        return 1

    def merge(self, left: Partial, right: Partial) -> Partial:
        return left + right

    def present(self, partial: Partial) -> Number:
        count: int = partial
        return count


class _Min(Aggregator):
    """The least cell; 0 without one."""

    def prepare(self, timestamp: int, quantity: Number) -> Partial:
        return quantity

    def merge(self, left: Partial, right: Partial) -> Partial:
        if left is None or right is None:
            return right if left is None else left
        return min(left, right)

    def present(self, partial: Partial) -> Number:
        return 0 if partial is None else partial


class _UniqueCount(Aggregator):
    """How many different values there are. Its partial is the set of them, since two counts alone do not merge."""

    identity = frozenset()

    def prepare(self, timestamp: int, quantity: Number) -> Partial:
        return frozenset((quantity,))

    def merge(self, left: Partial, right: Partial) -> Partial:
        return left | right

    def present(self, partial: Partial) -> Number:
        return len(partial)


class _Average(Aggregator):
    """The mean of the cells; 0 without one. A partial is (sum, count), since two means alone do not merge."""

    identity = (0, 0)

    def prepare(self, timestamp: int, quantity: Number) -> Partial:
        return (quantity, 1)

    def merge(self, left: Partial, right: Partial) -> Partial:
        return (add(left[0], right[0]), left[1] + right[1])

    def present(self, partial: Partial) -> Number:
        total, count = partial
        return whole_if_possible(Fraction(total) / count) if count else 0


class _WeightedSum(Aggregator):
    """A level that cells raise and lower, averaged over the time of a window: 10 for half of it is 5.

    The level at the window's start is what all earlier cells left, and the last one holds until the window's end. A partial is
    (level, moment, window): the sum of the changes, the sum of change times timestamp, and the window once it is known. The
    area under the level from the start to the end of a window is then ``level * end - moment``.
    """

    identity = (0, 0, None)
    looks_back = True
    is_weighed = True

    def prepare(self, timestamp: int, quantity: Number) -> Partial:
        return (quantity, multiply(quantity, timestamp), None)

    def merge(self, left: Partial, right: Partial) -> Partial:
        assert left[2] is None or right[2] is None or left[2] == right[2], "areas under two windows do not add up to one"
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


FORMULAS: dict[Formula, Aggregator] = {
    Formula.SUM: AGGREGATORS[AggregateUsage.SUM],
    Formula.COUNT: _Count(),
    Formula.LAST: AGGREGATORS[AggregateUsage.LAST_DURING_PERIOD],
    Formula.MAX: AGGREGATORS[AggregateUsage.MAX],
    Formula.MIN: _Min(),
    Formula.UNIQUE_COUNT: _UniqueCount(),
    Formula.AVERAGE: _Average(),
    Formula.WEIGHTED_SUM: _WeightedSum(),
}
"""One row a formula of meters."""


def formula_of(meter: Meter) -> Aggregator:
    """Return the row of a meter: that of its formula, or with ``carry_forward`` the one that looks back."""
    return AGGREGATORS[AggregateUsage.LAST_EVER] if meter.carry_forward else FORMULAS[meter.formula]


Row = TypeVar("Row")


def row_for(table: Mapping[Any, Row], asked: AggregateUsage | Formula, engine: str) -> Row:
    """Return the row that an engine's own table has for a mode or a formula; every engine asks its tables through this.

    An engine that was not told of a new mode would otherwise answer with what a table without the row happens to come to.

    Raises:
        InvoicingError: ``formula_not_available`` where the table has none.
    """
    found = table.get(asked)
    if found is None:
        param = "aggregate_usage" if isinstance(asked, AggregateUsage) else "formula"
        known = ", ".join(repr(one.value) for one in table)
        message = f"{param}: expected one that {engine} can compute ({known}), received {asked.value!r}"
        raise InvoicingError(ErrorCode.FORMULA_NOT_AVAILABLE, message, param=param)
    return found

"""From cells to one quantity: an aggregation mode is four small functions and a row in a table.

Each mode is a commutative monoid over the values of the timestamps (after Algebird's ``Aggregator``): ``prepare`` a cell,
``merge`` partials in any order, ``present`` the quantity. Partials of disjoint timestamps merge to the partial of all of them,
so usage may be split over machines as long as no cell is cut.

:class:`Usage` is the seam between engines and bills: give me the partial of this item in this period. From
:func:`summarize` on there is one implementation.

Adding a mode is one class in this file, its row in :data:`AGGREGATORS` and its name in
:class:`~metering_core.AggregateUsage`.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import reduce
from typing import Any, Protocol, TypeAlias, runtime_checkable

import attrs

from metering_core.errors import ErrorCode, InvoicingError
from metering_core.exact import Number, add, subtract
from metering_core.periods import BillingPeriod
from metering_core.prices import AggregateUsage
from metering_core.subscriptions import SubscriptionItem

Partial: TypeAlias = Any
"""What a mode needs to remember about some of the cells; only the mode's own functions look inside."""


class Aggregator:
    """One aggregation mode. Subclasses say the four functions; the rest is derived, and may be overridden for speed.

    Attributes:
        identity: the partial of no cells.
        looks_back: whether the cells of all earlier periods count too, as in ``last_ever``.
    """

    identity: Partial = None
    looks_back: bool = False

    def prepare(self, timestamp: int, quantity: Number) -> Partial:
        """Return the partial of one cell."""
        raise NotImplementedError

    def merge(self, left: Partial, right: Partial) -> Partial:
        """Return the partial of two disjoint sets of cells; associative, commutative, with ``identity``."""
        raise NotImplementedError

    def present(self, partial: Partial) -> Number:
        """Return the quantity that is billed."""
        raise NotImplementedError

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
"""One row a mode."""


def aggregator_of(item: SubscriptionItem) -> Aggregator:
    """Return the aggregator of an item; errors as :func:`required_mode`."""
    return AGGREGATORS[required_mode(item)]


def required_mode(item: SubscriptionItem) -> AggregateUsage:
    """Return the aggregation mode of an item whose quantity comes from usage records.

    Raises:
        InvoicingError: ``price_not_metered`` where it does not.
    """
    mode = item.recurring.aggregate_usage
    if mode is None:
        message = (
            f"subscription_item: expected an item whose price aggregates usage records, received {item.id!r}, "
            f"whose price {item.price.id!r} is {'on a meter' if item.is_metered else 'licensed'}"
        )
        raise InvoicingError(ErrorCode.PRICE_NOT_METERED, message, param="subscription_item")
    return mode


@runtime_checkable
class Usage(Protocol):
    """Where usage comes from: the log, a view of it, columns, files, a cluster. The one seam between engines and bills."""

    def partial(self, item: SubscriptionItem, period: BillingPeriod) -> Partial:
        """Return the partial of the item's aggregator over its cells in ``[period.start, period.end)``.

        For a mode that looks back, the cells of all earlier periods are included.
        """
        ...  # pragma: no cover

    def partials(self, requests: Iterable[tuple[SubscriptionItem, BillingPeriod]]) -> list[Partial]:
        """Return the partials of many items at once, in the order asked."""
        ...  # pragma: no cover


@attrs.frozen
class UsageSummary:
    """The usage of one item in one billing period, in the shape of Stripe's usage record summary.

    Attributes:
        subscription_item: the item's id.
        aggregate_usage: the mode by which the usage became one quantity.
        start: start of the period, inclusive.
        end: end of the period, exclusive; None while it is open.
        total_usage: the aggregated quantity, in units.
        invoice: the id of the finalized invoice that billed it; None before.
    """

    subscription_item: str
    aggregate_usage: AggregateUsage
    start: datetime
    end: datetime | None
    total_usage: Number
    invoice: str | None = None


def summarize(item: SubscriptionItem, usage: Usage, period: BillingPeriod) -> UsageSummary:
    """Return the usage of an item in a period as one quantity, whatever engine holds the usage.

    Raises:
        InvoicingError: ``price_not_metered`` where the item's price does not aggregate usage records.
    """
    (summary,) = summarize_all([(item, period)], usage)
    return summary


def summarize_all(requests: Iterable[tuple[SubscriptionItem, BillingPeriod]], usage: Usage) -> list[UsageSummary]:
    """Return what :func:`summarize` returns for each request, asking the engine once."""
    asked = [(item, period, aggregator_of(item)) for item, period in requests]
    partials = usage.partials([(item, period) for item, period, _ in asked])
    return [
        UsageSummary(item.id, required_mode(item), period.start, period.end, aggregator.present(partial))
        for (item, period, aggregator), partial in zip(asked, partials, strict=True)
    ]

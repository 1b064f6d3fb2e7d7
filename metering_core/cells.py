"""The cells of one subscription item, folded from its records and kept by billing period.

Keeping cells by period makes a preview cost the same however much was used before, and lets a
closed period be compacted to its partials. Nothing here judges a record or knows of money.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterator, Mapping
from typing import Final

import attrs

from metering_core.errors import ErrorCode, UsageCompactedError
from metering_core.exact import Number, add
from metering_core.measures import AGGREGATORS, Aggregator, Partial, Running
from metering_core.periods import BillingCycle, BillingPeriod, from_unix_seconds
from metering_core.prices import AggregateUsage


@attrs.frozen
class Kept:
    """What compaction keeps of a period: the partials of its modes, and from what they were made.

    Attributes:
        partials: mode → partial; without the peaks that the item was not billed by, and modes later
            than the compaction.
        bounds: least and greatest timestamp, Unix seconds.
        sequences: least and greatest sequence number of the dropped records.
        received: earliest and latest receipt among them, Unix microseconds.
    """

    partials: Mapping[AggregateUsage, Partial] = attrs.field(hash=False)
    bounds: tuple[int, int]
    sequences: tuple[int, int]
    received: tuple[int, int]


class PeriodCells:
    """One period's cells of an item: timestamp → quantity, both maybe late (before ``start``)."""

    __slots__ = ("_bounds", "_running", "cells", "end", "is_lost", "kept", "start")

    def __init__(self, period: BillingPeriod) -> None:
        self.start: Final = period.start_seconds
        self.end: Final = period.end_seconds
        self.cells: dict[int, Number] = {}
        self.kept: Kept | None = None
        self.is_lost = False
        self._running: dict[int, Running] = {}
        self._bounds: tuple[int, int] | None = None

    def apply(self, timestamp: int, quantity: Number, *, is_set: bool) -> None:
        """Fold one record into its cell and keep what is derived from the cells up to date."""
        cells = self.cells
        before = cells.get(timestamp)
        after = quantity if is_set or before is None else add(before, quantity)
        cells[timestamp] = after
        for running in self._running.values():
            running.changed(timestamp, before, after)
        if self._bounds is not None:
            counted = max(timestamp, self.start)
            self._bounds = min(self._bounds[0], counted), max(self._bounds[1], counted)

    def forget_derived(self) -> None:
        """Drop what is derived from the cells, after they were changed in bulk."""
        self._running = {}
        self._bounds = None

    def bounds(self) -> tuple[int, int]:
        """Return the least and the greatest timestamp; a late one counts as the period's start."""
        if self.kept is not None:
            return self.kept.bounds
        if self._bounds is None:
            low, high = min(self.cells), max(self.cells)
            self._bounds = max(low, self.start), max(high, self.start)
        return self._bounds

    def is_late(self) -> bool:
        """Whether some usage is of before the period; of dropped records it is taken to be."""
        return self.kept is not None or min(self.cells) < self.start

    def is_empty(self) -> bool:
        """Whether the item has no usage in the period."""
        return not self.cells and self.kept is None and not self.is_lost

    def partial(self, aggregator: Aggregator, first: int | None, end: int) -> Partial:
        """Return the partial of the cells from ``first`` (None: the first) to before ``end``."""
        if self.is_empty():
            return aggregator.identity
        if self.is_lost:
            raise self._compacted()
        low, high = self.bounds()
        if (first is not None and high < first) or low >= end:
            return aggregator.identity
        if (first is None or first <= low) and high < end:
            return self._whole_partial(aggregator)
        return aggregator.fold(dict(self.between(first, end)))

    def _whole_partial(self, aggregator: Aggregator) -> Partial:
        if self.kept is not None:
            mode = next(mode for mode, row in AGGREGATORS.items() if row is aggregator)
            if mode not in self.kept.partials:
                raise self._compacted()
            return self.kept.partials[mode]
        running = self._running.get(id(aggregator))
        if running is None:
            running = self._running[id(aggregator)] = aggregator.running(self.cells)
        return running.partial()

    def between(self, first: int | None, end: int) -> Iterator[tuple[int, Number]]:
        """Yield the cells from ``first`` to before ``end``, in the order of their first arrival."""
        self.refuse_if_compacted()
        for timestamp, quantity in self.cells.items():
            counted = max(timestamp, self.start)
            if (first is None or first <= counted) and counted < end:
                yield timestamp, quantity

    def refuse_if_compacted(self) -> None:
        """Refuse to answer from records that were dropped, by name."""
        if self.kept is not None or self.is_lost:
            raise self._compacted()

    def _compacted(self) -> UsageCompactedError:
        period = BillingPeriod(self.start, self.end)
        message = (
            "period: expected a question that the totals of a whole period can answer, "
            "received one that needs the records of "
            f"{period}, which were dropped by compact()"
        )
        return UsageCompactedError(
            ErrorCode.USAGE_COMPACTED, message, param="period", details={"period": period}
        )

    def totals(
        self,
        billed_by: AggregateUsage | None,
        sequences: tuple[int, int],
        received: tuple[int, int],
    ) -> Kept:
        """Return what compaction keeps of the cells; say by which mode they are billed and which
        records they came from.

        Peaks are as many as the windows, which would be no less than the cells of whoever reports
        by the hour: they are kept of an item that is billed by them.
        """
        rows = {
            mode: row
            for mode, row in AGGREGATORS.items()
            if mode is billed_by or not row.window_seconds
        }
        partials = {mode: row.fold(self.cells) for mode, row in rows.items()}
        return Kept(partials, self.bounds(), sequences, received)

    def compact(self, kept: Kept) -> None:
        """Have what is kept of the cells in their place."""
        self.kept = kept
        self.cells = {}
        self.forget_derived()

    def lost(self) -> PeriodCells:
        """Return the period as it looks to a view that needs a part of what was dropped."""
        lost = PeriodCells(BillingPeriod(self.start, self.end))
        lost.is_lost = True
        return lost


class ItemCells:
    """The cells of one item over all periods of its cycle."""

    __slots__ = ("_cycle", "_periods", "_starts")

    def __init__(self, cycle: BillingCycle) -> None:
        self._cycle = cycle
        self._starts: list[int] = []
        self._periods: dict[int, PeriodCells] = {}

    def __iter__(self) -> Iterator[PeriodCells]:
        """Yield the periods that have usage, in order."""
        return (self._periods[start] for start in self._starts)

    def at(self, timestamp: int) -> PeriodCells:
        """Return the cells of the period that holds the timestamp."""
        found = self._find(timestamp)
        return (
            self._open(self._cycle.period_at(from_unix_seconds(timestamp)))
            if found is None
            else found
        )

    def _find(self, timestamp: int) -> PeriodCells | None:
        position = bisect_right(self._starts, timestamp) - 1
        if position < 0:
            return None
        cells = self._periods[self._starts[position]]
        return cells if timestamp < cells.end else None

    def _open(self, period: BillingPeriod) -> PeriodCells:
        opened = PeriodCells(period)
        self.share(opened)
        return opened

    def share(self, cells: PeriodCells) -> None:
        """Take over the cells of a period."""
        insort(self._starts, cells.start)
        self._periods[cells.start] = cells

    def partial(self, aggregator: Aggregator, period: BillingPeriod) -> Partial:
        """Return a period's partial, with all before it where the mode looks back."""
        start, end = period.start_seconds, period.end_seconds
        if not aggregator.looks_back:
            found = self._find(start)
            if found is not None and end <= found.end:
                return found.partial(aggregator, start, end)
        first = None if aggregator.looks_back else start
        partial = aggregator.identity
        for cells in self._overlapping(first, end):
            partial = aggregator.merge(partial, cells.partial(aggregator, first, end))
        return partial

    def refuse_if_compacted(self, period: BillingPeriod | None) -> None:
        """Refuse to answer from records of the period, or of any, that were dropped."""
        for cells in (
            self if period is None else self._overlapping(period.start_seconds, period.end_seconds)
        ):
            cells.refuse_if_compacted()

    def between(
        self, period: BillingPeriod, *, look_back: bool = False
    ) -> list[tuple[int, Number]]:
        """Return the cells of the period in the order of their timestamps."""
        first = None if look_back else period.start_seconds
        overlapping = self._overlapping(first, period.end_seconds)
        found = [cell for cells in overlapping for cell in cells.between(first, period.end_seconds)]
        return sorted(found)

    def _overlapping(self, first: int | None, end: int) -> Iterator[PeriodCells]:
        """Yield periods with a second from ``first`` (None: the beginning) to before ``end``."""
        return (
            cells for cells in self if (first is None or cells.end > first) and cells.start < end
        )

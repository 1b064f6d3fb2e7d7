"""Readings of a meter in the order of time, and their partials, so that a window costs the same
however much lies in it.

Time is cut into blocks of 256 and 16 days, a day, an hour, 15 minutes, one, 5 seconds and one; the
partial of a block is merged from those of the next smaller ones and kept. A window that whole hours
or UTC days make up is one step for each; any other one is a few steps more at its ends. A reading
that comes or goes, at whatever time, costs the blocks that it lies in and no other.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import Any, Final

from metering_core.measures import Aggregator, Partial

_SECOND: Final = 1_000_000
_DAY: Final = 86_400 * _SECOND
# Every offset that a time zone has today is whole 15 minutes; what is billed or summarized is
# bounded by whole seconds.
_WIDTHS: Final = (
    256 * _DAY,
    16 * _DAY,
    _DAY,
    3600 * _SECOND,
    900 * _SECOND,
    60 * _SECOND,
    5 * _SECOND,
    _SECOND,
)

_FEW: Final = 16
"""Readings that are merged one by one: keeping their partial costs more than it saves."""

_GONE: Final = object()


class Timeline:
    """The readings of one meter, one customer and one set of dimension values.

    Attributes:
        moments: Unix microseconds, ascending.
        sequences: their numbers; of equal moments in the order of arrival.
        values: what the formula works on.
    """

    __slots__ = (
        "_aggregator",
        "_asked",
        "_blocks",
        "_changes",
        "_settled",
        "moments",
        "sequences",
        "values",
    )

    def __init__(self, aggregator: Aggregator) -> None:
        self._aggregator = aggregator
        self.moments = array("q")
        self.sequences = array("q")
        self.values: list[Any] = []
        # What is not in its place yet: (moment, number) → value, or _GONE for what is to be
        # dropped.
        self._changes: dict[tuple[int, int], Any] = {}
        # How many of the readings the kept partials know of; width → number of the block →
        # (partial, readings).
        self._settled = 0
        self._blocks: dict[int, dict[int, tuple[Partial, int]]] = {}
        # Where the window asked last ended, and the place of the first reading after it: mostly the
        # next one begins there.
        self._asked: tuple[int | None, int] = (None, 0)

    def add(self, moment: int, sequence: int, value: Any) -> None:
        """Take a reading; those of the past are put in their place when something is asked."""
        if not self.moments or (self.moments[-1], self.sequences[-1]) < (moment, sequence):
            self.moments.append(moment)
            self.sequences.append(sequence)
            self.values.append(value)
        else:
            self._changes[moment, sequence] = value

    def remove(self, moment: int, sequence: int) -> None:
        """Drop a reading that is there, when something is asked."""
        self._changes[moment, sequence] = _GONE

    def readings(self) -> Iterator[tuple[int, int, Any]]:
        """Return the moments, numbers and values, in the order of time."""
        self.settle()
        return zip(self.moments, self.sequences, self.values, strict=True)

    def settle(self) -> None:
        """Put readings that came out of order in their place, and drop those that went."""
        if self._settled == len(self.moments) and not self._changes:
            return
        self._asked = (None, 0)
        if self._settled < len(self.moments):
            # Of the blocks that are kept, the later ones of these can lie in none but that of the
            # first.
            self._forget((self.moments[self._settled],))
        if self._changes:
            changes, self._changes = self._changes, {}
            self._rearrange(changes)
            self._forget(moment for moment, _ in changes)
        self._settled = len(self.moments)

    def _rearrange(self, changes: dict[tuple[int, int], Any]) -> None:
        """Write anew what lies between the first change and the last."""
        (moment, sequence), last = min(changes), max(changes)
        first, end = self._place(moment, sequence), self._place(last[0], last[1] + 1)
        span = slice(first, end)
        readings = dict(
            zip(
                zip(self.moments[span], self.sequences[span], strict=True),
                self.values[span],
                strict=True,
            )
        )
        readings.update(changes)
        kept = sorted(key for key, value in readings.items() if value is not _GONE)
        self.moments[span] = array("q", [moment for moment, _ in kept])
        self.sequences[span] = array("q", [sequence for _, sequence in kept])
        self.values[span] = [readings[key] for key in kept]

    def _place(self, moment: int, sequence: int) -> int:
        first = bisect_left(self.moments, moment)
        return bisect_left(
            self.sequences, sequence, first, bisect_left(self.moments, moment + 1, first)
        )

    def _forget(self, moments: Iterable[int]) -> None:
        if self._blocks:
            for moment in moments:
                for width, blocks in self._blocks.items():
                    blocks.pop(moment // width, None)

    def _places(self, start: int | None, end: int) -> tuple[int, int]:
        self.settle()
        last, after = self._asked
        first = 0 if start is None else after if start == last else bisect_left(self.moments, start)
        after = bisect_left(self.moments, end)
        self._asked = (end, after)
        return min(first, after), after

    def count(self, start: int | None, end: int) -> int:
        """Return how many readings are from ``start`` (None: the beginning) to before ``end``."""
        first, after = self._places(start, end)
        return after - first

    def span(self, start: int, end: int) -> tuple[int, int] | None:
        """Return the first and the last moment in ``[start, end)``; None where there is none."""
        first, after = self._places(start, end)
        return (self.moments[first], self.moments[after - 1]) if first < after else None

    def numbers(self, start: int | None, end: int) -> list[int]:
        """Return the numbers from ``start`` (None: the beginning) to before ``end``, by time."""
        return self.sequences[slice(*self._places(start, end))].tolist()

    def partial(self, start: int | None, end: int) -> Partial:
        """Return the partial from ``start`` (None: the beginning) to before ``end``."""
        return self.window(start, end)[0]

    def window(self, start: int | None, end: int) -> tuple[Partial, int]:
        """Return :meth:`partial` and :meth:`count` together."""
        first, after = self._places(start, end)
        depth = 0
        # Widths of which the window holds no whole block are passed over; looking at the cut ones
        # would only take time.
        while (
            start is not None
            and depth < len(_WIDTHS)
            and -(-start // _WIDTHS[depth]) >= end // _WIDTHS[depth]
        ):
            depth += 1
        return self._between(first, after, depth), after - first

    def _between(self, first: int, end: int, depth: int) -> Partial:
        """Return the partial of places ``first`` to before ``end``, by blocks of a width."""
        if end - first <= _FEW or depth == len(_WIDTHS):
            return self._one_by_one(first, end)
        merge, partial, moments, width = (
            self._aggregator.merge,
            self._aggregator.identity,
            self.moments,
            _WIDTHS[depth],
        )
        blocks = self._blocks.setdefault(width, {})
        is_cut = first and moments[first - 1] // width == moments[first] // width
        while first < end:
            block = moments[first] // width
            kept = blocks.get(block)
            if kept is None or is_cut or first + kept[1] > end:
                after = bisect_left(moments, (block + 1) * width, first, end)
                kept = self._of_block(block, first, after, depth), after - first
            partial = merge(partial, kept[0])
            first += kept[1]
            is_cut = False
        return partial

    def _of_block(self, block: int, first: int, end: int, depth: int) -> Partial:
        """Return the partial of readings of one block, kept where they are all that it has."""
        width, moments = _WIDTHS[depth], self.moments
        partial = self._between(first, end, depth + 1)
        is_whole = (not first or moments[first - 1] // width < block) and (
            end == len(moments) or moments[end] // width > block
        )
        if is_whole and end - first > _FEW:
            self._blocks[width][block] = (partial, end - first)
        return partial

    def _one_by_one(self, first: int, end: int) -> Partial:
        merge, prepare, partial = (
            self._aggregator.merge,
            self._aggregator.prepare_event,
            self._aggregator.identity,
        )
        for place in range(first, end):
            partial = merge(
                partial, prepare(self.moments[place], self.sequences[place], self.values[place])
            )
        return partial


class Series:
    """What one meter reads of one customer with one set of dimension values: all readings, and
    those that count.

    Without an event time window every reading counts. With one, only the one received last in each
    UTC hour or day does; the others are kept, because a cancellation makes the one before it count
    again.
    """

    __slots__ = ("_counting", "_timelines", "_touched", "_window", "_windows")

    def __init__(self, aggregator: Aggregator, window: int | None) -> None:
        # Its own, and where there is one that of all series of the customer.
        self._timelines = [Timeline(aggregator)]
        self._window = window
        # Window → its readings in the order of arrival; and which of them is in the timeline, by
        # window.
        self._windows: dict[int, list[tuple[int, int, Any]]] = {}
        self._counting: dict[int, tuple[int, int, Any] | None] = {}
        self._touched: dict[int, None] = {}

    def add(self, moment: int, sequence: int, value: Any) -> None:
        """Take a reading; readings come in the order of their numbers."""
        if self._window is None:
            for timeline in self._timelines:
                timeline.add(moment, sequence, value)
        else:
            window = moment // self._window
            self._windows.setdefault(window, []).append((moment, sequence, value))
            self._touched[window] = None

    def remove(self, moment: int, sequence: int) -> None:
        """Drop a reading that is there."""
        if self._window is None:
            for timeline in self._timelines:
                timeline.remove(moment, sequence)
        else:
            window = moment // self._window
            self._windows[window] = [one for one in self._windows[window] if one[1] != sequence]
            self._touched[window] = None

    def timeline(self) -> Timeline:
        """Return the readings that count. Overwritten ones go only here, a thousand like one."""
        for window in self._touched:
            readings = self._windows[window]
            self._count(window, readings[-1] if readings else None)
        self._touched.clear()
        return self._timelines[0]

    def enter(self, whole: Timeline) -> Iterable[tuple[int, int, Any]]:
        """Keep what counts in a timeline of several series, too; return what is there already."""
        readings = self.timeline().readings()
        self._timelines.append(whole)
        return readings

    def _count(self, window: int, winner: tuple[int, int, Any] | None) -> None:
        former = self._counting.get(window)
        if former == winner:
            return
        for timeline in self._timelines:
            if former is not None:
                timeline.remove(*former[:2])
            if winner is not None:
                timeline.add(*winner)
        self._counting[window] = winner

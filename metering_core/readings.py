"""What meters read off events: one series for each meter, customer and set of dimension values."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import Final

from metering_core.measures import Aggregator, Partial, formula_of
from metering_core.meters import Meter
from metering_core.periods import MICROSECONDS
from metering_core.timelines import Series, Timeline

_FEW: Final = 16
"""Series that are merged at each question: a timeline of all would cost their memory again."""


class Readings:
    """What meters read off some events: by meter, customer and dimension values.

    Attributes:
        rows: how many of the log's rows were taken.
        is_torn: set while something is changed. Who finds it so was preceded by a call that was
            interrupted, and reads anew.
    """

    def __init__(self) -> None:
        self.rows = 0
        self.is_torn = False
        self._series: dict[str, dict[str, dict[tuple[str, ...], Series]]] = {}
        # By meter and customer: the readings of all their series.
        self._wholes: dict[tuple[str, str], Timeline] = {}

    def series(self, meter: Meter, customer: str, dimensions: tuple[str, ...]) -> Series:
        """Return the readings with these dimension values, made where there are none."""
        by_dimensions = self._series.setdefault(meter.id, {}).setdefault(customer, {})
        if dimensions not in by_dimensions:
            window = (
                None
                if meter.event_time_window is None
                else meter.event_time_window.seconds * MICROSECONDS
            )
            by_dimensions[dimensions] = Series(formula_of(meter), window)
            if (meter.id, customer) in self._wholes:
                by_dimensions[dimensions].enter(self._wholes[meter.id, customer])
        return by_dimensions[dimensions]

    def timelines(self, meter: Meter, customer: str) -> list[tuple[tuple[str, ...], Timeline]]:
        """Return what a customer's events of a meter come to, by their dimension values."""
        self.is_torn = True
        found = [
            (dimensions, series.timeline())
            for dimensions, series in self._found(meter, customer).items()
        ]
        for _, timeline in found:
            timeline.settle()
        self.is_torn = False
        return found

    def whole(self, meter: Meter, customer: str) -> list[Timeline]:
        """Return a customer's events of a meter whatever their dimensions, in few timelines."""
        self.is_torn = True
        found = self._found(meter, customer)
        timelines = [series.timeline() for series in found.values()]
        if len(timelines) > _FEW:
            if (meter.id, customer) not in self._wholes:
                whole = self._wholes[meter.id, customer] = Timeline(formula_of(meter))
                for reading in sorted(
                    chain.from_iterable(series.enter(whole) for series in found.values()),
                    key=_by_time,
                ):
                    whole.add(*reading)
            timelines = [self._wholes[meter.id, customer]]
        for timeline in timelines:
            timeline.settle()
        self.is_torn = False
        return timelines

    def _found(self, meter: Meter, customer: str) -> dict[tuple[str, ...], Series]:
        return self._series.get(meter.id, {}).get(customer, {})

    def customers(self, meter: Meter) -> list[str]:
        """Return the customers that have events of a meter, in the order in which they came."""
        return list(self._series.get(meter.id, {}))


def window_of(
    aggregator: Aggregator, timelines: Iterable[Timeline], start: int, end: int
) -> tuple[Partial, int]:
    """Return what timelines come to in ``[start, end)`` (microseconds), and of how many."""
    within = before = aggregator.identity
    readings = 0
    for timeline in timelines:
        if aggregator.looks_back:
            before = aggregator.merge(before, timeline.partial(None, start))
        partial, own = timeline.window(start, end)
        within = aggregator.merge(within, partial)
        readings += own
    return aggregator.over(within, before, start, end), readings


def _by_time(reading: tuple[int, int, object]) -> tuple[int, int]:
    return reading[:2]

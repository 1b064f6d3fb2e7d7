"""The laws of the algebra below every number: cells, modes of usage records, formulas of meters.

Each is a monoid, and across cells a commutative one, so a quantity does not depend on how its
usage was split, or in which order the parts were merged. The truth is stated beside it, on all
values at once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from fractions import Fraction
from functools import reduce
from typing import Any, Final

import attrs

from metering_core import AggregateUsage, Formula
from metering_core.exact import Number, whole_if_possible
from metering_core.measures import AGGREGATORS, FORMULAS, Aggregator, Partial
from metering_core.testing.laws.sentences import LawBrokenError, forbid
from metering_core.usage import Cell


def check_cell_laws(a: Cell, b: Cell, c: Cell) -> None:
    """Check the four equations of :mod:`metering_core.usage` for three cells of one timestamp."""
    left, right = a.merge(b).merge(c), a.merge(b.merge(c))
    forbid(
        "cells",
        left != right,
        lambda: f"(a · b) · c is {left} and a · (b · c) is {right}, where a={a}, b={b}, c={c}",
    )
    nothing = Cell(a.timestamp)
    forbid(
        "cells",
        a.merge(nothing) != a or nothing.merge(a) != a,
        lambda: f"{a} and nothing is {a.merge(nothing)}, nothing and it is {nothing.merge(a)}",
    )
    expected = (
        b
        if b.is_set
        else Cell(
            a.timestamp, whole_if_possible(Fraction(a.quantity) + Fraction(b.quantity)), a.is_set
        )
    )
    forbid(
        "cells", a.merge(b) != expected, lambda: f"{a}, then {b} is {a.merge(b)}, not {expected}"
    )


_TRUTH: Final[dict[AggregateUsage, Callable[[Mapping[int, Number]], Number]]] = {
    AggregateUsage.SUM: lambda cells: sum(cells.values()),
    AggregateUsage.MAX: lambda cells: max(cells.values(), default=0),
    AggregateUsage.LAST_DURING_PERIOD: lambda cells: cells[max(cells)] if cells else 0,
    AggregateUsage.LAST_EVER: lambda cells: cells[max(cells)] if cells else 0,
    AggregateUsage.MIN: lambda cells: min(cells.values(), default=0),
    AggregateUsage.COUNT: len,
    AggregateUsage.AVERAGE: lambda cells: (
        whole_if_possible(_sum(cells) / len(cells)) if cells else 0
    ),
    AggregateUsage.HOURLY_PEAKS: lambda cells: _peaks(cells, 3600),
    AggregateUsage.DAILY_PEAKS: lambda cells: _peaks(cells, 86_400),
}


def _sum(cells: Mapping[int, Number]) -> Fraction:
    return sum((Fraction(quantity) for quantity in cells.values()), Fraction())


def _peaks(cells: Mapping[int, Number], seconds: int) -> Number:
    """Return what the greatest cells of all windows add up to, window by window."""
    windows = {at // seconds for at in cells}
    return whole_if_possible(
        sum(Fraction(max(cells[at] for at in cells if at // seconds == one)) for one in windows)
    )


def check_aggregator_laws(
    aggregator: Aggregator | AggregateUsage,
    writes: Sequence[tuple[int, Number]],
    split: Collection[int],
    *,
    expected: Callable[[Mapping[int, Number]], Number] | None = None,
) -> None:
    """Check that any split of the cells, any order and any history of changes gives one quantity.

    Args:
        aggregator: one of yours, or the name of a mode.
        writes: (timestamp, quantity) in the order in which the cells took these values; later ones
            replace earlier ones.
        split: the timestamps of one part; all others are the other part. Draw it within those of
            ``writes``.
        expected: what the cells must come to; known for the named modes.
    """
    row = AGGREGATORS[aggregator] if isinstance(aggregator, AggregateUsage) else aggregator
    truth = _TRUTH[aggregator] if isinstance(aggregator, AggregateUsage) else expected
    cells = dict(writes)
    whole = row.present(row.fold(cells))
    due = whole if truth is None else truth(cells)
    forbid("aggregators", whole != due, lambda: f"the cells {cells} come to {whole}, not {due}")
    parts = [
        row.fold({at: q for at, q in cells.items() if (at in split) is side})
        for side in (True, False)
    ]
    ways = {
        "merged part by part": row.merge(*parts),
        "merged the other way round": row.merge(*reversed(parts)),
        "merged cell by cell": _merged(
            row, [row.prepare(at, quantity) for at, quantity in cells.items()]
        ),
        "merged cell by cell from the right": _merged_from_the_right(row, cells),
        "merged with the identity": row.merge(
            row.merge(row.identity, row.fold(cells)), row.identity
        ),
    }
    for way, partial in ways.items():
        forbid(
            "aggregators",
            row.present(partial) != whole,
            lambda: f"the cells {cells}, {way}, come to {row.present(partial)}, not {whole}",
        )
    _check_running(row, writes)


def _merged(row: Aggregator, partials: Iterable[Any]) -> Any:
    merged = row.identity
    for partial in partials:
        merged = row.merge(merged, partial)
    return merged


def _merged_from_the_right(row: Aggregator, cells: Mapping[int, Number]) -> Any:
    merged = row.identity
    for at, quantity in reversed(list(cells.items())):
        merged = row.merge(row.prepare(at, quantity), merged)
    return merged


def _check_running(row: Aggregator, writes: Sequence[tuple[int, Number]]) -> None:
    """Check that a partial kept up to date while cells change is the partial of the changed
    cells.
    """
    cells: dict[int, Number] = {}
    running = row.running(cells)
    for at, quantity in writes:
        running.partial()
        before = cells.get(at)
        cells[at] = quantity
        running.changed(at, before, quantity)
        kept, folded = row.present(running.partial()), row.present(row.fold(cells))
        if kept != folded:
            moved = f"after the cell at {at} went from {before} to {quantity}"
            raise LawBrokenError(
                "aggregators", f"{moved}, the kept quantity of {cells} is {kept}, not {folded}"
            )


Measured = Callable[[Sequence[Any], Sequence[tuple[int, Any]], int, int], Any]
"""What values come to: those of a window in the order of time, (moment, value) before it, and its
bounds in microseconds.
"""


def _mean_level(
    within: Sequence[tuple[int, Any]], before: Sequence[tuple[int, Any]], start: int, end: int
) -> Fraction:
    """Walk from change to change, adding up the area under the level."""
    level, since, area = (
        sum((Fraction(value) for _, value in before), Fraction()),
        start,
        Fraction(),
    )
    for moment, value in within:
        area += level * (moment - since)
        level, since = level + Fraction(value), moment
    return (area + level * (end - since)) / (end - start)


def _added(numbers: Iterable[Number]) -> Fraction:
    return sum((Fraction(number) for number in numbers), Fraction())


def _numbers(readings: Sequence[tuple[int, Any]]) -> list[Fraction]:
    return [Fraction(value) for _, value in readings]


def _window_peaks(within: Sequence[tuple[int, Any]], seconds: int) -> Fraction:
    """Look at each window for itself."""
    length = seconds * 1_000_000
    windows = {moment // length for moment, _ in within}
    return _added(
        max(Fraction(value) for moment, value in within if moment // length == window)
        for window in windows
    )


_MEASURED: Final[dict[Formula, Measured]] = {
    Formula.SUM: lambda within, *_: sum(_numbers(within)),
    Formula.COUNT: lambda within, *_: len(within),
    Formula.LAST: lambda within, *_: _numbers(within)[-1] if within else 0,
    Formula.MAX: lambda within, *_: max(_numbers(within), default=0),
    Formula.MIN: lambda within, *_: min(_numbers(within), default=0),
    Formula.UNIQUE_COUNT: lambda within, *_: len({value for _, value in within}),
    Formula.AVERAGE: lambda within, *_: sum(_numbers(within)) / len(within) if within else 0,
    Formula.WEIGHTED_SUM: _mean_level,
    Formula.HOURLY_PEAKS: lambda within, *_: _window_peaks(within, 3600),
    Formula.DAILY_PEAKS: lambda within, *_: _window_peaks(within, 86_400),
}


def check_formula_laws(
    formula: Aggregator | Formula,
    readings: Sequence[tuple[int, Any]],
    split: Collection[int],
    window: tuple[int, int],
    *,
    expected: Measured | None = None,
) -> None:
    """Check that any split of the events, and any order of the parts, gives one value for a window
    of time.

    Of what is additive, the values of any two parts, of the events or of the window, must add up to
    the value of the whole.

    Args:
        formula: one of yours, or the name of one of :data:`~metering_core.measures.FORMULAS`.
        readings: (moment in Unix microseconds, value) in the order of arrival.
        split: the places of one part, from 0; all others are the other part. Draw it within those
            of ``readings``.
        window: ``[start, end)`` in Unix microseconds; for what looks back, earlier readings count,
            too.
        expected: what (moment, value) in the order of time within the window and before it must
            come to, given the window's bounds; known for the named formulas.
    """
    row = FORMULAS[formula] if isinstance(formula, Formula) else formula
    truth = _MEASURED[formula] if isinstance(formula, Formula) else expected
    events = _Events(
        row, sorted((moment, place, value) for place, (moment, value) in enumerate(readings))
    )
    start, end = window
    whole = events.value(start, end)
    within, before = events.told(start, end), events.told(None, start)
    due = whole if truth is None else truth(within, before, start, end)
    what = f"{within} in [{start}, {end})"
    forbid("formulas", whole != due, lambda: f"{what} come to {whole}, not {due}; before: {before}")
    for way, found in events.ways(split, start, end).items():
        forbid(
            "formulas",
            found != whole,
            lambda: f"{what}, {way}, come to {found}, not {whole}",
        )
    if row.is_additive:
        _check_additive(events, split, start, end, whole)


def _check_additive(
    events: _Events, split: Collection[int], start: int, end: int, whole: Number
) -> None:
    sides = [attrs.evolve(events, rows=rows).value(start, end) for rows in events.parted(split)]
    forbid(
        "formulas",
        _added(sides) != whole,
        lambda: f"two parts of the events come to {sides}, which does not add up to {whole}",
    )
    for cut in {moment for moment, _ in events.told(start, end)} - {start}:
        parts = [events.value(start, cut), events.value(cut, end)]
        forbid(
            "formulas",
            _added(parts) != whole,
            lambda: f"cut at {cut}, the window comes to {parts}, which does not add up to {whole}",
        )


@attrs.frozen
class _Events:
    """Events of one meter, and its row: (moment, place, value) in the order of time."""

    row: Aggregator
    rows: Sequence[tuple[int, int, Any]]

    def told(self, start: int | None, end: int) -> list[tuple[int, Any]]:
        return [(moment, value) for moment, _, value in self._between(start, end)]

    def _between(self, start: int | None, end: int) -> list[tuple[int, int, Any]]:
        return [row for row in self.rows if row[0] < end and (start is None or start <= row[0])]

    def parted(self, split: Collection[int]) -> list[list[tuple[int, int, Any]]]:
        return [[row for row in self.rows if (row[1] in split) is side] for side in (True, False)]

    def partial(self, start: int | None, end: int) -> Partial:
        prepared = (self.row.prepare_event(*row) for row in self._between(start, end))
        return reduce(self.row.merge, prepared, self.row.identity)

    def value(self, start: int, end: int) -> Number:
        return self._over(self.partial(start, end), self.partial(None, start), start, end)

    def _over(self, within: Partial, before: Partial, start: int, end: int) -> Number:
        return self.row.present(self.row.over(within, before, start, end))

    def ways(self, split: Collection[int], start: int, end: int) -> dict[str, Number]:
        """Return the value by the ways in which partials may be merged."""
        merge, identity = self.row.merge, self.row.identity
        one, other = (attrs.evolve(self, rows=rows) for rows in self.parted(split))
        spans = ((start, end), (None, start))
        back = [self.row.prepare_event(*row) for row in reversed(self._between(start, end))]
        found = {
            "merged part by part": [
                merge(one.partial(*span), other.partial(*span)) for span in spans
            ],
            "merged the other way round": [
                merge(other.partial(*span), one.partial(*span)) for span in spans
            ],
            "merged from the right": [
                reduce(lambda right, left: merge(left, right), back, identity),
                self.partial(None, start),
            ],
            "merged with the identity": [
                merge(identity, merge(self.partial(*span), identity)) for span in spans
            ],
        }
        return {
            way: self._over(within, before, start, end) for way, (within, before) in found.items()
        }

"""Questions to columns: the partials of items, one by one from an index of cells, or of all items
at once from the rows.

The index is made of sorted runs of cells. Later rows make later runs, and runs of like size are
merged, so that asking between small batches stays cheap. It is built when single items are asked
for; many items at once need none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Self

import attrs
import numpy as np
from numpy.typing import NDArray

from metering_core.accounts import KnownItem
from metering_core.cells import ItemCells, PeriodCells
from metering_core.columnar.arrays import INT64_MAX, ORIGIN, Flags, Integers
from metering_core.columnar.folding import Cells, Rows, merge
from metering_core.columnar.numbers import as_array_of, narrowed, summable
from metering_core.columnar.parts import Part
from metering_core.columnar.paths import Kind, fold, kind_of, totals
from metering_core.columnar.piles import Pile, and_run
from metering_core.columnar.totals import Totals, Window
from metering_core.measures import AGGREGATORS, Partial
from metering_core.periods import BillingCycle, BillingPeriod
from metering_core.prices import AggregateUsage

_UNKNOWN: Final = -1
_MANY: Final = 64
"""So many questions at once are answered from the rows, item by item otherwise."""


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


@attrs.frozen(eq=False)
class Questions:
    """Many questions, column by column.

    Attributes:
        codes: which item.
        modes: the different modes.
        numbers: which of ``modes`` each asks in.
        periods: the period of each.
        firsts: the first second that counts, as :attr:`Question.first`.
        ends: the first second after.
    """

    codes: NDArray[np.intp]
    modes: Sequence[AggregateUsage]
    numbers: Integers
    periods: Sequence[BillingPeriod]
    firsts: Integers
    ends: Integers

    @classmethod
    def of(
        cls,
        codes: NDArray[np.intp],
        modes: Sequence[AggregateUsage],
        periods: Sequence[BillingPeriod],
    ) -> Self:
        """Look up the seconds."""
        length = len(periods)
        # By identity: the hash of an enumeration's member is computed in Python. And mode by mode,
        # of which there are few: a look at each request would cost as much as all the rest.
        keys = np.fromiter(map(id, modes), np.int64, length)
        numbers = np.full(length, _UNKNOWN)
        known = [mode for mode in AggregateUsage if (keys == id(mode)).any()]
        for place, mode in enumerate(known):
            numbers[keys == id(mode)] = place
        for place in np.flatnonzero(numbers == _UNKNOWN).tolist():  # Modes of nobody's table.
            if modes[place] not in known:
                known.append(modes[place])
            numbers[place] = known.index(modes[place])
        starts = np.fromiter([period.start_seconds for period in periods], np.int64, length)
        ends = np.fromiter([period.end_seconds for period in periods], np.int64, length)
        return cls._made(codes, known, numbers, periods, starts, ends)

    @classmethod
    def of_all(cls, items: int, period: BillingPeriod, modes: Sequence[AggregateUsage]) -> Self:
        """Ask for all items in one period, mode after mode."""
        codes = np.tile(np.arange(items), len(modes))
        numbers = np.repeat(np.arange(len(modes)), items)
        starts = np.full(len(codes), period.start_seconds, np.int64)
        ends = np.full(len(codes), period.end_seconds, np.int64)
        return cls._made(codes, modes, numbers, [period] * len(codes), starts, ends)

    @classmethod
    def _made(
        cls,
        codes: NDArray[np.intp],
        modes: Sequence[AggregateUsage],
        numbers: Integers,
        periods: Sequence[BillingPeriod],
        starts: Integers,
        ends: Integers,
    ) -> Self:
        looks_back = np.array([AGGREGATORS[mode].looks_back for mode in modes], np.bool_)
        firsts = np.where(looks_back[numbers], ORIGIN, starts)
        return cls(codes, modes, numbers, periods, firsts, ends)

    def within(self, low: int, high: int) -> Self:
        """Ask the same of rows from ``low`` to ``high`` only, so that windows are alike."""
        return attrs.evolve(
            self, firsts=np.maximum(self.firsts, low), ends=np.minimum(self.ends, high + 1)
        )

    def __len__(self) -> int:
        return len(self.numbers)

    def at(self, place: int) -> Question:
        """Return one of them."""
        mode = self.modes[self.numbers[place]]
        return Question(int(self.codes[place]), mode, self.periods[place])

    def kinds(self) -> dict[Kind | None, Flags]:
        """Say which questions are of which kind; of None are those that only their row answers."""
        of = [kind_of(mode) for mode in self.modes]
        return {
            kind: np.array([one == kind for one in of])[self.numbers] for kind in dict.fromkeys(of)
        }

    def rounds(self) -> list[NDArray[np.intp]]:
        """Cut the questions into rounds by their places, so that in each an item has one window, if
        several modes.
        """
        return _rounds(self.codes, self.firsts, self.ends)

    def window(self, places: NDArray[np.intp], items: int) -> Window:
        """Return what a round asks of ``items`` items."""
        window = Window(np.full(items, INT64_MAX, np.int64), np.full(items, ORIGIN, np.int64))
        asked = self.codes[places]
        window.lows[asked], window.highs[asked] = self.firsts[places], self.ends[places]
        return window


@attrs.frozen(eq=False)
class _Answered:
    """Totals of some questions of one kind, by their places."""

    places: NDArray[np.intp]
    kind: Kind
    totals: Totals

    def partials(self) -> list[Partial]:
        """Return a partial for each, in the shape of its aggregator."""
        values: list[Partial] = self.totals.values.tolist()
        if self.totals.is_there is None:
            return values
        found = (
            values
            if self.totals.stamps is None
            else list(zip(self.totals.stamps.tolist(), values, strict=True))
        )
        return [
            one if there else None
            for one, there in zip(found, self.totals.is_there.tolist(), strict=True)
        ]

    def put_into(self, answers: list[Partial]) -> None:
        """Put each partial where it was asked for."""
        for place, partial in zip(self.places.tolist(), self.partials(), strict=True):
            answers[place] = partial

    def quantities(self) -> NDArray[Any]:
        """Return the quantity for each, 0 where there is no cell."""
        values, is_there = self.totals.values, self.totals.is_there
        return narrowed(values if is_there is None else np.where(is_there, values, 0))


@attrs.frozen
class Late:
    """A row that is billed in a later period than its timestamp's.

    Attributes:
        number: its sequence number.
        code: which item.
        stamp: Unix seconds.
        quantity: units.
        is_set: whether it overwrites.
        received: Unix microseconds.
        billed_at: a second of the period that it is billed in.
    """

    number: int
    code: int
    stamp: int
    quantity: int
    is_set: bool
    received: int
    billed_at: int


@attrs.define(eq=False)
class _Derived:
    """What was folded so far. Each pair is replaced as one, so that what interrupts a fold leaves
    how far it came.

    Attributes:
        index: how many parts were folded, and the cells of their rows in sorted runs.
        beside: how many late rows were folded, and the cells beside the rows, by code; None where
            that was cut short.
    """

    index: tuple[int, tuple[Cells, ...]] = (0, ())
    beside: tuple[int, dict[int, ItemCells]] | None = None


_NOTHING_BESIDE: Final[dict[int, ItemCells]] = {}


class Answers:
    """Some accepted rows, as a value, and what is derived from them when it is asked for.

    Attributes:
        parts: the rows, in the order of arrival; without those that are late.
        late: the rows that are billed in a later period than their timestamp's, in the order of
            arrival.
        compacted: the totals that compaction kept, by code.
    """

    def __init__(
        self,
        items: Sequence[KnownItem],
        parts: Iterable[Part] = (),
        late: Iterable[Late] = (),
        compacted: Mapping[int, Sequence[PeriodCells]] | None = None,
    ) -> None:
        self._items = items
        self.parts = parts if isinstance(parts, Pile) else Pile(list(parts))
        self.late = late if isinstance(late, Pile) else Pile(list(late))
        self.compacted = compacted or {}
        self._derived = _Derived()

    def __len__(self) -> int:
        """Return the number of rows that are held."""
        return sum(len(part.rows) for part in self.parts) + len(self.late)

    def and_those(self, part: Part | None, late: Iterable[Late]) -> Answers:
        """Return answers from these and later rows; nothing is derived a second time."""
        parts, later = self.parts if part is None else self.parts.and_one(part), self.late
        for one in late:
            later = later.and_one(one)
        more = Answers(self._items, parts, later, self.compacted)
        more._derived = self._derived
        return more

    # One by one -----------------------------------------------------------------------------------

    def _index(self) -> tuple[Cells, ...]:
        """Fold what came since the last question."""
        indexed, runs = self._derived.index
        for part in self.parts[indexed:]:
            indexed, runs = indexed + 1, and_run(runs, fold(part.rows), merge)
            self._derived.index = indexed, runs
        return runs

    def beside(self) -> Mapping[int, ItemCells]:
        """Return the cells beside the rows, by code: of late rows, and what compaction kept."""
        if not self.late and not self.compacted:
            return _NOTHING_BESIDE
        folded, cells = self._derived.beside or (0, self._kept_cells())
        if folded < len(self.late):
            # The cells change one by one from here on: who is cut short leaves none, and all are
            # folded anew.
            self._derived.beside = None
            for late in self.late[folded:]:
                beside = cells.setdefault(late.code, ItemCells(self._cycle_of(late.code)))
                beside.at(late.billed_at).apply(late.stamp, late.quantity, is_set=late.is_set)
        self._derived.beside = len(self.late), cells
        return cells

    def _kept_cells(self) -> dict[int, ItemCells]:
        cells = {code: ItemCells(self._cycle_of(code)) for code in self.compacted}
        for code, kept in self.compacted.items():
            for period in kept:
                cells[code].share(period)
        return cells

    def _cycle_of(self, code: int) -> BillingCycle:
        return self._items[code].account.subscription.cycle

    def cells(self, code: int, first: int, end: int) -> Cells:
        """Return an item's cells from ``first`` to before ``end``, those beside the rows
        excepted.
        """
        return merge([run.between(code, first, end) for run in self._index()])

    def partial(self, question: Question) -> Partial:
        """Answer one question."""
        return self._with_beside(question, self._of_rows(question))

    def _of_rows(self, question: Question) -> Partial:
        kind = kind_of(question.mode)
        found = self.cells(question.code, question.first, question.period.end_seconds)
        if not len(found):
            return AGGREGATORS[question.mode].identity
        if kind is None:
            return AGGREGATORS[question.mode].fold(
                dict(zip(found.stamps.tolist(), found.values.tolist(), strict=True))
            )
        return _PARTIALS[kind](found)

    def _with_beside(self, question: Question, partial: Partial) -> Partial:
        beside = self.beside().get(question.code)
        if beside is None:
            return partial
        aggregator = AGGREGATORS[question.mode]
        return aggregator.merge(partial, beside.partial(aggregator, question.period))

    def _with_all_beside(self, questions: Questions, partials: list[Partial]) -> list[Partial]:
        beside = self.beside()
        if beside:
            for place, code in enumerate(questions.codes.tolist()):
                if code in beside:
                    partials[place] = self._with_beside(questions.at(place), partials[place])
        return partials

    def item_cells(self, code: int, cycle: BillingCycle) -> ItemCells:
        """Return all cells of an item by period, as the log keeps them."""
        found = self.cells(code, ORIGIN, 2**62)
        cells = ItemCells(cycle)
        for stamp, quantity in zip(found.stamps.tolist(), found.values.tolist(), strict=True):
            cells.at(stamp).cells[stamp] = quantity
        for period in self.beside().get(code, ()):
            if period.kept is not None or period.is_lost:
                cells.share(period)
            else:
                cells.at(period.start).cells.update(period.cells)
        return cells

    # Many at once ---------------------------------------------------------------------------------

    def partials(self, questions: Questions, items: int) -> list[Partial]:
        """Answer many questions about ``items`` items in their order."""
        answers: list[Partial] = [None] * len(questions)
        alone: Iterable[int] = range(len(questions))
        if len(questions) >= _MANY:
            asked = self._of_held(questions)
            slow = asked.kinds().get(None, np.zeros(len(questions), np.bool_))
            rounds = [places[~slow[places]] for places in asked.rounds()]
            alone = [place for places in rounds if len(places) < _MANY for place in places.tolist()]
            alone += np.flatnonzero(slow).tolist()
            for answered in self._in_bulk(
                asked, [places for places in rounds if len(places) >= _MANY], items
            ):
                answered.put_into(answers)
        for place in alone:
            answers[place] = self._of_rows(questions.at(place))
        return self._with_all_beside(questions, answers)

    def _of_held(self, questions: Questions) -> Questions:
        """Ask only for when there are rows."""
        return questions.within(*self._span())

    def _span(self) -> tuple[int, int]:
        lows, highs = [part.rows.low for part in self.parts], [one.rows.high for one in self.parts]
        return min(lows, default=0), max(highs, default=0)

    def quantities(self, questions: Questions, items: int) -> NDArray[Any]:
        """Answer with quantities; ``dtype`` object where one is no integer of 64 bits."""
        if len(questions) < _MANY or self.beside() or None in questions.kinds():
            partials = zip(questions.numbers.tolist(), self.partials(questions, items), strict=True)
            presents = [AGGREGATORS[mode].present for mode in questions.modes]
            return as_array_of([presents[mode](partial) for mode, partial in partials])
        asked = self._of_held(questions)
        answers = [
            (one.places, one.quantities()) for one in self._in_bulk(asked, asked.rounds(), items)
        ]
        quantities = np.empty(
            len(questions), np.result_type(*(values.dtype for _, values in answers))
        )
        for places, values in answers:
            quantities[places] = values
        return quantities

    def quantities_by_mode(
        self, items: int, period: BillingPeriod, modes: Sequence[AggregateUsage]
    ) -> dict[AggregateUsage, NDArray[Any]]:
        """Answer about all items in one period, by code."""
        quantities = self.quantities(Questions.of_all(items, period, modes), items)
        return {mode: quantities[at * items : (at + 1) * items] for at, mode in enumerate(modes)}

    def _in_bulk(
        self, questions: Questions, rounds: Iterable[NDArray[np.intp]], items: int
    ) -> Iterator[_Answered]:
        """Answer the questions of rounds, in none of which an item is asked for two windows."""
        codes, kinds = questions.codes, questions.kinds()
        for places in rounds:
            window = questions.window(places, items)
            of_kind = {
                kind: some
                for kind, flags in kinds.items()
                if kind is not None and len(some := places[flags[places]])
            }
            by_code = {kind: _flags_at(codes[some], items) for kind, some in of_kind.items()}
            for kind, found in totals(self._sources(), window, by_code).items():
                yield _Answered(of_kind[kind], kind, found.of(codes[of_kind[kind]]))

    def _sources(self) -> list[Rows]:
        """Return the cells where all rows are folded already, else the rows."""
        indexed, runs = self._derived.index
        if indexed < len(self.parts) or not runs:
            return [part.rows for part in self.parts]
        merged = merge(runs)
        self._derived.index = indexed, (merged,)
        return [merged.as_rows(*self._span())]


def _flags_at(places: NDArray[np.intp], length: int) -> Flags:
    flags = np.zeros(length, np.bool_)
    flags[places] = True
    return flags


def _rounds(codes: NDArray[np.intp], firsts: Integers, ends: Integers) -> list[NDArray[np.intp]]:
    """Cut questions into rounds by their places, in each of which an item has one window."""
    if (firsts == firsts[0]).all() and (ends == ends[0]).all():
        return [np.arange(len(codes))]
    order = np.lexsort((ends, firsts, codes))
    columns = [column[order] for column in (codes, firsts, ends)]
    is_other = np.zeros(len(order), np.bool_)
    for column in columns:
        is_other[1:] |= column[1:] != column[:-1]
    windows = np.cumsum(is_other)
    times = np.empty(len(order), np.intp)
    times[order] = windows - windows[np.searchsorted(columns[0], columns[0])]
    return [np.flatnonzero(times == time) for time in range(int(times.max()) + 1)]


# The partial of each mode, in the shape of its aggregator -----------------------------------------


def _sum_of(cells: Cells) -> int:
    return int(summable(cells.values, cells.bound).sum())


def _max_of(cells: Cells) -> int:
    return int(cells.values.max())


def _last_of(cells: Cells) -> tuple[int, int]:
    return int(cells.stamps[-1]), int(cells.values[-1])


_PARTIALS: Final[Mapping[Kind, Callable[[Cells], Partial]]] = {
    "sums": _sum_of,
    "maxima": _max_of,
    "lasts": _last_of,
}

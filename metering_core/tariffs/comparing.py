"""What a change of price does, quantity by quantity and exactly.

Two prices are two piecewise linear functions (:mod:`metering_core.tariffs.pieces`), so where one is
dearer than the other is computed, not sampled. Packages make stairs, and the difference of two
stairs of unequal steps repeats only after the least common multiple of both: within that the steps
are gone through one by one, and where they are too many the comparison asks for a quantity to stop
at (``up_to``) rather than answer approximately.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from fractions import Fraction
from math import ceil, floor, lcm
from typing import Final

import attrs

from metering_core.codec import Storable
from metering_core.errors import ErrorCode, InvalidValueError, shown
from metering_core.exact import Unrounded, decimal_if_possible, exact_integer
from metering_core.prices import Price, Priced
from metering_core.tariffs.pieces import Piece, Tariff, span, tariff, units, written

STEPS_MAX: Final = 100_000
"""Steps of packages that one comparison goes through; beyond, it asks for ``up_to``."""

STRETCHES_SHOWN: Final = 12
"""Stretches that the text of a comparison shows; the value has them all."""


class Direction(StrEnum):
    """What the new price is, compared with the old one."""

    CHEAPER = "cheaper"
    EQUAL = "equal"
    DEARER = "dearer"


def direction_of(difference: Fraction) -> Direction:
    """Return the direction of new minus old."""
    if not difference:
        return Direction.EQUAL
    return Direction.DEARER if difference > 0 else Direction.CHEAPER


@attrs.frozen
class Stretch(Storable):
    """A range of whole quantities on which the new price is dearer throughout, cheaper throughout,
    or equal.

    Attributes:
        first: least quantity.
        last: greatest quantity, inclusive; None where it has no end.
        direction: what the new price is there.
    """

    first: int
    last: int | None
    direction: Direction


@attrs.frozen
class Gap(Storable):
    """How far the new price gets from the old one, on one side.

    Attributes:
        quantity: the least quantity with the largest difference; None where the difference grows
            without end.
        amount: new total minus old total there, minor units, exact (a Fraction where no decimal can
            write it); None where it grows without end.
    """

    quantity: int | None
    amount: Unrounded | None

    @property
    def is_unbounded(self) -> bool:
        """Whether the difference grows without end."""
        return self.quantity is None


@attrs.frozen
class Comparison(Priced):
    """Where the new price is dearer than the old one, where cheaper, and by how much at most.

    Attributes:
        old: the price that is left.
        new: the price that is taken.
        stretches: ascending from quantity 0, without gap or overlap, each with another direction
            than the one before.
        repeats_from: a quantity from which on the directions repeat for ever (two stairs of equal
            slope); None where not.
        repeats_every: after how many units they do.
        dearer: the largest gap above 0; None where the new price is nowhere dearer.
        cheaper: the largest gap below 0; None where it is nowhere cheaper.
        up_to: the greatest quantity compared, inclusive; None where all are.
    """

    computed = ("crossings",)

    old: Price
    new: Price
    stretches: tuple[Stretch, ...]
    dearer: Gap | None
    cheaper: Gap | None
    repeats_from: int | None = None
    repeats_every: int | None = None
    up_to: int | None = None

    @property
    def crossings(self) -> tuple[int, ...]:
        """The quantities from which on another direction holds than just before, ascending."""
        return tuple(stretch.first for stretch in self.stretches[1:])

    def direction_at(self, quantity: int) -> Direction:
        """Return what the new price is at a quantity.

        Raises:
            InvalidValueError: ``parameter_invalid_integer`` for what is no quantity, or one beyond
                ``up_to``.
        """
        asked = exact_integer(quantity, "quantity", maximum=self.up_to)
        begin, every = self.repeats_from, self.repeats_every
        if begin is not None and every is not None and asked >= begin:
            asked = begin + (asked - begin) % every
        return next(
            one.direction for one in self.stretches if one.last is None or asked <= one.last
        )

    def __str__(self) -> str:
        """Return the comparison as sentences, one a line."""
        lines = [f"{self.new.id} compared with {self.old.id}:"]
        lines += [f"  {_words(self.new, stretch)}" for stretch in self.stretches[:STRETCHES_SHOWN]]
        if len(self.stretches) > STRETCHES_SHOWN:
            more = self.stretches[STRETCHES_SHOWN:]
            lines.append(f"  and so on, {len(more):,} more, the last: {_words(self.new, more[-1])}")
        if self.repeats_from is not None and self.repeats_every is not None:
            every = units(self.new, self.repeats_every)
            lines.append(f"  From {self.repeats_from:,} on this repeats every {every}.")
        for name, gap in (("dearer", self.dearer), ("cheaper", self.cheaper)):
            if gap is not None:
                lines.append(f"  At most {name}: {_gap_words(self.new, gap)}.")
        return "\n".join(map(shown, lines))


def _words(price: Price, stretch: Stretch) -> str:
    return f"{stretch.direction.value} {span(price, stretch.first, stretch.last)}"


def _gap_words(price: Price, gap: Gap) -> str:
    if gap.quantity is None or gap.amount is None:
        return "without end, the difference grows with usage"
    return f"{written(price, abs(Fraction(gap.amount)))} at {units(price, gap.quantity)}"


def compare(old: Price, new: Price, *, up_to: int | None = None) -> Comparison:
    """Return where the new price is dearer, cheaper and equal, over all whole quantities, by exact
    totals.

    What is compared is what one billing period costs, whatever the intervals of the prices are.

    Args:
        old: any price of a built-in model, or of a model that declares its breakpoints.
        new: another in the same currency.
        up_to: the greatest quantity to compare, inclusive; None for all of them.

    >>> old = Price.per_unit("old", currency="usd", unit_amount=10)
    >>> print(compare(old, Price.package("new", currency="usd", unit_amount=1500, divide_by=100)))
    new compared with old:
      equal at 0 units
      dearer from 1 unit on
      At most dearer: without end, the difference grows with usage.

    Raises:
        InvalidValueError: ``currency_mismatch``; ``parameter_invalid_integer`` for a malformed
            ``up_to``; ``parameter_missing`` (param ``up_to``) where the steps of two packages would
            need more than :data:`STEPS_MAX` of them to be gone through, and those of
            :func:`~metering_core.tariffs.pieces.tariff`.
        InvoicingError: as :func:`~metering_core.tariffs.pieces.tariff`.
    """
    before, after = _tariffs(old, new)
    end = None if up_to is None else exact_integer(up_to, "up_to")
    pairs = [_Pair(*pair, end) for pair in _overlaps(before, after, end)]
    stretches = _merged(stretch for pair in pairs for stretch in pair.stretches())
    repeats_from, repeats_every = pairs[-1].repeats() or (None, None)
    dearer, cheaper = (_largest([pair.extreme(sign) for pair in pairs], sign) for sign in (1, -1))
    return Comparison(old, new, stretches, dearer, cheaper, repeats_from, repeats_every, end)


def _tariffs(old: Price, new: Price) -> tuple[Tariff, Tariff]:
    before, after = tariff(old), tariff(new)
    require_one_currency(old, new)
    return before, after


def require_one_currency(old: Price, new: Price) -> None:
    """Refuse two prices that cannot be compared, with ``currency_mismatch``."""
    if old.currency != new.currency:
        expected = f"a price in {old.currency.upper()}, as the old one"
        raise InvalidValueError.expecting(
            ErrorCode.CURRENCY_MISMATCH, "new", expected, new.currency
        )


def _overlaps(
    before: Tariff, after: Tariff, end: int | None
) -> Iterator[tuple[Piece, Piece, int, int | None]]:
    """Yield the ranges on which neither price changes its formula, with both pieces."""
    olds, news, first = list(before.pieces), list(after.pieces), 0
    while True:
        last = _least(olds[0].last, news[0].last, end)
        yield olds[0], news[0], first, last
        if last is None or last == end:
            return
        for pieces in (olds, news):
            if pieces[0].last == last:
                del pieces[0]
        first = last + 1


def _least(*ends: int | None) -> int | None:
    return min((end for end in ends if end is not None), default=None)


def _merged(stretches: Iterable[Stretch]) -> tuple[Stretch, ...]:
    merged: list[Stretch] = []
    for stretch in stretches:
        if merged and merged[-1].direction is stretch.direction:
            merged[-1] = attrs.evolve(merged[-1], last=stretch.last)
        else:
            merged.append(stretch)
    return tuple(merged)


@attrs.frozen
class _Run:
    """A range of quantities on which the difference is ``start`` plus ``rise`` with every ``width``
    units after ``anchor``.
    """

    first: int
    last: int | None
    start: Fraction
    rise: Fraction
    anchor: int
    width: int = 1

    def at(self, quantity: int) -> Fraction:
        return self.start + self.rise * ((quantity - self.anchor) // self.width)

    @property
    def end(self) -> int:
        """The last quantity of a run that has one."""
        assert self.last is not None, "only a run with an end is asked for it"
        return self.last

    def first_of_last_step(self) -> int:
        """Return the least quantity of a run's last step."""
        return max(self.first, self.end - (self.end - self.anchor) % self.width)

    def stretches(self) -> Iterator[Stretch]:
        """Cut where the difference passes 0: before, exactly at (where a step hits it), and
        after.
        """
        cuts = [self.first]
        if self.rise:
            root = -self.start / self.rise
            for step in {ceil(root), floor(root) + 1}:
                cut = self.anchor + step * self.width
                if cut > self.first and (self.last is None or cut <= self.last):
                    cuts.append(cut)
        cuts.sort()
        lasts = [*(cut - 1 for cut in cuts[1:]), self.last]
        for first, last in zip(cuts, lasts, strict=True):
            yield Stretch(first, last, direction_of(self.at(first)))


@attrs.frozen
class _Pair:
    """A piece of the old price and a piece of the new one, on the range where both hold."""

    old: Piece
    new: Piece
    first: int
    last: int | None
    up_to: int | None

    def at(self, quantity: int) -> Fraction:
        return self.new.total(quantity) - self.old.total(quantity)

    @property
    def is_aligned(self) -> bool:
        """Whether both make their steps together, so that their difference is one stair, or one
        line.
        """
        width = self.old.width
        return width == self.new.width and (self.old.first - self.new.first) % width == 0

    @property
    def slope(self) -> Fraction:
        """What the difference gains with a unit, over many."""
        return self.new.rise / self.new.width - self.old.rise / self.old.width

    @property
    def common_width(self) -> int:
        """After how many units both have made whole steps, so that the difference has moved by the
        slope alone.
        """
        return lcm(self.old.width, self.new.width)

    def repeats(self) -> tuple[int, int] | None:
        """Return from where on and every how many units the directions repeat; None where they do
        not, or it ends.
        """
        if self.last is not None or self.is_aligned or self.slope or self._undecided() is None:
            return None
        return self.first, self.common_width

    def stretches(self) -> Iterator[Stretch]:
        """Yield the directions; only where a stair may hide a change of sign are its steps gone
        through.
        """
        if self.is_aligned:
            yield from self._aligned().stretches()
            return
        undecided = self._undecided()
        if undecided is None:
            yield self._decided(self.first, self.last)
            return
        first, last = undecided
        if first > self.first:
            yield self._decided(self.first, first - 1)
        # Without slope and without end the same comes again after the common width.
        for run in self._runs(first, self.first + self.common_width - 1 if last is None else last):
            yield from run.stretches()
        if last is not None and (self.last is None or last < self.last):
            yield self._decided(last + 1, self.last)

    def _decided(self, first: int, last: int | None) -> Stretch:
        """Return a range throughout which one direction holds."""
        return Stretch(first, last, direction_of(self.at(first)))

    def extreme(self, sign: int) -> Gap:
        """Return the largest difference of a sign; it lies at an end, within one repetition of both
        stairs.
        """
        is_rising = self.slope * sign > 0
        if self.last is None and is_rising:
            return Gap(None, None)
        candidates = self._candidates(is_rising=is_rising)
        quantity = max(candidates, key=lambda end: (self.at(end) * sign, -end))
        return Gap(quantity, decimal_if_possible(self.at(quantity)))

    def _candidates(self, *, is_rising: bool) -> Iterator[int]:
        if self.is_aligned:
            yield self.first
            if self.last is not None:
                yield self._aligned().first_of_last_step()
            return
        first, last = self.first, self.first + self.common_width - 1
        if self.last is not None:
            first = max(self.first, self.last - self.common_width + 1) if is_rising else first
            last = self.last if is_rising else min(last, self.last)
        for run in self._runs(first, last):
            yield from (run.first, run.end)

    def _aligned(self) -> _Run:
        old, rise = self.old, self.new.rise - self.old.rise
        anchor = old.first_of(old.step_of(self.first))
        return _Run(self.first, self.last, self.at(self.first), rise, anchor, old.width)

    def _undecided(self) -> tuple[int, int | None] | None:
        """Return the range outside of which the sign follows from the slope: the stairs lie between
        two parallel lines.
        """
        low = self._lower(self.new) - self._upper(self.old)
        high = self._upper(self.new) - self._lower(self.old)
        if not self.slope:
            return (self.first, self.last) if low <= 0 <= high else None
        roots = sorted(-bound / self.slope for bound in (low, high))
        first = max(self.first, self.first + floor(roots[0]))
        last = self.first + ceil(roots[1])
        last = last if self.last is None else min(last, self.last)
        return (first, last) if first <= last else None

    def _upper(self, piece: Piece) -> Fraction:
        """Return the height, at ``first``, of the line that a stair touches from below where its
        steps begin.
        """
        return piece.start + piece.rise * Fraction(self.first - piece.first, piece.width)

    def _lower(self, piece: Piece) -> Fraction:
        return self._upper(piece) - piece.rise * Fraction(piece.width - 1, piece.width)

    def _runs(self, first: int, last: int) -> Iterator[_Run]:
        """Cut a range at the steps of both stairs."""
        stairs = [piece for piece in (self.old, self.new) if piece.width > 1]
        self._refuse_too_many(sum((last - first) // stair.width for stair in stairs))
        # Between two steps only a straight line rises, and both are none only where nothing does.
        old, new = (Fraction(0) if one.width > 1 else one.rise for one in (self.old, self.new))
        while first <= last:
            end = min(*(stair.last_of(stair.step_of(first)) for stair in stairs), last)
            yield _Run(first, end, self.at(first), new - old, first)
            first = end + 1

    def _refuse_too_many(self, steps: int) -> None:
        if steps > STEPS_MAX:
            expected = (
                f"a quantity to compare up to, because packages of {self.old.width:,} and "
                f"{self.new.width:,} units make {steps:,} steps before the answer repeats or ends "
                f"({STEPS_MAX:,} can be gone through)"
            )
            code = ErrorCode.PARAMETER_MISSING
            raise InvalidValueError.expecting(code, "up_to", expected, self.up_to)


def _largest(gaps: Sequence[Gap], sign: int) -> Gap | None:
    """Return the first of the largest gaps; None where the difference never has this sign."""
    if gaps[-1].is_unbounded:
        return gaps[-1]
    sizes = [Fraction(gap.amount or 0) * sign for gap in gaps]
    largest = max(sizes)
    return gaps[sizes.index(largest)] if largest > 0 else None

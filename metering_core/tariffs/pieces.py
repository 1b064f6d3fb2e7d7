"""A price as what it is: a function from whole quantities to exact amounts, made of finitely many
pieces.

On a :class:`Piece` every charge grows by a constant amount with each step of ``width`` units, so
whatever one wants to know of a price (where it falls, where it meets another, what it costs at
worst) can be computed from the pieces. Nothing is sampled. The tiers of
:class:`~metering_core.pricing.Graduated` and :class:`~metering_core.pricing.Volume` are one piece
each; a package price is a stair of ``divide_by`` units a step; a model of the user's own says where
its formula changes (:class:`~metering_core.pricing.DeclaresBreakpoints`).

Quantities are the integers from 0, which is what usage records add up to. Amounts are Fractions of
minor units.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from itertools import islice
from math import floor
from typing import Final

import attrs

from metering_core.errors import ErrorCode, InvalidValueError, InvoicingError, shown
from metering_core.exact import decimal_if_possible
from metering_core.money import Amount, Money
from metering_core.names import require_kind
from metering_core.prices import Price
from metering_core.pricing import (
    DeclaresBreakpoints,
    Percentage,
    Reach,
    Schedule,
    breakpoints_of,
    is_built_in,
)
from metering_core.rating import rate, steps_beyond_closed_form

HALF: Final = Fraction(1, 2)
ZERO: Final = Fraction(0)

BREAKPOINTS_MAX: Final = 10_000
"""Breakpoints that a model of the user's own may declare; a formula that changes more often is not
one.
"""


@attrs.frozen
class Line:
    """A charge that grows on a piece: ``start`` minor units at its first step, ``rise`` more with
    every step.
    """

    start: Fraction
    rise: Fraction

    def at(self, step: int) -> Fraction:
        """Return the exact amount at a step, counted from 0."""
        return self.start + self.rise * step


@attrs.frozen
class FixedLines:
    """The charges that do not grow on a piece, added up.

    Attributes:
        amount: minor units, exact.
        settled: minor units, each charge settled half up by itself.
        is_any_lost: whether one of them is above 0 and settles to 0.
    """

    amount: Fraction = ZERO
    settled: int = 0
    is_any_lost: bool = False

    def plus(self, amount: Fraction) -> FixedLines:
        """Return these charges and one more."""
        return FixedLines(
            self.amount + amount,
            self.settled + settled_half_up(amount),
            self.is_any_lost or is_lost(amount),
        )


def settled_half_up(amount: Fraction) -> int:
    """Settle a charge of at least 0, as :func:`~metering_core.money.settle` does by default."""
    return floor(amount + HALF)


def is_lost(amount: Fraction) -> bool:
    """Say whether a charge is above 0 and settles to 0."""
    return 0 < amount < HALF


@attrs.frozen
class Piece:
    """A range of whole quantities on which the total is a straight line, or a stair of equal steps.

    Attributes:
        tier: the number of the tier or formula, from 1.
        first: least quantity.
        last: greatest quantity, inclusive; None where it has no end.
        fixed: the charges that are the same on the whole piece.
        growing: the charges that grow, each by its rise per step.
        width: units in a step: the total is the same within one, 1 for a straight line.
        rate: minor units for one unit; None where the piece has one quantity only and no unit
            price.
        start: the total at ``first``, minor units.
        rise: what the total gains with a step, minor units.
    """

    tier: int
    first: int
    last: int | None
    fixed: FixedLines
    growing: tuple[Line, ...]
    width: int
    rate: Fraction | None
    start: Fraction = attrs.field(init=False)
    rise: Fraction = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Add up the lines."""
        object.__setattr__(
            self, "start", sum((line.start for line in self.growing), self.fixed.amount)
        )
        object.__setattr__(self, "rise", sum((line.rise for line in self.growing), ZERO))

    @property
    def last_step(self) -> int | None:
        """The number of the last step, counted from 0; None where there is no end."""
        return None if self.last is None else self.step_of(self.last)

    def step_of(self, quantity: int) -> int:
        """Return the step that a quantity of the piece is on."""
        return (quantity - self.first) // self.width

    def first_of(self, step: int) -> int:
        """Return the least quantity of a step."""
        return self.first + step * self.width

    def last_of(self, step: int) -> int:
        """Return the greatest quantity of a step."""
        end = self.first_of(step + 1) - 1
        return end if self.last is None else min(end, self.last)

    def at(self, step: int) -> Fraction:
        """Return the exact total at a step."""
        return self.start + self.rise * step

    def total(self, quantity: int) -> Fraction:
        """Return the exact total at a quantity of the piece."""
        return self.at(self.step_of(quantity))

    def settled_at(self, step: int) -> int:
        """Return what is billed at a step: the sum of the charges, each settled half up."""
        return self.fixed.settled + sum(settled_half_up(line.at(step)) for line in self.growing)


@attrs.frozen
class Tariff:
    """A price as a function of whole quantities.

    Attributes:
        price: the price.
        pieces: from quantity 0 on, without gap or overlap; the last one has no end.
        empty_tiers: numbers of the tiers in which no whole quantity ends (two bounds between the
            same two integers).
    """

    price: Price
    pieces: tuple[Piece, ...]
    empty_tiers: tuple[int, ...] = ()

    def piece_at(self, quantity: int) -> Piece:
        """Return the piece that holds a quantity."""
        return self.pieces[bisect_right(self.pieces, quantity, key=lambda piece: piece.first) - 1]

    def total(self, quantity: int) -> Fraction:
        """Return the exact total, minor units, as the sum of the charges of
        :func:`~metering_core.rate` is.
        """
        return self.piece_at(quantity).total(quantity)

    def settled(self, quantity: int) -> int:
        """Return what is billed, minor units: each charge settled half up, then added."""
        piece = self.piece_at(quantity)
        return piece.settled_at(piece.step_of(quantity))


def tariff(price: Price) -> Tariff:
    """Return a price as a function of whole quantities.

    >>> from metering_core import Tier
    >>> tiers = [Tier(10, unit_amount=900), Tier("inf", unit_amount=800)]
    >>> volume = Price.volume("seats", currency="usd", tiers=tiers)
    >>> [(piece.first, piece.last, int(piece.start)) for piece in tariff(volume).pieces]
    [(0, 10, 0), (11, None, 8800)]

    Raises:
        InvalidValueError: ``parameter_invalid_object`` for what is no price, or for a model of the
            user's own that has no ``breakpoints()`` or more than :data:`BREAKPOINTS_MAX` of them.
        InvoicingError: ``pricing_model_broken`` for such a model that declares something else than
            exact quantities, is not linear between its breakpoints, or has negative charges.
    """
    require_kind(Price, price, "price")
    if beyond := steps_beyond_closed_form():
        expected = "the steps of a bill that a tariff can say: rating, proration and settling"
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_OBJECT, "steps", expected, ", ".join(beyond)
        )
    if not is_built_in(price.model):
        return Tariff(price, _declared_pieces(price, _breakpoints(price.model)))
    schedule = price.model.schedule
    if schedule.divide_by is not None:
        return Tariff(price, _package_pieces(schedule, schedule.divide_by))
    return _banded(price, schedule)


def _piece(
    tier: int, first: int, last: int | None, fixed: FixedLines, line: tuple[Fraction, Fraction]
) -> Piece:
    """Make a straight piece of fixed charges and one charge for units, which starts and rises as
    ``line`` says.
    """
    start, rise = line
    if not rise:
        return Piece(tier, first, last, fixed.plus(start), (), 1, ZERO)
    return Piece(tier, first, last, fixed, (Line(start, rise),), 1, rise)


def _package_pieces(schedule: Schedule, width: int) -> tuple[Piece, ...]:
    """Return the stair of the one band of a package."""
    amount = Fraction(schedule.bands[0].unit_amount)
    if width == 1 or not amount:
        return (_piece(1, 0, None, FixedLines(), (ZERO, amount)),)
    rate_ = amount / width
    if not schedule.rounds_up:
        return (Piece(1, 0, None, FixedLines(), (Line(ZERO, amount),), width, rate_),)
    nothing = Piece(1, 0, 0, FixedLines(), (), 1, None)
    return (nothing, Piece(1, 1, None, FixedLines(), (Line(amount, amount),), width, rate_))


def _banded(price: Price, schedule: Schedule) -> Tariff:
    """Return a piece for each band that a whole quantity ends in; where each band reached charges,
    what those below charge is fixed.
    """
    adds_up = schedule.reaches is Reach.EACH
    pieces, empty, first = [], [], 0
    below, done = ZERO, FixedLines()
    for number, band in enumerate(schedule.bands, start=1):
        unit = Fraction(band.unit_amount)
        last = None if band.up_to is None else floor(band.up_to)
        fixed = done.plus(Fraction(band.flat_amount or 0))
        if last is not None and last < first:
            empty.append(number)
        else:
            pieces.append(_piece(number, first, last, fixed, (unit * (first - below), unit)))
        if band.up_to is not None and last is not None:
            first = last + 1
            if adds_up:
                done = fixed.plus(unit * (Fraction(band.up_to) - below))
                below = Fraction(band.up_to)
    return Tariff(price, tuple(pieces), tuple(empty))


# Models of the user's own -------------------------------------------------------------------------


def _breakpoints(model: object) -> list[int]:
    """Return the last whole quantity of every formula but the last, ascending."""
    if not isinstance(model, DeclaresBreakpoints):
        expected = (
            "a built-in pricing model, or one with breakpoints() that says where its formula "
            "changes"
        )
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_OBJECT, "model", expected, model
        )
    declared = list(islice(breakpoints_of(model), BREAKPOINTS_MAX + 1))
    if len(declared) > BREAKPOINTS_MAX:
        expected = f"at most {BREAKPOINTS_MAX} breakpoints"
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_OBJECT, "breakpoints", expected, "more"
        )
    return sorted({floor(point) for point in declared})


def _declared_pieces(price: Price, bounds: Sequence[int]) -> tuple[Piece, ...]:
    firsts = [0, *(bound + 1 for bound in bounds)]
    lasts: list[int | None] = [*bounds, None]
    return tuple(
        _declared_piece(price, number, first, last)
        for number, (first, last) in enumerate(zip(firsts, lasts, strict=True), start=1)
    )


def _declared_piece(price: Price, number: int, first: int, last: int | None) -> Piece:
    """Read the lines of a piece off its first two quantities, and hold the model to them at
    others.
    """
    start = _charges(price, first)
    if first == last:
        return _with_lines(number, first, last, [Line(amount, ZERO) for amount in start], None)
    second = _charges(price, first + 1)
    if len(second) != len(start):
        raise _not_linear(price, first, last, first + 1)
    lines = [Line(amount, next_ - amount) for amount, next_ in zip(start, second, strict=True)]
    for probe in (first + 2, first + 1000) if last is None else ((first + last) // 2, last):
        if _charges(price, probe) != [line.at(probe - first) for line in lines]:
            raise _not_linear(price, first, last, probe)
    if last is None and any(line.rise < 0 for line in lines):
        raise _negative(price, "a charge that falls for ever")
    return _with_lines(number, first, last, lines, sum((line.rise for line in lines), ZERO))


def _with_lines(
    number: int, first: int, last: int | None, lines: Sequence[Line], rate_: Fraction | None
) -> Piece:
    fixed = FixedLines()
    for line in lines:
        fixed = fixed if line.rise else fixed.plus(line.start)
    return Piece(number, first, last, fixed, tuple(line for line in lines if line.rise), 1, rate_)


def _charges(price: Price, quantity: int) -> list[Fraction]:
    amounts = [Fraction(charge.amount) for charge in rate(price, quantity).charges]
    if any(amount < 0 for amount in amounts):
        raise _negative(price, f"a negative charge at quantity {quantity}")
    return amounts


def _negative(price: Price, received: str) -> InvoicingError:
    message = (
        f"charges: expected of {type(price.model).__name__} no charge below 0, received {received}"
    )
    return InvoicingError(ErrorCode.PRICING_MODEL_BROKEN, message, param="charges")


def _not_linear(price: Price, first: int, last: int | None, quantity: int) -> InvoicingError:
    end = "on" if last is None else f"to {last}"
    message = (
        f"breakpoints: expected of {type(price.model).__name__} charges that are linear "
        f"from quantity {first} {end}, "
        f"received others at quantity {quantity}"
    )
    return InvoicingError(ErrorCode.PRICING_MODEL_BROKEN, message, param="breakpoints")


# Words --------------------------------------------------------------------------------------------


def written(price: Price, amount: Fraction) -> str:
    """Write an amount in major units, exact where a decimal can be."""
    exact = decimal_if_possible(amount)
    if isinstance(exact, Decimal):
        return str(Amount(exact, price.currency))
    return f"about {Money(floor(amount + HALF), price.currency)}"


def units(price: Price, quantity: int) -> str:
    """Write a quantity with the price's own word for its units; as an amount where a percentage of
    it is due.

    >>> units(Price.per_unit("seats", currency="usd", unit_amount=1), 1200)
    '1,200 units'
    """
    if isinstance(price.model, Percentage):
        return str(Money(quantity, price.currency))
    return f"{quantity:,} {shown(price.unit_label or ('unit' if quantity == 1 else 'units'))}"


def span(price: Price, first: int, last: int | None) -> str:
    """Write a range of quantities.

    >>> span(Price.per_unit("seats", currency="usd", unit_amount=1), 5, 1200)
    'from 5 to 1,200 units'
    """
    if last is None:
        return f"from {units(price, first)} on"
    if first == last:
        return f"at {units(price, first)}"
    start = units(price, first) if isinstance(price.model, Percentage) else f"{first:,}"
    return f"from {start} to {units(price, last)}"

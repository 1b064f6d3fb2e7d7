"""From quantities to what is due: a draft that goes through a published list of steps.

A draft says what is to be billed (its segments: so much at a price, for a share of a period) and
what that comes to so far (its lines). A step is a pure function from a draft to a draft, and
:data:`STEPS` is all of them in their order: rate, prorate, settle. Amounts are exact until the
last step, which alone rounds. A step that is put into the list may change the amounts of lines, or
add lines of its own to a segment.

Whatever says what a quantity costs comes through :func:`billed`. What computes the same in a closed
form of its own (columns, tariffs) asks :func:`steps_beyond_closed_form` first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fractions import Fraction
from typing import Final, cast

import attrs

from metering_core.exact import Number, Unrounded, add, exact_amount, exact_quantity, multiply
from metering_core.money import Amount, Rounding, half_up, require_rounding, settled_units
from metering_core.names import require_kind
from metering_core.periods import WHOLE
from metering_core.prices import Price, Priced
from metering_core.pricing import Charge, charges_for


def _quantity(value: Number) -> Number:
    return exact_quantity(value, "quantity")


def _share(value: Number) -> Fraction:
    if value is WHOLE:
        return WHOLE
    share = Fraction(exact_quantity(value, "share"))
    return WHOLE if share == WHOLE else share


@attrs.frozen
class Segment:
    """What a draft bills: a quantity at a price.

    Attributes:
        price: the price.
        quantity: units of at least 0.
        share: which part of the whole billing period is billed; 1 for usage, which is never
            prorated.
    """

    price: Price
    quantity: Number = attrs.field(converter=_quantity)
    share: Fraction = attrs.field(default=WHOLE, converter=_share)


@attrs.frozen
class DraftLine:
    """What one line of a draft comes to so far.

    Attributes:
        segment: the place of the segment that it bills, from 0.
        charge: what the pricing model made of the whole quantity, or what a step says for itself.
        exact: what is due of it before rounding, in minor units.
    """

    segment: int
    charge: Charge
    exact: Unrounded


@attrs.frozen
class SettledLine(DraftLine):
    """A line as it is billed.

    Attributes:
        amount: what is due, in whole minor units.
    """

    amount: int


@attrs.frozen
class Draft:
    """A bill in the making.

    Attributes:
        segments: what is billed.
        rounding: how it will be settled.
        lines: what that comes to after the steps so far; in the order of the segments.
    """

    segments: tuple[Segment, ...]
    rounding: Rounding = half_up
    lines: tuple[DraftLine, ...] = ()


# The steps ----------------------------------------------------------------------------------------


def rate_segments(draft: Draft) -> Draft:
    """Ask each segment's price what its quantity is charged."""
    lines = [
        DraftLine(place, charge, charge.amount)
        for place, segment in enumerate(draft.segments)
        for charge in charges_for(segment.price.model, segment.quantity)
    ]
    return Draft(draft.segments, draft.rounding, tuple(lines))


def prorate_lines(draft: Draft) -> Draft:
    """Leave of each line its segment's share of the period, exactly."""
    shares = [segment.share for segment in draft.segments]
    if shares.count(WHOLE) == len(shares):  # As nearly always.
        return draft
    lines = [
        DraftLine(line.segment, line.charge, multiply(line.exact, shares[line.segment]))
        for line in draft.lines
    ]
    return Draft(draft.segments, draft.rounding, tuple(lines))


def settle_lines(draft: Draft) -> Draft:
    """Settle each line by itself, to whole minor units: the one place where a bill is rounded."""
    lines = [_settled(line, draft.rounding) for line in draft.lines]
    return Draft(draft.segments, draft.rounding, tuple(lines))


def _settled(line: DraftLine, rounding: Rounding) -> SettledLine:
    exact = exact_amount(line.exact, "minor_units")
    return SettledLine(line.segment, line.charge, exact, settled_units(exact, rounding))


Step = Callable[[Draft], Draft]

STEPS: tuple[tuple[str, Step], ...] = (
    ("rate", rate_segments),
    ("prorate", prorate_lines),
    ("settle", settle_lines),
)
"""What every bill goes through, in this order."""

_CLOSED_FORM: Final = frozenset({"rate", "prorate", "settle"})


def steps_beyond_closed_form() -> tuple[str, ...]:
    """Return the names of the steps that an arithmetic of its own would leave out.

    A price in columns or in pieces is a formula for what the three steps here make of it. Where
    there is another step, whoever has such a formula goes through :func:`billed` instead, or
    refuses; until somebody shows that the formula has it, too.
    """
    return tuple(name for name, _ in STEPS if name not in _CLOSED_FORM)


# The statements -----------------------------------------------------------------------------------


def billed(segments: Iterable[Segment], rounding: Rounding = half_up) -> tuple[SettledLine, ...]:
    """Return the lines of a bill: the one way from prices to what is due.

    >>> seat = Price.per_unit("seat", currency="usd", unit_amount=3000)
    >>> [line.amount for line in billed([Segment(seat, 1, Fraction(1, 2)), Segment(seat, 2)])]
    [1500, 6000]
    """
    draft = Draft(tuple(segments), rounding)
    for _, step in STEPS:
        draft = step(draft)
    return cast("tuple[SettledLine, ...]", draft.lines)


def settled_total(price: Price, quantity: Number, rounding: Rounding = half_up) -> int:
    """Return what a quantity is billed at a price, in minor units: the sum of its settled lines.

    >>> settled_total(Price.per_unit("tokens", currency="usd", unit_amount="0.4"), 1031)
    412
    """
    return sum(line.amount for line in billed([Segment(price, quantity)], rounding))


@attrs.frozen
class RatedUsage(Priced):
    """What a quantity costs at a price, before any rounding.

    Attributes:
        price: the price.
        quantity: what was rated.
        charges: what the price's model makes of it, in the order of invoice lines.
    """

    price: Price
    quantity: Number
    charges: tuple[Charge, ...]

    @property
    def amount(self) -> Amount:
        """The exact sum of the lines. What is paid is the sum of the settled lines, which may
        differ.
        """
        total: Number = 0
        for line in self.settled():
            total = add(total, line.exact)
        return Amount(total, self.price.currency)

    def settled(
        self, rounding: Rounding = half_up, *, share: Fraction = WHOLE
    ) -> tuple[SettledLine, ...]:
        """Return what is billed, line by line.

        Args:
            rounding: how each line is settled.
            share: which part of the whole billing period is billed; 1 for usage, which is never
                prorated.

        >>> seat = Price.per_unit("seat", currency="usd", unit_amount=3000)
        >>> [one.amount for one in rate(seat, 1).settled(share=Fraction(1, 2))]
        [1500]
        """
        require_rounding(rounding)
        return billed([Segment(self.price, self.quantity, share)], rounding)


def rate(price: Price, quantity: Number) -> RatedUsage:
    """Return what a quantity costs at a price, charge by charge and exact.

    Args:
        price: any price.
        quantity: units, an int, Decimal or Fraction of at least 0, with at most 240 digits before
            the point and 200 after it. Zero is rated too: in a tiered price the flat amount of the
            first tier is due (Stripe, tiered pricing).

    Raises:
        InvalidValueError: ``parameter_invalid_decimal`` for a malformed quantity.
        InvoicingError: ``pricing_model_broken`` where a model of the user's own returns something
            that is no exact charge.

    >>> rate(Price.per_unit("tokens", currency="usd", unit_amount="0.4"), 1031).amount
    Amount(minor_units=Decimal('412.4'), currency='usd')
    >>> rate(Price.per_unit("average", currency="usd", unit_amount=10), Fraction(1, 3)).amount
    Amount(minor_units=Fraction(10, 3), currency='usd')
    """
    if type(price) is not Price:  # As nearly always it is; the question costs as much as a product.
        require_kind(Price, price, "price")
    checked = exact_quantity(quantity, "quantity")
    return RatedUsage(price, checked, charges_for(price.model, checked))

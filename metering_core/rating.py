"""From a quantity to what it costs, exactly, and why: charge by charge, tier by tier.

The pricing model does the multiplying.
"""

from __future__ import annotations

from fractions import Fraction

import attrs

from metering_core.exact import Number, Unrounded, add, exact_quantity, multiply
from metering_core.money import Amount, Rounding, half_up, require_rounding, settle
from metering_core.names import require_kind
from metering_core.periods import WHOLE
from metering_core.prices import Price
from metering_core.pricing import Charge, charges_for


@attrs.frozen
class SettledCharge:
    """One charge as it is billed.

    Attributes:
        charge: what the pricing model made of the whole quantity.
        exact: what is due of it before rounding, in minor units: its amount, or the part of it that
            a partial period owes.
        amount: what is due, in whole minor units.
    """

    charge: Charge
    exact: Unrounded
    amount: int


@attrs.frozen
class RatedUsage:
    """What a quantity costs at a price, before any rounding.

    Attributes:
        price: the price.
        quantity: what was rated.
        charges: one per invoice line, in their order.
    """

    price: Price
    quantity: Number
    charges: tuple[Charge, ...]

    @property
    def amount(self) -> Amount:
        """The exact sum of the charges. What is paid is the sum of the settled lines, which may
        differ.
        """
        total: Number = 0
        for charge in self.charges:
            total = add(total, exact_due(charge, WHOLE))
        return Amount(total, self.price.currency)

    def settled(
        self, rounding: Rounding = half_up, *, share: Fraction = WHOLE
    ) -> tuple[SettledCharge, ...]:
        """Return what is billed, line by line: the one way from a price to what is due.

        Whatever says what something costs comes through here: invoices, columns, comparisons,
        migrations, cases, the command line. What stands between rating and settling is
        :func:`exact_due` alone, so that it changes them all.

        Args:
            rounding: how each charge is settled.
            share: which part of the whole billing period is billed; 1 for usage, which is never
                prorated.

        >>> seat = Price.per_unit("seat", currency="usd", unit_amount=3000)
        >>> [one.amount for one in rate(seat, 1).settled(share=Fraction(1, 2))]
        [1500]
        """
        require_rounding(rounding)
        part = WHOLE if share is WHOLE else Fraction(exact_quantity(share, "share"))
        return tuple(self._settled(charge, rounding, part) for charge in self.charges)

    def _settled(self, charge: Charge, rounding: Rounding, share: Fraction) -> SettledCharge:
        exact = Amount(exact_due(charge, share), self.price.currency)
        return SettledCharge(charge, exact.minor_units, settle(exact, rounding).minor_units)


def exact_due(charge: Charge, share: Fraction) -> Unrounded:
    """Return what is due of a charge, before rounding: in a partial period its share of the whole
    period's amount, exactly.
    """
    return charge.amount if share is WHOLE or share == WHOLE else multiply(charge.amount, share)


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
    require_kind(Price, price, "price")
    checked = exact_quantity(quantity, "quantity")
    return RatedUsage(price, checked, charges_for(price.model, checked))


def settled_total(price: Price, quantity: Number, rounding: Rounding = half_up) -> int:
    """Return what a quantity is billed at a price, in minor units: the sum of its settled charges.

    >>> settled_total(Price.per_unit("tokens", currency="usd", unit_amount="0.4"), 1031)
    412
    """
    return sum(one.amount for one in rate(price, quantity).settled(rounding))

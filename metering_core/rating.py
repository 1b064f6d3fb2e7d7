"""From a quantity to what it costs, exactly, and why: charge by charge, tier by tier.

The pricing model does the multiplying; this module holds it to its word, whoever wrote it.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction

import attrs

from metering_core.errors import ErrorCode, InvoicingError, describe
from metering_core.exact import Number, add, exact_quantity
from metering_core.money import Amount, Rounding, half_up, settle
from metering_core.prices import Price
from metering_core.pricing import Charge


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
        """The exact sum of the charges. What is paid is the sum of the settled lines, which may differ."""
        total: Number = 0
        for charge in self.charges:
            total = add(total, charge.amount)
        return Amount(total, self.price.currency)


def rate(price: Price, quantity: Number) -> RatedUsage:
    """Return what a quantity costs at a price, charge by charge and exact.

    Args:
        price: any price.
        quantity: units, an int, Decimal or Fraction of at least 0, with at most 200 digits on either side of the point where it
            is no int. Zero is rated too: in a tiered price the flat amount of the first tier is due (Stripe, tiered pricing).

    Raises:
        InvalidValueError: ``parameter_invalid_decimal`` for a malformed quantity.
        InvoicingError: ``pricing_model_broken`` where a model of the user's own returns something that is no exact charge.

    >>> rate(Price.per_unit("tokens", currency="usd", unit_amount="0.4"), 1031).amount
    Amount(minor_units=Decimal('412.4'), currency='usd')
    >>> rate(Price.per_unit("average", currency="usd", unit_amount=10), Fraction(1, 3)).amount
    Amount(minor_units=Fraction(10, 3), currency='usd')
    """
    checked = exact_quantity(quantity, "quantity")
    charges = price.model.charges(checked)
    if not isinstance(charges, Sequence):
        raise _broken(price, "charges", "a sequence of Charge", charges)
    for index, charge in enumerate(charges):
        param = f"charges[{index}]"
        if not isinstance(charge, Charge):
            raise _broken(price, param, "a Charge", charge)
        for field in ("quantity", "unit_amount", "amount"):
            number = getattr(charge, field)
            if not (_is_exact(number) or (field == "unit_amount" and number is None)):
                raise _broken(price, f"{param}[{field}]", "an int, a finite Decimal or a Fraction", number)
    return RatedUsage(price, checked, tuple(charges))


def settled_total(price: Price, quantity: Number, rounding: Rounding = half_up) -> int:
    """Return what a quantity is billed at a price, in minor units: the sum of its settled charges.

    >>> settled_total(Price.per_unit("tokens", currency="usd", unit_amount="0.4"), 1031)
    412
    """
    charges = rate(price, quantity).charges
    return sum(settle(Amount(charge.amount, price.currency), rounding).minor_units for charge in charges)


def _is_exact(number: object) -> bool:
    return type(number) is int or (number.is_finite() if isinstance(number, Decimal) else isinstance(number, Fraction))


def _broken(price: Price, param: str, expected: str, received: object) -> InvoicingError:
    message = f"{param}: expected of {type(price.model).__name__} {expected}, received {describe(received)}"
    return InvoicingError(ErrorCode.PRICING_MODEL_BROKEN, message, param=param)

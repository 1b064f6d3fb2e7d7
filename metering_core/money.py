"""Exact amounts that cannot be paid, money that can, and the one place where the first becomes the
second.

An :class:`Amount` keeps every digit of a price times a quantity, and shares that no digits can
write. :func:`settle` makes whole minor units of it, by default half up (away from zero): Stripe's
documentation bills 1.5 cents as 2. Credits mirror debits.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Final, Self

import attrs

from metering_core.codec import Storable
from metering_core.currencies import currency
from metering_core.errors import ErrorCode, InvalidValueError
from metering_core.exact import (
    EXACT,
    Number,
    Unrounded,
    add,
    cut,
    exact_amount,
    exact_integer,
    exact_units,
    multiply,
    plain,
    subtract,
)
from metering_core.names import require_function, require_kind

__all__ = [
    "Amount",
    "Money",
    "Rounding",
    "down",
    "half_down",
    "half_even",
    "half_up",
    "settle",
    "to_multiple",
    "up",
]

Rounding = Callable[[Unrounded], int]
"""Decides which whole number an exact one becomes. It is given a Decimal, or a Fraction where no
decimal can write the amount; both have ``as_integer_ratio()``.
"""

_MULTIPLE_PLACES: Final = 12
_EXACT: Final = (Decimal, int, Fraction)


def _as_exact(value: Number) -> Unrounded:
    return exact_amount(value, "minor_units")


def _as_whole(value: int) -> int:
    return exact_units(value, "minor_units")


def _as_code(value: str) -> str:
    return currency(value).code


def _refuse_mixing(verb: str, preposition: str, left: str, right: str) -> None:
    if left != right:
        raise InvalidValueError(
            ErrorCode.CURRENCY_MISMATCH,
            f"cannot {verb} {right.upper()} {preposition} {left.upper()}",
            param="currency",
            details={"left": left, "right": right},
        )


@attrs.frozen
class Amount(Storable):
    """An exact amount in minor units, with as many decimals as it needs. It may be negative, and
    cannot be paid.

    Attributes:
        minor_units: a canonical Decimal (no exponent, no trailing zeros), or a Fraction where no
            decimal can write the amount; int, Decimal and Fraction are taken.
        currency: the lower-case code; any letter case is taken.

    >>> Amount(Decimal("0.5"), "usd") + Amount(1, "USD")
    Amount(minor_units=Decimal('1.5'), currency='usd')
    >>> print(Amount(Decimal("3.6"), "usd"), Amount(500, "jpy"))
    USD 0.036 JPY 500

    Digits without end are cut, and an ellipsis says so; :func:`~metering_core.money.settle` still
    gets the third itself:

    >>> print(Amount(Fraction(1000, 3), "jpy"), settle(Amount(Fraction(1000, 3), "jpy")))
    JPY 333.333333333333… JPY 333

    Raises:
        InvalidValueError: ``parameter_invalid_decimal``, ``currency_unknown``;
            ``currency_mismatch`` when amounts of two currencies are added or subtracted.
    """

    minor_units: Unrounded = attrs.field(converter=_as_exact)
    currency: str = attrs.field(converter=_as_code)

    def __add__(self, other: Self) -> Self:
        """Add an amount of the same currency."""
        if not isinstance(other, Amount):
            return NotImplemented
        _refuse_mixing("add", "to", self.currency, other.currency)
        return attrs.evolve(self, minor_units=add(self.minor_units, other.minor_units))

    def __sub__(self, other: Self) -> Self:
        """Subtract an amount of the same currency."""
        if not isinstance(other, Amount):
            return NotImplemented
        _refuse_mixing("subtract", "from", self.currency, other.currency)
        return attrs.evolve(self, minor_units=subtract(self.minor_units, other.minor_units))

    def __neg__(self) -> Self:
        """Turn a debit into a credit."""
        return attrs.evolve(self, minor_units=subtract(0, self.minor_units))

    def __str__(self) -> str:
        """Write the code and the exact amount in major units, with at least the currency's own
        number of decimals.

        An amount that no decimal can write is cut to 12 places of its minor unit, toward zero, and
        ends in an ellipsis.
        """
        own = currency(self.currency)
        exact = self.minor_units
        shown, more = (exact, "") if isinstance(exact, Decimal) else (cut(exact), "…")
        major = plain(EXACT.scaleb(shown.copy_abs(), -own.fraction_digits))
        whole, _, decimals = major.partition(".")
        decimals = decimals.ljust(min(own.display_digits, own.fraction_digits), "0")
        sign = "-" if self.minor_units < 0 else ""
        return f"{self.currency.upper()} {sign}{int(whole):,}" + (
            f".{decimals}{more}" if decimals or more else ""
        )


@attrs.frozen
class Money(Storable):
    """Whole minor units of a currency; negative for a credit.

    Attributes:
        minor_units: an int, such as 1050 for 10.50 US dollars.
        currency: the lower-case code; any letter case is taken.

    >>> print(Money(123456, "usd"), Money(500, "jpy"), Money(-5120, "kwd"))
    USD 1,234.56 JPY 500 KWD -5.120

    Raises:
        InvalidValueError: ``parameter_invalid_integer``, ``currency_unknown``;
            ``currency_mismatch`` when money of two currencies is added or subtracted.
    """

    minor_units: int = attrs.field(converter=_as_whole)
    currency: str = attrs.field(converter=_as_code)

    def __add__(self, other: Self) -> Self:
        """Add money of the same currency."""
        if not isinstance(other, Money):
            return NotImplemented
        _refuse_mixing("add", "to", self.currency, other.currency)
        return attrs.evolve(self, minor_units=self.minor_units + other.minor_units)

    def __sub__(self, other: Self) -> Self:
        """Subtract money of the same currency."""
        if not isinstance(other, Money):
            return NotImplemented
        _refuse_mixing("subtract", "from", self.currency, other.currency)
        return attrs.evolve(self, minor_units=self.minor_units - other.minor_units)

    def __neg__(self) -> Self:
        """Turn a debit into a credit."""
        return attrs.evolve(self, minor_units=-self.minor_units)

    def __str__(self) -> str:
        """Write the code and the amount in major units."""
        return f"{self.currency.upper()} {self.amount_in_major_units}"

    @property
    def is_payable(self) -> bool:
        """Whether Stripe takes the amount; some currencies take multiples of 10 or 100 only."""
        return self.minor_units % currency(self.currency).multiple == 0

    @property
    def amount_in_major_units(self) -> str:
        """The amount in major units, with the currency's own number of decimals and commas between
        thousands.

        All decimals of the minor unit are shown where fewer would hide something.

        >>> Money(500, "isk").amount_in_major_units, Money(550, "isk").amount_in_major_units
        ('5', '5.50')
        """
        digits = currency(self.currency).fraction_digits
        whole, fraction = divmod(abs(self.minor_units), 10**digits)
        sign = "-" if self.minor_units < 0 else ""
        decimals = f"{fraction:0{digits}d}" if digits else ""
        display_digits = currency(self.currency).display_digits
        if not decimals[display_digits:].strip("0"):
            decimals = decimals[:display_digits]
        return f"{sign}{whole:,}" + (f".{decimals}" if decimals else "")


def require_rounding(rounding: Rounding) -> None:
    """Refuse what cannot round, with ``parameter_invalid_object``."""
    require_function(rounding, "rounding", "returns the integer that an exact number becomes")


def half_up(value: Unrounded) -> int:
    """Round to the nearest integer, a half away from zero. The default.

    >>> half_up(Decimal("1.5")), half_up(Decimal("2.5")), half_up(Decimal("-2.5"))
    (2, 3, -3)
    """
    sign, whole, remainder, unit = _magnitude(value)
    return sign * (whole + (2 * remainder >= unit))


def half_down(value: Unrounded) -> int:
    """Round to the nearest integer, a half toward zero.

    >>> half_down(Decimal("1.5")), half_down(Decimal("2.5")), half_down(Decimal("-2.5"))
    (1, 2, -2)
    """
    sign, whole, remainder, unit = _magnitude(value)
    return sign * (whole + (2 * remainder > unit))


def half_even(value: Unrounded) -> int:
    """Round to the nearest integer, a half to the even one (banker's rounding).

    >>> half_even(Decimal("1.5")), half_even(Decimal("2.5")), half_even(Decimal("-2.5"))
    (2, 2, -2)
    """
    sign, whole, remainder, unit = _magnitude(value)
    return sign * (whole + (2 * remainder + whole % 2 > unit))


def up(value: Unrounded) -> int:
    """Round away from zero.

    >>> up(Decimal("1.1")), up(Decimal("-1.1"))
    (2, -2)
    """
    sign, whole, remainder, _ = _magnitude(value)
    return sign * (whole + (remainder > 0))


def down(value: Unrounded) -> int:
    """Round toward zero.

    >>> down(Decimal("1.9")), down(Decimal("-1.9"))
    (1, -1)
    """
    sign, whole, _, _ = _magnitude(value)
    return sign * whole


def _magnitude(value: Unrounded) -> tuple[int, int, int, int]:
    """Return sign, whole part, and the rest as a count of equal parts with how many make one."""
    if not isinstance(value, _EXACT) or (isinstance(value, Decimal) and not value.is_finite()):
        value = exact_amount(value, "value")
    # as_integer_ratio is exact whatever the ambient decimal context; quantize is not.
    numerator, denominator = value.as_integer_ratio()
    whole, remainder = divmod(abs(numerator), denominator)
    return (-1 if numerator < 0 else 1), whole, remainder, denominator


def to_multiple(multiple: int, rounding: Rounding = half_up) -> Rounding:
    """Return the rounding to whole multiples of ``multiple`` minor units, as some currencies
    require for payment.

    ``multiple`` is at least 1 and divides 10**12, so that the number of multiples is exact: 5 and
    100 do, 3 does not.

    >>> to_multiple(10)(Decimal("5124")), to_multiple(10)(Decimal("5125"))
    (5120, 5130)

    Raises:
        InvalidValueError: ``parameter_invalid_integer``.
    """
    require_rounding(rounding)
    step = exact_integer(multiple, "multiple", minimum=1)
    if 10**_MULTIPLE_PLACES % step:
        expected = f"a divisor of 10**{_MULTIPLE_PLACES}, such as 10 or 100"
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_INTEGER, "multiple", expected, multiple
        )
    share = EXACT.scaleb(Decimal(10**_MULTIPLE_PLACES // step), -_MULTIPLE_PLACES)

    return _ToMultiple(step, share, rounding, f"{_name(rounding)}_to_multiple_of_{step}")


@attrs.frozen
class _ToMultiple:
    """A rounding to multiples; a value and no closure, so that it can be pickled."""

    step: int
    share: Decimal
    rounding: Rounding
    __name__: str

    def __call__(self, value: Unrounded) -> int:
        return self.step * settled_units(multiply(value, self.share), self.rounding)


def _name(rounding: Rounding) -> str:
    return str(getattr(rounding, "__name__", type(rounding).__name__))


def settled_units(value: Unrounded, rounding: Rounding) -> int:
    """Round exact minor units, and hold the rounding to returning an integer."""
    return exact_units(rounding(value), "rounding")


def settle(amount: Amount, rounding: Rounding = half_up) -> Money:
    """Round an exact amount to whole minor units: the one place where money is rounded.

    >>> settle(Amount(Decimal("111.6"), "usd"))
    Money(minor_units=112, currency='usd')

    Raises:
        InvalidValueError: ``parameter_invalid_integer`` (param ``rounding``) when the rounding
            returns no integer.
    """
    require_kind(Amount, amount, "amount")
    require_rounding(rounding)
    return Money(settled_units(amount.minor_units, rounding), amount.currency)

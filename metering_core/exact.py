"""Integers and bounded decimals, and the arithmetic context that refuses to lose a digit.

Numbers are bounded when they enter, so everything computed from them is exact. Nothing here, and nothing built on it,
reads the ambient decimal context: products and sums go through :data:`EXACT`, which traps every inexact result.
"""

from __future__ import annotations

import decimal
import operator
import re
from decimal import Decimal
from fractions import Fraction

from metering_core.errors import ErrorCode, InvalidValueError

PLACES_MAX = 12
"""Decimal places a price may have (Stripe's limit for ``unit_amount_decimal``)."""

DIGITS_MAX = 100
"""Digits before the decimal point that a decimal may have; an exponent cannot smuggle in a number of any size."""

EXACT = decimal.Context(
    prec=100_000,
    Emax=999_999,
    Emin=-999_999,
    traps=[decimal.Inexact, decimal.InvalidOperation, decimal.DivisionByZero, decimal.Overflow, decimal.Underflow],
)
"""The only context that arithmetic runs in. A result that would need rounding raises instead."""

Number = int | Decimal
"""An exact number: what quantities and minor units are made of."""

_PLAIN_DECIMAL = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)", re.ASCII)


def exact_integer(value: object, param: str, *, minimum: int | None = 0, maximum: int | None = None) -> int:
    """Return ``value`` as an int, or refuse it: bools, floats, decimals and strings are not integers here.

    Bounds are inclusive. Integers of other libraries are taken through ``__index__``.

    Raises:
        InvalidValueError: ``parameter_invalid_integer``.
    """
    if type(value) is int:
        number = value
    else:
        try:
            if isinstance(value, bool):
                raise TypeError
            number = operator.index(value)  # type: ignore[arg-type]
        except TypeError:
            raise _not_an_integer(value, param, minimum, maximum) from None
    if (minimum is not None and number < minimum) or (maximum is not None and number > maximum):
        raise _not_an_integer(value, param, minimum, maximum)
    return number


def _not_an_integer(value: object, param: str, minimum: int | None, maximum: int | None) -> InvalidValueError:
    bounds = "" if minimum is None else f" of at least {minimum}"
    if maximum is not None:
        bounds += f" and at most {maximum}"
    return InvalidValueError.expecting(ErrorCode.PARAMETER_INVALID_INTEGER, param, f"an integer{bounds}", value)


def exact_decimal(value: object, param: str, *, places: int = PLACES_MAX, minimum: int | None = 0) -> Decimal:
    """Return ``value`` as a canonical Decimal (no exponent, no trailing zeros), or refuse it.

    Takes int, Decimal, Fraction and a plain decimal string; a float has already lost what it meant, so it is refused.
    At most ``places`` decimals and :data:`DIGITS_MAX` digits before the point; ``minimum`` is inclusive.

    >>> exact_decimal("0.40", "unit_amount")
    Decimal('0.4')

    Raises:
        InvalidValueError: ``parameter_invalid_decimal``.
    """
    number = _as_decimal(value)
    if number is None or not number.is_finite() or not _is_bounded(number, places):
        raise _not_a_decimal(value, param, places, minimum)
    if minimum is not None and number < minimum:
        raise _not_a_decimal(value, param, places, minimum)
    return canonical(number)


def exact_quantity(value: object, param: str) -> Number:
    """Return a quantity: an int where it is whole, else a Decimal of at most 12 places; never negative.

    Raises:
        InvalidValueError: ``parameter_invalid_decimal``.
    """
    if type(value) is int and value >= 0:
        return value
    if isinstance(value, str):
        expected = f"a number of at least 0 with at most {PLACES_MAX} decimal places (int, Decimal or Fraction)"
        raise InvalidValueError.expecting(ErrorCode.PARAMETER_INVALID_DECIMAL, param, expected, value)
    return whole_if_possible(exact_decimal(value, param))


def _as_decimal(value: object) -> Decimal | None:
    match value:
        case bool() | float():
            return None
        case int() | Decimal():
            return Decimal(value)
        case str():
            # Bounded before it is parsed: a hostile string is refused at the cost of reading its first characters.
            plain = len(value) <= DIGITS_MAX * 2 and _PLAIN_DECIMAL.fullmatch(value)
            return Decimal(value) if plain else None
        case Fraction():
            return _terminating(value)
        case _:
            return None


def _terminating(value: Fraction) -> Decimal | None:
    """Write a fraction as a decimal where its denominator divides a power of ten that we allow."""
    scaled = value * 10**PLACES_MAX
    if scaled.denominator != 1:
        return None
    return EXACT.scaleb(Decimal(scaled.numerator), -PLACES_MAX)


def _is_bounded(number: Decimal, places: int) -> bool:
    if not number:
        return True
    if number.adjusted() >= DIGITS_MAX or number.adjusted() < -DIGITS_MAX or len(number.as_tuple().digits) > 4 * DIGITS_MAX:
        return False
    return -_exponent(canonical(number)) <= places


def _exponent(number: Decimal) -> int:
    exponent = number.as_tuple().exponent
    assert isinstance(exponent, int), "only finite decimals come here"
    return exponent


def _not_a_decimal(value: object, param: str, places: int, minimum: int | None) -> InvalidValueError:
    bound = "" if minimum is None else f" of at least {minimum}"
    expected = f"an exact decimal{bound} with at most {places} decimal places (int, Decimal, Fraction or decimal string)"
    return InvalidValueError.expecting(ErrorCode.PARAMETER_INVALID_DECIMAL, param, expected, value)


def canonical(number: Decimal) -> Decimal:
    """Strip trailing zeros and the exponent, so that equal numbers are written alike.

    >>> canonical(Decimal("5.0")), canonical(Decimal("1E+3")), canonical(Decimal("-0.00"))
    (Decimal('5'), Decimal('1000'), Decimal('0'))
    """
    if not number:
        return Decimal(0)
    stripped = EXACT.normalize(number)
    return Decimal(int(stripped)) if _exponent(stripped) > 0 else stripped


def whole_if_possible(number: Number) -> Number:
    """Return an int for a whole number and a canonical Decimal for any other.

    >>> whole_if_possible(Decimal("2.0")), whole_if_possible(Decimal("2.50"))
    (2, Decimal('2.5'))
    """
    if isinstance(number, int):
        return number
    stripped = canonical(number)
    return stripped if _exponent(stripped) < 0 else int(stripped)


def multiply(left: Number, right: Number) -> Decimal:
    """Multiply without losing a digit."""
    return canonical(EXACT.multiply(Decimal(left), Decimal(right)))


def add(left: Number, right: Number) -> Number:
    """Add without losing a digit; whole results are ints."""
    if isinstance(left, int) and isinstance(right, int):
        return left + right
    return whole_if_possible(EXACT.add(Decimal(left), Decimal(right)))


def subtract(left: Number, right: Number) -> Number:
    """Subtract without losing a digit; whole results are ints."""
    if isinstance(left, int) and isinstance(right, int):
        return left - right
    return whole_if_possible(EXACT.subtract(Decimal(left), Decimal(right)))


def plain(number: Number) -> str:
    """Write a number in digits, without an exponent.

    >>> plain(Decimal("0.000000000001"))
    '0.000000000001'
    """
    return str(number) if isinstance(number, int) else f"{canonical(number):f}"

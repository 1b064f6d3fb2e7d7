"""Integers, bounded decimals and fractions, and the arithmetic context that refuses to lose a
digit.

Numbers are bounded when they enter, so everything computed from them is exact. Nothing here, and
nothing built on it, reads the ambient decimal context: products and sums go through :data:`EXACT`,
which traps every inexact result. What no decimal can write, such as the average of three values, is
a Fraction; equal numbers are always of one type.
"""

from __future__ import annotations

import decimal
import operator
import re
from contextlib import suppress
from decimal import Decimal
from fractions import Fraction

from metering_core.errors import ErrorCode, InvalidValueError

__all__ = ["Number", "Unrounded"]

PLACES_MAX = 12
"""Decimal places of a price, and that a line shows (Stripe's limit of ``*_decimal``)."""

DIGITS_MAX = 100
"""Digits before the point of a decimal; no exponent smuggles in a number of any size."""

QUANTITY_DIGITS_MAX = 2 * DIGITS_MAX
"""Digits that an integer may have, and any quantity after the point: twice those of one value,
since averages divide. What is computed from such numbers (the sum of any number of records, times a
price) stays below the 640 digits that every Python can write.
"""

QUANTITY_BOUND = 10**QUANTITY_DIGITS_MAX
"""The first integer that is too long."""

SUM_DIGITS_MAX = QUANTITY_DIGITS_MAX + 40
"""Digits before the point of a quantity that is rated: it may sum all records there can be."""

_SUM_BOUND = 10**SUM_DIGITS_MAX

AMOUNT_DIGITS_MAX = 600
"""Digits of an amount on either side of the point: a quantity times a price has half of them."""

_AMOUNT_BOUND = 10**AMOUNT_DIGITS_MAX

EXACT = decimal.Context(
    prec=100_000,
    Emax=999_999,
    Emin=-999_999,
    traps=[
        decimal.Inexact,
        decimal.InvalidOperation,
        decimal.DivisionByZero,
        decimal.Overflow,
        decimal.Underflow,
    ],
)
"""The only context that arithmetic runs in. A result that would need rounding raises instead."""

Number = int | Decimal | Fraction
"""An exact number: what quantities and minor units are made of. Computed ones are an int where
whole, a Decimal where one can write them, and a Fraction only where none can (1/3).
"""

Unrounded = Decimal | Fraction
"""An exact amount before it is settled: a Decimal, or a Fraction where no decimal can write it."""

_DECIMALS = (int, Decimal)
"""The types whose arithmetic stays decimal; faster asked for than Fraction is."""

_WRITTEN_DECIMAL = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d{1,3})?", re.ASCII | re.IGNORECASE)


def as_index(value: object) -> int:
    """Return an integer of any library as an int, through ``__index__``.

    Raises:
        TypeError: for what is none; a bool is none either, also one of NumPy, whose older versions
            turn it to 1 or 0.
    """
    if type(value) is int:
        return value
    if isinstance(value, bool) or type(value).__name__ in {"bool", "bool_"}:
        raise TypeError("a bool is no integer")
    return operator.index(value)  # type: ignore[arg-type]


def exact_integer(
    value: object, param: str, *, minimum: int | None = 0, maximum: int | None = None
) -> int:
    """Return ``value`` as an int, or refuse it: bools, floats, decimals and strings are not
    integers here.

    Bounds are inclusive, and no integer has more than :data:`QUANTITY_DIGITS_MAX` digits. Integers
    of other libraries are taken through ``__index__``, and become an ``int``.

    >>> exact_integer(5, "quantity", minimum=1)
    5

    Raises:
        InvalidValueError: ``parameter_invalid_integer``.
    """
    if type(value) is int:
        number = value
    else:
        try:
            number = as_index(value)
        except TypeError:
            raise _not_an_integer(value, param, minimum, maximum) from None
    if (minimum is not None and number < minimum) or (maximum is not None and number > maximum):
        raise _not_an_integer(value, param, minimum, maximum)
    if not -QUANTITY_BOUND < number < QUANTITY_BOUND:
        raise _too_long(value, param, QUANTITY_DIGITS_MAX)
    return number


def _too_long(value: object, param: str, digits: int) -> InvalidValueError:
    return InvalidValueError.expecting(
        ErrorCode.PARAMETER_INVALID_INTEGER, param, f"an integer of at most {digits} digits", value
    )


def exact_units(value: object, param: str) -> int:
    """Return whole minor units as an int, negative ones for a credit; at most
    :data:`AMOUNT_DIGITS_MAX` digits.

    Raises:
        InvalidValueError: ``parameter_invalid_integer``.
    """
    if type(value) is int:
        if not -_AMOUNT_BOUND < value < _AMOUNT_BOUND:
            raise _too_long(value, param, AMOUNT_DIGITS_MAX)
        return value
    return exact_integer(value, param, minimum=None)


def _not_an_integer(
    value: object, param: str, minimum: int | None, maximum: int | None
) -> InvalidValueError:
    bounds = "" if minimum is None else f" of at least {minimum}"
    if maximum is not None:
        bounds += f" and at most {maximum}"
    return InvalidValueError.expecting(
        ErrorCode.PARAMETER_INVALID_INTEGER, param, f"an integer{bounds}", value
    )


def exact_decimal(
    value: object, param: str, *, places: int = PLACES_MAX, minimum: int | None = 0
) -> Decimal:
    """Return ``value`` as a canonical Decimal (no exponent, no trailing zeros), or refuse it.

    Takes int, Decimal, Fraction and a decimal string (``"5e-07"`` is one); a float has already lost
    what it meant, so it is refused. At most ``places`` decimals and :data:`DIGITS_MAX` digits
    before the point; ``minimum`` is inclusive.

    >>> exact_decimal("0.40", "unit_amount")
    Decimal('0.4')

    Raises:
        InvalidValueError: ``parameter_invalid_decimal``.
    """
    number = _bounded(value, places, DIGITS_MAX)
    if not isinstance(number, Decimal) or (minimum is not None and number < minimum):
        raise _not_a_decimal(value, param, places, minimum)
    return canonical(number)


def exact_amount(value: object, param: str) -> Unrounded:
    """Return an amount in minor units, negative for a credit: a canonical Decimal, or a Fraction
    where none can write it.

    Takes int, Decimal and Fraction, with at most :data:`AMOUNT_DIGITS_MAX` digits on either side of
    the point.

    Raises:
        InvalidValueError: ``parameter_invalid_decimal``.
    """
    number = (
        None if isinstance(value, str) else _bounded(value, AMOUNT_DIGITS_MAX, AMOUNT_DIGITS_MAX)
    )
    if number is None or (isinstance(number, Fraction) and abs(number.numerator) >= _AMOUNT_BOUND):
        digits = f"at most {AMOUNT_DIGITS_MAX} digits on either side of the point"
        expected = (
            f"an exact, finite number of minor units (int, Decimal or Fraction) with {digits}"
        )
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_DECIMAL, param, expected, value
        )
    return canonical(number) if isinstance(number, Decimal) else number


def exact_quantity(value: object, param: str) -> Number:
    """Return a quantity: an int where it is whole, a Decimal where one can write it, else a
    Fraction; never negative.

    At most :data:`SUM_DIGITS_MAX` digits before the point, and :data:`QUANTITY_DIGITS_MAX` after it
    or in its denominator.

    >>> exact_quantity(Decimal("2.50"), "quantity"), exact_quantity(Fraction(4, 6), "quantity")
    (Decimal('2.5'), Fraction(2, 3))

    Raises:
        InvalidValueError: ``parameter_invalid_decimal``.
    """
    if type(value) is int and 0 <= value < _SUM_BOUND:
        return value
    number = (
        None if isinstance(value, str) else _bounded(value, QUANTITY_DIGITS_MAX, SUM_DIGITS_MAX)
    )
    if number is None or number < 0:
        digits = (
            f"at most {SUM_DIGITS_MAX} digits before the point and {QUANTITY_DIGITS_MAX} after it"
        )
        expected = f"an exact number of at least 0 with {digits} (int, Decimal or Fraction)"
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_DECIMAL, param, expected, value
        )
    return whole_if_possible(number)


def _bounded(value: object, places: int, digits: int) -> Unrounded | None:
    """Return the number that a value says, or None where it says none or one out of bounds."""
    number: Unrounded | None = None
    match value:
        case Decimal():  # First, because amounts are nearly always.
            number = Decimal(value)
        case bool() | float():
            pass
        case int():
            number = _bounded_integer(value, digits)
        case str():
            # Bounded before it is parsed: a hostile string is refused at the cost of reading its
            # first characters.
            text = str.__str__(value) if str.__len__(value) <= DIGITS_MAX * 2 else ""
            number = Decimal(text) if _WRITTEN_DECIMAL.fullmatch(text) else None
        case Fraction():
            # Bounded before it is divided, for the same reason; at most ``places`` decimals need no
            # greater denominator.
            fits = value.denominator <= 10**places and abs(value) < 10**digits
            number = decimal_if_possible(value) if fits else None
        case _ if hasattr(type(value), "__index__"):  # An integer of another library.
            with suppress(TypeError):  # As of an array, which is none.
                number = _bounded_integer(as_index(value), digits)
    return (
        None if isinstance(number, Decimal) and not _is_bounded(number, places, digits) else number
    )


def _bounded_integer(value: int, digits: int) -> Decimal | None:
    return Decimal(value) if abs(value) < 10**digits else None


def _is_bounded(number: Decimal, places: int, digits: int) -> bool:
    if not number.is_finite():
        return False
    if not number:
        return True
    if not -digits <= number.adjusted() < digits or len(number.as_tuple().digits) > 4 * digits:
        return False
    # To strip zeros makes it only shorter, and costs as much as all the rest.
    return -_exponent(number) <= places or -_exponent(canonical(number)) <= places


def _exponent(number: Decimal) -> int:
    exponent = number.as_tuple().exponent
    assert isinstance(exponent, int), "only finite decimals come here"
    return exponent


def _not_a_decimal(
    value: object, param: str, places: int, minimum: int | None
) -> InvalidValueError:
    bound = "" if minimum is None else f" of at least {minimum}"
    most = f"{DIGITS_MAX} digits before the point and " if _is_long(value) else ""
    expected = (
        f"an exact decimal{bound} with at most {most}{places} decimal places (int, Decimal, "
        "Fraction or decimal string)"
    )
    return InvalidValueError.expecting(ErrorCode.PARAMETER_INVALID_DECIMAL, param, expected, value)


def _is_long(value: object) -> bool:
    """Whether a number has too many digits before the point, which the refusal has to say."""
    if isinstance(value, str):
        return (
            re.fullmatch(r"[+-]?\d+\.?\d*", value, re.ASCII) is not None
            and len(value.partition(".")[0]) > DIGITS_MAX
        )
    if isinstance(value, Decimal):
        return value.is_finite() and value.adjusted() >= DIGITS_MAX
    return isinstance(value, int | Fraction) and abs(value) >= 10**DIGITS_MAX


def canonical(number: Decimal) -> Decimal:
    """Strip trailing zeros and the exponent, so that equal numbers are written alike.

    >>> canonical(Decimal("5.0")), canonical(Decimal("1E+3")), canonical(Decimal("-0.00"))
    (Decimal('5'), Decimal('1000'), Decimal('0'))
    """
    whole = int(number)
    return Decimal(whole) if whole == number else EXACT.normalize(number)


def decimal_if_possible(number: Fraction) -> Unrounded:
    """Return a fraction as a canonical Decimal; one that no decimal can write stays a Fraction.

    >>> decimal_if_possible(Fraction(1, 8)), decimal_if_possible(Fraction(2, 3))
    (Decimal('0.125'), Fraction(2, 3))
    """
    # A denominator of n bits has at most n - 1 factors of 2 or 5, so as many places suffice where
    # any do.
    places = number.denominator.bit_length() - 1
    whole, remainder = divmod(number.numerator * 10**places, number.denominator)
    return Fraction(number) if remainder else canonical(EXACT.scaleb(Decimal(whole), -places))


def whole_if_possible(number: Number) -> Number:
    """Return a number in its one spelling: an int where it is whole, a Decimal where one can write
    it, else a Fraction.

    >>> [whole_if_possible(number) for number in (Decimal("2.0"), Fraction(5, 2), Fraction(2, 3))]
    [2, Decimal('2.5'), Fraction(2, 3)]
    """
    if isinstance(number, int):
        return number
    whole = int(number)
    if whole == number:
        return whole
    return EXACT.normalize(number) if isinstance(number, Decimal) else decimal_if_possible(number)


def multiply(left: Number, right: Number) -> Unrounded:
    """Multiply without losing a digit."""
    if isinstance(left, _DECIMALS) and isinstance(right, _DECIMALS):
        return canonical(EXACT.multiply(Decimal(left), Decimal(right)))
    return decimal_if_possible(Fraction(left) * Fraction(right))


def add(left: Number, right: Number) -> Number:
    """Add without losing a digit; whole results are ints."""
    if isinstance(left, int) and isinstance(right, int):
        return left + right
    if isinstance(left, _DECIMALS) and isinstance(right, _DECIMALS):
        return whole_if_possible(EXACT.add(Decimal(left), Decimal(right)))
    return whole_if_possible(Fraction(left) + Fraction(right))


def subtract(left: Number, right: Number) -> Number:
    """Subtract without losing a digit; whole results are ints."""
    if isinstance(left, int) and isinstance(right, int):
        return left - right
    if isinstance(left, _DECIMALS) and isinstance(right, _DECIMALS):
        return whole_if_possible(EXACT.subtract(Decimal(left), Decimal(right)))
    return whole_if_possible(Fraction(left) - Fraction(right))


def cut(number: Number) -> Decimal:
    """Cut a number to the 12 decimal places that people are shown; the rest is dropped, toward
    zero, never rounded up.

    So a line never shows more usage than there was. Stripe's ``quantity_decimal`` has at most 12
    places, and its ``quantity`` is the same cut to an integer. What is charged is computed from the
    number itself.

    >>> cut(Fraction(2, 3)), cut(Decimal("2.50"))
    (Decimal('0.666666666666'), Decimal('2.5'))
    """
    numerator, denominator = number.as_integer_ratio()
    parts = abs(numerator) * 10**PLACES_MAX // denominator
    return canonical(EXACT.scaleb(Decimal(-parts if numerator < 0 else parts), -PLACES_MAX))


def plain(number: Number) -> str:
    """Write a number in digits, without an exponent, and exactly: as ``n/d`` where no decimal can
    write it.

    >>> plain(Decimal("0.000000000001")), plain(Fraction(1, 2)), plain(Fraction(1, 3))
    ('0.000000000001', '0.5', '1/3')
    """
    if isinstance(number, int):
        return str(number)
    exact = canonical(number) if isinstance(number, Decimal) else decimal_if_possible(number)
    return str(exact) if isinstance(exact, Fraction) else f"{exact:f}"


# Stored numbers -----------------------------------------------------------------------------------


def written(number: Number) -> int | str:
    """Write an exact number as plain data: an int as it is, any other in digits.

    >>> written(5), written(Decimal("2.50"))
    (5, '2.5')
    """
    return number if isinstance(number, int) else plain(number)


# Not a number that a few characters make huge: an exponent is never written.
_STORED = re.compile(r"-?\d+(\.\d+|/\d+)", re.ASCII)


def read_number(value: object) -> Number:
    """Return the number that :func:`written` wrote.

    Raises:
        TypeError: for anything else than an int and a string.
        ValueError: for a string that it would not have written.
    """
    if not isinstance(value, str):
        return read_whole(value)
    if not _STORED.fullmatch(value):
        raise ValueError(f"{value!r} is not a number")
    number = whole_if_possible(Fraction(value) if "/" in value else Decimal(value))
    if written(number) != value:
        raise ValueError(f"{value!r} is not written as it would be")
    return number


def read_whole(value: object) -> int:
    """Return an integer that was written as one.

    Raises:
        TypeError: for anything else.
    """
    if type(value) is not int:
        raise TypeError(f"{value!r} is not an integer")
    return value

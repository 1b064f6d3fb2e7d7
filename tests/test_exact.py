"""Exact numbers: what enters is bounded, and arithmetic loses nothing whatever the ambient decimal context says."""

from __future__ import annotations

import decimal
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering_core.errors import ErrorCode, InvalidValueError
from metering_core.exact import (
    add,
    canonical,
    exact_decimal,
    exact_integer,
    exact_quantity,
    multiply,
    plain,
    subtract,
    whole_if_possible,
)

NUMBERS = st.integers(-(10**30), 10**30) | st.decimals(
    min_value=-(10**20), max_value=10**20, places=12, allow_nan=False, allow_infinity=False
)


class Seven:
    """An integer of another library."""

    def __index__(self):
        return 7


def test_integers_of_other_libraries_are_taken():
    """Whatever says __index__ is an integer, and comes out as a plain int."""
    assert exact_integer(Seven(), "x") == 7
    assert type(exact_integer(Seven(), "x")) is int


@pytest.mark.parametrize(("value", "fits"), [(1, False), (2, True), (5, True), (6, False)])
def test_bounds_of_integers_are_inclusive(value, fits):
    """Minimum and maximum belong to the range; the refusal states both."""
    if fits:
        assert exact_integer(value, "x", minimum=2, maximum=5) == value
        return
    with pytest.raises(
        InvalidValueError, match=rf"x: expected an integer of at least 2 and at most 5, received {value} \(int\)"
    ):
        exact_integer(value, "x", minimum=2, maximum=5)


def test_the_refusal_of_another_type_states_the_bounds_too():
    """Whoever gives text reads at once which integers would do."""
    with pytest.raises(InvalidValueError, match=r"^x: expected an integer of at least 2 and at most 5, received '3' \(str\)$"):
        exact_integer("3", "x", minimum=2, maximum=5)


def test_an_integer_without_minimum_may_be_negative():
    """None is no bound, and the refusal names none."""
    assert exact_integer(-5, "x", minimum=None) == -5
    with pytest.raises(InvalidValueError, match=r"x: expected an integer, received 1.5"):
        exact_integer(1.5, "x", minimum=None)


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (5, "5"), ("0.40", "0.4"), ("+.5", "0.5"), ("5.", "5"), ("007", "7"), (Decimal("1E+3"), "1000"),
        (Fraction(1, 8), "0.125"),
        (Decimal("-0.0"), "0"), ("0.000000000001", "0.000000000001"), ("9" * 100, "9" * 100), (0, "0"),
        (Decimal("0." + "0" * 300), "0"),
    ],
)  # fmt: skip
def test_decimals_are_taken_in_canonical_form(value, number):
    """Ints, decimals, terminating fractions and plain strings become one canonical decimal: no exponent, no trailing zeros."""
    assert f"{exact_decimal(value, 'x'):f}" == number


@pytest.mark.parametrize(
    "value",
    [
        0.5, True, None, [], "", ".", " 1", "1 ", "1_000", "1e5", "0x1", "NaN", "٣", "1" * 101, "1" * 201, Decimal("NaN"),
        Decimal("sNaN"),
        Decimal("Infinity"), Decimal("1E+100"), Decimal("1E+999999"), Decimal("1E-999999"), Decimal("0." + "1" * 13), -1,
        "-0.1",
        Fraction(1, 3), Fraction(1, 10**13), Decimal("1." + "0" * 500),
    ],
)  # fmt: skip
def test_other_decimals_are_refused(value):
    """Floats, strings that are no plain decimals, non-terminating fractions, and numbers out of bounds are refused by name."""
    with pytest.raises(InvalidValueError) as caught:
        exact_decimal(value, "unit_amount")
    assert (caught.value.code, caught.value.param) == (ErrorCode.PARAMETER_INVALID_DECIMAL, "unit_amount")


def test_trailing_zeros_are_taken_within_reason():
    """They mean nothing, but reading them costs time: four times the digits before the point are taken, and not one more."""
    assert exact_decimal(Decimal("1." + "0" * 399), "x") == 1
    with pytest.raises(InvalidValueError):
        exact_decimal(Decimal("1." + "0" * 400), "x")


def test_strings_are_read_up_to_200_characters():
    """The longest decimal has 100 digits and a few more: twice that is read, and a longer string is not even looked at."""
    assert exact_decimal("0" * 200, "x") == 0
    with pytest.raises(InvalidValueError):
        exact_decimal("0" * 201, "x")


@pytest.mark.parametrize(("value", "received"), [("one", "'one' (str)"), (0, "0 (int)")])
def test_the_refusal_of_a_decimal_states_its_bounds(value, received):
    """What is no number and what is too small are told the same: the minimum, the places and the types that are taken."""
    with pytest.raises(InvalidValueError) as caught:
        exact_decimal(value, "x", places=3, minimum=1)
    assert caught.value.message == (
        "x: expected an exact decimal of at least 1 with at most 3 decimal places "
        f"(int, Decimal, Fraction or decimal string), received {received}"
    )


def test_a_decimal_without_minimum_may_be_negative():
    """None is no bound for decimals either."""
    assert exact_decimal("-0.5", "x", minimum=None) == Decimal("-0.5")
    with pytest.raises(InvalidValueError, match=r"an exact decimal with at most 12 decimal places"):
        exact_decimal("x", "x", minimum=None)


@pytest.mark.parametrize(
    ("value", "quantity"), [(5, 5), (Decimal("2.0"), 2), (Decimal("2.50"), Decimal("2.5")), (Fraction(4, 2), 2)]
)
def test_whole_quantities_are_ints(value, quantity):
    """A quantity is an int where it is whole, else a decimal."""
    found = exact_quantity(value, "quantity")
    assert found == quantity
    assert type(found) is type(quantity)


def test_a_whole_quantity_may_be_of_any_size():
    """Usage adds up without a bound, so an int has none, although a decimal may have no more than 100 digits."""
    assert exact_quantity(10**100, "quantity") == 10**100
    with pytest.raises(InvalidValueError):
        exact_quantity(Decimal(10**100), "quantity")


def test_a_quantity_is_no_string():
    """Usage arrives as numbers: a string is refused although an amount may be one."""
    sentence = r"^quantity: expected a number of at least 0 with at most 12 decimal places .*, received '5' \(str\)$"
    with pytest.raises(InvalidValueError, match=sentence):
        exact_quantity("5", "quantity")


@given(NUMBERS, NUMBERS)
def test_arithmetic_agrees_with_fractions(left, right):
    """Sums, differences and products are those of fractions, also where the ambient context would round or raise."""
    with decimal.localcontext(decimal.Context(prec=3, rounding=decimal.ROUND_UP, traps=list(decimal.Context().flags))):
        results = add(left, right), subtract(left, right), multiply(left, right)
    a, b = Fraction(left), Fraction(right)
    assert [Fraction(result) for result in results] == [a + b, a - b, a * b]
    for result in results[:2]:
        assert isinstance(result, int) == (Fraction(result).denominator == 1)


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**15), max_value=10**15))
def test_canonical_numbers_are_written_alike(number):
    """A canonical number equals the given one, and reads back from its plain text without an exponent."""
    assert canonical(number) == number
    assert "E" not in plain(number)
    assert Decimal(plain(number)) == number
    assert isinstance(whole_if_possible(number), int) == (number == number.to_integral_value())


@pytest.mark.parametrize(
    ("number", "written"),
    [("1E+1", "10"), ("10", "10"), ("1E+3", "1000"), ("5.0", "5"), ("100.50", "100.5"), ("-0.00", "0"), ("-20", "-20")],
)
def test_a_canonical_number_prints_without_an_exponent(number, written):
    """The decimal itself has no exponent, so that str, repr and JSON write it as people do."""
    assert str(canonical(Decimal(number))) == written


def test_whole_if_possible_leaves_ints_alone():
    """An int is whole already."""
    assert whole_if_possible(7) == 7
    assert plain(7) == "7"

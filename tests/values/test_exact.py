"""Exact numbers: what enters is bounded, and arithmetic loses nothing whatever the ambient decimal
context says.
"""

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
    cut,
    decimal_if_possible,
    exact_decimal,
    exact_integer,
    exact_quantity,
    exact_units,
    multiply,
    plain,
    subtract,
    whole_if_possible,
)

NUMBERS = st.one_of(
    st.integers(-(10**30), 10**30),
    st.decimals(
        min_value=-(10**20), max_value=10**20, places=12, allow_nan=False, allow_infinity=False
    ),
    st.fractions(max_denominator=10**12),
    st.integers(-9, 9).map(lambda thirds: Fraction(thirds, 3)),
)


class Seven:
    """An integer of another library."""

    def __index__(self):
        return 7


def test_integers_of_other_libraries_are_taken():
    """Whatever says __index__ is an integer, and comes out as a plain int."""
    assert exact_integer(Seven(), "x") == 7
    assert type(exact_integer(Seven(), "x")) is int


class Row(Seven):
    """As an array, which has the method and is no integer."""

    def __index__(self):
        raise TypeError


def test_integers_of_other_libraries_are_decimals_too():
    """An amount may be an integer of another library; what only has the method of one is
    refused.
    """
    assert exact_decimal(Seven(), "x") == 7
    with pytest.raises(InvalidValueError, match=r"^x: expected .*, received .*Row") as refused:
        exact_decimal(Row(), "x")
    assert refused.value.code is ErrorCode.PARAMETER_INVALID_DECIMAL


@pytest.mark.parametrize(("value", "fits"), [(1, False), (2, True), (5, True), (6, False)])
def test_bounds_of_integers_are_inclusive(value, fits):
    """Minimum and maximum belong to the range; the refusal states both."""
    if fits:
        assert exact_integer(value, "x", minimum=2, maximum=5) == value
        return
    with pytest.raises(
        InvalidValueError,
        match=rf"x: expected an integer of at least 2 and at most 5, received {value} \(int\)",
    ):
        exact_integer(value, "x", minimum=2, maximum=5)


def test_the_refusal_of_another_type_states_the_bounds_too():
    """Whoever gives text reads at once which integers would do."""
    with pytest.raises(
        InvalidValueError,
        match=r"^x: expected an integer of at least 2 and at most 5, received '3' \(str\)$",
    ):
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
        (Decimal("0." + "0" * 300), "0"), ("5e-07", "0.0000005"), ("1E+3", "1000"), ("-0e9", "0"), ("1.5e2", "150"),
    ],
)  # fmt: skip
def test_decimals_are_taken_in_canonical_form(value, number):
    """Ints, decimals, terminating fractions and plain strings become one canonical decimal: no
    exponent, no trailing zeros.
    """
    assert f"{exact_decimal(value, 'x'):f}" == number


@pytest.mark.parametrize(
    "value",
    [
        0.5, True, None, [], "", ".", " 1", "1 ", "1_000", "1e", "e5",
        "1e5.0", "1e+1000", "1e-13", "1e100", "0x1", "NaN", "٣", "1" * 101, "1" * 201, Decimal("NaN"),
        Decimal("sNaN"),
        Decimal("Infinity"), Decimal("1E+100"), Decimal("1E+999999"), Decimal("1E-999999"), Decimal("0." + "1" * 13), -1,
        "-0.1",
        Fraction(1, 3), Fraction(1, 10**13), Fraction(10**100), Fraction(10**100_001), Decimal("1." + "0" * 500),
    ],
)  # fmt: skip
def test_other_decimals_are_refused(value):
    """Floats, strings that are no plain decimals, non-terminating fractions, and numbers out of
    bounds are refused by name.
    """
    with pytest.raises(InvalidValueError) as caught:
        exact_decimal(value, "unit_amount")
    assert (caught.value.code, caught.value.param) == (
        ErrorCode.PARAMETER_INVALID_DECIMAL,
        "unit_amount",
    )


def test_trailing_zeros_are_taken_within_reason():
    """They mean nothing, but reading them costs time: four times the digits before the point are
    taken, and not one more.
    """
    assert exact_decimal(Decimal("1." + "0" * 399), "x") == 1
    with pytest.raises(InvalidValueError):
        exact_decimal(Decimal("1." + "0" * 400), "x")


def test_strings_are_read_up_to_200_characters():
    """The longest decimal has 100 digits and a few more: twice that is read, and a longer string is
    not even looked at.
    """
    assert exact_decimal("0" * 200, "x") == 0
    with pytest.raises(InvalidValueError):
        exact_decimal("0" * 201, "x")


@pytest.mark.parametrize(("value", "received"), [("one", "'one' (str)"), (0, "0 (int)")])
def test_the_refusal_of_a_decimal_states_its_bounds(value, received):
    """What is no number and what is too small are told the same: the minimum, the places and the
    types that are taken.
    """
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
    ("value", "quantity"),
    [
        (5, 5), (Decimal("2.0"), 2), (Decimal("2.50"), Decimal("2.5")), (Fraction(4, 2), 2), (Fraction(5, 2), Decimal("2.5")),
        (Fraction(2, 6), Fraction(1, 3)), (Decimal("1E-13"), Decimal("0.0000000000001")),
        (Fraction(1, 2**13), Decimal("0.0001220703125")),
    ],
)  # fmt: skip
def test_equal_quantities_are_of_one_type(value, quantity):
    """A quantity is an int where it is whole, a decimal of any length where one can write it, and
    else a fraction.
    """
    found = exact_quantity(value, "quantity")
    assert found == quantity
    assert type(found) is type(quantity)


@pytest.mark.parametrize("kind", [int, Decimal, Fraction])
def test_no_quantity_has_more_than_240_digits_before_the_point(kind):
    """So many has the sum of all records that there can be, of 200 digits each; every Python can
    write it.
    """
    assert exact_quantity(kind(10**240 - 1), "quantity") == 10**240 - 1
    with pytest.raises(
        InvalidValueError, match="with at most 240 digits before the point and 200 after it"
    ):
        exact_quantity(kind(10**240), "quantity")


@pytest.mark.parametrize(("check", "digits"), [(exact_integer, 200), (exact_units, 600)])
@pytest.mark.parametrize("sign", [1, -1])
def test_integers_are_bounded(check, digits, sign):
    """An integer that is a digit too long is refused, also a negative one, and the sentence says
    how many it may have.
    """
    bounds = {"minimum": None} if check is exact_integer else {}
    longest = sign * (10**digits - 1)
    assert check(longest, "x", **bounds) == longest
    with pytest.raises(
        InvalidValueError, match=f"x: expected an integer of at most {digits} digits"
    ) as caught:
        check(longest + sign, "x", **bounds)
    assert caught.value.code is ErrorCode.PARAMETER_INVALID_INTEGER


@pytest.mark.parametrize(
    "value", ["1" * 101, 10**100, Decimal("1E+100"), Fraction(10**101, 3), "-" + "9" * 101 + ".5"]
)
def test_too_many_digits_are_said_to_be_too_many(value):
    """The refusal of a number that is too long says how long it may be; others do not
    mention it.
    """
    with pytest.raises(
        InvalidValueError, match="with at most 100 digits before the point and 12 decimal places"
    ):
        exact_decimal(value, "unit_amount", minimum=None)
    with pytest.raises(InvalidValueError, match="with at most 12 decimal places"):
        exact_decimal("x", "unit_amount")


@pytest.mark.parametrize(
    "value",
    [
        Decimal(10**200 - 1), Decimal("1E-200"), Fraction(1, 10**200), Fraction(10**200 * 3 - 1, 3), Fraction(1, 10**200 - 1),
    ],
)  # fmt: skip
def test_a_quantity_may_have_200_digits_on_either_side(value):
    """A value has at most 100, and an average divides sums of them: the longest that comes of it is
    still a quantity.
    """
    assert exact_quantity(value, "quantity") == value


@pytest.mark.parametrize(
    "value",
    [
        0.5, True, None, "5", "1/3", [], 1j, -1, Decimal("-0.5"), Fraction(-1, 3), Decimal("NaN"), Decimal("sNaN"),
        Decimal("Infinity"), Decimal("1E-201"), Decimal("1E+999999"), Fraction(1, 10**200 + 1), Fraction(3 * 10**240 + 1, 3),
        Fraction(1, 2**201), Decimal("1." + "0" * 961),
    ],
)  # fmt: skip
def test_other_quantities_are_refused(value):
    """What is no exact number, is negative or has more digits than usage can come to is refused by
    name.
    """
    with pytest.raises(InvalidValueError) as caught:
        exact_quantity(value, "quantity")
    assert (caught.value.code, caught.value.param) == (
        ErrorCode.PARAMETER_INVALID_DECIMAL,
        "quantity",
    )


def test_a_quantity_is_no_string():
    """Usage arrives as numbers: a string is refused although an amount may be one."""
    with pytest.raises(InvalidValueError) as caught:
        exact_quantity("5", "quantity")
    assert caught.value.message == (
        "quantity: expected an exact number of at least 0 with at most 240 digits before "
        "the point and 200 after it "
        "(int, Decimal or Fraction), received '5' (str)"
    )


@given(NUMBERS, NUMBERS)
def test_arithmetic_agrees_with_fractions(left, right):
    """Sums, differences and products are those of fractions, also where the ambient context would
    round or raise.
    """
    with decimal.localcontext(
        decimal.Context(prec=3, rounding=decimal.ROUND_UP, traps=list(decimal.Context().flags))
    ):
        results = add(left, right), subtract(left, right), multiply(left, right)
    a, b = Fraction(left), Fraction(right)
    assert [Fraction(result) for result in results] == [a + b, a - b, a * b]
    assert [type(result) for result in results[:2]] == [type_of(a + b), type_of(a - b)]
    assert type(results[2]) is (Fraction if type_of(a * b) is Fraction else Decimal)


def type_of(number):
    """Return the type of a number by what its denominator is made of: nothing, twos and fives, or
    more.
    """
    rest = number.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    return Fraction if rest > 1 else int if number.denominator == 1 else Decimal


@given(st.fractions(), st.integers(0, 12), st.integers(0, 12))
def test_fractions_that_end_are_decimals(number, twos, fives):
    """A fraction becomes a decimal exactly where its denominator has no other prime factor than 2
    and 5.
    """
    for fraction in (number, Fraction(number.numerator, 2**twos * 5**fives)):
        found = decimal_if_possible(fraction)
        assert found == fraction
        assert isinstance(found, Decimal) == (type_of(fraction) is not Fraction)
        assert found.as_integer_ratio() == fraction.as_integer_ratio()


def test_a_fraction_of_another_library_becomes_a_plain_one():
    """A subclass of Fraction might print or compare otherwise, so only its value is taken."""

    class Share(Fraction):
        pass

    assert type(exact_quantity(Share(1, 3), "quantity")) is Fraction


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (5, "5"), (Fraction(1, 3), "0.333333333333"), (Fraction(2, 3), "0.666666666666"), (Fraction(-2, 3), "-0.666666666666"),
        (Decimal("0.9999999999999"), "0.999999999999"), (Decimal("1.0000000000009"), "1"), (Fraction(1, 10**13), "0"),
        (Decimal("0.000000000001"), "0.000000000001"), (Decimal("-2.50"), "-2.5"),
        (Fraction(10**40, 3), "3" * 40 + "." + "3" * 12),
    ],
)  # fmt: skip
def test_what_is_shown_is_cut_after_12_places(number, shown):
    """The rest is dropped toward zero, so that no more is shown than there was; 12 places and fewer
    stay as they are.
    """
    with decimal.localcontext(prec=3, rounding=decimal.ROUND_UP):
        assert f"{cut(number):f}" == shown


@pytest.mark.parametrize(
    ("number", "written"),
    [
        (Fraction(1, 3), "1/3"),
        (Fraction(-20, 6), "-10/3"),
        (Fraction(1, 8), "0.125"),
        (Fraction(4, 2), "2"),
        (Fraction(0), "0"),
    ],
)
def test_fractions_are_written_in_full(number, written):
    """As a decimal where one ends, as numerator and denominator where none does."""
    assert plain(number) == written


def test_bounds_compare_with_fractions_exactly():
    """Tiers compare quantities with their bounds: a third differs from its first thirty digits, in
    any ambient context.
    """
    thirty = Decimal("0." + "3" * 30)
    with decimal.localcontext(
        decimal.Context(prec=3, Emax=3, Emin=-3, traps=list(decimal.Context().flags))
    ):
        assert thirty < Fraction(1, 3) < Decimal("0." + "3" * 29 + "4")
        assert min(Fraction(1, 3), thirty) is thirty


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**15), max_value=10**15))
def test_canonical_numbers_are_written_alike(number):
    """A canonical number equals the given one, and reads back from its plain text without an
    exponent.
    """
    assert canonical(number) == number
    assert "E" not in plain(number)
    assert Decimal(plain(number)) == number
    assert isinstance(whole_if_possible(number), int) == (number == number.to_integral_value())


@pytest.mark.parametrize(
    ("number", "written"),
    [
        ("1E+1", "10"),
        ("10", "10"),
        ("1E+3", "1000"),
        ("5.0", "5"),
        ("100.50", "100.5"),
        ("-0.00", "0"),
        ("-20", "-20"),
    ],
)
def test_a_canonical_number_prints_without_an_exponent(number, written):
    """The decimal itself has no exponent, so that str, repr and JSON write it as people do."""
    assert str(canonical(Decimal(number))) == written


def test_whole_if_possible_leaves_ints_alone():
    """An int is whole already."""
    assert whole_if_possible(7) == 7
    assert plain(7) == "7"

"""Money: exact amounts, whole minor units, and the one rounding between them."""

from __future__ import annotations

import decimal
import functools
import itertools
import math
import operator
from collections.abc import Iterator
from decimal import ROUND_DOWN, ROUND_HALF_DOWN, ROUND_HALF_EVEN, ROUND_HALF_UP, ROUND_UP, Decimal
from fractions import Fraction
from typing import Any

import attrs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from metering_core.currencies import CURRENCIES
from metering_core.errors import ErrorCode, InvalidValueError
from metering_core.money import (
    Amount,
    Money,
    Rounding,
    down,
    half_down,
    half_even,
    half_up,
    settle,
    to_multiple,
    up,
)

ROUNDINGS = [
    (half_up, ROUND_HALF_UP),
    (half_down, ROUND_HALF_DOWN),
    (half_even, ROUND_HALF_EVEN),
    (up, ROUND_UP),
    (down, ROUND_DOWN),
]
HUGE = decimal.Context(prec=5000, Emax=999_999, Emin=-999_999)

EXACT_NUMBERS = st.one_of(
    st.decimals(
        allow_nan=False, allow_infinity=False, places=12, min_value=-(10**15), max_value=10**15
    ),
    st.integers(-(10**30), 10**30).map(lambda halves: HUGE.divide(Decimal(halves), Decimal(2))),
    st.integers(-50, 50).map(lambda tenths: Decimal(tenths).scaleb(-1)),
)


@pytest.fixture(params=["ordinary", "hostile"], autouse=True)
def ambient_context(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run every test of this file twice, once in a context that would round everything up to three
    digits.
    """
    if request.param == "ordinary":
        yield
        return
    with decimal.localcontext(prec=3, rounding=ROUND_UP):
        yield


def quantized(value: Decimal, mode: str) -> int:
    return int(value.quantize(Decimal(1), rounding=mode, context=HUGE))


def refusal(build: Any, *arguments: Any) -> InvalidValueError:
    with pytest.raises(InvalidValueError) as caught:
        build(*arguments)
    return caught.value


class TestAmount:
    @pytest.mark.parametrize(
        ("value", "kept"),
        [
            (5, "5"),
            (Decimal("5.00"), "5"),
            (Decimal("1E+3"), "1000"),
            (Decimal("-0.0"), "0"),
            (Decimal("-0.5"), "-0.5"),
            (Decimal("0.0000000000000000000000012345"), "0.0000000000000000000000012345"),
            (123_456_789_012_345_678_901_234_567_890_123, "123456789012345678901234567890123"),
        ],
    )
    def test_keeps_every_digit(self, value: Decimal | int, kept: str) -> None:
        """An amount is canonical and exact, with any number of places, in any ambient context."""
        assert f"{Amount(value, 'usd').minor_units:f}" == kept

    def test_equal_amounts_are_equal(self) -> None:
        """Neither trailing zeros nor the letter case of the currency make a difference."""
        assert Amount(Decimal("5.0"), "USD") == Amount(5, "usd")
        assert hash(Amount(Decimal("5.0"), "USD")) == hash(Amount(5, "usd"))
        assert Amount(5, "USD").currency == "usd"

    @pytest.mark.parametrize(
        "value",
        [
            0.5,
            True,
            "0.5",
            None,
            Fraction(1, 3 * 10**600),
            Decimal("NaN"),
            Decimal("sNaN"),
            Decimal("Infinity"),
            Decimal("-Infinity"),
            Decimal("1E+600"),
            Decimal("1E-601"),
            Decimal("1E+200000"),
            10**600,
            Fraction(10**600, 3),
        ],
        ids=lambda value: (
            type(value).__name__ if isinstance(value, int | Fraction) else repr(value)
        ),
    )
    def test_what_is_not_exact_is_refused(self, value: object) -> None:
        """Floats, bools, strings, NaN, infinities and numbers of more than 600 digits on one side
        are refused.
        """
        error = refusal(Amount, value, "usd")
        assert (error.code, error.param) == (ErrorCode.PARAMETER_INVALID_DECIMAL, "minor_units")
        expected = (
            "an exact, finite number of minor units (int, Decimal or Fraction) with at most "
            "600 digits"
        )
        assert error.details["expected"] == f"{expected} on either side of the point"
        assert error.details["received"] is value

    def test_amounts_have_600_digits_on_either_side(self) -> None:
        """Every Python can write that many, and nothing that is rated has half of them."""
        longest = Decimal("9" * 600 + "." + "9" * 600)
        for value in (
            longest,
            longest.copy_negate(),
            Decimal("1E-600"),
            Fraction(10**600 - 1, 7),
            Fraction(1, 10**600 - 1),
        ):
            assert Amount(value, "usd").minor_units == value

    def test_sums_are_bounded_too(self) -> None:
        """A sum that is longer than an amount or money may be is refused, as one that was
        given is.
        """
        for kind in (Amount, Money):
            most = kind(10**600 - 1, "usd")
            assert str(most).startswith("USD 9")
            with pytest.raises(InvalidValueError, match=r"^minor_units: expected"):
                most + most

    @pytest.mark.parametrize(
        ("value", "kept"),
        [
            (Fraction(1, 2), Decimal("0.5")),
            (Fraction(6, 3), Decimal(2)),
            (Fraction(2, 6), Fraction(1, 3)),
        ],
    )
    def test_a_fraction_stays_one_only_where_no_decimal_can_write_it(
        self, value: Fraction, kept: Decimal | Fraction
    ) -> None:
        """Equal amounts are equal in type as well, so that they are written alike."""
        found = Amount(value, "usd").minor_units
        assert (found, type(found)) == (kept, type(kept))
        assert Amount(value, "usd") == Amount(kept, "usd")

    def test_fractions_add_up_to_whole_amounts(self) -> None:
        """Three thirds are one, which is a decimal again; a third less a third is nothing; a debit
        of a third is a credit.
        """
        third = Amount(Fraction(1, 3), "usd")
        assert repr((third + third + third).minor_units) == "Decimal('1')"
        assert repr((third - third).minor_units) == "Decimal('0')"
        assert (-third).minor_units == Fraction(-1, 3)
        assert Amount(Decimal("0.5"), "usd") - third == Amount(Fraction(1, 6), "usd")

    @pytest.mark.parametrize(
        ("minor_units", "code", "text"),
        [
            (Fraction(1, 3), "usd", "USD 0.00333333333333…"),
            (Fraction(-200_000_000, 3), "usd", "USD -666,666.66666666666666…"),
            (Fraction(1000, 3), "jpy", "JPY 333.333333333333…"),
            (10**6 + Fraction(1, 3 * 10**15), "jpy", "JPY 1,000,000.…"),
            (100 + Fraction(1, 3 * 10**15), "usd", "USD 1.00…"),
            (Fraction(-1, 3 * 10**15), "kwd", "KWD -0.000…"),
            (Fraction(1, 8), "usd", "USD 0.00125"),
        ],
    )
    def test_digits_without_end_are_cut_and_say_so(
        self, minor_units: Fraction, code: str, text: str
    ) -> None:
        """Twelve places of the minor unit are shown, and an ellipsis: no reader takes the text for
        the exact amount.
        """
        assert str(Amount(minor_units, code)) == text

    def test_adds_subtracts_and_negates_exactly(self) -> None:
        """Sums keep digits that an ambient context of 3 or 28 digits would lose."""
        large, small = Amount(10**30, "usd"), Amount(Decimal("1E-30"), "usd")
        assert (large + small).minor_units == Decimal(10**60 + 1).scaleb(-30, HUGE)
        assert (large - small).minor_units == Decimal(10**60 - 1).scaleb(-30, HUGE)
        assert -Amount(Decimal("1234.5678"), "usd") == Amount(Decimal("-1234.5678"), "usd")
        assert str((-Amount(0, "usd")).minor_units) == "0"

    @pytest.mark.parametrize(
        ("minor_units", "code", "text"),
        [
            ("0", "usd", "USD 0.00"),
            ("50", "usd", "USD 0.50"),
            ("3.6", "usd", "USD 0.036"),
            ("-123456.5", "usd", "USD -1,234.565"),
            ("-5120", "kwd", "KWD -5.120"),
            ("500", "jpy", "JPY 500"),
            ("500.25", "jpy", "JPY 500.25"),
            ("500", "isk", "ISK 5"),
            ("550", "isk", "ISK 5.5"),
        ],
    )
    def test_prints_in_major_units(self, minor_units: str, code: str, text: str) -> None:
        """The text has at least the currency's own number of decimals, every other digit, and the
        sign of a credit.
        """
        assert str(Amount(Decimal(minor_units), code)) == text

    @given(st.lists(EXACT_NUMBERS | st.fractions(), min_size=3, max_size=3))
    def test_sums_are_those_of_fractions(self, numbers: list[Decimal | Fraction]) -> None:
        """Adding and subtracting agree with rational arithmetic."""
        first, second, third = (Amount(number, "usd") for number in numbers)
        expected = Fraction(numbers[0]) + Fraction(numbers[1]) - Fraction(numbers[2])
        assert Fraction((first + second - third).minor_units) == expected


class TestMoney:
    def test_a_number_too_long_to_print_is_still_refused_by_name(self) -> None:
        """An int that Python does not write out breaks no error message."""
        error = refusal(Amount, 10**100_000, "usd")
        assert error.message.endswith("received a number too long to show (int)")

    @pytest.mark.parametrize("value", [1.0, True, Decimal(1), "1", None])
    def test_is_whole(self, value: object) -> None:
        """Money is counted in whole minor units; anything but an integer is refused."""
        error = refusal(Money, value, "usd")
        assert (error.code, error.param) == (ErrorCode.PARAMETER_INVALID_INTEGER, "minor_units")

    def test_adds_subtracts_and_negates(self) -> None:
        """Money adds up, and may become negative."""
        assert Money(1050, "usd") + Money(-50, "USD") == Money(1000, "usd")
        assert Money(1050, "usd") - Money(2000, "usd") == Money(-950, "usd")
        assert -Money(5, "usd") == Money(-5, "usd")
        assert functools.reduce(operator.add, [Money(k, "jpy") for k in range(5)]) == Money(
            10, "jpy"
        )

    @pytest.mark.parametrize(
        ("minor_units", "code", "text"),
        [
            (123_456, "usd", "USD 1,234.56"),
            (5, "usd", "USD 0.05"),
            (0, "usd", "USD 0.00"),
            (-100, "usd", "USD -1.00"),
            (-5, "usd", "USD -0.05"),
            (-123_456_789, "eur", "EUR -1,234,567.89"),
            (500, "jpy", "JPY 500"),
            (-1_000_000, "jpy", "JPY -1,000,000"),
            (5120, "kwd", "KWD 5.120"),
            (5124, "kwd", "KWD 5.124"),
            (500, "isk", "ISK 5"),
            (550, "isk", "ISK 5.50"),
            (1, "isk", "ISK 0.01"),
            (-100_000, "ugx", "UGX -1,000"),
            (500, "mga", "MGA 500"),
            (12_345, "clf", "CLF 1.2345"),
            (10**30, "usd", "USD 10,000,000,000,000,000,000,000,000,000.00"),
        ],
    )
    def test_prints_in_major_units(self, minor_units: int, code: str, text: str) -> None:
        """The text has the currency's own number of decimals, and more only where fewer would hide
        something.
        """
        assert str(Money(minor_units, code)) == text
        assert Money(minor_units, code).amount_in_major_units == text.split()[1]

    @given(st.integers(-(10**20), 10**20), st.sampled_from(sorted(CURRENCIES)))
    def test_the_text_hides_nothing(self, minor_units: int, code: str) -> None:
        """The printed number, read back, is the amount in minor units, whatever the currency."""
        shown = Money(minor_units, code).amount_in_major_units.replace(",", "")
        assert Fraction(shown) * 10 ** CURRENCIES[code].fraction_digits == minor_units

    @pytest.mark.parametrize(
        ("minor_units", "code", "payable"),
        [
            (1, "usd", True),
            (1, "jpy", True),
            (5120, "kwd", True),
            (5124, "kwd", False),
            (-5130, "kwd", True),
            (500, "isk", True),
            (550, "isk", False),
            (0, "ugx", True),
        ],
    )
    def test_knows_whether_it_is_payable(self, minor_units: int, code: str, payable: bool) -> None:
        """Stripe takes three-decimal currencies with a last digit of 0, and ISK and UGX in whole
        major units.
        """
        assert Money(minor_units, code).is_payable is payable


@pytest.mark.parametrize("kind", [Amount, Money])
class TestBoth:
    @pytest.mark.parametrize(
        ("operation", "sentence"),
        [(operator.add, "cannot add EUR to USD"), (operator.sub, "cannot subtract EUR from USD")],
    )
    def test_currencies_do_not_mix(self, kind: Any, operation: Any, sentence: str) -> None:
        """Two currencies in one sum are refused, and the error carries both."""
        error = refusal(operation, kind(1, "usd"), kind(1, "eur"))
        assert (error.code, error.param) == (ErrorCode.CURRENCY_MISMATCH, "currency")
        assert error.message == sentence
        assert error.details == {"left": "usd", "right": "eur"}

    @pytest.mark.parametrize("operation", [operator.add, operator.sub])
    def test_meanings_do_not_mix(self, kind: Any, operation: Any) -> None:
        """An amount and money, or either and a number, cannot be added: only settle leads from one
        to the other.
        """
        other = Money if kind is Amount else Amount
        for stranger in (other(1, "usd"), 1, Decimal(1)):
            with pytest.raises(TypeError):
                operation(kind(1, "usd"), stranger)

    @pytest.mark.parametrize("code", ["xxx", "", None, 1])
    def test_the_currency_is_known(self, kind: Any, code: object) -> None:
        """An unknown currency is refused when the value is built."""
        error = refusal(kind, 1, code)
        assert (error.code, error.param) == (ErrorCode.CURRENCY_UNKNOWN, "currency")

    def test_is_frozen(self, kind: Any) -> None:
        """A value cannot be changed once built."""
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            kind(1, "usd").minor_units = 2


class TestRoundings:
    @pytest.mark.parametrize(("rounding", "mode"), ROUNDINGS, ids=[mode for _, mode in ROUNDINGS])
    def test_agree_with_decimal_on_every_small_quarter(self, rounding: Rounding, mode: str) -> None:
        """Every quarter from -5 to 5, among them all ties, rounds as the standard library says."""
        for quarters in range(-20, 21):
            value = HUGE.divide(Decimal(quarters), Decimal(4))
            assert rounding(value) == quantized(value, mode), value

    @given(EXACT_NUMBERS, st.sampled_from(ROUNDINGS))
    def test_agree_with_decimal(self, value: Decimal, pair: tuple[Rounding, str]) -> None:
        """Any exact number rounds as quantize does in a context large enough for it."""
        rounding, mode = pair
        assert rounding(value) == quantized(value, mode)

    @pytest.mark.parametrize(
        ("rounding", "settled"),
        [
            (half_up, [0, 1, 1, 2, -1]),
            (half_down, [0, 1, 1, 2, -1]),
            (half_even, [0, 1, 1, 2, -1]),
            (up, [1, 1, 1, 2, -2]),
            (down, [0, 0, 0, 1, -1]),
            (to_multiple(5, up), [5, 5, 5, 5, -5]),
            (to_multiple(5), [0, 0, 0, 0, 0]),
        ],
    )
    def test_fractions_are_rounded(self, rounding: Rounding, settled: list[int]) -> None:
        """1/3, 2/3, just above 1/2, 5/3 and -4/3: none is a tie, so all roundings to the nearest
        agree.
        """
        values = [
            Fraction(1, 3),
            Fraction(2, 3),
            Fraction(1, 2) + Fraction(1, 3 * 10**30),
            Fraction(5, 3),
            Fraction(-4, 3),
        ]
        assert [rounding(value) for value in values] == settled

    @given(st.fractions(), st.sampled_from([1, 2, 5, 10, 100, 125]))
    def test_to_multiple_takes_fractions(self, value: Fraction, multiple: int) -> None:
        """Python's own floor says what the nearest multiple is, a half away from zero."""
        nearest = math.floor(abs(value) / multiple + Fraction(1, 2)) * multiple
        assert to_multiple(multiple)(value) == (nearest if value > 0 else -nearest)

    def test_return_ints(self) -> None:
        """The result is an int, never a bool or a Decimal."""
        for (rounding, _), value in itertools.product(
            ROUNDINGS, [Decimal(0), Decimal("0.6"), Decimal(-7)]
        ):
            assert type(rounding(value)) is int

    @pytest.mark.parametrize(
        ("value", "multiple", "expected"),
        [
            ("5124", 10, 5120),
            ("5125", 10, 5130),
            ("5124.99", 10, 5120),
            ("-5125", 10, -5130),
            ("550", 100, 600),
        ],
    )
    def test_to_multiple(self, value: str, multiple: int, expected: int) -> None:
        """5.124 KWD becomes 5120 or 5130 thousandths, as Stripe's documentation has it; the rest is
        by hand.
        """
        assert to_multiple(multiple)(Decimal(value)) == expected

    @given(
        EXACT_NUMBERS, st.sampled_from([1, 2, 5, 10, 100, 125, 10**12]), st.sampled_from(ROUNDINGS)
    )
    def test_to_multiple_rounds_the_number_of_multiples(
        self, value: Decimal, multiple: int, pair: tuple[Rounding, str]
    ) -> None:
        """The result is the multiple times the rounded quotient, which is exact."""
        rounding, mode = pair
        quotient = HUGE.divide(value, Decimal(multiple))
        assert to_multiple(multiple, rounding)(value) == multiple * quantized(quotient, mode)

    def test_to_multiple_says_what_it_is(self) -> None:
        """Its name tells the rounding and the multiple, for the line that explains it."""
        assert to_multiple(10).__name__ == "half_up_to_multiple_of_10"
        assert to_multiple(100, down).__name__ == "down_to_multiple_of_100"
        assert to_multiple(5, functools.partial(half_even)).__name__ == "partial_to_multiple_of_5"

    @pytest.mark.parametrize("multiple", [0, -10, 3, 30, 2 * 10**12, True, 10.0, "10", None])
    def test_to_multiple_refuses_what_has_no_exact_share(self, multiple: Any) -> None:
        """A multiple is a positive integer that divides a power of ten."""
        error = refusal(to_multiple, multiple)
        assert (error.code, error.param) == (ErrorCode.PARAMETER_INVALID_INTEGER, "multiple")

    def test_to_multiple_says_which_multiples_there_are(self) -> None:
        """Whoever tries 3 reads what would do."""
        message = "multiple: expected a divisor of 10**12, such as 10 or 100, received 3 (int)"
        assert refusal(to_multiple, 3).message == message

    def test_to_multiple_refuses_a_rounding_that_returns_no_integer(self) -> None:
        """The inner rounding is held to the same contract as any."""
        error = refusal(to_multiple(10, lambda value: value), Decimal(5))  # type: ignore[arg-type,return-value]
        assert (error.code, error.param) == (ErrorCode.PARAMETER_INVALID_INTEGER, "rounding")

    @pytest.mark.parametrize("rounding", [rounding for rounding, _ in ROUNDINGS])
    @pytest.mark.parametrize(
        "value", [1.5, math.nan, Decimal("NaN"), Decimal("sNaN"), Decimal("-Infinity"), "1.5", None]
    )
    def test_only_exact_and_finite_values_are_rounded(self, rounding: Rounding, value: Any) -> None:
        """A float is near what was meant and infinity near nothing: a rounding refuses both by
        name, and rounds neither.
        """
        error = refusal(rounding, value)
        assert (error.code, error.param) == (ErrorCode.PARAMETER_INVALID_DECIMAL, "value")


class TestSettle:
    @pytest.mark.parametrize(
        ("exact", "settled"),
        [
            ("1.5", 2),
            ("0.455", 0),
            ("111.6", 112),
            ("209.79", 210),
            ("0.5", 1),
            ("-1.5", -2),
            ("-0.4", 0),
            ("7", 7),
        ],
    )
    def test_worked_rows(self, exact: str, settled: int) -> None:
        """The rounding examples of Stripe's pages and invoices: to nearest, with 1.5 cents billed
        as 2.
        """
        assert settle(Amount(Decimal(exact), "usd")) == Money(settled, "usd")

    @given(EXACT_NUMBERS | st.fractions())
    @example(Decimal("0.5"))
    @example(Decimal("-2.5"))
    @example(Fraction(1, 2) - Fraction(1, 3 * 10**30))
    def test_moves_by_at_most_half_a_minor_unit(self, value: Decimal | Fraction) -> None:
        """The default settles to the nearest whole minor unit."""
        assert abs(settle(Amount(value, "usd")).minor_units - Fraction(value)) <= Fraction(1, 2)

    @given(
        EXACT_NUMBERS | st.fractions(),
        st.sampled_from([rounding for rounding, _ in ROUNDINGS] + [to_multiple(10)]),
    )
    @example(Decimal("0.5"), half_up)
    def test_credits_mirror_debits(self, value: Decimal | Fraction, rounding: Rounding) -> None:
        """Settling a credit gives the negative of settling the debit."""
        amount = Amount(value, "eur")
        assert settle(-amount, rounding) == -settle(amount, rounding)

    @given(EXACT_NUMBERS)
    def test_agrees_with_decimal(self, value: Decimal) -> None:
        """The default is ROUND_HALF_UP of the standard library."""
        assert settle(Amount(value, "usd")).minor_units == quantized(value, ROUND_HALF_UP)

    def test_to_the_payable_multiple(self) -> None:
        """A currency with a multiple settles to what Stripe takes."""
        kuwait = CURRENCIES["kwd"]
        money = settle(Amount(Decimal("5124.5"), kuwait.code), to_multiple(kuwait.multiple))
        assert (str(money), money.is_payable) == ("KWD 5.120", True)

    @pytest.mark.parametrize("result", [1.0, Decimal(1), True, "1", None])
    def test_a_rounding_returns_an_integer(self, result: Any) -> None:
        """A rounding of the user's own that returns anything else is refused by name."""
        error = refusal(settle, Amount(1, "usd"), lambda value: result)
        assert (error.code, error.param) == (ErrorCode.PARAMETER_INVALID_INTEGER, "rounding")

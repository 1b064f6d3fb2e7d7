"""Currencies: our table is ISO 4217 with Stripe's deviations, and nothing else."""

from __future__ import annotations

import attrs
import pytest
from iso4217 import Currency as IsoCurrency

from metering_core.currencies import CURRENCIES, STRIPE_DEVIATIONS, currency
from metering_core.errors import ErrorCode, InvalidValueError

ISO_DIGITS = {iso.code.lower(): iso.exponent for iso in IsoCurrency if iso.exponent is not None}

STRIPE_ZERO_DECIMALS = "BIF CLP DJF GNF JPY KMF KRW MGA PYG RWF VND VUV XAF XOF XPF".lower().split()
STRIPE_THREE_DECIMALS = "BHD JOD KWD OMR TND".lower().split()
STRIPE_KEPT_TWO_DECIMALS = ["isk", "ugx"]


def test_the_codes_are_those_of_iso_4217() -> None:
    """Every active code with a minor unit is there, in lower case, and no other."""
    assert set(CURRENCIES) == set(ISO_DIGITS)
    assert all(code == found.code == code.lower() for code, found in CURRENCIES.items())


def test_the_digits_are_those_of_iso_4217_except_for_the_deviations() -> None:
    """A currency differs from ISO exactly where a deviation with a reason is listed."""
    differing = {
        code
        for code, found in CURRENCIES.items()
        if (found.fraction_digits, found.multiple) != (ISO_DIGITS[code], 1)
    }
    assert differing == set(STRIPE_DEVIATIONS)
    assert all(deviation.reason for deviation in STRIPE_DEVIATIONS.values())


def test_the_display_digits_are_those_of_iso_4217() -> None:
    """What a reader expects to see is ISO's number of decimals, without exception."""
    assert {code: found.display_digits for code, found in CURRENCIES.items()} == ISO_DIGITS


@pytest.mark.parametrize("code", STRIPE_ZERO_DECIMALS)
def test_stripes_zero_decimal_currencies(code: str) -> None:
    """Stripe takes these in whole major units, any of them payable."""
    assert (currency(code).fraction_digits, currency(code).multiple) == (0, 1)


@pytest.mark.parametrize("code", STRIPE_THREE_DECIMALS)
def test_stripes_three_decimal_currencies(code: str) -> None:
    """Stripe takes these in thousandths whose last digit is 0."""
    assert (currency(code).fraction_digits, currency(code).multiple) == (3, 10)


@pytest.mark.parametrize("code", STRIPE_KEPT_TWO_DECIMALS)
def test_stripes_currencies_that_kept_two_decimals(code: str) -> None:
    """Stripe takes these in hundredths that must be whole."""
    assert (currency(code).fraction_digits, currency(code).multiple) == (2, 100)


@pytest.mark.parametrize("code", ["usd", "eur", "gbp", "huf", "twd", "inr"])
def test_ordinary_currencies_have_cents(code: str) -> None:
    """Two decimals, any amount payable; HUF and TWD are zero-decimal for payouts only."""
    found = currency(code)
    assert (found.fraction_digits, found.multiple, found.display_digits) == (2, 1, 2)


@pytest.mark.parametrize("code", ["usd", "USD", "Usd"])
def test_any_letter_case_is_taken(code: str) -> None:
    """A code is read in any letter case and kept in lower case."""
    assert currency(code) is CURRENCIES["usd"]


@pytest.mark.parametrize(
    "code",
    ["", "us", "usdx", " usd", "xau", "xxx", "btc", "\u212arw", "840", 840, None, b"usd", 1.5],
)
def test_what_is_no_currency_is_refused(code: object) -> None:
    """Unknown codes, metals without a minor unit, look-alike letters and other types are refused by
    name.
    """
    with pytest.raises(InvalidValueError) as caught:
        currency(code, "price.currency")
    assert (caught.value.code, caught.value.param) == (ErrorCode.CURRENCY_UNKNOWN, "price.currency")


def test_the_param_is_currency_by_default() -> None:
    """Without a name the error speaks of the currency."""
    with pytest.raises(InvalidValueError) as caught:
        currency("btc")
    assert caught.value.param == "currency"
    assert "'btc' (str)" in caught.value.message


def test_the_tables_cannot_be_changed() -> None:
    """Neither the tables nor a currency in them can be edited by a user of the library."""
    with pytest.raises(TypeError):
        CURRENCIES["btc"] = CURRENCIES["usd"]  # type: ignore[index]
    with pytest.raises(TypeError):
        del STRIPE_DEVIATIONS["isk"]  # type: ignore[attr-defined]
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        currency("usd").fraction_digits = 3  # type: ignore[misc]

"""How amounts of Stripe's Price shape are read and written: the rows E27 to E29 of the table of
published numbers.
"""

from __future__ import annotations

import pytest

from metering_core.errors import InvalidValueError
from metering_core.prices import Price
from metering_core.pricing import Percentage
from metering_core.rating import rate


def per_unit(**amounts):
    return Price.from_dict({"id": "price", "currency": "usd", **amounts})


def written(price):
    shape = price.to_dict()
    return shape["unit_amount"], shape["unit_amount_decimal"]


def test_e27_decimal_amounts_are_in_cents():
    """E27: a unit_amount_decimal of 105.5 is 1.055 US dollars."""
    assert str(rate(per_unit(unit_amount_decimal="105.5"), 1).amount) == "USD 1.055"


def test_e28_fraction_of_a_cent_has_no_integer_form():
    """E28: a price made with 0.05 reads back with a unit_amount of null."""
    assert written(per_unit(unit_amount_decimal="0.05")) == (None, "0.05")


@pytest.mark.parametrize(
    "amounts", [{"unit_amount_decimal": "5"}, {"unit_amount_decimal": "5.0"}, {"unit_amount": 5}]
)
def test_e29_whole_decimal_fills_both_forms(amounts):
    """E29: a price made with a decimal of 5 reads back as the integer 5 too, and as "5", which real
    payloads show.
    """
    assert written(per_unit(**amounts)) == (5, "5")


def test_both_forms_with_one_value_are_one_amount():
    """What Stripe returns, both forms filled alike, is read as the amount it is."""
    assert per_unit(unit_amount=5, unit_amount_decimal="5") == per_unit(unit_amount=5)


@pytest.mark.parametrize(
    "beside",
    [
        {"unit_amount": 0},
        {"unit_amount_decimal": "0.5"},
        {"tiers": [{"up_to": "inf", "unit_amount": 1}]},
        {"tiers_mode": "volume"},
        {"transform_quantity": {"divide_by": 2, "round": "up"}},
        {"billing_scheme": "tiered"},
        {"object": "plan", "amount": 5, "interval": "month"},
    ],
    ids=lambda beside: next(reversed(beside)) if "amount" not in beside else "plan",
)
def test_a_percent_beside_amounts_is_refused(beside):
    """The key is ours: beside whatever says another model in Stripe's fields it is refused, and
    nulls say nothing.
    """
    with pytest.raises(InvalidValueError, match="only specify one of these parameters: percent"):
        per_unit(percent="2.9", **beside)
    nothing = dict.fromkeys(beside, None) if "object" not in beside else {}
    assert per_unit(percent="2.9", **nothing).model == Percentage("2.9")


def test_a_percent_holds_in_every_currency_unless_an_option_has_an_amount():
    """A currency option without an amount has the price's percentage; one with an amount
    contradicts it.
    """
    data = {"id": "p", "currency": "usd", "percent": "2.9"}
    options = {"eur": {}, "gbp": {"unit_amount": 30}}
    read = [
        Price.from_dict({**data, "currency_options": options}, currency=c) for c in ("usd", "eur")
    ]
    assert [price.model for price in read] == [Percentage("2.9")] * 2
    with pytest.raises(InvalidValueError, match="percent, unit_amount"):
        Price.from_dict({**data, "currency_options": options}, currency="gbp")

"""Prices: Stripe's shapes in and out, without losing anything that is billed."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

from metering_core import InvalidValueError, Price, Recurring, Tier
from metering_core.pricing import Graduated, Package, PerUnit, Volume

TIERS = [Tier(5, 700), Tier("7.5", "0.4", 100), Tier("inf", flat_amount=0)]
MONTHLY = {"interval": "month", "usage_type": "metered"}


@pytest.mark.parametrize(
    "price",
    [
        Price.per_unit(
            "p", currency="USD", unit_amount="0.4", nickname="n", product="prod", unit_label="token"
        ),
        Price.graduated(
            "p", currency="eur", tiers=TIERS, recurring=Recurring(interval="week", interval_count=2)
        ),
        Price.volume("p", currency="jpy", tiers=TIERS, recurring=Recurring(usage_type="licensed")),
        Price.package("p", currency="kwd", unit_amount=1000, divide_by=5, round="down"),
        Price.per_unit("p", currency="usd", unit_amount=1, recurring=None),
        Price.per_unit("p", currency="usd", unit_amount=1, recurring=Recurring(meter="mtr_1")),
        Price.per_unit("p", currency="usd", unit_amount=1, unit_label="token"),
    ],
)
def test_prices_survive_json(price):
    """A price written in Stripe's shape, through JSON text, reads back as the same price."""
    assert Price.from_dict(json.loads(json.dumps(price.to_dict()))) == price


def test_a_price_is_written_in_stripes_shape():
    """The fields are those of Stripe's Price object, the open bound is null and both spellings of
    an amount are there.
    """
    price = Price.graduated("p", currency="usd", tiers=[Tier(5, 700), Tier("inf", "0.4", 100)])
    assert price.to_dict() == {
        "id": "p",
        "object": "price",
        "currency": "usd",
        "nickname": None,
        "product": None,
        "type": "recurring",
        "recurring": {
            "aggregate_usage": "sum", "interval": "month", "interval_count": 1, "meter": None, "usage_type": "metered"
        },
        "billing_scheme": "tiered",
        "tiers_mode": "graduated",
        "tiers": [
            {"up_to": 5, "unit_amount": 700, "unit_amount_decimal": "700", "flat_amount": None, "flat_amount_decimal": None},
            {"up_to": None, "unit_amount": None, "unit_amount_decimal": "0.4", "flat_amount": 100,
             "flat_amount_decimal": "100"},
        ],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "model"),
    [
        ({"unit_amount": 5}, PerUnit(5)),
        ({"unit_amount": 5, "unit_amount_decimal": "5.0"}, PerUnit(5)),
        ({"unit_amount": None, "unit_amount_decimal": "0.4"}, PerUnit("0.4")),
        ({"unit_amount": 5, "transform_quantity": {"divide_by": 9, "round": "up"}}, Package(5, 9)),
        ({"billing_scheme": "tiered", "tiers_mode": "volume", "tiers": [{"up_to": "inf", "flat_amount_decimal": "0.5"}]},
         Volume([Tier(None, None, "0.5")])),
        ({"billing_scheme": "tiered", "tiers_mode": "graduated",
          "tiers": ({"up_to": 5, "unit_amount": 1}, {"up_to": None, "flat_amount": 2})},
         Graduated([Tier(5, 1), Tier(None, None, 2)])),
    ],
)  # fmt: skip
def test_models_are_read_from_stripes_fields(fields, model):
    """The pricing model follows from billing_scheme, tiers_mode and transform_quantity."""
    price = Price.from_dict(
        {"id": "p", "currency": "usd", "recurring": MONTHLY, "metadata": {"k": "v"}, **fields}
    )
    assert price.model == model


def test_licensed_is_stripes_default():
    """A recurring object without usage_type is licensed, as at Stripe; a Recurring built here is
    metered with sum.
    """
    assert not Price.from_dict(
        {"id": "p", "currency": "usd", "unit_amount": 5, "recurring": {"interval": "year"}}
    ).is_metered
    assert Recurring().aggregate_usage == "sum"
    assert Recurring(usage_type="licensed").aggregate_usage is None
    assert Recurring(meter="mtr").aggregate_usage is None


@pytest.mark.parametrize("mark", [{"object": "plan"}, {}])
def test_plans_are_read(mark):
    """The older Plan shape, named or recognised by its interval, becomes the same price."""
    plan = {
        **mark, "id": "p", "currency": "usd", "amount_decimal": "0.4", "interval": "month", "interval_count": 3,
        "usage_type": "metered", "aggregate_usage": "max", "transform_usage": {"divide_by": 10, "round": "down"},
        "nickname": "old",
    }  # fmt: skip
    assert Price.from_dict(plan) == Price(
        "p",
        "usd",
        Package("0.4", 10, "down"),
        Recurring(interval_count=3, aggregate_usage="max"),
        nickname="old",
    )


def test_one_of_several_currencies_is_chosen():
    """A currency option replaces the amounts, not the terms; the price's own currency needs no
    option.
    """
    data = {
        "id": "p", "currency": "usd", "unit_amount": 500, "recurring": MONTHLY,
        "currency_options": {"eur": {"unit_amount": 450}, "JPY": {"unit_amount_decimal": "70.5"}},
    }  # fmt: skip
    assert Price.from_dict(data).model == PerUnit(500)
    assert Price.from_dict(data, currency="USD").model == PerUnit(500)
    euro, yen = Price.from_dict(data, currency="EUR"), Price.from_dict(data, currency="jpy")
    assert (euro.currency, euro.model, euro.recurring) == ("eur", PerUnit(450), Recurring())
    assert yen.model == PerUnit("70.5")
    with pytest.raises(
        InvalidValueError,
        match="expected one of the price's currencies: eur, jpy, usd, received 'gbp'",
    ):
        Price.from_dict(data, currency="gbp")


@pytest.mark.parametrize(
    ("product", "name", "label"),
    [
        ("prod_1", "prod_1", None),
        ({"id": "prod_1"}, "prod_1", None),
        ({"id": "prod_1", "name": "API", "unit_label": "call"}, "API", "call"),
    ],
)
def test_expanded_products_name_the_price(product, name, label):
    """A product may be an id or an object, whose name and unit label lines then show."""
    price = Price.from_dict(
        {"id": "p", "currency": "usd", "unit_amount": 5, "product": product, "recurring": MONTHLY}
    )
    assert (price.product, price.unit_label, price.title) == (name, label, name)


def test_a_nickname_goes_before_product_and_id():
    """A line calls a price by its nickname, else its product, else its id."""
    names = {"nickname": "n", "product": "prod"}
    assert Price("p", "usd", PerUnit(1), **names).title == "n"
    assert Price("p", "usd", PerUnit(1), product="prod").title == "prod"
    assert Price("p", "usd", PerUnit(1)).title == "p"


def test_a_one_time_price_is_not_metered():
    """Without a recurrence there is nothing to meter, but a quantity can still be rated."""
    price = Price("p", "usd", PerUnit(Decimal("0.1")), None)
    assert not price.is_metered
    assert price.to_dict()["type"] == "one_time"

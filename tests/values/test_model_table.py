"""One table of pricing models, and everybody who must know all of them asks it or is held to it
here.
"""

import json
import re

import engine_cases
import pytest
import test_late_usage
import test_one_statement
from hypothesis import given
from hypothesis import strategies as st

import metering_core as mc
from metering_core.bulk.rating import rate_many
from metering_core.pricing import PRICING_MODELS, is_built_in
from metering_core.rating import settled_total
from metering_core.tariffs.pieces import tariff
from metering_core.testing import laws, strategies
from metering_core.testing.conformance import BillingConformance, _model_in_words

NAMES = strategies.MODELS
BUILT_IN_MODELS = tuple(PRICING_MODELS.values())


def test_a_class_made_from_one_of_the_table_is_the_users_own():
    """It may charge otherwise: what it charges is asked of it, and it is not written as another."""

    class Free(mc.pricing.PerUnit):
        def charges(self, quantity):
            return ()

    price = mc.Price("p", "usd", Free(100))
    assert is_built_in(mc.pricing.PerUnit(100))
    assert not is_built_in(price.model)
    assert settled_total(price, 5) == 0 == rate_many(price, [5])[0]
    for refused in (price.to_dict, lambda: tariff(price)):
        with pytest.raises(mc.InvalidValueError, match="Free"):
            refused()


@given(st.data())
def test_each_is_drawn_under_a_name(data):
    """The strategies have a name for each model, and the conformance machine draws them all."""
    drawn = {type(data.draw(strategies.models([name]))) for name in NAMES}
    assert drawn == set(BUILT_IN_MODELS)
    assert BillingConformance.models == NAMES


@pytest.mark.parametrize(
    "models", [engine_cases.MODELS, test_one_statement.MODELS], ids=["engines", "one statement"]
)
def test_tests_of_all_models_have_them_all(models):
    """Lists of samples that tests go through."""
    assert {type(model) for model in models} == set(BUILT_IN_MODELS)
    assert {type(model) for model, _ in test_late_usage.MODELS.values()} == set(BUILT_IN_MODELS)


@pytest.mark.parametrize("key", PRICING_MODELS, ids=str)
@given(st.data())
def test_each_is_read_written_and_rated_everywhere(key, data):
    """Stripe's fields in and out by the row's own names, tariffs, columns, laws, and the words of
    the conformance machine.
    """
    model = data.draw(st.from_type(PRICING_MODELS[key]))
    price = mc.Price("p", "usd", model)
    written = json.loads(json.dumps(price.to_dict()))
    assert mc.Price.from_dict(written) == price
    assert written["billing_scheme"] == key[0]
    assert key[1] is None or key[1] in written or written["tiers_mode"] == key[1]
    quantities = [0, 1, data.draw(st.integers(2, 1_000))]
    assert rate_many(price, quantities).tolist() == [
        settled_total(price, quantity) for quantity in quantities
    ]
    assert [tariff(price).settled(quantity) for quantity in quantities] == rate_many(
        price, quantities
    ).tolist()
    for quantity in quantities:
        laws.check_rating_laws(model, quantity)
    assert _model_in_words(model) != repr(model)


def test_an_unknown_scheme_is_refused_with_the_names_of_the_table():
    """The sentence lists what the table has, and a new row would be in it."""
    price = {"id": "p", "currency": "usd", "unit_amount": 1}
    for param, fields in (
        ("billing_scheme", {}),
        ("tiers_mode", {"billing_scheme": "tiered", "unit_amount": None}),
    ):
        with pytest.raises(mc.InvalidValueError) as refusal:
            mc.Price.from_dict({**price, **fields, param: "auction"})
        schemes, modes = (
            {scheme for scheme, _ in PRICING_MODELS},
            {mode for scheme, mode in PRICING_MODELS if scheme == "tiered"},
        )
        names = schemes if param == "billing_scheme" else modes
        assert set(re.findall(r"'(\w+)'", str(refusal.value))) - {"auction"} == names
    with pytest.raises(
        mc.InvalidValueError, match=", ".join(model.__name__ for model in BUILT_IN_MODELS)
    ):
        mc.Price("p", "usd", object())

"""Pricing models: from a quantity to exact charges, worked by hand at every bound."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pricing_models
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering_core import PricingModel, Tier
from metering_core.pricing import Graduated, Package, Percentage, PerUnit, Volume, amount_fields

SEATS = [
    Tier(5, unit_amount=700),
    Tier(10, unit_amount=650),
    Tier("inf", unit_amount=600),
]  # Stripe's example
FLATS = [Tier(5, 100, 1000), Tier(10, None, 500), Tier(None, "0.5", 0)]


def shown(charges):
    return [(charge.kind.value, charge.quantity, charge.amount, charge.tier) for charge in charges]


@pytest.mark.parametrize(
    ("model", "quantity", "expected"),
    [
        (PerUnit("0.4"), 3, [("unit", 3, Decimal("1.2"), None)]),
        (PerUnit("0.4"), 0, [("unit", 0, 0, None)]),
        (Graduated(SEATS), 0, [("unit", 0, 0, 1)]),
        (Graduated(SEATS), 5, [("unit", 5, 3500, 1)]),
        (Graduated(SEATS), 6, [("unit", 5, 3500, 1), ("unit", 1, 650, 2)]),
        (Graduated(SEATS), 20, [("unit", 5, 3500, 1), ("unit", 5, 3250, 2), ("unit", 10, 6000, 3)]),
        (Graduated(FLATS), 0, [("unit", 0, 0, 1), ("flat", 0, 1000, 1)]),
        (Graduated(FLATS), 6, [("unit", 5, 500, 1), ("flat", 0, 1000, 1), ("unit", 1, 0, 2), ("flat", 0, 500, 2)]),
        (Graduated(FLATS), 11, [("unit", 5, 500, 1), ("flat", 0, 1000, 1), ("unit", 5, 0, 2), ("flat", 0, 500, 2),
                                ("unit", 1, Decimal("0.5"), 3), ("flat", 0, 0, 3)]),
        (Volume(SEATS), 0, [("unit", 0, 0, 1)]),
        (Volume(SEATS), 5, [("unit", 5, 3500, 1)]),
        (Volume(SEATS), 6, [("unit", 6, 3900, 2)]),
        (Volume(FLATS), 0, [("unit", 0, 0, 1), ("flat", 0, 1000, 1)]),
        (Volume(FLATS), 11, [("unit", 11, Decimal("5.5"), 3), ("flat", 0, 0, 3)]),
        (Graduated([Tier("0.5", 10), Tier(None, 20)]), Decimal("0.75"),
         [("unit", Decimal("0.5"), 5, 1), ("unit", Decimal("0.25"), 5, 2)]),
        (Graduated([Tier("0.5", 10), Tier(None, 20)]), 1, [("unit", Decimal("0.5"), 5, 1), ("unit", Decimal("0.5"), 10, 2)]),
    ],
)  # fmt: skip
def test_charges_are_as_worked_by_hand(model, quantity, expected):
    """Every model charges each bound and its neighbours as a pencil does; zero usage is rated in
    the first tier.
    """
    assert shown(model.charges(quantity)) == expected


# One schedule stands behind all models: it is held to the formula of each ------------------------


def by_formula(model, quantity):
    """Return (kind, units, amount, tier) of each charge, each model by a formula of its own."""
    units = Fraction(quantity)
    match model:
        case PerUnit():
            return [("unit", units, units * Fraction(model.unit_amount), None)]
        case Percentage():
            return [("percent", units, units * Fraction(model.percent) / 100, None)]
        case Package():
            whole, part = divmod(units, model.divide_by)
            packages = whole + (part > 0 and model.round == "up")
            return [("package", units, packages * Fraction(model.unit_amount), None)]
        case Volume():
            tiers = enumerate(model.tiers, start=1)
            number, tier = next(
                one for one in tiers if one[1].up_to is None or units <= one[1].up_to
            )
            return tier_by_formula(number, tier, units)
        case Graduated():
            bounds = [Fraction(tier.up_to) for tier in model.tiers[:-1]]
            found = []
            for number, tier in enumerate(model.tiers, start=1):
                low = bounds[number - 2] if number > 1 else None
                if low is None or units > low:
                    high = min([units, *bounds[number - 1 : number]])
                    found += tier_by_formula(number, tier, high - (low or 0))
            return found


def tier_by_formula(number, tier, units):
    unit = ("unit", units, units * Fraction(tier.unit_amount or 0), number)
    flat = [] if tier.flat_amount is None else [("flat", 0, Fraction(tier.flat_amount), number)]
    return [unit, *flat]


@given(
    model=st.builds(PerUnit, pricing_models.amounts())
    | st.builds(Percentage, pricing_models.amounts())
    | pricing_models.tiered(whole=False)
    | pricing_models.packages(),
    quantity=st.integers(0, 40) | st.fractions(0, 40, max_denominator=6),
)
def test_a_schedule_charges_by_the_formula_of_its_model(model, quantity):
    """Bands, what reaches them and the size of a step say the same as one formula a model."""
    assert shown(model.charges(quantity)) == by_formula(model, quantity)


@pytest.mark.parametrize(
    ("way", "quantity", "packages"),
    [
        ("up", 0, 0), ("up", 1, 1), ("up", 5, 1), ("up", 6, 2), ("up", Decimal("10.1"), 3), ("up", 10**30 + 1, 2 * 10**29 + 1),
        ("down", 4, 0), ("down", 5, 1), ("down", 9, 1), ("down", Decimal("10.9"), 2),
    ],
)  # fmt: skip
def test_packages_are_counted_on_the_whole_quantity(way, quantity, packages):
    """A part of a package counts as one, or not at all when rounding down; the charge keeps the raw
    quantity.
    """
    (charge,) = Package(1000, 5, way).charges(quantity)
    assert (charge.quantity, charge.packages, charge.divide_by) == (quantity, packages, 5)
    assert charge.amount == 1000 * packages


@pytest.mark.parametrize(
    ("given", "read"),
    [("inf", None), (None, None), (5, 5), ("5", 5), ("2.50", Decimal("2.5")), (Decimal("3.0"), 3)],
)
def test_bounds_read_back_in_one_form(given, read):
    """A bound is an int where it is whole, a decimal elsewhere, and None in the open tier, however
    it was written.
    """
    assert Tier(given, 1).up_to == read
    assert type(Tier(given, 1).up_to) is type(read)


def test_anything_that_charges_is_a_model():
    """The protocol asks for one verb."""
    assert all(
        isinstance(model, PricingModel)
        for model in (PerUnit(1), Graduated(SEATS), Volume(SEATS), Package(1, 5))
    )
    assert not isinstance(object(), PricingModel)


@pytest.mark.parametrize(
    ("amount", "fields"),
    [
        (None, {"unit_amount": None, "unit_amount_decimal": None}),
        (Decimal(5), {"unit_amount": 5, "unit_amount_decimal": "5"}),
        (Decimal("0.4"), {"unit_amount": None, "unit_amount_decimal": "0.4"}),
    ],
)
def test_amounts_are_written_as_stripe_does(amount, fields):
    """Whole amounts are in both fields, others in the decimal one alone."""
    assert amount_fields("unit_amount", amount) == fields


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=4, unique=True), st.integers(0, 2000))
def test_graduated_and_volume_agree_at_one_price(bounds, quantity):
    """Where all tiers cost the same, cutting changes nothing: both models cost what one unit price
    does.
    """
    tiers = [Tier(bound, "1.25") for bound in [*sorted(bounds), None]]
    cost = PerUnit("1.25").charges(quantity)[0].amount
    for model in (Graduated(tiers), Volume(tiers)):
        charges = model.charges(quantity)
        assert sum(charge.amount for charge in charges) == cost
        assert sum(charge.quantity for charge in charges) == quantity

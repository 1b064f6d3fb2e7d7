"""Small prices for the tests of the price tools, and models of a user's own."""

from __future__ import annotations

from decimal import Decimal

import attrs
from hypothesis import strategies as st

from metering_core import Price, Tier, rate
from metering_core.money import Amount, settle
from metering_core.pricing import (
    Charge,
    ChargeKind,
    Graduated,
    Package,
    Percentage,
    PerUnit,
    Volume,
)

BOUND_MAX = 12
"""Greatest bound of the small tiers: what happens, happens before a few units more."""

AMOUNTS = [
    Decimal(text)
    for text in (
        "0",
        "0.1",
        "0.2",
        "0.4",
        "0.5",
        "1",
        "1.1",
        "2",
        "3",
        "10",
        "50",
        "99.9",
        "100",
        "100.1",
    )
]


def amounts():
    """Return a strategy of few amounts, so that equal ones, sums that cancel and multiples of 100
    are likely.
    """
    return st.sampled_from(AMOUNTS)


@st.composite
def tier_lists(draw, *, whole=True, tiers_max=4):
    """Draw the tiers of a small tariff; bounds may be halves unless ``whole``."""
    parts = 1 if whole else 2
    numerators = draw(
        st.lists(st.integers(1, BOUND_MAX * parts), max_size=tiers_max - 1, unique=True).map(sorted)
    )
    bounds = [Decimal(numerator) / parts for numerator in numerators]
    flats = st.none() | amounts()
    return [
        Tier(bound, unit_amount=draw(amounts()), flat_amount=draw(flats))
        for bound in [*bounds, "inf"]
    ]


def tiered(*, whole=True):
    """Return a strategy of graduated and volume models."""
    return st.builds(
        lambda kind, tiers: kind(tiers),
        st.sampled_from([Graduated, Volume]),
        tier_lists(whole=whole),
    )


def packages(divide_by_max=7):
    """Return a strategy of package models."""
    return st.builds(
        Package, amounts(), st.integers(1, divide_by_max), st.sampled_from(["up", "down"])
    )


@attrs.frozen
class Declared:
    """A model of the user's own that charges as another does and says where the formula changes."""

    model: Graduated | Volume

    def charges(self, quantity):
        """Charge what the other model charges."""
        return self.model.charges(quantity)

    def breakpoints(self):
        """Return the bounds, in an order of no meaning."""
        return reversed([tier.up_to for tier in self.model.tiers if tier.up_to is not None])


@attrs.frozen
class Segments:
    """A model of the user's own with lines that may fall: each segment is (last, ((amount at 0,
    amount a unit), …)).
    """

    segments: tuple

    def charges(self, quantity):
        """Charge every line of the segment that holds the quantity."""
        lines = next(lines for last, lines in self.segments if last is None or quantity <= last)
        return [
            Charge(ChargeKind.UNIT, quantity, None, start + rise * quantity)
            for start, rise in lines
        ]

    def breakpoints(self):
        """Return the last quantity of every segment but the last."""
        return [last for last, _ in self.segments if last is not None]


@st.composite
def segment_models(draw):
    """Draw a model of up to three segments with up to two lines each, which fall but never
    below 0.
    """
    lasts = draw(st.lists(st.integers(0, BOUND_MAX), max_size=2, unique=True).map(sorted))
    rises = st.sampled_from(
        [Decimal(text) for text in ("-2", "-0.5", "-0.1", "0", "0.1", "0.5", "3", "50")]
    )
    segments = []
    for last in [*lasts, None]:
        lines = []
        for _ in range(draw(st.integers(1, 2))):
            rise = draw(rises) if last is not None else abs(draw(rises))
            lines.append((draw(amounts()) - min(rise, 0) * (last or 0), rise))
        segments.append((last, tuple(lines)))
    return Segments(tuple(segments))


def models():
    """Return a strategy of every kind of small model."""
    declared = st.builds(Declared, tiered(whole=False))
    return st.one_of(
        st.builds(PerUnit, amounts()),
        st.builds(Percentage, amounts().map(lambda one: 100 * one)),  # So much a unit, as above.
        tiered(),
        tiered(whole=False),
        packages(),
        declared,
        segment_models(),
    )


def prices(of=None, currencies=("usd",)):
    """Return a strategy of small prices."""
    return st.builds(
        lambda model, code: Price("price", code, model),
        models() if of is None else of,
        st.sampled_from(currencies),
    )


def total(price, quantity):
    """Return the exact total, by the engine's own rating."""
    return rate(price, quantity).amount.minor_units


def bill(price, quantity):
    """Return the settled total, by the engine's own settling."""
    return sum(
        settle(Amount(charge.amount, price.currency)).minor_units
        for charge in rate(price, quantity).charges
    )

"""Rating: every model held to its word, whoever wrote it."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from builders import priced

from metering_core import InvoicingError, Tier, rate
from metering_core.money import Amount
from metering_core.pricing import Charge, ChargeKind, Graduated, Package, PerUnit, Volume

TIERS = Graduated([Tier(10, "0.4", 100), Tier(None, "0.3")])


class Steps:
    """A model of a user's own: 10 minor units per started hundred, as exact ints, in its own
    words.
    """

    def charges(self, quantity):
        steps = -(-quantity // 100)
        return [Charge(ChargeKind.PACKAGE, quantity, None, 10 * steps, label=f"{steps} steps")]


@pytest.mark.parametrize(
    ("quantity", "exact"),
    [
        (0, "100"),
        (1, "100.4"),
        (10, "104"),
        (11, "104.3"),
        (Decimal("10.5"), "104.15"),
        (10**20, "30000000000000000101"),
    ],
)
def test_the_exact_amount_is_the_sum_of_the_charges(quantity, exact):
    """10 x 0.4 + 100 = 104, then 0.3 a unit, on a quantity of any size and exact to the last
    digit.
    """
    rated = rate(priced(TIERS), quantity)
    assert rated.amount == Amount(Decimal(exact), "usd")
    assert rated.quantity == quantity
    assert sum(charge.quantity for charge in rated.charges) == quantity


@pytest.mark.parametrize(
    ("model", "quantity", "exact"),
    [
        (PerUnit(10), Fraction(1, 3), Fraction(10, 3)),
        (PerUnit(9), Fraction(1, 3), 3),
        (PerUnit("0.5"), Fraction(1, 4), Decimal("0.125")),
        # 10 x 0.4 + 100 is 104, and 1/3 unit more at 0.3 is 0.1.
        (TIERS, 10 + Fraction(1, 3), Decimal("104.1")),
        (TIERS, Fraction(29, 3), Fraction(58, 15) + 100),
        (Volume([Tier(10, 3), Tier(None, 2, 1)]), 10 + Fraction(1, 7), Fraction(142, 7) + 1),
        (Volume([Tier("0.333", 3), Tier(None, 2)]), Fraction(1, 3), Fraction(2, 3)),
        (Package(1000, 5), 5 + Fraction(1, 3), 2000),
        (Package(1000, 5, "down"), 5 - Fraction(1, 3), 0),
        (PerUnit("0.000000000001"), Decimal("1E-30"), Decimal("1E-42")),
    ],
)
def test_shares_of_a_unit_are_charged_exactly(model, quantity, exact):
    """Worked by hand for every model: a third of a unit is charged as a third, and what adds up to
    a decimal is one again.
    """
    rated = rate(priced(model), quantity)
    assert rated.amount == Amount(exact, "usd")
    assert sum(Fraction(charge.quantity) for charge in rated.charges) == rated.quantity == quantity
    assert all(
        repr(charge.amount) == repr(Amount(charge.amount, "usd").minor_units)
        for charge in rated.charges
    )


def test_equal_quantities_are_rated_alike():
    """2.5 is a decimal and 2 an int however they were given, so their charges are the same in every
    digit.
    """
    assert repr(rate(priced(TIERS), Fraction(5, 2))) == repr(rate(priced(TIERS), Decimal("2.50")))
    assert repr(rate(priced(TIERS), Fraction(6, 3))) == repr(rate(priced(TIERS), 2))


def test_a_users_own_model_may_charge_fractions():
    """A third of the amount is exact, so it is a charge; the sum of the charges adds up exactly."""

    class Thirds:
        def charges(self, quantity):
            return [
                Charge(ChargeKind.UNIT, quantity, None, Fraction(quantity, 3)),
                Charge(ChargeKind.FLAT, 0, None, Fraction(1, 3)),
            ]

    assert rate(priced(Thirds()), 1).amount == Amount(Fraction(2, 3), "usd")
    assert repr(rate(priced(Thirds()), 2).amount.minor_units) == "Decimal('1')"


def test_a_users_own_model_is_rated():
    """An object with the verb `charges` is rated like the built-in ones, ints being exact too."""
    assert rate(priced(Steps()), 250).amount == Amount(30, "usd")
    assert rate(priced(Steps()), Decimal("2.0")).quantity == 2


def test_a_model_may_charge_nothing():
    """No charges come to nothing."""

    class Free:
        def charges(self, quantity):
            return ()

    assert rate(priced(Free()), 5).amount == Amount(0, "usd")


@pytest.mark.parametrize(
    ("charges", "sentence"),
    [
        (5, "charges: expected of Loose a sequence of Charge, received 5 (int)"),
        (["free"], "charges[0]: expected of Loose a Charge, received 'free' (str)"),
        (
            [Charge("flat", 0, None, 1), Charge("flat", 0, None, 0.5)],
            (
                "charges[1][amount]: expected of Loose an int, a finite Decimal or a "
                "Fraction, of at most 560 digits, "
                "received 0.5 (float)"
            ),
        ),
        (
            [Charge("flat", 0, None, Decimal("NaN"))],
            (
                "charges[0][amount]: expected of Loose an int, a finite Decimal or a "
                "Fraction, of at most 560 digits, "
                "received Decimal('NaN') (Decimal)"
            ),
        ),
    ],
)
def test_the_refusal_names_the_model_and_the_place(charges, sentence):
    """Whoever wrote the model reads which of its charges is wrong, what was expected there and what
    came.
    """

    class Loose:
        def charges(self, quantity):
            return charges

    with pytest.raises(InvoicingError) as caught:
        rate(priced(Loose()), 5)
    assert caught.value.message == sentence

"""Rating: every model held to its word, whoever wrote it."""

from __future__ import annotations

from decimal import Decimal

import pytest
from builders import priced

from metering_core import Amount, Charge, ChargeKind, Graduated, InvoicingError, Tier, rate

TIERS = Graduated([Tier(10, "0.4", 100), Tier(None, "0.3")])


class Steps:
    """A model of a user's own: 10 minor units per started hundred, as exact ints, in its own words."""

    def charges(self, quantity):
        steps = -(-quantity // 100)
        return [Charge(ChargeKind.PACKAGE, quantity, None, 10 * steps, label=f"{steps} steps")]


@pytest.mark.parametrize(
    ("quantity", "exact"),
    [(0, "100"), (1, "100.4"), (10, "104"), (11, "104.3"), (Decimal("10.5"), "104.15"), (10**20, "30000000000000000101")],
)
def test_the_exact_amount_is_the_sum_of_the_charges(quantity, exact):
    """10 x 0.4 + 100 = 104, then 0.3 a unit, on a quantity of any size and exact to the last digit."""
    rated = rate(priced(TIERS), quantity)
    assert rated.amount == Amount(Decimal(exact), "usd")
    assert rated.quantity == quantity
    assert sum(charge.quantity for charge in rated.charges) == quantity


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
            "charges[1][amount]: expected of Loose a finite Decimal or an int, received 0.5 (float)",
        ),
    ],
)
def test_the_refusal_names_the_model_and_the_place(charges, sentence):
    """Whoever wrote the model reads which of its charges is wrong, what was expected there and what came."""

    class Loose:
        def charges(self, quantity):
            return charges

    with pytest.raises(InvoicingError) as caught:
        rate(priced(Loose()), 5)
    assert caught.value.message == sentence

"""Rating millions of quantities at once equals rating and settling them one by one, to the last minor unit."""

from __future__ import annotations

from decimal import Decimal

import pytest

np = pytest.importorskip("numpy", reason="needs the extra columnar")

from hypothesis import example, given  # noqa: E402 - after the skip
from hypothesis import strategies as st  # noqa: E402

import metering_core as mc  # noqa: E402
from metering_core.columnar_rating import rate_many, settled_total  # noqa: E402
from metering_core.testing.strategies import prices, quantities  # noqa: E402

MAX = 2**63 - 1


def priced_quantities():
    """Draw a price with up to 12 decimals, bounds that may be decimals, and quantities at its edges."""
    drawn = prices(decimals=12, max_tiers=6)
    return drawn.flatmap(lambda price: st.tuples(st.just(price), st.lists(quantities(price), min_size=1, max_size=8)))


@given(priced_quantities())
@example((mc.Price.per_unit("p", currency="usd", unit_amount="0.000000000001"), [MAX]))
@example((mc.Price.per_unit("p", currency="usd", unit_amount=1), [MAX]))
@example((mc.Price.per_unit("p", currency="usd", unit_amount=2), [MAX, 1]))
@example(
    (
        mc.Price.volume("p", currency="usd", tiers=[mc.Tier("2.5", unit_amount="0.5"), mc.Tier("inf", unit_amount=10**30)]),
        [2, 3, 0],
    )
)
@example((mc.Price.package("p", currency="usd", unit_amount=1, divide_by=10**30), [0, 1, MAX]))
@example((mc.Price.package("p", currency="usd", unit_amount=1, divide_by=2), [MAX, MAX - 1]))
def test_rating_many_is_rating_one_by_one(case):
    """Each total is the sum of the quantity's settled lines, whatever the model and however large."""
    price, wanted = case
    within = [min(quantity, MAX) for quantity in wanted]
    rated = rate_many(price, np.array(within, np.int64))
    assert rated.tolist() == [settled_total(price, quantity) for quantity in within]


@pytest.mark.parametrize(
    ("price", "quantity", "expected"),
    [
        (mc.Price.per_unit("p", currency="usd", unit_amount="0.5"), 1, 1),  # Half a cent is rounded up.
        (mc.Price.per_unit("p", currency="usd", unit_amount="0.5"), 2, 1),
        # 5 × 700 + 1 × 650, and each line by itself: 0.5 → 1 and 0.5 → 1, where the sum would be 1.
        (
            mc.Price.graduated("p", currency="usd", tiers=[mc.Tier(5, unit_amount=700), mc.Tier("inf", unit_amount=650)]),
            6,
            4150,
        ),
        (
            mc.Price.graduated("p", currency="usd", tiers=[mc.Tier(1, unit_amount="0.5"), mc.Tier("inf", unit_amount="0.5")]),
            2,
            2,
        ),
        (mc.Price.volume("p", currency="usd", tiers=[mc.Tier(5, unit_amount=700), mc.Tier("inf", unit_amount=650)]), 6, 3900),
        (mc.Price.graduated("p", currency="usd", tiers=[mc.Tier(5, flat_amount=9), mc.Tier("inf", flat_amount=1)]), 0, 9),
        (mc.Price.package("p", currency="usd", unit_amount=1000, divide_by=5), 6, 2000),
    ],
)
def test_totals_worked_by_hand(price, quantity, expected):
    """Totals are those of the arithmetic on paper."""
    assert rate_many(price, np.array([quantity])).tolist() == [expected]


def test_results_beyond_64_bits_are_python_integers():
    """Where a result may not fit 64 bits the array holds Python integers, and nothing wraps."""
    rated = rate_many(mc.Price.per_unit("p", currency="usd", unit_amount=3), np.array([MAX, 1]))
    assert rated.dtype == object
    assert rated.tolist() == [3 * MAX, 3]
    assert rate_many(mc.Price.per_unit("p", currency="usd", unit_amount=3), np.array([5])).dtype == np.int64


class Capped:
    """A model of the user's own: a cent and a half a unit, at most ten cents; huge for one unit."""

    def charges(self, quantity):
        amount = Decimal(2**70) if quantity == 1 else min(Decimal("1.5") * quantity, Decimal(10))
        return [mc.Charge("unit", quantity, None, amount)]


def test_models_of_ones_own_are_asked_one_by_one():
    """A pricing model of the user's own is rated as `rate` does it, also beyond 64 bits."""
    price = mc.Price("p", "usd", Capped())
    assert rate_many(price, np.array([0, 3, 9])).tolist() == [0, 5, 10]
    assert rate_many(price, np.array([0, 1])).tolist() == [0, 2**70]


def test_a_subclass_may_charge_otherwise():
    """A subclass of a built-in model is asked, not taken for its parent."""

    class Free(mc.PerUnit):
        def charges(self, quantity):
            return mc.PerUnit(0).charges(quantity)

    assert rate_many(mc.Price("p", "usd", Free(7)), np.arange(3)).tolist() == [0, 0, 0]


def test_decimals_and_other_roundings():
    """Quantities with decimals, and other roundings than half up, are settled line by line."""
    price = mc.Price.per_unit("p", currency="usd", unit_amount="0.5")
    assert rate_many(price, [Decimal("2.5"), 3]).tolist() == [1, 2]
    assert rate_many(price, np.array([1, 3]), rounding=mc.half_down).tolist() == [0, 1]
    assert rate_many(price, np.array([], np.int64)).tolist() == []


@pytest.mark.parametrize("bad", [np.array([1, -1]), [1, -1], np.array([1.0, 0.5])])
def test_malformed_quantities_are_refused(bad):
    """A negative quantity or a float is refused, and its row is named."""
    price = mc.Price.per_unit("p", currency="usd", unit_amount=1)
    with pytest.raises(mc.InvalidValueError, match=r"quantities\[[01]\]"):
        rate_many(price, bad)

"""Rating millions of quantities at once equals rating and settling them one by one, to the last
minor unit.
"""

from __future__ import annotations

from decimal import Decimal

import pytest

np = pytest.importorskip("numpy", reason="needs the extra columnar")

from hypothesis import example, given  # noqa: E402 - after the skip
from hypothesis import strategies as st  # noqa: E402

import metering_core as mc  # noqa: E402
from metering_core.bulk.rating import rate_lines, rate_many  # noqa: E402
from metering_core.rating import settled_total  # noqa: E402
from metering_core.testing.strategies import prices, quantities  # noqa: E402

MAX = 2**63 - 1


def priced_quantities():
    """Draw a price with up to 12 decimals, bounds that may be decimals, and quantities at its
    edges.
    """
    drawn = prices(decimals=12, max_tiers=6)
    return drawn.flatmap(
        lambda price: st.tuples(st.just(price), st.lists(quantities(price), min_size=1, max_size=8))
    )


@given(priced_quantities())
@example((mc.Price.per_unit("p", currency="usd", unit_amount="0.000000000001"), [MAX]))
@example((mc.Price.per_unit("p", currency="usd", unit_amount=1), [MAX]))
@example((mc.Price.per_unit("p", currency="usd", unit_amount=2), [MAX, 1]))
@example(
    (
        mc.Price.volume(
            "p",
            currency="usd",
            tiers=[mc.Tier("2.5", unit_amount="0.5"), mc.Tier("inf", unit_amount=10**30)],
        ),
        [2, 3, 0],
    )
)
@example((mc.Price.package("p", currency="usd", unit_amount=1, divide_by=10**30), [0, 1, MAX]))
@example((mc.Price.package("p", currency="usd", unit_amount=1, divide_by=2), [MAX, MAX - 1]))
def test_rating_many_is_rating_one_by_one(case):
    """Each total is the sum of the quantity's settled lines, whatever the model and however
    large.
    """
    price, wanted = case
    within = [min(quantity, MAX) for quantity in wanted]
    rated = rate_many(price, np.array(within, np.int64))
    assert rated.tolist() == [settled_total(price, quantity) for quantity in within]


def lines_one_by_one(price, quantities):
    """Return row, tier, kind, quantity and settled amount of each charge."""
    return [
        (
            row,
            charge.tier or 0,
            charge.kind == "flat",
            charge.quantity,
            mc.money.settle(mc.money.Amount(charge.amount, "usd")).minor_units,
        )
        for row, quantity in enumerate(quantities)
        for charge in mc.rate(price, quantity).charges
    ]


def columns_of(lines):
    """Return lines as rows of plain values."""
    columns = (lines.rows, lines.tiers, lines.are_flat, lines.quantities, lines.amounts)
    return list(zip(*(column.tolist() for column in columns), strict=True))


GRADUATED = mc.Price.graduated(
    "p",
    currency="usd",
    tiers=[mc.Tier(5, unit_amount=700), mc.Tier(9, "0.5", 40), mc.Tier("inf", unit_amount=650)],
)
VOLUME = mc.Price.volume("p", currency="usd", tiers=GRADUATED.model.tiers)
BEYOND = mc.Price.graduated(
    "p", currency="usd", tiers=[mc.Tier(2**70, unit_amount="1.5", flat_amount=3), mc.Tier("inf", 1)]
)


@given(priced_quantities())
@example((GRADUATED, [0, 5, 6, 9, 10, MAX]))
@example((VOLUME, [0, 5, 6, 9, 10, MAX]))
@example((BEYOND, [0, 1, 7]))
@example((mc.Price.volume("p", currency="usd", tiers=BEYOND.model.tiers), [0, 1, 7]))
@example((BEYOND, [MAX, 1]))
@example((mc.Price.package("p", currency="usd", unit_amount=3, divide_by=2), [0, 1, 2, MAX]))
def test_lines_of_many_are_the_charges_of_each(case):
    """Each quantity has the lines of its charges in their order, each settled, and their sum is the
    total.
    """
    price, wanted = case
    within = [min(quantity, MAX) for quantity in wanted]
    lines = rate_lines(price, np.array(within, np.int64))
    assert columns_of(lines) == lines_one_by_one(price, within)
    assert len(lines) == len(columns_of(lines))


def test_lines_worked_by_hand():
    """Ten units reach three tiers, of which the second has a flat amount; by volume only the last
    is charged.
    """
    ten = np.array([10, 0])
    assert columns_of(rate_lines(GRADUATED, ten)) == [
        (0, 1, False, 5, 3500),
        (0, 2, False, 4, 2),  # 4 × 0.5
        (0, 2, True, 0, 40),
        (0, 3, False, 1, 650),
        (1, 1, False, 0, 0),
    ]
    assert columns_of(rate_lines(VOLUME, ten)) == [(0, 3, False, 10, 6500), (1, 1, False, 0, 0)]


def test_lines_of_decimals_and_of_other_roundings():
    """Lines of quantities or bounds with decimals, and other roundings than half up, are those of
    their charges, too.
    """
    halves = mc.Price.graduated(
        "p", currency="usd", tiers=[mc.Tier("2.5", unit_amount=1), mc.Tier("inf", unit_amount=3)]
    )
    assert columns_of(rate_lines(halves, np.array([3]))) == [
        (0, 1, False, Decimal("2.5"), 3),
        (0, 2, False, Decimal("0.5"), 2),
    ]
    price = mc.Price.per_unit("p", currency="usd", unit_amount="0.5")
    assert rate_lines(price, [Decimal("2.5"), 3]).amounts.tolist() == [1, 2]
    assert rate_lines(price, np.array([1, 3]), rounding=mc.money.half_down).amounts.tolist() == [
        0,
        1,
    ]
    assert columns_of(rate_lines(price, np.array([], np.int64))) == []


@pytest.mark.parametrize(
    ("price", "quantity", "expected"),
    [
        (
            mc.Price.per_unit("p", currency="usd", unit_amount="0.5"),
            1,
            1,
        ),  # Half a cent is rounded up.
        (mc.Price.per_unit("p", currency="usd", unit_amount="0.5"), 2, 1),
        # 5 × 700 + 1 × 650, and each line by itself: 0.5 → 1 and 0.5 → 1, where the sum would be 1.
        (
            mc.Price.graduated(
                "p",
                currency="usd",
                tiers=[mc.Tier(5, unit_amount=700), mc.Tier("inf", unit_amount=650)],
            ),
            6,
            4150,
        ),
        (
            mc.Price.graduated(
                "p",
                currency="usd",
                tiers=[mc.Tier(1, unit_amount="0.5"), mc.Tier("inf", unit_amount="0.5")],
            ),
            2,
            2,
        ),
        (
            mc.Price.volume(
                "p",
                currency="usd",
                tiers=[mc.Tier(5, unit_amount=700), mc.Tier("inf", unit_amount=650)],
            ),
            6,
            3900,
        ),
        (
            mc.Price.graduated(
                "p",
                currency="usd",
                tiers=[mc.Tier(5, flat_amount=9), mc.Tier("inf", flat_amount=1)],
            ),
            0,
            9,
        ),
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
    assert (
        rate_many(mc.Price.per_unit("p", currency="usd", unit_amount=3), np.array([5])).dtype
        == np.int64
    )


class Capped:
    """A model of the user's own: a cent and a half a unit, at most ten cents; huge for one unit."""

    def charges(self, quantity):
        amount = Decimal(2**70) if quantity == 1 else min(Decimal("1.5") * quantity, Decimal(10))
        return [mc.pricing.Charge("unit", quantity, None, amount)]


def test_models_of_ones_own_are_asked_one_by_one():
    """A pricing model of the user's own is rated as `rate` does it, also beyond 64 bits."""
    price = mc.Price("p", "usd", Capped())
    assert rate_many(price, np.array([0, 3, 9])).tolist() == [0, 5, 10]
    assert rate_many(price, np.array([0, 1])).tolist() == [0, 2**70]


def test_a_subclass_may_charge_otherwise():
    """A subclass of a built-in model is asked, not taken for its parent."""

    class Free(mc.pricing.PerUnit):
        def charges(self, quantity):
            return mc.pricing.PerUnit(0).charges(quantity)

    assert rate_many(mc.Price("p", "usd", Free(7)), np.arange(3)).tolist() == [0, 0, 0]


def test_decimals_and_other_roundings():
    """Quantities with decimals, and other roundings than half up, are settled line by line."""
    price = mc.Price.per_unit("p", currency="usd", unit_amount="0.5")
    assert rate_many(price, [Decimal("2.5"), 3]).tolist() == [1, 2]
    assert rate_many(price, np.array([1, 3]), rounding=mc.money.half_down).tolist() == [0, 1]
    assert rate_many(price, np.array([], np.int64)).tolist() == []


@pytest.mark.parametrize(
    "price", [mc.Price.per_unit("p", currency="usd", unit_amount=10**30), GRADUATED, VOLUME, BEYOND]
)
def test_no_quantities_have_no_lines(price):
    """Nothing is rated to nothing, also where the amounts of a price exceed 64 bits."""
    assert columns_of(rate_lines(price, np.array([], np.int64))) == []
    assert rate_many(price, np.array([], np.int64)).tolist() == []


def test_a_mask_that_hides_nothing():
    """A masked array is rated as its values are."""
    assert rate_many(GRADUATED, np.ma.array([6, 2])).tolist() == [
        3541,
        1400,
    ]  # 5 × 700, 1 × 0.5 and 40; 2 × 700


@pytest.mark.parametrize(
    "bad",
    [np.array([1, -1]), [1, -1], np.array([1.0, 0.5]), np.ma.array([1, 5], mask=[False, True])],
)
def test_malformed_quantities_are_refused(bad):
    """A negative quantity, a float, or one that a mask hides is refused, and its row is named."""
    price = mc.Price.per_unit("p", currency="usd", unit_amount=1)
    for rating in (rate_many, rate_lines):
        with pytest.raises(mc.InvalidValueError, match=r"quantities\[[01]\]"):
            rating(price, bad)

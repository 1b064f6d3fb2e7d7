"""The lines of many invoices as columns are the lines that the invoices would have."""

from __future__ import annotations

from decimal import Decimal

import pytest

pytest.importorskip("numpy", reason="needs the extra columnar")

from builders import DAY, JAN, START, priced
from hypothesis import given
from hypothesis import strategies as st

import metering_core as mc
from metering_core.bulk.lines import invoice_lines
from metering_core.columnar import ColumnarUsage
from metering_core.testing.strategies import prices

MODES = tuple(mc.AggregateUsage)


def rows_of(lines):
    """Return item, period, tier, kind, quantity and amount of each line."""
    rated = lines.lines
    billed = [
        (item.id, period) for item, period in (lines.items[row] for row in rated.rows.tolist())
    ]
    columns = (rated.tiers, rated.are_flat, rated.quantities, rated.amounts)
    return list(zip(billed, *(column.tolist() for column in columns), strict=True))


def lines_of(invoices):
    """Return the same of invoices."""
    return [
        (
            (line.subscription_item, line.period),
            line.charge.tier or 0,
            line.charge.kind == "flat",
            line.quantity,
            line.amount,
        )
        for invoice in invoices
        for line in invoice.lines
    ]


def metered(price, mode):
    """Return the price as one of a currency and a mode."""
    return mc.Price(price.id, "usd", price.model, mc.Recurring(aggregate_usage=mode))


@st.composite
def runs(draw):
    """Draw subscriptions with metered and licensed items at a few prices, and usage of some of
    them.
    """
    drawn = draw(
        st.lists(
            st.builds(metered, prices(max_tiers=4), st.sampled_from(MODES)), min_size=1, max_size=3
        )
    )
    seat = priced(mc.pricing.PerUnit("0.5"), None)
    picked = draw(
        st.lists(
            st.lists(st.sampled_from([*drawn, seat]), min_size=1, max_size=3),
            min_size=1,
            max_size=4,
        )
    )
    made = [
        mc.Subscription(
            f"sub_{number}",
            [
                mc.SubscriptionItem(
                    f"si_{number}_{place}",
                    price,
                    None if price.is_metered else draw(st.integers(0, 9)),
                )
                for place, price in enumerate(mine)
            ],
            START,
        )
        for number, mine in enumerate(picked)
    ]
    items = [item.id for one in made for item in one.items if item.is_metered]
    used = (
        st.lists(st.tuples(st.sampled_from(items), st.integers(0, 2**63 - 1)), max_size=6)
        if items
        else st.just([])
    )
    return made, [
        mc.UsageRecord(item, quantity, timestamp=START + DAY) for item, quantity in draw(used)
    ]


@given(runs())
def test_lines_are_those_of_the_invoices(run):
    """Item by item and tier by tier, whatever prices are mixed and however large the quantities."""
    made, records = run
    for usage in (mc.UsageLog(made), ColumnarUsage(made)):
        usage.append(records, now=START + DAY)
        lines = invoice_lines(made, usage, START)
        expected = lines_of(mc.invoice_all(made, usage, START))
        assert rows_of(lines) == expected
        assert len(lines) == len(expected)


def test_lines_worked_by_hand():
    """Six units cut at the fourth, seven seats at half a cent, no units at all; and who has ended
    is not billed.
    """
    graduated = priced(
        mc.pricing.Graduated(
            [mc.Tier(4, unit_amount=3, flat_amount=10), mc.Tier("inf", unit_amount=2)]
        )
    )
    seat = priced(mc.pricing.PerUnit("0.5"), None, id="seat")
    made = [
        mc.Subscription(
            "a",
            [mc.SubscriptionItem("si_a", graduated), mc.SubscriptionItem("seat_a", seat, 7)],
            START,
        ),
        mc.Subscription(
            "gone", [mc.SubscriptionItem("si_gone", graduated)], START, ended_at=START + 1
        ),
        mc.Subscription("b", [mc.SubscriptionItem("si_b", graduated)], START),
    ]
    usage = mc.UsageLog(made)
    usage.append([mc.UsageRecord("si_a", 6, timestamp=START + DAY)], now=START + DAY)
    lines = invoice_lines(made, usage, START + DAY)
    assert lines.total_usage.tolist() == [6, 7, 0]
    assert rows_of(lines) == [
        (("si_a", JAN), 1, False, 4, 12),
        (("si_a", JAN), 1, True, 0, 10),
        (("si_a", JAN), 2, False, 2, 4),
        (("seat_a", JAN), 0, False, 7, 4),  # 3.5 is rounded up.
        (("si_b", JAN), 1, False, 0, 0),
        (("si_b", JAN), 1, True, 0, 10),
    ]


def test_nobody_and_another_rounding():
    """Nobody has no lines, and a rounding of one's own is applied to each."""
    assert rows_of(invoice_lines([], mc.UsageLog(), START)) == []
    made = [
        mc.Subscription(
            "a", [mc.SubscriptionItem("seat", priced(mc.pricing.PerUnit("0.5"), None), 7)], START
        )
    ]
    lines = invoice_lines(made, mc.UsageLog(made), START, rounding=mc.money.half_down)
    assert lines.lines.amounts.tolist() == [Decimal(3)]


@pytest.mark.parametrize(
    ("values", "total", "billed"),
    [
        (["-5"], -5, (0, 0)),
        (["5", "-7"], -2, (0, 0)),
        (["5", "-7.5"], Decimal("-2.5"), (0, 0)),
        (["7.5", "-5"], Decimal("2.5"), (Decimal("2.5"), 3)),  # 2.5 cents are rounded up.
    ],
)
def test_negative_totals_of_meters_are_billed_as_0(values, total, billed):
    """Where corrections exceed the usage the total says so, and nothing is due, as on the
    invoice.
    """
    price = mc.Price("calls", "usd", mc.pricing.PerUnit(1), mc.Recurring(meter="mtr"))
    made = [mc.Subscription("a", [mc.SubscriptionItem("si_a", price)], START, customer="cus_a")]
    usage = mc.MeterLog([mc.Meter("mtr", "calls")], made)
    payloads = [{"stripe_customer_id": "cus_a", "value": value} for value in values]
    usage.append(
        [mc.MeterEvent("calls", payload, timestamp=START) for payload in payloads], now=START + DAY
    )
    lines = invoice_lines(made, usage, START)
    assert lines.total_usage.tolist() == [total]
    assert (
        rows_of(lines)
        == [(("si_a", JAN), 0, False, *billed)]
        == lines_of(mc.invoice_all(made, usage, START))
    )

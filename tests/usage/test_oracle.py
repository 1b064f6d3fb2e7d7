"""Invoices against the oracle: a biller of its own that counts units one at a time."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import oracle
import pytest
from builders import FEB, JAN, MODES, START, priced
from hypothesis import given
from hypothesis import strategies as st

from metering_core import (
    Subscription,
    SubscriptionItem,
    Tier,
    UsageLog,
    UsageRecord,
    finalize_invoice,
    preview_invoice,
    rate,
)
from metering_core.money import Amount, settle
from metering_core.pricing import Graduated, Package, PerUnit, Volume

AMOUNTS = st.sampled_from(["0", "0.5", "1", "0.125", "2.5", "700", "0.499999999999", "33.333"])
QUANTITIES = st.integers(0, 12)
# Every timestamp is near a boundary: of the period, or of the second before the record arrives.
MOMENTS = {
    JAN: st.sampled_from([START, START + 1, START + 5, JAN.end_seconds - 1]),
    FEB: st.sampled_from(
        [JAN.end_seconds, JAN.end_seconds + 1, JAN.end_seconds + 5, FEB.end_seconds - 1]
    ),
}


@st.composite
def tiers(draw):
    bounds = sorted(draw(st.sets(st.integers(1, 12), max_size=3)))
    amounts = st.tuples(AMOUNTS, st.none() | AMOUNTS) | st.tuples(st.none(), AMOUNTS)
    return [(bound, *draw(amounts)) for bound in [*bounds, None]]


@st.composite
def items(draw):
    item = {"mode": draw(st.sampled_from([*MODES, None])), "quantity": draw(QUANTITIES)}
    item["scheme"] = draw(st.sampled_from(["per_unit", "package", "graduated", "volume"]))
    if item["scheme"] in {"graduated", "volume"}:
        return {**item, "tiers": draw(tiers())}
    return {
        **item,
        "unit": draw(AMOUNTS),
        "size": draw(st.integers(1, 5)),
        "round": draw(st.sampled_from(["up", "down"])),
    }


def model(item):
    match item["scheme"]:
        case "per_unit":
            return PerUnit(Decimal(item["unit"]))
        case "package":
            return Package(item["unit"], item["size"], item["round"])
        case scheme:
            kind = Graduated if scheme == "graduated" else Volume
            return kind([Tier(last, unit, flat) for last, unit, flat in item["tiers"]])


@st.composite
def scenes(draw):
    """Draw items, and records of them in January and in February, in the order of arrival."""
    drawn = [
        {"id": f"si_{number}", **item}
        for number, item in enumerate(draw(st.lists(items(), min_size=1, max_size=3)))
    ]
    metered = [item["id"] for item in drawn if item["mode"]]
    actions = st.sampled_from(["increment", "set"])
    records = {
        period: draw(
            st.lists(st.tuples(st.sampled_from(metered), moments, actions, QUANTITIES), max_size=8)
        )
        if metered
        else []
        for period, moments in MOMENTS.items()
    }
    return drawn, records


def subscription_of(items):
    return Subscription(
        "sub",
        [
            SubscriptionItem(
                item["id"],
                priced(model(item), item["mode"], id=item["id"]),
                None if item["mode"] else item["quantity"],
            )
            for item in items
        ],
        START,
    )


@given(scenes(), st.booleans())
def test_invoices_agree_with_the_oracle(scene, in_columns):
    """Previews and finalized invoices of two periods have the oracle's amount on every line,
    whichever door usage came by.
    """
    items, records = scene
    subscription = subscription_of(items)
    log = UsageLog([subscription])
    sent = []
    for period in (JAN, FEB):
        now, rows = period.end_seconds - 1, records[period]
        if in_columns:
            item_ids, timestamps, actions, quantities = (
                zip(*rows, strict=True) if rows else [()] * 4
            )
            receipts = log.append_columns(item_ids, quantities, timestamps, actions, now=now)
        else:
            rows_as_records = [
                UsageRecord(item, quantity, timestamp, action)
                for item, timestamp, action, quantity in rows
            ]
            receipts = log.append(rows_as_records, now=now)
        assert receipts.accepted == len(rows)
        sent += rows
        expected = oracle.bill(items, sent, period.start_seconds, period.end_seconds)
        preview = preview_invoice(subscription, log, now=now)
        assert [line.amount for line in preview.lines] == expected
        assert preview.total == sum(expected)
    for period, known in ((FEB, sent), (JAN, sent)):
        final = finalize_invoice(subscription, log, period, now=FEB.end)
        assert [line.amount for line in final.lines] == oracle.bill(
            items, known, period.start_seconds, period.end_seconds
        )


@given(items(), st.fractions(0, 13, max_denominator=60))
def test_shares_of_units_agree_with_the_oracle(item, quantity):
    """A fraction of a unit is charged and settled as the oracle does it, which cuts units into
    parts and counts the parts.
    """
    charged = [charge.amount for charge in rate(priced(model(item)), quantity).charges]
    expected = oracle.lines(oracle.parted(item, quantity.denominator), quantity.numerator)
    assert [Fraction(amount) for amount in charged] == expected
    assert [settle(Amount(amount, "usd")).minor_units for amount in charged] == [
        oracle.whole(amount) for amount in expected
    ]


@pytest.mark.parametrize(
    ("tiers", "units", "amounts"),
    [
        ([(5, 700, None), (10, 650, None), (None, 600, None)], 20, [3500, 3250, 6000]),
        ([(5, 700, None), (None, 650, None)], 0, [0]),
        ([(1000, 0, 900), (None, "3.6", 0)], 1031, [0, 900, 112, 0]),
    ],
)
def test_the_oracle_knows_worked_examples(tiers, units, amounts):
    """The oracle itself gives what a pencil gives: 5 x 700, 5 x 650, 10 x 600; 31 x 3.6 = 111.6,
    paid as 112.
    """
    assert [
        oracle.whole(amount)
        for amount in oracle.lines({"scheme": "graduated", "tiers": tiers}, units)
    ] == amounts

"""Migration: usage records replayed as meter events bill the same, or say why they cannot."""

from __future__ import annotations

from datetime import timedelta

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

import metering_core as mc
from metering_core.migration import migrate_to_meters

START = 1_704_067_200  # 2024-01-01T00:00:00Z
MONTHS = (START, 1_706_745_600, 1_709_251_200)  # January, February (29 days), then March 1.
NOW = MONTHS[2] - 1
MODES = [mode.value for mode in mc.AggregateUsage]


def item(mode, item_id=None, price_id=None):
    """Return an item whose tiers show a quantity that is off by one."""
    tiers = [mc.Tier(10, unit_amount=3, flat_amount=50), mc.Tier("inf", unit_amount="1.5")]
    recurring = mc.Recurring(aggregate_usage=mode)
    price = mc.Price.graduated(price_id or f"p_{mode}", currency="usd", tiers=tiers, recurring=recurring)
    return mc.SubscriptionItem(item_id or f"si_{mode}", price)


def filled(subscription, rows):
    """Return a log of (item, quantity, timestamp, action) rows, each received when it happened."""
    log = mc.UsageLog([subscription])
    for item_id, quantity, timestamp, action in sorted(rows, key=lambda row: row[2]):
        log.record(item_id, quantity, timestamp=timestamp, action=action, now=timestamp)
    return log


rows = st.lists(
    st.tuples(
        st.sampled_from([f"si_{mode}" for mode in MODES]),
        st.integers(0, 30),
        # Few moments, so that they collide; the first and the last second of both months among them.
        st.sampled_from([START, START + 60, START + 61, MONTHS[1] - 1, MONTHS[1], MONTHS[1] + 5, NOW]),
        st.sampled_from(["increment", "set"]),
    ),
    max_size=40,
)


@given(rows)
def test_both_generations_bill_the_same(rows):
    """Whatever was recorded, our formulas bill every mode the same in every period, quantity and amount."""
    subscription = mc.Subscription("sub", [item(mode) for mode in MODES], START, customer="cus")
    log = filled(subscription, rows)
    migration = migrate_to_meters(log, [subscription], now=NOW, stripe_formulas=False)
    assert migration.is_equal
    assert len(migration.periods) == 2 * len(MODES)
    for start in MONTHS[:2]:
        old = mc.preview_invoice(subscription, log, now=start)
        new = mc.preview_invoice(migration.subscriptions[0], migration.log, now=start)
        assert [(line.quantity, line.amount) for line in new.lines] == [(line.quantity, line.amount) for line in old.lines]


@given(rows)
def test_stripe_formulas_bill_what_they_can(rows):
    """With Stripe's formulas sum and last_during_period bill the same; max and last_ever say why they do not move."""
    subscription = mc.Subscription("sub", [item(mode) for mode in MODES], START, customer="cus")
    migration = migrate_to_meters(filled(subscription, rows), [subscription], now=NOW)
    for one in migration.periods:
        assert one.is_equal is (one.aggregate_usage in {"sum", "last_during_period"})
        assert (one.reason is None) is one.is_equal
    assert {meter.formula.value for meter in migration.log.meters} == {"sum", "last"}
    assert not migration.is_equal


def test_a_cell_becomes_one_event():
    """+ 5, set 3, + 4 at one second are one event of 7, named by item and timestamp; nothing else is sent."""
    subscription = mc.Subscription("sub", [item("sum")], START, customer="cus")
    log = filled(
        subscription, [("si_sum", 5, START, "increment"), ("si_sum", 3, START, "set"), ("si_sum", 4, START, "increment")]
    )
    migration = migrate_to_meters(log, [subscription], now=NOW)
    payload = {"stripe_customer_id": "cus", "value": "7"}
    assert migration.events == (mc.MeterEvent("p_sum", payload, identifier=f"si_sum:{START}", timestamp=START),)
    assert migration.log.append(migration.events, now=NOW).duplicates == 1


def test_an_item_keeps_its_id_and_its_model():
    """A moved item has its id and its tiers; its price has a new id, a meter and no aggregate_usage."""
    subscription = mc.Subscription("sub", [item("sum")], START)
    migration = migrate_to_meters(filled(subscription, []), [subscription], now=NOW)
    (moved,) = migration.subscriptions[0].items
    assert (moved.id, moved.price.id, moved.price.model) == ("si_sum", "p_sum_metered", subscription.items[0].price.model)
    assert (moved.recurring.meter, moved.recurring.aggregate_usage) == ("mtr_p_sum", None)
    assert migration.subscriptions[0].customer == "sub"


def test_two_items_of_one_customer_on_one_price_are_told_apart():
    """They get a meter each, because on one meter both would count the same events; another customer shares the first."""
    items = [item("sum", "a", "p"), item("sum", "b", "p")]
    one = mc.Subscription("one", items, START, customer="cus")
    two = mc.Subscription("two", [item("sum", "c", "p")], START, customer="other")
    log = mc.UsageLog([one, two])
    for item_id, quantity in (("a", 1), ("b", 20), ("c", 300)):
        log.record(item_id, quantity, timestamp=START, now=START)
    migration = migrate_to_meters(log, [one, two], now=START)
    assert migration.is_equal
    assert [one.events for one in migration.periods] == [1, 20, 300]
    assert [meter.event_name for meter in migration.log.meters] == ["p", "b"]


def test_a_quantity_of_more_than_15_digits_does_not_pass_stripe():
    """Stripe refuses the value, so the events are short of it, and the reason is the refusal's sentence."""
    subscription = mc.Subscription("sub", [item("sum")], START, customer="cus")
    log = filled(subscription, [("si_sum", 1_234_567_890_123_456, START, "increment")])
    (january,) = migrate_to_meters(log, [subscription], now=START).periods
    assert (january.records, january.events) == (1_234_567_890_123_456, 0)
    assert january.reason == "Meter event values may have at most 15 digits. Received 1234567890123456."
    assert migrate_to_meters(log, [subscription], now=START, stripe_formulas=False).is_equal


def test_late_records_that_were_billed_later_are_told():
    """A late record billed in the open period counts in its own period as an event: both periods say so."""
    policy = mc.AcceptancePolicy(late_grace=timedelta(days=2), late_attribution="open_period")
    subscription = mc.Subscription("sub", [item("sum")], START, customer="cus")
    log = mc.UsageLog([subscription], policy=policy)
    january = subscription.period_at(START)
    log.close_period("sub", january, now=MONTHS[1])
    log.record("si_sum", 8, timestamp=MONTHS[1] - 1, now=MONTHS[1] + 3600)
    first, second = migrate_to_meters(log, [subscription], now=NOW).periods
    assert (first.records, first.events, second.records, second.events) == (0, 8, 8, 0)
    assert first.reason == second.reason
    assert "late records were billed in a later period" in first.reason


def test_items_without_usage_records_stay_as_they_are():
    """A licensed item and one that is on a meter already are no part of the comparison, and keep their price."""
    licensed = mc.SubscriptionItem("seat", mc.Price.per_unit("seat", currency="usd", unit_amount=1, recurring=LICENSED), 3)
    subscription = mc.Subscription("sub", [licensed, item("sum")], START, customer="cus")
    migration = migrate_to_meters(filled(subscription, []), [subscription], now=START)
    assert migration.subscriptions[0].items[0] == licensed
    assert [one.subscription_item for one in migration.periods] == ["si_sum"]


LICENSED = mc.Recurring(usage_type="licensed")


def test_both_generations_stand_on_one_subscription():
    """While both run, an item that could not move is billed by its records and the other by its events."""
    subscription = mc.Subscription("sub", [item("sum"), item("max")], START, customer="cus")
    log = filled(subscription, [("si_sum", 4, START, "increment"), ("si_max", 6, START, "increment")])
    migration = migrate_to_meters(log, [subscription], now=START)
    both = mc.CombinedUsage(records=log, events=migration.log)
    invoice = mc.preview_invoice(migration.subscriptions[0], both, now=START)
    assert [(line.subscription_item, line.quantity, line.amount) for line in invoice.lines] == [
        ("si_sum", 4, 12),
        ("si_sum", 0, 50),
        ("si_max", 6, 18),
        ("si_max", 0, 50),
    ]


def test_comparison_reads_as_a_sentence():
    """A period says what both generations come to, and why they differ."""
    subscription = mc.Subscription("sub", [item("sum"), item("max")], START, customer="cus")
    equal, refused = migrate_to_meters(filled(subscription, []), [subscription], now=START).periods
    assert str(equal) == "si_sum in 2024-01-01T00:00:00Z to 2024-02-01T00:00:00Z: sum 0, the same from events"
    assert str(refused).endswith("max 0, no events: Stripe's meters have no formula 'max'")
    differs = attrs.evolve(equal, events=2, reason="because")
    assert str(differs).endswith("sum 0, 2 from events: because")


def test_what_is_not_known_is_refused():
    """An item that the usage does not know, and subscriptions that are none, are refused by name."""
    with pytest.raises(mc.InvoicingError) as caught:
        migrate_to_meters(mc.UsageLog(), [mc.Subscription("sub", [item("sum")], START)], now=START)
    assert caught.value.code is mc.ErrorCode.SUBSCRIPTION_ITEM_UNKNOWN
    with pytest.raises(mc.InvalidValueError) as caught:
        migrate_to_meters(mc.UsageLog(), None, now=START)
    assert caught.value.param == "subscriptions"

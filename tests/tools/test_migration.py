"""Migration: usage records replayed as meter events bill the same, or say why they cannot."""

from __future__ import annotations

from datetime import timedelta

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import metering_core as mc
from metering_core.stripe.migration import migrate_to_meters

START = 1_704_067_200  # 2024-01-01T00:00:00Z
MONTHS = (START, 1_706_745_600, 1_709_251_200)  # January, February (29 days), then March 1.
NOW = MONTHS[2] - 1
MODES = [mode.value for mode in mc.AggregateUsage]


def item(mode, item_id=None, price_id=None):
    """Return an item whose tiers show a quantity that is off by one."""
    tiers = [mc.Tier(10, unit_amount=3, flat_amount=50), mc.Tier("inf", unit_amount="1.5")]
    recurring = mc.Recurring(aggregate_usage=mode)
    price = mc.Price.graduated(
        price_id or f"p_{mode}", currency="usd", tiers=tiers, recurring=recurring
    )
    return mc.SubscriptionItem(item_id or f"si_{mode}", price)


def at_cent(mode):
    """Return an item at a unit price, of which late usage is billed in the open period."""
    priced = item(mode)
    return attrs.evolve(priced, price=attrs.evolve(priced.price, model=mc.pricing.PerUnit(1)))


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
        # Few moments, so that they collide; the first and the last second of both months among
        # them.
        st.sampled_from(
            [START, START + 60, START + 61, MONTHS[1] - 1, MONTHS[1], MONTHS[1] + 5, NOW]
        ),
        st.sampled_from(["increment", "set"]),
    ),
    max_size=40,
)


@given(rows)
def test_both_generations_bill_the_same(rows):
    """Whatever was recorded, our formulas bill every mode the same in every period, quantity and
    amount.
    """
    subscription = mc.Subscription("sub", [item(mode) for mode in MODES], START, customer="cus")
    log = filled(subscription, rows)
    migration = migrate_to_meters(log, [subscription], now=NOW, stripe_formulas=False)
    assert migration.is_equal
    assert len(migration.periods) == 2 * len(MODES)
    for start in MONTHS[:2]:
        old = mc.preview_invoice(subscription, log, now=start)
        new = mc.preview_invoice(migration.subscriptions[0], migration.log, now=start)
        assert [(line.quantity, line.amount) for line in new.lines] == [
            (line.quantity, line.amount) for line in old.lines
        ]


@given(rows)
def test_stripe_formulas_bill_what_they_can(rows):
    """With Stripe's formulas sum and last_during_period bill the same; all others but count say why
    they do not move.
    """
    subscription = mc.Subscription("sub", [item(mode) for mode in MODES], START, customer="cus")
    migration = migrate_to_meters(filled(subscription, rows), [subscription], now=NOW)
    for one in migration.periods:
        assert one.is_equal is (one.aggregate_usage in {"sum", "count", "last_during_period"})
        assert (one.reason is None) is one.is_equal
    assert {meter.formula.value for meter in migration.log.meters} == {"sum", "count", "last"}
    assert not migration.is_equal


def test_a_cell_becomes_one_event():
    """+ 5, set 3, + 4 at one second are one event of 7, named by item and timestamp; nothing else
    is sent.
    """
    subscription = mc.Subscription("sub", [item("sum")], START, customer="cus")
    log = filled(
        subscription,
        [
            ("si_sum", 5, START, "increment"),
            ("si_sum", 3, START, "set"),
            ("si_sum", 4, START, "increment"),
        ],
    )
    migration = migrate_to_meters(log, [subscription], now=NOW)
    payload = {"stripe_customer_id": "cus", "value": "7"}
    assert migration.events == (
        mc.MeterEvent("p_sum", payload, identifier=f"si_sum:{START}", timestamp=START),
    )
    assert migration.log.append(migration.events, now=NOW).duplicates == 1


def test_an_item_keeps_its_id_and_its_model():
    """A moved item has its id and its tiers; its price has a new id, a meter and no
    aggregate_usage.
    """
    subscription = mc.Subscription("sub", [item("sum")], START)
    migration = migrate_to_meters(filled(subscription, []), [subscription], now=NOW)
    (moved,) = migration.subscriptions[0].items
    assert (moved.id, moved.price.id, moved.price.model) == (
        "si_sum",
        "p_sum_metered",
        subscription.items[0].price.model,
    )
    assert (moved.recurring.meter, moved.recurring.aggregate_usage) == ("mtr_p_sum", None)
    assert migration.subscriptions[0].customer == "sub"


def test_two_items_of_one_customer_on_one_price_are_told_apart():
    """They get a meter each, because on one meter both would count the same events; another
    customer shares the first.
    """
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
    """Stripe refuses the value, so the events are short of it, and the reason is the refusal's
    sentence.
    """
    subscription = mc.Subscription("sub", [item("sum")], START, customer="cus")
    log = filled(subscription, [("si_sum", 1_234_567_890_123_456, START, "increment")])
    (january,) = migrate_to_meters(log, [subscription], now=START).periods
    assert (january.records, january.events) == (1_234_567_890_123_456, 0)
    assert (
        january.reason
        == "Meter event values may have at most 15 digits. Received 1234567890123456."
    )
    assert migrate_to_meters(log, [subscription], now=START, stripe_formulas=False).is_equal


def test_late_records_that_were_billed_later_are_told():
    """A late record billed in the open period counts in its own period as an event: both periods
    say so.
    """
    policy = mc.AcceptancePolicy(late_grace=timedelta(days=2), late_attribution="open_period")
    subscription = mc.Subscription("sub", [at_cent("sum")], START, customer="cus")
    log = mc.UsageLog([subscription], policy=policy)
    january = subscription.period_at(START)
    log.close_period("sub", january, now=MONTHS[1])
    log.record("si_sum", 8, timestamp=MONTHS[1] - 1, now=MONTHS[1] + 3600)
    first, second = migrate_to_meters(log, [subscription], now=NOW).periods
    assert (first.records, first.events, second.records, second.events) == (0, 8, 8, 0)
    assert first.reason == second.reason
    assert "late records were billed in a later period" in first.reason


def test_a_late_record_billed_later_is_replayed_beside_the_cell_of_its_timestamp():
    """5 billed in January and 3 in February for one second are two events, of 8 in January: none is
    lost.
    """
    policy = mc.AcceptancePolicy(late_grace=timedelta(days=2), late_attribution="open_period")
    subscription = mc.Subscription("sub", [at_cent("sum")], START, customer="cus")
    log = mc.UsageLog([subscription], policy=policy)
    second = MONTHS[1] - 1
    log.record("si_sum", 5, timestamp=second, now=second)
    log.close_period("sub", subscription.period_at(START), now=MONTHS[1])
    log.record("si_sum", 3, timestamp=second, now=MONTHS[1])
    migration = migrate_to_meters(log, [subscription], now=NOW)
    assert [one.identifier for one in migration.events] == [
        f"si_sum:{second}",
        f"si_sum:{second}#2",
    ]
    assert [(one.records, one.events) for one in migration.periods] == [(5, 8), (3, 0)]
    assert all("late records" in one.reason for one in migration.periods)


@settings(max_examples=settings.default.max_examples // 4)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([f"si_{mode}" for mode in MODES]),
            st.integers(0, 9),
            st.sampled_from([MONTHS[1] - 60, MONTHS[1] - 1, MONTHS[1], MONTHS[1] + 60]),
            st.sampled_from(["increment", "set"]),
            st.sampled_from([0, 0, 3600]),
        ),
        max_size=20,
    )
)
def test_only_late_records_make_a_difference(rows):
    """Where a period differs, a record that lies in it was billed in the next, or one billed in it
    lies in the last.
    """
    policy = mc.AcceptancePolicy(late_grace=timedelta(days=2), late_attribution="open_period")
    subscription = mc.Subscription("sub", [at_cent(mode) for mode in MODES], START, customer="cus")
    log = mc.UsageLog([subscription], policy=policy)
    for item_id, quantity, timestamp, action, delay in sorted(
        rows, key=lambda row: row[2] + row[4]
    ):
        if timestamp + delay >= MONTHS[1]:
            log.close_period("sub", subscription.period_at(START), now=MONTHS[1])
        # Late usage that no later period can bill is refused.
        log.append([mc.UsageRecord(item_id, quantity, timestamp, action)], now=timestamp + delay)
    for one in migrate_to_meters(log, [subscription], now=NOW, stripe_formulas=False).periods:
        stamps = [
            {logged.record.timestamp in one.period, logged.billed_at in one.period}
            for logged in log.records(one.subscription_item)
        ]
        assert one.is_equal or {True, False} in stamps


def test_a_reason_is_that_of_its_period():
    """A value that Stripe refuses is the reason in January alone; in March it is the late record of
    February.
    """
    policy = mc.AcceptancePolicy(late_grace=timedelta(days=2), late_attribution="open_period")
    subscription = mc.Subscription("sub", [at_cent("sum")], START, customer="cus")
    log = mc.UsageLog([subscription], policy=policy)
    log.record("si_sum", 10**15 + 1, timestamp=START, now=START)
    log.close_period("sub", subscription.period_at(MONTHS[1]), now=MONTHS[2])
    log.record("si_sum", 8, timestamp=MONTHS[2] - 1, now=MONTHS[2])
    january, february, march = (
        one.reason for one in migrate_to_meters(log, [subscription], now=MONTHS[2]).periods
    )
    assert january.startswith("Meter event values may have at most 15 digits.")
    assert february == march
    assert march.startswith("late records were billed in a later period")


def test_a_level_that_a_meter_refuses_is_missed_in_later_periods():
    """A level of 101 digits is no event's, so the month after it misses it, too, and says why."""
    subscription = mc.Subscription("sub", [item("last_ever")], START, customer="cus")
    log = filled(subscription, [("si_last_ever", 10**100, START, "set")])
    for one in migrate_to_meters(log, [subscription], now=NOW, stripe_formulas=False).periods:
        assert (one.records, one.events) == (10**100, 0)
        assert one.reason.startswith("payload[value]: expected a number with at most 100 digits")


names = st.sampled_from(
    [
        "p",
        "q",
        "p_2",
        "mtr_p",
        "p" * 100 + "1",
        "p" * 100 + "2",
        "p" * 255,
        "q_metered",
        "\ud800" * 101,
    ]
)
customers = st.dictionaries(
    names,
    st.lists(st.tuples(names, st.sampled_from(MODES)), min_size=1, max_size=3),
    min_size=1,
    max_size=3,
)


@settings(max_examples=settings.default.max_examples // 4)
@given(customers, st.data())
def test_every_item_is_billed_for_its_own_usage_whatever_it_is_called(customers, data):
    """Prices and items may have any names, also the same: each item's events come to its own
    records, of no other item.
    """
    free = data.draw(
        st.permutations(
            ["p", "q", "p_2", "p_3", "mtr_p", "r", "p" * 101, "p" * 255, "\ud800" * 102]
        )
    )
    subscriptions = [
        mc.Subscription(
            f"sub_{customer[:200]}",
            [item(mode, free.pop(), price_id) for price_id, mode in prices],
            START,
            customer=customer,
        )
        for customer, prices in customers.items()
    ]
    log = mc.UsageLog(subscriptions)
    items = [one for subscription in subscriptions for one in subscription.items]
    for power, one in enumerate(items):
        log.record(one.id, 2**power, timestamp=START, now=START)
    used = [
        1 if one.recurring.aggregate_usage == "count" else 2**power
        for power, one in enumerate(items)
    ]
    migration = migrate_to_meters(log, subscriptions, now=START, stripe_formulas=False)
    assert [(one.subscription_item, one.records, one.events) for one in migration.periods] == [
        (one.id, due, due) for one, due in zip(items, used, strict=True)
    ]
    moved = [one.price for subscription in migration.subscriptions for one in subscription.items]
    for price_id in {price.id for price in moved}:
        assert len({price.recurring.meter for price in moved if price.id == price_id}) == 1


def test_names_that_are_taken():
    """An item that is called as another price is gets a free name; a price in two modes has two
    meters.
    """
    items = [
        item("sum", "i1", "p"),
        item("sum", "q", "p"),
        item("sum", "i3", "q"),
        item("max", "i4", "p"),
    ]
    subscription = mc.Subscription("sub", items, START, customer="cus")
    log = filled(
        subscription, [("i1", 1, START, "set"), ("q", 20, START, "set"), ("i3", 300, START, "set")]
    )
    migration = migrate_to_meters(log, [subscription], now=START, stripe_formulas=False)
    assert migration.is_equal
    assert [one.recurring.meter for one in migration.subscriptions[0].items] == [
        "mtr_p",
        "mtr_q_2",
        "mtr_q",
        "mtr_p_2",
    ]
    assert [one.price.id for one in migration.subscriptions[0].items] == [
        "p_metered",
        "q_2_metered",
        "q_metered",
        "p_2_metered",
    ]


def test_names_that_are_too_long():
    """Event names and identifiers are cut to 100 characters, and are as different as the whole;
    sent twice they count once.
    """
    common = "p" * 100
    items = [item("sum", f"i{common}{number}", f"{common}{number}") for number in (1, 2)]
    subscription = mc.Subscription("sub", items, START, customer="cus")
    log = filled(
        subscription, [(one.id, number, START, "set") for number, one in enumerate(items, start=1)]
    )
    migration = migrate_to_meters(log, [subscription], now=START)
    assert [(one.records, one.events) for one in migration.periods] == [(1, 1), (2, 2)]
    for names in (
        [one.event_name for one in migration.log.meters],
        [one.identifier for one in migration.events],
        [one.price.id.removesuffix("_metered") for one in migration.subscriptions[0].items],
    ):
        assert [len(one) for one in names] == [100, 100]
        assert len(set(names)) == 2
    assert migration.log.append(migration.events, now=START).duplicates == 2
    # Which name it is does not depend on the other prices, so that customers can move one by one.
    (alone,) = migrate_to_meters(
        log, [attrs.evolve(subscription, items=items[1:])], now=START
    ).log.meters
    assert alone in migration.log.meters


TOKENS = mc.Meter("mtr_p", "tokens")


def half_moved():
    """Return a subscription with one item on a meter, and a log of the records of its other."""
    price = mc.Price.per_unit(
        "p", currency="usd", unit_amount=1, recurring=mc.Recurring(meter=TOKENS.id)
    )
    items = [
        mc.SubscriptionItem("new", price),
        item("sum", "old", "p"),
        item("sum", "older", "tokens"),
    ]
    subscription = mc.Subscription("sub", items, START, customer="cus")
    return subscription, filled(
        subscription, [("old", 4, START, "set"), ("older", 5, START, "set")]
    )


def test_a_subscription_that_is_half_moved():
    """An item on a meter stays there and is not compared; its meter's id goes to no other, and the
    log bills the others.
    """
    subscription, log = half_moved()
    subscription = attrs.evolve(subscription, items=subscription.items[:2])
    migration = migrate_to_meters(log, [subscription], now=START)
    assert [(one.subscription_item, one.records, one.events) for one in migration.periods] == [
        ("old", 4, 4)
    ]
    assert [one.id for one in migration.log.meters] == ["mtr_p_2"]
    (moved,) = migration.subscriptions
    assert moved.items[0] == subscription.items[0]
    with pytest.raises(mc.InvalidValueError) as caught:
        mc.preview_invoice(moved, migration.log, now=START)
    assert caught.value.code is mc.ErrorCode.METER_UNKNOWN
    migration.log.create_meter(TOKENS)
    migration.log.subscribe(moved)
    assert mc.preview_invoice(moved, migration.log, now=START).lines[0].quantity == 0


def test_a_subscription_that_is_half_moved_with_its_meters():
    """With its meters the log bills the whole of it, once it has their events, which none of the
    moved items counts.
    """
    subscription, log = half_moved()
    migration = migrate_to_meters(log, [subscription], now=START, meters=[TOKENS])
    assert migration.is_equal
    assert [one.event_name for one in migration.log.meters] == ["tokens", "p_2", "tokens_2"]
    migration.log.record("tokens", {"stripe_customer_id": "cus", "value": "3"}, now=START)
    lines = mc.preview_invoice(migration.subscriptions[0], migration.log, now=START).lines
    assert [(line.subscription_item, line.quantity) for line in lines if line.quantity] == [
        ("new", 3),
        ("old", 4),
        ("older", 5),
    ]


def test_a_subscription_that_is_moved():
    """Nothing is left to compare where all items are on meters, whether or not these are given or
    take new items.
    """
    subscription = attrs.evolve(half_moved()[0], items=half_moved()[0].items[:1])
    for meters in ([], [TOKENS], [TOKENS.deactivate(START)]):
        migration = migrate_to_meters(mc.UsageLog(), [subscription], now=START, meters=meters)
        assert (migration.subscriptions, migration.events, migration.periods) == (
            (subscription,),
            (),
            (),
        )
        assert migration.log.subscriptions == ((subscription,) if meters == [TOKENS] else ())


def test_the_subscription_that_is_given_says_the_mode_and_the_periods():
    """Both generations are asked what the version that is given bills, also where the usage knows
    another.
    """
    known = mc.Subscription("sub", [item("max", "si", "p")], START, customer="cus")
    log = filled(known, [("si", 5, START, "increment"), ("si", 4, START + 60, "increment")])
    other = mc.Subscription(
        "sub", [item("sum", "si", "p")], START, customer="cus", start_date=START + 60
    )
    (period,) = migrate_to_meters(log, [other], now=START + 60).periods
    assert (period.period.start_seconds, period.records, period.events) == (START + 60, 4, 4)
    assert migrate_to_meters(log, [known], now=START - 1).periods == ()


def test_items_without_usage_records_stay_as_they_are():
    """A licensed item and one that is on a meter already are no part of the comparison, and keep
    their price.
    """
    licensed = mc.SubscriptionItem(
        "seat", mc.Price.per_unit("seat", currency="usd", unit_amount=1, recurring=LICENSED), 3
    )
    subscription = mc.Subscription("sub", [licensed, item("sum")], START, customer="cus")
    migration = migrate_to_meters(filled(subscription, []), [subscription], now=START)
    assert migration.subscriptions[0].items[0] == licensed
    assert [one.subscription_item for one in migration.periods] == ["si_sum"]


LICENSED = mc.Recurring(usage_type="licensed")


def test_both_generations_stand_on_one_subscription():
    """While both run, an item that could not move is billed by its records and the other by its
    events.
    """
    subscription = mc.Subscription("sub", [item("sum"), item("max")], START, customer="cus")
    log = filled(
        subscription, [("si_sum", 4, START, "increment"), ("si_max", 6, START, "increment")]
    )
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
    assert (
        str(equal)
        == "si_sum in 2024-01-01T00:00:00Z to 2024-02-01T00:00:00Z: sum 0, the same from events"
    )
    assert str(refused).endswith("max 0, no events: Stripe's meters have no formula 'max'")
    differs = attrs.evolve(equal, events=2, reason="because")
    assert str(differs).endswith("sum 0, 2 from events: because")


def test_what_is_not_known_is_refused():
    """An item that the usage does not know, and subscriptions that are none, are refused by
    name.
    """
    with pytest.raises(mc.InvoicingError) as caught:
        migrate_to_meters(mc.UsageLog(), [mc.Subscription("sub", [item("sum")], START)], now=START)
    assert caught.value.code is mc.ErrorCode.SUBSCRIPTION_ITEM_UNKNOWN
    for usage, subscriptions, param in (
        (mc.UsageLog(), None, "subscriptions"),
        (mc.UsageLog(), ["sub"], "subscriptions[0]"),
        (mc.MeterLog(), [], "usage"),
    ):
        with pytest.raises(mc.InvalidValueError) as caught:
            migrate_to_meters(usage, subscriptions, now=START)
        assert caught.value.param == param

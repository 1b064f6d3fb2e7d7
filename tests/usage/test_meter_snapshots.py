"""Snapshots of meter logs: everything a log holds, its past and its bills included, as text that
stays readable for ever.
"""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import attrs
import pytest
from builders import DAY, FEB, JAN, MAR, START, priced, subscribed
from damaging import changed, replaced
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import rule, run_state_machine_as_test
from places import GOLDEN_FOLDER
from planting import each, expect_found, forbidden_by, hunt_with
from test_meter_machine import MeterLogMachine, Teller

from examples import as_it_was_written
from metering_core import (
    Formula,
    Meter,
    MeterEvent,
    MeterLog,
    MeterPolicy,
    Price,
    Recurring,
    Subscription,
    SubscriptionItem,
    UsageLog,
    event_summaries,
    explain,
    finalize_invoice,
    preview_invoice,
    restore,
    restore_meter_log,
    snapshot,
)
from metering_core.errors import SnapshotError, UsageRejectedError
from metering_core.pricing import Charge, PerUnit
from metering_core.testing import laws
from metering_core.testing import strategies as drawn
from metering_core.testing.laws import LawBrokenError

GOLDENS = {version: GOLDEN_FOLDER / f"meter-snapshot-v{version}.json" for version in (1, 2, 3)}

METERS = [
    Meter(
        "m_sum", "sum", display_name="Tokens", dimension_payload_keys=["region"], decimal_places=2
    ),
    Meter("m_count", "count", "count"),
    Meter("m_last", "last", "last", carry_forward=True),
    Meter("m_max", "max", "max", event_time_window="hour"),
    Meter("m_min", "min", "min"),
    Meter("m_unique", "unique", "unique_count"),
    Meter(
        "m_average", "average", "average", customer_payload_key="who", value_payload_key="amount"
    ),
    Meter("m_weighted", "weighted", "weighted_sum"),
]


def on_meter(meter, model=None, *, id=None):
    """Return an item at a cent a unit that the meter measures, named like its events."""
    price = Price(f"p_{meter.event_name}", "usd", model or PerUnit(1), Recurring(meter=meter.id))
    return SubscriptionItem(id or meter.event_name, price)


def event(name, value=None, at="now", identifier=None, customer="cus_1", **rest):
    """Return an event of one of the meters; the average has its own payload keys."""
    keys = ("who", "amount") if name == "average" else ("stripe_customer_id", "value")
    payload = {keys[0]: customer} | ({} if value is None else {keys[1]: value}) | rest
    return MeterEvent(name, payload, identifier=identifier, timestamp=at)


def through_text(log, **options):
    """Store a log as text, and restore it."""
    return restore_meter_log(json.loads(json.dumps(snapshot(log))), **options)


def hand_built():
    """Return a log with some of everything: what each of tests/golden/meter-snapshot-v….json was
    written from.

    Numbers: 19 events of January are 1 to 19, the first cancellation 20, the late event and what
    came again 21 and 22, the cancellation in February 23, the event after it 24.
    """
    seats = SubscriptionItem("seats", priced(mode=None, id="p_seats"), 3)
    acme = Subscription(
        "acme", [*map(on_meter, METERS), seats], START, customer="cus_1", start_date=START
    )
    policy = MeterPolicy(
        future_tolerance=timedelta(seconds=1, microseconds=500_000),
        identifier_retention=timedelta(hours=30),
        cancel_window=None,
        late_usage="carry_forward",
        overlap="each_counts_all",
    )
    log = MeterLog(METERS, [acme], customers=["cus_2", "cus_1"], policy=policy)
    log.append(
        [
            event("sum", "25.10", START + 1, "a", region="eu"),
            event("sum", "0.5", datetime(2024, 1, 1, 0, 0, 2, 1, tzinfo=UTC), region="us"),
            event(
                "sum",
                "12345678901234567890.25",
                START + 2,
                customer="cus_2",
                region="eu",
                extra="b",
                another="a",
            ),
            event("sum", "100", START + 3, "gone", region="eu"),
            event("count", identifier="counted"),
            event("last", "7", START + 5),
            event("last", "9", START + 5),
            event("max", "40", START + 3600),
            event("max", "3", START + 3700),
            event("min", "2", START + 5),
            event("min", "-1", START + 6),
            event("unique", "x", START + 5, "é"),
            event("unique", "12", START + 5),
            event("unique", "x", START + 6),
            *[event("average", value, START + 5) for value in "122"],
            event("weighted", "10", START),
            event("weighted", "-10", START + DAY // 2),
            event("nobody", "1", START),
            event("sum", "1", START, customer="cus_3", region="eu"),
        ],
        now=datetime(2024, 1, 2, 0, 0, 0, 250_000, tzinfo=UTC),
    )
    log.cancel("sum", "gone", now=START + 2 * DAY)
    finalize_invoice(acme, log, JAN, now=JAN.end + timedelta(microseconds=7))
    log.append([event("sum", "1.25", JAN.end_seconds - 1, region="eu")], now=JAN.end_seconds + 60)
    log.append(
        [event("sum", "4", JAN.end_seconds + 60, "a", region="eu")], now=JAN.end_seconds + 60
    )
    log.cancel("count", "counted", now=JAN.end_seconds + 70)
    log.update_meter(METERS[1].deactivate(JAN.end_seconds + 80))
    log.subscribe(attrs.evolve(acme, items=[item for item in acme.items if item.id != "max"]))
    finalize_invoice(log.subscription("acme"), log, FEB, now=FEB.end)
    log.append([event("last", "5", FEB.end_seconds - 60)], now=FEB.end_seconds)
    return log


def without_invoices(log):
    """Return a log's state as the first format knew it: with closed periods, but without what was
    billed.
    """
    state = log.state()
    return attrs.evolve(
        state,
        closed={
            owner: [(one.period, one.closed_at) for one in closings]
            for owner, closings in state.closed.items()
        },
    )


@pytest.fixture
def stored():
    """Return the golden snapshot of the second version, ready to be damaged."""
    return json.loads(GOLDENS[2].read_text(encoding="utf-8"))


@pytest.fixture
def first():
    """Return the golden snapshot that the first release wrote."""
    return json.loads(GOLDENS[1].read_text(encoding="utf-8"))


def test_todays_format_is_read_for_ever(stored):
    """The golden file restores to the log it was written from, and is written alike today; so does
    that of the version before.
    """
    text = GOLDENS[3].read_text(encoding="utf-8")
    for log in (restore_meter_log(json.loads(text)), restore_meter_log(stored)):
        assert log == hand_built()
        assert json.dumps(snapshot(log), indent=1) + "\n" == text


def test_the_first_format_is_read_for_ever(first):
    """What the first release wrote restores to the same events, cancellations and closings; its
    bills are those of its day.
    """
    log = restore_meter_log(first)
    assert attrs.evolve(without_invoices(log), bills=()) == attrs.evolve(
        without_invoices(hand_built()), bills=()
    )
    assert through_text(log) == log
    assert all(bill.price is None for _, _, bill in log.state().bills)


def billed_by_hand(log, february, *greatest):
    """Check January's invoice, whole, with the line of an item that left since only where it is
    kept; then February's lines.
    """
    acme = log.subscription("acme")
    january, later = (finalize_invoice(acme, log, period, now=MAR.end) for period in (JAN, FEB))
    quantities = [Decimal("25.6"), 1, 9, *greatest, 0, 2, Fraction(5, 3), Fraction(5, 31), 3]
    assert [line.quantity for line in january.lines] == quantities
    assert [line.amount for line in january.lines] == [26, 1, 9, *greatest, 0, 2, 2, 0, 3]
    assert january.finalized_at == datetime(2024, 2, 1, 0, 0, 0, 7, tzinfo=UTC)
    assert [(line.quantity, line.amount) for line in later.lines] == february
    assert log.partial(on_meter(METERS[3]), JAN) == 3
    carried = [log.carried(acme.item(item), FEB) for item in ("sum", "count", "last")]
    assert carried == [{JAN: Decimal("1.25")}, {JAN: -1}, {}]
    return [(one.subscription_item, one.period, one.quantity) for one in log.unbilled("acme")]


def test_the_golden_log_bills_as_worked_by_hand(stored):
    """January: 25.6 tokens, a call, 9, nothing for -1, two users, 5/3, ten for half a day of 31, 3
    seats. The past is there.

    February: 4 tokens, and 1.25 more of January, which makes 26.85 at a cent instead of 25.6; a
    call given back; 9, 3 seats.
    """
    lines = [
        (4, 4),
        (Decimal("1.25"), 1),
        (0, 0),
        (-1, -1),
        (9, 9),
        (0, 0),
        (0, 0),
        (0, 0),
        (0, 0),
        (3, 3),
    ]
    log = restore_meter_log(stored)
    assert billed_by_hand(log, lines, 3) == [("last", FEB, -4), ("min", JAN, -1)]
    invoices = [
        as_it_was_written(finalize_invoice(log.subscription("acme"), log, period, now=MAR.end))
        for period in (JAN, FEB)
    ]
    billed = GOLDENS[2].with_name("meter-snapshot-v2-invoices.json").read_text(encoding="utf-8")
    assert json.dumps(invoices, indent=1) + "\n" == billed


def test_bills_of_the_first_format_are_those_of_their_day(first):
    """February of then: 4 tokens and the late 1.25 in one quantity, no call and one too many
    before, 9, 3 seats.

    What they left is billed by the next invoice as the difference: -1 call of February, and 5
    instead of 9.
    """
    log = restore_meter_log(first)
    lines = [(Decimal("5.25"), 5), (0, 0), (9, 9), (0, 0), (0, 0), (0, 0), (0, 0), (3, 3)]
    assert billed_by_hand(log, lines) == [("count", FEB, -1), ("last", FEB, -4), ("min", JAN, -1)]
    acme = log.subscription("acme")
    (sums, *_) = finalize_invoice(acme, log, FEB, now=MAR.end).lines
    assert f"and 1.25 not billed for {JAN} is 5.25" in str(explain(sums))
    march = finalize_invoice(acme, log, MAR, now=MAR.end)
    late = [
        (line.subscription_item, line.period, line.quantity, line.amount)
        for line in march.lines
        if line.before is not None
    ]
    assert late == [("count", FEB, -1, -1), ("last", FEB, -4, -4)]
    assert [(one.subscription_item, one.quantity) for one in log.unbilled("acme")] == [("min", -1)]
    assert through_text(log) == log


@pytest.mark.parametrize(
    ("limit", "total"),
    [
        (3, Decimal("25.6")),
        (4, Decimal("125.6")),
        (19, Decimal("125.6")),
        (20, Decimal("25.6")),
        (21, Decimal("26.85")),
        (datetime(2024, 1, 2, 12, tzinfo=UTC), Decimal("125.6")),
        (datetime(2024, 1, 3, tzinfo=UTC), Decimal("25.6")),
    ],
)
def test_the_past_is_as_it_was(stored, limit, total):
    """By number and by moment: 100 tokens come with number 4 on the second and go with number 20 on
    the third.
    """
    view = restore_meter_log(stored).as_of(limit)
    (summary,) = event_summaries(view, "m_sum", "cus_1", START, JAN.end)
    assert summary.aggregated_value == total


def test_what_is_sent_again_hears_what_it_would_have_heard(stored):
    """Retries, reused and forgotten identifiers, cancellations: each as of the log that was
    stored.
    """
    log = restore_meter_log(stored)
    again = event("sum", "4", JAN.end_seconds + 60, "a", region="eu")
    old = event("sum", "25.10", START + 1, "a", region="eu")
    in_time, too_late = JAN.end_seconds + 60 + 30 * 3600, JAN.end_seconds + 61 + 30 * 3600
    receipts = log.append([again, old], now=in_time)
    assert [str(one.code or one.outcome) for one in receipts] == ["duplicate", "identifier_reused"]
    assert receipts[0].sequence == 22
    assert log.append([again], now=too_late)[0].sequence == 25
    first = log.cancel("count", "counted", now=MAR.end)
    assert (first.sequence, first.canceled_at) == (23, datetime(2024, 2, 1, 0, 1, 10, tzinfo=UTC))
    assert log.cancel("sum", "a", now=MAR.end).sequence == 26
    assert (
        log.append([event("unique", "x", START + 5, "é")], now=START + 2 * DAY)[0].outcome
        == "duplicate"
    )
    assert (
        log.append([event("count", identifier="counted")], now=START + 2 * DAY)[0].outcome
        == "duplicate"
    )
    refused = [
        event("count"),
        event("sum", "1", customer="cus_3", region="eu"),
        event("sum", "1.001", region="eu"),
    ]
    receipts = log.append(refused, now=MAR.end)
    assert [one.code for one in receipts] == ["meter_inactive", "customer_unknown", "value_invalid"]
    assert log.sequence == 26


def test_a_restored_log_goes_on_as_the_original_would():
    """A log and its copy through text stay equal whatever comes afterwards; the copy has the clock
    it is given.
    """
    original = hand_built()
    restored = through_text(original, clock=lambda: MAR.end)
    for log in (original, restored):
        log.append(
            [event("sum", "2.5", FEB.end_seconds - 1, "late", region="eu")], now=FEB.end_seconds + 1
        )
        log.add_customer("cus_4")
        log.update_meter(log.meter("m_count").reactivate())
        log.create_meter(Meter("m_new", "new"))
        finalize_invoice(log.subscription("acme"), log, MAR, now=MAR.end)
    assert restored == original
    assert json.dumps(snapshot(restored)) == json.dumps(snapshot(original))
    assert (
        restored.record("new", {"stripe_customer_id": "cus_4", "value": "1"}).timestamp
        == MAR.end_seconds
    )
    assert restored != original
    assert restored != UsageLog()


def test_identifiers_of_a_global_scope_stay_so():
    """Where identifiers are unique in the whole log, another event's name is no way around that
    after restoring, either.
    """
    log = MeterLog(METERS[4:6], policy=MeterPolicy(identifier_scope="global"))
    log.append([event("min", "1", START, "a")], now=START)
    restored = through_text(log)
    assert (
        restored.append([event("unique", "1", START, "a")], now=START)[0].code
        == "identifier_reused"
    )


def test_the_order_of_a_payload_is_no_content():
    """Keys may come in any order: equal logs give equal text, and what reuses an identifier hears
    the same words.
    """
    payload = {"value": "1", "zone": "a", "stripe_customer_id": "cus_1", "app": "b"}
    logs = []
    for keys in (list(payload), sorted(payload)):
        log = MeterLog(METERS[4:5])
        log.record("min", {key: payload[key] for key in keys}, identifier="a", now=START)
        logs.append(log)
    assert json.dumps(snapshot(logs[0])) == json.dumps(snapshot(logs[1]))
    reused = [MeterEvent("min", payload | {"value": "2"}, identifier="a")]
    heard = [log.append(reused, now=START)[0] for log in (*logs, through_text(logs[0]))]
    assert heard[0] == heard[1] == heard[2]
    assert heard[0].code == "identifier_reused"


def test_what_was_refused_is_not_in_the_text():
    """Time refuses an event of a customer that nobody knows yet: the text is that of a log that
    never heard of it.
    """
    silent, refusing = MeterLog(METERS[4:5]), MeterLog(METERS[4:5])
    assert (
        refusing.append([event("min", "1", START - 40 * DAY, customer="cus_9")], now=START)[0].code
        is not None
    )
    for log in (silent, refusing):
        log.append([event("min", "1", START)], now=START)
    assert silent == refusing
    assert json.dumps(snapshot(silent)) == json.dumps(snapshot(refusing))


def test_what_becomes_of_the_data_later_is_nothing_to_the_log(stored):
    """The log holds no part of the data it was restored from."""
    log = restore_meter_log(stored)
    for payload in filter(None, stored["content"]["events"]["payloads"]):
        payload.clear()
    stored["content"]["items"].clear()
    assert without_invoices(log) == without_invoices(hand_built())


def test_a_log_of_nothing_is_restored():
    """No meters, no events, no customers that are known: an empty log, and one that takes events of
    nobody.
    """
    for log in (MeterLog(), MeterLog(METERS[:1], customers=[])):
        assert through_text(log) == log
    nobody = through_text(MeterLog(METERS[4:5], customers=[]))
    assert nobody.append([event("min", "1", START)], now=START)[0].code == "customer_unknown"


def test_a_customer_is_for_meters_alone():
    """A subscription that bills no meter may have no customer: the restored log has it, and takes a
    second one like it.
    """
    log = MeterLog([], [subscribed(priced(mode=None), id="seats")])
    restored = through_text(log)
    assert restored == log
    assert [one.customer for one in restored.subscriptions] == [None]
    more = subscribed(priced(mode=None), id="more")
    for one in (log, restored):
        one.subscribe(more)
    assert restored == log


class Flat:
    """A pricing model of a user's own."""

    def charges(self, quantity):
        return [Charge("unit", quantity, None, 7, label=f"{quantity} for seven")]


def test_a_users_own_model_is_given_back():
    """A price with a model of the user's own is kept by its id, refused by name where it is
    missing, and bills again.
    """
    item = on_meter(METERS[4], Flat())
    subscription = Subscription("sub", [item], START, customer="cus_1")
    log = MeterLog(METERS[4:5], [subscription])
    log.append([event("min", "5", START)], now=START)
    for prices in (None, {"another": item.price}):
        with pytest.raises(SnapshotError, match="prices: expected 'p_min'") as caught:
            through_text(log, prices=prices)
        assert (caught.value.code, caught.value.param) == ("snapshot_needs_price", "prices")
    restored = through_text(log, prices={"p_min": item.price})
    assert restored == log
    assert preview_invoice(subscription, restored, now=START).lines[0].description == "5 for seven"


def test_both_logs_know_the_customer():
    """The log of usage records keeps a subscription's customer, too, as items of both generations
    can stand on it.
    """
    log = UsageLog([subscribed(customer="cus_1")])
    assert restore(json.loads(json.dumps(snapshot(log)))) == log


# Damage -------------------------------------------------------------------------------------------


DAMAGED = [
    (replaced(format="something else"), "snapshot_damaged", "format"),
    (replaced(format="metering_core.usage_log"), "snapshot_damaged", "format"),
    (replaced(checksum="sha256:0"), "snapshot_damaged", "checksum"),
    (replaced(content=None), "snapshot_damaged", "checksum"),
    (lambda data: data["content"]["events"]["moments"].reverse(), "snapshot_damaged", "checksum"),
    *[
        (replaced(version=version), "snapshot_version_unknown", "version")
        for version in (0, 4, "1", 1.0, True, None)
    ],
    *[
        (changed(*path, value=value), "snapshot_damaged", "content")
        for path, value in [
            (["policy"], KeyError),
            (["policy", "batch_max"], KeyError),
            (["policy", "cancel_window"], 1.5),
            (["policy", "future_tolerance"], -1),
            (["policy", "late_usage"], "never"),
            (["policy", "whole_values"], 1),
            (["meters"], 5),
            (["meters", 0], KeyError),
            (["meters"], lambda given: [*given, given[0]]),
            (["meters", 0, "id"], "m_count"),
            (["meters", 0, "event_name"], "count"),
            (["meters", 0, "default_aggregation", "formula"], "unique_count"),
            (["meters", 0, "dimension_payload_keys"], []),
            (["meters", 0, "status"], "inactive"),
            (["customers"], ["cus_2"]),
            (["customers"], [1, 2]),
            (["customers"], 5),
            (["subscriptions"], []),
            (["subscriptions"], lambda given: given * 2),
            (["subscriptions", 0, "currency"], "eur"),
            (["subscriptions", 0, "customer"], None),
            (["subscriptions", 0, "id"], "renamed"),
            (["subscriptions", 0, "items", 0, "id"], "renamed"),
            (["subscriptions", 0, "items", 0, "price", "recurring", "meter"], "m_other"),
            (["items"], {}),
            (["items", "sum"], "nobody"),
            (["items", "sum"], None),
            (["items", "other"], "nobody"),
            (["items", "max"], KeyError),
            (["series"], []),
            (["series"], lambda given: [*given, ["m_min", "cus_2", []]]),
            (["series"], lambda given: given[::-1]),
            (["series", 1], ["m_sum", "cus_1", ["eu"]]),
            (["series", 0, 0], "m_other"),
            (["series", 0, 0], "m_min"),
            (["series", 0, 1], ""),
            (["series", 0, 1], "cus_3"),
            (["series", 0, 1], None),
            (["series", 0, 2], ["eu", "us"]),
            (["series", 0, 2], [1]),
            (["events", "codes", 0], -1),
            (["events", "codes", 0], 99),
            (["events", "codes"], []),
            (["events", "codes", 0], True),
            (["events", "moments"], KeyError),
            (["events", "moments", 0], "1"),
            (["events", "moments", 0], 2**70),
            (["events", "moments", 0], 10**18),
            (["events", "received", 0], 10**18),
            (["events", "received"], [1]),
            (["events", "values", 0], 0.5),
            (["events", "values", 0], None),
            (["events", "values", 0], "25.10"),
            (["events", "values", 0], "1e3"),
            (["events", "values", 0], "1/0"),
            (["events", "values", 0], "7"),
            (["events", "values", 0], 26),
            (["events", "values", 4], 2),
            (["events", "values", 11], 12),
            (["events", "identifiers", 0], ""),
            (["events", "identifiers", 0], 5),
            (["events", "identifiers"], []),
            (["events", "payloads", 0], []),
            (["events", "payloads", 0], {}),
            (["events", "payloads", 0, "value"], 25),
            (["events", "payloads", 0, "stripe_customer_id"], "cus_2"),
            (["events", "payloads", 0, "region"], "us"),
            (["events", "as_now", 0], None),
            (["events", "as_now"], [0]),
            (["cancellations"], lambda given: given * 2),
            (["cancellations"], lambda given: given[1:]),
            (["cancellations", 0], [3, 20]),
            (["cancellations", 0, 0], -1),
            (["cancellations", 0, 0], -2),
            (["cancellations", 0, 0], 1),
            (["cancellations", 0, 0], 99),
            (["cancellations", 0, 1], 4),
            (["cancellations", 0, 1], 23),
            (["cancellations", 1, 1], 26),
            (["cancellations", 0, 2], 10**18),
            (["closed"], {"nobody": [[START, START + 1, START, 0]]}),
            (["closed", "acme", 0], [START, START, START, 0]),
            (["closed", "acme", 0, 4, "lines", 0, "description"], 5),
            (["closed", "acme", 0, 4, "lines", 0, "exact"], "2.56e1"),
            (["subscriptions", 0, "items", 0, "surprise"], 1),
            (["heirs"], {"sum": "sum"}),
            (["heirs"], {"sum": "max", "max": "sum"}),
            (["heirs"], {"sum": "count", "max": "last", "last": "max"}),
            (["heirs"], {"sum": "other"}),
            (["heirs"], {"other": "sum"}),
            (["heirs"], {"sum": 5}),
            (["bills", 1], lambda given: {**given, "subscription_item": "sum"}),
            (["bills", 0, "subscription_item"], "other"),
            (["bills", 0, "period"], [START]),
            (["bills", 0, "meter"], "m_other"),
            (["bills", 0, "quantity"], "25.5"),
            (["bills", 0, "quantity"], KeyError),
            (["bills", 0, "partial"], None),
            (["bills", 2, "partial"], 9),
            (["bills", 3, "partial"], "3"),
            (["bills", 5, "partial"], 2),
            (["bills", 5, "partial"], [12, "x"]),
            (["bills", 6, "partial"], [5]),
            (["bills", 7, "partial", 2], None),
            (["bills", 7, "partial", 2], [START, START]),
            (["bills", 0, "sequence"], 25),
            (["bills", 0, "sequence"], -1),
            (["bills", 0, "made_at"], 10**18),
            (["bills", 8, "carried"], [[START, START, 1]]),
            (["bills", 8, "price"], None),
            (["bills", 8, "price"], 5),
            (["bills", 8, "settled", 0], [START, START, []]),
            (["bills", 8, "settled", 0, 2], [["unit", None, None, 1.5]]),
            (["bills", 8, "settled", 0, 2], [["units", None, None, 1]]),
            (["bills", 8, "settled", 0, 2], [["unit", "1", None, 1]]),
            (["bills", 8, "settled", 0, 2], [["unit", None, 1, 1]]),
            (["bills", 8, "settled", 0, 2], [["unit", None, None, 1]] * 2),
            (["sequence"], 23),
            (["sequence"], "24"),
            (["sequence"], KeyError),
            (["surprise"], 1),
        ]
    ],
]


@pytest.mark.parametrize(("change", "code", "param"), DAMAGED)
def test_damaged_snapshots_are_refused(stored, change, code, param):
    """A snapshot that is not whole is refused with its code; nothing half-built comes back, and the
    data is left alone.
    """
    damaged = copy.deepcopy(stored)
    change(damaged)
    given = copy.deepcopy(damaged)
    with pytest.raises(SnapshotError) as caught:
        restore_meter_log(damaged)
    assert (caught.value.code, caught.value.param) == (code, param)
    assert param in caught.value.message
    assert damaged == given


@pytest.mark.parametrize("data", [None, [], "snapshot", 5])
def test_a_snapshot_is_an_object(data):
    """What is no mapping is no snapshot."""
    with pytest.raises(SnapshotError, match=r"format: expected 'metering_core\.meter_log'"):
        restore_meter_log(data)


def test_each_kind_is_restored_by_its_own_function(stored):
    """A snapshot of the other kind is refused, and the message names both kinds."""
    with pytest.raises(
        SnapshotError, match=r"'metering_core\.usage_log', received 'metering_core\.meter_log'"
    ):
        restore(stored)
    with pytest.raises(
        SnapshotError, match=r"'metering_core\.meter_log', received 'metering_core\.usage_log'"
    ):
        restore_meter_log(snapshot(UsageLog()))


# Whatever there was -------------------------------------------------------------------------------


def stories():
    """Draw (history of a meter, whether periods are closed, whether carrying, how much later what
    comes again comes).
    """
    later = st.sampled_from([0, 1, DAY, DAY + 1, 40 * DAY])
    # What is additive is carried forward, and that takes three batches in three periods.
    meters = drawn.meters(formulas=["sum", "sum", "count", *Formula])
    return st.tuples(
        drawn.event_histories(meters),
        st.sampled_from([True, True, False]),
        st.sampled_from(POLICIES),
        later,
    )


POLICIES = [
    MeterPolicy(),
    MeterPolicy(
        late_usage="carry_forward", identifier_retention=timedelta(days=1), cancel_window=None
    ),
    MeterPolicy(
        identifier_scope="global", dimensions_max=10, future_tolerance=timedelta(microseconds=1)
    ),
]


def snapshot_laws(history, closes, policy, later):
    """Run the laws on the log of a history, which then receives the history's last batch again, and
    on what becomes of it.
    """
    meter, subscription, batches = history
    log = MeterLog([meter], [subscription], policy=policy)
    for now, events, canceled in batches:
        before = subscription.period_at(subscription.cycle.period_at(now).start_seconds - 1)
        if closes and before is not None:
            log.close_period(subscription.id, before, now=now)
        log.append(events, now=now)
        try:
            log.cancel(meter.event_name, canceled or "none", now=now)
        except UsageRejectedError:
            continue
    now, more, _ = batches[-1] if batches else (START, [], None)
    laws.check_snapshot_laws(log, more, now + later)
    laws.check_snapshot_laws(log)


@given(stories())
def test_whatever_there_was_is_restored(story):
    """Receipts, bills, what is unbilled and every view of the past: a restored log says what the
    original says.
    """
    snapshot_laws(*story)


def test_the_laws_may_be_asked_without_a_moment():
    """Without a moment the laws look at what there is, and nothing comes afterwards."""
    log = hand_built()
    laws.check_snapshot_laws(log)
    assert log == hand_built()


def store_and_restore(story):
    """Have a story go on with a copy of its log through text."""
    restored = through_text(story.log)
    assert restored == story.log
    assert json.dumps(snapshot(restored)) == json.dumps(snapshot(story.log))
    story.log = restored


class RestoringMachine(MeterLogMachine):
    """The story of the meter log, in which the log is stored and restored now and then."""

    @rule()
    def store_and_restore(self):
        store_and_restore(self.story)


class RestoringTeller(Teller):
    """The same, by dice."""

    STEPS = (*Teller.STEPS, "restore", "restore", "restore")

    def restore(self):
        store_and_restore(self.story)


def test_a_log_that_is_restored_now_and_then_says_what_its_events_say():
    """Whatever is done to a log that is stored and restored in between, each answer is that of the
    plain list of its events.
    """
    run_state_machine_as_test(
        RestoringMachine,
        settings=settings(max_examples=10, stateful_step_count=20, derandomize=True),
    )
    for number in range(40):
        RestoringTeller(number).tell(25)


DEFECTS = [
    ("retries are new", "meter_log.MeterLog._take_rows", "if identifier is not None}", "if False}"),
    (
        "the first has the identifier",
        "meter_log.MeterLog._take_identifiers",
        "ids[identifier] = row",
        "ids.setdefault(identifier, row)",
    ),
    ("a retry of now must know when", "meter_log.MeterLog._take_rows", "if as_now}", "if False}"),
    (
        "canceled events count again",
        "meter_log.MeterLog._fold",
        "if row not in canceled:",
        "if True:",
    ),
    (
        "cancellations have no number",
        "event_columns.EventColumns.of",
        "one.sequence - 1 - place",
        "len(store.codes)",
    ),
    (
        "no payload is kept",
        "meter_log.MeterLog._event_rows",
        "map(self._payloads.get, rows)",
        "None for row in rows",
    ),
    ("bills are made anew", "meter_log.MeterLog.from_state", "in state.bills:", "in ():"),
    (
        "bills are numbered from one again",
        "meter_log.MeterLog.from_state",
        "book.keep_bill(item_id, period, bill)",
        "book.keep_bill(item_id, period, bill); book.bills_made = 0",
    ),
    (
        "a bill was made at the beginning",
        "snapshots.meters._bill",
        "carried, sequence, price",
        "carried, 0, price",
    ),
    ("nothing was finalized", "book.Book.restore", "in closed.items():", "in ():"),
    (
        "seconds are enough",
        "snapshots.meters._rows",
        "wholes(events[name])",
        "tuple(one // 10**6 * 10**6 for one in events[name])",
    ),
    ("decimals are floats", "exact.read_number", "Decimal(value)", "Decimal(float(value))"),
    (
        "an empty series is one",
        "meter_log.MeterLog.state",
        "dict.fromkeys(self._store.codes)",
        "range(len(self._streams))",
    ),
]
"""What is wrong, where, what is right, and what is written instead."""


@pytest.mark.slow
@each(forbidden_by("snapshots", *DEFECTS))
def test_planted_defects_die(defect):
    """The laws find each of these slips within 400 histories, the same ones each time."""
    hunt = hunt_with(stories(), snapshot_laws)
    expect_found(defect, hunt, LawBrokenError, SnapshotError)

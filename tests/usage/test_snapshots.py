"""Snapshots: everything a log holds, as text that stays readable for ever."""

from __future__ import annotations

import json
from datetime import timedelta

import attrs
import pytest
from builders import DAY, FEB, JAN, MAR, START, priced, subscribed, used
from damaging import changed, sealed
from places import GOLDEN_FOLDER

import metering_core
from examples import as_it_was_written
from metering_core import (
    AcceptancePolicy,
    AggregateUsage,
    InvalidValueError,
    MeterLog,
    Price,
    Recurring,
    Subscription,
    SubscriptionItem,
    Tier,
    UsageLog,
    UsageRecord,
    finalize_invoice,
    preview_invoice,
    restore,
    snapshot,
)
from metering_core.errors import SnapshotError, UsageCompactedError
from metering_core.periods import SECONDS_MIN, from_unix_seconds
from metering_core.pricing import Charge
from metering_core.subscriptions import BillingThresholds

FOLDER = GOLDEN_FOLDER
GOLDEN, SECOND, TODAYS = (FOLDER / f"snapshot-v{version}.json" for version in (1, 2, 3))


def hand_built():
    """Return a log with some of everything: what each of tests/golden/snapshot-v….json was written
    from, once.
    """
    tiers = [Tier(5, 700), Tier("7.5", "0.4", 100), Tier("inf", flat_amount=0)]
    calls = SubscriptionItem(
        "calls",
        Price.graduated(
            "p_calls", currency="usd", tiers=tiers, nickname="Calls", unit_label="call"
        ),
    )
    peak = SubscriptionItem("peak", priced(mode="max", id="p_peak"))
    seats = SubscriptionItem("seats", priced(mode=None, id="p_seats"), 3)
    daily = Recurring(interval="day", aggregate_usage="last_ever")
    disk = SubscriptionItem(
        "disk", Price.package("p_disk", currency="jpy", unit_amount="12.5", divide_by=10, round="down", recurring=daily),
        billing_thresholds=BillingThresholds(usage_gte=1000),
    )  # fmt: skip
    acme = Subscription("acme", [calls, peak, seats], START, timezone="UTC", start_date=START)
    other = Subscription("other", [disk], START, start_date=SECONDS_MIN, ended_at=FEB.end)
    policy = AcceptancePolicy(
        future_tolerance=timedelta(seconds=300),
        late_grace=timedelta(hours=1),
        late_attribution="open_period",
    )
    # What is late is billed at a unit price only; the tiers come when January is billed.
    calls_at_cent = attrs.evolve(calls, price=priced(id="p_calls"))
    log = UsageLog([attrs.evolve(acme, items=(calls_at_cent, peak, seats)), other], policy=policy)
    log.append(
        [
            UsageRecord("calls", 6, START + 1, id="first"),
            UsageRecord("calls", 2**70, START + 2),
            UsageRecord("calls", 4, START + 2, "set"),
            UsageRecord("peak", 9, "now", id="now"),
            UsageRecord("disk", 25, START + DAY),
        ],
        now=START + DAY,
    )
    finalize_invoice(log.subscriptions[0], log, JAN, now=JAN.end)
    log.compact()
    log.record("calls", 8, timestamp=JAN.end_seconds - 1, now=JAN.end_seconds + 60)
    log.record("peak", 2, now=JAN.end_seconds + 60)
    log.subscribe(attrs.evolve(acme, items=(calls, seats)), rebill=True)
    return log


def without_invoices(log):
    """Return a log's state as the first format knew it: without what was billed, and compacted to
    the modes of its day.
    """
    state = log.state()
    kept = {
        item: {
            start: attrs.evolve(one, partials=dict(list(one.partials.items())[:4]))
            for start, one in periods.items()
        }
        for item, periods in state.kept.items()
    }
    return attrs.evolve(
        state,
        kept=kept,
        closed={
            owner: [(one.period, one.closed_at) for one in closings]
            for owner, closings in state.closed.items()
        },
    )


def test_the_first_format_is_read_for_ever():
    """The golden file, written by the first release, restores to the log it was written from.

    A subscription without a start date had always been, then: that is written out now.
    """
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    log = restore(golden)
    assert without_invoices(log) == without_invoices(hand_built())
    other = golden["content"]["subscriptions"][1]
    assert other["start_date"] is None
    assert log.subscriptions[1].start_date == from_unix_seconds(SECONDS_MIN)
    written = snapshot(log)["content"]
    assert [closing["invoice"] for closing in written["closed"]["acme"]] == [None]
    assert restore(json.loads(json.dumps(snapshot(log)))) == log


def test_todays_format_is_read_for_ever():
    """The golden file restores to the log it was written from, and is written alike today, to the
    byte; so does that of the version before.
    """
    today = TODAYS.read_text(encoding="utf-8")
    for text in (today, SECOND.read_text(encoding="utf-8")):
        log = restore(json.loads(text))
        assert log == hand_built()
        assert json.dumps(snapshot(log), indent=1) + "\n" == today


def test_the_golden_log_finalizes_to_the_same_bytes():
    """January as it was billed then, whatever came since: 10 calls at a cent, a peak of 9, 3 seats.
    February bills the rest.

    8 late calls of January come to February, in tiers now: 5 x 7.00, 2.5 x 0.004 + 1.00, half a
    call for nothing. The peak of 2 is on no item any more.
    """
    log = restore(json.loads(SECOND.read_text(encoding="utf-8")))
    acme = log.subscriptions[0]
    january = finalize_invoice(acme, log, JAN, now=MAR.end)
    assert [(line.quantity, line.amount) for line in january.lines] == [(10, 10), (9, 9), (3, 3)]
    assert january.finalized_at == JAN.end
    billed = (FOLDER / "snapshot-v2-january.json").read_text(encoding="utf-8")
    assert json.dumps(as_it_was_written(january), indent=1) + "\n" == billed
    february = finalize_invoice(acme, log, FEB, now=MAR.end)
    assert [line.amount for line in february.lines] == [3500, 1, 100, 0, 0, 3]


def test_the_golden_log_bills_as_worked_by_hand():
    """10 calls in January: 5 x 7.00, 2.5 x 0.004 + 1.00, the last 2.5 for nothing; and 3 seats at a
    cent.
    """
    log = restore(json.loads(GOLDEN.read_text(encoding="utf-8")))
    acme, other = log.subscriptions
    january = finalize_invoice(acme, log, JAN, now=MAR.end)
    assert [line.amount for line in january.lines] == [3500, 1, 100, 0, 0, 3]
    assert [line.amount for line in preview_invoice(acme, log, now=JAN.end).lines] == [
        3500,
        1,
        100,
        0,
        0,
        3,
    ]  # 8 late calls
    # 25 units of disk make 2 whole packages of 10, at 12.5 yen.
    assert preview_invoice(other, log, now=START + 2 * DAY).total == 25
    assert (
        log.append([UsageRecord("calls", 6, START + 1, id="first")], now=FEB.end)[0].outcome
        == "duplicate"
    )
    assert log.append([UsageRecord("peak", 9, "now", id="now")], now=FEB.end)[0].sequence == 4
    assert log.sequence == 7


@pytest.mark.parametrize("mode", list(AggregateUsage)[4:])
def test_what_was_compacted_before_a_mode_came_cannot_be_asked_by_it(mode):
    """The first format compacted periods to four modes; by another, the records that are gone would
    have to be known.
    """
    log = restore(json.loads(GOLDEN.read_text(encoding="utf-8")))
    item = SubscriptionItem("calls", priced(mode=mode))
    with pytest.raises(UsageCompactedError) as refused:
        log.partial(item, JAN)
    assert (refused.value.code, refused.value.details["period"]) == ("usage_compacted", JAN)
    assert log.partial(item, MAR) == UsageLog([subscribed(item.price)]).partial(
        subscribed(item.price).items[0], MAR
    )
    assert restore(snapshot(log)) == log


def test_a_restored_log_goes_on_as_the_original_would():
    """A log and its copy through JSON text stay equal whatever is appended afterwards; the copy has
    the clock it is given.
    """
    original = hand_built()
    copy = restore(json.loads(json.dumps(snapshot(original))), clock=lambda: FEB.end)
    for log in (original, copy):
        log.record("calls", 1, now=FEB.start_seconds + 90)
        finalize_invoice(log.subscriptions[0], log, FEB, now=FEB.end)
        log.compact()
    assert copy == original
    assert json.dumps(snapshot(copy)) == json.dumps(snapshot(original))
    assert copy.record("calls", 1).timestamp == FEB.end_seconds


class Flat:
    """A pricing model of a user's own."""

    def charges(self, quantity):
        return [Charge("unit", quantity, None, 7, label=f"{quantity} for seven")]


def test_a_users_own_model_is_given_back():
    """A price with a model of the user's own is kept by its id, refused by name where it is
    missing, and bills again.
    """
    own = priced(Flat(), id="own")
    subscription = subscribed(own, priced(id="plain"))
    item = SubscriptionItem("gone", own, billing_thresholds=BillingThresholds(usage_gte=1))
    log = UsageLog([Subscription("sub", [*subscription.items, item], START)])
    log.subscribe(subscription, now=START)
    log.record("si_0", 5, now=START)
    data = json.loads(json.dumps(snapshot(log)))
    for prices in (None, {"another": own}):
        with pytest.raises(SnapshotError, match="prices: expected 'own'") as caught:
            restore(data, prices=prices)
        assert (caught.value.code, caught.value.param) == ("snapshot_needs_price", "prices")
    restored = restore(data, prices={"own": own})
    assert restored == log
    assert preview_invoice(subscription, restored, now=START).lines[0].description == "5 for seven"


def test_equal_logs_have_equal_text():
    """Logs that were filled through different doors, but hold the same, are written alike."""
    one, other = used((START, 1), (START + 5, 2), now=START + 5), UsageLog([subscribed()])
    other.append_columns(["si_0"] * 2, [1, 2], [START, "now"], now=START + 5)
    assert json.dumps(snapshot(one)) == json.dumps(snapshot(other))


@pytest.mark.parametrize("other", [5, None, used((START, 1)).as_of(0), MeterLog().as_of(0)])
def test_only_logs_have_snapshots(other):
    """A view, or anything else that is no log, is refused by name."""
    with pytest.raises(InvalidValueError) as caught:
        snapshot(other)
    assert (caught.value.code, caught.value.param) == ("parameter_invalid_object", "log")


@pytest.mark.parametrize("as_text", [json.dumps, lambda one: json.dumps(one).encode()])
def test_a_text_of_json_is_told_how_to_be_read(as_text):
    """Whoever wrote a snapshot to a file has a text: the sentence names json.loads, in both
    functions.
    """
    for restored in (metering_core.restore, metering_core.restore_meter_log):
        with pytest.raises(
            metering_core.errors.SnapshotError,
            match=r"\(give the object that json.loads makes of the text\)$",
        ):
            restored(as_text(metering_core.snapshot(metering_core.UsageLog([]))))


def test_a_snapshot_of_the_other_log_is_told_who_restores_it():
    """Each of the two functions names the other for the other's snapshot, and none for what is no
    snapshot.
    """
    usage, meters = (
        metering_core.snapshot(metering_core.UsageLog([])),
        metering_core.snapshot(metering_core.MeterLog([], [])),
    )
    with pytest.raises(
        metering_core.errors.SnapshotError, match=r"\(restore_meter_log restores that\)$"
    ):
        metering_core.restore(meters)
    with pytest.raises(metering_core.errors.SnapshotError, match=r"\(restore restores that\)$"):
        metering_core.restore_meter_log(usage)
    for other in ({"format": "x"}, {"format": ["x"]}, {}, None, 5):
        with pytest.raises(metering_core.errors.SnapshotError, match=r"received (?!.*restores).*$"):
            metering_core.restore(other)


@pytest.mark.parametrize("prices", [[], 5, {"own": 5}])
def test_prices_of_own_models_come_by_id(prices):
    """Prices that are no map of prices are refused, whether or not the snapshot asks for them."""
    written = metering_core.snapshot(metering_core.UsageLog())
    with pytest.raises(metering_core.InvalidValueError) as caught:
        metering_core.restore(written, prices=prices)
    assert caught.value.param == "prices"


@pytest.mark.parametrize("log", [UsageLog, MeterLog])
def test_no_log_was_told_less_than_nothing(log):
    """A number of facts below 0 is damage, also under a checksum that is right."""
    data = snapshot(log())
    changed("told", value=-1)(data)
    with pytest.raises(SnapshotError) as caught:
        (restore if log is UsageLog else metering_core.restore_meter_log)(data)
    assert caught.value.code == "snapshot_damaged"


def test_windows_of_peaks_are_in_their_order():
    """What compaction kept of peaks is read back window by window; out of order it is damage."""
    subscription = subscribed(priced(mode=AggregateUsage.HOURLY_PEAKS))
    log = used((START, 7), (START + 7200, 5), subscription=subscription)
    finalize_invoice(subscription, log, JAN, now=JAN.end)
    assert log.compact() == 2
    data = snapshot(log)
    assert restore(json.loads(json.dumps(data))) == log
    ((_, kept),) = data["content"]["compacted"]["si_0"]
    peaks = kept["partials"]["hourly_peaks"]
    assert len(peaks) == 2
    peaks.reverse()
    with pytest.raises(SnapshotError) as caught:
        restore(sealed(data, data["content"]))
    assert caught.value.code == "snapshot_damaged"

"""The log: one door in three sizes, threads, clocks, views, closing and compaction."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta

import pytest
from builders import DAY, FEB, JAN, MAR, MODES, START, four_modes, priced, subscribed, used

from metering_core import (
    AcceptancePolicy,
    ErrorCode,
    InvalidValueError,
    Meter,
    MeterEvent,
    MeterLog,
    Subscription,
    SubscriptionItem,
    UsageLog,
    UsageRecord,
    UsageRejectedError,
    explain,
    finalize_invoice,
    preview_invoice,
    restore,
    snapshot,
    summarize,
)
from metering_core.errors import UsageCompactedError
from metering_core.periods import SECONDS_MIN
from metering_core.usage import Cell
from metering_core.views import UsageReader

NOW = START + DAY
HUGE = 2**63 + 5


def total(log, period=JAN, item="si_0"):
    return summarize(next(s.item(item) for s in log.subscriptions), log, period).total_usage


# The three doors ----------------------------------------------------------------------------------


def by_record(log, rows):
    for item, quantity, timestamp, action in rows:
        log.record(item, quantity, timestamp=timestamp, action=action, now=NOW)


def by_append(log, rows):
    log.append((UsageRecord(*row) for row in rows), now=NOW)


def by_columns(log, rows):
    log.append_columns(*zip(*rows, strict=True), now=NOW)


DOORS = pytest.mark.parametrize("door", [by_record, by_append, by_columns])


@DOORS
def test_every_door_leaves_the_same_log(door):
    """Records come to the same log, equal in everything, through whichever door they come; "now" is
    resolved.
    """
    log, reference = UsageLog([subscribed()]), UsageLog([subscribed()])
    rows = [
        ("si_0", 5, START, "increment"),
        ("si_0", 7, "now", "set"),
        ("si_0", 1, NOW, "increment"),
    ]
    door(log, rows)
    by_record(reference, rows)
    assert log == reference
    assert log.cells("si_0", JAN) == (Cell(START, 5), Cell(NOW, 8))
    assert [one.received_at for one in log.records()] == [datetime(2024, 1, 2, tzinfo=UTC)] * 3


@DOORS
@pytest.mark.parametrize("order", [(1, HUGE, 2), (HUGE, 1, HUGE)])
def test_quantities_have_no_upper_bound(door, order):
    """Quantities above 64 bits are kept exactly, before and after small ones, through storage and
    compaction.
    """
    log = UsageLog([subscribed()])
    for quantity in order:
        door(log, [("si_0", quantity, START, "increment")])
    door(log, [("si_0", 1, NOW, "increment"), ("si_0", HUGE, NOW, "increment")])
    expected = sum(order) + 1 + HUGE
    assert total(log) == expected
    restored = restore(snapshot(log))
    assert restored == log
    door(restored, [("si_0", 3, NOW, "increment")])
    assert total(restored) == expected + 3
    assert finalize_invoice(subscribed(), log, JAN, now=JAN.end).total == expected
    assert log.compact() == 5
    assert total(log) == expected


def test_an_empty_batch_is_a_batch():
    """Nothing in, nothing out, whether as records or columns."""
    log = UsageLog([subscribed()])
    assert (
        len(log.append([], now=NOW))
        == len(log.append_columns([], [], [], [], [], now=NOW))
        == len(log)
        == 0
    )


def test_columns_take_what_records_take():
    """Columns may hold datetimes, "now" and integers of other libraries beside plain ints."""

    class Five:
        def __index__(self):
            return 5

    log = UsageLog([subscribed()])
    stamps = [datetime(2024, 1, 1, 12, tzinfo=UTC), "now", NOW]
    assert log.append_columns(["si_0"] * 3, [Five(), 6, 7], stamps, now=NOW).accepted == 3
    assert log.cells("si_0", JAN) == (Cell(START + DAY // 2, 5), Cell(NOW, 13))


def test_each_record_of_a_history_has_its_own_moment_of_receipt():
    """With received_at, each row is judged at its own moment, so that years of history pass the
    rules of their time.
    """
    log = UsageLog([subscribed()])
    receipts = log.append_columns(
        ["si_0"] * 3,
        [1, 2, 3],
        [START, JAN.end_seconds, START],
        received_at=[START, JAN.end, FEB.start],
    )
    assert [one.code for one in receipts] == [None, None, "timestamp_before_current_period"]
    assert [one.received_at for one in log.records()] == [JAN.start, FEB.start]


def test_a_retry_hears_what_was_accepted_first():
    """A record sent again, also as "now" and later, returns the first one's timestamp and changes
    nothing.
    """
    log = UsageLog([subscribed()])
    first = log.record("si_0", 5, id="a", now=NOW)
    assert (
        log.record("si_0", 5, id="a", now=NOW + 60) == first == UsageRecord("si_0", 5, NOW, id="a")
    )
    assert (len(log), log.records()[0].record.id) == (1, "a")
    with pytest.raises(UsageRejectedError, match="Try using a key other than 'a'"):
        log.record("si_0", 5, timestamp=NOW, id="a", now=NOW)


def test_a_refused_record_claims_no_id():
    """What was refused can be corrected and sent again under the same id; another item may use the
    same id too.
    """
    log = UsageLog([subscribed(priced(), priced(id="other"))])
    sent = [
        UsageRecord("si_0", 1, NOW + 1, id="a"),
        UsageRecord("si_0", 1, NOW, id="a"),
        UsageRecord("si_1", 2, NOW, id="a"),
    ]
    assert [one.outcome.value for one in log.append(sent, now=NOW)] == [
        "rejected",
        "accepted",
        "accepted",
    ]


# Time ---------------------------------------------------------------------------------------------


def test_the_clock_is_the_callers():
    """A log built with a clock asks it whenever no now is passed, in seconds or as a datetime with
    microseconds.
    """
    moments = iter([NOW, datetime(2024, 1, 2, 0, 0, 1, 500, tzinfo=UTC)])
    log = UsageLog([subscribed()], clock=lambda: next(moments))
    assert log.record("si_0", 1).timestamp == NOW
    assert log.append([UsageRecord("si_0", 1)]).accepted == 1
    assert log.records()[1].received_at == datetime(2024, 1, 2, 0, 0, 1, 500, tzinfo=UTC)


def test_time_may_go_back():
    """A now before the last one is judged by its own period, and the records keep the order in
    which they came.
    """
    log = UsageLog([subscribed()])
    for now in (JAN.end_seconds, START, FEB.end_seconds, JAN.end_seconds - 1):
        log.record("si_0", 1, now=now)
    assert [total(log, period) for period in (JAN, FEB, MAR)] == [2, 1, 1]
    assert [one.sequence for one in log.records("si_0", JAN)] == [2, 4]


def test_closed_periods_stay_closed():
    """After a period was finalized no record enters it, whatever now says, while the next period
    stays open.
    """
    log = used((START, 5))
    assert log.close_period("sub", JAN, now=JAN.end) == JAN.end
    assert log.close_period("sub", JAN, now=FEB.end) == JAN.end
    with pytest.raises(UsageRejectedError, match="finalized at 2024-02-01T00:00:00Z") as caught:
        log.record("si_0", 1, now=NOW)
    assert caught.value.code == "period_closed"
    log.record("si_0", 1, now=JAN.end)
    assert [total(log, JAN), total(log, FEB)] == [5, 1]


# Subscriptions ------------------------------------------------------------------------------------


def test_a_new_version_of_a_subscription_counts_from_now_on():
    """A dropped item takes no more usage but its records stay; it can come back; ended
    subscriptions refuse.
    """
    log = used((START, 5))
    new = Subscription("sub", [SubscriptionItem("si_new", priced())], START)
    log.subscribe(new, rebill=True)
    assert (
        log.append([UsageRecord("si_0", 1), UsageRecord("si_new", 1)], now=NOW)[0].code
        == "subscription_item_unknown"
    )
    assert [len(log.records("si_0")), len(log.records("si_new"))] == [1, 1]
    log.subscribe(subscribed(), rebill=True)
    log.record("si_0", 2, now=NOW)
    assert total(log) == 7
    log.subscribe(subscribed().canceled(NOW + 1))
    assert log.append([UsageRecord("si_0", 1)], now=NOW + 1)[0].code == "subscription_canceled"
    assert log.subscriptions == (subscribed().canceled(NOW + 1),)


def test_a_log_knows_several_subscriptions():
    """Items of different subscriptions and cycles are kept apart in one batch."""
    other = Subscription("other", [SubscriptionItem("si_other", priced())], START + 14 * DAY)
    log = UsageLog([subscribed(), other])
    now = START + 20 * DAY
    receipts = log.append_columns(
        ["si_0", "si_other"] * 2, [1, 2, 3, 4], [START, START, now, now], now=now
    )
    assert [one.code for one in receipts] == [None, "timestamp_before_current_period", None, None]
    assert [len(log.records("si_0")), len(log.records("si_other"))] == [2, 1]
    assert repr(log) == "<UsageLog: 2 subscriptions, 3 records, sequence 3>"


# Questions ----------------------------------------------------------------------------------------


def test_summaries_are_newest_first():
    """Every elapsed period has a summary, also an empty one; the open one has no end, a finalized
    one its invoice's id.
    """
    always = subscribed(start_date=SECONDS_MIN)
    log = used((START - 40 * DAY, 1), (START, 5), (FEB.end_seconds, 7), subscription=always)
    finalize_invoice(always, log, JAN, now=FEB.end)
    found = log.summaries("si_0", now=MAR.start_seconds + 5)
    assert [one.total_usage for one in found] == [7, 0, 5, 0, 1]
    assert [one.end for one in found[:3]] == [None, FEB.end, JAN.end]
    assert [one.invoice for one in found] == [None, None, f"in_sub_{START}", None, None]
    assert [
        one.total_usage for one in log.summaries("si_0", now=MAR.start_seconds + 5, limit=2)
    ] == [7, 0]


def test_summaries_cover_the_life_of_the_subscription():
    """They begin at the start date and stop at the end; where neither start nor usage is known, at
    the anchor's period.
    """
    alive = subscribed(start_date=START + DAY, ended_at=FEB.start_seconds + DAY)
    found = UsageLog([alive]).summaries("si_0", now=MAR.end)
    assert [(one.start, one.end) for one in found] == [
        (FEB.start, FEB.start + timedelta(days=1)),
        (START_PLUS_DAY, JAN.end),
    ]
    assert [one.start for one in UsageLog([subscribed()]).summaries("si_0", now=FEB.start)] == [
        FEB.start,
        JAN.start,
    ]
    always = UsageLog([subscribed(start_date=SECONDS_MIN)])
    assert [one.start for one in always.summaries("si_0", now=FEB.start)] == [FEB.start, JAN.start]
    assert UsageLog([subscribed()]).summaries("si_0", now=START - 1) == []


START_PLUS_DAY = datetime(2024, 1, 2, tzinfo=UTC)


def test_records_by_item_and_period():
    """Records can be asked for all together, by item, by period, and by both."""
    log = UsageLog([four_modes()])
    for now, mode in ((START, "sum"), (START, "max"), (JAN.end_seconds, "sum")):
        log.record(mode, 1, now=now)
    asked = [(), ("sum",), (None, JAN), ("sum", JAN), ("last_ever",)]
    assert [[one.sequence for one in log.records(*question)] for question in asked] == [
        [1, 2, 3],
        [1, 3],
        [1, 2],
        [1],
        [],
    ]


# Views --------------------------------------------------------------------------------------------


LOGS = {
    "records": lambda: used((START, 1), (NOW, 10)),
    "events": lambda: metered(2),
    "columns": lambda: in_columns(2),
}


def metered(events):
    """Return a meter log of so many events."""
    log = MeterLog([Meter(id="mtr_tokens", event_name="tokens")])
    payload = {"stripe_customer_id": "cus_1", "value": "1"}
    log.append([MeterEvent("tokens", payload, timestamp=START)] * events, now=START)
    return log


def in_columns(records):
    """Return columnar usage of so many records."""
    pytest.importorskip("numpy", reason="needs the extra columnar")
    from metering_core.columnar import ColumnarUsage  # noqa: PLC0415 - not everywhere installed

    usage = ColumnarUsage([subscribed()])
    usage.append([UsageRecord("si_0", 1, timestamp=START)] * records, now=START)
    return usage


@pytest.mark.parametrize("made", LOGS.values(), ids=LOGS)
def test_a_number_is_no_moment(made):
    """Seconds, milliseconds and any number that the log has not given yet are refused by name, of a
    log as of its views.
    """
    log = made()
    for usage in (log, log.as_of(1), log.as_of(JAN.end)):
        for number in (3, START, START * 1000):
            with pytest.raises(InvalidValueError) as caught:
                usage.as_of(number)
            expected = (
                "an aware datetime for a moment, for a number is a sequence number, here at most 2"
            )
            assert str(caught.value) == f"as_of: expected {expected}, received {number} (int)"
            assert (caught.value.code, caught.value.param) == (
                ErrorCode.PARAMETER_INVALID_INTEGER,
                "as_of",
            )
        assert usage.as_of(2).sequence == usage.sequence


@pytest.mark.parametrize(
    "limit", ["2024-01-01T00:00:00Z", date(2024, 1, 1), 1704067200.0, None, True, -1]
)
@pytest.mark.parametrize("made", LOGS.values(), ids=LOGS)
def test_what_bounds_a_view_is_said(made, limit):
    """Text, a date and a float hear of both limits that are taken."""
    expected = (
        r"^as_of: expected an aware datetime, or a sequence number: an integer of at least 0, "
        r"received "
    )
    for usage in (made(), made().as_of(1)):
        with pytest.raises(InvalidValueError, match=expected):
            usage.as_of(limit)


def test_a_view_shows_the_log_as_it_was():
    """A view by number or by moment shows those records and no others, is itself a source of bills,
    and can be narrowed.
    """
    log = used((START, 1), (NOW, 10), (NOW + 60, 100))
    first, second = log.as_of(1), log.as_of(datetime(2024, 1, 2, tzinfo=UTC))
    assert [total_of(view) for view in (first, second, log.as_of(0), log.as_of(3))] == [
        1,
        11,
        0,
        111,
    ]
    narrowed = [
        second.as_of(1),
        second.as_of(JAN.start),
        first.as_of(JAN.end),
        second.as_of(JAN.end),
    ]
    assert [total_of(view) for view in narrowed] == [1, 1, 1, 11]
    log.record("si_0", 1000, now=NOW + 90)
    log.record(
        "si_0", 1000, now=START
    )  # Received later, dated earlier: it may not slip into the view of a moment.
    assert [total_of(view) for view in (first, second)] == [1, 11]
    assert [len(view.records()) for view in (first, second)] == [1, 2]
    assert preview_invoice(subscribed(), second, now=NOW).total == 11
    assert repr(first) == "<UsageView up to sequence 1>"
    assert "received by 2024-01-02" in repr(second)


def total_of(view):
    return summarize(subscribed().items[0], view, JAN).total_usage


def test_finalizing_a_view_closes_nothing():
    """Last month's invoice comes out of a view again, while the log stays as it is."""
    log = used((START, 1), (NOW, 10))
    assert finalize_invoice(subscribed(), log.as_of(1), JAN, now=JAN.end).total == 1
    log.record("si_0", 1, now=NOW)
    assert total(log) == 12


def test_a_view_through_compaction_is_refused_by_name():
    """A view that shows a compacted period whole still answers; one that would cut it says so,
    whatever it was asked before.
    """
    log = used((START, 1), (NOW, 10), (FEB.start_seconds, 100), (FEB.start_seconds, 1000))
    before, cut, whole = log.as_of(0), log.as_of(1), log.as_of(3)
    by_moment = log.as_of(JAN.start)
    assert [total_of(view) for view in (before, cut, whole, by_moment)] == [0, 1, 11, 1]
    assert len(cut.records("si_0", JAN)) == 1
    finalize_invoice(subscribed(), log, JAN, now=FEB.end)
    log.compact()
    assert [total_of(view) for view in (before, whole, log.as_of(2))] == [0, 11, 11]
    for view in (cut, by_moment, log.as_of(1)):
        with pytest.raises(UsageCompactedError):
            total_of(view)
        with pytest.raises(UsageCompactedError):
            view.records("si_0", JAN)
        assert summarize(subscribed().items[0], view, FEB).total_usage == 0


def test_a_view_by_moment_knows_what_was_finalized_then():
    """The summaries of an earlier moment do not show an invoice that came later."""
    log = used((START, 1))
    finalize_invoice(subscribed(), log, JAN, now=FEB.end)
    later, then = log.as_of(FEB.end), log.as_of(JAN.end)
    assert [view.summaries("si_0", now=FEB.end)[-1].invoice for view in (log, later, then)] == [
        f"in_sub_{START}"
    ] * 2 + [None]


# Compaction ---------------------------------------------------------------------------------------


def test_compaction_keeps_totals_and_ids():
    """Only records of finalized periods go; bills stay, retries are still duplicates, numbers go
    on.
    """
    log, each = UsageLog([four_modes()]), len(MODES)
    for now in (START, JAN.end_seconds, FEB.end_seconds):
        log.append([UsageRecord(mode, 5, now, id=f"{now}") for mode in MODES], now=now)
    bills = [finalize_invoice(four_modes(), log, period, now=MAR.end) for period in (JAN, FEB)]
    assert [
        log.compact(until=JAN.start),
        log.compact(until=JAN.end),
        log.compact(),
        log.compact(),
    ] == [0, each, each, 0]
    assert [
        finalize_invoice(four_modes(), log, period, now=MAR.end) for period in (JAN, FEB)
    ] == bills
    assert log.append([UsageRecord("sum", 5, START, id=f"{START}")], now=MAR.start)[0].sequence == 1
    log.record("sum", 1, now=MAR.start)
    assert [one.sequence for one in log.records("sum", MAR)] == [2 * each + 1, 3 * each + 1]
    assert (len(log), log.sequence) == (each + 1, 3 * each + 1)
    assert log.summaries("sum", now=MAR.start)[0].total_usage == 6
    with pytest.raises(UsageCompactedError):
        explain(bills[0].lines[0])


def test_last_ever_looks_back_over_periods_and_compaction():
    """The latest value stands through empty periods, open, finalized and compacted ones, and a set
    to 0 ends it.
    """
    subscription = subscribed(priced(mode="last_ever"))
    log = used((START, 5), (START + 9, 7), subscription=subscription)
    assert [total(log, period) for period in (JAN, FEB, MAR)] == [7, 7, 7]
    for period in (JAN, FEB):
        assert finalize_invoice(subscription, log, period, now=FEB.end).total == 7
    assert log.compact() == 2
    assert [total(log, period) for period in (JAN, FEB, MAR)] == [7, 7, 7]
    assert total(restore(snapshot(log)), MAR) == 7
    log.record("si_0", 0, action="set", now=MAR.start)
    assert [total(log, period) for period in (FEB, MAR)] == [7, 0]


def test_moved_late_records_are_compacted_with_their_period():
    """A late record that is billed in the open period goes when that period goes, and the log stays
    equal to its copy.
    """
    policy = AcceptancePolicy(late_grace=timedelta(hours=1), late_attribution="open_period")
    log = UsageLog([subscribed()], policy=policy)
    finalize_invoice(subscribed(), log, JAN, now=JAN.end)
    log.record("si_0", 3, timestamp=JAN.end_seconds - 1, now=JAN.end)
    log.record("si_0", 4, now=JAN.end)
    assert restore(snapshot(log)) == log
    assert [cell.quantity for cell in log.cells("si_0", FEB)] == [3, 4]
    assert finalize_invoice(subscribed(), log, FEB, now=FEB.end).total == 7
    assert log.compact() == 2
    assert restore(snapshot(log)) == log
    assert total(log, FEB) == 7


def test_what_a_shortened_subscription_no_longer_covers_is_not_compacted():
    """Records after the end that a later version of the subscription set stay, because the invoice
    does not cover them.
    """
    log = used((START, 1), (NOW, 10))
    short = subscribed(ended_at=NOW)
    log.subscribe(short, rebill=True)
    assert finalize_invoice(short, log, short.period_at(START), now=JAN.end).total == 1
    assert log.compact() == 0
    assert len(log) == 2


# Threads ------------------------------------------------------------------------------------------


def test_threads_append_and_ask_at_once():
    """Eight threads at every door lose nothing: numbers are unique and without gaps, receipts
    agree, ids are claimed once.
    """
    log = UsageLog([four_modes()], clock=lambda: NOW)
    rounds = 40

    def work(worker):
        numbers = []
        for turn in range(rounds):
            batch = [
                UsageRecord(mode, 1, START + turn, id=None if turn % 2 else f"{turn}")
                for mode in MODES
            ]
            receipts = log.append(batch)
            numbers += [(one.outcome.value, one.sequence) for one in receipts]
            log.record("sum", 1, timestamp=START)
            columns = log.append_columns(["max"] * 3, [worker] * 3, [START + turn] * 3, ["set"] * 3)
            numbers += [(one.outcome.value, one.sequence) for one in columns]
            assert log.partial(four_modes().items[0], JAN) > 0
        return numbers

    with ThreadPoolExecutor(8) as pool:
        receipts = [one for numbers in pool.map(work, range(8)) for one in numbers]
    accepted = [sequence for outcome, sequence in receipts if outcome == "accepted"]
    first_of_each_id = rounds // 2 * len(MODES)
    assert (
        len(accepted)
        == len(set(accepted))
        == 8 * rounds // 2 * len(MODES) + first_of_each_id + 8 * rounds * 3
    )
    assert log.sequence == len(log) == len(accepted) + 8 * rounds
    assert [one.sequence for one in log.records()] == list(range(1, len(log) + 1))
    assert total(log, item="sum") == 8 * rounds // 2 + rounds // 2 + 8 * rounds
    assert restore(snapshot(log)) == log


@pytest.mark.parametrize(
    "ask",
    [
        UsageReader._source,
        lambda reader: reader._cells("si_0"),
        lambda reader: reader._rows("si_0"),
    ],
)
def test_a_reader_needs_something_to_read(ask):
    """The questions are shared by the log and its views; by themselves they have nothing to ask."""
    with pytest.raises(NotImplementedError):
        ask(UsageReader())


def test_logs_are_compared_by_content():
    """A log equals another with the same content, and nothing else; it is no key of a dict."""
    log = used((START, 1))
    assert log == used((START, 1))
    assert log != used((START, 2))
    assert log != "log"
    with pytest.raises(TypeError):
        hash(log)
    with pytest.raises(InvalidValueError):
        UsageLog().record("si_0", 1)

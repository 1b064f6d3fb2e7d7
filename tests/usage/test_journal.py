"""What a log took is data, and a log that takes it is the same log: numbers, receipts, invoices."""

from __future__ import annotations

import json
from datetime import datetime, timedelta

import attrs
import pytest
import test_meter_snapshots
from builders import DAY, FEB, JAN, START, priced, subscribed
from hypothesis import given, settings
from hypothesis import strategies as st
from journals import check_same, empty_like, text_of, through_text, twin_of
from planting import each, expect_found, forbidden_by
from test_invoicing import Steps

import metering_core as mc
from metering_core.journal import Change, ClosedPeriod
from metering_core.testing import strategies


def usage_history():
    """Return a usage log with late usage, ids, sets, a changed subscription and a closed period."""
    tolerant = mc.AcceptancePolicy(late_grace=timedelta(hours=1), late_attribution="open_period")
    log = mc.UsageLog([subscribed()], policy=tolerant)
    log.record("si_0", 5, timestamp=START + 5, id="a", now=START + DAY)
    log.record("si_0", 7, id="now", now=START + DAY)
    log.append(
        [mc.UsageRecord("si_0", 3, START + 5, "set"), mc.UsageRecord("si_9", 1, START)],
        now=datetime.fromisoformat("2024-01-03T00:00:00.000007+00:00"),
    )
    mc.finalize_invoice(subscribed(), log, JAN, now=JAN.end)
    log.record("si_0", 2, timestamp=JAN.end_seconds - 1, now=JAN.end_seconds + 60)
    log.subscribe(subscribed(priced(), priced(id="more")), now=FEB.end)
    log.record("si_1", 2**70, now=FEB.end)
    return log


HISTORIES = {"records": usage_history, "events": test_meter_snapshots.hand_built}


@pytest.mark.parametrize("history", HISTORIES.values(), ids=HISTORIES)
def test_a_log_is_built_from_what_another_took(history):
    """All changes, kept as text, make an equal log: the same bytes, invoices and answers to
    retries.
    """
    log = history()
    twin = twin_of(log)
    check_same(log, twin)
    subscription = log.subscriptions[0]
    for one in (JAN, FEB):
        assert log.stored_invoice(subscription.id, one) == twin.stored_invoice(subscription.id, one)
    if isinstance(log, mc.UsageLog):
        again = [
            mc.UsageRecord("si_0", 7, "now", id="now"),
            mc.UsageRecord("si_0", 6, START + 5, id="a"),
        ]
        receipts = [one.append(again, now=FEB.end) for one in (log, twin)]
        assert receipts[0] == receipts[1]
        assert [one.outcome for one in receipts[0]] == ["duplicate", "rejected"]
        assert [str(mc.explain(line, usage=twin)) for line in log.stored_invoice("sub", JAN).lines]


@pytest.mark.parametrize("history", HISTORIES.values(), ids=HISTORIES)
def test_a_change_that_is_there_already_changes_nothing(history):
    """Applied again, in any order, changes have no effect; whoever was interrupted applies all."""
    log = history()
    before = text_of(log)
    for change in reversed(log.changes()):
        assert not log.apply(through_text(change))
    assert text_of(log) == before


@pytest.mark.parametrize("history", HISTORIES.values(), ids=HISTORIES)
def test_a_log_says_what_it_took_since_a_number(history):
    """The changes after a number are the last of all changes; a number beyond is refused."""
    log = history()
    changes = log.changes()
    for number in range(len(changes) + 1):
        assert log.changes(since=number) == changes[number:]
    for wrong in (-1, len(changes) + 1, "1", None, 1.5):
        with pytest.raises(mc.InvalidValueError) as caught:
            log.changes(since=wrong)
        assert (caught.value.code, caught.value.param) == ("parameter_invalid_integer", "since")


@pytest.mark.parametrize("history", HISTORIES.values(), ids=HISTORIES)
def test_what_does_not_fit_is_refused_and_changes_nothing(history):
    """A gap, another change under a number that is taken, and what the log cannot take."""
    log = history()
    changes, last, before = log.changes(), log.last_change, text_of(log)
    other = attrs.evolve(changes[-2], number=last)
    of_both = {
        Change(last + 2, subscription=log.subscriptions[0]): "change[number]",
        other: "change",
        Change(last + 1, customer="cus"): "change",
    }
    if isinstance(log, mc.UsageLog):
        event = mc.MeterEvent("calls", {"value": "1"})
        again = next(one for one in changes if one.record is not None and one.record.id)
        of_both |= {
            Change(last + 1, received_at=FEB.end, event=event): "change",
            Change(last + 1, meter=mc.Meter("m", "calls")): "change",
            attrs.evolve(again, number=last + 1): "change",
            Change(last + 1, received_at=FEB.end, record=mc.UsageRecord("si_0", 1, 5)): "timestamp",
        }
    else:
        canceled = next(one.cancellation for one in changes if one.cancellation is not None)
        late = attrs.evolve(canceled, sequence=log.sequence + 1)
        again = [one for one in changes if one.event is not None and one.event.identifier][-1]
        del of_both[Change(last + 1, customer="cus")]
        of_both |= {
            Change(last + 1, received_at=FEB.end, record=mc.UsageRecord("si", 1)): "change",
            Change(last + 1, received_at=FEB.end, cancellation=canceled): "change",
            Change(last + 1, received_at=FEB.end, cancellation=late): "change",
            attrs.evolve(again, number=last + 1): "change",
            Change(
                last + 1, received_at=FEB.end, event=mc.MeterEvent("nobody's", {})
            ): "event_name",
        }
    for change, param in of_both.items():
        with pytest.raises(mc.MeteringError) as caught:
            log.apply(change)
        assert caught.value.param == param, change
        assert text_of(log) == before
    with pytest.raises(mc.InvalidValueError):
        log.apply(5)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"customer": "c", "meter": mc.Meter("m", "calls")},
        {"customer": "c", "received_at": FEB.end},
        {"record": mc.UsageRecord("si", 1)},
    ],
)
def test_a_change_says_one_thing(fields):
    """A change is one entry with its moment, or one fact without."""
    with pytest.raises(mc.InvalidValueError) as caught:
        Change(1, **fields)
    assert caught.value.param == "change"


def test_a_restored_log_goes_on_where_its_snapshot_was_taken():
    """A snapshot and what came since make the same log; what came before is not known one by one
    any more, and changes of then change nothing.
    """
    for history, restore in (
        (usage_history, mc.restore),
        (HISTORIES["events"], mc.restore_meter_log),
    ):
        log = history()
        number, kept = log.last_change, text_of(log)
        first, subscription = log.changes()[0], log.subscriptions[0]
        mc.finalize_invoice(
            subscription, log, subscription.period_at(FEB.end), now=FEB.end + 90 * timedelta(days=1)
        )
        restored = restore(json.loads(kept))
        assert restored.last_change == number
        assert not restored.apply(first)
        for change in log.changes(since=number):
            assert restored.apply(through_text(change))
        assert restored == log
        assert text_of(restored) == text_of(log)
        assert restored.changes(since=number) == log.changes(since=number)
        with pytest.raises(mc.InvalidValueError, match=f"expected a number from {number} to"):
            restored.changes()


def test_what_was_compacted_is_not_known_one_by_one():
    """A compacted log says what it took since; its twin, which kept all, bills the same."""
    log = usage_history()
    twin = twin_of(log)
    assert log.compact() > 0
    number = log.last_change
    log.record("si_0", 1, now=FEB.end)
    assert [change.number for change in log.changes(since=number)] == [number + 1]
    assert twin.apply(*log.changes(since=number))
    with pytest.raises(mc.InvalidValueError, match="expected a number from"):
        log.changes(since=number - 1)


def test_a_period_that_was_closed_without_an_invoice_is_closed():
    """A closing has the periods that were closed together, with their invoices where there are."""
    log = mc.UsageLog([subscribed()])
    log.close_period("sub", JAN, now=FEB.end)
    assert log.changes()[-1].closed == (ClosedPeriod("sub", JAN, None),)
    check_same(log, twin_of(log))


def test_events_of_anybody_name_no_customers():
    """Where any customer's events are accepted, a customer is no fact, and is refused as one."""
    log = mc.MeterLog([mc.Meter("m", "calls")])
    log.add_customer("cus")
    assert [change.kind for change in log.changes()] == ["meter"]
    with pytest.raises(mc.InvalidValueError, match="change: expected what this log takes"):
        log.apply(Change(2, customer="cus"))


def test_a_price_of_ones_own_is_told_by_its_id():
    """A pricing model that no shape can say is written by the price's id, and given by who reads."""
    own = priced(Steps(), id="own")
    log = mc.UsageLog([subscribed(own)])
    log.record("si_0", 2001, now=START)
    mc.finalize_invoice(log.subscriptions[0], log, JAN, now=JAN.end)
    twin = mc.UsageLog()
    for change in json.loads(json.dumps([one.to_dict() for one in log.changes()])):
        assert twin.apply(Change.from_dict(change, {"own": own}))
    check_same(log, twin)
    told = log.changes()[0].to_dict()
    assert told["prices"] == {"own": "own"}
    with pytest.raises(mc.InvalidValueError, match="one that is given"):
        Change.from_dict(told)
    del told["subscription"]["items"][0]["price"]
    with pytest.raises(mc.InvalidValueError) as caught:
        Change.from_dict(told, {"own": own})
    assert caught.value.param == "subscription[items][plan]"


class CrashError(Exception):
    """The process ends."""


class Service:
    """A log with a journal beside it, which is written after the deed and before the answer."""

    def __init__(self, log, crashes):
        self.log, self.crashes, self.journal, self.log_like = log, iter(crashes), [], log

    def do(self, verb, *args, **options):
        """Do something, however often it takes: the process may end before or after the journal."""
        while True:
            try:
                return self._once(verb, *args, **options)
            except CrashError:
                self.log = empty_like(self.log_like)
                for text in self.journal:
                    self.log.apply(Change.from_dict(json.loads(text)))

    def _once(self, verb, *args, **options):
        known = len(self.journal)
        crash = next(self.crashes, None)
        answer = getattr(self.log, verb)(*args, **options)
        if crash == "before":
            raise CrashError
        self.journal += [json.dumps(one.to_dict()) for one in self.log.changes(since=known)]
        if crash == "after":
            raise CrashError
        return answer


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.sampled_from(["before", "after", None]), max_size=12),
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 40)), max_size=8),
)
def test_a_service_that_ends_anywhere_bills_everything_once(crashes, used):
    """Whenever the process ends, before the journal is written or after, a retry with an id leaves
    what would be there had it never ended.
    """
    services = [Service(mc.UsageLog(), crashes), Service(mc.UsageLog(), ())]
    for service in services:
        service.do("subscribe", subscribed())
        for number, (quantity, day) in enumerate(used):
            at = START + day * DAY
            record = mc.UsageRecord("si_0", quantity, at, id=f"{number}")
            service.do("append", [record], now=at)
        service.do("close_period", "sub", JAN, now=JAN.end)
    disturbed, calm = services
    assert disturbed.log == calm.log
    records = [
        [one.record for one in log.changes() if one.record is not None]
        for log in (disturbed.log, calm.log)
    ]
    assert records[0] == records[1]
    assert len(records[0]) == len(calm.log)


@settings(deadline=None, max_examples=40)
@given(strategies.subscriptions(ends=True).flatmap(strategies.usage_logs))
def test_any_log_of_records_is_built_from_its_changes(log):
    """Whatever was appended, refused, closed and compacted not: the changes make the same log."""
    if log.known_from == 0:
        check_same(log, twin_of(log))


@settings(deadline=None, max_examples=40)
@given(strategies.meter_logs())
def test_any_log_of_events_is_built_from_its_changes(log):
    """Whatever was appended, canceled and told: the changes make the same log."""
    check_same(log, twin_of(log))


def check_histories():
    """Check both histories, and say what the law says of them."""
    for history in HISTORIES.values():
        log = history()
        check_same(log, twin_of(log))
        for change in log.changes():
            assert not log.apply(change)
        last = log.changes()[-1]
        other = attrs.evolve(log.changes()[0], number=last.number)
        with pytest.raises(mc.InvalidValueError):
            log.apply(other)
        with pytest.raises(mc.InvalidValueError):
            log.apply(attrs.evolve(last, number=last.number + 2))


DEFECTS = forbidden_by(
    "changes",
    *(
        ("an entry counts no facts", "journal.Journaled._changes_after", "entry[0] + last", "entry[0]"),
        ("a fact comes before its entry", "journal.Journaled._changes_after", "entry[0] <= after", "entry[0] < after"),
        ("entries before a fact count it", "journal.Journaled._changes_after", "entry[0] + one - 1", "entry[0] + one"),
        ("a gap is taken", "journal.Journaled.apply", "change.number > last + 1", "change.number > last + 3"),
        ("another change under a number is taken", "journal.Journaled._require_same", "own != change", "False"),
        ("facts are told again", "journal.Journaled.apply", "change.number <= last", "change.number < last"),
        ("invoices are not kept", "journal.Journaled._keep_invoices", "one.invoice is not None", "False"),
        ("late usage is billed by nobody", "journal.Journaled._keep_invoices", "settles=one.is_settled", "settles=False"),
        ("now is a timestamp", "log.UsageLog._entries", '"now" if as_now else', "False or"),
        ("ids are left out", "log.UsageLog._entries", "sent.get(number, (None, False))", "(None, False)"),
        ("seconds are enough", "log.UsageLog._entries", "microseconds=store.received[row]", "seconds=store.received[row] // 10**6"),
        ("a set adds", "log.UsageLog._entries", "store.sets[row]", "False"),
        ("an event's now is a timestamp", "meter_log.MeterLog._events_after", "row in self._sent_as_now", "False"),
        ("cancellations are left out", "meter_log.MeterLog._entries", "one.sequence > after", "False"),
    ),
)  # fmt: skip
"""What is wrong, where, what is right, and what is written instead."""


@each(DEFECTS)
def test_planted_defects_die(defect):
    """The histories above find each of these slips."""
    expect_found(defect, check_histories, AssertionError, mc.MeteringError, pytest.fail.Exception)

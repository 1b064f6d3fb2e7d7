"""The log as a state machine: whatever is done in whatever order, it says what a plain list of
accepted records says.

Goal: no order of appends, retries, clock steps, finalized periods, compaction, snapshots and views
makes the log say something that its records do not. Method: a model that keeps every accepted
record in a list and recomputes each answer from scratch. Billing periods are days, so the model
finds one by a division.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from fractions import Fraction

import oracle
import pytest
from builders import DAY, MODES, START
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from journals import empty_like, follow, text_of

from metering_core import (
    AcceptancePolicy,
    BillingPeriod,
    ErrorCode,
    Outcome,
    Price,
    Recurring,
    Subscription,
    SubscriptionItem,
    UsageLog,
    UsageRecord,
    UsageRejectedError,
    finalize_invoice,
    preview_invoice,
    restore,
    snapshot,
    summarize,
)
from metering_core.errors import UsageCompactedError
from metering_core.periods import from_unix_seconds

GRACE = 3 * 3600


def item_of(mode):
    recurring = Recurring(interval="day", aggregate_usage=mode)
    return SubscriptionItem(
        mode, Price.per_unit(mode, currency="usd", unit_amount=1, recurring=recurring)
    )


SUBSCRIPTION = Subscription("sub", [item_of(mode) for mode in MODES], START)
POLICIES = {
    "strict": AcceptancePolicy(),
    "own period": AcceptancePolicy(late_grace=timedelta(seconds=GRACE)),
    "open period": AcceptancePolicy(
        late_grace=timedelta(seconds=GRACE), late_attribution="open_period"
    ),
}
ROWS = st.lists(
    st.tuples(
        st.sampled_from([*MODES, "nobody"]),
        st.integers(0, 5),
        # Relative to now: at now, in the future, just before, about a period ago; None is "now".
        st.sampled_from([None, 0, 1, -1, -60, -3600, -DAY // 2, -DAY, -DAY - 60, -3 * DAY]),
        st.sampled_from(["increment", "increment", "set"]),
        st.sampled_from([None, None, None, "a", "b", "c"]),
    ),
    min_size=1,
    max_size=6,
)


def day_of(timestamp):
    return (timestamp - START) // DAY


def period_of(day):
    return BillingPeriod(START + day * DAY, START + (day + 1) * DAY)


@dataclass(frozen=True)
class Kept:
    """An accepted record, in the model."""

    sequence: int
    received: int
    item: str
    quantity: int
    timestamp: int
    sent_timestamp: object
    action: str
    id: str | None
    day: int

    def content(self):
        return self.quantity, self.sent_timestamp, self.action


@dataclass
class View:
    """A view, what bounds it, and the records it shows."""

    view: object
    limits: tuple
    shows: list


def standing(kept):
    values = {}
    for one in kept:
        values[one.timestamp] = (
            one.quantity if one.action == "set" else values.get(one.timestamp, 0) + one.quantity
        )
    return values


def total(kept, mode, day):
    """Recompute one item's quantity in one day's period from a list of accepted records."""
    # A late record that was moved to a later period is a cell of that one, whatever its timestamp.
    by_day = {
        one_day: standing([one for one in kept if one.item == mode and one.day == one_day])
        for one_day in {k.day for k in kept}
    }
    inside = by_day.get(day, {})
    cells = (
        {t: q for d, c in by_day.items() if d <= day for t, q in c.items()}
        if mode == "last_ever"
        else inside
    )
    return oracle.measured(mode, cells)


def cents(kept, day):
    """Return what each mode's line owes at a cent a unit; the share of a cent that an average
    leaves is rounded.
    """
    return [oracle.whole(Fraction(total(kept, mode, day))) for mode in MODES]


class LogMachine(RuleBasedStateMachine):
    """The log beside a plain list of what it accepted."""

    @initialize(policy=st.sampled_from(sorted(POLICIES)))
    def start(self, policy):
        self.policy = POLICIES[policy]
        self.log = UsageLog([SUBSCRIPTION], policy=self.policy)
        self.follower = empty_like(self.log)
        self.now = (
            START + DAY + 5
        )  # So that the late grace of the first period is in reach, and nothing is before the anchor.
        self.kept = []
        self.closed = {}
        self.compacted = set()  # (item, day)
        self.views = []

    # What the model says of one record ------------------------------------------------------------

    def judge(self, item, quantity, sent, action, record_id):
        """Return outcome or code, and where an accepted record is billed; the rules restated on
        days.
        """
        timestamp = self.now if sent == "now" else sent
        for one in self.kept:
            if record_id is not None and (one.item, one.id) == (item, record_id):
                return (
                    Outcome.DUPLICATE
                    if one.content() == (quantity, sent, action)
                    else ErrorCode.ID_REUSED
                ), one
        if item == "nobody":
            return ErrorCode.SUBSCRIPTION_ITEM_UNKNOWN, None
        if timestamp > self.now:
            return ErrorCode.TIMESTAMP_IN_FUTURE, None
        today, day = day_of(self.now), day_of(timestamp)
        is_grace = self.now - (START + today * DAY) < self.policy.late_grace.total_seconds()
        if day != today and not (is_grace and day == today - 1):
            return ErrorCode.TIMESTAMP_BEFORE_CURRENT_PERIOD, None
        if day in self.closed or (
            item == "last_ever" and any(day < closed for closed in self.closed)
        ):
            if not (
                is_grace
                and self.policy.late_attribution == "open_period"
                and today not in self.closed
            ):
                return ErrorCode.PERIOD_CLOSED, None
            if item != "sum" or action == "set":
                return ErrorCode.LATE_USAGE_NOT_BILLABLE, None
            day = today
        one = Kept(
            len(self.kept) + 1, self.now, item, quantity, timestamp, sent, action, record_id, day
        )
        self.kept.append(one)
        return Outcome.ACCEPTED, one

    def check(self, receipt, row):
        verdict, one = self.judge(*row)
        assert (receipt.code or receipt.outcome) == verdict, (row, receipt)
        if verdict in {Outcome.ACCEPTED, Outcome.DUPLICATE}:
            assert receipt.sequence == one.sequence

    def sent(self, rows):
        return [
            (item, quantity, "now" if ago is None else self.now + ago, action, key)
            for item, quantity, ago, action, key in rows
        ]

    # What can happen ------------------------------------------------------------------------------

    @rule(rows=ROWS)
    def append(self, rows):
        rows = self.sent(rows)
        receipts = self.log.append([UsageRecord(*row) for row in rows], now=self.now)
        for receipt, row in zip(receipts, rows, strict=True):
            self.check(receipt, row)

    @rule(rows=ROWS)
    def append_columns(self, rows):
        rows = self.sent(rows)
        items, quantities, timestamps, actions, ids = zip(*rows, strict=True)
        receipts = self.log.append_columns(
            items, quantities, timestamps, actions, ids if any(ids) else None, now=self.now
        )
        for receipt, row in zip(receipts, rows, strict=True):
            self.check(receipt, row)

    @rule(rows=ROWS)
    def record(self, rows):
        item, quantity, timestamp, action, key = self.sent(rows)[0]
        verdict, one = self.judge(item, quantity, timestamp, action, key)
        try:
            record = self.log.record(
                item, quantity, timestamp=timestamp, action=action, id=key, now=self.now
            )
        except UsageRejectedError as error:
            assert error.code == verdict  # noqa: PT017 - both outcomes are judged
        else:
            assert verdict in {Outcome.ACCEPTED, Outcome.DUPLICATE}
            assert (record.timestamp, record.quantity, record.id) == (
                one.timestamp,
                one.quantity,
                one.id,
            )

    @precondition(lambda self: any(one.id for one in self.kept))
    @rule(data=st.data(), other=st.integers(0, 1))
    def retry(self, data, other):
        one = data.draw(st.sampled_from([one for one in self.kept if one.id]))
        self.check(*self.again(one, one.quantity + other))

    def again(self, one, quantity):
        row = (one.item, quantity, one.sent_timestamp, one.action, one.id)
        return self.log.append([UsageRecord(*row)], now=self.now)[0], row

    @rule(seconds=st.sampled_from([1, 60, 3600, DAY // 2, DAY, -1, -7200]))
    def step(self, seconds):
        self.now = max(START + DAY, self.now + seconds)

    @rule(before=st.integers(0, 1))
    def step_to_boundary(self, before):
        self.now = START + (day_of(self.now) + 1) * DAY - before

    @precondition(lambda self: day_of(self.now) > 0)
    @rule(data=st.data())
    def finalize(self, data):
        day = data.draw(st.integers(0, day_of(self.now) - 1))
        invoice = finalize_invoice(SUBSCRIPTION, self.log, period_of(day), now=self.now)
        assert [line.amount for line in invoice.lines] == cents(self.kept, day)
        assert self.closed.setdefault(day, invoice) == invoice

    @rule()
    def follow(self):
        """Another log takes what this one took since; it is the same but for what was compacted."""
        follow(self.follower, self.log)
        assert self.follower.last_change == self.log.last_change
        if not self.compacted:
            assert text_of(self.follower) == text_of(self.log)
        for day, invoice in self.closed.items():
            assert self.follower.stored_invoice(SUBSCRIPTION.id, period_of(day)) == invoice

    @rule()
    def compact(self):
        self.follow()
        dropped = {
            (one.item, one.day) for one in self.kept if one.day in self.closed
        } - self.compacted
        count = sum((one.item, one.day) in dropped for one in self.kept)
        assert self.log.compact() == count
        self.compacted |= dropped

    @rule()
    def store_and_restore(self):
        self.follow()
        data = snapshot(self.log)
        text = json.dumps(data)
        restored = restore(json.loads(text))
        assert restored == self.log
        assert json.dumps(snapshot(restored)) == text
        self.log = restored
        for view in self.views:
            view.view = self.bounded(*view.limits)

    def bounded(self, sequence, received):
        view = self.log.as_of(sequence)
        return view if received is None else view.as_of(from_unix_seconds(received))

    @rule(data=st.data(), by_instant=st.booleans())
    def look_back(self, data, by_instant):
        if by_instant:
            sequence, received = (
                len(self.kept),
                data.draw(st.sampled_from([self.now, self.now - 1, self.now - 3600])),
            )
            view = self.log.as_of(from_unix_seconds(received))
        else:
            sequence, received = data.draw(st.integers(0, len(self.kept))), None
            view = self.log.as_of(sequence)
        shows = [
            one
            for one in self.kept
            if one.sequence <= sequence and (received is None or one.received <= received)
        ]
        self.views.append(View(view, (sequence, received), shows))

    # What must hold -------------------------------------------------------------------------------

    @rule()
    def views_never_change(self):
        """A view gives what it gave first, or refuses by name what compaction cut or dropped."""
        for view in self.views:
            for item in SUBSCRIPTION.items:
                for day in range(day_of(self.now) + 1):
                    self.check_total(view, item, day)
                    self.check_records(view, item.id, day)

    def check_total(self, view, item, day):
        try:
            answer = summarize(item, view.view, period_of(day)).total_usage
        except UsageCompactedError:
            assert self.is_cut(view, item.id, day)
        else:
            assert answer == total(view.shows, item.id, day)

    def check_records(self, view, item, day):
        try:
            found = view.view.records(item, period_of(day))
        except UsageCompactedError:
            assert (item, day) in self.compacted
        else:
            assert [one.sequence for one in found] == [
                one.sequence for one in view.shows if (one.item, one.day) == (item, day)
            ]

    def teardown(self):
        """Ask every view once more before and after all that has ended is finalized and compacted,
        and after a restore.
        """
        self.views_never_change()
        self.step_to_boundary(before=0)
        for day in range(day_of(self.now)):
            invoice = finalize_invoice(SUBSCRIPTION, self.log, period_of(day), now=self.now)
            assert self.closed.setdefault(day, invoice) == invoice
        self.compact()
        self.views_never_change()
        self.store_and_restore()
        self.views_never_change()
        self.totals_are_those_of_the_records()

    def is_cut(self, view, item, day):
        days = range(day + 1) if item == "last_ever" else [day]
        for one_day in days:
            mine = [one for one in self.kept if (one.item, one.day) == (item, one_day)]
            if (item, one_day) in self.compacted and not set(mine) <= set(view.shows):
                return True
        return False

    def records(self):
        """Return all that was not compacted; where something was, the log refuses to call the rest
        everything.
        """
        if not self.compacted:
            return self.log.records()
        with pytest.raises(UsageCompactedError):
            self.log.records()
        places = {(one.item, one.day) for one in self.kept} - self.compacted
        found = [one for item, day in places for one in self.log.records(item, period_of(day))]
        return sorted(found, key=lambda one: one.sequence)

    @invariant()
    def the_log_holds_what_was_accepted(self):
        held = [one for one in self.kept if (one.item, one.day) not in self.compacted]
        found = [
            (
                one.sequence,
                one.record.subscription_item,
                one.record.quantity,
                one.record.timestamp,
                one.record.action.value,
                one.record.id,
            )
            for one in self.records()
        ]
        assert found == [
            (one.sequence, one.item, one.quantity, one.timestamp, one.action, one.id)
            for one in held
        ]
        assert self.log.sequence == len(self.kept)

    @rule()
    def totals_are_those_of_the_records(self):
        """The preview and every summary, newest first, say what the list of records says."""
        today = day_of(self.now)
        preview = preview_invoice(SUBSCRIPTION, self.log, now=self.now)
        assert [line.amount for line in preview.lines] == cents(self.kept, today)
        for mode in MODES:
            summaries = self.log.summaries(mode, now=self.now)
            assert [one.total_usage for one in summaries] == [
                total(self.kept, mode, day) for day in range(today, -1, -1)
            ]
            assert [one.invoice is not None for one in summaries[1:]] == [
                day in self.closed for day in range(today - 1, -1, -1)
            ]
            assert summaries[0].end is None


LogMachine.TestCase.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)


TestLogMachine = LogMachine.TestCase

"""The meter log as a state machine: whatever is done in whatever order, it says what a plain list of accepted events says.

Goal: no order of events, retries, cancellations, deactivations, late arrivals, closed periods and views makes the log say
something that its events do not. Method: the ledger of :mod:`meter_oracle`, which keeps every accepted event in a list and
recomputes each answer from scratch. Billing periods are days, closed in their order.
"""

from __future__ import annotations

from datetime import timedelta
from fractions import Fraction

import pytest
from builders import DAY, START
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test
from meter_oracle import SECOND, Ledger

from metering_core import BillingPeriod, Price, Recurring, Subscription, SubscriptionItem, finalize_invoice, preview_invoice
from metering_core.aggregation import summarize
from metering_core.aggregators import formula_of
from metering_core.errors import UsageRejectedError
from metering_core.meter_acceptance import MeterPolicy
from metering_core.meter_events import MeterEvent
from metering_core.meter_log import MeterLog
from metering_core.meters import Meter
from metering_core.periods import from_unix_seconds
from metering_core.readings import window_partial

CUSTOMERS = ("cus_1", "cus_2")
METERS = [
    Meter("m_sum", "sum"),
    Meter("m_count", "count", "count"),
    Meter("m_last", "last", "last", dimension_payload_keys=["region"]),
    Meter("m_carried", "carried", "last", carry_forward=True),
    Meter("m_max", "max", "max", event_time_window="hour"),
    Meter("m_min", "min", "min"),
    Meter("m_unique", "unique", "unique_count"),
    Meter("m_average", "average", "average", dimension_payload_keys=["region"], event_time_window="hour"),
    Meter("m_weighted", "weighted", "weighted_sum"),
    Meter("m_window", "window", "sum", dimension_payload_keys=["region"], event_time_window="day"),
]
ADDITIVE = {"sum", "count"}
ITEMS = [
    SubscriptionItem(
        meter.event_name,
        Price.per_unit(meter.id, currency="usd", unit_amount=1, recurring=Recurring(interval="day", meter=meter.id)),
    )
    for meter in METERS
]
# One subscription for the first customer; what the second one uses is measured, and never billed.
SUBSCRIPTION = Subscription("sub", ITEMS, START, customer="cus_1")
POLICIES = {
    "default": {},
    "carrying": {"late_usage": "carry_forward"},
    "global": {"identifier_scope": "global"},
    "retained": {"identifier_retention": timedelta(days=1), "late_usage": "carry_forward"},
}
VALUES = ["1", "2", "3", "-4", "0", "0.5", "-0.25", "007", "12345678901234567890.5"]
ROWS = st.lists(
    st.tuples(
        st.sampled_from([meter.event_name for meter in METERS] + ["sum", "count", "nobody"]),
        st.sampled_from(["cus_1", "cus_1", "cus_1", "cus_2", "cus_3", None]),
        st.sampled_from([*VALUES, *VALUES, "much", None]),
        st.sampled_from(["eu", "us", "eu", "", None]),
        # Seconds after now: at now, at the bounds of what is accepted, around the last period; None is "now".
        st.sampled_from(
            [None, 0, -1, -60, -3600, -DAY // 2, -DAY, -DAY, -2 * DAY, -35 * DAY, -35 * DAY - 3600, -37 * DAY, 300, 301]
        ),
        st.sampled_from([None, "a", "b", "c", "d", "e"]),
    ),
    min_size=1,
    max_size=5,
)


def event_of(row, now):
    name, customer, value, region, after, identifier = row
    given = {"stripe_customer_id": customer, "value": value, "region": region}
    payload = {key: text for key, text in given.items() if text is not None}
    return MeterEvent(name, payload, identifier=identifier, timestamp="now" if after is None else now + after)


def described(meter):
    window = None if meter.event_time_window is None else meter.event_time_window.value
    return {
        "formula": meter.formula.value,
        "window": window,
        "dimensions": meter.dimension_payload_keys,
        "carry": meter.carry_forward,
        "active": meter.is_active,
    }


def outcome(ask, *args, **options):
    """Return what a question answers, or the code with which it is refused."""
    try:
        return ask(*args, **options), None
    except UsageRejectedError as refusal:
        return None, refusal.code


class MeterLogMachine(RuleBasedStateMachine):
    """What a log does beside what a list of its events says."""

    @initialize(policy=st.sampled_from(sorted(POLICIES)), known=st.booleans())
    def begin(self, policy, known):
        options = POLICIES[policy]
        customers = CUSTOMERS if known else None
        self.is_carrying = options.get("late_usage") == "carry_forward"
        self.now = START + DAY // 2
        self.log = MeterLog(METERS, [SUBSCRIPTION], customers=customers, policy=MeterPolicy(**options))
        meters = {meter.event_name: described(meter) for meter in METERS}
        is_global, retention = options.get("identifier_scope") == "global", options.get("identifier_retention")
        self.ledger = Ledger(meters, customers=customers, is_global=is_global, retention=retention)
        self.invoices, self.views, self.closed = [], [], 0
        self.billed = {item.id: [] for item in ITEMS}

    def judged(self, event):
        return self.ledger.judge(event.event_name, event.payload, event.identifier, event.microseconds, self.now * SECOND)

    @rule(rows=ROWS)
    def append(self, rows):
        """Each receipt says what the ledger says of the event after the ones before it."""
        events = [event_of(row, self.now) for row in rows]
        receipts = self.log.append(events, now=self.now)
        assert [str(receipt.code or receipt.outcome) for receipt in receipts] == [self.judged(event) for event in events]
        assert self.log.sequence == self.ledger.number

    @rule(rows=ROWS)
    def record(self, rows):
        """One event at a time is judged as in a batch; an accepted one comes back with its timestamp."""
        event = event_of(rows[0], self.now)
        expected = self.judged(event)
        timestamp = "now" if event.microseconds is None else event.timestamp
        options = {"identifier": event.identifier, "timestamp": timestamp, "now": self.now}
        back, code = outcome(self.log.record, event.event_name, event.payload, **options)
        if back is None:
            assert code == expected
        else:
            assert expected in {"accepted", "duplicate"}
            assert back.payload == event.payload
            assert back.microseconds is not None
        assert self.log.sequence == self.ledger.number

    @rule(name=st.sampled_from([*(meter.event_name for meter in METERS), "nobody"]), identifier=st.sampled_from("abcdez"))
    def cancel(self, name, identifier):
        """A cancellation is accepted, or refused, where the ledger does."""
        expected = self.ledger.cancel(name, identifier, self.now * SECOND)
        first, code = outcome(self.log.cancel, name, identifier, now=self.now)
        assert (code or "canceled") == expected
        if first is not None:
            assert self.log.cancel(name, identifier, now=self.now + 100 * DAY) == first
        assert self.log.sequence == self.ledger.number

    @precondition(lambda self: self.ledger.rows)
    @rule(data=st.data())
    def cancel_one_there_is(self, data):
        """As above, of an event that was accepted: random identifiers seldom hit one."""
        rows = [(name, sent[1]) for name, sent, _, _ in self.ledger.rows if sent[1] is not None]
        if rows:
            self.cancel(*data.draw(st.sampled_from(rows)))

    @rule(meter=st.sampled_from(METERS))
    def toggle(self, meter):
        """An active meter is deactivated, an inactive one reactivated."""
        known = self.log.meter(meter.id)
        self.log.update_meter(known.deactivate(self.now) if known.is_active else known.reactivate())
        self.ledger.meters[meter.event_name]["active"] = not known.is_active

    @rule(seconds=st.sampled_from([0, 1, 60, 3600, DAY // 2, DAY, DAY + 1, 40 * DAY]))
    def wait(self, seconds):
        self.now += seconds

    @rule()
    def look_back(self):
        """Keep a view by number or by moment, to be asked again and again."""
        if self.log.sequence % 2:
            view, limit = self.log.as_of(self.log.sequence), {"number": self.log.sequence}
        else:
            limit = {"number": self.log.sequence, "received_by": (self.now - DAY) * SECOND}
            view = self.log.as_of(from_unix_seconds(self.now - DAY))
        self.views.append((view, limit, view.unbilled("sub")))

    @precondition(lambda self: START + (self.closed + 1) * DAY <= self.now)
    @rule()
    def close(self):
        """Finalizing bills the measured quantity, at least 0, and what the policy carries from the days before."""
        period = day(self.closed)
        before = {item.id: self.settled(item) for item in ITEMS}
        invoice = finalize_invoice(SUBSCRIPTION, self.log, period, now=self.now)
        self.invoices.append((invoice, self.log.as_of(self.log.sequence), self.now))
        self.closed += 1
        for item, line in zip(ITEMS, invoice.lines, strict=True):
            assert line.subscription_item == item.id
            carried = before[item.id] if self.is_carrying and item.id in ADDITIVE | {"window"} else 0
            assert line.quantity == max(self.measured(item, period) + carried, 0), item.id
            self.billed[item.id].append(line.quantity)

    def measured(self, item, period):
        start, end = period.start_seconds * SECOND, period.end_seconds * SECOND
        return self.ledger.value(item.id, "cus_1", start, end)

    def settled(self, item):
        """Return what was measured of the closed days and not billed."""
        days = [self.measured(item, day(at)) for at in range(self.closed)]
        return sum(days, Fraction(0)) - sum(map(Fraction, self.billed[item.id]))

    @invariant()
    def invoices_never_change(self):
        """A closed day finalizes to the same invoice, on the log and on the view of then."""
        if self.invoices:
            invoice, view, at = self.invoices[-1]
            text = str(invoice.to_dict())
            assert str(finalize_invoice(SUBSCRIPTION, self.log, invoice.period, now=self.now + DAY).to_dict()) == text
            assert str(finalize_invoice(SUBSCRIPTION, view, invoice.period, now=at).to_dict()) == text

    @invariant()
    def unbilled_is_what_was_measured_and_not_billed(self):
        """The deltas of an item add up to what was measured of its closed days and not billed."""
        owed = dict.fromkeys([item.id for item in ITEMS], Fraction(0))
        for delta in self.log.unbilled("sub"):
            assert delta.quantity != 0
            owed[delta.subscription_item] += Fraction(delta.quantity)
        assert owed == {item.id: self.settled(item) for item in ITEMS}

    @invariant()
    def every_answer_is_the_ledgers(self):
        """The log and its views say of every meter what the ledger does: a bill of today, and the customers' events."""
        today = day((self.now - START) // DAY)
        if (self.now - START) // DAY >= self.closed and not self.is_carrying:
            for item in ITEMS:
                expected = self.measured(item, today)
                assert summarize(item, self.log, today).total_usage == expected, item.id
            preview = preview_invoice(SUBSCRIPTION, self.log, now=self.now)
            assert [line.quantity for line in preview.lines] == [max(self.measured(item, today), 0) for item in ITEMS]
        for view, limit, unbilled in self.views[-3:]:
            assert view.unbilled("sub") == unbilled
            for item in ITEMS if view is self.views[-1][0] else ITEMS[:2]:
                start, end = today.start_seconds - DAY, today.end_seconds
                value = summed(view, item, start, end)
                assert value == self.ledger.value(item.id, "cus_1", start * SECOND, end * SECOND, **limit), item.id

    @invariant()
    def the_log_lists_what_was_accepted(self):
        """The events of the log are those of the ledger, in their order, with what was canceled."""
        listed = [(one.sequence, one.event.event_name, one.event.microseconds, one.canceled_at) for one in self.log.events()]
        canceled = {number: from_unix_seconds(at // SECOND) for number, (_, at) in self.ledger.canceled.items()}
        assert listed == [(seen.number, name, seen.moment, canceled.get(seen.number)) for name, _, seen, _ in self.ledger.rows]


def day(at):
    return BillingPeriod(START + at * DAY, START + (at + 1) * DAY)


def summed(view, item, start, end):
    """Return what a view measures of an item in a range that may be no billing period."""
    meter = view.meter_of(item)
    timelines = [timeline for _, timeline in view.timelines(meter.id, "cus_1")]
    aggregator = formula_of(meter)
    return aggregator.present(window_partial(aggregator, timelines, start * SECOND, end * SECOND))


def test_the_log_says_what_its_events_say():
    """Thirty random histories of twenty steps each."""
    run_state_machine_as_test(MeterLogMachine, settings=settings(max_examples=30, stateful_step_count=20, derandomize=True))


@pytest.mark.slow
def test_the_log_says_what_its_events_say_at_length():
    """Two hundred random histories of forty steps each."""
    run_state_machine_as_test(MeterLogMachine, settings=settings(max_examples=200, stateful_step_count=40, derandomize=True))

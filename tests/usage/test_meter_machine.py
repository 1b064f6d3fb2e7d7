"""The meter log as a state machine: whatever is done in whatever order, it says what a plain list
of accepted events says.

Goal: no order of events, retries, cancellations, deactivations, late arrivals, closed periods and
views makes the log say something that its events do not. Method: the ledger of :mod:`meter_oracle`,
which keeps every accepted event in a list and recomputes each answer from scratch. Billing periods
are days, closed in their order.
"""

from __future__ import annotations

import random
from datetime import timedelta
from fractions import Fraction

import pytest
from builders import DAY, START
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from journals import empty_like, follow, text_of
from meter_oracle import SECOND, Ledger

from metering_core import (
    BillingPeriod,
    Price,
    Recurring,
    Subscription,
    SubscriptionItem,
    finalize_invoice,
)
from metering_core.aggregation import summarize
from metering_core.errors import UsageRejectedError
from metering_core.measures import formula_of
from metering_core.meter_acceptance import MeterPolicy
from metering_core.meter_events import MeterEvent
from metering_core.meter_log import MeterLog
from metering_core.meters import Meter
from metering_core.periods import from_unix_seconds
from metering_core.readings import window_of

CUSTOMERS = ("cus_1", "cus_2")
METERS = [
    Meter("m_sum", "sum"),
    Meter("m_count", "count", "count"),
    Meter("m_last", "last", "last", dimension_payload_keys=["region"]),
    Meter("m_carried", "carried", "last", carry_forward=True),
    Meter("m_max", "max", "max", event_time_window="hour"),
    Meter("m_min", "min", "min"),
    Meter("m_unique", "unique", "unique_count"),
    Meter(
        "m_average",
        "average",
        "average",
        dimension_payload_keys=["region"],
        event_time_window="hour",
    ),
    Meter("m_weighted", "weighted", "weighted_sum"),
    Meter("m_window", "window", "sum", dimension_payload_keys=["region"], event_time_window="day"),
]
ITEMS = [
    SubscriptionItem(
        meter.event_name,
        Price.per_unit(
            meter.id,
            currency="usd",
            unit_amount=1,
            recurring=Recurring(interval="day", meter=meter.id),
        ),
    )
    for meter in METERS
]
POLICIES = {
    "default": {},
    "carrying": {"late_usage": "carry_forward"},
    "global": {"identifier_scope": "global"},
    "retained": {"identifier_retention": timedelta(days=1), "late_usage": "carry_forward"},
}
VALUES = ["1", "2", "3", "-4", "0", "0.5", "-0.25", "007", "12345678901234567890.5"]
NAMES = [meter.event_name for meter in METERS]
SENT_TO = ["cus_1", "cus_1", "cus_1", "cus_2", "cus_3", None]
REGIONS = ["eu", "us", "eu", "", None]
# Seconds after now: at now, at the bounds of what is accepted, around the last periods; None is
# "now".
AFTER = [
    None,
    0,
    -1,
    -60,
    -3600,
    -DAY // 2,
    -DAY,
    -DAY,
    -2 * DAY,
    -35 * DAY,
    -35 * DAY - 3600,
    -37 * DAY,
    300,
    301,
]
WAITS = [0, 1, 60, 3600, DAY // 2, DAY, DAY + 1, 40 * DAY]


def event_of(row, now):
    name, customer, value, region, after, identifier = row
    given = {"stripe_customer_id": customer, "value": value, "region": region}
    payload = {key: text for key, text in given.items() if text is not None}
    return MeterEvent(
        name, payload, identifier=identifier, timestamp="now" if after is None else now + after
    )


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


class Story:
    """A log and the ledger beside it, through whatever is done to both."""

    def __init__(self, policy, names, *, known):
        options = POLICIES[policy]
        customers = CUSTOMERS if known else None
        self.is_carrying = options.get("late_usage") == "carry_forward"
        self.now = START + DAY // 2
        # One subscription for the first customer; what the others use is measured, and never
        # billed.
        self.items = [item for item in ITEMS if item.id in names]
        self.subscription = Subscription("sub", self.items, START, customer="cus_1")
        self.log = MeterLog(
            METERS, [self.subscription], customers=customers, policy=MeterPolicy(**options)
        )
        meters = {meter.event_name: described(meter) for meter in METERS}
        is_global, retention = (
            options.get("identifier_scope") == "global",
            options.get("identifier_retention"),
        )
        self.ledger = Ledger(meters, customers=customers, is_global=is_global, retention=retention)
        self.invoices, self.views, self.closed = [], [], 0
        self.follower = empty_like(self.log)
        self.billed = {item.id: [] for item in self.items}

    def judged(self, event):
        return self.ledger.judge(
            event.event_name, event.payload, event.identifier, event.microseconds, self.now * SECOND
        )

    def append(self, events):
        """Each receipt says what the ledger says of the event after the ones before it."""
        receipts = self.log.append(events, now=self.now)
        assert [str(receipt.code or receipt.outcome) for receipt in receipts] == [
            self.judged(event) for event in events
        ]

    def record(self, event):
        """One event at a time is judged as in a batch; an accepted one comes back with its
        timestamp.
        """
        expected = self.judged(event)
        timestamp = "now" if event.microseconds is None else event.instant
        options = {"identifier": event.identifier, "timestamp": timestamp, "now": self.now}
        back, code = outcome(self.log.record, event.event_name, event.payload, **options)
        if back is None:
            assert code == expected
        else:
            assert expected in {"accepted", "duplicate"}
            assert back.payload == event.payload
            assert back.microseconds is not None

    def sent(self):
        """Return what was accepted, to be sent again, or canceled."""
        return [
            MeterEvent(
                name,
                payload,
                identifier=identifier,
                timestamp="now" if at is None else from_unix_seconds(at // SECOND),
            )
            for name, (payload, identifier, at), _, _ in self.ledger.rows
        ]

    def cancel(self, name, identifier):
        """A cancellation is accepted, or refused, where the ledger does; a second one never is."""
        expected = self.ledger.cancel(name, identifier, self.now * SECOND)
        first, code = outcome(self.log.cancel, name, identifier, now=self.now)
        assert (code or "canceled") == expected
        if first is not None:
            assert outcome(self.log.cancel, name, identifier, now=self.now + 100 * DAY) == (
                first,
                None,
            )

    def toggle(self, name):
        """An active meter is deactivated, an inactive one reactivated."""
        meter = self.log.meter(f"m_{name}")
        self.log.update_meter(meter.deactivate(self.now) if meter.is_active else meter.reactivate())
        self.ledger.meters[name]["active"] = not meter.is_active

    def wait(self, seconds):
        self.now += seconds

    def look_back(self, *, by_moment):
        """Keep a view by number or by moment, to be asked again and again."""
        limit = {"number": self.log.sequence}
        view = self.log.as_of(self.log.sequence)
        if by_moment:
            limit["received_by"] = (self.now - DAY) * SECOND
            view = self.log.as_of(from_unix_seconds(self.now - DAY))
        self.views.append((view, limit, view.unbilled("sub")))

    def may_close(self):
        return START + (self.closed + 1) * DAY <= self.now

    def close(self):
        """Finalizing bills the measured quantity, at least 0, and apart from it what changed of the
        days before, by policy.
        """
        period = day(self.closed)
        before = {item.id: self.late(item) for item in self.items}
        invoice = finalize_invoice(self.subscription, self.log, period, now=self.now)
        self.invoices.append((invoice, self.log.as_of(self.log.sequence), self.now))
        self.closed += 1
        for item in self.items:
            own, late = (
                [
                    line
                    for line in invoice.lines
                    if line.subscription_item == item.id and (line.period == period) is is_own
                ]
                for is_own in (True, False)
            )
            assert [line.quantity for line in own] == [max(self.measured(item, period), 0)], item.id
            self.billed[item.id].append(Fraction(own[0].quantity))
            if self.is_carrying:
                assert {line.period: Fraction(line.quantity) for line in late} == before[item.id]
                for line in late:
                    self.billed[item.id][(line.period.start_seconds - START) // DAY] += Fraction(
                        line.quantity
                    )
            else:
                assert late == []

    def measured(self, item, period):
        start, end = period.start_seconds * SECOND, period.end_seconds * SECOND
        return self.ledger.value(item.id, "cus_1", start, end)

    def late(self, item):
        """Return by how much what a closed day comes to, at least 0, differs from what was billed
        of it.
        """
        days = [
            (day(at), max(self.measured(item, day(at)), 0) - Fraction(self.billed[item.id][at]))
            for at in range(self.closed)
        ]
        return {period: quantity for period, quantity in days if quantity}

    def settled(self, item):
        """Return what was measured of the closed days and not billed."""
        days = [self.measured(item, day(at)) for at in range(self.closed)]
        return sum(days, Fraction(0)) - sum(map(Fraction, self.billed[item.id]))

    def check(self):
        """Whatever can be asked is answered as the ledger says."""
        assert self.log.sequence == self.ledger.number
        self.events_are_those_accepted()
        self.changes_make_the_same_log()
        self.invoices_never_change()
        self.unbilled_is_what_was_measured_and_not_billed()
        self.quantities_are_the_ledgers()
        self.views_are_the_ledgers()

    def changes_make_the_same_log(self):
        """Another log takes what this one took since, and is the same."""
        follow(self.follower, self.log)
        assert text_of(self.follower) == text_of(self.log)

    def events_are_those_accepted(self):
        canceled = {
            number: from_unix_seconds(at // SECOND)
            for number, (_, at) in self.ledger.canceled.items()
        }
        listed = [
            (one.sequence, one.event.microseconds, one.canceled_at) for one in self.log.events()
        ]
        assert listed == [
            (seen.number, seen.moment, canceled.get(seen.number))
            for _, _, seen, _ in self.ledger.rows
        ]
        sent = [
            (one.event.event_name, dict(one.event.payload), one.event.identifier)
            for one in self.log.events()
        ]
        assert sent == [(name, *sent[:2]) for name, sent, _, _ in self.ledger.rows]

    def invoices_never_change(self):
        """A closed day finalizes to the same invoice, on the log and on the view of then, and its
        usage is what was billed.
        """
        for invoice, view, at in self.invoices[-2:]:
            for item in self.items:
                lines = [
                    line
                    for line in invoice.lines
                    if line.subscription_item == item.id and line.period == invoice.period
                ]
                counted = summarize(item, self.log, invoice.period).total_usage
                assert [line.quantity for line in lines] == [max(counted, 0)], item.id
            for usage, now in ((self.log, self.now + DAY), (view, at)):
                assert (
                    finalize_invoice(self.subscription, usage, invoice.period, now=now).to_dict()
                    == invoice.to_dict()
                )

    def unbilled_is_what_was_measured_and_not_billed(self):
        owed = dict.fromkeys([item.id for item in self.items], Fraction(0))
        for delta in self.log.unbilled("sub"):
            assert delta.quantity != 0
            owed[delta.subscription_item] += Fraction(delta.quantity)
        assert owed == {item.id: self.settled(item) for item in self.items}

    def quantities_are_the_ledgers(self):
        """Days that are open are measured as the ledger does, and billed so, too, whatever is
        carried.
        """
        for at in {(self.now - START) // DAY, self.closed}:
            for item in self.items:
                expected = self.measured(item, day(at))
                start, end = START + at * DAY, START + (at + 1) * DAY
                assert read_off(self.log, item, start, end) == expected, item.id
                if at >= self.closed:
                    assert summarize(item, self.log, day(at)).total_usage == expected, item.id

    def views_are_the_ledgers(self):
        for view, limit, unbilled in self.views[-3:]:
            assert view.unbilled("sub") == unbilled
            start = START + ((self.now - START) // DAY - 2) * DAY
            for item in self.items:
                expected = self.ledger.value(
                    item.id, "cus_1", start * SECOND, (start + 3 * DAY) * SECOND, **limit
                )
                # A view keeps what it was asked first, so one that was never asked must say the
                # same.
                for reader in (view, view.as_of(view.sequence)):
                    assert read_off(reader, item, start, start + 3 * DAY) == expected, item.id


def day(at):
    return BillingPeriod(START + at * DAY, START + (at + 1) * DAY)


def read_off(usage, item, start, end):
    """Return what a log or a view measures of an item in a range that may be no billing period."""
    meter = usage.meter_of(item)
    aggregator = formula_of(meter)
    timelines = [timeline for _, timeline in usage.timelines(meter.id, "cus_1")]
    return aggregator.present(window_of(aggregator, timelines, start * SECOND, end * SECOND)[0])


class MeterLogMachine(RuleBasedStateMachine):
    """A story that Hypothesis tells, and shortens where it goes wrong."""

    @initialize(
        policy=st.sampled_from(sorted(POLICIES)),
        names=st.sets(st.sampled_from(NAMES), min_size=1, max_size=3),
        known=st.booleans(),
    )
    def begin(self, policy, names, known):
        self.names = sorted(names)
        self.story = Story(policy, self.names, known=known)

    def drawn(self, data):
        names = st.sampled_from([*self.names * 3, *NAMES, "nobody"])
        values = st.sampled_from([*VALUES, *VALUES, "much", None])
        identifiers = st.sampled_from([None, "a", "b", "c"])
        places = [
            names,
            st.sampled_from(SENT_TO),
            values,
            st.sampled_from(REGIONS),
            st.sampled_from(AFTER),
            identifiers,
        ]
        return event_of(data.draw(st.tuples(*places)), self.story.now)

    @rule(data=st.data(), count=st.integers(1, 5))
    def append(self, data, count):
        self.story.append([self.drawn(data) for _ in range(count)])

    @rule(data=st.data())
    def record(self, data):
        self.story.record(self.drawn(data))

    @precondition(lambda self: self.story.ledger.rows)
    @rule(data=st.data())
    def send_again(self, data):
        self.story.append([data.draw(st.sampled_from(self.story.sent()))])

    @precondition(lambda self: any(sent[1] for _, sent, _, _ in self.story.ledger.rows))
    @rule(data=st.data())
    def cancel(self, data):
        identified = [one for one in self.story.sent() if one.identifier is not None]
        event = data.draw(st.sampled_from(identified))
        self.story.cancel(
            data.draw(st.sampled_from([event.event_name] * 3 + NAMES)), event.identifier
        )

    @rule(data=st.data())
    def toggle(self, data):
        self.story.toggle(data.draw(st.sampled_from(self.names)))

    @rule(seconds=st.sampled_from(WAITS))
    def wait(self, seconds):
        self.story.wait(seconds)

    @rule(by_moment=st.booleans())
    def look_back(self, by_moment):
        self.story.look_back(by_moment=by_moment)

    @precondition(lambda self: self.story.may_close())
    @rule()
    def close(self):
        self.story.close()

    @invariant()
    def every_answer_is_the_ledgers(self):
        self.story.check()


class Teller:
    """Tells a story by dice: of few meters, values and identifiers, so that things meet."""

    STEPS = ("append",) * 4 + (
        "record",
        "again",
        "cancel",
        "toggle",
        "wait",
        "wait",
        "look",
        "close",
        "close",
    )

    def __init__(self, number):
        self.dice = random.Random(number)  # noqa: S311 - dice
        self.names = self.dice.sample(NAMES, 2)
        self.story = Story(
            self.dice.choice(sorted(POLICIES)), self.names, known=self.dice.random() < 0.3
        )
        self.values = self.dice.sample([*VALUES, "much", None], 3)
        self.after = [0, None, *self.dice.sample(AFTER, 4)]

    def tell(self, steps):
        for _ in range(steps):
            getattr(self, self.dice.choice(self.STEPS))()
            self.story.check()

    def event(self):
        choose = self.dice.choice
        name = choose(self.names) if self.dice.random() < 0.95 else "nobody"
        region = choose(REGIONS[: choose([1, 5])])
        row = (
            name,
            choose(SENT_TO[1:]),
            choose(self.values),
            region,
            choose(self.after),
            choose([None, "a", "b"]),
        )
        return event_of(row, self.story.now)

    def identified(self):
        return [one for one in self.story.sent() if one.identifier is not None]

    def append(self):
        self.story.append([self.event() for _ in range(self.dice.randrange(1, 5))])

    def record(self):
        self.story.record(self.event())

    def again(self):
        for one in self.dice.sample(self.identified(), min(len(self.identified()), 1)):
            self.story.record(one)

    def cancel(self):
        for one in self.dice.sample(self.identified(), min(len(self.identified()), 1)):
            self.story.cancel(
                one.event_name if self.dice.random() < 0.8 else self.dice.choice(self.names),
                one.identifier,
            )

    def toggle(self):
        if self.dice.random() < 0.4:
            self.story.toggle(self.dice.choice(self.names))

    def wait(self):
        self.story.wait(self.dice.choice(WAITS[:-1] if self.dice.random() < 0.9 else WAITS))

    def look(self):
        self.story.look_back(by_moment=self.dice.random() < 0.5)

    def close(self):
        if self.story.may_close():
            self.story.close()


def tell(number, steps=25):
    """Tell the story of a number."""
    Teller(number).tell(steps)


def test_the_log_says_what_its_events_say():
    """Twenty histories of twenty steps each, told by Hypothesis."""
    run_state_machine_as_test(
        MeterLogMachine,
        settings=settings(max_examples=20, stateful_step_count=20, derandomize=True),
    )


def test_the_log_says_what_its_events_say_by_dice():
    """A hundred histories of few meters, values and identifiers, so that retries and cancellations
    meet what there is.
    """
    for number in range(100):
        tell(number)


@pytest.mark.slow
def test_the_log_says_what_its_events_say_at_length():
    """Two hundred histories told by Hypothesis, and two thousand by dice."""
    run_state_machine_as_test(
        MeterLogMachine,
        settings=settings(max_examples=200, stateful_step_count=40, derandomize=True),
    )
    for number in range(100, 2000):
        tell(number, steps=40)

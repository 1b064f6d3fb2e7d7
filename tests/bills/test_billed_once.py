"""The law of kind C: no event is on two invoices of one customer, whatever was told and closed, in
whatever order.

The log's policy refuses overlaps, as it does unless it is told otherwise. Each event is a power of
2, so that the quantity of an invoice line says which events it counted.
"""

from __future__ import annotations

from itertools import combinations, takewhile

import pytest
from builders import DAY, START
from hypothesis import given, settings
from hypothesis import strategies as st
from planting import HUNT

import metering_core as mc
from metering_core.errors import ErrorCode

METERS = [mc.Meter("m", "m"), mc.Meter("n", "n")]
DAYS = [0, 10, 31, 40, 59]
BOUNDS = st.sampled_from([None, *DAYS])
PARAM = "items[0][price][recurring][meter]"


def version(name, starts=0, ends=None, meter="m"):
    """Return a version of one of the customer's subscriptions, at a dollar for each unit on a
    meter.
    """
    price = mc.Price.per_unit(
        "p", currency="usd", unit_amount=100, recurring=mc.Recurring(meter=meter)
    )
    start, end = (None if at is None else START + at * DAY for at in (starts, ends))
    return mc.Subscription(
        name,
        [mc.SubscriptionItem(name, price)],
        START,
        customer="c",
        start_date=start,
        ended_at=end,
    )


class History:
    """A log, and what is done to it one after the other; what it refuses has not happened."""

    def __init__(self, **policy):
        self.log = mc.MeterLog(METERS, policy=mc.MeterPolicy(**policy))
        self.now, self.events, self.invoices = START, 0, {}

    def tell(self, name, starts, ends, meter):
        """Tell a version."""
        self.log.subscribe(version(name, starts, ends, meter), now=self.now)

    def use(self, day, meter):
        """Receive an event of a day that has been."""
        payload = {"stripe_customer_id": "c", "value": str(2**self.events)}
        self.log.record(meter, payload, timestamp=min(START + day * DAY, self.now), now=self.now)
        self.events += 1

    def wait(self, day):
        """Let time pass."""
        self.now = max(self.now, START + day * DAY)

    def bill(self, name):
        """Finalize whatever has ended of a subscription."""
        told = {one.id: one for one in self.log.subscriptions}[name]
        for period in takewhile(
            lambda one: one.end_seconds <= self.now, told.periods_from(told.start_date)
        ):
            invoice = mc.finalize_invoice(told, self.log, period, now=self.now)
            self.invoices[name, invoice.period.start] = invoice

    def shut(self, name):
        """Close the first period of a subscription without an invoice."""
        told = {one.id: one for one in self.log.subscriptions}[name]
        self.log.close_period(name, next(told.periods_from(told.start_date)), now=self.now)

    def counted(self):
        """Return what each line of an invoice counted of a meter, as a set of events: the bits of a
        number.
        """
        lines = [line for invoice in self.invoices.values() for line in invoice.lines]
        return [
            (
                line.price.recurring.meter,
                line.total_usage - (0 if line.before is None else line.before.total_usage),
            )
            for line in lines
        ]


def hold_the_law(steps, **policy):
    """Do the steps, bill everything in the end, and look for an event that was counted twice."""
    history = History(**policy)
    for step, *arguments in [*steps, ("wait", 120), *(("bill", name) for name in "ab")]:
        try:
            getattr(history, step)(*arguments)
        except (mc.MeteringError, KeyError, StopIteration):
            continue
    for (meter, one), (other, another) in combinations(history.counted(), 2):
        assert meter != other or not one & another, (steps, history.counted())


NAMES, OF_METER = st.sampled_from("ab"), st.sampled_from("mmmn")
STEPS = st.one_of(
    st.tuples(st.just("tell"), NAMES, st.sampled_from(DAYS), BOUNDS, OF_METER),
    st.tuples(st.just("use"), st.sampled_from([1, 11, 20, 32, 45, 60]), OF_METER),
    st.tuples(st.just("wait"), st.sampled_from([31, 41, 60])),
    st.tuples(st.just("bill"), NAMES),
    st.tuples(st.just("bill"), NAMES),
    st.tuples(st.just("shut"), NAMES),
)
CARRIES = st.sampled_from(["ignore", "carry_forward"])
BEGUN = [("tell", "a", 0, None, "m"), ("wait", 20), ("use", 20, "m"), ("wait", 31), ("bill", "a")]
AFTER = {
    "ended within it": [("tell", "a", 0, 10, "m"), ("tell", "b", 10, None, "m")],
    "moved to another meter": [("tell", "a", 0, None, "n"), ("tell", "b", 10, None, "m")],
    "begun later": [("tell", "a", 31, None, "m"), ("tell", "b", 0, 31, "m")],
    "the other one made longer": [
        ("tell", "b", 31, 40, "m"),
        ("tell", "a", 0, 10, "m"),
        ("tell", "b", 10, 40, "m"),
    ],
}


@pytest.mark.parametrize("policy", ["ignore", "carry_forward"])
@pytest.mark.parametrize("steps", AFTER.values(), ids=AFTER)
def test_what_an_invoice_counted_is_on_no_other_one(steps, policy):
    """January is billed to one subscription, which is changed afterwards; another one cannot bill
    it again.
    """
    hold_the_law([*BEGUN, *steps], late_usage=policy)


@settings(HUNT, max_examples=120)
@given(st.lists(STEPS, max_size=10), CARRIES)
def test_no_event_is_on_two_invoices(steps, policy):
    """Whatever is told, used and closed after January was billed."""
    hold_the_law([*BEGUN, *steps], late_usage=policy)


@pytest.mark.slow
@settings(HUNT, max_examples=4_000)
@given(st.lists(STEPS, max_size=14), CARRIES)
def test_no_event_is_on_two_invoices_of_many_histories(steps, policy):
    """The same for many histories, from an empty log."""
    hold_the_law(steps, late_usage=policy)


def billed():
    """Return the log in which January is billed to one subscription."""
    history = History()
    for step, *arguments in BEGUN:
        getattr(history, step)(*arguments)
    assert [invoice.total for invoice in history.invoices.values()] == [100]
    return history.log


def test_the_second_subscription_is_told_what_was_billed():
    """The sentence names the period and the invoice's subscription, and the ways out."""
    log = billed()
    log.subscribe(version("a", 0, 10), now=START + 31 * DAY)
    with pytest.raises(mc.InvalidValueError) as refusal:
        log.subscribe(version("b", 10))
    assert (refusal.value.code, refusal.value.param) == (ErrorCode.USAGE_BILLED_TWICE, PARAM)
    assert str(refusal.value) == (
        f"{PARAM}: expected a meter of whose events no other subscription of customer 'c' "
        "has an invoice, but 'a' was billed "
        "for 2024-01-01T00:00:00Z to 2024-02-01T00:00:00Z, and its invoice stays: begin "
        "this one at 2024-02-01T00:00:00Z or "
        "later, or end it by 2024-01-01T00:00:00Z, or say overlap='each_counts_all' in the "
        "policy, received 'm' (str)"
    )
    assert [one.id for one in log.subscriptions] == ["a"]


def test_who_begins_after_the_invoice_is_taken():
    """A subscription that ends within a closed period may, and one that begins with the next period
    follows it.
    """
    log = billed()
    log.subscribe(version("a", 0, 10), now=START + 31 * DAY)
    log.subscribe(version("b", 31))
    assert [one.id for one in log.subscriptions] == ["a", "b"]


def test_who_takes_a_meter_over_at_a_boundary_is_taken():
    """What both were billed for before is on invoices of their own, so that the one cannot bill
    what the other one has.
    """
    log, now = billed(), START + 31 * DAY
    log.subscribe(version("b", meter="n"), now=START)
    mc.finalize_invoice(version("b", meter="n"), log, version("b").period_at(START), now=now)
    fee = mc.Price.per_unit(
        "fee", currency="usd", unit_amount=1, recurring=mc.Recurring(usage_type="licensed")
    )
    log.subscribe(
        mc.Subscription("a", [mc.SubscriptionItem("fee", fee)], START, customer="c"), now=now
    )
    log.subscribe(version("b", meter="m"), now=now)
    assert mc.preview_invoice(log.subscriptions[1], log, now=now).total == 0

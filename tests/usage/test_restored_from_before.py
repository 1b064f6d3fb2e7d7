"""One of two logs is restored from before a closing: every unit is billed once or told, or the call
is refused.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import attrs
import pytest

import metering_core as mc
from metering_core.errors import ErrorCode

CALLS = mc.SubscriptionItem(
    "calls", mc.Price.per_unit("p_calls", currency="usd", unit_amount=1, recurring=mc.Recurring())
)
TOKENS = mc.SubscriptionItem(
    "tokens",
    mc.Price.per_unit("p_tokens", currency="usd", unit_amount=1, recurring=mc.Recurring(meter="m")),
)


def at(month, day=1, hour=0):
    """Return a moment of 2026."""
    return datetime(2026, month, day, hour, tzinfo=UTC)


SUBSCRIPTION = mc.Subscription("sub", [CALLS, TOKENS], at(1), customer="c", start_date=at(1))
PERIODS = {month: SUBSCRIPTION.period_at(at(month)) for month in range(1, 8)}


def restored(log, text):
    """Return the log of a snapshot."""
    return (mc.restore_meter_log if isinstance(log, mc.MeterLog) else mc.restore)(json.loads(text))


@attrs.define
class Sent:
    """Something that was sent once, and may be sent again."""

    id: str
    value: int
    stamp: datetime
    now: datetime
    is_canceled: bool = False


class History:
    """Two logs that go through months with late usage, cancellations and snapshots; one is
    restored, and all is sent again.

    What should be billed is known from what was accepted, without asking the library for a
    quantity.
    """

    def __init__(self, seed):
        self.random = random.Random(seed)  # noqa: S311 - it repeats itself
        pick = self.random.choice
        self.formula, self.late_usage = (
            pick(["sum", "sum", "max", "last"]),
            pick(["carry_forward", "carry_forward", "ignore"]),
        )
        attribution = pick(["usage_period", "open_period"])
        acceptance = mc.AcceptancePolicy(
            late_grace=timedelta(days=31), late_attribution=attribution
        )
        policy = mc.MeterPolicy.history(late_usage=self.late_usage)
        self.attributes = attribution == "open_period"
        records = mc.UsageLog([SUBSCRIPTION], policy=acceptance)
        events = mc.MeterLog([mc.Meter("m", "used", self.formula)], [SUBSCRIPTION], policy=policy)
        self.usage = mc.CombinedUsage(records, events)
        # By log: what was ever sent, and what the log has accepted, by its id, in the order of its
        # arrival.
        self.sent = {"records": [], "events": []}
        self.accepted = {"records": {}, "events": {}}
        self.snapshots = {"records": [], "events": []}
        self.invoices, self.first_made, self.of_records, self.refused = {}, {}, {}, Counter()
        self.restored_side, self.is_restored = None, False

    # What is done ---------------------------------------------------------------------------------

    def send(self, side, one):
        """Send something to a log, and note where it belongs if it is accepted."""
        if side == "events":
            event = mc.MeterEvent(
                "used",
                {"stripe_customer_id": "c", "value": str(one.value)},
                identifier=one.id,
                timestamp=one.stamp,
            )
            (receipt,) = self.usage.events.append([event], now=one.now)
        else:
            record = mc.UsageRecord("calls", one.value, one.stamp, id=one.id)
            (receipt,) = self.usage.records.append([record], now=one.now)
        if receipt.outcome is mc.Outcome.ACCEPTED:
            is_closed = (
                self.usage.records.stored_invoice("sub", PERIODS[one.stamp.month]) is not None
            )
            month = one.now.month if side == "records" and is_closed else one.stamp.month
            self.accepted[side][one.id] = (one, month)

    def use(self, month, now):
        """Send something new, of this month or late of an earlier one."""
        side = self.random.choice(["records", "events", "events"])
        stamped = month if self.random.random() < 0.6 else max(1, month - self.random.randint(1, 2))
        stamp = at(stamped, self.random.randint(1, 27), self.random.randint(0, 23))
        one = Sent(
            f"{side}_{len(self.sent[side])}", self.random.randint(1, 10**9), min(stamp, now), now
        )
        self.sent[side].append(one)
        self.send(side, one)

    def cancel(self, now):
        """Cancel an event that the log has."""
        if self.accepted["events"]:
            one, _ = self.accepted["events"][self.random.choice(list(self.accepted["events"]))]
            one.is_canceled = True
            self.usage.events.cancel("used", one.id, now=now)

    def keep(self):
        """Take a snapshot of each log."""
        for side in self.snapshots:
            canceled = {one.id for one in self.sent[side] if one.is_canceled}
            text = json.dumps(mc.snapshot(getattr(self.usage, side)))
            self.snapshots[side].append((text, dict(self.accepted[side]), canceled))

    def restore(self):
        """Restore one log from before, and know no more than it does."""
        side = self.restored_side = self.random.choice(["records", "events"])
        text, accepted, self.known_canceled = self.random.choice(self.snapshots[side])
        log = restored(getattr(self.usage, side), text)
        self.usage = attrs.evolve(self.usage, **{side: log})
        self.accepted[side] = accepted
        self.lost_cancellations = [
            one
            for one in self.sent["events"]
            if one.is_canceled and one.id not in self.known_canceled
        ]
        if side == "events":
            for one in self.lost_cancellations:
                one.is_canceled = False
        self.is_restored = True

    def send_again(self, now):
        """Send all that was sent again, in the order of then or in another one, at the moments of
        then or now.
        """
        again = list(self.sent[self.restored_side])
        if self.random.random() < 0.5:
            self.random.shuffle(again)
        at_once = self.random.random() < 0.3
        for one in again:
            self.send(self.restored_side, attrs.evolve(one, now=now) if at_once else one)
            if self.random.random() < 0.1:
                self.finalize(self.random.choice(list(PERIODS)[: now.month - 1]), now)
        if self.restored_side == "events":
            for one in self.lost_cancellations:
                if one.id in self.accepted["events"]:
                    self.usage.events.cancel("used", one.id, now=now)
                    self.accepted["events"][one.id][0].is_canceled = True

    def finalize(self, month, now):
        """Finalize a month, once more or for the first time; what is refused changes nothing."""
        before = [mc.snapshot(log) for log in (self.usage.records, self.usage.events)]
        invoice, code = None, ErrorCode.INVOICE_CONFLICT
        try:
            invoice = mc.finalize_invoice(SUBSCRIPTION, self.usage, PERIODS[month], now=now)
        except mc.InvoicingError as refusal:
            code = refusal.code
        if invoice is None:
            assert code == ErrorCode.INVOICE_CONFLICT
            assert [mc.snapshot(log) for log in (self.usage.records, self.usage.events)] == before
            self.refused[month] += 1
            return
        self.refused.pop(month, None)
        if month not in self.invoices:
            self.invoices[month] = invoice
            self.first_made[month] = self.is_restored
            self.of_records[month] = {
                key for key, (_, billed) in self.accepted["records"].items() if billed == month
            }
        assert invoice == self.invoices[month], "one invoice for ever"
        for line in invoice.lines:
            mc.explain(line, usage=self.usage)
        assert self.usage.records.stored_invoice("sub", PERIODS[month]) == invoice
        assert self.usage.events.stored_invoice("sub", PERIODS[month]) == invoice

    # What is true ---------------------------------------------------------------------------------

    def lacking(self):
        """Return the months whose invoice the restored log lacks."""
        log = getattr(self.usage, self.restored_side)
        return {
            month for month in self.invoices if log.stored_invoice("sub", PERIODS[month]) is None
        }

    def measured(self, month):
        """Return what the events of a month come to."""
        of_month = [
            (one.stamp, place, Fraction(one.value))
            for place, (one, billed) in enumerate(self.accepted["events"].values())
            if billed == month and not one.is_canceled
        ]
        if not of_month:
            return 0
        values = [value for _, _, value in of_month]
        return {"sum": sum(values), "max": max(values), "last": max(of_month)[2]}[self.formula]

    def billed_events(self, month, *, restored_only=False):
        """Return what all invoices together billed of the events of a month."""
        lines = [
            line
            for made, invoice in self.invoices.items()
            for line in invoice.lines
            if line.subscription_item == "tokens" and line.period == PERIODS[month]
            if self.first_made[made] or not restored_only
        ]
        return sum(
            line.total_usage - (line.before.total_usage if line.before else 0) for line in lines
        ), lines

    def check(self):
        """Every accepted unit is billed once or told as unbilled, as far as no invoice is
        refused.
        """
        lacking = self.lacking()
        unbilled = Counter()
        for delta in self.usage.events.unbilled("sub"):
            unbilled[delta.period.start.month] += delta.quantity
        of_lacking = {
            line.period.start.month for month in lacking for line in self.invoices[month].lines
        }
        for month in self.invoices:
            billed, lines = self.billed_events(month)
            if self.restored_side == "events" and month in of_lacking:
                assert self.billed_events(month, restored_only=True)[1] == [], (
                    "nothing of it is billed again"
                )
            else:
                assert billed + unbilled[month] == self.measured(month), month
            assert sum(line.amount for line in lines) == billed
            self.check_records(month, lacking)

    def check_records(self, month, lacking):
        """Each record is on one invoice, and each invoice is of what its month has."""
        others = [ids for other, ids in self.of_records.items() if other != month]
        assert not any(ids & self.of_records[month] for ids in others), "no record is billed twice"
        if not (self.restored_side == "records" and month in lacking):
            records = [
                one.value for one, billed in self.accepted["records"].values() if billed == month
            ]
            (line,) = (
                line for line in self.invoices[month].lines if line.subscription_item == "calls"
            )
            assert (line.quantity, line.amount) == (sum(records), sum(records)), month


def lived(seed):
    """Live through a history, checking it on the way; return it."""
    history = History(seed)
    for month in range(1, 5):
        for day in sorted(history.random.sample(range(2, 27), 5)):
            history.use(month, at(month, day, 23))
            if history.random.random() < 0.2:
                history.cancel(at(month, day, 23))
            if history.random.random() < 0.3:
                history.keep()
        if month < 4:
            history.finalize(month, at(month + 1))
    history.keep()
    history.restore()
    for _ in range(3):
        for month in history.random.sample([1, 2, 3], 3):
            history.finalize(month, at(4, 27))
        history.check()
        history.send_again(at(4, 27))
        history.use(4, at(4, 27))
    for month in history.random.sample([1, 2, 3, 1, 2, 3], 6):
        history.finalize(month, at(4, 28))
    for month in (4, 5):
        history.finalize(month, at(month + 1))
        history.check()
        history.use(month + 1, at(month + 1, 5))
        history.cancel(at(month + 1, 6))
    history.check()
    return history


@pytest.mark.parametrize(
    "seeds", [range(25), pytest.param(range(25, 400), marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_every_unit_is_billed_once_or_told_or_the_call_is_refused(seeds):
    """Whatever order all is sent again and finalized in; some histories are completed, and some are
    refused to the end.
    """
    ends = Counter(bool(lived(seed).lacking()) for seed in seeds)
    assert ends[True] > 1
    assert ends[False] > 1

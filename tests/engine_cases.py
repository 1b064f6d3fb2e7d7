"""Adversarial usage for engines, many cases in one batch, and the comparison with what a log makes of it (law 4).

Each case is a subscription of its own with items of its own, so cases cannot touch each other and one run of a slow engine
settles hundreds. Times, quantities and ids are drawn from the few values at which engines go wrong.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from itertools import islice

from builders import DAY, MODES, START, priced

from metering_core import (
    AcceptancePolicy,
    BillingPeriod,
    BillingThresholds,
    Graduated,
    PerUnit,
    Recurring,
    Subscription,
    SubscriptionItem,
    Tier,
    UsageLog,
    finalize_invoice,
)
from metering_core.aggregation import summarize_all

POLICIES = {
    "literal": AcceptancePolicy(),
    "late": AcceptancePolicy(late_grace=timedelta(hours=1)),
    "drifting": AcceptancePolicy(future_tolerance=timedelta(seconds=300), late_grace=timedelta(days=40)),
    "attributed": AcceptancePolicy(late_grace=timedelta(days=3), late_attribution="open_period"),
}
QUANTITIES = (0, 1, 2, 5, 10, 2**53 + 1, 2**63 - 1)
INTERVALS = (("day", 1), ("week", 1), ("month", 1), ("month", 2))
MODELS = (PerUnit(1), PerUnit("0.4"), Graduated([Tier(5, 3, 100), Tier(None, "1.5")]))


@dataclass
class Batch:
    """Subscriptions, what was closed of them, and rows: item, quantity, timestamp, action, id, received at."""

    policy: AcceptancePolicy
    subscriptions: list[Subscription] = field(default_factory=list)
    closings: list[tuple[str, BillingPeriod]] = field(default_factory=list)
    rows: list[tuple[str, int, int, str, str | None, int]] = field(default_factory=list)

    def empty_log(self):
        """Return the log before any usage arrived."""
        log = UsageLog(self.subscriptions, policy=self.policy)
        for subscription_id, period in self.closings:
            log.close_period(subscription_id, period, now=period.end)
        return log

    def closed(self):
        """Return the closed periods as engines take them."""
        return self.empty_log().state().closed

    def columns(self):
        """Return the rows by column, with the order of arrival."""
        names = ("subscription_item", "quantity", "timestamp", "action", "id", "received_at")
        columns = {name: [row[at] for row in self.rows] for at, name in enumerate(names)}
        return columns | {"seq": list(range(1, len(self.rows) + 1))}

    def log(self):
        """Return the log after all rows, and their receipts."""
        log, columns = self.empty_log(), self.columns()
        fields = [columns[name] for name in ("subscription_item", "quantity", "timestamp", "action", "id")]
        return log, log.append_columns(*fields, received_at=columns["received_at"])

    def requests(self):
        """Return every billing period that may have usage, and periods that cut through them, of every item with usage."""
        found = []
        for subscription in self.subscriptions:
            for period in self.periods(subscription):
                cut = BillingPeriod(period.start_seconds + 1, period.end_seconds + DAY)
                metered = [item for item in subscription.items if item.recurring.aggregate_usage is not None]
                found += [(item, asked) for item in metered for asked in (period, cut)]
        return found

    @cached_property
    def expected(self):
        """Return what the log says."""
        log, receipts = self.log()
        requests = self.requests()
        return {
            "receipts": {at + 1: receipt for at, receipt in enumerate(receipts) if receipt.outcome != "accepted"},
            "partials": log.partials(requests),
            "summaries": summarize_all(requests, log),
            "invoices": invoices_of(self, log.as_of(log.sequence)),
            "periods with usage": {key: periods for key, periods in _periods_with_usage(self, log).items() if periods},
        }

    @staticmethod
    def periods(subscription):
        """Return the first billing periods."""
        return list(islice(subscription.periods_from(START), 3))


def generated(seed: int, cases: int, policy: str) -> Batch:
    """Return so many cases in one batch, the same ones for the same seed."""
    draw = random.Random(f"{seed} {policy}")  # noqa: S311 - no secret
    batch = Batch(POLICIES[policy])
    rows = []
    for number in range(cases):
        subscription = _subscription(draw, f"c{number}")
        batch.subscriptions.append(subscription)
        periods = batch.periods(subscription)
        closed = draw.choice([0, 0, 1, 2])
        batch.closings += [(subscription.id, period) for period in periods[:closed]]
        rows.append(_rows(draw, subscription, periods, POLICIES[policy]))
    # Cases take turns, so that what one engine calls neighbours another does not.
    while any(rows):
        batch.rows += [pending.pop(0) for pending in rows if pending and draw.random() < 0.7]
    return batch


def _subscription(draw, case):
    interval, count = draw.choice(INTERVALS)
    thresholds = BillingThresholds(usage_gte=5)
    items = []
    for number, mode in enumerate(draw.sample((*MODES, *MODES, None, "meter"), draw.randint(1, 4))):
        recurring = Recurring(
            interval=interval,
            interval_count=count,
            usage_type="licensed" if mode is None else "metered",
            aggregate_usage=None if mode == "meter" else mode,
            **({"meter": "mtr"} if mode == "meter" else {}),
        )
        item_thresholds = thresholds if draw.random() < 0.1 and mode in MODES else None
        price = priced(draw.choice(MODELS), recurring=recurring)
        items.append(SubscriptionItem(f"{case}/{number}", price, billing_thresholds=item_thresholds))
    life = draw.choice([{}, {}, {}, {"start_date": START + DAY // 2}, {"ended_at": START + DAY + 3600}])
    if draw.random() < 0.1:
        life["billing_thresholds"] = BillingThresholds(amount_gte=1)
    return Subscription(case, items, draw.choice([START, START, START + 3600, START + 30 * DAY]), **life)


def _rows(draw, subscription, periods, policy):
    grace, tolerance = (int(one.total_seconds()) for one in (policy.late_grace, policy.future_tolerance))
    edges = [second for period in periods for second in (period.start_seconds, period.end_seconds)]
    stamps = [edge + delta for edge in draw.sample(edges, min(2, len(edges))) for delta in (-1, 0, 1, 60)]
    rows = []
    for _ in range(draw.choice([0, 1, 3, 8, 16])):
        item = draw.choice(subscription.items).id if draw.random() < 0.97 else f"{subscription.id}/unknown"
        timestamp = draw.choice(stamps)
        latest = timestamp - tolerance
        late = [edge + grace + delta for edge in edges for delta in (-1, 0)]
        received = draw.choice(
            [timestamp, timestamp, timestamp, timestamp + 1, latest, latest - 1, draw.choice(late), max(edges)]
        )
        action = draw.choice(["increment", "increment", "set"])
        rows.append((item, draw.choice(QUANTITIES), timestamp, action, draw.choice([None, None, "a", "b"]), received))
        if draw.random() < 0.3:
            retried = draw.choice(rows)
            rows.append((*retried[:5], draw.choice([received, retried[5]])))
    return rows


def differences(batch: Batch, engine) -> list[str]:
    """Return what an engine says otherwise than the log: receipts, partials, summaries, invoices, periods with usage."""
    found, expected, requests = [], batch.expected, batch.requests()
    answers = {"receipts": engine.receipts(), "partials": engine.partials(requests)}
    answers |= {"summaries": summarize_all(requests, engine), "invoices": invoices_of(batch, engine)}
    answers |= {"periods with usage": engine.periods_with_usage()}
    for what, answer in answers.items():
        if answer != expected[what]:
            pairs = zip(expected[what], answer, strict=False) if isinstance(answer, list) else [(expected[what], answer)]
            found += [f"{what}: expected {left}, received {right}" for left, right in pairs if left != right][:1]
    return found


def invoices_of(batch: Batch, usage):
    """Return the invoices of all billing periods of all cases that can be billed; items on a meter cannot."""
    return [
        finalize_invoice(subscription, usage, period, now=period.end)
        for subscription in batch.subscriptions
        if all(item.recurring.meter is None for item in subscription.items)
        for period in batch.periods(subscription)
    ]


def _periods_with_usage(batch, log):
    """Return them by looking at each accepted record."""
    owners = {item.id: subscription for subscription in batch.subscriptions for item in subscription.items}
    found = {subscription.id: set() for subscription in batch.subscriptions}
    for logged in log.records():
        owner = owners[logged.record.subscription_item]
        found[owner.id].add(owner.period_at(logged.billed_at))
    return {key: tuple(sorted(periods, key=lambda period: period.start)) for key, periods in found.items()}

"""Drives the naive biller beside the engine: every test here fails, and README.md says with what.

    pytest examples/conformance/test_naive_biller.py

The first class is the adapter, which is all that a service needs. The three classes below ask about
one part of the service each, so that each reports its own defect instead of all three the one that
is simplest to show.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from hypothesis import Phase, settings
from naive_biller import NaiveBiller, RefusedError

import metering_core as mc
from metering_core.testing.conformance import BillingConformance


class NaiveBillerConformance(BillingConformance):
    """What the biller can do, and how it is asked."""

    models = ("per_unit",)
    aggregate_usage = ("sum",)
    currencies = ("usd",)
    intervals = ("day", "month")
    interval_counts = (1,)
    licensed = False
    thresholds = False
    ids = False
    max_items = max_subscriptions = 1
    strangers = False
    max_quantity = 1_000
    refusals = (RefusedError,)

    def start(self, subscriptions: Sequence[mc.Subscription], now: datetime) -> None:
        """Tell the biller what it bills."""
        self.biller = NaiveBiller(now)
        self.item_of = {subscription.id: subscription.items[0].id for subscription in subscriptions}
        for subscription in subscriptions:
            for item in subscription.items:
                dollars = float(item.price.model.unit_amount) / 100
                interval = item.price.recurring.interval
                self.biller.add_item(
                    item.id, subscription.id, dollars, interval, subscription.billing_cycle_anchor
                )

    def record_usage(self, record: mc.UsageRecord, now: datetime) -> None:
        """Report usage."""
        self.biller.use(record.subscription_item, record.quantity, record.instant, record.action)

    def advance_time(self, now: datetime) -> None:
        """Set the biller's clock."""
        self.biller.now = now

    def read_quantity(self, item_id: str, now: datetime) -> int:
        """Ask for an item's usage."""
        return self.biller.usage(item_id)


class NaiveMoney(NaiveBillerConformance):
    """Money alone, in whole cents: no `set`, and days, which have no calendar to get wrong."""

    prices = (
        mc.Price.per_unit(
            "calls", currency="usd", unit_amount=29, recurring=mc.Recurring(interval="day")
        ),
    )
    actions = ("increment",)
    anchors = (datetime(2024, 1, 1, tzinfo=UTC),)
    late = future = False

    def preview_invoice(self, subscription_id: str, now: datetime) -> int:
        """Ask what a customer owes."""
        return self.biller.owed(subscription_id)


class NaiveUsage(NaiveBillerConformance):
    """Usage alone: `set` and increments within days, at a price that does not matter here."""

    prices = (
        mc.Price.per_unit(
            "calls", currency="usd", unit_amount=1, recurring=mc.Recurring(interval="day")
        ),
    )
    anchors = (datetime(2024, 1, 1, tzinfo=UTC),)
    late = future = False


class NaiveCalendar(NaiveBillerConformance):
    """Billing periods alone: months, from the 1st, the 15th and the 31st on."""

    prices = (mc.Price.per_unit("calls", currency="usd", unit_amount=1),)
    actions = ("increment",)
    anchors = tuple(datetime(2024, 1, day, tzinfo=UTC) for day in (1, 15, 31))
    late = future = False

    def current_period(self, subscription_id: str, now: datetime) -> tuple[datetime, datetime]:
        """Ask for the period of the subscription's only item."""
        return self.biller.period(self.item_of[subscription_id])


SETTINGS = settings(
    max_examples=300,
    stateful_step_count=4,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate, Phase.shrink],
)

TestNaiveMoney = NaiveMoney.TestCase
TestNaiveUsage = NaiveUsage.TestCase
TestNaiveCalendar = NaiveCalendar.TestCase
for case in (TestNaiveMoney, TestNaiveUsage, TestNaiveCalendar):
    case.settings = SETTINGS

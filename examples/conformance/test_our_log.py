"""Drives a service that is right, because it is built on the engine: this test passes.

    pytest examples/conformance/test_our_log.py

It offers everything that can be compared, codes of refusals and lines included. Copy it, and
replace the service.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime

from hypothesis import settings

import metering_core as mc
from metering_core.testing.conformance import BillingConformance


class LogConformance(BillingConformance):
    """A service around the log, which is stored and read back whenever time passes."""

    compare_codes = True
    line_by_line = True
    now_by_name = True
    timezones = ("UTC", "Europe/Berlin")

    def start(self, subscriptions: Sequence[mc.Subscription], now: datetime) -> None:
        """Start with an empty log."""
        self.log = mc.UsageLog(subscriptions)
        self.subscriptions = {one.id: one for one in subscriptions}
        self.items = {item.id: (item, one) for one in subscriptions for item in one.items}

    def record_usage(self, record: mc.UsageRecord, now: datetime) -> str:
        """Append one record and say what became of it."""
        receipt = self.log.append([record], now=now)[0]
        return receipt.code or receipt.outcome

    def advance_time(self, now: datetime) -> None:
        """Restart the service."""
        self.log = mc.restore(json.loads(json.dumps(mc.snapshot(self.log))))

    def read_quantity(self, item_id: str, now: datetime) -> object:
        """Sum up an item's usage."""
        item, subscription = self.items[item_id]
        return mc.summarize(item, self.log, subscription.period_at(now)).total_usage

    def current_period(self, subscription_id: str, now: datetime) -> mc.BillingPeriod:
        """Return the billing period."""
        return self.subscriptions[subscription_id].period_at(now)

    def preview_invoice(self, subscription_id: str, now: datetime) -> mc.Invoice:
        """Return the bill as it stands."""
        return mc.preview_invoice(self.subscriptions[subscription_id], self.log, now=now)

    def finalize_invoice(
        self, subscription_id: str, period: mc.BillingPeriod, now: datetime
    ) -> list[int]:
        """Bill the period for good."""
        invoice = mc.finalize_invoice(
            self.subscriptions[subscription_id], self.log, period, now=now
        )
        return [line.amount for line in invoice.lines]


TestLog = LogConformance.TestCase
TestLog.settings = settings(max_examples=50, stateful_step_count=15, deadline=None)

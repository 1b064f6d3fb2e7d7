"""Never run, only type-checked: the public interface as its users write it, under `mypy --strict`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import assert_type

import metering_core as mc

NOW = datetime(2024, 1, 15, tzinfo=UTC)


class FlatRate:
    """A pricing model of the user's own needs no base class."""

    def charges(self, quantity: int | Decimal | Fraction) -> Sequence[mc.Charge]:
        """Charge one amount, whatever was used."""
        return [mc.Charge(mc.ChargeKind.UNIT, quantity, None, Decimal(500))]


def build() -> mc.Subscription:
    """Tiers come as any iterable; amounts as int, Decimal or decimal string."""
    tiers = (mc.Tier(up_to, unit_amount=amount) for up_to, amount in ((1000, "0.4"), ("inf", Decimal("0.3"))))
    monthly = mc.Recurring(interval="month", aggregate_usage="max")
    metered = mc.Price.graduated("price_tokens", currency="usd", tiers=tiers, recurring=monthly, unit_label="token")
    own = mc.Price("price_flat", "usd", FlatRate())
    licensed = mc.Price.per_unit("price_seat", currency="usd", unit_amount=1500, recurring=mc.Recurring(usage_type="licensed"))
    items = [mc.SubscriptionItem("si_1", metered), mc.SubscriptionItem("si_2", own), mc.SubscriptionItem("si_3", licensed, 3)]
    return mc.Subscription("sub_1", items, NOW, timezone="Europe/Berlin")


def use(subscription: mc.Subscription) -> None:
    """Every verb, with the types that come out."""
    policy = mc.AcceptancePolicy(future_tolerance=timedelta(minutes=5), late_attribution="open_period")
    log = mc.UsageLog([subscription], clock=lambda: NOW, policy=policy)
    assert_type(log.record("si_1", 5, timestamp=NOW, action="set", id="a"), mc.UsageRecord)
    receipts = log.append([mc.UsageRecord("si_1", 5)], now=1_705_276_800)
    assert_type(receipts, mc.Receipts)
    assert_type(receipts[0].code, mc.ErrorCode | None)
    assert_type(log.append_columns(["si_1"], [5], ["now"], ["increment"], [None]), mc.Receipts)
    period = subscription.period_at(NOW)
    assert_type(period, mc.BillingPeriod | None)
    assert period is not None
    usage: mc.Usage = log.as_of(3)
    assert_type(mc.summarize(subscription.items[0], usage, period).total_usage, int | Decimal | Fraction)
    assert_type(mc.rate(subscription.items[0].price, 5).amount, mc.Amount)
    invoice = mc.preview_invoice(subscription, log, now=NOW, rounding=mc.half_even)
    assert_type(invoice.lines[0].money, mc.Money)
    assert_type(mc.finalize_invoice(subscription, log, period, now=period.end), mc.Invoice)
    assert_type(mc.explain(invoice.lines[0]), mc.Explanation)
    assert_type(mc.restore(mc.snapshot(log)), mc.UsageLog)
    assert_type(mc.settle(mc.Amount(Decimal("1.5"), "usd"), mc.to_multiple(10)), mc.Money)
    try:
        log.record("si_1", 5, now=NOW)
    except mc.UsageRejectedError as error:
        assert_type(error.code, mc.ErrorCode)
        assert_type(error.param, str | None)

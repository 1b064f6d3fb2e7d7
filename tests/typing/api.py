"""Never run, only type-checked: the public interface as its users write it, under `mypy
--strict`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import assert_type

from hypothesis.strategies import SearchStrategy

import metering_core as mc
from metering_core.testing import laws, strategies

NOW = datetime(2024, 1, 15, tzinfo=UTC)


class FlatRate:
    """A pricing model of the user's own needs no base class."""

    def charges(self, quantity: mc.exact.Number) -> Sequence[mc.pricing.Charge]:
        """Charge one amount, whatever was used."""
        return [mc.pricing.Charge(mc.pricing.ChargeKind.UNIT, quantity, None, Decimal(500))]


def build() -> mc.Subscription:
    """Tiers come as any iterable; amounts as int, Decimal or decimal string."""
    tiers = (
        mc.Tier(up_to, unit_amount=amount)
        for up_to, amount in ((1000, "0.4"), ("inf", Decimal("0.3")))
    )
    monthly = mc.Recurring(interval="month", aggregate_usage="max")
    metered = mc.Price.graduated(
        "price_tokens", currency="usd", tiers=tiers, recurring=monthly, unit_label="token"
    )
    own = mc.Price("price_flat", "usd", FlatRate())
    licensed = mc.Price.per_unit(
        "price_seat",
        currency="usd",
        unit_amount=1500,
        recurring=mc.Recurring(usage_type="licensed"),
    )
    items = [
        mc.SubscriptionItem("si_1", metered),
        mc.SubscriptionItem("si_2", own),
        mc.SubscriptionItem("si_3", licensed, 3),
    ]
    return mc.Subscription("sub_1", items, NOW, timezone="Europe/Berlin")


def use(subscription: mc.Subscription) -> None:
    """Every verb, with the types that come out."""
    policy = mc.AcceptancePolicy(
        future_tolerance=timedelta(minutes=5), late_attribution="open_period"
    )
    log = mc.UsageLog([subscription], clock=lambda: NOW, policy=policy)
    assert_type(log.record("si_1", 5, timestamp=NOW, action="set", id="a"), mc.UsageRecord)
    receipts = log.append([mc.UsageRecord("si_1", 5)], now=1_705_276_800)
    assert_type(receipts, mc.acceptance.Receipts)
    assert_type(receipts[0].code, mc.ErrorCode | None)
    assert_type(
        log.append_columns(["si_1"], [5], ["now"], ["increment"], [None]), mc.acceptance.Receipts
    )
    period = subscription.period_at(NOW)
    assert_type(period, mc.BillingPeriod | None)
    assert period is not None
    usage: mc.Usage = log.as_of(3)
    assert_type(mc.summarize(subscription.items[0], usage, period).total_usage, mc.exact.Number)
    assert_type(mc.rate(subscription.items[0].price, 5).amount, mc.money.Amount)
    invoice = mc.preview_invoice(subscription, log, now=NOW, rounding=mc.money.half_even)
    assert_type(invoice.lines[0].money, mc.Money)
    assert_type(mc.finalize_invoice(subscription, log, period, now=period.end), mc.Invoice)
    assert_type(mc.explain(invoice.lines[0]), mc.Explanation)
    assert_type(mc.restore(mc.snapshot(log)), mc.UsageLog)
    assert_type(
        mc.money.settle(mc.money.Amount(Decimal("1.5"), "usd"), mc.money.to_multiple(10)), mc.Money
    )
    try:
        log.record("si_1", 5, now=NOW)
    except mc.UsageRejectedError as error:
        assert_type(error.code, mc.ErrorCode)
        assert_type(error.param, str | None)


def measure() -> mc.MeterLog:
    """Meters and their events; values are strings, quantities exact numbers."""
    meter = mc.Meter(
        "mtr_tokens", "tokens", "sum", dimension_payload_keys=["model"], event_time_window="day"
    )
    assert_type(meter.formula, mc.Formula)
    assert_type(meter.event_time_window, mc.meters.EventTimeWindow | None)
    assert_type(meter.deactivate(NOW).reactivate(), mc.Meter)
    assert_type(mc.Meter.from_dict(meter.to_dict()).status, mc.meters.MeterStatus)
    metered = mc.Price.per_unit(
        "price", currency="usd", unit_amount="0.4", recurring=mc.Recurring(meter=meter.id)
    )
    subscription = mc.Subscription(
        "sub_1", [mc.SubscriptionItem("si_1", metered)], NOW, customer="cus_1"
    )
    policy = mc.MeterPolicy(
        cancel_window=None,
        late_usage="carry_forward",
        identifier_scope=mc.meter_acceptance.IdentifierScope.GLOBAL,
    )
    assert_type(policy.late_usage, mc.meter_acceptance.LateUsage)
    assert_type(mc.MeterPolicy.stripe(batch_max=10), mc.MeterPolicy)
    log = mc.MeterLog(
        [meter], [subscription], customers={"cus_1"}, clock=lambda: NOW, policy=policy
    )
    payload: Mapping[str, str] = {"stripe_customer_id": "cus_1", "value": "2.5", "model": "small"}
    assert_type(log.record("tokens", payload, identifier="a", timestamp=NOW), mc.MeterEvent)
    receipts = log.append([mc.MeterEvent("tokens", payload, timestamp=1_705_276_800)], now=NOW)
    assert_type(receipts, mc.acceptance.Receipts)
    assert_type(log.cancel("tokens", "a"), mc.stripe.MeterEventAdjustment)
    view: mc.MeterView = log.as_of(1)
    usage: mc.Usage = view
    assert_type(mc.preview_invoice(subscription, usage, now=NOW).lines[0].quantity, mc.exact.Number)
    assert_type(log.events("mtr_tokens", "cus_1")[0], mc.meter_views.LoggedEvent)
    assert_type(log.unbilled("sub_1"), list[mc.meter_bills.UnbilledDelta])
    assert_type(mc.restore_meter_log(mc.snapshot(log), clock=lambda: NOW), mc.MeterLog)
    return log


def read_off(log: mc.MeterLog) -> None:
    """Summaries, streams, reports and other formats, with the types that come out."""
    summaries = mc.event_summaries(
        log, "mtr_tokens", "cus_1", NOW, NOW + timedelta(days=1), value_grouping_window="hour"
    )
    assert_type(summaries, list[mc.MeterEventSummary])
    assert_type(summaries[0].aggregated_value, mc.exact.Number)
    filters = {"model": ["small", "large"]}
    page = mc.stripe.list_event_summaries(
        log, "mtr_tokens", "cus_1", 0, 60, dimension_filters=filters, limit=100
    )
    assert_type(page, mc.stripe.MeterEventSummaryPage)
    assert_type(mc.meter_summaries.total_of(log.meter("mtr_tokens"), page.data), mc.exact.Number)
    assert_type(mc.feeds.meter_event_from_cloudevent({}), mc.MeterEvent)
    assert_type(mc.stripe.stripe_sync_code(mc.ErrorCode.VALUE_MISSING), str | None)
    both = mc.CombinedUsage(mc.UsageLog([]), log)
    usage: mc.Usage = both
    assert_type(mc.measures.FORMULAS[mc.Formula.SUM], mc.measures.Aggregator)
    del usage


def hold() -> None:
    """The laws and the strategies, with values of every kind."""
    meter = mc.Meter("mtr_tokens", "tokens")
    assert_type(strategies.meters(formulas=["sum"]), SearchStrategy[mc.Meter])
    assert_type(
        strategies.meter_events(meter, customers=["cus_1"], misfits=False),
        SearchStrategy[list[mc.MeterEvent]],
    )
    assert_type(strategies.meter_policies(), SearchStrategy[mc.MeterPolicy])
    assert_type(strategies.meter_logs(closes=False), SearchStrategy[mc.MeterLog])
    laws.check_formula_laws(mc.Formula.SUM, [(0, 1), (1, Decimal("2.5"))], {0}, (0, 2))
    laws.check_retry_laws(lambda: mc.MeterLog([meter]), mc.MeterEvent("tokens", {}), 0, 1)
    laws.check_carrying_laws(
        lambda: mc.MeterLog([meter]),
        [(0, [mc.MeterEvent("tokens", {})], None)],
        rounding=mc.money.down,
    )
    laws.check_snapshot_laws(measure(), [mc.MeterEvent("tokens", {})], 0)
    laws.check_engine_agrees(lambda log: log.as_of(0), measure())
    laws.check_engine_agrees(lambda log: log.as_of(0), mc.UsageLog([]))

"""Bad input, kind by kind: each is refused with its code and param, the message names what came,
and nothing changes.
"""

from __future__ import annotations

import copy
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace

import pytest
from builders import DAY, FEB, JAN, MAR, START, priced, subscribed
from damaging import changed, replaced

from metering_core import (
    AcceptancePolicy,
    BillingCycle,
    BillingPeriod,
    ErrorCode,
    InvalidValueError,
    InvoicingError,
    MeteringError,
    Money,
    Outcome,
    Price,
    Recurring,
    Subscription,
    SubscriptionItem,
    Tier,
    UsageLog,
    UsageRecord,
    UsageRejectedError,
    finalize_invoice,
    preview_invoice,
    rate,
    restore,
    snapshot,
    summarize,
)
from metering_core.errors import SnapshotError
from metering_core.money import Amount, settle, to_multiple
from metering_core.pricing import Charge, Graduated, Package, PerUnit
from metering_core.subscriptions import BillingThresholds

NOW = FEB.start_seconds + DAY  # January has ended, February is current.
LONG = "x" * 256
NAIVE = datetime(2024, 1, 1)  # noqa: DTZ001 - the point of it
NAN = float("nan")
THRESHOLDS = BillingThresholds(amount_gte=1)
LICENSED = priced(mode=None)
STRIPE_PRICE = {
    "id": "p",
    "currency": "usd",
    "unit_amount": 5,
    "recurring": {"interval": "month", "usage_type": "metered"},
}
STRIPE_TIERS = {"id": "p", "currency": "usd", "billing_scheme": "tiered", "tiers_mode": "graduated"}
STRIPE_SUBSCRIPTION = {
    "id": "s",
    "billing_cycle_anchor": START,
    "items": [{"id": "si", "price": STRIPE_PRICE}],
}


def record(**changes):
    return lambda log: UsageRecord(**{"subscription_item": "si_0", "quantity": 1, **changes})


def sent(**changes):
    return lambda log: log.record(
        **{"subscription_item": "si_0", "quantity": 1, "now": NOW, **changes}
    )


def columns(items=("si_0", "si_0"), quantities=(1, 2), timestamps=(NOW, NOW), **rest):
    return lambda log: log.append_columns(items, quantities, timestamps, **{"now": NOW, **rest})


def tiers(*given):
    return lambda log: Graduated([Tier(*one) for one in given])


def stripe(**changes):
    return lambda log: Price.from_dict({**STRIPE_PRICE, **changes})


def stripe_tiers(*given, **changes):
    return lambda log: Price.from_dict({**STRIPE_TIERS, "tiers": list(given), **changes})


def stripe_subscription(**changes):
    return lambda log: Subscription.from_dict({**STRIPE_SUBSCRIPTION, **changes})


def built(model):
    return lambda log: preview_invoice(*own_model(model), now=NOW)


def own_model(answer):
    price = priced(SimpleNamespace(charges=lambda quantity: answer))
    return subscribed(price), UsageLog([subscribed(price)])


INTEGER, DECIMAL, STRING = (
    "parameter_invalid_integer",
    "parameter_invalid_decimal",
    "parameter_invalid_string",
)
CHOICE, INSTANT, OBJECT = (
    "parameter_invalid_choice",
    "parameter_invalid_instant",
    "parameter_invalid_object",
)
MISSING, UNKNOWN, EXCLUSIVE = "parameter_missing", "parameter_unknown", "parameters_exclusive"
EXPECTING_TIER = "An entry in the tiers array is missing an amount."

# What is attempted, the code, the param, and what the message must say of what was received.
MALFORMED = [
    # Usage records, through their constructor and through the log's single and columnar doors.
    *[
        (door(quantity=quantity), INTEGER, "quantity", shown)
        for door in (record, sent)
        for quantity, shown in [
            (1.5, "1.5 (float)"),
            (1.0, "1.0 (float)"),
            (True, "True (bool)"),
            (NAN, "nan (float)"),
            ("7", "'7' (str)"),
            (-1, "-1 (int)"),
            (Decimal("0.5"), "Decimal('0.5')"),
            (None, "None"),
            (-(2**70), "-1180591620717411303424"),
        ]
    ],
    (record(subscription_item=""), STRING, "subscription_item", "'' (str)"),
    (record(subscription_item=LONG), STRING, "subscription_item", "'xxx"),
    (record(subscription_item=7), STRING, "subscription_item", "7 (int)"),
    (record(id=""), STRING, "id", "'' (str)"),
    (record(id=LONG), STRING, "id", "'xxx"),
    (record(id=7), STRING, "id", "7 (int)"),
    (record(action="add"), CHOICE, "action", "'add' (str)"),
    (record(action=None), CHOICE, "action", "None"),
    (record(timestamp=NAIVE), INSTANT, "timestamp", "2024-01-01T00:00:00"),
    (record(timestamp=1.5), INSTANT, "timestamp", "1.5 (float)"),
    (record(timestamp=True), INSTANT, "timestamp", "True (bool)"),
    (record(timestamp="2024-01-01"), INSTANT, "timestamp", "'2024-01-01' (str)"),
    (record(timestamp=None), INSTANT, "timestamp", "None"),
    (record(timestamp=10**12), INSTANT, "timestamp", "1000000000000 (int)"),
    (sent(now=None), MISSING, "now", "None"),
    (sent(now=NAIVE), INSTANT, "now", "2024-01-01T00:00:00"),
    (sent(now="now"), INSTANT, "now", "'now' (str)"),
    (sent(now=10**12), INSTANT, "now", "1000000000000 (int)"),
    (lambda log: log.append(["si_0"], now=NOW), OBJECT, "records[0]", "'si_0' (str)"),
    (lambda log: log.append([UsageRecord("si_0", 1), 7], now=NOW), OBJECT, "records[1]", "7 (int)"),
    (columns(quantities=(1,)), OBJECT, "quantities", "1 (int)"),
    (columns(timestamps=(NOW,) * 3), OBJECT, "timestamps", "3 (int)"),
    (columns(actions=["set"]), OBJECT, "actions", "1 (int)"),
    (columns(ids=[None]), OBJECT, "ids", "1 (int)"),
    (columns(received_at=[NOW], now=None), OBJECT, "received_at", "1 (int)"),
    (columns(received_at=[NOW, NOW]), EXCLUSIVE, "now", "now, received_at"),
    (columns(received_at=[NOW, NAIVE], now=None), INSTANT, "received_at[1]", "2024-01-01T00:00:00"),
    (columns(items=("si_0", "")), STRING, "subscription_items[1]", "'' (str)"),
    (columns(items=("si_0", 7)), STRING, "subscription_items[1]", "7 (int)"),
    (columns(quantities=(1, -1)), INTEGER, "quantities[1]", "-1 (int)"),
    (columns(quantities=(1, True)), INTEGER, "quantities[1]", "True (bool)"),
    (columns(quantities=(1, 2.0)), INTEGER, "quantities[1]", "2.0 (float)"),
    (columns(timestamps=(NOW, NAIVE)), INSTANT, "timestamps[1]", "2024-01-01T00:00:00"),
    (columns(timestamps=(NOW, "later")), INSTANT, "timestamps[1]", "'later' (str)"),
    (columns(actions=["set", "add"]), CHOICE, "actions[1]", "'add' (str)"),
    (columns(actions=["set", None]), CHOICE, "actions[1]", "None"),
    (columns(ids=["a", LONG]), STRING, "ids[1]", "'xxx"),
    (columns(ids=["a", 7]), STRING, "ids[1]", "7 (int)"),
    # What a log is asked.
    (lambda log: log.as_of(1.5), INTEGER, "as_of", "1.5 (float)"),
    (lambda log: log.as_of(-1), INTEGER, "as_of", "-1 (int)"),
    (lambda log: log.as_of(NAIVE), INSTANT, "as_of", "2024-01-01T00:00:00"),
    (lambda log: log.summaries("si_0", now=NOW, limit=0), INTEGER, "limit", "0 (int)"),
    (lambda log: log.summaries("si_0", now=NAIVE), INSTANT, "now", "2024-01-01T00:00:00"),
    (lambda log: log.compact(until="today"), INSTANT, "until", "'today' (str)"),
    (lambda log: log.close_period("other", JAN, now=NOW), CHOICE, "subscription", "'other' (str)"),
    (
        lambda log: log.subscribe(subscribed(billing_cycle_anchor=START + 1)),
        "subscription_changed",
        "billing_cycle_anchor",
        "2024-01-01T00:00:01",
    ),
    (
        lambda log: log.subscribe(subscribed(id="other")),
        "subscription_changed",
        "items[id]",
        "'si_0' (str)",
    ),
    # Policies, periods and cycles.
    (lambda log: AcceptancePolicy(future_tolerance=300), OBJECT, "future_tolerance", "300 (int)"),
    (
        lambda log: AcceptancePolicy(late_grace=timedelta(-1)),
        OBJECT,
        "late_grace",
        "datetime.timedelta(days=-1)",
    ),
    (
        lambda log: AcceptancePolicy(late_grace=timedelta(milliseconds=1)),
        OBJECT,
        "late_grace",
        "microseconds=1000",
    ),
    (
        lambda log: AcceptancePolicy(late_attribution="newest"),
        CHOICE,
        "late_attribution",
        "'newest' (str)",
    ),
    (lambda log: BillingPeriod(START, START), OBJECT, "end", "2024-01-01T00:00:00Z"),
    (lambda log: BillingPeriod(NAIVE, START), INSTANT, "start", "2024-01-01T00:00:00"),
    (lambda log: BillingCycle(START, "quarter"), CHOICE, "interval", "'quarter' (str)"),
    (lambda log: BillingCycle(START, "month", 0), INTEGER, "interval_count", "0 (int)"),
    *[
        (
            lambda log, interval=interval, count=count: BillingCycle(START, interval, count),
            "interval_out_of_range",
            "interval_count",
            f"{count} (int)",
        )
        for interval, count in [("year", 4), ("month", 37), ("week", 157), ("day", 1096)]
    ],
    (
        lambda log: BillingCycle(START, "month", 1, "Europe/Atlantis"),
        "timezone_unknown",
        "timezone",
        "'Europe/Atlantis' (str)",
    ),
    (lambda log: BillingCycle(START, "month", 1, 1), STRING, "timezone", "1 (int)"),
    # Money.
    (lambda log: Amount(1.5, "usd"), DECIMAL, "minor_units", "1.5 (float)"),
    (lambda log: Money(Decimal(1), "usd"), INTEGER, "minor_units", "Decimal('1')"),
    (lambda log: Money(1, "xyz"), "currency_unknown", "currency", "'xyz' (str)"),
    (lambda log: Money(1, "usd") + Money(1, "eur"), "currency_mismatch", "currency", "EUR to USD"),
    (lambda log: settle(Amount(1, "usd"), lambda value: 0.5), INTEGER, "rounding", "0.5 (float)"),
    (lambda log: to_multiple(3), INTEGER, "multiple", "3 (int)"),
    # Tiers and prices, by constructor.
    (tiers((0, 1), ("inf", 1)), INTEGER, "up_to", "0 (int)"),
    (tiers((-1, 1), ("inf", 1)), DECIMAL, "up_to", "-1 (int)"),
    (tiers((1.5, 1), ("inf", 1)), DECIMAL, "up_to", "1.5 (float)"),
    (tiers((5, NAN), ("inf", 1)), DECIMAL, "unit_amount", "nan (float)"),
    (tiers((5, 1, "-1"), ("inf", 1)), DECIMAL, "flat_amount", "'-1' (str)"),
    (tiers((5,)), MISSING, "amount", EXPECTING_TIER),
    (tiers(), MISSING, "tiers", "tiers"),
    (tiers((5, 1), (5, 1), ("inf", 1)), OBJECT, "tiers[1][up_to]", "5 (int)"),
    (tiers((5, 1), (4, 1), ("inf", 1)), OBJECT, "tiers[1][up_to]", "4 (int)"),
    (tiers((5, 1), (10, 1)), OBJECT, "tiers[1][up_to]", "10 (int)"),
    (
        tiers((5, 1), (None, 1), (None, 1)),
        MISSING,
        "tiers[1][up_to]",
        "tiers[1][up_to] (a tier without an end belongs last; this is tier 2 of 3)",
    ),
    (lambda log: Graduated([5]), OBJECT, "tiers[0]", "5 (int)"),
    (lambda log: Graduated(5), OBJECT, "tiers", "5 (int)"),
    (lambda log: PerUnit(0.4), DECIMAL, "unit_amount", "0.4 (float)"),
    (lambda log: PerUnit("1e100"), DECIMAL, "unit_amount", "'1e100' (str)"),
    (lambda log: PerUnit("1" * 101), DECIMAL, "unit_amount", "at most 100 digits before the point"),
    (
        lambda log: Tier("INF", 1),
        DECIMAL,
        "up_to",
        "'inf' for a tier without end, received 'INF' (str)",
    ),
    (lambda log: PerUnit("0.1234567890123"), DECIMAL, "unit_amount", "'0.1234567890123' (str)"),
    (lambda log: PerUnit("-0.1"), DECIMAL, "unit_amount", "'-0.1' (str)"),
    (lambda log: PerUnit(None), DECIMAL, "unit_amount", "None"),
    (lambda log: Package(1, 0), INTEGER, "transform_quantity[divide_by]", "0 (int)"),
    (lambda log: Package(1, 5, "nearest"), CHOICE, "transform_quantity[round]", "'nearest' (str)"),
    (lambda log: Charge("fee", 1, None, Decimal(1)), CHOICE, "kind", "'fee' (str)"),
    (lambda log: Price("", "usd", PerUnit(1)), STRING, "id", "'' (str)"),
    (
        lambda log: Price("p", "dollars", PerUnit(1)),
        "currency_unknown",
        "currency",
        "'dollars' (str)",
    ),
    (lambda log: Price("p", "usd", PerUnit), OBJECT, "model", "PerUnit"),
    (lambda log: Price("p", "usd", 5), OBJECT, "model", "5 (int)"),
    (lambda log: Price("p", "usd", PerUnit(1), "month"), OBJECT, "recurring", "'month' (str)"),
    (lambda log: Price("p", "usd", PerUnit(1), nickname=5), STRING, "nickname", "5 (int)"),
    (lambda log: Recurring(interval="hour"), CHOICE, "recurring[interval]", "'hour' (str)"),
    (lambda log: Recurring(usage_type="free"), CHOICE, "recurring[usage_type]", "'free' (str)"),
    (
        lambda log: Recurring(aggregate_usage="mean"),
        CHOICE,
        "recurring[aggregate_usage]",
        "'mean' (str)",
    ),
    (
        lambda log: Recurring(usage_type="licensed", aggregate_usage="sum"),
        EXCLUSIVE,
        "recurring[aggregate_usage]",
        "'sum'",
    ),
    (
        lambda log: Recurring(meter="m", aggregate_usage="sum"),
        EXCLUSIVE,
        "recurring[aggregate_usage]",
        "'sum'",
    ),
    (lambda log: Recurring(usage_type="licensed", meter="m"), EXCLUSIVE, "recurring[meter]", "'m'"),
    (lambda log: rate(priced(), 1.5), DECIMAL, "quantity", "1.5 (float)"),
    (lambda log: rate(priced(), -1), DECIMAL, "quantity", "-1 (int)"),
    (lambda log: rate(priced(), "5"), DECIMAL, "quantity", "'5' (str)"),
    (
        lambda log: priced(own_model([])[0].items[0].price.model).to_dict(),
        OBJECT,
        "model",
        "namespace",
    ),
    # Prices in Stripe's shape.
    (lambda log: Price.from_dict(5), OBJECT, "data", "5 (int)"),
    (stripe(id=None), MISSING, "id", "Missing required param: id"),
    (stripe(currency=None), MISSING, "currency", "Missing required param: currency"),
    (stripe(unit_amount=None), MISSING, "unit_amount", "Missing required param: unit_amount"),
    (stripe(unit_amout=5), UNKNOWN, "unit_amout", "Received unknown parameter: unit_amout"),
    (stripe(unit_amount_decimal="6"), EXCLUSIVE, "unit_amount", "unit_amount, unit_amount_decimal"),
    (stripe(unit_amount_decimal="x"), DECIMAL, "unit_amount_decimal", "'x' (str)"),
    (
        stripe(recurring={"usage_type": "metered"}),
        MISSING,
        "recurring[interval]",
        "Missing required param: recurring[interval]",
    ),
    (
        stripe(recurring={"interval": "month", "count": 1}),
        UNKNOWN,
        "recurring[count]",
        "recurring[count]",
    ),
    (
        stripe(custom_unit_amount={"enabled": True}),
        "field_not_billable",
        "custom_unit_amount",
        "{'enabled': True} (dict)",
    ),
    (stripe(billing_scheme="auction"), CHOICE, "billing_scheme", "'auction' (str)"),
    (stripe(tiers=[]), EXCLUSIVE, "tiers", "billing_scheme=per_unit"),
    (
        stripe(transform_quantity={"divide_by": 5}),
        MISSING,
        "transform_quantity[round]",
        "transform_quantity[round]",
    ),
    (
        stripe(transform_quantity={"divide_by": 5, "round": "up", "to": 1}),
        UNKNOWN,
        "transform_quantity[to]",
        "[to]",
    ),
    (
        lambda log: Price.from_dict(STRIPE_PRICE, currency="eur"),
        "currency_mismatch",
        "currency",
        "'eur' (str)",
    ),
    (
        lambda log: Price.from_dict({**STRIPE_PRICE, "currency_options": 5}, currency="eur"),
        OBJECT,
        "currency_options",
        "5 (int)",
    ),
    (stripe_tiers(), MISSING, "tiers", "Missing required param: tiers"),
    (stripe_tiers(tiers=None), MISSING, "tiers", "Missing required param: tiers"),
    (stripe_tiers(tiers="5"), OBJECT, "tiers", "'5' (str)"),
    (stripe_tiers(5), OBJECT, "tiers[0]", "5 (int)"),
    (
        stripe_tiers({"unit_amount": 5}),
        MISSING,
        "tiers[0][up_to]",
        "Missing required param: tiers[0][up_to]",
    ),
    (stripe_tiers({"up_to": 0, "unit_amount": 5}), INTEGER, "tiers[0][up_to]", "0 (int)"),
    (
        stripe_tiers({"up_to": "INF", "unit_amount": 5}),
        DECIMAL,
        "tiers[0][up_to]",
        "'inf' for a tier without end",
    ),
    (
        lambda log: Price.from_dict(
            {**STRIPE_PRICE, "currency_options": {"EUR": {}, "eur": {}}}, currency="eur"
        ),
        EXCLUSIVE,
        "currency_options[eur]",
        "'EUR' is the same",
    ),
    (
        lambda log: Price.from_dict(
            {**STRIPE_PRICE, "currency_options": {"eur": {}, 5: {}, "gbp": {}, "EUR": {}}}
        ),
        EXCLUSIVE,
        "currency_options[EUR]",
        "'eur' is the same",
    ),
    (stripe_tiers({"up_to": 1.5, "unit_amount": 5}), DECIMAL, "tiers[0][up_to]", "1.5 (float)"),
    (
        stripe_tiers({"up_to": "inf", "unit_amount": 5, "price": 5}),
        UNKNOWN,
        "tiers[0][price]",
        "tiers[0][price]",
    ),
    (
        stripe_tiers({"up_to": None, "unit_amount": 5, "unit_amount_decimal": "6"}),
        EXCLUSIVE,
        "tiers[0][unit_amount]",
        "You may only specify one of these parameters: unit_amount, unit_amount_decimal.",
    ),
    (stripe_tiers({"up_to": None}), MISSING, "amount", EXPECTING_TIER),
    (
        stripe_tiers({"up_to": None, "unit_amount": 5}, tiers_mode=None),
        MISSING,
        "tiers_mode",
        "tiers_mode",
    ),
    (
        stripe_tiers({"up_to": None, "unit_amount": 5}, tiers_mode="slab"),
        CHOICE,
        "tiers_mode",
        "'slab' (str)",
    ),
    (
        stripe_tiers({"up_to": None, "unit_amount": 5}, unit_amount=5),
        EXCLUSIVE,
        "tiers",
        "tiers, unit_amount",
    ),
    (
        stripe_tiers(
            {"up_to": None, "unit_amount": 5}, transform_quantity={"divide_by": 5, "round": "up"}
        ),
        EXCLUSIVE,
        "tiers",
        "You may only specify one of these parameters: tiers, transform_quantity.",
    ),
    # Subscriptions.
    (lambda log: SubscriptionItem("", priced()), STRING, "items[id]", "'' (str)"),
    (
        lambda log: SubscriptionItem("si", Price("p", "usd", PerUnit(1), None)),
        OBJECT,
        "items[price]",
        "Price(id='p'",
    ),
    (lambda log: SubscriptionItem("si", "price"), OBJECT, "items[price]", "'price' (str)"),
    (
        lambda log: SubscriptionItem("si", priced(), 3),
        EXCLUSIVE,
        "items[quantity]",
        "You cannot set the quantity for metered plans",
    ),
    (lambda log: SubscriptionItem("si", LICENSED, 1.5), INTEGER, "items[quantity]", "1.5 (float)"),
    (
        lambda log: SubscriptionItem("si", priced(), billing_thresholds=5),
        OBJECT,
        "billing_thresholds",
        "5 (int)",
    ),
    (
        lambda log: SubscriptionItem("si", priced(), billing_thresholds=THRESHOLDS),
        MISSING,
        "items[billing_thresholds]",
        "amount_gte=1",
    ),
    (
        lambda log: subscribed(billing_thresholds=BillingThresholds(usage_gte=9)),
        MISSING,
        "billing_thresholds",
        "usage_gte=9",
    ),
    (lambda log: BillingThresholds(), MISSING, "billing_thresholds", "None"),
    (
        lambda log: BillingThresholds(amount_gte=0),
        INTEGER,
        "billing_thresholds[amount_gte]",
        "0 (int)",
    ),
    (
        lambda log: BillingThresholds(usage_gte="9"),
        INTEGER,
        "billing_thresholds[usage_gte]",
        "'9' (str)",
    ),
    (
        lambda log: BillingThresholds(usage_gte=9, reset_billing_cycle_anchor=1),
        CHOICE,
        "billing_thresholds[reset_billing_cycle_anchor]",
        "1 (int)",
    ),
    (
        lambda log: BillingThresholds.from_dict({"above": 1}),
        UNKNOWN,
        "billing_thresholds[above]",
        "billing_thresholds[above]",
    ),
    (lambda log: Subscription("s", [], START), MISSING, "items", "Missing required param: items"),
    (lambda log: Subscription("s", None, START), OBJECT, "items", "None"),
    (lambda log: Subscription("s", ["si"], START), OBJECT, "items[0]", "'si' (str)"),
    (
        lambda log: Subscription("s", [SubscriptionItem("si", priced())] * 2, START),
        OBJECT,
        "items[1][id]",
        "'si' (str)",
    ),
    (
        lambda log: subscribed(billing_cycle_anchor=NAIVE),
        INSTANT,
        "billing_cycle_anchor",
        "2024-01-01T00:00:00",
    ),
    (lambda log: subscribed(start_date=NAIVE), INSTANT, "start_date", "2024-01-01T00:00:00"),
    (
        lambda log: subscribed(start_date=START, ended_at=START),
        OBJECT,
        "ended_at",
        "2024-01-01T00:00:00",
    ),
    (
        lambda log: subscribed(timezone="Mars/Olympus"),
        "timezone_unknown",
        "timezone",
        "'Mars/Olympus' (str)",
    ),
    (lambda log: subscribed(billing_thresholds=9), OBJECT, "billing_thresholds", "9 (int)"),
    (
        lambda log: subscribed(priced(), priced(currency="eur")),
        "currency_mismatch",
        "items[1][price][currency]",
        "'eur' (str)",
    ),
    (
        lambda log: subscribed(currency="eur"),
        "currency_mismatch",
        "items[0][price][currency]",
        "'usd' (str)",
    ),
    (
        lambda log: subscribed(priced(), priced(recurring=Recurring(interval="year"))),
        OBJECT,
        "items[1][price][recurring]",
        "'1 year' (str)",
    ),
    (lambda log: subscribed().item("si_9"), CHOICE, "subscription_item", "'si_9' (str)"),
    (stripe_subscription(id=None), MISSING, "id", "Missing required param: id"),
    (stripe_subscription(items=None), MISSING, "items", "Missing required param: items"),
    (stripe_subscription(items=5), OBJECT, "items", "5 (int)"),
    (
        stripe_subscription(items=[{"id": "si"}]),
        MISSING,
        "items[plan]",
        "Missing required param: items[plan]",
    ),
    (stripe_subscription(items=[{"id": "si", "price": "p"}]), CHOICE, "items[price]", "'p' (str)"),
    (stripe_subscription(discounts=["di_1"]), "field_not_billable", "discounts", "['di_1'] (list)"),
    (stripe_subscription(anchor=START), UNKNOWN, "anchor", "Received unknown parameter: anchor"),
    # Bills.
    (
        lambda log: preview_invoice(subscribed(), log, now=NAIVE),
        INSTANT,
        "now",
        "2024-01-01T00:00:00",
    ),
    (
        lambda log: preview_invoice(subscribed(start_date=MAR.start), log, now=NOW),
        "period_not_of_subscription",
        "now",
        "2024-02-02",
    ),
    (
        lambda log: finalize_invoice(subscribed(), log, "January", now=NOW),
        OBJECT,
        "period",
        "'January' (str)",
    ),
    (
        lambda log: finalize_invoice(subscribed(), log, BillingPeriod(START, START + DAY), now=NOW),
        "period_not_of_subscription",
        "period",
        "2024-01-01T00:00:00Z to 2024-01-02T00:00:00Z",
    ),
    (
        lambda log: finalize_invoice(subscribed(start_date=0, ended_at=START), log, JAN, now=NOW),
        "period_not_of_subscription",
        "period",
        "2024-01",
    ),
    (
        lambda log: finalize_invoice(subscribed(), log, FEB, now=NOW),
        "period_not_ended",
        "now",
        "2024-02-02T00:00:00",
    ),
    (
        lambda log: finalize_invoice(subscribed(id="other"), log, JAN, now=NOW),
        CHOICE,
        "subscription",
        "'other' (str)",
    ),
    (
        lambda log: summarize(SubscriptionItem("si_9", priced()), log, JAN),
        "subscription_item_unknown",
        "subscription_item",
        "'si_9'",
    ),
    (
        lambda log: summarize(SubscriptionItem("si_0", LICENSED), log, JAN),
        "price_not_metered",
        "subscription_item",
        "licensed",
    ),
    (lambda log: log.records("si_9"), "subscription_item_unknown", "subscription_item", "'si_9'"),
    (built(None), "pricing_model_broken", "charges", "None"),
    (built([5]), "pricing_model_broken", "charges[0]", "5 (int)"),
    (
        built([Charge("unit", 1, None, Decimal(1), tier="gold")]),
        "pricing_model_broken",
        "charges[0][tier]",
        "'gold' (str)",
    ),
    (
        built([Charge("unit", 1, None, 1.5)]),
        "pricing_model_broken",
        "charges[0][amount]",
        "1.5 (float)",
    ),
    (
        built([Charge("unit", 1, None, Decimal("NaN"))]),
        "pricing_model_broken",
        "charges[0][amount]",
        "Decimal('NaN')",
    ),
    (
        built([Charge("unit", 1, None, True)]),
        "pricing_model_broken",
        "charges[0][amount]",
        "True (bool)",
    ),
    (
        built([Charge("unit", 1.5, None, Decimal(1))]),
        "pricing_model_broken",
        "charges[0][quantity]",
        "1.5 (float)",
    ),
    (
        built([Charge("unit", 1, 0.5, Decimal(1))]),
        "pricing_model_broken",
        "charges[0][unit_amount]",
        "0.5 (float)",
    ),
    # The log itself.
    (lambda _: UsageLog(5), "parameter_invalid_object", "subscriptions", "5 (int)"),
    (lambda _: UsageLog([5]), "parameter_invalid_object", "subscription", "5 (int)"),
    (lambda _: UsageLog(policy=5), "parameter_invalid_object", "policy", "5 (int)"),
    (lambda _: UsageLog(clock=5), "parameter_invalid_object", "clock", "5 (int)"),
    (lambda log: log.subscribe(5), "parameter_invalid_object", "subscription", "5 (int)"),
    (lambda log: log.append(5), "parameter_invalid_object", "records", "5 (int)"),
]


@pytest.fixture
def log():
    """Return a log with usage in January and February."""
    filled = UsageLog([subscribed()])
    filled.record("si_0", 5, timestamp=START, now=START, id="first")
    filled.record("si_0", 7, timestamp=NOW, now=NOW)
    return filled


@pytest.mark.parametrize(("attempt", "code", "param", "received"), MALFORMED)
def test_bad_input_is_refused_by_name(log, attempt, code, param, received):
    """The error has the code, names the param at fault and shows what came; the log is as it
    was.
    """
    before = snapshot(log)
    with pytest.raises(MeteringError) as caught:
        attempt(log)
    error = caught.value
    assert (error.code, error.param) == (code, param)
    assert received in error.message
    assert type(error).__name__ == ErrorCode(code).raised_as or isinstance(error, InvoicingError)
    assert isinstance(error, ValueError) == isinstance(error, InvalidValueError)
    assert snapshot(log) == before


def test_the_table_is_long():
    """More than 80 kinds of nonsense are tried."""
    assert len(MALFORMED) > 80


# The door -----------------------------------------------------------------------------------------

TOLERANT = AcceptancePolicy(future_tolerance=timedelta(days=1))
MOVING = AcceptancePolicy(late_grace=timedelta(days=9), late_attribution="open_period")
NEAR_END = FEB.end_seconds - 10
OLD = JAN.end_seconds - 1


def sent_once(*, then=None, closed=False, policy=None, mode="sum"):
    """Return a log whose ``si_0`` was sent 5 under the id "a" in January, after which its
    subscription became ``then``.
    """
    subscription = subscribed(priced(mode=mode))
    log = UsageLog([subscription], policy=policy)
    log.record("si_0", 5, timestamp=START, id="a", now=START)
    if closed:
        finalize_invoice(subscription, log, JAN, now=NOW)
    if then is not None:
        log.subscribe(then, now=START, rebill=True)
    return log


def thresholds(**options):
    return UsageLog([subscribed(billing_thresholds=THRESHOLDS, **options)])


METER = subscribed(priced(recurring=Recurring(meter="mtr")))
ANOTHER_ITEM = Subscription("sub", [SubscriptionItem("si_new", priced())], START)
FIRST = {"quantity": 5, "timestamp": START, "id": "a"}
OTHER = {"quantity": 6, "timestamp": START, "id": "a"}

# Each code alone, with the param and words of its own; Stripe's where they are known.
REFUSED = [
    (
        sent_once,
        {"subscription_item": "si_9"},
        NOW,
        "subscription_item_unknown",
        "subscription_item",
        "'si_9'",
    ),
    (
        lambda: sent_once(then=ANOTHER_ITEM),
        {},
        NOW,
        "subscription_item_unknown",
        "subscription_item",
        "'si_0'",
    ),
    (
        sent_once,
        OTHER,
        NOW,
        "id_reused",
        "id",
        (
            "Keys for idempotent requests can only be used with the same parameters they "
            "were first used with. "
            "Try using a key other than 'a' if you meant to execute a different request."
        ),
    ),
    (sent_once, {**FIRST, "action": "set"}, NOW, "id_reused", "id", "received quantity 5, "),
    (sent_once, {**FIRST, "timestamp": "now"}, NOW, "id_reused", "id", "timestamp now"),
    (
        lambda: UsageLog([subscribed(LICENSED)]),
        {},
        NOW,
        "price_not_metered",
        "subscription_item",
        "received 'licensed'",
    ),
    (
        lambda: UsageLog([METER]),
        {},
        NOW,
        "price_not_metered",
        "subscription_item",
        (
            "Cannot create a usage record for `si_0` because it is not on the legacy "
            "metered billing system. "
            "Call /v1/billing/meter_events instead."
        ),
    ),
    (
        lambda: UsageLog([subscribed(ended_at=NOW)]),
        {},
        NOW,
        "subscription_canceled",
        "subscription_item",
        "Cannot create the usage record because the subscription has been canceled.",
    ),
    (thresholds, {"action": "set"}, NOW, "set_with_billing_thresholds", "action", "received 'set'"),
    (
        lambda: UsageLog([subscribed()]),
        {"timestamp": NOW + 1},
        NOW,
        "timestamp_in_future",
        "timestamp",
        str(NOW + 1),
    ),
    (
        lambda: UsageLog([subscribed()], policy=TOLERANT),
        {"timestamp": FEB.end_seconds},
        NEAR_END,
        "timestamp_after_current_period",
        "timestamp",
        str(FEB.end_seconds),
    ),
    (
        lambda: UsageLog([subscribed()]),
        {"timestamp": OLD},
        NOW,
        "timestamp_before_current_period",
        "timestamp",
        (
            "Cannot create the usage record with this timestamp because timestamps must be "
            "after the subscription's last "
            "invoice period (or current period start time)."
        ),
    ),
    (
        lambda: UsageLog([subscribed(start_date=MAR.start)]),
        {},
        NOW,
        "timestamp_before_current_period",
        "timestamp",
        str(NOW),
    ),
    (
        lambda: sent_once(closed=True),
        {"timestamp": OLD},
        OLD,
        "period_closed",
        "timestamp",
        str(OLD),
    ),
    (
        lambda: sent_once(closed=True, policy=MOVING),
        {"timestamp": OLD, "action": "set"},
        NOW,
        "late_usage_not_billable",
        "action",
        "Expected action 'increment' with what was used more, received 'set'",
    ),
    (
        lambda: sent_once(closed=True, policy=MOVING, mode="max"),
        {"timestamp": OLD},
        NOW,
        "late_usage_not_billable",
        "timestamp",
        "what an item aggregates by 'max' cannot be billed as the difference it makes later",
    ),
]


@pytest.mark.parametrize(("new_log", "row", "now", "code", "param", "said"), REFUSED)
@pytest.mark.parametrize("door", ["record", "append", "append_columns"])
def test_the_door_refuses_by_name(new_log, row, now, code, param, said, door):
    """Every door gives the code, the param and the words, and leaves the log as it was."""
    log = new_log()
    row = {
        "subscription_item": "si_0",
        "quantity": 1,
        "timestamp": now,
        "action": "increment",
        "id": None,
        **row,
    }
    before = snapshot(log)
    if door == "record":
        with pytest.raises(UsageRejectedError) as caught:
            log.record(**row, now=now)
        refusal = caught.value
    else:
        columns = [[value] for value in row.values()]
        receipts = (
            log.append([UsageRecord(**row)], now=now)
            if door == "append"
            else log.append_columns(*columns, now=now)
        )
        assert receipts[0].outcome is Outcome.REJECTED
        assert receipts[0].sequence is None
        refusal = receipts[0].error()
    assert (refusal.code, refusal.param) == (code, param)
    assert said in refusal.message
    assert ErrorCode(code).raised_as == "UsageRejectedError"
    assert snapshot(log) == before


def ended(*prices, **options):
    return subscribed(*prices, ended_at=NOW, **options)


# A record that two neighbouring checks refuse hears the earlier one.
PRECEDENCE = [
    ("duplicate", "subscription_item_unknown", lambda: sent_once(then=ANOTHER_ITEM), FIRST, NOW),
    ("duplicate", "price_not_metered", lambda: sent_once(then=subscribed(LICENSED)), FIRST, NOW),
    ("duplicate", "subscription_canceled", lambda: sent_once(then=ended()), FIRST, NOW),
    ("duplicate", "period_closed", lambda: sent_once(closed=True), FIRST, NOW),
    ("subscription_item_unknown", "id_reused", lambda: sent_once(then=ANOTHER_ITEM), OTHER, NOW),
    ("id_reused", "price_not_metered", lambda: sent_once(then=subscribed(LICENSED)), OTHER, NOW),
    ("price_not_metered", "subscription_canceled", lambda: UsageLog([ended(LICENSED)]), {}, NOW),
    (
        "subscription_canceled",
        "set_with_billing_thresholds",
        lambda: UsageLog([ended(billing_thresholds=THRESHOLDS)]),
        {"action": "set"},
        NOW,
    ),
    (
        "set_with_billing_thresholds",
        "timestamp_in_future",
        thresholds,
        {"action": "set", "timestamp": NOW + 1},
        NOW,
    ),
    (
        "timestamp_in_future",
        "timestamp_after_current_period",
        lambda: UsageLog([subscribed()], policy=TOLERANT),
        {"timestamp": FEB.end_seconds},
        NOW,
    ),
    # No timestamp is both after and before the current period: its end is after its start. The next
    # check stands in.
    (
        "timestamp_before_current_period",
        "period_closed",
        lambda: sent_once(closed=True),
        {"timestamp": OLD},
        NOW,
    ),
    # A closed period has an open one after it or has none, so no record hears both of the last two.
    # The one before stands in.
    (
        "timestamp_before_current_period",
        "late_usage_not_billable",
        lambda: sent_once(closed=True, policy=MOVING),
        {"timestamp": OLD, "action": "set"},
        NOW + 9 * DAY,
    ),
]


@pytest.mark.parametrize(("earlier", "later", "new_log", "row", "now"), PRECEDENCE)
def test_the_earlier_code_wins(earlier, later, new_log, row, now):
    """A record that violates two rules hears the one that comes first in ErrorCode; a duplicate is
    no violation at all.
    """
    row = {"subscription_item": "si_0", "quantity": 1, "timestamp": now, **row}
    receipt = new_log().append([UsageRecord(**row)], now=now)[0]
    assert (receipt.code or receipt.outcome) == earlier
    order = ["duplicate", *ErrorCode]
    assert order.index(earlier) < order.index(later)


def test_after_comes_before_closed():
    """A timestamp after the current period is refused as such, also where its own period was
    finalized already.
    """
    log = UsageLog([subscribed()], policy=TOLERANT)
    finalize_invoice(subscribed(), log, FEB, now=FEB.end)
    late_january = JAN.end_seconds - 1
    assert (
        log.append([UsageRecord("si_0", 1, JAN.end)], now=late_january)[0].code
        == "timestamp_after_current_period"
    )
    assert log.append([UsageRecord("si_0", 1, JAN.end)], now=JAN.end)[0].code == "period_closed"


# Snapshots ----------------------------------------------------------------------------------------


CLOSING = {"period": JAN.to_dict(), "closed_at": JAN.end_seconds, "invoice": None}
OF_ANOTHER = {
    **dict.fromkeys(("id", "subscription", "currency"), "x"),
    "period": JAN.to_dict(),
    "status": "finalized",
    "lines": [],
}

DAMAGED = [
    (replaced(format="something else"), "snapshot_damaged", "format"),
    (replaced(checksum="sha256:0"), "snapshot_damaged", "checksum"),
    (replaced(content={"a": {1, 2}}), "snapshot_damaged", "content"),
    (replaced(content=None), "snapshot_damaged", "checksum"),
    (lambda data: data["content"].update(sequence=99), "snapshot_damaged", "checksum"),
    (lambda data: data.pop("content"), "snapshot_damaged", "checksum"),
    *[
        (replaced(version=version), "snapshot_version_unknown", "version")
        for version in (0, 4, "1", 1.0, True, None)
    ],
    *[
        (changed(*path, value=value), "snapshot_damaged", "content")
        for path, value in [
            (["policy"], KeyError),
            (["policy", "late_grace"], -1),
            (["policy", "late_attribution"], "never"),
            (["subscriptions"], 5),
            (["subscriptions", 0, "currency"], "eur"),
            (["subscriptions", 0, "items"], []),
            (["subscriptions", 0, "items", 0, "price"], "nobody's"),
            (["prices"], KeyError),
            (["prices", "price", "unit_amount"], 0.5),
            (["subscriptions", 0, "id"], "renamed"),
            (["items"], []),
            (["items", 0, "subscription"], "nobody"),
            (["items", 0, "id"], "si_9"),
            (["items", 1], {}),
            (["items", 1, "subscription"], "nobody"),
            (["records", "quantities", 0], -1),
            (["records", "quantities", 0], 1.5),
            (["records", "quantities", 0], "1"),
            (["records", "quantities"], [1]),
            (["records", "codes", 0], 9),
            (["records", "codes", 0], -1),
            (["records", "sequences", 0], 2),
            (["records", "sequences", 1], 3),
            (["records", "timestamps", 0], None),
            (["records", "timestamps", 0], 2**70),
            (["records", "received"], KeyError),
            (["records", "timestamps", 0], 10**12),
            (["sequence"], 1),
            (["sequence"], "2"),
            (["sequence"], KeyError),
            (["attributed"], [[9, START]]),
            (["attributed"], 5),
            (["ids", "si_0", "first"], [1, START, 5, 0]),
            (["ids", "si_0", "first"], [9, START, 5, 0, 0]),
            (["ids", "si_0", "first"], [0, START, 5, 0, 0]),
            (["ids"], {"nobody": {}}),
            (["closed"], {"nobody": []}),
            (["closed"], {"sub": [{"period": {"start": START, "end": START}}]}),
            (["closed"], {"sub": [{**CLOSING, "closed_at": "now"}]}),
            (["closed"], {"sub": [{**CLOSING, "kept": 1}]}),
            (["closed"], {"sub": [{**CLOSING, "invoice": 5}]}),
            (["closed"], {"sub": [{**CLOSING, "invoice": OF_ANOTHER}]}),
            (["compacted"], {"si_0": [[START, {}]]}),
            (["items", 1, "item", "id"], "si_0"),
            (["compacted"], {"nobody": []}),
            (["surprise"], 1),
        ]
    ],
]


@pytest.fixture
def stored(log):
    """Return a snapshot of the log after an item was dropped from its subscription."""
    log.subscribe(
        Subscription("sub", [*subscribed().items, SubscriptionItem("si_1", priced())], START)
    )
    log.subscribe(subscribed(), rebill=True)
    return snapshot(log)


@pytest.mark.parametrize(("change", "code", "param"), DAMAGED)
def test_damaged_snapshots_are_refused(stored, change, code, param):
    """A snapshot that is not whole is refused with its code; nothing half-built comes back, and the
    data is left alone.
    """
    damaged = copy.deepcopy(stored)
    change(damaged)
    given = copy.deepcopy(damaged)
    with pytest.raises(SnapshotError) as caught:
        restore(damaged)
    assert (caught.value.code, caught.value.param) == (code, param)
    assert param in caught.value.message
    assert damaged == given
    assert restore(stored) is not None


@pytest.mark.parametrize("data", [None, [], "snapshot", 5])
def test_a_snapshot_is_an_object(data):
    """What is no mapping is no snapshot."""
    with pytest.raises(SnapshotError) as caught:
        restore(data)
    assert caught.value.code == "snapshot_damaged"


def test_nothing_changes_where_one_row_of_a_batch_is_malformed(log):
    """A batch with one malformed value is refused whole: the rows before it are not taken."""
    before = snapshot(log)
    with pytest.raises(InvalidValueError):
        log.append_columns(
            ["si_0"] * 3, [1, 2, None], [NOW] * 3, now=datetime.fromtimestamp(NOW, UTC)
        )
    assert snapshot(log) == before

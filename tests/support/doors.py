"""Every public callable, found by introspection, with valid arguments for each of its parameters
from one table.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from functools import partial
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import attrs
from builders import DAY, FEB, JAN, START, priced, subscribed
from public_names import PUBLIC

import metering_core as mc
from examples import fullest

NOW = FEB.start_seconds + DAY
LATER = FEB.end_seconds
METER_ID = "m"
PAYLOAD = {"stripe_customer_id": "c", "value": "5", "region": "eu"}
CLOUDEVENT = {
    "specversion": "1.0",
    "id": "1",
    "source": "/s",
    "type": "calls",
    "subject": "c",
    "time": "2024-01-01T00:00:00Z",
    "data": {"value": "5"},
}
STRIPE_PRICE = {
    "id": "p",
    "currency": "usd",
    "unit_amount": 5,
    "recurring": {"interval": "month", "usage_type": "metered"},
}
STRIPE_ITEM = {"id": "si", "price": STRIPE_PRICE}
TIERS = [mc.Tier(5, unit_amount=2), mc.Tier("inf", unit_amount=1)]


class Scene:
    """A usage log, a meter log and all that is valid beside them; wrong values must leave both logs
    as they are.
    """

    def __init__(self) -> None:
        self.price = priced()
        self.subscription = subscribed(ended_at=datetime(2034, 1, 1, tzinfo=UTC), customer="c")
        self.item = self.subscription.items[0]
        self.metered = subscribed(
            priced(recurring=mc.Recurring(meter=METER_ID)), id="metered", customer="c"
        )
        self.log = mc.UsageLog([self.subscription])
        self.log.record("si_0", 5, timestamp=START, now=START, id="first")
        self.log.record("si_0", 7, timestamp=NOW, now=NOW)
        self.meter = mc.Meter(METER_ID, "calls", dimension_payload_keys=["region"])
        policy = mc.MeterPolicy.history()
        self.meter_log = mc.MeterLog([self.meter], [self.metered, self.subscription], policy=policy)
        self.event = mc.MeterEvent("calls", PAYLOAD, timestamp=START, identifier="e")
        self.meter_log.append([self.event], now=NOW)
        self.tokens = map("token {}".format, range(10**6))
        self.stream = mc.stripe.MeterEventStream(self.meter_log, tokens=lambda: next(self.tokens))
        self.session = self.stream.create_session(now=NOW)
        self.policy = policy
        self.folder = Path(gettempdir())

    def state(self) -> tuple[object, object]:
        return self.log.state(), self.meter_log.state()

    @property
    def line(self) -> mc.InvoiceLineItem:
        return self.invoice.lines[0]

    @property
    def invoice(self) -> mc.Invoice:
        return mc.preview_invoice(self.subscription, self.log, now=NOW)

    @property
    def summaries(self) -> list[mc.MeterEventSummary]:
        return mc.event_summaries(self.meter_log, METER_ID, "c", START, START + DAY)

    @property
    def usage_summary(self) -> mc.UsageSummary:
        return mc.summarize(self.item, self.log, JAN)

    @property
    def refused(self) -> list[mc.stripe.RefusedEvent]:
        return mc.stripe.refused_events([self.event], [self.receipt], meters=[self.meter], now=NOW)

    @property
    def receipt(self) -> mc.Receipt:
        return mc.Receipt(
            mc.Outcome.REJECTED, code=mc.ErrorCode.METER_UNKNOWN, message="No.", param="event_name"
        )

    @property
    def point(self) -> mc.feeds.CumulativePoint:
        return mc.feeds.CumulativePoint(START + 60, 5, start_time=START)

    @property
    def sum(self) -> mc.feeds.CumulativeSum:
        return mc.feeds.CumulativeSum("calls")


def cumulative(scene: Scene) -> mc.feeds.DeltaRun:
    return mc.feeds.cumulative_to_delta(scene.sum, [scene.point])


# An instance of every public class, on which its methods are called.
INSTANCES: dict[str, Callable[[Scene], Any]] = {
    "AcceptancePolicy": lambda s: mc.AcceptancePolicy(),
    "Aggregator": lambda s: mc.measures.AGGREGATORS[mc.AggregateUsage.SUM],
    "Amount": lambda s: mc.money.Amount(1, "usd"),
    "BillingCycle": lambda s: mc.BillingCycle(START, "month"),
    "BillingThresholds": lambda s: mc.subscriptions.BillingThresholds(usage_gte=1),
    "Cell": lambda s: mc.usage.Cell(60, 5),
    "CombinedUsage": lambda s: mc.CombinedUsage(s.log, s.meter_log),
    "Comparison": lambda s: mc.tariffs.compare(s.price, s.price),
    "CumulativePoint": lambda s: s.point,
    "CumulativeSum": lambda s: s.sum,
    "Finding": lambda s: mc.tariffs.audit(
        mc.Price.package("p", currency="usd", unit_amount=5, divide_by=5)
    )[0],
    "Gap": lambda s: mc.tariffs.compare(s.price, priced(mc.pricing.PerUnit(2)), up_to=5).dearer,
    "Graduated": lambda s: mc.pricing.Graduated(TIERS),
    "Invoice": lambda s: s.invoice,
    "InvoiceLineItem": lambda s: s.line,
    "Meter": lambda s: s.meter,
    "MeterErrorReport": lambda s: mc.stripe.error_reports(s.refused)[0],
    "MeterErrorReporter": lambda s: mc.stripe.MeterErrorReporter(),
    "MeterErrorType": lambda s: mc.stripe.error_reports(s.refused)[0].error_types[0],
    "MeterEvent": lambda s: s.event,
    "MeterEventAdjustment": lambda s: mc.stripe.MeterEventAdjustment(
        "calls", "e", 2, datetime(2024, 1, 1, tzinfo=UTC)
    ),
    "MeterEventSession": lambda s: s.session,
    "MeterEventStream": lambda s: s.stream,
    "MeterEventSummary": lambda s: s.summaries[0],
    "MeterEventSummaryPage": lambda s: mc.stripe.list_event_summaries(
        s.meter_log, METER_ID, "c", START, START + DAY
    ),
    "MeterLog": lambda s: s.meter_log,
    "MeterPolicy": lambda s: s.policy,
    "MeterView": lambda s: s.meter_log.as_of(1),
    "Package": lambda s: mc.pricing.Package(5, 5),
    "PerUnit": lambda s: mc.pricing.PerUnit(5),
    "Percentage": lambda s: mc.pricing.Percentage(5),
    "Price": lambda s: s.price,
    "RatedUsage": lambda s: mc.rate(s.price, 5),
    "Receipt": lambda s: s.receipt,
    "Receipts": lambda s: mc.acceptance.Receipts([1], {}),
    "Recurring": lambda s: mc.Recurring(),
    "Subscription": lambda s: s.subscription,
    "SubscriptionItem": lambda s: s.item,
    "Tier": lambda s: TIERS[0],
    "UsageChange": lambda s: mc.tariffs.compare_usage(s.price, s.price, [s.usage_summary]).changes[
        0
    ],
    "UsageComparison": lambda s: mc.tariffs.compare_usage(s.price, s.price, [s.usage_summary]),
    "UsageLog": lambda s: s.log,
    "UsageView": lambda s: s.log.as_of(1),
    "Volume": lambda s: mc.pricing.Volume(TIERS),
}

# A valid argument of every parameter: by the callable's name and its own, or by its own alone where
# it means one thing.
VALID: dict[str, Callable[[Scene], Any]] = {
    "action": lambda s: "increment",
    "Cell.of.action": lambda s: mc.Action.SET,
    "actions": lambda s: ["increment"],
    "aggregate_usage": lambda s: mc.AggregateUsage.SUM,
    "aggregated_value": lambda s: 5,
    "aligned_summaries": lambda s: False,
    "amount": lambda s: Decimal(5),
    "InvoiceLineItem.amount": lambda s: 5,
    "settle.amount": lambda s: mc.money.Amount(5, "usd"),
    "amount_gte": lambda s: 1,
    "amounts": lambda s: (),
    "anchor": lambda s: START,
    "as_of": lambda s: 1,
    "at": lambda s: NOW,
    "Subscription.is_alive_at.at": lambda s: datetime(2024, 1, 1, tzinfo=UTC),
    "attributes": lambda s: {"host": "a"},
    "Delta.attributes": lambda s: (),
    "authentication_token": lambda s: "token",
    "backdate_days": lambda s: 35,
    "batch_max": lambda s: 100,
    "billed": lambda s: 5,
    "billed_at": lambda s: datetime(2024, 1, 1, tzinfo=UTC),
    "billing_cycle_anchor": lambda s: START,
    "billing_thresholds": lambda s: mc.subscriptions.BillingThresholds(usage_gte=1, amount_gte=1),
    "cancel_window": lambda s: timedelta(hours=1),
    "canceled_at": lambda s: datetime(2024, 1, 1, tzinfo=UTC),
    "carried": lambda s: 0,
    "Explanation.carried": lambda s: {},
    "carry_forward": lambda s: False,
    "cells": lambda s: (),
    "changes": lambda s: (),
    "charge": lambda s: s.line.charge,
    "charges": lambda s: (),
    "cheaper": lambda s: None,
    "book": lambda s: s.log.book,
    "clock": lambda s: lambda: NOW,
    "code": lambda s: mc.ErrorCode.METER_UNKNOWN,
    "Currency.code": lambda s: "usd",
    "Finding.code": lambda s: next(iter(mc.tariffs.FindingCode)),
    "content": lambda s: [CLOUDEVENT].__repr__().replace("'", '"'),
    "created": lambda s: START,
    "currency": lambda s: "usd",
    "Price.from_dict.currency": lambda s: "usd",
    "customer": lambda s: "c",
    "customer_payload_key": lambda s: "stripe_customer_id",
    "customers": lambda s: ["c"],
    "data": lambda s: {},
    "MeterEventSummaryPage.data": lambda s: (),
    "BillingThresholds.from_dict.data": lambda s: {"usage_gte": 1},
    "CumulativePoint.from_dict.data": lambda s: s.point.to_dict(),
    "CumulativeSum.from_dict.data": lambda s: s.sum.to_dict(),
    "Graduated.from_stripe.data": lambda s: mc.pricing.Graduated(TIERS).to_stripe(),
    "Volume.from_stripe.data": lambda s: mc.pricing.Volume(TIERS).to_stripe(),
    "Package.from_stripe.data": lambda s: mc.pricing.Package(5, 5).to_stripe(),
    "PerUnit.from_stripe.data": lambda s: mc.pricing.PerUnit(5).to_stripe(),
    "Percentage.from_stripe.data": lambda s: mc.pricing.Percentage(5).to_stripe(),
    "Meter.from_dict.data": lambda s: s.meter.to_dict(),
    "MeterEvent.from_dict.data": lambda s: s.event.to_dict(),
    "MeterEventSession.from_dict.data": lambda s: s.session.to_dict(),
    "Price.from_dict.data": lambda s: STRIPE_PRICE,
    "Recurring.from_dict.data": lambda s: STRIPE_PRICE["recurring"],
    "Subscription.from_dict.data": lambda s: {
        "id": "s",
        "billing_cycle_anchor": START,
        "items": [STRIPE_ITEM],
    },
    "SubscriptionItem.from_dict.data": lambda s: STRIPE_ITEM,
    "cancellation.data": lambda s: {
        "type": "cancel",
        "event_name": "calls",
        "cancel": {"identifier": "a"},
    },
    "meter_event_from_cloudevent.data": lambda s: CLOUDEVENT,
    "restore.data": lambda s: mc.snapshot(s.log),
    "restore_meter_log.data": lambda s: mc.snapshot(s.meter_log),
    "deactivated_at": lambda s: START,
    "dearer": lambda s: None,
    "deciding": lambda s: (),
    "decimal_places": lambda s: 2,
    "delta": lambda s: cumulative(s).deltas[0],
    "deltas": lambda s: (),
    "description": lambda s: "line",
    "details": lambda s: {},
    "dimension_filters": lambda s: {"region": ["eu"]},
    "dimension_group_by_keys": lambda s: ["region"],
    "dimension_payload_keys": lambda s: ["region"],
    "dimensions": lambda s: {"region": "eu"},
    "dimensions_max": lambda s: 5,
    "direction": lambda s: next(iter(mc.tariffs.Direction)),
    "display_digits": lambda s: 2,
    "display_name": lambda s: "Calls",
    "divide_by": lambda s: 5,
    "end": lambda s: LATER,
    "UsageSummary.end": lambda s: datetime(2024, 2, 1, tzinfo=UTC),
    "end_time": lambda s: START + DAY,
    "MeterEventSummary.end_time": lambda s: datetime(2024, 1, 2, tzinfo=UTC),
    "ended_at": lambda s: LATER,
    "ending_before": lambda s: s.summaries[0].id,
    "error_count": lambda s: 1,
    "error_types": lambda s: (),
    "event": lambda s: s.event,
    "event_name": lambda s: "calls",
    "event_time_window": lambda s: "hour",
    "events": lambda s: [s.event],
    "CombinedUsage.events": lambda s: s.meter_log,
    "MeterEventSummary.events": lambda s: 1,
    "MigratedPeriod.events": lambda s: 1,
    "events_amount": lambda s: 5,
    "exact": lambda s: Decimal(5),
    "exceptions": lambda s: {},
    "expires_at": lambda s: LATER,
    "extensions": lambda s: ["region"],
    "finalized_at": lambda s: datetime(2024, 2, 1, tzinfo=UTC),
    "first": lambda s: 0,
    "flat_amount": lambda s: 5,
    "formula": lambda s: "sum",
    "fraction_digits": lambda s: 2,
    "future_tolerance": lambda s: timedelta(minutes=5),
    "has_more": lambda s: False,
    "has_records": lambda s: True,
    "http_status": lambda s: 400,
    "id": lambda s: "an id",
    "identifier": lambda s: "another",
    "MeterLog.cancel.identifier": lambda s: "e",
    "identifier_retention": lambda s: timedelta(days=1),
    "identifier_scope": lambda s: "global",
    "ids": lambda s: ["another"],
    "ignored": lambda s: (),
    "index": lambda s: 0,
    "interval": lambda s: "month",
    "interval_count": lambda s: 1,
    "intervals": lambda s: (),
    "invoice": lambda s: "in_1",
    "is_set": lambda s: False,
    "item": lambda s: s.item,
    "item_id": lambda s: "si_0",
    "items": lambda s: [s.item],
    "k": lambda s: 1,
    "kind": lambda s: "unit",
    "label": lambda s: "words",
    "last": lambda s: [],
    "Stretch.last": lambda s: 5,
    "late_attribution": lambda s: "usage_period",
    "late_grace": lambda s: timedelta(days=1),
    "late_usage": lambda s: "ignore",
    "later": lambda s: mc.usage.Cell(60, 1),
    "limit": lambda s: 1,
    "line": lambda s: s.line,
    "lines": lambda s: (s.line,),
    "log": lambda s: s.log,
    "MeterEventStream.log": lambda s: s.meter_log,
    "Migration.log": lambda s: s.meter_log,
    "look_back": lambda s: False,
    "measured": lambda s: 5,
    "MeterLog.counted.measured": lambda s: True,
    "MeterView.counted.measured": lambda s: True,
    "message": lambda s: "No.",
    "meter": lambda s: s.meter,
    "MeterErrorReport.meter": lambda s: METER_ID,
    "MeterEventSummary.meter": lambda s: METER_ID,
    "Recurring.meter": lambda s: METER_ID,
    "RefusedEvent.meter": lambda s: METER_ID,
    "UnbilledDelta.meter": lambda s: METER_ID,
    "meter_id": lambda s: METER_ID,
    "meters": lambda s: [s.meter],
    "metric": lambda s: "calls",
    "minor_units": lambda s: 5,
    "model": lambda s: mc.pricing.PerUnit(5),
    "moment": lambda s: NOW,
    "monotonic": lambda s: True,
    "multiple": lambda s: 10,
    "new": lambda s: priced(mc.pricing.PerUnit(2)),
    "UsageChange.new": lambda s: 5,
    "newer": lambda s: s.meter,
    "nickname": lambda s: "name",
    "note": lambda s: "",
    "now": lambda s: NOW,
    "number": lambda s: 1,
    "old": lambda s: s.price,
    "UsageChange.old": lambda s: 5,
    "outcome": lambda s: mc.Outcome.REJECTED,
    "overlapping": lambda s: (),
    "packages": lambda s: 1,
    "before": lambda s: None,
    "settled": lambda s: None,
    "proration": lambda s: None,
    "share": lambda s: Fraction(1, 2),
    "cut_from": lambda s: None,
    "param": lambda s: "quantity",
    "path": lambda s: str(s.folder / "curve.svg"),
    "payload": lambda s: PAYLOAD,
    "period": lambda s: JAN,
    "periods": lambda s: (),
    "point": lambda s: s.point,
    "points": lambda s: [s.point],
    "policy": lambda s: mc.AcceptancePolicy(),
    "MeterLog.policy": lambda s: s.policy,
    "positive_values": lambda s: False,
    "price": lambda s: s.price,
    "prices": lambda s: {"price": s.price},
    "curve.prices": lambda s: s.price,
    "product": lambda s: "product",
    "quantities": lambda s: [1],
    "Finding.quantities": lambda s: (1,),
    "quantity": lambda s: 5,
    "reason": lambda s: None,
    "receipts": lambda s: [s.receipt],
    "received_at": lambda s: datetime(2024, 1, 1, tzinfo=UTC),
    "UsageLog.append_columns.received_at": lambda s: [NOW],
    "received_by": lambda s: datetime(2024, 1, 1, tzinfo=UTC),
    "record": lambda s: mc.UsageRecord("si_0", 5, START),
    "records": lambda s: [mc.UsageRecord("si_0", 5, NOW)],
    "CombinedUsage.records": lambda s: s.log,
    "MigratedPeriod.records": lambda s: 5,
    "records_amount": lambda s: 5,
    "recurring": lambda s: mc.Recurring(),
    "refused": lambda s: s.refused,
    "repeats_every": lambda s: None,
    "repeats_from": lambda s: None,
    "requests": lambda s: [(s.item, JAN)],
    "reset_billing_cycle_anchor": lambda s: False,
    "round": lambda s: "up",
    "rounding": lambda s: mc.money.half_up,
    "InvoiceLineItem.rounding": lambda s: "half_up",
    "sample_errors": lambda s: (),
    "scale": lambda s: "linear",
    "sequence": lambda s: 1,
    "sequences": lambda s: [1],
    "session": lambda s: s.session,
    "severity": lambda s: next(iter(mc.tariffs.Severity)),
    "significant_digits": lambda s: 15,
    "start": lambda s: START,
    "UsageChange.start": lambda s: datetime(2024, 1, 1, tzinfo=UTC),
    "UsageSummary.start": lambda s: datetime(2024, 1, 1, tzinfo=UTC),
    "start_date": lambda s: START,
    "start_time": lambda s: START,
    "Delta.start_time": lambda s: datetime(2024, 1, 1, tzinfo=UTC),
    "MeterEventSummary.start_time": lambda s: datetime(2024, 1, 1, tzinfo=UTC),
    "starting_after": lambda s: s.summaries[0].id,
    "state": lambda s: s.sum,
    "status": lambda s: "active",
    "Invoice.status": lambda s: mc.invoicing.InvoiceStatus.DRAFT,
    "stretches": lambda s: (),
    "stripe_code": lambda s: "meter_event_no_customer_defined",
    "stripe_formulas": lambda s: True,
    "subscription": lambda s: s.subscription,
    "Invoice.subscription": lambda s: "sub",
    "subscription_id": lambda s: "sub",
    "subscription_item": lambda s: "si_0",
    "subscription_items": lambda s: ["si_0"],
    "subscriptions": lambda s: [s.subscription],
    "summaries": lambda s: [s.usage_summary],
    "total_of.summaries": lambda s: s.summaries,
    "synchronous": lambda s: None,
    "asynchronous": lambda s: None,
    "tier": lambda s: 1,
    "tiers": lambda s: TIERS,
    "time": lambda s: START,
    "timestamp": lambda s: NOW,
    "Cell.of.timestamp": lambda s: 60,
    "timestamps": lambda s: [NOW],
    "timezone": lambda s: "Europe/Berlin",
    "title": lambda s: "title",
    "tokens": lambda s: lambda: "a token",
    "total_usage": lambda s: 5,
    "percent": lambda s: 5,
    "unit_amount": lambda s: 5,
    "Charge.unit_amount": lambda s: Decimal(5),
    "unit_label": lambda s: "token",
    "until": lambda s: START,
    "up_to": lambda s: 5,
    "url": lambda s: "/",
    "usage": lambda s: s.log,
    "event_summaries.usage": lambda s: s.meter_log,
    "list_event_summaries.usage": lambda s: s.meter_log,
    "usage_gte": lambda s: 1,
    "usage_type": lambda s: "metered",
    "validation_end": lambda s: datetime(2024, 1, 1, tzinfo=UTC),
    "validation_start": lambda s: datetime(2024, 1, 1, tzinfo=UTC),
    "value": lambda s: Decimal("0.5"),
    "CumulativePoint.value": lambda s: 5,
    "Delta.value": lambda s: 5,
    "value_grouping_window": lambda s: "hour",
    "value_payload_key": lambda s: "value",
    "whole_values": lambda s: False,
    "source": lambda s: "/source",
    "look_for": lambda s: None,
    "MeterLog.subscription.subscription_id": lambda s: "metered",
    "MeterLog.unbilled.subscription_id": lambda s: "metered",
    "MeterView.unbilled.subscription_id": lambda s: "metered",
    "MeterLog.close_period.subscription_id": lambda s: "metered",
    "MeterLog.closing.subscription_id": lambda s: "metered",
    "UsageLog.closing_all.periods": lambda s: {"sub": JAN},
    "CombinedUsage.closing_all.periods": lambda s: {"sub": JAN},
    "MeterLog.closing_all.periods": lambda s: {"metered": JAN},
    "MeterLog.closing_all.versions": lambda s: [s.metered],
    "versions": lambda s: [s.subscription],
    "since": lambda s: 0,
    "UsageLog.apply.change": lambda s: s.log.changes()[0],
    "MeterLog.apply.change": lambda s: s.meter_log.changes()[0],
    "cancellation": lambda s: mc.stripe.MeterEventAdjustment("calls", "a", 1, NOW),
    "closed": lambda s: (mc.journal.ClosedPeriod("sub", JAN),),
    "ClosedPeriod.subscription": lambda s: "sub",
    "ClosedPeriod.invoice": lambda s: s.invoice,
    "is_settled": lambda s: False,
    "CombinedUsage.meter_of.item": lambda s: s.metered.items[0],
    "MeterLog.create_meter.meter": lambda s: mc.Meter("another", "other"),
    "MeterLog.update_meter.meter": lambda s: s.meter,
    "invoice_all.at": lambda s: START,
    "UsageLog.invoice_changes.invoice": lambda s: s.invoice,
    "CombinedUsage.invoice_changes.invoice": lambda s: s.invoice,
    "MeterLog.invoice_changes.invoice": lambda s: mc.preview_invoice(
        s.metered, s.meter_log, now=NOW
    ),
    "Invoice.changes.subscription": lambda s: s.subscription,
    "rebill": lambda s: False,
    "overlap": lambda s: "refuse",
}
METERED = {"item": lambda s: s.metered.items[0], "requests": lambda s: [(s.metered.items[0], JAN)]}
"""The item that the meter log knows; of its doors and its views'."""

# Parameters that exclude each other: left out unless they are the one that is tried.
ONE_OF = {
    "received_at",
    "ending_before",
    "starting_after",
    "meter",
    "quantity",
    "deactivated_at",
    "carry_forward",
    "billing_thresholds",
    "Meter.status",
    "prices",
    *(f"Change.{one}" for one in ("record", "event", "cancellation", "customer", "closed")),
    "UsageLog.append_columns.received_at",
}

# Methods that a class has for the other half of its own machinery: they are given what we made, and
# the documentation lists none of them as a door (tests/tidy/test_tidy.py and the layers keep them
# inside).
INSIDE = {
    "Aggregator.*": "rows of a table; their arguments are partials and cells that the engines made",
    "UsageLog.cells_of": "readers of the log",
    "UsageLog.fold": "readers of the log",
    "UsageLog.known": "readers of the log",
    "UsageLog.logged": "readers of the log",
    "UsageLog.received_of": "readers of the log",
    "UsageLog.rows_of": "readers of the log",
    "UsageLog.sequence_of": "readers of the log",
    "UsageLog.from_state": "its state is trusted; restore() checks it first",
    "MeterLog.from_state": "its state is trusted; restore_meter_log() checks it first",
    "MeterLog.logged": "readers of the log",
    "MeterLog.readings_until": "readers of the log",
    "UsageLog.recorded": "the book",
    "MeterLog.recorded": "the book",
    "CombinedUsage.settle": "who bills, within closing()",
    "MeterLog.settle": "who bills, within closing()",
    "CombinedUsage.lacking": "who bills, of what it stored",
    "UsageLog.keep_invoice": "who bills, within closing()",
    "MeterLog.keep_invoice": "who bills, within closing()",
    "CombinedUsage.keep_invoice": "who bills, within closing()",
    "MeterView.before_bill": "the log, for invoice_changes()",
    "UsageView": "made by as_of",
    "MeterView": "made by as_of",
}


@attrs.frozen
class Door:
    """A public callable: its name, its parameters, and how it is found in a scene."""

    name: str
    parameters: tuple[str, ...]
    required: frozenset[str]
    find: Callable[[Scene], Callable[..., Any]]

    def valid(self, parameter: str) -> Callable[[Scene], Any]:
        """Return what makes a valid argument."""
        owner = self.name.partition(".")[0]
        if owner in {"MeterLog", "MeterView"} and parameter in METERED:
            return METERED[parameter]
        if self.name.endswith(".from_dict") and f"{self.name}.{parameter}" not in VALID:
            kind = PUBLIC_BY_NAME[owner]
            return lambda _: {} if parameter == "prices" else fullest(kind).to_dict()
        for key in (f"{self.name}.{parameter}", f"{owner}.{parameter}", parameter):
            if key in VALID:
                return VALID[key]
        raise KeyError(f"{self.name}: no valid argument for {parameter}")

    def arguments(self, scene: Scene, tried: str | None = None) -> dict[str, Any]:
        """Return valid arguments of every parameter; of those that exclude each other none but the
        one that is tried.
        """
        return {
            one: self.valid(one)(scene)
            for one in self.parameters
            if one in self.required
            or not (one in ONE_OF or f"{self.name}.{one}" in ONE_OF)
            or one == tried
            if not (tried == "received_at" and one == "now" and one not in self.required)
        }


def door_of(
    name: str, signed: Callable[..., Any], find: Callable[[Scene], Callable[..., Any]]
) -> Door:
    taken = [
        one
        for one in inspect.signature(signed).parameters.values()
        if one.name != "self" and one.kind not in {one.VAR_KEYWORD, one.VAR_POSITIONAL}
    ]
    required = frozenset(one.name for one in taken if one.default is one.empty)
    return Door(name, tuple(one.name for one in taken), required, find)


def _inside(name: str) -> bool:
    return name in INSIDE or (f"{name.partition('.')[0]}.*" in INSIDE and "." in name)


def _is_door(value: object) -> bool:
    if inspect.isclass(value):
        is_table = issubclass(value, (Enum, Exception)) or getattr(value, "_is_protocol", False)
        return not is_table and value.__name__ != "Aggregator"
    return inspect.isfunction(value)


def methods_of(kind: type, find: Callable[[Scene], Any]) -> Iterator[Door]:
    for name in dir(kind):
        static = inspect.getattr_static(kind, name)
        method = getattr(kind, name)
        if (
            not name.startswith("_")
            and not isinstance(static, property)
            and (inspect.isfunction(method) or inspect.ismethod(method))
            and method.__module__.startswith("metering_core")
        ):
            yield door_of(
                f"{kind.__name__}.{name}",
                method,
                lambda scene, name=name: getattr(find(scene), name),
            )


OF_FILES = {
    *(
        f"metering_core.feeds.{one}"
        for one in ("appending", "catalog", "files", "formats", "instants")
    ),
    "metering_core.tariffs.pieces",
}
"""Modules whose doors are among those of the wings, with what they are given."""


def _instance(kind: type, scene: Scene) -> Any:
    made = INSTANCES.get(kind.__name__)
    return fullest(kind) if made is None else made(scene)


PUBLIC_BY_NAME = {address.rpartition(".")[2]: value for address, value in PUBLIC.items()}


def doors() -> list[Door]:
    """Return every public callable of the package that needs no extra."""
    found = []
    for address, value in PUBLIC.items():
        if not _is_door(value) or value.__module__ in OF_FILES:
            continue
        name = address.rpartition(".")[2]
        found.append(door_of(name, value, lambda scene, value=value: value))
        if inspect.isclass(value):
            found += methods_of(value, partial(_instance, value))
    return [door for door in found if not _inside(door.name)]

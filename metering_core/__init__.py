"""Exact, explainable metered billing: usage records in, invoice lines out, no I/O, no hidden
clock.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from metering_core.acceptance import (
        AcceptancePolicy,
        LateAttribution,
        Outcome,
        Receipt,
        Receipts,
    )
    from metering_core.aggregation import Usage, UsageSummary, summarize
    from metering_core.auditing import Finding, FindingCode, Severity, audit
    from metering_core.billing_run import invoice_all
    from metering_core.cloudevents import (
        cloudevent_identifier,
        meter_event_from_cloudevent,
        read_cloudevents,
    )
    from metering_core.combining import CombinedUsage
    from metering_core.comparing import Comparison, Direction, Gap, Stretch, compare
    from metering_core.cumulative import (
        CumulativePoint,
        CumulativeSum,
        Delta,
        DeltaRun,
        cumulative_to_delta,
        meter_event_from_delta,
    )
    from metering_core.currencies import CURRENCIES, Currency
    from metering_core.errors import (
        CatalogError,
        ErrorCode,
        InvalidValueError,
        InvoicingError,
        MeteringError,
        MissingExtraError,
        SnapshotError,
        UsageCompactedError,
        UsageRejectedError,
    )
    from metering_core.exact import Number, Unrounded
    from metering_core.explaining import Explanation, explain
    from metering_core.invoicing import (
        Invoice,
        InvoiceChanges,
        InvoiceLineItem,
        InvoiceStatus,
        LineChange,
        finalize_invoice,
        preview_invoice,
    )
    from metering_core.log import UsageLog
    from metering_core.measures import AGGREGATORS, FORMULAS, Aggregator
    from metering_core.meter_acceptance import IdentifierScope, LateUsage, MeterPolicy, Overlap
    from metering_core.meter_bills import UnbilledDelta
    from metering_core.meter_events import MeterEvent, MeterEventAdjustment, cancellation
    from metering_core.meter_log import MeterLog
    from metering_core.meter_reports import (
        STRIPE_CODES,
        MeterErrorReport,
        MeterErrorReporter,
        MeterErrorType,
        RefusedEvent,
        StripeCodes,
        error_reports,
        from_stripe_async_code,
        from_stripe_sync_code,
        refused_events,
        stripe_async_code,
        stripe_sync_code,
    )
    from metering_core.meter_stream import MeterEventSession, MeterEventStream
    from metering_core.meter_summaries import (
        MeterEventSummary,
        MeterEventSummaryPage,
        ValueGroupingWindow,
        event_summaries,
        list_event_summaries,
        total_of,
    )
    from metering_core.meter_views import LoggedEvent, MeterView
    from metering_core.meters import EventTimeWindow, Formula, Meter, MeterStatus
    from metering_core.migration import MigratedPeriod, Migration, migrate_to_meters
    from metering_core.money import (
        Amount,
        Money,
        Rounding,
        down,
        half_down,
        half_even,
        half_up,
        settle,
        to_multiple,
        up,
    )
    from metering_core.periods import BillingCycle, BillingPeriod, Instant, Interval
    from metering_core.plotting import curve
    from metering_core.prices import AggregateUsage, Price, Recurring, UsageType
    from metering_core.pricing import (
        Charge,
        ChargeKind,
        DeclaresBreakpoints,
        Graduated,
        Package,
        PerUnit,
        PricingModel,
        Round,
        Tier,
        Volume,
    )
    from metering_core.rating import RatedUsage, rate
    from metering_core.rerating import UsageChange, UsageComparison, compare_usage, summaries_at
    from metering_core.snapshots import restore, restore_meter_log, snapshot
    from metering_core.subscriptions import BillingThresholds, Subscription, SubscriptionItem
    from metering_core.usage import Action, Cell, UsageRecord
    from metering_core.views import LoggedRecord, UsageView

_MODULES = {
    "acceptance": ("AcceptancePolicy", "LateAttribution", "Outcome", "Receipt", "Receipts"),
    "aggregation": ("Usage", "UsageSummary", "summarize"),
    "measures": ("AGGREGATORS", "Aggregator", "FORMULAS"),
    "auditing": ("Finding", "FindingCode", "Severity", "audit"),
    "billing_run": ("invoice_all",),
    "cloudevents": ("cloudevent_identifier", "meter_event_from_cloudevent", "read_cloudevents"),
    "combining": ("CombinedUsage",),
    "comparing": ("Comparison", "Direction", "Gap", "Stretch", "compare"),
    "cumulative": (
        "CumulativePoint",
        "CumulativeSum",
        "Delta",
        "DeltaRun",
        "cumulative_to_delta",
        "meter_event_from_delta",
    ),
    "currencies": ("CURRENCIES", "Currency"),
    "errors": (
        "CatalogError",
        "ErrorCode",
        "InvalidValueError",
        "InvoicingError",
        "MeteringError",
        "MissingExtraError",
        "SnapshotError",
        "UsageCompactedError",
        "UsageRejectedError",
    ),
    "exact": ("Number", "Unrounded"),
    "explaining": ("Explanation", "explain"),
    "invoicing": (
        "Invoice",
        "InvoiceChanges",
        "InvoiceLineItem",
        "InvoiceStatus",
        "LineChange",
        "finalize_invoice",
        "preview_invoice",
    ),
    "log": ("UsageLog",),
    "meter_acceptance": ("IdentifierScope", "LateUsage", "MeterPolicy", "Overlap"),
    "meter_bills": ("UnbilledDelta",),
    "meter_events": ("MeterEvent", "MeterEventAdjustment", "cancellation"),
    "meter_log": ("MeterLog",),
    "meter_reports": (
        "MeterErrorReport",
        "MeterErrorReporter",
        "MeterErrorType",
        "RefusedEvent",
        "STRIPE_CODES",
        "StripeCodes",
        "error_reports",
        "from_stripe_async_code",
        "from_stripe_sync_code",
        "refused_events",
        "stripe_async_code",
        "stripe_sync_code",
    ),
    "meter_stream": ("MeterEventSession", "MeterEventStream"),
    "meter_summaries": (
        "MeterEventSummary",
        "MeterEventSummaryPage",
        "ValueGroupingWindow",
        "event_summaries",
        "list_event_summaries",
        "total_of",
    ),
    "meter_views": ("LoggedEvent", "MeterView"),
    "meters": ("EventTimeWindow", "Formula", "Meter", "MeterStatus"),
    "migration": ("MigratedPeriod", "Migration", "migrate_to_meters"),
    "money": (
        "Amount",
        "Money",
        "Rounding",
        "down",
        "half_down",
        "half_even",
        "half_up",
        "settle",
        "to_multiple",
        "up",
    ),
    "periods": ("BillingCycle", "BillingPeriod", "Instant", "Interval"),
    "plotting": ("curve",),
    "prices": ("AggregateUsage", "Price", "Recurring", "UsageType"),
    "pricing": (
        "Charge",
        "ChargeKind",
        "DeclaresBreakpoints",
        "Graduated",
        "Package",
        "PerUnit",
        "PricingModel",
        "Round",
        "Tier",
        "Volume",
    ),
    "rating": ("RatedUsage", "rate"),
    "rerating": ("UsageChange", "UsageComparison", "compare_usage", "summaries_at"),
    "snapshots": ("restore", "restore_meter_log", "snapshot"),
    "subscriptions": ("BillingThresholds", "Subscription", "SubscriptionItem"),
    "usage": ("Action", "Cell", "UsageRecord"),
    "views": ("LoggedRecord", "UsageView"),
}
"""Where the public names live. They are imported when they are first used, so that importing the
package costs nothing.
"""

__all__ = [
    "AGGREGATORS",
    "AcceptancePolicy",
    "Action",
    "AggregateUsage",
    "Aggregator",
    "Amount",
    "BillingCycle",
    "BillingPeriod",
    "BillingThresholds",
    "CURRENCIES",
    "CatalogError",
    "Cell",
    "Charge",
    "ChargeKind",
    "CombinedUsage",
    "Comparison",
    "CumulativePoint",
    "CumulativeSum",
    "Currency",
    "DeclaresBreakpoints",
    "Delta",
    "DeltaRun",
    "Direction",
    "ErrorCode",
    "EventTimeWindow",
    "Explanation",
    "FORMULAS",
    "Finding",
    "FindingCode",
    "Formula",
    "Gap",
    "Graduated",
    "IdentifierScope",
    "Instant",
    "Interval",
    "InvalidValueError",
    "Invoice",
    "InvoiceChanges",
    "InvoiceLineItem",
    "InvoiceStatus",
    "InvoicingError",
    "LateAttribution",
    "LateUsage",
    "LineChange",
    "LoggedEvent",
    "LoggedRecord",
    "Meter",
    "MeterErrorReport",
    "MeterErrorReporter",
    "MeterErrorType",
    "MeterEvent",
    "MeterEventAdjustment",
    "MeterEventSession",
    "MeterEventStream",
    "MeterEventSummary",
    "MeterEventSummaryPage",
    "MeterLog",
    "MeterPolicy",
    "MeterStatus",
    "MeterView",
    "MeteringError",
    "MigratedPeriod",
    "Migration",
    "MissingExtraError",
    "Money",
    "Number",
    "Outcome",
    "Overlap",
    "Package",
    "PerUnit",
    "Price",
    "PricingModel",
    "RatedUsage",
    "Receipt",
    "Receipts",
    "Recurring",
    "RefusedEvent",
    "Round",
    "Rounding",
    "STRIPE_CODES",
    "Severity",
    "SnapshotError",
    "Stretch",
    "StripeCodes",
    "Subscription",
    "SubscriptionItem",
    "Tier",
    "UnbilledDelta",
    "Unrounded",
    "Usage",
    "UsageChange",
    "UsageCompactedError",
    "UsageComparison",
    "UsageLog",
    "UsageRecord",
    "UsageRejectedError",
    "UsageSummary",
    "UsageType",
    "UsageView",
    "ValueGroupingWindow",
    "Volume",
    "audit",
    "cancellation",
    "cloudevent_identifier",
    "compare",
    "compare_usage",
    "cumulative_to_delta",
    "curve",
    "down",
    "error_reports",
    "event_summaries",
    "explain",
    "finalize_invoice",
    "from_stripe_async_code",
    "from_stripe_sync_code",
    "half_down",
    "half_even",
    "half_up",
    "invoice_all",
    "list_event_summaries",
    "meter_event_from_cloudevent",
    "meter_event_from_delta",
    "migrate_to_meters",
    "preview_invoice",
    "rate",
    "read_cloudevents",
    "refused_events",
    "restore",
    "restore_meter_log",
    "settle",
    "snapshot",
    "stripe_async_code",
    "stripe_sync_code",
    "summaries_at",
    "summarize",
    "to_multiple",
    "total_of",
    "up",
]

_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""Exact, explainable metered billing: usage records in, invoice lines out, no I/O, no hidden clock."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from metering_core.acceptance import AcceptancePolicy, LateAttribution, Outcome, Receipt, Receipts
    from metering_core.aggregation import AGGREGATORS, Aggregator, Usage, UsageSummary, summarize
    from metering_core.auditing import Finding, FindingCode, Severity, audit
    from metering_core.billing_run import invoice_all
    from metering_core.comparing import Comparison, Direction, Gap, Stretch, compare
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
    from metering_core.explaining import Explanation, explain
    from metering_core.invoicing import (
        Invoice,
        InvoiceLineItem,
        InvoiceStatus,
        finalize_invoice,
        preview_invoice,
    )
    from metering_core.log import UsageLog
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
    from metering_core.periods import BillingCycle, BillingPeriod, Interval
    from metering_core.plotting import curve
    from metering_core.prices import AggregateUsage, Price, Recurring, UsageType
    from metering_core.pricing import (
        Charge,
        ChargeKind,
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
    from metering_core.snapshots import restore, snapshot
    from metering_core.subscriptions import BillingThresholds, Subscription, SubscriptionItem
    from metering_core.tariffs import DeclaresBreakpoints
    from metering_core.usage import Action, Cell, UsageRecord
    from metering_core.views import LoggedRecord, UsageView

_MODULES = {
    "acceptance": ("AcceptancePolicy", "LateAttribution", "Outcome", "Receipt", "Receipts"),
    "aggregation": ("AGGREGATORS", "Aggregator", "Usage", "UsageSummary", "summarize"),
    "auditing": ("Finding", "FindingCode", "Severity", "audit"),
    "billing_run": ("invoice_all",),
    "comparing": ("Comparison", "Direction", "Gap", "Stretch", "compare"),
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
    "explaining": ("Explanation", "explain"),
    "invoicing": ("Invoice", "InvoiceLineItem", "InvoiceStatus", "finalize_invoice", "preview_invoice"),
    "log": ("UsageLog",),
    "money": ("Amount", "Money", "Rounding", "down", "half_down", "half_even", "half_up", "settle", "to_multiple", "up"),
    "periods": ("BillingCycle", "BillingPeriod", "Interval"),
    "plotting": ("curve",),
    "prices": ("AggregateUsage", "Price", "Recurring", "UsageType"),
    "pricing": ("Charge", "ChargeKind", "Graduated", "Package", "PerUnit", "PricingModel", "Round", "Tier", "Volume"),
    "rating": ("RatedUsage", "rate"),
    "rerating": ("UsageChange", "UsageComparison", "compare_usage", "summaries_at"),
    "snapshots": ("restore", "snapshot"),
    "subscriptions": ("BillingThresholds", "Subscription", "SubscriptionItem"),
    "tariffs": ("DeclaresBreakpoints",),
    "usage": ("Action", "Cell", "UsageRecord"),
    "views": ("LoggedRecord", "UsageView"),
}
"""Where the public names live. They are imported when they are first used, so that importing the package costs nothing."""

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
    "Comparison",
    "Currency",
    "DeclaresBreakpoints",
    "Direction",
    "ErrorCode",
    "Explanation",
    "Finding",
    "FindingCode",
    "Gap",
    "Graduated",
    "Interval",
    "InvalidValueError",
    "Invoice",
    "InvoiceLineItem",
    "InvoiceStatus",
    "InvoicingError",
    "LateAttribution",
    "LoggedRecord",
    "MeteringError",
    "MissingExtraError",
    "Money",
    "Outcome",
    "Package",
    "PerUnit",
    "Price",
    "PricingModel",
    "RatedUsage",
    "Receipt",
    "Receipts",
    "Recurring",
    "Round",
    "Rounding",
    "Severity",
    "SnapshotError",
    "Stretch",
    "Subscription",
    "SubscriptionItem",
    "Tier",
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
    "Volume",
    "audit",
    "compare",
    "compare_usage",
    "curve",
    "down",
    "explain",
    "finalize_invoice",
    "half_down",
    "half_even",
    "half_up",
    "invoice_all",
    "preview_invoice",
    "rate",
    "restore",
    "settle",
    "snapshot",
    "summaries_at",
    "summarize",
    "to_multiple",
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

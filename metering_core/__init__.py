"""Exact, explainable metered billing: usage records in, invoice lines out, no I/O, no hidden clock."""

from metering_core.acceptance import AcceptancePolicy, LateAttribution, Outcome, Receipt, Receipts
from metering_core.aggregation import AGGREGATORS, Aggregator, Usage, UsageSummary, summarize
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
from metering_core.snapshots import restore, snapshot
from metering_core.subscriptions import BillingThresholds, Subscription, SubscriptionItem
from metering_core.usage import Action, Cell, UsageRecord
from metering_core.views import LoggedRecord, UsageView

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
    "Currency",
    "ErrorCode",
    "Explanation",
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
    "SnapshotError",
    "Subscription",
    "SubscriptionItem",
    "Tier",
    "Usage",
    "UsageCompactedError",
    "UsageLog",
    "UsageRecord",
    "UsageRejectedError",
    "UsageSummary",
    "UsageType",
    "UsageView",
    "Volume",
    "down",
    "explain",
    "finalize_invoice",
    "half_down",
    "half_even",
    "half_up",
    "preview_invoice",
    "rate",
    "restore",
    "settle",
    "snapshot",
    "summarize",
    "to_multiple",
    "up",
]

"""Exact, explainable metered billing: usage records in, invoice lines out, no I/O, no hidden
clock.

What most people need is here. The rest is in the modules that are named below, each by its
subject: ``metering_core.money``, ``metering_core.stripe``, ``metering_core.tariffs``.
"""

from typing import TYPE_CHECKING

from metering_core.wings import doors

if TYPE_CHECKING:
    from metering_core import acceptance as acceptance
    from metering_core import bulk as bulk
    from metering_core import columnar as columnar
    from metering_core import currencies as currencies
    from metering_core import errors as errors
    from metering_core import exact as exact
    from metering_core import feeds as feeds
    from metering_core import invoicing as invoicing
    from metering_core import journal as journal
    from metering_core import measures as measures
    from metering_core import meter_acceptance as meter_acceptance
    from metering_core import meter_bills as meter_bills
    from metering_core import meter_summaries as meter_summaries
    from metering_core import meter_views as meter_views
    from metering_core import meters as meters
    from metering_core import money as money
    from metering_core import periods as periods
    from metering_core import pricing as pricing
    from metering_core import sql as sql
    from metering_core import stripe as stripe
    from metering_core import subscriptions as subscriptions
    from metering_core import tariffs as tariffs
    from metering_core import testing as testing
    from metering_core import usage as usage
    from metering_core import views as views
    from metering_core.acceptance import AcceptancePolicy as AcceptancePolicy
    from metering_core.acceptance import Outcome as Outcome
    from metering_core.acceptance import Receipt as Receipt
    from metering_core.aggregation import Usage as Usage
    from metering_core.aggregation import UsageSummary as UsageSummary
    from metering_core.aggregation import summarize as summarize
    from metering_core.billing_run import invoice_all as invoice_all
    from metering_core.combining import CombinedUsage as CombinedUsage
    from metering_core.errors import ErrorCode as ErrorCode
    from metering_core.errors import InvalidValueError as InvalidValueError
    from metering_core.errors import InvoicingError as InvoicingError
    from metering_core.errors import MeteringError as MeteringError
    from metering_core.errors import UsageRejectedError as UsageRejectedError
    from metering_core.explaining import Explanation as Explanation
    from metering_core.explaining import explain as explain
    from metering_core.invoicing import Invoice as Invoice
    from metering_core.invoicing import InvoiceChanges as InvoiceChanges
    from metering_core.invoicing import InvoiceLineItem as InvoiceLineItem
    from metering_core.invoicing import finalize_invoice as finalize_invoice
    from metering_core.invoicing import preview_invoice as preview_invoice
    from metering_core.log import UsageLog as UsageLog
    from metering_core.meter_acceptance import MeterPolicy as MeterPolicy
    from metering_core.meter_events import MeterEvent as MeterEvent
    from metering_core.meter_events import cancellation as cancellation
    from metering_core.meter_log import MeterLog as MeterLog
    from metering_core.meter_summaries import MeterEventSummary as MeterEventSummary
    from metering_core.meter_summaries import event_summaries as event_summaries
    from metering_core.meter_views import MeterView as MeterView
    from metering_core.meters import Formula as Formula
    from metering_core.meters import Meter as Meter
    from metering_core.money import Money as Money
    from metering_core.periods import BillingCycle as BillingCycle
    from metering_core.periods import BillingPeriod as BillingPeriod
    from metering_core.periods import Instant as Instant
    from metering_core.prices import AggregateUsage as AggregateUsage
    from metering_core.prices import Price as Price
    from metering_core.prices import Recurring as Recurring
    from metering_core.prices import UsageType as UsageType
    from metering_core.pricing import PricingModel as PricingModel
    from metering_core.pricing import Tier as Tier
    from metering_core.rating import RatedUsage as RatedUsage
    from metering_core.rating import rate as rate
    from metering_core.snapshots.document import restore as restore
    from metering_core.snapshots.document import restore_meter_log as restore_meter_log
    from metering_core.snapshots.document import snapshot as snapshot
    from metering_core.subscriptions import Subscription as Subscription
    from metering_core.subscriptions import SubscriptionItem as SubscriptionItem
    from metering_core.usage import Action as Action
    from metering_core.usage import UsageRecord as UsageRecord
    from metering_core.views import UsageView as UsageView

__all__, __getattr__, __dir__ = doors(__name__)

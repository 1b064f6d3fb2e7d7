"""What only Stripe has: its meter event streams, its reports and codes of refused events, pages of
summaries, and the way from usage records to meters.
"""

from typing import TYPE_CHECKING

from metering_core.wings import doors

if TYPE_CHECKING:
    from metering_core.meter_events import MeterEventAdjustment as MeterEventAdjustment
    from metering_core.meter_summaries import MeterEventSummaryPage as MeterEventSummaryPage
    from metering_core.meter_summaries import list_event_summaries as list_event_summaries
    from metering_core.stripe.migration import MigratedPeriod as MigratedPeriod
    from metering_core.stripe.migration import Migration as Migration
    from metering_core.stripe.migration import migrate_to_meters as migrate_to_meters
    from metering_core.stripe.reports import STRIPE_CODES as STRIPE_CODES
    from metering_core.stripe.reports import MeterErrorReport as MeterErrorReport
    from metering_core.stripe.reports import MeterErrorReporter as MeterErrorReporter
    from metering_core.stripe.reports import MeterErrorType as MeterErrorType
    from metering_core.stripe.reports import RefusedEvent as RefusedEvent
    from metering_core.stripe.reports import StripeCodes as StripeCodes
    from metering_core.stripe.reports import error_reports as error_reports
    from metering_core.stripe.reports import from_stripe_async_code as from_stripe_async_code
    from metering_core.stripe.reports import from_stripe_sync_code as from_stripe_sync_code
    from metering_core.stripe.reports import refused_events as refused_events
    from metering_core.stripe.reports import stripe_async_code as stripe_async_code
    from metering_core.stripe.reports import stripe_sync_code as stripe_sync_code
    from metering_core.stripe.stream import MeterEventSession as MeterEventSession
    from metering_core.stripe.stream import MeterEventStream as MeterEventStream

__all__, __getattr__, __dir__ = doors(__name__)

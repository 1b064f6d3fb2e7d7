"""How usage and prices come in from outside: catalogs and files of usage, CloudEvents, and the
cumulative counters of OpenTelemetry.
"""

from typing import TYPE_CHECKING

from metering_core.wings import doors

if TYPE_CHECKING:
    from metering_core.feeds.appending import append_events as append_events
    from metering_core.feeds.appending import append_usage as append_usage
    from metering_core.feeds.catalog import Catalog as Catalog
    from metering_core.feeds.catalog import meter_log as meter_log
    from metering_core.feeds.catalog import read_catalog as read_catalog
    from metering_core.feeds.catalog import read_price as read_price
    from metering_core.feeds.cloudevents import cloudevent_identifier as cloudevent_identifier
    from metering_core.feeds.cloudevents import (
        meter_event_from_cloudevent as meter_event_from_cloudevent,
    )
    from metering_core.feeds.cloudevents import read_cloudevents as read_cloudevents
    from metering_core.feeds.files import EventRow as EventRow
    from metering_core.feeds.files import UsageRow as UsageRow
    from metering_core.feeds.files import read_events as read_events
    from metering_core.feeds.files import read_usage as read_usage
    from metering_core.feeds.formats import UsageFormat as UsageFormat
    from metering_core.feeds.instants import PlausibleTime as PlausibleTime
    from metering_core.feeds.opentelemetry import CumulativePoint as CumulativePoint
    from metering_core.feeds.opentelemetry import CumulativeSum as CumulativeSum
    from metering_core.feeds.opentelemetry import Delta as Delta
    from metering_core.feeds.opentelemetry import DeltaRun as DeltaRun
    from metering_core.feeds.opentelemetry import cumulative_to_delta as cumulative_to_delta
    from metering_core.feeds.opentelemetry import meter_event_from_delta as meter_event_from_delta

__all__, __getattr__, __dir__ = doors(__name__)

"""The command ``summaries``: what a customer's events of a meter come to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from cyclopts import Parameter

from metering_core import ErrorCode, MeterEvent, MeterEventSummary, event_summaries
from metering_core.cli.complaints import OK, REFUSED, OnError, refusals_of, refuse_same_file, slip
from metering_core.cli.files import HowToRead, catalog_at, load_events
from metering_core.cli.options import (
    EVENT_POLICIES_UNLESS_GIVEN,
    AsJson,
    Dashed,
    EventPolicyOptions,
    RejectsFile,
    instant_option,
)
from metering_core.cli.printing import in_zone, print_json, print_table
from metering_core.errors import describe
from metering_core.exact import plain
from metering_core.feeds import Catalog
from metering_core.feeds.appending import Spellings
from metering_core.meter_summaries import ValueGroupingWindow


def summaries(
    catalog: str,
    /,
    *,
    events: Dashed,
    meter: str,
    customer: str,
    start: Annotated[str, Parameter(name="--from", allow_leading_hyphen=True)],
    end: Annotated[str, Parameter(name="--to", allow_leading_hyphen=True)],
    by: ValueGroupingWindow | None = None,
    timezone: str = "UTC",
    on_error: OnError = OnError.STOP,
    rejects: RejectsFile = None,
    policies: EventPolicyOptions = EVENT_POLICIES_UNLESS_GIVEN,
    as_json: AsJson = False,
) -> int:
    """Say what a customer's events of a meter come to, in a range of time and in each hour, day,
    week or month of it.

    Args:
        catalog: JSON file with meters.
        events: File of meter events: CSV with a header, or JSON lines; '-' reads standard input.
        meter: The meter's id.
        customer: The customer's id.
        start: First moment of the range: Unix seconds, or ISO 8601 with an offset.
        end: First moment after it.
        by: What to cut the range into.
        timezone: IANA zone of the calendar, in which times are printed.
        on_error: At a malformed row or a refused event stop, or skip it; both name its line, and
            the exit status is 1.
        rejects: Write each such row into this file (.csv, .jsonl): path, line, code, message and
            the row.
        policies: What is accepted.
        as_json: Print Stripe's summaries as JSON: Unix seconds, exact decimals as strings.
    """
    time = policies.time()
    bounds = instant_option(start, "--from", time), instant_option(end, "--to", time)
    refuse_same_file(rejects, catalog, events)
    known = catalog_at(catalog, time)
    key = known.meters[meter].customer_payload_key if meter in known.meters else ""
    senders: set[str | None] = set()

    def note(event: MeterEvent) -> None:
        senders.add(event.payload.get(key))

    with refusals_of(on_error, rejects) as refusals:
        reading = HowToRead(time, refusals)
        log, _ = load_events(known, events, reading, policies.of_events(), on_event=note)
    (whole,) = event_summaries(log, meter, customer, *bounds)
    _require_known(customer, known, senders)
    parts = event_summaries(
        log, meter, customer, *bounds, value_grouping_window=by, timezone=timezone
    )
    if as_json:
        print_json({"summary": whole.to_dict(), "summaries": [one.to_dict() for one in parts]})
    else:
        footer = _row(whole, timezone) if by is not None else ()
        header = ("From", "To", "Events", "Value")
        print_table(header, [_row(one, timezone) for one in parts], footer)
    return REFUSED if refusals.found else OK


def _require_known(customer: str, catalog: Catalog, senders: Iterable[str | None]) -> None:
    """Refuse a customer of whom neither the catalog nor an event knows: a slip would read as no
    usage.
    """
    known = {one.customer for one in catalog.subscriptions} | set(senders)
    if customer not in known:
        expected = "expected a customer of the catalog or of an event"
        meant = Spellings(one for one in known if one is not None).near(customer)
        reason = f"{expected}, received {describe(customer)}{meant}"
        raise slip("--customer", reason, ErrorCode.PARAMETER_INVALID_CHOICE)


def _row(one: MeterEventSummary, timezone: str) -> tuple[str, ...]:
    times = (in_zone(moment, timezone) for moment in (one.start_time, one.end_time))
    return (*times, f"{one.events:,}", plain(one.aggregated_value))

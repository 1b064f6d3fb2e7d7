"""What Stripe calls each reason to refuse a meter event, and the reports in which its asynchronous
API batches them.

Stripe has two vocabularies: one for the answer to a request (synchronous), one for the reports that
follow the processing (asynchronous). :data:`STRIPE_CODES` holds both beside our one
:class:`~metering_core.ErrorCode`.

Errors are reported per window of 10 seconds, aligned to the clock: Unix seconds divisible by 10,
start inclusive, end exclusive. That is what Stripe's samples show (20:54:00 to 20:54:10, 20:42:40
to 20:42:50, 17:46:10 to 17:46:20). A window has one report for each meter with errors, and one
without a meter for the events whose name no meter has.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime
from itertools import islice
from types import MappingProxyType
from typing import Any, Final

import attrs

from metering_core.acceptance import Outcome, Receipt
from metering_core.codec import Storable
from metering_core.errors import ErrorCode, InvalidValueError
from metering_core.meter_events import MeterEvent
from metering_core.meters import Meter
from metering_core.names import choice, each_of, require_iterable, text_of
from metering_core.periods import Instant, from_unix_seconds, instant, rfc3339, unix_seconds

# Stripe's two vocabularies. -----------------------------------------------------------------------


@attrs.frozen
class StripeCodes:
    """What Stripe calls a reason to refuse a meter event.

    Attributes:
        synchronous: the code in the answer to a request of API v2; None where it has none.
        asynchronous: the code in an error report; None where it has none.
        http_status: the status of the answer; None where Stripe documents no answer to a request
            for this reason.
        note: why a code is absent, or what is our reading rather than Stripe's text.
    """

    synchronous: str | None
    asynchronous: str | None
    http_status: int | None
    note: str = ""


_MALFORMED: Final = StripeCodes(
    None,
    None,
    400,
    "Refused as a request before it is a meter event: invalid_request_error, with the "
    "codes of Stripe's API at large.",
)
_MALFORMED_CODES: Final = (
    ErrorCode.PARAMETER_MISSING,
    ErrorCode.PARAMETER_UNKNOWN,
    ErrorCode.PARAMETER_INVALID_STRING,
    ErrorCode.PARAMETER_INVALID_CHOICE,
    ErrorCode.PARAMETER_INVALID_INSTANT,
    ErrorCode.PARAMETER_INVALID_OBJECT,
)
_CANCELLATION: Final = StripeCodes(
    "invalid_cancel_configuration",
    None,
    400,
    "The only code that Stripe documents for adjustments, which no report covers.",
)
_REPORTED_ONLY: Final = "The answer to a request has no documented code for it."

STRIPE_CODES: Final[Mapping[ErrorCode, StripeCodes]] = MappingProxyType(
    {
        **dict.fromkeys(_MALFORMED_CODES, _MALFORMED),
        ErrorCode.IDENTIFIER_REUSED: StripeCodes(
            "duplicate_meter_event",
            None,
            400,
            "Stripe refuses equal content too, which is no error here; it documents no "
            "report of duplicates.",
        ),
        ErrorCode.METER_UNKNOWN: StripeCodes("no_meter", "no_meter", 400),
        ErrorCode.METER_INACTIVE: StripeCodes("archived_meter", "archived_meter", 400),
        ErrorCode.CUSTOMER_MISSING: StripeCodes(
            "payload_no_customer_defined", "meter_event_no_customer_defined", 400
        ),
        ErrorCode.CUSTOMER_UNKNOWN: StripeCodes(
            None,
            "meter_event_customer_not_found",
            None,
            "Found when the event is processed; API v1 was seen to answer 400 'No such "
            "customer' without a code.",
        ),
        ErrorCode.VALUE_MISSING: StripeCodes(
            "payload_no_value_defined", "meter_event_value_not_found", 400
        ),
        ErrorCode.VALUE_INVALID: StripeCodes(
            "payload_invalid_value", "meter_event_invalid_value", 400
        ),
        ErrorCode.VALUE_TOO_MANY_DIGITS: StripeCodes(
            "payload_invalid_value",
            "meter_event_value_too_many_digits",
            400,
            "Stripe documents the 400 without its code; payload_invalid_value is the one "
            "that says what is wrong.",
        ),
        ErrorCode.DIMENSION_MISSING: StripeCodes(
            None, "missing_dimension_payload_keys", None, _REPORTED_ONLY
        ),
        ErrorCode.TOO_MANY_DIMENSIONS: StripeCodes(
            None, "meter_event_dimension_count_too_high", None, _REPORTED_ONLY
        ),
        ErrorCode.TIMESTAMP_TOO_FAR_IN_PAST: StripeCodes(
            None, "timestamp_too_far_in_past", None, _REPORTED_ONLY
        ),
        ErrorCode.TIMESTAMP_IN_FUTURE: StripeCodes(
            None, "timestamp_in_future", None, _REPORTED_ONLY
        ),
        ErrorCode.EVENT_NOT_FOUND: _CANCELLATION,
        ErrorCode.CANCEL_WINDOW_CLOSED: _CANCELLATION,
        ErrorCode.SESSION_EXPIRED: StripeCodes(
            "billing_meter_event_session_expired",
            None,
            401,
            "The request is refused, so no event of it is processed.",
        ),
    }
)
"""Stripe's codes for everything that can refuse a meter event, its cancellation or its session, in
order of precedence.

A code that is absent refuses something else (a record, a price, a bill). Stripe's
``too_many_concurrent_requests`` (409) is nothing of ours: a meter log takes one batch after the
other.
"""

# Read backwards, so that of several reasons with one code the first in order of precedence stays.
_FROM_SYNC: Final = {
    row.synchronous: code for code, row in reversed(tuple(STRIPE_CODES.items())) if row.synchronous
}
_FROM_ASYNC: Final = {
    row.asynchronous: code
    for code, row in reversed(tuple(STRIPE_CODES.items()))
    if row.asynchronous
}


def stripe_sync_code(code: ErrorCode) -> str | None:
    """Return the code in Stripe's answer to a request; None where it has none, and
    :data:`STRIPE_CODES` says why.

    >>> stripe_sync_code(ErrorCode.CUSTOMER_MISSING)
    'payload_no_customer_defined'
    """
    row = STRIPE_CODES.get(choice(ErrorCode, code, "code"))
    return None if row is None else row.synchronous


def stripe_async_code(code: ErrorCode) -> str | None:
    """Return the code in Stripe's error reports; None where it has none, and :data:`STRIPE_CODES`
    says why.

    >>> stripe_async_code(ErrorCode.CUSTOMER_MISSING)
    'meter_event_no_customer_defined'
    """
    row = STRIPE_CODES.get(choice(ErrorCode, code, "code"))
    return None if row is None else row.asynchronous


def from_stripe_sync_code(stripe_code: str) -> ErrorCode | None:
    """Return our code for one in Stripe's answer to a request; None for one that we have no reason
    for.

    Two are shared: ``payload_invalid_value`` is read as ``value_invalid``,
    ``invalid_cancel_configuration`` as ``event_not_found``, each the reason that is checked first.
    """
    return _FROM_SYNC.get(_word(stripe_code))


def from_stripe_async_code(stripe_code: str) -> ErrorCode | None:
    """Return our code for one in Stripe's error reports, an open enum; None for one that we have no
    reason for.

    >>> from_stripe_async_code("meter_event_value_not_found").value
    'value_missing'
    """
    return _FROM_ASYNC.get(_word(stripe_code))


def _word(stripe_code: str) -> str:
    word = text_of(stripe_code)
    if word is None:
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_STRING, "stripe_code", "a string", stripe_code
        )
    return word


# Error reports. -----------------------------------------------------------------------------------

WINDOW_SECONDS: Final = 10
"""The length of the window of a report."""
SAMPLES_MAX: Final = 5
"""How many errors of one code a report shows. Stripe's own number is not published."""


@attrs.frozen
class RefusedEvent(Storable):
    """A meter event that was refused, as far as a report needs it.

    Attributes:
        received_at: when it was received, UTC.
        meter: the id of its meter; None where no meter has its event name, or it has none.
        code: why it was refused.
        message: the sentence that its sender heard.
        identifier: the event's; None where it has none.
    """

    received_at: datetime
    meter: str | None
    code: ErrorCode
    message: str
    identifier: str | None


def refused_events(
    events: Iterable[object], receipts: Iterable[Receipt], *, meters: Iterable[Meter], now: Instant
) -> list[RefusedEvent]:
    """Return what was refused of a batch, in its order. A duplicate is no error.

    Args:
        events: the batch as it was sent: meter events, or mappings in Stripe's shape, also
            malformed ones.
        receipts: the answers, one for each.
        meters: those of the log when it answered.
        now: when the batch was received.
    """
    received_at = instant(now, "now")
    ids = {meter.event_name: meter.id for meter in each_of(Meter, meters, "meters")}
    answers = each_of(Receipt, receipts, "receipts")
    refused = []
    for event, receipt in zip(_batch(events, len(answers)), answers, strict=True):
        if receipt.outcome is Outcome.REJECTED:
            error, meter = receipt.error(), ids.get(_text(event, "event_name") or "")
            if error.code is ErrorCode.METER_UNKNOWN:
                meter = None
            what = (error.code, error.message, _text(event, "identifier"))
            refused.append(RefusedEvent(received_at, meter, *what))
    return refused


def _batch(events: Iterable[object], answered: int) -> list[object]:
    """Return a batch, or refuse one that is not as long as its answers; no more is drawn than what
    tells that there are too many.
    """
    batch = list(islice(require_iterable(events, "events"), answered + 1))
    if len(batch) != answered:
        expected = f"as many events as receipts, {answered}"
        received = f"{len(batch)}" if len(batch) < answered else "more"
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_OBJECT, "events", expected, received
        )
    return batch


def _text(event: object, field: str) -> str | None:
    """Return a string of an event or of a mapping that should have been one; None where it has no
    such string.
    """
    if isinstance(event, MeterEvent):
        return text_of(getattr(event, field))
    return text_of(event.get(field)) if isinstance(event, Mapping) else None


@attrs.frozen
class MeterErrorType:
    """The errors of one code in a report.

    Attributes:
        code: ours.
        error_count: how many there were.
        sample_errors: the first of them, at most 5.
    """

    code: ErrorCode
    error_count: int
    sample_errors: tuple[RefusedEvent, ...]

    def to_dict(self) -> dict[str, Any]:
        """Write Stripe's shape; a code that Stripe's reports do not have is written as ours (their
        enum is open).
        """
        return {
            "code": stripe_async_code(self.code) or self.code.value,
            "error_count": self.error_count,
            "sample_errors": [
                {"error_message": sample.message, "request": {"identifier": sample.identifier}}
                for sample in self.sample_errors
            ],
        }


@attrs.frozen
class MeterErrorReport:
    """The events of one window that were refused, of one meter or of none, in the shape of Stripe's
    thin events.

    Attributes:
        meter: the meter's id; None for events whose name no meter has.
        validation_start: UTC, the first moment of the window.
        validation_end: UTC, the first moment after it, 10 seconds later.
        error_types: one for each code, in the order in which the codes came first.
    """

    meter: str | None
    validation_start: datetime
    validation_end: datetime
    error_types: tuple[MeterErrorType, ...]

    @property
    def error_count(self) -> int:
        """How many events were refused."""
        return sum(error_type.error_count for error_type in self.error_types)

    @property
    def developer_message_summary(self) -> str:
        """The report in a sentence, in Stripe's words."""
        count = self.error_count
        return "There is 1 invalid event" if count == 1 else f"There are {count} invalid events"

    @property
    def type(self) -> str:
        """Stripe's type of the event that brings the report."""
        happened = "no_meter_found" if self.meter is None else "error_report_triggered"
        return f"v1.billing.meter.{happened}"

    def to_dict(self) -> dict[str, Any]:
        """Write Stripe's thin event with its data, ready for JSON.

        ``created`` is the end of the window, when the report is known (Stripe's own followed about
        2 seconds later). Its ``id`` is for whoever delivers it.
        """
        reason = {
            "error_count": self.error_count,
            "error_types": [error_type.to_dict() for error_type in self.error_types],
        }
        data = {
            "developer_message_summary": self.developer_message_summary,
            "reason": reason,
            "validation_start": rfc3339(self.validation_start),
            "validation_end": rfc3339(self.validation_end),
        }
        return {
            "object": "v2.core.event",
            "type": self.type,
            "created": data["validation_end"],
            "related_object": _related(self.meter),
            "data": data,
        }


def _related(meter: str | None) -> dict[str, str] | None:
    if meter is None:
        return None
    return {"id": meter, "type": "billing.meter", "url": f"/v1/billing/meters/{meter}"}


def error_reports(refused: Iterable[RefusedEvent]) -> list[MeterErrorReport]:
    """Return the reports of all windows that had errors, oldest first; within a window in the order
    of its first errors.
    """
    groups: defaultdict[tuple[int, str | None], list[RefusedEvent]] = defaultdict(list)
    for event in each_of(RefusedEvent, refused, "refused"):
        groups[_window_start(event.received_at), event.meter].append(event)
    in_order = sorted(groups.items(), key=lambda group: group[0][0])
    return [_report(start, meter, events) for (start, meter), events in in_order]


def _window_start(at: datetime) -> int:
    return unix_seconds(at) // WINDOW_SECONDS * WINDOW_SECONDS


def _report(start: int, meter: str | None, refused: list[RefusedEvent]) -> MeterErrorReport:
    by_code: defaultdict[ErrorCode, list[RefusedEvent]] = defaultdict(list)
    for event in refused:
        by_code[event.code].append(event)
    types = [
        MeterErrorType(code, len(events), tuple(events[:SAMPLES_MAX]))
        for code, events in by_code.items()
    ]
    window = from_unix_seconds(start), from_unix_seconds(start + WINDOW_SECONDS)
    return MeterErrorReport(meter, *window, tuple(types))


class MeterErrorReporter:
    """Refused events on their way into reports: what came is kept until its window is over."""

    def __init__(self) -> None:
        self._open: list[RefusedEvent] = []
        self._reported_until: datetime | None = None

    def record(
        self,
        events: Iterable[object],
        receipts: Iterable[Receipt],
        *,
        meters: Iterable[Meter],
        now: Instant,
    ) -> None:
        """Keep what was refused of a batch; the arguments are those of :func:`refused_events`.

        Where the clock was put back into a window that is reported, it counts in the first window
        that is not: nothing is lost and no window is reported twice.
        """
        at = instant(now, "now")
        if self._reported_until is not None:
            at = max(at, self._reported_until)
        self._open += refused_events(events, receipts, meters=meters, now=at)

    def advance(self, now: Instant) -> list[MeterErrorReport]:
        """Return the reports of the windows that ended at or before ``now``, each once; none where
        ``now`` went back.
        """
        over = from_unix_seconds(_window_start(instant(now, "now")))
        if self._reported_until is not None and over <= self._reported_until:
            return []
        closed = [event for event in self._open if event.received_at < over]
        self._open = [event for event in self._open if event.received_at >= over]
        self._reported_until = over
        return error_reports(closed)

"""Files of usage: rows of usage records and of meter events, in CSV or JSON lines.

A service writes them by the million, so they are read row by row: a malformed row is a complaint
with the number of its line, and does not end the reading. What a row says is judged like an
argument of the constructor it goes to; only what text cannot tell is decided here: digits are
numbers where numbers are meant, an empty field is absent, and a moment is held to plausible years.

A *shape* says what the rows of one sort of file are made of, a *reading* is one run over a file;
how the two formats of text become fields is below both, and knows neither records nor events.
"""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Final, Generic, TextIO, TypeVar

import attrs

from metering_core.errors import (
    CatalogError,
    ErrorCode,
    InvalidValueError,
    describe,
    place_of,
    shown,
)
from metering_core.exact import Number, exact_decimal, exact_quantity, whole_if_possible
from metering_core.feeds.formats import UsageFormat
from metering_core.feeds.instants import FROM_2000, PlausibleTime, time_of
from metering_core.feeds.json import name_of, near, parse_json, stream_of, written_as
from metering_core.meter_events import MeterEvent
from metering_core.names import choice, require_iterable, require_kind, required
from metering_core.periods import Instant, instant, iso_8601
from metering_core.usage import Action, UsageRecord


@attrs.frozen
class UsageRow:
    """One well-formed row of a file of usage.

    Attributes:
        path: the file, as complaints name it.
        line: where the row begins, from 1.
        record: the record; its timestamp is Unix seconds.
        received_at: when it arrived, Unix seconds or an aware datetime.
        source: the row as it stands in the file: its fields in CSV, its text in JSON lines.
    """

    path: str
    line: int
    record: UsageRecord
    received_at: Instant
    source: object = attrs.field(default=None, eq=False, repr=False)


@attrs.frozen
class EventRow:
    """One well-formed row of a file of meter events.

    Attributes:
        path: the file, as complaints name it.
        line: where the row begins, from 1.
        event: the event; its timestamp is a moment, never ``"now"``.
        received_at: when it arrived, Unix seconds or an aware datetime.
        source: the row as it stands in the file: its fields in CSV, its text in JSON lines.
    """

    path: str
    line: int
    event: MeterEvent
    received_at: Instant
    source: object = attrs.field(default=None, eq=False, repr=False)


# Reading ------------------------------------------------------------------------------------------


def read_usage(
    stream: TextIO,
    format: str,
    *,
    path: str | None = None,
    time: PlausibleTime | None = FROM_2000,
    arrivals: Arrivals | None = None,
) -> Iterator[UsageRow | CatalogError]:
    r"""Yield the rows of a file of usage in order, and for each malformed row the complaint about
    it.

    Columns (CSV, with a header) or keys (JSON lines) are ``subscription_item``, ``quantity``,
    ``timestamp``, and optionally ``action``, ``id``, ``received_at``. Times are Unix seconds or ISO
    8601 with an offset. Quantities are whole: digits in CSV, an integer in JSON. An empty field of
    CSV and a null of JSON are absent. Without ``received_at`` a row was received when it happened.
    Empty lines are skipped. The order of rows is that of arrival, so ``received_at`` never falls.

    Args:
        stream: text, UTF-8 with or without a byte order mark; open a CSV file with ``newline=""``.
        format: ``csv`` or ``jsonl``.
        path: what complaints call the file; the stream's own name unless given.
        time: the moments that rows may name: those from the year 2000 on unless given, all with
            None.
        arrivals: what was received last by the files before, where several are read as one.

    Raises:
        CatalogError: ``file_unreadable`` where no more row can be told from another: an absent or
            wrong header, or text that is not UTF-8.

    >>> import io
    >>> rows = "si_1,5,2024-01-01T00:00:00Z\nsi_1,-5,1704067201\n"
    >>> file = io.StringIO(f"subscription_item,quantity,timestamp\n{rows}")
    >>> row, complaint = read_usage(file, "csv", path="usage.csv")
    >>> print(row.line, row.record.quantity, row.record.timestamp)
    2 5 1704067200
    >>> print(complaint)
    usage.csv, line 3: quantity: expected an integer of at least 0, received -5 (int)
    """
    told = Arrivals() if arrivals is None else require_kind(Arrivals, arrivals, "arrivals")
    return _read_rows(_Reading(_USAGE, _place(stream, path), time_of(time), told), stream, format)


def read_events(
    stream: TextIO,
    format: str,
    *,
    path: str | None = None,
    time: PlausibleTime | None = FROM_2000,
) -> Iterator[EventRow | CatalogError]:
    r"""Yield the rows of a file of meter events in order, and for each malformed row the complaint
    about it.

    JSON lines are Stripe's meter events: ``event_name``, ``payload``, ``timestamp``, and optionally
    ``identifier``; ``created``, ``livemode`` and ``object`` are read past. CSV has a header with
    these columns, but a column ``payload[KEY]`` for each key of the payload; an empty field is a
    key that the event lacks. Both may have ``received_at``; without it an event was received when
    it happened, and without ``timestamp`` it happened when it was received. Times, empty lines and
    null are as in :func:`read_usage`.

    Args:
        stream: text, UTF-8 with or without a byte order mark; open a CSV file with ``newline=""``.
        format: ``csv`` or ``jsonl``.
        path: what complaints call the file; the stream's own name unless given.
        time: as in :func:`read_usage`.

    Raises:
        CatalogError: ``file_unreadable`` as in :func:`read_usage`.

    >>> import io
    >>> header = "event_name,timestamp,payload[stripe_customer_id],payload[value]"
    >>> file = io.StringIO(f"{header}\ntokens,1704067200,cus_1,2.5\n")
    >>> (row,) = read_events(file, "csv")
    >>> print(row.line, row.event.event_name, dict(row.event.payload))
    2 tokens {'stripe_customer_id': 'cus_1', 'value': '2.5'}
    """
    return _read_rows(_Reading(_EVENTS, _place(stream, path), time_of(time)), stream, format)


def _place(stream: TextIO, path: str | None) -> str:
    return name_of(stream) if path is None else path


@attrs.frozen
class TextRow:
    """One row of a text file as its writer left it.

    Attributes:
        path: the file, as complaints name it.
        line: where the row begins, from 1.
        fields: what it says by column or key; a column of CSV that is empty is absent.
    """

    path: str
    line: int
    fields: Mapping[str, Any]


def read_text(
    stream: TextIO,
    format: str,
    *,
    path: str,
    required: Sequence[str],
    columns: Sequence[str] | None = None,
) -> Iterator[TextRow | CatalogError]:
    """Yield the rows of a text file whatever they say, and for each that is no row of such a file
    the complaint about it.

    Args:
        stream: text, as for :func:`read_usage`.
        format: ``csv`` or ``jsonl``.
        path: what complaints call the file.
        required: the columns that a header of CSV must have.
        columns: those that a header may have, and the keys of JSON; any unless given.
    """
    known = tuple(columns or ())
    shape = _Shape(known, tuple(required), known, _text_row, is_open=columns is None)
    return _read_rows(_Reading(shape, path), stream, format)


def require_header(
    header: Sequence[str], path: str, line: int, columns: Sequence[str], required: Sequence[str]
) -> None:
    """Refuse a header of CSV that has other columns than these, one of them twice, or lacks a
    required one.

    Raises:
        CatalogError: ``file_unreadable``.
    """
    _check_header(_Shape(tuple(columns), tuple(required), (), _text_row), header, path, line)


# Shapes and readings ------------------------------------------------------------------------------

Row = TypeVar("Row", UsageRow, EventRow, TextRow)


@attrs.frozen
class _Shape(Generic[Row]):
    """What the rows of one sort of file are made of.

    Attributes:
        columns: those of CSV.
        required: those of them that a header must have.
        keys: those of JSON.
        row: makes a row of its reading, line, fields and source.
        is_open: whether other columns and keys are read past.
    """

    columns: tuple[str, ...]
    required: tuple[str, ...]
    keys: tuple[str, ...]
    row: Callable[[_Reading[Row], int, Mapping[str, Any], object], Row]
    is_open: bool = False

    def has_column(self, column: str) -> bool:
        """Return whether CSV may have the column; ``payload[…]`` stands for one for each key of a
        payload.
        """
        if self.is_open or column in self.columns:
            return True
        return _PAYLOAD_COLUMN in self.columns and _payload_key(column) is not None


_PAYLOAD_COLUMN: Final = "payload[…]"


def _payload_key(column: str) -> str | None:
    """Return the key that a column ``payload[key]`` holds, or None for any other."""
    return column[8:-1] or None if column.startswith("payload[") and column.endswith("]") else None


@attrs.define
class Arrivals:
    """What was received last among the rows that say it: their order is that of arrival."""

    latest: datetime | None = None
    line: tuple[str, int] = ("", 0)

    def take(self, received: datetime, path: str, line: int) -> None:
        """Take note of a row's moment of receipt, or refuse one that lies before that of an earlier
        row.
        """
        if self.latest is not None and received < self.latest:
            raise InvalidValueError(
                ErrorCode.PARAMETER_INVALID_INSTANT,
                f"received_at: expected a moment at or after {iso_8601(self.latest)}, that of "
                f"{place_of(*self.line)}, because the order of rows is the order of arrival, "
                f"received {iso_8601(received)}",
                param="received_at",
            )
        self.latest, self.line = received, (path, line)


@attrs.frozen
class _Reading(Generic[Row]):
    """One reading of a file: what its rows are made of, what complaints call it, and what is held
    to bounds.

    Attributes:
        shape: what the rows are made of.
        path: what complaints call the file.
        time: the moments that rows may name.
        arrivals: what was received last.
    """

    shape: _Shape[Row]
    path: str
    time: PlausibleTime = FROM_2000
    arrivals: Arrivals = attrs.field(factory=Arrivals)

    def row(
        self, line: int, source: object, fields: Callable[[], Mapping[str, Any]]
    ) -> Row | CatalogError:
        """Return the row, or the complaint about it."""
        try:
            return self.shape.row(self, line, fields(), source)
        except InvalidValueError as error:
            return self.unreadable(line, source, error.message, error)
        except json.JSONDecodeError as error:
            reason = f"is not JSON: {error.msg} (column {error.colno})"
            return self.unreadable(line, source, reason)
        except (ValueError, RecursionError) as error:
            return self.unreadable(line, source, f"is not usable JSON: {error}")

    def unreadable(
        self, number: int, source: object, reason: str, error: InvalidValueError | None = None
    ) -> CatalogError:
        """Return the complaint about a row; the code of what is wrong with a value is its
        ``cause``.
        """
        cause = {} if error is None else {"cause": error.code}
        param = (error and error.param) or "row"
        return CatalogError.of_file(param, self.path, reason, number, source=source, **cause)

    def moment(self, fields: Mapping[str, Any], key: str) -> Instant:
        """Return a moment that a row must name."""
        return self.time.moment(required(fields, key), key)

    def received(self, fields: Mapping[str, Any]) -> datetime | None:
        """Return when a row was received, where it says that."""
        if fields.get("received_at") is None:
            return None
        return instant(self.moment(fields, "received_at"), "received_at")


# What rows mean -----------------------------------------------------------------------------------


def _text_row(
    reading: _Reading[TextRow], line: int, fields: Mapping[str, Any], source: object
) -> TextRow:
    return TextRow(reading.path, line, fields)


def usage_row(path: str, line: int, fields: Mapping[str, Any], *, time: PlausibleTime) -> UsageRow:
    """Return the row that fields stand for, digits being numbers already.

    Raises:
        InvalidValueError: ``param`` names the first malformed field.
    """
    return _usage_row(_Reading(_USAGE, path, time), line, fields, None)


def _usage_row(
    reading: _Reading[UsageRow], line: int, fields: Mapping[str, Any], source: object
) -> UsageRow:
    action = fields.get("action")
    record = UsageRecord(
        required(fields, "subscription_item"),
        required(fields, "quantity"),
        reading.moment(fields, "timestamp"),
        Action.INCREMENT if action is None else action,
        fields.get("id"),
    )
    assert record.timestamp != "now", "a moment of a file is never this word"
    received = reading.received(fields)
    if received is None:
        return UsageRow(reading.path, line, record, record.timestamp, source)
    # The engine knows whole seconds of usage records, so no order within one is held to.
    reading.arrivals.take(received.replace(microsecond=0), reading.path, line)
    return UsageRow(reading.path, line, record, received, source)


def _event_row(
    reading: _Reading[EventRow], line: int, fields: Mapping[str, Any], source: object
) -> EventRow:
    received = reading.received(fields)
    if received is not None and fields.get("timestamp") is None:
        happened: Instant = received
    else:
        happened = reading.moment(fields, "timestamp")
    payload = _payload(fields)
    event = MeterEvent(
        required(fields, "event_name"),
        payload,
        identifier=fields.get("identifier"),
        timestamp=happened,
    )
    if received is not None:
        reading.arrivals.take(received, reading.path, line)
    return EventRow(reading.path, line, event, happened if received is None else received, source)


def _payload(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the payload of JSON as it is, or that of the columns of CSV."""
    if fields.get("payload") is None:
        keys = {column: _payload_key(column) for column in fields}
        columns = {key: fields[column] for column, key in keys.items() if key is not None}
        if columns:
            return columns
    found: Mapping[str, Any] = required(fields, "payload")
    return found


USAGE_COLUMNS: Final = ("subscription_item", "quantity", "timestamp", "action", "id", "received_at")
"""The columns of files of usage."""

_EVENT_COLUMNS: Final = ("event_name", "timestamp", "identifier", "received_at")
_USAGE: Final = _Shape(USAGE_COLUMNS, USAGE_COLUMNS[:3], USAGE_COLUMNS, _usage_row)
_EVENTS: Final = _Shape(
    (*_EVENT_COLUMNS, _PAYLOAD_COLUMN),
    _EVENT_COLUMNS[:2],
    (*_EVENT_COLUMNS, "payload", "created", "livemode", "object"),
    _event_row,
)


# Text ---------------------------------------------------------------------------------------------


def _read_rows(
    reading: _Reading[Row], stream: TextIO, written: str
) -> Iterator[Row | CatalogError]:
    require_iterable(stream_of(stream, "readline", "stream"), "stream")
    read = {UsageFormat.CSV: _csv_rows, UsageFormat.JSONL: _json_rows}
    return read[choice(UsageFormat, written, "format")](reading, stream)


def _lines(stream: TextIO, path: str) -> Iterator[str]:
    """Yield the lines of a stream without a byte order mark."""
    count = 0
    try:
        for count, line in enumerate(stream, start=1):
            yield line.removeprefix("\ufeff") if count == 1 else line
    except UnicodeDecodeError as error:
        reason = f"is not UTF-8 somewhere after line {count}: {error.reason}"
        raise CatalogError.of_file("stream", path, reason) from None
    except OSError as error:
        reason = f"cannot be read after line {count}: {error.strerror or error}"
        raise CatalogError.of_file("stream", path, reason) from None


def _require_text(text: str) -> None:
    """Refuse what was no UTF-8 where the stream was opened with ``errors="surrogateescape"``."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            message = f"is not UTF-8 at column {error.start + 1}"
            raise InvalidValueError(ErrorCode.PARAMETER_INVALID_STRING, message) from None


def _json_rows(reading: _Reading[Row], stream: TextIO) -> Iterator[Row | CatalogError]:
    for line, text in enumerate(_lines(stream, reading.path), start=1):
        if text.strip():
            yield reading.row(line, text, partial(_json_fields, reading.shape, text))


def _json_fields(shape: _Shape[Any], text: str) -> Mapping[str, Any]:
    _require_text(text)
    fields = parse_json(text)
    if not isinstance(fields, Mapping):
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_OBJECT, "row", "an object", fields
        )
    for key in fields:
        if not shape.is_open and key not in shape.keys:
            message = f"Received unknown parameter: {shown(key)}{_meant_by(key, shape.keys)}"
            raise InvalidValueError(ErrorCode.PARAMETER_UNKNOWN, message, param=key)
    return fields


def _csv_rows(reading: _Reading[Row], stream: TextIO) -> Iterator[Row | CatalogError]:
    lines = csv.reader(_lines(stream, reading.path), strict=True)
    header: list[str] | None = None
    while True:
        line = lines.line_num + 1
        try:
            fields = next(lines)
        except StopIteration:
            break
        except csv.Error as error:
            yield reading.unreadable(line, None, f"is not CSV: {error}")
            continue
        if not fields:
            continue
        if header is None:
            _check_header(reading.shape, header := fields, reading.path, line)
        else:
            yield reading.row(line, fields, partial(_csv_fields, header, fields))
    if header is None:
        columns = ", ".join(reading.shape.required)
        reason = f"is empty: expected a header with the columns {columns}, received none"
        raise CatalogError.of_file("header", reading.path, reason, 1)


def _check_header(shape: _Shape[Any], header: Sequence[str], path: str, line: int) -> None:
    def refuse(reason: str) -> None:
        raise CatalogError.of_file("header", path, reason, line)

    for column, count in Counter(header).items():
        if not shape.has_column(column):
            expected = f"expected the columns {', '.join(shape.columns)}, separated by commas"
            meant = _meant_by(column, shape.columns)
            refuse(f"{expected}, received {describe(column)}{meant}")
        if count > 1:
            refuse(f"expected each column once, received {column!r} {count} times")
    for column in shape.required:
        if column not in header:
            refuse(f"the column {column!r} is missing")


def _meant_by(word: str, known: Collection[str]) -> str:
    """Return what an unknown column or key was meant for: another of the file, or a file of the
    other sort.
    """
    if written := written_as(word):
        return written
    is_of_events = word in {"event_name", "identifier", "payload"} or _payload_key(word)
    if "quantity" in known and is_of_events:
        return " (these look like meter events: give them with --events)"
    if "event_name" in known and word in {"subscription_item", "quantity", "action"}:
        return " (these look like usage records, which are the USAGE of `metering-core invoice`)"
    return near(word, known)


def _csv_fields(header: list[str], values: list[str]) -> Mapping[str, Any]:
    """Return the fields of a row of CSV with numbers for digits, so that they are checked like
    those of JSON.
    """
    if len(values) != len(header):
        message = f"expected {len(header)} fields as in the header, received {len(values)}"
        raise InvalidValueError(ErrorCode.PARAMETER_INVALID_OBJECT, message)
    _require_text("".join(values))
    fields = zip(header, values, strict=True)
    return numbers_for_digits({column: value for column, value in fields if value})


def numbers_for_digits(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a row of CSV with numbers for digits where numbers are meant."""
    for column in ("quantity", "timestamp", "received_at"):
        text = fields.get(column)
        if text is not None and _INTEGER.fullmatch(text):
            fields[column] = int(text)
    return fields


_INTEGER: Final = re.compile(r"-?[0-9]{1,1000}")
_DECIMAL: Final = re.compile(r"-?[0-9]{1,1000}\.[0-9]{1,1000}")


def parse_quantity(text: str, param: str) -> Number:
    """Return a quantity written as text: an int, or a decimal of at most 12 places where it is not
    whole; at least 0.

    >>> parse_quantity("1031", "quantity"), parse_quantity("2.50", "quantity")
    (1031, Decimal('2.5'))

    Raises:
        InvalidValueError: ``parameter_invalid_decimal``.
    """
    try:
        if _DECIMAL.fullmatch(text):
            return whole_if_possible(exact_decimal(text, param))
        return exact_quantity(int(text) if _INTEGER.fullmatch(text) else text, param)
    except InvalidValueError:
        expected = "an integer, or a decimal of at most 12 places, of at least 0"
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_DECIMAL, param, expected, text
        ) from None

"""Prices, meters, subscriptions and usage from files: JSON catalogs, usage records and meter events
in CSV or JSON lines.

A catalog is what a biller writes by hand or exports from Stripe, usage is what a service writes by
the million rows. So a catalog is read whole, and usage row by row: a malformed row has a line
number and does not end the reading.
"""

from __future__ import annotations

import csv
import difflib
import io
import json
import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from functools import partial
from os import PathLike, fspath
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Generic, NoReturn, Protocol, TextIO, TypeVar, cast, runtime_checkable

import attrs

from metering_core.acceptance import Outcome, Receipt
from metering_core.errors import (
    CatalogError,
    ErrorCode,
    InvalidValueError,
    MeteringError,
    UsageRejectedError,
    describe,
    place_of,
    shown,
)
from metering_core.exact import Number, exact_decimal, exact_quantity, whole_if_possible
from metering_core.feeds.instants import ANY_TIME, FROM_2000, PlausibleTime, likeness, time_of
from metering_core.log import UsageLog
from metering_core.meter_acceptance import MeterPolicy
from metering_core.meter_events import MeterEvent
from metering_core.meter_log import MeterLog
from metering_core.meters import Meter
from metering_core.names import (
    choice,
    known_keys,
    path_of,
    require_iterable,
    require_kind,
    required,
)
from metering_core.periods import BillingPeriod, Instant, instant, iso_8601
from metering_core.prices import Price
from metering_core.stripe_fields import paths_within
from metering_core.subscriptions import Subscription
from metering_core.usage import Action, UsageRecord

Part = TypeVar("Part", Price, Meter, Subscription)

CHUNK_ROWS: Final = 10_000
"""Rows that are appended at once: enough for speed, few enough for memory."""


class UsageFormat(StrEnum):
    """How a file of usage is written."""

    CSV = "csv"
    JSONL = "jsonl"

    @classmethod
    def of_path(cls, path: str | PathLike[str]) -> UsageFormat:
        """Tell the format by the file's extension: ``.csv``, or ``.jsonl`` and ``.ndjson``.

        Raises:
            CatalogError: ``file_unreadable`` for any other extension.
        """
        extension = Path(given := path_of(path, "path")).suffix.lower()
        formats = {".csv": cls.CSV, ".jsonl": cls.JSONL, ".ndjson": cls.JSONL}
        if extension in formats:
            return formats[extension]
        expected = "expected the extension .csv, .jsonl or .ndjson"
        raise CatalogError.of_file(
            "path", given, f"{expected}, received {extension!r}{_instead(Path(given), extension)}"
        )


def _instead(path: Path, extension: str) -> str:
    """Return what works instead of a file that cannot be read, as an ending of a sentence."""
    if extension in {".gz", ".zip", ".bz2", ".xz", ".zst"}:
        return " (compressed text is not read: unpack it, or write Parquet, which is compressed)"
    if os.path.isdir(path):  # noqa: PTH112 - it refuses no path, whatever stands in it
        return (
            f" (a folder is read by a glob: '{shown(str(path))}/*.parquet', "
            f"'{shown(str(path))}/*.csv')"
        )
    is_parquet = extension == ".parquet"
    return (
        " (Parquet is read as USAGE of `metering-core invoice`, and by metering_core.sql)"
        if is_parquet
        else ""
    )


@attrs.frozen
class Catalog:
    """What can be billed.

    Attributes:
        prices: by id.
        subscriptions: in the order of the file.
        meters: by id.
        ignored: the paths of fields of Stripe's objects that are not known here and were read past,
            such as ``subscriptions[0][items][0][new_field]``.
    """

    prices: Mapping[str, Price]
    subscriptions: tuple[Subscription, ...]
    meters: Mapping[str, Meter]
    ignored: tuple[str, ...] = attrs.field(default=(), eq=False, repr=False)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by content; a read-only map cannot be pickled as it is."""
        return _catalog, (dict(self.prices), self.subscriptions, dict(self.meters), self.ignored)


def _catalog(
    prices: dict[str, Price],
    subscriptions: tuple[Subscription, ...],
    meters: dict[str, Meter],
    ignored: tuple[str, ...],
) -> Catalog:
    return Catalog(MappingProxyType(prices), subscriptions, MappingProxyType(meters), ignored)


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


# Complaints ---------------------------------------------------------------------------------------


def _near(word: str, known: Iterable[str]) -> str:
    """Return what was probably meant, as an ending of a sentence."""
    close = difflib.get_close_matches(
        word, [name for name in known if name != word], n=1, cutoff=0.7
    )
    return f" (did you mean {close[0]!r}?)" if close else ""


def _written_as(beginning: str) -> str:
    """Return what a file looks like that is no UTF-8 text, as an ending of a sentence; its bytes
    were read as they came.
    """
    return next((meant for bytes_read, meant in _NO_TEXT if beginning.startswith(bytes_read)), "")


_NO_TEXT: Final = (
    ("\x1f\udc8b", " (it looks like gzip: unpack it)"),
    ("PK\x03\x04", " (it looks like a spreadsheet or another archive: export CSV from it)"),
    ("PAR1", " (it looks like Parquet: name it .parquet)"),
    (("\udcff\udcfe", "\udcfe\udcff"), " (it looks like UTF-16: write it as UTF-8)"),
)
"""How files begin that are given for text by mistake, as bytes that are no UTF-8 are read."""


def _meant_by(word: str, known: Collection[str]) -> str:
    """Return what an unknown column or key was meant for: another of the file, or a file of the
    other sort.
    """
    if written := _written_as(word):
        return written
    if "quantity" in known and (
        word in {"event_name", "identifier", "payload"} or _payload_key(word)
    ):
        return " (these look like meter events: give them with --events)"
    if "event_name" in known and word in {"subscription_item", "quantity", "action"}:
        return " (these look like usage records, which are the USAGE of `metering-core invoice`)"
    return _near(word, known)


# JSON ---------------------------------------------------------------------------------------------


def read_json(source: str | PathLike[str] | TextIO, param: str) -> Any:
    """Return the content of a JSON file, given by path or as a text stream; UTF-8, with or without
    a byte order mark.

    A key that occurs twice in an object is refused: one of the two values would be lost without a
    word. ``param`` is what a refusal calls the source.

    Raises:
        CatalogError: ``file_unreadable``; ``details`` has ``path`` and ``line``.
    """
    path, text = _text_of(source, param)
    try:
        return parse_json(text)
    except json.JSONDecodeError as error:
        is_usage = Path(path).suffix.lower() in {".csv", ".jsonl", ".ndjson"}
        meant = (
            ": by its extension it is a file of usage, and CATALOG stands before USAGE"
            if is_usage
            else ""
        )
        reason = f"is not JSON: {error.msg} (column {error.colno}){meant}"
        raise CatalogError.of_file(param, path, reason, error.lineno) from None
    except (ValueError, RecursionError) as error:
        raise CatalogError.of_file(param, path, f"is not usable JSON: {error}") from None


def _text_of(source: str | PathLike[str] | TextIO, param: str) -> tuple[str, str]:
    if not isinstance(source, str | PathLike):
        path = _name_of(stream := _stream_of(source, "read", param))
        return path, _read_text(stream.read, path, param)
    path = path_of(source, param)

    def content() -> str:
        refuse_pipe(path, param)
        return Path(path).read_text("utf-8-sig")

    return path, _read_text(content, path, param)


def _read_text(content: Callable[[], str], path: str, param: str) -> str:
    try:
        return content().removeprefix("\ufeff")
    except CatalogError:
        raise
    except OSError as error:
        raise CatalogError.of_file(
            param, path, f"cannot be read: {error.strerror or error}"
        ) from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        reason = (
            "is not UTF-8: "
            f"{error.reason}{_written_as(error.object[:4].decode(errors='surrogateescape'))}"
        )
        raise CatalogError.of_file(param, path, reason, line) from None
    except ValueError as error:  # A path that no system takes, such as one with a NUL.
        raise CatalogError.of_file(param, path, f"cannot be read: {error}") from None


def refuse_pipe(path: str, param: str) -> None:
    """Refuse a pipe by its own name: reading it may wait for ever. What a shell puts under
    ``/dev/fd`` is read.
    """
    if stat.S_ISFIFO(os.lstat(path).st_mode):
        reason = "cannot be read: expected a file, received a named pipe ('-' reads standard input)"
        raise CatalogError.of_file(param, path, reason)


def _stream_of(stream: Any, method: str, param: str) -> TextIO:
    """Return a text stream, or refuse what is none."""
    if isinstance(stream, io.TextIOBase) or (
        not isinstance(stream, type) and hasattr(type(stream), method)
    ):
        return cast("TextIO", stream)
    expected = "a text stream" if param == "stream" else "a path or a text stream"
    raise InvalidValueError.expecting(ErrorCode.PARAMETER_INVALID_OBJECT, param, expected, stream)


def _name_of(stream: TextIO) -> str:
    given = getattr(stream, "name", None)
    return given if isinstance(given, str) else "<stream>"


def parse_json(text: str) -> Any:
    """Return what a text of JSON says; ValueError for a key that occurs twice and for what is no
    number of JSON.
    """
    return _DECODER.decode(text)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {twice!r} occurs twice in one object")
    return found


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number of JSON")


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_refuse_constant)


# Catalogs -----------------------------------------------------------------------------------------


def read_catalog(
    source: str | PathLike[str] | TextIO, *, time: PlausibleTime | None = FROM_2000
) -> Catalog:
    """Read a catalog from JSON: ``{"prices": [Price…], "meters": [Meter…], "subscriptions":
    [Subscription…]}``.

    All are in Stripe's shapes, and one of Stripe's list objects (``{"data": […]}``) is taken where
    a list is. An item names its price by id or holds it, a price its meter by id. Times of
    subscriptions are Unix seconds or ISO 8601 with an offset.

    Args:
        source: a path, or an open text stream.
        time: the moments that subscriptions and meters may name: those from the year 2000 on unless
            given, all with None.

    Raises:
        CatalogError: ``file_unreadable``. The message names the file and the object at fault,
            ``details`` the ``path``, and the ``line`` where it is known.
    """
    return _catalog_at(source, "source", time_of(time))


def _catalog_at(source: str | PathLike[str] | TextIO, param: str, time: PlausibleTime) -> Catalog:
    data = read_json(source, param)
    path = fspath(source) if isinstance(source, str | PathLike) else _name_of(source)
    try:
        known = known_keys(data, {"prices", "meters", "subscriptions"})
        prices = _parts(known, "prices", Price.from_dict)
        meters = _parts(known, "meters", lambda one: _meter(one, time))
        _refuse_shared_event_names(meters.values())
        subscriptions = _parts(
            known, "subscriptions", lambda one: _subscription(one, prices, meters, time)
        )
        _refuse_shared_items(subscriptions.values())
    except InvalidValueError as error:
        raise CatalogError.of_file(
            error.param or param, path, _suggested(error, error.message)
        ) from None
    read: dict[str, Iterable[Price | Meter | Subscription]] = {
        "prices": prices.values(),
        "meters": meters.values(),
        "subscriptions": subscriptions.values(),
    }
    ignored = (path for key, parts in read.items() for path in _ignored(key, parts))
    return _catalog(prices, tuple(subscriptions.values()), meters, tuple(ignored))


def _ignored(key: str, parts: Iterable[Price | Meter | Subscription]) -> Iterator[str]:
    for index, part in enumerate(parts):
        yield from paths_within(f"{key}[{index}]", part.ignored)


def _in_json(error: InvalidValueError) -> str:
    """Return what is wrong with a value of a file in the words of JSON and of money, where the
    message has Python's.
    """
    if error.code is ErrorCode.PARAMETERS_EXCLUSIVE and "billing_scheme=per_unit" in error.message:
        return f'{error.message} Tiers go with "billing_scheme": "tiered".'
    if not {"expected", "received"} <= error.details.keys():
        return error.message
    is_instant = error.code is ErrorCode.PARAMETER_INVALID_INSTANT
    expected, received = str(error.details["expected"]), error.details["received"]
    expected = expected.replace(
        " (int, Decimal, Fraction or decimal string)", " (an integer, or a decimal in quotes)"
    )
    try:
        written = json.dumps(received, ensure_ascii=False, default=describe)
    except RecursionError:  # Nested as deeply as it could just be read.
        return error.message
    written = shown(written if len(written) <= WRITTEN_MAX else f"{written[: WRITTEN_MAX - 3]}...")
    param = error.param or ""
    return (
        f"{param}: expected {expected}, received "
        f"{written}{likeness(received) if is_instant else _meant(param, received)}"
    )


WRITTEN_MAX: Final = 80
"""Characters of a value that a complaint shows."""


def _meant(param: str, received: object) -> str:
    """Return what to write instead of a value, as an ending of a sentence."""
    key = re.split(r"[\[\]]+", param.rstrip("]"))[-1]
    if (
        key == "up_to"
        and isinstance(received, str)
        and received.strip().casefold() in {"inf", "infinity", "+inf"}
    ):
        return ' (did you mean "inf"?)'
    if not isinstance(received, float):
        return ""
    said = f': a number with a point, write "{received}"'
    if "amount" not in key:
        return said
    decimal = key if key.endswith("_decimal") else f"{key}_decimal"
    return (
        f"{said} as {decimal}, and note that amounts are in the currency's minor unit, such as "
        "cents"
    )


def _suggested(error: InvalidValueError, message: str) -> str:
    """Return the message; a key of a catalog that is not known gets the one that was probably
    meant.
    """
    if (
        error.code is not ErrorCode.PARAMETER_UNKNOWN
        or error.param is None
        or "(did you mean" in message
    ):
        return message
    return message + _near(re.split(r"[\[\]]+", error.param.rstrip("]"))[-1], _CATALOG_KEYS)


_CATALOG_KEYS: Final = (
    *(
        "aggregate_usage",
        "amount_gte",
        "billing_cycle_anchor",
        "billing_scheme",
        "billing_thresholds",
        "carry_forward",
    ),
    *(
        "currency",
        "customer",
        "customer_mapping",
        "decimal_places",
        "default_aggregation",
        "dimension_payload_keys",
    ),
    *(
        "display_name",
        "divide_by",
        "ended_at",
        "event_name",
        "event_payload_key",
        "event_time_window",
        "flat_amount",
    ),
    *(
        "flat_amount_decimal",
        "formula",
        "id",
        "interval",
        "interval_count",
        "items",
        "meter",
        "meters",
        "nickname",
        "price",
    ),
    *(
        "prices",
        "product",
        "quantity",
        "recurring",
        "round",
        "start_date",
        "status",
        "subscriptions",
        "tiers",
        "tiers_mode",
    ),
    *(
        "timezone",
        "transform_quantity",
        "unit_amount",
        "unit_amount_decimal",
        "unit_label",
        "up_to",
        "usage_gte",
    ),
    *("usage_type", "value_settings"),
)


def _parts(data: Mapping[str, Any], key: str, read: Callable[[Any], Part]) -> dict[str, Part]:
    """Read each object of a list; a complaint says which one it is about, and no id may occur
    twice.
    """
    parts: dict[str, Part] = {}
    for index, given in enumerate(_list_of(data, key)):
        place = f"{key}[{index}]"
        if isinstance(given, Mapping) and isinstance(given.get("id"), str):
            place += f" ({given['id']!r})"
        try:
            part = read(given)
        except InvalidValueError as error:
            raise InvalidValueError(
                error.code, f"{shown(place)}: {_in_json(error)}", param=error.param
            ) from None
        if part.id in parts:
            expected = f"an id that no other of the {key} has"
            raise InvalidValueError.expecting(
                ErrorCode.PARAMETER_INVALID_OBJECT, f"{key}[{index}][id]", expected, part.id
            )
        parts[part.id] = part
    return parts


def _list_of(data: Mapping[str, Any], key: str) -> list[Any]:
    """Return a list, or the data of one of Stripe's list objects, which must be complete."""
    value = data.get(key, [])
    if isinstance(value, Mapping) and "data" in value:
        if value.get("has_more"):
            expected = "a complete list (has_more says that there are more pages)"
            raise InvalidValueError.expecting(
                ErrorCode.PARAMETER_INVALID_OBJECT,
                f"{key}[has_more]",
                expected,
                True,  # noqa: FBT003 - what was received
            )
        value = value["data"]
    if not isinstance(value, list):
        raise InvalidValueError.expecting(ErrorCode.PARAMETER_INVALID_OBJECT, key, "a list", value)
    return value


SUBSCRIPTION_TIMES: Final = (
    "billing_cycle_anchor",
    "start_date",
    "ended_at",
    "cancel_at",
    "trial_end",
)
"""The instants of Stripe's Subscription."""


def _meter(data: object, time: PlausibleTime) -> Meter:
    moments = data.get("status_transitions") if isinstance(data, Mapping) else None
    if isinstance(moments, Mapping) and moments.get("deactivated_at") is not None:
        time.moment(moments["deactivated_at"], "status_transitions[deactivated_at]")
    return Meter.from_dict(cast("Any", data))


def _subscription(
    data: object, prices: Mapping[str, Price], meters: Mapping[str, Meter], time: PlausibleTime
) -> Subscription:
    if not isinstance(data, Mapping):
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_OBJECT, "subscription", "an object", data
        )
    times = {
        key: time.moment(data[key], key) for key in SUBSCRIPTION_TIMES if data.get(key) is not None
    }
    items = {"items": _list_of(data, "items")} if isinstance(data.get("items"), Mapping) else {}
    subscription = Subscription.from_dict({**data, **times, **items}, prices)
    for position, item in enumerate(subscription.items):
        if item.recurring.meter is not None:
            _require_meter(
                item.recurring.meter, meters, f"items[{position}][price][recurring][meter]"
            )
            required({"customer": subscription.customer}, "customer")
    return subscription


def _require_meter(meter_id: str, meters: Mapping[str, Meter], param: str) -> None:
    """Refuse a meter that the catalog lacks. Asked of prices that are used, since a list of prices
    alone has no meters.
    """
    if meter_id not in meters:
        expected = f"the id of a meter of this catalog ({', '.join(meters) or 'it has none'})"
        error = InvalidValueError.expecting(ErrorCode.METER_UNKNOWN, param, expected, meter_id)
        raise InvalidValueError(error.code, error.message + _near(meter_id, meters), param=param)


def _refuse_shared_event_names(meters: Iterable[Meter]) -> None:
    owners: dict[str, str] = {}
    for position, meter in enumerate(meters):
        if meter.event_name in owners:
            expected = (
                f"an event name that no other meter has ({owners[meter.event_name]!r} has it)"
            )
            param = f"meters[{position}][event_name]"
            raise InvalidValueError.expecting(
                ErrorCode.METER_CHANGED, param, expected, meter.event_name
            )
        owners[meter.event_name] = meter.id


def _refuse_shared_items(subscriptions: Iterable[Subscription]) -> None:
    owners: dict[str, str] = {}
    for subscription in subscriptions:
        for item in subscription.items:
            if item.id in owners:
                expected = (
                    f"an id that no item of another subscription has ({owners[item.id]!r} has it)"
                )
                raise InvalidValueError.expecting(
                    ErrorCode.PARAMETER_INVALID_OBJECT, "items[id]", expected, item.id
                )
            owners[item.id] = subscription.id


def read_price(reference: str) -> Price:
    """Read one price: a path of a JSON file that holds a Price, or ``CATALOG.json#price_id``.

    Raises:
        CatalogError: ``file_unreadable``, also where the catalog has no such price; the message
            lists those it has.
    """
    path, _, price_id = path_of(reference, "reference").rpartition("#")
    if path and not _is_there(reference):
        return _price_of(path, price_id)
    data = read_json(reference, "reference")
    if isinstance(data, Mapping) and "prices" in data:
        return _price_of(reference, "")
    try:
        return Price.from_dict(data)
    except InvalidValueError as error:
        raise CatalogError.of_file(
            error.param or "reference", reference, _suggested(error, _in_json(error))
        ) from None


def _is_there(path: str) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):  # A path that no system takes.
        return False


def _price_of(path: str, price_id: str) -> Price:
    prices = _catalog_at(path, "reference", ANY_TIME).prices  # Prices name no moment.
    if price_id not in prices:
        known = (
            ", ".join(f"{path}#{known_id}" for known_id in prices) or "but this catalog has none"
        )
        reason = f"expected a price ({known}), received {price_id!r}{_near(price_id, prices)}"
        raise CatalogError.of_file("price", path, reason)
    return prices[price_id]


def meter_log(catalog: Catalog, policy: MeterPolicy | None = None) -> MeterLog:
    """Return an empty log of a catalog's meters and subscriptions, which accepts what the policy
    says.

    Subscriptions may be on a meter that was deactivated after they began: what it measured is
    billed.
    """
    require_kind(Catalog, catalog, "catalog")
    log = MeterLog(
        (meter.reactivate() for meter in catalog.meters.values()),
        catalog.subscriptions,
        policy=policy,
    )
    for meter in catalog.meters.values():
        log.update_meter(meter)
    return log


# Numbers and instants as text ---------------------------------------------------------------------

_INTEGER = re.compile(r"-?[0-9]{1,1000}")
_DECIMAL = re.compile(r"-?[0-9]{1,1000}\.[0-9]{1,1000}")


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


# Usage --------------------------------------------------------------------------------------------


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
    place = _name_of(stream) if path is None else path
    told = Arrivals() if arrivals is None else require_kind(Arrivals, arrivals, "arrivals")
    return _read_rows(_Reading(_USAGE, place, time_of(time), told), stream, format)


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
    place = _name_of(stream) if path is None else path
    return _read_rows(_Reading(_EVENTS, place, time_of(time), Arrivals()), stream, format)


Row = TypeVar("Row", UsageRow, EventRow, "TextRow")


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
    layout = _Layout(known, tuple(required), known, _text_row, is_open=columns is None)
    return _read_rows(_Reading(layout, path), stream, format)


def require_header(
    header: Sequence[str], path: str, line: int, columns: Sequence[str], required: Sequence[str]
) -> None:
    """Refuse a header of CSV that has other columns than these, one of them twice, or lacks a
    required one.

    Raises:
        CatalogError: ``file_unreadable``.
    """
    _checked_header(
        _Layout(tuple(columns), tuple(required), (), _text_row), list(header), path, line
    )


@attrs.frozen
class _Layout(Generic[Row]):
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
        return (
            self.is_open
            or column in self.columns
            or (_PAYLOAD_COLUMN in self.columns and _payload_key(column) is not None)
        )


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
            message = (
                f"received_at: expected a moment at or after {iso_8601(self.latest)}, that "
                f"of {place_of(*self.line)}, because "
                f"the order of rows is the order of arrival, received {iso_8601(received)}"
            )
            raise InvalidValueError(
                ErrorCode.PARAMETER_INVALID_INSTANT, message, param="received_at"
            )
        self.latest, self.line = received, (path, line)


@attrs.frozen
class _Reading(Generic[Row]):
    """One reading of a file: what its rows are made of, what complaints call it, and what is held
    to bounds.

    Attributes:
        layout: what the rows are made of.
        path: what complaints call the file.
        time: the moments that rows may name.
        arrivals: what was received last.
    """

    layout: _Layout[Row]
    path: str
    time: PlausibleTime = FROM_2000
    arrivals: Arrivals = attrs.field(factory=Arrivals)

    def received(self, fields: Mapping[str, Any]) -> datetime | None:
        value = fields.get("received_at")
        return (
            None
            if value is None
            else instant(self.time.moment(value, "received_at"), "received_at")
        )

    def unreadable(
        self, number: int, source: object, reason: str, error: InvalidValueError | None = None
    ) -> CatalogError:
        """Return the complaint about a row; the code of what is wrong with a value is its
        ``cause``.
        """
        cause = {} if error is None else {"cause": error.code}
        param = (error and error.param) or "row"
        return CatalogError.of_file(param, self.path, reason, number, source=source, **cause)


def _read_rows(
    reading: _Reading[Row], stream: TextIO, written: str
) -> Iterator[Row | CatalogError]:
    require_iterable(_stream_of(stream, "readline", "stream"), "stream")
    read = {UsageFormat.CSV: _csv_rows, UsageFormat.JSONL: _json_rows}[
        choice(UsageFormat, written, "format")
    ]
    return read(reading, stream)


def _lines(stream: TextIO, path: str) -> Iterator[str]:
    """Yield the lines of a stream without a byte order mark."""
    count = 0
    try:
        for count, line in enumerate(stream, start=1):
            yield line.removeprefix("\ufeff") if count == 1 else line
    except UnicodeDecodeError as error:
        raise CatalogError.of_file(
            "stream", path, f"is not UTF-8 somewhere after line {count}: {error.reason}"
        ) from None
    except OSError as error:
        raise CatalogError.of_file(
            "stream", path, f"cannot be read after line {count}: {error.strerror or error}"
        ) from None


def _json_rows(reading: _Reading[Row], stream: TextIO) -> Iterator[Row | CatalogError]:
    keys = None if reading.layout.is_open else reading.layout.keys
    for line, text in enumerate(_lines(stream, reading.path), start=1):
        if text.strip():
            yield _row(reading, line, text, partial(_json_fields, keys, text))


def _json_fields(keys: tuple[str, ...] | None, text: str) -> Mapping[str, Any]:
    _require_text(text)
    fields = parse_json(text)
    if not isinstance(fields, Mapping):
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_OBJECT, "row", "an object", fields
        )
    for key in fields:
        if keys is not None and key not in keys:
            message = f"Received unknown parameter: {shown(key)}{_meant_by(key, keys)}"
            raise InvalidValueError(ErrorCode.PARAMETER_UNKNOWN, message, param=key)
    return fields


def _require_text(text: str) -> None:
    """Refuse what was no UTF-8 where the stream was opened with ``errors="surrogateescape"``."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            message = f"is not UTF-8 at column {error.start + 1}"
            raise InvalidValueError(ErrorCode.PARAMETER_INVALID_STRING, message) from None


def _csv_rows(reading: _Reading[Row], stream: TextIO) -> Iterator[Row | CatalogError]:
    path, layout = reading.path, reading.layout
    lines = csv.reader(_lines(stream, path), strict=True)
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
            header = _checked_header(layout, fields, path, line)
        else:
            yield _row(reading, line, fields, partial(_csv_fields, header, fields))
    if header is None:
        reason = (
            f"is empty: expected a header with the columns {', '.join(layout.required)}, "
            "received none"
        )
        raise CatalogError.of_file("header", path, reason, 1)


def _checked_header(layout: _Layout[Any], header: list[str], path: str, line: int) -> list[str]:
    for column, count in Counter(header).items():
        if not layout.has_column(column):
            expected = f"expected the columns {', '.join(layout.columns)}, separated by commas"
            reason = f"{expected}, received {describe(column)}{_meant_by(column, layout.columns)}"
            raise CatalogError.of_file("header", path, reason, line)
        if count > 1:
            reason = f"expected each column once, received {column!r} {count} times"
            raise CatalogError.of_file("header", path, reason, line)
    for column in layout.required:
        if column not in header:
            raise CatalogError.of_file("header", path, f"the column {column!r} is missing", line)
    return header


def _csv_fields(header: list[str], values: list[str]) -> Mapping[str, Any]:
    """Return the fields of a row of CSV with numbers for digits, so that they are checked like
    those of JSON.
    """
    if len(values) != len(header):
        message = f"expected {len(header)} fields as in the header, received {len(values)}"
        raise InvalidValueError(ErrorCode.PARAMETER_INVALID_OBJECT, message)
    _require_text("".join(values))
    return numbers_for_digits(
        {column: value for column, value in zip(header, values, strict=True) if value}
    )


def numbers_for_digits(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a row of CSV with numbers for digits where numbers are meant."""
    for column in ("quantity", "timestamp", "received_at"):
        text = fields.get(column)
        if text is not None and _INTEGER.fullmatch(text):
            fields[column] = int(text)
    return fields


def _row(
    reading: _Reading[Row], line: int, source: object, fields: Callable[[], Mapping[str, Any]]
) -> Row | CatalogError:
    """Return the row, or the complaint about it."""
    try:
        return reading.layout.row(reading, line, fields(), source)
    except InvalidValueError as error:
        return reading.unreadable(line, source, error.message, error)
    except json.JSONDecodeError as error:
        return reading.unreadable(line, source, f"is not JSON: {error.msg} (column {error.colno})")
    except (ValueError, RecursionError) as error:
        return reading.unreadable(line, source, f"is not usable JSON: {error}")


def _text_row(
    reading: _Reading[TextRow],
    line: int,
    fields: Mapping[str, Any],
    source: object,
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
        reading.time.moment(required(fields, "timestamp"), "timestamp"),
        Action.INCREMENT if action is None else action,
        fields.get("id"),
    )
    assert record.timestamp != "now", "a moment of a file is never this word"
    received = reading.received(fields)
    if received is not None:
        reading.arrivals.take(received.replace(microsecond=0), reading.path, line)
    return UsageRow(
        reading.path, line, record, record.timestamp if received is None else received, source
    )


def _event_row(
    reading: _Reading[EventRow], line: int, fields: Mapping[str, Any], source: object
) -> EventRow:
    received, timestamp = reading.received(fields), fields.get("timestamp")
    if timestamp is None and received is not None:
        happened: Instant = received
    else:
        happened = reading.time.moment(required(fields, "timestamp"), "timestamp")
    payload = fields.get("payload")
    if payload is None:
        payload = {
            key: value
            for column, value in fields.items()
            if (key := _payload_key(column)) is not None
        }
        payload = payload or required(fields, "payload")
    event = MeterEvent(
        required(fields, "event_name"),
        payload,
        identifier=fields.get("identifier"),
        timestamp=happened,
    )
    if received is not None:
        reading.arrivals.take(received, reading.path, line)
    return EventRow(reading.path, line, event, happened if received is None else received, source)


USAGE_COLUMNS: Final = ("subscription_item", "quantity", "timestamp", "action", "id", "received_at")
"""The columns of files of usage."""

_EVENT_COLUMNS: Final = ("event_name", "timestamp", "identifier", "received_at")
_USAGE: Final = _Layout(USAGE_COLUMNS, USAGE_COLUMNS[:3], USAGE_COLUMNS, _usage_row)
_EVENTS: Final = _Layout(
    (*_EVENT_COLUMNS, _PAYLOAD_COLUMN),
    _EVENT_COLUMNS[:2],
    (*_EVENT_COLUMNS, "payload", "created", "livemode", "object"),
    _event_row,
)


@runtime_checkable
class TakesUsage(Protocol):
    """What rows of usage are appended to: a :class:`~metering_core.UsageLog`, or what judges as
    one.
    """

    subscriptions: Any
    append_columns: Any


def _raise(refusal: MeteringError) -> None:
    raise refusal


def append_usage(
    log: UsageLog,
    rows: Iterable[UsageRow | CatalogError],
    *,
    on_refusal: Callable[[MeteringError], None] = _raise,
) -> dict[str, tuple[BillingPeriod, ...]]:
    """Append rows in their order, in chunks, each at its own moment of receipt: how history is
    imported.

    Args:
        log: the log; it must know the subscriptions.
        rows: what :func:`read_usage` yields.
        on_refusal: called in the order of lines with each malformed row's
            :class:`~metering_core.errors.CatalogError` and each refused record's
            :class:`~metering_core.UsageRejectedError`, both with ``path`` and ``line`` in
            ``details``. It may raise to stop, which is what happens unless it is given; what the
            log accepted by then stays in it.

    Returns:
        The billing periods that bill usage among these rows, in order, by subscription.
    """
    require_kind(TakesUsage, log, "log", "a UsageLog")
    owners = {
        item.id: subscription for subscription in log.subscriptions for item in subscription.items
    }
    spellings = Spellings(owners)
    periods = _PeriodsWithUsage()

    def note(item_id: str, billed_at: int) -> None:
        periods.note(owners[item_id], billed_at)

    def refuse(receipt: Receipt, row: UsageRow) -> None:
        is_unknown = receipt.code is ErrorCode.SUBSCRIPTION_ITEM_UNKNOWN
        meant = spellings.near(row.record.subscription_item) if is_unknown else ""
        on_refusal(placed(receipt.error(), row, meant))

    chunk: list[UsageRow] = []
    for row in _each_row(rows, UsageRow):
        if isinstance(row, UsageRow):
            chunk.append(row)
        if len(chunk) >= CHUNK_ROWS or not isinstance(row, UsageRow):
            _append_chunk(log, chunk, note, refuse)
            chunk = []
        if not isinstance(row, UsageRow):
            on_refusal(row)
    _append_chunk(log, chunk, note, refuse)
    return periods.by_subscription()


def _each_row(rows: Iterable[Row | CatalogError], kind: type[Row]) -> Iterator[Row | CatalogError]:
    for at, row in enumerate(require_iterable(rows, "rows")):
        yield row if isinstance(row, CatalogError) else require_kind(kind, row, f"rows[{at}]")


def _append_chunk(
    log: UsageLog,
    rows: list[UsageRow],
    note: Callable[[str, int], None],
    refuse: Callable[[Receipt, UsageRow], None],
) -> None:
    records = [row.record for row in rows]
    receipts = log.append_columns(
        [record.subscription_item for record in records],
        [record.quantity for record in records],
        [record.timestamp for record in records],
        [record.action for record in records],
        [record.id for record in records],
        received_at=[row.received_at for row in rows],
    )
    rejected, attributed = receipts.rejected, log.attributed
    for position, record in enumerate(records):
        if position not in rejected:
            # A receipt is made when it is looked at, and most logs attribute nothing.
            later = attributed.get(receipts[position].sequence or 0) if attributed else None
            assert record.timestamp != "now", "a row of a file has a moment"
            note(record.subscription_item, record.timestamp if later is None else later)
    for position, receipt in rejected.items():
        refuse(receipt, rows[position])


def placed(error: MeteringError, row: UsageRow | EventRow, meant: str = "") -> UsageRejectedError:
    """Return the refusal of a row with its place, and with what was probably meant."""
    details = {**error.details, "path": row.path, "line": row.line, "source": row.source}
    message = f"{place_of(row.path, row.line)}: {error.message}{meant}"
    return UsageRejectedError(error.code, message, param=error.param, details=details)


class Spellings:
    """Ids by how they read, to find the one that was meant by one with blanks around it or in other
    capitals.
    """

    def __init__(self, known: Iterable[str]) -> None:
        self._known = {_folded(one): one for one in known}

    def near(self, received: object) -> str:
        """Return the id that was meant, as an ending of a sentence; empty where none suggests
        itself.
        """
        meant = self._known.get(_folded(received)) if isinstance(received, str) else None
        return "" if meant in {None, received} else f" (did you mean {meant!r}?)"


def _folded(text: str) -> str:
    """Return a text without what cannot be seen, in one sort of letters."""
    return "".join(one for one in text if one.isprintable() and not one.isspace()).casefold()


def append_events(
    log: MeterLog,
    rows: Iterable[EventRow | CatalogError],
    *,
    on_refusal: Callable[[MeteringError], None] = _raise,
    on_unbilled: Callable[[MeteringError], None] | None = None,
) -> dict[str, tuple[BillingPeriod, ...]]:
    """Append rows in their order, each at its own moment of receipt: how history is imported.

    An event lies in the billing period of its timestamp, however much later it was received. Events
    that no item bills, such as those from before their customer's subscription, are kept in the log
    and have no period. A meter that is inactive takes what was received before it was deactivated.

    Args:
        log: the log; it must know the meters and the subscriptions.
        rows: what :func:`read_events` yields.
        on_refusal: as in :func:`append_usage`.
        on_unbilled: called with ``usage_unbilled`` for each event that was accepted and that no
            item bills; it says why not.

    Returns:
        The billing periods that have events among these rows, in order, by subscription.
    """
    billed = _Billed(require_kind(MeterLog, log, "log"))
    inactive = {meter.event_name: meter for meter in log.meters if not meter.is_active}
    for row in _each_row(rows, EventRow):
        if not isinstance(row, EventRow):
            on_refusal(row)
            continue
        receipt = _append_event(log, row, inactive.get(row.event.event_name))
        if receipt.outcome is Outcome.REJECTED:
            is_unknown = receipt.code is ErrorCode.METER_UNKNOWN
            on_refusal(
                placed(
                    receipt.error(),
                    row,
                    billed.event_names.near(row.event.event_name) if is_unknown else "",
                )
            )
        elif not billed.note(row.event) and on_unbilled is not None:
            on_unbilled(placed(billed.unbilled(row.event), row))
    return billed.periods.by_subscription()


def _append_event(log: MeterLog, row: EventRow, inactive: Meter | None) -> Receipt:
    """Append an event as its meter was when it was received."""
    since = None if inactive is None else inactive.deactivated_at
    if inactive is None or since is None or instant(row.received_at, "received_at") >= since:
        (receipt,) = log.append([row.event], now=row.received_at)
        return receipt
    log.update_meter(inactive.reactivate())
    (receipt,) = log.append([row.event], now=row.received_at)
    log.update_meter(inactive)
    return receipt


class _Billed:
    """Which subscriptions bill the events of a customer, and in which periods."""

    def __init__(self, log: MeterLog) -> None:
        self.periods = _PeriodsWithUsage()
        self.event_names = Spellings(meter.event_name for meter in log.meters)
        self._customers = Spellings(
            one.customer for one in log.subscriptions if one.customer is not None
        )
        self._known = {one.customer for one in log.subscriptions}
        self._keys = {meter.event_name: meter.customer_payload_key for meter in log.meters}
        self._by_customer: dict[tuple[str, str | None], list[Subscription]] = {}
        for subscription in log.subscriptions:
            for meter_id in {
                item.recurring.meter
                for item in subscription.items
                if item.recurring.meter is not None
            }:
                key = log.meter(meter_id).event_name, subscription.customer
                self._by_customer.setdefault(key, []).append(subscription)

    def note(self, event: MeterEvent) -> bool:
        """Take note of the periods that bill an accepted event; return whether there is one."""
        assert event.timestamp != "now", "a row of a file has a moment"
        owners = self._by_customer.get((event.event_name, self._customer(event)), ())
        noted = [self.periods.note(subscription, event.timestamp) for subscription in owners]
        return any(noted)

    def unbilled(self, event: MeterEvent) -> MeteringError:
        """Say why no item bills an event."""
        customer = self._customer(event)
        if customer not in self._known:
            reason = "expected a customer of one of the subscriptions"
            meant = self._customers.near(customer)
        elif (event.event_name, customer) not in self._by_customer:
            reason, meant = (
                f"expected an item on the meter of {event.event_name!r} for its customer",
                "",
            )
        else:
            reason, meant = "expected a moment in the life of a subscription of its customer", ""
        message = (
            f"No item bills this event: {reason}, received the customer {describe(customer)}{meant}"
        )
        return MeteringError(
            ErrorCode.USAGE_UNBILLED, message, param="payload", details={"customer": customer}
        )

    def _customer(self, event: MeterEvent) -> str:
        return event.payload[self._keys[event.event_name]]


class _PeriodsWithUsage:
    """Which billing periods accepted usage lies in; most lies in the period of what came before."""

    def __init__(self) -> None:
        self._latest: dict[str, BillingPeriod] = {}
        self._found: dict[str, dict[int, BillingPeriod]] = {}

    def note(self, owner: Subscription, timestamp: int) -> bool:
        """Take note of the period of accepted usage; return whether there is one, within the
        subscription's life.
        """
        latest = self._latest.get(owner.id)
        if latest is None or not latest.start_seconds <= timestamp < latest.end_seconds:
            period = owner.period_at(timestamp)
            if period is None:
                return False
            self._latest[owner.id] = period
            self._found.setdefault(owner.id, {})[period.start_seconds] = period
        return True

    def by_subscription(self) -> dict[str, tuple[BillingPeriod, ...]]:
        """Return the periods found so far, in order."""
        return {
            key: tuple(found[start] for start in sorted(found))
            for key, found in self._found.items()
        }

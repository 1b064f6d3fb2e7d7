"""CloudEvents 1.0 in, meter events out: the JSON event format in structured mode, and the JSON
batch format.

=========================
===================================================================================== CloudEvents
meter event =========================
===================================================================================== ``type``
``event_name`` ``source`` and ``id``     ``identifier``; see :func:`cloudevent_identifier` ``time``
``timestamp``; ``"now"`` where it is absent ``data``                  ``payload``, its numbers as
exact decimal text ``subject``               the customer in the payload, under the key that the
meter names a named extension         a key of the payload =========================
=====================================================================================

The rules are those of the specification, version 1.0.2 (https://github.com/cloudevents/spec,
``spec.md`` and ``formats/json-format.md``). No number passes through a float on the way: 0.1 stays
0.1.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal, DecimalException
from typing import Any, Final, NoReturn

from metering_core.errors import ErrorCode, InvalidValueError, describe
from metering_core.exact import DIGITS_MAX, exact_decimal, plain
from metering_core.meter_events import MeterEvent
from metering_core.meters import EVENT_NAME_MAX, Meter, short_name
from metering_core.names import each_of, require_iterable, required, text_of
from metering_core.periods import instant, parse_instant

CUSTOMER_PAYLOAD_KEY: Final = "stripe_customer_id"
"""Where the customer goes unless a meter says otherwise (Stripe's default)."""

_RESERVED: Final = frozenset(
    {
        "data",
        "data_base64",
        "datacontenttype",
        "dataschema",
        "id",
        "source",
        "specversion",
        "subject",
        "time",
        "type",
    }
)
_EXTENSION: Final = re.compile(r"[a-z0-9]+")
_NO_SPACE: Final = re.compile(r"\S+")
_JSON_TYPE: Final = re.compile(r"[^/\s;]+/([^/\s;]+\+)?json\s*(;.*)?", re.IGNORECASE)
_RFC_3339: Final = re.compile(
    r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)",
    re.ASCII,
)


def read_cloudevents(
    content: str | bytes, *, meters: Iterable[Meter] = (), extensions: Iterable[str] = ()
) -> list[MeterEvent]:
    """Read one CloudEvent (a JSON object), or a batch of them (a JSON array, which may be empty),
    in their order.

    The meters say under which payload key each event's customer goes: that of the meter whose
    ``event_name`` is the event's ``type``, else ``stripe_customer_id``. Whether a meter takes the
    events is for the log to judge, one receipt an event.

    Args:
        content: the body as it came; bytes are UTF-8, as JSON is.
        meters: whose customer payload keys to use.
        extensions: extension attributes that become payload keys; others are read past.

    >>> (event,) = read_cloudevents(
    ...     '[{"specversion": "1.0", "type": "tokens", "source": "/api", "id": "7",'
    ...     ' "subject": "cus_1",'
    ...     ' "time": "2024-06-01T12:00:00Z", "data": {"value": 0.10}}]'
    ... )
    >>> event.identifier, dict(event.payload)
    ('/api 7', {'value': '0.1', 'stripe_customer_id': 'cus_1'})

    Raises:
        InvalidValueError: at the first event that is malformed; ``param`` names the attribute
            (``data[value]``), and in a batch its place too (``events[1][data][value]``). Of a
            batch, either all events are returned or none.
    """
    keys = {
        meter.event_name: meter.customer_payload_key for meter in each_of(Meter, meters, "meters")
    }
    names = _extension_names(extensions)
    document = _parsed(content, "content")
    if not isinstance(document, list):
        return [_meter_event(document, keys, names)]
    events = []
    for at, data in enumerate(document):
        try:
            events.append(_meter_event(data, keys, names))
        except InvalidValueError as error:
            raise _located(error, at) from None
    return events


def meter_event_from_cloudevent(
    data: Mapping[str, Any],
    *,
    customer_payload_key: str = CUSTOMER_PAYLOAD_KEY,
    extensions: Iterable[str] = (),
) -> MeterEvent:
    """Return the meter event that a CloudEvent says, given as a mapping of its attributes and its
    ``data``.

    An attribute that is None counts as absent, as the JSON format has it. ``subject`` is optional:
    without one the customer is what ``data`` holds under ``customer_payload_key``, if anything;
    where both say one, they must say the same.

    Of ``data``, strings stay as they are; numbers become exact decimal text in one spelling (1.50
    becomes ``1.5``, 1e3 becomes ``1000``), with at most 100 digits on either side of the point;
    booleans become ``true`` and ``false``; null is left out; an object or an array inside is
    refused, since a payload is flat. Absent or null data makes a payload without entries of its
    own. ``data_base64`` is decoded, and must hold JSON like ``data``.

    Args:
        data: the event. Numbers are int, Decimal, or a Fraction that a decimal can write: a float
            is refused, because it has already lost what it meant. JSON is read without floats by
            :func:`read_cloudevents`.
        customer_payload_key: where the customer goes, as the meter's ``customer_mapping`` names it.
        extensions: extension attributes that become payload keys; others are read past.

    >>> event = meter_event_from_cloudevent(
    ...     {"specversion": "1.0", "type": "tokens", "source": "/api", "id": "7",
    ...      "subject": "cus_1", "region": "eu", "data": {"value": 25, "cached": True}},
    ...     extensions=["region"],
    ... )
    >>> event.timestamp, dict(event.payload)
    ('now', {'value': '25', 'cached': 'true', 'stripe_customer_id': 'cus_1', 'region': 'eu'})

    Raises:
        InvalidValueError: ``param`` names the attribute; ``parameters_exclusive`` where two of
            ``data``, ``subject`` and an extension give different values to one payload key;
            ``parameter_unknown`` for a name that no attribute may have (anything but a-z and 0-9),
            usually a typing slip.
    """
    names = _extension_names(extensions)
    key = short_name(customer_payload_key, "customer_payload_key")
    return _meter_event(data, {}, names, key)


def cloudevent_identifier(source: str, id: str) -> str:
    """Return the identifier of the meter event that comes of a CloudEvent, by which it can be
    canceled.

    It is ``source`` and ``id`` with a space between them. A source is a URI reference and holds no
    space, so two different pairs never give one identifier. A pair that is longer than an
    identifier's 100 characters gives ``sha256:`` and the 64 hexadecimal digits of the SHA-256 of
    that text in UTF-8; it holds no space, so it is never that of a short pair.

    >>> cloudevent_identifier("/api", "7")
    '/api 7'
    >>> cloudevent_identifier("https://example.com/" + "a" * 100, "7").partition(":")[0]
    'sha256'

    Raises:
        InvalidValueError: where ``source`` is no string without white space, or ``id`` is no
            string, or either is empty.
    """
    if not isinstance(source, str) or not _NO_SPACE.fullmatch(source):
        expected = "a URI reference: a string without white space"
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_STRING, "source", expected, source
        )
    joined = f"{source} {_filled(id, 'id')}"
    if len(joined) <= EVENT_NAME_MAX:
        return joined
    # JSON may hold half of a surrogate pair, which UTF-8 cannot write.
    return f"sha256:{hashlib.sha256(joined.encode('utf-8', 'surrogatepass')).hexdigest()}"


def _meter_event(
    data: object,
    customer_keys: Mapping[str, str],
    extensions: tuple[str, ...],
    default: str = CUSTOMER_PAYLOAD_KEY,
) -> MeterEvent:
    event = _envelope(data)
    event_name = short_name(required(event, "type"), "type")
    payload = _payload(event)
    if event.get("subject") is not None:
        _put(
            payload,
            customer_keys.get(event_name, default),
            _filled(event["subject"], "subject"),
            "subject",
        )
    for extension in extensions:
        if event.get(extension) is not None:
            _put(payload, extension, _text(event[extension], extension), extension)
    identifier = cloudevent_identifier(required(event, "source"), required(event, "id"))
    return MeterEvent(
        event_name, payload, identifier=identifier, timestamp=_time(event.get("time"))
    )


def _envelope(data: object) -> Mapping[str, Any]:
    """Return the event if it is an object of the one version that is known, with names that
    attributes may have.
    """
    if not isinstance(data, Mapping):
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_OBJECT, "event", "a CloudEvent, as an object", data
        )
    if text_of(required(data, "specversion")) != "1.0":
        code = ErrorCode.PARAMETER_INVALID_CHOICE
        raise InvalidValueError.expecting(code, "specversion", "'1.0'", data["specversion"])
    for key in data:
        attribute = text_of(key) or describe(key)
        if attribute not in _RESERVED and not _EXTENSION.fullmatch(attribute):
            raise InvalidValueError(
                ErrorCode.PARAMETER_UNKNOWN,
                f"Received unknown parameter: {attribute}",
                param=attribute,
            )
    return data


def _payload(event: Mapping[str, Any]) -> dict[str, str]:
    """Return the entries of ``data``, or of ``data_base64``, as strings by string."""
    param, entries = "data", event.get("data")
    if event.get("data_base64") is not None:
        if entries is not None:
            message = "data_base64: expected it or data, received both"
            raise InvalidValueError(ErrorCode.PARAMETERS_EXCLUSIVE, message, param="data_base64")
        param, entries = "data_base64", _parsed(_decoded(event["data_base64"]), "data_base64")
    if entries is None:
        return {}
    _require_json(event.get("datacontenttype"))
    if not isinstance(entries, Mapping):
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_OBJECT, param, "an object", entries
        )
    return {
        key: _text(value, f"{param}[{text_of(key) or describe(key)}]")
        for key, value in entries.items()
        if value is not None
    }


def _require_json(content_type: object) -> None:
    """Refuse data that is declared as something else than JSON; without a declaration it is JSON,
    as the format has it.
    """
    if content_type is None or (
        isinstance(content_type, str) and _JSON_TYPE.fullmatch(content_type)
    ):
        return
    expected = "a media type of JSON, such as 'application/json'"
    raise InvalidValueError.expecting(
        ErrorCode.PARAMETER_INVALID_CHOICE, "datacontenttype", expected, content_type
    )


def _put(payload: dict[str, str], key: str, text: str, param: str) -> None:
    """Add an entry; one that is there already must be the same, so that none is lost without a
    word.
    """
    if payload.setdefault(key, text) != text:
        expected = f"what data has as {key!r} already, {payload[key]!r}"
        raise InvalidValueError.expecting(ErrorCode.PARAMETERS_EXCLUSIVE, param, expected, text)


def _text(value: object, param: str) -> str:
    """Write a value as a payload has it: as a string."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping | list | tuple):
        expected = "a string, a number or a boolean, since a payload is flat"
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_STRING, param, expected, value
        )
    return plain(exact_decimal(value, param, places=DIGITS_MAX, minimum=None))


def _time(value: object) -> datetime | str:
    """Return the moment of an RFC 3339 text, or of an aware datetime; what is finer than a
    microsecond is cut.
    """
    if value is None:
        return "now"
    if isinstance(value, datetime):
        return instant(value, "time")
    if not isinstance(value, str) or not _RFC_3339.fullmatch(value) or value[17:19] == "60":
        expected = (
            "a moment as RFC 3339 writes it and without a leap second, such as "
            "'2024-01-31T00:00:00Z'"
        )
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_INSTANT, "time", expected, value
        )
    return parse_instant(value.upper(), "time")


def _filled(value: object, param: str) -> str:
    if not isinstance(value, str) or not value:
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_STRING, param, "a string that is not empty", value
        )
    return value


def _extension_names(names: Iterable[str]) -> tuple[str, ...]:
    if isinstance(names, str):
        expected = "a list of names"
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_OBJECT, "extensions", expected, names
        )
    given = []
    for at, extension in enumerate(require_iterable(names, "extensions")):
        if (
            not isinstance(extension, str)
            or not _EXTENSION.fullmatch(extension)
            or extension in _RESERVED
        ):
            expected = "the name of an extension attribute, of a-z and 0-9"
            raise InvalidValueError.expecting(
                ErrorCode.PARAMETER_INVALID_STRING, f"extensions[{at}]", expected, extension
            )
        given.append(extension)
    return tuple(given)


# JSON without floats ------------------------------------------------------------------------------


def _parsed(content: str | bytes, param: str) -> Any:
    try:
        text = content.decode("utf-8-sig") if isinstance(content, bytes) else content
        return json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=_refuse_constant,
            parse_float=_number,
            parse_int=_number,
        )
    except (TypeError, ValueError, RecursionError) as error:
        message = f"{param}: expected JSON, received what is none: {error}"
        raise InvalidValueError(ErrorCode.PARAMETER_INVALID_OBJECT, message, param=param) from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key occurs twice in one object")
    return found


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number of JSON")


def _number(text: str) -> Decimal:
    try:
        return Decimal(text)
    except (
        DecimalException
    ):  # Beyond every bound: refused as no number where it is used, and there by name.
        return Decimal("NaN")


def _decoded(text: object) -> bytes:
    try:
        return base64.b64decode(text, validate=True)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_STRING, "data_base64", "Base64", text
        ) from None


def _located(error: InvalidValueError, at: int) -> InvalidValueError:
    """Say of which event of a batch an error speaks."""
    place = f"events[{at}]"
    param = str(error.param)
    if param != "event":
        head, bracket, rest = param.partition("[")
        place += f"[{head}]{bracket}{rest}"
    return InvalidValueError(
        error.code, f"events[{at}]: {error.message}", param=place, details=error.details
    )

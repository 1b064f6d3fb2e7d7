r"""Worked cases are data: JSON files of cases that ``metering-core check`` runs against the engine.

Keep them beside your prices, so that a change of a price, or of this library, that would change a
bill is seen before it is sent. Nothing here needs Hypothesis or pytest.

A file is ``{"cases": [CASE, …]}``. Every case has an ``id`` (1 to 255 characters, unique in the
file), a ``kind``, what the kind needs, and ``expected``. Every key of ``expected`` is optional and
what is absent is not checked; a list is compared by length and position. An unknown key, anywhere,
makes the file unreadable, so that a typing slip cannot pass; in an object of Stripe's that says its
kind (``"object": "price"``) only one that is nearly a known one does.

Values
    *number*: an integer, a decimal string, or a ratio such as ``"1/3"`` where no decimal can write
    it. *amount*: an integer of minor units. *exact*: minor units before rounding, a number.
    *quantity*: a number of at least 0; of a usage record an integer; where it is expected, of at
    most 12 decimal places, and a ratio is cut to them, as a line shows it. *instant*: Unix seconds,
    or ISO 8601 with an offset (``"2024-01-31T00:00:00Z"``). JSON floats are refused: a number that
    is not whole is written as a string. *price*: Stripe's Price (or Plan) shape; its ``id`` is
    ``"price"`` unless given; from Python also the id of one of the ``prices`` passed to
    :func:`run_cases`. *subscription*: Stripe's Subscription shape, with such prices in its items
    and ``timezone`` beside Stripe's fields. *period*: ``{"start": instant, "end": instant}``, end
    excluded.

``rating``: what a quantity costs.
    ``price``, ``quantity``. Expected: ``total`` (amount: the sum of the settled lines), ``exact``
    (the sum before rounding) and ``lines``, each with any of ``kind`` (``unit``, ``flat``,
    ``package``), ``tier``, ``quantity``, ``packages``, ``unit_amount`` (exact), ``exact``,
    ``amount``, ``description``.

``aggregation``: what usage records come to.
    ``aggregate_usage``, ``period``, ``records``, each with ``timestamp``, ``quantity`` and
    optionally ``action`` and ``id``. The records arrive in the order given, each at its own time,
    and may lie outside the period. Expected: ``quantity``.

``period``: where billing periods begin and end.
    ``billing_cycle_anchor``, ``interval``, optionally ``interval_count``, ``timezone`` (wall-clock
    boundaries there) and ``at`` (an instant). Expected: ``boundaries``, a run of consecutive
    boundaries that may begin anywhere, or the ``start`` and ``end`` of the period that holds
    ``at``.

``append``: what the sender of records hears.
    ``subscription``, ``now``, ``records`` (``subscription_item``, ``quantity``, optionally
    ``timestamp``, an instant or ``"now"``, which is the default, ``action`` and ``id``) and
    optionally ``policy`` (``future_tolerance`` and ``late_grace`` in seconds,
    ``late_attribution``). Expected: ``receipts``, each with any of ``outcome``, ``sequence``,
    ``code``, ``param``, ``message`` (which the receipt's message must contain: Stripe's words stand
    before our own).

``invoice``: what a subscription owes for a period, finalized at the period's end.
    ``subscription``, ``period`` (one of the subscription's billing periods) and ``records`` as in
    ``append``, but with a ``timestamp`` each; they count as received when they happened, or at
    their ``received_at``. Expected: ``total``, ``subtotal``, ``currency`` and ``lines``, with the
    keys of a rating line and ``id``, ``subscription_item``, ``price`` (its id), ``period``,
    ``total_usage``, ``aggregate_usage``, ``rounding``, ``proration`` (a number, such as ``"1/2"``;
    null for a whole period).

``meter``: what the events of a meter come to.
    ``meter`` (Stripe's Meter shape; its ``id`` is the event name unless given) and ``events``, each
    with ``event_name``, ``payload`` (strings by string), ``timestamp`` and optionally
    ``identifier``; ``object``, ``created`` and ``livemode`` are read past. The events arrive in the
    order given, each at its own time, and may lie outside the range; a duplicate counts once. All
    else is optional: ``customer`` (the only one that the events have), ``start_time`` and
    ``end_time`` (excluded; the whole windows, or minutes, that hold the customer's events, or where
    none lies there, the other bound), ``value_grouping_window`` (``hour``, ``day``, ``week``,
    ``month``), ``timezone`` (the calendar of the windows; UTC) and ``dimension_filters`` (lists of
    values by key). A customer without events comes to 0, and has no summaries. Expected: ``value``
    (of the whole range, which ``value_grouping_window`` does not change) and ``summaries``, each
    with any of ``start_time``, ``end_time`` and ``value``: the buckets that are not empty, in the
    order of time. An empty one has no event that counts and no level from before. Values are
    *numbers*, of either sign.

A record that is refused in an ``aggregation`` or ``invoice`` case, or an event in a ``meter`` case,
is a difference.

>>> price = {"currency": "usd", "unit_amount_decimal": "0.05"}
>>> expected = {"total": 1, "exact": "1.5"}
>>> case = {"id": "E26", "kind": "rating", "price": price, "quantity": 30, "expected": expected}
>>> for result in run_cases({"cases": [case]}):
...     print(result.id, *result.differences, sep="\n")
E26
total: expected 1, received 2
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from fractions import Fraction
from itertools import islice, zip_longest
from operator import attrgetter
from os import PathLike
from typing import Any, Final

import attrs

from metering_core import (
    AcceptancePolicy,
    Action,
    AggregateUsage,
    BillingCycle,
    BillingPeriod,
    ErrorCode,
    Instant,
    InvalidValueError,
    InvoicingError,
    Meter,
    MeterEvent,
    MeterEventSummary,
    MeteringError,
    MeterLog,
    Outcome,
    Price,
    Receipt,
    Recurring,
    Subscription,
    SubscriptionItem,
    UsageLog,
    UsageRecord,
    event_summaries,
    finalize_invoice,
    rate,
    summarize,
)
from metering_core.acceptance import LateAttribution
from metering_core.currencies import currency
from metering_core.errors import CatalogError
from metering_core.exact import (
    QUANTITY_DIGITS_MAX,
    Number,
    exact_decimal,
    exact_integer,
    exact_quantity,
    plain,
    whole_if_possible,
)
from metering_core.feeds.catalog import SUBSCRIPTION_TIMES
from metering_core.feeds.instants import instant_of_file
from metering_core.feeds.json import read_json
from metering_core.invoicing import describe_charge, line_fields, number_field
from metering_core.meter_summaries import ValueGroupingWindow
from metering_core.meters import short_name
from metering_core.names import choice, known_keys, name, path_of, required, text_of
from metering_core.periods import SECONDS_MIN, Interval, instant, iso_8601, unix_seconds
from metering_core.pricing import ChargeKind
from metering_core.rating import SettledLine


@attrs.frozen
class CaseResult:
    """What came of one case.

    Attributes:
        id: the case's id.
        kind: one of :data:`CASE_KINDS`.
        differences: sentences that say what, expected and received; empty where the engine agrees
            with the case.
    """

    id: str
    kind: str
    differences: tuple[str, ...]


def read_cases(path: str | PathLike[str]) -> dict[str, Any]:
    """Read a file of cases; what is in them is checked by :func:`run_cases`.

    Raises:
        CatalogError: ``file_unreadable`` where the file is absent, is not JSON, says a key twice or
            is no JSON object. ``details`` has the ``path`` and the ``line``, where there is one.
    """
    place = path_of(path, "path")
    data = read_json(place, "path")
    if not isinstance(data, dict):
        reason = (
            f"expected a JSON object with a list of cases, received a JSON {type(data).__name__}"
        )
        raise CatalogError.of_file("path", place, reason)
    return data


def run_cases(
    data: Mapping[str, Any], kind: str | None = None, *, prices: Mapping[str, Price] | None = None
) -> list[CaseResult]:
    """Run all cases, in their order, and return what came of those of one kind, or of all.

    Args:
        data: ``{"cases": […]}``, as :func:`read_cases` returns it.
        kind: one of :data:`CASE_KINDS`, or None for all.
        prices: by id, for cases that name a price by its id instead of writing it down; so prices
            with a pricing model of the user's own are checked like all others.

    Raises:
        CatalogError: ``file_unreadable`` for a malformed case, of whatever kind: an unknown key or
            kind, a missing or repeated id, a float, a value that cannot be built. ``details`` has
            the ``case`` (its id, or its place without one) and the ``code``, ``param`` says where
            in the case.
        InvalidValueError: ``parameter_invalid_choice`` where ``kind`` is none.
    """
    if kind is not None:
        _kind(kind, "kind")
    results = []
    seen: set[str] = set()
    for position, case in enumerate(_cases(data)):
        label = _label(case, position)
        try:
            if label in seen:
                raise InvalidValueError.expecting(
                    ErrorCode.PARAMETER_INVALID_OBJECT, "id", "an id that no other case has", label
                )
            results.append(_run(_with_prices(case, prices or {})))
        except InvalidValueError as error:
            raise _unreadable(label, error) from error
        seen.add(label)
    return [result for result in results if kind in {None, result.kind}]


def _with_prices(case: object, prices: Mapping[str, Price]) -> object:
    """Put the prices that a case, or an item of its subscription, names by id in their places."""
    if not isinstance(case, Mapping):
        return case
    filled = {**case}
    if isinstance(case.get("price"), str):
        filled["price"] = prices.get(case["price"], case["price"])
    subscription = case.get("subscription")
    if isinstance(subscription, Mapping) and isinstance(subscription.get("items"), list):
        filled["subscription"] = {
            **subscription,
            "items": [_with_prices(item, prices) for item in subscription["items"]],
        }
    return filled


def _cases(data: Mapping[str, Any]) -> list[Any]:
    try:
        cases: list[Any] = _list(required(known_keys(data, {"cases"}), "cases"), "cases")
    except InvalidValueError as error:
        raise _unreadable(None, error) from error
    return cases


def _label(case: object, position: int) -> str:
    """Return what a complaint calls the case: its id, or its place where it has none."""
    given = case.get("id") if isinstance(case, Mapping) else None
    return given if isinstance(given, str) else f"cases[{position}]"


def _unreadable(label: str | None, error: InvalidValueError) -> CatalogError:
    message = error.message if label is None else f"case {label!r}: {error.message}"
    details = {"case": label, "code": error.code, **error.details}
    return CatalogError(ErrorCode.FILE_UNREADABLE, message, param=error.param, details=details)


def _run(data: object) -> CaseResult:
    """Read one case and compare what it expects with what the engine gives."""
    _refuse_unfit(data, "")
    if not isinstance(data, Mapping):
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_OBJECT, "case", "an object", data
        )
    case_id = name(required(data, "id"), "id")
    kind = _kind(required(data, "kind"), "kind")
    shape = CASE_KINDS[kind]
    case = _object(
        data,
        "",
        {"id": name, "kind": _kind, "expected": _shaped(shape.expected), **shape.keys},
        shape.required,
    )
    try:
        received = shape.receive(case)
    except InvoicingError as refusal:
        return CaseResult(case_id, kind, (f"expected an answer, received {_refusal(refusal)}",))
    return CaseResult(
        case_id,
        kind,
        (*received.refusals, *_differences(case.get("expected", {}), received.values, "")),
    )


def _refusal(refused: MeteringError | Receipt) -> str:
    return f"{refused.code}: {refused.message}"


# Comparing ----------------------------------------------------------------------------------------


@attrs.frozen
class _Containing:
    """An expected text that stands somewhere in what is received."""

    text: str


_NOTHING: Final = object()
"""Stands where one of two lists has ended."""


def _differences(expected: object, received: object, place: str) -> Iterator[str]:
    """Yield a sentence for each place where what was received is not what was expected."""
    if isinstance(expected, Mapping) and isinstance(received, Mapping):
        for key, value in expected.items():
            yield from _differences(value, received[key], f"{place}[{key}]" if place else key)
    elif isinstance(expected, list) and isinstance(received, list):
        for position, (one, other) in enumerate(
            zip_longest(expected, received, fillvalue=_NOTHING)
        ):
            yield from _differences(one, other, f"{place}[{position}]")
    elif not _agree(expected, received):
        yield f"{place}: expected {_shown(expected)}, received {_shown(received)}"


def _agree(expected: object, received: object) -> bool:
    if isinstance(expected, _Containing):
        return isinstance(received, str) and expected.text in received
    return expected == received


def _shown(value: object) -> str:
    if value is _NOTHING:
        return "nothing"
    prefix = "a text with " if isinstance(value, _Containing) else ""
    return prefix + json.dumps(value, ensure_ascii=False, default=attrgetter("text"))


# Reading: a reader takes a value and its place, and returns it as JSON that can be compared, or as
# what the engine takes

Reader = Callable[[object, str], Any]
"""Reads one value; its second argument is the place that a complaint names."""


DEPTH_MAX: Final = 100
"""How deep the objects and lists of a case may lie in each other."""


def _refuse_unfit(value: object, param: str, depth: int = 0) -> None:
    """Refuse floats, keys that are no text, and nests that nobody could walk."""
    if depth > DEPTH_MAX:
        expected = f"at most {DEPTH_MAX} objects and lists within each other"
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_OBJECT, "case", expected, "more"
        )
    if isinstance(value, float):
        expected = 'an integer, or a decimal written as a string such as "0.5"'
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_DECIMAL, param, expected, value
        )
    if isinstance(value, Mapping):
        for key, inner in value.items():
            named = name(key, param or "case")
            _refuse_unfit(inner, f"{param}[{named}]" if param else named, depth + 1)
    elif isinstance(value, list):
        for position, inner in enumerate(value):
            _refuse_unfit(inner, f"{param}[{position}]", depth + 1)


def _object(
    value: object, param: str, readers: Mapping[str, Reader], needed: Sequence[str] = ()
) -> dict[str, Any]:
    """Read an object whose keys the table knows; a key that is absent stays absent, null is a
    value.
    """
    data = known_keys(value, readers.keys(), param)
    for key in needed:
        required(data, key, param)
    return {
        key: readers[key](inner, f"{param}[{key}]" if param else key) for key, inner in data.items()
    }


def _shaped(readers: Mapping[str, Reader], needed: Sequence[str] = ()) -> Reader:
    return lambda value, param: _object(value, param, readers, needed)


def _list(value: object, param: str) -> list[Any]:
    if not isinstance(value, list):
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_OBJECT, param, "a list", value
        )
    return value


def _each(reader: Reader) -> Reader:
    def read(value: object, param: str) -> list[Any]:
        return [
            reader(one, f"{param}[{position}]") for position, one in enumerate(_list(value, param))
        ]

    return read


def _or_null(reader: Reader) -> Reader:
    return lambda value, param: None if value is None else reader(value, param)


def _kind(value: object, param: str) -> str:
    if not isinstance(value, str) or value not in CASE_KINDS:
        expected = "one of " + ", ".join(map(repr, CASE_KINDS))
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_CHOICE, param, expected, value
        )
    return value


def _integer(value: object, param: str) -> int:
    return exact_integer(value, param, minimum=None)


def _count(value: object, param: str) -> int:
    return exact_integer(value, param)


def _seconds(value: object, param: str) -> timedelta:
    return timedelta(seconds=exact_integer(value, param, maximum=10**9))


_RATIO: Final = re.compile(
    rf"-?[0-9]{{1,{QUANTITY_DIGITS_MAX}}}/0*[1-9][0-9]{{0,{QUANTITY_DIGITS_MAX}}}"
)


def _number(value: object, param: str) -> Number:
    """Read an integer, a decimal written as text, or a ratio of integers."""
    if isinstance(value, str) and _RATIO.fullmatch(value):
        return whole_if_possible(Fraction(value))
    try:
        return whole_if_possible(
            exact_decimal(value, param, places=QUANTITY_DIGITS_MAX, minimum=None)
        )
    except InvalidValueError as error:
        digits = f"with at most {QUANTITY_DIGITS_MAX} digits on either side"
        expected = (
            'an integer, or a decimal or a ratio written as a string such as "0.5" or "1/3", '
            f"{digits}"
        )
        raise InvalidValueError.expecting(error.code, param, expected, value) from error


def _exact(value: object, param: str) -> str:
    """Read a number as text, in its one spelling."""
    return plain(_number(value, param))


def _quantity(value: object, param: str) -> Number:
    return exact_quantity(_number(value, param), param)


def _shown_quantity(value: object, param: str) -> int | str:
    """Read a quantity as lines show it: only what no decimal can write is cut."""
    number = _quantity(value, param)
    return number_field(
        number if isinstance(number, Fraction) else whole_if_possible(exact_decimal(number, param))
    )


def _text(value: object, param: str) -> str:
    if not isinstance(value, str):
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_STRING, param, "a string", value
        )
    return value


def _containing(value: object, param: str) -> _Containing:
    return _Containing(_text(value, param))


def _currency(value: object, param: str) -> str:
    return currency(_text(value, param)).code


def _instant(value: object, param: str) -> datetime:
    return instant(instant_of_file(value, param), param)


def _timestamp(value: object, param: str) -> int:
    return unix_seconds(_instant(value, param))


def _timestamp_or_now(value: object, param: str) -> int | str:
    return "now" if text_of(value) == "now" else _timestamp(value, param)


def _iso(value: object, param: str) -> str:
    """Read an instant as text, because that is how people compare boundaries."""
    return iso_8601(_instant(value, param).replace(microsecond=0))


def _period(value: object, param: str) -> BillingPeriod:
    return BillingPeriod(
        **_object(value, param, {"start": _instant, "end": _instant}, ("start", "end"))
    )


def _policy(value: object, param: str) -> AcceptancePolicy:
    readers = {
        "future_tolerance": _seconds,
        "late_grace": _seconds,
        "late_attribution": _named(LateAttribution),
    }
    return AcceptancePolicy(**_object(value, param, readers))


def _named(kind: type[Any]) -> Reader:
    return lambda value, param: choice(kind, value, param).value


def _mapping(value: object, param: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_OBJECT, param, "an object", value
        )
    return value


def _price(value: object, param: str) -> Price:
    return value if isinstance(value, Price) else Price.from_dict(_with_id(_mapping(value, param)))


def _with_id(price: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": "price", **price}


_LIST_OBJECT_KEYS = frozenset({"object", "data", "has_more", "total_count", "url"})


def _subscription(value: object, param: str) -> Subscription:
    """Read Stripe's shape, with our instants in it and with prices that need no id."""
    data = dict(_mapping(value, param))
    for key in SUBSCRIPTION_TIMES:
        if data.get(key) is not None:
            data[key] = _instant(data[key], f"{param}[{key}]")
    items = data.get("items")
    if isinstance(items, Mapping):
        items = required(
            known_keys(items, _LIST_OBJECT_KEYS, f"{param}[items]"), "data", f"{param}[items]"
        )
    if isinstance(items, list):
        data["items"] = [_with_price_id(item) for item in items]
    return Subscription.from_dict(data)


def _with_price_id(item: object) -> object:
    """Give the item's price an id; what is no object is left to ``Subscription.from_dict`` to
    refuse.
    """
    if not isinstance(item, Mapping):
        return item
    prices = {key: item[key] for key in ("price", "plan") if isinstance(item.get(key), Mapping)}
    return {**item, **{key: _with_id(price) for key, price in prices.items()}}


def _meter(value: object, param: str) -> Meter:
    return Meter.from_dict(_mapping(value, param))


def _texts_by_key(value: object, param: str) -> dict[str, str]:
    return {key: _text(inner, f"{param}[{key}]") for key, inner in _mapping(value, param).items()}


def _lists_by_key(value: object, param: str) -> dict[str, list[str]]:
    return {
        key: _each(_text)(inner, f"{param}[{key}]") for key, inner in _mapping(value, param).items()
    }


def _read_past(value: object, param: str) -> None:
    """Take what Stripe adds to an event and what changes nothing."""


def _event(value: object, param: str) -> MeterEvent:
    data = _object(value, param, _METER_EVENT, ("event_name", "payload", "timestamp"))
    identifier = data.get("identifier")
    return MeterEvent(
        data["event_name"], data["payload"], identifier=identifier, timestamp=data["timestamp"]
    )


# The kinds ----------------------------------------------------------------------------------------


@attrs.frozen
class _Received:
    """What the engine gave: values by the keys of ``expected``, and a sentence for each record it
    refused.
    """

    values: Mapping[str, Any]
    refusals: Sequence[str] = ()


@attrs.frozen
class CaseKind:
    """How the cases of one kind are read and run; one row of :data:`CASE_KINDS`."""

    keys: Mapping[str, Reader]
    required: Sequence[str]
    expected: Mapping[str, Reader]
    receive: Callable[[Mapping[str, Any]], _Received]


_RATING_LINE: dict[str, Reader] = {
    "kind": _named(ChargeKind),
    "tier": _or_null(_count),
    "quantity": _shown_quantity,
    "packages": _or_null(_count),
    "unit_amount": _or_null(_exact),
    "exact": _exact,
    "amount": _integer,
    "description": _text,
}
_INVOICE_LINE: dict[str, Reader] = {
    **_RATING_LINE,
    "id": _text,
    "subscription_item": _text,
    "price": _text,
    "period": _shaped({"start": _timestamp, "end": _timestamp}),
    "total_usage": _shown_quantity,
    "aggregate_usage": _or_null(_named(AggregateUsage)),
    "rounding": _text,
    "proration": _or_null(_exact),
}
_RECEIPT: dict[str, Reader] = {
    "outcome": _named(Outcome),
    "sequence": _or_null(_count),
    "code": _or_null(_named(ErrorCode)),
    "param": _or_null(_text),
    "message": _or_null(_containing),
}
_TIMED_RECORD: dict[str, Reader] = {
    "timestamp": _timestamp,
    "quantity": _count,
    "action": _named(Action),
    "id": _or_null(name),
}
_ITEM_RECORD: dict[str, Reader] = {**_TIMED_RECORD, "subscription_item": name}
_METER_EVENT: dict[str, Reader] = {
    "event_name": short_name,
    "payload": _texts_by_key,
    "timestamp": _instant,
    "identifier": _or_null(short_name),
    **dict.fromkeys(("object", "created", "livemode"), _read_past),
}
_SUMMARY: dict[str, Reader] = {"start_time": _iso, "end_time": _iso, "value": _exact}

_Ask = Callable[[Instant, Instant, str | None], list[MeterEventSummary]]
"""Asks for the summaries of a customer between two moments, by a window or whole."""

_MINUTE: Final = 60
_LONGER_THAN_A_MONTH: Final = 32 * 86_400


def _rated(case: Mapping[str, Any]) -> _Received:
    price: Price = case["price"]
    rated = rate(price, case["quantity"])
    lines = [_rated_line(price, one) for one in rated.settled()]
    total = sum(line["amount"] for line in lines)
    return _Received({"total": total, "exact": plain(rated.amount.minor_units), "lines": lines})


def _rated_line(price: Price, one: SettledLine) -> dict[str, Any]:
    charge = one.charge
    return {
        "kind": charge.kind.value,
        "tier": charge.tier,
        "quantity": number_field(charge.quantity),
        "packages": charge.packages,
        "unit_amount": None if charge.unit_amount is None else plain(charge.unit_amount),
        "exact": plain(one.exact),
        "amount": one.amount,
        "description": describe_charge(price, charge),
    }


def _aggregated(case: Mapping[str, Any]) -> _Received:
    """Append to a log of one made-up item, whose own billing periods do not matter: the case says
    the period.
    """
    recurring = Recurring(aggregate_usage=case["aggregate_usage"])
    item = SubscriptionItem(
        "item", Price.per_unit("price", currency="usd", unit_amount=1, recurring=recurring)
    )
    log = UsageLog(
        [Subscription("subscription", [item], case["period"].start, start_date=SECONDS_MIN)]
    )
    refusals = _appended(
        log, [{"subscription_item": item.id, **record} for record in case["records"]]
    )
    return _Received(
        {"quantity": number_field(summarize(item, log, case["period"]).total_usage)}, refusals
    )


def _appended(log: UsageLog, records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Append records as having been received when they happened, or when they say; return what was
    refused, in words.
    """
    receipts = log.append_columns(
        [record["subscription_item"] for record in records],
        [record["quantity"] for record in records],
        [record["timestamp"] for record in records],
        [record.get("action", "increment") for record in records],
        [record.get("id") for record in records],
        received_at=[record.get("received_at", record["timestamp"]) for record in records],
    )
    return [
        f"records[{position}]: expected a record that is accepted, received {_refusal(receipt)}"
        for position, receipt in receipts.rejected.items()
    ]


def _bounded(case: Mapping[str, Any]) -> _Received:
    timezone, count = case.get("timezone", "UTC"), case.get("interval_count", 1)
    cycle = BillingCycle(case["billing_cycle_anchor"], case["interval"], count, timezone)
    expected = case["expected"]
    values: dict[str, Any] = {}
    if "boundaries" in expected:
        periods = cycle.periods_from(_instant(expected["boundaries"][0], "boundaries[0]"))
        values["boundaries"] = [
            _iso(period.start, "start") for period in islice(periods, len(expected["boundaries"]))
        ]
    if expected.keys() & {"start", "end"}:
        period = cycle.period_at(required(case, "at"))
        values |= {"start": _iso(period.start, "start"), "end": _iso(period.end, "end")}
    return _Received(values)


def _boundaries(value: object, param: str) -> list[str]:
    read: list[str] = _each(_iso)(value, param)
    if not read:
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_OBJECT, param, "at least one boundary", value
        )
    return read


def _judged(case: Mapping[str, Any]) -> _Received:
    log = UsageLog([case["subscription"]], policy=case.get("policy"))
    receipts = log.append([UsageRecord(**record) for record in case["records"]], now=case["now"])
    return _Received(
        {"receipts": [{key: getattr(receipt, key) for key in _RECEIPT} for receipt in receipts]}
    )


def _invoiced(case: Mapping[str, Any]) -> _Received:
    subscription, period = case["subscription"], case["period"]
    log = UsageLog([subscription])
    refusals = _appended(log, case["records"])
    invoice = finalize_invoice(subscription, log, period, now=period.end)
    lines = [line_fields(line) for line in invoice.lines]
    return _Received({**invoice.to_dict(), "lines": lines}, refusals)


def _metered(case: Mapping[str, Any]) -> _Received:
    meter, events = case["meter"], case["events"]
    log = MeterLog([meter])
    refusals = _received_events(log, events)
    customer, zone, filters = (
        _customer(case),
        case.get("timezone") or "UTC",
        case.get("dimension_filters"),
    )

    def ask(start: Instant, end: Instant, window: str | None) -> list[MeterEventSummary]:
        return event_summaries(
            log,
            meter.id,
            customer,
            start,
            end,
            value_grouping_window=window,
            timezone=zone,
            dimension_filters=filters,
        )

    happened = [
        unix_seconds(one.instant)
        for one in events
        if one.payload.get(meter.customer_payload_key) == customer
    ]
    start, end = _range(case, ask, happened)
    (whole,) = ask(start, end, None)
    buckets = ask(start, end, case.get("value_grouping_window"))
    summaries = [_summarized(one) for one in buckets if not one.is_empty]
    return _Received({"value": plain(whole.aggregated_value), "summaries": summaries}, refusals)


def _received_events(log: MeterLog, events: Sequence[MeterEvent]) -> list[str]:
    """Append events as having been received when they happened, which no policy calls late; return
    refusals, in words.
    """
    receipts = [receipt for one in events for receipt in log.append([one], now=one.instant)]
    return [
        f"events[{position}]: expected an event that is accepted, received {_refusal(receipt)}"
        for position, receipt in enumerate(receipts)
        if receipt.outcome is Outcome.REJECTED
    ]


def _customer(case: Mapping[str, Any]) -> str:
    """Return the customer, who need not be named where the events have no other."""
    key = case["meter"].customer_payload_key
    customers = {one.payload[key] for one in case["events"] if key in one.payload}
    named: str = (
        customers.pop()
        if case.get("customer") is None and len(customers) == 1
        else required(case, "customer")
    )
    return named


def _range(case: Mapping[str, Any], ask: _Ask, happened: Sequence[int]) -> tuple[Instant, Instant]:
    """Return the bounds; one that is absent is that of the whole window, or minute, of what lies
    outermost.

    That is an event of the customer, or where none lies on its side, the other bound; without
    either, any range is as empty.
    """
    start, end = case.get("start_time"), case.get("end_time")
    first = [] if start is None else [unix_seconds(start)]
    last = [] if end is None else [unix_seconds(end) - 1]
    window, known = case.get("value_grouping_window"), [*happened, *first, *last] or [0]
    return (
        _window_at(min(known), window, ask)[0] if start is None else start,
        _window_at(max(known), window, ask)[1] if end is None else end,
    )


def _window_at(at: int, window: str | None, ask: _Ask) -> tuple[Instant, Instant]:
    """Return the whole window that holds a second."""
    if window is None:
        minute = at - at % _MINUTE
        return minute, minute + _MINUTE
    around = ask(at - _LONGER_THAN_A_MONTH, at + _LONGER_THAN_A_MONTH, window)
    return next((one.start_time, one.end_time) for one in around if unix_seconds(one.end_time) > at)


def _summarized(summary: MeterEventSummary) -> dict[str, str]:
    return {
        "start_time": _iso(summary.start_time, "start_time"),
        "end_time": _iso(summary.end_time, "end_time"),
        "value": plain(summary.aggregated_value),
    }


CASE_KINDS: dict[str, CaseKind] = {
    "rating": CaseKind(
        {"price": _price, "quantity": _quantity},
        ("price", "quantity", "expected"),
        {"total": _integer, "exact": _exact, "lines": _each(_shaped(_RATING_LINE))},
        _rated,
    ),
    "aggregation": CaseKind(
        {
            "aggregate_usage": _named(AggregateUsage),
            "period": _period,
            "records": _each(_shaped(_TIMED_RECORD, ("timestamp", "quantity"))),
        },
        ("aggregate_usage", "period", "records", "expected"),
        {"quantity": _shown_quantity},
        _aggregated,
    ),
    "period": CaseKind(
        {
            "billing_cycle_anchor": _instant,
            "interval": _named(Interval),
            "interval_count": _count,
            "timezone": _text,
            "at": _instant,
        },
        ("billing_cycle_anchor", "interval", "expected"),
        {"boundaries": _boundaries, "start": _iso, "end": _iso},
        _bounded,
    ),
    "append": CaseKind(
        {
            "subscription": _subscription,
            "now": _instant,
            "records": _each(
                _shaped(
                    {**_ITEM_RECORD, "timestamp": _timestamp_or_now},
                    ("subscription_item", "quantity"),
                ),
            ),
            "policy": _policy,
        },
        ("subscription", "now", "records", "expected"),
        {"receipts": _each(_shaped(_RECEIPT))},
        _judged,
    ),
    "invoice": CaseKind(
        {
            "subscription": _subscription,
            "period": _period,
            "records": _each(
                _shaped(
                    {**_ITEM_RECORD, "received_at": _instant},
                    ("subscription_item", "quantity", "timestamp"),
                ),
            ),
        },
        ("subscription", "period", "records", "expected"),
        {
            "total": _integer,
            "subtotal": _integer,
            "currency": _currency,
            "lines": _each(_shaped(_INVOICE_LINE)),
        },
        _invoiced,
    ),
    "meter": CaseKind(
        {
            "meter": _meter,
            "events": _each(_event),
            "customer": _or_null(name),
            "start_time": _or_null(_instant),
            "end_time": _or_null(_instant),
            "value_grouping_window": _or_null(_named(ValueGroupingWindow)),
            "timezone": _or_null(_text),
            "dimension_filters": _or_null(_lists_by_key),
        },
        ("meter", "events"),
        {"value": _exact, "summaries": _each(_shaped(_SUMMARY))},
        _metered,
    ),
}
"""The kinds of cases, by name."""

"""Catalogs: prices, meters and subscriptions, as JSON in Stripe's shapes.

A catalog is what a biller writes by hand or exports from Stripe. It is read whole or not at all,
in the order prices, meters, subscriptions, for each of these names those before it; what Stripe's
objects have beyond what bills is read past and named in ``ignored``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from os import PathLike, fspath
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NoReturn, TextIO, TypeVar, cast

import attrs

from metering_core.errors import CatalogError, ErrorCode, InvalidValueError, shown
from metering_core.feeds.instants import ANY_TIME, FROM_2000, PlausibleTime, time_of
from metering_core.feeds.json import in_json, last_key, name_of, near, read_json
from metering_core.meter_acceptance import MeterPolicy
from metering_core.meter_log import MeterLog
from metering_core.meters import Meter
from metering_core.names import known_keys, path_of, require_kind, required
from metering_core.prices import Price
from metering_core.stripe_fields import paths_within
from metering_core.subscriptions import Subscription

Part = TypeVar("Part", Price, Meter, Subscription)

SUBSCRIPTION_TIMES: Final = (
    "billing_cycle_anchor",
    "start_date",
    "ended_at",
    "cancel_at",
    "trial_end",
)
"""The instants of Stripe's Subscription."""


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


def meter_log(catalog: Catalog, policy: MeterPolicy | None = None) -> MeterLog:
    """Return an empty log of a catalog's meters and subscriptions, which accepts what the policy
    says.

    Subscriptions may be on a meter that was deactivated after they began: what it measured is
    billed.
    """
    require_kind(Catalog, catalog, "catalog")
    meters = catalog.meters.values()
    active = (meter.reactivate() for meter in meters)
    log = MeterLog(active, catalog.subscriptions, policy=policy)
    for meter in meters:
        log.update_meter(meter)
    return log


# Reading ------------------------------------------------------------------------------------------


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
        raise _unreadable(error, in_json(error), "reference", reference) from None


def _is_there(path: str) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):  # A path that no system takes.
        return False


def _price_of(path: str, price_id: str) -> Price:
    prices = _catalog_at(path, "reference", ANY_TIME).prices  # Prices name no moment.
    if price_id in prices:
        return prices[price_id]
    known = ", ".join(f"{path}#{one}" for one in prices) or "but this catalog has none"
    reason = f"expected a price ({known}), received {price_id!r}{near(price_id, prices)}"
    raise CatalogError.of_file("price", path, reason)


def _catalog_at(source: str | PathLike[str] | TextIO, param: str, time: PlausibleTime) -> Catalog:
    data = read_json(source, param)
    try:
        return _catalog_of(data, time)
    except InvalidValueError as error:
        path = fspath(source) if isinstance(source, str | PathLike) else name_of(source)
        raise _unreadable(error, error.message, param, path) from None


def _catalog_of(data: object, time: PlausibleTime) -> Catalog:
    known = known_keys(data, {"prices", "meters", "subscriptions"})
    prices = _parts(known, "prices", Price.from_dict)
    meters = _parts(known, "meters", lambda one: _meter(one, time))
    _refuse_shared_event_names(meters.values())
    subscriptions = _parts(
        known, "subscriptions", lambda one: _subscription(one, prices, meters, time)
    )
    _refuse_shared_items(subscriptions.values())
    ignored = (
        *_ignored("prices", prices.values()),
        *_ignored("meters", meters.values()),
        *_ignored("subscriptions", subscriptions.values()),
    )
    return _catalog(prices, tuple(subscriptions.values()), meters, ignored)


def _ignored(key: str, parts: Iterable[Price | Meter | Subscription]) -> Iterator[str]:
    for index, part in enumerate(parts):
        yield from paths_within(f"{key}[{index}]", part.ignored)


def _parts(data: Mapping[str, Any], key: str, read: Callable[[Any], Part]) -> dict[str, Part]:
    """Read each object of a list; a complaint says which one it is about, and no id may occur
    twice.
    """
    parts: dict[str, Part] = {}
    for index, given in enumerate(_list_of(data, key)):
        part = _part(given, f"{key}[{index}]", read)
        if part.id in parts:
            expected = f"an id that no other of the {key} has"
            _refuse(f"{key}[{index}][id]", expected, part.id)
        parts[part.id] = part
    return parts


def _part(given: object, place: str, read: Callable[[Any], Part]) -> Part:
    try:
        return read(given)
    except InvalidValueError as error:
        if isinstance(given, Mapping) and isinstance(given.get("id"), str):
            place += f" ({given['id']!r})"
        message = f"{shown(place)}: {in_json(error)}"
        raise InvalidValueError(error.code, message, param=error.param) from None


def _list_of(data: Mapping[str, Any], key: str) -> list[Any]:
    """Return a list, or the data of one of Stripe's list objects, which must be complete."""
    value = data.get(key, [])
    if isinstance(value, Mapping) and "data" in value:
        if value.get("has_more"):
            expected = "a complete list (has_more says that there are more pages)"
            _refuse(f"{key}[has_more]", expected, received=True)
        value = value["data"]
    if not isinstance(value, list):
        _refuse(key, "a list", value)
    return value


def _meter(data: object, time: PlausibleTime) -> Meter:
    moments = data.get("status_transitions") if isinstance(data, Mapping) else None
    if isinstance(moments, Mapping) and moments.get("deactivated_at") is not None:
        time.moment(moments["deactivated_at"], "status_transitions[deactivated_at]")
    return Meter.from_dict(cast("Any", data))


def _subscription(
    data: object, prices: Mapping[str, Price], meters: Mapping[str, Meter], time: PlausibleTime
) -> Subscription:
    if not isinstance(data, Mapping):
        _refuse("subscription", "an object", data)
    given = [key for key in SUBSCRIPTION_TIMES if data.get(key) is not None]
    read = {**data, **{key: time.moment(data[key], key) for key in given}}
    if isinstance(data.get("items"), Mapping):
        read["items"] = _list_of(data, "items")
    subscription = Subscription.from_dict(read, prices)
    for position, item in enumerate(subscription.items):
        if item.recurring.meter is not None:
            place = f"items[{position}][price][recurring][meter]"
            _require_meter(item.recurring.meter, meters, place)
            required({"customer": subscription.customer}, "customer")
    return subscription


def _require_meter(meter_id: str, meters: Mapping[str, Meter], param: str) -> None:
    """Refuse a meter that the catalog lacks. Asked of prices that are used, since a list of prices
    alone has no meters.
    """
    if meter_id not in meters:
        expected = f"the id of a meter of this catalog ({', '.join(meters) or 'it has none'})"
        error = InvalidValueError.expecting(ErrorCode.METER_UNKNOWN, param, expected, meter_id)
        raise InvalidValueError(error.code, error.message + near(meter_id, meters), param=param)


def _refuse_shared_event_names(meters: Iterable[Meter]) -> None:
    owners: dict[str, str] = {}
    for position, meter in enumerate(meters):
        owner = owners.setdefault(name := meter.event_name, meter.id)
        if owner != meter.id:
            expected = f"an event name that no other meter has ({owner!r} has it)"
            _refuse(f"meters[{position}][event_name]", expected, name, ErrorCode.METER_CHANGED)


def _refuse_shared_items(subscriptions: Iterable[Subscription]) -> None:
    owners: dict[str, str] = {}
    for subscription in subscriptions:
        for item in subscription.items:
            owner = owners.setdefault(item.id, subscription.id)
            if owner != subscription.id:
                expected = f"an id that no item of another subscription has ({owner!r} has it)"
                _refuse("items[id]", expected, item.id)


# Complaints ---------------------------------------------------------------------------------------


def _refuse(
    param: str,
    expected: str,
    received: object,
    code: ErrorCode = ErrorCode.PARAMETER_INVALID_OBJECT,
) -> NoReturn:
    raise InvalidValueError.expecting(code, param, expected, received)


def _unreadable(error: InvalidValueError, message: str, param: str, path: str) -> CatalogError:
    """Return the complaint about a file; a key that is not known gets the one that was probably
    meant.
    """
    is_unknown = error.code is ErrorCode.PARAMETER_UNKNOWN and error.param is not None
    if is_unknown and "(did you mean" not in message:
        message += near(last_key(str(error.param)), _CATALOG_KEYS)
    return CatalogError.of_file(error.param or param, path, message)


_CATALOG_KEYS: Final = """
    aggregate_usage amount_gte billing_cycle_anchor billing_scheme billing_thresholds carry_forward
    currency customer customer_mapping decimal_places default_aggregation dimension_payload_keys
    display_name divide_by ended_at event_name event_payload_key event_time_window flat_amount
    flat_amount_decimal formula id interval interval_count items meter meters nickname percent
    price prices product quantity recurring round start_date status subscriptions tiers
    tiers_mode timezone transform_quantity unit_amount unit_amount_decimal unit_label up_to
    usage_gte usage_type value_settings
""".split()  # noqa: SIM905 - a list to be read

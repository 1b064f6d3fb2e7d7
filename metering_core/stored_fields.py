"""What snapshots of both kinds of log have in them, as plain data and back: numbers, moments, subscriptions, closed periods.

Whoever reads is strict: what was not written here raises, and :func:`~metering_core.restore` says that the data is damaged.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final, TypeVar, cast

from metering_core.accounts import Closing
from metering_core.errors import ErrorCode, InvalidValueError, SnapshotError
from metering_core.exact import Number, plain, whole_if_possible
from metering_core.meters import Meter
from metering_core.periods import SECONDS_MIN, BillingPeriod, from_unix_seconds, unix_seconds
from metering_core.prices import Price
from metering_core.subscriptions import Subscription, SubscriptionItem

# Numbers and moments -------------------------------------------------------------------------------------------------


def whole(value: object) -> int:
    """Return an integer that was written as one."""
    if type(value) is not int:
        raise TypeError(f"{value!r} is not an integer")
    return value


def wholes(values: Iterable[object]) -> tuple[int, ...]:
    """Return a column of integers that were written as such."""
    column = tuple(values)
    if not set(map(type, column)) <= {int}:
        raise TypeError("a column holds something else than integers")
    return cast("tuple[int, ...]", column)


def number_field(number: Number) -> int | str:
    """Write an exact number: an int as it is, any other in digits."""
    return number if isinstance(number, int) else plain(number)


# Not a number that a few characters make huge: an exponent is never written.
_DIGITS: Final = re.compile(r"-?\d+(\.\d+|/\d+)", re.ASCII)


def read_number(value: object) -> Number:
    """Return the number that :func:`number_field` wrote."""
    if not isinstance(value, str):
        return whole(value)
    if not _DIGITS.fullmatch(value):
        raise ValueError(f"{value!r} is not a number")
    number = whole_if_possible(Fraction(value) if "/" in value else Decimal(value))
    if number_field(number) != value:
        raise ValueError(f"{value!r} is not written as it would be")
    return number


def bounds(period: BillingPeriod) -> tuple[int, int]:
    """Write a period."""
    return period.start_seconds, period.end_seconds


def require_moments(stamps: Iterable[int], in_a_second: int) -> None:
    """Refuse moments outside the years 1 to 9999, given how many units a second has."""
    for stamp in (min(stamps, default=0), max(stamps, default=0)):
        from_unix_seconds(stamp // in_a_second)


# Subscriptions -------------------------------------------------------------------------------------------------------


def subscription_fields(subscription: Subscription) -> dict[str, Any]:
    """Write a subscription; a price with a pricing model of the user's own by its id."""
    thresholds = subscription.billing_thresholds
    ended_at = subscription.ended_at
    return {
        "id": subscription.id,
        "items": [item_fields(item) for item in subscription.items],
        "billing_cycle_anchor": unix_seconds(subscription.billing_cycle_anchor),
        "billing_thresholds": None if thresholds is None else thresholds.to_dict(),
        "currency": subscription.currency,
        **({} if subscription.customer is None else {"customer": subscription.customer}),
        "ended_at": None if ended_at is None else unix_seconds(ended_at),
        "start_date": unix_seconds(subscription.start_date),
        "timezone": subscription.timezone,
    }


def item_fields(item: SubscriptionItem) -> dict[str, Any]:
    """Write a subscription item with its price in it, or with the price's id where the pricing model is the user's own."""
    try:
        return item.to_dict()
    except InvalidValueError:
        thresholds = item.billing_thresholds
        return {
            "id": item.id,
            "price": item.price.id,
            "quantity": item.quantity,
            "billing_thresholds": None if thresholds is None else thresholds.to_dict(),
        }


def read_subscription(fields: Mapping[str, Any], prices: Mapping[str, Price]) -> Subscription:
    """Return the subscription. One without a start date was written when that meant that it has always been.

    Raises:
        SnapshotError: ``snapshot_needs_price``.
    """
    for item in fields["items"]:
        _require_price(item, prices)
    start_date = SECONDS_MIN if fields["start_date"] is None else fields["start_date"]
    return known(Subscription.from_dict({**fields, "start_date": start_date}, prices))


def read_item(fields: Mapping[str, Any], prices: Mapping[str, Price]) -> SubscriptionItem:
    """Return the item; refusals as :func:`read_subscription`."""
    _require_price(fields, prices)
    return known(SubscriptionItem.from_dict(fields, prices))


Stored = TypeVar("Stored", Subscription, SubscriptionItem, Meter)


def known(read: Stored) -> Stored:
    """Return what was read, if nothing of it was read past: a snapshot is ours, whatever its objects are modelled on."""
    if read.ignored:
        raise ValueError(f"{read.ignored[0]} is not among what was written")
    return read


def _require_price(fields: Mapping[str, Any], prices: Mapping[str, Price]) -> None:
    price = fields["price"]
    if isinstance(price, str) and price not in prices:
        message = f"prices: expected {price!r}, whose pricing model is not one of the four, received {sorted(prices)}"
        raise SnapshotError(ErrorCode.SNAPSHOT_NEEDS_PRICE, message, param="prices")


# Closed periods ------------------------------------------------------------------------------------------------------


def closed_fields(closed: Mapping[str, Iterable[Closing]]) -> dict[str, Any]:
    """Write which periods of which subscription were finalized, and when."""
    return {
        owner: [[*bounds(one.period), unix_seconds(one.closed_at), one.closed_at.microsecond] for one in closings]
        for owner, closings in closed.items()
    }


def read_closed(fields: Mapping[str, Any]) -> dict[str, tuple[Closing, ...]]:
    """Return what :func:`closed_fields` wrote."""
    return {owner: tuple(_closing(*closing) for closing in closings) for owner, closings in fields.items()}


def _closing(start: int, end: int, seconds: int, microseconds: int) -> Closing:
    return Closing(BillingPeriod(start, end), from_unix_seconds(seconds).replace(microsecond=microseconds))

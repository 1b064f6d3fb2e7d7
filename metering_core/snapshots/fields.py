"""What snapshots of both kinds of log have in them, as plain data and back: numbers, moments,
subscriptions, closed periods.

Whoever reads is strict: what was not written here raises, and :func:`~metering_core.restore` says
that the data is damaged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final, TypeVar, cast

import attrs

from metering_core.accounts import Closing
from metering_core.codec import row_of
from metering_core.errors import ErrorCode, SnapshotError
from metering_core.exact import read_whole
from metering_core.invoicing import Invoice, InvoiceStatus
from metering_core.meters import Meter
from metering_core.names import known_keys
from metering_core.periods import BillingPeriod, from_unix_seconds
from metering_core.prices import Price, PriceTable
from metering_core.subscriptions import Subscription, SubscriptionItem

# Columns and moments ------------------------------------------------------------------------------


def wholes(values: Iterable[object]) -> tuple[int, ...]:
    """Return a column of integers that were written as such."""
    column = tuple(values)
    if not set(map(type, column)) <= {int}:
        raise TypeError("a column holds something else than integers")
    return cast("tuple[int, ...]", column)


def read_count(value: object) -> int:
    """Return how many there are of something."""
    count = read_whole(value)
    if count < 0:
        raise ValueError(f"{count} is no count")
    return count


def bounds(period: BillingPeriod) -> tuple[int, int]:
    """Write a period."""
    return period.start_seconds, period.end_seconds


def require_moments(stamps: Iterable[int], in_a_second: int) -> None:
    """Refuse moments outside the years 1 to 9999, given how many units a second has."""
    for stamp in (min(stamps, default=0), max(stamps, default=0)):
        from_unix_seconds(stamp // in_a_second)


# Subscriptions and prices -------------------------------------------------------------------------


def read_prices(written: Any, prices: Mapping[str, Price]) -> PriceTable:
    """Return the table of prices.

    Raises:
        SnapshotError: ``snapshot_needs_price`` where one whose pricing model is the user's own is
            not given.
    """
    for price in written.values():
        if isinstance(price, str) and price not in prices:
            message = (
                f"prices: expected {price!r}, whose pricing model is not one of the four, received "
                f"{sorted(prices)}"
            )
            raise SnapshotError(ErrorCode.SNAPSHOT_NEEDS_PRICE, message, param="prices")
    return PriceTable.read(written, prices)


def read_subscription(fields: Mapping[str, Any], table: PriceTable) -> Subscription:
    """Return the subscription."""
    return known(Subscription.from_dict(fields, table.known))


def read_item(fields: Mapping[str, Any], table: PriceTable) -> SubscriptionItem:
    """Return the item."""
    return known(SubscriptionItem.from_dict(fields, table.known))


def require_each(kind: type[attrs.AttrsInstance], fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the fields of a value, if all are there: in a snapshot nothing has a default."""
    for field in attrs.fields(kind):
        if field.name not in fields:
            raise KeyError(field.name)
    return fields


Stored = TypeVar("Stored", Subscription, SubscriptionItem, Meter)


def known(read: Stored) -> Stored:
    """Return what was read, if nothing of it was read past: a snapshot is ours, whatever its
    objects are modelled on.
    """
    if read.ignored:
        raise ValueError(f"{read.ignored[0]} is not among what was written")
    return read


# Closed periods -----------------------------------------------------------------------------------


_PERIOD, _MOMENT, _INVOICE = map(row_of, (BillingPeriod, datetime, Invoice | None))
_CLOSING: Final = {"period": _PERIOD, "closed_at": _MOMENT, "invoice": _INVOICE}
"""What a closing holds, and how it is written."""


def closed_fields(
    closed: Mapping[str, Iterable[Closing]], table: PriceTable
) -> dict[str, list[dict[str, Any]]]:
    """Write which periods of which subscription were finalized, when and as what."""
    return {
        owner: [
            {key: row.write(getattr(one, key), table) for key, row in _CLOSING.items()}
            for one in closings
        ]
        for owner, closings in closed.items()
    }


def read_closed(closed: Mapping[str, Any], table: PriceTable) -> dict[str, tuple[Closing, ...]]:
    """Return what :func:`closed_fields` wrote."""
    return {
        owner: tuple(_closing(owner, fields, table) for fields in closings)
        for owner, closings in closed.items()
    }


def _closing(owner: str, fields: Mapping[str, Any], table: PriceTable) -> Closing:
    given = known_keys(fields, _CLOSING.keys())
    closing = Closing(**{key: row.read(given[key], key, table) for key, row in _CLOSING.items()})
    invoice = closing.invoice
    if invoice is not None and (invoice.subscription, invoice.status) != (
        owner,
        InvoiceStatus.FINALIZED,
    ):
        raise ValueError(f"{invoice.id} is no bill of {owner}")
    return closing

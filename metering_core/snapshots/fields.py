"""What snapshots of both kinds of log have in them, as plain data and back: numbers, moments,
subscriptions, closed periods.

Whoever reads is strict: what was not written here raises, and :func:`~metering_core.restore` says
that the data is damaged.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final, TypeVar, cast

import attrs

from metering_core.accounts import Closing
from metering_core.errors import ErrorCode, InvalidValueError, SnapshotError
from metering_core.exact import Number, Unrounded, plain, read_whole
from metering_core.invoicing import BilledBefore, Evidence, Invoice, InvoiceLineItem, InvoiceStatus
from metering_core.meters import Formula, Meter
from metering_core.periods import SECONDS_MIN, BillingPeriod, from_unix_seconds, unix_seconds
from metering_core.prices import AggregateUsage, Price
from metering_core.pricing import Charge, ChargeKind
from metering_core.subscriptions import Subscription, SubscriptionItem

# Columns and moments ------------------------------------------------------------------------------


def wholes(values: Iterable[object]) -> tuple[int, ...]:
    """Return a column of integers that were written as such."""
    column = tuple(values)
    if not set(map(type, column)) <= {int}:
        raise TypeError("a column holds something else than integers")
    return cast("tuple[int, ...]", column)


def bounds(period: BillingPeriod) -> tuple[int, int]:
    """Write a period."""
    return period.start_seconds, period.end_seconds


def require_moments(stamps: Iterable[int], in_a_second: int) -> None:
    """Refuse moments outside the years 1 to 9999, given how many units a second has."""
    for stamp in (min(stamps, default=0), max(stamps, default=0)):
        from_unix_seconds(stamp // in_a_second)


# Subscriptions ------------------------------------------------------------------------------------


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
    """Write a subscription item with its price in it, or with the price's id where the pricing
    model is the user's own.
    """
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
    """Return the subscription. One without a start date was written when that meant that it has
    always been.

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
    """Return what was read, if nothing of it was read past: a snapshot is ours, whatever its
    objects are modelled on.
    """
    if read.ignored:
        raise ValueError(f"{read.ignored[0]} is not among what was written")
    return read


def _require_price(fields: Mapping[str, Any], prices: Mapping[str, Price]) -> None:
    price = fields["price"]
    if isinstance(price, str) and price not in prices:
        message = (
            f"prices: expected {price!r}, whose pricing model is not one of the four, received "
            f"{sorted(prices)}"
        )
        raise SnapshotError(ErrorCode.SNAPSHOT_NEEDS_PRICE, message, param="prices")


# Prices, each written once ------------------------------------------------------------------------


def price_field(price: Price) -> object:
    """Write a price, or its id where the pricing model is the user's own."""
    try:
        return price.to_dict()
    except InvalidValueError:
        return price.id


def read_price(field: object, prices: Mapping[str, Price]) -> Price:
    """Return the price; refusals as :func:`read_subscription`."""
    _require_price({"price": field}, prices)
    return (
        prices[field]
        if isinstance(field, str)
        else Price.from_dict(cast("Mapping[str, Any]", field))
    )


class _Pool:
    """The prices of stored lines, each written once."""

    def __init__(self) -> None:
        self.written: list[object] = []
        self._places: dict[str, int] = {}

    def place(self, price: Price) -> int:
        """Return where a price stands."""
        written = price_field(price)
        text = json.dumps(written, sort_keys=True)
        if text not in self._places:
            self._places[text] = len(self.written)
            self.written.append(written)
        return self._places[text]


# Invoices -----------------------------------------------------------------------------------------


def _invoice_fields(invoice: Invoice, pool: _Pool) -> dict[str, Any]:
    assert invoice.finalized_at is not None, "only a finalized invoice is kept"
    return {
        "id": invoice.id,
        "currency": invoice.currency,
        "period": _cut_bounds(invoice.period),
        "finalized_at": _moment_fields(invoice.finalized_at),
        "lines": [_line_fields(line, pool) for line in invoice.lines],
    }


def _line_fields(line: InvoiceLineItem, pool: _Pool) -> dict[str, Any]:
    mode = line.aggregate_usage
    return {
        "id": line.id,
        "subscription_item": line.subscription_item,
        "price": pool.place(line.price),
        "period": _cut_bounds(line.period),
        "description": line.description,
        "quantity": exact_field(line.quantity),
        "amount": line.amount,
        "exact": exact_field(line.exact),
        "currency": line.currency,
        "charge": [*map(_charge_field, attrs.astuple(line.charge))],
        "total_usage": exact_field(line.total_usage),
        "aggregate_usage": None if mode is None else [isinstance(mode, Formula), mode.value],
        "rounding": line.rounding,
        "proration": None if line.proration is None else str(line.proration),
        "before": None
        if line.before is None
        else [exact_field(line.before.total_usage), line.before.amount],
        "usage": None if line.usage is None else [line.usage.sequence],
    }


def _charge_field(value: object) -> object:
    return (
        value.value
        if isinstance(value, ChargeKind)
        else exact_field(value)
        if isinstance(value, EXACT)
        else value
    )


def _invoice(owner: str, fields: Mapping[str, Any], prices: Sequence[Price]) -> Invoice:
    lines = tuple(_line(line, prices) for line in fields["lines"])
    period, finalized_at = _cut_period(*fields["period"]), _moment(*fields["finalized_at"])
    return Invoice(
        _text(fields["id"]),
        owner,
        _text(fields["currency"]),
        period,
        InvoiceStatus.FINALIZED,
        lines,
        finalized_at,
    )


def _line(fields: Mapping[str, Any], prices: Sequence[Price]) -> InvoiceLineItem:
    kind, quantity, unit_amount, amount, *rest = fields["charge"]
    unit = None if unit_amount is None else read_exact(unit_amount)
    charge = Charge(kind, read_exact(quantity), unit, read_exact(amount), *map(_figure, rest))
    mode, share, sequence = fields["aggregate_usage"], fields["proration"], fields["usage"]
    before = fields["before"]
    return InvoiceLineItem(
        **{
            name: _text(fields[name])
            for name in ("id", "subscription_item", "description", "currency", "rounding")
        },
        price=prices[read_whole(fields["price"])],
        period=_cut_period(*fields["period"]),
        quantity=read_exact(fields["quantity"]),
        amount=read_whole(fields["amount"]),
        exact=read_exact(fields["exact"]),
        charge=charge,
        total_usage=read_exact(fields["total_usage"]),
        aggregate_usage=None if mode is None else (Formula if mode[0] else AggregateUsage)(mode[1]),
        proration=None if share is None else Fraction(_text(share)),
        before=None
        if before is None
        else BilledBefore(read_exact(before[0]), read_whole(before[1])),
        usage=None
        if sequence is None
        else Evidence(None if sequence[0] is None else read_whole(sequence[0]), None),
    )


def _figure(value: object) -> Any:
    """Return a tier, a number of packages or a label, as it was written."""
    return value if value is None or isinstance(value, str) else read_whole(value)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a string")
    return value


EXACT: Final = (int, Decimal, Fraction)
_EXACT_DIGITS: Final = re.compile(r"-?\d+(\.\d+|/\d+)?", re.ASCII)


def exact_field(number: Number | Unrounded) -> int | str:
    """Write an exact number so that it is read as what it was: an int as it is, a decimal or a
    fraction in digits.
    """
    return (
        number
        if isinstance(number, int)
        else str(number)
        if isinstance(number, Fraction)
        else plain(number)
    )


def read_exact(value: object) -> Any:
    """Return the number that :func:`exact_field` wrote."""
    if not isinstance(value, str):
        return read_whole(value)
    if not _EXACT_DIGITS.fullmatch(value):
        raise ValueError(f"{value!r} is not a number")
    return Fraction(value) if "/" in value else Decimal(value)


def _cut_bounds(period: BillingPeriod) -> list[int]:
    return [*bounds(period), *(() if period.cut_from is None else bounds(period.cut_from))]


def _cut_period(start: int, end: int, *whole_bounds: int) -> BillingPeriod:
    return BillingPeriod(
        start, end, cut_from=BillingPeriod(*whole_bounds) if whole_bounds else None
    )


def _moment_fields(at: datetime) -> list[int]:
    return [unix_seconds(at), at.microsecond]


def _moment(seconds: int, microseconds: int) -> datetime:
    return from_unix_seconds(seconds).replace(microsecond=microseconds)


# Closed periods -----------------------------------------------------------------------------------


def closed_fields(closed: Mapping[str, Iterable[Closing]]) -> dict[str, Any]:
    """Write which periods of which subscription were finalized, when and as what; with the prices
    of what was billed.
    """
    pool = _Pool()
    written = {
        owner: [_closing_fields(one, pool) for one in closings]
        for owner, closings in closed.items()
    }
    return {"closed": written, "prices": pool.written}


def _closing_fields(closing: Closing, pool: _Pool) -> list[Any]:
    invoice = None if closing.invoice is None else _invoice_fields(closing.invoice, pool)
    return [*bounds(closing.period), *_moment_fields(closing.closed_at), invoice]


def read_closed(
    content: Mapping[str, Any], prices: Mapping[str, Price]
) -> dict[str, tuple[Closing, ...]]:
    """Return what :func:`closed_fields` wrote; version 1 kept no invoices."""
    pool = [read_price(field, prices) for field in content.get("prices", ())]
    return {
        owner: tuple(_closing(owner, pool, *closing) for closing in closings)
        for owner, closings in content["closed"].items()
    }


def _closing(
    owner: str,
    pool: Sequence[Price],
    start: int,
    end: int,
    seconds: int,
    microseconds: int,
    fields: Any = None,
) -> Closing:
    invoice = None if fields is None else _invoice(owner, fields, pool)
    return Closing(BillingPeriod(start, end), _moment(seconds, microseconds), invoice)

"""What snapshots of earlier versions hold, as today's version writes it.

Version 1 knew no invoices. Versions 1 and 2 wrote a price into everything that had one, those of
invoices in a list, and invoices in shapes of their own. Whatever was written then is read for ever:
it is put into today's shape here, and read as everything else; what is wrong in it raises, here or
there. Facts had no numbers then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, Final

import attrs

from metering_core.codec import write_exact
from metering_core.exact import whole_if_possible
from metering_core.invoicing import InvoiceStatus
from metering_core.meter_acceptance import Overlap
from metering_core.periods import MICROSECONDS, SECONDS_MIN, from_unix_seconds, iso_8601
from metering_core.prices import PriceTable
from metering_core.pricing import Charge

Fields = Mapping[str, Any]

_DURATIONS: Final = ("future_tolerance", "identifier_retention", "cancel_window")
_CHARGE: Final = tuple(field.name for field in attrs.fields(Charge))
_AS_IT_WAS: Final = (
    "id",
    "subscription_item",
    "description",
    "quantity",
    "amount",
    "exact",
    "currency",
    "total_usage",
    "rounding",
    "proration",
)


def in_todays_shape(content: Fields) -> dict[str, Any]:
    """Return the content of a snapshot of version 1 or 2 as that of version 3."""
    table = PriceTable(is_of_log=True)
    pool = [_reference(price, table) for price in content.get("prices", ())]
    moved: dict[str, Any] = {
        **content,
        "subscriptions": [_subscription(one, table) for one in content["subscriptions"]],
        "closed": {
            owner: [_closing(owner, pool, *one) for one in closings]
            for owner, closings in content["closed"].items()
        },
        "told": 0,
        "prices": table.written,
    }
    if "bills" in content:  # A meter log's.
        moved["policy"] = _meter_policy(content["policy"])
        moved["bills"] = [_with_price(bill, table) for bill in content["bills"]]
    else:
        moved["items"] = [
            {**one, "item": None if one["item"] is None else _with_price(one["item"], table)}
            for one in content["items"]
        ]
    return moved


def _reference(price: Any, table: PriceTable) -> str:
    return table.refer_written(price if isinstance(price, str) else price["id"], price)


def _with_price(fields: Fields, table: PriceTable) -> dict[str, Any]:
    price = fields.get("price")
    return {**fields, "price": None if price is None else _reference(price, table)}


def _subscription(fields: Fields, table: PriceTable) -> dict[str, Any]:
    """A subscription without a start date was written when that meant that it has always been."""
    start_date = SECONDS_MIN if fields["start_date"] is None else fields["start_date"]
    items = [_with_price(item, table) for item in fields["items"]]
    return {**fields, "items": items, "start_date": start_date}


def _meter_policy(fields: Fields) -> dict[str, Any]:
    """Durations were microseconds; before there was the choice, each subscription counted all
    events.
    """
    counted = {
        name: None if fields[name] is None else _seconds(fields[name]) for name in _DURATIONS
    }
    return {"overlap": Overlap.EACH_COUNTS_ALL.value, **fields, **counted}


def _seconds(microseconds: int) -> int | str:
    return write_exact(whole_if_possible(Fraction(microseconds, MICROSECONDS)))


def _moment(seconds: int, microseconds: int) -> int | str:
    at = from_unix_seconds(seconds).replace(microsecond=microseconds)
    return iso_8601(at) if microseconds else seconds


def _period(start: int, end: int, *whole: int) -> dict[str, Any]:
    return {"start": start, "end": end} | ({"cut_from": _period(*whole)} if whole else {})


def _closing(
    owner: str,
    pool: Sequence[str],
    start: int,
    end: int,
    seconds: int,
    microseconds: int,
    invoice: Fields | None = None,
) -> dict[str, Any]:
    return {
        "period": _period(start, end),
        "closed_at": _moment(seconds, microseconds),
        "invoice": None if invoice is None else _invoice(owner, pool, invoice),
    }


def _invoice(owner: str, pool: Sequence[str], fields: Fields) -> dict[str, Any]:
    return {
        "id": fields["id"],
        "subscription": owner,
        "currency": fields["currency"],
        "period": _period(*fields["period"]),
        "status": InvoiceStatus.FINALIZED.value,
        "lines": [_line(pool, line) for line in fields["lines"]],
        "finalized_at": _moment(*fields["finalized_at"]),
    }


def _line(pool: Sequence[str], fields: Fields) -> dict[str, Any]:
    mode, before, usage = (fields[name] for name in ("aggregate_usage", "before", "usage"))
    return {
        **{name: fields[name] for name in _AS_IT_WAS},
        "price": pool[fields["price"]],
        "period": _period(*fields["period"]),
        "charge": dict(zip(_CHARGE, fields["charge"], strict=True)),
        "aggregate_usage": None if mode is None else f"{'formula:' * mode[0]}{mode[1]}",
        "before": None if before is None else dict(zip(_BEFORE, before, strict=True)),
        "usage": None if usage is None else dict(zip(["sequence"], usage, strict=True)),
    }


_BEFORE: Final = ("total_usage", "amount")

"""What every field of Stripe's objects means for a bill: one table an object, and the one way of
reading them.

A field is *read* (it makes the bill or its words), alters *nothing*, or is *refused* unless it is
empty, because billing on would bill something else than it says. The tables hold the whole objects
of Stripe's API, the older spellings that its earlier versions return, and the few fields that are
ours. A field that no table knows is new at Stripe or a slip: an object that names its kind
(``"object": "subscription"``) comes from Stripe and has it read past, by name; in any other it is
refused. Within an object every other is walked by its own table, so that nothing new is read past
without being named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from difflib import get_close_matches
from enum import StrEnum
from typing import Any, Final

import attrs

from metering_core.errors import ErrorCode, InvalidValueError
from metering_core.names import text_of, unknown_keys


class Meaning(StrEnum):
    """What a field has to do with a bill."""

    READ = "read"
    NOTHING = "nothing"
    LATER = "later"
    """Nothing now; it may alter a coming bill, so that it is named among what was read past."""


def is_empty(value: object) -> bool:
    """Say whether a field says nothing: null, false, 0, or an empty text, list or object."""
    if isinstance(value, str | Mapping | list | tuple):
        return not value
    if isinstance(value, Decimal):  # One that signals refuses to be compared.
        return value.is_zero()
    return value is None or (isinstance(value, int | float) and value == 0)


@attrs.frozen
class Refused:
    """A field that alters a bill in a way that is not billed.

    Attributes:
        expected: what may stand there, why nothing else, and what to do, as the end of "expected
            …".
        allows: whether what stands there alters nothing after all, given the object that it stands
            in.
        at: what within it is at fault, as the end of a path.
    """

    expected: str
    allows: Callable[[Any, Mapping[str, Any]], bool] = lambda value, _: is_empty(value)
    at: str = ""


Field = Meaning | Refused
Fields = Mapping[str, Field]


def _all(meaning: Field, *names: str) -> dict[str, Field]:
    return dict.fromkeys(names, meaning)


@attrs.frozen
class Read:
    """An object whose fields were judged.

    Attributes:
        data: the object.
        ignored: the paths of fields that were read past: the unknown ones, also of objects within,
            and those that alter later bills.
        is_stripes: whether it comes from Stripe, so that unknown fields are read past.
    """

    data: Mapping[str, Any]
    ignored: tuple[str, ...]
    is_stripes: bool


def judged(data: object, kind: str, place: str = "", *, is_stripes: bool | None = None) -> Read:
    """Judge every field of an object of Stripe's by the table of its kind.

    Args:
        data: the object.
        kind: one of :data:`KINDS`.
        place: what an error calls the object; empty for the outermost.
        is_stripes: whether the object comes from Stripe; None for one that says so itself, by its
            ``object``.

    Raises:
        InvalidValueError: ``parameter_invalid_object`` for what is no object, or one of another
            kind; ``parameter_unknown``; ``field_not_billable``.
    """
    fields = KINDS[kind]
    if not isinstance(data, Mapping):
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_OBJECT, place or "data", "an object", data
        )
    if is_stripes is None:
        said = data.get("object")
        is_stripes = text_of(said) == kind
        if said is not None and not is_stripes and "object" in fields:
            expected = f"{kind!r}, or none in an object of your own"
            raise InvalidValueError.expecting(
                ErrorCode.PARAMETER_INVALID_OBJECT, _in(place, "object"), expected, said
            )
    for key in unknown_keys(data, fields.keys()):
        _refuse_unknown(key, data, fields, place, is_stripes=is_stripes)
    for key in sorted(fields.keys() & data.keys()):
        field = fields[key]
        if isinstance(field, Refused) and not field.allows(data[key], data):
            raise InvalidValueError.expecting(
                ErrorCode.FIELD_NOT_BILLABLE, _in(place, key) + field.at, field.expected, data[key]
            )
    return Read(data, tuple(_read_past(data, kind)), is_stripes)


def _read_past(data: Mapping[str, Any], kind: str) -> Iterator[str]:
    """Yield the paths of fields that are read past, in an object and in all objects within it."""
    fields = KINDS[kind]
    yield from unknown_keys(data, fields.keys())
    for key in sorted(fields.keys() & data.keys()):
        if fields[key] is Meaning.LATER and not is_empty(data[key]):
            yield key
        elif key not in _FREE and kind != "list":  # Whoever holds a list walks what is in it.
            for place, value in _within(key, data[key]):
                yield from paths_within(place, tuple(_read_past(value, kind_of(value, key))))


def _within(key: str, value: object) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the objects of a field with their paths: one, a list's, or a list object's."""
    listed: object = value
    if isinstance(value, Mapping) and key == "currency_options":
        yield from (
            (f"{key}[{code}]", one) for code, one in value.items() if isinstance(one, Mapping)
        )
    elif isinstance(value, Mapping) and text_of(value.get("object")) in {None, "list", *KINDS}:
        yield key, value
        listed = value.get("data")
    if isinstance(listed, list | tuple):
        yield from (
            (f"{key}[{at}]", one) for at, one in enumerate(listed) if isinstance(one, Mapping)
        )


def kind_of(data: Mapping[str, Any], key: str = "price") -> str:
    """Return the kind of an object that stands in a field: that which it names, or else the
    field's.

    The two shapes of a price are told apart by the field that only a Plan must have, where neither
    names itself.
    """
    said = text_of(data.get("object")) or ("list" if key == "items" and "data" in data else None)
    if said is not None and said in KINDS:
        return said
    if key == "price" and "object" not in data and "interval" in data:
        return "plan"
    kind = _KINDS_OF.get(key, key)
    return kind if kind in KINDS else "unknown"


def _refuse_unknown(
    key: str, data: Mapping[str, Any], fields: Fields, place: str, *, is_stripes: bool
) -> None:
    """Refuse an unknown field; of Stripe's objects only one that is nearly an absent one."""
    bearing = [name for name, field in fields.items() if field is not Meaning.NOTHING]
    meant = get_close_matches(key.strip().casefold(), bearing, n=1, cutoff=0.85)
    is_slip = bool(meant) and meant[0] not in data
    if is_stripes and not is_slip:
        return
    hint = f" (did you mean {meant[0]!r}?)" if is_slip and is_stripes else ""
    message = f"Received unknown parameter: {_in(place, key)}{hint}"
    raise InvalidValueError(ErrorCode.PARAMETER_UNKNOWN, message, param=_in(place, key))


def _in(place: str, key: str) -> str:
    return f"{place}[{key}]" if place else key


def paths_within(place: str, paths: tuple[str, ...]) -> tuple[str, ...]:
    """Return paths within an object as paths within what holds it.

    >>> paths_within("items[0]", ("billed_until", "price[recurring][new]"))
    ('items[0][billed_until]', 'items[0][price][recurring][new]')
    """
    split = (path.partition("[") for path in paths)
    return tuple(f"{place}[{head}]{bracket}{rest}" for head, bracket, rest in split)


# What is refused, and what to do ------------------------------------------------------------------

_DISCOUNT: Final = Refused(
    "none, because discounts are not billed yet: leave the field out to bill without, and "
    "take the discount off yourself"
)
_TAX: Final = Refused(
    "none, because taxes are not billed yet: leave the field out to bill without, and add "
    "the tax yourself"
)


def _is_disabled(value: Any, _: Mapping[str, Any]) -> bool:
    return is_empty(value) or (isinstance(value, Mapping) and is_empty(value.get("enabled")))


_AUTOMATIC_TAX: Final = attrs.evolve(_TAX, allows=_is_disabled, at="[enabled]")
_PAUSED: Final = Refused(
    "none, because at Stripe the invoices of a pause are drafts, void or uncollectible: "
    "leave the field out to bill as usual"
)
_PENDING: Final = Refused(
    "none, because the update takes effect when it is paid: read the subscription again "
    "once it is applied or has expired"
)
_AHEAD: Final = Refused(
    "none, because billing ahead is not there yet: bill such a subscription at Stripe"
)


def _is_billed_as_usual(value: Any, data: Mapping[str, Any]) -> bool:
    """A licensed item is billed to the end of its current period, which alters nothing."""
    ends = data.get("current_period_end")
    return is_empty(value) or (isinstance(value, int) and isinstance(ends, int) and value <= ends)


_TRIAL_OFFER: Final = Refused(
    "none, because an item's own trial is not billed yet: start the item's price when it is over"
)


def _is_on_the_anchors_day(value: Any, data: Mapping[str, Any]) -> bool:
    """Say whether boundaries follow from the anchor; on a day its month lacks they do not."""
    day = value.get("day_of_month") if isinstance(value, Mapping) else None
    if is_empty(day):
        return True
    anchor: Any = data.get("billing_cycle_anchor")
    try:
        at = anchor if isinstance(anchor, datetime) else datetime.fromtimestamp(anchor, UTC)
        return isinstance(day, int) and at.astimezone(UTC).day == day
    except Exception:  # noqa: BLE001 - a zone may raise anything
        return True


def _is_on_its_only_item(value: Any, data: Mapping[str, Any]) -> bool:
    """Say whether a subscription's own quantity (older API) repeats its only item's."""
    items = data.get("items")
    items = items.get("data") if isinstance(items, Mapping) else items
    if not isinstance(items, list | tuple) or len(items) != 1 or not isinstance(items[0], Mapping):
        return value is None
    own = items[0].get("quantity")
    agreed = 1 if own is None else own
    return value is None or (isinstance(value, int) and isinstance(agreed, int) and value == agreed)


_BILLED_STATUSES: Final = frozenset({"active", "past_due", "trialing", "unpaid"})


def _is_billed(value: Any, data: Mapping[str, Any]) -> bool:
    status = text_of(value)
    is_over = status == "canceled" and data.get("ended_at") is not None
    return value is None or is_over or status in _BILLED_STATUSES


def current_period_end(data: Mapping[str, Any]) -> Any:
    """Return when the current period ends, which newer versions say of items; or None."""
    items = data.get("items")
    items = items.get("data") if isinstance(items, Mapping) else items
    said = (
        [data, *(one for one in items if isinstance(one, Mapping))]
        if isinstance(items, list | tuple)
        else [data]
    )
    return next(
        (one["current_period_end"] for one in said if one.get("current_period_end") is not None),
        None,
    )


def _says_when_it_ends(value: Any, data: Mapping[str, Any]) -> bool:
    ends = (data.get("ended_at"), data.get("cancel_at"), current_period_end(data))
    return is_empty(value) or any(end is not None for end in ends)


# The tables ---------------------------------------------------------------------------------------

_READ, _NOTHING, _LATER = Meaning

SUBSCRIPTION: Final[Fields] = {
    **_all(
        _READ,
        "id",
        "object",
        "billing_cycle_anchor",
        "billing_thresholds",
        "currency",
        "customer",
        "items",
    ),
    # When it begins and ends. A trial is free, so what is billed begins at its end.
    **_all(_READ, "start_date", "trial_end", "ended_at", "cancel_at"),
    "cancel_at_period_end": Refused(
        "false, or an instant in cancel_at, because nothing here says when the current period ends",
        _says_when_it_ends,
    ),
    "status": Refused(
        "'active', 'past_due', 'trialing', 'unpaid', or 'canceled' with its ended_at, "
        "because no other owes anything: "
        "leave such a subscription out",
        _is_billed,
    ),
    "timezone": _READ,  # Ours: at Stripe boundaries are in UTC.
    "billing_cycle_anchor_config": Refused(
        "the day of billing_cycle_anchor, because boundaries follow from it: take an "
        "anchor on that day",
        _is_on_the_anchors_day,
        "[day_of_month]",
    ),
    "billing_schedules": _AHEAD,
    "pause_collection": _PAUSED,
    "pending_update": _PENDING,
    **_all(_DISCOUNT, "discount", "discounts"),
    **_all(_TAX, "default_tax_rates", "tax_percent"),
    # Stripe sells in its own name and adds the tax.
    **_all(_AUTOMATIC_TAX, "automatic_tax", "managed_payments"),
    # Repeated from the only item by earlier versions of the API.
    "quantity": Refused(
        "the quantity of its only item, because items have the quantities: put it there",
        _is_on_its_only_item,
    ),
    "plan": _NOTHING,
    # Who is paid, how, and which share of it, out of the same bill.
    **_all(
        _NOTHING,
        "application",
        "application_fee_percent",
        "collection_method",
        "days_until_due",
        "on_behalf_of",
    ),
    **_all(
        _NOTHING,
        "default_payment_method",
        "default_source",
        "payment_settings",
        "pending_setup_intent",
    ),
    **_all(_NOTHING, "transfer_data", "presentment_details", "invoice_settings"),
    "schedule": _LATER,
    # What was and what will be: told by the subscription itself once it holds.
    **_all(
        _NOTHING,
        "canceled_at",
        "cancellation_details",
        "created",
        "current_period_end",
        "current_period_start",
    ),
    **_all(_NOTHING, "latest_invoice", "status_details", "trial_settings", "trial_start"),
    # Invoice items are no part of a subscription.
    **_all(_NOTHING, "next_pending_invoice_item_invoice", "pending_invoice_item_interval"),
    # How Stripe prorates changes, which are not billed yet.
    "billing_mode": _NOTHING,
    **_all(_NOTHING, "customer_account", "description", "livemode", "metadata", "test_clock"),
}

SUBSCRIPTION_ITEM: Final[Fields] = {
    **_all(_READ, "id", "object", "billing_thresholds", "price", "plan", "quantity"),
    "billed_until": attrs.evolve(_AHEAD, allows=_is_billed_as_usual),
    "current_trial": _TRIAL_OFFER,
    "deleted": Refused("false, because a deleted item is not billed: leave it out"),
    "discounts": _DISCOUNT,
    "tax_rates": _TAX,
    **_all(
        _NOTHING,
        "created",
        "current_period_end",
        "current_period_start",
        "metadata",
        "subscription",
    ),
}

CUSTOMER: Final[Fields] = {
    **_all(_READ, "id", "object"),
    "discount": attrs.evolve(
        _DISCOUNT,
        expected="none, because discounts are not billed yet: give the id of the "
        "customer, and take "
        "it off yourself",
    ),
    # What is paid from a balance is owed all the same.
    **_all(
        _NOTHING,
        "address",
        "balance",
        "business_name",
        "cash_balance",
        "created",
        "currency",
        "customer_account",
    ),
    **_all(
        _NOTHING,
        "default_source",
        "deleted",
        "delinquent",
        "description",
        "email",
        "individual_name",
    ),
    **_all(
        _NOTHING,
        "invoice_credit_balance",
        "invoice_prefix",
        "invoice_settings",
        "livemode",
        "metadata",
        "name",
    ),
    **_all(
        _NOTHING,
        "next_invoice_sequence",
        "phone",
        "preferred_locales",
        "shipping",
        "sources",
        "subscriptions",
        "tax",
    ),
    **_all(_NOTHING, "tax_exempt", "tax_ids", "test_clock"),
}

_CHOSEN: Final = Refused("null, because an amount that the customer chooses cannot be rated")
_AMOUNTS: Final[Fields] = {
    **_all(_READ, "tiers", "unit_amount", "unit_amount_decimal"),
    "custom_unit_amount": _CHOSEN,
    # It says whether a tax is part of the amount, not what the amount is.
    "tax_behavior": _NOTHING,
}
_OF_BOTH: Final[Fields] = {
    **_all(
        _READ,
        "id",
        "object",
        "billing_scheme",
        "currency",
        "nickname",
        "product",
        "tiers",
        "tiers_mode",
    ),
    "percent": _READ,  # Ours.
    # Whoever has an archived or deleted price goes on paying it.
    **_all(_NOTHING, "active", "created", "deleted", "livemode", "metadata"),
}
RECURRING: Final[Fields] = {
    **_all(_READ, "aggregate_usage", "interval", "interval_count", "meter", "usage_type"),
    # What a new subscription would begin with; one that has a trial says so itself.
    "trial_period_days": _NOTHING,
}
PRICE: Final[Fields] = {
    **_OF_BOTH,
    **_AMOUNTS,
    **_all(_READ, "currency_options", "recurring", "transform_quantity"),
    **_all(_NOTHING, "lookup_key", "type"),
}
PLAN: Final[Fields] = {
    **_OF_BOTH,
    **RECURRING,
    **_all(_READ, "amount", "amount_decimal", "transform_usage"),
}
TIER: Final[Fields] = _all(
    _READ, "up_to", "unit_amount", "unit_amount_decimal", "flat_amount", "flat_amount_decimal"
)
METER: Final[Fields] = {
    **_all(
        _READ,
        "id",
        "object",
        "customer_mapping",
        "default_aggregation",
        "display_name",
        "event_name",
    ),
    **_all(_READ, "event_time_window", "status", "status_transitions", "value_settings"),
    **_all(_READ, "carry_forward", "decimal_places", "dimension_payload_keys"),  # Ours.
    **_all(_NOTHING, "created", "livemode", "updated"),
}

KINDS: Final[Mapping[str, Fields]] = {
    "subscription": SUBSCRIPTION,
    "subscription_item": SUBSCRIPTION_ITEM,
    "price": PRICE,
    "plan": PLAN,
    "billing.meter": METER,
    # Parts, which do not name their kind.
    "billing_thresholds": {
        **_all(_READ, "amount_gte", "usage_gte"),
        "reset_billing_cycle_anchor": Refused(
            "false, because periods that begin anew at a threshold are not billed yet: "
            "bill such a subscription at Stripe"
        ),
    },
    "currency_option": _AMOUNTS,
    "customer": CUSTOMER,
    "customer_mapping": _all(_READ, "event_payload_key", "type"),
    "default_aggregation": _all(_READ, "formula"),
    "recurring": RECURRING,
    "status_transitions": _all(_READ, "deactivated_at"),
    "tier": TIER,
    "transform_quantity": _all(_READ, "divide_by", "round"),
    "value_settings": _all(_READ, "event_payload_key"),
    # Parts that alter nothing, or nothing beyond what the object says of them.
    "automatic_tax": _all(_NOTHING, "disabled_reason", "enabled", "liability", "provider"),
    "account": _all(_NOTHING, "account", "type"),
    "billing_cycle_anchor_config": _all(
        _NOTHING, "day_of_month", "hour", "minute", "month", "second"
    ),
    "billing_mode": _all(_NOTHING, "flexible", "type", "updated_at"),
    "cancellation_details": _all(_NOTHING, "comment", "feedback", "reason"),
    "end_behavior": _all(_NOTHING, "missing_payment_method"),
    "flexible": _all(_NOTHING, "proration_discounts"),
    "invoice_settings": _all(
        *(
            _NOTHING,
            "account_tax_ids",
            "custom_fields",
            "default_payment_method",
            "footer",
            "issuer",
            "rendering_options",
        )
    ),
    "list": _all(_READ, "data", "has_more") | _all(_NOTHING, "object", "total_count", "url"),
    "managed_payments": _all(_NOTHING, "enabled"),
    "pending_invoice_item_interval": _all(_NOTHING, "interval", "interval_count"),
    "presentment_details": _all(_NOTHING, "presentment_currency"),
    "transfer_data": _all(_NOTHING, "amount_percent", "destination"),
    "trial_settings": _all(_NOTHING, "end_behavior"),
    "unknown": {},
}
"""The fields of each kind of object, by its name for itself in ``object``, and of its parts."""

_KINDS_OF: Final[Mapping[str, str]] = {
    "currency_options": "currency_option",
    "issuer": "account",
    "items": "subscription_item",
    "liability": "account",
    "tiers": "tier",
    "transform_usage": "transform_quantity",
}
"""What stands in fields that are not called as their kind is."""

_FREE: Final = frozenset(
    {
        "address",
        "cash_balance",
        "invoice_credit_balance",
        "metadata",
        "payment_settings",
        "product",
        "shipping",
        "status_details",
    }
    | {"tax"}
)
"""Fields about words, who is paid, where to and how it went: none of it bills."""

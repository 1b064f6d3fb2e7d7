"""Who pays for what, and when: subscription items, subscriptions and their billing thresholds.

A subscription is a value. It begins at its ``start_date``, and at its anchor where none is given.
What happens to it (it ends, an item's price changes) makes a new value under the same id; the log
is told with ``log.subscribe``. Its billing periods follow from the anchor and the interval of its
prices and are cut where the subscription starts and ends, so they tile its life without gap or
overlap.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, Self

import attrs

from metering_core.codec import ROWS, Row, Shared, within
from metering_core.currencies import currency
from metering_core.errors import ErrorCode, InvalidValueError, InvoicingError
from metering_core.exact import exact_integer
from metering_core.names import (
    each_of,
    flag,
    name,
    optional_name,
    require_kind,
    require_object,
    required,
    text_of,
)
from metering_core.periods import (
    BillingCycle,
    BillingPeriod,
    from_unix_seconds,
    instant,
    unix_seconds,
)
from metering_core.prices import Price, PriceTable, Recurring
from metering_core.stripe_fields import current_period_end, is_empty, judged

__all__ = ["BillingThresholds", "Subscription", "SubscriptionItem"]


def _amount_gte(value: int | None) -> int | None:
    return (
        None if value is None else exact_integer(value, "billing_thresholds[amount_gte]", minimum=1)
    )


def _usage_gte(value: int | None) -> int | None:
    return (
        None if value is None else exact_integer(value, "billing_thresholds[usage_gte]", minimum=1)
    )


def _reset(value: bool) -> bool:  # noqa: FBT001 - it is the value that is checked
    told = {
        "reset_billing_cycle_anchor": flag(value, "billing_thresholds[reset_billing_cycle_anchor]")
    }
    return bool(
        judged(told, "billing_thresholds", "billing_thresholds").data["reset_billing_cycle_anchor"]
    )


@attrs.frozen(kw_only=True)
class BillingThresholds:
    """Accrued value or usage from which an invoice is due before the period ends; with one, only
    ``increment`` is allowed.

    Attributes:
        amount_gte: minor units, at least 1 (on a subscription).
        usage_gte: units, at least 1 (on an item).
        reset_billing_cycle_anchor: false: a period that begins anew where the amount is reached is
            not billed yet.
    """

    amount_gte: int | None = attrs.field(default=None, converter=_amount_gte)
    usage_gte: int | None = attrs.field(default=None, converter=_usage_gte)
    reset_billing_cycle_anchor: bool = attrs.field(default=False, converter=_reset)

    def __attrs_post_init__(self) -> None:
        """Refuse a threshold that says nothing."""
        if self.amount_gte is None and self.usage_gte is None:
            param = "billing_thresholds"
            raise InvalidValueError.expecting(
                ErrorCode.PARAMETER_MISSING,
                param,
                "amount_gte on a subscription or usage_gte on an item",
                None,
            )

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read Stripe's ``billing_thresholds`` object."""
        known = judged(data, "billing_thresholds", "billing_thresholds").data
        return cls(**{key: value for key, value in known.items() if value is not None})

    def to_dict(self) -> dict[str, Any]:
        """Write Stripe's ``billing_thresholds`` object."""
        return attrs.asdict(self)


def _thresholds(value: object) -> BillingThresholds | None:
    if value is not None and not isinstance(value, BillingThresholds):
        expected = "a BillingThresholds or None"
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_OBJECT, "billing_thresholds", expected, value
        )
    return value


def _item_id(value: object) -> str:
    return name(value, "items[id]")


@attrs.frozen
class SubscriptionItem:
    """One price on a subscription.

    Attributes:
        id: 1 to 255 characters; usage records name it.
        price: a recurring price.
        quantity: for a licensed price, an integer of at least 0, 1 unless given; a metered price
            must not have one.
        billing_thresholds: ``usage_gte`` of this item, or None.
        ignored: the paths of fields of a Stripe object that :meth:`from_dict` did not know and read
            past.

    Raises:
        InvalidValueError: among others ``parameters_exclusive`` with Stripe's words for a quantity
            on a metered price.
    """

    id: str = attrs.field(converter=_item_id)
    price: Price
    quantity: int | None = None
    billing_thresholds: BillingThresholds | None = attrs.field(
        default=None, converter=_thresholds, kw_only=True
    )
    ignored: tuple[str, ...] = attrs.field(default=(), eq=False, repr=False, kw_only=True)

    def __attrs_post_init__(self) -> None:
        """Hold the quantity to what the price's usage type allows."""
        if not isinstance(self.price, Price) or self.price.recurring is None:
            raise InvalidValueError.expecting(
                ErrorCode.PARAMETER_INVALID_OBJECT,
                "items[price]",
                "a Price that recurs",
                self.price,
            )
        if self.billing_thresholds is not None and self.billing_thresholds.usage_gte is None:
            expected = "usage_gte, which is an item's threshold (amount_gte is a subscription's)"
            code = ErrorCode.PARAMETER_MISSING
            raise InvalidValueError.expecting(
                code, "items[billing_thresholds]", expected, self.billing_thresholds
            )
        if self.price.is_metered and self.quantity is not None:
            message = "You cannot set the quantity for metered plans"
            raise InvalidValueError(
                ErrorCode.PARAMETERS_EXCLUSIVE, message, param="items[quantity]"
            )
        if not self.price.is_metered:
            quantity = (
                1 if self.quantity is None else exact_integer(self.quantity, "items[quantity]")
            )
            object.__setattr__(self, "quantity", quantity)

    @property
    def recurring(self) -> Recurring:
        """How the item's price recurs."""
        assert self.price.recurring is not None, "checked when the item was built"
        return self.price.recurring

    @property
    def is_metered(self) -> bool:
        """Whether usage makes the quantity."""
        return self.price.is_metered

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], prices: Mapping[str, Price] | None = None) -> Self:
        """Read Stripe's subscription item; ``price`` (or ``plan``) is an object, the id of one of
        ``prices``, or a Price.

        Raises:
            InvalidValueError: ``field_not_billable`` for a discount, a tax and what else alters a
                bill and is not billed.
        """
        read = judged(data, "subscription_item", "items")
        given = required(data, "price" if data.get("price") is not None else "plan", "items")
        if isinstance(given, str):
            given = _known_price(given, prices or {})
        price = given if isinstance(given, Price) else Price.from_dict(given)
        thresholds = data.get("billing_thresholds")
        return cls(
            required(data, "id", "items"),
            price,
            data.get("quantity"),
            billing_thresholds=None
            if thresholds is None
            else BillingThresholds.from_dict(thresholds),
            ignored=read.ignored,
        )

    def to_dict(self) -> dict[str, Any]:
        """Write Stripe's subscription item with its price in it."""
        thresholds = self.billing_thresholds
        return {
            "id": self.id,
            "object": "subscription_item",
            "price": self.price.to_dict(),
            "quantity": self.quantity,
            "billing_thresholds": None if thresholds is None else thresholds.to_dict(),
        }


def _known_price(price_id: str, prices: Mapping[str, Price]) -> Price:
    if price_id not in prices:
        known = ", ".join(sorted(prices)) or "none"
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_CHOICE,
            "items[price]",
            f"the id of a known price ({known})",
            price_id,
        )
    return prices[price_id]


def _as_items(items: Iterable[SubscriptionItem]) -> tuple[SubscriptionItem, ...]:
    checked = tuple(each_of(SubscriptionItem, items, "items"))
    if not checked:
        raise InvalidValueError(
            ErrorCode.PARAMETER_MISSING, "Missing required param: items", param="items"
        )
    seen: set[str] = set()
    for index, item in enumerate(checked):
        if item.id in seen:
            expected = "an id that no other item of the subscription has"
            raise InvalidValueError.expecting(
                ErrorCode.PARAMETER_INVALID_OBJECT, f"items[{index}][id]", expected, item.id
            )
        seen.add(item.id)
    return checked


def _subscription_id(value: object) -> str:
    return name(value, "id")


def _customer(value: object) -> str | None:
    return optional_name(value, "customer")


def _anchor(value: object) -> datetime:
    return from_unix_seconds(unix_seconds(instant(value, "billing_cycle_anchor")))


def _start_date(value: object) -> datetime | Any:
    return None if value is None else from_unix_seconds(unix_seconds(instant(value, "start_date")))


def _ended_at(value: object) -> datetime | None:
    return None if value is None else from_unix_seconds(unix_seconds(instant(value, "ended_at")))


@attrs.frozen
class Subscription:
    """A customer's items, billed together in one currency and on one cycle.

    Attributes:
        id: 1 to 255 characters.
        items: at least one, all with the same interval and currency, no id twice.
        billing_cycle_anchor: an instant, whole seconds; fixes the boundaries of all billing
            periods.
        currency: that of its prices; given, it must agree.
        billing_thresholds: ``amount_gte`` of this subscription, or None.
        timezone: an IANA zone whose wall clock the boundaries keep; UTC unless given.
        start_date: first instant (inclusive) of its life: the anchor unless given. The calendar's
            first instant (``datetime.min`` in UTC) says that it has always been.
        ended_at: end of its life (exclusive); None while it runs.
        customer: the id of the customer whose meter events its items on a meter bill; None where it
            has none.
        ignored: the paths of fields of a Stripe object that :meth:`from_dict` did not know and read
            past, such as ``items[0][price][new_field]``; two subscriptions are equal whatever was
            read past.

    Raises:
        InvalidValueError: ``currency_mismatch``, ``parameter_invalid_object`` (mixed intervals, an
            end before the start) and those of its parts.
    """

    id: str = attrs.field(converter=_subscription_id)
    items: tuple[SubscriptionItem, ...] = attrs.field(converter=_as_items)
    billing_cycle_anchor: datetime = attrs.field(converter=_anchor)
    currency: str = attrs.field(default="", kw_only=True)
    billing_thresholds: BillingThresholds | None = attrs.field(
        default=None, converter=_thresholds, kw_only=True
    )
    timezone: str = attrs.field(default="UTC", kw_only=True)
    start_date: datetime = attrs.field(default=None, converter=_start_date, kw_only=True)
    ended_at: datetime | None = attrs.field(default=None, converter=_ended_at, kw_only=True)
    customer: str | None = attrs.field(default=None, converter=_customer, kw_only=True)
    ignored: tuple[str, ...] = attrs.field(default=(), eq=False, repr=False, kw_only=True)
    cycle: BillingCycle = attrs.field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        """Check what the parts say against each other, and derive the cycle."""
        object.__setattr__(self, "currency", self._agreed_currency())
        if self.start_date is None:
            object.__setattr__(self, "start_date", self.billing_cycle_anchor)
        first = self.items[0].recurring
        for index, item in enumerate(self.items):
            if (item.recurring.interval, item.recurring.interval_count) != (
                first.interval,
                first.interval_count,
            ):
                expected = (
                    f"the interval of the other items ({first.interval_count} "
                    f"{first.interval.value})"
                )
                received = f"{item.recurring.interval_count} {item.recurring.interval.value}"
                code = ErrorCode.PARAMETER_INVALID_OBJECT
                raise InvalidValueError.expecting(
                    code, f"items[{index}][price][recurring]", expected, received
                )
        if self.billing_thresholds is not None and self.billing_thresholds.amount_gte is None:
            expected = "amount_gte, which is a subscription's threshold (usage_gte is an item's)"
            code = ErrorCode.PARAMETER_MISSING
            raise InvalidValueError.expecting(
                code, "billing_thresholds", expected, self.billing_thresholds
            )
        cycle = BillingCycle(
            self.billing_cycle_anchor, first.interval, first.interval_count, self.timezone
        )
        object.__setattr__(self, "cycle", cycle)
        object.__setattr__(self, "timezone", cycle.timezone)
        if self.ended_at is not None and self.ended_at <= self.start_date:
            expected = f"an instant after start_date ({self.start_date.isoformat()})"
            code = ErrorCode.PARAMETER_INVALID_OBJECT
            raise InvalidValueError.expecting(code, "ended_at", expected, self.ended_at.isoformat())

    def _agreed_currency(self) -> str:
        given = text_of(self.currency)
        agreed = self.items[0].price.currency if given == "" else currency(self.currency).code
        for index, item in enumerate(self.items):
            if item.price.currency != agreed:
                param = f"items[{index}][price][currency]"
                expected = f"the subscription's currency {agreed!r}"
                raise InvalidValueError.expecting(
                    ErrorCode.CURRENCY_MISMATCH, param, expected, item.price.currency
                )
        return agreed

    def item(self, item_id: str) -> SubscriptionItem:
        """Return the item with this id.

        Raises:
            InvalidValueError: ``parameter_invalid_choice`` where the subscription has none.
        """
        for item in self.items:
            if item.id == text_of(item_id):
                return item
        known = ", ".join(item.id for item in self.items)
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_CHOICE, "subscription_item", f"one of {known}", item_id
        )

    def is_alive_at(self, at: datetime | int) -> bool:
        """Whether the instant lies in the subscription's life."""
        return self._is_alive_at(instant(at, "at"))

    def _is_alive_at(self, at: datetime) -> bool:
        return self.start_date <= at and (self.ended_at is None or at < self.ended_at)

    def period_at(self, at: datetime | int) -> BillingPeriod | None:
        """Return the period that holds the instant, cut at start and end; None outside."""
        when = instant(at, "at")
        return self._within_life(self.cycle.period_at(when)) if self._is_alive_at(when) else None

    def periods_from(self, at: datetime | int) -> Iterator[BillingPeriod]:
        """Yield the billing periods in order, from the one that holds the instant, or the next."""
        when = instant(at, "at")
        for period in self.cycle.periods_from(
            max(when, self.start_date)
        ):  # pragma: no branch - a cycle has no end
            if self.ended_at is not None and period.start >= self.ended_at:
                return
            yield self._within_life(period)

    def _within_life(self, period: BillingPeriod) -> BillingPeriod:
        start = max(period.start, self.start_date)
        end = period.end if self.ended_at is None else min(period.end, self.ended_at)
        if (start, end) == (period.start, period.end):
            return period
        return BillingPeriod(start, end, cut_from=period)

    def in_cycle(self, period: BillingPeriod) -> BillingPeriod:
        """Return the same period, knowing which whole billing period it was cut from; what is part
        of none, as it is.

        Periods of the subscription's own know it already. Those of a caller or a file are start and
        end alone.
        """
        whole = self.cycle.period_at(require_kind(BillingPeriod, period, "period").start)
        is_part = period != whole and period.end <= whole.end
        return attrs.evolve(period, cut_from=whole if is_part else None)

    def require_ended(self, period: BillingPeriod, now: datetime | int) -> None:
        """Refuse a period that is not one of this subscription's or that has not ended.

        Raises:
            InvoicingError: ``period_not_of_subscription`` or ``period_not_ended``.
        """
        require_kind(BillingPeriod, period, "period")
        own = self.period_at(period.start)
        if own != period:
            expected = "a period in its life" if own is None else f"{own}"
            message = (
                f"period: expected a billing period of subscription {self.id!r} ({expected}), "
                f"received {period}"
            )
            raise InvoicingError(ErrorCode.PERIOD_NOT_OF_SUBSCRIPTION, message, param="period")
        at = instant(now, "now")
        if at < period.end:
            message = (
                f"now: expected a moment at or after the end of {period}, received {at.isoformat()}"
            )
            raise InvoicingError(ErrorCode.PERIOD_NOT_ENDED, message, param="now")

    def invoice_id(self, period: BillingPeriod) -> str:
        """Return the id of the invoice that bills the period: equal inputs give equal ids."""
        return f"in_{self.id}_{require_kind(BillingPeriod, period, 'period').start_seconds}"

    def canceled(self, at: datetime | int) -> Self:
        """Return the subscription as it is once it has ended at this instant."""
        return attrs.evolve(self, ended_at=at)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], prices: Mapping[str, Price] | None = None) -> Self:
        """Read Stripe's Subscription shape; ``items`` is a list or Stripe's list object, times are
        Unix seconds.

        An aware datetime is taken where Unix seconds are. Each field is judged by what it means for
        a bill (:mod:`metering_core.stripe_fields`): it is read, or alters nothing, or is refused
        unless it is empty. What a newer version of Stripe's API adds is read past and named in
        ``ignored``; an object without ``"object"`` is your own, where an unknown key is refused.

        A trial is free: what is read begins at ``trial_end``. It ends at ``ended_at``, else at
        ``cancel_at``, else with ``cancel_at_period_end`` where the current period does.

        Raises:
            InvalidValueError: ``field_not_billable`` for what alters a bill and is not billed:
                discounts, taxes, a pause, more items than the page holds, a status that owes
                nothing.
        """
        read = judged(data, "subscription")
        items = [
            SubscriptionItem.from_dict(item, prices) for item in _items_of(required(data, "items"))
        ]
        thresholds = data.get("billing_thresholds")
        return cls(
            required(data, "id"),
            items,
            required(data, "billing_cycle_anchor"),
            currency="" if data.get("currency") is None else data["currency"],
            billing_thresholds=None
            if thresholds is None
            else BillingThresholds.from_dict(thresholds),
            timezone="UTC" if data.get("timezone") is None else data["timezone"],
            start_date=_billed_from(data),
            ended_at=_billed_until(data),
            customer=_customer_id(data.get("customer")),
            ignored=read.ignored,
        )

    def to_dict(self) -> dict[str, Any]:
        """Write Stripe's Subscription shape, ready for JSON."""
        thresholds = self.billing_thresholds
        return {
            "id": self.id,
            "object": "subscription",
            "billing_cycle_anchor": unix_seconds(self.billing_cycle_anchor),
            "billing_thresholds": None if thresholds is None else thresholds.to_dict(),
            "currency": self.currency,
            **({} if self.customer is None else {"customer": self.customer}),
            "ended_at": None if self.ended_at is None else unix_seconds(self.ended_at),
            "items": [item.to_dict() for item in self.items],
            "start_date": unix_seconds(self.start_date),
            "timezone": self.timezone,
        }


def _customer_id(given: object) -> Any:
    """Return a customer's id; Stripe gives the whole customer where it is expanded."""
    return (
        judged(given, "customer", "customer").data.get("id")
        if isinstance(given, Mapping)
        else given
    )


def _items_of(given: object) -> list[Any] | tuple[Any, ...]:
    """Return a list of items, or the data of Stripe's list object, which must have them all."""
    if isinstance(given, Mapping) and "data" in given:
        if not is_empty(given.get("has_more")):
            expected = (
                "false, because items beyond the page would not be billed: list them all, and "
                "give them as the items"
            )
            raise InvalidValueError.expecting(
                ErrorCode.FIELD_NOT_BILLABLE, "items[has_more]", expected, given["has_more"]
            )
        given = given["data"]
    if not isinstance(given, list | tuple):
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_OBJECT, "items", "a list of items", given
        )
    return given


def _billed_from(data: Mapping[str, Any]) -> Any:
    """Return where what is owed begins: at the end of a trial, or at the start."""
    start, trial_end = data.get("start_date"), data.get("trial_end")
    if is_empty(trial_end):
        return start
    ends = instant(trial_end, "trial_end")
    ended_at = _billed_until(data)
    if ended_at is not None and instant(ended_at, "ended_at") <= ends:
        expected = (
            "an instant before the subscription's end, because nothing is owed for a trial "
            "alone: leave it out"
        )
        raise InvalidValueError.expecting(
            ErrorCode.FIELD_NOT_BILLABLE, "trial_end", expected, trial_end
        )
    return ends if start is None else max(ends, instant(start, "start_date"))


def _billed_until(data: Mapping[str, Any]) -> Any:
    for key in ("ended_at", "cancel_at"):
        if data.get(key) is not None:
            return data[key]
    return None if is_empty(data.get("cancel_at_period_end")) else current_period_end(data)


# In documents, which hold each price once ---------------------------------------------------------


def subscription_fields(subscription: Subscription, table: PriceTable) -> dict[str, Any]:
    """Write a subscription, its prices into the table."""
    thresholds = subscription.billing_thresholds
    ended_at = subscription.ended_at
    return {
        "id": subscription.id,
        "items": [item_fields(item, table) for item in subscription.items],
        "billing_cycle_anchor": unix_seconds(subscription.billing_cycle_anchor),
        "billing_thresholds": None if thresholds is None else thresholds.to_dict(),
        "currency": subscription.currency,
        **({} if subscription.customer is None else {"customer": subscription.customer}),
        "ended_at": None if ended_at is None else unix_seconds(ended_at),
        "start_date": unix_seconds(subscription.start_date),
        "timezone": subscription.timezone,
    }


def item_fields(item: SubscriptionItem, table: PriceTable) -> dict[str, Any]:
    """Write a subscription item, its price into the table."""
    thresholds = item.billing_thresholds
    return {
        "id": item.id,
        "price": table.refer(item.price),
        "quantity": item.quantity,
        "billing_thresholds": None if thresholds is None else thresholds.to_dict(),
    }


def _write_subscription(subscription: Subscription, shared: Shared | None) -> dict[str, Any]:
    assert isinstance(shared, PriceTable), "who writes a subscription has a table of prices"
    return subscription_fields(subscription, shared)


def _read_subscription(data: object, param: str, shared: Shared | None) -> Subscription:
    given = require_object(data, param)
    with within(param):
        return Subscription.from_dict(
            given, shared.known if isinstance(shared, PriceTable) else None
        )


ROWS[Subscription] = Row(_write_subscription, _read_subscription)

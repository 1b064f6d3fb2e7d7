"""What a log knows about the subscriptions and items whose usage it takes; for the log and its
views only.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import attrs

from metering_core.acceptance import (
    AcceptancePolicy,
    LateAttribution,
    Outcome,
    Receipt,
    current_period,
    id_reused,
    item_unknown,
    late_refusal,
    period_closed,
    price_refusal,
    set_refusal,
    standing_at,
)
from metering_core.cells import PeriodCells
from metering_core.errors import ErrorCode, InvalidValueError, InvoicingError
from metering_core.measures import AGGREGATORS
from metering_core.meters import Formula
from metering_core.periods import BillingPeriod, Instant, from_unix_seconds, instant, iso_8601
from metering_core.prices import AggregateUsage, Price, terms_of
from metering_core.subscriptions import Subscription, SubscriptionItem
from metering_core.usage import Action, Timestamp

if TYPE_CHECKING:  # Invoices are made above this module; here they are kept.
    from metering_core.invoicing import Invoice

_NEVER: Final = -(2**62)
"""The end of a current period that is not known: before every moment."""


@attrs.frozen
class Closing:
    """A billing period that was finalized: its usage cannot change any more.

    Attributes:
        period: what was billed; a later version of the subscription may cut it elsewhere.
        closed_at: when it was closed first, UTC.
        invoice: what was billed, which is what finalizing again returns, whatever came since; None
            where it was closed without.
    """

    period: BillingPeriod
    closed_at: datetime
    invoice: Invoice | None = attrs.field(default=None, hash=False)

    def price_of(self, item: SubscriptionItem) -> Price | None:
        """Return what billed an item: the price on its invoice, the item's own without invoice,
        None where none billed it.
        """
        if self.invoice is None:
            return item.price
        return next(
            (line.price for line in self.invoice.lines if line.subscription_item == item.id), None
        )

    def knew(self, generation: type[AggregateUsage | Formula]) -> int:
        """Return the number of the last record, or event, that the invoice was made of; 0 where its
        lines do not say.
        """
        lines = () if self.invoice is None else self.invoice.lines
        made_of = (line.usage for line in lines if isinstance(line.aggregate_usage, generation))
        return max((usage.sequence or 0 for usage in made_of if usage is not None), default=0)


@attrs.frozen
class Sent:
    """What an id was first accepted with, as it was sent: that a retry is recognised by.

    Attributes:
        sequence: the number of the record.
        timestamp: Unix seconds, resolved.
        quantity: as sent.
        is_set: as sent.
        as_now: whether the timestamp was sent as ``"now"``; a retry of it says ``"now"`` again.
    """

    sequence: int
    timestamp: int
    quantity: int
    is_set: bool
    as_now: bool

    def answer(
        self, record_id: str, quantity: int, timestamp: Timestamp, *, is_set: bool
    ) -> Receipt:
        """Answer a record that comes with the same id: a duplicate, or the id is reused for other
        content.
        """
        first = _content(
            self.quantity, "now" if self.as_now else self.timestamp, is_set=self.is_set
        )
        received = _content(quantity, timestamp, is_set=is_set)
        if received != first:
            return id_reused(record_id, first, received)
        return Receipt(Outcome.DUPLICATE, self.sequence, details={"timestamp": self.timestamp})


def _content(quantity: int, timestamp: Timestamp, *, is_set: bool) -> dict[str, Any]:
    action = Action.SET if is_set else Action.INCREMENT
    return {"quantity": quantity, "timestamp": timestamp, "action": action.value}


class Account:
    """One subscription: its newest version, its items, its current period, and what was finalized
    of it.
    """

    __slots__ = ("closed", "end", "items", "start", "subscription")

    def __init__(self, subscription: Subscription) -> None:
        # By the start of the cycle's period, which stays when a later version of the subscription
        # cuts it shorter.
        self.closed: dict[int, Closing] = {}
        # The ids of all items that versions of it had, in the order in which they came.
        self.items: dict[str, None] = {}
        self.start = 0
        self.take(subscription)

    def take(self, subscription: Subscription) -> None:
        """Take note of a version of the subscription."""
        self.forget_current()
        self.subscription = subscription

    def forget_current(self) -> None:
        """Have the current period looked up again."""
        self.end = _NEVER  # One assignment: an interrupt cannot leave the bounds of two periods.

    def is_current(self, first: int, last: int, now: int) -> bool:
        """Whether timestamps from ``first`` to ``last`` plainly lie in the open current period and
        not in the future.

        Between the bounds that are remembered here no other rule of time needs to be asked.
        """
        if not self.start <= now < self.end:
            self._look_up_current(now)
        return self.start <= first and last <= now < self.end

    def _look_up_current(self, now: int) -> None:
        current = current_period(self.subscription, now)
        self.forget_current()
        if current is not None and self.closing(current.start_seconds, looks_back=True) is None:
            self.start = current.start_seconds
            self.end = current.end_seconds

    def closing(self, timestamp: int, *, looks_back: bool = False) -> Closing | None:
        """Return the closing that forbids usage at the timestamp, if there is one.

        It is that of the timestamp's own period; for a mode that looks back also that of any later
        one, because a record in an open period would change the ``last_ever`` of a later one that
        was billed already.
        """
        if not self.closed:
            return None
        own = self.closed.get(self._start_of(timestamp))
        if own is None and looks_back:
            latest = self.closed[max(self.closed)]
            return latest if timestamp < latest.period.end_seconds else None
        return own

    def judge_closed(
        self,
        item: SubscriptionItem,
        timestamp: int,
        now: int,
        policy: AcceptancePolicy,
        *,
        is_set: bool,
    ) -> Receipt | int | None:
        """Judge usage that nothing but a finalized period may forbid: the one place that says what
        becomes of late usage.

        Returns:
            None where its period is open; else the start of the open period that bills it, or why
            it is refused.
        """
        mode = item.recurring.aggregate_usage
        looks_back = mode is not None and AGGREGATORS[mode].looks_back
        closing = self.closing(timestamp, looks_back=looks_back)
        if closing is None:
            return None
        current = standing_at(self.subscription, now, policy).current
        if (
            policy.late_attribution is not LateAttribution.OPEN_PERIOD
            or current is None
            or timestamp >= current.start_seconds
            or self.closing(current.start_seconds, looks_back=looks_back) is not None
        ):
            return period_closed(timestamp, closing.period, closing.closed_at)
        refusal = late_refusal(
            timestamp,
            closing.period,
            closing.closed_at,
            item,
            closing.price_of(item),
            is_set=is_set,
        )
        return current.start_seconds if refusal is None else refusal

    def is_billed(self, timestamp: int) -> bool:
        """Whether the invoice of the timestamp's own period is kept; closed without one, it is
        still to be billed.
        """
        closing = self.closing(timestamp)
        return closing is not None and closing.invoice is not None

    def to_close(self, period: BillingPeriod, now: Instant) -> Closing:
        """Return the closing of a period that has ended: of the moment when it was closed first,
        else of ``now``.

        Raises:
            InvoicingError: ``period_not_of_subscription``, or ``period_not_ended`` before the
                period's end.
        """
        self.subscription.require_ended(period, now)
        former = self.closing(period.start_seconds)
        if former is None:
            return Closing(period, instant(now, "now"))
        return former if former.invoice is not None else Closing(period, former.closed_at)

    def finalized(self, period: BillingPeriod) -> Closing | None:
        """Return the closing of a period that was closed with an invoice, as it was cut then or is
        cut now.
        """
        closing = self.closing(period.start_seconds)
        if closing is None or closing.invoice is None:
            return None
        return (
            closing
            if period in {closing.period, self.subscription.period_at(period.start)}
            else None
        )

    def latest_closed(self) -> BillingPeriod | None:
        """Return the closed period that ended last; None where none was closed."""
        return max(
            (one.period for one in self.closed.values()), key=lambda one: one.end, default=None
        )

    def invoices(self) -> dict[int, Invoice | None]:
        """Return what was billed of each closed period, by its start in Unix seconds."""
        return {start: one.invoice for start, one in self.closed.items()}

    def close(self, closing: Closing) -> None:
        """Let no more usage into a period."""
        self.forget_current()
        self.closed[self._start_of(closing.period.start_seconds)] = closing

    def _start_of(self, timestamp: int) -> int:
        return self.subscription.cycle.period_at(from_unix_seconds(timestamp)).start_seconds


def refuse_told_otherwise(
    told: Subscription, given: Subscription, bills: Callable[[SubscriptionItem], bool]
) -> None:
    """Refuse to bill another version of a subscription than the one that a log was told.

    Compared is what makes a bill; names, labels, metadata and the order of the items do not.

    Args:
        told: the version that the log knows.
        given: the version that is to be billed.
        bills: whether an item is the log's to bill. Another log beside it judges the others.

    Raises:
        InvalidValueError: ``change_not_billable``; ``param`` names the field that differs.
    """
    for field in _OF_ALL_ITEMS:
        former, newer = getattr(told, field), getattr(given, field)
        if former != newer:
            expected = _written(former) if isinstance(former, datetime) else repr(former)
            raise _untold(field, expected, _written(newer))
    known = {item.id: item for item in told.items if bills(item)}
    for place, item in enumerate(given.items):
        if bills(item):
            _refuse_item_told_otherwise(known, item, f"items[{place}]")
    for one in known.values():
        raise _untold("items", f"also the item {one.id!r}", "no such item")


_OF_ALL_ITEMS: Final = (
    *("customer", "currency", "billing_cycle_anchor", "timezone"),
    *("start_date", "ended_at"),
)
"""What of a subscription makes the bill of each of its items."""


def _refuse_item_told_otherwise(
    known: dict[str, SubscriptionItem], item: SubscriptionItem, param: str
) -> None:
    """Refuse an item on other terms than it was told with, and take it out of those to come."""
    if item.id not in known:
        names = ", ".join(map(repr, known)) or "(none)"
        raise _untold(param, f"one of the items {names}", item.id)
    one = known.pop(item.id)
    if terms_of(one.price) != terms_of(item.price):
        expected = f"{one.price.id!r} on the terms that were told"
        raise _untold(f"{param}[price]", expected, item.price.id)
    if one.quantity != item.quantity:
        raise _untold(f"{param}[quantity]", f"{one.quantity}", item.quantity)


def _written(value: object) -> object:
    return iso_8601(value) if isinstance(value, datetime) else value


def _untold(param: str, expected: object, received: object) -> InvalidValueError:
    way_out = (
        "tell it this version first: log.subscribe(...), of files or a cluster subscriptions=; "
        "or bill the version it has"
    )
    expected = f"{expected}, as the usage was told ({way_out})"
    return InvalidValueError.expecting(ErrorCode.CHANGE_NOT_BILLABLE, param, expected, received)


def unknown_item(item_id: str) -> InvoicingError:
    """Return the refusal of a question for an item that there is not."""
    message = item_unknown(item_id).message or ""
    return InvoicingError(ErrorCode.SUBSCRIPTION_ITEM_UNKNOWN, message, param="subscription_item")


class KnownItem:
    """One subscription item of usage records, as the newest version of its subscription has it."""

    __slots__ = ("account", "code", "is_active", "is_plain", "item")

    def __init__(self, code: int, item: SubscriptionItem, account: Account) -> None:
        self.code = code
        self.account = account
        self.take(item)

    def take(self, item: SubscriptionItem) -> None:
        """Take the item as a version of its subscription has it."""
        self.item = item
        self.is_active = True
        # A plain item refuses nothing but what time refuses, which is what the fast paths rely on.
        subscription = self.account.subscription
        self.is_plain = (
            price_refusal(item) is None and set_refusal(item, subscription, is_set=True) is None
        )

    def drop(self) -> None:
        """Take no more usage: the newest version of the subscription has no such item."""
        self.is_active = self.is_plain = False

    def is_settled(self, cells: PeriodCells, latest: datetime | None) -> bool:
        """Whether a period's cells can be asked for as a whole only: finalized, ended by
        ``latest``, and holding them all.
        """
        closing = self.account.closing(cells.start)
        if closing is None or cells.is_empty() or cells.kept is not None:
            return False
        low, high = cells.bounds()
        is_whole = closing.period.start_seconds <= low and high < closing.period.end_seconds
        return is_whole and (latest is None or closing.period.end <= latest)

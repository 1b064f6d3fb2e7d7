"""From usage records to meter events: replay what was used, and show that both generations bill the same, or why they cannot.

Meters have no ``set``, so what is replayed is not the records but their cells: one event for each item and timestamp, with what
the records there come to. A price moves to a meter whose formula does what its ``aggregate_usage`` did.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Final, Self

import attrs

from metering_core.aggregation import summarize
from metering_core.exact import Number, plain
from metering_core.meter_acceptance import MeterPolicy
from metering_core.meter_events import MeterEvent
from metering_core.meter_log import MeterLog
from metering_core.meters import EVENT_NAME_MAX, Formula, Meter
from metering_core.names import NAME_MAX, require_iterable
from metering_core.periods import SECONDS_MAX, SECONDS_MIN, BillingPeriod, Instant, instant
from metering_core.prices import AggregateUsage
from metering_core.rating import settled_total
from metering_core.subscriptions import Subscription, SubscriptionItem
from metering_core.views import UsageReader

STRIPE_DIGITS: Final = 15

_FORMULAS: Final = {
    AggregateUsage.SUM: Formula.SUM,
    AggregateUsage.MAX: Formula.MAX,
    AggregateUsage.LAST_DURING_PERIOD: Formula.LAST,
    AggregateUsage.LAST_EVER: Formula.LAST,
}
_ATTRIBUTED: Final = "late records were billed in a later period than their timestamps lie in, and an event never is"
_ALL_TIME: Final = BillingPeriod(SECONDS_MIN, SECONDS_MAX)
_NOT_AT_STRIPE: Final = {
    AggregateUsage.MAX: "Stripe's meters have no formula 'max'",
    AggregateUsage.LAST_EVER: "Stripe's formula 'last' is 0 in a period without events, where last_ever looked back",
}


@attrs.frozen
class MigratedPeriod:
    """What one item's usage in one period comes to in both generations.

    Attributes:
        subscription_item: the item's id, the same in both.
        period: the billing period.
        aggregate_usage: how its usage records are aggregated.
        records: the quantity that the usage records come to.
        events: the quantity that the replayed events come to; None where the item cannot move to a meter.
        records_amount: what the quantity of the records costs, in settled minor units.
        events_amount: what the quantity of the events costs; None as above.
        reason: why both differ, or why the item cannot move; None where they bill the same.
    """

    subscription_item: str
    period: BillingPeriod
    aggregate_usage: AggregateUsage
    records: Number
    events: Number | None
    records_amount: int
    events_amount: int | None
    reason: str | None

    @property
    def is_equal(self) -> bool:
        """Whether both generations bill the same quantity and the same amount."""
        return self.records == self.events and self.records_amount == self.events_amount

    def __str__(self) -> str:
        """Return the comparison as a sentence."""
        left = f"{self.subscription_item} in {self.period}: {self.aggregate_usage.value} {plain(self.records)}"
        if self.is_equal:
            return f"{left}, the same from events"
        right = "no events" if self.events is None else f"{plain(self.events)} from events"
        return f"{left}, {right}: {self.reason}"


@attrs.frozen
class Migration:
    """Usage records replayed as meter events.

    Attributes:
        log: a meter log with the new meters, the moved subscriptions and the events.
        subscriptions: as given, with each item that can move on a price with a meter (the same id, ``_metered`` after the
            price's); where an item cannot, it keeps its price.
        events: the events, in the order of their timestamps for each item.
        periods: the comparison, for each item of usage records and each of its periods.
    """

    log: MeterLog
    subscriptions: tuple[Subscription, ...]
    events: tuple[MeterEvent, ...]
    periods: tuple[MigratedPeriod, ...]

    @property
    def is_equal(self) -> bool:
        """Whether both generations bill the same everywhere."""
        return all(one.is_equal for one in self.periods)


def migrate_to_meters(
    usage: UsageReader, subscriptions: Iterable[Subscription], *, now: Instant, stripe_formulas: bool = True
) -> Migration:
    """Replay usage records into meter events, and compare what both generations bill in every period that began by ``now``.

    Customers are the subscriptions' ``customer``, or the subscription's own id where it has none. There is one meter for each
    price; an item gets one of its own where its customer has another item on the same price, because the two would count the
    same events.

    Args:
        usage: a log or a view of it; its records are read, and nothing is changed.
        subscriptions: whose items to move.
        now: which periods have begun.
        stripe_formulas: whether only what Stripe's meters have is used: ``sum`` and ``last``, values of up to 15 digits.
            Otherwise ``max`` and ``last_ever`` move too, to our formula ``max`` and to ``last`` with ``carry_forward``.

    Raises:
        InvoicingError: ``subscription_item_unknown`` for an item that the usage does not know.
        UsageCompactedError: where records were dropped, because a total cannot be replayed.
    """
    at = instant(now, "now")
    given = tuple(require_iterable(subscriptions, "subscriptions"))
    log = MeterLog(policy=MeterPolicy.history(significant_digits=STRIPE_DIGITS if stripe_formulas else None))
    moves = [_Move.of(one, subscription, stripe_formulas) for subscription in given for one in subscription.items]
    meters = _meters(moves)
    moved = tuple(_on_meters(subscription, meters, log) for subscription in given)
    events: list[MeterEvent] = []
    periods: list[MigratedPeriod] = []
    for move in moves:
        if move.mode is not None:
            reason = move.reason
            if reason is None:
                replayed = list(_events(move, meters[move.item.id], usage))
                refused = next(iter(log.append(replayed, now=at).rejected.values()), None)
                reason = None if refused is None else refused.message
                events += replayed
            periods += _compared(move, usage, log, reason, at)
    return Migration(log, moved, tuple(events), tuple(periods))


@attrs.frozen
class _Move:
    """An item on its way to a meter: how it aggregates usage records (None: not at all), and why it cannot move."""

    item: SubscriptionItem
    subscription: Subscription
    mode: AggregateUsage | None
    reason: str | None

    @classmethod
    def of(cls, item: SubscriptionItem, subscription: Subscription, stripe_formulas: bool) -> Self:  # noqa: FBT001 - passed on
        mode = item.recurring.aggregate_usage
        reason = _NOT_AT_STRIPE.get(mode) if stripe_formulas and mode is not None else None
        return cls(item, subscription, mode, reason)

    @property
    def customer(self) -> str:
        return self.subscription.customer or self.subscription.id


def _meters(moves: Iterable[_Move]) -> dict[str, Meter]:
    """Return the meter of each item that moves: that of its price, or one of its own where its customer has that already."""
    taken: set[tuple[str, str]] = set()
    meters: dict[str, Meter] = {}
    for move in moves:
        if move.mode is None or move.reason is not None:
            continue
        key = (move.item.price.id, move.customer)
        event_name = move.item.id if key in taken else move.item.price.id
        taken.add(key)
        looks_back = move.mode is AggregateUsage.LAST_EVER
        meters[move.item.id] = Meter(
            f"mtr_{event_name}"[:NAME_MAX], event_name[:EVENT_NAME_MAX], _FORMULAS[move.mode], carry_forward=looks_back
        )
    return meters


def _on_meters(subscription: Subscription, meters: Mapping[str, Meter], log: MeterLog) -> Subscription:
    """Return the subscription with its items on their meters, and have the log bill it."""
    for meter in (meters[item.id] for item in subscription.items if item.id in meters):
        if meter not in log.meters:
            log.create_meter(meter)
    items = [_on_meter(item, meters[item.id]) if item.id in meters else item for item in subscription.items]
    moved = attrs.evolve(subscription, items=items, customer=subscription.customer or subscription.id)
    log.subscribe(moved)
    return moved


def _on_meter(item: SubscriptionItem, meter: Meter) -> SubscriptionItem:
    recurring = attrs.evolve(item.recurring, aggregate_usage=None, meter=meter.id)
    price = attrs.evolve(item.price, id=f"{item.price.id}_metered"[:NAME_MAX], recurring=recurring)
    return attrs.evolve(item, price=price)


def _events(move: _Move, meter: Meter, usage: UsageReader) -> Iterator[MeterEvent]:
    """Yield one event for each cell of the item, in the order of time."""
    for cell in usage.cells(move.item.id, _ALL_TIME):
        payload = {meter.customer_payload_key: move.customer, meter.value_payload_key: plain(cell.quantity)}
        identifier = f"{move.item.id}:{cell.timestamp}"
        yield MeterEvent(
            meter.event_name,
            payload,
            identifier=identifier if len(identifier) <= EVENT_NAME_MAX else None,
            timestamp=cell.timestamp,
        )


def _compared(move: _Move, usage: UsageReader, log: MeterLog, reason: str | None, at: datetime) -> Iterator[MigratedPeriod]:
    """Yield what both generations come to in every period of the item that began."""
    item, subscription = move.item, move.subscription
    assert move.mode is not None, "it aggregates usage records"
    moved = log.subscriptions
    for summary in reversed(usage.summaries(item.id, now=at)):
        period = subscription.period_at(summary.start)
        assert period is not None, "summaries are of the subscription's own periods"
        records = summary.total_usage
        events = None
        if move.reason is None:
            new = next(one for one in moved if one.id == subscription.id).item(item.id)
            events = summarize(new, log, period).total_usage
        both = records, events
        amounts = [None if quantity is None else settled_total(item.price, quantity) for quantity in both]
        why = None if records == events else reason or _ATTRIBUTED
        yield MigratedPeriod(item.id, period, move.mode, records, events, amounts[0] or 0, amounts[1], why)

"""From usage records to meter events: replay what was used, and show that both generations bill the
same, or why they cannot.

Meters have no ``set``, so what is replayed is not the records but their cells: one event for each
item and timestamp, with what the records there come to. A price moves to a meter whose formula does
what its ``aggregate_usage`` did.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import count, groupby, takewhile
from operator import attrgetter
from typing import Final

import attrs

from metering_core.aggregation import summarize
from metering_core.codec import Storable
from metering_core.errors import shown
from metering_core.exact import Number, plain
from metering_core.measures import AGGREGATORS, formula_like
from metering_core.meter_acceptance import MeterPolicy
from metering_core.meter_events import MeterEvent
from metering_core.meter_log import MeterLog
from metering_core.meters import EVENT_NAME_MAX, Formula, Meter
from metering_core.names import each_of, flag, require_kind
from metering_core.periods import SECONDS_MAX, SECONDS_MIN, BillingPeriod, Instant, instant
from metering_core.prices import AggregateUsage
from metering_core.rating import settled_total
from metering_core.subscriptions import Subscription, SubscriptionItem
from metering_core.views import UsageReader

STRIPE_DIGITS: Final = 15

_ATTRIBUTED: Final = (
    "late records were billed in a later period than their timestamps lie in, and an event never is"
)
_METER_PREFIX: Final = "mtr_"
_DIGEST_DIGITS: Final = 16
_ALL_TIME: Final = BillingPeriod(SECONDS_MIN, SECONDS_MAX)
_AT_STRIPE: Final = (Formula.SUM, Formula.COUNT, Formula.LAST)


@attrs.frozen
class MigratedPeriod(Storable):
    """What one item's usage in one period comes to in both generations.

    Attributes:
        subscription_item: the item's id, the same in both.
        period: the billing period.
        aggregate_usage: how its usage records are aggregated.
        records: the quantity that the usage records come to.
        events: the quantity that the replayed events come to; None where the item cannot move to a
            meter.
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
        left = (
            f"{shown(self.subscription_item)} in {self.period}: {self.aggregate_usage.value} "
            f"{plain(self.records)}"
        )
        if self.is_equal:
            return f"{left}, the same from events"
        right = "no events" if self.events is None else f"{plain(self.events)} from events"
        return f"{left}, {right}: {None if self.reason is None else shown(self.reason)}"


@attrs.frozen
class Migration:
    """Usage records replayed as meter events.

    Attributes:
        log: a meter log with the new meters, the events, and the moved subscriptions but for items
            on meters it was not given.
        subscriptions: as given, with each item that can move on a price with a meter (the same item
            id; the price's is the meter's event name and ``_metered``); where an item cannot, it
            keeps its price.
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
    usage: UsageReader,
    subscriptions: Iterable[Subscription],
    *,
    now: Instant,
    stripe_formulas: bool = True,
    meters: Iterable[Meter] = (),
) -> Migration:
    """Replay usage records into meter events, and compare what both generations bill in every
    period that began by ``now``.

    Customers are the subscriptions' ``customer``, or the subscription's own id where it has none.
    There is one meter for each price; an item gets one of its own where its customer has another
    item on the same price, because the two would count the same events. A meter has the name of its
    price or item: with ``_2`` and so on where that is taken, and with a digest at its end where it
    is cut to the 100 characters of an event name.

    Items that are on a meter already stay there, and are no part of the comparison.

    Args:
        usage: a log or a view of it; its records are read, and nothing is changed.
        subscriptions: whose items to move.
        now: which periods have begun.
        stripe_formulas: whether only what Stripe's meters have is used: ``sum`` and ``last``,
            values of up to 15 digits. Otherwise ``max`` and ``last_ever`` move too, to our formula
            ``max`` and to ``last`` with ``carry_forward``.
        meters: those that items are on already; the log gets them and bills these items too (where
            the meter is active), and no new meter takes a name of theirs.

    Raises:
        InvoicingError: ``subscription_item_unknown`` for an item that the usage does not know.
        UsageCompactedError: where records were dropped, because a total cannot be replayed.
    """
    at = instant(now, "now")
    require_kind(UsageReader, usage, "usage", "a UsageLog or a view of it")
    flag(stripe_formulas, "stripe_formulas")
    given = tuple(each_of(Subscription, subscriptions, "subscriptions"))
    digits = STRIPE_DIGITS if stripe_formulas else None
    log = MeterLog(meters, policy=MeterPolicy.history(significant_digits=digits))
    moves = list(_moves(given, stripe_formulas=stripe_formulas))
    new = _meters(moves, _taken(log.meters, given))
    for meter in dict.fromkeys(new.values()):
        log.create_meter(meter)
    moved = tuple(_on_meters(subscription, new) for subscription in given)
    for subscription in moved:
        _subscribe(log, subscription)
    events: list[MeterEvent] = []
    periods: list[MigratedPeriod] = []
    for move in moves:
        own = new.get(move.item.id)
        replayed = [] if own is None else list(_events(move, own, usage))
        refused = _appended(log, replayed, at)
        events += replayed
        periods += _compared(move, own, usage, log, refused, at)
    return Migration(log, moved, tuple(events), tuple(periods))


@attrs.frozen
class _Move:
    """An item of usage records on its way to a meter: how it aggregates them, and why it cannot
    move.
    """

    item: SubscriptionItem
    subscription: Subscription
    mode: AggregateUsage
    reason: str | None

    @property
    def customer(self) -> str:
        return self.subscription.customer or self.subscription.id

    @property
    def kind(self) -> tuple[str, AggregateUsage]:
        """What items share a meter by."""
        return self.item.price.id, self.mode


def _moves(subscriptions: Iterable[Subscription], *, stripe_formulas: bool) -> Iterator[_Move]:
    for subscription in subscriptions:
        for item in subscription.items:
            mode = item.recurring.aggregate_usage
            if mode is not None:
                yield _Move(item, subscription, mode, _lack(mode) if stripe_formulas else None)


def _taken(meters: Iterable[Meter], subscriptions: Iterable[Subscription]) -> set[str]:
    """Return the event names that no new meter may have: it would have the event name, or the id,
    of another meter.
    """
    items = (item for subscription in subscriptions for item in subscription.items)
    ids = [*(meter.id for meter in meters), *(item.recurring.meter or "" for item in items)]
    return {
        *(meter.event_name for meter in meters),
        *(meter_id.removeprefix(_METER_PREFIX) for meter_id in ids),
    }


def _meters(moves: Iterable[_Move], taken: set[str]) -> dict[str, Meter]:
    """Return the meter of each item that moves: that of its price, or one of its own where its
    customer has that already.
    """
    moving = [move for move in moves if move.reason is None]
    shared = {kind: _meter(*kind, taken) for kind in dict.fromkeys(move.kind for move in moving)}
    counted: set[tuple[object, str]] = set()
    meters: dict[str, Meter] = {}
    for move in moving:
        meter = shared[move.kind]
        if (move.kind, move.customer) in counted:
            meter = _meter(move.item.id, move.mode, taken)
        counted.add((move.kind, move.customer))
        meters[move.item.id] = meter
    return meters


def _lack(mode: AggregateUsage) -> str | None:
    """Return why none of Stripe's own formulas measures as a mode does; None where one does."""
    formula = formula_like(mode)
    if formula not in _AT_STRIPE:
        return f"Stripe's meters have no formula {formula.value!r}"
    if AGGREGATORS[mode].looks_back:
        is_zero = f"Stripe's formula {formula.value!r} is 0 in a period without events"
        return f"{is_zero}, where {mode.value} looked back"
    return None


def _meter(named_after: str, mode: AggregateUsage, taken: set[str]) -> Meter:
    """Return a meter under the first name that is free, and note that it is taken."""
    names = (named_after if number == 1 else f"{named_after}_{number}" for number in count(1))
    event_name = next(one for one in map(_cut, names) if one not in taken)
    taken.add(event_name)
    looks_back = AGGREGATORS[mode].looks_back
    return Meter(
        f"{_METER_PREFIX}{event_name}", event_name, formula_like(mode), carry_forward=looks_back
    )


def _cut(text: str) -> str:
    """Return a text as an event name or an identifier: with a digest of the whole at its end where
    it is too long.
    """
    if len(text) <= EVENT_NAME_MAX:
        return text
    # JSON may hold half of a surrogate pair, which UTF-8 cannot write.
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST_DIGITS]
    return f"{text[: EVENT_NAME_MAX - _DIGEST_DIGITS - 1]}_{digest}"


def _on_meters(subscription: Subscription, meters: Mapping[str, Meter]) -> Subscription:
    """Return the subscription with its items on their meters."""
    items = [
        _on_meter(item, meters[item.id]) if item.id in meters else item
        for item in subscription.items
    ]
    customer = subscription.customer or subscription.id
    return attrs.evolve(subscription, items=items, customer=customer)


def _on_meter(item: SubscriptionItem, meter: Meter) -> SubscriptionItem:
    recurring = attrs.evolve(item.recurring, aggregate_usage=None, meter=meter.id)
    price = attrs.evolve(item.price, id=f"{meter.event_name}_metered", recurring=recurring)
    return attrs.evolve(item, price=price)


def _subscribe(log: MeterLog, subscription: Subscription) -> None:
    """Have the log bill a subscription, but for the items whose meters it has not, or cannot take
    new items for.
    """
    billed = {None, *(meter.id for meter in log.meters if meter.is_active)}
    items = [item for item in subscription.items if item.recurring.meter in billed]
    if items:
        log.subscribe(attrs.evolve(subscription, items=items))


def _events(move: _Move, meter: Meter, usage: UsageReader) -> Iterator[MeterEvent]:
    """Yield one event for each cell of the item, in the order of time."""
    customer, value = meter.customer_payload_key, meter.value_payload_key
    held = usage.cells(move.item.id, _ALL_TIME)
    for timestamp, cells in groupby(held, key=attrgetter("timestamp")):
        for number, cell in enumerate(cells, start=1):
            payload = {customer: move.customer, value: plain(cell.quantity)}
            # A late record that was billed in a later period has a cell of its own beside that of
            # its timestamp.
            suffix = "" if number == 1 else f"#{number}"
            identifier = _cut(f"{move.item.id}:{timestamp}{suffix}")
            yield MeterEvent(meter.event_name, payload, identifier=identifier, timestamp=timestamp)


def _appended(
    log: MeterLog, events: Sequence[MeterEvent], now: datetime
) -> dict[datetime, str | None]:
    """Append events, and return the sentences that some are refused with, by when they happened."""
    refused: dict[datetime, str | None] = {}
    for position, receipt in log.append(events, now=now).rejected.items():
        happened = events[position].instant
        assert happened is not None, "a replayed event says when"
        refused[happened] = receipt.message
    return refused


def _compared(
    move: _Move,
    meter: Meter | None,
    usage: UsageReader,
    log: MeterLog,
    refused: Mapping[datetime, str | None],
    at: datetime,
) -> Iterator[MigratedPeriod]:
    """Yield what both generations come to in every period of the item that began."""
    old = move.item
    new = None if meter is None else _on_meter(old, meter)
    for period in _periods(move, usage, at):
        records = summarize(old, usage, period).total_usage
        events = None if new is None else summarize(new, log, period).total_usage
        why = None if records == events else move.reason or _difference(move, refused, period)
        due = settled_total(old.price, records)
        as_events = None if events is None else settled_total(old.price, events)
        yield MigratedPeriod(old.id, period, move.mode, records, events, due, as_events, why)


def _periods(move: _Move, usage: UsageReader, at: datetime) -> Iterator[BillingPeriod]:
    """Yield the periods of the subscription as it was given, from the first one that the usage
    knows of.
    """
    for known in usage.summaries(move.item.id, now=at)[-1:]:
        periods = move.subscription.periods_from(known.start)
        yield from takewhile(lambda period: period.start <= at, periods)


def _difference(
    move: _Move, refused: Mapping[datetime, str | None], period: BillingPeriod
) -> str | None:
    """Return why the events of a period come to something else than its records."""
    looks_back = AGGREGATORS[move.mode].looks_back
    counted = (
        sentence
        for at, sentence in refused.items()
        if at in period or (looks_back and at < period.start)
    )
    return next(counted, _ATTRIBUTED)

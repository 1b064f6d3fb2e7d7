"""What can be asked of meter events: of the meter log as it is, and of the log as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from threading import RLock
from typing import Protocol

import attrs

from metering_core.aggregators import Partial, formula_of
from metering_core.errors import ErrorCode, InvoicingError
from metering_core.exact import Number
from metering_core.meter_acceptance import LateUsage, MeterPolicy
from metering_core.meter_bills import Bill, UnbilledDelta, total
from metering_core.meter_events import MeterEvent
from metering_core.meters import Meter
from metering_core.periods import BillingPeriod, from_unix_seconds, moment
from metering_core.readings import MICROSECONDS, Readings, window_of
from metering_core.subscriptions import Subscription, SubscriptionItem
from metering_core.timelines import Timeline
from metering_core.views import as_limit

Sees = Callable[[int, int], bool]
"""Whether a reader shows what has a number and was received at a moment (Unix microseconds)."""


@attrs.frozen
class LoggedEvent:
    """An accepted meter event with what the log added to it.

    Attributes:
        sequence: its number in the log, from 1; cancellations have numbers, too.
        received_at: the log's now when it was accepted, UTC.
        event: as it was sent, its timestamp resolved.
        canceled_at: when it was canceled, UTC; None where it was not.
    """

    sequence: int
    received_at: datetime
    event: MeterEvent
    canceled_at: datetime | None = None


class MeterSource(Protocol):
    """The meter log, as its readers see it."""

    lock: RLock
    """Held during every append and every answer."""

    @property
    def policy(self) -> MeterPolicy:
        """What is accepted."""

    @property
    def bills_made(self) -> int:
        """How many bills of items were kept."""

    def bills_of(self, item: SubscriptionItem) -> Mapping[BillingPeriod, Bill]:
        """Return what was billed of an item's closed periods."""

    def subscription(self, subscription_id: str) -> Subscription:
        """Return the newest version of a subscription."""

    def known_meter(self, meter_id: str) -> Meter:
        """Return the newest version of a meter."""

    def customer_of(self, item: SubscriptionItem) -> str:
        """Return the customer whose events an item bills."""

    def readings_until(self, sees: Sees) -> Readings:
        """Return what is read off the events that a view shows."""

    def logged(self, sees: Sees, meter: Meter | None, customer: str | None) -> Iterator[LoggedEvent]:
        """Yield the events that a reader shows."""


class MeterReader:
    """The questions that the meter log and its views answer; itself a :class:`~metering_core.Usage`.

    Attributes:
        policy: what the log accepts.
        lock: held during every append and every answer; hold it to ask several questions of one state.
    """

    policy: MeterPolicy
    lock: RLock

    @property
    def sequence(self) -> int:
        """The number of the last event or cancellation that is shown; 0 before the first."""
        raise NotImplementedError

    def _log(self) -> MeterSource:
        raise NotImplementedError

    def _readings(self) -> Readings:
        raise NotImplementedError

    def _sees(self, sequence: int, received: int) -> bool:
        raise NotImplementedError

    def meter(self, meter_id: str) -> Meter:
        """Return the newest version of a meter.

        Raises:
            InvalidValueError: ``meter_unknown``.
        """
        return self._log().known_meter(meter_id)

    def meter_of(self, item: SubscriptionItem) -> Meter:
        """Return the meter that an item's price names.

        Raises:
            InvoicingError: ``price_not_metered`` where it names none.
            InvalidValueError: ``meter_unknown``.
        """
        if item.recurring.meter is None:
            message = (
                f"subscription_item: expected an item whose price is on a meter, received {item.id!r}, whose price "
                f"{item.price.id!r} {'aggregates usage records' if item.is_metered else 'is licensed'}"
            )
            raise InvoicingError(ErrorCode.PRICE_NOT_METERED, message, param="subscription_item")
        return self.meter(item.recurring.meter)

    def customers(self, meter_id: str) -> list[str]:
        """Return the customers that have events of a meter, in the order in which they came."""
        with self._log().lock:
            return self._readings().customers(self.meter(meter_id))

    def timelines(self, meter_id: str, customer: str) -> list[tuple[tuple[str, ...], Timeline]]:
        """Return the readings of a customer by the values of the meter's dimensions; for the summaries."""
        return self._readings().timelines(self.meter(meter_id), customer)

    def partial(self, item: SubscriptionItem, period: BillingPeriod) -> Partial:
        """Return the partial of what a bill of the period counts; see :class:`~metering_core.Usage`.

        Raises:
            InvoicingError: ``price_not_metered``, or ``subscription_item_unknown``.
        """
        with self._log().lock:
            return self._bill(item, period).partial

    def partials(self, requests: Iterable[tuple[SubscriptionItem, BillingPeriod]]) -> list[Partial]:
        """Return the partials of many items at once, in the order asked."""
        with self._log().lock:
            return [self._bill(item, period).partial for item, period in requests]

    def unbilled(self, subscription_id: str) -> list[UnbilledDelta]:
        """Return where measured and billed usage of closed periods differ, by item and period.

        The differences are late events, cancellations, and what a negative total left when it was billed as 0. Under the policy
        ``carry_forward`` the next invoice of an additive formula bills them.

        Raises:
            InvalidValueError: ``parameter_invalid_choice`` for a subscription that the log does not have.
        """
        with self._log().lock:
            items = self._log().subscription(subscription_id).items
            return [delta for item in items if item.recurring.meter is not None for delta in self._deltas(item)]

    def _bill(self, item: SubscriptionItem, period: BillingPeriod) -> Bill:
        """Return what an invoice of the period counts, or counted where it was closed."""
        kept = self._known_bills(item).get(period)
        if kept is not None:
            return kept
        meter = self.meter_of(item)
        aggregator = formula_of(meter)
        partial = self._measured(item, meter, period)
        carried: dict[BillingPeriod, Number] = {}
        if self.policy.late_usage is LateUsage.CARRY_FORWARD and aggregator.is_additive:
            earlier = (one for one in self._deltas(item) if one.meter == meter.id and one.period.end <= period.start)
            carried = {one.period: one.quantity for one in earlier}
            for quantity in carried.values():
                partial = aggregator.merge(partial, quantity)
        return Bill(meter.id, partial, max(aggregator.present(partial), 0), carried, self.sequence)

    def _known_bills(self, item: SubscriptionItem) -> dict[BillingPeriod, Bill]:
        """Return the bills that had been made of an item, in the order of their periods."""
        bills = sorted(self._log().bills_of(item).items(), key=lambda one: one[0].start)
        return {period: bill for period, bill in bills if self._knows(bill)}

    def _knows(self, bill: Bill) -> bool:
        """Whether a bill had been made."""
        return True

    def _deltas(self, item: SubscriptionItem) -> list[UnbilledDelta]:
        bills = self._known_bills(item)
        deltas = []
        for period, bill in bills.items():
            # The meter that was billed, although the item may be on another one since.
            meter = self.meter(bill.meter)
            measured = formula_of(meter).present(self._measured(item, meter, period))
            later = total(other.carried[period] for other in bills.values() if period in other.carried)
            delta = UnbilledDelta(item.id, period, bill.meter, bill.own, measured, later)
            if delta.quantity:
                deltas.append(delta)
        return deltas

    def _measured(self, item: SubscriptionItem, meter: Meter, period: BillingPeriod) -> Partial:
        customer = self._log().customer_of(item)
        start, end = period.start_seconds * MICROSECONDS, period.end_seconds * MICROSECONDS
        return window_of(formula_of(meter), (one for _, one in self.timelines(meter.id, customer)), start, end)[0]

    def counted(self, item: SubscriptionItem, period: BillingPeriod) -> list[LoggedEvent]:
        """Return the events that count for an item in a period, in the order of time.

        Canceled events are not among them, nor those that a later one of their event time window overwrote. Where the formula
        looks back, the events before the period are among them.
        """
        with self._log().lock:
            meter, customer = self.meter_of(item), self._log().customer_of(item)
            start = None if formula_of(meter).looks_back else period.start_seconds * MICROSECONDS
            counting: set[int] = set()
            for _, timeline in self.timelines(meter.id, customer):
                counting.update(timeline.numbers(start, period.end_seconds * MICROSECONDS))
            logged = self._log().logged(self._sees, meter, customer)
            return sorted((one for one in logged if one.sequence in counting), key=_by_time)

    def carried(self, item: SubscriptionItem, period: BillingPeriod) -> dict[BillingPeriod, Number]:
        """Return how much of what a bill of the period counts is for which earlier period."""
        with self._log().lock:
            return dict(self._bill(item, period).carried)

    def events(self, meter_id: str | None = None, customer: str | None = None) -> list[LoggedEvent]:
        """Return accepted events in the order of arrival: all, or those of one meter, of one customer, or of both."""
        with self._log().lock:
            meter = None if meter_id is None else self.meter(meter_id)
            return list(self._log().logged(self._sees, meter, customer))


class MeterView(MeterReader):
    """The meter log as it was: read-only, and itself a :class:`~metering_core.Usage`. What comes later changes no answer."""

    def __init__(self, log: MeterSource, sequence: int, received_by: datetime | None) -> None:
        self.policy, self.lock = log.policy, log.lock
        self._whole = log
        self._sequence = sequence
        self._received_by = None if received_by is None else moment(received_by, "as_of")[1]
        # Bills have no numbers in the log: one that is made later must not be taken for one of then.
        self._bills_made = log.bills_made
        self._shown: Readings | None = None

    def __repr__(self) -> str:
        """Return what bounds the view."""
        by = "" if self._received_by is None else f", received by {from_unix_seconds(self._received_by // MICROSECONDS)}"
        return f"<MeterView up to sequence {self._sequence}{by}>"

    @property
    def sequence(self) -> int:
        """The number of the last event or cancellation that the view may show."""
        return self._sequence

    def as_of(self, limit: int | datetime) -> MeterView:
        """Return a view that shows no more than this one; ``limit`` as in :meth:`MeterLog.as_of`."""
        view = MeterView(self._whole, *as_limit(limit, self._sequence))
        if self._received_by is not None:
            own = view._received_by
            view._received_by = self._received_by if own is None else min(own, self._received_by)
        view._bills_made = self._bills_made
        return view

    def _log(self) -> MeterSource:
        return self._whole

    def _readings(self) -> Readings:
        if self._shown is None:
            self._shown = self._whole.readings_until(self._sees)
        return self._shown

    def _knows(self, bill: Bill) -> bool:
        return bill.number <= self._bills_made and self._sees(bill.sequence, bill.made_at)

    def _sees(self, sequence: int, received: int) -> bool:
        return sequence <= self._sequence and (self._received_by is None or received <= self._received_by)


def _by_time(logged: LoggedEvent) -> tuple[int, int]:
    return logged.event.microseconds or 0, logged.sequence

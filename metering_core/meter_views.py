"""What can be asked of meter events: of the meter log as it is, and of the log as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from threading import RLock
from typing import TYPE_CHECKING, Protocol, Self

import attrs

from metering_core.accounts import Closing
from metering_core.aggregation import as_requests
from metering_core.codec import Storable
from metering_core.errors import ErrorCode, InvalidValueError
from metering_core.exact import Number, add, subtract
from metering_core.measures import Partial, formula_of
from metering_core.meter_acceptance import LateUsage, MeterPolicy
from metering_core.meter_bills import (
    Bill,
    Correction,
    StandingBills,
    UnbilledDelta,
    carried_by_period,
    charged,
    standing_of,
    total,
)
from metering_core.meter_events import MeterEvent
from metering_core.meters import Formula, Meter
from metering_core.names import flag, name, require_kind
from metering_core.periods import MICROSECONDS, BillingPeriod, from_unix_seconds, moment
from metering_core.readings import Readings, window_of
from metering_core.subscriptions import SubscriptionItem
from metering_core.timelines import Timeline
from metering_core.views import KeepsClosings, SeesInvoices, as_limit, held_weakly

if TYPE_CHECKING:  # A log has one; here it is asked.
    from metering_core.book import Book

__all__ = ["LoggedEvent", "MeterView"]

Sees = Callable[[int, int], bool]
"""Whether a reader shows what has a number and was received at a moment (Unix microseconds)."""


@attrs.frozen
class LoggedEvent(Storable):
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


class MeterSource(KeepsClosings, Protocol):
    """The meter log, as its readers see it."""

    @property
    def policy(self) -> MeterPolicy:
        """What is accepted."""

    @property
    def sequence(self) -> int:
        """The number of the event or cancellation accepted last."""

    @property
    def book(self) -> Book:
        """Who pays for what since when, and what was billed."""

    def readings_until(self, sees: Sees) -> Readings:
        """Return what is read off the events that a view shows."""

    def logged(
        self, sees: Sees, meter: Meter | None, customer: str | None
    ) -> Iterator[LoggedEvent]:
        """Yield the events that a reader shows."""


class MeterReader:
    """The questions that the meter log and its views answer; itself a
    :class:`~metering_core.Usage`.

    Attributes:
        policy: what the log accepts.
        lock: held during every append and every answer; hold it to ask several questions of one
            state.
        book: who pays for what since when, and what was billed.
    """

    policy: MeterPolicy
    lock: RLock
    book: Book

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
        return self.book.known_meter(meter_id)

    def meter_of(self, item: SubscriptionItem) -> Meter:
        """Return the meter that an item's price names.

        Raises:
            InvoicingError: ``price_not_metered`` where it names none.
            InvalidValueError: ``meter_unknown``.
        """
        return self.book.meter_of(item)

    def customers(self, meter_id: str) -> list[str]:
        """Return the customers that have events of a meter, in the order in which they came."""
        with self.lock:
            return self._readings().customers(self.meter(meter_id))

    def timelines(self, meter_id: str, customer: str) -> list[tuple[tuple[str, ...], Timeline]]:
        """Return the readings of a customer by the values of the meter's dimensions; for the
        summaries.
        """
        return self._readings().timelines(self.meter(meter_id), name(customer, "customer"))

    def whole(self, meter_id: str, customer: str) -> list[Timeline]:
        """Return the readings of a customer whatever the values of the dimensions, in few
        timelines; for the summaries.
        """
        return self._readings().whole(self.meter(meter_id), name(customer, "customer"))

    def partial(self, item: SubscriptionItem, period: BillingPeriod) -> Partial:
        """Return the partial of what a bill of the period counts; see
        :class:`~metering_core.Usage`.

        Raises:
            InvoicingError: ``price_not_metered``, or ``subscription_item_unknown``.
            InvalidValueError: ``subscription_changed`` where the period was billed by another meter
                than the item's.
        """
        require_kind(BillingPeriod, period, "period")
        with self.lock:
            return self._bill(item, period).partial

    def partials(self, requests: Iterable[tuple[SubscriptionItem, BillingPeriod]]) -> list[Partial]:
        """Return the partials of many items at once, in the order asked."""
        asked = as_requests(requests)
        with self.lock:
            return [self._bill(item, period).partial for item, period in asked]

    def unbilled(self, subscription_id: str) -> list[UnbilledDelta]:
        """Return where measured and billed usage of closed periods differ, by item and period.

        The differences are late events, cancellations, and what a negative total left when it was
        billed as 0. Under the policy ``carry_forward`` the next invoice of an additive formula
        bills them, while the item is on the meter that measured them. Of an item that was dropped
        they are those of the item that came for it on the same meter. Items without an heir that
        the subscription no longer has, or no longer on a meter, come last.

        Raises:
            InvalidValueError: ``parameter_invalid_choice`` for a subscription that the log does not
                have.
        """
        with self.lock:
            subscription = self.book.account_of(subscription_id).subscription
            customer = subscription.customer
            if customer is None:
                return []  # None of its items is on a meter.
            items = dict.fromkeys(
                [item.id for item in subscription.items] + self.book.billed_items(subscription_id)
            )
            return [
                delta
                for item in items
                for delta in self._deltas(item, customer, self._known_bills(item))
            ]

    @property
    def carries_late(self) -> bool:
        """Whether what changes in a billed period is billed by a later invoice: the policy
        ``carry_forward``.
        """
        return self.policy.late_usage is LateUsage.CARRY_FORWARD

    def corrections(self, item: SubscriptionItem, period: BillingPeriod) -> list[Correction]:
        """Return the earlier periods of an item whose difference an invoice of this period bills,
        under ``carry_forward``.

        Of a period that was billed they are those of its bill, whatever came since. What an item in
        another currency was billed in stays unbilled.
        """
        if not self.carries_late:
            return []
        with self.lock:
            bills = self._known_bills(item.id)
            return (
                self._corrected_by(item, period, bills[period])
                if period in bills
                else self._corrected_now(item, period, bills)
            )

    def _corrected_now(
        self, item: SubscriptionItem, period: BillingPeriod, bills: Mapping[BillingPeriod, Bill]
    ) -> list[Correction]:
        # What bills carried that this one replaces, it carries itself.
        others = bills
        if bills and period.start < list(bills)[-1].end:
            others = {
                one: bill
                for one, bill in bills.items()
                if one.end <= period.start or period.end <= one.start
            }
        deltas = self._deltas(item.id, self.book.customer_of(item), others) if others else []
        carrying = carried_by_period(others) if deltas else {}
        found = (
            self._correction(
                item, others, carrying, one.period, max(one.measured, 0), self.sequence
            )
            for one in deltas
            if one.period.end <= period.start
        )
        return [
            one
            for one in found
            if one.measured != max(one.billed, 0) and one.price.currency == item.price.currency
        ]

    def _corrected_by(
        self, item: SubscriptionItem, period: BillingPeriod, bill: Bill
    ) -> list[Correction]:
        """Return the corrections that a bill was made of, as they were then."""
        if bill.price is None:
            return []
        # The first invoice of a period that was closed without one is the same bill again, and
        # knows no more than that did.
        same = (
            one.number
            for of, one in self.book.bills_of(item.id)
            if of == period and one.is_of_the_usage_of(bill)
        )
        then = self._known_bills(item.id, before=min(same))
        carrying = carried_by_period(then)
        found = (
            self._correction(item, then, carrying, earlier, 0, bill.sequence)
            for earlier in bill.carried
        )
        return [
            attrs.evolve(one, measured=add(one.billed, bill.carried[one.period])) for one in found
        ]

    def _correction(
        self,
        item: SubscriptionItem,
        bills: Mapping[BillingPeriod, Bill],
        carrying: Mapping[BillingPeriod, Sequence[tuple[BillingPeriod, Bill]]],
        period: BillingPeriod,
        measured: Number,
        sequence: int,
    ) -> Correction:
        bill, later = bills[period], carrying.get(period, ())
        billed = add(
            self._billed_by(period, bill, bills),
            total(other.carried[earlier] for earlier, other in later),
        )
        settled = charged([(period, bill), *later])
        price = item.price if bill.price is None else bill.price
        formula = self.meter(bill.meter).formula
        return Correction(item.id, period, price, formula, measured, billed, settled, sequence)

    def _bill(self, item: SubscriptionItem, period: BillingPeriod) -> Bill:
        """Return what an invoice of the period counts, or counted where it was closed."""
        meter, bills = self.meter_of(item), self._known_bills(item.id)
        if period in bills:
            return _by_meter(meter, bills[period])
        partial = self._measured(self.book.customer_of(item), meter, period)
        return Bill(
            meter.id, partial, max(formula_of(meter).present(partial), 0), {}, self.sequence
        )

    def _known_bills(self, item_id: str, *, before: int | None = None) -> dict[BillingPeriod, Bill]:
        """Return the bills that had been made of an item and were not replaced, in the order of
        their periods.

        With ``before`` they are those that stood when the bill with that number was made.
        """
        made = self.book.bills_of(item_id)
        return standing_of(
            one
            for one in made
            if self._knows(one[1]) and (before is None or one[1].number < before)
        )

    def _knows(self, bill: Bill) -> bool:
        """Whether a bill had been made."""
        return True

    def _deltas(
        self, item_id: str, customer: str, bills: Mapping[BillingPeriod, Bill]
    ) -> list[UnbilledDelta]:
        standing = self._standing(item_id, customer, bills)
        deltas, carrying = [], carried_by_period(bills)
        for period in bills if standing is None else standing.suspects():
            bill = bills[period]
            # The meter that was billed, although the item may be on another one since.
            meter = self.meter(bill.meter)
            aggregator = formula_of(meter)
            measured = aggregator.billed(self._measured(customer, meter, period), period.share)
            later = total(other.carried[earlier] for earlier, other in carrying.get(period, ()))
            delta = UnbilledDelta(
                item_id, period, bill.meter, self._billed_by(period, bill, bills), measured, later
            )
            if delta.quantity:
                deltas.append(delta)
        if standing is not None:
            standing.found(one.period for one in deltas)
        return deltas

    def _standing(
        self, item_id: str, customer: str, bills: Mapping[BillingPeriod, Bill]
    ) -> StandingBills | None:
        """Return what is remembered of these bills; None where nothing is."""
        return None

    def _billed_by(
        self, period: BillingPeriod, bill: Bill, bills: Mapping[BillingPeriod, Bill]
    ) -> Number:
        """Return what a bill of a period billed for the period itself; of a level the part that the
        period lived through.
        """
        aggregator = formula_of(self.meter(bill.meter))
        return (
            max(aggregator.billed(bill.partial, period.share), 0)
            if aggregator.is_weighed
            else bill.own(bills)
        )

    def _measured(self, customer: str, meter: Meter, period: BillingPeriod) -> Partial:
        start, end = period.start_seconds * MICROSECONDS, period.end_seconds * MICROSECONDS
        return window_of(formula_of(meter), self.whole(meter.id, customer), start, end)[0]

    def counted(
        self, item: SubscriptionItem, period: BillingPeriod, *, measured: bool = False
    ) -> list[LoggedEvent]:
        """Return the events that count for an item in a period, in the order of time.

        Canceled events are not among them, nor those that a later one of their event time window
        overwrote. Where the formula looks back, the events before the period are among them. Of a
        period that was billed they are those that the bill counted, whatever came or was canceled
        since; with ``measured`` those that count now.
        """
        require_kind(BillingPeriod, period, "period")
        flag(measured, "measured")
        with self.lock:
            meter, kept = (
                self.meter_of(item),
                None if measured else self._known_bills(item.id).get(period),
            )
            sees = self._sees if kept is None else _up_to(_by_meter(meter, kept).sequence)
            readings = self._readings() if kept is None else self._log().readings_until(sees)
            customer, end = self.book.customer_of(item), period.end_seconds * MICROSECONDS
            start = None if formula_of(meter).looks_back else period.start_seconds * MICROSECONDS
            counting = {
                one
                for _, timeline in readings.timelines(meter, customer)
                for one in timeline.numbers(start, end)
            }
            return sorted(
                (
                    one
                    for one in self._log().logged(sees, meter, customer)
                    if one.sequence in counting
                ),
                key=_by_time,
            )

    def measured(self, item: SubscriptionItem, period: BillingPeriod) -> Number:
        """Return what an item's events in a period come to, whatever was billed; negative where
        corrections exceed usage.
        """
        require_kind(BillingPeriod, period, "period")
        with self.lock:
            meter, customer = self.meter_of(item), self.book.customer_of(item)
            return formula_of(meter).billed(self._measured(customer, meter, period), period.share)

    def merged(self, item: SubscriptionItem, period: BillingPeriod) -> dict[BillingPeriod, Number]:
        """Return how much of a bill's own quantity is for which earlier period; of bills of a
        snapshot of version 1 only.
        """
        require_kind(SubscriptionItem, item, "item")
        require_kind(BillingPeriod, period, "period")
        with self.lock:
            kept = self._known_bills(item.id).get(period)
            return {} if kept is None or kept.price is not None else dict(kept.carried)

    def carried(self, item: SubscriptionItem, period: BillingPeriod) -> dict[BillingPeriod, Number]:
        """Return how much of which earlier period an invoice of this one bills, or billed where it
        was closed.
        """
        require_kind(SubscriptionItem, item, "item")
        require_kind(BillingPeriod, period, "period")
        with self.lock:
            kept = self._known_bills(item.id).get(period)
            if kept is not None:
                return dict(kept.carried)
            return {
                one.period: subtract(one.measured, one.billed)
                for one in self.corrections(item, period)
            }

    def events(self, meter_id: str | None = None, customer: str | None = None) -> list[LoggedEvent]:
        """Return accepted events in the order of arrival: all, or those of one meter, of one
        customer, or of both.
        """
        if customer is not None:
            customer = name(customer, "customer")
        with self.lock:
            meter = None if meter_id is None else self.meter(meter_id)
            return list(self._log().logged(self._sees, meter, customer))


class MeterView(SeesInvoices, MeterReader):
    """The meter log as it was: read-only, and itself a :class:`~metering_core.Usage`. What comes
    later changes no answer.
    """

    def __init__(self, log: MeterSource, sequence: int, received_by: datetime | None) -> None:
        self.policy, self.lock = log.policy, log.lock
        self._whole = log
        self._sequence = sequence
        self._received_by = None if received_by is None else moment(received_by, "as_of")[1]
        # Bills have no numbers in the log: one that is made later must not be taken for one of
        # then.
        self._bills_made = log.book.bills_made
        self._shown: Readings | None = None

    def __repr__(self) -> str:
        """Return what bounds the view."""
        by = (
            ""
            if self._received_by is None
            else f", received by {from_unix_seconds(self._received_by // MICROSECONDS)}"
        )
        return f"<MeterView up to sequence {self._sequence}{by}>"

    @property
    def sequence(self) -> int:
        """The number of the last event or cancellation that the view may show."""
        return self._sequence

    def as_of(self, limit: int | datetime) -> MeterView:
        """Return a view that shows no more than this one; ``limit`` as in
        :meth:`MeterLog.as_of`.
        """
        view = MeterView(self._whole, *as_limit(limit, self._sequence, self._whole))
        if self._received_by is not None:
            own = view._received_by
            view._received_by = self._received_by if own is None else min(own, self._received_by)
        view._bills_made = self._bills_made
        return view

    def weakly(self) -> Self:
        """Return this view without keeping its log alive; see
        :meth:`metering_core.views.UsageView.weakly`.
        """
        self._whole = held_weakly(self._whole)
        return self

    def before_bill(self, number: int) -> MeterView:
        """Return this view, from now on without the bills from a number on: as if they were still
        to be made.
        """
        self._bills_made = min(self._bills_made, number - 1)
        return self

    @property
    def book(self) -> Book:  # type: ignore[override]  # looked up: the log may be gone
        """That of the log."""
        return self._whole.book

    def _log(self) -> MeterSource:
        return self._whole

    def _readings(self) -> Readings:
        if self._shown is None or self._shown.is_torn:
            self._shown = self._whole.readings_until(self._sees)
        return self._shown

    def _closings(self) -> KeepsClosings:
        return self._whole

    def _shows(self, closing: Closing) -> bool:
        return self._sees(closing.knew(Formula), moment(closing.closed_at, "closed_at")[1])

    def _knows(self, bill: Bill) -> bool:
        return bill.number <= self._bills_made and self._sees(bill.sequence, bill.made_at)

    def _sees(self, sequence: int, received: int) -> bool:
        return sequence <= self._sequence and (
            self._received_by is None or received <= self._received_by
        )


def _by_time(logged: LoggedEvent) -> tuple[int, int]:
    return logged.event.microseconds or 0, logged.sequence


def _by_meter(meter: Meter, bill: Bill) -> Bill:
    """Return a bill that a meter made, or refuse it to an item that is on another one: its quantity
    is no such quantity.
    """
    if bill.meter != meter.id:
        expected = (
            f"{bill.meter!r}, the meter by which the period was billed, so the subscription as "
            "it was then"
        )
        raise InvalidValueError.expecting(
            ErrorCode.SUBSCRIPTION_CHANGED, "items[price][recurring][meter]", expected, meter.id
        )
    return bill


def _up_to(last: int) -> Sees:
    """Return what shows everything up to a number."""
    return lambda sequence, _: sequence <= last

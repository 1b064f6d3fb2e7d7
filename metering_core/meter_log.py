"""The append-only log of meter events, beside :class:`~metering_core.UsageLog` and after its
pattern.

Events are kept in columns, in the order of their arrival; readings, summaries and bills are derived
when they are asked for. An event is a record whose item is (meter, customer): it may come before
any subscription exists, and a bill counts it where a period of an item covers its timestamp.

A period that was billed stays as it was billed. Events and cancellations that come later change
what its summary says, and :meth:`MeterLog.unbilled` says by how much the two differ.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from heapq import merge
from itertools import takewhile
from operator import itemgetter
from typing import Any, Final, Protocol, Self, cast

import attrs

from metering_core.acceptance import Outcome, Receipt, Receipts
from metering_core.accounts import Account, Closing
from metering_core.book import Billed, Book, Clock, Closes, KeptBill, OverMeters
from metering_core.changing import OpenUsage, open_stretches
from metering_core.errors import (
    ErrorCode,
    InvalidValueError,
)
from metering_core.event_columns import EventColumns
from metering_core.exact import Number, plain, subtract
from metering_core.guarding import Billing, Uncopied
from metering_core.journal import Change, Journaled, does_not_fit
from metering_core.measures import formula_of
from metering_core.meter_acceptance import (
    IdentifierScope,
    MeterPolicy,
    event_not_found,
    identifier_reused,
    late_cancellation,
    meter_inactive,
    meter_unknown,
    read,
    time_refusal,
    value_of,
)
from metering_core.meter_bills import Bill, Correction, Settled, StandingBills
from metering_core.meter_events import MeterEvent, MeterEventAdjustment, filled
from metering_core.meter_state import EventRows, MeterLogState
from metering_core.meter_views import LoggedEvent, MeterReader, MeterSource, MeterView, Sees
from metering_core.meters import Meter, short_name
from metering_core.names import batch_of, require_function, require_iterable, require_kind
from metering_core.periods import (
    MICROSECONDS,
    SECONDS_MAX,
    BillingPeriod,
    Instant,
    from_unix_seconds,
    moment,
)
from metering_core.prices import Price
from metering_core.readings import Readings
from metering_core.subscriptions import Subscription, SubscriptionItem
from metering_core.timelines import Series, Timeline
from metering_core.views import as_limit

_EPOCH: Final = from_unix_seconds(0)
_DAY: Final = 86_400 * MICROSECONDS
_ENDLESS: Final = 2**64
_READINGS_MAX: Final = 4096
_new: Final = object.__new__


class _KnownMeter:
    """A meter's newest version, and what of its events was seen before.

    Attributes:
        meter: the newest version.
        ids: identifier → row.
        codes: customer and dimension values → how the log counts this series; the customer alone
            without dimensions.
        readings: text → what was read off it lately, and whether it is written as the value is; a
            bounded number of them.
        series_key: takes what a series is counted by from a payload.
        keys: how many of a payload's keys the meter names.
        keys_max: up to how many keys leave an event of a known series nothing to judge but its
            value and its time.
        shape: what meters have in common whose events are read alike.
        value_key: the payload key that holds the value.
    """

    __slots__ = (
        "codes",
        "ids",
        "keys",
        "keys_max",
        "meter",
        "readings",
        "series_key",
        "shape",
        "value_key",
    )

    def __init__(self, meter: Meter, ids: dict[str, int], policy: MeterPolicy) -> None:
        self.ids = ids
        self.codes: dict[str | tuple[str, ...], int] = {}
        self.readings: dict[str | None, tuple[Number | str, bool]] = {}
        self.series_key = itemgetter(meter.customer_payload_key, *meter.dimension_payload_keys)
        self.keys = 2 + len(meter.dimension_payload_keys)
        self.take(meter, policy)

    def take(self, meter: Meter, policy: MeterPolicy) -> None:
        """Take note of a version of the meter."""
        self.meter = meter
        # The customer's key is one of them; the value's may be missing.
        bound = _ENDLESS if policy.dimensions_max is None else 1 + policy.dimensions_max
        self.keys_max = bound if meter.is_active else 0
        self.value_key = meter.value_payload_key
        keys = (meter.customer_payload_key, self.value_key, *meter.dimension_payload_keys)
        self.shape = (keys, self.keys_max, meter.formula, meter.decimal_places)

    def read(self, text: str | None, policy: MeterPolicy) -> tuple[Number | str, bool] | Receipt:
        """Return what a value's text says, or why it is refused, and whether it is written as the
        value is.
        """
        value = value_of(self.meter, text, policy)
        if isinstance(value, Receipt):
            return value
        if isinstance(value, str):
            return value, True
        # A log is asked for many events with few different values; where they are many, no more
        # than these are kept.
        if len(self.readings) >= _READINGS_MAX:
            self.readings.clear()
        reading = self.readings[text] = value, plain(value) == text
        return reading


class _Stream:
    """One series as the log counts them: its meter, customer and dimension values."""

    __slots__ = ("customer", "dimensions", "known")

    def __init__(self, known: _KnownMeter, customer: str, dimensions: tuple[str, ...]) -> None:
        self.known = known
        self.customer = customer
        self.dimensions = dimensions


class KeepsReadings(Protocol):
    """Whatever keeps the events of a book's meters: a log, or columns."""

    def whole(self, meter_id: str, customer: str) -> list[Timeline]:
        """Return the readings of a customer whatever the values of the dimensions, in few
        timelines.
        """

    def meter_of(self, item: SubscriptionItem) -> Meter:
        """Return the meter that an item's price names."""

    def corrections(self, item: SubscriptionItem, period: BillingPeriod) -> list[Correction]:
        """Return the earlier periods of an item whose difference an invoice of this period
        bills.
        """


@attrs.frozen
class MeasuredUsage:
    """What a meter log knows of the usage of an item, as far as it matters for a newer version of
    its subscription.
    """

    log: KeepsReadings
    account: Account

    def open_usage(self, item: SubscriptionItem, version: Subscription) -> Iterator[OpenUsage]:
        """Return the usage that a version's item would bill in each open period, of those that have
        some.
        """
        for timeline in self._timelines(item):
            for stretch, end in open_stretches(version, self.account):
                start = stretch
                while (span := timeline.span(start * MICROSECONDS, end * MICROSECONDS)) is not None:
                    first = span[0] // MICROSECONDS
                    period = version.cycle.period_at(from_unix_seconds(first))
                    start = min(period.end_seconds, end)
                    whole = timeline.span(span[0], start * MICROSECONDS)
                    assert whole is not None, "its first one is there"
                    yield OpenUsage(
                        period.start_seconds, period.end_seconds, first, whole[1] // MICROSECONDS
                    )

    def is_carried(self, item: SubscriptionItem) -> bool:
        """Whether usage of former periods makes what the item owes for a later one."""
        timelines = self._timelines(item)
        return bool(timelines) and formula_of(self.log.meter_of(item)).looks_back

    def owing(self, item: SubscriptionItem, period: BillingPeriod) -> list[Correction]:
        """Return the earlier periods of an item whose difference an invoice of this one bills."""
        return self.log.corrections(item, period)

    def _timelines(self, item: SubscriptionItem) -> list[Timeline]:
        if item.recurring.meter is None:
            return []
        return self.log.whole(item.recurring.meter, self.account.subscription.customer or "")


class KeepsEvents(MeterReader, OverMeters, Closes, Uncopied):
    """Whatever keeps the events of a book's meters and closes periods: the log, or columns.

    What is billed of an item is kept with its period, so that what comes later can be told apart.
    """

    def readings_until(self, sees: Sees) -> Readings:
        """Return what is read off the events that a view shows."""
        raise NotImplementedError  # pragma: no cover - each has its own

    def logged(
        self, sees: Sees, meter: Meter | None, customer: str | None
    ) -> Iterator[LoggedEvent]:
        """Yield the events that a reader shows."""
        raise NotImplementedError  # pragma: no cover - each has its own

    def _log(self) -> MeterSource:
        return self

    def _sees(self, sequence: int, received: int) -> bool:
        return True

    def recorded(self, account: Account) -> MeasuredUsage:
        """Return what is known of the usage of a subscription's items; for the book."""
        return MeasuredUsage(self, account)

    def as_of(self, limit: int | datetime) -> MeterView:
        """Return a read-only view of the log as it was.

        Args:
            limit: a sequence number (events and cancellations up to and including it), or an aware
                datetime (those received up to and including that moment).
        """
        with self.lock:
            self.book.finish()
            return MeterView(self, *as_limit(limit, self.sequence, self))

    def _bills(
        self, closings: Mapping[str, Closing], billing: Billing, now: datetime
    ) -> list[KeptBill]:
        made_at = moment(now, "now")[1]
        # What was closed with an invoice is closed for ever, also where a later version cuts the
        # period elsewhere; of one that was closed without, the first invoice says at which price
        # and for how much it is billed.
        due = [
            (key, item, closing.period)
            for key, closing in closings.items()
            for item in (
                self.book.accounts[key].subscription.items if billing.stored[key] is None else ()
            )
            if item.recurring.meter is not None and self._is_to_note(item, closing)
        ]
        readers: dict[int | None, MeterReader] = {None: self}
        for _, sequence in billing.settled.values():
            if sequence not in readers:
                readers[sequence] = self.as_of(sequence)
        charged = {key: billing.settled.get(key, ({}, None)) for key in closings}
        made = (
            self._bill_to_keep(item, period, made_at, charged[key][0], readers[charged[key][1]])
            for key, item, period in due
        )
        return [
            (item.id, period, attrs.evolve(bill, number=number))
            for number, ((_, item, period), bill) in enumerate(
                zip(due, made, strict=True), self.book.bills_made + 1
            )
        ]

    def _is_to_note(self, item: SubscriptionItem, closing: Closing) -> bool:
        """Whether a bill is to be kept; one of a snapshot of version 1 stays, whose quantity holds
        what it carried.
        """
        known = self._known_bills(item.id).get(closing.period)
        return known is None or (closing.invoice is not None and known.price is not None)

    def _bill_to_keep(
        self,
        item: SubscriptionItem,
        period: BillingPeriod,
        made_at: int,
        charged: Mapping[str, tuple[Price, Settled]],
        known: MeterReader,
    ) -> Bill:
        carried = {
            one.period: subtract(one.measured, one.billed)
            for one in known.corrections(item, period)
        }
        price, settled = charged.get(item.id, (item.price, None))
        bill = known._bill(item, period)  # noqa: SLF001 - the log's own view
        return attrs.evolve(bill, carried=carried, price=price, settled=settled, made_at=made_at)

    def settle(
        self,
        subscription_id: str,
        settled: Mapping[str, tuple[Price, Settled]],
        sequence: int | None = None,
    ) -> None:
        """Take what an invoice charged, by item, while its period is being closed; later invoices
        charge the difference.

        For who bills: :func:`~metering_core.finalize_invoice` and
        :func:`~metering_core.invoice_all` call it in :meth:`closing`. What a period that is closed
        without it comes to counts as charged. ``sequence`` is the number of the last event that the
        invoice knew of, where it was made earlier than it is kept: what came since is late usage.
        """
        with self.lock:
            self.book.billing_of(subscription_id).settled[subscription_id] = dict(settled), sequence

    def _usage_of(self, invoice: Billed) -> MeterView:
        made = (self.book.bills.get(invoice.subscription) or {}).values()
        numbers = [
            bill.number
            for bills in made
            for period, bill in bills
            if period.start == invoice.period.start
        ]
        return self.as_of(self.sequence).before_bill(min(numbers, default=self.book.bills_made + 1))


class MeterLog(KeepsEvents, Journaled):
    """All events of some meters, append-only; a :class:`~metering_core.Usage` for items whose price
    names a meter.

    Args:
        meters: what to measure. More can come later with :meth:`create_meter`.
        subscriptions: whose items to bill, with a ``customer`` each. More can come later with
            :meth:`subscribe`.
        customers: the customers whose events are accepted; any customer unless given.
        clock: gives the log's now (an aware datetime or Unix seconds) where a call does not; the
            machine's is never read.
        policy: what is accepted.

    Attributes:
        policy: as given.
        lock: held during every append and every answer; hold it to ask several questions of one
            state.

    >>> log = MeterLog([Meter("mtr_tokens", "tokens")])
    >>> payload = {"stripe_customer_id": "cus_1", "value": "25"}
    >>> log.record("tokens", payload, now=1_717_243_200).timestamp
    1717243200
    """

    def __init__(
        self,
        meters: Iterable[Meter] = (),
        subscriptions: Iterable[Subscription] = (),
        *,
        customers: Iterable[str] | None = None,
        clock: Clock | None = None,
        policy: MeterPolicy | None = None,
    ) -> None:
        if policy is not None:
            require_kind(MeterPolicy, policy, "policy")
        if clock is not None:
            require_function(clock, "clock", "returns the moment it is called")
        self.policy = MeterPolicy() if policy is None else policy
        self._clock = clock
        self.book = Book(
            subscriptions,
            meters=require_iterable(meters, "meters"),
            customers=customers,
            overlap=self.policy.overlap,
        )
        self.book.join(self)
        self.lock = self.book.lock
        # What the log knows of each meter, by id and by event name, and which meters these were.
        self._meters: dict[str, _KnownMeter] = {}
        self._by_event: dict[str, _KnownMeter] = {}
        self._met: Mapping[str, Meter] = {}
        self._shared_ids: dict[str, int] = {}
        # By customer and item; made when asked, and made anew when bills went to another item.
        self._standings: dict[str, dict[str, StandingBills]] = {}
        # The number of the change after which each is known by itself.
        self.known_from = 0
        self._start_columns()

    def _start_columns(self) -> None:
        # Found at each event: what drops all that an interrupted append left.
        self._undo = self._put_back
        self._streams: list[_Stream] = []
        self._store = EventColumns()
        # By row, where what was sent cannot be told from the columns.
        self._payloads: dict[int, Mapping[str, str]] = {}
        self._identifiers: dict[int, str] = {}
        self._sent_as_now: set[int] = set()
        self._current = Readings()
        # From one UTC midnight of receipt to the next: the first moment that is accepted, and how
        # far ahead one may lie.
        self._bounds = (0, 0, 0, 0)

    def __len__(self) -> int:
        """Return the number of accepted events, canceled ones included."""
        return len(self._store)

    def __repr__(self) -> str:
        """Return the counts."""
        return (
            f"<MeterLog: {len(self.book.meters)} meters, {len(self)} events, "
            f"sequence {self.sequence}>"
        )

    @property
    def sequence(self) -> int:
        """The number of the event or cancellation accepted last; 0 before the first."""
        return self._store.sequence

    def _begin_change(self) -> None:
        """Begin a change of the log, knowing the meters that were told until now."""
        self.book.begin_change()
        if self.book.meters is not self._met:
            self._meet()

    def _meet(self) -> None:
        """Take note of the meters that were told since, and of their newer versions."""
        told, policy = self.book.meters, self.policy
        for meter in told.values():
            known = self._meters.get(meter.id)
            if known is None:
                is_global = policy.identifier_scope is IdentifierScope.GLOBAL
                known = _KnownMeter(meter, self._shared_ids if is_global else {}, policy)
                self._by_event[meter.event_name] = self._meters[meter.id] = known
            elif known.meter is not meter:
                known.take(meter, policy)
        self._met = told

    # Subscriptions --------------------------------------------------------------------------------

    def subscribe(
        self, subscription: Subscription, *, now: Instant | None = None, rebill: bool = False
    ) -> None:
        """Bill a subscription's items from now on, or take note of a newer version of it (same id).

        Items whose price names no meter are not this log's, and are left alone. A newer version
        must not change what was used or agreed in an open period, as in
        :meth:`~metering_core.UsageLog.subscribe`. An item that is new on a meter must not find
        events of an open period there from before ``now``.

        Args:
            subscription: the newer version.
            now: the moment of the change, as in :meth:`~metering_core.UsageLog.subscribe`.
            rebill: whether all open periods are to be billed by this version although it changes
                what they owe.

        Raises:
            InvalidValueError: ``parameter_missing`` without a customer, ``meter_unknown``,
                ``meter_inactive`` for an item that is new or on another meter now,
                ``subscription_changed`` where an item belongs to another subscription, comes back
                beside its heir, or boundaries would move, ``change_not_billable`` where it would
                rebill an open period, have more of a closed one to bill, or leave late usage of one
                to nobody, ``usage_billed_twice`` where another subscription of the customer bills
                the same meter at the same time, or has an invoice of it whatever its version says
                since, unless the policy says ``overlap="each_counts_all"``. Nothing changes then.
        """
        overlap = self.policy.overlap
        self.book.subscribe(
            subscription, now=now, rebill=rebill, clock=self._clock, overlap=overlap
        )

    # The door -------------------------------------------------------------------------------------

    def record(
        self,
        event_name: str,
        payload: Mapping[str, str],
        *,
        identifier: str | None = None,
        timestamp: Instant | str = "now",
        now: Instant | None = None,
    ) -> MeterEvent:
        """Append one meter event; Stripe's parameters and meaning.

        Args:
            event_name: says which meter measures it.
            payload: strings by string, among them the customer and the value.
            identifier: sent again with the same content it changes nothing.
            timestamp: an aware datetime, Unix seconds or ``"now"``.
            now: the moment of receipt; the log's clock unless given.

        Returns:
            The event, its timestamp resolved; for a duplicate, equal to the one accepted first.

        Raises:
            InvalidValueError: for a malformed value; ``param`` names it.
            UsageRejectedError: for a well-formed event that the rules refuse. The log is unchanged.
        """
        # This is the path of a single event: what a call would cost as much as the step itself is
        # spelt out.
        event = filled(_new(MeterEvent), event_name, payload, identifier, timestamp)
        with self.lock:
            book = self.book
            if book.unfinished is not None or book.meters is not self._met:
                self._begin_change()
            received = (
                now * MICROSECONDS
                if type(now) is int and 0 <= now <= SECONDS_MAX
                else self._now(now)
            )
            book.unfinished = self._undo
            receipt = self._take(event, received)
            if receipt is None:
                self._store.received.append(received)
                book.unfinished = None
                return event if event.microseconds is not None else self._event_at(self._store.last)
            book.unfinished = None
            if receipt.outcome is Outcome.DUPLICATE:
                return self._event_at(receipt.details["row"])
        raise receipt.error()

    def append(self, events: Iterable[MeterEvent], *, now: Instant | None = None) -> Receipts:
        """Append events one by one in their order, each judged as if alone after the ones before.

        Args:
            events: ready meter events.
            now: the moment of receipt; the log's clock unless given.

        Returns:
            One receipt per event. What was refused left no trace.

        Raises:
            InvalidValueError: ``parameter_invalid_object`` for something that is not a meter event;
                nothing was appended.
        """
        batch = batch_of(MeterEvent, events, "events")
        with self.lock:
            self._begin_change()
            received = self._now(now)
            if self._take_all(batch, received):
                return Receipts(range(self.sequence - len(batch) + 1, self.sequence + 1), {})
            return self._take_each(batch, received)

    def _take_each(self, batch: Sequence[MeterEvent], received: int) -> Receipts:
        sequences = array("q")
        exceptions: dict[int, Receipt] = {}
        self.book.unfinished = self._undo
        for position, event in enumerate(batch):
            receipt = self._take(event, received)
            if receipt is not None:
                exceptions[position] = receipt
            sequences.append(self._store.sequence_of(self._store.last) if receipt is None else 0)
        self._store.keep(len(batch) - len(exceptions), received)
        self.book.unfinished = None
        return Receipts(sequences, exceptions)

    def _take_all(self, batch: Sequence[MeterEvent], received: int) -> bool:
        """Keep a whole batch if each event is plainly acceptable, or none of it. The proof takes a
        pass over each column.
        """
        event_names = [event.event_name for event in batch]
        meters = {event_name: self._by_event.get(event_name) for event_name in set(event_names)}
        known = next(iter(meters.values()), None)
        if known is None or len({one and one.shape for one in meters.values()}) > 1:
            return False
        payloads = [event.payload for event in batch]
        widths = set(map(len, payloads))
        if max(widths) > known.keys_max or not {event.identifier for event in batch} <= {None}:
            return False
        texts = [payload.get(known.value_key) for payload in payloads]
        readings = {
            text: known.readings.get(text) or known.read(text, self.policy) for text in set(texts)
        }
        try:
            stamps = array("q", cast("list[int]", [event.microseconds for event in batch]))
            codes = self._codes(event_names, payloads, known)
        except (KeyError, TypeError):
            return False  # A moment is None, a key is missing, or a code is a refusal.
        read = {
            text: reading for text, reading in readings.items() if not isinstance(reading, Receipt)
        }
        if len(read) < len(readings) or not self._are_in_time(stamps, received):
            return False
        self.book.unfinished = self._undo
        self._store.begin_all(codes, stamps, [read[text][0] for text in texts])
        if widths != {known.keys} or not all(is_told for _, is_told in read.values()):
            for row, (text, payload) in enumerate(zip(texts, payloads, strict=True), len(self)):
                if len(payload) != known.keys or not read[text][1]:
                    self._payloads[row] = payload
        self._store.keep(len(batch), received)
        self.book.unfinished = None
        return True

    def _codes(
        self, event_names: Sequence[str], payloads: Sequence[Mapping[str, str]], alike: _KnownMeter
    ) -> array[int]:
        """Return which series events of meters that are read alike are of."""
        tables = {event_name: self._by_event[event_name].codes for event_name in set(event_names)}
        rows = zip(event_names, map(alike.series_key, payloads), payloads, strict=True)
        codes = [
            self._code_of(self._by_event[event_name], payload)
            if (code := tables[event_name].get(key)) is None
            else code
            for event_name, key, payload in rows
        ]
        return array("i", cast("list[int]", codes))

    def _are_in_time(self, stamps: Sequence[int], received: int) -> bool:
        day, until, earliest, tolerance = self._bounds
        if not day <= received < until:
            day, until, earliest, tolerance = self._look_up_bounds(received)
        return min(stamps) >= earliest and max(stamps) - received <= tolerance

    def _take(self, event: MeterEvent, received: int) -> Receipt | None:
        """Judge one event and write it, or return the receipt that says why not; in ErrorCode's
        order of checks, time last.

        It is kept once its moment of receipt is written, too.
        """
        known = self._by_event.get(event.event_name)
        identifier = event.identifier
        ids = self._shared_ids if known is None else known.ids
        row = None if identifier is None else ids.get(identifier)
        if row is not None and self._remembers(row, received):
            return self._answer(row, event)
        if known is None:
            return meter_unknown(event.event_name)
        payload = event.payload
        width = len(payload)
        code: int | Receipt | None
        try:
            code = known.codes[known.series_key(payload)] if width <= known.keys_max else None
        except KeyError:
            code = None
        if code is None:
            code = self._code_of(known, payload)
            if isinstance(code, Receipt):
                return code
        text = payload.get(known.value_key)
        reading = known.readings.get(text) or known.read(text, self.policy)
        if isinstance(reading, Receipt):
            return reading
        value, is_told = reading
        microseconds = event.microseconds
        stamp = received if microseconds is None else microseconds
        day, until, earliest, tolerance = self._bounds
        if not day <= received < until:
            day, until, earliest, tolerance = self._look_up_bounds(received)
        if stamp < earliest or stamp - received > tolerance:
            return time_refusal(stamp, received, self.policy)
        store = self._store
        store.codes.append(code)
        store.moments.append(stamp)
        store.values.append(value)
        if identifier is not None or microseconds is None or not is_told or width != known.keys:
            self._keep_rest(event, known, is_told=is_told and width == known.keys)
        return None

    def _keep_rest(self, event: MeterEvent, known: _KnownMeter, *, is_told: bool) -> None:
        """Write what was sent where it cannot be told from the columns."""
        row = self._store.last
        if event.microseconds is None:
            self._sent_as_now.add(row)
        if event.identifier is not None:
            self._identifiers[row] = event.identifier
            known.ids[event.identifier] = row
        if not is_told:
            self._payloads[row] = event.payload

    def _put_back(self) -> None:
        self._store.cut()
        rows: dict[int, Any]
        for rows in (self._payloads, self._identifiers):
            while rows and next(reversed(rows)) >= len(self):
                rows.popitem()
        self._sent_as_now = {row for row in self._sent_as_now if row < len(self)}
        for known in self._meters.values():
            known.ids.clear()
        self._take_identifiers()

    def _take_identifiers(self) -> None:
        """Note which row an identifier finds: of events whose identifier was forgotten in between
        the last one has it.
        """
        for row, identifier in self._identifiers.items():
            self._streams[self._store.codes[row]].known.ids[identifier] = row

    def _code_of(self, known: _KnownMeter, payload: Mapping[str, str]) -> int | Receipt:
        """Return how the log counts an event's series, or why the event is refused; then only its
        value may be at fault.
        """
        if not known.meter.is_active:
            return meter_inactive(known.meter)
        reading = read(known.meter, payload, self.policy, self.book.customers)
        return (
            reading
            if isinstance(reading, Receipt)
            else self._series_code(known, reading.customer, reading.dimensions)
        )

    def _series_code(self, known: _KnownMeter, customer: str, dimensions: tuple[str, ...]) -> int:
        """Return how the log counts a series. A new one is counted even if its first event is
        refused: an empty one is none.
        """
        key = (customer, *dimensions) if dimensions else customer
        code = known.codes.get(key)
        if code is None:
            code = len(self._streams)
            self._streams.append(_Stream(known, customer, dimensions))
            known.codes[key] = code
        return code

    def _look_up_bounds(self, received: int) -> tuple[int, int, int, int]:
        day = received // _DAY * _DAY
        earliest, tolerance = (
            self.policy.earliest(received // MICROSECONDS),
            self.policy.future_tolerance,
        )
        self._bounds = (
            day,
            day + _DAY,
            -_ENDLESS if earliest is None else earliest * MICROSECONDS,
            _ENDLESS if tolerance is None else tolerance // timedelta(microseconds=1),
        )
        return self._bounds

    def _remembers(self, row: int, received: int) -> bool:
        retention = self.policy.identifier_retention
        if retention is None or row >= len(self):  # It came with the same batch.
            return True
        return received - self._store.received[row] <= retention // timedelta(microseconds=1)

    def _answer(self, row: int, event: MeterEvent) -> Receipt:
        """Answer an event that comes with a known identifier: a duplicate, or the identifier is
        reused for other content.
        """
        first, received = self._content_at(row), content_of(event)
        if received == first:
            return Receipt(Outcome.DUPLICATE, self._store.sequence_of(row), details={"row": row})
        assert event.identifier is not None, "it was found by it"
        return identifier_reused(event.identifier, first, received)

    def _content_at(self, row: int) -> dict[str, Any]:
        content = content_of(self._event_at(row))
        return content | {"timestamp": "now"} if row in self._sent_as_now else content

    def _event_at(self, row: int) -> MeterEvent:
        """Return an accepted event, its timestamp resolved."""
        stream = self._streams[self._store.codes[row]]
        at = _EPOCH + timedelta(microseconds=self._store.moments[row])
        event_name, payload = stream.known.meter.event_name, self._payload_at(row)
        return MeterEvent(event_name, payload, identifier=self._identifiers.get(row), timestamp=at)

    def _payload_at(self, row: int) -> Mapping[str, str]:
        kept = self._payloads.get(row)
        return self._told(row) if kept is None else kept

    def _told(self, row: int) -> Mapping[str, str]:
        """Return the payload as the columns tell it."""
        stream = self._streams[self._store.codes[row]]
        meter = stream.known.meter
        dimensions = zip(meter.dimension_payload_keys, stream.dimensions, strict=True)
        return {
            meter.customer_payload_key: stream.customer,
            meter.value_payload_key: value
            if isinstance(value := self._store.values[row], str)
            else plain(value),
            **dict(dimensions),
        }

    def _now(self, now: Instant | None) -> int:
        """Return the moment of receipt in Unix microseconds."""
        if now is None:
            if self._clock is None:
                message = (
                    "now: expected the moment of receipt, because the log was built without a "
                    "clock; received None"
                )
                raise InvalidValueError(ErrorCode.PARAMETER_MISSING, message, param="now")
            now = self._clock()
        return moment(now, "now")[1]

    # Cancellation ---------------------------------------------------------------------------------

    def cancel(
        self, event_name: str, identifier: str, *, now: Instant | None = None
    ) -> MeterEventAdjustment:
        """Cancel one event, as if it had never been received; its identifier stays taken.

        In an event time window the event received before it counts again. A period that was billed
        stays as it was billed: :meth:`unbilled` says what changed. Canceling twice changes nothing
        and returns the first adjustment.

        Args:
            event_name: of the event.
            identifier: of the event.
            now: the moment of receipt; the log's clock unless given.

        Raises:
            UsageRejectedError: ``event_not_found``, or ``cancel_window_closed`` after the policy's
                ``cancel_window``.
        """
        event_name, identifier = (
            short_name(event_name, "event_name"),
            short_name(identifier, "identifier"),
        )
        with self.lock:
            self._begin_change()
            at = self._now(now)
            row = self._find(event_name, identifier)
            if row not in self._store.canceled:
                self._refuse_late_cancellation(row, at)
                self._catch_up()
                canceled_at = _EPOCH + timedelta(microseconds=at)
                self._cancel(
                    row,
                    MeterEventAdjustment(event_name, identifier, self.sequence + 1, canceled_at),
                )
            return self._store.canceled[row]

    def _cancel(self, row: int, adjustment: MeterEventAdjustment) -> None:
        self._current.is_torn = True
        self._note_change(self._store.codes[row], self._store.moments[row])
        self.book.decide(partial(self._store.cancel, row, adjustment))
        self._series_of(self._current, row).remove(
            self._store.moments[row], self._store.sequence_of(row)
        )
        self._current.is_torn = False

    def _find(self, event_name: str, identifier: str) -> int:
        known = self._by_event.get(event_name)
        row = None if known is None else known.ids.get(identifier)
        if row is None or self._streams[self._store.codes[row]].known is not known:
            by_id = self._meters.get(event_name)
            named = None if known is not None or by_id is None else by_id.meter.event_name
            raise event_not_found(event_name, identifier, named)
        return row

    def _refuse_late_cancellation(self, row: int, at: int) -> None:
        refusal = late_cancellation(self._store.received[row], at, self.policy)
        if refusal is not None:
            raise refusal

    # Folding --------------------------------------------------------------------------------------

    def _catch_up(self) -> None:
        """Take the readings of what was appended since the last question, or of everything where
        one was interrupted.
        """
        self.book.finish()
        if self._current.is_torn:
            self._current = Readings()
        if self._current.rows < len(self):
            self._fold(self._current, range(self._current.rows, len(self)), self._store.canceled)

    def _fold(self, into: Readings, rows: Iterable[int], canceled: Container[int] = ()) -> None:
        """Read what rows say; of canceled ones only that there are such series."""
        into.is_torn = True
        found: dict[int, Series] = {}
        earliest: dict[int, int] = {}
        for row in rows:
            code, moment = self._store.codes[row], self._store.moments[row]
            if code not in found:
                found[code], earliest[code] = self._series_of(into, row), moment
            if row not in canceled:
                if moment < earliest[code]:  # noqa: PLR1730 - a call would cost every row
                    earliest[code] = moment
                found[code].add(moment, self._store.sequence_of(row), self._store.values[row])
        for code, moment in earliest.items() if into is self._current else ():
            self._note_change(code, moment)
        into.rows = len(self)
        into.is_torn = False

    def _note_change(self, code: int, moment: int) -> None:
        """Have the bills of a series' customer compared again with what is measured from a moment
        on.
        """
        stream = self._streams[code]
        window = stream.known.meter.event_time_window
        if (
            window is not None
        ):  # An event overwrites the others of its window, also those of the period before.
            moment -= window.seconds * MICROSECONDS
        for standing in self._standings.get(stream.customer, {}).values():
            standing.change(moment // MICROSECONDS)

    def _known_bills(self, item_id: str, *, before: int | None = None) -> dict[BillingPeriod, Bill]:
        made = self.book.bills_of(item_id)
        if before is not None or not made:
            return super()._known_bills(item_id, before=before)
        of_customer = self._standings.setdefault(
            self.book.owners[item_id].subscription.customer or "", {}
        )
        standing = of_customer.get(item_id)
        if standing is None or standing.heirs is not self.book.heirs:
            standing = of_customer[item_id] = StandingBills(self.book.heirs)
        standing.take(made)
        return standing.bills

    def _standing(
        self, item_id: str, customer: str, bills: Mapping[BillingPeriod, Bill]
    ) -> StandingBills | None:
        self._catch_up()
        standing = self._standings.get(customer, {}).get(item_id)
        return standing if standing is not None and standing.bills is bills else None

    def _series_of(self, readings: Readings, row: int) -> Series:
        stream = self._streams[self._store.codes[row]]
        return readings.series(stream.known.meter, stream.customer, stream.dimensions)

    def readings_until(self, sees: Sees) -> Readings:
        """Return what is read off the events that a view shows; for the views of this log."""
        self.book.finish()
        readings = Readings()
        self._fold(readings, (row for row in range(len(self)) if self._is_shown(row, sees)))
        return readings

    def _is_shown(self, row: int, sees: Sees) -> bool:
        if not sees(self._store.sequence_of(row), self._store.received[row]):
            return False
        canceled = self._store.canceled.get(row)
        return canceled is None or not sees(
            canceled.sequence, moment(canceled.canceled_at, "canceled_at")[1]
        )

    # What its readers need ------------------------------------------------------------------------

    def _readings(self) -> Readings:
        self._catch_up()
        return self._current

    def last_received(self) -> int | None:
        """Return when the last event came, in Unix microseconds; None where there is none."""
        return self._store.received[-1] if self._store.received else None

    def logged(
        self, sees: Sees, meter: Meter | None, customer: str | None
    ) -> Iterator[LoggedEvent]:
        """Yield the events that a reader shows, of one meter and one customer where they are given;
        for the readers.
        """
        self.book.finish()
        wanted = {
            code
            for code, stream in enumerate(self._streams)
            if (meter is None or stream.known.meter.id == meter.id)
            and (customer is None or stream.customer == customer)
        }
        for row, code in enumerate(self._store.codes):
            sequence = self._store.sequence_of(row)
            if code in wanted and sees(sequence, self._store.received[row]):
                canceled = self._store.canceled.get(row)
                canceled_at = (
                    None if canceled is None or self._is_shown(row, sees) else canceled.canceled_at
                )
                received_at = _EPOCH + timedelta(microseconds=self._store.received[row])
                yield LoggedEvent(sequence, received_at, self._event_at(row), canceled_at)

    # Changes --------------------------------------------------------------------------------------

    def _entries(self, after: int) -> Iterator[tuple[int, dict[str, Any]]]:
        canceled = list(takewhile(lambda one: one.sequence > after, self._latest_canceled()))[::-1]
        cancellations = (
            (one.sequence, {"cancellation": one, "received_at": one.canceled_at})
            for one in canceled
        )
        return merge(self._events_after(after), cancellations, key=itemgetter(0))

    def _latest_canceled(self) -> Iterator[MeterEventAdjustment]:
        return reversed(self._store.canceled.values())

    def _events_after(self, after: int) -> Iterator[tuple[int, dict[str, Any]]]:
        store = self._store
        for row in range(bisect_right(range(len(store)), after, key=store.sequence_of), len(store)):
            event = self._event_at(row)
            if row in self._sent_as_now:
                event = MeterEvent(event.event_name, event.payload, identifier=event.identifier)
            received_at = _EPOCH + timedelta(microseconds=store.received[row])
            yield store.sequence_of(row), {"event": event, "received_at": received_at}

    def _take_entry(self, change: Change) -> None:
        event, canceled, at = change.event, change.cancellation, change.received_at
        if canceled is not None:
            self._take_cancellation(canceled, change)
        elif event is None or at is None:
            raise does_not_fit("a meter event, a cancellation or a fact", change)
        else:
            (receipt,) = self.append([event], now=at)
            if receipt.outcome is Outcome.REJECTED:
                raise receipt.error()
            if receipt.outcome is Outcome.DUPLICATE:
                raise does_not_fit("an event with an identifier that is new", change)

    def _take_cancellation(self, canceled: MeterEventAdjustment, change: Change) -> None:
        if canceled.sequence != self.sequence + 1:
            raise does_not_fit(f"a cancellation with the sequence {self.sequence + 1}", change)
        row = self._find(canceled.event_name, canceled.identifier)
        if row in self._store.canceled:
            raise does_not_fit("the cancellation of an event that is not canceled", change)
        self.cancel(canceled.event_name, canceled.identifier, now=canceled.canceled_at)

    # State as data --------------------------------------------------------------------------------

    def state(self) -> MeterLogState:
        """Return everything the log holds, as values; what :func:`~metering_core.snapshot`
        writes.
        """
        with self.lock:
            self.book.finish()
            book = self.book
            of_items = (one for kept in book.bills.values() for one in kept.items())
            bills = ((item_id, *one) for item_id, made in of_items for one in made)
            # A refused event may have made a series; one without events is none.
            places = {code: place for place, code in enumerate(dict.fromkeys(self._store.codes))}
            streams = [self._streams[code] for code in places]
            return MeterLogState(
                policy=self.policy,
                meters=self.meters,
                customers=None if book.customers is None else frozenset(book.customers),
                subscriptions=self.subscriptions,
                items={
                    item_id: account.subscription.id for item_id, account in book.owners.items()
                },
                heirs=dict(book.heirs),
                series=tuple(
                    (stream.known.meter.id, stream.customer, stream.dimensions)
                    for stream in streams
                ),
                rows=self._event_rows(places),
                canceled=dict(self._store.canceled),
                closed=book.closed,
                bills=tuple(sorted(bills, key=lambda one: one[2].number)),
                told=book.told,
            )

    def _event_rows(self, places: Mapping[int, int]) -> EventRows:
        store, rows = self._store, range(len(self))
        return EventRows(
            tuple(map(places.__getitem__, store.codes)),
            tuple(store.moments),
            tuple(store.received),
            tuple(store.values),
            tuple(map(self._identifiers.get, rows)),
            tuple(map(self._payloads.get, rows)),
            tuple(map(self._sent_as_now.__contains__, rows)),
        )

    @classmethod
    def from_state(cls, state: MeterLogState, *, clock: Clock | None = None) -> Self:
        """Build the log that had this state. The state is trusted;
        :func:`~metering_core.restore_meter_log` checks it first.
        """
        log = cls(state.meters, customers=state.customers, clock=clock, policy=state.policy)
        book = log.book
        book.restore(state.subscriptions, state.closed, state.told)
        book.owners.update(
            (item_id, book.accounts[subscription_id])
            for item_id, subscription_id in state.items.items()
        )
        book.heirs = dict(state.heirs)
        log._meet()
        for meter_id, customer, dimensions in state.series:
            log._series_code(log._meters[meter_id], customer, dimensions)
        log._take_rows(state)
        for item_id, period, bill in state.bills:
            book.keep_bill(item_id, period, bill)
        log.known_from = log.last_change
        return log

    def _take_rows(self, state: MeterLogState) -> None:
        rows = state.rows
        self._store = EventColumns.of(
            rows.codes, rows.moments, rows.received, rows.values, state.in_order_of_cancellation()
        )
        self._payloads = {
            row: payload for row, payload in enumerate(rows.payloads) if payload is not None
        }
        self._sent_as_now = {row for row, as_now in enumerate(rows.as_now) if as_now}
        self._identifiers = {
            row: identifier
            for row, identifier in enumerate(rows.identifiers)
            if identifier is not None
        }
        self._take_identifiers()

    def __eq__(self, other: object) -> bool:
        """Whether both logs hold the same meters, subscriptions, policy, events, cancellations,
        closed periods and bills.
        """
        return self.state() == other.state() if isinstance(other, MeterLog) else NotImplemented

    __hash__ = None  # type: ignore[assignment]


def content_of(event: MeterEvent) -> dict[str, Any]:
    """Return what makes two events with one identifier the same."""
    at = event.instant
    return {
        "event_name": event.event_name,
        "payload": dict(sorted(event.payload.items())),
        "timestamp": "now"
        if at is None
        else event.timestamp
        if not at.microsecond
        else at.isoformat(),
    }

"""The append-only log of usage: the only mutable object, at the edge of everything else.

Records are kept in columns, in the order of their arrival; everything else (cells, partials, summaries, views) is derived from
the columns when it is asked for. So appending costs the same however much was used before, and a question costs what came
since the last one.

:meth:`UsageLog.as_of` gives a read-only view of an earlier state. A log may be used from several threads: every append is
atomic, and so is every answer.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import compress, repeat, takewhile
from operator import attrgetter
from threading import RLock
from types import NoneType
from typing import Any, Final, Self, cast

import attrs

from metering_core.acceptance import (
    AcceptancePolicy,
    LateAttribution,
    Outcome,
    Receipt,
    Receipts,
    Standing,
    canceled_refusal,
    id_reused,
    item_unknown,
    period_closed,
    price_refusal,
    set_refusal,
    standing_at,
    time_refusal,
)
from metering_core.aggregation import Partial, UsageSummary, aggregator_of, summarize
from metering_core.cells import ItemCells, Kept, PeriodCells
from metering_core.errors import ErrorCode, InvalidValueError, InvoicingError
from metering_core.exact import exact_integer
from metering_core.names import choice, name, optional_name
from metering_core.periods import BillingPeriod, Instant, from_unix_seconds, instant, unix_seconds
from metering_core.subscriptions import Subscription, SubscriptionItem
from metering_core.usage import SECONDS_MAX, Action, Cell, Timestamp, UsageRecord, as_timestamp

Clock = Callable[[], Instant]
"""Where a log gets its now from when the caller does not pass one."""

_EPOCH: Final = from_unix_seconds(0)
_MICROSECOND: Final = timedelta(microseconds=1)


@attrs.frozen
class LoggedRecord:
    """An accepted record with what the log added to it.

    Attributes:
        sequence: its number in the log, from 1, in the order of arrival.
        received_at: the log's now when it was accepted, UTC.
        record: what was used; the timestamp is resolved to Unix seconds.
        billed_at: a moment in the period it is billed in: its timestamp, unless it was attributed to a later period.
    """

    sequence: int
    received_at: datetime
    record: UsageRecord
    billed_at: datetime


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

    def content(self) -> dict[str, Any]:
        """Return the content as the sender wrote it."""
        return _content(self.quantity, "now" if self.as_now else self.timestamp, is_set=self.is_set)


def _content(quantity: int, timestamp: Timestamp, *, is_set: bool) -> dict[str, Any]:
    action = Action.SET if is_set else Action.INCREMENT
    return {"quantity": quantity, "timestamp": timestamp, "action": action.value}


@attrs.frozen
class Closing:
    """A billing period that was finalized, and when (UTC): its usage cannot change any more."""

    period: BillingPeriod
    closed_at: datetime


class _Account:
    """What the log knows about one subscription: its newest version, its current period, what was finalized."""

    __slots__ = ("closed", "end", "start", "subscription")

    def __init__(self, subscription: Subscription) -> None:
        self.subscription = subscription
        # By the start of the cycle's period, which stays when a later version of the subscription cuts it shorter.
        self.closed: dict[int, Closing] = {}
        self.forget_current()

    def forget_current(self) -> None:
        self.start, self.end = 1, 0

    def look_up_current(self, now: int) -> None:
        """Remember the bounds of the open period that holds ``now``: between them no rule of time needs to be asked."""
        current = self.subscription.period_at(from_unix_seconds(now))
        if current is None or self.closing(current.start_seconds, looks_back=True) is not None:
            self.forget_current()
        else:
            self.start, self.end = current.start_seconds, current.end_seconds

    def closing(self, timestamp: int, *, looks_back: bool = False) -> Closing | None:
        """Return the closing that forbids usage at the timestamp: of its own period, or for a mode that looks back of any later.

        A record in an open period would otherwise change the ``last_ever`` of a later one that was billed already.
        """
        if not self.closed:
            return None
        own = self.closed.get(self.subscription.cycle.period_at(from_unix_seconds(timestamp)).start_seconds)
        if own is None and looks_back:
            latest = self.closed[max(self.closed)]
            return latest if timestamp < latest.period.end_seconds else None
        return own


class _Item:
    """What the log knows about one subscription item."""

    __slots__ = ("account", "cells", "code", "ids", "is_active", "is_plain", "item")

    def __init__(self, code: int, item: SubscriptionItem, account: _Account) -> None:
        self.code = code
        self.ids: dict[str, Sent] = {}
        self.cells = ItemCells(account.subscription.cycle)
        self.account = account
        self.bind(item)

    def bind(self, item: SubscriptionItem) -> None:
        """Take the item as a version of its subscription has it."""
        self.item = item
        self.is_active = True
        # A plain item refuses nothing but what time refuses, which is what the fast paths rely on.
        subscription = self.account.subscription
        self.is_plain = price_refusal(item) is None and set_refusal(item, subscription, is_set=True) is None

    def drop(self) -> None:
        """Take no more usage: the newest version of the subscription has no such item."""
        self.is_active = self.is_plain = False


@attrs.frozen
class _Row:
    """One record on its way through the door."""

    item_id: str
    quantity: int
    timestamp: Timestamp
    is_set: bool
    id: str | None


class _UsageReader:
    """What can be asked of usage that is kept record by record: of the log as it is, and of views of it."""

    def _cells_of(self, item_id: str) -> ItemCells:
        raise NotImplementedError

    def _rows_of(self, item_id: str | None) -> Iterable[int]:
        raise NotImplementedError

    def _log(self) -> UsageLog:
        raise NotImplementedError

    def _closing(self, account: _Account, period: BillingPeriod) -> Closing | None:
        return account.closing(period.start_seconds)

    def partial(self, item: SubscriptionItem, period: BillingPeriod) -> Partial:
        """Return the partial of the item's aggregator in the period; see :class:`~metering_core.Usage`."""
        with self._log().lock:
            return self._cells_of(item.id).partial(aggregator_of(item), period)

    def partials(self, requests: Iterable[tuple[SubscriptionItem, BillingPeriod]]) -> list[Partial]:
        """Return the partials of many items at once, in the order asked."""
        with self._log().lock:
            return [self.partial(item, period) for item, period in requests]

    def cells(self, item_id: str, period: BillingPeriod, *, look_back: bool = False) -> tuple[Cell, ...]:
        """Return the cells of the item in the period, by timestamp; with ``look_back`` those of all earlier periods too.

        Raises:
            UsageCompactedError: where their records were dropped.
        """
        with self._log().lock:
            found = self._cells_of(item_id).between(period, look_back=look_back)
        return tuple(Cell(timestamp, quantity) for timestamp, quantity in found)

    def records(self, item_id: str | None = None, period: BillingPeriod | None = None) -> list[LoggedRecord]:
        """Return accepted records in the order of arrival: all, of one item, or of one item in one billing period.

        Raises:
            UsageCompactedError: where a period is asked for whose records were dropped.
        """
        with self._log().lock:
            if item_id is not None and period is not None:
                self._cells_of(item_id).between(period)
            logged = self._log().logged(self._rows_of(item_id))
            return [one for one in logged if period is None or one.billed_at in period]

    def summaries(self, item_id: str, *, now: Instant, limit: int | None = None) -> list[UsageSummary]:
        """Return the usage of an item by billing period, newest first, as Stripe lists it.

        The first is the open period (``end`` and ``invoice`` None) unless the subscription has ended; every elapsed period of
        the subscription's life follows, also where it is empty. Its life begins at ``start_date``, else at the period of
        the anchor or of the first usage, whichever is earlier.

        Args:
            item_id: the item.
            now: the moment that divides the open period from the elapsed ones.
            limit: at most so many, at least 1; all unless given.
        """
        at = instant(now, "now")
        wanted = None if limit is None else exact_integer(limit, "limit", minimum=1)
        with self._log().lock:
            known = self._log().known(item_id)
            periods = self._elapsed_periods(known, at)[:wanted]
            return [self._summary(known, period, at) for period in periods]

    def _elapsed_periods(self, known: _Item, at: datetime) -> list[BillingPeriod]:
        subscription = known.account.subscription
        begin = subscription.start_date
        if begin is None:
            used = [from_unix_seconds(cells.start) for cells in self._cells_of(known.item.id)]
            begin = min([subscription.billing_cycle_anchor, *used])
        until = takewhile(lambda period: period.start <= at, subscription.periods_from(begin))
        return list(until)[::-1]

    def _summary(self, known: _Item, period: BillingPeriod, at: datetime) -> UsageSummary:
        summary = summarize(known.item, self, period)
        if at in period:
            return attrs.evolve(summary, end=None)
        is_billed = self._closing(known.account, period) is not None
        return attrs.evolve(summary, invoice=known.account.subscription.invoice_id(period) if is_billed else None)


class UsageLog(_UsageReader):
    """All usage of some subscriptions, append-only; itself a :class:`~metering_core.Usage`.

    Args:
        subscriptions: whose usage to take. More can come later with :meth:`subscribe`.
        clock: gives the log's now (an aware datetime or Unix seconds) where a call does not; the machine's is never read.
        policy: what to relax of the rule "in the current billing period and not in the future".
    """

    def __init__(
        self,
        subscriptions: Iterable[Subscription] = (),
        *,
        clock: Clock | None = None,
        policy: AcceptancePolicy | None = None,
    ) -> None:
        self.policy: Final = AcceptancePolicy() if policy is None else policy
        self._clock = clock
        self.lock: Final = RLock()
        """Held during every append and every answer; hold it to ask several questions of one state."""
        self._accounts: dict[str, _Account] = {}
        self._items: dict[str, _Item] = {}
        self._by_code: list[_Item] = []
        # The columns: what was accepted, in the order of arrival.
        self._codes = array("i")
        self._timestamps = array("q")
        self._quantities: array[int] | list[int] = array("q")
        self._sets = bytearray()
        self._sequences = array("q")
        self._received = array("q")
        self._attributed: dict[int, int] = {}
        self._sequence = 0
        self._folded = 0
        self._rows: dict[int, array[int]] = {}
        self._indexed = 0
        for subscription in subscriptions:
            self.subscribe(subscription)

    def __len__(self) -> int:
        """Return the number of accepted records that the log holds; compacted ones are not counted."""
        return len(self._codes)

    def __repr__(self) -> str:
        """Return the counts."""
        return f"<UsageLog: {len(self._accounts)} subscriptions, {len(self)} records, sequence {self._sequence}>"

    @property
    def sequence(self) -> int:
        """The number of the record accepted last; 0 before the first."""
        return self._sequence

    @property
    def subscriptions(self) -> tuple[Subscription, ...]:
        """The newest version of every subscription, in the order in which they came."""
        return tuple(account.subscription for account in self._accounts.values())

    # Subscriptions ---------------------------------------------------------------------------------------------------

    def subscribe(self, subscription: Subscription) -> None:
        """Take usage of a subscription from now on, or take note of a newer version of it (same id).

        Raises:
            InvalidValueError: ``subscription_changed`` where an item belongs to another subscription, or where a newer
                version would move the boundaries of periods that have usage. Nothing changes then.
        """
        with self.lock:
            self._refuse_moved(subscription)
            account = self._accounts.get(subscription.id)
            if account is None:
                account = self._accounts[subscription.id] = _Account(subscription)
            account.subscription = subscription
            account.forget_current()
            for known in self._by_code:
                if known.account is account:
                    known.drop()
            for item in subscription.items:
                self._bind(item, account)

    def _refuse_moved(self, subscription: Subscription) -> None:
        known = self._accounts.get(subscription.id)
        if known is not None and known.subscription.cycle != subscription.cycle:
            expected = f"the cycle that its usage was recorded under ({known.subscription.cycle})"
            code = ErrorCode.SUBSCRIPTION_CHANGED
            raise InvalidValueError.expecting(code, "billing_cycle_anchor", expected, subscription.cycle)
        for item in subscription.items:
            owner = self._items.get(item.id)
            if owner is not None and owner.account is not known:
                expected = f"an id that no item of another subscription has ({owner.account.subscription.id!r} has it)"
                code = ErrorCode.SUBSCRIPTION_CHANGED
                raise InvalidValueError.expecting(code, "items[id]", expected, item.id)

    def _bind(self, item: SubscriptionItem, account: _Account) -> None:
        known = self._items.get(item.id)
        if known is None:
            known = _Item(len(self._by_code), item, account)
            self._items[item.id] = known
            self._by_code.append(known)
        known.bind(item)

    # The door --------------------------------------------------------------------------------------------------------

    def record(
        self,
        subscription_item: str,
        quantity: int,
        *,
        timestamp: Instant | str = "now",
        action: str = "increment",
        id: str | None = None,  # noqa: A002 - the field's word
        now: Instant | None = None,
    ) -> UsageRecord:
        """Append one usage record; Stripe's parameters and meaning.

        Args:
            subscription_item: the item that was used.
            quantity: an integer of at least 0.
            timestamp: an aware datetime (floored to its second), Unix seconds or ``"now"``.
            action: ``increment`` adds to the usage at that timestamp, ``set`` overwrites it; neither touches another timestamp.
            id: an idempotency key; sent again with the same content it changes nothing.
            now: the moment of receipt; the log's clock unless given.

        Returns:
            The record, its timestamp resolved; for a duplicate, equal to the one accepted first.

        Raises:
            InvalidValueError: for a malformed value; ``param`` names it.
            UsageRejectedError: for a well-formed record that the rules refuse. The log is unchanged.
        """
        record = UsageRecord(subscription_item, quantity, timestamp, action, id)
        with self.lock:
            seconds, microseconds = self._now(now)
            is_set = record.action is Action.SET
            when = seconds if record.timestamp == "now" else record.timestamp
            item = self._items.get(subscription_item)
            if item is not None and id is None and item.is_plain and self._is_current(item.account, when, seconds):
                self._keep(item.code, when, quantity, is_set, microseconds)
            else:
                row = _Row(record.subscription_item, record.quantity, record.timestamp, is_set, record.id)
                receipt = self._take(row, seconds, microseconds)
                if receipt is not None and receipt.outcome is Outcome.REJECTED:
                    raise receipt.error()
                if receipt is not None:
                    when = receipt.details["timestamp"]
        return record if record.timestamp == when else attrs.evolve(record, timestamp=when)

    def append(self, records: Iterable[UsageRecord], *, now: Instant | None = None) -> Receipts:
        """Append records one by one in their order, each judged as if alone after the ones before.

        Args:
            records: ready usage records.
            now: the moment of receipt; the log's clock unless given.

        Returns:
            One receipt per record. What was refused left no trace.

        Raises:
            InvalidValueError: ``parameter_invalid_object`` for something that is not a usage record; nothing was appended.
        """
        batch = list(records)
        for index, kind in enumerate(map(type, batch)):
            if kind is not UsageRecord:
                code = ErrorCode.PARAMETER_INVALID_OBJECT
                raise InvalidValueError.expecting(code, f"records[{index}]", "a UsageRecord", batch[index])
        columns = (list(map(attrgetter(field), batch)) for field in _FIELDS)
        item_ids, quantities, timestamps, actions, ids = columns
        sets = bytes(map(Action.SET.__eq__, actions))
        return self._append(item_ids, quantities, timestamps, sets, ids if any(ids) else None, now, None)

    def append_columns(
        self,
        subscription_items: Sequence[str],
        quantities: Sequence[int],
        timestamps: Sequence[Instant | str],
        actions: Sequence[str] | None = None,
        ids: Sequence[str | None] | None = None,
        *,
        now: Instant | None = None,
        received_at: Sequence[Instant] | None = None,
    ) -> Receipts:
        """Append records given as columns of equal length; builds no object per accepted record.

        Args:
            subscription_items: the items' ids.
            quantities: integers of at least 0.
            timestamps: aware datetimes, Unix seconds or ``"now"``.
            actions: ``increment`` or ``set``; all ``increment`` unless given.
            ids: idempotency keys, None where a record has none.
            now: the moment of receipt of all of them; the log's clock unless given.
            received_at: instead of ``now``, the moment of receipt of each; which is how history is imported.

        Returns:
            One receipt per record, as :meth:`append`.

        Raises:
            InvalidValueError: for a malformed value; ``param`` names the column and the row (``quantities[3]``). Nothing was
                appended then.
        """
        columns = {
            "quantities": quantities,
            "timestamps": timestamps,
            "actions": actions,
            "ids": ids,
            "received_at": received_at,
        }
        for column, values in columns.items():
            if values is not None and len(values) != len(subscription_items):
                expected = f"as many values as subscription_items, {len(subscription_items)}"
                raise InvalidValueError.expecting(ErrorCode.PARAMETER_INVALID_OBJECT, column, expected, len(values))
        if now is not None and received_at is not None:
            message = "You may only specify one of these parameters: now, received_at."
            raise InvalidValueError(ErrorCode.PARAMETERS_EXCLUSIVE, message, param="now")
        return self._append(
            _checked_names(subscription_items, "subscription_items", name),
            _checked_quantities(quantities),
            _checked_timestamps(timestamps),
            _checked_actions(actions, len(subscription_items)),
            None if ids is None else _checked_names(ids, "ids", optional_name),
            now,
            None if received_at is None else _checked(received_at, "received_at", instant),
        )

    def _append(
        self,
        item_ids: Sequence[str],
        quantities: Sequence[int],
        timestamps: Sequence[Timestamp],
        sets: bytes,
        ids: Sequence[str | None] | None,
        now: Instant | None,
        received_at: Sequence[datetime] | None,
    ) -> Receipts:
        """Take checked columns: all at once where nothing can be refused, else row by row."""
        with self.lock:
            if received_at is not None:
                moments: Iterable[tuple[int, int]] = [(unix_seconds(at), _microseconds(at)) for at in received_at]
            else:
                seconds, microseconds = self._now(now)
                if ids is None and self._take_all(item_ids, quantities, timestamps, sets, seconds, microseconds):
                    return Receipts(range(self._sequence - len(item_ids) + 1, self._sequence + 1), {})
                moments = repeat((seconds, microseconds))
            sequences = array("q")
            exceptions: dict[int, Receipt] = {}
            rows = map(_Row, item_ids, quantities, timestamps, map(bool, sets), ids or repeat(None))
            for position, (row, moment) in enumerate(zip(rows, moments, strict=False)):
                receipt = self._take(row, *moment)
                sequences.append(self._sequence if receipt is None else 0)
                if receipt is not None:
                    exceptions[position] = receipt
            return Receipts(sequences, exceptions)

    def _take_all(
        self,
        item_ids: Sequence[str],
        quantities: Sequence[int],
        timestamps: Sequence[Timestamp],
        sets: bytes,
        seconds: int,
        microseconds: int,
    ) -> bool:
        """Keep a whole batch if each record is plainly acceptable, or none of it. The proof takes a pass over each column."""
        if not item_ids or not all(map(self._items.__contains__, set(item_ids))):
            return not item_ids
        touched = [self._items[item_id] for item_id in set(item_ids)]
        if not all(item.is_plain for item in touched):
            return False
        try:
            stamps = array("q", cast("Sequence[int]", timestamps))
        except TypeError:
            stamps = array("q", [seconds if timestamp == "now" else timestamp for timestamp in timestamps])
        first, last = min(stamps), max(stamps)
        for account in {item.account for item in touched}:
            if not (self._is_current(account, first, seconds) and self._is_current(account, last, seconds)):
                return False
        code_of = {item_id: self._items[item_id].code for item_id in set(item_ids)}
        self._keep_all(array("i", map(code_of.__getitem__, item_ids)), stamps, quantities, sets, microseconds)
        return True

    def _take(self, row: _Row, seconds: int, microseconds: int) -> Receipt | None:
        """Judge one record and keep it, or return the receipt that says why not. Order of checks: that of ErrorCode."""
        item = self._items.get(row.item_id)
        timestamp = seconds if row.timestamp == "now" else row.timestamp
        if item is not None and row.id is not None and row.id in item.ids:
            return _repeated(row, row.id, item.ids[row.id])
        if item is None or not item.is_active:
            return item_unknown(row.item_id)
        attributed = None
        if not (item.is_plain and self._is_current(item.account, timestamp, seconds)):
            refusal, attributed = self._judge(item.item, item.account, timestamp, seconds, is_set=row.is_set)
            if refusal is not None:
                return refusal
        self._keep(item.code, timestamp, row.quantity, row.is_set, microseconds)
        if attributed is not None:
            self._attributed[self._sequence] = attributed
        if row.id is not None:
            item.ids[row.id] = Sent(self._sequence, timestamp, row.quantity, row.is_set, row.timestamp == "now")
        return None

    def _is_current(self, account: _Account, timestamp: int, now: int) -> bool:
        """Whether the timestamp is plainly acceptable: in the open current period, and not in the future."""
        if not account.start <= now < account.end:
            account.look_up_current(now)
        return account.start <= timestamp <= now < account.end

    def _judge(
        self, item: SubscriptionItem, account: _Account, timestamp: int, now: int, *, is_set: bool
    ) -> tuple[Receipt | None, int | None]:
        """Return why the record is refused, or None and the start of the period it is attributed to if not its own."""
        subscription = account.subscription
        standing = standing_at(subscription, now, self.policy)
        refusal = (
            price_refusal(item)
            or canceled_refusal(timestamp, subscription, standing)
            or set_refusal(item, subscription, is_set=is_set)
            or time_refusal(timestamp, standing, self.policy)
        )
        if refusal is not None:
            return refusal, None
        closing = account.closing(timestamp, looks_back=aggregator_of(item).looks_back)
        if closing is None:
            return None, None
        if self._can_move(account, standing):
            assert standing.current is not None, "late usage moves to the current period"
            return None, standing.current.start_seconds
        return period_closed(timestamp, closing.period, closing.closed_at), None

    def _can_move(self, account: _Account, standing: Standing) -> bool:
        """Whether usage of a closed period may be billed in the current one instead."""
        return (
            self.policy.late_attribution is LateAttribution.OPEN_PERIOD
            and standing.late is not None
            and standing.current is not None
            and account.closing(standing.current.start_seconds) is None
        )

    def _now(self, now: Instant | None) -> tuple[int, int]:
        """Return the moment of receipt in Unix seconds and microseconds."""
        if now is None:
            if self._clock is None:
                message = "now: expected the moment of receipt, because the log was built without a clock; received None"
                raise InvalidValueError(ErrorCode.PARAMETER_MISSING, message, param="now")
            now = self._clock()
        if type(now) is int:
            return now, now * 1_000_000
        at = instant(now, "now")
        return unix_seconds(at), _microseconds(at)

    # The columns -----------------------------------------------------------------------------------------------------

    def _keep(self, code: int, timestamp: int, quantity: int, is_set: bool, microseconds: int) -> None:  # noqa: FBT001
        try:
            self._quantities.append(quantity)
        except OverflowError:
            self._quantities = [*self._quantities, quantity]
        self._codes.append(code)
        self._timestamps.append(timestamp)
        self._sets.append(is_set)
        self._received.append(microseconds)
        self._sequence += 1
        self._sequences.append(self._sequence)

    def _keep_all(
        self, codes: array[int], stamps: array[int], quantities: Sequence[int], sets: bytes, microseconds: int
    ) -> None:
        if isinstance(self._quantities, array):
            try:
                self._quantities.extend(array("q", quantities))
            except OverflowError:
                self._quantities = [*self._quantities, *quantities]
        else:
            self._quantities.extend(quantities)
        self._codes.extend(codes)
        self._timestamps.extend(stamps)
        self._sets.extend(sets)
        self._received.extend(array("q", [microseconds]) * len(codes))
        self._sequences.extend(array("q", range(self._sequence + 1, self._sequence + 1 + len(codes))))
        self._sequence += len(codes)

    def _catch_up(self) -> None:
        """Fold what was appended since the last question: record by record where little came, else in bulk."""
        first, end = self._folded, len(self._codes)
        self._folded = end
        if self._attributed or (end - first) * 8 < first:
            for row in range(first, end):
                self.fold_into(self._by_code[self._codes[row]].cells, (row,))
        elif first < end:
            self._fold_in_bulk(first, end)

    def _billed_at(self, row: int) -> int:
        """Return a moment in the period that the record is billed in: its timestamp, unless it was attributed to a later one."""
        return self._attributed.get(self._sequences[row], self._timestamps[row])

    def _fold_in_bulk(self, first: int, end: int) -> None:
        nothing = PeriodCells(BillingPeriod(0, 1))
        current = [(1, 0, nothing.cells)] * len(self._by_code)
        touched: list[PeriodCells] = []
        rows = slice(first, end)
        for code, timestamp, quantity, is_set in zip(
            self._codes[rows], self._timestamps[rows], self._quantities[rows], self._sets[rows], strict=True
        ):
            start, until, cells = current[code]
            if not start <= timestamp < until:
                found = self._by_code[code].cells.at(timestamp)
                touched.append(found)
                cells = found.cells
                current[code] = (found.start, found.end, cells)
            if is_set:
                cells[timestamp] = quantity
            else:
                cells[timestamp] = cells.get(timestamp, 0) + quantity
        for found in touched:
            found.forget_derived()

    # Questions -------------------------------------------------------------------------------------------------------

    def _log(self) -> UsageLog:
        return self

    def _cells_of(self, item_id: str) -> ItemCells:
        self._catch_up()
        return self.known(item_id).cells

    def _rows_of(self, item_id: str | None) -> Iterable[int]:
        if item_id is None:
            return range(len(self._codes))
        for row in range(self._indexed, len(self._codes)):
            self._rows.setdefault(self._codes[row], array("q")).append(row)
        self._indexed = len(self._codes)
        return self._rows.get(self.known(item_id).code, ())

    def known(self, item_id: str) -> _Item:
        """Return what the log knows about an item; for the readers in this module."""
        if item_id not in self._items:
            receipt = item_unknown(item_id)
            raise InvoicingError(ErrorCode.SUBSCRIPTION_ITEM_UNKNOWN, receipt.message or "", param="subscription_item")
        return self._items[item_id]

    def logged(self, rows: Iterable[int]) -> Iterator[LoggedRecord]:
        """Yield the records at positions of the columns; for the readers in this module."""
        ids: dict[int, dict[int, str]] = {}
        for row in rows:
            code, sequence = self._codes[row], self._sequences[row]
            known = self._by_code[code]
            if code not in ids:
                ids[code] = {sent.sequence: record_id for record_id, sent in known.ids.items()}
            action = Action.SET if self._sets[row] else Action.INCREMENT
            record_id = ids[code].get(sequence)
            record = UsageRecord(known.item.id, self._quantities[row], self._timestamps[row], action, record_id)
            received_at = _EPOCH + self._received[row] * _MICROSECOND
            yield LoggedRecord(sequence, received_at, record, from_unix_seconds(self._billed_at(row)))

    def as_of(self, limit: int | datetime) -> UsageView:
        """Return a read-only view of the log as it was.

        Args:
            limit: a sequence number (the records up to and including it), or an aware datetime (the records received up to
                and including that moment).
        """
        if isinstance(limit, datetime):
            return UsageView(self, None, _microseconds(instant(limit, "as_of")))
        return UsageView(self, exact_integer(limit, "as_of"), None)

    def is_visible(self, row: int, sequence: int | None, received_at: int | None) -> bool:
        """Whether the record at a position belongs to a view; for the views in this module."""
        return (sequence is None or self._sequences[row] <= sequence) and (
            received_at is None or self._received[row] <= received_at
        )

    def fold_into(self, cells: ItemCells, rows: Iterable[int]) -> None:
        """Fold the records at positions of the columns; for the views in this module."""
        for row in rows:
            period_cells = cells.at(self._billed_at(row))
            period_cells.apply(self._timestamps[row], self._quantities[row], is_set=bool(self._sets[row]))

    # Closing and compaction ------------------------------------------------------------------------------------------

    @contextmanager
    def closing(self, subscription_id: str, period: BillingPeriod, *, now: Instant) -> Iterator[datetime]:
        """Hold the log still while a period is billed, and close the period if that succeeds.

        Yields:
            When the period was closed first, UTC; ``now`` where it was not. Closing it again changes nothing.

        Raises:
            InvoicingError: ``period_not_of_subscription``, or ``period_not_ended`` before the period's end.
            InvalidValueError: ``parameter_invalid_choice`` for a subscription that the log does not have.
        """
        with self.lock:
            account = self._accounts.get(subscription_id)
            if account is None:
                expected = "the id of a subscription in the log"
                code = ErrorCode.PARAMETER_INVALID_CHOICE
                raise InvalidValueError.expecting(code, "subscription", expected, subscription_id)
            account.subscription.require_ended(period, now)
            closing = account.closing(period.start_seconds) or Closing(period, instant(now, "now"))
            yield closing.closed_at
            start = account.subscription.cycle.period_at(period.start).start_seconds
            account.closed[start] = attrs.evolve(closing, period=period)
            account.forget_current()

    def close_period(self, subscription_id: str, period: BillingPeriod, *, now: Instant) -> datetime:
        """Close a billing period, so that its usage cannot change any more; see :meth:`closing`."""
        with self.closing(subscription_id, period, now=now) as closed_at:
            return closed_at

    def compact(self, *, until: Instant | None = None) -> int:
        """Drop the records of closed periods and keep their totals, so that memory does not grow for ever.

        Ids are kept, so that retries are still recognised. Bills of whole periods stay the same; explanations of them, and
        views that would cut through them, are refused with ``usage_compacted`` from now on.

        Args:
            until: only periods that end at or before this moment; all closed ones unless given.

        Returns:
            How many records were dropped.
        """
        with self.lock:
            self._catch_up()
            latest = None if until is None else instant(until, "until")
            closed = {id(cells) for known in self._by_code for cells in known.cells if _is_settled(known, cells, latest)}
            rows: dict[int, list[int]] = {}
            kept = bytearray(b"\1" * len(self._codes))
            for row, code in enumerate(self._codes):
                cells = self._by_code[code].cells.at(self._billed_at(row))
                if id(cells) in closed:
                    kept[row] = 0
                    rows.setdefault(id(cells), []).append(row)
            for known in self._by_code:
                for cells in known.cells:
                    if id(cells) in rows:
                        self._compact_period(cells, rows[id(cells)])
            self._keep_only(kept)
            return kept.count(0)

    def _compact_period(self, cells: PeriodCells, rows: Sequence[int]) -> None:
        received = [self._received[row] for row in rows]
        sequences = (self._sequences[rows[0]], self._sequences[rows[-1]])
        for sequence in map(self._sequences.__getitem__, rows):
            self._attributed.pop(sequence, None)
        cells.compact(sequences, (min(received), max(received)))

    def _keep_only(self, kept: bytearray) -> None:
        """Drop the rows whose flag is 0."""
        self._codes = array("i", compress(self._codes, kept))
        self._timestamps = array("q", compress(self._timestamps, kept))
        quantities = compress(self._quantities, kept)
        self._quantities = array("q", quantities) if isinstance(self._quantities, array) else list(quantities)
        self._sets = bytearray(compress(self._sets, kept))
        self._sequences = array("q", compress(self._sequences, kept))
        self._received = array("q", compress(self._received, kept))
        self._folded = len(self._codes)
        self._rows, self._indexed = {}, 0

    # State as data ---------------------------------------------------------------------------------------------------

    def state(self) -> LogState:
        """Return everything the log holds, as values; what :func:`~metering_core.snapshot` writes."""
        with self.lock:
            self._catch_up()
            return LogState(
                policy=self.policy,
                subscriptions=self.subscriptions,
                items=tuple((known.item, known.account.subscription.id, known.is_active) for known in self._by_code),
                columns=Columns(
                    tuple(self._codes),
                    tuple(self._timestamps),
                    tuple(self._quantities),
                    tuple(map(bool, self._sets)),
                    tuple(self._sequences),
                    tuple(self._received),
                ),
                attributed=dict(self._attributed),
                ids={known.item.id: dict(known.ids) for known in self._by_code if known.ids},
                closed={key: tuple(account.closed.values()) for key, account in self._accounts.items() if account.closed},
                kept={
                    known.item.id: {cells.start: cells.kept for cells in known.cells if cells.kept is not None}
                    for known in self._by_code
                    if any(cells.kept is not None for cells in known.cells)
                },
                sequence=self._sequence,
            )

    @classmethod
    def from_state(cls, state: LogState, *, clock: Clock | None = None) -> Self:
        """Build the log that had this state. The state is trusted; :func:`~metering_core.restore` checks it first."""
        log = cls(state.subscriptions, clock=clock, policy=state.policy)
        log._by_code, log._items = [], {}
        for item, subscription_id, is_active in state.items:
            log._bind(item, log._accounts[subscription_id])
            if not is_active:
                log._items[item.id].drop()
        for item_id, sent in state.ids.items():
            log._items[item_id].ids.update(sent)
        for subscription_id, closings in state.closed.items():
            account = log._accounts[subscription_id]
            for closing in closings:
                start = account.subscription.cycle.period_at(closing.period.start).start_seconds
                account.closed[start] = closing
        for item_id, periods in state.kept.items():
            for start, kept in periods.items():
                log._items[item_id].cells.at(start).kept = kept
        log._attributed = dict(state.attributed)
        log._load(state.columns, state.sequence)
        return log

    def _load(self, columns: Columns, sequence: int) -> None:
        self._codes.extend(columns.codes)
        self._timestamps.extend(columns.timestamps)
        try:
            self._quantities = array("q", columns.quantities)
        except OverflowError:
            self._quantities = list(columns.quantities)
        self._sets.extend(map(int, columns.sets))
        self._sequences.extend(columns.sequences)
        self._received.extend(columns.received)
        self._sequence = sequence

    def __eq__(self, other: object) -> bool:
        """Whether both logs hold the same subscriptions, policy, records, ids and closed periods."""
        return self.state() == other.state() if isinstance(other, UsageLog) else NotImplemented

    __hash__ = None  # type: ignore[assignment]


@attrs.frozen
class Columns:
    """Accepted records, column by column, in the order of arrival. ``received`` is in Unix microseconds."""

    codes: tuple[int, ...]
    timestamps: tuple[int, ...]
    quantities: tuple[int, ...]
    sets: tuple[bool, ...]
    sequences: tuple[int, ...]
    received: tuple[int, ...]


@attrs.frozen(kw_only=True, hash=False)
class LogState:
    """All that a log holds, as values.

    Attributes:
        policy: its acceptance policy.
        subscriptions: the newest versions.
        items: item, id of its subscription, and whether the newest version still has it; ``columns.codes`` counts in these.
        columns: the accepted records.
        attributed: sequence number → a moment in the period it is billed in, where that is not its timestamp's.
        ids: item → id → what it was first sent with.
        closed: subscription → its finalized periods.
        kept: item → start of a compacted period → its totals.
        sequence: the number given last.
    """

    policy: AcceptancePolicy
    subscriptions: tuple[Subscription, ...]
    items: tuple[tuple[SubscriptionItem, str, bool], ...]
    columns: Columns
    attributed: Mapping[int, int]
    ids: Mapping[str, Mapping[str, Sent]]
    closed: Mapping[str, tuple[Closing, ...]]
    kept: Mapping[str, Mapping[int, Kept]]
    sequence: int


class UsageView(_UsageReader):
    """The log as it was: read-only, and itself a :class:`~metering_core.Usage`. Later records do not change its answers."""

    def __init__(self, log: UsageLog, sequence: int | None, received_at: int | None) -> None:
        self._of = log
        # The sequence is fixed now, so that records received later but dated earlier cannot slip into the view.
        self._sequence = log.sequence if sequence is None else min(sequence, log.sequence)
        self._received_at = received_at
        self._cells: dict[str, ItemCells] = {}

    @property
    def sequence(self) -> int:
        """The number of the last record that the view may show."""
        return self._sequence

    def __repr__(self) -> str:
        """Return what bounds the view."""
        received = "" if self._received_at is None else f", received by {_EPOCH + self._received_at * _MICROSECOND}"
        return f"<UsageView up to sequence {self._sequence}{received}>"

    def as_of(self, limit: int | datetime) -> UsageView:
        """Return a view of the log that shows no more than this one."""
        view = self._of.as_of(limit)
        view._sequence = min(view._sequence, self._sequence)
        if self._received_at is not None:
            known = view._received_at
            view._received_at = self._received_at if known is None else min(known, self._received_at)
        return view

    def _log(self) -> UsageLog:
        return self._of

    def _rows_of(self, item_id: str | None) -> Iterable[int]:
        rows = self._of._rows_of(item_id)
        return (row for row in rows if self._of.is_visible(row, self._sequence, self._received_at))

    def _cells_of(self, item_id: str) -> ItemCells:
        live = self._of._cells_of(item_id)
        if self._received_at is None and self._sequence == self._of.sequence:
            return live
        if item_id not in self._cells:
            self._cells[item_id] = folded = ItemCells(self._of.known(item_id).account.subscription.cycle)
            for cells in live:
                if cells.kept is not None:
                    self._take_compacted(folded, cells, cells.kept)
            self._of.fold_into(folded, self._rows_of(item_id))
        return self._cells[item_id]

    def _take_compacted(self, folded: ItemCells, cells: PeriodCells, kept: Kept) -> None:
        """Show a compacted period whole or not at all; one that the view would cut through can answer nothing."""
        first_seen = self._sequence >= kept.sequences[0] and self._sees(kept.received[0])
        all_seen = self._sequence >= kept.sequences[1] and self._sees(kept.received[1])
        if all_seen:
            folded.share(cells)
        elif first_seen:
            folded.share(cells.lost())

    def _sees(self, received_at: int) -> bool:
        return self._received_at is None or received_at <= self._received_at

    def _closing(self, account: _Account, period: BillingPeriod) -> Closing | None:
        closing = super()._closing(account, period)
        return closing if closing is not None and self._sees(_microseconds(closing.closed_at)) else None


# Reading columns -----------------------------------------------------------------------------------------------------

_FIELDS: Final = ("subscription_item", "quantity", "timestamp", "action", "id")


def _microseconds(at: datetime) -> int:
    return (at - _EPOCH) // _MICROSECOND


def _checked(values: Sequence[Any], column: str, check: Callable[[object, str], Any]) -> list[Any]:
    """Check each value of a column, and name the row of the first that fails."""
    return [check(value, f"{column}[{row}]") for row, value in enumerate(values)]


def _checked_names(values: Sequence[Any], column: str, check: Callable[[object, str], Any]) -> Sequence[Any]:
    """Check a column of strings by its distinct values, of which there are few."""
    if set(map(type, values)) <= {str, NoneType}:
        try:
            for value in set(values):
                check(value, column)
        except InvalidValueError:
            return _checked(values, column, check)
        return values
    return _checked(values, column, check)


def _checked_quantities(values: Sequence[Any]) -> Sequence[int]:
    if set(map(type, values)) == {int} and min(values) >= 0:
        return values
    return _checked(values, "quantities", exact_integer)


def _checked_timestamps(values: Sequence[Any]) -> Sequence[Timestamp]:
    if set(map(type, values)) == {int} and min(values) >= 0 and max(values) <= SECONDS_MAX:
        return values
    return [as_timestamp(value, f"timestamps[{row}]") for row, value in enumerate(values)]


def _checked_actions(values: Sequence[Any] | None, count: int) -> bytes:
    if values is None:
        return bytes(count)
    if not set(map(type, values)) <= {str, Action} or not set(values) <= {"increment", "set"}:
        values = _checked(values, "actions", _as_action)
    return bytes(map("set".__eq__, values))


def _as_action(value: object, param: str) -> Action:
    return choice(Action, value, param)


def _repeated(row: _Row, record_id: str, first: Sent) -> Receipt:
    """Answer a record whose id was accepted before: a duplicate, or the same id with other content."""
    sent = _content(row.quantity, row.timestamp, is_set=row.is_set)
    if sent != first.content():
        return id_reused(record_id, first.content(), sent)
    return Receipt(Outcome.DUPLICATE, first.sequence, details={"timestamp": first.timestamp})


def _is_settled(known: _Item, cells: PeriodCells, latest: datetime | None) -> bool:
    """Whether the usage of a period can never be asked for in parts again: finalized, whole, and before ``latest``."""
    closing = known.account.closing(cells.start)
    if closing is None or cells.is_empty() or cells.kept is not None:
        return False
    low, high = cells.bounds()
    whole = closing.period.start_seconds <= low and high < closing.period.end_seconds
    return whole and (latest is None or closing.period.end <= latest)

"""The append-only log of usage: the only mutable object, at the edge of everything else.

Records are kept in columns, in the order of their arrival; everything else (cells, partials,
summaries, views) is derived from them when it is asked for. So appending costs the same however
much was used before, and a question costs what came since the last one.

A log may be used from several threads: every append is atomic, and so is every answer. Whatever
interrupts a call, it happened whole or not at all: see :mod:`metering_core.guarding`.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import repeat
from types import MappingProxyType
from typing import Any, Final, Self

import attrs

from metering_core.acceptance import (
    AcceptancePolicy,
    Outcome,
    Receipt,
    Receipts,
    canceled_refusal,
    item_unknown,
    price_refusal,
    set_refusal,
    standing_at,
    time_refusal,
)
from metering_core.accounts import Account, Closing, KnownItem, Sent
from metering_core.aggregation import Usage
from metering_core.book import Billed, Book, Clock, Closes, require_book
from metering_core.cells import ItemCells, Kept, PeriodCells
from metering_core.changing import FoldedUsage
from metering_core.columns import Batch, Columns, RecordStore, check_each, require_length, resolved
from metering_core.errors import ErrorCode, InvalidValueError
from metering_core.exact import Number
from metering_core.guarding import Uncopied
from metering_core.journal import Change, Journaled, does_not_fit
from metering_core.names import require_function, require_iterable, require_kind
from metering_core.periods import (
    SECONDS_MAX,
    BillingCycle,
    Instant,
    from_unix_seconds,
    instant,
    moment,
)
from metering_core.subscriptions import Subscription, SubscriptionItem
from metering_core.usage import SET, Timestamp, UsageRecord
from metering_core.views import LoggedRecord, UsageReader, UsageView, as_limit

_EPOCH: Final = from_unix_seconds(0)
_BULK: Final = 8
"""Records are folded in bulk when they are more than one in so many of those folded before."""

_new: Final = object.__new__
_fill: Final = UsageRecord.__init__


class _Held:
    """What a log holds of an item: its ids, with what they were accepted with, and its cells."""

    __slots__ = ("cells", "ids")

    def __init__(self, cycle: BillingCycle) -> None:
        self.ids: dict[str, Sent] = {}
        self.cells = ItemCells(cycle)

    def forget_ids_after(self, sequence: int) -> None:
        """Forget the ids of records that were not kept after all: those with greater numbers, which
        came last.
        """
        while self.ids and next(reversed(self.ids.values())).sequence > sequence:
            self.ids.popitem()


class UsageLog(UsageReader, Closes, Journaled, Uncopied):
    """All usage of some subscriptions, append-only; itself a :class:`~metering_core.Usage`.

    Args:
        subscriptions: whose usage to take. More can come later with :meth:`subscribe`.
        clock: gives the log's now (an aware datetime or Unix seconds) where a call does not; the
            machine's is never read.
        policy: what to relax of the rule "in the current billing period and not in the future".
        book: of whatever shares it, such as the ``book`` of another log; one of its own unless
            given. What is told to one of them, and closed by one, is told and closed for all.

    Attributes:
        policy: as given.
        lock: held during every append and every answer; hold it to ask several questions of one
            state.
    """

    def __init__(
        self,
        subscriptions: Iterable[Subscription] = (),
        *,
        clock: Clock | None = None,
        policy: AcceptancePolicy | None = None,
        book: Book | None = None,
    ) -> None:
        if policy is not None:
            require_kind(AcceptancePolicy, policy, "policy")
        if clock is not None:
            require_function(clock, "clock", "returns the moment it is called")
        self.policy: Final = AcceptancePolicy() if policy is None else policy
        self._clock = clock
        self.book = Book() if book is None else require_book(book, measures=False)
        self.lock = self.book.lock
        # The book's own, which it goes on to keep.
        self._items: Final = self.book.items
        self._by_code: Final = self.book.by_code
        self._held: list[_Held] = []
        self._store = RecordStore()
        # Found at each record: what drops all that an interrupted append left.
        self._undo: Final = self._put_back
        # How many rows the cells were folded from; while they are being changed they are not to be
        # trusted.
        self._folded = 0
        self._is_folding = False
        # The number of the change after which each is known by itself.
        self.known_from = self.book.forgotten
        self.book.join(self)
        for subscription in require_iterable(subscriptions, "subscriptions"):
            self.subscribe(subscription)

    def __len__(self) -> int:
        """Return the number of accepted records that the log holds; compacted ones are not
        counted.
        """
        return len(self._store)

    def __repr__(self) -> str:
        """Return the counts."""
        return (
            f"<UsageLog: {len(self.book.accounts)} subscriptions, {len(self)} records, sequence "
            f"{self.sequence}>"
        )

    @property
    def sequence(self) -> int:
        """The number of the record accepted last; 0 before the first."""
        return self._store.sequence

    @property
    def attributed(self) -> Mapping[int, int]:
        """Number of a late record → start of the period it is billed in, where that is not its
        timestamp's; read-only.
        """
        with self.lock:
            self.book.finish()
            return MappingProxyType(dict(self._store.attributed))

    # Subscriptions --------------------------------------------------------------------------------

    def subscribe(
        self, subscription: Subscription, *, now: Instant | None = None, rebill: bool = False
    ) -> None:
        """Take usage of a subscription from now on, or take note of a newer version of it (same
        id).

        A newer version holds for the whole of each open period, so it must not change what was used
        in one before ``now``, or agreed: :mod:`metering_core.changing` has the rule. Finalized
        periods stay as they were billed, also where the version ends within one: nothing of it is
        given back.

        Args:
            subscription: the newer version.
            now: the moment of the change, such as the boundary from which an item has another price
                or quantity; unless given, the log's clock. Without one all usage is from before the
                change, and what is owed without usage is judged as of the latest moment of which
                the log knows, which can tell that a period has begun and never that none has.
            rebill: whether all open periods are to be billed by this version although it changes
                what they owe.

        Raises:
            InvalidValueError: ``subscription_changed`` where an item belongs to another
                subscription, or where a newer version would move the boundaries of periods that
                have usage; ``change_not_billable`` where it would rebill an open period, or have
                more of a closed one to bill. Nothing changes then.
        """
        self.book.subscribe(subscription, now=now, rebill=rebill, clock=self._clock)

    def recorded(self, account: Account) -> FoldedUsage:
        """Return what is known of the usage of a subscription's items; for the book."""
        return FoldedUsage(self.cells_of, account)

    # The door -------------------------------------------------------------------------------------

    def record(
        self,
        subscription_item: str,
        quantity: int,
        *,
        timestamp: Instant | str = "now",
        action: str = "increment",
        id: str | None = None,
        now: Instant | None = None,
    ) -> UsageRecord:
        """Append one usage record; Stripe's parameters and meaning.

        Args:
            subscription_item: the item that was used.
            quantity: an integer of at least 0.
            timestamp: an aware datetime (floored to its second), Unix seconds or ``"now"``.
            action: ``increment`` adds to the usage at that timestamp, ``set`` overwrites it;
                neither touches another timestamp.
            id: an idempotency key; sent again with the same content it changes nothing.
            now: the moment of receipt; the log's clock unless given.

        Returns:
            The record, its timestamp resolved; for a duplicate, equal to the one accepted first.

        Raises:
            InvalidValueError: for a malformed value; ``param`` names it.
            UsageRejectedError: for a well-formed record that the rules refuse. The log is
                unchanged.
        """
        # This is the path of a single record: it is spelt out where a call would cost as much as
        # the step itself.
        with self.lock:
            book = self.book
            if book.unfinished is not None:
                book.begin_change()
            if type(now) is int and 0 <= now <= SECONDS_MAX:
                seconds, received = now, now * 1_000_000
            else:
                seconds, received = self._now(now)
            as_now = type(timestamp) is str and timestamp == "now"
            record = _new(UsageRecord)
            _fill(record, subscription_item, quantity, seconds if as_now else timestamp, action, id)
            when: int = record.timestamp  # type: ignore[assignment]  # resolved above
            item_id = record.subscription_item
            known = self._items.get(item_id)
            is_set = record.action is SET
            if known is not None and id is None and known.is_plain:
                account = known.account
                if account.start <= when <= seconds < account.end or account.is_current(
                    when, when, seconds
                ):
                    book.unfinished = self._undo
                    self._store.append(known.code, when, record.quantity, is_set, received)
                    book.unfinished = None
                    return record
            sent: Timestamp = "now" if as_now else when
            book.unfinished = self._undo
            taken = self._take(item_id, record.quantity, sent, is_set, record.id, seconds)
            if not isinstance(taken, Receipt):
                self._store.received.append(received)
            book.unfinished = None
        return record if not isinstance(taken, Receipt) else _resent(record, taken)

    def append(self, records: Iterable[UsageRecord], *, now: Instant | None = None) -> Receipts:
        """Append records one by one in their order, each judged as if alone after the ones before.

        Args:
            records: ready usage records.
            now: the moment of receipt; the log's clock unless given.

        Returns:
            One receipt per record. What was refused left no trace.

        Raises:
            InvalidValueError: ``parameter_invalid_object`` for something that is not a usage
                record; nothing was appended.
        """
        return self._append(Batch.of_records(records), now, None)

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
            received_at: instead of ``now``, the moment of receipt of each; which is how history is
                imported.

        Returns:
            One receipt per record, as :meth:`append`.

        Raises:
            InvalidValueError: for a malformed value; ``param`` names the column and the row
                (``quantities[3]``). Nothing was appended then.
        """
        batch = Batch.of_columns(subscription_items, quantities, timestamps, actions, ids)
        require_length(received_at, len(batch), "received_at")
        if now is not None and received_at is not None:
            message = "You may only specify one of these parameters: now, received_at."
            raise InvalidValueError(ErrorCode.PARAMETERS_EXCLUSIVE, message, param="now")
        moments = None if received_at is None else check_each(received_at, "received_at", moment)
        return self._append(batch, now, moments)

    def _append(
        self, batch: Batch, now: Instant | None, moments: Sequence[tuple[int, int]] | None
    ) -> Receipts:
        """Take a batch: all at once where nothing can be refused, else row by row."""
        with self.lock:
            self.book.begin_change()
            if moments is None:
                seconds, received = self._now(now)
                if self._take_all(batch, seconds, received):
                    return Receipts(range(self.sequence - len(batch) + 1, self.sequence + 1), {})
                moments = [(seconds, received)] * len(batch)
            return self._take_each(batch, moments)

    def _take_each(self, batch: Batch, moments: Sequence[tuple[int, int]]) -> Receipts:
        sequences, accepted = array("q"), array("q")
        exceptions: dict[int, Receipt] = {}
        rows = zip(
            batch.item_ids,
            batch.quantities,
            batch.timestamps,
            batch.sets,
            batch.ids or repeat(None),
            strict=False,
        )
        self.book.unfinished = self._undo
        for position, (row, (now, received)) in enumerate(zip(rows, moments, strict=True)):
            taken = self._take(*row, now)
            if not isinstance(taken, Receipt):
                sequences.append(taken)
                accepted.append(received)
            else:
                exceptions[position] = taken
                sequences.append(0)
        self._store.received.extend(accepted)
        self.book.unfinished = None
        return Receipts(sequences, exceptions)

    def _take_all(self, batch: Batch, seconds: int, received: int) -> bool:
        """Keep a whole batch if each record is plainly acceptable, or none of it. The proof takes a
        pass over each column.
        """
        touched = {item_id: self._items.get(item_id) for item_id in set(batch.item_ids)}
        known = [item for item in touched.values() if item is not None and item.is_plain]
        if batch.ids is not None or not known or len(known) < len(touched):
            return False
        stamps = resolved(batch.timestamps, seconds)
        first, last = min(stamps), max(stamps)
        if not all(
            account.is_current(first, last, seconds) for account in {item.account for item in known}
        ):
            return False
        code_of = {item.item.id: item.code for item in known}
        codes = array("i", list(map(code_of.__getitem__, batch.item_ids)))
        self.book.unfinished = self._undo
        self._store.extend(codes, stamps, batch.quantities, batch.sets, received)
        self.book.unfinished = None
        return True

    def _take(
        self,
        item_id: str,
        quantity: int,
        sent_timestamp: Timestamp,
        is_set: int,
        record_id: str | None,
        now: int,
    ) -> Receipt | int:
        """Judge one record and write it, or return the receipt that says why not. Order of checks:
        that of ErrorCode.

        Returns:
            The record's number; it is kept once its moment of receipt is written, too.
        """
        known = self._items.get(item_id)
        ids = {} if known is None or record_id is None else self._holding(known).ids
        if known is not None and record_id is not None and record_id in ids:
            answer = ids[record_id].answer(record_id, quantity, sent_timestamp, is_set=bool(is_set))
            if answer.outcome is Outcome.DUPLICATE or known.is_active:
                return answer
        if known is None or not known.is_active:
            return item_unknown(item_id)
        timestamp = now if sent_timestamp == "now" else sent_timestamp
        attributed = None
        if not (known.is_plain and known.account.is_current(timestamp, timestamp, now)):
            verdict = self._judge(known, timestamp, now, is_set=bool(is_set))
            if isinstance(verdict, Receipt):
                return verdict
            attributed = verdict
        number = self._store.begin(known.code, timestamp, quantity, is_set)
        if attributed is not None:
            self._store.attributed[number] = attributed
        if record_id is not None:
            ids[record_id] = Sent(
                number, timestamp, quantity, bool(is_set), sent_timestamp == "now"
            )
        return number

    def _put_back(self) -> None:
        self._store.cut()
        for held in self._held:
            held.forget_ids_after(self._store.sequence)

    def _hold_all(self) -> None:
        new = self._by_code[len(self._held) :]
        self._held += [_Held(one.account.subscription.cycle) for one in new]

    def _holding(self, known: KnownItem) -> _Held:
        """Return what is held of an item; of those that came to the book since, nothing yet."""
        if known.code >= len(self._held):
            self._hold_all()
        return self._held[known.code]

    def _judge(
        self, known: KnownItem, timestamp: int, now: int, *, is_set: bool
    ) -> Receipt | int | None:
        """Return why a record is refused; or the start of the period it is attributed to; or None
        for its timestamp's own.
        """
        subscription = known.account.subscription
        standing = standing_at(subscription, now, self.policy)
        refusal = (
            price_refusal(known.item)
            or canceled_refusal(timestamp, subscription, standing)
            or set_refusal(known.item, subscription, is_set=is_set)
            or time_refusal(timestamp, standing, self.policy)
        )
        if refusal is not None:
            return refusal
        return known.account.judge_closed(known.item, timestamp, now, self.policy, is_set=is_set)

    def _now(self, now: Instant | None) -> tuple[int, int]:
        """Return the moment of receipt in Unix seconds and microseconds."""
        if now is None:
            if self._clock is None:
                message = (
                    "now: expected the moment of receipt, because the log was built without a "
                    "clock; received None"
                )
                raise InvalidValueError(ErrorCode.PARAMETER_MISSING, message, param="now")
            now = self._clock()
        return moment(now, "now")

    # Folding --------------------------------------------------------------------------------------

    def _catch_up(self) -> None:
        """Fold what was appended since the last question: record by record where little came, else
        in bulk.
        """
        self.book.finish()
        if self._is_folding:  # Since a question was interrupted.
            self._forget_cells()
        elif self._folded == len(self._store):
            return
        self._is_folding = True
        self._hold_all()
        first, end = self._folded, len(self._store)
        # Numbers ascend, so the last late record tells whether any of the new ones is late.
        attributed = self._store.attributed
        has_late = bool(attributed) and next(reversed(attributed)) > self.sequence - (end - first)
        if has_late or (end - first) * _BULK < first:
            for row in range(first, end):
                self.fold(row, self._held[self._store.codes[row]].cells)
        else:
            self._fold_in_bulk(slice(first, end))
        self._folded = end
        self._is_folding = False

    def _forget_cells(self) -> None:
        """Have all records folded again; of compacted periods there is no more than what was
        kept.
        """
        for known in self._by_code:
            cells = self._holding(known).cells = ItemCells(known.account.subscription.cycle)
            for start, kept in self._store.kept.get(known.code, {}).items():
                cells.at(start).compact(kept)
        self._folded = 0

    def fold(self, row: int, cells: ItemCells) -> None:
        """Fold the record at a row into cells; for the readers of this log."""
        store = self._store
        cells.at(self._billed_at(row)).apply(
            store.timestamps[row], store.quantities[row], is_set=bool(store.sets[row])
        )

    def _billed_at(self, row: int) -> int:
        """Return a moment in the period that a record is billed in: its timestamp, unless it was
        attributed to a later one.
        """
        if not self._store.attributed:
            return self._store.timestamps[row]
        return self._store.attributed.get(self._store.sequence_of(row), self._store.timestamps[row])

    def _fold_in_bulk(self, rows: slice) -> None:
        store = self._store
        nowhere: tuple[int, int, dict[int, Number]] = (1, 0, {})
        current = [nowhere] * len(self._by_code)
        touched: list[PeriodCells] = []
        columns = (
            store.codes[rows],
            store.timestamps[rows],
            store.quantities[rows],
            store.sets[rows],
        )
        for code, timestamp, quantity, is_set in zip(*columns, strict=True):
            start, end, cells = current[code]
            if not start <= timestamp < end:
                found = self._held[code].cells.at(timestamp)
                touched.append(found)
                cells = found.cells
                current[code] = (found.start, found.end, cells)
            if is_set:
                cells[timestamp] = quantity
            else:
                cells[timestamp] = cells.get(timestamp, 0) + quantity
        for found in touched:
            found.forget_derived()

    # What its readers need ------------------------------------------------------------------------

    def _source(self) -> UsageLog:
        return self

    def _cells(self, item_id: str) -> ItemCells:
        return self.cells_of(item_id)

    def _rows(self, item_id: str | None) -> Iterable[int]:
        return self.rows_of(item_id)

    def known(self, item_id: str) -> KnownItem:
        """Return what the log knows about an item; for its readers."""
        return self.book.known(item_id)

    def cells_of(self, item_id: str) -> ItemCells:
        """Return the item's cells with everything appended so far; for the readers of this log."""
        self._catch_up()
        return self._holding(self.known(item_id)).cells

    def last_received(self) -> int | None:
        """Return when the last record came, in Unix microseconds; None where there is none."""
        return self._store.received[-1] if self._store.received else None

    def rows_of(self, item_id: str | None) -> Iterable[int]:
        """Return the rows of an item, or all, in the order of arrival; for the readers of
        this log.
        """
        self.book.finish()
        return (
            range(len(self._store))
            if item_id is None
            else self._store.rows_with(self.known(item_id).code)
        )

    def compacted_items(self) -> Iterable[str]:
        """Return the ids of the items of which a period was compacted; for the readers of
        this log.
        """
        return (self._by_code[code].item.id for code in self._store.kept)

    def sequence_of(self, row: int) -> int:
        """Return the number of the record at a row; for the readers of this log."""
        return self._store.sequence_of(row)

    def received_of(self, row: int) -> int:
        """Return when the record at a row was received, in Unix microseconds; for the readers of
        this log.
        """
        return self._store.received[row]

    def logged(self, rows: Iterable[int]) -> Iterator[LoggedRecord]:
        """Yield the records at some rows; for the readers of this log."""
        store = self._store
        ids: dict[int, dict[int, str]] = {}
        for row in rows:
            code, sequence = store.codes[row], store.sequence_of(row)
            known = self._by_code[code]
            if code not in ids:
                sent = self._holding(known).ids.items()
                ids[code] = {one.sequence: record_id for record_id, one in sent}
            action = "set" if store.sets[row] else "increment"
            record = UsageRecord(
                known.item.id,
                store.quantities[row],
                store.timestamps[row],
                action,
                ids[code].get(sequence),
            )
            received_at = _EPOCH + timedelta(microseconds=store.received[row])
            yield LoggedRecord(
                sequence, received_at, record, from_unix_seconds(self._billed_at(row))
            )

    def as_of(self, limit: int | datetime) -> UsageView:
        """Return a read-only view of the log as it was.

        Args:
            limit: a sequence number (the records up to and including it), or an aware datetime (the
                records received up to and including that moment). A number says nothing of moments,
                so such a view knows of all periods that were finalized to this day.

        Raises:
            InvalidValueError: ``parameter_invalid_integer``, also for a number that the log has not
                given yet, such as Unix seconds; ``parameter_invalid_instant``.
        """
        with self.lock:
            self.book.finish()
            return UsageView(self, *as_limit(limit, self.sequence, self))

    def _usage_of(self, invoice: Billed) -> Usage:
        return self

    # Closing and compaction -----------------------------------------------------------------------

    def compact(self, *, until: Instant | None = None) -> int:
        """Drop the records of closed periods and keep their totals, so that memory does not grow
        for ever.

        Ids are kept, so that retries are still recognised. Bills of whole periods stay the same;
        explanations of them, and views that would cut through them, are refused with
        ``usage_compacted`` from now on.

        Args:
            until: only periods that end at or before this moment; all closed ones unless given.

        Returns:
            How many records were dropped.
        """
        latest = None if until is None else instant(until, "until")
        with self.lock:
            self.book.begin_change()
            self._catch_up()
            return self._compact(latest)

    def _compact(self, latest: datetime | None) -> int:
        periods = (
            (known, cells) for known in self._by_code for cells in self._holding(known).cells
        )
        settled = {
            cells: (known, array("q"))
            for known, cells in periods
            if known.is_settled(cells, latest)
        }
        flags = bytearray(b"\1" * len(self._store))
        for row, code in enumerate(self._store.codes):
            found = settled.get(self._held[code].cells.at(self._billed_at(row)))
            if found is not None:
                found[1].append(row)
                flags[row] = 0
        kept = {code: dict(periods) for code, periods in self._store.kept.items()}
        for cells, (known, rows) in settled.items():
            kept.setdefault(known.code, {})[cells.start] = self._kept_of(known, cells, rows)
        left = self._store.without(flags, kept)
        self._is_folding = True
        self.known_from = self.last_change
        self._store = left  # All that compaction changes; the cells follow.
        for cells, (known, _) in settled.items():
            cells.compact(kept[known.code][cells.start])
        self._folded = len(left)
        self._is_folding = False
        return flags.count(0)

    def _kept_of(self, known: KnownItem, cells: PeriodCells, rows: Sequence[int]) -> Kept:
        received = [self._store.received[row] for row in rows]
        sequences = self._store.sequence_of(rows[0]), self._store.sequence_of(rows[-1])
        return cells.totals(
            known.item.recurring.aggregate_usage, sequences, (min(received), max(received))
        )

    # Changes --------------------------------------------------------------------------------------

    def _entries(self, after: int) -> Iterator[tuple[int, dict[str, Any]]]:
        store = self._store
        rows = range(bisect_right(range(len(store)), after, key=store.sequence_of), len(store))
        sent = self._sent_after(after, {store.codes[row] for row in rows})
        for row in rows:
            number = store.sequence_of(row)
            record_id, as_now = sent.get(number, (None, False))
            record = UsageRecord(
                self._by_code[store.codes[row]].item.id,
                store.quantities[row],
                "now" if as_now else store.timestamps[row],
                "set" if store.sets[row] else "increment",
                record_id,
            )
            received_at = _EPOCH + timedelta(microseconds=store.received[row])
            yield number, {"record": record, "received_at": received_at}

    def _sent_after(self, after: int, codes: Iterable[int]) -> dict[int, tuple[str, bool]]:
        """Return the ids of some items' records after a number, and whether they were sent as
        "now"; by number.
        """
        found = {}
        for code in codes:
            for record_id, sent in reversed(self._holding(self._by_code[code]).ids.items()):
                if sent.sequence <= after:
                    break
                found[sent.sequence] = record_id, sent.as_now
        return found

    def _take_entry(self, change: Change) -> None:
        record, at = change.record, change.received_at
        if record is None or at is None:
            raise does_not_fit("a usage record or a fact", change)
        (receipt,) = self.append([record], now=at)
        if receipt.outcome is Outcome.REJECTED:
            raise receipt.error()
        if receipt.outcome is Outcome.DUPLICATE:
            raise does_not_fit("a record with an id that is new", change)

    # State as data --------------------------------------------------------------------------------

    def state(self) -> LogState:
        """Return everything the log holds, as values; what :func:`~metering_core.snapshot`
        writes.
        """
        with self.lock:
            self.book.finish()
            return LogState(
                policy=self.policy,
                subscriptions=self.subscriptions,
                items=tuple(
                    (known.item, known.account.subscription.id, known.is_active)
                    for known in self._by_code
                ),
                columns=self._store.values(),
                attributed=dict(self._store.attributed),
                ids=self._ids(),
                closed=self.book.closed,
                kept={
                    self._by_code[code].item.id: dict(periods)
                    for code, periods in sorted(self._store.kept.items())
                },
                sequence=self.sequence,
                told=self.book.told,
            )

    def _ids(self) -> dict[str, dict[str, Sent]]:
        return {
            known.item.id: dict(ids) for known in self._by_code if (ids := self._holding(known).ids)
        }

    @classmethod
    def from_state(cls, state: LogState, *, clock: Clock | None = None) -> Self:
        """Build the log that had this state. The state is trusted; :func:`~metering_core.restore`
        checks it first.
        """
        log = cls(clock=clock, policy=state.policy)
        log.book.restore(state.subscriptions, state.closed, state.told)
        log.known_from = state.told + state.sequence
        for item, subscription_id, is_active in state.items:
            known = log.book.bind(item, log.book.accounts[subscription_id])
            if not is_active:
                known.drop()
        for item_id, sent in state.ids.items():
            log._holding(log._items[item_id]).ids.update(sent)
        kept = {log._items[item_id].code: periods for item_id, periods in state.kept.items()}
        log._store = RecordStore.of(state.columns, state.sequence, state.attributed, kept)
        log._is_folding = True
        return log

    def __eq__(self, other: object) -> bool:
        """Whether both logs hold the same subscriptions, policy, records, ids and closed
        periods.
        """
        return self.state() == other.state() if isinstance(other, UsageLog) else NotImplemented

    __hash__ = None  # type: ignore[assignment]


def _resent(record: UsageRecord, answer: Receipt) -> UsageRecord:
    """Return the record that was accepted first where this one is a duplicate, or raise why it was
    refused.
    """
    if answer.outcome is Outcome.REJECTED:
        raise answer.error()
    return attrs.evolve(record, timestamp=answer.details["timestamp"])


@attrs.frozen(kw_only=True, hash=False)
class LogState:
    """All that a log holds, as values.

    Attributes:
        policy: its acceptance policy.
        subscriptions: the newest versions.
        items: item, id of its subscription, and whether the newest version still has it;
            ``columns.codes`` counts in these.
        columns: the accepted records.
        attributed: number of a late record → start of the period it is billed in, where that is not
            its timestamp's.
        ids: item → id → what it was first sent with.
        closed: subscription → its finalized periods.
        kept: item → start of a compacted period → its totals.
        sequence: the number given last.
        told: how many facts were told; two states that came about otherwise may be equal.
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
    told: int = attrs.field(default=0, eq=False)

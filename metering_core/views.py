"""What can be asked of usage that is kept record by record: of the log as it is, and of the log as
it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from threading import RLock
from typing import TYPE_CHECKING, Protocol, Self, TypeVar, cast
from weakref import ProxyTypes, proxy

import attrs

from metering_core.accounts import Account, Closing, KnownItem
from metering_core.aggregation import UsageSummary, aggregator_of, as_requests, summarize
from metering_core.cells import ItemCells, PeriodCells
from metering_core.codec import Storable
from metering_core.errors import ErrorCode, InvalidValueError, InvoicingError
from metering_core.exact import exact_integer
from metering_core.measures import Partial
from metering_core.names import flag, require_kind
from metering_core.periods import (
    SECONDS_MIN,
    BillingPeriod,
    Instant,
    from_unix_seconds,
    instant,
    moment,
    unix_seconds,
)
from metering_core.prices import AggregateUsage
from metering_core.subscriptions import Subscription, SubscriptionItem
from metering_core.usage import Cell, UsageRecord

if TYPE_CHECKING:  # Invoices are made, and books kept, above this module.
    from metering_core.book import Book
    from metering_core.invoicing import Invoice


__all__ = ["LoggedRecord", "UsageView"]


@attrs.frozen
class LoggedRecord(Storable):
    """An accepted record with what the log added to it.

    Attributes:
        sequence: its number in the log, from 1, in the order of arrival.
        received_at: the log's now when it was accepted, UTC.
        record: what was used; the timestamp is resolved to Unix seconds.
        billed_at: a moment in the period it is billed in: its timestamp, unless it was attributed
            to a later period.
    """

    sequence: int
    received_at: datetime
    record: UsageRecord
    billed_at: datetime


class KeepsClosings(Protocol):
    """A log, as far as its views say what was finalized."""

    lock: RLock
    """Held during every append and every answer."""

    @property
    def book(self) -> Book:
        """Who pays for what since when."""

    def closing_of(self, subscription_id: str, period: BillingPeriod) -> Closing | None:
        """Return how a period was finalized; None where it was not."""

    def require_told(self, subscription: Subscription, period: BillingPeriod) -> None:
        """Refuse a version of a subscription by which a period must not be finalized."""


class Source(KeepsClosings, Protocol):
    """The log, as its readers see it."""

    @property
    def sequence(self) -> int:
        """The number of the record accepted last."""

    def known(self, item_id: str) -> KnownItem:
        """Return what the log knows about an item."""

    def cells_of(self, item_id: str) -> ItemCells:
        """Return the item's cells with everything appended so far."""

    def rows_of(self, item_id: str | None) -> Iterable[int]:
        """Return the rows of an item, or all, in the order of arrival."""

    def compacted_items(self) -> Iterable[str]:
        """Return the ids of the items of which a period was compacted."""

    def sequence_of(self, row: int) -> int:
        """Return the number of the record at a row."""

    def received_of(self, row: int) -> int:
        """Return when the record at a row was received, in Unix microseconds."""

    def logged(self, rows: Iterable[int]) -> Iterator[LoggedRecord]:
        """Yield the records at some rows."""

    def fold(self, row: int, cells: ItemCells) -> None:
        """Fold the record at a row into cells."""


class UsageReader:
    """The questions that the log and its views answer; itself a :class:`~metering_core.Usage`."""

    def _source(self) -> Source:
        raise NotImplementedError  # pragma: no cover - the log and its views have their own

    def _cells(self, item_id: str) -> ItemCells:
        raise NotImplementedError  # pragma: no cover - the log and its views have their own

    def _rows(self, item_id: str | None) -> Iterable[int]:
        raise NotImplementedError  # pragma: no cover - the log and its views have their own

    def _closing(self, account: Account, period: BillingPeriod) -> Closing | None:
        return account.closing(period.start_seconds)

    def partial(self, item: SubscriptionItem, period: BillingPeriod) -> Partial:
        """Return the partial of the item's aggregator in the period; see
        :class:`~metering_core.Usage`.

        Raises:
            InvoicingError: ``subscription_item_unknown``, or ``price_not_metered``.
            UsageCompactedError: where the answer would need records that were dropped.
        """
        require_kind(SubscriptionItem, item, "item")
        require_kind(BillingPeriod, period, "period")
        with self._source().lock:
            return self._partial(item, period)

    def _partial(self, item: SubscriptionItem, period: BillingPeriod) -> Partial:
        return self._cells(item.id).partial(aggregator_of(item), period)

    def partials(self, requests: Iterable[tuple[SubscriptionItem, BillingPeriod]]) -> list[Partial]:
        """Return the partials of many items at once, in the order asked."""
        asked = as_requests(requests)
        with self._source().lock:
            return [self._partial(item, period) for item, period in asked]

    def cells(
        self, item_id: str, period: BillingPeriod, *, look_back: bool = False
    ) -> tuple[Cell, ...]:
        """Return the cells of the item in the period, by timestamp; with ``look_back`` those of all
        earlier periods too.

        Raises:
            UsageCompactedError: where their records were dropped.
        """
        require_kind(BillingPeriod, period, "period")
        flag(look_back, "look_back")
        with self._source().lock:
            found = self._cells(item_id).between(period, look_back=look_back)
        return tuple(Cell(timestamp, quantity) for timestamp, quantity in found)

    def records(
        self, item_id: str | None = None, period: BillingPeriod | None = None
    ) -> list[LoggedRecord]:
        """Return accepted records in the order of arrival: all, or only those of one item, billed
        in one period, or both.

        Raises:
            UsageCompactedError: where some of them were dropped: ask for the periods that were not
                compacted.
        """
        if period is not None:
            require_kind(BillingPeriod, period, "period")
        with self._source().lock:
            for compacted in self._source().compacted_items() if item_id is None else (item_id,):
                self._cells(compacted).refuse_if_compacted(period)
            logged = self._source().logged(self._rows(item_id))
            return _billed_in(period, logged)

    def late(self, item_id: str, period: BillingPeriod) -> dict[BillingPeriod, int]:
        """Return how much of what a period bills of an item is late usage of which earlier one,
        that was finalized before.

        Raises:
            UsageCompactedError: where their records were dropped.
        """
        require_kind(BillingPeriod, period, "period")
        cycle, late = (
            self._source().known(item_id).account.subscription.cycle,
            dict[BillingPeriod, int](),
        )
        for one in self.records(item_id, period):
            if one.record.timestamp != "now" and one.record.timestamp < period.start_seconds:
                earlier = cycle.period_at(from_unix_seconds(one.record.timestamp))
                late[earlier] = late.get(earlier, 0) + one.record.quantity
        return late

    def summaries(
        self, item_id: str, *, now: Instant, limit: int | None = None
    ) -> list[UsageSummary]:
        """Return the usage of an item by billing period, newest first, as Stripe lists it.

        The first is the open period (``end`` and ``invoice`` None) unless the subscription has
        ended; every elapsed period of the subscription's life follows, also where it is empty. Of
        one that has always been, they go back to the period of the anchor or of the first usage,
        whichever is earlier.

        Args:
            item_id: the item.
            now: the moment that divides the open period from the elapsed ones.
            limit: at most so many, 1 to 100; all unless given.
        """
        at = instant(now, "now")
        wanted = None if limit is None else exact_integer(limit, "limit", minimum=1, maximum=100)
        with self._source().lock:
            known = self._source().known(item_id)
            periods = self._periods_until(known, at)
            if wanted is not None:
                periods = (period for _, period in zip(range(wanted), periods, strict=False))
            return [self._summary(known, period, at) for period in periods]

    def _periods_until(self, known: KnownItem, at: datetime) -> Iterator[BillingPeriod]:
        """Yield the periods that have begun by ``at``, newest first, each looked up when it is
        asked for.
        """
        subscription = known.account.subscription
        begin = subscription.start_date
        if unix_seconds(begin) == SECONDS_MIN:
            used = [from_unix_seconds(cells.start) for cells in self._cells(known.item.id)]
            begin = min([subscription.billing_cycle_anchor, *used])
        first, last, ended_at = unix_seconds(begin), unix_seconds(at), subscription.ended_at
        if ended_at is not None:
            last = min(last, unix_seconds(ended_at) - 1)
        while last >= first:
            period = subscription.period_at(last)
            assert period is not None, "it holds a moment of the subscription's life"
            yield period
            last = period.start_seconds - 1

    def _summary(self, known: KnownItem, period: BillingPeriod, at: datetime) -> UsageSummary:
        summary = summarize(known.item, self, period)
        if at in period:
            return attrs.evolve(summary, end=None)
        is_billed = self._closing(known.account, period) is not None
        return attrs.evolve(
            summary, invoice=known.account.subscription.invoice_id(period) if is_billed else None
        )


class SeesInvoices:
    """What the views of both logs say of the invoices that the log keeps."""

    def _closings(self) -> KeepsClosings:
        raise NotImplementedError  # pragma: no cover - both views have their own

    def _shows(self, closing: Closing) -> bool:
        """Whether a period had been finalized."""
        raise NotImplementedError  # pragma: no cover - both views have their own

    def stored_invoice(self, subscription_id: str, period: BillingPeriod) -> Invoice | None:
        """Return the invoice of a period that was finalized by then; None where it was not."""
        require_kind(BillingPeriod, period, "period")
        with self._closings().lock:
            closing = self._closings().closing_of(subscription_id, period)
            return closing.invoice if closing is not None and self._shows(closing) else None

    def require_told(self, subscription: Subscription, period: BillingPeriod) -> None:
        """Refuse to finalize a period that was finalized later than the view, or by a version that
        was not told.

        Raises:
            InvoicingError: ``invoice_conflict`` where the log keeps an invoice that the view does
                not show.
            InvalidValueError: ``change_not_billable`` for a version that the log was not told.
        """
        require_kind(Subscription, subscription, "subscription")
        require_kind(BillingPeriod, period, "period")
        with self._closings().lock:
            closing = self._closings().closing_of(subscription.id, period)
            if closing is not None and not self._shows(closing):
                raise InvoicingError.of_second_invoice(
                    subscription.id,
                    "the invoice that the log keeps of the period",
                    "a view of before it was made (finalize with the log, or preview what "
                    "the view would bill)",
                )
            self._closings().require_told(subscription, period)


class UsageView(SeesInvoices, UsageReader):
    """The log as it was: read-only, and itself a :class:`~metering_core.Usage`. Later records do
    not change its answers.
    """

    def __init__(self, log: Source, sequence: int, received_by: datetime | None) -> None:
        self._log = log
        self._sequence = sequence
        self._received_by = None if received_by is None else moment(received_by, "as_of")[1]
        self._folded: dict[str, tuple[int, ItemCells]] = {}

    @property
    def lock(self) -> RLock:
        """That of the log."""
        return self._log.lock

    @property
    def book(self) -> Book:
        """That of the log."""
        return self._log.book

    @property
    def sequence(self) -> int:
        """The number of the last record that the view may show."""
        return self._sequence

    def __repr__(self) -> str:
        """Return what bounds the view."""
        by = (
            ""
            if self._received_by is None
            else f", received by {from_unix_seconds(self._received_by // 10**6)}"
        )
        return f"<UsageView up to sequence {self._sequence}{by}>"

    def as_of(self, limit: int | datetime) -> UsageView:
        """Return a view that shows no more than this one; ``limit`` as in
        :meth:`~metering_core.UsageLog.as_of`.
        """
        sequence, received_by = as_limit(limit, self._sequence, self._log)
        view = UsageView(self._log, sequence, received_by)
        if self._received_by is not None:
            known = view._received_by
            view._received_by = (
                self._received_by if known is None else min(known, self._received_by)
            )
        return view

    def weakly(self) -> Self:
        """Return this view without keeping its log alive; asked after the log is gone, it raises
        ``ReferenceError``.

        Invoice lines remember their usage so: an archive of invoices must not be an archive of
        logs.
        """
        self._log = held_weakly(self._log)
        return self

    def _source(self) -> Source:
        return self._log

    def _rows(self, item_id: str | None) -> Iterable[int]:
        log = self._log
        return (
            row
            for row in log.rows_of(item_id)
            if log.sequence_of(row) <= self._sequence and self._sees(log.received_of(row))
        )

    def _sees(self, received: int) -> bool:
        return self._received_by is None or received <= self._received_by

    def _cells(self, item_id: str) -> ItemCells:
        live = self._log.cells_of(item_id)
        if self._received_by is None and self._sequence == self._log.sequence:
            return live
        compacted = [cells for cells in live if cells.kept is not None]
        # Folded anew after a compaction, so that no answer depends on what was asked before it.
        if item_id not in self._folded or self._folded[item_id][0] != len(compacted):
            self._folded[item_id] = len(compacted), self._fold(item_id, compacted)
        return self._folded[item_id][1]

    def _fold(self, item_id: str, compacted: Iterable[PeriodCells]) -> ItemCells:
        folded = ItemCells(self._log.known(item_id).account.subscription.cycle)
        for cells in compacted:
            self._take_compacted(folded, cells)
        for row in self._rows(item_id):
            self._log.fold(row, folded)
        return folded

    def _take_compacted(self, folded: ItemCells, cells: PeriodCells) -> None:
        """Show a compacted period whole or not at all; one that the view would cut through can
        answer nothing.
        """
        kept = cells.kept
        assert kept is not None, "it was compacted"
        if kept.sequences[1] <= self._sequence and self._sees(kept.received[1]):
            folded.share(cells)
        elif kept.sequences[0] <= self._sequence and self._sees(kept.received[0]):
            folded.share(cells.lost())

    def _closings(self) -> KeepsClosings:
        return self._log

    def _shows(self, closing: Closing) -> bool:
        is_received = self._sees(moment(closing.closed_at, "closed_at")[1])
        return is_received and closing.knew(AggregateUsage) <= self._sequence

    def _closing(self, account: Account, period: BillingPeriod) -> Closing | None:
        closing = super()._closing(account, period)
        return (
            closing
            if closing is not None and self._sees(moment(closing.closed_at, "closed_at")[1])
            else None
        )


Held = TypeVar("Held")


def held_weakly(log: Held) -> Held:
    """Return what stands for a log without keeping it alive."""
    return log if isinstance(log, ProxyTypes) else cast(Held, proxy(log))


class Numbered(Protocol):
    """A log, as far as its numbers go."""

    @property
    def sequence(self) -> int:
        """The number given last."""
        ...  # pragma: no cover


def as_limit(limit: int | datetime, sequence: int, log: Numbered) -> tuple[int, datetime | None]:
    """Return up to which number, and received by when, a view may show records; it never shows
    later numbers than now.

    A number that the log has not given yet is refused: it is Unix seconds, as other instants may
    be, or a mistake.
    """
    if isinstance(limit, datetime):
        return sequence, instant(limit, "as_of")
    expected = "an aware datetime, or a sequence number: an integer of at least 0"
    try:
        number = exact_integer(limit, "as_of")
    except InvalidValueError as error:
        raise InvalidValueError.expecting(error.code, "as_of", expected, limit) from None
    if number > sequence and number > log.sequence:
        expected = (
            "an aware datetime for a moment, for a number is a sequence number, here at most "
            f"{log.sequence}"
        )
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_INTEGER, "as_of", expected, limit
        )
    return min(number, sequence), None


def _billed_in(period: BillingPeriod | None, logged: Iterable[LoggedRecord]) -> list[LoggedRecord]:
    return [one for one in logged if period is None or one.billed_at in period]

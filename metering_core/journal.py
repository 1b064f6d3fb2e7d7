"""What a log took, in order, as data: what a journal holds, and how a log is built from it.

Entries (usage, and what cancels it) and facts (subscriptions, meters, customers, closed periods)
are numbered in one sequence, from 1. A log says what it took since a number
(``log.changes(since=…)``), and another log, built alike, takes it (``log.apply(change)``): it comes
to the same numbers, receipts and invoices. What was refused left nothing, so it is not there; what
was a duplicate neither.

Applying is safe to repeat. A change that a log has already changes nothing, so that whoever stored
a change and was interrupted before it heard so applies it again. One that skips a number is
refused, and so is one that says something else than the log has under its number.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, ClassVar, Final

import attrs

from metering_core.codec import Storable
from metering_core.errors import ErrorCode, InvalidValueError
from metering_core.exact import exact_integer
from metering_core.invoicing import Invoice, take_invoice
from metering_core.meter_events import MeterEvent, MeterEventAdjustment
from metering_core.meters import Meter
from metering_core.names import each_of, flag, name, require_kind
from metering_core.periods import BillingPeriod, instant
from metering_core.prices import Priced
from metering_core.subscriptions import Subscription
from metering_core.usage import UsageRecord

__all__ = ["Change", "ClosedPeriod"]


@attrs.frozen
class ClosedPeriod(Storable):
    """A billing period that was closed.

    Attributes:
        subscription: the subscription's id.
        period: as it was cut then.
        invoice: what was billed; None where it was closed without.
        is_settled: whether the log was told what the invoice charges, so that what comes late is
            billed as the difference.
        up_to: the number of the last event that the invoice knew of, where it was kept later than
            it was made; None where it knew all.
    """

    subscription: str
    period: BillingPeriod
    invoice: Invoice | None = None
    is_settled: bool = False
    up_to: int | None = None

    def __attrs_post_init__(self) -> None:
        """Refuse what is no closed period."""
        name(self.subscription, "subscription")
        require_kind(BillingPeriod, self.period, "period")
        if self.invoice is not None:
            require_kind(Invoice, self.invoice, "invoice")
        flag(self.is_settled, "is_settled")
        if self.up_to is not None:
            exact_integer(self.up_to, "up_to")


@attrs.frozen
class Change(Priced):
    """One thing that a log took: just one of the fields from ``record`` on says what.

    Attributes:
        number: its place in the sequence, from 1.
        received_at: when an entry was received, or when periods were closed; UTC.
        record: a usage record, as it was sent.
        event: a meter event, as it was sent.
        cancellation: the cancellation of an event.
        subscription: a subscription, or a newer version of it.
        meter: a meter, or a newer version of it.
        customer: a customer whose events are accepted.
        closed: periods that were closed together.
    """

    is_of_log: ClassVar = True

    number: int
    received_at: datetime | None = attrs.field(default=None, kw_only=True)
    record: UsageRecord | None = attrs.field(default=None, kw_only=True)
    event: MeterEvent | None = attrs.field(default=None, kw_only=True)
    cancellation: MeterEventAdjustment | None = attrs.field(default=None, kw_only=True)
    subscription: Subscription | None = attrs.field(default=None, kw_only=True)
    meter: Meter | None = attrs.field(default=None, kw_only=True)
    customer: str | None = attrs.field(default=None, kw_only=True)
    closed: tuple[ClosedPeriod, ...] | None = attrs.field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        """Refuse a change that says nothing, or two things at once."""
        exact_integer(self.number, "number", minimum=1)
        if self.received_at is not None:
            instant(self.received_at, "received_at")
        said = [one for one in _KINDS if getattr(self, one) is not None]
        for one in said:
            require_kind(_KINDS[one], getattr(self, one), one)
        each_of(ClosedPeriod, self.closed or (), "closed")
        if len(said) != 1 or (self.received_at is None) != (said[0] in _UNDATED):
            expected = f"one of {', '.join(_KINDS)}, with received_at unless it is a fact"
            code = ErrorCode.PARAMETER_INVALID_OBJECT
            raise InvalidValueError.expecting(code, "change", expected, ", ".join(said) or None)

    @property
    def kind(self) -> str:
        """Which field says what was taken."""
        return next(one for one in _KINDS if getattr(self, one) is not None)


_KINDS: Final[dict[str, type]] = {
    "record": UsageRecord,
    "event": MeterEvent,
    "cancellation": MeterEventAdjustment,
    "subscription": Subscription,
    "meter": Meter,
    "customer": str,
    "closed": tuple,
}
_UNDATED: Final = frozenset({"subscription", "meter", "customer"})
_FACTS: Final = _UNDATED | {"closed"}


class Journaled:
    """What both logs do with what they took, as data."""

    book: Any
    known_from: int

    @property
    def sequence(self) -> int:
        """The number of the entry accepted last."""
        raise NotImplementedError  # pragma: no cover - both logs have their own

    def _entries(self, after: int) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the entries after a number, with the fields of their changes."""
        raise NotImplementedError  # pragma: no cover - both logs have their own

    def _take_entry(self, change: Change) -> None:
        """Take an entry that is the next one."""
        raise NotImplementedError  # pragma: no cover - both logs have their own

    def subscribe(self, subscription: Subscription, *, rebill: bool = False) -> None:
        """Take note of a version of a subscription."""
        raise NotImplementedError  # pragma: no cover - both logs have their own

    def closing_all(
        self, periods: Mapping[str, BillingPeriod], *, now: datetime
    ) -> AbstractContextManager[Mapping[str, datetime]]:
        """Hold usage still while periods are billed, and close them."""
        raise NotImplementedError  # pragma: no cover - both logs have their own

    @property
    def last_change(self) -> int:
        """The number of the last change, of entries and facts together; 0 before the first."""
        with self.book.lock:
            self.book.finish()
            return self.sequence + int(self.book.told)

    def changes(self, since: int = 0) -> tuple[Change, ...]:
        """Return everything that the log took after a number, in order, as data.

        Args:
            since: the number of the last change that the caller has.

        Raises:
            InvalidValueError: ``parameter_invalid_integer`` for a number that is none of the log's,
                or from before a snapshot that the log was restored from, or a compaction: what was
                taken until then is not known one by one any more.
        """
        number = exact_integer(since, "since")
        with self.book.lock:
            last = self.last_change
            if not self.known_from <= number <= last:
                expected = f"a number from {self.known_from} to {last}, the last change"
                code = ErrorCode.PARAMETER_INVALID_INTEGER
                raise InvalidValueError.expecting(code, "since", expected, since)
            return tuple(self._changes_after(number))

    def _changes_after(self, number: int) -> Iterator[Change]:
        last: int = self.book.told
        facts = range(self.book.forgotten + 1, last + 1)
        first = facts[bisect_right(facts, number, key=lambda one: self._told_after(one) + one) :]
        entries = self._entries(number - (first.start - 1))
        entry = next(entries, None)
        for one in first:
            after = self._told_after(one)
            while entry is not None and entry[0] <= after:
                yield Change(entry[0] + one - 1, **entry[1])
                entry = next(entries, None)
            yield Change(after + one, **_fields_of(self.book.fact(one).fields))
        while entry is not None:
            yield Change(entry[0] + last, **entry[1])
            entry = next(entries, None)

    def _told_after(self, number: int) -> int:
        """Return after which entry of this log a fact was told; those from before it held any usage
        come first.
        """
        heard: Iterator[tuple[Any, int]] = self.book.fact(number).heard
        return next((after for keeper, after in heard if keeper() is self), 0)

    def apply(self, change: Change) -> bool:
        """Take a change of another log that was built alike, or of this log before it was lost.

        Args:
            change: the one after the last that the log took, or any of those that it has.

        Returns:
            Whether it was new; a change that the log has already changes nothing.

        Raises:
            InvalidValueError: ``parameter_invalid_integer`` where a number is skipped;
                ``parameter_invalid_object`` for a change that the log has otherwise, or that does
                not fit it. Nothing changes then.
            MeteringError: as the verb that took it first.
        """
        require_kind(Change, change, "change")
        with self.book.lock:
            self.book.begin_change()
            last = self.last_change
            if change.number > last + 1:
                expected = f"a number of at most {last + 1}, the next one"
                code = ErrorCode.PARAMETER_INVALID_INTEGER
                raise InvalidValueError.expecting(code, "change[number]", expected, change.number)
            if change.number <= last:
                self._require_same(change)
                return False
            take = self._take_fact if change.kind in _FACTS else self._take_entry
            take(change)
            return True

    def _take_fact(self, change: Change) -> None:
        """Take a fact; it was judged against the same usage when it was told first."""
        book = self.book
        if change.subscription is not None:
            self.subscribe(change.subscription, rebill=True)
        elif change.meter is not None and book.measures:
            known = change.meter.id in book.meters
            (book.update_meter if known else book.create_meter)(change.meter)
        elif change.customer is not None and book.customers is not None:
            book.add_customer(change.customer)
        elif change.closed is not None and change.received_at is not None:
            self._close(change.closed, change.received_at)
        else:
            raise does_not_fit("what this log takes", change)

    def _close(self, closed: tuple[ClosedPeriod, ...], now: datetime) -> None:
        periods = {one.subscription: one.period for one in closed}
        with self.closing_all(periods, now=now):
            self._keep_invoices(closed)

    def _keep_invoices(self, closed: tuple[ClosedPeriod, ...]) -> None:
        log: Any = self
        for one in closed:
            told = self.book.account_of(one.subscription).subscription
            if one.invoice is not None:
                take_invoice(log, told, one.invoice, one.up_to, settles=one.is_settled)

    def _require_same(self, change: Change) -> None:
        """Refuse a change that the log has otherwise; of one that it does not know any more it
        cannot tell.
        """
        if change.number <= self.known_from:
            return
        own = next(self._changes_after(change.number - 1))
        if own != change:
            raise does_not_fit(f"the {own.kind} that the log has as number {own.number}", change)


def does_not_fit(expected: str, change: Change) -> InvalidValueError:
    """Return the refusal of a change."""
    code, received = ErrorCode.PARAMETER_INVALID_OBJECT, f"another {change.kind}"
    return InvalidValueError.expecting(code, "change", expected, received)


def _fields_of(fact: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of the change that a fact is."""
    closed = fact.get("closed")
    if closed is None:
        return dict(fact)
    return {**fact, "closed": tuple(ClosedPeriod(*one) for one in closed)}

"""Subscriptions, policy and closed periods as rows that SQL can join, and refusals as receipts.

Nothing about time is decided in SQL that is decided in Python: the life of a subscription falls
into stretches in which its standing does not change, each stretch is looked up with the log's own
function, and SQL only finds the stretch of a record.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from itertools import pairwise
from typing import Final, TypeAlias

import attrs

from metering_core.acceptance import (
    AcceptancePolicy,
    LateAttribution,
    Outcome,
    Receipt,
    canceled_refusal,
    item_unknown,
    late_refusal,
    price_refusal,
    set_refusal,
    standing_at,
    time_refusal,
)
from metering_core.accounts import Account, Closing, KnownItem, Sent
from metering_core.book import Book, require_book
from metering_core.errors import ErrorCode, InvalidValueError
from metering_core.measures import AGGREGATORS
from metering_core.names import require_iterable, require_kind
from metering_core.periods import SECONDS_MIN, BillingCycle, BillingPeriod, unix_seconds
from metering_core.subscriptions import Subscription, SubscriptionItem

Row: TypeAlias = tuple[int | str | bool | None, ...]
"""One row of an input relation."""

Span: TypeAlias = tuple[int, int]
"""Least and greatest, both inclusive, in Unix seconds."""

COLUMNS: Final[Mapping[str, Mapping[str, str]]] = {
    "items": {
        "subscription_item": "STRING",
        "item": "BIGINT",
        "calendar": "BIGINT",
        "aggregate_usage": "STRING",
        "has_thresholds": "BOOLEAN",
    },
    "standings": {
        "calendar": "BIGINT",
        "received_from": "BIGINT",
        "received_before": "BIGINT",
        "is_ended": "BOOLEAN",
        "future_tolerance": "BIGINT",
        "current_end": "BIGINT",
        "accepted_from": "BIGINT",
        "accepted_before": "BIGINT",
        "late_billed_at": "BIGINT",
    },
    "closings": {
        "calendar": "BIGINT",
        "starts": "BIGINT",
        "ends": "BIGINT",
        "bills_late": "BOOLEAN",
    },
}
"""The input relations of the kernel beside ``usage``, with the types of their columns."""

_SECOND = timedelta(seconds=1)


@attrs.frozen
class Calendar:
    """All that the rules of time ask of a subscription; many subscriptions may share one.

    Attributes:
        cycle: where the boundaries are.
        start_date: first instant of the life.
        ended_at: end of the life, or None.
        closings: what was finalized.
        bills_late: of each closing, whether what is late of it can be billed in an open period.
        looks_back: whether a closed period also closes all before it; told apart only where
            something is closed.
    """

    cycle: BillingCycle
    start_date: datetime
    ended_at: datetime | None
    closings: tuple[Closing, ...]
    bills_late: tuple[bool, ...]
    looks_back: bool


@attrs.frozen
class Judged:
    """A record that was refused or was a duplicate, as judging wrote it; the ``first_…`` are those
    of the id's first record.
    """

    seq: int
    subscription_item: str
    quantity: int
    timestamp: int
    is_set: bool
    id: str | None
    received: int
    first_seq: int | None
    first_quantity: int | None
    first_timestamp: int | None
    first_is_set: bool | None
    verdict: str


class Rules:
    """What the kernel's statements must know beside the usage.

    Args:
        book: the subscriptions, and what was finalized before any of the usage arrived.
        policy: what is relaxed of the rule "in the current billing period and not in the future".
    """

    def __init__(self, book: Book, policy: AcceptancePolicy | None) -> None:
        if policy is not None:
            require_kind(AcceptancePolicy, policy, "policy", "an AcceptancePolicy")
        self.policy: Final = AcceptancePolicy() if policy is None else policy
        self.items: Final[Mapping[str, KnownItem]] = book.items
        self._calendars: dict[Calendar, tuple[int, Account]] = {}
        self._calendar_of = {
            key: self._number_calendar(known.item, known.account)
            for key, known in self.items.items()
        }

    def _number_calendar(self, item: SubscriptionItem, account: Account) -> int:
        subscription = account.subscription
        # Without the invoices, so that what was billed makes no two calendars of one.
        closings = tuple(attrs.evolve(one, invoice=None) for one in account.closed.values())
        bills_late = tuple(_bills_late(item, one) for one in account.closed.values())
        looks_back = bool(closings) and _looks_back(item)
        life = subscription.cycle, subscription.start_date, subscription.ended_at
        calendar = Calendar(*life, closings, bills_late, looks_back)
        return self._calendars.setdefault(calendar, (len(self._calendars), account))[0]

    # Rows -----------------------------------------------------------------------------------------

    def item_rows(self) -> Iterator[Row]:
        """Yield the rows of ``items``."""
        for known in self.items.values():
            item, account = known.item, known.account
            mode = item.recurring.aggregate_usage
            has_thresholds = set_refusal(item, account.subscription, is_set=True) is not None
            calendar = self._calendar_of[item.id]
            yield (
                item.id,
                known.code,
                calendar,
                None if mode is None else mode.value,
                has_thresholds,
            )

    def standing_rows(self, received: Mapping[str, Sequence[Span]]) -> Iterator[Row]:
        """Yield the rows of ``standings`` that cover when each item's records were received, by
        item id.
        """
        spans: dict[int, list[Span]] = {}
        for item_id, found in received.items():
            if item_id in self._calendar_of:
                spans.setdefault(self._calendar_of[item_id], []).extend(found)
        for calendar, (number, account) in self._calendars.items():
            for span in united(spans.get(number, ())):
                yield from self._stretches(calendar, number, account, span)

    def _stretches(
        self, calendar: Calendar, number: int, account: Account, span: Span
    ) -> Iterator[Row]:
        first, last = span
        changes = {at for at in self._changes(account.subscription, span) if first < at <= last}
        edges = [first, *sorted(changes), last + 1]
        for received_from, received_before in pairwise(edges):
            yield (
                number,
                received_from,
                received_before,
                *self._standing(calendar, account, received_from),
            )

    def _changes(self, subscription: Subscription, span: Span) -> Iterator[int]:
        """Yield the moments at which the standing may change: boundaries, the life's ends, and the
        grace after each.
        """
        grace = self.policy.late_grace // _SECOND
        for moment in self._boundaries(subscription, span):
            yield moment
            yield moment + grace

    @staticmethod
    def _boundaries(subscription: Subscription, span: Span) -> Iterator[int]:
        for moment in (subscription.start_date, subscription.ended_at):
            if moment is not None:
                yield unix_seconds(moment)
        for period in periods_within(subscription, span):
            yield period.start_seconds
            yield period.end_seconds

    def _standing(self, calendar: Calendar, account: Account, now: int) -> Row:
        standing = standing_at(account.subscription, now, self.policy)
        current, first, last = (
            standing.current,
            standing.late or standing.current,
            standing.current or standing.late,
        )
        bills_late = (
            self.policy.late_attribution is LateAttribution.OPEN_PERIOD and current is not None
        )
        is_closed = (
            current is not None
            and account.closing(current.start_seconds, looks_back=calendar.looks_back) is not None
        )
        return (
            standing.ended,
            self.policy.future_tolerance // _SECOND,
            None if current is None else current.end_seconds,
            0 if first is None else first.start_seconds,
            0 if last is None else last.end_seconds,
            current.start_seconds if bills_late and not is_closed and current is not None else None,
        )

    def closing_rows(self) -> Iterator[Row]:
        """Yield the rows of ``closings``."""
        for calendar, (number, account) in self._calendars.items():
            cycle = calendar.cycle
            periods = [cycle.period_at(closing.period.start) for closing in account.closed.values()]
            if calendar.looks_back:
                yield number, SECONDS_MIN, max(period.end_seconds for period in periods), False
            else:
                for period, bills_late in zip(periods, calendar.bills_late, strict=True):
                    yield number, period.start_seconds, period.end_seconds, bills_late

    # Receipts -------------------------------------------------------------------------------------

    def receipt(self, judged: Judged, sequences: Mapping[int, int]) -> Receipt:
        """Return what the log says of a record with this verdict; ``sequences`` numbers the
        originals of duplicates.
        """
        receipt = self._answer(judged, sequences)
        said = receipt.outcome.value if receipt.outcome is Outcome.DUPLICATE else receipt.code
        assert said == judged.verdict, (
            f"SQL said {judged.verdict!r} of row {judged.seq}, the rules say {said!r}"
        )
        return receipt

    def _answer(self, judged: Judged, sequences: Mapping[int, int]) -> Receipt:
        if judged.subscription_item not in self.items:
            return item_unknown(judged.subscription_item)
        if judged.first_seq is not None and judged.first_seq < judged.seq:
            return _identity(judged, sequences)
        known = self.items[judged.subscription_item]
        item, account = known.item, known.account
        subscription, timestamp = account.subscription, judged.timestamp
        standing = standing_at(subscription, judged.received, self.policy)
        refusal = (
            price_refusal(item)
            or canceled_refusal(timestamp, subscription, standing)
            or set_refusal(item, subscription, is_set=judged.is_set)
            or time_refusal(timestamp, standing, self.policy)
        )
        if refusal is not None:
            return refusal
        verdict = account.judge_closed(
            item, timestamp, judged.received, self.policy, is_set=judged.is_set
        )
        assert isinstance(verdict, Receipt), f"SQL refused row {judged.seq}, the rules accept it"
        return verdict


def book_for(
    subscriptions: Iterable[Subscription],
    closed: Mapping[str, Iterable[Closing]] | None,
    book: Book | None,
) -> Book:
    """Return an engine's own book: of what is given, or of what another one says now.

    Rows are judged once, by what was told until then; what the other book is told later is not
    theirs.
    """
    if book is None:
        return _told(subscriptions).with_closed(closed)
    require_book(book, measures=False)
    if subscriptions != () or closed is not None:
        message = "You may only specify one of these parameters: subscriptions or closed, book."
        raise InvalidValueError(ErrorCode.PARAMETERS_EXCLUSIVE, message, param="book")
    return _told(book.subscriptions).with_closed(book.closed)


def _told(subscriptions: Iterable[Subscription]) -> Book:
    """Return a book that was told one version of each of some subscriptions.

    Raises:
        InvalidValueError: ``parameter_invalid_object`` where a subscription or an item comes twice.
    """
    book, code = Book(), ErrorCode.PARAMETER_INVALID_OBJECT
    for subscription in require_iterable(subscriptions, "subscriptions"):
        require_kind(Subscription, subscription, "subscriptions", "Subscriptions")
        if subscription.id in book.accounts:
            expected = "one version of each subscription"
            raise InvalidValueError.expecting(code, "subscriptions", expected, subscription.id)
        for item in subscription.items:
            if item.id in book.items:
                owner = book.items[item.id].account.subscription.id
                expected = f"an id that no item of another subscription has ({owner!r} has it)"
                raise InvalidValueError.expecting(code, "items[id]", expected, item.id)
        book.subscribe(subscription)
    return book


def united(spans: Iterable[Span]) -> Iterator[Span]:
    """Yield spans in order, those that touch as one.

    >>> list(united([(7, 9), (0, 2), (3, 4), (8, 12)]))
    [(0, 4), (7, 12)]
    """
    first, last = None, 0
    for begins, ends in sorted(spans):
        if first is not None and begins <= last + 1:
            last = max(last, ends)
            continue
        if first is not None:
            yield first, last
        first, last = begins, ends
    if first is not None:
        yield first, last


def periods_within(subscription: Subscription, span: Span) -> Iterator[BillingPeriod]:
    """Yield the billing periods that meet a span, but for those that the years 1 to 9999 do not
    hold whole.
    """
    first, last = span
    if first < _EARLY_SECONDS:  # The first period may have begun before the year 1.
        days = range(max(first, SECONDS_MIN), min(last, _EARLY_SECONDS), 86_400)
        first = next(
            iter(days[bisect_left(days, x=True, key=partial(_begins, subscription)) :]),
            _EARLY_SECONDS,
        )
    with suppress(InvalidValueError):  # The year 9999 is over.
        for period in subscription.periods_from(first):
            if period.start_seconds > last:
                return
            yield period


_EARLY_SECONDS: Final = SECONDS_MIN + 4 * 366 * 86_400
"""The longest period that may have begun before the year 1 ends by then."""


def _begins(subscription: Subscription, at: int) -> bool:
    try:
        next(subscription.periods_from(at), None)
    except InvalidValueError:
        return False
    return True


def candidates(
    accounts: Iterable[Account], used: Mapping[str, Sequence[Span]]
) -> Iterator[tuple[Subscription, SubscriptionItem, BillingPeriod]]:
    """Yield the billing periods that may have usage of a subscription, with each of its items that
    may have it.
    """
    for account in accounts:
        subscription = account.subscription
        items = [item for item in subscription.items if item.id in used]
        spans = united([span for item in items for span in used[item.id]])
        periods = dict.fromkeys(
            period for span in spans for period in periods_within(subscription, span)
        )
        for period in periods:
            yield from ((subscription, item, period) for item in items)


def _looks_back(item: SubscriptionItem) -> bool:
    mode = item.recurring.aggregate_usage
    return mode is not None and AGGREGATORS[mode].looks_back


def _bills_late(item: SubscriptionItem, closing: Closing) -> bool:
    if item.recurring.aggregate_usage is None:
        return False
    period, billed_by = closing.period, closing.price_of(item)
    return (
        late_refusal(period.start_seconds, period, closing.closed_at, item, billed_by, is_set=False)
        is None
    )


def _identity(judged: Judged, sequences: Mapping[int, int]) -> Receipt:
    first = (judged.first_timestamp, judged.first_quantity, judged.first_is_set)
    assert judged.id is not None, "a record without an id is no duplicate"
    assert judged.first_seq is not None, "as above"
    timestamp, quantity, is_set = first
    assert timestamp is not None and quantity is not None and is_set is not None, (  # noqa: PT018
        "a claim has content"
    )
    sent = Sent(sequences.get(judged.first_seq, 0), timestamp, quantity, is_set, as_now=False)
    return sent.answer(judged.id, judged.quantity, judged.timestamp, is_set=judged.is_set)

"""What a newer version of a subscription must not do in silence: rebill what was used or agreed in a period that is open.

A version holds from the beginning: a bill is made of the newest version and all usage of its period. So a new price would
re-rate what was used at the former one, an item that is gone would leave its usage unbilled, and a later start would put usage
outside of every period. As long as versions have no dates of their own, each such change is refused by name. What an item owes
for an open period is one of two things, and each has its rule:

- what was *used* and recorded: nothing may change for it, whenever the change is told. An item that is new on a meter does not
  bill events of before the change either;
- what is owed *without usage* (a licensed quantity, a flat fee, a level that is carried from period to period): nothing may
  change in a period that has begun; exactly at a boundary, all periods before it closed, everything may.

A finalized period is not touched by any version: its invoice is kept. A period that was closed without an invoice is still open
here: nothing is recorded in it any more, but its first invoice bills the version of then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Protocol

import attrs

from metering_core.accounts import Account
from metering_core.aggregation import Usage
from metering_core.aggregators import AGGREGATORS
from metering_core.cells import PeriodCells
from metering_core.errors import ErrorCode, InvalidValueError
from metering_core.periods import (
    SECONDS_MAX,
    SECONDS_MIN,
    BillingPeriod,
    Instant,
    from_unix_seconds,
    instant,
    iso_8601,
    unix_seconds,
)
from metering_core.prices import terms_of
from metering_core.pricing import owes_at_zero
from metering_core.readings import MICROSECONDS
from metering_core.subscriptions import Subscription, SubscriptionItem

_WAY_OUT = (
    "finalize the period first and tell the change with now= its end, or end this subscription and start another, or pass "
    "rebill=True to have the whole period billed by the new version"
)


class RecordedUsage(Protocol):
    """What a log knows of the usage of an item, as far as it matters for a change."""

    def open_spans(self, item: SubscriptionItem) -> Iterable[tuple[int, int]]:
        """Return the first and the last second of the item's usage in each stretch of open periods that has some."""

    def is_carried(self, item: SubscriptionItem) -> bool:
        """Whether usage of former periods makes what the item owes for a later one."""


class KeepsCells(Usage, Protocol):
    """Whatever keeps the records of a log: the log itself, or columns that it keeps the subscriptions for."""

    def cells_of(self, item_id: str) -> Iterable[PeriodCells]:
        """Return the item's cells by billing period, with everything appended so far."""

    def last_received(self) -> int | None:
        """Return when the last record came, in Unix microseconds; None where there is none."""


@attrs.frozen
class FoldedUsage:
    """What a log of usage records knows: the cells of its items, by billing period."""

    cells_of: Callable[[str], Iterable[PeriodCells]]
    account: Account

    def open_spans(self, item: SubscriptionItem) -> Iterator[tuple[int, int]]:
        """Return the first and the last second of the item's usage in each open period that has some."""
        for cells in self._cells(item):
            if not self.account.is_billed(cells.start):
                yield cells.bounds()

    def is_carried(self, item: SubscriptionItem) -> bool:
        """Whether usage of former periods makes what the item owes for a later one."""
        mode = item.recurring.aggregate_usage
        return mode is not None and AGGREGATORS[mode].looks_back and any(self._cells(item))

    def _cells(self, item: SubscriptionItem) -> Iterator[PeriodCells]:
        is_known = item.recurring.aggregate_usage is not None and item.id in self.account.items
        recorded = self.cells_of(item.id) if is_known else ()
        return (cells for cells in recorded if not cells.is_empty())


@attrs.frozen
class _Change:
    """One change of an item that alters its bill: which parameter says so, and from what to what."""

    param: str
    former: SubscriptionItem | None
    newer: SubscriptionItem | None

    @property
    def item(self) -> SubscriptionItem:
        """The item as it was, or the new one."""
        item = self.former or self.newer
        assert item is not None, "something changed of it"
        return item

    @property
    def received(self) -> str:
        """What the newer version says instead."""
        if self.newer is None:
            return "no such item"
        return f"{self.newer.price.id} × {self.newer.quantity}" if self.param.endswith("[quantity]") else self.newer.price.id


@attrs.frozen
class ChangeMoment:
    """When a subscription changes.

    Attributes:
        account: of the subscription.
        given: the moment as it was said.
        clock: the log's.
        received: when usage was received last, in Unix microseconds; None where there is none.
    """

    account: Account
    given: datetime | None
    clock: Callable[[], Instant] | None
    received: int | None

    def said(self) -> datetime | None:
        """Return the moment as it was said, else as the clock says; None without either."""
        return self.given if self.given is not None or self.clock is None else instant(self.clock(), "now")

    def known(self) -> datetime:
        """Return the moment as it was said, else the latest of which the log knows.

        Raises:
            InvalidValueError: ``parameter_missing`` for ``now``, where nothing says whether a period has begun.
        """
        said = self.said()
        if said is not None:
            return said
        known = [] if self.received is None else [from_unix_seconds(self.received // MICROSECONDS)]
        known += [closing.closed_at for closing in self.account.closed.values()]
        period = _first_open(self.account)
        # What a log knows may be long ago: it can tell that a period has begun, and never that none has.
        if not known or (period is not None and max(known) <= period.start):
            message = (
                "now: expected the moment of the change, because the log has no clock and knows of no moment in the open "
                "period that would say that it has begun; received None"
            )
            raise InvalidValueError(ErrorCode.PARAMETER_MISSING, message, param="now")
        return max(known)


def refuse_unbillable(account: Account, newer: Subscription, usage: RecordedUsage, moment: ChangeMoment) -> None:
    """Refuse a newer version that would rebill what was used or agreed in an open period.

    Args:
        account: of the subscription as it is.
        newer: the version that is told.
        usage: what is recorded of the items.
        moment: of the change; asked only where something is owed without usage, or an item is new on a meter.

    Raises:
        InvalidValueError: ``change_not_billable``; ``param`` names the field that changed.
    """
    former = account.subscription
    changes = list(_changed_items(former, newer))
    for change in changes:
        item = change.former
        for first, _ in () if item is None else usage.open_spans(item):
            since = iso_8601(from_unix_seconds(first))
            raise _refusal(change.param, f"the item {change.item.id!r} as it was used since {since}", change.received)
        _refuse_earlier(change, usage, moment)
    _refuse_cut(former, newer, usage)
    owing = [one for one in changes if _owes_unused(one.former, usage) or _owes_unused(one.newer, usage)]
    if owing:
        _refuse_begun(account, owing[0], moment.known())
    if (former.start_date, former.ended_at) != (newer.start_date, newer.ended_at):
        _refuse_life(account, newer, usage, moment)


def refuse_reopened(account: Account, newer: Subscription) -> None:
    """Refuse a life that is longer within a closed period than its invoice: the rest could not be billed any more.

    A shorter one alters no bill: the invoice is kept, differences of late usage are against all of its period, and a life that
    comes back to where it ended is billed from there on.

    Raises:
        InvalidValueError: ``change_not_billable`` for ``start_date`` or ``ended_at``.
    """
    code, former = ErrorCode.CHANGE_NOT_BILLABLE, account.subscription
    if (former.start_date, former.ended_at) == (newer.start_date, newer.ended_at):
        return
    for closing in (one for one in account.closed.values() if one.invoice is not None):
        whole, billed = newer.cycle.period_at(closing.period.start), closing.period
        starts = max(whole.start, newer.start_date)
        ends = whole.end if newer.ended_at is None else min(whole.end, newer.ended_at)
        if starts >= ends:
            continue
        expected = f"no more of a closed period than was billed ({billed} of {whole}): start another subscription instead"
        if starts < billed.start:
            raise InvalidValueError.expecting(code, "start_date", expected, iso_8601(newer.start_date))
        if ends > billed.end:
            given = None if newer.ended_at is None else iso_8601(newer.ended_at)
            raise InvalidValueError.expecting(code, "ended_at", expected, given)


def open_stretches(subscription: Subscription, account: Account | None) -> Iterator[tuple[int, int]]:
    """Yield the stretches of a version's life of which no invoice is kept, in Unix seconds, ``[start, end)``."""
    start = unix_seconds(subscription.start_date)
    end = SECONDS_MAX if subscription.ended_at is None else unix_seconds(subscription.ended_at)
    closed = () if account is None else account.closed.values()
    billed = (one.period for one in closed if one.invoice is not None)
    for period in sorted(billed, key=lambda one: one.start_seconds):
        if start < min(period.start_seconds, end):
            yield start, min(period.start_seconds, end)
        start = max(start, period.end_seconds)
    if start < end:
        yield start, end


def overlap(one: Subscription, other: Subscription) -> bool:
    """Whether two lives share a moment."""
    return all(
        left.ended_at is None or max(left.start_date, right.start_date) < left.ended_at
        for left, right in ((one, other), (other, one))
    )


def _changed_items(former: Subscription, newer: Subscription) -> Iterator[_Change]:
    """Yield what changed of the items that there were, and the items that are new."""
    known = {item.id: item for item in former.items}
    places = {item.id: place for place, item in enumerate(newer.items)}
    added = [item for item in newer.items if item.id not in known]
    for item in former.items:
        if item.id not in places:
            heir = _heir(item, added)
            if heir is None:
                yield _Change("items", item, None)
            else:
                added.remove(heir)
            continue
        place = places[item.id]
        other = newer.items[place]
        if former.currency != newer.currency:
            yield _Change("currency", item, other)
        elif terms_of(item.price) != terms_of(other.price):
            yield _Change(f"items[{place}][price]", item, other)
        elif item.quantity != other.quantity:
            yield _Change(f"items[{place}][quantity]", item, other)
    for item in added:
        yield _Change(f"items[{places[item.id]}]", None, item)


def _heir(item: SubscriptionItem, added: Iterable[SubscriptionItem]) -> SubscriptionItem | None:
    """Return the new item that bills what a dropped one billed: the events of its meter, or its quantity, on the same terms."""
    if item.recurring.aggregate_usage is not None:
        return None  # Usage records belong to their item.
    terms = (*terms_of(item.price), item.quantity)
    return next((one for one in added if (*terms_of(one.price), one.quantity) == terms), None)


def heirs_of(
    former: Subscription, newer: Subscription, may_inherit: Callable[[SubscriptionItem, SubscriptionItem], bool]
) -> dict[str, str]:
    """Return which new item bills what comes late for which dropped one: one on the same meter, that on equal terms first."""
    if former.currency != newer.currency:
        return {}
    kept, known = {item.id for item in newer.items}, {item.id for item in former.items}
    added = [item for item in newer.items if item.id not in known]
    dropped = [item for item in former.items if item.id not in kept and item.recurring.meter is not None]
    heirs: dict[str, str] = {}
    for find in (_heir, _on_its_meter):
        for item in (one for one in dropped if one.id not in heirs):
            heir = find(item, [one for one in added if may_inherit(item, one)])
            if heir is not None:
                added.remove(heir)
                heirs[item.id] = heir.id
    return heirs


def _on_its_meter(item: SubscriptionItem, added: Iterable[SubscriptionItem]) -> SubscriptionItem | None:
    return next((one for one in added if one.recurring.meter == item.recurring.meter), None)


def _refuse_earlier(change: _Change, usage: RecordedUsage, moment: ChangeMoment) -> None:
    """Refuse an item that is new on a meter and would bill events of before the change; of an unknown moment, all there are.

    What comes after the change is what the item is for: it is billed rightly, also where the change is told later.
    """
    former, newer = change.former, change.newer
    if newer is None or newer.recurring.meter in {None, None if former is None else former.recurring.meter}:
        return
    for first, _ in usage.open_spans(newer):
        since, said = from_unix_seconds(first), moment.said()
        if said is None or since < said:
            expected = (
                "a meter without events of the customer from before the change, but there are some in an open period, since "
                f"{iso_8601(since)} (finalize the period first and tell the change with now= its end, or pass rebill=True to "
                "have the item bill them)"
            )
            code = ErrorCode.CHANGE_NOT_BILLABLE
            raise InvalidValueError.expecting(code, change.param, expected, newer.recurring.meter)


def _owes_unused(item: SubscriptionItem | None, usage: RecordedUsage) -> bool:
    """Whether an item owes something for a period in which nothing is used."""
    return item is not None and (_owes_at_zero(item) or usage.is_carried(item))


def _owes_at_zero(item: SubscriptionItem | None) -> bool:
    """Whether an item is licensed, or its price charges a quantity of 0."""
    if item is None or not item.is_metered:
        return item is not None
    return owes_at_zero(item.price.model)


def _refuse_begun(account: Account, change: _Change, now: datetime) -> None:
    period = _first_open(account)
    if period is not None and period.start < now:
        expected = f"the item {change.item.id!r} as it has been since {period.start:%Y-%m-%d} in the open period {period}"
        raise _refusal(change.param, expected, change.received)


def _first_open(account: Account) -> BillingPeriod | None:
    """Return the first period of the life of which no invoice is kept."""
    subscription = account.subscription
    periods = subscription.periods_from(_told_start(subscription))
    return next((one for one in periods if not account.is_billed(one.start_seconds)), None)


def _told_start(subscription: Subscription) -> datetime:
    """Return when the life began; of one that has always been, what lies before the anchor is nobody's to bill."""
    has_always_been = unix_seconds(subscription.start_date) == SECONDS_MIN
    return subscription.billing_cycle_anchor if has_always_been else subscription.start_date


def _refuse_cut(former: Subscription, newer: Subscription, usage: RecordedUsage) -> None:
    """Refuse a life that leaves recorded usage of open periods outside."""
    starts = unix_seconds(newer.start_date) if newer.start_date > former.start_date else SECONDS_MIN
    ends = SECONDS_MAX if newer.ended_at is None else unix_seconds(newer.ended_at)
    for item in former.items if (starts, ends) != (SECONDS_MIN, SECONDS_MAX) else ():
        for first, last in usage.open_spans(item):
            if first < starts:
                expected = f"a moment at or before {iso_8601(from_unix_seconds(first))}, when the item {item.id!r} was used"
                raise _refusal("start_date", expected, iso_8601(newer.start_date))
            if last >= ends:
                expected = f"a moment after {iso_8601(from_unix_seconds(last))}, when the item {item.id!r} was used"
                raise _refusal("ended_at", expected, iso_8601(from_unix_seconds(ends)))


def _refuse_life(account: Account, newer: Subscription, usage: RecordedUsage, moment: ChangeMoment) -> None:
    """Refuse another start of a period that has begun, and another end of one that is over, to what owes without usage."""
    former = account.subscription
    if not any(_owes_unused(item, usage) for item in former.items):
        return
    at = moment.known()
    starts = sorted((_told_start(former), _told_start(newer)))
    begun = _open_within(account, *starts)
    if begun is not None and starts[0] < at:
        expected = f"{iso_8601(former.start_date)}, because the open period {begun} has begun"
        raise _refusal("start_date", expected, iso_8601(newer.start_date))
    latest = from_unix_seconds(SECONDS_MAX)
    ends = sorted((former.ended_at or latest, newer.ended_at or latest))
    over = _open_within(account, max(ends[0], starts[1]), min(ends[1], at))
    if over is not None and over.end <= at:
        expected = f"an end in the period that runs, because {over} is over and open"
        raise _refusal("ended_at", expected, None if newer.ended_at is None else iso_8601(newer.ended_at))


def _open_within(account: Account, start: datetime, end: datetime) -> BillingPeriod | None:
    """Return the first period of the cycle between two moments of which no invoice is kept."""
    if start >= end:
        return None
    for period in account.subscription.cycle.periods_from(start):
        if period.start >= end:
            return None
        if not account.is_billed(period.start_seconds):
            return period
    return None  # pragma: no cover - a cycle has no end


def _refusal(param: str, expected: str, received: object) -> InvalidValueError:
    return InvalidValueError.expecting(ErrorCode.CHANGE_NOT_BILLABLE, param, f"{expected} ({_WAY_OUT})", received)

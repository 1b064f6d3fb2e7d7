"""What a newer version of a subscription must not do in silence: rebill what was used or agreed in
a period that is open.

A version holds from the beginning: a bill is made of the newest version and all usage of its
period. So a new price would re-rate what was used at the former one, an item that is gone would
leave its usage unbilled, and a later start would put usage outside of every period. As long as
versions have no dates of their own, each such change is refused by name. What an item owes for an
open period is one of two things, and each has its rule:

- what was *used* and recorded before the change: nothing may change for it, and no item that is new
  bills it. What is used from the said moment on is what the newer version is for, unless nothing of
  it would bill it any more;
- what is owed *without usage* (a licensed quantity, a flat fee, a level that is carried from period
  to period): nothing may change in a period that has begun; exactly at a boundary, all periods
  before it closed, everything may.

A finalized period is not touched by any version: its invoice is kept. A period that was closed
without an invoice is still open here: nothing is recorded in it any more, but its first invoice
bills the version of then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from itertools import chain
from typing import Protocol

import attrs

from metering_core.accounts import Account
from metering_core.cells import PeriodCells
from metering_core.errors import ErrorCode, InvalidValueError
from metering_core.measures import AGGREGATORS
from metering_core.meter_bills import Correction
from metering_core.periods import (
    MICROSECONDS,
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
from metering_core.subscriptions import Subscription, SubscriptionItem

_PERIODS_SHOWN = 3


@attrs.frozen
class OpenUsage:
    """What was used of an item in an open period, in Unix seconds.

    Attributes:
        start: of the open period.
        end: of the open period.
        first: the first second of the usage, as it is billed.
        last: the last second of the usage, as it is billed.
        is_late: whether some of it happened before the period that bills it, or that is not known
            any more.
    """

    start: int
    end: int
    first: int
    last: int
    is_late: bool = False

    def began_before(self, said: datetime | None) -> bool:
        """Whether some of it is from before a moment; of an unknown one, all is."""
        return said is None or self.is_late or from_unix_seconds(self.first) < said


class RecordedUsage(Protocol):
    """What a log knows of the usage of an item, as far as it matters for a change."""

    def open_usage(self, item: SubscriptionItem, version: Subscription) -> Iterable[OpenUsage]:
        """Return the usage that a version's item would bill in each open period, of those that have
        some.
        """

    def is_carried(self, item: SubscriptionItem) -> bool:
        """Whether usage of former periods makes what the item owes for a later one."""

    def owing(self, item: SubscriptionItem, period: BillingPeriod) -> Iterable[Correction]:
        """Return the earlier periods of an item whose difference an invoice of this one bills."""


@attrs.frozen
class UsageOfAll:
    """What all who hold usage of a subscription know of it together."""

    parts: tuple[RecordedUsage, ...]

    def open_usage(self, item: SubscriptionItem, version: Subscription) -> Iterator[OpenUsage]:
        """Return the usage that a version's item would bill in each open period."""
        return chain.from_iterable(one.open_usage(item, version) for one in self.parts)

    def is_carried(self, item: SubscriptionItem) -> bool:
        """Whether usage of former periods makes what the item owes for a later one."""
        return any(one.is_carried(item) for one in self.parts)

    def owing(self, item: SubscriptionItem, period: BillingPeriod) -> Iterator[Correction]:
        """Return the earlier periods of an item whose difference an invoice of this one bills."""
        return chain.from_iterable(one.owing(item, period) for one in self.parts)


@attrs.frozen
class FoldedUsage:
    """What a log of usage records knows: the cells of its items, by billing period."""

    cells_of: Callable[[str], Iterable[PeriodCells]]
    account: Account

    def open_usage(self, item: SubscriptionItem, version: Subscription) -> Iterator[OpenUsage]:
        """Return the usage that the item would bill in each open period that has some, whatever the
        version.
        """
        for cells in self._cells(item):
            if not self.account.is_billed(cells.start):
                yield OpenUsage(cells.start, cells.end, *cells.bounds(), is_late=cells.is_late())

    def is_carried(self, item: SubscriptionItem) -> bool:
        """Whether usage of former periods makes what the item owes for a later one."""
        mode = item.recurring.aggregate_usage
        return mode is not None and AGGREGATORS[mode].looks_back and any(self._cells(item))

    def owing(self, item: SubscriptionItem, period: BillingPeriod) -> tuple[Correction, ...]:
        """Return none: late records are billed where they are attributed to."""
        return ()

    def _cells(self, item: SubscriptionItem) -> Iterator[PeriodCells]:
        is_known = item.recurring.aggregate_usage is not None and item.id in self.account.items
        recorded = self.cells_of(item.id) if is_known else ()
        return (cells for cells in recorded if not cells.is_empty())


@attrs.frozen
class _Change:
    """One change of an item that alters its bill: which parameter says so, and from what to
    what.
    """

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
        return (
            f"{self.newer.price.id} × {self.newer.quantity}"
            if self.param.endswith("[quantity]")
            else self.newer.price.id
        )


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
        return (
            self.given
            if self.given is not None or self.clock is None
            else instant(self.clock(), "now")
        )

    def known(self) -> datetime:
        """Return the moment as it was said, else the latest of which the log knows.

        Raises:
            InvalidValueError: ``parameter_missing`` for ``now``, where nothing says whether a
                period has begun.
        """
        said = self.said()
        if said is not None:
            return said
        known = [] if self.received is None else [from_unix_seconds(self.received // MICROSECONDS)]
        known += [closing.closed_at for closing in self.account.closed.values()]
        period = _first_open(self.account)
        # What a log knows may be long ago: it can tell that a period has begun, and never that none
        # has.
        if not known or (period is not None and max(known) <= period.start):
            message = (
                "now: expected the moment of the change, because the log has no clock and "
                "knows of no moment in the open "
                "period that would say that it has begun; received None"
            )
            raise InvalidValueError(ErrorCode.PARAMETER_MISSING, message, param="now")
        return max(known)


@attrs.frozen
class _Judged:
    """A newer version that is told, and what it is judged by."""

    account: Account
    newer: Subscription
    usage: RecordedUsage
    moment: ChangeMoment

    @property
    def former(self) -> Subscription:
        """The version as it is."""
        return self.account.subscription

    def refuse_used(self, change: _Change) -> None:
        """Refuse other terms, or an item that is new, for usage of before the change; and nothing
        to bill for any usage.

        What comes after the change is what the newer version is for: it is billed rightly, also
        where the change is told later.
        """
        former, newer = change.former, change.newer
        used = [] if former is None else list(self.usage.open_usage(former, self.former))
        stays = former is not None and newer is not None and _bill_the_same(former, newer)
        if used and not stays:
            raise self._refusal_of_use(change, used)
        used += [] if newer is None else self.usage.open_usage(newer, self.newer)
        said = self.moment.said() if used else None
        before = [one for one in used if one.began_before(said)]
        if before:
            raise self._refusal_of_use(
                change, before, is_new=not stays, from_start=not any(one.is_late for one in before)
            )

    def _refusal_of_use(
        self,
        change: _Change,
        used: Sequence[OpenUsage],
        *,
        is_new: bool = False,
        from_start: bool = False,
    ) -> InvalidValueError:
        since, received = _written(min(one.first for one in used)), change.received
        expected = f"the item {change.item.id!r} as it was used since {since}"
        if is_new and change.newer is not None:
            expected = (
                f"nothing from before the change that the item {change.newer.id!r} would bill, "
                f"but there is some since {since}"
            )
            received = change.newer.recurring.meter or received
        last = max((one.start, one.end) for one in used)
        return self._refusal(change.param, expected, received, last, from_start=from_start)

    def refuse_cut(self) -> None:
        """Refuse a life that leaves recorded usage of open periods outside."""
        former, newer = self.former, self.newer
        starts = (
            unix_seconds(newer.start_date) if newer.start_date > former.start_date else SECONDS_MIN
        )
        ends = SECONDS_MAX if newer.ended_at is None else unix_seconds(newer.ended_at)
        for item in former.items if (starts, ends) != (SECONDS_MIN, SECONDS_MAX) else ():
            for one in self.usage.open_usage(item, former):
                if one.first < starts:
                    param, moment, received = (
                        "start_date",
                        f"at or before {_written(one.first)}",
                        starts,
                    )
                elif one.last >= ends:
                    param, moment, received = "ended_at", f"after {_written(one.last)}", ends
                else:
                    continue
                expected = f"a moment {moment}, when the item {item.id!r} was used"
                raise self._refusal(param, expected, _written(received), (one.start, one.end))

    def refuse_begun(self, change: _Change) -> None:
        """Refuse a change of what is owed without usage in a period that has begun."""
        period, now = _first_open(self.account), self.moment.known()
        if period is not None and period.start < now:
            expected = (
                f"the item {change.item.id!r} as it has been since {period.start:%Y-%m-%d} in "
                f"the open period {period}"
            )
            span = period.start_seconds, period.end_seconds
            raise self._refusal(change.param, expected, change.received, span, from_start=True)

    def refuse_life(self) -> None:
        """Refuse another start of a period that has begun, and another end of one that is over, to
        what owes without usage.
        """
        former, newer = self.former, self.newer
        if not any(_owes_unused(item, self.usage) for item in former.items):
            return
        at = self.moment.known()
        starts = sorted((_told_start(former), _told_start(newer)))
        begun = _open_within(self.account, *starts)
        if begun is not None and starts[0] < at:
            expected = f"{iso_8601(former.start_date)}, because the open period {begun} has begun"
            span = begun.start_seconds, begun.end_seconds
            raise self._refusal("start_date", expected, iso_8601(newer.start_date), span)
        latest = from_unix_seconds(SECONDS_MAX)
        ends = sorted((former.ended_at or latest, newer.ended_at or latest))
        over = _open_within(self.account, max(ends[0], starts[1]), min(ends[1], at))
        if over is not None and over.end <= at:
            expected = f"an end in the period that runs, because {over} is over and open"
            received = None if newer.ended_at is None else iso_8601(newer.ended_at)
            raise self._refusal(
                "ended_at", expected, received, (over.start_seconds, over.end_seconds)
            )

    def _refusal(
        self,
        param: str,
        expected: str,
        received: object,
        last: tuple[int, int],
        *,
        from_start: bool = False,
    ) -> InvalidValueError:
        """Say what was refused, and the ways out.

        Args:
            param: which field changed.
            expected: what it was to be.
            received: what it is.
            last: the last open period that forbids the change.
            from_start: whether the change may be told as of its start.
        """
        start, end = last
        items = [(item, version) for version in (self.former, self.newer) for item in version.items]
        used = sorted(
            {(one.start, one.end) for item in items for one in self.usage.open_usage(*item)}
        )
        earlier = "finalize what is open before and " if any(one[0] < start for one in used) else ""
        ways = (
            [f"{earlier}pass now={_written(start)} to have the change hold for all of that period"]
            if from_start
            else []
        )
        ways += [
            f"finalize what is open until {_written(end)} and pass that as now=",
            "end this subscription and start another, whose items need new ids",
            f"pass rebill=True to have all open periods billed by the new version{_listed(used)}",
        ]
        return InvalidValueError.expecting(
            ErrorCode.CHANGE_NOT_BILLABLE, param, f"{expected} ({', or '.join(ways)})", received
        )


def refuse_unbillable(
    account: Account, newer: Subscription, usage: RecordedUsage, moment: ChangeMoment
) -> None:
    """Refuse a newer version that would rebill what was used or agreed in an open period.

    Args:
        account: of the subscription as it is.
        newer: the version that is told.
        usage: what is recorded of the items.
        moment: of the change; asked only where something is used, or owed without.

    Raises:
        InvalidValueError: ``change_not_billable``; ``param`` names the field that changed.
    """
    former = account.subscription
    judged = _Judged(account, newer, usage, moment)
    changes = list(_changed_items(former, newer))
    for change in changes:
        judged.refuse_used(change)
    judged.refuse_cut()
    owing = [
        one for one in changes if _owes_unused(one.former, usage) or _owes_unused(one.newer, usage)
    ]
    if owing:
        judged.refuse_begun(owing[0])
    if (former.start_date, former.ended_at) != (newer.start_date, newer.ended_at):
        judged.refuse_life()


def refuse_reopened(account: Account, newer: Subscription) -> None:
    """Refuse a life that is longer within a closed period than its invoice: the rest could not be
    billed any more.

    A shorter one alters no bill: the invoice is kept, differences of late usage are against all of
    its period, and a life that comes back to where it ended is billed from there on.

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
        expected = (
            f"no more of a closed period than was billed ({billed} of {whole}): start another "
            "subscription instead"
        )
        if starts < billed.start:
            raise InvalidValueError.expecting(
                code, "start_date", expected, iso_8601(newer.start_date)
            )
        if ends > billed.end:
            given = None if newer.ended_at is None else iso_8601(newer.ended_at)
            raise InvalidValueError.expecting(code, "ended_at", expected, given)


def open_stretches(
    subscription: Subscription, account: Account | None
) -> Iterator[tuple[int, int]]:
    """Yield the stretches of a version's life of which no invoice is kept, in Unix seconds,
    ``[start, end)``.
    """
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


def _bill_the_same(one: SubscriptionItem, other: SubscriptionItem) -> bool:
    """Whether two items bill the same usage: the events of one meter, or both their records."""
    return (one.recurring.meter, one.is_metered) == (other.recurring.meter, other.is_metered)


def _written(seconds: int) -> str:
    return iso_8601(from_unix_seconds(seconds))


def _listed(used: Sequence[tuple[int, int]]) -> str:
    """Write the open periods that have usage, the first of them by name."""
    if not used:
        return ""
    shown = ", ".join(str(BillingPeriod(*one)) for one in used[:_PERIODS_SHOWN])
    more = len(used) - _PERIODS_SHOWN
    return f", of which these have usage: {shown}{f' and {more} more' if more > 0 else ''}"


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
    """Return the new item that bills what a dropped one billed: the events of its meter, or its
    quantity, on the same terms.
    """
    if item.recurring.aggregate_usage is not None:
        return None  # Usage records belong to their item.
    terms = (*terms_of(item.price), item.quantity)
    return next((one for one in added if (*terms_of(one.price), one.quantity) == terms), None)


def heirs_of(
    former: Subscription,
    newer: Subscription,
    may_inherit: Callable[[SubscriptionItem, SubscriptionItem], bool],
) -> dict[str, str]:
    """Return which new item bills what comes late for which dropped one: one on the same meter,
    that on equal terms first.
    """
    if former.currency != newer.currency:
        return {}
    kept, known = {item.id for item in newer.items}, {item.id for item in former.items}
    added = [item for item in newer.items if item.id not in known]
    dropped = [
        item for item in former.items if item.id not in kept and item.recurring.meter is not None
    ]
    heirs: dict[str, str] = {}
    for find in (_heir, _on_its_meter):
        for item in (one for one in dropped if one.id not in heirs):
            heir = find(item, [one for one in added if may_inherit(item, one)])
            if heir is not None:
                added.remove(heir)
                heirs[item.id] = heir.id
    return heirs


def _on_its_meter(
    item: SubscriptionItem, added: Iterable[SubscriptionItem]
) -> SubscriptionItem | None:
    return next((one for one in added if one.recurring.meter == item.recurring.meter), None)


def _owes_unused(item: SubscriptionItem | None, usage: RecordedUsage) -> bool:
    """Whether an item owes something for a period in which nothing is used."""
    return item is not None and (_owes_at_zero(item) or usage.is_carried(item))


def _owes_at_zero(item: SubscriptionItem | None) -> bool:
    """Whether an item is licensed, or its price charges a quantity of 0."""
    if item is None or not item.is_metered:
        return item is not None
    return owes_at_zero(item.price.model)


def _first_open(account: Account) -> BillingPeriod | None:
    """Return the first period of the life of which no invoice is kept."""
    subscription = account.subscription
    periods = subscription.periods_from(_told_start(subscription))
    return next((one for one in periods if not account.is_billed(one.start_seconds)), None)


def _told_start(subscription: Subscription) -> datetime:
    """Return when the life began; of one that has always been, what lies before the anchor is
    nobody's to bill.
    """
    has_always_been = unix_seconds(subscription.start_date) == SECONDS_MIN
    return subscription.billing_cycle_anchor if has_always_been else subscription.start_date


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

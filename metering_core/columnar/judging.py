"""The door, on columns: which rows of a batch are plainly acceptable, and what the sender of every
other row hears.

Time is judged with a table of segments: how a subscription stands changes only at boundaries that
are few, so each row looks up the segment that its moment of receipt lies in. What is not plainly
acceptable is answered by the builders that the log uses.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from itertools import pairwise
from operator import attrgetter
from typing import Final

import attrs
import numpy as np
from numpy.typing import NDArray

from metering_core.acceptance import (
    AcceptancePolicy,
    Receipt,
    Standing,
    canceled_refusal,
    item_unknown,
    price_refusal,
    set_refusal,
    standing_at,
    time_refusal,
)
from metering_core.accounts import Account, KnownItem
from metering_core.columnar.arrays import ORIGIN, Flags, Integers
from metering_core.columnar.folding import STAMP_BITS
from metering_core.errors import InvalidValueError
from metering_core.periods import BillingCycle, unix_seconds
from metering_core.subscriptions import Subscription, SubscriptionItem

_DAY: Final = 86_400
_LONGEST_PERIOD: Final = 3 * 366 * _DAY
_FEW_DAYS: Final = 32
"""So many days of receipt for each calendar are not worth to be told apart."""

NOBODY = -1
"""The code of an item that no subscription ever had."""


@attrs.frozen(eq=False)
class Arriving:
    """A batch at the door: its rows with the log's codes and with timestamps resolved.

    Attributes:
        names: the distinct ids of the batch's items.
        named: which of the log's items each of ``names`` is, or :data:`NOBODY`.
        places: which of ``names`` each row is of.
        codes: which of the log's items each row is of, or :data:`NOBODY`.
        stamps: Unix seconds.
        quantities: units.
        sets: where the action is ``set``; None for nowhere.
        now: the moment of receipt in Unix seconds, one for all rows or one for each.
    """

    names: Sequence[str]
    named: NDArray[np.int32]
    places: NDArray[np.int32]
    codes: NDArray[np.int32]
    stamps: Integers
    quantities: Integers
    sets: Flags | None
    now: int | Integers

    def __len__(self) -> int:
        return len(self.codes)

    def now_at(self, row: int) -> int:
        """Return when a row was received."""
        return self.now if isinstance(self.now, int) else int(self.now[row])

    def is_set_at(self, row: int) -> bool:
        """Whether a row is a ``set``."""
        return self.sets is not None and bool(self.sets[row])


class ItemRules:
    """What the door knows about each item, by code, as tables; of items as they are now."""

    def __init__(self, items: Sequence[KnownItem], policy: AcceptancePolicy) -> None:
        self._policy = policy
        self._tolerance = policy.future_tolerance // timedelta(seconds=1)
        self._closed_until: Integers | None = None
        self._of: dict[object, int] = {}
        self._subscriptions: list[Subscription] = []
        self._accounts = list({id(known.account): known.account for known in items}.values())
        numbers = {id(account): number for number, account in enumerate(self._accounts)}
        self._owners = np.fromiter(
            (numbers[id(known.account)] for known in items), np.intp, len(items)
        )
        calendars = [self._calendar(account.subscription) for account in self._accounts]
        self._calendars = np.array(calendars, np.int64)[self._owners]
        is_plain = np.fromiter(
            [*map(attrgetter("is_plain"), items), False], np.bool_, len(items) + 1
        )
        self._is_open = is_plain.copy()
        for code in np.flatnonzero(~is_plain[:-1]).tolist():
            self._is_open[code] = items[code].is_active and price_refusal(items[code].item) is None
        self._has_thresholds = (
            self._is_open & ~is_plain
        )  # What else can make an open item not plain.

    def _calendar(self, subscription: Subscription) -> int:
        """Number the ways in which billing periods fall; most subscriptions share one."""
        key = (subscription.cycle, subscription.start_date, subscription.ended_at)
        if key not in self._of:
            self._of[key] = len(self._subscriptions)
            self._subscriptions.append(subscription)
        return self._of[key]

    def acceptable(self, batch: Arriving) -> Flags:
        """Say which rows nothing forbids; closed periods and ids aside."""
        held: Flags = self._within_time(batch)
        if not self._is_open[batch.named].all():
            held &= self._is_open[batch.codes]
        if batch.sets is not None and self._has_thresholds.any():
            held &= ~(batch.sets & self._has_thresholds[batch.codes])
        return held

    def _within_time(self, batch: Arriving) -> Flags:
        touched = np.unique(self._calendars[batch.named[batch.named != NOBODY]])
        if not len(touched) or not len(batch):
            return np.zeros(len(batch), np.bool_)
        keys, lows, highs = self._segments(touched, batch)
        latest = batch.now + self._tolerance
        if len(keys) == 1:  # One way for all, and one standing.
            within = _between(batch.stamps, int(lows[0]), int(highs[0]))
        else:
            calendars = np.append(self._calendars, touched[0])[batch.codes]
            rows = (
                np.searchsorted(
                    keys, (calendars << STAMP_BITS) + (batch.now - ORIGIN), side="right"
                )
                - 1
            )
            within = (batch.stamps >= lows[rows]) & (batch.stamps < highs[rows])
        if int(batch.stamps.max()) > (latest if isinstance(latest, int) else int(latest.min())):
            within &= batch.stamps <= latest
        return within

    def _segments(self, touched: Integers, batch: Arriving) -> tuple[Integers, Integers, Integers]:
        """Return from when on each calendar accepts timestamps from where to before where."""
        rows = [
            ((calendar << STAMP_BITS) + (at - ORIGIN), *_accepted(standing))
            for calendar, received in self._received(touched, batch)
            for at, standing in standings(self._subscriptions[calendar], received, self._policy)
        ]
        keys, lows, highs = np.array(rows, np.int64).T
        return np.ascontiguousarray(keys), lows, highs

    def _received(self, touched: Integers, batch: Arriving) -> Iterator[tuple[int, Received]]:
        """Yield each calendar and when rows were received of it."""
        first, last = (
            (batch.now, batch.now)
            if isinstance(batch.now, int)
            else (int(batch.now.min()), int(batch.now.max()))
        )
        if len(touched) * ((last - first) // _DAY + 1) <= max(len(batch), _FEW_DAYS * len(touched)):
            yield from ((calendar, Received(first, last)) for calendar in touched.tolist())
            return
        # What senders say spans more days than there are rows: only those days count in which one
        # was received.
        calendars = np.append(self._calendars, touched[0])[batch.codes]
        found = np.unique((calendars << STAMP_BITS) + (batch.now - ORIGIN) // _DAY)
        edges = np.searchsorted(found, np.append(touched, touched[-1:] + 1) << STAMP_BITS).tolist()
        for calendar, (start, end) in zip(touched.tolist(), pairwise(edges), strict=True):
            days = (found[start:end] - (calendar << STAMP_BITS)).tolist()
            if days:
                yield (
                    calendar,
                    Received(days[0] * _DAY + ORIGIN, (days[-1] + 1) * _DAY + ORIGIN - 1, days),
                )

    def may_be_closed(self, batch: Arriving) -> Flags | None:
        """Say which rows lie before the end of a finalized period; None for none."""
        if self._closed_until is None:
            ends = np.array(list(map(_closed_until, self._accounts)), np.int64)
            self._closed_until = np.append(ends[self._owners], ORIGIN)
        if int(self._closed_until.max()) == ORIGIN:
            return None
        flags: Flags = batch.stamps < self._closed_until[batch.codes]
        return flags if flags.any() else None

    def forget_closed(self) -> None:
        """Have the finalized periods looked up again."""
        self._closed_until = None


def _between(stamps: Integers, low: int, high: int) -> Flags:
    """Say which timestamps lie in ``[low, high)``: mostly all, as the outermost two show."""
    if low <= int(stamps.min()) and int(stamps.max()) < high:
        return np.ones(len(stamps), np.bool_)
    within: Flags = (stamps >= low) & (stamps < high)
    return within


def _closed_until(account: Account) -> int:
    return max((closing.period.end_seconds for closing in account.closed.values()), default=ORIGIN)


@attrs.frozen
class Received:
    """When rows were received.

    Attributes:
        first: no row was received earlier, in Unix seconds.
        last: no row was received later.
        days: the days since the year 1 in which some were, ascending; None where that may be any.
    """

    first: int
    last: int
    days: Sequence[int] | None = None

    def from_then_on(self, second: int) -> int | None:
        """Return the first second from one on at which a row may have come; None for none."""
        if second > self.last or self.days is None:
            return second if second <= self.last else None
        day = (second - ORIGIN) // _DAY
        found = self.days[bisect_left(self.days, day)]
        return second if found == day else found * _DAY + ORIGIN


def standings(
    subscription: Subscription, received: Received, policy: AcceptancePolicy
) -> Iterator[tuple[int, Standing]]:
    """Yield how a subscription stands when the first row is received, and wherever that changes
    while rows are received.

    The work is in proportion to the days in which rows were received, never to what lies between
    them.
    """
    at: int | None = received.first
    while at is not None:
        standing = standing_at(subscription, at, policy)
        yield at, standing
        change = _next_change(subscription, standing, policy)
        at = None if change is None else received.from_then_on(change)


def _next_change(
    subscription: Subscription, standing: Standing, policy: AcceptancePolicy
) -> int | None:
    changes = []
    if standing.current is not None:
        changes.append(standing.current.end_seconds)
    if standing.late is not None:
        changes.append(standing.late.end_seconds + policy.late_grace // timedelta(seconds=1))
    if not changes and not standing.ended:
        begin = ORIGIN if subscription.start_date is None else unix_seconds(subscription.start_date)
        return begin if begin > standing.now else _first_period(subscription.cycle, standing.now)
    return min(changes, default=None)


def _first_period(cycle: BillingCycle, second: int) -> int | None:
    """Return where the first period of a cycle within the calendar begins; None for no more."""
    low, high = second, second + _LONGEST_PERIOD
    if not _is_in_calendar(cycle, high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _is_in_calendar(cycle, middle) else (middle, high)
    return high


def _is_in_calendar(cycle: BillingCycle, second: int) -> bool:
    """Whether the period that holds a second begins and ends within the years 1 to 9999."""
    try:
        cycle.period_at(second)
    except InvalidValueError:
        return False
    return True


def _accepted(standing: Standing) -> tuple[int, int]:
    """Return the timestamps that the billing periods allow, ``[low, high)``; empty for none."""
    first, last = standing.late or standing.current, standing.current or standing.late
    return (1, 0) if first is None or last is None else (first.start_seconds, last.end_seconds)


Refusal = Callable[[int], Receipt]
"""Builds the receipt of a row."""


def refusals_of(
    batch: Arriving, rows: Integers, items: Sequence[KnownItem], policy: AcceptancePolicy
) -> Refusal:
    """Return what answers the refused rows, of a batch and items that may change afterwards."""
    codes = batch.codes[rows]
    kept = attrs.evolve(
        batch,
        names=[batch.names[place] for place in batch.places[rows].tolist()],
        named=codes,
        places=np.arange(len(rows), dtype=np.int32),
        codes=codes,
        stamps=batch.stamps[rows],
        quantities=batch.quantities[rows],
        sets=None if batch.sets is None else batch.sets[rows],
        now=batch.now if isinstance(batch.now, int) else batch.now[rows],
    )
    as_they_were = {
        code: (items[code].item, items[code].account.subscription)
        for code in np.unique(codes).tolist()
        if code != NOBODY and items[code].is_active
    }

    def receipt(row: int) -> Receipt:
        place = int(np.searchsorted(rows, row))
        found = as_they_were.get(int(kept.codes[place]))
        return (
            item_unknown(kept.names[place])
            if found is None
            else _refusal(kept, place, *found, policy)
        )

    return receipt


def _refusal(
    batch: Arriving,
    row: int,
    item: SubscriptionItem,
    subscription: Subscription,
    policy: AcceptancePolicy,
) -> Receipt:
    """Return why a row is refused, in the order of the checks."""
    timestamp = int(batch.stamps[row])
    standing = standing_at(subscription, batch.now_at(row), policy)
    refusal = (
        price_refusal(item)
        or canceled_refusal(timestamp, subscription, standing)
        or set_refusal(item, subscription, is_set=batch.is_set_at(row))
        or time_refusal(timestamp, standing, policy)
    )
    assert refusal is not None, "the tables and the builders agree"
    return refusal


class Exceptions(Mapping[int, Receipt]):
    """Receipts of rows that were not accepted, by position; refusals are built when asked for."""

    __slots__ = ("_answered", "_positions", "_refusal")

    def __init__(
        self, positions: Integers, answered: Mapping[int, Receipt], refusal: Refusal
    ) -> None:
        self._positions = positions
        self._answered = answered
        self._refusal = refusal

    def __getitem__(self, position: int) -> Receipt:
        """Return the receipt of the row at a position; KeyError where it was accepted."""
        found = self._answered.get(position)
        if found is not None:
            return found
        place = int(np.searchsorted(self._positions, position))
        if place == len(self._positions) or self._positions[place] != position:
            raise KeyError(position)
        return self._refusal(position)

    def __iter__(self) -> Iterator[int]:
        """Yield the positions in order."""
        return iter(self._positions.tolist())

    def __len__(self) -> int:
        """Return how many rows were not accepted."""
        return len(self._positions)

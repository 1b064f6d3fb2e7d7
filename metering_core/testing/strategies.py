"""Hypothesis strategies for prices, quantities, periods and usage, drawn so that they reach the
boundaries.

A defect in billing lives at an edge: a tier's last unit, a record exactly at ``now``, two records
in one second, the 31st. What is drawn here lands on the edges on purpose, and shrinks to something
a person can read. Needs the extra ``hypothesis``.

>>> from hypothesis import strategies as st
>>> from metering_core.testing.strategies import prices, quantities
>>> rated = prices(models=["graduated"], max_tiers=3).flatmap(
...     lambda price: st.tuples(st.just(price), quantities(price))
... )
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import IntEnum
from fractions import Fraction
from functools import cache
from itertools import islice
from math import floor
from operator import itemgetter
from typing import Any, TypeVar

import attrs

from metering_core.testing import require_hypothesis

require_hypothesis()

from hypothesis import strategies as st

from metering_core import (
    Action,
    AggregateUsage,
    BillingCycle,
    BillingPeriod,
    ErrorCode,
    Formula,
    InvalidValueError,
    Meter,
    MeterEvent,
    MeterLog,
    MeterPolicy,
    Money,
    Price,
    PricingModel,
    Recurring,
    Subscription,
    SubscriptionItem,
    Tier,
    UsageLog,
    UsageRecord,
    UsageRejectedError,
    UsageType,
)
from metering_core.exact import Number, add, whole_if_possible
from metering_core.measures import FORMULAS
from metering_core.meter_acceptance import IdentifierScope, LateUsage
from metering_core.meters import EventTimeWindow
from metering_core.money import Amount
from metering_core.periods import INTERVAL_COUNT_MAX, SECONDS_MIN, Interval, from_unix_seconds
from metering_core.pricing import Graduated, Package, Percentage, PerUnit, Volume
from metering_core.subscriptions import BillingThresholds
from metering_core.usage import Cell

Drawn = TypeVar("Drawn")

MODELS = ("per_unit", "graduated", "volume", "package", "percentage")
"""The names of the built-in pricing models, as ``prices(models=…)`` takes them."""

CURRENCIES = ("usd", "jpy", "kwd")
"""Two, none and three decimals."""

ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia")
"""No daylight saving, both hemispheres, half an hour of it, and a zone that once skipped a whole
day.
"""

HUGE = (10**12, 2**53 + 1, 2**63 - 1, 2**63, 10**30)
"""Where floats lose units, where 64 bits end, and beyond."""


@st.composite
def _made(
    draw: st.DrawFn, make: Callable[..., Drawn], *strategies: st.SearchStrategy[Any]
) -> Drawn:
    """Draw what ``make`` returns. Unlike ``st.builds`` and ``map``, Hypothesis then shows the
    value, not how it was made.
    """
    return make(*map(draw, strategies))


# Numbers and money --------------------------------------------------------------------------------


@cache
def decimals_of(places: int = 2, *, max_value: int = 1_000) -> st.SearchStrategy[Decimal]:
    """Draw decimals from 0 to ``max_value`` with at most ``places`` places; whole ones, halves and
    tiny ones are common.
    """
    whole = _made(Decimal, st.integers(0, max_value))
    if not places:
        return whole

    def shifted(digits: int, by: int) -> Decimal:
        return Decimal(f"{digits}E-{by}")

    edges = st.sampled_from(
        [Decimal("0.5"), Decimal("1.5"), Decimal("2.5"), Decimal(f"1E-{places}")]
    )
    return whole | _made(shifted, st.integers(1, max_value), st.integers(1, places)) | edges


def amounts(
    *, currencies: Sequence[str] = CURRENCIES, decimals: int = 2
) -> st.SearchStrategy[Amount]:
    """Draw exact amounts, debits and credits; halves of a minor unit are common."""
    minor_units = decimals_of(decimals) | _made(
        lambda huge: huge + Decimal("0.5"), st.sampled_from(HUGE)
    )
    signed = st.one_of(minor_units, _made(Decimal.copy_negate, minor_units))
    return st.builds(Amount, signed, st.sampled_from(currencies))


def moneys(*, currencies: Sequence[str] = CURRENCIES) -> st.SearchStrategy[Money]:
    """Draw payable money, debits and credits."""
    return st.builds(Money, st.integers(-100_000, 100_000), st.sampled_from(currencies))


# Prices -------------------------------------------------------------------------------------------


Amounts = tuple[Decimal | None, Decimal | None]
"""Unit amount and flat amount of a tier."""


@cache
def _amounts_of_a_tier(decimals: int) -> st.SearchStrategy[Amounts]:
    amount = decimals_of(decimals)
    return st.tuples(amount, st.none()) | st.tuples(amount, amount) | st.tuples(st.none(), amount)


def tiers(*, up_to: Number | None = None, decimals: int = 2) -> st.SearchStrategy[Tier]:
    """Draw tiers that end at ``up_to`` (None: last tiers), with a unit amount, a flat amount or
    both.
    """
    return _made(lambda amounts: Tier(up_to, *amounts), _amounts_of_a_tier(decimals))


@cache
def tables_of_tiers(
    *, max_tiers: int = 4, decimals: int = 2, fractions: bool = False
) -> st.SearchStrategy[list[Tier]]:
    """Draw the tiers of a price. Bounds lie close together or far apart; with ``fractions`` some
    lie between two units.
    """
    gaps: st.SearchStrategy[Number] = st.integers(1, 10) | st.sampled_from([1, 100, 10**6, 10**15])
    if fractions:
        gaps |= st.sampled_from([Decimal("0.5"), Decimal("2.25")])
    amounts = _amounts_of_a_tier(decimals)
    return _made(_table, st.lists(st.tuples(gaps, amounts), max_size=max_tiers - 1), amounts)


def _table(closed: list[tuple[Number, Amounts]], last: Amounts) -> list[Tier]:
    below: Number = 0
    table = []
    for gap, amounts in closed:
        below = add(below, gap)
        table.append(Tier(below, *amounts))
    return [*table, Tier("inf", *last)]


@cache
def per_unit(*, decimals: int = 2) -> st.SearchStrategy[PerUnit]:
    """Draw models where every unit costs the same."""
    return st.builds(PerUnit, decimals_of(decimals))


@cache
def graduated(
    *, max_tiers: int = 4, decimals: int = 2, fractions: bool = False
) -> st.SearchStrategy[Graduated]:
    """Draw graduated models of 1 to ``max_tiers`` tiers."""
    return st.builds(
        Graduated, tables_of_tiers(max_tiers=max_tiers, decimals=decimals, fractions=fractions)
    )


@cache
def volumes(
    *, max_tiers: int = 4, decimals: int = 2, fractions: bool = False
) -> st.SearchStrategy[Volume]:
    """Draw volume models of 1 to ``max_tiers`` tiers."""
    return st.builds(
        Volume, tables_of_tiers(max_tiers=max_tiers, decimals=decimals, fractions=fractions)
    )


@cache
def packages(*, decimals: int = 2) -> st.SearchStrategy[Package]:
    """Draw package models, rounded up and down."""
    return st.builds(
        Package,
        decimals_of(decimals),
        st.integers(1, 12) | st.sampled_from([1, 1_000]),
        st.sampled_from(["up", "down"]),
    )


@cache
def percentages(*, decimals: int = 2) -> st.SearchStrategy[Percentage]:
    """Draw models where a percentage of the quantity is due."""
    return st.builds(Percentage, decimals_of(decimals))


def models(
    names: Sequence[str] = MODELS, *, max_tiers: int = 4, decimals: int = 2
) -> st.SearchStrategy[PricingModel]:
    """Draw pricing models of the named kinds; see :data:`MODELS`.

    Raises:
        InvalidValueError: ``parameter_invalid_choice`` for another name.
    """
    return _models(tuple(names), max_tiers, decimals)


@cache
def _models(
    names: tuple[str, ...], max_tiers: int, decimals: int
) -> st.SearchStrategy[PricingModel]:
    named: dict[str, st.SearchStrategy[PricingModel]] = {
        "per_unit": per_unit(decimals=decimals),
        "graduated": graduated(max_tiers=max_tiers, decimals=decimals),
        "volume": volumes(max_tiers=max_tiers, decimals=decimals),
        "package": packages(decimals=decimals),
        "percentage": percentages(decimals=decimals),
    }
    unknown = [name for name in names if name not in named]
    if unknown or not names:
        code = ErrorCode.PARAMETER_INVALID_CHOICE
        raise InvalidValueError.expecting(
            code, "models", f"names from {', '.join(MODELS)}", unknown or names
        )
    return st.one_of([named[name] for name in names])


INTERVALS = ("month", "week", "day", "year")


@cache
def _intervals(intervals: tuple[str, ...]) -> st.SearchStrategy[tuple[Interval, int]]:
    """Draw an interval and a count; the counts stay small or go to the limit."""
    return st.one_of(
        [
            st.tuples(
                st.just(interval),
                st.integers(1, 3) | st.sampled_from([1, INTERVAL_COUNT_MAX[interval]]),
            )
            for interval in map(Interval, intervals)
        ]
    )


def recurrings(
    *,
    intervals: Sequence[str] = INTERVALS,
    aggregate_usage: Sequence[str] = tuple(AggregateUsage),
    licensed: bool = False,
    meters: Sequence[Meter | str] = (),
) -> st.SearchStrategy[Recurring]:
    """Draw recurrences of metered prices, with ``licensed`` also of licensed ones; with ``meters``
    usage is one of theirs.
    """
    return _recurrings(tuple(intervals), tuple(aggregate_usage), licensed, _ids_of(meters))


_Use = tuple[UsageType, AggregateUsage | None, str | None]


@cache
def _recurrings(
    intervals: tuple[str, ...],
    modes: tuple[str, ...],
    licensed: bool,
    meters: tuple[str, ...],
) -> st.SearchStrategy[Recurring]:
    by_records: list[_Use] = [(UsageType.METERED, AggregateUsage(mode), None) for mode in modes]
    by_events: list[_Use] = [(UsageType.METERED, None, meter) for meter in meters]
    agreed: list[_Use] = [(UsageType.LICENSED, None, None)] * licensed
    return _made(
        _recurring, _intervals(intervals), st.sampled_from((by_events or by_records) + agreed)
    )


def _recurring(every: tuple[Interval, int], use: _Use) -> Recurring:
    usage_type, mode, meter = use
    return Recurring(
        interval=every[0],
        interval_count=every[1],
        usage_type=usage_type,
        aggregate_usage=mode,
        meter=meter,
    )


def prices(
    *,
    models: Sequence[str] = MODELS,
    currencies: Sequence[str] = CURRENCIES,
    max_tiers: int = 4,
    decimals: int = 2,
    recurring: st.SearchStrategy[Recurring] | None = None,
) -> st.SearchStrategy[Price]:
    """Draw recurring prices.

    Args:
        models: which pricing models, from :data:`MODELS`.
        currencies: which currencies.
        max_tiers: at most so many tiers, the open one included.
        decimals: at most so many decimal places of a minor unit in an amount, up to 12.
        recurring: how they recur; metered, in any mode and interval unless given.
    """
    model = _models(tuple(models), max_tiers, decimals)
    return st.builds(
        Price, st.just("price"), st.sampled_from(currencies), model, recurring or recurrings()
    )


def quantities(price: Price | PricingModel, *, decimals: int = 0) -> st.SearchStrategy[Number]:
    """Draw quantities that reach the price's edges: zero, each tier's last unit and the one after
    it, full packages, huge.

    With ``decimals`` some are not whole; of a price on a meter some are shares that no decimal
    writes, as averages come to. Of a model of your own, edges are found where it has ``tiers`` or
    ``divide_by``.
    """
    edges = _edges(price.model if isinstance(price, Price) else price)
    drawn: st.SearchStrategy[Number] = (
        st.sampled_from(edges) | st.integers(0, edges[-1] + 10) | st.sampled_from(HUGE)
    )
    if decimals:
        drawn |= _made(whole_if_possible, decimals_of(decimals, max_value=edges[-1] + 10))
    if (
        isinstance(price, Price)
        and price.recurring is not None
        and price.recurring.meter is not None
    ):
        drawn |= _made(add, st.sampled_from(edges), _shares())
    return drawn


_HAIR = Fraction(1, 3 * 10**30)


@cache
def _shares() -> st.SearchStrategy[Number]:
    """Draw parts of a unit; some are a hair from nothing or from a whole one."""
    edges: list[Number] = [
        Decimal("0.5"),
        Fraction(1, 3),
        Fraction(2, 3),
        Decimal("1E-12"),
        _HAIR,
        1 - _HAIR,
    ]
    return st.sampled_from(edges) | st.fractions(0, 1, max_denominator=1_000)


def _edges(model: PricingModel) -> list[int]:
    bounds = [tier.up_to for tier in getattr(model, "tiers", ()) if tier.up_to is not None]
    package = getattr(model, "divide_by", 1)
    places = {0, *map(floor, bounds), package, 2 * package}
    return sorted({max(place + step, 0) for place in places for step in (-1, 0, 1, 2)})


# Time ---------------------------------------------------------------------------------------------

_DAYS = [(2024, 1, 1), (2024, 1, 31), (2024, 2, 29), (2023, 1, 30), (2023, 3, 29), (2023, 12, 31)]
_CLOCK_CHANGES = [(2024, 3, 31), (2023, 10, 29), (2024, 4, 7), (2011, 12, 30)]


@cache
def anchors() -> st.SearchStrategy[datetime]:
    """Draw anchors: ordinary ones, the 29th to the 31st, leap days, days on which clocks change;
    all between 2000 and 2035.
    """
    days = st.sampled_from([datetime(*day, tzinfo=UTC) for day in _DAYS + _CLOCK_CHANGES])
    hours = st.sampled_from([0, 1800, 2 * 3600, 2 * 3600 + 1800, 86_399])
    seconds = _made(from_unix_seconds, st.integers(946_684_800, 2_051_222_400))
    return days | _made(lambda day, second: day + timedelta(seconds=second), days, hours) | seconds


def cycles(
    *, intervals: Sequence[str] = INTERVALS, timezones: Sequence[str] = ("UTC",)
) -> st.SearchStrategy[BillingCycle]:
    """Draw billing cycles; name :data:`ZONES` for wall-clock boundaries over daylight saving."""
    return _cycles(tuple(intervals), tuple(timezones))


# On such clock times a boundary is skipped or occurs twice one day later or on the day itself.
_BEFORE_CLOCK_CHANGES = {
    "Europe/Berlin": [
        (2024, 3, 30, 1, 30),
        (2023, 10, 28, 0, 30),
        (2023, 10, 29, 0, 30),
        (2023, 10, 29, 1, 30),
    ],
    "America/New_York": [
        (2024, 3, 9, 7, 30),
        (2024, 11, 2, 5, 30),
        (2024, 11, 3, 5, 30),
        (2024, 11, 3, 6, 30),
    ],
    "Australia/Lord_Howe": [
        (2024, 10, 4, 15, 45),
        (2024, 4, 5, 14, 45),
        (2024, 4, 6, 14, 45),
        (2024, 4, 6, 15, 15),
    ],
    "Pacific/Apia": [(2011, 12, 29, 10, 30)],
}


@cache
def _cycles(
    intervals: tuple[str, ...], timezones: tuple[str, ...]
) -> st.SearchStrategy[BillingCycle]:
    def cycle(anchor: datetime, every: tuple[Interval, int], timezone: str) -> BillingCycle:
        return BillingCycle(anchor, every[0], every[1], timezone)

    drawn = _made(cycle, anchors(), _intervals(intervals), st.sampled_from(timezones))
    changes = {
        zone: _BEFORE_CLOCK_CHANGES[zone] for zone in timezones if zone in _BEFORE_CLOCK_CHANGES
    }
    edges = [
        (datetime(*at, tzinfo=UTC), zone) for zone, moments in changes.items() for at in moments
    ]
    if not edges:
        return drawn
    return drawn | _made(
        lambda edge, every: cycle(edge[0], every, edge[1]),
        st.sampled_from(edges),
        _intervals(intervals),
    )


@st.composite
def periods(draw: st.DrawFn, cycle: BillingCycle | None = None) -> BillingPeriod:
    """Draw billing periods of a cycle, near its anchor and years away from it, before and after."""
    of = draw(cycles()) if cycle is None else cycle
    index = draw(st.integers(0, 3) | st.integers(-20, 20))
    return of.period_at(of.boundary(index))


def moments(period: BillingPeriod) -> st.SearchStrategy[int]:
    """Draw Unix seconds around a period: its first second, the one before, its last, its end, and
    some between.
    """
    start, end = period.start_seconds, period.end_seconds
    return st.sampled_from([start, start - 1, start + 1, end - 1, end, end + 1]) | st.integers(
        start, end - 1
    )


# Subscriptions ------------------------------------------------------------------------------------


def subscription_items(
    *,
    price: st.SearchStrategy[Price] | None = None,
    id: str = "si_1",
) -> st.SearchStrategy[SubscriptionItem]:
    """Draw items with their price; a licensed one has a quantity."""

    def item(price: Price, agreed: int) -> SubscriptionItem:
        return SubscriptionItem(id, price, None if price.is_metered else agreed)

    return _made(item, price or prices(), _agreed())


_Agreement = tuple[PricingModel, Recurring, int]


@cache
def _agreed() -> st.SearchStrategy[int]:
    return st.sampled_from([1, 0]) | st.integers(0, 12)


@cache
def _agreements(licensed: bool, meters: tuple[str, ...]) -> st.SearchStrategy[_Agreement]:
    return st.tuples(_models(MODELS, 4, 2), recurrings(licensed=licensed, meters=meters), _agreed())


def subscriptions(
    *,
    max_items: int = 3,
    currencies: Sequence[str] = CURRENCIES,
    timezones: Sequence[str] = ("UTC",),
    licensed: bool = True,
    thresholds: bool = False,
    ends: bool = False,
    meters: Sequence[Meter | str] = (),
    customer: str | None = None,
    id: str = "sub_1",
) -> st.SearchStrategy[Subscription]:
    """Draw subscriptions: 1 to ``max_items`` items in one currency and on one cycle, each with its
    own model and mode.

    Args:
        max_items: at most so many items.
        currencies: which currencies.
        timezones: which zones' wall clocks the boundaries keep.
        licensed: whether licensed items occur beside metered ones.
        thresholds: whether some have billing thresholds, which forbid ``set``.
        ends: whether some start or end within the first two periods from the anchor on, or have
            always been.
        meters: what measures the metered items; usage records do unless given. They need a
            ``customer``.
        customer: whose subscription it is.
        id: the subscription's id.
    """
    agreements = st.lists(_agreements(licensed, _ids_of(meters)), min_size=1, max_size=max_items)
    names = st.just((id, customer))
    plain = _made(
        _subscription, names, cycles(timezones=timezones), st.sampled_from(currencies), agreements
    )
    if thresholds:
        plain = _made(_with_thresholds, plain, st.booleans())
    return (
        _made(_with_a_life, plain, st.sampled_from(["runs", "always", "starts", "ends"]))
        if ends
        else plain
    )


def _subscription(
    names: tuple[str, str | None], cycle: BillingCycle, currency: str, agreements: list[_Agreement]
) -> Subscription:
    items = []
    for number, (model, how, agreed) in enumerate(agreements, start=1):
        recurring = attrs.evolve(how, interval=cycle.interval, interval_count=cycle.interval_count)
        price = Price(f"price_{number}", currency, model, recurring)
        items.append(SubscriptionItem(f"si_{number}", price, None if price.is_metered else agreed))
    return Subscription(names[0], items, cycle.anchor, timezone=cycle.timezone, customer=names[1])


def _with_thresholds(subscription: Subscription, has_them: bool) -> Subscription:
    return (
        attrs.evolve(subscription, billing_thresholds=BillingThresholds(amount_gte=1_000))
        if has_them
        else subscription
    )


def _with_a_life(subscription: Subscription, life: str) -> Subscription:
    cycle = subscription.cycle
    first, second = islice(cycle.periods_from(cycle.anchor), 2)
    if life == "starts":
        return attrs.evolve(subscription, start_date=first.start + timedelta(seconds=1))
    if life == "always":
        return attrs.evolve(subscription, start_date=SECONDS_MIN)
    return (
        subscription if life == "runs" else subscription.canceled(second.end - timedelta(seconds=2))
    )


# Usage --------------------------------------------------------------------------------------------


def cells(*, timestamp: int = 60) -> st.SearchStrategy[Cell]:
    """Draw the cells of some records at one timestamp."""
    return st.builds(Cell, st.just(timestamp), _quantities_of_records(), st.booleans())


@cache
def _quantities_of_records() -> st.SearchStrategy[int]:
    return st.integers(0, 10) | st.integers(0, 1_000) | st.sampled_from(HUGE)


def _stamps(period: BillingPeriod, now: int, *, late: bool, future: bool) -> list[int | str]:
    """Return the timestamps at which usage collides: few, and most of them on an edge."""
    start, end = period.start_seconds, period.end_seconds
    inside = {start, start + 1, now, now - 1, (start + now) // 2, end - 1}
    stamps = {stamp for stamp in inside if start <= stamp <= now} | {start}
    if late:
        stamps |= {start - 1, start - 86_400}
    if future:
        stamps |= {now + 1, end, end - 1}
    return ["now", *sorted(stamps)]


def usage_record(
    items: Sequence[SubscriptionItem | str] = ("si_1",),
    period: BillingPeriod | None = None,
    now: int | None = None,
    *,
    sets: bool = True,
    ids: bool = True,
    late: bool = True,
    future: bool = True,
) -> st.SearchStrategy[UsageRecord]:
    """Draw single usage records; see :func:`usage_records`, which draws several that meet."""
    span = BillingPeriod(1_704_067_200, 1_706_745_600) if period is None else period
    at = span.end_seconds - 1 if now is None else now
    stamps = _stamps(span, at, late=late, future=future)
    return _made(lambda sketch: _record(sketch, _ids_of(items), stamps), _sketches(sets, ids))


class Again(IntEnum):
    """Whether and when a record with an id is sent a second time, with the same content or with
    other content.
    """

    NEVER = 0
    AT_ONCE = 1
    AT_LAST = 2
    CHANGED_AT_ONCE = 3
    CHANGED_AT_LAST = 4


_Sketch = tuple[int, int, int, Action, str | None, Again]
"""A record before it is known whose it is and when: places in the lists of items and timestamps,
and what does not depend.
"""


@cache
def _sketches(sets: bool, retries: bool) -> st.SearchStrategy[_Sketch]:
    return st.tuples(
        st.integers(0, 5),
        _quantities_of_records(),
        st.integers(0, 11),
        st.sampled_from(list(Action) if sets else [Action.INCREMENT]),
        st.sampled_from([None, "a", "b", "c"] if retries else [None]),
        st.sampled_from(Again),
    )


def _ids_of(named: Sequence[SubscriptionItem | Meter | str]) -> tuple[str, ...]:
    return tuple(one if isinstance(one, str) else one.id for one in named)


def _record(sketch: _Sketch, items: Sequence[str], stamps: Sequence[int | str]) -> UsageRecord:
    item, quantity, stamp, action, record_id, _ = sketch
    return UsageRecord(
        items[item % len(items)], quantity, stamps[stamp % len(stamps)], action, record_id
    )


def _batch(
    sketches: list[_Sketch], items: Sequence[str], stamps: Sequence[int | str]
) -> list[UsageRecord]:
    batch: list[UsageRecord] = []
    at_last: list[UsageRecord] = []
    for sketch in sketches:
        record, again = _record(sketch, items, stamps), sketch[-1]
        batch.append(record)
        if record.id is not None and again:
            changed = again in {Again.CHANGED_AT_ONCE, Again.CHANGED_AT_LAST}
            repeated = attrs.evolve(record, quantity=record.quantity + 1) if changed else record
            (batch if again in {Again.AT_ONCE, Again.CHANGED_AT_ONCE} else at_last).append(repeated)
    return batch + at_last


def usage_records(
    items: Sequence[SubscriptionItem | str],
    period: BillingPeriod,
    now: int,
    *,
    min_size: int = 0,
    max_size: int = 12,
    sets: bool = True,
    retries: bool = True,
    late: bool = True,
    future: bool = True,
) -> st.SearchStrategy[list[UsageRecord]]:
    """Draw batches of usage records that meet: few timestamps, many of them on an edge.

    Args:
        items: whose usage; the id of an item that nobody has is fine.
        period: the current billing period at ``now``.
        now: the moment of receipt in Unix seconds; a record exactly at it is common.
        min_size: at least so many records.
        max_size: at most so many, retries aside.
        sets: whether ``set`` occurs.
        retries: whether records have ids, and some are sent again, with the same content or with
            other content.
        late: whether timestamps before the period occur.
        future: whether timestamps after ``now``, and the period's end, occur.
    """
    stamps = _stamps(period, now, late=late, future=future)
    drawn = st.lists(_sketches(sets, retries), min_size=min_size, max_size=max_size)
    return _made(lambda sketches: _batch(sketches, _ids_of(items), stamps), drawn)


Batch = tuple[int, list[UsageRecord]]
"""The moment of receipt in Unix seconds, and what was sent then."""

_SketchedBatch = tuple[int, int, list[_Sketch]]


@cache
def _sketched_batches(max_batches: int, max_size: int) -> st.SearchStrategy[list[_SketchedBatch]]:
    # Batches without any id take another path.
    sketches = st.one_of(
        [st.lists(_sketches(True, retries), max_size=max_size) for retries in (True, False)]
    )
    return st.lists(st.tuples(st.integers(0, 2), _places(), sketches), max_size=max_batches)


@cache
def _places() -> st.SearchStrategy[int]:
    """Draw which moment of a period it is, as :func:`_moment` counts them; every other one is the
    turn of two periods.
    """
    return st.sampled_from([0, 4]) | st.integers(0, 9)


def batches(
    subscription: Subscription, *, max_batches: int = 4, max_size: int = 8, strangers: bool = True
) -> st.SearchStrategy[list[Batch]]:
    """Draw what a subscription's log receives over three periods from its anchor on: batches at
    moments that never go back.

    With ``strangers`` some records name an item that no subscription has.
    """
    cycle = subscription.cycle
    of = list(islice(cycle.periods_from(cycle.anchor), 3))
    own = _ids_of(subscription.items)

    def batch(now: int, sketches: list[_Sketch]) -> Batch:
        # A batch without ids stays free of strangers, so that some batches are plainly acceptable
        # but for their timestamps.
        has_ids = any(sketch[4] is not None for sketch in sketches)
        items = [*own, "si_unknown"] if strangers and has_ids else own
        return now, _batch(
            sketches, items, _stamps(cycle.period_at(now), now, late=True, future=True)
        )

    def history(sketched: list[_SketchedBatch]) -> list[Batch]:
        received = [
            (max(_moment(of[period], place), of[0].start_seconds), sketches)
            for period, place, sketches in sketched
        ]
        return [batch(now, sketches) for now, sketches in sorted(received, key=itemgetter(0))]

    return _made(history, _sketched_batches(max_batches, max_size))


def _moment(period: BillingPeriod, place: int) -> int:
    """Return an edge of the period for the first few places, and something inside it for the
    others.
    """
    start, end = period.start_seconds, period.end_seconds
    edges = (start, end - 1, start + 1, start - 1, end, end + 1)
    return (
        edges[place]
        if place < len(edges)
        else start + (end - start) * (place - len(edges) + 1) // 5
    )


def histories(**options: Any) -> st.SearchStrategy[tuple[Subscription, list[Batch]]]:
    """Draw a subscription and what its log receives; ``options`` are those of
    :func:`subscriptions`.
    """
    return subscriptions(**options).flatmap(lambda drawn: st.tuples(st.just(drawn), batches(drawn)))


def usage_logs(
    subscription: Subscription | None = None, *, closes: bool = True
) -> st.SearchStrategy[UsageLog]:
    """Draw logs with usage over three periods; with ``closes`` the elapsed periods are finalized in
    some of them.
    """
    drawn = (
        histories()
        if subscription is None
        else st.tuples(st.just(subscription), batches(subscription))
    )
    return _made(_log, drawn, st.booleans() if closes else st.just(value=False))


def _log(history: tuple[Subscription, list[Batch]], closes: bool) -> UsageLog:
    return log_of(history, closes=closes)


def log_of(history: tuple[Subscription, list[Batch]], *, closes: bool) -> UsageLog:
    """Return the log of a subscription that received these batches; with ``closes`` elapsed periods
    were finalized.
    """
    subscription, received = history
    log = UsageLog([subscription])
    for now, records in received:
        before = subscription.period_at(subscription.cycle.period_at(now).start_seconds - 1)
        if closes and before is not None:
            log.close_period(subscription.id, before, now=now)
        log.append(records, now=now)
    return log


# Meters -------------------------------------------------------------------------------------------

DIMENSIONS = ("region", "model")
"""The payload keys of drawn dimensions."""


@st.composite
def meters(
    draw: st.DrawFn,
    *,
    formulas: Sequence[str] = tuple(Formula),
    windows: Sequence[str | None] = (None, *EventTimeWindow),
    dimensions: bool = True,
    id: str = "mtr_1",
    event_name: str = "api_requests",
) -> Meter:
    """Draw active meters.

    Args:
        draw: given by Hypothesis.
        formulas: by which formulas.
        windows: with which event time windows; None is no window.
        dimensions: whether some have dimensions, one or two of :data:`DIMENSIONS`.
        id: the meter's id.
        event_name: the name of its events.
    """
    formula = Formula(draw(st.sampled_from(formulas)))
    # Drawn for every formula, or those that need fewer choices would pass for simpler than a sum.
    places, carries = draw(st.sampled_from([None, 0, 2])), draw(st.booleans())
    customer_key, value_key = draw(
        st.sampled_from([("stripe_customer_id", "value"), ("who", "amount")])
    )
    return Meter(
        id,
        event_name,
        formula,
        customer_payload_key=customer_key,
        value_payload_key=value_key,
        event_time_window=draw(st.sampled_from(windows)),
        dimension_payload_keys=DIMENSIONS[: draw(st.integers(0, 2))] if dimensions else (),
        decimal_places=None if FORMULAS[formula].takes == "text" else places,
        carry_forward=formula is Formula.LAST and carries,
    )


def meter_policies() -> st.SearchStrategy[MeterPolicy]:
    """Draw policies of meters: the default, what is stricter and what is laxer, in any
    combination.
    """
    hours = [timedelta(0), timedelta(hours=1), timedelta(hours=24)]
    return st.builds(
        MeterPolicy,
        backdate_days=st.sampled_from([35, 0, 1, None]),
        future_tolerance=st.sampled_from([timedelta(minutes=5), timedelta(0), None]),
        identifier_scope=st.sampled_from(IdentifierScope),
        identifier_retention=st.sampled_from([None, timedelta(hours=24)]),
        significant_digits=st.sampled_from([None, 15, 1]),
        whole_values=st.booleans(),
        positive_values=st.booleans(),
        dimensions_max=st.sampled_from([None, 10, 0]),
        cancel_window=st.sampled_from([timedelta(hours=24), *hours[:2], None]),
        batch_max=st.sampled_from([100, 1, None]),
        aligned_summaries=st.booleans(),
        late_usage=st.sampled_from(LateUsage),
    )


class Misfit(IntEnum):
    """What is wrong with an event's payload, if anything; ``EXTRA_KEY`` is a key that no meter asks
    for, and harmless.
    """

    NONE = 0
    EXTRA_KEY = 1
    NO_CUSTOMER = 2
    NO_VALUE = 3
    NO_NUMBER = 4
    NO_DIMENSION = 5


_EDGES_OF_VALUES = (
    "0",
    "-1",
    "0.5",
    "-0.25",
    "1.50",
    "007",
    "+1",
    "999999999999999",
    "1234567890123456",
    "0.123456789012345",
)
_LONG_VALUES = (f"0.{'0' * 29}1", f"-{'7' * 20}.{'3' * 20}", *map(str, HUGE))

_EventSketch = tuple[int, str, int, str | None, Again, Misfit, int]
"""An event before it is known by which meter: places in the lists of customers, timestamps and
dimension values.
"""


@cache
def _event_sketches(
    negatives: bool,
    retries: bool,
    misfits: bool,
) -> st.SearchStrategy[_EventSketch]:
    edges = [
        text for text in _EDGES_OF_VALUES + _LONG_VALUES if negatives or not text.startswith("-")
    ]
    # Most events fit, or few logs would have any.
    kinds = [Misfit.NONE] * 10 + list(Misfit) if misfits else [Misfit.NONE]
    return st.tuples(
        st.integers(0, 5),
        _made(str, st.integers(0, 10))
        | st.sampled_from(edges)
        | _made(_plain_decimal, decimals_of(6)),
        st.integers(0, 18),
        st.sampled_from([None, "a", "b", "c"] if retries else [None]),
        st.sampled_from(Again),
        st.sampled_from(kinds),
        st.integers(0, 8),
    )


def _plain_decimal(value: Decimal) -> str:
    return f"{value:f}"


def _payload(meter: Meter, customer: str, sketch: _EventSketch) -> dict[str, str]:
    _, text, _, _, _, misfit, place = sketch
    if meter.decimal_places is not None and "." in text:
        whole, _, places = text.partition(".")
        text = f"{whole}.{places[: meter.decimal_places]}" if meter.decimal_places else whole
    payload = {meter.customer_payload_key: customer, meter.value_payload_key: text}
    for number, key in enumerate(meter.dimension_payload_keys):
        payload[key] = ("eu", "us", "")[place // 3**number % 3]
    return _misfitting(payload, meter, misfit)


def _misfitting(payload: dict[str, str], meter: Meter, misfit: Misfit) -> dict[str, str]:
    dropped = {
        Misfit.NO_CUSTOMER: meter.customer_payload_key,
        Misfit.NO_VALUE: meter.value_payload_key,
        Misfit.NO_DIMENSION: (*meter.dimension_payload_keys, None)[0],
    }
    changed = {
        Misfit.EXTRA_KEY: {"trace": "1"},
        Misfit.NO_NUMBER: {meter.value_payload_key: "much"},
    }.get(misfit, {})
    return {key: text for key, text in payload.items() if key != dropped.get(misfit)} | changed


def _event_moments(
    period: BillingPeriod, now: int, policy: MeterPolicy, *, late: bool, future: bool
) -> list[int | None]:
    """Return the moments at which events collide, in Unix microseconds; None is ``"now"``."""
    second, hour, day = 10**6, 3600 * 10**6, 86_400 * 10**6
    start, end, at = period.start_seconds * second, period.end_seconds * second, now * second
    edges = {
        start,
        start + hour,
        start + hour - 1,
        start + day,
        start + day - 1,
        at,
        at - 1,
        at - hour,
        (start + at) // 2,
    }
    moments = {one for one in edges if start <= one <= at} | {start}
    if late:
        earliest = policy.earliest(now)
        moments |= {start - 1, start - day} | (
            set() if earliest is None else {earliest * second, earliest * second - 1}
        )
    if future:
        latest = policy.latest(at)
        moments |= {end - 1, end, at + 1} | (set() if latest is None else {latest, latest + 1})
    return [None, *sorted(one for one in moments if one >= 0)]


def _event(
    meter: Meter, customers: Sequence[str], moments: Sequence[int | None], sketch: _EventSketch
) -> MeterEvent:
    at = moments[sketch[2] % len(moments)]
    payload = _payload(meter, customers[sketch[0] % len(customers)], sketch)
    return MeterEvent(
        meter.event_name,
        payload,
        identifier=sketch[3],
        timestamp="now" if at is None else _timestamp(at),
    )


def _timestamp(microseconds: int) -> int | datetime:
    seconds, rest = divmod(microseconds, 10**6)
    return from_unix_seconds(seconds) + timedelta(microseconds=rest) if rest else seconds


def _changed(event: MeterEvent, meter: Meter) -> MeterEvent:
    payload = {
        **event.payload,
        meter.value_payload_key: "2" if event.payload.get(meter.value_payload_key) != "2" else "1",
    }
    timestamp = "now" if event.microseconds is None else _timestamp(event.microseconds)
    return MeterEvent(event.event_name, payload, identifier=event.identifier, timestamp=timestamp)


def _event_batch(
    meter: Meter,
    customers: Sequence[str],
    moments: Sequence[int | None],
    sketches: list[_EventSketch],
) -> list[MeterEvent]:
    batch: list[MeterEvent] = []
    at_last: list[MeterEvent] = []
    for sketch in sketches:
        event, again = _event(meter, customers, moments, sketch), sketch[4]
        batch.append(event)
        if event.identifier is not None and again:
            changed = again in {Again.CHANGED_AT_ONCE, Again.CHANGED_AT_LAST}
            repeated = _changed(event, meter) if changed else event
            (batch if again in {Again.AT_ONCE, Again.CHANGED_AT_ONCE} else at_last).append(repeated)
    return batch + at_last


CUSTOMERS = ("cus_1", "cus_2")
"""The customers of drawn events."""

_JANUARY = BillingPeriod(1_704_067_200, 1_706_745_600)


def meter_event(
    meter: Meter | None = None,
    *,
    customers: Sequence[str] = CUSTOMERS,
    period: BillingPeriod = _JANUARY,
    now: int | None = None,
    policy: MeterPolicy | None = None,
    negatives: bool = True,
    identifiers: bool = True,
    misfits: bool = False,
    late: bool = True,
    future: bool = True,
) -> st.SearchStrategy[MeterEvent]:
    """Draw single events; see :func:`meter_events`, which draws several that meet."""
    measuring = Meter("mtr_1", "api_requests") if meter is None else meter
    at = period.end_seconds - 1 if now is None else now
    moments = _event_moments(period, at, policy or MeterPolicy(), late=late, future=future)
    sketches = _event_sketches(negatives, identifiers, misfits)
    return _made(lambda sketch: _event(measuring, customers, moments, sketch), sketches)


def meter_events(
    meter: Meter,
    *,
    customers: Sequence[str] = CUSTOMERS,
    period: BillingPeriod = _JANUARY,
    now: int | None = None,
    policy: MeterPolicy | None = None,
    min_size: int = 0,
    max_size: int = 12,
    negatives: bool = True,
    retries: bool = True,
    misfits: bool = True,
    late: bool = True,
    future: bool = True,
) -> st.SearchStrategy[list[MeterEvent]]:
    """Draw batches of a meter's events that meet: few moments, most on an edge, to the microsecond.

    Values have up to 30 digits and as many places as the meter allows; 15 digits, 16 and zero are
    common.

    Args:
        meter: whose payload keys, dimensions and decimal places they keep to.
        customers: whose usage.
        period: the current billing period at ``now``; January 2024 unless given.
        now: the moment of receipt in Unix seconds; the period's last second unless given.
        policy: whose bounds of time are reached; the default one unless given.
        min_size: at least so many events.
        max_size: at most so many, retries aside.
        negatives: whether negative values occur.
        retries: whether events have identifiers, and some are sent again, with the same content or
            with other content.
        misfits: whether some lack a key, have one too many, or have a value that is no number; see
            :class:`Misfit`.
        late: whether moments before the period occur, down to the bound of what is accepted and
            beyond it.
        future: whether moments after ``now`` occur, up to the bound of what is accepted and beyond
            it.
    """
    at = period.end_seconds - 1 if now is None else now
    moments = _event_moments(period, at, policy or MeterPolicy(), late=late, future=future)
    drawn = st.lists(
        _event_sketches(negatives, retries, misfits), min_size=min_size, max_size=max_size
    )
    return _made(lambda sketches: _event_batch(meter, customers, moments, sketches), drawn)


EventBatch = tuple[int, list[MeterEvent], str | None]
"""The moment of receipt in Unix seconds, what was sent then, and the identifier that was canceled
afterwards.
"""

EventHistory = tuple[Meter, Subscription, list[EventBatch]]
"""A meter, a subscription of the first of :data:`CUSTOMERS` with items on it, and what their log
receives.
"""

_SketchedEvents = tuple[int, int, list[_EventSketch], str | None]


@cache
def _sketched_event_batches(
    max_batches: int, max_size: int
) -> st.SearchStrategy[list[_SketchedEvents]]:
    sketches = st.lists(
        _event_sketches(negatives=True, retries=True, misfits=True), max_size=max_size
    )
    canceled = st.sampled_from([None, "a", "b", "c"])
    return st.lists(
        st.tuples(st.integers(0, 2), _places(), sketches, canceled), max_size=max_batches
    )


def event_batches(
    meter: Meter, cycle: BillingCycle, *, max_batches: int = 4, max_size: int = 8
) -> st.SearchStrategy[list[EventBatch]]:
    """Draw what a meter's log receives over three periods from a cycle's anchor on: batches at
    moments that never go back.
    """
    of = list(islice(cycle.periods_from(cycle.anchor), 3))

    def batch(now: int, sketches: list[_EventSketch], canceled: str | None) -> EventBatch:
        moments = _event_moments(cycle.period_at(now), now, MeterPolicy(), late=True, future=True)
        return now, _event_batch(meter, CUSTOMERS, moments, sketches), canceled

    def history(sketched: list[_SketchedEvents]) -> list[EventBatch]:
        received = [
            (max(_moment(of[period], place), of[0].start_seconds), sketches, canceled)
            for period, place, sketches, canceled in sketched
        ]
        return [batch(*one) for one in sorted(received, key=itemgetter(0))]

    return _made(history, _sketched_event_batches(max_batches, max_size))


def event_histories(
    meter: st.SearchStrategy[Meter] | None = None,
) -> st.SearchStrategy[EventHistory]:
    """Draw a meter, a subscription with items on it, and what their log receives."""

    def subscribed(drawn: Meter) -> st.SearchStrategy[EventHistory]:
        subscription = subscriptions(meters=[drawn], customer=CUSTOMERS[0])
        return subscription.flatmap(
            lambda one: st.tuples(st.just(drawn), st.just(one), event_batches(drawn, one.cycle))
        )

    return (meters() if meter is None else meter).flatmap(subscribed)


def meter_logs(
    meter: st.SearchStrategy[Meter] | None = None, *, closes: bool = True
) -> st.SearchStrategy[MeterLog]:
    """Draw logs with events and cancellations over three periods; with ``closes`` elapsed periods
    are closed in some.
    """
    return _made(
        _meter_log, event_histories(meter), st.booleans() if closes else st.just(value=False)
    )


def _meter_log(history: EventHistory, closes: bool) -> MeterLog:
    return meter_log_of(history, closes=closes)


def meter_log_of(history: EventHistory, *, closes: bool) -> MeterLog:
    """Return the log that received these batches; with ``closes`` elapsed periods were closed."""
    meter, subscription, received = history
    log = MeterLog([meter], [subscription])
    for now, events, canceled in received:
        before = subscription.period_at(subscription.cycle.period_at(now).start_seconds - 1)
        if closes and before is not None:
            log.close_period(subscription.id, before, now=now)
        log.append(events, now=now)
        with suppress(UsageRejectedError):  # There may be no such event.
            if canceled is not None:
                log.cancel(meter.event_name, canceled, now=now)
    return log

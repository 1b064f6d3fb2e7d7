"""A newer version of a subscription never rebills in silence: what an open period owes stays as it
was told.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import attrs
import pytest

import metering_core as mc
from metering_core.columnar import ColumnarEvents, ColumnarUsage
from metering_core.errors import ErrorCode

JUNE, JULY, AUGUST = (datetime(2026, month, 1, tzinfo=UTC) for month in (6, 7, 8))
SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)
LICENSED = mc.Recurring(usage_type="licensed")


def day(number, month=6):
    """Return a moment of 2026."""
    return datetime(2026, month, number, tzinfo=UTC)


def price(id="old", amount=100, currency="usd", **options):
    """Return a price of some cents a unit, of usage records unless said otherwise."""
    return mc.Price.per_unit(id, currency=currency, unit_amount=amount, **options)


def subscription(*items, **options):
    """Return a subscription from June on, with one item at a dollar a unit unless items are
    given.
    """
    return mc.Subscription("s", items or [mc.SubscriptionItem("si", price())], JUNE, **options)


def item(of, id="si", quantity=None):
    """Return a subscription item."""
    return mc.SubscriptionItem(id, of, quantity)


def seats(quantity, amount=3000):
    """Return a licensed item."""
    return item(price("seat", amount, recurring=LICENSED), "seats", quantity)


def used(engine=mc.UsageLog, first=None, **options):
    """Return usage with 10 units on the 10th of June."""
    log = engine([first or subscription()], **options)
    log.append([mc.UsageRecord("si", 10, day(10))], now=day(10))
    return log


def refused(ask):
    """Return the code and the param with which something is refused."""
    with pytest.raises(mc.InvalidValueError) as refusal:
        ask()
    return refusal.value.code, refusal.value.param


METERS = [mc.Meter("m", "calls"), mc.Meter("other", "others")]
ON_METER = mc.Recurring(meter="m")


def measured(engine=mc.MeterLog, first=None):
    """Return the same of meter events."""
    log = engine(METERS, [first or on_meter()])
    log.append(
        [mc.MeterEvent("calls", {"stripe_customer_id": "c", "value": "10"}, timestamp=day(10))],
        now=day(10),
    )
    return log


def on_meter(*items, **options):
    """Return a subscription whose item is on a meter."""
    return subscription(*(items or [item(price(recurring=ON_METER))]), customer="c", **options)


# Kind A, row by row -------------------------------------------------------------------------------

REBILLING = {
    "another price": (subscription(item(price("new", 200))), "items[0][price]"),
    "another currency": (subscription(item(price("new", currency="eur"))), "currency"),
    "without the item": (subscription(item(price("new"), "other")), "items"),
    "a licensed price": (subscription(item(price("new", recurring=LICENSED))), "items[0][price]"),
    "on a meter": (on_meter(), "items[0][price]"),
    "another mode": (
        subscription(item(price(recurring=mc.Recurring(aggregate_usage="max")))),
        "items[0][price]",
    ),
    "a later start": (subscription(start_date=day(11)), "start_date"),
    "an earlier end": (subscription(ended_at=day(5)), "ended_at"),
    "an end as it was used": (subscription(ended_at=day(10)), "ended_at"),
}


@pytest.mark.parametrize("engine", [mc.UsageLog, ColumnarUsage])
@pytest.mark.parametrize(("newer", "param"), REBILLING.values(), ids=REBILLING)
def test_what_would_rebill_records_is_refused(engine, newer, param):
    """A version that re-rates, orphans or moves records of an open period is refused by name, and
    nothing changes.
    """
    log = used(engine)
    assert refused(lambda: log.subscribe(newer)) == (ErrorCode.CHANGE_NOT_BILLABLE, param)
    assert log.subscriptions == (subscription(),)
    assert mc.preview_invoice(subscription(), log, now=day(20)).total == 1000


EVENTS_REBILLING = {
    "another price": (on_meter(item(price("new", 200, recurring=ON_METER))), "items[0][price]"),
    "another currency": (
        on_meter(item(price("new", currency="eur", recurring=ON_METER))),
        "currency",
    ),
    "without the item": (on_meter(item(price("new", 200, recurring=ON_METER), "next")), "items"),
    "a licensed price": (on_meter(item(price("new", recurring=LICENSED))), "items[0][price]"),
    "another meter": (
        on_meter(item(price(recurring=mc.Recurring(meter="other")))),
        "items[0][price]",
    ),
    "a later start": (on_meter(start_date=day(11)), "start_date"),
    "an earlier end": (on_meter(ended_at=day(5)), "ended_at"),
}


@pytest.mark.parametrize("engine", [mc.MeterLog, ColumnarEvents])
@pytest.mark.parametrize(("newer", "param"), EVENTS_REBILLING.values(), ids=EVENTS_REBILLING)
def test_what_would_rebill_events_is_refused(engine, newer, param):
    """The same holds of the events of the customer on the item's meter."""
    log = measured(engine)
    assert refused(lambda: log.subscribe(newer)) == (ErrorCode.CHANGE_NOT_BILLABLE, param)
    assert log.subscriptions == (on_meter(),)
    assert mc.preview_invoice(on_meter(), log, now=day(20)).total == 1000


JUNE_WRITTEN, JULY_WRITTEN = (
    "2026-06-01T00:00:00Z to 2026-07-01T00:00:00Z",
    "2026-07-01T00:00:00Z to 2026-08-01T00:00:00Z",
)
OTHERWISE = (
    "or end this subscription and start another, whose items need new ids, or pass "
    "rebill=True to have all open periods billed "
    f"by the new version, of which these have usage: {JUNE_WRITTEN}"
)


def test_the_refusal_says_what_to_do():
    """The sentence names the item, since when it was used, the moment to pass, and each period that
    would be billed anew.
    """
    log, (newer, _) = used(), REBILLING["another price"]
    with pytest.raises(mc.InvalidValueError) as refusal:
        log.subscribe(newer)
    assert str(refusal.value) == (
        "items[0][price]: expected the item 'si' as it was used since 2026-06-10T00:00:00Z "
        "(pass now=2026-06-01T00:00:00Z to "
        "have the change hold for all of that period, or finalize what is open until "
        "2026-07-01T00:00:00Z and pass that as "
        f"now=, {OTHERWISE}), received 'new' (str)"
    )
    log.append([mc.UsageRecord("si", 1, day(2, 7))], now=day(2, 7))
    with pytest.raises(mc.InvalidValueError) as refusal:
        log.subscribe(newer, now=day(3, 7))
    assert str(refusal.value) == (
        "items[0][price]: expected the item 'si' as it was used since 2026-06-10T00:00:00Z "
        "(finalize what is open before and "
        "pass now=2026-07-01T00:00:00Z to have the change hold for all of that period, or "
        "finalize what is open until "
        f"2026-08-01T00:00:00Z and pass that as now=, {OTHERWISE}, {JULY_WRITTEN}), "
        "received 'new' (str)"
    )
    with pytest.raises(mc.InvalidValueError) as refusal:
        log.subscribe(subscription(item(price("new"), "other")), now=JULY)
    assert str(refusal.value) == (
        "items: expected the item 'si' as it was used since 2026-06-10T00:00:00Z (finalize "
        "what is open until "
        f"2026-08-01T00:00:00Z and pass that as now=, {OTHERWISE}, {JULY_WRITTEN}), "
        "received 'no such item' (str)"
    )


def test_many_open_periods_are_counted():
    """The sentence names three periods that have usage and counts the others."""
    log = used()
    for month in range(7, 12):
        log.record("si", 1, now=day(2, month))
    with pytest.raises(
        mc.InvalidValueError, match="2026-08-01T00:00:00Z to 2026-09-01T00:00:00Z and 3 more"
    ):
        log.subscribe(REBILLING["another price"][0])


# Usage from the moment of the change on -----------------------------------------------------------

FORWARD = {"another price", "another currency", "another mode"}


def assert_from_the_change_on(name, log, newer, param):
    """Tell a version a second after the usage of day 10, then at its very moment."""
    assert refused(lambda: log.subscribe(newer, now=day(10) + SECOND)) == (
        ErrorCode.CHANGE_NOT_BILLABLE,
        param,
    )
    if name not in FORWARD:
        assert refused(lambda: log.subscribe(newer, now=day(10))) == (
            ErrorCode.CHANGE_NOT_BILLABLE,
            param,
        )
    else:
        log.subscribe(newer, now=day(10))
        assert (
            mc.preview_invoice(newer, log, now=day(20)).total
            == 10 * newer.items[0].price.model.unit_amount
        )


@pytest.mark.parametrize("engine", [mc.UsageLog, ColumnarUsage])
@pytest.mark.parametrize("name", REBILLING)
def test_records_from_the_change_on_are_for_the_newer_version(engine, name):
    """As of the very moment of the usage other terms are taken, and never what would not bill it; a
    second later neither.
    """
    assert_from_the_change_on(name, used(engine), *REBILLING[name])


@pytest.mark.parametrize("engine", [mc.MeterLog, ColumnarEvents])
@pytest.mark.parametrize("name", EVENTS_REBILLING)
def test_events_from_the_change_on_are_for_the_newer_version(engine, name):
    """The same holds of events."""
    assert_from_the_change_on(name, measured(engine), *EVENTS_REBILLING[name])


@pytest.mark.parametrize(("made", "table"), [(used, "records"), (measured, "events")])
def test_a_price_changes_at_the_boundary_under_steady_traffic(made, table):
    """June is finalized five minutes into July, after July was used: July has the new price, also
    by the clock's moment.
    """
    rows = REBILLING if table == "records" else EVENTS_REBILLING
    (newer, param), log = rows["another price"], made()
    first, at = log.subscriptions[0], JULY + MINUTE
    if table == "records":
        log.append([mc.UsageRecord("si", 1, at)], now=at)
    else:
        log.append(
            [mc.MeterEvent("calls", {"stripe_customer_id": "c", "value": "1"}, timestamp=at)],
            now=at,
        )
    refusal = (ErrorCode.CHANGE_NOT_BILLABLE, param)
    assert refused(lambda: log.subscribe(newer, now=JULY)) == refusal  # June is open, and was used.
    june = mc.finalize_invoice(first, log, first.period_at(JUNE), now=JULY + 5 * MINUTE)
    assert (
        refused(lambda: log.subscribe(newer))
        == refused(lambda: log.subscribe(newer, now=JULY + 5 * MINUTE))
        == refusal
    )
    log.subscribe(newer, now=JULY)
    assert (june.total, mc.preview_invoice(newer, log, now=at).total) == (1000, 200)


def test_a_clock_that_stands_before_the_usage_says_the_moment():
    """Without ``now`` the clock's moment is that of the change."""
    log = used(clock=lambda: day(9))
    log.subscribe(REBILLING["another price"][0])
    assert mc.preview_invoice(log.subscriptions[0], log, now=day(20)).total == 2000


@pytest.mark.parametrize("engine", [mc.UsageLog, ColumnarUsage])
def test_an_item_that_comes_back_does_not_bill_what_it_left(engine):
    """What was recorded of an item before it was dropped is billed by the item of that id only
    where that is said.
    """
    log = used(engine)
    log.subscribe(subscription(item(price(), "other")), now=day(11), rebill=True)
    again = subscription(item(price("again", 500)), item(price(), "other"))
    assert refused(lambda: log.subscribe(again, now=day(12))) == (
        ErrorCode.CHANGE_NOT_BILLABLE,
        "items[0]",
    )
    log.subscribe(again, now=day(10))


@pytest.mark.parametrize(
    ("former", "newer", "at", "now"),
    [({"start_date": day(10)}, {}, day(5), day(12)), ({"ended_at": day(10)}, {}, day(15), day(20))],
    ids=["starts earlier", "ends later"],
)
@pytest.mark.parametrize("kind", ["added", "dearer"])
@pytest.mark.parametrize("engine", [mc.MeterLog, ColumnarEvents])
def test_a_longer_life_bills_nothing_from_before_on_other_terms(
    engine, kind, former, newer, at, now
):
    """A version that lengthens the life bills what was outside of the former one, but not on terms
    that are new with it.
    """
    beside = item(price(recurring=mc.Recurring(meter="other")), "beside")
    counted = item(price(recurring=ON_METER))
    log = engine(METERS, [on_meter(beside, *([] if kind == "added" else [counted]), **former)])
    log.append(
        [mc.MeterEvent("calls", {"stripe_customer_id": "c", "value": "10"}, timestamp=at)], now=at
    )
    version = on_meter(
        beside,
        counted if kind == "added" else item(price("dear", 500, recurring=ON_METER)),
        **newer,
    )
    param = "items[1]" if kind == "added" else "items[1][price]"
    assert refused(lambda: log.subscribe(version, now=now)) == (
        ErrorCode.CHANGE_NOT_BILLABLE,
        param,
    )
    log.subscribe(version, now=at)
    assert (
        mc.preview_invoice(version, log, now=day(20)).total
        == 10 * version.items[1].price.model.unit_amount
    )


@pytest.mark.parametrize("newer", [row[0] for row in list(REBILLING.values())[:4]])
def test_rebilling_can_be_asked_for(newer):
    """With ``rebill=True`` the open period is billed by the newer version."""
    log = used()
    log.subscribe(newer, rebill=True)
    assert log.subscriptions == (newer,)


@pytest.mark.parametrize("engine", [mc.UsageLog, ColumnarUsage])
def test_what_is_not_used_can_change(engine):
    """Without usage in an open period every change is free, and so are names, additions and an end
    after the usage.
    """
    log = engine([subscription()])
    log.subscribe(REBILLING["another price"][0])
    log = used(engine)
    log.subscribe(subscription(item(price("renamed", nickname="Calls"))))
    log.subscribe(subscription(item(price("renamed")), item(price("more", 7), "more")))
    log.subscribe(subscription(item(price("renamed")), item(price("dearer", 8), "more")))
    log.subscribe(subscription(item(price("renamed"))))
    log.subscribe(subscription(item(price("renamed")), ended_at=day(11)))
    log.subscribe(subscription(item(price("renamed")), start_date=day(1, 5), ended_at=day(11, 8)))
    assert log.subscriptions[0].ended_at == day(11, 8)


def test_events_follow_the_meter_not_the_item():
    """An item on the same meter and terms takes the place of a dropped one: its events are billed
    as before.
    """
    log = measured()
    heir = on_meter(item(price("again", recurring=ON_METER), "heir"))
    log.subscribe(heir)
    assert mc.preview_invoice(heir, log, now=day(20)).total == 1000


@pytest.mark.parametrize("engine", [mc.UsageLog, ColumnarUsage])
def test_a_closed_period_frees_what_was_used_in_it(engine):
    """Once June is finalized, July can have another price; June stays as it was billed."""
    log, new = used(engine), REBILLING["another price"][0]
    june = mc.finalize_invoice(subscription(), log, subscription().period_at(JUNE), now=JULY)
    log.subscribe(new)
    log.append([mc.UsageRecord("si", 1, day(2, 7))], now=day(2, 7))
    assert mc.preview_invoice(new, log, now=day(2, 7)).total == 200
    assert (
        mc.finalize_invoice(new, log, new.period_at(JUNE), now=day(3, 7)).to_dict()
        == june.to_dict()
    )
    assert refused(lambda: log.subscribe(subscription())) == (
        ErrorCode.CHANGE_NOT_BILLABLE,
        "items[0][price]",
    )


def test_a_period_that_was_left_open_before_a_closed_one_is_still_held():
    """Where July was finalized and June was not, June's usage refuses another price until June is
    finalized, too.
    """
    log, newer = measured(), EVENTS_REBILLING["another price"][0]
    mc.finalize_invoice(on_meter(), log, on_meter().period_at(JULY), now=AUGUST)
    assert refused(lambda: log.subscribe(newer)) == (
        ErrorCode.CHANGE_NOT_BILLABLE,
        "items[0][price]",
    )
    assert (
        mc.finalize_invoice(on_meter(), log, on_meter().period_at(JUNE), now=AUGUST).total == 1000
    )
    log.subscribe(newer, now=AUGUST)
    assert log.subscriptions == (newer,)


def test_a_life_that_is_closed_to_its_end_has_nothing_to_rebill():
    """Once the last period of a subscription that ended is finalized, another price is taken and
    the bill stays as it was.
    """
    ended = on_meter(ended_at=JULY)
    log = measured(first=ended)
    june = mc.finalize_invoice(ended, log, ended.period_at(JUNE), now=JULY)
    newer = on_meter(item(price("new", 200, recurring=ON_METER)), ended_at=JULY)
    log.subscribe(newer)
    assert log.subscriptions == (newer,)
    assert (
        mc.finalize_invoice(newer, log, newer.period_at(JUNE), now=AUGUST).to_dict()
        == june.to_dict()
    )


@pytest.mark.parametrize("engine", [mc.UsageLog, ColumnarUsage])
def test_late_usage_counts_where_it_is_billed(engine):
    """A record of June that July bills is usage of July: no price may change under it."""
    policy = mc.AcceptancePolicy(
        late_grace=mc.AcceptancePolicy().late_grace + (JULY - JUNE), late_attribution="open_period"
    )
    log = used(engine, policy=policy)
    mc.finalize_invoice(subscription(), log, subscription().period_at(JUNE), now=JULY)
    log.append([mc.UsageRecord("si", 5, day(30))], now=day(2, 7))
    for options in (
        {},
        {"now": JULY},
    ):  # It was used before July, and taken as what June's price makes of it.
        with pytest.raises(
            mc.InvalidValueError,
            match=r"\(finalize what is open until 2026-08-01T00:00:00Z and pass",
        ):
            log.subscribe(REBILLING["another price"][0], **options)
    assert log.subscriptions == (subscription(),)


def test_what_was_compacted_before_it_was_billed_is_held():
    """Of a period that was closed without an invoice and compacted nobody knows what was late: its
    price stays.
    """
    log = used()
    log.close_period("s", subscription().period_at(JUNE), now=JULY)
    assert log.compact() == 1
    assert (
        refused(lambda: log.subscribe(REBILLING["another price"][0], now=JUNE))[1]
        == "items[0][price]"
    )
    mc.finalize_invoice(subscription(), log, subscription().period_at(JUNE), now=JULY)
    log.subscribe(REBILLING["another price"][0], now=JULY)


# Licensed items -----------------------------------------------------------------------------------

AGREED = {
    "price": (subscription(seats(1, 4000)), "items[0][price]"),
    "quantity": (subscription(seats(5)), "items[0][quantity]"),
    "dropped": (subscription(), "items"),
    "added": (subscription(seats(1), item(price("desk", recurring=LICENSED), "desk")), "items[1]"),
    "a later start": (subscription(seats(1), start_date=day(5)), "start_date"),
    "an earlier start": (subscription(seats(1), start_date=day(1, 5)), "start_date"),
}


@pytest.mark.parametrize(
    "logs", [mc.UsageLog, lambda of: mc.MeterLog(METERS, of)], ids=["records", "events"]
)
@pytest.mark.parametrize(("newer", "param"), AGREED.values(), ids=AGREED)
def test_what_was_agreed_for_a_running_period_stays(logs, newer, param):
    """A licensed item owes for a period that has begun: no other quantity, price, item or start in
    the middle of it.
    """
    log, newer = logs([subscription(seats(1), customer="c")]), attrs.evolve(newer, customer="c")
    assert refused(lambda: log.subscribe(newer, now=day(16))) == (
        ErrorCode.CHANGE_NOT_BILLABLE,
        param,
    )
    log.subscribe(newer, now=day(16), rebill=True)
    assert log.subscriptions == (newer,)


def test_a_licensed_item_changes_at_the_boundary():
    """Exactly at a boundary, all periods before it closed, the quantity may change; a second later
    the new period has begun.
    """
    first, more = subscription(seats(1)), subscription(seats(5))
    log = mc.UsageLog([first])
    assert refused(lambda: log.subscribe(more, now=JULY)) == (
        ErrorCode.CHANGE_NOT_BILLABLE,
        "items[0][quantity]",
    )
    june = mc.finalize_invoice(first, log, first.period_at(JUNE), now=day(2, 7))
    assert (
        refused(lambda: log.subscribe(more))[0] == ErrorCode.CHANGE_NOT_BILLABLE
    )  # The log knows of the 2nd.
    log.subscribe(more, now=JULY)
    assert mc.preview_invoice(more, log, now=day(2, 7)).total == 15000
    assert (
        mc.finalize_invoice(more, log, first.period_at(JUNE), now=AUGUST).total
        == june.total
        == 3000
    )


def test_a_licensed_item_is_free_before_the_subscription_begins():
    """What has not begun has nothing agreed for it; nor has what ended and was closed whole."""
    first, more = subscription(seats(1)), subscription(seats(5))
    log = mc.UsageLog([first], clock=lambda: JUNE)
    log.subscribe(more)
    ended = attrs.evolve(more, ended_at=JULY)
    log.subscribe(ended, now=day(20))
    mc.finalize_invoice(ended, log, ended.period_at(JUNE), now=JULY)
    log.subscribe(attrs.evolve(first, ended_at=JULY), now=day(5, 7))


def test_a_cancellation_is_not_a_rebill():
    """An end in the running period is prorated and allowed, also back; one of a period that is over
    is not.
    """
    first = subscription(seats(1))
    log = mc.UsageLog([first])
    log.subscribe(attrs.evolve(first, ended_at=day(20)), now=day(16))
    log.subscribe(first, now=day(18))
    assert refused(lambda: log.subscribe(attrs.evolve(first, ended_at=day(20)), now=day(5, 7))) == (
        ErrorCode.CHANGE_NOT_BILLABLE,
        "ended_at",
    )
    assert mc.finalize_invoice(first, log, first.period_at(JUNE), now=JULY).total == 3000
    log.subscribe(attrs.evolve(first, ended_at=day(20)), now=day(5, 7))
    assert log.stored_invoice("s", first.period_at(JUNE)).total == 3000


def test_a_log_that_knows_no_moment_asks_for_one():
    """Only where something is owed without usage must a moment be known: an argument, a clock, a
    receipt in the period.
    """
    first, more = subscription(seats(1)), subscription(seats(5))
    log = mc.UsageLog([first])
    assert refused(lambda: log.subscribe(more)) == (ErrorCode.PARAMETER_MISSING, "now")
    log.subscribe(first)
    log.subscribe(subscription(seats(1), item(price())))
    log.record("si", 1, now=day(3))
    assert (
        refused(lambda: log.subscribe(subscription(seats(5), item(price()))))[0]
        == ErrorCode.CHANGE_NOT_BILLABLE
    )
    clocked = mc.UsageLog([first], clock=lambda: day(3))
    assert refused(lambda: clocked.subscribe(more))[0] == ErrorCode.CHANGE_NOT_BILLABLE


def test_what_a_log_knows_may_be_long_ago():
    """A log whose last moment is the boundary cannot tell that the period has not begun: it may be
    told weeks later.
    """
    first, more = subscription(seats(1)), subscription(seats(5))
    log = mc.UsageLog([first])
    mc.finalize_invoice(first, log, first.period_at(JUNE), now=JULY)
    assert refused(lambda: log.subscribe(more)) == (ErrorCode.PARAMETER_MISSING, "now")
    assert refused(lambda: log.subscribe(more, now=day(29, 7))) == (
        ErrorCode.CHANGE_NOT_BILLABLE,
        "items[0][quantity]",
    )
    log.subscribe(more, now=JULY)


@pytest.mark.parametrize("newer", [lambda: (item(FEE),), lambda: (item(price()), item(FEE, "fee"))])
def test_a_fee_does_not_begin_in_months_before_it_was_agreed(newer):
    """A flat fee that comes with a newer version is owed without usage, as a seat is: it begins at
    a boundary.
    """
    log = mc.UsageLog([subscription(item(price()))])
    assert (
        refused(lambda: log.subscribe(subscription(*newer()), now=day(29)))[0]
        == ErrorCode.CHANGE_NOT_BILLABLE
    )
    mc.finalize_invoice(subscription(item(price())), log, subscription().period_at(JUNE), now=JULY)
    log.subscribe(subscription(*newer()), now=JULY)


FEE = mc.Price.graduated(
    "fee", currency="usd", tiers=[mc.Tier("inf", unit_amount=1, flat_amount=500)]
)
GAUGE = price("gauge", recurring=mc.Recurring(aggregate_usage="last_ever"))


def test_what_is_owed_without_usage_is_agreed():
    """A flat fee is owed by an unused item, and so is a level that an earlier period left."""
    log = mc.UsageLog([subscription(item(FEE))])
    assert refused(lambda: log.subscribe(subscription(), now=day(5))) == (
        ErrorCode.CHANGE_NOT_BILLABLE,
        "items[0][price]",
    )
    log = used(first=subscription(item(GAUGE)))
    mc.finalize_invoice(subscription(item(GAUGE)), log, subscription().period_at(JUNE), now=JULY)
    assert refused(lambda: log.subscribe(subscription(), now=day(5, 7))) == (
        ErrorCode.CHANGE_NOT_BILLABLE,
        "items[0][price]",
    )
    log.subscribe(subscription(), now=JULY)


def test_a_level_of_events_is_agreed():
    """The level that a meter carries from one period to the next is owed in the next, too."""
    storage = mc.Meter("storage", "calls", "weighted_sum")
    first = on_meter(item(price(recurring=mc.Recurring(meter="storage"))))
    cheap = on_meter(item(price("cheap", 1, recurring=mc.Recurring(meter="storage"))))
    log = mc.MeterLog([storage], [first])
    log.append(
        [mc.MeterEvent("calls", {"stripe_customer_id": "c", "value": "10"}, timestamp=day(10))],
        now=day(10),
    )
    mc.finalize_invoice(first, log, first.period_at(JUNE), now=JULY)
    assert refused(lambda: log.subscribe(cheap, now=day(5, 7))) == (
        ErrorCode.CHANGE_NOT_BILLABLE,
        "items[0][price]",
    )
    log.subscribe(cheap, now=JULY)


LEVELS = [
    mc.Meter("level", "levels", "last", carry_forward=True),
    mc.Meter("weighed", "weights", "weighted_sum"),
]


@pytest.mark.parametrize("meter", [meter.id for meter in LEVELS])
def test_a_level_does_not_come_into_a_period_that_has_begun(meter):
    """An item that would bring the level of a closed period into one that runs is refused, as a new
    one and as a moved one.
    """
    log = mc.MeterLog([*METERS, *LEVELS], [on_meter()], policy=mc.MeterPolicy.history())
    payload = {"stripe_customer_id": "c", "value": "10"}
    log.append(
        [mc.MeterEvent(one.event_name, payload, timestamp=day(10)) for one in LEVELS], now=day(10)
    )
    mc.finalize_invoice(on_meter(), log, on_meter().period_at(JUNE), now=JULY)
    level = price("level", recurring=mc.Recurring(meter=meter))
    added, moved = on_meter(*on_meter().items, item(level, "new")), on_meter(item(level))
    for newer, param in ((added, "items[1]"), (moved, "items[0][price]")):
        assert refused(lambda newer=newer: log.subscribe(newer, now=day(5, 7))) == (
            ErrorCode.CHANGE_NOT_BILLABLE,
            param,
        )
        assert mc.preview_invoice(on_meter(), log, now=day(20, 7)).total == 0
    log.subscribe(added, now=JULY)
    assert mc.preview_invoice(added, log, now=day(20, 7)).total == 1000


@pytest.mark.parametrize("dropped_first", [False, True])
def test_an_item_stays_on_its_meter_until_what_it_closed_is_billed(dropped_first):
    """A meter that closed a period without an invoice is the one that can bill it, also where
    nothing was used.
    """
    log, other = (
        mc.MeterLog(METERS, [on_meter()]),
        on_meter(item(price(recurring=mc.Recurring(meter="other")))),
    )
    june = on_meter().period_at(JUNE)
    log.close_period("s", june, now=JULY)
    if dropped_first:
        log.subscribe(
            on_meter(item(price("b", recurring=mc.Recurring(meter="other")), "another")), now=JULY
        )
    closed = "'m', which closed 2026-06-01T00:00:00Z to 2026-07-01T00:00:00Z without an invoice"
    with pytest.raises(mc.InvalidValueError, match=closed) as refusal:
        log.subscribe(other, now=JULY)
    assert (refusal.value.code, refusal.value.param) == (
        ErrorCode.CHANGE_NOT_BILLABLE,
        "items[0][price]",
    )
    (told,) = log.subscriptions
    assert mc.finalize_invoice(told, log, june, now=JULY).total == 0
    log.subscribe(other, now=JULY)
    assert mc.finalize_invoice(other, log, june, now=JULY).total == 0


def test_a_meter_may_be_left_before_what_it_closed_is_billed():
    """With ``rebill=True`` the item moves all the same."""
    log, other = (
        mc.MeterLog(METERS, [on_meter()]),
        on_meter(item(price(recurring=mc.Recurring(meter="other")))),
    )
    log.close_period("s", on_meter().period_at(JUNE), now=JULY)
    log.subscribe(other, now=JULY, rebill=True)
    assert log.subscriptions == (other,)


# Closed periods -----------------------------------------------------------------------------------


@pytest.mark.parametrize("rebill", [False, True])
def test_a_closed_period_cannot_become_longer(rebill):
    """The rest of a closed period could not be billed any more: a longer life within it is refused,
    whatever is said.
    """
    short = subscription(start_date=day(5), ended_at=day(20))
    log = mc.UsageLog([short])
    mc.finalize_invoice(short, log, short.period_at(day(5)), now=day(21))
    for newer, param in (
        (subscription(ended_at=day(20)), "start_date"),
        (subscription(start_date=day(5)), "ended_at"),
    ):
        assert refused(lambda newer=newer: log.subscribe(newer, rebill=rebill)) == (
            ErrorCode.CHANGE_NOT_BILLABLE,
            param,
        )
    assert (
        refused(
            lambda: log.subscribe(subscription(start_date=day(5), ended_at=day(21)), rebill=rebill)
        )[1]
        == "ended_at"
    )
    log.subscribe(subscription(start_date=day(6), ended_at=day(19)), rebill=rebill)
    log.subscribe(short, rebill=rebill)
    log.subscribe(subscription(start_date=JULY), rebill=rebill)  # Not in June at all.


# One event, two subscriptions ---------------------------------------------------------------------


def two(**options):
    """Return the two subscriptions of kind C: one until the 15th of June, one from then on."""
    old = mc.Subscription(
        "old",
        [item(price(recurring=ON_METER), "a")],
        JUNE,
        customer="c",
        **{"ended_at": day(15), **options},
    )
    new = mc.Subscription("new", [item(price(recurring=ON_METER), "b")], day(15), customer="c")
    return old, new


@pytest.mark.parametrize("engine", [mc.MeterLog, ColumnarEvents])
def test_lives_that_follow_each_other_are_billed_once(engine):
    """Kind C's catalog: the event of 5 June is billed to the old subscription, and the new one
    begins at its anchor.
    """
    for subscriptions in (two(), two()[::-1]):
        log = engine(METERS, subscriptions)
        log.append(
            [mc.MeterEvent("calls", {"stripe_customer_id": "c", "value": "5"}, timestamp=day(5))],
            now=day(5),
        )
        old, new = two()
        assert mc.preview_invoice(old, log, now=day(5)).total == 500
        assert mc.preview_invoice(new, log, now=day(20)).total == 0


@pytest.mark.parametrize("engine", [mc.MeterLog, ColumnarEvents])
@pytest.mark.parametrize("end", [None, day(16)])
def test_an_event_is_not_billed_twice(engine, end):
    """Two subscriptions of one customer on one meter at one time are refused, in either order,
    unless the policy says so.
    """
    old, new = two(ended_at=end)
    for first, second in ((old, new), (new, old)):
        log = engine(METERS, [first])
        code_and_param = (ErrorCode.USAGE_BILLED_TWICE, "items[0][price][recurring][meter]")
        assert refused(lambda log=log, second=second: log.subscribe(second)) == code_and_param
        assert log.subscriptions == (first,)
    each = engine(METERS, [old, new], policy=mc.MeterPolicy(overlap="each_counts_all"))
    assert len(each.subscriptions) == 2


def test_the_second_subscription_is_told_what_to_do():
    """The sentence names the other subscription, its life and the two ways out; then its end can be
    told first.
    """
    old, new = two(ended_at=None)
    log = mc.MeterLog(METERS, [old])
    with pytest.raises(mc.InvalidValueError) as refusal:
        log.subscribe(new)
    assert str(refusal.value) == (
        "items[0][price][recurring][meter]: expected a meter that no other subscription of "
        "customer 'c' bills at the same "
        "time, but 'old' bills it from 2026-06-01T00:00:00Z: tell its end first, or say "
        "overlap='each_counts_all' in the "
        "policy, received 'm' (str)"
    )
    log.subscribe(old.canceled(day(15)))
    log.subscribe(new)
    assert refused(lambda: log.subscribe(old))[0] == ErrorCode.USAGE_BILLED_TWICE


def test_other_customers_and_meters_do_not_overlap():
    """Another customer's subscription, and one on another meter, bill other events; a newer version
    is not its own rival.
    """
    old, _ = two(ended_at=None)
    log = mc.MeterLog(METERS, [old])
    log.subscribe(
        attrs.evolve(old, id="other", customer="d", items=[attrs.evolve(old.items[0], id="x")])
    )
    log.subscribe(
        attrs.evolve(
            old, id="third", items=[item(price(recurring=mc.Recurring(meter="other")), "y")]
        )
    )
    log.subscribe(old)
    assert len(log.subscriptions) == 3

"""Subscriptions: values whose periods tile their life, cut where it starts and ends."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from itertools import islice

import pytest
from builders import DAY, FEB, JAN, MAR, START, priced, subscribed

from metering_core import (
    BillingPeriod,
    InvoicingError,
    Price,
    Recurring,
    Subscription,
    SubscriptionItem,
)
from metering_core.periods import SECONDS_MIN
from metering_core.subscriptions import BillingThresholds

MID_JAN, MID_FEB = START + 14 * DAY, FEB.start_seconds + 14 * DAY


@pytest.mark.parametrize(
    ("life", "at", "period"),
    [
        ({}, START - 1, None),  # Without a start date it begins at its anchor.
        (
            {"start_date": SECONDS_MIN},
            START - 1,
            BillingPeriod(START - 31 * DAY, START),
        ),  # December: it has always been.
        ({}, START, JAN),
        ({}, JAN.end, FEB),
        ({"start_date": MID_JAN}, MID_JAN - 1, None),
        ({"start_date": MID_JAN}, MID_JAN, BillingPeriod(MID_JAN, JAN.end)),
        ({"start_date": MID_JAN}, JAN.end, FEB),
        ({"ended_at": MID_FEB}, JAN.end, BillingPeriod(FEB.start, MID_FEB)),
        ({"ended_at": MID_FEB}, MID_FEB - 1, BillingPeriod(FEB.start, MID_FEB)),
        ({"ended_at": MID_FEB}, MID_FEB, None),
        ({"ended_at": FEB.end}, FEB.end_seconds - 1, FEB),
        (
            {"start_date": MID_JAN, "ended_at": MID_JAN + 9},
            MID_JAN,
            BillingPeriod(MID_JAN, MID_JAN + 9),
        ),
    ],
)
def test_periods_are_cut_to_the_life(life, at, period):
    """The period of a moment is the cycle's, cut where the subscription starts (inclusive) and ends
    (exclusive).
    """
    assert subscribed(**life).period_at(at) == period


@pytest.mark.parametrize(
    ("life", "at", "is_alive"),
    [
        ({"start_date": MID_JAN, "ended_at": MID_FEB}, MID_JAN - 1, False),
        ({"start_date": MID_JAN, "ended_at": MID_FEB}, MID_JAN, True),
        (
            {"start_date": MID_JAN, "ended_at": MID_FEB},
            datetime(2024, 2, 14, 23, 59, 59, 999_999, tzinfo=UTC),
            True,
        ),
        ({"start_date": MID_JAN, "ended_at": MID_FEB}, MID_FEB, False),
        ({"start_date": MID_JAN}, datetime.max.replace(tzinfo=UTC), True),
        ({}, START - 1, False),
        ({}, START, True),
    ],
)
def test_a_life_holds_its_start_and_not_its_end(life, at, is_alive):
    """A subscription is alive from its start or else its anchor (inclusive) to its end (exclusive),
    for ever without one.
    """
    assert subscribed(**life).is_alive_at(at) is is_alive


def test_periods_tile_the_life():
    """From any moment on, the periods follow each other without gap or overlap until the end."""
    found = list(subscribed(start_date=MID_JAN, ended_at=MID_FEB + 29 * DAY).periods_from(0))
    assert found == [
        BillingPeriod(MID_JAN, JAN.end),
        FEB,
        BillingPeriod(MAR.start, MID_FEB + 29 * DAY),
    ]
    assert list(islice(subscribed().periods_from(JAN.end), 2)) == [FEB, MAR]
    assert list(subscribed(ended_at=FEB.end).periods_from(START)) == [JAN, FEB]
    assert list(subscribed(ended_at=START + 5).periods_from(MAR.start)) == []


def test_the_wall_clock_of_a_zone_is_kept():
    """Boundaries in a zone stay at local midnight over daylight saving: Berlin's March 2024 is an
    hour short.
    """
    anchor = datetime(2024, 2, 29, 23, tzinfo=UTC)  # 1 March, 00:00 in Berlin
    period = subscribed(billing_cycle_anchor=anchor, timezone="Europe/Berlin").period_at(anchor)
    assert period.end - period.start == timedelta(days=31, hours=-1)


@pytest.mark.parametrize(
    ("period", "now", "code"),
    [
        (JAN, JAN.end_seconds - 1, "period_not_ended"),
        (BillingPeriod(START, START + DAY), MAR.end, "period_not_of_subscription"),
        (BillingPeriod(START + 1, JAN.end), MAR.end, "period_not_of_subscription"),
        (BillingPeriod(START, FEB.end), MAR.end, "period_not_of_subscription"),
        (MAR, MAR.end, "period_not_of_subscription"),
        (FEB, MAR.end, "period_not_of_subscription"),
    ],
)
def test_only_own_periods_that_ended_are_billed(period, now, code):
    """A period must be one of the subscription's, as cut by its life, and over; its end itself is
    late enough.
    """
    subscription = subscribed(ended_at=MID_FEB)
    with pytest.raises(InvoicingError) as caught:
        subscription.require_ended(period, now)
    assert caught.value.code == code
    subscription.require_ended(JAN, JAN.end)


def test_subscriptions_survive_json():
    """A subscription written in Stripe's shape, through JSON text, reads back as the same
    subscription.
    """
    items = [
        SubscriptionItem("si_seats", priced(mode=None, id="seats"), 3),
        SubscriptionItem("si_0", priced(), billing_thresholds=BillingThresholds(usage_gte=5)),
    ]
    subscription = Subscription(
        "sub", items, START, currency="USD", timezone="Europe/Berlin", start_date=START + 1, ended_at=MAR.end,
        billing_thresholds=BillingThresholds(amount_gte=100),
    )  # fmt: skip
    assert Subscription.from_dict(json.loads(json.dumps(subscription.to_dict()))) == subscription
    assert Subscription.from_dict(subscribed().to_dict()) == subscribed()


@pytest.mark.parametrize("wrap", [list, lambda items: {"object": "list", "data": items}])
@pytest.mark.parametrize("spelling", ["price", "plan"])
def test_stripes_spellings_are_read(wrap, spelling):
    """Items come as a list or Stripe's list object, prices as objects, plans or known ids, an end
    as cancel_at.
    """
    price = priced(id="p1", mode=None)
    data = {
        "id": "sub",
        "billing_cycle_anchor": START,
        "cancel_at": MAR.end_seconds,
        "status": "active",
    }
    for given in ("p1", price.to_dict()):
        items = wrap([{"id": "si_0", "quantity": 2, spelling: given}])
        subscription = Subscription.from_dict({**data, "items": items}, {"p1": price})
        assert subscription == Subscription(
            "sub", [SubscriptionItem("si_0", price, 2)], START, ended_at=MAR.end
        )


def test_quantities_belong_to_licensed_items():
    """A licensed item has a quantity, 1 unless said; a metered one has none."""
    assert SubscriptionItem("si", priced(mode=None)).quantity == 1
    assert SubscriptionItem("si", priced(mode=None), 0).quantity == 0
    assert SubscriptionItem("si", priced()).quantity is None
    assert not SubscriptionItem("si", priced(mode=None)).is_metered


def test_one_currency_and_one_interval():
    """The currency is that of the prices, in lower case; several items share interval and count."""
    yearly = Recurring(interval="year")
    subscription = subscribed(
        priced(recurring=yearly),
        Price.per_unit("q", currency="USD", unit_amount=1, recurring=yearly),
    )
    assert subscription.currency == "usd"
    assert subscription.period_at(START) == BillingPeriod(START, datetime(2025, 1, 1, tzinfo=UTC))
    assert subscription.item("si_1").price.id == "q"
    assert subscription.invoice_id(JAN) == f"in_sub_{START}"


def test_cancelling_makes_a_new_value():
    """A canceled subscription is another value with an end; the old one is as it was."""
    subscription = subscribed()
    assert subscription.canceled(MID_FEB).ended_at == datetime(2024, 2, 15, tzinfo=UTC)
    assert subscription.ended_at is None

"""What a subscription owes for a billing period that it begins or ends in: licensed items and
levels, by the second.
"""

import json
import pickle
from datetime import UTC, datetime, timedelta, timezone
from fractions import Fraction

import attrs
import pytest
from builders import JAN, START

import metering_core as mc
from metering_core.bulk.lines import invoice_lines
from metering_core.columnar import ColumnarEvents
from metering_core.testing import laws

JUNE = datetime(2026, 6, 1, tzinfo=UTC)
JULY = datetime(2026, 7, 1, tzinfo=UTC)
LICENSED = mc.Recurring(usage_type="licensed")
SEAT = mc.Price.per_unit(
    "team",
    currency="usd",
    unit_amount=3000,
    nickname="Team",
    recurring=LICENSED,
    unit_label="seats",
)


def june(day, *clock):
    return datetime(2026, 6, day, *clock, tzinfo=UTC)


def licensed(model, **recurring):
    return mc.Price("p", "usd", model, mc.Recurring(usage_type="licensed", **recurring))


def billed(price, quantity=1, anchor=JUNE, at=None, **life):
    """Return the lines of the period that holds a moment, by default the first of the life."""
    subscription = mc.Subscription(
        "sub", [mc.SubscriptionItem("si", price, quantity)], anchor, **life
    )
    period = subscription.period_at(at or life.get("start_date") or anchor)
    log = mc.UsageLog([subscription])
    invoice = mc.finalize_invoice(subscription, log, period, now=period.end)
    laws.check_invoice_laws(invoice, subscription, log)
    return invoice.lines


@pytest.mark.parametrize(
    ("life", "share", "amount", "part"),
    [
        ({"start_date": june(16)}, "1/2", 1500, "15 of 30 days"),
        ({"ended_at": june(16)}, "1/2", 1500, "15 of 30 days"),
        ({"start_date": june(11), "ended_at": june(21)}, "1/3", 1000, "10 of 30 days"),
        ({"start_date": june(30, 12)}, "1/60", 50, "12 of 720 hours"),
        ({"ended_at": june(1, 1, 30)}, "1/480", 6, "90 of 43,200 minutes"),  # 6.25 cents
        (
            {"ended_at": june(1, 0, 7, 13)},
            "433/2592000",
            1,
            "433 of 2,592,000 seconds",
        ),  # 0.501 cents
        (
            {"ended_at": june(1, 0, 7, 11)},
            "431/2592000",
            0,
            "431 of 2,592,000 seconds",
        ),  # 0.499 cents
    ],
)
def test_a_seat_of_30_dollars_is_prorated_to_the_second(life, share, amount, part):
    """Stripe's default at the anchor of 1 June: 15.00 for the second half; the seconds of the life
    over those of June.
    """
    (line,) = billed(SEAT, **life)
    assert (line.amount, line.proration, line.exact) == (
        amount,
        Fraction(share),
        3000 * Fraction(share),
    )
    assert line.description == f"1 seats × Team (at USD 30.00 / month), {part}"
    assert json.loads(json.dumps(line.to_dict()))["proration"] == share


def test_56_of_91_days_of_a_quarter():
    """A quarter of USD 91 that ends after 56 of its 91 days costs USD 56.00."""
    price = licensed(mc.pricing.PerUnit(9100), interval_count=3)
    (line,) = billed(
        price, anchor=datetime(2026, 4, 1, tzinfo=UTC), ended_at=datetime(2026, 5, 27, tzinfo=UTC)
    )
    assert (line.amount, line.proration) == (5600, Fraction(56, 91))
    assert line.description.endswith(", 56 of 91 days")


@pytest.mark.parametrize(
    ("model", "quantity", "amounts"),
    [
        # 5 × 700 and 2 × 650 with a flat fee of 100 in the second tier, each line halved and
        # settled by itself.
        (
            mc.pricing.Graduated([mc.Tier(5, unit_amount=700), mc.Tier("inf", 650, 101)]),
            7,
            [1750, 650, 51],
        ),
        (mc.pricing.Volume([mc.Tier(5, unit_amount=700), mc.Tier("inf", 651, 10)]), 7, [2279, 5]),
        (mc.pricing.Package(1001, 5), 7, [1001]),
        (mc.pricing.Volume([mc.Tier("inf", flat_amount=4999)]), 0, [0, 2500]),
    ],
)
def test_tiers_packages_and_flat_fees_are_rated_whole_and_then_prorated(model, quantity, amounts):
    """The quantity is rated as for a whole period, so it reaches the same tiers; each charge is
    then cut, and settled once.
    """
    lines = billed(licensed(model), quantity, start_date=june(16))
    assert [line.amount for line in lines] == amounts
    assert {line.proration for line in lines} == {Fraction(1, 2)}
    assert sum(line.quantity for line in lines) == quantity


def test_a_month_with_a_clock_change_has_743_hours():
    """March 2026 in Berlin, from the 16th: 383 of 743 hours, so USD 3.83 of USD 7.43."""
    local = timezone(timedelta(hours=1))
    anchor, start = datetime(2026, 3, 1, tzinfo=local), datetime(2026, 3, 16, tzinfo=local)
    (line,) = billed(
        licensed(mc.pricing.PerUnit(743)), anchor=anchor, start_date=start, timezone="Europe/Berlin"
    )
    assert (line.amount, line.description) == (383, "1 × p (at USD 7.43 / month), 383 of 743 hours")


def test_a_whole_period_is_not_prorated():
    """Between the first period and the last nothing is cut, and the line says nothing of it."""
    (line,) = billed(SEAT, start_date=june(16), at=JULY)
    assert (line.amount, line.proration, line.period.cut_from, line.period.part) == (
        3000,
        None,
        None,
        "",
    )
    assert line.description == "1 seats × Team (at USD 30.00 / month)"
    assert line.to_dict()["proration"] is None


def test_usage_is_billed_as_it_was_used():
    """A sum in half a month is the sum: only what was agreed for a whole period is prorated."""
    calls = mc.Price.per_unit("calls", currency="usd", unit_amount=100)
    items = [mc.SubscriptionItem("si", calls), mc.SubscriptionItem("seat", SEAT)]
    subscription = mc.Subscription("sub", items, JUNE, start_date=june(16))
    log = mc.UsageLog([subscription])
    log.record("si", 10, now=june(20))
    used, seat = mc.preview_invoice(subscription, log, now=june(20)).lines
    assert (used.amount, used.proration, used.description) == (
        1000,
        None,
        "10 × calls (at USD 1.00 / month)",
    )
    assert seat.amount == 1500


def test_a_period_of_the_caller_is_billed_as_the_subscriptions_own():
    """A period that was made of a start and an end, or that says something else than the cycle, is
    prorated all the same.
    """
    subscription = mc.Subscription(
        "sub", [mc.SubscriptionItem("si", SEAT)], JUNE, start_date=june(16)
    )
    bare = mc.BillingPeriod(june(16), JULY)
    for period in (bare, attrs.evolve(bare, cut_from=bare), subscription.period_at(june(20))):
        invoice = mc.finalize_invoice(subscription, mc.UsageLog([subscription]), period, now=JULY)
        assert (invoice.total, invoice.lines[0].proration, invoice.period.share) == (
            1500,
            Fraction(1, 2),
            Fraction(1, 2),
        )
    assert (
        subscription.in_cycle(mc.BillingPeriod(june(16), datetime(2026, 7, 2, tzinfo=UTC))).cut_from
        is None
    )


def test_the_explanation_says_it():
    """How much of the period, in days, and the multiplication."""
    (line,) = billed(SEAT, 2, start_date=june(16))
    assert str(mc.explain(line)).splitlines()[2:] == [
        "  Price: 2 × USD 30.00 = USD 60.00 exactly.",
        (
            "  Proration: 15 of 30 days of the billing period are billed, to the second; USD "
            "60.00 × 1/2 = USD 30.00 exactly."
        ),
        "  Rounding: none needed; the line is USD 30.00.",
    ]
    stored = attrs.evolve(line, period=mc.BillingPeriod(line.period.start, line.period.end))
    assert "Proration: 1/2 of the billing period are billed" in str(mc.explain(stored))


def test_the_law_of_invoices_sees_a_line_that_is_not_prorated():
    """A bill of the whole amount, or of the half without saying so, is refused by the law."""
    subscription = mc.Subscription(
        "sub", [mc.SubscriptionItem("si", SEAT)], JUNE, start_date=june(16)
    )
    log = mc.UsageLog([subscription])
    invoice = mc.preview_invoice(subscription, log, now=june(20))
    (line,) = invoice.lines
    whole = attrs.evolve(line, proration=None, exact=line.charge.amount, amount=3000)
    for wrong in (
        whole,
        attrs.evolve(line, proration=None),
        attrs.evolve(line, proration=Fraction(1, 3)),
    ):
        with pytest.raises(laws.LawBrokenError):
            laws.check_invoice_laws(attrs.evolve(invoice, lines=(wrong,)), subscription, log)


@pytest.mark.parametrize(
    "cut_from",
    ["June", mc.BillingPeriod(JUNE, june(15)), mc.BillingPeriod(june(17), JULY), 1],
    ids=str,
)
def test_a_period_is_cut_from_one_that_holds_it(cut_from):
    """What does not hold the period is no whole of it."""
    with pytest.raises(mc.InvalidValueError) as refusal:
        mc.BillingPeriod(june(16), JULY, cut_from=cut_from)
    assert (refusal.value.code, refusal.value.param) == (
        mc.ErrorCode.PARAMETER_INVALID_OBJECT,
        "cut_from",
    )


def test_what_a_period_was_cut_from_survives_pickling_and_makes_no_other_period():
    """Equal, with one hash, whatever they were cut from: periods are keys."""
    cut = mc.BillingPeriod(START + 60, JAN.end, cut_from=JAN)
    assert cut == mc.BillingPeriod(START + 60, JAN.end)
    assert hash(cut) == hash(mc.BillingPeriod(START + 60, JAN.end))
    assert pickle.loads(pickle.dumps(cut)).cut_from == JAN  # noqa: S301 - our own


# Levels -------------------------------------------------------------------------------------------

STORAGE = mc.Meter("m", "storage", "weighted_sum")
LEVEL = mc.Price.per_unit("gbm", currency="usd", unit_amount=100, recurring=mc.Recurring(meter="m"))


def stored(**life):
    return mc.Subscription("sub", [mc.SubscriptionItem("si", LEVEL)], JUNE, customer="c", **life)


def change(value, at):
    return mc.MeterEvent("storage", {"stripe_customer_id": "c", "value": str(value)}, timestamp=at)


def kept(engine, subscription, *changes):
    log = engine([STORAGE], [subscription], policy=mc.MeterPolicy.history())
    log.append([change(*one) for one in changes], now=JULY)
    return log


@pytest.mark.parametrize("engine", [mc.MeterLog, ColumnarEvents])
@pytest.mark.parametrize(
    ("life", "changes", "quantity", "amount"),
    [
        (
            {"start_date": june(30)},
            [(10, JUNE)],
            "1/3",
            33,
        ),  # 10 GB on one day of 30, at USD 1.00 for a month
        ({"ended_at": june(16)}, [(10, JUNE)], "5", 500),
        ({"ended_at": june(16)}, [(10, june(11))], "5/3", 167),  # five days of 30
        ({"start_date": june(11), "ended_at": june(21)}, [(6, june(6)), (-6, june(16))], "1", 100),
        ({}, [(10, june(16))], "5", 500),
    ],
)
def test_a_level_is_averaged_over_the_whole_period(engine, life, changes, quantity, amount):
    """A level counts for the time that it was there, whether usage or the life of the subscription
    ends it.
    """
    subscription = stored(**life)
    log = kept(engine, subscription, *changes)
    period = subscription.period_at(life.get("start_date", JUNE))
    (columns,) = invoice_lines([subscription], log, period.start).lines.amounts.tolist()
    invoice = mc.finalize_invoice(subscription, log, period, now=JULY)
    laws.check_invoice_laws(invoice, subscription, log)
    (line,) = invoice.lines
    assert (line.total_usage, line.amount, columns) == (Fraction(quantity), amount, amount)
    assert mc.summarize(subscription.items[0], log, period).total_usage == Fraction(quantity)


def test_a_level_of_a_part_of_a_period_says_so():
    """The line and the explanation name the part; the meter's own summary of that day is what the
    level was on it.
    """
    subscription = stored(start_date=june(30))
    log = kept(mc.MeterLog, subscription, (10, JUNE))
    (line,) = mc.preview_invoice(subscription, log, now=june(30)).lines
    assert line.description == "0.333333333333 × gbm (at USD 1.00 / month), 1 of 30 days"
    assert (
        "Quantity: the average level, which each meter event holds until the next one and "
        "the last until the end, "
        "for item si in 2026-06-30T00:00:00Z to 2026-07-01T00:00:00Z, averaged over the "
        "whole billing period, "
        "of which 1 of 30 days are billed, is 0.333333333333 (exactly 1/3)."
    ) in str(mc.explain(line))
    (day,) = mc.event_summaries(log, "m", "c", june(30), JULY)
    assert day.aggregated_value == 10


def test_what_is_unbilled_of_a_level_is_in_the_units_of_the_bill():
    """10 GB more, told late, are a third of a GB more of June, in the log and in the one that was
    restored.
    """
    subscription = stored(start_date=june(30))
    log = kept(mc.MeterLog, subscription, (10, JUNE))
    mc.finalize_invoice(subscription, log, mc.BillingPeriod(june(30), JULY), now=JULY)
    restored = mc.restore_meter_log(json.loads(json.dumps(mc.snapshot(log))))
    for one in (log, restored):
        assert one.unbilled("sub") == []
        one.append([change(10, JUNE)], now=JULY)
        (delta,) = one.unbilled("sub")
        assert (delta.billed, delta.measured, delta.quantity) == (
            Fraction(1, 3),
            Fraction(2, 3),
            Fraction(1, 3),
        )

"""Invoices: lines settled one by one, tables a person reads, the same from any source and under any
decimal context.
"""

from __future__ import annotations

import decimal
import json
import sys
import typing
from decimal import Decimal
from fractions import Fraction

import pytest
from builders import DAY, FEB, JAN, START, priced, subscribed, used

from metering_core import (
    BillingPeriod,
    Money,
    Price,
    Recurring,
    Subscription,
    SubscriptionItem,
    Tier,
    UsageLog,
    explain,
    finalize_invoice,
    invoice_all,
    preview_invoice,
    rate,
    restore,
    snapshot,
)
from metering_core.invoicing import describe_charge, grouped, line_fields, number_field
from metering_core.money import down, up
from metering_core.pricing import Charge, Graduated, Package, PerUnit, Volume

NOW = START + DAY


def lines(model, quantity, **options):
    subscription = subscribed(priced(model, **options))
    return preview_invoice(
        subscription, used((START, quantity), subscription=subscription), now=NOW
    ).lines


def everything():
    """Return a subscription with every pricing model, licensed and metered, and a log of its
    usage.
    """
    api = priced(
        Graduated([Tier(1000, 0, 900), Tier("inf", "3.6")]),
        id="api",
        nickname="API calls",
        unit_label="calls",
    )
    mail = priced(Package("12.5", 100), "max", id="mail", product="Mail")
    disk = priced(Volume([Tier(10, 50), Tier(None, "33.333", 5)]), "last_during_period", id="disk")
    seats = priced(PerUnit(1500), None, id="seats", nickname="Seats")
    prices = {"api": (api, None), "mail": (mail, None), "disk": (disk, None), "seats": (seats, 3)}
    subscription = Subscription(
        "sub_1",
        [SubscriptionItem(item, price, count) for item, (price, count) in prices.items()],
        START,
    )
    log = UsageLog([subscription])
    for item, quantity in (("api", 1031), ("mail", 201), ("mail", 0), ("disk", 11)):
        log.record(item, quantity, timestamp=START + 60, now=NOW)
    return subscription, log


TABLE = """\
Invoice in_sub_1_1704067200 (finalized)
Subscription sub_1, from 2024-01-01 00:00 to 2024-02-01 00:00 UTC (end excluded)

Description                                           Quantity     Amount
-------------------------------------------------------------------------
1,000 calls × API calls (Tier 1 at USD 0.00 / month)     1,000   USD 0.00
API calls (Tier 1 flat fee at USD 9.00 / month)              0   USD 9.00
31 calls × API calls (Tier 2 at USD 0.036 / month)          31   USD 1.12
201 × Mail (at 3 × USD 0.125 per 100 / month)              201   USD 0.38
11 × disk (Tier 2 at USD 0.33333 / month)                   11   USD 3.67
disk (Tier 2 flat fee at USD 0.05 / month)                   0   USD 0.05
3 × Seats (at USD 15.00 / month)                             3  USD 45.00
-------------------------------------------------------------------------
Total                                                           USD 59.22"""


def test_an_invoice_reads_as_a_table():
    """31 x 3.6 = 111.6, so 112; 3 x 12.5, so 38; 11 x 33.333 = 366.663, so 367; 900 + 112 + 38 +
    367 + 5 + 4500 = 5922.
    """
    subscription, log = everything()
    invoice = finalize_invoice(subscription, log, JAN, now=JAN.end)
    assert str(invoice) == TABLE
    assert [line.amount for line in invoice.lines] == [0, 900, 112, 38, 367, 5, 4500]
    assert (invoice.total, invoice.subtotal, invoice.money) == (5922, 5922, Money(5922, "usd"))
    assert invoice.finalized_at == JAN.end


def hostile():
    """Return a decimal context that would round to three digits, upwards, and raises at every
    chance.
    """
    return decimal.Context(
        prec=3, rounding=decimal.ROUND_UP, Emax=3, Emin=-3, traps=list(decimal.Context().flags)
    )


def test_nothing_depends_on_the_ambient_decimal_context():
    """Prices, usage, bill, explanation and snapshot made under a hostile context are the same in
    every digit.
    """
    with decimal.localcontext(hostile()):
        subscription, log = everything()
        restored = restore(snapshot(log))
        invoice = finalize_invoice(subscription, restored, JAN, now=JAN.end)
        text, told = str(invoice), [str(explain(line)) for line in invoice.lines]
        written = json.dumps(invoice.to_dict())
    subscription, log = everything()
    again = finalize_invoice(subscription, log, JAN, now=JAN.end)
    assert (text, invoice) == (TABLE, again)
    assert told == [str(explain(line)) for line in again.lines]
    assert written == json.dumps(again.to_dict())


@pytest.mark.parametrize(
    ("currency", "unit", "quantity", "amount", "shown"),
    [
        ("jpy", "0.5", 1001, 501, "JPY 501"),  # 500.5, a half away from zero; no decimals
        ("kwd", "1.25", 41, 51, "KWD 0.051"),  # 51.25 thousandths
        ("usd", "0.4", 1, 0, "USD 0.00"),
        ("usd", "0.5", 1, 1, "USD 0.01"),
        ("isk", 100, 5, 500, "ISK 5"),  # two decimals at Stripe, none in ISO
    ],
)
def test_each_currency_has_its_own_minor_unit(currency, unit, quantity, amount, shown):
    """Amounts are settled to whole minor units of the currency and shown with its own decimals."""
    (line,) = lines(PerUnit(unit), quantity, currency=currency)
    assert (line.amount, str(line.money)) == (amount, shown)
    assert line.exact == Decimal(unit) * quantity


def test_every_line_is_settled_once():
    """A total is the sum of its settled lines: three times 0.3 cents come to nothing; up or down is
    the caller's choice.
    """
    subscription = subscribed(*(priced(PerUnit("0.3"), id=f"p{number}") for number in range(3)))
    log = UsageLog([subscription])
    for number in range(3):
        log.record(f"si_{number}", 1, now=NOW)
    totals = {
        name: preview_invoice(subscription, log, now=NOW, rounding=name).total
        for name in (up, down)
    }
    assert totals == {up: 3, down: 0}
    assert preview_invoice(subscription, log, now=NOW).total == 0
    assert preview_invoice(subscription, log, now=NOW, rounding=up).lines[0].rounding == "up"


def test_a_preview_and_an_invoice_have_the_same_lines():
    """A preview is a draft of the period up to its boundary; finalizing changes the status, not the
    lines.
    """
    subscription, log = everything()
    draft = preview_invoice(subscription, log, now=NOW)
    final = finalize_invoice(subscription, log, JAN, now=FEB.end)
    assert (draft.status, draft.finalized_at, final.status, final.finalized_at) == (
        "draft",
        None,
        "finalized",
        FEB.end,
    )
    assert (draft.lines, draft.id, draft.period) == (final.lines, final.id, JAN)
    assert [line.id for line in draft.lines] == [
        f"in_sub_1_{START}_{number}" for number in range(1, 8)
    ]
    assert final == finalize_invoice(subscription, log, JAN, now=FEB.end_seconds + 99)


def test_zero_usage_is_rated_in_the_first_tier():
    """A period without usage has the first tier's unit line of nothing and its flat amount."""
    subscription = subscribed(priced(Graduated([Tier(5, 700, 900), Tier(None, 1, 1)])))
    assert [
        line.amount
        for line in preview_invoice(subscription, UsageLog([subscription]), now=NOW).lines
    ] == [0, 900]


@pytest.mark.parametrize(
    ("recurring", "terms"),
    [
        (None, "at USD 0.02 / month"),
        (Recurring(interval="year"), "at USD 0.02 / year"),
        (Recurring(interval="week", interval_count=2), "at USD 0.02 / 2 weeks"),
    ],
)
def test_lines_say_how_often(recurring, terms):
    """A description ends with the interval; more than one is counted in the plural."""
    subscription = subscribed(priced(PerUnit(2), recurring=recurring))
    log = used((START, 1234), subscription=subscription)
    assert (
        preview_invoice(subscription, log, now=START).lines[0].description
        == f"1,234 × price ({terms})"
    )


def test_a_one_time_price_has_no_interval():
    """What does not recur is described without an interval."""
    price = Price("once", "usd", PerUnit(2), None)
    assert describe_charge(price, rate(price, 3).charges[0]) == "3 × once (at USD 0.02)"


class Steps:
    """A model of a user's own: 2.5 minor units a started thousand."""

    def charges(self, quantity):
        steps = -(-quantity // 1000)
        return [
            Charge("package", quantity, None, Decimal("2.5") * steps),
            Charge("flat", 0, Decimal(7), Decimal(7), label="Service"),
        ]


def test_a_users_own_model_makes_lines():
    """Charges of a model of the user's own become settled lines with usual words, or its own
    label.
    """
    first, second = lines(Steps(), 2001)
    assert [(line.description, line.quantity, line.amount) for line in (first, second)] == [
        ("2,001 × price ( / month)", 2001, 8),
        ("Service", 0, 7),
    ]
    assert first.to_dict()["charge"]["unit_amount"] is None


def test_an_invoice_is_written_for_json():
    """Unix seconds, whole minor units, exact decimals as strings, in a stable order."""
    (line,) = lines(Package("12.5", 100, "down"), 250, id="mail")
    assert json.loads(json.dumps(line.to_dict())) == {
        "id": f"in_sub_{START}_1", "subscription_item": "si_0", "price": "mail",
        "description": "250 × mail (at 2 × USD 0.125 per 100 / month)", "currency": "usd",
        "period": {"start": START, "end": JAN.end_seconds}, "quantity": 250, "exact": "25",
        "amount": 25, "charge": {
            "kind": "package", "quantity": 250, "unit_amount": "12.5", "amount": "25",
            "tier": None, "packages": 2, "divide_by": 100, "label": None,
        },
        "total_usage": 250, "aggregate_usage": "sum", "rounding": "half_up", "proration": None,
        "before": None, "prices": {"mail": line.price.to_dict()},
    }  # fmt: skip
    subscription, log = everything()
    data = finalize_invoice(subscription, log, JAN, now=JAN.end).to_dict()
    assert [data[key] for key in ("subscription", "status", "currency", "subtotal", "total")] == [
        "sub_1",
        "finalized",
        "usd",
        5922,
        5922,
    ]
    assert data["lines"][-1]["aggregate_usage"] is None


class Halves:
    """An engine of somebody's own that meters decimals and keeps no records."""

    def partial(self, item, period):
        return Decimal("2.5")

    def partials(self, requests):
        return [self.partial(item, period) for item, period in requests]


def test_any_engine_can_be_billed():
    """What answers the protocol is billed, decimal quantities included; finalizing asks it to close
    nothing.
    """
    subscription = subscribed(priced(PerUnit(3)))
    invoice = finalize_invoice(subscription, Halves(), JAN, now=JAN.end)
    assert (invoice.lines[0].quantity, invoice.total, invoice.finalized_at) == (
        Decimal("2.5"),
        8,
        JAN.end,
    )
    assert invoice.lines[0].to_dict()["quantity"] == "2.5"
    assert "2.5 × price" in str(invoice)
    assert invoice.lines[0].usage is None


class Shares:
    """An engine of somebody's own that meters averages and keeps no records."""

    def __init__(self, quantity):
        self.quantity = quantity

    def partial(self, item, period):
        return self.quantity

    def partials(self, requests):
        return [self.partial(*request) for request in requests]


def test_a_line_is_exact_inside_and_shows_twelve_places():
    """2/3 units at 10 cents are 20/3 cents, so 7; the line keeps the share, written or not, and
    what is shown of the quantity is cut.
    """
    invoice = finalize_invoice(
        subscribed(priced(PerUnit(10))), Shares(Fraction(2, 3)), JAN, now=JAN.end
    )
    (line,) = invoice.lines
    assert (line.quantity, line.total_usage, line.exact, line.amount) == (
        Fraction(2, 3),
        Fraction(2, 3),
        Fraction(20, 3),
        7,
    )
    keys = ("quantity", "total_usage", "exact", "amount")
    assert [line.to_dict()[key] for key in keys] == ["2/3", "2/3", "20/3", 7]
    assert [line_fields(line)[key] for key in keys] == ["0.666666666666"] * 2 + ["20/3", 7]
    assert line.description == "0.666666666666 × price (at USD 0.10 / month)"
    assert "  0.666666666666  USD 0.07" in str(invoice)


def test_what_is_charged_is_not_what_is_shown():
    """2/3 units at 0.75 cents are half a cent, paid as 1; the quantity shown would come to a hair
    less, and to nothing.
    """
    (line,) = finalize_invoice(
        subscribed(priced(PerUnit("0.75"))), Shares(Fraction(2, 3)), JAN, now=JAN.end
    ).lines
    assert (line.exact, line.amount) == (Decimal("0.5"), 1)
    assert Decimal(line_fields(line)["quantity"]) * Decimal("0.75") < Decimal("0.5")
    assert line.to_dict()["exact"] == "0.5"


@pytest.mark.parametrize(
    ("number", "text", "field"),
    [
        (1234, "1,234", 1234), (Decimal("1234.5"), "1,234.5", "1234.5"),
        (Fraction(10_000, 3), "3,333.333333333333", "3333.333333333333"),
        (Decimal("0.1234567890129"), "0.123456789012", "0.123456789012"), (Decimal("7.0000000000009"), "7", 7),
        (Fraction(1, 10**13), "0", 0), (Decimal("-0.5"), "-0.5", "-0.5"), (-1234, "-1,234", -1234), (Decimal("2.0"), "2", 2),
        (10**40, f"{10**40:,}", 10**40), (Fraction(-4000, 3), "-1,333.333333333333", "-1333.333333333333"),
    ],
)  # fmt: skip
def test_quantities_are_shown_with_at_most_twelve_places(number, text, field):
    """People and JSON get the same digits, cut toward zero; JSON gets a number where the digits
    shown are whole.
    """
    with decimal.localcontext(hostile()):
        assert (grouped(number), number_field(number)) == (text, field)


def test_stubs_are_billed_as_they_are():
    """A subscription of ten seconds is billed for that stretch: all of its usage, and of what it
    agreed for a month nothing.
    """
    start, end = START + 10, START + 20
    subscription = Subscription(
        "sub", [SubscriptionItem("si_0", priced()), SubscriptionItem("seat", priced(PerUnit(100), None), 2)], START,
        start_date=start, ended_at=end,
    )  # fmt: skip
    log = used((start, 5), (end - 1, 7), subscription=subscription)
    invoice = finalize_invoice(subscription, log, BillingPeriod(start, end), now=end)
    assert [line.amount for line in invoice.lines] == [12, 0]


def test_bills_do_not_look_protocols_up():
    """What an engine can do is asked attribute by attribute: isinstance on a protocol took half of
    a preview's time.
    """
    subscription, log = everything()
    asked = []

    def looking(frame, event, _):
        if (
            event == "call"
            and frame.f_code.co_filename == typing.__file__
            and frame.f_code.co_name == "__instancecheck__"
        ):
            asked.append(frame.f_back.f_code.co_name)

    sys.setprofile(looking)
    try:
        preview_invoice(subscription, log, now=NOW)
        invoice_all([subscription], log, NOW)
        finalize_invoice(subscription, log, JAN, now=FEB.start)
    finally:
        sys.setprofile(None)
    assert asked == []

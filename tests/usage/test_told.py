"""What closing bills is what the log was told; no telling bills anew what was closed, or what was
there before an item.
"""

from __future__ import annotations

from datetime import timedelta

import attrs
import pytest
from builders import DAY, FEB, JAN, MAR, START

import metering_core as mc
from metering_core.billing_run import invoice_all
from metering_core.columnar import ColumnarEvents, ColumnarUsage, EventBatch
from metering_core.errors import ErrorCode

METERS = [mc.Meter("m", "calls"), mc.Meter("other", "others")]
CALLED = mc.Recurring(meter="m")
LICENSED = mc.Recurring(usage_type="licensed")


def item(id="si", amount=1, recurring=None, quantity=None, **options):
    """Return an item at some cents a unit, of usage records unless said otherwise."""
    currency = options.pop("currency", "usd")
    price = mc.Price.per_unit(
        f"p_{id}",
        currency=currency,
        unit_amount=amount,
        recurring=recurring or mc.Recurring(),
        **options,
    )
    return mc.SubscriptionItem(id, price, quantity)


RECORDED, METERED, SEATS = item(), item("call", recurring=CALLED), item("seat", 30, LICENSED, 3)


def of(*items, anchor=START, **options):
    """Return a subscription of the customer from January 2024 on."""
    return mc.Subscription("sub", items, anchor, **{"customer": "c", **options})


def event(value, at=START + DAY, name="calls"):
    """Return an event of the customer."""
    return mc.MeterEvent(name, {"stripe_customer_id": "c", "value": value}, timestamp=at)


def records(engine, *items):
    """Return usage of 10 units in January."""
    log = engine([of(*items)])
    log.append([mc.UsageRecord("si", 10, START + DAY)], now=START + DAY)
    return log


def events(*items, engine=mc.MeterLog, **options):
    """Return a log of meters with an event of 10 in January."""
    log = engine(
        METERS, [of(*items)], policy=mc.MeterPolicy.history(late_usage="carry_forward"), **options
    )
    log.append([event("10")], now=START + DAY)
    return log


def both(*items):
    """Return both, told of one subscription."""
    return mc.CombinedUsage(records(mc.UsageLog, *items), events(*items))


def logs_of(usage):
    """Return the logs that some usage is made of."""
    return [usage.records, usage.events] if isinstance(usage, mc.CombinedUsage) else [usage]


def refused(ask):
    """Return the code and the param with which something is refused."""
    with pytest.raises(mc.InvalidValueError) as refusal:
        ask()
    return refusal.value.code, refusal.value.param


# A version that was not told ----------------------------------------------------------------------

KINDS = {
    "records": (lambda *items: records(mc.UsageLog, *items), RECORDED),
    "columns": (lambda *items: records(ColumnarUsage, *items), RECORDED),
    "events": (events, METERED),
    "both, of records": (lambda one, seats: both(one, METERED, seats), RECORDED),
    "both, of events": (lambda one, seats: both(one, RECORDED, seats), METERED),
}
MIDDLE = START + 10 * DAY


def versions(told):
    """Yield versions that differ from the one that was told, each in one thing that makes a bill,
    with the field.
    """
    one, *rest = told.items
    place = len(told.items) - 1
    yield attrs.evolve(told, customer="d"), "customer"
    euros = [
        attrs.evolve(each, price=attrs.evolve(each.price, currency="eur")) for each in told.items
    ]
    yield attrs.evolve(told, items=euros, currency="eur"), "currency"
    yield (
        attrs.evolve(told, billing_cycle_anchor=START - DAY, start_date=START),
        "billing_cycle_anchor",
    )
    yield attrs.evolve(told, timezone="Europe/Berlin", start_date=START), "timezone"
    yield attrs.evolve(told, start_date=MIDDLE), "start_date"
    yield told.canceled(MIDDLE + DAY), "ended_at"
    yield attrs.evolve(told, items=[attrs.evolve(one, id="new"), *rest]), "items[0]"
    yield (
        attrs.evolve(told, items=[*told.items, attrs.evolve(SEATS, id="new")]),
        f"items[{place + 1}]",
    )
    dearer = attrs.evolve(one.price, model=mc.pricing.PerUnit(2))
    yield attrs.evolve(told, items=[attrs.evolve(one, price=dearer), *rest]), "items[0][price]"
    yield (
        attrs.evolve(told, items=[*told.items[:-1], attrs.evolve(SEATS, quantity=4)]),
        f"items[{place}][quantity]",
    )
    yield attrs.evolve(told, items=told.items[:-1]), "items"


def told_to(usage):
    """Return what some usage was told, the item in question first and the seats last."""
    return logs_of(usage)[0].subscriptions[0]


@pytest.mark.parametrize("bill", ["finalize_invoice", "invoice_all"])
@pytest.mark.parametrize(("made", "first"), KINDS.values(), ids=KINDS)
def test_a_version_that_was_not_told_is_not_finalized(made, first, bill):
    """Each thing that makes a bill is compared, the field is named, and nothing is closed, kept or
    changed.
    """
    usage = made(first, SEATS)
    told = told_to(usage)
    before = [mc.snapshot(log) for log in logs_of(usage) if not isinstance(log, ColumnarUsage)]
    for version, param in versions(told):
        period = version.period_at(MIDDLE)

        def finalize(version=version, period=period):
            if bill == "invoice_all":
                return invoice_all([version], usage, MIDDLE, now=MAR.end)
            return mc.finalize_invoice(version, usage, period, now=MAR.end)

        assert refused(finalize) == (ErrorCode.CHANGE_NOT_BILLABLE, param)
        assert usage.stored_invoice("sub", JAN) is None
    assert [
        mc.snapshot(log) for log in logs_of(usage) if not isinstance(log, ColumnarUsage)
    ] == before
    billed = mc.finalize_invoice(told, usage, JAN, now=JAN.end)
    assert usage.stored_invoice("sub", JAN) == billed
    for version, _ in versions(told):  # What was billed is returned, whatever version is given.
        if version.period_at(START) == JAN:
            assert mc.finalize_invoice(version, usage, JAN, now=MAR.end) == billed


def test_the_refusal_says_what_to_do():
    """The sentence names the field, what was told, and the two ways out; so does that of a
    moment.
    """
    log = records(mc.UsageLog, RECORDED)
    told = (
        "as the usage was told (tell it this version first: log.subscribe(...), of files "
        "or a cluster subscriptions=; or bill "
        "the version it has)"
    )
    for version, expected, received in (
        (
            of(item(amount=2)),
            "items[0][price]: expected 'p_si' on the terms that were told",
            "'p_si' (str)",
        ),
        (of(RECORDED, ended_at=MIDDLE), "ended_at: expected None", "'2024-01-11T00:00:00Z' (str)"),
        (
            of(RECORDED, start_date=MIDDLE),
            "start_date: expected 2024-01-01T00:00:00Z",
            "'2024-01-11T00:00:00Z' (str)",
        ),
        (of(RECORDED, customer=None), "customer: expected 'c'", "None"),
        (of(item("b")), "items[0]: expected one of the items 'si'", "'b' (str)"),
    ):
        with pytest.raises(mc.InvalidValueError) as refusal:
            invoice_all([version], log, version.start_date, now=JAN.end)
        assert str(refusal.value) == f"{expected}, {told}, received {received}"


@pytest.mark.parametrize(("made", "first"), KINDS.values(), ids=KINDS)
def test_names_and_order_are_no_terms(made, first):
    """A version with other names, labels and metadata, its items in another order, is billed as the
    one that was told.
    """
    usage = made(first, SEATS)
    told = told_to(usage)
    named = [
        attrs.evolve(one, price=attrs.evolve(one.price, id="renamed", nickname="Units"))
        for one in told.items[::-1]
    ]
    version = attrs.evolve(told, items=named)
    billed = mc.finalize_invoice(version, usage, JAN, now=JAN.end)
    assert sorted(line.amount for line in billed.lines) == sorted(
        [10] * (len(told.items) - 1) + [90]
    )


@pytest.mark.parametrize(("made", "first"), KINDS.values(), ids=KINDS)
def test_a_preview_asks_what_if(made, first):
    """A preview bills a version that nobody told, and stores nothing; told, the same version is
    finalized.
    """
    usage = made(first, SEATS)
    told = told_to(usage)
    version = attrs.evolve(
        told,
        items=[
            attrs.evolve(first, price=attrs.evolve(first.price, model=mc.pricing.PerUnit(2))),
            *told.items[1:],
        ],
    )
    preview = mc.preview_invoice(version, usage, now=MIDDLE)
    assert preview.total == mc.preview_invoice(told, usage, now=MIDDLE).total + 10
    assert [log.subscriptions for log in logs_of(usage)] == [(told,)] * len(logs_of(usage))
    for log in logs_of(usage):
        log.subscribe(version, rebill=True)
    assert mc.finalize_invoice(version, usage, JAN, now=JAN.end).lines == preview.lines


def of_columns(*items):
    """Return columns of events with an event of 10 in January."""
    usage = ColumnarEvents(METERS, [of(*items)], policy=mc.MeterPolicy.history())
    usage.append(EventBatch.from_columns("calls", ["c"], [10], [START + DAY]), now=START + DAY)
    return usage


def of_rows(*items):
    """Return rows of usage in DuckDB."""
    sql, arrow = pytest.importorskip("metering_core.sql"), pytest.importorskip("pyarrow")
    rows = {"subscription_item": ["si"], "quantity": [10], "timestamp": [START + DAY]}
    return sql.DuckDBUsage(arrow.table(rows), [of(*items)])


def of_event_rows(*items):
    """Return rows of events in DuckDB."""
    sql, arrow = pytest.importorskip("metering_core.sql"), pytest.importorskip("pyarrow")
    rows = {"event_name": ["calls"], "customer": ["c"], "value": ["10"], "timestamp": [START + DAY]}
    return sql.DuckDBEvents(arrow.table(rows), METERS, [of(*items)])


TWO_VIEWS = lambda one, seats: mc.CombinedUsage(  # noqa: E731
    *(log.as_of(1) for log in logs_of(both(one, METERED, seats)))
)
ANSWERING = {
    "columns of events": (of_columns, METERED),
    "rows": (of_rows, RECORDED),
    "rows of events": (of_event_rows, METERED),
    "a view of records": (lambda *items: records(mc.UsageLog, *items).as_of(1), RECORDED),
    "a view of columns": (lambda *items: records(ColumnarUsage, *items).as_of(1), RECORDED),
    "a view of events": (lambda *items: events(*items).as_of(1), METERED),
    "a log beside columns": (
        lambda *items: mc.CombinedUsage(mc.UsageLog([of(*items)]), of_columns(*items)),
        METERED,
    ),
    "a log beside rows": (
        lambda *items: mc.CombinedUsage(mc.UsageLog([of(*items)]), of_event_rows(*items)),
        METERED,
    ),
    "rows beside rows": (
        lambda *items: mc.CombinedUsage(of_rows(*items), of_event_rows(*items)),
        RECORDED,
    ),
    "two views": (TWO_VIEWS, RECORDED),
}


@pytest.mark.parametrize("bill", ["finalize_invoice", "invoice_all"])
@pytest.mark.parametrize(("made", "first"), ANSWERING.values(), ids=ANSWERING)
def test_what_closes_no_period_finalizes_what_it_was_told_too(made, first, bill):
    """Columns of events, rows and views answer for the version that they were told; of another one
    they preview a "what if".
    """
    usage = made(first, SEATS)
    told = of(first, METERED, SEATS) if made is TWO_VIEWS else of(first, SEATS)
    for version, param in versions(told):
        period = version.period_at(MIDDLE)

        def finalize(version=version, period=period):
            if bill == "invoice_all":
                return invoice_all([version], usage, MIDDLE, now=MAR.end)
            return mc.finalize_invoice(version, usage, period, now=MAR.end)

        assert refused(finalize) == (ErrorCode.CHANGE_NOT_BILLABLE, param)
    dearer = attrs.evolve(first, price=attrs.evolve(first.price, model=mc.pricing.PerUnit(2)))
    version = attrs.evolve(told, items=[dearer, *told.items[1:]])
    billed = mc.finalize_invoice(told, usage, JAN, now=JAN.end)
    assert billed.total == 100 + 10 * (len(told.items) - 2)
    assert mc.preview_invoice(version, usage, now=MIDDLE).total == billed.total + 10


def test_who_was_told_nothing_of_a_subscription_closes_none_of_its_periods():
    """Columns that were not told of a subscription refuse to close its period, beside a log that
    was and for an item of theirs under another id.
    """
    unknown = (ErrorCode.PARAMETER_INVALID_CHOICE, "subscription")
    usage = mc.CombinedUsage(records(mc.UsageLog, RECORDED, SEATS), ColumnarEvents(METERS))
    told = of(RECORDED, SEATS)
    assert refused(lambda: mc.finalize_invoice(told, usage, JAN, now=JAN.end)) == unknown
    other = attrs.evolve(
        of(attrs.evolve(METERED, price=item(amount=9, recurring=CALLED).price)), id="other"
    )
    assert (
        refused(lambda: mc.finalize_invoice(other, of_columns(METERED), JAN, now=JAN.end))
        == unknown
    )
    other = attrs.evolve(of(item(amount=9)), id="other")
    for usage in (of_rows(RECORDED), records(mc.UsageLog, RECORDED).as_of(1)):
        assert (
            refused(lambda usage=usage: mc.finalize_invoice(other, usage, JAN, now=JAN.end))
            == unknown
        )


# A view of what was finalized ---------------------------------------------------------------------


def viewed(usage, limit):
    """Return a view of some usage; of both logs a view of each."""
    views = [log.as_of(limit) for log in logs_of(usage)]
    return mc.CombinedUsage(*views) if len(views) > 1 else views[0]


@pytest.mark.parametrize(("made", "first"), KINDS.values(), ids=KINDS)
def test_a_view_of_a_finalized_period_returns_the_invoice(made, first):
    """Whatever version is given, a view that shows the closing returns what is kept, as the log
    does.
    """
    usage = made(first, SEATS)
    told = told_to(usage)
    billed = mc.finalize_invoice(told, usage, JAN, now=JAN.end)
    other = attrs.evolve(
        told,
        items=[attrs.evolve(first, price=attrs.evolve(first.price, model=mc.pricing.PerUnit(9)))],
    )
    for limit in (1, JAN.end, MAR.end):
        for version in (told, other):
            view = viewed(usage, limit)
            assert mc.finalize_invoice(version, view, JAN, now=MAR.end) == billed
            assert invoice_all([version], view, START, now=MAR.end) == [billed]
            assert view.stored_invoice("sub", JAN) == billed
    assert viewed(usage, MAR.end).stored_invoice("sub", FEB) is None
    for log in logs_of(usage):  # What is kept is billed by no version.
        log.require_told(other, JAN)


@pytest.mark.parametrize(("made", "first"), KINDS.values(), ids=KINDS)
def test_a_view_of_before_finalizes_nothing(made, first):
    """What a view of before the closing would bill is a "what if": it is previewed, and refused as
    an invoice.
    """
    usage = made(first, SEATS)
    told = told_to(usage)
    early = viewed(usage, 0)
    preview = mc.preview_invoice(told, early, now=MIDDLE)
    assert mc.finalize_invoice(told, early, JAN, now=JAN.end).lines == preview.lines  # It is open.
    mc.finalize_invoice(told, usage, JAN, now=JAN.end)
    for limit in (0, JAN.start + timedelta(days=10), JAN.end - timedelta(seconds=1)):
        view = viewed(usage, limit)
        assert view.stored_invoice("sub", JAN) is None
        with pytest.raises(mc.InvoicingError) as refusal:
            mc.finalize_invoice(told, view, JAN, now=JAN.end)
        assert (refusal.value.code, refusal.value.param) == (ErrorCode.INVOICE_CONFLICT, "invoice")
    assert str(refusal.value) == (
        "invoice: expected the invoice that the log keeps of the period of subscription "
        "'sub', received a view of before it "
        "was made (finalize with the log, or preview what the view would bill)"
    )
    assert mc.preview_invoice(told, early, now=MIDDLE) == preview
    assert early.stored_invoice("sub", JAN) is None


def test_rows_know_what_was_finalized_before():
    """What a log had finalized is handed to rows with ``closed``: finalizing with them returns the
    invoice, too.
    """
    log = records(mc.UsageLog, RECORDED)
    billed = mc.finalize_invoice(of(RECORDED), log, JAN, now=JAN.end)
    sql, arrow = pytest.importorskip("metering_core.sql"), pytest.importorskip("pyarrow")
    rows = arrow.table(
        {"subscription_item": ["si"], "quantity": [7], "timestamp": [FEB.start_seconds]}
    )
    usage = sql.DuckDBUsage(rows, [of(RECORDED)], closed=log.state().closed)
    assert mc.finalize_invoice(of(RECORDED), usage, JAN, now=MAR.end) == billed
    assert mc.finalize_invoice(of(RECORDED), usage, FEB, now=MAR.end).total == 7
    assert usage.stored_invoice("other", JAN) is None


def test_both_logs_are_asked():
    """Where one of two logs was not told, its item is not billed at the new price, and both stay
    open.
    """
    usage = both(RECORDED, METERED)
    version = of(item(amount=2), item("call", 2, CALLED))
    usage.records.subscribe(version, rebill=True)
    finalize = lambda: mc.finalize_invoice(version, usage, JAN, now=JAN.end)  # noqa: E731
    assert refused(finalize) == (ErrorCode.CHANGE_NOT_BILLABLE, "items[1][price]")
    assert [log.state().closed for log in logs_of(usage)] == [{}, {}]
    usage.events.subscribe(version, rebill=True)
    assert finalize().total == 40


def test_each_log_may_know_its_own_items_alone():
    """A log judges what it bills: the items of the other generation need not be told to it."""
    usage = mc.CombinedUsage(records(mc.UsageLog, RECORDED), events(METERED))
    assert mc.finalize_invoice(of(RECORDED, METERED), usage, JAN, now=JAN.end).total == 20


def test_a_run_closes_none_where_one_was_not_told():
    """One untold version among many leaves all periods of the run open."""
    log = mc.UsageLog([of(RECORDED), mc.Subscription("two", [item("b")], START)])
    run = [log.subscriptions[1], of(item(amount=2))]
    assert refused(lambda: invoice_all(run, log, START, now=JAN.end)) == (
        ErrorCode.CHANGE_NOT_BILLABLE,
        "items[0][price]",
    )
    assert log.state().closed == {}


@pytest.mark.parametrize(
    "made",
    [lambda: records(mc.UsageLog, RECORDED), lambda: events(METERED)],
    ids=["records", "events"],
)
def test_who_closes_says_what_is_billed(made):
    """``closing_all`` takes the versions that are billed, and refuses others; without them it only
    closes.
    """
    log = made()
    told = log.subscriptions[0]
    with log.closing_all({"sub": JAN}, now=JAN.end, versions=[told]):
        log.keep_invoice(mc.preview_invoice(told, log, now=START))
    other = attrs.evolve(told, items=[attrs.evolve(told.items[0], id="new")])

    def close():
        with log.closing_all({"sub": FEB}, now=FEB.end, versions=[other]):
            pass

    assert refused(close) == (ErrorCode.CHANGE_NOT_BILLABLE, "items[0]")
    other = attrs.evolve(told, id="other")
    assert refused(close) == (ErrorCode.PARAMETER_INVALID_CHOICE, "subscription")
    assert len(log.state().closed["sub"]) == 1


# An item that is new on a meter with events -------------------------------------------------------

JOINING = {
    "a new item": (
        (METERED,),
        (METERED, item("new", recurring=mc.Recurring(meter="other"))),
        "items[1]",
    ),
    "a second item of one meter": ((METERED,), (METERED, item("new", 5, CALLED)), "items[1]"),
    "an unused item that moves": (
        (item("call", 1, mc.Recurring(meter="unused")),),
        (METERED,),
        "items[0][price]",
    ),
    "an unused item of records": ((item("call"),), (METERED,), "items[0][price]"),
}


def joined(engine, first, **options):
    """Return a log of January with 10 on each meter but one."""
    meters = [*METERS, mc.Meter("unused", "nothing")]
    log = engine(meters, [of(*first)], policy=mc.MeterPolicy.history(), **options)
    log.append([event("10"), event("10", name="others")], now=START + DAY)
    return log


@pytest.mark.parametrize("engine", [mc.MeterLog, ColumnarEvents])
@pytest.mark.parametrize(("first", "newer", "param"), JOINING.values(), ids=JOINING)
def test_an_item_does_not_bill_what_was_before_it(engine, first, newer, param):
    """An item that is new on a meter does not bill events of the open period from before it, unless
    that is said.
    """
    told = {"now": MIDDLE}, {}
    for options in told:
        log = joined(engine, first)
        assert refused(lambda log=log, options=options: log.subscribe(of(*newer), **options)) == (
            ErrorCode.CHANGE_NOT_BILLABLE,
            param,
        )
        assert log.subscriptions == (of(*first),)
    log.subscribe(of(*newer), rebill=True)
    assert mc.preview_invoice(of(*newer), log, now=MIDDLE).total == sum(
        10 * int(one.price.model.unit_amount) for one in newer
    )


def test_a_clock_says_when_an_item_comes():
    """The log's clock says the moment of the change where nobody else does."""
    first, newer = [METERED], of(METERED, item("new", 5, mc.Recurring(meter="other")))
    log = joined(mc.MeterLog, first, clock=lambda: MIDDLE)
    assert refused(lambda: log.subscribe(newer)) == (ErrorCode.CHANGE_NOT_BILLABLE, "items[1]")
    joined(mc.MeterLog, first, clock=lambda: START).subscribe(newer)


@pytest.mark.parametrize("engine", [mc.MeterLog, ColumnarEvents])
def test_an_item_bills_what_comes_after_it(engine):
    """Events from the very moment of the change on are what the item is for, also where it is told
    later.
    """
    first, newer = of(METERED), of(METERED, item("new", 5, mc.Recurring(meter="other")))
    for at in (START + DAY, START + DAY - 1):
        log = joined(engine, first.items)
        log.subscribe(newer, now=at)
        assert mc.preview_invoice(newer, log, now=MIDDLE).total == 60
    assert (
        refused(lambda: joined(engine, first.items).subscribe(newer, now=START + DAY + 1))[1]
        == "items[1]"
    )


def test_what_was_finalized_does_not_hold_an_item_back():
    """Events of a finalized period are billed already: a new item may come to their meter, and
    bills none of them.
    """
    log = joined(mc.MeterLog, [METERED])
    mc.finalize_invoice(of(METERED), log, JAN, now=JAN.end)
    newer = of(METERED, item("new", 5, CALLED))
    log.subscribe(newer)
    log.append([event("1", FEB.start)], now=FEB.start)
    assert mc.preview_invoice(newer, log, now=FEB.start).total == 6


def test_the_refusal_of_an_item_says_what_to_do():
    """The sentence names the item and its meter, since when there is usage, and the ways out."""
    with pytest.raises(mc.InvalidValueError) as refusal:
        joined(mc.MeterLog, [METERED]).subscribe(of(METERED, item("new", 5, CALLED)), now=MIDDLE)
    assert str(refusal.value) == (
        "items[1]: expected nothing from before the change that the item 'new' would bill, "
        "but there is some since "
        "2024-01-02T00:00:00Z (pass now=2024-01-01T00:00:00Z to have the change hold for "
        "all of that period, or finalize what "
        "is open until 2024-02-01T00:00:00Z and pass that as now=, or end this "
        "subscription and start another, whose items "
        "need new ids, or pass rebill=True to have all open periods billed by the new "
        "version, of which these have usage: "
        f"{JAN}), received 'm' (str)"
    )


def test_two_items_of_one_meter_bill_every_event_each():
    """As at Stripe, a meter's events are billed by each item that is listed on it."""
    listed = of(METERED, item("new", 5, CALLED))
    assert [
        line.amount
        for line in mc.preview_invoice(listed, joined(mc.MeterLog, listed.items), now=MIDDLE).lines
    ] == [10, 50]


# A period that was closed without an invoice ------------------------------------------------------


def in_months(one):
    """Return the log, its first version, and one at five cents a unit."""
    log, first = one
    return (
        log,
        of(*first),
        of(
            *(
                attrs.evolve(each, price=attrs.evolve(each.price, model=mc.pricing.PerUnit(5)))
                for each in first
            )
        ),
    )


SHUT = {
    "records": lambda: in_months((records(mc.UsageLog, RECORDED), [RECORDED])),
    "columns": lambda: in_months((records(ColumnarUsage, RECORDED), [RECORDED])),
    "events": lambda: in_months((events(METERED), [METERED])),
}


@pytest.mark.parametrize("made", SHUT.values(), ids=SHUT)
def test_what_was_closed_without_an_invoice_is_not_rated_anew(made):
    """A new price, an end or a start does not alter what a closed period owes that is not billed,
    unless that is said.
    """
    log, first, newer = made()
    log.close_period("sub", JAN, now=JAN.end)
    for version, param in (
        (newer, "items[0][price]"),
        (first.canceled(START + DAY), "ended_at"),
        (attrs.evolve(first, start_date=MIDDLE), "start_date"),
    ):
        assert refused(lambda version=version: log.subscribe(version, now=FEB.start)) == (
            ErrorCode.CHANGE_NOT_BILLABLE,
            param,
        )
    assert mc.finalize_invoice(first, log, JAN, now=FEB.start).total == 10
    log.subscribe(newer, now=FEB.start)
    assert mc.finalize_invoice(newer, log, JAN, now=FEB.start).total == 10


@pytest.mark.parametrize("made", SHUT.values(), ids=SHUT)
def test_what_was_closed_is_rated_anew_by_who_says_so(made):
    """With ``rebill=True`` the first invoice of a closed period bills the newer version."""
    log, _, newer = made()
    log.close_period("sub", JAN, now=JAN.end)
    log.subscribe(newer, now=FEB.start, rebill=True)
    assert mc.finalize_invoice(newer, log, JAN, now=FEB.start).total == 50


def test_seats_of_a_month_that_was_closed_are_owed_as_agreed():
    """Closed without an invoice, a month owes its seats: another number of them waits until it is
    billed.
    """
    log, more = mc.UsageLog([of(SEATS)]), of(attrs.evolve(SEATS, quantity=5))
    log.close_period("sub", JAN, now=JAN.end)
    assert refused(lambda: log.subscribe(more, now=FEB.start)) == (
        ErrorCode.CHANGE_NOT_BILLABLE,
        "items[0][quantity]",
    )
    assert mc.finalize_invoice(of(SEATS), log, JAN, now=FEB.start).total == 90
    log.subscribe(more, now=FEB.start)
    assert mc.preview_invoice(more, log, now=FEB.start).total == 150


def test_late_usage_is_billed_against_what_was_billed():
    """Closed at a cent, billed at five because the caller said so: one late unit makes 55,
    not 51.
    """
    log, _, newer = SHUT["events"]()
    log.close_period("sub", JAN, now=JAN.end)
    log.subscribe(newer, now=FEB.start, rebill=True)
    billed = [mc.finalize_invoice(newer, log, JAN, now=FEB.start)]
    log.append([event("1")], now=FEB.start)
    billed.append(mc.finalize_invoice(newer, log, FEB, now=FEB.end))
    assert [invoice.total for invoice in billed] == [50, 5]
    assert log.unbilled("sub") == []


def test_late_usage_is_billed_against_what_was_rounded():
    """A month that is closed and then billed with a rounding of its own is corrected from what that
    charged.
    """
    third = item("call", "0.5", CALLED)
    log = events(third)
    log.append([event("1")], now=START + DAY)
    log.close_period("sub", JAN, now=JAN.end)
    assert (
        mc.finalize_invoice(of(third), log, JAN, now=JAN.end, rounding=mc.money.down).total == 5
    )  # Half up it had been 6.
    log.append([event("1")], now=FEB.start)
    assert mc.finalize_invoice(of(third), log, FEB, now=FEB.end).total == 1


def test_the_first_invoice_of_a_closed_month_is_that_of_then():
    """Closed, corrected by the next month, and only then billed: nothing is lost or billed twice,
    also from a snapshot.
    """
    tiers = [mc.Tier(10, unit_amount=10), mc.Tier("inf", unit_amount=1)]
    graduated = mc.SubscriptionItem(
        "call", mc.Price.graduated("p", currency="usd", tiers=tiers, recurring=CALLED)
    )
    log, told = events(graduated), of(graduated)
    totals = [mc.finalize_invoice(told, log, JAN, now=JAN.end).total]  # 10 units
    log.append([event("2"), event("3", FEB.start)], now=FEB.start)
    log.close_period("sub", FEB, now=FEB.end)  # 2 more of January at a cent, and 3 of its own
    log.append([event("4"), event("1", FEB.start)], now=MAR.start)
    march = mc.finalize_invoice(told, log, MAR, now=MAR.end)
    february = mc.finalize_invoice(told, log, FEB, now=MAR.end)
    totals += [february.total, march.total]
    assert totals == [100, 2 + 30, 4 + 10]
    restored = mc.restore_meter_log(mc.snapshot(log))
    assert restored == log
    for usage in (log, restored, log.as_of(log.sequence)):
        assert mc.finalize_invoice(told, usage, FEB, now=MAR.end).to_dict() == february.to_dict()
        assert mc.preview_invoice(told, usage, now=FEB.start).lines == february.lines
        assert mc.preview_invoice(told, usage, now=MAR.start).lines == march.lines
        assert usage.unbilled("sub") == []


def test_an_invoice_of_another_log_follows_a_closing_without_one():
    """The records keep the invoice, the events were closed later and without: they keep it, too;
    the rest is unbilled.
    """
    usage, told = both(RECORDED, METERED), of(RECORDED, METERED)
    invoice = mc.finalize_invoice(told, both(RECORDED, METERED), JAN, now=JAN.end)
    with usage.records.closing("sub", JAN, now=JAN.end):
        usage.records.keep_invoice(invoice)
    usage.events.append([event("1")], now=FEB.start)
    usage.events.close_period("sub", JAN, now=FEB.start)
    assert mc.finalize_invoice(told, usage, JAN, now=FEB.start) == invoice
    assert mc.restore_meter_log(mc.snapshot(usage.events)) == usage.events
    assert [(one.billed, one.measured, one.quantity) for one in usage.events.unbilled("sub")] == [
        (10, 11, 1)
    ]
    assert [line.amount for line in mc.preview_invoice(told, usage, now=FEB.start).lines] == [
        0,
        0,
        1,
    ]


# What is asked of an unknown subscription, and an end within a month that was billed --------------


@pytest.mark.parametrize(("made", "first"), KINDS.values(), ids=KINDS)
def test_the_invoices_of_nobody_are_refused(made, first):
    """A subscription that no log has is refused by name, as everywhere."""
    usage = made(first, SEATS)
    assert refused(lambda: usage.stored_invoice("nope", JAN)) == (
        ErrorCode.PARAMETER_INVALID_CHOICE,
        "subscription",
    )
    assert usage.stored_invoice("sub", JAN) is None


@pytest.mark.parametrize("kind", KINDS)
def test_an_end_within_a_month_that_was_billed_alters_no_bill(kind):
    """The end is taken, the invoice stays, nothing is given back or billed again, and the month
    cannot be closed anew.
    """
    made, first = KINDS[kind]
    usage = made(first, SEATS)
    told = told_to(usage)
    billed = mc.finalize_invoice(told, usage, JAN, now=JAN.end)
    ended = told.canceled(START + DAY)
    for log in logs_of(usage):
        log.subscribe(ended, now=FEB.start + timedelta(days=3))
        assert log.invoice_changes(billed)
    for version, period in ((told, JAN), (ended, JAN), (ended, ended.period_at(START))):
        assert mc.finalize_invoice(version, usage, period, now=MAR.end) == billed
    assert ended.period_at(FEB.start) is None
    for log in logs_of(usage):
        assert not isinstance(log, mc.MeterLog) or log.unbilled("sub") == []
        log.subscribe(told, now=FEB.start + timedelta(days=3))
    assert mc.finalize_invoice(told, usage, JAN, now=MAR.end) == billed

"""Both generations of usage on one subscription: records for the items that aggregate them, events
for those on a meter.
"""

from __future__ import annotations

from datetime import UTC, datetime

import attrs
import pytest
from builders import FEB, JAN, START, priced
from test_meter_log import NOW, TOKENS, event, item_on

from metering_core import (
    InvoiceChanges,
    Subscription,
    SubscriptionItem,
    UsageLog,
    explain,
    finalize_invoice,
    preview_invoice,
)
from metering_core.aggregation import KnowsMeters, Usage, summarize_all
from metering_core.combining import CombinedUsage
from metering_core.errors import ErrorCode, InvalidValueError, InvoicingError, UsageRejectedError
from metering_core.meter_log import MeterLog
from metering_core.money import down
from metering_core.names import offers
from metering_core.pricing import PerUnit

OLD, NEW = SubscriptionItem("si_old", priced()), item_on(id="si_new")
SEATS = SubscriptionItem("si_seats", priced(mode=None), quantity=5)
BOTH = Subscription("sub", [OLD, SEATS, NEW], START, customer="cus_1")
AFTER = JAN.end_seconds


class Answers:
    """An engine that only answers; it keeps what it was asked."""

    def __init__(self, value):
        self.value = value
        self.asked = []

    def partial(self, item, period):
        return self.partials([(item, period)])[0]

    def partials(self, requests):
        self.asked.append([item.id for item, _ in requests])
        return [self.value for _ in self.asked[-1]]


def combined():
    records, events = UsageLog([BOTH]), MeterLog([TOKENS], [BOTH])
    records.record("si_old", 30, timestamp=NOW, now=NOW)
    events.append([event("2.5"), event("4")], now=NOW)
    return CombinedUsage(records, events)


def test_each_item_is_answered_by_its_generation():
    """Items that aggregate records and items on a meter are summarized together, each by its own
    engine.
    """
    usage = combined()
    summaries = summarize_all([(NEW, JAN), (OLD, JAN), (NEW, FEB)], usage)
    assert [(one.subscription_item, float(one.total_usage)) for one in summaries] == [
        ("si_new", 6.5),
        ("si_old", 30),
        ("si_new", 0),
    ]
    assert (usage.engine_of(OLD), usage.engine_of(NEW)) == (usage.records, usage.events)
    assert (usage.partial(OLD, JAN), float(usage.partial(NEW, JAN))) == (30, 6.5)
    assert isinstance(usage, Usage)
    assert offers(usage, KnowsMeters)


def test_both_engines_are_asked_once():
    """Many items are one question to each engine, none to one that has no item, and the answers
    keep their places.
    """
    records, events = Answers(1), Answers(2)
    usage = CombinedUsage(records, events)
    assert usage.partials([(NEW, JAN), (OLD, JAN), (NEW, FEB), (OLD, FEB)]) == [2, 1, 2, 1]
    assert (records.asked, events.asked) == ([["si_old", "si_old"]], [["si_new", "si_new"]])
    assert usage.partials(iter([(OLD, JAN)])) == [1]
    assert len(events.asked) == 1
    assert usage.partials([]) == []


def test_an_invoice_of_both():
    """One invoice has records, seats and events in the order of the items; finalizing closes both,
    and it comes out again.
    """
    usage = combined()
    preview = preview_invoice(BOTH, usage, now=NOW)
    invoice = finalize_invoice(BOTH, usage, JAN, now=AFTER)
    assert (
        [line.amount for line in invoice.lines]
        == [line.amount for line in preview.lines]
        == [30, 5, 7]
    )
    with pytest.raises(UsageRejectedError):
        usage.records.record("si_old", 1, timestamp=AFTER - 1, now=AFTER)
    usage.events.append([event("3")], now=AFTER)
    assert finalize_invoice(BOTH, usage, JAN, now=AFTER + 60).to_dict() == invoice.to_dict()
    assert [delta.quantity for delta in usage.events.unbilled("sub")] == [3]


def test_lines_know_their_evidence():
    """A line of records explains its records, one of events says its formula."""
    usage = combined()
    old, _, new = finalize_invoice(BOTH, usage, JAN, now=AFTER).lines
    assert len(explain(old).records) == 1
    assert "the sum of the meter events" in str(explain(new))


def test_closing_says_when_it_was_first():
    """Where one of the two was closed before, that moment is the invoice's."""
    usage = combined()
    with usage.records.closing("sub", JAN, now=AFTER + 5):
        pass
    with usage.closing("sub", JAN, now=AFTER + 60) as closed_at:
        assert closed_at == datetime.fromtimestamp(AFTER + 5, tz=UTC)


def test_a_bill_that_fails_closes_neither():
    """Where the block raises, both periods stay open."""
    usage = combined()
    with pytest.raises(ZeroDivisionError), usage.closing("sub", JAN, now=AFTER):
        raise ZeroDivisionError
    usage.events.append([event("1")], now=AFTER)
    assert usage.events.unbilled("sub") == []
    assert usage.events.partial(NEW, JAN) == 7.5
    assert usage.records.as_of(1).partial(OLD, JAN) == 30


def test_a_period_of_neither_closes_neither():
    """A period that has not ended, or a subscription that one of the two does not have, is
    refused.
    """
    usage = combined()
    with pytest.raises(InvoicingError) as refusal:
        finalize_invoice(BOTH, usage, FEB, now=AFTER)
    assert refusal.value.code == ErrorCode.PERIOD_NOT_ENDED
    apart = CombinedUsage(UsageLog([BOTH]), MeterLog([TOKENS]))
    with pytest.raises(InvalidValueError) as refusal, apart.closing("sub", JAN, now=AFTER):
        pass
    assert refusal.value.param == "subscription"
    apart.records.record("si_old", 1, timestamp=NOW, now=NOW)


def test_what_would_differ_of_both():
    """Each of both says it of its own items, and seats, which both know, come once; the lines are
    in the invoice's order.
    """
    usage = combined()
    invoice = finalize_invoice(BOTH, usage, JAN, now=AFTER)
    assert usage.invoice_changes(invoice) == InvoiceChanges(invoice.id, ())
    usage.events.append([event("3")], now=AFTER)
    more = SubscriptionItem("si_more", priced(mode=None), quantity=2)
    newer = attrs.evolve(
        BOTH,
        items=[
            attrs.evolve(OLD, price=priced(PerUnit(2))),
            attrs.evolve(SEATS, quantity=7),
            NEW,
            more,
        ],
    )
    for log in (usage.records, usage.events):
        log.subscribe(newer, now=AFTER)
    changes = usage.invoice_changes(invoice)
    amounts = [
        [None if one is None else one.minor_units for one in change.amounts]
        for change in changes.lines
    ]
    # 30 records at two cents; seven seats; 2.5 + 4 + 3 events at a cent; two seats more.
    assert [change.subscription_item for change in changes.lines] == [
        "si_old",
        "si_seats",
        "si_new",
        "si_more",
    ]
    assert amounts == [[30, 60], [5, 7], [7, 10], [None, 2]]
    assert usage.invoice_changes(invoice, rounding=down).lines[2].now.amount == 9


def test_what_changed_its_generation_differs_in_both():
    """An item that is on a meter now is no line of the records any more, and one of the events."""
    usage = combined()
    invoice = finalize_invoice(BOTH, usage, JAN, now=AFTER)
    newer = attrs.evolve(BOTH, items=[attrs.evolve(NEW, id="si_old"), SEATS])
    for log in (usage.records, usage.events):
        log.subscribe(newer, now=AFTER)
    changes = usage.invoice_changes(invoice).lines
    told = [
        (one.subscription_item, one.billed and one.billed.amount, one.now and one.now.amount)
        for one in changes
    ]
    assert told == [("si_old", 30, None), ("si_new", 7, None), ("si_old", None, 7)]


@pytest.mark.parametrize("param", ["records", "events"])
def test_only_logs_know_what_would_differ(param):
    """Where one of both keeps no subscriptions, half an answer would be none: it is refused by
    name.
    """
    usage = combined()
    invoice = finalize_invoice(BOTH, usage, JAN, now=AFTER)
    with pytest.raises(InvalidValueError) as refusal:
        attrs.evolve(usage, **{param: Answers(1)}).invoice_changes(invoice)
    assert (refusal.value.code, refusal.value.param) == (ErrorCode.PARAMETER_INVALID_OBJECT, param)


def test_views_combine_as_logs_do():
    """Two views combined reproduce the invoice of then: they only answer, so nothing is closed."""
    usage = combined()
    invoice = finalize_invoice(BOTH, usage, JAN, now=AFTER)
    views = CombinedUsage(usage.records.as_of(1), usage.events.as_of(2))
    usage.events.append([event("3")], now=AFTER)
    assert finalize_invoice(BOTH, views, JAN, now=AFTER).to_dict() == invoice.to_dict()


@pytest.mark.parametrize("param", ["records", "events"])
@pytest.mark.parametrize("value", [None, 5, "log", {}, UsageLog], ids=str)
def test_what_cannot_answer_is_refused(param, value):
    """Either side must be able to answer; what cannot is named."""
    if value is UsageLog:
        value = object()
    with pytest.raises(InvalidValueError) as refusal:
        CombinedUsage(**{"records": UsageLog([]), "events": MeterLog(), param: value})
    assert (refusal.value.code, refusal.value.param) == (ErrorCode.PARAMETER_INVALID_OBJECT, param)
    assert refusal.value.message.startswith(
        f"{param}: expected a Usage, such as a UsageLog or a MeterLog, received "
    )


def test_an_engine_that_knows_no_meters_is_named():
    """What an event line's formula is only an engine with meters can say."""
    usage = CombinedUsage(UsageLog([]), Answers(2))
    with pytest.raises(InvalidValueError) as refusal:
        usage.meter_of(NEW)
    assert (refusal.value.code, refusal.value.param) == (
        ErrorCode.PARAMETER_INVALID_OBJECT,
        "events",
    )
    assert combined().meter_of(NEW) == TOKENS

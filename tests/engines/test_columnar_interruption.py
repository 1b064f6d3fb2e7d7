"""Interrupting columns: whatever cuts a call short, it happened whole or not at all, and everything
later agrees.
"""

from __future__ import annotations

import copy
import pickle
import random
from datetime import timedelta
from functools import partial

import attrs
import pytest
from builders import FEB, JAN, MAR, MODES, four_modes, priced
from interrupting import (
    Case,
    every_place_of,
    expected,
    interrupt_after,
    interrupted,
    knows_where_with_exits,
    never_interrupted,
    outcome,
    torn,
)

import metering_core as mc
from metering_core.meter_acceptance import MeterPolicy
from metering_core.meter_events import MeterEvent
from metering_core.meter_summaries import event_summaries, list_event_summaries
from metering_core.meters import Meter

pytest.importorskip("numpy")

from metering_core.bulk.lines import invoice_lines
from metering_core.columnar import ColumnarEvents, ColumnarUsage, EventBatch, UsageBatch, answering

pytestmark = knows_where_with_exits

START, NOW = JAN.start_seconds, FEB.start_seconds + 10
POLICY = mc.AcceptancePolicy(late_grace=timedelta(days=40), late_attribution="open_period")


@pytest.fixture(autouse=True)
def few_are_many(monkeypatch):
    """Have few questions answered in bulk, so that both ways are interrupted."""
    monkeypatch.setattr(answering, "_MANY", 12)


# Usage records ------------------------------------------------------------------------------------


def records_of(first, count=8, *, stamp=START, identified=True, quantity=3):
    """Return so many records of all modes in turn, some of them sets, with ids from a number on."""
    return [
        mc.UsageRecord(
            MODES[number % len(MODES)],
            quantity + number,
            stamp + number // 2,
            "set" if number % 3 == 2 else "increment",
            f"id_{number}" if identified else None,
        )
        for number in range(first, first + count)
    ]


LATE = records_of(20, stamp=START + 5)
REFUSED = [
    mc.UsageRecord("sum", 1, NOW + 99),
    mc.UsageRecord("nobody", 1, START),
    mc.UsageRecord("sum", 4, START, id="id_0"),
]


def usage():
    """Return columns with two batches in a closed January, and late ones."""
    built = ColumnarUsage([four_modes()], policy=POLICY)
    built.append(records_of(0), now=START + 9)
    built.append(records_of(30, 3, identified=False), now=START + 9)
    built.close_period("sub", JAN, now=FEB.start_seconds)
    built.append(LATE, now=FEB.start_seconds + 1)
    built.append(records_of(40, 4, stamp=FEB.start_seconds), now=FEB.start_seconds + 9)
    return built


def asked_of(subscription):
    """Return every item with its periods, and one that cuts through them."""
    periods = (JAN, FEB, mc.BillingPeriod(START + 1, FEB.end))
    return [(item, period) for item in subscription.items for period in periods]


def arrays(records, now):
    """Return a call that appends columns, each record received at its own moment."""
    batch = UsageBatch.from_columns(
        [one.subscription_item for one in records],
        [one.quantity for one in records],
        [one.timestamp for one in records],
        [one.action.value for one in records],
        [one.id for one in records],
    )
    received = [now + row for row in range(len(records))]
    return lambda built: built.append(batch, received_at=received)


def seen_of_a_view(view):
    """Ask a view in bulk and one by one."""
    asked = asked_of(four_modes())
    bulk = [
        outcome(lambda: view.total_usage(asked).tolist()),
        outcome(lambda: list(view.total_usage_of_all(FEB, MODES))),
    ]
    return [
        *bulk,
        [outcome(lambda one=one: view.partial(*one)) for one in asked],
        outcome(view.late, "sum", FEB),
        view.lock,
    ]


def told_to(view):
    """Ask a view what was told and billed."""
    return view.require_told(four_modes(), FEB), view.stored_invoice("sub", FEB)


def known_to(built):
    """Ask columns what the readers of columns ask."""
    return [
        built.late("sum", FEB),
        list(built.compacted()),
        built.compacted_items(),
        built.received_of(1),
        built.sequence_of(1),
    ]


def told_to_all(built):
    """Ask columns what their book was told."""
    return [built.subscriptions, *(built.subscription(one.id) for one in built.subscriptions)]


NEW = mc.Subscription("new", [mc.SubscriptionItem("new", priced())], START)
NEW_TO_OLD = [
    mc.SubscriptionItem("more", priced()),
    mc.SubscriptionItem("most", priced(mode="max")),
]
NEWLY = [mc.UsageRecord(name, 5, FEB.start_seconds) for name in ("more", "new", "most", "sum")]
IN_FEB = records_of(50, 9, stamp=FEB.start_seconds)
USAGE_VERBS = {
    "append": lambda built: built.append(IN_FEB, now=NOW),
    "append without ids": lambda built: built.append(
        records_of(50, 5, stamp=NOW - 3, identified=False), now=NOW
    ),
    "append again": lambda built: built.append([*records_of(0), *IN_FEB, *IN_FEB], now=NOW),
    "append refused": lambda built: built.append([*REFUSED, *IN_FEB[:2], *REFUSED], now=NOW),
    "append late": lambda built: built.append(
        [*records_of(70, 6, stamp=START + 4), *LATE], now=NOW
    ),
    "append arrays": arrays([*IN_FEB, *records_of(80, 4, stamp=START)], NOW),
    "partial": lambda built: [built.partial(*one) for one in asked_of(four_modes())[:2]],
    "partials": lambda built: built.partials(asked_of(four_modes())),
    "total usage": lambda built: built.total_usage(asked_of(four_modes())),
    "total usage of all": lambda built: built.total_usage_of_all(FEB, MODES),
    "cells": lambda built: built.cells("max", FEB),
    "records": lambda built: built.records("sum"),
    "summaries": lambda built: built.summaries("last_ever", now=NOW),
    "view": lambda built: built.as_of(9).partials(asked_of(four_modes())),
    "view of a view": lambda built: seen_of_a_view(built.as_of(9).as_of(8)),
    "what was told": lambda built: [
        built.closing_of("sub", FEB),
        built.require_told(four_modes(), FEB),
    ],
    "view of what was told": lambda built: [told_to(built.as_of(9))],
    "what columns know": lambda built: [
        built.item_ids,
        built.item_count,
        *told_to_all(built),
        *known_to(built),
    ],
    "invoice changes": lambda built: built.invoice_changes(
        mc.preview_invoice(four_modes(), built, now=NOW)
    ),
    "preview": lambda built: mc.preview_invoice(four_modes(), built, now=NOW),
    "invoice lines": lambda built: invoice_lines([four_modes()], built, NOW),
    "finalize": lambda built: mc.finalize_invoice(four_modes(), built, FEB, now=MAR.start_seconds),
    "close": lambda built: built.close_period("sub", FEB, now=MAR.start_seconds),
    "compact": lambda built: built.compact(),
    "subscribe": lambda built: built.subscribe(NEW),
    "subscribe again": lambda built: built.subscribe(
        attrs.evolve(four_modes(), items=(*four_modes().items, *NEW_TO_OLD))
    ),
}


def seen_of_usage(built):
    """Return everything that columns say, a retry of every record included; ask it once."""
    view = built.as_of(9)
    asked = asked_of(four_modes())
    return {
        "counts": (
            len(built),
            built.sequence,
            built.compactions,
            [one.id for one in built.subscriptions],
        ),
        "records": outcome(built.records),
        "partials": [outcome(lambda one=one: built.partial(*one)) for one in asked],
        "in bulk": outcome(lambda: built.partials(asked)),
        "totals": outcome(lambda: built.total_usage(asked).tolist()),
        "view": outcome(lambda: view.partials(asked)),
        "cells": [outcome(lambda mode=mode: built.cells(mode, FEB)) for mode in MODES],
        "summaries": [outcome(lambda mode=mode: built.summaries(mode, now=NOW)) for mode in MODES],
        "retries": list(
            built.append(
                [*records_of(0, 100, stamp=FEB.start_seconds), *records_of(0), *LATE, *IN_FEB],
                now=NOW,
            )
        ),
        "newly": list(built.append(NEWLY, now=NOW)),
        "items": built.item_ids,
        "after": (
            len(built),
            outcome(built.records),
            [outcome(lambda one=one: built.partial(*one)) for one in asked],
        ),
    }


# Meter events -------------------------------------------------------------------------------------

METERS = (
    Meter("m_sum", "sum", dimension_payload_keys=["region"]),
    Meter("m_unique", "unique", "unique_count"),
    Meter("m_last", "last", "last", event_time_window="hour"),
)
CUSTOMERS = ("cus_1", "cus_2", "cus_3")


def billed(customer):
    """Return a subscription with an item a meter."""
    items = [
        mc.SubscriptionItem(
            f"{customer}_{meter.id}",
            mc.Price(meter.id, "usd", mc.pricing.PerUnit(2), mc.Recurring(meter=meter.id)),
        )
        for meter in METERS
    ]
    return mc.Subscription(f"sub_{customer}", items, START, customer=customer)


def events_from(first, count=9, at=START):
    """Return so many events of all meters and customers in turn, with identifiers from a
    number on.
    """
    return [
        MeterEvent(
            METERS[number // 2 % 3].event_name,
            {
                "stripe_customer_id": CUSTOMERS[number % 3],
                "value": str(number % 4),
                "region": "eu" if number % 2 else "us",
            },
            identifier=f"id_{number}",
            timestamp=at + number,
        )
        for number in range(first, first + count)
    ]


def batch_of(customers, identifiers, first=0):
    """Return a batch of one meter in two regions."""
    rows = range(first, first + len(customers))
    return EventBatch.from_columns(
        "sum",
        customers,
        [row + 1 for row in rows],
        [START + row for row in rows],
        identifiers=identifiers,
        dimensions={"region": ["eu" if row % 2 else "us" for row in rows]},
    )


POLICIES = {
    "by meter": MeterPolicy(),
    "of all meters": MeterPolicy(identifier_scope="global"),
    "for a day": MeterPolicy(identifier_retention=timedelta(days=1)),
}


def events(policy):
    """Return columns with events of all meters, under a policy."""
    built = ColumnarEvents(METERS, [billed("cus_1")], policy=policy)
    built.append(events_from(0), now=START + 100)
    built.append(batch_of(["cus_2", "cus_1"], ["id_x", None]), now=START + 101)
    return built


def billed_of(built):
    """Ask columns of events what was used and billed of each item."""
    return [*billed_of_a_view(built), built.customers("m_sum"), built.last_received()]


def closed_of(built):
    """Ask columns of events what was finalized."""
    period = billed("cus_1").period_at(START)
    return [
        built.stored_invoice("sub_cus_1", period),
        built.closing_of("sub_cus_1", period),
        built.subscription("sub_cus_1"),
        built.received_of(1),
        len(built.timelines("m_sum", "cus_1")),
        built.invoice_changes(mc.preview_invoice(billed("cus_1"), built, now=NOW)),
    ]


def seen_of_a_view_of_events(view):
    """Ask a view of columns of events everything."""
    return [
        view.customers("m_sum"),
        view.events("m_sum"),
        *billed_of_a_view(view),
        view.partials([(item, JAN) for item in billed("cus_1").items]),
        view.counted(billed("cus_1").items[2], JAN),
        event_summaries(view, "m_sum", "cus_1", *SPAN),
        view.stored_invoice("sub_cus_1", JAN),
        outcome(view.require_told, billed("cus_1"), JAN),
    ]


def billed_of_a_view(view):
    """Ask a view what was used and billed of each item."""
    asks = (view.partial, view.measured, view.merged, view.carried, view.corrections)
    found = [outcome(ask, item, JAN) for item in billed("cus_1").items for ask in asks]
    return [*found, outcome(view.unbilled, "sub_cus_1")]


FRESH = batch_of(["cus_9", "cus_1", "cus_8", "cus_9"], ["id_y", "id_0", None, "id_x"], 5)
SPAN = (START, START + 7200)
EVENT_VERBS = {
    "append": lambda built: built.append(FRESH, now=START + 110),
    "append again": lambda built: built.append(
        [*events_from(0), *events_from(30), *events_from(30)], now=START + 109
    ),
    "append refused": lambda built: built.append(
        [
            MeterEvent("nobody", {"value": "1"}, timestamp=START),
            *events_from(4, 7),
            *events_from(0, 2, START + 10**6),
        ],
        now=START + 120,
    ),
    "append at moments": lambda built: built.append(
        FRESH, received_at=[START + 60_000 * row for row in range(1, 5)]
    ),
    "what was told": lambda built: built.require_told(
        billed("cus_1"), billed("cus_1").period_at(START)
    ),
    "summaries": lambda built: list(
        built.summaries("m_sum", *SPAN, dimension_group_by_keys=["region"])
    ),
    "summaries by hour": lambda built: list(
        built.summaries("m_last", *SPAN, value_grouping_window="hour")
    ),
    "event summaries": lambda built: event_summaries(built, "m_sum", "cus_1", *SPAN),
    "pages": lambda built: list_event_summaries(
        built, "m_unique", "cus_2", *SPAN, value_grouping_window="hour"
    ),
    "partials": lambda built: built.partials([(item, JAN) for item in billed("cus_1").items]),
    "events": lambda built: built.events("m_sum", "cus_1"),
    "counted": lambda built: built.counted(billed("cus_1").items[2], JAN),
    "preview": lambda built: mc.preview_invoice(billed("cus_1"), built, now=NOW),
    "invoice lines": lambda built: invoice_lines([billed("cus_1")], built, NOW),
    "what columns of events know": lambda built: [
        built.meters,
        built.sequence,
        built.known_customers,
        *told_to_all(built),
        *billed_of(built),
    ],
    "finalize": lambda built: mc.finalize_invoice(billed("cus_1"), built, JAN, now=NOW),
    "close": lambda built: built.close_period("sub_cus_1", JAN, now=NOW),
    "what was billed": closed_of,
    "view": lambda built: seen_of_a_view_of_events(built.as_of(20).as_of(15)),
    "add a customer": lambda built: built.add_customer("cus_7"),
    "create a meter": lambda built: built.create_meter(Meter("m_new", "new")),
    "subscribe": lambda built: built.subscribe(billed("cus_2")),
    "update a meter": lambda built: built.update_meter(METERS[0].deactivate(START)),
}


def seen_of_events(built):
    """Return everything that columns say, a retry of every event included; ask it once."""
    items = billed("cus_1").items
    ids = [meter.id for meter in METERS]
    probes = [
        *events_from(0, 3, START),
        MeterEvent("new", {"stripe_customer_id": "cus_1", "value": "1"}, timestamp=START),
    ]

    def answers():
        return {
            "counts": (
                len(built),
                built.sequence,
                built.meters,
                [one.id for one in built.subscriptions],
            ),
            "customers": [built.customers(meter) for meter in ids],
            "events": built.events(),
            "summaries": [
                list(built.summaries(meter, *SPAN, value_grouping_window="hour")) for meter in ids
            ],
            "regions": list(built.summaries("m_sum", *SPAN, dimension_group_by_keys=["region"])),
            "partials": built.partials([(item, JAN) for item in items]),
            "counted": [built.counted(item, JAN) for item in items],
            "newly": [
                outcome(lambda item=item: built.partial(item, JAN))
                for item in billed("cus_2").items
            ],
        }

    return {
        "before": answers(),
        "retries": [
            list(built.append(FRESH, now=START + 103)),
            list(built.append([*events_from(0, 60), *probes], now=NOW)),
        ],
        "after": answers(),
    }


# The laws -----------------------------------------------------------------------------------------


def some_of(case):
    """Return some of these steps and the last one, others for other calls; the same ones
    each time.
    """
    steps = every_place_of(case)
    return sorted({*random.Random(case.name).sample(steps, 3), steps[-1]})  # noqa: S311 - no secret


USAGE_CASES = [Case(name, usage, act, seen_of_usage) for name, act in USAGE_VERBS.items()]
EVENT_CASES = [
    Case(f"{name}, {scope}", partial(events, policy), act, seen_of_events)
    for name, act in EVENT_VERBS.items()
    for scope, policy in POLICIES.items()
    if "append" in name or scope == "by meter"
]
each_case = pytest.mark.parametrize(
    "case", [*USAGE_CASES, *EVENT_CASES], ids=lambda case: case.name
)


@each_case
def test_a_call_is_whole_whatever_interrupts(case):
    """Some lines of every call on columns: what is interrupted there happened whole or not
    at all.
    """
    assert torn(case, some_of(case)) == []


def test_usage_of_a_subscription_that_was_interrupted_is_taken_where_it_is_known():
    """What comes right after an interrupted subscribe, before anything is asked, is taken if the
    subscription was.
    """
    case = Case("subscribe", usage, USAGE_VERBS["subscribe"], seen_of_usage)
    seen = set()
    for at in every_place_of(case)[::-1][:90]:
        built, _ = interrupted(case, at)
        (receipt,) = built.append(NEWLY[1:2], now=NOW)
        seen.add(("new" in [one.id for one in built.subscriptions], receipt.code))
    assert seen == {(True, None), (False, "subscription_item_unknown")}


# What columns share with the logs -----------------------------------------------------------------

ENGINES = {"usage": usage, "events": partial(events, POLICIES["by meter"])}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, pickle.dumps], ids=["copy", "deepcopy", "pickle"]
)
def test_columns_are_not_copied(copied, engine):
    """Two of them with one state would bill each row twice: copies and pickles are refused, and
    what to do is said.
    """
    with pytest.raises(
        mc.InvalidValueError, match="Append the same batches to another one"
    ) as refused:
        copied(ENGINES[engine]())
    assert (refused.value.code, refused.value.param) == ("copy_refused", "log")


@pytest.mark.parametrize("change", ["append", "subscribe", "compact"])
def test_columns_are_not_changed_by_the_thread_that_bills_a_period(change):
    """What a rounding of one's own appends while it bills would be in no bill: it is refused by
    name.
    """
    built, refused = usage(), []

    def meddling(exact):
        with pytest.raises(mc.UsageRejectedError) as raised:
            USAGE_VERBS[change](built)
        refused.append(raised.value.code)
        return mc.money.half_up(exact)

    before = len(built)
    mc.finalize_invoice(four_modes(), built, FEB, now=MAR.start_seconds, rounding=meddling)
    assert (set(refused), len(built)) == ({"period_being_billed"}, before)
    USAGE_VERBS[change](built)


@pytest.mark.slow
@each_case
def test_a_call_is_whole_at_every_line(case):
    """Every line of every call on columns, interrupted by Ctrl-C and by memory that is not
    there.
    """
    assert torn(case, every_place_of(case)) == []


@pytest.mark.slow
@each_case
def test_a_call_is_whole_whenever_another_thread_interrupts(case):
    """Exceptions that another thread raises in the call at random moments."""
    wait = random.Random(case.name)  # noqa: S311 - no secret
    allowed = expected(case)
    for _ in range(60):
        built = case.made()
        interrupt_after(partial(case.act, built), wait.random() * 0.004)
        assert case.seen(built) in allowed


# Which verbs there are ----------------------------------------------------------------------------

NEVER_INTERRUPTED = {
    "ColumnarEvents.recorded": "for the book: a value that asks nothing yet",
    "ColumnarView.book": "that of the columns",
    "ColumnarUsage.fold": "for the readers of columns, who fold into cells of their own",
}


def test_every_verb_of_columns_is_interrupted():
    """A public verb of columns or a view of them is in the tables above, or below with the reason
    why it is not.
    """
    kinds = [ColumnarUsage, ColumnarEvents, type(usage().as_of(1))]
    assert never_interrupted(kinds, [*USAGE_CASES, *EVENT_CASES], NEVER_INTERRUPTED) == []

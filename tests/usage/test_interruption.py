"""Interrupt every public verb of both logs and their views wherever it stands: it happened whole,
or not at all.
"""

from __future__ import annotations

import random
from datetime import timedelta

import attrs
import pytest
from builders import DAY, FEB, JAN, START, priced
from interrupting import (
    WAYS,
    Case,
    every_place_of,
    knows_where_with_exits,
    never_interrupted,
    out_of_memory_after,
    outcome,
    torn,
    torn_in_life,
)

import metering_core as mc
from metering_core.periods import from_unix_seconds

pytestmark = knows_where_with_exits

DEC = mc.BillingPeriod(START - 31 * DAY, START)
NOV = mc.BillingPeriod(START - 61 * DAY, DEC.start)
NOW = START + 10 * DAY
PER_CASE = 5
"""Steps of each call that the default run interrupts; `make slow` takes every line."""


def items(*names):
    return [
        mc.SubscriptionItem(f"{name}_{mode}", priced(mode=mode))
        for name in names
        for mode in ("sum", "max", "last_ever")
    ]


BOTH = [
    mc.Subscription("one", items("a"), NOV.start),
    mc.Subscription("two", items("b"), NOV.start),
]
POLICY = mc.AcceptancePolicy(late_grace=timedelta(days=20), late_attribution="open_period")


def usage_log():
    """Build a log with compacted, closed and open periods, ids, late usage and a record beyond 64
    bits.
    """
    log = mc.UsageLog(BOTH, policy=POLICY, clock=lambda: NOW)
    for at in (NOV.start_seconds + 9, DEC.start_seconds + 9, START + 9):
        log.append_columns(
            ["a_sum", "a_max", "b_sum"], [5, 7, 9], [at] * 3, ids=[f"{at}", None, None], now=at
        )
        log.record("b_last_ever", 10**20, timestamp=at, action="set", now=at)
    log.close_period("one", NOV, now=START + 9)
    log.compact()
    mc.finalize_invoice(BOTH[0], log, DEC, now=START + 9)
    log.record("a_sum", 3, timestamp=DEC.start_seconds + 10, id="late", now=START + 20)
    return log


def previewed(subscription, usage):
    """Return what the lines of a bill come to."""
    return [
        (line.quantity, line.amount)
        for line in mc.preview_invoice(subscription, usage, now=NOW).lines
    ]


def asked(log):
    """Ask a usage log or a view of it everything."""
    found = [
        outcome(log.summaries, item.id, now=NOW)
        for subscription in BOTH
        for item in subscription.items
    ]
    found += [outcome(log.cells, item, JAN, look_back=True) for item in ("a_sum", "b_sum", "b_max")]
    found += [outcome(log.records, item, JAN) for item in ("a_sum", "b_last_ever")]
    found.append(outcome(previewed, BOTH[1], log))
    return found


def seen(log):
    """Ask a log everything, then use it, and ask again."""
    found = [
        log.state(),
        len(log),
        log.sequence,
        log.subscriptions,
        dict(log.attributed),
        asked(log),
        asked(log.as_of(9)),
    ]
    columns = (["a_sum", "b_sum", "a_sum"], [1, 2, 4], [NOW, "now", NOW])
    found += [
        log.append_columns(*columns, ids=["x", None, "y"]),
        log.append_columns(*columns),
        log.record("b_max", 3),
    ]
    found += [
        outcome(log.record, "a_sum", 2, id="fresh", timestamp=NOW),
        asked(log),
        log.compact(),
        asked(log),
    ]
    return [*found, log.state()]


MIXED = [
    mc.UsageRecord("a_sum", 2, NOW, id="fresh"),
    mc.UsageRecord("unknown", 2, NOW),
    mc.UsageRecord("a_sum", 2, NOW, id="fresh"),
    mc.UsageRecord("a_sum", 4, DEC.start_seconds + 11, id="fresh and late"),
    mc.UsageRecord("b_sum", 10**30, NOW, action="set"),
    mc.UsageRecord("a_sum", 5, NOW + DAY),
]
PLAIN = (["a_sum", "b_sum", "a_sum"], [1, 2, 4], [NOW, NOW + 1, NOW])
HISTORY = [START + 9, NOW, NOW]


def newer():
    """Return a newer version of a subscription, with an item more."""
    return attrs.evolve(BOTH[0], items=(*BOTH[0].items, *items("c")))


def finalized(log):
    return mc.finalize_invoice(BOTH[1], log, DEC, now=NOW)


USAGE = {
    "record": lambda log: log.record("a_sum", 2, timestamp=NOW),
    "record with an id": lambda log: log.record("a_sum", 2, timestamp=NOW, id="fresh"),
    "record late": lambda log: log.record("a_sum", 2, timestamp=DEC.start_seconds + 12, id="fresh"),
    "record refused": lambda log: log.record("a_sum", 2, timestamp=NOW + DAY, id="fresh"),
    "append": lambda log: log.append(MIXED),
    "append plain": lambda log: log.append(
        [mc.UsageRecord("a_sum", 2, NOW), mc.UsageRecord("b_sum", 10**30, NOW)]
    ),
    "append columns": lambda log: log.append_columns(*PLAIN),
    "append columns with ids": lambda log: log.append_columns(*PLAIN, ids=["fresh", None, "other"]),
    "append columns received before": lambda log: log.append_columns(*PLAIN, received_at=HISTORY),
    "subscribe": lambda log: log.subscribe(mc.Subscription("three", items("c"), NOV.start)),
    "subscribe again": lambda log: log.subscribe(newer()),
    "close_period": lambda log: log.close_period("two", DEC, now=NOW),
    "finalize_invoice": finalized,
    "invoice_all": lambda log: mc.invoice_all(BOTH, log, DEC.start, now=NOW),
    "finalize_invoice again": lambda log: mc.finalize_invoice(BOTH[0], log, DEC, now=NOW + 1),
    "stored_invoice": lambda log: log.stored_invoice("one", DEC),
    "what was told": lambda log: [log.closing_of("one", DEC), log.require_told(BOTH[0], JAN)],
    "invoice_changes": lambda log: log.invoice_changes(log.stored_invoice("one", DEC)),
    "changes": lambda log: log.changes(),
    "apply": lambda log: log.apply(
        mc.journal.Change(
            log.last_change + 1,
            record=mc.UsageRecord("a_sum", 2, NOW),
            received_at=from_unix_seconds(NOW),
        )
    ),
    "apply a fact": lambda log: log.apply(
        mc.journal.Change(log.last_change + 1, subscription=newer())
    ),
    "compact": lambda log: log.compact(),
    "compact until": lambda log: log.compact(until=START),
    "summaries": lambda log: log.summaries("a_sum", now=NOW),
    "cells": lambda log: log.cells("a_sum", JAN),
    "records": lambda log: log.records("a_sum", JAN),
    "preview_invoice": lambda log: mc.preview_invoice(BOTH[0], log, now=NOW),
    "as_of": lambda log: asked(log.as_of(9)),
    "state": lambda log: log.state(),
    "snapshot": mc.snapshot,
    "what a log knows": lambda log: [
        log.attributed,
        list(log.compacted_items()),
        log.subscription("one"),
        log.book.by_code,
        log.late("a_sum", JAN),
    ],
}


@attrs.frozen
class Viewed:
    """A log with a view of it, which is what is asked."""

    log: object
    view: object

    @property
    def lock(self):
        return self.log.lock

    @classmethod
    def of(cls, log, limit):
        return cls(log, log.as_of(limit))


def usage_view():
    viewed = Viewed.of(usage_log(), 9)
    viewed.log.record("a_sum", 1)
    return viewed


USAGE_VIEWS = {
    "view cells": lambda viewed: viewed.view.cells("a_sum", JAN),
    "view summaries": lambda viewed: viewed.view.summaries("b_sum", now=NOW),
    "view records": lambda viewed: viewed.view.records("a_sum", JAN),
    "view of a view": lambda viewed: asked(viewed.view.as_of(8)),
    "view late": lambda viewed: viewed.view.late("a_sum", JAN),
    "view of what was told": lambda viewed: [
        viewed.view.require_told(BOTH[1], JAN),
        viewed.view.stored_invoice("one", DEC),
    ],
    "view preview": lambda viewed: mc.preview_invoice(BOTH[1], viewed.view, now=NOW),
}

# Meters -------------------------------------------------------------------------------------------

METERS = [
    mc.Meter("m_sum", "tokens", dimension_payload_keys=["model"]),
    mc.Meter("m_last", "seats", formula="last", event_time_window="day"),
    mc.Meter("m_idle", "idle", status="inactive", deactivated_at=START),
]


def metered(name, *meters):
    price = {
        meter: mc.Price.per_unit(
            meter, currency="usd", unit_amount=1, recurring=mc.Recurring(meter=meter)
        )
        for meter in meters
    }
    found = [mc.SubscriptionItem(f"{name}_{meter}", price[meter]) for meter in meters]
    return mc.Subscription(name, found, DEC.start, customer="cus")


METERED = [metered("one", "m_sum", "m_last"), metered("two", "m_sum")]
METER_POLICY = mc.MeterPolicy(
    backdate_days=None, late_usage="carry_forward", overlap="each_counts_all"
)


def tokens(value, **payload):
    return {"stripe_customer_id": "cus", "value": str(value), "model": "small", **payload}


def meter_log():
    """Build a log with a billed period, late and canceled events, an event time window and
    dimensions.
    """
    log = mc.MeterLog(
        METERS, METERED, customers=["cus", "other"], policy=METER_POLICY, clock=lambda: NOW
    )
    for number, at in enumerate((DEC.start_seconds + 9, START + 9, START + 5, START + 30)):
        log.record(
            "tokens", tokens(number + 1), identifier=f"t{number}", timestamp=at, now=max(at, START)
        )
        log.record(
            "seats",
            {"stripe_customer_id": "cus", "value": "7.50"},
            identifier=f"s{number}",
            timestamp=at,
            now=START + 40,
        )
    mc.finalize_invoice(METERED[0], log, DEC, now=START + 50)
    log.record("tokens", tokens(20, region="eu"), timestamp=DEC.start_seconds + 10, now=START + 60)
    for number in range(20):
        log.record(
            "tokens", tokens(1, model=f"m{number}"), timestamp=START + 100 - number, now=START + 100
        )
    log.cancel("tokens", "t1", now=START + 110)
    asked_of_meters(log)
    log.record("tokens", tokens(3), timestamp=START + 7, now=START + 120)
    log.record(
        "seats", {"stripe_customer_id": "cus", "value": "8"}, timestamp=START + 31, now=START + 120
    )
    return log


def asked_of_meters(log):
    """Ask a meter log or a view of it everything."""
    found = [
        outcome(mc.event_summaries, log, meter, "cus", DEC.start, NOW, **options)
        for meter, options in (
            ("m_sum", {}),
            ("m_sum", {"value_grouping_window": "day"}),
            ("m_sum", {"dimension_group_by_keys": ["model"]}),
            ("m_last", {"value_grouping_window": "day"}),
        )
    ]
    found += [log.unbilled("one"), log.unbilled("two"), log.customers("m_sum"), log.events()]
    found += [outcome(log.counted, item, JAN) for item in METERED[0].items]
    found += [outcome(log.carried, item, JAN) for item in METERED[0].items]
    found += [outcome(previewed, one, log) for one in METERED]
    return found


def seen_of_meters(log):
    """Ask a log everything, then use it, and ask again."""
    found = [
        log.state(),
        len(log),
        log.sequence,
        log.meters,
        log.subscriptions,
        log.book.bills_made,
        sorted(log.known_customers),
    ]
    found += [asked_of_meters(log), asked_of_meters(log.as_of(6))]
    found += [
        log.append(
            [event("tokens", 4, identifier="x"), event("seats", 2), event("tokens", 1, model="new")]
        )
    ]
    found += [log.append([event("tokens", 4), event("tokens", 5)])]
    found += [outcome(log.record, "tokens", tokens(6), identifier="fresh", timestamp=NOW)]
    found += [outcome(log.cancel, "tokens", identifier) for identifier in ("t0", "t2", "fresh")]
    found += [
        asked_of_meters(log),
        outcome(log.close_period, "two", DEC, now=NOW),
        asked_of_meters(log),
        log.state(),
    ]
    return found


def event(name, value, identifier=None, timestamp=NOW, **payload):
    payload = (
        tokens(value, **payload)
        if name == "tokens"
        else {"stripe_customer_id": "cus", "value": str(value)}
    )
    return mc.MeterEvent(name, payload, identifier=identifier, timestamp=timestamp)


def events():
    """Return a batch of which some are kept, some are duplicates and some are refused."""
    return [
        event("tokens", 6, identifier="fresh"),
        event("tokens", 6, identifier="fresh"),
        event("nothing", 6),
        event("seats", "1.0", timestamp="now"),
        event("tokens", 6, model="fresh"),
        event("tokens", "no number"),
    ]


METER = {
    "meter record": lambda log: log.record("tokens", tokens(6), timestamp=NOW),
    "meter record with an identifier": lambda log: log.record(
        "tokens", tokens(6), identifier="fresh", timestamp=NOW
    ),
    "meter record of a new series": lambda log: log.record(
        "tokens", tokens(6, model="fresh", region="eu")
    ),
    "meter record refused": lambda log: log.record("tokens", tokens("x"), identifier="fresh"),
    "meter append": lambda log: log.append(events()),
    "meter append plain": lambda log: log.append(
        [event("tokens", 6), event("tokens", "7.0"), event("tokens", 8, model="m1")]
    ),
    "cancel": lambda log: log.cancel("tokens", "t2"),
    "cancel in a window": lambda log: log.cancel("seats", "s3"),
    "create_meter": lambda log: log.create_meter(mc.Meter("m_new", "new")),
    "update_meter": lambda log: log.update_meter(
        attrs.evolve(METERS[0], display_name="Tokens", status="inactive", deactivated_at=START)
    ),
    "add_customer": lambda log: log.add_customer("third"),
    "meter changes": lambda log: log.changes(),
    "meter apply": lambda log: log.apply(
        mc.journal.Change(log.last_change + 1, meter=mc.Meter("m_new", "new"))
    ),
    "meter subscribe": lambda log: log.subscribe(metered("three", "m_last")),
    "meter subscribe again": lambda log: log.subscribe(metered("two", "m_sum", "m_last")),
    "meter close_period": lambda log: log.close_period("two", DEC, now=NOW),
    "meter finalize_invoice again": lambda log: mc.finalize_invoice(METERED[0], log, DEC, now=NOW),
    "what was told of meters": lambda log: [
        log.closing_of("one", DEC),
        log.require_told(METERED[0], JAN),
    ],
    "meter invoice_changes": lambda log: log.invoice_changes(log.stored_invoice("one", DEC)),
    "meter invoice_all": lambda log: mc.invoice_all(METERED, log, JAN.start, now=FEB.start),
    "meter finalize_invoice": lambda log: mc.finalize_invoice(METERED[0], log, JAN, now=FEB.start),
    "event_summaries": lambda log: mc.event_summaries(
        log, "m_sum", "cus", DEC.start, NOW, value_grouping_window="day"
    ),
    "summaries of a window": lambda log: mc.event_summaries(log, "m_last", "cus", DEC.start, NOW),
    "summaries by dimension": lambda log: mc.event_summaries(
        log, "m_sum", "cus", DEC.start, NOW, dimension_group_by_keys=["model"]
    ),
    "unbilled": lambda log: log.unbilled("one"),
    "counted": lambda log: log.counted(METERED[0].items[0], JAN),
    "events": lambda log: log.events(),
    "meter preview": lambda log: mc.preview_invoice(METERED[0], log, now=NOW),
    "meter as_of": lambda log: asked_of_meters(log.as_of(6)),
    "meter state": lambda log: log.state(),
    "meter snapshot": mc.snapshot,
    "what a meter log knows": lambda log: [
        log.subscription("one"),
        log.known_customers,
        log.book.meter_named("tokens"),
        *measured(log),
    ],
}


def measured(usage):
    """Ask what was measured, whatever was billed."""
    return [ask(item, DEC) for item in METERED[0].items for ask in (usage.measured, usage.merged)]


def meter_view():
    return Viewed.of(meter_log(), 20)


METER_VIEWS = {
    "meter view summaries": lambda viewed: mc.event_summaries(
        viewed.view, "m_sum", "cus", DEC.start, NOW
    ),
    "meter view counted": lambda viewed: viewed.view.counted(METERED[0].items[1], JAN),
    "meter view of a view": lambda viewed: asked_of_meters(viewed.view.as_of(7)),
    "meter view measured": lambda viewed: measured(viewed.view),
    "meter view of what was told": lambda viewed: [
        viewed.view.require_told(METERED[0], JAN),
        viewed.view.stored_invoice("one", DEC),
    ],
    "meter view preview": lambda viewed: mc.preview_invoice(METERED[0], viewed.view, now=NOW),
}


@attrs.frozen
class Streaming:
    """A stream over a meter log, whose tokens count up."""

    log: object
    stream: object

    @property
    def lock(self):
        return self.log.lock


def streaming():
    log = meter_log()
    given = [f"token {number}" for number in range(9, 0, -1)]
    streaming = Streaming(
        log, mc.stripe.MeterEventStream(log, tokens=lambda: given[-1] if not given else given.pop())
    )
    streaming.stream.create_session(now=NOW)
    return streaming


def seen_of_streams(streaming):
    session = streaming.stream.create_session(now=NOW + 1)
    sent = outcome(
        lambda: streaming.stream.send([event("tokens", 1)], session=session, now=NOW + 2)
    )
    return session.id, sent, seen_of_meters(streaming.log)


STREAMS = {
    "create_session": lambda streaming: streaming.stream.create_session(now=NOW),
    "create_session later": lambda streaming: streaming.stream.create_session(now=NOW + DAY),
    "send": lambda streaming: streaming.stream.send(events(), session="token 1", now=NOW),
}


# Both logs ----------------------------------------------------------------------------------------


@attrs.frozen
class TwoLocks:
    """The locks of two logs, as one."""

    locks: tuple

    def acquire(self, *, blocking):
        held = [lock for lock in self.locks if lock.acquire(blocking=blocking)]
        if held != list(self.locks):
            for lock in held:
                lock.release()
        return held == list(self.locks)

    def release(self):
        for lock in self.locks:
            lock.release()


@attrs.frozen
class Paired:
    """Both logs behind one seam, which is what is asked."""

    both: object

    @property
    def lock(self):
        return TwoLocks((self.both.records.lock, self.both.events.lock))


MIGRATING = mc.Subscription(
    "mixed", [*items("a")[:1], metered("one", "m_sum").items[0]], DEC.start, customer="cus"
)


def paired():
    records = mc.UsageLog([MIGRATING], clock=lambda: NOW)
    events = mc.MeterLog(METERS, [MIGRATING], policy=METER_POLICY, clock=lambda: NOW)
    for at in (DEC.start_seconds + 9, START + 9):
        records.record("a_sum", 5, timestamp=at, now=at)
        events.record("tokens", tokens(5), timestamp=at, now=START + 9)
    return Paired(mc.CombinedUsage(records, events))


def half_closed():
    """Build both logs as an interrupt between their closings leaves them."""
    found = paired()
    invoice = mc.finalize_invoice(MIGRATING, paired().both, DEC, now=NOW)
    with found.both.records.closing("mixed", DEC, now=NOW):
        found.both.records.keep_invoice(invoice)
    return found


def closed(paired):
    with paired.both.closing("mixed", DEC, now=NOW) as closed_at:
        return closed_at


def seen_of_both(paired):
    """Finalize, which completes what was interrupted between the two logs, then ask both
    everything.
    """
    both = paired.both
    invoice = mc.finalize_invoice(MIGRATING, both, DEC, now=NOW)
    return invoice, both.records.state(), both.events.state(), previewed(MIGRATING, both)


PAIRED = {
    "both finalize_invoice": lambda paired: mc.finalize_invoice(
        MIGRATING, paired.both, DEC, now=NOW
    ),
    "both invoice_all": lambda paired: mc.invoice_all([MIGRATING], paired.both, DEC.start, now=NOW),
    "both closing": closed,
    "both invoice_changes": lambda paired: paired.both.invoice_changes(
        mc.preview_invoice(MIGRATING, paired.both, now=NOW)
    ),
    "both preview": lambda paired: mc.preview_invoice(MIGRATING, paired.both, now=NOW),
    "both partial": lambda paired: [paired.both.partial(item, JAN) for item in MIGRATING.items],
    "both meter_of": lambda paired: paired.both.meter_of(MIGRATING.items[1]),
}


CASES = [
    Case("both finalize_invoice again", half_closed, PAIRED["both finalize_invoice"], seen_of_both),
    *(Case(name, paired, act, seen_of_both) for name, act in PAIRED.items()),
    *(Case(name, usage_log, act, seen) for name, act in USAGE.items()),
    *(
        Case(name, usage_view, act, lambda one: (asked(one.view), seen(one.log)))
        for name, act in USAGE_VIEWS.items()
    ),
    *(Case(name, meter_log, act, seen_of_meters) for name, act in METER.items()),
    *(
        Case(
            name, meter_view, act, lambda one: (asked_of_meters(one.view), seen_of_meters(one.log))
        )
        for name, act in METER_VIEWS.items()
    ),
    *(Case(name, streaming, act, seen_of_streams) for name, act in STREAMS.items()),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_call_that_is_interrupted_happened_whole_or_not_at_all(case):
    """Stopped at some of its lines, a call leaves a log as if it had not been made or had ended,
    and the log is usable.
    """
    places = every_place_of(case)
    chosen = random.Random(case.name).sample(places, min(PER_CASE, len(places)))  # noqa: S311 - it repeats itself
    assert torn(case, chosen) == []


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_call_may_be_interrupted_at_every_line(case):
    """Stopped at any of its lines, a call leaves a log as if it had not been made or had ended, and
    the log is usable.
    """
    assert torn(case, every_place_of(case)) == []


DOORS = [
    case
    for case in CASES
    if case.name.startswith(("record", "append", "meter record", "meter append"))
]


@pytest.mark.slow
@pytest.mark.parametrize("case", DOORS, ids=lambda case: case.name)
def test_an_append_may_be_interrupted_between_any_two_instructions(case):
    """Exceptions of signals and other threads land between instructions: the doors of the logs hold
    there, too.
    """
    assert torn(case, every_place_of(case, opcodes=True), opcodes=True) == []


# At random moments --------------------------------------------------------------------------------

LIVES = {
    "usage": (Case("usage", usage_log, None, seen), USAGE),
    "meters": (Case("meters", meter_log, None, seen_of_meters), METER),
}
each_life = pytest.mark.parametrize("kind", LIVES)
each_way = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)


@each_life
@each_way
# Raised in a finalizer, an exception of another thread is told and dropped by the interpreter, and
# the call goes on.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    "seed", [1, pytest.param(range(2, 60), marks=pytest.mark.slow)], ids=["once", "often"]
)
def test_a_life_that_is_interrupted_again_and_again_goes_on_as_if_it_were_not(kind, way, seed):
    """Another thread, a timer or no memory interrupts every verb at a random moment: it happened,
    or happens when repeated.
    """
    case, verbs = LIVES[kind]
    for one in seed if isinstance(seed, range) else [seed]:
        acts = list(verbs.values())
        random.Random(one).shuffle(acts)  # noqa: S311 - it repeats itself
        assert torn_in_life(case, acts, way, one) == [], one


def test_a_life_notices_what_is_not_put_back(monkeypatch):
    """A log that keeps what an interrupted append left is torn in some of a few lives; the same
    ones each time.
    """
    monkeypatch.setattr(mc.UsageLog, "_put_back", lambda log: None)
    case, verbs = LIVES["usage"]
    assert any(
        torn_in_life(case, list(verbs.values()), out_of_memory_after, seed) for seed in range(5)
    )


# Which verbs there are ----------------------------------------------------------------------------

KINDS = [
    mc.UsageLog,
    mc.MeterLog,
    type(usage_log().as_of(1)),
    type(meter_log().as_of(1)),
    mc.CombinedUsage,
    mc.stripe.MeterEventStream,
]
NEVER_INTERRUPTED = {
    "UsageView.book": "that of the log",
    "UsageLog.from_state": "makes a log: where it is interrupted, there is none",
    "MeterLog.from_state": "makes a log: where it is interrupted, there is none",
}


def test_every_verb_is_interrupted():
    """A public verb of a log, a view, a stream or both logs is in the tables above, or below with
    the reason why it is not.
    """
    assert never_interrupted(KINDS, CASES, NEVER_INTERRUPTED) == []


def test_a_new_verb_is_missed():
    """What no case comes to is named, and so is a reason for what is not there."""

    class Newer(mc.UsageLog):
        def forgotten(self):
            """Do something."""

    missed = never_interrupted(
        [Newer],
        [Case("compact", usage_log, USAGE["compact"], seen)],
        {"Newer.gone": "it is not there"},
    )
    assert {"Newer.forgotten", "Newer.gone", "Newer.record"} <= set(missed)
    assert "Newer.compact" not in missed

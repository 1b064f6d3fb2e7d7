"""What guards a log: it is not copied nor changed while a period is billed, a fork frees its lock,
threads see it whole.
"""

from __future__ import annotations

import copy
import dis
import gc
import inspect
import os
import pickle
import sys
import threading
import time
import weakref
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import attrs
import pytest
from builders import FEB, JAN, START, priced, subscribed, used
from interrupting import is_free

import metering_core as mc
from metering_core import guarding
from metering_core.accounts import Account

NOW = START + 9


def metered():
    """Return a meter log with an event of a subscription's customer."""
    price = mc.Price.per_unit("p", currency="usd", unit_amount=1, recurring=mc.Recurring(meter="m"))
    subscription = mc.Subscription(
        "sub", [mc.SubscriptionItem("si_0", price)], START, customer="cus"
    )
    log = mc.MeterLog(
        [mc.Meter("m", "tokens")], [subscription], policy=mc.MeterPolicy(backdate_days=None)
    )
    log.record(
        "tokens",
        {"stripe_customer_id": "cus", "value": "5"},
        identifier="a",
        timestamp=START,
        now=NOW,
    )
    return log


LOGS = {"usage": lambda: used((START, 5)), "meters": metered}
both_logs = pytest.mark.parametrize("made", LOGS.values(), ids=LOGS)


# Copies -------------------------------------------------------------------------------------------


@both_logs
@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, pickle.dumps], ids=["copy", "deepcopy", "pickle"]
)
def test_a_log_is_not_copied(made, copied):
    """Two logs with one state would bill each record twice: copies and pickles are refused, and a
    snapshot is pointed at.
    """
    log = made()
    with pytest.raises(mc.InvalidValueError, match=r"snapshot\(log\)") as refused:
        copied(log)
    assert (refused.value.code, refused.value.param) == ("copy_refused", "log")
    restored = (mc.restore if isinstance(log, mc.UsageLog) else mc.restore_meter_log)(
        mc.snapshot(log)
    )
    assert restored == log


@both_logs
def test_nothing_keeps_a_log_alive(made):
    """A log that is no longer used goes, with its lock."""
    log = made()
    gone, lock = weakref.ref(log), weakref.ref(log.lock)
    del log
    gc.collect()
    assert gone() is lock() is None


# While a period is billed -------------------------------------------------------------------------


CHANGES = {
    "usage": {
        "record": lambda log: log.record("si_0", 7, timestamp=START, now=NOW),
        "append": lambda log: log.append([mc.UsageRecord("si_0", 7, START)], now=NOW),
        "append_columns": lambda log: log.append_columns(["si_0"], [7], [START], now=NOW),
        "subscribe": lambda log: log.subscribe(log.subscriptions[0]),
        "compact": lambda log: log.compact(),
    },
    "meters": {
        "record": lambda log: log.record(
            "tokens", {"stripe_customer_id": "cus", "value": "7"}, timestamp=START, now=NOW
        ),
        "append": lambda log: log.append(
            [mc.MeterEvent("tokens", {"stripe_customer_id": "cus", "value": "7"}, timestamp=START)],
            now=NOW,
        ),
        "cancel": lambda log: log.cancel("tokens", "a", now=NOW),
        "create_meter": lambda log: log.create_meter(mc.Meter("n", "new")),
        "update_meter": lambda log: log.update_meter(
            mc.Meter("m", "tokens", display_name="Tokens")
        ),
        "add_customer": lambda log: log.add_customer("new"),
        "subscribe": lambda log: log.subscribe(log.subscriptions[0]),
    },
}


@pytest.mark.parametrize(
    ("kind", "verb"), [(kind, verb) for kind, verbs in CHANGES.items() for verb in verbs]
)
def test_a_log_is_not_changed_by_the_thread_that_bills_a_period(kind, verb):
    """What a rounding (or a pricing model) of one's own appends while it bills would be in no bill:
    it is refused by name.
    """
    log, refused = LOGS[kind](), []

    def meddling(exact):
        with pytest.raises(mc.UsageRejectedError) as raised:
            CHANGES[kind][verb](log)
        refused.append(raised.value.code)
        return mc.money.half_up(exact)

    subscription, before = log.subscriptions[0], len(log)
    assert mc.finalize_invoice(subscription, log, JAN, now=FEB.start, rounding=meddling).total == 5
    assert (refused, len(log)) == (["period_being_billed"], before)
    CHANGES[kind]["subscribe"](log)


@both_logs
def test_a_period_that_was_not_billed_after_all_holds_up_nothing(made):
    """Where billing fails, or is abandoned without a word, the log takes usage as before."""
    log = made()
    change = CHANGES["usage" if isinstance(log, mc.UsageLog) else "meters"]["append"]
    with pytest.raises(ZeroDivisionError), log.closing("sub", JAN, now=FEB.start):
        raise ZeroDivisionError
    change(log)
    abandoned = guarding.Billing({"sub": None})
    log.book.unfinished = weakref.ref(abandoned)
    del abandoned
    change(log)
    with log.closing("sub", JAN, now=FEB.start), pytest.raises(mc.UsageRejectedError):
        change(log)


def test_another_thread_s_billing_is_over_in_a_forked_child():
    """A child has no other thread: what one of them was billing when it was forked holds up
    nothing.
    """
    log, billing = used((START, 5)), guarding.Billing({"sub": None})
    billing.thread = -1
    log.book.unfinished = weakref.ref(billing)
    log.record("si_0", 1, timestamp=START, now=NOW)
    assert len(log) == 2


@both_logs
def test_billing_within_billing_ends_with_the_outer_one(made):
    """Several periods may be closed at once, each with its own invoice; usage is taken again after
    the last of them.
    """
    log = made()
    kind = "usage" if isinstance(log, mc.UsageLog) else "meters"
    items = [attrs.evolve(item, id="other") for item in log.subscriptions[0].items]
    log.subscribe(attrs.evolve(log.subscriptions[0], id="other", items=items, customer="another"))
    with log.closing("sub", JAN, now=FEB.start):
        with log.closing("other", JAN, now=FEB.start):
            log.keep_invoice(outer := mc.preview_invoice(log.subscriptions[0], log, now=START))
            log.keep_invoice(inner := mc.preview_invoice(log.subscriptions[1], log, now=START))
        with pytest.raises(mc.UsageRejectedError):
            CHANGES[kind]["append"](log)
        with pytest.raises(mc.InvalidValueError, match="being closed"):
            log.keep_invoice(inner)
    CHANGES[kind]["append"](log)
    assert [log.stored_invoice(one, JAN) for one in ("sub", "other")] == [outer, inner]
    with pytest.raises(mc.InvalidValueError, match="being closed"):
        log.keep_invoice(outer)


def with_another(made):
    """Return a log that has another customer's subscription too, and what a preview of January
    bills of it.
    """
    log = made()
    items = [attrs.evolve(item, id="other") for item in log.subscriptions[0].items]
    log.subscribe(attrs.evolve(log.subscriptions[0], id="other", items=items, customer="another"))
    return log, mc.preview_invoice(log.subscriptions[1], log, now=START)


@pytest.fixture
def interrupted_once(monkeypatch):
    """Interrupt the next period that is being closed, after its bills were kept; what is asked next
    finishes it.
    """
    close, interrupts = Account.close, iter([KeyboardInterrupt])

    def interrupted(account, closing):
        for interrupt in interrupts:
            raise interrupt
        close(account, closing)

    monkeypatch.setattr(Account, "close", interrupted)


@both_logs
@pytest.mark.usefixtures("interrupted_once")
def test_a_closing_that_is_interrupted_leaves_the_outer_one_open(made):
    """Of two periods closed at once, an interrupt leaves the decided one closed whole and once, and
    the other one open.
    """
    log, invoice = with_another(made)
    with (
        pytest.raises(KeyboardInterrupt),
        log.closing("sub", JAN, now=FEB.start),
        log.closing("other", JAN, now=FEB.start),
    ):
        log.keep_invoice(invoice)
    assert [log.stored_invoice(one, JAN) for one in ("sub", "other")] == [None, invoice]
    assert list(log.state().closed) == ["other"]
    if isinstance(log, mc.MeterLog):
        assert [(item, bill.number) for item, _, bill in log.state().bills] == [("other", 1)]
    CHANGES["usage" if isinstance(log, mc.UsageLog) else "meters"]["append"](log)


@both_logs
@pytest.mark.usefixtures("interrupted_once")
def test_a_closing_goes_on_after_one_within_it_was_interrupted(made):
    """Where the interrupt is caught within the outer closing, both periods are closed, each once
    and whole.
    """
    log, invoice = with_another(made)
    with (
        log.closing("sub", JAN, now=FEB.start),
        pytest.raises(KeyboardInterrupt),
        log.closing("other", JAN, now=FEB.start),
    ):
        log.keep_invoice(invoice)
    assert [log.stored_invoice(one, JAN) for one in ("sub", "other")] == [None, invoice]
    assert sorted(log.state().closed) == ["other", "sub"]
    if isinstance(log, mc.MeterLog):
        assert [(item, bill.number) for item, _, bill in log.state().bills] == [
            ("other", 1),
            ("si_0", 2),
        ]
    CHANGES["usage" if isinstance(log, mc.UsageLog) else "meters"]["append"](log)


# Python 3.13 --------------------------------------------------------------------------------------


def jumps_that_nothing_guards(code):
    """Return the lines within `with` at which Python 3.13 may raise a signal's exception past it
    (python/cpython#130279).
    """
    instructions, entries = list(dis.get_instructions(code)), dis.Bytecode(code).exception_entries
    handlers = {
        one.offset for one, then in pairwise(instructions) if then.opname == "WITH_EXCEPT_START"
    }
    withs = [entry for entry in entries if entry.target in handlers]
    found = []
    for before, one, after in zip(instructions, instructions[1:], instructions[2:], strict=False):
        if (
            one.opname == "JUMP_BACKWARD"
            and "JUMP" in before.opname
            and not any(e.start <= one.offset < e.end for e in entries)
        ):
            within = [e for e in entries if e.start <= after.offset < e.end]
            if any(e in withs or any(w.start <= e.target < w.end for w in withs) for e in within):
                found.append((code.co_qualname, one.positions.lineno))
    for constant in code.co_consts:
        found += jumps_that_nothing_guards(constant) if inspect.iscode(constant) else []
    return found


@pytest.mark.skipif(sys.version_info[:2] != (3, 13), reason="Python 3.13 alone compiles them so")
def test_no_lock_is_held_around_a_loop_that_a_signal_may_leave_it_by():
    """Loops with a condition are in functions of their own, called while a lock is held: a call is
    guarded on every Python.
    """
    folder = Path(mc.__file__).parent
    locking = [
        path
        for path in folder.rglob("*.py")
        if ".lock" in path.read_text() or "held_still" in path.read_text()
    ]
    found = [
        one
        for path in locking
        for one in jumps_that_nothing_guards(compile(path.read_text(), path.name, "exec"))
    ]
    assert found == []
    looping = "def f(lock, rows):\n with lock:\n  {}"
    for loop in ("for row in rows:\n   if row: f()", "return [row for row in rows if row]"):
        assert len(jumps_that_nothing_guards(compile(looping.format(loop), "f", "exec"))) == 1


# Forks --------------------------------------------------------------------------------------------


@contextmanager
def held_elsewhere(lock):
    """Hold a lock in another thread."""
    held, done = threading.Event(), threading.Event()

    def hold():
        with lock:
            held.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    yield
    done.set()
    thread.join()


@both_logs
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_does_not_hang(made):
    """A child that was forked while another thread held the log's lock can use the log."""
    log = made()
    with held_elsewhere(log.lock):
        child = os.fork()
        if child == 0:
            os._exit(0 if log.lock.acquire(blocking=False) and log.sequence == 1 else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_child_frees_the_locks_of_other_threads_alone():
    """A lock that the forking thread holds itself stays held, once for each time that it was
    taken.
    """
    mine, theirs = guarding.new_lock(), guarding.new_lock()
    mine.acquire()
    thread = threading.Thread(target=theirs.acquire)
    thread.start()
    thread.join()
    guarding._free_in_child()
    assert (is_free(mine), is_free(theirs)) == (False, True)
    mine.release()
    assert is_free(mine)


# Threads ------------------------------------------------------------------------------------------


@contextmanager
def meddled(*acts):
    """Have other threads do something again and again, as often switched to as can be; what they
    raise is raised here.
    """
    interval, stop, raised = sys.getswitchinterval(), threading.Event(), []

    def again(act):
        try:
            while not stop.is_set():
                act()
        except BaseException as error:  # noqa: BLE001 - it is raised where the test can see it
            raised.append(error)

    threads = [threading.Thread(target=again, args=(act,)) for act in acts]
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        sys.setswitchinterval(interval)
    assert raised == []


def until(seconds):
    """Count, for a while."""
    end, number = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        yield number
        number += 1


def test_properties_are_asked_while_others_subscribe():
    """The subscriptions, meters, customers and late records of a log are those of one moment,
    whatever comes meanwhile.
    """
    usage, meters = used((START, 5)), mc.MeterLog(customers=["cus"])

    def asked():
        return (
            usage.subscriptions,
            dict(usage.attributed),
            meters.meters,
            meters.subscriptions,
            list(meters.known_customers),
        )

    with meddled(asked):
        for number in until(0.3):
            item = mc.SubscriptionItem(f"more {number}", priced())
            usage.subscribe(mc.Subscription(f"more {number}", [item], START))
            meters.create_meter(mc.Meter(f"m{number}", f"event {number}"))
            meters.add_customer(f"cus {number}")


def test_a_line_shows_the_usage_that_it_billed():
    """Usage that comes while an invoice is made is in its lines and in their evidence, or in
    neither.
    """
    log, subscription = used((START, 5)), subscribed()
    price = mc.Price.per_unit("p", currency="usd", unit_amount=1, recurring=mc.Recurring(meter="m"))
    both = mc.Subscription(
        "sub", [*subscription.items, mc.SubscriptionItem("metered", price)], START, customer="cus"
    )
    meters = mc.MeterLog(
        [mc.Meter("m", "tokens")], [both], policy=mc.MeterPolicy(backdate_days=None)
    )

    def used_again():
        log.record("si_0", 1, timestamp=START, now=NOW)
        meters.record(
            "tokens", {"stripe_customer_id": "cus", "value": "1"}, timestamp=START, now=NOW
        )

    with meddled(used_again):
        for _ in until(0.3):
            for bill in (
                mc.preview_invoice(both, mc.CombinedUsage(log, meters), now=NOW),
                *mc.invoice_all([subscription], log, NOW),
            ):
                for line in bill.lines:
                    item = both.item(line.subscription_item)
                    assert mc.summarize(item, line.usage.view, JAN).total_usage == line.quantity


# Work ---------------------------------------------------------------------------------------------


def test_a_newer_version_costs_what_it_has(monkeypatch):
    """A newer version of a subscription asks nothing about the items of others."""
    log = mc.UsageLog(
        mc.Subscription(f"s{n}", [mc.SubscriptionItem(f"i{n}", priced())], START)
        for n in range(100)
    )
    looked_at = []
    monkeypatch.setattr(
        "metering_core.accounts.KnownItem.drop", lambda self: looked_at.append(self.item.id)
    )
    log.subscribe(attrs.evolve(log.subscriptions[7], customer="cus"))
    assert looked_at == ["i7"]


# Batches ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", LOGS)
def test_a_batch_that_raises_half_way_leaves_nothing(kind, monkeypatch):
    """Whatever raises while a batch is judged, the log has none of it, its ids are free, and later
    records are whole.
    """
    log = LOGS[kind]()
    before, judged = log.state(), []

    def raising(*_given, **_options):
        judged.append(1)
        if len(judged) == 2:
            raise RecursionError

    if kind == "usage":
        records = [
            mc.UsageRecord("si_0", number, JAN.end_seconds - 1, id=f"{number}") for number in (2, 3)
        ]
        monkeypatch.setattr(mc.UsageLog, "_judge", raising)
    else:
        payloads = [{"stripe_customer_id": "cus", "value": f"{number}.0"} for number in (2, 3)]
        records = [
            mc.MeterEvent("tokens", one, identifier=one["value"], timestamp=START)
            for one in payloads
        ]
        monkeypatch.setattr(mc.MeterLog, "_keep_rest", raising)
    with pytest.raises(RecursionError):
        log.append(records, now=NOW)
    monkeypatch.undo()
    assert len(log) == 1
    assert log.state() == before
    kept = log.append(records, now=JAN.end_seconds - 1)
    assert [receipt.outcome for receipt in kept] == ["accepted", "accepted"]
    assert mc.preview_invoice(log.subscriptions[0], log, now=NOW).total == 10

"""Several engines over one book: what is told to one is told to all, what one closes is closed, and
usage stays each one's own.
"""

from __future__ import annotations

import gc

import attrs
import pytest
from builders import FEB, JAN, START, priced, subscribed
from interrupting import outcome

import metering_core as mc
from metering_core.columnar import ColumnarUsage
from metering_core.sql import DuckDBUsage

NOW = START + 100
DEARER = priced(id="dearer", model=mc.pricing.PerUnit(2))


def shared():
    """Return a log, and columns over its book."""
    log = mc.UsageLog([subscribed()])
    return log, ColumnarUsage(book=log.book)


def use(usage, quantity=5, **options):
    """Append a record of the item to either; return its receipt."""
    record = mc.UsageRecord(
        options.pop("item", "si_0"), quantity, options.pop("timestamp", START + 9), **options
    )
    return usage.append([record], now=NOW)[0]


def test_what_is_told_to_one_is_told_to_all():
    """A subscription that the log is told is the columns' too, and the other way round, with each
    newer version.
    """
    log, columns = shared()
    columns.subscribe(other())
    assert log.subscriptions == columns.subscriptions == (subscribed(), other())
    assert use(log, item="other").outcome == use(columns, item="other").outcome == "accepted"
    log.subscribe(
        attrs.evolve(other(), items=[mc.SubscriptionItem("third", priced())]), rebill=True
    )
    assert use(columns, item="other").code == use(log, item="other").code
    assert use(columns, item="third").outcome == use(log, item="third").outcome == "accepted"


def other():
    """Return another subscription, with an item of its own."""
    return mc.Subscription("two", [mc.SubscriptionItem("other", priced())], START)


def test_what_one_closes_is_closed_for_all():
    """The invoice that one finalized is what the other returns, and neither takes usage of the
    period any more.
    """
    log, columns = shared()
    use(columns)
    billed = mc.finalize_invoice(subscribed(), columns, JAN, now=FEB.start)
    assert billed.total == 5
    use(log, 7)
    assert mc.finalize_invoice(subscribed(), log, JAN, now=FEB.start) == billed
    assert log.stored_invoice("sub", JAN) == columns.stored_invoice("sub", JAN) == billed
    columns.require_told(subscribed(DEARER), JAN)  # Its invoice stays, whatever is told.
    late = [usage.append([mc.UsageRecord("si_0", 1, START)], now=START) for usage in (log, columns)]
    assert [one[0].code for one in late] == ["period_closed"] * 2


def test_a_newer_version_is_judged_by_the_usage_of_all():
    """Usage that only the columns hold forbids a dearer price that the log is told; once they are
    gone, so is the reason.
    """
    log, columns = shared()
    use(columns)
    assert outcome(log.subscribe, subscribed(DEARER), now=NOW) == "change_not_billable"
    assert log.subscriptions == (subscribed(),)
    del columns
    gc.collect()
    log.subscribe(subscribed(DEARER), now=NOW)
    assert log.subscriptions == (subscribed(DEARER),)


@pytest.mark.parametrize("kind", [mc.UsageLog, ColumnarUsage])
def test_usage_and_ids_are_each_one_s_own(kind):
    """One id is accepted by each of two that share a book, and a bill counts the usage of the one
    that is asked.
    """
    log = mc.UsageLog([subscribed()])
    second = kind(book=log.book)
    assert use(log, 5, id="one").sequence == use(second, 7, id="one").sequence == 1
    assert use(second, 7, id="one").outcome == "duplicate"
    bills = [mc.preview_invoice(subscribed(), usage, now=NOW).total for usage in (log, second)]
    assert bills == [5, 7]
    assert [len(log), len(second)] == [1, 1]


def test_while_one_bills_none_takes_usage():
    """The thread that bills a period of the log appends nothing to the columns either."""
    log, columns = shared()
    with log.closing("sub", JAN, now=FEB.start), pytest.raises(mc.UsageRejectedError) as raised:
        use(columns)
    assert raised.value.code == "period_being_billed"
    assert len(columns) == 0


def test_what_interrupts_one_is_put_back_by_the_other(monkeypatch):
    """An append to the log that is cut short leaves nothing, whoever comes next."""
    log, columns = shared()

    def interrupted(*_, **__):
        log._store.begin(0, START, 5, False)
        raise KeyboardInterrupt

    monkeypatch.setattr(log, "_take", interrupted)
    with pytest.raises(KeyboardInterrupt):
        log.record("si_0", 5, timestamp=START, id="x", now=NOW)
    assert use(columns).sequence == 1
    assert [log.records(), log.book.unfinished] == [[], None]


def test_a_meter_is_told_once():
    """A log whose meter is deactivated, or comes, while it takes events knows it at once."""
    meter = mc.Meter("m", "tokens")
    log = mc.MeterLog()
    payload = {"stripe_customer_id": "cus", "value": "5"}
    with pytest.raises(mc.UsageRejectedError, match="tokens"):
        log.record("tokens", payload, now=NOW)
    log.book.create_meter(meter)
    log.record("tokens", payload, now=NOW)
    log.book.update_meter(attrs.evolve(meter, status="inactive", deactivated_at=START))
    with pytest.raises(mc.UsageRejectedError) as raised:
        log.record("tokens", payload, now=NOW)
    assert (raised.value.code, len(log)) == ("meter_inactive", 1)


def test_files_are_billed_by_the_book_as_it_was():
    """SQL knows the subscriptions and invoices of a log's book, and nothing that it is told
    later.
    """
    duckdb = pytest.importorskip("duckdb")
    rows = duckdb.sql("SELECT 'si_0' AS subscription_item, 5 AS quantity, 1706745609 AS timestamp")
    log = mc.UsageLog([subscribed()])
    use(log)
    billed = mc.finalize_invoice(subscribed(), log, JAN, now=FEB.start)
    usage = DuckDBUsage(rows, book=log.book, now=FEB.start_seconds + 9)
    assert mc.finalize_invoice(subscribed(), usage, JAN, now=FEB.end) == billed
    assert mc.preview_invoice(subscribed(), usage, now=FEB.start_seconds + 10).total == 5
    log.subscribe(subscribed(DEARER), now=FEB.start)
    assert usage.subscriptions == (subscribed(),)
    told = outcome(mc.finalize_invoice, subscribed(DEARER), usage, FEB, now=FEB.end)
    assert told == "change_not_billable"


@pytest.mark.parametrize("more", [{"subscriptions": [subscribed()]}, {"closed": {}}])
def test_a_book_says_it_all(more):
    """Subscriptions or closings beside a book are refused: which of both would hold?"""
    duckdb = pytest.importorskip("duckdb")
    rows = duckdb.sql("SELECT 'si_0' AS subscription_item, 5 AS quantity, 1706745609 AS timestamp")
    book = mc.UsageLog([subscribed()]).book
    with pytest.raises(mc.InvalidValueError) as raised:
        DuckDBUsage(rows, book=book, now=FEB.start_seconds + 9, **more)
    assert (raised.value.code, raised.value.param) == ("parameters_exclusive", "book")


def test_what_was_told_is_numbered():
    """Each fact has a number, a refused one none: meters, versions and closings in one sequence."""
    log = mc.UsageLog()
    told = [log.book.told]
    log.subscribe(subscribed())
    told.append(log.book.told)
    with pytest.raises(mc.InvalidValueError):
        log.subscribe(subscribed(billing_cycle_anchor=START + 1))
    told.append(log.book.told)
    log.close_period("sub", JAN, now=FEB.start)
    assert [*told, log.book.told] == [0, 1, 1, 2]


@pytest.mark.parametrize("kind", [mc.UsageLog, ColumnarUsage])
@pytest.mark.parametrize("book", [mc.MeterLog().book, "book", object(), mc.UsageLog()])
def test_another_kind_of_book_is_refused(kind, book):
    """A book of meters knows no items of usage records, and what is no book knows nothing."""
    with pytest.raises(mc.InvalidValueError) as raised:
        kind(book=book)
    assert (raised.value.code, raised.value.param) == ("parameter_invalid_object", "book")


def test_columns_have_no_more_items_than_their_cells_hold(monkeypatch):
    """A book that others told more items than fit the columns' cells is refused when it is used:
    no two items are one.
    """
    log, columns = shared()
    monkeypatch.setattr("metering_core.columnar.usage.CODES_MAX", 1)
    assert outcome(columns.subscribe, other()) == "parameter_invalid_object"
    assert use(columns).outcome == "accepted"
    log.subscribe(other())
    assert outcome(use, columns) == "parameter_invalid_object"
    assert len(columns) == 1


def test_who_is_gone_is_asked_no_more():
    """A book keeps none of those alive that share it."""
    log, columns = shared()
    second = mc.UsageLog(book=log.book)
    del columns
    gc.collect()
    third = mc.UsageLog(book=log.book)
    kept = [one() for one in log.book._keepers]
    assert [one is kept[place] for place, one in enumerate([log, second, third])] == [True] * 3
    assert len(kept) == 3

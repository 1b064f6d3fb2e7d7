"""Aggregation: one row a mode, in any split, and kept up to date while cells change."""

from __future__ import annotations

from fractions import Fraction

import attrs
import pytest
from builders import JAN, MODES, START, four_modes, planted, priced, subscribed, used
from hypothesis import given
from hypothesis import strategies as st

from metering_core import (
    AggregateUsage,
    ErrorCode,
    InvalidValueError,
    InvoicingError,
    Recurring,
    SubscriptionItem,
    Usage,
    UsageLog,
    UsageSummary,
    summarize,
)
from metering_core.aggregation import required_mode, summarize_all
from metering_core.measures import (
    AGGREGATORS,
    FORMULAS,
    Aggregator,
    Folded,
    kernel_for,
    require_sql,
)
from metering_core.meters import Formula

NAIVE = {
    "sum": lambda cells: sum(cells.values()),
    "max": lambda cells: max(cells.values(), default=0),
    "last_during_period": lambda cells: cells[max(cells)] if cells else 0,
    "last_ever": lambda cells: cells[max(cells)] if cells else 0,
    "min": lambda cells: min(cells.values(), default=0),
    "count": len,
    "average": lambda cells: Fraction(sum(cells.values()), len(cells)) if cells else 0,
    "hourly_peaks": lambda cells: peaks(cells, 3600),
    "daily_peaks": lambda cells: peaks(cells, 86_400),
}


def peaks(cells, seconds):
    """Return what the greatest cell of each window adds up to."""
    return sum(
        max(cells[at] for at in cells if at // seconds == one)
        for one in {at // seconds for at in cells}
    )


# Timestamps on both sides of an hour, and of a day.
SECONDS = st.sampled_from([0, 1, 3599, 3600, 86_399, 86_400, 86_401, 90_000])
CELLS = st.dictionaries(SECONDS, st.integers(0, 4), max_size=6)
CHANGES = st.lists(st.tuples(SECONDS, st.integers(0, 4), st.booleans()), max_size=40)


@given(st.sampled_from(MODES), CELLS, SECONDS)
def test_partials_merge_in_any_split(mode, cells, cut):
    """Cells aggregate to the naive quantity, cut in two at any timestamp and merged in either
    order, and one by one.
    """
    aggregator = AGGREGATORS[AggregateUsage(mode)]
    left = aggregator.fold({at: quantity for at, quantity in cells.items() if at < cut})
    right = aggregator.fold({at: quantity for at, quantity in cells.items() if at >= cut})
    for partial in (
        aggregator.fold(cells),
        aggregator.merge(left, right),
        aggregator.merge(right, left),
        Aggregator.fold(aggregator, cells),
        aggregator.merge(aggregator.identity, aggregator.fold(cells)),
    ):
        assert aggregator.present(partial) == NAIVE[mode](cells)


@given(st.sampled_from(MODES), CHANGES)
def test_running_partials_follow_changes(mode, changes):
    """A partial that is kept while cells come, rise and sink equals a new fold; asked at every
    step, at some, or at none.
    """
    aggregator = AGGREGATORS[AggregateUsage(mode)]
    cells = {}
    running = aggregator.running(cells)
    for timestamp, quantity, is_asked in changes:
        before = cells.get(timestamp)
        cells[timestamp] = quantity
        running.changed(timestamp, before, quantity)
        if is_asked:
            assert aggregator.present(running.partial()) == NAIVE[mode](cells)
    assert aggregator.present(running.partial()) == NAIVE[mode](cells)


def test_the_running_maximum_stays_small():
    """A cell that sinks and rises for ever does not make the maximum's memory grow: stale
    candidates are dropped.
    """
    cells = {0: 5, 1: 3}
    running = AGGREGATORS[AggregateUsage.MAX].running(cells)
    assert running.partial() == 5
    for step in range(1000):
        before, cells[0] = cells[0], (step % 2) * 5
        running.changed(0, before, cells[0])
        assert running.partial() == max(cells.values())
    assert len(running._heap or ()) < 100


def test_the_running_maximum_finds_a_cell_that_rose_below_it():
    """A cell that rises without becoming the greatest is the greatest once those above it have
    sunk.
    """
    cells = {0: 5, 1: 3}
    running = AGGREGATORS[AggregateUsage.MAX].running(cells)
    assert running.partial() == 5
    for timestamp, quantity, greatest in ((0, 1, 3), (0, 2, 3), (1, 0, 2)):
        before, cells[timestamp] = cells[timestamp], quantity
        running.changed(timestamp, before, quantity)
        assert running.partial() == greatest


class Watched(dict):
    """Cells that count how often somebody goes through all of them."""

    walks = 0

    def __iter__(self):
        self.walks += 1
        return super().__iter__()

    def values(self):
        """Count."""
        self.walks += 1
        return super().values()

    def items(self):
        """Count."""
        self.walks += 1
        return super().items()


@pytest.mark.parametrize(
    ("mode", "walks"), [("sum", 1), ("max", 2), ("last_during_period", 1), ("last_ever", 1)]
)
def test_a_change_costs_the_same_however_many_cells_there_are(mode, walks):
    """The cells are gone through once for the first answer, and for the maximum once more when the
    greatest sinks.
    """
    cells = Watched({timestamp: 1000 + timestamp for timestamp in range(200)})
    running = AGGREGATORS[AggregateUsage(mode)].running(cells)
    running.partial()
    rises_and_sinks = (
        [(199, 2000), (199, 5), (198, 5)]
        + [(0, step) for step in range(200)]
        + [(197, 6), (200, 3000), (200, 1)]
    )
    for timestamp, quantity in rises_and_sinks:
        before = cells.get(timestamp)
        cells[timestamp] = quantity
        running.changed(timestamp, before, quantity)
        running.partial()
    assert cells.walks == walks
    assert AGGREGATORS[AggregateUsage(mode)].present(running.partial()) == NAIVE[mode](cells)


class Product(Aggregator):
    """A mode of somebody's own: all cells multiplied."""

    identity = 1

    def prepare(self, timestamp, quantity):
        return quantity

    def merge(self, left, right):
        return left * right

    def present(self, partial):
        return partial


def test_a_mode_is_three_functions():
    """A mode with nothing but its own functions folds, and keeps a running partial by
    folding anew.
    """
    cells = {1: 3, 2: 4}
    running = Product().running(cells)
    running.changed(2, None, 4)
    assert running.partial() == Product().fold(cells) == 12
    cells[2] = 5
    running.changed(2, 4, 5)
    assert running.partial() == 15


@pytest.mark.parametrize(
    "ask", [lambda a: a.prepare(0, 1), lambda a: a.merge(1, 1), lambda a: a.present(1)]
)
def test_a_mode_without_functions_says_so(ask):
    """The base class answers nothing by itself."""
    with pytest.raises(NotImplementedError):
        ask(Aggregator())


def test_summaries_have_stripes_shape():
    """A summary names item, mode, period and quantity, whatever engine answers the protocol."""
    log = used((START, 5), (START + 1, 3), subscription=None)
    item = log.subscriptions[0].items[0]
    assert isinstance(log, Usage)
    assert summarize(item, log, JAN) == UsageSummary(
        "si_0", AggregateUsage.SUM, JAN.start, JAN.end, 8
    )


def test_an_engine_that_answers_too_little_is_found_out():
    """One partial for two items is an error, not a bill with one of them left out."""

    class Forgetful:
        def partials(self, requests):
            return [5 for _ in requests][1:]

    requests = [(item, JAN) for item in four_modes().items[:2]]
    with pytest.raises(ValueError, match="shorter"):
        summarize_all(requests, Forgetful())


@pytest.mark.parametrize(
    ("recurring", "kind"),
    [
        (Recurring(usage_type="licensed"), "licensed"),
        (Recurring(usage_type="metered", meter="mtr"), "on a meter: a MeterLog has its usage"),
    ],
)
def test_an_item_without_records_has_no_mode(recurring, kind):
    """The refusal names the item and its price, and says what the price goes by instead."""
    item = SubscriptionItem("si_seats", priced(recurring=recurring, id="seats"))
    with pytest.raises(InvoicingError) as caught:
        required_mode(item)
    assert (caught.value.code, caught.value.param) == ("price_not_metered", "subscription_item")
    assert caught.value.message == (
        "subscription_item: expected an item whose price aggregates usage records, "
        "received 'si_seats', "
        f"whose price 'seats' is {kind}"
    )


def test_every_mode_has_a_row():
    """The table has one row a mode, and only last_ever looks back."""
    assert set(AGGREGATORS) == set(AggregateUsage)
    assert [mode for mode, row in AGGREGATORS.items() if row.looks_back] == ["last_ever"]
    assert [item.recurring.aggregate_usage for item in four_modes().items] == list(MODES)


@pytest.mark.parametrize(
    ("kind", "param", "rows"),
    [(AggregateUsage, "aggregate_usage", AGGREGATORS), (Formula, "formula", FORMULAS)],
)
def test_an_engine_refuses_by_name_what_it_lacks(kind, param, rows):
    """An engine that has no kernel for a row, or does not know of it at all, says so, and what it
    knows.
    """
    kernels = {row.column: number for number, row in enumerate(rows.values())}
    assert all(
        kernel_for(kernels, member, "columns") == kernels[rows[member].column] for member in kind
    )
    del kernels["sums"]
    some = ", ".join(repr(member.value) for member in kind if rows[member].column != "sums")
    every = ", ".join(repr(member.value) for member in kind)
    for member, known in ((kind("sum"), some), (planted(kind, "median"), every)):
        with pytest.raises(InvoicingError) as caught:
            kernel_for(kernels, member, "columns")
        assert (caught.value.code, caught.value.param) == ("formula_not_available", param)
        assert (
            caught.value.message
            == f"{param}: expected one that columns can compute ({known}), received "
            f"{member.value!r}"
        )
    with pytest.raises(InvoicingError) as caught:
        require_sql(planted(kind, "median"), "SQL")
    assert caught.value.code == "formula_not_available"


@pytest.mark.parametrize(
    "row", [*AGGREGATORS.values(), *FORMULAS.values()], ids=lambda row: type(row).__name__
)
def test_sql_says_all_that_a_row_takes_of_it(row):
    """What a row takes of SQL's folding is among its fields, and makes a partial like that of its
    cells.
    """
    assert set(row.sql) <= {field.name for field in attrs.fields(Folded)}


ITEM = subscribed().items[0]


@pytest.mark.parametrize(
    "wrong", [ITEM, (ITEM,), (ITEM, JAN, JAN), (JAN, ITEM), ("si_0", JAN), [ITEM, START], None]
)
def test_a_request_is_an_item_and_a_period(wrong):
    """What is no pair of the two, in that order, is refused by its place among the requests; a list
    of the two is taken.
    """
    log = UsageLog([subscribed()])
    log.record("si_0", 5, timestamp=START, now=START)
    assert log.partials([[ITEM, JAN], (ITEM, JAN)]) == [5, 5]
    with pytest.raises(
        InvalidValueError, match="expected a SubscriptionItem and a BillingPeriod"
    ) as refused:
        log.partials([(ITEM, JAN), wrong])
    assert (refused.value.code, refused.value.param) == (
        ErrorCode.PARAMETER_INVALID_OBJECT,
        "requests[1]",
    )


class Lazy:
    """A row of an ORM whose session is closed: whatever it is asked for, it raises."""

    def __getattr__(self, name):
        raise RuntimeError(name)


def test_what_raises_when_it_is_asked_is_no_usage():
    """A value that cannot even say what it has is refused as any other that is no usage, without an
    error of its own.
    """
    with pytest.raises(
        InvalidValueError, match=r"usage: expected a Usage, .* received .*Lazy"
    ) as refused:
        summarize(ITEM, Lazy(), JAN)
    assert (refused.value.code, refused.value.param) == (
        ErrorCode.PARAMETER_INVALID_OBJECT,
        "usage",
    )

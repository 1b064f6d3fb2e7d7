"""Law 4: every engine gives the receipts, summaries and invoices of a log, in thousands of
adversarial cases.

Spark is held to the same by tests/engines/test_sql_spark.py, where its session is.
"""

from __future__ import annotations

from collections import Counter
from functools import cache, partial
from operator import attrgetter

import engine_cases
import pytest
from builders import START, priced, subscribed
from engine_cases import ENGINES, EXTRAS, POLICIES, Batch, differences, generated

import metering_core as mc
from metering_core import Subscription, SubscriptionItem, UsageRecord

SEEDS = [pytest.param(0), pytest.param(1, marks=pytest.mark.slow)]


@cache
def batch_of(policy, seed):
    """Return hundreds of cases; the same ones for each engine."""
    return generated(seed, 250, policy)


@pytest.fixture(params=ENGINES)
def engine(request):
    """Return one engine after the other; skip one whose extra is absent."""
    for module in EXTRAS.get(request.param, ()):
        pytest.importorskip(module, reason=f"the engine {request.param!r} needs {module}")
    return ENGINES[request.param]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("policy", POLICIES)
def test_engine_says_what_a_log_says(engine, policy, seed):
    """Receipts, partials, summaries and invoices of hundreds of adversarial cases are those of a
    log.
    """
    batch = batch_of(policy, seed)
    assert not list(differences(batch, engine(batch)))


@pytest.mark.slow
@pytest.mark.parametrize("policy", POLICIES)
def test_engine_says_what_a_log_says_at_length(engine, policy):
    """The same for a thousand cases in one batch."""
    batch = generated(100, 1_000, policy)
    assert not list(differences(batch, engine(batch)))


@pytest.mark.parametrize("cases", [0, 1])
def test_nothing_is_usage_of_nothing(engine, cases):
    """Without a row, with and without subscriptions, there are no receipts and every summary and
    invoice is of nothing.
    """
    batch = Batch(POLICIES["late"], generated(0, cases, "late").subscriptions)
    assert not list(differences(batch, engine(batch)))


def dropped(usage, append):
    """Return what becomes of records of an item that the newest version has no more: a retry, other
    content, another id.
    """
    append([UsageRecord("si_0", 5, timestamp=START, id="a")])
    usage.subscribe(Subscription("sub", [SubscriptionItem("si_1", priced())], START), rebill=True)
    contents = [(5, "a"), (6, "a"), (5, "b"), (5, None)]
    return [
        receipt.code or receipt.outcome
        for content, record_id in contents
        for receipt in append([UsageRecord("si_0", content, timestamp=START, id=record_id)])
    ]


def columns_to(usage):
    """Return what appends records to columns in one call."""
    names = ("subscription_item", "quantity", "timestamp", "action", "id")
    return lambda records: usage.append_columns(
        *zip(*map(attrgetter(*names), records), strict=True), now=START
    )


@pytest.mark.parametrize("kind", ["records", "columns", "columnar", "duckdb"])
def test_a_used_id_of_a_dropped_item_is_no_reused_id(kind):
    """The order of the codes decides: an item that there is no more is unknown, whatever its ids
    were used for.
    """
    unknown = mc.ErrorCode.SUBSCRIPTION_ITEM_UNKNOWN
    if kind == "duckdb":  # It is told the newest version alone, and takes all usage for new.
        pytest.importorskip("duckdb", reason="the engine needs duckdb")
        rows = [("si_0", quantity, START, "increment", "a", START) for quantity in (5, 6)]
        batch = Batch(
            POLICIES["literal"],
            [Subscription("sub", [SubscriptionItem("si_1", priced())], START)],
            rows=rows,
        )
        assert [receipt.code for receipt in ENGINES[kind](batch).receipts().values()] == [
            unknown
        ] * 2
        return
    usage = mc.UsageLog([subscribed()])
    append = columns_to(usage) if kind == "columns" else partial(usage.append, now=START)
    if kind == "columnar":
        usage = pytest.importorskip("metering_core.columnar", exc_type=ImportError).ColumnarUsage(
            [subscribed()]
        )
        append = partial(usage.append, now=START)
    assert dropped(usage, append) == ["duplicate", unknown, unknown, unknown]


def test_cases_reach_every_refusal():
    """The generated cases have accepted records, duplicates and every code of a refusal, or they
    would prove nothing.
    """
    seen = set()
    for batch in [batch_of(policy, seed) for policy in POLICIES for seed in range(2)]:
        seen |= {receipt.code or receipt.outcome for receipt in batch.log()[1]}
    assert seen == {
        *(
            "accepted",
            "duplicate",
            "subscription_item_unknown",
            "id_reused",
            "price_not_metered",
            "subscription_canceled",
        ),
        *("set_with_billing_thresholds", "timestamp_in_future", "timestamp_after_current_period"),
        *("timestamp_before_current_period", "period_closed", "late_usage_not_billable"),
    }


def test_cases_reach_what_engines_stumble_over():
    """Accepted records collide, set over increments and the reverse, lie on both edges of periods
    and leave 64 bits.
    """
    seen = Counter()
    for batch in [batch_of(policy, seed) for policy in POLICIES for seed in range(2)]:
        log, _ = batch.log()
        owners = {
            item.id: subscription
            for subscription in batch.subscriptions
            for item in subscription.items
        }
        before, sums = {}, Counter()
        for one in log.records():
            record, period = (
                one.record,
                owners[one.record.subscription_item].period_at(one.billed_at),
            )
            cell = record.subscription_item, one.billed_at, record.timestamp
            if cell in before:
                seen[f"{record.action} after {before[cell]}"] += 1
            before[cell] = str(record.action)
            sums[cell] += record.quantity
            seen["the first second of a period"] += record.timestamp == period.start_seconds
            seen["the last second of a period"] += record.timestamp == period.end_seconds - 1
            seen["2^63 - 1"] += record.quantity == 2**63 - 1
            seen["billed in a later period"] += one.billed_at != record.instant
        seen["sums beyond 64 bits"] += sum(total > 2**64 for total in sums.values())
        used = {owner.id for row in batch.rows if (owner := owners.get(row[0])) is not None}
        seen["cases without usage"] += len(batch.subscriptions) - len(used)
    assert all(count >= 10 for count in seen.values()), seen
    actions = ("increment", "set")
    assert {f"{later} after {earlier}" for later in actions for earlier in actions} <= set(seen)


def test_the_comparison_finds_one_wrong_answer():
    """A single receipt, partial, summary, invoice or period that is otherwise is a difference."""
    batch = batch_of("late", 0)
    for broken in _broken_answers(batch):
        assert engine_cases.dies(batch, lambda _, broken=broken: broken)
    assert not engine_cases.dies(batch, engine_cases.log_one_by_one)


def _broken_answers(batch):
    """Yield what a log answers with one of its answers changed."""
    right = engine_cases.log_one_by_one(batch)
    receipts = dict(list(right.receipts().items())[1:])
    periods = dict(list(right.periods_with_usage().items())[1:])
    yield engine_cases.Answered(right.usage, lambda: receipts, right.periods_with_usage)
    yield engine_cases.Answered(right.usage, right.receipts, lambda: periods)
    yield engine_cases.Answered(_OneUnitMore(right.usage), right.receipts, right.periods_with_usage)


class _OneUnitMore:
    """A log whose every sum of more than 2^64 is one too many."""

    def __init__(self, log):
        self.log = log

    def partials(self, requests):
        return [_one_more(partial) for partial in self.log.partials(requests)]

    def partial(self, item, period):
        return _one_more(self.log.partial(item, period))


def _one_more(partial):
    return partial + 1 if isinstance(partial, int) and partial > 2**64 else partial

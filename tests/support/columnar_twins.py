"""A log and its columnar twin, which are told the same and must answer the same: what the tests of
columns are made of.
"""

from __future__ import annotations

from datetime import timedelta
from itertools import islice, pairwise

import numpy as np
from builders import DAY, FEB, JAN, MAR, MODES, START, four_modes, priced, subscribed
from hypothesis import settings
from hypothesis import strategies as st

import metering_core as mc
from metering_core.aggregation import summarize_all
from metering_core.columnar import ColumnarUsage, UsageBatch, folding
from metering_core.columnar import totals as numpy_totals
from metering_core.columnar.arrays import ORIGIN
from metering_core.columnar.folding import Rows
from metering_core.columnar.totals import Window
from metering_core.periods import from_unix_seconds
from metering_core.testing.strategies import batches, subscriptions

MAX = 2**63 - 1

FEWER = settings(max_examples=settings.default.max_examples // 4)
"""For stories: each is the whole life of an engine, and test_engines.py tells thousands of shorter
ones.
"""


def records_of(usage):
    """Return the records, or the code with which they are refused because some were compacted."""
    try:
        return usage.records()
    except mc.errors.UsageCompactedError as error:
        return error.code


def grace_and_retries():
    """Compare the last second of the late grace and the first after it, and retries of sets and of
    ``now``.
    """
    twins = Twins([four_modes()], mc.AcceptancePolicy(late_grace=timedelta(seconds=5)))
    for at in (4, 5, 6):
        twins.append(
            [mc.UsageRecord(mode, 1, timestamp=JAN.end_seconds - 1) for mode in MODES],
            FEB.start_seconds + at,
        )
    moments = [FEB.start_seconds + at for at in (4, 5, 6)]
    twins.import_history([mc.UsageRecord("sum", 1, timestamp=JAN.end_seconds - 1)] * 3, moments)
    kinds = [
        (stamp, action) for stamp in ("now", FEB.start_seconds) for action in ("set", "increment")
    ]
    records = [
        mc.UsageRecord("max", 3, timestamp=stamp, action=action, id=f"{stamp}{action}")
        for stamp, action in kinds
    ]
    for at in (1, 2):
        twins.append(records, FEB.start_seconds + at)
    swapped = [
        mc.UsageRecord("max", 3, timestamp=stamp, action="increment", id=f"{stamp}set")
        for stamp, _ in kinds
    ]
    twins.append(swapped, FEB.start_seconds + 3)
    twins.compare(FEB.start_seconds + 3)


def late_and_compacted():
    """Compare usage that is billed in a later period than its own, before and after its period is
    compacted.
    """
    policy = mc.AcceptancePolicy(late_grace=timedelta(days=40), late_attribution="open_period")
    twins = Twins([four_modes()], policy)
    early = [
        mc.UsageRecord(mode, 7, timestamp=START + at, id=f"{at}") for mode in MODES for at in (0, 9)
    ]
    twins.append(early, START + 9)
    twins.close(four_modes(), JAN, FEB.start_seconds)
    for action in ("increment", "set", "increment"):
        late = [
            mc.UsageRecord(mode, 5, timestamp=at, action=action)
            for mode in MODES
            for at in (START + 9, FEB.start_seconds)
        ]
        twins.append(late, FEB.start_seconds + 1)
        twins.compare(FEB.start_seconds + 1)
    held = twins.log.as_of(12), twins.columns.as_of(12)
    for until in (JAN.end, FEB.end):
        twins.compare(MAR.start_seconds, held)
        twins.close(four_modes(), FEB, MAR.start_seconds)
        twins.compare_views([3, 9, 12, 20], MAR.start_seconds)
        twins.same(lambda usage, until=until: usage.compact(until=until))
        twins.compare(MAR.start_seconds)
        twins.compare(MAR.start_seconds, held)
        twins.compare_views([3, 9, 12, 20], MAR.start_seconds)
        twins.append(early, MAR.start_seconds + 1)


def late_again():
    """Compare retries of usage that a later period bills, in its own batch and in the next."""
    policy = mc.AcceptancePolicy(late_grace=timedelta(days=40), late_attribution="open_period")
    late = [mc.UsageRecord("sum", 5, timestamp=START + 7, id="late")]
    twins = Twins([four_modes()], policy)
    twins.close(four_modes(), JAN, FEB.start_seconds)
    twins.append(late * 3, FEB.start_seconds + 1)
    twins.append(late, FEB.start_seconds + 2)
    twins.compare(FEB.start_seconds + 3)
    assert len(twins.columns) == len(twins.log) == 1


def daily(anchor=START, **options):
    """Return a subscription that is billed every day."""
    recurring = mc.Recurring(interval="day", usage_type="metered")
    return subscribed(priced(recurring=recurring), billing_cycle_anchor=anchor, **options)


def days_apart():
    """Return subscriptions, a policy, records in a few days far from each other, and when each was
    received.
    """
    days = [0, 1, 2, 400, 9_000, 9_001, 100_000]
    moments = [START + day * DAY + second for day in days for second in (0, 5, 3600, 3601, DAY - 1)]
    backs = [(item, back) for back in (0, 3600, DAY) for item in ("si_0", "max")]
    records = [mc.UsageRecord(item, 1, at - back) for at in moments for item, back in backs]
    of = [daily(START + 3600, id="daily"), four_modes()]
    return (
        of,
        mc.AcceptancePolicy(late_grace=timedelta(hours=3)),
        records,
        [at for at in moments for _ in backs],
    )


def outcome_of(act):
    """Return what a call returns, or what it raises as comparable data."""
    try:
        return act()
    except mc.MeteringError as error:
        return type(error), error.code, error.message, error.param


def columns_of(records):
    """Return records as the keyword arguments of `append_columns` and `from_columns`."""
    return {
        "quantities": [record.quantity for record in records],
        "timestamps": [record.timestamp for record in records],
        "actions": [record.action.value for record in records],
        "ids": [record.id for record in records],
    }


class Twins:
    """A log and columns over the same subscriptions; every method acts on both and compares what
    they say.
    """

    def __init__(self, of, policy=None):
        self.of = list(of)
        self.log = mc.UsageLog(self.of, policy=policy)
        self.columns = ColumnarUsage(self.of, policy=policy)

    def same(self, act):
        """Let both do the same; the answers must be equal."""
        expected, received = (
            outcome_of(lambda: act(self.log)),
            outcome_of(lambda: act(self.columns)),
        )
        assert received == expected, f"{received} is not {expected}"
        return expected

    def same_totals(self, asked):
        """Compare quantities as an array with the summaries of the log."""
        expected = [summary.total_usage for summary in summarize_all(asked, self.log)]
        assert self.columns.total_usage(asked).tolist() == expected
        assert self.columns.as_of(self.columns.sequence).total_usage(asked).tolist() == expected

    def same_totals_of_all(self, *periods):
        """Compare the quantities of all items, whose prices have one mode, with those asked for one
        by one.
        """
        items = [item for one in self.of for item in one.items]
        assert self.columns.item_ids == tuple(item.id for item in items)
        mode = items[0].recurring.aggregate_usage
        modes = ["sum", mode, "max"]
        for period in (JAN, *periods):
            expected = [
                summary.total_usage
                for summary in summarize_all([(item, period) for item in items], self.log)
            ]
            assert self.columns.total_usage_of_all(period, modes)[mode].tolist() == expected
            assert (
                self.columns.as_of(self.columns.sequence)
                .total_usage_of_all(period, modes)[mode]
                .tolist()
                == expected
            )

    def append(self, records, now):
        """Append at one moment: the log from records, the columns too."""
        expected = self.log.append(records, now=now)
        received = self.columns.append(records, now=now)
        self.compare_receipts(received, expected)

    def import_history(self, records, received_at):
        """Append as columns, each record received at its own moment."""
        items = [record.subscription_item for record in records]
        columns = columns_of(records)
        expected = self.log.append_columns(items, **columns, received_at=received_at)
        received = self.columns.append(
            UsageBatch.from_columns(items, **columns), received_at=received_at
        )
        self.compare_receipts(received, expected)

    def compare_receipts(self, received, expected):
        """Compare receipt by receipt, and the counts."""
        assert list(received) == list(expected)
        assert received == expected
        assert expected == received
        assert repr(received) == repr(expected)
        assert (received.accepted, received.duplicates) == (expected.accepted, expected.duplicates)
        assert received.rejected == expected.rejected

    def close(self, subscription, period, now):
        """Close a period on both, whether it may be closed or not."""
        self.same(lambda usage: usage.close_period(subscription.id, period, now=now))

    def compare(self, now, usages=None):
        """Compare every answer of both, or of two views of them."""
        log, columns = usages or (self.log, self.columns)
        assert log.sequence == columns.sequence
        for subscription in self.of:
            asked = [
                (item, period)
                for item in subscription.items
                for period in periods_around(subscription)
            ]
            metered = [
                request for request in asked if request[0].recurring.aggregate_usage is not None
            ]
            expected, received = (
                answers_of(usage, subscription, asked, metered, now) for usage in (log, columns)
            )
            for question, answer in expected.items():
                assert received[question] == answer, (
                    f"{question}: {received[question]} is not {answer}"
                )
        assert records_of(columns) == records_of(log)

    def compare_views(self, limits, now):
        """Compare views of both, also where one is a view of a view."""
        for limit in limits:
            views = self.log.as_of(limit), self.columns.as_of(limit)
            self.compare(now, views)
            self.compare(now, tuple(view.as_of(max(view.sequence - 1, 0)) for view in views))


def answers_of(usage, subscription, asked, metered, now):
    """Return every answer about a subscription, by the question."""

    def each(question):
        return [
            outcome_of(lambda item=item, period=period: question(item, period))
            for item, period in asked
        ]

    return {
        "partial": each(usage.partial),
        "partials": outcome_of(lambda: usage.partials(metered)),
        "cells": each(lambda item, period: usage.cells(item.id, period)),
        "records": each(lambda item, period: usage.records(item.id, period)),
        "summaries": [
            outcome_of(lambda item=item: usage.summaries(item.id, now=now))
            for item in subscription.items
        ],
        "preview": outcome_of(lambda: mc.preview_invoice(subscription, usage, now=now)),
    }


def periods_around(subscription):
    """Return whole periods of a subscription's cycle, and spans that cut through them."""
    cycle = subscription.cycle
    whole = [
        cycle.period_at(cycle.period_at(cycle.anchor).start_seconds - 1),
        *islice(cycle.periods_from(cycle.anchor), 3),
    ]
    cut = [mc.BillingPeriod(one.start_seconds + 1, one.end_seconds - 1) for one in whole[1:3]]
    return [
        *whole,
        *cut,
        mc.BillingPeriod(whole[0].start, whole[-1].end),
        mc.BillingPeriod(whole[1].start_seconds, whole[2].end_seconds - 1),
    ]


POLICIES = st.builds(
    mc.AcceptancePolicy,
    future_tolerance=st.sampled_from([timedelta(0), timedelta(seconds=1), timedelta(days=400)]),
    late_grace=st.sampled_from(
        [timedelta(0), timedelta(seconds=2), timedelta(days=3), timedelta(days=3000)]
    ),
    late_attribution=st.sampled_from(list(mc.acceptance.LateAttribution)),
)


def within_64_bits(records):
    """Return the records that columns can hold."""
    return [record for record in records if record.quantity <= MAX]


STEPS = st.sampled_from(
    ["append", "import", "close", "compact", "compact some", "compare", "view", "end", "again"]
)


@st.composite
def stories(draw):
    """Draw what happens to a subscription's usage: batches, closed periods, compaction, and
    questions between.
    """
    subscription = draw(subscriptions(thresholds=draw(st.booleans()), ends=draw(st.booleans())))
    received = [
        (now, within_64_bits(records)) for now, records in draw(batches(subscription, max_size=10))
    ]
    return (
        subscription,
        draw(POLICIES),
        received,
        draw(st.lists(STEPS, min_size=len(received), max_size=2 * len(received) + 2)),
    )


def live(story):
    """Tell both twins a story, and compare them as it goes and at its end."""
    subscription, policy, received, steps = story
    twins = Twins([subscription], policy)
    waiting = list(received)
    now = subscription.cycle.period_at(subscription.cycle.anchor).start_seconds
    for step in [*steps, *["append"] * len(received)]:
        now = step_of(twins, subscription, step, waiting, now)
    twins.compare(now)
    moments = [from_unix_seconds(at) for at, _ in received]
    twins.compare_views(
        [0, min(1, twins.log.sequence), twins.log.sequence // 2, twins.log.sequence, *moments[:2]],
        now,
    )


def step_of(twins, subscription, step, waiting, now):
    """Let one thing happen; return what time it is then."""
    ended = subscription.cycle.period_at(subscription.cycle.period_at(now).start_seconds - 1)
    match step:
        case "append" | "import" if waiting:
            now, records = waiting.pop(0)
            if step == "append":
                twins.append(records, now)
            else:
                at = [
                    now if record.timestamp == "now" or number % 3 == 0 else record.timestamp
                    for number, record in enumerate(records)
                ]
                twins.import_history(records, at)
        case "close":
            twins.close(subscription, ended, now)
        case "compact":
            twins.same(lambda usage: usage.compact())
        case "compact some":
            twins.same(lambda usage: usage.compact(until=ended.start))
        case "compare":
            twins.compare(now)
        case "view":
            twins.compare_views([twins.log.sequence - 1 if twins.log.sequence else 0], now)
        case "end":
            starts_late = subscription.start_date > subscription.billing_cycle_anchor
            newer = subscription if starts_late else subscription.canceled(now + 1)
            twins.same(lambda usage: usage.subscribe(newer))
        case "again":
            twins.same(lambda usage: usage.subscribe(subscription))
    return now


# Two kernels --------------------------------------------------------------------------------------


def compiled_always(patch, workers=1, unit_rows=300_000):
    """Have the compiled loops answer whatever they can, many items or few, with so many workers and
    rows in a unit.
    """
    from metering_core.columnar import answering, paths  # noqa: PLC0415 - Numba may be absent
    from metering_core.columnar.compiled import folding as compiled  # noqa: PLC0415

    patch.setattr(answering, "_MANY", 1)
    patch.setattr(paths, "PAYS_FROM", 0)
    patch.setattr(paths, "PAYS_ONCE_LOADED_FROM", 0)
    patch.setattr(paths, "ITEMS_A_ROW", 10**9)
    patch.setattr(compiled, "workers_for", lambda rows: workers)
    patch.setattr(compiled, "UNIT_ROWS", unit_rows)


ITEMS = 5
MOMENTS = [
    ORIGIN,
    ORIGIN + 1,
    0,
    START,
    START + 1,
    START + 2,
    START + 40 * 86_400,
    253_402_300_798,
    253_402_300_799,
]
QUANTITIES = [0, 1, 2, 7, 2**31, 2**32 - 1, 2**32, 2**55, 2**62, MAX - 1, MAX]
ROW = st.tuples(
    st.integers(0, ITEMS - 1),
    st.sampled_from(MOMENTS),
    st.sampled_from(QUANTITIES),
    st.sampled_from([False, False, True]),
)


@st.composite
def two_kernels_asked(draw):
    """Draw parts of rows, a window for each item, and how the compiled loops are to share
    the work.
    """
    near = st.sampled_from(draw(st.sampled_from([MOMENTS, MOMENTS[3:6], MOMENTS[:2]])))
    small = draw(st.booleans())
    row = st.builds(
        lambda row, at: (row[0], at, row[2] % 1000 if small else row[2], row[3]), ROW, near
    )
    parts = draw(st.lists(st.lists(row, max_size=12), max_size=4))
    windows = draw(st.lists(st.tuples(near, near), min_size=ITEMS, max_size=ITEMS))
    everywhere = draw(st.booleans())
    windows = [(ORIGIN, 2**60) if everywhere else (low, high + 1) for low, high in windows]
    return (
        parts,
        windows,
        draw(st.integers(1, 3)),
        draw(st.integers(1, 4)),
        draw(st.sampled_from([1, 6, 10**6])),
    )


def rows_from(part):
    """Return rows from tuples of code, timestamp, quantity and whether it is a set."""
    codes, stamps, quantities, sets = zip(*part, strict=True) if part else ((), (), (), ())
    columns = (np.array(column, np.int64) for column in (stamps, quantities))
    return Rows.of(np.array(codes, np.int32), *columns, np.array(sets, np.bool_))


def same_in_both_kernels(patch, parts, windows, workers, unit_rows, few_sets):
    """Compare every total and all cells, in the compiled loops and in NumPy."""
    from metering_core.columnar import paths  # noqa: PLC0415 - Numba may be absent
    from metering_core.columnar.compiled import folding as compiled  # noqa: PLC0415

    compiled_always(patch, workers, unit_rows)
    patch.setattr(compiled, "_FEW_SETS", few_sets)
    rows = [rows_from(part) for part in parts]
    window = Window(*(np.array(column, np.int64) for column in zip(*windows, strict=True)))
    kinds = {kind: np.ones(ITEMS, np.bool_) for kind in ("sums", "maxima", "lasts")}
    together = paths.totals(rows, window, kinds)
    for kind in kinds:
        expected = totals_of(getattr(numpy_totals, kind)(rows, window))
        assert totals_of(together[kind]) == expected, kind
        assert totals_of(paths.totals(rows, window, {kind: kinds[kind]})[kind]) == expected, kind
    for one in rows:
        assert cells_of(paths.fold(one)) == cells_of(folding.fold(one))


def totals_of(totals):
    """Return totals as plain data, without what is said of items that are not there."""
    values = totals.values.tolist()
    there = [True] * len(values) if totals.is_there is None else totals.is_there.tolist()
    stamps = [None] * len(values) if totals.stamps is None else totals.stamps.tolist()
    return [
        (value, stamp) if is_there else None
        for value, stamp, is_there in zip(values, stamps, there, strict=True)
    ]


def cells_of(cells):
    """Return cells as plain data."""
    sets = [False] * len(cells) if cells.sets is None else cells.sets.tolist()
    return list(zip(cells.keys.tolist(), cells.values.tolist(), sets, strict=True))


ALIKE = [
    ["a", "b"],
    ["", "a"],
    ["si_00000", "si_00001"],
    ["si_00000000", "ti_00000000"],
    ["si_0" * 4, "si_0" * 4 + "0"],
]
"""Strings that differ in a byte or two: the only, the last, the first, and one more."""


@st.composite
def strings_and_hashes(draw):
    """Draw a column of strings, where it is cut, whether its offsets are wide, and how many bits of
    its hashes are kept.
    """
    every = [one for some in ALIKE for one in some]
    one = st.sampled_from(draw(st.sampled_from([*ALIKE, every])))
    strings = draw(st.lists(one, max_size=30)) + draw(st.lists(st.text(max_size=20), max_size=3))
    edges = draw(st.lists(st.integers(0, len(strings)), max_size=4))
    return (
        strings,
        sorted({0, len(strings), *edges}),
        draw(st.booleans()),
        draw(st.sampled_from([0, 1, 64, 64, 64])),
    )


def same_codes(patch, strings, edges, is_wide, bits):
    """Compare the codes of strings with those that Arrow gives; where few bits of hashes are kept,
    none may be given.
    """
    import pyarrow as pa  # noqa: PLC0415 - may be absent, as Numba may

    from metering_core.columnar import paths  # noqa: PLC0415
    from metering_core.columnar.compiled import strings as loops  # noqa: PLC0415

    def narrowed(strings, hashes, hash_of=loops._hash):
        hash_of(strings, hashes)
        hashes &= np.uint64(2**bits - 1) << np.uint64(64 - max(bits, 1))

    compiled_always(patch)
    patch.setattr(loops, "TABLE_BITS", 1)
    patch.setattr(loops, "_hash", narrowed)
    column = pa.array(strings, pa.large_string() if is_wide else pa.string())
    found = paths.encoded([column[at:end] for at, end in pairwise(edges)])
    if bits == 64 or len(set(strings)) == 1:
        assert (found is None) == (not strings)
    if found is not None:
        expected = column.dictionary_encode()
        assert found[0].tolist() == expected.indices.to_pylist()
        assert found[1].to_pylist() == expected.dictionary.to_pylist()

"""The compiled loops give the answers of NumPy, or leave them to it."""

from __future__ import annotations

import sys

import pytest

np = pytest.importorskip("numpy", reason="needs the extra columnar")
pytest.importorskip("numba", reason="needs the extra compiled")

from builders import JAN, START, four_modes  # noqa: E402 - after the skip
from columnar_twins import (  # noqa: E402
    FEWER,
    MAX,
    compiled_always,
    live,
    same_codes,
    same_in_both_kernels,
    stories,
    strings_and_hashes,
    two_kernels_asked,
)
from hypothesis import given  # noqa: E402
from test_columnar import catalog_of, usage_of  # noqa: E402

import metering_core as mc  # noqa: E402
from metering_core.aggregation import summarize_all  # noqa: E402
from metering_core.columnar import (  # noqa: E402
    ColumnarUsage,
    UsageBatch,
    paths,
)
from metering_core.columnar.arrays import ORIGIN  # noqa: E402
from metering_core.columnar.compiled import folding as compiled  # noqa: E402
from metering_core.columnar.compiled import strings  # noqa: E402
from metering_core.columnar.compiled import workers as sharing  # noqa: E402
from metering_core.columnar.folding import Rows  # noqa: E402
from metering_core.columnar.totals import Window  # noqa: E402

LAST = 253_402_300_799
"""The last second of the year 9999."""


@given(two_kernels_asked())
def test_both_kernels_agree(asked):
    """Sums, greatest and latest cells and all cells are the same in both kernels, whatever the
    rows, windows and workers.
    """
    with pytest.MonkeyPatch.context() as patch:
        same_in_both_kernels(patch, *asked)


@pytest.mark.slow
@FEWER
@given(stories())
def test_columns_are_the_log_where_compiled(story):
    """Receipts, partials, summaries, invoices and views are those of the log, with a unit for every
    other row.
    """
    with pytest.MonkeyPatch.context() as patch:
        compiled_always(patch, workers=2, unit_rows=2)
        live(story)


@given(strings_and_hashes())
def test_strings_have_the_codes_that_arrow_gives(drawn):
    """Strings are numbered as Arrow does, in slices too; two with one hash are noticed, and left to
    Arrow.
    """
    pytest.importorskip("pyarrow", reason="needs pyarrow")
    with pytest.MonkeyPatch.context() as patch:
        same_codes(patch, *drawn)


@pytest.mark.parametrize("is_hash_lost", [False, True])
def test_a_table_of_arrow_is_read_by_the_compiled_loops(monkeypatch, is_hash_lost):
    """Items and actions of a table in chunks are those of its strings, also where every string has
    the same hash.
    """
    pyarrow = pytest.importorskip("pyarrow", reason="needs pyarrow")
    items = [f"si_{number % 7}" for number in range(50)]
    columns = {
        "subscription_item": items,
        "quantity": range(50),
        "timestamp": [START] * 50,
        "action": ["set", "increment"] * 25,
    }
    table = pyarrow.table(columns)
    compiled_always(monkeypatch)
    if is_hash_lost:
        monkeypatch.setattr(strings, "_hash", lambda strings, hashes: hashes.fill(0))
    batch = UsageBatch.from_arrow(pyarrow.concat_tables([table[:20], table[20:20], table[20:]]))
    assert [batch.names[code] for code in batch.codes] == items
    assert batch.sets.tolist() == [True, False] * 25


def rows_of(*columns, sets=None):
    """Return rows of codes, timestamps and quantities."""
    codes, stamps, quantities = (np.array(column, np.int64) for column in columns)
    return Rows.of(
        codes.astype(np.int32), stamps, quantities, None if sets is None else np.array(sets)
    )


def window_of(items, low=ORIGIN, high=LAST + 1):
    """Return one window for all items."""
    return Window(np.full(items, low, np.int64), np.full(items, high, np.int64))


def test_both_ends_of_the_calendar():
    """The first and the last second there is are folded, in one item and in neighbours."""
    rows = rows_of([0, 0, 1, 1, 1], [ORIGIN, LAST, LAST, ORIGIN, LAST], [1, 2, 4, 8, 16])
    found = compiled.everything([rows], window_of(2))
    assert found.totals.tolist() == [[3, 2, LAST, 2], [28, 20, LAST, 20]]


def test_the_greatest_quantity_of_64_bits():
    """2**63 - 1 alone is folded in one limb, and set or not it keeps its value."""
    for sets in (None, [True]):
        rows = rows_of([0], [START], [MAX], sets=sets)
        assert compiled.everything([rows], window_of(1)).totals.tolist() == [[MAX, MAX, START, MAX]]
        assert compiled.sums([rows], window_of(1)).values.tolist() == [MAX]
        assert compiled.lasts([rows], window_of(1)).values.tolist() == [MAX]


def test_what_may_exceed_64_bits_is_left_to_numpy(monkeypatch):
    """Where no bound proves that sums fit, the compiled loops are not asked, and the sum is
    exact.
    """
    compiled_always(monkeypatch)
    rows = rows_of([0, 0, 0], [START, START, START + 1], [MAX, MAX, MAX])
    assert paths._fast([rows], 1) is None
    found = paths.totals([rows], window_of(1), {"sums": np.array([True])})["sums"]
    assert found.values.tolist() == [3 * MAX]
    assert paths.fold(rows).values.tolist() == [2 * MAX, MAX]


def test_keys_that_do_not_fit_are_left_to_numpy(monkeypatch):
    """Where item, timestamp and arrival need more bits than a key has, every answer comes from
    NumPy, and is the same.
    """
    rows = rows_of(range(40), [ORIGIN, LAST] * 20, range(40))
    monkeypatch.setattr(compiled, "_KEY_BITS", 45)
    assert compiled.fold(rows) is None
    assert compiled.everything([rows], window_of(40)) is None
    compiled_always(monkeypatch)
    assert paths.fold(rows).values.tolist() == list(range(40))
    assert paths.totals([rows], window_of(40), {"maxima": np.ones(40, np.bool_)})[
        "maxima"
    ].values.tolist() == list(range(40))


def test_one_item_with_everything(monkeypatch):
    """An item with all records of many is one unit, and its sums are what Python's integers say."""
    compiled_always(monkeypatch, workers=2, unit_rows=2)
    quantities = list(range(1000))
    rows = rows_of([7] * 1000, [START + one % 10 for one in quantities], quantities)
    found = compiled.everything([rows], window_of(9)).totals[7].tolist()
    assert found == [sum(quantities), sum(quantities[9::10]), START + 9, sum(quantities[9::10])]


def test_nothing_asked_and_nothing_there(monkeypatch):
    """No rows, and windows that hold none of them, come to nothing in every mode."""
    nothing = [[0, -1, ORIGIN - 1, 0]] * 3
    assert compiled.everything([], window_of(3)).totals.tolist() == nothing
    rows = rows_of([0, 1, 2], [START] * 3, [5] * 3)
    for low, high in ((START + 1, LAST), (ORIGIN, START), (START + 5, START - 5)):
        assert compiled.everything([rows], window_of(3, low, high)).totals.tolist() == nothing
    mixed = Window(np.array([START, START + 1, ORIGIN]), np.array([START + 1, LAST, START]))
    assert compiled.everything([rows], mixed).totals.tolist() == [[5, 5, START, 5], *nothing[1:]]


@pytest.mark.parametrize(
    "modes", [("sum", "max", "last_ever", "last_during_period"), ("max",), ("sum",)]
)
def test_many_items_in_one_pass(monkeypatch, modes):
    """Partials and total usage of many items are the same with and without the compiled loops, in
    one mode or several.
    """
    subscriptions = catalog_of(100, modes)
    usage = ColumnarUsage(subscriptions)
    for seed in range(3):
        usage.append(usage_of(100, 500, 40, [0, 1, 7, 2**40], 0.1, seed), now=JAN.end_seconds - 1)
    asked = [
        (item, period)
        for one in subscriptions
        for item in one.items
        for period in (JAN, mc.BillingPeriod(START, START + 9))
    ]
    expected = usage.partials(asked), usage.total_usage(asked).tolist()
    assert expected[1] == [summary.total_usage for summary in summarize_all(asked, usage)]
    compiled_always(monkeypatch)
    assert (usage.partials(asked), usage.total_usage(asked).tolist()) == expected


def test_without_numba_numpy_answers(monkeypatch):
    """Where Numba is absent nothing fails, however many the rows: NumPy answers."""
    usage = ColumnarUsage([four_modes()])
    usage.append([mc.UsageRecord("sum", 5, timestamp=START)] * 9, now=START)
    compiled_always(monkeypatch)
    monkeypatch.setitem(sys.modules, "numba", None)
    paths.compiled.cache_clear()
    try:
        assert paths.compiled() is None
        assert usage.partials([(item, JAN) for item in four_modes().items] * 20)[0] == 45
    finally:
        paths.compiled.cache_clear()


def test_without_a_place_for_a_cache():
    """A function that cannot be kept on disk, here because it is in no file, is compiled all the
    same.
    """
    space = {}
    exec("def twice(number): return 2 * number", space)  # noqa: S102 - a function without a file
    assert sharing.jit(space["twice"])(21) == 42


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
def test_shares_keep_the_order_of_arrival(workers):
    """Rows are shared among workers without loss and in their order, also where parts are cut or
    there are fewer rows.
    """
    parts = [
        rows_of([0] * size, range(start, start + size), [1] * size)
        for start, size in ((0, 1), (1, 4), (5, 1))
    ]
    shares = compiled._shares(parts, workers)
    assert [stamp for share in shares for rows in share for stamp in rows.moments.tolist()] == list(
        range(6)
    )
    assert len(shares) == workers


@pytest.mark.parametrize("columns", [1, 20, 32])
def test_workers_write_to_lines_of_their_own(columns):
    """No two rows of a table share a line of the cache, which cores would take from each other at
    every write.
    """
    table = np.arange(3 * columns).reshape(3, columns)
    roomy = sharing.apart(table)
    assert roomy.tolist() == table.tolist()
    firsts = [row.ctypes.data for row in roomy]
    assert all(
        later - (first + row.nbytes) >= 128
        for row, first, later in zip(roomy, firsts, firsts[1:], strict=False)
    )

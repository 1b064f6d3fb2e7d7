"""Usage in columns gives the receipts, summaries and invoices of the log, whatever happens
to it.
"""

from __future__ import annotations

import random
import subprocess
import sys
from datetime import datetime
from functools import partial

import pytest

np = pytest.importorskip("numpy", reason="needs the extra columnar")

from builders import DAY, FEB, JAN, MAR, MODES, START, four_modes, priced, subscribed  # noqa: E402 - after the skip
from columnar_twins import (  # noqa: E402
    FEWER,
    MAX,
    Twins,
    daily,
    days_apart,
    grace_and_retries,
    late_again,
    late_and_compacted,
    live,
    stories,
)
from hypothesis import given  # noqa: E402

import metering_core as mc  # noqa: E402
from metering_core.acceptance import standing_at  # noqa: E402
from metering_core.columnar import (  # noqa: E402
    ColumnarEvents,
    ColumnarUsage,
    EventBatch,
    UsageBatch,
    answering,
    arrow,
    folding,
    judging,
    totals,
)
from metering_core.columnar.arrays import ORIGIN  # noqa: E402
from metering_core.columnar.folding import Rows  # noqa: E402

# The same story, told by each of the ways in which columns may work ----------------------------


@FEWER
@given(stories())
def test_columns_are_the_log(story):
    """Receipts, partials, cells, records, summaries, invoices and views are those of the log."""
    live(story)


@FEWER
@given(stories())
def test_columns_are_the_log_in_bulk(story):
    """The same holds where questions are answered from the rows, many at once, in blocks of few."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(answering, "_MANY", 1)
        patch.setattr(folding, "BLOCK", 3)
        patch.setattr(totals, "_FEW_SETS", 1)
        live(story)


@pytest.mark.slow
@FEWER
@given(stories())
def test_columns_are_the_log_where_every_cell_may_be_touched(story):
    """The same holds where ``set`` is so common that no row is left out of the fold."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(answering, "_MANY", 1)
        patch.setattr(totals, "_FEW_SETS", 10**6)
        live(story)


@pytest.mark.slow
@FEWER
@given(stories())
def test_columns_are_the_log_where_keys_do_not_fit(story):
    """The same holds where the packed key has too few bits, so that rows are sorted by index."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folding, "KEY_BITS", 5)
        patch.setattr(answering, "_MANY", 2)
        live(story)


# Many items and records, where nothing is patched -------------------------------------------------


def catalog_of(items, modes=MODES):
    """Return one subscription for every ten items, the modes by turns."""
    prices = {mode: priced(mode=mode, id=mode) for mode in modes}
    made = [
        mc.SubscriptionItem(f"si_{number}", prices[modes[number % len(modes)]])
        for number in range(items)
    ]
    return [
        mc.Subscription(f"sub_{start}", made[start : start + 10], START)
        for start in range(0, items, 10)
    ]


def usage_of(items, records, seconds, quantities, sets, seed=1):
    """Return random columns: few timestamps, so that cells collide."""
    chosen = random.Random(seed)  # noqa: S311 - a repeatable input, not a secret
    return [
        mc.UsageRecord(
            f"si_{chosen.randrange(items)}",
            chosen.choice(quantities),
            timestamp=START + chosen.randrange(seconds) * 3600,
            action="set" if chosen.random() < sets else "increment",
        )
        for _ in range(records)
    ]


@pytest.mark.parametrize("sets", [0, 0.03, 0.3])
@pytest.mark.parametrize("seconds", [3, 700])
@pytest.mark.parametrize(
    "quantities", [[0, 1, 7], [0, 5, MAX], [MAX - 1, 2**62]], ids=["small", "mixed", "huge"]
)
def test_many_items_at_once(sets, seconds, quantities):
    """Sums beyond 64 bits, the greatest and the last cell are the log's, for all items at once,
    before and after indexing.
    """
    subscriptions = catalog_of(100)
    twins = Twins(subscriptions)
    asked = [(item, JAN) for one in subscriptions for item in one.items]
    for part in range(3):
        twins.append(
            usage_of(100, 1_000, seconds, quantities, sets, seed=part), JAN.end_seconds - 1
        )
        twins.same(lambda usage: usage.partials(asked))
    item = asked[5]
    twins.same(lambda usage: usage.partial(*item))
    twins.same(lambda usage: usage.partials(asked))
    twins.append(usage_of(100, 50, seconds, quantities, sets, seed=9), JAN.end_seconds - 1)
    twins.same(lambda usage: usage.partial(*item))
    twins.same(lambda usage: usage.partials(asked + asked))


@pytest.mark.parametrize("mode", MODES)
def test_total_usage_as_arrays(mode):
    """Total usage as an array is what summaries say, of chosen items or of all, now or as it was,
    also beyond 64 bits.
    """
    twins = Twins(catalog_of(80, (mode,)))
    asked = [(item, period) for one in twins.of for item in one.items for period in (JAN, FEB)]
    for seed, quantities in enumerate(([0, 1, 9], [5, MAX])):
        twins.append(usage_of(80, 300, 9, quantities, 0.1, seed), JAN.end_seconds - 1)
        twins.same_totals(asked)
        twins.same_totals(asked[:3])
        twins.same_totals([])
        twins.same_totals_of_all(FEB)


def test_total_usage_is_of_64_bits_where_it_fits():
    """Arrays of total usage hold 64-bit integers, and Python integers where one quantity does not
    fit.
    """
    usage = ColumnarUsage([subscribed()])
    asked = [(subscribed().items[0], JAN)]
    for total in (MAX, 2 * MAX):
        usage.append([mc.UsageRecord("si_0", MAX, timestamp=START)], now=START)
        found = usage.total_usage(asked)
        assert found.tolist() == [total]
        assert found.dtype == (np.int64 if total == MAX else np.object_)


def test_unknown_modes_are_refused():
    """A mode that is none is refused by name."""
    with pytest.raises(mc.InvalidValueError) as caught:
        ColumnarUsage([subscribed()]).total_usage_of_all(JAN, ["sum", "mean"])
    assert (caught.value.param, caught.value.code) == ("modes", "parameter_invalid_choice")


def test_partials_are_plain_integers():
    """Partials hold Python integers, so that nothing computed from them can wrap."""
    usage = ColumnarUsage([four_modes()])
    usage.append(
        [mc.UsageRecord(mode, MAX, timestamp=START + at) for mode in MODES for at in (0, 0, 1)],
        now=START + DAY,
    )
    partials = usage.partials([(item, JAN) for item in four_modes().items])
    # Two cells, of 2 * MAX and MAX, in one hour of one day; START is midnight.
    last, peak = (START + 1, MAX), 2 * MAX
    peaks = [((START // length, peak),) for length in (3600, DAY)]
    assert partials == [3 * MAX, peak, last, last, MAX, 2, (3 * MAX, 2), *peaks]
    flat = [
        *partials[:2],
        *last,
        *partials[2],
        *partials[3],
        *partials[4:6],
        *partials[6],
        *partials[7][0],
        *partials[8][0],
    ]
    assert {type(number) for number in flat} == {int}


def test_one_cell_beyond_64_bits():
    """A cell of four times 2**63 - 1 is exact, also where a ``set`` begins it and another item is
    small.
    """
    usage = ColumnarUsage([four_modes()])
    records = [
        mc.UsageRecord("max", MAX, timestamp=START, action=action)
        for action in ("increment", "set", "increment", "increment")
    ]
    usage.append([*records, mc.UsageRecord("sum", 1, timestamp=START)], now=START)
    total, greatest, *_ = usage.partials([(item, JAN) for item in four_modes().items])
    assert (total, greatest) == (1, 3 * MAX)


def test_bounds_are_exact_where_the_cheap_bound_is_too_great():
    """One huge quantity among small ones does not make sums wide: the bound is their exact sum."""
    quantities = np.array([2**62, *[1] * 9], np.int64)
    rows = Rows.of(np.zeros(10, np.int32), np.arange(10, dtype=np.int64), quantities, None)
    assert rows.bound == 2**62 + 9


@pytest.mark.parametrize("bits", [63, 20])
def test_keys_at_the_edge_of_their_bits(monkeypatch, bits):
    """The first and the last second of the calendar and the greatest code are folded whether their
    keys are packed or not.
    """
    monkeypatch.setattr(folding, "KEY_BITS", bits)
    codes = np.array([0, folding.CODES_MAX - 1, 0, folding.CODES_MAX - 1], np.int32)
    stamps = np.array([ORIGIN, 253_402_300_799, ORIGIN, 253_402_300_799], np.int64)
    cells = folding.fold(Rows.of(codes, stamps, np.array([1, 2, 3, MAX], np.int64), None))
    assert cells.codes.tolist() == [0, folding.CODES_MAX - 1]
    assert cells.stamps.tolist() == [ORIGIN, 253_402_300_799]
    assert cells.values.tolist() == [4, MAX + 2]


def test_grace_and_retries():
    """The late grace ends at the log's second, and retries are recognised by all of their
    content.
    """
    grace_and_retries()


def test_late_usage_and_compaction():
    """Late usage that an open period bills, and periods whose records were dropped, answer as in
    the log.
    """
    late_and_compacted()


# Ids ----------------------------------------------------------------------------------------------


def test_ids_with_equal_hashes_are_told_apart(monkeypatch):
    """Two ids whose hashes are equal are two ids: only their true characters decide."""
    from metering_core.columnar import usage as module  # noqa: PLC0415 - patched here only

    monkeypatch.setattr(module, "hashes_of", lambda codes, ids: np.zeros(len(ids), np.int64))
    twins = Twins([four_modes()])
    for _ in range(2):
        records = [
            mc.UsageRecord(mode, len(key), timestamp=START, id=key)
            for key in ("a", "b", "ab")
            for mode in MODES
        ]
        twins.append(records, START)
    twins.compare(START)


def test_a_refused_row_claims_no_id():
    """The first otherwise acceptable row of an item and id claims it, within one batch."""
    twins = Twins([subscribed()])
    future, fine = (mc.UsageRecord("si_0", 5, timestamp=at, id="a") for at in (START + DAY, START))
    twins.append([future, fine, fine, future], START)
    assert [one.outcome for one in twins.columns.append([fine, future], now=FEB.start)] == [
        "duplicate",
        "rejected",
    ]


# Batches ------------------------------------------------------------------------------------------


def one_row(**changed):
    """Return the columns of one good record, some of them changed."""
    return {
        "subscription_items": ["si_0"] * 2,
        "quantities": [1, 1],
        "timestamps": [START, START],
    } | changed


def hidden(values):
    """Return two values of which a mask hides the second."""
    return np.ma.array(values, mask=[False, True])


@pytest.mark.parametrize(
    ("changed", "param", "code"),
    [
        ({"quantities": [1, -1]}, "quantities[1]", "parameter_invalid_integer"),
        ({"quantities": np.array([1, -1])}, "quantities[1]", "parameter_invalid_integer"),
        ({"quantities": [1, 2**63]}, "quantities[1]", "parameter_invalid_integer"),
        (
            {"quantities": np.array([1, 2**63], np.uint64)},
            "quantities[1]",
            "parameter_invalid_integer",
        ),
        ({"quantities": np.array([1.0, 2.0])}, "quantities[0]", "parameter_invalid_integer"),
        ({"quantities": np.array([True, False])}, "quantities[0]", "parameter_invalid_integer"),
        ({"quantities": [1, True]}, "quantities[1]", "parameter_invalid_integer"),
        ({"quantities": [1]}, "quantities", "parameter_invalid_object"),
        ({"timestamps": [START, 2**60]}, "timestamps[1]", "parameter_invalid_instant"),
        ({"timestamps": np.array([START, 2**60])}, "timestamps[1]", "parameter_invalid_instant"),
        (
            {"timestamps": np.array([START, START], "datetime64[s]")},
            "timestamps[0]",
            "parameter_invalid_instant",
        ),
        (
            {"timestamps": [datetime(2024, 1, 1), START]},  # noqa: DTZ001 - naive
            "timestamps[0]",
            "parameter_invalid_instant",
        ),
        ({"actions": ["set", "delete"]}, "actions[1]", "parameter_invalid_choice"),
        ({"quantities": hidden([1, 1_000])}, "quantities[1]", "parameter_invalid_integer"),
        ({"timestamps": hidden([START, START])}, "timestamps[1]", "parameter_invalid_instant"),
        (
            {"timestamps": hidden(np.array([START, START], "datetime64[ns]"))},
            "timestamps[0]",
            "parameter_invalid_instant",
        ),
        ({"actions": hidden(["set", "set"])}, "actions[1]", "parameter_invalid_choice"),
        ({"ids": hidden([1, 2])}, "ids[0]", "parameter_invalid_string"),
        (
            {"subscription_items": hidden(["si_0", "si_0"])},
            "subscription_items[1]",
            "parameter_invalid_string",
        ),
        (
            {"subscription_items": hidden([0, 0]), "item_ids": ["si_0"]},
            "subscription_items[1]",
            "parameter_invalid_integer",
        ),
        ({"actions": np.array(["set", "delete"])}, "actions[1]", "parameter_invalid_choice"),
        ({"ids": ["a", ""]}, "ids[1]", "parameter_invalid_string"),
        ({"ids": ["a", 7]}, "ids[1]", "parameter_invalid_string"),
        ({"ids": ["a", "a" * 256]}, "ids[1]", "parameter_invalid_string"),
        ({"subscription_items": ["si_0", ""]}, "subscription_items[1]", "parameter_invalid_string"),
        ({"subscription_items": ["si_0", []]}, "subscription_items[1]", "parameter_invalid_string"),
        (
            {"subscription_items": [0, 1], "item_ids": ["si_0"]},
            "subscription_items[1]",
            "parameter_invalid_integer",
        ),
        (
            {"subscription_items": np.array([0, -1]), "item_ids": ["si_0"]},
            "subscription_items[1]",
            "parameter_invalid_integer",
        ),
        ({"item_ids": [""]}, "item_ids[0]", "parameter_invalid_string"),
    ],
)
def test_malformed_columns_are_refused_by_row(changed, param, code):
    """A malformed value is refused before anything is taken, and the column and the row are
    named.
    """
    with pytest.raises(mc.InvalidValueError) as caught:
        UsageBatch.from_columns(**one_row(**changed))
    assert (caught.value.param, caught.value.code) == (param, code)


def test_a_mask_that_hides_nothing():
    """A masked array is its values, and an id that is hidden is none."""
    batch = UsageBatch.from_columns(
        **one_row(quantities=np.ma.array([1, 2])), ids=hidden(["a", "b"])
    )
    assert batch.quantities.tolist() == [1, 2]
    assert batch.ids == ("a", None)


def test_absent_instants_of_pandas_are_refused():
    """What pandas holds where a timestamp is absent is a datetime, but no instant."""
    pandas = pytest.importorskip("pandas", reason="needs pandas")
    stamps = pandas.Series([START, None]).astype("Int64")
    with pytest.raises(mc.InvalidValueError, match=r"timestamps\[1\]: expected .* received NaT"):
        UsageBatch.from_columns(
            **one_row(timestamps=pandas.to_datetime(stamps, unit="s", utc=True))
        )


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int32, np.uint64, ">i8"])
def test_columns_of_any_integers_and_strings(kind):
    """Items may be strings or codes in any integer type, and quantities of any integer type keep
    their value.
    """
    expected = mc.UsageLog([subscribed(priced(), priced())])
    expected.append_columns(
        ["si_1", "si_0", "si_1"], [1, 2, 100], [START] * 3, ["increment", "set", "set"], now=START
    )
    columns = {"quantities": np.array([1, 2, 100], kind), "timestamps": np.array([START] * 3)}
    ways = [
        UsageBatch.from_columns(
            ["si_1", "si_0", "si_1"], **columns, actions=["increment", "set", "set"]
        ),
        UsageBatch.from_columns(
            np.array(["si_1", "si_0", "si_1"]),
            **columns,
            actions=np.array(["increment", "set", "set"]),
        ),
        UsageBatch.from_columns(
            np.array([0, 1, 0], kind),
            **columns,
            actions=np.array([False, True, True]),
            item_ids=["si_1", "si_0"],
        ),
        UsageBatch.from_columns(["si_1", "si_0", "si_1"], **columns, actions=[False, True, True]),
    ]
    for batch in ways:
        usage = ColumnarUsage([subscribed(priced(), priced())])
        usage.append(batch, now=START)
        assert usage.records() == expected.records()


def test_a_copied_column_may_be_reused():
    """What the caller does to an array afterwards changes no bill."""
    quantities = np.array([1, 2])
    usage = ColumnarUsage([subscribed()])
    usage.append(UsageBatch.from_columns(**one_row(quantities=quantities)), now=START)
    quantities[:] = 1_000
    assert usage.partial(subscribed().items[0], JAN) == 3


@pytest.mark.parametrize("options", [{}, {"now": START, "received_at": [START]}])
def test_the_moment_of_receipt_is_asked_for(options):
    """A batch comes with one moment of receipt or one for each record, not with both or none."""
    usage = ColumnarUsage([subscribed()])
    with pytest.raises(mc.InvalidValueError) as caught:
        usage.append([mc.UsageRecord("si_0", 1, timestamp=START)], **options)
    assert caught.value.param == "now"
    assert usage.sequence == 0


def test_moments_of_receipt_as_an_array():
    """Moments of receipt may be an array of Unix seconds; each row is judged at its own."""
    usage = ColumnarUsage([subscribed()])
    batch = UsageBatch.from_columns(["si_0"] * 3, [1, 2, 4], [START, FEB.start_seconds, START])
    receipts = usage.append(
        batch, received_at=np.array([START, FEB.start_seconds, FEB.start_seconds])
    )
    assert [receipt.code for receipt in receipts] == [None, None, "timestamp_before_current_period"]
    assert usage.records()[1].received_at == FEB.start
    for wrong in (np.array([START, 2**62, START]), np.ma.array([START] * 3, mask=[0, 1, 0])):
        with pytest.raises(mc.InvalidValueError, match=r"received_at\[1\]"):
            usage.append(batch, received_at=wrong)


def test_an_empty_batch():
    """Nothing comes to nothing."""
    usage = ColumnarUsage([subscribed()])
    empty = UsageBatch.from_columns(
        np.array([], np.int64), np.array([], np.int64), np.array([], np.int64), item_ids=[]
    )
    assert list(usage.append(empty, now=START)) == []
    assert list(usage.append([], now=START)) == []
    assert usage.partial(subscribed().items[0], JAN) == 0
    assert len(usage) == 0
    assert repr(usage) == "<ColumnarUsage: 1 subscriptions, 0 records, sequence 0>"
    assert repr(empty) == "<UsageBatch: 0 records of 0 items>"


def test_unknown_items_and_unmetered_prices_are_refused_as_the_log_does():
    """Asking for an unknown item, or for one whose price is licensed, raises what the log
    raises.
    """
    licensed = subscribed(priced(mode=None))
    twins = Twins([licensed])
    for item in (licensed.items[0], mc.SubscriptionItem("si_x", priced())):
        twins.same(lambda usage, item=item: usage.partial(item, JAN))
    twins.append(
        [mc.UsageRecord(item_id, 1, timestamp=START) for item_id in ("si_0", "si_x")], START
    )


def test_an_item_that_moves_to_another_subscription_is_refused_whole():
    """A subscription that takes another's item is refused, and nothing changes."""
    twins = Twins([subscribed()])
    twins.same(lambda usage: usage.subscribe(subscribed(id="other")))
    twins.append([mc.UsageRecord("si_0", 1, timestamp=START)], START)
    twins.compare(START)


def test_receipts_do_not_change_with_the_subscription():
    """A refusal that is looked at later says what was wrong then."""
    before, after = subscribed(), subscribed().canceled(START + 5)
    usage, log = ColumnarUsage([before]), mc.UsageLog([before])
    record = mc.UsageRecord("si_0", 1, timestamp=START + DAY)
    received, expected = (one.append([record], now=START) for one in (usage, log))
    usage.subscribe(after)
    assert list(received) == list(expected)


def test_finalizing_closes_the_period():
    """An invoice from columns is the log's, closes the period, can be explained, and survives
    compaction.
    """
    twins = Twins([four_modes()])
    records = [
        mc.UsageRecord(mode, quantity, timestamp=START + quantity % 3)
        for mode in MODES
        for quantity in (5, 7, 9)
    ]
    twins.append(records, JAN.end_seconds - 1)
    invoice = twins.same(lambda usage: mc.finalize_invoice(four_modes(), usage, JAN, now=FEB.start))
    twins.same(
        lambda usage: str(mc.explain(mc.preview_invoice(four_modes(), usage, now=START).lines[0]))
    )
    twins.append(records, FEB.start_seconds)
    assert twins.same(lambda usage: usage.compact()) == len(records)
    assert (
        twins.same(lambda usage: mc.finalize_invoice(four_modes(), usage, JAN, now=MAR.start))
        == invoice
    )
    assert len(twins.columns) == 0


# Arrow --------------------------------------------------------------------------------------------


def arrow_table(**changed):
    """Return a table of three records."""
    pyarrow = pytest.importorskip("pyarrow", reason="needs pyarrow")
    columns = {
        "subscription_item": ["si_1", "si_0", "si_1"],
        "quantity": [1, 2, MAX],
        "timestamp": [START, START, START + 1],
    }
    return pyarrow.table(
        columns | {"action": ["increment", "set", "set"], "id": ["a", None, "b"]} | changed
    )


@pytest.mark.parametrize("way", ["strings", "dictionary", "timestamps", "chunks", "pieces"])
def test_arrow_streams(monkeypatch, way):
    """A table with the Arrow stream interface is read as its columns are, whatever their
    encoding.
    """
    monkeypatch.setattr(arrow, "_PIECE", 2 if way == "pieces" else 1 << 20)
    table = arrow_table()
    pyarrow = pytest.importorskip("pyarrow")
    match way:
        case "dictionary":
            table = table.set_column(
                0, "subscription_item", table["subscription_item"].dictionary_encode()
            )
        case "timestamps":
            stamps = pyarrow.array(
                [START * 1000 + 999, START * 1000, START * 1000 + 1000],
                pyarrow.timestamp("ms", "UTC"),
            )
            table = table.set_column(2, "timestamp", stamps)
        case "chunks":
            table = pyarrow.concat_tables([table.slice(0, 1), table.slice(1, 0), table.slice(1, 2)])
    usage = ColumnarUsage([subscribed(priced(), priced())])
    usage.append(UsageBatch.from_arrow(table), now=START + DAY)
    expected = mc.UsageLog([subscribed(priced(), priced())])
    columns = (
        ["si_1", "si_0", "si_1"],
        [1, 2, MAX],
        [START, START, START + 1],
        ["increment", "set", "set"],
        ["a", None, "b"],
    )
    expected.append_columns(*columns, now=START + DAY)
    assert usage.records() == expected.records()


@pytest.mark.parametrize(
    ("changed", "param"),
    [
        ({"quantity": [1, None, 2]}, "quantities[1]"),
        ({"quantity": [1.0, 2.0, 2.0]}, "quantities[0]"),
        ({"timestamp": [None, 1, 2]}, "timestamps[0]"),
        ({"subscription_item": ["a", "b", None]}, "subscription_items[2]"),
        ({"action": ["set", "delete", "set"]}, "actions[1]"),
        ({"action": ["set", None, "delete"]}, "actions[2]"),
        ({"action": [1, None, 1]}, "actions[0]"),
        ({"subscription_item": [7, 8, 7]}, "subscription_items[0]"),
        ({"subscription_item": [7.0, 8.0, 7.0]}, "subscription_items[0]"),
        ({"subscription_item": [b"a", b"b", b"c"]}, "subscription_items[0]"),
        ({"subscription_item": [None, None, None]}, "subscription_items[0]"),
        ({"id": [1, 2, 3]}, "ids[0]"),
        ({"seq": [1, 2, 2]}, "seq[2]"),
        ({"seq": [3, 2, 1]}, "seq[1]"),
        ({"seq": [1, None, 3]}, "seq[1]"),
        ({"seq": [1.0, 2.0, 3.0]}, "seq[0]"),
        ({"received_at": [START, START, START]}, "received_at"),
        ({"Seq": [1, 2, 3]}, "Seq"),
        ({"recieved_at": [START, START, START]}, "recieved_at"),
        ({"timestamp": [datetime(2024, 1, 1)] * 3}, "timestamps"),  # noqa: DTZ001 - naive
    ],
)
def test_malformed_arrow_columns(changed, param):
    """A null, a float, a naive timestamp, rows out of order and slips are refused by their column
    and row.
    """
    with pytest.raises(mc.InvalidValueError) as caught:
        UsageBatch.from_arrow(arrow_table(**changed))
    assert caught.value.param == param


def test_arrow_needs_its_columns_and_its_interface():
    """An absent column, and an object that is no Arrow stream, are refused by name."""
    with pytest.raises(mc.InvalidValueError, match="Missing required param: quantity"):
        UsageBatch.from_arrow(arrow_table().drop_columns("quantity"))
    with pytest.raises(mc.InvalidValueError, match="__arrow_c_stream__"):
        UsageBatch.from_arrow([1, 2])


@pytest.mark.parametrize("column", ["action", "id"])
@pytest.mark.parametrize("slip", ["{}s", "{} ", str.upper, str.title])
def test_misspelt_arrow_columns_are_refused(column, slip):
    """A column that is nearly one that is read would change the bill by not being read."""
    spelt = slip.format(column) if isinstance(slip, str) else slip(column)
    renamed = arrow_table().rename_columns({column: spelt})
    with pytest.raises(mc.InvalidValueError) as caught:
        UsageBatch.from_arrow(renamed)
    assert (caught.value.code, caught.value.param) == ("parameter_unknown", spelt)
    assert f"did you mean {column!r}" in caught.value.message


@pytest.mark.parametrize("column", ["subscription_item", "quantity", "action", "seq"])
def test_columns_that_are_there_twice_are_refused(column):
    """Of two columns with one name nobody can say which is meant."""
    table = arrow_table(seq=[1, 2, 3])
    with pytest.raises(
        mc.InvalidValueError, match=f"{column}: expected one column of that name, received 2"
    ):
        UsageBatch.from_arrow(table.append_column(column, table[column]))


def test_the_order_of_arrival_may_be_a_column():
    """Where ``seq`` ascends it says what the order of the rows says; other columns are not read."""
    batch = UsageBatch.from_arrow(arrow_table(seq=[-5, 2, MAX], region=["eu", None, "us"]))
    assert batch.quantities.tolist() == [1, 2, MAX]


def words(names, codes):
    """Return an Arrow dictionary of actions."""
    pyarrow = pytest.importorskip("pyarrow", reason="needs pyarrow")
    return pyarrow.DictionaryArray.from_arrays(
        pyarrow.array(codes, pyarrow.int8()), pyarrow.array(names, pyarrow.string())
    )


@pytest.mark.parametrize(
    ("actions", "sets"),
    [
        (lambda: [None, "set", None], [False, True, False]),
        (lambda: [None, None, None], None),
        (lambda: ["increment", None, "increment"], None),
        (lambda: [False, True, True], [False, True, True]),
        (lambda: [True, None, False], [True, False, False]),
        (lambda: words(["increment", "set", "set"], [0, 1, 2]), [False, True, True]),
        (lambda: words(["set", "increment", "delete"], [1, 0, 0]), [False, True, True]),
        (lambda: words(["set", None], [0, 1, 0]), [True, False, True]),
        (lambda: words(["set", "increment"], [0, None, 0]), [True, False, True]),
    ],
)
def test_actions_in_arrow(actions, sets):
    """Words, flags and dictionaries, whatever they repeat or never use; a null is an increment, as
    in files.
    """
    batch = UsageBatch.from_arrow(arrow_table(action=actions()))
    assert (batch.sets if batch.sets is None else batch.sets.tolist()) == sets


def test_dictionaries_name_the_row():
    """A malformed action of a dictionary is named by the first row that has it."""
    with pytest.raises(mc.InvalidValueError) as caught:
        UsageBatch.from_arrow(arrow_table(action=words(["delete", "set"], [1, 1, 0])))
    assert (caught.value.code, caught.value.param) == ("parameter_invalid_choice", "actions[2]")


def shared(stamps, chunks):
    """Return arrays, and a table that looks into them."""
    pyarrow = pytest.importorskip("pyarrow", reason="needs pyarrow")
    quantities, seconds = np.array([1, 2, 3]), np.array([START, START + 1, START + 2])
    kind = pyarrow.timestamp("s", "UTC") if stamps == "instants" else pyarrow.int64()
    columns = {
        "quantity": pyarrow.array(quantities),
        "timestamp": pyarrow.array(seconds).view(kind),
    }
    table = pyarrow.table({"subscription_item": ["si_0"] * 3} | columns)
    parts = [table] if chunks == 1 else [table[:1], table[1:]]
    return quantities, seconds, pyarrow.concat_tables(parts)


@pytest.mark.parametrize("chunks", [1, 2])
@pytest.mark.parametrize("stamps", ["integers", "instants"])
def test_a_table_may_change_afterwards(stamps, chunks):
    """What the caller does to a frame, or to the arrays behind it, changes no batch."""
    quantities, seconds, table = shared(stamps, chunks)
    batch = UsageBatch.from_arrow(table)
    quantities[:] = -1_000
    seconds[:] = 0
    assert batch.quantities.tolist() == [1, 2, 3]
    assert batch.timestamps.tolist() == [START, START + 1, START + 2]


@pytest.mark.parametrize("stamps", ["integers", "instants"])
def test_a_table_is_used_where_it_is_when_asked(stamps):
    """Without a copy, numbers that can be used as they are stay where they are."""
    quantities, seconds, table = shared(stamps, 1)
    batch = UsageBatch.from_arrow(table, copy=False)
    assert np.shares_memory(batch.quantities, quantities)
    assert np.shares_memory(batch.timestamps, seconds)


def test_frames_of_pandas_may_change_afterwards():
    """A frame that is changed in place does not change what was appended."""
    pandas = pytest.importorskip("pandas", reason="needs pandas")
    pytest.importorskip("pyarrow", reason="needs pyarrow")
    frame = pandas.DataFrame(
        {"subscription_item": ["si_0"] * 2, "quantity": [5, 7], "timestamp": [START] * 2}
    )
    usage = ColumnarUsage([subscribed()])
    usage.append(UsageBatch.from_arrow(frame), now=START)
    frame.loc[0, "quantity"] = 1_000_000
    assert usage.partial(subscribed().items[0], JAN) == 12


# Without NumPy ------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", ["metering_core.columnar", "metering_core.bulk.rating"])
def test_the_missing_extra_is_named(module):
    """Without NumPy the columns cannot be imported, and the message names the extra; the
    core can.
    """
    script = (
        "import sys; sys.modules['numpy'] = None; import metering_core as mc\n"
        f"try: import {module}\n"
        "except mc.errors.MissingExtraError as error: print(error.code, error.param)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["extra_missing", "columnar"], done.stderr


# What comes late and again ------------------------------------------------------------------------


def test_a_late_record_that_comes_again_is_billed_once():
    """A retry of usage that a later period bills is a duplicate, in its own batch and in the next,
    and no second late row.
    """
    late_again()


# A batch is the store -----------------------------------------------------------------------------


def arrays_of(value):
    """Return every array that a value shows, by its name."""
    return {
        name: one
        for name in dir(value)
        if name[0] != "_" and isinstance(one := getattr(value, name), np.ndarray)
    }


ALTERED = {
    "dtype": lambda one: f"V{one.itemsize}",
    "shape": lambda one: (1, len(one)),
    "strides": lambda _: (0,),
}
"""What of an array can be set in place although its values cannot be written."""

in_place = pytest.mark.filterwarnings("ignore:Setting the .* on a NumPy array:DeprecationWarning")


def alter(array, field):
    """Set what can be set of an array, which says of no other one that it is made of it."""
    setattr(array, field, ALTERED[field](array))
    assert not isinstance(array.base, np.ndarray)


@in_place
@pytest.mark.parametrize("field", ALTERED)
def test_what_is_done_to_the_arrays_of_a_batch_alters_no_bill(field):
    """Who asks a batch for a column has an array of their own: its dtype, shape and strides are
    nobody else's.
    """
    usage = ColumnarUsage([subscribed()])
    batch = UsageBatch.from_columns(["si_0", "si_0"], [5, 6], [START, "now"], ["increment", "set"])
    before = {name: one.copy() for name, one in arrays_of(batch).items()}
    assert before.keys() == {"codes", "quantities", "timestamps", "sets", "as_now"}
    for array in arrays_of(batch).values():
        alter(array, field)
    for name, one in arrays_of(batch).items():
        assert (one.dtype, one.shape, one.tolist()) == (
            before[name].dtype,
            before[name].shape,
            before[name].tolist(),
        )
    usage.append(batch, now=START + 1)
    assert [(one.record.quantity, one.record.timestamp) for one in usage.records()] == [
        (5, START),
        (6, START + 1),
    ]


@in_place
@pytest.mark.parametrize("field", ALTERED)
def test_what_is_done_to_the_arrays_of_events_alters_no_bill(field):
    """The same of meter events: their values, moments and flags, and the codes of their texts."""
    events = ColumnarEvents(
        [mc.Meter("m", "calls", dimension_payload_keys=["region"])], policy=mc.MeterPolicy.history()
    )
    columns = {
        "customers": ["c", "d"],
        "values": [5, 6],
        "timestamps": [START, "now"],
        "dimensions": {"region": ["eu", "us"]},
    }
    batch = EventBatch.from_columns("calls", **columns)
    holders = [batch, batch.customers, batch.dimensions["region"]]
    assert [sorted(arrays_of(one)) for one in holders] == [
        ["as_now", "moments", "values"],
        ["codes"],
        ["codes"],
    ]
    for one in holders:
        for array in arrays_of(one).values():
            alter(array, field)
    events.append(batch, now=START + 1)
    assert [
        (one.event.payload["stripe_customer_id"], one.event.payload["value"])
        for one in events.events()
    ] == [
        ("c", "5"),
        ("d", "6"),
    ]
    assert [events.whole("m", one)[0].moments.tolist() for one in "cd"] == [
        [START * 10**6],
        [(START + 1) * 10**6],
    ]


@pytest.mark.parametrize("copy", [True, False])
def test_the_columns_of_a_batch_are_read_only(copy):
    """What was appended is the store itself: no array of a batch can be written to, and its ids
    cannot be changed.
    """
    given = {
        "subscription_items": np.array([0, 0]),
        "quantities": np.array([5, 6]),
        "timestamps": np.array([START, START]),
    }
    flags = np.array([True, False])
    batch = UsageBatch.from_columns(
        **given, actions=flags, ids=["a", None], item_ids=["si_0"], copy=copy
    )
    now = UsageBatch.from_columns(["si_0"], [1], ["now"])
    held = {**arrays_of(batch), "as_now": now.as_now}
    assert held.keys() == {"codes", "quantities", "timestamps", "sets", "as_now"}
    for name, array in held.items():
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
        for same in (array, array.view(), array[:1], np.asarray(array)):
            with pytest.raises(ValueError, match="cannot set WRITEABLE flag"):
                same.flags.writeable = True
            assert not isinstance(same.base, np.ndarray) or not same.base.flags.owndata, name
            assert memoryview(same).readonly
    assert isinstance(batch.ids, tuple)
    assert flags.flags.writeable, "the caller's own arrays stay the caller's"
    assert given["quantities"].flags.writeable


def test_what_a_batch_was_made_of_is_nobody_elses():
    """After a copy, writing to what the columns were given as changes no usage that was
    accepted.
    """
    quantities, stamps = np.array([5]), np.array([START])
    usage = ColumnarUsage([subscribed()])
    usage.append(UsageBatch.from_columns(["si_0"], quantities, stamps), now=START)
    quantities[0], stamps[0] = 10**6, 0
    assert [(one.record.quantity, one.record.timestamp) for one in usage.records()] == [(5, START)]


# Work in proportion to rows -----------------------------------------------------------------------


@pytest.fixture
def standings(monkeypatch):
    """Return when it was asked how a subscription stands."""
    asked = []

    def counted(subscription, now, policy):
        asked.append(now)
        return standing_at(subscription, now, policy)

    monkeypatch.setattr(judging, "standing_at", counted)
    return asked


def test_two_rows_eight_thousand_years_apart_are_work_for_two(standings):
    """What is looked up are the days in which rows were received, not the three million days
    between them.
    """
    usage = ColumnarUsage([daily()])
    receipts = usage.append(
        UsageBatch.from_columns(["si_0"] * 2, [1, 1], [0, 0]), received_at=[0, 253_400_000_000]
    )
    assert len(receipts.rejected) == 2
    assert len(standings) < 12


def test_days_without_rows_are_passed_over(standings):
    """The same of many rows in few days, whose standings are those of the log, also where periods
    do not begin at midnight.
    """
    of, policy, records, received = days_apart()
    ColumnarUsage(of, policy=policy).append(UsageBatch.from_records(records), received_at=received)
    assert len(standings) < 4 * len({at // DAY for at in received}) * len(of)
    Twins(of, policy).import_history(records, received)


class Broken:
    """A stream of Arrow that raises when it is read."""

    def __arrow_c_stream__(self, requested_schema=None):
        raise OSError("the connection was lost\nmetering-core: 9 rows accepted")


def test_what_arrow_refuses_is_refused_by_name():
    """A stream that raises, columns of half floats and of types that are no columns of values are
    refused in our words.
    """
    pyarrow = pytest.importorskip("pyarrow")
    for read in (UsageBatch.from_arrow, partial(EventBatch.from_arrow, "e")):
        with pytest.raises(
            mc.InvalidValueError, match=r"the connection was lost\\nmetering"
        ) as refused:
            read(Broken())
        assert (refused.value.code, refused.value.param) == ("parameter_invalid_object", "source")
    halves = pyarrow.array(np.array([1, 2], np.float16))
    usage = {"subscription_item": ["si_0"] * 2, "quantity": halves, "timestamp": [START] * 2}
    with pytest.raises(mc.InvalidValueError) as refused:
        UsageBatch.from_arrow(pyarrow.table(usage))
    assert refused.value.param == "quantities[0]"
    with pytest.raises(mc.InvalidValueError, match="of plain types") as refused:
        UsageBatch.from_arrow(
            pyarrow.table({**usage, "quantity": [1, 2], "action": pyarrow.array([{"a": 1}, None])})
        )
    assert refused.value.param == "source"


def test_views_of_strings_are_read():
    """Columns of string views, on which older Arrow died, are read as any other text."""
    pyarrow = pytest.importorskip("pyarrow")
    names = pyarrow.array(["si_0", "a name that is too long to lie inside a view"]).cast(
        pyarrow.string_view()
    )
    batch = UsageBatch.from_arrow(
        pyarrow.table({"subscription_item": names, "quantity": [1, 2], "timestamp": [START] * 2})
    )
    assert batch.names == tuple(names.to_pylist())

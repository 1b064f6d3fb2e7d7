"""Usage in files and streams, judged and folded by DuckDB: everything as a log has it (law 4), and
nothing silently inexact.
"""

from __future__ import annotations

import csv
import json
import sys
from datetime import UTC, datetime

import engine_cases
import pytest
import sql_defects
from builders import DAY, JAN, START, four_modes, priced, subscribed, used

from metering_core import (
    AcceptancePolicy,
    BillingPeriod,
    InvalidValueError,
    InvoicingError,
    Subscription,
    SubscriptionItem,
    Tier,
    UsageLog,
    UsageRecord,
    finalize_invoice,
    preview_invoice,
)
from metering_core.errors import CatalogError, MissingExtraError
from metering_core.measures import AGGREGATORS
from metering_core.pricing import Graduated, PerUnit
from metering_core.sql import DuckDBUsage, sql_kernel, texts

duckdb = pytest.importorskip("duckdb", reason="needs the extra 'duckdb'")
pa = pytest.importorskip("pyarrow", reason="needs pyarrow, to make Arrow tables and Parquet files")

from pyarrow import parquet as pq  # noqa: E402 - after the skip

TYPES = {
    "subscription_item": pa.string(),
    "quantity": pa.int64(),
    "timestamp": pa.int64(),
    "action": pa.string(),
    "id": pa.string(),
    "received_at": pa.int64(),
    "seq": pa.int64(),
}


def table(*rows, **types):
    """Return (item, quantity, timestamp[, action[, id]]) as an Arrow table; ``types`` for columns
    that are otherwise.
    """
    names = list(TYPES)[: max(map(len, rows), default=3)]
    columns = (
        zip(*(row + (None,) * (len(names) - len(row)) for row in rows), strict=True)
        if rows
        else [[]] * 3
    )
    return pa.table(
        {
            name: pa.array(list(c), types.get(name, TYPES[name]))
            for name, c in zip(names, columns, strict=True)
        }
    )


def total(source, **options):
    """Return the January total of ``si_0``."""
    return DuckDBUsage(source, [subscribed()], **options).partial(subscribed().items[0], JAN)


# Law 4 --------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", sql_defects.DEFECTS)
def test_a_defect_in_the_sql_is_noticed(name, monkeypatch):
    """Each condition of the kernel matters: the comparison with the log dies of every slip planted
    in the text.
    """
    sql_defects.plant(name, monkeypatch)
    assert any(
        engine_cases.dies(batch, engine_cases.duckdb) for batch in sql_defects.BATCHES.values()
    )


# Sources ------------------------------------------------------------------------------------------

ROWS = [
    ("si_0", 5, START, "increment", None),
    ("si_0", 7, START, "set", "a"),
    ("si_0", 1, START, "increment", None),
]


def as_csv(path):
    """Write the rows as CSV, with ISO 8601 in one of them and an empty field where a value is
    absent.
    """
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(list(TYPES)[:5])
        rows.writerows([*ROWS[:2], (*ROWS[2][:2], "2024-01-01T01:00:00.9+01:00", *ROWS[2][3:])])
    return path


def as_json(path):
    """Write the rows as JSON lines, absent values as null or not at all."""
    lines = [dict(zip(list(TYPES)[:5], row, strict=True)) for row in ROWS]
    lines[2] = {"subscription_item": "si_0", "quantity": 1, "timestamp": "2024-01-01T00:00:00Z"}
    path.write_text("\n".join(map(json.dumps, lines)) + "\n")
    return path


def as_parquet(path):
    """Write the rows as Parquet."""
    pq.write_table(table(*ROWS), path)
    return path


@pytest.mark.parametrize(
    ("write", "name"),
    [(as_csv, "u.csv"), (as_json, "u.jsonl"), (as_json, "u.ndjson"), (as_parquet, "u.parquet")],
)
def test_files_are_read(write, name, tmp_path):
    """A file of each format gives the total worked by hand: 5, set to 7, and 1 more."""
    assert total(write(tmp_path / name)) == 8


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
def test_files_arrive_in_the_order_of_their_names(kind, tmp_path):
    """The rows of several files arrive file by file, by name, however the files are given."""
    writers = {"parquet": as_parquet, "csv": as_csv, "jsonl": as_json}
    files = [tmp_path / f"{day}.{kind}" for day in "ba"]
    for file in files:
        writers[kind](file)
    last = tmp_path / f"c.{kind}"
    if kind == "parquet":
        pq.write_table(table(("si_0", 100, START, "set", None)), last)
    elif kind == "csv":
        last.write_text(f"subscription_item,quantity,timestamp,action\nsi_0,100,{START},set\n")
    else:
        last.write_text(
            json.dumps(
                {"subscription_item": "si_0", "quantity": 100, "timestamp": START, "action": "set"}
            )
        )
    assert total([last, *files]) == total(str(tmp_path / f"*.{kind}")) == 100
    engine = DuckDBUsage(tmp_path / f"*.{kind}", [subscribed()])
    # Row 5 repeats the id of row 2, which the first file brought: the second record that the log
    # accepted.
    assert [(row, receipt.sequence) for row, receipt in engine.receipts().items()] == [(5, 2)]


def test_parquet_of_many_row_groups_keeps_its_order(tmp_path):
    """Rows are numbered in the order of a file also where several threads read it."""
    rows = [("si_0", number, START, "set", None) for number in range(5_000)]
    pq.write_table(table(*rows), tmp_path / "u.parquet", row_group_size=100)
    assert total(tmp_path / "u.parquet") == 4_999


NOTE = (
    "x" * 500
)  # In a column that is not read: DuckDB hands text to its threads in blocks of 32 MB.


def in_order(kind, path, places, order="seq"):
    """Write rows that set one cell, as text of several blocks; each says its place in the column
    ``order``.
    """
    names = ("subscription_item", "quantity", "timestamp", "action", "note", order)
    rows = (("si_0", number, START, "set", NOTE, place) for number, place in enumerate(places))
    with path.open("w", newline="") as file:
        if kind == "csv":
            csv.writer(file).writerows([names, *rows])
        else:
            file.writelines(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in rows)
    assert path.stat().st_size > 40 * 2**20


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_text_of_many_blocks_keeps_its_order(kind, tmp_path):
    """Rows are numbered in the order of a file also where it is long enough that several threads
    read it.
    """
    in_order(kind, tmp_path / f"u.{kind}", range(80_000), order="other")
    engine = DuckDBUsage(tmp_path / f"u.{kind}", [subscribed()])
    assert engine.partial(subscribed().items[0], JAN) == 79_999
    assert engine._tables.fetched("SELECT COUNT(*) FROM usage WHERE quantity + 1 <> seq") == [(0,)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_ties_in_text_are_refused_however_far_apart(kind, tmp_path):
    """A ``seq`` that comes twice is refused also where the two rows are read by two threads."""
    in_order(kind, tmp_path / f"u.{kind}", [*range(80_000), 7])
    with pytest.raises(
        InvalidValueError, match=r"seq: expected a different value in each row.*received 7"
    ):
        total(tmp_path / f"u.{kind}")


def test_streams_are_read_once(tmp_path):
    """A reader of record batches, which can be read only once, answers several questions."""
    whole = table(*ROWS)
    engine = DuckDBUsage(
        pa.RecordBatchReader.from_batches(whole.schema, whole.to_batches()), [subscribed()]
    )
    assert engine.partial(subscribed().items[0], JAN) == 8
    assert engine.receipts() == {}


COLUMNS = {
    "subscription_item": ["si_0"] * 3,
    "quantity": [5, 7, 1],
    "timestamp": [START] * 3,
    "action": ["increment", "set", None],
}


def of_pyarrow():
    """Return a table."""
    return pa.table(COLUMNS)


def of_pyarrow_in_batches():
    """Return a table of several chunks."""
    return pa.concat_tables([pa.table(COLUMNS).slice(at, 1) for at in range(3)])


def of_polars():
    """Return a data frame, whose strings are Arrow's string views."""
    return pytest.importorskip("polars", reason="needs polars").DataFrame(COLUMNS)


def of_polars_categories():
    """Return a data frame whose strings are dictionary-encoded."""
    polars = pytest.importorskip("polars", reason="needs polars")
    return polars.DataFrame(
        COLUMNS,
        schema_overrides={"subscription_item": polars.Categorical, "action": polars.Categorical},
    )


def of_pandas():
    """Return a data frame, the missing action a NaN of pandas' own."""
    return pytest.importorskip("pandas", reason="needs pandas").DataFrame(COLUMNS)


def of_pandas_categories():
    """Return a data frame with categories, and rows that have an index of their own."""
    frame = pytest.importorskip("pandas", reason="needs pandas").DataFrame(COLUMNS, index=[9, 8, 7])
    return frame.astype(
        {"subscription_item": "category", "action": "category", "quantity": "uint16"}
    )


def of_duckdb():
    """Return a relation of the caller's own connection."""
    connection = duckdb.connect()
    rows = " UNION ALL ".join(
        f"SELECT 'si_0' AS subscription_item, {quantity} AS quantity, {START} AS "
        f"timestamp, {action} AS action"
        for quantity, action in ((5, "'increment'"), (7, "'set'"), (1, "NULL"))
    )
    return connection.sql(rows)


@pytest.mark.parametrize(
    "produced",
    [
        of_pyarrow,
        of_pyarrow_in_batches,
        of_polars,
        of_polars_categories,
        of_pandas,
        of_pandas_categories,
        of_duckdb,
    ],
)
def test_every_producer_of_arrow_streams_is_read(produced):
    """Whoever makes the stream, the total is the one worked by hand: 5, set to 7, and 1 more."""
    assert total(produced()) == 8


@pytest.mark.parametrize("produced", [of_pyarrow, of_polars, of_pandas])
def test_zoned_timestamps_of_every_producer_are_read(produced):
    """A timestamp with a zone is the same second from everyone, and one without is refused by
    everyone.
    """
    moment = datetime.fromtimestamp(START, UTC)
    source = dict(COLUMNS, timestamp=[moment] * 3)
    library = type(produced()).__module__.partition(".")[0]
    make = pa.table if library == "pyarrow" else sys.modules[library].DataFrame
    assert total(make(source)) == 8
    with pytest.raises(InvalidValueError, match=r"^timestamp: expected a column of"):
        total(make(dict(source, timestamp=[moment.replace(tzinfo=None)] * 3)))


def test_dictionaries_and_zoned_timestamps_are_read():
    """Dictionary-encoded items and timestamps with a zone (floored to the second) count as strings
    and Unix seconds.
    """
    source = pa.table({
        "subscription_item": pa.array(["si_0", "si_0"]).dictionary_encode(),
        "quantity": pa.array([1, 2], pa.uint8()),
        "timestamp": pa.array([START * 10**6, START * 10**6 + 999_999], pa.timestamp("us", "Europe/Berlin")),
    })  # fmt: skip
    last = Subscription("s", [SubscriptionItem("si_0", priced(mode="last_during_period"))], START)
    assert DuckDBUsage(source, [last]).partial(last.items[0], JAN) == (START, 3)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet", "arrow"])
def test_nothing_is_usage_of_nothing(kind, tmp_path):
    """An empty source has no receipts, no periods with usage, and identities for partials."""
    path = tmp_path / f"u.{kind}"
    if kind == "parquet":
        pq.write_table(table(), path)
    path = table() if kind == "arrow" else path
    if kind in {"csv", "jsonl"}:
        path.write_text("subscription_item,quantity,timestamp\n" if kind == "csv" else "")
    engine = DuckDBUsage(path, [four_modes()])
    assert engine.receipts() == engine.periods_with_usage() == {}
    assert engine.partials([(item, JAN) for item in four_modes().items]) == [
        0,
        None,
        None,
        None,
        None,
        0,
        (0, 0),
        (),
        (),
    ]


def test_only_what_adds_is_bound_by_its_total():
    """Two cells of 6 * 10**37 have a total of 39 digits; it refuses a sum and an average, and is no
    matter of the others.
    """
    items, great = four_modes().items, 6 * 10**37
    rows = [(item.id, great, at) for item in items for at in (START, START + 3600)]
    names, quantities, stamps = (list(column) for column in zip(*rows, strict=True))
    source = pa.table(
        {
            "subscription_item": names,
            "quantity": pa.array(quantities, pa.decimal128(38, 0)),
            "timestamp": stamps,
        }
    )
    engine = DuckDBUsage(source, [four_modes()])
    for item in items:
        if item.id in {"sum", "average"}:
            with pytest.raises(InvoicingError, match="at most 38 digits") as refused:
                engine.partial(item, JAN)
            assert refused.value.code == "quantity_out_of_range"
        else:
            expected = {"count": 2, "hourly_peaks": 2 * great}.get(item.id, great)
            assert AGGREGATORS[item.id].present(engine.partial(item, JAN)) == expected


def test_no_subscriptions_and_no_requests():
    """Without subscriptions every row is unknown; asking for nothing gives nothing."""
    engine = DuckDBUsage(table(*ROWS), [])
    assert {receipt.code for receipt in engine.receipts().values()} == {"subscription_item_unknown"}
    assert engine.partials([]) == []


# Order and receipt --------------------------------------------------------------------------------


def test_seq_is_the_order_of_arrival():
    """A column ``seq`` decides, not the order of rows; receipts are named by it, and numbers count
    accepted records.
    """
    source = table(*ROWS, ROWS[1]).append_column("seq", pa.array([70, 50, 60, 90]))
    engine = DuckDBUsage(source, [subscribed()])
    assert engine.partial(subscribed().items[0], JAN) == 13
    assert [(seq, receipt.sequence) for seq, receipt in engine.receipts().items()] == [(90, 1)]


@pytest.mark.slow
def test_numbers_of_originals_count_over_many_rows():
    """The number of a duplicate's original counts the accepted rows before it, over blocks of rows
    and refused ones.
    """
    rows = [
        ("si_0" if number % 3 else "unknown", 1, START + number % 7, None, None)
        for number in range(140_000)
    ]
    rows[139_999 - 1] = ("si_0", 2, START, None, "late")
    engine = DuckDBUsage(table(*rows, ("si_0", 2, START, None, "late")), [subscribed()])
    accepted_before = sum(row[0] == "si_0" for row in rows[: 139_999 - 1])
    assert engine.receipts()[140_001].sequence == accepted_before + 1


def test_ties_in_seq_are_refused():
    """Two rows with one place in the order of arrival are refused by name, because the bill could
    depend on them.
    """
    source = table(*ROWS).append_column("seq", pa.array([1, 2, 2]))
    with pytest.raises(
        InvalidValueError, match=r"seq: expected a different value in each row.*received 2"
    ) as refused:
        DuckDBUsage(source, [subscribed()])
    assert refused.value.param == "seq"


def test_now_is_the_moment_of_receipt_of_all():
    """With ``now`` all rows are judged at one moment, as by ``append(records, now=…)``."""
    engine = DuckDBUsage(table(*ROWS), [subscribed()], now=START - 1)
    assert {receipt.code for receipt in engine.receipts().values()} == {"timestamp_in_future"}


def test_now_excludes_a_column():
    """Two sources of the moment of receipt contradict each other, so both at once are refused."""
    source = table(*ROWS).append_column("received_at", pa.array([START] * 3))
    with pytest.raises(InvalidValueError, match="only specify one") as refused:
        DuckDBUsage(source, [subscribed()], now=START)
    assert refused.value.code == "parameters_exclusive"


def test_a_row_without_received_at_was_received_when_it_happened():
    """A null in ``received_at`` is absence, as in a file that the command line reads."""
    source = table(*ROWS).append_column(
        "received_at", pa.array([START, None, START - 1], pa.int64())
    )
    assert [
        (row, one.code) for row, one in DuckDBUsage(source, [subscribed()]).receipts().items()
    ] == [(3, "timestamp_in_future")]


# Exactness ----------------------------------------------------------------------------------------


def test_sums_go_beyond_64_bits():
    """Three times 2^63 - 1 is added exactly."""
    assert total(table(*[("si_0", 2**63 - 1, START + second) for second in range(3)])) == 3 * (
        2**63 - 1
    )


def test_wide_quantities_are_exact():
    """Decimals of scale 0 hold quantities of 38 digits."""
    source = pa.table(
        {
            "subscription_item": ["si_0"],
            "quantity": pa.array([10**37], pa.decimal128(38, 0)),
            "timestamp": [START],
        }
    )
    assert total(source) == 10**37


@pytest.mark.parametrize("mode", ["sum", "max"])
def test_overflow_is_an_error_of_ours(mode):
    """A sum of more than 38 digits is refused by name instead of wrapping or rounding, also within
    one cell.
    """
    source = pa.table({
        "subscription_item": ["si_0"] * 2,
        "quantity": pa.array([10**38 - 1, 1], pa.decimal128(38, 0)),
        "timestamp": [START] * 2,
    })  # fmt: skip
    subscription = subscribed(priced(mode=mode))
    with pytest.raises(InvoicingError, match="38 digits") as refused:
        DuckDBUsage(source, [subscription]).partial(subscription.items[0], JAN)
    assert refused.value.code == "quantity_out_of_range"


@pytest.mark.parametrize(
    ("column", "kind", "value"),
    [
        ("quantity", pa.float64(), 1.0),
        ("quantity", pa.decimal128(10, 2), 1),
        ("quantity", pa.string(), "1"),
        ("quantity", pa.bool_(), True),
        ("timestamp", pa.timestamp("s"), START),
        ("timestamp", pa.float64(), float(START)),
        ("timestamp", pa.string(), "2024-01-01"),
        ("subscription_item", pa.int64(), 1),
        ("id", pa.int64(), 1),
        ("action", pa.bool_(), True),
    ],
)
def test_inexact_columns_are_refused(column, kind, value):
    """A column of a type that does not say exactly what is meant is refused by name before a row is
    read.
    """
    row = dict(zip(list(TYPES)[:5], ROWS[0], strict=True)) | {column: value}
    source = pa.table(
        {
            name: pa.array([one], kind if name == column else TYPES[name])
            for name, one in row.items()
        }
    )
    with pytest.raises(InvalidValueError, match=rf"^{column}: expected a column of") as refused:
        DuckDBUsage(source, [subscribed()])
    assert refused.value.param == column


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("quantity", -1),
        ("quantity", None),
        ("timestamp", None),
        ("timestamp", 253_402_300_800),
        ("subscription_item", None),
        ("subscription_item", ""),
        ("subscription_item", "x" * 256),
        ("id", ""),
        ("id", "x" * 256),
        ("action", "sett"),
    ],
)
def test_malformed_values_are_refused(column, value):
    """The first malformed value is refused with its column and its row, in the words of a log's
    readers.
    """
    row = dict(zip(list(TYPES)[:5], ROWS[0], strict=True)) | {column: value}
    with pytest.raises(InvalidValueError, match=rf"^usage, row 2: .*{column}") as refused:
        DuckDBUsage(table(ROWS[0], tuple(row.values()), tuple(row.values())), [subscribed()])
    assert (refused.value.param, refused.value.details["seq"]) == (column, 2)


@pytest.mark.parametrize("text", ["5.0", "1e3", "-5", "", "five", "9" * 39])
def test_malformed_numbers_of_csv_are_refused(text, tmp_path):
    """A quantity of CSV is digits and nothing else."""
    (tmp_path / "u.csv").write_text(f"subscription_item,quantity,timestamp\nsi_0,{text},{START}\n")
    with pytest.raises(
        CatalogError,
        match=r"u\.csv, line 2: (quantity: expected an integer|Missing required param: quantity)",
    ):
        total(tmp_path / "u.csv")


@pytest.mark.parametrize("first", ["# a comment", "", "a,b"])
def test_rows_of_csv_are_never_skipped(first, tmp_path):
    """No row is taken for a comment or a preamble: it is refused by name or counts, and an empty
    one says nothing.
    """
    rows = f"#1,5,{START}\nsi_0,2,{START}\n#2,5,{START}\n"
    (tmp_path / "u.csv").write_text(f"subscription_item,quantity,timestamp\n{rows}")
    engine = DuckDBUsage(tmp_path / "u.csv", [subscribed()])
    assert {row: receipt.code for row, receipt in engine.receipts().items()} == dict.fromkeys(
        [1, 3], "subscription_item_unknown"
    )
    if first:
        (tmp_path / "u.csv").write_text(f"{first}\nsubscription_item,quantity,timestamp\n{rows}")
        with pytest.raises((CatalogError, InvalidValueError)):
            total(tmp_path / "u.csv")


@pytest.mark.parametrize("row", ["si_0,2", f"si_0,2,{START},7", f'si_0,"2,{START}'])
def test_rows_of_csv_with_other_fields_than_the_header_are_refused(row, tmp_path):
    """A row with too few or too many fields, or with an open quote, ends the reading; it is not
    padded or cut.
    """
    good = f"si_0,1,{START}\n"
    (tmp_path / "u.csv").write_text(
        f"subscription_item,quantity,timestamp\n{good * 3}{row}\n{good * 3}"
    )
    with pytest.raises((CatalogError, InvalidValueError)):
        total(tmp_path / "u.csv")


@pytest.mark.parametrize(
    "text", ["2024-01-01T00:00:00", "2024-01-01", "2024-13-01T00:00:00Z", "soon", "1704067200.5"]
)
def test_malformed_instants_of_csv_are_refused(text, tmp_path):
    """A timestamp of CSV is Unix seconds, or ISO 8601 with an offset."""
    (tmp_path / "u.csv").write_text(f"subscription_item,quantity,timestamp\nsi_0,1,{text}\n")
    with pytest.raises(
        CatalogError,
        match=r"u\.csv, line 2: timestamp: expected Unix seconds, or ISO 8601 with an offset",
    ):
        total(tmp_path / "u.csv")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("quantity", 5.0),
        ("quantity", "5"),
        ("quantity", True),
        ("timestamp", str(START)),
        ("subscription_item", 7),
    ],
)
def test_malformed_values_of_json_are_refused(field, value, tmp_path):
    """A value of JSON has the type it should have: no number as text, no float, no bool."""
    line = {"subscription_item": "si_0", "quantity": 1, "timestamp": START} | {field: value}
    (tmp_path / "u.jsonl").write_text(json.dumps(line) + "\n")
    with pytest.raises(CatalogError, match=rf"u\.jsonl, line 1: {field}: expected"):
        total(tmp_path / "u.jsonl")


def test_missing_columns_are_named():
    """A source without a required column says which."""
    with pytest.raises(InvalidValueError, match="the column 'quantity' is missing"):
        total(pa.table({"subscription_item": ["si_0"], "timestamp": [START]}))


def test_typing_slips_in_columns_are_noticed():
    """A column that is nearly an optional one is refused; other columns of a wide table are not
    read.
    """
    rows = table(*ROWS)
    assert total(rows.append_column("region", pa.array(["eu"] * 3))) == 8
    with pytest.raises(InvalidValueError, match="did you mean 'received_at'"):
        total(rows.append_column("recieved_at", pa.array([START] * 3)))


@pytest.mark.parametrize("source", ["absent.parquet", "absent-*.csv", 7, b"u.csv"])
def test_sources_that_are_none_are_refused(source):
    """A path without a file, and an object that is no stream, are refused by name."""
    with pytest.raises((CatalogError, InvalidValueError), match=r"no such file|expected a path"):
        total(source)


def test_mixed_and_unknown_extensions_are_refused(tmp_path):
    """Files of one question have one format, told by their extension."""
    for name in ("a.csv", "b.jsonl", "c.txt"):
        (tmp_path / name).write_text("")
    with pytest.raises(CatalogError, match=r"expected files of one extension"):
        total([tmp_path / "a.csv", tmp_path / "b.jsonl"])
    with pytest.raises(CatalogError, match=r"received \.txt"):
        total(tmp_path / "c.txt")


def test_broken_files_are_refused(tmp_path):
    """A file that is not what its extension says is refused with its reader's complaint."""
    for name in ("u.parquet", "u.jsonl"):
        (tmp_path / name).write_text('{"quantity": ')
        with pytest.raises(CatalogError, match=rf"{name}(: cannot be read|, line 1: is not JSON)"):
            total(tmp_path / name)


# The seam -----------------------------------------------------------------------------------------


def test_previews_are_those_of_a_log():
    """A preview over files equals the preview over a log, line by line."""
    subscription = subscribed()
    log = used((START, 5), (START, 7, "set"), (START, 1))
    engine = DuckDBUsage(table(*ROWS), [subscription])
    assert preview_invoice(subscription, engine, now=START) == preview_invoice(
        subscription, log, now=START
    )


def test_answers_are_remembered(monkeypatch):
    """What was asked in bulk costs no further run: billing every subscription afterwards asks
    DuckDB nothing.
    """
    subscription = four_modes()
    engine = DuckDBUsage(table(("sum", 5, START), ("max", 7, START)), [subscription])
    assert engine.periods_with_usage() == {"sub": (JAN,)}
    engine.close()
    assert finalize_invoice(subscription, engine, JAN, now=JAN.end).total == 12


def test_unknown_items_and_items_without_a_mode_cannot_be_asked():
    """Questions that a log refuses are refused with the same codes."""
    engine = DuckDBUsage(table(*ROWS), [subscribed(priced(mode=None))])
    for item, code in (
        (SubscriptionItem("other", priced()), "subscription_item_unknown"),
        (subscribed(priced(mode=None)).items[0], "price_not_metered"),
    ):
        with pytest.raises(InvoicingError) as refused:
            engine.partial(item, JAN)
        assert refused.value.code == code


@pytest.mark.parametrize(
    ("subscriptions", "closed"),
    [
        ([subscribed(), subscribed()], None),
        ([subscribed(), subscribed(id="other")], None),
        ([subscribed()], {"nobody": []}),
    ],
)
def test_contradicting_subscriptions_are_refused(subscriptions, closed):
    """Two versions of a subscription, an item of two of them, and closed periods of none are
    refused.
    """
    with pytest.raises(InvalidValueError):
        DuckDBUsage(table(*ROWS), subscriptions, closed=closed)


def test_spilling_changes_nothing(tmp_path):
    """Under a small memory limit and with a folder to spill to, the answer is the one worked out
    record by record.
    """
    count = 400_000
    source = pa.table({
        "subscription_item": pa.array(["si_0"] * count),
        "quantity": pa.array(range(count)),
        "timestamp": pa.array([START + number * 7 % (31 * DAY) for number in range(count)]),
    })  # fmt: skip
    subscription = subscribed(priced(mode="max"))
    engine = DuckDBUsage(
        source, [subscription], memory_limit="120MB", temp_directory=tmp_path / "spill"
    )
    cells = {}
    for number in range(count):
        second = number * 7 % (31 * DAY)
        cells[second] = cells.get(second, 0) + number
    assert engine.partial(subscription.items[0], JAN) == max(cells.values())
    assert engine._tables.fetched("SELECT current_setting('memory_limit')") == [("114.4 MiB",)]


def test_progress_is_told():
    """During a long statement the part that is done is told, between 0 and 1."""
    told = []
    rows = 300_000
    source = table(*[("si_0", 1, START)] * rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("metering_core.sql.duckdb_tables._POLL_SECONDS", 0.001)
        assert total(source, progress=told.append) == rows
    assert told
    assert all(0 <= part <= 1 for part in told)


def test_an_interruption_stops_the_statement():
    """An exception while the progress is told interrupts DuckDB and leaves."""

    def stop(part):
        raise KeyboardInterrupt

    rows = 300_000
    source = table(*[("si_0", 1, START)] * rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("metering_core.sql.duckdb_tables._POLL_SECONDS", 0.0001)
        with pytest.raises(KeyboardInterrupt):
            total(source, progress=stop)


def test_the_extra_is_named_where_it_is_missing(monkeypatch):
    """Without DuckDB the engine says which extra brings it."""
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(MissingExtraError, match=r"metering-core\[duckdb\]"):
        DuckDBUsage(table(*ROWS), [subscribed()])


def test_the_kernel_is_printed_whole():
    """The text that is printed holds each statement as it is run."""
    text = sql_kernel()
    assert all(texts.statement(name).rstrip() in text for name in texts.STATEMENTS)


def test_the_kernel_is_plain_sql():
    """What is printed runs as it stands in a plain DuckDB, over tables made by hand from its own
    description.
    """
    connection = duckdb.connect()
    connection.execute(f"""
        CREATE TABLE given AS SELECT 1 AS seq, 'si_0' AS subscription_item, 5 AS quantity, {START} AS timestamp,
          {START} AS received, FALSE AS is_set, NULL::VARCHAR AS id;
        CREATE TABLE items AS SELECT 'si_0' AS subscription_item, 0 AS item, 0 AS calendar, 'sum' AS aggregate_usage,
          FALSE AS has_thresholds;
        CREATE TABLE standings AS SELECT 0 AS calendar, {START} AS received_from, {START + 1} AS received_before,
          FALSE AS is_ended, 0 AS future_tolerance, {START + DAY} AS current_end, {START} AS accepted_from,
          {START + DAY} AS accepted_before, NULL::BIGINT AS late_billed_at;
        CREATE TABLE closings (calendar BIGINT, starts BIGINT, ends BIGINT, bills_late BOOLEAN);
        CREATE TABLE requests AS SELECT 0 AS request, 0 AS series, {START} AS starts, {START + DAY} AS ends,
          FALSE AS looks_back, {START} AS reads_from, {START + DAY} AS reads_before, TRUE AS adds_up, TRUE AS wants_total,
          FALSE AS wants_latest, FALSE AS is_windowed, FALSE AS wants_texts, FALSE AS wants_area, 0 AS window_length;
    """)
    for name in texts.STATEMENTS:
        result = connection.execute(texts.statement(name)).fetchall()
        writes = {"sifting": "sifted", "judging": "judged", "entries": "entries"}.get(name)
        if writes is not None:
            connection.execute(f"CREATE TABLE {writes} AS {texts.statement(name)}")
        if name == "sifting":
            connection.execute("CREATE VIEW usage AS SELECT * FROM sifted WHERE fault IS NULL")
        if name == "folding":
            assert result == [(0, None, None, 1, 5, 5, 5, 0, None, None, None)]


def test_attributed_usage_is_billed_in_the_open_period():
    """Late usage of a closed period is billed in the period in which it was received."""
    policy = AcceptancePolicy(
        late_grace=engine_cases.timedelta(days=3), late_attribution="open_period"
    )
    subscription = subscribed()
    source = table(("si_0", 9, JAN.end_seconds - 1)).append_column(
        "received_at", pa.array([JAN.end_seconds + 5])
    )
    closed = {
        "sub": [engine_cases.Batch(policy, [subscription], [("sub", JAN)]).closed()["sub"][0]]
    }
    engine = DuckDBUsage(source, [subscription], policy=policy, closed=closed)
    february = BillingPeriod(JAN.end, START + 60 * DAY)
    assert engine.partials([(subscription.items[0], JAN), (subscription.items[0], february)]) == [
        0,
        9,
    ]
    assert engine.periods_with_usage() == {"sub": (february,)}


@pytest.mark.parametrize(
    "newer",
    [priced(PerUnit(2)), priced(Graduated([Tier(9, 0), Tier("inf", 1)]))],
    ids=["other", "tiers"],
)
def test_what_is_late_of_other_terms_is_refused_as_the_log_does(newer):
    """January was billed at a cent a unit, and February is at another price: its receipt is the
    log's, word for word.
    """
    policy = AcceptancePolicy(
        late_grace=engine_cases.timedelta(days=3), late_attribution="open_period"
    )
    log = UsageLog([subscribed()], policy=policy)
    finalize_invoice(subscribed(), log, JAN, now=JAN.end)
    log.subscribe(subscribed(newer), now=JAN.end)
    source = table(("si_0", 9, JAN.end_seconds - 1)).append_column(
        "received_at", pa.array([JAN.end_seconds + 5])
    )
    engine = DuckDBUsage(source, [subscribed(newer)], policy=policy, closed=log.state().closed)
    late = UsageRecord("si_0", 9, JAN.end_seconds - 1)
    (receipt,) = engine.receipts().values()
    assert (receipt, receipt.code) == (
        log.append([late], now=JAN.end_seconds + 5)[0],
        "late_usage_not_billable",
    )


# The order, slips and memory ----------------------------------------------------------------------


@pytest.mark.parametrize("seq", ["", "abc", "1.5", str(2**63)])
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_text_without_a_place_in_the_order_is_refused(kind, seq, tmp_path):
    """A ``seq`` that is no integer of 64 bits is refused with what it says; its row, which sorts
    nowhere, cannot vanish.
    """
    rows = [(5, "1"), (10, "2"), (7, seq)]
    if kind == "csv":
        lines = [
            "subscription_item,quantity,timestamp,seq",
            *(f"si_0,{quantity},{START},{place}" for quantity, place in rows),
        ]
    else:
        line = '{"subscription_item": "si_0", "quantity": %d, "timestamp": %d, "seq": %s}'
        lines = [
            line % (quantity, START, place if place.isdigit() else json.dumps(place))
            for quantity, place in rows
        ]
    (tmp_path / f"u.{kind}").write_text("\n".join(lines))
    with pytest.raises(
        InvalidValueError, match=r"^seq: expected an integer of at most 64 bits in each row"
    ) as refused:
        total(tmp_path / f"u.{kind}")
    assert (refused.value.code, refused.value.param) == ("parameter_invalid_integer", "seq")
    assert refused.value.details["received"] == (
        (seq or None) if kind == "csv" else lines[2][lines[2].index("seq") + 6 : -1]
    )


@pytest.mark.parametrize("values", [[1, 2, None], [1, None, None], [1, 2, 2**63 + 5]])
@pytest.mark.parametrize("stored", [False, True])
def test_columns_without_a_place_in_the_order_are_refused(values, stored, tmp_path):
    """The same of a column: one NULL, two of them (which are no tie), and a number above 64 bits;
    also beside ids.
    """
    source = table(*ROWS).append_column("seq", pa.array(values, pa.uint64()))
    if stored:
        pq.write_table(source, tmp_path / "u.parquet")
    with pytest.raises(
        InvalidValueError, match=r"^seq: expected an integer of at most 64 bits in each row"
    ):
        DuckDBUsage(tmp_path / "u.parquet" if stored else source, [subscribed()])


def test_a_file_without_the_order_of_the_others_is_refused(tmp_path):
    """Where one file of several has ``seq``, the rows of the others have no place."""
    pq.write_table(table(*ROWS), tmp_path / "a.parquet")
    pq.write_table(table(*ROWS).append_column("seq", pa.array([1, 2, 3])), tmp_path / "b.parquet")
    with pytest.raises(InvalidValueError, match=r"^seq: expected .* received None"):
        total(tmp_path / "*.parquet")


def test_a_row_without_a_place_hides_no_malformed_quantity():
    """The order is inspected before the values, which are named by it: a negative quantity beside a
    NULL is not billed.
    """
    source = table(("si_0", 5, START), ("si_0", -10, START)).append_column(
        "seq", pa.array([1, None], pa.int64())
    )
    with pytest.raises(InvalidValueError, match=r"^seq: expected"):
        total(source)


@pytest.mark.parametrize("places", [(5_000_000_000, "007"), (1, 2)])
def test_malformed_values_are_named_by_a_seq_of_text(places, tmp_path):
    """The row of a malformed value is found by its ``seq`` also where that is text of many digits,
    or of leading zeros.
    """
    rows = f"si_0,1,{START},{places[0]}\nsi_0,-1,{START},{places[1]}\n"
    (tmp_path / "u.csv").write_text(f"subscription_item,quantity,timestamp,seq\n{rows}")
    with pytest.raises(
        CatalogError, match=rf"u\.csv, row {int(places[1])}: quantity: expected .* received -1 "
    ):
        total(tmp_path / "u.csv")


@pytest.mark.parametrize("slip", ["ID", "Id", " id", "Seq", "Action", "ACTION", "recieved_at"])
def test_slips_of_case_are_noticed(slip):
    """A column that is ours but for case, spaces or a letter is refused: unread, a retry would be
    billed twice.
    """
    source = table(*[row[:3] for row in ROWS]).append_column(slip, pa.array([1, 2, 3]))
    with pytest.raises(
        InvalidValueError, match=rf"^usage: received the unknown column '{slip}' \(did you mean "
    ) as refused:
        total(source)
    assert (refused.value.code, refused.value.param) == ("parameter_unknown", slip)


@pytest.mark.parametrize("limit", ["2 potatoes", "-5GB", "", "none", 2])
def test_memory_limits_that_are_none_are_refused(limit):
    """A limit that is no size, or that DuckDB would take for none at all, is refused in our
    words.
    """
    with pytest.raises(
        InvalidValueError, match=r"^memory_limit: expected a size with its unit, such as '2GB'"
    ) as refused:
        total(table(*ROWS), memory_limit=limit)
    assert (refused.value.param, refused.value.details["received"]) == ("memory_limit", limit)


@pytest.mark.parametrize("limit", ["2KB", "1MB"])
def test_too_little_memory_is_an_error_of_ours(limit):
    """Where DuckDB cannot even spill, the limit is at fault, at the start as later."""
    with pytest.raises(
        InvalidValueError, match=r"^memory_limit: expected memory enough for what cannot be spilled"
    ) as refused:
        total(table(*ROWS), memory_limit=limit)
    assert (refused.value.param, refused.value.details["received"]) == ("memory_limit", limit)


class Copied(Exception):  # noqa: N818 - it is none
    """The source was copied."""


@pytest.mark.parametrize("kind", ["csv", "jsonl", "stream"])
def test_progress_is_told_while_a_source_is_copied(kind, tmp_path, monkeypatch):
    """Text and streams are copied before anything is asked, and the caller hears of it then."""
    rows, told = 300_000, []
    source = table(*[("si_0", 1, START)] * rows)
    if kind == "csv":
        (tmp_path / "u.csv").write_text(
            "subscription_item,quantity,timestamp\n" + f"si_0,1,{START}\n" * rows
        )
        source = tmp_path / "u.csv"
    if kind == "jsonl":
        (tmp_path / "u.jsonl").write_text(
            f'{{"subscription_item": "si_0", "quantity": 1, "timestamp": {START}}}\n' * rows
        )
        source = tmp_path / "u.jsonl"
    monkeypatch.setattr("metering_core.sql.duckdb_tables._POLL_SECONDS", 0.001)

    def copied(*_):
        raise Copied

    monkeypatch.setattr("metering_core.sql.engine.require_order", copied)  # What comes after it.
    with pytest.raises(Copied):
        DuckDBUsage(source, [subscribed()], progress=told.append)
    assert told
    assert all(0 <= part <= 1 for part in told)

"""How DuckDB reads files: nothing that it would guess, cast or pass over reaches a bill without a
word.
"""

from __future__ import annotations

import json

import pytest
from builders import JAN, START, subscribed
from event_cases import METERS

from metering_core import InvalidValueError
from metering_core.errors import CatalogError

duckdb = pytest.importorskip("duckdb", reason="needs the extra 'duckdb'")
pa = pytest.importorskip("pyarrow", reason="needs pyarrow, to make Arrow tables and Parquet files")

from pyarrow import parquet as pq  # noqa: E402 - after the skip

from metering_core.sql import DuckDBEvents, DuckDBUsage  # noqa: E402 - after the skip

HEADER = "subscription_item,quantity,timestamp"


def total(source, **options):
    """Return the January total of ``si_0``."""
    return DuckDBUsage(source, [subscribed()], **options).partial(subscribed().items[0], JAN)


def columns(*quantities, **others):
    """Return columns of increments of ``si_0`` at the start; ``others`` are added or take the place
    of one.
    """
    size = len(quantities)
    return {
        "subscription_item": ["si_0"] * size,
        "quantity": list(quantities),
        "timestamp": [START] * size,
    } | others


def written(path, *quantities):
    """Write increments in the format that the extension says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        dict(zip(columns(0), row, strict=True))
        for row in zip(*columns(*quantities).values(), strict=True)
    ]
    if path.suffix == ".parquet":
        pq.write_table(pa.table(columns(*quantities)), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        path.write_text(
            "\n".join([HEADER, *(",".join(map(str, row.values())) for row in rows)]) + "\n"
        )
    return path


# Which files --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
@pytest.mark.parametrize(
    "folder",
    ["quantity=9", "action=set", "id=abc", "received_at=0", "seq=1", "subscription_item=other"],
)
def test_names_of_folders_are_no_columns(kind, folder, tmp_path):
    """A file says 3 and 4, which is 7 wherever it lies: a folder's name is no value of its rows."""
    engine = DuckDBUsage(written(tmp_path / folder / f"u.{kind}", 3, 4), [subscribed()])
    assert engine.partial(subscribed().items[0], JAN) == 7
    assert engine.receipts() == {}


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
@pytest.mark.parametrize(("name", "other"), [("u[1]", "u1"), ("u*", "u2"), ("u?", "u3")])
def test_a_file_is_read_by_its_name_also_where_that_looks_like_a_glob(kind, name, other, tmp_path):
    """What is named is read, and not what its name would match: 5 of the one and none of the 100 of
    the other.
    """
    file = written(tmp_path / f"{name}.{kind}", 5)
    written(tmp_path / f"{other}.{kind}", 100)
    assert total(file) == 5
    assert total([file, written(tmp_path / f"v.{kind}", 1)]) == 6


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
def test_a_file_counts_once_however_it_is_spelled(kind, tmp_path, monkeypatch):
    """A path, the same from here, the same by way of a folder, a glob and a link are one file with
    5 units.
    """
    monkeypatch.chdir(tmp_path)
    file = written(tmp_path / f"[u].{kind}", 5)
    (tmp_path / f"link.{kind}").symlink_to(file)
    (tmp_path / "folder").mkdir()
    spelled = [file, f"[u].{kind}", f"folder/../[u].{kind}", f"link.{kind}", f"*.{kind}"]
    assert total(spelled) == 5


# Columns ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", ["quantity", "Quantity", " quantity"])
def test_columns_of_csv_that_come_twice_are_refused(header, tmp_path):
    """Two columns that DuckDB would take for one are refused, whichever comes first: one of them
    would be billed.
    """
    for at, both in enumerate([(header, "quantity"), ("quantity", header)]):
        file = tmp_path / f"{at}.csv"
        file.write_text(f"subscription_item,timestamp,{','.join(both)}\nsi_0,{START},5,9\n")
        with pytest.raises(
            CatalogError, match=r"csv: expected each column once, received 'quantity' 2 times"
        ):
            total(file)


@pytest.mark.parametrize(
    ("field", "said"), [(' "a"', ' "a"'), (' "a" ', ' "a" '), (' ""', ' ""'), ('"a" ', None)]
)
@pytest.mark.parametrize("order", ["quantity,timestamp,id", "id,quantity,timestamp"])
def test_blanks_beside_quotes_say_what_they_say_to_others(field, said, order, tmp_path):
    """DuckDB would pass over a blank before a quote; here it is a part of the id, as in a log, and
    one after it is refused.
    """
    values = {"quantity": "5", "timestamp": str(START), "id": field}
    row = ",".join(values[column] for column in order.split(","))
    (tmp_path / "u.csv").write_text(f"subscription_item,{order}\nsi_0,{row}")
    if said is None:
        with pytest.raises(
            CatalogError, match=r"u\.csv, line 2: is not CSV: ',' expected after '\"'"
        ):
            total(tmp_path / "u.csv")
    else:
        engine = DuckDBUsage(tmp_path / "u.csv", [subscribed()])
        assert engine._tables.fetched("SELECT id, quantity FROM usage") == [(said, 5)]


@pytest.mark.parametrize("field", ['"a, ""b"" , c"', '" "', '"a "", b"', '"\n ""x"""'])
def test_blanks_within_quotes_are_text(field, tmp_path):
    """A field in quotes may hold blanks, quotes and commas in any order; the row counts."""
    (tmp_path / "u.csv").write_text(
        f'{HEADER},id,note\nsi_0,5,{START},{field},x\nsi_0,2,{START},"b"," "\n'
    )
    assert total(tmp_path / "u.csv") == 7


@pytest.mark.parametrize(
    "key", ['a"b', "", "$", "*", "[0]", "it's", "a.b", "a/b", "a~b", "QUANTITY\\"]
)
def test_keys_of_json_may_be_any_text(key, tmp_path):
    """A key that is not read may hold what SQL and paths of JSON find special."""
    (tmp_path / "u.jsonl").write_text(
        json.dumps({key: 9, "subscription_item": "si_0", "quantity": 5, "timestamp": START}) + "\n"
    )
    assert total(tmp_path / "u.jsonl") == 5


@pytest.mark.parametrize("again", ['"quantity":9', '"quantit\\u0079":9', '"note":1,"note":2'])
def test_keys_of_json_that_come_twice_are_refused(again, tmp_path):
    """An object with a key twice says two things; in whichever row it is, nothing is billed."""
    row = f'"subscription_item":"si_0","quantity":5,"timestamp":{START}'
    (tmp_path / "u.jsonl").write_text(f"{{{row}}}\n{{{row},{again}}}\n")
    with pytest.raises(CatalogError, match=r"the key '(quantity|note)' occurs twice in one object"):
        total(tmp_path / "u.jsonl")


@pytest.mark.parametrize("end", [",}", ", } ", ',"note":{"a":1,}}', ',"note":[1,]}'])
def test_objects_that_end_with_a_comma_are_refused(end, tmp_path):
    """A comma before a closing brace is no JSON, although DuckDB reads it."""
    (tmp_path / "u.jsonl").write_text(
        f'{{"subscription_item":"si_0","quantity":5,"timestamp":{START}{end}\n'
    )
    with pytest.raises(CatalogError, match=r"u\.jsonl, line 1: is not JSON: "):
        total(tmp_path / "u.jsonl")


def test_commas_and_braces_of_texts_are_no_end(tmp_path):
    """A text that ends with a comma and braces is a text."""
    (tmp_path / "u.jsonl").write_text(
        f'{{"subscription_item":"si_0","quantity":5,"timestamp":{START},"id":"a,}} ]"}}\n'
    )
    assert total(tmp_path / "u.jsonl") == 5


@pytest.mark.parametrize("text", ["{", "5", "x"])
def test_a_file_of_one_character_is_not_empty(text, tmp_path):
    """A file that broke off after its first character is refused, and is not read as a file without
    rows.
    """
    (tmp_path / "u.jsonl").write_text(text)
    with pytest.raises(
        CatalogError, match=r"u\.jsonl, line 1: (is not JSON|row: expected an object)"
    ):
        total(tmp_path / "u.jsonl")


def test_a_blank_file_has_no_rows(tmp_path):
    """A file of one line end is a file without rows."""
    (tmp_path / "u.jsonl").write_text("\n")
    assert total(tmp_path / "u.jsonl") == 0


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
def test_a_slip_in_one_file_of_several_is_noticed(kind, tmp_path):
    """A misspelt column is refused also where another file spells it: its rows would be read
    without it.
    """
    files = [tmp_path / f"{name}.{kind}" for name in "ab"]
    for file, name in zip(files, ("action", "acton"), strict=True):
        row = {**{key: value[0] for key, value in columns(5).items()}, name: "set"}
        if kind == "parquet":
            pq.write_table(pa.table({key: [value] for key, value in row.items()}), file)
        elif kind == "csv":
            file.write_text(f"{','.join(row)}\n{','.join(map(str, row.values()))}\n")
        else:
            file.write_text(json.dumps(row) + "\n")
    with pytest.raises(
        InvalidValueError, match=r"unknown column 'acton' \(did you mean 'action'\?\)"
    ):
        total(files)


# Types of several files ---------------------------------------------------------------------------

ZONED = pa.array([START * 10**6], pa.timestamp("us", "UTC"))
NAIVE = pa.array([START * 10**6], pa.timestamp("us"))


@pytest.mark.parametrize("zone", ["UTC", "America/New_York"])
@pytest.mark.parametrize(
    ("column", "one", "other"),
    [
        ("timestamp", ZONED, NAIVE),
        ("timestamp", ZONED, [START]),
        ("received_at", ZONED, NAIVE),
        ("subscription_item", ["si_0"], [7]),
        ("quantity", [5], [5.0]),
        ("quantity", [5], ["5"]),
        ("id", ["7"], [7]),
    ],
)
def test_a_column_of_another_sort_in_another_file_is_refused(
    column, one, other, zone, tmp_path, monkeypatch
):
    """DuckDB would cast a column that files disagree about, naive timestamps in the machine's zone;
    we refuse it by name.
    """
    monkeypatch.setenv("TZ", zone)
    for values in ((one, other), (other, one)):
        for name, array in zip("ab", values, strict=True):
            pq.write_table(pa.table(columns(5, **{column: array})), tmp_path / f"{name}.parquet")
        with pytest.raises(
            InvalidValueError, match=rf"^{column}: expected a column of one type in all files"
        ) as refused:
            total(tmp_path / "*.parquet")
        assert refused.value.param == column


@pytest.mark.parametrize(
    ("column", "one", "other"),
    [
        ("quantity", pa.array([5], pa.uint8()), pa.array([5], pa.int64())),
        ("quantity", pa.array([5], pa.decimal128(38, 0)), pa.array([5], pa.int32())),
        ("timestamp", ZONED, pa.array([START * 10**9], pa.timestamp("ns", "Europe/Berlin"))),
        ("action", pa.nulls(1), ["increment"]),
        ("id", ["a"], pa.nulls(1)),
        ("note", ["a"], [1]),
    ],
)
def test_a_column_of_the_same_sort_in_another_file_is_read(column, one, other, tmp_path):
    """Widths of integers, units of timestamps, columns without a value and columns that are not
    read may differ.
    """
    for name, array in (("a", one), ("b", other)):
        pq.write_table(
            pa.table(columns(5, **{column: array, "meta": [{"timestamp": name}]})),
            tmp_path / f"{name}.parquet",
        )
    assert total(tmp_path / "*.parquet") == 10


def test_the_machine_has_no_time_zone(monkeypatch):
    """DuckDB works in UTC, whatever the machine's zone is (law 12)."""
    monkeypatch.setenv("TZ", "America/New_York")
    engine = DuckDBUsage(pa.table(columns(5)), [subscribed()])
    assert engine._tables.fetched("SELECT current_setting('TimeZone')") == [("UTC",)]


# Instants -----------------------------------------------------------------------------------------


BEFORE_1970 = pytest.mark.skipif(
    duckdb.__version__ < "2", reason="DuckDB 1 cuts nanoseconds itself, towards 1970"
)


@pytest.mark.parametrize("as_file", [True, False])
@pytest.mark.parametrize(
    ("moment", "second"),
    [
        (START * 10**9 - 1, START - 1),
        (START * 10**9 + 999_999_999, START),
        (0, 0),
        pytest.param(-1, -1, marks=BEFORE_1970),
    ],
)
def test_nanoseconds_are_floored_to_the_second(moment, second, as_file, tmp_path):
    """A nanosecond before a second belongs to the second before, after 1970 as before; the second
    itself is its own.
    """
    source = pa.table(columns(1, timestamp=pa.array([moment], pa.timestamp("ns", "Asia/Kolkata"))))
    if as_file:
        pq.write_table(source, tmp_path / "u.parquet")
    engine = DuckDBUsage(tmp_path / "u.parquet" if as_file else source, [subscribed()], time=None)
    assert engine._tables.fetched("SELECT timestamp FROM usage") == [(second,)]


@pytest.mark.parametrize(
    ("moment", "microsecond"),
    [
        (START * 10**9 - 1, START * 10**6 - 1),
        (1999, 1),
        (-1000, -1),
        pytest.param(-1, -1, marks=BEFORE_1970),
    ],
)
def test_nanoseconds_of_events_are_floored_to_the_microsecond(moment, microsecond):
    """A nanosecond before a microsecond belongs to the microsecond before, after 1970 as before."""
    event = {"event_name": [METERS[0].event_name], "customer": ["cus_1"], "value": ["1"]}
    source = pa.table({**event, "timestamp": pa.array([moment], pa.timestamp("ns", "UTC"))})
    engine = DuckDBEvents(source, METERS, time=None)
    assert engine._tables.fetched("SELECT timestamp FROM usage") == [(microsecond,)]


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize(
    "text", ["2024-01-01T24:00:00Z", "2024-01-02T00:00:00+24:00", "2024-01-01T00:00:00-24:00"]
)
def test_an_hour_is_at_most_23(kind, text, tmp_path):
    """Of a day and of an offset, as in the files that a log reads."""
    row = columns(5, timestamp=[text])
    lines = {
        "csv": f"{HEADER}\nsi_0,5,{text}\n",
        "jsonl": json.dumps({key: value[0] for key, value in row.items()}),
    }
    (tmp_path / f"u.{kind}").write_text(lines[kind])
    with pytest.raises(
        CatalogError,
        match=r"line [12]: timestamp: expected Unix seconds, or ISO 8601 with an offset",
    ):
        total(tmp_path / f"u.{kind}")


@pytest.mark.parametrize("digits", ["9", "999999999", "999999999999"])
def test_fractions_of_a_second_may_have_any_length(digits, tmp_path):
    """RFC 3339 sets no limit to them, and what is written with nine digits is not rounded into the
    next second.
    """
    (tmp_path / "u.csv").write_text(
        f"{HEADER}\nsi_0,5,2023-12-31T23:59:59.{digits}Z\nsi_0,2,2024-01-31T23:59:59.{digits}Z\n"
    )
    assert total(tmp_path / "u.csv") == 2

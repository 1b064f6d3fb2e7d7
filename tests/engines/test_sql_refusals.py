"""What files lose is told: each row that DuckDB does not take, in the words of a log's readers, and
never out of proportion.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time

import pytest
from builders import DAY, JAN, START, priced, subscribed
from event_cases import METERS

import metering_core as mc
from metering_core import (
    AcceptancePolicy,
    BillingPeriod,
    InvalidValueError,
    MeteringError,
    UsageLog,
)
from metering_core.errors import CatalogError
from metering_core.feeds.appending import append_usage
from metering_core.feeds.files import USAGE_COLUMNS, read_usage

duckdb = pytest.importorskip("duckdb", reason="needs the extra 'duckdb'")
pa = pytest.importorskip("pyarrow", reason="needs pyarrow, to make Arrow tables and Parquet files")

from pyarrow import parquet as pq  # noqa: E402 - after the skip

from metering_core.sql import DuckDBEvents, DuckDBUsage, duckdb_tables, rules  # noqa: E402 - after the skip
from metering_core.sql.readers import Files  # noqa: E402 - as above
from metering_core.sql.rules import periods_within, united  # noqa: E402 - as above

HEADER = "subscription_item,quantity,timestamp"
MONTHLY = subscribed()
YEAR_9999 = 253_402_214_400
"""The 31st of December 9999, whose month ends beyond the calendar."""


def told(errors):
    """Return what can be compared of errors of files: class, code, sentence, parameter and line."""
    return [
        (type(one), one.code, one.message, one.param, one.details.get("line")) for one in errors
    ]


def by_log(path, kind, columns=USAGE_COLUMNS, policy=None):
    """Return the January total and what a log's readers refuse of a file."""
    log, refused = UsageLog([MONTHLY], policy=policy), []
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
        append_usage(log, read_usage(stream, kind, path=str(path)), on_refusal=refused.append)
    return log.partial(MONTHLY.items[0], JAN), told(refused)


def by_duckdb(path, kind, columns=USAGE_COLUMNS, **options):
    """Return the same of DuckDB."""
    engine = DuckDBUsage(Files(str(path), kind, columns), [MONTHLY], skip_malformed=True, **options)
    return engine.partial(MONTHLY.items[0], JAN), told(engine.refusals())


# Rows that are not taken --------------------------------------------------------------------------

GOOD = f"si_0,5,{START},a\n"
OBJECT = f'"subscription_item":"si_0","quantity":5,"timestamp":{START}'
TEXTS = {
    "values.csv": f"{HEADER},id\n{GOOD}si_0,-1,{START},\nsi_0,,{START},\n,1,{START},\n"
    f"si_0,1.5,{START},\n"
    f"si_0,1,{START},b\n",
    "instants.csv": f"{HEADER}\nsi_0,5,2024-01-05T12:00:00\nsi_0,5,01/05/2024 12:00\nsi_0,5,soon\n"
    f"si_0,1,{10**12}\n",
    "actions.csv": f"{HEADER},action,received_at\nsi_0,5,{START},sett,\nsi_0,1,{START},set,\n"
    f"si_0,2,{START},,later\n",
    "rules.csv": f"{HEADER},id\n{GOOD}si_0,6,{START},a\nnobody,1,{START},\n{GOOD}si_0,2,{START},\n",
    "short-first.csv": f"{HEADER}\nsi_0,5\nsi_0,2,{START}\n",
    "short-and-malformed.csv": f"{HEADER}\nsi_0,5\nsi_0,x,{START}\nsi_0,2,{START}\n"
    f"nobody,2,{START}\n"
    f"si_0,1,{START},9\n",
    "quoted.csv": f'{HEADER},id\nsi_0,1,{START},"a\nb"\nsi_0,-1,{START},\n\nnobody,2,{START},\n',
    "blank-lines.csv": f"\n{HEADER}\n\nsi_0,5,{START}\n\nnobody,2,{START}\n",
    "line-ends.csv": f"{HEADER}\rsi_0,5,{START}\rsi_0,-2,{START}\r\nsi_0,1,{START}\n",
    "open-quote.csv": f'{HEADER}\nsi_0,5,{START}\nsi_0,"5,{START}\n',
    "values.jsonl": f'{{{OBJECT}}}\n{{{OBJECT[:-1]}x}}\n\n{{"quantity":1,"timestamp":{START}}}\n'
    f'{{{OBJECT},"id":7}}\n',
    "large.jsonl": f'{{"subscription_item":"si_0","quantity":{10**20},"timestamp":{START}}}\n'
    f'{{{OBJECT},"id":"{"x" * 300}"}}\n',
    "keys.jsonl": f'{{{OBJECT},"note":1}}\n{{{OBJECT}}}\n[1]\n7\n{{{OBJECT},"quantity":1}}\n'
    f"{{{OBJECT},}}\n",
    "line-ends.jsonl": f"{{{OBJECT}}}\r{{{OBJECT}}}\r\nnobody\n",
    "surrogate.jsonl": f'{{{OBJECT},"id":"a"}}\n{{{OBJECT},"id":NaN}}\n',
}


@pytest.mark.parametrize("name", TEXTS)
def test_text_is_refused_row_by_row_as_a_log_refuses_it(name, tmp_path):
    """Whatever is wrong with a row, DuckDB tells the line and the sentence that a log's readers
    tell, and bills the others.
    """
    path = tmp_path / name
    path.write_text(TEXTS[name], newline="")
    expected = by_log(path, path.suffix[1:])
    assert by_duckdb(path, path.suffix[1:]) == expected
    assert expected[1]


@pytest.mark.parametrize("name", [name for name in TEXTS if name != "rules.csv"])
def test_the_first_malformed_row_ends_the_reading_unless_it_is_skipped(name, tmp_path):
    """Without ``skip_malformed`` the first malformed row is raised: the same error that is told
    where they are skipped.
    """
    path = tmp_path / name
    path.write_text(TEXTS[name], newline="")
    first = next((one for one in by_log(path, path.suffix[1:])[1] if one[0] is CatalogError), None)
    if first is None:
        DuckDBUsage(Files(str(path), columns=USAGE_COLUMNS), [MONTHLY])
    else:
        with pytest.raises(CatalogError) as refused:
            DuckDBUsage(Files(str(path), columns=USAGE_COLUMNS), [MONTHLY])
        assert told([refused.value]) == [first]


def test_text_that_utf_8_cannot_write_is_refused_in_its_line(tmp_path):
    """A lone surrogate in an escape of JSON is no text: its row is refused, and the others
    count.
    """
    path = tmp_path / "u.jsonl"
    path.write_text(f'{{{OBJECT}}}\n{{{OBJECT},"id":"\\ud800"}}\nno\n')
    total, refused = by_duckdb(path, "jsonl")
    assert total == 5
    assert [one[-1] for one in refused] == [2, 3]


def rows(*quantities, **others):
    """Return columns of increments of ``si_0`` at the start."""
    size = len(quantities)
    return {
        "subscription_item": ["si_0"] * size,
        "quantity": list(quantities),
        "timestamp": [START] * size,
    } | others


def test_rows_of_parquet_are_refused_with_file_and_row(tmp_path):
    """In several files of Parquet a refused row is told with its file and its number there."""
    pq.write_table(pa.table(rows(1, -2, 3)), tmp_path / "a.parquet")
    pq.write_table(
        pa.table(rows(4, 5, subscription_item=["si_0", "nobody"])), tmp_path / "b.parquet"
    )
    engine = DuckDBUsage(tmp_path / "*.parquet", [MONTHLY], skip_malformed=True)
    malformed, unknown = engine.refusals()
    assert (malformed.code, malformed.param, malformed.details) == (
        "file_unreadable",
        "quantity",
        {
            "cause": "parameter_invalid_integer",
            "path": str(tmp_path / "a.parquet"),
            "line": None,
            "row": 2,
            "seq": 2,
        },
    )
    assert (
        malformed.message
        == f"{tmp_path / 'a.parquet'}, row 2: quantity: expected an integer of at least 0, "
        "received -2 (int)"
    )
    assert (unknown.code, unknown.details["path"], unknown.details["row"]) == (
        "subscription_item_unknown",
        str(tmp_path / "b.parquet"),
        2,
    )
    assert unknown.message.startswith(f"{tmp_path / 'b.parquet'}, row 2: No such subscription item")
    assert engine.partial(MONTHLY.items[0], JAN) == 8


def test_rows_are_counted(tmp_path):
    """Accepted, duplicate, rejected and malformed rows are counted in one run, which is
    remembered.
    """
    columns = rows(
        1, 1, 2, -1, 5, id=["a", "a", "a", None, None], subscription_item=["si_0"] * 4 + ["nobody"]
    )
    pq.write_table(pa.table(columns), tmp_path / "u.parquet")
    engine = DuckDBUsage(tmp_path / "u.parquet", [MONTHLY], skip_malformed=True)
    counts = engine.counts()
    assert (counts.accepted, counts.duplicates, counts.malformed, counts.refused) == (1, 1, 1, 3)
    assert counts.rejected == {"id_reused": 1, "subscription_item_unknown": 1}
    engine.close()
    assert engine.counts() is counts


def test_a_stream_has_no_file():
    """Rows of a stream are told by their number, or by their ``seq``, as values that were
    passed.
    """
    engine = DuckDBUsage(pa.table(rows(1, -1)), [MONTHLY], skip_malformed=True)
    (malformed,) = engine.refusals()
    assert isinstance(malformed, InvalidValueError)
    assert (malformed.code, malformed.details["seq"]) == ("parameter_invalid_integer", 2)
    source = pa.table(rows(1, -1, seq=[70, 50]))
    (malformed,) = DuckDBUsage(source, [MONTHLY], skip_malformed=True).refusals()
    assert (
        malformed.message
        == "usage, row 50: quantity: expected an integer of at least 0, received -1 (int)"
    )


def test_lines_that_are_no_rows_come_before_an_order_of_their_own(tmp_path):
    """Where rows have a ``seq``, a line that is no row has none: it is told first, with its
    line.
    """
    path = tmp_path / "u.csv"
    path.write_text(f"{HEADER},seq\nsi_0,-1,{START},9\nsi_0\nsi_0,1,{START},8\n")
    engine = DuckDBUsage(path, [MONTHLY], skip_malformed=True)
    assert [one.message.removeprefix(f"{path}, ")[:9] for one in engine.refusals()] == [
        "line 3: e",
        "row 9: qu",
    ]
    assert engine.counts().malformed == 2


def test_columns_that_are_not_read_stay_unread_row_by_row(tmp_path):
    """Other columns are passed over and slips are noticed also where text is read row by row."""
    path = tmp_path / "u.jsonl"
    path.write_text(f'{{{OBJECT},"region":"eu"}}\rno\n')
    engine = DuckDBUsage(path, [MONTHLY], skip_malformed=True)
    assert (engine.partial(MONTHLY.items[0], JAN), len(list(engine.refusals()))) == (5, 1)
    path.write_text(f'{{{OBJECT},"acton":"set"}}\rno\n')
    with pytest.raises(
        InvalidValueError, match=r"unknown column 'acton' \(did you mean 'action'\?\)"
    ):
        DuckDBUsage(path, [MONTHLY], skip_malformed=True)


def test_what_other_engines_take_and_sql_cannot_hold_is_told(tmp_path):
    """A quantity of 39 digits is right for a log: the refusal says that SQL adds 38."""
    path = tmp_path / "u.csv"
    path.write_text(f"{HEADER}\nsi_0,{10**38},{START}\n")
    ((_, _, message, param, line),) = by_duckdb(path, "csv")[1]
    assert (param, line) == ("quantity", 2)
    assert "expected an integer of at least 0, of at most 38 digits" in message


def test_policies_are_those_of_a_log(tmp_path):
    """Late usage and clocks that drift are judged as the policy says, in files as in a log."""
    path, policy = (
        tmp_path / "u.csv",
        AcceptancePolicy(late_grace=mc_days(2), future_tolerance=mc_days(1)),
    )
    path.write_text(
        f"{HEADER},received_at\nsi_0,7,{START + DAY},{START}\n"
        f"si_0,5,{START},{JAN.end_seconds + DAY}\n"
        f"si_0,1,{START},{JAN.end_seconds + 3 * DAY}\n"
    )
    expected = by_log(path, "csv", policy=policy)
    assert by_duckdb(path, "csv", policy=policy) == expected
    assert (expected[0], len(expected[1])) == (12, 1)
    assert len(by_duckdb(path, "csv")[1]) == 3


def mc_days(number):
    """Return so many days."""
    from datetime import timedelta  # noqa: PLC0415 - a word for it

    return timedelta(days=number)


# Proportion ---------------------------------------------------------------------------------------


def daily(**options):
    """Return a subscription with daily periods."""
    return subscribed(
        priced(recurring=mc.Recurring(interval="day", usage_type="metered", aggregate_usage="sum")),
        **options,
    )


@pytest.mark.parametrize("far", [253_400_000_000, 253_402_300_799, -62_135_596_800])
def test_two_rows_thousands_of_years_apart_cost_two_rows(far, monkeypatch):
    """Only periods near a row are looked at: a few dozen of three million days, in far less than
    two seconds.
    """
    looked = []
    monkeypatch.setattr(
        rules,
        "periods_within",
        lambda *of: (looked.append(one) or one for one in periods_within(*of)),
    )
    began = time.process_time()
    engine = DuckDBUsage(
        pa.table(rows(1, 1, timestamp=[START, far])), [daily(start_date=None)], time=None
    )
    found = engine.periods_with_usage()
    assert len(looked) < 300
    assert time.process_time() - began < 2
    assert BillingPeriod(START, START + DAY) in found["sub"]


MOMENTS = (
    -62_135_596_800,
    -62_135_596_799,
    -62_134_000_000,
    -62_100_000_000,
    0,
    START,
    YEAR_9999 - 1,
    YEAR_9999,
    253_402_300_799,
)


@pytest.mark.parametrize("interval", ["day", "month"])
@pytest.mark.parametrize("policy", [{}, {"late_grace": 40}])
def test_absurd_moments_refuse_their_row_as_a_log_does(interval, policy):
    """Rows at the ends of the calendar are judged one by one: the receipts and the totals are those
    of a log.
    """
    recurring = mc.Recurring(interval=interval, usage_type="metered", aggregate_usage="sum")
    subscription = subscribed(priced(recurring=recurring))
    rules_of = AcceptancePolicy(**{name: mc_days(days) for name, days in policy.items()})
    times = [(at, received) for at in MOMENTS for received in MOMENTS]
    columns = rows(
        *[1] * len(times),
        timestamp=[at for at, _ in times],
        received_at=[received for _, received in times],
    )
    engine = DuckDBUsage(pa.table(columns), [subscription], policy=rules_of, time=None)
    log = UsageLog([subscription], policy=rules_of)
    receipts = log.append_columns(
        columns["subscription_item"],
        columns["quantity"],
        columns["timestamp"],
        received_at=columns["received_at"],
    )
    assert engine.receipts() == {
        at: one for at, one in enumerate(receipts, 1) if one.outcome != "accepted"
    }
    for period in (
        BillingPeriod(START, START + DAY),
        BillingPeriod(0, DAY),
        BillingPeriod(YEAR_9999 - 40 * DAY, YEAR_9999),
    ):
        assert engine.partial(subscription.items[0], period) == log.partial(
            subscription.items[0], period
        )


def test_spans_that_touch_are_one():
    """Spans in any order, some of which meet or lie within another, come out in order and apart."""
    assert list(united([])) == []
    assert list(united([(5, 9), (0, 1), (2, 2), (6, 7), (11, 12)])) == [(0, 2), (5, 9), (11, 12)]


def test_late_usage_far_away_is_found_where_it_is_billed():
    """Late usage is billed in the period in which it was received, also where another row lies
    thousands of years off.
    """
    policy = AcceptancePolicy(late_grace=mc_days(3), late_attribution="open_period")
    subscription = subscribed()
    log = UsageLog([subscription], policy=policy)
    log.close_period("sub", JAN, now=JAN.end)
    table = pa.table(
        rows(
            9,
            4,
            timestamp=[JAN.end_seconds - 1, 250_000_000_000],
            received_at=[JAN.end_seconds + 5, 250_000_000_000],
        )
    )
    engine = DuckDBUsage(table, [subscription], policy=policy, closed=log.state().closed)
    february = BillingPeriod(JAN.end, START + 60 * DAY)
    assert engine.periods_with_usage()["sub"][0] == february
    assert engine.partial(subscription.items[0], february) == 9


# Damage and foreign errors ------------------------------------------------------------------------


def damaged(draw, content):
    """Return a file with one thing broken: a byte, a few, or the end."""
    content = bytearray(content)
    match draw.randrange(4):
        case 0:
            content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        case 1:
            del content[draw.randrange(len(content)) :]
        case 2:
            at = draw.randrange(len(content))
            content[at : at + 8] = draw.randbytes(8)
        case _:
            at = draw.randrange(len(content))
            del content[at : at + draw.randrange(1, 9)]
    return bytes(content)


@pytest.mark.parametrize(
    "part", [0, 1, 2, *(pytest.param(part, marks=pytest.mark.slow) for part in range(3, 30))]
)
def test_damaged_parquet_is_refused_by_name(part, tmp_path):
    """A flipped byte, a lost piece or a cut end: an error of ours with the path, from whatever
    question, or the right answer.

    But for damage that stays within the values of a page, which DuckDB does not hold against the
    page's checksum: what it reads there is what the file says.
    """
    good = tmp_path / "good.parquet"
    pq.write_table(pa.table(rows(*range(50), id=[f"id {number}" for number in range(50)])), good)
    content, draw = good.read_bytes(), random.Random(part)  # noqa: S311 - no secret
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    refused = 0
    for number in range(20):
        path = tmp_path / f"{number}.parquet"
        path.write_bytes(damaged(draw, content))
        first = next(
            (
                at
                for at, (one, other) in enumerate(zip(path.read_bytes(), content, strict=False))
                if one != other
            ),
            footer,
        )
        try:
            engine = DuckDBUsage(path, [MONTHLY], skip_malformed=True)
            total = engine.partial(MONTHLY.items[0], JAN)
            receipts = engine.receipts()
        except MeteringError as error:
            refused += 1
            assert error.details.get("path", str(path)) == str(path)  # noqa: PT017 - not every damage shows
        else:
            assert first < footer or (total, receipts) == (sum(range(50)), {})
    assert refused >= 5


ODD = {
    "http://127.0.0.1:9/u.parquet": "nothing is fetched from anywhere",
    "HTTPS://127.0.0.1:9/u.csv": "nothing is fetched from anywhere",
    "s3://bucket/*.parquet": "nothing is fetched from anywhere",
    "hf://datasets/a/u.parquet": "nothing is fetched from anywhere",
    "file:///etc/passwd": "nothing is fetched from anywhere",
    "/proc/self": "expected a file, received a folder",
    "/dev/null": "expected a file, received something else",
    "x" * 5_000 + ".csv": "File name too long",
    "a\0b.csv": "null",
    "a\0*.csv": "null",
    "\ud800*.csv": "a path of UTF-8",
    "\ud800.csv": "surrogates not allowed",
}


@pytest.mark.parametrize("path", ODD, ids=range(len(ODD)))
@pytest.mark.parametrize("engine", ["usage", "events"])
def test_paths_that_are_no_files_of_this_machine_are_refused(path, engine, monkeypatch):
    """Remote addresses, folders, devices and paths that no system takes: our error, before DuckDB
    sees any of it.
    """
    asked = []
    monkeypatch.setattr(
        duckdb_tables.DuckDBTables, "fetched", lambda *given: asked.append(given) or []
    )
    with pytest.raises(CatalogError, match=ODD[path]) as refused:
        DuckDBUsage(path, []) if engine == "usage" else DuckDBEvents(path, METERS)
    assert (refused.value.code, refused.value.details["path"]) == ("file_unreadable", path)
    assert not asked


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    """A FIFO would hang: it is no file, also where a glob finds it."""
    os.mkfifo(tmp_path / "u.csv")
    for path in (tmp_path / "u.csv", tmp_path / "*.csv"):
        with pytest.raises(CatalogError, match=r"received something else|no such file"):
            DuckDBUsage(path, [])


@pytest.mark.parametrize("name", ["u.csv", "u.jsonl", "u.parquet"])
def test_a_file_that_cannot_be_opened_is_an_error_of_ours(name, tmp_path, monkeypatch):
    """A file that goes, or that may not be read, between two looks at it: the system's word and the
    path.
    """
    path = tmp_path / name
    path.write_text(f"{HEADER}\n" if name == "u.csv" else "")
    real = type(path).open

    def refuses(self, *arguments, **options):
        if self == path:
            raise PermissionError(13, "Permission denied")
        return real(self, *arguments, **options)

    monkeypatch.setattr(type(path), "open", refuses)
    with pytest.raises(CatalogError, match=r"cannot be read: ") as refused:
        DuckDBUsage(path, [])
    assert refused.value.details["path"] == str(path)


def test_nothing_is_fetched():
    """DuckDB neither installs nor loads an extension by itself, nor takes one from strangers."""
    engine = DuckDBUsage(pa.table(rows(1)), [MONTHLY])
    names = (
        "autoinstall_known_extensions",
        "autoload_known_extensions",
        "allow_community_extensions",
    )
    settings = ", ".join(f"current_setting('{name}')" for name in names)
    assert engine._tables.fetched(f"SELECT {settings}") == [(False, False, False)]


class Stream:
    """A stream that fails when it is opened."""

    def __init__(self, error):
        self.error = error

    def __arrow_c_stream__(self, requested_schema=None):
        raise self.error


def broken_off(error):
    """Return a stream that fails at its second batch."""

    def batches():
        yield pa.record_batch(rows(1))
        raise error

    return pa.RecordBatchReader.from_batches(pa.table(rows(1)).schema, batches())


@pytest.mark.parametrize(
    "error", [ValueError("x"), OSError("disk"), pa.ArrowInvalid("y")], ids=repr
)
def test_a_stream_that_raises_is_an_error_of_ours(error):
    """Whatever an Arrow stream raises, at its start or later, comes as ``file_unreadable`` with its
    word.
    """
    for source in (Stream(error), broken_off(error)):
        with pytest.raises(CatalogError, match=rf"^usage: cannot be read: .*{error}") as refused:
            DuckDBUsage(source, [MONTHLY])
        assert refused.value.code == "file_unreadable"


def test_a_library_that_raises_otherwise_is_an_error_of_ours(monkeypatch):
    """Older DuckDBs let errors of Arrow through: they are told the same way."""
    engine = DuckDBUsage(pa.table(rows(1)), [MONTHLY])
    with pytest.raises(CatalogError, match="usage: cannot be read: ArrowInvalid: y"):
        engine._tables.reading(lambda: (_ for _ in ()).throw(pa.ArrowInvalid("y")))


def test_half_floats_are_refused():
    """A type of Arrow that DuckDB does not know is refused by name."""
    with pytest.raises(CatalogError, match=r"cannot be read: .*Arrow"):
        DuckDBUsage(pa.table(rows(1, quantity=pa.array([1.5], pa.float16()))), [MONTHLY])


def test_questions_after_closing_are_refused():
    """Once closed, what is remembered is answered, and anything else is refused in our words."""
    engine = DuckDBUsage(pa.table(rows(1, -1)), [MONTHLY], skip_malformed=True)
    engine.periods_with_usage()
    engine.close()
    engine.close()
    assert engine.partial(MONTHLY.items[0], JAN) == 1
    for ask in (
        engine.receipts,
        engine.counts,
        lambda: list(engine.refusals()),
        lambda: engine.partial(MONTHLY.items[0], OTHER),
    ):
        with pytest.raises(CatalogError, match="it was closed"):
            ask()


OTHER = BillingPeriod(START, START + 5)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("temp_directory", 5),
        ("temp_directory", b"x"),
        ("temp_directory", "a\0b"),
        ("progress", 5),
        ("policy", 5),
        ("closed", 5),
        ("closed", {"sub": 5}),
        ("closed", {"sub": [5]}),
        ("subscriptions", 5),
        ("subscriptions", [5]),
        ("now", "soon"),
        ("memory_limit", 5),
        ("memory_limit", object()),
        ("skip_malformed", "no"),
    ],
)
def test_options_of_another_kind_are_refused(option, value):
    """An option that is none of its kind is refused with its name, and nothing is read."""
    options = {"subscriptions": [MONTHLY], option: value}
    with pytest.raises(InvalidValueError, match=rf"^{option}: expected") as refused:
        DuckDBUsage(pa.table(rows(1)), **options)
    assert refused.value.param == option


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("meters", 5),
        ("meters", [5]),
        ("subscriptions", 5),
        ("subscriptions", [5]),
        ("customers", 5),
        ("policy", 5),
        ("now", "soon"),
        ("decimal_places", "x"),
        ("decimal_places", 38),
        ("skip_malformed", None),
    ],
)
def test_options_of_events_of_another_kind_are_refused(option, value):
    """The same of the options of meter events."""
    options = {"meters": METERS, option: value}
    with pytest.raises(InvalidValueError) as refused:
        DuckDBEvents(events(), **options)
    assert option.startswith(refused.value.param)


# Modes and formulas -------------------------------------------------------------------------------


def planted(kind, value):
    """Return a member of an enum that nobody was told of."""
    member = str.__new__(kind, value)
    member._name_, member._value_ = value.upper(), value
    return member


def test_a_mode_that_the_folding_does_not_know_is_refused(monkeypatch):
    """A mode without a row is refused by name; it was answered with a tuple once."""
    item = MONTHLY.items[0]
    engine = DuckDBUsage(pa.table(rows(9)), [MONTHLY])
    monkeypatch.setattr(
        "metering_core.sql.records.required_mode", lambda item: planted(mc.AggregateUsage, "median")
    )
    for ask in (lambda: engine.partial(item, JAN), engine.periods_with_usage):
        with pytest.raises(
            mc.InvoicingError, match=r"expected one that SQL can compute .*received 'median'"
        ) as refused:
            ask()
        assert refused.value.code == "formula_not_available"


def test_a_formula_that_the_folding_does_not_know_is_refused(monkeypatch):
    """The same of a meter's formula."""
    monkeypatch.setattr(type(mc.measures.FORMULAS[mc.Formula.SUM]), "sql", ())
    item, subscription, meter = metered()
    engine = DuckDBEvents(events(), [meter], [subscription])
    with pytest.raises(
        mc.InvoicingError, match=r"expected one that DuckDB can compute .*received 'sum'"
    ) as refused:
        engine.partial(item, BillingPeriod(START, START + DAY))
    assert refused.value.code == "formula_not_available"


# Events -------------------------------------------------------------------------------------------


def metered(**options):
    """Return an item on a meter that sums, its subscription and the meter."""
    recurring = mc.Recurring(meter="m")
    item = mc.SubscriptionItem(
        "si", mc.Price.per_unit("p", currency="usd", unit_amount=1, recurring=recurring)
    )
    return (
        item,
        mc.Subscription("sub", [item], START, customer="cus_1", **options),
        mc.Meter("m", "calls"),
    )


def events(*customers, **columns):
    """Return events of customers at the start, as an Arrow table."""
    size = len(customers or ["cus_1"])
    base = {
        "event_name": ["calls"] * size,
        "customer": list(customers or ["cus_1"]),
        "value": ["1"] * size,
    }
    return pa.table({**base, "timestamp": [START] * size, **columns})


def test_events_that_nobody_bills_are_counted_and_named():
    """An unknown customer, a padded id, a meter without an item and a moment before the life: each
    with its number.
    """
    item, subscription, meter = metered(start_date=START)
    source = events(
        *("cus_1", "cus_typo", "cus_1 ", "CUS_1", "cus_1", "cus_typo", "cus_1"),
        event_name=["calls"] * 6 + ["seats"],
        timestamp=[START] * 4 + [START - 5] + [START] * 2,
    )
    engine = DuckDBEvents(source, [meter, mc.Meter("seats", "seats")], [subscription])
    assert [
        (one.meter, one.customer, one.events, one.first, one.meant)
        for one in engine.events_without_item()
    ] == [
        ("m", "cus_typo", 2, 2, None),
        ("m", "cus_1 ", 1, 3, "cus_1"),
        ("m", "CUS_1", 1, 4, "cus_1"),
        ("m", "cus_1", 1, 5, None),
        ("seats", "cus_1", 1, 7, None),
    ]
    assert engine.partial(item, BillingPeriod(START, START + DAY)) == 1


def test_lives_that_meet_count_an_event_once():
    """Two subscriptions of one customer that live at once, or one after the other, leave nothing
    unbilled between them.
    """
    item, subscription, meter = metered(ended_at=START + DAY)
    recurring = mc.Recurring(meter="m")
    later = mc.SubscriptionItem(
        "si_2", mc.Price.per_unit("p", currency="usd", unit_amount=1, recurring=recurring)
    )
    second = mc.Subscription(
        "sub_2", [later], START, customer="cus_1", start_date=START + DAY, ended_at=START + 2 * DAY
    )
    source = events(
        *["cus_1"] * 4, timestamp=[START, START + DAY - 1, START + DAY, START + 2 * DAY]
    )
    engine = DuckDBEvents(source, [meter], [subscription, second], policy=mc.MeterPolicy.history())
    assert [(one.events, one.first) for one in engine.events_without_item()] == [(1, 4)]
    assert engine.partial(item, BillingPeriod(START, START + DAY)) == 2


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_events_that_are_not_taken_are_told(form, tmp_path):
    """Malformed and refused events are told with their place, and the others count."""
    item, subscription, meter = metered()
    columns = {
        "event_name": ["calls", "calls", "x" * 101, "other"],
        "customer": ["cus_1"] * 4,
        "value": ["1", "2", "3", "4"],
        "timestamp": [START, 10**13, START, START],
    }
    path = tmp_path / f"e.{form}"
    lines = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    if form == "parquet":
        pq.write_table(pa.table(columns), path)
    elif form == "jsonl":
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    else:
        path.write_text(
            "\n".join([",".join(columns), *(",".join(map(str, line.values())) for line in lines)])
        )
    engine = DuckDBEvents(path, [meter], [subscription], skip_malformed=True)
    instant, name, unknown = engine.refusals()
    place = {"csv": ("line", 3), "jsonl": ("line", 2), "parquet": ("row", 2)}[form]
    assert instant.message.startswith(f"{path}, {place[0]} {place[1]}: timestamp: expected ")
    assert (name.param, unknown.code) == ("event_name", "meter_unknown")
    assert engine.partial(item, BillingPeriod(START, START + DAY)) == 1
    counts = engine.counts()
    assert (counts.accepted, counts.malformed, counts.rejected) == (1, 2, {"meter_unknown": 1})
    with pytest.raises(CatalogError) as refused:
        DuckDBEvents(path, [meter], [subscription])
    assert refused.value.message == instant.message


def test_floats_of_json_are_no_values(tmp_path):
    """A number of JSON with a point is refused in its line, and one of 30 digits is read to the
    last.
    """
    item, subscription, meter = metered()
    path = tmp_path / "e.jsonl"
    event = '{{"event_name":"calls","customer":"cus_1","timestamp":{},"value":{}}}\n'
    path.write_text(event.format(START, "1.5") + event.format(START, "1" * 30) + "no\n")
    engine = DuckDBEvents(path, [meter], [subscription], skip_malformed=True, decimal_places=0)
    malformed, broken = engine.refusals()
    assert (
        malformed.message
        == f"{path}, line 1: value: expected a text, or an integer, received 1.5 (float)"
    )
    assert broken.details["line"] == 3
    assert engine.partial(item, BillingPeriod(START, START + DAY)) == int("1" * 30)


def test_the_limit_of_decimal_places_names_its_argument():
    """What DuckDB's units do not hold is refused with the argument that says how many there are."""
    with pytest.raises(
        InvalidValueError,
        match=r"at most 12 decimal places \(decimal_places=12 says so\) and 38 digits",
    ):
        DuckDBEvents(events(value=["0.0000000000001"]), [mc.Meter("m", "calls")])


# Interruption -------------------------------------------------------------------------------------


def interrupted_at(line, run):
    """Run something and interrupt it at a line of metering_core.sql; return whether that came."""
    count = 0

    def trace(frame, event, argument):
        nonlocal count
        if "metering_core/sql/" not in frame.f_code.co_filename:
            return None
        if event == "line":
            count += 1
            if count == line:
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()  # Coverage's, in CI: it must go on afterwards.
    sys.settrace(trace)
    try:
        run()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 12))]
)
def test_an_interrupted_question_leaves_the_engine_usable(seed):
    """Wherever a question is interrupted, the next one is answered as if there had been none."""
    source = pa.table(
        rows(5, 7, 7, -1, id=[None, "a", "a", None], action=["increment", "set", "set", None])
    )
    draw, asked = random.Random(seed), 0  # noqa: S311 - no secret
    expected = None
    for line in [10**9, *sorted(draw.sample(range(1, 260), 6))]:
        engine = DuckDBUsage(source, [MONTHLY], skip_malformed=True)

        def ask(engine=engine):
            return (
                engine.periods_with_usage(),
                engine.receipts(),
                engine.counts(),
                told(engine.refusals()),
            )

        asked += interrupted_at(line, ask)
        answers = (*ask(), engine.partial(MONTHLY.items[0], JAN))
        expected = expected or answers
        assert answers == expected
        engine.close()
    assert expected[-1] == 7
    assert asked > 2


class LateError(Exception):
    """What a handler of a signal raises."""


@pytest.mark.parametrize("raised", [KeyboardInterrupt, LateError])
def test_what_interrupts_a_statement_leaves_as_what_it_is(raised):
    """Ctrl-C and a timeout stop DuckDB within a statement and are not told as anything else; the
    next question is answered.
    """

    def ring(*_):
        raise raised

    count = 400_000
    columns = rows(*[1] * count, timestamp=[START + at for at in range(count)])
    subscription = subscribed(priced(mode="max"))
    engine = DuckDBUsage(pa.table(columns), [subscription])
    former, rang = signal.signal(signal.SIGALRM, ring), 0
    try:
        for delay in (0.004, 0.02, 0.05):
            try:
                signal.setitimer(signal.ITIMER_REAL, delay)
                engine.receipts()
            except raised:
                rang += 1
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.signal(signal.SIGALRM, former)
    assert rang
    assert (engine.receipts(), engine.partial(subscription.items[0], JAN)) == ({}, 1)


def test_what_the_system_makes_up_is_read_row_by_row():
    """A file of /proc says that it is empty and is not: it is read, and refused for what it
    says.
    """
    with pytest.raises(CatalogError, match=r"^/proc/self/status, line 1: "):
        DuckDBUsage(Files("/proc/self/status", "csv", USAGE_COLUMNS), [MONTHLY])
    assert list(
        DuckDBUsage(Files("/proc/self/status", "jsonl"), [MONTHLY], skip_malformed=True).refusals()
    )

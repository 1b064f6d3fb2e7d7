"""Meter events in SQL, on DuckDB and Spark: everything as a meter log has it (law 4), or refused by
name.
"""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import replace
from datetime import timedelta

import pytest
from attrs import evolve
from builders import DAY, START
from event_cases import METERS, NOON, POLICIES, SECOND, SMALL, cut, generated

import metering_core as mc
from metering_core.meter_acceptance import MeterPolicy
from metering_core.meter_events import MeterEventAdjustment
from metering_core.meters import Meter
from metering_core.periods import from_unix_seconds

pytest.importorskip("duckdb", reason="needs the extra 'duckdb'")

from metering_core.sql import DuckDBEvents, SparkEvents, texts

PLAIN = (
    *SMALL,
    *SMALL,
    "0.5",
    "-0.25",
    "007",
    "+1",
    "1.50",
    ".5",
    "5.",
    "-0",
    "123456789012345.6",
    "much",
    "",
    "1e3",
    " 1",
    None,
)
EXPRESSIBLE = [name for name in POLICIES if POLICIES[name].identifier_retention is None]


def history_of(seed, size, policy, values=PLAIN):
    """Return a history that columns of SQL can hold: each event has a timestamp, and only
    dimensions that a meter knows.
    """
    history = generated(seed, size, policy, values=values)
    for at, row in enumerate(history.rows):
        known = {key: text for key, text in row.dimensions.items() if key != "extra"}
        history.rows[at] = replace(
            row, at=row.received * SECOND if row.at is None else row.at, dimensions=known
        )
    return history


def columns_of(history):
    rows = history.rows
    return {
        "seq": list(range(1, len(rows) + 1)),
        "event_name": [row.event_name for row in rows],
        "customer": [row.customer for row in rows],
        "value": [row.value for row in rows],
        "timestamp": [row.event().instant for row in rows],
        "identifier": [row.identifier for row in rows],
        "region": [row.dimensions.get("region") for row in rows],
        "model": [row.dimensions.get("model") for row in rows],
        "received_at": [row.received for row in rows],
    }


def arrow_of(history):
    pa = pytest.importorskip("pyarrow", reason="writes what is read")
    types = {"seq": pa.int64(), "timestamp": pa.timestamp("us", "UTC"), "received_at": pa.int64()}
    columns = columns_of(history)
    return pa.table(
        {name: pa.array(column, types.get(name, pa.string())) for name, column in columns.items()}
    )


def numberless(partial):
    """Return a partial without the number that tells events of one moment apart, which is the
    engine's own.
    """
    match partial:
        case ((moment, _), value) if not isinstance(value, tuple):
            return moment, value
    return partial


def letters(receipt):
    return attrs_of(receipt), "".join(sorted(receipt.message or ""))


def attrs_of(receipt):
    return receipt.outcome, receipt.sequence, receipt.code, receipt.param, receipt.details


def compare(history, engine):
    """Compare every answer with the log's."""
    expected = history.expected
    said = engine.receipts()
    refused = {
        at + 1: one for at, one in enumerate(expected["receipts"]) if one.outcome != "accepted"
    }
    assert list(said) == list(refused)
    for seq, receipt in said.items():
        assert letters(receipt) == letters(refused[seq]), f"{seq}: {history.rows[seq - 1]}"
    answers = history.answers(engine)
    for request, partial, right in zip(
        history.requests(), answers["partials"], expected["partials"], strict=True
    ):
        assert numberless(partial) == numberless(right), f"{request[0].id} in {request[1]}"
    assert answers["totals"] == expected["totals"]
    assert answers["invoices"] == expected["invoices"]


def duckdb_of(history, source=None, **options):
    given = {"customers": history.customers, "policy": history.policy, **options}
    return DuckDBEvents(
        arrow_of(history) if source is None else source, METERS, history.subscriptions, **given
    )


@pytest.mark.parametrize("policy", EXPRESSIBLE)
@pytest.mark.parametrize("seed", range(3))
def test_duckdb_says_what_a_log_says(policy, seed):
    """Receipts, partials, summaries and invoices are the log's."""
    history = history_of(seed, 400, policy)
    engine = duckdb_of(history)
    compare(history, engine)
    engine.close()
    assert history.answers(engine)["invoices"] == history.expected["invoices"]


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_files_say_what_a_log_says(form, tmp_path):
    """Events in CSV, JSON lines and Parquet, values as text, are read to the last digit."""
    import json  # noqa: PLC0415

    history = history_of(7, 150, "default", values=(*SMALL, "0.1", "12345678901234567.25"))
    table = arrow_of(history)
    file = tmp_path / f"events.{form}"
    if form == "parquet":
        from pyarrow import parquet  # noqa: PLC0415

        parquet.write_table(table, file)
    elif form == "jsonl":
        rows = [
            {key: value for key, value in row.items() if value is not None}
            for row in table.to_pylist()
        ]
        file.write_text(
            "\n".join(
                json.dumps({**row, "timestamp": row["timestamp"].isoformat()}) for row in rows
            )
        )
    else:
        from csv import writer  # noqa: PLC0415

        # CSV does not tell an absent text from an empty one.
        for row in history.rows:
            row.dimensions = {key: text or "eu" for key, text in row.dimensions.items()}
            row.customer = row.customer or "cus_9"
        table = arrow_of(history)
        with file.open("w", newline="") as out:
            lines = writer(out)
            lines.writerow(table.column_names)
            lines.writerows(
                [
                    [str(cell) if cell is not None else None for cell in row.values()]
                    for row in table.to_pylist()
                ]
            )
    compare(history, duckdb_of(history, file))


def rows_of(**columns):
    pa = pytest.importorskip("pyarrow", reason="writes what is read")
    return pa.table(
        {"event_name": ["sum"], "customer": ["a"], "value": ["1"], "timestamp": [START], **columns}
    )


@pytest.mark.parametrize(
    ("columns", "param"),
    [
        ({"value": [1.5]}, "value"),
        ({"value": ["0.0000000000001"]}, "value"),
        ({"value": ["1" * 27]}, "value"),
        ({"timestamp": [1.5]}, "timestamp"),
        ({"timestamp": [None]}, "timestamp"),
        ({"timestamp": [10**12]}, "timestamp"),
        ({"timestamp": [2**62]}, "timestamp"),
        ({"event_name": [None]}, "event_name"),
        ({"event_name": ["x" * 101]}, "event_name"),
        ({"identifier": [""]}, "identifier"),
        ({"identifier": ["x" * 101]}, "identifier"),
        ({"customer": [5]}, "customer"),
        ({"received_at": [START]}, "now"),
        ({"seq": [None]}, "seq"),
        ({"seq": ["1"]}, "seq"),
        ({"seq": [1.5]}, "seq"),
        ({"identifer": ["a"]}, "identifer"),
        ({"Region": ["eu"]}, "Region"),
    ],
)
def test_what_sql_cannot_hold_exactly_is_refused_by_name(columns, param):
    """Floats, too many places or digits, no instants: refused with the column, never rounded."""
    with pytest.raises(mc.InvalidValueError) as refused:
        DuckDBEvents(rows_of(**columns), METERS, now=NOON)
    assert refused.value.param == param


HEADER = "event_name,customer,value,timestamp"


@pytest.mark.parametrize("seq", ["", "abc", "1.5", str(2**63)])
def test_an_event_without_a_place_in_the_order_is_refused(seq, tmp_path):
    """An event whose ``seq`` is no integer of 64 bits is refused with what it says, instead of
    vanishing.
    """
    (tmp_path / "events.csv").write_text(
        f"{HEADER},seq\nsum,a,5,{START},1\nsum,a,7,{START},{seq}\n"
    )
    with pytest.raises(
        mc.InvalidValueError, match=r"^seq: expected an integer of at most 64 bits"
    ) as refused:
        DuckDBEvents(tmp_path / "events.csv", METERS)
    assert (refused.value.param, refused.value.details["received"]) == ("seq", seq or None)


@pytest.mark.parametrize("received", ["garbage", "2025-01-01T00:00:00", "2025-13-01T00:00:00Z"])
def test_an_unreadable_moment_of_receipt_is_refused(received, tmp_path):
    """What ``received_at`` says and nobody can read is no absence, which would be judged as
    received when it happened.
    """
    rows = f"sum,a,5,{START},\nsum,a,7,{START},{received}\n"
    (tmp_path / "events.csv").write_text(f"{HEADER},received_at\n{rows}")
    with pytest.raises(
        mc.errors.CatalogError, match=rf"events\.csv, line 3: received_at: expected .*{received}"
    ) as refused:
        DuckDBEvents(tmp_path / "events.csv", METERS)
    assert (refused.value.param, refused.value.details["line"]) == ("received_at", 3)


def test_what_sql_cannot_say_is_refused_by_name():
    """An identifier that is forgotten after a time depends on the one before it, which SQL does not
    say.
    """
    policy = MeterPolicy(identifier_retention=timedelta(days=1))
    with pytest.raises(mc.InvalidValueError, match="DuckDB remembers every identifier for ever"):
        DuckDBEvents(rows_of(), METERS, policy=policy, now=NOON)
    with pytest.raises(mc.InvalidValueError, match="value' is missing"):
        DuckDBEvents(rows_of().drop_columns(["value"]), METERS, now=NOON)
    pa = pytest.importorskip("pyarrow")
    with pytest.raises(mc.InvalidValueError, match="order of arrival"):
        DuckDBEvents(pa.concat_tables([rows_of(seq=[1])] * 2), METERS, now=NOON)


@pytest.mark.parametrize(
    ("keys", "key"),
    [(["Customer"], "Customer"), (["seq"], "seq"), (["region", "Region"], "Region")],
    ids=lambda one: f"{one}",
)
def test_a_dimension_that_names_another_column_is_refused(keys, key):
    """SQL takes names that differ in case for one column, which would be read as the dimension."""
    with pytest.raises(mc.InvalidValueError, match="keys that DuckDB can tell from") as refused:
        DuckDBEvents(rows_of(), [Meter("m", "sum", dimension_payload_keys=keys)], now=NOON)
    assert (refused.value.param, refused.value.details["received"]) == (
        "meters[dimension_payload_keys]",
        key,
    )


def test_no_option_is_passed_over():
    """One customer's id is no list of letters, and late usage cannot be carried where nobody knows
    which events were billed.
    """
    with pytest.raises(mc.InvalidValueError, match="an iterable of customers' ids"):
        DuckDBEvents(rows_of(), METERS, customers="cus_1", now=NOON)
    with pytest.raises(mc.InvalidValueError, match="not which events each of them counted"):
        DuckDBEvents(rows_of(), METERS, policy=MeterPolicy(late_usage="carry_forward"), now=NOON)


def test_who_only_counts_needs_no_values():
    """The column of values may be absent where all meters count."""
    item = mc.SubscriptionItem(
        "si",
        mc.Price.per_unit("p", currency="usd", unit_amount=1, recurring=mc.Recurring(meter="m")),
    )
    subscription = mc.Subscription("sub", [item], START, customer="a")
    meter = Meter("m", "sum", "count")
    engine = DuckDBEvents(rows_of().drop_columns(["value"]), [meter], [subscription])
    assert engine.partial(item, mc.BillingPeriod(START, START + DAY)) == 1


def test_sums_beyond_38_digits_are_refused():
    """A sum that DECIMAL(38, 0) does not hold raises the engine's name instead of wrapping."""
    pa = pytest.importorskip("pyarrow")
    table = pa.concat_tables([rows_of(value=["9" * 26])] * 20)
    item = mc.SubscriptionItem(
        "si",
        mc.Price.per_unit("p", currency="usd", unit_amount=1, recurring=mc.Recurring(meter="m")),
    )
    subscription = mc.Subscription("sub", [item], START, customer="a")
    engine = DuckDBEvents(table, [Meter("m", "sum")], [subscription], now=START)
    with pytest.raises(mc.InvoicingError, match="which is what DuckDB adds exactly") as refused:
        engine.partial(item, mc.BillingPeriod(START, START + DAY))
    assert refused.value.code == "quantity_out_of_range"


def test_nothing_about_a_file_is_guessed(tmp_path):
    """A row that looks like a comment is a row, and one with too few fields is refused."""
    file = tmp_path / "events.csv"
    lines = ["event_name,customer,value,timestamp", f"#sum,a,1,{START}", *[f"sum,a,1,{START}"] * 3]
    file.write_text("\n".join(lines))
    assert {
        seq: receipt.code for seq, receipt in DuckDBEvents(file, METERS).receipts().items()
    } == {1: "meter_unknown"}
    file.write_text("\n".join([*lines, "sum,a"]))
    with pytest.raises(
        mc.errors.CatalogError,
        match=r"events\.csv, line 6: expected 4 fields as in the header, received 2",
    ):
        DuckDBEvents(file, METERS)


def test_the_extra_is_named_where_it_is_missing(monkeypatch):
    """Without DuckDB or Spark the message says what was asked for, and which extra brings it."""
    for module in ("duckdb", "pyspark"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(
        mc.errors.MissingExtraError, match=r"DuckDBEvents needs .*metering-core\[duckdb\]"
    ):
        DuckDBEvents(rows_of(), METERS)
    with pytest.raises(
        mc.errors.MissingExtraError, match=r"SparkEvents needs .*metering-core\[spark\]"
    ):
        SparkEvents(None, rows_of(), METERS)


def test_windows_that_a_period_cuts():
    """An event of a window counts where it lies, also for a period that ends within the window."""
    compare(cut(), duckdb_of(cut()))


def test_cancellations_and_closed_periods_are_those_of_a_log():
    """What was canceled does not count, in a window the one before it does, and a finalized period
    keeps its invoice; a cancellation that a log refuses is refused.
    """
    history = cut()
    for at, row in enumerate(history.rows):
        row.identifier = f"id {at}"
    log, _ = history.log
    canceled = [
        log.cancel("window", "id 1", now=NOON + DAY),
        log.cancel("window", "id 2", now=NOON + DAY),
    ]
    subscription = history.subscriptions[0]
    day = mc.BillingPeriod(START + DAY, START + 2 * DAY)
    billed = mc.finalize_invoice(subscription, log, day, now=day.end)
    engine = duckdb_of(history, canceled=canceled, closed=log.state().closed)
    requests = history.requests()
    assert billed.total  # The 5 that came before what was canceled.
    assert list(map(numberless, engine.partials(requests))) == list(
        map(numberless, log.partials(requests))
    )
    assert engine.stored_invoice(subscription.id, day) == billed
    assert mc.finalize_invoice(subscription, engine, day, now=day.end) == billed
    assert engine.periods_with_usage() == {"sub_cus_1": (day,), "sub_cus_2": (day,)}
    assert engine.falls() is None
    late = replace_at(canceled[0], NOON + 3 * DAY)
    for one, policy, code in (
        (late, MeterPolicy(backdate_days=None), "cancel_window_closed"),
        (MeterEventAdjustment("window", "other", 1, day.end), None, "event_not_found"),
    ):
        with pytest.raises(mc.errors.UsageRejectedError) as refused:
            duckdb_of(history, canceled=[one], policy=policy or history.policy)
        assert refused.value.code == code


def replace_at(adjustment, at):
    """Return a cancellation that was received at another moment."""
    return evolve(adjustment, canceled_at=from_unix_seconds(at))


def test_no_events():
    """An empty table comes to nothing, as an empty log does."""
    history = history_of(1, 0, "default")
    compare(history, duckdb_of(history))


@pytest.fixture(scope="module")
def session():
    """Return a session of two local threads that listens to nobody."""
    if shutil.which("java") is None and "JAVA_HOME" not in os.environ:
        pytest.skip("needs Java 17 or later, which Spark runs on")
    pytest.importorskip("pyspark", reason="needs the extra 'spark'")
    from pyspark.sql import SparkSession  # noqa: PLC0415 - absent where these tests are skipped

    options = {
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.sql.shuffle.partitions": "2",
        "spark.sql.session.timeZone": "UTC",
        # So little data would spend its time in compilers and planners.
        "spark.sql.adaptive.enabled": "false",
        "spark.sql.codegen.wholeStage": "false",
        "spark.sql.warehouse.dir": "/nonexistent",
    }
    builder = SparkSession.builder.master("local[2]")
    for key, value in options.items():
        builder = builder.config(key, value)
    started = builder.getOrCreate()
    started.sparkContext.setLogLevel("OFF")
    yield started
    started.stop()


@pytest.mark.slow  # Spark takes ten seconds to start, and seconds for each question.
@pytest.mark.filterwarnings(
    "ignore::ResourceWarning"
)  # Sockets of pyspark's own, to its Java process.
@pytest.mark.parametrize("policy", ["default", "global", "stripe"])
def test_spark_says_what_a_log_says(policy, session):
    """The same text gives the same receipts, partials, summaries and invoices on Spark."""
    history = history_of(3, 800, policy)
    frame = session.createDataFrame(arrow_of(history))
    options = {"customers": history.customers, "policy": history.policy}
    engine = SparkEvents(session, frame, METERS, history.subscriptions, **options)
    compare(history, engine)
    engine.close()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_spark_refuses_by_name(session):
    """What Spark cannot hold exactly is refused, and so is a table without an order or a session
    that would not tell.
    """
    rows = rows_of(seq=[1])
    pa = pytest.importorskip("pyarrow", reason="writes what is read")
    for changes, param in (
        ({"value": [1.5]}, "value"),
        ({"value": ["1" * 27]}, "value"),
        ({"customer": [5]}, "customer"),
        ({"timestamp": [2**62]}, "timestamp"),
        ({"seq": pa.array([None], pa.int64())}, "seq"),
        ({"seq": pa.array([2**63], pa.decimal128(38, 0))}, "seq"),
        ({"seq": ["1"]}, "seq"),
        ({"identifer": ["a"]}, "identifer"),
        ({"Region": ["eu"]}, "Region"),
    ):
        with pytest.raises(mc.InvalidValueError) as refused:
            SparkEvents(
                session,
                session.createDataFrame(rows_of(**{"seq": [1], **changes})),
                METERS,
                now=NOON,
            )
        assert refused.value.param == param
    with pytest.raises(
        mc.errors.CatalogError, match=r"^events: cannot be read: \[TABLE_OR_VIEW_NOT_FOUND\]"
    ):
        SparkEvents(session, "nowhere", METERS, now=NOON)
    with pytest.raises(mc.InvalidValueError, match="'seq' is missing"):
        SparkEvents(session, session.createDataFrame(rows.drop_columns(["seq"])), METERS, now=NOON)
    session.conf.set("spark.sql.ansi.enabled", "false")
    try:
        with pytest.raises(mc.InvalidValueError, match="so that no sum overflows silently"):
            SparkEvents(session, session.createDataFrame(rows), METERS, now=NOON)
    finally:
        session.conf.set("spark.sql.ansi.enabled", "true")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "right", "wrong"),
    [
        ("folding", "billed_at < requests.ends", "billed_at <= requests.ends"),
        ("folding", "ELSE billable.place END", "ELSE 0 END"),
        ("folding", "requests.starts <= entries", "requests.starts < entries"),
        ("folding", "MAX_BY(cells.amount, CASE", "MIN_BY(cells.amount, CASE"),
        ("event_judging", "claims.seq >= alone.seq", "claims.seq > alone.seq"),
        ("event_entries", "window_length > 0 AS is_set", "FALSE AS is_set"),
        ("event_entries", "dimensions AS part", "'' AS part"),
        ("folding", "GREATEST(cells.timestamp - starts, 0)", "GREATEST(cells.timestamp, 0)"),
        ("folding", "GREATEST(cells.timestamp - starts, 0)", "(cells.timestamp - starts)"),
        (
            "folding",
            "requests.reads_from <= entries.billed_at",
            "requests.starts <= entries.billed_at",
        ),
        (
            "folding",
            "entries.billed_at < requests.reads_before",
            "entries.billed_at < requests.ends",
        ),
        (
            "event_judging",
            "claims.all_dimensions = alone.all_dimensions",
            "TRUE",
        ),
        ("event_judging", "timestamp > received + tolerance", "timestamp >= received + tolerance"),
    ],
)
def test_planted_defects_die(where, right, wrong, monkeypatch):
    """A slip in the SQL is noticed by the comparison with the log."""
    text = texts.statement(where)
    assert text.count(right) == 1
    monkeypatch.setattr(
        "metering_core.sql.engine.statement",
        lambda one: text.replace(right, wrong) if one == where else texts.statement(one),
    )
    assert any(notices(seed) for seed in range(16))


def notices(seed):
    """Whether a history shows that what is compared differs."""
    history = history_of(seed, 400, "default") if seed else cut()
    try:
        compare(history, duckdb_of(history))
    except (AssertionError, ValueError, mc.MeteringError):
        return True
    return False

"""Usage on a cluster, judged and folded by Spark: everything as a log has it (law 4), in a classic
session and over Connect.

One Java process serves all tests: it runs the classic session and is the server of the other.
"""

from __future__ import annotations

import os
import shutil
import socket
import sys
from functools import partial

import engine_cases
import pytest
import sql_defects
from builders import JAN, START, four_modes, priced, subscribed

from metering_core import InvalidValueError, InvoicingError
from metering_core.errors import CatalogError, MissingExtraError
from metering_core.measures import AGGREGATORS
from metering_core.sql import SparkUsage

pytest.importorskip("pyspark", reason="needs the extra 'spark'")
pytest.importorskip("pyarrow", reason="needs the extra 'spark'")

pytestmark = [
    pytest.mark.slow,  # Spark takes ten seconds to start, and a second or two for each question.
    pytest.mark.skipif(
        shutil.which("java") is None and "JAVA_HOME" not in os.environ,
        reason="needs Java 17 or later, which Spark runs on",
    ),
    pytest.mark.filterwarnings(
        "ignore::ResourceWarning"
    ),  # Sockets of pyspark's own, to its Java process.
    pytest.mark.filterwarnings(
        "ignore:PySpark does not yet fully support pandas:FutureWarning"
    ),  # We do not use it.
]

SCHEMA = (
    "subscription_item STRING, quantity BIGINT, timestamp BIGINT, action STRING, id STRING, "
    "received_at BIGINT, seq BIGINT"
)
OPTIONS = {
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.sql.shuffle.partitions": "2",
    # So little data would spend its time in compilers and planners.
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
    "spark.sql.adaptive.enabled": "false",
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.warehouse.dir": "/nonexistent",
}


def has_connect():
    """Return whether the client of Spark Connect can be imported."""
    try:
        import grpc_status  # noqa: F401, PLC0415 - as asked
        import pandas  # noqa: F401, PLC0415, ICN001 - as asked
    except ImportError:
        return False
    return True


@pytest.fixture(scope="module")
def classic():
    """Return a session of two local threads that listens to this machine only, and is a Connect
    server where it can be.
    """
    from pyspark.sql import SparkSession  # noqa: PLC0415 - absent where these tests are skipped

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = {
        "spark.plugins": "org.apache.spark.sql.connect.SparkConnectPlugin",
        "spark.connect.grpc.binding.address": "127.0.0.1",
        "spark.connect.grpc.binding.port": str(port),
    }
    builder = SparkSession.builder.master("local[2]")
    for key, value in (OPTIONS | (server if has_connect() else {})).items():
        builder = builder.config(key, value)
    started = builder.getOrCreate()
    started.sparkContext.setLogLevel("OFF")
    yield started
    started.stop()


@pytest.fixture(scope="module")
def connect(classic):
    """Return a session that speaks to the server over the network."""
    if not has_connect():
        pytest.skip("needs pyspark[connect], the client of Spark Connect")
    with pytest.MonkeyPatch.context() as patch:
        # pyspark takes a main module without a file, as the workers of pytest-xdist have, for a run
        # of its doctests, and exits.
        patch.setattr(sys.modules["__main__"], "__file__", __file__, raising=False)
        from pyspark.sql.connect.session import SparkSession  # noqa: PLC0415 - as above

        address = f"sc://127.0.0.1:{classic.conf.get('spark.connect.grpc.binding.port')}"
        started = SparkSession.builder.remote(address).getOrCreate()
        yield started
        started.stop()


@pytest.fixture(params=["classic", "connect"])
def session(request):
    """Return a session of each kind."""
    return request.getfixturevalue(request.param)


def frame(
    session, *rows, schema="subscription_item STRING, quantity BIGINT, timestamp BIGINT, seq BIGINT"
):
    """Return rows as a data frame."""
    return session.createDataFrame(list(rows), schema)


@pytest.mark.parametrize("policy", engine_cases.POLICIES)
def test_engine_says_what_a_log_says(policy, classic):
    """Receipts, partials, summaries and invoices of hundreds of adversarial cases are those of a
    log.
    """
    batch = engine_cases.generated(3, 500, policy)
    assert not list(engine_cases.differences(batch, engine_cases.spark(classic)(batch)))


def test_engine_says_what_a_log_says_over_connect(connect):
    """The same where the session is a client that has no Java at all."""
    batch = engine_cases.generated(4, 500, "attributed")
    assert not list(engine_cases.differences(batch, engine_cases.spark(connect)(batch)))


@pytest.fixture(scope="module")
def sound(classic):
    """Return batches of cases, each with an engine over it that is asked again and again."""
    return [
        (batch, engine_cases.spark(classic)(batch).usage) for batch in sql_defects.BATCHES.values()
    ]


@pytest.mark.parametrize("name", list(sql_defects.DEFECTS)[::4])
def test_a_defect_in_the_sql_is_noticed(name, sound, monkeypatch):
    """The comparison dies of slips planted in the text here too: of each fourth, since Spark plans
    the text for seconds.
    """
    statement = sql_defects.plant(name, monkeypatch)
    assert any(
        engine_cases.dies(batch, partial(answered_anew, usage, statement)) for batch, usage in sound
    )


def answered_anew(usage, statement, batch):
    """Let an engine forget and answer again with the kernel as it is now; its input relations are
    there already.
    """
    usage._answers.clear()
    usage._non_empty.clear()
    usage._judge()
    if statement == "folding":  # No receipt depends on it.
        return engine_cases.Answered(
            usage, lambda: batch.expected["receipts"], usage.periods_with_usage
        )
    return engine_cases.Answered.of_sql(usage)


def test_tables_paths_and_zoned_timestamps_are_read(session, tmp_path):
    """A table by its name and Parquet by its path give what the data frame gives; timestamps are
    floored to the second.
    """
    before = {table.name for table in session.catalog.listTables()}
    rows = frame(session, ("si_0", 5, START, 1), ("si_0", 7, START, 2)).selectExpr(
        "subscription_item",
        "quantity",
        "TIMESTAMP_MICROS(timestamp * 1000000 + 999999) AS timestamp",
        "seq",
    )
    rows.createOrReplaceTempView("usage_by_name")
    rows.write.parquet(str(tmp_path / "usage"))
    item = subscribed(priced(mode="last_ever")).items[0]
    for source in (rows, "usage_by_name", str(tmp_path / "usage")):
        engine = SparkUsage(session, source, [subscribed(priced(mode="last_ever"))])
        assert engine.partial(item, JAN) == (START, 12)
        engine.close()
    assert {table.name for table in session.catalog.listTables()} - before == {"usage_by_name"}
    session.catalog.dropTempView("usage_by_name")


def test_what_the_cluster_keeps_is_given_back(classic):
    """Nothing stays in the cluster's storage once an engine is closed."""

    def stored():
        return classic.sparkContext._jsc.getPersistentRDDs().size()

    before = stored()
    engine = SparkUsage(classic, frame(classic, ("si_0", 5, START, 1)), [subscribed()])
    assert stored() > before
    engine.close()
    assert stored() == before


def test_partials_are_written_for_very_many_items(session, tmp_path):
    """Partials go to Parquet with the names of their items; an item without usage has no row."""
    subscription = four_modes()
    rows = frame(
        session,
        ("sum", 5, START, 1),
        ("sum", 6, START + 1, 2),
        ("last_ever", 7, START + 60, 3),
        ("max", 2**63 - 1, START, 4),
    )
    engine = SparkUsage(session, rows, [subscription])
    engine.write_partials(str(tmp_path / "partials"), [(item, JAN) for item in subscription.items])
    engine.close()
    written = (
        session.read.parquet(str(tmp_path / "partials")).orderBy("subscription_item").collect()
    )
    assert [
        (
            row.subscription_item,
            row.aggregate_usage,
            row.period_start,
            row.period_end,
            row.total and int(row.total),
            int(row.greatest),
        )
        for row in written
    ] == [
        ("last_ever", "last_ever", JAN.start_seconds, JAN.end_seconds, None, 7),
        ("max", "max", JAN.start_seconds, JAN.end_seconds, None, 2**63 - 1),
        ("sum", "sum", JAN.start_seconds, JAN.end_seconds, 11, 11),
    ]
    assert written[0].timestamp == START + 60


def test_nothing_is_usage_of_nothing(session):
    """An empty table has no receipts and identities for partials."""
    engine = SparkUsage(session, frame(session), [four_modes()])
    assert engine.receipts() == engine.periods_with_usage() == {}
    items = four_modes().items
    assert engine.partials([(item, JAN) for item in items]) == [
        AGGREGATORS[item.recurring.aggregate_usage].identity for item in items
    ]
    engine.close()


def test_overflow_is_an_error_of_ours(session):
    """A sum of more than 38 digits is refused by name, whatever ANSI mode calls it."""
    schema = "subscription_item STRING, quantity DECIMAL(38, 0), timestamp BIGINT, seq BIGINT"
    huge = f"CAST({'9' * 38} AS DECIMAL(38, 0))"
    columns = (
        "'si_0' AS subscription_item",
        f"{huge} AS quantity",
        f"{START}L AS timestamp",
        "id AS seq",
    )
    rows = session.range(2).selectExpr(*columns)
    assert rows.schema.simpleString() == frame(session, schema=schema).schema.simpleString()
    engine = SparkUsage(session, rows, [subscribed()])
    with pytest.raises(InvoicingError, match="38 digits") as refused:
        engine.partial(subscribed().items[0], JAN)
    assert refused.value.code == "quantity_out_of_range"
    engine.close()


def test_a_session_without_ansi_mode_is_refused(session):
    """Where a sum that overflows would be NULL, nothing is billed."""
    session.conf.set("spark.sql.ansi.enabled", "false")
    try:
        with pytest.raises(InvalidValueError, match=r"spark\.sql\.ansi\.enabled"):
            SparkUsage(session, frame(session), [subscribed()])
    finally:
        session.conf.set("spark.sql.ansi.enabled", "true")


@pytest.mark.parametrize(
    ("schema", "param"),
    [
        ("subscription_item STRING, quantity DOUBLE, timestamp BIGINT, seq BIGINT", "quantity"),
        (
            "subscription_item STRING, quantity BIGINT, timestamp TIMESTAMP_NTZ, seq BIGINT",
            "timestamp",
        ),
        (
            "subscription_item BIGINT, quantity BIGINT, timestamp BIGINT, seq BIGINT",
            "subscription_item",
        ),
        ("subscription_item STRING, quantity BIGINT, timestamp BIGINT", "seq"),
        ("subscription_item STRING, quantity BIGINT, timestamp BIGINT, seq STRING", "seq"),
        (
            (
                "subscription_item STRING, quantity BIGINT, timestamp BIGINT, seq BIGINT, "
                "Action STRING"
            ),
            "Action",
        ),
        (
            "subscription_item STRING, quantity BIGINT, timestamp BIGINT, seq BIGINT, ID STRING",
            "ID",
        ),
        (
            (
                "subscription_item STRING, quantity BIGINT, timestamp BIGINT, seq BIGINT, "
                "recieved_at BIGINT"
            ),
            "recieved_at",
        ),
    ],
)
def test_inexact_and_missing_columns_are_refused(schema, param, session):
    """A column that does not say exactly what is meant, or that is missing, is refused by name
    before a row is read.
    """
    with pytest.raises(InvalidValueError) as refused:
        SparkUsage(session, frame(session, schema=schema), [subscribed()])
    assert refused.value.param == param


def test_malformed_values_and_ties_are_refused(session):
    """The first malformed value is refused with its row, and two rows with one place in the order
    of arrival are.
    """
    with pytest.raises(
        InvalidValueError, match=r"^usage, row 2: quantity: expected .* received -1"
    ):
        SparkUsage(
            session, frame(session, ("si_0", 1, START, 1), ("si_0", -1, START, 2)), [subscribed()]
        )
    with pytest.raises(InvalidValueError, match="expected a different value in each row"):
        SparkUsage(
            session, frame(session, ("si_0", 1, START, 1), ("si_0", 1, START, 1)), [subscribed()]
        )


@pytest.mark.parametrize("seqs", [("1", "NULL"), ("NULL", "NULL"), ("1", str(2**63))])
def test_a_row_without_a_place_in_the_order_is_refused(seqs, session):
    """A ``seq`` that is absent, or that 64 bits do not hold, is refused by name: no comparison
    would find its row again.
    """
    columns = f"'si_0' AS subscription_item, 5 AS quantity, {START}L AS timestamp"
    rows = [session.sql(f"SELECT {columns}, CAST({seq} AS DECIMAL(38, 0)) AS seq") for seq in seqs]
    with pytest.raises(
        InvalidValueError, match=r"^seq: expected an integer of at most 64 bits in each row"
    ) as refused:
        SparkUsage(session, rows[0].unionAll(rows[1]), [subscribed()])
    assert refused.value.code == "parameter_invalid_integer"


def test_an_increment_without_a_place_hides_no_malformed_quantity(session):
    """The order is inspected before the values, which are named by it."""
    with pytest.raises(InvalidValueError, match=r"^seq: expected"):
        SparkUsage(
            session,
            frame(session, ("si_0", 5, START, 1), ("si_0", -10, START, None)),
            [subscribed()],
        )


def test_what_spark_cannot_find_is_an_error_of_ours(session):
    """A table, a path or a column that Spark cannot tell is refused in the words of other
    sources.
    """
    twice = session.sql(
        f"SELECT 'si_0' AS subscription_item, 5 AS quantity, 6 AS quantity, {START}L AS "
        "timestamp, 1L AS seq"
    )
    for source, said in (
        ("nowhere", "TABLE_OR_VIEW_NOT_FOUND"),
        ("/nowhere/usage", "PATH_NOT_FOUND"),
        (twice, "AMBIGUOUS_REFERENCE"),
    ):
        with pytest.raises(CatalogError, match=rf"^usage: cannot be read: \[{said}\]") as refused:
            SparkUsage(session, source, [subscribed()])
        assert refused.value.code == "file_unreadable"


def test_a_refused_opening_leaves_nothing(session):
    """No view of ours stays in the session where usage was refused, and a good table is opened
    after a bad one.
    """
    before = {table.name for table in session.catalog.listTables()}
    with pytest.raises(InvalidValueError, match=r"^usage, row 1: quantity"):
        SparkUsage(session, frame(session, ("si_0", -1, START, 1)), [subscribed()])
    assert {table.name for table in session.catalog.listTables()} == before


def test_now_is_the_moment_of_receipt_of_all(session):
    """With ``now`` all rows are judged at one moment; a column beside it would contradict it."""
    engine = SparkUsage(
        session, frame(session, ("si_0", 1, START, 1)), [subscribed()], now=START - 1
    )
    assert {receipt.code for receipt in engine.receipts().values()} == {"timestamp_in_future"}
    engine.close()
    with pytest.raises(InvalidValueError, match="only specify one"):
        SparkUsage(session, frame(session, schema=SCHEMA), [subscribed()], now=START)


def test_the_extra_is_named_where_it_is_missing(monkeypatch):
    """Without pyspark the engine says which extra brings it."""
    monkeypatch.setitem(sys.modules, "pyspark", None)
    with pytest.raises(MissingExtraError, match=r"metering-core\[spark\]"):
        SparkUsage(None, None, [subscribed()])


def test_rows_that_are_not_taken_are_told(classic):
    """Malformed rows are skipped where that is asked, counted, and told like those that the rules
    refuse.
    """
    source = frame(classic, ("si_0", 5, START, 1), ("si_0", -1, START, 2), ("nobody", 1, START, 3))
    engine = SparkUsage(classic, source, [subscribed()], skip_malformed=True)
    malformed, unknown = engine.refusals()
    assert (
        str(malformed)
        == "usage, row 2: quantity: expected an integer of at least 0, received -1 (int)"
    )
    assert (unknown.code, unknown.details["seq"]) == ("subscription_item_unknown", 3)
    counts = engine.counts()
    assert (counts.accepted, counts.malformed, counts.rejected) == (
        1,
        1,
        {"subscription_item_unknown": 1},
    )
    assert engine.partial(subscribed().items[0], JAN) == 5
    engine.close()
    with pytest.raises(InvalidValueError, match=r"^usage, row 2: quantity: expected"):
        SparkUsage(classic, source, [subscribed()])


def test_two_rows_thousands_of_years_apart_cost_two_rows(classic):
    """The stretches around rows are told apart in Spark's SQL as in DuckDB's."""
    engine = SparkUsage(
        classic,
        frame(classic, ("si_0", 5, START, 1), ("si_0", 1, 253_400_000_000, 2)),
        [subscribed()],
    )
    assert JAN in engine.periods_with_usage()["sub"]
    assert engine.partial(subscribed().items[0], JAN) == 5
    engine.close()

"""Usage on a cluster, judged and folded by Spark where it lies; only partials come back."""

# ruff: noqa: S608 - what is put into SQL here are names and numbers of our own, and quoted literals

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final
from uuid import uuid4

from metering_core.acceptance import AcceptancePolicy
from metering_core.accounts import Closing
from metering_core.errors import ErrorCode, InvalidValueError, MissingExtraError
from metering_core.periods import BillingPeriod, Instant, instant, unix_seconds
from metering_core.sql.engine import (
    INSTANT_TYPES,
    SqlUsage,
    column_missing,
    column_refused,
    out_of_range,
    ties_refused,
)
from metering_core.sql.kernel import statement
from metering_core.sql.rules import COLUMNS, Row
from metering_core.subscriptions import Subscription, SubscriptionItem

_INTEGERS: Final = ("tinyint", "smallint", "int", "bigint")
_NAMED: Final = {
    "request": "BIGINT",
    "subscription_item": "STRING",
    "aggregate_usage": "STRING",
    "period_start": "BIGINT",
    "period_end": "BIGINT",
}
_REQUIRED: Final = ("subscription_item", "quantity", "timestamp", "seq")


class SparkUsage(SqlUsage):
    """Usage in a table of a cluster; itself a :class:`~metering_core.Usage`. Needs the extra ``spark`` (Spark 4, ANSI mode).

    Columns are ``subscription_item``, ``quantity``, ``timestamp``, ``seq`` (the order of arrival: rows of a cluster have none
    of their own) and optionally ``action``, ``id`` and ``received_at``. A row counts as received when it happened unless
    ``received_at`` or ``now`` says otherwise. Other columns are not read.

    Args:
        session: a ``SparkSession``, classic or Connect; it stays the caller's.
        table_or_path: the name of a table, a path of Parquet (anything with a ``/``), or a ``DataFrame``.
        subscriptions: one version of each.
        policy: as for :class:`~metering_core.UsageLog`.
        closed: by subscription, the periods that were finalized before any of this usage arrived; ``log.state().closed``.
        now: the moment of receipt of every row, instead of a column.

    Raises:
        MissingExtraError: without pyspark or pyarrow.
        InvalidValueError: where ANSI mode is off, for a column of a type that is not exact, for the first malformed value, and
            for a ``seq`` that comes twice.
    """

    def __init__(
        self,
        session: Any,  # noqa: ANN401 - pyspark is imported lazily
        table_or_path: Any,  # noqa: ANN401 - as above
        subscriptions: Iterable[Subscription],
        *,
        policy: AcceptancePolicy | None = None,
        closed: Mapping[str, Iterable[Closing]] | None = None,
        now: Instant | None = None,
    ) -> None:
        _require_spark()
        super().__init__(subscriptions, policy, closed)
        self._session = session
        self._views = f"metering_core_{uuid4().hex}"
        self._defined: list[str] = []
        self._require_ansi()
        self._source = _source(session, table_or_path)
        self._define_usage(None if now is None else unix_seconds(instant(now, "now")))
        self._take_inspection(self._rows(statement("inspecting")))
        self._refuse_ties()
        self._define("items", self.rules.item_rows())
        self._define("standings", self.rules.standing_rows(self._received))
        self._define("closings", self.rules.closing_rows())
        self._judge()

    def close(self) -> None:
        """Give back what the cluster keeps for this usage; nothing can be asked afterwards but what is remembered."""
        self._judged.unpersist()
        for view in self._defined:
            self._session.catalog.dropTempView(view)
        self._defined = []

    def write_partials(self, path: str, requests: Iterable[tuple[SubscriptionItem, BillingPeriod]]) -> None:
        """Write the partials of very many items to Parquet instead of bringing them here.

        Columns: ``subscription_item``, ``aggregate_usage``, ``period_start`` (inclusive) and ``period_end`` (exclusive) in Unix
        seconds, ``timestamp`` of the latest cell for the modes that bill it, ``quantity``. An item without usage has no row.

        Args:
            path: where no file or folder is yet, as the cluster's machines see it.
            requests: items and periods.

        Raises:
            InvoicingError: as :meth:`partial`.
        """
        asked = [self._request(item, period) for item, period in requests]
        self._define("requests", self.rules.request_rows(asked))
        named = ((number, item_id, mode.value, start, end) for number, (item_id, mode, start, end) in enumerate(asked))
        names = self._sent(_NAMED, named)
        written = names.join(self._frame(statement("folding")), "request").drop("request")
        self._running(lambda: written.write.parquet(path))

    def _judge(self) -> None:
        """Judge once; the cluster keeps it, so that each question starts from what was accepted."""
        self._judged = self._frame(statement("judging")).persist()
        self._name("judged", self._judged)
        self._name("accepted", self._judged.where("verdict IS NULL"))

    # The session -----------------------------------------------------------------------------------------------------

    def _require_ansi(self) -> None:
        """Without ANSI mode a sum that overflows is NULL, which would bill nothing without a word."""
        if str(self._session.conf.get("spark.sql.ansi.enabled")).lower() != "true":
            expected = "a session with spark.sql.ansi.enabled, so that no sum overflows silently"
            raise InvalidValueError.expecting(ErrorCode.PARAMETER_INVALID_OBJECT, "session", expected, "false")

    def _define_usage(self, now: int | None) -> None:
        kinds = dict(self._source.dtypes)
        for column in _REQUIRED:
            if column not in kinds:
                raise column_missing(column)
        if now is not None and "received_at" in kinds:
            message = "You may only specify one of these parameters: now, received_at."
            raise InvalidValueError(ErrorCode.PARAMETERS_EXCLUSIVE, message, param="now")
        timestamp = _instant("timestamp", kinds)
        received = timestamp if now is None else f"CAST({now} AS BIGINT)"
        if "received_at" in kinds:
            received = f"COALESCE({_instant('received_at', kinds)}, {timestamp})"
        self._name(
            "usage",
            self._source.selectExpr(
                f"CAST({_integer('seq', kinds)} AS BIGINT) AS seq",
                f"{_string('subscription_item', kinds)} AS subscription_item",
                f"{_integer('quantity', kinds)} AS quantity",
                f"{timestamp} AS timestamp",
                f"{_is_set(kinds)} AS is_set",
                f"{_string('id', kinds)} AS id",
                f"{received} AS received",
            ),
        )

    def _refuse_ties(self) -> None:
        for row in self._rows("SELECT MIN(seq) FROM (SELECT seq FROM usage GROUP BY seq HAVING COUNT(*) > 1) AS ties"):
            if row[0] is not None:
                raise ties_refused(int(row[0]))

    def _name(self, relation: str, frame: Any) -> None:  # noqa: ANN401 - pyspark is imported lazily
        """Give a relation of the kernel a view of our own in the caller's session."""
        view = f"{self._views}_{relation}"
        frame.createOrReplaceTempView(view)
        if view not in self._defined:
            self._defined.append(view)

    def _define(self, name: str, rows: Iterable[Row]) -> None:
        self._name(name, self._sent(COLUMNS[name], rows))

    def _sent(self, columns: Mapping[str, str], rows: Iterable[Row]) -> Any:  # noqa: ANN401 - as above
        """Send rows as an Arrow table: a list of them would be unpacked by Python on the cluster, which it may not have."""
        import pyarrow as pa  # noqa: PLC0415 - the extra is imported where it is needed

        types = {"STRING": pa.string(), "BIGINT": pa.int64(), "BOOLEAN": pa.bool_()}
        values = list(zip(*rows, strict=True)) or [()] * len(columns)
        arrays = [pa.array(one, types[kind]) for one, kind in zip(values, columns.values(), strict=True)]
        # Connect asks for the schema of a table without a row.
        declared = ", ".join(f"{column} {kind}" for column, kind in columns.items())
        return self._session.createDataFrame(pa.table(arrays, list(columns)), declared)

    def _frame(self, text: str) -> Any:  # noqa: ANN401 - as above
        """Run a statement of the kernel as it is, with the names of its input relations bound in front of it."""
        relations = {view.removeprefix(f"{self._views}_"): view for view in self._defined}
        words = set(re.findall(r"\w+", text))  # What is bound is planned, so no more than may be read.
        bound = ",\n".join(f"{name} AS (SELECT * FROM {view})" for name, view in relations.items() if name in words)
        body = "\n".join(line for line in text.splitlines() if not line.startswith("--"))
        return self._session.sql(f"WITH {bound},\n{body[5:]}" if body.startswith("WITH\n") else f"WITH {bound}\n{body}")

    def _rows(self, text: str) -> list[Any]:
        collected: list[Any] = self._running(lambda: self._frame(text).collect())
        return collected

    @staticmethod
    def _running(run: Callable[[], Any]) -> Any:  # noqa: ANN401 - whatever it returns
        """Raise the overflow of ANSI mode as our own error."""
        from pyspark.errors import ArithmeticException  # noqa: PLC0415 - the extra is imported where it is needed

        try:
            return run()
        except ArithmeticException as error:
            raise out_of_range(error) from None

    # What SqlUsage asks for --------------------------------------------------------------------------------------------

    def _value_at(self, column: str, seq: int) -> object:
        return self._source.where(f"seq = {seq}").select(column).head()[0]


def _require_spark() -> None:
    try:
        import pyarrow as pa  # noqa: F401, PLC0415 - the extra is imported where it is needed
        import pyspark  # noqa: F401, PLC0415 - as above
    except ModuleNotFoundError as error:
        raise MissingExtraError.for_extra("spark", "SparkUsage") from error


def _source(session: Any, table_or_path: Any) -> Any:  # noqa: ANN401 - pyspark is imported lazily
    if not isinstance(table_or_path, str):
        return table_or_path
    return session.read.parquet(table_or_path) if "/" in table_or_path else session.table(table_or_path)


def _integer(column: str, kinds: Mapping[str, str]) -> str:
    kind = kinds[column]
    if kind in _INTEGERS or (kind.startswith("decimal(") and kind.endswith(",0)")):
        return column
    raise column_refused(column, "integers", kind)


def _instant(column: str, kinds: Mapping[str, str]) -> str:
    """Return the expression of Unix seconds, floored."""
    if kinds[column] == "timestamp":
        return f"UNIX_SECONDS({column})"
    if kinds[column] in _INTEGERS:
        return f"CAST({column} AS BIGINT)"
    raise column_refused(column, INSTANT_TYPES, kinds[column])


def _string(column: str, kinds: Mapping[str, str]) -> str:
    if column not in kinds or kinds[column] == "void":
        return "CAST(NULL AS STRING)"
    if kinds[column] == "string":
        return column
    raise column_refused(column, "strings", kinds[column])


def _is_set(kinds: Mapping[str, str]) -> str:
    if "action" not in kinds:
        return "FALSE"
    action = _string("action", kinds)
    return f"CASE WHEN {action} = 'set' THEN TRUE WHEN {action} = 'increment' OR {action} IS NULL THEN FALSE END"

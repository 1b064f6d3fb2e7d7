"""Usage on a cluster, judged and folded by Spark where it lies; only partials come back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from metering_core.acceptance import AcceptancePolicy
from metering_core.accounts import Closing
from metering_core.feeds.instants import FROM_2000, PlausibleTime, time_of
from metering_core.names import require_kind
from metering_core.periods import BillingPeriod, Instant, instant, unix_seconds
from metering_core.sql.engine import (
    INSTANT_TYPES,
    SqlUsage,
    column_refused,
    out_of_range,
    plausible,
    received,
    require_columns,
    require_order,
)
from metering_core.sql.kernel import statement
from metering_core.sql.spark_tables import (
    WHOLE,
    SparkTables,
    integer_of,
    origin_of,
    place_of,
    string_of,
)
from metering_core.subscriptions import Subscription, SubscriptionItem

_NAMED: Final = {
    "request": "BIGINT",
    "subscription_item": "STRING",
    "aggregate_usage": "STRING",
    "period_start": "BIGINT",
    "period_end": "BIGINT",
}
_REQUIRED: Final = ("subscription_item", "quantity", "timestamp", "seq")
_OPTIONAL: Final = ("action", "id", "received_at")


class SparkUsage(SqlUsage):
    """Usage in a table of a cluster; itself a :class:`~metering_core.Usage`. Needs the extra
    ``spark`` (Spark 4, ANSI mode).

    Columns are ``subscription_item``, ``quantity``, ``timestamp``, ``seq`` (the order of arrival:
    rows of a cluster have none of their own) and optionally ``action``, ``id`` and ``received_at``.
    A row counts as received when it happened unless ``received_at`` or ``now`` says otherwise.
    Other columns are not read.

    Args:
        session: a ``SparkSession``, classic or Connect; it stays the caller's.
        table_or_path: the name of a table, a path of Parquet (anything with a ``/``), or a
            ``DataFrame``.
        subscriptions: one version of each.
        policy: as for :class:`~metering_core.UsageLog`.
        closed: by subscription, the periods that were finalized before any of this usage arrived;
            ``log.state().closed``.
        now: the moment of receipt of every row, instead of a column.
        skip_malformed: as for :class:`~metering_core.sql.DuckDBUsage`.
        time: as for :class:`~metering_core.sql.DuckDBUsage`.

    Raises:
        MissingExtraError: without pyspark or pyarrow.
        CatalogError: ``file_unreadable`` where Spark does not find the table, the path or a column.
        InvalidValueError: where ANSI mode is off, for a column of a type that is not exact or that
            is misspelt, for the first malformed value, and for a ``seq`` that is NULL or comes
            twice.
    """

    def __init__(
        self,
        session: Any,
        table_or_path: Any,
        subscriptions: Iterable[Subscription],
        *,
        policy: AcceptancePolicy | None = None,
        closed: Mapping[str, Iterable[Closing]] | None = None,
        now: Instant | None = None,
        skip_malformed: bool = False,
        time: PlausibleTime | None = FROM_2000,
    ) -> None:
        super().__init__(subscriptions, policy, closed)
        self._time = time_of(time)
        seconds = None if now is None else unix_seconds(instant(now, "now"))
        require_kind(bool, skip_malformed, "skip_malformed", "True or False")
        self._tables: SparkTables = SparkTables(session, "SparkUsage", "usage", out_of_range)
        with self._tables.opening():
            require_order(
                self._tables,
                "given",
                self._tables.reading(lambda: self._define_usage(table_or_path, seconds)),
            )
            self._inspect(self._origin, skip_malformed=skip_malformed)
            self._define_rules()
            self._judge()

    def close(self) -> None:
        """Give back what the cluster keeps for this usage; nothing can be asked afterwards but what
        is remembered.
        """
        self._tables.close()

    def write_partials(
        self, path: str, requests: Iterable[tuple[SubscriptionItem, BillingPeriod]]
    ) -> None:
        """Write the partials of very many items to Parquet instead of bringing them here.

        Columns: ``subscription_item``, ``aggregate_usage``, ``period_start`` (inclusive) and
        ``period_end`` (exclusive) in Unix seconds; of its cells ``cells`` (how many), ``total``,
        ``greatest``, ``least`` and ``timestamp`` of the latest one. The modes ``last_…`` keep their
        latest cell alone, and a ``sum`` is one cell; ``total`` is there where the mode needs it.
        Peaks have a row for each hour or day that has usage, which begins at ``bucket``. An item
        without usage has no row.

        Args:
            path: where no file or folder is yet, as the cluster's machines see it.
            requests: items and periods.

        Raises:
            InvoicingError: as :meth:`partial`.
        """
        asked = [self._request(item, period) for item, period in requests]
        self._define("requests", self.rules.request_rows(asked))
        named = (
            (number, item_id, mode.value, start, end)
            for number, (item_id, mode, start, end) in enumerate(asked)
        )
        names = self._tables.sent(_NAMED, named)
        written = names.join(self._tables.frame(statement("folding")), "request").drop("request")
        self._tables.running(lambda: written.write.parquet(path))

    def _judge(self) -> None:
        """Judge once; the cluster keeps it, so that each question starts from what was accepted."""
        judged = self._tables.keep(statement("judging"))
        self._tables.name("judged", judged)
        self._tables.name("accepted", judged.where("verdict IS NULL"))

    def _define_usage(self, table_or_path: Any, now: int | None) -> str:
        """Define what the kernel reads; return the expression of the order of arrival."""
        source = self._tables.source(table_or_path)
        kinds = dict(source.dtypes)
        require_columns(kinds, _REQUIRED, _OPTIONAL, now)
        self._origin = origin_of(kinds)
        told = source.selectExpr(
            f"{place_of(kinds)} AS seq",
            f"{string_of('subscription_item', kinds)} AS subscription_item",
            f"{integer_of('quantity', kinds)} AS quantity",
            f"{_instant('timestamp', kinds)} AS timestamp",
            f"{_is_set(kinds)} AS is_set",
            f"{string_of('id', kinds)} AS id",
            f"{received(kinds, now, lambda column: _instant(column, kinds))} AS received",
        )
        self._tables.name("given", told.selectExpr(*plausible(told.columns, self._time, now)))
        self._tables.name("sifted", self._tables.frame(statement("sifting")))
        self._tables.name("usage", self._tables.frame("SELECT * FROM sifted WHERE fault IS NULL"))
        return place_of(kinds)


def _instant(column: str, kinds: Mapping[str, str]) -> str:
    """Return the expression of Unix seconds, floored."""
    if kinds[column] == "timestamp":
        return f"UNIX_SECONDS({column})"
    if kinds[column] in WHOLE:
        return f"CAST({column} AS BIGINT)"
    raise column_refused(column, INSTANT_TYPES, kinds[column])


def _is_set(kinds: Mapping[str, str]) -> str:
    if "action" not in kinds:
        return "FALSE"
    action = string_of("action", kinds)
    return (
        f"CASE WHEN {action} = 'set' THEN TRUE WHEN {action} = 'increment' OR {action} IS NULL "
        "THEN FALSE END"
    )

"""Usage on a cluster, judged and folded by Spark where it lies; only partials come back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from metering_core.acceptance import AcceptancePolicy
from metering_core.accounts import Closing
from metering_core.aggregation import as_requests, required_mode
from metering_core.book import Book
from metering_core.feeds.instants import FROM_2000, PlausibleTime
from metering_core.meter_acceptance import MeterPolicy
from metering_core.meter_events import MeterEventAdjustment
from metering_core.meters import Meter
from metering_core.periods import BillingPeriod, Instant
from metering_core.sql.events import SqlEvents
from metering_core.sql.records import SqlRecords
from metering_core.sql.rules import book_for
from metering_core.sql.spark_tables import SparkTables
from metering_core.sql.texts import statement
from metering_core.subscriptions import Subscription, SubscriptionItem

_NAMED: Final = {
    "request": "BIGINT",
    "subscription_item": "STRING",
    "aggregate_usage": "STRING",
    "period_start": "BIGINT",
    "period_end": "BIGINT",
}


class SparkUsage(SqlRecords):
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
            ``log.book.closed``.
        book: instead of both, that of a log, as it is now.
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
        subscriptions: Iterable[Subscription] = (),
        *,
        policy: AcceptancePolicy | None = None,
        closed: Mapping[str, Iterable[Closing]] | None = None,
        book: Book | None = None,
        now: Instant | None = None,
        skip_malformed: bool = False,
        time: PlausibleTime | None = FROM_2000,
    ) -> None:
        told = book_for(subscriptions, closed, book)
        super().__init__(told, policy, now, time, skip_malformed=skip_malformed)
        self._spark = SparkTables(session, "SparkUsage", self._called, self._out_of_range)
        self._open(self._spark, table_or_path)

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
        wanted = list(as_requests(requests))
        asked = [self._asked(item, period) for item, period in wanted]
        self._request(asked)
        named = (
            (number, item.id, required_mode(item).value, period.start_seconds, period.end_seconds)
            for number, (item, period) in enumerate(wanted)
        )
        names = self._spark.sent(_NAMED, named)
        folded = self._spark.frame(statement("folding")).drop("text", "place", "latest", "area")
        written = names.join(folded, "request").drop("request")
        self._spark.running(lambda: written.write.parquet(path))


class SparkEvents(SqlEvents):
    """Meter events in a table of a cluster; itself a :class:`~metering_core.Usage`. Needs the extra
    ``spark`` (Spark 4, ANSI mode).

    Columns are ``event_name``, ``customer``, ``value`` (text, integers or decimals), ``timestamp``,
    ``seq`` (the order of arrival: rows of a cluster have none of their own) and optionally
    ``identifier``, ``received_at`` and the dimension keys of the meters. An event counts as
    received when it happened unless ``received_at`` or ``now`` says otherwise. Other columns are
    not read.

    Args:
        session: a ``SparkSession``, classic or Connect; it stays the caller's.
        table_or_path: as for :class:`SparkUsage`.
        meters: what to measure.
        subscriptions: whose items to bill, with a ``customer`` each.
        customers: as for :class:`~metering_core.sql.DuckDBEvents`, like those that follow.
        policy: what is accepted.
        closed: the periods that were finalized before.
        canceled: events that were canceled afterwards.
        now: the moment of receipt of every row, instead of a column.
        decimal_places: values may have so many, and with them 38 digits in all.
        skip_malformed: leave malformed rows out and count them.
        time: the moments that rows may name.

    Raises:
        MissingExtraError: without pyspark or pyarrow.
        CatalogError: ``file_unreadable`` where Spark does not find the table, the path or a column.
        InvalidValueError: as :class:`~metering_core.sql.DuckDBEvents`, and where ANSI mode is off.
        UsageRejectedError: for a cancellation that a log refuses.
    """

    _engine = "Spark"

    def __init__(
        self,
        session: Any,
        table_or_path: Any,
        meters: Iterable[Meter],
        subscriptions: Iterable[Subscription] = (),
        *,
        customers: Iterable[str] | None = None,
        policy: MeterPolicy | None = None,
        closed: Mapping[str, Iterable[Closing]] | None = None,
        canceled: Iterable[MeterEventAdjustment] = (),
        now: Instant | None = None,
        decimal_places: int = 12,
        skip_malformed: bool = False,
        time: PlausibleTime | None = FROM_2000,
    ) -> None:
        super().__init__(
            *(meters, subscriptions, customers, policy, closed, canceled, decimal_places),
            *(now, time),
            skip_malformed=skip_malformed,
        )
        tables = SparkTables(session, "SparkEvents", self._called, self._out_of_range)
        self._open(tables, table_or_path)

"""Meter events in a table of a cluster, judged and folded by Spark."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from metering_core.feeds.instants import FROM_2000, PlausibleTime
from metering_core.meter_acceptance import MeterPolicy
from metering_core.meters import Meter
from metering_core.names import require_kind
from metering_core.periods import MICROSECONDS, Instant, moment
from metering_core.sql.engine import (
    INSTANT_TYPES,
    column_refused,
    plausible,
    received,
    require_columns,
    require_order,
)
from metering_core.sql.events import OPTIONAL, SIFTED, SqlEvents, events_kernel
from metering_core.sql.spark_tables import (
    WHOLE,
    SparkTables,
    origin_of,
    place_of,
    quoted,
    string_of,
)
from metering_core.subscriptions import Subscription


class SparkEvents(SqlEvents):
    """Meter events in a table of a cluster, judged and folded by Spark where they lie; itself a
    :class:`~metering_core.Usage`.

    Columns are ``event_name``, ``customer``, ``value`` (text, integers or decimals), ``timestamp``,
    ``seq`` (the order of arrival: rows of a cluster have none of their own) and optionally
    ``identifier``, ``received_at`` and the dimension keys of the meters. An event counts as
    received when it happened unless ``received_at`` or ``now`` says otherwise. Other columns are
    not read. Needs the extra ``spark`` (Spark 4, ANSI mode).

    Args:
        session: a ``SparkSession``, classic or Connect; it stays the caller's.
        table_or_path: the name of a table, a path of Parquet (anything with a ``/``), or a
            ``DataFrame``.
        meters: what to measure.
        subscriptions: whose items to bill, with a ``customer`` each.
        customers: the customers whose events are accepted; any customer unless given.
        policy: what is accepted; it must not forget identifiers.
        now: the moment of receipt of every row, instead of a column.
        decimal_places: values may have so many, and with them 38 digits in all.
        skip_malformed: as for :class:`~metering_core.sql.DuckDBEvents`.
        time: as for :class:`~metering_core.sql.DuckDBEvents`.

    Raises:
        MissingExtraError: without pyspark.
        CatalogError: ``file_unreadable`` where Spark does not find the table, the path or a column.
        InvalidValueError: as :class:`~metering_core.sql.DuckDBEvents`, and where ANSI mode is off.
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
        now: Instant | None = None,
        decimal_places: int = 12,
        skip_malformed: bool = False,
        time: PlausibleTime | None = FROM_2000,
    ) -> None:
        super().__init__(meters, subscriptions, customers, policy, decimal_places, time)
        received_at = None if now is None else moment(now, "now")[1]
        require_kind(bool, skip_malformed, "skip_malformed", "True or False")
        self._tables: SparkTables = SparkTables(
            session, "SparkEvents", "events", self._out_of_range
        )
        with self._tables.opening():
            require_order(
                self._tables,
                "sent",
                self._tables.reading(lambda: self._define_events(table_or_path, received_at)),
            )
            self._tables.name("sifted", self._tables.frame(SIFTED))
            self._tables.name(
                "events", self._tables.frame("SELECT * FROM sifted WHERE fault IS NULL")
            )
            self._check(self._origin, skip_malformed=skip_malformed)
            self._define_rules()
            judged = self._tables.keep(events_kernel()[0])
            self._tables.name("judged", judged)
            self._tables.name("accepted", judged.where("verdict IS NULL"))
            self._check_values()

    def close(self) -> None:
        """Give back what the cluster keeps; nothing can be asked afterwards but what is
        remembered.
        """
        self._tables.close()

    def _define_events(self, table_or_path: Any, now: int | None) -> str:
        """Define what the kernel reads; return the expression of the order of arrival."""
        source = self._tables.source(table_or_path)
        kinds = dict(source.dtypes)
        require_columns(
            kinds, (*self._required, "seq"), ("value", *OPTIONAL, *self._keys), now, "events"
        )
        self._origin = origin_of(kinds)
        keys = [key for key in self._keys if key in kinds]
        told = source.selectExpr(
            f"{place_of(kinds)} AS seq",
            *(
                f"{string_of(column, kinds)} AS {column}"
                for column in ("event_name", "customer", "identifier")
            ),
            f"{_value(kinds)} AS value",
            "FALSE AS is_inexact",
            f"{_moment('timestamp', kinds)} AS timestamp",
            f"{received(kinds, now, lambda column: _moment(column, kinds))} AS received",
            *(f"{string_of(key, kinds)} AS {quoted(f'dimension {key}')}" for key in keys),
        )
        self._dimension_keys, self._there = keys, [quoted(f"dimension {key}") for key in keys]
        names = [quoted(name) if " " in name else name for name in told.columns]
        sent = told.selectExpr(*plausible(names, self._time, now, MICROSECONDS))
        self._tables.name("sent", sent)
        dimensions = self._dimensions(keys, _literal, lambda key: quoted(f"dimension {key}"))
        self._tables.name(
            "events_sent",
            sent.selectExpr(
                "*", *(f"{expression} AS {name}" for name, expression in dimensions.items())
            ),
        )
        return place_of(kinds)


def _literal(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _moment(column: str, kinds: Mapping[str, str]) -> str:
    if kinds[column] == "timestamp":
        return f"UNIX_MICROS({column})"
    if kinds[column] in WHOLE:
        return f"TRY_MULTIPLY(CAST({column} AS BIGINT), 1000000)"
    raise column_refused(column, INSTANT_TYPES, kinds[column])


def _value(kinds: Mapping[str, str]) -> str:
    kind = kinds.get("value")
    if kind is None:
        return "CAST(NULL AS STRING)"
    if kind in (*WHOLE, "string", "void") or kind.startswith("decimal"):
        return "CAST(value AS STRING)"
    raise column_refused("value", "texts, integers or decimals", kind)

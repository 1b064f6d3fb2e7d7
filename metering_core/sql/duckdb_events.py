"""Meter events in files and streams, judged and folded by DuckDB on one machine."""

# ruff: noqa: S608 - what is put into SQL here are names of our own, and quoted literals

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from metering_core.feeds.instants import FROM_2000, PlausibleTime
from metering_core.meter_acceptance import MeterPolicy
from metering_core.meters import Meter
from metering_core.periods import ISO, MICROSECONDS, Instant, moment
from metering_core.sql.duckdb_tables import DuckDBTables
from metering_core.sql.engine import (
    INSTANT_TYPES,
    column_refused,
    plausible,
    received,
    require_columns,
    require_order,
)
from metering_core.sql.events import OPTIONAL, REQUIRED, SIFTED, SqlEvents, events_kernel
from metering_core.sql.loading import Origin, load
from metering_core.sql.readers import INTEGERS, ZONED, Source, literal, quoted
from metering_core.sql.sources import floored, integer_of, is_absent
from metering_core.subscriptions import Subscription


class DuckDBEvents(SqlEvents):
    """Meter events in files and streams, judged and folded by DuckDB; itself a
    :class:`~metering_core.Usage`.

    Columns are ``event_name``, ``customer``, ``value`` (text, integers or decimals), ``timestamp``
    and optionally ``identifier``, ``received_at``, ``seq`` and the dimension keys of the meters.
    Arrival order is ``seq``, or the order of the rows; of several files, by name first. An event
    counts as received when it happened unless ``received_at`` or ``now`` says otherwise. Other
    columns are not read. The source is copied into DuckDB's own storage once. Needs the extra
    ``duckdb``.

    Args:
        source: a path or a glob of Parquet, CSV or JSON lines, a list of them, or an object with
            ``__arrow_c_stream__``.
        meters: what to measure.
        subscriptions: whose items to bill, with a ``customer`` each.
        customers: the customers whose events are accepted; any customer unless given.
        policy: what is accepted; it must not forget identifiers.
        now: the moment of receipt of every row, instead of a column.
        decimal_places: values may have so many, and with them 38 digits in all.
        skip_malformed: leave malformed rows out and count them, instead of refusing the source for
            the first of them; :meth:`refusals` says what is wrong with each.
        time: the moments that rows may name: those from the year 2000 on unless given, all with
            None.

    Raises:
        MissingExtraError: without DuckDB.
        CatalogError: ``file_unreadable``: also for the first malformed row of a file.
        InvalidValueError: for a column of a type that is not exact (floats) or no instant, for the
            first malformed row of a stream, for a value that ``decimal_places`` do not hold, for a
            policy with an ``identifier_retention`` or that carries late usage forward, and for a
            dimension with the name of a column.
    """

    _engine = "DuckDB"

    def __init__(
        self,
        source: Source,
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
        self._tables: DuckDBTables = DuckDBTables("DuckDBEvents", "events", self._out_of_range)
        received_at = None if now is None else moment(now, "now")[1]
        origin, seq = self._define_events(source, received_at)
        require_order(self._tables, "sent", seq)
        self._tables.execute(f"CREATE TEMP VIEW sifted AS {SIFTED}")
        self._tables.execute("CREATE TEMP VIEW events AS SELECT * FROM sifted WHERE fault IS NULL")
        self._check(origin, skip_malformed=skip_malformed)
        self._define_rules()
        self._tables.execute(f"CREATE TEMP TABLE judged AS {events_kernel()[0]}")
        self._tables.execute(
            "CREATE TEMP VIEW accepted AS SELECT * FROM judged WHERE verdict IS NULL"
        )
        self._check_values()

    def close(self) -> None:
        """Give back the memory; nothing can be asked afterwards but what is remembered."""
        self._tables.close()

    def _define_events(self, source: Source, now: int | None) -> tuple[Origin, str]:
        """Copy what is read of the source, and define what is sifted; return what is known, and the
        order of arrival.
        """
        required = self._required
        optional = [
            column
            for column in dict.fromkeys((*REQUIRED, *OPTIONAL, *self._keys))
            if column not in required
        ]
        origin = load(self._tables, source, required, optional, in_place=False)
        require_columns(origin.reader.columns, required, optional, now, "events")
        kinds = origin.kinds
        keys = [key for key in self._keys if key in kinds]
        seq = integer_of("seq", kinds["seq"], is_text=origin.is_text, type="BIGINT")
        fields = {
            "seq": seq,
            **{key: _text(key, kinds) for key in ("event_name", "customer", "identifier")},
            "value": _value_text(kinds.get("value", '"NULL"')),
            "is_inexact": _INEXACT if kinds.get("value") == "JSON" else "FALSE",
            "timestamp": _moment("timestamp", kinds["timestamp"]),
            "received": received(
                kinds,
                now,
                lambda column: _moment(column, kinds[column]),
                is_absent("received_at", kinds),
            ),
            **{quoted(f"dimension {key}"): _text(key, kinds) for key in keys},
        }
        selected = ", ".join(f"{expression} AS {name}" for name, expression in fields.items())
        judged = ", ".join(plausible(fields, self._time, now, MICROSECONDS))
        self._tables.execute(
            f"CREATE TEMP TABLE sent AS SELECT {judged} FROM (SELECT {selected} FROM "
            "source) AS told"
        )
        self._dimension_keys, self._there = keys, [quoted(f"dimension {key}") for key in keys]
        dimensions = self._dimensions(keys, literal, lambda key: quoted(f"dimension {key}"))
        more = ", ".join(f"{expression} AS {name}" for name, expression in dimensions.items())
        self._tables.execute(f"CREATE TEMP VIEW events_sent AS SELECT *, {more} FROM sent")
        return origin, seq


_INEXACT: Final = (
    "json_type(value) IN ('DOUBLE', 'OBJECT', 'ARRAY', 'BOOLEAN') AND NOT "
    "regexp_full_match(CAST(value AS VARCHAR), '-?[0-9]+')"
)
"""A JSON number with a point was a float before it came here."""


def _moment(column: str, kind: str) -> str:
    """Return the expression of Unix microseconds; NULL where a text says no instant."""
    if kind in ZONED:
        epoch, second = ZONED[kind]
        return floored(f"{epoch}({column})", second // 10**6)
    if kind in INTEGERS:
        return f"TRY_CAST(CAST(TRY_CAST({column} AS BIGINT) AS HUGEINT) * 1000000 AS BIGINT)"
    if kind in {"VARCHAR", "JSON"}:
        text = f"({column} ->> '$')" if kind == "JSON" else column
        return (
            f"CASE WHEN regexp_full_match({text}, '-?[0-9]{{1,12}}') THEN TRY_CAST({text} "
            "AS BIGINT) * 1000000 "
            f"WHEN regexp_full_match({text}, '{ISO}') THEN epoch_us(TRY_CAST({text} AS "
            "TIMESTAMPTZ)) END"
        )
    raise column_refused(column, INSTANT_TYPES, kind)


def _text(column: str, kinds: Mapping[str, str]) -> str:
    kind = kinds.get(column, '"NULL"')
    name = quoted(column)
    if kind == '"NULL"':
        return "CAST(NULL AS VARCHAR)"
    if kind == "JSON":
        return f"({name} ->> '$')"
    if kind == "VARCHAR" or kind.startswith("ENUM"):
        return f"CAST({name} AS VARCHAR)"
    raise column_refused(column, "strings", kind)


def _value_text(kind: str) -> str:
    if kind == "JSON":
        return "value ->> '$'"
    if kind in INTEGERS or kind.startswith(("DECIMAL", "VARCHAR", "ENUM")):
        return "CAST(value AS VARCHAR)"
    if kind == '"NULL"':
        return "CAST(NULL AS VARCHAR)"
    raise column_refused("value", "texts, integers or decimals", kind)

"""Usage as DuckDB can read it, with the types that the kernel reads.

A source becomes two relations: ``source``, the rows as they are with a column ``seq``, and
``given``, the same with the types that the kernel reads. A value that cannot be read exactly
becomes NULL in ``given``, which the sifting finds.
"""

# ruff: noqa: S608 - what is put into SQL here are names and numbers of our own, and quoted literals

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from metering_core.feeds.instants import PlausibleTime
from metering_core.periods import ISO
from metering_core.sql.duckdb_tables import DuckDBTables
from metering_core.sql.engine import (
    INSTANT_TYPES,
    column_refused,
    plausible,
    received,
    require_columns,
)
from metering_core.sql.loading import Origin, load
from metering_core.sql.readers import INTEGERS, ZONED, Source

REQUIRED: Final = ("subscription_item", "quantity", "timestamp")
OPTIONAL: Final = ("action", "id", "received_at", "seq")

_NARROW: Final = {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER"}


def define_usage(
    tables: DuckDBTables, source: Source, now: int | None, time: PlausibleTime
) -> tuple[Origin, str]:
    """Define the relations ``source`` and ``given``; return what is known of the first, and the
    expression of ``seq``.

    A moment that ``time`` does not hold is malformed.

    Raises:
        CatalogError: ``file_unreadable``.
        InvalidValueError: ``parameter_missing`` or ``parameter_invalid_object`` for a column.
    """
    origin = load(tables, source, REQUIRED, OPTIONAL, in_place=True)
    require_columns(origin.reader.columns, REQUIRED, OPTIONAL, now)
    columns, is_text = origin.kinds, origin.is_text

    def moment_of(column: str) -> str:
        return _instant(column, columns[column], is_text=is_text)

    seq = integer_of("seq", columns["seq"], is_text=is_text, type="BIGINT")
    fields = {
        "seq": seq,
        "subscription_item": _string("subscription_item", columns),
        "quantity": integer_of(
            "quantity", columns["quantity"], is_text=is_text, type="DECIMAL(38, 0)"
        ),
        "timestamp": moment_of("timestamp"),
        "is_set": _is_set(columns),
        "id": _string("id", columns),
        "received": received(columns, now, moment_of, is_absent("received_at", columns)),
        "said": moment_of("received_at") if "received_at" in columns else "CAST(NULL AS BIGINT)",
    }
    selected = ", ".join(f"{expression} AS {name}" for name, expression in fields.items())
    judged = ", ".join(plausible(fields, time, now))
    tables.execute(
        f"CREATE TEMP VIEW given AS SELECT {judged} FROM (SELECT {selected} FROM source) AS told"
    )
    return origin, seq


# Types --------------------------------------------------------------------------------------------


def is_absent(column: str, columns: Mapping[str, str]) -> str:
    """Return whether a row says nothing in a column."""
    is_json = columns.get(column) == "JSON"
    return f"({column} IS NULL OR json_type({column}) = 'NULL')" if is_json else f"{column} IS NULL"


def integer_of(column: str, kind: str, *, is_text: bool, type: str) -> str:
    """Return the expression of an integer; NULL where a text is none."""
    if kind in INTEGERS or (kind.startswith("DECIMAL(") and kind.endswith(",0)")):
        return f"CAST({column} AS BIGINT)" if kind in _NARROW else f"TRY_CAST({column} AS {type})"
    if kind == "JSON":
        # Of a number, its digits: also beyond 64 bits, where its type would be a float.
        text = f"CAST({column} AS VARCHAR)"
        return (
            f"CASE WHEN regexp_full_match({text}, '-?[0-9]+') THEN TRY_CAST({text} AS {type}) END"
        )
    if is_text and kind == "VARCHAR":
        return (
            f"CASE WHEN regexp_full_match({column}, '-?[0-9]+') THEN TRY_CAST({column} AS "
            f"{type}) END"
        )
    raise column_refused(column, "integers", kind)


def _instant(column: str, kind: str, *, is_text: bool) -> str:
    """Return the expression of Unix seconds; NULL where a text says no instant."""
    if kind in ZONED:
        epoch, second = ZONED[kind]
        return floored(f"{epoch}({column})", second)
    if kind == "JSON":
        text = f"{column} ->> '$'"
        return (
            f"CASE WHEN json_type({column}) IN ('UBIGINT', 'BIGINT') THEN TRY_CAST({text} "
            "AS BIGINT) "
            f"WHEN json_type({column}) = 'VARCHAR' AND regexp_full_match({text}, '{ISO}') "
            f"THEN {_seconds(text)} END"
        )
    if is_text and kind == "VARCHAR":
        return (
            f"CASE WHEN regexp_full_match({column}, '-?[0-9]+') THEN TRY_CAST({column} AS BIGINT) "
            f"WHEN regexp_full_match({column}, '{ISO}') THEN {_seconds(column)} END"
        )
    if kind in INTEGERS:
        return f"TRY_CAST({column} AS BIGINT)"
    raise column_refused(column, INSTANT_TYPES, kind)


def _seconds(text: str) -> str:
    return floored(f"epoch_us(TRY_CAST({text} AS TIMESTAMPTZ))", 10**6)


def floored(number: str, unit: int) -> str:
    """Return the expression of how many whole units a number has, rounded down also below 0."""
    return f"(({number} - ((({number} % {unit}) + {unit}) % {unit})) // {unit})"


def _string(column: str, columns: Mapping[str, str]) -> str:
    """Return the expression of a string. A JSON value of another type becomes an empty string,
    which is malformed.
    """
    kind = columns.get(column)
    if kind is None or kind == '"NULL"':
        return "CAST(NULL AS VARCHAR)"
    if kind == "JSON":
        text = f"CASE WHEN json_type({column}) = 'VARCHAR' THEN {column} ->> '$' ELSE '' END"
        return f"CASE WHEN {is_absent(column, columns)} THEN NULL ELSE {text} END"
    if kind == "VARCHAR" or kind.startswith("ENUM"):
        return f"CAST({column} AS VARCHAR)"
    raise column_refused(column, "strings", kind)


def _is_set(columns: Mapping[str, str]) -> str:
    """Return whether the action is ``set``; NULL for another word."""
    if "action" not in columns:
        return "FALSE"
    action = _string("action", columns)
    return (
        f"CASE WHEN {action} = 'set' THEN TRUE WHEN {action} = 'increment' OR ({action}) IS "
        "NULL THEN FALSE END"
    )

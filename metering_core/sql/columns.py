"""Columns of a source as SQL reads them: what is there, of which type, and in which order.

An engine says how one of its own columns is read; a value that cannot be read exactly becomes NULL,
which the sifting finds. A column that no value of can be read exactly is refused by name.
"""

# ruff: noqa: S608 - what is put into SQL here are names and numbers of our own

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final, Protocol

from metering_core.errors import ErrorCode, InvalidValueError
from metering_core.feeds.instants import PlausibleTime
from metering_core.names import refuse_slips
from metering_core.sql.rules import Row

INSTANT_TYPES: Final = "integers (Unix seconds) or timestamps with a time zone"


class SourceColumns(Protocol):
    """How an engine reads the columns of ``source``: each method returns an expression.

    Attributes:
        kinds: the types, as the engine names them.
    """

    kinds: Mapping[str, str]

    def integer(self, column: str, type: str) -> str:
        """An integer; NULL where a text is none, or where ``type`` does not hold it."""

    def text(self, column: str, *, other: str | None = None) -> str:
        """A text, NULL where there is no such column; ``other`` stands for JSON that is no
        string.
        """

    def moment(self, column: str, ticks: int) -> str:
        """How many ``ticks`` of a second since 1970, floored; NULL where a text says no instant."""

    def value(self) -> tuple[str, str]:
        """The text of an event's value, and whether it was a float before."""

    def is_absent(self, column: str) -> str:
        """Whether a row says nothing in a column."""

    def quoted(self, name: str) -> str:
        """A name."""

    def literal(self, text: str) -> str:
        """A string."""


class Tables(Protocol):
    """Where an engine keeps the relations that the statements read, and runs these."""

    def define(self, name: str, columns: Mapping[str, str], rows: Iterable[Row]) -> None:
        """Give the statements the rows of one of their input relations; ``columns`` are names and
        types.
        """

    def view(self, name: str, text: str) -> None:
        """Let a statement be what others read under a name."""

    def keep(self, name: str, text: str, *, again: bool) -> None:
        """Run a statement and keep its rows under a name; with ``again`` it may be run again for
        each question instead, where the engine reads in place.
        """

    def rows(self, text: str) -> Iterable[Any]:
        """Run a statement and return its rows."""

    def close(self) -> None:
        """Give back what is kept."""


def require_order(tables: Tables, seq: str) -> None:
    """Refuse a row without a place in the order of arrival, and two rows that claim the same one.

    What is NULL compares with nothing: such a row would be neither billed nor refused. ``seq``
    reads a place from ``source``.
    """
    claims = "SELECT seq FROM given GROUP BY seq HAVING seq IS NULL OR COUNT(*) > 1"
    for (place,) in tables.rows(f"{claims} ORDER BY seq NULLS FIRST LIMIT 1"):
        if place is None:
            ((value,),) = tables.rows(f"SELECT MIN(seq) FROM source WHERE ({seq}) IS NULL")
            expected = (
                "an integer of at most 64 bits in each row, because it is the order of arrival"
            )
            raise InvalidValueError.expecting(
                ErrorCode.PARAMETER_INVALID_INTEGER, "seq", expected, value
            )
        expected = "a different value in each row, because it is the order of arrival"
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_OBJECT, "seq", expected, int(place)
        )


def column_refused(column: str, expected: str, received: str) -> InvalidValueError:
    """Say that a column is not of a type that can be read exactly."""
    message = f"{column}: expected a column of {expected}, received {received}"
    details = {"expected": expected, "received": received}
    return InvalidValueError(
        ErrorCode.PARAMETER_INVALID_OBJECT, message, param=column, details=details
    )


def require_columns(
    columns: Collection[str],
    required: Collection[str],
    optional: Collection[str],
    now: int | None,
    read: str,
) -> None:
    """Refuse misspelt columns, say which one the source lacks, and refuse two words on when its
    rows were received.

    ``read`` is what the source is called in a refusal.
    """
    refuse_slips(columns, (*required, *optional), read)
    for column in required:
        if column not in columns:
            message = f"{read}: the column {column!r} is missing"
            raise InvalidValueError(ErrorCode.PARAMETER_MISSING, message, param=column)
    if now is not None and "received_at" in columns:
        raise InvalidValueError.exclusive("now", "received_at")


def moments_of(columns: SourceColumns, now: int | None, ticks: int) -> dict[str, str]:
    """Return the expressions of ``timestamp``, of when a row says it was received, and of when it
    was: as it says, ``now``, or when it happened.

    A row that says nothing was received when it happened; one that says what is no moment has none,
    and is refused.
    """
    happened, said = columns.moment("timestamp", ticks), "CAST(NULL AS BIGINT)"
    received = happened if now is None else f"CAST({now} AS BIGINT)"
    if "received_at" in columns.kinds:
        said = columns.moment("received_at", ticks)
        received = f"CASE WHEN {columns.is_absent('received_at')} THEN {happened} ELSE {said} END"
    return {"timestamp": happened, "said": said, "received": received}


def plausible(fields: Iterable[str], time: PlausibleTime, now: int | None, ticks: int) -> list[str]:
    """Return what selects fields once more: a moment that ``time`` does not hold becomes NULL,
    which is malformed.

    What ``now`` says is the caller's word, not the file's.
    """
    first, last = time.first * ticks, (time.last + 1) * ticks - 1
    said = {"timestamp", "said"} if now is not None else {"timestamp", "said", "received"}
    return [
        f"CASE WHEN {one} BETWEEN {first} AND {last} THEN {one} END AS {one}"
        if one in said
        else one
        for one in fields
    ]

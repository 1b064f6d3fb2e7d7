"""Views of our own in the caller's Spark session: the relations that the kernel's statements read,
and how one is run.
"""

# ruff: noqa: S608 - what is put into SQL here are names of our own

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final
from uuid import uuid4

from metering_core.errors import (
    CatalogError,
    ErrorCode,
    InvalidValueError,
    InvoicingError,
    MissingExtraError,
)
from metering_core.sql.columns import INSTANT_TYPES, column_refused
from metering_core.sql.loading import Origin
from metering_core.sql.readers import Reader
from metering_core.sql.rules import Row

WHOLE: Final = ("tinyint", "smallint", "int", "bigint")
"""Spark's types of integers."""


class SparkTables:
    """Relations in a Spark session, each a view with a name of its own; see
    :class:`~metering_core.sql.columns.Tables`.

    Args:
        session: a ``SparkSession``, classic or Connect; it stays the caller's.
        asked_by: the name of the class that needs it.
        read: what its source is called in a refusal.
        overflow: makes the error of a sum that has too many digits.

    Raises:
        MissingExtraError: without pyspark or pyarrow.
        InvalidValueError: where ANSI mode is off.
    """

    def __init__(
        self,
        session: Any,
        asked_by: str,
        read: str,
        overflow: Callable[[Exception], InvoicingError],
    ) -> None:
        _require_spark(asked_by)
        _require_ansi(session)
        self._session, self._read, self._overflow = session, read, overflow
        self._prefix = f"metering_core_{uuid4().hex}_"
        self._views: dict[str, str] = {}
        self._kept: list[Any] = []

    def close(self) -> None:
        """Take the views out of the session, and give back what the cluster keeps."""
        for view in self._views.values():
            self._session.catalog.dropTempView(view)
        self._views = {}
        while self._kept:
            _release(self._kept.pop())

    @contextmanager
    def opening(self) -> Iterator[None]:
        """Leave nothing in the session where what is opened is refused."""
        try:
            yield
        except BaseException:
            self.close()
            raise

    numbers_rows = False
    """Whether a source without ``seq`` has an order of its own."""

    def load(
        self,
        table_or_path: Any,
        required: Sequence[str],
        optional: Sequence[str],
    ) -> tuple[Origin, SparkColumns]:
        """Define ``source``: a table by its name, Parquet by its path (anything with a ``/``), or a
        frame; return what is known of it, and how its columns are read.
        """
        kinds: dict[str, str] = self.reading(lambda: self._kinds_of(table_or_path))
        return Origin(Reader(None, list(kinds), "stream"), kinds, has_seq=True), SparkColumns(kinds)

    def _kinds_of(self, table_or_path: Any) -> dict[str, str]:
        frame = table_or_path
        if isinstance(frame, str):
            frame = (
                self._session.read.parquet(frame) if "/" in frame else self._session.table(frame)
            )
        self.name("source", frame)
        return dict(frame.dtypes)

    def name(self, relation: str, frame: Any) -> None:
        """Let a frame be what statements read under a relation's name."""
        self._views[relation] = f"{self._prefix}{relation}"
        frame.createOrReplaceTempView(self._views[relation])

    def define(self, name: str, columns: Mapping[str, str], rows: Iterable[Row]) -> None:
        """Send the rows of a relation."""
        self.name(name, self.sent(columns, rows))

    def sent(self, columns: Mapping[str, str], rows: Iterable[Row]) -> Any:
        """Send rows as an Arrow table: a list of them would be unpacked by Python on the cluster,
        which it may not have.
        """
        import pyarrow as pa  # noqa: PLC0415 - an extra

        types = {"STRING": pa.string(), "BIGINT": pa.int64(), "BOOLEAN": pa.bool_()}
        values = list(zip(*rows, strict=True)) or [()] * len(columns)
        arrays = [
            pa.array(one, types[kind]) for one, kind in zip(values, columns.values(), strict=True)
        ]
        # Connect asks for the schema of a table without a row.
        declared = ", ".join(f"{column} {kind}" for column, kind in columns.items())
        return self._session.createDataFrame(pa.table(arrays, list(columns)), declared)

    def frame(self, text: str) -> Any:
        """Return a statement of the kernel as a frame: as it is, with the names of its input
        relations bound in front of it.
        """
        words = set(
            re.findall(r"\w+", text)
        )  # What is bound is planned, so no more than may be read.
        bound = ",\n".join(
            f"{name} AS (SELECT * FROM {view})"
            for name, view in self._views.items()
            if name in words
        )
        body = "\n".join(line for line in text.splitlines() if not line.startswith("--"))
        return self._session.sql(
            f"WITH {bound},\n{body[5:]}" if body.startswith("WITH\n") else f"WITH {bound}\n{body}"
        )

    def view(self, relation: str, text: str) -> None:
        """Let a statement be what others read under a relation's name."""
        self.name(relation, self.frame(text))

    def keep(self, relation: str, text: str, *, again: bool = False) -> None:
        """Run a statement and let the cluster keep the rows under a relation's name, without the
        plan that they came from.

        To run it ``again`` for each question would cost more here. ``persist`` would keep the plan
        too, and a question that reads the rows three times is then planned through it three times,
        which takes minutes. What is lost with a machine of the cluster is not computed again: the
        question fails.
        """
        kept = self.running(lambda: self.frame(text).localCheckpoint())
        self._kept.append(kept)
        self.name(relation, kept)

    def rows(self, text: str) -> list[Any]:
        """Run a statement and return its rows."""
        collected: list[Any] = self.running(lambda: self.frame(text).collect())
        return collected

    def running(self, run: Callable[[], Any]) -> Any:
        """Raise the overflow of ANSI mode as our own error."""
        from pyspark.errors import ArithmeticException  # noqa: PLC0415 - an extra

        try:
            return run()
        except ArithmeticException as error:
            raise self._overflow(error) from None

    def reading(self, define: Callable[[], Any]) -> Any:
        """Raise as our own that there is no such table or path, or that a column of it comes
        twice.
        """
        from pyspark.errors import AnalysisException  # noqa: PLC0415 - an extra

        try:
            return define()
        except AnalysisException as error:
            message = f"{self._read}: cannot be read: {str(error).strip().splitlines()[0]}"
            details = {"path": None, "line": None}
            raise CatalogError(
                ErrorCode.FILE_UNREADABLE, message, param="table_or_path", details=details
            ) from error


def _release(kept: Any) -> None:
    """Free the rows that were kept. Over Connect the server does it once nobody names them any
    more.
    """
    if hasattr(kept, "_jdf"):  # `unpersist` knows nothing of checkpoints.
        kept._jdf.logicalPlan().rdd().unpersist(False)  # noqa: SLF001, FBT003 - no public way


def _require_spark(asked_by: str) -> None:
    try:
        import pyarrow as pa  # noqa: F401, PLC0415 - the extra is imported where it is needed
        import pyspark  # noqa: F401, PLC0415 - as above
    except ModuleNotFoundError as error:
        raise MissingExtraError.for_extra("spark", asked_by) from error


def _require_ansi(session: Any) -> None:
    """Without ANSI mode a sum that overflows is NULL, which would bill nothing without a word."""
    if all(
        kind.__name__ != "SparkSession" for kind in type(session).__mro__
    ):  # Classic and Connect have one each.
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_OBJECT, "session", "a SparkSession", session
        )
    if str(session.conf.get("spark.sql.ansi.enabled")).lower() != "true":
        expected = "a session with spark.sql.ansi.enabled, so that no sum overflows silently"
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_OBJECT, "session", expected, "false"
        )


class SparkColumns:
    """How Spark reads a table: :class:`~metering_core.sql.columns.SourceColumns`."""

    def __init__(self, kinds: Mapping[str, str]) -> None:
        self.kinds = kinds

    def integer(self, column: str, type: str) -> str:
        """Return an integer; NULL where 64 bits do not hold what must have them."""
        kind = self.kinds[column]
        if kind in WHOLE or (kind.startswith("decimal(") and kind.endswith(",0)")):
            return f"TRY_CAST({column} AS BIGINT)" if type == "BIGINT" else column
        raise column_refused(column, "integers", kind)

    def text(self, column: str, *, other: str | None = None) -> str:
        """Return a text; NULL where there is no such column."""
        kind = self.kinds.get(column, "void")
        if kind == "void":
            return "CAST(NULL AS STRING)"
        if kind == "string":
            return self.quoted(column)
        raise column_refused(column, "strings", kind)

    def moment(self, column: str, ticks: int) -> str:
        """Return so many ticks of a second since 1970, floored."""
        kind = self.kinds[column]
        if kind == "timestamp":
            return f"UNIX_SECONDS({column})" if ticks == 1 else f"UNIX_MICROS({column})"
        if kind in WHOLE:
            return f"TRY_MULTIPLY(CAST({column} AS BIGINT), {ticks})"
        raise column_refused(column, INSTANT_TYPES, kind)

    def value(self) -> tuple[str, str]:
        """Return the text of an event's value; a float is refused."""
        kind = self.kinds.get("value")
        if kind is None:
            return "CAST(NULL AS STRING)", "FALSE"
        if kind in (*WHOLE, "string", "void") or kind.startswith("decimal"):
            return "CAST(value AS STRING)", "FALSE"
        raise column_refused("value", "texts, integers or decimals", kind)

    def is_absent(self, column: str) -> str:
        """Return whether a row says nothing in a column."""
        return f"{column} IS NULL"

    def quoted(self, name: str) -> str:
        """Write a column's name for Spark."""
        return "`" + name.replace("`", "``") + "`"

    def literal(self, text: str) -> str:
        """Write a string for Spark."""
        return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"

"""Meter events that stay in files or on a cluster: judged and folded by one SQL text on DuckDB and on Spark.

Every formula is exact: values are counted in whole units of ``10**-decimal_places`` and added as ``DECIMAL(38, 0)``, which both
engines refuse to overflow. What that does not hold is refused by name, and so is what SQL cannot say: identifiers that are
forgotten after a time, because whether one counts then depends on the one before it.
"""

# ruff: noqa: S608 - what is put into SQL here are names and numbers of our own, and quoted literals

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from functools import cache
from importlib import resources
from re import findall
from typing import Any, Final
from uuid import uuid4

import attrs

from metering_core.acceptance import Outcome, Receipt
from metering_core.aggregators import Partial, formula_of
from metering_core.errors import CatalogError, ErrorCode, InvalidValueError, InvoicingError
from metering_core.exact import Number, exact_integer, whole_if_possible
from metering_core.meter_acceptance import (
    IdentifierScope,
    MeterPolicy,
    identifier_reused,
    meter_inactive,
    meter_unknown,
    read,
    time_refusal,
)
from metering_core.meter_events import MeterEvent
from metering_core.meter_log import MeterLog, content_of
from metering_core.meters import Formula, Meter
from metering_core.names import require_iterable
from metering_core.periods import BillingPeriod, Instant, from_unix_seconds, moment
from metering_core.readings import MICROSECONDS
from metering_core.sql.duckdb_engine import _connect
from metering_core.sql.engine import INSTANT_TYPES, column_missing, column_refused, ties_refused
from metering_core.sql.kernel import statement
from metering_core.sql.rules import Row
from metering_core.sql.sources import Source, _Stream, files_of, format_of, literal
from metering_core.sql.spark_engine import _require_spark, _source
from metering_core.subscriptions import Subscription, SubscriptionItem

REQUIRED: Final = ("event_name", "customer", "value", "timestamp")
_OPTIONAL: Final = ("identifier", "received_at", "seq")
_CHUNK: Final = 50_000
_DAY: Final = 86_400 * MICROSECONDS
_ENDLESS: Final = 2**60
_BEGINNING: Final = -62_135_596_800 * MICROSECONDS
"""The first moment of the year 1: where a look back begins."""
_EPOCH: Final = from_unix_seconds(0)

_RELATIONS: Final[Mapping[str, Mapping[str, str]]] = {
    "meters": {
        "event_name": "STRING",
        "meter": "BIGINT",
        "formula": "STRING",
        "is_active": "BOOLEAN",
        "places": "BIGINT",
        "window_length": "BIGINT",
    },
    "customers": {"customer": "STRING"},
    "rules": {
        "has_customers": "BOOLEAN",
        "significant_digits": "BIGINT",
        "is_positive": "BOOLEAN",
        "dimensions_max": "BIGINT",
        "backdate": "BIGINT",
        "tolerance": "BIGINT",
        "is_global": "BOOLEAN",
        "decimal_places": "BIGINT",
    },
    "requests": {
        "request": "BIGINT",
        "meter": "BIGINT",
        "customer": "STRING",
        "starts": "BIGINT",
        "ends": "BIGINT",
        "wants_area": "BOOLEAN",
        "wants_texts": "BOOLEAN",
    },
}
"""The input relations of the kernel beside ``events``, with the types of their columns."""


@cache
def events_kernel() -> tuple[str, str]:
    """Return the two statements that judge and fold meter events, as they are run.

    >>> print(events_kernel()[0].splitlines()[0])
    -- Judging meter events: which count, and why the others do not.
    """
    judging, folding = resources.files(__package__).joinpath("meter_events.sql").read_text("utf-8").split(";\n")
    return judging, folding.lstrip()


@attrs.frozen
class _Request:
    """What is asked of an engine; times in Unix microseconds, ``starts`` inclusive and ``ends`` exclusive."""

    meter: str
    customer: str
    starts: int
    ends: int


class SqlEvents:
    """Meter events that are judged and folded by SQL; itself a :class:`~metering_core.Usage`. Engines say how one is run.

    Answers are remembered: ask :meth:`partials` for everything once, and single questions cost nothing afterwards. There are no
    cancellations and no closed periods here.

    Attributes:
        policy: what is accepted.
    """

    _engine: str = "SQL"

    def __init__(
        self,
        meters: Iterable[Meter],
        subscriptions: Iterable[Subscription],
        customers: Iterable[str] | None,
        policy: MeterPolicy | None,
        decimal_places: int,
    ) -> None:
        known = None if customers is None else dict.fromkeys(require_iterable(customers, "customers"))
        # An empty log keeps the meters and the subscriptions, and refuses what it always refuses.
        self._book = MeterLog(meters, subscriptions, customers=known, policy=policy)
        self.policy: Final = self._book.policy
        self._customers = known
        self._places = exact_integer(decimal_places, "decimal_places", maximum=37)
        self._numbers = {meter.id: number for number, meter in enumerate(self._book.meters)}
        self._names = {meter.event_name: meter for meter in self._book.meters}
        self._answers: dict[_Request, Partial] = {}
        if self.policy.identifier_retention is not None:
            expected = f"None, because {self._engine} remembers every identifier for ever"
            received = self.policy.identifier_retention
            raise InvalidValueError.expecting(
                ErrorCode.PARAMETER_INVALID_OBJECT, "policy[identifier_retention]", expected, received
            )

    # What an engine says -----------------------------------------------------------------------------------------------

    def _define(self, name: str, rows: Iterable[Row]) -> None:
        raise NotImplementedError

    def _rows(self, text: str) -> Iterable[Any]:
        raise NotImplementedError

    # Loading ---------------------------------------------------------------------------------------------------------

    @property
    def _keys(self) -> list[str]:
        """The dimension keys of all meters."""
        return list(dict.fromkeys(key for meter in self._book.meters for key in meter.dimension_payload_keys))

    def _dimensions(self, columns: Iterable[str], quote: Callable[[str], str], name: Callable[[str], str]) -> dict[str, str]:
        """Return the expressions of ``dimensions``, ``series`` and ``dimension_count``."""
        there = [key for key in self._keys if key in set(columns)]

        def joined(keys: Iterable[str]) -> str:
            parts = [f"COALESCE(CONCAT(CAST(LENGTH({name(key)}) AS STRING), ':', {name(key)}), '-')" for key in keys]
            return f"CONCAT('', {', '.join(parts)})" if parts else "''"

        series = "".join(
            f" WHEN {quote(meter.event_name)} THEN {self._series(meter, there, joined, name)}"
            for meter in self._book.meters
            if meter.dimension_payload_keys
        )
        count = " + ".join(f"CASE WHEN {name(key)} IS NULL THEN 0 ELSE 1 END" for key in there) or "0"
        return {
            "dimensions": joined(there),
            "series": f"CASE event_name{series} ELSE '' END" if series else "''",
            "dimension_count": f"CAST({count} AS BIGINT)",
        }

    @staticmethod
    def _series(meter: Meter, there: Sequence[str], joined: Callable[[Iterable[str]], str], name: Callable[[str], str]) -> str:
        keys = meter.dimension_payload_keys
        if not set(keys) <= set(there):
            return "CAST(NULL AS STRING)"
        missing = " OR ".join(f"{name(key)} IS NULL" for key in keys)
        return f"CASE WHEN {missing} THEN NULL ELSE {joined(keys)} END"

    def _define_rules(self) -> None:
        policy = self.policy
        allowed = 0 if policy.whole_values else None
        self._define(
            "meters",
            [
                (
                    meter.event_name,
                    self._numbers[meter.id],
                    meter.formula.value,
                    meter.is_active,
                    meter.decimal_places if allowed is None else allowed,
                    0 if meter.event_time_window is None else meter.event_time_window.seconds * MICROSECONDS,
                )
                for meter in self._book.meters
            ],
        )
        self._define("customers", [(customer,) for customer in self._customers or ()])
        back, ahead = policy.backdate_days, policy.future_tolerance
        self._define(
            "rules",
            [
                (
                    self._customers is not None,
                    policy.significant_digits,
                    policy.positive_values,
                    policy.dimensions_max,
                    None if back is None else min(back * _DAY, _ENDLESS),
                    None if ahead is None else min(ahead // timedelta(microseconds=1), _ENDLESS),
                    policy.identifier_scope is IdentifierScope.GLOBAL,
                    self._places,
                )
            ],
        )

    def _check(self) -> None:
        """Refuse a place in the order that two events claim, an event without a moment, and a value that units do not hold."""
        for (seq,) in self._rows("SELECT MIN(seq) FROM (SELECT seq FROM events GROUP BY seq HAVING COUNT(*) > 1) AS ties"):
            if seq is not None:
                raise ties_refused(int(seq))
        bounds = f"{_BEGINNING} AND {253_402_300_799 * MICROSECONDS + 999_999}"
        for column, expected in (("timestamp", "an instant within the years 1 to 9999"), ("event_name", "a string")):
            wrong = f"timestamp IS NULL OR received IS NULL OR NOT timestamp BETWEEN {bounds} OR NOT received BETWEEN {bounds}"
            condition = wrong if column == "timestamp" else "event_name IS NULL"
            self._refuse_first(f"SELECT MIN(seq) FROM events WHERE {condition}", column, expected)
        condition = "verdict IS NULL AND units IS NULL AND formula NOT IN ('count', 'unique_count')"
        expected = (
            f"a value of at most {self._places} decimal places and 38 digits in all, which is what {self._engine} adds exactly"
        )
        self._refuse_first(f"SELECT MIN(seq) FROM judged WHERE {condition}", "value", expected)

    def _refuse_first(self, text: str, column: str, expected: str) -> None:
        for (seq,) in self._rows(text):
            if seq is not None:
                code = ErrorCode.PARAMETER_INVALID_DECIMAL if column == "value" else ErrorCode.PARAMETER_INVALID_OBJECT
                message = f"{column}, row {seq}: expected {expected}, received another"
                raise InvalidValueError(code, message, param=column, details={"expected": expected, "seq": int(seq)})

    # Questions -------------------------------------------------------------------------------------------------------

    def meter(self, meter_id: str) -> Meter:
        """Return a meter; ``meter_unknown`` where there is none."""
        return self._book.known_meter(meter_id)

    def meter_of(self, item: SubscriptionItem) -> Meter:
        """Return the meter that an item's price names; refusals as :meth:`~metering_core.MeterLog.meter_of`."""
        return self._book.meter_of(item)

    def partial(self, item: SubscriptionItem, period: BillingPeriod) -> Partial:
        """Return the partial of what a bill of the period counts; see :class:`~metering_core.Usage`.

        Raises:
            InvoicingError: ``price_not_metered``, ``subscription_item_unknown``, or ``quantity_out_of_range`` where 38 digits
                do not hold what the formula adds up.
        """
        return self.partials([(item, period)])[0]

    def partials(self, requests: Iterable[tuple[SubscriptionItem, BillingPeriod]]) -> list[Partial]:
        """Return the partials of many items at once, in the order asked; one run over the events for all that are new.

        The partial of ``last`` tells events of one moment apart by their ``seq``, where a log has the number it gave them.
        """
        asked = []
        for item, period in requests:
            meter, customer = self.meter_of(item), self._book.customer_of(item)
            asked.append(_Request(meter.id, customer, period.start_seconds * MICROSECONDS, period.end_seconds * MICROSECONDS))
        new = [one for one in dict.fromkeys(asked) if one not in self._answers]
        if new:
            self._answers.update(zip(new, self._ask(new), strict=True))
        return [self._answers[one] for one in asked]

    def _ask(self, requests: Sequence[_Request]) -> list[Partial]:
        """Ask for what lies within each request and, where the formula looks back, for what lies before it."""
        rows: list[Row] = []
        for number, one in enumerate(requests):
            meter = self.meter(one.meter)
            kind = meter.formula is Formula.WEIGHTED_SUM, meter.formula is Formula.UNIQUE_COUNT
            rows.append((2 * number, self._numbers[one.meter], one.customer, one.starts, one.ends, *kind))
            if formula_of(meter).looks_back:
                beginning = _BEGINNING
                rows.append((2 * number + 1, self._numbers[one.meter], one.customer, beginning, one.starts, False, False))
        self._define("requests", rows)
        found: dict[int, list[Sequence[Any]]] = {}
        for request, *values in self._rows(events_kernel()[1]):
            found.setdefault(int(request), []).append(values)
        answers = []
        for number, one in enumerate(requests):
            meter = self.meter(one.meter)
            within, before = (self._partial(meter, found.get(at, ()), one.starts) for at in (2 * number, 2 * number + 1))
            answers.append(formula_of(meter).over(within, before, one.starts, one.ends))
        return answers

    def _partial(self, meter: Meter, rows: Sequence[Sequence[Any]], starts: int) -> Partial:
        """Return what the formula works on, in Python's own numbers."""
        if not rows:
            return formula_of(meter).identity
        if meter.formula is Formula.UNIQUE_COUNT:
            return frozenset(row[0] for row in rows)
        ((_, events, total, greatest, least, last_timestamp, last_seq, last_units, area),) = rows
        match meter.formula:
            case Formula.SUM:
                return self._number(total)
            case Formula.COUNT:
                return int(events)
            case Formula.MAX:
                return self._number(greatest)
            case Formula.MIN:
                return self._number(least)
            case Formula.AVERAGE:
                return self._number(total), int(events)
            case Formula.LAST:
                return (int(last_timestamp), int(last_seq)), self._number(last_units)
        return self._number(total), self._number(int(total) * starts + int(area or 0)), None

    def _number(self, units: object) -> Number:
        value = int(units)  # type: ignore[call-overload]  # an int or a Decimal of the engine
        return whole_if_possible(Decimal(f"{value}e-{self._places}"))

    # Receipts --------------------------------------------------------------------------------------------------------

    def receipts(self) -> dict[int, Receipt]:
        """Return the receipts of the rows that were refused or were duplicates, by ``seq``, in the order of arrival.

        They are those that a :class:`~metering_core.MeterLog` gives; a row that is not among them was accepted. ``seq`` is the
        value of that column, or where the source has none the number of the row, from 1.
        """
        exceptional = list(self._rows("SELECT seq, first_seq, verdict FROM judged WHERE verdict IS NOT NULL ORDER BY seq"))
        is_repeated = {"duplicate", "identifier_reused"}
        wanted = "SELECT seq FROM judged WHERE verdict IS NOT NULL UNION SELECT first_seq FROM judged WHERE verdict IS NOT NULL"
        columns = ", ".join(("seq", "event_name", "customer", "value", "timestamp", "received", "identifier", *self._there))
        sent = {int(row[0]): row for row in self._rows(f"SELECT {columns} FROM sent WHERE seq IN ({wanted})")}
        has_duplicates = any(row[2] == "duplicate" for row in exceptional)
        numbers = {int(seq): int(number) for seq, number in self._rows(statement("numbering"))} if has_duplicates else {}
        found = {}
        for seq, first, verdict in exceptional:
            event, received = self._event(sent[int(seq)])
            if verdict in is_repeated:
                receipt = self._identity(event, self._event(sent[int(first)])[0], numbers.get(int(first), 0))
            else:
                receipt = self._refusal(event, received)
            said = receipt.outcome.value if receipt.outcome is Outcome.DUPLICATE else receipt.code
            assert said == verdict, f"{self._engine} said {verdict!r} of row {seq}, the rules say {said!r}"
            found[int(seq)] = receipt
        return found

    _there: Sequence[str] = ()
    """The columns of dimensions, as SQL names them."""

    def _event(self, row: Sequence[Any]) -> tuple[MeterEvent, int]:
        """Return the event that a row stands for, and when it was received in Unix microseconds."""
        _, event_name, customer, value, timestamp, received, identifier, *dimensions = row
        meter = self._names.get(event_name)
        keys = ("stripe_customer_id", "value") if meter is None else (meter.customer_payload_key, meter.value_payload_key)
        given = dict(zip((*keys, *self._dimension_keys), (customer, value, *dimensions), strict=True))
        payload = {key: text for key, text in given.items() if text is not None}
        at = _EPOCH + timedelta(microseconds=int(timestamp))
        return MeterEvent(event_name, payload, identifier=identifier, timestamp=at), int(received)

    _dimension_keys: Sequence[str] = ()

    def _refusal(self, event: MeterEvent, received: int) -> Receipt:
        meter = self._names.get(event.event_name)
        if meter is None:
            return meter_unknown(event.event_name)
        if not meter.is_active:
            return meter_inactive(meter)
        said = read(meter, event.payload, self.policy, self._customers)
        assert event.microseconds is not None, "a row has a timestamp"
        refusal = said if isinstance(said, Receipt) else time_refusal(event.microseconds, received, self.policy)
        assert refusal is not None, f"{self._engine} refused an event, the rules accept it: {event}"
        return refusal

    @staticmethod
    def _identity(event: MeterEvent, first: MeterEvent, number: int) -> Receipt:
        content, kept = content_of(event), content_of(first)
        if content == kept:
            return Receipt(Outcome.DUPLICATE, number, details={"row": number - 1})
        return identifier_reused(event.identifier or "", kept, content)

    def _out_of_range(self, cause: Exception) -> InvoicingError:
        message = (
            f"value: expected sums and weights of at most 38 digits, which is what {self._engine} adds exactly, "
            f"received more ({str(cause).splitlines()[0][:200]})"
        )
        return InvoicingError(ErrorCode.QUANTITY_OUT_OF_RANGE, message, param="value")


def _quoted(column: str) -> str:
    return '"' + column.replace('"', '""') + '"'


class DuckDBEvents(SqlEvents):
    """Meter events in files and streams, judged and folded by DuckDB; itself a :class:`~metering_core.Usage`.

    Columns are ``event_name``, ``customer``, ``value`` (text, integers or decimals), ``timestamp`` and optionally
    ``identifier``, ``received_at``, ``seq`` and the dimension keys of the meters. Arrival order is ``seq``, or the order of the
    rows; of several files, by name first. An event counts as received when it happened unless ``received_at`` or ``now`` says
    otherwise. Other columns are not read. The source is copied into DuckDB's own storage once. Needs the extra ``duckdb``.

    Args:
        source: a path or a glob of Parquet, CSV or JSON lines, a list of them, or an object with ``__arrow_c_stream__``.
        meters: what to measure.
        subscriptions: whose items to bill, with a ``customer`` each.
        customers: the customers whose events are accepted; any customer unless given.
        policy: what is accepted; it must not forget identifiers.
        now: the moment of receipt of every row, instead of a column.
        decimal_places: values may have so many, and with them 38 digits in all.

    Raises:
        MissingExtraError: without DuckDB.
        CatalogError: ``file_unreadable``.
        InvalidValueError: for a column of a type that is not exact (floats) or no instant, for the first malformed row, for a
            value that the decimal places do not hold, for a policy with an ``identifier_retention``.
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
    ) -> None:
        super().__init__(meters, subscriptions, customers, policy, decimal_places)
        self._connection = _connect(None, None)
        self._running(lambda: self._load(source))
        self._define_events(None if now is None else moment(now, "now")[1])
        self._define_rules()
        self._connection.execute(f"CREATE TEMP TABLE judged AS {events_kernel()[0]}")
        self._connection.execute("CREATE TEMP VIEW accepted AS SELECT * FROM judged WHERE verdict IS NULL")
        self._check()

    def close(self) -> None:
        """Give back the memory; nothing can be asked afterwards but what is remembered."""
        self._connection.close()

    def _load(self, source: Source) -> None:
        """Copy what is read of the source, with the order of arrival."""
        reader, is_json = self._reader(source)
        known = (*REQUIRED, *_OPTIONAL, *self._keys)
        columns = [row[0] for row in self._connection.execute(f"DESCRIBE SELECT * FROM {reader}").fetchall()]
        if is_json:
            columns = [
                row[0] for row in self._connection.execute(f"SELECT DISTINCT unnest(json_keys(json)) FROM {reader}").fetchall()
            ]
        for column in REQUIRED:
            if column not in columns and (columns or not is_json):
                raise column_missing(column)
        read = [column for column in known if column in (columns or REQUIRED)]
        fields = [f"json -> {literal('$.' + _quoted(one))} AS {_quoted(one)}" if is_json else _quoted(one) for one in read]
        order = [] if "seq" in columns else ["row_number() OVER () AS seq"]
        self._connection.execute(f"CREATE TEMP TABLE source AS SELECT {', '.join([*fields, *order])} FROM {reader}")

    def _reader(self, source: Source) -> tuple[str, bool]:
        files = files_of(self._connection, source)
        if files is None:
            if not hasattr(source, "__arrow_c_stream__"):
                expected = "a path, a glob, a list of them, or an object with __arrow_c_stream__"
                raise InvalidValueError.expecting(ErrorCode.PARAMETER_INVALID_OBJECT, "source", expected, source)
            self._connection.from_arrow(_Stream(source)).create_view("stream")
            return "stream", False
        listed = "[" + ", ".join(map(literal, files)) + "]"
        kind = format_of(files)
        if kind == "jsonl":
            return f"read_json_objects({listed}, format = 'newline_delimited')", True
        if kind == "parquet":
            return f"read_parquet({listed}, union_by_name = true)", False
        options = "header = true, all_varchar = true, delim = ',', quote = '\"', escape = '\"', null_padding = false"
        return f"read_csv({listed}, {options}, strict_mode = true, union_by_name = true)", False

    def _define_events(self, now: int | None) -> None:
        kinds = {row[0]: row[1] for row in self._connection.execute("DESCRIBE source").fetchall()}
        if now is not None and "received_at" in kinds:
            message = "You may only specify one of these parameters: now, received_at."
            raise InvalidValueError(ErrorCode.PARAMETERS_EXCLUSIVE, message, param="now")
        timestamp = _moment("timestamp", kinds["timestamp"])
        received = timestamp if now is None else f"CAST({now} AS BIGINT)"
        if "received_at" in kinds:
            received = f"COALESCE({_moment('received_at', kinds['received_at'])}, {timestamp})"
        keys = [key for key in self._keys if key in kinds]
        fields = {
            "seq": "CAST(seq AS BIGINT)",
            **{key: _text(key, kinds) for key in ("event_name", "customer", "identifier")},
            "value": _value_text(kinds["value"]),
            "timestamp": timestamp,
            "received": received,
            **{_quoted(f"dimension {key}"): _text(key, kinds) for key in keys},
        }
        selected = ", ".join(f"{expression} AS {name}" for name, expression in fields.items())
        self._connection.execute(f"CREATE TEMP TABLE sent AS SELECT {selected} FROM source")
        self._dimension_keys, self._there = keys, [_quoted(f"dimension {key}") for key in keys]
        dimensions = self._dimensions(keys, literal, lambda key: _quoted(f"dimension {key}"))
        more = ", ".join(f"{expression} AS {name}" for name, expression in dimensions.items())
        self._connection.execute(f"CREATE TEMP VIEW events AS SELECT *, {more} FROM sent")

    def _rows(self, text: str) -> Iterator[tuple[Any, ...]]:
        result = self._running(lambda: self._connection.execute(text))
        rows: list[tuple[Any, ...]] = self._running(result.fetchall)
        return iter(rows)

    def _running(self, run: Callable[[], Any]) -> Any:  # noqa: ANN401 - whatever it returns
        """Raise DuckDB's complaints as our own where they are about the events."""
        import duckdb  # noqa: PLC0415 - the extra is imported where it is needed

        try:
            return run()
        except duckdb.OutOfRangeException as error:
            raise self._out_of_range(error) from None
        except (duckdb.IOException, duckdb.InvalidInputException, duckdb.ConversionException) as error:
            message = f"events: cannot be read: {str(error).splitlines()[0]}"
            raise CatalogError(ErrorCode.FILE_UNREADABLE, message) from error

    def _define(self, name: str, rows: Iterable[Row]) -> None:
        columns = {column: kind.replace("STRING", "VARCHAR") for column, kind in _RELATIONS[name].items()}
        declared = ", ".join(f"{column} {kind}" for column, kind in columns.items())
        self._connection.execute(f"CREATE OR REPLACE TEMP TABLE {name} ({declared})")
        listed = [dict(zip(columns, row, strict=True)) for row in rows]
        for at in range(0, len(listed), _CHUNK):
            inserted = f"INSERT INTO {name} SELECT unnest(from_json(?, '{json.dumps([columns])}'), recursive := true)"
            self._connection.execute(inserted, [json.dumps(listed[at : at + _CHUNK])])


_WHOLE: Final = {
    "TINYINT",
    "SMALLINT",
    "INTEGER",
    "BIGINT",
    "HUGEINT",
    "UTINYINT",
    "USMALLINT",
    "UINTEGER",
    "UBIGINT",
    "UHUGEINT",
}
_ISO: Final = r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?(Z|[+-]\d{2}(:?\d{2})?)"


def _moment(column: str, kind: str) -> str:
    """Return the expression of Unix microseconds; NULL where a text says no instant."""
    if kind == "TIMESTAMP WITH TIME ZONE":
        return f"epoch_us({column})"
    if kind in _WHOLE:
        return f"TRY_CAST({column} AS BIGINT) * 1000000"
    if kind in {"VARCHAR", "JSON"}:
        text = f"({column} ->> '$')" if kind == "JSON" else column
        return (
            f"CASE WHEN regexp_full_match({text}, '-?[0-9]{{1,12}}') THEN TRY_CAST({text} AS BIGINT) * 1000000 "
            f"WHEN regexp_full_match({text}, '{_ISO}') THEN epoch_us(TRY_CAST({text} AS TIMESTAMPTZ)) END"
        )
    raise column_refused(column, INSTANT_TYPES, kind)


def _text(column: str, kinds: Mapping[str, str]) -> str:
    kind = kinds.get(column, '"NULL"')
    name = _quoted(column)
    if kind == '"NULL"':
        return "CAST(NULL AS VARCHAR)"
    if kind == "JSON":
        return f"({name} ->> '$')"
    if kind == "VARCHAR" or kind.startswith("ENUM"):
        return f"CAST({name} AS VARCHAR)"
    raise column_refused(column, "strings", kind)


def _value_text(kind: str) -> str:
    if kind == "JSON":
        # A JSON number with a point was a float before it came here.
        refused = "error('value: expected texts or integers, received a float')"
        return f"CASE WHEN json_type(value) = 'DOUBLE' THEN {refused} ELSE value ->> '$' END"
    if kind in _WHOLE or kind.startswith(("DECIMAL", "VARCHAR", "ENUM")):
        return "CAST(value AS VARCHAR)"
    if kind == '"NULL"':
        return "CAST(NULL AS VARCHAR)"
    raise column_refused("value", "texts, integers or decimals", kind)


class SparkEvents(SqlEvents):
    """Meter events in a table of a cluster, judged and folded by Spark where they lie; itself a :class:`~metering_core.Usage`.

    Columns are ``event_name``, ``customer``, ``value`` (text, integers or decimals), ``timestamp``, ``seq`` (the order of
    arrival: rows of a cluster have none of their own) and optionally ``identifier``, ``received_at`` and the dimension keys of
    the meters. An event counts as received when it happened unless ``received_at`` or ``now`` says otherwise. Other columns are
    not read. Needs the extra ``spark`` (Spark 4, ANSI mode).

    Args:
        session: a ``SparkSession``, classic or Connect; it stays the caller's.
        table_or_path: the name of a table, a path of Parquet (anything with a ``/``), or a ``DataFrame``.
        meters: what to measure.
        subscriptions: whose items to bill, with a ``customer`` each.
        customers: the customers whose events are accepted; any customer unless given.
        policy: what is accepted; it must not forget identifiers.
        now: the moment of receipt of every row, instead of a column.
        decimal_places: values may have so many, and with them 38 digits in all.

    Raises:
        MissingExtraError: without pyspark.
        InvalidValueError: as :class:`DuckDBEvents`, and where ANSI mode is off.
    """

    _engine = "Spark"

    def __init__(
        self,
        session: Any,  # noqa: ANN401 - pyspark is imported lazily
        table_or_path: Any,  # noqa: ANN401 - as above
        meters: Iterable[Meter],
        subscriptions: Iterable[Subscription] = (),
        *,
        customers: Iterable[str] | None = None,
        policy: MeterPolicy | None = None,
        now: Instant | None = None,
        decimal_places: int = 12,
    ) -> None:
        _require_spark()
        super().__init__(meters, subscriptions, customers, policy, decimal_places)
        _require_ansi(session)
        self._session = session
        self._views = f"metering_core_{uuid4().hex}"
        self._defined: list[str] = []
        self._define_events(_source(session, table_or_path), None if now is None else moment(now, "now")[1])
        self._define_rules()
        # Judged once, kept by the cluster without its plan: planning a question anew through all conditions takes minutes.
        self._judged = self._running(lambda: self._frame(events_kernel()[0]).localCheckpoint())
        self._name("judged", self._judged)
        self._name("accepted", self._judged.where("verdict IS NULL"))
        self._check()

    def close(self) -> None:
        """Give back what the cluster keeps; nothing can be asked afterwards but what is remembered."""
        self._judged.unpersist()
        for view in self._defined:
            self._session.catalog.dropTempView(view)
        self._defined = []

    def _define_events(self, source: Any, now: int | None) -> None:  # noqa: ANN401 - as above
        kinds = dict(source.dtypes)
        for column in (*REQUIRED, "seq"):
            if column not in kinds:
                raise column_missing(column)
        if now is not None and "received_at" in kinds:
            message = "You may only specify one of these parameters: now, received_at."
            raise InvalidValueError(ErrorCode.PARAMETERS_EXCLUSIVE, message, param="now")
        timestamp = _spark_moment("timestamp", kinds)
        received = timestamp if now is None else f"CAST({now} AS BIGINT)"
        if "received_at" in kinds:
            received = f"COALESCE({_spark_moment('received_at', kinds)}, {timestamp})"
        keys = [key for key in self._keys if key in kinds]
        sent = source.selectExpr(
            "CAST(seq AS BIGINT) AS seq",
            *(f"{_spark_text(column, kinds)} AS {column}" for column in ("event_name", "customer", "identifier")),
            f"{_spark_value(kinds)} AS value",
            f"{timestamp} AS timestamp",
            f"{received} AS received",
            *(f"{_spark_text(key, kinds)} AS {_ticked(f'dimension {key}')}" for key in keys),
        )
        self._dimension_keys, self._there = keys, [_ticked(f"dimension {key}") for key in keys]
        self._name("sent", sent)
        dimensions = self._dimensions(keys, _spark_literal, lambda key: _ticked(f"dimension {key}"))
        self._name("events", sent.selectExpr("*", *(f"{expression} AS {name}" for name, expression in dimensions.items())))

    def _name(self, relation: str, frame: Any) -> None:  # noqa: ANN401 - as above
        """Give a relation of the kernel a view of our own in the caller's session."""
        view = f"{self._views}_{relation}"
        frame.createOrReplaceTempView(view)
        if view not in self._defined:
            self._defined.append(view)

    def _define(self, name: str, rows: Iterable[Row]) -> None:
        import pyarrow as pa  # noqa: PLC0415 - the extra is imported where it is needed

        # As an Arrow table: a list would be unpacked by Python on the cluster, which it may not have.
        columns = _RELATIONS[name]
        types = {"STRING": pa.string(), "BIGINT": pa.int64(), "BOOLEAN": pa.bool_()}
        values = list(zip(*rows, strict=True)) or [()] * len(columns)
        arrays = [pa.array(one, types[kind]) for one, kind in zip(values, columns.values(), strict=True)]
        declared = ", ".join(f"{column} {kind}" for column, kind in columns.items())
        self._name(name, self._session.createDataFrame(pa.table(arrays, list(columns)), declared))

    def _frame(self, text: str) -> Any:  # noqa: ANN401 - as above
        """Run a statement of the kernel as it is, with the names of its input relations bound in front of it."""
        relations = {view.removeprefix(f"{self._views}_"): view for view in self._defined}
        words = set(findall(r"\w+", text))  # What is bound is planned, so no more than may be read.
        bound = ",\n".join(f"{name} AS (SELECT * FROM {view})" for name, view in relations.items() if name in words)
        body = "\n".join(line for line in text.splitlines() if not line.startswith("--"))
        return self._session.sql(f"WITH {bound},\n{body[5:]}" if body.startswith("WITH\n") else f"WITH {bound}\n{body}")

    def _rows(self, text: str) -> list[Any]:
        collected: list[Any] = self._running(lambda: self._frame(text).collect())
        return collected

    def _running(self, run: Callable[[], Any]) -> Any:  # noqa: ANN401 - whatever it returns
        """Raise the overflow of ANSI mode as our own error."""
        from pyspark.errors import ArithmeticException  # noqa: PLC0415 - the extra is imported where it is needed

        try:
            return run()
        except ArithmeticException as error:
            raise self._out_of_range(error) from None


def _require_ansi(session: Any) -> None:  # noqa: ANN401 - as above
    """Without ANSI mode a sum that overflows is NULL, which would bill nothing without a word."""
    if str(session.conf.get("spark.sql.ansi.enabled")).lower() != "true":
        expected = "a session with spark.sql.ansi.enabled, so that no sum overflows silently"
        raise InvalidValueError.expecting(ErrorCode.PARAMETER_INVALID_OBJECT, "session", expected, "false")


def _ticked(column: str) -> str:
    return "`" + column.replace("`", "``") + "`"


def _spark_literal(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


_SPARK_WHOLE: Final = ("tinyint", "smallint", "int", "bigint")


def _spark_moment(column: str, kinds: Mapping[str, str]) -> str:
    if kinds[column] == "timestamp":
        return f"UNIX_MICROS({column})"
    if kinds[column] in _SPARK_WHOLE:
        return f"CAST({column} AS BIGINT) * 1000000"
    raise column_refused(column, INSTANT_TYPES, kinds[column])


def _spark_text(column: str, kinds: Mapping[str, str]) -> str:
    kind = kinds.get(column, "void")
    if kind == "void":
        return "CAST(NULL AS STRING)"
    if kind == "string":
        return _ticked(column)
    raise column_refused(column, "strings", kind)


def _spark_value(kinds: Mapping[str, str]) -> str:
    kind = kinds["value"]
    if kind in (*_SPARK_WHOLE, "string", "void") or kind.startswith("decimal"):
        return "CAST(value AS STRING)"
    raise column_refused("value", "texts, integers or decimals", kind)

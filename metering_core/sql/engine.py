"""What every SQL engine does the same way: ask once, remember the answers, and turn rows into partials and receipts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final, NoReturn, Protocol

from metering_core.acceptance import AcceptancePolicy, Receipt, item_unknown
from metering_core.accounts import Closing
from metering_core.aggregation import required_mode
from metering_core.aggregators import AGGREGATORS, Partial
from metering_core.errors import ErrorCode, InvalidValueError, InvoicingError
from metering_core.names import refuse_slips
from metering_core.periods import BillingPeriod
from metering_core.prices import AggregateUsage
from metering_core.sql.kernel import statement
from metering_core.sql.rules import COLUMNS, Judged, Request, Row, Rules, Span
from metering_core.subscriptions import Subscription, SubscriptionItem

JUDGED_COLUMNS: Final = (
    *("seq", "subscription_item", "quantity", "timestamp", "is_set", "id", "received"),
    *("first_seq", "first_quantity", "first_timestamp", "first_is_set", "verdict"),
)
"""What is read back of a record that was refused or was a duplicate."""

EXPECTED: Final = {
    "subscription_item": "a string of 1 to 255 characters",
    "quantity": "an integer of at least 0, of at most 38 digits",
    "timestamp": "an instant within the years 1 to 9999",
    "action": "'increment' or 'set'",
    "id": "nothing, or a string of 1 to 255 characters",
    "received_at": "an instant within the years 1 to 9999",
}
"""The columns of usage in the order of their checks, with what is expected of a value."""

SUM_MAX: Final = 10**38 - 1
"""The greatest number of ``DECIMAL(38, 0)``."""

INSTANT_TYPES: Final = "integers (Unix seconds) or timestamps with a time zone"


class Tables(Protocol):
    """Where an engine keeps the relations that the kernel's statements read, and runs these."""

    def define(self, name: str, columns: Mapping[str, str], rows: Iterable[Row]) -> None:
        """Give the statements the rows of one of their input relations; ``columns`` are names and types."""

    def rows(self, text: str) -> Iterable[Any]:
        """Run a statement and return its rows."""


class SqlUsage:
    """Usage that is judged and folded by SQL; itself a :class:`~metering_core.Usage`. Engines say how a statement is run.

    Answers are remembered: ask :meth:`partials` for everything once, and single questions cost nothing afterwards.

    Attributes:
        rules: subscriptions, policy and closed periods.
    """

    _tables: Tables

    def __init__(
        self,
        subscriptions: Iterable[Subscription],
        policy: AcceptancePolicy | None,
        closed: Mapping[str, Iterable[Closing]] | None,
    ) -> None:
        self.rules: Final = Rules(subscriptions, policy, closed)
        self._answers: dict[Request, Partial] = {}
        self._non_empty: set[Request] = set()
        self._used: dict[str, Span] = {}
        self._received: dict[str, Span] = {}

    # What the kernel says ----------------------------------------------------------------------------------------------

    def _define(self, name: str, rows: Iterable[Row]) -> None:
        self._tables.define(name, COLUMNS[name], rows)

    def _define_rules(self) -> None:
        """Give the judging what it reads beside the usage, once that is inspected."""
        self._define("items", self.rules.item_rows())
        self._define("standings", self.rules.standing_rows(self._received))
        self._define("closings", self.rules.closing_rows())

    def _folded(self, requests: Sequence[Request]) -> Iterable[tuple[Any, Any, Any]]:
        """Run the folding and return request, timestamp, quantity."""
        self._define("requests", self.rules.request_rows(requests))
        return self._tables.rows(statement("folding"))

    def _exceptional(self) -> Iterable[Sequence[Any]]:
        """Return the judged records with a verdict, in the order of arrival; columns as :data:`JUDGED_COLUMNS`."""
        columns = ", ".join(JUDGED_COLUMNS)
        return self._tables.rows(f"SELECT {columns} FROM judged WHERE verdict IS NOT NULL ORDER BY seq")  # noqa: S608 - a constant

    def _numbered(self) -> Iterable[tuple[Any, Any]]:
        """Run the numbering and return seq, sequence."""
        return self._tables.rows(statement("numbering"))

    # What is asked ---------------------------------------------------------------------------------------------------

    def partial(self, item: SubscriptionItem, period: BillingPeriod) -> Partial:
        """Return the partial of the item's aggregator in the period; see :class:`~metering_core.Usage`.

        Raises:
            InvoicingError: ``subscription_item_unknown``, ``price_not_metered``, or ``quantity_out_of_range`` where a sum has
                more than 38 digits.
        """
        (partial,) = self.partials([(item, period)])
        return partial

    def partials(self, requests: Iterable[tuple[SubscriptionItem, BillingPeriod]]) -> list[Partial]:
        """Return the partials of many items at once, in the order asked; one run over the usage for all that are new."""
        asked = [self._request(item, period) for item, period in requests]
        self._remember(asked)
        return [self._answers[request] for request in asked]

    def _remember(self, requests: Iterable[Request]) -> None:
        new = dict.fromkeys(request for request in requests if request not in self._answers)
        # An item without a row has nothing to be run for.
        self._answers.update({request: AGGREGATORS[request[1]].identity for request in new if request[0] not in self._used})
        if asked := [request for request in new if request[0] in self._used]:
            self._answers.update(self._ask(asked))

    def _request(self, item: SubscriptionItem, period: BillingPeriod) -> Request:
        if item.id not in self.rules.items:
            message = item_unknown(item.id).message or ""
            raise InvoicingError(ErrorCode.SUBSCRIPTION_ITEM_UNKNOWN, message, param="subscription_item")
        return item.id, required_mode(item), period.start_seconds, period.end_seconds

    def _ask(self, requests: Sequence[Request]) -> dict[Request, Partial]:
        answers = {request: AGGREGATORS[request[1]].identity for request in requests}
        for number, timestamp, quantity in self._folded(requests):
            request = requests[int(number)]
            answers[request] = _partial(request[1], timestamp, quantity)
            self._non_empty.add(request)
        return answers

    def receipts(self) -> dict[int, Receipt]:
        """Return the receipts of the rows that were refused or were duplicates, by ``seq``, in the order of arrival.

        They are those that a :class:`~metering_core.UsageLog` gives; a row that is not among them was accepted. ``seq`` is the
        value of that column, or where the source has none the number of the row, from 1.
        """
        exceptional = [_judged(row) for row in self._exceptional()]
        has_duplicates = any(judged.verdict == "duplicate" for judged in exceptional)
        sequences = {int(seq): int(sequence) for seq, sequence in self._numbered()} if has_duplicates else {}
        return {judged.seq: self.rules.receipt(judged, sequences) for judged in exceptional}

    def periods_with_usage(self) -> dict[str, tuple[BillingPeriod, ...]]:
        """Return the billing periods that bill accepted records, in order, by the id of their subscription.

        The partials of all of them are remembered on the way: what is billed next costs no further run.
        """
        candidates = [
            (subscription, period, self._request(item, period), _probe(self._request(item, period)))
            for subscription, item, period in self.rules.candidates(self._used, self._received)
        ]
        self._remember([request for one in candidates for request in one[2:]])
        found: dict[str, dict[int, BillingPeriod]] = {}
        for subscription, period, _, probe in candidates:
            if probe in self._non_empty:
                found.setdefault(subscription.id, {})[period.start_seconds] = period
        order = (key for key in self.rules.accounts if key in found)
        return {key: tuple(found[key][start] for start in sorted(found[key])) for key in order}

    # Inspection ------------------------------------------------------------------------------------------------------

    def _inspect(self) -> None:
        """Keep the bounds of each item's usage, or refuse the first malformed row by name."""
        worst: tuple[int, int] | None = None
        for item_id, *bounds_and_faults in self._tables.rows(statement("inspecting")):
            first, last, first_received, last_received, *faults = bounds_and_faults
            found = [(int(seq), column) for column, seq in enumerate(faults) if seq is not None]
            if found:
                worst = min([*found, *([] if worst is None else [worst])])
            elif item_id in self.rules.items:
                self._used[item_id] = int(first), int(last)
                self._received[item_id] = int(first_received), int(last_received)
        if worst is not None:
            seq, number = worst
            column = list(EXPECTED)[number]
            refuse_value(self._tables, _CODES[column], column, EXPECTED[column], seq)


_CODES: Final = {
    "subscription_item": ErrorCode.PARAMETER_INVALID_STRING,
    "quantity": ErrorCode.PARAMETER_INVALID_INTEGER,
    "timestamp": ErrorCode.PARAMETER_INVALID_INSTANT,
    "action": ErrorCode.PARAMETER_INVALID_CHOICE,
    "id": ErrorCode.PARAMETER_INVALID_STRING,
    "received_at": ErrorCode.PARAMETER_INVALID_INSTANT,
}


def _partial(mode: AggregateUsage, timestamp: object, quantity: object) -> Partial:
    """Return what the mode's aggregator works on, in Python's own ints."""
    value = int(quantity)  # type: ignore[call-overload]  # an int or a Decimal of the engine
    if value > SUM_MAX:  # DuckDB before 2.0 goes on to 2**127 - 1 and refuses only then.
        raise out_of_range(f"the {mode.value} is {value}")
    if mode in {AggregateUsage.SUM, AggregateUsage.MAX}:
        return value
    return int(timestamp), value  # type: ignore[call-overload]  # as above


def _probe(request: Request) -> Request:
    """Return the request that tells whether the period itself has usage, where the mode looks back to earlier ones."""
    item_id, mode, start, end = request
    return item_id, AggregateUsage.LAST_DURING_PERIOD if AGGREGATORS[mode].looks_back else mode, start, end


def _judged(row: Sequence[Any]) -> Judged:
    """Return a judged row, the numbers of the engine as Python's own ints."""
    values = dict(zip(JUDGED_COLUMNS, row, strict=True))
    for column in ("seq", "quantity", "timestamp", "received", "first_seq", "first_quantity", "first_timestamp"):
        values[column] = None if values[column] is None else int(values[column])
    return Judged(**values)


def require_order(tables: Tables, relation: str, seq: str) -> None:
    """Refuse a row without a place in the order of arrival, and two rows that claim the same one.

    What is NULL compares with nothing: such a row would be neither billed nor refused. ``seq`` reads a place from ``source``.
    """
    claims = f"SELECT seq FROM {relation} GROUP BY seq HAVING seq IS NULL OR COUNT(*) > 1"  # noqa: S608 - a name
    for (place,) in tables.rows(f"{claims} ORDER BY seq NULLS FIRST LIMIT 1"):
        if place is None:
            ((value,),) = tables.rows(f"SELECT MIN(seq) FROM source WHERE ({seq}) IS NULL")  # noqa: S608 - an expression of ours
            expected = "an integer of at most 64 bits in each row, because it is the order of arrival"
            raise InvalidValueError.expecting(ErrorCode.PARAMETER_INVALID_INTEGER, "seq", expected, value)
        expected = "a different value in each row, because it is the order of arrival"
        raise InvalidValueError.expecting(ErrorCode.PARAMETER_INVALID_OBJECT, "seq", expected, int(place))


def refuse_value(tables: Tables, code: ErrorCode, column: str, expected: str, seq: int) -> NoReturn:
    """Refuse the value that a row of ``source`` has in a column."""
    ((value,),) = tables.rows(f"SELECT {column} FROM source WHERE CAST(seq AS BIGINT) = {seq}")  # noqa: S608 - a name and a number
    refused = InvalidValueError.expecting(code, f"{column}, row {seq}", expected, value)
    raise InvalidValueError(code, refused.message, param=column, details={**refused.details, "seq": seq})


def column_refused(column: str, expected: str, received: str) -> InvalidValueError:
    """Say that a column is not of a type that can be read exactly."""
    message = f"{column}: expected a column of {expected}, received {received}"
    details = {"expected": expected, "received": received}
    return InvalidValueError(ErrorCode.PARAMETER_INVALID_OBJECT, message, param=column, details=details)


def require_columns(
    columns: Collection[str], required: Collection[str], optional: Collection[str], now: int | None, read: str = "usage"
) -> None:
    """Refuse misspelt columns, say which one the source lacks, and refuse two words on when its rows were received.

    ``read`` is what the source is called in a refusal.
    """
    refuse_slips(columns, (*required, *optional), read)
    for column in required:
        if column not in columns:
            message = f"{read}: the column {column!r} is missing"
            raise InvalidValueError(ErrorCode.PARAMETER_MISSING, message, param=column)
    if now is not None and "received_at" in columns:
        raise InvalidValueError.exclusive("now", "received_at")


def received(
    columns: Collection[str], now: int | None, moment_of: Callable[[str], str], is_absent: str = "received_at IS NULL"
) -> str:
    """Return the expression of when a row was received: what it says, ``now``, or when it happened.

    A row that says nothing was received when it happened; one that says what is no moment has none, and is refused.
    """
    if "received_at" in columns:
        return f"CASE WHEN {is_absent} THEN {moment_of('timestamp')} ELSE {moment_of('received_at')} END"
    return moment_of("timestamp") if now is None else f"CAST({now} AS BIGINT)"


def out_of_range(cause: Exception | str) -> InvoicingError:
    """Say that a sum has more digits than an SQL engine adds exactly."""
    message = (
        "quantity: expected sums of at most 38 digits, which is what DECIMAL(38, 0) adds exactly, received more "
        f"({str(cause).splitlines()[0][:200]})"
    )
    return InvoicingError(ErrorCode.QUANTITY_OUT_OF_RANGE, message, param="quantity")

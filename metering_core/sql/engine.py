"""What every SQL engine does the same way: ask once, remember the answers, and turn rows into
partials and receipts.
"""

# ruff: noqa: S608 - what is put into SQL here are names and numbers of our own

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from metering_core.acceptance import AcceptancePolicy, LateAttribution, Receipt, item_unknown
from metering_core.accounts import Closing, refuse_untold
from metering_core.aggregation import as_requests, required_mode
from metering_core.errors import CatalogError, ErrorCode, InvalidValueError, InvoicingError
from metering_core.feeds.files import usage_row
from metering_core.feeds.instants import FROM_2000, PlausibleTime
from metering_core.measures import AGGREGATORS, Folded, Partial, require_sql
from metering_core.names import name, refuse_slips, require_kind
from metering_core.periods import BillingPeriod
from metering_core.prices import AggregateUsage
from metering_core.sql.kernel import statement
from metering_core.sql.loading import Origin
from metering_core.sql.refusing import SqlRows, Tables
from metering_core.sql.rules import COLUMNS, Judged, Request, Row, Rules, Span
from metering_core.subscriptions import Subscription, SubscriptionItem

if TYPE_CHECKING:
    from metering_core.invoicing import Invoice

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


class SqlUsage(SqlRows):
    """Usage that is judged and folded by SQL; itself a :class:`~metering_core.Usage`. Engines say
    how a statement is run.

    Answers are remembered: ask :meth:`partials` for everything once, and single questions cost
    nothing afterwards.

    Attributes:
        rules: subscriptions, policy and closed periods.
    """

    _time: PlausibleTime = FROM_2000

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

    @property
    def text_files(self) -> Sequence[str]:
        """Return the paths of files of text, in the order in which they were read; none for another
        source.
        """
        return self._origin.reader.files if self._origin.is_text else ()

    # What the kernel says -------------------------------------------------------------------------

    def _define(self, name: str, rows: Iterable[Row]) -> None:
        self._tables.define(name, COLUMNS[name], rows)

    def _define_rules(self) -> None:
        """Give the judging what it reads beside the usage, once that is inspected."""
        self._define("items", self.rules.item_rows())
        self._define(
            "standings", self.rules.standing_rows(self._spans("usage", "received", self._received))
        )
        self._define("closings", self.rules.closing_rows())

    def _spans(
        self, relation: str, moment: str, bounds: Mapping[str, Span]
    ) -> dict[str, list[Span]]:
        """Return by item where its moments lie: between its bounds, or where those are far apart,
        around those it has.
        """
        if all(last - first <= _WIDE for first, last in bounds.values()):
            return {item_id: [span] for item_id, span in bounds.items()}
        found: dict[str, list[Span]] = {}
        for item_id, first, last in self._tables.rows(
            _CLUSTERS.format(relation=relation, moment=moment)
        ):
            if item_id in bounds:
                found.setdefault(item_id, []).append(
                    (int(first) * _DAY, (int(last) + 1) * _DAY - 1)
                )
        return found

    def _folded(self, requests: Sequence[Request]) -> Iterable[Sequence[Any]]:
        """Run the folding and return request, bucket, cells, total, greatest, least, timestamp."""
        self._define("requests", self.rules.request_rows(requests))
        return self._tables.rows(statement("folding"))

    def _exceptional(self) -> Iterable[Sequence[Any]]:
        """Return the judged records with a verdict, in the order of arrival; columns as
        :data:`JUDGED_COLUMNS`.
        """
        columns = ", ".join(JUDGED_COLUMNS)
        return self._tables.rows(
            f"SELECT {columns} FROM judged WHERE verdict IS NOT NULL ORDER BY seq"
        )

    def _numbered(self) -> Iterable[tuple[Any, Any]]:
        """Run the numbering and return seq, sequence."""
        return self._tables.rows(statement("numbering"))

    # What is asked --------------------------------------------------------------------------------

    def partial(self, item: SubscriptionItem, period: BillingPeriod) -> Partial:
        """Return the partial of the item's aggregator in the period; see
        :class:`~metering_core.Usage`.

        Raises:
            InvoicingError: ``subscription_item_unknown``, ``price_not_metered``, or
                ``quantity_out_of_range`` where a sum has more than 38 digits.
        """
        (partial,) = self.partials([(item, period)])
        return partial

    def partials(self, requests: Iterable[tuple[SubscriptionItem, BillingPeriod]]) -> list[Partial]:
        """Return the partials of many items at once, in the order asked; one run over the usage for
        all that are new.
        """
        asked = [self._request(item, period) for item, period in as_requests(requests)]
        self._remember(asked)
        return [self._answers[request] for request in asked]

    def _remember(self, requests: Iterable[Request]) -> None:
        new = dict.fromkeys(request for request in requests if request not in self._answers)
        # An item without a row has nothing to be run for.
        self._answers.update(
            {
                request: AGGREGATORS[request[1]].identity
                for request in new
                if request[0] not in self._used
            }
        )
        if asked := [request for request in new if request[0] in self._used]:
            self._answers.update(self._ask(asked))

    def _request(self, item: SubscriptionItem, period: BillingPeriod) -> Request:
        if item.id not in self.rules.items:
            message = item_unknown(item.id).message or ""
            raise InvoicingError(
                ErrorCode.SUBSCRIPTION_ITEM_UNKNOWN, message, param="subscription_item"
            )
        mode = required_mode(item)
        require_sql(mode, "SQL")
        return item.id, mode, period.start_seconds, period.end_seconds

    def _ask(self, requests: Sequence[Request]) -> dict[Request, Partial]:
        answers = {request: AGGREGATORS[request[1]].identity for request in requests}
        for number, *numbers in self._folded(requests):
            request = requests[int(number)]
            row = AGGREGATORS[request[1]]
            answers[request] = row.merge(answers[request], _partial(request[1], numbers))
            self._non_empty.add(request)
        return answers

    def receipts(self) -> dict[int, Receipt]:
        """Return the receipts of the rows that were refused or were duplicates, by ``seq``, in the
        order of arrival.

        They are those that a :class:`~metering_core.UsageLog` gives; a row that is not among them
        was accepted, or is malformed and was skipped. ``seq`` is the value of that column, or where
        the source has none the number of the row, from 1.
        """
        exceptional = [_judged(row) for row in self._exceptional()]
        has_duplicates = any(judged.verdict == "duplicate" for judged in exceptional)
        sequences = (
            {int(seq): int(sequence) for seq, sequence in self._numbered()}
            if has_duplicates
            else {}
        )
        try:
            return {judged.seq: self.rules.receipt(judged, sequences) for judged in exceptional}
        except AssertionError as error:
            if self._origin.reader.kind != "parquet":
                raise
            # What is read in place is believed anew by each statement: where damage hit a file's
            # own account of its rows, one that skips what it need not read sees others than one
            # that does not.
            path = self._origin.reader.files[0]
            reason = f"cannot be read: it is damaged, or was written while it was read ({error})"
            raise CatalogError.of_file("source", path, reason) from error

    def _read_columns(self) -> Sequence[str]:
        return list(EXPECTED)

    def _fault(self, column: str, fields: Mapping[str, Any]) -> InvalidValueError:
        """Return what the readers of the other engines say of a row, or what SQL cannot hold
        although they take it.
        """
        try:
            usage_row("", 1, fields, time=self._time)
        except InvalidValueError as error:
            return error
        return InvalidValueError.expecting(
            _CODES[column], column, EXPECTED[column], fields.get(column)
        )

    def stored_invoice(self, subscription_id: str, period: BillingPeriod) -> Invoice | None:
        """Return the invoice of a period that was finalized before, as ``closed`` has it; None
        where it was not.
        """
        known = name(subscription_id, "subscription")
        require_kind(BillingPeriod, period, "period")
        closing = (
            self.rules.accounts[known].finalized(period) if known in self.rules.accounts else None
        )
        return None if closing is None else closing.invoice

    def require_told(self, subscription: Subscription, period: BillingPeriod) -> None:
        """Refuse to finalize another version of a subscription than was given.

        Raises:
            InvalidValueError: as :meth:`~metering_core.UsageLog.require_told`.
        """
        require_kind(Subscription, subscription, "subscription")
        require_kind(BillingPeriod, period, "period")
        refuse_untold(self.rules.accounts, subscription, lambda item: item.recurring.meter is None)

    def periods_with_usage(self) -> dict[str, tuple[BillingPeriod, ...]]:
        """Return the billing periods that bill accepted records, in order, by the id of their
        subscription.

        The partials of all of them are remembered on the way: what is billed next costs no further
        run.
        """
        used = self._spans("accepted", "billed_at", self._used_bounds())
        candidates = [
            (subscription, period, self._request(item, period), _probe(self._request(item, period)))
            for subscription, item, period in self.rules.candidates(used)
        ]
        self._remember([request for one in candidates for request in one[2:]])
        found: dict[str, dict[int, BillingPeriod]] = {}
        for subscription, period, _, probe in candidates:
            if probe in self._non_empty:
                found.setdefault(subscription.id, {})[period.start_seconds] = period
        order = (key for key in self.rules.accounts if key in found)
        return {key: tuple(found[key][start] for start in sorted(found[key])) for key in order}

    def _used_bounds(self) -> dict[str, Span]:
        """Return the bounds of what is billed: late usage may be billed in the period in which it
        was received.
        """
        if self.rules.policy.late_attribution is not LateAttribution.OPEN_PERIOD:
            return self._used
        both = ((item_id, (span, self._received[item_id])) for item_id, span in self._used.items())
        return {
            item_id: (min(one[0] for one in spans), max(one[1] for one in spans))
            for item_id, spans in both
        }

    # Inspection -----------------------------------------------------------------------------------

    def _inspect(self, origin: Origin, *, skip_malformed: bool) -> None:
        """Keep the bounds of each item's usage; refuse the first malformed row by name, or count
        such rows.
        """
        self._origin = origin
        count, firsts = 0, []
        for item_id, malformed, first_malformed, usable, *bounds in self._tables.rows(
            statement("inspecting")
        ):
            if malformed:
                count += int(malformed)
                firsts.append(int(first_malformed))
            if usable and item_id in self.rules.items:
                first, last, first_received, last_received = map(int, bounds)
                self._used[item_id], self._received[item_id] = (
                    (first, last),
                    (first_received, last_received),
                )
        self._sift(count, firsts, skip=skip_malformed)


_DAY: Final = 86_400
_WIDE: Final = 62 * _DAY
"""Within so many seconds each period is looked at. Beyond, only those near a row: a sender may say
anything of time.
"""

_CLUSTERS: Final = """WITH
days AS (
  SELECT DISTINCT subscription_item, CAST(FLOOR({moment} / 86400) AS BIGINT) AS day FROM {relation}
),
beside AS (
  SELECT subscription_item, day,
    LAG(day) OVER (PARTITION BY subscription_item ORDER BY day) AS before
  FROM days
),
clustered AS (
  SELECT
    subscription_item, day,
    SUM(CASE WHEN day - before <= 31 THEN 0 ELSE 1 END)
      OVER (PARTITION BY subscription_item ORDER BY day) AS cluster
  FROM beside
)
SELECT subscription_item, MIN(day) AS first_day, MAX(day) AS last_day
FROM clustered
GROUP BY subscription_item, cluster
"""
"""Days with a row of an item, those at most a month apart together."""

_CODES: Final = {
    "subscription_item": ErrorCode.PARAMETER_INVALID_STRING,
    "quantity": ErrorCode.PARAMETER_INVALID_INTEGER,
    "timestamp": ErrorCode.PARAMETER_INVALID_INSTANT,
    "action": ErrorCode.PARAMETER_INVALID_CHOICE,
    "id": ErrorCode.PARAMETER_INVALID_STRING,
    "received_at": ErrorCode.PARAMETER_INVALID_INSTANT,
}


def _partial(mode: AggregateUsage, numbers: Sequence[Any]) -> Partial:
    """Return what the mode's aggregator works on, of what the folding says, in Python's own
    ints.
    """
    bucket, *others = numbers
    count, total, greatest, least, timestamp = (0 if one is None else int(one) for one in others)
    for value in (total, greatest):
        if value > SUM_MAX:  # DuckDB before 2.0 goes on to 2**127 - 1 and refuses only then.
            raise out_of_range(f"a sum for {mode.value!r} is {value}")
    row = AGGREGATORS[mode]
    peaks = () if bucket is None else ((int(bucket) // row.window_seconds, greatest),)
    return row.of_folded(
        Folded(frozenset(), count, total, greatest, least, (timestamp, greatest), 0, peaks)
    )


def _probe(request: Request) -> Request:
    """Return the request that tells whether the period itself has usage, where the mode looks back
    to earlier ones.
    """
    item_id, mode, start, end = request
    return (
        item_id,
        AggregateUsage.LAST_DURING_PERIOD if AGGREGATORS[mode].looks_back else mode,
        start,
        end,
    )


def _judged(row: Sequence[Any]) -> Judged:
    """Return a judged row, the numbers of the engine as Python's own ints."""
    values = dict(zip(JUDGED_COLUMNS, row, strict=True))
    for column in (
        "seq",
        "quantity",
        "timestamp",
        "received",
        "first_seq",
        "first_quantity",
        "first_timestamp",
    ):
        values[column] = None if values[column] is None else int(values[column])
    return Judged(**values)


def require_order(tables: Tables, relation: str, seq: str) -> None:
    """Refuse a row without a place in the order of arrival, and two rows that claim the same one.

    What is NULL compares with nothing: such a row would be neither billed nor refused. ``seq``
    reads a place from ``source``.
    """
    claims = f"SELECT seq FROM {relation} GROUP BY seq HAVING seq IS NULL OR COUNT(*) > 1"
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
    read: str = "usage",
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


def received(
    columns: Collection[str],
    now: int | None,
    moment_of: Callable[[str], str],
    is_absent: str = "received_at IS NULL",
) -> str:
    """Return the expression of when a row was received: what it says, ``now``, or when it happened.

    A row that says nothing was received when it happened; one that says what is no moment has none,
    and is refused.
    """
    if "received_at" in columns:
        return (
            f"CASE WHEN {is_absent} THEN {moment_of('timestamp')} ELSE "
            f"{moment_of('received_at')} END"
        )
    return moment_of("timestamp") if now is None else f"CAST({now} AS BIGINT)"


def plausible(
    fields: Iterable[str], time: PlausibleTime, now: int | None, unit: int = 1
) -> list[str]:
    """Return what selects fields once more: a moment that ``time`` does not hold becomes NULL,
    which is malformed.

    ``unit`` is how many of what the moments count make a second. What ``now`` says is the caller's
    word, not the file's.
    """
    first, last = time.first * unit, (time.last + 1) * unit - 1
    said = {"timestamp", "said"} if now is not None else {"timestamp", "said", "received"}
    return [
        f"CASE WHEN {one} BETWEEN {first} AND {last} THEN {one} END AS {one}"
        if one in said
        else one
        for one in fields
    ]


def out_of_range(cause: Exception | str) -> InvoicingError:
    """Say that a sum has more digits than an SQL engine adds exactly."""
    message = (
        "quantity: expected sums of at most 38 digits, which is what DECIMAL(38, 0) adds "
        "exactly, received more "
        f"({str(cause).splitlines()[0][:200]})"
    )
    return InvoicingError(ErrorCode.QUANTITY_OUT_OF_RANGE, message, param="quantity")

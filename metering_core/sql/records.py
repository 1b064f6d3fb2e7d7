"""Usage records in SQL: which columns are read, what judges them, and what a log says of those that
were not taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

from metering_core.acceptance import AcceptancePolicy, LateAttribution, Receipt
from metering_core.accounts import unknown_item
from metering_core.aggregation import required_mode
from metering_core.book import Book
from metering_core.errors import CatalogError, ErrorCode, InvalidValueError, InvoicingError
from metering_core.exact import Number
from metering_core.feeds.files import usage_row
from metering_core.feeds.instants import PlausibleTime
from metering_core.measures import require_sql, row_of
from metering_core.periods import BillingPeriod, Instant
from metering_core.sql.columns import SourceColumns
from metering_core.sql.engine import Asked, SqlUsage
from metering_core.sql.rules import COLUMNS, Judged, Rules, Span
from metering_core.sql.texts import statement
from metering_core.subscriptions import SubscriptionItem

JUDGED_COLUMNS: Final = (
    *("seq", "subscription_item", "quantity", "timestamp", "is_set", "id", "received"),
    *("first_seq", "first_quantity", "first_timestamp", "first_is_set", "verdict"),
)
"""What is read back of a record that was refused or was a duplicate."""

_INTEGERS: Final = {
    *("seq", "quantity", "timestamp", "received"),
    *("first_seq", "first_quantity", "first_timestamp"),
}

EXPECTED: Final = {
    "subscription_item": "a string of 1 to 255 characters",
    "quantity": "an integer of at least 0, of at most 38 digits",
    "timestamp": "an instant within the years 1 to 9999",
    "action": "'increment' or 'set'",
    "id": "nothing, or a string of 1 to 255 characters",
    "received_at": "an instant within the years 1 to 9999",
}
"""The columns of usage in the order of their checks, with what is expected of a value."""

_CODES: Final = {
    "subscription_item": ErrorCode.PARAMETER_INVALID_STRING,
    "quantity": ErrorCode.PARAMETER_INVALID_INTEGER,
    "timestamp": ErrorCode.PARAMETER_INVALID_INSTANT,
    "action": ErrorCode.PARAMETER_INVALID_CHOICE,
    "id": ErrorCode.PARAMETER_INVALID_STRING,
    "received_at": ErrorCode.PARAMETER_INVALID_INSTANT,
}


class SqlRecords(SqlUsage):
    """Usage records that are judged and folded by SQL.

    Attributes:
        rules: subscriptions, policy and closed periods.
    """

    _called = "usage"
    _ticks = 1
    _relations: ClassVar[Mapping[str, Mapping[str, str]]] = COLUMNS
    _sifting, _judging, _entries = "sifting", "judging", "entries"
    _is_judged_again = True

    def __init__(
        self,
        book: Book,
        policy: AcceptancePolicy | None,
        now: Instant | None,
        time: PlausibleTime | None,
        *,
        skip_malformed: bool,
    ) -> None:
        self.rules: Final = Rules(book, policy)
        super().__init__(book, now, time, skip_malformed=skip_malformed)
        self._ids = list(book.items)  # By their numbers.
        self._happened: dict[str, Span] = {}
        self._received: dict[str, Span] = {}

    @property
    def text_files(self) -> Sequence[str]:
        """Return the paths of files of text, in the order in which they were read; none for another
        source.
        """
        return self._origin.reader.files if self._origin.is_text else ()

    # What is read and judged ----------------------------------------------------------------------

    @property
    def _required(self) -> Sequence[str]:
        return "subscription_item", "quantity", "timestamp"

    @property
    def _optional(self) -> Sequence[str]:
        return "action", "id", "received_at", "seq"

    def _fields(self, columns: SourceColumns) -> dict[str, str]:
        action = columns.text("action", other="")
        is_set = (
            f"CASE WHEN {action} = 'set' THEN TRUE "
            f"WHEN {action} = 'increment' OR {action} IS NULL THEN FALSE END"
        )
        return {
            "subscription_item": columns.text("subscription_item", other=""),
            "quantity": columns.integer("quantity", "DECIMAL(38, 0)"),
            "is_set": is_set if "action" in columns.kinds else "FALSE",
            "id": columns.text("id", other=""),
        }

    def _inspect(self) -> None:
        """Keep the bounds of each item's usage; refuse the first malformed row by name, or count
        such rows.
        """
        count, firsts = 0, []
        for item_id, malformed, first_malformed, usable, *bounds in self._tables.rows(
            statement("inspecting")
        ):
            if malformed:
                count += int(malformed)
                firsts.append(int(first_malformed))
            if usable and item_id in self.rules.items:
                first, last, first_received, last_received = map(int, bounds)
                self._happened[item_id] = first, last
                self._received[item_id] = first_received, last_received
        self._sift(count, firsts)

    def _define_rules(self) -> None:
        received = self._spans("usage", "subscription_item", "received", self._received)
        self._define("items", self.rules.item_rows())
        self._define("standings", self.rules.standing_rows(received))
        self._define("closings", self.rules.closing_rows())

    # What is asked --------------------------------------------------------------------------------

    def _asked(self, item: SubscriptionItem, period: BillingPeriod) -> Asked:
        if item.id not in self.rules.items:
            raise unknown_item(item.id)
        mode = required_mode(item)
        require_sql(mode, "SQL")
        number, row = self.rules.items[item.id].code, row_of(mode, "SQL")
        return Asked(number, row, period.start_seconds, period.end_seconds)

    def _has_none(self, asked: Asked) -> bool:
        return self._ids[asked.series] not in self._happened

    def _number(self, amount: int) -> Number:
        return amount

    def _stamp(self, timestamp: int, seq: int) -> int:
        return timestamp

    def _out_of_range(self, cause: object) -> InvoicingError:
        message = (
            "quantity: expected sums of at most 38 digits, which is what DECIMAL(38, 0) adds "
            f"exactly, received more ({str(cause).splitlines()[0][:200]})"
        )
        return InvoicingError(ErrorCode.QUANTITY_OUT_OF_RANGE, message, param="quantity")

    def _used(self) -> Mapping[str, Sequence[Span]]:
        """Return where what is billed lies: late usage may be billed in the period in which it was
        received.
        """
        bounds = {
            self.rules.items[item_id].code: span
            for item_id, span in self._happened.items()
            if self.rules.items[item_id].item.recurring.aggregate_usage is not None
        }
        if self.rules.policy.late_attribution is LateAttribution.OPEN_PERIOD:
            for number, (first, last) in bounds.items():
                received = self._received[self._ids[number]]
                bounds[number] = min(first, received[0]), max(last, received[1])
        found = self._spans("entries", "series", "billed_at", bounds)
        return {self._ids[number]: spans for number, spans in found.items()}

    # What was not taken ---------------------------------------------------------------------------

    def receipts(self) -> dict[int, Receipt]:
        """Return the receipts of the rows that were refused or were duplicates, by ``seq``, in the
        order of arrival.

        They are those that a :class:`~metering_core.UsageLog` gives; a row that is not among them
        was accepted, or is malformed and was skipped. ``seq`` is the value of that column, or where
        the source has none the number of the row, from 1.
        """
        exceptional = [_judged(row) for row in self._exceptional(JUDGED_COLUMNS)]
        sequences = self._numbered(judged.verdict for judged in exceptional)
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


def _judged(row: Sequence[Any]) -> Judged:
    """Return a judged row, the numbers of the engine as Python's own ints."""
    values: dict[str, Any] = {
        column: int(value) if column in _INTEGERS and value is not None else value
        for column, value in zip(JUDGED_COLUMNS, row, strict=True)
    }
    return Judged(**values)

"""Meter events in SQL: which columns are read, what judges them, and what a log says of those that
were not taken.

Every formula is exact: values are counted in whole units of ``10**-decimal_places`` and added as
``DECIMAL(38, 0)``, which both engines refuse to overflow. What that does not hold is refused by
name, and so is what SQL cannot say: identifiers that are forgotten after a time, because whether
one counts then depends on the one before it.
"""

# ruff: noqa: S608 - what is put into SQL here are names and numbers of our own, and quoted literals

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any, ClassVar, Final

import attrs

from metering_core.acceptance import Outcome, Receipt
from metering_core.accounts import Closing
from metering_core.book import Book
from metering_core.errors import ErrorCode, InvalidValueError, InvoicingError
from metering_core.exact import Number, exact_integer, whole_if_possible
from metering_core.feeds.instants import PlausibleTime
from metering_core.measures import formula_of, require_sql
from metering_core.meter_acceptance import (
    IdentifierScope,
    LateUsage,
    MeterPolicy,
    event_not_found,
    identifier_reused,
    late_cancellation,
    meter_inactive,
    meter_unknown,
    read,
    time_refusal,
)
from metering_core.meter_events import MeterEvent, MeterEventAdjustment
from metering_core.meter_log import content_of
from metering_core.meters import Meter
from metering_core.names import folded, require_iterable, require_kind, required
from metering_core.periods import (
    MICROSECONDS,
    SECONDS_MAX,
    SECONDS_MIN,
    BillingPeriod,
    Instant,
    from_unix_seconds,
    instant,
    moment,
    unix_seconds,
)
from metering_core.sql.columns import SourceColumns
from metering_core.sql.engine import Asked, SqlUsage
from metering_core.sql.rules import Row, Span, united
from metering_core.subscriptions import Subscription, SubscriptionItem

_DAY: Final = 86_400 * MICROSECONDS
_ENDLESS: Final = 2**60
_EPOCH: Final = from_unix_seconds(0)
_COLUMNS: Final = ("event_name", "customer", "value", "timestamp")
_MORE_COLUMNS: Final = ("identifier", "received_at", "seq")
_SENT: Final = (
    *("seq", "event_name", "customer", "value"),
    *("timestamp", "received", "identifier"),
)
"""What is read back of an event that was refused or was a duplicate, beside its dimensions."""

_RELATIONS: Final[Mapping[str, Mapping[str, str]]] = {
    "meters": {
        "event_name": "STRING",
        "meter": "BIGINT",
        "formula": "STRING",
        "is_active": "BOOLEAN",
        "places": "BIGINT",
        "window_length": "BIGINT",
    },
    "billed": {"meter": "BIGINT", "customer": "STRING", "series": "BIGINT"},
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
    "cancellations": {"number": "BIGINT", "event_name": "STRING", "identifier": "STRING"},
    "canceled": {"seq": "BIGINT"},
    "lives": {"meter": "BIGINT", "customer": "STRING", "starts": "BIGINT", "ends": "BIGINT"},
}
"""The input relations of the statements beside the events, with the types of their columns."""


@attrs.frozen
class EventsWithoutItem:
    """Accepted events of a meter and a customer that no subscription item bills.

    Attributes:
        meter: the meter's id.
        customer: the customer that the events name.
        events: how many there are.
        first: the ``seq`` of the first of them.
        meant: the customer of a subscription whose id differs in case and blanks only, or None.
    """

    meter: str
    customer: str
    events: int
    first: int
    meant: str | None


def _meant(customer: str, billed: Iterable[str]) -> str | None:
    return next(
        (one for one in billed if one != customer and folded(one) == folded(customer)), None
    )


_BOUNDS: Final = "SELECT series, MIN(billed_at), MAX(billed_at) FROM entries GROUP BY series"

_CANCELED: Final = """
SELECT cancellations.number, judged.seq, usage.received
FROM cancellations
JOIN usage
  ON usage.event_name = cancellations.event_name AND usage.identifier = cancellations.identifier
JOIN judged
  ON judged.seq = usage.seq
WHERE judged.verdict IS NULL
"""
"""The accepted event that each cancellation names, and when it was received."""


def _joined(fields: Iterable[str]) -> str:
    """Return texts as one text that no others give: each with its length in front."""
    parts = [f"COALESCE(CONCAT(CAST(LENGTH({one}) AS STRING), ':', {one}), '-')" for one in fields]
    return f"CONCAT('', {', '.join(parts)})" if parts else "''"


class SqlEvents(SqlUsage):
    """Meter events that are judged and folded by SQL.

    Attributes:
        policy: what is accepted.
    """

    _called = "events"
    _ticks = MICROSECONDS
    _relations: ClassVar[Mapping[str, Mapping[str, str]]] = _RELATIONS
    _sifting, _judging, _entries = "event_sifting", "event_judging", "event_entries"
    _engine: ClassVar[str]

    def __init__(
        self,
        meters: Iterable[Meter],
        subscriptions: Iterable[Subscription],
        customers: Iterable[str] | None,
        policy: MeterPolicy | None,
        closed: Mapping[str, Iterable[Closing]] | None,
        canceled: Iterable[MeterEventAdjustment],
        decimal_places: int,
        now: Instant | None,
        time: PlausibleTime | None,
        *,
        skip_malformed: bool,
    ) -> None:
        if policy is not None:
            require_kind(MeterPolicy, policy, "policy")
        self.policy: Final = MeterPolicy() if policy is None else policy
        book = Book(
            subscriptions,
            meters=require_iterable(meters, "meters"),
            customers=customers,
            overlap=self.policy.overlap,
        )
        super().__init__(book.with_closed(closed), now, time, skip_malformed=skip_malformed)
        self._canceled = [
            require_kind(MeterEventAdjustment, one, "canceled", "MeterEventAdjustments")
            for one in require_iterable(canceled, "canceled")
        ]
        self._places = exact_integer(decimal_places, "decimal_places", maximum=37)
        self._numbers = {meter.id: number for number, meter in enumerate(self.book.meters.values())}
        self._names = {meter.event_name: meter for meter in self.book.meters.values()}
        self._series: dict[tuple[str, str], int] = {}
        for item, customer in self._items():
            self._series.setdefault((item.recurring.meter or "", customer), len(self._series))
        self._refuse_policy()
        self._refuse_dimensions()

    def _items(self) -> Iterator[tuple[SubscriptionItem, str]]:
        """Yield the items that meters bill, with their customers."""
        for subscription in self.book.subscriptions:
            for item in subscription.items:
                if item.recurring.meter is not None and subscription.customer is not None:
                    yield item, subscription.customer

    def _refuse_policy(self) -> None:
        """Refuse what SQL cannot say of a policy, and why."""
        retention, late = self.policy.identifier_retention, self.policy.late_usage
        if retention is not None:
            expected = f"None, because {self._engine} remembers every identifier for ever"
            raise InvalidValueError.expecting(
                ErrorCode.PARAMETER_INVALID_OBJECT,
                "policy[identifier_retention]",
                expected,
                retention,
            )
        if late is LateUsage.CARRY_FORWARD:
            expected = (
                f"'ignore', because {self._engine} knows the invoices of closed periods, and not "
                "which events each of them counted"
            )
            raise InvalidValueError.expecting(
                ErrorCode.PARAMETER_INVALID_CHOICE, "policy[late_usage]", expected, late.value
            )

    def _refuse_dimensions(self) -> None:
        """Refuse keys that name the same column as something else: SQL tells no case of letters
        apart.
        """
        columns = {column: f"the column {column!r}" for column in (*_COLUMNS, *_MORE_COLUMNS)}
        for key in self._keys:
            other = columns.setdefault(key.casefold(), f"the dimension {key!r}")
            if other != f"the dimension {key!r}":
                expected = f"keys that {self._engine} can tell from {other}"
                code = ErrorCode.PARAMETER_INVALID_CHOICE
                raise InvalidValueError.expecting(
                    code, "meters[dimension_payload_keys]", expected, key
                )

    # What is read and judged ----------------------------------------------------------------------

    @property
    def _required(self) -> Sequence[str]:
        """The columns that the source must have: who only counts needs no values."""
        counts = all(formula_of(meter).takes == "nothing" for meter in self.book.meters.values())
        return [column for column in _COLUMNS if not (counts and column == "value")]

    @property
    def _optional(self) -> Sequence[str]:
        known = dict.fromkeys((*_COLUMNS, *_MORE_COLUMNS, *self._keys))
        return [column for column in known if column not in self._required]

    @property
    def _keys(self) -> list[str]:
        """The dimension keys of all meters."""
        return list(
            dict.fromkeys(
                key for meter in self.book.meters.values() for key in meter.dimension_payload_keys
            )
        )

    def _fields(self, columns: SourceColumns) -> dict[str, str]:
        value, is_inexact = columns.value()
        self._there = {
            key: columns.quoted(f"dimension {key}") for key in self._keys if key in columns.kinds
        }
        return {
            **{key: columns.text(key) for key in ("event_name", "customer", "identifier")},
            "value": value,
            "is_inexact": is_inexact,
            **{field: columns.text(key) for key, field in self._there.items()},
        }

    def _derived(self, columns: SourceColumns) -> dict[str, str]:
        """Return the dimensions as one text, those that a meter has, and how many there are."""
        there = self._there.values()
        cases = "".join(
            f" WHEN {columns.literal(meter.event_name)} THEN {self._dimensions_of(meter)}"
            for meter in self.book.meters.values()
            if meter.dimension_payload_keys
        )
        count = " + ".join(f"CASE WHEN {one} IS NULL THEN 0 ELSE 1 END" for one in there)
        return {
            "all_dimensions": _joined(there),
            "dimensions": f"CASE event_name{cases} ELSE '' END" if cases else "''",
            "dimension_count": f"CAST({count or 0} AS BIGINT)",
        }

    def _dimensions_of(self, meter: Meter) -> str:
        keys = meter.dimension_payload_keys
        if not self._there.keys() >= set(keys):
            return "CAST(NULL AS STRING)"
        fields = [self._there[key] for key in keys]
        missing = " OR ".join(f"{one} IS NULL" for one in fields)
        return f"CASE WHEN {missing} THEN NULL ELSE {_joined(fields)} END"

    def _inspect(self) -> None:
        """Refuse the first malformed event by name, or count them."""
        first = "MIN(CASE WHEN fault IS NOT NULL THEN seq END)"
        ((malformed, seq),) = self._tables.rows(f"SELECT COUNT(fault), {first} FROM sifted")
        self._sift(int(malformed), [] if seq is None else [int(seq)])

    def _define_rules(self) -> None:
        customers = self.book.customers
        self._define("meters", map(self._meter_row, self.book.meters.values()))
        self._define("customers", ((customer,) for customer in customers or ()))
        self._define("rules", [self._policy_row()])
        self._define("canceled", ())
        self._define(
            "billed",
            (
                (self._numbers[meter], customer, number)
                for (meter, customer), number in self._series.items()
            ),
        )

    def _meter_row(self, meter: Meter) -> Row:
        window = meter.event_time_window
        return (
            meter.event_name,
            self._numbers[meter.id],
            meter.formula.value,
            meter.is_active,
            0 if self.policy.whole_values else meter.decimal_places,
            0 if window is None else window.seconds * MICROSECONDS,
        )

    def _policy_row(self) -> Row:
        policy = self.policy
        back, ahead = policy.backdate_days, policy.future_tolerance
        return (
            self.book.customers is not None,
            policy.significant_digits,
            policy.positive_values,
            policy.dimensions_max,
            None if back is None else min(back * _DAY, _ENDLESS),
            None if ahead is None else min(ahead // timedelta(microseconds=1), _ENDLESS),
            policy.identifier_scope is IdentifierScope.GLOBAL,
            self._places,
        )

    def _look_through(self) -> None:
        self._check_values()
        self._cancel()

    def _check_values(self) -> None:
        """Refuse a value that counts and that units do not hold."""
        condition = "verdict IS NULL AND units IS NULL AND formula NOT IN ('count', 'unique_count')"
        ((seq,),) = self._tables.rows(f"SELECT MIN(seq) FROM judged WHERE {condition}")
        if seq is not None:
            ((value,),) = self._tables.rows(f"SELECT value FROM given WHERE seq = {int(seq)}")
            expected = (
                f"a value of at most {self._places} decimal places "
                f"(decimal_places={self._places} says so) and 38 digits in "
                f"all, which is what {self._engine} adds exactly"
            )
            error = InvalidValueError.expecting(
                ErrorCode.PARAMETER_INVALID_DECIMAL, "value", expected, value
            )
            raise self._origin.places(self._tables, [int(seq)])[int(seq)].complaint(error)

    def _cancel(self) -> None:
        """Leave out what was canceled after all of this usage was received.

        Raises:
            UsageRejectedError: as :meth:`~metering_core.MeterLog.cancel`.
        """
        if not self._canceled:
            return
        self._define(
            "cancellations",
            ((number, one.event_name, one.identifier) for number, one in enumerate(self._canceled)),
        )
        found = {
            int(number): (int(seq), int(at)) for number, seq, at in self._tables.rows(_CANCELED)
        }
        for number, one in enumerate(self._canceled):
            if number not in found:
                raise event_not_found(one.event_name, one.identifier)
            at = moment(one.canceled_at, "canceled_at")[1]
            if (late := late_cancellation(found[number][1], at, self.policy)) is not None:
                raise late
        self._define("canceled", ((seq,) for seq in {seq for seq, _ in found.values()}))

    # What is asked --------------------------------------------------------------------------------

    def meter(self, meter_id: str) -> Meter:
        """Return a meter; ``meter_unknown`` where there is none."""
        return self.book.known_meter(meter_id)

    def meter_of(self, item: SubscriptionItem) -> Meter:
        """Return the meter that an item's price names; refusals as
        :meth:`~metering_core.MeterLog.meter_of`.
        """
        return self.book.meter_of(item)

    def _asked(self, item: SubscriptionItem, period: BillingPeriod) -> Asked:
        meter, customer = self.meter_of(item), self.book.customer_of(item)
        require_sql(meter.formula, self._engine)
        window = meter.event_time_window
        return Asked(
            self._series[meter.id, customer],
            formula_of(meter),
            period.start_seconds * MICROSECONDS,
            period.end_seconds * MICROSECONDS,
            0 if window is None else window.seconds * MICROSECONDS,
        )

    def _number(self, amount: int) -> Number:
        return whole_if_possible(Decimal(f"{amount}e-{self._places}"))

    def _stamp(self, timestamp: int, seq: int) -> tuple[int, int]:
        return timestamp, seq

    def _used(self) -> Mapping[str, Sequence[Span]]:
        bounds = {
            int(series): (int(first) // MICROSECONDS, int(last) // MICROSECONDS)
            for series, first, last in self._tables.rows(_BOUNDS)
        }
        spans = self._spans("entries", "series", "billed_at", bounds)
        found = {
            item.id: spans.get(self._series[item.recurring.meter or "", customer])
            for item, customer in self._items()
        }
        return {item_id: spans for item_id, spans in found.items() if spans is not None}

    def _out_of_range(self, cause: object) -> InvoicingError:
        message = (
            "value: expected sums and weights of at most 38 digits, which is what "
            f"{self._engine} adds exactly, "
            f"received more ({str(cause).splitlines()[0][:200]})"
        )
        return InvoicingError(ErrorCode.QUANTITY_OUT_OF_RANGE, message, param="value")

    # What was not taken ---------------------------------------------------------------------------

    def receipts(self) -> dict[int, Receipt]:
        """Return the receipts of the rows that were refused or were duplicates, by ``seq``, in the
        order of arrival.

        They are those that a :class:`~metering_core.MeterLog` gives; a row that is not among them
        was accepted. ``seq`` is the value of that column, or where the source has none the number
        of the row, from 1.
        """
        exceptional = list(self._exceptional(("seq", "first_seq", "verdict")))
        is_repeated = {"duplicate", "identifier_reused"}
        refused = "FROM judged WHERE verdict IS NOT NULL"
        wanted = f"SELECT seq {refused} UNION SELECT first_seq {refused}"
        columns = ", ".join((*_SENT, *self._there.values()))
        sent = {
            int(row[0]): row
            for row in self._tables.rows(f"SELECT {columns} FROM given WHERE seq IN ({wanted})")
        }
        numbers = self._numbered(row[2] for row in exceptional)
        found = {}
        for seq, first, verdict in exceptional:
            event, received = self._event(sent[int(seq)])
            if verdict in is_repeated:
                receipt = self._identity(
                    event, self._event(sent[int(first)])[0], numbers.get(int(first), 0)
                )
            else:
                receipt = self._refusal(event, received)
            said = receipt.outcome.value if receipt.outcome is Outcome.DUPLICATE else receipt.code
            assert said == verdict, (
                f"{self._engine} said {verdict!r} of row {seq}, the rules say {said!r}"
            )
            found[int(seq)] = receipt
        return found

    def events_without_item(self) -> tuple[EventsWithoutItem, ...]:
        """Return the accepted events that no subscription item bills, by meter and customer, in the
        order of arrival.

        Nobody has a subscription for that customer and meter, or none that lived at the moment of
        the event. The first cause is often an id that is written otherwise than in the
        subscription: then ``meant`` says which one is nearly the same.
        """
        self._define("lives", self._lives())
        text = (
            "SELECT judged.meter, judged.customer, COUNT(*), MIN(judged.seq) FROM judged "
            "LEFT JOIN canceled ON canceled.seq = judged.seq "
            "LEFT JOIN lives "
            "ON lives.meter = judged.meter AND lives.customer = judged.customer "
            "AND lives.starts <= judged.timestamp AND judged.timestamp < lives.ends "
            "WHERE verdict IS NULL AND canceled.seq IS NULL AND lives.meter IS NULL "
            "GROUP BY judged.meter, judged.customer ORDER BY 4"
        )
        billed = dict.fromkeys(
            one.customer for one in self.book.subscriptions if one.customer is not None
        )
        names = list(self._numbers)
        return tuple(
            EventsWithoutItem(
                names[int(meter)], customer, int(events), int(first), _meant(customer, billed)
            )
            for meter, customer, events, first in self._tables.rows(text)
        )

    def _lives(self) -> list[Row]:
        """Return from when to when something bills the events of a meter and a customer; no two of
        these meet.
        """
        lives: dict[tuple[int, str], list[tuple[int, int]]] = {}
        for one in self.book.subscriptions:
            starts = SECONDS_MIN if one.start_date is None else unix_seconds(one.start_date)
            ends = SECONDS_MAX if one.ended_at is None else unix_seconds(one.ended_at) - 1
            for item in one.items:
                if item.recurring.meter is not None and one.customer is not None:
                    of = self._numbers[item.recurring.meter], one.customer
                    lives.setdefault(of, []).append((starts, ends))
        return [
            (meter, customer, starts * MICROSECONDS, (ends + 1) * MICROSECONDS)
            for (meter, customer), spans in lives.items()
            for starts, ends in united(spans)
        ]

    def _event(self, row: Sequence[Any]) -> tuple[MeterEvent, int]:
        """Return the event that a row stands for, and when it was received in Unix microseconds."""
        _, event_name, customer, value, timestamp, received, identifier, *dimensions = row
        meter = self._names.get(event_name)
        keys = ("stripe_customer_id", "value")
        if meter is not None:
            keys = meter.customer_payload_key, meter.value_payload_key or ""
        given = dict(zip((*keys, *self._there), (customer, value, *dimensions), strict=True))
        payload = {key: text for key, text in given.items() if text is not None}
        at = _EPOCH + timedelta(microseconds=int(timestamp))
        return MeterEvent(event_name, payload, identifier=identifier, timestamp=at), int(received)

    def _refusal(self, event: MeterEvent, received: int) -> Receipt:
        meter = self._names.get(event.event_name)
        if meter is None:
            return meter_unknown(event.event_name)
        if not meter.is_active:
            return meter_inactive(meter)
        said = read(meter, event.payload, self.policy, self.book.customers)
        assert event.microseconds is not None, "a row has a timestamp"
        refusal = (
            said
            if isinstance(said, Receipt)
            else time_refusal(event.microseconds, received, self.policy)
        )
        assert refusal is not None, f"{self._engine} refused an event, the rules accept it: {event}"
        return refusal

    @staticmethod
    def _identity(event: MeterEvent, first: MeterEvent, number: int) -> Receipt:
        content, kept = content_of(event), content_of(first)
        if content == kept:
            return Receipt(Outcome.DUPLICATE, number, details={"row": number - 1})
        return identifier_reused(event.identifier or "", kept, content)

    def _fault(self, column: str, fields: Mapping[str, Any]) -> InvalidValueError:
        """Return what the readers of the other engines say of an event, or what SQL cannot hold
        although they take it.
        """
        try:
            for one in ("timestamp", "received_at"):
                if one == "timestamp" or fields.get(one) is not None:
                    instant(self._time.moment(required(fields, one), one), one)
            MeterEvent(
                required(fields, "event_name"),
                {"": ""},
                identifier=fields.get("identifier"),
                timestamp=0,
            )
        except InvalidValueError as error:
            return error
        expected = {"value": "a text, or an integer", "identifier": "a text"}
        said = expected.get(column, "an instant within the years 1 to 9999")
        return InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_OBJECT, column, said, fields.get(column)
        )

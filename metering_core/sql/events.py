"""Meter events that stay in files or on a cluster: judged and folded by one SQL text on DuckDB and
on Spark.

Every formula is exact: values are counted in whole units of ``10**-decimal_places`` and added as
``DECIMAL(38, 0)``, which both engines refuse to overflow. What that does not hold is refused by
name, and so is what SQL cannot say: identifiers that are forgotten after a time, because whether
one counts then depends on the one before it.
"""

# ruff: noqa: S608 - what is put into SQL here are names and numbers of our own, and quoted literals

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from functools import cache
from importlib import resources
from typing import Any, Final

import attrs

from metering_core.acceptance import Outcome, Receipt
from metering_core.aggregation import as_requests
from metering_core.book import Book, OverBook
from metering_core.errors import ErrorCode, InvalidValueError, InvoicingError
from metering_core.exact import Number, exact_integer, whole_if_possible
from metering_core.feeds.instants import PlausibleTime, time_of
from metering_core.measures import Folded, Partial, formula_of, require_sql
from metering_core.meter_acceptance import (
    IdentifierScope,
    MeterPolicy,
    identifier_reused,
    meter_inactive,
    meter_unknown,
    read,
    require_no_carrying,
    time_refusal,
)
from metering_core.meter_events import MeterEvent
from metering_core.meter_log import content_of
from metering_core.meters import EVENT_NAME_MAX, Meter
from metering_core.names import folded, require_iterable, require_kind, required
from metering_core.periods import (
    MICROSECONDS,
    SECONDS_MAX,
    SECONDS_MIN,
    BillingPeriod,
    from_unix_seconds,
    instant,
    unix_seconds,
)
from metering_core.sql.kernel import statement
from metering_core.sql.loading import Origin
from metering_core.sql.refusing import SqlRows
from metering_core.sql.rules import Row, united
from metering_core.subscriptions import Subscription, SubscriptionItem

REQUIRED: Final = ("event_name", "customer", "value", "timestamp")
OPTIONAL: Final = ("identifier", "received_at", "seq")
_DAY: Final = 86_400 * MICROSECONDS
_ENDLESS: Final = 2**60
_BEGINNING: Final = SECONDS_MIN * MICROSECONDS
_END: Final = (SECONDS_MAX + 1) * MICROSECONDS - 1
_SAID: Final = "FROM judged WHERE verdict IS NOT NULL"
_SENT: Final = (
    "seq",
    "event_name",
    "customer",
    "value",
    "timestamp",
    "received",
    "identifier",
)
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
    "lives": {"meter": "BIGINT", "customer": "STRING", "starts": "BIGINT", "ends": "BIGINT"},
    "requests": {
        "request": "BIGINT",
        "meter": "BIGINT",
        "customer": "STRING",
        "starts": "BIGINT",
        "ends": "BIGINT",
        "wants_area": "BOOLEAN",
        "wants_texts": "BOOLEAN",
        "peak_length": "BIGINT",
    },
}
"""The input relations of the kernel beside ``events``, with the types of their columns."""


@cache
def events_kernel() -> tuple[str, str]:
    """Return the two statements that judge and fold meter events, as they are run.

    >>> print(events_kernel()[0].splitlines()[0])
    -- Judging meter events: which count, and why the others do not.
    """
    judging, folding = (
        resources.files(__package__).joinpath("meter_events.sql").read_text("utf-8").split(";\n")
    )
    return judging, folding.lstrip()


@attrs.frozen
class _Request:
    """What is asked of an engine; times in Unix microseconds, ``starts`` inclusive and ``ends``
    exclusive.
    """

    meter: str
    customer: str
    starts: int
    ends: int


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


SIFTED: Final = f"""SELECT
  events_sent.*,
  CASE
    WHEN timestamp IS NULL OR timestamp NOT BETWEEN {_BEGINNING} AND {_END} THEN 'timestamp'
    WHEN received IS NULL OR received NOT BETWEEN {_BEGINNING} AND {_END} THEN 'received_at'
    WHEN event_name IS NULL OR LENGTH(event_name) NOT BETWEEN 1 AND {EVENT_NAME_MAX}
    THEN 'event_name'
    WHEN LENGTH(identifier) NOT BETWEEN 1 AND {EVENT_NAME_MAX} THEN 'identifier'
    WHEN is_inexact THEN 'value'
  END AS fault
FROM events_sent"""
"""What is malformed of the events as they were read; the kernel judges those without a fault."""


class SqlEvents(OverBook, SqlRows):
    """Meter events that are judged and folded by SQL; itself a :class:`~metering_core.Usage`.
    Engines say how one is run.

    Answers are remembered: ask :meth:`partials` for everything once, and single questions cost
    nothing afterwards. There are no cancellations and no closed periods here.

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
        time: PlausibleTime | None,
    ) -> None:
        self._time = time_of(time)
        if policy is not None:
            require_kind(MeterPolicy, policy, "policy")
        self.policy: Final = MeterPolicy() if policy is None else policy
        self.book = Book(
            subscriptions,
            meters=require_iterable(meters, "meters"),
            customers=customers,
            overlap=self.policy.overlap,
        )
        self._places = exact_integer(decimal_places, "decimal_places", maximum=37)
        self._numbers = {meter.id: number for number, meter in enumerate(self.book.meters.values())}
        self._names = {meter.event_name: meter for meter in self.book.meters.values()}
        self._answers: dict[_Request, Partial] = {}
        self._refuse_policy()
        self._refuse_dimensions()

    def _refuse_policy(self) -> None:
        retention, code = self.policy.identifier_retention, ErrorCode.PARAMETER_INVALID_OBJECT
        if retention is not None:
            expected = f"None, because {self._engine} remembers every identifier for ever"
            raise InvalidValueError.expecting(
                code, "policy[identifier_retention]", expected, retention
            )
        require_no_carrying(self.policy, f"{self._engine} closes")

    def _refuse_dimensions(self) -> None:
        """Refuse keys that name the same column as something else: SQL tells no case of letters
        apart.
        """
        columns = {column: f"the column {column!r}" for column in (*REQUIRED, *OPTIONAL)}
        for key in self._keys:
            other = columns.setdefault(key.casefold(), f"the dimension {key!r}")
            if other != f"the dimension {key!r}":
                expected = f"keys that {self._engine} can tell from {other}"
                code = ErrorCode.PARAMETER_INVALID_CHOICE
                raise InvalidValueError.expecting(
                    code, "meters[dimension_payload_keys]", expected, key
                )

    def _define(self, name: str, rows: Iterable[Row]) -> None:
        self._tables.define(name, _RELATIONS[name], rows)

    # Loading --------------------------------------------------------------------------------------

    @property
    def _required(self) -> Sequence[str]:
        """The columns that the source must have: who only counts needs no values."""
        counts = all(formula_of(meter).takes == "nothing" for meter in self.book.meters.values())
        return [column for column in REQUIRED if not (counts and column == "value")]

    @property
    def _keys(self) -> list[str]:
        """The dimension keys of all meters."""
        return list(
            dict.fromkeys(
                key for meter in self.book.meters.values() for key in meter.dimension_payload_keys
            )
        )

    def _dimensions(
        self, columns: Iterable[str], quote: Callable[[str], str], name: Callable[[str], str]
    ) -> dict[str, str]:
        """Return the expressions of ``dimensions``, ``series`` and ``dimension_count``."""
        there = [key for key in self._keys if key in set(columns)]

        def joined(keys: Iterable[str]) -> str:
            parts = [
                f"COALESCE(CONCAT(CAST(LENGTH({name(key)}) AS STRING), ':', {name(key)}), '-')"
                for key in keys
            ]
            return f"CONCAT('', {', '.join(parts)})" if parts else "''"

        series = "".join(
            f" WHEN {quote(meter.event_name)} THEN {self._series(meter, there, joined, name)}"
            for meter in self.book.meters.values()
            if meter.dimension_payload_keys
        )
        count = (
            " + ".join(f"CASE WHEN {name(key)} IS NULL THEN 0 ELSE 1 END" for key in there) or "0"
        )
        return {
            "dimensions": joined(there),
            "series": f"CASE event_name{series} ELSE '' END" if series else "''",
            "dimension_count": f"CAST({count} AS BIGINT)",
        }

    @staticmethod
    def _series(
        meter: Meter,
        there: Sequence[str],
        joined: Callable[[Iterable[str]], str],
        name: Callable[[str], str],
    ) -> str:
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
                    0
                    if meter.event_time_window is None
                    else meter.event_time_window.seconds * MICROSECONDS,
                )
                for meter in self.book.meters.values()
            ],
        )
        customers = self.book.customers
        self._define("customers", [(customer,) for customer in customers or ()])
        back, ahead = policy.backdate_days, policy.future_tolerance
        self._define(
            "rules",
            [
                (
                    customers is not None,
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

    def _check(self, origin: Origin, *, skip_malformed: bool) -> None:
        """Refuse the first malformed event by name, or count them."""
        self._origin = origin
        first = "MIN(CASE WHEN fault IS NOT NULL THEN seq END)"
        ((malformed, seq),) = self._tables.rows(f"SELECT COUNT(fault), {first} FROM sifted")
        self._sift(int(malformed), [] if seq is None else [int(seq)], skip=skip_malformed)

    def _read_columns(self) -> Sequence[str]:
        return [column for column in (*REQUIRED, *OPTIONAL) if column != "seq"]

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

    def _check_values(self) -> None:
        """Refuse a value that counts and that units do not hold."""
        condition = "verdict IS NULL AND units IS NULL AND formula NOT IN ('count', 'unique_count')"
        ((seq,),) = self._tables.rows(f"SELECT MIN(seq) FROM judged WHERE {condition}")
        if seq is not None:
            ((value,),) = self._tables.rows(f"SELECT value FROM sent WHERE seq = {int(seq)}")
            expected = (
                f"a value of at most {self._places} decimal places "
                f"(decimal_places={self._places} says so) and 38 digits in "
                f"all, which is what {self._engine} adds exactly"
            )
            error = InvalidValueError.expecting(
                ErrorCode.PARAMETER_INVALID_DECIMAL, "value", expected, value
            )
            raise self._origin.places(self._tables, [int(seq)])[int(seq)].complaint(error)

    # Questions ------------------------------------------------------------------------------------

    def meter(self, meter_id: str) -> Meter:
        """Return a meter; ``meter_unknown`` where there is none."""
        return self.book.known_meter(meter_id)

    def meter_of(self, item: SubscriptionItem) -> Meter:
        """Return the meter that an item's price names; refusals as
        :meth:`~metering_core.MeterLog.meter_of`.
        """
        return self.book.meter_of(item)

    def partial(self, item: SubscriptionItem, period: BillingPeriod) -> Partial:
        """Return the partial of what a bill of the period counts; see
        :class:`~metering_core.Usage`.

        Raises:
            InvoicingError: ``price_not_metered``, ``subscription_item_unknown``, or
                ``quantity_out_of_range`` where 38 digits do not hold what the formula adds up.
        """
        return self.partials([(item, period)])[0]

    def partials(self, requests: Iterable[tuple[SubscriptionItem, BillingPeriod]]) -> list[Partial]:
        """Return the partials of many items at once, in the order asked; one run over the events
        for all that are new.

        The partial of ``last`` tells events of one moment apart by their ``seq``, where a log has
        the number it gave them.
        """
        asked = []
        for item, period in as_requests(requests):
            meter, customer = self.meter_of(item), self.book.customer_of(item)
            require_sql(meter.formula, self._engine)
            asked.append(
                _Request(
                    meter.id,
                    customer,
                    period.start_seconds * MICROSECONDS,
                    period.end_seconds * MICROSECONDS,
                )
            )
        new = [one for one in dict.fromkeys(asked) if one not in self._answers]
        if new:
            self._answers.update(zip(new, self._ask(new), strict=True))
        return [self._answers[one] for one in asked]

    def _ask(self, requests: Sequence[_Request]) -> list[Partial]:
        """Ask for what lies within each request and, where the formula looks back, for what lies
        before it.
        """
        rows: list[Row] = []
        for number, one in enumerate(requests):
            meter = self.meter(one.meter)
            row = formula_of(meter)
            kind = (
                *(field in row.sql for field in ("moment", "texts")),
                row.window_seconds * MICROSECONDS,
            )
            rows.append(
                (2 * number, self._numbers[one.meter], one.customer, one.starts, one.ends, *kind)
            )
            if formula_of(meter).looks_back:
                beginning = _BEGINNING
                rows.append(
                    (
                        2 * number + 1,
                        self._numbers[one.meter],
                        one.customer,
                        beginning,
                        one.starts,
                        False,
                        False,
                        0,
                    )
                )
        self._define("requests", rows)
        found: dict[int, list[Sequence[Any]]] = {}
        for request, *values in self._tables.rows(events_kernel()[1]):
            found.setdefault(int(request), []).append(values)
        answers = []
        for number, one in enumerate(requests):
            meter = self.meter(one.meter)
            within, before = (
                self._partial(meter, found.get(at, ()), one.starts)
                for at in (2 * number, 2 * number + 1)
            )
            answers.append(formula_of(meter).over(within, before, one.starts, one.ends))
        return answers

    def _partial(self, meter: Meter, rows: Sequence[Sequence[Any]], starts: int) -> Partial:
        """Return what the formula works on, in Python's own numbers."""
        if not rows:
            return formula_of(meter).identity
        row = formula_of(meter)
        folded = self._folded(rows, starts)
        if not row.window_seconds:
            return row.of_folded(folded)
        length = row.window_seconds * MICROSECONDS
        peaks = sorted(
            (int(bucket) // length, self._number(greatest))
            for _, bucket, _, _, greatest, *_ in rows
        )
        return row.of_folded(attrs.evolve(folded, peaks=tuple(peaks)))

    def _folded(self, rows: Sequence[Sequence[Any]], starts: int) -> Folded:
        """Return the rows of a request in Python's own numbers; where texts are wanted there is one
        a text, of no numbers.
        """
        _, _, events, total, greatest, least, last_timestamp, last_seq, last_units, area = rows[0]
        total = int(total or 0)
        return Folded(
            frozenset(row[0] for row in rows),
            int(events or 0),
            self._number(total),
            self._number(greatest or 0),
            self._number(least or 0),
            ((int(last_timestamp or 0), int(last_seq or 0)), self._number(last_units or 0)),
            self._number(total * starts + int(area or 0)),
        )

    def _number(self, units: object) -> Number:
        value = int(units)  # type: ignore[call-overload]  # an int or a Decimal of the engine
        return whole_if_possible(Decimal(f"{value}e-{self._places}"))

    # Receipts -------------------------------------------------------------------------------------

    def receipts(self) -> dict[int, Receipt]:
        """Return the receipts of the rows that were refused or were duplicates, by ``seq``, in the
        order of arrival.

        They are those that a :class:`~metering_core.MeterLog` gives; a row that is not among them
        was accepted. ``seq`` is the value of that column, or where the source has none the number
        of the row, from 1.
        """
        exceptional = list(
            self._tables.rows(f"SELECT seq, first_seq, verdict {_SAID} ORDER BY seq")
        )
        is_repeated = {"duplicate", "identifier_reused"}
        wanted = f"SELECT seq {_SAID} UNION SELECT first_seq {_SAID}"
        columns = ", ".join((*_SENT, *self._there))
        sent = {
            int(row[0]): row
            for row in self._tables.rows(f"SELECT {columns} FROM sent WHERE seq IN ({wanted})")
        }
        numbers: dict[int, int] = {}
        if any(row[2] == "duplicate" for row in exceptional):
            numbered = self._tables.rows(statement("numbering"))
            numbers = {int(seq): int(number) for seq, number in numbered}
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
            "SELECT accepted.meter, accepted.customer, COUNT(*), MIN(accepted.seq) FROM "
            "accepted LEFT JOIN lives "
            "ON lives.meter = accepted.meter AND lives.customer = accepted.customer "
            "AND lives.starts <= accepted.timestamp AND accepted.timestamp < lives.ends "
            "WHERE lives.meter IS NULL GROUP BY accepted.meter, accepted.customer ORDER BY 4"
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
                    lives.setdefault(
                        (self._numbers[item.recurring.meter], one.customer), []
                    ).append((starts, ends))
        return [
            (meter, customer, starts * MICROSECONDS, (ends + 1) * MICROSECONDS)
            for (meter, customer), spans in lives.items()
            for starts, ends in united(spans)
        ]

    _there: Sequence[str] = ()
    """The columns of dimensions, as SQL names them."""

    def _event(self, row: Sequence[Any]) -> tuple[MeterEvent, int]:
        """Return the event that a row stands for, and when it was received in Unix microseconds."""
        _, event_name, customer, value, timestamp, received, identifier, *dimensions = row
        meter = self._names.get(event_name)
        keys = (
            ("stripe_customer_id", "value")
            if meter is None
            else (meter.customer_payload_key, meter.value_payload_key)
        )
        given = dict(
            zip((*keys, *self._dimension_keys), (customer, value, *dimensions), strict=True)
        )
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

    def _out_of_range(self, cause: Exception) -> InvoicingError:
        message = (
            "value: expected sums and weights of at most 38 digits, which is what "
            f"{self._engine} adds exactly, "
            f"received more ({str(cause).splitlines()[0][:200]})"
        )
        return InvoicingError(ErrorCode.QUANTITY_OUT_OF_RANGE, message, param="value")

"""Meter events in columns, append-only: judged, kept and summarized as the meter log does, a batch
at a time.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import timedelta
from itertools import groupby
from operator import attrgetter
from typing import Final

import attrs
import numpy as np

from metering_core.acceptance import Outcome, Receipt, Receipts
from metering_core.aggregation import as_requests
from metering_core.book import Book
from metering_core.columnar.arrays import ROWS_MAX, Column, Flags, Integers, own, received_moments
from metering_core.columnar.batches import EventBatch, as_units, units_of, written
from metering_core.columnar.folding import Rows
from metering_core.columnar.numbers import Numbers
from metering_core.columnar.parts import Counting, EventPart, MeterColumns, read_off
from metering_core.columnar.paths import ENGINE
from metering_core.columnar.summaries import (
    PARTIALS,
    EventQuestion,
    EventSummaries,
    partials_of,
    summarized,
)
from metering_core.columnar.texts import Texts
from metering_core.errors import ErrorCode, InvalidValueError
from metering_core.exact import Number
from metering_core.measures import Partial, formula_of, kernel_for
from metering_core.meter_acceptance import (
    IdentifierScope,
    MeterPolicy,
    Reading,
    identifier_reused,
    is_customer,
    meter_inactive,
    meter_unknown,
    read,
    time_refusal,
)
from metering_core.meter_events import MeterEvent
from metering_core.meter_log import KeepsEvents, content_of
from metering_core.meter_summaries import DimensionFilters, buckets_of, filters_of, keys_of
from metering_core.meter_views import LoggedEvent, Sees
from metering_core.meters import Meter
from metering_core.names import require_iterable, require_kind
from metering_core.periods import MICROSECONDS, BillingPeriod, Instant
from metering_core.readings import Readings
from metering_core.subscriptions import Subscription, SubscriptionItem
from metering_core.timelines import Timeline

_DAY: Final = 86_400
_ENDLESS: Final = 2**62
"""More microseconds than there are between any two moments."""


@attrs.define(eq=False)
class _EventVerdict:
    """What is to become of each row of a batch.

    Attributes:
        accepted: whether it is kept.
        answered: what the others hear.
        units: the values in units of ``10**-decimal_places``, or codes of texts.
        decimal_places: see ``units``.
    """

    accepted: Flags
    answered: dict[int, Receipt]
    units: Numbers
    decimal_places: int


class _KeptEvents:
    """What was accepted, and what is derived from it.

    The parts are the truth, and ``length`` says how many of their events were accepted; it is
    written last. Where an append was cut short before that, all the rest is derived anew.

    Attributes:
        parts: the events, in the order of arrival.
        length: how many of them were accepted.
        columns: the events of each meter that has some, by its id.
        shared_ids: identifier → event, of all meters, where the scope is global.
    """

    def __init__(self, parts: Iterable[EventPart] = (), length: int = 0) -> None:
        self.parts = list(parts)
        self.length = length
        self.columns: dict[str, MeterColumns] = {}
        self.shared_ids: dict[str, int] = {}

    @property
    def end(self) -> int:
        """How many events there are with those that are being accepted."""
        return int(self.parts[-1].numbers[-1]) if self.parts else 0

    def add(self, part: EventPart, columns: MeterColumns) -> None:
        """Take events of a meter."""
        self.parts.append(part)
        columns.add(part)
        columns.ids.update(part.identified())

    def part_of(self, number: int) -> EventPart:
        """Return the part that an event is in."""
        return self.parts[bisect_right(self.parts, number, key=_first_of) - 1]


class ColumnarEvents(KeepsEvents):
    """All events of some meters, as columns; itself a :class:`~metering_core.Usage` for items whose
    price names a meter.

    Receipts, partials, summaries, invoices, closed periods and views are those of a
    :class:`~metering_core.MeterLog` that takes the same events; all formulas are exact. It is for
    history and for bulk questions: nothing that was accepted can be canceled, for which a log keeps
    its events one by one, and views of the past are answered event by event.

    Args:
        meters: what to measure. More can come later with :meth:`create_meter`.
        subscriptions: whose items to bill, with a ``customer`` each. More can come later with
            :meth:`subscribe`.
        customers: the customers whose events are accepted; any customer unless given.
        policy: what is accepted.

    Attributes:
        policy: as given.
        lock: held during every append and every answer; hold it to ask several questions of one
            state.

    >>> events = ColumnarEvents([Meter("mtr_tokens", "tokens")])
    >>> customers = ["cus_1", "cus_2", "cus_1"]
    >>> batch = EventBatch.from_columns("tokens", customers, [25, 5, 10], [1_717_243_200] * 3)
    >>> events.append(batch, now=1_717_243_200).accepted
    3
    >>> summaries = events.summaries("mtr_tokens", 1_717_243_200, 1_717_246_800)
    >>> [one.aggregated_value for one in summaries]
    [35, 5]
    """

    instead_of_copying = "Append the same batches to another one."

    def __init__(
        self,
        meters: Iterable[Meter] = (),
        subscriptions: Iterable[Subscription] = (),
        *,
        customers: Iterable[str] | None = None,
        policy: MeterPolicy | None = None,
    ) -> None:
        if policy is not None:
            require_kind(MeterPolicy, policy, "policy")
        self.policy = MeterPolicy() if policy is None else policy
        self.book = Book(meters=(), customers=customers)
        self.book.join(self)
        self.lock = self.book.lock
        self._kept = _KeptEvents()
        self._is_torn = False
        self._own_readings: SeenReadings | None = None
        for meter in require_iterable(meters, "meters"):
            self.create_meter(meter)
        for subscription in require_iterable(subscriptions, "subscriptions"):
            self.subscribe(subscription)

    def __len__(self) -> int:
        """Return the number of accepted events."""
        return self._kept.length

    def __repr__(self) -> str:
        """Return the counts."""
        return f"<ColumnarEvents: {len(self.meters)} meters, {len(self)} events>"

    @property
    def sequence(self) -> int:
        """The number of the event accepted last; 0 before the first."""
        return self._kept.length

    def create_meter(self, meter: Meter) -> None:
        """Measure events by a new meter from now on; refusals as
        :meth:`~metering_core.MeterLog.create_meter`.

        Raises:
            InvoicingError: ``formula_not_available`` for a formula that columns cannot compute.
        """
        require_kind(Meter, meter, "meter")
        kernel_for(PARTIALS, meter.formula, ENGINE)
        super().create_meter(meter)

    def subscribe(
        self, subscription: Subscription, *, now: Instant | None = None, rebill: bool = False
    ) -> None:
        """Bill a subscription's items from now on; as :meth:`~metering_core.MeterLog.subscribe`."""
        self.book.subscribe(subscription, now=now, rebill=rebill, overlap=self.policy.overlap)

    # The door -------------------------------------------------------------------------------------

    def append(
        self,
        batch: EventBatch | Iterable[MeterEvent],
        *,
        now: Instant | None = None,
        received_at: Column | None = None,
    ) -> Receipts:
        """Append a batch, each event judged as if alone after the ones before.

        Args:
            batch: the events; ready ones are taken apart, of one name after the other.
            now: the moment of receipt of all of them.
            received_at: instead of ``now``, the moment of receipt of each (aware datetimes or Unix
                seconds); which is how history is imported.

        Returns:
            One receipt per event, in order. What was refused left no trace.

        Raises:
            InvalidValueError: for a malformed value, where both or none of ``now`` and
                ``received_at`` are given, or where a dimension has the key of the meter's customer
                or value. Nothing was appended then.
        """
        with self.lock:
            self.book.begin_change()
            kept = self._whole()
            batches = [batch] if isinstance(batch, EventBatch) else self._taken_apart(batch)
            received = received_moments(sum(map(len, batches)), now, received_at)
            if kept.length + sum(map(len, batches)) > ROWS_MAX:
                expected = f"at most {ROWS_MAX} events in all"
                raise InvalidValueError.expecting(
                    ErrorCode.PARAMETER_INVALID_OBJECT, "batch", expected, len(batches)
                )
            for one in batches:
                self._refuse_shared_key(one)
            sequences: array[int] = array("q")
            exceptions: dict[int, Receipt] = {}
            self._is_torn = True  # Until the last of them is counted.
            for one in batches:
                at = len(sequences)
                own = received if isinstance(received, int) else received[at : at + len(one)]
                numbers, answered = self._take(kept, one, own)
                sequences.frombytes(numbers.tobytes())
                exceptions.update((at + row, receipt) for row, receipt in answered.items())
            receipts = Receipts(sequences, exceptions)
            kept.length = kept.end
            self._is_torn = False
            return receipts

    def _whole(self) -> _KeptEvents:
        """Return what is kept; where an append was cut short, without what it left behind."""
        if self._is_torn:
            torn = self._kept
            whole = _KeptEvents((), torn.length)
            for part in torn.parts:
                if part.numbers[0] <= torn.length:
                    meter = self.book.meter_named(part.batch.event_name)
                    assert meter is not None, "its events were accepted"
                    columns = self._columns_of(whole, meter)
                    columns.texts = torn.columns[
                        meter.id
                    ].texts  # Whose codes the parts have; texts of no event harm nobody.
                    columns.series_of(part.batch, meter, part.places)
                    whole.add(part, columns)
            self._kept = whole
            self._is_torn = False
        return self._kept

    def _columns_of(self, kept: _KeptEvents, meter: Meter) -> MeterColumns:
        if meter.id not in kept.columns:
            ids = kept.shared_ids if self.policy.identifier_scope is IdentifierScope.GLOBAL else {}
            kept.columns[meter.id] = MeterColumns(ids, meter)
        return kept.columns[meter.id]

    def _columns(self, meter: Meter) -> MeterColumns:
        return self._columns_of(self._whole(), meter)

    def _taken_apart(self, events: Iterable[MeterEvent]) -> list[EventBatch]:
        listed = list(require_iterable(events, "events"))
        for row, event in enumerate(listed):
            if not isinstance(event, MeterEvent):
                raise InvalidValueError.expecting(
                    ErrorCode.PARAMETER_INVALID_OBJECT, f"events[{row}]", "a MeterEvent", event
                )
        runs = (list(run) for _, run in groupby(listed, attrgetter("event_name")))
        return [
            EventBatch.from_events(run, self.book.meter_named(run[0].event_name)) for run in runs
        ]

    def _refuse_shared_key(self, batch: EventBatch) -> None:
        meter = self.book.meter_named(batch.event_name)
        shared = (
            set()
            if meter is None
            else {meter.customer_payload_key, meter.value_payload_key} & batch.dimensions.keys()
        )
        if shared:
            expected = "other keys than those of the meter's customer and value"
            raise InvalidValueError.expecting(
                ErrorCode.PARAMETER_INVALID_OBJECT, "dimensions", expected, sorted(shared)
            )

    def _take(
        self, kept: _KeptEvents, batch: EventBatch, received: int | Integers
    ) -> tuple[Integers, dict[int, Receipt]]:
        """Judge a batch and keep what is accepted; return the numbers, and what the others hear."""
        meter = self.book.meter_named(batch.event_name)
        moments, as_now = own(batch, "moments"), own(batch, "as_now")
        stamps = moments if as_now is None else np.where(as_now, received, moments)
        if meter is None or not meter.is_active:
            nothing = np.zeros(len(batch), np.bool_)
            verdict = _EventVerdict(nothing, {}, np.zeros(len(batch), np.int64), 0)
        else:
            ok, units, places = self._read(batch, meter, self._columns_of(kept, meter))
            verdict = _EventVerdict(ok & self._in_time(stamps, received), {}, units, places)
        repeated = self._repeated(kept, batch, meter, received, verdict)
        numbers = np.cumsum(verdict.accepted, dtype=np.int64)
        numbers += kept.end
        for row, first in repeated:
            verdict.answered[row] = self._answer(kept, batch, meter, row, first, numbers)
        self._refuse(batch, meter, stamps, received, verdict)
        if meter is not None:
            self._keep(kept, batch, meter, stamps, received, verdict)
        numbers[~verdict.accepted] = 0
        return numbers, verdict.answered

    # What a meter reads ---------------------------------------------------------------------------

    def _read(
        self, batch: EventBatch, meter: Meter, columns: MeterColumns
    ) -> tuple[Flags, Numbers, int]:
        """Say which rows the meter can read, and what it reads."""
        known = self.book.customers
        ok = batch.customers.each(lambda one: one is not None and is_customer(one, known))
        values: Integers | Texts = own(batch, "values")
        if formula_of(meter).takes == "text":
            texts = batch.texts()
            units: Numbers = columns.text_codes(texts.names)[own(texts, "codes")]
            readable, places = units >= 0, 0
        elif isinstance(values, Texts):
            readable, units, places = self._read_texts(values, meter)
        else:
            units, places = values, batch.decimal_places
            readable = self._read_integers(values, places, meter)
        ok &= readable
        for key in meter.dimension_payload_keys:
            given = batch.dimensions.get(key)
            ok &= False if given is None else given.each(lambda one: one is not None)
        if self.policy.dimensions_max is not None:
            extra = np.zeros(len(batch), np.int64)
            for texts in batch.dimensions.values():
                extra += texts.each(lambda one: one is not None)
            ok &= extra <= self.policy.dimensions_max
        return ok, units, places

    def _reading(self, meter: Meter, text: str | None) -> tuple[int, int] | None:
        """Return what is read off a text, an integer and its decimal places; None for nothing."""
        payload = {meter.customer_payload_key: "-"} | (
            {} if text is None else {meter.value_payload_key: text}
        )
        reading = read(attrs.evolve(meter, dimension_payload_keys=()), payload, self.policy, None)
        if not isinstance(reading, Reading) or isinstance(reading.value, str):
            return None
        return units_of(reading.value)

    def _read_texts(self, texts: Texts, meter: Meter) -> tuple[Flags, Numbers, int]:
        """Read each text once, however often it occurs."""
        readings = [self._reading(meter, text) for text in texts.names]
        places = max((one[1] for one in readings if one is not None), default=0)
        units = as_units(
            [0 if one is None else one[0] * 10 ** (places - one[1]) for one in readings]
        )
        readable = np.array([one is not None for one in readings], np.bool_)
        codes = own(texts, "codes")
        return readable[codes], units[codes], places

    def _read_integers(self, units: Integers, places: int, meter: Meter) -> Flags:
        """Say which integers the meter takes: at once where a bound tells, else one by one."""
        policy = self.policy
        allowed = 0 if policy.whole_values else meter.decimal_places
        surely = np.ones(len(units), np.bool_)
        if allowed is not None and allowed < places:
            surely &= (
                units % 10 ** (places - allowed) == 0 if places - allowed <= 18 else units == 0
            )
        if policy.positive_values:
            surely &= units > 0
        if policy.significant_digits is not None and policy.significant_digits <= 18:
            bound = 10**policy.significant_digits
            surely &= (-bound < units) & (units < bound)
        doubtful, which = np.unique(units[~surely], return_inverse=True)
        surely[~surely] = np.array(
            [self._reading(meter, written(one, places)) is not None for one in doubtful.tolist()],
            np.bool_,
        )[which]
        return surely

    def _in_time(self, stamps: Integers, received: int | Integers) -> Flags:
        """Say which moments are neither too far in the past nor in the future."""
        policy = self.policy
        ok = np.ones(len(stamps), np.bool_)
        if policy.backdate_days is not None:
            days = received // (_DAY * MICROSECONDS) - min(policy.backdate_days, 10_000_000)
            ok &= stamps >= days * (_DAY * MICROSECONDS)
        if policy.future_tolerance is not None:
            ok &= stamps <= received + min(
                policy.future_tolerance // timedelta(microseconds=1), _ENDLESS
            )
        return ok

    def _refuse(
        self,
        batch: EventBatch,
        meter: Meter | None,
        stamps: Integers,
        received: int | Integers,
        verdict: _EventVerdict,
    ) -> None:
        """Answer the rows that are not accepted, in the log's words."""
        rows = [
            row for row in np.flatnonzero(~verdict.accepted).tolist() if row not in verdict.answered
        ]
        if meter is None or not meter.is_active:
            receipt = meter_unknown(batch.event_name) if meter is None else meter_inactive(meter)
            verdict.answered.update(dict.fromkeys(rows, receipt))
            return
        for row in rows:
            said = read(meter, batch.payload_at(row, meter), self.policy, self.book.customers)
            at = received if isinstance(received, int) else int(received[row])
            refusal = (
                said
                if isinstance(said, Receipt)
                else time_refusal(int(stamps[row]), at, self.policy)
            )
            assert refusal is not None, f"columns refused row {row}, the rules accept it"
            verdict.answered[row] = refusal

    # Identity -------------------------------------------------------------------------------------

    def _repeated(
        self,
        kept: _KeptEvents,
        batch: EventBatch,
        meter: Meter | None,
        received: int | Integers,
        verdict: _EventVerdict,
    ) -> list[tuple[int, int]]:
        """Find the rows whose identifier is taken, with what took it: an event by its number, or a
        row before, below 0.

        The first otherwise acceptable row of an identifier claims it.
        """
        if batch.identifiers is None:
            return []
        ids = kept.shared_ids if meter is None else self._columns_of(kept, meter).ids
        given = [one for one in batch.identifiers if one is not None]
        if len(set(given)) == len(given) and ids.keys().isdisjoint(given):
            return []
        times = Counter(given)
        claimed: dict[str, int] = {}
        repeated: list[tuple[int, int]] = []
        for row, identifier in enumerate(batch.identifiers):
            if identifier is None or (times[identifier] == 1 and identifier not in ids):
                continue
            at = received if isinstance(received, int) else int(received[row])
            first = claimed.get(identifier, ids.get(identifier))
            if first is not None and self._remembers(kept, first, received, at):
                repeated.append((row, first))
                verdict.accepted[row] = False
            elif verdict.accepted[row]:
                claimed[identifier] = -1 - row
        return repeated

    def _remembers(self, kept: _KeptEvents, first: int, received: int | Integers, at: int) -> bool:
        retention = self.policy.identifier_retention
        if retention is None:
            return True
        if first >= 0:
            part = kept.part_of(first)
            was = part.received_at(part.place_of(first))
        else:
            was = received if isinstance(received, int) else int(received[-1 - first])
        return at - was <= retention // timedelta(microseconds=1)

    def _answer(
        self,
        kept: _KeptEvents,
        batch: EventBatch,
        meter: Meter | None,
        row: int,
        first: int,
        numbers: Integers,
    ) -> Receipt:
        """Answer a row whose identifier is taken: a duplicate, or reused for other content."""
        content = content_of(batch.event_at(row, meter))
        if first < 0:
            number, former = int(numbers[-1 - first]), content_of(batch.event_at(-1 - first, meter))
        else:
            part = kept.part_of(first)
            meter = self.book.meter_named(part.batch.event_name)
            number, former = first, content_of(part.batch.event_at(part.sent_at(first), meter))
        if content == former:
            return Receipt(Outcome.DUPLICATE, number, details={"row": number - 1})
        assert batch.identifiers is not None, "only rows with an identifier come here"
        return identifier_reused(batch.identifiers[row] or "", former, content)

    def _keep(
        self,
        kept: _KeptEvents,
        batch: EventBatch,
        meter: Meter,
        stamps: Integers,
        received: int | Integers,
        verdict: _EventVerdict,
    ) -> None:
        """Keep what was accepted."""
        accepted = verdict.accepted
        if not accepted.any():
            return
        places = None if accepted.all() else np.flatnonzero(accepted)
        columns = self._columns_of(kept, meter)
        codes = columns.series_of(batch, meter, places)
        which = slice(None) if places is None else places
        rows = Rows.of(codes, stamps[which], verdict.units[which])
        when = received if isinstance(received, int) or places is None else received[places]
        numbers = range(kept.end + 1, kept.end + len(rows) + 1)
        part = EventPart(rows, numbers, when, batch, places, verdict.decimal_places)
        kept.add(part, columns)

    # Questions ------------------------------------------------------------------------------------

    def summaries(
        self,
        meter_id: str,
        start_time: Instant,
        end_time: Instant,
        *,
        value_grouping_window: str | None = None,
        timezone: str = "UTC",
        dimension_filters: DimensionFilters | None = None,
        dimension_group_by_keys: Iterable[str] = (),
    ) -> EventSummaries:
        """Return the summaries of all customers at once, but for empty ones; each says what
        :func:`event_summaries` says.

        Arguments and refusals as :func:`~metering_core.event_summaries`.
        """
        with self.lock:
            meter = self.meter(meter_id)
            bounds = buckets_of(
                self.policy, start_time, end_time, value_grouping_window, timezone
            ).bounds()
            allowed, keys = (
                filters_of(meter, dimension_filters),
                keys_of(meter, dimension_group_by_keys),
            )
            return summarized(self._columns(meter), meter, bounds, allowed, keys)

    def last_received(self) -> int | None:
        """Return when the last event came, in Unix microseconds; None where there is none."""
        parts = self._kept.parts
        return parts[-1].received_at(len(parts[-1]) - 1) if parts else None

    def partials(self, requests: Iterable[tuple[SubscriptionItem, BillingPeriod]]) -> list[Partial]:
        """Return the partials of many items at once, in the order asked."""
        with self.lock:
            asked: dict[str, list[tuple[int, EventQuestion]]] = {}
            answers: dict[int, Partial] = {}
            for number, (item, period) in enumerate(as_requests(requests)):
                meter, customer = self.meter_of(item), self.book.customer_of(item)
                if self.book.bills_made and period in self._known_bills(item.id):
                    answers[number] = self._bill(item, period).partial
                    continue
                span = period.start_seconds * MICROSECONDS, period.end_seconds * MICROSECONDS
                asked.setdefault(meter.id, []).append((number, EventQuestion(customer, *span)))
            for meter_id, questions in asked.items():
                meter = self.meter(meter_id)
                found = partials_of(self._columns(meter), meter, [one for _, one in questions])
                answers.update(zip((number for number, _ in questions), found, strict=True))
            return [answers[number] for number in range(len(answers))]

    def _measured(self, customer: str, meter: Meter, period: BillingPeriod) -> Partial:
        span = period.start_seconds * MICROSECONDS, period.end_seconds * MICROSECONDS
        return partials_of(self._columns(meter), meter, [EventQuestion(customer, *span)])[0]

    # What its readers need ------------------------------------------------------------------------

    def _readings(self) -> Readings:
        known = self._own_readings
        if known is None or known.is_torn or known.end != self._whole().length:
            known = self._own_readings = SeenReadings(self, self._sees, self._whole().length)
        return known

    def readings_until(self, sees: Sees) -> Readings:
        """Return what is read off the events that a view shows; for the views of these columns."""
        return SeenReadings(self, sees, self._whole().length)

    def readings_of(
        self, meter: Meter, customer: str
    ) -> Iterator[tuple[tuple[str, ...], Iterable[tuple[int, int, Number | str]]]]:
        """Yield each of a customer's series with its readings, in the order of their numbers."""
        columns = self._columns(meter)
        every = attrs.evolve(meter, event_time_window=None)
        counting = Counting.of(columns.parts, every)
        for code in columns.series.of(customer):
            places = np.flatnonzero(counting.rows.codes == code)
            rows, numbers = counting.rows, counting.numbers_at(places).tolist()
            values = read_off(meter, columns.texts, rows.values[places], counting.decimal_places)
            readings = zip(rows.moments[places].tolist(), numbers, values, strict=True)
            yield columns.series.label(code)[1:], readings

    def received_of(self, number: int) -> int:
        """Return when an event was received, in Unix microseconds."""
        part = self._whole().part_of(number)
        return part.received_at(part.place_of(number))

    def logged(
        self, sees: Sees, meter: Meter | None, customer: str | None
    ) -> Iterator[LoggedEvent]:
        """Yield the events that a reader shows, of one meter and customer where given."""
        for part in self._whole().parts:
            of = self.book.meter_named(part.batch.event_name)
            assert of is not None, "its events were accepted"
            if meter is None or meter.id == of.id:
                own = None if customer is None else set(self._columns(of).series.of(customer))
                for number, code in zip(part.numbers, part.rows.codes.tolist(), strict=True):
                    received = part.received_at(number - part.numbers[0])
                    if (own is None or code in own) and sees(number, received):
                        yield LoggedEvent(number, *part.event_of(number, of))


class SeenReadings(Readings):
    """What is read off the events that a reader shows, of the customers that it is asked about.

    Attributes:
        end: how many events there were.
    """

    def __init__(self, events: ColumnarEvents, sees: Sees, end: int) -> None:
        super().__init__()
        self.end = end
        self._events = events
        self._sees = sees
        self._taken: set[tuple[str, str]] = set()

    def _take(self, meter: Meter, customer: str) -> None:
        if (meter.id, customer) in self._taken:
            return
        self.is_torn = True
        for dimensions, readings in self._events.readings_of(meter, customer):
            for moment, number, value in readings:
                if number <= self.end and self._sees(number, self._events.received_of(number)):
                    self.series(meter, customer, dimensions).add(moment, number, value)
        self._taken.add((meter.id, customer))
        self.is_torn = False

    def timelines(self, meter: Meter, customer: str) -> list[tuple[tuple[str, ...], Timeline]]:
        """Return what a customer's events of a meter come to, by their dimension values."""
        self._take(meter, customer)
        return super().timelines(meter, customer)

    def whole(self, meter: Meter, customer: str) -> list[Timeline]:
        """Return a customer's events of a meter whatever their dimensions, in few timelines."""
        self._take(meter, customer)
        return super().whole(meter, customer)

    def customers(self, meter: Meter) -> list[str]:
        """Return the customers that have events of a meter, in the order in which they came."""
        shown = self._events.logged(self._sees, meter, None)
        key = meter.customer_payload_key
        seen = (one.event.payload[key] for one in shown if one.sequence <= self.end)
        return list(dict.fromkeys(seen))


def _first_of(part: EventPart) -> int:
    return int(part.numbers[0])

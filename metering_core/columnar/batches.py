"""Usage records and meter events as columns on their way in: checked a column at a time, named by
the row where one is malformed.

A batch is what it was made of and nothing else: each of its rows stands for one record or event.
Numbers are integers, of events in units of a power of ten; no float is ever made of one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Final, Self

import attrs
import numpy as np
from numpy.typing import NDArray

from metering_core.columnar import arrow
from metering_core.columnar.arrays import (
    FINE,
    INT64_MAX,
    SECONDS,
    SECONDS_FINE,
    Column,
    Flags,
    Integers,
    as_array,
    held,
    instants,
    integers,
    is_sequence,
    length_of,
    optionally_held,
    own,
    require_lengths,
    rows_of,
)
from metering_core.columnar.texts import IDENTIFIERS, NAMES, RECORD_IDS, Texts, identities_of
from metering_core.columns import Batch, check_each
from metering_core.errors import ErrorCode, InvalidValueError
from metering_core.exact import (
    DIGITS_MAX,
    QUANTITY_DIGITS_MAX,
    Number,
    exact_integer,
    plain,
    whole_if_possible,
)
from metering_core.meter_events import MeterEvent
from metering_core.meters import Meter, short_name
from metering_core.names import each_of, flag, require_iterable, require_kind
from metering_core.periods import MICROSECONDS, from_unix_seconds
from metering_core.usage import Action, UsageRecord, as_action

EPOCH: Final = from_unix_seconds(0)
_GREATEST: Final = 10**QUANTITY_DIGITS_MAX
_DEFAULT: Final = Meter("default", "default")
"""Whose payload keys an event has that no meter measures."""

_EVENT_COLUMNS: Final = ("customer", "timestamp", "value", "identifier", "event_name")


def optional_tuple(values: Sequence[str | None] | None) -> tuple[str | None, ...] | None:
    """Return None, or some texts as a tuple, which nobody changes."""
    return None if values is None else tuple(values)


# Usage records ------------------------------------------------------------------------------------


@attrs.frozen(eq=False)
class UsageBatch:
    """Well-formed usage records, column by column and equally long, in the order of arrival. Build
    one with a class method.

    Its columns are those of the log once it was appended, so they are read-only.

    Attributes:
        names: the distinct ids of subscription items; ``codes`` counts in them.
        ids: idempotency keys, None where a record has none; None without any.
    """

    names: tuple[str, ...]
    _codes: NDArray[np.int32] = attrs.field(converter=held)
    _quantities: Integers = attrs.field(converter=held)
    _timestamps: Integers = attrs.field(converter=held)
    _sets: Flags | None = attrs.field(default=None, converter=optionally_held)
    ids: Sequence[str | None] | None = attrs.field(default=None, converter=optional_tuple)
    _as_now: Flags | None = attrs.field(default=None, converter=optionally_held)

    def __len__(self) -> int:
        """Return the number of records."""
        return len(self._codes)

    def __repr__(self) -> str:
        """Return the counts."""
        return f"<UsageBatch: {len(self)} records of {len(self.names)} items>"

    @property
    def codes(self) -> NDArray[np.int32]:
        """Which of ``names`` each record is of."""
        return held(self._codes)

    @property
    def quantities(self) -> Integers:
        """Units, 0 to 2**63 - 1."""
        return held(self._quantities)

    @property
    def timestamps(self) -> Integers:
        """Unix seconds; 0 where ``as_now``."""
        return held(self._timestamps)

    @property
    def sets(self) -> Flags | None:
        """Where the action is ``set``; None for nowhere."""
        return optionally_held(self._sets)

    @property
    def as_now(self) -> Flags | None:
        """Where the timestamp is ``"now"``; None for nowhere."""
        return optionally_held(self._as_now)

    @classmethod
    def from_columns(
        cls,
        subscription_items: Column,
        quantities: Column,
        timestamps: Column,
        actions: Column | None = None,
        ids: Column | None = None,
        *,
        item_ids: Sequence[str] | None = None,
        copy: bool = True,
    ) -> Self:
        """Check columns of equal length.

        Args:
            subscription_items: ids of subscription items, or with ``item_ids`` integers that count
                in those.
            quantities: integers from 0 to 2**63 - 1.
            timestamps: Unix seconds, aware datetimes or ``"now"``.
            actions: ``increment`` or ``set``, or flags that are true for ``set``; all ``increment``
                unless given.
            ids: idempotency keys, None where a record has none.
            item_ids: the dictionary of dictionary-encoded items.
            copy: whether to copy columns that could be used as they are. Without a copy the batch
                cannot change them, but what they were given as still can, and with it accepted
                usage: then nothing may.

        Raises:
            InvalidValueError: for a malformed value; ``param`` names the column and the row
                (``quantities[3]``).
        """
        flag(copy, "copy")
        length = length_of(subscription_items, "subscription_items")
        length_of(quantities, "quantities")
        length_of(timestamps, "timestamps")
        others = {
            "quantities": quantities,
            "timestamps": timestamps,
            "actions": actions,
            "ids": ids,
        }
        require_lengths(others, "subscription_items", length)
        items = _items(subscription_items, item_ids, copy=copy)
        units = integers(quantities, "quantities", INT64_MAX).astype(np.int64, copy=copy)
        stamps, as_now = instants(timestamps, "timestamps", SECONDS, copy=copy)
        return cls(
            items.names,
            own(items, "codes"),
            np.ascontiguousarray(units),
            stamps,
            _sets(actions, copy=copy),
            identities_of(ids, "ids", RECORD_IDS),
            as_now,
        )

    @classmethod
    def from_records(cls, records: Iterable[UsageRecord]) -> Self:
        """Take ready records apart.

        Raises:
            InvalidValueError: for something that is not a usage record, or a quantity above 2**63 -
                1.
        """
        batch = Batch.of_records(records)
        actions = np.frombuffer(batch.sets, np.bool_) if batch.sets else None
        return cls.from_columns(
            batch.item_ids, batch.quantities, batch.timestamps, actions, batch.ids
        )

    @classmethod
    def from_arrow(cls, source: object, *, copy: bool = True) -> Self:
        """Read a table with the Arrow stream interface (``__arrow_c_stream__``): of Polars, pandas,
        pyarrow or DuckDB.

        Its columns are ``subscription_item``, ``quantity``, ``timestamp`` (Unix seconds, or
        timestamps with a time zone) and optionally ``action`` (words, or flags that are true for
        ``set``; a null is an ``increment``) and ``id``. Strings may be dictionary-encoded. The
        order of the rows is the order of arrival: a column ``seq`` must ascend. When the rows were
        received is said where the batch is appended, not in a column. Other columns are not read.

        Args:
            source: the table. Its stream is read with pyarrow.
            copy: whether to copy numbers that could be used where they are. Without a copy the
                table, and what it was made of, must not be changed afterwards, as
                :meth:`from_columns` says.

        Raises:
            InvalidValueError: for an object without the interface; for a column that is absent
                (``parameter_missing``), there twice, misspelt or ``received_at``
                (``parameter_unknown``); for a malformed value.
            MissingExtraError: without pyarrow.
        """
        flag(copy, "copy")
        columns = ("subscription_item", "quantity", "timestamp"), ("action", "id")
        with arrow.columns_of(source, *columns, "usage", "UsageBatch.from_arrow") as given:
            return cls._of_arrow(given, copy=copy)

    @classmethod
    def _of_arrow(cls, given: Mapping[str, Any], *, copy: bool) -> Self:
        with ThreadPoolExecutor(1) as pool:  # Which copies numbers while strings are encoded.
            quantities = pool.submit(arrow.quantities, given["quantity"], copy=copy)
            stamps = pool.submit(arrow.instants, given["timestamp"], 1, copy=copy)
            items = arrow.texts(given["subscription_item"], "subscription_items", NAMES)
            actions = None if "action" not in given else arrow.sets(given["action"])
            ids = None if "id" not in given else given["id"].to_pylist()
        # What had to be copied has been by now.
        return cls.from_columns(
            items, quantities.result(), stamps.result()[0], actions, ids, copy=False
        )


def _items(values: Column, item_ids: Sequence[str] | None, *, copy: bool) -> Texts:
    """Return which item each row is of."""
    if item_ids is None:
        return Texts.of(values, "subscription_items", NAMES)
    return Texts.counted(values, "subscription_items", item_ids, "item_ids", NAMES, copy=copy)


def _sets(values: Column | None, *, copy: bool) -> Flags | None:
    if values is None:
        return None
    array = None if is_sequence(values) else as_array(values, "actions")
    if array is not None and array.dtype == np.bool_:
        flags = array.astype(np.bool_, copy=copy)
    elif array is not None and array.dtype.kind == "U":
        flags = array == Action.SET.value
        if not (flags | (array == Action.INCREMENT.value)).all():
            check_each(array.tolist(), "actions", as_action)
    else:
        rows = values if array is None else array.tolist()
        are_flags = set(map(type, rows)) == {bool}
        flags = np.array(
            rows
            if are_flags
            else [one is Action.SET for one in check_each(rows, "actions", as_action)],
            np.bool_,
        )
    return flags if flags.any() else None


# Meter events -------------------------------------------------------------------------------------


def _read_only_values(values: Integers | Texts) -> Integers | Texts:
    return values if isinstance(values, Texts) else held(values)


def _read_only_map(dimensions: Mapping[str, Texts]) -> Mapping[str, Texts]:
    return MappingProxyType(dict(dimensions))


@attrs.frozen(eq=False)
class EventBatch:
    """Meter events with one name, column by column and equally long, in the order of arrival. Build
    one with a class method.

    A row is the event whose payload has the customer and the value under the keys that the meter
    names, and each dimension under its own. The columns are those of what the batch is appended to,
    so they are read-only.

    Attributes:
        event_name: of all events.
        customers: whose event each row is; None where the payload has no customer.
        decimal_places: see ``values``; 0 for texts.
        identifiers: None where an event has none; None without any.
        dimensions: further payload keys; None where a payload lacks the key.
    """

    event_name: str
    customers: Texts
    _values: Integers | Texts = attrs.field(converter=_read_only_values)
    decimal_places: int
    _moments: Integers = attrs.field(converter=held)
    _as_now: Flags | None = attrs.field(default=None, converter=optionally_held)
    identifiers: Sequence[str | None] | None = attrs.field(default=None, converter=optional_tuple)
    dimensions: Mapping[str, Texts] = attrs.field(factory=dict, converter=_read_only_map)

    def __len__(self) -> int:
        """Return the number of events."""
        return len(self.customers)

    def __repr__(self) -> str:
        """Return the counts."""
        return (
            f"<EventBatch: {len(self)} events named {self.event_name!r} of "
            f"{len(self.customers.names)} customers>"
        )

    @property
    def values(self) -> Integers | Texts:
        """Integers in units of ``10**-decimal_places``, or texts; None where there is none."""
        return _read_only_values(self._values)

    @property
    def moments(self) -> Integers:
        """Unix microseconds; 0 where ``as_now``."""
        return held(self._moments)

    @property
    def as_now(self) -> Flags | None:
        """Where the timestamp is ``"now"``; None for nowhere."""
        return optionally_held(self._as_now)

    @classmethod
    def from_columns(
        cls,
        event_name: str,
        customers: Column,
        values: Column,
        timestamps: Column,
        *,
        identifiers: Column | None = None,
        dimensions: Mapping[str, Column] | None = None,
        customer_ids: Sequence[str] | None = None,
        decimal_places: int = 0,
        are_microseconds: bool = False,
        copy: bool = True,
    ) -> Self:
        """Check columns of equal length.

        Args:
            event_name: of all events, 1 to 100 characters.
            customers: ids of customers, or with ``customer_ids`` integers that count in those.
            values: integers, decimals, or texts as Stripe sends them; whether a text is a number is
                for the meter to say.
            timestamps: Unix seconds, aware datetimes or ``"now"``.
            identifiers: None where an event has none.
            dimensions: a column of texts by payload key.
            customer_ids: the dictionary of dictionary-encoded customers.
            decimal_places: integers of ``values`` count in units of ``10**-decimal_places``: 250
                with 2 places is 2.5.
            are_microseconds: whether integers of ``timestamps`` are Unix microseconds instead of
                seconds.
            copy: whether to copy arrays that could be used as they are. Without a copy the batch
                cannot change them, but what they were given as still can, and with it accepted
                events: then nothing may.

        Raises:
            InvalidValueError: for a malformed value; ``param`` names the column and the row
                (``values[3]``). Floats are one.
        """
        flag(copy, "copy")
        flag(are_microseconds, "are_microseconds")
        keyed = _dimensions(dimensions)
        length = length_of(customers, "customers")
        length_of(values, "values")
        length_of(timestamps, "timestamps")
        others = {"values": values, "timestamps": timestamps, "identifiers": identifiers}
        others |= {f"dimensions[{key}]": column for key, column in keyed.items()}
        require_lengths(others, "customers", length)
        places = exact_integer(decimal_places, "decimal_places", maximum=DIGITS_MAX)
        scale = FINE if are_microseconds else SECONDS_FINE
        moments, as_now = instants(timestamps, "timestamps", scale, copy=copy)
        return cls(
            short_name(event_name, "event_name"),
            _customers(customers, customer_ids),
            checked := _values(values, places, copy=copy),
            places if isinstance(checked, np.ndarray) else 0,
            moments,
            as_now,
            identities_of(identifiers, "identifiers", IDENTIFIERS),
            {key: Texts.of(column, f"dimensions[{key}]") for key, column in keyed.items()},
        )

    @classmethod
    def from_arrow(
        cls,
        event_name: str,
        source: object,
        *,
        dimensions: Iterable[str] = (),
        decimal_places: int = 0,
        copy: bool = True,
    ) -> Self:
        """Read a table with the Arrow stream interface (``__arrow_c_stream__``): of Polars, pandas,
        pyarrow or DuckDB.

        Its columns are ``customer``, ``timestamp`` (Unix seconds, or timestamps with a time zone),
        the dimensions, and optionally ``value`` (integers, decimals or texts) and ``identifier``.
        Texts may be dictionary-encoded; nulls are absent from the payload. A column ``event_name``
        must say the name of these events, and a column ``seq`` ascend. When the rows were received
        is said where the batch is appended. Other columns are not read.

        Args:
            event_name: of all events, 1 to 100 characters.
            source: the table. Its stream is read with pyarrow.
            dimensions: the payload keys that have a column of their own.
            decimal_places: as :meth:`from_columns` says.
            copy: as :meth:`from_columns` says.

        Raises:
            InvalidValueError: for an object without the interface; for a column that is absent
                (``parameter_missing``), there twice, misspelt or ``received_at``
                (``parameter_unknown``); for a malformed value.
            MissingExtraError: without pyarrow.
        """
        places = exact_integer(decimal_places, "decimal_places", maximum=DIGITS_MAX)
        flag(copy, "copy")
        keys = _dimension_keys(dimensions)
        columns = (*_EVENT_COLUMNS[:2], *keys), _EVENT_COLUMNS[2:]
        with arrow.columns_of(source, *columns, "events", "EventBatch.from_arrow") as given:
            name = short_name(event_name, "event_name")
            return cls._of_arrow(name, given, keys, places, copy=copy)

    @classmethod
    def _of_arrow(
        cls, name: str, given: Mapping[str, Any], keys: Iterable[str], places: int, *, copy: bool
    ) -> Self:
        if "event_name" in given:
            arrow.refuse_other_names(given["event_name"], name)
        customers = arrow.texts(given["customer"], "customers")
        nothing = Texts((None,), np.zeros(len(customers), np.int32))
        stamps, are_ticks = arrow.instants(given["timestamp"], MICROSECONDS, copy=copy)
        return cls.from_columns(
            name,
            customers,
            arrow.values(given["value"], copy=copy) if "value" in given else nothing,
            stamps,
            identifiers=given["identifier"].to_pylist() if "identifier" in given else None,
            dimensions={key: arrow.texts(given[key], f"dimensions[{key}]") for key in keys},
            decimal_places=places,
            are_microseconds=are_ticks,
            copy=False,
        )

    @classmethod
    def from_events(cls, events: Sequence[MeterEvent], meter: Meter | None = None) -> Self:
        """Take events with one name apart, as their meter reads them; at least one.

        Raises:
            InvalidValueError: ``parameter_invalid_object`` for something that is not a meter event
                of that name.
        """
        events, expected = each_of(MeterEvent, events, "events"), "a MeterEvent, all with one name"
        for row, event in enumerate(events or [None]):
            if event is None or event.event_name != events[0].event_name:
                raise InvalidValueError.expecting(
                    ErrorCode.PARAMETER_INVALID_OBJECT, f"events[{row}]", expected, event
                )
        read = _DEFAULT if meter is None else require_kind(Meter, meter, "meter")
        own = (read.customer_payload_key, read.value_payload_key)
        customers, values = ([event.payload.get(key) for event in events] for key in own)
        keys = dict.fromkeys(key for event in events for key in event.payload if key not in own)
        identifiers = [event.identifier for event in events]
        stamps = [event.microseconds for event in events]
        return cls(
            events[0].event_name,
            Texts.of(customers, "customers"),
            Texts.of(values, "values"),
            0,
            np.array([0 if stamp is None else stamp for stamp in stamps], np.int64),
            np.array([stamp is None for stamp in stamps], np.bool_) if None in stamps else None,
            identifiers if any(identifiers) else None,
            {key: Texts.of([event.payload.get(key) for event in events], key) for key in keys},
        )

    # A row ----------------------------------------------------------------------------------------

    def value_at(self, row: int) -> str | None:
        """Return the value of a row as its payload has it."""
        if isinstance(self._values, Texts):
            return self._values.at(row)
        return written(int(self._values[row]), self.decimal_places)

    def payload_at(self, row: int, meter: Meter | None) -> dict[str, str]:
        """Return the payload of a row under the keys that its meter names."""
        read = meter or _DEFAULT
        own = {
            read.customer_payload_key: self.customers.at(row),
            read.value_payload_key: self.value_at(row),
        }
        every = own | {key: texts.at(row) for key, texts in self.dimensions.items()}
        return {key: text for key, text in every.items() if text is not None}

    def event_at(self, row: int, meter: Meter | None, received: int | None = None) -> MeterEvent:
        """Return the event of a row; with a moment of receipt in Unix microseconds, ``"now"`` is
        resolved to that.
        """
        at: datetime | str = (
            "now"
            if self.is_as_now(row)
            else EPOCH + timedelta(microseconds=int(self._moments[row]))
        )
        if at == "now" and received is not None:
            at = EPOCH + timedelta(microseconds=received)
        identifier = None if self.identifiers is None else self.identifiers[row]
        return MeterEvent(
            self.event_name, self.payload_at(row, meter), identifier=identifier, timestamp=at
        )

    def is_as_now(self, row: int) -> bool:
        """Whether the timestamp of a row is ``"now"``."""
        return self._as_now is not None and bool(self._as_now[row])

    # Columns --------------------------------------------------------------------------------------

    def texts(self) -> Texts:
        """Return the values as they are in the payloads."""
        if isinstance(self._values, Texts):
            return self._values
        units, codes = np.unique(self._values, return_inverse=True)
        names = tuple(written(unit, self.decimal_places) for unit in units.tolist())
        return Texts(names, codes.astype(np.int32))


def written(units: int, places: int) -> str:
    """Write an integer in units of ``10**-places`` in digits.

    >>> written(-250, 2)
    '-2.5'
    """
    return plain(Decimal(f"{units}e-{places}")) if places else str(units)


def number_of(units: int, places: int) -> Number:
    """Return an integer in units of ``10**-places`` as the number that it is.

    >>> number_of(250, 2), number_of(200, 2)
    (Decimal('2.5'), 2)
    """
    return whole_if_possible(Decimal(f"{units}e-{places}")) if places else units


def units_of(number: Number) -> tuple[int, int]:
    """Return a number of a payload as an integer, and how many decimal places that has."""
    if isinstance(number, int):
        return number, 0
    assert isinstance(number, Decimal), "no text says a fraction"
    sign, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int), "values are finite"
    units = int("".join(map(str, digits)))
    return (-units if sign else units) * 10 ** max(exponent, 0), max(-exponent, 0)


def as_units(integers: Sequence[int]) -> NDArray[Any]:
    """Return integers as an array of 64 bits where all fit, else of Python integers."""
    try:
        return np.array(integers, np.int64)
    except OverflowError:
        units = np.empty(len(integers), np.object_)
        units[:] = integers
        return units


# Their columns ------------------------------------------------------------------------------------


def _customers(values: Column | Texts, customer_ids: Sequence[str] | None) -> Texts:
    if customer_ids is None:
        return Texts.of(values, "customers")
    return Texts.counted(values, "customers", customer_ids, "customer_ids")


def _dimensions(given: Mapping[str, Column] | None) -> dict[str, Column]:
    if not isinstance(given, Mapping | None):
        code = ErrorCode.PARAMETER_INVALID_OBJECT
        raise InvalidValueError.expecting(code, "dimensions", "columns by payload key", given)
    return {short_name(key, "dimensions"): column for key, column in (given or {}).items()}


def _values(values: Column | Texts, places: int, *, copy: bool) -> Integers | Texts:
    """Return integers of 64 bits as they are, anything else as the text in a payload."""
    if isinstance(values, Texts):
        return values
    array = None if is_sequence(values) else as_array(values, "values")
    if array is not None and array.dtype.kind in "iu":
        if array.dtype != np.uint64 or not len(array) or int(array.max()) <= INT64_MAX:
            return np.ascontiguousarray(array.astype(np.int64, copy=copy))
        values = array.tolist()
    rows = rows_of(values, "values")
    if (
        set(map(type, rows)) <= {int}
        and min(rows, default=0) >= -INT64_MAX
        and max(rows, default=0) <= INT64_MAX
    ):
        return np.array(rows, np.int64)
    texts = (
        rows
        if set(map(type, rows)) <= {str, type(None)}
        else [_as_text(one, f"values[{row}]", places) for row, one in enumerate(rows)]
    )
    return Texts.of(texts, "values")


def _as_text(value: object, param: str, places: int) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, Decimal) and value.is_finite() and abs(value.adjusted()) < 2 * DIGITS_MAX:
        return plain(value)
    try:
        return written(exact_integer(value, param, minimum=-_GREATEST, maximum=_GREATEST), places)
    except InvalidValueError:
        expected = "an integer, a Decimal or a text (a float has already lost what it meant)"
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_DECIMAL, param, expected, value
        ) from None


def _dimension_keys(keys: Iterable[str]) -> list[str]:
    """Return payload keys that are no other column."""
    given = [keys] if isinstance(keys, str) else list(require_iterable(keys, "dimensions"))
    others = {*_EVENT_COLUMNS, "seq", "received_at"}
    for at, key in enumerate(given):
        if short_name(key, f"dimensions[{at}]") in {*others, *given[:at]}:
            expected = "a payload key that is no other column"
            raise InvalidValueError.expecting(
                ErrorCode.PARAMETER_INVALID_OBJECT, f"dimensions[{at}]", expected, key
            )
    return given

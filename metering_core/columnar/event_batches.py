"""Meter events as columns on their way in: each row stands for one
:class:`~metering_core.MeterEvent`, and says which.

Texts are kept as a dictionary and codes, so that what is asked of a text is asked once however
often it occurs. Numbers are integers in units of a power of ten; no float is ever made of one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from importlib import import_module
from itertools import count
from types import MappingProxyType
from typing import Any, Final, Self

import attrs
import numpy as np
from numpy.typing import NDArray

from metering_core.columnar.batches import (
    Column,
    arrow_columns,
    arrow_numbers,
    arrow_table,
    as_array,
    dictionary_of,
    length_of,
    optional_tuple,
    reading_arrow,
    refuse_disorder,
    refuse_nulls,
)
from metering_core.columnar.kernel import INT64_MAX, ORIGIN, Flags, Integers, held, optionally_held
from metering_core.columns import check_each
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
from metering_core.meters import EVENT_NAME_MAX, Meter, short_name
from metering_core.names import each_of, flag, require_iterable, require_kind
from metering_core.periods import MICROSECONDS, SECONDS_MAX, from_unix_seconds, moment

EPOCH: Final = from_unix_seconds(0)
_GREATEST: Final = 10**QUANTITY_DIGITS_MAX
_DEFAULT: Final = Meter("default", "default")
"""Whose payload keys an event has that no meter measures."""


@attrs.frozen(eq=False)
class Texts:
    """A column of texts: the distinct ones, in the order of their first row, and which of them each
    row has.

    Attributes:
        names: the distinct texts; None for rows without one.
    """

    names: tuple[str | None, ...]
    _codes: NDArray[np.int32] = attrs.field(converter=held)

    @classmethod
    def of(
        cls,
        values: Column,
        column: str,
        names: Sequence[str] | None = None,
        check: Callable[..., object] | None = None,
    ) -> Self:
        """Take a column of texts, or of codes that count in ``names``."""
        look = check or _text
        if names is not None:
            length_of(names, f"{column}[names]")
            table = tuple(check_each(list(names), f"{column}[names]", look))
            return cls(table, _codes(values, column, len(table) - 1))
        rows = _rows(values, column)
        try:
            places = dict(zip(dict.fromkeys(rows), count(), strict=False))
            is_right = set(map(type, places)) <= {str, type(None)}
        except Exception:  # noqa: BLE001 - a caller's value may raise anything
            is_right = False
        if not is_right or check is not None:
            rows = check_each(rows, column, look)
            places = dict(zip(dict.fromkeys(rows), count(), strict=False))
        return cls(tuple(places), np.fromiter(map(places.__getitem__, rows), np.int32, len(rows)))

    def __len__(self) -> int:
        return len(self._codes)

    @property
    def codes(self) -> NDArray[np.int32]:
        """Which of ``names`` each row has."""
        return held(self._codes)

    def at(self, row: int) -> str | None:
        """Return the text of a row."""
        return self.names[int(self._codes[row])]

    def each(self, says: Callable[[str | None], object]) -> Flags:
        """Return for each row what is true of its text."""
        return np.fromiter(map(says, self.names), np.bool_, len(self.names))[self._codes]


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
        """Integers in units of ``10**-decimal_places``, or texts as they were sent; None where the
        payload has no value.
        """
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
        length = length_of(customers, "customers")
        length_of(values, "values")
        length_of(timestamps, "timestamps")
        others = {} if dimensions is None else dimensions
        if not isinstance(others, Mapping):
            code = ErrorCode.PARAMETER_INVALID_OBJECT
            raise InvalidValueError.expecting(
                code, "dimensions", "columns by payload key", dimensions
            )
        for column, given in {
            "values": values,
            "timestamps": timestamps,
            "identifiers": identifiers,
            **{
                f"dimensions[{short_name(key, 'dimensions')}]": column
                for key, column in others.items()
            },
        }.items():
            _require_length(given, length, column)
        places = exact_integer(decimal_places, "decimal_places", maximum=DIGITS_MAX)
        moments, as_now = _moments(timestamps, copy=copy, are_microseconds=are_microseconds)
        return cls(
            short_name(event_name, "event_name"),
            Texts.of(customers, "customers", customer_ids),
            checked := _values(values, places, copy=copy),
            places if isinstance(checked, np.ndarray) else 0,
            moments,
            as_now,
            _identifiers(identifiers),
            {
                short_name(key, "dimensions"): Texts.of(column, f"dimensions[{key}]")
                for key, column in others.items()
            },
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
        keys, table = _dimension_keys(dimensions), arrow_table(source, "EventBatch.from_arrow")
        with reading_arrow():
            given = arrow_columns(table, (*_REQUIRED, *keys), _OPTIONAL, "events")
            return cls._of_arrow(
                short_name(event_name, "event_name"), given, keys, places, copy=copy
            )

    @classmethod
    def _of_arrow(
        cls,
        event_name: str,
        given: Mapping[str, Any],
        keys: Iterable[str],
        places: int,
        *,
        copy: bool,
    ) -> Self:
        if "seq" in given:
            refuse_disorder(given["seq"])
        if "event_name" in given:
            _refuse_other_names(_arrow_texts(given["event_name"], "event_name"), event_name)
        customers = _arrow_texts(given["customer"], "customers")
        moments, as_now = _arrow_moments(given["timestamp"], copy=copy)
        nothing = Texts((None,), np.zeros(len(customers), np.int32))
        values = _arrow_values(given["value"], places, copy=copy) if "value" in given else nothing
        return cls(
            event_name,
            customers,
            values,
            places if isinstance(values, np.ndarray) else 0,
            moments,
            as_now,
            _identifiers(given["identifier"].to_pylist()) if "identifier" in given else None,
            {key: _arrow_texts(given[key], f"dimensions[{key}]") for key in keys},
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
    """Return a number that a payload can hold as an integer and how many decimal places that
    has.
    """
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


# Checks -------------------------------------------------------------------------------------------


def _rows(values: Column, column: str) -> Sequence[Any]:
    if isinstance(values, list | tuple | range):
        return values
    for own in (
        "to_pylist",
        "to_list",
    ):  # Of pyarrow, and of Polars and pandas: an array knows neither zones nor nulls.
        if hasattr(values, own):
            return list(getattr(values, own)())
    array = as_array(values, column)
    rows: Sequence[Any] = array.tolist() if array.dtype.kind != "M" else list(array)
    return rows


def _require_length(values: Column | None, length: int, column: str) -> None:
    if values is not None and length_of(values, column) != length:
        expected = f"as many values as customers, {length}"
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_OBJECT, column, expected, len(values)
        )


def _text(value: object, param: str) -> str | None:
    if value is not None and not isinstance(value, str):
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_STRING, param, "a string, or None", value
        )
    return value


def _codes(values: Column, column: str, maximum: int) -> NDArray[np.int32]:
    given = values if isinstance(values, np.ndarray) else list(_rows(values, column))
    array = as_array(given, column) if len(given) else np.empty(0, np.int32)
    if array.dtype.kind not in "iu":
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_INTEGER, column, "integers", str(array.dtype)
        )
    if len(array) and not 0 <= int(array.min()) <= int(array.max()) <= maximum:
        row = int(np.flatnonzero((array < 0) | (array > maximum))[0])
        exact_integer(int(array[row]), f"{column}[{row}]", maximum=maximum)
    return array.astype(np.int32)


def _values(values: Column, places: int, *, copy: bool) -> Integers | Texts:
    """Return integers of 64 bits as they are, anything else as the text that a payload would
    have.
    """
    array = None if isinstance(values, list | tuple | range) else as_array(values, "values")
    if array is not None and array.dtype.kind in "iu":
        if array.dtype != np.uint64 or not len(array) or int(array.max()) <= INT64_MAX:
            return np.ascontiguousarray(array.astype(np.int64, copy=copy))
        values = array.tolist()
    rows = _rows(values, "values")
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


def _moments(
    values: Column, *, copy: bool, are_microseconds: bool = False
) -> tuple[Integers, Flags | None]:
    """Return Unix microseconds, and where a timestamp is ``"now"`` instead."""
    flag(copy, "copy")
    flag(are_microseconds, "are_microseconds")
    unit = 1 if are_microseconds else MICROSECONDS
    if not isinstance(values, list | tuple):
        array = as_array(values, "timestamps")
        if array.dtype.kind in "iu" and _in_calendar(array, unit):
            stamps = array.astype(np.int64, copy=copy and unit == 1)
            return np.ascontiguousarray(stamps if unit == 1 else stamps * unit), None
        values = _rows(values, "timestamps")
    given = [_moment(value, f"timestamps[{row}]", unit) for row, value in enumerate(values)]
    as_now = np.array([value is None for value in given], np.bool_)
    return np.array([value or 0 for value in given], np.int64), as_now if as_now.any() else None


def _in_calendar(array: NDArray[Any], unit: int) -> bool:
    parts = MICROSECONDS // unit
    return (
        not len(array)
        or ORIGIN * parts <= int(array.min()) <= int(array.max()) < (SECONDS_MAX + 1) * parts
    )


def _moment(value: Any, param: str, unit: int) -> int | None:
    if isinstance(value, str) and value == "now":
        return None
    if unit == 1 and type(value) is int:
        moment(value // MICROSECONDS, param)
        return value
    return moment(value, param)[1]


def _identifiers(values: Column | None) -> list[str | None] | None:
    if values is None:
        return None
    rows = list(_rows(values, "identifiers"))
    given = [value for value in rows if value is not None]
    are_strings = set(map(type, given)) <= {str}
    if (
        not are_strings
        or min(map(len, given), default=1) < 1
        or max(map(len, given), default=1) > EVENT_NAME_MAX
    ):
        rows = [
            None if value is None else short_name(value, f"identifiers[{row}]")
            for row, value in enumerate(rows)
        ]
    return rows if given else None


# Arrow --------------------------------------------------------------------------------------------

_REQUIRED: Final = ("customer", "timestamp")
_OPTIONAL: Final = ("value", "identifier", "event_name", "seq", "received_at")


def _dimension_keys(keys: Iterable[str]) -> list[str]:
    """Return payload keys that are no other column."""
    given = [keys] if isinstance(keys, str) else list(require_iterable(keys, "dimensions"))
    for at, key in enumerate(given):
        if short_name(key, f"dimensions[{at}]") in {*_REQUIRED, *_OPTIONAL, *given[:at]}:
            expected = "a payload key that is no other column"
            raise InvalidValueError.expecting(
                ErrorCode.PARAMETER_INVALID_OBJECT, f"dimensions[{at}]", expected, key
            )
    return given


def _refuse_other_names(texts: Texts, event_name: str) -> None:
    for row in np.flatnonzero(~texts.each(lambda one: one == event_name))[:1].tolist():
        code, expected = (
            ErrorCode.PARAMETER_INVALID_STRING,
            f"{event_name!r}, as all events of a batch have one name",
        )
        raise InvalidValueError.expecting(code, f"event_name[{row}]", expected, texts.at(row))


def _arrow_texts(column: Any, param: str) -> Texts:
    pyarrow = import_module("pyarrow")
    if pyarrow.types.is_string_view(column.type):
        column = column.cast(pyarrow.large_string())
    if not _holds_texts(column) or column.null_count:
        return Texts.of(column.to_pylist(), param)
    codes, names = dictionary_of(column, param)
    return Texts.of(codes, param, names)


def _holds_texts(column: Any) -> bool:
    types = import_module("pyarrow").types
    kinds = (types.is_string, types.is_large_string, types.is_string_view, types.is_dictionary)
    return any(is_kind(column.type) for is_kind in kinds)


def _arrow_values(column: Any, places: int, *, copy: bool) -> Integers | Texts:
    if _holds_texts(column):
        return _arrow_texts(column, "values")
    are_integers = import_module("pyarrow").types.is_integer(column.type) and not column.null_count
    return _values(
        arrow_numbers(column, copy=copy) if are_integers else column.to_pylist(), places, copy=False
    )


def _arrow_moments(column: Any, *, copy: bool) -> tuple[Integers, Flags | None]:
    pyarrow = import_module("pyarrow")
    expected, code = (
        "Unix seconds, or a timestamp with a time zone",
        ErrorCode.PARAMETER_INVALID_INSTANT,
    )
    refuse_nulls(column, "timestamps", expected, code)
    if not pyarrow.types.is_timestamp(column.type):
        return _moments(
            column.to_pylist() if not pyarrow.types.is_integer(column.type) else column.to_numpy(),
            copy=copy,
        )
    if column.type.tz is None:
        raise InvalidValueError.expecting(code, "timestamps", expected, str(column.type))
    unit = {"s": MICROSECONDS, "ms": 1000, "us": 1, "ns": 1}[column.type.unit]
    ticks = arrow_numbers(column.cast(pyarrow.int64()), copy=copy)
    ticks = ticks // 1000 if column.type.unit == "ns" else ticks
    if not _in_calendar(ticks, unit):
        return _moments([tick * unit for tick in ticks.tolist()], copy=copy, are_microseconds=True)
    return np.ascontiguousarray(ticks if unit == 1 else ticks * unit), None

"""Usage records as columns: a batch on its way to the log, and the store of what was accepted.

A batch is checked column by column, because what is wrong with a value can be said without looking
at the others. The store keeps 29 bytes a record, in the order of arrival, and no object per record.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import compress
from operator import attrgetter
from types import NoneType
from typing import Any, Final, Self, cast

import attrs

from metering_core.cells import Kept
from metering_core.errors import ErrorCode, InvalidValueError
from metering_core.exact import QUANTITY_BOUND, exact_integer
from metering_core.names import batch_of, name, optional_name, require_column
from metering_core.periods import SECONDS_MAX
from metering_core.usage import SET, Timestamp, UsageRecord, as_action, as_timestamp

_FLAGS: Final = {"increment": 0, "set": 1}
_FIELDS: Final = ("subscription_item", "quantity", "timestamp", "id")


@attrs.frozen
class Batch:
    """Well-formed records, column by column and equally long; ``sets`` has a byte 1 for each
    ``set``.
    """

    item_ids: Sequence[str]
    quantities: Sequence[int]
    timestamps: Sequence[Timestamp]
    sets: bytes
    ids: Sequence[str | None] | None

    @classmethod
    def of_records(cls, records: Iterable[UsageRecord]) -> Self:
        """Take ready records apart.

        Raises:
            InvalidValueError: ``parameter_invalid_object`` for something that is not a usage
                record.
        """
        batch = batch_of(UsageRecord, records, "records")
        item_ids, quantities, timestamps, ids = (
            list(map(attrgetter(field), batch)) for field in _FIELDS
        )
        sets = bytes([record.action is SET for record in batch])
        return cls(item_ids, quantities, timestamps, sets, ids if any(ids) else None)

    @classmethod
    def of_columns(
        cls,
        item_ids: Sequence[Any],
        quantities: Sequence[Any],
        timestamps: Sequence[Any],
        actions: Sequence[Any] | None,
        ids: Sequence[Any] | None,
    ) -> Self:
        """Check columns from outside.

        Raises:
            InvalidValueError: ``param`` names the column, and the row of the first malformed value.
        """
        require_column(item_ids, "subscription_items")
        columns = {
            "quantities": quantities,
            "timestamps": timestamps,
            "actions": actions,
            "ids": ids,
        }
        require_column(quantities, "quantities")
        require_column(timestamps, "timestamps")
        for column, values in columns.items():
            require_length(values, len(item_ids), column)
        return cls(
            _names(item_ids, "subscription_items", name),
            _quantities(quantities),
            _timestamps(timestamps),
            bytes(len(item_ids)) if actions is None else _sets(actions),
            None if ids is None else _ids(ids),
        )

    def __len__(self) -> int:
        """Return the number of records."""
        return len(self.item_ids)


def require_length(values: Sequence[Any] | None, length: int, column: str) -> None:
    """Refuse a column that is longer or shorter than ``subscription_items``."""
    if values is not None and len(require_column(values, column)) != length:
        expected = f"as many values as subscription_items, {length}"
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_OBJECT, column, expected, len(values)
        )


def check_each(values: Sequence[Any], column: str, check: Callable[[Any, str], Any]) -> list[Any]:
    """Check each value of a column, and name the row of the first that fails."""
    return [check(value, f"{column}[{row}]") for row, value in enumerate(values)]


def _names(
    values: Sequence[Any], column: str, check: Callable[[object, str], Any]
) -> Sequence[Any]:
    """Check a column of strings by its distinct values, of which there are few."""
    try:
        distinct = set(values)
        if set(map(type, distinct)) <= {str, NoneType}:
            for value in distinct:
                check(value, column)
            return values
    except Exception:  # noqa: BLE001, S110 - a caller's value may raise anything
        pass
    return check_each(values, column, check)


def _ids(values: Sequence[Any]) -> Sequence[str | None]:
    """Check ids; they are kept, so each has to be a plain string itself, and not only equal
    to one.
    """
    is_plain = set(map(type, values)) <= {str, NoneType}
    return (
        _names(values, "ids", optional_name)
        if is_plain
        else check_each(values, "ids", optional_name)
    )


def _quantities(values: Sequence[Any]) -> Sequence[int]:
    if set(map(type, values)) == {int} and min(values) >= 0 and sum(values) < QUANTITY_BOUND:
        # None of them is longer than their sum, which is sooner made than the greatest is found.
        return values
    return check_each(values, "quantities", exact_integer)


def _timestamps(values: Sequence[Any]) -> Sequence[Timestamp]:
    if set(map(type, values)) == {int} and min(values) >= 0 and max(values) <= SECONDS_MAX:
        return values
    return check_each(values, "timestamps", as_timestamp)


def _sets(values: Sequence[Any]) -> bytes:
    try:
        return bytes(map(_FLAGS.__getitem__, values))
    except (KeyError, TypeError):
        return bytes([action is SET for action in check_each(values, "actions", as_action)])


class RecordStore:
    """Accepted records in the order of arrival, as columns. A row is a position in them.

    How many records there are is said by one number, the length of ``received``, which is written
    last: an append that was cut short left nothing but what :meth:`cut` takes away. Compaction
    makes another store.

    Attributes:
        codes: which item, as the log counts its items.
        timestamps: Unix seconds.
        quantities: in an array, or in a list once one of them exceeds 64 bits.
        sets: 1 where the record is a ``set``.
        received: Unix microseconds.
        attributed: number of a late record → start of the period that it is billed in instead of
            its timestamp's.
        kept: item → start of a compacted period → what is kept of it.
        append: keeps one record (code, timestamp, quantity, 1 for a ``set``, received) and gives it
            the next number.
    """

    __slots__ = (
        "_dropped",
        "_indexed",
        "_rows",
        "_sparse",
        "append",
        "attributed",
        "codes",
        "kept",
        "quantities",
        "received",
        "sets",
        "timestamps",
    )

    def __init__(self) -> None:
        self.codes = array("i")
        self.timestamps = array("q")
        self.quantities: array[int] | list[int] = array("q")
        self.sets = bytearray()
        self.received = array("q")
        self.attributed: dict[int, int] = {}
        self.kept: dict[int, dict[int, Kept]] = {}
        self._dropped = 0
        # The numbers of the rows that the last compaction left; those appended since count on
        # without a gap.
        self._sparse = array("q")
        # Item → its rows, of the first so many rows.
        self._rows: dict[int, array[int]] = {}
        self._indexed = 0
        self._bind()

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.received)

    @property
    def sequence(self) -> int:
        """The number given last."""
        return self._dropped + len(self.received)

    def sequence_of(self, row: int) -> int:
        """Return the number that the log gave to the record at a row."""
        return self._sparse[row] if row < len(self._sparse) else self._dropped + row + 1

    def sequences(self) -> list[int]:
        """Return the numbers of all rows."""
        return [*self._sparse, *range(self._dropped + len(self._sparse) + 1, self.sequence + 1)]

    def rows_with(self, code: int) -> Sequence[int]:
        """Return the rows of an item, in the order of arrival."""
        for row in range(self._indexed, len(self)):
            rows = self._rows.setdefault(self.codes[row], array("q"))
            if (
                not rows or rows[-1] < row
            ):  # pragma: no branch - else it is from a call that was interrupted
                rows.append(row)
        self._indexed = len(self)
        return self._rows.get(code, ())

    def _bind(self) -> None:
        """Make :attr:`append` anew, after a column became another object.

        It is a closure over the columns' own methods because it is called for every single record.
        """
        add_code, add_timestamp, add_quantity = (
            self.codes.append,
            self.timestamps.append,
            self.quantities.append,
        )
        add_set, add_received = self.sets.append, self.received.append

        def append(code: int, timestamp: int, quantity: int, is_set: int, received: int) -> None:
            try:
                add_quantity(quantity)
            except OverflowError:
                self._outgrow()
                self.quantities.append(quantity)
            add_code(code)
            add_timestamp(timestamp)
            add_set(is_set)
            add_received(received)

        self.append = append

    def _outgrow(self) -> None:
        """Keep quantities in a list from now on, because one of them exceeds 64 bits."""
        self.quantities = list(self.quantities)
        self._bind()

    def begin(self, code: int, timestamp: int, quantity: int, is_set: int) -> int:
        """Write one record and return the number it gets; it is kept once its ``received`` is
        written, too.
        """
        try:
            self.quantities.append(quantity)
        except OverflowError:
            self._outgrow()
            self.quantities.append(quantity)
        self.timestamps.append(timestamp)
        self.sets.append(is_set)
        self.codes.append(code)
        return self._dropped + len(self.codes)

    def extend(
        self,
        codes: array[int],
        timestamps: array[int],
        quantities: Sequence[int],
        sets: bytes,
        received: int,
    ) -> None:
        """Keep a batch that arrived at one moment and number it."""
        if isinstance(self.quantities, array):
            try:
                # Converted first: extending an array stops half-way at a value that does not fit.
                self.quantities.extend(array("q", quantities))
            except OverflowError:
                self._outgrow()
                self.quantities.extend(quantities)
        else:
            self.quantities.extend(quantities)
        self.codes.extend(codes)
        self.timestamps.extend(timestamps)
        self.sets.extend(sets)
        self.received.extend(array("q", [received]) * len(codes))

    def cut(self) -> None:
        """Take away what was written of records that were not kept."""
        for column in (self.codes, self.timestamps, self.quantities, self.sets):
            del column[len(self.received) :]
        while self.attributed and next(reversed(self.attributed)) > self.sequence:
            self.attributed.popitem()
        self._bind()

    def without(self, flags: bytes | bytearray, kept: dict[int, dict[int, Kept]]) -> RecordStore:
        """Return the store that compaction leaves: without the rows whose flag is 0, of which this
        is kept.
        """
        left = RecordStore()
        left._sparse = array("q", compress(self.sequences(), flags))
        left._dropped = self._dropped + flags.count(0)
        left.codes = array("i", compress(self.codes, flags))
        left.timestamps = array("q", compress(self.timestamps, flags))
        quantities = compress(self.quantities, flags)
        left.quantities = (
            array("q", quantities) if isinstance(self.quantities, array) else list(quantities)
        )
        left.sets = bytearray(compress(self.sets, flags))
        left.received = array("q", compress(self.received, flags))
        numbers = set(left._sparse) if self.attributed else ()
        left.attributed = {
            number: start for number, start in self.attributed.items() if number in numbers
        }
        left.kept = kept
        left._bind()
        return left

    def values(self) -> Columns:
        """Return the columns as a value."""
        return Columns(
            tuple(self.codes),
            tuple(self.timestamps),
            tuple(self.quantities),
            tuple(map(bool, self.sets)),
            tuple(self.sequences()),
            tuple(self.received),
        )

    @classmethod
    def of(
        cls,
        columns: Columns,
        sequence: int,
        attributed: Mapping[int, int],
        kept: Mapping[int, Mapping[int, Kept]],
    ) -> Self:
        """Build the store that had these values."""
        store = cls()
        store.codes = array("i", columns.codes)
        store.timestamps = array("q", columns.timestamps)
        try:
            store.quantities = array("q", columns.quantities)
        except OverflowError:
            store.quantities = list(columns.quantities)
        store.sets = bytearray(columns.sets)
        store._sparse = array("q", columns.sequences)
        store.received = array("q", columns.received)
        store.attributed = dict(attributed)
        store.kept = {code: dict(periods) for code, periods in kept.items()}
        store._bind()
        store._dropped = sequence - len(columns.codes)
        return store


@attrs.frozen
class Columns:
    """Accepted records as a value, column by column, in the order of arrival; units as in
    :class:`RecordStore`.
    """

    codes: tuple[int, ...]
    timestamps: tuple[int, ...]
    quantities: tuple[int, ...]
    sets: tuple[bool, ...]
    sequences: tuple[int, ...]
    received: tuple[int, ...]


def resolved(timestamps: Sequence[Timestamp], now: int) -> array[int]:
    """Return timestamps in Unix seconds, with ``"now"`` resolved."""
    try:
        return array("q", cast("Sequence[int]", timestamps))
    except TypeError:
        return array("q", [now if timestamp == "now" else timestamp for timestamp in timestamps])

"""Accepted meter events as columns: 20 bytes an event beside its value, and no object per event."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable
from typing import Self

from metering_core.exact import Number


class EventColumns:
    """Accepted events in the order of arrival. A row is a position in the columns.

    Every event and every cancellation takes the next number; numbers are told from the rows and from where cancellations came.

    Attributes:
        codes: which series, as the log counts them.
        moments: Unix microseconds.
        received: Unix microseconds.
        values: what the formula works on.
        append: keeps one event (code, moment, received, value).
    """

    __slots__ = ("_cancellations", "append", "codes", "moments", "received", "values")

    def __init__(self) -> None:
        self.codes = array("i")
        self.moments = array("q")
        self.received = array("q")
        self.values: list[Number | str] = []
        # How many rows there were at each cancellation, ascending.
        self._cancellations = array("q")
        # A closure over the columns' own methods because it is called for every single event.
        add_code, add_moment = self.codes.append, self.moments.append
        add_received, add_value = self.received.append, self.values.append

        def append(code: int, moment: int, received: int, value: Number | str) -> None:
            add_code(code)
            add_moment(moment)
            add_received(received)
            add_value(value)

        self.append = append

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.codes)

    @property
    def sequence(self) -> int:
        """The number given last."""
        return len(self.codes) + len(self._cancellations)

    def sequence_of(self, row: int) -> int:
        """Return the number of the event at a row."""
        return row + 1 + bisect_right(self._cancellations, row)

    def extend(self, codes: array[int], moments: array[int], received: int, values: Iterable[Number | str]) -> None:
        """Keep a batch that arrived at one moment."""
        self.codes.extend(codes)
        self.moments.extend(moments)
        self.received.extend(array("q", [received]) * len(moments))
        self.values.extend(values)

    def cancel(self) -> int:
        """Give the next number to a cancellation."""
        self._cancellations.append(len(self.codes))
        return self.sequence

    @classmethod
    def of(
        cls,
        codes: Iterable[int],
        moments: Iterable[int],
        received: Iterable[int],
        values: Iterable[Number | str],
        cancellations: Iterable[int],
    ) -> Self:
        """Build the columns that had these values; ``cancellations`` says how many rows there were at each, ascending."""
        store = cls()
        store.codes.extend(codes)
        store.moments.extend(moments)
        store.received.extend(received)
        store.values.extend(values)
        store._cancellations.extend(cancellations)
        return store

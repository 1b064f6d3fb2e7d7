"""Accepted meter events as columns: 20 bytes an event beside its value, and no object per event."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable
from typing import Self

from metering_core.exact import Number
from metering_core.meter_events import MeterEventAdjustment


class EventColumns:
    """Accepted events in the order of arrival. A row is a position in the columns.

    How many events there are is said by one number, the length of ``received``, which is written
    last: an append that was cut short left nothing but what :meth:`cut` takes away.

    Every event and every cancellation takes the next number; numbers are told from the rows and
    from where cancellations came.

    Attributes:
        codes: which series, as the log counts them.
        moments: Unix microseconds.
        received: Unix microseconds.
        values: what the formula works on.
        canceled: row → the event's cancellation, in the order in which those came.
    """

    __slots__ = ("_cancellations", "canceled", "codes", "moments", "received", "values")

    def __init__(self) -> None:
        self.codes = array("i")
        self.moments = array("q")
        self.received = array("q")
        self.values: list[Number | str] = []
        self.canceled: dict[int, MeterEventAdjustment] = {}
        # How many rows there were at each cancellation, ascending.
        self._cancellations = array("q")

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.received)

    @property
    def sequence(self) -> int:
        """The number given last."""
        return len(self.received) + len(self.canceled)

    def sequence_of(self, row: int) -> int:
        """Return the number of the event at a row."""
        return row + 1 + bisect_right(self._cancellations, row)

    def begin_all(
        self, codes: array[int], moments: array[int], values: Iterable[Number | str]
    ) -> None:
        """Write a batch; it is kept once its moment of receipt is written for each event, too."""
        self.codes.extend(codes)
        self.moments.extend(moments)
        self.values.extend(values)

    @property
    def last(self) -> int:
        """The row that was written last, kept or not."""
        return len(self.codes) - 1

    def keep(self, count: int, received: int) -> None:
        """Keep so many events that were written, all received at one moment."""
        self.received.extend(array("q", [received]) * count)

    def cut(self) -> None:
        """Take away what was written of events that were not kept."""
        for column in (self.codes, self.moments, self.values):
            del column[len(self.received) :]

    def cancel(self, row: int, adjustment: MeterEventAdjustment) -> None:
        """Keep a cancellation, which has the next number; doing so twice is the same as once."""
        self.canceled[row] = adjustment
        if len(self._cancellations) < len(
            self.canceled
        ):  # pragma: no branch - else a call was interrupted after it
            self._cancellations.append(len(self.received))

    @classmethod
    def of(
        cls,
        codes: Iterable[int],
        moments: Iterable[int],
        received: Iterable[int],
        values: Iterable[Number | str],
        canceled: Iterable[tuple[int, MeterEventAdjustment]],
    ) -> Self:
        """Build the columns that had these values; cancellations by row, in the order in which they
        came.
        """
        store = cls()
        store.codes.extend(codes)
        store.moments.extend(moments)
        store.received.extend(received)
        store.values.extend(values)
        store.canceled.update(canceled)
        store._cancellations.extend(
            one.sequence - 1 - place for place, one in enumerate(store.canceled.values())
        )
        return store

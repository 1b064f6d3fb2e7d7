"""Usage as it is reported: records, and the cells they fold into.

A **cell** is all the usage of one subscription item at one timestamp. Within a cell the order of arrival matters, and
``increment`` and ``set`` form the reset monoid, written here with ``·`` for "then":

    a · (b · c) = (a · b) · c        associative: a cell may be folded piece by piece
    a · nothing = a = nothing · a    the identity is an increment of 0
    a · set(q) = set(q)              a set replaces what was there
    a · inc(q) = a + q               an increment adds to it, also to what was set

It is not commutative, so a cell must stay whole and in order. Across cells nothing depends on order.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Literal, Self

import attrs

from metering_core.exact import Number, add, exact_integer
from metering_core.names import choice, name, optional_name
from metering_core.periods import from_unix_seconds, instant, unix_seconds


class Action(StrEnum):
    """What a record does to the usage at its timestamp: add to it, or overwrite it."""

    INCREMENT = "increment"
    SET = "set"


Timestamp = int | Literal["now"]
"""Unix seconds, or ``"now"`` for the moment at which the log receives the record."""


def _subscription_item(value: object) -> str:
    return name(value, "subscription_item")


def _quantity(value: object) -> int:
    return exact_integer(value, "quantity")


SECONDS_MAX = 253_402_300_799
"""The last second of the year 9999: from 0 up to here an int is an instant without asking the calendar."""


def as_timestamp(value: object, param: str = "timestamp") -> Timestamp:
    """Return Unix seconds (a datetime floored to its second) or ``"now"``; refuse anything else by name."""
    if type(value) is int and 0 <= value <= SECONDS_MAX:
        return value
    if value == "now":
        return "now"
    return unix_seconds(instant(value, param))


def _action(value: object) -> Action:
    return choice(Action, value, "action")


def _record_id(value: object) -> str | None:
    return optional_name(value, "id")


@attrs.frozen
class UsageRecord:
    """A quantity used at a moment, in the shape of Stripe's usage record.

    Attributes:
        subscription_item: the id of the item that was used, 1 to 255 characters.
        quantity: an integer of at least 0. To take usage back, ``set`` the cell to what is right.
        timestamp: Unix seconds. Given as an aware datetime (floored to its second), Unix seconds or ``"now"``.
        action: ``increment`` (the default) or ``set``.
        id: an idempotency key of 1 to 255 characters, unique within the item; None for a record that may be repeated.

    Raises:
        InvalidValueError: ``param`` names the field.

    >>> UsageRecord("si_tokens", 5, timestamp=1571252444)
    UsageRecord(subscription_item='si_tokens', quantity=5, timestamp=1571252444, action=<Action.INCREMENT: 'increment'>, id=None)
    """

    subscription_item: str = attrs.field(converter=_subscription_item)
    quantity: int = attrs.field(converter=_quantity)
    timestamp: Timestamp = attrs.field(default="now", converter=as_timestamp)
    action: Action = attrs.field(default=Action.INCREMENT, converter=_action)
    id: str | None = attrs.field(default=None, converter=_record_id)

    @property
    def instant(self) -> datetime | None:
        """The timestamp as a UTC datetime; None while it is ``"now"``."""
        return None if self.timestamp == "now" else from_unix_seconds(self.timestamp)


@attrs.frozen
class Cell:
    """The usage of one item at one timestamp, folded from some or all of its records.

    Attributes:
        timestamp: Unix seconds.
        quantity: what the records come to; on its own where ``is_set``, else to be added to what was there before.
        is_set: whether a ``set`` was among the records, so that what came before does not count.
    """

    timestamp: int
    quantity: Number = 0
    is_set: bool = False

    @classmethod
    def of(cls, timestamp: int, quantity: Number, action: Action) -> Self:
        """Return the cell of a single record."""
        return cls(timestamp, quantity, action is Action.SET)

    def merge(self, later: Cell) -> Cell:
        """Return this cell and then ``later``: the four equations at the top of this module.

        >>> Cell(60, 5).merge(Cell(60, 10, is_set=True)).merge(Cell(60, 1))
        Cell(timestamp=60, quantity=11, is_set=True)
        """
        assert self.timestamp == later.timestamp, "only records of one timestamp form a cell"
        if later.is_set:
            return later
        return Cell(self.timestamp, add(self.quantity, later.quantity), self.is_set)

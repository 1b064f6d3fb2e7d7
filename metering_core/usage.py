"""Usage as it is reported: records, and the cells they fold into.

A **cell** is all the usage of one subscription item at one timestamp. Within a cell the order of
arrival matters, and ``increment`` and ``set`` form the reset monoid, written here with ``·`` for
"then":

    a · (b · c) = (a · b) · c        associative: a cell may be folded piece by piece
    a · nothing = a = nothing · a    the identity is an increment of 0
    a · set(q) = set(q)              a set replaces what was there
    a · inc(q) = a + q               an increment adds to it, also to what was set

It is not commutative, so a cell must stay whole and in order. Across cells nothing depends on
order.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Literal, Self

import attrs

from metering_core.codec import Storable
from metering_core.errors import ErrorCode, InvalidValueError
from metering_core.exact import QUANTITY_BOUND, Number, add, exact_integer
from metering_core.names import NAME_MAX, choice, name, require_kind, text_of
from metering_core.periods import SECONDS_MAX, Instant, from_unix_seconds, instant, unix_seconds

__all__ = ["Action", "Cell", "UsageRecord"]


class Action(StrEnum):
    """What a record does to the usage at its timestamp: add to it, or overwrite it."""

    INCREMENT = "increment"
    SET = "set"


Timestamp = int | Literal["now"]
"""Unix seconds, or ``"now"`` for the moment at which the log receives the record."""


def as_timestamp(value: object, param: str = "timestamp") -> Timestamp:
    """Return Unix seconds (a datetime floored) or ``"now"``; refuse anything else by name."""
    if type(value) is int and 0 <= value <= SECONDS_MAX:
        return value
    if text_of(value) == "now":
        return "now"
    return unix_seconds(instant(value, param))


SET = Action.SET
"""The member by a plain name: looking it up on the enum costs as much as a dict of records does."""

_ACTIONS = {action.value: action for action in Action}


def as_action(value: object, param: str = "action") -> Action:
    """Return the action that a value names, or refuse it with ``parameter_invalid_choice``."""
    return (
        _ACTIONS[value]
        if type(value) is str and value in _ACTIONS
        else choice(Action, value, param)
    )


@attrs.frozen(init=False)
class UsageRecord(Storable):
    """A quantity used at a moment, in the shape of Stripe's usage record.

    Attributes:
        subscription_item: the id of the item that was used, 1 to 255 characters.
        quantity: an integer of at least 0, of at most 200 digits. To take usage back, ``set`` the
            cell to what is right.
        timestamp: Unix seconds. Given as an aware datetime (floored to its second), Unix seconds or
            ``"now"``.
        action: ``increment`` (the default) or ``set``.
        id: an idempotency key of 1 to 255 characters, unique within the item; None for a record
            that may be repeated.

    Raises:
        InvalidValueError: ``param`` names the field.

    >>> UsageRecord("si_tokens", 5, timestamp=1571252444, id="a")
    UsageRecord(subscription_item='si_tokens', quantity=5, timestamp=1571252444, ..., id='a')
    """

    subscription_item: str
    quantity: int
    timestamp: Timestamp = "now"
    action: Action = Action.INCREMENT
    id: str | None = None

    def __init__(
        self,
        subscription_item: str,
        quantity: int,
        timestamp: Instant | str = "now",
        action: str = "increment",
        id: str | None = None,
    ) -> None:
        # Written by hand because one is built per usage record: the generated one takes three times
        # as long. Each field is filled as it is where that is plainly right; else its check refuses
        # it or makes it right.
        if type(subscription_item) is not str or not 0 < len(subscription_item) <= NAME_MAX:
            subscription_item = name(subscription_item, "subscription_item")
        if type(quantity) is not int or not 0 <= quantity < QUANTITY_BOUND:
            quantity = exact_integer(quantity, "quantity")
        if type(timestamp) is not int or not 0 <= timestamp <= SECONDS_MAX:
            timestamp = as_timestamp(timestamp)
        known = _ACTIONS.get(action) if type(action) is str else None
        _set_item(self, subscription_item)
        _set_quantity(self, quantity)
        _set_timestamp(self, timestamp)
        _set_action(self, as_action(action) if known is None else known)
        _set_id(self, None if id is None else name(id, "id"))

    @property
    def instant(self) -> datetime | None:
        """The timestamp as a UTC datetime; None while it is ``"now"``."""
        return None if self.timestamp == "now" else from_unix_seconds(self.timestamp)


# The slots themselves: what a frozen value is filled through, once.
_set_item, _set_quantity, _set_timestamp, _set_action, _set_id = (
    getattr(UsageRecord, field.name).__set__ for field in attrs.fields(UsageRecord)
)


@attrs.frozen
class Cell(Storable):
    """The usage of one item at one timestamp, folded from some or all of its records.

    Attributes:
        timestamp: Unix seconds.
        quantity: what the records come to; on its own where ``is_set``, else to be added to what
            was there before.
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
        require_kind(Cell, later, "later", f"a Cell of the timestamp {self.timestamp}")
        if self.timestamp != later.timestamp:
            expected = f"a Cell of the timestamp {self.timestamp}"
            raise InvalidValueError.expecting(
                ErrorCode.PARAMETER_INVALID_OBJECT, "later", expected, later
            )
        if later.is_set:
            return later
        return Cell(self.timestamp, add(self.quantity, later.quantity), self.is_set)

"""Usage records and the cells they fold into."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import attrs
import pytest
from builders import START

from metering_core import Action, InvalidValueError, UsageRecord
from metering_core.usage import Cell

LATER = datetime(2024, 1, 1, 0, 0, 5, 999_999, tzinfo=UTC)


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        ("now", "now"),
        (START, START),
        (LATER, START + 5),
        (LATER.astimezone(timezone(timedelta(hours=5, minutes=45))), START + 5),
        (-1, -1),
        (datetime(1969, 12, 31, 23, 59, 59, 1, tzinfo=UTC), -1),
        (253_402_300_799, 253_402_300_799),
    ],
)
def test_timestamps_are_whole_seconds(given, seconds):
    """A datetime is floored to its second, before 1970 too; Unix seconds and "now" stay."""
    assert UsageRecord("si", 1, given).timestamp == seconds


def test_a_record_has_stripes_defaults():
    """Unless said, a record increments, now, without an id; its instant is known once its timestamp
    is.
    """
    record = UsageRecord("si", 0)
    assert attrs.astuple(record) == ("si", 0, "now", Action.INCREMENT, None)
    assert record.instant is None
    assert UsageRecord("si", 0, START).instant == datetime(2024, 1, 1, tzinfo=UTC)


def test_records_are_values():
    """Records are equal by content, hash alike, and cannot be changed."""
    record = UsageRecord("si", 2**80, START, "set", "x" * 255)
    assert record == UsageRecord("si", 2**80, START, Action.SET, "x" * 255)
    assert len({record, attrs.evolve(record), attrs.evolve(record, quantity=1)}) == 2
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        record.quantity = 1


def test_integers_of_other_libraries_become_ints():
    """A quantity that says __index__ is kept as a plain int, and an id or item of a str subclass as
    it is.
    """

    class Five:
        def __index__(self):
            return 5

    class Name(str):
        __slots__ = ()

    record = UsageRecord(Name("si"), Five(), START, id=Name("a"))
    assert type(record.quantity) is int
    assert (record.subscription_item, record.quantity, record.id) == ("si", 5, "a")


@pytest.mark.parametrize(
    ("steps", "quantity", "is_set"),
    [
        ([], 0, False),
        ([("increment", 5), ("increment", 10)], 15, False),
        ([("increment", 5), ("set", 10)], 10, True),
        ([("set", 10), ("increment", 5)], 15, True),
        ([("increment", 5), ("set", 10), ("increment", 1), ("set", 2), ("increment", 3)], 5, True),
        ([("set", 0)], 0, True),
    ],
)
def test_cells_fold_in_the_order_of_arrival(steps, quantity, is_set):
    """An increment adds, a set replaces, and the cell remembers whether what came before still
    counts.
    """
    cell = Cell(START)
    for action, amount in steps:
        cell = cell.merge(Cell.of(START, amount, Action(action)))
    assert cell == Cell(START, quantity, is_set)


def test_cells_of_two_moments_do_not_merge():
    """Only records of one timestamp form a cell."""
    with pytest.raises(
        InvalidValueError, match=rf"^later: expected a Cell of the timestamp {START}, received Cell"
    ):
        Cell(START).merge(Cell(START + 1))

"""Ids, choices and keys: what is checked at the door."""

from __future__ import annotations

from typing import Protocol

import pytest
from builders import START, subscribed

from metering_core import UsageLog
from metering_core.errors import ErrorCode, InvalidValueError
from metering_core.names import (
    NAME_MAX,
    choice,
    known_keys,
    name,
    offers,
    optional_name,
    refuse_slips,
    require_kind,
    require_offer,
    required,
)
from metering_core.usage import Action


@pytest.mark.parametrize("length", [1, 2, NAME_MAX])
def test_names_of_1_to_255_characters_are_taken(length):
    """Both bounds are inclusive; None is a name only where one is optional."""
    assert name("x" * length, "id") == "x" * length
    assert optional_name("x", "id") == "x"
    assert optional_name(None, "id") is None


@pytest.mark.parametrize("value", ["", "x" * 256, None, 7, b"x"])
def test_other_names_are_refused(value):
    """Nothing, too much, and what is no string is refused by its param."""
    with pytest.raises(InvalidValueError) as caught:
        name(value, "id")
    assert (caught.value.code, caught.value.param) == (ErrorCode.PARAMETER_INVALID_STRING, "id")


def test_a_choice_names_the_others():
    """A wrong choice hears the right ones; a member is its own choice."""
    assert choice(Action, "set", "action") is choice(Action, Action.SET, "action") is Action.SET
    with pytest.raises(
        InvalidValueError,
        match=r"action: expected one of 'increment', 'set', received \['set'\] \(list\)",
    ):
        choice(Action, ["set"], "action")


@pytest.mark.parametrize(
    ("data", "param", "said"),
    [
        ({"a": 1, "c": 1, "b": 1}, "", "Received unknown parameter: b"),
        ({"c": 1}, "tiers[0]", "Received unknown parameter: tiers[0][c]"),
        ({5: 1}, "", "Received unknown parameter: 5 (int)"),
        ([], "tiers[0]", "tiers[0]: expected an object, received [] (list)"),
        (None, "", "data: expected an object, received None"),
    ],
)
def test_unknown_keys_are_refused(data, param, said):
    """The first key in order that nothing reads is named with its place; what is no object is
    refused too.
    """
    with pytest.raises(InvalidValueError) as caught:
        known_keys(data, {"a"}, param)
    assert caught.value.message == said


def test_null_is_absent():
    """A required key must be there and not null; 0 and empty are values."""
    assert known_keys({"a": 1}, {"a", "b"}) == {"a": 1}
    assert required({"a": 0}, "a") == 0
    for data in ({}, {"a": None}):
        with pytest.raises(InvalidValueError, match=r"Missing required param: items\[a\]"):
            required(data, "a", "items")


@pytest.mark.parametrize("column", ["Seq", "SEQ ", " seq", "\tseq", "sequ", "seqs", "Sequ"])
def test_slips_in_names_of_columns_are_refused(column):
    """A name that is nearly a known one, in whatever case and with whatever spaces, is no column of
    its own.
    """
    with pytest.raises(InvalidValueError) as caught:
        refuse_slips(["quantity", column], ["quantity", "seq", "Model"], "events")
    assert (caught.value.code, caught.value.param) == (ErrorCode.PARAMETER_UNKNOWN, column)
    assert (
        caught.value.message
        == f"events: received the unknown column {column!r} (did you mean 'seq'?)"
    )


def test_the_nearest_name_is_meant():
    """A slip hears the known name that is nearest, spelt as it is known."""
    with pytest.raises(InvalidValueError, match=r"usage: .*'mode' \(did you mean 'Model'\?\)"):
        refuse_slips(["mode"], ["moderator", "Model"])


@pytest.mark.parametrize(
    "received", [[], ["seq"], ["seq", "region", ""], ["seq", "seqs"], ["seq", "Seq"]]
)
def test_other_unknown_columns_are_passed_over(received):
    """What is near to nothing is not read, nor what is near to a name that is there."""
    refuse_slips(received, ["seq"])


@pytest.mark.parametrize(
    "values",
    ["si_0", b"si_0", {"si_0": 1}, list, 5, None, iter(["si_0"]), (one for one in ["si_0"])],
)
def test_a_column_has_a_length_and_can_be_read_again(values):
    """Text, a map, a class and what can be read only once is no column of items, and the log stays
    empty.
    """
    log = UsageLog([subscribed()])
    with pytest.raises(
        InvalidValueError, match="expected a list, an array or another sequence"
    ) as caught:
        log.append_columns(values, [1], [START], now=START)
    assert (caught.value.code, caught.value.param) == (
        ErrorCode.PARAMETER_INVALID_OBJECT,
        "subscription_items",
    )
    assert len(log) == 0


class Opens(Protocol):
    """What can be opened."""

    @property
    def name(self): ...

    def open(self): ...


class OpensAndShuts(Opens, Protocol):
    """What can be shut, too."""

    def shut(self): ...


class Door:
    """A door, whose name and lock are each door's own."""

    def __init__(self, name="front", **own):
        self.name = name
        vars(self).update(own)

    def open(self):
        return "open"


class Trapped(Door):
    """A door that raises when it is looked at."""

    @property
    def shut(self):
        raise RuntimeError("trapped")


def test_what_a_value_offers_is_asked_of_itself():
    """All names of a protocol count, inherited ones too; what an object has of its own does, and
    what is None does not.
    """
    assert offers(Door(), Opens)
    assert not offers(Door(), OpensAndShuts)
    assert offers(Door(shut=print), OpensAndShuts)
    assert not offers(Door(name=None), Opens)
    assert not offers(Door(shut=print, open=None), OpensAndShuts)


def test_what_a_value_offers_may_change(monkeypatch):
    """Nothing is remembered of a class or an object from the last time that it was asked."""
    door = Door()
    assert not offers(door, OpensAndShuts)
    monkeypatch.setattr(Door, "shut", print, raising=False)
    assert offers(door, OpensAndShuts)
    monkeypatch.setattr(door, "shut", None, raising=False)
    assert not offers(door, OpensAndShuts)


@pytest.mark.parametrize(
    "value", [None, Door(), Trapped(), type("Classy", (Door,), {"name": "x", "shut": print})]
)
def test_what_does_not_offer_enough_is_refused(value):
    """Too little, a class, and what raises when it is asked are refused by param; what offers all
    is returned.
    """
    with pytest.raises(InvalidValueError, match=r"^usage: expected a door, received ") as caught:
        require_offer(OpensAndShuts, value, "usage", "a door")
    assert (caught.value.code, caught.value.param) == (ErrorCode.PARAMETER_INVALID_OBJECT, "usage")
    found = Door(shut=print)
    assert require_offer(OpensAndShuts, found, "usage", "a door") is found


class Hostile:
    """What raises when it is asked of what class it is."""

    @property
    def __class__(self):
        """Raise."""
        raise RuntimeError


def test_a_value_that_raises_when_it_is_asked_for_its_class_is_of_none():
    """What a value raises when its kind is looked for is none of ours: it is refused as what it is
    not.
    """
    with pytest.raises(InvalidValueError) as refused:
        require_kind(Door, Hostile(), "door")
    assert (refused.value.code, refused.value.param) == ("parameter_invalid_object", "door")

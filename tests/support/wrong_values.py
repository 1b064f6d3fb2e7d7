"""Eighty wrong values of every kind, to be passed wherever something is asked for. Each is made
anew: some wear out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import Decimal
from fractions import Fraction
from importlib.util import find_spec


class Own(Exception):  # noqa: N818 - what the caller's own code raises; it leaves our doors as it is
    """Raised by a generator or a map of the caller's own."""


class Unshowable:
    """Raises from its `repr` and `str`, as a lazy row of an ORM does once its session is closed."""

    def __repr__(self) -> str:
        raise Own("repr")


class Row:
    """Raises whenever it is asked for anything that it does not have."""

    def __getattr__(self, name: str) -> object:
        raise Own(name)


class Incomparable:
    """Raises where it is compared."""

    def __eq__(self, other: object) -> bool:
        raise Own("eq")

    def __hash__(self) -> int:
        return 7


class EqualToAll:
    """Says that it equals whatever it is compared with."""

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return hash("now")


class LyingText(str):
    """A text that says it equals everything."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = str.__hash__


class LyingNumber(int):
    """An integer that says it lies between any bounds."""

    def __lt__(self, other: object) -> bool:
        return False

    def __gt__(self, other: object) -> bool:
        return False


class FarZone(tzinfo):
    """A zone thirty hours away, which `datetime` refuses only when it is asked."""

    def utcoffset(self, at: datetime | None) -> timedelta:
        return timedelta(hours=30)


class BrokenZone(tzinfo):
    """A zone that cannot say how far away it is."""

    def utcoffset(self, at: datetime | None) -> timedelta:
        raise LookupError("no offset")


class OddMoment(datetime):
    """A moment of a subclass that says it equals everything."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = datetime.__hash__


class BrokenMap(Mapping[str, object]):
    """A map that raises when a value is looked up."""

    def __getitem__(self, key: str) -> object:
        raise Own("getitem")

    def __iter__(self) -> Iterator[str]:
        return iter(("id", "value"))

    def __len__(self) -> int:
        return 2


class BrokenIndex:
    """An integer, by its own word, that raises when it is asked which."""

    def __index__(self) -> int:
        raise Own("index")


def _nested() -> list[object]:
    deep: list[object] = []
    for _ in range(1000):
        deep = [deep]
    return deep


def _endless() -> list[object]:
    itself: list[object] = []
    itself.append(itself)
    return itself


def _raising() -> Iterator[object]:
    yield None
    raise Own("generator")


def _raising_at_once() -> Iterator[object]:
    raise Own("generator")
    yield


NAIVE = datetime(2024, 1, 1)  # noqa: DTZ001 - the point of it

WRONG: dict[str, Callable[[], object]] = {
    "None": lambda: None,
    "True": lambda: True,
    "float": lambda: 1.5,
    "whole float": lambda: 1.0,
    "nan": lambda: float("nan"),
    "inf": lambda: float("inf"),
    "Decimal nan": lambda: Decimal("NaN"),
    "Decimal snan": lambda: Decimal("sNaN"),
    "Decimal inf": lambda: Decimal("-Infinity"),
    "Decimal of a great exponent": lambda: Decimal("1E+200000"),
    "Decimal of a small exponent": lambda: Decimal("1E-200000"),
    "a third": lambda: Fraction(1, 3),
    "5,000 digits": lambda: 10**5000,
    "100,001 digits": lambda: 10**100_001,
    "301 digits": lambda: 10**300,
    "-301 digits": lambda: -(10**300),
    "a share of 301 digits": lambda: Fraction(1, 10**300 + 1),
    "negative": lambda: -1,
    "64 bits": lambda: 2**64,
    "int subclass": lambda: LyingNumber(10**300),
    "numeral": lambda: "7",
    "long numeral": lambda: "9" * 5000,
    "empty text": lambda: "",
    "long text": lambda: "x" * 100_000,
    "surrogate": lambda: "a\ud800b",
    "nul": lambda: "a\0b",
    "control characters": lambda: "a\n\x1b[8m\u2028\u202e",
    "lying text": lambda: LyingText("day"),
    "naive": lambda: NAIVE,
    "zone of 30 hours": lambda: datetime(2024, 1, 1, tzinfo=FarZone()),
    "broken zone": lambda: datetime(2024, 1, 1, tzinfo=BrokenZone()),
    "first moment": lambda: datetime.min.replace(tzinfo=UTC),
    "last moment": lambda: datetime.max.replace(tzinfo=UTC),
    "datetime subclass": lambda: OddMoment(2024, 1, 1, tzinfo=UTC),
    "timedelta": lambda: timedelta(days=-1),
    "bytes": lambda: b"bytes",
    "unshowable": Unshowable,
    "row": Row,
    "unshowables": lambda: [Unshowable()],
    "incomparable": Incomparable,
    "incomparables": lambda: [Incomparable()],
    "equal to all": EqualToAll,
    "broken index": BrokenIndex,
    "nested": _nested,
    "endless": _endless,
    "raising generator": _raising,
    "generator that raises at once": _raising_at_once,
    "empty list": list,
    "lists": lambda: [[1]],
    "huge numbers": lambda: [10**5000],
    "surrogates": lambda: ["\ud800"],
    "rows": lambda: [Row()],
    "odd keys": lambda: {1: 2, None: 3, ("a",): 4},
    "unshowable key": lambda: {Unshowable(): 1},
    "empty map": dict,
    "class": lambda: dict,
    "lambda": lambda: lambda *args, **options: None,
    "ellipsis": lambda: ...,
    "long range": lambda: range(10**12),
    "broken map": BrokenMap,
    "set": lambda: {1, "a"},
    "pair": lambda: (1, 2),
    "complex": lambda: 1j,
    "object": object,
}

if find_spec("numpy"):
    import numpy as np

    WRONG |= {
        "numpy int": lambda: np.int64(5),
        "numpy bool": lambda: np.bool_(1),
        "numpy float": lambda: np.float64(0.5),
        "numpy nan": lambda: np.array([float("nan")]),
        "0-d array": lambda: np.array(5),
        "array": lambda: np.array([1, 2]),
        "array of arrays": lambda: np.zeros((2, 2)),
        "array of objects": lambda: np.array([Unshowable(), None], dtype=object),
        "flags in two dimensions": lambda: np.ones((1, 1), np.bool_),
        "half floats": lambda: np.array([1], np.float16),
        "complex numbers": lambda: np.array([1j]),
        "no moment": lambda: np.array(["NaT"], "M8[s]"),
        "masked": lambda: np.ma.array([1], mask=[True]),
        "records": lambda: np.array([(1, 2)], [("a", int), ("b", int)]),
        "numpy moment": lambda: np.datetime64("2024-01-01"),
    }

if find_spec("pandas"):
    import pandas as pd

    WRONG |= {
        "timestamp of nanoseconds": lambda: pd.Timestamp("2024-01-01T00:00:00.000000001Z"),
        "NaT": lambda: pd.NaT,
        "NA": lambda: pd.NA,
        "series": lambda: pd.Series([1, 2]),
    }

"""Values as plain data and back: one codec, read from the fields of a class and their types.

A value that is :class:`Storable` says nothing about how it is written. Its fields do: each has a
type, each type one row that writes and reads it, and rows of compound types are made of those of
their parts. So a new field is written as soon as it is there. What is written is what JSON takes as
it is, and exact: decimals and fractions in digits, instants in Unix seconds (in ISO 8601 where a
part of a second is in them), durations in seconds, members by their value.

Reading trusts nothing. What a type does not allow is refused with the key at fault, in Stripe's
notation from the outside in (``lines[0][charge][kind]``); what only a constructor knows to refuse
is refused by it, and placed here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from functools import cache, partial
from types import NoneType, UnionType
from typing import (
    Any,
    ClassVar,
    Final,
    Literal,
    Protocol,
    Self,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import attrs

from metering_core.errors import ErrorCode, InvalidValueError, describe
from metering_core.exact import plain
from metering_core.names import choice, flag, known_keys, require_object, text_of

Kind = Any
"""The class of what is written or read."""

Json = Any
"""What ``json.loads`` makes of a text, or anything else until it was read."""

_DIGITS_MAX: Final = 4000
"""Digits that a number may have: more than any bill comes to, and fewer than Python converts."""
_DEPTH_MAX: Final = 20
"""How deep data may be nested that is kept as it is."""


class Shared(Protocol):
    """Values of one kind that a document writes once, and refers to wherever they stand."""

    @property
    def kind(self) -> type:
        """Of which kind they are."""

    @property
    def is_of_log(self) -> bool:
        """Whether the document is a log's own, which remembers what is beside its values."""

    def refer(self, value: Any) -> Json:
        """Write a value once, and return how it is referred to."""

    def resolve(self, reference: Json, param: str) -> Any:
        """Return the value that is referred to, or refuse."""


@attrs.frozen
class Row:
    """How values of one type are written and read.

    Attributes:
        write: makes plain data of a value.
        read: makes a value of plain data, given the name of its place, or refuses.
    """

    write: Callable[[Any, Shared | None], Json]
    read: Callable[[Json, str, Shared | None], Any]


class Storable:
    """A value that is written as plain data and read again: by its fields, one key for each."""

    __slots__ = ()

    computed: ClassVar[tuple[str, ...]] = ()
    """Properties that are written beside the fields, for those who read; data that says otherwise
    is refused.
    """
    stripe_object: ClassVar[str] = ""
    """What Stripe calls an object of this shape, written as ``object``; empty where it is ours."""

    def to_dict(self) -> dict[str, Any]:
        """Write the value as plain data that ``json.dumps`` takes; ``from_dict`` reads it."""
        return write_fields(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what ``to_dict`` wrote.

        Raises:
            InvalidValueError: ``param`` names the key, from the outside in.
        """
        value: Self = read_fields(cls, data)
        return value


_OF_LOG: Final = "is_of_log"
OF_LOG: Final = {_OF_LOG: True}
"""The metadata of a field that only a log's own document holds."""


class _Field:
    """A field of a class, as it is written."""

    def __init__(self, attribute: attrs.Attribute[Any], hint: object) -> None:
        self.name = attribute.name
        self.key = attribute.alias or attribute.name
        self.row = row_of(hint)
        self.is_required = attribute.default is attrs.NOTHING
        self.is_beside = not attribute.eq
        self.is_of_log = attribute.metadata.get(_OF_LOG, False)

    def writes(self, value: object, shared: Shared | None) -> bool:
        """Whether a value is written: what does not make its owner what it is only where it is
        there; and what a log knows beside it only by the log, so that engines write the same
        invoice, byte for byte.
        """
        if self.is_of_log and (shared is None or not shared.is_of_log):
            return False
        return value is not None or not self.is_beside


@cache
def _fields_of(kind: Kind) -> tuple[_Field, ...]:
    hints = get_type_hints(kind)
    return tuple(_Field(one, hints[one.name]) for one in attrs.fields(kind) if one.init)


def write_fields(value: Storable, shared: Shared | None = None) -> dict[str, Any]:
    """Write a value by its fields."""
    kind: Kind = type(value)
    found = ((field, getattr(value, field.name)) for field in _fields_of(kind))
    written = {
        field.key: field.row.write(it, shared) for field, it in found if field.writes(it, shared)
    }
    return written | _computed_of(value)


def _computed_of(value: Storable) -> dict[str, Json]:
    named = {"object": value.stripe_object} if value.stripe_object else {}
    return named | {name: _write_anything(getattr(value, name)) for name in value.computed}


def read_fields(kind: Kind, data: object, shared: Shared | None = None, beside: str = "") -> Any:
    """Read a value by its fields, with keys beside them that are somebody else's to read."""
    fields = _fields_of(kind)
    stated = ("object", *kind.computed) if kind.stripe_object else kind.computed
    known = {*(field.key for field in fields), *stated, beside}
    given = known_keys(data, known)
    values = {}
    for field in fields:
        if field.key in given:
            values[field.key] = field.row.read(given[field.key], field.key, shared)
        elif field.is_required:
            message = f"Missing required param: {field.key}"
            raise InvalidValueError(ErrorCode.PARAMETER_MISSING, message, param=field.key)
    value = kind(**values)
    for name, computed in _computed_of(value).items():
        _require_same(computed, given.get(name), name)
    return value


def _require_same(computed: object, given: object, param: str) -> None:
    if given is not None and (type(given), given) != (type(computed), computed):
        expected = f"{computed!r}, which the rest comes to"
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_OBJECT, param, expected, given
        )


@contextmanager
def within(param: str) -> Iterator[None]:
    """Place what is refused within an object: ``payload`` in ``event`` is ``event[payload]``."""
    try:
        yield
    except InvalidValueError as error:
        inner = error.param or ""
        first, bracket, rest = inner.partition("[")
        place = f"{param}[{first}]{bracket}{rest}" if inner else param
        message = error.message
        if inner and message.startswith(inner):
            message = place + message.removeprefix(inner)
        elif inner and message.endswith(f": {inner}"):  # As Stripe's sentences do.
            message = message.removesuffix(inner) + place
        raise InvalidValueError(error.code, message, param=place, details=error.details) from error


# Rows ---------------------------------------------------------------------------------------------


def _as_it_is(value: object, shared: Shared | None) -> Json:
    return value


def _refuse(code: ErrorCode, param: str, expected: str, received: object) -> InvalidValueError:
    return InvalidValueError.expecting(code, param, expected, received)


def read_text(data: Json, param: str, shared: Shared | None = None) -> str:
    """Return a text, or refuse what is none."""
    text = text_of(data)
    if text is None:
        raise _refuse(ErrorCode.PARAMETER_INVALID_STRING, param, "a string", data)
    return text


def _read_flag(data: Json, param: str, shared: Shared | None) -> bool:
    return flag(data, param)


def _read_integer(data: Json, param: str, shared: Shared | None) -> int:
    if type(data) is not int or data.bit_length() > 3 * _DIGITS_MAX:
        raise _refuse(ErrorCode.PARAMETER_INVALID_INTEGER, param, "an integer", data)
    return data


_NUMBER: Final = re.compile(r"-?\d+(\.\d+|/\d+)?", re.ASCII)
"""Not a number that a few characters make huge: an exponent is never written."""


def write_exact(number: Any, shared: Shared | None = None) -> int | str:
    """Write an exact number so that it is read as what it was: an int as it is, a decimal or a
    fraction in digits.
    """
    if isinstance(number, int):
        return number
    return str(number) if isinstance(number, Fraction) else plain(number)


def read_exact(data: Json, param: str, shared: Shared | None = None) -> Any:
    """Return the number that :func:`write_exact` wrote."""
    text = text_of(data)
    if text is None:
        return _read_integer(data, param, shared)
    is_long = len(text) > _DIGITS_MAX
    denominator = text.partition("/")[2]
    if is_long or not _NUMBER.fullmatch(text) or (denominator and not int(denominator)):
        expected = 'a number, in digits such as "0.5" or "1/3"'
        raise _refuse(ErrorCode.PARAMETER_INVALID_DECIMAL, param, expected, data)
    return Fraction(text) if denominator else Decimal(text)


def _read_decimal(data: Json, param: str, shared: Shared | None) -> Decimal:
    number = read_exact(data, param, shared)
    if isinstance(number, Fraction):
        raise _refuse(ErrorCode.PARAMETER_INVALID_DECIMAL, param, "a decimal number", data)
    return Decimal(number)


def _read_fraction(data: Json, param: str, shared: Shared | None) -> Fraction:
    return Fraction(read_exact(data, param, shared))


_MICROSECOND: Final = timedelta(microseconds=1)


def _write_duration(value: timedelta, shared: Shared | None) -> int | str:
    whole, rest = divmod(value, timedelta(seconds=1))
    return plain(Fraction(value // _MICROSECOND, 10**6)) if rest else whole


def _read_duration(data: Json, param: str, shared: Shared | None) -> timedelta:
    microseconds = Fraction(read_exact(data, param, shared)) * 10**6
    try:
        if microseconds.denominator == 1:
            return microseconds.numerator * _MICROSECOND
    except OverflowError:
        pass
    expected = "seconds, in microseconds at the finest"
    raise _refuse(ErrorCode.PARAMETER_INVALID_DECIMAL, param, expected, data)


def _write_anything(value: object, shared: Shared | None = None) -> Json:
    """Write what may be anything: what JSON has as it is, of all else what it is described as."""
    if value is None or type(value) in {bool, int}:
        return value
    text = text_of(value)
    if text is not None:
        return text
    if isinstance(value, Mapping):
        return {str(key): _write_anything(one, shared) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_write_anything(one, shared) for one in value]
    return describe(value)


def _read_anything(data: Json, param: str, shared: Shared | None = None, depth: int = 0) -> Json:
    if data is None or isinstance(data, bool):
        return data
    if isinstance(data, str):
        return read_text(data, param, shared)
    if isinstance(data, Mapping) and depth < _DEPTH_MAX:
        return {
            read_text(key, param, shared): _read_anything(one, f"{param}[{key}]", shared, depth + 1)
            for key, one in data.items()
        }
    if isinstance(data, list) and depth < _DEPTH_MAX:
        return [
            _read_anything(one, f"{param}[{place}]", shared, depth + 1)
            for place, one in enumerate(data)
        ]
    return _read_integer(data, param, shared)


ROWS: Final[dict[object, Row]] = {
    str: Row(_as_it_is, read_text),
    bool: Row(_as_it_is, _read_flag),
    int: Row(_as_it_is, _read_integer),
    Decimal: Row(write_exact, _read_decimal),
    Fraction: Row(write_exact, _read_fraction),
    timedelta: Row(_write_duration, _read_duration),
    Any: Row(_write_anything, _read_anything),
}
"""The rows of types that have no parts. Who makes a type that is written otherwise adds its row
where the type is at home, as :mod:`~metering_core.periods` does for instants.
"""

_EXACT: Final = frozenset({int, Decimal, Fraction})


def row_of(hint: Any) -> Row:
    """Return the row of a type; of a compound one it is made of the rows of its parts.

    Raises:
        TypeError: for a type that cannot be written: its class has to say how, or be none of those
            that are stored.
    """
    if hint in ROWS:
        return ROWS[hint]
    origin, parts = get_origin(hint), get_args(hint)
    if origin in {UnionType, Union}:
        return _row_of_union(parts)
    if origin is tuple and parts[1:] == (...,):
        return _row_of_many(row_of(parts[0]))
    if origin is tuple:
        return _row_of_few([row_of(part) for part in parts])
    if isinstance(origin, type) and issubclass(origin, Mapping):
        key, value = map(row_of, parts)
        return _row_of_mapping(value) if parts[0] is str else _row_of_pairs(key, value)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return _row_of_choice(hint)
    if isinstance(hint, type) and hasattr(hint, "from_dict"):
        return _row_of_object(hint)
    raise TypeError(f"nothing says how {hint} is written")


def _row_of_union(parts: Sequence[Any]) -> Row:
    """Return the row of one of several types, which what is written must tell apart."""
    kinds = [part for part in parts if part is not NoneType]
    row = _row_of_kinds(kinds)
    if len(kinds) == len(parts):
        return row
    return Row(
        lambda value, shared: None if value is None else row.write(value, shared),
        lambda data, param, shared: None if data is None else row.read(data, param, shared),
    )


def _row_of_kinds(kinds: Sequence[Any]) -> Row:
    if len(kinds) == 1:
        return row_of(kinds[0])
    if set(kinds) <= _EXACT:
        return Row(write_exact, read_exact)
    if all(isinstance(kind, type) and issubclass(kind, StrEnum) for kind in kinds):
        return _row_of_choices(kinds)
    if kinds[0] is int and get_origin(kinds[1]) is Literal:
        words = get_args(kinds[1])
        return Row(
            _as_it_is,
            lambda data, param, shared: (
                data if text_of(data) in words else _read_integer(data, param, shared)
            ),
        )
    raise TypeError(f"nothing tells {kinds} apart")


def _row_of_choice(kind: type[StrEnum]) -> Row:
    return Row(lambda value, _: value.value, lambda data, param, _: choice(kind, data, param))


def _row_of_choices(kinds: Sequence[type[StrEnum]]) -> Row:
    """Return the row of members of several classes, which may have equal values: those of all but
    the first are written after the name of their class, ``formula:sum``.
    """
    first, *others = kinds
    named = {
        id(member): f"{kind.__name__.lower()}:{member.value}" for kind in others for member in kind
    }
    members = {named[id(member)]: member for kind in others for member in kind}

    def write(value: StrEnum, _: Shared | None) -> str:
        return value.value if isinstance(value, first) else named[id(value)]

    def read(data: Json, param: str, _: Shared | None) -> StrEnum:
        return members.get(text_of(data) or "") or choice(first, data, param)

    return Row(write, read)


def require_list(data: object, param: str) -> list[Any] | tuple[Any, ...]:
    """Return a list, or refuse what is none."""
    if not isinstance(data, list | tuple):
        raise _refuse(ErrorCode.PARAMETER_INVALID_OBJECT, param, "a list", data)
    return data


def _row_of_many(row: Row) -> Row:
    return Row(
        lambda values, shared: [row.write(value, shared) for value in values],
        lambda data, param, shared: tuple(
            row.read(one, f"{param}[{place}]", shared)
            for place, one in enumerate(require_list(data, param))
        ),
    )


def _row_of_few(rows: Sequence[Row]) -> Row:
    def read(data: Json, param: str, shared: Shared | None) -> tuple[Any, ...]:
        given = require_list(data, param)
        if len(given) != len(rows):
            code = ErrorCode.PARAMETER_INVALID_OBJECT
            raise _refuse(code, param, f"a list of {len(rows)}", data)
        return tuple(
            row.read(one, f"{param}[{place}]", shared)
            for place, (row, one) in enumerate(zip(rows, given, strict=True))
        )

    return Row(
        lambda values, shared: [
            row.write(value, shared) for row, value in zip(rows, values, strict=True)
        ],
        read,
    )


def _row_of_mapping(row: Row) -> Row:
    def read(data: Json, param: str, shared: Shared | None) -> dict[str, Any]:
        return {
            read_text(key, param, shared): row.read(one, f"{param}[{key}]", shared)
            for key, one in require_object(data, param).items()
        }

    return Row(
        lambda values, shared: {key: row.write(value, shared) for key, value in values.items()},
        read,
    )


def _row_of_pairs(key: Row, value: Row) -> Row:
    """Return the row of a mapping whose keys are no texts: a list of pairs."""
    pairs = _row_of_many(_row_of_few([key, value]))
    return Row(
        lambda values, shared: pairs.write(values.items(), shared),
        lambda data, param, shared: dict(pairs.read(data, param, shared)),
    )


def _row_of_object(kind: Kind) -> Row:
    """Return the row of a class that says how it is written, or leaves that to its fields."""

    def write(value: Any, shared: Shared | None) -> Json:
        if shared is not None and kind is shared.kind:
            return shared.refer(value)
        return write_fields(value, shared) if isinstance(value, Storable) else value.to_dict()

    def read(data: Json, param: str, shared: Shared | None) -> Any:
        if shared is not None and kind is shared.kind:
            return shared.resolve(data, param)
        is_storable = issubclass(kind, Storable)
        read_it = partial(read_fields, kind, shared=shared) if is_storable else kind.from_dict
        given = require_object(data, param)
        with within(param):
            return read_it(given)

    return Row(write, read)

"""Ids, choices and keys: what is checked at the door and is no number and no instant."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence, Sized
from collections.abc import Set as AbstractSet
from enum import StrEnum
from functools import cache
from os import PathLike, fspath
from typing import Any, TypeGuard, TypeVar, cast

from metering_core.errors import ErrorCode, InvalidValueError, describe

NAME_MAX = 255
"""Characters an id or a name may have (Stripe's limit for an ``Idempotency-Key``)."""

Choice = TypeVar("Choice", bound=StrEnum)
Element = TypeVar("Element")


def text_of(value: object) -> str | None:
    """Return a text as a plain ``str``, or None for what is no text.

    A subclass may say of itself what it likes, that it equals everything, say; what is kept says
    nothing but its characters.

    >>> from metering_core import Action
    >>> text_of(Action.SET), text_of(7)
    ('set', None)
    """
    if type(value) is str:
        return value
    return str.__str__(value) if isinstance(value, str) else None


def name(value: object, param: str, maximum: int = NAME_MAX) -> str:
    """Return a string of 1 to ``maximum`` characters, or refuse what is none."""
    text = text_of(value)
    if text is None or not 1 <= len(text) <= maximum:
        expected = f"a string of 1 to {maximum} characters"
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_STRING, param, expected, value
        )
    return text


def optional_name(value: object, param: str) -> str | None:
    """Return None, or what :func:`name` returns."""
    return None if value is None else name(value, param)


def choice(kind: type[Choice], value: object, param: str) -> Choice:
    """Return the member of ``kind`` that is named, or refuse with ``parameter_invalid_choice``."""
    if isinstance(value, kind):
        return value
    # Looked for by its text: what the value itself would say to a comparison is not asked.
    member = kind._value2member_map_.get(text_of(value))
    if member is None:
        names = ", ".join(repr(member.value) for member in kind)
        code = ErrorCode.PARAMETER_INVALID_CHOICE
        raise InvalidValueError.expecting(code, param, f"one of {names}", value)
    return cast("Choice", member)


def known_keys(data: object, known: AbstractSet[str], param: str = "") -> Mapping[str, Any]:
    """Return ``data`` where it is a mapping that has no key but the known ones.

    A typing slip must not pass for an absent option.

    Raises:
        InvalidValueError: ``parameter_invalid_object`` or, with Stripe's words,
            ``parameter_unknown``.
    """
    unknown = unknown_keys(require_object(data, param or "data"), known)
    if unknown:
        place = f"{param}[{unknown[0]}]" if param else unknown[0]
        raise InvalidValueError(
            ErrorCode.PARAMETER_UNKNOWN, f"Received unknown parameter: {place}", param=place
        )
    return cast("Mapping[str, Any]", data)


def unknown_keys(data: Mapping[Any, Any], known: Collection[str]) -> list[str]:
    """Return the keys that are none of the known ones, sorted; one that is no text is described."""
    return sorted(text_of(key) or describe(key) for key in data if text_of(key) not in known)


def require_object(data: object, param: str, expected: str = "an object") -> Mapping[str, Any]:
    """Return a mapping, or refuse what is none with ``parameter_invalid_object``."""
    return require_kind(Mapping, data, param, expected)


def refuse_slips(received: Collection[str], known: Collection[str], param: str = "usage") -> None:
    """Refuse an unknown name that is nearly that of a known one which is not there, also but for
    case and spaces around it.

    Other unknown names are passed over: a wide table has columns that nobody reads.

    Raises:
        InvalidValueError: ``parameter_unknown``.

    >>> refuse_slips(["id", "ids", "region"], ["id", "action"])
    >>> refuse_slips(["id", "Action"], ["id", "action"])
    Traceback (most recent call last):
    metering_core.errors.InvalidValueError: usage: ... 'Action' (did you mean 'action'?)
    """
    # Imported here: it takes its time, and nobody needs it until a table is read.
    from difflib import get_close_matches  # noqa: PLC0415

    absent = {folded(one): one for one in known if one not in received}
    for column in received:
        meant = (
            [] if column in known else get_close_matches(folded(column), absent, n=1, cutoff=0.8)
        )
        if meant:
            message = (
                f"{param}: received the unknown column {column!r} (did you mean "
                f"{absent[meant[0]]!r}?)"
            )
            raise InvalidValueError(ErrorCode.PARAMETER_UNKNOWN, message, param=column)


def folded(column: str) -> str:
    """Return a name without case and outer blanks, by which slips differ from what was meant."""
    return column.strip().casefold()


def require_kind(kind: type[Element], value: object, param: str, expected: str = "") -> Element:
    """Return what is of a kind, or refuse it with ``parameter_invalid_object``.

    ``expected`` says what was expected where the kind's name does not.
    """
    try:
        if isinstance(value, kind) and not isinstance(value, type):
            return value
    except Exception:  # noqa: BLE001, S110 - a caller's value may raise anything
        pass
    article = "an" if kind.__name__[0] in "AEIO" else "a"
    code = ErrorCode.PARAMETER_INVALID_OBJECT
    raise InvalidValueError.expecting(code, param, expected or f"{article} {kind.__name__}", value)


def offers(value: object, ability: type[Element]) -> TypeGuard[Element]:
    """Say whether a value has all that a protocol names, None aside: what an engine is asked before
    it is asked for more.

    An ``isinstance`` would say the same, but looks the names up in each class of the protocol every
    time.
    """
    names = _names_of(ability)  # type: ignore[arg-type]  # a class has a hash
    return all(getattr(value, attribute, None) is not None for attribute in names)


@cache
def _names_of(ability: type) -> tuple[str, ...]:
    return tuple(
        dict.fromkeys(
            one for base in ability.__mro__ for one in vars(base) if not one.startswith("_")
        )
    )


def require_offer(ability: type[Element], value: object, param: str, expected: str) -> Element:
    """Return what :func:`offers` a protocol, or refuse with ``parameter_invalid_object``."""
    try:
        if offers(value, ability) and not isinstance(value, type):
            return value
    except Exception:  # noqa: BLE001, S110 - as in require_kind
        pass
    raise InvalidValueError.expecting(ErrorCode.PARAMETER_INVALID_OBJECT, param, expected, value)


def path_of(value: object, param: str) -> str:
    """Return a path as it is written, or refuse what is none with ``parameter_invalid_object``."""
    given = fspath(value) if isinstance(value, str | PathLike) else None
    if not isinstance(given, str):
        expected = "a path, as a string or an object with __fspath__"
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_OBJECT, param, expected, value
        )
    return str.__str__(given)


def require_iterable(values: Iterable[Element], param: str) -> Iterable[Element]:
    """Return ``values``, or refuse what cannot be iterated with ``parameter_invalid_object``."""
    try:
        iter(values)
    except TypeError:  # Asked, not looked up: an array of no dimension has the method, too.
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_OBJECT, param, "an iterable", values
        ) from None
    return values


def each_of(kind: type[Element], values: object, param: str, expected: str = "") -> list[Element]:
    """Return some values of one kind as a list, or refuse the first that is not with
    ``parameter_invalid_object``.

    They are looked at as they come, so that the first wrong one is the last that is drawn, however
    many would follow.
    """
    given: Iterable[object] = require_iterable(values, param)  # type: ignore[arg-type]
    kept: list[Element] = []
    for value in given:
        # The place is written where it is wanted only: there may be millions of values.
        kept.append(
            value
            if isinstance(value, kind)
            else require_kind(kind, value, f"{param}[{len(kept)}]", expected)
        )
    return kept


def batch_of(kind: type[Element], values: Iterable[Element], param: str) -> list[Element]:
    """Return a batch as a list, as :func:`each_of`; a plain list or tuple in one pass."""
    if type(values) in {list, tuple} and set(map(type, values)) <= {kind}:
        return list(values)
    return each_of(kind, values, param)


def require_column(values: object, param: str) -> Sequence[Any]:
    """Return values with a length, readable twice, or refuse: ``parameter_invalid_object``."""
    if isinstance(values, Sized) and not isinstance(values, str | bytes | Mapping | type):
        require_iterable(values, param)  # type: ignore[arg-type]
        return values  # type: ignore[return-value]  # an array is no Sequence by name
    expected = "a list, an array or another sequence"
    raise InvalidValueError.expecting(ErrorCode.PARAMETER_INVALID_OBJECT, param, expected, values)


def require_function(value: object, param: str, expected: str) -> None:
    """Refuse what cannot be called, with ``parameter_invalid_object``."""
    if not callable(value):
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_OBJECT, param, f"a function that {expected}", value
        )


def flag(value: object, param: str) -> bool:
    """Return True or False as it is, or refuse anything else with ``parameter_invalid_choice``."""
    if not isinstance(value, bool):
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_CHOICE, param, "True or False", value
        )
    return value


def required(data: Mapping[str, Any], key: str, param: str = "") -> Any:
    """Return ``data[key]``, or refuse its absence, or null, as ``parameter_missing``."""
    if data.get(key) is None:
        place = f"{param}[{key}]" if param else key
        raise InvalidValueError(
            ErrorCode.PARAMETER_MISSING, f"Missing required param: {place}", param=place
        )
    return data[key]

"""Ids, named choices and the keys of objects: what is checked at the door and is not a number or an instant."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from collections.abc import Set as AbstractSet
from enum import StrEnum
from typing import Any, TypeVar

from metering_core.errors import ErrorCode, InvalidValueError

NAME_MAX = 255
"""Characters an id or a name may have (Stripe's limit for an ``Idempotency-Key``)."""

Choice = TypeVar("Choice", bound=StrEnum)


def name(value: object, param: str) -> str:
    """Return a string of 1 to 255 characters, or refuse it with ``parameter_invalid_string``."""
    if not isinstance(value, str) or not 1 <= len(value) <= NAME_MAX:
        expected = f"a string of 1 to {NAME_MAX} characters"
        raise InvalidValueError.expecting(ErrorCode.PARAMETER_INVALID_STRING, param, expected, value)
    return value


def optional_name(value: object, param: str) -> str | None:
    """Return None, or what :func:`name` returns."""
    return None if value is None else name(value, param)


def choice(kind: type[Choice], value: object, param: str) -> Choice:
    """Return the member of ``kind`` that ``value`` names, or refuse it with ``parameter_invalid_choice``."""
    try:
        return kind(value)  # type: ignore[arg-type]  # whatever it is, the lookup refuses it
    except ValueError:
        names = ", ".join(repr(member.value) for member in kind)
        code = ErrorCode.PARAMETER_INVALID_CHOICE
        raise InvalidValueError.expecting(code, param, f"one of {names}", value) from None


def known_keys(data: object, known: AbstractSet[str], param: str = "") -> Mapping[str, Any]:
    """Return ``data`` where it is a mapping that has no key but the known ones.

    A typing slip must not pass for an absent option.

    Raises:
        InvalidValueError: ``parameter_invalid_object`` or, with Stripe's words, ``parameter_unknown``.
    """
    if not isinstance(data, Mapping):
        raise InvalidValueError.expecting(ErrorCode.PARAMETER_INVALID_OBJECT, param or "data", "an object", data)
    unknown = sorted(str(key) for key in data.keys() - known)
    if unknown:
        place = f"{param}[{unknown[0]}]" if param else unknown[0]
        raise InvalidValueError(ErrorCode.PARAMETER_UNKNOWN, f"Received unknown parameter: {place}", param=place)
    return data


def refuse_slips(received: Collection[str], known: Collection[str], param: str = "usage") -> None:
    """Refuse an unknown name that is nearly that of a known one which is not there, also but for case and spaces around it.

    Other unknown names are passed over: a wide table has columns that nobody reads.

    Raises:
        InvalidValueError: ``parameter_unknown``.

    >>> refuse_slips(["id", "ids", "region"], ["id", "action"])
    >>> refuse_slips(["id", "Action"], ["id", "action"])
    Traceback (most recent call last):
    metering_core.errors.InvalidValueError: usage: received the unknown column 'Action' (did you mean 'action'?)
    """
    from difflib import get_close_matches  # noqa: PLC0415 - it takes its time, and nobody needs it until a table is read

    absent = {folded(one): one for one in known if one not in received}
    for column in received:
        meant = [] if column in known else get_close_matches(folded(column), absent, n=1, cutoff=0.8)
        if meant:
            message = f"{param}: received the unknown column {column!r} (did you mean {absent[meant[0]]!r}?)"
            raise InvalidValueError(ErrorCode.PARAMETER_UNKNOWN, message, param=column)


def folded(column: str) -> str:
    """Return a name without the case of its letters and the blanks around it, in which slips differ from what was meant."""
    return column.strip().casefold()


Element = TypeVar("Element")


def require_kind(kind: type, value: object, param: str, expected: str = "") -> None:
    """Refuse what is not of a kind, with ``parameter_invalid_object``; ``expected`` says it where the kind's name does not."""
    if not isinstance(value, kind):
        code = ErrorCode.PARAMETER_INVALID_OBJECT
        raise InvalidValueError.expecting(code, param, expected or f"a {kind.__name__}", value)


def require_iterable(values: Iterable[Element], param: str) -> Iterable[Element]:
    """Return ``values``, or refuse what cannot be iterated with ``parameter_invalid_object``."""
    if not isinstance(values, Iterable):
        raise InvalidValueError.expecting(ErrorCode.PARAMETER_INVALID_OBJECT, param, "an iterable", values)
    return values


def required(data: Mapping[str, Any], key: str, param: str = "") -> Any:  # noqa: ANN401 - whatever the data holds
    """Return ``data[key]``, or refuse its absence (or null) with ``parameter_missing``, in Stripe's words."""
    if data.get(key) is None:
        place = f"{param}[{key}]" if param else key
        raise InvalidValueError(ErrorCode.PARAMETER_MISSING, f"Missing required param: {place}", param=place)
    return data[key]

"""The state of a log as plain, versioned data, and back.

A snapshot is a dict that ``json.dumps`` takes as it is; equal logs give equal text. Its version is
that of the format: every release restores every version that was ever written, and refuses one that
it does not know. A checksum over the content finds damage before anything is built.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, cast

from metering_core.book import Clock
from metering_core.errors import ErrorCode, InvalidValueError, SnapshotError, describe
from metering_core.log import UsageLog
from metering_core.meter_log import MeterLog
from metering_core.names import require_kind, text_of
from metering_core.prices import Price
from metering_core.snapshots import meters as meter_snapshots
from metering_core.snapshots import usage as usage_snapshots
from metering_core.snapshots.earlier import in_todays_shape

VERSIONS: Final = {of.FORMAT: of.VERSION for of in (meter_snapshots, usage_snapshots)}
"""The newest version of each format. Older ones are read for ever."""


def snapshot(log: UsageLog | MeterLog) -> dict[str, Any]:
    """Return everything a log holds as plain data, ready for ``json.dumps``.

    The clock is not part of it. A price with a pricing model of the user's own is kept by its id,
    and must be given to :func:`restore` or :func:`restore_meter_log`.

    Raises:
        InvalidValueError: ``parameter_invalid_object`` for anything else, such as a view or another
            engine.
    """
    if isinstance(log, MeterLog):
        kind, content = meter_snapshots.FORMAT, meter_snapshots.write_content(log.state())
    elif isinstance(log, UsageLog):
        kind, content = usage_snapshots.FORMAT, usage_snapshots.write_content(log.state())
    else:
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_OBJECT, "log", "a UsageLog or a MeterLog", log
        )
    return {
        "format": kind,
        "version": VERSIONS[kind],
        "checksum": _checksum(content),
        "content": content,
    }


def restore(
    data: Mapping[str, Any],
    *,
    clock: Clock | None = None,
    prices: Mapping[str, Price] | None = None,
) -> UsageLog:
    """Build the usage log that :func:`snapshot` described; it equals the original.

    Args:
        data: the snapshot, also after a round trip through JSON.
        clock: the new log's clock.
        prices: by id, those prices whose pricing model is the user's own.

    Raises:
        InvalidValueError: for ``prices`` that are no mapping of prices.
        SnapshotError: ``snapshot_version_unknown``, ``snapshot_damaged`` (also where it describes a
            meter log) or ``snapshot_needs_price``. No log was built.
    """
    own = _with_own_models(prices)
    with _whole(data, usage_snapshots.FORMAT) as content:
        return UsageLog.from_state(usage_snapshots.read_content(content, own), clock=clock)


def restore_meter_log(
    data: Mapping[str, Any],
    *,
    clock: Clock | None = None,
    prices: Mapping[str, Price] | None = None,
) -> MeterLog:
    """Build the meter log that :func:`snapshot` described; it equals the original, and so do its
    views of the past.

    Args:
        data: the snapshot, also after a round trip through JSON.
        clock: the new log's clock.
        prices: by id, those prices whose pricing model is the user's own.

    Raises:
        InvalidValueError: for ``prices`` that are no mapping of prices.
        SnapshotError: ``snapshot_version_unknown``, ``snapshot_damaged`` (also where it describes a
            usage log) or ``snapshot_needs_price``. No log was built.
    """
    own = _with_own_models(prices)
    with _whole(data, meter_snapshots.FORMAT) as content:
        return MeterLog.from_state(meter_snapshots.read_content(content, own), clock=clock)


def _with_own_models(prices: Mapping[str, Price] | None) -> Mapping[str, Price]:
    """Return the prices by id that were given, none unless they were; or refuse what is no map."""
    given = {} if prices is None else prices
    for price in require_kind(Mapping, given, "prices", "a mapping of prices by id").values():
        require_kind(Price, price, "prices")
    return given


@contextmanager
def _whole(data: Mapping[str, Any], kind: str) -> Iterator[object]:
    """Hand out the content of a snapshot of a kind; what is wrong with it, or found to be while it
    is read, is damage.
    """
    given = data.get("format") if isinstance(data, Mapping) else data
    if not isinstance(data, Mapping) or text_of(given) != kind:
        raise _damaged(
            f"format: expected {kind!r}, received {describe(given)}{_meant(data, given)}", "format"
        )
    version, newest = data.get("version"), VERSIONS[kind]
    if type(version) is not int or not 1 <= version <= newest:
        message = f"version: expected 1 to {newest}, received {describe(version)}"
        raise SnapshotError(ErrorCode.SNAPSHOT_VERSION_UNKNOWN, message, param="version")
    content = data.get("content")
    if text_of(data.get("checksum")) != _checksum(content):
        raise _damaged("checksum: expected that of the content", "checksum")
    try:
        yield content if version == newest else in_todays_shape(cast("Mapping[str, Any]", content))
    except (
        InvalidValueError,
        KeyError,
        TypeError,
        ValueError,
        IndexError,
        AttributeError,
        ArithmeticError,
    ) as error:
        raise _damaged(f"content: expected what snapshot() writes ({error})", "content") from error


def _meant(data: object, given: object) -> str:
    """Return which function takes what was given instead of a snapshot, as an ending of a sentence;
    empty where none does.
    """
    if isinstance(data, str | bytes | bytearray):
        return " (give the object that json.loads makes of the text)"
    restorers = {usage_snapshots.FORMAT: "restore", meter_snapshots.FORMAT: "restore_meter_log"}
    name = restorers.get(given) if isinstance(given, str) else None
    return "" if name is None else f" ({name} restores that)"


def _checksum(content: object) -> str:
    import hashlib  # noqa: PLC0415 - like json: few take snapshots
    import json  # noqa: PLC0415

    try:
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    except (TypeError, ValueError, RecursionError) as error:
        raise _damaged(f"content: expected plain JSON data ({error})", "content") from error
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def _damaged(message: str, param: str) -> SnapshotError:
    return SnapshotError(ErrorCode.SNAPSHOT_DAMAGED, message, param=param)

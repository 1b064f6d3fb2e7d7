"""The state of a log as plain, versioned data, and back.

A snapshot is a dict that ``json.dumps`` takes as it is; equal logs give equal text. Its version is that of the format: every
release restores every version that was ever written, and refuses one that it does not know. A checksum over the content finds
damage before anything is built.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any, Final

import attrs

from metering_core.acceptance import AcceptancePolicy
from metering_core.accounts import Closing, Sent
from metering_core.aggregators import Partial
from metering_core.cells import Kept
from metering_core.columns import Columns
from metering_core.errors import ErrorCode, InvalidValueError, SnapshotError
from metering_core.log import Clock, LogState, UsageLog
from metering_core.names import known_keys
from metering_core.periods import BillingPeriod, from_unix_seconds, unix_seconds
from metering_core.prices import AggregateUsage, Price
from metering_core.subscriptions import Subscription, SubscriptionItem

FORMAT: Final = "metering_core.usage_log"
VERSION: Final = 1


def snapshot(log: UsageLog) -> dict[str, Any]:
    """Return everything a log holds as plain data, ready for ``json.dumps``.

    The clock is not part of it. A price with a pricing model of the user's own is kept by its id, and must be given to
    :func:`restore`.
    """
    content = _content(log.state())
    return {"format": FORMAT, "version": VERSION, "checksum": _checksum(content), "content": content}


def restore(data: Mapping[str, Any], *, clock: Clock | None = None, prices: Mapping[str, Price] | None = None) -> UsageLog:
    """Build the log that :func:`snapshot` described; it equals the original.

    Args:
        data: the snapshot, also after a round trip through JSON.
        clock: the new log's clock.
        prices: by id, those prices whose pricing model is the user's own.

    Raises:
        SnapshotError: ``snapshot_version_unknown``, ``snapshot_damaged`` or ``snapshot_needs_price``. No log was built.
    """
    if not isinstance(data, Mapping) or data.get("format") != FORMAT:
        raise _damaged(f"format: expected {FORMAT!r}", "format")
    if data.get("version") != VERSION or type(data["version"]) is not int:
        message = f"version: expected {VERSION}, received {data.get('version')!r}"
        raise SnapshotError(ErrorCode.SNAPSHOT_VERSION_UNKNOWN, message, param="version")
    content = data.get("content")
    if data.get("checksum") != _checksum(content):
        raise _damaged("checksum: expected that of the content", "checksum")
    try:
        state = _state(content, prices or {})
        _check(state)
        return UsageLog.from_state(state, clock=clock)
    except (InvalidValueError, KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        raise _damaged(f"content: expected what snapshot() writes ({error})", "content") from error


def _checksum(content: object) -> str:
    import hashlib  # noqa: PLC0415 - here, like json, because few who import the package take snapshots
    import json  # noqa: PLC0415

    try:
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    except (TypeError, ValueError) as error:
        raise _damaged(f"content: expected plain JSON data ({error})", "content") from error
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def _damaged(message: str, param: str) -> SnapshotError:
    return SnapshotError(ErrorCode.SNAPSHOT_DAMAGED, message, param=param)


# Writing -------------------------------------------------------------------------------------------------------------


def _content(state: LogState) -> dict[str, Any]:
    policy = state.policy
    return {
        "policy": {
            "future_tolerance": policy.future_tolerance // _SECOND,
            "late_grace": policy.late_grace // _SECOND,
            "late_attribution": policy.late_attribution.value,
        },
        "subscriptions": [_subscription_fields(subscription) for subscription in state.subscriptions],
        "items": [
            {"subscription": owner, "item": None if is_active else _item_fields(item), "id": item.id}
            for item, owner, is_active in state.items
        ],
        "records": {name: list(map(int, column)) for name, column in attrs.asdict(state.columns).items()},
        "attributed": [[sequence, at] for sequence, at in sorted(state.attributed.items())],
        "ids": {
            item: {record_id: list(map(int, attrs.astuple(sent))) for record_id, sent in ids.items()}
            for item, ids in state.ids.items()
        },
        "closed": {
            owner: [[*_bounds(closing.period), *_moment(closing.closed_at)] for closing in closings]
            for owner, closings in state.closed.items()
        },
        "compacted": {
            item: [[start, _kept_fields(kept)] for start, kept in sorted(periods.items())]
            for item, periods in state.kept.items()
        },
        "sequence": state.sequence,
    }


def _subscription_fields(subscription: Subscription) -> dict[str, Any]:
    thresholds = subscription.billing_thresholds
    ended_at, start_date = subscription.ended_at, subscription.start_date
    return {
        "id": subscription.id,
        "items": [_item_fields(item) for item in subscription.items],
        "billing_cycle_anchor": unix_seconds(subscription.billing_cycle_anchor),
        "billing_thresholds": None if thresholds is None else thresholds.to_dict(),
        "currency": subscription.currency,
        "ended_at": None if ended_at is None else unix_seconds(ended_at),
        "start_date": None if start_date is None else unix_seconds(start_date),
        "timezone": subscription.timezone,
    }


def _item_fields(item: SubscriptionItem) -> dict[str, Any]:
    try:
        return item.to_dict()
    except InvalidValueError:
        thresholds = item.billing_thresholds
        return {
            "id": item.id,
            "price": item.price.id,
            "quantity": item.quantity,
            "billing_thresholds": None if thresholds is None else thresholds.to_dict(),
        }


def _kept_fields(kept: Kept) -> dict[str, Any]:
    return {
        "bounds": list(kept.bounds),
        "sequences": list(kept.sequences),
        "received": list(kept.received),
        "partials": {mode.value: list(part) if isinstance(part, tuple) else part for mode, part in kept.partials.items()},
    }


_SECOND: Final = timedelta(seconds=1)


def _bounds(period: BillingPeriod) -> tuple[int, int]:
    return period.start_seconds, period.end_seconds


def _moment(at: datetime) -> tuple[int, int]:
    return unix_seconds(at), at.microsecond


# Reading -------------------------------------------------------------------------------------------------------------


_CONTENT_KEYS: Final = frozenset(
    {"attributed", "closed", "compacted", "ids", "items", "policy", "records", "sequence", "subscriptions"}
)


def _state(content: Any, prices: Mapping[str, Price]) -> LogState:  # noqa: ANN401 - damaged data can be anything
    known_keys(content, _CONTENT_KEYS, "content")
    policy = content["policy"]
    subscriptions = tuple(_subscription(fields, prices) for fields in content["subscriptions"])
    by_id = {subscription.id: subscription for subscription in subscriptions}
    return LogState(
        policy=AcceptancePolicy(
            future_tolerance=timedelta(seconds=policy["future_tolerance"]),
            late_grace=timedelta(seconds=policy["late_grace"]),
            late_attribution=policy["late_attribution"],
        ),
        subscriptions=subscriptions,
        items=tuple(_item(fields, by_id, prices) for fields in content["items"]),
        columns=_columns(content["records"]),
        attributed={_whole(sequence): _whole(at) for sequence, at in content["attributed"]},
        ids={item: {record_id: _sent(*fields) for record_id, fields in ids.items()} for item, ids in content["ids"].items()},
        closed={owner: tuple(_closing(*fields) for fields in closings) for owner, closings in content["closed"].items()},
        kept={item: {start: _kept(fields) for start, fields in periods} for item, periods in content["compacted"].items()},
        sequence=_whole(content["sequence"]),
    )


def _columns(records: Mapping[str, Any]) -> Columns:
    codes, timestamps, quantities, sets, sequences, received = (
        tuple(map(_whole, records[field.name])) for field in attrs.fields(Columns)
    )
    return Columns(codes, timestamps, quantities, tuple(map(bool, sets)), sequences, received)


def _whole(value: object) -> int:
    if type(value) is not int:
        raise TypeError(f"{value!r} is not an integer")
    return value


def _needs_price(fields: Mapping[str, Any], prices: Mapping[str, Price]) -> None:
    price = fields["price"]
    if isinstance(price, str) and price not in prices:
        message = f"prices: expected {price!r}, whose pricing model is not one of the four, received {sorted(prices)}"
        raise SnapshotError(ErrorCode.SNAPSHOT_NEEDS_PRICE, message, param="prices")


def _subscription(fields: Mapping[str, Any], prices: Mapping[str, Price]) -> Subscription:
    for item in fields["items"]:
        _needs_price(item, prices)
    return Subscription.from_dict(fields, prices)


def _item(
    fields: Mapping[str, Any], subscriptions: Mapping[str, Subscription], prices: Mapping[str, Price]
) -> tuple[SubscriptionItem, str, bool]:
    owner = fields["subscription"]
    if fields["item"] is None:
        return subscriptions[owner].item(fields["id"]), owner, True
    _needs_price(fields["item"], prices)
    if owner not in subscriptions:
        raise ValueError(f"an item belongs to the unknown subscription {owner!r}")
    return SubscriptionItem.from_dict(fields["item"], prices), owner, False


def _sent(sequence: int, timestamp: int, quantity: int, is_set: int, as_now: int) -> Sent:
    return Sent(_whole(sequence), _whole(timestamp), _whole(quantity), bool(is_set), bool(as_now))


def _closing(start: int, end: int, seconds: int, microseconds: int) -> Closing:
    return Closing(BillingPeriod(start, end), from_unix_seconds(seconds).replace(microsecond=microseconds))


def _kept(fields: Mapping[str, Any]) -> Kept:
    partials = {mode: _partial(fields["partials"][mode.value]) for mode in AggregateUsage}
    return Kept(partials, _pair(fields["bounds"]), _pair(fields["sequences"]), _pair(fields["received"]))


def _partial(value: Any) -> Partial:  # noqa: ANN401 - damaged data can be anything
    return _pair(value) if isinstance(value, list | tuple) else _whole(value)


def _pair(values: Any) -> tuple[int, int]:  # noqa: ANN401 - damaged data can be anything
    low, high = values
    return _whole(low), _whole(high)


def _check(state: LogState) -> None:
    """Hold the state to what appending makes sure of."""
    _check_columns(state)
    known = [item.id for item, _, _ in state.items]
    active = {item.id for item, _, is_active in state.items if is_active}
    if len(set(known)) < len(known) or active != {item.id for owner in state.subscriptions for item in owner.items}:
        raise ValueError("the items are not those of the subscriptions")
    owners = {subscription.id for subscription in state.subscriptions}
    if not (state.ids.keys() | state.kept.keys() <= set(known) and state.closed.keys() <= owners):
        raise ValueError("ids, totals or closed periods belong to nothing here")
    numbers = [sent.sequence for ids in state.ids.values() for sent in ids.values()]
    if not all(1 <= number <= state.sequence for number in numbers):
        raise ValueError("an id was given to no record")
    if not state.attributed.keys() <= set(state.columns.sequences):
        raise ValueError("a late record is not among the records")


def _check_columns(state: LogState) -> None:
    columns = state.columns
    sequences = columns.sequences
    if len({len(column) for column in attrs.astuple(columns, recurse=False)}) != 1:
        raise ValueError("the columns differ in length")
    if not all(0 <= code < len(state.items) for code in columns.codes) or min(columns.quantities, default=0) < 0:
        raise ValueError("a record names no item, or has a negative quantity")
    if any(left >= right for left, right in pairwise(sequences)):
        raise ValueError("the sequence does not ascend")
    for stamps, unit in ((columns.timestamps, 1), (columns.received, 10**6)):
        for stamp in (min(stamps, default=0), max(stamps, default=0)):
            from_unix_seconds(stamp // unit)
    if [0, *sequences][-1] > state.sequence or min(sequences, default=1) < 1:
        raise ValueError("the sequence exceeds the last number")

"""What a snapshot of a :class:`~metering_core.UsageLog` holds."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Final

import attrs

from metering_core.acceptance import AcceptancePolicy
from metering_core.accounts import Sent
from metering_core.cells import Kept
from metering_core.columns import Columns
from metering_core.exact import read_whole
from metering_core.log import LogState
from metering_core.measures import AGGREGATORS
from metering_core.names import known_keys
from metering_core.prices import AggregateUsage, Price, PriceTable
from metering_core.snapshots.fields import (
    closed_fields,
    read_closed,
    read_count,
    read_item,
    read_prices,
    read_subscription,
    require_each,
    require_moments,
    wholes,
)
from metering_core.subscriptions import (
    Subscription,
    SubscriptionItem,
    item_fields,
    subscription_fields,
)

FORMAT: Final = "metering_core.usage_log"
VERSION: Final = 3
"""Invoices of closed periods are kept from version 2 on, each price once from version 3 on."""

_FIRST_MODES: Final = (
    AggregateUsage.SUM,
    AggregateUsage.MAX,
    AggregateUsage.LAST_DURING_PERIOD,
    AggregateUsage.LAST_EVER,
)
"""What periods were compacted to before there were other modes; their records are gone, so it is
all they can be asked.
"""

# Writing ------------------------------------------------------------------------------------------


def write_content(state: LogState) -> dict[str, Any]:
    """Write a state as plain data."""
    table = PriceTable(is_of_log=True)
    return {
        "policy": state.policy.to_dict(),
        "subscriptions": [subscription_fields(one, table) for one in state.subscriptions],
        "items": [
            {
                "subscription": owner,
                "item": None if is_active else item_fields(item, table),
                "id": item.id,
            }
            for item, owner, is_active in state.items
        ],
        "records": {
            name: list(map(int, column)) for name, column in attrs.asdict(state.columns).items()
        },
        "attributed": [[sequence, at] for sequence, at in sorted(state.attributed.items())],
        "ids": {
            item: {
                record_id: list(map(int, attrs.astuple(sent))) for record_id, sent in ids.items()
            }
            for item, ids in state.ids.items()
        },
        "closed": closed_fields(state.closed, table),
        "compacted": {
            item: [[start, _kept_fields(kept)] for start, kept in sorted(periods.items())]
            for item, periods in state.kept.items()
        },
        "sequence": state.sequence,
        "told": state.told,
        "prices": table.written,
    }


def _kept_fields(kept: Kept) -> dict[str, Any]:
    return {
        "bounds": list(kept.bounds),
        "sequences": list(kept.sequences),
        "received": list(kept.received),
        "partials": {
            mode.value: AGGREGATORS[mode].write(part) for mode, part in kept.partials.items()
        },
    }


# Reading ------------------------------------------------------------------------------------------


_CONTENT_KEYS: Final = frozenset(
    {
        "attributed",
        "closed",
        "compacted",
        "ids",
        "items",
        "policy",
        "prices",
        "records",
        "sequence",
        "subscriptions",
        "told",
    }
)


def read_content(content: Any, prices: Mapping[str, Price]) -> LogState:
    """Return the state, held to what appending makes sure of; whatever is raised says that the data
    is damaged.
    """
    known_keys(content, _CONTENT_KEYS, "content")
    table = read_prices(content["prices"], prices)
    subscriptions = tuple(read_subscription(fields, table) for fields in content["subscriptions"])
    by_id = {subscription.id: subscription for subscription in subscriptions}
    state = LogState(
        policy=AcceptancePolicy.from_dict(require_each(AcceptancePolicy, content["policy"])),
        subscriptions=subscriptions,
        items=tuple(_item(fields, by_id, table) for fields in content["items"]),
        columns=_columns(content["records"]),
        attributed={read_whole(sequence): read_whole(at) for sequence, at in content["attributed"]},
        ids={
            item: {record_id: _sent(*fields) for record_id, fields in ids.items()}
            for item, ids in content["ids"].items()
        },
        closed=read_closed(content["closed"], table),
        kept={
            item: {read_whole(start): _kept(fields) for start, fields in periods}
            for item, periods in content["compacted"].items()
        },
        sequence=read_whole(content["sequence"]),
        told=read_count(content["told"]),
    )
    _check(state)
    return state


def _columns(records: Mapping[str, Any]) -> Columns:
    codes, timestamps, quantities, sets, sequences, received = (
        wholes(records[field.name]) for field in attrs.fields(Columns)
    )
    return Columns(codes, timestamps, quantities, tuple(map(bool, sets)), sequences, received)


def _item(
    fields: Mapping[str, Any],
    subscriptions: Mapping[str, Subscription],
    table: PriceTable,
) -> tuple[SubscriptionItem, str, bool]:
    owner = fields["subscription"]
    if fields["item"] is None:
        return subscriptions[owner].item(fields["id"]), owner, True
    item = read_item(fields["item"], table)
    if owner not in subscriptions:
        raise ValueError(f"an item belongs to the unknown subscription {owner!r}")
    return item, owner, False


def _sent(sequence: int, timestamp: int, quantity: int, is_set: int, as_now: int) -> Sent:
    return Sent(
        read_whole(sequence),
        read_whole(timestamp),
        read_whole(quantity),
        bool(is_set),
        bool(as_now),
    )


def _kept(fields: Mapping[str, Any]) -> Kept:
    written = fields["partials"]
    is_old = written.keys() == {mode.value for mode in _FIRST_MODES}
    # Peaks are kept of what is billed by them; without another mode the data is damaged.
    modes = {
        mode: row
        for mode, row in AGGREGATORS.items()
        if mode.value in written or not (is_old or row.window_seconds)
    }
    partials = {mode: row.read(written[mode.value]) for mode, row in modes.items()}
    return Kept(
        partials, _pair(fields["bounds"]), _pair(fields["sequences"]), _pair(fields["received"])
    )


def _pair(values: Any) -> tuple[int, int]:
    low, high = values
    return read_whole(low), read_whole(high)


def _check(state: LogState) -> None:
    _check_columns(state)
    known = [item.id for item, _, _ in state.items]
    active = {item.id for item, _, is_active in state.items if is_active}
    if len(set(known)) < len(known) or active != {
        item.id for owner in state.subscriptions for item in owner.items
    }:
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
    if (
        not all(0 <= code < len(state.items) for code in columns.codes)
        or min(columns.quantities, default=0) < 0
    ):
        raise ValueError("a record names no item, or has a negative quantity")
    if any(left >= right for left, right in pairwise(sequences)):
        raise ValueError("the sequence does not ascend")
    require_moments(columns.timestamps, 1)
    require_moments(columns.received, 10**6)
    if [0, *sequences][-1] > state.sequence or min(sequences, default=1) < 1:
        raise ValueError("the sequence exceeds the last number")

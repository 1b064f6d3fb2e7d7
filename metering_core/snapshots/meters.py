"""What a snapshot of a :class:`~metering_core.MeterLog` holds."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import Any, Final

import attrs

from metering_core.exact import read_number, read_whole, written
from metering_core.measures import Aggregator, formula_of
from metering_core.meter_acceptance import MeterPolicy, Reading, is_customer, read
from metering_core.meter_bills import Bill, Part, replaced
from metering_core.meter_events import MeterEventAdjustment
from metering_core.meter_state import EventRows, MeterLogState
from metering_core.meters import Meter, short_name
from metering_core.names import known_keys
from metering_core.periods import MICROSECONDS, BillingPeriod, from_unix_seconds, moment
from metering_core.prices import Price, PriceTable
from metering_core.pricing import ChargeKind
from metering_core.snapshots.fields import (
    bounds,
    closed_fields,
    known,
    read_closed,
    read_count,
    read_prices,
    read_subscription,
    require_each,
    require_moments,
    wholes,
)
from metering_core.subscriptions import subscription_fields

FORMAT: Final = "metering_core.meter_log"
VERSION: Final = 3
"""Invoices of closed periods, what bills charged and under which price are known from version 2 on;
each price is there once from version 3 on.
"""

_EPOCH: Final = from_unix_seconds(0)

# Writing ------------------------------------------------------------------------------------------


def write_content(state: MeterLogState) -> dict[str, Any]:
    """Write a state as plain data."""
    rows, table = state.rows, PriceTable(is_of_log=True)
    rows_of = {meter.id: formula_of(meter) for meter in state.meters}
    return {
        "policy": state.policy.to_dict(),
        "meters": [meter.to_dict() for meter in state.meters],
        "customers": None if state.customers is None else sorted(state.customers),
        "subscriptions": [subscription_fields(one, table) for one in state.subscriptions],
        "items": dict(sorted(state.items.items())),
        "series": [
            [meter, customer, list(dimensions)] for meter, customer, dimensions in state.series
        ],
        "events": {
            "codes": list(rows.codes),
            "moments": list(rows.moments),
            "received": list(rows.received),
            "values": [
                value if isinstance(value, str) else written(value) for value in rows.values
            ],
            "identifiers": list(rows.identifiers),
            "payloads": [
                None if payload is None else dict(sorted(payload.items()))
                for payload in rows.payloads
            ],
            "as_now": list(map(int, rows.as_now)),
        },
        "cancellations": [
            [row, one.sequence, moment(one.canceled_at, "canceled_at")[1]]
            for row, one in state.in_order_of_cancellation()
        ],
        "closed": closed_fields(state.closed, table),
        "bills": [_bill_fields(*bill, rows_of[bill[2].meter], table) for bill in state.bills],
        # Only where there are some, so that what was written before is written alike.
        **({"heirs": dict(sorted(state.heirs.items()))} if state.heirs else {}),
        "sequence": state.sequence,
        "told": state.told,
        "prices": table.written,
    }


def _bill_fields(
    item: str, period: BillingPeriod, bill: Bill, row: Aggregator, table: PriceTable
) -> dict[str, Any]:
    carried = sorted(
        (*bounds(earlier), written(quantity)) for earlier, quantity in bill.carried.items()
    )
    settled = (
        None
        if bill.settled is None
        else [_settled_field(one, bill.settled[one]) for one in sorted(bill.settled, key=bounds)]
    )
    return {
        "subscription_item": item,
        "price": None if bill.price is None else table.refer(bill.price),
        "settled": settled,
        "period": list(bounds(period)),
        "meter": bill.meter,
        "partial": row.write(bill.partial),
        "quantity": written(bill.quantity),
        "carried": list(map(list, carried)),
        "sequence": bill.sequence,
        "made_at": bill.made_at,
    }


def _settled_field(period: BillingPeriod, amounts: Mapping[Part, int]) -> list[object]:
    return [*bounds(period), [[*part, amount] for part, amount in amounts.items()]]


# Reading ------------------------------------------------------------------------------------------

_CONTENT_KEYS: Final = frozenset(
    {
        "bills",
        "cancellations",
        "closed",
        "customers",
        "events",
        "heirs",
        "items",
        "meters",
        "policy",
        "prices",
        "sequence",
        "series",
    }
    | {"subscriptions", "told"}
)


def read_content(content: Any, prices: Mapping[str, Price]) -> MeterLogState:
    """Return the state, held to what appending makes sure of; whatever is raised says that the data
    is damaged.
    """
    known_keys(content, _CONTENT_KEYS, "content")
    table = read_prices(content["prices"], prices)
    given = tuple(known(Meter.from_dict(fields)) for fields in content["meters"])
    meters = {meter.id: meter for meter in given}
    series = tuple(
        (meter, _text(customer), tuple(map(_text, rest)))
        for meter, customer, rest in content["series"]
    )
    measuring = [meters[meter] for meter, _, _ in series]
    rows = _rows(content["events"], measuring)
    customers = content["customers"]
    state = MeterLogState(
        policy=MeterPolicy.from_dict(require_each(MeterPolicy, content["policy"])),
        meters=given,
        customers=None if customers is None else frozenset(map(_text, customers)),
        subscriptions=tuple(
            read_subscription(fields, table) for fields in content["subscriptions"]
        ),
        items={item: _text(owner) for item, owner in content["items"].items()},
        heirs={item: _text(heir) for item, heir in content.get("heirs", {}).items()},
        series=series,
        rows=rows,
        canceled=_canceled(content["cancellations"], rows, measuring),
        closed=read_closed(content["closed"], table),
        bills=tuple(
            _bill(fields, number, meters, table)
            for number, fields in enumerate(content["bills"], 1)
        ),
        told=read_count(content["told"]),
    )
    _check(state, meters, read_whole(content["sequence"]))
    return state


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a string")
    return value


def _rows(events: Mapping[str, Any], measuring: list[Meter]) -> EventRows:
    codes, moments, received = (wholes(events[name]) for name in ("codes", "moments", "received"))
    read_value = [
        _text if formula_of(meter).takes == "text" else read_number for meter in measuring
    ]
    return EventRows(
        codes,
        moments,
        received,
        tuple(read_value[code](value) for code, value in zip(codes, events["values"], strict=True)),
        tuple(
            None if one is None else short_name(one, "identifier") for one in events["identifiers"]
        ),
        tuple(None if one is None else _payload(one) for one in events["payloads"]),
        tuple(map(bool, wholes(events["as_now"]))),
    )


def _payload(fields: Mapping[str, Any]) -> Mapping[str, str]:
    return MappingProxyType({key: _text(value) for key, value in fields.items()})


def _canceled(
    fields: list[list[int]], rows: EventRows, measuring: list[Meter]
) -> dict[int, MeterEventAdjustment]:
    canceled = {}
    for row, sequence, at in fields:
        event_name, identifier = measuring[rows.codes[row]].event_name, _text(rows.identifiers[row])
        canceled_at = _EPOCH + timedelta(microseconds=read_whole(at))
        canceled[row] = MeterEventAdjustment(
            event_name, identifier, read_whole(sequence), canceled_at
        )
    if len(canceled) < len(fields):
        raise ValueError("an event was canceled twice")
    return canceled


def _bill(
    fields: Mapping[str, Any], number: int, meters: Mapping[str, Meter], table: PriceTable
) -> tuple[str, BillingPeriod, Bill]:
    aggregator = formula_of(meters[fields["meter"]])
    partial = aggregator.read(fields["partial"])
    quantity = read_number(fields["quantity"])
    if quantity != max(aggregator.present(partial), 0):
        raise ValueError("a bill's quantity is not what its partial comes to")
    carried = {BillingPeriod(start, end): read_number(of) for start, end, of in fields["carried"]}
    sequence, made_at = read_whole(fields["sequence"]), read_whole(fields["made_at"])
    # Version 1 knew neither of the two.
    price = None if fields["price"] is None else table.resolve(fields["price"], "price")
    settled = None if fields.get("settled") is None else dict(map(_settled, fields["settled"]))
    if price is None and settled is not None:
        raise ValueError("a bill knows what it charged and not under which price")
    bill = Bill(
        fields["meter"], partial, quantity, carried, sequence, price, settled, made_at, number
    )
    return fields["subscription_item"], BillingPeriod(*fields["period"]), bill


def _settled(value: Any) -> tuple[BillingPeriod, dict[Part, int]]:
    start, end, amounts = value
    settled = {_part(*part): read_whole(amount) for *part, amount in amounts}
    if len(settled) < len(amounts):
        raise ValueError("a part of a price was charged twice")
    return BillingPeriod(start, end), settled


def _part(kind: object, tier: object, label: object) -> Part:
    return (
        ChargeKind(_text(kind)).value,
        None if tier is None else read_whole(tier),
        None if label is None else _text(label),
    )


def _check(state: MeterLogState, meters: Mapping[str, Meter], sequence: int) -> None:
    if state.sequence != sequence:
        raise ValueError("the events and cancellations are not as many as there are numbers")
    if len({len(column) for column in attrs.astuple(state.rows, recurse=False)}) != 1:
        raise ValueError("the columns differ in length")
    _check_series(state, meters)
    _check_events(state, meters)
    _check_cancellations(state)
    _check_subscriptions(state, meters)
    _check_heirs(state)
    _check_bills(state)


def _check_series(state: MeterLogState, meters: Mapping[str, Meter]) -> None:
    if list(dict.fromkeys(state.rows.codes)) != list(range(len(state.series))) or len(
        set(state.series)
    ) < len(state.series):
        raise ValueError("the series are not those of the events, in the order in which they came")
    for meter, customer, dimensions in state.series:
        if not is_customer(customer, state.customers):
            raise ValueError(f"{customer!r} is no customer whose events are taken")
        if len(dimensions) != len(meters[meter].dimension_payload_keys):
            raise ValueError(f"{dimensions} are not the values of the dimensions of {meter!r}")


def _check_events(state: MeterLogState, meters: Mapping[str, Meter]) -> None:
    rows = state.rows
    require_moments(rows.moments, MICROSECONDS)
    require_moments(rows.received, MICROSECONDS)
    for code, value, payload in zip(rows.codes, rows.values, rows.payloads, strict=True):
        meter, customer, dimensions = state.series[code]
        if formula_of(meters[meter]).takes == "nothing" and value != 1:
            raise ValueError("an event counts for more than one")
        if payload is not None:
            reading = Reading(customer, value, dimensions)
            if read(meters[meter], payload, state.policy, state.customers) != reading:
                raise ValueError(f"{dict(payload)} does not read as {reading}")


def _check_cancellations(state: MeterLogState) -> None:
    before = 0
    for place, (row, one) in enumerate(state.in_order_of_cancellation()):
        # How many events there were, which never sinks; the canceled one was among them.
        former, before = before, one.sequence - 1 - place
        if not (former <= before <= len(state.rows.codes) and 0 <= row < before):
            raise ValueError(f"{one} does not come after its event")


def _check_subscriptions(state: MeterLogState, meters: Mapping[str, Meter]) -> None:
    customers = {one.id: one.customer for one in state.subscriptions}
    metered = [
        (item, one.id)
        for one in state.subscriptions
        for item in one.items
        if item.recurring.meter is not None
    ]
    if len(customers) < len(state.subscriptions) or any(
        customers[owner] is None for owner in state.items.values()
    ):
        raise ValueError("a subscription is there twice, or has an item on a meter and no customer")
    if any(
        state.items.get(item.id) != owner or item.recurring.meter not in meters
        for item, owner in metered
    ):
        raise ValueError("the items on a meter are not those of the subscriptions")


def _check_heirs(state: MeterLogState) -> None:
    for item, heir in state.heirs.items():
        if item not in state.items or state.items.get(heir) != state.items[item]:
            raise ValueError(f"{heir!r} is no item of the subscription of {item!r}")
        passed = {item}
        while heir in state.heirs and heir not in passed:
            passed.add(heir)
            heir = state.heirs[heir]  # noqa: PLW2901 - the next one on the way
        if heir in passed:
            raise ValueError(f"{item!r} comes after itself")


def _check_bills(state: MeterLogState) -> None:
    standing: dict[str, list[tuple[BillingPeriod, Bill]]] = {}
    for item, period, bill in state.bills:
        others = standing.setdefault(item, [])
        place = replaced(others, period)
        if any(
            one == period and not former.may_be_followed_by(bill) for one, former in others[place]
        ):
            raise ValueError("a period was billed twice")
        others[place] = [(period, bill)]
        if item not in state.items or not 0 <= bill.sequence <= state.sequence:
            raise ValueError(f"{bill} is of nothing here")
    require_moments([bill.made_at for _, _, bill in state.bills], MICROSECONDS)

"""All that a meter log holds, as values; what a snapshot writes."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from metering_core.accounts import Closing
from metering_core.exact import Number
from metering_core.meter_acceptance import MeterPolicy
from metering_core.meter_bills import Bill
from metering_core.meter_events import MeterEventAdjustment
from metering_core.meters import Meter
from metering_core.periods import BillingPeriod
from metering_core.subscriptions import Subscription


@attrs.frozen(hash=False)
class EventRows:
    """Accepted events as a value, column by column, in the order of arrival.

    Attributes:
        codes: places in :attr:`MeterLogState.series`.
        moments: Unix microseconds.
        received: Unix microseconds.
        values: what the formula works on.
        identifiers: as sent.
        payloads: as sent, where the series and the value do not tell it; else None.
        as_now: whether the timestamp was sent as ``"now"``; a retry says ``"now"`` again.
    """

    codes: tuple[int, ...]
    moments: tuple[int, ...]
    received: tuple[int, ...]
    values: tuple[Number | str, ...]
    identifiers: tuple[str | None, ...]
    payloads: tuple[Mapping[str, str] | None, ...]
    as_now: tuple[bool, ...]


@attrs.frozen(kw_only=True, hash=False)
class MeterLogState:
    """All that a meter log holds, as values.

    Events and cancellations are numbered together from 1 on, so the numbers of the events are those
    that no cancellation has.

    Attributes:
        policy: what is accepted.
        meters: the newest versions.
        customers: whose events are accepted; None for anybody's.
        subscriptions: the newest versions.
        items: item on a meter → id of its subscription; items that the newest version no longer has
            are among them.
        heirs: item that was dropped after a period of it was billed → the one that bills what comes
            late for it.
        series: meter, customer and dimension values, in the order in which their first events came.
        rows: the accepted events, canceled ones included.
        canceled: row → the event's cancellation.
        closed: subscription → its finalized periods.
        bills: item, period and what was billed of it, in the order in which they were made.
        told: how many facts were told; two states that came about otherwise may be equal.
    """

    policy: MeterPolicy
    meters: tuple[Meter, ...]
    customers: frozenset[str] | None
    subscriptions: tuple[Subscription, ...]
    items: Mapping[str, str]
    heirs: Mapping[str, str]
    series: tuple[tuple[str, str, tuple[str, ...]], ...]
    rows: EventRows
    canceled: Mapping[int, MeterEventAdjustment]
    closed: Mapping[str, tuple[Closing, ...]]
    bills: tuple[tuple[str, BillingPeriod, Bill], ...]
    told: int = attrs.field(default=0, eq=False)

    @property
    def sequence(self) -> int:
        """The number given last."""
        return len(self.rows.codes) + len(self.canceled)

    def in_order_of_cancellation(self) -> list[tuple[int, MeterEventAdjustment]]:
        """Return the canceled rows with their cancellations, in the order in which those came."""
        return sorted(self.canceled.items(), key=lambda one: one[1].sequence)

"""The rules of usage stated once more, without any cleverness: every answer is read off the plain
list of what was accepted.

The laws compare an engine with this. It is slow, holds no derived state, and shares with the engine
the values and the billing periods only, which have laws of their own. It knows the strict default:
the current period, nothing late, nothing ahead.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

from metering_core.acceptance import Outcome
from metering_core.errors import ErrorCode
from metering_core.exact import Number, whole_if_possible
from metering_core.periods import BillingPeriod, from_unix_seconds, unix_seconds
from metering_core.prices import AggregateUsage
from metering_core.subscriptions import Subscription, SubscriptionItem
from metering_core.usage import Action, UsageRecord

Verdict = tuple[Outcome, int | None, ErrorCode | None]
"""Outcome, sequence number (of the first one for a duplicate) and the code of a refusal."""


class RestatedLog:
    """What was accepted, as it was sent, with when it counts; sequence numbers are places in the
    list, from 1.
    """

    def __init__(self, subscriptions: Iterable[Subscription]) -> None:
        self.sent: list[UsageRecord] = []
        self.stamps: list[int] = []
        self._items = {
            item.id: (item, subscription)
            for subscription in subscriptions
            for item in subscription.items
        }

    def take(self, record: UsageRecord, now: int) -> Verdict:
        """Judge one record received at ``now`` (never earlier than the one before), and keep it
        where it is accepted.
        """
        for sequence, earlier in enumerate(self.sent, start=1):
            if record.id is not None and (earlier.subscription_item, earlier.id) == (
                record.subscription_item,
                record.id,
            ):
                same = earlier == record
                return (
                    (Outcome.DUPLICATE, sequence, None)
                    if same
                    else (Outcome.REJECTED, None, ErrorCode.ID_REUSED)
                )
        stamp = now if record.timestamp == "now" else record.timestamp
        code = self._refusal(record, stamp, now)
        if code is not None:
            return Outcome.REJECTED, None, code
        self.sent.append(record)
        self.stamps.append(stamp)
        return Outcome.ACCEPTED, len(self.sent), None

    def _refusal(self, record: UsageRecord, stamp: int, now: int) -> ErrorCode | None:
        if record.subscription_item not in self._items:
            return ErrorCode.SUBSCRIPTION_ITEM_UNKNOWN
        item, subscription = self._items[record.subscription_item]
        if item.recurring.aggregate_usage is None:
            return ErrorCode.PRICE_NOT_METERED
        if subscription.ended_at is not None and now >= unix_seconds(subscription.ended_at):
            return ErrorCode.SUBSCRIPTION_CANCELED
        if (
            record.action is Action.SET
            and (item.billing_thresholds or subscription.billing_thresholds) is not None
        ):
            return ErrorCode.SET_WITH_BILLING_THRESHOLDS
        if stamp > now:
            return ErrorCode.TIMESTAMP_IN_FUTURE
        current = subscription.period_at(from_unix_seconds(now))
        if current is None or stamp < unix_seconds(current.start):
            return ErrorCode.TIMESTAMP_BEFORE_CURRENT_PERIOD
        return None

    def quantity(
        self, item: SubscriptionItem, period: BillingPeriod, *, until: int | None = None
    ) -> Number:
        """Return an item's usage in a period, by the first ``until`` records alone where that is
        given.
        """
        mode = item.recurring.aggregate_usage
        start, end = unix_seconds(period.start), unix_seconds(period.end)
        counted = self.cells(item.id, until)
        cells = {
            at: quantity
            for at, quantity in counted.items()
            if at < end and (at >= start or mode == "last_ever")
        }
        match mode:
            case AggregateUsage.SUM:
                return sum(cells.values())
            case AggregateUsage.MAX:
                return max(cells.values(), default=0)
            case AggregateUsage.MIN:
                return min(cells.values(), default=0)
            case AggregateUsage.COUNT:
                return len(cells)
            case AggregateUsage.AVERAGE:
                return whole_if_possible(Fraction(sum(cells.values()), len(cells))) if cells else 0
            case AggregateUsage.HOURLY_PEAKS | AggregateUsage.DAILY_PEAKS:
                length = 3600 if mode is AggregateUsage.HOURLY_PEAKS else 86_400
                windows = {at // length for at in cells}
                return sum(max(cells[at] for at in cells if at // length == one) for one in windows)
            case AggregateUsage.LAST_DURING_PERIOD | AggregateUsage.LAST_EVER:
                return cells[max(cells)] if cells else 0
            case _:
                raise AssertionError(f"the restatement does not know {mode!r}")

    def cells(self, item_id: str, until: int | None = None) -> dict[int, int]:
        """Return timestamp → quantity: the records of the timestamp from its last ``set`` on,
        summed.
        """
        found: dict[int, list[UsageRecord]] = {}
        for record, stamp in list(zip(self.sent, self.stamps, strict=True))[:until]:
            if record.subscription_item == item_id:
                found.setdefault(stamp, []).append(record)
        return {stamp: _from_the_last_set_on(records) for stamp, records in found.items()}


def _from_the_last_set_on(records: list[UsageRecord]) -> int:
    sets = [place for place, record in enumerate(records) if record.action is Action.SET]
    return sum(record.quantity for record in records[sets[-1] if sets else 0 :])

"""The door of the log: what is accepted when, and what the sender of a record hears.

The checks run in the order of :class:`~metering_core.ErrorCode`. Identity comes first: whether a
record was already accepted is judged before anything that time can change, so that a retry hears
``duplicate`` for ever.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Self, overload

import attrs

from metering_core.codec import Storable, row_of
from metering_core.errors import ErrorCode, InvalidValueError, UsageRejectedError, shown
from metering_core.measures import AGGREGATORS
from metering_core.names import choice, known_keys, required
from metering_core.periods import (
    SECONDS_MIN,
    BillingPeriod,
    duration,
    from_unix_seconds,
    unix_seconds,
)
from metering_core.prices import Price, terms_of
from metering_core.pricing import is_linear
from metering_core.subscriptions import Subscription, SubscriptionItem

__all__ = ["AcceptancePolicy", "LateAttribution", "Outcome", "Receipt", "Receipts"]


class LateAttribution(StrEnum):
    """Which period late usage is billed in, within the late grace.

    ``usage_period``: the one its timestamp lies in; once that is finalized, late usage is refused
    with ``period_closed``. ``open_period``: the same while it is open, then the current one. Only
    an increment of a ``sum`` at a price of which every unit costs the same, then and now, is the
    difference it makes; other usage of a finalized period is refused with
    ``late_usage_not_billable``.
    """

    USAGE_PERIOD = "usage_period"
    OPEN_PERIOD = "open_period"


def _duration(value: object, param: str) -> timedelta:
    given = duration(value)
    if given is None or given < timedelta(0) or given.microseconds:
        expected = "a timedelta of whole seconds, at least 0"
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_OBJECT, param, expected, value
        )
    return given


def _future_tolerance(value: object) -> timedelta:
    return _duration(value, "future_tolerance")


def _late_grace(value: object) -> timedelta:
    return _duration(value, "late_grace")


def _late_attribution(value: object) -> LateAttribution:
    return choice(LateAttribution, value, "late_attribution")


@attrs.frozen(kw_only=True)
class AcceptancePolicy(Storable):
    """What may be relaxed of the rule "in the current billing period and not in the future".

    Attributes:
        future_tolerance: how far ahead of now a timestamp may lie (inclusive), for clocks that
            drift. Zero unless given; Stripe was observed to take 300 seconds. Never beyond the end
            of the current period.
        late_grace: for how long after a period has ended usage stamped in it is still accepted
            (exclusive). Zero unless given. It reaches back one period: a grace longer than a period
            is cut at its length.
        late_attribution: which period such usage is billed in.
    """

    future_tolerance: timedelta = attrs.field(default=timedelta(0), converter=_future_tolerance)
    late_grace: timedelta = attrs.field(default=timedelta(0), converter=_late_grace)
    late_attribution: LateAttribution = attrs.field(
        default=LateAttribution.USAGE_PERIOD, converter=_late_attribution
    )


class Outcome(StrEnum):
    """What became of one record of a batch."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    REJECTED = "rejected"


def _sentence(message: str | None) -> str | None:
    """Escape what a sentence cannot show, as :class:`~metering_core.MeteringError` does."""
    return shown(message) if isinstance(message, str) else message


@attrs.frozen
class Receipt(Storable):
    """The answer to one record.

    Attributes:
        outcome: ``accepted``, ``duplicate`` (accepted before, nothing changed) or ``rejected``
            (nothing changed).
        sequence: the number of the accepted record in the log, from 1; that of the first one for a
            duplicate.
        code: why it was rejected; None otherwise.
        message: a sentence that says what was wrong, what was expected and what was received.
        param: the parameter at fault.
        details: the values behind the sentence.
    """

    outcome: Outcome
    sequence: int | None = None
    code: ErrorCode | None = None
    message: str | None = attrs.field(default=None, converter=_sentence)
    param: str | None = None
    details: Mapping[str, Any] = attrs.field(factory=dict, hash=False)

    def error(self) -> UsageRejectedError:
        """Return the rejection as an exception."""
        assert self.code is not None, "only a rejected record has an error"
        assert self.message is not None, "a rejection says why"
        return UsageRejectedError(self.code, self.message, param=self.param, details=self.details)


class Receipts(Sequence[Receipt]):
    """One receipt per record, in the batch's order; one of acceptance is made when looked at."""

    __slots__ = ("_exceptions", "_sequences")

    def __init__(self, sequences: Sequence[int], exceptions: Mapping[int, Receipt]) -> None:
        self._sequences = sequences
        self._exceptions = exceptions

    def __len__(self) -> int:
        """Return the number of records in the batch."""
        return len(self._sequences)

    @overload
    def __getitem__(self, index: int) -> Receipt: ...
    @overload
    def __getitem__(self, index: slice) -> list[Receipt]: ...
    def __getitem__(self, index: int | slice) -> Receipt | list[Receipt]:
        """Return the receipt of the record at ``index``."""
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        position = range(len(self))[index]
        exception = self._exceptions.get(position)
        return (
            Receipt(Outcome.ACCEPTED, self._sequences[position]) if exception is None else exception
        )

    def __iter__(self) -> Iterator[Receipt]:
        """Yield the receipts in order."""
        return (self[position] for position in range(len(self)))

    def __eq__(self, other: object) -> bool:
        """Whether both hold equal receipts in the same order."""
        if not isinstance(other, Receipts):
            return NotImplemented
        return (
            list(self._sequences) == list(other._sequences)
            and self._exceptions == other._exceptions
        )

    __hash__ = None  # type: ignore[assignment]

    def to_dict(self) -> dict[str, Any]:
        """Write the receipts, in order."""
        return {"receipts": [receipt.to_dict() for receipt in self]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what ``to_dict`` wrote."""
        given = required(known_keys(data, {"receipts"}), "receipts")
        number = row_of(int)
        receipts = row_of(tuple[Receipt, ...]).read(given, "receipts", None)
        exceptions = {
            at: one for at, one in enumerate(receipts) if one.outcome is not Outcome.ACCEPTED
        }
        numbers = [
            0 if at in exceptions else number.read(one.sequence, f"receipts[{at}][sequence]", None)
            for at, one in enumerate(receipts)
        ]
        return cls(numbers, exceptions)

    def __repr__(self) -> str:
        """Return the counts and the first rejection."""
        first = next(iter(self.rejected.values()), None)
        said = f", first rejection: {first.message!r}" if first else ""
        return (
            f"<Receipts: {self.accepted} accepted, {self.duplicates} duplicate, "
            f"{len(self.rejected)} rejected{said}>"
        )

    @property
    def accepted(self) -> int:
        """How many records were accepted."""
        return len(self._sequences) - len(self._exceptions)

    @property
    def duplicates(self) -> int:
        """How many records were duplicates."""
        return len(self._exceptions) - len(self.rejected)

    @property
    def rejected(self) -> dict[int, Receipt]:
        """The rejected records by their position in the batch, in order."""
        return {
            at: receipt
            for at, receipt in self._exceptions.items()
            if receipt.outcome is Outcome.REJECTED
        }


@attrs.frozen
class Standing:
    """How a subscription stands at one moment: all that the rules of time need to know.

    Attributes:
        now: Unix seconds.
        ended: whether the subscription has ended.
        current: the current billing period; None where the subscription is not alive.
        late: the period before, while the late grace still accepts usage for it; None otherwise.
    """

    now: int
    ended: bool
    current: BillingPeriod | None
    late: BillingPeriod | None

    def holds(self, timestamp: int) -> bool:
        """Whether the timestamp lies in the current period or in the late one."""
        first = self.late or self.current
        last = self.current or self.late
        return (
            first is not None
            and last is not None
            and first.start_seconds <= timestamp < last.end_seconds
        )


def standing_at(subscription: Subscription, now: int, policy: AcceptancePolicy) -> Standing:
    """Find the current period and, within the late grace, the one before it, where there are."""
    at = from_unix_seconds(now)
    current = current_period(subscription, now)
    ended = subscription.ended_at is not None and subscription.ended_at <= at
    boundary = subscription.ended_at if ended else None if current is None else current.start
    late = None
    if (
        boundary is not None and at - boundary < policy.late_grace
    ):  # Not a sum, which could leave the calendar.
        late = current_period(subscription, unix_seconds(boundary) - 1)
    return Standing(now, ended, current, late)


def current_period(subscription: Subscription, seconds: int) -> BillingPeriod | None:
    """Return the period that holds a moment; None outside the life and beyond the calendar."""
    try:
        return subscription.period_at(seconds) if seconds >= SECONDS_MIN else None
    except InvalidValueError:
        return None


# Refusals, in the order of the checks. Stripe's own words come first where they are known. --------

_NO_PERIOD = "after the subscription has started, in a billing period within the years 1 to 9999"
_CANNOT = "Cannot create the usage record with this timestamp because timestamps must"


def _rejected(code: ErrorCode, message: str, param: str, **details: object) -> Receipt:
    return Receipt(Outcome.REJECTED, code=code, message=message, param=param, details=details)


def item_unknown(item_id: str) -> Receipt:
    """Refuse a record whose item no subscription of the log has."""
    message = (
        "No such subscription item: expected the id of an item of a subscription in the log, "
        f"received {item_id!r}"
    )
    return _rejected(
        ErrorCode.SUBSCRIPTION_ITEM_UNKNOWN, message, "subscription_item", received=item_id
    )


def id_reused(record_id: str, first: Mapping[str, Any], received: Mapping[str, Any]) -> Receipt:
    """Refuse other content under an id that was accepted before."""
    message = (
        "Keys for idempotent requests can only be used with the same parameters they were "
        "first used with. Try using a key "
        f"other than {record_id!r} if you meant to execute a different request. "
        f"Expected {_content(first)}, received {_content(received)}."
    )
    return _rejected(
        ErrorCode.ID_REUSED, message, "id", expected=dict(first), received=dict(received)
    )


def _content(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())


def set_refusal(
    item: SubscriptionItem, subscription: Subscription, *, is_set: bool
) -> Receipt | None:
    """Refuse ``set`` where billing thresholds allow only ``increment``, or return None."""
    if is_set and (
        subscription.billing_thresholds is not None or item.billing_thresholds is not None
    ):
        message = (
            f"Cannot set the usage of {item.id!r} because it has billing thresholds: "
            "expected action 'increment', received 'set'"
        )
        return _rejected(
            ErrorCode.SET_WITH_BILLING_THRESHOLDS,
            message,
            "action",
            expected="increment",
            received="set",
        )
    return None


def price_refusal(item: SubscriptionItem) -> Receipt | None:
    """Refuse usage records for a price that is not billed by them, or return None."""
    if item.recurring.aggregate_usage is not None:
        return None
    if item.is_metered:
        message = (
            f"Cannot create a usage record for `{item.id}` because it is not on the legacy "
            "metered billing system. "
            "Call /v1/billing/meter_events instead. Expected a price with "
            f"aggregate_usage, received {item.price.id!r} on "
            f"the meter {item.recurring.meter!r}: a MeterLog takes its events."
        )
    else:
        message = (
            f"Cannot create a usage record for {item.id!r} because its price is not metered: "
            f"expected usage_type 'metered', received 'licensed' (price {item.price.id!r})"
        )
    return _rejected(ErrorCode.PRICE_NOT_METERED, message, "subscription_item", price=item.price.id)


def canceled_refusal(
    timestamp: int, subscription: Subscription, standing: Standing
) -> Receipt | None:
    """Refuse usage of a subscription that has ended, late grace aside, or return None."""
    if not standing.ended or (standing.late is not None and standing.holds(timestamp)):
        return None
    assert subscription.ended_at is not None, "it has ended"
    message = (
        "Cannot create the usage record because the subscription has been canceled. "
        f"Expected a moment before {_shown(unix_seconds(subscription.ended_at))}, received "
        f"{_shown(standing.now)}."
    )
    return _rejected(
        ErrorCode.SUBSCRIPTION_CANCELED,
        message,
        "subscription_item",
        ended_at=subscription.ended_at,
        now=standing.now,
    )


def time_refusal(timestamp: int, standing: Standing, policy: AcceptancePolicy) -> Receipt | None:
    """Refuse a timestamp that is not accepted now, or return None; closings are the log's."""
    latest = standing.now + policy.future_tolerance // timedelta(seconds=1)
    if timestamp > latest:
        reason, expected = "not be in the future", f"at or before {_shown(latest)}"
        return _time_rejected(ErrorCode.TIMESTAMP_IN_FUTURE, reason, expected, timestamp)
    if standing.current is not None and timestamp >= standing.current.end_seconds:
        reason = "be before the end of the subscription's current period"
        expected = f"before {_shown(standing.current.end_seconds)}"
        return _time_rejected(ErrorCode.TIMESTAMP_AFTER_CURRENT_PERIOD, reason, expected, timestamp)
    if not standing.holds(timestamp):
        reason = "be after the subscription's last invoice period (or current period start time)"
        first = standing.late or standing.current
        expected = f"at or after {_shown(first.start_seconds)}" if first is not None else _NO_PERIOD
        return _time_rejected(
            ErrorCode.TIMESTAMP_BEFORE_CURRENT_PERIOD, reason, expected, timestamp
        )
    return None


def _time_rejected(code: ErrorCode, reason: str, expected: str, timestamp: int) -> Receipt:
    message = f"{_CANNOT} {reason}. Expected a timestamp {expected}, received {_shown(timestamp)}."
    return _rejected(code, message, "timestamp", expected=expected, received=timestamp)


def period_closed(timestamp: int, period: BillingPeriod, closed_at: datetime) -> Receipt:
    """Refuse usage in a period whose invoice was finalized."""
    message = (
        "Cannot create the usage record because its billing period was finalized at "
        f"{closed_at:%Y-%m-%dT%H:%M:%SZ}. "
        f"Expected a timestamp in an open period, received {_shown(timestamp)}, in {period}."
    )
    return _rejected(
        ErrorCode.PERIOD_CLOSED, message, "timestamp", received=timestamp, closed_at=closed_at
    )


def late_refusal(
    timestamp: int,
    period: BillingPeriod,
    closed_at: datetime,
    item: SubscriptionItem,
    billed_by: Price | None,
    *,
    is_set: bool,
) -> Receipt | None:
    """Refuse usage of a finalized period that the open one cannot bill as the difference it makes,
    or return None.

    An increment of a sum is that difference where every unit costs the same in both periods. In
    tiers it would be rated as if nothing had been used before it, a ``set`` would bill its cell a
    second time, and what is late of the other modes is compared with the cells of another period,
    or changes nothing.

    Args:
        timestamp: of the usage, Unix seconds.
        period: the finalized period that it lies in.
        closed_at: when that was finalized.
        item: as the open period bills it.
        billed_by: the price that billed the finalized period; None where the item was not billed
            then.
        is_set: whether it is a ``set``.
    """
    mode = item.recurring.aggregate_usage
    assert mode is not None, "another price takes no usage records"
    rate_fault = _rate_fault(item, billed_by)
    param, expected, received = (
        "timestamp",
        "a timestamp in an open period",
        f"{_shown(timestamp)}, in {period}",
    )
    if not AGGREGATORS[mode].splits_cells:
        why = (
            f"what an item aggregates by {mode.value!r} cannot be billed as the difference it "
            "makes later"
        )
        expected += ", or a price that aggregates by 'sum'"
    elif rate_fault is not None:
        why, expected = rate_fault, expected + _WAY_OUT
    elif is_set:
        param, why = "action", "late usage is billed as the difference it makes"
        expected = "action 'increment' with what was used more"
        received = (
            f"'set' at {_shown(timestamp)}; what was billed too much is given back beside the log"
        )
    else:
        return None
    message = (
        "Cannot create the usage record because its billing period was finalized at "
        f"{closed_at:%Y-%m-%dT%H:%M:%SZ} and {why}. "
        f"Expected {expected}, received {received}."
    )
    details = {
        "received": timestamp,
        "closed_at": closed_at,
        "aggregate_usage": mode.value,
        "is_set": is_set,
    }
    return _rejected(ErrorCode.LATE_USAGE_NOT_BILLABLE, message, param, **details)


_WAY_OUT = (
    " (finalize once the late grace is over, or bill the item by a meter: "
    "late_usage='carry_forward' bills what is late at the "
    "price and in the tiers of its own period)"
)


def _rate_fault(item: SubscriptionItem, billed_by: Price | None) -> str | None:
    """Say why the open period would not rate late usage as its own period did, or None."""
    price = item.price
    if not is_linear(price.model):
        return (
            f"not every unit costs the same at the price {price.id!r}, so that the open period "
            "would rate it otherwise"
        )
    if billed_by is None:
        return f"its invoice does not bill the item {item.id!r}"
    if terms_of(billed_by) != terms_of(price):
        return f"was billed at the price {billed_by.id!r}, and the open period is at {price.id!r}"
    return None


def _shown(seconds: int) -> str:
    return f"{seconds} ({from_unix_seconds(seconds):%Y-%m-%dT%H:%M:%SZ})"

"""History is imported: rows of files go into a log, each at its own moment of receipt.

The log judges them as if they arrived now, so a file read today makes the bill of its day. What
comes back is which billing periods have usage, since those are the ones to bill; what was refused,
and what was accepted and is on no bill, is told row by row with the line it stands in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, Protocol, TypeVar, runtime_checkable

from metering_core.acceptance import Outcome, Receipt, Receipts
from metering_core.errors import (
    CatalogError,
    ErrorCode,
    MeteringError,
    UsageRejectedError,
    describe,
    place_of,
)
from metering_core.feeds.files import EventRow, UsageRow
from metering_core.log import UsageLog
from metering_core.meter_events import MeterEvent
from metering_core.meter_log import MeterLog
from metering_core.meters import Meter
from metering_core.names import require_iterable, require_kind
from metering_core.periods import BillingPeriod, instant
from metering_core.subscriptions import Subscription
from metering_core.usage import UsageRecord

Row = TypeVar("Row", UsageRow, EventRow)

CHUNK_ROWS: Final = 10_000
"""Rows that are appended at once: enough for speed, few enough for memory."""


@runtime_checkable
class TakesUsage(Protocol):
    """What rows of usage are appended to: a :class:`~metering_core.UsageLog`, or what judges as
    one.
    """

    subscriptions: Any
    append_columns: Any


def _raise(refusal: MeteringError) -> None:
    raise refusal


def append_usage(
    log: UsageLog,
    rows: Iterable[UsageRow | CatalogError],
    *,
    on_refusal: Callable[[MeteringError], None] = _raise,
) -> dict[str, tuple[BillingPeriod, ...]]:
    """Append rows in their order, in chunks, each at its own moment of receipt: how history is
    imported.

    Args:
        log: the log; it must know the subscriptions.
        rows: what :func:`read_usage` yields.
        on_refusal: called in the order of lines with each malformed row's
            :class:`~metering_core.errors.CatalogError` and each refused record's
            :class:`~metering_core.UsageRejectedError`, both with ``path`` and ``line`` in
            ``details``. It may raise to stop, which is what happens unless it is given; what the
            log accepted by then stays in it.

    Returns:
        The billing periods that bill usage among these rows, in order, by subscription.
    """
    require_kind(TakesUsage, log, "log", "a UsageLog")
    importing = _Importing(log, on_refusal)
    for row in _each_row(rows, UsageRow):
        # What came before a complaint is appended first: refusals are told in the order of lines.
        if isinstance(row, UsageRow):
            importing.take(row)
        else:
            importing.flush()
            on_refusal(row)
    importing.flush()
    return importing.periods.by_subscription()


def _each_row(rows: Iterable[Row | CatalogError], kind: type[Row]) -> Iterator[Row | CatalogError]:
    for at, row in enumerate(require_iterable(rows, "rows")):
        yield row if isinstance(row, CatalogError) else require_kind(kind, row, f"rows[{at}]")


class _Importing:
    """Rows on their way into a log of usage, a chunk at a time."""

    def __init__(self, log: UsageLog, on_refusal: Callable[[MeteringError], None]) -> None:
        self.periods = _PeriodsWithUsage()
        self._log, self._on_refusal = log, on_refusal
        self._owners = {item.id: one for one in log.subscriptions for item in one.items}
        self._spellings = Spellings(self._owners)
        self._chunk: list[UsageRow] = []

    def take(self, row: UsageRow) -> None:
        """Take a row; the chunk goes into the log once it is full."""
        self._chunk.append(row)
        if len(self._chunk) >= CHUNK_ROWS:
            self.flush()

    def flush(self) -> None:
        """Append what was taken, note the periods of what was accepted, and tell what was not."""
        rows, self._chunk = self._chunk, []
        records = [row.record for row in rows]
        receipts = self._log.append_columns(
            [record.subscription_item for record in records],
            [record.quantity for record in records],
            [record.timestamp for record in records],
            [record.action for record in records],
            [record.id for record in records],
            received_at=[row.received_at for row in rows],
        )
        self._note(records, receipts)
        for position, receipt in receipts.rejected.items():
            self._refuse(receipt, rows[position])

    def _note(self, records: Sequence[UsageRecord], receipts: Receipts) -> None:
        rejected, attributed = receipts.rejected, self._log.attributed
        for position, record in enumerate(records):
            if position not in rejected:
                # A receipt is made when it is looked at, and most logs attribute nothing.
                later = attributed.get(receipts[position].sequence or 0) if attributed else None
                billed_at = record.timestamp if later is None else later
                assert billed_at != "now", "a row of a file has a moment"
                self.periods.note(self._owners[record.subscription_item], billed_at)

    def _refuse(self, receipt: Receipt, row: UsageRow) -> None:
        is_unknown = receipt.code is ErrorCode.SUBSCRIPTION_ITEM_UNKNOWN
        meant = self._spellings.near(row.record.subscription_item) if is_unknown else ""
        self._on_refusal(placed(receipt.error(), row, meant))


def placed(error: MeteringError, row: UsageRow | EventRow, meant: str = "") -> UsageRejectedError:
    """Return the refusal of a row with its place, and with what was probably meant."""
    details = {**error.details, "path": row.path, "line": row.line, "source": row.source}
    message = f"{place_of(row.path, row.line)}: {error.message}{meant}"
    return UsageRejectedError(error.code, message, param=error.param, details=details)


class Spellings:
    """Ids by how they read, to find the one that was meant by one with blanks around it or in other
    capitals.
    """

    def __init__(self, known: Iterable[str]) -> None:
        self._known = {_folded(one): one for one in known}

    def near(self, received: object) -> str:
        """Return the id that was meant, as an ending of a sentence; empty where none suggests
        itself.
        """
        meant = self._known.get(_folded(received)) if isinstance(received, str) else None
        return "" if meant in {None, received} else f" (did you mean {meant!r}?)"


def _folded(text: str) -> str:
    """Return a text without what cannot be seen, in one sort of letters."""
    return "".join(one for one in text if one.isprintable() and not one.isspace()).casefold()


def append_events(
    log: MeterLog,
    rows: Iterable[EventRow | CatalogError],
    *,
    on_refusal: Callable[[MeteringError], None] = _raise,
    on_unbilled: Callable[[MeteringError], None] | None = None,
) -> dict[str, tuple[BillingPeriod, ...]]:
    """Append rows in their order, each at its own moment of receipt: how history is imported.

    An event lies in the billing period of its timestamp, however much later it was received. Events
    that no item bills, such as those from before their customer's subscription, are kept in the log
    and have no period. A meter that is inactive takes what was received before it was deactivated.

    Args:
        log: the log; it must know the meters and the subscriptions.
        rows: what :func:`read_events` yields.
        on_refusal: as in :func:`append_usage`.
        on_unbilled: called with ``usage_unbilled`` for each event that was accepted and that no
            item bills; it says why not.

    Returns:
        The billing periods that have events among these rows, in order, by subscription.
    """
    billed = _Billed(require_kind(MeterLog, log, "log"))
    inactive = {meter.event_name: meter for meter in log.meters if not meter.is_active}
    for row in _each_row(rows, EventRow):
        if not isinstance(row, EventRow):
            on_refusal(row)
            continue
        receipt = _append_event(log, row, inactive.get(row.event.event_name))
        if receipt.outcome is Outcome.REJECTED:
            is_unknown = receipt.code is ErrorCode.METER_UNKNOWN
            meant = billed.event_names.near(row.event.event_name) if is_unknown else ""
            on_refusal(placed(receipt.error(), row, meant))
        elif not billed.note(row.event) and on_unbilled is not None:
            on_unbilled(placed(billed.unbilled(row.event), row))
    return billed.periods.by_subscription()


def _append_event(log: MeterLog, row: EventRow, inactive: Meter | None) -> Receipt:
    """Append an event as its meter was when it was received."""
    since = None if inactive is None else inactive.deactivated_at
    if inactive is None or since is None or instant(row.received_at, "received_at") >= since:
        (receipt,) = log.append([row.event], now=row.received_at)
        return receipt
    log.update_meter(inactive.reactivate())
    (receipt,) = log.append([row.event], now=row.received_at)
    log.update_meter(inactive)
    return receipt


class _Billed:
    """Which subscriptions bill the events of a customer, and in which periods."""

    def __init__(self, log: MeterLog) -> None:
        self.periods = _PeriodsWithUsage()
        self.event_names = Spellings(meter.event_name for meter in log.meters)
        self._known = {one.customer for one in log.subscriptions}
        self._customers = Spellings(one for one in self._known if one is not None)
        self._keys = {meter.event_name: meter.customer_payload_key for meter in log.meters}
        self._by_customer: dict[tuple[str, str | None], list[Subscription]] = {}
        for subscription in log.subscriptions:
            meters = {item.recurring.meter for item in subscription.items} - {None}
            for meter_id in meters:
                key = log.meter(str(meter_id)).event_name, subscription.customer
                self._by_customer.setdefault(key, []).append(subscription)

    def note(self, event: MeterEvent) -> bool:
        """Take note of the periods that bill an accepted event; return whether there is one."""
        assert event.timestamp != "now", "a row of a file has a moment"
        owners = self._by_customer.get((event.event_name, self._customer(event)), ())
        noted = [self.periods.note(subscription, event.timestamp) for subscription in owners]
        return any(noted)

    def unbilled(self, event: MeterEvent) -> MeteringError:
        """Say why no item bills an event."""
        customer, meant = self._customer(event), ""
        if customer not in self._known:
            expected = "a customer of one of the subscriptions"
            meant = self._customers.near(customer)
        elif (event.event_name, customer) not in self._by_customer:
            expected = f"an item on the meter of {event.event_name!r} for its customer"
        else:
            expected = "a moment in the life of a subscription of its customer"
        received = f"the customer {describe(customer)}{meant}"
        return MeteringError(
            ErrorCode.USAGE_UNBILLED,
            f"No item bills this event: expected {expected}, received {received}",
            param="payload",
            details={"customer": customer},
        )

    def _customer(self, event: MeterEvent) -> str:
        return event.payload[self._keys[event.event_name]]


class _PeriodsWithUsage:
    """Which billing periods accepted usage lies in; most lies in the period of what came before."""

    def __init__(self) -> None:
        self._latest: dict[str, BillingPeriod] = {}
        self._found: dict[str, dict[int, BillingPeriod]] = {}

    def note(self, owner: Subscription, timestamp: int) -> bool:
        """Take note of the period of accepted usage; return whether there is one, within the
        subscription's life.
        """
        latest = self._latest.get(owner.id)
        if latest is None or not latest.start_seconds <= timestamp < latest.end_seconds:
            period = owner.period_at(timestamp)
            if period is None:
                return False
            self._latest[owner.id] = period
            self._found.setdefault(owner.id, {})[period.start_seconds] = period
        return True

    def by_subscription(self) -> dict[str, tuple[BillingPeriod, ...]]:
        """Return the periods found so far, in order."""
        return {
            key: tuple(found[start] for start in sorted(found))
            for key, found in self._found.items()
        }

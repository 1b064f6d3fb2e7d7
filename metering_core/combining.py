"""Usage records and meter events behind one seam, for subscriptions that have items of both
generations.

That is how a migration looks while it lasts: some items aggregate usage records, others are on a
meter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from typing import Protocol

import attrs

from metering_core.acceptance import AcceptancePolicy, LateAttribution
from metering_core.aggregation import KnowsMeters, Usage, as_requests, require_usage
from metering_core.book import ClosesOne, HasBook
from metering_core.errors import InvoicingError
from metering_core.invoicing import (
    ClosesPeriods,
    Corrects,
    Invoice,
    InvoiceChanges,
    LineChange,
    SaysChanges,
    Settles,
    StoresInvoices,
    closing_in,
    held_still,
    lacks_invoice,
)
from metering_core.measures import Partial
from metering_core.meter_acceptance import LateUsage, MeterPolicy
from metering_core.meter_bills import Correction, Settled
from metering_core.meters import Formula, Meter
from metering_core.money import Rounding, half_up
from metering_core.names import each_of, offers, require_kind, require_offer
from metering_core.periods import BillingPeriod, Instant, instant
from metering_core.prices import Price
from metering_core.subscriptions import Subscription, SubscriptionItem


class HasPolicy(Protocol):
    """Usage that was accepted by a policy."""

    @property
    def policy(self) -> AcceptancePolicy | MeterPolicy:
        """What was accepted."""


@attrs.frozen
class CombinedUsage(ClosesOne):
    """Usage records for items that aggregate them, meter events for items on a meter; itself a
    :class:`~metering_core.Usage`.

    Attributes:
        records: any engine of usage records.
        events: any engine of meter events.
    """

    records: Usage
    events: Usage

    def __attrs_post_init__(self) -> None:
        """Refuse what cannot answer."""
        require_usage(self.records, "records")
        require_usage(self.events, "events")

    def engine_of(self, item: SubscriptionItem) -> Usage:
        """Return which of the two answers for an item."""
        require_kind(SubscriptionItem, item, "item")
        return self.records if item.recurring.meter is None else self.events

    def meter_of(self, item: SubscriptionItem) -> Meter:
        """Return the meter that an item's price names.

        Raises:
            InvalidValueError: ``parameter_invalid_object`` where ``events`` knows no meters.
        """
        expected = "usage that knows its meters, such as a MeterLog"
        return require_offer(KnowsMeters, self.events, "events", expected).meter_of(item)

    def partial(self, item: SubscriptionItem, period: BillingPeriod) -> Partial:
        """Return the partial of the item in the period, from whichever of the two has its usage."""
        return self.engine_of(item).partial(item, period)

    def partials(self, requests: Iterable[tuple[SubscriptionItem, BillingPeriod]]) -> list[Partial]:
        """Return the partials of many items in the order asked, asking each of the two once."""
        asked = as_requests(requests)
        places: dict[bool, list[int]] = {False: [], True: []}
        for place, (item, _) in enumerate(asked):
            places[item.recurring.meter is not None].append(place)
        answers: list[Partial] = [None] * len(asked)
        for usage, chosen in ((self.records, places[False]), (self.events, places[True])):
            partials = usage.partials([asked[place] for place in chosen]) if chosen else []
            for place, partial in zip(chosen, partials, strict=True):
                answers[place] = partial
        return answers

    @property
    def lock(self) -> AbstractContextManager[None]:
        """The locks of both, as far as they have one; hold it to ask several questions of one
        state.
        """
        return self._held_still()

    @contextmanager
    def _held_still(self) -> Iterator[None]:
        with (
            held_still(self.events),
            held_still(self.records),
        ):  # As closing_all() takes them, in one order.
            yield

    @property
    def carries_late(self) -> bool:
        """Whether the events bill what changes in a billed period with a later invoice; records
        never do.
        """
        return offers(self.events, Corrects) and self.events.carries_late

    def corrections(self, item: SubscriptionItem, period: BillingPeriod) -> list[Correction]:
        """Return the earlier periods of an item whose difference an invoice of this period bills;
        of an item on a meter.
        """
        return self.events.corrections(item, period) if offers(self.events, Corrects) else []

    def settle(
        self,
        subscription_id: str,
        settled: Mapping[str, tuple[Price, Settled]],
        sequence: int | None = None,
    ) -> None:
        """Let the events know what an invoice charged, while its period is being closed."""
        if offers(self.events, Settles):
            self.events.settle(subscription_id, settled, sequence)

    @contextmanager
    def closing_all(
        self,
        periods: Mapping[str, BillingPeriod],
        *,
        now: Instant,
        versions: Iterable[Subscription] = (),
    ) -> Iterator[dict[str, datetime]]:
        """Hold both still while a period of each of many subscriptions is billed, and close all of
        them in both afterwards.

        Both must have the subscriptions, also where all their items are of one generation; a view
        closes nothing.

        Each of two logs closes all of the periods or none of them, whatever interrupts it; the
        records come first. An interrupt between them leaves the periods closed in the records and
        open in the events: finalizing them again returns the invoices that the records keep, and
        has the events keep the same ones, as of when they were made.

        A log that was restored from before an invoice which the other one keeps is given it when
        the period is finalized again, once the log would bill the same itself. What it gets late
        meanwhile could be in that invoice already, so it closes no later period before.

        Args:
            periods: subscription → the period to close.
            now: at or after the end of each.
            versions: what is billed of the subscriptions. Each log compares its own items with what
                it was told.

        Yields:
            Subscription → when its period was closed first, UTC.

        Raises:
            InvoicingError: ``invoice_conflict`` where a log that closed periods before lacks the
                invoice of an earlier period that the other log keeps; and as each log's own.
            InvalidValueError: as each log's own.
        """
        given = require_kind(Mapping, periods, "periods", "subscriptions with their periods")
        at, told = instant(now, "now"), list(each_of(Subscription, versions, "versions"))
        with (
            closing_in(self.events, given, at, told) as in_events,
            closing_in(self.records, given, at, told) as in_records,
        ):
            for key, period in given.items():
                self._refuse_behind(key, period)
            yield {key: min(in_events[key], in_records[key]) for key in given}

    def _refuse_behind(self, subscription_id: str, period: BillingPeriod) -> None:
        """Refuse to close a period while one side lacks the invoice of an earlier one, which may
        have billed what came late.

        A side that has closed nothing yet may be newer than the other: where it bills no late usage
        with a later period, nothing of the invoice can be in it.
        """
        sides = {"records": self.records, "events": self.events}
        known = {kind: _invoices_known_to(one, subscription_id) for kind, one in sides.items()}
        for kind, other in (("records", "events"), ("events", "records")):
            own = known[kind]
            first = min(own, default=period.start_seconds)
            bills_late = _bills_late(sides[kind])
            for start, invoice in sorted(known[other].items(), key=lambda one: one[0]):
                if invoice is None or start >= period.start_seconds or own.get(start) is not None:
                    continue
                if start >= first or (bills_late and _bills_usage_of(kind, invoice)):
                    raise lacks_invoice(
                        invoice, kind, f"its usage to close the later {period} with"
                    )

    def keep_invoice(self, invoice: Invoice) -> None:
        """Have both take the invoice of the period that is being closed; for who bills, within
        :meth:`closing`.
        """
        for one in self._closers():
            one.keep_invoice(invoice)

    def stored_invoice(self, subscription_id: str, period: BillingPeriod) -> Invoice | None:
        """Return the invoice of a period that one of both has finalized; None where neither has.

        Finalizing the period again has the other one keep it, too. Where both do, each line names
        the usage of its own log.

        Raises:
            InvoicingError: ``invoice_conflict`` where they keep different invoices of the period.
        """
        keepers = [one for one in (self.records, self.events) if offers(one, StoresInvoices)]
        found = [one.stored_invoice(subscription_id, period) for one in keepers]
        stored = [invoice for invoice in found if invoice is not None]
        if stored and stored[-1] != stored[0]:
            raise InvoicingError.of_second_invoice(
                subscription_id,
                "one invoice of the period",
                "another from the events than from the records",
            )
        if not stored or stored[-1] is stored[0]:
            return stored[0] if stored else None
        pairs = zip(stored[0].lines, stored[-1].lines, strict=True)
        lines = tuple(
            second if isinstance(second.aggregate_usage, Formula) else first
            for first, second in pairs
        )
        return attrs.evolve(stored[0], lines=lines)

    def invoice_changes(self, invoice: Invoice, *, rounding: Rounding = half_up) -> InvoiceChanges:
        """Return what would differ if the period of a finalized invoice were billed now; the
        invoice itself stays as it is.

        Each of both says it of its own items, as :meth:`~metering_core.UsageLog.invoice_changes`,
        and the records of licensed ones, of which the events only add what the records do not say.

        Args:
            invoice: a finalized invoice of a subscription in both.
            rounding: how each line is settled.

        Raises:
            InvalidValueError: ``parameter_invalid_object``, also for ``records`` or ``events`` that
                cannot say it, such as views; ``parameter_invalid_choice`` for a subscription that
                one of them does not have.
        """
        require_kind(Invoice, invoice, "invoice")
        expected = "usage that says what would differ, such as a log"
        records = require_offer(SaysChanges, self.records, "records", expected)
        events = require_offer(SaysChanges, self.events, "events", expected)
        with self.lock:
            of_records, of_events = (
                one.invoice_changes(invoice, rounding=rounding).lines for one in (records, events)
            )
        named = {one.subscription_item for one in of_records}
        lines = [
            *of_records,
            *(one for one in of_events if _is_of_usage(one) or one.subscription_item not in named),
        ]
        places = {line.id: place for place, line in enumerate(invoice.lines)}
        lines.sort(key=lambda one: len(places) if one.billed is None else places[one.billed.id])
        return InvoiceChanges(invoice.id, tuple(lines))

    def lacking(self, invoice: Invoice) -> list[ClosesPeriods]:
        """Return which of both do not keep an invoice that the other one keeps; for who bills."""
        return [
            one
            for one in self._closers()
            if one.stored_invoice(invoice.subscription, invoice.period) is None
        ]

    def _closers(self) -> list[ClosesPeriods]:
        return [one for one in (self.records, self.events) if offers(one, ClosesPeriods)]


def _invoices_known_to(usage: Usage, subscription_id: str) -> Mapping[int, Invoice | None]:
    """Return what some usage knows to be billed, by the period's start: also columns, SQL and
    views, which are over a book as the logs are.
    """
    account = usage.book.accounts.get(subscription_id) if offers(usage, HasBook) else None
    return {} if account is None else account.invoices()


def _bills_late(usage: Usage) -> bool:
    """Whether late usage of a closed period is billed with a later one."""
    if not offers(usage, HasPolicy):
        return False
    policy = usage.policy
    if isinstance(policy, AcceptancePolicy):
        return policy.late_attribution is LateAttribution.OPEN_PERIOD
    return policy.late_usage is LateUsage.CARRY_FORWARD


def _bills_usage_of(kind: str, invoice: Invoice) -> bool:
    """Whether an invoice has lines of usage records, or of meter events."""
    measured = (line.aggregate_usage for line in invoice.lines)
    return any(
        one is not None and isinstance(one, Formula) == (kind == "events") for one in measured
    )


def _is_of_usage(change: LineChange) -> bool:
    return any(
        line is not None and line.aggregate_usage is not None
        for line in (change.billed, change.now)
    )

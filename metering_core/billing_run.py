"""A billing run: the invoices of many subscriptions in one call, asking the engine for all of their usage at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime

import attrs

from metering_core.aggregation import Usage
from metering_core.aggregators import Partial
from metering_core.errors import ErrorCode, InvoicingError
from metering_core.invoicing import ClosesPeriods, Invoice, KeepsRecords, finalize_invoice, preview_invoice
from metering_core.money import Rounding, half_up
from metering_core.periods import BillingPeriod, Instant, instant
from metering_core.subscriptions import Subscription, SubscriptionItem


def invoice_all(
    subscriptions: Iterable[Subscription],
    usage: Usage,
    at: Instant,
    *,
    now: Instant | None = None,
    rounding: Rounding = half_up,
) -> list[Invoice]:
    """Return the invoice of each subscription for the billing period that holds an instant, in the order given.

    Each is what :func:`~metering_core.preview_invoice` or :func:`~metering_core.finalize_invoice` returns. A subscription that
    is not alive at the instant has none.

    Args:
        subscriptions: what to bill.
        usage: any engine; it is asked for all partials at once.
        at: an instant in the period of each subscription.
        now: where given, the invoices are finalized at this moment and their periods closed, all or none; without it they are
            previews.
        rounding: how each line is settled.

    Raises:
        InvoicingError: ``period_not_ended`` where a period to finalize has not ended at ``now``. All periods stay open then.
    """
    when = instant(at, "at")
    due = [(one, period) for one in subscriptions if (period := one.period_at(when)) is not None]
    if now is None:
        asked = _ask(due, usage, {})
        return [preview_invoice(subscription, asked, now=when, rounding=rounding) for subscription, _ in due]
    _refuse_twice(due)
    with ExitStack() as closings:
        closed = {one.id: closings.enter_context(_closing(one, usage, period, now)) for one, period in due}
        asked = _ask(due, usage, closed)
        return [finalize_invoice(one, asked, period, now=now, rounding=rounding) for one, period in due]


@contextmanager
def _closing(subscription: Subscription, usage: Usage, period: BillingPeriod, now: Instant) -> Iterator[datetime]:
    subscription.require_ended(period, now)
    if isinstance(usage, ClosesPeriods):
        with usage.closing(subscription.id, period, now=now) as closed_at:
            yield closed_at
    else:
        yield instant(now, "now")


def _refuse_twice(due: Sequence[tuple[Subscription, BillingPeriod]]) -> None:
    """Refuse to finalize one subscription in two versions, of which one would go unbilled."""
    seen: set[str] = set()
    for subscription, _ in due:
        if subscription.id in seen:
            message = f"subscriptions: expected each subscription once, received {subscription.id!r} twice"
            raise InvoicingError(ErrorCode.PARAMETERS_EXCLUSIVE, message, param="subscriptions")
        seen.add(subscription.id)


def _ask(due: Sequence[tuple[Subscription, BillingPeriod]], usage: Usage, closed: Mapping[str, datetime]) -> _Asked:
    """Ask for the usage of all metered items at once."""
    requests = [(item, period) for one, period in due for item in one.items if item.is_metered]
    partials = usage.partials(requests)
    known = {(item.id, period): partial for (item, period), partial in zip(requests, partials, strict=True)}
    if isinstance(usage, KeepsRecords):
        return _AskedOfRecords(known, closed, usage.as_of(usage.sequence))
    return _Asked(known, closed)


@attrs.frozen
class _Asked:
    """Usage that was asked for beforehand: what invoices read while a run makes them."""

    known: Mapping[tuple[str, BillingPeriod], Partial]
    closed: Mapping[str, datetime]

    def partial(self, item: SubscriptionItem, period: BillingPeriod) -> Partial:
        """Return what the engine answered."""
        return self.known[item.id, period]

    def partials(self, requests: Iterable[tuple[SubscriptionItem, BillingPeriod]]) -> list[Partial]:
        """Return what the engine answered, in the order asked."""
        return [self.partial(item, period) for item, period in requests]

    @contextmanager
    def closing(self, subscription_id: str, period: BillingPeriod, *, now: Instant) -> Iterator[datetime]:
        """Yield when the period was closed first; the run itself closes it at its end."""
        yield self.closed[subscription_id]


@attrs.frozen
class _AskedOfRecords(_Asked):
    """The same of an engine that keeps records, so that lines can be explained."""

    evidence: KeepsRecords

    @property
    def sequence(self) -> int:
        """The number of the record accepted last."""
        return self.evidence.sequence

    def as_of(self, limit: int | datetime) -> KeepsRecords:
        """Return the usage as it was when the run asked."""
        return self.evidence

"""A billing run: the invoices of many subscriptions in one call, asking the engine for all of their
usage at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from metering_core.aggregation import Usage, require_usage, summarize_all
from metering_core.errors import ErrorCode, InvoicingError
from metering_core.invoicing import (
    Invoice,
    InvoiceStatus,
    closing_in,
    completing,
    corrections_in,
    evidence_in,
    explained_by,
    held_still,
    invoice_in,
    invoice_of,
    keep_in,
)
from metering_core.money import Rounding, half_up, require_rounding
from metering_core.names import each_of
from metering_core.periods import BillingPeriod, Instant, instant
from metering_core.subscriptions import Subscription


def invoice_all(
    subscriptions: Iterable[Subscription],
    usage: Usage,
    at: Instant,
    *,
    now: Instant | None = None,
    rounding: Rounding = half_up,
) -> list[Invoice]:
    """Return the invoice of each subscription for the billing period that holds an instant, in the
    order given.

    Each is what :func:`~metering_core.preview_invoice` or :func:`~metering_core.finalize_invoice`
    returns. A subscription that is not alive at the instant has none.

    Args:
        subscriptions: what to bill.
        usage: any engine; it is asked for all partials at once.
        at: an instant in the period of each subscription.
        now: where given, the invoices are finalized at this moment and their periods closed, all or
            none, whatever interrupts it (of a :class:`~metering_core.CombinedUsage`: in each of its
            logs); without it they are previews.
        rounding: how each line is settled.

    Raises:
        InvoicingError: ``period_not_ended`` where a period to finalize has not ended at ``now``.
            All periods stay open then.
        InvalidValueError: ``change_not_billable``, as :func:`~metering_core.finalize_invoice`; all
            periods stay open then, too.
    """
    require_usage(usage)
    require_rounding(rounding)
    when = instant(at, "at")
    given = each_of(Subscription, subscriptions, "subscriptions")
    due = [(one, period) for one in given if (period := one.period_at(when)) is not None]
    if now is None:
        return _invoices(due, usage, rounding, {})
    _refuse_twice(due)
    finalized_at = instant(now, "now")
    with held_still(usage):
        return _finalized(due, usage, rounding, finalized_at)


def _finalized(
    due: Sequence[tuple[Subscription, BillingPeriod]],
    usage: Usage,
    rounding: Rounding,
    now: datetime,
) -> list[Invoice]:
    kept = [
        (one, invoice)
        for one, period in due
        if (invoice := invoice_in(usage, one, period)) is not None
    ]
    closed = {one.id for one, _ in kept}
    open_ = [(one, period) for one, period in due if one.id not in closed]
    for one, period in open_:
        one.require_ended(period, now)
    periods, versions = {one.id: period for one, period in open_}, [one for one, _ in open_]
    with completing(usage, kept), closing_in(usage, periods, now, versions) as closed_at:
        invoices = dict(zip(periods, _invoices(open_, usage, rounding, closed_at), strict=True))
        for one in versions:
            keep_in(usage, one, invoices[one.id])
    invoices |= {one.id: explained_by(usage, invoice) for one, invoice in kept}
    return [invoices[one.id] for one, _ in due]


def _invoices(
    due: Sequence[tuple[Subscription, BillingPeriod]],
    usage: Usage,
    rounding: Rounding,
    closed: Mapping[str, datetime],
) -> list[Invoice]:
    """Ask for the usage of all metered items at once, and make the invoices of it."""
    asked = [(item, period) for one, period in due for item in one.items]
    metered = [(item, period) for item, period in asked if item.is_metered]
    items = [item for item, _ in asked]
    with held_still(usage):
        answers = iter(summarize_all(metered, usage))
        evidence = evidence_in(usage, items)
        corrections = corrections_in(usage, asked)
    invoices = []
    for one, period in due:
        summaries = {item.id: next(answers) for item in one.items if item.is_metered}
        finalized_at = closed.get(one.id)
        status = InvoiceStatus.DRAFT if finalized_at is None else InvoiceStatus.FINALIZED
        invoices.append(
            invoice_of(
                one, period, summaries, evidence, corrections, rounding, status, finalized_at
            )
        )
    return invoices


def _refuse_twice(due: Sequence[tuple[Subscription, BillingPeriod]]) -> None:
    """Refuse to finalize one subscription in two versions, of which one would go unbilled."""
    seen: set[str] = set()
    for subscription, _ in due:
        if subscription.id in seen:
            message = (
                f"subscriptions: expected each subscription once, received {subscription.id!r} "
                "twice"
            )
            raise InvoicingError(ErrorCode.PARAMETERS_EXCLUSIVE, message, param="subscriptions")
        seen.add(subscription.id)

"""Lines and invoices: preview and finalize are the same function of records, prices, cycle and
cut-off.

An invoice's items are the segments of one draft, which goes through the steps of
:mod:`metering_core.rating`. Every line is settled once, and a total is the sum of its settled lines
(Stripe, decimal amounts).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from functools import lru_cache
from itertools import chain, count
from typing import Any, Final, Protocol, Self

import attrs

from metering_core.aggregation import KnowsMeters, Usage, UsageSummary, require_usage, summarize_all
from metering_core.codec import OF_LOG, Storable, row_of
from metering_core.differences import differences
from metering_core.errors import ErrorCode, InvoicingError, shown
from metering_core.exact import Number, Unrounded, cut, multiply, plain, whole_if_possible
from metering_core.measures import FORMULAS
from metering_core.meter_bills import Correction, Part, Settled, part_of, summed
from metering_core.meters import Formula
from metering_core.money import Amount, Money, Rounding, half_up, require_rounding
from metering_core.names import known_keys, offers, require_kind
from metering_core.periods import WHOLE, BillingPeriod, Instant, instant, iso_8601
from metering_core.prices import AggregateUsage, Price, Priced, terms_of
from metering_core.pricing import Charge, ChargeKind
from metering_core.rating import Segment, SettledLine, billed
from metering_core.subscriptions import Subscription, SubscriptionItem

__all__ = [
    "Invoice",
    "InvoiceChanges",
    "InvoiceLineItem",
    "InvoiceStatus",
    "LineChange",
    "finalize_invoice",
    "preview_invoice",
]


class InvoiceStatus(StrEnum):
    """Whether an invoice may still change (``draft``: a preview) or never does (``finalized``)."""

    DRAFT = "draft"
    FINALIZED = "finalized"


class ClosesPeriods(Usage, Protocol):
    """Usage that can hold periods still while they are billed and close them afterwards."""

    def closing_all(
        self,
        periods: Mapping[str, BillingPeriod],
        *,
        now: Instant,
        versions: Iterable[Subscription] = (),
    ) -> AbstractContextManager[Mapping[str, datetime]]:
        """Yield when the period of each subscription was closed first; close all of them where the
        block succeeds.

        Refuse versions of the subscriptions that were not told.
        """
        ...  # pragma: no cover

    def keep_invoice(self, invoice: Invoice) -> None:
        """Take what was billed of the period that is being closed."""
        ...  # pragma: no cover

    def stored_invoice(self, subscription_id: str, period: BillingPeriod) -> Invoice | None:
        """Return what was billed of a period that was closed with an invoice."""
        ...  # pragma: no cover


class StoresInvoices(Protocol):
    """Usage that knows what was finalized, whether it closes periods itself or not."""

    def stored_invoice(self, subscription_id: str, period: BillingPeriod) -> Invoice | None:
        """Return what was billed of a period that was closed with an invoice."""
        ...  # pragma: no cover


class IsTold(Protocol):
    """Usage that closes no period, and was told what there is to bill."""

    def require_told(self, subscription: Subscription, period: BillingPeriod) -> None:
        """Refuse a version of a subscription by which a period must not be finalized."""
        ...  # pragma: no cover


class SaysChanges(Protocol):
    """Usage that can say what would differ in an invoice now."""

    def invoice_changes(self, invoice: Invoice, *, rounding: Rounding = ...) -> InvoiceChanges:
        """Return what would differ if the period of a finalized invoice were billed now."""
        ...  # pragma: no cover


class KeepsRecords(Usage, Protocol):
    """Usage that can be asked later how it was when a line was made."""

    @property
    def sequence(self) -> int:
        """The number of the record accepted last."""
        ...  # pragma: no cover

    def as_of(self, limit: int | datetime) -> KeepsRecords:
        """Return a view of how the usage was."""
        ...  # pragma: no cover


class HoldsWeakly(KeepsRecords, Protocol):
    """A view of a log that can do without keeping the log alive."""

    def weakly(self) -> Self:
        """Return this view, from now on without keeping its log alive."""
        ...  # pragma: no cover


@attrs.frozen(eq=False)
class Evidence:
    """Which usage a line was made of. A line outlives it: it keeps no log alive, and leaves it
    behind when it travels.

    Attributes:
        sequence: the number of the last record or event that the line knew of; None where it was
            not written down.
        view: the usage as it was then; None for a line that was copied to another process or
            stored.
    """

    sequence: int | None
    view: KeepsRecords | None

    @classmethod
    def of(cls, usage: KeepsRecords, sequence: int | None = None) -> Self:
        """Return how some usage is now, or was up to a number."""
        known = usage.sequence if sequence is None else sequence
        view = usage.as_of(min(known, usage.sequence))
        return cls(known, view.weakly() if offers(view, HoldsWeakly) else view)

    def up_to(self, sequence: int) -> Self:
        """Return how the usage was at an earlier number."""
        return type(self)(sequence, None if self.view is None else self.view.as_of(sequence))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle and copy the number alone."""
        return type(self), (self.sequence, None)

    def to_dict(self) -> dict[str, Any]:
        """Write the number alone, too."""
        return {"sequence": self.sequence}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read the number."""
        sequence = known_keys(data, {"sequence"}).get("sequence")
        return cls(_NUMBER.read(sequence, "sequence", None), None)


_NUMBER: Final = row_of(int | None)


class HasLock(Protocol):
    """Usage that stays as it is while its lock is held."""

    @property
    def lock(self) -> AbstractContextManager[Any]:
        """Held during every append and every answer."""
        ...  # pragma: no cover


class RoutesItems(Protocol):
    """Usage that is made of several engines."""

    def engine_of(self, item: SubscriptionItem) -> Usage:
        """Return which of them answers for an item."""
        ...  # pragma: no cover


class ClosesApart(ClosesPeriods, Protocol):
    """Usage of which several parts close a period, one after the other."""

    def lacking(self, invoice: Invoice) -> Sequence[ClosesPeriods]:
        """Return those parts that do not keep an invoice that another one keeps."""
        ...  # pragma: no cover


class Corrects(Protocol):
    """Usage that can bill what comes late of a billed period as the difference it makes."""

    @property
    def carries_late(self) -> bool:
        """Whether it does."""
        ...  # pragma: no cover

    def corrections(self, item: SubscriptionItem, period: BillingPeriod) -> list[Correction]:
        """Return the earlier periods of an item whose difference an invoice of this period
        bills.
        """
        ...  # pragma: no cover


class Settles(Protocol):
    """Usage that remembers what was charged, so that the next invoice can charge the difference."""

    def settle(
        self,
        subscription_id: str,
        settled: Mapping[str, tuple[Price, Settled]],
        sequence: int | None = None,
    ) -> None:
        """Take what an invoice charged, by item, while its period is being closed; made of the
        usage up to a number.
        """
        ...  # pragma: no cover


@attrs.frozen
class BilledBefore(Storable):
    """What earlier invoices billed of the period of a line that bills a difference.

    Attributes:
        total_usage: the quantity of the period that was billed.
        amount: what was charged of the line's part of the price, in minor units.
    """

    total_usage: Number
    amount: int


@attrs.frozen
class InvoiceLineItem(Priced):
    """One charge, settled.

    Attributes:
        id: the invoice's id and the line's number.
        subscription_item: the item's id.
        price: what it was rated with.
        period: the time the line bills, ``[start, end)``: the invoice's, or the earlier one of late
            usage.
        description: what a person reads.
        quantity: units the line covers, exact: of its tier, or raw usage on a package line, 0 on a
            flat line. What is printed, and written in tables, shows at most 12 decimal places
            (:func:`~metering_core.exact.cut`).
        amount: what is due, in whole minor units.
        exact: the amount before it was settled, in minor units; a Fraction where no decimal can
            write it.
        currency: the lower-case code.
        charge: the product behind the amount.
        total_usage: the item's whole quantity in the period, exact as ``quantity`` is; where a
            meter's corrections exceed its usage it is negative, and 0 is billed.
        aggregate_usage: the mode or formula by which usage became that quantity; None for a
            licensed item.
        rounding: the name of the rounding that settled the line.
        proration: which part of the whole billing period a licensed item is billed for, where the
            subscription begins or ends within it, to the second; ``exact`` is that part of the
            charge's amount. None for a whole period, and for usage.
        before: on a line of late usage what was billed before. ``quantity`` and ``exact`` are the
            difference then, and so is ``amount``: what the period's part of the price is settled to
            now, less what was charged for it; all three may be negative. None on the lines of the
            invoice's own period.
        usage: the records behind the line as they were when it was made, for
            :func:`~metering_core.explain`; None where the engine keeps none. It keeps no log alive
            and does not travel: a line that was pickled or stored is explained with the log beside
            it. Two lines are equal whatever they remember.
    """

    id: str
    subscription_item: str
    price: Price
    period: BillingPeriod
    description: str
    quantity: Number
    amount: int
    exact: Unrounded
    currency: str
    charge: Charge
    total_usage: Number
    aggregate_usage: AggregateUsage | Formula | None
    rounding: str
    proration: Fraction | None = None
    before: BilledBefore | None = None
    usage: Evidence | None = attrs.field(default=None, eq=False, repr=False, metadata=OF_LOG)

    @property
    def money(self) -> Money:
        """What is due, with its currency."""
        return Money(self.amount, self.currency)


@attrs.frozen
class Invoice(Priced):
    """What a subscription owes for one billing period.

    Attributes:
        id: equal for equal subscription and period.
        subscription: the subscription's id.
        currency: the lower-case code.
        period: the billing period, ``[start, end)``.
        status: ``draft`` for a preview, ``finalized`` otherwise.
        lines: in the order of the subscription's items, and tier by tier within one; late usage of
            earlier periods follows the item's own, as the difference it makes.
        finalized_at: when the period was closed first, UTC; None for a draft.
    """

    computed = ("subtotal", "total")

    id: str
    subscription: str
    currency: str
    period: BillingPeriod
    status: InvoiceStatus
    lines: tuple[InvoiceLineItem, ...]
    finalized_at: datetime | None = None

    @property
    def subtotal(self) -> int:
        """The sum of the lines in minor units, before anything that is not a line."""
        return sum(line.amount for line in self.lines)

    @property
    def total(self) -> int:
        """What is due in minor units.

        It is negative where corrections of earlier periods give back more than was used: that much
        is owed to the customer. It is not cut off at 0, and nothing keeps it for the next invoice:
        pay it out, or set it off.
        """
        return self.subtotal

    @property
    def money(self) -> Money:
        """What is due, with its currency."""
        return Money(self.total, self.currency)

    def __str__(self) -> str:
        """Return the invoice as a table that a person would send on."""
        rows = [
            (shown(line.description), grouped(line.quantity), str(line.money))
            for line in self.lines
        ]
        header, footer = ("Description", "Quantity", "Amount"), ("Total", "", str(self.money))
        widths = [max(len(row[column]) for row in (header, *rows, footer)) for column in range(3)]
        rule = "-" * (sum(widths) + 4)
        table = [_row(row, widths) for row in (header, *rows, footer)]
        start, end = (f"{at:%Y-%m-%d %H:%M}" for at in (self.period.start, self.period.end))
        title = f"Invoice {shown(self.id)} ({self.status.value})"
        period = (
            f"Subscription {shown(self.subscription)}, from {start} to {end} UTC (end excluded)"
        )
        return "\n".join([title, period, "", table[0], rule, *table[1:-1], rule, table[-1]])

    def changes(
        self, subscription: Subscription, usage: Usage, *, rounding: Rounding = half_up
    ) -> InvoiceChanges:
        """Return what would differ if the period were billed now; ask
        :meth:`~metering_core.UsageLog.invoice_changes`.

        Args:
            subscription: its newest version.
            usage: as it would be billed; lines of items of the other generation are passed over.
            rounding: how each line is settled.
        """
        _require_billable(subscription, usage, rounding)
        period = subscription.period_at(self.period.start)
        now = () if period is None else _drafted(subscription, usage, period, rounding)
        before, after = _by_place(_own_lines(self, usage)), _by_place(now)
        changed = (
            LineChange(before.get(place), after.get(place))
            for place in dict.fromkeys([*before, *after])
        )
        return InvoiceChanges(self.id, tuple(one for one in changed if one.alters_the_bill))


@attrs.frozen
class LineChange(Priced):
    """One line of an invoice that would be another one now.

    Attributes:
        billed: the line as it was billed; None where there was none.
        now: the line as it would be billed; None where there would be none.
    """

    billed: InvoiceLineItem | None
    now: InvoiceLineItem | None

    @property
    def subscription_item(self) -> str:
        """The item's id."""
        line = self.billed or self.now
        assert line is not None, "there is one, or there would be"
        return line.subscription_item

    @property
    def amounts(self) -> tuple[Money | None, Money | None]:
        """What was due, and what would be."""
        billed, now = self.billed, self.now
        return None if billed is None else billed.money, None if now is None else now.money

    @property
    def alters_the_bill(self) -> bool:
        """Whether anything but words would differ."""
        return _bill_of(self.billed) != _bill_of(self.now)


@attrs.frozen
class InvoiceChanges(Priced):
    """What would differ if a finalized invoice were made now; falsy where nothing would.

    Attributes:
        invoice: the invoice's id.
        lines: those that would be different, in the order in which they were billed.
    """

    invoice: str
    lines: tuple[LineChange, ...]

    def __bool__(self) -> bool:
        """Whether anything would differ."""
        return bool(self.lines)


def _generation(usage: Usage) -> type[AggregateUsage | Formula]:
    return Formula if offers(usage, KnowsMeters) else AggregateUsage


def _own_lines(invoice: Invoice, usage: Usage) -> list[InvoiceLineItem]:
    """Return the lines of an invoice without those of the generation that some usage does
    not have.
    """
    own = _generation(usage)
    return [
        line
        for line in invoice.lines
        if line.aggregate_usage is None or isinstance(line.aggregate_usage, own)
    ]


def _drafted(
    subscription: Subscription, usage: Usage, period: BillingPeriod, rounding: Rounding
) -> tuple[InvoiceLineItem, ...]:
    """Return what usage of one generation would bill, of the items that are not of the other."""
    is_on_meters = _generation(usage) is Formula
    items = [
        item
        for item in subscription.items
        if not item.is_metered or (item.recurring.meter is not None) is is_on_meters
    ]
    if not items:
        return ()
    return _invoice(
        attrs.evolve(subscription, items=items), usage, period, rounding, InvoiceStatus.DRAFT, None
    ).lines


_Place = tuple[Any, ...]
"""What of a line stays the same from one bill of a period to the next; the item's id first."""


def _by_place(lines: Iterable[InvoiceLineItem]) -> dict[_Place, InvoiceLineItem]:
    """Return lines by what stays the same from one bill of a period to the next: the item, the tier
    and the kind of charge.
    """
    places: dict[_Place, InvoiceLineItem] = {}
    for line in lines:
        place = (
            line.subscription_item,
            line.period.start,
            line.charge.kind,
            line.charge.tier,
            line.charge.label,
        )
        number = next(number for number in count() if (*place, number) not in places)
        places[*place, number] = line
    return places


def _bill_of(line: InvoiceLineItem | None) -> tuple[object, ...]:
    """Return what of a line makes a bill."""
    if line is None:
        return ()
    return line.currency, line.amount, line.exact, line.quantity, line.total_usage, line.charge


def _before_fields(before: BilledBefore) -> dict[str, Any]:
    return {"total_usage": number_field(before.total_usage), "amount": before.amount}


def _row(row: tuple[str, str, str], widths: list[int]) -> str:
    return f"{row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:>{widths[2]}}"


def grouped(number: Number) -> str:
    """Write a number for people: commas between thousands, at most 12 decimal places, the rest cut:
    ``1,234.5``.
    """
    return f"{number:,}" if isinstance(number, int) else f"{cut(number):,f}"


def number_field(number: Number) -> int | str:
    """Write a quantity for JSON: an int, or a decimal string where it is not whole; at most 12
    places, the rest cut.
    """
    shown = number if isinstance(number, int) else whole_if_possible(cut(number))
    return shown if isinstance(shown, int) else plain(shown)


def _period_fields(period: BillingPeriod) -> dict[str, int]:
    return {"start": period.start_seconds, "end": period.end_seconds}


def line_fields(line: InvoiceLineItem) -> dict[str, Any]:
    """Write a line flat, for tables: its price by id, quantities cut to 12 decimal places."""
    charge = line.charge
    return {
        "id": line.id,
        "subscription_item": line.subscription_item,
        "price": line.price.id,
        "description": line.description,
        "period": _period_fields(line.period),
        "kind": charge.kind.value,
        "tier": charge.tier,
        "quantity": number_field(line.quantity),
        "packages": charge.packages,
        "unit_amount": None if charge.unit_amount is None else plain(charge.unit_amount),
        "exact": plain(line.exact),
        "amount": line.amount,
        "total_usage": number_field(line.total_usage),
        "aggregate_usage": None if line.aggregate_usage is None else line.aggregate_usage.value,
        "rounding": line.rounding,
        "proration": None if line.proration is None else str(line.proration),
        **({} if line.before is None else {"before": _before_fields(line.before)}),
    }


def preview_invoice(
    subscription: Subscription, usage: Usage, *, now: Instant, rounding: Rounding = half_up
) -> Invoice:
    """Return the bill of the current period as it stands.

    Args:
        subscription: what to bill. Its licensed items are billed for the same period as its usage.
        usage: any engine: the log, a view of it, columns, files, a cluster.
        now: which period is the current one; it ends at the subscription's next boundary, not at
            ``now``.
        rounding: how each line is settled.

    A version that the log was not told is billed as well: it says what would be owed under it, and
    nothing is stored. Only what a log was told is finalized.

    Raises:
        InvoicingError: ``period_not_of_subscription`` where ``now`` is outside the subscription's
            life.
    """
    _require_billable(subscription, usage, rounding)
    at = instant(now, "now")
    period = subscription.period_at(at)
    if period is None:
        life = f"the life of subscription {subscription.id!r} ({_life(subscription)})"
        message = f"now: expected a moment in {life}, received {iso_8601(at)}"
        raise InvoicingError(ErrorCode.PERIOD_NOT_OF_SUBSCRIPTION, message, param="now")
    return _invoice(subscription, usage, period, rounding, InvoiceStatus.DRAFT, None)


def _life(subscription: Subscription) -> str:
    """Say when a subscription lives, and which period is the last one where it has an end."""
    start, end = subscription.start_date, subscription.ended_at
    if end is None:
        return f"from {iso_8601(start)} on"
    last = subscription.period_at(end - timedelta(seconds=1))
    return f"from {iso_8601(start)} to {iso_8601(end)}; its last period is {last}"


def finalize_invoice(
    subscription: Subscription,
    usage: Usage,
    period: BillingPeriod,
    *,
    now: Instant,
    rounding: Rounding = half_up,
) -> Invoice:
    """Return the bill of a period that has ended, and close the period where the usage can be
    closed.

    From then on no record can change the period, and the log keeps the invoice: finalizing again
    returns it as it is, whatever version of the subscription, rounding or usage came since.
    ``log.invoice_changes(invoice)`` says what would differ now.

    Args:
        subscription: what to bill, in the version that the usage was told: as ``log.subscriptions``
            has it, or as files and clusters were given it.
        usage: any engine. A log closes the period and keeps its invoice; a view or another engine
            only answers. A view returns what the log keeps where it shows that the period was
            closed.
        period: one of the subscription's billing periods.
        now: at or after the period's end.
        rounding: how each line is settled.

    Raises:
        InvoicingError: ``period_not_of_subscription`` or ``period_not_ended``; the period stays
            open. ``invoice_conflict`` for a view of before the log finalized the period.
        InvalidValueError: ``change_not_billable`` for a version that the usage was not told: tell
            it first with ``log.subscribe``. Names, labels and metadata may differ.
    """
    _require_billable(subscription, usage, rounding)
    at = instant(now, "now")
    with held_still(
        usage
    ):  # So that no other thread finalizes the period between the question and the closing.
        stored = invoice_in(usage, subscription, period)
        if stored is not None:
            with completing(usage, [(subscription, stored)]):
                pass
            return explained_by(usage, stored)
        subscription.require_ended(period, at)
        with closing_in(usage, {subscription.id: period}, at, [subscription]) as closed_at:
            invoice = _invoice(
                subscription,
                usage,
                period,
                rounding,
                InvoiceStatus.FINALIZED,
                closed_at[subscription.id],
            )
            keep_in(usage, subscription, invoice)
    return invoice


def closing_in(
    usage: object,
    periods: Mapping[str, BillingPeriod],
    now: datetime,
    versions: Iterable[Subscription],
) -> AbstractContextManager[Mapping[str, datetime]]:
    """Hold usage still while periods are billed, and close them where it can be closed; yields when
    each was closed first.
    """
    if offers(usage, ClosesPeriods):
        return usage.closing_all(periods, now=now, versions=versions)
    if offers(usage, IsTold):
        for version in versions:
            usage.require_told(version, periods[version.id])
    return nullcontext(dict.fromkeys(periods, now))


def keep_in(usage: object, subscription: Subscription, invoice: Invoice) -> None:
    """Let usage that closes periods keep an invoice and what it charged, while the invoice's period
    is being closed.
    """
    if offers(usage, Settles):
        usage.settle(subscription.id, _charged(subscription, invoice))
    if offers(usage, ClosesPeriods):
        usage.keep_invoice(invoice)


def take_invoice(
    usage: ClosesPeriods,
    told: Subscription,
    invoice: Invoice,
    sequence: int | None,
    *,
    settles: bool,
) -> None:
    """Let usage that is closing a period keep an invoice that was made before, of the usage up to a
    number.
    """
    if settles and offers(usage, Settles):
        usage.settle(told.id, _charged(told, invoice), sequence)
    usage.keep_invoice(invoice)


def _charged(subscription: Subscription, invoice: Invoice) -> dict[str, tuple[Price, Settled]]:
    return {item.id: (item.price, _settled(item.id, invoice)) for item in subscription.items}


def invoice_in(usage: Usage, subscription: Subscription, period: object) -> Invoice | None:
    """Return the invoice that usage keeps of a closed period; None where it keeps none."""
    if not offers(usage, StoresInvoices) or not isinstance(period, BillingPeriod):
        return None
    return usage.stored_invoice(subscription.id, period)


def explained_by(usage: Usage, invoice: Invoice) -> Invoice:
    """Return an invoice that usage keeps, its lines with their usage again."""
    if offers(usage, ClosesApart):  # A part that was completed names its own.
        invoice = usage.stored_invoice(invoice.subscription, invoice.period) or invoice
    if all(line.usage is None or line.usage.view is not None for line in invoice.lines):
        return invoice
    return attrs.evolve(invoice, lines=tuple(_with_usage(line, usage) for line in invoice.lines))


@contextmanager
def completing(usage: Usage, kept: Iterable[tuple[Subscription, Invoice]]) -> Iterator[None]:
    """Have the parts of usage that lack invoices which another part keeps keep them, too, if the
    block succeeds.

    A part lacks one because it was restored from before, or because the closing was interrupted
    between the parts. It keeps it as of when it was made, where it would bill the same itself.

    Raises:
        InvoicingError: ``invoice_conflict`` where it would not.
    """
    due: dict[tuple[int, datetime], tuple[ClosesPeriods, list[tuple[Subscription, Invoice]]]] = {}
    if offers(usage, ClosesApart):
        for subscription, invoice in kept:
            at = invoice.period.end if invoice.finalized_at is None else invoice.finalized_at
            for part in usage.lacking(invoice):
                due.setdefault((id(part), at), (part, []))[1].append((subscription, invoice))
    with ExitStack() as stack:
        for (_, at), (part, lacked) in due.items():
            stack.enter_context(_completing(part, lacked, at))
        yield


@contextmanager
def _completing(
    part: ClosesPeriods, lacked: Sequence[tuple[Subscription, Invoice]], at: datetime
) -> Iterator[None]:
    for subscription, invoice in lacked:
        own = subscription.period_at(invoice.period.start)
        if own != invoice.period:
            raise lacks_invoice(
                invoice, _kind_of(part), f"{'no such period' if own is None else own}"
            )
    periods = {subscription.id: invoice.period for subscription, invoice in lacked}
    with part.closing_all(periods, now=at, versions=[subscription for subscription, _ in lacked]):
        views: dict[int | None, Usage] = {None: part}
        for subscription, invoice in lacked:
            sequence, own_invoice = _as_its_own(part, subscription, invoice, views)
            take_invoice(part, subscription, own_invoice, sequence, settles=True)
        yield


def _as_its_own(
    part: ClosesPeriods,
    subscription: Subscription,
    invoice: Invoice,
    views: dict[int | None, Usage],
) -> tuple[int | None, Invoice]:
    """Return up to which number a part would bill just that invoice, None for now, and the invoice
    with the part's evidence.

    Where the part bills later what comes late, the first answer is the number that the invoice knew
    of: a closing was interrupted before this part had its turn, and what came since is late. Else
    all that the part has must be billed by it.
    """
    billed = _own_lines(invoice, part)
    known = [
        line.usage.sequence
        for line in billed
        if line.usage is not None and isinstance(line.aggregate_usage, Formula)
    ]
    then = max((number for number in known if number is not None), default=None)
    limits: list[int | None] = [None]
    if (
        then is not None
        and offers(part, Settles)
        and offers(part, KeepsRecords)
        and then < part.sequence
    ):
        limits.insert(0, then)
        if then not in views:
            views[then] = part.as_of(then)
    for limit in limits:
        own = _by_place(_drafted(subscription, views[limit], invoice.period, half_up))
        if _billed_of(own) == _billed_of(_by_place(billed)):
            return limit, _with_evidence(invoice, billed, own)
    raise lacks_invoice(invoice, _kind_of(part), _first_difference(_by_place(billed), own))


def _billed_of(lines: Mapping[_Place, InvoiceLineItem]) -> dict[_Place, tuple[object, ...]]:
    """Return what lines bill, before it is settled: of late usage also what was billed before."""
    return {
        place: (
            *terms_of(line.price),
            line.quantity,
            line.exact,
            line.total_usage,
            line.charge,
            line.proration,
            line.before,
        )
        for place, line in lines.items()
        # A difference of nothing but what two roundings left is for the next invoice.
        if line.before is None or line.quantity or line.exact
    }


def _with_evidence(
    invoice: Invoice, billed: Iterable[InvoiceLineItem], own: Mapping[_Place, InvoiceLineItem]
) -> Invoice:
    """Return an invoice whose lines name the usage that a part has for them."""
    metered = [line for line in billed if line.aggregate_usage is not None]
    found = {
        line.id: own[place].usage for place, line in _by_place(metered).items() if place in own
    }
    lines = tuple(
        attrs.evolve(line, usage=found.get(line.id, line.usage)) for line in invoice.lines
    )
    return attrs.evolve(invoice, lines=lines)


def _kind_of(part: Usage) -> str:
    return "events" if offers(part, KnowsMeters) else "records"


def _first_difference(
    billed: Mapping[_Place, InvoiceLineItem], own: Mapping[_Place, InvoiceLineItem]
) -> str:
    before, after = _billed_of(billed), _billed_of(own)
    place = next(one for one in (*before, *after) if before.get(one) != after.get(one))
    first, second = (_quantity_of(lines.get(place)) for lines in (own, billed))
    late = (
        " as late usage"
        if any(line and line.before for line in (billed.get(place), own.get(place)))
        else ""
    )
    return f"{first} of item {shown(place[0])!r}{late}, where the invoice bills {second}"


def _quantity_of(line: InvoiceLineItem | None) -> str:
    return (
        "nothing" if line is None else f"{grouped(line.quantity)} at price {shown(line.price.id)!r}"
    )


def lacks_invoice(invoice: Invoice, kind: str, received: str) -> InvoicingError:
    """Return the refusal to go on with a log that lacks an invoice which the log beside it
    keeps.
    """
    message = (
        f"invoice: expected the log of {kind} to bill what the invoice of subscription "
        f"{shown(invoice.subscription)!r} of "
        f"{invoice.period} says, which it lacks and the other log keeps; received "
        f"{received}. It seems to have been restored "
        "from before that invoice: send it again what was lost since and tell it again "
        "what was told (the same ids are "
        f"duplicates), then finalize that period again; or restore both logs from the same moment"
    )
    return InvoicingError(ErrorCode.INVOICE_CONFLICT, message, param="invoice")


def _with_usage(line: InvoiceLineItem, usage: object) -> InvoiceLineItem:
    """Return a line that was stored with its usage again, if the engine keeps it."""
    if line.usage is None or line.usage.view is not None:
        return line
    item = SubscriptionItem(line.subscription_item, line.price)
    engine = usage.engine_of(item) if offers(usage, RoutesItems) else usage
    return (
        attrs.evolve(line, usage=Evidence.of(engine, line.usage.sequence))
        if offers(engine, KeepsRecords)
        else line
    )


def _require_billable(subscription: Subscription, usage: Usage, rounding: Rounding) -> None:
    """Refuse what cannot make a bill."""
    require_kind(Subscription, subscription, "subscription")
    require_usage(usage)
    require_rounding(rounding)


def _invoice(
    subscription: Subscription,
    usage: Usage,
    period: BillingPeriod,
    rounding: Rounding,
    status: InvoiceStatus,
    finalized_at: datetime | None,
) -> Invoice:
    period = subscription.in_cycle(period)
    requests = [(item, period) for item in subscription.items if item.is_metered]
    with held_still(usage):
        summaries = {one.subscription_item: one for one in summarize_all(requests, usage)}
        evidence = evidence_in(usage, subscription.items)
        corrections = corrections_in(usage, [(item, period) for item in subscription.items])
    return invoice_of(
        subscription, period, summaries, evidence, corrections, rounding, status, finalized_at
    )


def held_still(usage: Usage) -> AbstractContextManager[Any]:
    """Hold usage still between the question for quantities and that for their evidence."""
    return usage.lock if offers(usage, HasLock) else nullcontext()


EvidenceOf = Callable[[SubscriptionItem], Evidence | None]
"""Which usage an item's lines are made of, as it is now; None where the engine keeps no records."""


Corrections = Callable[[SubscriptionItem, BillingPeriod], Sequence[Correction]]
"""Which earlier periods of an item an invoice of a period corrects."""


def invoice_of(
    subscription: Subscription,
    period: BillingPeriod,
    summaries: Mapping[str, UsageSummary],
    evidence: EvidenceOf,
    corrections: Corrections,
    rounding: Rounding,
    status: InvoiceStatus,
    finalized_at: datetime | None,
) -> Invoice:
    """Return the invoice of a subscription whose usage was asked for: a summary for each metered
    item, by its id.
    """
    invoice_id = subscription.invoice_id(period)
    ids = (f"{invoice_id}_{number}" for number in count(1))
    segments = [segment_of(item, summaries.get(item.id), period) for item in subscription.items]
    of_items: list[list[SettledLine]] = [[] for _ in segments]
    for line in billed(segments, rounding):
        of_items[line.segment].append(line)
    lines = (
        line
        for item, own in zip(subscription.items, of_items, strict=True)
        for line in chain(
            _lines(item, summaries.get(item.id), period, rounding, ids, evidence(item), own),
            *(_late_lines(one, rounding, ids, evidence(item)) for one in corrections(item, period)),
        )
    )
    return Invoice(
        invoice_id,
        subscription.id,
        subscription.currency,
        period,
        status,
        tuple(lines),
        finalized_at,
    )


def evidence_in(usage: Usage, items: Sequence[SubscriptionItem]) -> EvidenceOf:
    """Return what finds the evidence for the lines of items in some usage, as it is now."""
    if offers(usage, RoutesItems):
        engines = {item.id: usage.engine_of(item) for item in items}
        found = {id(engine): evidence_in(engine, items) for engine in engines.values()}
        return lambda item: found[id(engines[item.id])](item)
    evidence = Evidence.of(usage) if offers(usage, KeepsRecords) else None
    return lambda _: evidence


def corrections_in(
    usage: Usage, asked: Iterable[tuple[SubscriptionItem, BillingPeriod]]
) -> Corrections:
    """Return the corrections that some usage bills now, of items on a meter; :func:`no_corrections`
    where it bills none.
    """
    if not offers(usage, Corrects) or not usage.carries_late:
        return no_corrections
    metered = [(item, period) for item, period in asked if item.recurring.meter is not None]
    found = {(item.id, period): usage.corrections(item, period) for item, period in metered}
    return lambda item, period: found.get((item.id, period), ())


def no_corrections(item: SubscriptionItem, period: BillingPeriod) -> Sequence[Correction]:
    """Return nothing to correct."""
    return ()


def _settled(item_id: str, invoice: Invoice) -> Settled:
    amounts: dict[BillingPeriod, list[tuple[Part, int]]] = {}
    for line in invoice.lines:
        if line.subscription_item == item_id:
            amounts.setdefault(line.period, []).append((part_of(line.charge), line.amount))
    return {period: summed(of_period) for period, of_period in amounts.items()}


def _lines(
    item: SubscriptionItem,
    summary: UsageSummary | None,
    period: BillingPeriod,
    rounding: Rounding,
    ids: Iterator[str],
    evidence: Evidence | None,
    billed_lines: Iterable[SettledLine],
) -> Iterator[InvoiceLineItem]:
    """Write what was billed of an item as lines of its invoice."""
    price, share, part = item.price, billed_share(item, period), _part(item, summary, period)
    proration = None if share is WHOLE or share == WHOLE else share
    for one in billed_lines:
        charge = one.charge
        yield InvoiceLineItem(
            id=next(ids),
            subscription_item=item.id,
            price=price,
            period=period,
            description=describe_charge(price, charge) + part,
            quantity=charge.quantity,
            amount=one.amount,
            exact=one.exact,
            currency=price.currency,
            charge=charge,
            total_usage=item.quantity or 0 if summary is None else summary.total_usage,
            aggregate_usage=None if summary is None else summary.aggregate_usage,
            rounding=getattr(rounding, "__name__", type(rounding).__name__),
            proration=proration,
            usage=evidence,
        )


def segment_of(
    item: SubscriptionItem, summary: UsageSummary | None, period: BillingPeriod
) -> Segment:
    """Return what is billed of an item: what was used of it, or what was agreed."""
    quantity = item.quantity or 0 if summary is None else summary.billable_usage
    return Segment(item.price, quantity, billed_share(item, period))


def billed_share(item: SubscriptionItem, period: BillingPeriod) -> Fraction:
    """Return by which part of a billing period an item's amount is prorated.

    A licensed item was agreed for the whole period: where the subscription begins or ends within
    it, the seconds of its life are billed, of those of the whole. Usage is billed as it was used.
    """
    return WHOLE if item.is_metered else period.share


def _part(item: SubscriptionItem, summary: UsageSummary | None, period: BillingPeriod) -> str:
    """Write what is billed of a period that was cut, where that makes the line smaller; for the end
    of its description.
    """
    part = period.part
    if not part:  # As nearly always.
        return ""
    is_weighed = (
        summary is not None
        and isinstance(summary.aggregate_usage, Formula)
        and FORMULAS[summary.aggregate_usage].is_weighed
    )
    return f", {part}" if is_weighed or not item.is_metered else ""


def _late_lines(
    correction: Correction, rounding: Rounding, ids: Iterator[str], evidence: Evidence | None
) -> Iterator[InvoiceLineItem]:
    """Bill the difference that late usage makes to a period that was billed, part by part of its
    price.
    """
    price, period = correction.price, correction.period
    for one in differences(correction, rounding):
        yield InvoiceLineItem(
            id=next(ids),
            subscription_item=correction.subscription_item,
            price=price,
            period=period,
            description=f"{describe_charge(price, one.charge)}, late usage of "
            f"{period.start:%Y-%m-%d} "
            f"to {period.end:%Y-%m-%d}",
            quantity=one.charge.quantity,
            amount=one.amount,
            exact=one.charge.amount,
            currency=price.currency,
            charge=one.charge,
            total_usage=correction.measured,
            aggregate_usage=correction.formula,
            rounding=getattr(rounding, "__name__", type(rounding).__name__),
            before=BilledBefore(max(correction.billed, 0), one.before),
            usage=None if evidence is None else evidence.up_to(correction.sequence),
        )


def describe_charge(price: Price, charge: Charge) -> str:
    """Return a line's description, after the pattern of Stripe's: ``6 seats × Team (Tier 1 at USD
    7.00 / month)``.
    """
    if charge.label is not None:
        return shown(charge.label)
    terms, title = _terms(price, charge), shown(price.title)
    if charge.kind in {ChargeKind.FLAT, ChargeKind.PERCENT}:
        return f"{title} ({terms})"
    units = (
        grouped(charge.quantity)
        if price.unit_label is None
        else f"{grouped(charge.quantity)} {shown(price.unit_label)}"
    )
    return f"{units} × {title} ({terms})"


@lru_cache(maxsize=1024)
def _in_words(unit_amount: Decimal, currency: str) -> str:
    """Write the amount of a price; there are few prices and very many lines."""
    return str(Amount(unit_amount, currency))


def _rate_in_words(price: Price, charge: Charge) -> str:
    """Write what a charge is multiplied with: ``Tier 1 at USD 7.00``, ``2.9% of USD 3,400.00``."""
    if charge.kind is ChargeKind.PERCENT:
        return percent_in_words(charge, price.currency)
    tier = "" if charge.tier is None else f"Tier {charge.tier} "
    flat = "flat fee " if charge.kind is ChargeKind.FLAT else ""
    if charge.unit_amount is None:
        return f"{tier}{flat}"
    packages = "" if charge.packages is None else f"{grouped(charge.packages)} × "
    per = "" if charge.divide_by is None else f" per {grouped(charge.divide_by)}"
    return f"{tier}{flat}at {packages}{_in_words(charge.unit_amount, price.currency)}{per}"


def percent_in_words(charge: Charge, currency: str) -> str:
    """Write a percentage, and what it is of."""
    assert charge.unit_amount is not None, "a percentage has its part"
    return f"{plain(multiply(charge.unit_amount, 100))}% of {Amount(charge.quantity, currency)}"


def _terms(price: Price, charge: Charge) -> str:
    at = _rate_in_words(price, charge)
    recurring = price.recurring
    if recurring is None:
        return at
    count = "" if recurring.interval_count == 1 else f"{recurring.interval_count} "
    plural = "" if recurring.interval_count == 1 else "s"
    return f"{at} / {count}{recurring.interval.value}{plural}"

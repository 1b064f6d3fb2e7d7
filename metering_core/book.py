"""Who pays for what since when, what is closed, and which meters and customers there are.

A log, columns and SQL hold usage; none of it says whose it is. That is told to a book: versions of
subscriptions, meters, customers, and which periods were closed with which invoices. Whatever holds
usage asks its book, and several engines may share one: what is told through one of them holds for
all, and what is closed through one of them is closed.

What is told is judged against what the book knows and against the usage of those that keep it
(:mod:`metering_core.changing` has the rules), is carried out whole or not at all
(:mod:`metering_core.guarding`), and has a number: facts come in one sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, KeysView, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol, Self
from weakref import ref

import attrs

from metering_core.accounts import (
    Account,
    Closing,
    KnownItem,
    refuse_told_otherwise,
    unknown_item,
)
from metering_core.aggregation import Usage
from metering_core.changing import (
    ChangeMoment,
    RecordedUsage,
    UsageOfAll,
    heirs_of,
    open_stretches,
    overlap,
    refuse_reopened,
    refuse_unbillable,
)
from metering_core.errors import ErrorCode, InvalidValueError, InvoicingError, shown
from metering_core.guarding import Billing, Guarded
from metering_core.meter_acceptance import Overlap
from metering_core.meter_bills import Bill
from metering_core.meters import Meter, short_name
from metering_core.money import Rounding, half_up
from metering_core.names import (
    each_of,
    name,
    require_iterable,
    require_kind,
    require_object,
    require_offer,
    text_of,
)
from metering_core.periods import BillingPeriod, Instant, instant, iso_8601
from metering_core.subscriptions import Subscription, SubscriptionItem

if TYPE_CHECKING:  # Invoices are made above this module; here they are kept.
    from metering_core.invoicing import Invoice, InvoiceChanges

Clock = Callable[[], Instant]
"""Where a log gets its now from when the caller does not pass one."""

KeptBill = tuple[str, BillingPeriod, Bill]
"""An item's id, a period, and what was billed of it."""

Bills = Callable[[Mapping[str, Closing], Billing, datetime], Iterable[KeptBill]]
"""Says what is to be kept of the quantities that were billed, as periods are closed at a moment."""


class Billed(Protocol):
    """An invoice, as it is seen from here: it is made above, and kept by the book."""

    @property
    def subscription(self) -> str:
        """The subscription's id."""

    @property
    def period(self) -> BillingPeriod:
        """The billing period."""

    def changes(
        self, subscription: Subscription, usage: Usage, *, rounding: Rounding
    ) -> InvoiceChanges:
        """Return what would differ if the period were billed now."""


class KeepsUsage(Protocol):
    """Whatever holds usage, as far as a newer version of a subscription must leave it alone."""

    def recorded(self, account: Account) -> RecordedUsage:
        """Return what is known of the usage of a subscription's items."""

    def last_received(self) -> int | None:
        """Return when usage came last, in Unix microseconds; None where there is none."""

    @property
    def sequence(self) -> int:
        """The number of the entry accepted last."""


class _Customers(KeysView[str]):
    """The customers that are known, as they are now; may be gone through while others come."""

    def __init__(self, customers: Mapping[str, None]) -> None:
        super().__init__(customers)
        self._customers = customers

    def __iter__(self) -> Iterator[str]:
        """Go through those that there were when it began."""
        return iter(list(self._customers))


@attrs.frozen(eq=False)
class Fact:
    """Something that was told.

    Attributes:
        fields: what it is, by the kind of fact.
        heard: how many entries whoever holds usage had then.
    """

    fields: Mapping[str, Any]
    heard: tuple[tuple[ref[KeepsUsage], int], ...]


class Book(Guarded):
    """What was told: subscriptions, closed periods and their invoices; with meters, also those,
    whose events are accepted, and what was billed of them.

    Args:
        subscriptions: to begin with.
        meters: to begin with; None for a book of usage records, which leaves items on meters alone.
        customers: the customers whose events are accepted; any customer unless given.
        overlap: what two subscriptions of one customer on one meter are.

    Attributes:
        lock: held during every change and every answer of whatever shares the book.
        told: the number of what was told last.
        forgotten: how much had been told when the book was restored, of which the newest is known
            and not what came before.
        accounts: what is known of each subscription.
        owners: whose each item is that must be one subscription's own, in the order in which they
            came.
        items: the items of a book of usage records, by id.
        by_code: the same, in the order in which they came.
        meters: the newest version of each meter, by id; another mapping as soon as one changes.
        by_event: the same by event name.
        by_customer: the accounts of each customer.
        heirs: item that was dropped after a period of it was billed → the one that bills what comes
            late for it; another mapping as soon as it changes.
        bills: what was billed of meters, by subscription and item, in the order in which they were
            made.
        bills_made: how many bills there are.
    """

    def __init__(
        self,
        subscriptions: Iterable[Subscription] = (),
        *,
        meters: Iterable[Meter] | None = None,
        customers: Iterable[str] | None = None,
        overlap: Overlap = Overlap.REFUSE,
    ) -> None:
        super().__init__()
        self.told = 0
        self.forgotten = 0
        self._facts: list[Fact] = []
        self.accounts: dict[str, Account] = {}
        self.owners: dict[str, Account] = {}
        self.items: dict[str, KnownItem] = {}
        self.by_code: list[KnownItem] = []
        self._keepers: list[ref[KeepsUsage]] = []
        self.measures: Final = meters is not None
        self._start_measuring()
        for meter in require_iterable(() if meters is None else meters, "meters"):
            self.create_meter(meter)
        self._accept_only(customers)
        for subscription in require_iterable(subscriptions, "subscriptions"):
            self.subscribe(subscription, overlap=overlap)

    def _start_measuring(self) -> None:
        self.meters: dict[str, Meter] = {}
        self.by_event: dict[str, Meter] = {}
        self.by_customer: dict[str, dict[str, Account]] = {}
        self.heirs: dict[str, str] = {}
        self.bills: dict[str, dict[str, list[tuple[BillingPeriod, Bill]]]] = {}
        self.bills_made = 0
        self._customers: dict[str, None] | None = None

    def _accept_only(self, customers: Iterable[str] | None) -> None:
        if isinstance(customers, str):
            expected = "an iterable of customers' ids"
            raise InvalidValueError.expecting(
                ErrorCode.PARAMETER_INVALID_OBJECT, "customers", expected, customers
            )
        if customers is not None:
            self._customers = {}
            for customer in require_iterable(customers, "customers"):
                self.add_customer(customer)

    def join(self, keeper: KeepsUsage) -> None:
        """Ask one more holder of usage what newer versions must leave alone, as long as it is
        there.
        """
        self._keepers = [one for one in self._keepers if one() is not None] + [ref(keeper)]

    def _tell(self, change: Callable[[], object], **fields: Any) -> None:
        """Carry out what was told and has been judged, and number it: all of it or nothing."""
        keepers = [(one, keeper) for one in self._keepers if (keeper := one()) is not None]
        heard = tuple((one, keeper.sequence) for one, keeper in keepers)
        self.decide(partial(self._carry_out, change, self.told + 1, Fact(fields, heard)))

    def _carry_out(self, change: Callable[[], object], number: int, fact: Fact) -> None:
        change()
        # In the place of what an interrupt may have left there.
        self._facts[number - 1 - self.forgotten :] = [fact]
        self.told = number

    def fact(self, number: int) -> Fact:
        """Return what was told, by its number; of what was told since the book began, or was
        restored.
        """
        return self._facts[number - 1 - self.forgotten]

    # Meters and customers -------------------------------------------------------------------------

    def create_meter(self, meter: Meter) -> None:
        """Measure events by a new meter from now on.

        Raises:
            InvalidValueError: ``meter_changed`` where the id or the event name belongs to another
                meter, also an inactive one.
        """
        require_kind(Meter, meter, "meter")
        with self.lock:
            self.begin_change()
            self._refuse_taken(meter)
            self._tell(partial(self._take_meter, meter), meter=meter)

    def _refuse_taken(self, meter: Meter) -> None:
        for param, taken in (
            ("id", self.meters.get(meter.id)),
            ("event_name", self.by_event.get(meter.event_name)),
        ):
            if taken is not None:
                expected = f"one that no other meter has ({taken.id!r} has it)"
                raise InvalidValueError.expecting(
                    ErrorCode.METER_CHANGED, param, expected, getattr(meter, param)
                )

    def update_meter(self, meter: Meter) -> None:
        """Take note of a newer version of a meter: another display name, deactivated or active
        again.

        Raises:
            InvalidValueError: ``meter_unknown``, or ``meter_changed`` where it changes anything
                else.
        """
        require_kind(Meter, meter, "meter")
        with self.lock:
            self.begin_change()
            self.known_meter(meter.id).require_successor(meter)
            self._tell(partial(self._take_meter, meter), meter=meter)

    def _take_meter(self, meter: Meter) -> None:
        self.by_event = {**self.by_event, meter.event_name: meter}
        self.meters = {**self.meters, meter.id: meter}

    def known_meter(self, meter_id: str) -> Meter:
        """Return the newest version of a meter.

        Raises:
            InvalidValueError: ``meter_unknown``.
        """
        self.finish()
        if name(meter_id, "meter") not in self.meters:
            expected = f"the id of a meter in the log ({', '.join(self.meters) or 'none'})"
            raise InvalidValueError.expecting(ErrorCode.METER_UNKNOWN, "meter", expected, meter_id)
        return self.meters[meter_id]

    def meter_named(self, event_name: str) -> Meter | None:
        """Return the newest version of the meter of an event name; None where there is none."""
        self.finish()
        return self.by_event.get(short_name(event_name, "event_name"))

    def meter_of(self, item: SubscriptionItem) -> Meter:
        """Return the meter that an item's price names.

        Raises:
            InvoicingError: ``price_not_metered`` where it names none.
            InvalidValueError: ``meter_unknown``.
        """
        require_kind(SubscriptionItem, item, "item")
        if item.recurring.meter is None:
            message = (
                "subscription_item: expected an item whose price is on a meter, received "
                f"{item.id!r}, whose price {item.price.id!r} "
                f"{'aggregates usage records' if item.is_metered else 'is licensed'}"
            )
            raise InvoicingError(ErrorCode.PRICE_NOT_METERED, message, param="subscription_item")
        return self.known_meter(item.recurring.meter)

    @property
    def customers(self) -> KeysView[str] | None:
        """The customers whose events are accepted, as they are now; None for any."""
        return None if self._customers is None else _Customers(self._customers)

    def add_customer(self, customer: str) -> None:
        """Accept a customer's events; of no account where any customer's are."""
        checked = name(customer, "customer")
        with self.lock:
            self.begin_change()
            if self._customers is not None:
                self._tell(partial(self._customers.setdefault, checked), customer=checked)

    def customer_of(self, item: SubscriptionItem) -> str:
        """Return the customer whose events an item bills.

        Raises:
            InvoicingError: ``subscription_item_unknown``.
        """
        self.finish()
        account = self.owners.get(require_kind(SubscriptionItem, item, "item").id)
        if account is None:
            message = (
                "subscription_item: expected an item of a subscription in the meter log, "
                f"received {item.id!r}"
            )
            raise InvoicingError(
                ErrorCode.SUBSCRIPTION_ITEM_UNKNOWN, message, param="subscription_item"
            )
        customer = account.subscription.customer
        assert customer is not None, "subscribe() asks for it"
        return customer

    # Subscriptions --------------------------------------------------------------------------------

    @property
    def subscriptions(self) -> tuple[Subscription, ...]:
        """The newest version of every subscription, in the order in which they came."""
        with self.lock:
            self.finish()
            return tuple(account.subscription for account in self.accounts.values())

    def account_of(self, subscription_id: str) -> Account:
        """Return what is known of a subscription.

        Raises:
            InvalidValueError: ``parameter_invalid_choice`` for one that there is not.
        """
        self.finish()
        account = self.accounts.get(text_of(subscription_id) or "")
        if account is None:
            expected = "the id of a subscription in the log"
            raise InvalidValueError.expecting(
                ErrorCode.PARAMETER_INVALID_CHOICE, "subscription", expected, subscription_id
            )
        return account

    def bills_usage_of(self, item: SubscriptionItem) -> bool:
        """Whether an item is the book's to bill, and not that of one of the other generation beside
        it; licensed ones are everybody's.
        """
        recurring = item.recurring
        return (recurring.aggregate_usage if self.measures else recurring.meter) is None

    def _owns(self, item: SubscriptionItem) -> bool:
        """Whether an item must be one subscription's own: a meter's events are no item's."""
        return not self.measures or item.recurring.meter is not None

    def subscribe(
        self,
        subscription: Subscription,
        *,
        now: Instant | None = None,
        rebill: bool = False,
        clock: Clock | None = None,
        overlap: Overlap = Overlap.REFUSE,
    ) -> None:
        """Take note of a subscription, or of a newer version of it (same id).

        Args:
            subscription: the version.
            now: the moment of the change.
            rebill: whether all open periods are to be billed by this version although it changes
                what they owe.
            clock: gives the moment where ``now`` does not.
            overlap: what two subscriptions of one customer on one meter are.

        Raises:
            InvalidValueError: as :meth:`~metering_core.UsageLog.subscribe` and
                :meth:`~metering_core.MeterLog.subscribe`. Nothing changes then.
        """
        require_kind(Subscription, subscription, "subscription")
        at = None if now is None else instant(now, "now")
        require_kind(bool, rebill, "rebill", "True or False")
        with self.lock:
            self.begin_change()
            account = self.accounts.get(subscription.id)
            self._refuse_meters(subscription, account)
            self._refuse_moved(subscription, account)
            heirs = self.heirs
            if account is not None:
                heirs = self._heirs_with(subscription, account)
                refuse_reopened(account, subscription)
                if not rebill:
                    self._refuse_unbillable(subscription, account, heirs, at, clock)
            if self.measures and overlap is Overlap.REFUSE:
                self._refuse_overlap(subscription)
            take = partial(self._take_subscription, subscription, heirs)
            self._tell(take, subscription=subscription)

    def _take_subscription(self, subscription: Subscription, heirs: dict[str, str]) -> None:
        self.heirs = heirs
        account = self.accounts.get(subscription.id)
        if account is None:
            account = self.accounts[subscription.id] = Account(subscription)
        if self.measures and subscription.customer is not None:
            self.by_customer.setdefault(subscription.customer, {})[subscription.id] = account
        account.take(subscription)
        for item_id in account.items:
            self.items[item_id].drop()
        for item in filter(self._owns, subscription.items):
            if self.measures:
                self.owners[item.id] = account
            else:
                self.bind(item, account)

    def bind(self, item: SubscriptionItem, account: Account) -> KnownItem:
        """Note an item of usage records as a version of its subscription has it."""
        known = self.items.get(item.id)
        if known is None:
            known = KnownItem(len(self.items), item, account)
            # In the place of what an interrupt may have left there.
            self.by_code[known.code :] = [known]
            self.items[item.id] = known
        self.owners[item.id], account.items[item.id] = account, None
        known.take(item)
        return known

    def known(self, item_id: str) -> KnownItem:
        """Return an item of usage records.

        Raises:
            InvoicingError: ``subscription_item_unknown``.
        """
        self.finish()
        known = self.items.get(name(item_id, "subscription_item"))
        if known is None:
            raise unknown_item(item_id)
        return known

    def _refuse_unbillable(
        self,
        subscription: Subscription,
        account: Account,
        heirs: Mapping[str, str],
        at: datetime | None,
        clock: Clock | None,
    ) -> None:
        keepers = [keeper for one in self._keepers if (keeper := one()) is not None]
        usage = UsageOfAll(tuple(keeper.recorded(account) for keeper in keepers))
        received = [keeper.last_received() for keeper in keepers]
        last = max((one for one in received if one is not None), default=None)
        refuse_unbillable(account, subscription, usage, ChangeMoment(account, at, clock, last))
        self._refuse_unbilled(subscription, account)
        _refuse_owing(subscription, account, heirs, usage)

    def _refuse_meters(self, subscription: Subscription, account: Account | None) -> None:
        """Refuse an item that is on a meter which could not measure for it."""
        former = () if account is None else account.subscription.items
        known = {(one.id, one.recurring.meter) for one in former}
        for item in subscription.items if self.measures else ():
            if item.recurring.meter is None:
                continue
            if subscription.customer is None:
                expected = f"the customer whose events the item {item.id!r} bills"
                raise InvalidValueError.expecting(
                    ErrorCode.PARAMETER_MISSING, "customer", expected, None
                )
            meter = self.meter_of(item)
            if not meter.is_active and (item.id, meter.id) not in known:
                param = "items[price][recurring][meter]"
                expected = "an active meter for an item that is new on it"
                raise InvalidValueError.expecting(
                    ErrorCode.METER_INACTIVE, param, expected, meter.id
                )

    def _refuse_moved(self, subscription: Subscription, account: Account | None) -> None:
        """Refuse other boundaries, another customer, and an item of another subscription."""
        code = ErrorCode.SUBSCRIPTION_CHANGED
        former = None if account is None else account.subscription
        if former is not None and former.cycle != subscription.cycle:
            expected = f"the cycle that its usage was recorded under ({former.cycle})"
            param, received = "billing_cycle_anchor", str(subscription.cycle)
            raise InvalidValueError.expecting(code, param, expected, received)
        if self.measures and former is not None and former.customer != subscription.customer:
            raise InvalidValueError.expecting(
                code, "customer", f"{former.customer!r}", subscription.customer
            )
        for item in filter(self._owns, subscription.items):
            owner = self.owners.get(item.id, account)
            if owner is not None and owner is not account:
                theirs = owner.subscription.id
                expected = f"an id that no item of another subscription has ({theirs!r} has it)"
                raise InvalidValueError.expecting(code, "items[id]", expected, item.id)

    def _refuse_unbilled(self, subscription: Subscription, account: Account) -> None:
        """Refuse another meter to an item of which a meter closed a period without an invoice: no
        other one can bill it.
        """
        for place, item in enumerate(subscription.items):
            for period, bill in self.bills_of(item.id) if item.recurring.meter is not None else ():
                if bill.meter == item.recurring.meter or account.is_billed(period.start_seconds):
                    continue
                expected = (
                    f"the meter {bill.meter!r}, which closed {period} without an "
                    "invoice (finalize that period first, or "
                    "give the item that is on another meter another id)"
                )
                param = f"items[{place}][price]"
                raise InvalidValueError.expecting(
                    ErrorCode.CHANGE_NOT_BILLABLE, param, expected, item.recurring.meter
                )

    def _refuse_overlap(self, subscription: Subscription) -> None:
        """Refuse a second subscription that would bill the events of a meter that another one of
        the customer bills, or has.
        """
        if subscription.customer is None:
            return
        stretches = list(open_stretches(subscription, self.accounts.get(subscription.id)))
        for account in self.by_customer.get(subscription.customer, {}).values():
            if account.subscription.id != subscription.id:
                self._refuse_beside(account.subscription, subscription, stretches)

    def _refuse_beside(
        self,
        other: Subscription,
        subscription: Subscription,
        stretches: Sequence[tuple[int, int]],
    ) -> None:
        meets = overlap(other, subscription)
        billed = {item.recurring.meter for item in other.items} if meets else set()
        for place, item in enumerate(subscription.items):
            meter = item.recurring.meter
            if meter is None:
                continue
            if meter in billed:
                raise _billed_twice(other, place, meter)
            for period in self._billed_of(other.id, meter):
                bounds = period.start_seconds, period.end_seconds
                if any(bounds[0] < end and start < bounds[1] for start, end in stretches):
                    raise _billed_before(other, place, meter, period)

    # Bills of meters ------------------------------------------------------------------------------

    def _billed_of(self, subscription_id: str, meter: str) -> Iterator[BillingPeriod]:
        """Yield the periods of a subscription that invoices billed of a meter, whatever its
        versions say since.
        """
        for bills in self.bills.get(subscription_id, {}).values():
            yield from (
                period for period, bill in bills if bill.meter == meter and not bill.is_noted
            )

    def bills_of(self, item_id: str) -> Sequence[tuple[BillingPeriod, Bill]]:
        """Return what was billed of an item and of those that it came for, in the order of the
        bills.
        """
        self.finish()
        account = self.owners.get(name(item_id, "subscription_item"))
        if account is None:
            return ()
        bills = self.bills.get(account.subscription.id, {})
        lineage = self._lineage(item_id) if self.heirs else [item_id]
        if len(lineage) == 1:
            return bills.get(item_id, ())
        made = (bill for one in lineage for bill in bills.get(one, ()))
        return sorted(made, key=lambda one: one[1].number)

    def billed_items(self, subscription_id: str) -> list[str]:
        """Return who bills late usage of the periods that were billed of a subscription, by item
        id.
        """
        self.finish()
        billed = self.bills.get(name(subscription_id, "subscription"), ())
        return list(dict.fromkeys(map(self._heir_of, billed)))

    def _heirs_with(self, subscription: Subscription, account: Account) -> dict[str, str]:
        """Return who bills late usage for whom once a newer version holds; refuse an item whose
        bills went to another.
        """

        def may_inherit(item: SubscriptionItem, heir: SubscriptionItem) -> bool:
            return not self.bills_of(heir.id) or heir.id in self._lineage(item.id)

        former = {item.id for item in account.subscription.items}
        told = heirs_of(account.subscription, subscription, may_inherit)
        told = {item_id: heir for item_id, heir in told.items() if self.bills_of(item_id)}
        for place, item in enumerate(subscription.items):
            if item.id not in former and item.id in self.heirs and item.id not in told.values():
                expected = (
                    f"another id, because {self._heir_of(item.id)!r} bills what comes late for "
                    "this one"
                )
                raise InvalidValueError.expecting(
                    ErrorCode.SUBSCRIPTION_CHANGED, f"items[{place}][id]", expected, item.id
                )
        if not told:
            return self.heirs
        coming = set(told.values())
        return {one: heir for one, heir in self.heirs.items() if one not in coming} | told

    def _heir_of(self, item_id: str) -> str:
        """Return the item that bills what comes late for one: itself, or the one that came last
        after it was dropped.
        """
        while item_id in self.heirs:
            item_id = self.heirs[item_id]
        return item_id

    def _lineage(self, item_id: str) -> list[str]:
        """Return an item and those for which it bills what comes late."""
        found = [item_id]
        for one in found:  # Grows on the way.
            found += [former for former, heir in self.heirs.items() if heir == one]
        return found

    def keep_bill(self, item_id: str, period: BillingPeriod, bill: Bill) -> None:
        """Keep what was billed of an item; again it changes nothing."""
        subscription = self.owners[item_id].subscription
        made = self.bills.setdefault(subscription.id, {}).setdefault(item_id, [])
        if not made or made[-1][1].number < bill.number:  # Else it was kept before an interrupt.
            made.append((subscription.in_cycle(period), bill))
        self.bills_made = bill.number

    # Closing --------------------------------------------------------------------------------------

    @property
    def closed(self) -> dict[str, tuple[Closing, ...]]:
        """What was finalized, by subscription; those of which nothing was are left out."""
        accounts = self.accounts.items()
        return {key: tuple(account.closed.values()) for key, account in accounts if account.closed}

    def closing_of(self, subscription_id: str, period: BillingPeriod) -> Closing | None:
        """Return how a period was finalized with an invoice; None where it was not, or of a
        subscription that is not there.
        """
        known = name(subscription_id, "subscription")
        require_kind(BillingPeriod, period, "period")
        with self.lock:
            self.finish()
            return self.accounts[known].finalized(period) if known in self.accounts else None

    def require_told(self, subscription: Subscription, period: BillingPeriod) -> None:
        """Refuse a version of a subscription by which a period that is not finalized must not be.

        A subscription that the book does not have may have no metered items of the book's.

        Raises:
            InvalidValueError: ``change_not_billable`` for a version that was not told;
                ``parameter_invalid_choice`` for a subscription that there is not.
        """
        require_kind(Subscription, subscription, "subscription")
        require_kind(BillingPeriod, period, "period")
        with self.lock:
            if self.closing_of(subscription.id, period) is None:
                self._refuse_untold(subscription)

    def _refuse_untold(self, given: Subscription) -> None:
        """Refuse a version that was not told; of a subscription that the book does not have, one
        with items of which it would be asked for usage.
        """
        bills = self.bills_usage_of
        if given.id in self.accounts or any(one.is_metered and bills(one) for one in given.items):
            refuse_told_otherwise(self.account_of(given.id).subscription, given, bills)

    def keep_invoice(self, invoice: Invoice) -> None:
        """Take the invoice of the period that is being closed.

        Raises:
            InvalidValueError: ``parameter_invalid_object`` where no period of its subscription is
                being closed.
            InvoicingError: ``invoice_conflict`` where the period was closed with another invoice;
                equal ones change nothing.
        """
        require_offer(Billed, invoice, "invoice", "an Invoice")
        with self.lock:
            billing = self.billing_of(invoice.subscription)
            stored = billing.stored[invoice.subscription]
            if stored is None:
                billing.invoices[invoice.subscription] = invoice
            elif stored != invoice:
                raise InvoicingError.of_second_invoice(
                    invoice.subscription,
                    "the invoice that the log keeps of the period",
                    "another one",
                )

    @contextmanager
    def closing_all(
        self,
        periods: Mapping[str, BillingPeriod],
        *,
        now: Instant,
        versions: Iterable[Subscription],
        bills: Bills,
    ) -> Iterator[dict[str, datetime]]:
        """Hold all usage still while a period of each of many subscriptions is billed, and close
        all of them if that succeeds; see :meth:`Closes.closing_all`.

        ``bills`` says what is to be kept of the quantities that were billed.
        """
        given = require_kind(Mapping, periods, "periods", "subscriptions with their periods")
        at, billed = instant(now, "now"), list(each_of(Subscription, versions, "versions"))
        with self.lock:
            self.finish()
            for version in billed:
                told = self.account_of(version.id).subscription
                refuse_told_otherwise(told, version, self.bills_usage_of)
            former = {
                key: self.account_of(key).to_close(period, at) for key, period in given.items()
            }
            with self.billing({key: closing.invoice for key, closing in former.items()}) as billing:
                yield {key: closing.closed_at for key, closing in former.items()}
            closed = {
                key: attrs.evolve(closing, invoice=billing.invoices[key])
                for key, closing in former.items()
            }
            close = partial(self._close_all, closed, list(bills(closed, billing, at)))
            self._tell(close, received_at=at, closed=_said(closed, billing.settled))

    def _close_all(self, closings: Mapping[str, Closing], bills: Iterable[KeptBill]) -> None:
        for bill in bills:
            self.keep_bill(*bill)
        for key, closing in closings.items():
            self.accounts[key].close(closing)

    def with_closed(self, closed: Mapping[str, Iterable[Closing]] | None) -> Self:
        """Return this book once it knows what was finalized elsewhere, by subscription.

        Raises:
            InvalidValueError: ``parameter_invalid_choice`` where a closed period belongs to none of
                the subscriptions.
        """
        given = (
            {} if closed is None else require_object(closed, "closed", "closings by subscription")
        )
        for subscription_id, closings in given.items():
            if subscription_id not in self.accounts:
                expected = "ids of the subscriptions given"
                raise InvalidValueError.expecting(
                    ErrorCode.PARAMETER_INVALID_CHOICE, "closed", expected, subscription_id
                )
            for closing in require_iterable(closings, "closed"):
                require_kind(Closing, closing, "closed", "Closings")
                self.accounts[subscription_id].close(closing)
        return self

    # State ----------------------------------------------------------------------------------------

    def restore(
        self,
        subscriptions: Iterable[Subscription],
        closed: Mapping[str, Iterable[Closing]],
        told: int,
    ) -> None:
        """Take the subscriptions and closed periods of a state; it is trusted."""
        self.told = self.forgotten = told
        self._facts = []
        for subscription in subscriptions:
            self.accounts[subscription.id] = account = Account(subscription)
            if self.measures and subscription.customer is not None:
                self.by_customer.setdefault(subscription.customer, {})[subscription.id] = account
        for subscription_id, closings in closed.items():
            for closing in closings:
                self.accounts[subscription_id].close(closing)


def _said(closed: Mapping[str, Closing], settled: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """Return closings as a fact says them: with whether it was said what the invoice charged, and
    up to which number.
    """
    return [
        (key, one.period, one.invoice, key in settled, settled.get(key, (None,))[-1])
        for key, one in closed.items()
    ]


def require_book(book: object, *, measures: bool) -> Book:
    """Return a book that an engine may share, or refuse one of the other kind of usage."""
    kind = "meters" if measures else "usage records"
    if isinstance(book, Book) and book.measures is measures:
        return book
    raise InvalidValueError.expecting(
        ErrorCode.PARAMETER_INVALID_OBJECT, "book", f"a Book of {kind}, such as a log's", book
    )


def _refuse_owing(
    subscription: Subscription, account: Account, heirs: Mapping[str, str], usage: RecordedUsage
) -> None:
    """Refuse a version that leaves nobody to bill a difference of a closed period, where a later
    invoice would bill it.
    """
    former, latest = account.subscription, account.latest_closed()
    if latest is None:
        return
    ends = subscription.ended_at
    is_over = ends != former.ended_at and ends is not None and ends <= latest.end
    billing = {item.id for item in subscription.items if item.recurring.meter is not None}
    for item in former.items:
        has_heir = item.id in billing or item.id in heirs
        if item.recurring.meter is None or (has_heir and not is_over):
            continue
        for one in usage.owing(item, former.cycle.period_at(latest.end)):
            expected = (
                f"the item {item.id!r} for another period, because its usage of "
                f"{one.period} changed since it was billed "
                "(finalize the next period first, or pass rebill=True to leave the "
                "difference in log.unbilled)"
            )
            param, given = "items", "no such item on a meter"
            if is_over and ends is not None:
                param, given = "ended_at", iso_8601(ends)
            raise InvalidValueError.expecting(ErrorCode.CHANGE_NOT_BILLABLE, param, expected, given)


def _billed_twice(other: Subscription, place: int, meter: str) -> InvalidValueError:
    until = "" if other.ended_at is None else f" until {iso_8601(other.ended_at)}"
    expected = (
        f"a meter that no other subscription of customer {shown(other.customer or '')!r} bills at "
        f"the same time, but {other.id!r} bills it "
        f"from {iso_8601(other.start_date)}{until}: tell its end first, or say "
        "overlap='each_counts_all' in the policy"
    )
    param = f"items[{place}][price][recurring][meter]"
    return InvalidValueError.expecting(ErrorCode.USAGE_BILLED_TWICE, param, expected, meter)


def _billed_before(
    other: Subscription, place: int, meter: str, period: BillingPeriod
) -> InvalidValueError:
    expected = (
        f"a meter of whose events no other subscription of customer {shown(other.customer or '')!r}"
        f" has an invoice, but {other.id!r} was "
        f"billed for {period}, and its invoice stays: begin this one at "
        f"{iso_8601(period.end)} or later, or end it by "
        f"{iso_8601(period.start)}, or say overlap='each_counts_all' in the policy"
    )
    param = f"items[{place}][price][recurring][meter]"
    return InvalidValueError.expecting(ErrorCode.USAGE_BILLED_TWICE, param, expected, meter)


# What engines over a book say ---------------------------------------------------------------------


class ClosesOne:
    """What closes one period as the case of one of closing many."""

    __slots__ = ()

    def closing_all(
        self,
        periods: Mapping[str, BillingPeriod],
        *,
        now: Instant,
        versions: Iterable[Subscription] = (),
    ) -> AbstractContextManager[dict[str, datetime]]:
        """Hold usage still while many periods are billed, and close all of them if that
        succeeds.
        """
        raise NotImplementedError  # pragma: no cover - each has its own

    @contextmanager
    def closing(
        self, subscription_id: str, period: BillingPeriod, *, now: Instant
    ) -> Iterator[datetime]:
        """Hold the log still while a period is billed, and close the period if that succeeds.

        Yields:
            When the period was closed first, UTC; ``now`` where it was not. Closing it again
            changes nothing.

        Raises:
            InvoicingError: ``period_not_of_subscription``, or ``period_not_ended`` before the
                period's end.
            InvalidValueError: ``parameter_invalid_choice`` for a subscription that the log does not
                have.
        """
        known = name(subscription_id, "subscription")
        with self.closing_all({known: period}, now=now) as closed_at:
            yield closed_at[known]


class HasBook(Protocol):
    """Whatever is over a book."""

    @property
    def book(self) -> Book:
        """Who pays for what since when."""
        ...  # pragma: no cover


class OverBook:
    """What every engine over a book says of the subscriptions: the book's words.

    Attributes:
        book: who pays for what since when; several engines may share one.
    """

    book: Book

    @property
    def subscriptions(self) -> tuple[Subscription, ...]:
        """The newest version of every subscription, in the order in which they came."""
        return self.book.subscriptions

    def subscription(self, subscription_id: str) -> Subscription:
        """Return the newest version of a subscription.

        Raises:
            InvalidValueError: ``parameter_invalid_choice`` for a subscription that the log does not
                have.
        """
        with self.book.lock:
            return self.book.account_of(subscription_id).subscription

    def require_told(self, subscription: Subscription, period: BillingPeriod) -> None:
        """Refuse a version of a subscription by which a period that is not finalized must not be;
        for who bills.

        Raises:
            InvalidValueError: ``change_not_billable`` for a version that the log was not told;
                ``parameter_invalid_choice`` for a subscription that it does not have.
        """
        self.book.require_told(subscription, period)


class OverMeters(OverBook):
    """What every engine over a book of meters says of them."""

    @property
    def meters(self) -> tuple[Meter, ...]:
        """The newest version of every meter, in the order in which they came."""
        with self.book.lock:
            self.book.finish()
            return tuple(self.book.meters.values())

    def create_meter(self, meter: Meter) -> None:
        """Measure events by a new meter from now on.

        Raises:
            InvalidValueError: ``meter_changed`` where the id or the event name belongs to another
                meter, also an inactive one.
        """
        self.book.create_meter(meter)

    def update_meter(self, meter: Meter) -> None:
        """Take note of a newer version of a meter: another display name, deactivated or active
        again.

        Raises:
            InvalidValueError: ``meter_unknown``, or ``meter_changed`` where it changes anything
                else.
        """
        self.book.update_meter(meter)

    def add_customer(self, customer: str) -> None:
        """Accept a customer's events; of no account where any customer's are accepted."""
        self.book.add_customer(customer)

    @property
    def known_customers(self) -> KeysView[str] | None:
        """The customers whose events are accepted, as they are now; None for any."""
        return self.book.customers


class Closes(ClosesOne, OverBook):
    """What an engine does that closes periods and keeps their invoices in its book."""

    def _bills(
        self, closings: Mapping[str, Closing], billing: Billing, now: datetime
    ) -> Iterable[KeptBill]:
        """Return what is to be kept of the quantities that were billed; of usage records
        nothing.
        """
        return ()

    def _usage_of(self, invoice: Billed) -> Usage:
        """Return the usage that a new invoice of the same period would be made of."""
        raise NotImplementedError  # pragma: no cover - each has its own

    def stored_invoice(self, subscription_id: str, period: BillingPeriod) -> Invoice | None:
        """Return the invoice of a period that was finalized; None where the period is open, or was
        closed without one.

        Raises:
            InvalidValueError: ``parameter_invalid_choice`` for a subscription that the log does not
                have.
        """
        require_kind(BillingPeriod, period, "period")
        with self.book.lock:
            closing = self.book.account_of(subscription_id).finalized(period)
            return None if closing is None else closing.invoice

    def closing_of(self, subscription_id: str, period: BillingPeriod) -> Closing | None:
        """Return how a period was finalized; None where it was not, or of a subscription that is
        not there. For the views.
        """
        return self.book.closing_of(subscription_id, period)

    def keep_invoice(self, invoice: Invoice) -> None:
        """Take the invoice of the period that is being closed; for who bills, within ``closing``.

        Raises:
            InvalidValueError: ``parameter_invalid_object`` where no period of its subscription is
                being closed.
            InvoicingError: ``invoice_conflict`` where the period was closed with another invoice;
                equal ones change nothing.
        """
        self.book.keep_invoice(invoice)

    def closing_all(
        self,
        periods: Mapping[str, BillingPeriod],
        *,
        now: Instant,
        versions: Iterable[Subscription] = (),
    ) -> AbstractContextManager[dict[str, datetime]]:
        """Hold the log still while a period of each of many subscriptions is billed, and close all
        of them if that succeeds.

        They are closed in one decision: whatever interrupts it, all are closed or none is.

        Args:
            periods: subscription → the period to close.
            now: at or after the end of each.
            versions: what is billed of the subscriptions, which must be what the log was told; for
                who bills.

        Yields:
            Subscription → when its period was closed first, as :meth:`closing`.

        Raises:
            InvoicingError: as :meth:`closing`.
            InvalidValueError: as :meth:`closing`; ``change_not_billable`` for a version that the
                log was not told.
        """
        return self.book.closing_all(periods, now=now, versions=versions, bills=self._bills)

    def close_period(
        self, subscription_id: str, period: BillingPeriod, *, now: Instant
    ) -> datetime:
        """Close a billing period without a bill, so that its usage cannot change any more; see
        :meth:`closing`.

        No invoice is kept: the first one that is finalized of the period afterwards is, and bills
        the version of then. Until then ``subscribe`` holds what was used and agreed in it as in an
        open period.
        """
        with self.closing(subscription_id, period, now=now) as closed_at:
            return closed_at

    def invoice_changes(self, invoice: Invoice, *, rounding: Rounding = half_up) -> InvoiceChanges:
        """Return what would differ if the period of a finalized invoice were billed now; the
        invoice itself stays as it is.

        It is billed by the newest version of the subscription and by all usage that came since. Of
        a subscription with items of both generations, each log knows its own items.

        Args:
            invoice: a finalized invoice of a subscription in the log.
            rounding: how each line is settled.

        Raises:
            InvalidValueError: ``parameter_invalid_object``; ``parameter_invalid_choice`` for a
                subscription that is not the log's.
        """
        require_offer(Billed, invoice, "invoice", "an Invoice")
        with self.book.lock:
            told = self.book.account_of(invoice.subscription).subscription
            return invoice.changes(told, self._usage_of(invoice), rounding=rounding)

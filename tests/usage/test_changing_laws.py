"""The law of kind A: no telling of a newer version lowers or moves what is owed, unless the caller
says so.

A history of usage and closings is drawn; then every mutation of the version is told, one at a time,
to a log with that history. Each is refused, and nothing changed, or every period owes what it owed.
The moment that is told with a version is the caller's word: what was used from it on is the newer
version's, and what was used before is neither lowered nor moved.
"""

from __future__ import annotations

from itertools import takewhile

import attrs
import pytest
from builders import DAY, START
from hypothesis import given, settings
from hypothesis import strategies as st
from planting import HUNT

import metering_core as mc
from metering_core.columnar import ColumnarUsage
from metering_core.errors import ErrorCode

METERS = [
    mc.Meter("mtr_sum", "x sum", "sum"),
    mc.Meter("mtr_max", "x max", "max"),
    mc.Meter("mtr_level", "x level", "last", carry_forward=True),
    mc.Meter("mtr_beside", "y", "sum"),
]
REFUSALS = {
    ErrorCode.CHANGE_NOT_BILLABLE,
    ErrorCode.SUBSCRIPTION_CHANGED,
    ErrorCode.PARAMETER_INVALID_CHOICE,
    ErrorCode.USAGE_BILLED_TWICE,
}


# What there is to change --------------------------------------------------------------------------


@attrs.frozen
class Kind:
    """A kind of item, which makes what a bill is made of; beside it there is always a sum."""

    recurring: mc.Recurring
    fee: int | None = None
    quantity: int | None = None

    @property
    def is_on_meter(self):
        return self.recurring.meter is not None

    def version(self, ended_at):
        """Return the version that is changed: 2 cents a unit of everything."""
        beside = mc.Recurring(meter="mtr_beside") if self.is_on_meter else mc.Recurring()
        price = mc.Price("p", "usd", model(2, self.fee), self.recurring)
        items = [
            mc.SubscriptionItem("x", price, self.quantity),
            mc.SubscriptionItem("y", mc.Price("q", "usd", model(2), beside)),
        ]
        return mc.Subscription(
            "sub", items, START, customer="c", start_date=START, ended_at=ended_at
        )


def model(amount, fee=None):
    return mc.pricing.Graduated([mc.Tier("inf", amount, fee)])


RECORDS = {mode.value: Kind(mc.Recurring(aggregate_usage=mode)) for mode in mc.AggregateUsage} | {
    "with a fee": Kind(mc.Recurring(), fee=7),
    "licensed": Kind(mc.Recurring(usage_type="licensed"), quantity=3),
}
EVENTS = {meter.id: Kind(mc.Recurring(meter=meter.id)) for meter in METERS[:3]} | {
    "meter with a fee": Kind(mc.Recurring(meter="mtr_sum"), fee=7)
}
KINDS = RECORDS | EVENTS


# How it may change --------------------------------------------------------------------------------


def sub(**changes):
    return lambda version: attrs.evolve(version, **changes)


def moved(field, *days):
    return [sub(**{field: None if at is None else START + at * DAY}) for at in days]


def item(**changes):
    """Change the item of the kind."""
    return lambda version: attrs.evolve(
        version, items=[attrs.evolve(version.items[0], **changes), *version.items[1:]]
    )


def price(**changes):
    """Change its price."""
    return lambda version: item(price=attrs.evolve(version.items[0].price, **changes))(version)


def recurs(**changes):
    """Change how its price recurs, and its quantity with it."""

    def change(version):
        first = version.items[0]
        recurring = attrs.evolve(first.recurring, **changes)
        quantity = None if recurring.is_metered else first.quantity or 1
        return item(price=attrs.evolve(first.price, recurring=recurring), quantity=quantity)(
            version
        )

    return change


def all_recur(**changes):
    """Change how all prices recur, which is once for a subscription."""

    def change(version):
        prices = [
            attrs.evolve(one.price, recurring=attrs.evolve(one.recurring, **changes))
            for one in version.items
        ]
        items = [attrs.evolve(one, price=of) for one, of in zip(version.items, prices, strict=True)]
        return attrs.evolve(version, items=items)

    return change


def in_euros(version):
    items = [
        attrs.evolve(one, price=attrs.evolve(one.price, currency="eur")) for one in version.items
    ]
    return attrs.evolve(version, items=items, currency="eur")


def added(version):
    fee = mc.Price("r", "usd", model(1, 5), mc.Recurring(usage_type="licensed"))
    return attrs.evolve(version, items=[*version.items, mc.SubscriptionItem("z", fee, 1)])


def reordered(version):
    return attrs.evolve(version, items=version.items[::-1])


def dropped(version):
    return attrs.evolve(version, items=version.items[1:])


def on_meter(meter):
    return recurs(meter=meter, usage_type="metered", aggregate_usage=None)


MUTATIONS = {
    "Subscription.id": [sub(id="other")],
    "Subscription.items": [dropped, reordered, added],
    "Subscription.billing_cycle_anchor": [sub(billing_cycle_anchor=START + DAY)],
    "Subscription.currency": [in_euros],
    "Subscription.billing_thresholds": [
        sub(billing_thresholds=mc.subscriptions.BillingThresholds(amount_gte=100))
    ],
    "Subscription.timezone": [sub(timezone="Europe/Berlin")],
    "Subscription.start_date": moved("start_date", -10, 1, 5, 31, 33, 60),
    "Subscription.ended_at": moved("ended_at", None, 2, 12, 31, 33, 40, 60),
    "Subscription.customer": [sub(customer="other")],
    "SubscriptionItem.id": [item(id="renamed")],
    "SubscriptionItem.price": [price(id="half", model=model(1)), price(id="free", model=model(0))],
    "SubscriptionItem.quantity": [item(quantity=1), item(quantity=0)],
    "SubscriptionItem.billing_thresholds": [
        item(billing_thresholds=mc.subscriptions.BillingThresholds(usage_gte=100))
    ],
    "Price.id": [price(id="renamed")],
    "Price.currency": [in_euros],
    "Price.model": [
        price(model=model(1, 7)),
        price(model=model(2)),
        price(model=model(2, 3)),
        price(model=mc.pricing.Package(2, 9)),
    ],
    "Price.recurring": [recurs(usage_type="licensed", aggregate_usage=None, meter=None)],
    "Price.nickname": [price(nickname="Units")],
    "Price.product": [price(product="prod")],
    "Price.unit_label": [price(unit_label="unit")],
    "Recurring.interval": [all_recur(interval="day"), all_recur(interval="year")],
    "Recurring.interval_count": [all_recur(interval_count=2)],
    "Recurring.usage_type": [
        recurs(usage_type="licensed", aggregate_usage=None),
        recurs(usage_type="metered"),
    ],
    "Recurring.aggregate_usage": [recurs(aggregate_usage=mode) for mode in mc.AggregateUsage],
    "Recurring.meter": [on_meter(meter.id) for meter in METERS[:3]],
}
NO_BILL = {
    "Subscription.ignored": "names of fields that were read past",
    "Subscription.cycle": "made of the anchor, the time zone and how the prices recur",
    "SubscriptionItem.ignored": "as above",
    "Price.ignored": "as above",
}
CHANGED = [
    (field, number, change)
    for field, changes in MUTATIONS.items()
    for number, change in enumerate(changes)
]


def test_every_field_is_changed():
    """Each field of a version is in the table of mutations, or says why it makes no bill: a new one
    turns this red.
    """
    kinds = (mc.Subscription, mc.SubscriptionItem, mc.Price, mc.Recurring)
    assert {f"{kind.__name__}.{field.name}" for kind in kinds for field in attrs.fields(kind)} == {
        *MUTATIONS,
        *NO_BILL,
    }


def test_every_mutation_changes_some_kind():
    """No row of the table is a version that cannot be built, or one that says what was said
    before.
    """
    former = [kind.version(None) for kind in KINDS.values()]
    for field, number, change in CHANGED:
        ended = (
            [kind.version(START + 45 * DAY) for kind in KINDS.values()]
            if field.endswith("ended_at")
            else []
        )
        assert any(newer(change, one) not in (None, one) for one in former + ended), (field, number)


def newer(change, version):
    """Return the version that a mutation makes; None where it can make none of this kind, or none
    that this log can bill.
    """
    try:
        made = change(version)
    except mc.MeteringError:
        return None
    generations = {one.recurring.meter is None for one in made.items if one.is_metered}
    return made if generations == {version.items[-1].recurring.meter is None} else None


# The law ------------------------------------------------------------------------------------------

MOMENTS = st.sampled_from([0, 1, 6, 31, 32, 34, 60, 61])
STEPS = st.lists(
    st.tuples(MOMENTS, st.sampled_from(["use x", "use x", "use y", "close", "shut"])), max_size=5
)
HISTORIES = st.tuples(STEPS, MOMENTS, st.sampled_from([None, None, 45]))


class Account:
    """A log with a history, up to the moment at which a version is told."""

    def __init__(self, engine, kind, history):
        steps, told, ends = history
        self.version = kind.version(None if ends is None else START + ends * DAY)
        self.log = engine([self.version])
        self.now = START
        for day, step in sorted(steps, key=lambda one: one[0]):
            self.now = START + day * DAY
            getattr(self, step.partition(" ")[0])(step[-1])
        self.said = START + told * DAY
        self.now = max(self.now, self.said)

    def use(self, name):
        """Use some units, if they are taken."""
        units = 2 + self.now // DAY % 3
        if isinstance(self.log, mc.MeterLog):
            payload = {"stripe_customer_id": "c", "value": str(units)}
            names = [meter.event_name for meter in METERS if meter.event_name.startswith(name)]
            self.log.append(
                [mc.MeterEvent(one, payload, timestamp=self.now) for one in names], now=self.now
            )
        else:
            self.log.append([mc.UsageRecord(name, units, self.now)], now=self.now)

    def close(self, _):
        """Finalize the first period that has ended and is not billed."""
        for period in self.due():
            mc.finalize_invoice(self.version, self.log, period, now=self.now)

    def shut(self, _):
        """Close it without an invoice."""
        for period in self.due():
            self.log.close_period("sub", period, now=self.now)

    def due(self):
        """Return the first period that has ended and is not billed, if there is one."""
        ended = takewhile(lambda one: one.end_seconds <= self.now, self.version.periods_from(START))
        return [period for period in ended if self.log.stored_invoice("sub", period) is None][:1]

    def owed(self):
        """Return what is owed by usage, and without any, by the start of the period: as billed
        where closed, else previewed.
        """
        (version,) = self.log.subscriptions
        cycle, found = version.cycle, {}
        for closing in (one for one in closings_of(self.log) if one.invoice is not None):
            invoice = mc.finalize_invoice(version, self.log, closing.invoice.period, now=self.now)
            found[cycle.period_at(invoice.period.start).start_seconds] = invoice
        for period in takewhile(
            lambda one: one.start_seconds <= self.now, version.periods_from(version.start_date)
        ):
            start = cycle.period_at(period.start).start_seconds
            if start not in found:
                found[start] = mc.preview_invoice(version, self.log, now=period.start)
        return {start: invoice_parts(invoice) for start, invoice in found.items()}


def closings_of(log):
    """Return what was finalized."""
    return log.book.closed.get("sub", ())


def invoice_parts(invoice):
    """Return what an invoice owes by what was used in its period, and what it would owe without."""
    parts = {True: {}, False: {}}
    for line in invoice.lines:
        owed = parts[is_owed_unused(line)]
        owed[line.currency] = owed.get(line.currency, 0) + line.amount
    return [
        {currency: amount for currency, amount in parts[unused].items() if amount}
        for unused in (False, True)
    ]


def is_owed_unused(line):
    """Whether a line owes what was agreed, a flat fee, or a level of former periods."""
    is_level = (
        line.aggregate_usage is mc.AggregateUsage.LAST_EVER
        or line.price.recurring.meter == "mtr_level"
    )
    return (
        line.aggregate_usage is None or line.charge.kind is mc.pricing.ChargeKind.FLAT or is_level
    )


def hold_the_law(engine, kind, history):
    """Tell each mutation to a log with this history; compare what is owed where it is taken. Return
    those that are.

    A period with usage from the said moment on is not compared itself: the same log without that
    usage is held to the law, and takes whatever this one took.
    """
    steps, told, ends = history
    earlier = [step for step in steps if not is_spoken_for(step, told)]
    spoken = {
        kind.version(None).cycle.period_at(START + day * DAY).start_seconds
        for day, _ in set(steps) - set(earlier)
    }
    taken_earlier = hold_the_law(engine, kind, (earlier, told, ends)) if spoken else None
    taken = set()
    account = Account(engine, kind, history)
    before, state = account.owed(), account.log.subscriptions
    for field, number, change in CHANGED:
        version = newer(change, account.version)
        if version is None:
            continue
        refusal = refusal_of(account, version)
        if refusal is not None:
            assert refusal in REFUSALS, (field, number, refusal)
            assert account.log.subscriptions == state, (field, number)
            continue
        taken.add((field, number))
        after = account.owed()
        for start in (before.keys() | after.keys()) - spoken:
            stays = must_stay(field, start, account)
            told = before.get(start), after.get(start)
            assert is_kept(*told, field, unused_stays=stays), (field, number, start, told)
        account = put_back(account, engine, kind, history)
    assert account.owed() == before
    assert taken_earlier is None or taken <= taken_earlier, taken - taken_earlier
    return taken


def is_spoken_for(step, told):
    """Whether a step uses something from the moment on that is told with the version."""
    return step[1].startswith("use") and step[0] >= told


def refusal_of(account, version):
    """Tell a version; return the code of the refusal, None where it is taken."""
    try:
        account.log.subscribe(version, now=account.said)
    except mc.MeteringError as refusal:
        return refusal.code
    return None


def put_back(account, engine, kind, history):
    """Return an account with the version as it was: the same one, told so, which is quicker than
    another one.
    """
    try:
        account.log.subscribe(account.version, now=account.said, rebill=True)
    except mc.MeteringError:
        return Account(engine, kind, history)
    return account


def must_stay(field, start, account):
    """Whether what a period owes without usage must stay: it has begun, or, for an end, is over."""
    if field == "Subscription.ended_at":
        return account.version.cycle.period_at(start).end_seconds <= account.said
    return start < account.said


def is_kept(before, after, field, *, unused_stays):
    """Whether a period owes by its usage what it owed, and without usage where that must stay."""
    (used, unused), (now_used, now_unused) = before or [{}, {}], after or [{}, {}]
    # A longer life bills what came outside of the former one, too.
    is_life = field in {"Subscription.start_date", "Subscription.ended_at"}
    is_same = (
        all(now_used.get(currency, 0) >= amount for currency, amount in used.items())
        if is_life
        else used == now_used
    )
    return is_same and (not unused_stays or unused == now_unused)


def of_events(subscriptions):
    return mc.MeterLog(
        METERS, subscriptions, policy=mc.MeterPolicy.history(overlap="each_counts_all")
    )


ENGINES = {f"{name}, records": (mc.UsageLog, kind) for name, kind in RECORDS.items()}
ENGINES |= {f"{name}, columns": (ColumnarUsage, kind) for name, kind in RECORDS.items()}
ENGINES |= {f"{name}, events": (of_events, kind) for name, kind in EVENTS.items()}

# What is looked at whatever is drawn: used in the open period, or in a closed one only, or never,
# and a life that ends.
SAMPLES = [
    ([(6, "use x"), (6, "use y")], 12, None),
    ([(6, "use x"), (32, "use x"), (32, "close"), (34, "use y")], 31, None),
    ([(6, "use x"), (31, "close"), (31, "use x"), (31, "use y")], 31, None),
    ([(6, "use x"), (31, "close")], 34, None),
    ([(6, "use x"), (31, "close")], 31, None),
    ([(6, "use x"), (31, "shut")], 34, None),
    ([(31, "shut")], 34, None),
    ([], 6, None),
    ([(6, "use x"), (32, "close"), (34, "use x")], 60, 45),
]


@pytest.mark.parametrize("history", SAMPLES)
@pytest.mark.parametrize(("engine", "kind"), ENGINES.values(), ids=ENGINES)
def test_no_version_lowers_or_moves_what_is_owed(engine, kind, history):
    """Whatever was used and closed before, and whatever one field says now: refused, or every
    period owes what it owed.
    """
    hold_the_law(engine, kind, history)


@pytest.mark.parametrize(("engine", "kind"), ENGINES.values(), ids=ENGINES)
@settings(HUNT, max_examples=2)
@given(HISTORIES)
def test_no_version_lowers_or_moves_what_is_owed_after_any_history(engine, kind, history):
    """The same for histories that are drawn."""
    hold_the_law(engine, kind, history)


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "kind"), ENGINES.values(), ids=ENGINES)
@settings(HUNT, max_examples=80)
@given(HISTORIES)
def test_no_version_lowers_or_moves_what_is_owed_after_many_histories(engine, kind, history):
    """The same for many histories."""
    hold_the_law(engine, kind, history)


@pytest.mark.parametrize("step", ["use x", "shut"])
@pytest.mark.parametrize(("engine", "kind"), ENGINES.values(), ids=ENGINES)
def test_no_version_that_was_not_told_is_billed(engine, kind, step):
    """Each mutation is finalized without being told: refused, and nothing is billed, or the bill is
    that of what was told.
    """
    history = ([(6, "use x"), (6, "use y"), (31, step)], 34, None)
    account = Account(engine, kind, history)
    january, owed = account.version.period_at(START), account.owed()[START]
    for field, number, change in CHANGED:
        version = newer(change, account.version)
        period = None if version is None else version.period_at(START + 10 * DAY)
        if period is None:
            continue
        refusal, invoice = outcome(version, account.log, period)
        if refusal is not None:
            assert account.log.stored_invoice("sub", january) is None, (field, number)
        else:
            assert invoice_parts(invoice) == owed, (field, number)
            account = Account(engine, kind, history)


def outcome(version, log, period):
    """Finalize a version; return the code of the refusal, or the invoice."""
    try:
        return None, mc.finalize_invoice(version, log, period, now=START + 1000 * DAY)
    except mc.MeteringError as refusal:
        return refusal.code, None

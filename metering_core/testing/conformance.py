"""Your billing service beside this engine: a state machine drives both and shrinks any disagreement
to a few steps.

Subclass :class:`BillingConformance`, write :meth:`~BillingConformance.start` and
:meth:`~BillingConformance.record_usage`, and one method for each thing that your service can be
asked. What you leave out is not compared. Needs the extra ``hypothesis``.

>>> import metering_core as mc
>>> class OurOwnLog(BillingConformance):
...     def start(self, subscriptions, now):
...         self.service = mc.UsageLog(subscriptions)
...
...     def record_usage(self, record, now):
...         return self.service.append([record], now=now)[0].outcome
>>> TestOurOwnLog = OurOwnLog.TestCase  # pytest and unittest run this
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from itertools import takewhile
from typing import Any, ClassVar, TypeVar

import attrs

from metering_core.testing import require_hypothesis

require_hypothesis("metering_core.testing.conformance")

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from metering_core import (
    AcceptancePolicy,
    Action,
    AggregateUsage,
    BillingPeriod,
    ErrorCode,
    InvalidValueError,
    Invoice,
    InvoiceLineItem,
    Money,
    Outcome,
    Price,
    PricingModel,
    Receipt,
    Recurring,
    Subscription,
    SubscriptionItem,
    Tier,
    UsageLog,
    UsageRecord,
    UsageRejectedError,
    UsageType,
    finalize_invoice,
    preview_invoice,
    summarize,
)
from metering_core.exact import Number, plain
from metering_core.money import Amount, Rounding, half_up
from metering_core.periods import instant, unix_seconds
from metering_core.pricing import Graduated, Package, Percentage, PerUnit, Volume
from metering_core.subscriptions import BillingThresholds
from metering_core.testing.strategies import (
    CURRENCIES,
    INTERVALS,
    MODELS,
    anchors,
    models,
    quantities,
)

Answer = TypeVar("Answer")
Drawn = TypeVar("Drawn")

Start = tuple[list[Subscription], datetime]
"""What a service starts with, and when."""

Bill = Number | Sequence[Number] | Invoice
"""A total in minor units, or the amounts of the lines in their order, or one of our invoices."""

REJECTED = "rejected"
"""What :meth:`BillingConformance.record_usage` returns where the service refuses a record without a
code that we know.
"""

_ANSWERS = {*map(str, Outcome), *map(str, ErrorCode)}
_STRANGER = "si_unknown"
_ONE_IN_TEN = st.integers(0, 9).map(
    lambda drawn: drawn == 9
)  # The last of ten, so that it shrinks away.


class ServiceDisagreesError(AssertionError):
    """The service said something else than we do; the message says what, and after which steps.

    Attributes:
        disagreement: the sentence.
        steps: what was done, in order; the last one is the step that showed it.
    """

    def __init__(self, disagreement: str, steps: Sequence[str], message: str) -> None:
        super().__init__(message)
        self.disagreement = disagreement
        self.steps = tuple(steps)


def _choose(draw: st.DrawFn, options: Sequence[Drawn]) -> Drawn:
    """Draw one of some values by its index: to build a strategy of the values takes longer than a
    step.
    """
    return options[draw(st.integers(0, len(options) - 1))]


@st.composite
def _for_the_machine(draw: st.DrawFn, drawn: Callable[[Any, st.DrawFn], Drawn]) -> Drawn:
    """Draw what depends on the machine as it stands, so that Hypothesis shows the value that a step
    took.
    """
    return drawn(draw(st.runner()), draw)


def _offers(*methods: str) -> Callable[[Any], bool]:
    """Return whether a service overrides all these methods: what it lacks is not compared."""
    return lambda self: all(
        getattr(type(self), name) is not getattr(BillingConformance, name) for name in methods
    )


class BillingConformance(RuleBasedStateMachine):
    """A billing service and this engine, given the same subscriptions, usage and time, asked the
    same questions.

    Override the methods of the first group. After every step the service is asked for all that it
    offers, and what it says is compared with what we say. Every moment is an aware UTC datetime of
    whole seconds and never goes back; no subscription is used before its anchor. A method may raise
    what it likes: what is not in ``refusals`` fails the test, with the steps so far as a note.

    Attributes:
        prices: your own prices; each subscription has one or some that recur alike in one currency.
            None draws prices, as the next attributes say.
        models: which pricing models; see :data:`~metering_core.testing.strategies.MODELS`.
        aggregate_usage: which modes of aggregation.
        currencies: which currencies.
        intervals: which billing intervals.
        interval_counts: how many of them a period has.
        max_tiers: at most so many tiers.
        decimals: at most so many decimal places of a minor unit in a unit or flat amount.
        licensed: whether some items have an agreed quantity instead of usage.
        partial_periods: whether some subscriptions begin within the billing period in which the
            service starts, so that what they agreed to is prorated to the second.
        thresholds: whether some subscriptions have billing thresholds, which forbid ``set``.
        max_items: at most so many items in a subscription.
        max_subscriptions: at most so many subscriptions at once.
        anchors: billing cycle anchors to choose from; None draws them, the 29th to the 31st and
            leap days included.
        timezones: which zones' wall clocks the billing periods keep.
        actions: ``increment``, ``set`` or both.
        ids: whether some records have an idempotency key and are sent again, unchanged or changed.
        late: whether some timestamps lie before the current period.
        future: whether some timestamps lie after ``now``.
        now_by_name: whether the timestamp of some records is ``"now"`` instead of Unix seconds.
        strangers: whether some records name an item that nobody has.
        max_quantity: the greatest quantity of a record; None goes beyond 64 bits.
        policy: what the service accepts beyond the current period up to ``now``; None for the
            strict default.
        rounding: how the service rounds each line.
        compare_codes: whether a refusal must have our error code; else any refusal agrees with any
            other.
        tell_duplicates: whether the service says ``duplicate``; else ``accepted`` is as good.
        line_by_line: whether bills must agree line by line, in order, lines of 0 aside; else their
            totals must.
        refusals: the exceptions that refuse a record. Where one has an attribute ``code``, that is
            its code.
    """

    prices: ClassVar[Sequence[Price] | None] = None
    models: ClassVar[Sequence[str]] = MODELS
    aggregate_usage: ClassVar[Sequence[str]] = tuple(AggregateUsage)
    currencies: ClassVar[Sequence[str]] = CURRENCIES
    intervals: ClassVar[Sequence[str]] = INTERVALS
    interval_counts: ClassVar[Sequence[int]] = (1, 2, 3)
    max_tiers: ClassVar[int] = 3
    decimals: ClassVar[int] = 2
    licensed: ClassVar[bool] = True
    partial_periods: ClassVar[bool] = False
    thresholds: ClassVar[bool] = True
    max_items: ClassVar[int] = 2
    max_subscriptions: ClassVar[int] = 2
    anchors: ClassVar[Sequence[datetime] | None] = None
    timezones: ClassVar[Sequence[str]] = ("UTC",)
    actions: ClassVar[Sequence[str]] = tuple(Action)
    ids: ClassVar[bool] = True
    late: ClassVar[bool] = True
    future: ClassVar[bool] = True
    now_by_name: ClassVar[bool] = False
    strangers: ClassVar[bool] = True
    max_quantity: ClassVar[int | None] = None
    policy: ClassVar[AcceptancePolicy | None] = None
    rounding: ClassVar[Rounding] = half_up
    compare_codes: ClassVar[bool] = False
    tell_duplicates: ClassVar[bool] = True
    line_by_line: ClassVar[bool] = False
    refusals: ClassVar[tuple[type[Exception], ...]] = (UsageRejectedError,)

    def __init__(self) -> None:
        super().__init__()
        self._subscriptions: list[Subscription] = []
        self._sent: list[UsageRecord] = []
        self._steps: list[str] = []

    # The service: yours to override ---------------------------------------------------------------

    def start(self, subscriptions: Sequence[Subscription], now: datetime) -> None:
        """Start an empty service that has these subscriptions; called once, first."""
        raise NotImplementedError(
            f"{type(self).__name__}: write start(self, subscriptions, now), which starts "
            "your service"
        )

    def record_usage(self, record: UsageRecord, now: datetime) -> str | None:
        """Send one record to the service at ``now``.

        Returns:
            ``accepted`` (or None), ``duplicate``, ``rejected`` or the value of an
            :class:`~metering_core.ErrorCode`, where the service refuses; it may also raise one of
            ``refusals``.
        """
        raise NotImplementedError(
            f"{type(self).__name__}: write record_usage(self, record, now), which sends one record"
        )

    def advance_time(self, now: datetime) -> None:
        """Tell the service what time it is; for services that have a clock of their own."""

    def read_quantity(self, item_id: str, now: datetime) -> Number:
        """Return a metered item's aggregated usage in the billing period that holds ``now``."""
        raise NotImplementedError

    def current_period(
        self, subscription_id: str, now: datetime
    ) -> BillingPeriod | tuple[datetime | int, datetime | int]:
        """Return start (inclusive) and end (exclusive) of the billing period that holds ``now``."""
        raise NotImplementedError

    def preview_invoice(self, subscription_id: str, now: datetime) -> Bill:
        """Return what the subscription owes for the billing period that holds ``now``, as it
        stands.
        """
        raise NotImplementedError

    def finalize_invoice(self, subscription_id: str, period: BillingPeriod, now: datetime) -> Bill:
        """Bill a period that has ended, so that its usage cannot change any more; it may be billed
        again.
        """
        raise NotImplementedError

    # The steps ------------------------------------------------------------------------------------

    @initialize(start=_for_the_machine(lambda self, draw: _start(draw, type(self))))
    def begin(self, start: Start) -> None:
        """Give both sides the same subscriptions."""
        self._subscriptions, self._now = start
        self._began = self._now
        self._ours = UsageLog(self._subscriptions, policy=self.policy)
        items = [item for subscription in self._subscriptions for item in subscription.items]
        self._quantities = {
            item.id: quantities(item.price) | st.integers(0, 1_000) for item in items
        }
        self._steps.append(f"{_shown(self._now)}: start")
        self._ask(partial(self.start, tuple(self._subscriptions), self._now))

    @rule(record=_for_the_machine(lambda self, draw: self._record(draw)))
    def send(self, record: UsageRecord) -> None:
        """Send one record to both sides and compare what the sender hears."""
        self._sent.append(record)
        self._steps.append(f"{_shown(self._now)}: send {_record_in_words(record)}")
        theirs = self._ask(partial(self._heard, record))
        ours = self._ours.append([record], now=self._now)[0]
        if not self._agree(theirs, ours):
            self._disagree(
                f"The service answered {theirs!r}, we answer {str(ours.code or ours.outcome)!r}",
                ours.message,
            )

    @precondition(lambda self: any(record.id is not None for record in self._sent))
    @rule(record=_for_the_machine(lambda self, draw: self._repeated_record(draw)))
    def send_again(self, record: UsageRecord) -> None:
        """Send a record with an id once more, as it was or with other content."""
        self.send(record)

    @rule(until=_for_the_machine(lambda self, draw: _choose(draw, self._moments())))
    def wait(self, until: datetime) -> None:
        """Let time pass on both sides."""
        self._now = max(until, self._now)
        self._steps.append(f"{_shown(self._now)}: wait until then")
        self._ask(partial(self.advance_time, self._now))

    @precondition(_offers("finalize_invoice"))
    @precondition(lambda self: bool(self._ended_periods()))
    @rule(bill=_for_the_machine(lambda self, draw: _choose(draw, self._ended_periods())))
    def finalize(self, bill: tuple[Subscription, BillingPeriod]) -> None:
        """Finalize a period that has ended on both sides and compare the bills."""
        subscription, period = bill
        self._steps.append(f"{_shown(self._now)}: finalize {subscription.id} for {_span(period)}")
        theirs = self._ask(partial(self.finalize_invoice, subscription.id, period, self._now))
        ours = finalize_invoice(
            subscription, self._ours, period, now=self._now, rounding=type(self).rounding
        )
        self._compare_bills("finalized", theirs, ours)

    # What is compared after every step ------------------------------------------------------------

    @precondition(_offers("read_quantity"))
    @invariant()
    def quantities_agree(self) -> None:
        """Compare every metered item's usage in the current period."""
        for subscription in self._subscriptions:
            for item in subscription.items:
                if item.recurring.aggregate_usage is not None:
                    self._compare_quantity(item, subscription)

    @precondition(_offers("current_period"))
    @invariant()
    def periods_agree(self) -> None:
        """Compare the bounds of every current billing period."""
        for subscription in self._subscriptions:
            theirs = self._ask(partial(self.current_period, subscription.id, self._now))
            ours = self._period(subscription)
            bounds = (theirs.start, theirs.end) if isinstance(theirs, BillingPeriod) else theirs
            if bounds not in {(ours.start, ours.end), (ours.start_seconds, ours.end_seconds)}:
                said = " to ".join(_shown(instant(bound, "current_period")) for bound in bounds)
                self._disagree(
                    f"The service bills {subscription.id} from {said}, we from {_span(ours)}"
                )

    @precondition(_offers("preview_invoice"))
    @invariant()
    def previews_agree(self) -> None:
        """Compare the bill of every current period as it stands."""
        for subscription in self._subscriptions:
            theirs = self._ask(partial(self.preview_invoice, subscription.id, self._now))
            ours = preview_invoice(
                subscription, self._ours, now=self._now, rounding=type(self).rounding
            )
            self._compare_bills("previewed", theirs, ours)

    # What is drawn --------------------------------------------------------------------------------

    def _record(self, draw: st.DrawFn) -> UsageRecord:
        known = [
            (item, subscription)
            for subscription in self._subscriptions
            for item in subscription.items
        ]
        metered = [
            (item, subscription)
            for item, subscription in known
            if item.is_metered or self.strangers
        ]
        item, subscription = _choose(draw, metered or known)
        quantity = draw(self._quantities[item.id])
        return UsageRecord(
            _STRANGER if self.strangers and draw(_ONE_IN_TEN) else item.id,
            int(quantity if self.max_quantity is None else min(quantity, self.max_quantity)),
            _choose(draw, self._timestamps(subscription)),
            _choose(draw, self.actions),
            _choose(draw, [None, "a", "b", "c"] if self.ids else [None]),
        )

    def _timestamps(self, subscription: Subscription) -> list[int | str]:
        """Return few timestamps, so that records meet, and most of them on an edge."""
        now, period = unix_seconds(self._now), self._period(subscription)
        start, end = period.start_seconds, period.end_seconds
        inside = [now, now - 1, start, start + 1, (start + now) // 2]
        stamps: list[int | str] = [
            stamp for stamp in dict.fromkeys(inside) if start <= stamp <= now
        ]
        if self.now_by_name:
            stamps.append("now")
        if self.late:
            stamps += [start - 1, start - 86_400]
        if self.future:
            stamps += [stamp for stamp in (now + 1, end - 1, end) if stamp > now]
        return stamps

    def _repeated_record(self, draw: st.DrawFn) -> UsageRecord:
        record = _choose(draw, [record for record in self._sent if record.id is not None])
        return attrs.evolve(record, quantity=record.quantity + draw(st.integers(0, 1)))

    def _moments(self) -> list[datetime]:
        second = timedelta(seconds=1)
        steps = [self._now + second, self._now + timedelta(hours=1), self._now + timedelta(days=1)]
        for subscription in self._subscriptions:
            period = self._period(subscription)
            after = subscription.cycle.period_at(period.end)
            steps += [
                period.end - second,
                period.end,
                period.end + second,
                after.end - second,
                after.end,
            ]
        return sorted(step for step in set(steps) if step > self._now)

    def _ended_periods(self) -> list[tuple[Subscription, BillingPeriod]]:
        """Return the periods that have ended since the start."""
        return [
            (subscription, period)
            for subscription in self._subscriptions
            for period in takewhile(
                lambda one: one.end <= self._now, subscription.periods_from(self._began)
            )
        ]

    def _period(self, subscription: Subscription) -> BillingPeriod:
        period = subscription.period_at(self._now)
        assert period is not None, (
            "a subscription has begun when the service starts, and does not end"
        )
        return period

    # How the two sides are compared ---------------------------------------------------------------

    def _ask(self, question: Callable[[], Answer]) -> Answer:
        """Return the service's answer; where it fails, the failure says after which steps."""
        try:
            return question()
        except Exception as failure:
            failure.add_note(self._story())
            raise

    def _heard(self, record: UsageRecord) -> str:
        """Return the service's answer to a record as one of our words, however it was given."""
        try:
            answer = self.record_usage(record, self._now)
        except self.refusals as refusal:
            code = str(getattr(refusal, "code", None))
            return code if code in _ANSWERS else REJECTED
        if answer is not None and answer not in _ANSWERS:
            expected = "None, 'accepted', 'duplicate', 'rejected' or the value of an ErrorCode"
            raise InvalidValueError.expecting(
                ErrorCode.PARAMETER_INVALID_CHOICE, "record_usage", expected, answer
            )
        return str(answer or Outcome.ACCEPTED)

    def _compare_quantity(self, item: SubscriptionItem, subscription: Subscription) -> None:
        theirs = self._ask(partial(self.read_quantity, item.id, self._now))
        ours = summarize(item, self._ours, self._period(subscription)).total_usage
        if theirs != ours:
            self._disagree(
                f"The service read a usage of {_number(theirs)} for {item.id}, we read "
                f"{plain(ours)}"
            )

    def _agree(self, theirs: str, ours: Receipt) -> bool:
        if ours.outcome is Outcome.REJECTED:
            return (
                theirs == ours.code
                if self.compare_codes
                else theirs not in {Outcome.ACCEPTED, Outcome.DUPLICATE}
            )
        return theirs == ours.outcome or (not self.tell_duplicates and theirs == Outcome.ACCEPTED)

    def _compare_bills(self, verb: str, theirs: Bill, ours: Invoice) -> None:
        explanation = "\n".join(
            ["Our lines:", *(f"  {_line_in_words(line)}" for line in ours.lines)]
        )
        if self.line_by_line:
            received, expected = (
                _amounts(theirs),
                [line.amount for line in ours.lines if line.amount],
            )
            if received != expected:
                shown = [
                    ", ".join(_money(one, ours.currency) for one in lines) or "nothing"
                    for lines in (received, expected)
                ]
                sentence = (
                    f"The service {verb} the lines {shown[0]} for {ours.subscription}, we "
                    f"{verb} {shown[1]}"
                )
                self._disagree(sentence, explanation)
        elif (total := _total(theirs)) != ours.total:
            shown = [_money(one, ours.currency) for one in (total, ours.total)]
            self._disagree(
                f"The service {verb} {shown[0]} for {ours.subscription}, we {verb} {shown[1]}",
                explanation,
            )

    def _disagree(self, sentence: str, explanation: str | None = None) -> None:
        parts = [f"{sentence}.", self._story(), *([explanation] if explanation else [])]
        raise ServiceDisagreesError(sentence, self._steps, "\n\n".join(parts))

    def _story(self) -> str:
        known = [
            line
            for subscription in self._subscriptions
            for line in _subscription_in_words(subscription)
        ]
        steps = [f"  {number}. {step}" for number, step in enumerate(self._steps, start=1)]
        return "\n".join(["Subscriptions:", *(f"  {line}" for line in known), "Steps:", *steps])


# What a service starts with -----------------------------------------------------------------------


def _start(draw: st.DrawFn, options: type[BillingConformance]) -> Start:
    """Draw subscriptions, and a moment on a boundary within the first periods of the latest of
    them, or just after one.
    """
    count = draw(st.integers(1, options.max_subscriptions))
    subscriptions = [_subscription(draw, options, number) for number in range(1, count + 1)]
    latest = max(subscriptions, key=lambda one: one.billing_cycle_anchor)
    boundary = latest.cycle.boundary(draw(st.integers(0, 4)))
    now = boundary + timedelta(seconds=_choose(draw, [0, 1, 86_400]))
    if options.partial_periods:
        subscriptions = [_begun_since(draw, one, now) for one in subscriptions]
    return subscriptions, now


def _begun_since(draw: st.DrawFn, subscription: Subscription, now: datetime) -> Subscription:
    """Have a subscription begin between the start of the period that holds now and now."""
    elapsed = now - subscription.cycle.period_at(now).start
    return attrs.evolve(
        subscription,
        start_date=now - timedelta(seconds=draw(st.integers(0, int(elapsed.total_seconds())))),
    )


def _subscription(draw: st.DrawFn, options: type[BillingConformance], number: int) -> Subscription:
    prices = (
        _new_prices(draw, options)
        if options.prices is None
        else _given_prices(draw, options.prices, options.max_items)
    )
    items = []
    for place, price in enumerate(prices, start=1):
        agreed = None if price.is_metered else draw(st.integers(0, 12))
        # Ids are unique among all subscriptions, for services that know items by their ids alone.
        items.append(SubscriptionItem(f"si_{number}_{place}", price, agreed))
    has_thresholds = options.thresholds and draw(st.booleans())
    return Subscription(
        f"sub_{number}",
        items,
        draw(anchors()) if options.anchors is None else _choose(draw, options.anchors),
        timezone=_choose(draw, options.timezones),
        billing_thresholds=BillingThresholds(amount_gte=1_000) if has_thresholds else None,
    )


def _given_prices(draw: st.DrawFn, given: Sequence[Price], most: int) -> list[Price]:
    """Draw some of the prices that can be billed together."""
    first = _choose(draw, given)
    fitting = [price for price in given if _terms(price) == _terms(first)]
    return [first, *(_choose(draw, fitting) for _ in range(draw(st.integers(0, most - 1))))]


def _terms(price: Price) -> tuple[object, ...]:
    how = price.recurring
    return price.currency, how and how.interval, how and how.interval_count


def _new_prices(draw: st.DrawFn, options: type[BillingConformance]) -> list[Price]:
    currency = _choose(draw, options.currencies)
    interval, count = _choose(draw, options.intervals), _choose(draw, options.interval_counts)
    uses: list[str | None] = [*options.aggregate_usage, *[None] * options.licensed]
    model = models(options.models, max_tiers=options.max_tiers, decimals=options.decimals)
    prices = []
    for number in range(1, draw(st.integers(1, options.max_items)) + 1):
        mode = _choose(draw, uses)
        use = UsageType.LICENSED if mode is None else UsageType.METERED
        recurring = Recurring(
            interval=interval, interval_count=count, usage_type=use, aggregate_usage=mode
        )
        prices.append(Price(f"price_{number}", currency, draw(model), recurring))
    return prices


# Answers as values, and everything in words -------------------------------------------------------


def _amounts(bill: Bill) -> list[Any]:
    """Return the amounts of a bill's lines, without those of 0."""
    lines = [line.amount for line in bill.lines] if isinstance(bill, Invoice) else bill
    if not isinstance(lines, Sequence):
        expected = "the lines' amounts, because line_by_line is set"
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_OBJECT, "invoice", expected, bill
        )
    return [amount for amount in lines if amount]


def _total(bill: Bill) -> Any:
    return sum(_amounts(bill)) if isinstance(bill, Invoice | Sequence) else bill


def _money(amount: object, currency: str) -> str:
    return (
        str(Money(amount, currency))
        if type(amount) is int
        else f"{amount!r} minor units of {currency.upper()}"
    )


def _number(value: object) -> str:
    return plain(value) if type(value) in {int, Decimal} else repr(value)  # type: ignore[arg-type]


def _shown(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S}"


def _span(period: BillingPeriod) -> str:
    return f"{_shown(period.start)} to {_shown(period.end)}"


def _record_in_words(record: UsageRecord) -> str:
    at = "now" if record.instant is None else _shown(record.instant)
    key = "" if record.id is None else f", id {record.id!r}"
    return (
        f"{record.action.value} {record.subscription_item} by {record.quantity} at {at}{key}"
    ).replace(f"set {record.subscription_item} by", f"set {record.subscription_item} to")


def _line_in_words(line: InvoiceLineItem) -> str:
    exact = Amount(line.exact, line.currency)
    return f"{line.subscription_item}: {line.description}: {exact} exactly, settled as {line.money}"


def _subscription_in_words(subscription: Subscription) -> Iterator[str]:
    how = subscription.items[0].recurring
    every = (
        how.interval.value
        if how.interval_count == 1
        else f"{how.interval_count} {how.interval.value}s"
    )
    zone = "" if subscription.timezone == "UTC" else f" on the clock of {subscription.timezone}"
    limits = "" if subscription.billing_thresholds is None else ", with billing thresholds"
    anchor = _shown(subscription.billing_cycle_anchor)
    yield f"{subscription.id}: {subscription.currency}, every {every} from {anchor}{zone}{limits}"
    for item in subscription.items:
        mode = item.recurring.aggregate_usage
        counted = f"{item.quantity} licensed" if mode is None else f"{mode.value} of usage"
        yield f"  {item.id}: {counted}, {_model_in_words(item.price.model)}"


def _model_in_words(model: PricingModel) -> str:
    match model:
        case PerUnit():
            return f"{plain(model.unit_amount)} per unit"
        case Percentage():
            return f"{plain(model.percent)}% of the quantity, an amount"
        case Graduated() | Volume():
            name = "graduated" if isinstance(model, Graduated) else "volume"
            return f"{name} tiers: {'; '.join(map(_tier_in_words, model.tiers))}"
        case Package():
            return (
                f"{plain(model.unit_amount)} per package of {model.divide_by}, rounded "
                f"{model.round.value}"
            )
        case _:
            return repr(model)


def _tier_in_words(tier: Tier) -> str:
    unit = None if tier.unit_amount is None else f"{plain(tier.unit_amount)} per unit"
    flat = None if tier.flat_amount is None else f"{plain(tier.flat_amount)} flat"
    bound = "beyond" if tier.up_to is None else f"up to {plain(tier.up_to)}"
    return f"{bound} {' and '.join(one for one in (unit, flat) if one)}"

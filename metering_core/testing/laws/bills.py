"""The laws of what is billed: periods tile time, rating loses no unit, settling moves no more than
half a minor unit, an invoice is the sum of its lines.

What a price charges is stated as what one unit more costs, which is how a customer reads a tariff
and not how it is computed here.
"""

from __future__ import annotations

import decimal
from calendar import monthrange
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import Decimal
from fractions import Fraction
from math import ceil, floor
from typing import Final
from zoneinfo import ZoneInfo

from metering_core import (
    BillingCycle,
    Invoice,
    InvoiceLineItem,
    Price,
    PricingModel,
    Subscription,
    Tier,
    Usage,
    rate,
    summarize,
)
from metering_core.exact import Number
from metering_core.money import Amount, Rounding, half_up, settle
from metering_core.periods import BillingPeriod, Interval
from metering_core.pricing import (
    Charge,
    ChargeKind,
    Graduated,
    Package,
    Percentage,
    PerUnit,
    Round,
    Volume,
)
from metering_core.testing.laws.sentences import LawBrokenError, forbid


def check_period_laws(cycle: BillingCycle, k: int) -> None:
    """Check boundary ``k`` of a cycle against the calendar, and that the periods on both sides of
    it meet there.
    """
    start, end = cycle.boundary(k), cycle.boundary(k + 1)
    _check_boundary(cycle, k, start)
    if start == end and cycle.timezone != "UTC":
        return  # A day that the zone skipped.
    forbid(
        "periods",
        not start < end,
        lambda: f"boundary {k} of {cycle} is {start}, which is not before boundary {k + 1}, {end}",
    )
    period = cycle.period(k)
    forbid(
        "periods",
        (period.start, period.end) != (start, end),
        lambda: f"period {k} of {cycle} is {period}, but its boundaries are {start} and {end}",
    )
    _check_inside(cycle, k, period)
    second = timedelta(seconds=1)
    before, after = cycle.period_at(start - second), cycle.period_at(end)
    forbid(
        "periods",
        before.end != start or start - second in period or after.start != end or end in period,
        lambda: (
            f"period {k} of {cycle}, {period}, does not meet its neighbours {before} and {after}"
        ),
    )


def _check_inside(cycle: BillingCycle, k: int, period: BillingPeriod) -> None:
    """Check that moments of a period are found in it."""
    start, end, second = period.start, period.end, timedelta(seconds=1)
    # Half an hour and an hour after a boundary, the clock may have been put back over it.
    early = (start, start + 1799 * second, start + 3599 * second)
    for moment in (*early, start + (end - start) / 2, end - second / 10**6):
        if moment < end:
            found = cycle.period_at(moment), cycle.index_at(moment)
            what = f"{moment} lies in period {k} of {cycle}, {period}"
            forbid(
                "periods",
                moment not in period or found != (period, k),
                lambda: f"{what}, but is found in {found[0]} (number {found[1]})",
            )


def _check_boundary(cycle: BillingCycle, k: int, found: datetime) -> None:
    """Check a boundary against the calendar: month by division, the day clamped to the month, on
    the clock of the zone.
    """
    zone = UTC if cycle.timezone == "UTC" else ZoneInfo(cycle.timezone)
    if k == 0:
        forbid("periods", found != cycle.anchor, lambda: f"boundary 0 of {cycle} is {found}")
        return
    wall = _wall_clock(cycle, k, zone)
    shown = found.astimezone(zone).replace(tzinfo=None)
    forbid(
        "periods",
        shown != wall and not _is_skipped(wall, zone),
        lambda: f"boundary {k} of {cycle} is {shown} on its clock, not {wall}",
    )
    forbid(
        "periods",
        shown == wall and found > wall.replace(tzinfo=zone, fold=1).astimezone(UTC),
        lambda: f"boundary {k} of {cycle} is {found}, which is not the first moment at {wall}",
    )
    forbid(
        "periods",
        shown < wall,
        lambda: f"boundary {k} of {cycle} is {shown}, before the {wall} that its clock skipped",
    )


def _is_skipped(wall: datetime, zone: tzinfo) -> bool:
    return wall.replace(tzinfo=zone).astimezone(UTC).astimezone(zone).replace(tzinfo=None) != wall


def _wall_clock(cycle: BillingCycle, k: int, zone: tzinfo) -> datetime:
    anchor = cycle.anchor.astimezone(zone).replace(tzinfo=None)
    steps = k * cycle.interval_count
    if cycle.interval in {Interval.DAY, Interval.WEEK}:
        return datetime.fromordinal(
            anchor.toordinal() + steps * (7 if cycle.interval is Interval.WEEK else 1)
        ).replace(hour=anchor.hour, minute=anchor.minute, second=anchor.second)
    year, month = divmod(
        anchor.year * 12
        + anchor.month
        - 1
        + steps * (12 if cycle.interval is Interval.YEAR else 1),
        12,
    )
    return anchor.replace(
        year=year, month=month + 1, day=min(anchor.day, monthrange(year, month + 1)[1])
    )


def check_rating_laws(price: Price | PricingModel, quantity: Number) -> None:
    """Check what a price or a pricing model, built in or yours, charges for a quantity.

    Of any model: no unit is lost, amounts are exact, equal quantities give equal charges. Of the
    built-in ones also what each unit costs, as :func:`check_graduated_laws` and its neighbours
    state it.
    """
    model = price.model if isinstance(price, Price) else price
    charges = _charged(model, quantity)
    units = sum(
        (Fraction(charge.quantity) for charge in charges if charge.kind is not ChargeKind.FLAT),
        Fraction(),
    )
    forbid(
        "rating",
        units != Fraction(quantity),
        lambda: f"the charges of {model} for {quantity} units cover {units}: {charges}",
    )
    forbid(
        "rating",
        charges != _charged(model, quantity),
        lambda: f"{model} charges {quantity} units twice with different charges",
    )
    for charge in (one for one in charges if one.kind in _PRODUCTS and one.unit_amount is not None):
        forbid(
            "rating",
            Fraction(charge.amount) != Fraction(charge.quantity) * _amount(charge.unit_amount),
            lambda: f"{charge} of {model} is not the product of its quantity and its unit amount",
        )
    _check_built_in(model, quantity)


_PRODUCTS: Final = frozenset({ChargeKind.UNIT, ChargeKind.PERCENT})


def _check_built_in(model: PricingModel, quantity: Number) -> None:
    match model:
        case PerUnit(unit_amount=each):
            _check_per_unit(model, Fraction(each), quantity)
        case Percentage(percent=percent):
            _check_per_unit(model, Fraction(percent) / 100, quantity)
        case Graduated():
            check_graduated_laws(model, model.tiers, quantity)
        case Volume():
            check_volume_laws(model, model.tiers, quantity)
        case Package():
            check_package_laws(model, model.unit_amount, model.divide_by, model.round, quantity)
        case _:
            pass


def _check_per_unit(model: PricingModel, each: Fraction, quantity: Number) -> None:
    forbid(
        "per unit",
        _cost(model, quantity) != Fraction(quantity) * each,
        lambda: f"{quantity} units cost {_cost(model, quantity)} with {model}",
    )


def _charged(model: PricingModel, quantity: Number) -> tuple[Charge, ...]:
    return rate(Price("price", "usd", model), quantity).charges


def _cost(model: PricingModel, quantity: Number) -> Fraction:
    return sum((Fraction(charge.amount) for charge in _charged(model, quantity)), Fraction())


def _amount(amount: Decimal | None) -> Fraction:
    return Fraction(0 if amount is None else amount)


def check_graduated_laws(model: PricingModel, tiers: Sequence[Tier], quantity: Number) -> None:
    """Check that a model charges by these tiers, each unit in its own: what zero units cost, and
    what one unit more costs.
    """
    due = _amount(tiers[0].flat_amount)
    forbid(
        "graduated",
        _cost(model, 0) != due,
        lambda: (
            f"{model} charges {_cost(model, 0)} for zero units, not the first flat amount, {due}"
        ),
    )
    low = Fraction(quantity)
    step = _cost(model, low + 1) - _cost(model, quantity)
    due = _one_more_costs(tiers, low, low + 1)
    forbid(
        "graduated",
        step != due,
        lambda: f"one unit more than {quantity} costs {step}, not {due}, with {model}",
    )


def _one_more_costs(tiers: Sequence[Tier], low: Fraction, high: Fraction) -> Fraction:
    """Charge the stretch from ``low`` to ``high``: what of it lies in each tier, and the flat
    amounts that it opens.
    """
    cost = below = Fraction()
    for number, tier in enumerate(tiers):
        until = high if tier.up_to is None else Fraction(tier.up_to)
        cost += max(min(high, until) - max(low, below), Fraction()) * _amount(tier.unit_amount)
        if number and low <= below < high:
            cost += _amount(tier.flat_amount)
        below = until
    return cost


def check_volume_laws(model: PricingModel, tiers: Sequence[Tier], quantity: Number) -> None:
    """Check that a model charges everything in the one of these tiers that holds the last unit."""
    holding = next(
        tier for tier in tiers if tier.up_to is None or Fraction(tier.up_to) >= Fraction(quantity)
    )
    due = Fraction(quantity) * _amount(holding.unit_amount) + _amount(holding.flat_amount)
    forbid(
        "volume",
        _cost(model, quantity) != due,
        lambda: (
            f"{quantity} units cost {_cost(model, quantity)}, not {due} as in {holding}, "
            f"with {model}"
        ),
    )


def check_package_laws(
    model: PricingModel,
    unit_amount: Decimal,
    divide_by: int,
    round: str,
    quantity: Number,
) -> None:
    """Check that a model charges whole packages of ``divide_by`` units, rounded ``up`` or ``down``
    on the whole quantity.
    """
    filled = Fraction(quantity) / divide_by
    packages = ceil(filled) if round == Round.UP else floor(filled)
    if _cost(model, quantity) != packages * Fraction(unit_amount):
        due = f"{packages * Fraction(unit_amount)} for {packages} packages of {divide_by}"
        raise LawBrokenError(
            "packages", f"{quantity} units cost {_cost(model, quantity)}, not {due}, with {model}"
        )
    said = [charge.packages for charge in _charged(model, quantity) if charge.packages is not None]
    forbid(
        "packages",
        said not in ([], [packages]),
        lambda: f"{quantity} units are said to make {said} packages, not {packages}, with {model}",
    )


def check_settle_laws(amount: Amount, rounding: Rounding = half_up) -> None:
    """Check what settling makes of an amount; by ``half_up`` a half goes away from zero.

    Any rounding to the nearest minor unit must pass. Rounding to multiples, or always up, is not to
    the nearest.
    """
    settled, exact = settle(amount, rounding), Fraction(amount.minor_units)
    forbid(
        "settling",
        abs(settled.minor_units - exact) > Fraction(1, 2) or settled.currency != amount.currency,
        lambda: f"{exact} {amount.currency} settles to {settled}",
    )
    forbid(
        "settling",
        settle(-amount, rounding) != -settled,
        lambda: (
            f"{exact} settles to {settled}, and the credit of it to {settle(-amount, rounding)}"
        ),
    )
    magnitude = floor(abs(exact) + Fraction(1, 2))
    forbid(
        "settling",
        rounding is half_up and abs(settled.minor_units) != magnitude,
        lambda: (
            f"{exact}, a half away from zero, is {magnitude} and not {abs(settled.minor_units)}"
        ),
    )


def check_invoice_laws(
    invoice: Invoice, subscription: Subscription | None = None, usage: Usage | None = None
) -> None:
    """Check that an invoice adds up, line by line and item by item.

    With the subscription and the usage that it bills, check also that every item stands on it with
    the usage it had.
    """
    if subscription is not None and usage is not None:
        _check_billed(invoice, subscription, usage)
    forbid(
        "invoices",
        invoice.total != sum(line.amount for line in invoice.lines),
        lambda: (
            f"the total is {invoice.total}, the lines are {[line.amount for line in invoice.lines]}"
        ),
    )
    for line in invoice.lines:
        _check_settled(line, invoice.currency)
    for item in dict.fromkeys(line.subscription_item for line in invoice.lines):
        lines = [line for line in invoice.lines if line.subscription_item == item]
        charged = sum(
            (Fraction(line.quantity) for line in lines if line.charge.kind is not ChargeKind.FLAT),
            Fraction(),
        )
        # Where a meter's corrections exceed its usage, nothing is billed.
        forbid(
            "invoices",
            {max(Fraction(line.total_usage), Fraction()) for line in lines} != {charged},
            lambda: f"the lines of {item} cover {charged} units of {lines[0].total_usage}",
        )
        forbid(
            "invoices",
            _charged(lines[0].price.model, max(lines[0].total_usage, 0))
            != tuple(line.charge for line in lines),
            lambda: f"the lines of {item} are not the charges for {lines[0].total_usage} units",
        )


def _check_settled(line: InvoiceLineItem, currency: str) -> None:
    """Check that a line settles its charge: by less than a minor unit, and by its rounding."""
    exact = Fraction(line.exact)
    due = Fraction(line.charge.amount) * (1 if line.proration is None else line.proration)
    forbid(
        "invoices",
        exact != due or line.currency != currency,
        lambda: f"line {line.id} settles {exact} {line.currency}, but its charge is {line.charge}",
    )
    forbid(
        "invoices",
        line.rounding.startswith("half_") and abs(line.amount - exact) > Fraction(1, 2),
        lambda: f"line {line.id} is {line.amount}, more than half a minor unit from {exact}",
    )
    forbid(
        "invoices",
        line.rounding == "half_up" and abs(line.amount) != floor(abs(exact) + Fraction(1, 2)),
        lambda: f"line {line.id} is {line.amount}, which is not {exact}, a half away from zero",
    )


def _check_billed(invoice: Invoice, subscription: Subscription, usage: Usage) -> None:
    """Check the invoice's items and their quantities against what was used and agreed."""
    due: dict[str, Number] = {}
    for item in subscription.items:
        agreed = 0 if item.quantity is None else item.quantity
        due[item.id] = (
            summarize(item, usage, invoice.period).total_usage if item.is_metered else agreed
        )
    _check_prorated(invoice, subscription)
    found = {line.subscription_item: line.total_usage for line in invoice.lines}
    forbid(
        "invoices",
        found != due,
        lambda: f"the invoice for {invoice.period} bills {found}, but the usage was {due}",
    )


def _check_prorated(invoice: Invoice, subscription: Subscription) -> None:
    """Check that what was agreed is billed by the second where the cycle's own period was cut, and
    usage never is.
    """
    whole = subscription.cycle.period_at(invoice.period.start)
    lived = Fraction((invoice.period.end - invoice.period.start) / timedelta(seconds=1))
    part = lived / Fraction((whole.end - whole.start) / timedelta(seconds=1))
    for line in invoice.lines:
        due = None if subscription.item(line.subscription_item).is_metered or part == 1 else part
        forbid(
            "invoices",
            line.proration != due,
            lambda: f"line {line.id} is prorated by {line.proration}, not by {due}",
        )


HOSTILE_CONTEXTS: Final = (
    decimal.Context(prec=1, rounding=decimal.ROUND_UP, traps=[]),
    decimal.Context(prec=3, rounding=decimal.ROUND_UP, traps=[]),
    decimal.Context(prec=3, rounding=decimal.ROUND_DOWN, Emax=3, Emin=-3, traps=[]),
    decimal.Context(
        prec=50, traps=[decimal.Inexact, decimal.Rounded, decimal.FloatOperation, decimal.Subnormal]
    ),
)
"""Ambient decimal contexts that spoil every calculation that reads them."""


def check_ambient_laws(compute: Callable[[], object]) -> None:
    """Check that a computation gives the same under every one of :data:`HOSTILE_CONTEXTS`; compare
    bills as ``to_dict()``.
    """
    due = compute()
    for context in HOSTILE_CONTEXTS:
        with decimal.localcontext(context):
            found = compute()
        forbid("ambient", found != due, lambda: f"under {context} it is {found}, not {due}")

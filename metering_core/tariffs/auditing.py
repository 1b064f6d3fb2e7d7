"""Find the holes in a price before a customer does: exact findings from its pieces, each with the
quantities that prove it.

Totals are compared exact, before rounding, because a hole that rounding hides on one bill shows on
the next; a finding about rounding says so. Each charge is settled half up there, as an invoice does
by default. A finding is data; what it means for the price is for its owner to say, which is why
most are ``info``.

Adding a check is one function in this file and its row in :data:`CHECKS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from itertools import pairwise
from math import ceil, floor, lcm
from operator import itemgetter
from typing import Final, Self, TypeAlias

import attrs

from metering_core.codec import Storable
from metering_core.currencies import currency
from metering_core.errors import ErrorCode, InvalidValueError
from metering_core.exact import Unrounded, decimal_if_possible
from metering_core.money import Money
from metering_core.prices import Price
from metering_core.tariffs.pieces import (
    HALF,
    Piece,
    Tariff,
    is_lost,
    settled_half_up,
    span,
    tariff,
    units,
    written,
)

QuantityRange: TypeAlias = tuple[int, int | None]
"""First and last quantity, both inclusive; None where there is no end."""

SCAN_MAX: Final = 100_000
"""Quantities that ``not_payable`` tries one by one, for a model of the user's own with several
growing charges.
"""


class Severity(StrEnum):
    """How much a finding should worry the price's owner, in ascending order."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"

    def is_at_least(self, other: Severity) -> bool:
        """Say whether this is as severe as the other or more.

        >>> Severity.WARNING.is_at_least(Severity.INFO)
        True
        """
        order = list(Severity)
        return order.index(self) >= order.index(other)


class FindingCode(StrEnum):
    """What the audit looks for, with how severe it usually is and what it means."""

    severity: Severity
    meaning: str

    def __new__(cls, value: str, severity: Severity, meaning: str) -> Self:
        """Attach to the code its severity and a sentence for its reader."""
        code = str.__new__(cls, value)
        code._value_ = value
        code.severity = severity
        code.meaning = meaning
        return code

    CLIFF = ("cliff", Severity.ERROR, "More usage costs less.")
    NOT_PAYABLE = (
        "not_payable",
        Severity.ERROR,
        "A bill is no multiple of what the currency can pay.",
    )
    DEAD_TIER = (
        "dead_tier",
        Severity.WARNING,
        "No whole quantity has a reason to end in the tier.",
    )
    ROUNDS_TO_ZERO = (
        "rounds_to_zero",
        Severity.WARNING,
        "Usage is billed nothing though its exact amount is above 0.",
    )
    SAME_AS_NEIGHBOUR = (
        "same_as_neighbour",
        Severity.INFO,
        "A tier charges what the one before it would have charged.",
    )
    FLAT_FEE_AT_ZERO = (
        "flat_fee_at_zero",
        Severity.INFO,
        "A period without usage costs something.",
    )
    RATE_RISES = ("rate_rises", Severity.INFO, "A later unit is dearer than an earlier one.")
    JUMP = ("jump", Severity.INFO, "One more unit costs more than any unit price.")
    PACKAGE_WASTE = (
        "package_waste",
        Severity.INFO,
        "A customer pays for units that were not used.",
    )


@attrs.frozen
class Finding(Storable):
    """One thing that the audit found, and its proof.

    Attributes:
        code: what it is.
        message: one sentence.
        quantities: the whole quantities that prove it, in the order in which ``message`` names
            them.
        amounts: minor units, exact, that go with ``quantities``; see :func:`audit` for which. A
            share that no decimal can write (2000/3) is a Fraction.
        tier: the number of the tier at fault, from 1; None where it is the whole price.
        intervals: every range of quantities on which it holds, where the finding has ranges.
        severity: how much it should worry the price's owner; that of the code unless said
            otherwise.
    """

    code: FindingCode
    message: str
    quantities: tuple[int, ...] = ()
    amounts: tuple[Unrounded, ...] = ()
    tier: int | None = None
    intervals: tuple[QuantityRange, ...] = ()
    severity: Severity = attrs.field(kw_only=True)

    @severity.default
    def _severity_of_the_code(self) -> Severity:
        return self.code.severity


def audit(price: Price) -> tuple[Finding, ...]:
    """Return what a price does that its owner may not expect, the most severe first; an empty tuple
    where there is nothing.

    What each finding holds in ``quantities``, ``amounts`` (all exact, before rounding, unless said
    otherwise):

    - ``cliff``: the pair of quantities between which the total falls most, and their totals;
      ``intervals`` has every range on which a customer would pay less by using more. There is a
      cliff exactly when the total falls somewhere.
    - ``not_payable``: the least quantity of a tier whose bill is no multiple of what the currency
      can pay, and that bill, settled.
    - ``dead_tier``: the tier's first and last quantity and their totals, where each of its
      quantities costs more than some greater one; nothing, where no whole quantity ends in the
      tier.
    - ``rounds_to_zero``: the greatest quantity whose bill is 0 although its total is above 0, and
      that total. Where that never ends, the least quantity from which on it holds. A second finding
      of this code, an ``info`` with a ``tier``, says the same of a single charge that settles to 0
      on a bill that does not.
    - ``same_as_neighbour``: the first quantity of the tier that could be dropped, and its total.
    - ``flat_fee_at_zero``: quantity 0 and its total.
    - ``rate_rises``: the first quantity of the earlier and of the later tier, and their unit
      prices, where these rise most.
    - ``jump``: the quantity and the one after it between which the total rises most, and their
      totals, where that is more than any unit price.
    - ``package_waste``: the quantity with the most unused units and the quantity it pays for; the
      share of the total that pays for unused units.

    >>> from metering_core import Tier
    >>> tiers = [Tier(10, unit_amount=900), Tier("inf", unit_amount=800)]
    >>> print(audit(Price.volume("seats", currency="usd", tiers=tiers))[0].message)
    10 units cost USD 90.00 but 11 cost USD 88.00, which is USD 2.00 less.

    Raises:
        InvalidValueError, InvoicingError: as :func:`~metering_core.tariffs.pieces.tariff`.
    """
    found = tariff(price)
    findings = [finding for check in CHECKS for finding in check(found)]
    order = list(FindingCode)
    return tuple(
        sorted(findings, key=lambda finding: (order.index(finding.code), finding.tier or 0))
    )


# More usage costs less ----------------------------------------------------------------------------


def saving_intervals(pieces: Sequence[Piece]) -> tuple[QuantityRange, ...]:
    """Return every range of quantities, ascending, on which some greater quantity costs less."""
    cheapest_later: Fraction | None = None
    found: list[QuantityRange] = []
    for piece in reversed(pieces):
        interval = _dearer_than(piece, cheapest_later)
        if interval is not None:
            end = interval[1] if not found or interval[1] + 1 != found[-1][0] else found.pop()[1]
            found.append((interval[0], end))
        totals = [total for _, total in _ends([piece])]
        cheapest_later = min(totals if cheapest_later is None else [*totals, cheapest_later])
    return tuple(reversed(found))


def _dearer_than(piece: Piece, cheapest_later: Fraction | None) -> tuple[int, int] | None:
    """Return the quantities of a piece that cost more than a greater one, in the piece or
    after it.
    """
    if piece.last is None or piece.last_step is None or cheapest_later is None:
        return None
    if piece.rise < 0:
        last = piece.last if piece.at(piece.last_step) > cheapest_later else piece.last - 1
        return (piece.first, last) if last >= piece.first else None
    if piece.at(piece.last_step) <= cheapest_later:
        return None
    if piece.start > cheapest_later:
        return (piece.first, piece.last)
    return (piece.first_of(floor((cheapest_later - piece.start) / piece.rise) + 1), piece.last)


def _ends(pieces: Sequence[Piece]) -> Iterator[tuple[int, Fraction]]:
    """Yield both ends of every piece with their totals: a total is greatest, or least, at an
    end.
    """
    for piece in pieces:
        yield piece.first, piece.start
        if piece.last is not None:
            yield piece.last, piece.total(piece.last)


def _worst_fall(pieces: Sequence[Piece]) -> tuple[int, int]:
    """Return the closest pair of quantities between which the total falls most."""
    dearest_quantity, dearest = 0, pieces[0].start
    fall, pair = Fraction(-1), (0, 0)
    for quantity, total in _ends(pieces):
        if dearest - total > fall and quantity > dearest_quantity:
            fall, pair = dearest - total, (dearest_quantity, quantity)
        if total >= dearest:
            dearest_quantity, dearest = quantity, total
    return pair


def _cliff(of: Tariff) -> Iterator[Finding]:
    intervals = saving_intervals(of.pieces)
    if not intervals:
        return
    pair = low, high = _worst_fall(of.pieces)
    totals = dear, cheap = of.total(low), of.total(high)
    costs = [written(of.price, amount) for amount in (dear, cheap, dear - cheap)]
    message = "{} cost {} but {:,} cost {}, which is {} less".format(
        units(of.price, low), costs[0], high, *costs[1:]
    )
    billed = of.settled(low) - of.settled(high)
    if billed != dear - cheap:
        message += f" ({Money(billed, of.price.currency)} on the settled bill)"
    yield Finding(FindingCode.CLIFF, f"{message}.", pair, _exact(*totals), intervals=intervals)


def _exact(*amounts: Fraction) -> tuple[Unrounded, ...]:
    return tuple(decimal_if_possible(amount) for amount in amounts)


def _dead_tier(of: Tariff) -> Iterator[Finding]:
    for number in of.empty_tiers:
        message = f"No whole quantity ends in tier {number}."
        yield Finding(FindingCode.DEAD_TIER, message, tier=number)
    intervals = saving_intervals(of.pieces)
    for piece in of.pieces:
        if piece.last is not None and any(_covers(one, piece, piece.last) for one in intervals):
            ends = (piece.first, piece.last)
            message = (
                f"Nobody should end in tier {piece.tier} ({span(of.price, *ends)}), "
                "because each of its quantities costs more than a greater one."
            )
            totals = _exact(piece.start, piece.total(piece.last))
            yield Finding(FindingCode.DEAD_TIER, message, ends, totals, piece.tier, (ends,))


def _covers(interval: QuantityRange, piece: Piece, end: int) -> bool:
    first, last = interval
    return last is not None and first <= piece.first and end <= last


# What the tiers say to each other -----------------------------------------------------------------


def _same_as_neighbour(of: Tariff) -> Iterator[Finding]:
    for before, piece in pairwise(of.pieces):
        is_straight = piece.width == before.width == 1 and piece.rate is not None
        goes_on = is_straight and piece.rate == before.rate
        if goes_on and piece.start == before.at(piece.first - before.first):
            would = f"Tier {piece.tier} charges what tier {before.tier} would have charged"
            found, total = (piece.first,), _exact(piece.start)
            code = FindingCode.SAME_AS_NEIGHBOUR
            yield Finding(code, f"{would}: one of them can go.", found, total, piece.tier)


def _flat_fee_at_zero(of: Tariff) -> Iterator[Finding]:
    total = of.total(0)
    if total:
        message = f"A period without usage costs {written(of.price, total)}."
        yield Finding(FindingCode.FLAT_FEE_AT_ZERO, message, (0,), _exact(total))


def _rate_rises(of: Tariff) -> Iterator[Finding]:
    rated = [(piece.rate, piece) for piece in of.pieces if piece.rate is not None]
    # The earliest of the cheapest so far, beside each: the last piece always has a rate.
    cheapest = [min(rated[: at + 1], key=itemgetter(0)) for at in range(len(rated))]
    rises = list(zip(cheapest, rated, strict=True))
    (low, early), (high, late) = max(rises, key=lambda pair: pair[1][0] - pair[0][0])
    if high > low:
        first = f"A unit costs {written(of.price, low)} in tier {early.tier}"
        then = f"{written(of.price, high)} in tier {late.tier}, {span(of.price, late.first, None)}"
        message = f"{first} but {then}."
        quantities = (early.first, late.first)
        yield Finding(FindingCode.RATE_RISES, message, quantities, _exact(low, high), late.tier)


def _steps_up(pieces: Sequence[Piece]) -> Iterator[tuple[Fraction, int]]:
    """Yield what one more unit costs, and from which quantity, wherever that may be most."""
    for index, piece in enumerate(pieces):
        if piece.last_step is None or piece.last_step > 0:
            yield piece.rise, piece.last_of(0)
        if piece.last is not None:
            yield pieces[index + 1].start - piece.total(piece.last), piece.last


def _jump(of: Tariff) -> Iterator[Finding]:
    rates = [piece.rate for piece in of.pieces if piece.rate is not None]
    rise, low = max(_steps_up(of.pieces), key=lambda step: (step[0], -step[1]))
    if rise <= max(rates, default=Fraction(0)):
        return
    pair = low, low + 1
    costs = f"One more unit after {units(of.price, low)} costs {written(of.price, rise)}"
    message, totals = f"{costs}, more than any unit price.", _exact(*map(of.total, pair))
    yield Finding(FindingCode.JUMP, message, pair, totals, of.piece_at(low + 1).tier)


def _package_waste(of: Tariff) -> Iterator[Finding]:
    for piece in of.pieces:
        # Only packages rounded up are paid before they are full: their stair begins with the first
        # unit.
        if piece.width > 1 and piece.first == 1 and piece.rise:
            unused = piece.width - 1
            share = piece.rise * unused / piece.width
            message = (
                f"{units(of.price, 1)} pays for {piece.width:,}: {written(of.price, share)} of "
                f"{written(of.price, piece.rise)} buys what was not used."
            )
            yield Finding(FindingCode.PACKAGE_WASTE, message, (1, piece.width), _exact(share))


# What rounding does -------------------------------------------------------------------------------


def _turning_steps(piece: Piece) -> list[int]:
    """Return the steps at which a charge may begin to be above 0, or to settle to more than 0,
    ascending from 0.
    """
    turns = {0}
    for line in piece.growing:
        for bound in (Fraction(0), HALF):
            crossing = floor((bound - line.start) / line.rise)
            turns |= {crossing, crossing + 1}
    end = piece.last_step
    return sorted(step for step in turns if step >= 0 and (end is None or step <= end))


def _last_range(of: Tariff, holds: Callable[[Piece, int], bool]) -> QuantityRange | None:
    """Return the last range of quantities from 1 on, within a piece and between turns, on which
    something holds.
    """
    for piece in reversed(of.pieces):
        turns = _turning_steps(piece)
        for index in reversed(range(len(turns))):
            last = piece.last if index == len(turns) - 1 else piece.first_of(turns[index + 1]) - 1
            if last != 0 and holds(piece, turns[index]):
                return max(1, piece.first_of(turns[index])), last
    return None


def _is_billed_nothing(piece: Piece, step: int) -> bool:
    return piece.at(step) > 0 and piece.settled_at(step) == 0


def _loses_a_line(piece: Piece, step: int) -> bool:
    is_any_lost = piece.fixed.is_any_lost or any(is_lost(line.at(step)) for line in piece.growing)
    return is_any_lost and piece.settled_at(step) > 0


def _rounding_finding(of: Tariff, interval: QuantityRange, what: str) -> Finding:
    first, last = interval
    quantity = first if last is None else last
    until = f"up to {units(of.price, quantity)}"
    if last is None:
        until = f"for every quantity {span(of.price, first, last)}"
    total = of.total(quantity)
    message = f"{what} {until}, where the exact total is {written(of.price, total)}."
    code = FindingCode.ROUNDS_TO_ZERO
    return Finding(code, message, (quantity,), _exact(total), intervals=(interval,))


def _rounds_to_zero(of: Tariff) -> Iterator[Finding]:
    whole = _last_range(of, _is_billed_nothing)
    if whole is not None:
        yield _rounding_finding(of, whole, "Usage is billed nothing")
    line = _last_range(of, _loses_a_line)
    if line is not None:
        what = "A charge above 0 settles to nothing on a bill that does not"
        finding = _rounding_finding(of, line, what)
        yield attrs.evolve(finding, tier=of.piece_at(line[0]).tier, severity=Severity.INFO)


def _not_payable(of: Tariff) -> Iterator[Finding]:
    multiple = currency(of.price.currency).multiple
    if multiple == 1:
        return
    for piece in of.pieces:
        step = _first_not_payable(piece, multiple)
        if step is not None:
            quantity, bill = piece.first_of(step), piece.settled_at(step)
            message = (
                f"{units(of.price, quantity)} cost {Money(bill, of.price.currency)}, "
                f"which is no multiple of {Money(multiple, of.price.currency)}."
            )
            amounts = (Decimal(bill),)
            yield Finding(FindingCode.NOT_PAYABLE, message, (quantity,), amounts, piece.tier)


def _first_not_payable(piece: Piece, multiple: int) -> int | None:
    """Return the first step of a piece whose bill is no multiple of ``multiple``."""
    if len(piece.growing) > 1:
        return _first_not_payable_of_many(piece, multiple)
    if piece.settled_at(0) % multiple:
        return 0
    if not piece.growing:
        return None
    # Whole multiples in the rise change nothing, so only what it is off the nearest one counts. The
    # bill stays a multiple until that has added up to a first minor unit, and is none there,
    # because it adds at most half a multiple a step.
    (line,) = piece.growing
    off = line.rise - multiple * floor(line.rise / multiple + HALF)
    above = line.start + HALF - settled_half_up(line.start)
    if not off:
        return None
    step = ceil((1 - above) / off) if off > 0 else floor(above / -off) + 1
    return step if piece.last_step is None or step <= piece.last_step else None


def _first_not_payable_of_many(piece: Piece, multiple: int) -> int | None:
    """Try the steps until they repeat; settled sums of several charges have no simpler order."""
    steps = multiple * lcm(*(line.rise.denominator for line in piece.growing))
    steps = steps if piece.last_step is None else min(steps, piece.last_step + 1)
    if steps > SCAN_MAX:
        what = f"charges whose settled sum repeats within {SCAN_MAX} quantities"
        expected = f"{what}, to decide what is payable"
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_OBJECT, "model", expected, steps
        )
    return next((step for step in range(steps) if piece.settled_at(step) % multiple), None)


CHECKS: Final[tuple[Callable[[Tariff], Iterator[Finding]], ...]] = (
    _cliff,
    _not_payable,
    _dead_tier,
    _rounds_to_zero,
    _same_as_neighbour,
    _flat_fee_at_zero,
    _rate_rises,
    _jump,
    _package_waste,
)
"""One row a check."""

"""Running total minus what was billed: what a billed period costs more or less since its quantity
changed, part by part.

A part is what of a price stays itself from one quantity to the next: a tier's units, its flat
amount, the packages. Each part is settled for the whole quantity, and what was billed of it is
subtracted. So all bills of a period are together what the period comes to, to the minor unit,
however often it changed.
"""

from __future__ import annotations

import attrs

from metering_core.exact import Number, add, multiply, subtract
from metering_core.meter_bills import Correction, Part, part_of
from metering_core.money import Rounding, half_up
from metering_core.prices import Price
from metering_core.pricing import ZERO, Charge, ChargeKind
from metering_core.rating import Segment, SettledLine, billed


@attrs.frozen
class Difference:
    """What one part of a billed period comes to now, less what was billed of it.

    Attributes:
        charge: the difference, exact; what it covers may be negative, and so may its amount.
        now: what the whole part is settled to now, in minor units.
        before: what of it was billed, in minor units.
    """

    charge: Charge
    now: int
    before: int

    @property
    def amount(self) -> int:
        """What is due, in minor units; negative where too much was billed."""
        return self.now - self.before


def differences(correction: Correction, rounding: Rounding = half_up) -> list[Difference]:
    """Return what a correction comes to: the parts that changed, those first that the measured
    quantity no longer has.
    """
    former = _by_part(correction.price, max(correction.billed, 0), rounding)
    latter = _by_part(correction.price, correction.measured, rounding)
    before = (
        {part: one.amount for part, one in former.items()}
        if correction.settled is None
        else correction.settled
    )
    found = []
    for part in dict.fromkeys([*(one for one in (*former, *before) if one not in latter), *latter]):
        nothing = _nothing(part, latter.get(part) or former.get(part))
        now = latter.get(part, nothing)
        found.append(
            Difference(
                _joined(now, former.get(part, nothing), -1).charge, now.amount, before.get(part, 0)
            )
        )
    return [one for one in found if one.amount or one.charge.amount or one.charge.quantity]


def _by_part(price: Price, quantity: Number, rounding: Rounding) -> dict[Part, SettledLine]:
    charges: dict[Part, SettledLine] = {}
    for one in billed([Segment(price, quantity)], rounding):
        part = part_of(one.charge)
        charges[part] = _joined(charges[part], one, 1) if part in charges else one
    return charges


def _nothing(part: Part, like: SettledLine | None) -> SettledLine:
    """Return the charge of a part that is not there, in the units of one that is."""
    kind, tier, label = part
    # What neither quantity has was billed by a model of the user's own that charges otherwise
    # since.
    charge = (
        Charge(ChargeKind(kind), 0, None, ZERO, tier=tier, label=label)
        if like is None
        else like.charge
    )
    packages = None if charge.packages is None else 0
    none = attrs.evolve(charge, quantity=0, amount=ZERO, packages=packages)
    return SettledLine(0, none, ZERO, 0)


def _joined(one: SettledLine, other: SettledLine, sign: int) -> SettledLine:
    """Return two charges of a part as one, the second added or subtracted."""
    join, first, second = add if sign > 0 else subtract, one.charge, other.charge
    exact = multiply(join(one.exact, other.exact), 1)
    charge = attrs.evolve(
        first,
        quantity=join(first.quantity, second.quantity),
        amount=exact,
        # Only a model of the user's own charges two amounts for one part.
        unit_amount=first.unit_amount if first.unit_amount == second.unit_amount else None,
        packages=None
        if first.packages is None or second.packages is None
        else first.packages + sign * second.packages,
    )
    return SettledLine(one.segment, charge, exact, one.amount + sign * other.amount)

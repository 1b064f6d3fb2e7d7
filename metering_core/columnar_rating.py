"""Rating millions of quantities at once: what each comes to in whole minor units, equal to rating and settling one by one.

Amounts are integers over a common denominator, so nothing is a float and every line is rounded half up by itself. Each tier is
a straight line: what all tiers below it come to, plus its own units at its own amount. A price whose greatest result a bound
does not prove to fit 64 bits is rated in Python integers, which know no limit. Needs the extra ``columnar``.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from importlib import import_module
from math import lcm
from typing import TYPE_CHECKING, Any, Final

import attrs

from metering_core.errors import MissingExtraError
from metering_core.exact import Number, exact_quantity
from metering_core.money import Amount, Rounding, half_up, settle
from metering_core.prices import Price
from metering_core.pricing import Graduated, Package, PerUnit, Round, Tier, Volume
from metering_core.rating import rate

try:
    import_module("numpy")
except ModuleNotFoundError as error:
    if error.name != "numpy":
        raise
    raise MissingExtraError.for_extra("columnar", "metering_core.columnar_rating") from error

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_INT64_MAX: Final = 2**63 - 1
_BLOCK: Final = 1 << 15
"""Quantities that are rated at a time, so that what is in between stays in the cache."""


@attrs.frozen
class _Line:
    """What a tier charges: ``base`` minor units, settled, and its units at ``numerator / denominator`` each.

    Attributes:
        up_to: the last quantity of the tier, times the model's scale; None in the last tier.
        below: quantities from here on are charged in it, times the scale.
        numerator: minor units for one unit, times ``denominator``.
        base: the settled lines of all tiers below, and the flat amounts that are due.
    """

    up_to: int | None
    below: int
    numerator: int
    base: int


@attrs.frozen
class _Lines:
    """A pricing model as straight lines.

    Attributes:
        lines: tier by tier.
        scale: by how much quantities are multiplied, so that bounds are whole.
        denominator: what the numerators are parts of, the scale included; even, so that its half is whole.
        divide_by: units in a package; None without packages.
        rounds_up: whether a part of a package is one.
    """

    lines: tuple[_Line, ...]
    scale: int = 1
    denominator: int = 2
    divide_by: int | None = None
    rounds_up: bool = True


def rate_many(price: Price, quantities: Any, *, rounding: Rounding = half_up) -> NDArray[Any]:  # noqa: ANN401 - what NumPy reads
    """Return what each quantity comes to at a price: the sum of its settled lines, in whole minor units.

    Equal to ``sum(settle(Amount(charge.amount, …)).minor_units for charge in rate(price, quantity).charges)`` for each.

    Args:
        price: any price. A model of the user's own is asked quantity by quantity.
        quantities: integers of at least 0 as a NumPy array; anything else that :func:`~metering_core.rate` takes, as a
            sequence, is rated one by one.
        rounding: how each line is settled; another one than half up is applied line by line.

    Returns:
        Integers of 64 bits, or Python integers (``dtype`` object) where a result might not fit.

    Raises:
        InvalidValueError: ``parameter_invalid_decimal`` for a malformed quantity; ``param`` names its row.

    >>> rate_many(Price.per_unit("tokens", currency="usd", unit_amount="0.5"), np.array([0, 1, 2, 3])).tolist()
    [0, 1, 1, 2]
    """
    lines = _lines_of(price) if rounding is half_up else None
    values = quantities if isinstance(quantities, np.ndarray) else None
    if lines is None or values is None or values.dtype.kind not in "iu" or values.ndim != 1:
        return _one_by_one(price, quantities, rounding)
    if not len(values):
        return np.empty(0, np.int64)
    least, greatest = int(values.min()), int(values.max())
    if least < 0:
        row = int(np.flatnonzero(values < 0)[0])
        exact_quantity(int(values[row]), f"quantities[{row}]")
    if not _fits(lines, greatest):
        return _rated(lines, values.astype(object))
    rated = np.empty(len(values), np.int64)
    for at in range(0, len(values), _BLOCK):
        rated[at : at + _BLOCK] = _rated(lines, values[at : at + _BLOCK].astype(np.int64, copy=False))
    return rated


def settled_total(price: Price, quantity: Number, rounding: Rounding = half_up) -> int:
    """Return what one quantity comes to: the sum of its settled lines in minor units."""
    charges = rate(price, quantity).charges
    return sum(settle(Amount(charge.amount, price.currency), rounding).minor_units for charge in charges)


def _one_by_one(price: Price, quantities: Any, rounding: Rounding) -> NDArray[Any]:  # noqa: ANN401 - as above
    values = quantities.tolist() if isinstance(quantities, np.ndarray) else list(quantities)
    checked = [exact_quantity(value, f"quantities[{row}]") for row, value in enumerate(values)]
    totals = [settled_total(price, quantity, rounding) for quantity in checked]
    fit = all(-_INT64_MAX <= total <= _INT64_MAX for total in totals)
    rated = np.empty(len(totals), np.int64 if fit else np.object_)
    rated[:] = totals
    return rated


# Models as straight lines ----------------------------------------------------------------------------------------------


def _lines_of(price: Price) -> _Lines | None:
    """Return a built-in model as straight lines; None for any other."""
    model = price.model
    match model:  # By the very type: a subclass may charge otherwise.
        case PerUnit() if type(model) is PerUnit:
            return _straight(model.unit_amount)
        case Package() if type(model) is Package:
            lines = _straight(model.unit_amount)
            return attrs.evolve(lines, divide_by=model.divide_by, rounds_up=model.round is Round.UP)
        case Graduated() if type(model) is Graduated:
            return _tiered(model.tiers, adds_up=True)
        case Volume() if type(model) is Volume:
            return _tiered(model.tiers, adds_up=False)
    return None


def _straight(unit_amount: Decimal) -> _Lines:
    numerator, denominator = unit_amount.as_integer_ratio()
    return _Lines((_Line(None, 0, 2 * numerator, 0),), denominator=2 * denominator)


def _tiered(tiers: Sequence[Tier], *, adds_up: bool) -> _Lines:
    """Return tiers as lines: each from its own lower bound on, or (volume) each from zero on."""
    bounds = [Fraction(tier.up_to) for tier in tiers if tier.up_to is not None]
    scale = lcm(*(bound.denominator for bound in bounds))
    amounts = [Fraction(tier.unit_amount or 0) for tier in tiers]
    denominator = 2 * scale * lcm(*(amount.denominator for amount in amounts))
    edges = [int(bound * scale) for bound in bounds]
    lines: list[_Line] = []
    below = base = 0
    for tier, amount, edge in zip(tiers, amounts, [*edges, None], strict=True):
        numerator = int(amount * denominator / scale)
        flat = 0 if tier.flat_amount is None else half_up(tier.flat_amount)
        lines.append(_Line(edge, below, numerator, base + flat))
        if adds_up and edge is not None:
            base += flat + _settled((edge - below) * numerator, denominator)
            below = edge
    return _Lines(tuple(lines), scale, denominator)


def _settled(parts: int, denominator: int) -> int:
    """Round half up to whole units; the denominator is even, and nothing here is negative."""
    return (parts + denominator // 2) // denominator


# Rating ----------------------------------------------------------------------------------------------------------------


def _fits(lines: _Lines, greatest: int) -> bool:
    """Prove that no step of rating quantities up to ``greatest`` leaves 64 bits."""
    scaled = greatest * lines.scale
    steps = [scaled, lines.denominator]
    for line in _reached(lines, scaled):
        last = scaled if line.up_to is None else min(scaled, line.up_to)
        shift = _shift(lines, line)
        steps += [abs(shift), line.numerator, last * line.numerator, last * line.numerator + shift]
    return max(steps) <= _INT64_MAX


def _reached(lines: _Lines, greatest: int) -> list[_Line]:
    """Return the tiers that quantities up to ``greatest`` (times the scale) come to."""
    befores = [0, *(line.up_to or 0 for line in lines.lines)]
    return [
        line for place, (line, before) in enumerate(zip(lines.lines, befores, strict=False)) if place == 0 or before < greatest
    ]


def _shift(lines: _Lines, line: _Line) -> int:
    """Return what to add to a quantity's product, so that one division settles its line and adds the tier's base."""
    return line.base * lines.denominator - line.below * line.numerator + lines.denominator // 2


def _rated(lines: _Lines, quantities: NDArray[Any]) -> NDArray[Any]:
    """Rate quantities in integers of their own kind: 64 bits where that is proven, else Python's."""
    units = quantities if lines.divide_by is None else _packages(quantities, lines.divide_by, rounds_up=lines.rounds_up)
    if lines.scale != 1:
        units = units * lines.scale
    reached = _reached(lines, int(units.max()))
    parts: NDArray[Any]
    numerators = np.array([line.numerator for line in reached], dtype=units.dtype)
    shifts = np.array([_shift(lines, line) for line in reached], dtype=units.dtype)
    if len(reached) == 1:
        parts = units * numerators[0] + shifts[0]
    else:
        tiers = np.zeros(len(units), np.intp)
        for line in reached[:-1]:
            tiers += units > line.up_to
        parts = units * numerators[tiers]
        parts += shifts[tiers]
    parts //= lines.denominator
    return parts


def _packages(quantities: NDArray[Any], divide_by: int, *, rounds_up: bool) -> NDArray[Any]:
    """Return how many packages each quantity makes; no sum that could leave 64 bits."""
    if divide_by > _INT64_MAX:
        quantities = quantities.astype(object)
    full: NDArray[Any] = quantities // divide_by
    if rounds_up:
        full = full + (quantities % divide_by != 0)
    return full

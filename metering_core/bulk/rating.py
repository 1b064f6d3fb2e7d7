"""Rating millions of quantities at once: what each comes to in whole minor units, equal to rating
and settling one by one.

Amounts are integers over a common denominator, so nothing is a float and every line is rounded half
up by itself. Each tier is a straight line: what all tiers below it come to, plus its own units at
its own amount. A price whose greatest result a bound does not prove to fit 64 bits is rated in
Python integers, which know no limit. Needs the extra ``columnar``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from importlib import import_module
from math import lcm
from typing import TYPE_CHECKING, Any, Final

import attrs

from metering_core.errors import ErrorCode, InvalidValueError, MissingExtraError
from metering_core.exact import Number, exact_quantity
from metering_core.money import Rounding, half_up, require_rounding
from metering_core.names import require_iterable, require_kind
from metering_core.prices import Price
from metering_core.pricing import ChargeKind, Reach, Schedule, is_built_in
from metering_core.rating import (
    Segment,
    SettledLine,
    billed,
    settled_total,
    steps_beyond_closed_form,
)

try:
    import_module("numpy")
except ModuleNotFoundError as error:
    if error.name != "numpy":
        raise
    raise MissingExtraError.for_extra("columnar", "metering_core.bulk.rating") from error

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_INT64_MAX: Final = 2**63 - 1
_BLOCK: Final = 1 << 15
"""Quantities that are rated at a time, so that what is in between stays in the cache."""


@attrs.frozen(eq=False)
class RatedLines:
    """Settled lines of many quantities, column by column: in the order of the quantities, and of
    the tiers within one.

    Attributes:
        rows: which quantity each line is of, from 0.
        tiers: the number of its tier, from 1; 0 where the price has none.
        are_flat: where the line is a tier's flat amount.
        quantities: units that the line covers; 0 on a flat line.
        amounts: what is due, in whole minor units.
    """

    rows: NDArray[np.intp]
    tiers: NDArray[np.int64]
    are_flat: NDArray[np.bool]
    quantities: NDArray[Any]
    amounts: NDArray[Any]

    def __len__(self) -> int:
        """Return the number of lines."""
        return len(self.rows)

    def of(self, places: Sequence[int]) -> RatedLines:
        """Return the lines as those of other rows: of ``places[row]``."""
        return attrs.evolve(self, rows=np.array(places, np.intp)[self.rows])

    @staticmethod
    def joined(parts: Iterable[RatedLines]) -> RatedLines:
        """Return lines one after the other."""
        nothing: list[NDArray[Any]] = [
            np.empty(0, kind) for kind in (np.intp, np.int64, np.bool_, np.int64, np.int64)
        ]
        some = list(parts) or [RatedLines(*nothing)]
        if len(some) == 1:
            return some[0]
        columns = zip(*(attrs.astuple(part, recurse=False) for part in some), strict=True)
        return RatedLines(*(np.concatenate(column) for column in columns))

    def in_order(self) -> RatedLines:
        """Return the lines in the order of their rows, those of one row as they are."""
        if (self.rows[1:] >= self.rows[:-1]).all():
            return self
        order = np.argsort(self.rows, kind="stable")
        return RatedLines(*(column[order] for column in attrs.astuple(self, recurse=False)))


@attrs.frozen
class _Line:
    """What a tier charges: ``base`` minor units, settled, and its units at ``numerator /
    denominator`` each.

    Attributes:
        up_to: the last quantity of the tier, times the model's scale; None in the last tier.
        below: quantities from here on are charged in it, times the scale.
        numerator: minor units for one unit, times ``denominator``.
        base: the settled lines of all tiers below, and the flat amounts that are due.
        flat: the tier's own flat amount, settled; None without one.
    """

    up_to: int | None
    below: int
    numerator: int
    base: int
    flat: int | None = None


@attrs.frozen
class _Lines:
    """A pricing model as straight lines.

    Attributes:
        lines: tier by tier.
        scale: by how much quantities are multiplied, so that bounds are whole.
        denominator: what the numerators are parts of, the scale included; even, so that its half is
            whole.
        divide_by: units in a package; None without packages.
        rounds_up: whether a part of a package is one.
        first_tier: the number of the first tier; 0 where there are none.
        adds_up: whether all tiers reached are charged, or the last of them only.
    """

    lines: tuple[_Line, ...]
    scale: int = 1
    denominator: int = 2
    divide_by: int | None = None
    rounds_up: bool = True
    first_tier: int = 0
    adds_up: bool = True


def rate_many(price: Price, quantities: Any, *, rounding: Rounding = half_up) -> NDArray[Any]:
    """Return what each quantity comes to at a price: the sum of its settled lines, in whole minor
    units.

    Equal to ``sum(settle(Amount(charge.amount, …)).minor_units for charge in rate(price,
    quantity).charges)`` for each.

    Args:
        price: any price. A model of the user's own is asked quantity by quantity.
        quantities: integers of at least 0 as a NumPy array; anything else that
            :func:`~metering_core.rate` takes, as a sequence, is rated one by one.
        rounding: how each line is settled; another one than half up is applied line by line.

    Returns:
        Integers of 64 bits, or Python integers (``dtype`` object) where a result might not fit.

    Raises:
        InvalidValueError: ``parameter_invalid_decimal`` for a malformed quantity; ``param`` names
            its row.

    >>> tokens = Price.per_unit("tokens", currency="usd", unit_amount="0.5")
    >>> rate_many(tokens, np.array([0, 1, 2, 3])).tolist()
    [0, 1, 1, 2]
    """
    require_kind(Price, price, "price")
    require_rounding(rounding)
    lines = _lines_of(price) if rounding is half_up else None
    if lines is None or not _are_integers(quantities):
        return _one_by_one(price, quantities, rounding)
    values = _fitting(lines, quantities)
    if values.dtype == np.object_:
        return _rated(lines, values)
    rated = np.empty(len(values), np.int64)
    for at in range(0, len(values), _BLOCK):
        rated[at : at + _BLOCK] = _rated(lines, values[at : at + _BLOCK])
    return rated


def rate_lines(price: Price, quantities: Any, *, rounding: Rounding = half_up) -> RatedLines:
    """Return the settled lines of each quantity: what an invoice bills it by.

    Equal to the charges of :func:`~metering_core.rate`, each settled. Arguments and errors are
    those of :func:`rate_many`.

    >>> from metering_core import Tier
    >>> tiers = [Tier(5, unit_amount=700), Tier("inf", unit_amount=650)]
    >>> lines = rate_lines(Price.graduated("seats", currency="usd", tiers=tiers), np.array([6, 2]))
    >>> columns = lines.rows, lines.tiers, lines.quantities, lines.amounts
    >>> list(zip(*(column.tolist() for column in columns)))
    [(0, 1, 5, 3500), (0, 2, 1, 650), (1, 1, 2, 1400)]
    """
    require_kind(Price, price, "price")
    require_rounding(rounding)
    lines = _lines_of(price) if rounding is half_up else None
    # Where a bound is no integer, neither is the quantity of a line.
    if lines is None or lines.scale != 1 or not _are_integers(quantities):
        values = _checked(quantities)
        return lines_one_by_one([[Segment(price, value)] for value in values], rounding)
    return _line_by_line(lines, _fitting(lines, quantities))


def lines_one_by_one(
    bills: Iterable[Sequence[Segment]], rounding: Rounding = half_up
) -> RatedLines:
    """Return the settled lines of one bill after the other, in columns; rows count the segments of
    all bills.
    """
    found: list[tuple[int, SettledLine]] = []
    first = 0
    for segments in bills:
        found += [(first + line.segment, line) for line in billed(segments, rounding)]
        first += len(segments)
    charges = [line.charge for _, line in found]
    return RatedLines(
        np.array([row for row, _ in found], np.intp),
        np.array([charge.tier or 0 for charge in charges], np.int64),
        np.array([charge.kind is ChargeKind.FLAT for charge in charges], np.bool_),
        exact_array([charge.quantity for charge in charges]),
        exact_array([line.amount for _, line in found]),
    )


def _are_integers(quantities: Any) -> bool:
    if (
        not isinstance(quantities, np.ndarray)
        or quantities.dtype.kind not in "iu"
        or quantities.ndim != 1
    ):
        return False
    # What a mask hides is no quantity, which is said one by one.
    return type(quantities) is np.ndarray or not isinstance(quantities, np.ma.MaskedArray)


def _fitting(lines: _Lines, quantities: NDArray[Any]) -> NDArray[Any]:
    """Refuse negative quantities; return the others in 64 bits where no step of rating leaves them,
    else as Python integers.
    """
    if not len(quantities):
        return np.empty(0, np.int64)
    if int(quantities.min()) < 0:
        row = int(np.flatnonzero(quantities < 0)[0])
        exact_quantity(int(quantities[row]), f"quantities[{row}]")
    return quantities.astype(
        np.int64 if _fits(lines, int(quantities.max())) else np.object_, copy=False
    )


def _checked(quantities: Any) -> list[Number]:
    values = (
        quantities.tolist()
        if isinstance(quantities, np.ndarray)
        else list(require_iterable(quantities, "quantities"))
    )
    if not isinstance(values, list):  # Of an array of no dimension.
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_OBJECT, "quantities", "a sequence", quantities
        )
    return [exact_quantity(value, f"quantities[{row}]") for row, value in enumerate(values)]


def _one_by_one(price: Price, quantities: Any, rounding: Rounding) -> NDArray[Any]:
    return exact_array(
        [settled_total(price, quantity, rounding) for quantity in _checked(quantities)]
    )


def exact_array(values: Sequence[Number]) -> NDArray[Any]:
    """Return numbers in 64 bits where they are integers that fit, else as they are."""
    fit = all(isinstance(value, int) and -_INT64_MAX <= value <= _INT64_MAX for value in values)
    return np.array(values, dtype=np.int64 if fit else np.object_)


# Models as straight lines -------------------------------------------------------------------------


def _lines_of(price: Price) -> _Lines | None:
    """Return a built-in model as straight lines; None for any other, or where a bill has steps
    beyond what lines can say.
    """
    if steps_beyond_closed_form() or not is_built_in(price.model):
        return None
    return _straight(price.model.schedule)


def _straight(schedule: Schedule) -> _Lines:
    """Return bands as lines: each from its own lower bound on, or (volume) each from zero on."""
    bands, adds_up = schedule.bands, schedule.reaches is Reach.EACH
    bounds = [Fraction(band.up_to) for band in bands if band.up_to is not None]
    scale = lcm(*(bound.denominator for bound in bounds))
    amounts = [Fraction(band.unit_amount) for band in bands]
    denominator = 2 * scale * lcm(*(amount.denominator for amount in amounts))
    edges = [int(bound * scale) for bound in bounds]
    lines: list[_Line] = []
    below = base = 0
    for band, amount, edge in zip(bands, amounts, [*edges, None], strict=True):
        numerator = int(amount * denominator / scale)
        flat = 0 if band.flat_amount is None else half_up(band.flat_amount)
        lines.append(
            _Line(edge, below, numerator, base + flat, None if band.flat_amount is None else flat)
        )
        if adds_up and edge is not None:
            base += flat + _settled((edge - below) * numerator, denominator)
            below = edge
    return _Lines(
        tuple(lines),
        scale,
        denominator,
        schedule.divide_by,
        schedule.rounds_up,
        bands[0].number or 0,
        adds_up,
    )


def _settled(parts: int, denominator: int) -> int:
    """Round half up to whole units; the denominator is even, and nothing here is negative."""
    return (parts + denominator // 2) // denominator


# Rating -------------------------------------------------------------------------------------------


def _fits(lines: _Lines, greatest: int) -> bool:
    """Prove that no step of rating quantities up to ``greatest`` leaves 64 bits."""
    scaled = greatest * lines.scale
    steps = [scaled, lines.denominator]
    for line in _reached(lines, scaled):
        last = scaled if line.up_to is None else min(scaled, line.up_to)
        shift = _shift(lines, line)
        product = last * line.numerator
        steps += [abs(shift), line.numerator, product + lines.denominator // 2, product + shift]
    return max(steps) <= _INT64_MAX


def _reached(lines: _Lines, greatest: int) -> list[_Line]:
    """Return the tiers that quantities up to ``greatest`` (times the scale) come to."""
    befores = [0, *(line.up_to or 0 for line in lines.lines)]
    return [
        line
        for place, (line, before) in enumerate(zip(lines.lines, befores, strict=False))
        if place == 0 or before < greatest
    ]


def _shift(lines: _Lines, line: _Line) -> int:
    """Return what to add to a quantity's product, so that one division settles its line and adds
    the tier's base.
    """
    return line.base * lines.denominator - line.below * line.numerator + lines.denominator // 2


def _rated(lines: _Lines, quantities: NDArray[Any]) -> NDArray[Any]:
    """Rate quantities in integers of their own kind: 64 bits where that is proven, else
    Python's.
    """
    units = (
        quantities
        if lines.divide_by is None
        else _packages(quantities, lines.divide_by, rounds_up=lines.rounds_up)
    )
    if lines.scale != 1:
        units = units * lines.scale
    reached = _reached(lines, int(units.max(initial=0)))
    parts: NDArray[Any]
    numerators = np.array([line.numerator for line in reached], dtype=units.dtype)
    shifts = np.array([_shift(lines, line) for line in reached], dtype=units.dtype)
    if len(reached) == 1:
        parts = units * numerators[0] + shifts[0]
    else:
        tiers = _places(reached, units)
        parts = units * numerators[tiers]
        parts += shifts[tiers]
    parts //= lines.denominator
    return parts


def _places(reached: Sequence[_Line], units: NDArray[Any]) -> NDArray[np.intp]:
    """Return which of the tiers holds the last unit of each quantity."""
    places = np.zeros(len(units), np.intp)
    for line in reached[:-1]:
        places += units > line.up_to
    return places


@attrs.frozen(eq=False)
class _Entries:
    """The lines that a quantity can have, as a table: of the units of a tier, and of its flat
    amount, which has no units.

    Attributes:
        starts: for each tier, the first line of a quantity that ends in it.
        counts: for each tier, how many lines such a quantity has.
        tiers: the number of each line's tier.
        are_flat: which lines are flat amounts.
        below: quantities from here on are charged in the line, times the scale.
        up_to: the last quantity that is.
        numerators: minor units for one unit, times the denominator.
        shifts: what is charged anyhow, times the denominator, and the half that rounds.
    """

    starts: NDArray[np.intp]
    counts: NDArray[np.intp]
    tiers: NDArray[np.int64]
    are_flat: NDArray[np.bool]
    below: NDArray[Any]
    up_to: NDArray[Any]
    numerators: NDArray[Any]
    shifts: NDArray[Any]

    @classmethod
    def of(
        cls, lines: _Lines, reached: Sequence[_Line], greatest: int, kind: np.dtype[Any]
    ) -> _Entries:
        """Write the table for quantities up to ``greatest``, in integers of their own kind."""
        half = lines.denominator // 2
        rows: list[tuple[int, bool, int, int, int, int]] = []
        for tier, line in enumerate(reached, start=lines.first_tier):
            up_to = greatest if line.up_to is None else min(line.up_to, greatest)
            rows.append((tier, False, line.below, up_to, line.numerator, half))
            if line.flat is not None:
                rows.append((tier, True, 0, 0, 0, line.flat * lines.denominator + half))
        own = np.array([1 if line.flat is None else 2 for line in reached], np.intp)
        ends = np.cumsum(own)
        starts, counts = (np.zeros(len(own), np.intp), ends) if lines.adds_up else (ends - own, own)
        columns = zip(*rows, strict=True)
        kinds: Sequence[np.dtype[Any]] = (
            np.dtype(np.int64),
            np.dtype(np.bool_),
            kind,
            kind,
            kind,
            kind,
        )
        return cls(
            starts,
            counts,
            *(np.array(column, kind) for column, kind in zip(columns, kinds, strict=True)),
        )


def _line_by_line(lines: _Lines, quantities: NDArray[Any]) -> RatedLines:
    """Rate quantities to lines, a block at a time, so that what is in between stays in the
    cache.
    """
    if not len(quantities):
        return RatedLines.joined([])
    greatest = int(quantities.max())
    reached = _reached(lines, greatest)
    entries = _Entries.of(lines, reached, greatest, quantities.dtype)
    blocks = (
        _lines_of_block(lines, reached, entries, quantities[at : at + _BLOCK], at)
        for at in range(0, len(quantities), _BLOCK)
    )
    return RatedLines.joined(blocks)


def _lines_of_block(
    lines: _Lines,
    reached: Sequence[_Line],
    entries: _Entries,
    quantities: NDArray[Any],
    first_row: int,
) -> RatedLines:
    """Rate some quantities: each has as many lines as its last tier says, one after the other in
    the table.
    """
    last = _places(reached, quantities)
    counts = entries.counts[last]
    rows = np.repeat(np.arange(len(quantities)), counts)
    befores = np.cumsum(counts) - counts - entries.starts[last]
    which = np.arange(len(rows)) - befores[rows]
    units = np.minimum(quantities[rows], entries.up_to[which]) - entries.below[which]
    charged = (
        units
        if lines.divide_by is None
        else _packages(units, lines.divide_by, rounds_up=lines.rounds_up)
    )
    amounts = (charged * entries.numerators[which] + entries.shifts[which]) // lines.denominator
    return RatedLines(
        rows + first_row, entries.tiers[which], entries.are_flat[which], units, amounts
    )


def _packages(quantities: NDArray[Any], divide_by: int, *, rounds_up: bool) -> NDArray[Any]:
    """Return how many packages each quantity makes; no sum that could leave 64 bits."""
    if divide_by > _INT64_MAX:
        quantities = quantities.astype(object)
    full: NDArray[Any] = quantities // divide_by
    if rounds_up:
        full = full + (quantities % divide_by != 0)
    return full

"""How a quantity turns into charges: schedules, and the pricing models that people write.

This is the only place where a quantity meets an amount. Every built-in model is a
:class:`Schedule` behind a constructor: bands, which of them charge, the size of a step. A model is
data that cannot be wrong once built, with one verb, :meth:`PricingModel.charges`; anything else
that has that verb is a pricing model too, and everything downstream (lines, invoices, explanations,
the cases of ``check``) works with it. Amounts are in the currency's minor unit and exact; nothing
here rounds.

Adding a model is one constructor in this file and its row in :data:`PRICING_MODELS`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from math import ceil, floor
from typing import Any, ClassVar, Final, Protocol, Self, TypeGuard, runtime_checkable

import attrs

from metering_core.codec import Storable
from metering_core.errors import ErrorCode, InvalidValueError, InvoicingError, describe
from metering_core.exact import (
    AMOUNT_DIGITS_MAX,
    EXACT,
    Number,
    Unrounded,
    canonical,
    exact_decimal,
    exact_integer,
    exact_quantity,
    multiply,
    plain,
    subtract,
    whole_if_possible,
)
from metering_core.names import choice, each_of, require_object, required, text_of
from metering_core.stripe_fields import judged

__all__ = [
    "Charge",
    "ChargeKind",
    "DeclaresBreakpoints",
    "Graduated",
    "Package",
    "PerUnit",
    "Percentage",
    "PricingModel",
    "Round",
    "Tier",
    "Volume",
]

ZERO = Decimal(0)
HUNDREDTH: Final = Decimal("0.01")
_CHARGE_DIGITS_MAX = AMOUNT_DIGITS_MAX - 40
"""Digits of a charge; what is left of an amount's is for the sum of the charges."""
_CHARGE_BOUND = 10**_CHARGE_DIGITS_MAX


class ChargeKind(StrEnum):
    """What a charge multiplies: units, nothing (a flat amount), packages, or an amount of which a
    part is due.
    """

    UNIT = "unit"
    FLAT = "flat"
    PACKAGE = "package"
    PERCENT = "percent"


def _kind(value: str) -> ChargeKind:
    return value if type(value) is ChargeKind else choice(ChargeKind, value, "kind")


@attrs.frozen
class Charge(Storable):
    """One product of a quantity and a price, exact and unrounded; it becomes one invoice line.

    Attributes:
        kind: what ``unit_amount`` is multiplied with.
        quantity: the units this charge covers; 0 on a flat charge, the raw quantity on a package
            charge.
        unit_amount: minor units for one unit, one package or the flat amount; for each minor unit
            of the quantity where that is an amount; None where a model has no such figure.
        amount: minor units, exact; a Fraction where no decimal can write them.
        tier: the tier's number, from 1; None without tiers.
        packages: how many packages the quantity makes; None elsewhere.
        divide_by: units in a package; None elsewhere.
        label: a model's own words for the line; None for the usual ones.
    """

    kind: ChargeKind = attrs.field(converter=_kind)
    quantity: Number
    unit_amount: Decimal | None
    amount: Unrounded
    tier: int | None = None
    packages: int | None = None
    divide_by: int | None = None
    label: str | None = None


@runtime_checkable
class PricingModel(Protocol):
    """What a pricing model must do: turn a quantity into its charges.

    ``quantity`` is an int; a Decimal where a meter allows decimals; a Fraction where a meter
    divides and no decimal can write the share (an average of 1/3). It is never negative. Zero is
    rated too. The quantities of the charges that are not flat must sum to ``quantity``, and equal
    quantities must give equal charges. :mod:`metering_core.exact` multiplies all three.
    """

    def charges(self, quantity: Number) -> Sequence[Charge]:
        """Return the exact charges for a quantity, in the order in which they stand on the
        invoice.
        """
        ...  # pragma: no cover


@runtime_checkable
class DeclaresBreakpoints(Protocol):
    """What a pricing model of the user's own adds to ``charges`` so that its price can be audited,
    compared and drawn.

    Between two breakpoints the model makes the same number of charges, each linear in the quantity
    and none negative. One that declares none and charges nothing for 0 costs the same for every
    unit (:func:`~metering_core.pricing.is_linear`).
    """

    def breakpoints(self) -> Iterable[Number]:
        """Return the quantities after which the formula changes, in any order: for tiers up to 5
        and 10, 5 and 10.
        """
        ...  # pragma: no cover


ExactDecimal = int | Decimal | Fraction | str
"""How an exact amount or bound is given: a number that is exact, or a decimal string."""


def bound_of(value: ExactDecimal | None, param: str = "up_to") -> Number | None:
    """Return the upper bound of a tier; None for ``"inf"`` and None, which are no bound."""
    text = text_of(value)
    if value is None or text == "inf":
        return None
    if text is not None and text.strip().lower() in _NO_BOUNDS:
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_DECIMAL, param, "'inf' for a tier without end", value
        )
    bound = whole_if_possible(exact_decimal(value, param))
    if not bound:
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_INTEGER, param, "a bound above 0, or 'inf'", value
        )
    return bound


_NO_BOUNDS = frozenset({"inf", "infinity", "+inf", "+infinity", "none", "null", "unlimited", "∞"})


def _unit_amount(value: ExactDecimal) -> Decimal:
    return exact_decimal(value, "unit_amount")


def _optional_unit_amount(value: ExactDecimal | None) -> Decimal | None:
    return None if value is None else _unit_amount(value)


def _optional_flat_amount(value: ExactDecimal | None) -> Decimal | None:
    return None if value is None else exact_decimal(value, "flat_amount")


@attrs.frozen
class Tier(Storable):
    """A range of quantities with its price: from just above the tier before, up to and including
    ``up_to``.

    Attributes:
        up_to: inclusive upper bound, above 0; ``"inf"`` or None in the last tier, where it reads
            back as None.
        unit_amount: minor units a unit, at least 0, at most 12 decimal places; None counts as 0.
        flat_amount: minor units for reaching the tier, at least 0; None makes no flat line, 0 makes
            one of 0.

    Raises:
        InvalidValueError: ``parameter_missing`` where neither amount is given (Stripe's rule and
            words).
    """

    up_to: Number | None = attrs.field(converter=bound_of)
    unit_amount: Decimal | None = attrs.field(default=None, converter=_optional_unit_amount)
    flat_amount: Decimal | None = attrs.field(default=None, converter=_optional_flat_amount)

    def __attrs_post_init__(self) -> None:
        """Refuse a tier without a price."""
        if self.unit_amount is None and self.flat_amount is None:
            raise InvalidValueError(
                ErrorCode.PARAMETER_MISSING,
                "An entry in the tiers array is missing an amount.",
                param="amount",
            )


def _as_tiers(tiers: Iterable[Tier]) -> tuple[Tier, ...]:
    checked = tuple(each_of(Tier, tiers, "tiers"))
    if not checked:
        raise InvalidValueError(
            ErrorCode.PARAMETER_MISSING, "Missing required param: tiers", param="tiers"
        )
    for index in range(len(checked)):
        _check_bound(checked, index)
    return checked


def _check_bound(tiers: Sequence[Tier], index: int) -> None:
    """Hold the bounds to their order: strictly ascending, and open in the last tier only."""
    param = f"tiers[{index}][up_to]"
    bound, is_last = tiers[index].up_to, index == len(tiers) - 1
    if bound is None and not is_last:
        message = (
            f"Missing required param: {param} (a tier without an end belongs last; this is "
            f"tier {index + 1} of {len(tiers)})"
        )
        raise InvalidValueError(ErrorCode.PARAMETER_MISSING, message, param=param)
    if bound is not None and is_last:
        expected = (
            "'inf' in the last tier, because a quantity beyond the last tier cannot be priced"
        )
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_OBJECT, param, expected, bound
        )
    below = tiers[index - 1].up_to if index else None
    if bound is not None and below is not None and bound <= below:
        expected = f"a bound above {plain(below)}, that of the tier before"
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_OBJECT, param, expected, bound
        )


class Round(StrEnum):
    """Which way a part of a package goes."""

    UP = "up"
    DOWN = "down"


class Reach(StrEnum):
    """Which bands charge a quantity: each with the units that lie in it, or the one that holds the
    last unit with all of them.
    """

    EACH = "each"
    LAST = "last"


@attrs.frozen
class Band:
    """A stretch of quantities at one price.

    Attributes:
        above: it begins just above this quantity.
        up_to: its last quantity; None in the last band.
        unit_amount: minor units for a unit, or for a package of them.
        flat_amount: minor units for reaching the band; None makes no charge of its own.
        number: the number of its tier, from 1; None without tiers.
    """

    above: Number
    up_to: Number | None
    unit_amount: Decimal
    flat_amount: Decimal | None = None
    number: int | None = None


@attrs.frozen
class Schedule:
    """What every built-in model is: bands, which of them charge a quantity, and the size of a step.

    Whatever rates, adds up or draws built-in prices reads this, and knows no model by its name.

    Attributes:
        bands: from 0 on, without a gap; the last one is open.
        reaches: which bands charge.
        kind: what the units are charged as.
        divide_by: units in a package, which are charged as a whole; None for units.
        rounds_up: whether a part of a package is one.
    """

    bands: tuple[Band, ...]
    reaches: Reach = Reach.EACH
    kind: ChargeKind = ChargeKind.UNIT
    divide_by: int | None = None
    rounds_up: bool = True

    def charges(self, quantity: Number) -> tuple[Charge, ...]:
        """Charge a quantity that is exact, band by band."""
        charges: list[Charge] = []
        for band in self.bands:  # pragma: no branch - the last one is open
            if band.up_to is None or quantity <= band.up_to:
                is_cut = band.above and self.reaches is Reach.EACH
                self._charge(band, subtract(quantity, band.above) if is_cut else quantity, charges)
                break
            if self.reaches is Reach.EACH:
                self._charge(band, subtract(band.up_to, band.above), charges)
        return tuple(charges)

    def _charge(self, band: Band, units: Number, charges: list[Charge]) -> None:
        """Add what some units come to in a band."""
        amount, flat, size = band.unit_amount, band.flat_amount, self.divide_by
        packages = None if size is None else self._packages(units, size)
        exact = multiply(units if packages is None else packages, amount)
        charges.append(Charge(self.kind, units, amount, exact, band.number, packages, size))
        if flat is not None:
            charges.append(Charge(ChargeKind.FLAT, 0, flat, flat, band.number))

    def _packages(self, units: Number, divide_by: int) -> int:
        exact_packages = Fraction(units) / divide_by
        return ceil(exact_packages) if self.rounds_up else floor(exact_packages)

    @property
    def is_linear(self) -> bool:
        """Whether every unit costs the same, and nothing else is charged."""
        rates = {band.unit_amount for band in self.bands}
        has_steps = self.divide_by not in {None, 1} and rates != {ZERO}
        return len(rates) == 1 and not has_steps and not any(one.flat_amount for one in self.bands)


@attrs.frozen
class BuiltInModel(ABC):
    """A model of :data:`PRICING_MODELS`: a value that people build and read, and a schedule that
    charges.

    Attributes:
        words: what people call the model.
        schedule: what it charges.
    """

    words: ClassVar[str]
    schedule: Schedule = attrs.field(init=False, eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        """Make the schedule of what was given."""
        object.__setattr__(self, "schedule", self._as_schedule())

    @abstractmethod
    def _as_schedule(self) -> Schedule:
        """Return what the model charges."""

    @abstractmethod
    def to_stripe(self) -> dict[str, Any]:
        """Write the model in Stripe's Price fields."""

    @classmethod
    @abstractmethod
    def from_stripe(cls, data: Mapping[str, Any]) -> Self:
        """Read the model from Stripe's Price fields."""

    def charges(self, quantity: Number) -> tuple[Charge, ...]:
        """Return the exact charges for a quantity, in the order in which they stand on the
        invoice.
        """
        return self.schedule.charges(exact_quantity(quantity, "quantity"))


@attrs.frozen
class PerUnit(BuiltInModel):
    """Every unit costs the same: one charge.

    >>> [charge.amount for charge in PerUnit(unit_amount="0.4").charges(3)]
    [Decimal('1.2')]
    """

    words = "per unit"
    unit_amount: Decimal = attrs.field(converter=_unit_amount)

    def _as_schedule(self) -> Schedule:
        return Schedule((Band(0, None, self.unit_amount),))

    def to_stripe(self) -> dict[str, Any]:
        """Write the model in Stripe's Price fields."""
        return {"billing_scheme": "per_unit", **amount_fields("unit_amount", self.unit_amount)}

    @classmethod
    def from_stripe(cls, data: Mapping[str, Any]) -> Self:
        """Read the model from Stripe's Price fields."""
        return cls(required_amount(data, "unit_amount"))


@attrs.frozen
class _Tiered(BuiltInModel):
    """What the models of tiers share: a band for each, named by Stripe as they are by us."""

    reaches: ClassVar[Reach]
    tiers: tuple[Tier, ...] = attrs.field(converter=_as_tiers)

    def _as_schedule(self) -> Schedule:
        aboves = [0, *(tier.up_to or 0 for tier in self.tiers)]
        bands = [
            Band(above, tier.up_to, tier.unit_amount or ZERO, tier.flat_amount, number)
            for number, (above, tier) in enumerate(zip(aboves, self.tiers, strict=False), start=1)
        ]
        return Schedule(tuple(bands), self.reaches)

    def to_stripe(self) -> dict[str, Any]:
        """Write the model in Stripe's Price fields."""
        tiers = [_tier_fields(tier) for tier in self.tiers]
        return {"billing_scheme": "tiered", "tiers_mode": self.words, "tiers": tiers}

    @classmethod
    def from_stripe(cls, data: Mapping[str, Any]) -> Self:
        """Read the model from Stripe's Price fields."""
        return cls(_tiers_from(data))


@attrs.frozen
class Graduated(_Tiered):
    """Each unit costs what its own tier says; the flat amount of every tier reached is due.

    The first tier is reached by zero usage already, so its flat amount is always due (Stripe,
    tiered pricing).

    >>> model = Graduated([Tier(5, unit_amount=700), Tier("inf", unit_amount=650)])
    >>> [(charge.quantity, charge.amount) for charge in model.charges(6)]
    [(5, Decimal('3500')), (1, Decimal('650'))]
    """

    words, reaches = "graduated", Reach.EACH


@attrs.frozen
class Volume(_Tiered):
    """All units cost what the tier of the final quantity says, plus that tier's flat amount.

    >>> model = Volume([Tier(5, unit_amount=700), Tier("inf", unit_amount=650)])
    >>> [(charge.quantity, charge.amount) for charge in model.charges(6)]
    [(6, Decimal('3900'))]
    """

    words, reaches = "volume", Reach.LAST


def _divide_by(value: int) -> int:
    return exact_integer(value, "transform_quantity[divide_by]", minimum=1)


def _round(value: str) -> Round:
    return choice(Round, value, "transform_quantity[round]")


@attrs.frozen
class Package(BuiltInModel):
    """Units are sold in packages of ``divide_by``; the aggregated quantity is rounded up (or down)
    to whole packages.

    The charge keeps the raw quantity, as Stripe's invoice lines do, and says the packages beside
    it.

    >>> charge, = Package(unit_amount=1000, divide_by=5).charges(6)
    >>> charge.quantity, charge.packages, charge.amount
    (6, 2, Decimal('2000'))
    """

    words = "package"
    unit_amount: Decimal = attrs.field(converter=_unit_amount)
    divide_by: int = attrs.field(converter=_divide_by)
    round: Round = attrs.field(default=Round.UP, converter=_round)

    def _as_schedule(self) -> Schedule:
        return Schedule(
            (Band(0, None, self.unit_amount),),
            kind=ChargeKind.PACKAGE,
            divide_by=self.divide_by,
            rounds_up=self.round is Round.UP,
        )

    def to_stripe(self) -> dict[str, Any]:
        """Write the model in Stripe's Price fields."""
        transform = {"divide_by": self.divide_by, "round": self.round.value}
        return {**PerUnit(self.unit_amount).to_stripe(), "transform_quantity": transform}

    @classmethod
    def from_stripe(cls, data: Mapping[str, Any]) -> Self:
        """Read the model from Stripe's Price fields."""
        transform = required(require_object(data, "data"), "transform_quantity")
        judged(transform, "transform_quantity", "transform_quantity")
        divide_by, round_ = (
            required(transform, key, "transform_quantity") for key in ("divide_by", "round")
        )
        return cls(required_amount(data, "unit_amount"), divide_by, round_)


def _percent(value: ExactDecimal) -> Decimal:
    return exact_decimal(value, "percent")


@attrs.frozen
class Percentage(BuiltInModel):
    """A part of the quantity is due, which is an amount in minor units itself: a volume of
    payments, a spend.

    Stripe has no such price. In JSON it is ours, by the key ``percent``.

    >>> charge, = Percentage("2.9").charges(340_000)
    >>> charge.quantity, charge.amount
    (340000, Decimal('9860'))
    """

    words = "percentage"
    percent: Decimal = attrs.field(converter=_percent)

    def _as_schedule(self) -> Schedule:
        part = canonical(EXACT.multiply(self.percent, HUNDREDTH))
        return Schedule((Band(0, None, part),), kind=ChargeKind.PERCENT)

    def to_stripe(self) -> dict[str, Any]:
        """Write the model beside Stripe's Price fields."""
        return {"billing_scheme": "per_unit", "percent": plain(self.percent)}

    @classmethod
    def from_stripe(cls, data: Mapping[str, Any]) -> Self:
        """Read the model from beside Stripe's Price fields."""
        return cls(required(require_object(data, "data"), "percent"))


PRICING_MODELS: dict[tuple[str, str | None], type[BuiltInModel]] = {
    ("per_unit", None): PerUnit,
    ("per_unit", "transform_quantity"): Package,
    ("per_unit", "percent"): Percentage,
    ("tiered", "graduated"): Graduated,
    ("tiered", "volume"): Volume,
}
"""The models that Stripe's Price fields can name, and ``percent`` beside them: by
``billing_scheme`` and what refines it, which is the ``tiers_mode`` of tiers and otherwise the field
that is there. Whatever reads, writes or
names models asks this table; anything else with ``charges(quantity)`` is the user's own.
"""


def is_built_in(model: object) -> TypeGuard[BuiltInModel]:
    """Whether a model is of the table, so that its schedule says all.

    A class that was made from a built-in one is the user's own: it may charge otherwise.
    """
    return type(model) in _BUILT_IN


_BUILT_IN: Final = frozenset(PRICING_MODELS.values())


# What a model is asked, by whoever asks it --------------------------------------------------------


_BESIDE_AMOUNTS = {"tier": int, "packages": int, "divide_by": int, "label": str}
"""What a charge says beside its amounts: it stands on the line, and is read as it was written."""


def charges_for(model: PricingModel, quantity: Number) -> tuple[Charge, ...]:
    """Return what a model charges for an exact quantity, and hold one of the user's own to its
    word.

    Raises:
        InvoicingError: ``pricing_model_broken`` where it returns something that is no exact charge.
    """
    # What the models here make of numbers that were bounded when they entered is exact, and short
    # enough.
    if type(model) in _BUILT_IN:  # As is_built_in says, without a call: every charge comes here.
        return model.schedule.charges(quantity)  # type: ignore[attr-defined, no-any-return]
    charges = _called(model, "charges")(quantity)
    if not isinstance(charges, Sequence):
        raise _broken(model, "charges", "a sequence of Charge", charges)
    for index, charge in enumerate(charges):
        param = f"charges[{index}]"
        if not isinstance(charge, Charge):
            raise _broken(model, param, "a Charge", charge)
        for field in ("quantity", "unit_amount", "amount"):
            number = getattr(charge, field)
            if not (_is_exact(number) or (field == "unit_amount" and number is None)):
                expected = (
                    f"an int, a finite Decimal or a Fraction, of at most {_CHARGE_DIGITS_MAX} "
                    "digits"
                )
                raise _broken(model, f"{param}[{field}]", expected, number)
        for field, kind in _BESIDE_AMOUNTS.items():
            said = getattr(charge, field)
            if said is not None and type(said) is not kind:
                expected = f"None, or of type {kind.__name__}"
                raise _broken(model, f"{param}[{field}]", expected, said)
    return tuple(charges)


def breakpoints_of(model: DeclaresBreakpoints) -> Iterator[Number]:
    """Yield the breakpoints that a model declares, and hold it to its word.

    Raises:
        InvoicingError: ``pricing_model_broken`` where it returns something that is no exact
            quantity.
    """
    declared = _called(model, "breakpoints")()
    try:
        points = iter(declared)
    except TypeError:
        raise _broken(model, "breakpoints", "an iterable of quantities", declared) from None
    for index, point in enumerate(points):
        try:
            exact = exact_quantity(point, "breakpoints")
        except InvalidValueError:
            raise _broken(
                model, f"breakpoints[{index}]", "an exact quantity of at least 0", point
            ) from None
        yield exact


def _called(model: object, name: str) -> Callable[..., Any]:
    method = getattr(model, name)
    if not callable(method):
        raise _broken(model, name, "a method", method)
    return method  # type: ignore[no-any-return]  # it is callable


def _is_exact(number: object) -> bool:
    """Whether a number is exact, and short enough that the sums and products of what is computed
    from it can be written.
    """
    if not isinstance(number, int | Decimal | Fraction) or isinstance(number, bool):
        return False
    if isinstance(number, Decimal):
        # It has no more digits than characters; to take it apart would cost more than to write it.
        first = number.adjusted() if number.is_finite() else _CHARGE_DIGITS_MAX
        return first < _CHARGE_DIGITS_MAX and first - len(str(number)) >= -_CHARGE_DIGITS_MAX
    is_short: bool = (
        -_CHARGE_BOUND < number.numerator < _CHARGE_BOUND and number.denominator < _CHARGE_BOUND
    )
    return is_short


def _broken(model: object, param: str, expected: str, received: object) -> InvoicingError:
    message = (
        f"{param}: expected of {type(model).__name__} {expected}, received {describe(received)}"
    )
    return InvoicingError(ErrorCode.PRICING_MODEL_BROKEN, message, param=param)


def owes_at_zero(model: PricingModel) -> bool:
    """Whether a model charges something for a quantity of 0."""
    return any(charge.amount for charge in charges_for(model, 0))


def is_linear(model: PricingModel) -> bool:
    """Whether every unit costs the same, so that the bills of two quantities are together the bill
    of their sum.

    Each is rounded by itself, which may make a minor unit of difference. Of a model of the user's
    own it is known where it declares that its formula changes nowhere
    (:class:`DeclaresBreakpoints`).

    >>> is_linear(PerUnit(2)), is_linear(Graduated([Tier(100, 0), Tier("inf", 2)]))
    (True, False)
    """
    if is_built_in(model):
        return model.schedule.is_linear
    return (
        isinstance(model, DeclaresBreakpoints)
        and not any(True for _ in breakpoints_of(model))
        and not owes_at_zero(model)
    )


# Stripe's spelling of amounts and tiers -----------------------------------------------------------


def optional_amount(data: Mapping[str, Any], name: str, prefix: str = "") -> Decimal | None:
    """Read Stripe's pair ``name`` / ``name_decimal`` as one exact amount; None where both are
    absent or null.

    A Price that Stripe returns fills both fields with the same value; two different values are
    refused in Stripe's words.
    """
    require_object(data, prefix or "data")
    param = f"{prefix}[{name}]" if prefix else name
    given = [(key, data[key]) for key in (name, f"{name}_decimal") if data.get(key) is not None]
    amounts = {
        exact_decimal(value, param if key == name else _decimal_param(param))
        for key, value in given
    }
    if len(amounts) > 1:
        raise InvalidValueError(
            ErrorCode.PARAMETERS_EXCLUSIVE,
            f"You may only specify one of these parameters: {name}, {name}_decimal.",
            param=param,
            details=dict(given),
        )
    return amounts.pop() if amounts else None


def _decimal_param(param: str) -> str:
    return f"{param[:-1]}_decimal]" if param.endswith("]") else f"{param}_decimal"


def required_amount(data: Mapping[str, Any], name: str) -> Decimal:
    """Read Stripe's pair as one exact amount, and refuse its absence."""
    amount = optional_amount(data, name)
    if amount is None:
        raise InvalidValueError(
            ErrorCode.PARAMETER_MISSING, f"Missing required param: {name}", param=name
        )
    return amount


def amount_fields(name: str, amount: Decimal | None) -> dict[str, Any]:
    """Write an amount as Stripe does: both fields where it is whole, the decimal alone where it is
    not.

    >>> amount_fields("unit_amount", Decimal("0.4"))
    {'unit_amount': None, 'unit_amount_decimal': '0.4'}
    """
    if amount is None:
        return {name: None, f"{name}_decimal": None}
    whole = whole_if_possible(amount)
    return {name: whole if isinstance(whole, int) else None, f"{name}_decimal": plain(amount)}


def _tier_fields(tier: Tier) -> dict[str, Any]:
    bound = plain(tier.up_to) if isinstance(tier.up_to, Decimal) else tier.up_to
    return {
        "up_to": bound,
        **amount_fields("unit_amount", tier.unit_amount),
        **amount_fields("flat_amount", tier.flat_amount),
    }


def _tiers_from(data: Mapping[str, Any]) -> list[Tier]:
    tiers = require_object(data, "data").get("tiers")
    if tiers is None:
        message = (
            "Missing required param: tiers (Stripe leaves them out of a Price unless they are "
            "expanded)"
        )
        raise InvalidValueError(ErrorCode.PARAMETER_MISSING, message, param="tiers")
    if not isinstance(tiers, list | tuple):
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_OBJECT, "tiers", "a list of tiers", tiers
        )
    return [_tier_from(index, tier) for index, tier in enumerate(tiers)]


def _tier_from(index: int, data: Mapping[str, Any]) -> Tier:
    place = f"tiers[{index}]"
    judged(data, "tier", place)
    if "up_to" not in data:
        param = f"{place}[up_to]"
        raise InvalidValueError(
            ErrorCode.PARAMETER_MISSING, f"Missing required param: {param}", param=param
        )
    up_to = bound_of(data["up_to"], f"{place}[up_to]")
    return Tier(
        up_to,
        optional_amount(data, "unit_amount", place),
        optional_amount(data, "flat_amount", place),
    )

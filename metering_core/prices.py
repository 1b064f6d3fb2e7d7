"""What a customer pays: a pricing model, its currency and how it recurs. Data that cannot be wrong
once built.

A :class:`Price` reads and writes Stripe's own Price shape, and reads the older Plan shape. What
Stripe refuses is refused, in its words where they are known.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from enum import StrEnum
from itertools import chain, count
from typing import Any, ClassVar, Final, Self

import attrs

from metering_core.codec import Storable, read_fields, read_text, within, write_fields
from metering_core.currencies import currency
from metering_core.errors import ErrorCode, InvalidValueError
from metering_core.exact import exact_integer
from metering_core.names import (
    choice,
    name,
    optional_name,
    require_kind,
    require_object,
    required,
    text_of,
)
from metering_core.periods import BillingCycle, Interval
from metering_core.pricing import (
    PRICING_MODELS,
    ExactDecimal,
    Graduated,
    Package,
    Percentage,
    PerUnit,
    PricingModel,
    Tier,
    Volume,
    is_built_in,
)
from metering_core.stripe_fields import KINDS, PRICE, RECURRING, judged, kind_of


class UsageType(StrEnum):
    """How the quantity of an item comes about: it was agreed (licensed) or it was used
    (metered).
    """

    LICENSED = "licensed"
    METERED = "metered"


class AggregateUsage(StrEnum):
    """How the usage of a billing period becomes one quantity (Stripe's four ``aggregate_usage``,
    and five that people miss).

    Each is over cells: all usage of the item at one second is one number. So ``count`` is how many
    seconds have usage.
    """

    SUM = "sum"
    MAX = "max"
    LAST_DURING_PERIOD = "last_during_period"
    LAST_EVER = "last_ever"
    MIN = "min"
    COUNT = "count"
    AVERAGE = "average"
    HOURLY_PEAKS = "hourly_peaks"
    DAILY_PEAKS = "daily_peaks"


def _interval(value: str) -> Interval:
    return choice(Interval, value, "recurring[interval]")


def _interval_count(value: int) -> int:
    return exact_integer(value, "interval_count", minimum=1)


def _usage_type(value: str) -> UsageType:
    return choice(UsageType, value, "recurring[usage_type]")


def _aggregate_usage(value: str | None) -> AggregateUsage | None:
    return None if value is None else choice(AggregateUsage, value, "recurring[aggregate_usage]")


def _meter(value: str | None) -> str | None:
    return optional_name(value, "recurring[meter]")


def _excluded_by(reason: str, param: str, received: str) -> InvalidValueError:
    message = f"{param}: expected none with {reason}, received {received!r}"
    return InvalidValueError(ErrorCode.PARAMETERS_EXCLUSIVE, message, param=param)


@attrs.frozen(kw_only=True)
class Recurring:
    """How a price recurs: its interval, and for metered prices how usage is aggregated.

    Attributes:
        interval: ``day``, ``week``, ``month`` or ``year``.
        interval_count: intervals in one billing period; at most 3 years, 36 months, 156 weeks or
            1095 days.
        usage_type: ``metered`` (the default here) or ``licensed``.
        aggregate_usage: for metered prices, ``sum`` unless said otherwise; None for licensed ones
            and with a meter.
        meter: the id of the meter whose events make the quantity; such a price takes no usage
            records.

    Raises:
        InvalidValueError: ``parameter_invalid_choice``, ``parameter_invalid_integer``,
            ``interval_out_of_range`` or, for a licensed price with ``aggregate_usage``,
            ``parameters_exclusive``.
    """

    interval: Interval = attrs.field(default=Interval.MONTH, converter=_interval)
    interval_count: int = attrs.field(default=1, converter=_interval_count)
    usage_type: UsageType = attrs.field(default=UsageType.METERED, converter=_usage_type)
    aggregate_usage: AggregateUsage | None = attrs.field(default=None, converter=_aggregate_usage)
    meter: str | None = attrs.field(default=None, converter=_meter)

    def __attrs_post_init__(self) -> None:
        """Check what one field says against another; the cycle knows the limits of an interval."""
        BillingCycle(0, self.interval, self.interval_count)
        if self.is_metered and self.meter is None and self.aggregate_usage is None:
            object.__setattr__(self, "aggregate_usage", AggregateUsage.SUM)
        if not self.is_metered and self.meter is not None:
            raise _excluded_by("usage_type 'licensed'", "recurring[meter]", self.meter)
        if self.aggregate_usage is not None and (self.meter is not None or not self.is_metered):
            reason = "a meter" if self.is_metered else "usage_type 'licensed'"
            raise _excluded_by(reason, "recurring[aggregate_usage]", self.aggregate_usage.value)

    @property
    def is_metered(self) -> bool:
        """Whether usage makes the quantity."""
        return self.usage_type is UsageType.METERED

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read Stripe's ``recurring`` object; ``usage_type`` is ``licensed`` unless it says
        otherwise, as at Stripe.
        """
        return cls(**_recurring_fields(judged(data, "recurring", "recurring").data))

    def to_dict(self) -> dict[str, Any]:
        """Write Stripe's ``recurring`` object."""
        return {
            "aggregate_usage": None if self.aggregate_usage is None else self.aggregate_usage.value,
            "interval": self.interval.value,
            "interval_count": self.interval_count,
            "meter": self.meter,
            "usage_type": self.usage_type.value,
        }


def _recurring_fields(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an object that was judged says of a recurrence."""
    return {
        "interval": required(data, "interval", "recurring"),
        "interval_count": _given(data, "interval_count", 1),
        "usage_type": _given(data, "usage_type", UsageType.LICENSED),
        "aggregate_usage": data.get("aggregate_usage"),
        "meter": data.get("meter"),
    }


def _given(data: Mapping[str, Any], key: str, default: object) -> Any:
    return default if data.get(key) is None else data[key]


def _id(value: str) -> str:
    return name(value, "id")


def _currency(value: str) -> str:
    return currency(value).code


def _nickname(value: str | None) -> str | None:
    return optional_name(value, "nickname")


def _said(data: Mapping[str, Any], *keys: str) -> Any:
    """Return what the first key says that is there and not empty."""
    return next(
        (data[key] for key in keys if data.get(key) is not None and text_of(data[key]) != ""), None
    )


def _product(value: str | None) -> str | None:
    return optional_name(value, "product")


def _unit_label(value: str | None) -> str | None:
    return optional_name(value, "unit_label")


@attrs.frozen
class Price:
    """What one unit of something costs, in which currency, how often.

    Attributes:
        id: 1 to 255 characters.
        currency: three letters, kept in lower case as Stripe spells them.
        model: a pricing model: a built-in one, or anything with the verb of
            :class:`~metering_core.PricingModel`.
        recurring: None for a one-time price, which can be rated but not put on a subscription.
        nickname: a name for people; lines show it before ``product`` and ``id``.
        product: the product's name or id.
        unit_label: what one unit is called on a line ("token").
        ignored: the paths of fields of a Stripe object that :meth:`from_dict` did not know and read
            past.

    >>> tiers = [Tier(5, unit_amount=700), Tier("inf", unit_amount=650)]
    >>> price = Price.graduated("seats", currency="usd", tiers=tiers)
    >>> Price.from_dict(price.to_dict()) == price
    True
    """

    id: str = attrs.field(converter=_id)
    currency: str = attrs.field(converter=_currency)
    model: PricingModel
    recurring: Recurring | None = attrs.field(factory=Recurring)
    nickname: str | None = attrs.field(default=None, converter=_nickname, kw_only=True)
    product: str | None = attrs.field(default=None, converter=_product, kw_only=True)
    unit_label: str | None = attrs.field(default=None, converter=_unit_label, kw_only=True)
    ignored: tuple[str, ...] = attrs.field(default=(), eq=False, repr=False, kw_only=True)

    def __attrs_post_init__(self) -> None:
        """Refuse a model that cannot charge, and a recurrence that is none."""
        names = ", ".join(model.__name__ for model in PRICING_MODELS.values())
        expected = f"a pricing model ({names}, or an object with charges(quantity))"
        require_kind(PricingModel, self.model, "model", expected)
        if self.recurring is not None:
            require_kind(Recurring, self.recurring, "recurring", "a Recurring or None")

    @property
    def title(self) -> str:
        """What a line calls the price, which is its nickname, its product or its id."""
        return self.nickname or self.product or self.id

    @property
    def is_metered(self) -> bool:
        """Whether usage makes the quantity."""
        return self.recurring is not None and self.recurring.is_metered

    @classmethod
    def per_unit(cls, id: str, *, currency: str, unit_amount: ExactDecimal, **options: Any) -> Self:
        """Build a price where every unit costs ``unit_amount`` minor units; ``options`` are the
        other attributes.
        """
        return cls(id, currency, PerUnit(unit_amount), **options)

    @classmethod
    def graduated(cls, id: str, *, currency: str, tiers: Iterable[Tier], **options: Any) -> Self:
        """Build a price where each unit costs what its own tier says."""
        return cls(id, currency, Graduated(tiers), **options)

    @classmethod
    def volume(cls, id: str, *, currency: str, tiers: Iterable[Tier], **options: Any) -> Self:
        """Build a price where all units cost what the tier of the last one says."""
        return cls(id, currency, Volume(tiers), **options)

    @classmethod
    def package(
        cls,
        id: str,
        *,
        currency: str,
        unit_amount: ExactDecimal,
        divide_by: int,
        round: str = "up",
        **options: Any,
    ) -> Self:
        """Build a price where ``divide_by`` units make a package that costs ``unit_amount`` minor
        units.
        """
        return cls(id, currency, Package(unit_amount, divide_by, round), **options)

    @classmethod
    def percentage(cls, id: str, *, currency: str, percent: ExactDecimal, **options: Any) -> Self:
        """Build a price where ``percent`` of the quantity is due, an amount in minor units."""
        return cls(id, currency, Percentage(percent), **options)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, currency: str | None = None) -> Self:
        """Read Stripe's Price shape, or the older Plan shape.

        Fields of Stripe's that cannot change a bill (``metadata``, ``livemode``, ``tax_behavior``
        …) are read past, and so is what a newer version of its API adds, which ``ignored`` names.
        Without ``"object"`` an unknown key is refused.

        Args:
            data: the object. Of two spellings of an amount one suffices; both must agree.
            currency: which of the price's ``currency_options`` to take; None for the price's own
                currency.

        Raises:
            InvalidValueError: with Stripe's own text and param where they are known.
        """
        own, ignored = _price_shape(data)
        shape = _in_currency(own, currency)
        product = shape.get("product")
        expanded: Mapping[str, Any] = product if isinstance(product, Mapping) else {}
        return cls(
            required(shape, "id"),
            required(shape, "currency"),
            _model_from(shape),
            None
            if shape.get("recurring") is None
            else Recurring(**_recurring_fields(shape["recurring"])),
            nickname=shape.get("nickname"),
            product=_said(expanded, "name", "id") if expanded else product,
            unit_label=expanded.get("unit_label"),
            ignored=ignored,
        )

    def to_dict(self) -> dict[str, Any]:
        """Write Stripe's Price shape, ready for JSON.

        Raises:
            InvalidValueError: ``parameter_invalid_object`` for a pricing model of the user's own,
                which that shape cannot say.
        """
        if not is_built_in(self.model):
            expected = "a model that Stripe's Price shape can express"
            raise InvalidValueError.expecting(
                ErrorCode.PARAMETER_INVALID_OBJECT, "model", expected, self.model
            )
        labelled = {"name": self.product, "unit_label": self.unit_label}
        return {
            "id": self.id,
            "object": "price",
            "currency": self.currency,
            "nickname": self.nickname,
            "product": self.product if self.unit_label is None else labelled,
            "type": "one_time" if self.recurring is None else "recurring",
            "recurring": None if self.recurring is None else self.recurring.to_dict(),
            **self.model.to_stripe(),
        }


# Prices in documents ------------------------------------------------------------------------------


class PriceTable:
    """The prices of a document, each written once, under its id; whatever has one refers to it.

    Another price with the id of one that is there already (an older version, which billed before)
    gets a number behind it. A price with a pricing model of the user's own cannot be written: in
    its place stands its id, and whoever reads is to give it.

    Args:
        is_of_log: whether the document is a log's own.
    """

    kind: Final = Price

    def __init__(self, *, is_of_log: bool = False) -> None:
        self.is_of_log: Final = is_of_log
        self.written: dict[str, Any] = {}
        self.known: dict[str, Price] = {}
        # By identity, since a model of the user's own may have no hash; kept, so that it stays one.
        self._references: dict[int, tuple[Price, str]] = {}

    @classmethod
    def read(cls, data: object, given: Mapping[str, Price] | None = None) -> Self:
        """Return the table that was written, with the prices that are given by their ids."""
        table, known = cls(), {} if given is None else require_object(given, "prices")
        for key, written in require_object(data, "prices").items():
            with within("prices"):
                reference = read_text(key, "name")
                price = _price_of(reference, written, known)
            table.known[reference] = price
        return table

    def refer(self, price: Price) -> str:
        """Write a price where it is not yet there, and return what refers to it."""
        if id(price) not in self._references:
            written = price.to_dict() if is_built_in(price.model) else price.id
            self._references[id(price)] = price, self.refer_written(price.id, written)
        return self._references[id(price)][1]

    def refer_written(self, price_id: str, written: str | Mapping[str, Any]) -> str:
        """Take a price as it was written, and return what refers to it."""
        names = chain([price_id], (f"{price_id} ({number})" for number in count(2)))
        reference = next(one for one in names if self.written.get(one, written) == written)
        self.written[reference] = written
        return reference

    def resolve(self, reference: object, param: str) -> Price:
        """Return the price that is referred to."""
        text = text_of(reference)
        if text is None or text not in self.known:
            known = ", ".join(map(repr, self.known)) or "none"
            expected = f"the name of one of the document's prices ({known})"
            raise InvalidValueError.expecting(
                ErrorCode.PARAMETER_INVALID_CHOICE, param, expected, reference
            )
        return self.known[text]


def _price_of(reference: str, written: Any, given: Mapping[str, Price]) -> Price:
    price_id = text_of(written)
    if price_id is None:
        shape = require_object(written, reference)
        with within(reference):
            return Price.from_dict(shape)
    if price_id not in given:
        expected = f"a price whose pricing model is known, or one that is given, of {sorted(given)}"
        code = ErrorCode.PARAMETER_INVALID_CHOICE
        raise InvalidValueError.expecting(code, reference, expected, price_id)
    return require_kind(Price, given[price_id], reference)


class Priced(Storable):
    """A value with prices in it, which are written once each, beside its fields."""

    __slots__ = ()
    is_of_log: ClassVar = False

    def to_dict(self) -> dict[str, Any]:
        """Write the value as plain data that ``json.dumps`` takes, with its prices by name under
        ``prices``; ``from_dict`` reads it.
        """
        table = PriceTable(is_of_log=self.is_of_log)
        return {**write_fields(self, table), "prices": table.written}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], prices: Mapping[str, Price] | None = None) -> Self:
        """Read what ``to_dict`` wrote.

        Args:
            data: the object.
            prices: by id, those prices whose pricing model is the user's own.

        Raises:
            InvalidValueError: ``param`` names the key, from the outside in.
        """
        written = required(require_object(data, "data"), "prices")
        table = PriceTable.read(written, prices)
        value: Self = read_fields(cls, data, table, "prices")
        return value


# Stripe's shapes ----------------------------------------------------------------------------------


def _price_shape(data: Mapping[str, Any]) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """Return the Price fields of a Price or a Plan, and the paths of fields that were read past."""
    read = judged(
        data, "plan" if isinstance(data, Mapping) and kind_of(data) == "plan" else "price"
    )
    if kind_of(data) == "plan":
        shared = {key: data[key] for key in PRICE.keys() & data.keys()}
        recurring = {key: data[key] for key in RECURRING.keys() & data.keys()}
        amounts = {
            "unit_amount": data.get("amount"),
            "unit_amount_decimal": data.get("amount_decimal"),
            "transform_quantity": data.get("transform_usage"),
        }
        return {**shared, **amounts, "recurring": recurring}, read.ignored
    if data.get("recurring") is not None:
        judged(data["recurring"], "recurring", "recurring", is_stripes=read.is_stripes)
    return data, read.ignored


def _in_currency(shape: Mapping[str, Any], wanted: str | None) -> Mapping[str, Any]:
    """Put the amounts of one currency option in place of the price's own."""
    given = shape.get("currency_options")
    _refuse_spellings(given)
    if wanted is None or currency(wanted).code == currency(required(shape, "currency")).code:
        return shape
    listed = {} if given is None else require_object(given, "currency_options")
    options = {
        currency(written, "currency_options").code: option for written, option in listed.items()
    }
    code = currency(wanted).code
    if code not in options:
        expected = (
            "one of the price's currencies: "
            f"{', '.join(sorted({shape['currency'].lower(), *options}))}"
        )
        raise InvalidValueError.expecting(ErrorCode.CURRENCY_MISMATCH, "currency", expected, wanted)
    option = judged(options[code], "currency_option", f"currency_options[{code}]").data
    amounts = KINDS["currency_option"].keys()
    return {key: value for key, value in shape.items() if key not in amounts} | {
        "currency": code,
        **option,
    }


def _refuse_spellings(options: object) -> None:
    """Refuse currency options that spell one currency in two ways, whichever of the price's
    currencies is read.
    """
    spelled: dict[str, str] = {}
    for written in filter(None, map(text_of, options)) if isinstance(options, Mapping) else ():
        former = spelled.setdefault(written.lower(), written)
        if former != written:
            expected, param = (
                f"each currency once ({former!r} is the same)",
                f"currency_options[{written}]",
            )
            raise InvalidValueError.expecting(
                ErrorCode.PARAMETERS_EXCLUSIVE, param, expected, written
            )


def terms_of(price: Price) -> tuple[Any, ...]:
    """Return what of a price makes a bill: its currency, its model and how it recurs; names and
    labels do not.
    """
    return price.currency, price.model, price.recurring


_OF_MODELS: Final = (
    "percent",
    "tiers",
    "tiers_mode",
    "transform_quantity",
    "unit_amount",
    "unit_amount_decimal",
)
"""The fields of which a model is read."""


def _model_from(shape: Mapping[str, Any]) -> PricingModel:
    """Choose the pricing model by the fields that name it, and refuse fields that exclude each
    other.
    """
    scheme = _one_of(
        dict.fromkeys(scheme for scheme, _ in PRICING_MODELS),
        shape.get("billing_scheme"),
        "billing_scheme",
    )
    given = {key for key in _OF_MODELS if shape.get(key) is not None}
    if "percent" in given and len(given) > 1:
        raise InvalidValueError.exclusive("percent", *sorted(given - {"percent"}))
    if {"tiers", "transform_quantity"} <= given:
        raise InvalidValueError.exclusive("tiers", "transform_quantity")
    refinements = [
        refined for known, refined in PRICING_MODELS if known == scheme and refined is not None
    ]
    if scheme != "tiered":
        if "tiers" in given or "tiers_mode" in given:
            raise InvalidValueError.exclusive("tiers", f"billing_scheme={scheme}")
        return PRICING_MODELS[
            scheme, next((one for one in refinements if one in given), None)
        ].from_stripe(shape)
    if "percent" in given:
        raise InvalidValueError.exclusive("percent", f"billing_scheme={scheme}")
    mode = _one_of(refinements, required(shape, "tiers_mode"), "tiers_mode")
    for amount in ("unit_amount", "unit_amount_decimal"):
        if amount in given:
            raise InvalidValueError.exclusive("tiers", amount)
    return PRICING_MODELS[scheme, mode].from_stripe(shape)


def _one_of(names: Collection[str], value: object, param: str) -> str:
    """Return a name of the table, the first where none is given."""
    if value is None:
        return next(iter(names))
    named = text_of(value)
    if named is None or named not in names:
        expected = f"one of {', '.join(map(repr, names))}"
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_CHOICE, param, expected, value
        )
    return named

"""Currencies as data: ISO 4217's decimals, and the few places where Stripe's API counts otherwise.

ISO's table is "List One" as published on 2026-01-01: every active code that has a minor unit.
Stripe's deviations are those of its page "Supported currencies".
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import attrs

from metering_core.errors import ErrorCode, InvalidValueError

__all__ = ["CURRENCIES", "Currency"]


@attrs.frozen
class Currency:
    """A currency, and what its minor unit is.

    Attributes:
        code: ISO 4217's three letters, in lower case as Stripe spells them.
        fraction_digits: decimals of the minor unit in which Stripe's API takes amounts: 2 means
            hundredths.
        multiple: a payable amount of minor units is divisible by this.
        display_digits: decimals that ISO 4217 gives the currency.
    """

    code: str
    fraction_digits: int
    multiple: int = attrs.field(default=1, kw_only=True)
    display_digits: int = attrs.field(kw_only=True)


@attrs.frozen
class StripeDeviation:
    """Where Stripe's API counts a currency otherwise than ISO 4217, and why."""

    fraction_digits: int
    multiple: int
    reason: str


_LAST_DIGIT_ZERO: Final = "Stripe takes thousandths, but the last digit must be 0"

STRIPE_DEVIATIONS: Final[Mapping[str, StripeDeviation]] = MappingProxyType(
    {
        "isk": StripeDeviation(2, 100, "ISO has no decimals; Stripe kept two, which must be 00"),
        "ugx": StripeDeviation(2, 100, "ISO has no decimals; Stripe kept two, which must be 00"),
        "mga": StripeDeviation(
            0, 1, "ISO has two decimals (the ariary has fifths); Stripe takes whole ariary"
        ),
        "bhd": StripeDeviation(3, 10, _LAST_DIGIT_ZERO),
        "jod": StripeDeviation(3, 10, _LAST_DIGIT_ZERO),
        "kwd": StripeDeviation(3, 10, _LAST_DIGIT_ZERO),
        "omr": StripeDeviation(3, 10, _LAST_DIGIT_ZERO),
        "tnd": StripeDeviation(3, 10, _LAST_DIGIT_ZERO),
    }
)
"""Every difference between :data:`CURRENCIES` and ISO 4217, by code."""

_ISO_CODES_BY_DIGITS: Final = {
    0: "bif clp djf gnf isk jpy kmf krw pyg rwf ugx uyi vnd vuv xaf xof xpf",
    2: (
        "aed afn all amd aoa ars aud awg azn bam bbd bdt bmd bnd bob bov brl bsd btn bwp "
        "byn bzd cad cdf che chf "
        "chw cny cop cou crc cup cve czk dkk dop dzd egp ern etb eur fjd fkp gbp gel ghs "
        "gip gmd gtq gyd hkd hnl "
        "htg huf idr ils inr irr jmd kes kgs khr kpw kyd kzt lak lbp lkr lrd lsl mad mdl "
        "mga mkd mmk mnt mop mru "
        "mur mvr mwk mxn mxv myr mzn nad ngn nio nok npr nzd pab pen pgk php pkr pln qar "
        "ron rsd rub sar sbd scr "
        "sdg sek sgd shp sle sos srd ssp stn svc syp szl thb tjs tmt top try ttd twd tzs "
        "uah usd usn uyu uzs ved "
        "ves wst xad xcd xcg yer zar zmw zwg"
    ),
    3: "bhd iqd jod kwd lyd omr tnd",
    4: "clf uyw",
}


def _table() -> dict[str, Currency]:
    table = {}
    for digits, codes in _ISO_CODES_BY_DIGITS.items():
        for code in codes.split():
            found = STRIPE_DEVIATIONS.get(code) or StripeDeviation(digits, 1, "as ISO")
            table[code] = Currency(
                code, found.fraction_digits, multiple=found.multiple, display_digits=digits
            )
    return table


CURRENCIES: Final[Mapping[str, Currency]] = MappingProxyType(_table())
"""Every active currency of ISO 4217 that has a minor unit, by its lower-case code."""


def currency(code: object, param: str = "currency") -> Currency:
    """Return the currency of a code in any letter case.

    >>> currency("JPY")
    Currency(code='jpy', fraction_digits=0, multiple=1, display_digits=0)

    Raises:
        InvalidValueError: ``currency_unknown``.
    """
    if isinstance(code, str):
        # Only ASCII is lowered: the Kelvin sign would become a k.
        found = CURRENCIES.get(code) or (CURRENCIES.get(code.lower()) if code.isascii() else None)
        if found is not None:
            return found
    expected = "a currency code of ISO 4217 with a minor unit, such as 'usd'"
    raise InvalidValueError.expecting(ErrorCode.CURRENCY_UNKNOWN, param, expected, code)

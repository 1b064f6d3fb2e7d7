"""The commands that look at prices (``rate``, ``audit``, ``compare``, ``curve``): they read files,
ask the price tools and print.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from metering_core import (
    ErrorCode,
    InvalidValueError,
    Money,
    Price,
    RatedUsage,
    Usage,
    UsageLog,
    UsageSummary,
    rate,
)
from metering_core.aggregation import summarize_all
from metering_core.cli.complaints import OnError, Refusals
from metering_core.cli.files import (
    HowToRead,
    catalog_at,
    format_of,
    load_events,
    opened,
    shown_name,
)
from metering_core.cli.options import AnyTime, AsJson, DashedOrNone, WholeNumber
from metering_core.cli.printing import print_json, print_table
from metering_core.errors import describe, shown
from metering_core.exact import plain
from metering_core.feeds import append_usage, read_price, read_usage
from metering_core.feeds.files import parse_quantity
from metering_core.feeds.instants import ANY_TIME, FROM_2000, PlausibleTime
from metering_core.invoicing import describe_charge, grouped, number_field
from metering_core.money import Amount
from metering_core.rating import SettledLine
from metering_core.tariffs.auditing import Finding, Severity, audit
from metering_core.tariffs.comparing import compare
from metering_core.tariffs.plotting import Scale, curve
from metering_core.tariffs.rerating import compare_usage, items_at


def _read_prices(references: tuple[str, ...]) -> list[Price]:
    if not references:
        message = "expected at least one PRICE, received none"
        raise InvalidValueError(ErrorCode.PARAMETER_MISSING, message, param="price")
    return [read_price(reference) for reference in references]


def rate_quantities(
    price: str,
    /,
    *quantities: Annotated[str, Parameter(name="QUANTITY", allow_leading_hyphen=True)],
    as_json: AsJson = False,
) -> None:
    """Say what quantities cost at a price, tier by tier, exactly and settled.

    Args:
        price: JSON file with a price, or CATALOG.json#price_id.
        quantities: Units: integers, or decimals such as 2.5.
        as_json: Print JSON, in minor units.
    """
    if not quantities:
        message = "expected at least one QUANTITY, received none"
        raise InvalidValueError(ErrorCode.PARAMETER_MISSING, message, param="quantity")
    for text in quantities:
        if text.startswith("--"):
            message = f"expected QUANTITY or --json, received the unknown option {describe(text)}"
            raise InvalidValueError(ErrorCode.PARAMETER_UNKNOWN, message, param=text)
    wanted = [parse_quantity(text, "quantity") for text in quantities]
    rated = [rate(read_price(price), quantity) for quantity in wanted]
    if as_json:
        print_json({"ratings": [_rating_fields(one) for one in rated]})
        return
    for number, one in enumerate(rated):
        print("" if number == 0 else "\n", end="")
        _print_rating(one)


def _total(one: RatedUsage) -> Money:
    return Money(sum(line.amount for line in one.settled()), one.price.currency)


def _print_rating(one: RatedUsage) -> None:
    rows = [
        (
            describe_charge(one.price, line.charge),
            grouped(line.charge.quantity),
            str(Amount(line.exact, one.price.currency)),
            str(Money(line.amount, one.price.currency)),
        )
        for line in one.settled()
    ]
    footer = ("Total", grouped(one.quantity), str(one.amount), str(_total(one)))
    print_table(("Description", "Quantity", "Exactly", "Amount"), rows, footer)


def _rating_fields(one: RatedUsage) -> dict[str, Any]:
    return {
        "price": one.price.id,
        "currency": one.price.currency,
        "quantity": number_field(one.quantity),
        "lines": [_charge_fields(one, line) for line in one.settled()],
        "exact": plain(one.amount.minor_units),
        "total": _total(one).minor_units,
    }


def _charge_fields(one: RatedUsage, line: SettledLine) -> dict[str, Any]:
    charge = line.charge
    return {
        "description": describe_charge(one.price, charge),
        "kind": charge.kind.value,
        "tier": charge.tier,
        "quantity": number_field(charge.quantity),
        "packages": charge.packages,
        "unit_amount": None if charge.unit_amount is None else plain(charge.unit_amount),
        "exact": plain(line.exact),
        "amount": line.amount,
    }


def audit_prices(
    *prices: Annotated[str, Parameter(name="PRICE")],
    fail_on: Severity = Severity.WARNING,
    as_json: AsJson = False,
) -> int:
    """Find the holes in prices: cliffs, dead tiers, usage that rounds to zero, amounts that cannot
    be paid.

    The exit status is 1 where a finding is at least as severe as --fail-on.

    Args:
        prices: JSON files with a price, or CATALOG.json#price_id.
        fail_on: The severity from which on a finding fails the run.
        as_json: Print JSON, in minor units.
    """
    read = _read_prices(prices)
    audited = [(price, audit(price)) for price in read]
    if as_json:
        print_json({"audits": [_audit_fields(price, found) for price, found in audited]})
    else:
        for price, found in audited:
            _print_findings(price, found)
    return int(any(one.severity.is_at_least(fail_on) for _, found in audited for one in found))


def _audit_fields(price: Price, findings: tuple[Finding, ...]) -> dict[str, Any]:
    written = [one.to_dict() for one in findings]
    return {"price": price.id, "currency": price.currency, "findings": written}


def _print_findings(price: Price, findings: tuple[Finding, ...]) -> None:
    print(f"{shown(price.id)}: {len(findings) or 'no'} finding{'' if len(findings) == 1 else 's'}")
    for one in findings:
        print(f"  {one.severity.value:<8}{one.code.value:<18}{shown(one.message)}")


def compare_prices(
    old: str,
    new: str,
    /,
    *,
    up_to: WholeNumber | None = None,
    usage: DashedOrNone = None,
    events: DashedOrNone = None,
    catalog: str | None = None,
    any_time: AnyTime = False,
    as_json: AsJson = False,
) -> None:
    """Say where a new price is dearer and where cheaper, and what it does to usage that happened.

    Args:
        old: JSON file with a price, or CATALOG.json#price_id.
        new: Another in the same currency.
        up_to: The greatest quantity to compare; all unless given.
        usage: File of usage (CSV or JSON lines; '-' reads standard input) to bill at both prices;
            needs --catalog.
        events: File of meter events, in its place where the old price is on a meter.
        catalog: JSON file with the subscriptions of the usage, and its meters; their items at the
            old price are re-rated.
        any_time: Take instants before the year 2000, which usually are something else.
        as_json: Print JSON, in minor units.
    """
    before, after = read_price(old), read_price(new)
    comparison = compare(before, after, up_to=up_to)
    file = _file_of(before, usage, events, catalog)
    over_usage = None
    if catalog is not None and file is not None:
        time = ANY_TIME if any_time else FROM_2000
        over_usage = compare_usage(before, after, _summaries(before, file, catalog, time))
    if as_json:
        written = None if over_usage is None else over_usage.to_dict()
        print_json({**comparison.to_dict(), "usage": written})
        return
    print(comparison)
    if over_usage is not None:
        print(f"\n{over_usage}")


def _file_of(
    price: Price, usage: str | None, events: str | None, catalog: str | None
) -> str | None:
    """Return the file of what a price bills, which goes with a catalog."""
    name, file, other, unfit = "usage", usage, "events", events
    if _is_on_meter(price):
        name, file, other, unfit = other, unfit, name, file
    if unfit is not None:
        expected = f"expected --{name}, which the price {price.id!r} bills"
        message = f"--{other}: {expected}, received --{other}"
        raise InvalidValueError(ErrorCode.PARAMETERS_EXCLUSIVE, message, param=other)
    if (file is None) != (catalog is None):
        absent = name if file is None else "catalog"
        message = f"--{absent}: --{name} and --catalog go together, received one of them"
        raise InvalidValueError(ErrorCode.PARAMETER_MISSING, message, param=absent)
    return file


def _is_on_meter(price: Price) -> bool:
    return price.recurring is not None and price.recurring.meter is not None


def _summaries(price: Price, file: str, catalog: str, time: PlausibleTime) -> list[UsageSummary]:
    """Load a file of usage and return the summaries of every period that has usage, of the items at
    the price.
    """
    read = catalog_at(catalog, time)
    items = items_at(price, read.subscriptions)
    held: Usage
    reading = HowToRead(time, Refusals(OnError.STOP))
    if _is_on_meter(price):
        held, periods = load_events(read, file, reading)
    else:
        held = log = UsageLog(read.subscriptions)
        with opened(file) as stream:
            rows = read_usage(stream, format_of(file), path=shown_name(file), time=time)
            periods = append_usage(log, rows, on_refusal=reading.refusals)
    asked = [(item, period) for owner, item in items for period in periods.get(owner.id, ())]
    return summarize_all(asked, held)


def draw_curve(
    *prices: Annotated[str, Parameter(name="PRICE")],
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    up_to: WholeNumber | None = None,
    scale: Scale = Scale.LINEAR,
    title: str | None = None,
    as_json: AsJson = False,
) -> None:
    """Draw total, marginal and average price against quantity, as SVG or PNG.

    Args:
        prices: JSON files with a price, or CATALOG.json#price_id; in one currency.
        output: Where the picture goes; ends in .svg or .png.
        up_to: The greatest quantity to show; chosen from the breakpoints unless given.
        scale: How the quantities are laid out.
        title: What stands above the picture.
        as_json: Print what was drawn as JSON.
    """
    read = _read_prices(prices)
    ids = [price.id for price in read]
    path = curve(read, output, up_to=up_to, scale=scale, title=title)
    if as_json:
        drawn = {"output": str(path), "scale": scale.value, "up_to": up_to}
        print_json({"prices": ids, **drawn})
    else:
        print(shown(f"drew {', '.join(ids)} into {path}"))

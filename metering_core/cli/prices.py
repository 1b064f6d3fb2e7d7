"""The commands that look at prices: ``audit``, ``compare`` and ``curve``. They read files, ask the
price tools and print.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from metering_core.aggregation import Usage, UsageSummary, summarize_all
from metering_core.cli.files import (
    AnyTime,
    OnError,
    Reading,
    Refusals,
    WholeNumber,
    catalog_at,
    format_of,
    load_events,
    opened,
    print_json,
    shown_name,
)
from metering_core.errors import ErrorCode, InvalidValueError, shown
from metering_core.feeds.appending import append_usage
from metering_core.feeds.catalog import read_price
from metering_core.feeds.files import read_usage
from metering_core.feeds.instants import ANY_TIME, FROM_2000, PlausibleTime
from metering_core.log import UsageLog
from metering_core.prices import Price
from metering_core.tariffs.auditing import Finding, Severity, audit
from metering_core.tariffs.comparing import compare
from metering_core.tariffs.plotting import Scale, curve
from metering_core.tariffs.rerating import compare_usage, items_at

AsJson = Annotated[bool, Parameter(name="--json", negative="", show_default=False)]


def register(app: App) -> None:
    """Add the commands to the application."""
    app.command(audit_prices, name="audit")
    app.command(compare_prices, name="compare")
    app.command(draw_curve, name="curve")


def _read_prices(references: tuple[str, ...]) -> list[Price]:
    if not references:
        raise InvalidValueError(
            ErrorCode.PARAMETER_MISSING, "expected at least one PRICE, received none", param="price"
        )
    return [read_price(reference) for reference in references]


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
    findings = [audit(price) for price in read]
    if as_json:
        audits = [
            {
                "price": price.id,
                "currency": price.currency,
                "findings": [one.to_dict() for one in found],
            }
            for price, found in zip(read, findings, strict=True)
        ]
        print_json({"audits": audits})
    else:
        for price, found in zip(read, findings, strict=True):
            _print_findings(price, found)
    return int(any(one.severity.is_at_least(fail_on) for found in findings for one in found))


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
    usage: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    events: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
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
        over_usage = compare_usage(
            before, after, _summaries(before, file, catalog, ANY_TIME if any_time else FROM_2000)
        )
    if as_json:
        print_json(
            {**comparison.to_dict(), "usage": None if over_usage is None else over_usage.to_dict()}
        )
        return
    print(comparison)
    if over_usage is not None:
        print(f"\n{over_usage}")


def _file_of(
    price: Price, usage: str | None, events: str | None, catalog: str | None
) -> str | None:
    """Return the file of what a price bills, which goes with a catalog."""
    given, other = ("usage", usage), ("events", events)
    if _is_on_meter(price):
        given, other = other, given
    if other[1] is not None:
        message = (
            f"--{other[0]}: expected --{given[0]}, which the price {price.id!r} bills, "
            f"received --{other[0]}"
        )
        raise InvalidValueError(ErrorCode.PARAMETERS_EXCLUSIVE, message, param=other[0])
    if (given[1] is None) != (catalog is None):
        absent = given[0] if given[1] is None else "catalog"
        message = f"--{absent}: --{given[0]} and --catalog go together, received one of them"
        raise InvalidValueError(ErrorCode.PARAMETER_MISSING, message, param=absent)
    return given[1]


def _is_on_meter(price: Price) -> bool:
    return price.recurring is not None and price.recurring.meter is not None


def _summaries(price: Price, file: str, catalog: str, time: PlausibleTime) -> list[UsageSummary]:
    """Load a file of usage and return the summaries of every period that has usage, of the items at
    the price.
    """
    read = catalog_at(catalog, time)
    items = items_at(price, read.subscriptions)
    held: Usage
    reading = Reading(time, Refusals(OnError.STOP))
    if _is_on_meter(price):
        held, periods = load_events(read, file, reading)
    else:
        held = log = UsageLog(read.subscriptions)
        with opened(file) as stream:
            rows = read_usage(stream, format_of(file), path=shown_name(file), time=time)
            periods = append_usage(log, rows, on_refusal=reading.refusals)
    return summarize_all(
        [(item, period) for owner, item in items for period in periods.get(owner.id, ())], held
    )


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
    path = curve(read, output, up_to=up_to, scale=scale, title=title)
    if as_json:
        print_json(
            {
                "prices": [price.id for price in read],
                "output": str(path),
                "scale": scale.value,
                "up_to": up_to,
            }
        )
    else:
        print(shown(f"drew {', '.join(price.id for price in read)} into {path}"))

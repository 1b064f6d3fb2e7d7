"""The commands ``invoice`` and ``demo``: usage from files becomes invoices.

Each period is billed as at its own end, so that an invoice does not depend on the day of the run.
What was not given is not taken for nothing: an item whose usage is in no file is refused.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any, Final

import attrs
from cyclopts import Parameter

from metering_core import (
    BillingPeriod,
    CombinedUsage,
    ErrorCode,
    InvalidValueError,
    Invoice,
    InvoiceLineItem,
    MeterLog,
    Subscription,
    Usage,
    UsageLog,
    explain,
    finalize_invoice,
)
from metering_core.cli.complaints import (
    OK,
    REFUSED,
    OnError,
    Refusals,
    complain,
    refusals_of,
    refuse_same_file,
    slip,
)
from metering_core.cli.engines import Engine, Loaded, UsageSource, choose_engine, load_usage
from metering_core.cli.files import HowToRead, catalog_at, load_events, shown_name
from metering_core.cli.options import (
    POLICIES_UNLESS_GIVEN,
    DashedOrNone,
    Explained,
    PolicyOptions,
    RejectsFile,
    instant_option,
)
from metering_core.cli.printing import print_json, write_csv_rows
from metering_core.feeds import Catalog, UsageFormat, read_catalog
from metering_core.feeds.instants import PlausibleTime
from metering_core.invoicing import line_fields

_DEMO: Final = Path(__file__).parent.parent / "demo"

Periods = Mapping[str, tuple[BillingPeriod, ...]]


class OutputFormat(StrEnum):
    """How invoices are printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


def demo() -> None:
    """Bill a month of an AI API from the files in this package, and say why its second line is what
    it is.
    """
    catalog_path, usage_path = _DEMO / "catalog.json", _DEMO / "usage.csv"
    catalog = read_catalog(catalog_path)
    reading = HowToRead(PlausibleTime(), Refusals(OnError.STOP))
    source = UsageSource(str(usage_path), None, reading)
    loaded = load_usage(catalog.subscriptions, source, Engine.MEMORY)
    for one in _invoices(catalog, loaded.usage, loaded.periods):
        why = "Why the second line is what it is:"
        print(one, "", why, "", explain(one.lines[1]), "", sep="\n")
    command = [*_as_called(), "invoice", str(catalog_path), str(usage_path), "--explain"]
    print(
        "The same from its files, with every line explained:", f"  {shlex.join(command)}", sep="\n"
    )


def _as_called() -> list[str]:
    """Return what runs this command line from where it was called: a virtual environment need not
    be on the PATH.
    """
    called = Path(sys.argv[0])
    if called.stem == "metering-core":
        return [str(called)]
    if called.parent.name == "metering_core":
        return [sys.executable, "-m", "metering_core"]
    return ["metering-core"]


def invoice(
    catalog: str,
    usage: DashedOrNone = None,
    /,
    *,
    events: DashedOrNone = None,
    period: str | None = None,
    explained: Explained = False,
    output: Annotated[OutputFormat, Parameter(name="--format")] = OutputFormat.TABLE,
    on_error: OnError = OnError.STOP,
    rejects: RejectsFile = None,
    usage_format: UsageFormat | None = None,
    engine: Engine | None = None,
    policies: PolicyOptions = POLICIES_UNLESS_GIVEN,
) -> int:
    """Bill usage: an invoice for each subscription and billing period that has usage.

    Usage has the columns (CSV) or keys (JSON lines) subscription_item, quantity, timestamp, and
    optionally action, id, received_at. Events are Stripe's meter events, for items whose price is
    on a meter: event_name, timestamp, payload (of CSV a column payload[KEY] for each key), and
    optionally identifier, received_at. The order of rows is the order of arrival. Invoices do not
    depend on the day on which this is run.

    Args:
        catalog: JSON file with prices, meters and subscriptions.
        usage: CSV file with a header, or JSON lines; '-' reads standard input. Not needed where
            there are events.
        events: File of meter events; written as usage is, and told by its extension or, of '-', by
            its first character.
        period: Bill the period that holds this instant (Unix seconds, or ISO 8601 with an offset)
            of every subscription, also where it has no usage, and no other.
        explained: Say for each line which records, tiers and rounding are behind it (not with
            --format csv).
        output: Print tables in major units, or JSON or CSV (one row a line item) in minor units.
        on_error: At a malformed row or a refused record stop, or skip it and bill the rest; both
            name its line, and the exit status is 1. It is 1 too where meter events are on no bill.
        rejects: Write each such row into this file (.csv, .jsonl): path, line, code, message and
            the row.
        usage_format: How the usage is written; the file's extension (.csv, .jsonl, .ndjson) says it
            unless given, or the first character of standard input ({ begins JSON lines).
        engine: What judges and folds the usage; each makes the same bill, or none. 'auto', which is
            also what happens without the option, takes duckdb for Parquet, globs and long files,
            memory for all else, and says so.
        policies: What is accepted.
    """
    if explained and output is OutputFormat.CSV:
        raise slip("--explain", "expected --format table or json, received csv")
    time = policies.time()
    at = None if period is None else instant_option(period, "--period", time)
    inputs = _Inputs(usage, events)
    about_usage: dict[str, object] = {"--engine": engine, "--usage-format": usage_format}
    about_usage["--late-grace"] = policies.late_grace
    inputs.refuse_unfit(about_usage, policies.about_events())
    refuse_same_file(rejects, catalog, usage, events)
    known = catalog_at(catalog, time)
    with refusals_of(on_error, rejects) as refusals:
        reading = HowToRead(time, refusals)
        loaded = Loaded(UsageLog(known.subscriptions), {})
        if usage is not None:
            source = UsageSource(usage, usage_format, reading, policies.of_usage())
            loaded = _load_records(known, source, engine, explained=explained)
        if events is not None:
            loaded = _combined(loaded, *load_events(known, events, reading, policies.of_events()))
    periods = loaded.periods if at is None else _periods_at(at, known.subscriptions)
    inputs.require_for(one for one in known.subscriptions if periods.get(one.id))
    invoices = _invoices(known, loaded.usage, periods)
    _print_invoices(invoices, output, explained=explained)
    if not invoices:
        has_rows = refusals.found or loaded.accepted > 0
        complain(_nothing(period, inputs, has_rows=has_rows))
    return REFUSED if refusals.found or not invoices else OK


# What is billed -----------------------------------------------------------------------------------


@attrs.frozen
class _Inputs:
    """The files of usage that were given."""

    usage: str | None
    events: str | None

    def refuse_unfit(
        self, about_usage: Mapping[str, object], about_events: Mapping[str, object]
    ) -> None:
        """Refuse files and options that do not go together."""
        usage, events = self.usage, self.events
        if usage is None and events is None:
            message = "USAGE requires an argument where --events has none"
            raise InvalidValueError(ErrorCode.PARAMETER_MISSING, message, param="USAGE")
        if usage == events:
            expected = "expected another file than that of USAGE"
            raise slip("--events", f"{expected}, received {usage!r} twice")
        if usage is None:
            _refuse_given(about_usage, "USAGE")
        if events is None:
            _refuse_given(about_events, "--events")

    def require_for(self, billed: Iterable[Subscription]) -> None:
        """Refuse to bill an item whose usage was not given: it would be billed as unused without a
        word.
        """
        for item in (item for one in billed for item in one.items if item.is_metered):
            is_of_events = item.recurring.meter is not None
            if (self.events if is_of_events else self.usage) is None:
                name, sort = ("USAGE", "usage records")
                if is_of_events:
                    name, sort = ("--events", "meter events")
                reason = f"expected a file of {sort}, which the item {item.id!r} bills"
                raise slip(name, f"{reason}, received none", ErrorCode.PARAMETER_MISSING)


def _refuse_given(options: Mapping[str, object], about: str) -> None:
    for option, value in options.items():
        if value is not None:
            expected = f"expected it with a file {about}, which it is about"
            raise slip(option, f"{expected}, received it without")


def _load_records(
    known: Catalog, source: UsageSource, engine: Engine | None, *, explained: bool
) -> Loaded:
    """Read usage records with the engine that was asked for, or that suits the file, and say
    which.
    """
    chosen = choose_engine(engine or Engine.AUTO, source.usage, source.format, explains=explained)
    if engine is not None or chosen.engine is not Engine.MEMORY:
        complain(str(chosen))
    return load_usage(known.subscriptions, source, chosen.engine)


def _combined(records: Loaded, events: MeterLog, with_events: Periods) -> Loaded:
    """Put both generations of usage behind one seam, with the periods of both in order."""
    periods = {}
    for one in {**records.periods, **with_events}:
        both = {*records.periods.get(one, ()), *with_events.get(one, ())}
        periods[one] = tuple(sorted(both, key=attrgetter("start")))
    return Loaded(CombinedUsage(records.usage, events), periods, records.accepted + len(events))


def _periods_at(at: datetime, subscriptions: Iterable[Subscription]) -> Periods:
    found = {one.id: one.period_at(at) for one in subscriptions}
    return {one: (held,) for one, held in found.items() if held is not None}


def _invoices(catalog: Catalog, usage: Usage, periods: Periods) -> list[Invoice]:
    """Bill each period as at its own end, so that the day of the run does not matter."""
    return [
        finalize_invoice(subscription, usage, period, now=period.end)
        for subscription in catalog.subscriptions
        for period in periods.get(subscription.id, ())
    ]


def _nothing(period: str | None, inputs: _Inputs, *, has_rows: bool) -> str:
    """Say why there is no invoice."""
    if period is not None:
        return f"no subscription has a billing period at {period}"
    if has_rows:
        return "nothing is billed: no row of the usage is on a bill"
    files = [shown_name(one) for one in (inputs.usage, inputs.events) if one]
    return f"there is no usage to bill: no row in {' and '.join(files)}"


# What is printed ----------------------------------------------------------------------------------


def _print_invoices(invoices: Sequence[Invoice], output: OutputFormat, *, explained: bool) -> None:
    match output:
        case OutputFormat.TABLE:
            _print_tables(invoices, explained=explained)
        case OutputFormat.JSON:
            fields = [_invoice_fields(one, explained=explained) for one in invoices]
            print_json({"invoices": fields})
        case OutputFormat.CSV:
            lines = (_line_fields(one, line) for one in invoices for line in one.lines)
            rows = [[fields[column] for column in _LINE_COLUMNS] for fields in lines]
            write_csv_rows(sys.stdout, [_LINE_COLUMNS, *rows])


def _print_tables(invoices: Sequence[Invoice], *, explained: bool) -> None:
    for number, one in enumerate(invoices):
        explanations = [f"\n{explain(line)}" for line in one.lines] if explained else []
        print(*([""] if number else []), one, *explanations, sep="\n")


def _invoice_fields(one: Invoice, *, explained: bool) -> dict[str, Any]:
    fields = one.to_dict()
    if explained:
        for line, written in zip(one.lines, fields["lines"], strict=True):
            written["explanation"] = str(explain(line)).splitlines()
    return fields


def _line_fields(one: Invoice, line: InvoiceLineItem) -> dict[str, Any]:
    return line_fields(line) | {
        "invoice": one.id,
        "subscription": one.subscription,
        "currency": one.currency,
        "period_start": one.period.start_seconds,
        "period_end": one.period.end_seconds,
    }


_LINE_COLUMNS: Final = """
    invoice subscription currency period_start period_end subscription_item price description
    kind tier quantity packages unit_amount exact amount total_usage aggregate_usage
""".split()  # noqa: SIM905 - a list to be read

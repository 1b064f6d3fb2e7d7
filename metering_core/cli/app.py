"""The command line: reads files, asks the engine and prints. It knows no rule of billing."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import islice
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any, Final, cast
from zoneinfo import ZoneInfo

import attrs
from cyclopts import App, CycloptsError, Parameter, UnusedCliTokensError

from metering_core.acceptance import AcceptancePolicy
from metering_core.aggregation import Usage
from metering_core.cli import engines as cli_engines
from metering_core.cli import prices as cli_prices
from metering_core.cli.engines import Engine, Loaded, UsageSource, choose_engine, load_usage
from metering_core.cli.files import (
    AnyTime,
    OnError,
    Reading,
    Refusals,
    RejectsFile,
    StoppedError,
    WholeNumber,
    catalog_at,
    complain,
    duration,
    instant_option,
    load_events,
    print_json,
    refusals_of,
    refuse_same_file,
    shown_name,
    write_csv_rows,
)
from metering_core.combining import CombinedUsage
from metering_core.errors import (
    CatalogError,
    ErrorCode,
    InvalidValueError,
    MeteringError,
    describe,
    shown,
)
from metering_core.exact import plain
from metering_core.explaining import explain
from metering_core.feeds.appending import Spellings
from metering_core.feeds.catalog import Catalog, read_catalog, read_price
from metering_core.feeds.files import parse_quantity
from metering_core.feeds.formats import UsageFormat
from metering_core.feeds.instants import ANY_TIME, PlausibleTime, likeness
from metering_core.invoicing import (
    Invoice,
    InvoiceLineItem,
    describe_charge,
    finalize_invoice,
    grouped,
    number_field,
)
from metering_core.log import UsageLog
from metering_core.meter_acceptance import IdentifierScope, MeterPolicy, Overlap
from metering_core.meter_events import MeterEvent
from metering_core.meter_log import MeterLog
from metering_core.meter_summaries import MeterEventSummary, ValueGroupingWindow, event_summaries
from metering_core.money import Amount, Money
from metering_core.periods import BillingCycle, BillingPeriod, iso_8601
from metering_core.rating import RatedUsage, SettledLine, rate
from metering_core.subscriptions import Subscription
from metering_core.testing.cases import CaseResult, read_cases, run_cases

OK: Final = 0
REFUSED: Final = 1
UNUSABLE: Final = 2
UNWRITTEN: Final = 3
INTERRUPTED: Final = 130
"""128 and the number of SIGINT, as shells have it."""

_DEMO: Final = Path(__file__).parent.parent / "demo"

_HELP = """Billing as a query over an append-only log of usage: exact, repeatable, explainable.

Exit status: 0 where all is well; 1 where a row of usage was refused or is on no bill, nothing was
billed, or a case differs; 2 where the arguments or a file cannot be used; 3 where output could not
be written. Complaints go to standard error, one line each.
"""


def _version() -> str:
    from importlib import metadata  # noqa: PLC0415 - it takes its time, and nothing else needs it

    try:
        return f"metering-core {metadata.version('metering-core')}"
    except metadata.PackageNotFoundError:
        return "metering-core, run from its source without being installed"


app = App(name="metering-core", help=_HELP, version=_version)
cli_prices.register(app)
cli_engines.register(app)


class OutputFormat(StrEnum):
    """How invoices are printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; see ``metering-core --help``."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(
            stream, io.TextIOWrapper
        ):  # The same bytes everywhere, whatever the locale and its line ends.
            stream.reconfigure(encoding="utf-8", errors="backslashreplace", newline="\n")
    if sys.stdout is None:
        complain("standard output: cannot be written: it is closed")
        return UNWRITTEN
    try:
        status = app(
            arguments, exit_on_error=False, print_error=False, result_action="return_value"
        )
        sys.stdout.flush()
    except (CycloptsError, MeteringError) as error:
        complain(_in_options(error))
        return UNWRITTEN if getattr(error, "code", None) is ErrorCode.FILE_UNWRITABLE else UNUSABLE
    except StoppedError as stopped:
        complain(str(stopped))
        return REFUSED
    except (
        OSError
    ) as error:  # Files complain in words of their own, so this is what results are printed to.
        complain(f"standard output: cannot be written: {error.strerror or error}")
        return UNWRITTEN
    except SystemExit:  # So does who prints the help leave where nobody reads on.
        complain(f"standard output: cannot be written: {os.strerror(errno.EPIPE)}")
        return UNWRITTEN
    except KeyboardInterrupt:
        complain("interrupted")
        return INTERRUPTED
    finally:
        _give_up_unwritten()
    return status if isinstance(status, int) else OK


_OPTIONS: Final = {
    "anchor": "ANCHOR",
    "end_time": "--to",
    "interval": "INTERVAL",
    "interval_count": "--count",
    "path": "--output",
    "quantity": "QUANTITY",
    "start_time": "--from",
    "value_grouping_window": "--by",
    **{
        name: f"--{name.replace('_', '-')}"
        for name in ("backdate_days", "customer", "kind", "meter", "timezone", "up_to")
    },
}
"""What people call the parameters of what the commands ask."""


def _in_options(error: Exception) -> str:
    """Return a complaint about arguments in the words of the command line, on one line."""
    if isinstance(
        error.__cause__, MeteringError
    ):  # What refuses an option's text is wrapped by who reads options.
        error = error.__cause__
    if isinstance(error, UnusedCliTokensError):
        return _unused(error)
    message = " ".join(str(error).split())
    param = str(getattr(error, "param", None))
    message = message.replace(
        "say overlap='each_counts_all' in the policy", "say --overlap each-counts-all"
    )
    is_ours = (
        param in _OPTIONS
        and not isinstance(error, CatalogError)
        and message.startswith(f"{param}: ")
    )
    return f"{_OPTIONS[param]}{message.removeprefix(param)}" if is_ours else message


def _unused(error: UnusedCliTokensError) -> str:
    """Say which arguments were one too many, and why that happens."""
    message = (
        "expected no further argument, received "
        f"{', '.join(map(describe, error.unused_tokens or ()))}"
    )
    if (error.command_chain or ("",))[0] != "invoice":
        return message
    if "--usage" in (error.root_input_tokens or ()):
        return f"{message}: USAGE is given without an option, as in `invoice CATALOG USAGE`"
    return (
        f"{message}: one USAGE is read; quote a glob, as in 'usage/*.csv', so that all its "
        "files are"
    )


def _give_up_unwritten() -> None:
    """Leave nothing in a stream that cannot take it: Python would complain of it at the end, in
    words of its own.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _print_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], footer: Sequence[str] = ()
) -> None:
    """Print a table: the first column to the left, all others to the right."""
    header, footer, rows = _shown(header), _shown(footer), [_shown(row) for row in rows]
    widths = [
        max(map(len, column))
        for column in zip(header, *rows, *([footer] if footer else []), strict=True)
    ]
    rule = "-" * (sum(widths) + 2 * len(widths) - 2)
    lines = [_aligned(header, widths), rule, *(_aligned(row, widths) for row in rows)]
    print(*lines, *([rule, _aligned(footer, widths)] if footer else []), sep="\n")


def _shown(row: Sequence[str]) -> list[str]:
    return [shown(cell) for cell in row]


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [
        row[0].ljust(widths[0]),
        *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
    ]
    return "  ".join(cells).rstrip()


# demo ---------------------------------------------------------------------------------------------


@app.command
def demo() -> None:
    """Bill a month of an AI API from the files in this package, and say why its second line is what
    it is.
    """
    catalog_path, usage_path = _DEMO / "catalog.json", _DEMO / "usage.csv"
    catalog = read_catalog(catalog_path)
    source = UsageSource(str(usage_path), None, Reading(PlausibleTime(), Refusals(OnError.STOP)))
    loaded = load_usage(catalog.subscriptions, source, Engine.MEMORY)
    for one in _invoices(catalog, loaded.usage, loaded.periods):
        print(
            one, "", "Why the second line is what it is:", "", explain(one.lines[1]), "", sep="\n"
        )
    print("The same from its files, with every line explained:")
    print(
        "  "
        f"{shlex.join([*_as_called(), 'invoice', str(catalog_path), str(usage_path), '--explain'])}"
    )


def _as_called() -> list[str]:
    """Return what runs this command line from where it was called: a virtual environment need not
    be on the PATH.
    """
    called = Path(sys.argv[0])
    if called.stem == "metering-core":
        return [str(called)]
    return (
        [sys.executable, "-m", "metering_core"]
        if called.parent.name == "metering_core"
        else ["metering-core"]
    )


# policies -----------------------------------------------------------------------------------------


@attrs.frozen
class EventPolicies:
    """What is accepted of meter events: the options that two commands share.

    Attributes:
        future_tolerance: How far after its receipt usage may happen, such as 300s or 5m; none for
            usage records and 5m for meter events unless given.
        backdate_days: How many days before its receipt a meter event may have happened; 35 unless
            given.
        identifier_scope: Whether an identifier is unique among the meter events of one name or
            among all of them.
        overlap: Whether two subscriptions of one customer may bill one meter at the same time, so
            that each counts every event; refused unless given.
        any_time: Take instants before the year 2000 and more than ten years ahead, which usually
            are something else.
    """

    future_tolerance: str | None = None
    backdate_days: WholeNumber | None = None
    identifier_scope: IdentifierScope | None = None
    overlap: Overlap | None = None
    any_time: AnyTime = False

    def time(self) -> PlausibleTime:
        """Return the moments that files may name."""
        return ANY_TIME if self.any_time else PlausibleTime.until(datetime.now(UTC))

    def about_events(self) -> dict[str, object]:
        """Return the options that go with meter events only."""
        scope, overlap = self.identifier_scope, self.overlap
        return {
            "--backdate-days": self.backdate_days,
            "--identifier-scope": scope,
            "--overlap": overlap,
        }

    def of_events(self) -> MeterPolicy:
        """Return what is accepted of meter events."""
        given: dict[str, Any] = {
            "backdate_days": self.backdate_days,
            "identifier_scope": self.identifier_scope,
        }
        given["overlap"] = self.overlap
        given["future_tolerance"] = self._duration("future_tolerance")
        return MeterPolicy(**{key: value for key, value in given.items() if value is not None})

    def _duration(self, name: str) -> timedelta | None:
        value = getattr(self, name)
        return (
            None
            if value is None
            else timedelta(seconds=duration(value, f"--{name.replace('_', '-')}"))
        )


@attrs.frozen
class Policies(EventPolicies):
    """What is accepted of all usage.

    Attributes:
        late_grace: For how long after the end of a period its usage records are accepted, such as
            2h or 1d; not at all unless given. Of meter events --backdate-days says it.
    """

    late_grace: str | None = None

    def of_usage(self) -> AcceptancePolicy:
        """Return what is accepted of usage records."""
        tolerance, grace = (
            self._duration(name) or timedelta(0) for name in ("future_tolerance", "late_grace")
        )
        return AcceptancePolicy(future_tolerance=tolerance, late_grace=grace)


PolicyOptions = Annotated[Policies, Parameter(name="*")]
EventPolicyOptions = Annotated[EventPolicies, Parameter(name="*")]
_UNLESS_GIVEN: Final = Policies()
_EVENTS_UNLESS_GIVEN: Final = EventPolicies()


# invoice ------------------------------------------------------------------------------------------


@app.command
def invoice(
    catalog: str,
    usage: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    /,
    *,
    events: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    period: str | None = None,
    explained: Annotated[
        bool, Parameter(name="--explain", negative="", show_default=False)
    ] = False,
    output: Annotated[OutputFormat, Parameter(name="--format")] = OutputFormat.TABLE,
    on_error: OnError = OnError.STOP,
    rejects: RejectsFile = None,
    usage_format: UsageFormat | None = None,
    engine: Engine | None = None,
    policies: PolicyOptions = _UNLESS_GIVEN,
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
    _refuse_explained_csv(output, explained=explained)
    time = policies.time()
    at = None if period is None else instant_option(period, "--period", time)
    about_usage = {
        "--engine": engine,
        "--usage-format": usage_format,
        "--late-grace": policies.late_grace,
    }
    _refuse_inputs(usage, events, about_usage=about_usage, about_events=policies.about_events())
    refuse_same_file(rejects, catalog, usage, events)
    known = catalog_at(catalog, time)
    with refusals_of(on_error, rejects) as refusals:
        reading = Reading(time, refusals)
        loaded = Loaded(UsageLog(known.subscriptions), {})
        if usage is not None:
            source = UsageSource(usage, usage_format, reading, policies.of_usage())
            loaded = _load_records(known, source, engine, explained=explained)
        if events is not None:
            loaded = _combined(loaded, *load_events(known, events, reading, policies.of_events()))
    periods = loaded.periods
    if at is not None:
        periods = {
            one.id: () if (found := one.period_at(at)) is None else (found,)
            for one in known.subscriptions
        }
    _require_inputs([one for one in known.subscriptions if periods.get(one.id)], usage, events)
    invoices = _invoices(known, loaded.usage, periods)
    _print_invoices(invoices, output, explained=explained)
    if not invoices:
        complain(
            _nothing(
                period,
                [one for one in (usage, events) if one],
                has_rows=refusals.found or loaded.accepted > 0,
            )
        )
    return REFUSED if refusals.found or not invoices else OK


def _refuse_explained_csv(output: OutputFormat, *, explained: bool) -> None:
    if explained and output is OutputFormat.CSV:
        message = "--explain: expected --format table or json, received csv"
        raise InvalidValueError(ErrorCode.PARAMETERS_EXCLUSIVE, message, param="--explain")


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


def _nothing(period: str | None, files: Sequence[str], *, has_rows: bool) -> str:
    """Say why there is no invoice."""
    if period is not None:
        return f"no subscription has a billing period at {period}"
    if has_rows:
        return "nothing is billed: no row of the usage is on a bill"
    return f"there is no usage to bill: no row in {' and '.join(map(shown_name, files))}"


def _print_invoices(invoices: Sequence[Invoice], output: OutputFormat, *, explained: bool) -> None:
    match output:
        case OutputFormat.TABLE:
            _print_tables(invoices, explained=explained)
        case OutputFormat.JSON:
            print_json(
                {"invoices": [_invoice_fields(one, explained=explained) for one in invoices]}
            )
        case OutputFormat.CSV:
            _print_csv(invoices)


def _refuse_inputs(
    usage: str | None,
    events: str | None,
    *,
    about_usage: Mapping[str, object],
    about_events: Mapping[str, object],
) -> None:
    """Refuse files and options that do not go together."""
    if usage is None and events is None:
        message = "USAGE requires an argument where --events has none"
        raise InvalidValueError(ErrorCode.PARAMETER_MISSING, message, param="USAGE")
    if usage == events:
        message = f"--events: expected another file than that of USAGE, received {usage!r} twice"
        raise InvalidValueError(ErrorCode.PARAMETERS_EXCLUSIVE, message, param="--events")
    for file, options, about in ((usage, about_usage, "USAGE"), (events, about_events, "--events")):
        for option, value in options.items():
            if file is None and value is not None:
                message = (
                    f"{option}: expected it with a file {about}, which it is about, received "
                    "it without"
                )
                raise InvalidValueError(ErrorCode.PARAMETERS_EXCLUSIVE, message, param=option)


def _require_inputs(billed: Sequence[Subscription], usage: str | None, events: str | None) -> None:
    """Refuse to bill an item whose usage was not given: it would be billed as unused without a
    word.
    """
    for item in (item for one in billed for item in one.items if item.is_metered):
        param, file, sort = ("USAGE", usage, "usage records")
        if item.recurring.meter is not None:
            param, file, sort = ("--events", events, "meter events")
        if file is None:
            message = (
                f"{param}: expected a file of {sort}, which the item {item.id!r} bills, "
                "received none"
            )
            raise InvalidValueError(ErrorCode.PARAMETER_MISSING, message, param=param)


def _combined(
    records: Loaded, events: MeterLog, with_events: Mapping[str, tuple[BillingPeriod, ...]]
) -> Loaded:
    """Put both generations of usage behind one seam, with the periods of both in order."""
    periods = {
        one: tuple(
            sorted(
                {*records.periods.get(one, ()), *with_events.get(one, ())}, key=attrgetter("start")
            )
        )
        for one in {**records.periods, **with_events}
    }
    return Loaded(CombinedUsage(records.usage, events), periods, records.accepted + len(events))


def _invoices(
    catalog: Catalog, usage: Usage, periods: Mapping[str, tuple[BillingPeriod, ...]]
) -> list[Invoice]:
    """Bill each period as at its own end, so that the day of the run does not matter."""
    return [
        finalize_invoice(subscription, usage, period, now=period.end)
        for subscription in catalog.subscriptions
        for period in periods.get(subscription.id, ())
    ]


def _print_tables(invoices: Sequence[Invoice], *, explained: bool) -> None:
    for number, one in enumerate(invoices):
        explanations = [f"\n{explain(line)}" for line in one.lines] if explained else []
        print(*([""] if number else []), one, *explanations, sep="\n")


def _invoice_fields(one: Invoice, *, explained: bool) -> dict[str, Any]:
    if not explained:
        return one.to_dict()
    lines = [
        line.to_dict() | {"explanation": str(explain(line)).splitlines()} for line in one.lines
    ]
    return one.to_dict() | {"lines": lines}


def _print_csv(invoices: Sequence[Invoice]) -> None:
    lines = (_line_fields(one, line) for one in invoices for line in one.lines)
    write_csv_rows(
        sys.stdout,
        [_LINE_COLUMNS, *([fields[column] for column in _LINE_COLUMNS] for fields in lines)],
    )


def _line_fields(one: Invoice, line: InvoiceLineItem) -> dict[str, Any]:
    period = {"period_start": one.period.start_seconds, "period_end": one.period.end_seconds}
    return (
        line.to_dict()
        | period
        | {"invoice": one.id, "subscription": one.subscription, "currency": one.currency}
    )


_LINE_COLUMNS: Final = (
    *(
        "invoice",
        "subscription",
        "currency",
        "period_start",
        "period_end",
        "subscription_item",
        "price",
        "description",
    ),
    *(
        "kind",
        "tier",
        "quantity",
        "packages",
        "unit_amount",
        "exact",
        "amount",
        "total_usage",
        "aggregate_usage",
    ),
)


# summaries ----------------------------------------------------------------------------------------


@app.command
def summaries(
    catalog: str,
    /,
    *,
    events: Annotated[str, Parameter(allow_leading_hyphen=True)],
    meter: str,
    customer: str,
    start: Annotated[str, Parameter(name="--from", allow_leading_hyphen=True)],
    end: Annotated[str, Parameter(name="--to", allow_leading_hyphen=True)],
    by: ValueGroupingWindow | None = None,
    timezone: str = "UTC",
    on_error: OnError = OnError.STOP,
    rejects: RejectsFile = None,
    policies: EventPolicyOptions = _EVENTS_UNLESS_GIVEN,
    as_json: Annotated[bool, Parameter(name="--json", negative="", show_default=False)] = False,
) -> int:
    """Say what a customer's events of a meter come to, in a range of time and in each hour, day,
    week or month of it.

    Args:
        catalog: JSON file with meters.
        events: File of meter events: CSV with a header, or JSON lines; '-' reads standard input.
        meter: The meter's id.
        customer: The customer's id.
        start: First moment of the range: Unix seconds, or ISO 8601 with an offset.
        end: First moment after it.
        by: What to cut the range into.
        timezone: IANA zone of the calendar, in which times are printed.
        on_error: At a malformed row or a refused event stop, or skip it; both name its line, and
            the exit status is 1.
        rejects: Write each such row into this file (.csv, .jsonl): path, line, code, message and
            the row.
        policies: What is accepted.
        as_json: Print Stripe's summaries as JSON: Unix seconds, exact decimals as strings.
    """
    time = policies.time()
    bounds = instant_option(start, "--from", time), instant_option(end, "--to", time)
    refuse_same_file(rejects, catalog, events)
    known = catalog_at(catalog, time)
    key = known.meters[meter].customer_payload_key if meter in known.meters else ""
    senders: set[str | None] = set()

    def note(event: MeterEvent) -> None:
        senders.add(event.payload.get(key))

    with refusals_of(on_error, rejects) as refusals:
        reading = Reading(time, refusals)
        log, _ = load_events(known, events, reading, policies.of_events(), on_event=note)
    (whole,) = event_summaries(log, meter, customer, *bounds)
    _require_known(customer, known, senders)
    parts = event_summaries(
        log, meter, customer, *bounds, value_grouping_window=by, timezone=timezone
    )
    if as_json:
        print_json({"summary": whole.to_dict(), "summaries": [one.to_dict() for one in parts]})
    else:
        footer = _summary_row(whole, timezone) if by is not None else ()
        _print_table(
            ("From", "To", "Events", "Value"),
            [_summary_row(one, timezone) for one in parts],
            footer,
        )
    return REFUSED if refusals.found else OK


def _require_known(customer: str, catalog: Catalog, senders: Iterable[str | None]) -> None:
    """Refuse a customer of whom neither the catalog nor an event knows: a slip would read as no
    usage.
    """
    known = {one.customer for one in catalog.subscriptions} | set(senders)
    if customer not in known:
        message = (
            "--customer: expected a customer of the catalog or of an event, received "
            f"{describe(customer)}"
        )
        message += Spellings(one for one in known if one is not None).near(customer)
        raise InvalidValueError(ErrorCode.PARAMETER_INVALID_CHOICE, message, param="--customer")


def _summary_row(one: MeterEventSummary, timezone: str) -> tuple[str, ...]:
    times = (_in_zone(moment, timezone) for moment in (one.start_time, one.end_time))
    return (*times, f"{one.events:,}", plain(one.aggregated_value))


# rate ---------------------------------------------------------------------------------------------


@app.command(name="rate")
def rate_quantities(
    price: str,
    /,
    *quantities: Annotated[str, Parameter(name="QUANTITY", allow_leading_hyphen=True)],
    as_json: Annotated[bool, Parameter(name="--json", negative="", show_default=False)] = False,
) -> None:
    """Say what quantities cost at a price, tier by tier, exactly and settled.

    Args:
        price: JSON file with a price, or CATALOG.json#price_id.
        quantities: Units: integers, or decimals such as 2.5.
        as_json: Print JSON, in minor units.
    """
    if not quantities:
        raise InvalidValueError(
            ErrorCode.PARAMETER_MISSING,
            "expected at least one QUANTITY, received none",
            param="quantity",
        )
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
    _print_table(("Description", "Quantity", "Exactly", "Amount"), rows, footer)


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


# check --------------------------------------------------------------------------------------------


@app.command
def check(
    *files: Annotated[str, Parameter(name="FILE")],
    kind: str | None = None,
    as_json: Annotated[bool, Parameter(name="--json", negative="", show_default=False)] = False,
) -> int:
    """Run worked cases from JSON files against the engine and print what differs.

    Exit status 1 where a case differs, 2 where a file is unreadable.

    Args:
        files: JSON files of cases.
        kind: Only cases of this kind: rating, aggregation, period, append, invoice or meter.
        as_json: Print the result of every case as JSON.
    """
    if not files:
        raise InvalidValueError(
            ErrorCode.PARAMETER_MISSING,
            "expected at least one FILE of cases, received none",
            param="file",
        )
    results = {file: found for file in files if (found := _results(file, kind)) is not None}
    different = sum(bool(result.differences) for found in results.values() for result in found)
    if as_json:
        print_json(
            {
                "files": [
                    {"path": file, "cases": [_case_fields(one) for one in found]}
                    for file, found in results.items()
                ]
            }
        )
    else:
        _print_differences(results)
        print(_count_sentence(sum(map(len, results.values())), len(results), different))
    if len(results) < len(set(files)):
        return UNUSABLE
    return REFUSED if different else OK


def _results(file: str, kind: str | None) -> list[CaseResult] | None:
    """Return what came of the cases of a file, or complain and return None where it is
    unreadable.
    """
    try:
        data = read_cases(file)
    except CatalogError as error:
        complain(error.message)
        return None
    if "cases" not in data:
        complain(
            f"{file}: expected a file of cases, which has the key 'cases'; `metering-core "
            "audit` looks at prices"
        )
        return None
    try:
        return run_cases(data, kind)
    except CatalogError as error:
        complain(f"{file}: {error.message}")
        return None


def _print_differences(results: Mapping[str, Sequence[CaseResult]]) -> None:
    for file, found in results.items():
        for result in found:
            if result.differences:
                differences = [f"  {shown(one)}" for one in result.differences]
                print(shown(f"{file}: {result.id} ({result.kind})"), *differences, sep="\n")


def _count_sentence(cases: int, files: int, different: int) -> str:
    agree = cases - different
    of_what = (
        f"{cases:,} {'case' if cases == 1 else 'cases'} in {files:,} "
        f"{'file' if files == 1 else 'files'}"
    )
    return (
        f"{of_what}: {agree:,} {'agrees' if agree == 1 else 'agree'}, {different:,} "
        f"{'differs' if different == 1 else 'differ'}"
    )


def _case_fields(result: CaseResult) -> dict[str, Any]:
    return {"id": result.id, "kind": result.kind, "differences": list(result.differences)}


# periods ------------------------------------------------------------------------------------------


@app.command
def periods(
    anchor: Annotated[str, Parameter(allow_leading_hyphen=True)],
    interval: str,
    /,
    *,
    count: WholeNumber = 1,
    timezone: str = "UTC",
    at: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    number: WholeNumber = 12,
) -> None:
    """Print billing periods, one a line: the first moment of each, and the first moment after it.

    Args:
        anchor: A boundary: Unix seconds, or ISO 8601 with an offset.
        interval: day, week, month or year.
        count: Intervals in one period.
        timezone: IANA zone whose wall clock the boundaries keep, and in which they are printed.
        at: Begin with the period that holds this instant rather than with the anchor.
        number: How many periods to print.
    """
    if number < 1:
        expected = "an integer of at least 1"
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_INTEGER, "--number", expected, number
        )
    cycle = BillingCycle(_boundary(anchor, "ANCHOR"), cast("Any", interval), count, timezone)
    first = cycle.anchor if at is None else _boundary(at, "--at")
    for period in islice(cycle.periods_from(first), number):
        print(_in_zone(period.start, timezone), _in_zone(period.end, timezone))


def _boundary(text: str, option: str) -> datetime:
    """Return a moment of any year, unless it is written in digits that look like something else."""
    is_doubtful = text.isdecimal() and likeness(text.lstrip("0")[:30])
    return instant_option(
        text, option, PlausibleTime.until(datetime.now(UTC)) if is_doubtful else ANY_TIME
    )


def _in_zone(moment: datetime, timezone: str) -> str:
    if timezone == "UTC":
        return iso_8601(moment)
    return moment.astimezone(ZoneInfo(timezone)).isoformat()

"""Why a line is what it is: records, cells, tiers and rounding, as data that reads as sentences."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

import attrs

from metering_core.aggregation import Usage, require_usage, summarize
from metering_core.errors import ErrorCode, InvoicingError, shown
from metering_core.exact import Number, Unrounded, cut, plain
from metering_core.invoicing import (
    InvoiceLineItem,
    KeepsRecords,
    RoutesItems,
    grouped,
    percent_in_words,
)
from metering_core.measures import AGGREGATORS, FORMULAS, Aggregator
from metering_core.meter_views import LoggedEvent, MeterReader
from metering_core.meters import Formula
from metering_core.money import Amount, Money
from metering_core.names import offers, require_kind, require_offer
from metering_core.periods import BillingPeriod, from_unix_seconds
from metering_core.prices import AggregateUsage, Priced
from metering_core.pricing import ChargeKind
from metering_core.subscriptions import SubscriptionItem
from metering_core.usage import Action, Cell
from metering_core.views import LoggedRecord, UsageReader

SHOWN_MAX = 10
"""Cells and records that the sentences list one by one; the data holds all."""


@attrs.frozen
class Explanation(Priced):
    """Everything behind one invoice line.

    Attributes:
        line: the line.
        records: the usage records behind its quantity, in the order of arrival; of an item with
            ``last_ever``, those of the deciding cell. Empty where the item is licensed or the
            engine keeps no records.
        cells: what the records fold into, by timestamp.
        deciding: the cells that make the quantity: all for ``sum``, the greatest for ``max``, the
            latest for ``last_…``.
        has_records: whether the engine could be asked for records, or for the events of a meter.
        events: the meter events that count, in the order of time; where the formula looks back,
            also those before the period. On a line of late usage all that count for its period now.
        carried: how much of the quantity is late usage of which earlier period, that was billed
            already: of usage records, and of bills of meters in a snapshot of version 1. Late usage
            of meters has lines of its own.
    """

    line: InvoiceLineItem
    records: tuple[LoggedRecord, ...]
    cells: tuple[Cell, ...]
    deciding: tuple[Cell, ...]
    has_records: bool
    events: tuple[LoggedEvent, ...] = ()
    carried: Mapping[BillingPeriod, Number] = attrs.field(factory=dict, hash=False)

    def __str__(self) -> str:
        """Return the explanation as sentences, from the records to the money."""
        steps = [*self._usage_steps(), *_charge_sentences(self.line), _rounding_sentence(self.line)]
        # Names and payloads are in them: escaped here, where all pass.
        return "\n".join(
            [
                shown(f"{self.line.money} for {self.line.description}"),
                *(f"  {shown(step)}" for step in steps),
            ]
        )

    def _usage_steps(self) -> list[str]:
        line = self.line
        total = _exactly(line.total_usage)
        item = line.subscription_item
        if line.aggregate_usage is None:
            return [f"Quantity: item {item} is licensed; {total} was agreed for {line.period}."]
        if isinstance(line.aggregate_usage, Formula):
            return [*self._event_steps(), self._metered_step(FORMULAS[line.aggregate_usage])]
        words = AGGREGATORS[line.aggregate_usage].words.format(cell="cell", cells="cells")
        usage = f"Quantity: {words} of item {item} in {line.period} is {total}."
        if not self.has_records:
            return [f"Records: the engine that aggregated them keeps none of item {item}.", usage]
        folded = f"{len(self.records)} of item {item}, folded into {len(self.cells)} cells."
        return [f"Records: {folded}", *self._cell_steps(), usage, *self._late_steps()]

    def _metered_step(self, row: Aggregator) -> str:
        line = self.line
        words = row.words.format(cell="meter event", cells="meter events")
        what = f"{words} for item {line.subscription_item} in {line.period}"
        plus = "".join(
            f" and {_exactly(carried)} not billed for {period}"
            for period, carried in self.carried.items()
        )
        part = line.period.part if row.is_weighed else ""
        over = f", averaged over the whole billing period, of which {part} are billed,"
        billed = "" if line.total_usage >= 0 else ", and 0 is billed"
        before = ""
        if line.before is not None:
            before = f" now; {_exactly(line.before.total_usage)} of it were billed before"
        total = _exactly(line.total_usage)
        return f"Quantity: {what}{plus}{over * bool(part)} is {total}{billed}{before}."

    def _late_steps(self) -> list[str]:
        return [
            f"Late: {_exactly(quantity)} of it came after {period}, in which it was used, "
            "had been finalized."
            for period, quantity in self.carried.items()
        ]

    def _event_steps(self) -> list[str]:
        if not self.has_records:
            return [
                (
                    "Events: the engine that aggregated them lists none of item "
                    f"{self.line.subscription_item}."
                )
            ]
        shown = [f"  {_event_sentence(logged)}" for logged in self.events[:SHOWN_MAX]]
        more = (
            [f"  … and {len(self.events) - SHOWN_MAX:,} more events"]
            if len(self.events) > SHOWN_MAX
            else []
        )
        return [
            f"Events: {len(self.events)} count for item {self.line.subscription_item}.",
            *shown,
            *more,
        ]

    def _cell_steps(self) -> list[str]:
        shown = [f"  {_cell_sentence(cell, self._of(cell))}" for cell in self.cells[:SHOWN_MAX]]
        more = len(self.cells) - SHOWN_MAX
        return [*shown, f"  … and {more:,} more cells"] if more > 0 else shown

    def _of(self, cell: Cell) -> list[LoggedRecord]:
        return [logged for logged in self.records if logged.record.timestamp == cell.timestamp]


def explain(line: InvoiceLineItem, *, usage: KeepsRecords | None = None) -> Explanation:
    """Return the records or meter events, the cells, tiers and rounding behind an invoice line.

    The answer is about the usage as it was when the line was made, whatever arrived since.

    Args:
        line: of a preview or an invoice, also one that was pickled or stored.
        usage: the log (or what was restored from its snapshot) that the line was made of, where the
            line no longer has it: it came from another process or from a file, or its log is gone.

    Raises:
        InvoicingError: ``explanation_needs_usage`` where the line lost its usage and none, or other
            usage, is given.
        UsageCompactedError: where the records behind the line were dropped by ``compact``.
    """
    require_kind(
        InvoiceLineItem, line, "line", "an InvoiceLineItem, such as one of an invoice's lines"
    )
    try:
        return _explained(line, _usage_of(line, usage))
    except ReferenceError:
        raise _needs_usage("the line outlived the log that it was made of") from None


def _usage_of(line: InvoiceLineItem, given: KeepsRecords | None) -> KeepsRecords | None:
    """Return the usage as it was when the line was made; None where nobody keeps records."""
    if line.aggregate_usage is None:
        return None
    if given is not None:
        return _as_it_was(line, given)
    if line.usage is None or line.usage.view is not None:
        return None if line.usage is None else line.usage.view
    raise _needs_usage("the line was pickled, copied or stored without it")


def _as_it_was(line: InvoiceLineItem, given: Usage) -> KeepsRecords:
    """Return given usage up to what the line knew, if that comes to the line's quantity."""
    item = SubscriptionItem(line.subscription_item, line.price)
    require_usage(given)
    engine = given.engine_of(item) if offers(given, RoutesItems) else given
    kept = require_offer(
        KeepsRecords,
        engine,
        "usage",
        "usage that keeps its records, such as a UsageLog or a MeterLog",
    )
    sequence = None if line.usage is None else line.usage.sequence
    view = kept if sequence is None else kept.as_of(min(sequence, kept.sequence))
    if line.before is not None and isinstance(view, MeterReader):
        total = max(view.measured(item, line.period), 0)
    else:
        total = summarize(item, view, line.period).total_usage
    if total != line.total_usage:
        quantities = (
            f"expected a quantity of {plain(line.total_usage)}, received one of {plain(total)}"
        )
        raise _needs_usage(f"the usage given is not what the line was made of ({quantities})")
    return view


def _needs_usage(reason: str) -> InvoicingError:
    message = (
        "usage: expected the log that the line was made of, as explain(line, usage=log), "
        f"because {reason}"
    )
    return InvoicingError(ErrorCode.EXPLANATION_NEEDS_USAGE, message, param="usage")


def _explained(line: InvoiceLineItem, usage: KeepsRecords | None) -> Explanation:
    mode = line.aggregate_usage
    if isinstance(mode, Formula) and isinstance(usage, MeterReader):
        item = SubscriptionItem(line.subscription_item, line.price)
        events = usage.counted(item, line.period, measured=line.before is not None)
        merged = usage.merged(item, line.period) if line.before is None else {}
        return Explanation(line, (), (), (), has_records=True, events=tuple(events), carried=merged)
    if not isinstance(mode, AggregateUsage) or not isinstance(usage, UsageReader):
        return Explanation(line, (), (), (), has_records=False)
    cells = usage.cells(line.subscription_item, line.period)
    records = usage.records(line.subscription_item, line.period)
    if not cells and AGGREGATORS[mode].looks_back:
        cells = usage.cells(line.subscription_item, line.period, look_back=True)
        records = [
            one
            for one in usage.records(line.subscription_item)
            if one.billed_at < line.period.start
        ]
    deciding = tuple(AGGREGATORS[mode].deciding(cells, line.total_usage))
    if AGGREGATORS[mode].looks_back:
        stamps = {cell.timestamp for cell in deciding}
        cells, records = deciding, [one for one in records if one.record.timestamp in stamps]
    late = usage.late(line.subscription_item, line.period)
    return Explanation(line, tuple(records), cells, deciding, has_records=True, carried=late)


def _cell_sentence(cell: Cell, records: list[LoggedRecord]) -> str:
    parts = (
        f"{'set' if one.record.action is Action.SET else '+'} {one.record.quantity} "
        f"(#{one.sequence})"
        for one in records[:SHOWN_MAX]
    )
    more = f", … {len(records) - SHOWN_MAX:,} more" if len(records) > SHOWN_MAX else ""
    return (
        f"{from_unix_seconds(cell.timestamp):%Y-%m-%dT%H:%M:%SZ}: {', '.join(parts)}{more} → "
        f"{_exactly(cell.quantity)}"
    )


def _event_sentence(logged: LoggedEvent) -> str:
    event = logged.event
    assert event.instant is not None, "an accepted event has its time"
    payload = ", ".join(f"{key} {value}" for key, value in event.payload.items())
    name = "" if event.identifier is None else f" {event.identifier}"
    return (
        f"{event.instant.isoformat().replace('+00:00', 'Z')}: {event.event_name}{name}: "
        f"{payload} (#{logged.sequence})"
    )


def _charge_sentences(line: InvoiceLineItem) -> list[str]:
    whole = line.charge.amount
    charged = _charge_sentence(line, _exact_amount(whole, line.currency))
    if line.proration is None:
        return [charged]
    amounts = (
        f"{Amount(whole, line.currency)} × {line.proration} = "
        f"{_exact_amount(line.exact, line.currency)}"
    )
    return [
        charged,
        (
            f"Proration: {line.period.part or line.proration} of the billing period are "
            f"billed, to the second; {amounts}."
        ),
    ]


def _charge_sentence(line: InvoiceLineItem, exact: str) -> str:
    charge, units = line.charge, _exactly(line.quantity)
    place = "Price" if charge.tier is None else f"Tier {charge.tier}"
    if charge.unit_amount is None:
        return f"{place}: {units} units come to {exact}."
    if charge.kind is ChargeKind.PERCENT:
        return f"{place}: {percent_in_words(charge, line.currency)} = {exact}."
    unit = Amount(charge.unit_amount, line.currency)
    if charge.kind is ChargeKind.FLAT:
        return f"{place}: it is reached, so its flat amount {unit} is due."
    if charge.packages is not None:
        packages = f"{units} units make {grouped(charge.packages)} packages of {charge.divide_by}"
        return f"{place}: {packages}; {grouped(charge.packages)} × {unit} = {exact}."
    return f"{place}: {units} × {unit} = {exact}."


def _exactly(quantity: Number) -> str:
    """Write a quantity as the line shows it, and in full where the line cuts it."""
    return (
        grouped(quantity)
        if cut(quantity) == quantity
        else f"{grouped(quantity)} (exactly {plain(quantity)})"
    )


def _exact_amount(exact: Unrounded, currency: str) -> str:
    amount = Amount(exact, currency)
    return (
        f"{amount} exactly"
        if isinstance(amount.minor_units, Decimal)
        else f"{amount} (exactly {plain(exact)} minor units)"
    )


def _rounding_sentence(line: InvoiceLineItem) -> str:
    if line.before is not None:
        now, before = (
            Money(line.amount + line.before.amount, line.currency),
            Money(line.before.amount, line.currency),
        )
        way = line.rounding.replace("_", " ")
        return (
            f"Difference: in all it comes to {now} now, settled {way}; {before} of it were "
            f"billed before: {line.money}."
        )
    if line.exact == line.amount:
        return f"Rounding: none needed; the line is {line.money}."
    return (
        f"Rounding: {plain(line.exact)} minor units, {line.rounding.replace('_', ' ')}, is "
        f"{line.amount}: {line.money}."
    )

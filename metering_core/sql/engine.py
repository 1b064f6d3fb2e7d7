"""What every SQL engine does the same way, of either kind of usage: read and judge once, ask once,
remember the answers, and turn rows into partials.

A kind (:mod:`~metering_core.sql.records`, :mod:`~metering_core.sql.events`) says which columns it
reads, which texts sift and judge them, and what an item asks for. Where the statements run is for
:class:`~metering_core.sql.columns.Tables` to know.
"""

# ruff: noqa: S608 - what is put into SQL here are names and numbers of our own

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final

import attrs

from metering_core.aggregation import as_requests
from metering_core.book import Book, OverBook
from metering_core.errors import ErrorCode, InvalidValueError, InvoicingError, MeteringError
from metering_core.exact import Number
from metering_core.feeds.instants import PlausibleTime, time_of
from metering_core.measures import AGGREGATORS, Aggregator, Folded, Partial
from metering_core.names import require_kind
from metering_core.periods import (
    MICROSECONDS,
    BillingPeriod,
    Instant,
    from_unix_seconds,
    iso_8601,
    moment,
)
from metering_core.prices import AggregateUsage
from metering_core.sql.columns import (
    SourceColumns,
    moments_of,
    plausible,
    require_columns,
    require_order,
)
from metering_core.sql.refusing import SqlRows
from metering_core.sql.rules import Row, Span, candidates
from metering_core.sql.texts import statement
from metering_core.subscriptions import SubscriptionItem

if TYPE_CHECKING:
    from metering_core.invoicing import Invoice

REQUESTS: Final[Mapping[str, str]] = {
    "request": "BIGINT",
    "series": "BIGINT",
    "starts": "BIGINT",
    "ends": "BIGINT",
    "looks_back": "BOOLEAN",
    "reads_from": "BIGINT",
    "reads_before": "BIGINT",
    "adds_up": "BOOLEAN",
    "wants_total": "BOOLEAN",
    "wants_latest": "BOOLEAN",
    "is_windowed": "BOOLEAN",
    "wants_texts": "BOOLEAN",
    "wants_area": "BOOLEAN",
    "window_length": "BIGINT",
}
"""The columns of what is asked of the folding, with their types."""

SUM_MAX: Final = 10**38 - 1
"""The greatest number of ``DECIMAL(38, 0)``."""

_BEGINNING: Final = -(2**62)
"""Before every moment."""

_PROBE: Final = AGGREGATORS[AggregateUsage.LAST_DURING_PERIOD]


@attrs.frozen
class Asked:
    """What is asked of the folding, in the ticks of its kind of usage.

    Attributes:
        series: whose usage.
        row: what is measured.
        starts: of the period, inclusive.
        ends: of the period, exclusive.
        window: the length of the windows in which the last one received counts; 0 without.
    """

    series: int
    row: Aggregator = attrs.field(eq=id)
    starts: int
    ends: int
    window: int = 0

    def requested(self, number: int, ticks: int) -> Row:
        """Return the row of ``requests``: what of the folding's answer the measure is made of."""
        made_of, looks_back = self.row.sql, self.row.looks_back
        reads_from, reads_before = self.starts, self.ends
        if self.window:
            reads_from -= reads_from % self.window
            reads_before += -reads_before % self.window
        return (
            *(number, self.series, self.starts, self.ends, looks_back),
            *(_BEGINNING if looks_back else reads_from, reads_before),
            *(made_of == ("total",), "total" in made_of, made_of == ("latest",)),
            *(
                self.window > 0,
                "texts" in made_of,
                "moment" in made_of,
                self.row.window_seconds * ticks,
            ),
        )

    def probe(self) -> Asked:
        """Return what tells whether the period itself has usage, where the measure looks back to
        earlier ones.
        """
        return attrs.evolve(self, row=_PROBE) if self.row.looks_back else self


class SqlUsage(OverBook, SqlRows):
    """Usage that is judged and folded by SQL; itself a :class:`~metering_core.Usage`.

    Answers are remembered: ask :meth:`partials` for everything once, and single questions cost
    nothing afterwards.
    """

    _called: ClassVar[str]
    """What the source is called in refusals."""
    _ticks: ClassVar[int]
    """How many of what its moments count make a second."""
    _relations: ClassVar[Mapping[str, Mapping[str, str]]]
    """The input relations of its statements, with the types of their columns."""
    _sifting: ClassVar[str]
    _judging: ClassVar[str]
    _entries: ClassVar[str]
    _is_judged_again: ClassVar[bool] = False
    """Whether judging costs less for each question than keeping what was judged."""

    def __init__(
        self,
        book: Book,
        now: Instant | None,
        time: PlausibleTime | None,
        *,
        skip_malformed: bool,
    ) -> None:
        self.book = book
        self._now = None if now is None else moment(now, "now")[1] * self._ticks // MICROSECONDS
        self._time = time_of(time)
        self._skips = require_kind(bool, skip_malformed, "skip_malformed", "True or False")
        self._answers: dict[Asked, Partial] = {}
        self._non_empty: set[Asked] = set()

    # What a kind says -----------------------------------------------------------------------------

    @property
    def _required(self) -> Sequence[str]:
        """The columns that the source must have."""
        raise NotImplementedError

    @property
    def _optional(self) -> Sequence[str]:
        """The columns that it may have."""
        raise NotImplementedError

    def _fields(self, columns: SourceColumns) -> dict[str, str]:
        """Return what is read of a row beside its place and its moments."""
        raise NotImplementedError

    def _derived(self, columns: SourceColumns) -> dict[str, str]:
        """Return what is made of these fields."""
        return {}

    def _inspect(self) -> None:
        """Refuse the first malformed row by name, or count such rows."""
        raise NotImplementedError

    def _define_rules(self) -> None:
        """Give the judging what it reads beside the usage, once that is inspected."""
        raise NotImplementedError

    def _look_through(self) -> None:
        """Look through what was judged, before anything is made of it."""

    def _asked(self, item: SubscriptionItem, period: BillingPeriod) -> Asked:
        """Return what an item asks for."""
        raise NotImplementedError

    def _has_none(self, asked: Asked) -> bool:
        """Whether it is known that the series has no usage, so that nothing has to be run."""
        return False

    def _out_of_range(self, cause: object) -> InvoicingError:
        """Return the refusal of a sum that has more digits than SQL adds exactly."""
        raise NotImplementedError

    def _number(self, amount: int) -> Number:
        """Return an amount of the folding as it is billed."""
        raise NotImplementedError

    def _stamp(self, timestamp: int, seq: int) -> Any:
        """Return what the latest cell is told by."""
        raise NotImplementedError

    def _used(self) -> Mapping[str, Sequence[Span]]:
        """Return by item id where usage that it bills may lie, in Unix seconds."""
        raise NotImplementedError

    # Reading and judging --------------------------------------------------------------------------

    def _open(self, tables: Any, source: Any) -> None:
        """Read a source, refuse what cannot be judged, and judge the rest."""
        self._tables = tables
        with tables.opening():
            required, optional = self._required, self._optional
            self._origin, columns = tables.load(source, required, optional)
            self._columns = columns
            if not tables.numbers_rows:
                required = (*required, "seq")
            there = self._origin.reader.columns
            require_columns(there, required, optional, self._now, self._called)
            tables.reading(lambda: tables.view("given", self._given(columns)))
            require_order(tables, columns.integer("seq", "BIGINT"))
            tables.view("sifted", statement(self._sifting))
            self._inspect()
            # Where nothing is malformed, no question has to look for it again.
            usable = "sifted WHERE fault IS NULL" if self._malformed else "given"
            tables.view("usage", f"SELECT * FROM {usable}")
            self._define_rules()
            self._judge()

    def _given(self, columns: SourceColumns) -> str:
        """Return the statement that reads what is sifted."""
        fields = {
            "seq": columns.integer("seq", "BIGINT"),
            **self._fields(columns),
            **moments_of(columns, self._now, self._ticks),
        }
        told = ", ".join(f"{expression} AS {field}" for field, expression in fields.items())
        made = [f"{expression} AS {field}" for field, expression in self._derived(columns).items()]
        read = ", ".join((*plausible(fields, self._time, self._now, self._ticks), *made))
        return f"SELECT {read} FROM (SELECT {told} FROM source) AS told"

    def _judge(self) -> None:
        """Judge, and make entries of what was accepted."""
        self._tables.keep("judged", statement(self._judging), again=self._is_judged_again)
        self._look_through()
        self._tables.view("entries", statement(self._entries))

    def _define(self, name: str, rows: Iterable[Row]) -> None:
        self._tables.define(name, self._relations[name], rows)

    def falls(self) -> MeteringError | None:
        """Return what is wrong with the first row whose ``received_at`` falls, or None: the order
        of rows is that of arrival.

        A row that says nothing of when it was received is passed over.
        """
        for seq, *moments in self._tables.rows(_FALLS):
            received, before = (
                iso_8601(from_unix_seconds(int(one) // self._ticks)) for one in moments
            )
            message = (
                f"received_at: expected a moment at or after {before}, that of an earlier row, "
                f"because the order of rows is the order of arrival, received {received}"
            )
            error = InvalidValueError(
                ErrorCode.PARAMETER_INVALID_INSTANT, message, param="received_at"
            )
            return self._origin.places(self._tables, [int(seq)])[int(seq)].complaint(error)
        return None

    def close(self) -> None:
        """Give back what is kept for this usage; nothing can be asked afterwards but what is
        remembered.
        """
        self._tables.close()

    # What is asked --------------------------------------------------------------------------------

    def partial(self, item: SubscriptionItem, period: BillingPeriod) -> Partial:
        """Return the partial of what a bill of the period counts; see
        :class:`~metering_core.Usage`.

        Raises:
            InvoicingError: ``price_not_metered``, ``subscription_item_unknown``, or
                ``quantity_out_of_range`` where 38 digits do not hold what is added up.
        """
        return self.partials([(item, period)])[0]

    def partials(self, requests: Iterable[tuple[SubscriptionItem, BillingPeriod]]) -> list[Partial]:
        """Return the partials of many items at once, in the order asked; one run over the usage for
        all that are new.

        Of meter events the partial of ``last`` tells those of one moment apart by their ``seq``,
        where a log has the number it gave them.
        """
        asked = [self._asked(item, period) for item, period in as_requests(requests)]
        self._remember(asked)
        return [self._answers[one] for one in asked]

    def _remember(self, asked: Iterable[Asked]) -> None:
        new = [one for one in dict.fromkeys(asked) if one not in self._answers]
        idle = {one: one.row.identity for one in new if self._has_none(one)}
        self._answers.update(idle)
        if wanted := [one for one in new if one not in idle]:
            self._answers.update(self._folded(wanted))

    def _folded(self, asked: Sequence[Asked]) -> dict[Asked, Partial]:
        """Run the folding over the usage, once for all that is asked."""
        self._request(asked)
        found: dict[int, list[Sequence[Any]]] = {}
        for request, *values in self._tables.rows(statement("folding")):
            found.setdefault(int(request), []).append(values)
        self._non_empty.update(asked[number] for number in found)
        return {one: self._partial(one, found.get(at, ())) for at, one in enumerate(asked)}

    def _request(self, asked: Iterable[Asked]) -> None:
        rows = (one.requested(number, self._ticks) for number, one in enumerate(asked))
        self._tables.define("requests", REQUESTS, rows)

    def _partial(self, asked: Asked, rows: Sequence[Sequence[Any]]) -> Partial:
        """Return what the measure works on, in Python's own numbers."""
        row = asked.row
        of_cells = row.of_folded(self._of_rows(asked, rows)) if rows else row.identity
        return row.over(of_cells, row.identity, asked.starts, asked.ends)

    def _of_rows(self, asked: Asked, rows: Sequence[Sequence[Any]]) -> Folded:
        """Return what the rows of a request say. Where they are of texts or windows, a row alone
        has no number of the whole.
        """
        _, _, *counted = rows[0]
        cells, total, greatest, least, timestamp, seq, latest, area = map(self._summed, counted)
        length = asked.row.window_seconds * self._ticks
        peaks = (
            {int(row[1]) // length: self._number(self._summed(row[4])) for row in rows}
            if length
            else {}
        )
        return Folded(
            texts=frozenset(row[0] for row in rows),
            count=cells,
            total=self._number(total),
            greatest=self._number(greatest),
            least=self._number(least),
            latest=(self._stamp(timestamp, seq), self._number(latest)),
            moment=self._number(total * asked.starts + area),
            peaks=tuple(sorted(peaks.items())),
        )

    def _summed(self, amount: Any) -> int:
        """Return a number of the folding as Python's own."""
        whole = 0 if amount is None else int(amount)
        if abs(whole) > SUM_MAX:  # DuckDB before 2.0 goes on to 2**127 - 1 and refuses only then.
            raise self._out_of_range(f"a sum is {whole}")
        return whole

    def periods_with_usage(self) -> dict[str, tuple[BillingPeriod, ...]]:
        """Return the billing periods that bill accepted usage, in order, by the id of their
        subscription.

        The partials of all of them are remembered on the way: what is billed next costs no further
        run.
        """
        possible = [
            (subscription, period, self._asked(item, period))
            for subscription, item, period in candidates(self.book.accounts.values(), self._used())
        ]
        self._remember(one for _, _, asked in possible for one in (asked, asked.probe()))
        found: dict[str, dict[int, BillingPeriod]] = {}
        for subscription, period, asked in possible:
            if asked.probe() in self._non_empty:
                found.setdefault(subscription.id, {})[period.start_seconds] = period
        order = (key for key in self.book.accounts if key in found)
        return {key: tuple(found[key][start] for start in sorted(found[key])) for key in order}

    def _spans(
        self, relation: str, owner: str, moment: str, bounds: Mapping[Any, Span]
    ) -> dict[Any, list[Span]]:
        """Return by owner where its moments lie, in Unix seconds: between its bounds, or where
        those are far apart, around those it has.
        """
        if all(last - first <= _WIDE for first, last in bounds.values()):
            return {one: [span] for one, span in bounds.items()}
        found: dict[Any, list[Span]] = {}
        day = f"CAST(FLOOR({moment} / {_DAY * self._ticks}) AS BIGINT)"
        text = _CLUSTERS.format(relation=relation, owner=owner, day=day)
        for one, first, last in self._tables.rows(text):
            if one in bounds:
                found.setdefault(one, []).append((int(first) * _DAY, (int(last) + 1) * _DAY - 1))
        return found

    # What was billed ------------------------------------------------------------------------------

    def stored_invoice(self, subscription_id: str, period: BillingPeriod) -> Invoice | None:
        """Return the invoice of a period that was finalized before, as ``closed`` has it; None
        where it was not.
        """
        closing = self.book.closing_of(subscription_id, period)
        return None if closing is None else closing.invoice


_FALLS: Final = """
SELECT seq, said, before
FROM (
  SELECT seq, said,
    MAX(said) OVER (ORDER BY seq ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
  FROM usage
  WHERE said IS NOT NULL
) AS told
WHERE said < before
ORDER BY seq
LIMIT 1
"""
"""A row that says that it was received before one that stands before it."""

_DAY: Final = 86_400
_WIDE: Final = 62 * _DAY
"""Within so many seconds each period is looked at. Beyond, only those near a row: a sender may say
anything of time.
"""

_CLUSTERS: Final = """WITH
days AS (
  SELECT DISTINCT {owner} AS owner, {day} AS day FROM {relation}
),
beside AS (
  SELECT owner, day, LAG(day) OVER (PARTITION BY owner ORDER BY day) AS before FROM days
),
clustered AS (
  SELECT
    owner, day,
    SUM(CASE WHEN day - before <= 31 THEN 0 ELSE 1 END)
      OVER (PARTITION BY owner ORDER BY day) AS cluster
  FROM beside
)
SELECT owner, MIN(day) AS first_day, MAX(day) AS last_day
FROM clustered
GROUP BY owner, cluster
"""
"""Days with a row of an owner, those at most a month apart together."""

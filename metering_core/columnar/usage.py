"""Usage of some subscriptions in columns, append-only: judged, kept and answered as the log does, a
batch at a time.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import repeat
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

import attrs
import numpy as np
from numpy.typing import NDArray

from metering_core.acceptance import AcceptancePolicy, Outcome, Receipt, Receipts
from metering_core.accounts import Account, KnownItem, Sent
from metering_core.aggregation import Usage, as_requests, required_mode
from metering_core.book import Billed, Book, Closes, require_book
from metering_core.cells import ItemCells, PeriodCells
from metering_core.changing import FoldedUsage
from metering_core.columnar.answering import Answers, Late, Question, Questions
from metering_core.columnar.arrays import (
    ORIGIN,
    ROWS_MAX,
    Column,
    Flags,
    Integers,
    own,
    received_moments,
)
from metering_core.columnar.batches import UsageBatch
from metering_core.columnar.folding import CODES_MAX, STAMP_BITS, Rows
from metering_core.columnar.identity import Claims, Identities, hashes_of
from metering_core.columnar.judging import NOBODY, Arriving, Exceptions, ItemRules, refusals_of
from metering_core.columnar.parts import Part
from metering_core.errors import ErrorCode, InvalidValueError
from metering_core.guarding import Uncopied
from metering_core.measures import Partial
from metering_core.names import choice, require_iterable, require_kind
from metering_core.periods import (
    MICROSECONDS,
    BillingPeriod,
    Instant,
    from_unix_seconds,
    instant,
)
from metering_core.prices import AggregateUsage
from metering_core.subscriptions import Subscription, SubscriptionItem
from metering_core.usage import Action, Timestamp, UsageRecord
from metering_core.views import LoggedRecord, UsageReader, UsageView, as_limit

if TYPE_CHECKING:
    pass

_EPOCH: Final = from_unix_seconds(0)


@attrs.frozen(eq=False)
class _Kept:
    """Everything that was accepted, as one value: an append or a compaction makes another and puts
    it in place of this one.

    That is one assignment, so what interrupts a call leaves all of what it did or nothing.

    Attributes:
        answers: the rows.
        identities: their ids, also of rows that were dropped.
        sequence: the number of the record accepted last.
        compactions: how often records were dropped.
    """

    answers: Answers
    identities: Identities = attrs.field(factory=Identities)
    sequence: int = 0
    compactions: int = 0


@attrs.define
class _Verdict:
    """What is to become of each row of a batch."""

    accepted: Flags
    attributed: dict[int, int]
    answered: dict[int, Receipt]


class ColumnarUsage(UsageReader, Closes, Uncopied):
    """All usage of some subscriptions, as columns; itself a :class:`~metering_core.Usage`.

    It takes usage a batch at a time and holds 21 to 29 bytes a record. Receipts, summaries,
    invoices, closed periods, compaction and views are those of :class:`~metering_core.UsageLog`.

    Args:
        subscriptions: whose usage to take. More can come later with :meth:`subscribe`.
        policy: what to relax of the rule "in the current billing period and not in the future".
        book: of whatever shares it, such as the ``book`` of a log; one of its own unless given.

    Attributes:
        policy: as given.
        lock: held during every append and every answer; hold it to ask several questions of one
            state.
    """

    instead_of_copying = "Append the same batches to another one."

    def __init__(
        self,
        subscriptions: Iterable[Subscription] = (),
        *,
        policy: AcceptancePolicy | None = None,
        book: Book | None = None,
    ) -> None:
        if policy is not None:
            require_kind(AcceptancePolicy, policy, "policy")
        self.policy: Final = AcceptancePolicy() if policy is None else policy
        self.book = Book() if book is None else require_book(book, measures=False)
        self.book.join(self)
        self.lock = self.book.lock
        self._items: Final[Sequence[KnownItem]] = self.book.by_code
        self._codes: dict[str, int] = {}
        # The door's tables, and the number of what had been told when they were made.
        self._rules: tuple[int, ItemRules] | None = None
        self._kept = _Kept(Answers(self._items))
        for subscription in require_iterable(subscriptions, "subscriptions"):
            self.subscribe(subscription)

    def __len__(self) -> int:
        """Return the number of accepted records that are held; compacted ones are not counted."""
        return len(self._kept.answers)

    def __repr__(self) -> str:
        """Return the counts."""
        return (
            f"<ColumnarUsage: {len(self.subscriptions)} subscriptions, {len(self)} records, "
            f"sequence {self.sequence}>"
        )

    @property
    def sequence(self) -> int:
        """The number of the record accepted last; 0 before the first."""
        return self._kept.sequence

    def subscribe(
        self, subscription: Subscription, *, now: Instant | None = None, rebill: bool = False
    ) -> None:
        """Take usage of a subscription from now on, or take note of a newer version of it (same
        id).

        Arguments as of :meth:`~metering_core.UsageLog.subscribe`.

        Raises:
            InvalidValueError: as :meth:`~metering_core.UsageLog.subscribe`;
                ``parameter_invalid_object`` for more than 2**24 items, whose cells would not fit 64
                bits.
        """
        require_kind(Subscription, subscription, "subscription")
        with self.lock:
            _refuse_many(len(self._items) + len(subscription.items), subscription.id)
            self.book.subscribe(subscription, now=now, rebill=rebill)

    def recorded(self, account: Account) -> FoldedUsage:
        """Return what is known of the usage of a subscription's items; for the book."""
        return FoldedUsage(self.cells_of, account)

    def _code_of(self) -> dict[str, int]:
        """Return the codes of all items by their ids, those of new items included."""
        self.book.finish()
        _refuse_many(len(self._items), "more in the book")  # Others may share it.
        for known in self._items[len(self._codes) :]:
            self._codes[known.item.id] = known.code
        return self._codes

    # The door -------------------------------------------------------------------------------------

    def append(
        self,
        batch: UsageBatch | Iterable[UsageRecord],
        *,
        now: Instant | None = None,
        received_at: Column | None = None,
    ) -> Receipts:
        """Append a batch, each record judged as if alone after the ones before.

        Args:
            batch: the records.
            now: the moment of receipt of all of them.
            received_at: instead of ``now``, the moment of receipt of each (aware datetimes or Unix
                seconds); which is how history is imported.

        Returns:
            One receipt per record, in order. What was refused left no trace.

        Raises:
            InvalidValueError: for a malformed value, or where both or none of ``now`` and
                ``received_at`` are given. Nothing was appended then.
        """
        given = batch if isinstance(batch, UsageBatch) else UsageBatch.from_records(batch)
        received = received_moments(len(given), now, received_at)
        with self.lock:
            self.book.begin_change()
            if self.sequence + len(given) > ROWS_MAX:
                expected = f"at most {ROWS_MAX} records in all"
                raise InvalidValueError.expecting(
                    ErrorCode.PARAMETER_INVALID_OBJECT, "batch", expected, len(given)
                )
            arriving = self._arriving(given, received // MICROSECONDS)
            verdict = self._judge(arriving, given)
            numbers = self._numbers(verdict.accepted)
            receipts = self._receipts(arriving, verdict, numbers)
            self._kept = self._with(arriving, given, verdict, numbers, received)
            return receipts

    def _arriving(self, given: UsageBatch, seconds: int | Integers) -> Arriving:
        named = np.fromiter(
            map(self._code_of().get, given.names, repeat(NOBODY)), np.int32, len(given.names)
        )
        places, stamps, as_now = own(given, "codes"), own(given, "timestamps"), own(given, "as_now")
        codes = named.take(places) if len(named) else places
        stamps = stamps if as_now is None else np.where(as_now, seconds, stamps)
        return Arriving(
            given.names,
            named,
            places,
            codes,
            stamps,
            own(given, "quantities"),
            own(given, "sets"),
            seconds,
        )

    def _judge(self, arriving: Arriving, given: UsageBatch) -> _Verdict:
        if self._rules is None or self._rules[0] != self.book.told:
            self._rules = self.book.told, ItemRules(self._items, self.policy)
        rules = self._rules[1]
        verdict = _Verdict(rules.acceptable(arriving), {}, {})
        self._judge_closed(arriving, verdict, rules.may_be_closed(arriving))
        if given.ids is not None:
            self._judge_ids(arriving, given, given.ids, verdict)
        return verdict

    def _judge_closed(self, arriving: Arriving, verdict: _Verdict, suspects: Flags | None) -> None:
        if suspects is None:
            return
        for row in np.flatnonzero(suspects & verdict.accepted).tolist():
            known = self._items[arriving.codes[row]]
            stamp, now, is_set = (
                int(arriving.stamps[row]),
                arriving.now_at(row),
                arriving.is_set_at(row),
            )
            said = known.account.judge_closed(known.item, stamp, now, self.policy, is_set=is_set)
            if isinstance(said, Receipt):
                verdict.accepted[row] = False
                verdict.answered[row] = said
            elif said is not None:
                verdict.attributed[row] = said

    def _judge_ids(
        self, arriving: Arriving, given: UsageBatch, ids: Sequence[str | None], verdict: _Verdict
    ) -> None:
        """Find the rows whose id is taken; the first acceptable row of an item and id claims it."""
        has_id = np.fromiter((one is not None for one in ids), np.bool_, len(ids))
        rows = np.flatnonzero(has_id & (arriving.codes != NOBODY))
        hashes = hashes_of(arriving.codes[rows], [ids[row] for row in rows.tolist()])
        identities = self._kept.identities
        suspects = identities.suspects(hashes)
        claimed: dict[tuple[int, str], int] = {}
        repeated: list[tuple[int, Sent | int]] = []
        for row, hashed in zip(rows[suspects].tolist(), hashes[suspects].tolist(), strict=True):
            code, record_id = int(arriving.codes[row]), ids[row]
            assert record_id is not None, "only rows with an id come here"
            first = claimed.get((code, record_id), identities.find(hashed, code, record_id))
            if first is not None:
                repeated.append((row, first))
                verdict.accepted[row] = False
                verdict.attributed.pop(row, None)
            elif verdict.accepted[row]:
                claimed[code, record_id] = row
        self._answer_repeated(arriving, given, ids, verdict, repeated)

    def _answer_repeated(
        self,
        arriving: Arriving,
        given: UsageBatch,
        ids: Sequence[str | None],
        verdict: _Verdict,
        repeated: Sequence[tuple[int, Sent | int]],
    ) -> None:
        """Answer rows whose id is taken, once it is known which number each accepted row has."""
        if not repeated:
            return
        numbers = self._numbers(verdict.accepted)

        def sent(row: int) -> Sent:
            content = (
                int(arriving.stamps[row]),
                int(arriving.quantities[row]),
                arriving.is_set_at(row),
                _is_as_now(given, row),
            )
            return Sent(int(numbers[row]), *content)

        for row, first in repeated:
            known = sent(first) if isinstance(first, int) else first
            timestamp: Timestamp = "now" if _is_as_now(given, row) else int(arriving.stamps[row])
            quantity, is_set = int(arriving.quantities[row]), arriving.is_set_at(row)
            answer = known.answer(ids[row] or "", quantity, timestamp, is_set=is_set)
            # Of an item that there is no more only a retry is known.
            if answer.outcome is Outcome.DUPLICATE or self._items[arriving.codes[row]].is_active:
                verdict.answered[row] = answer

    def _numbers(self, accepted: Flags) -> range | Integers:
        """Return the sequence number of each accepted row; 0 for the others."""
        if accepted.all():
            return range(self.sequence + 1, self.sequence + len(accepted) + 1)
        numbers = np.cumsum(accepted, dtype=np.int64)
        numbers += self.sequence
        numbers[~accepted] = 0
        return numbers

    def _receipts(
        self, arriving: Arriving, verdict: _Verdict, numbers: range | Integers
    ) -> Receipts:
        if isinstance(numbers, range):
            return Receipts(numbers, {})
        positions = np.flatnonzero(~verdict.accepted)
        refused = (
            positions[~np.isin(positions, list(verdict.answered))]
            if verdict.answered
            else positions
        )
        refusal = refusals_of(arriving, refused, self._items, self.policy)
        return Receipts(
            array("q", numbers.tobytes()), Exceptions(positions, verdict.answered, refusal)
        )

    def _with(
        self,
        arriving: Arriving,
        given: UsageBatch,
        verdict: _Verdict,
        numbers: range | Integers,
        received: int | Integers,
    ) -> _Kept:
        """Return what is kept with what was accepted; late usage is kept apart."""
        late = (
            _late(arriving, row, int(numbers[row]), at, received)
            for row, at in verdict.attributed.items()
        )
        flags = verdict.accepted
        if verdict.attributed:
            flags = flags.copy()
            flags[list(verdict.attributed)] = False
        part = _part(arriving, flags, numbers, received) if flags.any() else None
        identities = self._kept.identities
        if given.ids is not None:
            identities = identities.and_those(_claims(arriving, given, given.ids, verdict, numbers))
        accepted = (
            len(numbers) if isinstance(numbers, range) else int(np.count_nonzero(verdict.accepted))
        )
        sequence = self.sequence + accepted
        return _Kept(
            self._kept.answers.and_those(part, late), identities, sequence, self._kept.compactions
        )

    # Answers --------------------------------------------------------------------------------------

    def partial(self, item: SubscriptionItem, period: BillingPeriod) -> Partial:
        """Return the partial of the item's aggregator in the period; see
        :class:`~metering_core.Usage`.

        Raises:
            InvoicingError: ``subscription_item_unknown``, or ``price_not_metered``.
            UsageCompactedError: where the answer would need records that were dropped.
        """
        require_kind(SubscriptionItem, item, "item")
        require_kind(BillingPeriod, period, "period")
        with self.lock:
            return self._kept.answers.partial(
                Question(self.known(item.id).code, required_mode(item), period)
            )

    def partials(self, requests: Iterable[tuple[SubscriptionItem, BillingPeriod]]) -> list[Partial]:
        """Return the partials of many items at once, in the order asked."""
        with self.lock:
            return self._kept.answers.partials(self.questions(requests), len(self._items))

    def total_usage(
        self, requests: Iterable[tuple[SubscriptionItem, BillingPeriod]]
    ) -> NDArray[Any]:
        """Return the quantity of each request, which is what its summary has as ``total_usage``, in
        the order asked.

        Returns:
            Integers of 64 bits, or exact numbers of Python's (``dtype`` object) where one does not
            fit or, of an average, is not whole; as :func:`~metering_core.rate_many` takes them.

        Raises:
            InvoicingError: as :meth:`partial`.
            UsageCompactedError: as :meth:`partial`.
        """
        with self.lock:
            return self._kept.answers.quantities(self.questions(requests), len(self._items))

    def questions(self, requests: Iterable[tuple[SubscriptionItem, BillingPeriod]]) -> Questions:
        """Return requests with the codes of their items; for the readers of this usage."""
        asked = as_requests(requests)
        items = [item for item, _ in asked]
        code_of = self._code_of()
        codes = np.fromiter([code_of.get(item.id, NOBODY) for item in items], np.intp, len(items))
        prices: list[Any] = [item.price for item in items]  # Each recurs.
        modes: list[AggregateUsage] = [price.recurring.aggregate_usage for price in prices]
        if (codes == NOBODY).any() or None in modes:
            for item in items:  # One of them raises.
                self.known(item.id)
                required_mode(item)
        return Questions.of(codes, modes, [period for _, period in asked])

    @property
    def item_ids(self) -> tuple[str, ...]:
        """The ids of all items there ever were, in the order in which they came."""
        return tuple(self._code_of())

    def total_usage_of_all(
        self, period: BillingPeriod, modes: Iterable[AggregateUsage | str]
    ) -> dict[AggregateUsage, NDArray[Any]]:
        """Return the quantities of all items in a period, in the order of :attr:`item_ids`,
        whatever modes their prices have.

        Args:
            period: one period for all.
            modes: how to aggregate. Several at once cost hardly more than one where the extra
                ``compiled`` is installed.

        Returns:
            For each mode, integers as of :meth:`total_usage`.

        Raises:
            InvalidValueError: ``parameter_invalid_choice`` for an unknown mode.
            UsageCompactedError: as :meth:`partial`.
        """
        require_kind(BillingPeriod, period, "period")
        with self.lock:
            self.book.finish()
            return self._kept.answers.quantities_by_mode(len(self._items), period, _chosen(modes))

    def as_of(self, limit: int | datetime) -> ColumnarView:
        """Return a read-only view of the usage as it was; ``limit`` as in
        :meth:`~metering_core.UsageLog.as_of`.
        """
        return ColumnarView(self, *as_limit(limit, self.sequence, self))

    def answers_until(
        self, sequence: int, received_by: int | None, compacted: Mapping[int, Sequence[PeriodCells]]
    ) -> Answers:
        """Return answers from rows up to a number, received by a moment; for the readers."""
        answers = self._kept.answers
        parts = (part.where(part.is_seen(sequence, received_by)) for part in answers.parts)
        late = (
            one
            for one in answers.late
            if one.number <= sequence and (received_by is None or one.received <= received_by)
        )
        return Answers(self._items, (part for part in parts if len(part.rows)), late, compacted)

    def compacted(self) -> Iterator[tuple[KnownItem, PeriodCells]]:
        """Yield the periods whose records were dropped; for the readers of this usage."""
        for code, periods in self._kept.answers.compacted.items():
            yield from ((self._items[code], cells) for cells in periods)

    @property
    def compactions(self) -> int:
        """How often records were dropped; for the readers of this usage."""
        return self._kept.compactions

    @property
    def item_count(self) -> int:
        """How many items there ever were; for the readers of this usage."""
        return len(self._items)

    # What its readers need: a row is known by its number ------------------------------------------

    def _source(self) -> ColumnarUsage:
        return self

    def _cells(self, item_id: str) -> ItemCells:
        return self.cells_of(item_id)

    def _rows(self, item_id: str | None) -> Iterable[int]:
        return self.rows_of(item_id)

    def known(self, item_id: str) -> KnownItem:
        """Return what is known about an item; for the readers of this usage."""
        return self.book.known(item_id)

    def cells_of(self, item_id: str) -> ItemCells:
        """Return the item's cells; for the readers of this usage."""
        known = self.known(item_id)
        return self._kept.answers.item_cells(known.code, known.account.subscription.cycle)

    def rows_of(self, item_id: str | None) -> Iterable[int]:
        """Return the numbers of an item's records, or of all, as they came; for the readers."""
        code = None if item_id is None else self.known(item_id).code
        answers = self._kept.answers
        numbers = [late.number for late in answers.late if code is None or late.code == code]
        for part in answers.parts:
            held = part.all_numbers()
            numbers += (held if code is None else held[part.rows.codes == code]).tolist()
        return sorted(numbers)

    def compacted_items(self) -> Iterable[str]:
        """Return the ids of items of which a period was compacted; for the readers."""
        return dict.fromkeys(known.item.id for known, _ in self.compacted())

    def sequence_of(self, row: int) -> int:
        """Return the number of a record; for the readers of this usage."""
        return row

    def received_of(self, row: int) -> int:
        """Return when a record was received, in Unix microseconds; for the readers."""
        return self._record_at(row).received

    def _record_at(self, number: int) -> Late:
        late = self._kept.answers.late
        at = bisect_left(late, number, key=attrgetter("number"))
        if at < len(late) and late[at].number == number:
            return late[at]
        parts = self._kept.answers.parts
        part = parts[bisect_right(parts, number, key=lambda one: int(one.numbers[0])) - 1]
        place, rows = part.place_of(number), part.rows
        stamp = int(rows.moments[place])
        is_set = rows.sets is not None and bool(rows.sets[place])
        return Late(
            number,
            int(rows.codes[place]),
            stamp,
            int(rows.values[place]),
            is_set,
            part.received_at(place),
            stamp,
        )

    def logged(self, rows: Iterable[int]) -> Iterator[LoggedRecord]:
        """Yield the records with some numbers; for the readers of this usage."""
        ids: dict[int, dict[int, str]] = {}
        for number in rows:
            found = self._record_at(number)
            if found.code not in ids:
                ids[found.code] = self._kept.identities.ids_of(found.code)
            item_id = self._items[found.code].item.id
            action = Action.SET if found.is_set else Action.INCREMENT
            record = UsageRecord(
                item_id, found.quantity, found.stamp, action, ids[found.code].get(number)
            )
            received_at = _EPOCH + timedelta(microseconds=found.received)
            yield LoggedRecord(number, received_at, record, from_unix_seconds(found.billed_at))

    def last_received(self) -> int | None:
        """Return when the last record came, in Unix microseconds; None where none is held."""
        parts = self._kept.answers.parts
        return parts[-1].received_at(len(parts[-1].rows) - 1) if parts else None

    def fold(self, row: int, cells: ItemCells) -> None:
        """Fold a record into cells; for the readers of this usage."""
        found = self._record_at(row)
        cells.at(found.billed_at).apply(found.stamp, found.quantity, is_set=found.is_set)

    # Closing and compaction -----------------------------------------------------------------------

    def _usage_of(self, invoice: Billed) -> Usage:
        return self

    def compact(self, *, until: Instant | None = None) -> int:
        """Drop the records of closed periods and keep their totals; see
        :meth:`~metering_core.UsageLog.compact`.

        Returns:
            How many records were dropped.
        """
        latest = None if until is None else instant(until, "until")
        with self.lock:
            self.book.begin_change()
            settled, before = self._settled(latest), len(self)
            if settled:
                self._drop(settled)
            return before - len(self)

    def _settled(self, latest: datetime | None) -> list[tuple[KnownItem, PeriodCells]]:
        return [
            (known, cells)
            for known in self._items
            if known.account.closed
            for cells in self.cells_of(known.item.id)
            if known.is_settled(cells, latest)
        ]

    def _drop(self, settled: Sequence[tuple[KnownItem, PeriodCells]]) -> None:
        dropping, answers = _Dropping.of(settled), self._kept.answers
        parts = [dropping.take_out(part) for part in answers.parts]
        late = [one for one in answers.late if not dropping.take_late(one)]
        compacted = dict(answers.compacted)
        for (known, cells), sequences, received in zip(
            settled, dropping.sequences, dropping.received, strict=True
        ):
            mode = known.item.recurring.aggregate_usage
            cells.compact(
                cells.totals(mode, (sequences[0], sequences[1]), (received[0], received[1]))
            )
            compacted[known.code] = (*compacted.get(known.code, ()), cells)
        left = Answers(self._items, (part for part in parts if len(part.rows)), late, compacted)
        self._kept = attrs.evolve(self._kept, answers=left, compactions=self.compactions + 1)


class ColumnarView(UsageView):
    """The usage as it was: read-only, and itself a :class:`~metering_core.Usage`. Later records do
    not change its answers.
    """

    def __init__(self, usage: ColumnarUsage, sequence: int, received_by: datetime | None) -> None:
        super().__init__(usage, sequence, received_by)
        self._usage = usage
        self._answered: tuple[int, Answers] | None = None

    def as_of(self, limit: int | datetime) -> ColumnarView:
        """Return a view that shows no more than this one; ``limit`` as in
        :meth:`~metering_core.UsageLog.as_of`.
        """
        narrower = super().as_of(limit)
        view = ColumnarView(self._usage, narrower.sequence, None)
        view._received_by = narrower._received_by  # noqa: SLF001 - of the same family
        return view

    def partial(self, item: SubscriptionItem, period: BillingPeriod) -> Partial:
        """Return the partial of the item's aggregator in the period; see
        :meth:`ColumnarUsage.partial`.
        """
        return self.partials([(item, period)])[0]

    def partials(self, requests: Iterable[tuple[SubscriptionItem, BillingPeriod]]) -> list[Partial]:
        """Return the partials of many items at once, in the order asked."""
        with self._usage.lock:
            if self._received_by is None and self._sequence == self._usage.sequence:
                return self._usage.partials(requests)
            return self._answers().partials(self._usage.questions(requests), self._usage.item_count)

    def total_usage(
        self, requests: Iterable[tuple[SubscriptionItem, BillingPeriod]]
    ) -> NDArray[Any]:
        """Return the quantity of each request; see :meth:`ColumnarUsage.total_usage`."""
        with self._usage.lock:
            if self._received_by is None and self._sequence == self._usage.sequence:
                return self._usage.total_usage(requests)
            return self._answers().quantities(
                self._usage.questions(requests), self._usage.item_count
            )

    def total_usage_of_all(
        self, period: BillingPeriod, modes: Iterable[AggregateUsage | str]
    ) -> dict[AggregateUsage, NDArray[Any]]:
        """Return the quantities of all items in a period; see
        :meth:`ColumnarUsage.total_usage_of_all`.
        """
        with self._usage.lock:
            return self._answers().quantities_by_mode(
                self._usage.item_count, period, _chosen(modes)
            )

    def _cells(self, item_id: str) -> ItemCells:
        if self._received_by is None and self._sequence == self._usage.sequence:
            return self._usage.cells_of(item_id)
        known = self._usage.known(item_id)
        return self._answers().item_cells(known.code, known.account.subscription.cycle)

    def _answers(self) -> Answers:
        # Built anew after a compaction, so that no answer depends on what was asked before it.
        if self._answered is None or self._answered[0] != self._usage.compactions:
            shown: dict[int, ItemCells] = {}
            for known, cells in self._usage.compacted():
                folded = shown.setdefault(known.code, ItemCells(known.account.subscription.cycle))
                self._take_compacted(folded, cells)
            compacted = {code: tuple(cells) for code, cells in shown.items()}
            answers = self._usage.answers_until(self._sequence, self._received_by, compacted)
            self._answered = self._usage.compactions, answers
        return self._answered[1]


class _Dropping:
    """The rows of settled periods on their way out, and which numbers and moments they had."""

    def __init__(self, keys: Integers, ends: Integers, order: Integers) -> None:
        self._keys = keys
        self._ends = ends
        self._order = order
        largest = np.iinfo(np.int64).max
        self.sequences = np.tile(np.array([largest, -1], np.int64), (len(keys), 1)).tolist()
        self.received = np.tile(np.array([largest, -largest], np.int64), (len(keys), 1)).tolist()

    @classmethod
    def of(cls, settled: Sequence[tuple[KnownItem, PeriodCells]]) -> _Dropping:
        """Sort the periods by item and start."""
        keys = np.array([_key(known.code, cells.start) for known, cells in settled], np.int64)
        ends = np.array([_key(known.code, cells.end) for known, cells in settled], np.int64)
        order = np.argsort(keys)
        return cls(keys[order], ends[order], order)

    def _period_of(self, keys: Integers) -> Integers:
        """Return which settled period each cell lies in; -1 for none."""
        places = np.searchsorted(self._keys, keys, side="right") - 1
        found = np.maximum(places, 0)
        return np.where((places >= 0) & (keys < self._ends[found]), self._order[found], -1)

    def take_out(self, part: Part) -> Part:
        """Return the rows that stay."""
        keys = (part.rows.codes.astype(np.int64) << STAMP_BITS) + (part.rows.moments - ORIGIN)
        periods = self._period_of(keys)
        dropped = np.flatnonzero(periods >= 0)
        received = np.broadcast_to(np.asarray(part.received, np.int64), len(periods))
        columns = (
            periods[dropped].tolist(),
            part.all_numbers()[dropped].tolist(),
            received[dropped].tolist(),
        )
        for period, number, at in zip(*columns, strict=True):
            self._note(period, number, at)
        return part.where(periods < 0)

    def take_late(self, late: Late) -> bool:
        """Say whether a late row goes, too."""
        (period,) = self._period_of(np.array([_key(late.code, late.billed_at)], np.int64)).tolist()
        if period < 0:
            return False
        self._note(period, late.number, late.received)
        return True

    def _note(self, period: int, number: int, received: int) -> None:
        sequences, moments = self.sequences[period], self.received[period]
        sequences[:] = min(sequences[0], number), max(sequences[1], number)
        moments[:] = min(moments[0], received), max(moments[1], received)


def _refuse_many(items: int, received: str) -> None:
    """Refuse more items than the cells of fit 64 bits."""
    if items > CODES_MAX:
        expected = f"at most {CODES_MAX} items in all"
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_OBJECT, "subscription", expected, received
        )


def _key(code: int, stamp: int) -> int:
    return (code << STAMP_BITS) + stamp - ORIGIN


def _late(
    arriving: Arriving, row: int, number: int, billed_at: int, received: int | Integers
) -> Late:
    at = received if isinstance(received, int) else int(received[row])
    code, stamp, quantity = (
        int(arriving.codes[row]),
        int(arriving.stamps[row]),
        int(arriving.quantities[row]),
    )
    return Late(number, code, stamp, quantity, arriving.is_set_at(row), at, billed_at)


def _claims(
    arriving: Arriving,
    given: UsageBatch,
    ids: Sequence[str | None],
    verdict: _Verdict,
    numbers: range | Integers,
) -> Claims:
    """Return the ids of the rows that were accepted, with what they were accepted with."""
    rows = np.flatnonzero(
        verdict.accepted & np.fromiter((one is not None for one in ids), np.bool_, len(ids))
    )
    claimed = np.empty(len(rows), np.object_)
    claimed[:] = [ids[row] for row in rows.tolist()]
    codes = arriving.codes[rows]
    flags = (
        np.zeros(len(rows), np.int8)
        if arriving.sets is None
        else arriving.sets[rows].astype(np.int8)
    )
    as_now = own(given, "as_now")
    if as_now is not None:
        flags |= as_now[rows].astype(np.int8) << 1
    sequences = np.asarray(numbers, dtype=np.int64)[rows]
    columns = (claimed, sequences, arriving.stamps[rows], arriving.quantities[rows], flags)
    return Claims.of(hashes_of(codes, claimed.tolist()), codes, *columns)


def _part(
    arriving: Arriving, flags: Flags, numbers: range | Integers, received: int | Integers
) -> Part:
    """Return the flagged rows of a batch; numbers without a gap are kept as a range."""
    which: slice | Flags = slice(None) if flags.all() else flags
    sets = None if arriving.sets is None else arriving.sets[which]
    columns = arriving.codes[which], arriving.stamps[which], arriving.quantities[which]
    rows = Rows.not_below(0, *columns, sets)
    held = (
        numbers[which] if isinstance(which, slice) else np.asarray(numbers, dtype=np.int64)[which]
    )
    first, last = int(held[0]), int(held[-1])
    dense = range(first, last + 1) if last - first + 1 == len(held) else held
    return Part(rows, dense, received if isinstance(received, int) else received[which])


def _chosen(modes: Iterable[AggregateUsage | str]) -> list[AggregateUsage]:
    return list(
        dict.fromkeys(
            choice(AggregateUsage, mode, "modes") for mode in require_iterable(modes, "modes")
        )
    )


def _is_as_now(given: UsageBatch, row: int) -> bool:
    as_now = own(given, "as_now")
    return as_now is not None and bool(as_now[row])

"""What became of each row of a source: what was taken, and where the others stand and why they were
not.
"""

# ruff: noqa: S608 - what is put into SQL here are names and numbers of our own

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Self

import attrs

from metering_core.acceptance import Outcome, Receipt
from metering_core.errors import ErrorCode, InvalidValueError, MeteringError
from metering_core.exact import exact_integer
from metering_core.names import require_iterable
from metering_core.sql.columns import SourceColumns, Tables
from metering_core.sql.loading import Origin
from metering_core.sql.texts import statement

_SEQS_MAX: Final = 100_000
"""Rows that are looked up at once: each number stands in the statement."""


@attrs.frozen
class Counts:
    """What became of the rows of a source.

    Attributes:
        accepted: rows that are billed where something bills them.
        duplicates: rows that were accepted before, under the same id.
        rejected: by code, how many well-formed rows the rules refuse.
        malformed: rows that were skipped because they are none.
    """

    accepted: int
    duplicates: int
    rejected: Mapping[str, int]
    malformed: int

    @classmethod
    def of(cls, verdicts: Iterable[Sequence[Any]], malformed: int) -> Self:
        """Count rows of verdict and number."""
        found = {verdict: int(number) for verdict, number in verdicts}
        accepted, duplicates = found.pop(None, 0), found.pop(Outcome.DUPLICATE.value, 0)
        return cls(accepted, duplicates, {code: found[code] for code in sorted(found)}, malformed)

    @property
    def refused(self) -> int:
        """How many rows were not taken: malformed ones and those that the rules refuse."""
        return self.malformed + sum(self.rejected.values())


class SqlRows:
    """Rows that were sifted and judged by SQL, and why those that were not taken were not; the base
    of all SQL engines.
    """

    _tables: Tables
    _origin: Origin
    _columns: SourceColumns
    _malformed: int = 0
    _skips: bool = False
    _counts: Counts | None = None

    def receipts(self) -> dict[int, Receipt]:
        """Return the receipts of the rows that were refused or were duplicates, by ``seq``, in the
        order of arrival.
        """
        raise NotImplementedError

    def _fault(self, column: str, fields: Mapping[str, Any]) -> InvalidValueError:
        """Return what is wrong with a row of which SQL found a column malformed."""
        raise NotImplementedError

    def _exceptional(self, columns: Iterable[str]) -> Iterable[Sequence[Any]]:
        """Return what was refused or was a duplicate, in the order of arrival."""
        read = ", ".join(columns)
        return self._tables.rows(
            f"SELECT {read} FROM judged WHERE verdict IS NOT NULL ORDER BY seq"
        )

    def _numbered(self, verdicts: Iterable[str]) -> dict[int, int]:
        """Return the numbers that a log would have given to the originals of duplicates, by their
        ``seq``.
        """
        if Outcome.DUPLICATE.value not in verdicts:
            return {}
        return {int(seq): int(number) for seq, number in self._tables.rows(statement("numbering"))}

    def counts(self) -> Counts:
        """Return what became of the rows, counted in one run; the answer is remembered."""
        if self._counts is None:
            counted = "SELECT verdict, COUNT(*) FROM judged GROUP BY verdict"
            self._counts = Counts.of(
                self._tables.rows(counted), self._malformed + len(self._origin.complaints)
            )
        return self._counts

    def refusals(self) -> Iterator[MeteringError]:
        """Yield why each row that was not taken was not, in the order of arrival; a duplicate was
        taken before.

        These are the errors, to the word, that :func:`~metering_core.append_usage` hands to
        ``on_refusal``: a :class:`~metering_core.errors.CatalogError` for a malformed row (of a
        stream an :class:`~metering_core.InvalidValueError`), and a
        :class:`~metering_core.UsageRejectedError` for a record that the rules refuse. ``details``
        has ``seq``, and where the source is a file also ``path``, and ``line``, or in Parquet
        ``row``.

        Malformed rows are among them with ``skip_malformed`` only: else the first one was raised
        when the source was opened. Where text has a column ``seq``, lines that are no rows, and
        therefore have none, come first.
        """
        refused = {
            seq: receipt
            for seq, receipt in self.receipts().items()
            if receipt.outcome is Outcome.REJECTED
        }
        malformed = self._malformed_rows() if self._malformed else {}
        complaints = self._origin.complaints
        places = self._origin.places(self._tables, {*refused, *malformed})
        errors: dict[int, MeteringError] = {
            seq: places[seq].complaint(error) for seq, error in malformed.items()
        }
        errors.update(
            (seq, places[seq].refusal(receipt.error())) for seq, receipt in refused.items()
        )
        if self._origin.has_seq:
            yield from complaints.values()
        else:
            errors.update(complaints)
        yield from (errors[seq] for seq in sorted(errors))

    def rows_at(self, seqs: Iterable[int]) -> dict[int, dict[str, Any]]:
        """Return rows as the source has them, by ``seq``; of at most 100,000 numbers at once.

        Raises:
            InvalidValueError: ``parameter_invalid_object`` for more; ``parameter_invalid_integer``.
        """
        asked = set()
        for at, seq in enumerate(require_iterable(seqs, "seqs")):
            if at == _SEQS_MAX:
                code, expected = (
                    ErrorCode.PARAMETER_INVALID_OBJECT,
                    f"at most {_SEQS_MAX:,} numbers",
                )
                raise InvalidValueError.expecting(code, "seqs", expected, seqs)
            asked.add(exact_integer(seq, f"seqs[{at}]", minimum=None))
        wanted = ", ".join(map(str, sorted(asked)))
        if not wanted:
            return {}
        columns, read = self._read()
        text = f"SELECT seq, {read} FROM source WHERE CAST(seq AS BIGINT) IN ({wanted})"
        return {
            int(seq): self._origin.fields(dict(zip(columns, values, strict=True)))
            for seq, *values in self._tables.rows(text)
        }

    def _read(self) -> tuple[list[str], str]:
        """Return the columns of ``source`` beside its order, and what fetches them."""
        columns = [column for column in self._origin.kinds if column != "seq"]
        names = {column: self._columns.quoted(column) for column in columns}
        shown = (self._origin.shown(f"source.{name}", column) for column, name in names.items())
        return columns, ", ".join(
            f"{value} AS {name}" for value, name in zip(shown, names.values(), strict=True)
        )

    def _sift(self, malformed: int, firsts: Iterable[int]) -> None:
        """Keep how many rows are malformed, or refuse the first of them by name.

        Raises:
            CatalogError, InvalidValueError: for the first malformed row, unless they are skipped.
        """
        self._malformed = malformed
        complaints = self._origin.complaints
        first = min([*firsts, *complaints], default=None)
        if self._skips or first is None:
            return
        if first in complaints:
            raise complaints[first]
        raise self._origin.places(self._tables, [first])[first].complaint(
            self._malformed_rows(first)[first]
        )

    def _malformed_rows(self, first: int | None = None) -> dict[int, InvalidValueError]:
        """Return what is wrong with each malformed row, by ``seq``, or with the first one alone."""
        columns, read = self._read()
        only = "" if first is None else f" AND sifted.seq = {first}"
        text = (
            f"SELECT sifted.seq, sifted.fault, {read} FROM sifted JOIN source ON "
            "CAST(source.seq AS BIGINT) = sifted.seq "
            f"WHERE sifted.fault IS NOT NULL{only}"
        )
        return {
            int(seq): self._said_of(fault, dict(zip(columns, values, strict=True)))
            for seq, fault, *values in self._tables.rows(text)
        }

    def _said_of(self, column: str, values: Mapping[str, Any]) -> InvalidValueError:
        try:
            return self._fault(column, self._origin.fields(values))
        except InvalidValueError as error:
            return error

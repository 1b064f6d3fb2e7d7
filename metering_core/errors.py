"""Every error code, in order of precedence, and the small hierarchy that carries them.

The order of :class:`ErrorCode` is the order of the checks: what cannot be built is noticed first,
then what the door of the log refuses, then what a bill or a stored state refuses. Codes are never
reused or renumbered.

Who must act decides the class: the caller who built nonsense (:class:`InvalidValueError`), the
sender of usage (:class:`UsageRejectedError`), the biller (:class:`InvoicingError`), the keeper of
stored state (:class:`SnapshotError`, :class:`UsageCompactedError`) or the one who installs
(:class:`MissingExtraError`).
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Self
from unicodedata import category

if TYPE_CHECKING:
    from collections.abc import Mapping


__all__ = [
    "CatalogError",
    "ErrorCode",
    "InvalidValueError",
    "InvoicingError",
    "MeteringError",
    "MissingExtraError",
    "SnapshotError",
    "UsageCompactedError",
    "UsageRejectedError",
]


class ErrorCode(StrEnum):
    """A stable name for each reason to refuse, in order of precedence, and what it means."""

    raised_as: str
    meaning: str

    def __new__(cls, value: str, raised_as: str, meaning: str) -> Self:
        """Attach to the code the class that carries it and a paragraph for its reader."""
        code = str.__new__(cls, value)
        code._value_ = value
        code.raised_as = raised_as
        code.meaning = meaning
        return code

    PARAMETER_MISSING = (
        "parameter_missing",
        "InvalidValueError",
        "A required value is absent: a tier's bound, a clock or `now`, a field of a file.",
    )
    PARAMETER_UNKNOWN = (
        "parameter_unknown",
        "InvalidValueError",
        "A key that nothing reads, usually a typing slip.",
    )
    PARAMETERS_EXCLUSIVE = (
        "parameters_exclusive",
        "InvalidValueError",
        (
            "Two values that exclude each other were both given, such as `unit_amount` and "
            "`unit_amount_decimal`."
        ),
    )
    PARAMETER_INVALID_INTEGER = (
        "parameter_invalid_integer",
        "InvalidValueError",
        (
            "Not an integer in the stated bounds. A bool, a float, NaN and a numeric string "
            "are not integers here."
        ),
    )
    PARAMETER_INVALID_DECIMAL = (
        "parameter_invalid_decimal",
        "InvalidValueError",
        (
            "Not an exact, bounded number. Floats and negative amounts are refused; prices and "
            "tier bounds have at most 12 places."
        ),
    )
    PARAMETER_INVALID_STRING = (
        "parameter_invalid_string",
        "InvalidValueError",
        "Not a string of the stated length.",
    )
    PARAMETER_INVALID_CHOICE = (
        "parameter_invalid_choice",
        "InvalidValueError",
        "Not one of the named values, such as an `action` other than `increment` and `set`.",
    )
    PARAMETER_INVALID_INSTANT = (
        "parameter_invalid_instant",
        "InvalidValueError",
        "Not an instant: a naive datetime, a float, or a moment outside the years 1 to 9999.",
    )
    PARAMETER_INVALID_OBJECT = (
        "parameter_invalid_object",
        "InvalidValueError",
        "Not an object of the stated kind, or a set of values that do not fit together.",
    )
    FIELD_NOT_BILLABLE = (
        "field_not_billable",
        "InvalidValueError",
        (
            "A field of a Stripe object alters the bill in a way that is not billed here, such "
            "as a discount, a tax or a pause."
        ),
    )
    INTERVAL_OUT_OF_RANGE = (
        "interval_out_of_range",
        "InvalidValueError",
        "A billing interval longer than 3 years, 36 months, 156 weeks or 1095 days.",
    )
    TIMEZONE_UNKNOWN = (
        "timezone_unknown",
        "InvalidValueError",
        "Not an IANA time zone that this machine knows.",
    )
    CURRENCY_UNKNOWN = (
        "currency_unknown",
        "InvalidValueError",
        "Not a currency of ISO 4217 with a minor unit.",
    )
    CURRENCY_MISMATCH = (
        "currency_mismatch",
        "InvalidValueError",
        "Amounts of two currencies met where one was required.",
    )
    SUBSCRIPTION_ITEM_UNKNOWN = (
        "subscription_item_unknown",
        "UsageRejectedError",
        "The log knows no subscription with this item.",
    )
    ID_REUSED = (
        "id_reused",
        "UsageRejectedError",
        "The record's id was accepted before on this item, with other content.",
    )
    PRICE_NOT_METERED = (
        "price_not_metered",
        "UsageRejectedError",
        (
            "The item's price is licensed or on a meter, so that no usage records bill it; "
            "previews raise `InvoicingError`."
        ),
    )
    SUBSCRIPTION_CANCELED = (
        "subscription_canceled",
        "UsageRejectedError",
        "The subscription had ended when the record arrived.",
    )
    SET_WITH_BILLING_THRESHOLDS = (
        "set_with_billing_thresholds",
        "UsageRejectedError",
        "Only `increment` is allowed where the subscription or the item has billing thresholds.",
    )
    TIMESTAMP_IN_FUTURE = (
        "timestamp_in_future",
        "UsageRejectedError",
        (
            "The timestamp of a usage record or a meter event is later than the log's now plus "
            "the policy's tolerance."
        ),
    )
    TIMESTAMP_AFTER_CURRENT_PERIOD = (
        "timestamp_after_current_period",
        "UsageRejectedError",
        (
            "The timestamp is at or after the end of the current billing period. Reached with "
            "a future tolerance only."
        ),
    )
    TIMESTAMP_BEFORE_CURRENT_PERIOD = (
        "timestamp_before_current_period",
        "UsageRejectedError",
        (
            "The timestamp is before the start of the current billing period and no late grace "
            "covers it."
        ),
    )
    PERIOD_CLOSED = (
        "period_closed",
        "UsageRejectedError",
        "The billing period of the timestamp was finalized: its usage cannot change any more.",
    )
    LATE_USAGE_NOT_BILLABLE = (
        "late_usage_not_billable",
        "UsageRejectedError",
        (
            "The billing period of the timestamp was finalized; a later bill would get it "
            "wrong: a `set`, no `sum`, tiers."
        ),
    )
    PERIOD_BEING_BILLED = (
        "period_being_billed",
        "UsageRejectedError",
        (
            "The thread that bills a period changed the log before it was closed, as from a "
            "pricing model: no bill would have it."
        ),
    )
    SESSION_EXPIRED = (
        "session_expired",
        "UsageRejectedError",
        "The meter event session is older than 15 minutes; a new one is needed.",
    )
    IDENTIFIER_REUSED = (
        "identifier_reused",
        "UsageRejectedError",
        "The meter event's identifier was accepted before with other content.",
    )
    METER_UNKNOWN = (
        "meter_unknown",
        "UsageRejectedError",
        "No meter has this event name, or this id.",
    )
    METER_INACTIVE = (
        "meter_inactive",
        "UsageRejectedError",
        "The meter was deactivated: it takes no further events.",
    )
    CUSTOMER_MISSING = (
        "customer_missing",
        "UsageRejectedError",
        "The payload lacks the key that the meter's `customer_mapping` names.",
    )
    CUSTOMER_UNKNOWN = (
        "customer_unknown",
        "UsageRejectedError",
        (
            "The customer is not among those that the meter log was given, or no customer's id "
            "can be that long."
        ),
    )
    VALUE_MISSING = (
        "value_missing",
        "UsageRejectedError",
        "The payload lacks the key that the meter's `value_settings` names.",
    )
    VALUE_INVALID = (
        "value_invalid",
        "UsageRejectedError",
        (
            "The payload's value is not a plain decimal number, or not one that the meter or "
            "the policy takes."
        ),
    )
    VALUE_TOO_MANY_DIGITS = (
        "value_too_many_digits",
        "UsageRejectedError",
        (
            "The payload's value has more significant digits than the policy takes (15 under "
            "Stripe's)."
        ),
    )
    DIMENSION_MISSING = (
        "dimension_missing",
        "UsageRejectedError",
        "The payload lacks a key that the meter declares as a dimension.",
    )
    TOO_MANY_DIMENSIONS = (
        "too_many_dimensions",
        "UsageRejectedError",
        "The payload has more keys beside the customer and the value than the policy takes.",
    )
    TIMESTAMP_TOO_FAR_IN_PAST = (
        "timestamp_too_far_in_past",
        "UsageRejectedError",
        (
            "The meter event's timestamp is earlier than the policy takes (35 calendar days "
            "before now under Stripe's)."
        ),
    )
    EVENT_NOT_FOUND = (
        "event_not_found",
        "UsageRejectedError",
        "There is no meter event with this event name and identifier to cancel.",
    )
    CANCEL_WINDOW_CLOSED = (
        "cancel_window_closed",
        "UsageRejectedError",
        (
            "The meter event was received longer ago than the policy lets it be canceled (24 "
            "hours unless it says otherwise)."
        ),
    )
    METER_CHANGED = (
        "meter_changed",
        "InvalidValueError",
        (
            "Only a meter's display name and status can change, and an event name belongs to "
            "one meter for ever."
        ),
    )
    FORMULA_NOT_ADDITIVE = (
        "formula_not_additive",
        "InvoicingError",
        "Values of this formula cannot be added over a split of time, customers or dimensions.",
    )
    FORMULA_NOT_AVAILABLE = (
        "formula_not_available",
        "InvoicingError",
        (
            "This engine cannot compute the mode or the formula, and does not guess: a log "
            "computes every one."
        ),
    )
    SUBSCRIPTION_CHANGED = (
        "subscription_changed",
        "InvalidValueError",
        (
            "A new version of a subscription would move boundaries or items that its recorded "
            "usage relies on."
        ),
    )
    CHANGE_NOT_BILLABLE = (
        "change_not_billable",
        "InvalidValueError",
        (
            "A version of a subscription would rebill, in silence, what was used or agreed; or "
            "is to be billed and was not told."
        ),
    )
    USAGE_BILLED_TWICE = (
        "usage_billed_twice",
        "InvalidValueError",
        "Two subscriptions of one customer would bill the same meter events at the same time.",
    )
    INVOICE_CONFLICT = (
        "invoice_conflict",
        "InvoicingError",
        (
            "A period has one invoice for ever: another one was to be kept of it, or one of "
            "two logs would bill another."
        ),
    )
    PERIOD_NOT_OF_SUBSCRIPTION = (
        "period_not_of_subscription",
        "InvoicingError",
        "The period is not a billing period of this subscription.",
    )
    PERIOD_NOT_ENDED = (
        "period_not_ended",
        "InvoicingError",
        "An invoice can be finalized at or after the end of its period, not before.",
    )
    QUANTITY_OUT_OF_RANGE = (
        "quantity_out_of_range",
        "InvoicingError",
        (
            "A sum has more than the 38 digits that SQL adds exactly, or a row more than the "
            "64 bits of a column: never wrapped."
        ),
    )
    PRICING_MODEL_BROKEN = (
        "pricing_model_broken",
        "InvoicingError",
        (
            "A pricing model of the user's own returned something that is no exact charge or "
            "breakpoint."
        ),
    )
    USAGE_COMPACTED = (
        "usage_compacted",
        "UsageCompactedError",
        "The answer would need records that `compact` has dropped.",
    )
    EXPLANATION_NEEDS_USAGE = (
        "explanation_needs_usage",
        "InvoicingError",
        (
            "A line that was pickled, stored or outlived its log is explained with the log "
            "beside it: `explain(line, usage=log)`."
        ),
    )
    SNAPSHOT_VERSION_UNKNOWN = (
        "snapshot_version_unknown",
        "SnapshotError",
        "The snapshot was written by a version of the format that this release does not read.",
    )
    SNAPSHOT_DAMAGED = (
        "snapshot_damaged",
        "SnapshotError",
        "The snapshot's content does not agree with itself or with its checksum.",
    )
    SNAPSHOT_NEEDS_PRICE = (
        "snapshot_needs_price",
        "SnapshotError",
        (
            "The snapshot names a price with a pricing model of the user's own, which must be "
            "given to `restore`."
        ),
    )
    USAGE_UNBILLED = (
        "usage_unbilled",
        "UsageRejectedError",
        (
            "A meter event of a file was accepted and no item bills it: nobody's customer, or "
            "no subscription at its moment."
        ),
    )
    FILE_UNREADABLE = (
        "file_unreadable",
        "CatalogError",
        "A file is absent, is not the JSON or CSV it should be, or has a malformed line.",
    )
    FILE_UNWRITABLE = (
        "file_unwritable",
        "CatalogError",
        "A file cannot be written; what stood there before is whole.",
    )
    COPY_REFUSED = (
        "copy_refused",
        "InvalidValueError",
        (
            "A log cannot be copied or pickled, since both copies would bill its usage. Take a "
            "snapshot, and restore that."
        ),
    )
    EXTRA_MISSING = (
        "extra_missing",
        "MissingExtraError",
        "An optional dependency is not installed; the message names the extra.",
    )


class MeteringError(Exception):
    """Base of everything this library raises on purpose.

    Attributes:
        code: the stable :class:`ErrorCode` to branch on.
        message: a sentence that says what was wrong, what was expected and what was received; one
            line, and what outside names in it cannot show is escaped.
        param: the name of the value at fault, in Stripe's notation (``tiers[2][up_to]``), or None.
        details: the values behind the sentence.
    """

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        *,
        param: str | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        # The names of others are in it: escaped here, where every sentence passes, and not by each
        # who writes one.
        self.message = shown(message)
        super().__init__(self.message)
        self.code = code
        self.param = param
        self.details = dict(details or {})

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle with all four attributes, so that errors cross process boundaries whole.

        What was received may be anything, also a lock or a generator: where it cannot travel, its
        description does.
        """
        details = {
            key: value if _travels(value) else describe(value)
            for key, value in self.details.items()
        }
        return _rebuild, (type(self), self.code, self.message, self.param, details)


def _travels(value: object) -> bool:
    import pickle  # noqa: PLC0415 - it takes its time, and nobody needs it until an error travels

    try:
        pickle.dumps(value)
    except Exception:  # noqa: BLE001 - a caller's value may raise anything
        return False
    return True


def _rebuild(
    kind: type[MeteringError],
    code: ErrorCode,
    message: str,
    param: str | None,
    details: dict[str, Any],
) -> MeteringError:
    return kind(code, message, param=param, details=details)


class InvalidValueError(MeteringError, ValueError):
    """A value that cannot be built: the caller passed nonsense, and nothing changed."""

    @classmethod
    def expecting(cls, code: ErrorCode, param: str, expected: str, received: object) -> Self:
        """Build the sentence "<param>: expected <expected>, received <received>".

        >>> code = ErrorCode.PARAMETER_INVALID_INTEGER
        >>> print(InvalidValueError.expecting(code, "quantity", "an integer", 1.5))
        quantity: expected an integer, received 1.5 (float)
        """
        return cls(
            code,
            f"{param}: expected {expected}, received {describe(received)}",
            param=param,
            details={"expected": expected, "received": received},
        )

    @classmethod
    def exclusive(cls, *names: str) -> Self:
        """Refuse parameters of which only one may be given, in Stripe's words; ``param`` is the
        first.

        >>> print(InvalidValueError.exclusive("now", "received_at"))
        You may only specify one of these parameters: now, received_at.
        """
        message = f"You may only specify one of these parameters: {', '.join(names)}."
        return cls(ErrorCode.PARAMETERS_EXCLUSIVE, message, param=names[0])


class UsageRejectedError(MeteringError):
    """A well-formed usage record that the rules refuse. The log is unchanged."""


class InvoicingError(MeteringError):
    """A bill that cannot be made as asked."""

    @classmethod
    def of_second_invoice(cls, subscription_id: str, expected: str, received: str) -> Self:
        """Return the refusal of a second invoice of a period."""
        message = (
            f"invoice: expected {expected} of subscription {shown(subscription_id)!r}, received "
            f"{received}"
        )
        return cls(ErrorCode.INVOICE_CONFLICT, message, param="invoice")


class UsageCompactedError(MeteringError):
    """An answer that would need records that compaction has dropped."""


class SnapshotError(MeteringError):
    """Stored state that cannot be restored. No log was built."""


class CatalogError(MeteringError, ValueError):
    """A file of prices, subscriptions, usage or cases that cannot be read or written.

    ``param`` names what is wrong within it (``items[0][price]``, ``quantity``), or where that is
    the file itself, the parameter that named it; ``details`` has its ``path`` and the ``line``,
    None where there is none.
    """

    @classmethod
    def of_file(
        cls,
        param: str,
        path: str,
        reason: str,
        line: int | None = None,
        *,
        code: ErrorCode = ErrorCode.FILE_UNREADABLE,
        **details: object,
    ) -> Self:
        """Build the sentence "<path>, line <line>: <reason>", with the place among its details.

        >>> error = CatalogError.of_file("source", "usage.csv", "is not UTF-8", 3)
        >>> print(error, error.param, error.details)
        usage.csv, line 3: is not UTF-8 source {'path': 'usage.csv', 'line': 3}
        """
        message = f"{place_of(path, line)}: {reason}"
        return cls(code, message, param=param, details={"path": path, "line": line, **details})


class MissingExtraError(MeteringError, ImportError):
    """An optional dependency is not installed."""

    @classmethod
    def for_extra(cls, extra: str, feature: str) -> Self:
        """Name the extra that brings what ``feature`` needs."""
        return cls(
            ErrorCode.EXTRA_MISSING,
            f"{feature} needs the extra {extra!r}: pip install 'metering-core[{extra}]'",
            param=extra,
        )


def place_of(path: str, line: int | None = None) -> str:
    """Return how a sentence names a file, or a line of it."""
    return shown(path) if line is None else f"{shown(path)}, line {line}"


def describe(value: object) -> str:
    """Show a value and its type, cut to a readable length; never raises, and never breaks a line.
    Moments are as in files.

    >>> describe("7")
    "'7' (str)"
    >>> describe(datetime(2026, 6, 5, 12, tzinfo=UTC))
    '2026-06-05T12:00:00Z'
    """
    if value is None:
        return "None"
    try:
        if type(value) is datetime:  # Others may be no moment, as the NaT of pandas.
            return datetime.isoformat(value).replace("+00:00", "Z")
        written = _MOMENT.sub(_in_iso, repr(value))
    except Exception:  # noqa: BLE001 - a caller's value may raise anything
        # Python does not write out an int of more than 4300 digits.
        written = (
            "a number too long to show"
            if isinstance(value, int)
            else "a value that cannot be shown"
        )
    if len(written) > 80:
        written = written[:77] + "..."
    return f"{shown(written)} ({type(value).__name__})"


_MOMENT: Final = re.compile(
    r"datetime\.datetime\(([0-9]+(?:, [0-9]+){2,6})((?:, fold=1)?, "
    r"tzinfo=datetime\.timezone\.utc)?\)"
)


def _in_iso(found: re.Match[str]) -> str:
    fields = map(int, found[1].split(", "))  # As `repr` wrote them.
    moment = datetime(*fields, tzinfo=UTC)  # type: ignore[misc,arg-type]
    return moment.replace(tzinfo=None).isoformat() + ("Z" if found[2] else "")


_ESCAPED_CATEGORIES: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})
_DIRECTIONS: Final = frozenset(
    map(chr, (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)))
)


def shown(text: str) -> str:
    r"""Write what comes from outside so that it stays in its place: on one line, and without power
    over a terminal.

    Ids, titles, payloads and names of files are the sender's; a sentence, a table or a log line is
    ours. Control characters, line separators, lone surrogates and marks that turn the direction of
    writing are escaped as Python writes them; all other characters of any script stay. It is
    applied where a text enters a sentence, never to what is kept.

    >>> print(shown("Tokens\nTotal   USD 0.00\x1b[8m"))
    Tokens\nTotal   USD 0.00\x1b[8m
    >>> shown("Müller & 東京")
    'Müller & 東京'
    """
    if (
        text.isprintable()
    ):  # As nearly always; what follows lets more through, such as a space that does not break.
        return text
    return "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    if category(character) not in _ESCAPED_CATEGORIES and character not in _DIRECTIONS:
        return character
    return character.encode("unicode_escape").decode("ascii")

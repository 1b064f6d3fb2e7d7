"""Errors: a code to branch on, a sentence to read, the values behind it, whole also in another
process.
"""

from __future__ import annotations

import pickle
import threading
from datetime import UTC, datetime, timedelta, timezone

import pytest

from metering_core import Price, Recurring, Subscription, SubscriptionItem, UsageLog, errors
from metering_core.errors import (
    ErrorCode,
    InvalidValueError,
    MeteringError,
    MissingExtraError,
    describe,
    shown,
)
from metering_core.periods import BillingCycle

CLASSES = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, MeteringError)
]


@pytest.mark.parametrize("kind", CLASSES)
def test_errors_pickle_whole(kind):
    """An error that crosses a process boundary keeps its class, code, message, param and
    details.
    """
    error = kind(ErrorCode.ID_REUSED, "a sentence", param="id", details={"expected": 1})
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert type(copy) is kind
    assert (copy.code, copy.message, copy.param, copy.details) == (
        "id_reused",
        "a sentence",
        "id",
        {"expected": 1},
    )
    assert str(copy) == "a sentence"


@pytest.mark.parametrize(
    ("name", "parent"),
    [
        ("InvalidValueError", ValueError),
        ("CatalogError", ValueError),
        ("MissingExtraError", ImportError),
    ],
)
def test_errors_have_built_in_parents(name, parent):
    """Code that knows only Python's own exceptions catches ours where they mean the same."""
    assert issubclass(getattr(errors, name), parent)


@pytest.mark.parametrize("code", list(ErrorCode))
def test_codes_explain_themselves(code):
    """Every code names the class that carries it and has a sentence for its reader; its member is
    its value in capitals.
    """
    assert getattr(errors, code.raised_as) in CLASSES
    assert code.meaning.endswith(".")
    assert code.name == code.value.upper()


def test_codes_are_in_the_order_of_the_checks():
    """The door's codes stand in the order in which the door checks."""
    order = list(ErrorCode)
    first = order.index(ErrorCode.SUBSCRIPTION_ITEM_UNKNOWN)
    assert order[first : first + 10] == [
        "subscription_item_unknown",
        "id_reused",
        "price_not_metered",
        "subscription_canceled",
        "set_with_billing_thresholds",
        "timestamp_in_future",
        "timestamp_after_current_period",
        "timestamp_before_current_period",
        "period_closed",
        "late_usage_not_billable",
    ]


def test_codes_of_meter_events_are_in_the_order_of_the_checks():
    """The meter log's codes follow: the session, the event's identity, its payload, its time, then
    cancellations.
    """
    order = list(ErrorCode)
    first = order.index(ErrorCode.SESSION_EXPIRED)
    assert order[first : first + 14] == [
        "session_expired",
        "identifier_reused",
        "meter_unknown",
        "meter_inactive",
        "customer_missing",
        "customer_unknown",
        "value_missing",
        "value_invalid",
        "value_too_many_digits",
        "dimension_missing",
        "too_many_dimensions",
        "timestamp_too_far_in_past",
        "event_not_found",
        "cancel_window_closed",
    ]


class Unshowable:
    """As a row of an ORM whose session is closed."""

    def __repr__(self):
        raise RuntimeError


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (None, "None"),
        (True, "True (bool)"),
        ("7", "'7' (str)"),
        ("x" * 100, "'" + "x" * 76 + "... (str)"),
        pytest.param(10**5000, "a number too long to show (int)", id="huge"),
        pytest.param(
            Unshowable(), "a value that cannot be shown (Unshowable)", id="its repr raises"
        ),
    ],
)
def test_values_are_shown_with_their_type_and_cut(value, written):
    """What was received is shown with its type, at most 80 characters of it, whatever it is."""
    assert describe(value) == written


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("line\nbreak\r", "line\\nbreak\\r"),
        ("\x1b[2Jgone\x9b", "\\x1b[2Jgone\\x9b"),
        ("\u2028 \u2029", "\\u2028 \\u2029"),
        ("\u202edrawkcab\u2066", "\\u202edrawkcab\\u2066"),
        ("\ud800", "\\ud800"),
        ("1\xa0000 Euro, 東京, \u200d👩", "1\xa0000 Euro, 東京, \u200d👩"),
    ],
)
def test_what_comes_from_outside_stays_in_its_line(text, escaped):
    """Control characters, line separators, surrogates and marks of direction are escaped; every
    script stays as it is.
    """
    assert shown(text) == escaped


def test_expecting_keeps_the_values():
    """The sentence's values can be read without parsing it."""
    error = InvalidValueError.expecting(
        ErrorCode.PARAMETER_INVALID_INTEGER, "quantity", "an integer", 1.5
    )
    assert error.details == {"expected": "an integer", "received": 1.5}
    assert error.param == "quantity"


def test_a_missing_extra_says_what_to_install():
    """The message of a missing extra is the command to type."""
    error = MissingExtraError.for_extra("plot", "drawing")
    assert error.code is ErrorCode.EXTRA_MISSING
    assert error.param == "plot"
    assert "pip install 'metering-core[plot]'" in error.message


def test_what_cannot_travel_is_described():
    """An error about a lock, which no process can send, arrives with the lock's description; the
    other values stay whole.
    """
    error = InvalidValueError.expecting(
        ErrorCode.PARAMETER_INVALID_OBJECT, "usage", "a Usage", threading.Lock()
    )
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert (copy.code, copy.param, copy.message) == (error.code, "usage", error.message)
    assert copy.details["expected"] == "a Usage"
    assert copy.details["received"].endswith("(lock)")


def test_moments_are_shown_as_files_have_them():
    """A moment in a sentence is ISO 8601, alone and within other values; a naive one has no
    offset.
    """
    moment = datetime(2026, 6, 5, 12, tzinfo=UTC)
    assert describe(moment) == "2026-06-05T12:00:00Z"
    assert describe(moment.replace(tzinfo=None)) == "2026-06-05T12:00:00"
    assert (
        describe(datetime(2026, 6, 5, tzinfo=timezone(timedelta(hours=2))))
        == "2026-06-05T00:00:00+02:00"
    )
    assert (
        describe([moment.replace(microsecond=5), None])
        == "[2026-06-05T12:00:00.000005Z, None] (list)"
    )
    assert describe((moment.replace(tzinfo=None),)) == "(2026-06-05T12:00:00,) (tuple)"


def test_a_cycle_is_shown_in_words():
    """Whole, and not cut in the middle: whoever moves an anchor reads both of them."""
    item = SubscriptionItem(
        "si", Price.per_unit("p", currency="usd", unit_amount=1, recurring=Recurring())
    )
    log = UsageLog([Subscription("s", [item], datetime(2026, 6, 1, tzinfo=UTC))])
    with pytest.raises(InvalidValueError) as refused:
        log.subscribe(
            Subscription("s", [item], datetime(2026, 6, 2, tzinfo=UTC), timezone="Europe/Berlin")
        )
    for words in (
        "every month from 2026-06-01T00:00:00Z on the clock of UTC",
        "2026-06-02T00:00:00Z on the clock of Europe/",
    ):
        assert words in str(refused.value)
    assert (
        str(BillingCycle(0, "week", 2))
        == "every 2 weeks from 1970-01-01T00:00:00Z on the clock of UTC"
    )

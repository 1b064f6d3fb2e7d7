"""The meter event stream: many events a call, behind sessions of 15 minutes, each event answered on
its own.

Stripe's stream answers nothing and reports errors later (:mod:`~metering_core.stripe.reports`);
here the receipts come at once. Neither the clock nor the tokens are the stream's own: both are
given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, Final, Self

import attrs

from metering_core.acceptance import Outcome, Receipt, Receipts
from metering_core.errors import ErrorCode, InvalidValueError, UsageRejectedError
from metering_core.meter_events import MeterEvent
from metering_core.meter_log import MeterLog
from metering_core.meters import short_name
from metering_core.names import known_keys, name, require_iterable, require_kind, required
from metering_core.periods import (
    INSTANT_TEXT,
    Instant,
    from_unix_seconds,
    instant,
    parse_instant,
    rfc3339,
    unix_seconds,
)

SESSION_SECONDS: Final = 15 * 60
"""How long a session is valid (Stripe's meter event session)."""
TOKEN_MAX: Final = 5000
"""Characters an authentication token may have (Stripe's limit for a string that has none of its
own).
"""


def _id(value: object) -> str:
    return name(value, "id")


def _token(value: object) -> str:
    return short_name(value, "authentication_token", TOKEN_MAX)


def _to_millisecond(value: object, param: str) -> datetime:
    at = instant(value, param)
    return at.replace(microsecond=at.microsecond // 1000 * 1000)


def _created(value: object) -> datetime:
    return _to_millisecond(value, "created")


def _expires_at(value: object) -> datetime:
    return _to_millisecond(value, "expires_at")


@attrs.frozen
class MeterEventSession:
    """Leave to send meter events for 15 minutes, in the shape of Stripe's API v2.

    Attributes:
        id: 1 to 255 characters.
        authentication_token: 1 to 5000 characters; whoever has it may send. Not shown by ``repr``.
        created: UTC, floored to the millisecond, as it is written.
        expires_at: likewise, later than ``created``. The session is valid before it and no longer
            at it: half-open, as every span of time here, and as Stripe's example client has it,
            which asks for a new session once ``expires_at <= now``.

    >>> session = MeterEventSession("mes_1", "t0k3n", created=1717243200, expires_at=1717244100)
    >>> session.to_dict()["expires_at"]
    '2024-06-01T12:15:00.000Z'
    >>> MeterEventSession.from_dict(session.to_dict()) == session
    True

    Raises:
        InvalidValueError: ``param`` names the field.
    """

    id: str = attrs.field(converter=_id)
    authentication_token: str = attrs.field(converter=_token, repr=False)
    created: datetime = attrs.field(converter=_created, kw_only=True)
    expires_at: datetime = attrs.field(converter=_expires_at, kw_only=True)

    def __attrs_post_init__(self) -> None:
        """Refuse a session that is over before it begins."""
        if self.expires_at <= self.created:
            expected = f"a moment after created, {rfc3339(self.created)}"
            raise InvalidValueError.expecting(
                ErrorCode.PARAMETER_INVALID_INSTANT, "expires_at", expected, self.expires_at
            )

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read Stripe's meter event session; ``livemode`` and ``object`` are read past."""
        known_keys(data, _SESSION_KEYS)
        return cls(
            required(data, "id"),
            required(data, "authentication_token"),
            created=_read_instant(data, "created"),
            expires_at=_read_instant(data, "expires_at"),
        )

    def to_dict(self) -> dict[str, Any]:
        """Write Stripe's meter event session, ready for JSON; times are RFC 3339 with
        milliseconds.
        """
        return {
            "id": self.id,
            "object": "v2.billing.meter_event_session",
            "authentication_token": self.authentication_token,
            "created": rfc3339(self.created),
            "expires_at": rfc3339(self.expires_at),
        }


_SESSION_KEYS: Final = frozenset(
    {"id", "object", "authentication_token", "created", "expires_at", "livemode"}
)


def _read_instant(data: Mapping[str, Any], key: str) -> datetime:
    text = required(data, key)
    if not isinstance(text, str):
        raise InvalidValueError.expecting(
            ErrorCode.PARAMETER_INVALID_INSTANT, key, INSTANT_TEXT, text
        )
    return parse_instant(text, key)


class MeterEventStream:
    """Stripe's meter event stream over a meter log: sessions, and batches of events with one
    receipt each.
    """

    def __init__(self, log: MeterLog, *, tokens: Callable[[], str]) -> None:
        """Open the stream.

        Args:
            log: takes the events; its policy's ``batch_max`` bounds a batch.
            tokens: gives an authentication token each time it is called, such as
                ``secrets.token_urlsafe``; never one that an open session has.

        Raises:
            InvalidValueError: ``parameter_invalid_object`` for another log, or for tokens that
                cannot be called.
        """
        require_kind(MeterLog, log, "log")
        if not callable(tokens):
            expected = "a function that returns a new token each time it is called"
            raise InvalidValueError.expecting(
                ErrorCode.PARAMETER_INVALID_OBJECT, "tokens", expected, tokens
            )
        self._log = log
        self._tokens = tokens
        # How many sessions were created, and by token those that were not over when the last one
        # was.
        self._created: tuple[int, dict[str, MeterEventSession]] = (0, {})

    def create_session(self, *, now: Instant) -> MeterEventSession:
        """Open a session from ``now`` (inclusive) for 15 minutes (exclusive). Sessions that are
        over are forgotten.

        Raises:
            InvalidValueError: ``parameter_invalid_instant``; or ``param="authentication_token"``
                where the source of tokens gave no string of 1 to 5000 characters, or one that an
                open session has.
        """
        created = instant(now, "now")
        # By way of Unix seconds, whose bound refuses by name what a sum of datetimes overflows.
        ends = from_unix_seconds(unix_seconds(created) + SESSION_SECONDS)
        expires_at = ends + timedelta(microseconds=created.microsecond)
        token = _token(self._tokens())
        with self._log.lock:
            number, sessions = self._created
            sessions = _still_open(sessions, created)
            if token in sessions:
                expected = "expected one that no open session has, received one a second time"
                message, param = f"authentication_token: {expected}", "authentication_token"
                raise InvalidValueError(ErrorCode.PARAMETER_INVALID_STRING, message, param=param)
            name = f"mes_{number + 1}"
            session = MeterEventSession(name, token, created=created, expires_at=expires_at)
            self._created = number + 1, {**sessions, token: session}
        return session

    def send(
        self,
        events: Iterable[MeterEvent | Mapping[str, Any]],
        *,
        session: MeterEventSession | str,
        now: Instant,
    ) -> Receipts:
        """Take a batch: each event is judged after those before it, as if it came alone, and the
        others go on.

        Args:
            events: meter events, or mappings in Stripe's shape, at most the policy's ``batch_max``
                (100 unless it says otherwise). A mapping that is no event is a rejected receipt
                with the code, message and parameter of the error that building it raises, such as
                ``parameter_missing``.
            session: a session of this stream, or its authentication token.
            now: the moment of receipt.

        Raises:
            UsageRejectedError: ``session_expired``: the session is unknown, or ``now`` is at or
                after its ``expires_at``. A ``now`` before its ``created`` is taken: a clock that is
                put back does not make a session expire.
            InvalidValueError: ``param="events"``: an empty batch, too many events or no batch at
                all; or a ``now`` or session that is none. Nothing was taken.
        """
        self._require_open(session, instant(now, "now"))
        read = [_read(event) for event in self._batch(events)]
        events_read = [event for event in read if isinstance(event, MeterEvent)]
        judged = self._log.append(events_read, now=now)
        return judged if len(judged) == len(read) else _woven(read, judged)

    def _require_open(self, session: MeterEventSession | str, now: datetime) -> None:
        if isinstance(session, MeterEventSession):
            session = session.authentication_token
        token = _token(session)
        # Looked up, so that no session counts but those this stream gave, with the expiry it gave
        # them.
        known = self._created[1].get(token)
        if known is None or known.expires_at <= now:
            received = "one that is unknown or long over"
            if known is not None:
                received = f"one valid until {rfc3339(known.expires_at)}"
            raise UsageRejectedError(
                ErrorCode.SESSION_EXPIRED,
                "The meter event session has expired; create a new one. Expected one of this "
                f"stream that is valid at {rfc3339(now)}, received {received}.",
                param="authentication_token",
                details={"now": now},
            )

    def _batch(self, events: Iterable[object]) -> list[object]:
        code, most = ErrorCode.PARAMETER_INVALID_OBJECT, self._log.policy.batch_max
        expected = "a list of at least 1 meter event"
        if most is not None:
            expected = f"a list of 1 to {most} meter events"
        # A single event, or a body still to be read: neither is a batch.
        if isinstance(events, str | Mapping):
            raise InvalidValueError.expecting(code, "events", expected, events)
        # No more is drawn than what tells that there are too many.
        limit = None if most is None else most + 1
        batch = list(islice(require_iterable(events, "events"), limit))
        if not batch or (most is not None and len(batch) > most):
            message = f"events: expected {expected}, received {len(batch)}"
            details = {"expected": expected, "received": len(batch)}
            raise InvalidValueError(code, message, param="events", details=details)
        return batch


def _woven(read: Iterable[MeterEvent | Receipt], judged: Iterable[Receipt]) -> Receipts:
    """Return the log's answers to the events, with those to what was no event in between."""
    answers = iter(judged)
    receipts = [next(answers) if isinstance(event, MeterEvent) else event for event in read]
    exceptions = {
        at: receipt
        for at, receipt in enumerate(receipts)
        if receipt.outcome is not Outcome.ACCEPTED
    }
    return Receipts(
        [0 if at in exceptions else receipt.sequence or 0 for at, receipt in enumerate(receipts)],
        exceptions,
    )


def _read(event: Any) -> MeterEvent | Receipt:
    """Return an event of a batch, or what its sender hears where it is none."""
    if isinstance(event, MeterEvent):
        return event
    try:
        return MeterEvent.from_dict(event)
    except InvalidValueError as error:
        return Receipt(
            Outcome.REJECTED,
            code=error.code,
            message=error.message,
            param=error.param,
            details=error.details,
        )


def _still_open(
    sessions: Mapping[str, MeterEventSession], now: datetime
) -> dict[str, MeterEventSession]:
    return {token: session for token, session in sessions.items() if session.expires_at > now}

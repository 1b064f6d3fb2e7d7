"""What guards a log: changes that happen whole or not at all, a lock that a fork frees, and that
there is no second one of it.

An exception of outside (Ctrl-C, a timeout, no memory) may land between any two steps, also in what
cleans up after another one. So nothing is cleaned up when it lands. What is under way is noted
first and crossed out last, each in one assignment, and whoever comes next and finds a note puts
back what was begun, or finishes what was decided.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from threading import RLock, get_ident
from typing import Any, ClassVar, Final, NoReturn
from weakref import WeakSet, ref

from metering_core.errors import ErrorCode, InvalidValueError, UsageRejectedError

_LOCKS: Final[WeakSet[RLock]] = WeakSet()


def new_lock() -> RLock:
    """Return a lock that no forked child inherits held by a thread that it does not have."""
    lock = RLock()
    _LOCKS.add(lock)
    return lock


def _free_in_child() -> None:
    for lock in list(_LOCKS):
        if lock.acquire(blocking=False):
            lock.release()
        # As the locks of `logging` and `threading.Condition` are made anew; in its place, because
        # views share it.
        else:
            lock._at_fork_reinit()  # type: ignore[attr-defined]  # noqa: SLF001


if hasattr(os, "register_at_fork"):  # pragma: no branch - there is no fork on Windows
    os.register_at_fork(after_in_child=_free_in_child)


class Uncopied:
    """What there is only one of: a second one alike would bill the same usage twice."""

    instead_of_copying: ClassVar[str] = "Take snapshot(log), and restore() that."

    def __reduce__(self) -> NoReturn:
        """Refuse ``copy.copy``, ``copy.deepcopy`` and ``pickle`` by name."""
        kind = type(self).__name__
        message = (
            f"log: expected a {kind} to stay the only one of its usage, received a request "
            "to copy or pickle it, after which "
            f"both would bill it. {self.instead_of_copying}"
        )
        raise InvalidValueError(
            ErrorCode.COPY_REFUSED, message, param="log", details={"kind": kind}
        )


class Billing:
    """That a thread is billing periods. It is noted weakly, so that a note that nobody crosses out
    says nothing.

    Attributes:
        stored: the invoices that were kept of the periods before, by subscription; None where there
            was none.
        invoices: those that are to be kept.
        settled: what the invoices charged, by item, as soon as that is known; for logs that bill
            differences later.
        outer: what the thread was billing already when this began.
        thread: who bills.
    """

    __slots__ = ("__weakref__", "invoices", "outer", "settled", "stored", "thread")

    def __init__(
        self, invoices: Mapping[str, Any], outer: Billing | None = None
    ) -> None:  # They are made far above.
        self.stored: Final = invoices
        self.invoices = dict(invoices)
        self.settled: dict[str, Any] = {}
        self.outer: Final = outer
        self.thread: Final = get_ident()


class Guarded(Uncopied):
    """A container whose changes happen whole or not at all, whatever interrupts them.

    Attributes:
        lock: held during every append and every answer; hold it to ask several questions of one
            state.
        unfinished: what is under way: None, a weak reference to a :class:`Billing`, or what
            completes it for whoever comes next and may be carried out twice: a decision, or, of an
            append, what drops all that was not committed.
    """

    def __init__(self) -> None:
        self.lock = new_lock()
        self.unfinished: Any = None

    def finish(self) -> None:
        """Put back or finish what was interrupted, before anything is read or changed."""
        if self.unfinished is not None:
            with self.lock:  # What another thread has under way is not unfinished.
                self._finish()

    def _finish(self) -> None:
        unfinished = self.unfinished
        if unfinished is None:
            return  # pragma: no cover - finished by another thread, while this one waited
        if isinstance(unfinished, ref):
            billing = unfinished()
            if billing is not None and billing.thread == get_ident():
                return
        else:
            unfinished()
        self.unfinished = None

    def begin_change(self) -> None:
        """Do as :meth:`finish`, and refuse changes by the thread that is billing a period."""
        self.finish()
        if self.unfinished is not None:
            message = (
                "log: expected no change by the thread that is billing a period until it "
                "is closed, received one "
                "(from a pricing model, a rounding, or within closing())"
            )
            raise UsageRejectedError(ErrorCode.PERIOD_BEING_BILLED, message, param="log")

    def decide(self, change: Callable[[], object]) -> None:
        """Carry out a change whose steps may be taken twice; once it is noted, it has happened."""
        outer = self.unfinished  # None, or that this thread is billing another period.
        self.unfinished = change
        self._finish()
        self.unfinished = outer

    @contextmanager
    def billing(self, invoices: Mapping[str, Any]) -> Iterator[Billing]:
        """Refuse changes by this thread meanwhile; under the lock, which holds off all others."""
        self.finish()
        outer = self.unfinished
        billing = Billing(invoices, None if outer is None else outer())
        note = self.unfinished = ref(billing)
        try:
            yield billing
        finally:
            if self.unfinished is note:
                self.unfinished = outer

    def billing_of(self, subscription: str) -> Billing:
        """Return the note of this thread that it is billing a period of a subscription; under the
        lock.

        Raises:
            InvalidValueError: ``parameter_invalid_object`` where no period of it is being closed.
        """
        self.finish()
        billing = None if self.unfinished is None else self.unfinished()
        while billing is not None and subscription not in billing.invoices:
            billing = billing.outer
        if billing is None:
            code, expected = (
                ErrorCode.PARAMETER_INVALID_OBJECT,
                "the invoice of a period that is being closed",
            )
            raise InvalidValueError.expecting(code, "invoice", expected, subscription)
        found: Billing = billing
        return found

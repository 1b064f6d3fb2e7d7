"""Interrupts a call wherever it stands, and says whether it happened whole or not at all."""

from __future__ import annotations

import _thread
import ctypes
import dis
import inspect
import os
import random
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Self

import attrs
import pytest

import metering_core as mc

_PACKAGE = str(Path(mc.__file__).parent) + os.sep
_BETWEEN = frozenset({"NOP", "SWAP", "COPY", "POP_BLOCK", "PUSH_NULL"})


knows_where_with_exits = pytest.mark.skipif(
    sys.version_info[:2] not in {(3, 11), (3, 12), (3, 13)},
    reason=(
        "where `with` calls `__exit__` is read off the instructions of Python 3.11 to "
        "3.13; in 3.14 a signal may be raised "
        "between `__enter__` and what `with` guards (python/cpython#148874): no lock that "
        "`with` takes is safe there"
    ),
)


@cache
def leaving(code: CodeType) -> frozenset[int]:
    """Return the offsets at which `with` calls `__exit__`, and those of jumps back.

    A tracer can raise there, and would leave the lock held. Nothing else can at `__exit__`: the
    interpreter looks for signals and other threads' exceptions neither between these instructions
    nor between `__enter__` and what `with` guards (bpo-29988).

    From Python 3.12 on, jumping back is a line of its own to a tracer, and no `with` of the
    function guards what it raises there (python/cpython#148278). Of signals that is true in 3.13
    alone, where a loop has a condition: whatever the library does, they may leave a lock with the
    thread that they interrupted (python/cpython#130279). The log is whole then as ever.
    """
    found: set[int] = set()
    instructions = list(dis.get_instructions(code))
    for place, instruction in enumerate(instructions):
        rest = instructions[place : place + 6]
        nones = [one.opname == "LOAD_CONST" and one.argval is None for one in rest]
        if nones[:3] == [True] * 3 and any(one.opname in {"CALL", "PRECALL"} for one in rest[3:]):
            call = next(one for one in rest[3:] if one.opname == "CALL")
            first = place
            while instructions[first - 1].opname in _BETWEEN:
                first -= 1
            found |= {one.offset for one in instructions[first : instructions.index(call) + 1]}
        if instruction.opname == "PUSH_EXC_INFO" and rest[1].opname == "WITH_EXCEPT_START":
            found |= {instruction.offset, rest[1].offset}
        if instruction.opname == "JUMP_BACKWARD" and sys.version_info >= (3, 12):
            # Python 3.12 says of the jump that it is where it leads to.
            found |= (
                {instruction.offset, instruction.argval}
                if sys.version_info < (3, 13)
                else {instruction.offset}
            )
    return frozenset(found)


class Interrupter:
    """Raises an exception at the n-th line (or instruction) of this package that a call
    comes to.
    """

    def __init__(
        self, at: int, error: type[BaseException] = KeyboardInterrupt, *, opcodes: bool = False
    ) -> None:
        self.left = at
        self.error = error
        self.event = "opcode" if opcodes else "line"

    def __enter__(self) -> Self:
        self._before = sys.gettrace()
        sys.settrace(self._called)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)

    def _called(self, frame: FrameType, event: str, argument: object) -> Callable[..., Any] | None:
        if not frame.f_code.co_filename.startswith(_PACKAGE):
            return None
        frame.f_trace_opcodes = self.event == "opcode"
        return self._traced

    def _traced(self, frame: FrameType, event: str, argument: object) -> Callable[..., Any]:
        if event == self.event and frame.f_lasti not in leaving(frame.f_code):
            self.left -= 1
            if self.left == 0:
                raise self.error
        return self._traced


class Recorder(Interrupter):
    """Interrupts nothing, and writes down which line (or instruction) of the code each step is."""

    def __init__(self, *, opcodes: bool = False) -> None:
        super().__init__(0, opcodes=opcodes)
        self.places: list[tuple[CodeType, int]] = []

    def _traced(self, frame: FrameType, event: str, argument: object) -> Callable[..., Any]:
        before = self.left
        super()._traced(frame, event, argument)
        if self.left < before:
            self.places.append(
                (frame.f_code, frame.f_lasti if self.event == "opcode" else frame.f_lineno)
            )
        return self._traced


@attrs.frozen
class Case:
    """A call to interrupt.

    Attributes:
        name: of the verb.
        made: builds what it is called on, the same each time.
        act: the call.
        seen: everything that can be asked, as values; also what later calls come to.
    """

    name: str
    made: Callable[[], Any]
    act: Callable[[Any], object]
    seen: Callable[[Any], object]


def outcome(act: Callable[..., object], *given: object, **options: object) -> object:
    """Return what a call returns, or the code that it refuses with."""
    try:
        return act(*given, **options)
    except mc.MeteringError as error:
        return error.code


def is_free(lock: Any) -> bool:
    """Whether another thread can have a lock."""
    found: list[bool] = []

    def tried() -> None:
        found.append(lock.acquire(blocking=False))
        if found[0]:
            lock.release()

    thread = threading.Thread(target=tried)
    thread.start()
    thread.join()
    return found[0]


def interrupted(case: Case, at: int, *, opcodes: bool = False) -> tuple[Any, bool]:
    """Call with an interrupt at the n-th step; return what was called on, and whether the call came
    that far.
    """
    subject = case.made()
    error = MemoryError if at % 5 == 0 else KeyboardInterrupt
    interrupter = Interrupter(at, error, opcodes=opcodes)
    try:
        with interrupter:
            outcome(case.act, subject)
    except error:
        pass
    return subject, interrupter.left <= 0


def every_place_of(case: Case, *, opcodes: bool = False) -> list[int]:
    """Return the steps of a call that are the first, the second or the last time that it comes to a
    line (or instruction).
    """
    outcome(case.act, case.made())  # Once, so that everything is loaded.
    subject = case.made()
    with Recorder(opcodes=opcodes) as recorder:
        outcome(case.act, subject)
    at: dict[tuple[CodeType, int], list[int]] = {}
    for step, place in enumerate(recorder.places, 1):
        at.setdefault(place, []).append(step)
    return sorted({step for steps in at.values() for step in (*steps[:2], steps[-1])})


def expected(case: Case) -> tuple[object, object]:
    """Return what is seen where the call did not happen, and where it happened whole."""
    untouched, done = case.made(), case.made()
    outcome(case.act, done)
    return case.seen(untouched), case.seen(done)


def torn(case: Case, places: Iterable[int], *, opcodes: bool = False) -> list[str]:
    """Interrupt at each of these steps, and say where something else is seen than nothing or the
    whole.
    """
    allowed, found = expected(case), []
    for at in places:
        subject, _ = interrupted(case, at, opcodes=opcodes)
        if not is_free(subject.lock):
            found.append(f"{case.name}: its lock is held after step {at}")
            continue
        try:
            if case.seen(subject) not in allowed:
                found.append(f"{case.name}: torn by step {at}")
        except Exception as error:  # noqa: BLE001 - whatever a torn log raises is what is looked for
            found.append(f"{case.name}: {error!r} after step {at}")
    return found


# At random moments --------------------------------------------------------------------------------


class Interrupted(BaseException):
    """As a KeyboardInterrupt, which would end all tests where it came too late."""


def interrupt_after(act: Callable[[], object], seconds: float) -> None:
    """Call, and have another thread interrupt the call when some time has passed.

    With plain locks: what interrupts the start of a `threading.Thread` may leave a lock of all
    threads held.
    """
    thread, is_done, has_ended = (
        threading.get_ident(),
        _thread.allocate_lock(),
        _thread.allocate_lock(),
    )
    is_done.acquire()
    has_ended.acquire()

    def raise_there() -> None:
        if not is_done.acquire(timeout=seconds):
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(thread), ctypes.py_object(Interrupted)
            )
        has_ended.release()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # Else the call is over before the other thread has its turn.
    try:
        _thread.start_new_thread(
            raise_there, ()
        )  # Within: it may be raised before the thread has been waited for.
        act()
        is_done.release()
        has_ended.acquire(timeout=1)
        for _ in range(1000):  # Where it was raised in the meantime, it comes here.
            pass
    except Interrupted:  # So the other thread is at its end.
        pass
    finally:
        sys.setswitchinterval(interval)


def signal_after(act: Callable[[], object], seconds: float) -> None:
    """Call, and have a timer's signal interrupt the call when some time has passed."""
    is_over = False

    def raise_here(*_: object) -> None:
        if not is_over:
            raise Interrupted

    before = signal.signal(signal.SIGALRM, raise_here)
    try:
        signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-6))
        act()
        is_over = True
    except Interrupted:
        is_over = True
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def out_of_memory_after(act: Callable[[], object], seconds: float) -> None:
    """Call, and have there be no memory at one of the lines that it comes to."""
    try:
        with Interrupter(1 + int(seconds * 2_000_000), MemoryError):
            act()
    except MemoryError:
        pass


WAYS = [
    interrupt_after,
    out_of_memory_after,
    *([signal_after] if hasattr(signal, "setitimer") else []),
]


def lived(log: Any, acts: Iterable[Callable[[Any], object]]) -> list[object]:
    """Return the states that a log has before each of some calls and after the last one."""
    states = [log.state()]
    for act in acts:
        outcome(act, log)
        states.append(log.state())
    return states


def torn_in_life(
    case: Case, acts: Sequence[Callable[[Any], object]], way: Callable[..., None], seed: int
) -> list[str]:
    """Interrupt each of some calls at a random moment, repeat those that had not happened, and say
    where the log is torn.
    """
    chance, log, undisturbed, found = (
        random.Random(f"{case.name} {seed}"),  # noqa: S311
        case.made(),
        case.made(),
        [],
    )
    states = lived(undisturbed, acts)
    for number, act in enumerate(acts):
        way(lambda act=act: outcome(act, log), 0.002 * chance.random() ** 3)
        if log.state() not in states[number : number + 2]:
            return [f"{case.name}: torn by an interrupt of call {number}"]
        if sys.version_info[:2] != (3, 13) and not is_free(log.lock):  # See `leaving`.
            return [f"{case.name}: its lock is held after call {number}"]
        if log.state() != states[number + 1]:
            outcome(act, log)
            if log.state() != states[number + 1]:
                found.append(f"{case.name}: call {number} comes to something else the second time")
    return (
        found
        if case.seen(log) == case.seen(undisturbed)
        else [*found, f"{case.name}: answers otherwise in the end"]
    )


# Which verbs there are ----------------------------------------------------------------------------


def verbs_of(kind: type) -> dict[str, CodeType]:
    """Return the code of every public method and property of a kind, its bases' in this package
    included, by its name.
    """
    found = {}
    for name in dir(kind):
        if not name.startswith("_"):
            attribute = inspect.getattr_static(kind, name)
            function = (
                attribute.fget
                if isinstance(attribute, property)
                else getattr(attribute, "__func__", attribute)
            )
            code = (
                getattr(inspect.unwrap(function), "__code__", None) if callable(function) else None
            )
            if code is not None:
                found[f"{kind.__name__}.{name}"] = code
    return found


def reached_by(cases: Iterable[Case]) -> set[CodeType]:
    """Return the code that some calls come to, all of which can be interrupted in them."""
    found: set[CodeType] = set()
    for case in cases:
        subject = case.made()
        before = sys.getprofile()
        sys.setprofile(lambda frame, event, _: found.add(frame.f_code) if event == "call" else None)
        try:
            outcome(case.act, subject)
        finally:
            sys.setprofile(before)
    return found


def never_interrupted(
    kinds: Iterable[type], cases: Iterable[Case], left_out: Mapping[str, str]
) -> list[str]:
    """Return the public verbs that no case comes to and no reason leaves out, and what is left out
    without need.
    """
    reached = reached_by(cases)
    verbs = {name: code for kind in kinds for name, code in verbs_of(kind).items()}
    missing = {name for name, code in verbs.items() if code not in reached}
    return sorted(
        missing ^ (left_out.keys() & (missing | verbs.keys())) | (left_out.keys() - verbs.keys())
    )

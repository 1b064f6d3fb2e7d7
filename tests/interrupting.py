"""Interrupts a call wherever it stands, and says whether it happened whole or not at all."""

from __future__ import annotations

import dis
import os
import sys
import threading
from collections.abc import Callable, Iterable
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
    sys.version_info[:2] != (3, 11),
    reason="where `with` calls `__exit__` is read off the instructions of Python 3.11, the oldest that is tested",
)


@cache
def leaving(code: CodeType) -> frozenset[int]:
    """Return the offsets at which `with` calls `__exit__`.

    A tracer can raise there, and would leave the lock held. Nothing else can: the interpreter looks for signals and other
    threads' exceptions neither between these instructions nor between `__enter__` and what `with` guards (bpo-29988).
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
    return frozenset(found)


class Interrupter:
    """Raises an exception at the n-th line (or instruction) of this package that a call comes to."""

    def __init__(self, at: int, error: type[BaseException] = KeyboardInterrupt, *, opcodes: bool = False) -> None:
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
            self.places.append((frame.f_code, frame.f_lasti if self.event == "opcode" else frame.f_lineno))
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
    """Call with an interrupt at the n-th step; return what was called on, and whether the call came that far."""
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
    """Return the steps of a call that are the first, the second or the last time that it comes to a line (or instruction)."""
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
    """Interrupt at each of these steps, and say where something else is seen than nothing or the whole."""
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

"""The fast path of a rate limiter without a lock, and how everything else keeps it out."""

from __future__ import annotations

import functools
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence, Sized
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from asyncguard._machines.gcra import SHUT, Line

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from asyncguard._machines.gate import Wake

__all__ = ["Doors", "alone", "quick", "quick_all"]

P = ParamSpec("P")
T = TypeVar("T")

# Without the interpreter's lock (PEP 703) the fast path needs one of its own.
_GIL: bool = getattr(sys, "_is_gil_enabled", lambda: True)()


def quick(line: Line, clock: Callable[[], int], lock: AbstractContextManager[Any]) -> Callable[[], list[float]]:
    """Return the fast path of a single rate: a call of cost 1 starts now, or LookupError. One clock read and no lock.

    Two threads that read `tat` at the same time would sell one slot twice. CPython (3.11 to 3.13, with its global
    lock) lets another thread run only at a call, at a jump back and at the start of a function, and there is none of
    these between reading `tat` and writing it: arithmetic on ints and slots of an object run no Python code. Methods
    that need longer are `alone`: they shut `gap` first. A test holds the byte code to this. (Under a tracer one call
    too many may start; a lock here costs as much again as everything else.)
    """
    scale, one = line.scale, line.interval

    def take() -> list[float]:
        now = clock() * scale
        ahead = line.tat - now
        if ahead > line.gap:
            raise LookupError
        line.seen = now
        line.tat = now + one if ahead < 0 else line.tat + one
        return [1]

    def take_locked() -> list[float]:
        with lock:
            return take()

    return take if _GIL else take_locked


def quick_all(
    lines: Sequence[Line], clock: Callable[[], int], lock: AbstractContextManager[Any]
) -> Callable[[], list[float]]:
    """Return the same for several rates, all or nothing; these cannot do without the lock.

    Should the garbage collector run here, and end an object that makes a call through the same limiter, that one is let
    in and counted as well: one call more than the burst, and paid for by the next.
    """
    units = [(line, line.scale, line.interval) for line in lines]

    def take() -> list[float]:
        now = clock()
        with lock:
            for line, scale, _ in units:
                if line.tat - now * scale > line.gap:
                    raise LookupError
            for line, scale, one in units:
                line.seen = now * scale
                line.tat = max(line.tat, line.seen) + one
        return [1] * len(units)

    return take


class Doors:
    """What one at a time may change: the base of a bucket.

    What is given back waits in `back` until whoever is inside sees to it. Giving back must not wait, and nobody may
    come in a second time: the garbage collector may end an abandoned call in the middle of a decision, on its thread.
    """

    lines: Sequence[Line]
    queue: Sized

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Begin with nobody inside."""
        self.lock = threading.RLock()  # reentrant, so that who comes in a second time gets an answer
        self.inside = False
        self.back: deque[tuple[Callable[..., Wake], tuple[Any, ...]]] = deque()

    def reentered(self) -> Exception:
        """Return the refusal of a caller that comes in a second time."""
        raise NotImplementedError

    def give(self, do: Callable[..., Wake], *args: Any) -> Wake:
        """Give something back, now or when whoever is inside comes out; return whom to wake."""
        self.back.append((do, args))
        return self.see_to_it()

    def see_to_it(self) -> Wake:
        """Do what was given back, and return whom to wake; not if somebody is inside: they do so after us."""
        woken: list[Any] = []
        while self.back and not self.inside:
            woken += _take_back(self)
        return woken


DoorsT = TypeVar("DoorsT", bound=Doors)


def alone(method: Callable[Concatenate[DoorsT, P], T]) -> Callable[Concatenate[DoorsT, P], T]:
    """Run a method under the lock of its bucket, the fast path shut out; it stays so while anybody waits."""

    @functools.wraps(method)
    def shut(self: DoorsT, /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            with self.lock:
                if self.inside:
                    raise self.reentered()
                self.inside = True
                try:
                    for line in self.lines:
                        line.gap = SHUT
                    return method(self, *args, **kwargs)
                finally:
                    self.inside = False
                    for line in self.lines:
                        line.gap = SHUT if self.queue else line.reach
        finally:
            if self.back:
                for spot in self.see_to_it():
                    spot.wake()

    return shut


@alone
def _take_back(doors: Doors) -> Wake:
    woken: list[Any] = []
    while doors.back:
        do, args = doors.back.popleft()
        woken += do(*args)
    return woken

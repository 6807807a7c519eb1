"""The fast path of a rate limiter, without a lock; `bucket_alone` keeps it out."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from asyncguard._machines.gcra import Line

__all__ = ["quick", "quick_all"]

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

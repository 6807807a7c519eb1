"""One at a time in a rate limiter, its fast path shut out, and nobody who gives something back has to wait."""

from __future__ import annotations

import functools
import threading
from collections import deque
from collections.abc import Callable, Sequence, Sized
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from asyncguard._machines.gate import wake
from asyncguard._machines.gcra import SHUT, Line

if TYPE_CHECKING:
    from asyncguard._machines.gate import Wake

__all__ = ["Exclusive", "alone"]

P = ParamSpec("P")
T = TypeVar("T")


class Exclusive:
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


ExclusiveT = TypeVar("ExclusiveT", bound=Exclusive)


def alone(method: Callable[Concatenate[ExclusiveT, P], T]) -> Callable[Concatenate[ExclusiveT, P], T]:
    """Run a method under the lock of its bucket, the fast path shut out; it stays so while anybody waits."""

    @functools.wraps(method)
    def shut(self: ExclusiveT, /, *args: P.args, **kwargs: P.kwargs) -> T:
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
                wake(self.see_to_it())

    return shut


@alone
def _take_back(bucket: Exclusive) -> Wake:
    woken: list[Any] = []
    while bucket.back:
        do, args = bucket.back.popleft()
        woken += do(*args)
    return woken

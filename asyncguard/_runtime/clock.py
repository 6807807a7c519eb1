"""The clock that everything reads and sleeps on: the real one, or a virtual one inside `asyncguard.testing`."""

from __future__ import annotations

import asyncio
import random
import sys
import threading
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakKeyDictionary

from asyncguard._runtime import forks
from asyncguard._runtime.contexts import bring_back

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Token


_LONGEST = 1e9
"""Seconds: thirty years. What is too long for the operating system would be an error, in place of a sleep."""


class Clock(Protocol):
    """Time in seconds on a monotonic scale, randomness in 0..1, and sleeping in both colours.

    `cores` is the state of strategies on this clock: a virtual clock takes it along when it is gone.
    """

    cores: WeakKeyDictionary[Any, Any]

    def now(self) -> float: ...
    def random(self) -> float: ...
    async def sleep(self, seconds: float) -> None: ...
    def sleep_sync(self, seconds: float) -> None: ...


_WHOLE = "lowlevel"
"""What trio lacks as long as another thread is still importing it."""


def in_trio() -> bool:
    """Tell whether the caller is a trio task (also in guest mode, where an asyncio loop runs as well)."""
    trio: Any = sys.modules.get("trio")
    return trio is not None and hasattr(trio, _WHOLE) and bool(trio.lowlevel.in_trio_task())


def thread_runs_loop() -> bool:
    """Tell whether this thread runs an event loop, so that blocking it would block every task of the loop."""
    if asyncio._get_running_loop() is not None:  # noqa: SLF001 - the documented get_running_loop raises instead
        return True
    trio: Any = sys.modules.get("trio")
    return trio is not None and hasattr(trio, _WHOLE) and bool(trio.lowlevel.in_trio_run())


async def library_sleep(seconds: float) -> None:
    """Sleep in the async library that runs this task."""
    if in_trio():
        await sys.modules["trio"].sleep(seconds)
    else:
        await asyncio.sleep(seconds)


class RealClock:
    """The operating system's monotonic clock and the module's random numbers (reseeded by Python after a fork)."""

    now = staticmethod(time.monotonic)
    random = staticmethod(random.random)
    sleep = staticmethod(library_sleep)

    def __init__(self) -> None:
        self.cores: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()  # unused: it is at hand as `strategy.core`

    def sleep_sync(self, seconds: float) -> None:
        """Block this thread."""
        time.sleep(min(seconds, _LONGEST))

    def __reduce__(self) -> str:
        return "REAL"


REAL: Clock = RealClock()

_chosen: ContextVar[Clock | None] = ContextVar("asyncguard_clock", default=None)
_active = 0
_lock = threading.Lock()
forks.renew_lock(globals(), "_lock")
_watchers: list[Callable[[], None]] = []


def current() -> Clock:
    """Return the clock of this context."""
    return _chosen.get() or REAL


def virtual_active() -> bool:
    """Tell whether any virtual clock is in force anywhere in the process."""
    return _active > 0


def watch(callback: Callable[[], None]) -> None:
    """Call `callback` whenever the first virtual clock comes into force or the last one leaves."""
    _watchers.append(callback)


def activate(clock: Clock) -> Token[Clock | None]:
    """Put a virtual clock in force in this context, and in what is started from it."""
    _count(1)
    return _chosen.set(clock)


def deactivate(token: Token[Clock | None]) -> None:
    """End what `activate` began."""
    bring_back(_chosen, token)
    _count(-1)


def _count(step: int) -> None:
    global _active  # noqa: PLW0603 - one flag for the process, read where a module attribute is cheapest
    with _lock:
        _active += step
    for callback in _watchers:
        callback()

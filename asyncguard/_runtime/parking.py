"""Where a caller waits until somebody wakes it, for each colour. Waking is thread-safe, idempotent, maybe spurious.

A spot is not an asyncio primitive: it is (loop, future) woken from any thread, so that one strategy can serve sync
callers, threads and several event loops at once.
"""

from __future__ import annotations

import asyncio
import math
import sys
import threading
from typing import Any, Protocol

from asyncguard._runtime import clock


class AsyncSpot(Protocol):
    """A parked task; `home` tells its loop from others as long as it waits there."""

    @property
    def home(self) -> int: ...
    def wake(self) -> None: ...
    def alive(self) -> bool: ...
    async def wait(self, seconds: float) -> None: ...


def async_spot() -> AsyncSpot:
    """Return a spot for the running task."""
    return TrioSpot() if clock.in_trio() else LoopSpot()


def current_owner() -> object:
    """Return what identifies the caller: its task, or its thread."""
    if clock.in_trio():
        return sys.modules["trio"].lowlevel.current_task()
    if asyncio._get_running_loop() is not None:  # noqa: SLF001 - current_task raises off the loop
        return asyncio.current_task()
    return threading.get_ident()


class LoopSpot:
    """A task of an asyncio loop (or uvloop)."""

    __slots__ = ("_future", "_loop", "_woken", "home")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.home = id(self._loop)
        self._future: asyncio.Future[None] | None = None
        self._woken = False

    def wake(self) -> None:
        """Wake the task; nothing happens if its loop is closed. Once is enough until it waits again."""
        if self._woken:
            return
        self._woken = True
        if asyncio._get_running_loop() is self._loop:  # noqa: SLF001 - get_running_loop raises off the loop
            self._resolve()
            return
        try:
            self._loop.call_soon_threadsafe(self._resolve)
        except RuntimeError:  # the loop is closed: nobody is there any more
            return

    def alive(self) -> bool:
        """Tell whether the loop still runs, so that a grant would be taken."""
        return self._loop.is_running()

    async def wait(self, seconds: float) -> None:
        """Wait until woken, or for `seconds` (may be infinite)."""
        if not self._woken:
            self._future = self._loop.create_future()
            timer = None if seconds == math.inf else self._loop.call_later(max(0.0, seconds), self._resolve)
            try:
                await self._future
            finally:
                self._future = None
                if timer is not None:
                    timer.cancel()
        self._woken = False

    def _resolve(self) -> None:
        if self._future is not None and not self._future.done():
            self._future.set_result(None)


class TrioSpot:
    """A trio task."""

    __slots__ = ("_event", "_token", "_trio", "home")

    def __init__(self) -> None:
        self._trio: Any = sys.modules["trio"]
        self._token = self._trio.lowlevel.current_trio_token()
        self.home = id(self._token)
        self._event = self._trio.Event()

    def wake(self) -> None:
        """Wake the task; nothing happens if its run is over."""
        self._soon(self._set)

    def alive(self) -> bool:
        """Tell whether the trio run is still on."""
        return self._soon(_nothing)

    async def wait(self, seconds: float) -> None:
        """Wait until woken, or for `seconds` (may be infinite)."""
        with self._trio.move_on_after(max(0.0, seconds)):
            await self._event.wait()
        if self._event.is_set():
            self._event = self._trio.Event()

    def _set(self) -> None:
        self._event.set()

    def _soon(self, function: Any) -> bool:
        try:
            self._token.run_sync_soon(function, idempotent=True)
        except self._trio.RunFinishedError:
            return False
        return True


def _nothing() -> None:
    """Do nothing: scheduling it tells whether a trio run is still there."""


class ThreadSpot:
    """A blocked thread. On a virtual clock waiting moves the clock instead."""

    __slots__ = ("_event", "_thread")
    home = 0  # a thread that waits does not stop as a loop may

    def __init__(self) -> None:
        self._event = threading.Event()
        self._thread = threading.current_thread()

    def wake(self) -> None:
        """Wake the thread."""
        self._event.set()

    def alive(self) -> bool:
        """Tell whether the thread still runs."""
        return self._thread.is_alive()

    def wait(self, seconds: float) -> None:
        """Block until woken, or for `seconds` (may be infinite)."""
        here = clock.current()
        if here is clock.REAL or seconds == math.inf:
            self._event.wait(None if seconds == math.inf else max(0.0, min(seconds, threading.TIMEOUT_MAX)))
        elif not self._event.is_set():
            here.sleep_sync(max(0.0, seconds))
        self._event.clear()

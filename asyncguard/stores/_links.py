"""What a store has in one event loop: its connections, and what runs beside calls."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, TypeVar

from asyncguard.stores._backends import Client

MOST_WAITING = 1000
"""Writes that may wait in the background of one loop; more are dropped, and counted."""

_SLICES = 5

T = TypeVar("T")
Job = Callable[[], Awaitable[object]]


async def _wait(task: asyncio.Task[Any], seconds: float) -> None:
    """Wait for a task, at most so many seconds in which the loop was free.

    A loop that is busy for longer finds the timer over and the answer in the socket at the same moment: the store is
    not to blame. So the time is waited for in slices, and one after which the loop came late counts as one.
    """
    for _ in range(_SLICES):
        await asyncio.wait((task,), timeout=seconds / _SLICES)
        if task.done():
            return


class Link:
    """A store in one event loop."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.pending: dict[Any, None] = {}
        self._waiting: deque[Job] = deque()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._writer: asyncio.Task[None] | None = None

    async def within(self, seconds: float, operation: Callable[[Client], Awaitable[T]]) -> T:
        """Do an operation; raises TimeoutError when it takes longer, without waiting for it to take note.

        A client may take as long again to give up as it was given: while it says goodbye to a server that hangs.
        """
        task = self._start(self._whole(operation))
        try:
            await _wait(task, seconds)
        except BaseException:
            task.cancel()
            raise
        if not task.done():
            task.cancel()
            raise TimeoutError
        if task.cancelled():
            raise ConnectionAbortedError("the client cancelled the operation by itself")
        return task.result()

    async def _whole(self, operation: Callable[[Client], Awaitable[T]]) -> T:
        try:
            return await operation(self.client)
        except BaseException:
            await self.client.interrupted()
            raise

    def later(self, job: Job) -> bool:
        """Do a job in the background, after those before it; false if too many wait."""
        if len(self._waiting) >= MOST_WAITING:
            return False
        self._waiting.append(job)
        if self._writer is None or self._writer.done():
            self._writer = self._start(self._write())
        return True

    def beside(self, job: Job) -> None:
        """Do a job at once, in a task of its own."""

        async def run() -> None:
            await job()

        self._start(run())

    @contextlib.contextmanager
    def tracked(self) -> Generator[None]:
        """Let `finish` wait for this task as long as it is in the block."""
        task = asyncio.current_task()
        if task is None:
            yield
            return
        self._tasks.add(task)
        try:
            yield
        finally:
            self._tasks.discard(task)

    async def finish(self, seconds: float) -> None:
        """Wait until nothing runs beside calls any more, at most so many seconds; then cancel what does."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while tasks := self._tasks - {asyncio.current_task()}:  # one may start another: a write gives a lease back
            done, late = await asyncio.wait(tasks, timeout=max(0.0, end - loop.time()))
            self._tasks -= done
            if late and loop.time() >= end:
                for task in late:
                    task.cancel()
                return

    async def _write(self) -> None:
        while self._waiting:
            await self._waiting.popleft()()

    def _start(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # a KeyboardInterrupt has left through the loop already

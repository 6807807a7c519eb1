"""Attempts of one call as tasks of the running asyncio loop; see `race`."""

from __future__ import annotations

import asyncio
import contextlib
import math
from contextvars import Context
from typing import TYPE_CHECKING

from asyncguard._runtime.race import CLOSING, INTERRUPTS, Attempt, discard

if TYPE_CHECKING:
    from asyncguard._runtime.race import Call, Referee


class TaskRace:
    """Attempts as tasks of the running asyncio loop."""

    __slots__ = ("_call", "_closing", "_interrupt", "_loop", "_referee", "_tasks", "_waiter")

    def __init__(self, referee: Referee, call: Call) -> None:
        self._referee = referee
        self._call = call
        self._loop = asyncio.get_running_loop()
        self._tasks: dict[asyncio.Task[None], int] = {}  # those that have not ended
        self._closing: set[int] = set()  # attempts that only close their result, which must not be cut off
        self._waiter: asyncio.Future[None] | None = None
        self._interrupt: BaseException | None = None

    async def run(self) -> BaseException | None:
        """Run to the end; return what the caller leaves with, None if it is decided."""
        left: BaseException | None = None
        try:
            await self._watch()
        except GeneratorExit:  # the caller is collected: nothing can be awaited any more
            self._referee.drop()
            self._cancel()
            raise
        except BaseException as error:  # noqa: BLE001 - raised again when nothing runs any more
            left = error
        if self._tasks or left is not None or self._interrupt is not None:
            left = await self._clear(left)
        return left

    async def _watch(self) -> None:
        referee = self._referee
        self._start()
        while not referee.over:
            pause = referee.pause()
            if pause > 0.0:
                await self._wait(pause)
            elif referee.granted():
                self._start()

    def _start(self) -> None:
        number = self._referee.begin()
        attempt = self._run(number)
        try:
            task = self._loop.create_task(attempt)
        except BaseException:
            attempt.close()
            raise
        self._tasks[task] = number
        task.add_done_callback(self._ended)

    async def _run(self, number: int) -> None:
        attempt = Attempt()
        try:
            result = await self._call()
        except BaseException as error:  # noqa: BLE001 - for the caller, who decides
            if isinstance(error, INTERRUPTS):
                self._interrupt = error
            self._referee.failed(number, error)
        else:
            if not self._referee.succeeded(number, result):
                self._closing.add(number)
                await self._discard(result)
        finally:
            attempt.open = False
            self._wake()

    def _ended(self, task: asyncio.Task[None]) -> None:
        number = self._tasks.pop(task)
        if task.cancelled():  # perhaps by somebody else, before its first step
            self._referee.failed(number, asyncio.CancelledError())
        elif error := task.exception():
            self._referee.failed(number, error)
        self._wake()

    async def _wait(self, seconds: float) -> None:
        waiter = self._waiter = self._loop.create_future()
        timer = None
        if seconds < math.inf:
            # An empty context: the timer needs nothing of it.
            timer = self._loop.call_later(seconds, self._late, context=Context())
        try:
            await waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()

    def _late(self) -> None:
        self._referee.late()
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _cancel(self) -> list[asyncio.Task[None]]:
        """Cancel what runs; return what has not ended."""
        tasks = [task for task in self._tasks if not task.done()]
        for task in tasks:
            if self._tasks[task] not in self._closing:
                with contextlib.suppress(RuntimeError):  # the loop is closed
                    task.cancel()
        return tasks

    async def _clear(self, left: BaseException | None) -> BaseException | None:
        """Cancel what runs and wait for it; a cancellation of the caller meanwhile cancels it again."""
        dropped = [] if left is None else [self._referee.drop()]
        while tasks := self._cancel():
            try:
                await asyncio.wait(tasks)
            except asyncio.CancelledError as error:
                left = error
                dropped.append(self._referee.drop())
        if self._interrupt is not None:
            left, self._interrupt = self._interrupt, None
            dropped.append(self._referee.drop())
        for result in dropped:
            await self._discard(result)
        return left

    async def _discard(self, result: object) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSING):
                await discard(result)

"""The tasks in which the work of flights runs: of asyncio, with a strong reference, or of trio, owned by no nursery."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import TYPE_CHECKING, Any, TypeAlias

from asyncguard._runtime import clock as clocks
from asyncguard._runtime import deadlines, flight_context

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asyncguard._machines.flight import Work

Run: TypeAlias = "Callable[[], Awaitable[None]]"
Ended: TypeAlias = "Callable[[BaseException | None], None]"


def start(work: Work, run: Run, ended: Ended, limit: float | None = None) -> None:
    """Run `run()` in a task of its own, for at most `limit` seconds.

    `run` settles the flights of the work itself; if it ends with anything but an `Exception`, `ended` is called with
    what the waiters are to raise, or None if they are to ask anew.
    """
    if clocks.in_trio():
        _start_trio(work, run, ended, limit)
        return
    loop = asyncio.get_running_loop()
    handle = TaskHandle(loop, ended)
    main = handle.main(work, run, limit)
    try:
        task = loop.create_task(main)
    except BaseException:
        main.close()
        ended(None)
        raise
    handle.watch(task)
    work.handle = handle


async def _within(limit: float, run: Run) -> None:
    deadlines.Deadline(limit, clocks.current().now()).set()  # for the strategies inside; the context is our own
    async with asyncio.timeout(limit):
        await run()


class TaskHandle:
    """A task of an asyncio loop. It lets go of the task at its end, whose context refers to the work and so to it."""

    __slots__ = ("_ended", "_loop", "_task")

    def __init__(self, loop: asyncio.AbstractEventLoop, ended: Ended) -> None:
        self._loop = loop
        self._ended: Ended | None = ended
        self._task: asyncio.Task[None] | None = None

    async def main(self, work: Work, run: Run, limit: float | None) -> None:
        """Run the work, and say how it ended."""
        flight_context.enter(work)
        try:
            await (run() if limit is None else _within(limit, run))
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                self._end(None)
                raise
            self._end(error)  # nobody cancelled the task: the function raised it, as it would have without us
        except (KeyboardInterrupt, SystemExit):
            self._end(None)
            raise
        except BaseException as error:  # noqa: BLE001 - it goes to those who wait
            self._end(error)
        else:
            task, self._task, self._ended = self._task, None, None
            if task is not None:  # None: the task has begun before `create_task` returned
                task.remove_done_callback(self._over)  # it would cost another turn of the loop

    def watch(self, task: asyncio.Task[None]) -> None:
        """Take note of the task. One that is cancelled before its first step never runs at all: only it can say so."""
        self._task = task
        if task.done():
            self._over(task)
        else:
            task.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not task.cancelled():
            task.exception()  # a KeyboardInterrupt has left through the loop already: nothing of it was lost
        self._end(None)

    def _end(self, error: BaseException | None) -> None:
        ended, self._ended = self._ended, None
        if ended is not None:
            ended(error)

    def here(self) -> bool:
        """Tell whether it is of the running loop."""
        return asyncio._get_running_loop() is self._loop  # noqa: SLF001 - get_running_loop raises off the loop

    def alive(self) -> bool:
        """Tell whether its loop runs."""
        task = self._task
        return task is not None and self._loop.is_running() and not task.done()

    def cancel(self) -> None:
        """Cancel the task, from any thread."""
        task = self._task
        if task is None:
            return
        if self.here():
            task.cancel()
            return
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(task.cancel)

    async def ended(self) -> None:
        """Wait until the task has ended, without cancelling it."""
        task = self._task
        if task is not None:
            await asyncio.wait([task])


def _start_trio(work: Work, run: Run, ended: Ended, limit: float | None) -> None:
    trio: Any = sys.modules["trio"]
    handle = TrioHandle(trio)
    work.handle = handle
    context = flight_context.own(work)
    trio.lowlevel.spawn_system_task(handle.main, run, ended, limit, name="asyncguard flight", context=context)


class TrioHandle:
    """A system task of a trio run, which no nursery of a caller owns, with a cancel scope of its own."""

    __slots__ = ("_done", "_scope", "_token", "_trio")

    def __init__(self, trio: Any) -> None:
        self._trio = trio
        self._token = trio.lowlevel.current_trio_token()
        self._scope = trio.CancelScope()
        self._done = trio.Event()

    async def main(self, run: Run, ended: Ended, limit: float | None) -> None:
        """Run the work. A system task that raises ends the whole run, so nothing but trio's own may leave."""
        try:
            with self._scope:
                await self._run(run, limit)
            ended(None)
        except self._trio.Cancelled:
            ended(None)
            raise
        except BaseException as error:  # noqa: BLE001 - it goes to those who wait
            ended(error)
        finally:
            self._done.set()

    async def _run(self, run: Run, limit: float | None) -> None:
        if limit is None:
            await run()
            return
        deadlines.Deadline(limit, clocks.current().now()).set()
        with self._trio.fail_after(limit):
            await run()

    def here(self) -> bool:
        """Tell whether it is of the running trio loop."""
        return clocks.in_trio() and self._trio.lowlevel.current_trio_token() is self._token

    def alive(self) -> bool:
        """Tell whether its run is still on."""
        return not self._done.is_set() and self._soon(_nothing)

    def cancel(self) -> None:
        """Cancel the task, from any thread."""
        if self.here():
            self._scope.cancel()
        else:
            self._soon(self._scope.cancel)

    async def ended(self) -> None:
        """Wait until the task has ended; the caller is being cancelled, so it waits shielded, as cleaning up does."""
        with self._trio.CancelScope(shield=True):
            await self._done.wait()

    def _soon(self, function: Callable[[], object]) -> bool:
        try:
            self._token.run_sync_soon(function, idempotent=True)
        except self._trio.RunFinishedError:
            return False
        return True


def _nothing() -> None:
    """Do nothing: scheduling it tells whether a trio run is still there."""

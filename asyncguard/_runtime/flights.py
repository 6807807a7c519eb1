"""Running the work of flights on asyncio, trio and threads, and waiting for them.

The work runs in a task of its own, in a copy of its starter's context without the starter's deadline: a caller that is
in a hurry must not decide for those who are not. No waiter is shielded and no task is awaited by many: each waiter is
one plain future, so that leaving costs the same with one other waiter or with a thousand.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import sys
from contextvars import Context, ContextVar, copy_context
from typing import TYPE_CHECKING, Any, Protocol

from asyncguard._machines.flight import Flight, Flights, State, Work
from asyncguard._runtime import clock as clocks
from asyncguard._runtime import deadlines, holds, parking

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from asyncguard._machines.flight import Waiter

_FOREIGN = 1.0  # seconds after which a waiter looks whether the loop that does its work still runs

_inside: ContextVar[Work | None] = ContextVar("asyncguard_flight", default=None)


class AsyncHandle(Protocol):
    """What runs the work of a flight in an event loop."""

    def cancel(self) -> None: ...
    def alive(self) -> bool: ...
    def here(self) -> bool: ...
    async def ended(self) -> None: ...


def inside() -> Work | None:
    """Return the work of the flight in which this code runs."""
    return _inside.get()


def wake(waiters: Iterable[Waiter]) -> None:
    """Wake those whose flight has ended."""
    for waiter in waiters:
        waiter.wake()


def own_context(work: Work) -> Context:
    """Return the context in which the work runs."""
    context = copy_context()
    context.run(_enter, work)
    return context


def _enter(work: Work) -> None:
    _inside.set(work)
    deadlines._current.set(None)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - `detached` ends with its block, this lasts as long as the context
    holds._current.set(None)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - its permits are not held


# --- event loops ------------------------------------------------------------------------------------------------------


def start(
    work: Work,
    run: Callable[[], Awaitable[None]],
    ended: Callable[[BaseException | None], None],
    limit: float | None = None,
) -> None:
    """Run `run()` in a task of its own, for at most `limit` seconds.

    `run` settles the flights of the work itself; if it ends with anything but an `Exception`, `ended` is called with
    what the waiters are to raise, or None if they are to ask anew.
    """
    context = own_context(work)
    if clocks.in_trio():
        _start_trio(work, run, ended, limit, context)
        return
    loop = asyncio.get_running_loop()
    main = _main(run, ended, limit)
    try:
        task = loop.create_task(main, context=context)
    except BaseException:
        main.close()
        ended(None)
        raise
    work.handle = TaskHandle(loop, task)

    def over(task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            task.exception()  # a KeyboardInterrupt has left through the loop already: nothing of it was lost
        ended(None)  # a task that is cancelled before its first step never ran at all

    task.add_done_callback(over)


async def _main(
    run: Callable[[], Awaitable[None]], ended: Callable[[BaseException | None], None], limit: float | None
) -> None:
    try:
        await _within(limit, run)
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            ended(None)
            raise
        ended(error)  # nobody cancelled the task: the function raised it, as it would have without us
    except (KeyboardInterrupt, SystemExit):
        ended(None)
        raise
    except BaseException as error:  # noqa: BLE001 - it goes to those who wait
        ended(error)


async def _within(limit: float | None, run: Callable[[], Awaitable[None]]) -> None:
    if limit is None:
        await run()
        return
    deadlines.Deadline(limit, clocks.current().now()).set()  # for the strategies inside; the context is our own
    async with asyncio.timeout(limit):
        await run()


class TaskHandle:
    """A task of an asyncio loop."""

    __slots__ = ("_loop", "_task")

    def __init__(self, loop: asyncio.AbstractEventLoop, task: asyncio.Task[None]) -> None:
        self._loop = loop
        self._task = task

    def here(self) -> bool:
        """Tell whether it is of the running loop."""
        return asyncio._get_running_loop() is self._loop  # noqa: SLF001 - get_running_loop raises off the loop

    def alive(self) -> bool:
        """Tell whether its loop runs."""
        return self._loop.is_running() and not self._task.done()

    def cancel(self) -> None:
        """Cancel the task, from any thread."""
        if self.here():
            self._task.cancel()
            return
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._task.cancel)

    async def ended(self) -> None:
        """Wait until the task has ended, without cancelling it."""
        await asyncio.wait([self._task])


def _start_trio(
    work: Work,
    run: Callable[[], Awaitable[None]],
    ended: Callable[[BaseException | None], None],
    limit: float | None,
    context: Context,
) -> None:
    trio: Any = sys.modules["trio"]
    handle = TrioHandle(trio)
    work.handle = handle
    trio.lowlevel.spawn_system_task(handle.main, run, ended, limit, name="asyncguard flight", context=context)


class TrioHandle:
    """A system task of a trio run, which no nursery of a caller owns, with a cancel scope of its own."""

    __slots__ = ("_done", "_scope", "_token", "_trio")

    def __init__(self, trio: Any) -> None:
        self._trio = trio
        self._token = trio.lowlevel.current_trio_token()
        self._scope = trio.CancelScope()
        self._done = trio.Event()

    async def main(
        self, run: Callable[[], Awaitable[None]], ended: Callable[[BaseException | None], None], limit: float | None
    ) -> None:
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

    async def _run(self, run: Callable[[], Awaitable[None]], limit: float | None) -> None:
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


async def wait(table: Flights, flights: Sequence[Flight], spot: parking.AsyncSpot) -> None:
    """Wait until flights have ended; LOST are those whose loop stopped.

    Who is cancelled meanwhile leaves. Where it was the last who waited, the work is cancelled, and has ended when the
    cancellation goes on: nothing of it is left behind.
    """
    try:
        for flight in flights:
            while flight.state is State.RUNNING:
                await spot.wait(_patience(flight.work))
                if flight.state is State.RUNNING and not flight.work.alive():
                    wake(table.lost(flight))
    except BaseException:
        for work in leave(table, flights, spot):
            await stop(work)
        raise
    leave(table, flights, spot)


def leave(table: Flights, flights: Iterable[Flight], spot: Waiter) -> list[Work]:
    """Stop waiting; return the works that nobody waits for any more, already cancelled."""
    here = _inside.get()
    left = [table.leave(flight, spot, here) for flight in flights]
    works = [work for work in left if work is not None]
    for work in works:
        if work.handle is not None:
            work.handle.cancel()
    return works


async def stop(work: Work) -> None:
    """Cancel a work, and wait for its end if it runs here."""
    handle: Any = work.handle
    if handle is None:
        return
    handle.cancel()
    if isinstance(handle, TaskHandle | TrioHandle) and handle.here():
        await handle.ended()


def _patience(work: Work) -> float:
    """Return how long to wait before looking whether the work is still alive: on our own loop it need not be asked."""
    handle = work.handle
    return math.inf if isinstance(handle, TaskHandle | TrioHandle) and handle.here() else _FOREIGN

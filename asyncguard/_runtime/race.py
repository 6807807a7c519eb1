"""Attempts of one call that run beside one another: tasks of asyncio, or children of a trio nursery.

Each runs in a copy of the caller's context. When it is decided, or the caller is cancelled, those that still run are
cancelled and awaited: none is left behind, however often the caller is cancelled meanwhile. Only the caller sees what
came out; no error leaves through an attempt.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import math
import sys
from contextvars import Context, ContextVar, copy_context
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from asyncguard._machines import shape
from asyncguard._runtime import clock as clocks

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

Call: TypeAlias = "Callable[[], Awaitable[Any]]"

_CLOSERS = ("aclose", "release", "close")
_CLOSING = 5.0  # seconds that a discarded result may take to close while its caller is being cancelled on trio


class Referee(Protocol):
    """Who decides about the attempts of a call. It is called by one thread only."""

    @property
    def over(self) -> bool: ...  # noqa: D102 - whether it is decided
    def begin(self) -> int: ...  # noqa: D102 - an attempt starts; its number
    def pause(self) -> float: ...  # noqa: D102 - seconds until the next one is wanted
    def late(self) -> None: ...  # noqa: D102 - the pause has passed
    def granted(self) -> bool: ...  # noqa: D102 - whether the next one may start; it is paid for
    def succeeded(self, number: int, result: Any) -> bool: ...  # noqa: D102 - whether it won
    def failed(self, number: int, error: BaseException) -> None: ...  # noqa: D102
    def drop(self) -> object: ...  # noqa: D102 - the caller leaves; the result that it has won and will not get


# --- attempts ---------------------------------------------------------------------------------------------------------


class Attempt:
    """Marks the context of an attempt for as long as it runs: a task that outlives it is not inside any more."""

    __slots__ = ("open",)

    def __init__(self) -> None:
        self.open = True
        _attempt.set(self)


_attempt: ContextVar[Attempt | None] = ContextVar("asyncguard_hedged", default=None)


def inside() -> bool:
    """Tell whether this code runs in an attempt that may have others beside it."""
    attempt = _attempt.get()
    return attempt is not None and attempt.open


class InContext:
    """Awaits `call()` in a copy of the context, in the same task: what it writes there does not come back."""

    __slots__ = ("_call",)

    def __init__(self, call: Call) -> None:
        self._call = call

    def __await__(self) -> Generator[Any, Any, Any]:
        within = copy_context().run
        coroutine = _awaited(self._call)
        try:
            waited_for = within(coroutine.send, None)
            while True:
                try:
                    answer = yield waited_for
                except GeneratorExit:
                    within(coroutine.close)
                    raise
                except BaseException as error:  # noqa: BLE001 - it goes where it would have gone without us
                    waited_for = within(coroutine.throw, error)
                else:
                    waited_for = within(coroutine.send, answer)
        except StopIteration as stop:
            return stop.value


async def _awaited(call: Call) -> Any:
    return await call()


async def discard(result: object) -> None:
    """Close a result that nobody gets: its `aclose`, `release` or `close`. What that raises is of no interest."""
    if isinstance(result, type):
        return
    for name in _CLOSERS:
        close = shape.look(result, name)
        if callable(close):
            with contextlib.suppress(Exception):
                closing = close()
                if inspect.isawaitable(closing):
                    await closing
            return


async def run(referee: Referee, call: Call) -> None:
    """Let attempts at `call()` run until the referee says that it is over, and none of them after that.

    Raises what the caller was cancelled or interrupted with; the outcome is the referee's to tell.
    """
    race = _TrioRace(referee, call) if clocks.in_trio() else _TaskRace(referee, call)
    left = await race.run()
    if left is not None:
        try:
            raise left
        finally:
            del left  # else the traceback holds this frame, and the frame the error


# --- asyncio ----------------------------------------------------------------------------------------------------------


class _TaskRace:
    """Attempts as tasks of the running asyncio loop."""

    __slots__ = ("_call", "_loop", "_referee", "_tasks", "_waiter")

    def __init__(self, referee: Referee, call: Call) -> None:
        self._referee = referee
        self._call = call
        self._loop = asyncio.get_running_loop()
        self._tasks: dict[asyncio.Task[None], int] = {}  # those that have not ended
        self._waiter: asyncio.Future[None] | None = None

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
        if self._tasks or left is not None:
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
            self._referee.failed(number, error)
        else:
            if not self._referee.succeeded(number, result):
                await discard(result)
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
        tasks = [task for task in self._tasks if not task.done()]
        for task in tasks:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                task.cancel()
        return tasks

    async def _clear(self, left: BaseException | None) -> BaseException | None:
        """Cancel what runs and wait for it; a cancellation of the caller meanwhile cancels it again."""
        discarded = self._referee.drop() if left is not None else None
        while tasks := self._cancel():
            try:
                await asyncio.wait(tasks)
            except asyncio.CancelledError as error:
                left = error
                discarded = discarded or self._referee.drop()
        if discarded is not None:
            await discard(discarded)
        return left


# --- trio -------------------------------------------------------------------------------------------------------------


class _TrioRace:
    """Attempts as children of a trio nursery."""

    __slots__ = ("_call", "_news", "_referee", "_trio")

    def __init__(self, referee: Referee, call: Call) -> None:
        self._trio: Any = sys.modules["trio"]
        self._referee = referee
        self._call = call
        self._news = self._trio.Event()

    async def run(self) -> BaseException | None:
        """Run to the end; return what the caller leaves with, None if it is decided."""
        left: BaseException | None = None
        try:
            async with self._trio.open_nursery() as nursery:
                try:
                    await self._watch(nursery)
                except BaseException as error:  # noqa: BLE001 - the nursery would put it into a group
                    left = error
                nursery.cancel_scope.cancel()
        except BaseException as error:  # noqa: BLE001 - cancelled or interrupted while waiting for the losers
            left = _leaf(error)
        if left is not None:
            await self._discard(self._referee.drop())
        return left

    async def _watch(self, nursery: Any) -> None:
        referee = self._referee
        nursery.start_soon(self._run, referee.begin())
        while not referee.over:
            pause = referee.pause()
            if pause > 0.0:
                await self._wait(pause)
            elif referee.granted():
                nursery.start_soon(self._run, referee.begin())

    async def _run(self, number: int) -> None:
        attempt = Attempt()
        try:
            result = await self._call()
        except BaseException as error:  # noqa: BLE001 - for the caller, who is cancelled with us if it is that
            self._referee.failed(number, error)
        else:
            if not self._referee.succeeded(number, result):
                await self._discard(result)
        finally:
            attempt.open = False
            self._news.set()

    async def _wait(self, seconds: float) -> None:
        with self._trio.move_on_after(seconds) as scope:
            await self._news.wait()
        if self._news.is_set():
            self._news = self._trio.Event()
        elif scope.cancelled_caught:
            self._referee.late()

    async def _discard(self, result: object) -> None:
        with self._trio.move_on_after(_CLOSING) as scope:
            scope.shield = True
            await discard(result)


def _leaf(error: BaseException) -> BaseException:
    """Return what is in a nursery's group: an interrupt rather than a cancellation."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    leaves = [_leaf(each) for each in error.exceptions]
    interrupts = [leaf for leaf in leaves if isinstance(leaf, KeyboardInterrupt | SystemExit)]
    return (interrupts or leaves)[0]

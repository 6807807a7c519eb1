"""Attempts of one call that run beside one another: tasks of asyncio, or children of a trio nursery.

Each runs in a copy of the caller's context. When it is decided, or the caller is cancelled, those that still run are
cancelled and awaited: none is left behind, however often the caller is cancelled meanwhile. Only the caller sees what
came out; no error leaves through an attempt.
"""

from __future__ import annotations

import contextlib
import inspect
from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from asyncguard._machines import shape
from asyncguard._runtime import clock as clocks

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

Call: TypeAlias = "Callable[[], Awaitable[Any]]"

INTERRUPTS = (KeyboardInterrupt, SystemExit)
"""They leave through the caller, whatever else came out: also if a loser raises them, or the caller is cancelled."""
CLOSING = 5.0
"""Seconds that a discarded result may take to close: its caller waits for it."""
_CLOSERS = ("aclose", "release", "close")


class Referee(Protocol):
    """Who decides about the attempts of a call. It is called by one thread only."""

    @property
    def over(self) -> bool: ...  # whether it is decided
    def begin(self) -> int: ...  # an attempt starts; its number
    def pause(self) -> float: ...  # seconds until the next one is wanted
    def late(self) -> None: ...  # the pause has passed
    def granted(self) -> bool: ...  # whether the next one may start; it is paid for
    def succeeded(self, number: int, result: Any) -> bool: ...  # whether to keep the result
    def failed(self, number: int, error: BaseException) -> None: ...
    def drop(self) -> object: ...  # the caller leaves; the result that it has won and will not get


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
                answer = thrown = None
                try:
                    answer = yield waited_for
                except GeneratorExit:
                    within(coroutine.close)
                    raise
                except BaseException as error:  # noqa: BLE001 - it goes where it would have gone without us
                    thrown = error
                # Outside of `except`: what the coroutine raises next must not have this one as its context.
                waited_for = within(coroutine.send, answer) if thrown is None else within(coroutine.throw, thrown)
        except StopIteration as stop:
            return stop.value
        finally:
            thrown = None  # else its traceback holds this frame, and the frame the error


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
    if clocks.in_trio():
        from asyncguard._runtime.race_trio import TrioRace

        left = await TrioRace(referee, call).run()
    else:
        from asyncguard._runtime.race_tasks import TaskRace

        left = await TaskRace(referee, call).run()
    if left is not None:
        try:
            raise left
        finally:
            del left  # else the traceback holds this frame, and the frame the error

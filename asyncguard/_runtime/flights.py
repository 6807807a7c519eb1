"""Running the work of flights on asyncio, trio and threads, and waiting for them.

The work runs in a task of its own, in a copy of its starter's context without the starter's deadline: a caller that is
in a hurry must not decide for those who are not. No waiter is shielded and no task is awaited by many: each waiter is
one plain future, so that leaving costs the same with one other waiter or with a thousand.
"""

from __future__ import annotations

import math
from contextvars import Context, ContextVar, copy_context
from typing import TYPE_CHECKING

from asyncguard._machines.flight import Flight, Flights, State, Work
from asyncguard._runtime import deadlines, flight_tasks, holds, parking
from asyncguard._runtime.flight_tasks import Ended, Run, TaskHandle, TrioHandle

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from asyncguard._machines.flight import Waiter

_FOREIGN = 1.0  # seconds after which a waiter looks whether the loop that does its work still runs

_inside: ContextVar[Work | None] = ContextVar("asyncguard_flight", default=None)


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
    # For as long as the context lasts (`detached` ends with its block): neither its deadline nor its permits.
    deadlines._current.set(None)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
    holds._current.set(None)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]


def start(work: Work, run: Run, ended: Ended, limit: float | None = None) -> None:
    """Run `run()` in a task of its own, for at most `limit` seconds.

    `run` settles the flights of the work itself; if it ends with anything but an `Exception`, `ended` is called with
    what the waiters are to raise, or None if they are to ask anew.
    """
    flight_tasks.start(work, run, ended, limit, own_context(work))


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
    handle = work.handle
    if handle is None:
        return
    handle.cancel()
    if isinstance(handle, TaskHandle | TrioHandle) and handle.here():
        await handle.ended()


def _patience(work: Work) -> float:
    """Return how long to wait before looking whether the work is still alive: on our own loop it need not be asked."""
    handle = work.handle
    return math.inf if isinstance(handle, TaskHandle | TrioHandle) and handle.here() else _FOREIGN

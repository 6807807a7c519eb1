"""Running the work of flights on asyncio, trio and threads, and waiting for them.

The work runs in a task of its own, in a copy of its starter's context without the starter's deadline: a caller that is
in a hurry must not decide for those who are not. No waiter is shielded and no task is awaited by many: each waiter is
one plain future, so that leaving costs the same with one other waiter or with a thousand.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from asyncguard._machines import circles
from asyncguard._machines.flight import Flight, Flights, State, Work
from asyncguard._runtime import flight_context, parking
from asyncguard._runtime.flight_tasks import TaskHandle, TrioHandle, start

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from asyncguard._machines.flight import Waiter

__all__ = ["inside", "leave", "start", "stop", "wait", "wake"]

_FOREIGN = 1.0  # seconds after which a waiter looks whether the loop that does its work still runs
_RUNNING = State.RUNNING

inside = flight_context.inside


def wake(waiters: Iterable[Waiter]) -> None:
    """Wake those whose flight has ended."""
    for waiter in waiters:
        waiter.wake()


async def wait(table: Flights, flights: Sequence[Flight], spot: parking.AsyncSpot, *, begun_here: bool = False) -> None:
    """Wait until flights have ended; LOST are those whose loop stopped (not asked where their work has begun here).

    Who is cancelled meanwhile leaves. Where it was the last who waited, the work is cancelled, and has ended when the
    cancellation goes on: nothing of it is left behind.
    """
    try:
        for flight in flights:
            while flight.state is _RUNNING:
                await spot.wait(math.inf if begun_here else _patience(flight.work))
                if flight.state is _RUNNING and not flight.work.alive():
                    wake(table.lost(flight))
    except BaseException:
        for work in leave(table, flights, spot):
            await stop(work)
        raise
    here = inside()
    if here is not None:  # who has ended forgot us already: only the note of who waits for whom is left
        for flight in flights:
            circles.unlink(here, flight)


def leave(table: Flights, flights: Iterable[Flight], spot: Waiter) -> list[Work]:
    """Stop waiting; return the works that nobody waits for any more, already cancelled."""
    here = inside()
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

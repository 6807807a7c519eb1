"""One call that the cache cannot answer at once: what it looks for, and how it waits for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from asyncguard import events
from asyncguard._machines.circles import CircularWaitError
from asyncguard._machines.flight import Flight, Flights, State, Waiter
from asyncguard._runtime import clock as clocks
from asyncguard._runtime import flights as running
from asyncguard._runtime import flights_sync, parking
from asyncguard.strategies._cache.work import CallWork

if TYPE_CHECKING:
    from collections.abc import Hashable

    from asyncguard._machines.entries import Entry
    from asyncguard.strategies._cache.bound import Bound
    from asyncguard.strategies._cache.core import Cell, Core
    from asyncguard.strategies._cache.options import Terms
    from asyncguard.strategies._cache.place import Args, Kwargs

How = Literal["miss", "anew", "background", "plain", "observe"]

REFRESH_LEAST = 10.0  # seconds
REFRESH_FACTOR = 4.0  # of what the value took before

_LOST = State.LOST


class Call:
    """A call of a guarded function that has to be made.

    `how`: "miss" joins or starts the flight of the key, "anew" starts one in any case, "background" refreshes while
    nobody waits, "plain" leaves the cache aside, "observe" only reports what it would have done. `entry` is what may
    answer if computing fails.
    """

    __slots__ = ("args", "bound", "cell", "core", "entry", "how", "key", "kwargs", "started", "tags", "terms")

    def __init__(self, bound: Bound, args: Args, kwargs: Kwargs, how: How) -> None:
        self.bound = bound
        self.args = args
        self.kwargs = kwargs
        self.how: How = how
        self.entry: Entry | None = None

    def at(self, core: Core, terms: Terms, cell: Cell, key: Hashable) -> Call:
        """Fill in where the value belongs."""
        self.core = core
        self.terms = terms
        self.cell = cell
        self.key = key
        self.tags = terms.tags_of(self.args, self.kwargs)
        return self

    def join(self, waiter: Waiter | None) -> tuple[Flight, bool]:
        """Join the flight of the key, or begin it (true)."""
        how, cell = self.how, self.cell
        try:
            flight, new = cell.flights.join(
                self.key,
                waiter,
                inside=running.inside(),
                kept=self.terms.kept or how == "background",
                tags=self.tags,
                anew=how == "anew",
            )
        except CircularWaitError:
            raise circular(self.bound.name) from None
        if new:
            self.started = self.core.now()
            cell.misses += 1
        elif waiter is not None:
            cell.joined += 1
        return flight, new

    def never_began(self, flight: Flight, spot: Waiter, *, new: bool) -> None:
        """Whoever listens was interrupted: nobody may wait for work that never began."""
        if new:
            running.wake(self.cell.flights.lost(flight))
        running.leave(self.cell.flights, (flight,), spot)

    def result(self, flight: Flight) -> Any:
        """Return this caller's own of the value, or raise the error."""
        try:
            entry: Entry = Flights.result(flight)
        finally:
            del flight  # the error refers to this frame, which must not refer to the error
        if entry is self.entry and self.bound.heard():  # it stands in for an error
            self.bound.emit(events.CacheHit, age=self.core.now() - entry.created, stale=True)
        return entry.give()


def circular(name: str) -> CircularWaitError:
    """Return the error for a function that asks for its own result while it computes it."""
    return CircularWaitError(
        f"{name} was called with the same arguments from inside of its own computation, and would wait for itself "
        "for ever; call the undecorated function (fn.__wrapped__) there, or with other arguments"
    )


async def fetch(call: Call) -> Any:
    """Make a call of a coroutine function, together with all who ask for the same."""
    while True:
        spot = parking.async_spot()
        flight, new = call.join(spot)
        try:
            if not new:
                call.bound.told(events.CacheJoined)
            elif call.how == "anew" or not call.cell.answer(flight, call.core):
                if call.terms.store is None:
                    call.bound.told(events.CacheMissed)
                launch(call, flight)
        except BaseException:
            call.never_began(flight, spot, new=new)
            raise
        await running.wait(call.cell.flights, (flight,), spot, begun_here=new)
        if flight.state is not _LOST:
            break
    try:
        return call.result(flight)
    finally:
        del flight


def launch(call: Call, flight: Flight, limit: float | None = None) -> None:
    """Start the work of a new flight in the running loop."""
    work = CallWork(call, flight) if call.terms.store is None else _work_with_store(call, flight)
    running.start(flight.work, work.run, work.ended, limit)


def _work_with_store(call: Call, flight: Flight) -> CallWork:
    from asyncguard.strategies._cache.store_work import StoredCallWork

    return StoredCallWork(call, flight)


def fetch_sync(call: Call) -> Any:
    """Make a call of a plain function: whoever comes first computes in its own thread, the others wait.

    On a thread that runs an event loop nobody waits, since that would block the loop: it computes for itself.
    """
    if clocks.thread_runs_loop():
        call.how = "anew"
    while (flight := _flown_sync(call)).state is _LOST:
        pass
    try:
        return call.result(flight)
    finally:
        del flight


def _flown_sync(call: Call) -> Flight:
    """Return the flight of the key, which is over."""
    spot = parking.ThreadSpot()
    flight, new = call.join(spot)
    try:
        if not new:
            call.bound.told(events.CacheJoined)
        elif call.how == "anew" or not call.cell.answer(flight, call.core):
            work = CallWork(call, flight, missed=True)
            flights_sync.lead(flight.work, work.run_sync, work.ended)
    except BaseException:
        call.never_began(flight, spot, new=new)
        raise
    call.bound.wait(call.cell.flights, (flight,), spot)
    return flight


def refresh_behind(call: Call, entry: Entry) -> None:
    """Refresh an entry in the background, unless that is being done already."""
    call.how = "background"
    call.entry = entry
    flight, new = call.join(None)
    if not new:
        return
    limit = patience(entry.took)
    if call.bound.is_async:
        launch(call, flight, limit)
        call.bound.strategy.remember(flight.work)
    else:
        work = CallWork(call, flight)
        call.core.background.submit(flight.work, work.run_sync, work.ended, limit)


def patience(took: float) -> float:
    """Return how long a background refresh may take that took so many seconds before."""
    return max(REFRESH_LEAST, REFRESH_FACTOR * took)

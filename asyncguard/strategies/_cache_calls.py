"""One call that the cache cannot answer at once: what it looks for, how its computation runs, what becomes of it."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any, Literal

from asyncguard import events
from asyncguard._machines.circles import CircularWaitError
from asyncguard._machines.entries import Entry, Lifetime
from asyncguard._machines.flight import Flight, Flights, State, Waiter, Work
from asyncguard._machines.store import Change, Lease
from asyncguard._runtime import clock as clocks
from asyncguard._runtime import flight_tasks, flights_sync, parking
from asyncguard._runtime import flights as running
from asyncguard.strategies import _cache_values as values

if TYPE_CHECKING:
    from asyncguard.strategies._cache_batch import Batch
    from asyncguard.strategies._cache_bound import Bound
    from asyncguard.strategies._cache_core import Args, Cell, Core, Kwargs
    from asyncguard.strategies._cache_options import CacheOptions

ERROR_PAUSE = 5.0
"""After a failure, so many seconds a stale value answers at once: an outage must not cost every call a whole retry."""

_FLIGHTS = frozenset(
    {__name__, flight_tasks.__name__, flights_sync.__name__, "asyncguard.strategies._cache_batch_work"}
)

How = Literal["miss", "anew", "background", "plain", "observe"]


class Call:
    """A call of a guarded function that has to be made.

    `how`: "miss" joins or starts the flight of the key, "anew" starts one in any case, "background" refreshes while
    nobody waits, "plain" leaves the cache aside, "observe" only reports what it would have done.
    """

    __slots__ = ("args", "bound", "cell", "core", "entry", "how", "key", "kwargs", "options", "started", "tags")

    def __init__(self, bound: Bound, args: Args, kwargs: Kwargs, how: How) -> None:
        self.bound = bound
        self.args = args
        self.kwargs = kwargs
        self.how: How = how
        self.entry: Entry | None = None  # what may answer if computing fails

    def at(self, core: Core, options: CacheOptions, cell: Cell, key: Hashable) -> Call:
        """Fill in where the value belongs."""
        self.core, self.options, self.cell, self.key = core, options, cell, key
        self.tags = options.tags_of(self.args, self.kwargs) if options.tags != () else ()
        return self

    # --- flights ---

    def join(self, waiter: Waiter | None) -> tuple[Flight, bool]:
        """Join the flight of the key, or begin it (true)."""
        kept = self.options.on_abandon == "finish" or self.how == "background"
        try:
            flight, new = self.cell.flights.join(
                self.key, waiter, inside=running.inside(), work=Work(kept=kept), tags=self.tags, anew=self.how == "anew"
            )
        except CircularWaitError:
            raise circular(self.bound.name) from None
        if new:
            self.started = self.core.now()
            self.cell.misses += 1
        elif waiter is not None:
            self.cell.joined += 1
        return flight, new

    def answered(self, flight: Flight) -> bool:
        """After beginning a flight, look again: the one before may have stored between our look and our joining."""
        entry = self.cell.entries.get(self.key)
        if self.how == "anew" or entry is None or entry.state(self.core.now()) != "hit":
            return False
        running.wake(self.cell.flights.done(flight, entry))
        return True

    # --- the end of a computation ---

    def succeeded(self, flight: Flight, value: Any) -> None:
        """Store the value and give it to those who wait; if that fails (a wrong ttl, say) they get that error."""
        try:
            entry = self.bound.accept(self, value, flight.lease)
        except Exception as error:  # noqa: BLE001 - an option of the user's that failed: those who wait get it
            self.failed(flight, error)
            return
        self._refreshed(ok=True)
        running.wake(self.cell.flights.done(flight, entry))

    def failed(self, flight: Flight, error: BaseException) -> None:
        """Give the error to those who wait, or what is still good enough instead."""
        self._refreshed(ok=False)
        fail(self, flight, self.entry, error)

    def ended(self, flight: Flight) -> Callable[[BaseException | None], None]:
        """Return what to do when the work ends without having settled its flight."""

        def end(error: BaseException | None) -> None:
            if flight.state is not State.RUNNING:
                return
            if error is None:
                running.wake(self.cell.flights.lost(flight))
            else:
                self.failed(flight, error)

        return end

    def _refreshed(self, *, ok: bool) -> None:
        bound = self.bound
        if self.how == "background" and bound.heard():
            seconds = self.core.now() - self.started
            bound.emit(events.CacheRefreshed, ok=ok, seconds=seconds)

    def result(self, flight: Flight) -> Any:
        """Return this caller's own of the value, or raise the error."""
        try:
            entry: Entry = Flights.result(flight)
        finally:
            del flight  # the error refers to this frame, which must not refer to the error
        if entry is self.entry and self.bound.heard():  # it stands in for an error
            self.bound.emit(events.CacheHit, age=self.core.now() - entry.created, stale=True)
        return entry.give()


def fail(at: Call | Batch, flight: Flight, spare: Entry | None, error: BaseException) -> None:
    """End a flight with an error, or with a spare value that is still good enough instead."""
    now = at.core.now()
    if spare is not None:
        spare.retry_at = now + ERROR_PAUSE
    if spare is not None and now < spare.dead and isinstance(error, Exception) and at.options.stale_if_error:
        running.wake(at.cell.flights.done(flight, spare))
    else:
        running.wake(at.cell.flights.failed(flight, _without_our_frames(error)))


def _without_our_frames(error: BaseException) -> BaseException:
    """Take the frames of flights off the traceback.

    They refer to the flight, and the flight to the error: together they would keep the frames of the function, and the
    tensors in them, until the garbage collector comes.
    """
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_frame.f_globals.get("__name__") in _FLIGHTS:
        traceback = traceback.tb_next
    return error.with_traceback(traceback)


def circular(name: str) -> CircularWaitError:
    """Return the error for a function that asks for its own result while it computes it."""
    return CircularWaitError(
        f"{name} was called with the same arguments from inside of its own computation, and would wait for itself "
        "for ever; call the undecorated function (fn.__wrapped__) there, or with other arguments"
    )


def store(at: Call | Batch, entry: Entry, life: Lifetime, key: Hashable, lease: Lease) -> Change:
    """Store an entry, whose life begins now."""
    now = at.core.now()
    entry.live(now, life)
    if at.options.max_bytes is not None:
        entry.size = values.size_of(entry.value) + values.size_of(key)
    return at.cell.store.put(at.cell, key, entry, at.options.bounds, now, lease)


# --- drivers --------------------------------------------------------------------------------------------------------


async def fetch(call: Call) -> Any:
    """Make a call of a coroutine function, together with all who ask for the same."""
    while (flight := await _flown(call)).state is State.LOST:
        pass
    try:
        return call.result(flight)
    finally:
        del flight


async def _flown(call: Call) -> Flight:
    """Return the flight of the key, which is over."""
    spot = parking.async_spot()
    flight, new = call.join(spot)
    try:
        if new and not call.answered(flight):
            call.bound.told(events.CacheMissed)
            launch(call, flight)
        elif not new:
            call.bound.told(events.CacheJoined)
    except BaseException:  # whoever listens was interrupted: nobody may wait for work that never began
        _never_began(call, flight, spot, new=new)
        raise
    await running.wait(call.cell.flights, [flight], spot)
    return flight


def _never_began(call: Call, flight: Flight, spot: Waiter, *, new: bool) -> None:
    if new:
        running.wake(call.cell.flights.lost(flight))
    running.leave(call.cell.flights, [flight], spot)


def launch(call: Call, flight: Flight, limit: float | None = None) -> None:
    """Start the work of a new flight in the running loop."""
    fn, args, kwargs = call.bound.fn, call.args, call.kwargs

    async def run() -> None:
        try:
            value = await fn(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - it goes to those who wait
            call.failed(flight, error)
            return
        call.succeeded(flight, value)

    running.start(flight.work, run, call.ended(flight), limit)


def fetch_sync(call: Call) -> Any:
    """Make a call of a plain function: whoever comes first computes in its own thread, the others wait.

    On a thread that runs an event loop nobody waits, since that would block the loop: it computes for itself.
    """
    if clocks.thread_runs_loop():
        call.how = "anew"
    while (flight := _flown_sync(call)).state is State.LOST:
        pass
    try:
        return call.result(flight)
    finally:
        del flight


def _flown_sync(call: Call) -> Flight:
    spot = parking.ThreadSpot()
    flight, new = call.join(spot)
    try:
        if new and not call.answered(flight):
            flights_sync.lead(flight.work, work_of(call, flight, missed=True), call.ended(flight))
        elif not new:
            call.bound.told(events.CacheJoined)
    except BaseException:
        _never_began(call, flight, spot, new=new)
        raise
    call.bound.wait(call.cell.flights, [flight], spot)
    return flight


def work_of(call: Call, flight: Flight, *, missed: bool = False) -> Callable[[], None]:
    """Return what computes the value of a plain function and settles its flight.

    `missed`: tell of the miss first. A listener that asks for the same value is then one that would wait for itself.
    """

    def run() -> None:
        if missed:
            call.bound.told(events.CacheMissed)
        try:
            value = call.bound.fn(*call.args, **call.kwargs)
        except Exception as error:  # noqa: BLE001 - it goes to those who wait
            call.failed(flight, error)
            return
        call.succeeded(flight, value)

    return run


def refresh_behind(call: Call, limit: float) -> None:
    """Refresh in the background, unless the value is being computed already."""
    flight, new = call.join(None)
    if not new:
        return
    if call.bound.is_async:
        launch(call, flight, limit)
        call.bound.strategy.remember(flight.work)
    else:
        call.core.background.submit(flight.work, work_of(call, flight), call.ended(flight), limit)

"""The computation of one value, and its end: stored and given to those who wait, or an error, or a spare value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asyncguard import events
from asyncguard._machines.entries import Entry
from asyncguard._machines.flight import Flight, State
from asyncguard._runtime import flight_tasks, flights_sync
from asyncguard._runtime import flights as running
from asyncguard.strategies._cache import values

if TYPE_CHECKING:
    from collections.abc import Hashable

    from asyncguard._machines.store import Change, Lease
    from asyncguard.strategies._cache.calls import Call
    from asyncguard.strategies._cache.items_batch import Batch

ERROR_PAUSE = 5.0
"""After a failure, so many seconds a stale value answers at once: an outage must not cost every call a whole retry."""

_OUR_FRAMES = frozenset({__name__, flight_tasks.__name__, flights_sync.__name__, f"{__package__}.items_work"})


class CallWork:
    """The computation of the value of a call, for the flight that the call has begun.

    `missed`: tell of the miss first, in the context of the work. A listener that asks for the same value is then one
    that would wait for itself.
    """

    __slots__ = ("_call", "_flight", "_missed")

    def __init__(self, call: Call, flight: Flight, *, missed: bool = False) -> None:
        self._call = call
        self._flight = flight
        self._missed = missed

    async def run(self) -> None:
        """Compute the value of a coroutine function."""
        call = self._call
        try:
            value = await call.bound.fn(*call.args, **call.kwargs)
        except Exception as error:  # noqa: BLE001 - it goes to those who wait
            self._failed(error)
            return
        self._succeeded(value)

    def run_sync(self) -> None:
        """Compute the value of a plain function."""
        call = self._call
        if self._missed:
            call.bound.told(events.CacheMissed)
        try:
            value = call.bound.fn(*call.args, **call.kwargs)
        except Exception as error:  # noqa: BLE001 - it goes to those who wait
            self._failed(error)
            return
        self._succeeded(value)

    def ended(self, error: BaseException | None) -> None:
        """Settle the flight if the work ended without having done so."""
        if self._flight.state is not State.RUNNING:
            return
        if error is None:
            running.wake(self._call.cell.flights.lost(self._flight))
        else:
            self._failed(error)

    def _succeeded(self, value: Any) -> None:
        """Store the value and give it to those who wait; if that fails (a wrong ttl, say) they get that error."""
        call, flight = self._call, self._flight
        try:
            entry = accept(call, value, flight)
        except Exception as error:  # noqa: BLE001 - an option of the user's that failed: those who wait get it
            self._failed(error)
            return
        if call.how == "background":
            self._refreshed(ok=True)
        running.wake(call.cell.flights.done(flight, entry))

    def _failed(self, error: BaseException) -> None:
        """Give the error to those who wait, or what is still good enough instead."""
        call = self._call
        if call.how == "background":
            self._refreshed(ok=False)
        fail(call, self._flight, call.entry, error)

    def _refreshed(self, *, ok: bool) -> None:
        call = self._call
        call.bound.told(events.CacheRefreshed, ok=ok, seconds=call.core.now() - call.started)


def accept(call: Call, value: Any, lease: Lease) -> Entry:
    """Make an entry of a value and store it, if it may be stored."""
    bound, terms = call.bound, call.terms
    values.refuse(bound.name, value)
    life = terms.lifetime(value)
    entry = Entry(*values.isolated(value, terms.isolation))
    now = call.core.now()
    entry.took, entry.tags = now - call.started, call.tags
    if life is not None:
        entry.live(now, life)
        change = store(call, call.key, entry, lease, now)
        if bound.heard():
            bound.report(change, entry.size)
    return entry


def store(at: Call | Batch, key: Hashable, entry: Entry, lease: Lease, now: float) -> Change:
    """Store an entry for what is left of its life."""
    if at.terms.max_bytes is not None:
        entry.size = values.size_of(entry.value) + values.size_of(key)
    return at.cell.store.put(at.cell, key, entry, at.terms.bounds, now, lease)


def fail(at: Call | Batch, flight: Flight, spare: Entry | None, error: BaseException) -> None:
    """End a flight with an error, or with a spare value that is still good enough instead."""
    now = at.core.now()
    if spare is not None:
        spare.retry_at = now + ERROR_PAUSE
    if spare is not None and now < spare.dead and isinstance(error, Exception) and at.terms.options.stale_if_error:
        running.wake(at.cell.flights.done(flight, spare))
    else:
        running.wake(at.cell.flights.failed(flight, _without_our_frames(error)))


def _without_our_frames(error: BaseException) -> BaseException:
    """Take the frames of flights off the traceback.

    They refer to the flight, and the flight to the error: together they would keep the frames of the function, and the
    tensors in them, until the garbage collector comes.
    """
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_frame.f_globals.get("__name__") in _OUR_FRAMES:
        traceback = traceback.tb_next
    return error.with_traceback(traceback)

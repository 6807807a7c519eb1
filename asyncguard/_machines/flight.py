"""One computation per key at a time, and who waits for it.

The computation (`Work`) belongs to nobody: whoever asked first and whoever came later are equal waiters. One that is
cancelled leaves; when the last has left, the work is to be cancelled. Everything here is decided under a lock in O(1)
(plus the length of a chain of nested flights); the drivers start, cancel and wake outside of it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable
from enum import Enum
from types import TracebackType
from typing import Any, Protocol

from asyncguard._machines import circles
from asyncguard._machines.store import Lease


class Waiter(Protocol):
    """Somebody who waits; waking is thread-safe, idempotent and may be spurious."""

    def wake(self) -> None: ...


class Handle(Protocol):
    """What runs the work: a task, a trio task, a thread."""

    def cancel(self) -> None: ...
    def alive(self) -> bool: ...


class State(Enum):
    """Where a flight is. LOST: its work ended without an answer (its loop or thread ended); ask anew."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    LOST = "lost"
    ABANDONED = "abandoned"


_RUNNING = State.RUNNING  # a member costs a descriptor at each look before Python 3.12


class Work:
    """One call of the function, for one flight or (items) for several. `kept`: it goes on when nobody waits."""

    __slots__ = ("__weakref__", "handle", "kept", "running", "waits_for")

    def __init__(self, *, kept: bool = False) -> None:
        self.handle: Handle | None = None
        self.kept = kept
        self.running = 0
        self.waits_for: list[Flight] | None = None  # made when it first waits for another flight

    def alive(self) -> bool:
        """Tell whether an answer may still come; true while it is being started."""
        return self.handle is None or self.handle.alive()


class Flight(Lease):
    """The computation of one key, and the right to store what it brings.

    `value` or `error` is set before it stops running. `owed` counts those who were waiting and have not taken their
    answer yet; the last one takes the error away, which with its traceback refers to frames that refer to the flight.
    """

    __slots__ = ("error", "key", "owed", "state", "tags", "traceback", "value", "waiters", "work")

    def __init__(self, key: Hashable, work: Work, tags: tuple[Hashable, ...] = ()) -> None:
        self.void = False
        self.key = key
        self.work = work
        self.tags = tags
        self.owed = 0
        self.state = _RUNNING
        self.value: Any = None
        self.error: BaseException | None = None
        self.traceback: TracebackType | None = None
        self.waiters: dict[Waiter, None] = {}


class Flights:
    """The flights of one function, by key."""

    __slots__ = ("_lock", "table")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.table: dict[Hashable, Flight] = {}

    def join(  # noqa: PLR0913 - the key, who asks, from inside of what, and how
        self,
        key: Hashable,
        waiter: Waiter | None,
        *,
        inside: Work | None = None,
        work: Work | None = None,
        kept: bool = False,
        tags: tuple[Hashable, ...] = (),
        anew: bool = False,
    ) -> tuple[Flight, bool]:
        """Wait for the flight of a key; true if it is a new one, whose work the caller has to start.

        A new flight belongs to `work`, or to one of its own, which is `kept` or not. `anew` begins a new flight even if
        one is under way; so does one whose work is dead. What such a superseded flight brings goes to those who wait
        for it and is not stored.
        Raises CircularWaitError if `inside`, the work that asks, would wait for itself; without a waiter nobody waits.
        """
        with self._lock:
            flight, new = self.table.get(key), False
            if flight is not None and inside is not None and (waiter is not None or anew):
                circles.refuse(inside, flight)
            if flight is None or anew or not flight.work.alive():
                if flight is not None:
                    flight.void = True  # a single store, and nobody makes it false again
                flight, new = self._begin(key, work or Work(kept=kept), tags), True
            if waiter is not None:
                self._wait(flight, waiter, inside)
        return flight, new

    def leave(self, flight: Flight, waiter: Waiter, inside: Work | None = None) -> Work | None:
        """Stop waiting; return the work if it has to be cancelled, because nobody waits for any of its flights."""
        if inside is not None:
            circles.unlink(inside, flight)
        with self._lock:
            if flight.waiters.pop(waiter, flight) is flight or flight.waiters:
                return None
            if flight.state is not _RUNNING or flight.work.kept:
                return None
            flight.void = True  # what it still brings is from before whatever comes now, and perhaps only half done
            self._end(flight, State.ABANDONED)
            return None if flight.work.running else flight.work

    @staticmethod
    def result(flight: Flight) -> Any:
        """Return the value of a flight that is over, or raise its error; once for each who waited.

        All raise the same error, each with the frames of the function only: otherwise every one of them would add its
        own frames to those of the ones before.
        """
        if flight.state is State.DONE:
            return flight.value
        error, traceback = flight.error, flight.traceback
        if error is None:
            raise RuntimeError(f"the flight is {flight.state.value} and has no answer left")
        Flights.let_go(flight)
        context = error.__context__
        try:
            raise error.with_traceback(traceback)
        finally:
            error.__context__ = context  # not what this caller was handling: the others have the same error
            del error, traceback, context, flight  # the error refers to this frame

    @staticmethod
    def let_go(flight: Flight) -> None:
        """Leave the answer of a flight that is over to the others who waited."""
        flight.owed -= 1
        if flight.owed <= 0:
            flight.error = flight.traceback = None

    def done(self, flight: Flight, value: Any) -> Iterable[Waiter]:
        """End a flight with a value; return whom to wake."""
        return self._settle(flight, State.DONE, value, None)

    def failed(self, flight: Flight, error: BaseException) -> Iterable[Waiter]:
        """End a flight with an error; return whom to wake."""
        return self._settle(flight, State.FAILED, None, error)

    def lost(self, flight: Flight) -> Iterable[Waiter]:
        """End a flight without an answer; return whom to wake, so that they ask anew."""
        return self._settle(flight, State.LOST, None, None)

    def detach(self, which: Callable[[Flight], bool]) -> list[Flight]:
        """Let go of flights: those who wait still get the answer, the next caller begins a new one.

        Returns them: the store voids their leases together with its entries.
        """
        with self._lock:
            found = [flight for flight in self.table.values() if which(flight)]
            for flight in found:
                del self.table[flight.key]
        return found

    def detach_key(self, key: Hashable) -> list[Flight]:
        """Let go of the flight of one key."""
        with self._lock:
            flight = self.table.pop(key, None)
        return [] if flight is None else [flight]

    def after_fork(self) -> None:
        """In a forked child nothing is in flight."""
        self._lock = threading.Lock()
        self.table = {}

    # --- with the lock held ---

    def _begin(self, key: Hashable, work: Work, tags: tuple[Hashable, ...]) -> Flight:
        flight = self.table[key] = Flight(key, work, tags)
        work.running += 1
        return flight

    def _wait(self, flight: Flight, waiter: Waiter, inside: Work | None) -> None:
        if inside is not None and inside.running:
            circles.link(inside, flight)
        flight.waiters[waiter] = None

    def _settle(self, flight: Flight, state: State, value: Any, error: BaseException | None) -> Iterable[Waiter]:
        with self._lock:
            if flight.state is not _RUNNING:
                return ()
            self._end(flight, state)
            waiters, flight.waiters = flight.waiters, {}
            flight.value, flight.owed = value, len(waiters)
            if error is not None and waiters:
                flight.error, flight.traceback = error, error.__traceback__
        return waiters

    def _end(self, flight: Flight, state: State) -> None:
        flight.state = state
        flight.work.running -= 1
        if self.table.get(flight.key) is flight:
            del self.table[flight.key]

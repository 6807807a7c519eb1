"""Running the work of flights in threads: whoever asks first computes, the others block until it has."""

from __future__ import annotations

import contextlib
import math
import threading
from collections import deque
from contextvars import Context
from typing import TYPE_CHECKING, TypeAlias

from asyncguard._machines.flight import Flight, Flights, State, Work
from asyncguard._runtime import clock as clocks
from asyncguard._runtime import deadlines, flight_context, flights
from asyncguard._runtime.parking import AsyncSpot, ThreadSpot, async_spot

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_MOST_THREADS = 4
_MOST_WAITING = 64

Job: TypeAlias = "Callable[[], None]"
Ended: TypeAlias = "Callable[[BaseException | None], None]"


class ThreadHandle:
    """A thread, None while none is free. It cannot be cancelled; after `limit` seconds nobody counts on it."""

    __slots__ = ("_thread", "_until")

    def __init__(self, thread: threading.Thread | None, limit: float = math.inf) -> None:
        self._thread = thread
        self._until = math.inf if limit == math.inf else clocks.current().now() + limit

    def alive(self) -> bool:
        """Tell whether an answer may still come."""
        begun = self._thread is None or self._thread.is_alive()
        return begun and (self._until == math.inf or clocks.current().now() < self._until)

    def left(self) -> float:
        """Return for how long it is worth waiting; on a virtual clock, which waiting would move, until it has ended."""
        clock = clocks.current()
        return self._until - clock.now() if clock is clocks.REAL else math.inf

    def cancel(self) -> None:
        """Do nothing: the thread works on and its result is not used."""


def lead(work: Work, run: Job, ended: Ended) -> None:
    """Run `run()` in this thread, in a context like that of a flight in a loop; see `flights.start`."""
    work.handle = ThreadHandle(threading.current_thread())
    _run(flight_context.own(work), run, ended)


def _run(context: Context, run: Job, ended: Ended) -> None:
    try:
        context.run(run)
    except BaseException:
        ended(None)
        raise


def wait(table: Flights, waited_for: Sequence[Flight], spot: ThreadSpot) -> bool:
    """Block until flights have ended; false if the deadline of this call came first."""
    try:
        for flight in waited_for:
            while flight.state is State.RUNNING:
                left = deadlines.remaining()
                if left == 0.0:
                    return False
                spot.wait(min(math.inf if left is None else left, _patience(flight.work)))
                if flight.state is State.RUNNING and not flight.work.alive():
                    flights.wake(table.lost(flight))
    finally:
        flights.leave(table, waited_for, spot)
    return True


def _patience(work: Work) -> float:
    handle = work.handle
    return handle.left() if isinstance(handle, ThreadHandle) else math.inf


class Background:
    """A few threads for refreshes of sync functions, alive only while there is work.

    They are no daemons: a refresh that has begun is finished before the interpreter exits, the waiting ones are not.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: deque[tuple[Job, Ended]] = deque()
        self._threads: set[threading.Thread] = set()
        self._closing: list[AsyncSpot] = []  # who waits until no thread is left

    def submit(self, work: Work, run: Job, ended: Ended, limit: float) -> None:
        """Run `run()` in a thread when one is free; if too many wait already, it is lost at once."""
        context = flight_context.own(work)
        work.handle = ThreadHandle(None, limit)

        def job() -> None:
            work.handle = ThreadHandle(threading.current_thread(), limit)
            deadlines.Deadline(limit, clocks.current().now()).set()
            run()

        with self._lock:
            accepted = len(self._jobs) < _MOST_WAITING and self._hire()
            if accepted:
                self._jobs.append((lambda: _run(context, job, ended), ended))
        if not accepted:
            ended(None)

    def _hire(self) -> bool:
        if len(self._threads) < _MOST_THREADS:
            thread = threading.Thread(target=self._serve, name="asyncguard refresh")
            try:
                thread.start()
            except RuntimeError:  # the interpreter ends, or the system has no more threads
                return bool(self._threads)
            self._threads.add(thread)
        return True

    def _serve(self) -> None:
        while (job := self._next()) is not None:
            with contextlib.suppress(BaseException):  # it was settled, and there is nobody here to raise it to
                job()

    def _next(self) -> Job | None:
        with self._lock:
            if self._jobs and threading.main_thread().is_alive():
                return self._jobs.popleft()[0]
            self._threads.discard(threading.current_thread())
            over = [] if self._threads else self._closing
            self._closing = [] if over else self._closing
        flights.wake(over)
        return None

    async def aclose(self) -> None:
        """Drop what waits, and wait for what runs without blocking the loop, which it may need."""
        with self._lock:
            dropped = list(self._jobs)
            self._jobs.clear()
        for _, ended in dropped:
            ended(None)
        spot = async_spot()
        while self._joined(spot):
            await spot.wait(math.inf)

    def _joined(self, spot: AsyncSpot) -> bool:
        with self._lock:
            if self._threads:
                self._closing.append(spot)
            return bool(self._threads)

"""What a monitor counts by itself, with no telemetry set up: durations in buckets by outcome, and calls in flight."""

from __future__ import annotations

import weakref
from threading import Lock
from typing import TYPE_CHECKING

from asyncguard._machines.histogram import Histogram, Snapshot, fine_seconds

if TYPE_CHECKING:
    from asyncguard._runtime.clock import Clock
    from asyncguard.telemetry.calls import Call

__all__ = ["OUTCOMES", "Counts", "MonitorCore", "in_flight"]

OUTCOMES = ("ok", "error", "fallback", "cancelled", "rejected")


_cores: weakref.WeakSet[MonitorCore] = weakref.WeakSet()


def in_flight() -> dict[str, int]:
    """Return how many monitored calls run now, in the whole process, by name."""
    running: dict[str, int] = {}
    for core in list(_cores):
        for name, counts in list(core.counts.items()):
            running[name] = running.get(name, 0) + len(counts.active)
    return running


class Counts:
    """The counts of one guarded function.

    `active` holds the calls in flight themselves: adding to a set and taking out is atomic, a number would need a lock.
    `add_ok` counts the duration of a call that went well.
    """

    __slots__ = ("_durations", "active", "add_ok")

    def __init__(self) -> None:
        self.active: set[Call] = set()
        self._durations = {outcome: Histogram(fine_seconds()) for outcome in OUTCOMES}
        self.add_ok = self._durations["ok"].add

    def add(self, outcome: str, duration: float) -> None:
        """Count a call that is over; `duration` in seconds."""
        self._durations[outcome].add(duration)

    def oldest(self) -> float | None:
        """Return when the oldest of the calls in flight began, None if there is none."""
        return min((call.start for call in list(self.active) if hasattr(call, "start")), default=None)

    def durations(self) -> dict[str, Snapshot]:
        """Return the durations so far by outcome, those that occurred."""
        taken = {outcome: histogram.snapshot() for outcome, histogram in self._durations.items()}
        return {outcome: snapshot for outcome, snapshot in taken.items() if snapshot.count}

    def after_fork(self) -> None:
        """In a forked child: nothing is in flight and nothing was counted; the parent reports what was."""
        self.active.clear()
        for histogram in self._durations.values():
            histogram.after_fork()


class MonitorCore:
    """The state of a monitor: the counts of each function that it watches, and the clock it reads."""

    __slots__ = ("__weakref__", "_lock", "clock", "counts", "now")

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.now = clock.now
        self.counts: dict[str, Counts] = {}
        self._lock = Lock()
        _cores.add(self)

    def of(self, name: str) -> Counts:
        """Return the counts of a function, by name."""
        counts = self.counts.get(name)
        if counts is None:
            with self._lock:
                counts = self.counts.setdefault(name, Counts())
        return counts

    def after_fork(self) -> None:
        """Renew everything in a forked child."""
        self._lock = Lock()
        for counts in self.counts.values():
            counts.after_fork()

"""The half-open epoch of a breaker: a fixed number of probes, and the answer as soon as it is certain."""

from __future__ import annotations

__all__ = ["Probes"]


class Probes:
    """At most `allowed` calls that are running or have said something; a probe given back may be granted again.

    It looks like a window to the fast path of a good call, and always makes it come in. All methods are called under
    the lock of the breaker.
    """

    __slots__ = ("_done", "_granted", "_run", "_running", "allowed", "failed", "look", "slow")

    def __init__(self, allowed: int, now: float) -> None:
        self.allowed = allowed
        self.look = 0
        self.failed = 0
        self.slow = 0
        self._done = 0
        self._run = 0
        self._running = 0
        self._granted = now

    def tick(self) -> int:
        """Return a number that is never below `look`."""
        return 0

    def full(self) -> bool:
        """Tell whether every probe is running or has ended."""
        return self._running + self._done >= self.allowed

    def grant(self, now: float) -> None:
        """Let one probe go."""
        self._running += 1
        self._granted = now

    def give_back(self) -> None:
        """Take back a probe that was cancelled, neutral or never made: it says nothing."""
        self._running -= 1

    def hang(self, now: float, patience: float) -> bool:
        """Tell whether the missing answers are overdue: the last probe left `patience` seconds ago."""
        self._granted = min(self._granted, now)  # the clock went back
        return self.full() and now - self._granted >= patience

    def good(self, number: int, now: float) -> bool:
        """Count a probe that succeeded in time; it may decide."""
        del number, now
        self._end()
        self._run = 0
        return True

    def bad(self, now: float, *, failed: bool, slow: bool) -> None:
        """Count a probe that failed, was slow, or both."""
        del now
        self._end()
        self.failed += failed
        self.slow += slow
        self._run = self._run + 1 if failed else 0

    def _end(self) -> None:
        self._running -= 1
        self._done += 1

    def missing(self) -> int:
        """Return how many answers are still to come."""
        return self.allowed - self._done

    def run(self) -> int:
        """Return the number of failures in a row at the end."""
        return self._run

    def forget_running(self) -> None:
        """In a forked child nothing is in flight."""
        self._running = 0

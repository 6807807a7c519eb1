"""What a breaker counts while it is closed: calls, failures and slow calls, by call number or by time.

A good call takes a number and no more. `tick` is the `__next__` of a range iterator, which is one step of the
interpreter: no lock, and no number is lost or given twice under any number of threads. A bad call takes the lock of
the breaker and takes its number under it. `look` is the number from which on a good call has to come in as well. Good
calls take their number first and read `look` after; bad calls close `look` first and take their number after. So one
of the two always sees the other, and no decision falls between them. Each decision is made at the number of the call
that brings it, whatever other threads have added since.

All methods but `tick` are called under the lock of the breaker.
"""

from __future__ import annotations

from collections import deque
from operator import length_hint
from typing import NamedTuple

__all__ = ["NEVER", "CountWindow", "Tally", "TimeWindow", "Window"]

NEVER = 1 << 62
"""A call number that is never reached."""
BUCKETS = 10
STRIDE = 16


class Tally(NamedTuple):
    """What a window holds: `run` is the number of failures in a row at its end."""

    calls: int = 0
    failed: int = 0
    slow: int = 0
    run: int = 0


class Numbers:
    """Call numbers from 1, and the failures in a row among them."""

    __slots__ = ("_at", "_last_failed", "_numbers", "_run", "look", "tick")

    def __init__(self, look: int) -> None:
        numbers = iter(range(1, NEVER))
        self.tick = numbers.__next__
        self._numbers = numbers
        self.look = look
        self._at: int = 0  # the number up to which we have counted
        self._run = 0
        self._last_failed = -1

    def _taken(self) -> int:
        return NEVER - 1 - length_hint(self._numbers)  # without taking one

    def _failed(self, number: int) -> None:
        # In a row means that nobody took a number in between: good calls need not come in to end a run.
        self._run = self._run + 1 if number == self._last_failed + 1 else 1
        self._last_failed = number


class CountWindow(Numbers):
    """The last `size` calls, exactly.

    Only bad calls are remembered, by number. A good call never opens a circuit, as it can only lower the rates, except
    for the one that makes the calls `minimum`; that one comes in. O(1) per call, memory for the bad calls only.
    """

    __slots__ = ("_failures", "_size", "_slows")

    def __init__(self, size: int, minimum: int) -> None:
        super().__init__(look=min(minimum, size))
        self._size = size
        self._failures: deque[int] = deque()
        self._slows: deque[int] = deque()

    def good(self, number: int, now: float) -> bool:
        """Count a good call that came in with its number; tell whether it may open the circuit."""
        del now
        self.look = NEVER
        self._run = 0
        self._at = max(self._at, number)
        return True

    def bad(self, now: float, *, failed: bool, slow: bool) -> None:
        """Count a failed call, a slow one, or one that is both."""
        del now
        number = self._at = self.tick()
        if failed:
            self._failed(number)
            self._failures.append(number)
        if slow:
            self._slows.append(number)

    def tally(self, now: float) -> Tally:
        """Return what the window held at the outcome that came in last."""
        del now
        self._expire()
        return Tally(min(self._at, self._size), len(self._failures), len(self._slows), self._run)

    def read(self, now: float) -> Tally:
        """Return what the window holds now."""
        self._at = self._taken()
        return self.tally(now)

    def _expire(self) -> None:
        for numbers in (self._failures, self._slows):
            while numbers and numbers[0] <= self._at - self._size:
                numbers.popleft()


class TimeWindow(Numbers):
    """The calls of the last `seconds`, in ten sub-buckets that are dropped whole: it spans 90 to 100 % of them.

    While it holds no bad call, a good one reads the clock only now and then: at first every time, then up to every
    16th as long as those take less than a sub-bucket. What came since the last look counts as having come at the next
    look. So, against a window that reads the clock for every call, it never holds fewer calls, and it holds at most 15
    more: good ones, older than it thinks. A rate is never overestimated; `minimum_calls` may be met by those 15. While
    it holds a bad call every call comes in, and is counted at its own time. O(1) per call, O(1) memory.
    """

    __slots__ = ("_buckets", "_ends", "_looked", "_stride", "_totals", "_width")

    def __init__(self, seconds: float, now: float) -> None:
        super().__init__(look=1)
        self._width = seconds / BUCKETS
        self._buckets: deque[list[int]] = deque([0, 0, 0] for _ in range(BUCKETS))  # calls, failed, slow
        self._totals = [0, 0, 0]
        self._ends = now + self._width  # of the newest bucket
        self._looked = now
        self._stride = 1

    def good(self, number: int, now: float) -> bool:
        """Count a good call that came in with its number, and those since the last look; tell whether it may open."""
        self._run = 0
        self._settle(number, now)
        if self._totals[1] or self._totals[2]:
            self.look = 0
            return True
        self._stride = min(2 * self._stride, STRIDE) if now - self._looked < self._width else 1
        self._looked = now
        self.look = self._at + self._stride
        return False

    def bad(self, now: float, *, failed: bool, slow: bool) -> None:
        """Count a failed call, a slow one, or one that is both, and the good ones since the last look."""
        self.look = 0
        number = self.tick()
        self._settle(number, now)
        if failed:
            self._failed(number)
        for counts in (self._buckets[-1], self._totals):
            counts[1] += failed
            counts[2] += slow

    def tally(self, now: float) -> Tally:
        """Return what the window held at the outcome that came in last, at the time `now`."""
        self._roll(now)
        calls, failed, slow = self._totals
        return Tally(calls, failed, slow, self._run)

    def read(self, now: float) -> Tally:
        """Return what the window holds now."""
        self._settle(self._taken(), now)
        return self.tally(now)

    def _settle(self, number: int, now: float) -> None:
        self._roll(now)
        fresh = max(0, number - self._at)
        self._at += fresh
        self._buckets[-1][0] += fresh
        self._totals[0] += fresh

    def _roll(self, now: float) -> None:
        if now < self._ends - self._width:  # the clock went back: the newest bucket starts anew, nothing waits for it
            self._ends = now + self._width
        elif now >= self._ends:
            gone = int((now - self._ends) // self._width) + 1
            for _ in range(min(gone, BUCKETS)):
                self._drop_oldest()
            self._ends = max(self._ends + gone * self._width, now)

    def _drop_oldest(self) -> None:
        oldest = self._buckets.popleft()
        for i, count in enumerate(oldest):
            self._totals[i] -= count
        self._buckets.append([0, 0, 0])


Window = CountWindow | TimeWindow

"""How many retries a dependency is asked to bear: a share of the calls, so that retries cannot multiply an outage.

The form is Finagle's RetryBudget (also in tower and linkerd): within ten seconds at most `ratio` retries per call, plus
a reserve of so many per second for those who call seldom. Retries expire from the window as calls do.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import Protocol

from asyncguard._machines import checks

__all__ = ["Allowance", "RetryBudget"]

_WINDOW = 10.0  # seconds, as Finagle has it
_SLOTS = 10
_ROUNDING = 1e-9  # 0.1 * 10 calls are one retry, whatever the floats say

_budgets: weakref.WeakSet[RetryBudget] = weakref.WeakSet()


class Now(Protocol):
    """A clock: monotonic seconds."""

    def now(self) -> float: ...


class Allowance:
    """What may be spent now. A call is counted without a lock: `allowance.calls += 1.0`.

    Within that statement no other thread runs under the GIL; without it a count may be lost now and then, and a share
    of the calls does not notice. It is a float because Python keeps free ones at hand: a third cheaper than an int.

    When the calls happened is not recorded, it would cost more than the guarded call: those since the last look are
    spread evenly over the time since then.
    """

    __slots__ = ("_earned", "_lock", "_ratio", "_reserve", "_seen", "_slot", "_spent", "_when", "_width", "calls")

    def __init__(self, ratio: float, min_per_second: float, now: float, window: float = _WINDOW) -> None:
        self.calls = 0.0
        self._ratio = ratio
        self._reserve = min_per_second * window
        self._width = window / _SLOTS
        self._earned = [0.0] * _SLOTS
        self._spent = [0] * _SLOTS
        self._seen = 0.0
        self._when = now
        self._slot = int(now / self._width)
        # Reentrant: the garbage collector may end an abandoned call on the thread that holds the lock.
        self._lock = threading.RLock()

    def withdraw(self, now: float) -> bool:
        """Take one retry if there is one left."""
        with self._lock:
            self._roll(now)
            if self._left() < 1.0 - _ROUNDING:
                return False
            self._spent[self._slot % _SLOTS] += 1
            return True

    def left(self, now: float) -> float:
        """Return how many retries are left, nothing taken."""
        with self._lock:
            self._roll(now)
            return max(0.0, self._left())

    def idle(self, now: float) -> bool:
        """Tell whether nothing would be lost by forgetting it: no retry within the window."""
        with self._lock:
            self._roll(now)
            return not any(self._spent)

    def after_fork(self) -> None:
        """Renew the lock: another thread may have held it when the process forked."""
        self._lock = threading.RLock()

    def _left(self) -> float:
        return self._reserve + self._ratio * sum(self._earned) - sum(self._spent)

    def _roll(self, now: float) -> None:
        """Forget what left the window and count the calls since the last look."""
        elapsed = max(0.0, now - self._when)
        first, last = self._slot, max(self._slot, int(now / self._width))
        for slot in range(max(first + 1, last - _SLOTS + 1), last + 1):
            self._earned[slot % _SLOTS] = 0.0
            self._spent[slot % _SLOTS] = 0
        counted = self.calls
        calls, self._seen = counted - self._seen, counted
        self._spread(calls * min(1.0, _SLOTS * self._width / elapsed) if elapsed else calls, first, last)
        self._slot, self._when = last, max(self._when, now)

    def _spread(self, calls: float, first: int, last: int) -> None:
        touched = range(max(first, last - _SLOTS + 1), last + 1)
        for slot in touched:
            self._earned[slot % _SLOTS] += calls / len(touched)


class RetryBudget:
    """A budget of retries: at most `ratio` retries per call over ten seconds, plus `min_per_second` for each second.

    Give the same object to several `retry` (and to `hedge`) of one dependency and they share it. It pickles as its two
    numbers; what was spent stays behind. `ratio` may exceed 1 (up to 10 retries per call); raises ValueError for what
    is out of range.
    """

    def __init__(self, ratio: float = 0.2, min_per_second: float = 10) -> None:
        self.ratio = checks.number("ratio", ratio, least=0.0, most=10.0)
        self.min_per_second = checks.number("min_per_second", min_per_second, least=0.0)
        self._lock = threading.RLock()
        self._by_clock: weakref.WeakKeyDictionary[Now, Allowance] = weakref.WeakKeyDictionary()
        _budgets.add(self)

    def at(self, clock: Now) -> Allowance:
        """Return what may be spent, as seen by a clock: strategies under test on a virtual clock have their own."""
        with self._lock:
            allowance = self._by_clock.get(clock)
            if allowance is None:
                fresh = Allowance(self.ratio, self.min_per_second, clock.now())
                allowance = self._by_clock.setdefault(clock, fresh)
            return allowance

    def after_fork(self) -> None:
        """Renew the locks in a forked child."""
        self._lock = threading.RLock()
        for allowance in list(self._by_clock.values()):
            allowance.after_fork()

    def __reduce__(self) -> tuple[Callable[..., RetryBudget], tuple[float, float]]:
        return RetryBudget, (self.ratio, self.min_per_second)

    def __repr__(self) -> str:
        return f"RetryBudget(ratio={self.ratio:g}, min_per_second={self.min_per_second:g})"


def _renew() -> None:
    for budget in list(_budgets):
        budget.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)

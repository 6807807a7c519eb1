"""Until when a target does not want to be asked: one 429 pauses all who would ask it next."""

from __future__ import annotations

import threading
from collections.abc import Callable

__all__ = ["Parked"]

_SPREAD = 0.1  # of the pause: those who waited do not come back in the same moment


class Parked:
    """The end of the pause that a target asked for, in monotonic seconds; 0.0 while there is none.

    `until` is read without a lock. The pause only ever grows longer: a later answer that asks for less was computed
    before the earlier one, or is about something else. `hopeless`: the target asked for more than anybody waits, so
    callers are refused at once until the pause, as long as they would have waited, is over.
    """

    __slots__ = ("_lock", "_spread", "hopeless", "until")

    def __init__(self) -> None:
        self.until = 0.0
        self.hopeless = False
        self._spread = 0.0
        self._lock = threading.RLock()  # the garbage collector may end another call on the thread that has it

    def park(self, now: float, seconds: float, most: float) -> bool:
        """Ask everybody to wait `seconds`, but not more than `most`; tell whether nobody was parked before."""
        pause = min(seconds, most)
        with self._lock:
            fresh = self.until <= now
            if now + pause > self.until:
                self.until = now + pause
                self.hopeless = seconds > most
                self._spread = pause * _SPREAD
            return fresh

    def wait(self, now: float, random: Callable[[], float]) -> tuple[float, float]:
        """Return how long to wait at least, and how long with the share of the release that is ours."""
        left = self.until - now
        return (left, left + self._spread * random()) if left > 0.0 else (0.0, 0.0)

    def over(self, now: float) -> bool:
        """Forget a pause that has passed; tell whether it has."""
        with self._lock:
            if self.until > now:
                return False
            self.until = 0.0
            return True

    def after_fork(self) -> None:
        """Renew the lock: another thread may have held it when the process forked."""
        self._lock = threading.RLock()

"""The circuit breaker: closed, open, half-open. A permit is the epoch in which a call was admitted.

Every transition starts a new epoch, and the outcome of a call of an older epoch is ignored: a slow call that was
admitted before the circuit opened cannot decide the probes that run now. The states, the two kinds of windows and the
slow-call rate are those of resilience4j, the ten sub-buckets and the manual states those of Polly; that a hanging probe
opens the circuit again is our answer to breakers that stayed half-open for days.
"""

from __future__ import annotations

import copy
import math
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from asyncguard._machines import circuit_words
from asyncguard._machines.circuit_rules import CircuitRules
from asyncguard._machines.circuit_words import CircuitState
from asyncguard._machines.gate import NOBODY, Request, Wake
from asyncguard._machines.probes import Probes
from asyncguard._machines.window import Tally, Window
from asyncguard.errors import CircuitOpenError
from asyncguard.events import CircuitClosed, CircuitHalfOpened, CircuitOpened, Event

__all__ = ["Circuit", "CircuitState"]

Epoch = Window | Probes
News = tuple[type[Event], dict[str, Any]]


class Circuit:
    """One circuit. `label` names it in messages, `clock` gives monotonic seconds."""

    def __init__(self, rules: CircuitRules, clock: Callable[[], float], label: str = "circuit_breaker") -> None:
        self.outcomes = True
        # Reentrant: the garbage collector may end an abandoned call on the thread that holds the lock.
        self._lock = threading.RLock()
        self._clock = clock
        self._label = label
        self._rules = rules
        self._slow = rules.slow_call
        self.timed = rules.slow_call < math.inf
        self.news: deque[News] = deque()
        self._closed: Window | None = None  # the epoch while closed: all that the fast path looks at
        self._epoch: Epoch
        self._start_closed()

    def _start_closed(self) -> None:
        self.state = CircuitState.CLOSED
        self._epoch = self._closed = self._rules.new_window(self._clock())
        self._tripped = 0.0  # when it left the closed state
        self._until = 0.0  # when an open circuit lets probes through
        self._pause = 0.0  # how long it opened last
        self._facts = Tally()  # of the window, when it opened
        self._last_error = ""
        self._last_failure = 0.0

    # --- admission ---

    def take(self) -> Epoch:
        """Return a permit if the circuit is closed: no lock, no clock."""
        epoch = self._closed
        if epoch is None:
            raise LookupError
        return epoch

    def peek(self) -> None:
        """Raise CircuitOpenError if a call would be refused now; takes nothing."""
        if self._closed is None:
            with self._lock:
                now = self._clock()
                if not self._may_probe(now):
                    raise self._refusal(now)

    def admit(self, request: Request | None = None) -> Epoch:
        """Return a permit, a probe's if the circuit is half-open or may become so; raise CircuitOpenError."""
        del request
        with self._lock:
            if self.state is CircuitState.CLOSED:
                return self._epoch
            now = self._clock()
            if not self._may_probe(now):
                raise self._refusal(now)
            return self._probe(now)

    def _may_probe(self, now: float) -> bool:
        if isinstance(self._epoch, Probes):
            if not self._epoch.full():
                return True
            if self._epoch.hang(now, self._rules.open_for):
                self._reopen(now, self._probe_tally(self._epoch))
        if self.state is not CircuitState.OPEN:
            return False
        self._until = min(self._until, now + self._pause)  # the clock went back: never longer than we said
        return now >= self._until

    def _probe(self, now: float) -> Probes:
        if not isinstance(self._epoch, Probes):
            self.state = CircuitState.HALF_OPEN
            self._epoch = Probes(self._rules.half_open_calls, now)
            self.news.append((CircuitHalfOpened, {"probes": self._rules.half_open_calls}))
        self._epoch.grant(now)
        return self._epoch

    # --- outcomes ---

    def succeeded(self, permit: Epoch, elapsed: float) -> Wake:
        """Count a call that returned after `elapsed` seconds: no lock and no clock while there is nothing to decide."""
        if elapsed > self._slow:
            self._count_bad(permit, slow=True, error=None)
        else:
            number = permit.tick()
            if number >= permit.look:
                self._count_good(permit, number)
        return NOBODY

    def failed(self, permit: Epoch, elapsed: float, error: Exception) -> Wake:
        """Count a call that failed after `elapsed` seconds."""
        self._count_bad(permit, slow=elapsed > self._slow, error=error)
        return NOBODY

    def abandoned(self, permit: Epoch) -> Wake:
        """Count nothing: a call that was cancelled, or never made, gives its probe back."""
        if isinstance(permit, Probes):
            with self._lock:
                permit.give_back()
        return NOBODY

    refund = abandoned

    def release(self, permit: Epoch) -> Wake:
        """Do nothing: a breaker has no slots."""
        del permit
        return NOBODY

    def _count_good(self, permit: Epoch, number: int) -> None:
        with self._lock:
            if permit is self._epoch:
                now = self._clock()
                if permit.good(number, now):
                    self._decide(now)

    def _count_bad(self, permit: Epoch, *, slow: bool, error: Exception | None) -> None:
        with self._lock:
            if permit is not self._epoch:
                return
            now = self._clock()
            if error is not None:  # its name only: an exception keeps the frames it came through alive
                self._last_error, self._last_failure = type(error).__name__, now
            permit.bad(now, failed=error is not None, slow=slow)
            self._decide(now)

    def _decide(self, now: float) -> None:
        if isinstance(self._epoch, Probes):
            bad = self._rules.decide(self._epoch)
            if bad:
                self._reopen(now, self._probe_tally(self._epoch))
            elif bad is False:
                self._close(now)
            return
        tally = self._epoch.tally(now)
        if self._rules.trip(tally):
            self._trip(now, tally, self._rules.open_for)

    # --- transitions ---

    def _trip(self, now: float, tally: Tally, pause: float) -> None:
        if self._closed is not None:
            self._tripped = now
        self.state, self._closed, self._epoch = CircuitState.OPEN, None, self._rules.new_window(now)
        self._pause, self._until, self._facts = pause, now + pause, tally
        facts = {"calls": tally.calls, "failed": tally.failed, "slow": tally.slow, "error": self._last_error}
        self.news.append((CircuitOpened, {"open_for": pause, **facts}))

    def _reopen(self, now: float, tally: Tally) -> None:
        self._trip(now, tally, min(self._rules.max_open_for, self._pause * self._rules.open_factor))

    def _close(self, now: float) -> None:
        open_for = max(0.0, now - self._tripped)
        self._start_closed()
        self.news.append((CircuitClosed, {"open_for": open_for}))

    @staticmethod
    def _probe_tally(probes: Probes) -> Tally:
        return Tally(probes.allowed - probes.missing(), probes.failed, probes.slow, probes.run())

    # --- by hand ---

    def open(self) -> None:
        """Open for `open_for` seconds, as if it had tripped."""
        with self._lock:
            now = self._clock()
            self._trip(now, self._tally(now), self._rules.open_for)

    def force_open(self) -> None:
        """Open until `close` or `reset`."""
        with self._lock:
            now = self._clock()
            self._trip(now, self._tally(now), math.inf)
            self.state = CircuitState.FORCED_OPEN

    def close(self) -> None:
        """Close, with an empty window; nothing happens to a closed circuit."""
        with self._lock:
            if self.state is not CircuitState.CLOSED:
                self._close(self._clock())

    def reset(self) -> None:
        """Become as new: closed, an empty window, and no memory of how often it opened."""
        with self._lock:
            if self.state is CircuitState.CLOSED:
                self._start_closed()
            else:
                self._close(self._clock())

    def configure(self, rules: CircuitRules) -> None:
        """Take other rules. The state is kept; the window only if the new rules count as the old ones did."""
        with self._lock:
            keep = rules.counts_like(self._rules)
            self._rules, self._slow, self.timed = rules, rules.slow_call, rules.slow_call < math.inf
            if self._closed is not None and not keep:
                self._start_closed()

    # --- what it says about itself ---

    def describe(self) -> str:
        """Say in a few words where the circuit is and why, for `status()`."""
        with self._lock:
            now = self._clock()
            if self.state is CircuitState.CLOSED:
                return f"CLOSED, {self._why(self._tally(now), now)}"
            return self._words(now)

    def idle(self) -> bool:
        """Tell whether it is closed and its window holds nothing bad."""
        with self._lock:
            tally = self._tally(self._clock())
            return self.state is CircuitState.CLOSED and not tally.failed and not tally.slow

    def after_fork(self) -> None:
        """In a forked child: a new lock, and no probe in flight."""
        self._lock = threading.RLock()
        if isinstance(self._epoch, Probes):
            self._epoch = copy.copy(self._epoch)  # what a probe of the parent says here is not asked for
            self._epoch.forget_running()

    def _tally(self, now: float) -> Tally:
        return self._facts if self._closed is None else self._closed.read(now)

    def _refusal(self, now: float) -> CircuitOpenError:
        remaining = max(0.0, self._until - now) if self.state is CircuitState.OPEN else None
        return CircuitOpenError(f"{self._label}: circuit {self._words(now)}", retry_after=remaining)

    def _words(self, now: float) -> str:
        probes = self._epoch if isinstance(self._epoch, Probes) else None
        return f"{circuit_words.where(self.state, probes, self._until - now)}, {self._why(self._facts, now)}"

    def _why(self, tally: Tally, now: float) -> str:
        return circuit_words.why(tally, self._last_error, now - self._last_failure)

"""Slots whose number follows what the dependency can take: the machine of `adaptive_concurrency`.

The rules are in `limits`; here is when they are asked. Latencies are gathered in windows of fifty calls, or of thirty
seconds if calls are rare, and their median counts. A drop (a timeout, a throttled call) counts at once, but only one of
all calls that were under way together: each change starts a new epoch, and calls that started before it are ignored
(Envoy's adaptive concurrency does so). Every 300 windows the dependency is drained for 25 calls, to learn its latency
when it is empty; sooner at first, because the first guess may be far too high, and when the limit has fallen by a
third, because the dependency may not be full but slower than it was.

What a call tells waits in `_heard` until whoever has the lock sees to it, as whatever is given back to `Slots`.
"""

from __future__ import annotations

import copy
import math
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from asyncguard._machines.gate import NOBODY, wake
from asyncguard._machines.limits import Aimd, new_limit
from asyncguard._machines.slots import Slots

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncguard._machines.gate import Request, Wake
    from asyncguard._machines.place import Place

__all__ = ["Adaptive", "AdaptiveRules", "Window"]

WINDOW_CALLS, WINDOW_LEAST, WINDOW_SECONDS = 50, 10, 30.0
PROBE_CALLS = 25
PROBE_FIRST, PROBE_EVERY = 10, 300  # windows between probes: at first, and in the long run
PROBE_BELOW = 2 / 3  # of the highest limit since the probe before
IDLE_SECONDS = 60.0  # what was learnt is forgotten no sooner
_NO_WORK = 1e-4  # who answers faster than this did no work; Netflix' minRttThreshold
_CLOCK_SLACK = 1e-6  # a start is known as now - elapsed: rounded, and read a moment apart


@dataclass(frozen=True, slots=True)
class AdaptiveRules:
    """What the limit may be, and how it moves. `max_queue`: callers that may wait; None: ten times the limit."""

    initial: int
    least: int
    most: int
    algorithm: str
    max_queue: int | None

    def places(self, limit: int) -> int:
        """How many callers may wait at this limit."""
        return 10 * limit if self.max_queue is None else self.max_queue


class Window:
    """The latencies of calls that ended while one limit was in force; `used` slots were taken at most."""

    __slots__ = ("closes", "least", "opened", "probing", "samples", "used", "wanted")

    def __init__(self, now: float, seconds: float, *, probing: bool) -> None:
        self.opened, self.closes = now, now + seconds
        self.probing = probing
        self.wanted, self.least = (PROBE_CALLS, 0) if probing else (WINDOW_CALLS, WINDOW_LEAST)
        self.samples: deque[float] = deque()
        self.used = 0

    def due(self, now: float) -> bool:
        """Tell whether there are calls enough, or it has lasted long enough."""
        count = len(self.samples)
        return count >= self.wanted or (now >= self.closes and count >= self.least)

    def median(self) -> float | None:
        """Return the middle of the latencies in seconds; None if a probe has not seen half of the calls it wanted."""
        samples = sorted(self.samples)
        return samples[len(samples) // 2] if 2 * len(samples) >= self.wanted or not self.probing else None


class Adaptive(Slots):
    """Slots whose number is learnt; `random` (0..1) spreads the probes of several processes."""

    outcomes = True
    timed = True

    def __init__(
        self, rules: AdaptiveRules, *, name: str, clock: Callable[[], float], random: Callable[[], float]
    ) -> None:
        # Slots has no news: old and new limit.
        self.news: deque[tuple[int, int]] = deque()  # type: ignore[assignment] # pyright: ignore[reportIncompatibleVariableOverride]
        self.rules = rules
        self.rule: Aimd = new_limit(rules.algorithm, rules.initial, rules.least, rules.most)
        self.latency = math.nan  # the median of the window before, in seconds
        self._random = random
        self._gap = PROBE_FIRST
        self._windows = 0.0  # to go until the next probe
        self._highest = rules.initial  # since the probe before
        super().__init__(rules.initial, rules.places(rules.initial), name=name, clock=clock)
        self._plan_probe()

    def _renew(self) -> None:
        self.rule = copy.copy(self.rule)  # calls of the parent that end in a forked child teach another one
        self.size = self.rule.limit  # a probe does not survive a fork
        super()._renew()
        self._heard: deque[Window | float] = deque()  # windows that are due, starts of calls that were dropped
        now = self._clock()
        self._window = Window(now, WINDOW_SECONDS, probing=False)
        self._epoch = now - _CLOCK_SLACK

    # --- the gate ---

    def admit(self, request: Request) -> int | Place:
        """Return a slot, or a place in the queue; raise BulkheadFullError if the queue is full."""
        wake(self._look(self._window, self._clock()))
        return super().admit(request)

    def succeeded(self, permit: int, elapsed: float) -> Wake:
        """Learn from a call that returned after `elapsed` seconds."""
        del permit
        now, window = self._clock(), self._window
        samples, used = window.samples, self.size + self.surplus - len(self.free)
        if elapsed >= _NO_WORK and now - elapsed >= self._epoch:
            samples.append(elapsed)
        if used > window.used:  # noqa: PLR1730 - a call of max() costs more than the rest of the line
            window.used = used
        return NOBODY if len(samples) < window.wanted and now < window.closes else self._look(window, now)

    def failed(self, permit: int, elapsed: float, error: Exception) -> Wake:
        """Learn from a drop: a call that ran out of time or was throttled after `elapsed` seconds."""
        del permit, error
        return self._tell(self._clock() - elapsed)

    def abandoned(self, permit: int) -> Wake:
        """Learn nothing: the call was cancelled, or failed in a way that has nothing to do with load."""
        del permit
        return self._look(self._window, self._clock())

    def idle(self) -> bool:
        """Tell whether nothing runs or waits, and the limit is as good as new or has not been needed for a minute."""
        if not super().idle():
            return False
        return self.rule.limit >= self.rules.initial or self._clock() - self._window.opened >= IDLE_SECONDS

    # --- looking and changing ---

    @property
    def limit(self) -> int:
        """How many calls may run at once; while a probe runs it is fewer for a moment."""
        return self.rule.limit

    @property
    def probing(self) -> bool:
        """Whether the dependency is drained just now, to measure its latency."""
        return self._window.probing

    def configure(self, rules: AdaptiveRules) -> Wake:
        """Take other rules; what was learnt is kept as far as they allow."""
        self._alone(self._configure, rules)
        return self._see_to_it()

    def _configure(self, rules: AdaptiveRules) -> None:
        old = self.limit
        if rules.algorithm == self.rules.algorithm:
            self.rule.bound(rules.least, rules.most)
        else:
            kept = min(max(self.rule.estimate, rules.least), rules.most)
            self.rule = new_limit(rules.algorithm, kept, rules.least, rules.most)
        self.rules = rules
        self._open(self._clock(), old)
        self._back.append(None)

    def describe(self) -> str:
        """Say in a few words where the limit is and why."""
        known = [
            f"{1e3 * seconds:.4g} ms {what}"
            for seconds, what in ((self.latency, "latency"), (self.rule.base, "unloaded"))
            if math.isfinite(seconds)
        ]
        probe = f", probing with {self.size}" if self.probing else ""
        return ", ".join([f"limit {self.limit} ({self.rules.least}..{self.rules.most}{probe})", *known])

    def _advice(self, option: str) -> str:
        return f"; {self.describe()}{super()._advice(option)}"

    # --- telling, without the lock ---

    def _look(self, window: Window, now: float) -> Wake:
        return self._tell(window) if window.due(now) else NOBODY

    def _tell(self, said: Window | float) -> Wake:
        self._heard.append(said)
        self._back.append(None)  # also looks at `free` again: the limit may have grown
        return self._see_to_it()

    # --- learning, under the lock ---

    def _settle(self) -> None:
        while self._heard:
            self._learn(self._heard.popleft())
        super()._settle()

    def _learn(self, said: Window | float) -> None:
        old = self.limit
        if not isinstance(said, Window):
            if said >= self._epoch:
                self.rule.dropped()
                self._open(self._clock(), old, epoch=True)
        elif said is self._window:  # not closed by another meanwhile
            self._measure(said)
            self._open(self._clock(), old)

    def _measure(self, window: Window) -> None:
        median = window.median()
        if window.probing:
            self._plan_probe()
            self._highest = self.limit
            if median is not None:
                self.rule.probed(median)
        elif median is not None:
            self.latency = median
            self.rule.measured(median, window.used)
            self._highest = max(self._highest, self.limit)
            self._windows = 0.0 if self.limit < PROBE_BELOW * self._highest else self._windows - 1

    def _plan_probe(self) -> None:
        self._windows = self._gap * (0.75 + 0.5 * self._random())
        self._gap = min(PROBE_EVERY, 2 * self._gap)

    def _open(self, now: float, old: int, *, epoch: bool = False) -> None:
        """Start the next window, with another number of slots if the limit moved or a probe begins or ends."""
        drained = self.rule.drained() if self._windows <= 0 else None
        size = self.limit if drained is None else drained
        if epoch or size != self.size:
            self._epoch = now - _CLOCK_SLACK
        # A probe sees no call end before those under way have ended.
        seconds = WINDOW_SECONDS if drained is None else max(WINDOW_SECONDS, 4 * self.latency)
        self._window = Window(now, seconds, probing=drained is not None)
        self._fit(size)
        if self.limit != old:
            self.news.append((old, self.limit))

    def _fit(self, size: int) -> None:
        more, self.size, self.max_queue = size - self.size, size, self.rules.places(self.limit)
        missing = more - self.surplus  # slots that come back too many are worth as many new ones
        self.surplus = max(0, -missing)
        self.free.extend(range(missing))
        self._withdraw_surplus()

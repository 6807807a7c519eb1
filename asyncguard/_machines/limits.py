"""How many calls at once a dependency can take, learnt from latencies and drops: pure arithmetic, no time, no locks.

Vegas is the rule of TCP Vegas as Netflix' concurrency-limits has it (Brakmo and Peterson 1994; VegasLimit): the share
of the latency that is above that of an empty dependency says how many calls queue there, and the limit keeps a few.
Ours is how the latency of the empty dependency is found. Netflix takes whatever it measures now and then, also while
the dependency is full, and drifts upwards: we drain it first. Netflix takes the least it has seen since, and with
latencies that vary the limit shrinks to a fraction: we go an eighth of the way. A drop costs a tenth, as with AIMD.

AIMD is the rule of TCP Reno (AIMDLimit): it ignores latency and gives way to drops only.

Gradient2 is not here: under steady load it drifts to its maximum (issues 134 and 141 of concurrency-limits).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["Aimd", "Vegas", "new_limit"]

BACKOFF = 0.9  # of what is left of the limit after a drop, as AIMDLimit has it
_DRAINED = 4  # while a probe runs, a quarter of the limit is used: empty if the limit is not beyond four times too high
_LOWER = 0.125  # of the way towards a window that was faster than the base latency
_ROUNDING = 1e-9  # 0.9 * 30 are 27 calls, whatever the floats say


@dataclass(slots=True)
class Aimd:
    """One more after each window without a drop, a tenth less at each drop.

    `estimate` is the limit before rounding, always within `least`..`most`.
    """

    estimate: float
    least: int
    most: int
    backoff: float = BACKOFF

    @property
    def limit(self) -> int:
        """How many calls may run at once."""
        return int(self.estimate + _ROUNDING)

    @property
    def base(self) -> float:
        """The latency of the empty dependency in seconds; infinite while it is unknown."""
        return math.inf

    def measured(self, latency: float, used: int) -> None:
        """Learn from a window without drops: its median latency, and how much of the limit was used at most."""
        del latency
        if used * 2 >= self.estimate:  # a limit that nobody reaches says nothing about what lies above it
            self._set(self.estimate + 1)

    def dropped(self) -> None:
        """A call ran out of time or was throttled."""
        self._set(self.estimate * self.backoff)

    def drained(self) -> int | None:
        """Return how many calls may run while the base latency is measured; None: it is of no use."""
        return None

    def probed(self, latency: float) -> None:
        """Take the latency of the drained dependency."""

    def bound(self, least: int, most: int) -> None:
        """Change the bounds; the estimate moves only if it has to."""
        self.least, self.most = least, most
        self._set(self.estimate)

    def _set(self, estimate: float) -> None:
        self.estimate = min(float(self.most), max(float(self.least), estimate))


class Vegas(Aimd):
    """Keeps about three to six calls queueing at the dependency, per digit of the limit beyond the first.

    `smoothing` is the share of a change that is made at once, 0..1.
    """

    __slots__ = ("_base", "_smoothing")

    def __init__(
        self, estimate: float, least: int, most: int, backoff: float = BACKOFF, *, smoothing: float = 1.0
    ) -> None:
        super().__init__(estimate, least, most, backoff)
        self._base = math.inf
        self._smoothing = smoothing

    @property
    def base(self) -> float:
        """The latency of the empty dependency in seconds; infinite while it is unknown."""
        return self._base

    def measured(self, latency: float, used: int) -> None:
        """Learn from a window without drops: its median latency, and how much of the limit was used at most."""
        if self._base == math.inf:
            self._base = latency
            return
        if latency < self._base:  # a share only: the least of many medians is a lucky one, and the limit would shrink
            self._base += _LOWER * (latency - self._base)
        if used * 2 >= self.estimate:
            queueing = math.ceil(self.estimate * (1.0 - self._base / latency))
            self._smooth(self.estimate + _step(self.estimate, queueing))

    def dropped(self) -> None:
        """A call ran out of time or was throttled."""
        self._smooth(self.estimate * self.backoff)

    def drained(self) -> int:
        """Return how many calls may run while the base latency is measured."""
        return max(self.least, self.limit // _DRAINED)

    def probed(self, latency: float) -> None:
        """Take the latency of the drained dependency, also if it has become slower."""
        self._base = latency

    def _smooth(self, target: float) -> None:
        self._set(self.estimate + self._smoothing * (target - self.estimate))


def _step(estimate: float, queueing: int) -> int:
    """Return by how much the limit changes with so many calls queueing at the dependency (VegasLimit's defaults)."""
    unit = max(1, int(math.log10(estimate)))
    if queueing <= unit:
        return 6 * unit
    if queueing < 3 * unit:
        return unit
    return -unit if queueing > 6 * unit else 0


def new_limit(algorithm: str, initial: float, least: int, most: int) -> Aimd:
    """Return a limit that follows `algorithm`: "vegas" or "aimd"."""
    kind = Vegas if algorithm == "vegas" else Aimd
    return kind(initial, least, most)

"""How long calls took lately: a sliding sketch of which any quantile can be read, O(1) per sample.

Counts in buckets whose bounds grow by a constant factor, so the relative error is the same for microseconds and for
minutes (DDSketch, Masson et al., VLDB 2019). It slides as Finagle's WindowedPercentileHistogram does: three slices of
ten seconds, the oldest dropped as a whole; a quantile that was read is good for three seconds.
"""

from __future__ import annotations

import math
import threading

__all__ = ["LatencySketch"]

_SLICES = 3
_SLICE = 10.0  # seconds
_GOOD_FOR = 3.0  # seconds
_GROWTH = math.log(1.02)  # between the bounds of a bucket: the relative error is at most 2 %
_LEAST, _MOST = 1e-5, 1e5  # seconds; what is beyond counts as that, which also bounds the number of buckets
_ROUNDING = 1e-9  # 0.95 * 20 samples are 19 of them, whatever the floats say


class LatencySketch:
    """The latencies of the last twenty to thirty seconds, in seconds. Times are those of a monotonic clock.

    It answers only from `minimum` samples on.
    """

    __slots__ = ("_count", "_counts", "_known", "_lock", "_minimum", "_read", "_share", "_slice", "_slices")

    def __init__(self, minimum: int = 50) -> None:
        self._minimum = minimum
        self._slices: list[dict[int, int]] = [{} for _ in range(_SLICES)]  # bucket -> samples
        self._counts = [0] * _SLICES
        self._count = 0
        self._slice = 0
        self._known = self._share = 0.0
        self._read = -math.inf
        self._lock = threading.Lock()

    def add(self, elapsed: float, now: float) -> None:
        """Count a call that took `elapsed` seconds."""
        bucket = math.ceil(math.log(min(max(elapsed, _LEAST), _MOST)) / _GROWTH)
        with self._lock:
            self._roll(now)
            at = self._slice % _SLICES
            counts = self._slices[at]
            counts[bucket] = counts.get(bucket, 0) + 1
            self._counts[at] += 1
            self._count += 1

    def quantile(self, share: float, now: float) -> float | None:
        """Return the seconds within which `share` of the calls ended, at most 2 % more; None below `minimum` samples.

        Never less: what waits that long is exceeded by at most 1 - `share` of the samples.
        """
        with self._lock:
            self._roll(now)
            if self._count < self._minimum:
                return None
            if share != self._share or not 0.0 <= now - self._read < _GOOD_FOR:
                self._known, self._share, self._read = self._find(share), share, now
            return self._known

    def count(self, now: float) -> int:
        """Return how many samples it knows."""
        with self._lock:
            self._roll(now)
            return self._count

    def after_fork(self) -> None:
        """Renew the lock: another thread may have held it when the process forked."""
        self._lock = threading.Lock()

    def _roll(self, now: float) -> None:
        """Drop the slices that are too old. A clock that went back adds to the newest slice."""
        newest = int(now // _SLICE)
        if newest <= self._slice:
            return
        for number in range(max(self._slice + 1, newest - _SLICES + 1), newest + 1):
            at = number % _SLICES
            self._count -= self._counts[at]
            self._counts[at] = 0
            self._slices[at] = {}
        self._slice = newest
        if self._count < self._minimum:
            self._read = -math.inf  # what was read before is not what will be known when there are enough again

    def _find(self, share: float) -> float:
        merged: dict[int, int] = {}
        for counts in self._slices:
            for bucket, count in counts.items():
                merged[bucket] = merged.get(bucket, 0) + count
        rank = share * self._count - _ROUNDING
        last = below = 0
        for last in sorted(merged):
            below += merged[last]
            if below >= rank:
                break
        return math.exp(last * _GROWTH)

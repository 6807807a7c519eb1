"""How long calls took, counted in buckets: what a Prometheus or OpenTelemetry histogram holds, without either.

The default boundaries are those of OpenTelemetry's `http.server.request.duration`, in seconds. Those that an
OpenTelemetry histogram has by default (0, 5, 10, ...) are meant for milliseconds: in seconds, every call is in the
same bucket.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock

__all__ = ["SECONDS", "SLOW_SECONDS", "Histogram", "Snapshot"]

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
SLOW_SECONDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
_BATCH = 512


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The counts at one moment.

    `counts[i]` is the number of values in (`bounds[i - 1]`, `bounds[i]`]. There is one count more than there are
    bounds: what was above the last of them.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float

    @property
    def count(self) -> int:
        """How many values there were."""
        return sum(self.counts)

    @property
    def mean(self) -> float:
        """The mean of all values, 0 if there were none."""
        return self.total / self.count if self.count else 0.0

    def quantile(self, share: float) -> float:
        """Estimate a quantile by a straight line within its bucket, as Prometheus' `histogram_quantile` does.

        The error is at most the width of the bucket. Above the last bound the answer is that bound, without values NaN.
        """
        rank = share * self.count
        if not self.count:
            return math.nan
        below, low = 0, 0.0
        for bound, count in zip(self.bounds, self.counts, strict=False):
            if count and below + count >= rank:
                return low + (bound - low) * (rank - below) / count
            below, low = below + count, bound
        return self.bounds[-1]

    def merged(self, other: Snapshot) -> Snapshot:
        """Add the counts of a histogram of the same bounds: of another worker, or another outcome."""
        if self.bounds != other.bounds:
            raise ValueError(f"histograms merge if their bounds are equal, got {self.bounds} and {other.bounds}")
        counts = tuple(mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True))
        return Snapshot(self.bounds, counts, self.total + other.total)


class Histogram:
    """Counts finite values in buckets. Safe to use from several threads; a snapshot is consistent.

    A value is only noted when it comes, which needs no lock, and sorted into its bucket together with some hundred
    others: that is a third of the cost of a lock and a search for each.
    """

    __slots__ = ("_bounds", "_counts", "_fresh", "_lock", "_total")

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        self._bounds = _checked(bounds)
        self._lock = Lock()
        self._fresh: deque[float] = deque()
        self._counts = [0] * (len(self._bounds) + 1)
        self._total = 0.0

    def add(self, value: float) -> None:
        """Count one value."""
        self._fresh.append(value)
        if len(self._fresh) >= _BATCH:
            with self._lock:
                self._sort_in()

    def snapshot(self) -> Snapshot:
        """Return the counts so far."""
        with self._lock:
            self._sort_in()
            return Snapshot(self._bounds, tuple(self._counts), self._total)

    def after_fork(self) -> None:
        """Renew the lock and start from zero: the counts belong to the parent, which reports them itself."""
        self._lock = Lock()
        self._fresh.clear()
        self._counts = [0] * (len(self._bounds) + 1)
        self._total = 0.0

    def _sort_in(self) -> None:
        values = sorted(self._fresh.popleft() for _ in range(len(self._fresh)))
        below = 0
        for bucket, bound in enumerate(self._bounds):
            up_to = bisect_right(values, bound)
            self._counts[bucket] += up_to - below
            below = up_to
        self._counts[-1] += len(values) - below
        self._total += sum(values)


def _checked(bounds: Sequence[float]) -> tuple[float, ...]:
    values = tuple(float(bound) for bound in bounds)
    rising = all(low < high for low, high in itertools.pairwise(values))
    if not values or not rising or not all(map(math.isfinite, values)):
        raise ValueError(f"bounds must be at least one finite number, in rising order, got {bounds!r}")
    return values

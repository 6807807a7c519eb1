"""How long calls took, counted in buckets: what a Prometheus or OpenTelemetry histogram holds, without either.

The default boundaries are those of OpenTelemetry's `http.server.request.duration`, in seconds. Those that an
OpenTelemetry histogram has by default (0, 5, 10, ...) are meant for milliseconds: in seconds, every call is in the
same bucket.
"""

from __future__ import annotations

import functools
import itertools
import math
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock

__all__ = ["SECONDS", "SLOW_SECONDS", "Histogram", "Snapshot", "fine_seconds"]

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
SLOW_SECONDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
_BATCH = 2048
_GROWTH = 2 ** (1 / 16)  # 4.4 % from one fine bound to the next
_LEAST, _STEPS = 1e-7, 656  # 100 ns to 2.5 days


@functools.cache  # made on first use
def fine_seconds() -> tuple[float, ...]:
    """Return boundaries that grow by 4.4 %, so that no quantile is further off than that: for what people read."""
    return (0.0, *(_LEAST * _GROWTH**step for step in range(_STEPS + 1)))


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

    A value is only noted when it comes, which needs no lock, and sorted into its bucket together with two thousand
    others: that is a third of the cost of a lock and a search for each. Only buckets that hold something are looked at,
    so that their number costs nothing.
    """

    __slots__ = ("_bounds", "_counts", "_fresh", "_lock", "_total")

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        self._bounds = _checked(tuple(bounds))
        self._lock = Lock()
        self._fresh: deque[float] = deque()
        self._counts: dict[int, int] = {}
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
            counts = tuple([self._counts.get(bucket, 0) for bucket in range(len(self._bounds) + 1)])
            return Snapshot(self._bounds, counts, self._total)

    def after_fork(self) -> None:
        """Renew the lock and start from zero: the counts belong to the parent, which reports them itself."""
        self._lock = Lock()
        self._fresh.clear()
        self._counts = {}
        self._total = 0.0

    def _sort_in(self) -> None:
        popleft = self._fresh.popleft
        values = [popleft() for _ in range(len(self._fresh))]
        values.sort()
        bounds, counts = (*self._bounds, math.inf), self._counts
        below = bucket = 0
        while below < len(values):
            if values[below] > bounds[bucket]:  # most often the next bucket is the right one
                bucket = bisect_left(bounds, values[below], bucket)
            up_to = bisect_right(values, bounds[bucket], below)
            counts[bucket] = counts.get(bucket, 0) + up_to - below
            below = up_to
            bucket += 1
        self._total += sum(values)


@functools.cache  # a monitor makes several histograms of the same thousand bounds
def _checked(bounds: tuple[float, ...]) -> tuple[float, ...]:
    values = tuple(float(bound) for bound in bounds)
    rising = all(low < high for low, high in itertools.pairwise(values))
    if not values or not rising or not all(map(math.isfinite, values)):
        raise ValueError(f"bounds must be at least one finite number, in rising order, got {bounds!r}")
    return values

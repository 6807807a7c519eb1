"""At most so many messages of a kind: a small token bucket per key, that counts what it held back."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

from asyncguard._machines import checks

__all__ = ["Throttle"]


class _Bucket:
    __slots__ = ("held_back", "seen", "tokens")

    def __init__(self, tokens: float, seen: float) -> None:
        self.tokens = tokens
        self.seen = seen
        self.held_back = 0


class Throttle:
    """Lets `burst` messages per key pass at once, then one every `every` seconds.

    A burst, and not a plain pause, because opposite messages must not hide each other: a circuit that opens, closes
    and opens again shows all three. At most `most_keys` keys are kept; the one that was silent longest goes first.
    `clock` gives monotonic seconds. Safe to use from several threads.
    """

    def __init__(
        self, clock: Callable[[], float], *, burst: int = 5, every: float = 10.0, most_keys: int = 1024
    ) -> None:
        self._clock = clock
        self._burst = checks.integer("burst", burst, least=1)
        self._every = checks.duration("every", every, above=0.0)
        self._most = checks.integer("most_keys", most_keys, least=1)
        self._buckets: OrderedDict[Hashable, _Bucket] = OrderedDict()
        self._lock = threading.Lock()

    def ask(self, key: Hashable) -> int | None:
        """Return how many messages of `key` were held back since the last one, or None if this one has to be too."""
        with self._lock:
            now = self._clock()
            bucket = self._bucket(key, now)
            bucket.tokens = min(self._burst, bucket.tokens + (now - bucket.seen) / self._every)
            bucket.seen = now
            if bucket.tokens < 1.0:
                bucket.held_back += 1
                return None
            bucket.tokens -= 1.0
            held_back, bucket.held_back = bucket.held_back, 0
            return held_back

    def after_fork(self) -> None:
        """Renew the lock: another thread may have held it when the process forked."""
        self._lock = threading.Lock()

    def clear(self) -> None:
        """Forget every key."""
        with self._lock:
            self._buckets.clear()

    def _bucket(self, key: Hashable, now: float) -> _Bucket:
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = _Bucket(self._burst, now)
            if len(self._buckets) > self._most:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(key)
        return bucket

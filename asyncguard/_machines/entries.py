"""One value of a cache, and what it is good for by its age."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from asyncguard._machines.store import Shard

_NEVER = -math.inf

State = Literal["hit", "refresh", "stale", "error", "dead"]


class Entry:
    """One value and its moments, absolute seconds on the monotonic clock.

    Until `soft` it is a plain hit, until `fresh` a hit that asks for a refresh, until `stale` a stale hit that does,
    until `dead` it may answer if computing fails. No background refresh before `retry_at`, nor another attempt of a
    value that may stand in for an error. `copy` makes the caller's own copy of the value, None if all may share it.

    `before` and `after` are its neighbours in the ring of its store, only while it is in one: links in the entry take
    16 bytes where an `OrderedDict` takes 170.
    """

    __slots__ = (
        "after", "before", "copy", "created", "dead", "fresh", "key", "retry_at", "shard", "size", "soft", "stale",
        "tags", "took", "used", "value",
    )  # fmt: skip

    before: Entry
    after: Entry

    def __init__(self, value: Any, copy: Callable[[Any], Any] | None = None) -> None:
        self.value = value
        self.copy = copy
        self.used = False
        self.created = self.took = 0.0
        self.soft = self.fresh = self.stale = self.dead = self.retry_at = _NEVER
        self.size = 0
        self.tags: tuple[Hashable, ...] = ()
        self.key: Hashable = None
        self.shard: Shard | None = None

    def give(self) -> Any:
        """Return the value as a caller gets it."""
        return self.value if self.copy is None else self.copy(self.value)

    def live(self, now: float, life: Lifetime) -> None:
        """Begin its life now. Moments that are equal are one object: each would take 24 bytes of its own."""
        self.created = now
        self.fresh = self.soft = self.stale = self.dead = fresh = now + life.ttl
        if life.refresh_at < 1.0:
            self.soft = now + life.ttl * life.refresh_at
        if life.stale:
            self.stale = self.dead = fresh + life.stale
        if life.error > life.stale:
            self.dead = fresh + life.error

    def state(self, now: float) -> State:
        """Say what it is good for."""
        if now < self.fresh:
            return "hit" if now < self.soft or now < self.retry_at else "refresh"
        if now < self.stale:
            return "stale"
        return "error" if now < self.dead else "dead"


@dataclass(frozen=True, slots=True)
class Lifetime:
    """How long a value lives: seconds, and the fraction of `ttl` after which it is refreshed ahead."""

    ttl: float
    stale: float = 0.0
    error: float = 0.0
    refresh_at: float = 1.0

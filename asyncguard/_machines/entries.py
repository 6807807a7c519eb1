"""One value of a cache, and what it is good for by its age."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from asyncguard._machines.store import Shard

State = Literal["hit", "refresh", "stale", "error", "dead"]


class Entry:
    """One value and its moments, absolute seconds on the monotonic clock.

    Until `soft` it is a plain hit, until `fresh` a hit that asks for a refresh, until `stale` a stale hit that does,
    until `dead` it may answer if computing fails. No background refresh before `retry_at`, nor another attempt of a
    value that may stand in for an error. `copy` makes the caller's own copy of the value, None if all may share it.
    """

    __slots__ = (
        "copy", "created", "dead", "fresh", "key", "number", "retry_at", "shard", "size", "soft", "stale", "tags",
        "took", "used", "value",
    )  # fmt: skip

    def __init__(self, value: Any, copy: Callable[[Any], Any] | None = None) -> None:
        self.value = value
        self.copy = copy
        self.used = False
        self.created = self.took = 0.0
        self.soft = self.fresh = self.stale = self.dead = self.retry_at = -math.inf
        self.size = 0
        self.tags: tuple[Hashable, ...] = ()
        self.key: Hashable = None
        self.number = 0
        self.shard: Shard | None = None

    def give(self) -> Any:
        """Return the value as a caller gets it."""
        return self.value if self.copy is None else self.copy(self.value)

    def live(self, now: float, life: Lifetime) -> None:
        """Begin its life now."""
        self.created = now
        self.fresh = now + life.ttl
        self.soft = now + life.ttl * life.refresh_at
        self.stale = self.fresh + life.stale
        self.dead = max(self.stale, self.fresh + life.error)

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

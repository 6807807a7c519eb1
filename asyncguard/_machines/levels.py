"""Levels of memory: whatever has a limit and a usage, and the account that a ledger keeps of each.

A container, each of its ancestors, the machine, an address space: whichever has the least room left binds, and usage
is compared with the limit of the same level (as the JVM and .NET do, unlike most of what reads a container's memory).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["PROCESS", "Account", "Bounds", "Level", "Reading", "Room", "room", "tightest"]

PROCESS = "process"
"""The level that has no limit of its own: what this process holds, for the option `limit`."""


@dataclass(frozen=True, slots=True)
class Level:
    """One level, in bytes. `limit` is None where only an option can set one.

    `own`: of this process alone, so that what others promise does not matter.
    """

    name: str
    limit: int | None
    used: int
    own: bool = False


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read at one moment, level by level. `source` names where from: cgroup, system, psutil or none."""

    levels: tuple[Level, ...] = ()
    source: str = "none"

    def binding(self) -> Level | None:
        """Return the limited level with the least room left, None if there is none."""
        limited = [(level.limit - level.used, level) for level in self.levels if level.limit is not None]
        return min(limited, key=lambda pair: pair[0])[1] if limited else None


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much of each level one guard may fill: `threshold` to go on, `resume` to begin again after a refusal.

    Fractions of the limit; `limit` bytes bound the process; at least `min_free` bytes stay free on every level.
    """

    threshold: float = 0.85
    resume: float = 0.80
    limit: int | None = None
    min_free: int = 0

    def of(self, level: Level) -> int | None:
        """Return the limit of a level for this guard, None if it has none."""
        return self.limit if level.name == PROCESS else level.limit

    def ceiling(self, level: Level, fraction: float) -> float:
        """Return how many bytes of a level may be used, infinity if it is not limited."""
        limit = self.of(level)
        return math.inf if limit is None else min(fraction * limit, limit - self.min_free)


class Account:
    """One level as the ledger sees it: the last reading, and `base`, what is used without the calls now running.

    With `reserved` bytes promised to running calls of which each has allocated between nothing and its share, the
    base lies between `used - reserved` and `used`. It is moved no further than each reading proves: up to
    `used - reserved` (caches have grown, a neighbour has come), down to `used`. With nothing running both are the same.

    `held` is the base that decides now: calls that have just started (`young`) have allocated nothing yet, so for the
    moment more must belong to the base. Without that, what ended calls left in the allocator would hide behind the
    promises to those that took their places.
    """

    __slots__ = ("base", "held", "level")

    def __init__(self, level: Level) -> None:
        self.level = level
        self.base = self.held = level.used

    def look(self, level: Level, reserved: int, young: int = 0, freed: int = 0) -> None:
        """Take a new reading; `freed` bytes of the base are known to have been given back since the last one."""
        self.level = level
        self.base = min(max(self.base - freed, level.used - reserved), level.used)
        self.held = max(self.base, min(level.used, level.used - reserved + young))


@dataclass(frozen=True, slots=True)
class Room:
    """How many bytes may be promised: in this process, and in all that share their ledgers."""

    here: float = -math.inf
    together: float = -math.inf

    def has(self, here: float, elsewhere: float) -> bool:
        """Tell whether there is room for so many bytes promised here and elsewhere."""
        return here <= self.here and here + elsewhere <= self.together


def room(accounts: Iterable[Account], bounds: Bounds, fraction: float, unread: int = 0) -> Room:
    """Return how many bytes may be promised in all, so that held + promised stays below every level's ceiling.

    `unread` bytes are not promised any more, and may still be in use.
    """
    here = together = math.inf
    for each in accounts:
        space = bounds.ceiling(each.level, fraction) - each.held - unread
        if each.level.own:
            here = min(here, space)
        else:
            together = min(together, space)
    return Room(here, together)


def tightest(accounts: Iterable[Account], bounds: Bounds, elsewhere: int = 0) -> Level | None:
    """Return the level that binds: the one with the least room for promises; None if nothing is limited."""

    def space(account: Account) -> float:
        taken = account.held + (0 if account.level.own else elsewhere)
        return bounds.ceiling(account.level, bounds.threshold) - taken

    spaces = [(space(each), each.level) for each in accounts]
    least, level = min(spaces, key=lambda pair: pair[0], default=(math.inf, None))
    return None if least == math.inf else level

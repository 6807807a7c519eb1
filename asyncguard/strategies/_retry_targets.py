"""What a retry knows of the target of its calls, in each partition, and where it runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from asyncguard._machines.budget import Allowance, RetryBudget
from asyncguard._machines.parked import Parked
from asyncguard._machines.partition_keys import partition_key
from asyncguard._machines.partitions import Partitions

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

    from asyncguard import events
    from asyncguard._pipeline import Site
    from asyncguard._runtime.clock import Clock
    from asyncguard.strategies.retry import Retry

__all__ = ["Place", "Target", "Targets", "place_of"]


class Target:
    """What is known of one partition: the pause that it asked for, and the budget unless one is shared."""

    __slots__ = ("_clock", "allowance", "parked")

    def __init__(self, clock: Clock) -> None:
        default = RetryBudget()
        self.allowance = Allowance(default.ratio, default.min_per_second, clock.now())
        self.parked = Parked()
        self._clock = clock

    def idle(self) -> bool:
        """Tell whether nothing would be lost by forgetting it."""
        now = self._clock.now()
        return self.parked.until <= now and self.allowance.idle(now)

    def after_fork(self) -> None:
        """Renew the locks in a forked child."""
        self.allowance.after_fork()
        self.parked.after_fork()


class Targets:
    """The state of a retry on one clock: the target, or one for each partition."""

    __slots__ = ("clock", "partitions", "single")

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.single = Target(clock)
        self.partitions: Partitions[Target] = Partitions(lambda _key: Target(clock))

    def __iter__(self) -> Iterator[tuple[Hashable, Target]]:
        yield None, self.single
        yield from self.partitions.items()

    def after_fork(self) -> None:
        """Renew the locks in a forked child."""
        self.partitions.after_fork()
        for _, target in self:
            target.after_fork()


@dataclass(slots=True)
class Place:
    """Where a run happens, and for which partition."""

    strategy: Retry
    site: Site
    partition: str  # in words, empty without one
    target: Target

    @property
    def identity(self) -> object:
        """What tells this retry around this function from others, and keeps neither of them alive."""
        return id(self.strategy), id(self.site)

    def emit(self, event: type[events.Event], **facts: Any) -> None:
        """Tell what happened."""
        self.strategy.emit(self.site, event(**self.strategy.facts(self.site, self.partition), **facts))

    def __str__(self) -> str:
        return f"{self.site.name}[{self.partition}]" if self.partition else self.site.name


def place_of(strategy: Retry, site: Site, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Place:
    """Find the partition of a call."""
    by = strategy.live().partition or site.pipeline.partition
    targets = strategy.core_here()
    if by is None:
        return Place(strategy, site, "", targets.single)
    target, partition = targets.partitions.find(partition_key(by, args, kwargs))
    return Place(strategy, site, partition, target)

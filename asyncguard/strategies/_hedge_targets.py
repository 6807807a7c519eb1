"""What a hedge knows of the target of its calls, in each partition."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncguard._machines.budget import Allowance
from asyncguard._machines.partitions import Partitions
from asyncguard._machines.quantile import LatencySketch

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

    from asyncguard._machines.budget import RetryBudget
    from asyncguard._runtime.clock import Clock

__all__ = ["MINIMUM", "Target", "Targets"]

MINIMUM = 50
"""So many samples make a quantile."""
_WINDOW = 30.0  # seconds; the budget looks back as far as the sketch does
_ONE = 1.0 - 1e-9  # 0.05 * 20 calls are one hedge, whatever the floats say
_SHORTEST = 0.001  # seconds; who answers faster than that needs no hedge (Finagle)


class Target:
    """What is known of one partition: how long calls take, what may be spent, and what was.

    The counts are added to without a lock, as those of `Allowance`.
    """

    __slots__ = ("allowance", "clock", "refused", "sent", "share", "sketch", "won")

    def __init__(self, clock: Clock, extra_load: float) -> None:
        self.clock = clock
        self.sketch = LatencySketch(MINIMUM)
        self.sent = self.won = self.refused = 0
        self.spend_at_most(extra_load)

    def spend_at_most(self, extra_load: float) -> None:
        """Begin a budget: a share of the calls, and nothing for those who call seldom."""
        self.share = 1.0 - extra_load
        self.allowance = Allowance(extra_load, 0.0, self.clock.now(), _WINDOW)

    def delay(self) -> float | None:
        """Return the seconds after which a call is among the slowest, None while too little is known."""
        delay = self.sketch.quantile(self.share, self.clock.now())
        return None if delay is None else max(delay, _SHORTEST)

    def pay(self, shared: RetryBudget | None) -> bool:
        """Take one hedge out of our own budget and out of the shared one; of neither if one of them is empty."""
        now = self.clock.now()
        left = self.affords(shared)
        if left and shared is not None:
            left = shared.at(self.clock).withdraw(now)
        if not (left and self.allowance.withdraw(now)):
            self.refused += 1
            return False
        return True

    def affords(self, shared: RetryBudget | None) -> bool:
        """Tell whether there is something in both budgets, nothing taken."""
        now = self.clock.now()
        return self.allowance.left(now) >= _ONE and (shared is None or shared.at(self.clock).left(now) >= _ONE)

    def idle(self) -> bool:
        """Tell whether nothing would be lost by forgetting it."""
        return not self.sketch.count(self.clock.now())

    def after_fork(self) -> None:
        """Renew the locks in a forked child."""
        self.sketch.after_fork()
        self.allowance.after_fork()


class Targets:
    """The state of a hedge on one clock: the target, or one for each partition."""

    __slots__ = ("_extra_load", "partitions", "single")

    def __init__(self, clock: Clock, extra_load: float) -> None:
        self._extra_load = extra_load
        self.single = Target(clock, extra_load)
        self.partitions: Partitions[Target] = Partitions(lambda _key: Target(clock, self._extra_load))

    def spend_at_most(self, extra_load: float) -> None:
        """Begin new budgets if the share is another; what is known of the latencies stays."""
        if extra_load == self._extra_load:
            return
        self._extra_load = extra_load
        for _, target in self:
            target.spend_at_most(extra_load)

    def __iter__(self) -> Iterator[tuple[Hashable, Target]]:
        yield None, self.single
        yield from self.partitions.items()

    def after_fork(self) -> None:
        """Renew the locks in a forked child."""
        self.partitions.after_fork()
        for _, target in self:
            target.after_fork()

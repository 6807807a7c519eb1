"""`hedge`: a second copy of a call that takes longer than nearly all others. Only for idempotent calls.

Dean and Barroso, "The Tail at Scale" (CACM 2013), with the one knob of Finagle's BackupRequestFilter: the share of
calls that may be sent twice says both when a call is slow and what hedging may cost.
"""

from __future__ import annotations

from contextvars import copy_context
from dataclasses import dataclass
from functools import partial as bind
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast, overload

from asyncguard._machines import checks
from asyncguard._machines.budget import RetryBudget
from asyncguard._machines.durations import in_words
from asyncguard._machines.partition_keys import PartitionBy, check_partition
from asyncguard._machines.partition_words import listed
from asyncguard._runtime import race, race_threads
from asyncguard._strategy import Options, Transparent
from asyncguard.strategies._hedge_run import Run, run_of
from asyncguard.strategies._hedge_targets import MINIMUM, Target, Targets

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    from asyncguard._modes import Mode
    from asyncguard._pipeline import Site
    from asyncguard._runtime.clock import Clock
    from asyncguard.events import Event

    Call = Callable[..., Any]

__all__ = ["Hedge", "HedgeOptions", "hedge"]

F = TypeVar("F", bound="Callable[..., object]")


@dataclass(frozen=True, slots=True, kw_only=True)
class HedgeOptions(Options):
    """The options of `hedge`, the delay in seconds."""

    max_extra_load: float = 0.05
    delay: float | None = None
    max_hedges: int = 1
    budget: RetryBudget | None = None
    partition: PartitionBy | None = None

    def __post_init__(self) -> None:
        """Check the options."""
        Options.__post_init__(self)
        self.set("max_extra_load", checks.fraction("max_extra_load", self.max_extra_load, above=0.0))
        if self.delay is not None:
            self.set("delay", checks.duration("delay", self.delay))
        checks.integer("max_hedges", self.max_hedges, least=1)
        budget = cast("object", self.budget)
        if budget is not None and not isinstance(budget, RetryBudget):
            raise checks.wrong_type("budget", budget, "a RetryBudget, or None")
        check_partition(self.partition)


class Hedge(Transparent[HedgeOptions, Targets]):
    """Starts a second copy of a call that takes too long; made by `hedge(...)`."""

    kind: ClassVar[str] = "hedge"
    shared: ClassVar[frozenset[str]] = frozenset({"max_extra_load"})

    def new_core(self, clock: Clock) -> Targets:
        """Build the state of one clock."""
        return Targets(clock, self.options.max_extra_load)

    def reconfigured(self) -> None:
        """Begin new budgets if another share of the calls may be hedged; what is known of the latencies stays."""
        for targets in {id(core): core for core in (self.core, self.core_here())}.values():
            targets.spend_at_most(self.options.max_extra_load)

    def describe(self) -> list[str]:
        """Say after how long a call is hedged, what the budget has left, and how many hedges were sent and won."""
        targets = self.core_here()
        partitions = targets.partitions.items()
        if self.options.partition is not None and not partitions:
            return ["no partition in use"]
        single = self.options.partition is None and not (partitions and targets.single.idle())
        lines = listed(partitions, self._told, lambda target: -target.sent - target.refused)
        return [self._told(targets.single), *lines] if single else lines

    def _told(self, target: Target) -> str:
        now = target.clock.now()
        delay = target.delay() if self.options.delay is None else self.options.delay
        samples = f"{target.sketch.count(now)} of {MINIMUM} samples"
        when = f"learning, {samples}" if delay is None else f"after {in_words(delay)}"
        counts = f"{target.allowance.left(now):.0f} left, {target.sent} sent, {target.won} won"
        refused = f", {target.refused} refused" if target.refused else ""
        return f"{when}; hedges: {counts}{refused}"

    # --- drivers ---

    def wrap_async(self, fn: Call, site: Site) -> Call:
        """Return the driver around a coroutine function."""
        strategy = self

        async def hedged(*args: Any, **kwargs: Any) -> Any:
            run = run_of(strategy, site, args, kwargs)
            if run is None:
                return await fn(*args, **kwargs)
            if run.delay is None or not run.enforced:
                return await _alone_async(run, bind(fn, *args, **kwargs))
            await race.run(run, bind(fn, *args, **kwargs))
            return run.answer()

        return hedged

    def wrap_sync(self, fn: Call, site: Site) -> Call:
        """Return the driver around a plain function: each attempt runs in a thread."""
        strategy = self
        site.holds = True  # for the strategies around this one: a loser that is left behind keeps their permits

        def hedged(*args: Any, **kwargs: Any) -> Any:
            run = run_of(strategy, site, args, kwargs)
            if run is None:
                return fn(*args, **kwargs)
            if run.nested or not run.enforced:
                return _alone_sync(run, bind(fn, *args, **kwargs))
            run.abandoned(race_threads.run(run, bind(fn, *args, **kwargs), f"asyncguard {site.name}"))
            return run.answer()

        return hedged


async def _alone_async(run: Run, call: Call) -> Any:
    run.alone()
    try:
        result = await (race.InContext(call) if run.enforced else call())
    except Exception as error:
        run.raised(error)
        raise
    run.returned()
    return result


def _alone_sync(run: Run, call: Call) -> Any:
    run.alone()
    try:
        result = copy_context().run(call) if run.enforced else call()
    except Exception as error:
        run.raised(error)
        raise
    run.returned()
    return result


@overload
def hedge(fn: F, /) -> F: ...
@overload
def hedge(
    *,
    max_extra_load: float = ...,
    delay: float | timedelta | None = ...,
    max_hedges: int = ...,
    budget: RetryBudget | None = ...,
    partition: PartitionBy | None = ...,
    name: str | None = ...,
    mode: Mode = ...,
    on_event: Callable[[Event], object] | None = ...,
) -> Hedge: ...
def hedge(
    fn: Any = None,
    /,
    *,
    max_extra_load: float = 0.05,
    delay: float | timedelta | None = None,
    max_hedges: int = 1,
    budget: RetryBudget | None = None,
    partition: PartitionBy | None = None,
    name: str | None = None,
    mode: Mode = "enforce",
    on_event: Callable[[Event], object] | None = None,
) -> Any:
    """Start a second copy of a call that is slower than nearly all others, and take the first that succeeds.

    Only for idempotent calls: both copies may take effect. The others are cancelled and awaited (in threads: left
    behind), their results closed.

    :param max_extra_load: the share of calls that may be sent twice, above 0 to 1. A call is slow when it takes longer
        than 1 - `max_extra_load` of the last calls did (20 to 30 s of them, at least 50).
    :param delay: seconds after which a call is slow, in place of that; 0 starts all copies at once.

    Advanced:

    :param max_hedges: further copies of one call, each after the same delay.
    :param budget: a `RetryBudget` from which hedges are paid as well; give it to the `retry` of the same dependency.
    :param partition: a callable on the arguments or a ContextVar: each partition has latencies and a budget of its own.

    A copy that fails for a reason that may pass (`TRANSIENT`) starts the next one at once. If all fail, the error of
    the original leaves, with a line in `__notes__`. Raises ValueError for an option out of range.
    """
    strategy = Hedge(
        HedgeOptions(
            max_extra_load=max_extra_load,
            delay=cast("float | None", delay),
            max_hedges=max_hedges,
            budget=budget,
            partition=partition,
            name=name,
            mode=mode,
            on_event=on_event,
        )
    )
    if fn is None:
        return strategy
    checks.decorated("hedge", fn)
    return strategy(fn)

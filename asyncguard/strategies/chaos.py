"""`chaos`: faults on purpose, at a seeded rate, so that it is seen that what stands around the call deals with them.

It stands in for a function that misbehaves, next to it, and does nothing unless it is enabled. After Polly's chaos
strategies, which came from Simmy, and Netflix' fault injection.
"""

from __future__ import annotations

import functools
import os
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast

from asyncguard import events
from asyncguard._machines import checks
from asyncguard._runtime import clock as clocks
from asyncguard._runtime import dispatch, generators
from asyncguard._runtime.cancelling import cancel_here
from asyncguard._strategy import Transparent
from asyncguard.strategies._chaos_options import UNTOUCHED, ChaosOptions, Failure, Fault, Seconds, new_error

if TYPE_CHECKING:
    from datetime import timedelta

    from asyncguard._modes import Mode
    from asyncguard._pipeline import Site
    from asyncguard._runtime.clock import Clock
    from asyncguard.events import Event

    Call = Callable[..., Any]

ENABLED: Final = 16  # a bit of `special`: without it the driver only calls
NOTE: Final = "asyncguard.chaos: injected"


class Chaos(Transparent[ChaosOptions, Callable[[], float]]):
    """Injects faults at a rate."""

    kind: ClassVar[str] = "chaos"
    shared: ClassVar[frozenset[str]] = frozenset({"seed"})
    fitted: ClassVar[frozenset[str]] = frozenset({"cancel", "result"})

    def __init__(self, options: ChaosOptions) -> None:
        self._by_environment = os.environ.get("ASYNCGUARD_CHAOS") == "1"
        super().__init__(options)

    def new_core(self, clock: Clock) -> Callable[[], float]:
        """Return the source of random numbers; with a seed, each clock has the sequence from its start."""
        seed = self.options.seed
        return clock.random if seed is None else random.Random(seed).random

    def reconfigured(self) -> None:
        """Begin the sequence anew."""
        clock = clocks.current()
        if clock is clocks.REAL:
            self.core = self.new_core(clock)
        else:
            clock.cores[self] = self.new_core(clock)

    def _set_special(self) -> None:
        super()._set_special()
        if self._may_strike():
            self.special |= ENABLED

    def _may_strike(self) -> bool:
        """Tell whether it is enabled, or a function may say so."""
        enabled = self.options.enabled
        return self._by_environment if enabled is None else bool(enabled)

    # --- drivers ---

    def wrap_async(self, fn: Call, site: Site) -> Call:
        """Wrap a coroutine function."""
        strategy = self

        async def shaken(*args: Any, **kwargs: Any) -> Any:
            fault = strategy.draw(site) if strategy.special else None
            if fault is None:
                return await fn(*args, **kwargs)
            await strategy.strike(fault)
            if fault != "result":
                return await fn(*args, **kwargs)
            result = strategy.live().result
            return result(await fn(*args, **kwargs)) if callable(result) else result

        return shaken

    def wrap_sync(self, fn: Call, site: Site) -> Call:
        """Wrap a plain function."""
        strategy = self

        def shaken(*args: Any, **kwargs: Any) -> Any:
            fault = strategy.draw(site) if strategy.special else None
            if fault is None:
                return fn(*args, **kwargs)
            strategy.strike_sync(fault)
            if fault != "result":
                return fn(*args, **kwargs)
            result = strategy.live().result
            return result(fn(*args, **kwargs)) if callable(result) else result

        return shaken

    def wrap_async_generator(self, fn: Call, site: Site) -> Call:
        """Wrap an iteration: its fault comes before the first item."""
        return generators.bracket_async(functools.partial(_opened, self, site), fn)

    def wrap_generator(self, fn: Call, site: Site) -> Call:
        """Wrap an iteration: its fault comes before the first item."""
        return generators.bracket_sync(functools.partial(_opened_sync, self, site), fn)

    def fits(self, options: ChaosOptions, site: Site) -> None:
        """Refuse to cancel where no task is, and to replace one result where there are many."""
        if options.cancel and site.kind in {"sync", "generator"}:
            raise TypeError(f"cancel=True needs a task to cancel, and {site.name} is not async")
        if options.result is not UNTOUCHED and site.kind in {"async generator", "generator"}:
            raise TypeError(f"result= stands in for one result, and {site.name} is a function with many ({site.kind})")

    # --- what happens ---

    def draw(self, site: Site) -> Fault | None:
        """Return the fault that this call gets, and report it; None for most."""
        options, mode = self.live(), self.mode_at(site)
        if mode == "off" or not self._enabled(options):
            return None
        chance = self.core_here()()
        if chance >= options.rate:
            return None
        fault = options.faults[min(int(chance / options.rate * len(options.faults)), len(options.faults) - 1)]
        self.emit(site, events.ChaosInjected(**self.facts(site), fault=fault))
        return None if mode == "observe" else fault

    def _enabled(self, options: ChaosOptions) -> bool:
        """Tell whether it is enabled right now; a flag that cannot be read enables nothing."""
        enabled = self._by_environment if options.enabled is None else options.enabled
        if isinstance(enabled, bool):
            return enabled
        try:
            return bool(enabled())
        except Exception as error:  # noqa: BLE001 - whatever the user's enabled= raised
            dispatch.complain(self, error, "asyncguard: %s cannot ask whether it is enabled, so it is not", self.name)
            return False

    async def strike(self, fault: Fault) -> None:
        """Let a fault happen in front of an async function."""
        if fault == "latency":
            await clocks.current().sleep(self._pause())
        elif fault == "cancellation":
            await cancel_here(NOTE)
        self._fail(fault)

    def strike_sync(self, fault: Fault) -> None:
        """Let a fault happen in front of a plain function."""
        if fault == "latency":
            clocks.current().sleep_sync(self._pause())
        self._fail(fault)

    def _pause(self) -> float:
        latency = self.live().latency
        if not isinstance(latency, tuple):
            return latency or 0.0
        least, most = latency
        return least + (most - least) * self.core_here()()

    def _fail(self, fault: Fault) -> None:
        if fault == "error":
            error = new_error(self.live().error)
            if NOTE not in getattr(error, "__notes__", ()):
                error.add_note(NOTE)
            raise error

    def describe(self) -> list[str]:
        """Say whether it is on."""
        options = self.options
        if not self._may_strike():
            return ["disabled"]
        return [f"ENABLED: {', '.join(options.faults)} in {options.rate:.2%} of the calls"]


class _Nothing:
    """Surrounds nothing: the fault, if any, has happened."""

    def step(self) -> Any:
        return _NO_STEP

    def close(self, error: BaseException | None) -> None:
        del error


class _NoStep:
    def __enter__(self) -> None: ...
    def __exit__(self, *error: object) -> None: ...


_NO_STEP = _NoStep()


async def _opened(strategy: Chaos, site: Site, args: Any, kwargs: Any) -> _Nothing:
    del args, kwargs
    fault = strategy.draw(site) if strategy.special else None
    if fault is not None:
        await strategy.strike(fault)
    return _Nothing()


def _opened_sync(strategy: Chaos, site: Site, args: Any, kwargs: Any) -> _Nothing:
    del args, kwargs
    fault = strategy.draw(site) if strategy.special else None
    if fault is not None:
        strategy.strike_sync(fault)
    return _Nothing()


def chaos(
    rate: float,
    *,
    latency: float | timedelta | tuple[float | timedelta, float | timedelta] | None = None,
    error: Failure | None = None,
    result: Any = UNTOUCHED,
    cancel: bool = False,
    enabled: bool | Callable[[], bool] | None = None,
    seed: int | None = None,
    name: str | None = None,
    mode: Mode = "enforce",
    on_event: Callable[[Event], object] | None = None,
) -> Chaos:
    """Inject faults into a share of the calls; nothing at all unless it is enabled.

    With several faults each is as likely as the others; for several at once, or at different rates, use several.

    :param rate: the share of calls that get a fault, 0..1.
    :param latency: seconds that the call takes longer, or a pair (least, most).
    :param error: raised in place of the call: an Exception, a class of it, or a function without arguments that makes
        one.
    :param result: returned in place of the call; a callable gets the real result and returns what the caller sees.
    :param cancel: cancel the task that makes the call (asyncio), as its caller would.
    :param enabled: True, False, or a function that is asked at each call; by default the environment decides, which is
        read when the strategy is made: ASYNCGUARD_CHAOS=1.
    :param seed: of the random numbers, so that the same calls get the same faults.

    cancel=True is a TypeError for functions that are not async, and in trio, where only scopes are cancelled.
    """
    checks.bare("chaos", rate, "@chaos(0.1, latency=1)")
    return Chaos(
        ChaosOptions(
            rate=rate,
            latency=cast("Seconds | None", latency),
            error=error,
            result=result,
            cancel=cancel,
            enabled=enabled,
            seed=seed,
            name=name,
            mode=mode,
            on_event=on_event,
        )
    )

"""`retry`: call again what failed for a reason that may pass. What to do now is decided in `_machines.attempts`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar, cast, overload

from asyncguard._machines import giveup, shape
from asyncguard._machines.attempts import OnOption
from asyncguard._machines.backoff import Jitter
from asyncguard._machines.budget import Allowance, RetryBudget
from asyncguard._machines.classify import TRANSIENT, failing_status
from asyncguard._machines.partition_keys import PartitionBy, in_words
from asyncguard._runtime import clock as clocks
from asyncguard._strategy import Transparent
from asyncguard.strategies import _retry_scope as scope
from asyncguard.strategies._retry_block import AttemptLoop
from asyncguard.strategies._retry_drivers import (
    TIMED,
    loop_async,
    loop_sync,
    retrying_async_generator,
    retrying_generator,
    through_async,
    through_sync,
)
from asyncguard.strategies._retry_options import RetryOptions
from asyncguard.strategies._retry_run import Run
from asyncguard.strategies._retry_scope import current_attempt
from asyncguard.strategies._retry_targets import Target, Targets, place_of
from asyncguard.strategies._retry_warnings import warn_of_status

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    from asyncguard._modes import Mode
    from asyncguard._pipeline import Site
    from asyncguard._runtime.clock import Clock
    from asyncguard.events import Event

    Call = Callable[..., Any]

__all__ = ["Retry", "RetryOptions", "current_attempt", "failing_status", "retry"]

F = TypeVar("F", bound="Callable[..., object]")


class Retry(Transparent[RetryOptions, Targets]):
    """Calls again what failed for a reason that may pass; made by `retry(...)`."""

    kind: ClassVar[str] = "retry"
    _timed = False

    def __init__(self, options: RetryOptions) -> None:
        super().__init__(options)
        self._own_site: Site | None = None
        self.tally = self._real_allowance()  # one attribute away on the happy path

    # --- state ---

    def new_core(self, clock: Clock) -> Targets:
        """Build the state of one clock."""
        return Targets(clock)

    def reconfigured(self) -> None:
        """Count calls for the budget now given; pauses stay."""
        self.tally = self._real_allowance()

    @property
    def per_call(self) -> bool:
        """Whether there is something to do before the first attempt, or with its result."""
        options = self.options
        unusual = options.partition is not None or options.on_result is not None or options.max_retries is None
        return unusual or self.core.single.parked.until > 0.0

    def time_from_now(self) -> None:
        """Time every call from now on: one has failed. Reading the clock costs a third of the happy path."""
        if not self._timed:
            self._timed = True
            self.reconsider()

    def _set_special(self) -> None:
        super()._set_special()
        self.special |= TIMED if self._timed else 0

    def allowance(self, options: RetryOptions, target: Target, clock: Clock) -> Allowance | None:
        """Return the budget that these options mean, None without one."""
        if isinstance(options.budget, RetryBudget):
            return options.budget.at(clock)
        return None if options.budget is None else target.allowance

    def _real_allowance(self) -> Allowance:
        return self.allowance(self.options, self.core.single, clocks.REAL) or self.core.single.allowance

    def park(self, target: Target, now: float, seconds: float, most: float) -> bool:
        """Let all callers of a target wait; tell whether none did before."""
        fresh = target.parked.park(now, seconds, most)
        self.reconsider()
        return fresh

    def unpark(self, target: Target, now: float) -> None:
        """Go back to the happy path if a pause is over."""
        if target.parked.over(now):
            self.reconsider()

    def describe(self) -> list[str]:
        """Say what the budget has left and which targets are parked."""
        targets, lines = self.core_here(), list[str]()
        now = targets.clock.now()
        for key, target in targets:
            name = "" if key is None else f"[{in_words(key)}] "
            least, _ = target.parked.wait(now, lambda: 0.0)
            if least > 0.0:
                lines.append(f"{name}parked {least:.1f} s more")
        allowance = self.allowance(self.options, targets.single, targets.clock)
        if allowance is not None and self.options.partition is None:
            lines.append(f"budget: {allowance.left(now):.0f} retries left")
        return lines

    # --- drivers ---

    def wrap_async(self, fn: Call, site: Site) -> Call:
        """Return the driver around a coroutine function."""
        strategy, call = self, fn

        async def looking(*args: Any, **kwargs: Any) -> Any:
            nonlocal call
            result = await fn(*args, **kwargs)
            if not strategy.look(site, result):
                call = fn
            return result

        call = looking  # until it is known that the results are no responses with a status

        async def through(*args: Any, **kwargs: Any) -> Any:
            return await through_async(strategy, call, site, args, kwargs)

        async def retrying(*args: Any, **kwargs: Any) -> Any:
            if strategy.special or scope.running:
                return await through_async(strategy, call, site, args, kwargs)
            strategy.tally.calls += 1.0
            mark = giveup.given
            try:
                return await call(*args, **kwargs)
            except Exception as error:
                strategy.time_from_now()
                run = Run(place_of(strategy, site, args, kwargs), None, mark)
                if run.failed(error):
                    raise
            return await loop_async(run, call, args, kwargs)

        return retrying if site.pipeline.partition is None else through

    def wrap_sync(self, fn: Call, site: Site) -> Call:
        """Return the driver around a plain function."""
        strategy, call = self, fn

        def looking(*args: Any, **kwargs: Any) -> Any:
            nonlocal call
            result = fn(*args, **kwargs)
            if not strategy.look(site, result):
                call = fn
            return result

        call = looking

        def through(*args: Any, **kwargs: Any) -> Any:
            return through_sync(strategy, call, site, args, kwargs)

        def retrying(*args: Any, **kwargs: Any) -> Any:
            if strategy.special or scope.running:
                return through_sync(strategy, call, site, args, kwargs)
            strategy.tally.calls += 1.0
            mark = giveup.given
            try:
                return call(*args, **kwargs)
            except Exception as error:
                strategy.time_from_now()
                run = Run(place_of(strategy, site, args, kwargs), None, mark)
                if run.failed(error):
                    raise
            return loop_sync(run, call, args, kwargs)

        return retrying if site.pipeline.partition is None else through

    def wrap_async_generator(self, fn: Call, site: Site) -> Call:
        """Return the driver around an async generator function: retried until its first item."""
        return retrying_async_generator(self, fn, site)

    def wrap_generator(self, fn: Call, site: Site) -> Call:
        """Return the driver around a generator function: retried until its first item."""
        return retrying_generator(self, fn, site)

    def look(self, site: Site, result: object) -> bool:
        """Warn once if a failing response passed as a success; tell whether to go on looking at results."""
        if self.options.on_result is not None:
            return False
        status = shape.own_status(result)
        if status is None:
            return False
        if failing_status(result):
            warn_of_status(site, status)
            return False
        return True

    # --- block form ---

    def attempts(self, *args: Any, **kwargs: Any) -> AttemptLoop:
        """Retry a block: `async for attempt in retry(...).attempts(): async with attempt: ...`, sync without `async`.

        Every loop has attempts of its own. The arguments are those that `partition=` looks at. Raises TypeError with
        `on_result=`: a block has no result.
        """
        if self.options.on_result is not None:
            raise TypeError("on_result= looks at the result of a function; a block of attempts() has none")
        if self._own_site is None:
            from asyncguard._pipeline import Pipeline, Site

            self._own_site = Site(Pipeline(self, name=self.name), self.attempts)
        return AttemptLoop(self, self._own_site, args, kwargs)


@overload
def retry(fn: F, /) -> F: ...
@overload
def retry(
    *,
    on: OnOption = ...,
    max_retries: int | None = ...,
    initial_delay: float | timedelta = ...,
    max_delay: float | timedelta = ...,
    backoff_factor: float = ...,
    jitter: Jitter = ...,
    on_result: Callable[[Any], bool | float | timedelta] | None = ...,
    max_retry_after: float | timedelta = ...,
    budget: RetryBudget | Literal["default"] | None = ...,
    retry_rejected: bool = ...,
    retry_exhausted: bool = ...,
    partition: PartitionBy | None = ...,
    name: str | None = ...,
    mode: Mode = ...,
    on_event: Callable[[Event], object] | None = ...,
) -> Retry: ...
def retry(
    fn: Any = None,
    /,
    *,
    on: OnOption = TRANSIENT,
    max_retries: int | None = 5,
    initial_delay: float | timedelta = 0.2,
    max_delay: float | timedelta = 20.0,
    backoff_factor: float = 2.0,
    jitter: Jitter = "full",
    on_result: Callable[[Any], bool | float | timedelta] | None = None,
    max_retry_after: float | timedelta = 60.0,
    budget: RetryBudget | Literal["default"] | None = "default",
    retry_rejected: bool = False,
    retry_exhausted: bool = False,
    partition: PartitionBy | None = None,
    name: str | None = None,
    mode: Mode = "enforce",
    on_event: Callable[[Event], object] | None = None,
) -> Any:
    """Call again, after a pause, what failed for a reason that may pass. `@retry` alone works.

    :param on: which errors: a class, a tuple of them, or a predicate that returns bool, or the delay to use (seconds
        or `timedelta`). By default `TRANSIENT`: what `classify` calls transient, timeout or throttle.
    :param max_retries: further calls after the first, so 5 means up to six; None retries until the deadline.
    :param initial_delay: seconds before the first retry; multiplied by `backoff_factor` for each further one.
    :param max_delay: seconds; the cap of a delay before jitter.

    Advanced:

    :param backoff_factor: at least 1.
    :param jitter: "full" (0 to the delay), "equal" (half of it to all), "decorrelated", "none", a fraction (to both
        sides), or a callable on the delay.
    :param on_result: predicate on the result, answers like `on`; `failing_status` for responses that do not raise. The
        last unwanted result is returned.
    :param max_retry_after: seconds; a target that asks for a longer pause is given up at once.
    :param budget: "default" (20 % of the calls plus 10 per second, for this object), a shared `RetryBudget`, or None.
    :param retry_rejected: retry rejections of guards further inside, too.
    :param retry_exhausted: retry errors, too, on which a retry further inside has given up.
    :param partition: a callable on the arguments or a ContextVar: each partition has its own pause and budget.

    The error that leaves is the last of the function itself, with a line in `__notes__`. Raises RateLimitedError if the
    target asked for a pause that is longer than the deadline; ValueError for an option out of range.
    """
    if isinstance(fn, int | float):
        message = f"retry takes its options by keyword, such as retry(max_retries=3), got {fn!r}"
        raise TypeError(message)
    options = RetryOptions(
        on=on,
        max_retries=max_retries,
        initial_delay=cast("float", initial_delay),
        backoff_factor=backoff_factor,
        max_delay=cast("float", max_delay),
        jitter=jitter,
        on_result=on_result,
        max_retry_after=cast("float", max_retry_after),
        budget=budget,
        retry_rejected=retry_rejected,
        retry_exhausted=retry_exhausted,
        partition=partition,
        name=name,
        mode=mode,
        on_event=on_event,
    )
    return Retry(options) if fn is None else Retry(options)(fn)

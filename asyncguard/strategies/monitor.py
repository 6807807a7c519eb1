"""`monitor`: one span and one structured log record per call, and how long calls take, in buckets.

What is written and how is in `asyncguard.telemetry`; here are the options and the drivers.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast, overload

from asyncguard._machines.durations import in_words
from asyncguard._runtime import generators
from asyncguard._strategy import Transparent
from asyncguard.strategies._monitor_calls import Iteration, begin, failed, streamed_async, succeeded
from asyncguard.strategies._monitor_options import MonitorOptions, Shown
from asyncguard.telemetry.counts import MonitorCore
from asyncguard.telemetry.place import MonitoredFunction
from asyncguard.telemetry.view import Parameters, View

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import timedelta

    from asyncguard._machines.histogram import Snapshot
    from asyncguard._modes import Mode
    from asyncguard._pipeline import Site
    from asyncguard._runtime.clock import Clock
    from asyncguard.events import Event
    from asyncguard.telemetry.counts import Counts

    Function = Callable[..., Any]

F = TypeVar("F", bound="Callable[..., object]")


class Monitor(Transparent[MonitorOptions, MonitorCore]):
    """Watches calls. Never changes one: what fails here is logged, once a minute, and the call goes on."""

    kind: ClassVar[str] = "monitor"
    monitors: ClassVar[bool] = True
    fitted: ClassVar[frozenset[str]] = frozenset({"record"})

    def __init__(self, options: MonitorOptions) -> None:
        super().__init__(options)
        self.name = self.kind  # the option is the name of the call, and of its pipeline, and not of this strategy
        self.plain_view = View(options)

    def new_core(self, clock: Clock) -> MonitorCore:
        """Build the counts."""
        return MonitorCore(clock)

    def reconfigured(self) -> None:
        """Look through the new options."""
        self.plain_view = View(self.options)

    def view(self) -> View:
        """Return the options in force here, ready for use."""
        return View(self.live()) if self._overridden else self.plain_view

    def active(self) -> int:
        """Return how many calls are in flight now."""
        return sum(len(counts.active) for counts in list(self.core_here().counts.values()))

    def durations(self) -> dict[str, dict[str, Snapshot]]:
        """Return the durations so far, in seconds: by name of the function, then by outcome."""
        return {name: counts.durations() for name, counts in list(self.core_here().counts.items())}

    def describe(self) -> list[str]:
        """Say which calls run and since when, how many there were, and how long they took."""
        core = self.core_here()
        return [line for name, counts in list(core.counts.items()) for line in _lines(name, counts, core.now())]

    # --- drivers ---

    def wrap_async(self, fn: Function, site: Site) -> Function:
        """Watch a coroutine function."""
        strategy, place = self, self._place(site)

        async def monitored(*args: Any, **kwargs: Any) -> Any:
            if strategy.special and strategy.mode_at(site) == "off":
                return await fn(*args, **kwargs)
            call = begin(strategy, place, args, kwargs)
            try:
                result = await fn(*args, **kwargs)
            except BaseException as error:
                failed(strategy, call, error, args, kwargs)
                raise
            succeeded(strategy, call, result)
            return result

        return streamed_async(strategy, place, fn, site) if site.stream else monitored

    def wrap_sync(self, fn: Function, site: Site) -> Function:
        """Watch a plain function."""
        strategy, place = self, self._place(site)

        def monitored(*args: Any, **kwargs: Any) -> Any:
            if strategy.special and strategy.mode_at(site) == "off":
                return fn(*args, **kwargs)
            call = begin(strategy, place, args, kwargs)
            try:
                result = fn(*args, **kwargs)
            except BaseException as error:
                failed(strategy, call, error, args, kwargs)
                raise
            succeeded(strategy, call, result)
            return result

        return monitored

    def wrap_async_generator(self, fn: Function, site: Site) -> Function:
        """Watch an async generator function: one record, current only while an item is made."""
        strategy, place = self, self._place(site)

        async def opened(args: tuple[Any, ...], kwargs: dict[str, Any]) -> generators.Bracket:
            return Iteration(strategy, place, args, kwargs)

        return generators.bracket_async(opened, fn)

    def wrap_generator(self, fn: Function, site: Site) -> Function:
        """Watch a generator function: one record, current only while an item is made."""
        strategy, place = self, self._place(site)
        return generators.bracket_sync(lambda args, kwargs: Iteration(strategy, place, args, kwargs), fn)

    def fits(self, options: MonitorOptions, site: Site) -> None:
        """Refuse to record parameters that a function does not have."""
        if options.record:
            _check_recorded(options.record, Parameters(site.function), site)

    def _place(self, site: Site) -> MonitoredFunction:
        return MonitoredFunction(site, self.options.name or site.name, tuple(each.name for each in site.pipeline))


def _check_recorded(paths: tuple[str, ...], parameters: Parameters, site: Site) -> None:
    for path in paths:
        name = path.partition(".")[0]
        if not parameters.any_keyword and name not in (*parameters.keyword, *parameters.named):
            known = ", ".join(sorted(parameters.keyword)) or "none"
            raise TypeError(f"record names {path!r}, but {site.name} has no parameter {name!r}; it has: {known}")


def _lines(name: str, counts: Counts, now: float) -> Iterator[str]:
    oldest = counts.oldest()
    if oldest is not None:
        yield f"{name}: {len(counts.active)} running, the oldest for {in_words(now - oldest)}"
    for outcome, snapshot in counts.durations().items():
        p50, p95 = in_words(snapshot.quantile(0.5)), in_words(snapshot.quantile(0.95))
        yield f"{name}: {snapshot.count} {outcome}, p50 {p50}, p95 {p95}"


# --- the decorator ----------------------------------------------------------------------------------------------------


@overload
def monitor(name: F, /) -> F: ...
@overload
def monitor(
    name: str | None = ...,
    *,
    record: Sequence[str] = ...,
    slow: float | timedelta | None = ...,
    inputs: Shown | Callable[..., Any] = ...,
    output: Shown | Callable[[Any], Any] = ...,
    redact: Sequence[str] = ...,
    sample: float = ...,
    logger: logging.Logger | str | None = ...,
    drift: None = ...,
    mode: Mode = ...,
    on_event: Callable[[Event], object] | None = ...,
) -> Monitor: ...
def monitor(
    name: Any = None,
    *,
    record: Sequence[str] = (),
    slow: float | timedelta | None = None,
    inputs: Shown | Callable[..., Any] = "summary",
    output: Shown | Callable[[Any], Any] = "summary",
    redact: Sequence[str] = (),
    sample: float = 1.0,
    logger: logging.Logger | str | None = None,
    drift: None = None,
    mode: Mode = "enforce",
    on_event: Callable[[Event], object] | None = None,
) -> Any:
    """Write one span and one structured log record per call, and count how long calls take.

    Use it bare (`@monitor`) or with options. Works on coroutine functions, plain functions and both kinds of
    generators, and never changes a call. Without OpenTelemetry's SDK there are no spans, and nothing else changes.

    :param name: what the call is called in spans, logs and metrics; `module.qualname` by default.
    :param record: parameters whose values appear (`"model"`, or `"options.language"` for a key of a mapping). Nothing
        else of the user's data ever does.
    :param slow: seconds from which a call is logged as a warning.
    :param inputs: "summary" describes each argument (type, shape, dtype, bytes, length), "off" nothing; a callable gets
        the arguments and returns a mapping of what to show.
    :param output: the same for the result.
    :param redact: regular expressions on names whose values never appear, added to those of asyncguard.
    :param sample: share of ordinary calls that get a log record, 0..1. Metrics are never sampled, spans follow the
        SDK's sampler, and errors, rejections, fallbacks and slow calls are always logged.
    :param logger: where records go; the logger `asyncguard.monitor` by default.

    Raises TypeError at decoration if `record` names a parameter that the function does not have.
    """
    if callable(name) or type(name) is classmethod:
        return Monitor(MonitorOptions())(cast("Any", name))
    options = MonitorOptions(
        name=name,
        record=cast("tuple[str, ...]", record),
        drift=drift,
        slow=cast("float | None", slow),
        inputs=inputs,
        output=output,
        redact=cast("tuple[str, ...]", redact),
        sample=sample,
        logger=logger,
        mode=mode,
        on_event=on_event,
    )
    return Monitor(options)

"""`monitor`: one span and one structured log record per call, and how long calls take, in buckets.

What is written and how is in `asyncguard.telemetry`; here are the options and the drivers.
"""

from __future__ import annotations

import inspect
import logging
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar, overload

from asyncguard import events
from asyncguard._machines import checks
from asyncguard._machines.text import Redactor
from asyncguard._runtime import dispatch, generators, record
from asyncguard._runtime.holds import Holds
from asyncguard._strategy import Options, Strategy
from asyncguard.telemetry import otel
from asyncguard.telemetry.calls import Call
from asyncguard.telemetry.counts import MonitorCore
from asyncguard.telemetry.failures import error_type
from asyncguard.telemetry.place import Place
from asyncguard.telemetry.report import Report, outcome_of
from asyncguard.telemetry.view import Parameters, View

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import timedelta
    from types import TracebackType

    from asyncguard._machines.histogram import Snapshot
    from asyncguard._pipeline import Site
    from asyncguard._runtime.clock import Clock
    from asyncguard.events import Event

    Function = Callable[..., Any]
    Args = tuple[Any, ...]
    Kwargs = dict[str, Any]

F = TypeVar("F", bound="Callable[..., Any]")
Shown = Literal["summary", "off"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitorOptions(Options):
    """The options of `monitor`."""

    record: tuple[str, ...] = ()
    drift: None = None
    slow: float | None = None
    inputs: Shown | Callable[..., Any] = "summary"
    output: Shown | Callable[[Any], Any] = "summary"
    redact: tuple[str, ...] = ()
    sample: float = 1.0
    logger: logging.Logger | str | None = None

    def __post_init__(self) -> None:
        """Check the options."""
        Options.__post_init__(self)
        self.set("record", _names("record", self.record))
        self.set("redact", _patterns(self.redact))
        self.set("sample", checks.fraction("sample", self.sample))
        if self.slow is not None:
            self.set("slow", checks.duration("slow", self.slow, above=0.0))
        if self.drift is not None:
            raise checks.fail("drift", self.drift, "None: drift detection is not part of this version")
        for option in ("inputs", "output"):
            _check_shown(option, getattr(self, option))
        if self.logger is not None and not isinstance(self.logger, str | logging.Logger):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise checks.wrong_type(
                "logger", self.logger, "a logging.Logger or the name of one (structlog: use structlog_processor)"
            )


def _names(option: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not all(isinstance(each, str) and each for each in value):
        raise checks.wrong_type(option, value, "a tuple of names, such as ('model', 'options.language')")
    return tuple(value)


def _patterns(value: Any) -> tuple[str, ...]:
    patterns = _names("redact", value)
    try:
        Redactor(patterns)
    except re.error as error:
        raise checks.fail("redact", value, f"regular expressions ({error})") from None
    return patterns


def _check_shown(option: str, value: object) -> None:
    if inspect.iscoroutinefunction(value):
        raise checks.wrong_type(option, value, "'summary', 'off' or a plain function: it is called in the call")
    if not callable(value):
        checks.one_of(option, value, ("summary", "off"))


class Monitor(Strategy[MonitorOptions, MonitorCore]):
    """Watches calls. Never changes one: what fails here is logged, once a minute, and the call goes on."""

    kind: ClassVar[str] = "monitor"
    monitors: ClassVar[bool] = True

    def __init__(self, options: MonitorOptions) -> None:
        super().__init__(options)
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
        return sum(len(counts.active) for counts in list(self.state().counts.values()))

    def durations(self) -> dict[str, dict[str, Snapshot]]:
        """Return the durations so far, in seconds: by name of the function, then by outcome."""
        return {name: counts.durations() for name, counts in list(self.state().counts.items())}

    def describe(self) -> list[str]:
        """Say how many calls there were and how long they took."""
        return [line for name, counts in self.durations().items() for line in _lines(name, counts)]

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

        return _streamed_async(strategy, place, fn, site) if site.stream else monitored

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

    def _place(self, site: Site) -> Place:
        if self.options.record:
            _check_recorded(self.options.record, Parameters(site.function), site)
        return Place(site, self.options.name or site.name, tuple(each.name for each in site.pipeline))


def _check_recorded(paths: tuple[str, ...], parameters: Parameters, site: Site) -> None:
    for path in paths:
        name = path.partition(".")[0]
        if not parameters.any_keyword and name not in (*parameters.keyword, *parameters.named):
            known = ", ".join(sorted(parameters.keyword)) or "none"
            raise TypeError(f"record names {path!r}, but {site.name} has no parameter {name!r}; it has: {known}")


def _lines(name: str, counts: dict[str, Snapshot]) -> Iterator[str]:
    for outcome, snapshot in counts.items():
        p50, p95 = snapshot.quantile(0.5), snapshot.quantile(0.95)
        yield f"{name}: {snapshot.count} {outcome}, p50 {p50:.3g} s, p95 {p95:.3g} s"


# --- the parts of a driver --------------------------------------------------------------------------------------------


def begin(strategy: Monitor, place: Place, args: Args, kwargs: Kwargs) -> Call:
    """Begin a call and make its record current.

    What most calls do not need hides behind one look each; the rest is spelled out, because a function call costs as
    much as anything here.
    """
    if strategy.special:
        core, view = strategy.state(), strategy.view()
        counts = core.of(place.name)
    else:
        core, view = strategy.core, strategy.plain_view
        counts = place.counts or place.bind(core)
    call = Call(place, view, counts, core.now)
    telemetry = otel.current()
    if telemetry is not None or view.logger.isEnabledFor(logging.INFO):
        _open(call, core, telemetry, args, kwargs)
    if (dispatch.handlers and otel.listeners()) or strategy.options.on_event is not None:
        strategy.emit(place.site, events.CallStarted(**_facts(strategy, place)))
    counts.active.add(call)
    call.start = core.now()
    call.token = record.active.set(call)
    return call


def _open(call: Call, core: MonitorCore, telemetry: otel.Telemetry | None, args: Args, kwargs: Kwargs) -> None:
    sample = call.view.sample
    logged = call.view.logger.isEnabledFor(logging.INFO) and (sample >= 1.0 or core.clock.random() < sample)
    if logged or telemetry is not None:
        call.report = Report(call.place, call.view, call, telemetry)
        call.report.open(args, kwargs, logged=logged)
        call.report.enter()


def succeeded(strategy: Monitor, call: Call, result: Any) -> None:
    """End a call that returned."""
    duration = call.now() - call.start
    if (
        call.report is None
        and duration < call.view.slow
        and not call.degraded
        and not dispatch.handlers
        and strategy.options.on_event is None
    ):
        call.counts.active.discard(call)
        call.counts.add_ok(duration)
        record.deactivate(call.token)
    else:
        _finish(strategy, call, duration, None, lambda report: report.described(result))
        call.leave()


def failed(strategy: Monitor, call: Call, error: BaseException, args: Args, kwargs: Kwargs) -> None:
    """End a call that raised. What is known of it is written before the error goes on."""
    _finish(strategy, call, call.now() - call.start, error, lambda report: report.described_late(args, kwargs))
    call.leave()


def _finish(
    strategy: Monitor,
    call: Call,
    duration: float,
    error: BaseException | None,
    more: Callable[[Report], dict[str, Any]],
) -> None:
    outcome = outcome_of(call, error)
    call.counts.active.discard(call)
    call.counts.add(outcome, duration)
    if call.report is not None or outcome != "ok" or duration >= call.view.slow:
        report = call.report or Report(call.place, call.view, call, None)
        report.close(outcome, duration, len(call.counts.active), error, lambda: more(report))
    if (dispatch.handlers and otel.listeners()) or strategy.options.on_event is not None:
        facts = _facts(strategy, call.place)
        kind = error_type(error) if error is not None and outcome != "cancelled" else ""
        finished = events.CallFinished(
            **facts, duration=duration, outcome=outcome, error_type=kind, attempts=call.attempts
        )
        strategy.emit(call.place.site, finished)


def _facts(strategy: Monitor, place: Place) -> dict[str, Any]:
    return {**strategy.facts(place.site), "pipeline": place.name}


def _streamed_async(strategy: Monitor, place: Place, fn: Function, site: Site) -> Function:
    """Watch a coroutine function that returns a stream: the call is over when the stream is closed."""

    async def monitored(*args: Any, **kwargs: Any) -> Any:
        if strategy.special and strategy.mode_at(site) == "off":
            return await fn(*args, **kwargs)
        call = begin(strategy, place, args, kwargs)
        scope = Holds()
        scope.enter()
        try:
            result = await fn(*args, **kwargs)
        except BaseException as error:
            scope.leave(_nothing)
            failed(strategy, call, error, args, kwargs)
            raise
        call.leave()
        kind = type(result).__name__
        scope.leave(lambda: _close_stream(strategy, call, kind))
        return result

    return monitored


def _close_stream(strategy: Monitor, call: Call, kind: str) -> None:
    _finish(strategy, call, call.now() - call.start, None, lambda _report: {"asyncguard.output.type": kind})


def _nothing() -> None:
    """The call is over anyway."""


class Iteration:
    """One iteration of a watched generator: a bracket around it, current only while an item is made."""

    __slots__ = ("_args", "_began", "_call", "_clock", "_facts", "_kwargs", "_off", "_strategy")

    def __init__(self, strategy: Monitor, place: Place, args: Args, kwargs: Kwargs) -> None:
        self._strategy = strategy
        self._off = bool(strategy.special) and strategy.mode_at(place.site) == "off"
        self._args, self._kwargs = args, kwargs
        self._facts: dict[str, Any] = {"asyncguard.items": 0, "asyncguard.completed": False}
        self._began = 0.0
        if not self._off:
            self._call = begin(strategy, place, args, kwargs)
            self._call.leave()

    def step(self) -> Iteration:
        """Surround the making of one item."""
        return self

    def __enter__(self) -> None:
        if not self._off:
            self._call.enter()
            self._began = self._call.now()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._off:
            return
        self._call.leave()
        if kind is None:
            self._item()
        elif issubclass(kind, StopIteration | StopAsyncIteration):
            self._facts["asyncguard.completed"] = True

    def _item(self) -> None:
        now = self._call.now()
        self._facts["asyncguard.items"] += 1
        self._facts.setdefault("asyncguard.first_item", now - self._call.start)
        gap = max(self._facts.get("asyncguard.largest_gap", 0.0), now - self._began)
        self._facts["asyncguard.largest_gap"] = gap

    def close(self, error: BaseException | None) -> None:
        """End the call. A consumer that stops early is no error."""
        if self._off:
            return
        call = self._call
        call.enter()
        try:
            _finish(self._strategy, call, call.now() - call.start, error, self._more)
        finally:
            call.leave()

    def _more(self, report: Report) -> dict[str, Any]:
        return self._facts | report.described_late(self._args, self._kwargs)


# --- the decorator ----------------------------------------------------------------------------------------------------


@overload
def monitor(name: F, /) -> F: ...
@overload
def monitor(
    name: str | None = None,
    *,
    record: Sequence[str] = (),
    slow: float | timedelta | None = None,
    inputs: Shown | Callable[..., Any] = "summary",
    output: Shown | Callable[[Any], Any] = "summary",
    redact: Sequence[str] = (),
    sample: float = 1.0,
    logger: logging.Logger | str | None = None,
    drift: None = None,
    mode: Literal["enforce", "observe", "off"] = "enforce",
    on_event: Callable[[Event], object] | None = None,
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
    mode: Literal["enforce", "observe", "off"] = "enforce",
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
    if callable(name):
        return Monitor(MonitorOptions())(name)
    options = MonitorOptions(
        name=name,
        record=record,  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] - normalised by the options
        drift=drift,
        slow=slow,  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] - normalised by the options
        inputs=inputs,
        output=output,
        redact=redact,  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] - normalised by the options
        sample=sample,
        logger=logger,
        mode=mode,
        on_event=on_event,
    )
    return Monitor(options)

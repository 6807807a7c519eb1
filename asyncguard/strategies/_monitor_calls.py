"""The parts of the drivers of `monitor`: a call begins, and it ends one way or the other."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from asyncguard import events
from asyncguard._runtime import dispatch, record
from asyncguard._runtime.holds import Holds
from asyncguard.telemetry import otel
from asyncguard.telemetry.calls import Call
from asyncguard.telemetry.counts import MonitorCore
from asyncguard.telemetry.failures import error_type
from asyncguard.telemetry.place import MonitoredFunction
from asyncguard.telemetry.report import Report, outcome_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from asyncguard._pipeline import Site
    from asyncguard.strategies.monitor import Monitor

    Function = Callable[..., Any]
    Args = tuple[Any, ...]
    Kwargs = dict[str, Any]


def begin(strategy: Monitor, place: MonitoredFunction, args: Args, kwargs: Kwargs) -> Call:
    """Begin a call and make its record current.

    What most calls do not need hides behind one look each; the rest is spelled out, because a function call costs as
    much as anything here.
    """
    if strategy.special:
        core, view = strategy.core_here(), strategy.view()
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


def _facts(strategy: Monitor, place: MonitoredFunction) -> dict[str, Any]:
    return {**strategy.facts(place.site), "pipeline": place.name}


def streamed_async(strategy: Monitor, place: MonitoredFunction, fn: Function, site: Site) -> Function:
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

    def __init__(self, strategy: Monitor, place: MonitoredFunction, args: Args, kwargs: Kwargs) -> None:
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

"""OpenTelemetry, if the application has set it up: spans of calls and attempts, instruments, exception logs.

Only the API is used, and it is imported only when the application has: a provider that somebody set is in
`sys.modules`. Without one nothing here costs more than a look at that dictionary (a span of the API's no-op tracer
costs 4 to 14 microseconds).
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

from asyncguard._runtime import dispatch, forks
from asyncguard.telemetry.counts import in_flight
from asyncguard.telemetry.metrics import EventMetrics, instruments
from asyncguard.telemetry.names import SCOPE

__all__ = ["Telemetry", "current", "reset"]

_ABSENT: Any = object()
_EXCEPTIONS = "OTEL_SEMCONV_EXCEPTION_SIGNAL_OPT_IN"
_lock = threading.Lock()
forks.renew_lock(globals(), "_lock")


class Telemetry:
    """What the application has set up: a tracer, instruments, or both."""

    __slots__ = ("_meters", "_tracers", "context", "instruments", "trace", "tracer", "unsubscribe")

    def __init__(self, tracers: Any, meters: Any) -> None:
        from opentelemetry import context, trace

        self._tracers = tracers
        self._meters = meters
        self.context: Any = context
        self.trace: Any = trace
        version = _version()
        self.tracer: Any = None if _noop(tracers) else tracers.get_tracer(SCOPE, version)
        self.instruments: Mapping[str, Any] | None = None
        self.unsubscribe: Callable[[], None] = _nothing
        if not _noop(meters):
            self.instruments = instruments(meters.get_meter(SCOPE, version), _observe_active)
            self.unsubscribe = dispatch.subscribe(EventMetrics(self.instruments))

    def stands_for(self, tracers: Any, meters: Any) -> bool:
        """Whether it was made from these providers."""
        return self._tracers is tracers and self._meters is meters


_known: Telemetry | None = None


def listeners() -> int:
    """Return how many subscribers there are beside our own, which has no use for the events of each call."""
    own = _known is not None and _known.instruments is not None
    return len(dispatch.handlers) - own


def _observe_active(_options: Any) -> list[Any]:
    from opentelemetry.metrics import Observation

    return [Observation(running, {"asyncguard.pipeline": name}) for name, running in in_flight().items()]


def current() -> Telemetry | None:
    """Return what is set up now, None if neither a tracer nor a meter provider is. Cheap: asked once per call."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    tracers = getattr(trace, "_TRACER_PROVIDER", _ABSENT)
    meters = getattr(sys.modules.get("opentelemetry.metrics._internal"), "_METER_PROVIDER", _ABSENT)
    if tracers is None and (meters is None or meters is _ABSENT):
        return None
    known = _known
    if known is not None and known.stands_for(tracers, meters):
        return known
    return _look(tracers, meters)


def _look(tracers: Any, meters: Any) -> Telemetry:
    global _known  # noqa: PLW0603 - one telemetry per process, swapped whole
    with _lock:
        known = _known
        if known is None or not known.stands_for(tracers, meters):
            if known is not None:
                known.unsubscribe()
            known = _known = Telemetry(tracers, meters)
        return known


def reset() -> None:
    """Forget the providers seen so far. For tests, and after a provider was shut down."""
    global _known  # noqa: PLW0603 - see above
    with _lock:
        if _known is not None:
            _known.unsubscribe()
        _known = None


def _noop(provider: Any) -> bool:
    return provider is None or provider is _ABSENT or type(provider).__name__.startswith("NoOp")


def _nothing() -> None:
    """There is nothing to take back."""


def _version() -> str:
    from importlib import metadata

    try:
        return metadata.version("asyncguard")
    except metadata.PackageNotFoundError:  # run from a checkout
        return ""


class Current:
    """A span that is current between `enter` and `leave`, however often.

    Leaving puts back what was there, and does nothing in a context where the span is not current: a generator that
    nobody finished is closed by the garbage collector in some other one.
    """

    __slots__ = ("_before", "_contexts", "span", "within")

    def __init__(self, telemetry: Telemetry, span: Any) -> None:
        self.span = span
        self.within: Any = telemetry.trace.set_span_in_context(span)  # also the parent of other spans
        self._contexts = telemetry.context
        self._before: Any = None

    def enter(self) -> None:
        """Make the span current."""
        self._before = self._contexts.get_current()
        self._contexts.attach(self.within)

    def leave(self) -> None:
        """Make current what was before."""
        if self._contexts.get_current() is self.within:
            self._contexts.attach(self._before)


class CallSpan:
    """The span of one call, and one for each attempt from the second on."""

    __slots__ = ("_attempt", "_current", "_name", "_telemetry", "recording", "span")

    def __init__(self, telemetry: Telemetry, name: str, attributes: Mapping[str, Any]) -> None:
        self._telemetry = telemetry
        self._name = name
        self.span = telemetry.tracer.start_span(name, attributes=attributes)
        self.recording: bool = self.span.is_recording()
        self._current = Current(telemetry, self.span)
        self._attempt: Current | None = None

    def enter(self) -> None:
        """Make the span current."""
        self._current.enter()

    def leave(self) -> None:
        """Make current what was before the call."""
        if self._attempt is not None:
            self._attempt.leave()
        self._current.leave()

    @property
    def ids(self) -> dict[str, str]:
        """The ids of trace and span, as hexadecimal, for the log record."""
        context = self.span.get_span_context()
        return {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}

    def attempt(self, number: int) -> None:
        """Start the span of a further attempt, as a child, and make it current."""
        self.attempt_over("")
        span = self._telemetry.tracer.start_span(
            f"{self._name} attempt", context=self._current.within, attributes={"asyncguard.attempt": number}
        )
        self._attempt = Current(self._telemetry, span)
        self._attempt.enter()

    def attempt_over(self, error: str) -> None:
        """End the span of the attempt that runs, if one does. Its error was handled, so the span does not fail."""
        over, self._attempt = self._attempt, None
        if over is not None:
            over.leave()
            if error:
                over.span.set_attribute("error.type", error)
            over.span.end()

    def end(self, attributes: Mapping[str, Any], error: Mapping[str, str] | None) -> None:
        """End the span. `error` holds the fields of the exception that leaves, None if none does."""
        self.attempt_over(error["exception.type"] if error else "")
        if self.recording:
            self.span.set_attributes(attributes)
            if error:
                self._failed(error)
        self.span.end()

    def _failed(self, error: Mapping[str, str]) -> None:
        trace = self._telemetry.trace
        self.span.set_status(trace.Status(trace.StatusCode.ERROR, error["exception.message"]))
        signal = os.environ.get(_EXCEPTIONS, "")
        logged = signal in ("logs", "logs/dup") and _log_exception(error, self._current.within)
        if not logged or signal == "logs/dup":
            self.span.add_event("exception", error)


def _log_exception(error: Mapping[str, str], context: Any) -> bool:
    """Emit an exception as a log record, as the semantic conventions will have it; False if that is not possible."""
    try:
        from opentelemetry._logs import SeverityNumber, get_logger_provider

        logger: Any = get_logger_provider().get_logger(SCOPE)
        logger.emit(
            event_name="exception", severity_number=SeverityNumber.ERROR, context=context, attributes=dict(error)
        )
    except (ImportError, TypeError):  # an older API
        return False
    return True

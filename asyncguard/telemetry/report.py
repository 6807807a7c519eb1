"""What is told about one call: its span, its line in the log, its metrics."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from typing import Any

from asyncguard import events
from asyncguard._machines.durations import in_words
from asyncguard._machines.text import escape
from asyncguard._machines.throttle import Throttle
from asyncguard._runtime import forks, record
from asyncguard.errors import RejectedError
from asyncguard.telemetry import otel
from asyncguard.telemetry.failures import error_type, failure
from asyncguard.telemetry.place import MonitoredFunction
from asyncguard.telemetry.view import View

More = Callable[[], dict[str, Any]]

__all__ = ["Report", "outcome_of"]

_LEVELS = {
    "ok": logging.INFO,
    "cancelled": logging.INFO,
    "fallback": logging.WARNING,
    "rejected": logging.WARNING,
    "error": logging.ERROR,
}

# A stack takes a tenth of a millisecond to write down: in a storm of errors only the first few of a kind have one.
_stacks = Throttle(time.monotonic)
_complaints = Throttle(time.monotonic, burst=1, every=60.0)
_log = logging.getLogger("asyncguard")
forks.in_child(_stacks.after_fork)
forks.in_child(_complaints.after_fork)


def outcome_of(call: record.Record, error: BaseException | None) -> str:
    """Name how a call ended. A cancellation, an interrupt or an exit says nothing about the function."""
    if error is None:
        return "fallback" if call.degraded else "ok"
    if not isinstance(error, Exception):
        return "cancelled"
    return "rejected" if isinstance(error, RejectedError) else "error"


class Report:
    """Opened when a call begins, if somebody looks at every call; else when one turns out to be worth telling."""

    def __init__(
        self, place: MonitoredFunction, view: View, call: record.Record, telemetry: otel.Telemetry | None
    ) -> None:
        self._place = place
        self._view = view
        self._call = call
        self._telemetry = telemetry
        self._logged = False
        self._look_inside = False
        self._facts: dict[str, Any] | None = None
        self.span: otel.CallSpan | None = None

    def open(self, args: tuple[Any, ...], kwargs: dict[str, Any], *, logged: bool) -> None:
        """Open the span, and describe the arguments before the function may change them."""
        self._logged = logged
        telemetry, place = self._telemetry, self._place
        with _Harmless(place):
            if telemetry is not None and telemetry.tracer is not None:
                self.span = otel.CallSpan(telemetry, place.name, place.attributes)
                self._call.watch = self._watched
            if logged or (self.span is not None and self.span.recording):
                self._look_inside = place.look_inside()
                self._facts = self._view.inputs(place.parameters, args, kwargs, look_inside=self._look_inside)

    def enter(self) -> None:
        """Make the span current, if there is one."""
        if self.span is not None:
            self.span.enter()

    def leave(self) -> None:
        """Make current what was before."""
        if self.span is not None:
            self.span.leave()

    def _watched(self, event: events.Event) -> None:
        with _Harmless(self._place):
            if self.span is None:
                return
            if isinstance(event, events.AttemptStarted):
                self.span.attempt(event.attempt)
            elif isinstance(event, events.RetryScheduled | events.RetryGaveUp):
                self.span.attempt_over(error_type(event.error) if event.error is not None else "")

    def close(self, outcome: str, duration: float, active: int, error: BaseException | None, more: More) -> None:
        """Write the span, the metrics and the log record. `more` gives fields that only those who write need."""
        with _Harmless(self._place):
            self._close(outcome, duration, active, error, more)

    def _close(self, outcome: str, duration: float, active: int, error: BaseException | None, more: More) -> None:
        kind = error_type(error) if error is not None and outcome != "cancelled" else ""
        self._measure(outcome, duration, kind)
        level = max(_LEVELS[outcome], logging.WARNING if duration >= self._view.slow else 0)
        logged = self._view.logger.isEnabledFor(level) and (self._logged or level > logging.INFO)
        recording = self.span is not None and self.span.recording
        fields: dict[str, Any] = {}
        failed: dict[str, str] | None = None
        if logged or recording:
            fields = self._fields(outcome, duration, more)
            if error is not None and kind:
                failed = self._failure(error, kind)
                fields["error.type"] = kind
        if logged:
            at_the_end = {
                "asyncguard.duration": duration,
                "asyncguard.attempts": self._call.attempts,
                "asyncguard.active": active,
            }
            slow = f" (slow: {in_words(self._view.slow)} or more)" if duration >= self._view.slow else ""
            self._write(level, f"{outcome} in {in_words(duration)}{slow}", {**fields, **at_the_end}, failed)
        if self.span is not None:
            self.span.end(fields, failed)

    def _measure(self, outcome: str, duration: float, kind: str) -> None:
        if self._telemetry is None or self._telemetry.instruments is None:
            return
        durations = self._telemetry.instruments["asyncguard.call.duration"]
        durations.record(duration, self._place.labels(outcome, kind))

    def _fields(self, outcome: str, duration: float, more: More) -> dict[str, Any]:
        fields: dict[str, Any] = {"asyncguard.outcome": outcome}
        if self._call.attempts > 1:
            fields["asyncguard.attempts"] = self._call.attempts
        if duration >= self._view.slow:
            fields["asyncguard.slow"] = True
        if self._call.noted:
            notes = self._call.notes.items()
            fields.update({name: escape(note) if isinstance(note, str) else note for name, note in notes})
        if self._facts:
            fields.update(self._facts)
        with _Harmless(self._place):  # a summary that fails does not cost the call its record
            fields.update(more())
        return fields

    def _failure(self, error: BaseException, kind: str) -> dict[str, str]:
        stack = not isinstance(error, RejectedError) and _stacks.ask((self._place.name, kind)) is not None
        return failure(error, self._view.redactor, stack=stack)

    def _write(self, level: int, ended: str, fields: dict[str, Any], failed: dict[str, str] | None) -> None:
        attempts = f" after {self._call.attempts} attempts" if self._call.attempts > 1 else ""
        why = f": {failed['exception.type']}: {failed['exception.message']}" if failed else ""
        extra = {**self._place.attributes, **fields, **(failed or {})}
        if self.span is not None:
            extra.update(self.span.ids)
        self._view.logger.log(level, "%s", f"{self._place.name} {ended}{attempts}{why}", extra=extra)

    def described(self, result: Any) -> dict[str, Any]:
        """Return the fields about the result."""
        return self._view.output(result, look_inside=self._look_inside)

    def described_late(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return the fields about the arguments of a call that nobody watched until it went wrong."""
        if self._facts is not None:
            return {}
        return self._view.inputs(self._place.parameters, args, kwargs, look_inside=False)


class _Harmless:
    """Around telemetry: a failure in it never changes a call, and is said once a minute."""

    __slots__ = ("_place",)

    def __init__(self, place: MonitoredFunction) -> None:
        self._place = place

    def __enter__(self) -> None: ...

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> bool:
        if not isinstance(error, Exception):
            return False
        with contextlib.suppress(Exception):
            if _complaints.ask(self._place.name) is not None:
                _log.warning("asyncguard: monitoring of %s failed: %s", self._place.name, error_type(error))
        return True

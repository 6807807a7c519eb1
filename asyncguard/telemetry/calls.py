"""One monitored call while it runs: the record that its strategies report to, and its own count."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Token
from typing import TYPE_CHECKING

from asyncguard._runtime import record

if TYPE_CHECKING:
    from asyncguard.telemetry.counts import Counts
    from asyncguard.telemetry.place import MonitoredFunction
    from asyncguard.telemetry.report import Report
    from asyncguard.telemetry.view import View

__all__ = ["Call"]


class Call(record.Record):
    """One call. `enter` and `leave` say when it is the current one; it is in `counts.active` until it is over."""

    report: Report | None = None
    token: Token[record.Record | None]
    start: float

    def __init__(self, place: MonitoredFunction, view: View, counts: Counts, now: Callable[[], float]) -> None:
        self.pipeline = place.site.pipeline
        self.place = place
        self.view = view
        self.counts = counts
        self.now = now

    def enter(self) -> None:
        """Make the record and the span current."""
        self.token = record.activate(self)
        if self.report is not None:
            self.report.enter()

    def leave(self) -> None:
        """Make current what was before."""
        if self.report is not None:
            self.report.leave()
        record.deactivate(self.token)

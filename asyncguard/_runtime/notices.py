"""What an operator should see even without any telemetry: rate-limited warnings of the logger `asyncguard`."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import Any

from asyncguard import events
from asyncguard._machines.durations import in_words
from asyncguard._machines.text import escape
from asyncguard._machines.throttle import Throttle
from asyncguard._runtime import forks

__all__ = ["Notices", "notice"]

_MEBIBYTE = 1024.0 * 1024.0


class Notices:
    """Writes the events that matter to `logger`, per kind and place at most a burst and then one every ten seconds."""

    def __init__(self, logger: logging.Logger, clock: Callable[[], float]) -> None:
        self._logger = logger
        self.throttle = Throttle(clock)

    def notice(self, event: events.Event) -> None:
        """Warn about `event` if it is one of those that matter and not too many of its kind came before."""
        write = _TEXTS.get(type(event))
        text = write(event) if write is not None else None
        if text is None or not self._logger.isEnabledFor(logging.WARNING):
            return
        held_back = self.throttle.ask((type(event), event.pipeline, event.strategy, event.partition))
        if held_back is not None:
            self._logger.warning("%s", _line(event, text, held_back), extra=_fields(event))


def _line(event: events.Event, text: str, held_back: int) -> str:
    partition = f"[{event.partition}]" if event.partition else ""
    observed = " (observed only)" if event.observed else ""
    more = f" ({held_back} like this were held back)" if held_back else ""
    return escape(f"{event.pipeline or event.strategy}{partition} {text}{observed}{more}")


def _fields(event: events.Event) -> dict[str, object]:
    return {
        "asyncguard.event": type(event).__name__,
        "asyncguard.pipeline": escape(event.pipeline),
        "asyncguard.strategy": escape(event.strategy),
        "asyncguard.partition": escape(event.partition),
    }


def _opened(event: events.CircuitOpened) -> str:
    last = f", last error {event.error}" if event.error else ""
    how_long = f"for {in_words(event.open_for)}" if event.open_for < math.inf else "until close() or reset()"
    return f"circuit opened {how_long}: {event.failed} of {event.calls} failed, {event.slow} slow{last}"


def _closed(event: events.CircuitClosed) -> str:
    return f"circuit closed after {in_words(event.open_for)}"


def _gave_up(event: events.RetryGaveUp) -> str:
    error = f", last error {type(event.error).__name__}" if event.error is not None else ""
    budget = "retry budget is empty, " if event.reason == "budget" else ""
    attempts = "1 attempt" if event.attempts == 1 else f"{event.attempts} attempts"
    return f"{budget}gave up after {attempts} in {in_words(event.elapsed)}: {event.reason}{error}"


def _parked(event: events.TargetParked) -> str:
    return f"is parked: the target asked for a pause, all callers wait {in_words(event.delay)}"


def _memory(event: events.MemoryDecided) -> str | None:
    if event.decision not in {"rejected", "forced"}:
        return None
    sizes = (event.need, event.used, event.reserved, event.elsewhere, event.limit)
    need, used, reserved, others, limit = (size / _MEBIBYTE for size in sizes)
    promised = f"{used:.0f} + reserved {reserved:.0f}" + (f" + {others:.0f} in other processes" if others else "")
    what = "refused" if event.decision == "rejected" else "over its limit, but nothing else runs: let in"
    return f"memory {what}: need {need:.0f} MiB, used {promised} of {limit:.0f} MiB"


def _refused(event: events.InputRejected) -> str | None:
    if event.action == "raise":  # the caller has the error
        return None
    return f"refused input: {', '.join(event.rules[:10])} ({event.action})"


def _fell_back(event: events.FallbackUsed) -> str:
    return f"fallback {event.position} answered after {type(event.error).__name__}"


_TEXTS: dict[type[events.Event], Callable[[Any], str | None]] = {
    events.CircuitOpened: _opened,
    events.CircuitClosed: _closed,
    events.RetryGaveUp: _gave_up,
    events.TargetParked: _parked,
    events.MemoryDecided: _memory,
    events.InputRejected: _refused,
    events.FallbackUsed: _fell_back,
}

_notices = Notices(logging.getLogger("asyncguard"), time.monotonic)
forks.in_child(_notices.throttle.after_fork)


def notice(event: events.Event) -> None:
    """Warn about `event` through the logger `asyncguard`, if it matters and within the rate."""
    _notices.notice(event)


def clear() -> None:
    """Forget what was said lately. For tests."""
    _notices.throttle.clear()

"""What handled each fault: the service's own log, joined with the client's journal by request id."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from asyncguard import events

if TYPE_CHECKING:
    from pathlib import Path

    from asyncguard.cli.demo.journal import Attempt, Call, Journal

UNEXPLAINED = "unexplained"
STEPS: dict[type[events.Event], str] = {
    events.InputRejected: "validate_input",
    events.CircuitOpened: "circuit_breaker opened",
    events.FallbackUsed: "fallback",
}


@dataclass(frozen=True, slots=True)
class Asked:
    """One line of the service's log: a request that it got, and the fault it answered with, if any."""

    id: str
    at: float
    fault: str | None


@dataclass(frozen=True, slots=True)
class Handled:
    """A fault, and what handled it. `survived` is false if work was lost over it."""

    id: str
    at: float
    fault: str
    by: str
    survived: bool


def read_log(path: Path) -> list[Asked]:
    """The service's log, as far as it got: the last line may be cut."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    facts = [json.loads(line) for line in lines if line.endswith("}")]
    return [Asked(fact["id"], fact["at"], fact["fault"]) for fact in facts]


def explain(log: list[Asked], journal: Journal) -> list[Handled]:
    """Name what handled each request that met a fault."""
    known = {attempt.id: (call, attempt) for call in journal.calls for attempt in call.attempts}
    done = {call.what for call in journal.calls if call.error is None and call.what.startswith("documents")}
    return [_handled(asked, known.get(asked.id), done) for asked in log if asked.fault]


def _handled(asked: Asked, found: tuple[Call, Attempt] | None, done: set[str]) -> Handled:
    fault = asked.fault or ""
    if found is None:
        return Handled(asked.id, asked.at, fault, UNEXPLAINED, survived=False)
    call, attempt = found
    said = _window(call, attempt)
    by = _by_guards(said) or _by_what_came_next(call, attempt)
    survived = call.error is None or call.what in done
    if call.error is not None and call.what in done:
        by = f"{by}; the job asked again" if by else "the job asked again"
    if not survived:
        by = f"nothing: lost on {type(call.error).__name__}"
    return Handled(asked.id, asked.at, fault, by or UNEXPLAINED, survived)


def _window(call: Call, attempt: Attempt) -> list[events.Event]:
    """What the guards of the call said between this attempt and the next."""
    later = [other.started for other in call.attempts if other.started > attempt.started]
    return [event for at, event in call.events if attempt.started <= at <= min(later, default=math.inf)]


def _by_guards(said: list[events.Event]) -> str:
    steps = [step for step in map(_step, said) if step]
    return ", ".join(dict.fromkeys(steps))


def _step(event: events.Event) -> str:
    """A guard's part in it, in a few words; nothing for events that tell of no handling."""
    if isinstance(event, events.RetryScheduled):
        return "retry, as late as Retry-After asked" if event.kind == "throttle" else "retry"
    if isinstance(event, events.CallTimedOut):
        return f"timeout {event.seconds:g} s"
    if isinstance(event, events.CallRejected):
        return "circuit_breaker kept calls away" if event.reason == "open" else ""
    return STEPS.get(type(event), "")


def _by_what_came_next(call: Call, attempt: Attempt) -> str:
    """For a variant without guards: was it sent again, or did the caller just wait?"""
    if any(other.started > attempt.started for other in call.attempts):
        return "sent again"
    return f"endured for {call.seconds:.1f} s" if call.error is None else ""

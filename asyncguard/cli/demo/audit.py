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
SLOW = {"drip", "stall"}
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
    return [_handled(asked, known.get(asked.id), done, guarded=journal.guarded) for asked in log if asked.fault]


def _handled(asked: Asked, found: tuple[Call, Attempt] | None, done: set[str], *, guarded: bool) -> Handled:
    fault = asked.fault or ""
    if found is None:
        return Handled(asked.id, asked.at, fault, UNEXPLAINED, survived=False)
    call, attempt = found
    if call.error is not None and call.what not in done:
        return Handled(asked.id, asked.at, fault, f"nothing: lost on {type(call.error).__name__}", survived=False)
    steps = [_by_guards(call, attempt), _by_patience(call, attempt, fault)]
    steps += [] if guarded else [_by_sending_again(call, attempt)]
    by = next(filter(None, steps), "")
    if call.error is not None:
        by = f"{by}, then the job put the batch back" if by else ""
    return Handled(asked.id, asked.at, fault, by or UNEXPLAINED, survived=True)


def _by_guards(call: Call, attempt: Attempt) -> str:
    """What the guards of the call said between this attempt and the next; the database's guards mean another fault."""
    until = min((other.started for other in call.attempts if other.started > attempt.started), default=math.inf)
    said = [event for at, event in call.events if attempt.started <= at <= until]
    steps = [_step(event) for event in said if not event.pipeline.endswith("store")]
    return ", ".join(dict.fromkeys(filter(None, steps)))


def _step(event: events.Event) -> str:
    """A guard's part in it, in a few words; nothing for events that tell of no handling."""
    if isinstance(event, events.RetryScheduled):
        return "retry, as late as Retry-After asked" if event.kind == "throttle" else "retry"
    if isinstance(event, events.CallTimedOut):
        return f"timeout {event.seconds:g} s"
    if isinstance(event, events.CallRejected):
        return "circuit_breaker kept calls away" if event.reason == "open" else ""
    return STEPS.get(type(event), "")


def _by_patience(call: Call, attempt: Attempt, fault: str) -> str:
    """A slow answer is an answer, for who waits for it."""
    slow = fault in SLOW and call.error is None and attempt is call.attempts[-1]
    return f"endured for {call.seconds:.1f} s" if slow else ""


def _by_sending_again(call: Call, attempt: Attempt) -> str:
    """Other libraries tell us nothing: we see the next attempt."""
    return "sent again" if attempt is not call.attempts[-1] else ""

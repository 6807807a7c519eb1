"""The record of one monitored call: what the strategies of its own pipeline did, folded as it happens.

`monitor` activates a record around the call; every strategy of the same pipeline reports its events to it. The record
keeps facts, not events: an event may hold an exception, and an exception pins its frames and the tensors in them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar, Token
from typing import Any, TypeAlias

from asyncguard import events

__all__ = ["Note", "Record", "activate", "active", "current", "deactivate"]

Note: TypeAlias = str | bool | int | float | tuple[str, ...]

_MOST_OBSERVED = 8
active: ContextVar[Record | None] = ContextVar("asyncguard_record", default=None)


class Record:
    """What is known of one monitored call.

    `pipeline` is the identity of the pipeline whose events belong here (compare with `is`). `attempts` counts from 1.
    `degraded` is true when a fallback answered. `notes` maps attribute names to facts. `watch`, if set, sees each
    event too: the telemetry makes child spans of attempts from it.
    """

    # Defaults on the class: a call of which there is nothing to note, and that is nearly every call, sets none of them.
    attempts: int = 1
    degraded: bool = False
    watch: Callable[[events.Event], None] | None = None
    _notes: dict[str, Note] | None = None

    def __init__(self, pipeline: object) -> None:
        self.pipeline = pipeline

    @property
    def notes(self) -> dict[str, Note]:
        """The facts so far, by attribute name. Built on first use: most calls have none."""
        if self._notes is None:
            self._notes = {}
        return self._notes

    @property
    def noted(self) -> bool:
        """Whether anything was noted."""
        return bool(self._notes)

    def add(self, event: events.Event) -> None:
        """Fold `event` into the record."""
        if event.observed:
            _observed(self, event)
            return
        fold = _FOLDS.get(type(event))
        if fold is not None:
            fold(self, event)
        if self.watch is not None:
            self.watch(event)

    def increase(self, name: str, amount: float) -> None:
        """Add `amount` to the number noted as `name`."""
        before = self.notes.get(name, 0)
        self.notes[name] = (before if isinstance(before, int | float) else 0) + amount


def current() -> Record | None:
    """Return the record of the innermost monitored call in this context, if there is one."""
    return active.get()


def activate(record: Record | None) -> Token[Record | None]:
    """Make `record` the current one. Give the token to `deactivate` in the same context."""
    return active.set(record)


def deactivate(token: Token[Record | None]) -> None:
    """Bring back what was current before `activate`.

    A coroutine that nobody finished is closed by the garbage collector in some other context. The one in which its
    record was active is gone then, and there is nothing to bring back.
    """
    try:
        active.reset(token)
    except ValueError:
        return


def _observed(record: Record, event: events.Event) -> None:
    seen = record.notes.get("asyncguard.observed", ())
    names = seen if isinstance(seen, tuple) else ()
    if len(names) < _MOST_OBSERVED:
        record.notes["asyncguard.observed"] = (*names, f"{event.strategy}:{type(event).__name__}")


def _attempt(record: Record, event: events.AttemptStarted) -> None:
    record.attempts = max(record.attempts, event.attempt)


def _retry(record: Record, event: events.RetryScheduled) -> None:
    record.attempts = max(record.attempts, event.attempt)
    record.notes["asyncguard.retry.kind"] = event.kind
    record.increase("asyncguard.retry.delay", event.delay)


def _gave_up(record: Record, event: events.RetryGaveUp) -> None:
    record.attempts = event.attempts
    record.notes["asyncguard.retry.kind"] = event.kind
    record.notes["asyncguard.retry.gave_up"] = event.reason


def _parked(record: Record, event: events.TargetParked) -> None:
    record.notes["asyncguard.retry.parked"] = event.delay


def _hedged(record: Record, event: events.HedgeStarted) -> None:
    record.notes["asyncguard.hedge.attempts"] = event.attempt


def _hedge_over(record: Record, event: events.HedgeFinished) -> None:
    record.notes["asyncguard.hedge.attempts"] = event.attempts
    record.notes["asyncguard.hedge.winner"] = event.winner


def _fallback(record: Record, event: events.FallbackUsed) -> None:
    record.degraded = True
    record.notes["asyncguard.fallback.position"] = event.position
    record.notes["asyncguard.fallback.error"] = type(event.error).__name__


def _timed_out(record: Record, event: events.CallTimedOut) -> None:
    record.notes["asyncguard.timeout"] = event.seconds


def _swallowed(record: Record, _event: events.CancellationSwallowed) -> None:
    record.notes["asyncguard.cancellation_swallowed"] = True


def _abandoned(record: Record, _event: events.WorkAbandoned) -> None:
    record.notes["asyncguard.work_abandoned"] = True


def _rejected(record: Record, event: events.CallRejected) -> None:
    record.notes["asyncguard.rejected.by"] = event.strategy
    record.notes["asyncguard.rejected.reason"] = event.reason
    if event.reason == "open":
        record.notes["asyncguard.circuit.state"] = "open"


def _queued(record: Record, event: events.CallQueued) -> None:
    record.notes["asyncguard.queue.ahead"] = event.ahead


def _admitted(record: Record, event: events.CallAdmitted) -> None:
    record.increase("asyncguard.queue.wait", event.waited)


def _opened(record: Record, _event: events.CircuitOpened) -> None:
    record.notes["asyncguard.circuit.state"] = "open"


def _half_opened(record: Record, _event: events.CircuitHalfOpened) -> None:
    record.notes["asyncguard.circuit.state"] = "half_open"


def _closed(record: Record, _event: events.CircuitClosed) -> None:
    record.notes["asyncguard.circuit.state"] = "closed"


def _memory(record: Record, event: events.MemoryDecided) -> None:
    record.notes["asyncguard.memory.decision"] = event.decision
    record.notes["asyncguard.memory.need"] = event.need
    if event.waited:
        record.increase("asyncguard.memory.wait", event.waited)


def _hit(record: Record, event: events.CacheHit) -> None:
    record.notes["asyncguard.cache"] = "stale" if event.stale else "hit"
    record.notes["asyncguard.cache.age"] = event.age
    record.increase("asyncguard.cache.hits", event.items)


def _missed(record: Record, event: events.CacheMissed) -> None:
    record.notes["asyncguard.cache"] = "miss"
    record.increase("asyncguard.cache.misses", event.items)


def _joined(record: Record, _event: events.CacheJoined) -> None:
    record.notes["asyncguard.cache"] = "joined"


def _invalid(record: Record, event: events.InputRejected) -> None:
    record.notes["asyncguard.validation.rules"] = event.rules
    record.notes["asyncguard.validation.action"] = event.action
    record.degraded = record.degraded or event.action == "fallback"


def _chaos(record: Record, event: events.ChaosInjected) -> None:
    record.notes["asyncguard.chaos"] = event.fault


_FOLDS: dict[type[events.Event], Callable[[Record, Any], None]] = {
    events.AttemptStarted: _attempt,
    events.RetryScheduled: _retry,
    events.RetryGaveUp: _gave_up,
    events.TargetParked: _parked,
    events.HedgeStarted: _hedged,
    events.HedgeFinished: _hedge_over,
    events.FallbackUsed: _fallback,
    events.CallTimedOut: _timed_out,
    events.CancellationSwallowed: _swallowed,
    events.WorkAbandoned: _abandoned,
    events.CallRejected: _rejected,
    events.CallQueued: _queued,
    events.CallAdmitted: _admitted,
    events.CircuitOpened: _opened,
    events.CircuitHalfOpened: _half_opened,
    events.CircuitClosed: _closed,
    events.MemoryDecided: _memory,
    events.CacheHit: _hit,
    events.CacheMissed: _missed,
    events.CacheJoined: _joined,
    events.InputRejected: _invalid,
    events.ChaosInjected: _chaos,
}

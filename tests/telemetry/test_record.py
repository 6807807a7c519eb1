"""The record of a call folds the events of its own pipeline, and keeps nothing of the errors in them."""

from __future__ import annotations

import contextvars
import gc
import weakref

import pytest

from asyncguard import events
from asyncguard._runtime import record
from asyncguard._runtime.record import Record

PIPELINE = object()


@pytest.fixture
def mine() -> Record:
    return Record(PIPELINE)


def test_the_innermost_record_is_current_until_its_end() -> None:
    outer, inner = Record(PIPELINE), Record(PIPELINE)
    first = record.activate(outer)
    second = record.activate(inner)
    assert record.current() is inner
    record.deactivate(second)
    assert record.current() is outer
    record.deactivate(first)
    assert record.current() is None


def test_a_record_that_ends_in_another_context_ends_quietly() -> None:
    """A coroutine that nobody finished is closed by the garbage collector, wherever that runs."""
    token = contextvars.copy_context().run(record.activate, Record(PIPELINE))
    record.deactivate(token)
    assert record.current() is None


def test_a_call_of_which_there_is_nothing_to_note_has_no_notes(mine: Record) -> None:
    mine.add(events.CallStarted())
    assert not mine.noted
    assert (mine.attempts, mine.degraded) == (1, False)


def test_a_retried_call(mine: Record) -> None:
    error = ConnectionError("down")
    mine.add(events.RetryScheduled(attempt=1, delay=0.5, kind="transient", error=error))
    mine.add(events.AttemptStarted(attempt=2))
    mine.add(events.RetryScheduled(attempt=2, delay=1.0, kind="transient", error=error))
    mine.add(events.AttemptStarted(attempt=3))
    mine.add(events.RetryGaveUp(attempts=3, elapsed=2.0, reason="max_retries", kind="transient", error=error))
    assert mine.attempts == 3
    assert mine.notes["asyncguard.retry.delay"] == 1.5
    assert mine.notes["asyncguard.retry.gave_up"] == "max_retries"


def test_a_pause_that_was_cancelled_is_no_attempt(mine: Record) -> None:
    mine.add(events.RetryScheduled(attempt=1, delay=0.5, kind="transient", error=None))
    assert mine.attempts == 1


@pytest.mark.parametrize(
    ("event", "notes"),
    [
        (
            events.CacheHit(age=1.5),
            {"asyncguard.cache": "hit", "asyncguard.cache.age": 1.5, "asyncguard.cache.hits": 1},
        ),
        (events.CacheHit(age=9.0, stale=True, items=2), {"asyncguard.cache": "stale", "asyncguard.cache.hits": 2}),
        (events.CacheMissed(items=3), {"asyncguard.cache": "miss", "asyncguard.cache.misses": 3}),
        (events.CacheJoined(), {"asyncguard.cache": "joined"}),
        (
            events.CallRejected(strategy="breaker", reason="open", retry_after=1.0),
            {"asyncguard.rejected.by": "breaker", "asyncguard.circuit.state": "open"},
        ),
        (events.CallQueued(ahead=4), {"asyncguard.queue.ahead": 4}),
        (events.CallAdmitted(waited=0.25), {"asyncguard.queue.wait": 0.25}),
        (
            events.CircuitOpened(open_for=30.0, calls=20, failed=14, slow=0, error="X"),
            {"asyncguard.circuit.state": "open"},
        ),
        (events.CircuitHalfOpened(probes=1), {"asyncguard.circuit.state": "half_open"}),
        (events.CircuitClosed(open_for=30.0), {"asyncguard.circuit.state": "closed"}),
        (
            events.MemoryDecided(decision="waited", used=1, limit=9, reserved=2, need=3, waited=0.5),
            {"asyncguard.memory.decision": "waited", "asyncguard.memory.wait": 0.5, "asyncguard.memory.need": 3},
        ),
        (events.HedgeFinished(attempts=2, winner=2), {"asyncguard.hedge.attempts": 2, "asyncguard.hedge.winner": 2}),
        (events.HedgeStarted(attempt=2, delay=0.1), {"asyncguard.hedge.attempts": 2}),
        (events.TargetParked(delay=20.0), {"asyncguard.retry.parked": 20.0}),
        (events.CallTimedOut(seconds=2.0), {"asyncguard.timeout": 2.0}),
        (events.CancellationSwallowed(seconds=2.0), {"asyncguard.cancellation_swallowed": True}),
        (events.WorkAbandoned(running=1), {"asyncguard.work_abandoned": True}),
        (events.ChaosInjected(fault="latency"), {"asyncguard.chaos": "latency"}),
        (events.InputRejected(rules=("x:shape",), action="raise"), {"asyncguard.validation.rules": ("x:shape",)}),
    ],
)
def test_what_a_strategy_did_is_noted(mine: Record, event: events.Event, notes: dict[str, object]) -> None:
    mine.add(event)
    assert notes.items() <= mine.notes.items()
    assert not mine.degraded


@pytest.mark.parametrize(
    "event",
    [events.FallbackUsed(position=1, error=ValueError()), events.InputRejected(rules=("x:shape",), action="fallback")],
)
def test_an_answer_of_a_fallback_is_degraded(mine: Record, event: events.Event) -> None:
    mine.add(event)
    assert mine.degraded


def test_what_was_only_observed_is_told_apart(mine: Record) -> None:
    for _ in range(20):
        mine.add(events.CallRejected(strategy="breaker", observed=True, reason="open", retry_after=None))
    assert mine.notes == {"asyncguard.observed": ("breaker:CallRejected",) * 8}


def test_the_record_keeps_no_error_alive(mine: Record) -> None:
    class Tensor:
        pass

    def fail() -> Exception:
        tensor = Tensor()
        seen.append(weakref.ref(tensor))
        try:
            return tensor.value  # type: ignore[attr-defined, no-any-return]
        except AttributeError as error:
            return error

    seen: list[weakref.ref[Tensor]] = []
    error = fail()
    mine.add(events.RetryScheduled(attempt=1, delay=0.1, kind="transient", error=error))
    mine.add(events.FallbackUsed(position=1, error=error))
    del error
    gc.collect()
    assert seen[0]() is None

"""Every event that has something to count is counted, with the real SDK, under labels that callers cannot make up."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import metrics as api

from asyncguard import events
from asyncguard.telemetry.metrics import EventMetrics, instruments
from asyncguard.telemetry.names import METRICS

if TYPE_CHECKING:
    from tests.telemetry.conftest import Metrics

AT = {"pipeline": "embedder", "strategy": "guard", "partition": "alice@example.com"}
ERROR = ValueError("secret")

COUNTED: list[tuple[events.Event, dict[str, Any]]] = [
    (
        events.RetryScheduled(**AT, attempt=1, delay=0.2, kind="transient", error=ERROR),
        {"retry.attempts": 1, "retry.delay": 0.2},
    ),
    (
        events.RetryGaveUp(**AT, attempts=3, elapsed=1.0, reason="budget", kind="transient", error=ERROR),
        {"retry.exhausted": 1},
    ),
    (events.TargetParked(**AT, delay=20.0), {"retry.parked": 1}),
    (events.HedgeStarted(**AT, attempt=2, delay=0.1), {"hedge.attempts": 1}),
    (events.HedgeFinished(**AT, attempts=2, winner=2), {"hedge.calls": 1}),
    (events.FallbackUsed(**AT, position=1, error=ERROR), {"fallback.calls": 1}),
    (events.CallTimedOut(**AT, seconds=1.0), {"timeout.calls": 1}),
    (events.CancellationSwallowed(**AT, seconds=1.0), {"timeout.swallowed": 1}),
    (events.WorkAbandoned(**AT, running=3), {"work.abandoned": 3}),
    (events.CallRejected(**AT, reason="open", retry_after=1.0), {"rejections": 1}),
    (events.CallQueued(**AT, ahead=3), {"queue.calls": 1}),
    (events.CallAdmitted(**AT, waited=0.3), {"queue.wait": 0.3}),
    (
        events.CircuitOpened(**AT, open_for=30.0, calls=20, failed=14, slow=0, error="E"),
        {"circuit.state": 1, "circuit.transitions": 1},
    ),
    (events.CircuitHalfOpened(**AT, probes=1), {"circuit.state": 1, "circuit.transitions": 1}),
    (events.CircuitClosed(**AT, open_for=30.0), {"circuit.transitions": 1}),
    (events.LimitChanged(pipeline="e", strategy="s", old=8, new=12), {"concurrency.limit": 12}),
    (
        events.MemoryDecided(**AT, decision="waited", used=600, limit=1000, reserved=150, need=2 << 20, waited=0.5),
        {
            "memory.decisions": 1, "memory.usage": 600, "memory.limit": 1000, "memory.reserved": 150,
            "memory.utilization": 0.6, "memory.need": 2 << 20, "memory.wait": 0.5,
        },
    ),
    (events.MemoryReclaimed(**AT, method="malloc_trim", freed=4096, seconds=0.01), {"memory.reclaimed": 4096}),
    (events.CacheHit(**AT, age=1.0, items=3), {"cache.requests": 3}),
    (events.CacheMissed(**AT, items=2), {"cache.requests": 2}),
    (events.CacheJoined(**AT), {"cache.requests": 1}),
    (events.CacheStored(**AT, items=2, nbytes=100), {"cache.stored": 2}),
    (events.CacheEvicted(**AT, items=5, reason="size"), {"cache.evictions": 5}),
    (events.CacheRefreshed(**AT, ok=True, seconds=0.2), {"cache.refresh": 0.2}),
    (events.CacheErrored(**AT, operation="get", error="ConnectionError"), {"cache.errors": 1}),
    (events.InputRejected(**AT, rules=("x:shape",), action="raise"), {"validation.failures": 1}),
    (events.DriftChanged(**AT, field="x", state="drift", score=0.3), {"drift.score": 0.3, "drift.changes": 1}),
    (events.ChaosInjected(**AT, fault="latency"), {"chaos.injected": 1}),
]  # fmt: skip
NOT_COUNTED = {events.AttemptStarted, events.CallStarted, events.CallFinished}  # the monitor counts calls itself


@pytest.fixture
def handler(metrics: Metrics) -> EventMetrics:
    return EventMetrics(instruments(api.get_meter_provider().get_meter("asyncguard"), lambda _options: []))


@pytest.mark.parametrize(("event", "expected"), COUNTED)
def test_an_event_is_counted(
    handler: EventMetrics, metrics: Metrics, event: events.Event, expected: dict[str, Any]
) -> None:
    handler(event)
    found = {}
    for name in metrics.data():
        (point,) = metrics.points(name)
        found[name.removeprefix("asyncguard.")] = point.sum if hasattr(point, "sum") else point.value
    assert found == expected


@pytest.mark.parametrize(("event", "expected"), COUNTED)
def test_labels_are_those_of_the_table_and_nothing_of_the_callers(
    handler: EventMetrics, metrics: Metrics, event: events.Event, expected: dict[str, Any]
) -> None:
    handler(event)
    for metric in METRICS:
        for point in metrics.points(metric.name):
            assert set(point.attributes) <= set(metric.labels)
    assert "alice" not in metrics.text()
    assert "secret" not in metrics.text()
    assert expected


def test_there_is_a_row_for_every_event() -> None:
    kinds = {each for _, each in inspect.getmembers(events, inspect.isclass) if issubclass(each, events.Event)}
    assert kinds - {events.Event} == {type(event) for event, _ in COUNTED} | NOT_COUNTED


def test_every_metric_of_events_is_used() -> None:
    used = {f"asyncguard.{name}" for _, expected in COUNTED for name in expected}
    assert {metric.name for metric in METRICS} - used == {"asyncguard.call.duration", "asyncguard.call.active"}


def test_units_and_boundaries_arrive_at_the_reader(handler: EventMetrics, metrics: Metrics) -> None:
    for event, _ in COUNTED:
        handler(event)
    for metric in METRICS:
        if metric.name.startswith("asyncguard.call."):
            continue
        exported = metrics.data()[metric.name]
        assert (exported.unit, exported.description) == (metric.unit, metric.description)
        if metric.kind == "histogram":
            assert tuple(metrics.points(metric.name)[0].explicit_bounds) == metric.bounds


def test_names_and_units_follow_the_conventions() -> None:
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    for metric in METRICS:
        assert not metric.name.endswith(("_total", ".total", ".seconds", ".bytes"))
        assert metric.unit in {"s", "By", "1"} or metric.unit.startswith("{")
        assert bool(metric.bounds) == (metric.kind == "histogram")


def test_circuits_are_counted_while_they_are_not_closed(handler: EventMetrics, metrics: Metrics) -> None:
    def opened(partition: str) -> events.CircuitOpened:
        return events.CircuitOpened(
            pipeline="p",
            strategy="circuit_breaker",
            partition=partition,
            open_for=1.0,
            calls=1,
            failed=1,
            slow=0,
            error="",
        )

    handler(opened("a"))
    handler(opened("b"))
    handler(events.CircuitHalfOpened(pipeline="p", strategy="circuit_breaker", partition="a", probes=1))
    assert metrics.values("asyncguard.circuit.state") == {
        ("open", "p", "circuit_breaker"): 1,
        ("half_open", "p", "circuit_breaker"): 1,
    }
    handler(opened("a"))
    handler(opened("a"))
    handler(events.CircuitClosed(pipeline="p", strategy="circuit_breaker", partition="b", open_for=1.0))
    assert metrics.values("asyncguard.circuit.state") == {
        ("open", "p", "circuit_breaker"): 1,
        ("half_open", "p", "circuit_breaker"): 0,
    }


def test_a_shared_breaker_that_one_function_opens_and_another_sees_close_is_closed(
    handler: EventMetrics, metrics: Metrics
) -> None:
    handler(events.CircuitOpened(pipeline="p", strategy="openai", open_for=1.0, calls=1, failed=1, slow=0, error=""))
    handler(events.CircuitHalfOpened(pipeline="q", strategy="openai", probes=1))
    handler(events.CircuitClosed(pipeline="q", strategy="openai", open_for=1.0))
    assert set(metrics.values("asyncguard.circuit.state").values()) == {0}


def test_what_was_only_observed_is_told_apart(handler: EventMetrics, metrics: Metrics) -> None:
    handler(events.CallRejected(pipeline="p", strategy="s", reason="full", retry_after=None))
    handler(events.CallRejected(pipeline="p", strategy="s", reason="full", retry_after=None, observed=True))
    assert sorted(len(point.attributes) for point in metrics.points("asyncguard.rejections")) == [3, 4]


def test_limits_of_many_partitions_do_not_overwrite_each_other(handler: EventMetrics, metrics: Metrics) -> None:
    handler(events.LimitChanged(**AT, old=1, new=2))
    assert metrics.points("asyncguard.concurrency.limit") == []


def test_an_unknown_limit_has_no_utilization(handler: EventMetrics, metrics: Metrics) -> None:
    handler(events.MemoryDecided(decision="admitted", used=1, limit=0, reserved=0, need=1, waited=0.0))
    assert metrics.points("asyncguard.memory.utilization") == []

"""Events become metrics: one handler per kind of event, on any meter that looks like OpenTelemetry's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from threading import Lock
from typing import Any, Protocol

from asyncguard import events
from asyncguard.telemetry.names import METRICS, Metric

__all__ = ["EventMetrics", "Meter", "instruments"]

Labels = dict[str, str | int | bool]


class Meter(Protocol):
    """The part of an OpenTelemetry meter that is used here."""

    def create_counter(self, name: str, unit: str = ..., description: str = ...) -> Any: ...  # noqa: D102
    def create_up_down_counter(self, name: str, unit: str = ..., description: str = ...) -> Any: ...  # noqa: D102
    def create_gauge(self, name: str, unit: str = ..., description: str = ...) -> Any: ...  # noqa: D102
    def create_observable_up_down_counter(  # noqa: D102
        self, name: str, callbacks: Any = ..., unit: str = ..., description: str = ...
    ) -> Any: ...
    def create_histogram(  # noqa: D102
        self, name: str, unit: str = ..., description: str = ..., *, explicit_bucket_boundaries_advisory: Any = ...
    ) -> Any: ...


def instruments(meter: Meter, active: Callable[..., Any]) -> dict[str, Any]:
    """Create every instrument of the table on a meter, by name. `active` observes the calls in flight."""
    return {metric.name: _instrument(meter, metric, active) for metric in METRICS}


def _instrument(meter: Meter, metric: Metric, active: Callable[..., Any]) -> Any:
    if metric.kind == "active":
        return meter.create_observable_up_down_counter(metric.name, [active], metric.unit, metric.description)
    if metric.kind == "histogram":
        return meter.create_histogram(
            metric.name, metric.unit, metric.description, explicit_bucket_boundaries_advisory=list(metric.bounds)
        )
    create = {
        "counter": meter.create_counter,
        "gauge": meter.create_gauge,
        "updowncounter": meter.create_up_down_counter,
    }[metric.kind]
    return create(metric.name, metric.unit, metric.description)


class EventMetrics:
    """A subscriber that counts events: `subscribe(EventMetrics(instruments(meter)))`."""

    def __init__(self, made: Mapping[str, Any]) -> None:
        self._made = made
        self._circuits: dict[tuple[str, str, str], str] = {}
        self._lock = Lock()
        self._handlers: dict[type[events.Event], Callable[[Any, Labels], None]] = {
            events.RetryScheduled: self._retry,
            events.RetryGaveUp: self._gave_up,
            events.TargetParked: lambda _event, labels: self._count("retry.parked", labels),
            events.HedgeStarted: lambda _event, labels: self._count("hedge.attempts", labels),
            events.HedgeFinished: self._hedged,
            events.FallbackUsed: self._fallback,
            events.CallTimedOut: lambda _event, labels: self._count("timeout.calls", labels),
            events.CancellationSwallowed: lambda _event, labels: self._count("timeout.swallowed", labels),
            events.WorkAbandoned: lambda event, labels: self._set("work.abandoned", event.running, labels),
            events.CallRejected: self._rejected,
            events.CallQueued: lambda _event, labels: self._count("queue.calls", labels),
            events.CallAdmitted: lambda event, labels: self._record("queue.wait", event.waited, labels),
            events.CircuitOpened: lambda event, labels: self._circuit(event, labels, "open"),
            events.CircuitHalfOpened: lambda event, labels: self._circuit(event, labels, "half_open"),
            events.CircuitClosed: lambda event, labels: self._circuit(event, labels, "closed"),
            events.LimitChanged: self._limit,
            events.MemoryDecided: self._memory,
            events.MemoryReclaimed: self._reclaimed,
            events.CacheHit: self._hit,
            events.CacheMissed: lambda event, labels: self._cache("miss", event, labels),
            events.CacheJoined: lambda event, labels: self._cache("joined", event, labels),
            events.CacheStored: lambda event, labels: self._count("cache.stored", labels, event.items),
            events.CacheEvicted: self._evicted,
            events.CacheRefreshed: self._refreshed,
            events.CacheErrored: self._store_failed,
            events.InputRejected: self._invalid,
            events.DriftChanged: self._drift,
            events.ChaosInjected: self._chaos,
        }

    def __call__(self, event: events.Event) -> None:
        """Count one event. The partition is left out: it is what callers send, and there is no end to it."""
        handler = self._handlers.get(type(event))
        if handler is None:
            return
        labels: Labels = {"asyncguard.pipeline": event.pipeline, "asyncguard.strategy": event.strategy}
        if event.observed:
            labels["asyncguard.observed"] = True
        handler(event, labels)

    def _count(self, name: str, labels: Labels, amount: float = 1) -> None:
        self._made[f"asyncguard.{name}"].add(amount, labels)

    def _set(self, name: str, value: float, labels: Labels) -> None:
        self._made[f"asyncguard.{name}"].set(value, labels)

    def _record(self, name: str, value: float, labels: Labels) -> None:
        self._made[f"asyncguard.{name}"].record(value, labels)

    def _retry(self, event: events.RetryScheduled, labels: Labels) -> None:
        self._count("retry.attempts", {**labels, "asyncguard.retry.kind": event.kind})
        self._record("retry.delay", event.delay, labels)

    def _gave_up(self, event: events.RetryGaveUp, labels: Labels) -> None:
        self._count("retry.exhausted", {**labels, "asyncguard.retry.reason": event.reason})

    def _hedged(self, event: events.HedgeFinished, labels: Labels) -> None:
        winner = ("nobody", "original")[event.winner] if event.winner <= 1 else "hedge"
        self._count("hedge.calls", {**labels, "asyncguard.hedge.winner": winner})

    def _fallback(self, event: events.FallbackUsed, labels: Labels) -> None:
        self._count("fallback.calls", {**labels, "asyncguard.fallback.position": event.position})

    def _rejected(self, event: events.CallRejected, labels: Labels) -> None:
        self._count("rejections", {**labels, "asyncguard.rejected.reason": event.reason})

    def _circuit(self, event: events.Event, labels: Labels, state: str) -> None:
        """Count the circuits of a strategy that are not closed. One circuit per partition, remembered while it is.

        A breaker with a name of its own may be shared: one function opens it and another sees it close, so it is known
        by that name alone. One without is known by its pipeline too.
        """
        owner = event.pipeline if event.strategy == "circuit_breaker" else ""
        before = self._entered((owner, event.strategy, event.partition), state)
        at: Labels = {"asyncguard.strategy": event.strategy}
        if owner:
            at["asyncguard.pipeline"] = owner
        if before not in ("closed", state):
            self._count("circuit.state", {**at, "asyncguard.circuit.state": before}, -1)
        if state not in ("closed", before):
            self._count("circuit.state", {**at, "asyncguard.circuit.state": state})
        self._count("circuit.transitions", {**labels, "asyncguard.circuit.state": state})

    def _entered(self, circuit: tuple[str, str, str], state: str) -> str:
        with self._lock:
            before = self._circuits.pop(circuit, "closed")
            if state != "closed":
                self._circuits[circuit] = state
        return before

    def _limit(self, event: events.LimitChanged, labels: Labels) -> None:
        if not event.partition:  # the limits of many partitions under one label would overwrite each other
            self._set("concurrency.limit", event.new, labels)

    def _memory(self, event: events.MemoryDecided, labels: Labels) -> None:
        self._count("memory.decisions", {**labels, "asyncguard.memory.decision": event.decision})
        self._set("memory.usage", event.used, labels)
        self._set("memory.limit", event.limit, labels)
        self._set("memory.reserved", event.reserved, labels)
        if event.limit:
            self._set("memory.utilization", event.used / event.limit, labels)
        self._record("memory.need", event.need, labels)
        if event.waited:
            self._record("memory.wait", event.waited, labels)

    def _reclaimed(self, event: events.MemoryReclaimed, labels: Labels) -> None:
        self._count("memory.reclaimed", {**labels, "asyncguard.memory.method": event.method}, max(0, event.freed))

    def _hit(self, event: events.CacheHit, labels: Labels) -> None:
        labels = {**labels, "asyncguard.cache.layer": event.layer}
        self._cache("stale" if event.stale else "hit", event, labels)

    def _cache(
        self, result: str, event: events.CacheHit | events.CacheMissed | events.CacheJoined, labels: Labels
    ) -> None:
        self._count("cache.requests", {**labels, "asyncguard.cache.result": result}, event.items)

    def _evicted(self, event: events.CacheEvicted, labels: Labels) -> None:
        self._count("cache.evictions", {**labels, "asyncguard.cache.reason": event.reason}, event.items)

    def _refreshed(self, event: events.CacheRefreshed, labels: Labels) -> None:
        self._record("cache.refresh", event.seconds, {**labels, "asyncguard.cache.ok": event.ok})

    def _store_failed(self, event: events.CacheErrored, labels: Labels) -> None:
        self._count("cache.errors", {**labels, "asyncguard.cache.operation": event.operation})

    def _invalid(self, event: events.InputRejected, labels: Labels) -> None:
        for rule in event.rules:
            of_rule: Labels = {"asyncguard.validation.rule": rule, "asyncguard.validation.action": event.action}
            self._count("validation.failures", labels | of_rule)

    def _drift(self, event: events.DriftChanged, labels: Labels) -> None:
        labels = {**labels, "asyncguard.drift.field": event.field}
        self._set("drift.score", event.score, labels)
        self._count("drift.changes", {**labels, "asyncguard.drift.state": event.state})

    def _chaos(self, event: events.ChaosInjected, labels: Labels) -> None:
        self._count("chaos.injected", {**labels, "asyncguard.chaos.fault": event.fault})

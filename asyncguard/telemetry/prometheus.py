"""The same metrics for an application that has `prometheus_client` and no OpenTelemetry.

`install()` once, at start-up; scrape as usual. Under `PROMETHEUS_MULTIPROC_DIR` (gunicorn, uvicorn workers) it works
as every `prometheus_client` metric does, because that is what it makes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from asyncguard import events
from asyncguard._runtime import dispatch
from asyncguard.telemetry.metrics import EventMetrics, instruments
from asyncguard.telemetry.names import METRICS

__all__ = ["install"]

_UNITS = {"s": "_seconds", "By": "_bytes"}
_LABELS = {metric.name: (*metric.labels, "asyncguard.observed") for metric in METRICS}
_MOST_ERROR_TYPES = 50
_installed: dict[Any, Callable[[], None]] = {}  # registry -> what ends it


def install(registry: Any = None) -> Callable[[], None]:
    """Count everything in `prometheus_client`'s registry (its global one by default); the returned function ends it.

    Done again it changes nothing, and returns the same function: nothing is counted twice.
    Raises ImportError without `prometheus_client`: install `asyncguard[prometheus]`.
    """
    import prometheus_client

    registry = prometheus_client.REGISTRY if registry is None else registry
    if registry in _installed:
        return _installed[registry]
    meter = _Meter(registry)
    end = dispatch.subscribe(_CallMetrics(instruments(meter, _nothing)))

    def uninstall() -> None:
        end()
        meter.unregister()
        _installed.pop(registry, None)

    _installed[registry] = uninstall
    return uninstall


class _CallMetrics(EventMetrics):
    """Counts calls too, from their events: without OpenTelemetry the monitor has no instruments of its own."""

    def __init__(self, made: Mapping[str, Any]) -> None:
        super().__init__(made)
        self._active = made["asyncguard.call.active"]
        self._duration = made["asyncguard.call.duration"]
        self._kinds: set[str] = set()

    def __call__(self, event: events.Event) -> None:
        """Count one event."""
        if isinstance(event, events.CallStarted):
            self._active.add(1, {"asyncguard.pipeline": event.pipeline})
        elif isinstance(event, events.CallFinished):
            self._active.add(-1, {"asyncguard.pipeline": event.pipeline})
            self._duration.record(event.duration, self._labels(event))
        else:
            super().__call__(event)

    def _labels(self, event: events.CallFinished) -> dict[str, str]:
        labels = {"asyncguard.pipeline": event.pipeline, "asyncguard.outcome": event.outcome}
        if event.error_type:
            known = event.error_type in self._kinds or len(self._kinds) < _MOST_ERROR_TYPES
            if known:
                self._kinds.add(event.error_type)
            labels["error.type"] = event.error_type if known else "_OTHER"
        return labels


class _Meter:
    """Makes Prometheus metrics under the names that OpenTelemetry's exporter gives them."""

    def __init__(self, registry: Any) -> None:
        self._registry = registry
        self._made: list[Any] = []

    def create_counter(self, name: str, unit: str = "", description: str = "") -> Any:
        from prometheus_client import Counter

        return self._instrument(name, Counter(_name(name, unit), description, _labels(name), registry=self._registry))

    def create_up_down_counter(self, name: str, unit: str = "", description: str = "") -> Any:
        return self._gauge(name, unit, description, "livesum")

    def create_observable_up_down_counter(
        self, name: str, callbacks: Any = (), unit: str = "", description: str = ""
    ) -> Any:
        del callbacks  # counted by events: a gauge that is asked for its value cannot speak for several workers
        return self.create_up_down_counter(name, unit, description)

    def create_gauge(self, name: str, unit: str = "", description: str = "") -> Any:
        return self._gauge(name, unit, description, "livemostrecent")

    def _gauge(self, name: str, unit: str, description: str, workers: Any) -> Any:
        from prometheus_client import Gauge

        gauge = Gauge(_name(name, unit), description, _labels(name), registry=self._registry, multiprocess_mode=workers)
        return self._instrument(name, gauge)

    def create_histogram(
        self, name: str, unit: str = "", description: str = "", *, explicit_bucket_boundaries_advisory: Any = ()
    ) -> Any:
        from prometheus_client import Histogram

        histogram = Histogram(
            _name(name, unit),
            description,
            _labels(name),
            registry=self._registry,
            buckets=tuple(explicit_bucket_boundaries_advisory),
        )
        return self._instrument(name, histogram)

    def _instrument(self, name: str, metric: Any) -> _Instrument:
        self._made.append(metric)
        return _Instrument(metric, _LABELS[name])

    def unregister(self) -> None:
        """Take the metrics out of the registry."""
        while self._made:
            self._registry.unregister(self._made.pop())


class _Instrument:
    """One metric, with the methods of an OpenTelemetry instrument. A label that is missing becomes an empty one."""

    def __init__(self, metric: Any, labels: tuple[str, ...]) -> None:
        self._metric = metric
        self._labels = labels
        self._children: dict[tuple[str, ...], Any] = {}

    def add(self, amount: float, labels: Mapping[str, Any]) -> None:
        """Count up, or down."""
        self._child(labels).inc(amount)

    def set(self, value: float, labels: Mapping[str, Any]) -> None:
        """Set a gauge."""
        self._child(labels).set(value)

    def record(self, value: float, labels: Mapping[str, Any]) -> None:
        """Put a value into its bucket."""
        self._child(labels).observe(value)

    def _child(self, labels: Mapping[str, Any]) -> Any:
        values = tuple(_text(labels.get(label, "")) for label in self._labels)
        child = self._children.get(values)
        if child is None:
            child = self._children[values] = self._metric.labels(*values)
        return child


def _nothing(_options: Any) -> list[Any]:
    return []


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _name(name: str, unit: str) -> str:
    return name.replace(".", "_") + _UNITS.get(unit, "")


def _labels(name: str) -> tuple[str, ...]:
    return tuple(label.replace(".", "_") for label in _LABELS[name])

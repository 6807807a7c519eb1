"""The real SDK, set up anew for each test."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from typing import Any

import opentelemetry.metrics._internal
import opentelemetry.trace
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from asyncguard._runtime import notices
from asyncguard.telemetry import otel, report
from asyncguard.telemetry.logs import JSONFormatter


class Spans:
    """The spans that were ended, in order of their end."""

    def __init__(self, provider: TracerProvider) -> None:
        self.provider = provider
        self._exporter = InMemorySpanExporter()
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    def all(self) -> tuple[Any, ...]:
        return self._exporter.get_finished_spans()

    def one(self) -> Any:
        (span,) = self.all()
        return span

    def text(self) -> str:
        return "\n".join(span.to_json() for span in self.all())


class Metrics:
    """The points that a reader would export."""

    def __init__(self, reader: InMemoryMetricReader) -> None:
        self._reader = reader

    def data(self) -> dict[str, Any]:
        data = self._reader.get_metrics_data()
        if data is None:
            return {}
        scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics]
        return {metric.name: metric for scope in scopes for metric in scope.metrics}

    def points(self, name: str) -> list[Any]:
        metric = self.data().get(name)
        return list(metric.data.data_points) if metric else []

    def values(self, name: str) -> dict[tuple[str, ...], float]:
        """The values of a counter or gauge by the values of its labels, in the order of the labels' names."""
        found = {}
        for point in self.points(name):
            found[tuple(str(value) for _, value in sorted(point.attributes.items()))] = point.value
        return found

    def text(self) -> str:
        data = self._reader.get_metrics_data()
        return "" if data is None else data.to_json()


class Lines:
    """The JSON lines that the monitor's logger writes, and its records."""

    def __init__(self) -> None:
        self.stream = io.StringIO()
        self.records: list[logging.LogRecord] = []

    def text(self) -> str:
        return self.stream.getvalue()


@pytest.fixture(autouse=True)
def fresh_telemetry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(opentelemetry.trace, "_TRACER_PROVIDER", None)
    monkeypatch.setattr(opentelemetry.metrics._internal, "_METER_PROVIDER", None)
    otel.reset()
    notices.clear()
    report._stacks.clear()
    report._complaints.clear()
    yield
    otel.reset()


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[Spans]:
    provider = TracerProvider(shutdown_on_exit=False)
    monkeypatch.setattr(opentelemetry.trace, "_TRACER_PROVIDER", provider)
    yield Spans(provider)
    otel.reset()  # before the other fixtures look whether the test has left a subscriber behind
    provider.shutdown()


@pytest.fixture
def metrics(monkeypatch: pytest.MonkeyPatch) -> Iterator[Metrics]:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    monkeypatch.setattr(opentelemetry.metrics._internal, "_METER_PROVIDER", provider)
    yield Metrics(reader)
    otel.reset()
    provider.shutdown()


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lines]:
    written = Lines()
    logger = logging.getLogger("asyncguard.monitor")
    handler = logging.StreamHandler(written.stream)
    handler.setFormatter(JSONFormatter())
    handler.addFilter(lambda record: written.records.append(record) or True)
    monkeypatch.setattr(logger, "propagate", False)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield written
    logger.removeHandler(handler)
    logger.setLevel(level)

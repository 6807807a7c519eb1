"""The same metrics through `prometheus_client`, in one process and in several."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import prometheus_client
import pytest

from asyncguard import events, monitor, testing
from asyncguard._runtime import dispatch
from asyncguard.telemetry.names import METRICS
from asyncguard.telemetry.prometheus import install


@pytest.fixture
def registry() -> Iterator[Any]:
    registry = prometheus_client.CollectorRegistry()
    end = install(registry)
    yield registry
    end()
    assert not list(registry.collect())


def exposed(registry: Any) -> str:
    return prometheus_client.generate_latest(registry).decode()


def tell(event: events.Event) -> None:
    for handler in dispatch.handlers:
        handler(event)


def test_every_metric_has_the_name_that_opentelemetrys_exporter_gives_it(registry: Any) -> None:
    text = exposed(registry)
    assert "# TYPE asyncguard_call_duration_seconds histogram" in text
    assert "# TYPE asyncguard_memory_usage_bytes gauge" in text
    assert "# TYPE asyncguard_retry_attempts_total counter" in text
    assert "# TYPE asyncguard_memory_reclaimed_bytes_total counter" in text
    assert text.count("# TYPE") == len(METRICS)


def test_calls_are_counted(registry: Any) -> None:
    @monitor("work")
    def work(x: int) -> float:
        labels = {"asyncguard_pipeline": "work", "asyncguard_observed": ""}
        assert registry.get_sample_value("asyncguard_call_active", labels) == 1
        return 1 / x

    with testing.virtual_clock():
        work(1)
        with pytest.raises(ZeroDivisionError):
            work(0)
    text = exposed(registry)
    assert (
        'asyncguard_call_duration_seconds_count{asyncguard_observed="",asyncguard_outcome="error",'
        'asyncguard_pipeline="work",error_type="ZeroDivisionError"} 1.0'
    ) in text
    assert 'asyncguard_call_active{asyncguard_observed="",asyncguard_pipeline="work"} 0.0' in text
    assert 'le="0.005"' in text


def test_events_are_counted(registry: Any) -> None:
    tell(events.CacheHit(pipeline="p", strategy="cache", age=1.0, items=3, observed=True))
    tell(
        events.MemoryDecided(
            pipeline="p", strategy="m", decision="waited", used=9, limit=10, reserved=1, need=5, waited=0.5
        )
    )
    text = exposed(registry)
    assert 'asyncguard_observed="true"' in text
    assert (
        'asyncguard_memory_utilization{asyncguard_observed="",asyncguard_pipeline="p",asyncguard_strategy="m"} 0.9'
        in text
    )


def test_kinds_of_errors_are_bounded_as_labels(registry: Any) -> None:
    for number in range(80):
        tell(events.CallFinished(pipeline="p", duration=0.1, outcome="error", error_type=f"E{number}", attempts=1))
    assert exposed(registry).count("asyncguard_call_duration_seconds_count{") == 51
    assert 'error_type="_OTHER"' in exposed(registry)


WORKER = """
from asyncguard import monitor
from asyncguard.telemetry.prometheus import install
install()
work = monitor("work", logger="nobody")(len)
for _ in range(int({calls})):
    work("abc")
"""
SCRAPE = """
import prometheus_client
from prometheus_client import multiprocess
registry = prometheus_client.CollectorRegistry()
multiprocess.MultiProcessCollector(registry)
print(prometheus_client.generate_latest(registry).decode())
"""


def test_several_workers_add_up(tmp_path: Path) -> None:
    env = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    for calls in (2, 3):
        subprocess.run([sys.executable, "-c", WORKER.format(calls=calls)], env=env, check=True)
    text = subprocess.run([sys.executable, "-c", SCRAPE], env=env, check=True, capture_output=True, text=True).stdout
    (line,) = [each for each in text.splitlines() if each.startswith("asyncguard_call_duration_seconds_count")]
    assert line.endswith(" 5.0")


def test_installed_again_it_counts_nothing_twice_and_ends_once(registry: Any) -> None:
    end = install(registry)
    assert install(registry) is end
    with_handlers = len(dispatch.handlers)
    tell(events.CallTimedOut(pipeline="twice", strategy="timeout", seconds=1.0))
    assert 'asyncguard_timeout_calls_total{asyncguard_observed="",asyncguard_pipeline="twice"' in exposed(registry)
    assert next(line.endswith(" 1.0") for line in exposed(registry).splitlines() if 'pipeline="twice"' in line)
    end()
    assert len(dispatch.handlers) == with_handlers - 1
    assert not list(registry.collect())
    install(registry)
    assert len(dispatch.handlers) == with_handlers
    install(registry)()
    end()
    install(registry)
    install(registry)()

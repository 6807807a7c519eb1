"""The page docs/reference/telemetry.md says what the code does: every metric, event and attribute, and no other."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from asyncguard import events
from asyncguard._machines.histogram import SECONDS, SLOW_SECONDS
from asyncguard.telemetry.names import METRICS, Metric

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reference" / "telemetry.md").read_text(encoding="utf-8")
LINES = PAGE.splitlines()
SOURCES = [ROOT / "asyncguard" / "_runtime" / "record.py", *(ROOT / "asyncguard" / "telemetry").glob("*.py")]
SOURCES.extend((ROOT / "asyncguard" / "strategies").glob("*monitor*.py"))


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_each_metric_is_on_the_page(metric: Metric) -> None:
    kind = metric.kind if metric.kind in ("counter", "gauge", "histogram") else "up-down counter"
    bounds = {(): "", SECONDS: "short", SLOW_SECONDS: "long"}.get(metric.bounds, "bytes")
    own = (label for label in metric.labels if label not in ("asyncguard.pipeline", "asyncguard.strategy"))
    labels = ", ".join(f"`{label}`" for label in own)
    assert f"| `{metric.name}` | {kind} | `{metric.unit}` | {bounds} | {labels} | {metric.description} |" in LINES


def test_the_boundaries_are_on_the_page() -> None:
    for bounds in (SECONDS, SLOW_SECONDS):
        assert ", ".join(f"{bound:g}" for bound in bounds) in PAGE


@pytest.mark.parametrize("name", [name for name in events.__all__ if name != "Event"])
def test_each_event_is_on_the_page(name: str) -> None:
    common = {field.name for field in dataclasses.fields(events.Event)}
    own = [field.name for field in dataclasses.fields(getattr(events, name)) if field.name not in common]
    assert f"| `{name}` | {', '.join(f'`{field}`' for field in own)} |" in LINES


def test_each_attribute_is_on_the_page() -> None:
    attribute = re.compile(r'"(asyncguard\.[a-z_.]+)"')
    written = {name for source in SOURCES for name in attribute.findall(source.read_text(encoding="utf-8"))}
    others = {"asyncguard.monitor", "asyncguard.input", "asyncguard.output", "asyncguard.output.type"}
    missing = sorted(name for name in written - others if f"`{name}`" not in PAGE and not name.endswith("."))
    assert missing == []

"""The names of everything that asyncguard measures: one table, from which instruments and the reference page are made.

Units are UCUM (`s`, `By`, `{call}`), names carry neither unit nor `_total`: exporters add what their system wants.
Label values are known when a function is decorated, or come from a short list; what a caller sends is never a label.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from asyncguard._machines.histogram import SECONDS, SLOW_SECONDS

__all__ = ["METRICS", "SCOPE", "Metric"]

SCOPE = "asyncguard"

_BYTES = tuple(float(2**power) for power in range(16, 37, 2))  # 64 KiB to 64 GiB
_PLACE = ("asyncguard.pipeline", "asyncguard.strategy")


@dataclass(frozen=True, slots=True)
class Metric:
    """One instrument: `labels` are the attributes that its points may have, `bounds` the buckets of a histogram.

    The kind "active" is an up-down counter that is read when somebody collects, and costs a call nothing.
    """

    name: str
    kind: Literal["active", "counter", "gauge", "histogram", "updowncounter"]
    unit: str
    description: str
    labels: tuple[str, ...] = _PLACE
    bounds: tuple[float, ...] = ()


METRICS = (
    Metric(
        "asyncguard.call.duration",
        "histogram",
        "s",
        "Duration of monitored calls.",
        ("asyncguard.pipeline", "asyncguard.outcome", "error.type"),
        SECONDS,
    ),
    Metric("asyncguard.call.active", "active", "{call}", "Monitored calls in flight.", ("asyncguard.pipeline",)),
    Metric(
        "asyncguard.retry.attempts",
        "counter",
        "{attempt}",
        "Attempts beyond the first that were scheduled.",
        (*_PLACE, "asyncguard.retry.kind"),
    ),
    Metric("asyncguard.retry.delay", "histogram", "s", "Pause before a further attempt.", _PLACE, SLOW_SECONDS),
    Metric(
        "asyncguard.retry.exhausted",
        "counter",
        "{call}",
        "Calls whose retry gave up.",
        (*_PLACE, "asyncguard.retry.reason"),
    ),
    Metric("asyncguard.retry.parked", "counter", "{pause}", "Pauses that a target asked for."),
    Metric("asyncguard.hedge.attempts", "counter", "{attempt}", "Second copies of a call that were started."),
    Metric(
        "asyncguard.hedge.calls",
        "counter",
        "{call}",
        "Hedged calls, by who answered first: original, hedge or nobody.",
        (*_PLACE, "asyncguard.hedge.winner"),
    ),
    Metric(
        "asyncguard.fallback.calls",
        "counter",
        "{call}",
        "Calls answered by a fallback.",
        (*_PLACE, "asyncguard.fallback.position"),
    ),
    Metric("asyncguard.timeout.calls", "counter", "{call}", "Calls that ran out of time."),
    Metric("asyncguard.timeout.swallowed", "counter", "{call}", "Functions that swallowed their cancellation."),
    Metric("asyncguard.work.abandoned", "gauge", "{call}", "Calls still running although their caller has left."),
    Metric(
        "asyncguard.rejections",
        "counter",
        "{call}",
        "Calls that were not let in.",
        (*_PLACE, "asyncguard.rejected.reason"),
    ),
    Metric("asyncguard.queue.calls", "counter", "{call}", "Calls that had to wait for their turn."),
    Metric("asyncguard.queue.wait", "histogram", "s", "Time that admitted calls had waited.", _PLACE, SECONDS),
    Metric(
        "asyncguard.circuit.state",
        "updowncounter",
        "{circuit}",
        "Circuits that are not closed, by state: open or half_open.",
        (*_PLACE, "asyncguard.circuit.state"),
    ),
    Metric(
        "asyncguard.circuit.transitions",
        "counter",
        "{transition}",
        "Changes of a circuit's state, by the new state.",
        (*_PLACE, "asyncguard.circuit.state"),
    ),
    Metric("asyncguard.concurrency.limit", "gauge", "{call}", "The adaptive concurrency limit."),
    Metric(
        "asyncguard.memory.decisions",
        "counter",
        "{decision}",
        "Decisions of the memory guard: admitted, waited, forced or rejected.",
        (*_PLACE, "asyncguard.memory.decision"),
    ),
    Metric("asyncguard.memory.usage", "gauge", "By", "Memory in use at the last decision."),
    Metric("asyncguard.memory.limit", "gauge", "By", "The limit at the last decision."),
    Metric("asyncguard.memory.reserved", "gauge", "By", "Memory promised to running calls at the last decision."),
    Metric("asyncguard.memory.utilization", "gauge", "1", "Memory in use as a share of the limit."),
    Metric("asyncguard.memory.need", "histogram", "By", "Memory that calls were expected to need.", _PLACE, _BYTES),
    Metric("asyncguard.memory.wait", "histogram", "s", "Time that calls had waited for memory.", _PLACE, SLOW_SECONDS),
    Metric(
        "asyncguard.memory.reclaimed",
        "counter",
        "By",
        "Memory given back under pressure.",
        (*_PLACE, "asyncguard.memory.method"),
    ),
    Metric(
        "asyncguard.cache.requests",
        "counter",
        "{item}",
        "Values asked of the cache: hit, stale, miss or joined.",
        (*_PLACE, "asyncguard.cache.result", "asyncguard.cache.layer"),
    ),
    Metric("asyncguard.cache.stored", "counter", "{item}", "Values stored."),
    Metric(
        "asyncguard.cache.evictions",
        "counter",
        "{item}",
        "Values that left the cache.",
        (*_PLACE, "asyncguard.cache.reason"),
    ),
    Metric(
        "asyncguard.cache.refresh",
        "histogram",
        "s",
        "Duration of background refreshes.",
        (*_PLACE, "asyncguard.cache.ok"),
        SECONDS,
    ),
    Metric(
        "asyncguard.cache.errors",
        "counter",
        "{error}",
        "Failures of a store that a call went on without.",
        (*_PLACE, "asyncguard.cache.operation"),
    ),
    Metric(
        "asyncguard.validation.failures",
        "counter",
        "{failure}",
        "Broken rules, by parameter:rule.",
        (*_PLACE, "asyncguard.validation.rule", "asyncguard.validation.action"),
    ),
    Metric(
        "asyncguard.drift.score",
        "gauge",
        "1",
        "The last drift score of a field.",
        (*_PLACE, "asyncguard.drift.field"),
    ),
    Metric(
        "asyncguard.drift.changes",
        "counter",
        "{change}",
        "Changes of a drift detector's state, by the new state.",
        (*_PLACE, "asyncguard.drift.field", "asyncguard.drift.state"),
    ),
    Metric(
        "asyncguard.chaos.injected",
        "counter",
        "{fault}",
        "Faults injected on purpose.",
        (*_PLACE, "asyncguard.chaos.fault"),
    ),
)
"""Every metric. Those of events that a strategy only observed have the label `asyncguard.observed` as well."""

"""The strategies as the conformance suite sees them: one row each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import asyncguard as ag
from asyncguard._strategy import Strategy


def nothing(_strategy: Any) -> None:
    """Nothing can be left behind."""


def no_slot_left(strategy: Any) -> None:
    for gate in strategy.gates():
        assert gate.idle(), "a permit or a waiter was left behind"


def no_flight_left(strategy: Any) -> None:
    assert strategy.info().in_flight == 0, "a flight was left behind"


@dataclass(frozen=True)
class Case:
    """One strategy: how it is made, and what must hold when no call is under way."""

    name: str
    make: Callable[[], Strategy[Any, Any]]
    clean: Callable[[Any], None] = nothing
    own_tasks: bool = False  # the function runs in a task of its own, so a coroutine cannot be driven by hand
    generators: bool = True
    async_generators: bool = True


CASES = [
    Case("retry", lambda: ag.retry(on=TransientError, max_retries=2, budget=None)),
    Case("timeout", lambda: ag.timeout(30.0)),
    Case("attempt_timeout", lambda: ag.timeout(30.0, scope="attempt")),
    Case("circuit_breaker", lambda: ag.circuit_breaker(minimum_calls=1000)),
    Case("bulkhead", lambda: ag.bulkhead(1), clean=no_slot_left),
    Case("bulkhead_weighted", lambda: ag.bulkhead(2, weight=2), clean=no_slot_left),
    Case("adaptive_concurrency", lambda: ag.adaptive_concurrency(initial=1, max_limit=1), clean=no_slot_left),
    Case("chaos", lambda: ag.chaos(0.0, error=TransientError, enabled=True)),
    Case("hedge", ag.hedge, generators=False, async_generators=False),
    Case(
        "hedge_raced",
        lambda: ag.hedge(delay=60.0, max_extra_load=1.0),
        generators=False,
        async_generators=False,
        own_tasks=True,
    ),
    Case("rate_limit", lambda: ag.rate_limit("1000/s burst 1000")),
    Case("memory_guard", lambda: ag.memory_guard(estimate=1024), clean=no_slot_left),
    Case(
        "fallback",
        lambda: ag.fallback("fallback", on=TransientError),
        generators=False,
        async_generators=False,
    ),
    Case(
        "cache_result",
        lambda: ag.cache_result(60.0),
        clean=no_flight_left,
        own_tasks=True,
        generators=False,
        async_generators=False,
    ),
    Case("validate_input", lambda: ag.validate_input({})),
    Case("monitor", ag.monitor),
]


class TransientError(Exception):
    """The error that the strategies of the suite react to."""


def case_ids(case: Case) -> str:
    return case.name

"""Decorators without their parentheses: those that need no option work, the others say what to write."""

from __future__ import annotations

from typing import Any

import pytest

import asyncguard as ag
from asyncguard import strategies, testing

BARE: dict[Any, Any] = {
    ag.circuit_breaker: strategies.CircuitBreaker,
    ag.adaptive_concurrency: strategies.AdaptiveConcurrency,
    ag.hedge: strategies.Hedge,
    ag.retry: strategies.Retry,
    ag.monitor: strategies.Monitor,
}
NEEDS: dict[Any, str] = {
    ag.bulkhead: r"write @bulkhead\(8\), with parentheses",
    ag.timeout: r"write @timeout\(30\), with parentheses",
    ag.rate_limit: r'write @rate_limit\("100/s"\), with parentheses',
    ag.cache_items: r"write @cache_items\(60\), with parentheses",
    ag.cache_result: r"write @cache_result\(60\), with parentheses",
    ag.memory_guard: r"write @memory_guard\(\), with parentheses",
    ag.chaos: r"write @chaos\(0.1, latency=1\), with parentheses",
}


async def work(x: int) -> int:
    return 2 * x


def named(factory: Any) -> str:
    return str(factory.__name__)


@pytest.mark.parametrize("factory", BARE, ids=named)
def test_what_needs_no_option_needs_no_parentheses(factory: Any, backend: Any) -> None:
    guarded = factory(work)
    assert [type(each) for each in ag.pipeline_of(guarded)] == [BARE[factory]]
    assert testing.run(lambda: guarded(2), backend=backend) == 4
    assert type(factory()) is BARE[factory]


@pytest.mark.parametrize("factory", BARE, ids=named)
def test_it_works_bare_on_class_methods(factory: Any) -> None:
    class Model:
        @factory  # type: ignore[untyped-decorator]
        @classmethod
        def load(cls, x: int) -> tuple[type, int]:
            return cls, x

    assert Model.load(1) == (Model, 1)


@pytest.mark.parametrize("factory", [ag.circuit_breaker, ag.adaptive_concurrency, ag.hedge], ids=named)
def test_an_option_by_position_is_refused_with_the_way_to_write_it(factory: Any) -> None:
    with pytest.raises(TypeError, match=f"{factory.__name__} takes its options by keyword, .* got 5"):
        factory(5)


@pytest.mark.parametrize("factory", NEEDS, ids=named)
def test_what_needs_an_option_says_how_it_is_written(factory: Any) -> None:
    with pytest.raises(TypeError, match=NEEDS[factory]):
        factory(work)

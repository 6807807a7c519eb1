"""Callers' code, checked and never run: the handles to state, and everything beside the decorators."""

from __future__ import annotations

from typing import assert_type

import asyncguard
from asyncguard import (
    CircuitOpenError,
    Pipeline,
    RejectedError,
    bulkhead,
    cache_result,
    circuit_breaker,
    deadline,
    guard,
    pipeline_of,
    rate_limit,
    remaining,
    retry,
)
from asyncguard.events import CircuitOpened, Event, RetryScheduled
from asyncguard.pytest_plugin import Runner
from asyncguard.strategies import Bulkhead, CacheResult, CircuitBreaker, RateLimit, Retry


@retry(max_retries=2)
@cache_result(60)
async def embed(text: str) -> list[float]:
    return [float(len(text))]


def a_strategy_object_is_the_handle_to_its_state() -> None:
    assert_type(retry(max_retries=2), Retry)
    assert_type(circuit_breaker(), CircuitBreaker)
    assert_type(bulkhead(2), Bulkhead)
    assert_type(rate_limit("1/s"), RateLimit)
    assert_type(cache_result(60), CacheResult)


def a_pipeline_finds_its_strategies_by_class() -> None:
    pipeline = pipeline_of(embed)
    assert_type(pipeline, Pipeline)
    assert_type(pipeline[CacheResult], CacheResult)
    assert_type(pipeline[Retry], Retry)
    assert_type(pipeline.explain(), str)
    assert_type(len(pipeline), int)
    assert_type([str(fact) for fact in asyncguard.status()], list[str])


def options_change_in_place(breaker: CircuitBreaker) -> None:
    breaker.configure(open_for=5.0)
    with breaker.override(mode="observe"):
        pass


async def blocks(limiter: RateLimit, slots: Bulkhead) -> None:
    async with limiter.permit("a"):
        pass
    with slots.permit():
        pass
    with deadline(2.0):
        assert_type(remaining(), float | None)


def on_event(event: Event) -> None:
    if isinstance(event, RetryScheduled):
        assert_type(event.delay, float)
    elif isinstance(event, CircuitOpened):
        assert_type(event.error, str)


def hooks() -> None:
    guard(retry(on_event=on_event), name="embedder")
    unsubscribe = asyncguard.subscribe(on_event)
    unsubscribe()


async def errors_carry_their_facts() -> None:
    try:
        await embed("a")
    except CircuitOpenError as error:
        assert_type(error.retry_after, float | None)
    except RejectedError as error:
        assert_type(error.strategy, str)


def a_test_that_runs_an_async_function(asyncguard_run: Runner) -> None:
    async def main() -> int:
        return 3

    assert_type(asyncguard_run(main), int)

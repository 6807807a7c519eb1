"""NaN, inf, -1 and True for each parameter that is a number, whatever it is called: found by signature, not by hand."""

from __future__ import annotations

import inspect
import math
from datetime import timedelta

import pytest

import asyncguard as ag

MAKE = {
    "retry": ag.retry,
    "timeout": lambda **options: ag.timeout(**{"seconds": 1.0, **options}),
    "circuit_breaker": ag.circuit_breaker,
    "bulkhead": lambda **options: ag.bulkhead(**{"max_concurrent": 1, **options}),
    "adaptive_concurrency": ag.adaptive_concurrency,
    "hedge": ag.hedge,
    "chaos": lambda **options: ag.chaos(**{"rate": 0.5, "latency": 0.1, **options}),
    "rate_limit": lambda **options: ag.rate_limit("10/s", **options),
    "memory_guard": ag.memory_guard,
    "cache_result": lambda **options: ag.cache_result(**{"ttl": 60.0, **options}),
    "cache_items": lambda **options: ag.cache_items(**{"ttl": 60.0, "over": "texts", **options}),
    "monitor": ag.monitor,
    "RetryBudget": ag.RetryBudget,
    "deadline": lambda **options: ag.deadline(**{"seconds": 1.0, **options}),
}
NUMBERS = ("float", "int", "timedelta", "Duration", "Ttl", "Weight", "Estimate", "Jitter")
OF_NO_RANGE = {("chaos", "seed")}  # any integer is a seed
TRUTHS = {("memory_guard", "reclaim"), ("timeout", "thread"), ("chaos", "cancel"), ("chaos", "enabled")}
NEVER = [math.nan, math.inf, -math.inf, -1, -0.5]


def numbers():
    """Return every parameter of every factory that may be a number."""
    for factory in MAKE:
        for name, parameter in inspect.signature(getattr(ag, factory)).parameters.items():
            words = str(parameter.annotation).replace("|", " ").replace("[", " ").replace("]", " ").split()
            if set(words) & set(NUMBERS) and (factory, name) not in TRUTHS | OF_NO_RANGE:
                yield factory, name, str(parameter.annotation)


FOUND = list(numbers())


@pytest.mark.parametrize("value", [*NEVER, True], ids=repr)
@pytest.mark.parametrize(("factory", "name"), [row[:2] for row in FOUND], ids=str)
def test_it_is_refused_by_name(factory, name, value):
    with pytest.raises((ValueError, TypeError), match=rf"{name}.* must .*got"):
        MAKE[factory](**{name: value})


@pytest.mark.parametrize(("factory", "name"), [row[:2] for row in FOUND if "timedelta" in row[2]], ids=str)
def test_a_negative_timedelta_is_refused_by_name(factory, name):
    with pytest.raises((ValueError, TypeError), match=rf"{name}.* must .*got"):
        MAKE[factory](**{name: timedelta(seconds=-1)})


@pytest.mark.parametrize(
    ("factory", "name"),
    [
        ("timeout", "seconds"),
        ("circuit_breaker", "window"),
        ("circuit_breaker", "minimum_calls"),
        ("circuit_breaker", "half_open_calls"),
        ("circuit_breaker", "failure_rate"),
        ("circuit_breaker", "open_for"),
        ("circuit_breaker", "consecutive_failures"),
        ("bulkhead", "max_concurrent"),
        ("adaptive_concurrency", "initial"),
        ("adaptive_concurrency", "min_limit"),
        ("adaptive_concurrency", "max_limit"),
        ("hedge", "max_extra_load"),
        ("hedge", "max_hedges"),
        ("cache_result", "ttl"),
        ("cache_result", "max_entries"),
        ("retry", "backoff_factor"),
        ("memory_guard", "threshold"),
    ],
)
def test_zero_where_it_would_mean_never_is_refused(factory, name):
    with pytest.raises(ValueError, match=rf"{name}.* must .*got 0"):
        MAKE[factory](**{name: 0})


@pytest.mark.parametrize(
    "rate", ["nan/s", "inf/s", "-1/s", "0/s", "1e400/s", "10/0s", "10/-1s", "10/nans", "10/s burst 0", "10/s burst nan"]
)
def test_a_rate_that_is_none_is_refused(rate):
    with pytest.raises(ValueError, match="must"):
        ag.rate_limit(rate)


@pytest.mark.parametrize("cost", [math.nan, math.inf, -1, True, "1", None])
def test_a_cost_that_is_none_is_refused_at_the_call_and_takes_nothing(cost):
    limit = ag.rate_limit(ag.Rate("10/h burst 10", cost=lambda: cost), max_wait=0)
    with pytest.raises((ValueError, TypeError), match="cost"):
        limit(lambda: None)()
    assert limit.peek(10) == 0.0


@pytest.mark.parametrize("delay", [math.nan, math.inf, -1])
def test_a_delay_of_a_predicate_that_is_none_is_named(delay):
    @ag.retry(on=lambda _error: delay)
    def call():
        raise ConnectionError

    with pytest.raises(ValueError, match="on="):
        call()


def test_enough_parameters_were_found():
    assert len(FOUND) > 40
    assert {factory for factory, _, _ in FOUND} == set(MAKE)

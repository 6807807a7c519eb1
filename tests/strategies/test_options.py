"""Every option of every strategy is checked at decoration, and the message names it."""

from __future__ import annotations

from datetime import timedelta

import pytest

import asyncguard as ag

NAN, INF = float("nan"), float("inf")
NO_DURATION = (-1, NAN, INF, True, "1", timedelta(seconds=-1))
NO_POSITIVE_DURATION = (0, *NO_DURATION)
NO_FRACTION = (-0.1, 1.1, NAN, INF, True, "1")
NO_COUNT = (0, -1, 1.5, NAN, True, "1")
NO_MODE = ("maybe", 1, None)
NO_CALLABLE = (3, "f")
NO_ERRORS = (BaseException, KeyboardInterrupt, (), (ValueError, SystemExit), "ValueError", 3, (3,))

MAKE = {
    "retry": ag.retry,
    "timeout": lambda seconds=1.0, **options: ag.timeout(seconds, **options),
    "circuit_breaker": ag.circuit_breaker,
    "bulkhead": lambda max_concurrent=1, **options: ag.bulkhead(max_concurrent, **options),
    "adaptive_concurrency": ag.adaptive_concurrency,
    "hedge": ag.hedge,
    "chaos": lambda rate=0.5, **options: ag.chaos(rate, **{"latency": 0.1, **options}),
    "rate_limit": lambda rate="10/s", **options: ag.rate_limit(rate, **options),
    "memory_guard": lambda threshold=0.85, **options: ag.memory_guard(threshold, **options),
    "fallback": lambda **options: ag.fallback("value", **options),
    "cache_result": lambda ttl=60.0, **options: ag.cache_result(ttl, **options),
    "cache_items": lambda ttl=60.0, **options: ag.cache_items(ttl, **{"over": "texts", **options}),
    "validate_input": lambda **options: ag.validate_input({}, **options),
    "monitor": ag.monitor,
}

TABLE: dict[str, dict[str, tuple[object, ...]]] = {
    "retry": {
        "on": NO_ERRORS,
        "max_retries": (-1, 1.5, True, NAN, "3"),
        "initial_delay": NO_DURATION,
        "backoff_factor": (0.5, -1, NAN, INF, True, "2"),
        "max_delay": (*NO_DURATION, 0.1),
        "jitter": ("some", -0.5, 1.5, NAN, True),
        "on_result": NO_CALLABLE,
        "max_retry_after": NO_DURATION,
        "budget": ("empty", 3, True),
        "retry_rejected": (1, "yes", None),
        "retry_exhausted": (1, "yes", None),
        "partition": NO_CALLABLE,
    },
    "timeout": {
        "seconds": (*NO_POSITIVE_DURATION, None),
        "scope": ("both", None, 1),
        "first_item": NO_POSITIVE_DURATION,
        "idle": NO_POSITIVE_DURATION,
        "thread": (1, None, "yes"),
    },
    "circuit_breaker": {
        "failure_rate": (0, *NO_FRACTION),
        "window": (0, -1, 1.5, NAN, True, "60", timedelta(0), timedelta(seconds=-1)),
        "minimum_calls": NO_COUNT,
        "open_for": NO_POSITIVE_DURATION,
        "on": NO_ERRORS,
        "slow_call": NO_POSITIVE_DURATION,
        "slow_call_rate": (0, *NO_FRACTION),
        "consecutive_failures": NO_COUNT,
        "open_factor": (0.5, -1, NAN, INF, True, "2"),
        "max_open_for": NO_POSITIVE_DURATION,
        "half_open_calls": NO_COUNT,
        "partition": NO_CALLABLE,
    },
    "bulkhead": {
        "max_concurrent": (*NO_COUNT, None),
        "max_queue": (-1, 1.5, True, NAN),
        "max_wait": NO_DURATION,
        "partition": NO_CALLABLE,
    },
    "adaptive_concurrency": {
        "initial": NO_COUNT,
        "min_limit": NO_COUNT,
        "max_limit": NO_COUNT,
        "algorithm": ("gradient2", None, 1),
        "max_queue": (-1, 1.5, True),
        "max_wait": NO_DURATION,
    },
    "hedge": {
        "max_extra_load": (0, *NO_FRACTION),
        "delay": NO_DURATION,
        "max_hedges": NO_COUNT,
        "budget": ("default", 3, True),
        "partition": NO_CALLABLE,
    },
    "chaos": {
        "rate": NO_FRACTION,
        "latency": NO_DURATION,
        "enabled": (1, "yes"),
        "seed": ("x", 1.5),
    },
    "rate_limit": {
        "rate": ("fast", "0/s", "-1/s", "10/fortnight", "nan/s", 3, None, "10/s burst 0"),
        "max_wait": NO_DURATION,
        "partition": NO_CALLABLE,
    },
    "memory_guard": {
        "threshold": (0, *NO_FRACTION),
        "estimate": (-1, NAN, True, "guess", None),
        "on_pressure": ("kill", None, 1),
        "max_wait": NO_DURATION,
        "resume": (*NO_FRACTION, 0.99),
        "initial_estimate": (-1, NAN, True, "1"),
        "limit": (0, -1, NAN, True, "1"),
        "min_free": (-1, NAN, True, "1"),
        "reclaim": ("some", 2, None),
        "device": (3,),
        "share": ("all", None, 1),
    },
    "fallback": {"on": NO_ERRORS},
    "cache_result": {
        "ttl": (*NO_POSITIVE_DURATION, None),
        "max_entries": NO_COUNT,
        "key": NO_CALLABLE,
        "stale_while_revalidate": NO_DURATION,
        "stale_if_error": NO_DURATION,
        "max_bytes": NO_COUNT,
        "negative_ttl": (*NO_DURATION,),
        "cache_if": NO_CALLABLE,
        "refresh_at": (0, *NO_FRACTION),
        "isolation": ("some", None, 1),
        "on_abandon": ("wait", None, 1),
        "store": ("redis://", 3),
    },
    "cache_items": {
        "over": ("", 3, None),
        "max_batch": NO_COUNT,
        "max_entries": NO_COUNT,
    },
    "monitor": {
        "record": (3, "text"),
        "slow": NO_DURATION,
        "inputs": ("all", 3),
        "output": ("all", 3),
        "sample": NO_FRACTION,
        "drift": (3, "first:2000"),
        "logger": (3,),
    },
}

for _kind in MAKE:
    TABLE.setdefault(_kind, {}).update({"mode": NO_MODE, "on_event": NO_CALLABLE, "name": ("", 3)})

ROWS = [
    (kind, option, value) for kind, options in TABLE.items() for option, values in options.items() for value in values
]


@pytest.mark.parametrize(("kind", "option", "value"), ROWS, ids=[f"{k}-{o}-{v!r}" for k, o, v in ROWS])
def test_a_bad_option_is_refused_by_name(kind, option, value):
    with pytest.raises((ValueError, TypeError), match=option):
        MAKE[kind](**{option: value})


@pytest.mark.parametrize("kind", MAKE)
def test_an_unknown_option_is_refused(kind):
    if kind == "validate_input":
        pytest.skip("its keywords are the parameters of the function, checked when that is known")
    with pytest.raises(TypeError, match="colour"):
        MAKE[kind](colour="red")


@pytest.mark.parametrize("kind", MAKE)
def test_what_is_made_has_the_name_and_the_options_that_were_given(kind):
    strategy = MAKE[kind](name="mine", mode="observe")
    # The name of a monitor is that of the monitored call: it names the pipeline.
    name = "monitor" if kind == "monitor" else "mine"
    assert (strategy.name, strategy.options.name) == (name, "mine")
    assert (strategy.options.mode, strategy.kind) == ("observe", kind)


@pytest.mark.parametrize(
    ("kind", "option", "value"),
    [
        ("bulkhead", "max_concurrent", 2),
        ("rate_limit", "rates", ("5/s",)),
        ("circuit_breaker", "open_for", 1.0),
        ("timeout", "scope", "attempt"),
    ],
)
def test_what_all_calls_share_cannot_be_overridden_for_a_block(kind, option, value):
    with (
        pytest.raises(TypeError, match=f"{option} is the same for all calls"),
        MAKE[kind]().override(**{option: value}),
    ):
        """Refused."""

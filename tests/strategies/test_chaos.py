"""Faults on purpose: off unless enabled, at the rate and in the order that the seed says, in every colour."""

from __future__ import annotations

import asyncio
import pickle
import random
import time
from datetime import timedelta

import pytest

import asyncguard as ag
from asyncguard import events, testing
from asyncguard._runtime import clock as clocks
from asyncguard.strategies.chaos import NOTE, UNTOUCHED, chaos


def guarded(strategy):
    @strategy
    async def fn(x=1):
        await clocks.library_sleep(0)
        return x

    return fn


def guarded_sync(strategy):
    @strategy
    def fn(x=1):
        return x

    return fn


async def outcomes(fn, n):
    return [await outcome(fn) for _ in range(n)]


async def outcome(fn):
    try:
        return await fn()
    except Exception as error:  # noqa: BLE001 - looked at by the caller
        return type(error).__name__


# --- off unless enabled -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("enabled", [None, False, lambda: False])
def test_nothing_happens_unless_it_is_enabled(enabled, backend, monkeypatch):
    monkeypatch.delenv("ASYNCGUARD_CHAOS", raising=False)
    fault = chaos(1.0, error=OSError, enabled=enabled)
    assert testing.run(lambda: outcomes(guarded(fault), 3), backend=backend) == [1, 1, 1]
    assert asyncio.run(outcomes(guarded(fault), 3)) == [1, 1, 1]
    assert guarded_sync(fault)() == 1


@pytest.mark.parametrize(("value", "happens"), [("1", True), ("0", False), ("", False)])
def test_the_environment_enables_what_does_not_say_for_itself(value, happens, monkeypatch):
    monkeypatch.setenv("ASYNCGUARD_CHAOS", value)
    assert asyncio.run(outcome(guarded(chaos(1.0, error=OSError)))) == ("OSError" if happens else 1)
    assert asyncio.run(outcome(guarded(chaos(1.0, error=OSError, enabled=False)))) == 1


def test_a_flag_is_asked_at_each_call():
    flag = [False]
    fn = guarded_sync(chaos(1.0, error=OSError, enabled=lambda: flag[0]))
    assert fn() == 1
    flag[0] = True
    with pytest.raises(OSError, match="injected by chaos"):
        fn()


def test_a_flag_that_cannot_be_read_enables_nothing(caplog):
    fn = guarded_sync(chaos(1.0, error=OSError, enabled=lambda: 1 / 0))
    assert [fn(), fn()] == [1, 1]
    assert len(caplog.records) == 1


def test_it_can_be_switched_on_while_it_runs_and_for_a_block():
    fault = chaos(1.0, error=OSError, enabled=False)
    fn = guarded_sync(fault)
    with fault.override(enabled=True), pytest.raises(OSError, match="injected"):
        fn()
    assert fn() == 1
    fault.configure(enabled=True)
    with pytest.raises(OSError, match="injected"):
        fn()
    fault.configure(mode="off")
    assert fn() == 1


def test_observe_reports_what_it_would_have_done():
    fn = guarded_sync(chaos(1.0, error=OSError, enabled=True, mode="observe"))
    with testing.record_events() as seen:
        assert fn() == 1
    assert [(event.fault, event.observed) for event in seen.of(events.ChaosInjected)] == [("error", True)]


# --- the faults -------------------------------------------------------------------------------------------------------


def test_latency_is_instant_on_a_virtual_clock(backend):
    fn = guarded(chaos(1.0, latency=timedelta(hours=1), enabled=True))

    async def main():
        start = clocks.current().now()
        assert await fn(7) == 7
        return clocks.current().now() - start

    began = time.monotonic()
    assert testing.run(main, backend=backend) == pytest.approx(3600)
    with testing.virtual_clock() as clock:
        before = clock.now()
        assert guarded_sync(chaos(1.0, latency=3600, enabled=True))(8) == 8
        assert clock.now() - before == 3600
    assert time.monotonic() - began < 600  # two virtual hours


def test_latency_may_be_a_range():
    fn = guarded_sync(chaos(1.0, latency=(timedelta(seconds=1), 3), enabled=True, seed=4))
    waits = []
    with testing.virtual_clock() as clock:
        for _ in range(200):
            before = clock.now()
            fn()
            waits.append(clock.now() - before)
    assert 1 <= min(waits) < 1.2
    assert 2.8 < max(waits) <= 3


def test_latency_runs_out_of_the_timeout_around_it():
    fn = guarded(ag.guard(ag.timeout(2, scope="attempt"), chaos(1.0, latency=60, enabled=True)))

    async def main():
        with pytest.raises(ag.CallTimeoutError):
            await fn()

    testing.run(main)


@pytest.mark.parametrize(
    "error", [ConnectionError, ConnectionError("injected by chaos"), lambda: ConnectionError("injected by chaos")]
)
def test_an_error_may_be_a_class_an_instance_or_made(error, backend):
    fault = chaos(1.0, error=error, enabled=True)
    fn, plain = guarded(fault), guarded_sync(fault)

    async def main():
        for _ in range(3):
            with pytest.raises(ConnectionError, match="injected by chaos") as caught:
                await fn()
            assert caught.value.__notes__ == [NOTE]
        return len(caught.traceback)

    depth = testing.run(main, backend=backend)
    assert depth < 12, "the traceback grows with each time"
    with pytest.raises(ConnectionError):
        plain()


def test_what_is_made_in_place_of_an_error_is_refused():
    with pytest.raises(TypeError, match="what error= makes must be an Exception"):
        guarded_sync(chaos(1.0, error=lambda: "no error", enabled=True))()


def test_a_result_stands_in_for_the_call_or_changes_what_it_returned(backend):
    calls = []

    async def embed(text):
        calls.append(text)
        return [1.0, 2.0, 3.0]

    async def main():
        assert await chaos(1.0, result=None, enabled=True)(embed)("a") is None
        assert calls == []
        assert await chaos(1.0, result=lambda real: real[:1], enabled=True)(embed)("b") == [1.0]
        assert calls == ["b"]

    testing.run(main, backend=backend)
    assert guarded_sync(chaos(1.0, result=[], enabled=True))() == []
    assert guarded_sync(chaos(1.0, result=lambda real: -real, enabled=True))(5) == -5


def test_cancellation_comes_from_outside_of_the_call():
    fn = guarded(ag.guard(ag.retry(), ag.fallback(0), chaos(1.0, cancel=True, enabled=True)))

    async def main():
        task = asyncio.create_task(fn())
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()
        assert task.cancelling() == 1

    testing.run(main)


def test_cancellation_is_refused_where_no_task_can_be_cancelled():
    fault = chaos(1.0, cancel=True, enabled=True)
    with pytest.raises(TypeError, match="cancel=True needs a task"):
        guarded_sync(fault)

    async def main():
        with pytest.raises(TypeError, match="cancel a scope"):
            await guarded(fault)()

    testing.run(main, backend="trio")


# --- rate, seed and order ---------------------------------------------------------------------------------------------


def test_the_seed_says_which_calls_get_which_fault():
    def made():
        return chaos(0.3, error=OSError, result="fake", enabled=True, seed=11)

    first, again = (asyncio.run(outcomes(guarded(made()), 200)) for _ in range(2))
    assert first == again
    rng = random.Random(11)
    drawn = [rng.random() for _ in range(200)]
    assert first == ["OSError" if x < 0.15 else "fake" if x < 0.3 else 1 for x in drawn]


def test_each_virtual_clock_has_the_sequence_from_its_start():
    fn = guarded(chaos(0.5, error=OSError, enabled=True, seed=3))
    runs = [testing.run(lambda: outcomes(fn, 30)) for _ in range(2)]
    assert runs[0] == runs[1]
    assert set(runs[0]) == {1, "OSError"}


def test_without_a_seed_the_virtual_clock_has_one():
    fn = guarded(chaos(0.5, error=OSError, enabled=True))
    runs = [testing.run(lambda: outcomes(fn, 30), seed=seed) for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]


def test_the_last_of_the_faults_is_within_reach_of_the_last_number():
    fault = chaos(0.3, latency=0, error=OSError, result=0, enabled=True)
    fault.core = lambda: 0.29999999999999993
    assert guarded_sync(fault)() == 0


def test_a_rate_of_zero_injects_nothing():
    assert asyncio.run(outcomes(guarded(chaos(0.0, error=OSError, enabled=True)), 50)) == [1] * 50


def test_each_fault_is_reported():
    fault = chaos(1.0, result=0, enabled=True, name="monkey")
    fn = guarded_sync(ag.guard(fault, name="embedder"))
    with testing.record_events() as seen:
        fn()
    (event,) = seen
    assert (type(event), event.pipeline, event.strategy, event.fault) == (
        events.ChaosInjected,
        "embedder",
        "monkey",
        "result",
    )
    assert fault.describe() == ["ENABLED: result in 100.00% of the calls"]
    assert chaos(0.5, result=0, enabled=False).describe() == ["disabled"]


def test_guard_puts_it_next_to_the_function():
    pipeline = ag.guard(
        chaos(1.0, error=ConnectionError, enabled=True), ag.fallback("degraded"), ag.retry(max_retries=2)
    )
    assert [each.kind for each in pipeline] == ["fallback", "retry", "chaos"]
    fn = guarded(pipeline)
    with testing.record_events() as seen:
        assert testing.run(fn) == "degraded"
    assert len(seen.of(events.ChaosInjected)) == 3


# --- generators -------------------------------------------------------------------------------------------------------


def test_generators_get_their_fault_before_the_first_item(backend):
    slow, broken = chaos(1.0, latency=60, enabled=True), chaos(1.0, error=OSError, enabled=True)

    async def letters():
        for letter in "ab":
            yield letter

    def letters_sync():
        yield from "ab"

    async def main():
        start = clocks.current().now()
        assert [letter async for letter in slow(letters)()] == ["a", "b"]
        assert clocks.current().now() - start == pytest.approx(60)
        with pytest.raises(OSError, match="injected"):
            await anext(broken(letters)())

    testing.run(main, backend=backend)
    with testing.virtual_clock():
        assert list(slow(letters_sync)()) == ["a", "b"]
    with pytest.raises(OSError, match="injected"):
        next(broken(letters_sync)())


def test_an_iteration_is_not_replaced_and_a_plain_one_not_cancelled():
    async def letters():
        yield "a"

    def letters_sync():
        yield "a"

    for fn in (letters, letters_sync):
        with pytest.raises(TypeError, match="result= stands in for one result"):
            chaos(1.0, result=1, enabled=True)(fn)
    with pytest.raises(TypeError, match="cancel=True"):
        chaos(1.0, cancel=True, enabled=True)(letters_sync)


# --- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({}, "at least one of latency="),
        ({"rate": 1.5, "cancel": True}, "rate must be a number at least 0 and at most 1, got 1.5"),
        ({"rate": True, "cancel": True}, "rate must be"),
        ({"latency": -1}, "latency must be a duration"),
        ({"latency": (3, 1)}, "latency must be a duration in seconds or a timedelta at least 3, got 1"),
        ({"latency": (1, 2, 3)}, "a pair"),
        ({"error": KeyboardInterrupt}, "only subclasses of Exception"),
        ({"error": KeyboardInterrupt()}, "error must be an Exception"),
        ({"error": UnicodeDecodeError}, "takes a message"),
        ({"error": "OSError"}, "error must be an Exception"),
        ({"cancel": 1}, "cancel must be True or False"),
        ({"result": 1, "enabled": "yes"}, "enabled must be a callable"),
        ({"result": 1, "seed": 1.5}, "seed must be an integer"),
    ],
)
def test_bad_options_are_refused(options, match):
    with pytest.raises((TypeError, ValueError), match=match):
        chaos(**{"rate": 0.5, **options})


def test_it_pickles_as_its_options():
    again = pickle.loads(pickle.dumps(chaos(0.5, error=OSError, name="monkey", enabled=True)))
    assert (again.name, again.options.rate) == ("monkey", 0.5)
    assert again.options.result is UNTOUCHED
    assert repr(UNTOUCHED) == "UNTOUCHED"

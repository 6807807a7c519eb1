"""Virtual time: instant, ordered, and of no effect outside."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

import asyncguard as ag
from asyncguard import events, testing
from asyncguard._runtime import clock as clocks


def test_sleeps_are_instant_and_in_order():
    async def main():
        loop, order = asyncio.get_running_loop(), []

        async def after(seconds):
            await asyncio.sleep(seconds)
            order.append((seconds, round(loop.time() - start, 6)))

        start = loop.time()
        await asyncio.gather(after(3600), after(60), after(1e-9), after(0.1))
        return order

    began = time.monotonic()
    assert testing.run(main) == [(1e-9, 0.0), (0.1, 0.1), (60, 60.0), (3600, 3600.0)]
    assert time.monotonic() - began < 600  # a virtual hour


def test_the_clock_agrees_with_the_library(backend):
    async def main():
        start = clocks.current().now()
        await clocks.current().sleep(5)
        await clocks.library_sleep(5)
        assert clocks.current().now() - start == pytest.approx(10)

    testing.run(main, backend=backend)
    assert clocks.current() is clocks.REAL
    assert not clocks.virtual_active()


@pytest.mark.parametrize("years", [0.5, 1, 5, 30])
def test_no_timer_is_missed_after_years_on_the_clock(years):
    async def main():
        loop = asyncio.get_running_loop()
        start = loop.time()
        for seconds in (years * 31_557_600 / 3, 0.1, 1 / 3, 1e-6):
            await asyncio.sleep(seconds)
        return loop.time() - start

    assert testing.run(main) == pytest.approx(years * 31_557_600 / 3 + 0.1 + 1 / 3, abs=1e-3)


def test_threads_go_on_while_no_timer_is_set():
    async def main():
        return await asyncio.to_thread(lambda: "from a thread")

    assert testing.run(main) == "from a thread"


def test_the_end_of_a_run_waits_for_threads_without_a_timer():
    """Since 3.12 asyncio gives them 300 seconds, which a virtual clock would jump over."""
    asked = []

    async def main():
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, int)
        loop.call_at = lambda *args, **_: asked.append(args)

    testing.run(main)
    assert not asked


def test_the_result_and_the_error_of_main_come_out(backend):
    async def value():
        return 5

    async def error():
        raise LookupError("mine")

    assert testing.run(value, backend=backend) == 5
    with pytest.raises(LookupError, match="mine"):
        testing.run(error, backend=backend)
    assert not clocks.virtual_active()


def test_in_a_loop_of_someone_else_our_sleeps_are_instant():
    @ag.bulkhead(1)
    async def fn():
        await clocks.current().sleep(3600)
        return clocks.current().now()

    async def main():
        with testing.virtual_clock() as clock:
            before = clock.now()
            assert await fn() - before == 3600

    asyncio.run(main())


def test_jitter_is_seeded():
    def draw(seed):
        with testing.virtual_clock(seed=seed) as clock:
            return [clock.random() for _ in range(3)]

    assert draw(1) == draw(1) != draw(2)


def test_two_virtual_clocks_at_once_do_not_disturb_each_other():
    times = {}

    def work(name, seconds):
        with testing.virtual_clock() as clock:
            start = clock.now()
            clock.sleep_sync(seconds)
            times[name] = clock.now() - start

    threads = [threading.Thread(target=work, args=(str(i), i)) for i in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert times == {str(i): i for i in range(5)}


def test_recorded_events_are_found_by_class():
    limit = ag.bulkhead(1, max_queue=0)
    with testing.record_events() as seen, limit.permit(), pytest.raises(ag.BulkheadFullError), limit.permit():
        """Refused."""
    assert len(seen.of(events.CallRejected)) == 1
    assert seen.of(events.CallQueued) == []


def test_recorded_events_are_found_by_their_facts():
    limit = ag.bulkhead(1, max_queue=0, name="slots")
    with testing.record_events() as seen, limit.permit(), pytest.raises(ag.BulkheadFullError), limit.permit():
        """Refused."""
    assert len(seen.of(events.CallRejected, strategy="slots", reason="full")) == 1
    assert seen.of(events.CallRejected, strategy="other") == []
    assert seen.of(events.CallRejected, colour="red") == []


@ag.retry(on=OSError, max_retries=2)
async def broken():
    raise OSError("down")


async def give_up():
    with pytest.raises(OSError, match="down"):
        await broken()


def test_attempts_are_asserted(backend):
    with testing.record_events() as seen:
        testing.run(give_up, backend=backend)
    seen.assert_attempts(3)
    with pytest.raises(AssertionError, match=r"(?s)expected 2 attempts, got 3; what happened:\n  RetryScheduled\("):
        seen.assert_attempts(2)


def test_a_call_without_a_retry_is_one_attempt():
    with testing.record_events() as seen:
        ag.retry()(lambda: 1)()
    seen.assert_attempts(1)
    with pytest.raises(AssertionError, match="expected 2 attempts, got 1; nothing happened"):
        seen.assert_attempts(2)


def test_what_happened_is_asserted_with_its_facts_and_times():
    with testing.record_events() as seen:
        testing.run(give_up)
    seen.assert_happened(events.RetryScheduled)
    seen.assert_happened(events.RetryScheduled, times=2)
    seen.assert_happened(events.RetryScheduled, times=1, attempt=1)
    seen.assert_happened(events.CircuitOpened, times=0)
    with pytest.raises(AssertionError, match=r"expected at least 1 RetryScheduled\(attempt=9\), got 0"):
        seen.assert_happened(events.RetryScheduled, attempt=9)
    with pytest.raises(AssertionError, match=r"expected 0 RetryScheduled\(\), got 2"):
        seen.assert_happened(events.RetryScheduled, times=0)


def test_an_opened_circuit_is_asserted():
    breaker = ag.circuit_breaker(consecutive_failures=1, name="search")
    with testing.record_events() as seen:
        seen.assert_opened(0)
        with pytest.raises(AssertionError, match="nothing happened"):
            seen.assert_opened()
        with pytest.raises(ConnectionError):
            breaker(_refused)()
    seen.assert_opened()
    seen.assert_opened(1, strategy="search")


def _refused():
    raise ConnectionError


def test_a_circuit_is_forced_open_for_a_block():
    breaker = ag.circuit_breaker()
    fn = breaker(lambda: 1)
    with testing.forced_open(breaker), pytest.raises(ag.CircuitOpenError):
        fn()
    assert fn() == 1
    with pytest.raises(LookupError), testing.forced_open(breaker):
        raise LookupError
    assert fn() == 1


def test_a_run_may_go_on_with_a_clock():
    breaker = ag.circuit_breaker(consecutive_failures=1, open_for=30)

    async def main():
        await asyncio.sleep(29)
        with pytest.raises(ag.CircuitOpenError):
            breaker(lambda: 1)()
        await asyncio.sleep(2)
        return breaker(lambda: 1)()

    with testing.virtual_clock() as clock:
        with pytest.raises(ConnectionError):
            breaker(_refused)()
        start = clock.now()
        assert testing.run(main, clock=clock) == 1
        assert clock.now() - start == pytest.approx(31)
        with pytest.raises(TypeError, match="clock= is for asyncio"):
            testing.run(main, backend="trio", clock=clock)


@pytest.mark.parametrize("backend", ["Trio", "anyio", None])
def test_a_backend_that_is_none_is_refused(backend):
    async def main():
        raise AssertionError("it ran on asyncio")

    with pytest.raises(ValueError, match="backend must be one of 'asyncio', 'trio', got"):
        testing.run(main, backend=backend)


def test_inside_of_a_loop_it_says_what_to_do_and_leaves_nothing_behind():
    async def main():
        return 1

    async def around():
        with pytest.raises(RuntimeError, match=r"a loop runs here already.*virtual_clock"):
            testing.run(main)
        with testing.virtual_clock():
            return await main()

    assert asyncio.run(around()) == 1
    assert not clocks.virtual_active()


def test_a_run_inside_of_a_run_in_another_thread_has_a_time_and_a_state_of_its_own():
    breaker = ag.circuit_breaker(window=2, minimum_calls=2)

    @breaker
    def call():
        raise ConnectionError("down")

    async def inner():
        for _ in range(2):
            with pytest.raises(ConnectionError):
                call()
        await asyncio.sleep(1)
        return str(breaker.state)

    async def outer():
        start = asyncio.get_running_loop().time()
        inside = await asyncio.to_thread(testing.run, inner)
        return inside, str(breaker.state), asyncio.get_running_loop().time() - start

    assert testing.run(outer) == ("open", "closed", 0.0)

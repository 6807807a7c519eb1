"""`retry` and time that runs out, targets that ask for a pause, and budgets that are empty."""

from __future__ import annotations

import asyncio
import logging
import threading
from contextvars import ContextVar
from email.utils import formatdate

import anyio
import pytest

from asyncguard import (
    CallTimeoutError,
    CircuitOpenError,
    DeadlineExceededError,
    RateLimitedError,
    RetryBudget,
    deadline,
    events,
    failing_status,
    guard,
    retry,
    testing,
    timeout,
)
from asyncguard._runtime import clock


def now():
    return clock.current().now()


class Throttled(Exception):  # noqa: N818 - the answer of a service
    status = 429

    def __init__(self, retry_after):
        super().__init__("slow down")
        self.headers = {} if retry_after is None else {"Retry-After": str(retry_after)}


class Service:
    """Answers with the outcomes it was given, one after the other, then with "ok"; remembers when it was asked."""

    def __init__(self, *outcomes):
        self.outcomes = list(outcomes)
        self.times = []

    async def call(self, *_args):
        return self.sync()

    def sync(self, *_args):
        self.times.append(now())
        outcome = self.outcomes.pop(0) if self.outcomes else "ok"
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    @property
    def pauses(self):
        return [later - earlier for earlier, later in zip(self.times, self.times[1:], strict=False)]


def note(error):
    [line] = error.__notes__
    return line


# --- deadlines --------------------------------------------------------------------------------------------------------


def test_it_gives_up_rather_than_sleep_past_the_deadline(backend):
    service = Service(*[ConnectionError()] * 9)

    async def main():
        start = now()
        with deadline(2.5), pytest.raises(ConnectionError) as raised:
            await retry(initial_delay=1, jitter="none")(service.call)()
        return now() - start, note(raised.value)

    took, line = testing.run(main, backend=backend)
    assert service.pauses == pytest.approx([1.0])
    assert took == pytest.approx(1.0), "it does not sleep until the deadline to find out"
    detail = "the next attempt would start in 2 s, 1.5 s are left"
    assert line == f"asyncguard.retry: 2 attempts in 1.00 s, gave up: deadline ({detail})"


def test_without_a_maximum_it_goes_on_until_the_deadline(backend):
    service = Service(*[ConnectionError()] * 10_000)

    async def main():
        with deadline(60), pytest.raises(ConnectionError):
            await retry(max_retries=None, initial_delay=1, max_delay=1, jitter="none", budget=None)(service.call)()

    testing.run(main, backend=backend)
    assert len(service.times) == 60


def test_the_deadline_of_the_task_itself_ends_the_attempt_and_the_retrying(backend):
    calls = []

    @guard(retry(initial_delay=0.1, jitter="none"), timeout(10, scope="attempt"))
    async def call():
        calls.append(1)
        await anyio.sleep(100)

    async def main():
        start = now()
        with pytest.raises(CallTimeoutError), deadline(15):
            await call()
        return now() - start

    assert testing.run(main, backend=backend) == pytest.approx(15.0)
    assert len(calls) == 2, "the first ran out of its own ten seconds, the second of the five that were left"


def test_a_timeout_whose_deadline_came_from_outside_is_not_retried():
    calls = []

    @guard(retry(initial_delay=0.1, jitter="none"), timeout(10, scope="attempt"))
    def call():
        calls.append(1)
        clock.current().sleep_sync(12)

    with testing.virtual_clock(), pytest.raises(CallTimeoutError, match="the block"), deadline(15):
        with pytest.raises(CallTimeoutError) as raised:
            call()
        assert "2 attempts in 24.10 s, gave up: deadline" in note(raised.value)
    assert len(calls) == 2


def test_a_timeout_of_its_own_is_retried(backend):
    calls = []

    @guard(retry(max_retries=2, initial_delay=0.1, jitter="none"), timeout(10, scope="attempt"))
    async def call():
        calls.append(1)
        await anyio.sleep(100 if len(calls) < 3 else 1)
        return "ok"

    assert testing.run(call, backend=backend) == "ok"


def test_the_deadline_binds_sync_code_too():
    service = Service(*[ConnectionError()] * 9)
    with testing.virtual_clock(), deadline(2.5), pytest.raises(ConnectionError):
        retry(initial_delay=1, jitter="none")(service.sync)()
    assert len(service.times) == 2


def test_a_sleep_that_takes_too_long_starts_no_attempt():
    """The machine was suspended, or the loop was blocked."""
    service = Service(*[ConnectionError("first")] * 9)

    with testing.virtual_clock() as virtual:
        virtual.sleep_sync = lambda seconds: virtual.advance(seconds + 3_600)
        with (
            pytest.raises(CallTimeoutError, match="the block"),
            deadline(100),
            pytest.raises(ConnectionError, match="first") as raised,
        ):
            retry(initial_delay=1, jitter="none")(service.sync)()
    assert len(service.times) == 1
    assert "1 attempt in 3601.00 s, gave up: deadline" in note(raised.value)


def test_a_sleep_that_takes_too_long_after_an_unwanted_result_is_a_deadline_that_is_over():
    service = Service(None, None)

    with testing.virtual_clock() as virtual:
        virtual.sleep_sync = lambda seconds: virtual.advance(seconds + 3_600)
        with (
            pytest.raises(CallTimeoutError, match="the block"),
            deadline(100),
            pytest.raises(DeadlineExceededError, match="the deadline was over before attempt 2"),
        ):
            retry(on_result=lambda result: result is None)(service.sync)()
    assert len(service.times) == 1


# --- Retry-After ------------------------------------------------------------------------------------------------------


def test_never_earlier_than_the_service_asked(backend):
    service = Service(Throttled(30))
    assert testing.run(retry(max_delay=5)(service.call), backend=backend) == "ok"
    assert 30.0 <= service.pauses[0] <= 33.0


def test_an_http_date_is_obeyed():
    import time

    when, before = int(time.time()) + 40, time.time()
    service = Service(Throttled(formatdate(when, usegmt=True)))
    testing.run(retry(jitter="none")(service.call))
    assert when - time.time() <= service.pauses[0] <= when - before + 0.001


def test_longer_than_allowed_gives_up_at_once_and_says_so(backend):
    service = Service(Throttled(300))
    with pytest.raises(Throttled) as raised:
        testing.run(retry(service.call), backend=backend)
    assert len(service.times) == 1
    assert note(raised.value) == (
        "asyncguard.retry: 1 attempt in 0.00 s, gave up: retry_after (asked for 300 s, max_retry_after is 60 s)"
    )


def test_longer_than_the_deadline_gives_up_at_once():
    service = Service(Throttled(30))

    async def main():
        with deadline(10), pytest.raises(Throttled) as raised:
            await retry(service.call)()
        return note(raised.value)

    assert "gave up: deadline" in testing.run(main)


def test_who_is_throttled_without_being_told_for_how_long_starts_at_a_second():
    service = Service(Throttled(None), Throttled(None))
    testing.run(retry(jitter="none")(service.call))
    assert service.pauses == pytest.approx([1.0, 2.0])


# --- parking ----------------------------------------------------------------------------------------------------------


def test_one_429_pauses_all_callers_of_the_same_object(backend):
    strategy = retry()
    busy, other = Service(Throttled(20)), Service()

    async def main():
        start = now()
        async with anyio.create_task_group() as group:
            group.start_soon(strategy(busy.call))
            await anyio.sleep(1)
            for _ in range(10):
                group.start_soon(strategy(other.call))
        return start

    with testing.record_events() as heard:
        start = testing.run(main, backend=backend)
    assert len(other.times) == 10
    assert all(20.0 <= time - start <= 22.0 for time in other.times)
    assert len({round(time, 6) for time in other.times}) > 5, "they do not all come back in the same moment"
    assert [event.delay for event in heard.of(events.TargetParked)] == [20.0]


def test_other_objects_are_not_paused():
    busy, other = Service(Throttled(20)), Service()

    async def main():
        start = now()
        task = asyncio.ensure_future(retry(busy.call)())
        await asyncio.sleep(1)
        await retry(other.call)()
        assert now() - start == pytest.approx(1.0)
        await task

    testing.run(main)


def test_other_partitions_are_not_paused(backend):
    strategy = retry(partition=lambda host: host, jitter="none")
    services = {"a": Service(Throttled(20)), "b": Service()}

    @strategy
    async def fetch(host):
        return await services[host].call()

    async def main():
        async with anyio.create_task_group() as group:
            group.start_soon(fetch, "a")
            await anyio.sleep(1)
            group.start_soon(fetch, "a")
            start = now()
            await fetch("b")
            return now() - start

    assert testing.run(main, backend=backend) == 0.0
    assert len(services["a"].times) == 3
    assert services["a"].times[2] - services["a"].times[0] >= 20.0


def test_a_partition_can_be_a_context_variable():
    tenant = ContextVar("tenant")
    strategy = retry(partition=tenant, jitter="none")
    service = Service(Throttled(20))

    async def main():
        tenant.set("a")
        with pytest.raises(Throttled), deadline(1):
            await strategy(service.call)()
        start = now()
        tenant.set("b")
        await strategy(service.call)()
        assert now() == start
        tenant.set("a")
        await strategy(service.call)()
        return now() - start

    assert testing.run(main) >= 20.0


def test_a_partition_given_to_the_pipeline_is_the_partition():
    service = Service(Throttled(20))

    @guard(retry(jitter="none"), partition=lambda host: host)
    def fetch(host):
        return service.sync() if host == "a" else "b"

    with testing.virtual_clock(), testing.record_events() as heard:
        assert fetch("a") == "ok"
        assert fetch("b") == "b"
    assert {event.partition for event in heard} == {"a"}


def test_a_partition_given_to_the_pipeline_is_the_partition_of_async_code_too(backend):
    service = Service(Throttled(20))

    @guard(retry(jitter="none"), partition=lambda host: host)
    async def fetch(host):
        return await service.call()

    with testing.record_events() as heard:
        assert testing.run(lambda: fetch("a"), backend=backend) == "ok"
    assert {event.partition for event in heard} == {"a"}


def test_a_parked_wait_longer_than_the_deadline_is_refused_at_once(backend):
    strategy = retry(name="client")
    other = Service()
    guarded = strategy(other.call)

    async def main():
        with pytest.raises(Throttled), deadline(1):
            await strategy(Service(Throttled(20)).call)()
        with deadline(5), pytest.raises(RateLimitedError) as raised:
            await guarded()
        return raised.value

    with testing.record_events() as heard:
        error = testing.run(main, backend=backend)
    assert other.times == []
    assert error.retry_after == pytest.approx(20.0)
    assert error.strategy == "client"
    assert "20 s of it are left and the deadline leaves 5 s" in str(error)
    assert [event.reason for event in heard.of(events.CallRejected)] == ["parked"]


def test_a_pause_longer_than_anybody_waits_refuses_the_others_instead_of_keeping_them():
    strategy = retry(name="client")
    other = Service()

    async def main():
        with pytest.raises(Throttled):
            await strategy(Service(Throttled(86_400)).call)()
        start = now()
        with pytest.raises(RateLimitedError, match="it asked for more than max_retry_after") as raised:
            await strategy(other.call)()
        assert now() == start
        await asyncio.sleep(raised.value.retry_after)
        return await strategy(other.call)()

    assert testing.run(main) == "ok", "after max_retry_after somebody asks again"


def test_a_parked_caller_that_had_a_real_error_leaves_with_it():
    strategy = retry(initial_delay=1, jitter="none")
    service = Service(ConnectionError("real"))

    async def main():
        async def first():
            with deadline(5):
                await strategy(service.call)()

        task = asyncio.ensure_future(first())
        await asyncio.sleep(0.5)
        with pytest.raises(Throttled), deadline(1):
            await strategy(Service(Throttled(30)).call)()
        with pytest.raises(ConnectionError, match="real") as raised:
            await task
        return note(raised.value)

    assert testing.run(main) == "asyncguard.retry: 1 attempt in 1.00 s, gave up: parked"
    assert len(service.times) == 1


def test_cancelling_a_parked_caller_leaves_the_others_waiting():
    strategy = retry(jitter="none")
    other = Service()

    async def main():
        first = asyncio.ensure_future(strategy(Service(Throttled(20)).call)())
        await asyncio.sleep(1)
        tasks = [asyncio.ensure_future(strategy(other.call)()) for _ in range(3)]
        await asyncio.sleep(1)
        tasks[1].cancel()
        await asyncio.wait([first, *tasks])

    testing.run(main)
    assert len(other.times) == 2


def test_on_real_time_the_happy_path_sees_the_pause_and_forgets_it(monkeypatch):
    """Off the virtual clock a call looks only at one number: parking has to change it, and take it back."""
    slept, moment = [], [1_000.0]

    def sleep(seconds):
        slept.append(seconds)
        moment[0] += seconds

    monkeypatch.setattr(clock.RealClock, "now", staticmethod(lambda: moment[0]))
    monkeypatch.setattr(clock.RealClock, "sleep_sync", staticmethod(sleep))
    strategy = retry(jitter="none", name="real")
    assert strategy.special == 0
    assert strategy(Service(Throttled(20)).sync)() == "ok"
    assert slept == [20.0]
    strategy.park(strategy.core.single, moment[0], 7.0, 60.0)
    assert strategy.describe()[0] == "parked 7.0 s more"
    assert strategy(Service().sync)() == "ok"
    assert slept[1] == pytest.approx(7.0, abs=0.8)
    assert strategy.core.single.parked.until == 0.0


# --- budget -----------------------------------------------------------------------------------------------------------


def test_an_empty_budget_lets_the_error_leave_at_once_with_a_note(backend):
    service = Service(*[ConnectionError("mine")] * 9)
    with pytest.raises(ConnectionError, match="mine") as raised:
        testing.run(retry(budget=RetryBudget(0, 0))(service.call), backend=backend)
    assert len(service.times) == 1
    assert note(raised.value) == "asyncguard.retry: 1 attempt in 0.00 s, gave up: budget"


def test_a_budget_is_shared_by_all_who_are_given_it(backend):
    budget = RetryBudget(0, 0.3)  # three retries in ten seconds

    async def main():
        calls = []
        for _ in range(3):
            service = Service(*[ConnectionError()] * 9)
            with pytest.raises(ConnectionError):
                await retry(budget=budget, initial_delay=0, max_delay=0)(service.call)()
            calls.append(len(service.times))
        return calls

    assert testing.run(main, backend=backend) == [4, 1, 1]


def test_without_a_budget_given_every_object_has_its_own():
    async def main():
        for _ in range(30):
            service = Service(*[ConnectionError()] * 9)
            with pytest.raises(ConnectionError):
                await retry(initial_delay=0, max_delay=0)(service.call)()
            assert len(service.times) == 6

    testing.run(main)


def test_the_default_budget_ends_a_storm_of_retries():
    """A thousand calls fail five times each: a share of them is retried, not five thousand."""
    strategy = retry(initial_delay=0, max_delay=0)
    service = Service(*[ConnectionError()] * 100_000)
    guarded = strategy(service.call)

    async def main():
        for _ in range(1_000):
            with pytest.raises(ConnectionError):
                await guarded()

    testing.run(main)
    assert len(service.times) <= 1_000 + 200 + 100


def test_no_budget_is_no_limit():
    service = Service(*[ConnectionError()] * 5_000)

    async def main():
        for _ in range(100):
            with pytest.raises(ConnectionError):
                await retry(initial_delay=0, max_delay=0, budget=None, max_retries=49)(service.call)()

    testing.run(main)
    assert len(service.times) == 5_000


def test_waiting_out_a_429_spends_no_budget():
    service = Service(Throttled(1), Throttled(None), Throttled(1))
    assert testing.run(retry(budget=RetryBudget(0, 0))(service.call)) == "ok"


def test_each_partition_has_a_default_budget_of_its_own():
    strategy = retry(initial_delay=0, max_delay=0, max_retries=1, partition=lambda host: host)
    service = Service(*[ConnectionError()] * 10_000)
    guarded = strategy(service.call)

    async def spend(host):
        before = len(service.times)
        for _ in range(200):
            with pytest.raises(ConnectionError):
                await guarded(host)
        return len(service.times) - before

    async def main():
        return [await spend(host) for host in ("a", "b")]

    spent_on_a, spent_on_b = testing.run(main)
    assert spent_on_a == spent_on_b < 400


def test_calls_on_the_happy_path_earn_retries():
    """Off the virtual clock a call is counted without a lock, by the happy path itself."""
    strategy = retry(budget=RetryBudget(1.0, 0))
    guarded = strategy(lambda: 1)
    for _ in range(50):
        guarded()
    assert strategy.tally.left(clock.REAL.now()) == pytest.approx(50, abs=5)


def test_all_three_colours_of_call_earn_the_same():
    budget = RetryBudget(1.0, 0)
    strategy = retry(budget=budget)

    async def main():
        await strategy(Service().call)()
        strategy(Service().sync)()
        async for attempt in strategy.attempts():
            async with attempt:
                pass
        return budget.at(clock.current()).left(now())

    assert testing.run(main) == pytest.approx(3.0)


# --- rejections -------------------------------------------------------------------------------------------------------


def test_a_rejection_is_not_retried_and_leaves_as_it_is(backend):
    service = Service(CircuitOpenError("open", retry_after=3.0))
    with pytest.raises(CircuitOpenError) as raised:
        testing.run(retry(on=Exception)(service.call), backend=backend)
    assert len(service.times) == 1
    assert not hasattr(raised.value, "__notes__")


def test_a_rejection_is_retried_when_it_says_if_asked_for(backend):
    service = Service(CircuitOpenError("open", retry_after=30.0))
    assert testing.run(retry(retry_rejected=True)(service.call), backend=backend) == "ok"
    assert 30.0 <= service.pauses[0] <= 33.0


def test_a_rejection_after_real_errors_leaves_the_last_real_one(backend):
    service = Service(ConnectionError("first"), ConnectionError("second"), CircuitOpenError("open", retry_after=3.0))
    with testing.record_events() as heard, pytest.raises(ConnectionError, match="second") as raised:
        testing.run(retry(initial_delay=1, jitter="none")(service.call), backend=backend)
    assert note(raised.value) == "asyncguard.retry: 3 attempts in 3.00 s, gave up: rejected (CircuitOpenError)"
    assert raised.value.__context__ is None
    assert heard[-1].reason == "rejected"


def test_rejections_alone_leave_the_last_of_them():
    service = Service(*[CircuitOpenError(f"open {number}") for number in range(9)])
    with pytest.raises(CircuitOpenError, match="open 2"):
        testing.run(retry(retry_rejected=True, max_retries=2)(service.call))


def test_a_real_error_then_rejections_until_the_end_leave_the_real_one():
    service = Service(ConnectionError("real"), *[CircuitOpenError("open")] * 9)
    with pytest.raises(ConnectionError, match="real"):
        testing.run(retry(retry_rejected=True, max_retries=3)(service.call))
    assert len(service.times) == 4


# --- results ----------------------------------------------------------------------------------------------------------


class Response:
    def __init__(self, status_code, **headers):
        self.status_code = status_code
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        self.closed = 0

    def close(self):
        self.closed += 1

    async def aclose(self):
        self.closed += 1


class AiohttpResponse(Response):
    def release(self):
        self.closed += 1


def test_a_failing_response_is_retried_as_late_as_it_asks(backend):
    bad, good = Response(503, retry_after="5"), Response(200)
    service = Service(bad, good)
    assert testing.run(retry(on_result=failing_status)(service.call), backend=backend) is good
    assert 5.0 <= service.pauses[0] <= 5.5
    assert (bad.closed, good.closed) == (1, 0)


def test_a_sync_response_that_is_thrown_away_is_closed():
    bad = Response(503)
    with testing.virtual_clock():
        retry(on_result=failing_status)(Service(bad).sync)()
    assert bad.closed == 1


def test_a_response_of_aiohttp_that_is_thrown_away_is_released():
    bad = AiohttpResponse(503)
    testing.run(retry(on_result=failing_status)(Service(bad).call))
    assert bad.closed == 1


def test_a_response_that_cannot_be_closed_changes_nothing():
    class Broken(Response):
        def close(self):
            raise ZeroDivisionError

        async def aclose(self):
            raise ZeroDivisionError

    assert testing.run(retry(on_result=failing_status)(Service(Broken(503)).call)) == "ok"
    with testing.virtual_clock():
        assert retry(on_result=failing_status)(Service(Broken(503)).sync)() == "ok"


def test_the_last_unwanted_result_is_returned(backend):
    responses = [Response(503) for _ in range(3)]
    service = Service(*responses)
    with testing.record_events() as heard:
        last = testing.run(retry(on_result=failing_status, max_retries=2)(service.call), backend=backend)
    assert last is responses[2]
    assert last.closed == 0
    assert (heard[-1].reason, heard[-1].error, heard[-1].attempts) == ("max_retries", None, 3)


def test_any_result_can_be_unwanted_and_a_number_is_the_delay():
    service = Service(None, None)
    assert testing.run(retry(on_result=lambda result: 3.0 if result is None else False)(service.call)) == "ok"
    assert service.pauses == pytest.approx([3.0, 3.0])


def test_a_429_that_does_not_raise_parks_too():
    strategy = retry(on_result=failing_status, jitter="none")
    with testing.record_events() as heard:
        testing.run(strategy(Service(Response(429, retry_after="9")).call))
    assert [event.delay for event in heard.of(events.TargetParked)] == [9.0]


def test_a_failing_response_without_on_result_is_warned_about_once(caplog):
    service = Service(Response(200), Response(503), Response(503), Response(200))
    guarded = retry(service.call)

    async def main():
        for _ in range(4):
            await guarded()

    with caplog.at_level(logging.WARNING, "asyncguard"):
        testing.run(main)
    [record] = caplog.records
    assert "returned a response with status 503" in record.message
    assert "on_result=failing_status" in record.message


def test_nobody_looks_at_results_that_are_no_responses():
    looked = []

    class Result:
        def __getattr__(self, name):
            looked.append(name)
            raise AttributeError(name)

    @retry
    async def call():
        return Result()

    async def main():
        await call()
        first = list(looked)
        await call()
        return first

    assert set(testing.run(main)) == set(looked) == {"status_code", "status"}
    assert len(looked) == 2


def test_observe_leaves_an_unwanted_result_alone():
    bad = Response(503)
    with testing.record_events() as heard:
        assert testing.run(retry(on_result=failing_status, mode="observe")(Service(bad).call)) is bad
    assert [(type(event), event.observed) for event in heard] == [(events.RetryScheduled, True)]
    assert bad.closed == 0


# --- sync code on the thread of a loop --------------------------------------------------------------------------------


def test_a_sync_retry_that_blocks_a_loop_is_warned_about_once(caplog, monkeypatch):
    monkeypatch.setattr(clock.RealClock, "sleep_sync", staticmethod(lambda _seconds: None))
    guarded = retry(initial_delay=0.1, jitter="none", budget=None)(Service(*[ConnectionError()] * 3).sync)

    async def main():
        guarded()

    with caplog.at_level(logging.WARNING, "asyncguard"):
        asyncio.run(main())
    assert (
        len([record for record in caplog.records if "sleeps on the thread of a running event loop" in record.message])
        == 1
    )


def test_a_sync_retry_in_a_worker_thread_is_not_warned_about(caplog, monkeypatch):
    monkeypatch.setattr(clock.RealClock, "sleep_sync", staticmethod(lambda _seconds: None))
    guarded = retry(initial_delay=0.1, jitter="none")(Service(ConnectionError()).sync)
    thread = threading.Thread(target=guarded)
    with caplog.at_level(logging.WARNING, "asyncguard"):
        thread.start()
        thread.join()
    assert caplog.records == []

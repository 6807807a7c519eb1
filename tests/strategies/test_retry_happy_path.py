"""Off the virtual clock: the happy path, and what leaves it. Delays are zero, so nothing waits."""

from __future__ import annotations

import asyncio
import os

import pytest
import trio

from asyncguard import RetryBudget, current_attempt, events, pipeline_of, retry, status, testing
from asyncguard._runtime import clock
from asyncguard.strategies._retry_drivers import TIMED

AT_ONCE = {"initial_delay": 0, "max_delay": 0, "budget": None}


@pytest.fixture(params=[asyncio.run, trio.run], ids=["asyncio", "trio"])
def run(request):
    """Run a coroutine function on real time."""
    start = request.param
    return (lambda fn: start(fn())) if start is asyncio.run else start


class Sometimes:
    """Fails when told to; remembers the numbers of its attempts."""

    def __init__(self):
        self.failures = 0
        self.attempts = []

    def __call__(self):
        self.attempts.append(current_attempt())
        if self.failures:
            self.failures -= 1
            raise ConnectionError("down")
        return len(self.attempts)

    async def call(self):
        return self()


def test_it_recovers_and_stays_able_to(run):
    service = Sometimes()
    strategy = retry(**AT_ONCE)
    guarded = strategy(service.call)

    async def main():
        assert await guarded() == 1
        assert strategy.special == 0
        service.failures = 2
        assert await guarded() == 4
        assert strategy.special == TIMED, "from the first failure on calls are timed"
        service.failures = 1
        assert await guarded() == 6
        assert await guarded() == 7

    run(main)
    assert service.attempts == [1, 1, 2, 3, 1, 2, 1]


def test_sync_code_recovers_and_stays_able_to():
    service = Sometimes()
    strategy = retry(**AT_ONCE)
    guarded = strategy(service)
    assert guarded() == 1
    service.failures = 2
    assert guarded() == 4
    assert strategy.special == TIMED
    service.failures = 1
    assert guarded() == 6
    assert guarded() == 7


def test_what_is_not_retried_leaves_as_it_came(run):
    error = KeyError("mine")

    @retry(**AT_ONCE)
    async def call():
        if call.fails:
            raise error

    async def main():
        call.fails = False
        await call()
        call.fails = True
        for _ in range(2):
            with pytest.raises(KeyError) as raised:
                await call()
            assert raised.value is error
            assert not hasattr(error, "__notes__")

    run(main)


def test_the_time_of_later_failures_is_exact(run):
    service = Sometimes()
    guarded = retry(max_retries=1, **AT_ONCE)(service.call)

    async def main():
        await guarded()
        notes = []
        for _ in range(2):
            service.failures = 2
            with pytest.raises(ConnectionError) as raised:
                await guarded()
            notes += raised.value.__notes__
        return notes

    first, second = run(main)
    assert "2 attempts in more than" in first
    assert "2 attempts in" in second
    assert "more than" not in second


def test_while_another_call_is_at_its_second_attempt_a_first_one_knows_that_it_is_first():
    seen = []

    @retry(**AT_ONCE)
    async def slow():
        if current_attempt() == 1:
            raise ConnectionError
        await asyncio.sleep(0)
        await quick()
        seen.append(("slow", current_attempt()))

    @retry(**AT_ONCE)
    async def quick():
        seen.append(("quick", current_attempt()))

    async def main():
        await quick()
        await asyncio.gather(slow(), slow(), quick())

    asyncio.run(main())
    assert sorted(seen) == [("quick", 1)] * 4 + [("slow", 2)] * 2


def test_status_says_what_is_left_and_what_is_parked():
    strategy = retry(name="client", budget=RetryBudget(0, 2))

    @strategy
    def call():
        return 1

    call()
    assert strategy.describe() == ["budget: 20 retries left"]
    strategy.park(strategy.core.single, clock.REAL.now(), 30.0, 60.0)
    assert strategy.describe()[0].startswith("parked 30.0 s")
    assert isinstance(status(), str) or status()
    assert retry(budget=None).describe() == []


def test_status_names_the_parked_partition():
    strategy = retry(partition=lambda host: host)
    target = strategy.core.partitions.get("a")
    strategy.park(target, clock.REAL.now(), 30.0, 60.0)
    assert strategy.describe() == ["[a] parked 30.0 s more"]


def test_a_partition_that_knows_nothing_any_more_may_be_forgotten():
    strategy = retry(partition=lambda host: host, **AT_ONCE)
    with testing.virtual_clock() as virtual:
        targets = strategy.core_here()
        idle, parked, spent = (targets.partitions.get(key) for key in "abc")
        strategy.park(parked, virtual.now(), 5.0, 60.0)
        assert spent.allowance.withdraw(virtual.now())
        assert [target.idle() for target in (idle, parked, spent)] == [True, False, False]
        virtual.advance(5.0)
        assert [target.idle() for target in (idle, parked, spent)] == [True, True, False]
        virtual.advance(6.0)
        assert spent.idle()


def test_a_pause_ends_for_the_happy_path_although_nobody_asked_meanwhile(monkeypatch):
    moment = [500.0]
    monkeypatch.setattr(clock.RealClock, "now", staticmethod(lambda: moment[0]))
    strategy = retry()
    guarded = strategy(lambda: "ok")
    guarded()
    strategy.park(strategy.core.single, moment[0], 5.0, 60.0)
    assert strategy.special
    moment[0] += 6.0
    assert guarded() == "ok"
    assert strategy.special == 0


def test_after_a_fork_every_lock_is_free():
    strategy = retry(partition=lambda: "a")
    target = strategy.core.partitions.get("a")
    for each in (strategy, target.parked, target.allowance, strategy.core.partitions):
        each._lock.acquire()
    strategy.after_fork()
    assert strategy.core.partitions.get("a") is target
    assert strategy.park(target, 1.0, 1.0, 60.0)
    assert target.allowance.withdraw(clock.REAL.now())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # other tests may have left daemon threads
def test_a_fork_while_every_lock_is_held_leaves_the_child_able_to_retry():
    service = Sometimes()
    strategy = retry(initial_delay=0, max_delay=0, partition=lambda: "a")
    guarded = strategy(service)
    guarded()
    target = strategy.core.partitions.get("a")
    with strategy._lock, target.parked._lock, target.allowance._lock, strategy.core.partitions._lock:
        child = os.fork()
        if child == 0:  # pragma: no cover - in the child
            service.failures = 2
            try:
                os._exit(0 if guarded() == 4 else 1)
            finally:
                os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_on_real_time_events_are_told_too(run):
    service = Sometimes()
    heard = []
    guarded = retry(on_event=heard.append, **AT_ONCE)(service.call)

    async def main():
        await guarded()
        service.failures = 1
        await guarded()

    run(main)
    assert [type(event) for event in heard] == [events.RetryScheduled, events.AttemptStarted]
    assert pipeline_of(guarded)

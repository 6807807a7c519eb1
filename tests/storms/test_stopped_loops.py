"""A loop that is stopped, or closed and forgotten, while it holds or waits swallows nothing; the others go on."""

from __future__ import annotations

import asyncio
import gc

import anyio
import pytest
import uvloop

import asyncguard as ag
from asyncguard import testing
from asyncguard._machines import place
from asyncguard._runtime import clock as clocks
from asyncguard._runtime import flights
from tests.storms.arena import DONE, finish, stopped
from tests.storms.test_half_open_storm import Hand
from tests.strategies.memory_machine import machine

__all__ = ["machine"]  # a fixture

pytestmark = pytest.mark.usefixtures("machine")

GATES = {
    "bulkhead": lambda: ag.bulkhead(1, max_wait=60.0),
    "weighted": lambda: ag.bulkhead(2, weight=2, max_wait=60.0),
    "priority": lambda: ag.bulkhead(1, priority=lambda: 0, max_wait=60.0),
    "adaptive": lambda: ag.adaptive_concurrency(initial=1, max_limit=1, max_wait=60.0),
    "memory": lambda: ag.memory_guard(estimate=600, max_wait=60.0),
    "partition": lambda: ag.bulkhead(1, partition=lambda: "all", max_wait=60.0),
    "block": lambda: ag.guard(ag.circuit_breaker(), ag.bulkhead(1, max_wait=60.0)),
}
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}

every_gate = pytest.mark.parametrize("gate", GATES)
every_loop = pytest.mark.parametrize("kind", LOOPS)


def gates(guard):
    return [gate for each in ([guard] if hasattr(guard, "gates") else guard) for gate in each.gates()]


def idle(guard):
    return all(gate.idle() for gate in gates(guard))


def untaken(guard):
    """Tell whether no permit is held or offered; somebody may still have a place in the queue."""
    return not any(getattr(gate, "taken", 0) or getattr(gate, "running", 0) for gate in gates(guard))


class Work:
    """A guarded function that stays inside until it is let go."""

    def __init__(self, guard):
        self.running = 0
        self.go = False
        self.guarded = guard(self._work)
        self.sync = guard(lambda: DONE)

    async def _work(self):
        self.running += 1
        try:
            while not self.go:
                await anyio.lowlevel.checkpoint()
            return DONE
        finally:
            self.running -= 1

    async def behind(self, turns=5):
        """Start a call that has to wait; return its task."""
        task = asyncio.create_task(self.guarded())
        for _ in range(turns):
            await asyncio.sleep(0)
        assert self.running == 1
        return task


def forget(loop, task):
    """Close a loop with a task on it, and let the collector have both."""
    loop.set_exception_handler(lambda loop, context: None)  # asyncio wants to say what we do on purpose
    loop.close()
    del loop, task


# --- it waits ---------------------------------------------------------------------------------------------------------


@every_gate
@every_loop
@pytest.mark.parametrize("closed", [False, True], ids=["stopped", "closed"])
def test_who_waits_on_a_loop_that_ended_is_passed_over(gate, kind, closed):
    """It queued first, and is served when its loop goes on; if that was closed, its place lasts as long as its time."""
    guard = GATES[gate]()
    work = Work(guard)

    async def main():
        holder = await work.behind()
        loop, task = stopped(work.guarded(), loop=LOOPS[kind]())
        waiter = await work.behind()
        if closed:
            forget(loop, task)
            del loop, task
            gc.collect()
        work.go = True
        assert await asyncio.wait_for(asyncio.gather(holder, waiter), 30) == [DONE, DONE]
        return None if closed else (loop, task)

    left = asyncio.run(main())
    if left is not None:
        loop, task = left
        assert loop.run_until_complete(task) == DONE
        loop.close()
    assert untaken(guard) if closed else idle(guard)
    assert work.sync() == DONE


@every_gate
def test_who_was_let_in_on_a_loop_that_then_stopped_passes_it_on_at_the_next_look(gate):
    """Its turn came while its loop ran; the loop stopped before it could take it."""
    guard = GATES[gate]()
    work = Work(guard)

    async def main():
        holder = await work.behind()
        loop, task = stopped(work.guarded())
        loop.is_running, really = (lambda: True), loop.is_running  # it still ran when the permit came free
        waiter = await work.behind()
        holder.cancel()
        await asyncio.wait([holder])
        loop.is_running = really
        newcomer = asyncio.create_task(work.guarded())
        work.go = True
        assert await asyncio.wait_for(asyncio.gather(waiter, newcomer), 30) == [DONE, DONE]
        return loop, task

    finish(*asyncio.run(main()))
    assert idle(guard)


@every_gate
def test_or_at_the_next_look_of_who_waits_already(gate, monkeypatch):
    """Nobody comes any more: who waits on another loop looks around."""
    monkeypatch.setattr(place, "LOOK", 0.01)
    guard = GATES[gate]()
    work = Work(guard)

    async def main():
        holder = await work.behind()
        loop, task = stopped(work.guarded())
        loop.is_running, really = (lambda: True), loop.is_running
        waiter = await work.behind()
        holder.cancel()
        await asyncio.wait([holder])
        loop.is_running = really
        work.go = True
        assert await asyncio.wait_for(waiter, 30) == DONE
        return loop, task

    finish(*asyncio.run(main()))
    assert idle(guard)


# --- it holds ---------------------------------------------------------------------------------------------------------


@every_gate
@every_loop
def test_what_is_held_on_a_loop_that_was_closed_and_forgotten_goes_to_who_waits(gate, kind):
    guard = GATES[gate]()
    work = Work(guard)

    async def main():
        loop, task = stopped(work.guarded(), loop=LOOPS[kind]())
        waiter = await work.behind()
        assert not waiter.done()
        forget(loop, task)
        del loop, task
        gc.collect()
        work.go = True
        assert await asyncio.wait_for(waiter, 30) == DONE

    asyncio.run(main())
    assert work.running == 0
    assert idle(guard)


@every_gate
def test_what_is_held_on_a_loop_that_stopped_is_held_until_it_goes_on(gate):
    """The call is not over, and whoever waits has its time."""
    guard = GATES[gate]()
    work = Work(guard)
    loop, task = stopped(work.guarded())
    for strategy in guard if isinstance(guard, ag.Pipeline) else [guard]:
        if strategy.kind != "circuit_breaker":  # nobody waits there
            strategy.configure(max_wait=0.0)

    async def main():
        with pytest.raises(ag.RejectedError):
            await work.guarded()

    asyncio.run(main())
    work.go = True
    assert loop.run_until_complete(task) == DONE
    loop.close()
    assert idle(guard)


# --- a rate -----------------------------------------------------------------------------------------------------------


@every_loop
@pytest.mark.parametrize("closed", [False, True], ids=["stopped", "closed"])
def test_a_slot_that_was_reserved_on_a_loop_that_ended_goes_to_who_waits_behind(kind, closed):
    limit = ag.rate_limit("1/h burst 1", max_wait=1e6)
    call = limit(anyio.sleep)

    async def main():
        await call(0)
        loop, task = stopped(call(0), loop=LOOPS[kind]())
        behind = asyncio.create_task(call(0))
        await asyncio.sleep(0)
        if closed:
            forget(loop, task)
            del loop, task
            gc.collect()
        assert limit.peek() == pytest.approx(7200, abs=60)  # one in front of a newcomer, not two
        behind.cancel()
        await asyncio.wait([behind])
        assert limit.peek() == pytest.approx(3600, abs=60)
        return None if closed else (loop, task)

    left = asyncio.run(main())
    if left is not None:
        finish(*left)
    assert "; 0 waiting" in limit.describe()[0]


def test_a_call_on_a_loop_that_ended_has_had_its_token():
    limit = ag.rate_limit("1/h burst 2", max_wait=0.0)
    loop, task = stopped(limit(anyio.sleep)(3600))
    forget(loop, task)
    del loop, task
    gc.collect()
    call = limit(lambda: DONE)
    assert call() == DONE
    with pytest.raises(ag.RateLimitedError):
        call()


# --- a probe ----------------------------------------------------------------------------------------------------------


def half_open():
    breaker = ag.circuit_breaker(open_for=30.0, half_open_calls=1)
    clock = breaker.gate._clock = Hand()
    breaker.open()
    clock.now += 30.0
    return breaker, clock


@every_loop
def test_a_probe_on_a_loop_that_was_closed_and_forgotten_is_given_again(kind):
    breaker, _ = half_open()
    work = Work(breaker)
    loop, task = stopped(work.guarded(), loop=LOOPS[kind]())
    assert work.running == 1
    with pytest.raises(ag.CircuitOpenError):
        work.sync()
    forget(loop, task)
    del loop, task
    gc.collect()
    assert breaker.state == "half_open"
    assert work.sync() == DONE
    assert breaker.state == "closed"


def test_a_probe_on_a_loop_that_stopped_is_taken_for_hanging():
    breaker, clock = half_open()
    work = Work(breaker)
    loop, task = stopped(work.guarded())
    clock.now += 30.0
    with pytest.raises(ag.CircuitOpenError):
        work.sync()
    assert breaker.state == "open"
    clock.now += 60.0
    assert work.sync() == DONE
    assert breaker.state == "closed"
    finish(loop, task)


# --- a pause ----------------------------------------------------------------------------------------------------------


class Throttled(Exception):  # noqa: N818 - what a client raises
    status_code = 429
    headers = {"retry-after": "30"}  # noqa: RUF012 - as a client has it


@pytest.mark.parametrize("closed", [False, True], ids=["stopped", "closed"])
def test_a_pause_that_a_caller_on_a_stopped_loop_waits_for_ends_for_the_others(closed):
    retry = ag.retry(partition=lambda key: key, max_retries=3)
    asked = []

    @retry
    async def ask(key):
        asked.append((key, clocks.current().now()))
        if len(asked) == 1:
            raise Throttled
        return DONE

    with testing.virtual_clock() as clock:
        zero = clock.now()
        loop = testing.VirtualLoop(clock)
        tasks = [loop.create_task(ask("a")) for _ in range(2)]  # one was told to wait, the other finds it parked
        loop.call_soon(lambda: loop.call_soon(lambda: loop.call_soon(loop.stop)))
        loop.run_forever()
        assert [key for key, _ in asked] == ["a", "a"] or len(asked) == 1
        if closed:
            forget(loop, tasks)
            del loop, tasks
            gc.collect()

        async def main():
            assert await ask("b") == DONE
            assert clocks.current().now() == zero
            assert await ask("a") == DONE
            assert 30.0 <= clocks.current().now() - zero <= 33.0
            assert await ask("a") == DONE

        testing.run(main, clock=clock)
        assert not any("parked" in line for line in retry.describe())
        if not closed:
            assert loop.run_until_complete(asyncio.wait_for(_all(tasks), 600)) == [DONE, DONE]
            loop.close()


async def _all(tasks):
    return await asyncio.gather(*tasks)


# --- a flight ---------------------------------------------------------------------------------------------------------


class Computed:
    """A cached function whose first call stays until it is let go; later ones return at once."""

    def __init__(self):
        self.calls, self.go = 0, False
        self.cache = ag.cache_result(60.0)
        self.fn = self.cache(self._compute)

    async def _compute(self, key):
        self.calls += 1
        while self.calls == 1 and not self.go:
            await anyio.lowlevel.checkpoint()
        return key


@every_loop
@pytest.mark.parametrize("closed", [False, True], ids=["stopped", "closed"])
def test_who_waits_for_a_flight_on_a_loop_that_ended_computes_for_itself(kind, closed, monkeypatch):
    monkeypatch.setattr(flights, "_FOREIGN", 0.001)
    computed = Computed()
    loop, task = stopped(computed.fn(1), loop=LOOPS[kind]())

    async def follows(loop):
        loop.is_running, really = (lambda: True), loop.is_running  # it still ran when the follower joined
        follower = asyncio.create_task(computed.fn(1))
        for _ in range(3):
            await asyncio.sleep(0)
        assert computed.cache.info().joined == 1
        loop.is_running = really
        assert await asyncio.wait_for(follower, 30) == 1
        assert computed.calls == 2

    if kind == "uvloop":  # its loops take no attributes: the follower finds the work dead when it comes
        assert asyncio.run(computed.fn(1)) == 1
    else:
        asyncio.run(follows(loop))
    computed.go = True
    if closed:
        forget(loop, task)
    else:
        assert loop.run_until_complete(task) == 1
        loop.close()
    del loop, task
    gc.collect()
    assert computed.cache.info().in_flight == 0
    assert computed.calls == 2


def test_a_follower_on_a_loop_that_stopped_keeps_nobody_from_the_value():
    computed = Computed()

    async def main():
        leader = asyncio.create_task(computed.fn(1))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        loop, task = stopped(computed.fn(1))
        assert computed.cache.info().joined == 1
        leader.cancel()  # the one who stands still is waiting too: the work goes on
        await asyncio.wait([leader])
        computed.go = True
        assert await computed.fn(1) == 1
        return loop, task

    loop, task = asyncio.run(main())
    assert loop.run_until_complete(task) == 1
    loop.close()
    assert computed.calls == 1
    assert computed.cache.info().in_flight == 0

"""Two hundred callers at the moment in which a circuit lets probes through: exactly as many get in as it says."""

from __future__ import annotations

import random
import threading
import time

import anyio
import pytest

import asyncguard as ag
from asyncguard import testing
from tests.storms.arena import (
    CANCELLED,
    DONE,
    Meter,
    in_threads,
    on_asyncio,
    on_trio,
    on_uvloop,
    step,
)

CALLERS, PROBES = 200, 3
REFUSED = "refused"


class Hand:
    """The clock of a circuit, moved by hand: what is tested are threads, not time."""

    def __init__(self):
        self.now = 1_000.0

    def __call__(self):
        return self.now


ALL = {"failure_rate": 0.1, "half_open_calls": PROBES}
"""All probes have to succeed, so that each of them counts."""


def half_open():
    """Return a breaker whose next callers are probes, and that does not take them for hanging."""
    breaker = ag.circuit_breaker(open_for=30.0, **ALL)
    clock = breaker.gate._clock = Hand()
    breaker.open()
    clock.now += 30.0
    return breaker, clock


class Crowd:
    """Callers of one breaker. A probe stays until `callers` were let in or refused, and some steps more."""

    def __init__(self, breaker, callers=CALLERS, steps=0):
        self.meter, self.callers, self.steps = Meter(), callers, steps
        self.heard = 0
        self._lock = threading.Lock()
        self._guarded, self._guarded_sync = breaker(self._probe), breaker(self._sync_probe)

    async def _probe(self):
        with self.meter.measured():
            self._hear()
            while self.heard < self.callers:
                await step()
            for _ in range(self.steps):
                await step()
        return DONE

    def _sync_probe(self):
        with self.meter.measured():
            self._hear()
            while self.heard < self.callers:
                time.sleep(0)
        return DONE

    async def call(self, number):
        try:
            return await self._guarded()
        except ag.CircuitOpenError:
            self._hear()
            return REFUSED

    def call_sync(self):
        try:
            return self._guarded_sync()
        except ag.CircuitOpenError:
            self._hear()
            return REFUSED

    def _hear(self):
        with self._lock:
            self.heard += 1


def storm(crowd, loops, share, seed=0):
    """Let the callers come in four loops at once, with a share of them cancelled; return how they ended."""
    starts = enumerate(LOOPS[loops])
    ended = in_threads(*[start(crowd.call, CALLERS // 4, share, seed + 10 * at) for at, start in starts])
    return [each for some in ended for each in some]


LOOPS = {"asyncio": [on_asyncio] * 4, "uvloop": [on_uvloop] * 4, "mixed": [on_asyncio, on_uvloop, on_trio, on_trio]}


# --- everybody at once ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*LOOPS, "threads"])
def test_200_callers_at_once_make_exactly_as_many_probes(kind):
    breaker, _ = half_open()
    crowd = Crowd(breaker)
    outcomes = in_threads(*[crowd.call_sync] * CALLERS) if kind == "threads" else storm(crowd, kind, 0.0)
    assert crowd.meter.entered == crowd.meter.peak == PROBES
    assert sorted(outcomes) == [DONE] * PROBES + [REFUSED] * (CALLERS - PROBES)
    assert breaker.state == "closed"


@pytest.mark.parametrize("kind", LOOPS)
@pytest.mark.parametrize("seed", range(4))
def test_a_cancelled_probe_is_made_up_for_and_the_circuit_decides(kind, seed):
    """Three in ten are cancelled, wherever they are: a probe among them is given back, and a later caller has it."""
    breaker, _ = half_open()
    crowd = Crowd(breaker, steps=40)
    outcomes = storm(crowd, kind, 0.3, seed)
    assert crowd.meter.peak <= PROBES
    assert len(outcomes) == CALLERS
    assert set(outcomes) <= {DONE, CANCELLED, REFUSED}
    check_it_decides(breaker, outcomes.count(DONE))


def check_it_decides(breaker, succeeded):
    """No probe is lost: as many more get in at once as are still to say something, then the circuit is closed."""
    if succeeded >= PROBES:
        assert breaker.state == "closed"
        return
    assert breaker.state == "half_open"
    missing = PROBES - succeeded
    crowd = Crowd(breaker, callers=20)
    (ended,) = in_threads(on_asyncio(crowd.call, 20, 0.0, 0))
    assert crowd.meter.entered == crowd.meter.peak == missing
    assert ended.count(DONE) == missing
    assert breaker.state == "closed"


@pytest.mark.parametrize("kind", LOOPS)
def test_probes_that_are_all_cancelled_leave_it_half_open_with_all_of_them_to_give(kind):
    breaker, _ = half_open()
    crowd = Crowd(breaker, callers=10**9)  # no probe leaves by itself
    outcomes = storm(crowd, kind, 1.0)
    assert DONE not in outcomes
    assert crowd.meter.peak <= PROBES <= crowd.meter.entered
    check_it_decides(breaker, 0)


def test_a_probe_lost_with_its_thread_is_taken_for_hanging():
    """A thread cannot be cancelled: when its probe does not come back, the circuit opens again and probes anew."""
    breaker, clock = half_open()
    leave, entered = threading.Event(), threading.Semaphore(0)

    @breaker
    def hang():
        entered.release()
        leave.wait(60)

    threads = [threading.Thread(target=hang, daemon=True) for _ in range(PROBES)]
    for thread in threads:
        thread.start()
        assert entered.acquire(timeout=60)
    with pytest.raises(ag.CircuitOpenError):
        hang()
    assert breaker.state == "half_open"
    clock.now += 30.0
    with pytest.raises(ag.CircuitOpenError):
        hang()
    assert breaker.state == "open"
    clock.now += 60.0
    leave.set()
    for thread in threads:
        thread.join(60)  # their late success belongs to an epoch that is over
    assert breaker.state == "open"
    for _ in range(PROBES):
        hang()
    assert breaker.state == "closed"


# --- on virtual time --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("failing", [False, True], ids=["succeed", "fail"])
def test_200_callers_with_three_in_ten_cancelled_leave_half_open(seed, failing, backend):
    """Cancelled at any moment, probes or not: three answers close it, one failure opens it, no more get in."""
    breaker = ag.circuit_breaker(open_for=30.0, max_open_for=30.0, **ALL)
    rng = random.Random(seed)
    leaves = {number: rng.uniform(0.0, 1.0) for number in rng.sample(range(CALLERS), 60)}
    meter = Meter()
    peaks = []  # at each answer: once it is closed there are no probes any more

    @breaker
    async def call():
        with meter.measured():
            await anyio.sleep(1.0)
        peaks.append(meter.peak)
        if failing:
            raise ConnectionError

    async def one(number):
        await anyio.sleep(rng.uniform(0.0, 0.5))
        with anyio.move_on_after(leaves.get(number, 60.0)):
            try:
                await call()
            except (ag.CircuitOpenError, ConnectionError):
                return

    async def main():
        breaker.open()
        await anyio.sleep(30)
        for _ in range(20):
            async with anyio.create_task_group() as group:
                for number in range(CALLERS):
                    group.start_soon(one, number)
            if breaker.state != "half_open":
                return breaker.state
        return "half-open for ever: probes were lost"

    state = testing.run(main, backend=backend)
    assert state == ("open" if failing else "closed")
    assert max(peaks[:PROBES]) <= PROBES


@pytest.mark.parametrize("cancelled", range(PROBES + 1))
def test_exactly_the_probes_that_were_cancelled_are_given_again(cancelled, backend):
    breaker = ag.circuit_breaker(open_for=30.0, **ALL)
    meter = Meter()

    @breaker
    async def call(seconds):
        with meter.measured():
            await anyio.sleep(seconds)

    async def quietly(seconds):
        try:
            await call(seconds)
        except ag.CircuitOpenError:
            return

    async def main():
        breaker.open()
        await anyio.sleep(30)
        async with anyio.create_task_group() as group:
            for number in range(PROBES):
                group.start_soon(leaving, number)
            await anyio.sleep(0.01)
            for _ in range(CALLERS):
                group.start_soon(quietly, 1.0)
            await anyio.sleep(0.49)
            assert meter.entered == PROBES
            await anyio.sleep(0.1)  # those cancelled are gone
            for _ in range(CALLERS):
                group.start_soon(quietly, 1.0)
            await anyio.sleep(0.1)
            assert meter.entered == PROBES + cancelled
            assert meter.inside == PROBES
        assert breaker.state == "closed"

    async def leaving(number):
        with anyio.move_on_after(0.55 if number < cancelled else 60.0):
            await call(1.0)

    testing.run(main, backend=backend)

"""Cancellation swept over every await of every strategy and of the stack, on asyncio, trio and uvloop.

After each: no permit, token, slot, task, timer or context variable is left, the count of cancellations is what it was,
and the strategy behaves as a fresh one.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import uvloop

import asyncguard as ag
from asyncguard import events, testing
from asyncguard._machines.circuit import Circuit
from asyncguard._machines.probes import Probes
from asyncguard._runtime import clock as clocks
from tests.drivers.cases import CASES, TransientError
from tests.storms.arena import CANCELLED
from tests.storms.sweep import MOST, Stage, scene_on_asyncio, scene_on_trio
from tests.strategies.memory_machine import machine

__all__ = ["machine"]  # a fixture

pytestmark = pytest.mark.usefixtures("machine")


@dataclass(frozen=True)
class Row:
    """A strategy, or several, in which three calls get into each other's way. Times are in `unit` seconds."""

    name: str
    make: Callable[[float], list[Any]]
    half_open: bool = False
    real: bool = True  # can be swept in real time, too
    apart: bool = False  # each caller asks for something of its own


async def handler(error, key):
    await clocks.library_sleep(0)
    return key


def rate(unit, per_unit=2):
    return ag.rate_limit(f"{round(per_unit / unit)}/s burst 1", max_wait=600.0)


def retry(unit, **options):
    return ag.retry(on=TransientError, max_retries=2, initial_delay=unit, jitter="none", **options)


def breaker():
    return ag.circuit_breaker(open_for=1e-6, half_open_calls=3, failure_rate=1.0)


def stack(unit, *more):
    """Retry, breaker, bulkhead, rate limit, and a timeout for the call and for each attempt."""
    attempt = ag.timeout(200.0, scope="attempt")
    return [retry(unit), ag.circuit_breaker(), slots(), rate(unit), ag.timeout(300.0), attempt, *more]


def slots(**options):
    return ag.bulkhead(1, max_wait=600.0, **options)


def whole_stack(unit):
    return stack(unit, raced(unit), ag.fallback(handler), ag.cache_result(6000.0), ag.monitor())


def two_rates(unit):
    return ag.rate_limit("1000000/s", ag.Rate(f"{round(4 / unit)}/s burst 2", cost=lambda key: 2), max_wait=600.0)


def raced(unit):
    return ag.hedge(delay=0.15 * unit, max_extra_load=1.0)


ROWS = [
    Row("retry", lambda unit: [retry(unit)]),
    Row("timeout", lambda unit: [ag.timeout(30.0)]),
    Row("timeout_that_fires", lambda unit: [ag.timeout(0.15 * unit)], real=False),
    Row("attempt_timeout", lambda unit: [ag.timeout(30.0, scope="attempt")]),
    Row("circuit_breaker", lambda unit: [ag.circuit_breaker()]),
    Row("circuit_breaker_half_open", lambda unit: [breaker()], half_open=True),
    Row("bulkhead", lambda unit: [slots()]),
    Row("bulkhead_weighted", lambda unit: [ag.bulkhead(2, weight=2, max_wait=600.0)]),
    Row("bulkhead_priority", lambda unit: [slots(priority=lambda key: 0)]),
    Row("bulkhead_partition", lambda unit: [slots(partition=lambda key: "all")]),
    Row("adaptive_concurrency", lambda unit: [ag.adaptive_concurrency(initial=1, max_limit=1, max_wait=600.0)]),
    Row("chaos", lambda unit: [ag.chaos(1.0, latency=0.1 * unit, enabled=True)]),
    Row("hedge", lambda unit: [ag.hedge()]),
    Row("hedge_raced", lambda unit: [raced(unit)]),
    Row("rate_limit", lambda unit: [rate(unit)]),
    Row("rate_limit_two", lambda unit: [two_rates(unit)]),
    Row("memory_guard", lambda unit: [ag.memory_guard(estimate=600, max_wait=600.0)]),
    Row("fallback", lambda unit: [ag.fallback("value", on=TransientError)]),
    Row("fallback_async", lambda unit: [ag.fallback(handler, on=TransientError)]),
    Row("cache_result", lambda unit: [ag.cache_result(6000.0)]),
    Row("cache_result_apart", lambda unit: [ag.cache_result(6000.0)], apart=True),
    Row("validate_input", lambda unit: [ag.validate_input({})]),
    Row("monitor", lambda unit: [ag.monitor()]),
    Row("stack", stack),
    Row("stack_half_open", lambda unit: [retry(unit), breaker(), slots(), rate(unit)], half_open=True),
    Row("stack_hedged", lambda unit: stack(unit, raced(unit))),
    Row("stack_all", whole_stack),
    Row("stack_all_apart", whole_stack, apart=True),
]


def row_ids(row):
    return row.name


def test_every_strategy_is_swept():
    kinds = {strategy.kind for row in ROWS for strategy in row.make(1.0)}
    assert kinds == {case.make().kind for case in CASES}


# --- what is left -----------------------------------------------------------------------------------------------------


def check_gates(strategies):
    """Nothing is taken, nobody waits, no probe is out."""
    for strategy in strategies:
        for gate in strategy.gates() if hasattr(strategy, "gates") else ():
            if isinstance(gate, Circuit):
                assert not isinstance(gate._epoch, Probes) or gate._epoch._running == 0, "a probe was lost"
            else:
                assert not getattr(gate, "waiting", 0), "a place was left behind"
                assert not getattr(gate, "taken", 0), "a permit was left behind"
                assert strategy.kind == "rate_limit" or gate.idle(), "a permit or a reservation was left behind"
        if isinstance(strategy, type(ag.cache_result(1.0))):
            assert strategy.info().in_flight == 0, "a flight was left behind"
        if isinstance(strategy, type(ag.rate_limit("1/s"))):
            assert "; 0 waiting" in strategy.describe()[0], "a reservation was left behind"


def allowances(strategies):
    """Return the budgets with the calls that they have counted."""
    found = [strategy.core_here().single.allowance for strategy in strategies if strategy.kind == "retry"]
    return [(allowance, allowance.calls) for allowance in found]


def check_budgets(before, seen):
    """The budget has paid for the retries that were scheduled, and has earned its share of the calls."""
    for allowance, calls in before:
        earned, spent = 0.2 * (allowance.calls - calls), len(seen.of(events.RetryScheduled))
        assert allowance.left(clocks.current().now()) == pytest.approx(100.0 + earned - spent)


class Sweep:
    """All scenes of a row on one strategy, on virtual time: whatever leaks is missed in the scenes after it."""

    def __init__(self, row, scene, *, fails):
        self.row, self.scene, self.fails = row, scene, fails
        self.keys = itertools.count()
        self.strategies, self.stage = self.new()
        self.fresh = self.new()

    def new(self):
        strategies = self.row.make(1.0)
        return strategies, Stage(ag.guard(*strategies), 1.0, fails=self.fails, apart=self.row.apart)

    async def rest(self, strategies):
        """Let rates and budgets rest, and the circuit half open."""
        for _ in range(2):
            await clocks.library_sleep(100)
            for strategy in strategies:
                if strategy.kind in {"retry", "hedge"}:  # calls are counted as spread over the time since the last look
                    strategy.core_here().single.allowance.left(clocks.current().now())
        for strategy in strategies:
            if self.row.half_open and strategy.kind == "circuit_breaker":
                strategy.open()
                await clocks.library_sleep(1)

    async def timeline(self, strategies, stage):
        """Return when three calls began, as they would on a fresh strategy."""
        await self.rest(strategies)
        zero = clocks.current().now()
        await self.scene(stage, next(self.keys))
        begun = sorted((round(when - zero, 6), who) for who, when in stage.begun)  # trio shuffles those of one moment
        return begun, round(clocks.current().now() - zero, 6)

    async def play(self, when, at):
        """Play the scene in which the swept call is cancelled; tell whether it was."""
        await self.rest(self.strategies)
        zero, budgets = clocks.current().now(), allowances(self.strategies)
        with testing.record_events() as seen:
            before, swept, behind = await self.scene(self.stage, next(self.keys), when, at)
        check_gates(self.strategies)
        check_budgets(budgets, seen)
        if self.row.name.startswith("rate_limit"):  # not one slot is lost
            begun = [when - zero for _, when in self.stage.begun]
            assert begun == pytest.approx([0.0, 0.5, 1.0][: len(begun)])
        return before, swept, behind

    async def run(self, when):
        expected = await self.timeline(*self.fresh)
        await self.rest(self.strategies)
        usual = [type(each) for each in await self.scene(self.stage, next(self.keys))]
        for at in range(MOST):
            before, swept, behind = await self.play(when, at)
            asked = self.stage.asked
            assert [type(before), type(behind)] == [usual[0], usual[2]]
            assert await self.timeline(self.strategies, self.stage) == expected, f"not as good as new after {at}"
            if not asked:
                break
            # A trio task that has been woken from its last wait has its result.
            assert swept == CANCELLED or (self.scene is scene_on_trio and type(swept) is usual[1])
        assert not asked
        assert at >= 1
        assert type(swept) is usual[1]


ends = pytest.mark.parametrize("fails", [False, True], ids=["succeeds", "fails"])
rows = pytest.mark.parametrize("row", ROWS, ids=row_ids)


@rows
@ends
@pytest.mark.parametrize("when", ["suspended", "woken", "turn"])
def test_on_asyncio(row, fails, when):
    testing.run(lambda: Sweep(row, scene_on_asyncio, fails=fails).run(when))


@rows
@ends
@pytest.mark.parametrize("when", ["suspended", "woken"])
def test_on_trio(row, fails, when):
    testing.run(lambda: Sweep(row, scene_on_trio, fails=fails).run(when), backend="trio")


@pytest.mark.skipif(sys.version_info < (3, 12), reason="tasks start eagerly since 3.12")
@rows
@ends
def test_with_eager_tasks(row, fails):
    async def main():
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        for when in ("suspended", "woken"):
            await Sweep(row, scene_on_asyncio, fails=fails).run(when)

    testing.run(main)


# --- real time --------------------------------------------------------------------------------------------------------

UNIT = 0.001


@pytest.mark.slow
@pytest.mark.parametrize("row", [row for row in ROWS if row.real], ids=row_ids)
@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_on_real_loops(row, run):
    """The quick ways through the strategies: a virtual clock takes others."""

    async def main():
        strategies = row.make(UNIT)
        stage = Stage(ag.guard(*strategies), UNIT, fails=True, apart=row.apart)
        for at in range(MOST):
            for strategy in strategies:
                if row.half_open and strategy.kind == "circuit_breaker":
                    strategy.open()
            before, swept, behind = await scene_on_asyncio(stage, at, ("suspended", "woken")[at % 2], at // 2)
            check_gates(strategies)
            assert not isinstance(before, type)
            assert not isinstance(behind, type), behind
            assert (swept == CANCELLED) is stage.asked
            if not stage.asked and at % 2:
                break
        assert not stage.asked

    run(main())

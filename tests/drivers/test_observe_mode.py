"""`mode="observe"` decides and reports, and never changes a call: not its result, error, timing or concurrency.

Every strategy is made so that it would bite. The same calls are made of the bare function and of the guarded one, and
everything that can be seen must be the same; enforced, something must differ, or the test would show nothing.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import threading
from typing import TYPE_CHECKING, Any

import pytest
import trio

import asyncguard as ag
from asyncguard import testing
from asyncguard._runtime import clock as clocks

if TYPE_CHECKING:
    from collections.abc import Callable


class DownError(ConnectionError):
    """What the function raises, always the same instance."""


@dataclasses.dataclass(frozen=True)
class Bite:
    """A strategy that would change the calls; `plan` as in the function below."""

    make: Callable[[str], Any]
    plan: tuple[Any, ...] = ("ok",)
    together: bool = False  # the async calls start at once
    sync: bool = True
    generators: bool = True
    told: bool = True  # observing is told by events
    same_args: bool = False
    items: bool = False  # the function takes and returns lists


def _many(**faults: Any) -> Callable[[str], Any]:
    return lambda mode: ag.chaos(1.0, enabled=True, mode=mode, **faults)


BITES = {
    "retry": Bite(lambda mode: ag.retry(max_retries=2, mode=mode, budget=None), (DownError("down"),)),
    "retry_result": Bite(
        lambda mode: ag.retry(max_retries=2, on_result=lambda result: True, mode=mode), generators=False
    ),
    "timeout": Bite(lambda mode: ag.timeout(1.0, mode=mode), (3.0,)),
    "timeout_thread": Bite(lambda mode: ag.timeout(1.0, thread=True, mode=mode), (3.0,)),
    "circuit_breaker": Bite(
        lambda mode: ag.circuit_breaker(window=2, minimum_calls=1, mode=mode), (DownError("down"), "ok", DownError("x"))
    ),
    "bulkhead": Bite(lambda mode: ag.bulkhead(1, max_queue=1, max_wait=1, mode=mode), (3.0,), together=True),
    "bulkhead_weighted": Bite(
        lambda mode: ag.bulkhead(2, weight=lambda *args: 2, max_queue=0, mode=mode), (3.0,), together=True
    ),
    "rate_limit": Bite(lambda mode: ag.rate_limit("1/h", max_wait=5, mode=mode), (1.0,), together=True),
    "adaptive_concurrency": Bite(
        lambda mode: ag.adaptive_concurrency(initial=1, max_limit=1, max_queue=0, mode=mode), (1.0,), together=True
    ),
    "memory_guard": Bite(lambda mode: ag.memory_guard(estimate=2**60, on_pressure="raise", mode=mode), (1.0,)),
    "hedge": Bite(
        lambda mode: ag.hedge(delay=0.5, max_extra_load=1.0, mode=mode), (3.0, 0.1), sync=False, generators=False
    ),
    "fallback": Bite(lambda mode: ag.fallback("other", mode=mode), (DownError("down"),), generators=False),
    "cache_result": Bite(
        lambda mode: ag.cache_result(60, mode=mode), ("a", "b"), generators=False, told=False, same_args=True
    ),
    "cache_items": Bite(
        lambda mode: ag.cache_items(60, over="x", mode=mode),
        ("a", "b"), generators=False, told=False, same_args=True, items=True,
    ),
    "validate_input": Bite(lambda mode: ag.validate_input({"x": lambda x: False}, mode=mode)),
    "validate_output": Bite(
        lambda mode: ag.validate_input(returns=lambda result: False, fallback="other", mode=mode), generators=False
    ),
    "chaos_latency": Bite(_many(latency=5.0)),
    "chaos_error": Bite(_many(error=OSError)),
    "chaos_result": Bite(_many(result="other"), generators=False),
    "partition_that_fails": Bite(lambda mode: ag.bulkhead(1, partition=lambda x: [x], mode=mode), told=False),
}  # fmt: skip


class Function:
    """Sleeps for a float, raises an error, returns the rest; and writes down who runs when, and beside how many."""

    def __init__(self, bite: Bite) -> None:
        self.bite, self.seen, self.count, self.running = bite, [], 0, 0
        self.thread = threading.get_ident()

    def begin(self, x: Any) -> Any:
        act = self.bite.plan[min(self.count, len(self.bite.plan) - 1)]
        self.count += 1
        self.running += 1
        here = threading.get_ident() == self.thread
        self.seen.append(("began", x, self.running, round(clocks.current().now(), 6), here))
        return act

    def end(self, act: Any, x: Any) -> Any:
        self.running -= 1
        self.seen.append(("ended", x, round(clocks.current().now(), 6)))
        if isinstance(act, Exception):
            raise act
        return [act for _ in x] if self.bite.items else act

    async def call(self, x: Any) -> Any:
        act = self.begin(x)
        if isinstance(act, float):
            await clocks.library_sleep(act)
        return self.end(act, x)

    def call_sync(self, x: Any) -> Any:
        act = self.begin(x)
        if isinstance(act, float):
            clocks.current().sleep_sync(act)
        return self.end(act, x)


def shapes(function: Function) -> dict[str, Any]:
    async def call(x: Any) -> Any:
        return await function.call(x)

    def call_sync(x: Any) -> Any:
        return function.call_sync(x)

    async def items(x: Any) -> Any:
        for _ in range(2):
            yield await function.call(x)

    def items_sync(x: Any) -> Any:
        for _ in range(2):
            yield function.call_sync(x)

    return {"async": call, "sync": call_sync, "async generator": items, "generator": items_sync}


def outcome(function: Function, error: BaseException) -> None:
    mine = error in function.bite.plan
    function.seen.append((type(error).__name__, mine, list(getattr(error, "__notes__", ())), error.__cause__))


async def one(function: Function, guarded: Any, shape: str, number: int) -> None:
    x: Any = 0 if function.bite.same_args else number
    x = [x] if function.bite.items else x
    try:
        if shape == "async":
            result = await guarded(x)
        elif shape == "sync":
            result = guarded(x)
        elif shape == "generator":
            result = list(guarded(x))
        else:
            result = [item async for item in guarded(x)]
    except Exception as error:  # noqa: BLE001 - written down
        outcome(function, error)
    else:
        function.seen.append(("result", result))
    function.seen.append(round(clocks.current().now(), 6))


async def at_once(calls: list[Callable[[], Any]]) -> None:
    """Run calls in tasks, ten milliseconds apart: trio starts tasks in any order."""

    async def begin(number: int) -> None:
        await clocks.library_sleep(number / 100)
        await calls[number]()

    if not clocks.in_trio():
        await asyncio.gather(*map(begin, range(len(calls))))
        return
    async with trio.open_nursery() as nursery:
        for number in range(len(calls)):
            nursery.start_soon(begin, number)


def trace(bite: Bite, shape: str, mode: str | None, backend: Any = "asyncio") -> tuple[list[Any], list[Any]]:
    """Return what can be seen of three calls, and the events that tell of them; `mode` None: of the bare function."""
    function = Function(bite)

    async def main() -> None:
        fn = shapes(function)[shape]
        strategy = None if mode is None else bite.make(mode)
        guarded = fn if strategy is None else strategy(fn)
        if bite.together and shape.startswith("async"):
            await at_once([functools.partial(one, function, guarded, shape, number) for number in range(3)])
        else:
            for number in range(3):
                await one(function, guarded, shape, number)
        if strategy is not None:
            await strategy.aclose()

    with testing.record_events() as events:
        testing.run(main, backend=backend)
    for error in bite.plan:
        if isinstance(error, Exception):
            error.__dict__.pop("__notes__", None)
            error.__traceback__ = error.__context__ = None
    return function.seen, list(events)


CASES = [
    (name, shape)
    for name, bite in BITES.items()
    for shape in ("async", "sync", "async generator", "generator")
    if (bite.generators or "generator" not in shape)
    and (bite.sync or shape != "sync")
    and (name != "timeout_thread" or shape == "sync")
]


@pytest.mark.parametrize(("name", "shape"), CASES, ids=[f"{name}-{shape}" for name, shape in CASES])
def test_observing_changes_nothing_about_a_call(name: str, shape: str, backend: Any) -> None:
    bite = BITES[name]
    bare, _ = trace(bite, shape, None, backend)
    observed, events = trace(bite, shape, "observe", backend)
    assert observed == bare
    assert all(event.observed for event in events)
    assert events or not bite.told or (bite.together and not shape.startswith("async") and name != "rate_limit")


@pytest.mark.parametrize(("name", "shape"), CASES, ids=[f"{name}-{shape}" for name, shape in CASES])
def test_the_same_strategy_enforced_does_change_the_calls(name: str, shape: str) -> None:
    """Otherwise the test above shows nothing. Calls of plain functions, one after another, never fill a bulkhead."""
    bite = BITES[name]
    bare, _ = trace(bite, shape, None)
    enforced, _ = trace(bite, shape, "enforce")
    never_full = bite.together and not shape.startswith("async") and name != "rate_limit"
    assert (enforced == bare) is never_full


@pytest.mark.parametrize("mode", ["observe", "enforce", "off"])
def test_a_monitor_changes_nothing_in_any_mode(mode: str) -> None:
    bite = Bite(lambda mode: ag.monitor(mode=mode), (DownError("down"), "ok"))
    for shape in ("async", "sync", "async generator", "generator"):
        assert trace(bite, shape, mode)[0] == trace(bite, shape, None)[0]

"""Every option of every strategy: a change behaves as if the strategy had been made so, or it is refused.

Each row says how a strategy is made, which option changes, and calls that show the difference. A function is guarded,
and the state is there, before the change; then the same calls are made of one strategy that was made with the new
value, of one that was configured to it, and of one within a block that overrides it.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from contextvars import ContextVar
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

import asyncguard as ag
from asyncguard import testing
from asyncguard._runtime import clock as clocks
from asyncguard.strategies.retry import RetryBudget
from tests.strategies.test_options import MAKE

if TYPE_CHECKING:
    from collections.abc import Iterator

NUMBER: ContextVar[int] = ContextVar("number of the call")
HEAR = object()  # stands for a hook that is listened to


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """`plan`: what the function does in its first, second, ... call: sleeps a float, raises an error, returns."""

    base: dict[str, Any] = dataclasses.field(default_factory=dict)
    new: Any
    plan: tuple[Any, ...] = ("ok",)
    calls: int = 3
    apart: float = 0.0
    together: bool = False
    items: bool = False
    args: tuple[tuple[Any, ...], ...] = ()
    refused: bool = False  # by configure
    shared: bool = False  # so refused by override


class Throttled(Exception):  # noqa: N818
    status_code = 429
    headers = {"retry-after": "5"}  # noqa: RUF012


class Scripted:
    """The guarded function."""

    def __init__(self, plan: tuple[Any, ...], heard: list[Any]) -> None:
        self.plan, self.heard, self.count = plan, heard, 0

    async def run(self, *args: Any) -> Any:
        act = self.plan[min(self.count, len(self.plan) - 1)]
        self.count += 1
        self.heard.append(("called", self.count, round(clocks.current().now(), 3), args))
        if isinstance(act, float):
            await asyncio.sleep(act)
        elif isinstance(act, Exception):
            raise act
        return list(act) if isinstance(act, list) else act

    async def generate(self, *args: Any) -> Any:
        for i in range(2):
            yield await self.run(*args)
            self.heard.append(i)


def trace(kind: str, row: Row, option: str, how: str) -> list[Any]:
    """Return everything that can be seen of the calls."""
    heard: list[Any] = []
    scripted = Scripted(row.plan, heard)

    async def fn(x: Any) -> Any:
        return await scripted.run(x)

    async def generator(*args: Any) -> Any:
        async for item in scripted.generate(*args):
            yield item

    async def one(guarded: Any, number: int) -> None:
        NUMBER.set(number)
        args = row.args[number % len(row.args)] if row.args else ("x",)
        try:
            result = [item async for item in guarded(*args)] if row.items else await guarded(*args)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - written down
            result = (type(error).__name__, str(error) if isinstance(error, ag.GuardError) else "")
        heard.append((number, repr(result), round(clocks.current().now(), 3)))
        if isinstance(result, list):
            result.append("changed by its caller")

    async def main() -> None:
        new = heard.append if row.new is HEAR else row.new
        change = {option: new}
        strategy = MAKE_MORE[kind](**{**row.base, **(change if how == "made" else {})})
        guarded = strategy(generator if row.items else fn)
        strategy.core_here()  # the state is there before the change
        if how == "configured":
            strategy.configure(**change)
        with strategy.override(**change) if how == "overridden" else contextlib.nullcontext():
            if row.together:
                await asyncio.gather(*(one(guarded, number) for number in range(row.calls)))
            else:
                for number in range(row.calls):
                    await one(guarded, number)
                    await asyncio.sleep(row.apart)
        if row.base.get("tags") or option == "tags":
            heard.append(strategy.invalidate_tag("t"))
        await strategy.aclose()

    with _logged(heard), testing.record_events() as events:
        testing.run(main)
    return [*map(_plain, heard), *map(_plain, events)]


@contextlib.contextmanager
def _logged(heard: list[Any]) -> Iterator[None]:
    """Hear what a monitor logs."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            facts = {name: value for name, value in vars(record).items() if name.startswith("asyncguard.")}
            heard.append((record.name, record.levelname, repr(sorted(facts.items()))))

    logger, handler = logging.getLogger("asyncguard.monitor"), Handler()
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield
    logger.removeHandler(handler)
    logger.setLevel(before)


def _plain(thing: Any) -> Any:
    if not dataclasses.is_dataclass(thing):
        return thing
    facts = {field.name: getattr(thing, field.name) for field in dataclasses.fields(thing)}
    return type(thing).__name__, {name: repr(value) for name, value in facts.items()}


MAKE_MORE = {
    **MAKE,
    "chaos": lambda rate=1.0, **options: ag.chaos(rate, **{"latency": 1.0, "enabled": True, **options}),
}
MAKE_MORE["rate_limit"] = lambda rates=("1/s",), **options: ag.rate_limit(*rates, **options)
MAKE_MORE["fallback"] = lambda answers=("a",), **options: ag.fallback(*answers, **options)
MAKE_MORE["validate_input"] = lambda rules=None, **options: ag.validate_input(rules or {}, **options)
MAKE_MORE["memory_guard"] = ag.memory_guard

E = ConnectionError("down")
RETRY = {"initial_delay": 1.0, "jitter": "none", "budget": None, "max_retries": 3, "name": "r"}
BREAKER = {"window": 4, "minimum_calls": 2, "open_for": 10.0, "max_open_for": 40.0}
SLOTS = {"max_concurrent": 1, "max_queue": 1, "max_wait": 5.0}
RATE = {"rates": ("1/s burst 1",), "max_wait": 2.5}
LIMITS = {"initial": 1, "min_limit": 1, "max_limit": 4, "max_queue": 1, "max_wait": 5.0}
HEDGE = {"delay": 1.0, "max_extra_load": 1.0}
EACH = ((1,), (2,), (3,), (4,))


def by_argument(*args: Any) -> Any:
    return args[0]


ROWS: dict[str, dict[str, Row]] = {
    "retry": {
        "on": Row(base=RETRY, new=KeyError, plan=(E,)),
        "max_retries": Row(base=RETRY, new=1, plan=(E,)),
        "initial_delay": Row(base=RETRY, new=2.0, plan=(E,)),
        "backoff_factor": Row(base=RETRY, new=3.0, plan=(E,)),
        "max_delay": Row(base=RETRY, new=1.5, plan=(E,)),
        "jitter": Row(base=RETRY, new=0.5, plan=(E,)),
        "on_result": Row(base=RETRY, new=lambda result: result == "bad", plan=("bad", "ok")),
        "max_retry_after": Row(base=RETRY, new=1.0, plan=(Throttled(), "ok")),
        "budget": Row(base=RETRY, new=RetryBudget(0.001, 0.001), plan=(E,)),
        "retry_rejected": Row(base=RETRY | {"on": Exception}, new=True, plan=(ag.BulkheadFullError("full"), "ok")),
        "partition": Row(base=RETRY, new=by_argument, plan=(E,)),
        "mode": Row(base=RETRY, new="observe", plan=(E,)),
        "on_event": Row(base=RETRY, new=HEAR, plan=(E,)),
    },
    "timeout": {
        "seconds": Row(base={"seconds": 5.0}, new=1.0, plan=(3.0,)),
        "scope": Row(new="attempt", refused=True),
        "thread": Row(new=True, refused=True),
        "first_item": Row(base={"seconds": 50.0}, new=1.0, plan=(3.0,), items=True),
        "idle": Row(base={"seconds": 50.0}, new=1.0, plan=("ok", 3.0), items=True),
        "mode": Row(base={"seconds": 1.0}, new="observe", plan=(3.0,)),
        "on_event": Row(base={"seconds": 1.0}, new=HEAR, plan=(3.0,)),
    },
    "circuit_breaker": {
        "failure_rate": Row(base=BREAKER, new=1.0, plan=(E, "ok", E, "ok"), calls=6, shared=True),
        "window": Row(base=BREAKER, new=timedelta(seconds=1), plan=(E,), calls=6, apart=2.0, shared=True),
        "minimum_calls": Row(base=BREAKER, new=4, plan=(E,), calls=6, shared=True),
        "open_for": Row(base=BREAKER, new=1.0, plan=(E,), calls=6, apart=2.0, shared=True),
        "on": Row(base=BREAKER, new=KeyError, plan=(E,), calls=6),
        "slow_call": Row(base=BREAKER, new=0.5, plan=(1.0,), calls=6, shared=True),
        "slow_call_rate": Row(base=BREAKER | {"slow_call": 0.5}, new=0.5, plan=(1.0, "ok") * 5, calls=6, shared=True),
        "consecutive_failures": Row(base=BREAKER, new=1, plan=("ok",) * 4 + (E, "ok"), calls=8, shared=True),
        "open_factor": Row(base=BREAKER, new=1.0, plan=(E,), calls=20, apart=4.0, shared=True),
        "max_open_for": Row(base=BREAKER, new=12.0, plan=(E,), calls=20, apart=4.0, shared=True),
        "half_open_calls": Row(base=BREAKER, new=1, plan=(E, E, E, "ok"), calls=12, apart=4.0, shared=True),
        "partition": Row(base=BREAKER, new=by_argument, plan=(E,), calls=8, args=EACH),
        "max_wait": Row(new=1.0, refused=True),
        "mode": Row(base=BREAKER, new="observe", plan=(E,), calls=6),
        "on_event": Row(base=BREAKER, new=HEAR, plan=(E,), calls=6),
    },
    "bulkhead": {
        "max_concurrent": Row(base=SLOTS, new=2, plan=(3.0,), calls=5, together=True, shared=True),
        "max_queue": Row(base=SLOTS, new=0, plan=(3.0,), calls=5, together=True, shared=True),
        "max_wait": Row(base=SLOTS, new=1.0, plan=(3.0,), calls=5, together=True),
        "priority": Row(
            base=SLOTS | {"max_queue": 9, "max_wait": 60, "priority": lambda x: x if isinstance(x, int) else 0},
            new=lambda x: -x if isinstance(x, int) else 0,
            plan=(3.0,),
            calls=4,
            together=True,
            args=EACH,
        ),
        "weight": Row(
            base={"max_concurrent": 2, "max_wait": 60, "weight": 1}, new=2, plan=(3.0,), calls=4, together=True
        ),
        "partition": Row(base=SLOTS, new=by_argument, plan=(3.0,), calls=4, together=True, args=EACH),
        "mode": Row(base=SLOTS, new="observe", plan=(3.0,), calls=4, together=True),
        "on_event": Row(base=SLOTS, new=HEAR, plan=(3.0,), calls=4, together=True),
    },
    "rate_limit": {
        "rates": Row(base=RATE, new=("2/s burst 2",), calls=6, together=True, shared=True),
        "max_wait": Row(base=RATE, new=1.5, calls=6, together=True),
        "partition": Row(base=RATE, new=by_argument, calls=4, together=True, args=EACH),
        "mode": Row(base=RATE, new="observe", calls=6, together=True),
        "on_event": Row(base=RATE, new=HEAR, calls=6, together=True),
    },
    "adaptive_concurrency": {
        "initial": Row(
            base=LIMITS | {"partition": by_argument}, new=3, plan=(1.0,), calls=5, together=True, shared=True
        ),
        "min_limit": Row(base=LIMITS | {"initial": 4}, new=3, plan=(Throttled(),), calls=30, apart=1.0, shared=True),
        "max_limit": Row(
            base=LIMITS | {"max_queue": 99, "max_wait": 99.0}, new=2, plan=(1.0,), calls=60, together=True, shared=True
        ),
        "algorithm": Row(
            base={"initial": 4, "max_queue": 99, "max_wait": 999},
            new="aimd",
            plan=(1.0,) * 40 + (9.0,),
            calls=99,
            together=True,
            shared=True,
        ),
        "max_queue": Row(base=LIMITS, new=0, plan=(1.0,), calls=5, together=True, shared=True),
        "max_wait": Row(base=LIMITS, new=0.5, plan=(1.0,), calls=5, together=True),
        "partition": Row(base=LIMITS, new=by_argument, plan=(1.0,), calls=4, together=True, args=EACH),
        "mode": Row(base=LIMITS, new="observe", plan=(1.0,), calls=5, together=True),
        "on_event": Row(base=LIMITS, new=HEAR, plan=(1.0,), calls=5, together=True),
    },
    "hedge": {
        "max_extra_load": Row(base=HEDGE, new=0.01, plan=(9.0, 0.5) * 9, calls=15, shared=True),
        "delay": Row(base=HEDGE, new=2.0, plan=(9.0, 0.5)),
        "max_hedges": Row(base=HEDGE, new=2, plan=(9.0,), calls=9),
        "budget": Row(base=HEDGE, new=RetryBudget(0.001, 0.001), plan=(9.0, 0.5) * 9, calls=15),
        "partition": Row(base=HEDGE, new=by_argument, plan=(9.0, 0.5)),
        "mode": Row(base=HEDGE, new="observe", plan=(9.0, 0.5)),
        "on_event": Row(base=HEDGE, new=HEAR, plan=(9.0, 0.5)),
    },
    "fallback": {
        "answers": Row(new=("b",), plan=(E,)),
        "on": Row(new=KeyError, plan=(E,)),
        "mode": Row(new="observe", plan=(E,)),
        "on_event": Row(new=HEAR, plan=(E,)),
    },
    "chaos": {
        "rate": Row(new=0.0),
        "latency": Row(new=3.0),
        "error": Row(new=OSError, calls=9),
        "result": Row(new="stand-in", calls=9),
        "cancel": Row(new=True, calls=1),
        "enabled": Row(new=False),
        "seed": Row(base={"rate": 0.5, "seed": 1}, new=2, calls=20, shared=True),
        "mode": Row(new="observe"),
        "on_event": Row(new=HEAR),
    },
    "validate_input": {
        "rules": Row(new={"x": lambda x: x == "y"}),
        "returns": Row(new=lambda result: result == "better"),
        "fallback": Row(base={"rules": {"x": lambda x: x == "y"}}, new="stand-in"),
        "mode": Row(base={"rules": {"x": lambda x: x == "y"}}, new="observe"),
        "on_event": Row(base={"rules": {"x": lambda x: x == "y"}}, new=HEAR),
    },
    "monitor": {
        "record": Row(new=("x",)),
        "drift": Row(new="first:10", refused=True),
        "slow": Row(new=0.5, plan=(1.0,)),
        "inputs": Row(new="off"),
        "output": Row(new="off"),
        "redact": Row(base={"record": ("x",)}, new=("x",)),
        "sample": Row(new=0.0),
        "logger": Row(new="asyncguard.monitor.mine"),
        "mode": Row(new="off"),
        "on_event": Row(new=HEAR),
    },
    "memory_guard": {
        "share": Row(new="process", refused=True),
        "device": Row(new="cpu", refused=True),
        "initial_estimate": Row(new=1, refused=True),
    },
    "cache_result": {
        "ttl": Row(new=1.0, apart=2.0),
        "max_entries": Row(new=1, calls=12, args=EACH),
        "key": Row(new=lambda x: 0, args=EACH),
        "stale_while_revalidate": Row(base={"ttl": 1.0}, new=60.0, plan=("a", "b"), apart=2.0),
        "stale_if_error": Row(base={"ttl": 1.0}, new=60.0, plan=("a", E), apart=2.0),
        "max_bytes": Row(new=1),
        "negative_ttl": Row(new=1.0, plan=(None,), apart=2.0),
        "cache_if": Row(new=lambda result: False),
        "refresh_at": Row(base={"ttl": 10.0}, new=0.1, calls=6, apart=3.0),
        "ignore": Row(new="x", args=EACH),
        "vary_on": Row(new=(NUMBER,)),
        "tags": Row(new="t"),
        "isolation": Row(new="share", plan=([1],)),
        "store": Row(new="redis://", refused=True),
        "mode": Row(new="off"),
        "on_event": Row(new=HEAR),
    },
}

CASES = [(kind, option, row) for kind, rows in ROWS.items() for option, row in rows.items()]


@pytest.mark.parametrize(("kind", "option", "row"), CASES, ids=[f"{kind}-{option}" for kind, option, _ in CASES])
def test_a_change_is_as_if_it_had_been_made_so_or_is_refused(kind: str, option: str, row: Row) -> None:
    if row.refused:
        for how in ("configured", "overridden"):
            with pytest.raises((TypeError, ValueError), match=option):
                trace(kind, row, option, how)
        return
    wanted = trace(kind, row, option, "made")
    assert wanted != trace(kind, row, option, "unchanged"), "the calls of this row do not show the difference"
    assert trace(kind, row, option, "configured") == wanted
    if row.shared or option == "on_event":
        with pytest.raises(TypeError, match=f"{option} is the same for all calls"):
            trace(kind, row, option, "overridden")
    else:
        assert trace(kind, row, option, "overridden") == wanted


NOT_HERE = {
    ("retry", "retry_exhausted"): "needs two retries: test_configure_more.py",
    ("cache_result", "version"): "needs entries of before the change: test_cache_result.py",
    ("cache_result", "on_abandon"): "needs a caller that leaves: test_configure_more.py",
}


@pytest.mark.parametrize("kind", [kind for kind in MAKE if kind not in {"cache_items", "memory_guard"}])
def test_every_option_has_a_row(kind: str) -> None:
    """Those of memory_guard need a machine (test_memory_guard.py), those of cache_items are those of cache_result."""
    options = {field.name for field in dataclasses.fields(MAKE_MORE[kind]().options)} - {"name"}
    assert options == set(ROWS[kind]) | {option for other, option in NOT_HERE if other == kind}

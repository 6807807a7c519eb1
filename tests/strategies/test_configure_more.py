"""`configure` and `override`: what the table of test_configure_all.py cannot show, and what no function can have."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Any

import pytest

import asyncguard as ag
from asyncguard import testing

E = ConnectionError("down")


@pytest.mark.parametrize("how", ["configured", "overridden"])
def test_errors_on_which_an_inner_retry_gave_up_are_retried_after_the_change(how: str) -> None:
    calls: list[int] = []
    inner, outer = ag.retry(max_retries=1, initial_delay=0), ag.retry(max_retries=1, initial_delay=0)

    @outer
    def twice() -> None:
        once()

    @inner
    def once() -> None:
        calls.append(1)
        raise E

    def count() -> int:
        calls.clear()
        with testing.virtual_clock(), pytest.raises(ConnectionError):
            twice()
        return len(calls)

    assert count() == 2
    if how == "configured":
        outer.configure(retry_exhausted=True)
    with outer.override(retry_exhausted=True) if how == "overridden" else contextlib.nullcontext():
        assert count() == 4


@pytest.mark.parametrize("how", ["configured", "overridden"])
def test_a_computation_whose_caller_leaves_goes_on_after_the_change(how: str) -> None:
    cache = ag.cache_result(60)
    ended: list[str] = []

    @cache
    async def slow(x: int) -> int:
        await asyncio.sleep(5)
        ended.append("ended")
        return x

    async def main() -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(slow(1), 1)
        await asyncio.sleep(9)
        assert ended == []
        if how == "configured":
            cache.configure(on_abandon="finish")
        with cache.override(on_abandon="finish") if how == "overridden" else contextlib.nullcontext():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(slow(2), 1)
            await asyncio.sleep(9)
        assert ended == ["ended"]

    testing.run(main)


# --- options that not every function can have -------------------------------------------------------------------------


async def coroutine() -> None: ...


def plain() -> None: ...


def generator() -> Any:
    yield


MISFITS: list[tuple[str, Any, Any, dict[str, Any]]] = [
    ("first_item", lambda: ag.timeout(5), coroutine, {"first_item": 1.0}),
    ("idle", lambda: ag.timeout(5), plain, {"idle": 1.0}),
    ("cancel", lambda: ag.chaos(0.5, error=OSError), plain, {"cancel": True}),
    ("result", lambda: ag.chaos(0.5, error=OSError), generator, {"result": 1}),
    ("fallback", lambda: ag.fallback(1), plain, {"answers": (coroutine,)}),
    ("fallback", lambda: ag.validate_input({}), plain, {"fallback": coroutine}),
    ("fallback", lambda: ag.validate_input({}), generator, {"fallback": 1}),
    ("returns", lambda: ag.validate_input({}), generator, {"returns": lambda result: True}),
    ("parameter", lambda: ag.validate_input({}), plain, {"rules": {"nope": lambda x: True}}),
    ("record", ag.monitor, plain, {"record": ("nope",)}),
]


@pytest.mark.parametrize(("says", "make", "fn", "changes"), MISFITS, ids=[str(n) for n in range(len(MISFITS))])
def test_what_a_function_could_not_be_decorated_with_is_refused_later_too(says, make, fn, changes) -> None:
    strategy = make()
    guarded = strategy(fn)
    before = strategy.options
    with pytest.raises(TypeError, match=says):
        strategy.configure(**changes)
    with pytest.raises(TypeError, match=says), strategy.override(**changes):
        """Refused."""
    assert strategy.options is before
    assert ag.pipeline_of(guarded)


@pytest.mark.parametrize("kind", ["cache_result", "cache_items"])
def test_a_cache_refuses_rules_that_its_function_cannot_have_and_goes_on_as_before(kind: str) -> None:
    cache: Any = ag.cache_result(60) if kind == "cache_result" else ag.cache_items(60, over="texts")

    @cache
    def embed(texts: list[str], model: str = "small") -> list[str]:
        return [model for _ in texts]

    before = cache.options
    with pytest.raises(ValueError, match=r"ignore must name parameters of .*embed \(texts, model\), got 'modell'"):
        cache.configure(ignore=("modell",))
    with pytest.raises(ValueError, match="ignore must name"), cache.override(ignore=("modell",)):
        """Refused."""
    assert cache.options is before
    cache.configure(ttl=5, ignore=("model",))
    assert embed(["a"], "small") == embed(["a"], model="big") == ["small"]


@pytest.mark.parametrize("rates", [None, 5, True, ag.rate_limit, ["10/s", None]])
def test_rates_that_are_none_say_what_a_rate_is(rates: Any) -> None:
    limit = ag.rate_limit("5/s")
    with pytest.raises(TypeError, match=r'a rate must be a text like "100/s"'):
        limit.configure(rates=rates)
    limit.configure(rates=["10/s", ag.Rate("100/min")])
    assert len(limit.options.rates) == 2


def test_what_is_built_in_is_refused_with_the_reason_and_may_be_said_again() -> None:
    strategy = ag.timeout(5)
    with pytest.raises(TypeError, match="thread of timeout cannot be changed: whether a function runs in a thread"):
        strategy.configure(thread=True)
    strategy.configure(thread=False, scope="total", seconds=3)
    assert strategy.options.seconds == 3


def test_a_change_under_a_virtual_clock_holds_for_the_real_one_too() -> None:
    slots, limits = ag.bulkhead(1), ag.rate_limit("1/h", max_wait=0)
    with testing.virtual_clock():
        slots.configure(max_concurrent=7)
        limits.configure(rates="9/h burst 9")
    assert slots.gate.size == 7
    assert [limits(lambda: 1)() for _ in range(9)] == [1] * 9


def test_whoever_hears_of_a_change_may_change_something() -> None:
    """No lock is held while a listener runs: another thread may use the strategy, and is waited for."""
    heard: list[Any] = []

    def listen(event: Any) -> None:
        thread = threading.Thread(target=lambda: heard.append(limiter.configure(max_wait=1)))
        thread.start()
        thread.join(60)
        assert not thread.is_alive()
        heard.append(event)

    limiter = ag.adaptive_concurrency(initial=5, on_event=listen)
    limiter.configure(max_limit=3, initial=3)
    assert len(heard) == 2

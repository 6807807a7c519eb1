"""Pipelines: order, introspection, growth, calling through, modes from outside."""

from __future__ import annotations

import asyncio
import os
import pickle
import subprocess
import sys
import types
import warnings
from pathlib import Path

import pytest

import asyncguard as ag
from asyncguard import events, testing
from asyncguard._order import _HARMFUL, PLACES, Misplaced
from asyncguard._pipeline import record_of
from asyncguard.strategies.bulkhead import Bulkhead
from asyncguard.strategies.timeout import Timeout


async def echo(x):
    return x


def test_guard_sorts_into_the_canonical_order_and_pipeline_keeps_the_given_one():
    total, attempt, slots = ag.timeout(9), ag.timeout(3, scope="attempt"), ag.bulkhead(2)
    assert list(ag.guard(attempt, slots, total)) == [total, slots, attempt]
    assert list(ag.Pipeline(attempt, slots, total)) == [attempt, slots, total]


def test_a_pipeline_finds_a_strategy_by_class_and_says_what_it_has():
    pipeline = ag.guard(ag.timeout(9), ag.bulkhead(2))
    assert isinstance(pipeline[Bulkhead], Bulkhead)
    assert isinstance(pipeline[Timeout], Timeout)
    assert len(pipeline) == 2
    with pytest.raises(KeyError, match="no Timeout in this pipeline, it has: Bulkhead"):
        ag.guard(ag.bulkhead(1))[Timeout]
    with pytest.raises(TypeError, match=r"found by its class in asyncguard\.strategies, got 'retry'; it has: T"):
        pipeline["retry"]


def test_explain_names_the_function_and_each_place():
    fn = ag.guard(ag.timeout(9), ag.bulkhead(2))(echo)
    assert ag.pipeline_of(fn).explain().splitlines() == [
        f"{__name__}.echo, outermost first:",
        "  1. timeout: bounds the whole call, retries and waits included",
        "  2. bulkhead: bounds how many calls run at once",
    ]
    assert "timeout, bulkhead" in repr(ag.pipeline_of(fn))


def test_explain_says_the_kind_of_a_named_strategy_and_what_a_timeout_inside_of_a_retry_bounds():
    pipeline = ag.Pipeline(ag.retry(name="client"), ag.timeout(9))
    assert pipeline.explain().splitlines()[1:] == [
        "  1. retry 'client': each attempt takes its own permits",
        "  2. timeout: bounds each attempt of the retry around it",
    ]


def test_what_cannot_be_decorated_is_refused_with_what_to_do_instead():
    with pytest.raises(TypeError, match=r"guard the methods of a class"):
        ag.bulkhead(2)(dict)
    with pytest.raises(TypeError, match=r"put @property outside"):
        ag.retry(property(echo))
    with pytest.raises(TypeError, match=r"got 'text'; .* lacks its parentheses: @cache_result\(...\)"):
        ag.cache_result(len)("text")
    with pytest.raises(TypeError, match=r"by keyword, such as retry\(max_retries=3\), got 3"):
        ag.retry(3)


def test_what_is_no_strategy_is_refused_with_a_hint():
    with pytest.raises(TypeError, match=r"call the factory: timeout\(\.\.\.\), not timeout"):
        ag.guard(ag.timeout)
    with pytest.raises(TypeError, match="call the factory"):
        ag.Pipeline("retry")


def test_pipeline_of_an_unguarded_function_is_an_error():
    with pytest.raises(TypeError, match=r"echo is not guarded"):
        ag.pipeline_of(echo)


def test_an_empty_pipeline_leaves_the_function_alone():
    assert ag.guard()(echo) is echo


def test_a_pipeline_serves_many_functions_and_sharing_shares_the_state():
    slots = ag.bulkhead(1, max_queue=0)
    pipeline = ag.guard(slots, name="embedder")

    @pipeline
    async def one():
        with pytest.raises(ag.BulkheadFullError):
            await two()
        return 1

    @pipeline
    async def two():
        return 2

    assert asyncio.run(one()) == 1
    assert asyncio.run(two()) == 2


def test_every_harmful_pair_is_of_kinds_that_exist_and_warns():
    for outer, inner in _HARMFUL:
        assert outer in PLACES
        assert inner in PLACES


@pytest.mark.parametrize(
    ("outer", "inner", "reason"),
    [
        ("cache_result", "fallback", "kept as if the function had answered it"),
        ("cache_items", "fallback", "kept as if the function had answered it"),
        ("adaptive_concurrency", "fallback", "hides the failures"),
        ("rate_limit", "adaptive_concurrency", "burst out of it"),
        ("rate_limit", "memory_guard", "burst out of it"),
        ("rate_limit", "hedge", "only the first copy pays a token"),
        ("rate_limit", "cache_items", "hits pay tokens"),
        ("adaptive_concurrency", "hedge", "share one slot"),
        ("memory_guard", "hedge", "share the bytes"),
        ("bulkhead", "cache_items", "hits queue behind misses"),
        ("adaptive_concurrency", "cache_result", "hits queue behind misses"),
        ("memory_guard", "cache_result", "hits reserve bytes"),
    ],
)
def test_what_harms_one_of_a_kind_is_said_of_the_others_too(outer, inner, reason):
    make = {
        "adaptive_concurrency": ag.adaptive_concurrency,
        "bulkhead": lambda: ag.bulkhead(1),
        "cache_items": lambda: ag.cache_items(60),
        "cache_result": lambda: ag.cache_result(60),
        "fallback": lambda: ag.fallback(None),
        "hedge": ag.hedge,
        "memory_guard": lambda: ag.memory_guard(estimate=1),
        "rate_limit": lambda: ag.rate_limit("10/s"),
    }
    strategies = make[outer](), make[inner]()
    assert f"! {inner} inside {outer}" in ag.Pipeline(*strategies).explain()
    assert reason in ag.Pipeline(*strategies).explain()
    assert "!" not in ag.guard(*strategies).explain()


def test_a_harmful_order_warns_once_at_decoration_with_the_reason():
    with pytest.warns(Misplaced.Warning, match="tokens paid in front of a queue burst out of it"):
        guarded = ag.rate_limit("10/s")(ag.bulkhead(1)(echo))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ag.timeout(5)(guarded)  # the pair is known already
    assert "!" in ag.pipeline_of(guarded).explain()


def test_bound_methods_resolve_to_their_function():
    class Service:
        @ag.timeout(3)
        async def call(self, x):
            return (self, x)

    service = Service()
    assert ag.pipeline_of(service.call) is ag.pipeline_of(Service.call)
    again = ag.bulkhead(1)(service.call)
    assert asyncio.run(again(1)) == (service, 1)
    assert len(ag.pipeline_of(again)) == 2


def test_call_goes_through_for_clients_that_hide_their_coroutines():
    class Client:
        def create(self, *, text):
            return echo(text)  # a plain function that returns an awaitable, as most clients have

    pipeline = ag.guard(ag.timeout(5), ag.bulkhead(1), name="client")
    client = Client()

    async def main():
        assert await pipeline.call(client.create, text="a") == "a"
        assert await pipeline.call(echo, "b") == "b"

    asyncio.run(main())
    assert pipeline.call_sync(len, "abc") == 3
    assert pipeline[Bulkhead].gate.idle()


def test_real_clients_that_hide_their_coroutines():
    openai = pytest.importorskip("openai")
    redis = pytest.importorskip("redis.asyncio")
    create = openai.AsyncOpenAI(api_key="none", base_url="http://127.0.0.1:9").chat.completions.create
    for hidden in (create, redis.Redis(port=9).get):
        guarded = ag.timeout(5)(hidden)
        if not asyncio.iscoroutinefunction(guarded):
            arguments = {"messages": [], "model": "m"} if hidden is create else {"name": "key"}
            with pytest.raises(TypeError, match=r"as_async\("):
                guarded(**arguments)
        assert asyncio.iscoroutinefunction(ag.timeout(5)(ag.as_async(hidden)))


def test_as_async_keeps_the_name_and_awaits():
    def hidden(x):
        return echo(x)

    call = ag.as_async(hidden)
    assert call.__name__ == "hidden"
    assert asyncio.run(call(3)) == 3
    assert asyncio.run(ag.timeout(3)(ag.as_async(types.SimpleNamespace(__call__=hidden).__call__))(4)) == 4


def test_the_record_is_believed_only_on_the_wrapper_itself():
    import functools

    guarded = ag.timeout(3)(echo)

    @functools.wraps(guarded)
    async def foreign(x):
        return await guarded(x)

    assert record_of(guarded) is not None
    assert record_of(foreign) is None


def test_partition_of_a_pipeline_gives_each_its_own_slots():
    slots = ag.bulkhead(1, max_queue=0)

    @ag.guard(slots, partition=lambda tenant: tenant)
    async def call(tenant):
        await asyncio.sleep(1)
        return tenant

    async def main():
        results = await asyncio.gather(call("a"), call("b"), call("a"), return_exceptions=True)
        assert results[:2] == ["a", "b"]
        assert isinstance(results[2], ag.BulkheadFullError)
        assert results[2].partition == "a"

    testing.run(main)


def test_status_shows_what_is_going_on():
    @ag.bulkhead(1, name="slots")
    async def busy():
        return [str(fact) for fact in ag.status() if "busy" in fact.pipeline]

    assert asyncio.run(busy()) == [
        f"{__name__}.test_status_shows_what_is_going_on.<locals>.busy slots: 1 of 1 running, queue 0/10"
    ]


def test_status_shows_a_pipeline_that_is_only_called_through():
    pipeline = ag.guard(ag.bulkhead(3), name="only called through")
    assert [str(fact) for fact in ag.status() if fact.pipeline == pipeline.name] == [
        "only called through bulkhead: 0 of 3 running, queue 0/30"
    ]


def test_subscribe_sees_events_and_a_failing_handler_changes_nothing(caplog):
    seen = []
    end = ag.subscribe(seen.append)
    fail = ag.subscribe(lambda event: 1 / 0)
    limit = ag.bulkhead(1, max_queue=0, on_event=seen.append)
    try:
        with limit.permit(), pytest.raises(ag.BulkheadFullError), limit.permit():
            """Refused."""
        with limit.permit(), pytest.raises(ag.BulkheadFullError), limit.permit():
            """Refused again."""
    finally:
        fail()
        end()
        end()
    assert [type(event) for event in seen] == [events.CallRejected] * 4
    assert caplog.text.count("an event handler failed") == 1
    with pytest.raises(TypeError, match="subscribe needs a callable"):
        ag.subscribe(None)


def test_override_holds_in_its_context_only():
    strategy = ag.timeout(5)

    @strategy
    async def fn():
        await asyncio.sleep(7)
        return "done"

    async def main():
        async def overridden():
            with strategy.override(seconds=10):
                return await fn()

        results = await asyncio.gather(overridden(), fn(), return_exceptions=True)
        assert results[0] == "done"
        assert isinstance(results[1], ag.CallTimeoutError)

    testing.run(main)
    assert strategy.special == 0


def test_configure_changes_calls_that_start_later():
    strategy = ag.timeout(5)

    @strategy
    async def fn():
        await asyncio.sleep(7)
        return "done"

    async def main():
        with pytest.raises(ag.CallTimeoutError):
            await fn()
        strategy.configure(seconds=10)
        assert await fn() == "done"
        with pytest.raises(ValueError, match="seconds must be"):
            strategy.configure(seconds=-1)
        assert await fn() == "done"

    testing.run(main)


SCRIPT = """
import asyncio, asyncguard as ag

@ag.bulkhead(1, max_queue=0)
async def embedder():
    return await embedder() if ag.pipeline_of(embedder) and not inner.append(1) and len(inner) < 3 else len(inner)

inner = []
print(asyncio.run(embedder()))
"""


@pytest.mark.parametrize("mode", ["__main__.embedder.bulkhead=off", "embedder.bulkhead=observe", "*.bulkhead=off"])
def test_the_environment_switches_modes(mode):
    out = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, "ASYNCGUARD_MODE": mode},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (out.returncode, out.stdout) == (0, "3\n"), out.stderr


def test_the_environment_finds_a_strategy_whose_name_has_a_dot():
    script = """
import asyncguard as ag
breaker = ag.circuit_breaker(name="api.main")
@breaker
def search():
    return 1
site, = breaker.sites()
print(breaker.mode_at(site))
"""
    for pattern, mode in (
        ("search.api.main", "off"),
        ("__main__.search.api.main", "off"),
        ("search.circuit_breaker", "off"),
        ("api.api.main", "enforce"),
    ):
        environment = {**os.environ, "ASYNCGUARD_MODE": f"{pattern}=off"}
        out = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False
        )
        assert out.stdout == f"{mode}\n", (pattern, out.stderr)


def test_without_it_the_bulkhead_holds_and_nonsense_is_refused():
    environment = {**os.environ, "ASYNCGUARD_MODE": ""}
    out = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=False)
    assert "BulkheadFullError" in out.stderr
    environment["ASYNCGUARD_MODE"] = "x.retry=sometimes"
    out = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=False)
    assert "ASYNCGUARD_MODE: the mode of 'x.retry' must be one of" in out.stderr
    environment["ASYNCGUARD_MODE"] = "retry=off"  # without a dot it would match nothing, ever
    out = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=False)
    assert "write FUNCTION.STRATEGY=MODE, such as *.retry=off, got 'retry=off'" in out.stderr


def test_errors_pickle_with_their_facts():
    error = ag.CircuitOpenError("open", strategy="breaker", partition="acme", retry_after=3.0)
    error.add_note("asyncguard: a note")
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.retry_after, again.strategy, again.partition) == (
        ag.CircuitOpenError,
        "open",
        3.0,
        "breaker",
        "acme",
    )
    assert again.__notes__ == ["asyncguard: a note"]


def test_violations_compare_print_and_pickle():
    from asyncguard.errors import Violation

    violation = Violation("x", "shape", "(2,)", "(3,)", path="[0]", where="first at [1]")
    assert str(violation) == "x[0]: shape: expected (2,), got (3,), first at [1]"
    assert pickle.loads(pickle.dumps(violation)) == violation
    assert len({violation, pickle.loads(pickle.dumps(violation))}) == 1
    assert violation != "x"
    assert "shape" in repr(violation)


def test_calling_through_a_pipeline_says_what_it_takes():
    pipeline = ag.guard(ag.retry())
    with pytest.raises(TypeError, match=r"len returned int, which cannot be awaited; .*call_sync"):
        asyncio.run(pipeline.call(len, "abc"))
    coroutine = echo(1)
    with pytest.raises(TypeError, match=r"a pipeline calls a function: pipeline.call\(fn, ...\), got <coroutine"):
        asyncio.run(pipeline.call(coroutine))
    coroutine.close()


def test_a_warning_about_order_names_the_function_and_points_at_its_decorator():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")  # once for each line: both functions have one of their own

        @ag.bulkhead(2)
        @ag.retry()
        def one(): ...

        @ag.bulkhead(2)
        @ag.retry()
        def two(): ...

    assert [Path(each.filename).name for each in caught] == [Path(__file__).name] * 2
    assert [f".{name}: " in str(each.message) for name, each in zip(("one", "two"), caught, strict=True)] == [True] * 2

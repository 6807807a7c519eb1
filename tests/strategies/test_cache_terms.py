"""What a call goes by: the options in force, worked out once, and the short ways that must not change an answer."""

from __future__ import annotations

import anyio
import pytest

import asyncguard as ag
from asyncguard import testing


async def lives_for(fn, value):
    """Return how many seconds (of 1, 5, 20, 100) the answer to a call is one from the cache."""
    calls = fn.calls
    await fn(value)
    began = len(calls)
    for age, step in ((1, 1), (5, 4), (20, 15), (100, 80)):
        await anyio.sleep(step - 0.5)
        await fn(value)
        if len(calls) > began:
            return age
        await anyio.sleep(0.5)
    return None


def cached(cache):
    calls = []

    async def fn(x):
        calls.append(x)
        return x

    guarded = cache(fn)
    guarded.calls = calls
    return guarded


def test_empty_results_live_for_the_negative_ttl_and_the_others_for_the_ttl(backend):
    fn = cached(ag.cache_result(18, negative_ttl=3))

    async def main():
        return [await lives_for(fn, value) for value in (None, [], "found")]

    assert testing.run(main, backend=backend) == [5, 5, 20]


def test_a_ttl_that_the_result_tells_is_asked_for_each(backend):
    fn = cached(ag.cache_result(len))

    async def main():
        return [await lives_for(fn, "x" * number) for number in (3, 18, 0)]

    assert testing.run(main, backend=backend) == [5, 20, 1]


@pytest.mark.parametrize("how", ["override", "configure"])
def test_other_options_are_in_force_at_once(backend, how):
    cache = ag.cache_result(18)
    fn = cached(cache)

    async def main():
        if how == "configure":
            cache.configure(ttl=3)
            return [await lives_for(fn, "a")]
        with cache.override(ttl=3):
            inside = await lives_for(fn, "a")
        return [inside, await lives_for(fn, "b")]

    assert testing.run(main, backend=backend) == ([5] if how == "configure" else [5, 20])


def test_tags_that_are_the_same_for_all_calls_and_those_that_are_not():
    same, own = ag.cache_result(60, tags=("a", "b")), ag.cache_result(60, tags=lambda x: (f"tag{x}",))
    functions = [cache(lambda x: x) for cache in (same, own)]  # what a cache holds goes with its function
    for fn in functions:
        fn(1), fn(2)
    assert [same.invalidate_tag("b"), same.invalidate_tag("a")] == [2, 0]
    assert [own.invalidate_tag("tag1"), own.invalidate_tag("tag2")] == [1, 1]


@pytest.mark.parametrize(
    "call", [lambda fn, value: fn(value), lambda fn, value: fn(thing=value)], ids=["position", "name"]
)
def test_an_argument_without_a_key_is_named_also_where_it_is_the_only_one(call):
    @ag.cache_result(60)
    def fn(thing):
        return 1

    with pytest.raises(TypeError, match="the argument 'thing' cannot be part of a cache key"):
        call(fn, iter("a"))


def test_rules_that_differ_at_every_call_do_not_fill_the_memory():
    cache = ag.cache_result(60, max_entries=10_000)
    calls = []

    def fn(x):
        calls.append(x)

    fn = cache(fn)
    fn(1)
    for version in range(1000):
        with cache.override(version=str(version)):
            fn(1), fn(1)
    assert len(calls) == 1001
    assert cache.info().entries <= 256
    fn(1)
    assert len(calls) == 1001  # what the function has by its own rules is still there

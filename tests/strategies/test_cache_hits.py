"""The short cut of a hit answers exactly as the long way does; it is taken on the real clock only."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest

import asyncguard as ag
from asyncguard import testing
from asyncguard.strategies import cache_result as module
from asyncguard.strategies.cache_result import CacheResult


@pytest.fixture(params=["async", "sync"])
def side(request):
    calls = []

    def plain(x):
        calls.append(x)
        return [x]

    async def asynchronous(x):
        return plain(x)

    return request.param, calls, asynchronous if request.param == "async" else plain


@pytest.fixture
def long_ways(monkeypatch):
    """How often the long way was taken."""
    taken = []
    look = module.look

    def counting(bound, args, kwargs):
        taken.append(args)
        return look(bound, args, kwargs)

    monkeypatch.setattr(module, "look", counting)
    return taken


def run(colour, fn, *args, **kwargs):
    got = fn(*args, **kwargs)
    return asyncio.run(got) if colour == "async" else got


def test_a_hit_on_an_int_or_a_str_takes_the_short_cut(side, long_ways):
    colour, calls, fn = side
    guarded = ag.cache_result(60)(fn)
    for argument in (1, "a", 1, "a", 1):
        assert run(colour, guarded, argument) == [argument]
    assert (calls, len(long_ways)) == ([1, "a"], 2)
    assert ag.pipeline_of(guarded)[CacheResult].info().hits == 3


def test_the_short_cut_isolates_values_too(side):
    colour, _, fn = side
    guarded = ag.cache_result(60)(fn)
    run(colour, guarded, 1).append("poison")
    run(colour, guarded, 1).append("poison")
    assert run(colour, guarded, 1) == [1]
    shared = ag.cache_result(60, isolation="share")(fn)
    assert run(colour, shared, 1) is run(colour, shared, 1)


def test_arguments_that_python_takes_for_equal_do_not_meet_on_the_short_cut(side):
    colour, calls, fn = side
    guarded = ag.cache_result(60)(fn)
    assert [str(run(colour, guarded, argument)) for argument in (1, True, 1.0, 1, True, 1.0)] == [
        "[1]", "[True]", "[1.0]"] * 2  # fmt: skip
    assert len(calls) == 3


@pytest.mark.parametrize(
    "call", [lambda fn: fn(x=1), lambda fn: fn(True), lambda fn: fn([1])], ids=["keyword", "bool", "list"]
)
def test_other_calls_take_the_long_way_and_hit_as_well(side, call, long_ways):
    colour, calls, fn = side
    guarded = ag.cache_result(60)(fn)
    for _ in range(2):
        got = call(guarded)
        if colour == "async":
            asyncio.run(got)
    assert (len(calls), len(long_ways)) == (1, 2)


@pytest.mark.parametrize("why", ["listener", "hook", "override", "two parameters", "vary", "bypass"])
def test_the_short_cut_is_not_taken_where_more_is_to_be_done(side, long_ways, why):
    colour, calls, fn = side
    heard = []
    cache = ag.cache_result(60, on_event=heard.append if why == "hook" else None)
    guarded = cache((lambda x, y=1: [x]) if why == "two parameters" and colour == "sync" else fn)
    block = {"listener": testing.record_events(), "override": cache.override(ttl=5), "bypass": ag.cache_bypass()}
    run(colour, guarded, 1)
    with block.get(why, contextlib.nullcontext()):
        run(colour, guarded, 1)
    if why in {"listener", "hook", "override", "bypass"} or (why == "two parameters" and colour == "sync"):
        assert len(long_ways) == 2
    assert len(calls) <= (2 if why == "bypass" else 1)
    run(colour, guarded, 1)


def test_an_entry_past_its_time_is_no_hit(side, long_ways):
    colour, calls, fn = side
    guarded = ag.cache_result(0.002)(fn)
    run(colour, guarded, 1)
    time.sleep(0.004)
    run(colour, guarded, 1)
    assert calls == [1, 1]


def test_a_monitored_call_hears_of_its_hits(side):
    colour, _, fn = side
    cache = ag.cache_result(60)
    guarded = ag.guard(ag.monitor(), cache)(fn)
    for _ in range(3):
        run(colour, guarded, 1)
    assert cache.info().hits == 2

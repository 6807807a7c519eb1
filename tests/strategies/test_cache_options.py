"""Every option of the caches is checked when the cache is made, with a message that names it."""

from __future__ import annotations

import math
from contextvars import ContextVar
from datetime import timedelta

import pytest

import asyncguard as ag
from asyncguard.strategies.cache_result import CacheResult

BAD = [
    ({"ttl": 0}, ValueError),
    ({"ttl": -1}, ValueError),
    ({"ttl": math.nan}, ValueError),
    ({"ttl": math.inf}, ValueError),
    ({"ttl": True}, ValueError),
    ({"ttl": None}, TypeError),
    ({"ttl": "10m"}, ValueError),
    ({"ttl": timedelta(0)}, ValueError),
    ({"max_entries": 0}, ValueError),
    ({"max_entries": 1.5}, ValueError),
    ({"max_entries": True}, ValueError),
    ({"max_bytes": 0}, ValueError),
    ({"key": "text"}, TypeError),
    ({"stale_while_revalidate": -1}, ValueError),
    ({"stale_while_revalidate": math.nan}, ValueError),
    ({"stale_if_error": True}, ValueError),
    ({"negative_ttl": -1}, ValueError),
    ({"cache_if": 5}, TypeError),
    ({"refresh_at": 0}, ValueError),
    ({"refresh_at": 1.1}, ValueError),
    ({"refresh_at": True}, ValueError),
    ({"ignore": 5}, TypeError),
    ({"ignore": (5,)}, TypeError),
    ({"vary_on": 5}, TypeError),
    ({"vary_on": ("tenant",)}, TypeError),
    ({"version": 5}, TypeError),
    ({"tags": 5}, TypeError),
    ({"tags": (5,)}, TypeError),
    ({"isolation": "deep"}, ValueError),
    ({"on_abandon": "ignore"}, ValueError),
    ({"store": object()}, TypeError),
    ({"mode": "on"}, ValueError),
]
IDS = [f"{next(iter(bad))}={next(iter(bad.values()))!r:.20}" for bad, _ in BAD]


@pytest.mark.parametrize(("bad", "kind"), BAD, ids=[f"{at}-{name}" for at, name in enumerate(IDS)])
@pytest.mark.parametrize("factory", [ag.cache_result, ag.cache_items], ids=["result", "items"])
def test_a_wrong_option_is_refused_and_named(factory, bad, kind):
    with pytest.raises(kind, match=next(iter(bad))):
        factory(**{"ttl": 60, **bad})


@pytest.mark.parametrize("bad", [{"over": ""}, {"over": 5}, {"max_batch": 0}, {"max_batch": True}], ids=range(4))
def test_a_wrong_option_of_cache_items_is_refused_and_named(bad):
    with pytest.raises((ValueError, TypeError), match=next(iter(bad))):
        ag.cache_items(60, **bad)


def test_an_ignored_name_that_is_no_parameter_is_refused_at_decoration():
    with pytest.raises(ValueError, match=r"ignore must name parameters .*'session'"):
        ag.cache_result(60, ignore="session")(lambda text: text)


@pytest.mark.parametrize("ttl", [math.nan, "10", True])
def test_a_wrong_duration_from_the_result_reaches_the_caller(ttl):
    fn = ag.cache_result(lambda value: ttl)(lambda x: x)
    with pytest.raises(ValueError, match="the result of ttl must be"):
        fn(1)


def test_durations_are_normalised_to_seconds():
    two = timedelta(seconds=2)
    options = ag.cache_result(timedelta(minutes=1), negative_ttl=two, vary_on=ContextVar("v"), ignore="a").options
    assert (options.ttl, options.negative_ttl, options.ignore, len(options.vary_on)) == (60.0, 2.0, ("a",), 1)


def test_options_can_be_set_again_and_stay_what_they_are():
    cache = ag.cache_items(timedelta(minutes=1), over="xs", ignore="a", tags="t")
    cache.configure(max_batch=5)
    options = cache.options
    assert (options.ttl, options.ignore, options.tags, options.max_batch) == (60.0, ("a",), ("t",), 5)


def test_a_decorator_without_its_parentheses_is_named_as_that():
    async def embed(text: str) -> str:
        return text

    for factory in (ag.cache_result, ag.cache_items):
        with pytest.raises(TypeError, match=rf"write @{factory.__name__}\(60\), with parentheses"):
            factory(embed)


def test_the_handle_refuses_arguments_that_no_call_can_have():
    class Model:
        @ag.cache_result(60)
        def embed(self, text: str) -> str:
            return text

    model, cache = Model(), ag.pipeline_of(Model.embed)[CacheResult]
    model.embed("a")
    for use in (cache.get, cache.invalidate, cache.refresh):
        with pytest.raises(TypeError, match=r"missing a required argument: 'text' \(for a method its object"):
            use("a")
    found = cache.of(model.embed).get("a")
    assert found is not None
    assert found.value == "a"


@pytest.mark.parametrize("tags", [[["a"]], None, 1, ["a", 2]])
def test_wrong_tags_from_a_function_reach_the_caller_and_leave_the_cache_as_it_was(tags):
    cache = ag.cache_result(60, max_entries=1, tags=lambda x: tags if x == 1 else "tag")
    fn = cache(lambda x: x)
    for _ in range(2):
        with pytest.raises(TypeError, match="the result of tags must be"):
            fn(1)
    assert [fn(2), fn(3), fn(2)] == [2, 3, 2]
    assert (cache.info().entries, cache.invalidate_tag("tag")) == (1, 1)


def test_tags_from_a_function_may_come_from_a_generator():
    cache = ag.cache_result(60, tags=lambda x: (f"{each}" for each in (x, "all")))
    fn = cache(lambda x: x)
    assert (fn(1), cache.invalidate_tag("all")) == (1, 1)

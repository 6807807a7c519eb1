"""Freshness, bounds and handles of cache_result, async on both libraries and sync."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import inspect
import pickle
import threading
import time
from contextvars import ContextVar
from datetime import timedelta

import anyio
import cloudpickle
import pytest

import asyncguard as ag
from asyncguard import events, testing
from asyncguard.strategies.cache_result import CacheResult


class Source:
    """A source of values: answers with the number of the call, or fails while `broken`."""

    def __init__(self):
        self.calls, self.broken, self.seconds = 0, False, 0.0

    def answer(self):
        self.calls += 1
        if self.broken:
            raise ConnectionError(f"call {self.calls}")
        return self.calls


@pytest.fixture(params=["asyncio", "trio", "sync"])
def colour(request):
    return request.param


class Side:
    """The same test for all colours: `get(x)` calls, `sleep(s)` lets virtual time pass."""

    def __init__(self, colour, source, clock=None, **options):
        self.cache = ag.cache_result(options.pop("ttl", 10), **options)
        self.colour, self.source, self.clock = colour, source, clock
        self.fn = self.cache(self.sync() if colour == "sync" else self.asynchronous())

    def asynchronous(self):
        source = self.source

        async def fn(x: object) -> int:
            await anyio.sleep(source.seconds)
            return source.answer()

        return fn

    def sync(self):
        source = self.source

        def fn(x: object) -> int:
            return source.answer()

        return fn

    async def get(self, x=1):
        return self.fn(x) if self.colour == "sync" else await self.fn(x)

    async def sleep(self, seconds):
        if self.colour != "sync":
            await anyio.sleep(seconds)
            return
        self.clock.advance(seconds)
        self.settle()

    def settle(self):
        """Let refreshes in threads come to their end."""
        late = time.monotonic() + 60
        while self.cache.info().in_flight and time.monotonic() < late:
            time.sleep(0.001)


def play(colour, scene, **options):
    """Run `await scene(side)` on virtual time."""
    source = Source()
    if colour != "sync":
        return testing.run(lambda: scene(Side(colour, source, **options)), backend=colour)
    with testing.virtual_clock() as clock:
        coroutine = scene(Side(colour, source, clock, **options))
        with contextlib.suppress(StopIteration):
            coroutine.send(None)
            raise AssertionError("the scene of a plain function suspended")
    return None


def test_a_value_answers_until_its_time_is_over(colour):
    async def scene(side):
        assert [await side.get(), await side.get()] == [1, 1]
        await side.sleep(9.9)
        assert await side.get() == 1
        await side.sleep(0.2)
        assert await side.get() == 2

    play(colour, scene)


def test_a_timedelta_is_a_duration(colour):
    async def scene(side):
        await side.get()
        await side.sleep(9)
        assert await side.get() == 1
        await side.sleep(2)
        assert await side.get() == 2

    play(colour, scene, ttl=timedelta(seconds=10))


def test_the_result_may_say_how_long_it_lives_and_none_means_not_at_all(colour):
    async def scene(side):
        assert [await side.get(), await side.get()] == [1, 2]  # 1: None; 2: for two seconds
        await side.sleep(1)
        assert await side.get() == 2
        await side.sleep(1.5)
        assert await side.get() == 3  # three: a negative time is none
        assert await side.get() == 4

    play(colour, scene, ttl=lambda value: {1: None, 2: timedelta(seconds=2), 3: -1}.get(value, 5))


def test_a_stale_value_answers_at_once_and_is_refreshed_behind(colour):
    async def scene(side):
        await side.get()
        await side.sleep(12)
        side.source.seconds = 1
        assert await side.get() == 1
        assert await side.get() == 1  # one refresh for all
        await side.sleep(2)
        assert await side.get() == 2
        assert side.source.calls == 2

    if colour != "sync":  # there the refresh may be over before the second look
        play(colour, scene, stale_while_revalidate=5)


def test_a_stale_value_is_refreshed_by_the_first_who_reads_it(colour):
    async def scene(side):
        await side.get()
        await side.sleep(12)
        assert await side.get() == 1
        await side.sleep(0.1)
        assert await side.get() == 2
        await side.sleep(16)  # past stale as well
        assert await side.get() == 3

    play(colour, scene, stale_while_revalidate=5)


def test_a_hit_late_in_life_refreshes_ahead(colour):
    async def scene(side):
        await side.get()
        await side.sleep(7.9)
        assert await side.get() == 1
        await side.sleep(0.2)
        assert side.source.calls == 1
        assert await side.get() == 1
        await side.sleep(0.1)
        assert await side.get() == 2

    play(colour, scene, refresh_at=0.8)


def test_a_failed_refresh_is_not_repeated_for_five_seconds(colour):
    async def scene(side):
        await side.get()
        side.source.broken = True
        await side.sleep(11)
        for _ in range(10):
            assert await side.get() == 1
            await side.sleep(0.1)
        assert side.source.calls == 2
        await side.sleep(5)
        assert await side.get() == 1
        await side.sleep(0.1)
        assert side.source.calls == 3

    play(colour, scene, stale_while_revalidate=60)


def test_an_outage_is_bridged_by_the_old_value_and_costs_one_attempt_in_five_seconds(colour):
    async def scene(side):
        await side.get()
        side.source.broken = True
        await side.sleep(11)
        assert [await side.get() for _ in range(20)] == [1] * 20
        assert side.source.calls == 2
        await side.sleep(5.1)
        assert await side.get() == 1
        assert side.source.calls == 3
        side.source.broken = False
        await side.sleep(5.1)
        assert await side.get() == 4

    play(colour, scene, stale_if_error=60)


def test_when_the_bridge_ends_the_error_comes_through(colour):
    async def scene(side):
        await side.get()
        side.source.broken = True
        await side.sleep(69.9)
        assert await side.get() == 1
        await side.sleep(0.2)
        with pytest.raises(ConnectionError, match="call 3"):
            await side.get()

    play(colour, scene, stale_if_error=60)


def test_without_an_old_value_the_error_comes_through(colour):
    async def scene(side):
        side.source.broken = True
        for call in (1, 2):
            with pytest.raises(ConnectionError, match=f"call {call}"):
                await side.get()

    play(colour, scene, stale_if_error=60)


def test_a_background_refresh_has_a_deadline_of_its_own_and_a_hung_one_blocks_nobody(backend):
    seen = []

    async def scene():
        @ag.cache_result(10, stale_while_revalidate=1000)
        async def fn(x):
            seen.append(ag.remaining())
            if len(seen) == 2:
                await anyio.sleep(10_000)
            return len(seen)

        guarded = ag.timeout(1)(fn)
        await guarded(1)
        await anyio.sleep(11)
        assert await guarded(1) == 1
        await anyio.sleep(60)
        assert await guarded(1) == 1
        await anyio.sleep(1)
        return await guarded(1)

    assert testing.run(scene, backend=backend) == 3
    assert seen == [None, pytest.approx(10.0), pytest.approx(10.0)]


def test_nothing_and_empty_results_may_live_shorter(colour):
    async def scene(side):
        side.source.answer = lambda: None
        await side.get()
        side.source.answer = list
        await side.get(2)
        side.source.answer = lambda: "now"
        assert [await side.get(), await side.get(2)] == [None, []]
        await side.sleep(1.1)
        assert [await side.get(), await side.get(2)] == ["now", "now"]

    play(colour, scene, negative_ttl=1)


def test_none_is_a_value_like_any_other(colour):
    async def scene(side):
        side.source.answer = lambda: None
        await side.get()
        side.source.answer = lambda: "now"
        assert await side.get() is None

    play(colour, scene)


def test_what_cache_if_does_not_like_is_given_and_not_stored(colour):
    async def scene(side):
        assert [await side.get() for _ in range(4)] == [1, 2, 2, 2]

    play(colour, scene, cache_if=lambda value: value > 1)


def test_a_failing_option_reaches_the_caller(colour):
    async def scene(side):
        with pytest.raises(ZeroDivisionError):
            await side.get()

    play(colour, scene, cache_if=lambda value: 1 / 0)


def test_the_number_of_entries_is_bounded(colour):
    async def scene(side):
        for x in range(20):
            await side.get(x)
        assert side.cache.info().entries == 5
        assert side.cache.get(19) is not None

    play(colour, scene, max_entries=5)


def test_the_bytes_are_bounded_and_measured(colour):
    async def scene(side):
        side.source.answer = lambda: b"x" * 1000
        for x in range(20):
            await side.get(x)
        info = side.cache.info()
        assert 2 <= info.entries <= 5
        assert info.nbytes <= 5000

    play(colour, scene, max_bytes=5000)


def test_trim_gives_a_fraction_back(colour):
    async def scene(side):
        for x in range(10):
            await side.get(x)
        assert side.cache.trim(0.4) == 4
        assert side.cache.info().entries == 6
        assert side.cache.trim(1.0) == 6

    play(colour, scene)


def test_the_handle_gets_invalidates_and_tells_age(colour):
    async def scene(side):
        cache = ag.pipeline_of(side.fn)[CacheResult]
        assert cache.get(1) is None
        await side.get()
        await side.sleep(4)
        found = cache.get(1)
        assert (found.value, found.stale) == (1, False)
        assert found.age == pytest.approx(4)
        await side.sleep(8)
        assert cache.get(1).stale
        assert cache.invalidate(1)
        assert not cache.invalidate(1)
        assert cache.get(1) is None
        assert side.source.calls == 1

    play(colour, scene, stale_while_revalidate=100)


def test_refresh_computes_anew_and_stores(colour):
    async def scene(side):
        await side.get()
        refreshed = side.cache.refresh(1)
        assert (refreshed if colour == "sync" else await refreshed) == 2
        assert await side.get() == 2

    play(colour, scene)


def test_a_failed_refresh_by_hand_is_told_and_keeps_what_was_there(colour):
    async def scene(side):
        await side.get()
        side.source.broken = True
        with pytest.raises(ConnectionError):
            await side.cache.refresh(1) if colour != "sync" else side.cache.refresh(1)
        assert await side.get() == 1

    play(colour, scene, stale_if_error=60)


def test_tags_of_the_call_invalidate_what_belongs_together(colour):
    async def scene(side):
        for x in range(4):
            await side.get(x)
        assert side.cache.invalidate_tag("odd") == 2
        assert [side.cache.get(x) is None for x in range(4)] == [False, True, False, True]
        assert side.cache.invalidate_tag("odd") == 0

    play(colour, scene, tags=lambda x: ["odd"] if x % 2 else [])


def test_a_block_may_leave_caches_aside_or_renew_them(colour):
    async def scene(side):
        await side.get()
        with ag.cache_bypass():
            assert await side.get() == 2
        assert await side.get() == 1
        with ag.cache_refresh():
            assert await side.get() == 3
        assert await side.get() == 3

    play(colour, scene)


def test_what_is_started_in_a_bypass_block_stays_outside_after_the_block():
    @ag.cache_result(60)
    async def fn(x):
        return object()

    async def main():
        first = await fn(1)
        with ag.cache_bypass():
            task = asyncio.create_task(fn(1))
        return first, await task, await fn(1)

    first, second, third = testing.run(main)
    assert first is third is not second


def test_observe_reports_and_never_answers(colour):
    async def scene(side):
        with testing.record_events() as recorded:
            assert [await side.get(), await side.get()] == [1, 2]
        assert [type(event).__name__ for event in recorded] == ["CacheMissed", "CacheStored", "CacheHit"]
        assert all(event.observed for event in recorded)

    play(colour, scene, mode="observe")


def test_observe_survives_what_cannot_be_cached(colour):
    async def scene(side):
        with testing.record_events() as recorded:
            await side.get(object())
            side.source.answer = lambda: iter([1])
            assert list(await side.get(1)) == [1]
        assert recorded.of(events.CacheErrored)

    play(colour, scene, mode="observe", ttl=lambda value: 1 / 0)


def test_off_does_nothing(colour):
    async def scene(side):
        assert [await side.get(), await side.get()] == [1, 2]
        assert side.cache.info().entries == 0

    play(colour, scene, mode="off")


def test_events_tell_what_happened(colour):
    async def scene(side):
        with testing.record_events() as recorded:
            await side.get(1)
            await side.get(1)
            await side.get(2)
            await side.sleep(11)
            await side.get(2)
            await side.sleep(0.1)
            side.settle()
        names = [type(event).__name__ for event in recorded]
        assert names == ["CacheMissed", "CacheStored", "CacheHit", "CacheMissed", "CacheStored", "CacheEvicted",
                         "CacheHit", "CacheStored", "CacheRefreshed"]  # fmt: skip
        assert recorded.of(events.CacheHit)[1].stale
        assert recorded.of(events.CacheEvicted)[0].reason == "size"
        assert recorded.of(events.CacheRefreshed)[0].ok
        assert recorded[0].pipeline.endswith("fn")

    play(colour, scene, max_entries=1, stale_while_revalidate=60)


def test_a_hook_hears_every_hit_and_a_failing_one_changes_nothing(colour):
    heard = []

    def hook(event):
        heard.append(type(event).__name__)
        raise RuntimeError

    async def scene(side):
        assert [await side.get(), await side.get()] == [1, 1]

    play(colour, scene, on_event=hook)
    assert heard == ["CacheMissed", "CacheStored", "CacheHit"]


def test_configure_changes_what_comes_and_keeps_what_is_there(colour):
    async def scene(side):
        await side.get()
        side.cache.configure(ttl=100)
        assert await side.get() == 1
        await side.sleep(11)
        assert await side.get() == 2
        await side.sleep(90)
        assert await side.get() == 2
        side.cache.configure(version="v2")
        assert await side.get() == 3
        with side.cache.override(version="v3"):
            assert await side.get() == 4
        assert await side.get() == 3
        with pytest.raises(ValueError, match="ttl"):
            side.cache.configure(ttl=-1)

    play(colour, scene)


def test_context_variables_keep_tenants_apart(colour):
    tenant: ContextVar[str] = ContextVar("tenant", default="a")

    async def scene(side):
        assert await side.get() == 1
        token = tenant.set("b")
        assert await side.get() == 2
        tenant.reset(token)
        assert await side.get() == 1

    play(colour, scene, vary_on=tenant)


def test_status_says_how_full_it_is_and_how_often_it_answers():
    @ag.cache_result(60, name="embeddings")
    def fn(x):
        return x

    [fn(x % 4) for x in range(8)]
    assert "4 of 1024 entries, 50 % of 8 calls were hits" in str(ag.status())


# --- the decorated function -------------------------------------------------------------------------------------------


def test_the_function_stays_what_it_was():
    @ag.cache_result(60)
    async def fn(x: int, *, y: str = "a") -> int:
        """Say something."""

    assert inspect.iscoroutinefunction(fn)
    assert str(inspect.signature(fn)) == "(x: 'int', *, y: 'str' = 'a') -> 'int'"
    assert (fn.__name__, fn.__doc__) == ("fn", "Say something.")


def test_the_same_call_written_differently_is_one_call():
    calls = []

    @ag.cache_result(60)
    def fn(a, b=2, *, c=3):
        calls.append((a, b, c))
        return a

    fn(1), fn(1, 2), fn(a=1), fn(1, c=3), fn(b=2, a=1), fn(True), fn(1.0)
    assert calls == [(1, 2, 3), (True, 2, 3), (1.0, 2, 3)]


def test_a_wrong_call_raises_what_it_would_raise_and_stores_nothing():
    @ag.cache_result(60)
    def fn(a):
        return a

    for call in (fn, lambda: fn(1, 2), lambda: fn(b=1)):
        with pytest.raises(TypeError, match=r"fn\(\)"):
            call()


def test_an_argument_without_a_key_names_the_parameter_and_calls_nothing():
    calls = []

    @ag.cache_result(60)
    async def embed(text, client):
        calls.append(text)

    with pytest.raises(TypeError, match=r"embed: the argument 'client' cannot be part of a cache key"):
        testing.run(lambda: embed("a", object()))
    assert calls == []


def test_an_annotation_without_a_key_is_refused_at_decoration():
    async def embed(text: str, lock: threading.Barrier) -> None:
        pass

    with pytest.raises(TypeError, match=r"the argument 'lock' .* ignore=\('lock',\)"):
        ag.cache_result(60)(embed)
    ag.cache_result(60, ignore="lock")(embed)
    ag.cache_result(60, key=lambda text, lock: text)(embed)


def test_key_says_what_the_result_depends_on():
    calls = []

    @ag.cache_result(60, key=lambda request: [request.text, request.model])
    def fn(request):
        calls.append(request)
        return request.text

    class Request:
        def __init__(self, text, model):
            self.text, self.model = text, model

    assert [fn(Request("a", 1)), fn(Request("a", 1)), fn(Request("a", True))] == ["a", "a", "a"]
    assert len(calls) == 2


def test_generator_functions_are_refused_at_decoration():
    def generator(x):
        yield x

    async def async_generator(x):
        yield x

    for fn in (generator, async_generator):
        with pytest.raises(TypeError, match="cache_result cannot guard"):
            ag.cache_result(60)(fn)


@pytest.mark.parametrize("value", [iter([1]), (x for x in [1]), open(__file__)])  # noqa: PTH123, SIM115 - an open file is the point
def test_a_result_that_can_be_used_once_only_is_an_error(value):
    @ag.cache_result(60)
    async def fn(x):
        return value

    with pytest.raises(TypeError, match=r"fn returned a .* only once"):
        testing.run(lambda: fn(1))
    getattr(value, "close", lambda: None)()


def test_a_coroutine_as_a_result_is_an_error_and_nobody_warns_of_it():
    async def inner():
        pass

    @ag.cache_result(60)
    async def fn(x):
        return inner()

    with pytest.raises(TypeError, match="coroutine"):
        testing.run(lambda: fn(1))


def test_one_cache_may_serve_several_functions_and_keeps_them_apart():
    cache = ag.cache_result(60, max_entries=3)

    @cache
    def one(x):
        return ("one", x)

    @cache
    def two(x):
        return ("two", x)

    assert [one(1), two(1), one(1)] == [("one", 1), ("two", 1), ("one", 1)]
    assert cache.info().entries == 2
    assert cache.of(one).get(1).value == ("one", 1)
    assert cache.of(two).invalidate(1)
    with pytest.raises(TypeError, match=r"serves 2 functions .*one.*two.*of"):
        cache.get(1)
    with pytest.raises(TypeError, match="not guarded by this"):
        cache.of(len)
    with pytest.raises(TypeError, match="not guarded by this"):
        cache.of(ag.cache_result(60)(lambda x: x))
    assert cache.in_pipeline(ag.pipeline_of(one)).get(1).value == ("one", 1)
    assert cache.in_pipeline(ag.pipeline_of(two)).get(1) is None
    [one(x) for x in range(9)]
    assert cache.info().entries == 3  # the bound is that of the whole
    cache.clear()
    assert cache.info().entries == 0


def test_a_cache_whose_only_function_is_gone_holds_nothing():
    cache = ag.cache_result(60)
    fn = cache(lambda x: x)
    fn(1)
    assert cache.info().entries == 1
    del fn
    import gc

    gc.collect()
    assert cache.info().entries == 0


def test_it_pickles_as_its_options_and_a_guarded_function_survives_cloudpickle():
    cache = ag.cache_result(60, max_entries=7)
    again = pickle.loads(pickle.dumps(cache))
    assert isinstance(again, CacheResult)
    assert again.options == cache.options

    @cache
    def fn(x):
        return [x]

    @cache
    async def asynchronous(x):
        return [x]

    fn(1)
    copied, copied_async = cloudpickle.loads(cloudpickle.dumps((fn, asynchronous)))
    assert copied(1) == [1]
    assert testing.run(lambda: copied_async(1)) == [1]
    assert ag.pipeline_of(copied)[CacheResult].info().misses >= 1


def test_aclose_ends_the_refreshes_behind(backend):
    async def main():
        @ag.cache_result(10, stale_while_revalidate=1000)
        async def fn(x):
            if cache.info().entries:
                await anyio.sleep(5)
            return x

        cache = ag.pipeline_of(fn)[CacheResult]
        await fn(1)
        await anyio.sleep(11)
        await fn(1)
        assert cache.info().in_flight == 1
        await cache.aclose()
        return cache.info().in_flight

    assert testing.run(main, backend=backend) == 0


# --- methods ----------------------------------------------------------------------------------------------------------


class Service:
    def __init__(self, name):
        self.name, self.calls = name, 0

    @ag.cache_result(60)
    def embed(self, text: str) -> tuple[str, str]:
        self.calls += 1
        return (self.name, text)

    @ag.cache_result(60)
    async def rerank(self, text: str) -> tuple[str, str]:
        self.calls += 1
        return (self.name, text)

    @classmethod
    @ag.cache_result(60)
    def of_class(cls, x):
        return (cls, x)

    @staticmethod
    @ag.cache_result(60)
    def static(x):
        return [x]

    def __eq__(self, other):
        return True

    def __hash__(self):
        return 0


class Child(Service):
    pass


def test_a_method_has_a_cache_per_object_by_identity_and_never_by_equality():
    one, two = Service("one"), Service("two")
    assert [one.embed("x"), two.embed("x"), one.embed("x"), one.embed(text="x")] == [
        ("one", "x"), ("two", "x"), ("one", "x"), ("one", "x")]  # fmt: skip
    assert testing.run(lambda: one.rerank("x")) == ("one", "x")
    assert one.calls == 2


def test_classes_and_static_methods():
    assert Service.of_class(1) == (Service, 1)
    assert Child.of_class(1) == (Child, 1)
    assert Service.static(1) == Child("a").static(1)


def test_the_cache_of_an_object_goes_with_it_and_its_address_is_never_mistaken():
    import gc

    cache = ag.pipeline_of(Service.embed)[CacheResult]
    cache.clear()
    for number in range(200):
        assert Service(str(number)).embed("x") == (str(number), "x")
    gc.collect()
    assert cache.info().entries == 0


def test_a_copy_of_an_object_begins_with_an_empty_cache():
    one = Service("one")
    one.embed("x")
    for copied in (copy.copy(one), copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
        copied.name = "copy"
        assert copied.embed("x") == ("copy", "x")
    assert one.embed("x") == ("one", "x")


def test_the_handle_of_a_method_takes_the_object_or_the_bound_method():
    one = Service("one")
    one.embed("x")
    cache = ag.pipeline_of(Service.embed)[CacheResult]
    assert cache.get(one, "x").value == ("one", "x")
    assert cache.of(one.embed).get("x").value == ("one", "x")
    assert cache.of(one.embed).refresh("x") == ("one", "x")
    assert cache.of(one.embed).invalidate("x")
    assert one.calls == 2


class Slotted:
    __slots__ = ("__weakref__", "name")

    def __init__(self, name):
        self.name = name

    @ag.cache_result(60)
    def get(self, x):
        return [self.name, x]


class Rigid:
    __slots__ = ()

    @ag.cache_result(60)
    def get(self, x):
        return x


class Keyed:
    def __init__(self, tenant):
        self.tenant, self.calls = tenant, 0

    def __cache_key__(self):
        return self.tenant

    @ag.cache_result(60)
    def get(self, x):
        return [self.tenant, x]

    @ag.cache_items(60, over="xs")
    def many(self, xs):
        return [(self.tenant, x) for x in xs]


def test_objects_without_a_dict_are_kept_apart_too_or_refused_with_advice():
    one, two = Slotted("one"), Slotted("two")
    assert [one.get(1), two.get(1), one.get(1)] == [["one", 1], ["two", 1], ["one", 1]]
    with pytest.raises(TypeError, match=r"__weakref__.*__cache_key__"):
        Rigid().get(1)


def test_a_class_may_say_which_of_its_objects_share():
    first, second, other = Keyed("a"), Keyed("a"), Keyed("b")
    first.get(1)
    cache = ag.pipeline_of(Keyed.get)[CacheResult]
    assert cache.get(second, 1).value == ["a", 1]
    assert cache.get(other, 1) is None
    assert other.get(1) == ["b", 1]
    assert [first.many([1]), other.many([1])] == [[("a", 1)], [("b", 1)]]


def test_ignore_self_shares_one_cache_among_all_objects():
    class Stateless:
        @ag.cache_result(60, ignore="self")
        def get(self, x):
            return object()

    assert Stateless().get(1) is Stateless().get(1)


def test_a_wrong_call_of_a_method_raises_what_it_would_raise():
    with pytest.raises(TypeError, match="text"):
        Service("a").embed()
    with pytest.raises(TypeError, match="self"):
        Service.embed()


def test_called_through_a_pipeline_each_object_has_its_cache_and_the_handle_finds_it():
    class Client:
        def __init__(self, name):
            self.name = name

        async def embed(self, x):
            return [self.name, x]

        def count(self, x):
            return [self.name, x]

    cache = ag.cache_result(60)
    pipeline = ag.guard(cache)
    one, two = Client("one"), Client("two")

    async def main():
        got = [await pipeline.call(client.embed, 1) for client in (one, two, one)]
        assert got == [["one", 1], ["two", 1], ["one", 1]]
        assert cache.info().misses == 2
        assert cache.of(one.embed).get(1).value == ["one", 1]
        assert cache.of(one.embed).invalidate(1)

    asyncio.run(main())
    assert [pipeline.call_sync(client.count, 1)[0] for client in (one, two, one)] == ["one", "two", "one"]
    assert pipeline.call_sync("abc".startswith, "a") is True
    assert pipeline.call_sync("xbc".startswith, "a") is False


def test_a_foreign_decorator_that_adds_an_argument_only_costs_the_normal_form():
    import functools

    def with_session(fn):
        @functools.wraps(fn)
        def call(*args, **kwargs):
            return fn("session", *args, **kwargs)

        return call

    calls = []

    @ag.cache_result(60)
    @with_session
    def fetch(session, x):
        calls.append(x)
        return x

    assert [fetch(1), fetch(1), fetch(x=1)] == [1, 1, 1]
    assert calls == [1, 1]

"""cache_result over a store, on real servers: two processes are two caches here that share a namespace."""

from __future__ import annotations

import asyncio
import contextlib
import functools

import numpy as np
import pytest

from asyncguard import Pipeline, cache_bypass, cache_refresh, cache_result, events, pipeline_of, testing
from asyncguard.stores import AiocacheStore
from asyncguard.strategies import CacheResult
from tests.stores import functions
from tests.stores.conftest import namespace
from tests.stores.doubles import Backend


@pytest.fixture(autouse=True)
def calls():
    functions.calls.clear()
    functions.gate = None
    return functions.calls


@pytest.fixture
def two(make):
    """Two caches of the same function in the same namespace, as two processes have them."""

    def build(function, ttl=60, store=None, **options):
        name = namespace()
        caches = [cache_result(ttl, store=make(namespace=name, **(store or {})), **options) for _ in range(2)]
        return [cache(function) for cache in caches]

    return build


def run(main, *functions_):
    async def closing():
        try:
            return await main()
        finally:
            for function in functions_:
                await handle(function).aclose()

    return asyncio.run(closing())


def handle(function):
    return pipeline_of(function)[CacheResult]


async def written(function):
    """Wait for the writes of a function's store."""
    await store_of(function).link().finish(60.0)


def store_of(function):
    return handle(function).options.store


# --- values -----------------------------------------------------------------------------------------------------------


def test_another_process_gets_the_value_without_a_call(two, calls):
    here, there = two(functions.embed)

    async def main():
        assert await here("abc") == [3.0]
        await written(here)
        assert await there("abc") == [3.0]
        assert await there("abc", scale=1.0) == [3.0]
        assert await there("abcd") == [4.0]
        assert calls == ["abc", "abcd"]
        assert store_of(there).info().hits == 1

    run(main, here, there)


def test_arrays_models_none_and_negatives_come_back_as_they_were(two, calls):
    pairs = [two(f) for f in (functions.vector, functions.answer, functions.nothing)]
    array = np.arange(768, dtype="f4")
    arguments = [(array,), ("a",), ("b",)]

    async def main():
        for (here, there), given in zip(pairs, arguments, strict=True):
            first = await here(*given)
            await written(here)
            count = len(calls)
            second = await there(*given)
            assert len(calls) == count
            assert type(first) is type(second)
            assert np.array_equal(first, second) if isinstance(first, np.ndarray) else first == second
        assert not (await pairs[0][1](array)).flags.writeable

    run(main, *[each for pair in pairs for each in pair])


def test_a_copy_is_writable_where_the_cache_is_told_to_copy(two):
    here, there = two(functions.vector, isolation="copy")

    async def main():
        await here(np.arange(30.0))
        await written(here)
        (await there(np.arange(30.0)))[0] = 7.0
        assert (await there(np.arange(30.0)))[0] == 0.0

    run(main, here, there)


def test_two_arrays_that_differ_in_one_element_never_share(two, calls):
    here, there = two(functions.vector)
    one, other = np.zeros((32, 768), "f4"), np.zeros((32, 768), "f4")
    other[31, 767] = 1e-30

    async def main():
        await here(one)
        await written(here)
        assert (await there(other))[31, 767] > 0
        assert len(calls) == 2

    run(main, here, there)


def test_a_value_that_cannot_be_written_stays_in_the_process_and_harms_nobody(two, calls, caplog):
    here, there = two(functions.lock)

    async def main():
        first = await here("a")
        await written(here)
        assert await here("a") is first
        assert await there("a") is not first
        await here("b")
        await written(here)
        assert store_of(here).info().unencodable == 2
        assert len([record for record in caplog.records if "kept in this process only" in record.message]) == 1 + 1

    run(main, here, there)


def test_an_error_is_not_stored_and_reaches_the_caller(two, calls):
    here, there = two(functions.failing)

    async def main():
        for function in (here, there, here):
            with pytest.raises(LookupError):
                await function("a")
        assert len(calls) == 3

    run(main, here, there)


# --- keys -------------------------------------------------------------------------------------------------------------


def test_namespace_function_version_and_arguments_are_what_a_key_is_made_of(make, calls):
    name = namespace()
    variants = [
        cache_result(60, store=make(namespace=name))(functions.embed),
        cache_result(60, store=make(namespace=name + "x"))(functions.embed),
        cache_result(60, store=make(namespace=name), version="2")(functions.embed),
        cache_result(60, store=make(namespace=name))(functions.answer),
    ]

    async def main():
        for function in variants:
            await function("a")
            await written(function)
        assert len(calls) == 4

    run(main, *variants)


def test_keys_are_short_and_plain_whatever_the_names_are(make):
    store = make(namespace="n" * 40)
    function = cache_result(60, store=store, version="v 1: ü" * 40)(functions.embed)
    bound = next(iter(handle(function).bounds))
    tier = bound.tier(bound.terms)
    key = tier.names.key_of(tier.names.hash_of(("x" * 10_000,), {}))
    assert key.startswith("ag1:" + "n" * 40 + ":tests.stores.functions.embed:")
    assert len(key.encode()) <= 200
    assert key.isascii()
    assert key.isprintable()
    assert " " not in key


def local_factory(store):
    @cache_result(60, store=store)
    async def local(text: str) -> str:
        return text

    return local


async def _main_function(text: str) -> str:
    return text


def a_main_function():
    function = functools.partial(_main_function)
    copy = type(_main_function)(_main_function.__code__, {"__name__": "__main__"}, "job")
    copy.__module__ = "__main__"
    del function
    return copy


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (local_factory, "local"),
        (lambda store: cache_result(60, store=store)(a_main_function()), "__main__"),
        (lambda store: cache_result(60, store=store)(functools.partial(functions.embed, scale=2.0)), "partial"),
        (lambda store: cache_result(60, store=store)(functions.plain), "async def"),
    ],
)
def test_a_function_without_a_name_of_its_own_is_refused_at_decoration(function, text):
    with pytest.raises(TypeError, match=text):
        function(AiocacheStore(Backend(), namespace="n"))


def test_a_store_that_a_function_cannot_have_changes_nothing():
    cache = cache_result(60)

    @cache
    async def local(text: str) -> str:
        return text

    with pytest.raises(TypeError, match="local"):
        cache.configure(store=AiocacheStore(Backend(), namespace="n"))
    assert cache.options.store is None
    assert testing.run(lambda: local("a")) == "a"


@pytest.mark.parametrize("wrong", ["redis://secret@host", {}, Backend()])
def test_what_is_no_store_is_refused_without_being_shown(wrong):
    with pytest.raises(TypeError, match="store must be an AiocacheStore") as refused:
        cache_result(60, store=wrong)
    assert "secret" not in str(refused.value)


def test_an_object_is_part_of_the_key_by_its_own_cache_key_and_refused_without_one(two, calls):
    here, there = two(functions.KeyedClient.ask)
    other, _ = two(functions.Client.ask)

    async def main():
        assert await here(functions.KeyedClient("m"), "a") == "m: a"
        await written(here)
        assert await there(functions.KeyedClient("m"), "a") == "m: a"
        assert await there(functions.KeyedClient("n"), "a") == "n: a"
        assert len(calls) == 2
        with pytest.raises(TypeError, match="__cache_key__"):
            await other(functions.Client("m"), "a")

    run(main, here, there, other)


def test_an_argument_that_only_this_process_knows_is_an_error_that_names_it(two):
    here, _ = two(functions.embed)

    async def main():
        with pytest.raises(TypeError, match="text"):
            await here(lambda: 1)

    run(main, here)


def test_a_call_through_a_pipeline_is_stored_too(make, calls):
    name = namespace()
    pipelines = [Pipeline(cache_result(60, store=make(namespace=name))) for _ in range(2)]

    async def main():
        assert await pipelines[0].call(functions.embed, "a") == [1.0]
        await pipelines[0][CacheResult].options.store.link().finish(60.0)
        assert await pipelines[1].call(functions.embed, "a") == [1.0]
        assert calls == ["a"]
        await pipelines[1][CacheResult].clear()
        for each in pipelines:
            await each[CacheResult].aclose()

    asyncio.run(main())


# --- freshness --------------------------------------------------------------------------------------------------------


class Memory(Backend):
    """A backend in this process, for tests on virtual time."""

    NAME = "memory"

    def __init__(self):
        super().__init__()
        self.data = {}
        self.asked = []
        self.ttls = []  # the store works on a copy that shares these

    async def get(self, key, **options):
        return (await self.multi_get([key]))[0]

    async def multi_get(self, keys, **options):
        self.asked.append(list(keys))
        await asyncio.sleep(0)
        return [self.data.get(key) for key in keys]

    async def set(self, key, value, *, ttl, **options):
        await self.multi_set([(key, value)], ttl=ttl)

    async def multi_set(self, pairs, *, ttl, **options):
        await asyncio.sleep(0)
        self.data.update(pairs)
        self.ttls.append(ttl)

    async def add(self, key, value, *, ttl, **options):
        await asyncio.sleep(0)
        if key in self.data:
            raise ValueError(key)
        self.data[key] = value
        asyncio.get_running_loop().call_later(ttl, self.data.pop, key, None)
        return True

    async def delete(self, key, **options):
        await asyncio.sleep(0)
        return int(self.data.pop(key, None) is not None)


@pytest.fixture
def memory():
    return Memory()


@pytest.fixture
def three(memory):
    def build(function, ttl=60, store=None, **options):
        made = []
        for _ in range(3):
            stored = AiocacheStore(memory, namespace="n", **(store or {}))
            made.append(cache_result(ttl, store=stored, **options)(function))
        return made

    return build


async def soon():
    await asyncio.sleep(0.001)


def test_a_value_of_the_store_keeps_its_age(three, calls):
    here, there, third = three(functions.embed, 60)

    async def main():
        await here("a")
        await soon()
        await asyncio.sleep(50)
        await there("a")
        found = await handle(there).get("a")
        assert 50 <= found.age < 51
        assert (await handle(third).get("a")).age >= 50
        await asyncio.sleep(11)
        assert await handle(there).get("a") is None
        await third("a")
        assert calls == ["a", "a"]

    testing.run(main)


def test_a_stale_value_of_the_store_answers_and_is_refreshed_behind(three, calls):
    here, there, third = three(functions.embed, 60, stale_while_revalidate=60)

    async def main():
        await here("a")
        await soon()
        await asyncio.sleep(70)
        assert await there("a") == [1.0]
        await soon()
        assert calls == ["a", "a"]
        found = await handle(third).get("a")
        assert found.age < 1  # the refresh was written
        assert not found.stale

    testing.run(main)


def test_a_refresh_takes_what_another_process_has_refreshed(three, calls):
    here, there, _ = three(functions.embed, 60, refresh_at=0.5)

    async def main():
        await here("a")
        await soon()
        await there("a")
        await asyncio.sleep(40)
        await here("a")  # hit, refreshes behind
        await soon()
        await there("a")  # hit, finds the fresh one
        await soon()
        assert calls == ["a", "a"]
        assert (await handle(there).get("a")).age < 1

    testing.run(main)


def test_a_value_of_the_store_stands_in_for_an_error(three, memory, calls, monkeypatch):
    here, there, _ = three(functions.embed, 60, stale_if_error=600)

    async def main():
        await here("a")
        await soon()
        await asyncio.sleep(100)

        class Down(asyncio.Event):
            async def wait(self):
                raise ConnectionError("down")

        monkeypatch.setattr(functions, "gate", Down())
        assert await there("a") == [1.0]
        assert calls == ["a", "a"]
        await soon()
        assert len(memory.ttls) == 1  # it is not written as if it were new

    testing.run(main)


def test_the_time_to_live_of_the_writer_holds_and_a_shorter_one_of_the_reader(memory, calls):
    stored = [AiocacheStore(memory, namespace="n") for _ in range(3)]
    writer = cache_result(lambda value: 30 * value[0], store=stored[0])(functions.embed)
    longer = cache_result(1000, store=stored[1])(functions.embed)
    shorter = cache_result(10, store=stored[2])(functions.embed)

    async def main():
        await writer("ab")
        await soon()
        assert memory.ttls == [60]
        await asyncio.sleep(20)
        await shorter("ab")
        assert len(calls) == 2
        await asyncio.sleep(0.1)
        await writer("abc")
        await soon()
        await asyncio.sleep(89)
        await longer("abc")
        assert len(calls) == 3
        await asyncio.sleep(2)
        assert await handle(longer).get("abc") is None

    testing.run(main)


def test_negatives_live_as_long_as_negatives_do(memory, calls):
    stored = [AiocacheStore(memory, namespace="n") for _ in range(2)]
    here, there = (cache_result(600, negative_ttl=5, store=each)(functions.nothing) for each in stored)

    async def main():
        await here("a")
        await soon()
        assert memory.ttls == [5]
        await there("a")
        assert len(calls) == 1
        await asyncio.sleep(6)
        await there("a")
        assert len(calls) == 2

    testing.run(main)


def test_what_is_not_to_be_stored_is_not_written(memory):
    store = AiocacheStore(memory, namespace="n")
    function = cache_result(60, cache_if=lambda value: False, store=store)(functions.embed)

    async def main():
        await function("a")
        await soon()
        assert not memory.data

    testing.run(main)


def test_a_hit_in_memory_does_not_ask_the_store(three, memory):
    here, _, _ = three(functions.embed)

    async def main():
        await here("a")
        await soon()
        asked = len(memory.asked)
        for _ in range(10):
            await here("a")
        assert len(memory.asked) == asked == 1

    testing.run(main)


def test_a_thousand_callers_of_a_cold_key_ask_the_store_once(three, memory, calls):
    here, _, _ = three(functions.embed)

    async def main():
        await asyncio.gather(*[here("a") for _ in range(1000)])
        assert len(memory.asked) == 1
        assert calls == ["a"]

    testing.run(main)


def test_callers_do_not_wait_for_the_write(three, memory):
    here, _, _ = three(functions.embed)

    async def main():
        release = asyncio.Event()
        real = memory.multi_set

        async def slow(pairs, **options):
            await release.wait()
            await real(pairs, **options)

        memory.multi_set = slow
        assert await here("a") == [1.0]
        await soon()
        assert not memory.data
        release.set()
        await handle(here).aclose()
        assert len(memory.data) == 1

    testing.run(main)


def test_background_writes_that_are_too_many_are_dropped_and_counted(three, memory, monkeypatch):
    monkeypatch.setattr("asyncguard.stores._links.MOST_WAITING", 3)
    here, _, _ = three(functions.embed, store={"write": "background", "timeout": 50.0})

    async def main():
        release = asyncio.Event()
        real = memory.multi_set

        async def slow(pairs, **options):
            await release.wait()
            await real(pairs, **options)

        memory.multi_set = slow
        for number in range(10):
            await here("x" * number)
        release.set()
        await handle(here).aclose()
        info = store_of(here).info()
        assert info.written == len(memory.data) == 4
        assert info.dropped == 6

    testing.run(main)


# --- handles ----------------------------------------------------------------------------------------------------------


def test_invalidate_reaches_the_store(two, calls):
    here, there = two(functions.embed)

    async def main():
        await here("a")
        await written(here)
        assert await handle(here).invalidate("a") is True
        assert await handle(here).invalidate("a") is False
        await there("a")
        assert calls == ["a", "a"]

    run(main, here, there)


def test_refresh_computes_and_writes(two, calls):
    here, there = two(functions.embed)

    async def main():
        await here("a")
        await handle(here).refresh("a")
        with cache_refresh():
            await here("a")
        await written(here)
        await there("a")
        assert calls == ["a", "a", "a"]
        with cache_bypass():
            await there("a")
        assert len(calls) == 4

    run(main, here, there)


def test_clear_is_for_values_begun_before_it_in_every_process(two, calls):
    here, there = two(functions.embed)

    async def main():
        await here("a")
        await written(here)
        await handle(here).clear()
        await there("a")
        assert calls == ["a", "a"]
        await written(there)
        assert await here("a") == [1.0]
        assert calls == ["a", "a"]

    run(main, here, there)


def test_a_tag_is_invalidated_without_searching_the_store(two, calls):
    here, there = two(functions.embed, tags=lambda text: [f"letter-{text[0]}"])

    async def main():
        for text in ("a", "ab", "b"):
            await here(text)
        await written(here)
        assert await handle(here).invalidate_tag("letter-a") == 2
        for text in ("a", "ab", "b"):
            await there(text)
        assert calls == ["a", "ab", "b", "a", "ab"]

    run(main, here, there)


def test_what_is_computed_during_an_invalidation_is_not_stored(two, calls):
    here, there = two(functions.embed)

    async def main():
        functions.gate = asyncio.Event()
        for forget in (lambda: handle(here).invalidate("a"), handle(here).clear):
            functions.gate.clear()
            task = asyncio.create_task(here("a"))
            while not calls:  # noqa: ASYNC110 - the function runs in a task of its own
                await asyncio.sleep(0.001)
            await forget()
            functions.gate.set()
            assert await task == [1.0]
            await written(here)
            assert await handle(there).get("a") is None
            calls.clear()

    run(main, here, there)


@pytest.mark.parametrize("write", ["wait", "background"])
def test_what_is_written_during_an_invalidation_is_taken_back(three, memory, write):
    here, there, _ = three(functions.embed, store={"timeout": 10.0, "write": write})

    async def main():
        real = memory.multi_set

        async def slow(pairs, **options):
            await asyncio.sleep(1)
            await real(pairs, **options)

        memory.multi_set = slow
        await here("a")
        await soon()  # the write is under way
        await handle(here).invalidate("a")
        await asyncio.sleep(2)
        assert await handle(there).get("a") is None
        assert len(memory.ttls) == 1
        assert not store_of(here).pending()

    testing.run(main)


@pytest.mark.parametrize("how", ["invalidate", "clear", "tag"])
def test_a_call_during_an_invalidation_does_not_bring_the_value_back_into_memory(three, memory, calls, how):
    here, there, _ = three(functions.embed, store={"timeout": 10.0}, tags="t")
    forget = {"invalidate": lambda: handle(here).invalidate("a"), "clear": handle(here).clear}
    forget["tag"] = lambda: handle(here).invalidate_tag("t")

    async def main():
        await there("a")
        await soon()
        make_slow(memory)
        gone = asyncio.create_task(forget[how]())
        await asyncio.sleep(0.5)
        await here("a")  # the store still has it
        await gone
        calls.clear()
        await here("a")
        assert calls == ["a"]

    testing.run(main)


def test_an_invalidation_that_is_cancelled_has_happened_in_memory(three, memory, calls):
    here, there, _ = three(functions.embed, store={"timeout": 10.0})

    async def main():
        await there("a")
        await soon()
        make_slow(memory)
        gone = asyncio.create_task(handle(here).invalidate("a"))
        await asyncio.sleep(0.5)
        await here("a")
        gone.cancel()
        await asyncio.wait([gone])
        assert not handle(here).info().entries

    testing.run(main)


def make_slow(memory):
    """Let writes and deletions take a second to reach the server."""
    for name in ("delete", "multi_set"):
        real = getattr(memory, name)

        async def slow(what, real=real, **options):
            await asyncio.sleep(1)
            return await real(what, **options)

        setattr(memory, name, slow)


def test_a_time_to_live_without_end_is_written_as_the_longest(three, memory, calls):
    here, there, _ = three(functions.embed, ttl=1e308)

    async def main():
        await here("a")
        await soon()
        await there("a")
        assert calls == ["a"]

    testing.run(main)


def test_a_damaged_mark_of_an_invalidation_counts_as_one_and_is_mended(three, memory, calls):
    here, there, _ = three(functions.embed)

    async def main():
        await here("a")
        await soon()
        await handle(here).clear()
        mark = next(key for key in memory.data if key == next(iter(handle(here).stored)))
        memory.data[mark] = b"garbage"
        assert await there("a") == [1.0]
        assert calls == ["a", "a"]
        assert store_of(there).info().unreadable == 1
        assert memory.data[mark].startswith(b"AG1")
        await soon()
        await handle(here).invalidate("a")
        await asyncio.sleep(1)
        await here("a")
        await soon()
        assert await handle(there).get("a") is not None

    testing.run(main)


# --- events and modes -------------------------------------------------------------------------------------------------


def test_events_say_where_a_value_came_from(three):
    here, there, _ = three(functions.embed)

    async def main():
        with testing.record_events() as seen:
            await here("a")
            await soon()
            await there("a")
            await there("a")
        seen.assert_happened(events.CacheMissed, times=1)
        seen.assert_happened(events.CacheHit, times=1, layer="store")
        seen.assert_happened(events.CacheHit, times=1, layer="memory")
        info = handle(there).info()
        assert (info.hits, info.misses) == (2, 0)

    testing.run(main)


def test_on_trio_a_store_is_a_clear_error():
    function = cache_result(60, store=AiocacheStore(Backend(), namespace="n"))(functions.embed)

    async def main():
        with pytest.raises(RuntimeError, match="needs asyncio"):
            await function("a")
        with pytest.raises(RuntimeError, match="needs asyncio"):
            await handle(function).get("a")

    testing.run(main, backend="trio")


def test_garbage_and_foreign_versions_are_misses_that_are_counted(three, memory, calls):
    here, there, _ = three(functions.embed)

    async def main():
        await here("a")
        await soon()
        (key,) = memory.data
        good = memory.data[key]
        wrong = [b"", b"AG1", b"garbage", good[:-1], b"AG2" + good[3:], bytes(reversed(good)), good[:-1] + b"\xff"]
        for each in wrong:
            memory.data[key] = each
            with testing.record_events() as seen:
                assert await handle(there).get("a") is None
            seen.assert_happened(events.CacheErrored, times=1, operation="store read")
        memory.data[key] = "text"
        assert await handle(there).get("a") is None
        assert store_of(there).info().unreadable == len(wrong) + 1
        assert await there("a") == [1.0]

    testing.run(main)


def test_what_a_codec_makes_that_can_be_used_once_only_is_a_miss(three, calls):
    class Spent:
        def encode(self, value):
            return b"x"

        def decode(self, data):
            return iter([1.0])

    here, there, _ = three(functions.embed, store={"codec": Spent()})

    async def main():
        await here("a")
        await soon()
        assert await there("a") == [1.0]
        assert calls == ["a", "a"]
        assert store_of(there).info().unreadable == 1

    testing.run(main)


def test_a_codec_of_the_users(three):
    class Reversed:
        def encode(self, value):
            return repr(value).encode()[::-1]

        def decode(self, data):
            return [float(bytes(data)[::-1].decode().strip("[]"))]

    here, there, _ = three(functions.embed, store={"codec": Reversed()})

    async def main():
        await here("abc")
        await soon()
        assert await there("abc") == [3.0]
        assert len(functions.calls) == 1

    testing.run(main)


def test_cancelled_callers_leave_no_work_and_no_lease_behind(three, memory, calls):
    here, there, _ = three(functions.embed, store={"lease": 30})

    async def main():
        functions.gate = asyncio.Event()
        tasks = [asyncio.create_task(here("a")) for _ in range(5)]
        while not calls:  # noqa: ASYNC110 - the function runs in a task of its own
            await asyncio.sleep(0.001)
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await soon()
        assert handle(here).info().in_flight == 0
        functions.gate.set()
        start = asyncio.get_running_loop().time()
        assert await there("a") == [1.0]
        assert asyncio.get_running_loop().time() - start >= 25  # it cannot be given back here: it lapses

    testing.run(main)

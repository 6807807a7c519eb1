"""cache_items over a store: one request for all items, one call for the rest, one write."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from asyncguard import cache_items, events, pipeline_of, testing
from asyncguard.stores import AiocacheStore
from asyncguard.strategies import CacheItems
from tests.stores import functions
from tests.stores.conftest import namespace
from tests.stores.test_results import Memory, soon


@pytest.fixture(autouse=True)
def calls():
    functions.calls.clear()
    return functions.calls


@pytest.fixture
def memory():
    return Memory()


@pytest.fixture
def three(memory):
    def build(function, ttl=60, store=None, **options):
        stores = [AiocacheStore(memory, namespace="n", **(store or {})) for _ in range(3)]
        return [cache_items(ttl, store=each, **options)(function) for each in stores]

    return build


def handle(function):
    return pipeline_of(function)[CacheItems]


def test_items_come_from_memory_the_store_and_one_call(three, memory, calls):
    here, there, _ = three(functions.lengths)

    async def main():
        assert await here(["a", "bb"]) == [1, 2]
        await soon()
        assert await there(["a"]) == [1]
        memory.asked.clear()
        with testing.record_events() as seen:
            assert await there(["ccc", "bb", "a", "bb", "ccc"]) == [3, 2, 1, 2, 3]
        await soon()
        assert calls == [["a", "bb"], ["ccc"]]
        assert len(memory.asked) == 1
        assert len(memory.asked[0]) == 2 + 1  # two items that memory lacks, and when the function was cleared
        seen.assert_happened(events.CacheMissed, times=1, items=1)
        seen.assert_happened(events.CacheHit, times=1, layer="store")

    testing.run(main)


def test_what_is_computed_is_written_at_once(three, memory):
    here, _, _ = three(functions.lengths)
    written = []

    async def main():
        real = memory.multi_set

        async def noted(pairs, **options):
            written.append(len(pairs))
            await real(pairs, **options)

        memory.multi_set = noted
        await here([str(number) for number in range(50)])
        await soon()
        assert written == [50]

    # the store works on a copy of the backend: replace the method before that
    testing.run(main)


@pytest.mark.parametrize(
    ("function", "container"), [(functions.lengths, list), (functions.rows, np.ndarray), (functions.answers, tuple)]
)
def test_the_container_is_the_one_that_the_function_returns(make, function, container, calls):
    name = namespace()
    here, there = (cache_items(60, store=make(namespace=name))(function) for _ in range(2))
    given = tuple if function is functions.answers else list

    async def main():
        first = await here(given(["a", "bb", "ccc"]))
        await handle(here).options.store.link().finish(60.0)
        mixed = await there(given(["ccc", "new", "a"]))
        assert type(first) is type(mixed) is container
        assert np.array_equal(mixed[0], first[2]) if container is np.ndarray else mixed[0] == first[2]
        assert np.array_equal(mixed[2], first[0]) if container is np.ndarray else mixed[2] == first[0]
        assert calls == [["a", "bb", "ccc"], ["new"]]
        for each in (here, there):
            await handle(each).aclose()

    asyncio.run(main())


def test_half_of_the_items_in_flight_in_another_call(three, calls):
    here, _, _ = three(functions.slow_lengths)

    async def main():
        first, second = await asyncio.gather(here(["a", "bb"]), here(["bb", "ccc"]))
        assert (first, second) == ([1, 2], [2, 3])
        assert calls == [["a", "bb"], ["ccc"]]

    testing.run(main)


def test_many_overlapping_calls_compute_each_item_once(three, calls):
    here, there, _ = three(functions.slow_lengths, max_batch=8, max_entries=10_000)

    async def main():
        lists = [[f"{(start + each) % 60}" for each in range(20)] for start in range(0, 300, 3)]
        results = await asyncio.gather(*[here(texts) for texts in lists])
        assert results == [[len(text) for text in texts] for texts in lists]
        computed = [text for batch in calls for text in batch]
        assert len(computed) == len(set(computed)) == 60
        await asyncio.sleep(1)
        calls.clear()
        assert await asyncio.gather(*[there(texts) for texts in lists]) == results
        assert not calls

    testing.run(main)


def test_other_arguments_belong_to_the_key_of_each_item(three, calls):
    here, there, _ = three(functions.scaled)

    async def main():
        assert await here(["a"], 2) == [2]
        await soon()
        assert await there(["a"], 3) == [3]
        assert await there(["a"], scale=2) == [2]
        assert len(calls) == 2

    testing.run(main)


def test_a_key_of_one_item(three, calls):
    here, there, _ = three(functions.lengths, key=str.lower)

    async def main():
        await here(["A"])
        await soon()
        await there(["a"])
        assert calls == [["A"]]

    testing.run(main)


def test_rows_of_different_lives_are_written_with_their_own(three, memory):
    here, _, _ = three(functions.lengths, lambda row: 10 * row)

    async def main():
        await here(["a", "bb", "cc"])
        await soon()
        assert sorted(memory.ttls) == [10, 20]

    testing.run(main)


def test_rows_that_were_computed_one_after_the_other_are_written_together(three, memory):
    here, _, _ = three(functions.slow_lengths, ttl=3600.7, max_batch=1)

    async def main():
        await here([str(each) for each in range(9)])
        await soon()
        assert len(memory.ttls) == 1

    testing.run(main)


def test_stale_items_answer_and_are_refreshed_behind(three, calls):
    here, there, third = three(functions.lengths, stale_while_revalidate=60)

    async def main():
        await here(["a", "bb"])
        await soon()
        await asyncio.sleep(70)
        assert await there(["a", "bb"]) == [1, 2]
        await soon()
        await soon()
        assert calls == [["a", "bb"], ["a", "bb"]]
        assert [found.stale for found in await handle(third).get(["a", "bb"])] == [False, False]

    testing.run(main)


def test_a_chunk_that_fails_fails_only_its_own_items(three, memory, calls):
    here, there, _ = three(functions.picky, max_batch=1)

    async def main():
        with pytest.raises(ValueError, match="bad"):
            await here(["a", "bad", "c"])
        await soon()
        assert await there(["a", "c"]) == [1, 1]
        assert calls == [["a"], ["bad"], ["c"]]

    testing.run(main)


def test_the_handle_answers_for_items(three, calls):
    here, there, _ = three(functions.lengths, tags=lambda text: [text[0]])

    async def main():
        await here(["a", "ab", "b"])
        await soon()
        found = await handle(there).get(["a", "x", "b"])
        assert [each and each.value for each in found] == [1, None, 1]
        assert await handle(here).invalidate(["a"]) is True
        await handle(here).invalidate_tag("b")
        assert [each and each.value for each in await handle(there).get(["a", "ab", "b"])] == [None, 2, None]
        await handle(here).clear()
        assert await handle(there).get(["ab"]) == [None]
        await soon()
        await handle(here).refresh(["q"])
        await soon()
        assert (await handle(there).get(["q"]))[0].value == 1

    testing.run(main)


def test_an_item_that_only_this_process_knows_is_an_error(three):
    here, _, _ = three(functions.lengths)

    async def main():
        with pytest.raises(TypeError, match="texts"):
            await here(["a", lambda: 1])
        assert handle(here).info().in_flight == 0

    testing.run(main)


def test_with_a_lease_each_item_is_computed_in_one_place(three, calls):
    here, there, _ = three(functions.slow_lengths, store={"lease": 30})

    async def main():
        first, second = await asyncio.gather(here(["a", "bb", "c"]), there(["bb", "dddd", "c"]))
        assert first == [1, 2, 1]
        assert second == [2, 4, 1]
        computed = sorted(text for batch in calls for text in batch)
        assert computed == ["a", "bb", "c", "dddd"]

    testing.run(main)

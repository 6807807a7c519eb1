"""List in, list out: cached and computed item by item, each once."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import types

import anyio
import numpy as np
import pytest

import asyncguard as ag
from asyncguard import events, testing
from asyncguard.strategies.cache_items import CacheItems


class Encoder:
    """A batch function that notes what it was asked for."""

    def __init__(self, seconds=0.0):
        self.batches, self.seconds, self.broken = [], seconds, set()

    def rows(self, texts):
        self.batches.append(list(texts))
        if self.broken & set(texts):
            raise ConnectionError("+".join(texts))
        return [f"<{text}>" for text in texts]

    def asynchronous(self):
        async def encode(texts: list[str], model: str = "m") -> list[str]:
            await anyio.sleep(self.seconds)
            return self.rows(texts)

        return encode

    def sync(self):
        def encode(texts: list[str], model: str = "m") -> list[str]:
            return self.rows(texts)

        return encode


@pytest.fixture(params=["asyncio", "trio", "sync"])
def colour(request):
    return request.param


def play(colour, encoder, scene, **options):
    """Run `await scene(call, cache, sleep)` on virtual time."""
    cache = ag.cache_items(options.pop("ttl", 10), **options)
    if colour == "sync":
        fn = cache(encoder.sync())

        async def call(*args, **kwargs):
            return fn(*args, **kwargs)

        with testing.virtual_clock() as clock:

            async def sleep(seconds):
                clock.advance(seconds)
                late = time.monotonic() + 60
                while cache.info().in_flight and time.monotonic() < late:
                    time.sleep(0.001)  # noqa: ASYNC251 - threads finish their refreshes meanwhile

            coroutine = scene(call, cache, sleep)
            with pytest.raises(StopIteration):
                coroutine.send(None)
        return
    fn = cache(encoder.asynchronous())
    testing.run(lambda: scene(fn, cache, anyio.sleep), backend=colour)


def test_only_what_is_new_is_computed_each_item_once_and_the_order_is_kept(colour):
    encoder = Encoder()

    async def scene(call, cache, sleep):
        assert await call(["a", "b", "a"]) == ["<a>", "<b>", "<a>"]
        assert await call(["c", "b", "d", "c"]) == ["<c>", "<b>", "<d>", "<c>"]
        assert await call(["a", "d"]) == ["<a>", "<d>"]
        await sleep(10.1)
        assert await call(["a"]) == ["<a>"]

    play(colour, encoder, scene)
    assert encoder.batches == [["a", "b"], ["c", "d"], ["a"]]


def test_the_other_arguments_belong_to_the_key_however_they_are_given(colour):
    encoder = Encoder()

    async def scene(call, cache, sleep):
        await call(["a"])
        await call(["a"], "m")
        await call(texts=["a"], model="m")
        await call(["a"], model="n")

    play(colour, encoder, scene)
    assert encoder.batches == [["a"], ["a"]]


def test_chunks_are_no_larger_than_max_batch(colour):
    encoder = Encoder()

    async def scene(call, cache, sleep):
        assert await call(list("abcde")) == [f"<{text}>" for text in "abcde"]

    play(colour, encoder, scene, max_batch=2)
    assert encoder.batches == [["a", "b"], ["c", "d"], ["e"]]


def test_a_failed_chunk_fails_its_own_items_only(colour):
    encoder = Encoder()
    encoder.broken = {"c"}

    async def scene(call, cache, sleep):
        with pytest.raises(ConnectionError, match=r"c\+d"):
            await call(list("abcde"))
        encoder.broken = set()
        values = [None if got is None else got.value for got in cache.get(list("abcde"))]
        assert values == ["<a>", "<b>", None, None, "<e>"]
        assert await call(list("abcde")) == [f"<{text}>" for text in "abcde"]

    play(colour, encoder, scene, max_batch=2)
    assert encoder.batches[3:] == [["c", "d"]]


def test_a_wrong_number_of_rows_is_an_error_naming_both_and_stores_nothing(colour):
    encoder = Encoder()
    encoder.rows = lambda texts: ["only one"]

    async def scene(call, cache, sleep):
        with pytest.raises(ValueError, match=r"encode was called with 2 items and returned 1 results"):
            await call(["a", "b"])
        assert cache.info().entries == 0

    play(colour, encoder, scene)


def test_a_result_without_rows_is_an_error(colour):
    encoder = Encoder()
    encoder.rows = lambda texts: {"a": 1, "b": 2}

    async def scene(call, cache, sleep):
        with pytest.raises(TypeError, match="a list, a tuple, an array or a tensor"):
            await call(["a", "b"])

    play(colour, encoder, scene)


def test_no_items_are_a_plain_call(colour):
    encoder = Encoder()

    async def scene(call, cache, sleep):
        assert await call([]) == []

    play(colour, encoder, scene)
    assert encoder.batches == [[]]


@pytest.mark.parametrize("items", [iter(["a"]), "abc", {"a": 1}, 5])
def test_what_is_no_sequence_is_refused(colour, items):
    async def scene(call, cache, sleep):
        with pytest.raises(TypeError, match="over 'texts', which has to be a list, a tuple or an array"):
            await call(items)

    play(colour, Encoder(), scene)


def test_items_that_are_old_are_refreshed_behind_in_one_batch(colour):
    encoder = Encoder()

    async def scene(call, cache, sleep):
        await call(["a", "b"])
        await sleep(5)
        await call(["c"])
        await sleep(6)
        assert await call(["a", "b", "c", "d"]) == ["<a>", "<b>", "<c>", "<d>"]
        await sleep(0.1)
        assert sorted(encoder.batches[2:]) == [["a", "b"], ["d"]]
        assert not any(got.stale for got in cache.get(["a", "b", "c", "d"]))

    play(colour, encoder, scene, stale_while_revalidate=60)


def test_an_outage_is_bridged_item_by_item(colour):
    encoder = Encoder()

    async def scene(call, cache, sleep):
        await call(["a", "b"])
        await sleep(11)
        encoder.broken = {"a", "b", "c"}
        assert await call(["a", "b"]) == ["<a>", "<b>"]
        assert await call(["a", "b"]) == ["<a>", "<b>"]
        assert len(encoder.batches) == 2  # the second did not try
        with pytest.raises(ConnectionError):
            await call(["a", "c"])

    play(colour, encoder, scene, stale_if_error=60)


def test_events_count_items(colour):
    async def scene(call, cache, sleep):
        with testing.record_events() as recorded:
            await call(["a", "b"])
            await call(["a", "b", "c"])
        told = [(type(event).__name__.removeprefix("Cache"), event.items) for event in recorded]
        assert told == [("Missed", 2), ("Stored", 2), ("Hit", 2), ("Missed", 1), ("Stored", 1)]

    play(colour, Encoder(), scene)


def test_observe_reports_and_never_answers(colour):
    encoder = Encoder()

    async def scene(call, cache, sleep):
        with testing.record_events() as recorded:
            await call(["a"])
            assert await call(["a", "b"]) == ["<a>", "<b>"]
        assert recorded.of(events.CacheHit)[0].items == 1
        assert all(event.observed for event in recorded)

    play(colour, encoder, scene, mode="observe")
    assert encoder.batches == [["a"], ["a", "b"]]


def test_a_block_may_leave_the_cache_aside_or_renew_it(colour):
    encoder = Encoder()

    async def scene(call, cache, sleep):
        await call(["a"])
        with ag.cache_bypass():
            await call(["a"])
        with ag.cache_refresh():
            await call(["a", "b"])
        await call(["a", "b"])

    play(colour, encoder, scene)
    assert encoder.batches == [["a"], ["a"], ["a", "b"]]


def test_the_handle_is_about_items(colour):
    encoder = Encoder()

    async def scene(call, cache, sleep):
        await call(["a", "b"])
        await sleep(1)
        got = cache.get(["a", "x"])
        assert (got[0].value, got[0].age, got[1]) == ("<a>", pytest.approx(1), None)
        assert cache.invalidate(["a", "x"])
        assert not cache.invalidate(["a", "x"])
        refreshed = cache.refresh(["a", "b"])
        assert (refreshed if colour == "sync" else await refreshed) == ["<a>", "<b>"]
        empty = cache.refresh([])
        assert (empty if colour == "sync" else await empty) == []

    play(colour, encoder, scene)
    assert encoder.batches == [["a", "b"], ["a", "b"], []]


def test_key_tags_and_cache_if_are_about_one_item(colour):
    encoder = Encoder()

    async def scene(call, cache, sleep):
        await call(["a", "A", "b"])
        assert cache.invalidate_tag("a") == 1
        await call(["A", "b"])

    options = {"key": str.lower, "tags": lambda item: [item.lower()], "cache_if": lambda row: row != "<b>"}
    play(colour, encoder, scene, **options)
    assert encoder.batches == [["a", "b"], ["A", "b"]]


def test_the_number_of_items_and_their_bytes_are_bounded(colour):
    async def scene(call, cache, sleep):
        assert await call([str(number) for number in range(50)]) == [f"<{number}>" for number in range(50)]
        assert cache.info().entries <= 5
        assert cache.info().nbytes <= 2000

    play(colour, Encoder(), scene, max_entries=5, max_bytes=2000)


def test_a_failing_option_fails_its_item(colour):
    async def scene(call, cache, sleep):
        with pytest.raises(ZeroDivisionError):
            await call(["a"])

    play(colour, Encoder(), scene, cache_if=lambda row: 1 / 0)


# --- what the function returns ----------------------------------------------------------------------------------------


def returning(make, **options):
    batches = []

    @ag.cache_items(60, over="xs", **options)
    def fn(xs):
        batches.append(xs)
        return make(xs)

    return fn, batches


def test_a_tuple_stays_a_tuple():
    fn, _ = returning(tuple)
    assert fn([1, 2]) == fn([1, 2]) == (1, 2)


@pytest.mark.parametrize("dtype", ["f4", "i8", object])
def test_rows_of_an_array_come_back_as_an_array_of_the_callers_own(dtype):
    fn, _ = returning(lambda xs: np.array([[x, x + 1] for x in xs], dtype=dtype))
    fn([1])
    got = fn([2, 1, 2])
    assert got.dtype == dtype
    assert got.tolist() == [[2, 3], [1, 2], [2, 3]]
    got[:] = 0
    assert fn([2, 1]).tolist() == [[2, 3], [1, 2]]


def test_an_array_of_numbers_comes_back_as_one():
    fn, _ = returning(lambda xs: np.array(xs, dtype="f4") * 2)
    fn([1])
    got = fn([1, 3])
    assert (got.dtype, got.tolist()) == (np.dtype("f4"), [2.0, 6.0])


def test_one_row_does_not_keep_the_whole_batch_in_memory():
    fn, _ = returning(lambda xs: np.zeros((len(xs), 1000)))
    cache = ag.pipeline_of(fn)[CacheItems]
    fn(list(range(100)))
    (entry, *_) = [row for cell in cache.core.cells() for row in cell.entries.values()]
    assert entry.value.base is None or entry.value.base.nbytes == 8000


@pytest.mark.parametrize("container", [np.asarray, list, tuple], ids=["array", "list", "tuple"])
def test_rows_of_a_buffer_that_the_function_uses_again_stay_what_they_were_and_do_not_pin_it(container):
    buffer = np.zeros((100, 8))

    def fill(xs):
        buffer[: len(xs)] = np.reshape(xs, (-1, 1))
        return container(buffer[: len(xs)])

    fn, _ = returning(fill)
    cache = ag.pipeline_of(fn)[CacheItems]
    fn([1, 2, 3])
    fn([4, 5])
    assert [row[0] for row in fn([1, 2, 3, 4, 5])] == [1, 2, 3, 4, 5]
    for entry in (entry for cell in cache.core.cells() for entry in cell.entries.values()):
        assert entry.value.base is None or entry.value.base.nbytes == 64
        assert not entry.value.flags.writeable


def test_rows_in_a_list_are_each_callers_own():
    fn, _ = returning(lambda xs: [[x] for x in xs])
    fn([1])[0].append("poison")
    assert fn([1]) == [[1]]


def test_the_function_gets_the_kind_of_container_that_was_given():
    fn, batches = returning(list)
    fn((1, 2)), fn([3]), fn(np.array([4, 5]))
    assert [type(batch) for batch in batches] == [tuple, list, np.ndarray]
    assert batches[2].tolist() == [4, 5]


def test_tensor_rows_are_cloned_and_stacked(monkeypatch):
    class Tensor:
        def __init__(self, array):
            self.array, self.shape = np.asarray(array), np.shape(array)

        def __len__(self):
            return len(self.array)

        def __iter__(self):
            return iter([Tensor(row) for row in self.array])

        def clone(self):
            return Tensor(self.array.copy())

    Tensor.__module__ = "torch"
    module = types.ModuleType("torch")
    module.Tensor = Tensor
    module.stack = lambda rows: Tensor(np.stack([row.array for row in rows]))
    monkeypatch.setitem(sys.modules, "torch", module)
    fn, _ = returning(lambda xs: Tensor([[x] for x in xs]))
    fn([1])
    assert fn([2, 1]).array.tolist() == [[2], [1]]


@pytest.mark.parametrize(("library", "home"), [("cupy", "cupy"), ("jax", "jax.numpy"), ("jaxlib", "jax.numpy")])
def test_rows_of_other_libraries_are_stacked_by_them(monkeypatch, library, home):
    array = type("Array", (np.ndarray,), {"__module__": library})
    module = types.ModuleType(home)
    module.stack = lambda rows: np.stack(rows).view(array)
    monkeypatch.setitem(sys.modules, home, module)
    fn, _ = returning(lambda xs: np.array([[x] for x in xs]).view(array), isolation="share")
    fn([1])
    assert type(fn([2, 1])) is array


def test_over_must_name_a_parameter():
    with pytest.raises(ValueError, match=r"over must name a parameter of .* \(xs\), got 'texts'"):
        ag.cache_items(60)(lambda xs: xs)


def test_items_of_a_method_and_of_a_bound_method_through_a_pipeline():
    class Model:
        def __init__(self, name):
            self.name = name

        @ag.cache_items(60)
        def encode(self, texts):
            return [(self.name, text) for text in texts]

        def plain(self, texts, /):
            return [(self.name, text) for text in texts]

    one, two = Model("one"), Model("two")
    assert [one.encode(["a"]), two.encode(["a"]), one.encode(texts=["a"])] == [
        [("one", "a")], [("two", "a")], [("one", "a")]]  # fmt: skip
    cache = ag.pipeline_of(Model.encode)[CacheItems]
    assert cache.of(one.encode).get(["a"])[0].value == ("one", "a")
    pipeline = ag.guard(ag.cache_items(60))
    assert [pipeline.call_sync(model.plain, ["a", "b"])[1] for model in (one, two, one)] == [
        ("one", "b"), ("two", "b"), ("one", "b")]  # fmt: skip


# --- together with others ---------------------------------------------------------------------------------------------


def test_a_hundred_overlapping_calls_compute_each_item_once(backend):
    encoder = Encoder(seconds=1)
    fn = ag.cache_items(60)(encoder.asynchronous())

    async def main():
        outcomes = {}

        async def call(at):
            texts = [str(at % 7), str(at % 5), "x"]
            outcomes[at] = await fn(texts) == [f"<{text}>" for text in texts]

        async with anyio.create_task_group() as group:
            for at in range(100):
                group.start_soon(call, at)
        return all(outcomes.values())

    assert testing.run(main, backend=backend)
    asked = [text for batch in encoder.batches for text in batch]
    assert sorted(asked) == sorted(set(asked))


def test_cancelling_one_call_costs_those_who_share_items_with_it_nothing(backend):
    encoder = Encoder(seconds=1)
    fn = ag.cache_items(60)(encoder.asynchronous())

    async def main():
        got = []

        async def call(texts):
            got.append(await fn(texts))

        async with anyio.create_task_group() as group:
            with anyio.move_on_after(0.5):
                async with anyio.create_task_group() as inner:
                    inner.start_soon(call, ["a", "b"])
                    await anyio.sleep(0.1)
                    group.start_soon(call, ["b", "c"])
        return got

    assert testing.run(main, backend=backend) == [["<b>", "<c>"]]
    assert encoder.batches == [["a", "b"], ["c"]]


def test_when_all_have_left_the_work_is_cancelled_and_nothing_is_behind(backend):
    encoder = Encoder(seconds=1)
    cache = ag.cache_items(60, max_batch=1)
    fn = cache(encoder.asynchronous())

    async def main():
        with anyio.move_on_after(1.5):
            async with anyio.create_task_group() as group:
                for _ in range(20):
                    group.start_soon(fn, ["a", "b", "c"])
        await anyio.sleep(10)
        return cache.info().in_flight, await fn(["a"])

    assert testing.run(main, backend=backend) == (0, ["<a>"])
    assert encoder.batches == [["a"]]  # "b" was being computed and was cancelled, "a" was stored


def test_chunks_that_nobody_waits_for_any_more_are_not_computed(backend):
    encoder = Encoder(seconds=1)
    fn = ag.cache_items(60, max_batch=1)(encoder.asynchronous())

    async def main():
        got = []

        async def call(texts):
            got.append(await fn(texts))

        async with anyio.create_task_group() as group:
            with anyio.move_on_after(0.5):
                async with anyio.create_task_group() as inner:
                    inner.start_soon(call, ["a", "b", "c"])
                    await anyio.sleep(0.1)
                    group.start_soon(call, ["a", "c"])
        return got

    assert testing.run(main, backend=backend) == [["<a>", "<c>"]]
    assert encoder.batches == [["a"], ["c"]]


def test_recursion_on_an_own_item_is_an_error_and_leaves_nothing_waiting(backend):
    cache = ag.cache_items(60, over="xs")

    @cache
    async def fn(xs):
        await anyio.sleep(0.1)
        if xs == [1]:
            return await fn([2, 1])
        return xs

    async def main():
        with pytest.raises(RecursionError, match="own computation"):
            await fn([1])
        return cache.info().in_flight, await fn([2])

    assert testing.run(main, backend=backend) == (0, [2])


def test_an_interrupt_leaves_no_flight_behind():
    cache = ag.cache_items(60, over="xs")

    @cache
    def fn(xs):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fn([1, 2])
    assert cache.info().in_flight == 0


def test_threads_share_items_and_none_waits_for_ever():
    lock = threading.Lock()
    asked = []
    cache = ag.cache_items(60, over="xs")

    @cache
    def fn(xs):
        with lock:
            asked.extend(xs)
        time.sleep(0.002)
        return [x * 10 for x in xs]

    results = {}

    def run(at):
        xs = [(at + step) % 12 for step in range(6)]
        results[at] = fn(xs) == [x * 10 for x in xs]

    threads = [threading.Thread(target=run, args=(at,)) for at in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == dict.fromkeys(range(12), True)
    assert sorted(asked) == list(range(12))


def test_a_loop_thread_does_not_block_on_another_thread():
    go = threading.Event()
    calls = []

    @ag.cache_items(60, over="xs")
    def fn(xs):
        calls.append(xs)
        if len(calls) == 1:
            go.wait(60)
        return xs

    async def main():
        other = asyncio.create_task(asyncio.to_thread(fn, [1]))
        while not calls:  # noqa: ASYNC110 - another thread sets it
            await asyncio.sleep(0.001)
        here = fn([1, 2])
        go.set()
        return here, await other

    assert asyncio.run(main()) == ([1, 2], [1])


def test_a_masked_array_is_refused_since_stacking_its_rows_would_lose_the_mask():
    @ag.cache_items(60, over="xs")
    def fn(xs):
        return np.ma.masked_array([[x, x] for x in xs], mask=[[True, False]] * len(xs))

    with pytest.raises(TypeError, match="got MaskedArray"):
        fn([1, 2])


def test_masked_items_are_refused_since_the_function_would_get_them_without_the_mask():
    @ag.cache_items(60, over="xs")
    def fn(xs):
        return list(xs)

    with pytest.raises(TypeError, match="a list, a tuple or an array, got MaskedArray"):
        fn(np.ma.masked_array([1, 2], mask=[True, False]))


@pytest.mark.parametrize(("isolation", "inner"), [("auto", [1, 2, 2]), ("copy", [1])])
def test_objects_in_an_array_are_each_callers_own_too(isolation, inner):
    @ag.cache_items(60, over="xs", isolation=isolation)
    def fn(xs):
        return np.array([{"a": [x]} for x in xs])

    for _ in range(2):  # computed, and from the cache
        row = fn([1])[0]
        row["b"] = 1
        row["a"].append(2)
    assert fn([1])[0] == {"a": inner}


def test_objects_in_an_array_that_have_a_method_copy_are_not_asked_for_it():
    class Model:
        def copy(self):
            raise DeprecationWarning

    models = [Model(), Model()]

    @ag.cache_items(60, over="xs")
    def fn(xs):
        made = np.empty(len(xs), object)
        made[:] = models
        return made

    assert fn([1, 2]).tolist() == models


@pytest.mark.parametrize("kind", ["*", "**"])
def test_over_cannot_be_a_parameter_that_collects_arguments(kind):
    namespace = {}
    exec(f"def fn({kind}texts): return [1 for _ in texts]", namespace)  # noqa: S102 - two signatures in one test
    with pytest.raises(ValueError, match="that can take a list"):
        ag.cache_items(60)(namespace["fn"])


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_the_traceback_of_an_error_shows_the_function_and_not_the_flight(kind):
    def fn(xs):
        raise ValueError(xs)

    async def fn_async(xs):
        raise ValueError(xs)

    cached = ag.cache_items(60, over="xs")
    with pytest.raises(ValueError, match="1") as caught:
        cached(fn)([1]) if kind == "sync" else asyncio.run(cached(fn_async)([1]))
    assert caught.traceback[-1].name.startswith("fn")
    assert not [entry for entry in caught.traceback if entry.path.name in {"items_work.py", "flight_tasks.py"}]

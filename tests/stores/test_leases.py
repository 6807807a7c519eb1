"""One computation of a key among several processes, and what becomes of it when something fails."""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
from pathlib import Path

import pytest

from asyncguard import cache_result, pipeline_of, testing
from asyncguard.stores import AiocacheStore
from asyncguard.strategies import CacheResult
from tests.stores import functions
from tests.stores.conftest import namespace, store_in
from tests.stores.servers import free_port
from tests.stores.test_results import Memory, soon

ROOT = Path(__file__).parents[2]
PROGRAM = "from tests.stores import worker; worker.main()"


@pytest.fixture(autouse=True)
def calls():
    functions.calls.clear()
    functions.gate = None
    return functions.calls


def fleet(url: str, *, lease: float, processes: int = 4, callers: int = 20) -> list[dict[str, int]]:
    """Start processes, let all of them begin at the same moment, and return what each says."""
    name = namespace()
    command = [sys.executable, "-c", PROGRAM, url, name, str(callers), str(lease)]
    started = [
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(processes)
    ]
    try:
        for each in started:
            assert each.stdout is not None
            assert each.stdout.readline() == "ready\n"
        for each in started:
            assert each.stdin is not None
            each.stdin.write("go\n")
            each.stdin.flush()
        return [json.loads(each.communicate(timeout=120)[0]) for each in started]
    finally:
        for each in started:
            each.kill()
            each.communicate()


def test_four_processes_with_twenty_callers_each_compute_a_key_once(server, kind):
    answers = fleet(f"{kind}://127.0.0.1:{server.port}", lease=30)
    assert sum(answer["calls"] for answer in answers) == 1
    assert [answer["right"] for answer in answers] == [20] * 4
    assert sum(answer["errors"] for answer in answers) == 0


def test_without_a_server_each_process_computes_it_once_and_answers():
    answers = fleet(f"redis://127.0.0.1:{free_port()}", lease=30)
    assert [answer["calls"] for answer in answers] == [1] * 4
    assert [answer["right"] for answer in answers] == [20] * 4


# --- on virtual time --------------------------------------------------------------------------------------------------


@pytest.fixture
def memory():
    return Memory()


def cached(memory, function, lease=30.0):
    return cache_result(60, store=AiocacheStore(memory, namespace="n", lease=lease))(function)


def lease_of(function, *args):
    bound = pipeline_of(function)[CacheResult].bounds[0]
    tier = bound.tier(bound.terms)
    return tier.names.key_of(tier.names.hash_of(args, {}).fork().add(b"lease"))


def now():
    return asyncio.get_running_loop().time()


def test_a_holder_that_died_delays_the_others_until_its_lease_lapses(memory, calls):
    function = cached(memory, functions.embed, lease=30.0)

    async def main():
        await memory.add(lease_of(function, "a"), b"of the dead", ttl=12.0)
        start = now()
        assert await function("a") == [1.0]
        assert 12 <= now() - start <= 12.3
        assert calls == ["a"]

    testing.run(main)


def test_nobody_waits_longer_than_the_lease(memory, calls):
    function = cached(memory, functions.embed, lease=5.0)

    async def main():
        memory.data[lease_of(function, "a")] = b"for ever"
        start = now()
        assert await function("a") == [1.0]
        assert 5 <= now() - start <= 5.3

    testing.run(main)


def test_a_value_that_comes_ends_the_waiting(memory, calls):
    one, other = cached(memory, functions.slow), cached(memory, functions.slow)

    async def main():
        start = now()
        assert await asyncio.gather(one("a"), other("a")) == ["A", "A"]
        assert now() - start <= 0.3 + 0.26
        assert calls == ["a"]

    testing.run(main)


def test_who_waits_for_a_lease_counts_each_value_once_however_often_it_looks(memory, calls):
    first, second = (AiocacheStore(memory, namespace="n", lease=30.0) for _ in range(2))
    one, other = (cache_result(60, store=store)(functions.slow) for store in (first, second))

    async def main():
        await asyncio.gather(one("a"), other("a"))
        counted = sorted((info.hits, info.misses) for info in (first.info(), second.info()))
        assert (calls, counted) == (["a"], [(0, 1), (1, 0)])

    testing.run(main)


def test_a_store_that_dies_during_the_waiting_ends_it(memory, calls):
    function = cached(memory, functions.embed)

    async def main():
        memory.data[lease_of(function, "a")] = b"mine"
        task = asyncio.create_task(function("a"))
        await asyncio.sleep(1)
        memory.data.clear()

        async def dead(keys, **options):
            raise ConnectionError

        start = now()
        store = pipeline_of(function)[CacheResult].options.store
        store.link().client._backend.multi_get = dead
        assert await task == [1.0]
        assert now() - start <= 0.3
        assert calls == ["a"]

    testing.run(main)


def test_polls_are_ever_less_frequent(memory):
    function = cached(memory, functions.embed, lease=10.0)

    async def main():
        memory.data[lease_of(function, "a")] = b"for ever"
        await function("a")
        assert 10 / 0.25 <= len(memory.asked) <= 10 / 0.125 + 8

    testing.run(main)


def test_a_holder_whose_function_fails_lets_the_next_one_try(kind, make, calls):
    name = namespace()
    one, other = (cache_result(60, store=make(namespace=name, lease=2.0))(functions.failing) for _ in range(2))

    async def main():
        for function in (one, other, one):
            with pytest.raises(LookupError):
                await function("a")
        assert len(calls) == 3
        for function in (one, other):
            await pipeline_of(function)[CacheResult].aclose()

    asyncio.run(main())


def test_a_lease_of_redis_goes_back_with_the_value(redis_server, calls):
    store = store_in("redis", redis_server, lease=30.0)
    function = cache_result(60, store=store)(functions.embed)

    async def main():
        await function("a")
        await store.link().finish(60.0)
        await store.link().finish(60.0)
        assert await store.read([lease_of(function, "a")]) == [None]
        functions.gate = asyncio.Event()
        task = asyncio.create_task(function("b"))
        while len(calls) < 2:  # noqa: ASYNC110 - the function runs in a task of its own
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await store.link().finish(60.0)
        assert await store.read([lease_of(function, "b")]) == [None]
        await pipeline_of(function)[CacheResult].aclose()

    asyncio.run(main())


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning", "ignore:loop is closed:ResourceWarning")
def test_a_loop_that_ends_during_the_write_gives_the_lease_back_and_leaves_no_task(redis_server, calls, caplog):
    store = store_in("redis", redis_server, lease=30.0)
    function = cache_result(60, store=store)(functions.embed)

    async def leases():
        try:
            return await store.read([lease_of(function, each) for each in "abc"])
        finally:
            await store.aclose()

    async def main():
        await asyncio.gather(*[function(each) for each in "abc"])  # they have their values before those are written

    asyncio.run(main())
    assert asyncio.run(leases()) == [None] * 3
    assert sorted(calls) == ["a", "b", "c"]
    gc.collect()
    assert not caplog.records  # "Task was destroyed but it is pending!"


def test_a_value_written_between_the_look_and_the_lease_is_taken(memory, calls):
    one, other = cached(memory, functions.embed), cached(memory, functions.embed)

    async def main():
        real = memory.add

        async def slowly(key, value, **options):
            await asyncio.sleep(1)
            return await real(key, value, **options)

        store = pipeline_of(other)[CacheResult].options.store
        store.timeout = 5.0
        store.link().client._backend.add = slowly
        task = asyncio.create_task(other("a"))
        await soon()
        await one("a")
        await soon()
        memory.data.pop(lease_of(one, "a"), None)
        assert await task == [1.0]
        assert calls == ["a"]

    testing.run(main)

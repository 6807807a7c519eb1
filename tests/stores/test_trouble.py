"""A cached function whose store is killed, paused, filled with rubbish, while calls go on: each of them answers."""

from __future__ import annotations

import asyncio
import os
import pickle
import random
import socket
import threading

import pytest

from asyncguard import cache_items, cache_result, pipeline_of
from asyncguard.strategies import CacheItems, CacheResult
from tests.stores import functions
from tests.stores.conftest import namespace, store_in
from tests.stores.doubles import with_clock


@pytest.fixture(autouse=True)
def calls():
    functions.calls.clear()
    functions.gate = None
    return functions.calls


class Load:
    """Callers that ask for ever new keys until they are told to stop; every answer has to be right."""

    def __init__(self, function):
        self.function = function
        self.answers = 0
        self._on = True
        self._number = 0

    async def __aenter__(self):
        self._tasks = [asyncio.create_task(self._call()) for _ in range(10)]
        return self

    async def __aexit__(self, *_):
        self._on = False
        await asyncio.gather(*self._tasks)

    async def _call(self):
        while self._on:
            self._number += 1
            text = "x" * (self._number % 97) + str(self._number)
            assert await self.function(text) == [float(len(text))]
            self.answers += 1
            await asyncio.sleep(0.001)

    async def more(self, answers):
        """Wait for so many more answers."""
        goal = self.answers + answers
        while self.answers < goal:
            for task in self._tasks:
                if task.done():
                    task.result()
            await asyncio.sleep(0.005)

    async def until_written(self, later):
        """Go on, an hour of the circuit's clock each time, until the store is in use again and takes what is new."""
        info = handle(self.function).options.store.info
        before = info().written
        for _ in range(200):
            later.ahead += 3600
            await self.more(20)
            if info().circuit == "closed" and info().written > before:
                return
        raise AssertionError(f"the store is not used again: {info()}")


def handle(function):
    return pipeline_of(function)[CacheResult]


@pytest.mark.parametrize("write", ["wait", "background"])
def test_a_server_that_is_paused_and_goes_on_under_load_is_used_again(kind, own_server, write):
    store = store_in(kind, own_server, timeout=0.2, write=write)
    function = cache_result(600, store=store, max_entries=1)(functions.embed)
    later = with_clock(store)

    async def main():
        async with Load(function) as load:
            await load.more(50)
            own_server.pause()
            await load.more(100)
            assert store.info().circuit != "closed"
            own_server.resume()
            later.ahead += 60
            await load.more(100)
            await load.until_written(later)
        await handle(function).aclose()

    asyncio.run(main())


def test_a_server_that_is_killed_and_started_again_under_load_is_used_again(kind, own_server):
    store = store_in(kind, own_server)
    function = cache_result(600, store=store, max_entries=1)(functions.embed)
    later = with_clock(store)

    async def main():
        async with Load(function) as load:
            await load.more(50)
            own_server.kill()
            await load.more(100)
            await asyncio.to_thread(own_server.start)
            await load.until_written(later)
            assert store.info().errors < 60
        await handle(function).aclose()

    asyncio.run(main())


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def rubbish(good: bytes, rng: random.Random) -> bytes:
    flipped = bytearray(good)
    flipped[rng.randrange(len(good))] ^= 1 << rng.randrange(8)
    return rng.choice(
        [
            bytes(flipped),
            good[: rng.randrange(len(good))],
            good + b"x",
            b"AG2" + good[3:],
            b"AG0" + good[3:],
            pickle.dumps(Bomb()),
            rng.randbytes(rng.randrange(100)),
            b"AG1" + rng.randbytes(60),
            b'{"json": 1}',
        ]
    )


def test_rubbish_in_the_server_under_load_is_a_miss_and_never_executed(kind, own_server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = namespace()
    stores = [store_in(kind, own_server, namespace=name) for _ in range(2)]
    functions_ = [cache_result(600, store=store)(functions.embed) for store in stores]
    rng = random.Random(1)

    async def main():
        texts = [f"text {number}" for number in range(300)]
        await asyncio.gather(*[functions_[0](text) for text in texts])
        await stores[0].link().finish(60.0)
        bound = handle(functions_[0]).bounds[0]
        tier = bound.tier(bound.terms)
        keys = [tier.names.key_of(tier.names.hash_of((text,), {})) for text in texts]
        good = await stores[0].read(keys)
        assert all(isinstance(each, bytes) for each in good)
        await stores[0].write([(key, rubbish(each, rng)) for key, each in zip(keys, good, strict=True)], 600)
        results = await asyncio.gather(*[functions_[1](text) for text in texts])
        assert results == [[float(len(text))] for text in texts]
        info = stores[1].info()
        assert info.unreadable == 300
        assert (info.hits, info.errors) == (0, 0)
        await stores[1].link().finish(60.0)
        assert all(isinstance(each, bytes) and each.startswith(b"AG1") for each in await stores[0].read(keys))
        for function in functions_:
            await handle(function).aclose()

    asyncio.run(main())
    assert not (tmp_path / "executed").exists()


def test_a_server_that_talks_nonsense_is_a_failed_store_and_no_more(kind):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        on = True

        def talk():
            while on:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(1000)
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        talker = threading.Thread(target=talk, daemon=True)
        talker.start()

        class Fake:
            port = listener.getsockname()[1]

        store = store_in(kind, Fake)
        with_clock(store)
        function = cache_result(600, store=store)(functions.embed)

        async def main():
            assert await function("abc") == [3.0]
            assert store.info().errors == 1
            await handle(function).aclose()

        asyncio.run(main())
        on = False
        with socket.create_connection(listener.getsockname()) as last:
            last.sendall(b"bye")
            talker.join(60)


def test_two_loops_in_two_threads_share_values(make):
    name = namespace()
    function = cache_result(600, store=make(namespace=name))(functions.embed)
    wrong = []

    def work():
        async def main():
            for number in range(100):
                text = "y" * (number % 30)
                if await function(text) != [float(len(text))]:
                    wrong.append(text)
            await handle(function).aclose()

        asyncio.run(main())

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(functions.calls) == 30


def test_items_answer_while_their_server_is_dead(kind, own_server):
    store = store_in(kind, own_server)
    with_clock(store)
    function = cache_items(600, store=store)(functions.lengths)

    async def main():
        assert await function(["a", "bb"]) == [1, 2]
        own_server.kill()
        assert await function(["ccc", "a"]) == [3, 1]
        assert await function(["dddd"]) == [4]
        assert store.info().circuit == "open"
        await pipeline_of(function)[CacheItems].aclose()

    asyncio.run(main())

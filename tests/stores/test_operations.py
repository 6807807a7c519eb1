"""What a store does on real servers that are well: every operation answers, none raises."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from aiocache import MemcachedCache, RedisCache
from redis.asyncio.cluster import RedisCluster

from asyncguard.stores import AiocacheStore
from asyncguard.stores._aiocache import MOST_KEYS
from asyncguard.stores._facts import Failed
from tests.stores import servers
from tests.stores.conftest import namespace
from tests.stores.doubles import closing, run

pytestmark = pytest.mark.usefixtures("collected")

RAW = bytes(range(256)) + b"\r\nEND\r\n"


def test_bytes_come_back_as_they_went_in(make):
    async def main():
        async with closing(make()) as store:
            name = store.namespace
            assert await store.write([(f"{name}:a", RAW)], 10.0) is None
            assert await store.write([(f"{name}:b", b""), (f"{name}:c", RAW * 100)], 10.0) is None
            assert await store.read([f"{name}:a"]) == [RAW]
            assert await store.read([f"{name}:{each}" for each in "abcd"]) == [RAW, b"", RAW * 100, None]
            assert await store.delete([f"{name}:a", f"{name}:d"]) == 1
            assert await store.read([f"{name}:a"]) == [None]

    run(main())


def test_a_lease_is_given_once_and_only_its_holder_gives_it_back(make, kind):
    async def main():
        async with closing(make()) as store:
            key = f"{store.namespace}:lease"
            assert await store.add([(key, b"mine")], 30.0) == [True]
            assert await store.add([(key, b"yours"), (key + "2", b"yours")], 30.0) == [False, True]
            await store.release([(key, b"yours")])
            assert await store.read([key]) == [b"mine"]
            await store.release([(key, b"mine")])
            assert await store.read([key]) == [None if kind == "redis" else b"mine"]  # memcached lets it lapse

    run(main())


@pytest.mark.parametrize("ttl", [0.001, 1.5, 10**9])
def test_any_ttl_is_one_that_the_server_takes(make, ttl):
    async def main():
        async with closing(make()) as store:
            key = f"{store.namespace}:a"
            found, end = [], time.monotonic() + 60
            while found != [b"x", b"y"] and time.monotonic() < end:  # it lapses while the machine stands still
                assert await store.write([(key, b"x")], ttl) is None
                assert await store.write([(key, b"x"), (key + "2", b"y")], ttl) is None
                found = await store.read([key, key + "2"])
            assert found == [b"x", b"y"]

    run(main())


def test_the_users_backend_is_used_and_stays_as_it_was(kind, server):
    backend_class = RedisCache if kind == "redis" else MemcachedCache

    async def main():
        backend = backend_class(endpoint="127.0.0.1", port=server.port, namespace="theirs")
        before = dict(vars(backend))
        store = AiocacheStore(backend, timeout=60.0)
        assert store.namespace == "theirs"
        assert await store.write([("own-key", RAW)], 10.0) is None
        assert await store.read(["own-key"]) == [RAW]
        assert vars(backend) == before
        await store.aclose()
        assert await store.read(["own-key"]) == [RAW]  # the connections are theirs to close
        await (backend.client.aclose() if kind == "redis" else backend.close())

    run(main())


def test_a_backend_in_a_second_loop_is_a_miss_and_a_function_serves_every_loop(kind, server, make, caplog):
    backend_class = RedisCache if kind == "redis" else MemcachedCache
    ours = make()
    theirs = []

    async def main():
        if not theirs:
            theirs.append(
                AiocacheStore(backend_class(endpoint="127.0.0.1", port=server.port), namespace="n", timeout=60.0)
            )
        answers = [await store.write([("k", b"v")], 5.0) for store in (ours, theirs[0])]
        await ours.aclose()
        client = theirs[0]._given.client
        if not isinstance(answers[1], Failed):
            await (client.aclose() if kind == "redis" else client.close())
        return answers

    assert run(main()) == [None, None]
    assert run(main()) == [None, Failed("ForeignLoopError")]
    assert theirs[0].info().circuit == "closed"  # in the other loop all may be well
    assert "belongs to the event loop that used it first" in caplog.text


def test_two_loops_in_two_threads_have_connections_of_their_own(make):
    store = make()
    failures = []
    both = threading.Barrier(2)

    async def main(name):
        both.wait()
        for number in range(100):
            key = f"{store.namespace}:{name}:{number}"
            if await store.write([(key, key.encode())], 10.0) is not None or await store.read([key]) != [key.encode()]:
                failures.append(key)
        await store.aclose()

    threads = [threading.Thread(target=run, args=(main(name),)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_many_operations_at_once_wait_for_a_few_connections(redis_server):
    async def main():
        name = namespace()
        async with closing(
            AiocacheStore.redis(
                f"redis://127.0.0.1:{redis_server.port}/0", namespace=name, max_connections=3, timeout=60.0
            )
        ) as store:
            done = await asyncio.gather(*[store.write([(f"{name}:{each}", b"x")], 10.0) for each in range(300)])
            client = store.link().client._backend.client
            mine = [each for each in await client.client_list() if each["laddr"].endswith(f":{redis_server.port}")]
            assert done == [None] * 300
            assert len(client.connection_pool._available_connections) <= 3
            assert len(mine) <= 3 + 1

    run(main())


def test_many_keys_are_asked_for_in_portions_each_within_the_timeout(make):
    async def main():
        async with closing(make()) as store:
            keys = [f"{store.namespace}:{each}" for each in range(2 * MOST_KEYS + 1)]
            asked = []
            real = store.link().within

            async def counted(seconds, operation):
                asked.append(seconds)
                return await real(seconds, operation)

            store.link().within = counted
            pairs = [(key, key.encode()) for key in keys]
            assert await store.add(pairs[:-1], 60.0) == [True] * 2 * MOST_KEYS
            await store.release(pairs)
            assert await store.write(pairs, 60.0) is None
            assert store.info().written == len(keys)
            assert await store.read(keys) == [key.encode() for key in keys]
            assert await store.delete(keys) == len(keys)
            assert asked == [60.0] * (2 + 4 * 3)

    run(main())


def test_a_cluster_is_asked_key_by_key(tmp_path):
    command = [*servers.redis_command(), "--cluster-enabled", "yes"]
    with servers.running(command, b"PING\r\n", tmp_path) as server:
        server.tell(b"CLUSTER ADDSLOTSRANGE 0 16383")
        while b"cluster_state:ok" not in server.tell(b"CLUSTER INFO"):
            time.sleep(0.02)

        def backend():
            made = RedisCache()
            made.client = RedisCluster.from_url(f"redis://127.0.0.1:{server.port}")
            return made

        async def main():
            async with closing(AiocacheStore(backend, namespace="n", timeout=60.0)) as store:
                keys = [f"k{number}" for number in range(20)]
                assert await store.write([(key, key.encode()) for key in keys], 60.0) is None
                assert await store.read([*keys, "none"]) == [*[key.encode() for key in keys], None]
                assert await store.add([("l1", b"t"), ("l2", b"t"), ("k1", b"t")], 60.0) == [True, True, False]
                await store.release([("l1", b"t"), ("l2", b"other")])
                assert await store.delete([*keys, "l1", "l2"]) == 21

        run(main())

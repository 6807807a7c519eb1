"""How a store takes the failures of its servers and clients: every operation answers, none raises."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from aiocache import MemcachedCache, RedisCache
from redis.exceptions import ResponseError

from asyncguard import testing
from asyncguard._runtime import clock as clocks
from asyncguard.stores import AiocacheStore
from asyncguard.stores._facts import Failed
from tests.stores.conftest import namespace, store_in
from tests.stores.doubles import Backend, closing, run, with_clock

pytestmark = pytest.mark.usefixtures("collected")


def test_a_dead_server_is_asked_once_and_then_left_alone(kind, own_server):
    async def main():
        async with closing(store_in(kind, own_server)) as store:
            with_clock(store)  # on which no second passes
            assert await store.write([("a", b"x")], 60.0) is None
            own_server.kill()
            first = await store.read(["a"])
            rest = [await store.read(["a"]) for _ in range(50)]
            assert isinstance(first, Failed)
            assert first.error
            assert rest == [Failed()] * 50
            assert store.info().errors == 1
            assert store.info().skipped == 50
            assert store.info().circuit == "open"

    run(main())


def test_a_server_that_is_back_is_used_again(kind, own_server):
    async def main():
        async with closing(store_in(kind, own_server)) as store:
            later = with_clock(store)
            assert await store.write([("a", b"x")], 60.0) is None
            own_server.kill()
            assert isinstance(await store.read(["a"]), Failed)
            later.ahead += 1.0
            assert isinstance(await store.read(["a"]), Failed)  # the probe
            own_server.start()
            assert await store.read(["a"]) == Failed()
            later.ahead += 2.0
            assert await store.read(["a"]) == [None]
            assert await store.write([("a", b"y")], 60.0) is None
            assert await store.read(["a"]) == [b"y"]
            assert store.info().circuit == "closed"

    run(main())


def test_a_paused_server_costs_its_timeout_and_every_later_reply_belongs_to_its_request(kind, own_server):
    async def main():
        async with closing(store_in(kind, own_server)) as store:
            later = with_clock(store)
            keys = [f"k{each}" for each in range(40)]
            assert await store.write([(key, key.encode()) for key in keys], 60.0) is None
            own_server.pause()
            store.timeout = 0.2
            hung = await asyncio.gather(*[store.read([key]) for key in keys])
            assert all(isinstance(each, Failed) for each in hung)
            assert await store.read(["k1"]) == Failed()
            own_server.resume()
            store.timeout = 60.0
            later.ahead += 1.0
            for _ in range(3):
                for key in keys:
                    assert await store.read([key]) == [key.encode()]

    run(main())


def test_a_client_that_is_slow_to_give_up_costs_no_more_than_the_timeout():
    class Stubborn(Backend):
        async def get(self, key, **options):
            try:
                await asyncio.sleep(1000)
            except asyncio.CancelledError:
                await asyncio.sleep(100)  # it says goodbye to a server that hangs
                raise

    async def main():
        store = AiocacheStore(Stubborn(), namespace="n", timeout=0.25)
        start = asyncio.get_running_loop().time()
        assert await store.read(["a"]) == Failed("TimeoutError")
        assert asyncio.get_running_loop().time() - start == pytest.approx(0.25)
        await store.aclose()

    testing.run(main)


@pytest.mark.parametrize(("others", "circuit"), [(["a"], "closed"), ([], "open")])
def test_who_waits_too_long_while_others_are_answered_does_not_declare_the_store_dead(others, circuit):
    class SlowForSome(Backend):
        async def get(self, key, **options):
            await asyncio.sleep(10.0 if "slow" in key else 0.1)

    async def main():
        store = AiocacheStore(SlowForSome(), namespace="n", timeout=0.25)
        late, *prompt = await asyncio.gather(*(store.read([key]) for key in ["slow", *others]))
        assert (late, prompt) == (Failed("TimeoutError"), [[None]] * len(others))
        assert (store.info().circuit, store.info().errors) == (circuit, 1)
        await store.aclose()

    testing.run(main)


def test_time_in_which_the_loop_was_busy_is_not_charged_to_the_store():
    class Prompt(Backend):
        async def get(self, key, **options):
            await asyncio.sleep(0.1)  # a connection is made
            await asyncio.sleep(0.1)  # and the answer comes

    async def main():
        store = AiocacheStore(Prompt(), namespace="n", timeout=0.25)
        # The connection and the end of the time are found at the same moment, when the loop is free again.
        asyncio.get_running_loop().call_later(0.01, clocks.current().advance, 10.0)
        assert await store.read(["a"]) == [None]
        await store.aclose()

    testing.run(main)


def test_a_client_that_cancels_its_own_operation_is_a_failed_store_and_no_cancelled_call():
    class Odd(Backend):
        async def get(self, key, **options):
            raise asyncio.CancelledError

    async def main():
        return await AiocacheStore(Odd(), namespace="n").read(["a"])

    assert testing.run(main) == Failed("ConnectionAbortedError")


def test_cancelled_operations_leave_no_reply_behind(make):
    async def main():
        async with closing(make()) as store:
            keys = [f"{store.namespace}:{each}" for each in range(30)]
            assert await store.write([(key, key.encode()) for key in keys], 60.0) is None
            for number in range(200):
                task = asyncio.create_task(store.read([keys[number % 30]]))
                for _ in range(number % 7):
                    await asyncio.sleep(0)
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
                assert await store.read([keys[(number + 1) % 30]]) == [keys[(number + 1) % 30].encode()]
            assert store.info().errors == 0

    run(main())


def test_a_connection_that_is_closed_instead_of_an_answer_is_a_failure(kind):
    """Here aiomcache would read for ever, and no other task would run."""

    async def hang_up(reader, writer):
        try:
            await reader.read(10)
        finally:
            writer.close()

    async def main():
        async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as listener:

            class Closing:
                port = listener.sockets[0].getsockname()[1]

            async with closing(store_in(kind, Closing)) as store:
                with_clock(store)
                assert isinstance(await store.write([("a", b"x")], 10.0), Failed)
                assert store.info().circuit == "open"

    run(main())


def test_a_value_that_the_server_refuses_does_not_close_the_circuit_for_reads(memcached_server):
    async def main():
        async with closing(store_in("memcached", memcached_server)) as store:
            key = f"{store.namespace}:big"
            assert isinstance(await store.write([(key, b"x" * 2_000_000)], 10.0), Failed)
            assert store.info().circuit == "closed"
            assert await store.read([key]) == [None]

    run(main())


def test_a_value_that_the_server_refuses_keeps_no_other_value_of_the_same_write_out():
    written = []

    async def put(key, value, **options):
        if key == "large":
            raise ValueError("object too large for cache")
        for _ in range(9):
            await asyncio.sleep(0)
        written.append(key)

    def backend():
        made = MemcachedCache()
        made.set = put
        return made

    async def main():
        async with closing(AiocacheStore(backend, namespace="n", timeout=60.0)) as store:
            assert isinstance(await store.write([(key, b"x") for key in ("a", "large", "b")], 10.0), Failed)
            assert written == ["a", "b"]
            assert store.info().circuit == "closed"

    run(main())


def test_a_server_that_refuses_to_delete_is_still_read(redis_server):
    async def refuse(key, **options):
        raise ResponseError("NOPERM this user has no permissions to run the 'del' command")

    def backend():
        made = RedisCache(endpoint="127.0.0.1", port=redis_server.port)
        made.delete = refuse
        return made

    async def main():
        async with closing(AiocacheStore(backend, namespace="n", timeout=60.0)) as store:
            with_clock(store)  # on which no second passes
            key = namespace()
            assert await store.write([(key, b"x")], 10.0) is None
            assert isinstance(await store.delete([key]), Failed)
            assert await store.read([key]) == [b"x"]

    run(main())


def test_a_cancelled_operation_raises_and_counts_for_nothing(kind, own_server):
    async def main():
        async with closing(store_in(kind, own_server)) as store:
            assert await store.read(["a"]) == [None]
            own_server.pause()
            task = asyncio.create_task(store.read(["a"]))
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            own_server.resume()
            assert store.info().circuit == "closed"
            assert await store.read(["a"]) == [None]

    run(main())

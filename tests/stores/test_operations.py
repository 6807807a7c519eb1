"""What a store does on real servers, and how it takes their failures: every operation answers, none raises."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import pickle
import threading
import time

import pytest
from aiocache import MemcachedCache, RedisCache
from redis.asyncio.cluster import RedisCluster
from redis.exceptions import ResponseError

from asyncguard import testing
from asyncguard._runtime import clock as clocks
from asyncguard.stores import AiocacheStore
from asyncguard.stores._aiocache import MOST_KEYS
from asyncguard.stores._facts import Failed
from tests.stores import servers
from tests.stores.conftest import namespace, store_in

RAW = bytes(range(256)) + b"\r\nEND\r\n"


def run(main):
    return asyncio.run(main)


@contextlib.asynccontextmanager
async def closing(store):
    try:
        yield store
    finally:
        await store.aclose()


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


# --- when the server is not well --------------------------------------------------------------------------------------


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


class Later:
    """A clock that only the test moves on: the circuit's pauses need no waiting, and a machine's pause ends none."""

    def __init__(self):
        self.ahead = 0.0

    def __call__(self):
        return 1_000.0 + self.ahead


def with_clock(store):
    later = Later()
    store._real.circuit._clock = later
    return later


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


# --- the object -------------------------------------------------------------------------------------------------------


def test_a_password_is_in_no_text():
    secret = "hunter2"
    store = AiocacheStore.redis(f"redis://:{secret}@127.0.0.1:1/0", namespace="n", timeout=5.0)

    async def main():
        failed = await store.read(["a"])
        await store.aclose()
        return failed

    texts = [repr(store), repr(store._given), str(run(main())), str(store.info()), store._real.circuit.describe()]
    with pytest.raises(ValueError, match="url must be like") as refused:
        AiocacheStore.redis(f"redis://:{secret}@127.0.0.1:{secret}/0", namespace="n")
    texts += [str(refused.value), repr(refused.value.__cause__), str(refused.value.__suppress_context__)]
    assert refused.value.__context__ is None
    assert not [text for text in texts if secret in text]


def test_a_store_pickles_as_its_options():
    store = AiocacheStore.redis("redis://127.0.0.1:1/0", namespace="n", timeout=2.0, lease=3.0, write="background")
    again = pickle.loads(pickle.dumps(store))
    assert (again.namespace, again.timeout, again.lease, again.write_mode) == ("n", 2.0, 3.0, "background")
    assert again._given == store._given


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_opens_connections_of_its_own(redis_server):
    store = store_in("redis", redis_server)
    key = f"{store.namespace}:a"

    async def main():
        assert await store.write([(key, b"x")], 60.0) is None
        child = os.fork()
        if child == 0:
            os._exit(0 if not store._links else 1)
        _, status = os.waitpid(child, 0)  # noqa: ASYNC222 - it ends at once
        assert os.waitstatus_to_exitcode(status) == 0
        assert await store.read([key]) == [b"x"]
        await store.aclose()

    run(main())


class Backend:
    def __init__(self):
        self.namespace = None

    async def get(self, key, **options): ...
    async def multi_get(self, keys, **options): ...
    async def set(self, key, value, **options): ...
    async def multi_set(self, pairs, **options): ...
    async def add(self, key, value, **options): ...
    async def delete(self, key, **options): ...


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({}, TypeError, "namespace is required"),
        ({"namespace": "with space"}, ValueError, "namespace must be"),
        ({"namespace": "x" * 41}, ValueError, "namespace must be"),
        ({"namespace": ""}, ValueError, "namespace must be"),
        ({"namespace": 3}, TypeError, "namespace must be"),
        ({"namespace": "n", "timeout": 0}, ValueError, "timeout must be"),
        ({"namespace": "n", "timeout": float("nan")}, ValueError, "timeout must be"),
        ({"namespace": "n", "lease": -1}, ValueError, "lease must be"),
        ({"namespace": "n", "write": "never"}, ValueError, "write must be"),
        ({"namespace": "n", "codec": "pickle"}, ValueError, "codec must be"),
        ({"namespace": "n", "codec": object()}, TypeError, "codec must be"),
    ],
)
def test_wrong_options_are_refused_with_their_name(options, error, text):
    with pytest.raises(error, match=text):
        AiocacheStore(Backend(), **options)


def test_what_is_no_backend_is_refused_with_what_it_lacks():
    with pytest.raises(TypeError, match=r"got a dict without multi_get, set"):
        AiocacheStore({}, namespace="n")


def test_a_function_that_makes_something_else_is_a_failed_operation():
    async def main():
        return await AiocacheStore(lambda: 3, namespace="n").read(["a"])

    assert run(main()) == Failed("TypeError")


@pytest.fixture(autouse=True)
def collected():
    yield
    gc.collect()

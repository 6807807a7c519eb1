"""A store as an object: its options, what it shows of itself, pickled, and in a forked child."""

from __future__ import annotations

import os
import pickle

import pytest

from asyncguard.stores import AiocacheStore
from asyncguard.stores._facts import Failed
from tests.stores.conftest import store_in
from tests.stores.doubles import Backend, run

pytestmark = pytest.mark.usefixtures("collected")


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

"""`pipeline.call(fn, ...)`: built once for each function, right for each object, and nothing is kept alive."""

from __future__ import annotations

import asyncio
import functools
import gc
import pickle
import threading
import weakref
from typing import TYPE_CHECKING, Any

import pytest

import asyncguard as ag
from asyncguard._runtime.chains import _MOST, Chains
from asyncguard.strategies.bulkhead import Bulkhead
from asyncguard.testing import run

if TYPE_CHECKING:
    from collections.abc import Callable


class Client:
    """As SDKs have them: a coroutine function, one that is hidden, a plain one, a class method and a static one."""

    def __init__(self, name: str = "a") -> None:
        self.name = name

    async def embed(self, text: str) -> tuple[str, str]:
        return self.name, text

    def hidden(self, text: str) -> Any:
        return self.embed(text)

    def plain(self, text: str) -> tuple[str, str]:
        return self.name, text

    @classmethod
    async def of_class(cls, text: str) -> tuple[str, str]:
        return cls.__name__, text

    @staticmethod
    async def static(text: str) -> tuple[str, str]:
        return "static", text

    async def __call__(self, text: str) -> tuple[str, str]:
        return self.name, text


class Counting(Bulkhead):
    """Counts how often it is built around something."""

    built = 0

    def wrap_block(self, *args: Any) -> Any:
        self.built += 1
        return super().wrap_block(*args)


def counting() -> Counting:
    return Counting(ag.bulkhead(100).options)


def built(chains: dict[Any, Chains[Any]]) -> int:
    return sum(map(len, chains.values()))


def test_a_new_bound_method_each_time_is_built_around_once():
    strategy, client = counting(), Client()
    pipeline = ag.guard(strategy)

    async def main():
        return [await pipeline.call(client.embed, str(i)) for i in range(5)]

    assert asyncio.run(main()) == [("a", str(i)) for i in range(5)]
    assert strategy.built == 1
    assert [pipeline.call_sync(client.plain, "x") for _ in range(3)] == [("a", "x")] * 3
    assert strategy.built == 2


@pytest.mark.parametrize(
    ("pick", "who"),
    [
        (lambda client: client.embed, "a"),
        (lambda client: client.hidden, "a"),
        (lambda client: client.of_class, "Client"),
        (lambda client: client.static, "static"),
        (lambda client: client, "a"),
        (lambda client: functools.partial(client.embed), "a"),
        (lambda client: lambda text: client.embed(text), "a"),  # noqa: PLW0108 - new each time
        (lambda client: ag.timeout(60)(client.embed), "a"),
    ],
    ids=["method", "hidden", "classmethod", "static", "object", "partial", "lambda", "guarded"],
)
def test_whatever_can_be_called_is(pick, who, backend):
    client, pipeline = Client(), ag.guard(ag.retry(), ag.bulkhead(2))

    async def main():
        return [await pipeline.call(pick(client), text) for text in "xy"]

    assert run(main, backend=backend) == [(who, "x"), (who, "y")]


@pytest.mark.parametrize("call", [str.upper, "a".replace, functools.partial(int, base=2), len, Client])
def test_what_cannot_be_held_weakly_or_is_no_function_of_python_is_called_all_the_same(call):
    arguments = {"a".replace: ("a", "b")}.get(call, ("10",))
    pipeline = ag.guard(ag.bulkhead(1))
    for _ in range(2):
        found, expected = pipeline.call_sync(call, *arguments), call(*arguments)
        assert type(found) is type(expected)


def test_an_object_without_room_for_weak_references_is_called_and_not_kept():
    class Slim:
        __slots__ = ()

        def twice(self, x: int) -> int:
            return 2 * x

    pipeline = ag.guard(ag.bulkhead(1))
    assert [pipeline.call_sync(Slim().twice, i) for i in range(3)] == [0, 2, 4]
    assert built(pipeline._chains) == 0


# --- the right one ----------------------------------------------------------------------------------------------------


def test_each_object_is_called_itself_also_at_once():
    clients = [Client(str(i)) for i in range(20)]
    pipeline = ag.guard(ag.retry(), ag.bulkhead(100))

    async def main():
        return await asyncio.gather(*(pipeline.call(each.embed, "x") for each in clients * 3))

    assert asyncio.run(main()) == [(each.name, "x") for each in clients * 3]


def test_objects_that_are_equal_are_still_two():
    class Equal(Client):
        def __eq__(self, other: object) -> bool:
            raise AssertionError("code of the user ran")

        __hash__ = None  # type: ignore[assignment]

    one, two = Equal("one"), Equal("two")
    pipeline = ag.guard(ag.bulkhead(1))
    assert [pipeline.call_sync(each.plain, "x")[0] for each in (one, two, one)] == ["one", "two", "one"]


def test_an_object_at_the_address_of_one_that_is_gone_is_another():
    pipeline = ag.guard(ag.bulkhead(1))
    for i in range(500):
        assert pipeline.call_sync(Client(str(i)).plain, "x") == (str(i), "x")
        assert pipeline.call_sync(lambda i=i: i) == i


def test_a_function_that_is_defined_anew_under_its_name_is_the_new_one():
    pipeline = ag.guard(ag.bulkhead(1))

    def define(answer: int) -> Callable[[], int]:
        def fn() -> int:
            return answer

        return fn

    kept = [define(i) for i in range(3)]
    assert [pipeline.call_sync(fn) for fn in kept] == [0, 1, 2]
    client = Client()
    assert pipeline.call_sync(client.plain, "x") == ("a", "x")
    client.plain = lambda text: "patched"  # type: ignore[method-assign, assignment, return-value]
    assert pipeline.call_sync(client.plain, "x") == "patched"


def test_the_same_function_called_and_called_sync_has_two_drivers():
    pipeline = ag.guard(ag.bulkhead(1))
    client = Client()
    assert asyncio.run(pipeline.call(client.hidden, "x")) == ("a", "x")
    with pytest.raises(TypeError, match=r"Client\.hidden is a plain function that returned an awaitable"):
        pipeline.call_sync(client.hidden, "x")
    assert asyncio.run(pipeline.call(client.hidden, "x")) == ("a", "x")


def test_threads_that_begin_at_once_all_call_their_own():
    pipeline = ag.guard(ag.retry(), ag.bulkhead(100))
    clients = [Client(str(i)) for i in range(8)]
    barrier, seen = threading.Barrier(8), list[bool]()

    def work(mine: Client) -> None:
        barrier.wait(30)
        for i in range(50):
            other = clients[i % 8]
            seen.append(pipeline.call_sync(mine.plain, "x") == (mine.name, "x"))
            seen.append(pipeline.call_sync(other.plain, "y") == (other.name, "y"))

    threads = [threading.Thread(target=work, args=(each,)) for each in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(seen) == 800
    assert all(seen)


# --- nothing is kept alive --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["monitor", "retry", "stack", "stream"])
def test_a_client_goes_when_its_owner_lets_it_go(kind):
    made = {
        "monitor": lambda: ag.guard(ag.monitor(name="m"), ag.retry()),
        "retry": lambda: ag.guard(ag.retry()),
        "stack": lambda: ag.guard(ag.retry(), ag.circuit_breaker(), ag.timeout(60), ag.bulkhead(3), ag.hedge()),
        "stream": lambda: ag.guard(ag.retry(), ag.bulkhead(3), stream=True),
    }
    pipeline = made[kind]()
    client = Client()
    gone = weakref.ref(client)
    asyncio.run(pipeline.call(client.embed, "x"))
    asyncio.run(pipeline.call(client.hidden, "x"))
    pipeline.call_sync(client.plain, "x")
    assert built(pipeline._chains) == 3
    del client
    gc.collect()
    assert gone() is None
    assert built(pipeline._chains) == 0


def test_what_a_lambda_has_closed_over_goes_with_it():
    pipeline, client = ag.guard(ag.retry()), Client()
    gone = weakref.ref(client)

    def once(client: Client) -> None:
        pipeline.call_sync(lambda: client.plain("x"))

    once(client)
    del client
    gc.collect()
    assert gone() is None
    assert built(pipeline._chains) == 0


def test_many_functions_that_all_live_are_bounded():
    pipeline = ag.guard(ag.bulkhead(1))
    functions = [lambda i=i: i for i in range(3 * _MOST)]
    assert [pipeline.call_sync(fn) for fn in functions] == list(range(3 * _MOST))
    assert built(pipeline._chains) == _MOST
    assert pipeline.call_sync(functions[0]) == 0


def test_a_pipeline_that_has_called_can_be_pickled():
    pipeline = ag.guard(ag.bulkhead(1), name="p")
    client = Client()
    assert pipeline.call_sync(client.plain, "x") == ("a", "x")
    again = pickle.loads(pickle.dumps(pipeline))
    assert again.call_sync(client.plain, "x") == ("a", "x")


# --- what strategies see ----------------------------------------------------------------------------------------------


def test_events_and_errors_have_the_name_of_the_function():
    heard: list[str] = []
    strategy = ag.bulkhead(1, max_queue=0, on_event=lambda event: heard.append(event.pipeline))
    pipeline, client = ag.guard(strategy), Client()

    def full(fn: Any, *args: Any) -> None:
        with strategy.permit(), pytest.raises(ag.BulkheadFullError):
            pipeline.call_sync(fn, *args)

    for _ in range(2):
        full(client.plain, "x")
        full(len, "x")
        full(functools.partial(client.plain), "x")
    assert [name.removeprefix(f"{__name__}.") for name in heard] == ["Client.plain", "len", "Client.plain"] * 2


def test_partitions_see_the_arguments_of_the_call_alone():
    seen: list[tuple[Any, ...]] = []
    pipeline = ag.guard(ag.bulkhead(1), partition=lambda *args: seen.append(args))
    pipeline.call_sync(Client().plain, "x")
    assert seen == [("x",)]


def test_a_failing_status_is_warned_of_once_and_not_in_each_call(caplog):
    class Response:
        status_code = 503
        headers: dict[str, str] = {}  # noqa: RUF012

    class Http:
        def get(self) -> Response:
            return Response()

    pipeline, client = ag.guard(ag.retry()), Http()
    for _ in range(3):
        pipeline.call_sync(client.get)
    assert len([each for each in caplog.records if "503" in each.getMessage()]) == 1


def test_a_cache_in_a_pipeline_tells_objects_apart_and_is_built_for_each_call():
    calls: list[str] = []

    class Counted(Client):
        def plain(self, text: str) -> tuple[str, str]:
            calls.append(self.name)
            return self.name, text

    pipeline, one, two = ag.guard(ag.cache_result(60)), Counted("one"), Counted("two")
    for _ in range(2):
        assert pipeline.call_sync(one.plain, "x") == ("one", "x")
        assert pipeline.call_sync(two.plain, "x") == ("two", "x")
    assert calls == ["one", "two"]
    assert built(pipeline._chains) == 0


def test_rules_on_the_input_of_a_method_hold_in_each_call():
    pipeline, client = ag.guard(ag.validate_input({"text": lambda text: len(text) <= 3})), Client()
    for _ in range(2):
        assert pipeline.call_sync(client.plain, "abc") == ("a", "abc")
        with pytest.raises(ag.InputValidationError):
            pipeline.call_sync(client.plain, "abcd")


def test_a_change_of_options_reaches_what_was_built_before():
    strategy, client = ag.bulkhead(1, max_queue=0), Client()
    pipeline = ag.guard(strategy)
    assert pipeline.call_sync(client.plain, "x")
    with strategy.permit():
        with pytest.raises(ag.BulkheadFullError):
            pipeline.call_sync(client.plain, "x")
        strategy.configure(mode="off")
        assert pipeline.call_sync(client.plain, "x")
        strategy.configure(mode="enforce", max_concurrent=2)
        assert pipeline.call_sync(client.plain, "x")


def test_an_error_of_the_function_leaves_as_it_is():
    class Broken:
        async def fails(self) -> None:
            raise KeyError("mine")

    pipeline, broken = ag.guard(ag.retry(), ag.bulkhead(1)), Broken()
    for _ in range(2):
        with pytest.raises(KeyError, match="mine"):
            asyncio.run(pipeline.call(broken.fails))


def test_what_is_no_function_or_returns_nothing_to_await_is_refused_with_its_name():
    pipeline = ag.guard(ag.bulkhead(1))
    for _ in range(2):
        with pytest.raises(TypeError, match=r"^len returned int, which cannot be awaited"):
            asyncio.run(pipeline.call(len, "abc"))
        with pytest.raises(TypeError, match="a pipeline calls a function"):
            pipeline.call_sync(3)  # type: ignore[arg-type]


def test_a_stream_from_a_method_keeps_its_permit_until_it_is_closed():
    class Source:
        async def open(self) -> Any:
            async def items() -> Any:
                for i in range(3):
                    yield i

            return items()

    async def main() -> list[int]:
        strategy = ag.bulkhead(1)
        pipeline, source = ag.guard(strategy, stream=True), Source()
        found: list[int] = []
        for _ in range(2):
            stream = await pipeline.call(source.open)
            assert not strategy.gate.idle()
            found += [item async for item in stream]
            assert strategy.gate.idle()
        return found

    assert asyncio.run(main()) == [0, 1, 2, 0, 1, 2]

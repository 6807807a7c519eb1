"""fallback: values and handlers in turn, which errors, what never is answered."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import pickle
import weakref
from collections.abc import AsyncIterator, Iterator
from typing import Any, Literal

import pytest

from asyncguard import CircuitOpenError, InputValidationError, RejectedError, testing
from asyncguard.events import FallbackUsed
from asyncguard.strategies.fallback import Fallback, fallback


class CallError(Exception):
    """What the functions here raise."""


async def failing(*args: object, **kwargs: object) -> object:
    raise CallError(args, kwargs)


def failing_sync(*args: object, **kwargs: object) -> object:
    raise CallError(args, kwargs)


def call(strategy: Fallback[Any], *args: object, **kwargs: object) -> list[object]:
    """What the guarded async function and the guarded sync function answer."""
    guarded, guarded_sync = strategy(failing), strategy(failing_sync)
    return [asyncio.run(guarded(*args, **kwargs)), guarded_sync(*args, **kwargs)]


def test_a_value_answers_on_both_libraries(backend: Literal["asyncio", "trio"]) -> None:
    value: list[int] = []
    guarded = fallback(value)(failing)

    async def main() -> None:
        assert await guarded() is value

    testing.run(main, backend=backend)


def test_without_an_error_nothing_happens() -> None:
    async def fine(x: int) -> int:
        return x

    with testing.record_events() as events:
        assert asyncio.run(fallback(None)(fine)(3)) == 3
        assert fallback(None)(lambda x: x)(0) == 0
    assert events == []


@pytest.mark.parametrize("value", [None, 0, "", False], ids=repr)
def test_an_empty_value_is_an_answer(value: object) -> None:
    assert call(fallback(value)) == [value, value]


def test_a_handler_gets_the_error_and_the_arguments() -> None:
    def handler(error: Exception, *args: object, **kwargs: object) -> object:
        return type(error), args, kwargs

    assert call(fallback(handler), 1, x=2) == [(CallError, (1,), {"x": 2})] * 2


def test_an_async_handler_answers_an_async_function_only() -> None:
    async def handler(error: Exception) -> str:
        await asyncio.sleep(0)
        return type(error).__name__

    assert asyncio.run(fallback(handler)(failing)()) == "CallError"
    with pytest.raises(TypeError, match=r"handler is async, but the function is sync"):
        fallback(handler)(failing_sync)
    with pytest.raises(TypeError, match="returned an awaitable"):
        fallback(lambda error: handler(*[error]))(failing_sync)()


def test_a_handler_that_returns_an_awaitable_is_awaited() -> None:
    async def answer() -> str:
        return "late"

    assert asyncio.run(fallback(lambda error: answer())(failing)()) == "late"


def broken(error: Exception) -> None:
    raise KeyError(str(type(error)))


def test_answers_are_tried_in_turn() -> None:
    with testing.record_events() as events:
        assert call(fallback(broken, broken, "third", "never")) == ["third", "third"]
    assert [event.position for event in events.of(FallbackUsed)] == [3, 3]
    assert all(type(event.error) is CallError for event in events.of(FallbackUsed))


def test_the_failure_of_the_last_answer_comes_from_the_original_error() -> None:
    strategy = fallback(broken, broken)
    for attempt in (lambda: asyncio.run(strategy(failing)()), strategy(failing_sync)):
        with testing.record_events() as events, pytest.raises(KeyError) as caught:
            attempt()
        assert type(caught.value.__cause__) is CallError
        assert events == []


def test_a_handler_may_raise_the_error_again() -> None:
    def again(error: Exception) -> None:
        raise error

    with pytest.raises(CallError) as caught:
        call(fallback(again))
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("on", [CallError, (KeyError, CallError), lambda error: isinstance(error, CallError)], ids=repr)
def test_only_the_named_errors_are_answered(on: Any) -> None:
    assert call(fallback(1, on=on)) == [1, 1]

    async def other() -> None:
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        asyncio.run(fallback(1, on=on)(other)())


def test_rejections_and_refused_inputs_are_answered() -> None:
    for error in (CircuitOpenError("open"), RejectedError("no"), InputValidationError("bad")):

        def rejected(error: Exception = error) -> None:
            raise error

        assert fallback("stale")(rejected)() == "stale"


@pytest.mark.parametrize("error", [asyncio.CancelledError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_cancellation_and_interrupts_are_never_answered(error: type[BaseException]) -> None:
    seen: list[object] = []

    def interrupted() -> None:
        raise error

    async def interrupted_async() -> None:
        raise error

    strategy = fallback(seen.append, on=lambda each: seen.append(each) or True)
    with pytest.raises(error):
        strategy(interrupted)()
    coroutine = strategy(interrupted_async)()
    with pytest.raises(error):
        coroutine.send(None)
    assert seen == []


def test_cancelling_the_handler_cancels_the_call() -> None:
    async def handler(error: Exception) -> None:
        await asyncio.sleep(3600)

    async def main() -> None:
        task = asyncio.ensure_future(fallback(handler, "never")(failing)())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


@pytest.mark.parametrize(
    "on", [KeyboardInterrupt, asyncio.CancelledError, BaseException, (CallError, SystemExit), 3, ()]
)
def test_a_class_that_is_no_exception_is_refused(on: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="on"):
        fallback(1, on=on)


def test_at_least_one_answer_is_needed() -> None:
    with pytest.raises(TypeError):
        fallback()  # type: ignore[call-overload]


def test_generators_are_refused() -> None:
    async def stream() -> AsyncIterator[int]:
        yield 1

    def stream_sync() -> Iterator[int]:
        yield 1

    for function in (stream, stream_sync):
        with pytest.raises(TypeError, match="fallback cannot guard"):
            fallback(None)(function)  # type: ignore[arg-type]


def test_observe_only_tells_and_off_does_nothing() -> None:
    with testing.record_events() as events:
        for mode in ("observe", "off"):
            with pytest.raises(CallError):
                call(fallback("answer", mode=mode))
    assert [(event.observed, event.position) for event in events.of(FallbackUsed)] == [(True, 1)]


def test_override_and_configure() -> None:
    strategy = fallback(1)
    guarded = strategy(failing_sync)
    with strategy.override(answers=(2,)):
        assert guarded() == 2
    strategy.configure(answers=(3,), on=CallError)
    assert guarded() == 3
    with pytest.raises(ValueError, match="at least one"):
        strategy.configure(answers=())
    assert guarded() == 3


def test_methods_and_partials() -> None:
    class Store:
        @fallback(None)
        async def load(self, key: str) -> str:
            raise CallError

        @fallback("class")
        @classmethod
        def name(cls) -> str:
            raise CallError

    assert asyncio.run(Store().load("a")) is None
    assert Store.name() == "class"
    assert fallback(0)(functools.partial(failing_sync, 1))() == 0
    assert inspect.iscoroutinefunction(Store.load)


def test_it_pickles_as_its_options() -> None:
    copy = pickle.loads(pickle.dumps(fallback(1, 2, on=CallError, name="f")))
    assert (copy.name, copy.options.answers, copy.options.on) == ("f", (1, 2), (CallError,))


def test_the_arguments_of_an_answered_call_are_not_kept_alive() -> None:
    class Big:
        pass

    big = Big()
    alive = weakref.ref(big)
    gc.collect()
    gc.disable()
    try:
        assert call(fallback(broken, "answer"), big) == ["answer", "answer"]
        del big
        assert alive() is None
    finally:
        gc.enable()

"""The promises of test_conformance.py, kept by `cache_items`: its functions take a list and return a row per item."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import functools
import gc
import inspect
import os
import pickle
import warnings
import weakref

import cloudpickle
import pytest

import asyncguard as ag
from asyncguard import testing
from asyncguard._pipeline import record_of
from tests.drivers.cases import no_flight_left
from tests.drivers.test_conformance import _frames, sleep

INTERRUPTS = [KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError]


@pytest.fixture
def strategy():
    """A cache that has nothing in flight when the test is over."""
    made = ag.cache_items(60.0, over="xs")
    yield made
    no_flight_left(made)


async def double(xs, *, times=2):
    await sleep(0.1)
    return [x * times for x in xs]


def double_sync(xs, *, times=2):
    return [x * times for x in xs]


# --- value and error --------------------------------------------------------------------------------------------------


def test_async_value_passes_through(strategy, backend):
    fn = strategy(double)

    async def main():
        assert await fn([1, 2, 1]) == [2, 4, 2]
        assert await fn([1], times=3) == [3]

    testing.run(main, backend=backend)


def test_values_pass_through_on_real_time(strategy):
    fn = strategy(double_sync)
    assert fn([1, 2, 1]) == [2, 4, 2]
    with testing.virtual_clock():
        assert fn([3]) == [6]

    @strategy
    async def quick(xs):
        return tuple(xs)

    assert asyncio.run(quick((5, 6))) == (5, 6)


@pytest.mark.parametrize("error", [LookupError("the user's own"), StopIteration(5)], ids=type)
def test_an_error_of_a_sync_function_leaves_as_it_is_and_does_not_grow(strategy, error):
    @strategy
    def fn(xs):
        raise error

    depths = []
    for _ in range(5):
        error.__traceback__ = None
        with pytest.raises(type(error)) as caught:
            fn([1, 2])
        assert caught.value is error
        depths.append(len(list(_frames(error))))
    assert depths[1] == depths[-1]
    assert not getattr(error, "__notes__", [])


def test_an_error_of_an_async_function_leaves_as_it_is(strategy, backend):
    error = LookupError("the user's own")

    @strategy
    async def fn(xs):
        raise error

    async def main():
        with pytest.raises(LookupError) as caught:
            await fn([1, 2])
        assert caught.value is error

    testing.run(main, backend=backend)


@pytest.mark.parametrize("interrupt", INTERRUPTS)
def test_interrupts_pass_in_sync_code(strategy, interrupt):
    calls = []

    @strategy
    def fn(xs):
        calls.append(1)
        raise interrupt

    with pytest.raises(interrupt):
        fn([1, 2])
    assert calls == [1]


def test_a_plain_function_that_returns_an_awaitable_is_refused(strategy):
    @strategy
    def fn(xs):
        return double(xs)

    with pytest.raises(TypeError, match="as_async"):
        fn([1])


# --- cancellation -----------------------------------------------------------------------------------------------------


def test_cancellation_in_the_call_passes_is_counted_and_leaves_nothing(strategy):
    @strategy
    async def fn(xs):
        await asyncio.sleep(5)

    async def main():
        task = asyncio.current_task()
        asyncio.get_running_loop().call_later(1, task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await fn([1, 2])
        assert task.cancelling() == 1
        task.uncancel()
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {task}, "a task was left behind"

    testing.run(main)


def test_cancellation_at_every_await_hurts_nobody_else(strategy):
    @strategy
    async def fn(xs):
        for _ in range(3):
            await asyncio.sleep(0.5)
        return list(xs)

    async def main():
        for step in range(8):
            # They share items: each waits for what another one computes.
            wanted = [[step * 10 + i, step * 10 + i + 1] for i in range(3)]
            tasks = [asyncio.create_task(fn(xs)) for xs in wanted]
            for _ in range(step):
                await asyncio.sleep(0)
            tasks[step % 3].cancel()
            tasks[(step + 1) % 3].cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert results[(step + 2) % 3] == wanted[(step + 2) % 3], "the caller who was not cancelled was hurt"
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1

    testing.run(main)


def test_trio_cancellation_passes_and_leaves_nothing(strategy):
    import trio

    fn = strategy(double)

    async def main():
        with trio.move_on_after(0.05) as scope:
            await fn([1, 2])
        assert scope.cancelled_caught
        assert await fn([1]) == [2]

    testing.run(main, backend="trio")


# --- what the decorated object is -------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [double, double_sync])
def test_it_stays_what_it_was(strategy, function):
    fn = strategy(function)
    assert inspect.iscoroutinefunction(fn) == inspect.iscoroutinefunction(function)
    assert list(inspect.signature(fn).parameters) == ["xs", "times"]
    assert (fn.__name__, fn.__doc__, fn.__wrapped__) == (function.__name__, function.__doc__, function)
    assert list(ag.pipeline_of(fn)) == [strategy]
    assert record_of(fn).original is function


def test_methods_of_every_kind(strategy):
    class Service:
        @strategy
        async def method(self, xs):
            return [(type(self).__name__, x) for x in xs]

        @strategy
        @classmethod
        async def outside_of_classmethod(cls, xs):
            return [(cls.__name__, x) for x in xs]

        @classmethod
        @strategy
        async def inside_of_classmethod(cls, xs):
            return [(cls.__name__, x) for x in xs]

        @strategy
        @staticmethod
        async def outside_of_staticmethod(xs):
            return [("Service", x) for x in xs]

        @staticmethod
        @strategy
        async def inside_of_staticmethod(xs):
            return [("Service", x) for x in xs]

        @strategy
        def sync(self, xs):
            return [(type(self).__name__, x) for x in xs]

    async def main():
        service = Service()
        for call in (
            service.method,
            service.outside_of_classmethod,
            Service.inside_of_classmethod,
            service.outside_of_staticmethod,
            Service.inside_of_staticmethod,
        ):
            assert await call([1, 1]) == [("Service", 1)] * 2
            assert len(ag.pipeline_of(call)) == 1
        assert service.sync([2]) == [("Service", 2)]

    asyncio.run(main())


def test_partials_and_callable_objects(strategy):
    class Callable:
        async def __call__(self, xs):
            return list(xs)

    def add(number, xs):
        return [number + x for x in xs]

    assert strategy(functools.partial(add, 1))([2]) == [3]
    assert asyncio.run(strategy(Callable())([4])) == [4]


def test_a_foreign_decorator_in_between_is_not_dropped(strategy):
    seen = []

    def foreign(fn):
        @functools.wraps(fn)
        async def wrapper(*args):
            seen.append(args)
            return await fn(*args)

        return wrapper

    fn = strategy(foreign(ag.timeout(5)(double)))
    assert asyncio.run(fn([1])) == [2]
    assert seen == [([1],)]
    assert list(ag.pipeline_of(fn)) == [strategy]


def test_decorating_again_grows_one_flat_pipeline(strategy):
    fn = strategy(ag.timeout(5, name="inner")(double_sync))
    assert [each.name for each in ag.pipeline_of(fn)] == ["cache_items", "inner"]
    assert record_of(fn).original is double_sync
    assert fn([3]) == [6]


def test_a_class_is_refused(strategy):
    with pytest.raises(TypeError, match="class"):
        strategy(dict)


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_generators_are_refused(strategy, colour):
    def count(xs):
        yield from xs

    async def count_async(xs):
        for x in xs:
            yield x

    with pytest.raises(TypeError, match="generator"):
        strategy(count if colour == "sync" else count_async)


# --- sharing, pickling, forking, collecting ---------------------------------------------------------------------------


def test_one_strategy_serves_sync_and_async_functions_and_several_loops(strategy):
    a, b = strategy(double), strategy(double_sync)
    for x in (1, 2, 1):
        assert asyncio.run(a([x])) == [2 * x]
    assert b([4]) == [8]
    assert next(iter(ag.pipeline_of(a))) is next(iter(ag.pipeline_of(b))) is strategy


def test_it_pickles_as_options_and_name(strategy):
    again = pickle.loads(pickle.dumps(strategy))
    assert (type(again), again.name, again.options) == (type(strategy), strategy.name, strategy.options)
    assert copy.deepcopy(strategy).options == strategy.options


def test_a_guarded_function_survives_cloudpickle(strategy):
    guarded = strategy(lambda xs: [2 * x for x in xs])
    assert guarded([1]) == [2]
    again = pickle.loads(cloudpickle.dumps(guarded))
    assert again([4, 4]) == [8, 8]
    assert [type(each) for each in ag.pipeline_of(again)] == [type(strategy)]


def test_a_guarded_function_is_collected(strategy):
    def make():
        @strategy
        async def fn(xs):
            return list(xs)

        asyncio.run(fn([1]))
        return weakref.ref(fn)

    gone = make()
    gc.collect()
    assert gone() is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_it_works_in_a_forked_child(strategy):
    fn = strategy(double_sync)
    fn([1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # other tests may have left daemon threads
        child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            os._exit(0 if fn([1, 2]) == [2, 4] else 1)
        os._exit(2)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_off_and_observe_change_nothing(strategy):
    fn = strategy(double_sync)
    for mode in ("off", "observe", "enforce"):
        strategy.configure(mode=mode)
        assert fn([7, 8]) == [14, 16]
    with strategy.override(mode="off"):
        assert fn([9]) == [18]


def test_configure_refuses_what_it_does_not_know_and_changes_nothing(strategy):
    before = strategy.options
    with pytest.raises(TypeError, match="has no option 'colour'"):
        strategy.configure(colour="red")
    with pytest.raises(ValueError, match="mode must be one of"):
        strategy.configure(mode="sometimes")
    assert strategy.options is before

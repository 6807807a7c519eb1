"""Every strategy keeps the same promises about the function it guards, in every colour.

Rows: the strategies of `cases.py`. Columns: value, error, cancellation in the call and while waiting, interrupts,
methods of every kind, partials, callable objects, foreign decorators, functions that hide an awaitable, generators,
pickling, fork.
"""

from __future__ import annotations

import asyncio
import copy
import functools
import gc
import inspect
import os
import pickle
import sys
import warnings
import weakref

import cloudpickle
import pytest

import asyncguard as ag
from asyncguard import testing
from asyncguard._pipeline import record_of
from tests.drivers.cases import CASES, Case, case_ids

every = pytest.mark.parametrize("case", CASES, ids=case_ids)


async def sleep(seconds):
    if "trio" in sys.modules and sys.modules["trio"].lowlevel.in_trio_task():
        await sys.modules["trio"].sleep(seconds)
    else:
        await asyncio.sleep(seconds)


# --- value and error --------------------------------------------------------------------------------------------------


@every
def test_async_value_passes_through(case: Case, backend):
    strategy = case.make()

    @strategy
    async def fn(x, *, y=1):
        await sleep(0.1)
        return [x, y]

    async def main():
        assert await fn(1) == [1, 1]
        assert await fn(1, y=2) == [1, 2]

    testing.run(main, backend=backend)
    case.clean(strategy)


@every
def test_async_value_passes_through_on_real_time(case: Case):
    """The virtual clock takes another path through the drivers than the real one: both must hold."""
    strategy = case.make()

    @strategy
    async def fn(x, *, y=1):
        await asyncio.sleep(0)
        return [x, y]

    async def main():
        assert await fn(1) == [1, 1]
        assert await fn(2, y=2) == [2, 2]

    asyncio.run(main())
    case.clean(strategy)


@every
def test_sync_value_passes_through(case: Case):
    strategy = case.make()

    @strategy
    def fn(x, *, y=1):
        return [x, y]

    assert fn(1) == [1, 1]
    assert fn(2, y=2) == [2, 2]
    with testing.virtual_clock():
        assert fn(3) == [3, 1]
    case.clean(strategy)


@every
def test_async_error_leaves_as_it_is(case: Case, backend):
    strategy = case.make()
    error = LookupError("the user's own")

    @strategy
    async def fn():
        raise error

    async def main():
        with pytest.raises(LookupError) as caught:
            await fn()
        assert caught.value is error

    testing.run(main, backend=backend)
    case.clean(strategy)


@every
def test_sync_error_leaves_as_it_is(case: Case):
    strategy = case.make()
    error = LookupError("the user's own")

    @strategy
    def fn():
        raise error

    with pytest.raises(LookupError) as caught:
        fn()
    assert caught.value is error
    case.clean(strategy)


@every
def test_the_same_error_raised_again_and_again_does_not_grow(case: Case):
    strategy = case.make()
    error = LookupError("one instance")

    @strategy
    def fn():
        raise error

    depths = []
    for _ in range(5):
        error.__traceback__ = None
        with pytest.raises(LookupError):
            fn()
        depths.append(len(list(_frames(error))))
        assert len(getattr(error, "__notes__", [])) <= 1
    assert depths[1] == depths[-1]  # the first failure may take a shorter way than those after it


def _frames(error):
    trace = error.__traceback__
    while trace is not None:
        yield trace
        trace = trace.tb_next


@every
def test_stop_iteration_of_a_sync_function_is_kept(case: Case):
    @case.make()
    def fn():
        raise StopIteration(5)

    with pytest.raises(StopIteration) as caught:
        fn()
    assert caught.value.value == 5


@every
@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError])
def test_interrupts_pass_in_sync_code(case: Case, interrupt):
    strategy = case.make()
    calls = []

    @strategy
    def fn():
        calls.append(1)
        raise interrupt

    with pytest.raises(interrupt):
        fn()
    assert len(calls) == 1
    case.clean(strategy)


@every
@pytest.mark.parametrize("interrupt", [SystemExit, KeyboardInterrupt])
def test_interrupts_pass_in_async_code(case: Case, interrupt):
    strategy = case.make()
    calls = []

    @strategy
    async def fn():
        calls.append(1)
        raise interrupt

    async def main():
        coroutine = fn()
        with pytest.raises(interrupt):
            # Driven by hand: an interrupt inside a task would also end the event loop of the test.
            coroutine.send(None)

    if case.own_tasks:
        pytest.skip("its function runs in a task of its own; tests/strategies has the test for it")
    asyncio.run(main())
    assert len(calls) == 1
    case.clean(strategy)


# --- cancellation -----------------------------------------------------------------------------------------------------


@every
def test_cancellation_in_the_call_passes_and_leaves_nothing(case: Case):
    strategy = case.make()
    started = []

    @strategy
    async def fn():
        started.append(1)
        await asyncio.sleep(5)

    async def main():
        task = asyncio.create_task(fn())
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()
        await asyncio.sleep(0)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        assert not others, "a task was left behind"

    testing.run(main)
    assert started == [1]
    case.clean(strategy)


@every
def test_cancellation_is_counted_as_it_was(case: Case):
    strategy = case.make()

    @strategy
    async def fn():
        await asyncio.sleep(5)

    async def main():
        task = asyncio.current_task()
        asyncio.get_running_loop().call_later(1, task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await fn()
        assert task.cancelling() == 1
        task.uncancel()

    testing.run(main)


@every
def test_cancellation_at_every_await_leaves_nothing(case: Case):
    strategy = case.make()

    @strategy
    async def fn(x):
        for _ in range(3):
            await asyncio.sleep(0.5)
        return x

    async def main():
        for step in range(8):
            tasks = [asyncio.create_task(fn(i)) for i in range(3)]
            for _ in range(step):
                await asyncio.sleep(0)
            tasks[step % 3].cancel()
            tasks[(step + 1) % 3].cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            kinds = [type(result) for result in results]
            assert kinds.count(asyncio.CancelledError) <= 2
            assert results[(step + 2) % 3] == (step + 2) % 3, "the caller who was not cancelled was hurt"
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1

    testing.run(main)
    case.clean(strategy)


@every
def test_trio_cancellation_passes_and_leaves_nothing(case: Case):
    import trio

    strategy = case.make()

    @strategy
    async def fn():
        await trio.sleep(5)

    async def main():
        with trio.move_on_after(1) as scope:
            await fn()
        assert scope.cancelled_caught

    testing.run(main, backend="trio")
    case.clean(strategy)


# --- what the decorated object is -------------------------------------------------------------------------------------


@every
def test_it_stays_what_it_was(case: Case):
    @case.make()
    async def coroutine(a: int, b: str = "x") -> str:
        """Doc."""
        return f"{a}{b}"

    @case.make()
    def plain(a: int, b: str = "x") -> str:
        """Doc."""
        return f"{a}{b}"

    assert inspect.iscoroutinefunction(coroutine)
    assert not inspect.iscoroutinefunction(plain)
    for fn in (coroutine, plain):
        assert list(inspect.signature(fn).parameters) == ["a", "b"]
        assert fn.__doc__ == "Doc."
        assert fn.__name__ in {"coroutine", "plain"}
        assert fn.__wrapped__ is not None
        assert [type(each) for each in ag.pipeline_of(fn)] == [type(case.make())]


@every
def test_methods_of_every_kind(case: Case):
    class Service:
        @case.make()
        async def method(self, x):
            return (type(self).__name__, x)

        @case.make()
        @classmethod
        async def outside_of_classmethod(cls, x):
            return (cls.__name__, x)

        @classmethod
        @case.make()
        async def inside_of_classmethod(cls, x):
            return (cls.__name__, x)

        @case.make()
        @staticmethod
        async def outside_of_staticmethod(x):
            return ("Service", x)

        @staticmethod
        @case.make()
        async def inside_of_staticmethod(x):
            return ("Service", x)

        @case.make()
        def sync(self, x):
            return (type(self).__name__, x)

    async def main():
        service = Service()
        for call in (
            service.method,
            service.outside_of_classmethod,
            Service.inside_of_classmethod,
            service.outside_of_staticmethod,
            Service.inside_of_staticmethod,
        ):
            assert await call(1) == ("Service", 1)
            assert len(ag.pipeline_of(call)) == 1
        assert service.sync(2) == ("Service", 2)

    asyncio.run(main())


@every
def test_partials_and_callable_objects(case: Case):
    class Callable:
        async def __call__(self, x):
            return x

    class SyncCallable:
        def __call__(self, x):
            return x

    async def add(a, b):
        return a + b

    async def main():
        assert await case.make()(functools.partial(add, 1))(2) == 3
        assert await case.make()(Callable())(4) == 4
        assert case.make()(SyncCallable())(5) == 5

    asyncio.run(main())


@every
def test_a_foreign_decorator_in_between_is_not_dropped(case: Case):
    seen = []

    def foreign(fn):
        @functools.wraps(fn)
        async def wrapper(*args):
            seen.append(args)
            return await fn(*args)

        return wrapper

    @case.make()
    @foreign
    @ag.timeout(5)
    async def fn(x):
        return x

    assert asyncio.run(fn(1)) == 1
    assert seen == [(1,)]
    assert len(ag.pipeline_of(fn)) == 1


@every
def test_decorating_again_grows_one_flat_pipeline(case: Case):
    async def original(x):
        return x

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fn = case.make()(ag.timeout(5, name="inner")(original))
    assert [each.name for each in ag.pipeline_of(fn)][1:] == ["inner"]
    assert record_of(fn).original is original
    assert asyncio.run(fn(3)) == 3


@every
def test_a_plain_function_that_returns_an_awaitable_is_refused(case: Case):
    async def coroutine():
        return 1

    @case.make()
    def fn():
        return coroutine()

    with pytest.raises(TypeError, match="as_async"):
        fn()


@every
def test_a_class_is_refused(case: Case):
    with pytest.raises(TypeError, match="class"):
        case.make()(dict)


# --- sharing, pickling, forking, collecting ---------------------------------------------------------------------------


@every
def test_one_strategy_serves_sync_and_async_functions(case: Case):
    strategy = case.make()

    @strategy
    async def a(x):
        return ("a", x)

    @strategy
    def b(x):
        return ("b", x)

    assert asyncio.run(a(1)) == ("a", 1)
    assert b(1) == ("b", 1)
    assert next(iter(ag.pipeline_of(a))) is next(iter(ag.pipeline_of(b))) is strategy
    assert isinstance(ag.pipeline_of(a)[type(strategy)], type(strategy))


@every
def test_one_strategy_serves_several_loops_one_after_the_other(case: Case):
    strategy = case.make()

    @strategy
    async def fn(x):
        await asyncio.sleep(0)
        return x

    assert [asyncio.run(fn(i)) for i in range(3)] == [0, 1, 2]
    case.clean(strategy)


@every
def test_it_pickles_as_options_and_name(case: Case):
    strategy = case.make()
    again = pickle.loads(pickle.dumps(strategy))
    assert type(again) is type(strategy)
    assert again.name == strategy.name
    assert copy.deepcopy(strategy).name == strategy.name


@every
def test_a_guarded_function_survives_cloudpickle(case: Case):
    def local(x):
        return 2 * x

    guarded = case.make()(local)
    again = pickle.loads(cloudpickle.dumps(guarded))
    assert again(4) == 8
    assert [type(each) for each in ag.pipeline_of(again)] == [type(case.make())]


@every
def test_a_guarded_function_is_collected(case: Case):
    def make():
        @case.make()
        async def fn(x):
            return x

        asyncio.run(fn(1))
        return weakref.ref(fn)

    gone = make()
    gc.collect()
    assert gone() is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@every
def test_it_works_in_a_forked_child(case: Case):
    strategy = case.make()

    @strategy
    def fn(x):
        return x

    fn(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # other tests may have left daemon threads
        child = os.fork()
    if child == 0:
        try:
            os._exit(0 if fn(2) == 2 else 1)
        finally:
            os._exit(2)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


@every
def test_off_and_observe_change_nothing(case: Case):
    strategy = case.make()

    @strategy
    async def fn(x):
        return x

    for mode in ("off", "observe", "enforce"):
        strategy.configure(mode=mode)
        assert asyncio.run(fn(7)) == 7
    with strategy.override(mode="off"):
        assert asyncio.run(fn(8)) == 8
    case.clean(strategy)


@every
def test_configure_refuses_what_it_does_not_know_and_changes_nothing(case: Case):
    strategy = case.make()
    before = strategy.options
    with pytest.raises(TypeError, match="has no option 'colour'"):
        strategy.configure(colour="red")
    with pytest.raises(ValueError, match="mode must be one of"):
        strategy.configure(mode="sometimes")
    assert strategy.options is before


# --- generators -------------------------------------------------------------------------------------------------------


@every
def test_generators_are_guarded_or_refused(case: Case):
    strategy = case.make()

    def count(n):
        for i in range(n):
            got = yield i
            if got is not None:
                yield got

    if not case.generators:
        with pytest.raises(TypeError, match="generator"):
            strategy(count)
        return
    guarded = strategy(count)
    assert inspect.isgeneratorfunction(guarded)
    assert list(guarded(3)) == [0, 1, 2]
    items = guarded(3)
    assert next(items) == 0
    assert items.send("sent") == "sent"
    items.close()
    case.clean(strategy)


@every
def test_async_generators_are_guarded_or_refused(case: Case, backend):
    strategy = case.make()
    closed = []

    async def count(n):
        try:
            for i in range(n):
                got = yield i
                if got is not None:
                    yield got
        finally:
            closed.append(n)

    if not case.async_generators:
        with pytest.raises(TypeError, match="generator"):
            strategy(count)
        return
    guarded = strategy(count)
    assert inspect.isasyncgenfunction(guarded)

    async def main():
        assert [item async for item in guarded(3)] == [0, 1, 2]
        items = guarded(4)
        assert await items.__anext__() == 0
        assert await items.asend("sent") == "sent"
        await items.aclose()

    testing.run(main, backend=backend)
    assert closed == [3, 4]
    case.clean(strategy)


@every
def test_an_error_in_an_async_generator_leaves_as_it_is(case: Case, backend):
    if not case.async_generators:
        pytest.skip("refused, see above")
    strategy = case.make()

    @strategy
    async def count():
        yield 1
        raise LookupError("after the first")

    async def main():
        items = []
        with pytest.raises(LookupError, match="after the first"):
            async for item in count():
                items.append(item)
        assert items == [1]

    testing.run(main, backend=backend)
    case.clean(strategy)

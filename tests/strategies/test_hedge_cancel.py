"""`hedge` under cancellation and interrupts: at every moment, once and twice, nothing is left behind."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
import threading
import warnings

import pytest

from asyncguard import Pipeline, bulkhead, events, guard, rate_limit, retry, testing, timeout
from asyncguard._runtime import clock
from asyncguard.strategies.hedge import hedge


def always(**options):
    """A hedge whose budget is never what decides."""
    return hedge(**{"delay": 1.0, "max_extra_load": 1.0, **options})


def others():
    return asyncio.all_tasks() - {asyncio.current_task()}


class Resource:
    """A result that has to be closed."""

    def __init__(self):
        self.open = True

    async def aclose(self):
        await clock.library_sleep(0.01)
        self.open = False


class Slow:
    """Attempts that take `seconds` each in turn, and `cleanup` seconds to be cancelled."""

    def __init__(self, *seconds, cleanup=0.0):
        self.seconds = seconds
        self.cleanup = cleanup
        self.calls = self.running = 0
        self.results = []

    async def __call__(self):
        self.calls += 1
        self.running += 1
        try:
            await clock.library_sleep(self.seconds[min(self.calls, len(self.seconds)) - 1])
        except BaseException:
            if self.cleanup:
                await _shielded_sleep(self.cleanup)
            raise
        finally:
            self.running -= 1
        self.results.append(Resource())
        return self.results[-1]


async def _shielded_sleep(seconds):
    if clock.in_trio():
        with sys.modules["trio"].CancelScope(shield=True):
            await clock.library_sleep(seconds)
    else:
        await asyncio.sleep(seconds)


MOMENTS = [0.0, 0.5, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5]
"""Before the delay, at it, while both run, when the copy wins, while the loser cleans up, when it is over."""


@pytest.mark.parametrize("cleanup", [0.0, 0.6])
@pytest.mark.parametrize("moment", MOMENTS)
def test_caller_cancellation_at_any_moment_leaves_no_task(moment, cleanup):
    service = Slow(3.0, 0.5, cleanup=cleanup)
    strategy = always()

    async def main():
        task = asyncio.create_task(strategy(service.__call__)())
        asyncio.get_running_loop().call_later(moment, task.cancel)
        await asyncio.wait([task])
        assert not others(), "a task was left behind"
        assert service.running == 0
        kept = [] if task.cancelled() else [task.result()]
        assert [result for result in service.results if result.open] == kept

    testing.run(main)


@pytest.mark.parametrize("second", [0.0, 0.25, 0.5, 0.75])
def test_a_second_cancellation_while_the_attempts_are_cancelled_leaves_no_task(second):
    service = Slow(9.0, 9.0, cleanup=0.6)

    async def main():
        task = asyncio.create_task(always()(service.__call__)())
        loop = asyncio.get_running_loop()
        loop.call_later(1.5, task.cancel)
        loop.call_later(1.5 + second, task.cancel)
        await asyncio.wait([task])
        assert task.cancelled()
        assert task.cancelling() == (2 if second < 0.6 else 1)
        assert not others()
        assert service.running == 0

    testing.run(main)


@pytest.mark.parametrize("steps", range(12))
def test_cancellation_at_every_step_leaves_no_task(steps):
    """Every turn of the loop around the start of the attempts and their end."""

    async def main():
        service = Slow(0.0)
        task = asyncio.create_task(always(delay=0.0)(service.__call__)())
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert not others()
        assert service.running == 0
        kept = [] if task.cancelled() else [task.result()]
        assert [result for result in service.results if result.open] == kept

    testing.run(main)


@pytest.mark.parametrize("moment", [0.5, 1.25, 1.6])
def test_the_count_of_cancellations_is_what_the_callers_made(moment):
    async def main():
        task = asyncio.current_task()
        asyncio.get_running_loop().call_later(moment, task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await always()(Slow(9.0, 0.5, cleanup=0.5).__call__)()
        assert task.cancelling() == 1
        assert task.uncancel() == 0
        await asyncio.sleep(0)
        await always()(Slow(9.0, 0.5).__call__)()
        assert task.cancelling() == 0

    testing.run(main)


def test_a_timeout_around_it_is_told_from_a_cancellation():
    async def main():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.25):
                await always()(Slow(9.0, 9.0).__call__)()
        assert asyncio.current_task().cancelling() == 0
        assert not others()

    testing.run(main)


@pytest.mark.parametrize("cleanup", [0.0, 0.6])
@pytest.mark.parametrize("moment", MOMENTS)
def test_trio_cancellation_at_any_moment_leaves_nothing(moment, cleanup):
    import trio

    service = Slow(3.0, 0.5, cleanup=cleanup)
    got = []

    async def main():
        with trio.move_on_after(moment) as scope:
            try:
                got.append(await always()(service.__call__)())
            except trio.Cancelled:
                assert scope.cancel_called
                raise
        assert bool(got) is not scope.cancelled_caught
        assert service.running == 0

    testing.run(main, backend="trio")
    assert [result for result in service.results if result.open] == got


def test_a_result_that_comes_too_late_is_closed_to_its_end(backend):
    """Both copies succeed in the same turn: closing the other one must not be cut off."""
    service = Slow(1.0)

    async def main():
        won = await always(delay=0.0)(service.__call__)()
        assert len(service.results) == 2
        assert [result for result in service.results if result.open] == [won]

    testing.run(main, backend=backend)


def test_trio_cancellation_leaves_as_it_is_and_in_no_group():
    import trio

    async def main():
        with trio.move_on_after(1.5):
            with pytest.raises(trio.Cancelled) as caught:
                await always()(Slow(9.0, 9.0, cleanup=0.5).__call__)()
            assert type(caught.value) is trio.Cancelled
            raise caught.value

    testing.run(main, backend="trio")


def test_no_permit_of_the_stack_is_left():
    slots = bulkhead(2, max_queue=10)
    service = Slow(9.0, 9.0)
    fn = guard(timeout(20.0), retry(), always(), slots, rate_limit("1000/s burst 1000"))(service.__call__)

    async def main():
        for moment in (0.0, 0.5, 1.0, 1.5, 4.0):
            tasks = [asyncio.create_task(fn()) for _ in range(3)]
            await asyncio.sleep(moment)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            assert not others()
            assert all(gate.idle() for gate in slots.gates())

    testing.run(main)


def test_a_cancelled_call_reports_no_winner():
    async def main():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.5):
                await always()(Slow(9.0, 9.0).__call__)()

    with testing.record_events() as recorded:
        testing.run(main)
    assert [type(event) for event in recorded] == [events.HedgeStarted]


# --- attempts that others cancel or that raise it themselves ----------------------------------------------------------


def test_a_cancellation_that_the_function_raises_itself_leaves(backend):
    async def main():
        calls = []

        @always()
        async def fn():
            calls.append(1)
            await clock.library_sleep(0.1)
            raise asyncio.CancelledError

        with pytest.raises(asyncio.CancelledError):
            await fn()
        assert len(calls) == 1

    testing.run(main, backend=backend)


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_an_attempt_that_somebody_else_cancels_ends_the_call(steps):
    """Also before its first step, when nothing of it has run."""

    async def main():
        task = asyncio.create_task(always(delay=60.0)(Slow(9.0).__call__)())
        await asyncio.sleep(0)
        for _ in range(steps):
            await asyncio.sleep(0)
        for other in others() - {task}:
            other.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not others()

    testing.run(main)


# --- interrupts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("number", [1, 2])
def test_an_interrupt_in_an_attempt_leaves_through_the_caller(interrupt, number, backend):
    cancelled = []

    async def main():
        calls = []

        @always()
        async def fn():
            calls.append(1)
            mine = len(calls)
            try:
                await clock.library_sleep(1.5 if mine == 1 and number == 1 else 0.1 if mine == 2 == number else 9.0)
            except BaseException:
                cancelled.append(mine)
                raise
            raise interrupt("stop")

        with pytest.raises(interrupt, match="stop"):
            await fn()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        testing.run(main, backend=backend)
        gc.collect()
    assert cancelled == [3 - number]


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("moment", [1.25, 9.0], ids=["caller cancelled", "won"])
def test_an_interrupt_in_the_cleanup_of_a_loser_is_not_lost(interrupt, moment, backend):
    won = Resource()

    async def main():
        calls = []

        @always()
        async def fn():
            calls.append(1)
            if len(calls) == 2:
                await clock.library_sleep(0.5)
                return won
            try:
                await clock.library_sleep(30.0)
            finally:
                raise interrupt("stop")

        with pytest.raises(interrupt, match="stop"):
            await timeout(moment)(fn)()

    testing.run(main, backend=backend)
    assert won.open is (moment < 1.5)


@pytest.mark.skipif(threading.current_thread() is not threading.main_thread(), reason="signals need the main thread")
def test_control_c_while_two_attempts_run_leaves_nothing(backend):
    service = Slow(9.0, 9.0)

    async def main():
        @always()
        async def fn():
            if service.calls:
                signal.raise_signal(signal.SIGINT)
            return await service()

        await fn()

    with pytest.raises(KeyboardInterrupt):
        testing.run(main, backend=backend)
    assert service.running == 0


def test_an_interrupt_in_a_hook_leaves_nothing(backend):
    service = Slow(9.0, 9.0)

    def hook(_event):
        raise KeyboardInterrupt

    async def main():
        with pytest.raises(KeyboardInterrupt):
            await always(on_event=hook)(service.__call__)()
        assert service.running == 0

    testing.run(main, backend=backend)
    assert service.calls == 1


def test_a_caller_that_is_collected_cancels_its_attempts():
    service = Slow(9.0)

    async def main():
        coroutine = always()(service.__call__)()
        coroutine.send(None)
        coroutine.close()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not others()

    testing.run(main)
    assert service.running == 0


def test_it_works_with_eager_tasks():
    if sys.version_info < (3, 12):
        pytest.skip("eager tasks came with Python 3.12")

    async def main():
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)

        @always()
        async def at_once():
            return "at once"

        assert await at_once() == "at once"
        assert (await always()(Slow(9.0, 0.5).__call__)()).open
        calls = []

        @always()
        async def failing():
            calls.append(1)
            if len(calls) == 1:
                raise ConnectionError
            return len(calls)

        assert await failing() == 2
        assert not others()

    testing.run(main)


def test_it_works_on_real_time_and_uvloop():
    uvloop = pytest.importorskip("uvloop")

    async def main():
        fn = Pipeline(always(delay=0.001))(Slow(60.0, 0.0).__call__)
        assert (await fn()).open
        assert not others()

    for run in (asyncio.run, uvloop.run):
        run(main())

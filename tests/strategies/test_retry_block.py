"""`retry(...).attempts()`: a block that is tried again, async and sync."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from asyncguard import CircuitOpenError, deadline, events, failing_status, retry, testing
from asyncguard._runtime import clock


def test_a_block_is_tried_until_it_succeeds(backend):
    numbers = []

    async def main():
        async for attempt in retry().attempts():
            async with attempt:
                numbers.append(attempt.number)
                if attempt.number < 3:
                    raise ConnectionError

    testing.run(main, backend=backend)
    assert numbers == [1, 2, 3]


def test_a_sync_block_is_tried_until_it_succeeds():
    numbers = []
    with testing.virtual_clock():
        for attempt in retry().attempts():
            with attempt:
                numbers.append(attempt.number)
                if attempt.number < 3:
                    raise ConnectionError
    assert numbers == [1, 2, 3]


def test_it_gives_up_with_the_last_error_and_its_line(backend):
    times = []

    async def main():
        async for attempt in retry(max_retries=2, initial_delay=1, jitter="none").attempts():
            async with attempt:
                times.append(clock.current().now())
                raise ConnectionError(attempt.number)

    with pytest.raises(ConnectionError) as raised:
        testing.run(main, backend=backend)
    assert raised.value.args == (3,)
    assert raised.value.__notes__ == ["asyncguard.retry: 3 attempts in 3.00 s, gave up: max_retries"]
    assert [later - times[0] for later in times] == pytest.approx([0.0, 1.0, 3.0])


def test_an_error_that_is_not_retried_leaves_at_once():
    numbers = []
    with testing.virtual_clock(), pytest.raises(KeyError):
        for attempt in retry().attempts():
            with attempt:
                numbers.append(attempt.number)
                raise KeyError
    assert numbers == [1]


def test_every_loop_and_every_task_has_attempts_of_its_own():
    loop = retry(max_retries=2, budget=None).attempts()

    async def one(name):
        numbers = []
        with contextlib.suppress(ConnectionError):
            async for attempt in loop:
                async with attempt:
                    numbers.append(attempt.number)
                    await asyncio.sleep(0.1)
                    raise ConnectionError(name)
        return numbers

    async def main():
        return await asyncio.gather(*(one(number) for number in range(5)))

    assert testing.run(main) == [[1, 2, 3]] * 5
    assert testing.run(main) == [[1, 2, 3]] * 5


def test_leaving_the_loop_is_allowed():
    entered = []
    with testing.virtual_clock():
        for attempt in retry().attempts():
            with attempt:
                entered.append(attempt.number)
                break
        for attempt in retry().attempts():
            with attempt:
                entered.append(attempt.number)
            break
    assert entered == [1, 1]


def test_a_return_in_the_block_returns():
    def call():
        for attempt in retry().attempts():
            with attempt:
                if attempt.number == 1:
                    raise ConnectionError
                return attempt.number
        return None

    with testing.virtual_clock():
        assert call() == 2


@pytest.mark.parametrize("error", [KeyboardInterrupt, asyncio.CancelledError, GeneratorExit])
def test_what_is_no_exception_passes(error):
    numbers = []
    with testing.virtual_clock(), pytest.raises(error):
        for attempt in retry(on=Exception).attempts():
            with attempt:
                numbers.append(attempt.number)
                raise error
    assert numbers == [1]


def test_an_attempt_that_is_not_entered_is_a_mistake_that_is_named(backend):
    async def main():
        async for _attempt in retry().attempts():
            pass

    with pytest.raises(RuntimeError, match="async with attempt"):
        testing.run(main, backend=backend)
    with testing.virtual_clock(), pytest.raises(RuntimeError, match="async with attempt"):
        for _attempt in retry().attempts():
            pass


def test_on_result_has_no_meaning_for_a_block():
    with pytest.raises(TypeError, match="on_result"):
        retry(on_result=failing_status).attempts()


def test_it_stops_at_the_deadline(backend):
    numbers = []

    async def main():
        with deadline(2.5):
            async for attempt in retry(initial_delay=1, jitter="none").attempts():
                async with attempt:
                    numbers.append(attempt.number)
                    raise ConnectionError

    with pytest.raises(ConnectionError):
        testing.run(main, backend=backend)
    assert numbers == [1, 2]


def test_a_rejection_after_a_real_error_leaves_the_real_one(backend):
    async def main():
        async for attempt in retry().attempts():
            async with attempt:
                raise ConnectionError("real") if attempt.number < 3 else CircuitOpenError("open")

    with pytest.raises(ConnectionError, match="real") as raised:
        testing.run(main, backend=backend)
    assert "gave up: rejected" in raised.value.__notes__[0]


def test_off_is_one_attempt_and_observe_too():
    for mode in ("off", "observe"):
        numbers = []
        with testing.virtual_clock(), pytest.raises(ConnectionError):
            for attempt in retry(mode=mode).attempts():
                with attempt:
                    numbers.append(attempt.number)
                    raise ConnectionError
        assert numbers == [1]
        with testing.virtual_clock():
            for attempt in retry(mode=mode).attempts():
                with attempt:
                    pass


def test_partitions_are_told_by_the_arguments():
    strategy = retry(partition=lambda host: host, name="client")
    with testing.virtual_clock(), testing.record_events() as heard:
        for attempt in strategy.attempts("a"):
            with attempt:
                if attempt.number == 1:
                    raise ConnectionError
    assert [(type(event), event.partition, event.pipeline) for event in heard] == [
        (events.RetryScheduled, "a", "client"),
        (events.AttemptStarted, "a", "client"),
    ]


def test_what_a_function_inside_gave_up_on_is_not_retried_by_the_block(backend):
    calls = []

    @retry(max_retries=2)
    async def inner():
        calls.append(1)
        raise ConnectionError

    async def main():
        async for attempt in retry().attempts():
            async with attempt:
                await inner()

    with pytest.raises(ConnectionError):
        testing.run(main, backend=backend)
    assert len(calls) == 3


def test_a_block_in_an_async_generator_may_yield(backend):
    """The consumer runs in another context from time to time; nothing of ours is set in it."""

    async def pages():
        async for attempt in retry().attempts():
            async with attempt:
                yield attempt.number

    async def main():
        return [page async for page in pages()]

    assert testing.run(main, backend=backend) == [1]

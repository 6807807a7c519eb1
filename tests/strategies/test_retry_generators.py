"""`retry` of generators: until the first item, and never an item twice."""

from __future__ import annotations

import asyncio

import pytest

from asyncguard import current_attempt, retry, testing


class Source:
    """Fails `before` times before the first item, then (if `after`) after two items."""

    def __init__(self, before=0, *, after=False, error=ConnectionError):
        self.before, self.after, self.error = before, after, error
        self.started = 0
        self.closed = 0
        self.attempts = []

    def __call__(self):
        self.started += 1
        self.attempts.append(current_attempt())
        try:
            if self.started <= self.before:
                raise self.error
            sent = yield 1
            yield (2, sent)
            if self.after:
                raise self.error
            yield 3
            return "done"
        finally:
            self.closed += 1

    async def stream(self):
        self.started += 1
        self.attempts.append(current_attempt())
        try:
            if self.started <= self.before:
                raise self.error
            sent = yield 1
            yield (2, sent)
            if self.after:
                raise self.error
            yield 3
        finally:
            self.closed += 1


def guarded(source, **options):
    strategy = retry(**options)

    @strategy
    def call():
        return (yield from source())

    return call


def guarded_async(source, **options):
    return retry(**options)(source.stream)


async def collected(items):
    return [item async for item in items]


def test_an_async_generator_is_retried_until_its_first_item(backend):
    source = Source(2)
    stream = guarded_async(source)
    assert testing.run(lambda: collected(stream()), backend=backend) == [1, (2, None), 3]
    assert (source.started, source.closed, source.attempts) == (3, 3, [1, 2, 3])


def test_a_generator_is_retried_until_its_first_item():
    source = Source(2)
    with testing.virtual_clock():
        assert list(guarded(source)()) == [1, (2, None), 3]
    assert (source.started, source.closed, source.attempts) == (3, 3, [1, 2, 3])


def test_after_an_item_errors_pass_and_nothing_comes_twice(backend):
    source, got = Source(1, after=True), []
    stream = guarded_async(source)

    async def main():
        with pytest.raises(ConnectionError):
            async for item in stream():
                got.append(item)

    testing.run(main, backend=backend)
    assert got == [1, (2, None)]
    assert (source.started, source.closed) == (2, 2)


def test_after_an_item_of_a_generator_errors_pass_and_nothing_comes_twice():
    source, got = Source(1, after=True), []
    with testing.virtual_clock(), pytest.raises(ConnectionError):
        for item in guarded(source)():
            got.append(item)  # noqa: PERF402 - what came before the error counts
    assert got == [1, (2, None)]
    assert source.started == 2


def test_giving_up_before_the_first_item_leaves_with_the_note(backend):
    source = Source(9)
    with pytest.raises(ConnectionError) as raised:
        testing.run(lambda: collected(guarded_async(source, max_retries=2)()), backend=backend)
    assert "3 attempts" in raised.value.__notes__[0]
    with testing.virtual_clock(), pytest.raises(ConnectionError) as raised:
        list(guarded(Source(9), max_retries=2)())
    assert "3 attempts" in raised.value.__notes__[0]


def test_what_is_sent_and_thrown_reaches_the_generator():
    with testing.virtual_clock():
        items = guarded(Source(1))()
        assert next(items) == 1
        assert items.send("hello") == (2, "hello")
        with pytest.raises(ZeroDivisionError):
            items.throw(ZeroDivisionError)


def test_what_is_sent_and_thrown_reaches_the_async_generator(backend):
    async def main():
        items = guarded_async(Source(1))()
        assert await items.__anext__() == 1
        assert await items.asend("hello") == (2, "hello")
        with pytest.raises(ZeroDivisionError):
            await items.athrow(ZeroDivisionError)

    testing.run(main, backend=backend)


def test_an_error_thrown_in_and_handled_goes_on():
    @retry
    def call():
        try:
            yield 1
        except KeyError:
            yield "handled"

    items = call()
    next(items)
    assert items.throw(KeyError) == "handled"

    @retry
    async def stream():
        try:
            yield 1
        except KeyError:
            yield "handled"

    async def main():
        items = stream()
        await items.__anext__()
        return await items.athrow(KeyError)

    assert testing.run(main) == "handled"


def test_the_result_of_a_generator_is_kept():
    results = []

    def whole(items):
        results.append((yield from items))

    with testing.virtual_clock():
        list(whole(guarded(Source(1))()))
    assert results == ["done"]


def test_a_generator_without_items_ends_at_once_with_its_result():
    @retry
    def empty():
        return "nothing"
        yield

    def whole():
        return (yield from empty())

    with pytest.raises(StopIteration) as stopped:
        next(whole())
    assert stopped.value.value == "nothing"

    @retry
    async def empty_stream():
        return
        yield

    assert testing.run(lambda: collected(empty_stream())) == []


def test_closing_it_closes_the_users_generator(backend):
    source = Source()

    async def main():
        items = guarded_async(source)()
        await items.__anext__()
        await items.aclose()

    testing.run(main, backend=backend)
    assert source.closed == 1
    source = Source()
    items = guarded(source)()
    next(items)
    items.close()
    assert source.closed == 1


def test_cancelling_while_it_waits_for_the_first_item_leaves_nothing_open():
    source = Source(9)

    async def main():
        task = asyncio.create_task(collected(guarded_async(source, initial_delay=10, jitter="none")()))
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.wait([task])
        return task.cancelled()

    assert testing.run(main)
    assert (source.started, source.closed) == (1, 1)


def test_nothing_is_set_in_the_context_across_a_yield(backend):
    source = Source(2)

    async def main():
        items = guarded_async(source)()
        await items.__anext__()
        seen = current_attempt()
        await items.aclose()
        return seen

    assert testing.run(main, backend=backend) == 1


@pytest.mark.parametrize("mode", ["off", "observe"])
def test_off_and_observe_try_once(mode, backend):
    source = Source(1)
    with pytest.raises(ConnectionError):
        testing.run(lambda: collected(guarded_async(source, mode=mode)()), backend=backend)
    assert source.started == 1
    assert testing.run(lambda: collected(guarded_async(Source(), mode=mode)()), backend=backend) == [1, (2, None), 3]
    source = Source(1)
    with testing.virtual_clock(), pytest.raises(ConnectionError):
        list(guarded(source, mode=mode)())
    assert source.started == 1
    assert list(guarded(Source(), mode=mode)()) == [1, (2, None), 3]

"""`stream=True`: permits and deadline last until the stream is closed."""

from __future__ import annotations

import asyncio
import gc

import pytest

import asyncguard as ag
from asyncguard import testing
from asyncguard._runtime import clock as clocks


class Chunks:
    """A stream as SDKs return it: an async iterator that has to be closed."""

    def __init__(self, pauses, fail=None):
        self.pauses = list(pauses)
        self.fail = fail
        self.closed = 0
        self.model = "small"

    def __aiter__(self):
        return self

    async def __anext__(self):
        if not self.pauses:
            if self.fail:
                raise self.fail
            raise StopAsyncIteration
        pause = self.pauses.pop(0)
        await clocks.library_sleep(pause)
        return pause

    async def close(self):
        self.closed += 1


def client(limit, *others, pauses=(0, 0), fail=None):
    made = []

    @ag.guard(limit, *others, stream=True)
    async def create():
        made.append(Chunks(pauses, fail))
        return made[-1]

    return create, made


def test_the_permit_is_held_until_the_stream_is_exhausted(backend):
    limit = ag.bulkhead(1, max_queue=0)
    create, made = client(limit)

    async def main():
        gate = limit.core_here().single
        stream = await create()
        assert gate.taken == 1
        assert stream.model == "small"
        assert [item async for item in stream] == [0, 0]
        assert gate.idle()
        assert made[0].pauses == []

    testing.run(main, backend=backend)


@pytest.mark.parametrize("how", ["aclose", "close"])
def test_closing_early_releases_and_closes_the_users_stream(backend, how):
    limit = ag.bulkhead(1, max_queue=0)
    create, made = client(limit)

    async def main():
        stream = await create()
        assert await stream.__anext__() == 0
        await getattr(stream, how)()
        assert limit.core_here().single.idle()
        assert made[0].closed == 1

    testing.run(main, backend=backend)


def test_an_error_in_the_stream_releases_and_leaves_as_it_is(backend):
    limit = ag.bulkhead(1, max_queue=0)
    create, made = client(limit, fail=LookupError("cut off"))

    async def main():
        with pytest.raises(LookupError, match="cut off"):
            _ = [item async for item in await create()]
        assert limit.core_here().single.idle()
        assert made[0].closed == 1

    testing.run(main, backend=backend)


def test_a_stream_that_is_dropped_releases():
    limit = ag.bulkhead(1, max_queue=0)
    create, _ = client(limit)

    async def main():
        await create()
        gc.collect()
        assert limit.gate.idle()

    asyncio.run(main())


def test_async_with_releases_at_its_end(backend):
    limit = ag.bulkhead(1, max_queue=0)

    class Response:
        status = 200

        async def __aenter__(self):
            return Chunks([0])

        async def __aexit__(self, *exc):
            return None

    @ag.guard(limit, stream=True)
    async def get():
        return Response()

    async def main():
        async with await get() as chunks:
            assert limit.core_here().single.taken == 1
            assert chunks.model == "small"
            assert [item async for item in chunks] == [0]
        assert limit.core_here().single.idle()

    testing.run(main, backend=backend)


@pytest.mark.parametrize(
    ("options", "pauses", "match"),
    [
        ({}, [6, 6], "did not finish within 10 s"),
        ({"first_item": 2}, [3], "gave no first item within 2 s"),
        ({"idle": 2}, [3, 3], "gave no item within 2 s"),
    ],
)
def test_the_deadline_bounds_the_items(backend, options, pauses, match):
    limit = ag.bulkhead(1, max_queue=0)
    create, made = client(limit, ag.timeout(10, scope="attempt", **options), pauses=pauses)

    async def main():
        stream = await create()
        with pytest.raises(ag.CallTimeoutError, match=match):
            _ = [item async for item in stream]
        assert limit.core_here().single.idle()
        assert made[0].closed == 1

    testing.run(main, backend=backend)


def test_cancellation_while_an_item_is_awaited_releases():
    limit = ag.bulkhead(1, max_queue=0)
    create, made = client(limit, pauses=[60])

    async def main():
        stream = await create()
        task = asyncio.ensure_future(stream.__anext__())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert limit.core_here().single.idle()
        assert made[0].closed == 1

    testing.run(main)


def test_a_result_that_is_no_stream_stays_what_it_is():
    @ag.guard(ag.bulkhead(1), stream=True)
    async def fn():
        return [1]

    assert asyncio.run(fn()) == [1]


def test_closing_early_closes_the_stream_behind_an_iterator_of_its_own(backend):
    """As in openai: `__aiter__` is an async generator over an inner one, and only `close` ends the response."""

    class Response:
        def __init__(self):
            self.closed = 0

        async def __aiter__(self):
            for number in range(3):
                yield number

        async def close(self):
            self.closed += 1

    response = Response()
    limit = ag.bulkhead(1)

    @ag.guard(limit, stream=True)
    async def create():
        return response

    async def main():
        stream = await create()
        async for _ in stream:
            break
        await stream.close()
        assert response.closed == 1
        assert limit.core_here().single.idle()

    testing.run(main, backend=backend)


class Pause:
    def __await__(self):
        yield


class Endless:
    def __aiter__(self):
        return self

    async def __anext__(self):
        await Pause()

    async def close(self):
        await Pause()


def test_a_stream_whose_reader_is_collected_releases_and_awaits_nothing():
    limit = ag.bulkhead(1)

    @ag.guard(limit, stream=True)
    async def create():
        return Endless()

    async def read():
        async for _ in await create():
            """Never."""

    reader = read()
    reader.send(None)
    assert limit.gate.taken == 1
    reader.close()  # a RuntimeError where something is awaited
    assert limit.gate.idle()


def test_a_stream_that_cannot_be_entered_releases(backend):
    class Closed:
        async def __aenter__(self):
            raise ConnectionError

        async def __aexit__(self, *error):
            """Never."""

    limit = ag.bulkhead(1)

    @ag.guard(limit, stream=True)
    async def create():
        return Closed()

    async def main():
        stream = await create()
        with pytest.raises(ConnectionError):
            async with stream:
                """Never."""
        assert limit.core_here().single.idle()

    testing.run(main, backend=backend)

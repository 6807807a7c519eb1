"""Brackets around generators: opened once, closed once, and `send`, `throw`, `close` reach the user's generator."""

from __future__ import annotations

import contextlib

import pytest

from asyncguard import testing
from asyncguard._runtime import generators


class Bracket:
    def __init__(self, log):
        self.log = log

    @contextlib.contextmanager
    def step(self):
        self.log.append("step")
        yield

    def close(self, error):
        self.log.append(("close", type(error).__name__))


def make_async(log):
    async def opened(args, kwargs):
        log.append(("open", args, kwargs))
        return Bracket(log)

    async def items(n, *, fail=None):
        try:
            for i in range(n):
                try:
                    got = yield i
                except KeyError as error:
                    got = f"caught {error.args[0]}"
                if got is not None:
                    yield got
            if fail:
                raise fail
        finally:
            log.append("closed")

    return generators.bracket_async(opened, items)


def make_sync(log):
    def opened(args, kwargs):
        log.append(("open", args, kwargs))
        return Bracket(log)

    def items(n, *, fail=None):
        try:
            for i in range(n):
                try:
                    got = yield i
                except KeyError as error:
                    got = f"caught {error.args[0]}"
                if got is not None:
                    yield got
            if fail:
                raise fail
        finally:
            log.append("closed")
        return "result"

    return generators.bracket_sync(opened, items)


def test_async_it_is_opened_at_the_first_item_and_closed_after_the_last(backend):
    log = []
    items = make_async(log)(2)
    assert log == []

    async def main():
        assert [item async for item in items] == [0, 1]

    testing.run(main, backend=backend)
    assert log == [("open", (2,), {}), "step", "step", "step", "closed", ("close", "NoneType")]


def test_async_send_throw_and_close_reach_the_generator(backend):
    log = []

    async def main():
        items = make_async(log)(5)
        assert await items.__anext__() == 0
        assert await items.asend("hello") == "hello"
        assert await items.__anext__() == 1
        assert await items.athrow(KeyError("k")) == "caught k"
        await items.aclose()

    testing.run(main, backend=backend)
    assert log[-2:] == ["closed", ("close", "NoneType")]


def test_async_an_error_is_told_and_leaves(backend):
    log = []

    async def main():
        with pytest.raises(LookupError):
            async for _ in make_async(log)(1, fail=LookupError()):
                pass

    testing.run(main, backend=backend)
    assert log[-2:] == ["closed", ("close", "LookupError")]


def test_async_an_error_thrown_in_that_the_generator_does_not_catch(backend):
    log = []

    async def main():
        items = make_async(log)(2)
        await items.__anext__()
        with pytest.raises(ZeroDivisionError):
            await items.athrow(ZeroDivisionError())

    testing.run(main, backend=backend)
    assert log[-2:] == ["closed", ("close", "ZeroDivisionError")]


def test_sync_everything_the_same_and_the_return_value_is_kept():
    log = []

    def outer():
        return (yield from make_sync(log)(2))

    items = outer()
    assert next(items) == 0
    assert items.send("hello") == "hello"
    assert next(items) == 1
    assert items.throw(KeyError("k")) == "caught k"
    with pytest.raises(StopIteration) as stop:
        next(items)
    assert stop.value.value == "result"
    assert log[-2:] == ["closed", ("close", "NoneType")]


def test_sync_close_and_errors():
    log = []
    items = make_sync(log)(3)
    next(items)
    items.close()
    assert log[-2:] == ["closed", ("close", "NoneType")]
    with pytest.raises(LookupError):
        list(make_sync(log)(1, fail=LookupError()))
    assert log[-1] == ("close", "LookupError")
    items = make_sync(log)(3)
    next(items)
    with pytest.raises(ZeroDivisionError):
        items.throw(ZeroDivisionError())
    assert log[-1] == ("close", "ZeroDivisionError")

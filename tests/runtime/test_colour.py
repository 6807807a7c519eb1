"""The colour of a callable is decided once and right."""

from __future__ import annotations

import functools
from unittest import mock

import pytest

from asyncguard._runtime import colour


async def coroutine():
    """Async."""


def plain():
    """Sync."""


async def agen():
    yield


def gen():
    yield


class AsyncCallable:
    async def __call__(self):
        """Async."""


class Callable:
    def __call__(self):
        """Sync."""

    async def method(self):
        """Async."""


@pytest.mark.parametrize(
    ("fn", "kind"),
    [
        (coroutine, "async"),
        (plain, "sync"),
        (agen, "async generator"),
        (gen, "generator"),
        (functools.partial(coroutine), "async"),
        (functools.partial(functools.partial(agen)), "async generator"),
        (AsyncCallable(), "async"),
        (Callable(), "sync"),
        (Callable().method, "async"),
        (len, "sync"),
        ("".join, "sync"),
        (mock.AsyncMock(), "async"),
        (mock.Mock(), "sync"),
        (lambda: None, "sync"),
    ],
)
def test_kinds(fn, kind):
    assert colour.kind_of(fn) == kind


def test_names():
    assert colour.name_of(plain) == f"{__name__}.plain"
    assert colour.name_of(functools.partial(plain)) == f"{__name__}.plain"
    assert colour.name_of(Callable()) == f"{__name__}.Callable"
    assert colour.name_of(Callable().method) == f"{__name__}.Callable.method"
    assert colour.name_of(len) == "len"


def test_an_awaitable_that_is_no_coroutine_is_found_too():
    class Awaitable:
        def __await__(self):
            yield

    with pytest.raises(TypeError, match=r"returned an awaitable \(Awaitable\).*as_async"):
        colour.refusing_awaitables(Awaitable)()


def test_the_name_of_a_method_of_a_builtin_class() -> None:
    assert colour.name_of(str.upper) == "str.upper"
    assert colour.name_of(len) == "len"


def test_as_async_of_what_a_call_gave_says_so_at_once() -> None:
    async def fetch() -> int:
        return 1

    for given in (fetch(), 5):  # a coroutine that is left lying about would be a warning, and those are errors here
        with pytest.raises(TypeError, match=r"as_async takes a function .*leave its call"):
            colour.as_async(given)  # type: ignore[arg-type]


class Future:
    def __await__(self):
        yield


def test_a_function_that_returns_an_awaitable_only_sometimes_is_refused_then():
    results = iter([1, 2, Future(), "text", Future(), 3])
    call = colour.refusing_awaitables(lambda: next(results))
    assert [call(), call()] == [1, 2]
    with pytest.raises(TypeError, match="returned an awaitable"):
        call()
    assert call() == "text"
    with pytest.raises(TypeError, match="returned an awaitable"):
        call()
    assert call() == 3

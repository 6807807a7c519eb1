"""Subscribing and unsubscribing: by identity, and no code of a handler runs while the lock is held."""

from __future__ import annotations

from typing import Any

import pytest

from asyncguard._runtime import dispatch


class Handler:
    """Its own `==` says nothing but that it ran."""

    def __call__(self, _event: object) -> None: ...

    def __eq__(self, other: object) -> bool:
        raise AssertionError("code of the user ran in the lock")

    __hash__ = None  # type: ignore[assignment]

    def __getattr__(self, name: str) -> Any:
        assert not dispatch._lock.locked(), "code of the user ran in the lock"
        raise AttributeError(name)


def test_handlers_are_told_apart_by_identity() -> None:
    first, second = Handler(), Handler()
    ends = [dispatch.subscribe(each) for each in (first, second, first)]
    assert len(dispatch.handlers) == 3
    ends[1]()
    assert [each is first for each in dispatch.handlers] == [True, True]
    ends[0]()
    ends[2]()
    ends[2]()  # once more does no harm
    assert dispatch.handlers == ()


async def coroutine(_event: object) -> None: ...


def test_an_async_handler_is_refused() -> None:
    with pytest.raises(TypeError, match="the handler must be a plain function, it is not awaited"):
        dispatch.subscribe(coroutine)
    assert dispatch.handlers == ()

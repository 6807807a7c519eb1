"""Callers' code, checked and never run: what may answer instead of the function widens its result."""

from __future__ import annotations

from typing import Any, assert_type

from asyncguard import Pipeline, fallback, guard, retry, timeout, validate_input


@fallback(None)
async def or_none(text: str) -> list[float]:
    return [float(len(text))]


@fallback("unknown")
def or_text(number: int) -> int:
    return number


@fallback([0.0])
async def same_type(text: str) -> list[float]:
    return [float(len(text))]


def from_error(error: Exception, text: str) -> bytes:
    return f"{error} {text}".encode()


async def from_error_async(error: Exception, text: str) -> bytes:
    return f"{error} {text}".encode()


@fallback(from_error)
async def or_handler(text: str) -> str:
    return text


@fallback(from_error_async)
async def or_async_handler(text: str) -> str:
    return text


@validate_input(text=str, fallback=0)
async def checked_or_zero(text: str) -> str:
    return text


@validate_input(text=str, fallback=0)
def checked_or_zero_sync(text: str) -> str:
    return text


@validate_input(text=str, fallback=from_error)
def checked_or_handler(text: str) -> str:
    return text


@validate_input(text=str, fallback=from_error_async)
async def checked_or_async_handler(text: str) -> str:
    return text


@retry
@fallback(None)
@timeout(1)
async def widened_inside_others(text: str) -> int:
    return len(text)


class Store:
    """Methods widen too."""

    @fallback(None)
    async def load(self, key: str) -> bytes:
        return key.encode()

    @fallback(None)
    def load_sync(self, key: str) -> bytes:
        return key.encode()


async def use(store: Store) -> None:
    assert_type(await or_none("a"), list[float] | None)
    assert_type(or_text(1), int | str)
    assert_type(await same_type("a"), list[float])
    assert_type(await or_handler("a"), str | bytes)
    assert_type(await or_async_handler("a"), str | bytes)
    assert_type(await checked_or_zero("a"), str | int)
    assert_type(checked_or_zero_sync("a"), str | int)
    assert_type(checked_or_handler("a"), str | bytes)
    assert_type(await checked_or_async_handler("a"), str | bytes)
    assert_type(await widened_inside_others("a"), int | None)
    assert_type(await store.load("a"), bytes | None)
    assert_type(store.load_sync("a"), bytes | None)


@guard(retry(), fallback(None))
async def in_a_pipeline(text: str) -> int:
    return len(text)


@Pipeline(fallback(None), timeout(1))
async def in_an_explicit_pipeline(text: str) -> int:
    return len(text)


async def a_pipeline_that_holds_a_fallback_does_not_lie() -> None:
    assert_type(await in_a_pipeline("a"), Any)
    assert_type(await in_an_explicit_pipeline("a"), Any)

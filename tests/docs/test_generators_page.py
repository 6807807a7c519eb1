"""The table of docs/reference/generators.md says what the strategies do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import asyncguard
from asyncguard import testing
from asyncguard._strategy import Strategy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "generators.md"
ROW = re.compile(r"^\| `(?P<name>\w+)` \| (?P<asynchronous>\w+) \| (?P<synchronous>\w+) \|", re.MULTILINE)
TABLE = {match["name"]: match for match in ROW.finditer(PAGE.read_text(encoding="utf-8"))}

# How each strategy is made with as little as it needs.
ARGUMENTS: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "adaptive_concurrency": ((), {}),
    "bulkhead": ((2,), {}),
    "cache_items": ((60,), {"over": "texts"}),
    "cache_result": ((60,), {}),
    "chaos": ((0.5,), {"latency": 0.1}),
    "circuit_breaker": ((), {}),
    "fallback": ((None,), {}),
    "hedge": ((), {}),
    "memory_guard": ((), {}),
    "monitor": (("letters",), {}),
    "rate_limit": (("1000/s",), {}),
    "retry": ((), {}),
    "timeout": ((5,), {}),
    "validate_input": ((), {"texts": list}),
}


def make(name: str) -> Any:
    args, kwargs = ARGUMENTS[name]
    return getattr(asyncguard, name)(*args, **kwargs)


async def letters(texts: list[str]) -> AsyncIterator[str]:
    for text in texts:
        yield text


def letters_sync(texts: list[str]) -> Iterator[str]:
    yield from texts


async def collected(items: AsyncIterator[str]) -> list[str]:
    return [item async for item in items]


@pytest.mark.parametrize("name", ARGUMENTS)
def test_async_generators(name: str, backend: Any) -> None:
    strategy = make(name)
    if TABLE[name]["asynchronous"] == "refused":
        with pytest.raises(TypeError, match="generator"):
            strategy(letters)
        return
    assert TABLE[name]["asynchronous"] == "works"
    guarded = strategy(letters)
    assert testing.run(lambda: collected(guarded(["a", "b"])), backend=backend) == ["a", "b"]


@pytest.mark.parametrize("name", ARGUMENTS)
def test_generators(name: str) -> None:
    strategy = make(name)
    if TABLE[name]["synchronous"] == "refused":
        with pytest.raises(TypeError, match="generator"):
            strategy(letters_sync)
        return
    assert TABLE[name]["synchronous"] == "works"
    assert list(strategy(letters_sync)(["a", "b"])) == ["a", "b"]


def test_every_strategy_is_in_the_table() -> None:
    kinds = {each.kind for each in subclasses(Strategy) if "kind" in vars(each)}
    assert kinds == set(TABLE) == set(ARGUMENTS)


def subclasses(cls: type[Any]) -> Iterator[type[Any]]:
    for each in cls.__subclasses__():
        if each.__module__.startswith("asyncguard."):
            yield each
        yield from subclasses(each)

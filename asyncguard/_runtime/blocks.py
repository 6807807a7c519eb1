"""Blocks (`with ...:`) that are used once and decorate nothing."""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING, Generic, Never, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from types import TracebackType

__all__ = ["Block", "block"]

P = ParamSpec("P")
T = TypeVar("T")


class Block(Generic[T]):
    """What stands after `with`, once. Not a decorator: around an `async def` it would be over before the first step."""

    __slots__ = ("_block", "_name", "_used")

    def __init__(self, name: str, block: contextlib.AbstractContextManager[T]) -> None:
        self._name = name
        self._block = block
        self._used = False

    def __enter__(self) -> T:
        if self._used:
            raise RuntimeError(f"a block is entered once: write `with {self._name}(...):` for each block")
        self._used = True
        return self._block.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return self._block.__exit__(kind, error, trace)

    def __call__(self, fn: object) -> Never:
        """Refuse to decorate."""
        raise TypeError(
            f"{self._name} is for a block (`with {self._name}(...):`), got {fn!r}: write the block inside of a function"
        )


def block(make: Callable[P, Generator[T]]) -> Callable[P, Block[T]]:
    """Make a `Block` of a generator function, as `contextlib.contextmanager` makes a block that decorates, too."""
    context = contextlib.contextmanager(make)

    @functools.wraps(make)
    def made(*args: P.args, **kwargs: P.kwargs) -> Block[T]:
        return Block(make.__name__, context(*args, **kwargs))

    return made

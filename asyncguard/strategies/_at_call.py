"""Generator functions that do something at the call, before the first item, and still are generator functions."""

from __future__ import annotations

import types
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any, ClassVar

__all__ = ["AsyncGeneratorAtCall", "AtCall", "GeneratorAtCall"]

Call = Callable[..., Any]


class AtCall:
    """A generator function that does something at the call, before the first item.

    A plain function would no longer be a generator function for `inspect`; this looks like one to it (`inspect` goes
    by the code flags of anything that has the attributes of a function, as it does for Cython).
    """

    __code__: ClassVar[types.CodeType]
    __defaults__: ClassVar[tuple[Any, ...] | None] = None
    __kwdefaults__: ClassVar[dict[str, Any] | None] = None

    def __init__(self, call: Call) -> None:
        self._call = call

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Check, then make the generator."""
        return self._call(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<guarded function {getattr(self, '__qualname__', '?')}>"

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        """Bind as a function does."""
        return self if instance is None else types.MethodType(self, instance)


async def _items_async() -> AsyncGenerator[None, None]:  # pragma: no cover - only its flags are of use
    yield


def _items() -> Generator[None, None, None]:  # pragma: no cover - only its flags are of use
    yield


class AsyncGeneratorAtCall(AtCall):
    """Looks like an async generator function."""

    __code__: ClassVar[types.CodeType] = _items_async.__code__


class GeneratorAtCall(AtCall):
    """Looks like a generator function."""

    __code__: ClassVar[types.CodeType] = _items.__code__

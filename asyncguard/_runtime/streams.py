"""Streams as SDKs return them: a coroutine that returns an async iterator or an async context manager.

With `stream=True` on the pipeline the call is not over when the coroutine returns: its permits, deadline and span last
until the stream is closed. The stream comes back in a thin forwarding proxy that says when that is.
"""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING, Any

from asyncguard._runtime import holds

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from asyncguard._runtime.generators import Bracket


def opening(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Return coroutine function `fn` with the streams that it returns in a proxy; other results stay what they are."""

    async def opened(*args: Any, **kwargs: Any) -> Any:
        result = await fn(*args, **kwargs)
        return Stream(result) if hasattr(result, "__aiter__") or hasattr(result, "__aenter__") else result

    return functools.wraps(fn)(opened) if hasattr(fn, "__name__") else opened


class Stream:
    """An open stream that forwards everything to the user's own, and holds the permits of its call until it is over.

    It is over when it is exhausted, fails, is closed (`aclose`, `close`, the end of `async with`), or is collected.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._items: Any = None
        self._hold = holds.acquire()
        self._brackets: list[Bracket] = []

    def surround(self, bracket: Bracket) -> None:
        """Surround the computation of each item, from the inside out."""
        self._brackets.append(bracket)

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> Any:
        if self._items is None:
            self._items = self._stream.__aiter__()
        try:
            with contextlib.ExitStack() as around:
                for bracket in reversed(self._brackets):
                    around.enter_context(bracket.step())
                return await self._items.__anext__()
        except StopAsyncIteration:
            self._over(None)
            raise
        except GeneratorExit as error:  # whoever waited is collected: nothing can be awaited any more
            self._over(error)
            raise
        except BaseException as error:
            self._over(error)
            await self._close_quietly()
            raise

    async def __aenter__(self) -> Any:
        try:
            entered = await self._stream.__aenter__()
        except BaseException as error:
            self._over(error)
            raise
        if entered is not self._stream:
            self._items, self._stream = None, _Entered(entered, self._stream)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Any:
        try:
            return await self._stream.__aexit__(kind, error, trace)
        finally:
            self._over(error)

    async def aclose(self) -> None:
        """Close the user's stream and end the call."""
        try:
            await self._close()
        finally:
            self._over(None)

    async def close(self) -> None:
        """Do the same; most SDKs call it so."""
        await self.aclose()

    async def _close(self) -> None:
        """Close the iterator, and the stream behind it: `async for` in an SDK's `__aiter__` does not close that."""
        items, stream = self._items, self._stream
        try:
            if items is not None and items is not stream:
                await _closed(items)
        finally:
            await _closed(stream)

    async def _close_quietly(self) -> None:
        with contextlib.suppress(Exception):  # the error that ended the stream is the one that leaves
            await self._close()

    def _over(self, error: BaseException | None) -> None:
        brackets, self._brackets = self._brackets, []
        for bracket in brackets:
            bracket.close(error)
        if self._hold is not None:
            self._hold.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __del__(self) -> None:
        hold = self.__dict__.get("_hold")
        if hold is not None:
            hold.close()


async def _closed(thing: Any) -> None:
    for name in ("aclose", "close"):
        close = getattr(thing, name, None)
        if close is not None:
            closing = close()
            if hasattr(closing, "__await__"):
                await closing
            return


class _Entered:
    """What `async with` gave, closed by what it was given by."""

    def __init__(self, entered: Any, manager: Any) -> None:
        self._entered = entered
        self._manager = manager

    def __aiter__(self) -> Any:
        return self._entered.__aiter__()

    def __aexit__(self, kind: Any, error: Any, trace: Any) -> Any:
        return self._manager.__aexit__(kind, error, trace)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._entered, name)

"""Drivers of generators: a bracket is opened around the whole iteration, and may surround each single item.

`send`, `throw` and `close` reach the user's generator as they came. Nothing is set across a `yield`.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Generator


class Bracket(Protocol):
    """What surrounds an iteration."""

    def step(self) -> contextlib.AbstractContextManager[object]:
        """Surround the computation of one item."""
        ...

    def close(self, error: BaseException | None) -> None:
        """End it, once: with None after the last item or an early `close`, else with the error."""
        ...


Args = tuple[Any, ...]
Kwargs = dict[str, Any]


def bracket_async(
    opened: Callable[[Args, Kwargs], Awaitable[Bracket]], fn: Callable[..., AsyncGenerator[Any, Any]]
) -> Callable[..., AsyncGenerator[Any, Any]]:
    """Return async generator function `fn` with a bracket around each iteration."""

    async def guarded(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        bracket = await opened(args, kwargs)
        items: Any = None
        try:
            items = fn(*args, **kwargs)
            send: Callable[[], Awaitable[Any]] = items.__anext__
            while True:
                try:
                    with bracket.step():
                        item = await send()
                except StopAsyncIteration:
                    break
                try:
                    sent = yield item
                except GeneratorExit:
                    await items.aclose()
                    raise
                except BaseException as error:  # noqa: BLE001 - passed on to the user's generator
                    send = _throw(items, error)
                else:
                    send = items.__anext__ if sent is None else _send(items, sent)
        except GeneratorExit:
            bracket.close(None)
            raise
        except BaseException as error:
            bracket.close(error)
            if items is not None:
                await items.aclose()
            raise
        bracket.close(None)

    return guarded


def _send(items: AsyncGenerator[Any, Any], value: Any) -> Callable[[], Awaitable[Any]]:
    return lambda: items.asend(value)


def _throw(items: AsyncGenerator[Any, Any], error: BaseException) -> Callable[[], Awaitable[Any]]:
    return lambda: items.athrow(error)


def bracket_sync(
    opened: Callable[[Args, Kwargs], Bracket], fn: Callable[..., Generator[Any, Any, Any]]
) -> Callable[..., Generator[Any, Any, Any]]:
    """Return generator function `fn` with a bracket around each iteration."""

    def guarded(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        bracket = opened(args, kwargs)
        items: Any = None
        result: Any = None
        try:
            items = fn(*args, **kwargs)
            send: Callable[[], Any] = items.__next__
            while True:
                try:
                    with bracket.step():
                        item = send()
                except StopIteration as stop:
                    result = stop.value
                    break
                try:
                    sent = yield item
                except GeneratorExit:
                    items.close()
                    raise
                except BaseException as error:  # noqa: BLE001 - passed on to the user's generator
                    send = _throw_sync(items, error)
                else:
                    send = items.__next__ if sent is None else _send_sync(items, sent)
        except GeneratorExit:
            bracket.close(None)
            raise
        except BaseException as error:
            bracket.close(error)
            if items is not None:
                items.close()
            raise
        bracket.close(None)
        return result

    return guarded


def _send_sync(items: Generator[Any, Any, Any], value: Any) -> Callable[[], Any]:
    return lambda: items.send(value)


def _throw_sync(items: Generator[Any, Any, Any], error: BaseException) -> Callable[[], Any]:
    return lambda: items.throw(error)

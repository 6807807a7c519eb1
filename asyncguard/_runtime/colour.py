"""What colour a callable has, decided once, at decoration: async, sync, async generator or generator."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

P = ParamSpec("P")
T = TypeVar("T")
Kind = Literal["async", "sync", "async generator", "generator"]


def kind_of(fn: Callable[..., Any]) -> Kind:
    """Return the colour of `fn`: a function, method, partial, or object with `__call__`."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    if not inspect.isroutine(fn) and hasattr(type(fn), "__call__"):  # noqa: B004 - the class's own __call__ decides
        return _kind(fn) or _kind(type(fn).__call__) or "sync"
    return _kind(fn) or "sync"


def _kind(fn: Callable[..., Any]) -> Kind | None:
    if inspect.iscoroutinefunction(fn):
        return "async"
    if inspect.isasyncgenfunction(fn):
        return "async generator"
    if inspect.isgeneratorfunction(fn):
        return "generator"
    return None


def name_of(fn: Callable[..., Any]) -> str:
    """Return `module.qualname` of a callable, also of partials and callable objects."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    named: Any = fn if hasattr(fn, "__qualname__") else type(fn)
    module: object = getattr(named, "__module__", None)  # a method of a builtin class (`str.upper`) has none
    return f"{module}.{named.__qualname__}" if module and module != "builtins" else str(named.__qualname__)


def as_async(fn: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Make a coroutine function of a plain function that returns an awaitable.

    Many clients hide their coroutines: `AsyncOpenAI().chat.completions.create`, `redis.asyncio.Redis.get` and
    `aiohttp.ClientSession.get` are plain functions. A decorator decides once whether a function is async, so such a
    function is wrapped first: `retry()(as_async(client.embeddings.create))`. Raises TypeError for what is no function,
    such as the coroutine that calling it gave.
    """
    if not callable(fn):
        raise _not_a_function(fn)
    call = awaiting(fn)
    return functools.wraps(fn)(call) if hasattr(fn, "__name__") else call


def _not_a_function(given: object) -> TypeError:
    if inspect.iscoroutine(given):
        given.close()  # else Python warns that it was never awaited
    return TypeError(f"as_async takes a function that returns an awaitable, got {given!r}; leave its call to us")


def awaiting(fn: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Return `as_async(fn)` without its looks, for where nobody sees it."""

    async def call(*args: P.args, **kwargs: P.kwargs) -> T:
        result = fn(*args, **kwargs)
        if not inspect.isawaitable(result):
            raise _not_awaitable(fn, result)
        return await result

    return call


def _not_awaitable(fn: Callable[..., Any], result: object) -> TypeError:
    return TypeError(
        f"{name_of(fn)} returned {type(result).__name__}, which cannot be awaited; "
        "guard a sync function as it is, or call it with guard(...).call_sync(fn, ...)"
    )


def refusing_awaitables(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Return sync `fn` with a check that it does not return an awaitable: no guard would see what it does."""
    plain: type | None = None  # the class of the last result, which cannot be awaited: looking costs as much as a guard

    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal plain
        result: object = fn(*args, **kwargs)
        kind = type(result)
        if kind is not plain:
            if hasattr(kind, "__await__"):  # as `await` looks it up: a proxy may raise for any attribute
                raise awaitable_from_sync(fn, result)
            plain = kind
        return result

    return call


def awaitable_from_sync(fn: Callable[..., Any], result: Any) -> TypeError:
    """Return the error for a plain function that returned an awaitable."""
    close = getattr(result, "close", None)
    if inspect.iscoroutine(result) and close is not None:
        close()  # else Python warns that it was never awaited
    name = name_of(fn)
    return TypeError(
        f"{name} is a plain function that returned an awaitable ({type(result).__name__}), so it was guarded as a sync "
        f"function and nothing of the real call would be: decorate as_async({name.rpartition('.')[2]}), or call it "
        "through a pipeline: await guard(...).call(fn, ...)"
    )

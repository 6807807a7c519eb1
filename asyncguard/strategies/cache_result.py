"""`cache_result`: the result of a call is kept for a while, and computed once for all who ask for it meanwhile.

A hit takes no lock and no await. On a miss the function runs in a flight of its own: whoever asks for the same key
waits for it as an equal, one that is cancelled leaves, and the last one to leave cancels the work.
Sources: RFC 5861 (stale-while-revalidate, stale-if-error); golang.org/x/sync/singleflight for the idea of a flight.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar

from asyncguard._runtime import cache_switch, dispatch
from asyncguard.strategies._cache import calls, observe
from asyncguard.strategies._cache.bound import Bound
from asyncguard.strategies._cache.calls import Call
from asyncguard.strategies._cache.handles import Cached
from asyncguard.strategies._cache.look import look
from asyncguard.strategies._cache.options import CacheOptions
from asyncguard.strategies._cache.strategy import CacheInfo, CacheStrategy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import AbstractContextManager
    from contextvars import ContextVar

    from asyncguard._modes import Mode
    from asyncguard._pipeline import Site
    from asyncguard.events import Event
    from asyncguard.stores import AiocacheStore
    from asyncguard.strategies._cache.options import Duration, Isolation, Key, OnAbandon, Tags, Ttl

    Wrapped = Callable[..., Any]

__all__ = ["CacheInfo", "CacheResult", "Cached", "cache_bypass", "cache_refresh", "cache_result"]


class CacheResult(CacheStrategy):
    """A cache of whole results."""

    kind: ClassVar[str] = "cache_result"
    short_cut: ClassVar[bool] = True

    def wrap_async(self, fn: Wrapped, site: Site) -> Wrapped:
        """Cache a coroutine function."""
        strategy = self
        bound = Bound(self, fn, site, is_async=True)

        async def cached(*args: Any, **kwargs: Any) -> Any:
            cell = bound.quick
            if (
                cell is not None
                and len(args) == 1
                and not (kwargs or strategy.special or dispatch.handlers)
                and (not cache_switch.used or cache_switch.current() is None)
            ):
                argument = args[0]
                if type(argument) is str or type(argument) is int:
                    entry = cell.entries.get(argument)
                    if entry is not None and monotonic() < entry.soft:
                        entry.used = True
                        cell.hits += 1
                        return entry.value if entry.copy is None else entry.copy(entry.value)
            found = look(bound, args, kwargs)
            return found if type(found) is not Call else await made(found)

        return cached

    def wrap_sync(self, fn: Wrapped, site: Site) -> Wrapped:
        """Cache a plain function."""
        strategy = self
        bound = Bound(self, fn, site, is_async=False)

        def cached(*args: Any, **kwargs: Any) -> Any:
            cell = bound.quick
            if (
                cell is not None
                and len(args) == 1
                and not (kwargs or strategy.special or dispatch.handlers)
                and (not cache_switch.used or cache_switch.current() is None)
            ):
                argument = args[0]
                if type(argument) is str or type(argument) is int:
                    entry = cell.entries.get(argument)
                    if entry is not None and monotonic() < entry.soft:
                        entry.used = True
                        cell.hits += 1
                        return entry.value if entry.copy is None else entry.copy(entry.value)
            found = look(bound, args, kwargs)
            return found if type(found) is not Call else made_sync(found)

        return cached


async def made(call: Call) -> Any:
    """Make a call that the cache could not answer."""
    if call.how == "plain":
        return await call.bound.fn(*call.args, **call.kwargs)
    if call.how == "observe":
        look_up = observe.look(call)
        value = await call.bound.fn(*call.args, **call.kwargs)
        observe.store(call, look_up, value)
        return value
    return await calls.fetch(call)


def made_sync(call: Call) -> Any:
    """Make a call of a plain function that the cache could not answer."""
    if call.how == "plain":
        return call.bound.fn(*call.args, **call.kwargs)
    if call.how == "observe":
        look_up = observe.look(call)
        value = call.bound.fn(*call.args, **call.kwargs)
        observe.store(call, look_up, value)
        return value
    return calls.fetch_sync(call)


def cache_result(
    ttl: Ttl,
    *,
    max_entries: int = 1024,
    key: Key | None = None,
    stale_while_revalidate: Duration = 0,
    stale_if_error: Duration = 0,
    max_bytes: int | None = None,
    negative_ttl: Duration | None = None,
    cache_if: Callable[[Any], object] | None = None,
    refresh_at: float | None = None,
    ignore: str | Iterable[str] = (),
    vary_on: ContextVar[Any] | Iterable[ContextVar[Any]] = (),
    version: str | None = None,
    tags: Tags = (),
    isolation: Isolation = "auto",
    on_abandon: OnAbandon = "cancel",
    store: AiocacheStore | None = None,
    name: str | None = None,
    mode: Mode = "enforce",
    on_event: Callable[[Event], object] | None = None,
) -> CacheResult:
    """Keep results for `ttl` and compute each only once at a time.

    `ttl` (seconds, a `timedelta`, or a function of the result that returns one, or None: do not store) has no default:
    an unlimited cache is a leak. `max_entries` bounds the cache over all functions that share it; a method has a cache
    per object. `key` is a function of the arguments that returns what the result depends on.

    Advanced, freshness: `stale_while_revalidate` (so long after its end a value still answers while it is refreshed),
    `stale_if_error` (so long it answers if computing fails), `refresh_at` (fraction of `ttl` after which a hit
    refreshes ahead), `negative_ttl` (for None and empty results), `cache_if` (a function of the result: store it?).
    Keys: `ignore` (parameters), `vary_on` (context variables), `version` (of the model or prompt), `tags` (names, or a
    function of the arguments, for `invalidate_tag`). Values: `max_bytes`, `isolation` ("auto", "share", "copy").
    `on_abandon`: "cancel" the work when nobody waits any more, or "finish" and store it.

    Raises ValueError or TypeError for a wrong option, and TypeError naming the parameter where an argument cannot be
    part of a key.
    """
    return CacheResult(
        CacheOptions(
            ttl=ttl,
            max_entries=max_entries,
            key=key,
            stale_while_revalidate=stale_while_revalidate,
            stale_if_error=stale_if_error,
            max_bytes=max_bytes,
            negative_ttl=negative_ttl,
            cache_if=cache_if,
            refresh_at=refresh_at,
            ignore=ignore,
            vary_on=vary_on,
            version=version,
            tags=tags,
            isolation=isolation,
            on_abandon=on_abandon,
            store=store,
            name=name,
            mode=mode,
            on_event=on_event,
        )
    )


def cache_bypass() -> AbstractContextManager[None]:
    """Call the functions themselves within the block: caches are neither read nor written."""
    return cache_switch.switched("bypass")


def cache_refresh() -> AbstractContextManager[None]:
    """Compute anew within the block: caches are not read, but written."""
    return cache_switch.switched("refresh")

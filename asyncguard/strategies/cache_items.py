"""`cache_items`: a function from a list to a list, cached and deduplicated item by item.

Of the items of a call, those in the cache are taken from there, those that another call computes now are waited for,
and the rest is computed in one call (or chunks of `max_batch`, one after the other), each item once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, cast

from asyncguard._machines.binder import signature_of
from asyncguard._runtime import cache_switch
from asyncguard.strategies._cache.bound import Bound
from asyncguard.strategies._cache.handles import Cached, CachedFunction, shown
from asyncguard.strategies._cache.items_batch import Batch
from asyncguard.strategies._cache.items_calls import aside, aside_sync, fetch, fetch_sync, is_aside, look
from asyncguard.strategies._cache.options import CacheItemsOptions
from asyncguard.strategies._cache.strategy import CacheStrategy

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping
    from contextvars import ContextVar

    from asyncguard._machines.entries import Entry
    from asyncguard._modes import Mode
    from asyncguard._pipeline import Site
    from asyncguard.events import Event
    from asyncguard.stores import AiocacheStore
    from asyncguard.strategies._cache.options import Duration, Isolation, Key, OnAbandon, Tags, Ttl
    from asyncguard.strategies._cache.place import Args, Kwargs

    Wrapped = Callable[..., Any]

__all__ = ["CacheItems", "cache_items"]


class CachedItems(CachedFunction):
    """The handle to one function that is cached item by item. Arguments are those of a call, with the items."""

    def get(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the cache has for each item (a `Cached`), None where nothing; nothing is computed.

        To be awaited if there is a store.
        """
        batch = self._batch(args, kwargs)
        return _found(batch, batch.cell.entries) if batch.terms.store is None else self._get_items(batch)

    async def _get_items(self, batch: Batch) -> list[Cached | None]:
        from asyncguard.strategies._cache import store_handles

        return _found(batch, {**await store_handles.entries_of(batch), **batch.cell.entries})

    def invalidate(self, *args: Any, **kwargs: Any) -> Any:
        """Forget the items; true if any of them was there. What is being computed of them now is not stored.

        To be awaited if there is a store.
        """
        batch = self._batch(args, kwargs)
        gone = batch.cell.drop(batch.items)
        if batch.terms.store is None:
            return gone
        from asyncguard.strategies._cache import store_handles

        return store_handles.forget_items(batch, there=gone)

    def refresh(self, *args: Any, **kwargs: Any) -> Any:
        """Compute all items anew and store them; to be awaited for an async function."""
        batch = self._batch(args, kwargs)
        missing = list(batch.items)
        if not missing:
            return batch.bound.fn(*batch.args, **kwargs)
        return fetch(batch, missing, anew=True) if batch.bound.is_async else fetch_sync(batch, missing, anew=True)

    def _batch(self, args: Args, kwargs: Kwargs) -> Batch:
        return Batch(self._bound, (*self._prefix, *args), kwargs)


def _found(batch: Batch, entries: Mapping[Hashable, Entry]) -> list[Cached | None]:
    now = batch.core.now()
    rows = [entries.get(key) for key in batch.keys]
    return [None if row is None else shown(row, now) for row in rows]


class CacheItems(CacheStrategy):
    """A cache of the items of results."""

    kind: ClassVar[str] = "cache_items"
    handle: ClassVar[type[CachedFunction]] = CachedItems

    def wrap_async(self, fn: Wrapped, site: Site) -> Wrapped:
        """Cache a coroutine function item by item."""
        bound = self._bound(fn, site, is_async=True)

        async def cached(*args: Any, **kwargs: Any) -> Any:
            if is_aside(bound):
                return await aside(bound, args, kwargs)
            batch = Batch(bound, args, kwargs)
            if not batch.keys:
                return await fn(*args, **kwargs)
            missing = list(batch.items) if cache_switch.current() else look(batch)
            if missing:
                return await fetch(batch, missing, anew=cache_switch.current() is not None)
            return batch.result()

        return cached

    def wrap_sync(self, fn: Wrapped, site: Site) -> Wrapped:
        """Cache a plain function item by item."""
        bound = self._bound(fn, site, is_async=False)

        def cached(*args: Any, **kwargs: Any) -> Any:
            if is_aside(bound):
                return aside_sync(bound, args, kwargs)
            batch = Batch(bound, args, kwargs)
            if not batch.keys:
                return fn(*args, **kwargs)
            missing = list(batch.items) if cache_switch.current() else look(batch)
            if missing:
                return fetch_sync(batch, missing, anew=cache_switch.current() is not None)
            return batch.result()

        return cached

    def _bound(self, fn: Wrapped, site: Site, *, is_async: bool) -> Bound:
        signature = signature_of(site.function)
        parameters = () if signature is None else signature.parameters.values()
        names = [each.name for each in parameters if each.kind not in {each.VAR_POSITIONAL, each.VAR_KEYWORD}]
        over = cast("CacheItemsOptions", self.options).over
        if over not in names:
            known = ", ".join(names) or "none"
            raise ValueError(f"over must name a parameter of {site.name} that can take a list ({known}), got {over!r}")
        return Bound(self, fn, site, is_async=is_async)


def cache_items(
    ttl: Ttl,
    *,
    over: str = "texts",
    max_batch: int | None = None,
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
) -> CacheItems:
    """Keep each item of a result for `ttl`; the function takes a list `over` and returns one row for each item.

    The result may be a list, a tuple, an array or a tensor of the same length; it comes back as the function returns
    it. `max_batch` bounds how many items one call gets; chunks are called one after the other, and one that fails
    fails its own items only. The other arguments belong to the key of each item.

    All other options are those of `cache_result` and are about one item: `key`, `cache_if`, a callable `ttl` and
    callable `tags` are given one item or its row, `max_entries` counts items.

    Raises ValueError or TypeError for a wrong option, ValueError if the function returns another number of rows.
    """
    return CacheItems(
        CacheItemsOptions(
            ttl=ttl,
            over=over,
            max_batch=max_batch,
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

"""The handle to one function of a cache, and what it shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from asyncguard._machines.binder import signature_of
from asyncguard.strategies._cache import calls
from asyncguard.strategies._cache.calls import Call

if TYPE_CHECKING:
    from asyncguard._machines.entries import Entry
    from asyncguard.strategies._cache.bound import Bound
    from asyncguard.strategies._cache.place import Args


@dataclass(frozen=True, slots=True)
class Cached:
    """A value found in the cache, its age in seconds, and whether it is past its time to live."""

    value: Any
    age: float
    stale: bool


class CachedFunction:
    """The handle to one function of a cache."""

    def __init__(self, bound: Bound, prefix: Args) -> None:
        self._bound = bound
        self._prefix = prefix

    def get(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the cache has for a call (a `Cached`), None if nothing; nothing is computed.

        To be awaited if there is a store.
        """
        call = self._call(args, kwargs)
        entry = call.cell.entries.get(call.key)
        found = None if entry is None else shown(entry, call.core.now())
        return found if call.terms.store is None else self._get_stored(call, found)

    async def _get_stored(self, call: Call, found: Cached | None) -> Cached | None:
        from asyncguard.strategies._cache import store_handles

        entry = None if found is not None else await store_handles.entry_of(call)
        return found if entry is None else shown(entry, call.core.now())

    def invalidate(self, *args: Any, **kwargs: Any) -> Any:
        """Forget the value of a call; true if there was one. What is being computed for it now is not stored.

        To be awaited if there is a store.
        """
        call = self._call(args, kwargs)
        gone = call.cell.drop((call.key,))
        if call.terms.store is None:
            return gone
        from asyncguard.strategies._cache import store_handles

        return store_handles.forget(call, there=gone)

    def refresh(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the value of a call anew and store it; to be awaited for an async function."""
        call = self._call(args, kwargs)
        return calls.fetch(call) if self._bound.is_async else calls.fetch_sync(call)

    def _call(self, args: Args, kwargs: dict[str, Any]) -> Call:
        bound = self._bound
        core, terms, place = bound.forces()
        full = self._full(args, kwargs)
        return Call(bound, (*self._prefix, *args), kwargs, "anew").at(core, terms, *place.locate(full, kwargs))

    def _full(self, args: Args, kwargs: Mapping[str, Any]) -> Args:
        """Return all arguments, checked: for those that no call can have, "nothing is cached" would hide a mistake."""
        full = self._bound.full((*self._prefix, *args))
        signature = signature_of(self._bound.function)
        if signature is None:
            return full
        try:
            signature.bind(*full, **kwargs)
        except TypeError as error:
            message = f"{self._bound.name}: {error} (for a method its object comes first, or use .of(obj.method))"
            raise TypeError(message) from None
        return full


def shown(entry: Entry, now: float) -> Cached | None:
    """Return an entry as the handles show it, None if it is too old to answer."""
    return None if now >= entry.stale else Cached(entry.give(), now - entry.created, stale=now >= entry.fresh)

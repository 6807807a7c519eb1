"""mode="observe": what the cache would have answered, without changing a call, not even by an error of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from asyncguard import events
from asyncguard._machines.store import Lease
from asyncguard.strategies import _cache_values as values

if TYPE_CHECKING:
    from asyncguard.strategies._cache_calls import Call


def look(call: Call) -> bool:
    """Look the call up and tell what would have happened; true if its value is to be stored."""
    bound = call.bound
    with _harmless(call, "look up"):
        core, options, place = bound.forces()
        cell, key = place.locate(bound.full(call.args), call.kwargs)
        call.at(core, replace(options, isolation="share"), cell, key)
        call.started = now = core.now()
        entry = cell.entries.get(key)
        if entry is not None and now < entry.stale:
            entry.used = True
            cell.hits += 1
            if bound.heard():
                bound.emit(events.CacheHit, age=now - entry.created, stale=now >= entry.fresh)
            return False
        cell.misses += 1
        bound.told(events.CacheMissed)
        return True
    return False


def store(call: Call, wanted: bool, value: Any) -> None:  # noqa: FBT001 - what `look` returned
    """Keep the value, so that the next look-up can tell."""
    if wanted and not values.is_used_once(value):
        with _harmless(call, "store"):
            call.bound.accept(call, value, Lease())


@contextlib.contextmanager
def _harmless(call: Call, operation: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # noqa: BLE001 - observing must not change a call
        call.bound.emit(events.CacheErrored, operation=operation, error=f"{type(error).__name__}: {error}")

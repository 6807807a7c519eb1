"""mode="observe": what the cache would have answered, without changing a call, not even by an error of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from asyncguard import events
from asyncguard._machines import shape
from asyncguard._machines.store import Lease
from asyncguard._runtime import cache_switch
from asyncguard.strategies._cache import values
from asyncguard.strategies._cache.items_batch import Batch
from asyncguard.strategies._cache.items_work import BatchWork
from asyncguard.strategies._cache.look import hit
from asyncguard.strategies._cache.options import Terms
from asyncguard.strategies._cache.work import accept

if TYPE_CHECKING:
    from asyncguard.strategies._cache.bound import Bound
    from asyncguard.strategies._cache.calls import Call
    from asyncguard.strategies._cache.place import Args, Kwargs


def look(call: Call) -> bool:
    """Look the call up and tell what would have happened; true if its value is to be stored."""
    bound = call.bound
    with _harmless(bound, "look up"):
        core, terms, place = bound.forces()
        cell, key = place.locate(bound.full(call.args), call.kwargs)
        call.at(core, Terms(replace(terms.options, isolation="share")), cell, key)
        call.started = now = core.now()
        entry = cell.entries.get(key)
        if entry is not None and now < entry.stale:
            hit(bound, cell, entry, now)
            return False
        cell.misses += 1
        bound.told(events.CacheMissed)
        return True
    return False


def store(call: Call, wanted: bool, value: Any) -> None:  # noqa: FBT001 - what `look` returned
    """Keep the value, so that the next look-up can tell."""
    if wanted and not values.is_used_once(value):
        with _harmless(call.bound, "store"):
            accept(call, value, Lease())


# --- item by item -----------------------------------------------------------------------------------------------------


def look_items(bound: Bound, args: Args, kwargs: Kwargs) -> Batch | None:
    """Look the items up and tell what would have happened; None if nothing is to be stored."""
    if cache_switch.current() == "bypass" or bound.strategy.mode_at(bound.site) != "observe":
        return None
    batch = None
    with _harmless(bound, "look up"):
        batch = Batch(bound, args, kwargs)
        now, entries = batch.core.now(), batch.cell.entries
        found = [key for key in batch.items if key in entries and now < entries[key].stale]
        missed = len(batch.items) - len(found)
        batch.cell.hits += len(found)
        batch.cell.misses += missed
        if found and bound.heard():
            bound.emit(events.CacheHit, age=now - min(entries[key].created for key in found), items=len(found))
        bound.told_items(events.CacheMissed, missed)
    return batch


def store_items(batch: Batch | None, result: Any) -> None:
    """Keep the rows, so that the next look-up can tell."""
    if batch is not None and batch.keys:
        with _harmless(batch.bound, "store"):
            BatchWork(batch, ()).keep(result)


@contextlib.contextmanager
def _harmless(bound: Bound, operation: str) -> Generator[None]:
    try:
        yield
    except Exception as error:  # noqa: BLE001 - observing must not change a call
        bound.emit(events.CacheErrored, operation=operation, error=f"{type(error).__name__}: {shape.message(error)}")

"""The look-up: from a call to a value at once, or to a `Call` that has to be made. It neither locks nor awaits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asyncguard import events
from asyncguard._machines.entries import Entry
from asyncguard._runtime import cache_switch
from asyncguard.strategies._cache.calls import Call, refresh_behind

if TYPE_CHECKING:
    from asyncguard.strategies._cache.bound import Bound
    from asyncguard.strategies._cache.core import Cell
    from asyncguard.strategies._cache.place import Args, Kwargs


def look(bound: Bound, args: Args, kwargs: Kwargs) -> Any:
    """Return the value, or the `Call` that has to be made."""
    strategy = bound.strategy
    if strategy.special or (cache_switch.used and cache_switch.current() is not None):
        return _switched(bound, args, kwargs)
    place = bound.place or bound.resolve()
    cell, key = place.locate(bound.full(args) if bound.prefix else args, kwargs)
    entry = cell.entries.get(key)
    if entry is not None:
        now = strategy.core.now()
        if now < entry.soft:
            entry.used = True
            cell.hits += 1
            if bound.heard():
                bound.emit(events.CacheHit, age=now - entry.created)
            return entry.value if entry.copy is None else entry.copy(entry.value)
    call = Call(bound, args, kwargs, "miss").at(strategy.core, bound.terms, cell, key)
    return call if entry is None else _old(call, entry)


def _switched(bound: Bound, args: Args, kwargs: Kwargs) -> Any:
    """Do the same where something is not as usual: another mode, options or clock, or a block without caches."""
    strategy = bound.strategy
    mode = strategy.mode_at(bound.site) if strategy.special else "enforce"
    switch = cache_switch.current()
    if mode != "enforce" or switch == "bypass":
        return Call(bound, args, kwargs, "observe" if mode == "observe" and switch is None else "plain")
    core, terms, place = bound.forces()
    cell, key = place.locate(bound.full(args), kwargs)
    entry = cell.entries.get(key) if switch is None else None
    call = Call(bound, args, kwargs, "miss" if switch is None else "anew").at(core, terms, cell, key)
    return call if entry is None else _old(call, entry)


def hit(bound: Bound, cell: Cell, entry: Entry, now: float) -> None:
    """Count a hit, spare the entry once, and tell who listens."""
    entry.used = True
    cell.hits += 1
    if bound.heard():
        bound.emit(events.CacheHit, age=now - entry.created, stale=now >= entry.fresh)


def _old(call: Call, entry: Entry) -> Any:
    """Answer with an entry by its age, if it is still good for that."""
    now = call.core.now()
    state = entry.state(now)
    if state == "error" and now >= entry.retry_at:
        call.entry = entry
    if state == "dead" or call.entry is not None:
        return call
    hit(call.bound, call.cell, entry, now)
    if state in {"refresh", "stale"} and now >= entry.retry_at:
        refresh_behind(call, entry)
    return entry.give()

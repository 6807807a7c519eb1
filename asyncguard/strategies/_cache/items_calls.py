"""Calls of a function that is cached item by item: the look-up and the drivers."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, cast

from asyncguard import events
from asyncguard._machines.flight import Flight, Work
from asyncguard._runtime import cache_switch, flights_sync, parking
from asyncguard._runtime import clock as clocks
from asyncguard._runtime import flights as running
from asyncguard.strategies._cache import observe
from asyncguard.strategies._cache.bound import Bound
from asyncguard.strategies._cache.calls import patience
from asyncguard.strategies._cache.items_batch import Batch
from asyncguard.strategies._cache.items_work import BatchWork

if TYPE_CHECKING:
    from asyncguard.strategies._cache.items_rows import Row
    from asyncguard.strategies._cache.place import Args, Kwargs


def look(batch: Batch) -> list[Hashable]:
    """Take what the cache has; return the keys of the rest. What is getting old is refreshed in the background."""
    now, missing, behind = batch.core.now(), list[Hashable](), list[Hashable]()
    entries = cast("dict[Hashable, Row]", batch.cell.entries)
    for key in batch.items:
        row = entries.get(key)
        if row is not None and now < row.soft:
            batch.rows[key] = row
            row.used = True
            continue
        state = "dead" if row is None else row.state(now)
        if row is None or state == "dead" or (state == "error" and now >= row.retry_at):
            missing.append(key)
            if row is not None and state == "error":
                batch.spare[key] = row
            continue
        batch.rows[key] = row
        row.used = True
        if state in {"refresh", "stale"} and now >= row.retry_at:
            behind.append(key)
            batch.spare[key] = row
    _hit(batch, now)
    if behind:
        refresh_items_behind(batch, behind, max(row.took for row in batch.rows.values()))
    return missing


def _hit(batch: Batch, now: float) -> None:
    hits = batch.rows.values()
    batch.cell.hits += len(hits)
    if hits and batch.bound.heard():
        age = now - min(row.created for row in hits)
        stale = any(now >= row.fresh for row in hits)
        batch.bound.emit(events.CacheHit, age=age, stale=stale, items=len(hits))


# --- drivers --------------------------------------------------------------------------------------------------------


async def fetch(batch: Batch, missing: list[Hashable], *, anew: bool = False) -> Any:
    """Get the items that the cache does not have, together with all who ask for some of them."""
    while missing:
        missing = batch.collect(await _flown(batch, missing, anew=anew))
    return batch.result()


async def _flown(batch: Batch, missing: list[Hashable], *, anew: bool) -> dict[Hashable, Flight]:
    """Return the flights of the items, which are over."""
    spot = parking.async_spot()
    work = Work(kept=batch.terms.kept)
    flights, begun = batch.join(missing, spot, work, anew=anew)
    try:
        _tell(batch, flights, begun)
        if begun:
            computation = _work_of(batch, begun, anew=anew)
            running.start(work, computation.run, computation.ended)
    except BaseException as error:  # noqa: BLE001 - whoever listens was interrupted; it is raised again
        batch.give_up(flights, begun, spot, error)
    await running.wait(batch.cell.flights, list(flights.values()), spot)
    return flights


def fetch_sync(batch: Batch, missing: list[Hashable], *, anew: bool = False) -> Any:
    """Do the same in threads: what this call has begun it computes itself, then it waits for the others."""
    anew = anew or clocks.thread_runs_loop()  # waiting would block the loop
    while missing:
        missing = batch.collect(_flown_sync(batch, missing, anew=anew))
    return batch.result()


def _flown_sync(batch: Batch, missing: list[Hashable], *, anew: bool) -> dict[Hashable, Flight]:
    spot = parking.ThreadSpot()
    work = Work(kept=batch.terms.kept)
    flights, begun = batch.join(missing, spot, work, anew=anew)
    try:
        if begun:
            computation = BatchWork(batch, begun)

            def run() -> None:
                _tell(batch, flights, begun)  # in the context of the work: see CallWork
                computation.run_sync()

            flights_sync.lead(work, run, computation.ended)
        else:
            _tell(batch, flights, begun)
    except BaseException as error:  # noqa: BLE001 - it is raised again
        batch.give_up(flights, begun, spot, error)
    batch.bound.wait(batch.cell.flights, list(flights.values()), spot)
    return flights


def _work_of(batch: Batch, begun: list[Flight], *, background: bool = False, anew: bool = False) -> BatchWork:
    if batch.terms.store is None:
        return BatchWork(batch, begun, background=background)
    from asyncguard.strategies._cache.store_work import StoredBatchWork

    return StoredBatchWork(batch, begun, background=background, anew=anew)


def _tell(batch: Batch, flights: dict[Hashable, Flight], begun: list[Flight]) -> None:
    """Count what is computed and what is waited for."""
    joined = len(flights) - len(begun)
    batch.cell.misses += len(begun)
    batch.cell.joined += joined
    if batch.terms.store is None:
        batch.bound.told_items(events.CacheMissed, len(begun))
    batch.bound.told_items(events.CacheJoined, joined)


def refresh_items_behind(batch: Batch, keys: list[Hashable], took: float) -> None:
    """Refresh items in the background, in one work, unless they are being computed already."""
    work = Work(kept=True)
    _, begun = batch.join(keys, None, work, anew=False)
    if not begun:
        return
    computation = _work_of(batch, begun, background=True)
    if batch.bound.is_async:
        running.start(work, computation.run, computation.ended, patience(took))
        batch.bound.strategy.remember(work)
    else:
        batch.core.background.submit(work, computation.run_sync, computation.ended, patience(took))


# --- leaving the cache aside ------------------------------------------------------------------------------------------


def is_aside(bound: Bound) -> bool:
    """Tell whether the call is made without the cache deciding anything."""
    special = bound.strategy.special
    return cache_switch.current() == "bypass" or bool(special and bound.strategy.mode_at(bound.site) != "enforce")


async def aside(bound: Bound, args: Args, kwargs: Kwargs) -> Any:
    """Make the call as it is; where the cache only observes, tell what it would have had."""
    seen = observe.look_items(bound, args, kwargs)
    result = await bound.fn(*args, **kwargs)
    observe.store_items(seen, result)
    return result


def aside_sync(bound: Bound, args: Args, kwargs: Kwargs) -> Any:
    """Do the same for a plain function."""
    seen = observe.look_items(bound, args, kwargs)
    result = bound.fn(*args, **kwargs)
    observe.store_items(seen, result)
    return result

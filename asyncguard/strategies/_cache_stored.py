"""The handles to a cache with a store: the same questions, to be awaited."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from asyncguard._machines.entries import Entry
from asyncguard._machines.flight import Flight, Work
from asyncguard.strategies import _cache_core as cores
from asyncguard.strategies._cache_slots import Slot
from asyncguard.strategies._cache_tier import Tier

if TYPE_CHECKING:
    from asyncguard.strategies._cache_batch import Batch
    from asyncguard.strategies._cache_calls import Call

T = TypeVar("T")


async def entry_of(call: Call) -> Entry | None:
    """Return what the store has for a call, None if nothing that answers."""
    tier = call.bound.tier(call.terms).on_asyncio()
    found = tier.hash_of(call.args, call.kwargs)
    return (await _entries(call, tier, [tier.slot(found, Flight(call.key, Work(), call.tags))]))[0]


async def entries_of(batch: Batch) -> dict[Any, Entry]:
    """Return what the store has for the items of a call, by key."""
    tier = batch.bound.tier(batch.terms).on_asyncio()
    base, over = tier.hash_of(batch.args, batch.kwargs), batch.options.over
    slots: list[Slot] = []
    for key, item in batch.items.items():
        tags = batch.terms.tags_of((item,), {})
        slots.append(tier.slot(tier.hash_of_item(base, over, item), Flight(key, Work(), tags)))
    entries = await _entries(batch, tier, slots)
    return {slot.flight.key: entry for slot, entry in zip(slots, entries, strict=True) if entry is not None}


async def _entries(at: Call | Batch, tier: Tier, slots: Sequence[Slot]) -> list[Entry | None]:
    looked = await tier.look(at, slots)
    now = at.core.now()
    found = [looked.entries.get(slot) for slot in slots]
    return [None if entry is None or now >= entry.stale else entry for entry in found]


async def forget(call: Call, *, there: bool) -> bool:
    """Remove the value of a call from the store; true if there was one, here or there."""
    tier = call.bound.tier(call.terms).on_asyncio()
    key = tier.key_of(tier.hash_of(call.args, call.kwargs))
    return await _forget(tier, [key], lambda: cores.drop(call.cell, (call.key,))) or there


async def forget_items(batch: Batch, *, there: bool) -> bool:
    """Remove the items of a call from the store; true if any of them was there."""
    tier = batch.bound.tier(batch.terms).on_asyncio()
    base, over = tier.hash_of(batch.args, batch.kwargs), batch.options.over
    keys = [tier.key_of(tier.hash_of_item(base, over, item)) for item in batch.items.values()]
    return (bool(keys) and await _forget(tier, keys, lambda: cores.drop(batch.cell, batch.items))) or there


async def _forget(tier: Tier, keys: Sequence[str], here: Callable[[], object]) -> bool:
    """Remove keys, and once more what is here: until the store had done it, a call could take the value from there."""
    try:
        return bool(await tier.forget(keys))
    finally:
        here()


async def everywhere(
    tiers: Iterable[Tier], here: Callable[[], object], there: Callable[[Tier], Coroutine[Any, Any, None]], answer: T
) -> T:
    """Do something to each function in its store, and once more here (see `_forget`); return the answer."""
    try:
        for tier in tiers:
            await there(tier.on_asyncio())
    finally:
        here()
    return answer

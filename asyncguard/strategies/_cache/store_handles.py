"""The questions of the handles where there is a store: they have to be awaited."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Hashable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from asyncguard._machines.entries import Entry
from asyncguard._machines.flight import Flight, Work
from asyncguard.strategies._cache.store_names import Slot
from asyncguard.strategies._cache.store_tier import Tier

if TYPE_CHECKING:
    from asyncguard.strategies._cache.calls import Call
    from asyncguard.strategies._cache.items_batch import Batch

T = TypeVar("T")


async def entry_of(call: Call) -> Entry | None:
    """Return what the store has for a call, None if nothing that answers."""
    tier = call.bound.tier(call.terms).on_asyncio()
    slot = tier.names.slot(call, Flight(call.key, Work(), call.tags))
    return (await _found(call, tier, [slot])).get(call.key)


async def entries_of(batch: Batch) -> dict[Hashable, Entry]:
    """Return what the store has for the items of a call, by key."""
    tier = batch.bound.tier(batch.terms).on_asyncio()
    flights = [Flight(key, Work(), batch.terms.tags_of((item,), {})) for key, item in batch.items.items()]
    return await _found(batch, tier, tier.names.slots(batch, flights))


async def _found(at: Call | Batch, tier: Tier, slots: Sequence[Slot]) -> dict[Hashable, Entry]:
    looked = await tier.look(at, slots)
    now = at.core.now()
    return {slot.flight.key: entry for slot, entry in looked.entries.items() if now < entry.stale}


async def forget(call: Call, *, there: bool) -> bool:
    """Remove the value of a call from the store; true if there was one, here or there."""
    tier = call.bound.tier(call.terms).on_asyncio()
    slot = tier.names.slot(call, Flight(call.key, Work()))
    return await _forget(tier, [slot], lambda: call.cell.drop((call.key,))) or there


async def forget_items(batch: Batch, *, there: bool) -> bool:
    """Remove the items of a call from the store; true if any of them was there."""
    tier = batch.bound.tier(batch.terms).on_asyncio()
    slots = tier.names.slots(batch, [Flight(key, Work()) for key in batch.items])
    return (bool(slots) and await _forget(tier, slots, lambda: batch.cell.drop(batch.items))) or there


async def _forget(tier: Tier, slots: Sequence[Slot], here: Callable[[], object]) -> bool:
    """Remove values, and once more what is here: until the store had done it, a call could take one from there."""
    try:
        return bool(await tier.forget([slot.key for slot in slots]))
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

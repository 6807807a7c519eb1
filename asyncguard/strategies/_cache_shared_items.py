"""The work of a batch where there is a store: one request for all items, one call for the rest, one write."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, cast

from asyncguard import events
from asyncguard._machines.canonical import Hash
from asyncguard._machines.entries import Entry
from asyncguard._machines.flight import Flight, State
from asyncguard.strategies._cache_batch_work import BatchWork
from asyncguard.strategies._cache_items_calls import refresh_behind
from asyncguard.strategies._cache_rows import Row
from asyncguard.strategies._cache_shared import answer, newer, work
from asyncguard.strategies._cache_slots import Slot
from asyncguard.strategies._cache_tier import Tier

if TYPE_CHECKING:
    from asyncguard.strategies._cache_batch import Batch


class SharedBatchWork(BatchWork):
    """The computation of the flights that a batch has begun, with a store."""

    def __init__(self, batch: Batch, begun: Sequence[Flight], *, background: bool = False, anew: bool = False) -> None:
        super().__init__(batch, begun, background=background)
        self._anew = anew
        self._old: dict[Hashable, Row] = {}

    async def run(self) -> None:
        """Look in the store, compute the rest of the items, and write them."""
        batch, begun = self._batch, list(self._begun)
        try:
            tier = batch.bound.tier(batch.terms).on_asyncio()
            base = tier.hash_of(batch.args, batch.kwargs)
            slots = [self._slot(tier, base, flight) for flight in begun]
            await work(self, batch, tier, slots, anew=self._anew)
            if self._old:
                refresh_behind(batch, list(self._old), max(row.took for row in self._old.values()))
        except Exception as error:  # noqa: BLE001 - it goes to those who wait
            self._failed([flight for flight in begun if flight.state is State.RUNNING], error)

    def _slot(self, tier: Tier, base: Hash, flight: Flight) -> Slot:
        batch = self._batch
        found = tier.hash_of_item(base, batch.options.over, batch.items[flight.key])
        return tier.slot(found, flight, batch.spare.get(flight.key))

    def take(self, slot: Slot, entry: Entry) -> bool:
        """Answer a flight with a row of the store, if it is good enough."""
        batch = self._batch
        state = entry.state(batch.core.now())
        if self._background and not newer(entry, slot.spare, state):
            return False
        if state == "error":
            batch.spare[slot.flight.key] = slot.spare = cast("Row", entry)
            return False
        answer(batch, slot, entry, batch.cell.flights)
        if state in {"refresh", "stale"}:
            batch.spare[slot.flight.key] = self._old[slot.flight.key] = cast("Row", entry)
        return True

    async def compute(self, slots: Sequence[Slot]) -> None:
        """Compute the rows and give them to those who wait."""
        self._batch.bound.told_items(events.CacheMissed, 0 if self._background else len(slots))
        await self.compute_for([slot.flight for slot in slots])

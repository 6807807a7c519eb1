"""The work of a call, and of a batch, where there is a store: what is good enough there is not computed.

Of a batch: one request for all items, one call for the rest, one write.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, cast

from asyncguard import events
from asyncguard._machines.entries import Entry
from asyncguard._machines.flight import Flight, State
from asyncguard._runtime import flights as running
from asyncguard.strategies._cache.calls import Call, refresh_behind
from asyncguard.strategies._cache.items_calls import refresh_items_behind
from asyncguard.strategies._cache.items_rows import Row
from asyncguard.strategies._cache.items_work import BatchWork
from asyncguard.strategies._cache.store_names import Slot
from asyncguard.strategies._cache.store_steps import look_or_compute
from asyncguard.strategies._cache.work import CallWork, store

if TYPE_CHECKING:
    from asyncguard.strategies._cache.items_batch import Batch


class StoredCallWork(CallWork):
    """The computation of the value of a call, with a store."""

    __slots__ = ()

    async def run(self) -> None:
        """Look in the store, else compute the value of a coroutine function, and write it."""
        call, flight = self._call, self._flight
        try:
            tier = call.bound.tier(call.terms).on_asyncio()
            await look_or_compute(self, call, tier, [tier.names.slot(call, flight)], anew=call.how == "anew")
        except Exception as error:  # noqa: BLE001 - it goes to those who wait
            if flight.state is State.RUNNING:
                self._failed(error)

    def take(self, slot: Slot, entry: Entry) -> bool:
        """Answer the flight with an entry of the store, if it is good enough."""
        call = self._call
        state = entry.state(call.core.now())
        if call.how == "background" and not _newer(entry, call.entry, state):
            return False
        if state == "error":
            call.entry = slot.spare = entry
            return False
        _answer(call, slot, entry)
        if state in {"refresh", "stale"}:
            again = Call(call.bound, call.args, call.kwargs, "background")
            refresh_behind(again.at(call.core, call.terms, call.cell, call.key), entry)
        return True

    async def compute(self, slots: Sequence[Slot]) -> None:
        """Compute the value and give it to those who wait."""
        del slots
        call = self._call
        if call.how != "background":
            call.bound.told(events.CacheMissed)
        await CallWork.run(self)


class StoredBatchWork(BatchWork):
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
            await look_or_compute(self, batch, tier, tier.names.slots(batch, begun), anew=self._anew)
            if self._old:
                refresh_items_behind(batch, list(self._old), max(row.took for row in self._old.values()))
        except Exception as error:  # noqa: BLE001 - it goes to those who wait
            self._failed([flight for flight in begun if flight.state is State.RUNNING], error)

    def take(self, slot: Slot, entry: Entry) -> bool:
        """Answer a flight with a row of the store, if it is good enough."""
        batch = self._batch
        state = entry.state(batch.core.now())
        if self._background and not _newer(entry, slot.spare, state):
            return False
        if state == "error":
            batch.spare[slot.flight.key] = slot.spare = cast("Row", entry)
            return False
        _answer(batch, slot, entry)
        if state in {"refresh", "stale"}:
            batch.spare[slot.flight.key] = self._old[slot.flight.key] = cast("Row", entry)
        return True

    async def compute(self, slots: Sequence[Slot]) -> None:
        """Compute the rows and give them to those who wait."""
        self._batch.bound.told_items(events.CacheMissed, 0 if self._background else len(slots))
        await self.compute_for([slot.flight for slot in slots])


def _newer(entry: Entry, known: Entry | None, state: str) -> bool:
    """Tell whether another process has refreshed what is known here."""
    return state == "hit" and (known is None or entry.created > known.created)


def _answer(at: Call | Batch, slot: Slot, entry: Entry) -> None:
    """End a flight with an entry of the store, which this process keeps from now on, for what is left of its life."""
    flight, cell, now = slot.flight, at.cell, at.core.now()
    change = store(at, flight.key, entry, flight, now)
    cell.misses -= 1
    cell.hits += 1
    if at.bound.heard():
        at.bound.report(change, entry.size)
        at.bound.emit(events.CacheHit, age=now - entry.created, stale=now >= entry.fresh, layer="store")
    running.wake(cell.flights.done(flight, entry))

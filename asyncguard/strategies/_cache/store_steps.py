"""The steps of work where there is a store: look there, else compute, give the value to those who wait, then write.

With a lease, one process computes a key and the others look for its value, after 10 ms and then ever less often up to
every 250 ms. Whatever stands in the way (a store that fails, a lease that lasts too long) ends in computing.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from asyncguard._machines.entries import Entry
from asyncguard._machines.flight import State
from asyncguard._runtime import clock as clocks
from asyncguard.stores._facts import Failed
from asyncguard.strategies._cache.store_names import Slot
from asyncguard.strategies._cache.store_tier import Tier

if TYPE_CHECKING:
    from asyncguard.strategies._cache.calls import Call
    from asyncguard.strategies._cache.items_batch import Batch

_FIRST_POLL = 0.01
_LONGEST_POLL = 0.25


class Job(Protocol):
    """What a flight's work is, apart from the store."""

    def take(self, slot: Slot, entry: Entry) -> bool:
        """Answer a flight with an entry of the store; false if that is not good enough."""
        ...

    async def compute(self, slots: Sequence[Slot]) -> None:
        """Compute values and give them to those who wait."""
        ...


async def look_or_compute(job: Job, at: Call | Batch, tier: Tier, slots: Sequence[Slot], *, anew: bool) -> None:
    """Do the work of flights."""
    wanted = list(slots) if anew else await _looked(job, at, tier, slots)
    if tier.store.lease is None or anew:
        await _compute(job, at, tier, wanted)
    else:
        await _leased(job, at, tier, wanted, tier.store.lease)


async def _looked(job: Job, at: Call | Batch, tier: Tier, slots: Sequence[Slot], *, again: bool = False) -> list[Slot]:
    """Take what the store has; return what is left."""
    looked = await tier.look(at, slots, again=again)
    return [slot for slot in slots if slot not in looked.entries or not job.take(slot, looked.entries[slot])]


async def _compute(job: Job, at: Call | Batch, tier: Tier, slots: Sequence[Slot]) -> None:
    """Compute, then write: whoever waits has the value by then. Leases go back when it is there for the others."""
    try:
        wanted = [slot for slot in slots if slot.flight.state is State.RUNNING]
        if wanted:
            await job.compute(wanted)
        packed = tier.packed(at, wanted)
    except BaseException as error:
        await _give_back(tier, slots, error)
        raise
    await _written(tier, packed, slots)


async def _written(tier: Tier, packed: Any, slots: Sequence[Slot]) -> None:
    pending = tier.store.pending_here()
    pending.update(dict.fromkeys(slots))  # an invalidation finds it there

    async def over(error: BaseException | None = None) -> None:
        for slot in slots:
            pending.pop(slot, None)
        await _give_back(tier, slots, error)

    async def write() -> None:
        try:
            if packed:
                await tier.write(packed)
        except BaseException as error:
            await over(error)
            raise
        await over()

    if tier.store.write_mode == "wait":
        with tier.store.tracked():
            await write()
    elif not packed or not tier.store.later(write):
        await over()


# --- leases -----------------------------------------------------------------------------------------------------------


async def _leased(job: Job, at: Call | Batch, tier: Tier, slots: Sequence[Slot], lease: float) -> None:
    """Compute what nobody else computes; for the rest look again and again, and compute it after `lease` seconds."""
    clock = clocks.current()
    end = clock.now() + lease
    wait, left = _FIRST_POLL, list(slots)
    while left:
        mine = await _claimed(job, at, tier, left, lease)
        if mine:
            await _compute(job, at, tier, mine)
        left = [slot for slot in left if slot.flight.state is State.RUNNING]
        while left:
            if clock.now() >= end:
                await _compute(job, at, tier, left)
                return
            await clock.sleep(wait * (0.5 + clock.random() / 2))
            wait = min(_LONGEST_POLL, 2 * wait)
            free, left = await _polled(job, at, tier, left)
            if free:
                left = [*free, *left]
                break


async def _polled(job: Job, at: Call | Batch, tier: Tier, slots: Sequence[Slot]) -> tuple[list[Slot], list[Slot]]:
    """Look for values that others compute; return those whose lease is gone, and those that are still computed."""
    running_slots = [slot for slot in slots if slot.flight.state is State.RUNNING]
    looked = await tier.look(at, running_slots, [slot.lease for slot in running_slots], again=True)
    left = [s for s in running_slots if s not in looked.entries or not job.take(s, looked.entries[s])]
    if not looked.answered:
        return left, []
    return [s for s in left if s.lease not in looked.there], [s for s in left if s.lease in looked.there]


async def _claimed(job: Job, at: Call | Batch, tier: Tier, slots: Sequence[Slot], lease: float) -> list[Slot]:
    """Take the leases that are free; return what is to be computed here. A store that fails stands in nobody's way."""
    pairs: list[tuple[str, bytes]] = []
    for slot in slots:
        slot.token = os.urandom(16)  # before the store has it: an interrupted `add` may have happened
        pairs.append((slot.lease, slot.token))
    try:
        got = await tier.store.add(pairs, lease)
        if isinstance(got, Failed):
            tier.errored("lease", got)
            return list(slots)
        mine = [slot for slot, taken in zip(slots, got, strict=True) if taken]
        for slot, taken in zip(slots, got, strict=True):
            slot.token = slot.token if taken else None
        if not mine:
            return mine
        # The holder before us may have written between our look and our lease.
        left = await _looked(job, at, tier, mine, again=True)
    except BaseException as error:
        await _give_back(tier, slots, error)
        raise
    answered = [slot for slot in mine if slot not in left]
    if answered:  # nobody waits for that
        tier.store.beside(lambda: _give_back(tier, answered))
    return left


async def _give_back(tier: Tier, slots: Sequence[Slot], error: BaseException | None = None) -> None:
    """Give leases back, also when we are cancelled: a task begun for that while a loop ends would never run.

    `error` is what interrupted us; after a GeneratorExit there is no loop to wait in.
    """
    held = [(slot.lease, slot.token) for slot in slots if slot.token is not None]
    for slot in slots:
        slot.token = None
    if held and not isinstance(error, GeneratorExit):
        await tier.store.release(held)

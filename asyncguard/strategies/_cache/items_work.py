"""Computing the items of a batch: chunk by chunk, each chunk with an end of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from asyncguard import events
from asyncguard._machines.flight import Flight, State, Work
from asyncguard._runtime import flights as running
from asyncguard.strategies._cache import values
from asyncguard.strategies._cache.items_batch import Batch
from asyncguard.strategies._cache.items_rows import NOT_OWN, Join, Row, split
from asyncguard.strategies._cache.work import fail, store


class BatchWork:
    """The computation of the flights that a batch has begun."""

    def __init__(self, batch: Batch, begun: Sequence[Flight], *, background: bool = False) -> None:
        self._batch = batch
        self._begun = begun
        self._background = background
        self._started = batch.core.now()
        self._name = batch.bound.name
        self._flights = batch.cell.flights

    def _chunks(self, begun: Sequence[Flight]) -> Iterator[list[Flight]]:
        """Yield the flights that one call of the function serves, without those that nobody waits for any more."""
        size = self._batch.options.max_batch or len(begun)
        for at in range(0, len(begun), size):
            chunk = [flight for flight in begun[at : at + size] if flight.state is State.RUNNING]
            if chunk:
                yield chunk

    def _succeeded(self, chunk: Sequence[Flight], result: Any) -> None:
        """Store the rows of a chunk and give them to those who wait."""
        try:
            rows, join = split(self._name, result, len(chunk))
        except Exception as error:  # noqa: BLE001 - a result of the wrong kind or length fails its items
            self._failed(chunk, error)
            return
        self._refreshed(ok=True)
        stored = 0
        for flight, value in zip(chunk, rows, strict=True):
            try:
                row, kept = self._row(flight, value, join)
            except Exception as error:  # noqa: BLE001 - an option of the user's that failed, for this row
                self._failed([flight], error)
                continue
            stored += kept
            running.wake(self._flights.done(flight, row))
        self._batch.bound.told_items(events.CacheStored, stored)

    def _row(self, flight: Flight, value: Any, join: Join) -> tuple[Row, bool]:
        values.refuse(self._name, value)
        batch = self._batch
        life = batch.terms.lifetime(value)
        row = Row(*values.isolated(value, batch.options.isolation, own=join not in NOT_OWN))
        now = batch.core.now()
        row.join, row.took, row.tags = join, now - self._started, flight.tags
        if life is None:
            return row, False
        row.live(now, life)
        change = store(batch, flight.key, row, flight, now)
        stored, change.stored = change.stored, False
        if batch.bound.heard():
            batch.bound.report(change)
        return row, stored

    def _failed(self, chunk: Sequence[Flight], error: BaseException) -> None:
        """Fail the items of a chunk, except those for which something good enough is known."""
        self._refreshed(ok=False)
        for flight in chunk:
            fail(self._batch, flight, self._batch.spare.get(flight.key), error)

    def _refreshed(self, *, ok: bool) -> None:
        if self._background:
            batch = self._batch
            batch.bound.told(events.CacheRefreshed, ok=ok, seconds=batch.core.now() - self._started)

    def ended(self, error: BaseException | None) -> None:
        """Settle what the work left open: with an error, or so that those who wait ask anew."""
        for flight in self._begun:
            if flight.state is State.RUNNING:
                if error is None:
                    running.wake(self._flights.lost(flight))
                else:
                    self._failed([flight], error)

    def keep(self, result: Any) -> None:
        """Store the rows of a result that was computed without flights."""
        batch = self._batch
        rows, join = split(self._name, result, len(batch.keys))
        for key, value in dict(zip(batch.keys, rows, strict=True)).items():
            self._row(Flight(key, Work()), value, join)

    async def run(self) -> None:
        """Compute the items of a coroutine function."""
        await self.compute_for(self._begun)

    async def compute_for(self, flights: Sequence[Flight]) -> None:
        """Compute the items of some flights."""
        for chunk in self._chunks(flights):
            try:
                result = await self._call(chunk)
            except Exception as error:  # noqa: BLE001 - it goes to those who wait
                self._failed(chunk, error)
            else:
                self._succeeded(chunk, result)

    def run_sync(self) -> None:
        """Compute the items of a plain function."""
        for chunk in self._chunks(self._begun):
            try:
                result = self._call(chunk)
            except Exception as error:  # noqa: BLE001 - it goes to those who wait
                self._failed(chunk, error)
            else:
                self._succeeded(chunk, result)

    def _call(self, chunk: Sequence[Flight]) -> Any:
        batch = self._batch
        args, kwargs = batch.with_items([batch.items[flight.key] for flight in chunk])
        return batch.bound.fn(*args, **kwargs)

"""One call of a function that is cached item by item: what it has, what it waits for, what it computes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from asyncguard import events
from asyncguard._machines.flight import CircularWaitError, Flight, Flights, State, Waiter, Work
from asyncguard._machines.keys import freeze
from asyncguard._machines.store import Entry
from asyncguard._runtime import flights as running
from asyncguard.strategies import _cache_rows, _cache_values
from asyncguard.strategies._cache_calls import ERROR_PAUSE, circular
from asyncguard.strategies._cache_rows import Row, split

if TYPE_CHECKING:
    from asyncguard.strategies._cache_bound import Bound
    from asyncguard.strategies._cache_core import Args, Cell, Core, Kwargs
    from asyncguard.strategies._cache_items_options import CacheItemsOptions


class Batch:
    """The items of a call by key, each key once, in the order in which they come first.

    `rows` has what is known, `spare` what may answer for an item that cannot be computed.
    """

    __slots__ = (
        "_position", "args", "bound", "cell", "core", "items", "keys", "kwargs", "options", "rows", "spare", "started",
    )  # fmt: skip

    def __init__(self, bound: Bound, args: Args, kwargs: Kwargs, core: Core, options: CacheItemsOptions) -> None:
        self.bound, self.args, self.kwargs, self.core, self.options = bound, args, kwargs, core, options
        self.rows: dict[Hashable, Row] = {}
        self.spare: dict[Hashable, Row] = {}
        self.started = 0.0

    def arrange(self, cell: Cell, prefix: Hashable, rest: Hashable, items: Sequence[Any]) -> None:
        """Fill in the items and their keys."""
        self.cell = cell
        self.keys = [(prefix, rest, self._key(item)) for item in items]
        self.items: dict[Hashable, Any] = dict(zip(reversed(self.keys), reversed(items), strict=True))

    def _key(self, item: Any) -> Hashable:
        of_value = self.bound.place_now().keyer.of_value
        if self.options.key is not None:
            return of_value("key=", self.options.key(item))
        return of_value(self.options.over, item)

    # --- flights ---

    def join(
        self, keys: Sequence[Hashable], waiter: Waiter | None, work: Work, *, anew: bool
    ) -> tuple[dict[Hashable, Flight], list[Flight]]:
        """Join or begin the flight of each key; return them all, and those begun, whose work has to be started."""
        table, here = self.cell.flights, running.inside()
        flights: dict[Hashable, Flight] = {}
        begun: list[Flight] = []
        try:
            for key in keys:
                tags = self.options.tags_of((self.items[key],), {}) if self.options.tags else ()
                flights[key], new = table.join(key, waiter, inside=here, work=work, tags=tags, anew=anew)
                if new and (anew or not self._answered(flights[key])):
                    begun.append(flights[key])
        except BaseException as error:
            self._give_up(flights, begun, waiter, error)
        return flights, begun

    def _give_up(
        self, flights: dict[Hashable, Flight], begun: list[Flight], waiter: Waiter | None, error: BaseException
    ) -> NoReturn:
        for flight in begun:
            running.wake(self.cell.flights.lost(flight))
        if waiter is not None:
            running.leave(self.cell.flights, flights.values(), waiter)
        if isinstance(error, CircularWaitError):
            raise circular(self.bound.name) from None
        raise error

    def _answered(self, flight: Flight) -> bool:
        entry = self.cell.entries.get(flight.key)
        if entry is None or entry.state(self.core.now()) != "hit":
            return False
        running.wake(self.cell.flights.done(flight, entry))
        return True

    def collect(self, flights: Mapping[Hashable, Flight]) -> list[Hashable]:
        """Take the rows of flights that are over; return the keys that have to be asked for anew.

        Raises the error of the first item that failed.
        """
        lost = [key for key, flight in flights.items() if flight.state is State.LOST]
        for key, flight in flights.items():
            if flight.state is not State.LOST:
                self.rows[key] = Flights.result(flight)
        return lost

    # --- computing ---

    def chunks(self, begun: Sequence[Flight]) -> Iterator[list[Flight]]:
        """Yield the flights that one call of the function serves, without those that nobody waits for any more."""
        size = self.options.max_batch or max(1, len(begun))
        for at in range(0, len(begun), size):
            chunk = [flight for flight in begun[at : at + size] if flight.state is State.RUNNING]
            if chunk:
                yield chunk

    def call(self, chunk: Sequence[Flight]) -> Any:
        """Call the function with the items of a chunk."""
        args, kwargs = self.with_items([self.items[flight.key] for flight in chunk])
        return self.bound.fn(*args, **kwargs)

    def with_items(self, items: list[Any]) -> tuple[Args, Kwargs]:
        """Return the arguments of the call with other items, in a container like the one given."""
        over, at = self.options.over, self.position()
        given = self.kwargs[over] if over in self.kwargs else self.args[at] if at < len(self.args) else items
        passed = like(given, items)
        if over in self.kwargs or at >= len(self.args):
            return self.args, {**self.kwargs, over: passed}
        return (*self.args[:at], passed, *self.args[at + 1 :]), self.kwargs

    def position(self) -> int:
        """Return where the items stand among the arguments."""
        names = self.bound.place_now().keyer.names
        return names.index(self.options.over) - len(self.bound.prefix)

    def succeeded(self, chunk: Sequence[Flight], result: Any) -> None:
        """Store the rows of a chunk and give them to those who wait."""
        try:
            rows, join = split(self.bound.name, result, len(chunk))
        except Exception as error:  # noqa: BLE001 - a result of the wrong kind or length fails its items
            self.failed(chunk, error)
            return
        stored = 0
        for flight, value in zip(chunk, rows, strict=True):
            try:
                row, kept = self._row(flight, value, join)
            except Exception as error:  # noqa: BLE001 - an option of the user's that failed, for this row
                self.failed([flight], error)
                continue
            stored += kept
            running.wake(self.cell.flights.done(flight, row))
        if stored and self.bound.heard():
            self.bound.emit(events.CacheStored, items=stored)

    def _row(self, flight: Flight, value: Any, join: _cache_rows.Join) -> tuple[Row, bool]:
        _cache_values.refuse(self.bound.name, value)
        options, now = self.options, self.core.now()
        life = options.lifetime(value)
        row = Row(*_cache_values.isolated(value, options.isolation))
        row.join, row.took, row.tags = join, now - self.started, flight.tags  # type: ignore[assignment]
        if life is None:
            return row, False
        row.live(now, life)
        if options.max_bytes is not None:
            row.size = _cache_values.size_of(row.value) + _cache_values.size_of(flight.key)
        change = self.cell.store.put(self.cell, flight.key, row, options.bounds, now, flight.lease)
        stored, change.stored = change.stored, False
        self.bound.report(change)
        return row, stored

    def failed(self, chunk: Sequence[Flight], error: BaseException) -> None:
        """Fail the items of a chunk, except those for which something good enough is known."""
        now = self.core.now()
        for flight in chunk:
            spare = self.spare.get(flight.key)
            if spare is not None:
                spare.retry_at = now + ERROR_PAUSE
            if spare is not None and now < spare.dead and isinstance(error, Exception) and self.options.stale_if_error:
                running.wake(self.cell.flights.done(flight, spare))
            else:
                running.wake(self.cell.flights.failed(flight, error))

    def ended(self, begun: Sequence[Flight]) -> Callable[[BaseException | None], None]:
        """Return what to do when the work ends without having settled its flights."""

        def end(error: BaseException | None) -> None:
            open_ = [flight for flight in begun if flight.state is State.RUNNING]
            if error is not None:
                self.failed(open_, error)
                return
            for flight in open_:
                running.wake(self.cell.flights.lost(flight))

        return end

    def work(self, begun: Sequence[Flight]) -> Callable[[], Awaitable[None]]:
        """Return what computes the items of a coroutine function."""

        async def run() -> None:
            for chunk in self.chunks(begun):
                try:
                    result = await self.call(chunk)
                except Exception as error:  # noqa: BLE001 - it goes to those who wait
                    self.failed(chunk, error)
                else:
                    self.succeeded(chunk, result)

        return run

    def work_sync(self, begun: Sequence[Flight]) -> Callable[[], None]:
        """Return what computes the items of a plain function."""

        def run() -> None:
            for chunk in self.chunks(begun):
                try:
                    result = self.call(chunk)
                except Exception as error:  # noqa: BLE001 - it goes to those who wait
                    self.failed(chunk, error)
                else:
                    self.succeeded(chunk, result)

        return run

    def result(self) -> Any:
        """Put the rows together as the function would."""
        rows = [self.rows[key] for key in self.keys]
        return rows[0].join(rows)


def like(given: Any, items: list[Any]) -> Any:
    """Return items in a container like the one that was given: list, tuple, array."""
    if isinstance(given, tuple):
        return tuple(items)
    numpy = getattr(given, "__array_namespace__", None) or hasattr(given, "ndim")
    if numpy and type(given).__module__.partition(".")[0] == "numpy":
        import numpy as library

        return library.stack(items) if items else given[:0]
    return items


__all__ = ["Batch", "freeze", "like"]

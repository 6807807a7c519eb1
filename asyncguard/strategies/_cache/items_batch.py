"""One call of a function that is cached item by item: what it has, what it waits for, what it computes."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, cast

from asyncguard._machines.circles import CircularWaitError
from asyncguard._machines.flight import Flight, Flights, State, Waiter, Work
from asyncguard._machines.keys import UnkeyableError, freeze
from asyncguard._runtime import flights as running
from asyncguard.strategies._cache.calls import circular
from asyncguard.strategies._cache.items_rows import Row, items_of, like

if TYPE_CHECKING:
    from asyncguard._machines.keyer import Keyer
    from asyncguard.strategies._cache.bound import Bound
    from asyncguard.strategies._cache.options import CacheItemsOptions
    from asyncguard.strategies._cache.place import Args, Kwargs


class Batch:
    """The items of a call by key, each key once, in the order in which they come first.

    `rows` has what is known, `spare` what may answer for an item that cannot be computed.
    """

    __slots__ = (
        "_at", "_given", "args", "bound", "cell", "core", "items", "keys", "kwargs", "options", "rows", "spare",
        "terms",
    )  # fmt: skip

    def __init__(self, bound: Bound, args: Args, kwargs: Kwargs) -> None:
        """Bind the arguments and make the keys: what belongs to the object and the other arguments, and the item."""
        self.bound, self.args, self.kwargs = bound, args, kwargs
        self.core, self.terms, place = bound.forces()
        self.options = cast("CacheItemsOptions", self.terms.options)
        full, keyer = bound.full(args), place.keyer
        bound_values = keyer.bind(full, kwargs)
        at = keyer.names.index(self.options.over)
        self._at = at - len(bound.prefix)
        self._given = bound_values[at]
        items = items_of(bound.name, self.options.over, self._given)
        self.cell, owner = place.cell_for(full, kwargs)
        rest = keyer.of_values(bound_values)
        base = None if owner is None and rest == () else (owner, rest)
        keys = self._keys(keyer, items)
        self.keys: list[Hashable] = keys if base is None else [(base, key) for key in keys]
        self.items: dict[Hashable, Any] = dict(zip(self.keys, items, strict=True))
        if len(self.items) < len(items):  # of items with one key the first counts
            self.items.update(zip(reversed(self.keys), reversed(items), strict=True))
        self.rows: dict[Hashable, Row] = {}
        self.spare: dict[Hashable, Row] = {}

    def _keys(self, keyer: Keyer, items: list[Any]) -> list[Hashable]:
        options = self.options
        if options.key is not None:
            return [keyer.of_value("key=", options.key(item)) for item in items]
        try:
            return [freeze(item) for item in items]
        except UnkeyableError:  # slower, but it knows the name of the parameter
            return [keyer.of_value(options.over, item) for item in items]

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
                tags = self.terms.tags_of((self.items[key],), {})
                flights[key], new = table.join(key, waiter, inside=here, work=work, tags=tags, anew=anew)
                if new and (anew or not self.cell.answer(flights[key], self.core)):
                    begun.append(flights[key])
        except BaseException as error:  # noqa: BLE001 - it is raised again
            self.give_up(flights, begun, waiter, error)
        return flights, begun

    def give_up(
        self, flights: dict[Hashable, Flight], begun: list[Flight], waiter: Waiter | None, error: BaseException
    ) -> NoReturn:
        """Leave flights without having started the work of those begun; raise what was in the way."""
        for flight in begun:
            running.wake(self.cell.flights.lost(flight))
        if waiter is not None:
            running.leave(self.cell.flights, flights.values(), waiter)
        if isinstance(error, CircularWaitError):
            raise circular(self.bound.name) from None
        raise error

    def collect(self, flights: Mapping[Hashable, Flight]) -> list[Hashable]:
        """Take the rows of flights that are over; return the keys that have to be asked for anew.

        Raises the error of the first item that failed.
        """
        answered = {key: flight for key, flight in flights.items() if flight.state is not State.LOST}
        lost = [key for key in flights if key not in answered]
        del flights
        try:
            while answered:
                key = next(iter(answered))
                self.rows[key] = Flights.result(answered.pop(key))
        finally:
            for flight in answered.values():
                Flights.let_go(flight)
            answered.clear()  # an error refers to this frame, which must not refer to the error
        return lost

    # --- the call ---

    def with_items(self, items: list[Any]) -> tuple[Args, Kwargs]:
        """Return the arguments of the call with other items, in a container like the one given."""
        passed = like(self._given, items)
        if self.options.over in self.kwargs or self._at >= len(self.args):
            return self.args, {**self.kwargs, self.options.over: passed}
        return (*self.args[: self._at], passed, *self.args[self._at + 1 :]), self.kwargs

    def result(self) -> Any:
        """Put the rows together as the function would."""
        rows = [self.rows[key] for key in self.keys]
        return rows[0].join(rows)

"""The state of a cache: one cell for each function, and for methods for each function and object."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Hashable, Iterable
from typing import Any

from asyncguard._machines.flight import Flight, Flights
from asyncguard._machines.owners import IdentityMap, kept_on
from asyncguard._machines.store import Lease, Shard, Store
from asyncguard._runtime import flights as running
from asyncguard._runtime.clock import Clock
from asyncguard._runtime.flights_sync import Background
from asyncguard.strategies._cache.options import KeyRules
from asyncguard.strategies._cache.place import Place

_MOST_PLACES = 256  # of a function: a program that overrides key rules for every call must not fill the memory


class Cell(Shard):
    """The entries and flights of one function (of one object)."""

    __slots__ = ("flights", "joined")

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.flights = Flights()
        self.joined = 0

    def answer(self, flight: Flight, core: Core) -> bool:
        """End a flight just begun with what is here: the one before may have stored since our look."""
        entry = self.entries.get(flight.key)
        if entry is None or entry.state(core.now()) != "hit":
            return False
        running.wake(self.flights.done(flight, entry))
        return True

    def drop(self, keys: Iterable[Hashable]) -> bool:
        """Forget some keys, and let go of their flights; true if any of them was there."""
        changes = [self.store.remove(self, key, self.flights.detach_key(key)) for key in keys]
        return any(change.gone for change in changes)


class Core:
    """Everything that is cached on one clock, by one strategy."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.now = clock.now
        self.store = Store()  # of all functions that are no methods
        self.background = Background()
        self._lock = threading.Lock()
        self._places: IdentityMap[dict[Hashable, Place]] = IdentityMap(_orphan)
        self._owned: IdentityMap[dict[Hashable, Any]] = IdentityMap(lambda _held: None)
        self._cells: weakref.WeakSet[Cell] = weakref.WeakSet()

    def place(self, function: Callable[..., Any], name: str, rules: KeyRules, own: str | None) -> Place:
        """Return the place of a function under a set of key rules, made on first use."""
        places = self._places.get(function)
        if places is None:
            places = self._places.setdefault(function, {}, strong=True)
        place = places.get(rules)
        if place is None:
            _make_room(places)
            place = places.setdefault(rules, Place(self, function, name, rules, own))
        return place

    def knows(self, function: Callable[..., Any]) -> bool:
        """Tell whether a function was ever called through this cache."""
        return self._places.get(function) is not None

    def new_cell(self, store: Store) -> Cell:
        """Make a cell and remember it weakly."""
        cell = Cell(store)
        with self._lock:
            self._cells.add(cell)
        return cell

    def cell_of(self, owner: object, place: Place) -> Cell:
        """Return the cell of an object, kept on the object; its store is that of all its methods."""
        held = kept_on(owner)
        if held is None:
            held = self._owned.get(owner)
        if held is None:
            held = self._held_beside(owner)
        found: Cell | None = held.get(place)
        if found is not None:
            return found
        store: Store = held.setdefault(self, Store())
        made: Cell = held.setdefault(place, self.new_cell(store))
        return made

    def cells(self) -> list[Cell]:
        """Return all cells that are in use."""
        with self._lock:
            return list(self._cells)

    def stores(self) -> list[Store]:
        """Return all stores that are in use."""
        return list({id(store): store for store in (self.store, *(cell.store for cell in self.cells()))}.values())

    def let_go(self, tag: Hashable | None = None) -> list[Lease]:
        """Let go of all flights (that carry a tag); return their leases."""
        found = (cell.flights.detach(lambda flight: tag is None or tag in flight.tags) for cell in self.cells())
        return [lease for leases in found for lease in leases]

    def after_fork(self) -> None:
        """In a forked child: new locks, nothing in flight, the values stay."""
        self._lock = threading.Lock()
        self.background = Background()
        for cell in list(self._cells):
            cell.flights.after_fork()
            cell.store.after_fork()

    def _held_beside(self, owner: object) -> dict[Hashable, Any]:
        try:
            return self._owned.setdefault(owner, {})
        except TypeError:
            kind = type(owner).__qualname__
            raise TypeError(
                f"a cache of one {kind} each can be kept neither on the object (it has no __dict__) nor beside it (no "
                f"__weakref__): add '__weakref__' to the __slots__ of {kind}, or give it a method __cache_key__()"
            ) from None


def _make_room(places: dict[Hashable, Place]) -> None:
    """Make room for a place of a function: all go but the first, which is that of the function's own rules."""
    if len(places) < _MOST_PLACES:
        return
    for rules in list(places)[1:]:
        place = places.pop(rules, None)
        if place is not None:
            _orphan({rules: place})


def _orphan(places: dict[Hashable, Place]) -> None:
    for place in places.values():
        place.cell.store.orphan(place.cell)

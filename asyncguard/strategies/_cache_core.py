"""The state of a cache: one cell for each function, and for methods for each function and object."""

from __future__ import annotations

import threading
import types
import weakref
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any

from asyncguard._machines.binder import signature_of
from asyncguard._machines.flight import Flights
from asyncguard._machines.keyer import Keyer
from asyncguard._machines.keys import UnkeyableError, freeze
from asyncguard._machines.owners import IdentityMap, kept_on
from asyncguard._machines.store import Shard, Store
from asyncguard._runtime.clock import Clock
from asyncguard._runtime.flights_sync import Background
from asyncguard.strategies._cache_options import KeyRules

_MOST_PLACES = 256  # of a function: a program that overrides key rules for every call must not fill the memory

Args = tuple[Any, ...]
Kwargs = dict[str, Any]


class Cell(Shard):
    """The entries and flights of one function (of one object)."""

    __slots__ = ("flights", "joined")

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.flights = Flights()
        self.joined = 0


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
            _bound(places)
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


def _bound(places: dict[Hashable, Place]) -> None:
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


class Place:
    """One function under one set of key rules: from the arguments of a call to its cell and key."""

    __slots__ = ("_core", "_key", "_own", "cell", "keyer", "quick", "rules")

    def __init__(self, core: Core, function: Callable[..., Any], name: str, rules: KeyRules, own: str | None) -> None:
        self._core = core
        self._key = rules.key
        self._own = own
        self.rules = rules
        self.keyer = Keyer(function, name, own=own, ignore=rules.ignore, vary_on=rules.vary_on)
        if rules.key is None:
            self.keyer.check_annotations(function)
        self.cell = core.new_cell(core.store)
        self.quick = self.keyer.quick and rules.key is None and own is None

    def locate(self, args: Args, kwargs: Kwargs) -> tuple[Cell, Hashable]:
        """Return the cell and the key of a call."""
        if self.quick and len(args) == 1 and not kwargs:
            try:
                return self.cell, freeze(args[0])
            except UnkeyableError:  # the keyer knows the name of the parameter
                return self.cell, self.keyer(args, kwargs)
        if self._own is None:
            return self.cell, self._key_of(args, kwargs)
        cell, prefix = self.cell_for(args, kwargs)
        key = self._key_of(args, kwargs)
        return cell, key if prefix is None else (prefix, key)

    def cell_for(self, args: Args, kwargs: Kwargs) -> tuple[Cell, Hashable]:
        """Return the cell of a call, and what the object of a method adds to the keys in it (None: nothing).

        Each object has a cell of its own, unless its class says by `__cache_key__` which of them are equal.
        """
        if self._own is None:
            return self.cell, None
        owner = self.owner(args, kwargs)
        if hasattr(type(owner), "__cache_key__"):
            return self.cell, freeze(owner)
        return self._core.cell_of(owner, self), None

    def owner(self, args: Args, kwargs: Kwargs) -> object:
        """Return the object whose own cache it is, the place itself if it is no method."""
        owner: object = self if self._own is None else args[0] if args else kwargs.get(self._own, self)
        if owner is self and self._own is not None:
            self.keyer.bind(args, kwargs)  # it was called without: raises what the call would raise
        return owner

    def _key_of(self, args: Args, kwargs: Kwargs) -> Hashable:
        if self._key is None:
            return self.keyer(args, kwargs)
        return self.keyer.of_value("key=", self._key(*args, **kwargs))


def resolve(function: Any) -> tuple[Any, Args]:
    """Return the function behind a callable, and the object that a bound method puts in front of the arguments."""
    if isinstance(function, types.MethodType):
        return function.__func__, (function.__self__,)
    owner: object = getattr(function, "__self__", None)
    if isinstance(function, types.BuiltinMethodType) and not isinstance(owner, types.ModuleType | type | None):
        return getattr(type(owner), function.__name__, function), (owner,)
    return function, ()


def own_parameter(function: Any, bound: Args, rules: KeyRules) -> str | None:
    """Return the parameter that holds the object whose own cache it is: `self`, or what a bound method calls it."""
    signature = signature_of(function)
    first = next(iter(signature.parameters.values()), None) if signature is not None else None
    if first is None or first.kind > first.POSITIONAL_OR_KEYWORD or first.name in rules.ignore:
        return None
    is_object = bool(bound) and not isinstance(bound[0], type)
    return first.name if is_object or (not bound and first.name == "self") else None


def leases(cells: list[Cell], tag: Hashable | None = None) -> Iterator[Any]:
    """Let go of all flights in the cells (that carry a tag); yield their leases."""
    for cell in cells:
        yield from cell.flights.detach(lambda flight: tag is None or tag in flight.tags)


def drop(cell: Cell, keys: Iterable[Hashable]) -> bool:
    """Forget some keys of a cell, and let go of their flights; true if any of them was there."""
    changes = [cell.store.remove(cell, key, cell.flights.detach_key(key)) for key in keys]
    return any(change.gone for change in changes)

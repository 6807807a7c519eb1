"""From the arguments of a call to its cell and its key."""

from __future__ import annotations

import types
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any

from asyncguard._machines.binder import signature_of
from asyncguard._machines.keyer import Keyer
from asyncguard._machines.keys import UnkeyableError, freeze

if TYPE_CHECKING:
    from asyncguard.strategies._cache.core import Cell, Core
    from asyncguard.strategies._cache.options import KeyRules

Args = tuple[Any, ...]
Kwargs = dict[str, Any]


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


def unbound(function: Any) -> tuple[Any, Args]:
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

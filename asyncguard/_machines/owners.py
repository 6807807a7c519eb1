"""What belongs to an object, kept for as long as the object lives and never mixed up with that of an equal one."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar, cast

T = TypeVar("T")

_ATTRIBUTE = "__asyncguard_caches__"


class IdentityMap(Generic[T]):
    """From an object to a value, by identity: neither equality nor hash of the object are asked.

    An entry goes when its object does; `gone` is called with the value then, perhaps by the garbage collector.
    """

    __slots__ = ("_entries", "_gone")

    def __init__(self, gone: Callable[[T], object]) -> None:
        self._gone = gone
        self._entries: dict[int, tuple[object, T]] = {}

    def get(self, owner: object) -> T | None:
        """Return the value of an object, None if it has none."""
        entry = self._entries.get(id(owner))
        return None if entry is None else entry[1]

    def setdefault(self, owner: object, value: T, *, strong: bool = False) -> T:
        """Give an object its value, unless it has one; return the one it has.

        An object that cannot be referenced weakly is kept alive if `strong`, so that nobody else gets its address, and
        is a TypeError if not.
        """
        entry = self._entries.get(id(owner))
        if entry is None:
            entry = self._entries.setdefault(id(owner), (self._hold(owner, strong=strong), value))
        return entry[1]

    def _hold(self, owner: object, *, strong: bool) -> object:
        try:
            hold = weakref.finalize(owner, self._remove, id(owner))
        except TypeError:
            if strong:
                return owner
            raise
        hold.atexit = False
        return hold

    def _remove(self, key: int) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._gone(entry[1])


class _Held:
    """What is kept on an object. A copy of the object gets a reference to it as well, so it knows whose it is.

    It pickles, and is copied deeply, as nothing: the cache of an object stays where the object is.
    """

    __slots__ = ("by_key", "owner")

    def __init__(self, owner: object = None) -> None:
        self.owner = None if owner is None else weakref.ref(owner)
        self.by_key: dict[Hashable, Any] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return _Held, ()


def kept_on(owner: object) -> dict[Hashable, Any] | None:
    """Return the dict that is kept on an object for us, made on first use; None if the object cannot hold one.

    It is kept on the object, and not in a table of ours, so that a value that refers to the object does not keep both
    alive.
    """
    attributes: Any = getattr(owner, "__dict__", None)
    if not isinstance(attributes, dict):
        return None
    kept = cast("dict[str, Any]", attributes)
    held: _Held | None = kept.get(_ATTRIBUTE)
    if held is None or held.owner is None or held.owner() is not owner:
        try:
            made = _Held(owner)
        except TypeError:  # it cannot be referenced weakly
            return None
        if held is not None:  # it came with a copy
            kept.pop(_ATTRIBUTE, None)
        held = cast("_Held", kept.setdefault(_ATTRIBUTE, made))
    return held.by_key


def without_kept(attributes: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return the attributes of an object without what is kept on it for us: that is no part of what it is."""
    if not attributes or _ATTRIBUTE not in attributes:
        return attributes
    return {name: each for name, each in attributes.items() if name != _ATTRIBUTE}


def state_of(value: object) -> object:
    """Return what `object.__getstate__` does, without what is kept on the object for us."""
    state: Any = object.__getstate__(value)
    if type(state) is not tuple:
        return without_kept(state) or None
    attributes, slots = cast("tuple[Any, Any]", state)
    return (without_kept(attributes) or None, slots)

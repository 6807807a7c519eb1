"""What was built around a function, kept for as long as the function lives, without keeping it alive.

`client.embed` is a new bound method each time it is written, so what was built for it is found by its object and its
function. Nothing here holds on to either: a client that goes takes what was built for it along.
"""

from __future__ import annotations

import contextlib
import weakref
from types import MethodType
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from asyncguard._runtime import colour

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Chains", "Target"]

T = TypeVar("T")

_MOST = 256
"""Functions for which something is kept, in each pipeline: a bound for those who hand over a new lambda each time."""


class Target:
    """A function or bound method, held weakly."""

    __slots__ = ("function", "name", "owner")

    def __init__(self, fn: Callable[..., Any], gone: Callable[[object], None] | None = None) -> None:
        """Hold `fn`; `gone` is called when it has been collected. Raises TypeError if it cannot be held weakly."""
        self.name = colour.name_of(fn)
        method = type(fn) is MethodType
        self.owner = weakref.ref(cast("MethodType", fn).__self__, gone) if method else None
        self.function = weakref.ref(cast("MethodType", fn).__func__ if method else fn, gone)

    def find(self) -> Callable[..., Any]:
        """Return the function; raises ReferenceError when it is gone: who awaits a call keeps it alive."""
        function, owner = self.function(), None if self.owner is None else self.owner()
        if function is None or (owner is None and self.owner is not None):
            raise ReferenceError(f"{self.name} is gone: nobody holds it, or its object, any more")
        return function if owner is None else MethodType(function, owner)

    def caller(self) -> Callable[..., Any]:
        """Return a plain function that calls the target, under its name, and does not keep it alive."""
        find_function, find_owner = self.function, self.owner

        def call(*args: Any, **kwargs: Any) -> Any:
            function = find_function()
            if find_owner is None:
                return self.find()(*args, **kwargs) if function is None else function(*args, **kwargs)
            owner = find_owner()
            if function is None or owner is None:
                return self.find()(*args, **kwargs)
            return function(owner, *args, **kwargs)

        module, _, call.__qualname__ = self.name.rpartition(".")
        call.__module__ = module or "builtins"
        return call


class Chains(Generic[T]):
    """What was built around functions: found by identity, bounded, and gone with the function."""

    def __init__(self) -> None:
        self._built: dict[tuple[int, int], tuple[Target, T]] = {}

    def __len__(self) -> int:
        return len(self._built)

    def __reduce__(self) -> tuple[Any, ...]:
        return Chains, ()

    def get(self, fn: Any) -> T | None:
        """Return what was built around `fn`, None if nothing was."""
        # An id may be used again by another object, so the key alone says nothing.
        if type(fn) is MethodType:
            owner: object = fn.__self__
            function: object = fn.__func__
            found = self._built.get((id(owner), id(function)))
            if found is None or found[0].owner is None or found[0].owner() is not owner:
                return None
        else:
            function = fn
            found = self._built.get((id(fn), 0))
            if found is None:
                return None
        return found[1] if found[0].function() is function else None

    def target(self, fn: Callable[..., Any]) -> Target | None:
        """Return the target of `fn` to build around, None if `fn` cannot be held weakly."""
        key, built = _key(fn), weakref.ref(self)

        def gone(_: object) -> None:
            chains = built()
            if chains is not None:
                chains._built.pop(key, None)  # noqa: SLF001 - our own

        try:
            return Target(fn, gone)
        except TypeError:
            return None

    def keep(self, fn: Callable[..., Any], target: Target, built: T) -> None:
        """Keep what was built around a target; the oldest goes if there are too many."""
        self._built[_key(fn)] = target, built
        if len(self._built) > _MOST:
            with contextlib.suppress(RuntimeError):  # another thread adds or removes one
                self._built.pop(next(iter(self._built)), None)


def _key(fn: Any) -> tuple[int, int]:
    return (id(fn.__self__), id(fn.__func__)) if type(fn) is MethodType else (id(fn), 0)

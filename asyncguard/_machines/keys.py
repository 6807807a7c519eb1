"""From a value to a cache key that is equal exactly when the value is: `freeze`.

The key of a value is its type and its content. `1`, `True` and `1.0` differ, -0.0 differs from 0.0, a NaN equals
itself, containers keep their structure, and what can only be compared by its address is refused: an address that is
used again by the next object gives the answer of the one before. The frozen value itself is the key, so nothing
rests on a hash, except for large buffers (arrays, frames), which go in as type, shape and a digest of the content.

`Freezing` is one table of rules with one hash function: `freeze` is that of the process, `canonical` has the one of
stores. The table grows by one entry for each type that is met; the rules stand in the keys_*.py files.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections import Counter
from typing import TYPE_CHECKING, Any

from asyncguard._machines import digests, keys_arrays, keys_builtins, keys_frames, keys_objects
from asyncguard._machines.keys_base import Digest, Freeze, Freezer, Rule, UnkeyableError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

__all__ = ["Freezing", "UnkeyableError", "freeze", "keyable"]

_PACK = struct.Struct("<d").pack
_MOST_TYPES = 4096  # a program that makes classes at run time must not fill the table for ever
_RULES = (keys_objects.own_key, keys_builtins.enum, keys_frames.rule, keys_arrays.rule, keys_objects.fields)
_LAST_RULES = (keys_builtins.rule, keys_objects.by_value)


class Freezing:
    """From values to keys, with the hash function that `function` returns when a rule first needs it."""

    __slots__ = ("_exact", "_function", "_table", "freeze")

    def __init__(self, function: Callable[[], Digest]) -> None:
        self._function = function
        self._table: dict[type, Freezer] = {}
        self.freeze = self._made()
        self._exact = _ATOMS | _holders(self.freeze, function)
        self._table.update(self._exact)

    def keyable(self, kind: type) -> bool:
        """Tell whether values of a type may be keyable; False only if none can be."""
        return (self._table.get(kind) or self._resolved(kind)) is not _refused

    def _made(self) -> Freeze:
        table, resolved = self._table, self._resolved

        def freeze(value: object) -> Hashable:
            """Return a hashable stand-in for `value`, equal for equal values of the same type only.

            An exact `int` or `str` stands for itself (the driver's fast path relies on it), everything else is a tuple
            that begins with a type. Raises UnkeyableError for a value that equals only itself, is nested too deep, or
            cyclic.
            """
            kind = type(value)
            if kind is str or kind is int:
                return value
            freezer = table.get(kind) or resolved(kind)
            try:
                return freezer(value)
            except RecursionError:
                raise UnkeyableError(kind, "is nested too deep, or contains itself") from None

        return freeze

    def _resolved(self, kind: type) -> Freezer:
        freezer = self._rule(kind)
        if len(self._table) >= _MOST_TYPES:
            self._table.clear()
            self._table.update(self._exact)
        self._table[kind] = freezer
        return freezer

    def _rule(self, kind: type) -> Freezer:
        found = self._first(_RULES, kind)
        if found is not None:
            return found
        for base in _CONTENT:
            if issubclass(kind, base):
                return keys_objects.subclass(kind, base, self._exact[base], self.freeze)
        return self._first(_LAST_RULES, kind) or _refused

    def _first(self, rules: tuple[Rule, ...], kind: type) -> Freezer | None:
        for rule in rules:
            found = rule(kind, self.freeze, self._function)
            if found is not None:
                return found
        return None


def _refused(value: object) -> Hashable:
    raise UnkeyableError(type(value), "equals only itself")


# --- the types that every call has ----------------------------------------------------------------------------------


def _itself(value: Hashable) -> Hashable:
    return value


def _number(value: float) -> Hashable:
    return (float, value) if value and value == value else (float, _PACK(value))  # noqa: PLR0124 - NaN != NaN


def _complex(value: complex) -> Hashable:
    return (complex, _number(value.real), _number(value.imag))


def _boolean(value: bool) -> Hashable:  # noqa: FBT001 - the value that is frozen
    return (bool, value)


def _bytes(value: bytes) -> Hashable:
    return (bytes, value)


def _bytearray(value: bytearray) -> Hashable:
    return (bytearray, bytes(value))


def _holders(freeze: Freeze, function: Callable[[], Digest]) -> dict[type, Freezer]:
    def members(value: list[Any] | tuple[Any, ...]) -> tuple[Hashable, ...]:
        """Texts and whole numbers stand for themselves, and floats go by their bits: such a list is taken at once.

        How many floats there are tells a digest from the bits of a shorter list that somebody made of it.
        """
        if _THEMSELVES.issuperset(map(type, value)):
            return tuple(value)
        if type(value[0]) is float and _FLOATS.issuperset(map(type, value)):
            return (float, len(value), digests.short(_packed(value), function))
        return tuple([freeze(each) for each in value])

    return {
        list: lambda value: (list, members(value)),
        tuple: lambda value: (tuple, members(value)),
        dict: lambda value: (dict, unordered([(freeze(key), freeze(each)) for key, each in value.items()])),
        set: lambda value: (set, unordered([freeze(each) for each in value])),
        frozenset: lambda value: (frozenset, unordered([freeze(each) for each in value])),
    }


def _packed(value: list[float] | tuple[float, ...]) -> bytes:
    numbers = array("d", value)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()


def unordered(frozen: list[Hashable]) -> Hashable:
    """Forget the order but not how often: a set may hold several NaNs, whose keys are equal."""
    unique = frozenset(frozen)
    return unique if len(unique) == len(frozen) else frozenset(Counter(frozen).items())


_THEMSELVES = frozenset({int, str, type(None)})
_FLOATS = frozenset({float})
_ATOMS: dict[type, Freezer] = {
    int: _itself,
    str: _itself,
    type(None): _itself,
    bool: _boolean,
    float: _number,
    complex: _complex,
    bytes: _bytes,
    bytearray: _bytearray,
}
_CONTENT: tuple[type[Any], ...] = (int, str, float, complex, bytes, bytearray, list, tuple, dict, set, frozenset)
_PROCESS = Freezing(digests.function)
freeze = _PROCESS.freeze
keyable = _PROCESS.keyable

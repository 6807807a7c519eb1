"""From a value to a cache key that is equal exactly when the value is: `freeze`.

The key of a value is its type and its content. `1`, `True` and `1.0` differ, -0.0 differs from 0.0, a NaN equals
itself, containers keep their structure, and what can only be compared by its address is refused: an address that is
used again by the next object gives the answer of the one before. The frozen value itself is the key, so nothing
rests on a hash, except for large buffers (arrays, frames), which go in as type, shape and a 128-bit digest.

The table `_FREEZERS` grows by one entry for each type that is met; the rules stand in the keys_*.py files.
"""

from __future__ import annotations

import struct
from collections import Counter
from typing import TYPE_CHECKING, Any

from asyncguard._machines import keys_arrays, keys_builtins, keys_frames, keys_objects
from asyncguard._machines.keys_base import Freezer, UnkeyableError

if TYPE_CHECKING:
    from collections.abc import Hashable

__all__ = ["UnkeyableError", "freeze", "keyable"]

_PACK = struct.Struct("<d").pack
_MOST_TYPES = 4096  # a program that makes classes at run time must not fill the table for ever


def freeze(value: object) -> Hashable:
    """Return a hashable stand-in for `value`, equal for equal values of the same type only.

    An exact `int` or `str` stands for itself (the driver's fast path relies on it), everything else is a tuple that
    begins with a type. Raises UnkeyableError for a value that equals only itself, is nested too deep, or cyclic.
    """
    kind = type(value)
    if kind is str or kind is int:
        return value
    freezer = _FREEZERS.get(kind) or _resolved(kind)
    try:
        return freezer(value)
    except RecursionError:
        raise UnkeyableError(kind, "is nested too deep, or contains itself") from None


def keyable(kind: type) -> bool:
    """Tell whether values of a type may be keyable; False only if none can be."""
    return (_FREEZERS.get(kind) or _resolved(kind)) is not _refused


def _resolved(kind: type) -> Freezer:
    freezer = _resolve(kind)
    if len(_FREEZERS) >= _MOST_TYPES:
        _FREEZERS.clear()
        _FREEZERS.update(_EXACT)
    _FREEZERS[kind] = freezer
    return freezer


def _resolve(kind: type) -> Freezer:
    for rule in _RULES:
        freezer = rule(kind, freeze)
        if freezer is not None:
            return freezer
    for base in _CONTENT:
        if issubclass(kind, base):
            return keys_objects.subclass(kind, base, _EXACT[base], freeze)
    return keys_builtins.rule(kind, freeze) or keys_objects.by_value(kind) or _refused


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


def _list(value: list[Any]) -> Hashable:
    return (list, _members(value))


def _tuple(value: tuple[Any, ...]) -> Hashable:
    return (tuple, _members(value))


def _members(value: list[Any] | tuple[Any, ...]) -> tuple[Hashable, ...]:
    """Freeze the members; texts and whole numbers stand for themselves, so a list of them is taken at once."""
    if _THEMSELVES.issuperset(map(type, value)):
        return tuple(value)
    return tuple([freeze(each) for each in value])


def _dict(value: dict[Any, Any]) -> Hashable:
    return (dict, _unordered([(freeze(key), freeze(each)) for key, each in value.items()]))


def _set(value: set[Any]) -> Hashable:
    return (set, _unordered([freeze(each) for each in value]))


def _frozenset(value: frozenset[Any]) -> Hashable:
    return (frozenset, _unordered([freeze(each) for each in value]))


def _unordered(frozen: list[Hashable]) -> Hashable:
    """Forget the order but not how often: a set may hold several NaNs, whose keys are equal."""
    unique = frozenset(frozen)
    return unique if len(unique) == len(frozen) else frozenset(Counter(frozen).items())


_THEMSELVES = frozenset({int, str, type(None)})
_EXACT: dict[type, Freezer] = {
    int: _itself,
    str: _itself,
    type(None): _itself,
    bool: _boolean,
    float: _number,
    complex: _complex,
    bytes: _bytes,
    bytearray: _bytearray,
    list: _list,
    tuple: _tuple,
    dict: _dict,
    set: _set,
    frozenset: _frozenset,
}
_CONTENT = tuple(kind for kind in _EXACT if kind not in {type(None), bool})
_RULES = (keys_objects.own_key, keys_builtins.enum, keys_frames.rule, keys_arrays.rule, keys_objects.fields)
_FREEZERS: dict[type, Freezer] = dict(_EXACT)

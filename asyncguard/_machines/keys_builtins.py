"""Keys of what the standard library has beyond numbers, texts and containers."""

from __future__ import annotations

import functools
import sys
import types
from array import array
from collections import deque
from collections.abc import Callable, Hashable
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum, Flag
from fractions import Fraction
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import PurePath
from re import Pattern
from typing import Any
from uuid import UUID

from asyncguard._machines import digests
from asyncguard._machines.keys_base import Digest, Freeze, Freezer, UnkeyableError
from asyncguard._machines.owners import without_kept

_TEXT = (Decimal, Fraction, UUID, PurePath, IPv4Address, IPv4Network, IPv6Address, IPv6Network)
_PARTS = (range, slice)
# One object for ever, or at least for as long as a key holds it: identity is the right comparison. A name would not
# be: two closures of one factory share theirs.
_SINGLE = (
    type,
    types.FunctionType,
    types.BuiltinFunctionType,
    types.WrapperDescriptorType,
    types.MethodDescriptorType,
    types.ModuleType,
    type(Ellipsis),
    type(NotImplemented),
)


def enum(kind: type, _freeze: Freeze, _function: Callable[[], Digest]) -> Freezer | None:
    """Return the freezer of an enum class: class and name; flags by their value, a combination may have no name."""
    if issubclass(kind, Flag):
        return lambda value: (kind, value._value_)
    return (lambda value: (kind, value._name_)) if issubclass(kind, Enum) else None


def rule(kind: type, freeze: Freeze, function: Callable[[], Digest]) -> Freezer | None:
    """Return the freezer of one of the standard library's value classes or a subclass of one, None for any other."""
    for bases, freezer in (*_values(kind), *_holders(kind, freeze, function)):
        if issubclass(kind, bases):
            whole = _is_standard(kind) or bases in (tzinfo, _SINGLE)
            return freezer if whole else _with_state(kind, freezer, freeze)
    return None


def _is_standard(kind: type) -> bool:
    return kind.__module__.partition(".")[0] in sys.stdlib_module_names


def _with_state(kind: type, freezer: Freezer, freeze: Freeze) -> Freezer:
    """Return the freezer of a subclass: its content, and what else its objects hold (a currency, say)."""
    own = [each for each in kind.__mro__ if not _is_standard(each)]
    slots = [name for each in own for name, held in vars(each).items() if isinstance(held, types.MemberDescriptorType)]

    def freeze_subclass(value: Any) -> Hashable:
        state = dict(without_kept(getattr(value, "__dict__", None)) or {})
        state.update({name: getattr(value, name) for name in slots if hasattr(value, name)})
        return (kind, freezer(value), freeze(state or None))

    return freeze_subclass


def _values(kind: Any) -> list[tuple[Any, Freezer]]:
    text = next(each for each in kind.__mro__ if _is_standard(each)).__str__  # that of a subclass may leave digits out
    return [
        (datetime, lambda value: _clock(kind, datetime, value)),
        (time, lambda value: _clock(kind, time, value)),
        (date, lambda value: (kind, date.isoformat(value))),
        (timedelta, lambda value: (kind, value.days, value.seconds, value.microseconds)),
        (tzinfo, zone),
        (_TEXT, lambda value: (kind, text(value))),
        (_SINGLE, lambda value: (kind, value)),
    ]


def _holders(kind: type, freeze: Freeze, function: Callable[[], Digest]) -> list[tuple[Any, Freezer]]:
    return [
        (_PARTS, lambda value: (kind, freeze(value.start), freeze(value.stop), freeze(value.step))),
        (Pattern, lambda value: (Pattern, freeze(value.pattern), value.flags)),
        (memoryview, lambda value: _memory(value, function)),
        (array, lambda value: (kind, value.typecode, len(value), digests.short(value.tobytes(), function))),
        (deque, lambda value: (kind, value.maxlen, tuple([freeze(each) for each in value]))),
        (types.MappingProxyType, lambda value: (kind, freeze(dict(value)))),
        (functools.partial, lambda value: (kind, freeze((value.func, value.args, value.keywords)))),
        (types.MethodType, lambda value: (kind, freeze(value.__func__), freeze(value.__self__))),
        (types.GenericAlias, lambda value: (kind, freeze((value.__origin__, value.__args__)), value.__unpacked__)),
        (types.UnionType, lambda value: (kind, freeze(frozenset(value.__args__)))),
    ]


def _memory(value: memoryview, function: Callable[[], Digest]) -> Hashable:
    try:
        layout, content = value.format, value.tobytes()
    except (NotImplementedError, ValueError) as error:  # released
        raise UnkeyableError(memoryview, f"cannot be read ({error})") from None
    if "O" in (layout or ""):
        raise UnkeyableError(memoryview, "holds addresses of objects")
    return (memoryview, layout, value.shape, digests.short(content, function))


def _clock(kind: type, base: Any, value: Any) -> Hashable:
    """Keep the zone: the same instant written in two zones is equal, but what is made of it may not be."""
    return (kind, base.isoformat(value.replace(tzinfo=None)), value.fold, zone_of(value))


def zone_of(value: Any) -> Hashable:
    """Freeze the zone of a moment, and its offset then."""
    return None if value.tzinfo is None else (zone(value.tzinfo), _span(value.utcoffset()))


def _span(value: timedelta | None) -> Hashable:
    return None if value is None else (value.days, value.seconds, value.microseconds)


def zone(value: tzinfo) -> Hashable:
    """Freeze a time zone by its offset and name, or by how its class writes it."""
    kind = type(value)
    if isinstance(value, timezone):
        return (kind, _span(value.utcoffset(None)), value.tzname(None))
    if (kind.__str__, kind.__repr__) == (object.__str__, object.__repr__) or getattr(value, "key", "") is None:
        raise UnkeyableError(kind, "equals only itself")  # what it would write is its address, or that it has no name
    return (kind, str(value))

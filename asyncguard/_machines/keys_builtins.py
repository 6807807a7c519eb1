"""Keys of what the standard library has beyond numbers, texts and containers."""

from __future__ import annotations

import functools
import types
from collections import deque
from collections.abc import Hashable
from datetime import date, datetime, time, timedelta, tzinfo
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import PurePath
from re import Pattern
from typing import Any
from uuid import UUID

from asyncguard._machines import digests
from asyncguard._machines.keys_base import Freeze, Freezer

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
    types.GenericAlias,
    types.UnionType,
    type(Ellipsis),
    type(NotImplemented),
)


def enum(kind: type, _freeze: Freeze) -> Freezer | None:
    """Return the freezer of an enum class: class and name, or the value of a combination of flags that has no name."""
    if not issubclass(kind, Enum):
        return None
    return lambda value: (kind, value.value if value.name is None else value.name)


def rule(kind: type, freeze: Freeze) -> Freezer | None:
    """Return the freezer of one of the standard library's value classes, None for any other class."""
    for bases, freezer in _rules(kind, freeze):
        if issubclass(kind, bases):
            return freezer
    return None


def _rules(kind: type, freeze: Freeze) -> list[tuple[Any, Freezer]]:
    return [
        ((datetime, time), _clock),
        (date, lambda value: (kind, value.isoformat())),
        (timedelta, lambda value: (kind, value.days, value.seconds, value.microseconds)),
        (tzinfo, _zone),
        (_TEXT, lambda value: (kind, str(value))),
        (_PARTS, lambda value: (kind, freeze(value.start), freeze(value.stop), freeze(value.step))),
        (Pattern, lambda value: (Pattern, freeze(value.pattern), value.flags)),
        (memoryview, lambda value: (memoryview, value.format, value.shape, digests.of_bytes(value.tobytes()))),
        (deque, lambda value: (kind, value.maxlen, tuple([freeze(each) for each in value]))),
        (types.MappingProxyType, lambda value: (types.MappingProxyType, freeze(dict(value)))),
        (functools.partial, lambda value: (kind, freeze((value.func, value.args, value.keywords)))),
        (types.MethodType, lambda value: (types.MethodType, value.__func__, freeze(value.__self__))),
        (_SINGLE, lambda value: (kind, value)),
    ]


def _clock(value: datetime | time) -> Hashable:
    """Keep the zone: the same instant written in two zones is equal, but what is made of it may not be."""
    zone = None if value.tzinfo is None else (_zone(value.tzinfo), value.utcoffset())
    return (type(value), value.replace(tzinfo=None), value.fold, zone)


def _zone(value: tzinfo) -> Hashable:
    return (type(value), str(value))

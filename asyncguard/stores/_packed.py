"""Plain values as msgpack, with extension types for what msgpack does not tell apart or does not know.

What comes back is of the same type: a tuple is no list, a set no list, an int of any length. Subclasses (an `IntEnum`,
a `Counter`) are refused, since they would come back as their base.
Source: https://github.com/msgpack/msgpack/blob/master/spec.md.
"""

from __future__ import annotations

import functools
import importlib
import struct
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any, cast
from uuid import UUID

from asyncguard.stores import _arrays

_MOST_DEPTH = 64
_BUFFERS = frozenset({bytearray, memoryview})
_CONTAINERS: frozenset[type] = frozenset({list, dict})
_SPAN = struct.Struct("<qii")
_COMPLEX = struct.Struct("<dd")


@functools.cache
def _msgpack() -> Any:
    return importlib.import_module("msgpack")


def pack(value: Any, depth: int = 0) -> bytes:
    """Return the bytes of a value; raises TypeError for a class that cannot be written, or an error of msgpack's."""
    if depth > _MOST_DEPTH:
        raise ValueError("nested too deep")

    _refuse_buffers((value,))

    def default(each: Any) -> Any:
        return _extension(each, depth + 1)

    return bytes(_msgpack().packb(value, default=default, strict_types=True, unicode_errors="surrogatepass"))


def _refuse_buffers(members: Any) -> None:
    """Raise TypeError for a bytearray or memoryview, which msgpack writes as if they were bytes."""
    inside = set(map(type, members))
    if not inside.isdisjoint(_BUFFERS):
        raise TypeError("a bytearray or memoryview would come back as bytes")
    if inside.isdisjoint(_CONTAINERS):
        return
    for each in members:
        if type(each) in _CONTAINERS:
            _refuse_buffers(each)
            if type(each) is dict:
                _refuse_buffers(each.values())


def unpack(data: bytes | memoryview) -> Any:
    """Return the value; raises any Exception for bytes that are none of ours."""
    return _msgpack().unpackb(
        data, ext_hook=_value, strict_map_key=False, unicode_errors="surrogatepass", timestamp=0, raw=False
    )


def _extension(value: Any, depth: int) -> Any:
    known = _BY_CLASS.get(cast("type[object]", type(value)))
    if known is not None:
        code, write, _ = known
        content = write(value, depth)
    elif _arrays.is_array(value):
        code, content = _ARRAY, _arrays.pack(value)
    elif _arrays.is_scalar(value):
        code, content = _SCALAR, _arrays.pack_scalar(value)
    else:
        raise TypeError(f"{type(value).__module__}.{type(value).__qualname__} cannot be written safely")
    return _msgpack().ExtType(code, content)


def _value(code: int, content: bytes) -> Any:
    return _BY_CODE[code](content)


# --- extension types --------------------------------------------------------------------------------------------------


def _members(value: Any, depth: int) -> bytes:
    return pack(list(value), depth)


def _long(value: int, depth: int) -> bytes:
    del depth
    return value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)


def _zoned(value: datetime | time, depth: int) -> bytes:
    """Write a moment in no zone or at a fixed distance from UTC; a named zone would come back as another object."""
    if value.tzinfo is not None and type(value.tzinfo) is not timezone:
        raise TypeError(f"a {type(value).__name__} in the zone {value.tzinfo} cannot be written safely: use UTC")
    return pack([value.isoformat(), value.fold], depth)


def _moment(kind: Any) -> Callable[[bytes], Any]:
    def read(content: bytes) -> Any:
        text, fold = unpack(content)
        return kind.fromisoformat(text).replace(fold=fold)

    return read


def _text_of(value: Any, depth: int) -> bytes:
    del depth
    return str(value).encode("ascii")


def _span(value: timedelta, depth: int) -> bytes:
    del depth
    return _SPAN.pack(value.days, value.seconds, value.microseconds)


_ARRAY, _SCALAR = 20, 21
_BY_CLASS: dict[type, tuple[int, Callable[[Any, int], bytes], Callable[[bytes], Any]]] = {
    tuple: (1, _members, lambda content: tuple(unpack(content))),
    set: (2, _members, lambda content: set(unpack(content))),
    frozenset: (3, _members, lambda content: frozenset(unpack(content))),
    int: (4, _long, lambda content: int.from_bytes(content, "little", signed=True)),
    complex: (5, lambda value, _depth: _COMPLEX.pack(value.real, value.imag), lambda c: complex(*_COMPLEX.unpack(c))),
    datetime: (6, _zoned, _moment(datetime)),
    time: (7, _zoned, _moment(time)),
    date: (8, _text_of, lambda content: date.fromisoformat(content.decode("ascii"))),
    timedelta: (9, _span, lambda content: timedelta(*_SPAN.unpack(content))),
    Decimal: (10, _text_of, lambda content: Decimal(content.decode("ascii"))),
    UUID: (11, lambda value, _depth: value.bytes, lambda content: UUID(bytes=content)),
}
_BY_CODE: dict[int, Callable[[bytes], Any]] = {code: read for code, _, read in _BY_CLASS.values()}
_BY_CODE[_ARRAY] = _arrays.unpack
_BY_CODE[_SCALAR] = _arrays.unpack_scalar

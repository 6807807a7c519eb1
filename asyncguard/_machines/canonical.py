"""A value as bytes that are the same in every process, on every machine and from Python 3.11 on: keys of shared stores.

The rules are those of `keys`: a value is frozen, only with SHA-256 for large buffers, and the frozen value is written
down here. So two values have the same bytes exactly when they share a key. Each part is a letter for its kind, the
length of its content, and the content (docs/explanation/cache-keys.md has the table), so that no two values run into
each other; members of sets and dicts are sorted by their bytes. Classes and functions go in by name, if their module
has them under that name.
"""

from __future__ import annotations

import hashlib
import struct
import sys
import types
from collections.abc import Callable, Hashable, Iterable
from typing import Any

from asyncguard._machines import digests, equals
from asyncguard._machines.keys import Freezing, UnkeyableError
from asyncguard._machines.store_names import NamelessError, known_name

__all__ = ["Hash", "UnkeyableError", "encode", "encode_key", "freeze", "name_of"]

_PACK = struct.Struct("<d").pack
_NAMED = (type, types.FunctionType, types.BuiltinFunctionType)
_HASHES = Freezing(lambda: digests.sha256)
freeze = _HASHES.freeze


class Hash:
    """The SHA-256 of several values, one after the other."""

    __slots__ = ("_state",)

    def __init__(self, *values: object) -> None:
        self._state = hashlib.sha256()
        for value in values:
            self.add(encode(value))

    def add(self, encoded: bytes) -> Hash:
        """Add the bytes of a value; return itself."""
        self._state.update(encoded)
        return self

    def fork(self) -> Hash:
        """Return another one that goes on from here."""
        made = Hash()
        made._state = self._state.copy()
        return made

    def hex(self) -> str:
        """Return 64 hexadecimal digits."""
        return self._state.hexdigest()


def encode(value: object) -> bytes:
    """Return the bytes of a value.

    Raises UnkeyableError for what means something in this process only: local classes and functions, those of
    `__main__`, and objects whose equality only their own code knows.
    """
    try:
        return encode_key(freeze(value))
    except RecursionError:
        raise UnkeyableError(type(value), "is nested too deep, or contains itself") from None


def encode_key(key: Hashable) -> bytes:
    """Return the bytes of a key that `freeze` has made, or of a tuple of such keys."""
    return (_LETTERS.get(type(key)) or _other)(key)


def name_of(value: Any) -> str:
    """Return the full name of a class or function that every process finds under that name.

    Raises UnkeyableError for local ones, lambdas, those of `__main__`, and those that their module does not have.
    """
    try:
        return known_name(value)
    except NamelessError as error:
        kind: type[Any] = value if isinstance(value, type) else type(value)
        raise UnkeyableError(kind, f"has no key for a store: {error}") from None


def _other(value: Any) -> bytes:
    if isinstance(value, _NAMED):
        return _sized(b"n", name_of(value).encode())
    numpy: Any = sys.modules.get("numpy")
    if numpy is not None:
        if isinstance(value, numpy.dtype):
            return encode_key(_dtype(value))
        name: str = value.__name__ if isinstance(value, numpy.ufunc) else ""
        if name and getattr(numpy, name, None) is value:
            return _sized(b"n", f"numpy.{name}".encode())
    if isinstance(value, types.EllipsisType | types.NotImplementedType):
        return _sized(b"n", f"builtins.{value!r}".encode())
    raise _meaningless(value.value if isinstance(value, equals.StandIn) else value)


def _meaningless(value: object) -> UnkeyableError:
    return UnkeyableError(
        type(value), "means something in this process only, so other processes could not share its key"
    )


def _dtype(dtype: Any) -> Hashable:
    """Describe a dtype: its code, for fields their names, offsets and dtypes, else also the class of its scalars.

    The class is more than the code for dtypes that other libraries add: bfloat16 is laid out like any two bytes.
    """
    if dtype.fields is not None:
        fields = [(name, at, _dtype(kind), *title) for name in dtype.names for kind, at, *title in [dtype.fields[name]]]
        return ("fields", dtype.itemsize, tuple(fields))
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return ("repeated", _dtype(base), tuple(shape))
    if dtype.kind == "T":
        return ("text", repr(dtype))
    own = dtype.type.__module__.partition(".")[0] != "numpy"
    return ("dtype", dtype.str, name_of(dtype.type) if own else "")


# --- bytes ------------------------------------------------------------------------------------------------------------


def _sized(letter: bytes, content: bytes) -> bytes:
    return b"%b%d:%b" % (letter, len(content), content)


def _joined(letter: bytes, members: Iterable[bytes]) -> bytes:
    return _sized(letter, b"".join(members))


def _integer(value: int) -> bytes:
    return _sized(b"i", value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True))


_LETTERS: dict[type, Callable[[Any], bytes]] = {
    type(None): lambda _none: b"N0:",
    bool: _integer,
    int: _integer,
    float: lambda value: _sized(b"b", _PACK(value)),
    str: lambda value: _sized(b"s", value.encode("utf-8", "surrogatepass")),
    bytes: lambda value: _sized(b"b", value),
    tuple: lambda value: _joined(b"t", map(encode_key, value)),
    frozenset: lambda value: _joined(b"u", sorted(map(encode_key, value))),
}

"""What a cache does with a value: refuse it, keep it apart from its callers, measure it."""

from __future__ import annotations

import copy
import io
import sys
from array import array
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

_CONTAINERS = (dict, list, set, bytearray, deque, array)
_REBUILT = frozenset({dict, list})
_ATOMS = frozenset({int, float, complex, bool, str, bytes, type(None)})
_SEQUENCES: frozenset[Any] = frozenset({list, tuple})
_DEPTH = 3  # how deep arrays inside of containers are looked for
_HEADER = 112  # bytes of an array object without its buffer
_SAMPLE = 32  # so many members of a container are measured, the rest is extrapolated

Copier = Callable[[Any], Any]


def refuse(name: str, value: Any) -> None:
    """Raise TypeError for a value that can be used once only: a coroutine, an iterator, a stream, an open file."""
    if not is_used_once(value):
        return
    close = getattr(value, "close", None)
    kind = value.__class__
    if issubclass(kind, Awaitable) and callable(close):
        close()  # else Python warns that the coroutine was never awaited
    raise TypeError(
        f"{name} returned a {kind.__name__}, which can be used only once and cannot be cached: "
        "return what it yields (a list, bytes), or take the cache away"
    )


def is_used_once(value: Any) -> bool:
    """Tell whether a value is gone after its first use."""
    return type(value) not in _ATOMS and isinstance(value, Awaitable | Iterator | AsyncIterator | io.IOBase)


# --- isolation --------------------------------------------------------------------------------------------------------


def isolated(value: Any, isolation: str, *, own: bool = False) -> tuple[Any, Copier | None]:
    """Return the value as it is stored, and how each caller's own is made of it (None: all share it).

    "auto": immutable values as they are; numpy arrays read-only, and a copy of those that the function could still
    change (a buffer that it uses again, a view of one); `dict`, `list`, `set`, `bytearray` and the like copied one
    level deep, when stored and for each caller, and tensors, frames and masked arrays whole. "share": everything as it
    is. "copy": a full copy when stored and for each caller. `own`: nobody else has the value, so storing needs no copy.
    """
    if isolation == "share" or type(value) in _ATOMS:
        return value, None
    if isolation == "copy":
        return (value if own else _copy_of(value)), _copy_of
    copier = _copier(value)
    if own or copier is None or type(value) in _REBUILT:
        return _frozen(value, _DEPTH, own=own), copier
    return copier(value), copier


def _copier(value: Any) -> Copier | None:
    if isinstance(value, _CONTAINERS):
        return copy.copy
    root = type(value).__module__.partition(".")[0]
    if root == "torch" and hasattr(value, "detach"):
        return _clone
    whole = root in {"pandas", "cupy"} or is_masked(value)  # of a read-only masked array the mask can be changed
    return _copied if whole and hasattr(value, "copy") else None


def is_masked(value: Any) -> bool:
    """Tell whether a value is a masked array of numpy's."""
    masked = sys.modules.get("numpy.ma")
    return masked is not None and isinstance(value, masked.MaskedArray)


def _clone(value: Any) -> Any:
    return value.clone()


def _copied(value: Any) -> Any:
    return value.copy()


def _frozen(value: Any, depth: int, *, own: bool = False) -> Any:
    """Return a value that the function cannot change any more: new containers, arrays as read-only ones of our own."""
    kind = value.__class__
    if kind in _ATOMS or depth == 0:
        return value
    if kind is dict:
        return {key: each if type(each) in _ATOMS else _frozen(each, depth - 1) for key, each in value.items()}
    if kind in _SEQUENCES:
        return kind([each if type(each) in _ATOMS else _frozen(each, depth - 1) for each in value])
    if kind is memoryview:
        return _memory(value)
    numpy: Any = sys.modules.get("numpy")
    if hasattr(numpy, "ndarray") and isinstance(value, numpy.ndarray):  # else another thread is still importing it
        return _read_only(value if own or _is_fixed(value, numpy) else value.copy(order="K"))
    return value


def _read_only(values: Any) -> Any:
    view = values.view()
    view.flags.writeable = False
    return view


def _is_fixed(values: Any, numpy: Any) -> bool:
    """Tell whether an array cannot be changed: it and what it is a view of are read-only, or it is a file's content."""
    each = values
    while isinstance(each, numpy.ndarray):
        if isinstance(each, numpy.memmap):
            return True
        if each.flags.writeable:
            return False
        each = each.base
    return each is None or isinstance(each, bytes)


def _memory(view: memoryview) -> memoryview:
    if isinstance(view.obj, bytes):
        return view
    content = memoryview(view.tobytes())
    if (view.format, view.ndim) == ("B", 1):
        return content
    try:
        return content.cast(view.format, view.shape)  # type: ignore[call-overload,no-any-return]
    except (TypeError, ValueError):  # a format that `cast` does not know
        return view.toreadonly()


def _copy_of(value: Any) -> Any:
    try:
        return _deep(value)
    except RecursionError:  # it contains itself
        return copy.deepcopy(value)


def _deep(value: Any) -> Any:
    """Copy a value; atoms and builtin containers by hand, which is ten times cheaper than `copy.deepcopy`."""
    kind = value.__class__
    if kind in _ATOMS:
        return value
    if kind is list:
        return [each if type(each) in _ATOMS else _deep(each) for each in value]
    if kind is dict:
        return {key: each if type(each) in _ATOMS else _deep(each) for key, each in value.items()}
    return _clone(value) if kind.__module__ == "torch" else copy.deepcopy(value)


# --- size -------------------------------------------------------------------------------------------------------------


def size_of(value: Any) -> int:
    """Estimate how many bytes a value pins. A view of an array counts as the whole array that it keeps alive."""
    return _size(value, _DEPTH)


def _size(value: Any, depth: int) -> int:
    try:
        return _measured(value, depth)
    except Exception:  # noqa: BLE001 - a foreign __sizeof__ or property must not cost anybody the value
        return _HEADER


def _measured(value: Any, depth: int) -> int:
    own = sys.getsizeof(value)
    if type(value) in _ATOMS:
        return own
    buffer = _buffer_size(value)
    if buffer is not None:
        return max(own, buffer + _HEADER)  # an array counts its buffer itself if it owns it, and not if it is a view
    if depth == 0:
        return own
    kind = value.__class__
    if issubclass(kind, dict):
        return own + _members(list(value.keys()), depth) + _members(list(value.values()), depth)
    if issubclass(kind, list | tuple | set | frozenset):
        return own + _members(list(value), depth)
    attributes = getattr(value, "__dict__", None)
    return own + (_members(list(attributes.values()), depth) if attributes else 0)


def _members(members: list[Any], depth: int) -> int:
    """Measure members, a sample of equal distances where they are many."""
    step = max(1, len(members) // _SAMPLE)
    sample = members[::step]
    measured = sum(_size(each, depth - 1) for each in sample)
    return measured * len(members) // max(1, len(sample))


def _buffer_size(value: Any) -> int | None:
    if hasattr(value, "untyped_storage"):
        return int(value.untyped_storage().nbytes())
    nbytes = getattr(value, "nbytes", None)
    if not isinstance(nbytes, int):
        return None
    base = getattr(value, "base", None)
    while base is not None and hasattr(base, "nbytes"):
        nbytes, base = max(nbytes, base.nbytes), getattr(base, "base", None)
    return nbytes

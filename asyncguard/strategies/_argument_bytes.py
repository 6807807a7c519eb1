"""The size of a call's arguments, as far as it can be seen quickly: a hint of what the call will need."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any, cast

__all__ = ["argument_bytes"]

_MOST_ITEMS = 1000
_DEPTH = 3


def argument_bytes(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """Return the bytes of the arrays, strings and buffers among the arguments, and in lists and dicts of them.

    At most a thousand items of each list are looked at; the others count as these do on average.
    """
    try:
        return _all(args, _DEPTH) + _all(kwargs.values(), _DEPTH)
    except Exception:  # noqa: BLE001 - a proxy that refuses to be looked at; a hint is not worth an error
        return 0


def _all(values: Iterable[Any], depth: int) -> int:
    return sum(_size(value, depth) for value in values)


def _size(value: object, depth: int) -> int:
    if isinstance(value, str | bytes | bytearray):
        return len(value)
    if isinstance(value, list | tuple):
        return _sample(cast("list[Any]", value), depth)
    if isinstance(value, dict):
        values = cast("dict[object, Any]", value).values()
        return _all(islice(values, _MOST_ITEMS), depth - 1) if depth else 0
    try:
        nbytes = getattr(value, "nbytes", 0)
    except Exception:  # noqa: BLE001 - a property of the user's class: the other arguments still count
        return 0
    return nbytes if isinstance(nbytes, int) and nbytes > 0 else 0


def _sample(values: Sequence[Any], depth: int) -> int:
    if not depth or not values:
        return 0
    seen = values[:_MOST_ITEMS]
    return _all(seen, depth - 1) * len(values) // len(seen)

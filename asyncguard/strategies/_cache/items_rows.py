"""Taking the result of a batch apart into rows, and putting rows together again as what the function returns."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any, cast

from asyncguard._machines.entries import Entry
from asyncguard.strategies._cache.values import is_masked

Join = Callable[[Sequence[Entry]], Any]

_HOMES = {"numpy": "numpy", "torch": "torch", "cupy": "cupy", "jax": "jax.numpy", "jaxlib": "jax.numpy"}
"""Where the arrays of a library are stacked, by the first part of the name of their module."""


class Row(Entry):
    """The entry of one item, with how rows of its kind are put together."""

    __slots__ = ("join",)

    join: Join


def split(name: str, result: Any, expected: int) -> tuple[list[Any], Join]:
    """Return the rows of a result and how to join them.

    Rows of an array are copied: as a view, one row would keep the whole batch in memory. Raises TypeError for a result
    that is no list, tuple, array or tensor, and ValueError if it has not one row for each of the `expected` items.
    """
    join = _join_of(result)
    if join is None:
        raise TypeError(
            f"{name} is cached item by item and has to return a list, a tuple, an array or a tensor with one row for "
            f"each item, got {type(result).__name__}"
        )
    if len(result) != expected:
        raise ValueError(f"{name} was called with {expected} items and returned {len(result)} results")
    if isinstance(result, list | tuple):
        return list(cast("Any", result)), join
    return [_own(row) for row in result], join


def _own(row: Any) -> Any:
    if hasattr(row, "clone"):
        return row.clone()
    return row.copy() if hasattr(row, "copy") and hasattr(row, "dtype") else row


def _join_of(result: Any) -> Join | None:
    if isinstance(result, list):
        return as_list
    if isinstance(result, tuple):
        return as_tuple
    if not getattr(result, "shape", None):
        return None
    root = type(result).__module__.partition(".")[0]
    if root == "numpy" and result.dtype.hasobject:
        return as_objects
    home = _HOMES.get(root)
    if home == "numpy":  # a masked array has more than its rows: `stack` would lose the mask
        return None if is_masked(result) else of_numpy
    return None if home is None else functools.partial(stacked, home)


def as_list(rows: Sequence[Entry]) -> list[Any]:
    """Join rows as a list, each caller with its own of each row."""
    return [row.value if row.copy is None else row.copy(row.value) for row in rows]


def as_tuple(rows: Sequence[Entry]) -> tuple[Any, ...]:
    """Join rows as a tuple."""
    return tuple(as_list(rows))


def stacked(home: str, rows: Sequence[Entry]) -> Any:
    """Stack rows as a new array or tensor, by the library that they come from."""
    return sys.modules[home].stack([row.value for row in rows])


of_numpy: Join = functools.partial(stacked, "numpy")


def as_objects(rows: Sequence[Entry]) -> Any:
    """Stack rows of Python objects as a new numpy array, whatever numpy would take them for."""
    first = rows[0].value
    array = sys.modules["numpy"].empty((len(rows), *getattr(first, "shape", ())), dtype=object)
    for at, row in enumerate(rows):
        array[at] = row.give()
    return array


NOT_OWN: frozenset[Join] = frozenset({as_list, as_tuple, as_objects})
"""How rows are joined that the function may still have; those of arrays and tensors have been copied."""


def items_of(name: str, over: str, given: Any) -> list[Any]:
    """Return the items of the argument, which has to be a sequence or an array.

    Raises TypeError for anything else: an iterator would be used up by looking at it.
    """
    if type(given) is list:
        return list(cast("Any", given))
    is_array = bool(getattr(given, "shape", ())) and hasattr(given, "dtype") and not is_masked(given)
    if isinstance(given, Sequence) and not isinstance(given, str | bytes | bytearray):
        return list(cast("Any", given))
    if is_array:
        return list(given)
    raise TypeError(
        f"{name} is cached item by item over {over!r}, which has to be a list, a tuple or an array, "
        f"got {type(given).__name__}"
    )


def like(given: Any, items: list[Any]) -> Any:
    """Return items in a container like the one that was given."""
    if isinstance(given, tuple):
        return tuple(items)
    root = type(given).__module__.partition(".")[0]
    if hasattr(given, "shape") and root in {"numpy", "torch"}:
        return sys.modules[root].stack(items)
    return items

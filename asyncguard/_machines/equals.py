"""One stand-in for all objects that are equal by their own `__eq__` and `__hash__`.

Keys are looked up under locks, where no code of the user may run: it may wait for another lock, call the same cached
function, or raise. So equal objects are found here, without a lock, and the key holds their stand-in, which is compared
by identity and lives as long as a key does.
"""

from __future__ import annotations

import weakref
from typing import Any

from asyncguard._machines.keys_base import UnkeyableError


class StandIn:
    """Stands for all objects that equal `value`."""

    __slots__ = ("__weakref__", "value")

    def __init__(self, value: object) -> None:
        self.value = value


class _Reference(weakref.ref[StandIn]):
    """A reference that knows its place in the table: the table is tidied without asking the dead object."""

    __slots__ = ("place",)
    place: tuple[type, int]


_table: dict[tuple[type, int], list[_Reference]] = {}


def stand_in(kind: type[Any], value: object) -> StandIn:
    """Return the stand-in of an object of class `kind`.

    Raises UnkeyableError if its hash, or a comparison with an object of equal hash, raises.
    """
    try:
        place = (kind, hash(value))
    except Exception as error:  # noqa: BLE001 - code of the user
        raise UnkeyableError(kind, f"has no hash ({error})") from None
    try:
        return _find(place, value) or _add(place, value)
    except Exception as error:
        raise UnkeyableError(kind, f"cannot be compared ({error})") from error


def _find(place: tuple[type, int], value: object) -> StandIn | None:
    for reference in tuple(_table.get(place, ())):
        found = reference()
        if found is not None and (found.value is value or found.value == value):
            return found
    return None


def _add(place: tuple[type, int], value: object) -> StandIn:
    """Add one, and look again: of several threads that do so at the same time, all find the first."""
    made = StandIn(value)
    reference = _Reference(made, _tidy)
    reference.place = place
    _table.setdefault(place, []).append(reference)
    return _find(place, value) or made


def _tidy(reference: weakref.ref[StandIn]) -> None:
    """Forget a stand-in that no key holds; the garbage collector calls this in any thread."""
    assert isinstance(reference, _Reference)  # noqa: S101 - for the type checker
    references = _table.get(reference.place, [])
    if reference in references:
        references.remove(reference)
    if not references:
        _table.pop(reference.place, None)  # one that is added meanwhile is lost: the next equal object gets another

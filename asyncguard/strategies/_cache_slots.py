"""One value between a store and this process: where it belongs, and how it becomes an entry of its age."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from asyncguard._machines.entries import Entry, Lifetime
from asyncguard._machines.flight import Flight
from asyncguard.strategies import _cache_values as values
from asyncguard.strategies._cache_rows import Join, Row, as_list, as_tuple, of_numpy

if TYPE_CHECKING:
    from asyncguard.strategies._cache_batch import Batch
    from asyncguard.strategies._cache_calls import Call
    from asyncguard.strategies._cache_core import Cell


class Slot:
    """The place of one value in a store: its key, that of its lease, and the flight that wants it."""

    __slots__ = ("flight", "key", "lease", "spare", "token")

    def __init__(self, key: str, lease: str, flight: Flight, spare: Entry | None = None) -> None:
        self.key = key
        self.lease = lease
        self.flight = flight
        self.spare = spare
        self.token: bytes | None = None


class Looked:
    """What a look into a store has brought, if it answered; `there` has those of the other keys that it has."""

    __slots__ = ("answered", "entries", "there")

    def __init__(self, found: Mapping[str, Any] | None, entries: dict[Slot, Entry], there: set[str]) -> None:
        self.answered = found is not None
        self.entries = entries
        self.there = there


_JOINS: tuple[Join | None, ...] = (None, as_list, as_tuple, of_numpy)
FORM_OF: dict[Any, int] = {join: form for form, join in enumerate(_JOINS) if join is not None}


def entry_of(form: int, value: Any, copy: Any) -> Entry:
    """Return an entry of a whole value, or of a row with how rows of its form are put together."""
    join = _JOINS[form]
    if join is None:
        return Entry(value, copy)
    row = Row(value, copy)
    row.join = join
    return row


def put(at: Call | Batch, cell: Cell, slot: Slot, entry: Entry) -> None:
    """Keep an entry that was in the store in this process as well, for what is left of its life."""
    flight = slot.flight
    if at.terms.max_bytes is not None:
        entry.size = values.size_of(entry.value) + values.size_of(flight.key)
    at.bound.report(cell.store.put(cell, flight.key, entry, at.terms.bounds, at.core.now(), flight), entry.size)


def life_of(at: Call | Batch, ttl: float) -> Lifetime:
    """Return how long a value of the store lives here: by our options, and no longer than its writer said."""
    options: Any = at.terms.options
    own = ttl if callable(options.ttl) else min(ttl, options.ttl)
    refresh_at = 1.0 if options.refresh_at is None else options.refresh_at
    return Lifetime(own, options.stale_while_revalidate, options.stale_if_error, refresh_at)

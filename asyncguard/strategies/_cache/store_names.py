"""What the values of one function are called in a store: keys that mean the same in every process."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from asyncguard._machines.canonical import Hash, encode, encode_key
from asyncguard._machines.store_names import NamelessError, store_name

if TYPE_CHECKING:
    from asyncguard._machines.entries import Entry
    from asyncguard._machines.flight import Flight
    from asyncguard.strategies._cache.bound import Bound
    from asyncguard.strategies._cache.calls import Call
    from asyncguard.strategies._cache.items_batch import Batch
    from asyncguard.strategies._cache.place import Args, Kwargs, Place

_LONGEST_NAME = 60
_LONGEST_VERSION = 24


@dataclass(slots=True, eq=False)
class Slot:
    """The place of one value in a store: its key, that of its lease, and the flight that wants it.

    `spare` is what may answer if computing fails, `token` is what holds the lease.
    """

    key: str
    lease: str
    flight: Flight
    spare: Entry | None
    token: bytes | None = None


class Names:
    """The keys of one function in a store, under the key rules of a place. `cleared` is that of the mark of a clear."""

    def __init__(self, bound: Bound, place: Place, namespace: str, *, items: bool) -> None:
        name, version = _name_of(bound), place.rules.version
        self._bound = bound
        self._place = place
        self._items = items
        self._keyer = place.keyer.for_store()
        self._base = Hash("asyncguard 1", namespace, name, version, items)
        readable = f"{_plain(name)[-_LONGEST_NAME:]}:{_plain(version or '')[:_LONGEST_VERSION]}"
        self._prefix = f"ag1:{namespace}:{readable}:"
        self.cleared = self.key_of(self._base.fork().add(b"clear"))

    def slot(self, call: Call, flight: Flight) -> Slot:
        """Return the slot of the value of a call."""
        return self._slot(self.hash_of(call.args, call.kwargs), flight, call.entry)

    def slots(self, batch: Batch, flights: Iterable[Flight]) -> list[Slot]:
        """Return the slots of items of a batch."""
        base = self.hash_of(batch.args, batch.kwargs)
        return [
            self._slot(self._hash_of_item(base, batch, each.key), each, batch.spare.get(each.key)) for each in flights
        ]

    def tag(self, tag: Hashable) -> str:
        """Return the key of the mark that a tag was invalidated."""
        return self.key_of(self._base.fork().add(b"tag").add(encode(str(tag))))

    def key_of(self, found: Hash) -> str:
        """Return the key in the store that a hash stands for."""
        return self._prefix + found.hex()

    def hash_of(self, args: Args, kwargs: Kwargs) -> Hash:
        """Return the hash of the function and what makes up the key of a call; of a batch, without the items.

        Raises TypeError naming the parameter whose argument means something in this process only.
        """
        args = self._bound.full(args)
        found = self._base.fork().add(b"value")
        owner = self._place.owner(args, kwargs)
        if owner is not self._place:
            found.add(self._owner(owner))
        key = self._place.rules.key
        if self._items:
            return found.add(encode_key(self._keyer.of_values(self._keyer.bind(args, kwargs))))
        if key is not None:
            return found.add(encode_key(self._keyer.of_value("key=", key(*args, **kwargs))))
        return found.add(encode_key(self._keyer(args, kwargs)))

    def _hash_of_item(self, base: Hash, batch: Batch, item_key: Hashable) -> Hash:
        key, item = self._place.rules.key, batch.items[item_key]
        name, value = (batch.options.over, item) if key is None else ("key=", key(item))
        return base.fork().add(encode_key(self._keyer.of_value(name, value)))

    def _slot(self, found: Hash, flight: Flight, spare: Entry | None) -> Slot:
        return Slot(self.key_of(found), self.key_of(found.fork().add(b"lease")), flight, spare)

    def _owner(self, owner: Any) -> bytes:
        kind = cast("type[object]", type(owner))
        if not hasattr(kind, "__cache_key__"):
            raise TypeError(
                f"{self._bound.name}: which {kind.__qualname__} it is means something in this process only; for a "
                "store give the class a method __cache_key__() that returns what its objects differ by, or "
                'ignore=("self",) if the result does not depend on the object'
            )
        return encode_key(self._keyer.of_value("self", owner))


def _name_of(bound: Bound) -> str:
    """Return the name of a function in stores; raises TypeError if it has none."""
    if not bound.is_async:
        raise TypeError(f"{bound.name}: store= is for async def functions, its clients are asyncio's")
    try:
        return store_name(bound.site.function)
    except NamelessError as error:
        raise TypeError(f"{bound.name} cannot have a store: {error}") from None


def _plain(text: str) -> str:
    return "".join(each if each.isascii() and (each.isalnum() or each in "._-") else "_" for each in text)

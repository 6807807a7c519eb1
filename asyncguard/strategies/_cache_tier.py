"""What one function has in a store: under which names, in which form, and since when it counts.

A value counts if its computation began after the last `clear` of the function and the last `invalidate_tag` of each of
its tags. Both are a moment under a name of its own, read together with the value: no store has to be searched.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from asyncguard import events
from asyncguard._machines.canonical import Hash, encode, encode_key
from asyncguard._machines.entries import Entry
from asyncguard._machines.flight import Flight, State
from asyncguard._machines.store_names import NamelessError, store_name
from asyncguard._runtime import clock as clocks
from asyncguard.stores import _envelope
from asyncguard.stores._aiocache import AiocacheStore
from asyncguard.stores._backends import MOST_TTL
from asyncguard.stores._codec import annotation_of
from asyncguard.stores._facts import Failed
from asyncguard.strategies import _cache_values as values
from asyncguard.strategies._cache_options import CacheItemsOptions, CacheOptions
from asyncguard.strategies._cache_slots import FORM_OF, Looked, Slot, entry_of, life_of

if TYPE_CHECKING:
    from asyncguard.strategies._cache_batch import Batch
    from asyncguard.strategies._cache_bound import Bound
    from asyncguard.strategies._cache_calls import Call
    from asyncguard.strategies._cache_core import Args, Kwargs, Place

_LONGEST_NAME = 60
_LONGEST_VERSION = 24


class Tier:
    """One function in a store."""

    def __init__(self, bound: Bound, place: Place, store: AiocacheStore, options: CacheOptions) -> None:
        name, version = _name_of(bound), options.version
        self.bound = bound
        self.store = store
        self.items = isinstance(options, CacheItemsOptions)
        self.codec = store.codec_for(annotation_of(bound.function, items=self.items))
        self.keyer = place.keyer.for_store()
        self._place = place
        self._base = Hash("asyncguard 1", store.namespace, name, version, self.items)
        readable = f"{_plain(name)[-_LONGEST_NAME:]}:{_plain(version or '')[:_LONGEST_VERSION]}"
        self._prefix = f"ag1:{store.namespace}:{readable}:"
        self.name = self._cleared = self.key_of(self._base.fork().add(b"clear"))

    # --- names --------------------------------------------------------------------------------------------------------

    def hash_of(self, args: Args, kwargs: Kwargs) -> Hash:
        """Return the hash of the function and what makes up the key of a call; of a batch, without the items.

        Raises TypeError naming the parameter whose argument means something in this process only.
        """
        args = self.bound.full(args)
        found = self._base.fork().add(b"value")
        owner = self._place.owner(args, kwargs)
        if owner is not self._place:
            found.add(self._owner(owner))
        key = self._place.rules.key
        if self.items:
            return found.add(encode_key(self.keyer.of_values(self.keyer.bind(args, kwargs))))
        if key is not None:
            return found.add(encode_key(self.keyer.of_value("key=", key(*args, **kwargs))))
        return found.add(encode_key(self.keyer(args, kwargs)))

    def hash_of_item(self, base: Hash, over: str, item: Any) -> Hash:
        """Return the hash of an item, from that of its batch."""
        key = self._place.rules.key
        name, value = (over, item) if key is None else ("key=", key(item))
        return base.fork().add(encode_key(self.keyer.of_value(name, value)))

    def slot(self, found: Hash, flight: Flight, spare: Entry | None = None) -> Slot:
        """Return the place of a value."""
        return Slot(self.key_of(found), self.key_of(found.fork().add(b"lease")), flight, spare)

    def key_of(self, found: Hash) -> str:
        """Return the key in the store that a hash stands for."""
        return self._prefix + found.hex()

    def _tag(self, tag: Hashable) -> str:
        return self.key_of(self._base.fork().add(b"tag").add(encode(str(tag))))

    def _owner(self, owner: Any) -> bytes:
        kind = cast("type[object]", type(owner))
        if not hasattr(kind, "__cache_key__"):
            raise TypeError(
                f"{self.bound.name}: which {kind.__qualname__} it is means something in this process only; for a store "
                "give the class a method __cache_key__() that returns what its objects differ by, or "
                'ignore=("self",) if the result does not depend on the object'
            )
        return encode_key(self.keyer.of_value("self", owner))

    def on_asyncio(self) -> Tier:
        """Return itself; raises RuntimeError on trio, where the clients of stores cannot run."""
        if clocks.in_trio():
            raise RuntimeError(f"{self.bound.name}: store= needs asyncio, its clients are asyncio's; this is trio")
        return self

    # --- reading ------------------------------------------------------------------------------------------------------

    async def look(self, at: Call | Batch, slots: Sequence[Slot], extra: Sequence[str] = ()) -> Looked:
        """Ask for values, for what was invalidated, and for some other keys, in one request."""
        tags = list({self._tag(tag): None for slot in slots for tag in slot.flight.tags})
        names = [*[slot.key for slot in slots], self._cleared, *tags, *extra]
        answer = await self.store.read(names)
        if isinstance(answer, Failed):
            self.errored("get", answer)
            return Looked(None, {}, set())
        found = dict(zip(names, answer, strict=True))
        since = {name: await self._moment(name, found[name]) for name in (self._cleared, *tags)}
        entries: dict[Slot, Entry] = {}
        for slot in slots:
            begun = max(since[name] for name in (self._cleared, *map(self._tag, slot.flight.tags)))
            entry = self._entry(at, slot, found[slot.key], begun)
            if entry is not None:
                entries[slot] = entry
        self.store.counts.hits += len(entries)
        self.store.counts.misses += len(slots) - len(entries)
        return Looked(found, entries, {name for name in extra if found[name] is not None})

    async def _moment(self, name: str, data: Any) -> float:
        """Return since when values count. Where that is damaged, none does that is there, and the damage is mended."""
        if data is None:
            return 0.0
        now = self.store.wall()
        envelope = _envelope.unpack(name, data, now)
        if envelope is not None:
            return envelope.created
        self.unreadable("a mark of an invalidation")
        await self._mark([name])
        return now

    def _entry(self, at: Call | Batch, slot: Slot, data: Any, since: float) -> Entry | None:
        """Return what was stored as an entry of its age, None if it is no good."""
        if data is None:
            return None
        wall = self.store.wall()
        envelope = _envelope.unpack(slot.key, data, wall)
        if envelope is None:
            self.unreadable("an envelope")
            return None
        if envelope.begun <= since or self.items != (envelope.form > 0):
            return None
        try:
            value = self.codec.decode(envelope.codec, envelope.payload)
            values.refuse(self.bound.name, value)  # a codec of the user's may return anything
        except Exception as error:  # noqa: BLE001 - whatever foreign bytes make of a decoder
            self.unreadable(type(error).__name__)
            return None
        entry = entry_of(envelope.form, *values.isolated(value, at.terms.isolation))
        entry.took, entry.tags = envelope.took, slot.flight.tags
        now = at.core.now()
        entry.live(now - (wall - envelope.created), life_of(at, envelope.ttl))
        return entry if now < entry.dead else None

    def unreadable(self, what: str) -> None:
        """Count something in the store that is none of ours."""
        self.store.counts.unreadable += 1
        self._tell("read", f"unreadable: {what}")

    # --- writing ------------------------------------------------------------------------------------------------------

    def packed(self, at: Call | Batch, slots: Iterable[Slot]) -> dict[float, list[tuple[Slot, bytes]]]:
        """Return the envelopes of the values that flights have brought and that are to be kept, by their time."""
        made: dict[float, list[tuple[Slot, bytes]]] = {}
        for slot in slots:
            flight = slot.flight
            entry: Any = flight.value
            if flight.state is not State.DONE or entry is slot.spare or entry.dead <= entry.created:
                continue
            data = self._envelope_of(at, slot, entry)
            if data is not None:
                made.setdefault(round(entry.dead - entry.created, 3), []).append((slot, data))
        return made

    def _envelope_of(self, at: Call | Batch, slot: Slot, entry: Entry) -> bytes | None:
        try:
            codec, payload = self.codec.encode(entry.value)
        except Exception as error:  # noqa: BLE001 - a codec of the user's may raise anything
            self._unencodable(error)
            return None
        form = FORM_OF.get(getattr(entry, "join", None), 0)
        if self.items and not form:
            self._unencodable(TypeError("rows of such an array"))
            return None
        created = self.store.wall() - max(0.0, at.core.now() - entry.created)
        ttl = entry.fresh - entry.created
        return _envelope.pack(slot.key, codec, payload, created=created, ttl=ttl, took=entry.took, form=form)

    def _unencodable(self, error: Exception) -> None:
        self.store.counts.unencodable += 1
        self._tell("write", f"unencodable: {type(error).__name__}")
        self.store.warn_once(self.bound.name, error)

    async def write(self, packed: Mapping[float, Sequence[tuple[Slot, bytes]]]) -> None:
        """Write envelopes; what was invalidated in this process meanwhile is taken back."""
        for ttl, made in packed.items():
            wanted = [(slot, data) for slot, data in made if not slot.flight.void]
            if not wanted:
                continue
            failed = await self.store.write([(slot.key, data) for slot, data in wanted], ttl)
            if failed is not None:
                self.errored("set", failed)
            void = [slot.key for slot, _ in wanted if slot.flight.void]
            if void:
                await self.store.delete(void)

    # --- invalidating -------------------------------------------------------------------------------------------------

    async def forget(self, keys: Sequence[str]) -> int:
        """Remove values; return how many there were."""
        wanted = frozenset(keys)
        for slot in self.store.pending():
            if slot.key in wanted:  # it is being written: to be taken back
                slot.flight.void = True
        gone = await self.store.delete(keys)
        if isinstance(gone, Failed):
            self.errored("delete", gone)
            return 0
        return gone

    async def forget_tag(self, tag: str) -> None:
        """Let no value count whose computation began before now and that carries a tag."""
        await self._mark([self._tag(tag)])

    async def clear(self) -> None:
        """Let no value count whose computation began before now."""
        await self._mark([self._cleared])

    async def _mark(self, names: Sequence[str]) -> None:
        now = self.store.wall()
        marks = [(name, _envelope.pack(name, 0, b"", created=now, ttl=MOST_TTL, took=0.0)) for name in names]
        failed = await self.store.write(marks, MOST_TTL)
        if failed is not None:
            self.errored("invalidate", failed)

    # --- telling ------------------------------------------------------------------------------------------------------

    def errored(self, operation: str, failed: Failed) -> None:
        """Tell of an operation that failed, unless the store was not asked at all."""
        if failed.error:
            self._tell(operation, failed.error)

    def _tell(self, operation: str, error: str) -> None:
        if self.bound.heard():
            self.bound.emit(events.CacheErrored, operation=f"store {operation}", error=error)


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

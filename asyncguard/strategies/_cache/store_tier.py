"""What one function has in a store: in which form, and since when it counts.

A value counts if its computation began after the last `clear` of the function and the last `invalidate_tag` of each of
its tags. Both are a moment under a name of its own, read together with the value: no store has to be searched.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from asyncguard import events
from asyncguard._machines.entries import Entry, Lifetime
from asyncguard._machines.flight import State
from asyncguard._runtime import clock as clocks
from asyncguard.stores import _envelope
from asyncguard.stores._aiocache import AiocacheStore
from asyncguard.stores._backends import MOST_TTL
from asyncguard.stores._codec import annotation_of
from asyncguard.stores._facts import Failed
from asyncguard.strategies._cache import values
from asyncguard.strategies._cache.items_rows import Join, Row, as_list, as_tuple, of_numpy
from asyncguard.strategies._cache.options import CacheItemsOptions, CacheOptions
from asyncguard.strategies._cache.store_names import Names, Slot

if TYPE_CHECKING:
    from asyncguard.strategies._cache.bound import Bound
    from asyncguard.strategies._cache.calls import Call
    from asyncguard.strategies._cache.items_batch import Batch
    from asyncguard.strategies._cache.place import Place

_JOINS: tuple[Join | None, ...] = (None, as_list, as_tuple, of_numpy)
_FORM_OF: dict[Any, int] = {join: form for form, join in enumerate(_JOINS) if join is not None}


class Looked(NamedTuple):
    """What a look into a store has brought, if it `answered`; `there` has those of the other keys that it has."""

    answered: bool
    entries: dict[Slot, Entry]
    there: set[str]


class Tier:
    """One function in a store."""

    def __init__(self, bound: Bound, place: Place, store: AiocacheStore, options: CacheOptions) -> None:
        self.items = isinstance(options, CacheItemsOptions)
        self.names = Names(bound, place, store.namespace, items=self.items)
        self.name = self.names.cleared
        self.bound = bound
        self.store = store
        self.codec = store.codec_for(annotation_of(bound.function, items=self.items))

    def on_asyncio(self) -> Tier:
        """Return itself; raises RuntimeError on trio, where the clients of stores cannot run."""
        if clocks.in_trio():
            raise RuntimeError(f"{self.bound.name}: store= needs asyncio, its clients are asyncio's; this is trio")
        return self

    # --- reading ------------------------------------------------------------------------------------------------------

    async def look(
        self, at: Call | Batch, slots: Sequence[Slot], extra: Sequence[str] = (), *, again: bool = False
    ) -> Looked:
        """Ask for values, for what was invalidated, and for some other keys, in one request.

        `again`: a look for them has been counted; of what is found now, a miss becomes a hit.
        """
        tags = list({self.names.tag(tag): None for slot in slots for tag in slot.flight.tags})
        names = [*[slot.key for slot in slots], self.names.cleared, *tags, *extra]
        answer = await self.store.read(names)
        if isinstance(answer, Failed):
            self.errored("get", answer)
            return Looked(answered=False, entries={}, there=set())
        found = dict(zip(names, answer, strict=True))
        since = {name: await self._moment(name, found[name]) for name in (self.names.cleared, *tags)}
        entries: dict[Slot, Entry] = {}
        for slot in slots:
            begun = max(since[name] for name in (self.names.cleared, *map(self.names.tag, slot.flight.tags)))
            entry = self._entry(at, slot, found[slot.key], begun)
            if entry is not None:
                entries[slot] = entry
        counts = self.store.counts
        counts.hits += len(entries)
        counts.misses += -min(len(entries), counts.misses) if again else len(slots) - len(entries)
        return Looked(answered=True, entries=entries, there={name for name in extra if found[name] is not None})

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
        entry = _entry_of(envelope.form, *values.isolated(value, at.terms.isolation))
        entry.took, entry.tags = envelope.took, slot.flight.tags
        now = at.core.now()
        entry.live(now - (wall - envelope.created), _life_of(at, envelope.ttl))
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
        form = _FORM_OF.get(getattr(entry, "join", None), 0)
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
        await self._mark([self.names.tag(tag)])

    async def clear(self) -> None:
        """Let no value count whose computation began before now."""
        await self._mark([self.names.cleared])

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


def _entry_of(form: int, value: Any, copy: Any) -> Entry:
    """Return an entry of a whole value, or of a row with how rows of its form are put together."""
    join = _JOINS[form]
    if join is None:
        return Entry(value, copy)
    row = Row(value, copy)
    row.join = join
    return row


def _life_of(at: Call | Batch, ttl: float) -> Lifetime:
    """Return how long a value of the store lives here: by our options, and no longer than its writer said."""
    options: Any = at.terms.options
    own = ttl if callable(options.ttl) else min(ttl, options.ttl)
    refresh_at = 1.0 if options.refresh_at is None else options.refresh_at
    return Lifetime(own, options.stale_while_revalidate, options.stale_if_error, refresh_at)

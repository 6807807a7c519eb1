"""The values of a cache: bounded by entries and bytes, expired on read, evicted by second chance.

A lookup is `shard.entries.get(key)` and takes no lock: it marks the entry with an attribute store, and nothing moves.
(Moving an entry of an `OrderedDict` without a lock raises under threads, and a lock for every hit costs more than the
hit.) Whoever writes takes the lock; an entry that was read since it was last looked at gets a second chance there.
Source: F. J. Corbato, "A Paging Experiment with the Multics System", 1968 (CLOCK).
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass

from asyncguard._machines.entries import Entry

Gone = tuple[Entry, str]

_CHANCES = 16  # entries that one eviction may spare: the lock is held for a bounded time
_SWEPT = 3  # entries that one write looks at for being expired


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much a store holds; `max_bytes` None: sizes are not measured."""

    max_entries: int
    max_bytes: int | None = None


class Lease:
    """The right to store what a computation brings. An invalidation voids it: the value is from before it.

    Source: R. Nishtala et al., "Scaling Memcache at Facebook", NSDI 2013, 3.2.1.
    """

    __slots__ = ("void",)

    def __init__(self) -> None:
        self.void = False


class Shard:
    """The part of a store that belongs to one function: its keys mean nothing to another one."""

    __slots__ = ("__weakref__", "entries", "hits", "misses", "store")

    def __init__(self, store: Store) -> None:
        self.store = store
        self.entries: dict[Hashable, Entry] = {}
        self.hits = 0
        self.misses = 0


class Change:
    """What a write did: whether the value was stored, and which entries left, with the reason.

    Drop it outside of the lock: the values in it may run code of the user when they die.
    """

    __slots__ = ("gone", "stored")

    def __init__(self) -> None:
        self.stored = False
        self.gone: list[Gone] = []


class Store:
    """The entries of one cache, over all its shards, in a ring: after its `root` comes what is least worth keeping."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._root = root = Entry(None)
        root.before = root.after = root
        self._hand = root  # where the search for expired entries goes on
        self._count = 0
        self._tagged: dict[Hashable, dict[Entry, None]] = {}
        self._orphans: deque[Shard] = deque()
        self.nbytes = 0

    def __len__(self) -> int:
        return self._count

    def put(  # noqa: PLR0913 - where, what, within which bounds, when, with which right
        self, shard: Shard, key: Hashable, entry: Entry, bounds: Bounds, now: float, lease: Lease
    ) -> Change:
        """Store an entry unless its lease is void or it alone is larger than `max_bytes`."""
        change = Change()
        with self._lock:
            if self._orphans:
                self._bury(change)
            if lease.void or (bounds.max_bytes is not None and entry.size > bounds.max_bytes):
                return change
            old = shard.entries.get(key)
            if old is not None:
                self._remove(old, "replaced", change)
            self._sweep(now, change)
            self._make_room(entry.size, bounds, now, change)
            self._add(shard, key, entry)
            change.stored = True
        return change

    def remove(self, shard: Shard, key: Hashable, leases: Iterable[Lease] = ()) -> Change:
        """Remove one entry and void the leases of those who compute it."""
        change = Change()
        with self._lock:
            _void(leases)
            entry = shard.entries.get(key)
            if entry is not None:
                self._remove(entry, "invalidated", change)
        return change

    def remove_tag(self, tag: Hashable, leases: Iterable[Lease] = ()) -> Change:
        """Remove all entries that carry a tag."""
        change = Change()
        with self._lock:
            _void(leases)
            for entry in list(self._tagged.get(tag, ())):
                self._remove(entry, "invalidated", change)
        return change

    def clear(self, leases: Iterable[Lease] = ()) -> Change:
        """Remove everything."""
        change = Change()
        with self._lock:
            _void(leases)
            for entry in list(self._entries()):
                self._remove(entry, "invalidated", change)
        return change

    def trim(self, fraction: float, now: float) -> Change:
        """Give up a fraction of the entries (rounded up), the expired first, then those least worth keeping."""
        change = Change()
        with self._lock:
            self._bury(change)
            goal = self._count - math.ceil(self._count * fraction)
            for entry in [each for each in self._entries() if now >= each.dead]:
                self._remove(entry, "trimmed", change)
            while self._count > goal:
                self._remove(self._victim(now), "trimmed", change)
        return change

    def orphan(self, shard: Shard) -> None:
        """Forget a shard whose function is gone.

        The garbage collector calls this in any thread, perhaps in one that holds the lock: then the next write does it.
        """
        self._orphans.append(shard)
        if self._lock.acquire(blocking=False):
            change = Change()
            try:
                self._bury(change)
            finally:
                self._lock.release()

    def after_fork(self) -> None:
        """Renew the lock in a forked child; the values stay."""
        self._lock = threading.Lock()

    # --- with the lock held ---

    def _entries(self) -> Iterator[Entry]:
        entry = self._root.after
        while entry is not self._root:
            yield entry
            entry = entry.after

    def _add(self, shard: Shard, key: Hashable, entry: Entry) -> None:
        entry.shard, entry.key = shard, key
        shard.entries[key] = entry
        self._link(entry)
        self._count += 1
        self.nbytes += entry.size
        for tag in entry.tags:
            self._tagged.setdefault(tag, {})[entry] = None

    def _remove(self, entry: Entry, reason: str, change: Change) -> None:
        shard, entry.shard = entry.shard, None
        if shard is None:
            return
        change.gone.append((entry, reason))
        shard.entries.pop(entry.key, None)
        self._unlink(entry)
        del entry.before, entry.after  # whoever still reads it must not keep its neighbours alive
        self._count -= 1
        self.nbytes -= entry.size
        for tag in entry.tags:
            tagged = self._tagged.get(tag, {})
            tagged.pop(entry, None)
            if not tagged:
                self._tagged.pop(tag, None)

    def _link(self, entry: Entry) -> None:
        """Put an entry at the end of the ring, as the one most worth keeping."""
        root = self._root
        last = root.before
        entry.before, entry.after = last, root
        last.after = root.before = entry

    def _unlink(self, entry: Entry) -> None:
        before, after = entry.before, entry.after
        before.after, after.before = after, before
        if self._hand is entry:
            self._hand = after

    def _sweep(self, now: float, change: Change) -> None:
        """Look at the next few entries for being expired."""
        root, hand = self._root, self._hand
        for _ in range(_SWEPT):
            entry = hand.after if hand is root else hand
            if entry is root:
                break
            hand = entry.after
            if now >= entry.dead:
                self._remove(entry, "expired", change)
        self._hand = hand

    def _make_room(self, size: int, bounds: Bounds, now: float, change: Change) -> None:
        """Evict before the new entry is there: among entries that were all read it would be the victim itself."""
        while self._count >= bounds.max_entries:
            self._remove(self._victim(now), "size", change)
        while bounds.max_bytes is not None and self._count and self.nbytes + size > bounds.max_bytes:
            self._remove(self._victim(now), "bytes", change)

    def _victim(self, now: float) -> Entry:
        """Return the first entry of the ring that was not read since it was last looked at."""
        root = self._root
        for _ in range(min(_CHANCES, self._count)):
            entry = root.after
            if not entry.used or now >= entry.dead:
                return entry
            entry.used = False
            self._unlink(entry)
            self._link(entry)
        return root.after

    def _bury(self, change: Change) -> None:
        while self._orphans:
            shard = self._orphans.popleft()
            for entry in list(shard.entries.values()):
                self._remove(entry, "invalidated", change)


def _void(leases: Iterable[Lease]) -> None:
    for lease in leases:
        lease.void = True

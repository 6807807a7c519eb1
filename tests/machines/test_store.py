"""The store against a slow model: plain lists, every rule written out."""

from __future__ import annotations

import gc
import threading
import weakref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from asyncguard._machines.entries import Entry, Lifetime
from asyncguard._machines.store import Bounds, Lease, Shard, Store

CHANCES = 16


def entry(value="v", *, size=0, tags=(), ttl=10.0, now=0.0, stale=0.0, error=0.0, refresh_at=1.0):
    made = Entry(value)
    made.size, made.tags = size, tags
    made.live(now, Lifetime(ttl, stale, error, refresh_at))
    return made


class StoreMachine(RuleBasedStateMachine):
    """Second chance and expiry, with lists instead of linked structures."""

    @initialize(entries=st.integers(1, 5), nbytes=st.one_of(st.none(), st.integers(1, 12)))
    def begin(self, entries, nbytes):
        self.store = Store()
        self.shards = [Shard(self.store), Shard(self.store)]
        self.bounds = Bounds(entries, nbytes)
        self.now = 0.0
        self.ring = []  # [shard, key, size, dead, tag, read?] least worth keeping first

    def drop(self, shard, key):
        self.ring = [row for row in self.ring if row[:2] != [shard, key]]

    def evict(self):
        for _ in range(min(CHANCES, len(self.ring))):
            row = self.ring[0]
            if not row[5] or self.now >= row[3]:
                break
            row[5] = False
            self.ring.append(self.ring.pop(0))
        self.ring.pop(0)

    @rule(
        shard=st.integers(0, 1), key=st.integers(0, 4), size=st.integers(0, 6), ttl=st.integers(1, 5),
        tag=st.sampled_from([None, "a", "b"]), void=st.integers(0, 9),
    )  # fmt: skip
    def put(self, shard, key, size, ttl, tag, void):
        lease = Lease()
        lease.void = void == 0
        tags = () if tag is None else (tag,)
        new = entry((shard, key), size=size, tags=tags, ttl=ttl, now=self.now)
        change = self.store.put(self.shards[shard], key, new, self.bounds, self.now, lease)
        limit = self.bounds.max_bytes
        assert change.stored == (not lease.void and (limit is None or size <= limit))
        if not change.stored:
            return
        self.drop(shard, key)
        for gone, reason in change.gone:  # which of the expired ones are swept is the store's own affair
            if reason == "expired":
                assert self.now >= gone.dead
                self.drop(*gone.value)
        while len(self.ring) >= self.bounds.max_entries:
            self.evict()
        while limit is not None and sum(row[2] for row in self.ring) + size > limit:
            self.evict()
        self.ring.append([shard, key, size, self.now + ttl, tag, False])

    @rule(shard=st.integers(0, 1), key=st.integers(0, 4))
    def read(self, shard, key):
        found = self.shards[shard].entries.get(key)
        row = next((row for row in self.ring if row[:2] == [shard, key]), None)
        assert (found is None) == (row is None)
        if found is not None and row is not None:
            assert (found.state(self.now) == "dead") == (self.now >= row[3])
            found.used = row[5] = True

    @rule(shard=st.integers(0, 1), key=st.integers(0, 4))
    def remove(self, shard, key):
        there = any(row[:2] == [shard, key] for row in self.ring)
        lease = Lease()
        assert bool(self.store.remove(self.shards[shard], key, [lease]).gone) == there
        assert lease.void
        self.drop(shard, key)

    @rule(tag=st.sampled_from(["a", "b"]))
    def remove_tag(self, tag):
        gone = len(self.store.remove_tag(tag).gone)
        assert gone == sum(row[4] == tag for row in self.ring)
        self.ring = [row for row in self.ring if row[4] != tag]

    @rule(fraction=st.sampled_from([0.0, 0.3, 0.5, 1.0]))
    def trim(self, fraction):
        goal = len(self.ring) - -(-len(self.ring) * fraction // 1)
        self.store.trim(fraction, self.now)
        self.ring = [row for row in self.ring if self.now < row[3]]
        while len(self.ring) > goal:
            self.evict()

    @precondition(lambda self: len(self.ring) == 5)
    @rule()
    def clear(self):
        self.store.clear()
        self.ring = []

    @rule(step=st.sampled_from([0.5, 1, 3]))
    def wait(self, step):
        self.now += step

    @invariant()
    def same(self):
        held = [(shard, key) for shard in (0, 1) for key in self.shards[shard].entries]
        assert sorted(held) == sorted((row[0], row[1]) for row in self.ring)
        assert len(self.store) == len(self.ring) <= self.bounds.max_entries
        assert self.store.nbytes == sum(row[2] for row in self.ring)


TestStoreAgainstModel = StoreMachine.TestCase
TestStoreAgainstModel.settings = settings(deadline=None, stateful_step_count=30)


def put(store, shard, key, **options):
    return store.put(
        shard, key, entry(key, **options), Bounds(options.pop("limit", 3)), options.get("now", 0.0), Lease()
    )


def test_what_was_read_since_it_was_stored_outlives_what_was_not():
    store = Store()
    shard = Shard(store)
    bounds = Bounds(3)
    for key in range(3):
        store.put(shard, key, entry(), bounds, 0.0, Lease())
    shard.entries[0].used = True
    for key in (3, 4):
        store.put(shard, key, entry(), bounds, 0.0, Lease())
    assert set(shard.entries) == {0, 3, 4}


def test_one_write_looks_at_a_bounded_number_of_entries_even_if_all_were_read():
    store = Store()
    shard = Shard(store)
    for key in range(100):
        store.put(shard, key, entry(), Bounds(100), 0.0, Lease())
    for each in shard.entries.values():
        each.used = True
    change = store.put(shard, 100, entry(), Bounds(100), 0.0, Lease())
    assert [gone.key for gone, _ in change.gone] == [CHANCES]
    assert sum(not each.used for each in shard.entries.values()) == CHANCES + 1  # and the new one


def test_a_new_entry_is_never_its_own_victim():
    store = Store()
    shard = Shard(store)
    for key in range(9):
        store.put(shard, key, entry(size=4), Bounds(2, 8), 0.0, Lease())
        assert key in shard.entries
        for each in shard.entries.values():
            each.used = True


def test_expired_entries_are_swept_by_writes_without_being_read():
    store = Store()
    shard = Shard(store)
    for key in range(20):
        store.put(shard, key, entry(ttl=1.0), Bounds(1000), 0.0, Lease())
    for key in range(20, 30):
        store.put(shard, key, entry(now=5.0), Bounds(1000), 5.0, Lease())
    assert set(shard.entries) == set(range(20, 30))


def test_nothing_refers_to_an_entry_that_was_replaced():
    store = Store()
    shard = Shard(store)
    gone = []

    class Value:
        pass

    gc.disable()
    try:
        for at in range(50):
            value = Value()
            gone.append(weakref.ref(value))
            store.put(shard, at % 5, entry(value), Bounds(1000), 0.0, Lease())
            del value
        assert sum(each() is not None for each in gone) == 5
    finally:
        gc.enable()


def test_an_entry_that_left_does_not_keep_its_neighbours_alive():
    store = Store()
    shard = Shard(store)
    held = [entry() for _ in range(3)]
    for at, each in enumerate(held):
        store.put(shard, at, each, Bounds(9), 0.0, Lease())
    store.remove(shard, 1)
    assert not hasattr(held[1], "before")
    assert not hasattr(held[1], "after")
    assert held[0].after is held[2]


def test_the_search_for_expired_entries_goes_on_where_it_was_although_entries_leave_and_move():
    store = Store()
    shard = Shard(store)
    for key in range(12):
        store.put(shard, key, entry(ttl=1.0 if key >= 6 else 99.0), Bounds(12), 0.0, Lease())
    for key in range(6):
        shard.entries[key].used = True  # an eviction moves them to the end of the ring
    for key in range(12, 20):
        store.put(shard, key, entry(now=5.0), Bounds(12), 5.0, Lease())
    assert not [each for each in shard.entries.values() if each.dead <= 5.0]


def test_a_value_larger_than_the_whole_cache_is_not_stored_and_pushes_nothing_out():
    store = Store()
    shard = Shard(store)
    store.put(shard, "small", entry(size=5), Bounds(9, 10), 0.0, Lease())
    assert not store.put(shard, "large", entry(size=11), Bounds(9, 10), 0.0, Lease()).stored
    assert list(shard.entries) == ["small"]


AGES = [(0, "hit"), (4.9, "hit"), (5, "refresh"), (9.9, "refresh"), (10, "stale"), (12.9, "stale"), (13, "error"),
        (19.9, "error"), (20, "dead")]  # fmt: skip


@pytest.mark.parametrize(("age", "state"), AGES)
def test_what_an_entry_is_good_for_follows_from_its_age(age, state):
    assert entry(ttl=10, stale=3, error=10, refresh_at=0.5).state(age) == state


@pytest.mark.parametrize(("stale", "error", "dead"), [(0, 0, 10), (3, 0, 13), (0, 4, 14), (3, 4, 14), (4, 3, 14)])
def test_an_entry_may_be_swept_when_it_is_good_for_nothing_any_more(stale, error, dead):
    assert entry(ttl=10, stale=stale, error=error).dead == dead


def test_expired_entries_behind_many_that_live_are_found_by_enough_writes():
    store = Store()
    shard = Shard(store)
    for key in range(12):
        store.put(shard, key, entry(ttl=1.0 if key >= 9 else 99.0), Bounds(1000), 0.0, Lease())
    for key in range(12, 17):
        store.put(shard, key, entry(now=5.0), Bounds(1000), 5.0, Lease())
    assert set(shard.entries) == {*range(9), *range(12, 17)}


def test_an_orphaned_shard_gives_its_values_back():
    store = Store()
    shard, other = Shard(store), Shard(store)
    store.put(shard, 1, entry(), Bounds(9), 0.0, Lease())
    store.put(other, 1, entry(), Bounds(9), 0.0, Lease())
    store.orphan(shard)
    assert len(store) == 1


def test_a_shard_orphaned_while_the_lock_is_held_is_buried_by_the_next_write():
    store = Store()
    shard, other = Shard(store), Shard(store)
    store.put(shard, 1, entry(), Bounds(9), 0.0, Lease())
    with store._lock:
        store.orphan(shard)  # what the garbage collector does, in the very thread that holds the lock
    assert len(store) == 1
    store.put(other, 2, entry(), Bounds(9), 0.0, Lease())
    assert list(other.entries) == [2]
    assert len(store) == 1


def test_values_die_outside_of_the_lock():
    store = Store()
    shard = Shard(store)
    seen = []

    class Value:
        def __del__(self):
            seen.append(store._lock.acquire(blocking=False))
            if seen[-1]:
                store._lock.release()

    for _ in range(4):
        store.put(shard, "k", entry(Value()), Bounds(1), 0.0, Lease())
        gc.collect()
    store.remove(shard, "k")
    store.put(shard, "k", entry(Value()), Bounds(1), 0.0, Lease())
    store.clear()
    store.put(shard, "k", entry(Value()), Bounds(1), 0.0, Lease())
    store.trim(1.0, 0.0)
    store.put(shard, "k", entry(Value()), Bounds(1), 0.0, Lease())
    store.orphan(shard)
    gc.collect()
    assert seen == [True] * 7


def test_readers_without_a_lock_never_fail_beside_writers():
    store = Store()
    shard = Shard(store)
    errors = []
    stop = threading.Event()

    def read():
        try:
            while not stop.is_set():
                for key in range(20):
                    found = shard.entries.get(key)
                    if found is not None:
                        found.used = True
                        assert found.value == key
        except BaseException as error:  # noqa: BLE001 - told to the main thread
            errors.append(error)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(3000):
        store.put(shard, number % 20, entry(number % 20), Bounds(10), 0.0, Lease())
    stop.set()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(store) == 10


def test_a_forked_child_gets_a_new_lock_and_keeps_the_values():
    store = Store()
    shard = Shard(store)
    store.put(shard, 1, entry(), Bounds(9), 0.0, Lease())
    store._lock.acquire()
    store.after_fork()
    store.put(shard, 2, entry(), Bounds(9), 0.0, Lease())
    assert sorted(shard.entries) == [1, 2]


@given(st.lists(st.tuples(st.integers(0, 30), st.booleans()), max_size=200))
def test_the_hit_rate_is_near_that_of_a_true_lru(accesses):
    store = Store()
    shard = Shard(store)
    lru: list[int] = []
    ours = theirs = 0
    for key, _ in accesses:
        found = shard.entries.get(key)
        if found is None:
            store.put(shard, key, entry(), Bounds(10), 0.0, Lease())
        else:
            found.used, ours = True, ours + 1
        if key in lru:
            lru.remove(key)
            theirs += 1
        lru = [*lru, key][-10:]
    assert abs(ours - theirs) <= 0.25 * len(accesses) + 3

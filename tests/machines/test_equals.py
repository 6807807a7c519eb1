"""Stand-ins of objects that are equal by code of the user: that code runs before the locks, and cannot break a key."""

from __future__ import annotations

import gc
import threading

import pytest

from asyncguard._machines import equals
from asyncguard._machines.keys import UnkeyableError, freeze


class Value:
    asked = 0

    def __init__(self, value, *, hashed=None):
        self.value = value
        self.hashed = hash(value) if hashed is None else hashed

    def __eq__(self, other):
        type(self).asked += 1
        return self.value == other.value

    def __hash__(self):
        type(self).asked += 1
        return self.hashed


def test_equal_objects_have_one_key_and_others_another_also_with_one_hash():
    one, same, other = Value("a", hashed=1), Value("a", hashed=1), Value("b", hashed=1)
    key = freeze(one)
    assert freeze(same) == key
    assert freeze(other) != key


def test_looking_up_a_key_runs_no_code_of_the_object():
    key, same = freeze([Value("a")]), freeze([Value("a")])
    asked = Value.asked
    assert {key: 1}[same] == 1
    assert hash(key) == hash(same)
    assert Value.asked == asked


def test_an_equal_object_of_a_subclass_has_another_key():
    class Special(Value):
        pass

    held = freeze(Value("a"))
    assert freeze(Special("a")) != held


@pytest.mark.parametrize("method", ["__hash__", "__eq__"])
def test_an_object_that_cannot_be_compared_has_no_key(method):
    def fails(*_):
        raise ValueError("broken")

    broken = type("Broken", (Value,), {"__hash__": Value.__hash__, method: fails})
    held = None
    with pytest.raises(UnkeyableError, match=r"Broken .*broken"):
        held = freeze(broken(1)), freeze(broken(1))
    assert held is None


def test_nothing_is_kept_of_an_object_whose_keys_are_gone():
    before = len(equals._table)
    held = [freeze(Value(number, hashed=number % 3)) for number in range(9)]
    assert len(equals._table) > before
    del held
    gc.collect()
    assert len(equals._table) == before


def test_threads_that_meet_an_object_at_once_find_one_stand_in():
    barrier, found = threading.Barrier(8), []

    def meet():
        for number in range(200):
            barrier.wait(60)
            found.append((number, freeze(Value(number))))

    threads = [threading.Thread(target=meet) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 1600
    assert len({id(key[1]) for _, key in found}) == len({number for number, _ in found}) == 200

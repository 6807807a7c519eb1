"""Values are kept apart from those who get them, and measured as what they pin."""

from __future__ import annotations

import collections
import sys

import numpy as np
import pytest

import asyncguard as ag
from asyncguard.strategies._cache_values import isolated, size_of


class Storage:
    def nbytes(self):
        return 8000


def caching(value, **options):
    return ag.cache_result(60, **options)(lambda x: value)


@pytest.mark.parametrize(
    ("value", "change"),
    [
        ({"a": 1}, lambda value: value.update(a=2)),
        ([1], lambda value: value.append(2)),
        ({1}, lambda value: value.add(2)),
        (bytearray(b"a"), lambda value: value.append(2)),
        (collections.deque([1]), lambda value: value.append(2)),
        (collections.defaultdict(list, a=[1]), lambda value: value.pop("a")),
    ],
    ids=["dict", "list", "set", "bytearray", "deque", "defaultdict"],
)
@pytest.mark.parametrize("isolation", ["auto", "copy"])
def test_what_one_caller_does_to_its_value_no_other_sees(value, change, isolation):
    fn = caching(value, isolation=isolation)
    first = fn(1)
    assert type(first) is type(value)
    change(first)
    assert fn(1) != first
    change(fn(1))
    assert fn(1) == fn(1) != first


def test_the_functions_own_reference_does_not_reach_the_cache():
    own = {"a": 1}
    fn = caching(own)
    fn(1)
    own["a"] = 2
    assert fn(1) == {"a": 1}


@pytest.mark.parametrize("value", [None, 5, "text", b"bytes", (1, "a"), frozenset({1})])
def test_immutable_values_are_given_as_they_are(value):
    fn = caching(value)
    assert fn(1) is fn(1)


def test_an_array_is_read_only_for_everybody_also_the_first():
    array = np.zeros(3)
    fn = caching(array)
    for got in (fn(1), fn(1)):
        with pytest.raises(ValueError, match="read-only"):
            got[0] = 1
    array[0] = 5  # what the function keeps is its own affair
    assert array.flags.writeable


WRAPS = [lambda array: [array], lambda array: (array, 1), lambda array: {"a": [array]}]


@pytest.mark.parametrize("wrap", WRAPS, ids=range(3))
def test_arrays_inside_of_containers_are_read_only_too(wrap):
    value = caching(wrap(np.zeros(3)))(1)
    while not isinstance(value, np.ndarray):
        value = value[0] if isinstance(value, (list, tuple)) else value["a"]
    assert not value.flags.writeable


def test_copy_gives_each_caller_everything_of_its_own():
    value = {"a": [np.zeros(2), [1]], "b": collections.Counter("x")}
    fn = caching(value, isolation="copy")
    got = fn(1)
    got["a"][0][0], got["b"]["x"] = 5, 9
    got["a"][1].append(2)
    again = fn(1)
    assert again["a"][0].tolist() == [0, 0]
    assert (again["a"][1], again["b"]) == ([1], collections.Counter("x"))


def test_share_gives_everybody_the_same():
    value = {"a": np.zeros(3)}
    fn = caching(value, isolation="share")
    assert fn(1) is value is fn(1)
    assert value["a"].flags.writeable


@pytest.mark.parametrize(("library", "method"), [("torch", "clone"), ("pandas", "copy"), ("cupy", "copy")])
def test_tensors_and_frames_that_cannot_be_made_read_only_are_copied(library, method):
    made = []
    copies = {method: lambda self: made.append(self) or "copied", "detach": None, "__module__": library}
    value = type("Value", (), copies)()
    fn = caching(value)
    assert [fn(1), fn(1)] == ["copied", "copied"]
    assert made == [value, value]


def test_a_tensor_is_cloned_for_a_full_copy_as_well():
    kind = type("Tensor", (), {"clone": lambda self: "cloned", "detach": None, "__module__": "torch"})
    stored, copier = isolated([kind()], "copy")
    assert stored == ["cloned"]
    assert copier is not None


def test_without_numpy_nothing_is_looked_for(monkeypatch):
    monkeypatch.delitem(sys.modules, "numpy")
    assert isolated([object], "auto")[0] == [object]


def test_a_view_counts_as_the_array_that_it_pins():
    whole = np.zeros((1000, 100))
    assert size_of(whole[0]) >= whole.nbytes
    assert size_of(whole[0].copy()) < 2000


@pytest.mark.parametrize(
    ("value", "least", "most"),
    [
        ("x" * 1000, 1000, 1100),
        ([1.5] * 1000, 20_000, 40_000),
        (dict.fromkeys(range(1000), "x" * 100), 100_000, 300_000),
        ([["x" * 1000]], 1000, 1300),
        ([np.zeros(1000)] * 3, 24_000, 26_000),
        (type("Tensor", (), {"untyped_storage": lambda self: Storage()})(), 8000, 8200),
        (type("Plain", (), {"__init__": lambda self: setattr(self, "a", "x" * 1000)})(), 1000, 1300),
    ],
    ids=range(7),
)
def test_sizes_are_estimated_from_a_sample(value, least, most):
    assert least <= size_of(value) <= most


def test_the_key_is_measured_with_the_value():
    cache = ag.cache_result(60, max_bytes=10**6)
    cache(lambda x: None)("x" * 1000)
    assert cache.info().nbytes > 1000

"""Values are kept apart from those who get them, and measured as what they pin."""

from __future__ import annotations

import array
import collections
import sys

import numpy as np
import pytest

import asyncguard as ag
from asyncguard.strategies._cache.values import isolated, size_of


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


def changed_later(own, change, **options):
    """Return what the cache gives before and after the function has changed what it returned."""
    fn = caching(own, **options)
    before = repr(fn(1))
    change(own)
    return before, repr(fn(1))


def put(at, value):
    return lambda own: own.__setitem__(at, value)


OWN = {
    "dict": (lambda: {"a": 1}, put("a", 2)),
    "list": (lambda: [1], put(0, 2)),
    "a list in a list": (lambda: [[1]], lambda own: own[0].append(2)),
    "set": (lambda: {1}, lambda own: own.add(2)),
    "bytearray": (lambda: bytearray(b"a"), put(0, 9)),
    "deque": (lambda: collections.deque([1]), put(0, 9)),
    "defaultdict": (lambda: collections.defaultdict(list, a=[1]), put("a", 9)),
    "array.array": (lambda: array.array("f", [1]), put(0, 9)),
    "an array": (lambda: np.zeros(3), put(0, 9)),
    "an array in a tuple": (lambda: (np.zeros(3), 1), lambda own: put(0, 9)(own[0])),
    "a Fortran-ordered array": (lambda: np.zeros((3, 2), order="F"), put(0, 9)),
    "a view": (lambda: np.zeros((3, 2))[1], put(0, 9)),
    "a reversed view": (lambda: np.zeros(4)[::-1], put(0, 9)),
    "an array over a bytearray": (lambda: np.frombuffer(bytearray(8), "u1"), put(0, 9)),
    "a masked array": (lambda: np.ma.masked_array([1, 2], [False, True]), put(0, 9)),
    "an array of objects": (lambda: np.array([None, "a"]), put(0, 9)),
}


@pytest.mark.parametrize("isolation", ["auto", "copy"])
@pytest.mark.parametrize("case", OWN)
def test_what_the_function_does_to_its_value_later_does_not_reach_the_cache(case, isolation):
    make, change = OWN[case]
    before, after = changed_later(make(), change, isolation=isolation)
    assert before == after


@pytest.mark.parametrize("value", [{"a": 1}, [1]])
def test_nor_does_it_where_numpy_is_not_loaded(value, monkeypatch):
    monkeypatch.delitem(sys.modules, "numpy")
    assert isolated(value, "auto")[0] == value
    assert isolated(value, "auto")[0] is not value


@pytest.mark.parametrize("buffer", [np.zeros(16, "u1"), bytearray(16)], ids=["array", "bytearray"])
def test_a_read_only_view_of_a_buffer_that_the_function_uses_again_is_copied(buffer):
    whole = np.frombuffer(buffer, "u1")
    view = whole[:2]
    whole.flags.writeable = view.flags.writeable = False
    fn = caching(view)
    fn(1)
    buffer[0] = 9
    assert fn(1).tolist() == [0, 0]


@pytest.mark.parametrize(("kind", "shape"), [("B", (8,)), ("B", (2, 4)), ("f", (2,)), ("d", ())])
def test_a_view_of_memory_is_one_of_the_caches_own(kind, shape):
    memory = bytearray(8)
    view = memoryview(memory).cast("B").cast(kind, shape) if shape != (8,) else memoryview(memory)
    fn = caching(view)
    fn(1)
    memory[:] = b"x" * 8
    got = fn(1)
    assert (got.format, got.shape, got.tobytes(), got.readonly) == (kind, shape, bytes(8), True)


def test_memory_in_a_format_that_cannot_be_rebuilt_is_at_least_read_only():
    got = caching(memoryview(np.zeros(2, ">f4")))(1)
    assert got.readonly


def fixed():
    array = np.arange(4.0)
    array.flags.writeable = False
    return array


@pytest.mark.parametrize("value", [fixed(), fixed()[1:], np.frombuffer(b"12345678")], ids=["owned", "view", "bytes"])
def test_an_array_that_nobody_can_change_is_not_copied(value):
    assert np.shares_memory(caching(value)(1), value)


def test_an_array_in_a_file_is_not_read_into_memory(tmp_path):
    whole = np.memmap(tmp_path / "array", "f4", "w+", shape=(8,))
    got = caching(whole)(1)
    assert np.shares_memory(got, whole)
    assert not got.flags.writeable


def test_a_copy_that_is_stored_does_not_pin_what_the_value_was_a_view_of():
    got = caching(np.zeros((1000, 10))[3])(1)
    assert size_of(got) < 1000


@pytest.mark.parametrize("order", ["C", "F"])
def test_the_layout_of_an_array_is_kept(order):
    value = np.asarray(np.arange(6.0).reshape(2, 3), order=order)
    assert caching(value)(1).strides == value.strides


def test_each_caller_gets_an_array_of_numbers_of_its_own():
    fn = caching(array.array("f", [1]))
    fn(1)[0] = 9
    assert fn(1)[0] == 1


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

    def copied(self):
        made.append(kind())
        return made[-1]

    kind = type("Value", (), {method: copied, "detach": None, "__module__": library})
    fn = caching(kind())
    stored, first, second = made[0] if made else None, fn(1), fn(1)
    assert stored is None
    assert [first, second] == made[1:]  # the first copy is the cache's own


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


def test_each_caller_has_a_mask_of_its_own():
    fn = ag.cache_result(60)(lambda mask: np.ma.masked_array([1, 2, 3], mask=mask))
    for mask in ((0, 1, 0), False):
        first = fn(mask)
        first[2] = np.ma.masked
        first.data[0] = 9
        assert fn(mask)[2] == 3
        assert fn(mask).data.tolist() == [1, 2, 3]

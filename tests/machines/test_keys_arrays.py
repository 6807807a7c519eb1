"""Arrays are compared whole, by class, dtype, shape and content."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest

from asyncguard._machines import digests
from asyncguard._machines.keys import UnkeyableError, freeze

BIG = np.random.default_rng(0).random((32, 768)).astype("f4")


def changed(array, at, value):
    array = array.copy()
    array.reshape(-1)[at] = value
    return array


DIFFERENT = [
    (BIG, changed(BIG, BIG.size // 2, 5.0)),  # numpy prints both as the same text
    (np.arange(5000), changed(np.arange(5000), 2500, 0)),
    (np.array([1.0]), np.array([1.0 + 1e-12])),
    (np.zeros(3), -np.zeros(3)),
    (np.zeros(4), np.zeros((2, 2))),
    (np.zeros(100, "f4"), np.zeros(50, "f8")),
    (np.zeros(100, "i8"), np.zeros(100, "f8")),
    (np.arange(100, dtype=">i4"), np.arange(100, dtype="<i4")),
    (np.zeros(100, "M8[D]"), np.zeros(100, "M8[s]")),
    (np.array(["a"] * 100), np.array(["b"] * 100)),
    (np.zeros(3), [0.0, 0.0, 0.0]),
    (np.float64(1), 1.0),
    (np.float32(1), np.float64(1)),
    (np.int64(1), 1),
    (np.bool_(1), True),
    (np.array(1.0), np.float64(1)),
    (np.array([1, "a"], dtype=object), np.array([True, "a"], dtype=object)),
    (np.zeros(3, [("a", "i4")]), np.zeros(3, [("b", "i4")])),
    (np.zeros(20, [("a", "f8")]), np.ones(20, [("a", "f8")])),
    (np.ma.array([1, 2], mask=[0, 1]), np.ma.array([1, 2], mask=[1, 0])),
    (np.ma.array([1, 2]), np.array([1, 2])),
    (np.dtype("f4"), np.dtype("f8")),
    (BIG.view(np.memmap), BIG),
    (np.array([[1]]).view(np.matrix), np.array([[1]])),
    (np.bytes_(b"a\0"), np.bytes_(b"a")),
    (np.str_("a"), "a"),
    (np.datetime64("NaT", "s"), np.datetime64("NaT", "D")),
    (np.void(b"ab"), np.bytes_(b"ab")),
    (np.ma.array([1, 2], fill_value=3), np.ma.array([1, 2], fill_value=4)),
    (np.ma.masked, np.ma.array(0.0, mask=True)),
    (np.array([([1],)], [("a", "O")])[0], np.array([([2],)], [("a", "O")])[0]),
    (np.longdouble(1), np.longdouble(2)),
]


@pytest.mark.parametrize(("a", "b"), DIFFERENT)
def test_arrays_that_differ_anywhere_have_different_keys(a, b):
    assert freeze(a) != freeze(b)


@pytest.mark.parametrize(
    "array",
    [BIG, BIG[::2, ::3], BIG.T, np.asfortranarray(BIG), np.zeros((0, 3)), np.array(1.0), np.float64("nan"),
     np.full(100, np.nan), np.zeros(100, "M8[D]"), np.array([1, [2]], dtype=object), np.zeros(9, ">f4"),
     np.zeros(99, ">f4"),
     np.zeros(20, [("a", "f8")]), np.ma.array([1, 2]), np.array(["a"] * 50), np.zeros((5, 0, 3)),
     np.array([[1, "a"], [None, b"b"]], dtype=object), np.arange(24, dtype=">f8").reshape(4, 6),
     np.zeros((4, 6), [("a", "f8"), ("b", "M8[s]")]), np.arange(9, dtype=">g"), np.arange(12, dtype="G").reshape(3, 4)],
)  # fmt: skip
def test_an_equal_copy_has_the_same_key_in_whatever_order_it_lies(array):
    copy = array.copy() if isinstance(array, np.ndarray) else type(array)(array)
    assert freeze(copy) == freeze(array)
    if isinstance(array, np.ndarray) and array.ndim > 1:
        assert freeze(np.ascontiguousarray(array)) == freeze(np.asfortranarray(array))


def test_texts_of_any_length_are_compared_by_what_they_say_not_where_they_lie():
    strings = getattr(np.dtypes, "StringDType", None)
    if strings is None:
        pytest.skip("numpy before 2.0 has no StringDType")
    one, two, other = (np.array([f"{'long' * 20}{n + shift}" for n in range(9)], strings()) for shift in (0, 0, 1))
    assert freeze(one) == freeze(two) != freeze(other)


def test_what_lies_between_long_doubles_is_no_part_of_the_key():
    one, two = np.zeros(20, "g"), np.zeros(20, "g")
    one[:] = two[:] = 1.5
    if np.finfo("g").nmant == 63:
        one.view("u1").reshape(20, -1)[:, 10:] = 255
    assert freeze(one) == freeze(two)
    assert freeze(one.reshape(4, 5).T) == freeze(two.reshape(4, 5).T)
    assert freeze(np.longdouble(1.5)) == freeze(two[0])


def test_the_last_bit_of_a_long_double_of_the_other_byte_order_is_part_of_the_key():
    one = np.ones(9, ">g")
    two = one.copy()
    two.view("u1").reshape(9, -1)[4, -1] ^= 1
    assert freeze(one) == freeze(one.copy()) != freeze(two)


def test_objects_in_a_record_are_compared_by_their_content():
    one, two = (np.array([([1],)], [("a", "O")]) for _ in range(2))
    assert freeze(one) == freeze(two)
    assert freeze(one[0]) == freeze(two[0])


def test_a_view_of_addresses_has_no_key():
    with pytest.raises(UnkeyableError, match="addresses of objects"):
        freeze(memoryview(np.array([[1], "a"], dtype=object)))


def test_an_array_of_the_standard_is_read_as_an_array():
    strict = pytest.importorskip("array_api_strict")
    assert freeze(strict.asarray([1.0])) == freeze(strict.asarray([1.0]))
    assert freeze(strict.asarray([1.0])) != freeze(strict.asarray([2.0]))
    assert freeze(strict.asarray([1.0])) != freeze(np.asarray([1.0]))


def test_a_subclass_with_attributes_is_compared_with_them():
    class Tagged(np.ndarray):
        pass

    one, two = np.zeros(3).view(Tagged), np.zeros(3).view(Tagged)
    one.unit, two.unit = "m", "s"
    assert freeze(one) != freeze(two)
    two.unit = "m"
    assert freeze(one) == freeze(two)


def test_without_xxhash_arrays_are_hashed_with_sha256(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "xxhash", None)
        digests.function.cache_clear()
        assert len(digests.function()(b"a" * 100)) == 32
    digests.function.cache_clear()
    assert len(digests.function()(b"a" * 100)) == 16


class FakeTensor:
    """As much of torch.Tensor as a key needs."""

    layout = "strided"
    is_quantized = False

    def __init__(self, array, dtype=None):
        self.array = np.asarray(array)
        self.dtype = dtype or f"torch.{self.array.dtype}"
        self.shape = self.array.shape

    def _same(self):
        return self

    detach = resolve_conj = resolve_neg = cpu = contiguous = _same

    def reshape(self, shape):
        return FakeTensor(self.array.reshape(shape))

    def view(self, dtype):
        return FakeTensor(self.array.view(dtype))

    def numpy(self):
        return self.array


class Parameter(FakeTensor):
    pass


@pytest.fixture
def torch(monkeypatch):
    """Stand in for torch where it cannot be had; test_keys_torch.py has the real one."""
    module = types.ModuleType("torch")
    module.Tensor, module.strided, module.uint8 = FakeTensor, "strided", np.uint8
    module.dtype = module.device = module.layout = module.memory_format = None
    monkeypatch.setitem(sys.modules, "torch", module)
    return module


def test_tensors_are_compared_by_class_dtype_shape_and_content(torch):
    tensor = FakeTensor(BIG)
    assert freeze(FakeTensor(BIG.copy())) == freeze(tensor)
    assert freeze(FakeTensor(changed(BIG, 9000, 1.0))) != freeze(tensor)
    assert freeze(FakeTensor(BIG.reshape(-1))) != freeze(tensor)
    assert freeze(FakeTensor(BIG, "torch.bfloat16")) != freeze(tensor)
    assert freeze(Parameter(BIG)) != freeze(tensor)
    assert freeze(FakeTensor(np.float32(1))) == freeze(FakeTensor(np.float32(1)))


def test_a_sparse_or_quantized_tensor_has_no_key(torch):
    tensor = FakeTensor([1.0])
    tensor.layout = "sparse"
    with pytest.raises(UnkeyableError, match="sparse or quantized"):
        freeze(tensor)


class Duck:
    """Behaves like a torch tensor, of a library that is not known."""

    def __init__(self, array):
        self.array = array
        self.dtype, self.shape = array.dtype, array.shape

    dtype = shape = None

    def detach(self):
        return self

    def cpu(self):
        return self.array


def test_what_behaves_like_a_tensor_is_read_as_an_array():
    assert freeze(Duck(BIG)) == freeze(Duck(BIG.copy()))
    assert freeze(Duck(BIG)) != freeze(Duck(BIG[:3]))


def test_an_array_of_a_device_is_copied_to_the_host():
    class Array:
        dtype = np.dtype("f4")
        __cuda_array_interface__ = None

        def __init__(self, array):
            self.array = array

        def get(self):
            return self.array

    Array.__module__ = "cupy"
    assert freeze(Array(BIG)) == freeze(Array(BIG.copy()))
    assert freeze(Array(BIG)) != freeze(Array(BIG[:3]))


def test_an_array_that_cannot_be_read_has_no_key():
    class Array:
        dtype = np.dtype("f4")

        def __array__(self, dtype=None, copy=None):
            raise RuntimeError("deleted")

    Array.__module__ = "jax"
    with pytest.raises(UnkeyableError, match="deleted"):
        freeze(Array())


def test_an_array_with_labels_is_not_taken_for_its_content():
    class DataArray:
        dtype = np.dtype("f4")
        shape = (1,)

        def __array__(self, dtype=None, copy=None):
            return np.zeros(1)

    with pytest.raises(UnkeyableError):
        freeze(DataArray())

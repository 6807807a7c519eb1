"""Values come back from their bytes equal and of the same type, or are not written; what is read is not executed."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import datetime as dt
import decimal
import enum
import math
import os
import pickle
import uuid
from typing import Any, NamedTuple

import numpy as np
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncguard.stores._codec import (
    ARRAY,
    PACKED,
    TYPED,
    TYPED_JSON,
    OwnCodec,
    SafeCodec,
    UnencodableError,
    annotation_of,
)


class Colour(enum.Enum):
    RED = "red"


class Size(enum.IntEnum):
    SMALL = 1


class Point(pydantic.BaseModel):
    x: float
    when: dt.datetime = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    colour: Colour = Colour.RED
    tags: frozenset[str] = frozenset()
    pair: tuple[int, str] = (1, "a")


class Account(pydantic.BaseModel):
    token: pydantic.SecretStr


class Partly(pydantic.BaseModel):
    shown: int
    hidden: int = pydantic.Field(default=0, exclude=True)


class Wider(Point):
    more: int = 0


@dataclasses.dataclass
class Row:
    name: str
    cells: list[int]


class Pair(NamedTuple):
    left: int
    right: int


@dataclasses.dataclass(slots=True)
class Slotted:
    held: Any


def there_and_back(value, annotation=None):
    codec = SafeCodec(annotation)
    kind, data = codec.encode(value)
    return codec.decode(kind, memoryview(data))


def same(a, b):
    """Equal in type and content, all the way down; NaN equals NaN, -0.0 is not 0.0."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return a == b and math.copysign(1, a) == math.copysign(1, b) if a == a else b != b  # noqa: PLR0124
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return len(a) == len(b) and all(any(same(k, j) and same(v, w) for j, w in b.items()) for k, v in a.items())
    return a == b


ATOMS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**200), 2**200),
    st.floats(),
    st.text(st.characters()),
    st.binary(max_size=20),
    st.complex_numbers(allow_nan=False),
    st.datetimes(timezones=st.none() | st.just(dt.UTC)),
    st.dates(),
    st.times(),
    st.timedeltas(),
    st.uuids(),
    st.decimals(allow_nan=False),
)
HASHABLE = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(), st.binary(max_size=5)),
    lambda inner: st.one_of(st.tuples(inner, inner), st.frozensets(inner, max_size=3)),
    max_leaves=4,
)
VALUES = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(HASHABLE, inner, max_size=3),
        st.sets(HASHABLE, max_size=3),
        st.frozensets(HASHABLE, max_size=3),
    ),
    max_leaves=12,
)


@given(VALUES)
@settings(max_examples=100)
def test_plain_values_come_back_the_same(value):
    codec, data = SafeCodec().encode(value)
    assert codec == PACKED
    assert same(SafeCodec().decode(codec, memoryview(data)), value)


@given(VALUES, st.data())
def test_any_bytes_decode_to_a_value_or_an_ordinary_error(value, data):
    """The checksum catches accidents; what a hostile writer seals must still be harmless."""
    codec, good = SafeCodec(Point).encode(value)
    damaged = bytearray(good)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    for each in (bytes(damaged), good[: len(good) // 2], data.draw(st.binary(max_size=60))):
        for kind in (codec, ARRAY, TYPED, TYPED_JSON, 99):
            with contextlib.suppress(Exception):  # that is a miss
                SafeCodec(Point).decode(kind, memoryview(each))


ARRAYS = [
    np.arange(12, dtype="f4").reshape(3, 4),
    np.asfortranarray(np.arange(12, dtype="f8").reshape(3, 4)),
    np.arange(24)[::2],
    np.arange(6, dtype=">i4"),
    np.zeros((0, 3), dtype="f2"),
    np.zeros((3, 0, 2)),
    np.array(7, dtype="u1"),
    np.array([True, False]),
    np.array(["a", "bcd"]),
    np.array([b"a", b"bc"]),
    np.array([1 + 2j]),
    np.array(["2026-01-01", "NaT"], dtype="datetime64[ns]"),
    np.array([1, 2], dtype="timedelta64[s]"),
    np.array([(1, 2.5, [1, 2])], dtype=[("a", "<i4"), ("b", ">f8"), ("c", "u1", (2,))]),
    np.array([float("nan"), -0.0]),
]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype}{array.shape}")
@pytest.mark.parametrize("wrap", [lambda each: each, lambda each: {"v": [each, 1]}], ids=["alone", "inside"])
def test_arrays_come_back_with_dtype_shape_and_every_bit(array, wrap):
    back = there_and_back(wrap(array))
    back = back if isinstance(back, np.ndarray) else back["v"][0]
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()
    assert back.flags.writeable
    assert back.base is None or getattr(back.base, "nbytes", None) == back.nbytes or len(back.base) == back.nbytes


@pytest.mark.parametrize(
    "scalar",
    [np.float32(1.5), np.int64(-3), np.bool_(True), np.str_("x"), np.datetime64("2026-01-01"), np.complex64(1j)],
)
def test_numpy_scalars_keep_their_class(scalar):
    back = there_and_back([scalar])[0]
    assert type(back) is type(scalar)
    assert back == scalar


MODELS = [
    (Point(x=1.5, tags=frozenset({"a"})), Point),
    ([Point(x=1), Point(x=2)], list[Point]),
    ({"a": Point(x=1)}, dict[str, Point]),
    (Row("a", [1, 2]), Row),
    (Colour.RED, Colour),
    (Size.SMALL, Size),
    (collections.OrderedDict(a=1), collections.OrderedDict[str, int]),
    (None, Point | None),
    (Pair(1, 2), Pair),
    (Slotted([1.5]), Slotted),
]


@pytest.mark.parametrize(("value", "annotation"), MODELS, ids=range(len(MODELS)))
def test_models_come_back_by_the_return_annotation(value, annotation):
    back = there_and_back(value, annotation)
    assert type(back) is type(value)
    assert back == value


REFUSED = [
    (object(), None),
    (object(), object),
    (Point(x=1), None),
    (Point(x=1), int),
    (Wider(x=1, more=2), Point),  # it would come back as a Point
    (Account(token="secret"), Account),  # it would come back as **********
    (Partly(shown=1, hidden=2), Partly),  # it would come back with another value
    (Point(x=float("nan")), Point),
    (Size.SMALL, None),
    (Size.SMALL, int),  # it would come back as an int that equals it
    ({Size.SMALL}, set[int]),
    (Pair(1, 2), tuple[int, int]),
    ([Pair(1, 2)], list[tuple[int, int]]),
    ({"a": {"b": Pair(1, 2)}}, dict[str, Any]),
    (Slotted(Pair(1, 2)), Slotted),
    (collections.Counter("aab"), dict[str, int]),
    (collections.Counter("aab"), None),
    (bytearray(b"a"), None),
    ([{"a": memoryview(b"a")}], None),
    (np.array([object()], dtype=object), None),
    (np.ma.array([1], mask=[True]), None),
    (np.zeros(1, dtype=[("a", "O")]), None),
    (np.dtype("f4"), None),
    (dt.datetime(2026, 1, 1, tzinfo=__import__("zoneinfo").ZoneInfo("Europe/Berlin")), None),
    (lambda: 1, None),
    ({"a": {1: print}}, dict),
]


@pytest.mark.parametrize(("value", "annotation"), REFUSED, ids=range(len(REFUSED)))
def test_what_would_come_back_as_something_else_is_refused(value, annotation):
    with pytest.raises((UnencodableError, TypeError)) as refused:
        SafeCodec(annotation).encode(value)
    assert "secret" not in str(refused.value)


def test_a_value_that_contains_itself_is_refused():
    endless: list[object] = []
    endless.append(endless)
    deep: object = ()
    for _ in range(5000):
        deep = (deep,)
    for value in (endless, deep):
        with pytest.raises(UnencodableError):
            SafeCodec().encode(value)


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("executed",)


@pytest.mark.parametrize("codec", [PACKED, ARRAY, TYPED, TYPED_JSON, 0, 77])
def test_a_planted_pickle_is_not_executed(codec, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    planted = [pickle.dumps(Bomb(), protocol=protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
    np.save(tmp_path / "bomb.npy", np.array([Bomb()], dtype=object), allow_pickle=True)
    planted.append((tmp_path / "bomb.npy").read_bytes())
    for data in planted:
        with pytest.raises(Exception):  # noqa: B017, PT011 - any, and nothing has happened
            SafeCodec(Point).decode(codec, memoryview(data))
    assert not (tmp_path / "executed").exists()
    pickle.loads(planted[0])
    assert (tmp_path / "executed").exists(), "the bomb would have worked"


class Shouting:
    def encode(self, value):
        return value.upper().encode()

    def decode(self, data):
        return data.decode()


def test_a_codec_of_the_users_is_used_and_knows_its_own_values():
    codec = OwnCodec(Shouting())
    kind, data = codec.encode("a")
    assert codec.decode(kind, memoryview(data)) == "A"
    with pytest.raises(ValueError, match="another codec"):
        codec.decode(PACKED, memoryview(data))
    with pytest.raises(ValueError, match="unknown codec"):
        SafeCodec().decode(kind, memoryview(data))


def test_a_codec_that_does_not_return_bytes_is_an_error_that_says_so():
    class Wrong(Shouting):
        def encode(self, value):
            return "text"

    with pytest.raises(UnencodableError, match=r"Wrong\.encode returned str, not bytes"):
        OwnCodec(Wrong()).encode("a")


def listed(xs: list[int]) -> list[Point]: ...
def tupled(xs: list[int]) -> tuple[Point, ...]: ...
def unknown(xs: list[int]) -> NoSuchName: ...  # noqa: F821
def silent(xs): ...


def test_the_annotation_of_a_row_is_that_of_the_members():
    assert annotation_of(listed) == list[Point]
    assert annotation_of(listed, items=True) is Point
    assert annotation_of(tupled, items=True) is Point
    assert annotation_of(unknown) is None
    assert annotation_of(silent, items=True) is None


def test_decimals_and_moments_keep_what_makes_them_different():
    for value in (decimal.Decimal("1.10"), dt.time(1, fold=1), uuid.UUID(int=1), dt.datetime(2026, 1, 1, fold=1)):  # noqa: DTZ001 - no zone
        back = there_and_back(value)
        assert repr(back) == repr(value)

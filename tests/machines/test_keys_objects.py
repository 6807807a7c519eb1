"""Models and frames: by class and fields, by names, dtypes and content."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from asyncguard._machines import owners
from asyncguard._machines.keys import UnkeyableError, freeze

pydantic = pytest.importorskip("pydantic")


class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    x: float | None = 0
    items: object = ()
    secret: pydantic.SecretStr = pydantic.SecretStr("")
    hidden: int = pydantic.Field(0, exclude=True)


class Other(pydantic.BaseModel):
    x: float = 0


class Root(pydantic.RootModel[list[int]]):
    pass


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (Model(x=math.nan), Model(x=None)),
        (Model(x=math.inf), Model(x=math.nan)),
        (Model(secret="a"), Model(secret="b")),
        (Model(hidden=1), Model(hidden=2)),
        (Model(items=[1]), Model(items=(1,))),
        (Model(extra=1), Model(extra=2)),
        (Other(x=1), Model(x=1)),
        (Root([1]), Root([2])),
    ],
)  # fmt: skip
def test_models_that_their_json_takes_for_equal_have_different_keys(a, b):
    assert freeze(a) != freeze(b)


def test_an_equal_model_has_the_same_key():
    assert freeze(Model(x=math.nan, secret="s", more=[1])) == freeze(Model(x=math.nan, secret="s", more=[1]))


def test_a_model_that_holds_a_client_has_no_key():
    with pytest.raises(UnkeyableError):
        freeze(Model(items=object()))


class Private(pydantic.BaseModel):
    x: int = 0
    _tenant: str = pydantic.PrivateAttr("")


def test_private_attributes_are_part_of_a_key_as_they_are_part_of_the_models_equality():
    one, two = Private(x=1), Private(x=1)
    assert freeze(one) == freeze(two)
    two._tenant = "other"
    assert freeze(one) != freeze(two)


def test_addresses_on_the_web_and_secrets_go_by_what_they_hold():
    assert (
        freeze(pydantic.SecretBytes(b"a")) == freeze(pydantic.SecretBytes(b"a")) != freeze(pydantic.SecretBytes(b"b"))
    )
    adapter = pydantic.TypeAdapter(pydantic.HttpUrl)
    one, two, other = (adapter.validate_python(f"https://a.example/{path}") for path in "aab")
    assert freeze(one) == freeze(two) != freeze(other)


def test_attrs_and_msgspec_classes_go_by_class_and_fields():
    attrs = pytest.importorskip("attrs")
    made = attrs.make_class("A", ["x", "y"], eq=False)
    assert freeze(made([1], 2)) == freeze(made([1], 2))
    assert freeze(made([1], 2)) != freeze(made([1], 3))
    child = type("Child", (made,), {})
    one, two = child(1, 2), child(1, 2)
    two.extra = 3
    assert freeze(one) != freeze(two)
    msgspec = pytest.importorskip("msgspec")
    struct = msgspec.defstruct("S", ["x"])
    assert freeze(struct([1])) == freeze(struct([1]))
    assert freeze(struct([1])) != freeze(struct([True]))


def frame(pandas, **columns):
    return pandas.DataFrame({"a": [1, 2], "b": ["x", None], **columns})


def test_pandas_frames_go_by_names_dtypes_index_and_content():
    pd = pytest.importorskip("pandas")
    one = frame(pd)
    assert freeze(one) == freeze(frame(pd))
    assert freeze(one) == freeze(one.copy())
    different = [
        one.rename(columns={"a": "c"}),
        one.astype({"a": "int32"}),
        one.set_index(pd.Index([5, 6])),
        one.rename_axis("n"),
        one.assign(a=[1, 3]),
        one[["b", "a"]],
        one.astype({"b": "category"}),
        one.assign(a=pd.array([1, None], dtype="Int64")),
        one.assign(a=pd.to_datetime(["2024-01-01", "2024-01-02"]).tz_localize("UTC")),
        one.set_index(pd.MultiIndex.from_tuples([(1, 2), (3, 4)])),
        one["a"],
        one["a"].rename("z"),
        one.index,
    ]
    assert len({freeze(each) for each in [one, *different]}) == len(different) + 1
    for each in different:
        assert freeze(each) == freeze(each.copy())


def test_pandas_moments_keep_their_nanoseconds_and_nothing_equals_itself():
    pd = pytest.importorskip("pandas")
    assert freeze(pd.Timestamp("2024-01-01 00:00:00.000000001")) != freeze(pd.Timestamp("2024-01-01"))
    assert freeze(pd.Timedelta(5, "ns")) != freeze(pd.Timedelta(6, "ns"))
    assert freeze(pd.Timestamp("2024-01-01", tz="UTC")) != freeze(pd.Timestamp("2024-01-01"))
    assert freeze(pd.NaT) == freeze(pd.NaT) != freeze(pd.NA)


def test_polars_and_arrow_frames_go_by_schema_and_content():
    pl, pa = pytest.importorskip("polars"), pytest.importorskip("pyarrow")
    frames = [pl.DataFrame({"a": [1, 2]}), pl.DataFrame({"b": [1, 2]}), pl.DataFrame({"a": [1, 3]}),
              pl.DataFrame({"a": [1.0, 2.0]}), pl.Series("a", [1, 2]), pa.table({"a": [1, 2]}), pa.table({"b": [1, 2]}),
              pa.array([1, 2]), pa.array([1, 3])]  # fmt: skip
    assert len({freeze(each) for each in frames}) == len(frames)
    assert freeze(pl.concat([frames[0][:1], frames[0][1:]])) == freeze(frames[0])
    assert freeze(pa.chunked_array([[1], [2]])) == freeze(pa.chunked_array([[1, 2]]))
    assert freeze(pa.array([0, 1, 2])[1:]) == freeze(frames[7])
    assert freeze(pa.record_batch({"a": [1]})) == freeze(pa.record_batch({"a": [1]}))
    with pytest.raises(UnkeyableError):
        freeze(pl.DataFrame({"a": [object()]}))


def test_columns_on_their_own_go_by_dtype_and_content():
    pd = pytest.importorskip("pandas")
    arrays = [
        pd.Categorical(["a", "b"]),
        pd.Categorical(["a", "b"], ordered=True),
        pd.array([1, 2]),
        pd.array([1, None]),
    ]
    assert len({freeze(each) for each in arrays}) == len(arrays)
    for each in arrays:
        assert freeze(each) == freeze(each.copy())


class Labels(list):
    pass


@dataclasses.dataclass
class Parent:
    number: int


class Child(Parent):
    pass


class Slotted(list):
    __slots__ = ("__dict__", "__weakref__", "label")


class Array(np.ndarray):
    pass


@pytest.mark.parametrize(
    "make",
    [lambda: Labels([1]), lambda: Child(1), lambda: Slotted([1]), lambda: np.zeros(3).view(Array)],
    ids=["list", "dataclass", "slots", "array"],
)
def test_what_a_cache_keeps_on_an_object_is_no_part_of_its_key(make):
    held = make()
    owners.kept_on(held)["a"] = 1
    assert "__asyncguard_caches__" in vars(held)
    assert freeze(held) == freeze(make())
    held.label = "x"
    assert freeze(held) != freeze(make())


def test_the_attrs_of_a_series_are_part_of_its_key_as_those_of_a_frame_are():
    pd = pytest.importorskip("pandas")
    one, other = pd.Series([1]), pd.Series([1])
    assert freeze(one) == freeze(other)
    other.attrs["unit"] = "m"
    assert freeze(one) != freeze(other)

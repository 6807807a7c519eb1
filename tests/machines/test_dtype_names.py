"""The names of dtypes: whatever a library calls one is taken, a slip of the pen is not."""

from __future__ import annotations

import numpy as np
import pytest

from asyncguard import Array
from asyncguard._machines.dtype_names import checked_name
from asyncguard._machines.rules_frame import Column


@pytest.mark.parametrize("name", sorted(set(map(str, np.sctypeDict)) - {"a"}))
def test_every_name_that_numpy_has_is_taken(name: str) -> None:
    dtype = np.dtype(name)
    for each in (name, dtype.name, dtype.str, dtype.char):
        assert checked_name(each) == each


def test_every_name_that_torch_has_is_taken() -> None:
    torch = pytest.importorskip("torch")
    found = [each for each in vars(torch).values() if isinstance(each, torch.dtype)]
    assert len(found) > 10
    for each in found:
        Array(dtype=str(each))


@pytest.mark.parametrize(
    "name",
    [
        "Int64", "category", "string", "boolean", "datetime64[ns, UTC]", "int64[pyarrow]", "Sparse[float]",  # pandas
        "Utf8", "String", "Datetime(time_unit='us')", "List(Int64)", "Categorical", "UInt8", "Date",  # polars
        "bfloat16", "float8_e4m3fn", "int4", "key<fry>",  # ml_dtypes, jax
        "mine.rational", "f4,i4", ">f4", "<M8[D]",
        "floating", "integer", "number", "inexact", "signedinteger",
    ],
)  # fmt: skip
def test_names_of_other_libraries_and_categories_are_taken(name: str) -> None:
    assert checked_name(name) == name


@pytest.mark.parametrize(
    ("name", "meant"), [("flaot32", "float32"), ("float23", "float32"), ("imt64", "int64"), ("boool", "bool")]
)
def test_a_slip_of_the_pen_is_refused_with_the_name_that_was_meant(name: str, meant: str) -> None:
    with pytest.raises(ValueError, match=rf"dtype must be .*'float32'.*, got '{name}'; did you mean '{meant}'\?"):
        Array(dtype=name)
    with pytest.raises(ValueError, match=name):
        Column(dtype=name)


def test_one_of_several_names_is_looked_at_as_well() -> None:
    with pytest.raises(ValueError, match="got 'no such type'"):
        Array(dtype=("float32", "no such type"))

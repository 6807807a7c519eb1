"""What a value looks like is told, what it says is not."""

from __future__ import annotations

import json
import warnings
from collections import deque
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncguard._machines.summary import describe, reveal, statistics
from asyncguard._machines.text import REDACTED, Redactor

SECRET = "alice@example.com"


@pytest.mark.parametrize(
    ("value", "facts"),
    [
        (None, {"type": "NoneType"}),
        (True, {"type": "bool"}),
        (42, {"type": "int"}),
        ("abc", {"type": "str", "length": 3, "characters": "ascii"}),
        ("Grüße", {"type": "str", "length": 5, "characters": "unicode"}),
        (b"abcd", {"type": "bytes", "nbytes": 4}),
        ([], {"type": "list", "length": 0}),
        (["a", 1], {"type": "list", "length": 2, "items": "str"}),
        (deque([1.0]), {"type": "deque", "length": 1, "items": "float"}),
        ({SECRET: 1}, {"type": "dict", "length": 1}),
        ({SECRET}, {"type": "set", "length": 1}),
        (np.zeros((32, 768), "f4"), {"type": "ndarray", "shape": (32, 768), "dtype": "float32", "nbytes": 98304}),
        (np.float32(1), {"type": "float32", "shape": (), "dtype": "float32", "nbytes": 4}),
    ],
)
def test_the_facts_of_a_value(value: Any, facts: dict[str, Any]) -> None:
    assert describe(value) == facts


class Tensor:
    """Looks like an array of a library that is not installed."""

    __module__ = "torch"
    shape = (2, 3)
    dtype = "torch.bfloat16"
    nbytes = 12


class Frame:
    shape = (10, 5)


class Broken:
    @property
    def shape(self) -> tuple[int, ...]:
        raise RuntimeError("compute() first")


class Strange:
    shape = "round"
    dtype = object()


class Query:
    def __len__(self) -> int:
        raise AssertionError("this asks the database")


@pytest.mark.parametrize(
    ("value", "facts"),
    [
        (Tensor(), {"type": "Tensor", "shape": (2, 3), "dtype": "torch.bfloat16", "nbytes": 12}),
        (Frame(), {"type": "Frame", "shape": (10, 5)}),
        (Broken(), {"type": "Broken"}),
        (Strange(), {"type": "Strange"}),
        (Query(), {"type": "Query"}),
    ],
)
def test_arrays_are_known_by_their_attributes_and_nothing_is_computed(value: Any, facts: dict[str, Any]) -> None:
    assert describe(value) == facts


def test_statistics_are_those_of_the_values() -> None:
    values = np.random.default_rng(1).normal(5.0, 2.0, (256, 256))
    facts = statistics(values)
    assert facts["mean"] == pytest.approx(5.0, abs=0.5)
    assert facts["std"] == pytest.approx(2.0, abs=0.4)
    assert facts["nonfinite"] == 0.0


def test_statistics_of_few_enough_values_are_exact() -> None:
    values = list(np.random.default_rng(2).normal(0.0, 1.0, 200))
    facts = statistics([float(value) for value in values])
    assert facts["mean"] == pytest.approx(np.mean(values))
    assert facts["std"] == pytest.approx(np.std(values))


def test_the_sample_sees_every_column() -> None:
    """A step that divides the row length would look at the same few columns of each row."""
    columns = np.tile(np.arange(512.0), (64, 1))
    assert statistics(columns)["mean"] == pytest.approx(columns.mean(), rel=0.1)


def test_values_that_are_not_finite_are_counted_and_left_out_without_a_warning() -> None:
    values = np.ones(100, "f4")
    values[::4] = np.nan
    values[1::4] = np.inf
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        facts = statistics(values)
    assert facts == pytest.approx({"nonfinite": 0.5, "mean": 1.0, "std": 0.0})


@pytest.mark.parametrize(
    "value",
    [
        np.full(64, np.nan),
        np.full(64, 3e38, "f4"),
        np.full(64, 1.7e308),
        np.arange(64, dtype="i8") * 2**55,
        np.zeros((64, 64))[:, ::3],
        np.zeros((8, 8, 8), ">f8"),
        np.zeros(64, "f2"),
    ],
)
def test_odd_arrays_have_statistics_and_no_warning(value: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "nonfinite" in statistics(value)


@pytest.mark.parametrize(
    "value",
    [
        np.ones(31),  # the statistics of a few values are the values
        [1.0] * 31,
        np.array(["a"] * 64),
        np.array([object()] * 64),
        np.zeros((0, 768)),
        np.float64(1.0),
        ["text"] * 64,
        [True] * 64,
        [1.0] * 63 + ["x"],
        "a" * 64,
        None,
        Tensor(),
    ],
)
def test_where_statistics_would_be_wrong_or_tell_the_data_there_are_none(value: Any) -> None:
    assert statistics(value) == {}


def test_a_recorded_value_is_shown_scrubbed() -> None:
    redactor = Redactor()
    value = {"lang": "en", SECRET: 1, "password": "hunter2", "to": [SECRET, 7, 2.5, None, True], "x": np.zeros(3)}
    shown = reveal(value, redactor)
    assert shown["lang"] == "en"
    assert shown["password"] == REDACTED
    assert shown["to"] == [REDACTED, 7, 2.5, None, True]
    assert shown["x"] == "<ndarray shape=(3,), dtype=float64, nbytes=24>"
    assert SECRET not in json.dumps(shown)


def test_a_recorded_value_is_cut_in_width_and_depth() -> None:
    redactor = Redactor()
    assert len(reveal(list(range(1000)), redactor)) == 16
    assert len(reveal({key: key for key in range(1000)}, redactor)) == 16
    assert len(reveal("x" * 10_000, redactor)) < 300
    assert reveal([[[[1]]]], redactor) == [[["<list length=1, items=int>"]]]
    assert reveal(4111111111111111, redactor) == REDACTED


@given(
    st.recursive(
        st.none() | st.integers() | st.floats() | st.text() | st.binary(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_nothing_makes_a_summary_fail(value: Any) -> None:
    describe(value)
    statistics(value)
    text = json.dumps(reveal(value, Redactor()), ensure_ascii=False)
    assert "\n" not in text

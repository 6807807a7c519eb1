"""Columns of pandas and polars frames."""

from __future__ import annotations

import math
from typing import Any

import pytest

from asyncguard._machines.rules import Column, Columns
from asyncguard._machines.rules_base import Location, Report, failure

RULE = Columns("city", price=Column("float64", nulls=False, ge=0, le=100), rooms="int64")


@pytest.fixture(params=["pandas", "polars"])
def library(request: pytest.FixtureRequest) -> Any:
    return pytest.importorskip(request.param)


def frame(library: Any, **columns: object) -> Any:
    return library.DataFrame({"city": ["a", "b"], "price": [1.0, 2.0], "rooms": [1, 2], **columns})


def names(library: Any, float64: str) -> str:
    return float64 if library.__name__ == "pandas" else float64.capitalize()


def text(rule: Columns, value: object) -> str:
    report = Report("f")
    assert rule.examine(value, Location(report, "x")) is value
    return str(failure(report, "v")) if report.violations else ""


def rule(library: Any, **price: Any) -> Columns:
    return Columns("city", price=Column(names(library, "float64"), **price), rooms=names(library, "int64"))


def test_a_good_frame(library: Any) -> None:
    assert text(rule(library, nulls=False, ge=0, le=100), frame(library)) == ""
    assert text(Columns("city"), frame(library, more=[1, 2])) == ""


def test_missing_columns_are_named_and_the_others_are_still_checked(library: Any) -> None:
    message = text(Columns("nope", "neither", rooms="str"), frame(library))
    assert "columns: expected 'nope', 'neither', 'rooms', got no 'nope', 'neither'" in message
    assert f"f(x['rooms']): dtype: expected str, got {names(library, 'int64')}" in message


def test_missing_values_are_counted_where_they_are_forbidden(library: Any) -> None:
    bad = frame(library, price=[1.0, None])
    assert text(rule(library), bad) == ""
    message = text(rule(library, nulls=False), bad)
    assert message == "f(x['price']): nulls: 1 of 2 values is missing, first at row 1"


def test_nan_is_missing_and_in_every_range(library: Any) -> None:
    bad = frame(library, price=[math.nan, 2.0])
    assert text(rule(library, ge=0, le=100), bad) == ""
    assert "nulls: 1 of 2 values is missing, first at row 0" in text(rule(library, nulls=False), bad)


def test_a_range_of_a_column(library: Any) -> None:
    message = text(rule(library, gt=1, lt=2), frame(library))
    assert "gt: 1 of 2 values is not > 1, first at row 0" in message
    assert "lt: 1 of 2 values is not < 2, first at row 1" in message


def test_a_range_of_a_column_of_text(library: Any) -> None:
    message = text(Columns(city=Column(ge=1)), frame(library))
    assert message.startswith("f(x['city']): ge: expected numbers, got ")


def test_an_empty_frame(library: Any) -> None:
    assert text(Columns(price=Column(nulls=False, ge=5)), frame(library)[:0]) == ""


def test_a_column_that_is_there_twice() -> None:
    pandas = pytest.importorskip("pandas")
    double = pandas.DataFrame([[1, 2]], columns=["a", "a"])
    assert text(Columns(a="int64"), double) == "f(x['a']): columns: expected one column of this name, got 2"


def test_a_lazy_frame_is_no_frame_yet() -> None:
    polars = pytest.importorskip("polars")
    assert text(Columns("a"), polars.LazyFrame({"a": [1]})) == "f(x): type: expected a data frame, got LazyFrame"


def test_column_names_that_are_no_identifiers(library: Any) -> None:
    assert "got no 'unit price'" in text(Columns({"unit price": "float64"}), frame(library))


@pytest.mark.parametrize("value", [None, 3, {"city": 1}])
def test_something_else_than_a_frame(value: object) -> None:
    assert text(RULE, value) == f"f(x): type: expected a data frame, got {type(value).__name__}"


def test_options_are_checked() -> None:
    with pytest.raises(TypeError, match="at least one column"):
        Columns()
    with pytest.raises(ValueError, match="nulls"):
        Column(nulls=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="range"):
        Column(ge=2, le=1)
    with pytest.raises(TypeError, match="dtype"):
        Columns(a=3)

"""The `Array` rule against a slow oracle, and every kind of array that ever went wrong."""

from __future__ import annotations

import math
import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from asyncguard._machines.rules import Array
from asyncguard._machines.rules_base import Location, Report, Rule, failure

FLOATS = st.floats(allow_nan=True, allow_infinity=True, width=16)
SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5)
DTYPES = st.sampled_from(["<f2", "<f4", "<f8", ">f4", ">f8", "<i4", ">i8", "<u2"])


def look(rule: Rule, value: object) -> Report:
    report = Report("f")
    assert rule.examine(value, Location(report, "x")) is value
    return report


def text(rule: Rule, value: object) -> str:
    """The message; empty if the value is fine. The happy path has to say the same."""
    report = look(rule, value)
    test = rule.tester(frozenset(rule.names()))
    assert test is not None
    assert test(value, {}) is not bool(report.violations)
    return str(failure(report, "v")) if report.violations else ""


def elements(array: np.ndarray) -> list[tuple[tuple[int, ...], float]]:
    return [(index, float(array[index])) for index in np.ndindex(array.shape)]


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    dtype = np.dtype(draw(DTYPES))
    values = FLOATS if dtype.kind == "f" else st.integers(0, 100)
    array = draw(hnp.arrays(dtype, draw(SHAPES), elements=values))
    return array[..., ::-1] if array.ndim and draw(st.booleans()) else array


@given(arrays())
def test_finite_says_what_looking_at_each_element_says(array: np.ndarray) -> None:
    bad = [(index, number) for index, number in elements(array) if not math.isfinite(number)]
    message = text(Array(finite=True), array)
    if not bad:
        assert message == ""
        return
    index, number = bad[0]
    are = "is" if len(bad) == 1 else "are"
    expected = f"finite: {len(bad)} of {array.size} values {are} not finite, first at {list(index)} ({number})"
    assert message == f"f(x): {expected}"


@given(arrays(), st.sampled_from(["ge", "gt", "le", "lt"]), st.sampled_from([0, 3, -0.5, 2.5, 1e5, -1e300]))
def test_a_range_says_what_looking_at_each_element_says(array: np.ndarray, option: str, limit: float) -> None:
    keeps = {"ge": float.__ge__, "gt": float.__gt__, "le": float.__le__, "lt": float.__lt__}[option]
    bad = [index for index, number in elements(array) if not keeps(number, float(limit))]
    violations = look(Array(**{option: limit}), array).violations
    assert [(each.rule, each.actual.split()[0]) for each in violations] == ([(option, str(len(bad)))] if bad else [])
    if bad:
        assert violations[0].where.startswith(f"first at {list(bad[0])}")
    text(Array(**{option: limit}), array)


@given(SHAPES, st.lists(st.sampled_from([0, 1, 2, 3, None, "a", "b"]), max_size=3), st.integers(-1, 3))
def test_a_shape_fits_as_the_slow_definition_says(
    shape: tuple[int, ...], spec: list[int | str | None], gap: int
) -> None:
    wanted = tuple(spec) if gap < 0 else (*spec[:gap], ..., *spec[gap:])
    assert (text(Array(wanted), np.zeros(shape)) == "") is fits(shape, wanted)


def fits(shape: tuple[int, ...], spec: tuple[object, ...]) -> bool:
    if ... in spec:
        missing = len(shape) - len(spec) + 1
        gap = spec.index(...)
        if missing < 0:
            return False
        spec = (*spec[:gap], *[None] * missing, *spec[gap + 1 :])
    if len(shape) != len(spec):
        return False
    named = {(want, size) for size, want in zip(shape, spec, strict=True) if isinstance(want, str)}
    sizes = all(not isinstance(want, int) or want == size for size, want in zip(shape, spec, strict=True))
    return sizes and len(named) == len({name for name, _ in named})


def test_a_name_written_twice_in_one_shape_means_a_square() -> None:
    rule = Array(("n", "n"))
    assert rule.tester(frozenset({"n"}))(np.zeros((3, 3)), {})
    assert not rule.tester(frozenset({"n"}))(np.zeros((3, 4)), {})
    assert look(rule, np.zeros((3, 4))).violations[0].actual == "(3, 4)"


def test_the_message_of_the_design() -> None:
    array = np.zeros((32, 512), "float32")
    array[17, 3] = np.nan
    array[18, 1] = np.inf
    array[19, 0] = -np.inf
    report = Report("embed")
    Array(("batch", 768), "float32", finite=True).examine(array, Location(report, "x"))
    assert str(failure(report, "v")) == (
        "embed(x): shape: expected (batch, 768), got (32, 512); "
        "finite: 3 of 16384 values are not finite, first at [17, 3] (nan)"
    )


def test_every_violation_is_named_at_once_and_no_value_appears() -> None:
    array = np.full((2, 3), 12345.5)
    array[0, 0] = np.nan
    message = text(Array((2, 4), "float32", finite=True, ge=-10, le=10), array)
    assert message.count(";") == 3
    assert "le: 5 of 6 values are not <= 10, first at [0, 1]" in message
    assert "12345" not in message


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [768, 8192, 8193])
def test_large_finite_values_are_finite_although_their_square_overflows(dtype: str, size: int) -> None:
    array = np.full(size, 3e38 if dtype == "float32" else 1e300, dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert text(Array(finite=True), array) == ""
        array[size - 1] = np.nan
        assert f"first at [{size - 1}] (nan)" in text(Array(finite=True), array)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 4095, 8191])
def test_the_dot_product_hides_no_position(bad: float, place: int) -> None:
    array = np.zeros(8192, "float32")
    array[place] = bad
    assert f"first at [{place}]" in text(Array(finite=True), array)


def test_two_infinities_of_opposite_sign_do_not_cancel() -> None:
    assert "2 of 2" in text(Array(finite=True), np.array([np.inf, -np.inf]))


@pytest.mark.parametrize("shape", [(0,), (0, 768), (3, 0)])
def test_an_empty_array_breaks_no_rule_on_values(shape: tuple[int, ...]) -> None:
    assert text(Array(finite=True, ge=1, lt=2), np.zeros(shape)) == ""


def test_float16_is_compared_exactly() -> None:
    array = np.array([60000.0], "float16")
    assert text(Array(finite=True, le=1e5), array) == ""
    assert "not >= 100000" in text(Array(ge=1e5), array)


def test_a_foreign_byte_order_is_another_dtype() -> None:
    array = np.zeros((2, 3), ">f4")
    assert "dtype: expected float32, got >f4" in text(Array(dtype="float32"), array)
    assert text(Array(dtype=">f4", finite=True), array) == ""
    assert text(Array(dtype="floating"), array) == ""


@pytest.mark.parametrize(
    ("spec", "dtype", "fine"),
    [
        ("float32", "float32", True),
        ("f4", "float32", True),
        ("float32", "float64", False),
        (np.float64, "float64", True),
        (np.dtype("float32"), "float32", True),
        (float, "float64", True),
        (int, "int64", True),
        (("float16", "float32"), "float16", True),
        (("float16", "float32"), "float64", False),
        ("floating", "float16", True),
        ("floating", "int64", False),
        ("integer", "uint8", True),
        ("signedinteger", "uint8", False),
        ("number", "complex64", True),
        ("number", "bool", False),
    ],
)
def test_dtypes(spec: object, dtype: str, fine: bool) -> None:
    assert (text(Array(dtype=spec), np.zeros(2, dtype)) == "") is fine


def test_a_dtype_that_knows_nothing_of_a_name_is_another_one() -> None:
    class Strange:
        isnative = True
        name = "strange"

        def __eq__(self, other: object) -> bool:
            raise TypeError

        __hash__ = object.__hash__

    class Value:
        shape, dtype = (), Strange()

    assert text(Array(dtype="float32"), Value()) == "f(x): dtype: expected float32, got strange"


def test_masked_entries_are_missing_and_break_no_rule() -> None:
    array = np.ma.masked_invalid([1.0, np.nan, 3.0])
    assert text(Array(finite=True, ge=0), array) == ""
    array.mask = [True, False, False]
    assert "1 of 3 values is not finite, first at [1]" in text(Array(finite=True), array)
    assert text(Array(finite=True, le=2), np.ma.masked_all(3)) == ""


def test_objects_and_strings_are_not_numbers_and_do_not_crash() -> None:
    assert "finite: expected numbers, got object" in text(Array(finite=True), np.array([1.0, None], object))
    assert "finite: expected numbers, got" in text(Array(finite=True), np.array(["a"]))
    assert "ge: expected real numbers, got complex128" in text(Array(ge=0), np.array([1j]))
    assert "ge: expected real numbers, got" in text(Array(ge=0), np.array(["a"]))


def test_integers_and_booleans_are_finite() -> None:
    for dtype in ("int8", "uint64", "bool"):
        assert text(Array(finite=True), np.ones(3, dtype)) == ""


def test_integers_are_compared_without_rounding() -> None:
    big = np.array([2**63 - 1], "int64")
    assert text(Array(le=2**63 - 1), big) == ""
    assert "not <= 9223372036854775806" in text(Array(le=2**63 - 2), big)


@pytest.mark.parametrize("value", [[1.0], 3, None, "abc", {"shape": 1}])
def test_lists_are_not_arrays(value: object) -> None:
    assert (
        text(Array((1,), "float64", finite=True), value) == f"f(x): type: expected an array, got {type(value).__name__}"
    )


def test_a_list_as_shape_and_a_scalar_array() -> None:
    assert text(Array([2, None]), np.zeros((2, 5))) == ""
    assert text(Array((), finite=True), np.float32(1)) == ""
    assert "first at [] (nan)" in text(Array((), finite=True), np.array(np.nan))


class Counting:
    """An array that tells whether anybody looked at its values."""

    shape, dtype, nbytes = (10**6,), np.dtype("float64"), 8 * 10**6

    def __array_namespace__(self) -> object:
        raise AssertionError

    def min(self) -> float:
        raise AssertionError


def test_a_too_large_array_is_refused_before_its_values_are_looked_at() -> None:
    message = text(Array(finite=True, ge=0, max_bytes=10**6), Counting())
    assert message == "f(x): max_bytes: expected at most 1000000 bytes, got 8000000 bytes"


def test_the_first_bad_value_is_found_in_every_block() -> None:
    array = np.zeros((3, 65536))
    array[1, 65535] = np.nan
    assert "1 of 196608 values is not finite, first at [1, 65535] (nan)" in text(Array(finite=True), array)


def test_a_range_with_nan_where_finite_is_not_asked_for() -> None:
    assert "ge: 1 of 2 values is not >= 0, first at [1] (nan)" in text(Array(ge=0), np.array([1.0, np.nan]))


def test_non_finite_values_are_reported_once() -> None:
    violations = look(Array(finite=True, ge=0, le=5), np.array([1.0, np.nan, np.inf])).violations
    assert [each.rule for each in violations] == ["finite"]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"shape": (-1,)}, "shape"),
        ({"shape": (True,)}, "shape"),
        ({"shape": (1.5,)}, "shape"),
        ({"shape": ("not a name",)}, "shape"),
        ({"shape": (..., 1, ...)}, "shape"),
        ({"shape": 3}, "shape"),
        ({"dtype": 3}, "dtype"),
        ({"dtype": ()}, "dtype"),
        ({"dtype": ""}, "dtype"),
        ({"finite": 1}, "finite"),
        ({"ge": math.nan}, "ge"),
        ({"le": math.inf}, "le"),
        ({"gt": True}, "gt"),
        ({"ge": 3, "le": 2}, "range"),
        ({"ge": 3, "gt": 2}, "one lower"),
        ({"max_bytes": 0}, "max_bytes"),
        ({"max_bytes": 1.5}, "max_bytes"),
    ],
)
def test_an_option_out_of_range_is_refused_by_name(options: dict[str, object], named: str) -> None:
    with pytest.raises((ValueError, TypeError), match=named):
        Array(**options)


def test_rules_pickle_and_compare_by_what_was_written() -> None:
    rule = Array(("n", 3), "float32", finite=True, ge=0)
    copy = pickle.loads(pickle.dumps(rule))
    assert copy == rule
    assert text(copy, np.zeros((2, 3), "float32")) == ""
    assert repr(rule).startswith("Array(shape=('n', 3), dtype='float32', finite=True")


def test_a_library_of_the_array_api_standard_is_enough() -> None:
    xp = pytest.importorskip("array_api_strict")
    array = xp.asarray([[1.0, 2.0], [3.0, xp.nan]])
    assert "1 of 4 values is not finite, first at [1, 1] (nan)" in text(Array((2, 2), "float64", finite=True), array)
    assert text(Array(finite=True, ge=0, le=9.5), xp.asarray([1, 2])) == ""
    assert "1 of 2 values is not > 1" in text(Array(gt=1), xp.asarray([1.0, 2.0]))


def test_torch_tensors() -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.tensor([[1.0, 2.0], [3.0, float("nan")]])
    assert "1 of 4 values is not finite, first at [1, 1] (nan)" in text(Array((2, 2), "float32", finite=True), tensor)
    assert text(Array(dtype=torch.float32), tensor) == ""
    assert "not >= 2" in text(Array(ge=2), torch.tensor([1, 2]))


def test_a_series_is_read_through_its_numpy_array() -> None:
    pandas = pytest.importorskip("pandas")
    report = look(Array((2,), "float64", finite=True), pandas.Series([1.0, math.nan]))
    assert [each.rule for each in report.violations] == ["finite"]


def test_the_rules_load_no_array_library() -> None:
    code = (
        "import sys, asyncguard._machines.rules as r; r.Array((2,), 'float32', finite=True, ge=0);"
        "assert not {'numpy', 'pandas', 'polars', 'torch', 'jax', 'pydantic'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_jax_arrays() -> None:
    jnp = pytest.importorskip("jax.numpy")
    array = jnp.asarray([[1.0, 2.0], [3.0, math.nan]])
    assert "1 of 4 values is not finite, first at [1, 1] (nan)" in text(Array((2, 2), "float32", finite=True), array)
    assert text(Array(dtype="bfloat16", finite=True), array[:1].astype(jnp.bfloat16)) == ""
    assert "not >= 2" in text(Array(ge=2), jnp.asarray([1, 2]))

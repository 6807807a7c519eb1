"""The `Array` rule: shape with named dimensions, dtype, size, finiteness and range of arrays and tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from asyncguard._machines import checks
from asyncguard._machines.rules_base import Dims, Location, Rule, Test
from asyncguard._machines.rules_dtype import Dtypes, dtype_name
from asyncguard._machines.rules_numbers import CANNOT, Bound, all_finite, bounds, find, within
from asyncguard._machines.rules_shape import Matcher, Shape, ShapeSpec

__all__ = ["Array"]


@dataclass(frozen=True, slots=True)
class Array(Rule):
    """An array or tensor of numpy, torch, jax, cupy or any library that has `shape` and `dtype`.

    `shape`: a tuple of sizes, names (`"batch"`: the same size wherever the name is written, in all parameters and the
    result), `None` for any size, and at most one `...` for any number of dimensions.
    `dtype`: a name (`"float32"`), a category as numpy calls them (`"floating"`, `"integer"`, `"number"`), a dtype, or
    a tuple of them. Exact, byte order included.
    `finite`: neither NaN nor infinity. `ge`, `gt`, `le`, `lt`: every value is in the range; NaN never is.
    `max_bytes`: a larger array is refused before anything looks at its values.

    Masked entries are missing and break no rule. Lists are not arrays.

    Raises TypeError or ValueError for an option that is out of range.
    """

    shape: ShapeSpec | None = None
    dtype: object = None
    finite: bool = field(default=False, kw_only=True)
    ge: float | None = field(default=None, kw_only=True)
    gt: float | None = field(default=None, kw_only=True)
    le: float | None = field(default=None, kw_only=True)
    lt: float | None = field(default=None, kw_only=True)
    max_bytes: int | None = field(default=None, kw_only=True)
    _shape: Shape | None = field(default=None, init=False, repr=False, compare=False)
    _dtypes: Dtypes | None = field(default=None, init=False, repr=False, compare=False)
    _range: tuple[Bound, ...] = field(default=(), init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the options."""
        checks.boolean("finite", self.finite)
        if self.max_bytes is not None:
            checks.integer("max_bytes", self.max_bytes, least=1)
        object.__setattr__(self, "_shape", None if self.shape is None else Shape(self.shape))
        object.__setattr__(self, "_dtypes", None if self.dtype is None else Dtypes(self.dtype))
        object.__setattr__(self, "_range", bounds(self.ge, self.gt, self.le, self.lt))

    def names(self) -> Iterable[str]:
        """Return the named dimensions of the shape."""
        return [] if self._shape is None else [name for _axis, name in self._shape.named]

    def tester(self, shared: frozenset[str]) -> Test:
        """Return the happy path: attributes first, then the size, then the values."""
        cheap = self._cheap(shared)
        if not (self.finite or self._range or self.max_bytes):
            return cheap
        finite, limits, most = self.finite and not _implied(self._range), self._range, self.max_bytes

        def test(value: Any, dims: Dims) -> bool:
            if not cheap(value, dims) or (most is not None and _nbytes(value) > most):
                return False
            try:
                return (not finite or all_finite(value)) and (not limits or within(value, limits))
            except CANNOT:
                return False

        return test

    def _cheap(self, shared: frozenset[str]) -> Test:
        if self._shape is None:
            return _shaped_test(None, self._accept())
        if self._shape.open or not self._shape.fixed or not shared.isdisjoint(self.names()):
            return _shaped_test(self._shape.matcher(shared), self._accept())
        return _plain_test(self._shape, self._accept())

    def _accept(self) -> Callable[[object], bool]:
        return (lambda _dtype: True) if self._dtypes is None else self._dtypes.accept

    def examine(self, value: Any, at: Location) -> Any:
        """Report every violation; the values are not looked at if the array is larger than `max_bytes`."""
        if not hasattr(value, "shape") or not hasattr(value, "dtype"):
            at.broken("type", "an array", type(value).__name__)
            return value
        self._examine_shape(tuple(value.shape), at)
        if self._dtypes is not None and not self._dtypes.accept(value.dtype):
            at.broken("dtype", str(self._dtypes), dtype_name(value.dtype))
        if self.max_bytes is not None and _nbytes(value) > self.max_bytes:
            at.broken("max_bytes", f"at most {self.max_bytes} bytes", f"{_nbytes(value)} bytes")
            return value
        self._examine_values(value, at)
        return value

    def _examine_shape(self, shape: tuple[int, ...], at: Location) -> None:
        if self._shape is None:
            return
        new = self._shape.bind(shape, at.report.dims)
        if new is None:
            at.broken("shape", str(self._shape) + _bound(self._shape, at), str(shape))
            return
        for name, size in new.items():
            at.report.dims[name] = size
            at.report.origins.setdefault(name, at.parameter + at.path)

    def _examine_values(self, value: Any, at: Location) -> None:
        for limit in (None, *self._range) if self.finite else self._range:
            rule, text = ("finite", "finite") if limit is None else (limit.rule, str(limit))
            try:
                bad = find(value, limit, finite=self.finite)
            except CANNOT:
                at.broken(rule, "real numbers" if limit else "numbers", dtype_name(value.dtype))
                continue
            if bad is not None:
                at.broken(rule, f"values that are {text}", bad.clause(text), bad.where())


def _implied(limits: tuple[Bound, ...]) -> bool:
    return len(limits) == 2  # noqa: PLR2004 - NaN is in no range, and infinity not in one that is closed on both sides


def _plain_test(shape: Shape, accept: Callable[[object], bool]) -> Test:
    """Return the fastest test, for the most common rule: fixed rank, at least one fixed size, nothing to bind.

    The dtype accepted last is compared by identity: dtypes are singletons in every library.
    """
    rank, (axis, size), others = shape.least, shape.fixed[0], shape.fixed[1:]
    known = object()

    def test(value: Any, dims: Dims) -> bool:  # noqa: ARG001
        nonlocal known
        try:
            actual, dtype = value.shape, value.dtype
        except AttributeError:
            return False
        if dtype is not known:
            if not accept(dtype):
                return False
            known = dtype
        if len(actual) != rank or actual[axis] != size:
            return False
        return not others or all(actual[each] == wanted for each, wanted in others)

    return test


def _shaped_test(matches: Matcher | None, accept: Callable[[object], bool]) -> Test:
    """Return the test of any shape."""
    known = object()

    def test(value: Any, dims: Dims) -> bool:
        nonlocal known
        try:
            shape, dtype = value.shape, value.dtype
        except AttributeError:
            return False
        if dtype is not known:
            if not accept(dtype):
                return False
            known = dtype
        return matches is None or matches(shape, dims)

    return test


def _nbytes(value: Any) -> int:
    size = getattr(value, "nbytes", None)
    return int(math.prod(value.shape) * value.dtype.itemsize if size is None else size)


def _bound(shape: Shape, at: Location) -> str:
    report = at.report
    known = dict.fromkeys(name for _axis, name in shape.named if name in report.dims)
    texts = [f"{name} = {report.dims[name]}" + _origin(report.origins.get(name)) for name in known]
    return f" with {', '.join(texts)}" if texts else ""


def _origin(parameter: str | None) -> str:
    return f" (from {parameter})" if parameter else ""

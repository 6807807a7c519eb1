"""Shapes of arrays: sizes, named dimensions that must agree, any size, any number of leading or inner dimensions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import EllipsisType
from typing import Any, cast

from asyncguard._machines.checks import fail, wrong_type

__all__ = ["Matcher", "Shape", "ShapeSpec"]

ShapeSpec = tuple[int | str | EllipsisType | None, ...]
Matcher = Callable[[tuple[int, ...], "dict[str, int] | None"], bool]
ALLOWED = "a tuple of sizes (int), names (str), None for any size, and at most one ... for any dimensions"


class Shape:
    """An expected shape, e.g. `("batch", 768)`, `(..., 3)`, `(None, "width")`."""

    __slots__ = ("axes", "fixed", "least", "named", "open", "spec")

    def __init__(self, spec: object) -> None:
        self.spec: ShapeSpec = _checked(spec)
        self.open = ... in self.spec
        self.least = len(self.spec) - self.open
        self.axes = _axes(self.spec)
        self.fixed = tuple((axis, size) for axis, size in self.axes if isinstance(size, int))
        self.named = tuple((axis, name) for axis, name in self.axes if isinstance(name, str))

    def __str__(self) -> str:
        words = [_word(each) for each in self.spec]
        return f"({words[0]},)" if len(words) == 1 else f"({', '.join(words)})"

    def matcher(self, shared: frozenset[str]) -> Matcher:
        """Return a function that says whether a shape fits, binding the `shared` names in the dict it receives."""
        fixed, least, is_open = self.fixed, self.least, self.open
        binds = tuple((axis, name) for axis, name in self.named if name in shared)

        def matches(shape: tuple[int, ...], dims: dict[str, int] | None) -> bool:
            if len(shape) < least or (len(shape) > least and not is_open):
                return False
            for axis, size in fixed:
                if shape[axis] != size:
                    return False
            if dims is not None:
                for axis, name in binds:
                    if dims.setdefault(name, shape[axis]) != shape[axis]:
                        return False
            return True

        return matches

    def bind(self, shape: tuple[int, ...], dims: dict[str, int]) -> dict[str, int] | None:
        """Return the names that `shape` newly binds, or None if it does not fit; `dims` is not changed."""
        new: dict[str, int] = {}
        if not self.matcher(frozenset())(shape, None):
            return None
        for axis, name in self.named:
            if dims.get(name, new.setdefault(name, shape[axis])) != shape[axis]:
                return None
        return new


def _checked(spec: Any) -> ShapeSpec:
    if not isinstance(spec, tuple | list):
        raise wrong_type("shape", spec, ALLOWED)
    axes = tuple(cast("Iterable[Any]", spec))
    for each in axes:
        _check_axis(each)
    if axes.count(...) > 1:
        raise fail("shape", axes, ALLOWED)
    return axes


def _check_axis(each: object) -> None:
    size = isinstance(each, int) and not isinstance(each, bool) and each >= 0
    if not (size or each is None or each is ... or (isinstance(each, str) and each.isidentifier())):
        raise fail("shape", each, ALLOWED)


def _axes(spec: ShapeSpec) -> tuple[tuple[int, object], ...]:
    if ... not in spec:
        return tuple(enumerate(spec))
    gap = spec.index(...)
    tail = len(spec) - gap - 1
    return (*enumerate(spec[:gap]), *((axis - tail, spec[gap + 1 + axis]) for axis in range(tail)))


def _word(each: object) -> str:
    return "..." if each is ... else "any" if each is None else str(each)

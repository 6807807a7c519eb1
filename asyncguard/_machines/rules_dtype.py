"""Element types by name, so that numpy, torch, jax and polars need not be imported to compare them."""

from __future__ import annotations

from typing import Any, cast

from asyncguard._machines.checks import wrong_type
from asyncguard._machines.dtype_names import checked_name

__all__ = ["Dtypes", "dtype_name"]

ALLOWED = "a dtype name such as 'float32', a category ('floating', 'integer', 'number'), a dtype, or a tuple of them"
PYTHON = {float: "float64", int: "int64", complex: "complex128", bool: "bool"}
SIGNED = ("int",)
UNSIGNED = ("uint",)
FLOATING = ("float", "bfloat", "longdouble")
COMPLEX = ("complex", "clongdouble")
CATEGORIES: dict[str, tuple[str, ...]] = {
    "signedinteger": SIGNED,
    "unsignedinteger": UNSIGNED,
    "integer": SIGNED + UNSIGNED,
    "floating": FLOATING,
    "complexfloating": COMPLEX,
    "inexact": FLOATING + COMPLEX,
    "number": SIGNED + UNSIGNED + FLOATING + COMPLEX,
}


def dtype_name(dtype: object) -> str:
    """Return the name of a dtype of any library: `float32`; with a foreign byte order numpy's `>f4`."""
    if getattr(dtype, "isnative", True) is False:
        return str(getattr(dtype, "str", dtype))
    return _plain_name(dtype)


def _plain_name(dtype: object) -> str:
    name = getattr(dtype, "name", None)
    return name if isinstance(name, str) else str(dtype).rpartition(".")[2]


class Dtypes:
    """One or several accepted element types, compared exactly; a category accepts every width and byte order."""

    __slots__ = ("names",)

    def __init__(self, spec: Any) -> None:
        given = cast("tuple[object, ...]", spec) if isinstance(spec, tuple) else (spec,)
        self.names = tuple(_expected(each) for each in given)
        if not self.names:
            raise wrong_type("dtype", (), ALLOWED)

    def __str__(self) -> str:
        return " or ".join(self.names)

    def accept(self, dtype: object) -> bool:
        """Return whether `dtype` is one of them."""
        return dtype_name(dtype) in self.names or any(_is(dtype, each) for each in self.names)


def _expected(each: Any) -> str:
    if isinstance(each, str) and each:
        return checked_name(each.removeprefix("torch."))
    if isinstance(each, type):
        return PYTHON.get(each) or each.__name__
    if each is None or type(each).__module__ == "builtins":
        raise wrong_type("dtype", each, ALLOWED)
    return dtype_name(each)


def _is(dtype: object, expected: str) -> bool:
    if expected in CATEGORIES:
        return _plain_name(dtype).lower().startswith(CATEGORIES[expected])
    try:
        return hasattr(dtype, "isnative") and bool(dtype == expected)  # numpy knows its own aliases: f4, <f4, single
    except TypeError:
        return False

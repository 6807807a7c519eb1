"""What the numbers in an array say: are they finite, are they in range, and where is the first that is not.

Works on numpy, torch, jax, cupy and every library of the array API standard, through the functions of the array's own
namespace; nothing is imported. On a device (CUDA) the answer is read back, which waits for the device.
"""

from __future__ import annotations

import math
import operator
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from asyncguard._machines import checks

__all__ = ["CANNOT", "Bad", "Bound", "all_finite", "bounds", "find", "within"]

CANNOT = (TypeError, ValueError, RuntimeError, NotImplementedError, AttributeError)
SMALL = 8192  # above, BLAS may hand work to threads: a hand-off costs more than the scan
BLOCK = 65536
EXACT_KINDS = frozenset("biu")
MOST_TYPES = 64
HOMES = {"jaxlib": "jax.numpy", "jax": "jax.numpy"}
_COMPARISONS: dict[str, tuple[str, Callable[[Any, Any], Any]]] = {
    "ge": (">=", operator.ge),
    "gt": (">", operator.gt),
    "le": ("<=", operator.le),
    "lt": ("<", operator.lt),
}
_scans: dict[type, Callable[[Any], bool]] = {}


@dataclass(frozen=True, slots=True)
class Bound:
    """One side of a range: `rule` is its option (`ge`), `sign` how it is written, `holds` the comparison."""

    rule: str
    sign: str
    holds: Callable[[Any, Any], Any]
    limit: float

    def __str__(self) -> str:
        return f"{self.sign} {self.limit:g}" if isinstance(self.limit, float) else f"{self.sign} {self.limit}"

    def above(self) -> bool:
        """Return whether it bounds from below."""
        return self.rule in {"ge", "gt"}

    def keeps(self, number: Any) -> bool:
        """Return whether one number keeps it."""
        return bool(self.holds(number, self.limit))

    def whole(self) -> int | float:
        """Return the limit that says the same about integers."""
        if isinstance(self.limit, int):
            return self.limit
        return math.ceil(self.limit) if self.rule in {"ge", "lt"} else math.floor(self.limit)


@dataclass(frozen=True, slots=True)
class Bad:
    """`count` of `total` values break a rule, the first at `index`; `what` is nan, inf, -inf or empty."""

    count: int
    total: int
    index: tuple[int, ...]
    what: str

    def where(self) -> str:
        """Return the place of the first, and what it is where that says nothing about the data."""
        return f"first at {list(self.index)}" + (f" ({self.what})" if self.what else "")

    def clause(self, text: str) -> str:
        """Return `3 of 9 values are not finite`."""
        return f"{self.count} of {self.total} values {'is' if self.count == 1 else 'are'} not {text}"


def bounds(ge: float | None, gt: float | None, le: float | None, lt: float | None) -> tuple[Bound, ...]:
    """Return the bounds that are set; ValueError for two on one side, or a range that is empty."""
    given = {"ge": ge, "gt": gt, "le": le, "lt": lt}
    for rule, limit in given.items():
        if limit is not None:
            checks.number(rule, limit)
    if (ge is not None and gt is not None) or (le is not None and lt is not None):
        raise checks.fail("ge, gt, le, lt", given, "at most one lower and one upper bound")
    low, high = gt if ge is None else ge, lt if le is None else le
    if low is not None and high is not None and low > high:
        raise checks.fail("ge, gt, le, lt", given, "a range whose lower bound is not above the upper one")
    return tuple(Bound(rule, *_COMPARISONS[rule], limit) for rule, limit in given.items() if limit is not None)


def all_finite(value: Any) -> bool:
    """Return whether no value is NaN or infinite."""
    scan = _scans.get(value.__class__)
    if scan is None:
        scan = _learn(value)
    return scan(value)


def _learn(value: Any) -> Callable[[Any], bool]:
    """Choose how arrays of this type are scanned, and remember it for the first few types seen."""
    xp = _namespace(value)
    plain = type(value) is getattr(xp, "ndarray", None) and hasattr(value, "flags") and not _home(value, "cupy")
    scan = _numpy_scan(xp) if plain else _any_scan(xp)
    if len(_scans) < MOST_TYPES:
        _scans[type(value)] = scan
    return scan


def _numpy_scan(xp: Any) -> Callable[[Any], bool]:
    """Return the scan of plain numpy arrays.

    Up to 8192 elements the dot product with itself is finite only if all elements are (3 times faster than a scan); if
    it is not, a scan confirms, because finite values of 3e38 overflow it too (`dot` would warn of that, `vdot` not).
    """
    isfinite, every, finite, square = xp.isfinite, xp.logical_and.reduce, math.isfinite, xp.vdot

    def scan(value: Any) -> bool:
        dtype = value.dtype
        if dtype.kind in EXACT_KINDS:
            return True
        small = value.size <= SMALL and dtype.char in "fd" and dtype.isnative and value.flags.c_contiguous
        return (small and finite(square(value, value))) or bool(every(isfinite(value), axis=None))

    return scan


def _any_scan(xp: Any) -> Callable[[Any], bool]:
    return lambda value: _exact(value) or _none(_not_finite(value, xp), xp)


def _home(value: Any, name: str) -> bool:
    return type(value).__module__.partition(".")[0] == name


def within(value: Any, limits: tuple[Bound, ...]) -> bool:
    """Return whether all values keep all `limits`; NaN keeps none."""
    if not math.prod(value.shape):
        return True
    xp = _namespace(value)
    if hasattr(value, "filled"):
        return all(_none(_outside(value, xp, each), xp) for each in limits)
    return all(each.keeps(_python(xp.min(value) if each.above() else xp.max(value))) for each in limits)


def find(value: Any, limit: Bound | None, *, finite: bool) -> Bad | None:
    """Return what breaks `limit` (None: what is not finite). With `finite`, NaN and infinity break no limit as well."""
    value, xp = _plain(value)
    if limit is None and _exact(value):
        return None
    mask = _not_finite(value, xp) if limit is None else _outside(value, xp, limit)
    if limit is not None and finite and not _exact(value):
        mask = xp.logical_and(mask, xp.isfinite(value))
    flat = xp.reshape(mask, (-1,))
    count = int(xp.count_nonzero(flat))
    if not count:
        return None
    index = _unravel(_first(flat, xp), tuple(value.shape))
    return Bad(count, math.prod(value.shape), index, _kind_of(value[index]))


def _namespace(value: Any) -> Any:
    own = getattr(value, "__array_namespace__", None)
    if own is not None:
        return own()
    for each in type(value).__mro__:
        root = each.__module__.partition(".")[0]
        module = sys.modules.get(HOMES.get(root, root))
        if hasattr(module, "isfinite"):
            return module
    raise TypeError(f"{type(value).__name__} offers no array functions")


def _plain(value: Any) -> tuple[Any, Any]:
    try:
        return value, _namespace(value)
    except TypeError:
        value = value.to_numpy()  # a pandas or polars series
        return value, _namespace(value)


def _exact(value: Any) -> bool:
    return getattr(value.dtype, "kind", "") in EXACT_KINDS or "int" in str(value.dtype) or "bool" in str(value.dtype)


def _not_finite(value: Any, xp: Any) -> Any:
    return _unmasked(xp.logical_not(xp.isfinite(value)), value, xp)


def _outside(value: Any, xp: Any, limit: Bound) -> Any:
    if "complex" in str(value.dtype):
        raise TypeError("complex numbers have no order")
    edge = limit.whole() if _exact(value) else limit.limit
    narrow = getattr(value.dtype, "kind", "") == "f" and value.dtype.itemsize < 8  # noqa: PLR2004 - a float16 holds no 1e5
    return _unmasked(xp.logical_not(limit.holds(value.astype("float64") if narrow else value, edge)), value, xp)


def _unmasked(bad: Any, value: Any, xp: Any) -> Any:
    """Masked entries count as missing: they break no rule."""
    if not hasattr(value, "filled"):
        return bad
    return xp.logical_and(getattr(bad, "data", bad), xp.logical_not(xp.ma.getmaskarray(value)))


def _none(bad: Any, xp: Any) -> bool:
    return not bool(xp.any(bad))


def _first(flat: Any, xp: Any) -> int:
    """Return the index of the first true entry, block by block: the indices of all might need more than the data."""
    size = int(flat.shape[0])
    for start in range(0, size, BLOCK):
        block = flat[start : min(start + BLOCK, size)]
        if bool(xp.any(block)):
            return start + int(xp.nonzero(block)[0][0])
    return 0


def _unravel(index: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    places: list[int] = []
    for size in reversed(shape):
        index, place = divmod(index, size)
        places.append(place)
    return tuple(reversed(places))


def _python(scalar: Any) -> Any:
    return scalar.item() if hasattr(scalar, "item") else float(scalar)


def _kind_of(scalar: Any) -> str:
    try:
        number = float(scalar)
    except CANNOT:
        return ""
    return "" if math.isfinite(number) else str(number)

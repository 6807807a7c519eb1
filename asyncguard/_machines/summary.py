"""What a value looks like, without the value: type, shape, dtype, bytes, length, and statistics of a sample.

Only attributes that cost nothing are read, and only of types that are known not to compute when asked: `len()` of an
unknown object may be a database query.
"""

from __future__ import annotations

import functools
import math
from collections import deque
from collections.abc import Mapping
from typing import Any, TypeAlias

from asyncguard._machines.text import REDACTED, Redactor, cut, escape

__all__ = ["Fact", "describe", "reveal", "statistics"]

Fact: TypeAlias = str | bool | int | float | tuple[int, ...] | tuple[str, ...]

_CONTAINERS = (list, tuple, dict, set, frozenset, deque)
_LOOKED_AT = 256  # values of an array that are looked at, evenly spread
_FEWEST = 32  # fewer would say what they are
_MOST_DIMENSIONS = 16
_MOST_SHOWN = 16
_DEEPEST = 3
_LONG = 10**12


def describe(value: Any) -> dict[str, Fact]:
    """Return the facts of a value that are no data: `type`, and where they apply `shape`, `dtype`, `nbytes`, `length`.

    `nbytes` is what the array says about itself. Strings give their length and whether they are ASCII.
    """
    facts: dict[str, Fact] = {"type": type(value).__name__}
    if _is(value, str):
        facts["length"] = len(value)
        facts["characters"] = "ascii" if value.isascii() else "unicode"
    elif _is(value, (bytes, bytearray)):
        facts["nbytes"] = len(value)
    elif _is(value, _CONTAINERS):
        facts["length"] = len(value)
        if value and _is(value, (list, tuple, deque)):
            facts["items"] = type(value[0]).__name__
    elif value is not None and not _is(value, (int, float, complex)):
        facts.update(_array(value))
    return facts


def _is(value: object, kinds: type | tuple[type, ...]) -> bool:
    """`isinstance` that leaves the static type alone: what stands in the containers is nobody's business here."""
    return isinstance(value, kinds)


def _array(value: Any) -> dict[str, Fact]:
    try:
        shape: Any = getattr(value, "shape", None)
        if not _is(shape, tuple) or len(shape) > _MOST_DIMENSIONS:
            return {}
        facts: dict[str, Fact] = {"shape": tuple(int(size) for size in shape)}
        dtype = getattr(value, "dtype", None)
        if dtype is not None:
            name = _numpy_dtype(dtype) if type(value).__module__ == "numpy" else str(dtype)
            facts["dtype"] = cut(escape(name), 64)
        nbytes: Any = getattr(value, "nbytes", None)
        if _is(nbytes, int):
            facts["nbytes"] = nbytes
    except Exception:  # noqa: BLE001 - a lazy array may not know its shape; a summary must never change a call
        return {}
    return facts


@functools.lru_cache(maxsize=64)  # the name of a dtype takes numpy longer than everything else here
def _numpy_dtype(dtype: object) -> str:
    return str(dtype)


def statistics(value: Any) -> dict[str, Fact]:
    """Return `mean`, `std` and `nonfinite` (a share, 0..1) of at most 256 values of an array or a list of numbers.

    The values are evenly spread, in steps that do not fall on the same column of each row. Nothing for fewer than 32
    numbers: statistics of a few values are the values. Only numpy arrays and lists: a tensor may live on a device,
    where looking means waiting.
    """
    try:
        numbers = _numbers(value)
    except Exception:  # noqa: BLE001 - a summary must never change a call
        return {}
    if len(numbers) < _FEWEST:
        return {}
    finite = [number for number in numbers if math.isfinite(number)]
    facts: dict[str, Fact] = {"nonfinite": 1.0 - len(finite) / len(numbers)}
    if finite:
        mean = math.fsum(number / len(finite) for number in finite)
        facts["mean"] = mean
        facts["std"] = math.hypot(*(number - mean for number in finite)) / math.sqrt(len(finite))
    return facts


def _numbers(value: Any) -> list[float]:
    if type(value).__module__ == "numpy" and type(value).__name__ == "ndarray":
        if value.dtype.kind not in "fiu" or value.size < _FEWEST:
            return []
        return [float(each) for each in value.flat[:: _step(value.size, value.shape[-1])].tolist()]
    if _is(value, list) and len(value) >= _FEWEST:
        sample = value[:: _step(len(value), 1)]
        if all(type(each) in (int, float) for each in sample):
            return [float(each) for each in sample]
    return []


def _step(size: int, row: int) -> int:
    step = max(1, math.ceil(size / _LOOKED_AT))
    while math.gcd(step, row) != 1:
        step += 1
    return step


def reveal(value: Any, redactor: Redactor, depth: int = 0) -> Any:
    """Return a recorded value fit to be shown: numbers and flags as they are, text scrubbed, containers cut.

    Secret keys lose their values, keys are scrubbed like text, at most 16 entries and three levels are shown; anything
    that is not a plain value is described instead.
    """
    if value is None or _is(value, (bool, float)):
        return value
    if _is(value, int):  # a long one may be the number of a card
        return value if abs(value) < _LONG else redactor.scrub(str(value), 256)
    if _is(value, str):
        return redactor.scrub(value, 256)
    if depth < _DEEPEST and _is(value, Mapping):
        return _reveal_mapping(value, redactor, depth)
    if depth < _DEEPEST and _is(value, (list, tuple)):
        return [reveal(each, redactor, depth + 1) for each in value[:_MOST_SHOWN]]
    return _phrase(value)


def _reveal_mapping(value: Mapping[Any, Any], redactor: Redactor, depth: int) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    for key in list(value)[:_MOST_SHOWN]:
        name = redactor.scrub(str(key), 64)
        shown[name] = REDACTED if redactor.secret(str(key)) else reveal(value[key], redactor, depth + 1)
    return shown


def _phrase(value: object) -> str:
    facts = describe(value)
    rest = ", ".join(f"{name}={fact}" for name, fact in facts.items() if name != "type")
    return f"<{facts['type']} {rest}>" if rest else f"<{facts['type']}>"

"""What a rate is: so many per period, and how many at once. Read from `"100/s burst 200"`."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from asyncguard._machines import checks

__all__ = ["Rate", "rate_of"]

_UNITS = {
    "ms": 10**6,
    "s": 10**9,
    "sec": 10**9,
    "second": 10**9,
    "m": 60 * 10**9,
    "min": 60 * 10**9,
    "minute": 60 * 10**9,
    "h": 3600 * 10**9,
    "hour": 3600 * 10**9,
    "d": 86400 * 10**9,
    "day": 86400 * 10**9,
}
_NUMBER = r"[0-9][0-9_]*(?:\.[0-9]+)?"
_TEXT = re.compile(
    rf"\s*(?P<limit>{_NUMBER})\s*(?:/|per\s)\s*(?P<count>{_NUMBER})?\s*(?P<unit>[a-z]+)(?:\s+burst\s+(?P<burst>{_NUMBER}))?\s*",
    re.IGNORECASE,
)
_ALLOWED = 'like "100/s", "10000/min" or "100/s burst 200" (units: ms, s, min, h, d)'


@dataclass(frozen=True, slots=True, init=False)
class Rate:
    """`limit` per `period` nanoseconds, at most `burst` at once, after a rest.

    `Rate("100/s burst 200")`; the burst is the limit unless it is given, and at least 1. `cost` is called with the
    arguments of the guarded function and says how much of this rate a call takes (tokens, rows); without it a call
    takes 1. Raises ValueError for what is not a rate.
    """

    text: str
    limit: Fraction
    period: Fraction
    burst: Fraction
    cost: Callable[..., float] | None

    def __init__(self, text: str, *, cost: Callable[..., float] | None = None) -> None:
        match = _TEXT.fullmatch(text) if isinstance(text, str) else None  # pyright: ignore[reportUnnecessaryIsInstance]
        unit = _unit(match["unit"].lower()) if match else None
        if match is None or unit is None:
            raise checks.fail("a rate", text, _ALLOWED)
        limit, count = Fraction(match["limit"]), Fraction(match["count"] or 1)
        burst = Fraction(match["burst"]) if match["burst"] else max(limit, Fraction(1))
        if limit <= 0 or count <= 0 or burst <= 0:
            raise checks.fail("a rate", text, _ALLOWED + " with numbers greater than 0")
        if cost is not None:
            checks.function("cost", cost)
        for name, value in {"text": text.strip(), "limit": limit, "period": count * unit, "burst": burst}.items():
            object.__setattr__(self, name, value)
        object.__setattr__(self, "cost", cost)

    def __str__(self) -> str:
        return self.text

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (self.text, self.cost)


def _unit(word: str) -> int | None:
    return _UNITS.get(word) or _UNITS.get(word.removesuffix("s"))


def _restore(text: str, cost: Callable[..., float] | None) -> Rate:
    return Rate(text, cost=cost)


def rate_of(value: object) -> Rate:
    """Return the rate that a `rate_limit` argument means."""
    if isinstance(value, Rate):
        return value
    if isinstance(value, str):
        return Rate(value)
    raise checks.wrong_type("a rate", value, "a text " + _ALLOWED + ", or a Rate")

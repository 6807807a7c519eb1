"""Durations in words: plain numbers, never an exponent."""

from __future__ import annotations

__all__ = ["counted", "in_words"]

_MICRO = 1e-6
_LEAST = 1e-3  # seconds; below it, microseconds read better


def in_words(seconds: float, digits: int = 3) -> str:
    """Return a duration with `digits` significant digits: `0.00227 s`, `3600 s`, `4.1 us`."""
    if 0.0 < abs(seconds) < _LEAST:
        return f"{_plain(seconds / _MICRO, digits)} us"
    return f"{_plain(seconds, digits)} s"


def counted(count: int, what: str) -> str:
    """Return a number of things: `1 call`, `2 calls`."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _plain(number: float, digits: int) -> str:
    text = f"{number:.{digits}g}"
    return f"{number:.0f}" if "e+" in text else f"{number:.{digits}f}" if "e" in text else text

"""What a response says is left of a rate: the headers of OpenAI, Anthropic, GitHub and the IETF draft, and Retry-After.

A value that is not understood is as good as none.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from asyncguard._machines import shape
from asyncguard._machines.retry_after import http_date, retry_after

__all__ = ["Quota", "quotas"]

_PAIRS = (
    ("x-ratelimit-remaining-requests", "x-ratelimit-reset-requests", False),
    ("x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens", True),
    ("anthropic-ratelimit-requests-remaining", "anthropic-ratelimit-requests-reset", False),
    ("anthropic-ratelimit-tokens-remaining", "anthropic-ratelimit-tokens-reset", True),
    ("x-ratelimit-remaining", "x-ratelimit-reset", False),
    ("ratelimit-remaining", "ratelimit-reset", False),
)
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?", re.ASCII)
_PARTS = re.compile(r"(?:([0-9]+)h)?(?:([0-9]+)m)?(?:([0-9]+(?:\.[0-9]+)?)s)?(?:([0-9]+(?:\.[0-9]+)?)ms)?", re.ASCII)
_PART_SECONDS = (3600.0, 60.0, 1.0, 0.001)
_STRUCTURED = re.compile(r"[;,]\s*(r|t)\s*=\s*([0-9]+)", re.ASCII)
_MOST = 1e15
_LONGEST_DELAY = 1e8  # three years; a larger number is a time since 1970
_FIRST_MILLISECONDS = 1e11  # the year 5138: what is larger counts milliseconds
_LONGEST_PAUSE = 32 * 86400.0  # seconds: nobody who means it says more than a month, and all calls stop until then


@dataclass(frozen=True, slots=True)
class Quota:
    """What is left (None: not said), the seconds until there is more (None: not said), and of what."""

    remaining: float | None
    reset: float | None
    tokens: bool


class _Response:
    def __init__(self, headers: Mapping[str, str]) -> None:
        self.headers = headers


def quotas(headers: Mapping[str, str], wall: float) -> list[Quota]:
    """Return what the headers of a response say; `wall` is the wall clock in seconds since 1970, for dates in them."""
    response = _Response(headers)
    now = http_date(shape.header(response, "date") or "")
    found = _all(response, wall if now is None else now)
    return [quota for quota in found if quota.reset is None or quota.reset <= _LONGEST_PAUSE]


def _all(response: _Response, now: float) -> Iterator[Quota]:
    for left, again, tokens in _PAIRS:
        remaining = _number(shape.header(response, left))
        if remaining is not None:
            yield Quota(remaining, _seconds(shape.header(response, again), now), tokens)
    structured = dict(_STRUCTURED.findall(shape.header(response, "ratelimit") or ""))
    if "r" in structured:
        yield Quota(float(structured["r"]), _number(structured.get("t")), tokens=False)
    pause = retry_after(response, now)
    if pause is not None:  # nothing may start, whatever it costs
        yield Quota(0.0, pause, tokens=False)
        yield Quota(0.0, pause, tokens=True)


def _number(value: str | None) -> float | None:
    number = float(value) if value is not None and _NUMBER.fullmatch(value.strip()) else math.inf
    return number if number <= _MOST else None


def _seconds(value: str | None, now: float) -> float | None:
    """Read `12`, `6m0s`, `20ms`, seconds since 1970, or a date of RFC 3339."""
    number = _number(value)
    if number is not None:
        if number < _LONGEST_DELAY:
            return number
        return max(0.0, (number / 1000.0 if number > _FIRST_MILLISECONDS else number) - now)
    if not value:
        return None
    parts = _PARTS.fullmatch(value.strip())
    if parts is not None:
        given = zip(parts.groups(), _PART_SECONDS, strict=True)
        return sum(float(part) * unit for part, unit in given if part is not None)
    return _until(value.strip(), now)


def _until(value: str, now: float) -> float | None:
    try:
        date = datetime.fromisoformat(value)
    except ValueError:
        return None
    aware = date if date.tzinfo is not None else date.replace(tzinfo=UTC)
    return max(0.0, aware.timestamp() - now)

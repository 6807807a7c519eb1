"""When a service wants to be asked again: `Retry-After`, `retry-after-ms`, and what clients make of them.

RFC 9110, section 10.2.3: `Retry-After = HTTP-date / delay-seconds`, `delay-seconds = 1*DIGIT`. Nothing else counts: not
`-1`, `1.5`, `1e3`, `nan`, `+5` or digits of other scripts. A value that is not understood is as good as none; one that
is must never be shortened.
"""

from __future__ import annotations

import math
import re
import sys
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from asyncguard._machines import shape

__all__ = ["delay_seconds", "http_date", "retry_after"]

_DIGITS = re.compile(r"[0-9]+", re.ASCII)
_WEEKDAY = re.compile(r"(mon|tue|wed|thu|fri|sat|sun)[a-z]*[, ]", re.ASCII | re.IGNORECASE)
_MOST_DIGITS = 12  # thirty thousand years: not a number any more, but certainly too long


def retry_after(thing: object, wall: float) -> float | None:
    """Return in how many seconds an error or response asks to be tried again, None if it does not say.

    Looked at in turn: `retry-after-ms`, `Retry-After`, and an attribute `retry_after` or `retry_after_s` (our own
    rejections, qdrant, Discord and others). `wall` is the wall clock in seconds since 1970, for HTTP dates; the
    `Date` of the same response is taken instead where there is one, so that a clock that is wrong does no harm.
    """
    milliseconds = delay_seconds(shape.header(thing, "retry-after-ms") or "")
    if milliseconds is not None:
        return milliseconds / 1000.0
    value = shape.header(thing, "retry-after")
    if value is not None:
        seconds = delay_seconds(value)
        return seconds if seconds is not None else _until(value, shape.header(thing, "date"), wall)
    return _attribute(thing)


def delay_seconds(value: str) -> float | None:
    """Return a number made of ASCII digits alone; infinity if it is absurdly long; None if it is anything else."""
    if not _DIGITS.fullmatch(value):
        return None
    digits = value.lstrip("0")
    return float(digits or 0) if len(digits) <= _MOST_DIGITS else math.inf


def http_date(value: str) -> float | None:
    """Return an HTTP date (any of its three forms) as seconds since 1970, None if it is none."""
    if not _WEEKDAY.match(value):
        return None
    try:
        date = parsedate_to_datetime(value)
        return _utc(date).timestamp()
    except (ValueError, OverflowError, TypeError):
        return None


def _utc(date: datetime) -> datetime:
    return date if date.tzinfo is not None else date.replace(tzinfo=UTC)


def _until(value: str, date: str | None, wall: float) -> float | None:
    then = http_date(value)
    if then is None:
        return None
    sent = http_date(date) if date is not None else None
    return max(0.0, then - (wall if sent is None else sent))


def _attribute(thing: object) -> float | None:
    for name in ("retry_after", "retry_after_s"):
        value = shape.look(thing, name)
        if isinstance(value, timedelta):
            value = value.total_seconds()
        if isinstance(value, int | float) and not isinstance(value, bool) and 0.0 <= value <= sys.float_info.max:
            return float(value)
    return None

"""What `partition=` may return, and how a partition is called in words.

Keys are values of a few types of Python itself. An object (a tenant, a request, a client) would be found by its own
`__eq__` and `__hash__`, which are code of the user inside of a lock, and most objects are equal to nothing but
themselves: every call would be a partition of its own and no limit would hold.
"""

from __future__ import annotations

import functools
import inspect
import re
import sys
from collections.abc import Callable, Hashable
from contextvars import ContextVar
from enum import Enum
from typing import Any, cast

from asyncguard._machines import checks
from asyncguard._machines.text import REDACTED, Redactor

__all__ = ["LONGEST_KEY", "PartitionBy", "canonical", "check_partition", "in_words", "partition_key"]

PartitionBy = Callable[..., Hashable] | ContextVar[Any]
"""What `partition=` takes: a function of the call's arguments, or a context variable."""

LONGEST_KEY = 200
"""Characters of a key that are shown: a whole prompt may be one."""

_PLAIN = frozenset({str, int, bytes, bool, type(None)})
_ALLOWED = "a str, int, float, bytes, bool, None, UUID or enum member, or a tuple of them"


def check_partition(value: object) -> PartitionBy | None:
    """Return a `partition=` option; raise TypeError if it is neither callable nor a ContextVar."""
    if value is None or isinstance(value, ContextVar):
        return cast("PartitionBy | None", value)
    if callable(value):
        return checks.plain("partition", value)
    raise checks.wrong_type("partition", value, "a callable on the arguments, or a ContextVar")


def partition_key(by: PartitionBy, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Hashable:
    """Return the key of a call; an unset ContextVar is the partition None.

    Raises TypeError for what is no key, ValueError for NaN; what the function raises leaves with a note that says so.
    """
    if isinstance(by, ContextVar):
        return canonical(by.get(None))
    try:
        key = by(*args, **kwargs)
    except Exception as error:
        _say_where(error, by)
        raise
    return key if type(key) is str else canonical(key)


def canonical(key: Any) -> Hashable:
    """Return a key as a value of Python's own types: its `==` and `hash` run no code of the user.

    A subclass becomes what it derives from: a StrEnum the str that it is equal to, a NamedTuple the tuple.
    """
    kind: type[object] = type(cast("object", key))  # not `__class__`, which a proxy may make up
    if kind in _PLAIN:
        return cast("Hashable", key)
    for base, plain in _DERIVED:
        if issubclass(kind, base):
            return plain(key)
    if _has_no_code_of_the_user(kind):
        return cast("Hashable", key)
    if hasattr(kind, "__index__"):
        return _index(key)
    raise _no_key(key)


def _float(key: float) -> float:
    number = float.__float__(key)
    if number != number:  # noqa: PLR0124 - NaN: it is not equal to itself, so no call would find its partition again
        raise ValueError("the key of partition= must not be NaN: it is equal to nothing, so no limit would hold for it")
    return number


def _tuple(key: tuple[Any, ...]) -> Hashable:
    return tuple([canonical(part) for part in tuple[Any, ...].__iter__(key)])


_DERIVED: tuple[tuple[type[Any], Callable[[Any], Hashable]], ...] = (
    (str, str.__str__),
    (int, int.__int__),
    (bytes, bytes.__bytes__),
    (float, _float),
    (tuple, _tuple),
)


def _has_no_code_of_the_user(kind: type[Any]) -> bool:
    if issubclass(kind, Enum):
        return kind.__hash__ is Enum.__hash__ and kind.__eq__ is object.__eq__
    uuid = sys.modules.get("uuid")
    return uuid is not None and kind is uuid.UUID


def _index(key: Any) -> int:
    """Return an integer of another library (numpy, torch) as Python's own."""
    try:
        return int(key.__index__())
    except Exception:  # noqa: BLE001 - an array of several, or whatever an object of the user does
        raise _no_key(key) from None


def _no_key(key: object) -> TypeError:
    if inspect.iscoroutine(key):
        key.close()  # else Python warns that it was never awaited
        advice = "partition= is not awaited"
    else:
        advice = "for an object return what names it, such as its id or name, as a str or int"
    # Not its repr: that may be long, or secret, or fail.
    return TypeError(f"the key of partition= must be {_ALLOWED}, got {type(key).__name__}; {advice}")


def _say_where(error: Exception, by: object) -> None:
    """Add to an error of the user's function that it came from there; one instance may be raised again and again."""
    text = f"asyncguard: raised by partition={getattr(by, '__name__', type(by).__name__)}, which gets the arguments of "
    text += "the call; the call was not made"
    notes: object = getattr(error, "__notes__", None)
    kept = [each for each in cast("list[object]", notes) if each != text] if isinstance(notes, list) else []
    # Not `error.add_note`: an exception may be a frozen dataclass, which refuses to be written to.
    BaseException.__setattr__(error, "__notes__", [*kept, text])


# --- in words ---------------------------------------------------------------------------------------------------------


def in_words(key: Hashable) -> str:
    """Return a canonical key as it is shown in messages, events, logs and `status()`: short, and no secret if we can.

    What looks like one (an API key, a token, an address) is shown as `[redacted 1f3a9c0b]`: the same for the same key
    in this process, and nothing that could be guessed from.
    """
    if isinstance(key, tuple):
        text = f"({', '.join(map(in_words, cast('tuple[Hashable, ...]', key)))})"
    elif isinstance(key, Enum):
        text = f"{type(key).__name__}.{key._name_}"  # not its `__str__`: that may be anything, and fail
    elif isinstance(key, int):
        text = str(key) if abs(key) < _LARGE else hex(key)  # Python refuses to write thousands of digits in decimal
    elif isinstance(key, str | bytes):
        text = _without_secret(key if isinstance(key, str) else repr(key))
    else:
        text = str(key)
    return text if len(text) <= LONGEST_KEY else f"{text[: LONGEST_KEY - 1]}…"


_LARGE = 10**200
_MIXED = r"(?<![A-Za-z0-9])(?=[A-Z0-9]*[a-z])(?=[a-z0-9]*[A-Z])(?=[A-Za-z]*\d)[A-Za-z0-9]{20,}"  # keys without a prefix


def _without_secret(text: str) -> str:
    if text.isdecimal():  # the number of a customer, rather than of a card
        return text
    redactor, mixed = _net()
    head = text[: 2 * LONGEST_KEY]
    if mixed.search(head) or redactor.scrub(head).count(REDACTED) > head.count(REDACTED):
        return f"[redacted {_digest(text)}]"
    return text


@functools.cache  # made on first use: compiling takes milliseconds that `import asyncguard` does not have
def _net() -> tuple[Redactor, re.Pattern[str]]:
    return Redactor(), re.compile(_MIXED)


def _digest(text: str) -> str:
    """Return a number that tells keys apart: Python's hash of a str is SipHash under a secret of this process."""
    return f"{hash(text) & 0xFFFFFFFF:08x}"

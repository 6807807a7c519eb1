"""The line that a retry leaves on the error with which it gives up, and what an outer retry reads from it.

The line carries a serial number. An outer retry remembers the latest number when its attempt starts, so it can tell
an error that was given up inside of this attempt from one that carries an old line (one instance may be raised again
and again). On the happy path that costs one read of a module attribute.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, Self, cast

from asyncguard._machines.shape import look

__all__ = ["GaveUp", "exhausted", "forget_frames", "leave_note", "withdraw_note"]

PREFIX = "asyncguard.retry: "
_FURTHEST = 64  # errors followed along causes, contexts and groups

given = 0
"""The serial number of the latest line; read as `giveup.given`."""
_serials = itertools.count(1)


class GaveUp(str):
    """The line: text with a serial number and the identity of the place that gave up. It pickles as plain text."""

    __slots__ = ("owner", "serial")

    def __new__(cls, text: str, owner: object) -> Self:
        """Make a line with the next serial number; `owner` is compared by value and never followed."""
        line = super().__new__(cls, PREFIX + text)
        line.owner = owner
        line.serial = next(_serials)
        return line

    owner: object
    serial: int

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (str.__str__(self),)


def leave_note(error: Exception, text: str, owner: object) -> None:
    """Put the line on the error, in place of an earlier one."""
    global given  # noqa: PLW0603 - one number for the process, read where a module attribute is cheapest
    line = GaveUp(text, owner)
    given = max(given, line.serial)
    _set_notes(error, [*_other_notes(error), line])


def withdraw_note(error: Exception, since: int) -> None:
    """Take a line away that is older than `since`: it tells of another time when this instance was raised."""
    if any(isinstance(note, GaveUp) and note.serial <= since for note in _notes(error)):
        _set_notes(error, _other_notes(error))


def exhausted(error: BaseException, since: int, owner: object) -> bool:
    """Tell whether a retry further inside has given up on this error, a cause or a leaf of it, after `since`.

    A line of the same place is not one from further inside: another call of it raised the same instance meanwhile.
    """
    return any(
        isinstance(note, GaveUp) and note.serial > since and note.owner != owner
        for each in _family(error, None, contexts=False)
        for note in _notes(each)
    )


def forget_frames(error: BaseException, outer: BaseException | None) -> None:
    """Drop the tracebacks of an error that is not raised now: they keep the frames of its attempt alive.

    Errors behind it lose theirs too, up to `outer`: the one that the caller was handling all along keeps its own.
    """
    for each in _family(error, outer, contexts=True):
        BaseException.with_traceback(each, None)


def _family(error: BaseException, outer: BaseException | None, *, contexts: bool) -> Iterator[BaseException]:
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting and len(seen) < _FURTHEST:
        each = waiting.pop()
        if each is None or each is outer or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        waiting.append(each.__cause__)
        if contexts:
            waiting.append(each.__context__)
        if isinstance(each, BaseExceptionGroup):
            waiting.extend(cast("BaseExceptionGroup[BaseException]", each).exceptions)


def _notes(error: BaseException) -> list[Any]:
    notes: object = look(error, "__notes__")
    return cast("list[object]", notes) if isinstance(notes, list) else []


def _other_notes(error: BaseException) -> list[Any]:
    return [note for note in _notes(error) if not (isinstance(note, str) and note.startswith(PREFIX))]


def _set_notes(error: Exception, notes: list[Any]) -> None:
    # Not `error.add_note`: an exception may be a frozen dataclass, which refuses to be written to.
    BaseException.__setattr__(error, "__notes__", notes)

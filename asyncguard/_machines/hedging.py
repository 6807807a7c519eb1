"""The attempts of one hedged call: which run, when the next one starts, who won. Not for several threads at once.

The rules are those of gRPC's A6 and of Finagle's BackupRequestFilter: the next attempt starts when the one before it
has taken too long, or at once when one failed for a reason that may pass; the first success wins. A further attempt
never makes a call fail that the first would have brought home.
"""

from __future__ import annotations

import math
from typing import Literal, cast

from asyncguard._machines.classify import TRANSIENT_KINDS
from asyncguard._machines.shape import look
from asyncguard.errors import RejectedError

__all__ = ["Fate", "Race", "fate", "leave_note"]

Fate = Literal["again", "out", "final"]
PREFIX = "asyncguard.hedge: "


def fate(number: int, error: BaseException, kind: str) -> Fate:
    """Return what a failed attempt means for its call.

    "again": the reason may pass, the next attempt starts at once. "final": the call has failed (an interrupt, or the
    original failed for a reason that will not pass). "out": only this attempt is out (a rejection says nothing about
    the others, and what a copy is refused the original may still get); those that run go on, none is added.
    """
    if not isinstance(error, Exception):
        return "final"
    if kind in TRANSIENT_KINDS:
        return "again"
    return "final" if number == 1 and not isinstance(error, RejectedError) else "out"


class Race:
    """The attempts of one call, numbered from 1: at most `most`, each `delay` seconds after the one before."""

    __slots__ = ("_delay", "_due", "_most", "_wanted", "over", "running", "started", "winner")

    def __init__(self, delay: float, most: int) -> None:
        self._delay = delay
        self._most = most
        self._due = math.inf
        self._wanted = False
        self.started: list[float] = []
        self.running: set[int] = set()
        self.over = False
        self.winner = 0

    def begin(self, now: float) -> int:
        """Start an attempt; return its number."""
        self.started.append(now)
        number = len(self.started)
        self.running.add(number)
        self._wanted = False
        self._due = now + self._delay
        return number

    def pause(self, now: float) -> float:
        """Return the seconds until the next attempt is wanted: 0.0 now, infinite if none is."""
        if self.over or len(self.started) >= self._most:
            return math.inf
        return 0.0 if self._wanted else max(0.0, self._due - now)

    def late(self) -> None:
        """The pause has passed, whatever the clock says: the next attempt is wanted."""
        self._wanted = True

    def refuse(self) -> None:
        """Start no further attempt; the call is over if none runs."""
        self._most = len(self.started)
        self._settle()

    def succeeded(self, number: int) -> bool:
        """Tell whether this attempt won; if not, its result is discarded."""
        self.running.discard(number)
        if self.over:
            return False
        self.over, self.winner = True, number
        return True

    def failed(self, number: int, what: Fate) -> None:
        """An attempt has failed."""
        self.running.discard(number)
        if what == "again":
            self._wanted = True
            self._settle()
        elif what == "final":
            self.over = True
        else:
            self.refuse()

    def stop(self) -> None:
        """The caller leaves: nothing counts any more."""
        self.over, self.winner = True, 0

    def elapsed(self, number: int, now: float) -> float:
        """Return for how long an attempt has run."""
        return max(0.0, now - self.started[number - 1])

    def _settle(self) -> None:
        more = self._wanted and len(self.started) < self._most
        self.over = self.over or not (self.running or more)


def leave_note(error: BaseException, text: str) -> None:
    """Put our line on an error, in place of an earlier one: one instance may be raised again and again."""
    notes: object = look(error, "__notes__")
    found = cast("list[object]", notes) if isinstance(notes, list) else []
    kept = [note for note in found if not (isinstance(note, str) and note.startswith(PREFIX))]
    # Not `error.add_note`: an exception may be a frozen dataclass, which refuses to be written to.
    BaseException.__setattr__(error, "__notes__", [*kept, PREFIX + text])

"""What other processes have promised: a table of numbers that all of them see and of which each writes its own row.

Nobody locks it. Whoever wants to promise writes that into its row first and looks at the other rows afterwards; of two
who do that at the same time at least one sees the other and takes it back (Lamport's bakery, without the numbers). So
a process that is stopped or killed in between stops nobody else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, overload

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "CELLS", "MAGIC", "ROWS", "ROWS_IN_USE", "Cells", "Elsewhere", "Neighbours", "clear", "in_use", "owner_at",
    "rows_in_use", "sound",
]  # fmt: skip

ROWS: Final = 256
MAGIC: Final = 0x6167_6D65_6D00_0001
"""In the first cell: what this is, and the version of its layout."""

ROWS_IN_USE: Final = 1
_PAIRS: Final = 8  # promised and wanted, row after row, so that one sum finds both
_FACTS: Final = _PAIRS + 2 * ROWS
_WIDTH: Final = 6
_OWNER, _IDLE, _YOUNG, _YOUNG_UNTIL, _SINCE, _WANTED_UNTIL = range(_WIDTH)
CELLS: Final = _FACTS + _WIDTH * ROWS
"""So many cells of 64 bits, all zero at first. Sizes are bytes, times microseconds of the clock of the machine."""

MOST: Final = 1 << 50
"""No process promises a pebibyte: who reads that reads garbage."""

HEARTBEAT: Final = 0.5
"""A waiter that has not looked again for so long (seconds) is not waited for."""

COURTESY: Final = 0.25
"""Who has waited in another process for so long, in seconds, goes first."""


class Cells(Protocol):
    """Numbers of 64 bits without sign; in one process a list will do."""

    @overload
    def __getitem__(self, index: int, /) -> int: ...
    @overload
    def __getitem__(self, index: slice, /) -> Iterable[int]: ...
    def __setitem__(self, index: int, value: int, /) -> None: ...


class Elsewhere(NamedTuple):
    """What is known of all other processes: bytes promised, those promised a moment ago, whether calls go on there."""

    promised: int = 0
    young: int = 0
    busy: bool = False


def sound(cells: Cells) -> bool:
    """Tell whether the table can be what it should be."""
    in_use = cells[ROWS_IN_USE]
    return cells[0] == MAGIC and in_use <= ROWS and max(cells[_PAIRS : _PAIRS + 2 * in_use], default=0) < MOST


def rows_in_use(cells: Cells) -> range:
    """Return the rows that have ever been taken."""
    return range(min(ROWS, cells[ROWS_IN_USE]))


def owner_at(row: int) -> int:
    """Return the cell that says who owns a row, 0 for nobody."""
    return _FACTS + _WIDTH * row + _OWNER


def in_use(cells: Cells, row: int) -> bool:
    """Tell whether a row says anything."""
    pair = _PAIRS + 2 * row
    return bool(cells[owner_at(row)] or cells[pair] or cells[pair + 1])


def clear(cells: Cells, row: int) -> None:
    """Make a row as new."""
    facts = _FACTS + _WIDTH * row
    for cell in (_PAIRS + 2 * row, _PAIRS + 2 * row + 1, *range(facts, facts + _WIDTH)):
        cells[cell] = 0


def _ticks(seconds: float) -> int:
    return max(0, int(seconds * 1e6))


class Neighbours:
    """The table as one process sees it, which owns `row`.

    What is promised here is written into the cell `mine` by the ledger itself, in statements without a call.
    """

    __slots__ = ("_facts", "cells", "mine")

    def __init__(self, cells: Cells, row: int) -> None:
        self.cells = cells
        self.mine = _PAIRS + 2 * row
        self._facts = _FACTS + _WIDTH * row

    # --- our own row ---

    def tell_idle(self, *, idle: bool) -> None:
        """Say whether all calls that run here only wait for calls inside that wait here."""
        self.cells[self._facts + _IDLE] = idle

    def tell_young(self, young: int, until: float) -> None:
        """Say which of the promises are so new that nothing need have been allocated for them until then."""
        self.cells[self._facts + _YOUNG] = max(0, young)
        self.cells[self._facts + _YOUNG_UNTIL] = _ticks(until)

    def want(self, size: int, since: float, now: float) -> None:
        """Say what the first in the queue waits for, and since when."""
        self.cells[self._facts + _SINCE] = _ticks(since)
        self.cells[self._facts + _WANTED_UNTIL] = _ticks(now + HEARTBEAT)
        self.cells[self.mine + 1] = max(0, size)

    def want_nothing(self) -> None:
        """Say that nobody waits."""
        if self.cells[self.mine + 1]:
            self.cells[self.mine + 1] = 0

    # --- the other rows ---

    def total(self) -> int:
        """Return what all have promised or wait for, in bytes: our own row too."""
        cells = self.cells
        return sum(cells[_PAIRS : _PAIRS + 2 * cells[ROWS_IN_USE]])

    def _others(self) -> list[tuple[int, int]]:
        """Return the places of the other rows: of the pair, and of the facts."""
        places = [(_PAIRS + 2 * row, _FACTS + _WIDTH * row) for row in rows_in_use(self.cells)]
        return [place for place in places if place[0] != self.mine]

    def elsewhere(self, now: float) -> Elsewhere:
        """Return what the others have promised."""
        cells, ticks = self.cells, _ticks(now)
        promised = young = 0
        busy = False
        for pair, facts in self._others():
            size = cells[pair]
            promised += size
            if ticks < cells[facts + _YOUNG_UNTIL]:
                young += min(size, cells[facts + _YOUNG])
            busy = busy or (size > 0 and not cells[facts + _IDLE])
        return Elsewhere(promised, young, busy)

    def wanted_before(self, since: float, now: float, courtesy: float = COURTESY) -> list[int]:
        """Return what those elsewhere wait for who came before `since` and have waited for `courtesy` seconds."""
        cells, ticks = self.cells, _ticks(now)
        latest = min(_ticks(since), ticks - _ticks(courtesy) + 1)
        live = (
            (pair + 1, facts)
            for pair, facts in self._others()
            if cells[pair + 1] and ticks < cells[facts + _WANTED_UNTIL]
        )
        return [cells[wanted] for wanted, facts in live if cells[facts + _SINCE] < latest]

"""A queue of calls as one function of where its rates stand: affine maps of the max-plus algebra in a segment tree.

A call takes its slot at the latest of a few times (where a rate allows it, when it came), and moves each rate by what
it costs: sums and maxima only. So is what any number of calls in a row do (Baccelli, Cohen, Olsder and Quadrat,
"Synchronization and Linearity", 1992), and that is kept for halves, quarters and so on of the queue. Where the rates
stand before or behind anybody is known in O(log n), and so is what changes when one leaves, however many wait.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from operator import add
from typing import Final

__all__ = ["NEVER", "Row", "Segments", "Step", "Times", "apply", "then"]

Times = list[int]
"""Where each rate stands, and last the floor: no slot behind is earlier. The floor may be NEVER."""

Row = tuple[float, ...]
"""What a rate becomes: the maximum of all times, each plus its number of this row, and of the last number alone."""

Step = tuple[tuple[Row, ...], float]
"""A row for each rate, and the earliest floor behind. What is finite is an int: nothing is ever rounded."""

NEVER: Final = -math.inf


def then(one: Step, other: Step) -> Step:
    """Return the step that is `one` and `other` after it."""
    rows, floor = one
    late_rows, late_floor = other
    if len(rows) == 1:  # the common case, without the loops
        (((by, lift, least),), ((late_by, late_lift, late_least),)) = rows, late_rows
        lone = (by + late_by, max(lift + late_by, late_lift), max(least + late_by, floor + late_lift, late_least))
        return (lone,), max(floor, late_floor)
    columns = list(zip(*rows, strict=True))
    joined: list[Row] = []
    for row in late_rows:
        lift, least = row[-2], row[-1]
        *moved, lifted, lowest = [max(map(add, row, column)) for column in columns]
        joined.append((*moved, max(lifted, lift), max(lowest, floor + lift, least)))
    return tuple(joined), max(floor, late_floor)


def apply(step: Step, times: Sequence[float]) -> list[float]:
    """Return where the rates and the floor stand after a step."""
    rows, floor = step
    return [*(max(row[-1], *map(add, row, times)) for row in rows), max(times[-1], floor)]


class Segments:
    """Steps by number, and what each aligned range of 1, 2, 4, ... of them does as a whole.

    `_levels[h][i]` is the step of the numbers i * 2**h to (i + 1) * 2**h - 1; a range without steps has no entry.
    """

    __slots__ = ("_levels",)

    def __init__(self) -> None:
        self._levels: list[dict[int, Step]] = [{}]

    def put(self, number: int, step: Step) -> None:
        """Set the step of a number: O(log n)."""
        while number >> (len(self._levels) - 1):
            whole = self.whole()
            self._levels.append({} if whole is None else {0: whole})
        self._levels[0][number] = step
        self._join({number})

    def drop(self, number: int, changed: dict[int, Step] | None = None) -> None:
        """Forget the step of a number, and change those of others in the same go: O(log n) for neighbours."""
        del self._levels[0][number]
        self._levels[0].update(changed or {})
        self._join({number, *(changed or ())})

    def _join(self, numbers: set[int]) -> None:
        """Work out anew what the ranges around some numbers do."""
        for below, above in pairwise(self._levels):
            numbers = {number >> 1 for number in numbers}
            for number in numbers:
                left, right = below.get(2 * number), below.get(2 * number + 1)
                if left is not None and right is not None:
                    above[number] = then(left, right)
                elif left is not None:
                    above[number] = left
                elif right is not None:
                    above[number] = right
                else:
                    del above[number]

    def whole(self) -> Step | None:
        """Return what all steps do, None if there are none."""
        return self._levels[-1].get(0)

    def before(self, number: int) -> Iterator[Step]:
        """Yield what does all that comes before a number, in O(log n) steps, first to last."""
        for height in range(len(self._levels) - 2, -1, -1):
            index = number >> height
            left = self._levels[height].get(index - 1) if index & 1 else None
            if left is not None:
                yield left

    def first(self) -> int | None:
        """Return the smallest number that has a step."""
        return self._least(len(self._levels) - 1, 0) if self._levels[-1] else None

    def following(self, number: int) -> int | None:
        """Return the smallest number above one that has a step."""
        for height, level in enumerate(self._levels):
            index = number >> height
            if not index & 1 and index + 1 in level:
                return self._least(height, index + 1)
        return None

    def _least(self, height: int, index: int) -> int:
        for level in reversed(self._levels[:height]):
            index = 2 * index if 2 * index in level else 2 * index + 1
        return index

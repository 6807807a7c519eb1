"""What was decided about a call, in numbers and in words."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from asyncguard._machines.durations import in_words
from asyncguard.errors import MemoryPressureError

if TYPE_CHECKING:
    from asyncguard._machines.levels import Bounds, Level

__all__ = ["Decision", "mebibytes", "refusal"]


@dataclass(frozen=True, slots=True)
class Decision:
    """A decision (admitted, waited, forced, rejected) and the level that binds. Sizes are bytes, `waited` seconds.

    `reserved` is promised in this process, `elsewhere` in those that share the level.
    """

    decision: str
    level: Level | None
    bounds: Bounds
    reserved: int
    running: int
    need: int
    waited: float
    elsewhere: int = 0

    @property
    def used(self) -> int:
        """Bytes in use on the level that binds."""
        return 0 if self.level is None else self.level.used

    @property
    def limit(self) -> int:
        """The limit of the level that binds, 0 if nothing is limited."""
        return 0 if self.level is None else self.bounds.of(self.level) or 0

    def __str__(self) -> str:
        calls = "1 running call" if self.running == 1 else f"{self.running} running calls"
        promised = f"promised {mebibytes(self.reserved)} to {calls}"
        if self.elsewhere:
            promised += f" and {mebibytes(self.elsewhere)} in other processes"
        if self.level is None:
            return f"nothing is limited, {promised}"
        ceiling = self.bounds.ceiling(self.level, self.bounds.threshold)
        return (
            f"used {mebibytes(self.used)}, {promised}, "
            f"{mebibytes(ceiling)} of {mebibytes(self.limit)} may be used ({self.level.name})"
        )


def refusal(name: str, decision: Decision, *, permanent: bool, unknown: bool, calm: bool) -> MemoryPressureError:
    """Return the error for a call that is not let in; `unknown`: its size is not known yet.

    `calm`: it would fit, and waits until the level has fallen to `resume`.
    """
    if permanent:
        text = f"a call of {mebibytes(decision.need)} can never fit: {decision}; make the input smaller"
    elif unknown:
        text = (
            f"the first call, which is measured alone, still runs after {in_words(decision.waited)}, so the size of a "
            f"call is not known: {decision}; give initial_estimate= or a longer max_wait="
        )
    else:
        text = f"no room for {mebibytes(decision.need)} after {in_words(decision.waited)}: {decision}"
        if calm and decision.level is not None:
            ceiling = decision.bounds.ceiling(decision.level, decision.bounds.resume)
            text += f", and after a refusal nothing is let in above {mebibytes(ceiling)} (resume)"
        text += "; let fewer calls run at once, make them smaller, or raise max_wait= or the limit"
    error = MemoryPressureError(f"{name}: {text}")
    error.used, error.limit, error.reserved = decision.used, decision.limit, decision.reserved
    error.need, error.permanent = decision.need, permanent
    return error


def mebibytes(size: float) -> str:
    """Return a size in words."""
    return "any" if size == math.inf else f"{size / (1 << 20):.1f} MiB"

"""What a store knows about itself: whether the server answers, and what became of operations and values."""

from __future__ import annotations

from dataclasses import dataclass, field

from asyncguard._machines.circuit import Circuit
from asyncguard._machines.circuit_rules import CircuitRules

__all__ = ["RULES", "Counts", "Failed", "State", "StoreInfo", "is_outage"]

RULES = CircuitRules(
    consecutive_failures=1, failure_rate=1.0, open_for=1.0, open_factor=2.0, max_open_for=10.0, half_open_calls=1
)
_OUTAGES = frozenset({"ConnectionError", "TimeoutError", "ClientConnectionError"})  # by name: redis has its own classes


@dataclass(frozen=True, slots=True)
class Failed:
    """An operation that did not happen. `error` names the class of the error, empty where the store was not asked."""

    error: str = ""


@dataclass(slots=True)
class Counts:
    """What became of operations and values. Numbers for people: no lock, so under threads one may be lost."""

    hits: int = 0
    misses: int = 0
    written: int = 0
    errors: int = 0
    skipped: int = 0
    unreadable: int = 0
    unencodable: int = 0
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class StoreInfo:
    """What a store did in this process so far.

    `errors`: operations that failed or took too long; `skipped`: not tried, because the circuit was open; `unreadable`:
    values that were damaged, foreign or of another version (misses); `unencodable`: values that the codec could not
    write (kept in the process only); `dropped`: background writes for which the queue was full.
    """

    hits: int
    misses: int
    written: int
    errors: int
    skipped: int
    unreadable: int
    unencodable: int
    dropped: int
    circuit: str


@dataclass(slots=True)
class State:
    """What a store knows on one clock."""

    circuit: Circuit
    counts: Counts = field(default_factory=Counts)
    answers: int = 0  # whenever it changes the store is there

    def info(self) -> StoreInfo:
        """Return it as users see it."""
        counts = {name: getattr(self.counts, name) for name in Counts.__slots__}
        return StoreInfo(**counts, circuit=str(self.circuit.state.value))


def is_outage(error: Exception) -> bool:
    """Tell whether the store is gone, and not merely unwilling."""
    return isinstance(error, OSError | EOFError) or any(each.__name__ in _OUTAGES for each in type(error).__mro__)

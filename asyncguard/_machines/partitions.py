"""One gate per partition (host, model, tenant): bounded, and never forgets a gate that still knows something.

A map that evicts by age alone is a way around every limit: a caller with a thousand keys makes it forget the one that
is limited. Here only idle gates go, the least recently used first.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, Protocol, TypeVar

from asyncguard._machines import checks
from asyncguard._machines.partition_keys import canonical, in_words

__all__ = ["Partitions"]


class Idle(Protocol):
    """What can say that nothing would be lost by forgetting it."""

    def idle(self) -> bool: ...


ItemT = TypeVar("ItemT", bound=Idle)


class Partitions(Generic[ItemT]):
    """A map key -> gate, made on first use by `make(key)`; at most `limit` gates, plus those that are not idle.

    A gate is the most recently used one when `get` returns it, so it is not evicted before its caller has used it
    unless `limit` other keys come in between. Safe to use from several threads. Keys are made canonical before the lock
    is taken, so no `==` or `hash` of the user runs inside. A finalizer may: the lock lets the thread that holds it in
    again, and what it adds meanwhile is at worst a gate that lives for its one call.
    """

    __slots__ = ("_gates", "_limit", "_lock", "_make", "_sweep_at")

    def __init__(self, make: Callable[[Hashable], ItemT], limit: int = 1024) -> None:
        self._make = make
        self._limit = checks.integer("limit", limit, least=1)
        self._sweep_at = self._limit
        self._gates: dict[Hashable, tuple[ItemT, str]] = {}
        self._lock = threading.RLock()

    def get(self, key: Hashable) -> ItemT:
        """Return the gate of a key and mark it as the one used last; errors as `find`."""
        return self.find(key)[0]

    def find(self, key: Hashable) -> tuple[ItemT, str]:
        """Return the gate of a key and the key in words; mark it as the one used last.

        Raises TypeError for what is no key of a partition, ValueError for NaN.
        """
        if type(key) is not str:
            key = canonical(key)
        with self._lock:
            found = self._gates.pop(key, None)
            if found is not None:
                self._gates[key] = found  # a dict keeps the order of insertion: the one used last stands at the end
                return found
        words = in_words(key)
        with self._lock:
            found = self._gates.pop(key, None)  # another thread may have been quicker
            if found is None:
                found = self._make(key), words
                self._sweep()
            self._gates[key] = found
            return found

    def items(self) -> list[tuple[Hashable, ItemT]]:
        """Return the keys and gates there are now, the least recently used first."""
        with self._lock:
            return [(key, gate) for key, (gate, _) in self._gates.items()]

    def __iter__(self) -> Iterator[ItemT]:
        return iter([gate for _, gate in self.items()])

    def __len__(self) -> int:
        return len(self._gates)

    def after_fork(self) -> None:
        """Renew the lock: another thread may have held it when the process forked."""
        self._lock = threading.RLock()

    def replace(self, by: Callable[[ItemT], ItemT]) -> None:
        """Put others in place of all gates there are now."""
        with self._lock:
            self._gates = {key: (by(gate), words) for key, (gate, words) in self._gates.items()}

    def _sweep(self) -> None:
        # An eighth of the limit at once, and not again before as many have come: that keeps a call at O(1) on
        # average, also while nothing is idle and the map has to grow.
        if len(self._gates) < self._sweep_at:
            return
        step = self._limit // 8
        surplus = len(self._gates) + 1 - self._limit + step
        for key, (gate, _) in self._gates.copy().items():
            if surplus > 0 and gate.idle():
                self._gates.pop(key, None)
                surplus -= 1
        self._sweep_at = max(self._limit, len(self._gates) + max(step, len(self._gates) // 8))

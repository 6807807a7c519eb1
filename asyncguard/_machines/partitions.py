"""One gate per partition (host, model, tenant): bounded, and never forgets a gate that still knows something.

A map that evicts by age alone is a way around every limit: a caller with a thousand keys makes it forget the one that
is limited. Here only idle gates go, the least recently used first.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator
from contextvars import ContextVar
from itertools import islice
from typing import Any, Generic, Protocol, TypeVar, cast

from asyncguard._machines import checks

__all__ = ["PartitionBy", "Partitions", "check_partition", "partition_key"]

PartitionBy = Callable[..., Hashable] | ContextVar[Any]
"""What `partition=` takes: a function of the call's arguments, or a context variable."""


class Idle(Protocol):
    """What can say that nothing would be lost by forgetting it."""

    def idle(self) -> bool: ...


ItemT = TypeVar("ItemT", bound=Idle)


def check_partition(value: object) -> PartitionBy | None:
    """Return a `partition=` option; raise TypeError if it is neither callable nor a ContextVar."""
    if value is None or isinstance(value, ContextVar):
        return cast("PartitionBy | None", value)
    if callable(value):
        return checks.plain("partition", value)
    raise checks.wrong_type("partition", value, "a callable on the arguments, or a ContextVar")


def partition_key(by: PartitionBy, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Hashable:
    """Return the key of a call; raise TypeError if it is not hashable. An unset ContextVar is the partition None."""
    key: Any = by.get(None) if isinstance(by, ContextVar) else by(*args, **kwargs)
    try:
        hash(key)
    except TypeError:
        raise checks.wrong_type("the key of partition=", key, "hashable (a string, a number, a tuple)") from None
    return cast("Hashable", key)


class Partitions(Generic[ItemT]):
    """A map key -> gate, made on first use by `make(key)`; at most `limit` gates, plus those that are not idle.

    A gate is the most recently used one when `get` returns it, so it is not evicted before its caller has used it
    unless `limit` other keys come in between. Safe to use from several threads.
    """

    __slots__ = ("_gates", "_limit", "_lock", "_make", "_sweep_at")

    def __init__(self, make: Callable[[Hashable], ItemT], limit: int = 1024) -> None:
        self._make = make
        self._limit = checks.integer("limit", limit, least=1)
        self._sweep_at = self._limit
        self._gates: dict[Hashable, ItemT] = {}
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> ItemT:
        """Return the gate of a key and mark it as the one used last."""
        with self._lock:
            gate = self._gates.pop(key, None)
            if gate is None:
                gate = self._make(key)
                self._sweep()
            self._gates[key] = gate  # a dict keeps the order of insertion: the one used last stands at the end
            return gate

    def items(self) -> list[tuple[Hashable, ItemT]]:
        """Return the keys and gates there are now, the least recently used first."""
        with self._lock:
            return list(self._gates.items())

    def __iter__(self) -> Iterator[ItemT]:
        return iter([gate for _, gate in self.items()])

    def __len__(self) -> int:
        return len(self._gates)

    def after_fork(self) -> None:
        """Renew the lock: another thread may have held it when the process forked."""
        self._lock = threading.Lock()

    def _sweep(self) -> None:
        # An eighth of the limit at once, and not again before as many have come: that keeps a call at O(1) on
        # average, also while nothing is idle and the map has to grow.
        if len(self._gates) < self._sweep_at:
            return
        step = self._limit // 8
        surplus = len(self._gates) + 1 - self._limit + step
        for key in list(islice((key for key, gate in self._gates.items() if gate.idle()), surplus)):
            del self._gates[key]
        self._sweep_at = max(self._limit, len(self._gates) + step)

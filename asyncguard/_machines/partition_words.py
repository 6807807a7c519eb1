"""The partitions of a strategy in the lines of `status()`: a few, and how many there are beside them."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

from asyncguard._machines.partition_keys import in_words

__all__ = ["MOST_LINES", "listed"]

MOST_LINES = 8
"""Partitions that are shown."""

ItemT = TypeVar("ItemT")


def listed(
    items: Sequence[tuple[Hashable, ItemT]], told: Callable[[ItemT], str], rank: Callable[[ItemT], Any]
) -> list[str]:
    """Say what `told` says of each partition, the smallest `rank` first, `MOST_LINES` of them at most."""
    chosen = heapq.nsmallest(MOST_LINES, items, key=lambda item: rank(item[1]))
    lines = [f"[{in_words(key)}] {told(item)}" for key, item in chosen]
    rest = len(items) - len(chosen)
    return [*lines, f"... and {rest} more"] if rest > 0 else lines

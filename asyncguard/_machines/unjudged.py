"""The answers of a gate that does not look at how calls end: only what is released matters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asyncguard._machines.gate import NOBODY

if TYPE_CHECKING:
    from asyncguard._machines.gate import Wake

__all__ = ["Unjudged"]


class Unjudged:
    """Takes all three outcomes alike; its `outcomes` is False, so that only drivers which look at others report any."""

    def succeeded(self, permit: Any, elapsed: float) -> Wake:
        """Do nothing about a call that returned."""
        del permit, elapsed
        return NOBODY

    def failed(self, permit: Any, elapsed: float, error: Exception) -> Wake:
        """Do nothing about a call that failed: it was made all the same."""
        del permit, elapsed, error
        return NOBODY

    def abandoned(self, permit: Any) -> Wake:
        """Do nothing about a call that was cancelled."""
        del permit
        return NOBODY

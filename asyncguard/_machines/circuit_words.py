"""Where a circuit is and why, in the words of `status()` and of its rejections."""

from __future__ import annotations

from enum import StrEnum

from asyncguard._machines.probes import Probes
from asyncguard._machines.window import Tally

__all__ = ["CircuitState", "where", "why"]


class CircuitState(StrEnum):
    """Where a circuit is. FORCED_OPEN is left by hand only."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"
    FORCED_OPEN = "forced_open"


def where(state: CircuitState, probes: Probes | None, remaining: float) -> str:
    """Say where a circuit is that lets nobody in, or only probes; `remaining` is in seconds."""
    if state is CircuitState.FORCED_OPEN:
        return "FORCED OPEN until close() or reset()"
    if probes is not None:
        return f"HALF-OPEN, waits for {probes.missing()} of {probes.allowed} probes"
    return f"OPEN {max(0.0, remaining):.1f} s more"


def why(tally: Tally, error: str, ago: float) -> str:
    """Say what was counted, and which error came last, `ago` seconds before."""
    slow = f", {tally.slow} slow" if tally.slow else ""
    last = f", last {error} {max(0.0, ago):.1f} s ago" if error else ""
    return f"{tally.failed} of {tally.calls} failed{slow}{last}"

"""Floor 2: enforce, observe or off, and the environment variable ASYNCGUARD_MODE, which wins over the options."""

from __future__ import annotations

import fnmatch
import os
from typing import Literal, cast

from asyncguard._machines import checks

__all__ = ["FORCED", "MODES", "Mode", "forced_mode"]

Mode = Literal["enforce", "observe", "off"]
MODES: tuple[Mode, ...] = ("enforce", "observe", "off")


def _forced() -> list[tuple[str, Mode]]:
    """Read ASYNCGUARD_MODE: `embedder.retry=off,*.memory_guard=observe`."""
    pairs: list[tuple[str, Mode]] = []
    for part in filter(None, (each.strip() for each in os.environ.get("ASYNCGUARD_MODE", "").split(","))):
        pattern, _, mode = part.partition("=")
        checks.one_of(f"ASYNCGUARD_MODE: the mode of {pattern!r}", mode, MODES)
        if not set(".*?[") & set(pattern):
            raise ValueError(f"ASYNCGUARD_MODE: write FUNCTION.STRATEGY=MODE, such as *.{pattern}=off, got {part!r}")
        pairs.append((pattern, cast("Mode", mode)))
    return pairs


FORCED = _forced()
"""Patterns of FUNCTION.STRATEGY with the mode of each, as they were when the library was imported."""


def forced_mode(site: str, *names: str) -> Mode | None:
    """Return what ASYNCGUARD_MODE says about the strategy of these names at a place: the first match, else None."""
    for pattern, mode in FORCED:
        for place in (site, site.rpartition(".")[2]):
            if any(fnmatch.fnmatchcase(f"{place}.{name}", pattern) for name in names):
                return mode
    return None

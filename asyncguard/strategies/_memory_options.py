"""The options of `memory_guard`, checked when they are given."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from asyncguard._admission import AdmissionOptions
from asyncguard._machines import checks
from asyncguard._machines.levels import Bounds

__all__ = ["Estimate", "MemoryGuardOptions"]

Estimate: TypeAlias = int | Literal["auto"] | Callable[..., float]

HYSTERESIS = 0.05
_DEVICE = re.compile(r"cuda(:\d+)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryGuardOptions(AdmissionOptions):
    """The options of `memory_guard`."""

    threshold: float = 0.85
    estimate: Estimate = "auto"
    on_pressure: Literal["wait", "raise"] = "wait"
    resume: float | None = None
    initial_estimate: int | None = None
    limit: int | None = None
    min_free: int | None = None
    reclaim: bool | Literal["full"] = True
    device: str | None = None
    share: Literal["auto", "process"] = "auto"

    def __post_init__(self) -> None:
        """Check the options."""
        AdmissionOptions.__post_init__(self)
        self._check_fractions()
        if callable(self.estimate):
            checks.plain("estimate", self.estimate)
        elif self.estimate != "auto":
            _check_bytes("estimate", self.estimate, "'auto', a callable on the arguments, or bytes as an integer")
        for option, least in (("initial_estimate", 0), ("limit", 1), ("min_free", 0)):
            if getattr(self, option) is not None:
                checks.integer(option, getattr(self, option), least=least)
        if self.initial_estimate is not None and self.estimate != "auto":
            raise ValueError("initial_estimate must be None unless estimate='auto': a stated size is not learned")
        checks.one_of("on_pressure", self.on_pressure, ("wait", "raise"))
        if self.reclaim not in (True, False, "full"):
            raise checks.fail("reclaim", self.reclaim, "True, False or 'full'")
        checks.one_of("share", self.share, ("auto", "process"))
        _check_device(self.device)

    def _check_fractions(self) -> None:
        if callable(self.threshold):
            raise checks.wrong_type("threshold", self.threshold, "a fraction; write @memory_guard(), with parentheses")
        self.set("threshold", checks.fraction("threshold", self.threshold, above=0.0))
        if self.resume is None:
            return
        self.set("resume", checks.fraction("resume", self.resume))
        if self.resume > self.threshold:
            raise checks.fail("resume", self.resume, f"at most the threshold, {self.threshold:g}")

    @property
    def bounds(self) -> Bounds:
        """How much of each level may be used."""
        resume = max(0.0, self.threshold - HYSTERESIS) if self.resume is None else self.resume
        return Bounds(self.threshold, resume, self.limit, self.min_free or 0)


def _check_bytes(option: str, value: object, allowed: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise checks.fail(option, value, allowed)


def _check_device(device: object) -> None:
    if device is None:
        return
    if not isinstance(device, str) or not _DEVICE.fullmatch(device):
        raise checks.fail("device", device, "None, 'cuda' or 'cuda:<number>'")

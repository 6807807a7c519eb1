"""How many bytes a call takes, learned from calls that ran alone, and then from few that ran together.

A measurement is the peak of the process during one call, above where it started. It can be too small if the call was
served from memory that earlier calls had left in the allocator (the heap was not clean), and too big if something
else ran (it was not alone): the first may only raise the estimate, the second is no more than a first idea.

The first call may be the smallest of all, so what was learned from it is trusted for two calls at once, then for four,
eight ... (slow start, as in TCP, RFC 5681), as long as the peak of them all agrees with it. Until then they reserve
more than they seem to need: in a container full of processes that all begin like this, each sees only its own.
"""

from __future__ import annotations

import math
from typing import Final, Protocol

__all__ = ["ArgumentBytes", "Estimator", "Learner", "guess"]

MARGIN: Final = 1.2
MARGIN_TOGETHER: Final = 1.1
"""The second for calls that ran together, of which the small ones make up for the big ones."""

DECAY: Final = 0.05
PER_ARGUMENT_BYTE: Final = 8
LEAST_GUESS: Final = 16 << 20

SOON: Final = 0.1
FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 60.0
"""Seconds until the next measurement: soon after a doubtful one, then 1, 2, 4 ... 60 s after good ones."""

WINDOW: Final = 2
LARGEST_WINDOW: Final = 32
"""So many calls may run at once after the first measurement, and the last window before there is no limit."""

MOST_FAILURES: Final = 3
"""After so many first calls that failed, the guess serves: a function that fails must not be serialised for ever."""


class Measured(Protocol):
    """A call that is or was measured: what it had reserved, and what the measurement is worth."""

    need: int
    clean: bool
    alone: bool
    level: int | None
    """What the process held when it began, None if that is not known."""
    company: int
    """How many calls of the same kind ran at once, at most, while it ran."""
    strangers: bool
    """Whether others ran too."""


class ArgumentBytes(int):
    """The size of a call's arguments: a hint of its need, where a plain int states the need."""

    __slots__ = ()


def guess(arguments: int) -> int:
    """Return a cautious need in bytes for a call of which only the size of the arguments is known."""
    return max(LEAST_GUESS, PER_ARGUMENT_BYTE * arguments)


class Estimator:
    """A maximum that decays: raised at once by a bigger measurement, lowered by 5 % of the distance by a smaller one.

    That follows a high quantile of the sizes without keeping them. `need` is 1.2 times it, None before anything is
    known. `initial` bytes stand in until the first good measurement replaces them.
    """

    __slots__ = ("_peak", "_provisional", "assumed", "measured", "need")

    def __init__(self, initial: int | None = None) -> None:
        self._peak = 0.0
        self._provisional = True
        self.measured = 0
        self.assumed = False
        self.need = initial

    def observe(self, peak: int, *, clean: bool = True, alone: bool = True, least: int = 0) -> None:
        """Learn from a call that took `peak` bytes; a doubtful first measurement counts as `least` bytes or more."""
        self.measured += 1
        self.assumed = False
        if self.need is None and not (clean and alone):
            self._set(max(peak, least / MARGIN))
        elif self._provisional and clean and alone:
            self._provisional = False
            self._set(peak)
        elif alone and peak * MARGIN > (self.need or 0):
            self._set(peak)
        elif alone and clean:
            self._set(self._peak - DECAY * (self._peak - peak))

    def observe_together(self, mean: float) -> bool:
        """Learn from calls that ran together and took `mean` bytes each; tell whether the estimate was too small."""
        too_small = round(mean * MARGIN_TOGETHER) > (self.need or 0)
        if too_small:
            self._set(mean * MARGIN_TOGETHER / MARGIN)
        return too_small

    def assume(self, need: int) -> None:
        """Use `need` bytes until something is measured: the calls that should have been measured failed."""
        self.need = need
        self.assumed = True

    def ran_out(self, reserved: int) -> None:
        """A call with `reserved` bytes ran out of memory: twice that from now on.

        Twice its own share and not twice the estimate: sixty calls that fail together tell one thing, not sixty. What
        was nothing does not grow when it is doubled: then it is a guess.
        """
        reserved = reserved or LEAST_GUESS // 2
        if (self.need or 0) < 2 * reserved:
            self._set(2 * reserved / MARGIN)
            self._provisional = False

    def _set(self, peak: float) -> None:
        self._peak = max(0.0, peak)
        self.need = round(MARGIN * self._peak)


class Learner:
    """Which calls are measured, and what the others need meanwhile. Used under the lock of the ledger.

    The first call that runs alone is measured, and those that come meanwhile wait for it. When other calls run, nobody
    waits for a quiet moment: a guess serves until one comes.
    """

    __slots__ = ("_failures", "_first", "_idle", "_pause", "estimator", "measure_at", "window")

    def __init__(self, initial: int | None = None) -> None:
        self.estimator = Estimator(initial)
        self.window = math.inf
        self._idle: int | None = None
        self.after_fork()

    def after_fork(self) -> None:
        """In a forked child: no call runs; what was learned stays."""
        self._first: object = None
        self._failures = 0
        self._pause = FIRST_PAUSE
        self.measure_at = float("-inf")

    @property
    def need(self) -> int | None:
        """The bytes of a call, None before anything is known."""
        return self.estimator.need

    @property
    def busy(self) -> bool:
        """Whether the first call runs, for which the others wait."""
        return self._first is not None

    def ask(self, arguments: int, now: float, *, alone: bool, free: bool = True) -> tuple[int | None, bool]:
        """Return what the next call needs (None: wait for the first one), and whether it should be measured.

        `alone`: nothing else runs; `free`: nothing else is being measured.
        """
        need = self.need
        if need is None:
            return (None, False) if self.busy else (guess(arguments), alone)
        if self.window < math.inf:  # the less is known, the more is reserved: twice the need, 1.5 times, 1.25 times ...
            return math.ceil(need * (1 + WINDOW / self.window)), free
        if now < self.measure_at:
            return need, False
        if self.estimator.assumed:  # the first that succeeds tells more than a guess, whoever else runs
            return need, free
        if not alone:
            self.measure_at = now + SOON
        return need, alone

    def begins(self, call: object) -> None:
        """A call that is to be measured was let in."""
        if self.need is None:
            self._first = call

    def ends(self, call: Measured, peak: int | None, now: float) -> None:
        """A measured call is over: `peak` bytes, None if it failed."""
        first = self._first is call
        self.forget(call)
        if first or self._idle is None:
            self._idle = call.level
        if peak is None:
            self._fail(call, first=first)
        else:
            self._learn(call, peak)
        if self.window < math.inf:
            self.measure_at = float("-inf")
        elif self.estimator.assumed or (peak is not None and not (call.clean and call.alone)):
            self.measure_at = now + SOON
        else:
            self.measure_at = now + self._pause
            self._pause = min(2 * self._pause, LONGEST_PAUSE)

    def _fail(self, call: Measured, *, first: bool) -> None:
        """After a few that fail the guess serves: for two at once, then for four ..., so that none hangs on it."""
        if self.estimator.assumed:
            self._widen(agreed=True)
        self._failures += first
        if self.need is None and self._failures >= MOST_FAILURES:
            self.estimator.assume(call.need)
            self.window = WINDOW

    def _learn(self, call: Measured, peak: int) -> None:
        before = self.need
        if not self.estimator.measured:
            self.window = WINDOW
            self.estimator.observe(peak, clean=call.clean, alone=call.alone, least=call.need)
        elif call.alone or self.window == math.inf:
            self.estimator.observe(peak, clean=call.clean, alone=call.alone, least=call.need)
            self._widen(agreed=before is not None and (self.need or 0) <= before)
        elif not call.strangers:
            held = max(0, (call.level or 0) - (self._idle or 0)) if self._idle is not None else 0
            self._widen(agreed=not self.estimator.observe_together((held + peak) / call.company))

    def _widen(self, *, agreed: bool) -> None:
        if agreed:
            self.window = 2 * self.window if self.window < LARGEST_WINDOW else math.inf

    def forget(self, call: object) -> None:
        """A call that was to be measured was never made."""
        if self._first is call:
            self._first = None

    def ran_out(self, reserved: int) -> None:
        """A call that had reserved so much ran out of memory."""
        self.estimator.ran_out(reserved)
        self._pause = FIRST_PAUSE

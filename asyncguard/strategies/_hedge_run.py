"""One call through a hedge: what the drivers of all colours share.

The machines decide; a run brings them the facts (time, budget, deadline, classification) and tells what happened.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from asyncguard import events
from asyncguard._machines import hedging
from asyncguard._machines.classify import TRANSIENT_KINDS, classify
from asyncguard._machines.partition_keys import partition_key
from asyncguard._runtime import deadlines, dispatch, race

if TYPE_CHECKING:
    from asyncguard._pipeline import Site
    from asyncguard.strategies._hedge_targets import Target
    from asyncguard.strategies.hedge import Hedge

    Args = tuple[Any, ...]
    Kwargs = dict[str, Any]

__all__ = ["Run", "run_of"]


def run_of(strategy: Hedge, site: Site, args: Args, kwargs: Kwargs) -> Run | None:
    """Return the run of a call; None if it is called as if there were no hedge."""
    mode = strategy.mode_at(site) if strategy.special else "enforce"
    if mode == "off":
        return None
    try:
        target, partition = _target(strategy, site, args, kwargs)
    except Exception as error:
        if mode == "enforce":
            raise
        text = "asyncguard: %s could not observe %s (partition= failed)"
        dispatch.complain(strategy, error, text, strategy.name, site.name)
        return None
    return Run(strategy, site, partition, target, enforced=mode == "enforce")


def _target(strategy: Hedge, site: Site, args: Args, kwargs: Kwargs) -> tuple[Target, str]:
    by = strategy.live().partition or site.pipeline.partition
    targets = strategy.core_here() if strategy.special else strategy.core
    if by is None:
        return targets.single, ""
    return targets.partitions.find(partition_key(by, args, kwargs))


class Run:
    """The attempts of one call. `delay` is None if there will be only one: too little is known, or it is nested.

    A hedge inside of an attempt of another one adds nothing: two copies of a call that has two copies are four.
    """

    __slots__ = (
        "_clock", "_error", "_failures", "_options", "_partition", "_race", "_result", "_site", "_strategy", "_target",
        "delay", "enforced", "nested",
    )  # fmt: skip

    def __init__(self, strategy: Hedge, site: Site, partition: str, target: Target, *, enforced: bool) -> None:
        self._strategy = strategy
        self._site = site
        self._partition = partition
        self._target = target
        self._clock = target.clock
        self._options = options = strategy.live()
        self.enforced = enforced
        self.nested = race.inside()
        self.delay: float | None = None
        if not self.nested:
            self.delay = target.delay() if options.delay is None else options.delay
        target.allowance.calls += 1.0
        most = 1 if self.delay is None else 1 + options.max_hedges
        self._race = hedging.Race(self.delay or 0.0, most)
        self._result: Any = None
        self._error: BaseException | None = None
        self._failures: list[str] = []

    # --- what the race asks ---

    @property
    def over(self) -> bool:
        """Whether it is decided."""
        return self._race.over

    def begin(self) -> int:
        """Return the number of an attempt that starts now."""
        if self._race.started:
            self._tell_started(len(self._race.started) + 1)
            self._target.sent += 1
        return self._race.begin(self._clock.now())

    def pause(self) -> float:
        """Return the seconds until the next attempt is wanted."""
        return self._race.pause(self._clock.now())

    def late(self) -> None:
        """The pause has passed."""
        self._race.late()

    def granted(self) -> bool:
        """Take the next attempt out of the budgets, if there is one left and time for it."""
        if deadlines.remaining() != 0.0 and self._target.pay(self._options.budget):
            return True
        self._race.refuse()
        return False

    def succeeded(self, number: int, result: Any) -> bool:
        """Keep the result of the first attempt that has one; attempts may share it, then it is kept as well."""
        now = self._clock.now()
        if not self._race.succeeded(number):
            return result is self._result
        self._result, self._error = result, None
        for each in (number, *self._race.running):  # the losers have taken at least that long
            self._sample(each, now)
        return True

    def failed(self, number: int, error: BaseException) -> None:
        """Decide what a failure means; once it is decided, nothing: then it is that of a loser."""
        if self._race.over:
            return
        kind = classify(error) if isinstance(error, Exception) else ""
        if kind == "timeout":
            self._sample(number, self._clock.now())
        if number == 1 or not isinstance(error, Exception):
            self._error = error
        else:
            self._failures.append(f"attempt {number}: {type(error).__name__}")
        self._race.failed(number, hedging.fate(number, error, kind))

    def drop(self) -> object:
        """The caller leaves; return the result that it will not get."""
        self._race.stop()
        result, self._result, self._error = self._result, None, None
        return result

    # --- the end ---

    def answer(self) -> Any:
        """Return the result, or raise the error of the original."""
        attempts, winner = len(self._race.started), self._race.winner
        result, error, self._result, self._error = self._result, self._error, None, None
        try:
            if attempts > 1:
                self._target.won += winner > 1
                self._tell_finished(attempts, winner, error)
            if error is not None:
                raise error
            return result
        finally:
            del error  # else its traceback holds this frame, and the frame the error

    def abandoned(self, running: int) -> None:
        """Tell that threads were left behind, if any were."""
        if running:
            self._emit(events.WorkAbandoned, running=running)

    # --- a single attempt ---

    def alone(self) -> None:
        """The only attempt starts; it is in nobody's race."""
        self._race.begin(self._clock.now())

    def returned(self) -> None:
        """The only attempt has brought a result."""
        now = self._clock.now()
        self._sample(1, now)
        if not self.enforced and self.delay is not None and self._race.pause(now) <= 0.0:
            self._observed()

    def raised(self, error: Exception) -> None:
        """The only attempt has failed."""
        now, kind = self._clock.now(), classify(error)
        if kind == "timeout":
            self._sample(1, now)
        if not self.enforced and (kind in TRANSIENT_KINDS or self._race.pause(now) <= 0.0):
            self._observed()

    def _observed(self) -> None:
        """Tell of the hedge that would have been started, if there had been one."""
        if self._race.pause(math.inf) <= 0.0 and self._target.affords(self._options.budget):
            self._tell_started(2)

    # --- facts ---

    def _sample(self, number: int, now: float) -> None:
        self._target.sketch.add(self._race.elapsed(number, now), now)

    def _tell_started(self, number: int) -> None:
        if self._strategy.heard(self._site):
            self._emit(events.HedgeStarted, attempt=number, delay=self.delay or 0.0)

    def _tell_finished(self, attempts: int, winner: int, error: BaseException | None) -> None:
        if isinstance(error, Exception):
            elapsed = self._race.elapsed(1, self._clock.now())
            others = f" ({', '.join(self._failures)})" if self._failures else ""
            hedging.leave_note(error, f"{attempts} attempts in {elapsed:.2f} s, none succeeded{others}")
        if self._strategy.heard(self._site):
            self._emit(events.HedgeFinished, attempts=attempts, winner=winner)

    def _emit(self, event: type[events.Event], **facts: Any) -> None:
        self._strategy.emit(self._site, event(**self._strategy.facts(self._site, self._partition), **facts))

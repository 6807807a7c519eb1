"""One call through a retry, once it is not the happy path any more: what the drivers of all colours share.

The machines decide; a run brings them the facts (time, deadline, budget, pause of the target) and does what follows
from the decision, except sleeping and calling: that is what the colours differ in.
"""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING, Any

from asyncguard import events
from asyncguard._machines import giveup
from asyncguard._machines.attempts import Attempts, Situation, Verdict
from asyncguard._machines.durations import in_words
from asyncguard._runtime import deadlines
from asyncguard.errors import DeadlineExceededError, RateLimitedError, RejectedError
from asyncguard.strategies import _retry_scope as scope
from asyncguard.strategies._retry_targets import Place, place_of

if TYPE_CHECKING:
    from asyncguard._pipeline import Site
    from asyncguard.strategies.retry import Retry

_UNTOUCHED = {"not_retryable", "exhausted", "rejected"}  # of a first attempt: nothing was done, nothing is said


class Run:
    """The attempts of one call. `started` is None where the start was not timed: the first failure of a place."""

    __slots__ = (
        "_allowance", "_attempts", "_delay", "_elapsed_from", "_entered", "_exact", "_last", "_leaving", "_mark",
        "_options", "_place", "_real", "clock", "mode",
    )  # fmt: skip

    def __init__(self, place: Place, started: float | None, mark: int) -> None:
        strategy = place.strategy
        self._place = place
        self._options = strategy.live()
        self.mode = strategy.mode_at(place.site)
        self.clock = strategy.core_here().clock
        self._exact = started is not None
        self._elapsed_from = self.clock.now() if started is None else started
        self._attempts = Attempts(self._options.policy(), self.clock.random)
        self._allowance = strategy.allowance(self._options, place.target, self.clock)
        self._mark = mark
        self._delay = 0.0
        self._entered: scope.Entered | None = None
        self._last: Exception | None = None  # of the attempt before, without its frames
        self._real: Exception | None = None  # the same, but no rejection: that one leaves when a rejection ends it
        self._leaving: Exception | None = None

    @classmethod
    def start(cls, strategy: Retry, site: Site, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Run:
        """Begin before the first attempt."""
        run = cls(place_of(strategy, site, args, kwargs), strategy.core_here().clock.now(), giveup.given)
        if run.mode == "enforce" and run._options.max_retries is None and deadlines.remaining() is None:
            raise ValueError(
                f"{run._place}: max_retries=None retries until the deadline, and there is none: give it one, with a "
                "timeout outside of the retry or `with deadline(...)`, or set max_retries"
            )
        if run._allowance is not None:
            run._allowance.calls += 1.0
        return run

    @property
    def site(self) -> Site:
        """The guarded function."""
        return self._place.site

    @property
    def number(self) -> int:
        """The attempt that runs now or comes next, from 1."""
        return self._attempts.number

    # --- before an attempt ---

    def pause(self) -> float:
        """Return how long to sleep before the next attempt; ask again until it is 0.0, then attempt.

        Raises the error that leaves instead of a further attempt. Call it while no error is being handled.
        """
        self._raise_leaving()
        if self._last is not None:
            giveup.forget_frames(self._last, sys.exception())
        delay, self._delay = self._delay, 0.0
        if delay > 0.0 or self.mode != "enforce":
            return delay
        least, wait = self._place.target.parked.wait(self.clock.now(), self.clock.random)
        if least > 0.0:
            return self._wait_for_target(least, wait)
        if self._place.target.parked.until:
            self._place.strategy.unpark(self._place.target, self.clock.now())
        if self.number > 1 and deadlines.remaining() == 0.0:
            self._too_late()
        return 0.0

    def _wait_for_target(self, least: float, wait: float) -> float:
        left = deadlines.remaining()
        hopeless = self._place.target.parked.hopeless
        if not hopeless and (left is None or least < left):
            return wait if left is None or wait < left else least
        limit = "it asked for more than max_retry_after" if hopeless else f"the deadline leaves {in_words(left or 0.0)}"
        error = RateLimitedError(
            f"{self._place} is parked: the target asked for a pause, {in_words(least)} of it are left and {limit}; "
            f"ask again in {in_words(least)}",
            strategy=self._place.strategy.name,
            partition=self._place.partition,
            retry_after=least,
        )
        self._leave_instead(error, Verdict("throttle", reason="parked"))
        self._place.emit(events.CallRejected, reason="parked", retry_after=least)
        raise error

    def _too_late(self) -> None:
        error = DeadlineExceededError(
            f"{self._place}: the deadline was over before attempt {self.number}", strategy=self._place.strategy.name
        )
        self._leave_instead(error, Verdict("timeout", reason="deadline"))
        raise error

    def _leave_instead(self, error: Exception, verdict: Verdict) -> None:
        """Raise the last real error, if there is one, in place of one of our own."""
        if self._real is not None:
            self._attempts.number -= 1  # it was counted and does not take place
            self._give_up(error, verdict)
            self._raise_leaving()

    def _raise_leaving(self) -> None:
        error, self._leaving = self._leaving, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # else the traceback holds this frame, and the frame the error

    def begin(self, *, scoped: bool = True) -> None:
        """An attempt starts. `scoped`: tell the code in it by `current_attempt()`."""
        self._mark = giveup.given
        number = self.number
        if scoped:
            self._entered = scope.enter(number)
        if number > 1 and self._place.strategy.heard(self._place.site):
            self._place.emit(events.AttemptStarted, attempt=number)

    def end(self) -> None:
        """The attempt is over, in whatever way."""
        entered, self._entered = self._entered, None
        scope.leave(entered)

    # --- after an attempt ---

    def failed(self, error: Exception) -> bool:
        """Decide about an error; True: it leaves. False: `pause`, and on."""
        if self.mode == "enforce":
            return self._failed(error)
        with contextlib.suppress(Exception):  # a predicate that fails must not change a call that is only observed
            self._failed(error)
        return True

    def _failed(self, error: Exception) -> bool:
        number = self.number
        verdict = self._attempts.failed(error, self._situation(error))
        self._park(verdict)
        if verdict.reason:
            return self._give_up(error, verdict)
        self._schedule(number, verdict, error)
        self._last = error
        if not isinstance(error, RejectedError):
            self._real = error
        return False

    def unwanted(self, result: object) -> bool:
        """Decide about a result; True: `pause`, and on."""
        wanted = self._options.on_result
        if wanted is None:
            return False
        if self.mode == "enforce":
            return self._unwanted(result, wanted(result))
        with contextlib.suppress(Exception):
            self._unwanted(result, wanted(result))
        return False

    def _unwanted(self, result: object, answer: object) -> bool:
        number = self.number
        verdict = self._attempts.returned(result, answer, self._situation(None))
        if verdict is None:
            return False
        self._park(verdict)
        if verdict.reason:
            self._tell_gave_up(verdict, None)
            return False
        self._schedule(number, verdict, None)
        return True

    def _situation(self, error: Exception | None) -> Situation:
        exhausted = error is not None and giveup.exhausted(error, self._mark, self._place.identity)
        return Situation(deadlines.remaining(), time.time(), exhausted, self._spend)

    def _spend(self) -> bool:
        if self._allowance is None:
            return True
        now = self.clock.now()
        return self._allowance.withdraw(now) if self.mode == "enforce" else self._allowance.left(now) >= 1.0

    def _park(self, verdict: Verdict) -> None:
        if verdict.kind != "throttle" or not verdict.asked or self.mode != "enforce":
            return
        most = self._options.max_retry_after
        if self._place.strategy.park(self._place.target, self.clock.now(), verdict.asked, most):
            self._place.emit(events.TargetParked, delay=min(verdict.asked, most))

    def _schedule(self, number: int, verdict: Verdict, error: Exception | None) -> None:
        self._delay = verdict.delay
        if self._place.strategy.heard(self._place.site):
            self._place.emit(events.RetryScheduled, attempt=number, delay=verdict.delay, kind=verdict.kind, error=error)

    def _give_up(self, error: Exception, verdict: Verdict) -> bool:
        """Let the error leave (True), or the last real one in its place (False: `pause` raises it)."""
        if self.mode != "enforce":
            self._tell_gave_up(verdict, error)
            return True
        leaves = self._real if isinstance(error, RejectedError) and self._real is not None else error
        self._last = self._real = None
        if self.number == 1 and verdict.reason in _UNTOUCHED:
            giveup.withdraw_note(leaves, self._mark)
            return True
        giveup.leave_note(leaves, self._text(verdict), self._place.identity)
        self._tell_gave_up(verdict, leaves)
        if leaves is error:
            return True
        self._leaving = leaves
        return False

    def _tell_gave_up(self, verdict: Verdict, error: Exception | None) -> None:
        if self.number == 1 and verdict.reason in _UNTOUCHED:
            return
        elapsed = self.clock.now() - self._elapsed_from
        self._place.emit(
            events.RetryGaveUp,
            attempts=self.number, elapsed=elapsed, reason=verdict.reason, kind=verdict.kind, error=error,
        )  # fmt: skip

    def _text(self, verdict: Verdict) -> str:
        attempts = f"{self.number} attempt" + ("s" if self.number > 1 else "")
        elapsed = f"{'' if self._exact else 'more than '}{self.clock.now() - self._elapsed_from:.2f} s"
        detail = f" ({verdict.detail})" if verdict.detail else ""
        return f"{attempts} in {elapsed}, gave up: {verdict.reason}{detail}"

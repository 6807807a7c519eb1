"""The decision after a failed attempt: every combination against the rules, written down once more."""

from __future__ import annotations

import itertools
import math
from datetime import timedelta
from typing import NamedTuple

import pytest

from asyncguard import TRANSIENT, errors
from asyncguard._machines.attempts import Attempts, Policy, Situation
from asyncguard._machines.backoff import Backoff


class Answered(Exception):  # noqa: N818 - an answer of a service
    def __init__(self, status, retry_after=None):
        super().__init__(f"status {status}")
        self.status = status
        self.headers = {} if retry_after is None else {"Retry-After": str(retry_after)}


def policy(**changes):
    options = {
        "on": TRANSIENT,
        "max_retries": 2,
        "backoff": Backoff(0.5, 2.0, 20.0, "none"),
        "max_retry_after": 60.0,
        "retry_rejected": False,
        "retry_exhausted": False,
    }
    return Policy(**{**options, **changes})


def attempts(number=1, *, random=lambda: 0.5, **changes):
    machine = Attempts(policy(**changes), random)
    machine.number = number
    return machine


def now(*, left=None, wall=0.0, exhausted=False, spend=lambda: True):
    return Situation(left, wall, exhausted, spend)


def refused():
    raise AssertionError("the budget must not be asked")


# --- every combination ------------------------------------------------------------------------------------------------


class Case(NamedTuple):
    error: str
    retry_after: int | None
    number: int
    left: float | None
    exhausted: bool
    rich: bool
    retry_exhausted: bool


ERRORS = ["transient", "timeout", "throttle", "permanent", "unknown", "rejected", "hopeless"]
CASES = [
    Case(*each)
    for each in itertools.product(
        ERRORS, [None, 0, 3, 61], [1, 2, 3], [None, 0.0, 0.75, 100.0], [False, True], [False, True], [False, True]
    )
]


def make(case):
    statuses = {"transient": 503, "throttle": 429, "permanent": 404}
    if case.error in statuses:
        return Answered(statuses[case.error], case.retry_after)
    return {
        "timeout": TimeoutError(),
        "unknown": RuntimeError(),
        "rejected": errors.BulkheadFullError("full", retry_after=case.retry_after),
        "hopeless": errors.DeadlineExceededError("over"),
    }[case.error]


def expected(case, *, retry_rejected):
    """The rules, in the order of the page. Returns (reason, delay, budget spent)."""
    asked = case.retry_after if case.error in {"transient", "throttle", "permanent", "rejected"} else None
    rejected = case.error in {"rejected", "hopeless"}
    delay = max({1: 0.5, 2: 1.0}.get(case.number, 2.0) * (2 if case.error == "throttle" else 1), asked or 0)
    if case.left is not None and asked and delay >= case.left:
        delay = asked
    throttled = case.error == "throttle"
    rules = [
        ("rejected", case.error == "hopeless" or (rejected and not retry_rejected)),
        ("exhausted", not rejected and case.exhausted and not case.retry_exhausted),
        ("not_retryable", case.error in {"permanent", "unknown"}),
        ("deadline", case.left == 0.0),
        ("max_retries", case.number > 2),
        ("retry_after", asked is not None and asked > 60),
        ("deadline", case.left is not None and delay >= case.left),
        ("budget", not case.rich and not rejected and not throttled),
    ]
    reason = next((name for name, holds in rules if holds), "")
    spent = reason == "budget" or (not reason and not rejected and not throttled)
    return reason, 0.0 if reason else delay, spent


@pytest.mark.parametrize("retry_rejected", [False, True])
def test_every_combination_is_decided_by_the_rules_in_their_order(retry_rejected):
    decided = {}
    for case in CASES:
        asked_budget = []

        def spend(case=case, asked_budget=asked_budget):
            asked_budget.append(1)
            return case.rich

        machine = attempts(case.number, retry_rejected=retry_rejected, retry_exhausted=case.retry_exhausted)
        verdict = machine.failed(make(case), now(left=case.left, exhausted=case.exhausted, spend=spend))
        reason, delay, spent = expected(case, retry_rejected=retry_rejected)
        assert (verdict.reason, verdict.delay, bool(asked_budget)) == (reason, pytest.approx(delay), spent), case
        assert machine.number == case.number + (not reason), case
        decided[reason] = decided.get(reason, 0) + 1
    assert set(decided) == {
        "", "rejected", "exhausted", "not_retryable", "deadline", "max_retries", "retry_after", "budget"
    }  # fmt: skip
    assert sum(decided.values()) == len(CASES) == 2688


def test_a_verdict_never_sleeps_to_the_deadline_or_past_it():
    for left, random in itertools.product([0.1, 0.5, 0.51, 1.0, 3.0, 3.2, 60.0], [0.0, 0.5, 0.999]):
        for retry_after in (None, 1, 3, 50):
            machine = attempts(random=lambda random=random: random, backoff=Backoff(0.5, 2.0, 20.0, "full"))
            verdict = machine.failed(Answered(429, retry_after), now(left=left))
            assert verdict.reason or verdict.delay < left
            assert verdict.reason or verdict.delay >= (retry_after or 0)


# --- Retry-After ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", [1, 5, 59, 60])
@pytest.mark.parametrize("number", [0.0, 0.5, 0.999])
def test_never_earlier_than_asked_and_never_much_later(asked, number):
    machine = attempts(random=lambda: number, backoff=Backoff(0.2, 2.0, 0.5, "full"), max_retries=5)
    delay = machine.failed(Answered(503, asked), now()).delay
    assert asked <= delay <= asked * 1.1


def test_who_was_sent_away_together_does_not_come_back_together():
    delays = {attempts(random=lambda r=r: r).failed(Answered(429, 10), now()).delay for r in (0.0, 0.5)}
    assert len(delays) == 1, "without jitter it is exactly what was asked"
    jittered = Backoff(0.2, 2.0, 0.5, "full")
    delays = {
        attempts(random=lambda r=r: r, backoff=jittered).failed(Answered(429, 10), now()).delay for r in (0.0, 0.5)
    }
    assert delays == {10.0, 10.5}


@pytest.mark.parametrize("asked", ["61", "300", "9" * 30])
def test_longer_than_max_retry_after_gives_up_and_says_so(asked):
    verdict = attempts().failed(Answered(429, asked), now(spend=refused))
    assert verdict.reason == "retry_after"
    assert "max_retry_after is 60 s" in verdict.detail


def test_a_date_two_days_and_thirty_seconds_away_is_not_thirty_seconds_away():
    error = Answered(429, "Mon, 03 Jan 2000 00:00:30 GMT")
    verdict = attempts().failed(error, now(wall=946_684_800.0))
    assert (verdict.reason, verdict.asked) == ("retry_after", 172_830.0)


@pytest.mark.parametrize("bad", ["nan", "inf", "1e3", "-1", "1.5"])
def test_a_retry_after_that_is_none_leaves_the_backoff(bad):
    verdict = attempts().failed(Answered(503, bad), now())
    assert (verdict.reason, verdict.delay, verdict.asked) == ("", 0.5, None)


def test_what_was_asked_for_is_told_even_when_giving_up():
    """So that the others are parked although this call is over."""
    assert attempts(3).failed(Answered(429, 7), now()).asked == 7.0
    assert attempts(on=(KeyError,)).failed(Answered(429, 7), now()).asked == 7.0


def test_what_was_asked_for_is_enough_where_the_backoff_would_end_at_the_deadline():
    assert attempts(3, max_retries=5).failed(Answered(503, 1), now(left=2.0)).delay == 1.0
    assert attempts(3, max_retries=5).failed(Answered(503, 1), now(left=2.1)).delay == 2.0


# --- on= --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("on", "error", "again"),
    [
        ((ConnectionError,), ConnectionResetError(), True),
        ((ConnectionError, KeyError), KeyError(), True),
        ((ConnectionError,), TimeoutError(), False),
        ((Exception,), ValueError(), True),
        ((Exception,), errors.CircuitOpenError("open"), False),
        ((errors.CircuitOpenError,), errors.CircuitOpenError("open"), True),
        ((errors.RejectedError,), errors.BulkheadFullError("full"), True),
        ((errors.CircuitOpenError,), errors.BulkheadFullError("full"), False),
        ((TimeoutError,), errors.DeadlineExceededError("over"), False),
        ((ConnectionError,), ExceptionGroup("g", [ConnectionError(), ConnectionResetError()]), True),
        ((ConnectionError,), ExceptionGroup("g", [ConnectionError(), ExceptionGroup("h", [KeyError()])]), False),
        ((ExceptionGroup,), ExceptionGroup("g", [KeyError()]), True),
        (lambda error: "again" in str(error), ValueError("again"), True),
        (lambda error: "again" in str(error), ValueError("never"), False),
        (lambda _error: None, ConnectionError(), False),
        (lambda _error: "yes", ValueError(), True),
    ],
)
def test_on_says_which_errors(on, error, again):
    assert (attempts(on=on).failed(error, now()).reason == "") is again


@pytest.mark.parametrize(("answer", "delay"), [(0, 0.0), (0.0, 0.0), (2, 2.0), (2.5, 2.5), (timedelta(seconds=3), 3.0)])
def test_a_number_from_on_is_the_delay_to_use(answer, delay):
    verdict = attempts(on=lambda _error: answer, random=refused).failed(ValueError(), now())
    assert (verdict.reason, verdict.delay) == ("", delay)


@pytest.mark.parametrize("answer", [-1, math.nan, math.inf, timedelta(seconds=-1)])
def test_a_number_from_on_that_is_no_delay_is_named(answer):
    with pytest.raises(ValueError, match="the delay that on= returns must be a duration"):
        attempts(on=lambda _error: answer).failed(ValueError(), now())


def test_what_a_predicate_raises_is_raised():
    with pytest.raises(ZeroDivisionError):
        attempts(on=lambda _error: 1 / 0).failed(ValueError(), now())


def test_a_predicate_never_sees_a_rejection_unless_rejections_are_retried():
    assert attempts(on=lambda _error: refused()).failed(errors.CircuitOpenError("x"), now()).reason == "rejected"


def test_a_rejection_is_retried_when_it_says_and_spends_no_budget():
    error = errors.CircuitOpenError("open", retry_after=12.0)
    verdict = attempts(retry_rejected=True).failed(error, now(spend=refused))
    assert (verdict.reason, verdict.delay) == ("", 12.0)


@pytest.mark.parametrize("error", [errors.DeadlineExceededError("x"), errors.BlockingWaitError("x"), None])
def test_a_rejection_that_will_be_the_same_the_next_time_is_never_retried(error):
    if error is None:
        error = errors.MemoryPressureError("never fits")
        error.permanent = True
    assert attempts(retry_rejected=True).failed(error, now()).reason == "rejected"


# --- results ----------------------------------------------------------------------------------------------------------


def test_a_result_that_is_wanted_needs_no_decision():
    for falsy in (False, None):
        assert attempts().returned(object(), falsy, now()) is None


def test_a_response_that_fails_is_decided_like_an_error():
    verdict = attempts().returned(Answered(429, 5), answer := True, now(spend=refused))
    assert answer
    assert (verdict.kind, verdict.delay, verdict.asked) == ("throttle", 5.0, 5.0)
    assert attempts(3).returned(Answered(503), True, now()).reason == "max_retries"
    assert attempts().returned("empty", 0.25, now()).delay == 0.25


def test_the_decorrelated_delay_remembers_the_one_before():
    machine = attempts(max_retries=9, random=lambda: 1.0, backoff=Backoff(1.0, 2.0, 20.0, "decorrelated"))
    assert [machine.failed(TimeoutError(), now()).delay for _ in range(4)] == [3.0, 9.0, 20.0, 20.0]


def test_without_a_maximum_only_the_deadline_ends_it():
    machine = attempts(10_000, max_retries=None)
    assert machine.failed(TimeoutError(), now(left=30.0)).reason == ""
    assert machine.failed(TimeoutError(), now(left=0.0)).reason == "deadline"


def test_a_refusal_that_says_when_to_come_back_does_not_grow_the_pause():
    machine = attempts(retry_rejected=True, max_retries=9)
    full = errors.BulkheadFullError("full", retry_after=0.01)
    assert [machine.failed(full, now()).delay for _ in range(5)] == [0.5] * 5
    assert machine.failed(ConnectionError(), now()).delay == 0.5 * 2**5, "a failure of the dependency does"

"""Warnings that need no set-up: the events that matter, one line each, not too many."""

from __future__ import annotations

import logging
import math

import pytest

from asyncguard import events
from asyncguard._runtime.notices import Notices


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def notices(clock: Clock) -> Notices:
    return Notices(logging.getLogger("asyncguard"), clock)


def opened(**facts: str) -> events.CircuitOpened:
    return events.CircuitOpened(
        pipeline="embedder",
        strategy="breaker",
        open_for=30.0,
        calls=20,
        failed=14,
        slow=1,
        error="APITimeoutError",
        **facts,
    )


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (opened(), "embedder circuit opened for 30 s: 14 of 20 failed, 1 slow, last error APITimeoutError"),
        (
            opened(partition="acme"),
            "embedder[acme] circuit opened for 30 s: 14 of 20 failed, 1 slow, last error APITimeoutError",
        ),
        (
            events.CircuitOpened(pipeline="embedder", open_for=math.inf, calls=0, failed=0, slow=0, error=""),
            "embedder circuit opened until close() or reset(): 0 of 0 failed, 0 slow",
        ),
        (events.CircuitClosed(pipeline="embedder", open_for=30.0), "embedder circuit closed after 30 s"),
        (
            events.RetryGaveUp(
                pipeline="e", attempts=3, elapsed=1.42, reason="max_retries", kind="x", error=ValueError("secret")
            ),
            "e gave up after 3 attempts in 1.42 s: max_retries, last error ValueError",
        ),
        (
            events.RetryGaveUp(pipeline="e", attempts=1, elapsed=0.1, reason="budget", kind="x", error=None),
            "e retry budget is empty, gave up after 1 attempt in 0.1 s: budget",
        ),
        (
            events.TargetParked(pipeline="e", delay=20.0),
            "e is parked: the target asked for a pause, all callers wait 20 s",
        ),
        (
            events.MemoryDecided(
                pipeline="e",
                decision="rejected",
                used=900 << 20,
                limit=1024 << 20,
                reserved=100 << 20,
                need=300 << 20,
                waited=0.0,
                elsewhere=200 << 20,
            ),
            "e memory refused: need 300 MiB, used 900 + reserved 100 + 200 in other processes of 1024 MiB",
        ),
    ],
)
def test_what_an_operator_should_see(
    notices: Notices, caplog: pytest.LogCaptureFixture, event: events.Event, line: str
) -> None:
    notices.notice(event)
    (record,) = caplog.records
    assert record.getMessage() == line
    assert record.levelno == logging.WARNING
    assert vars(record)["asyncguard.event"] == type(event).__name__


@pytest.mark.parametrize(
    "event",
    [
        events.CacheHit(age=0.0),
        events.CallStarted(),
        events.RetryScheduled(attempt=1, delay=0.1, kind="x", error=None),
        events.MemoryDecided(decision="waited", used=0, limit=1, reserved=0, need=0, waited=0.1),
    ],
)
def test_the_daily_course_is_not_news(notices: Notices, caplog: pytest.LogCaptureFixture, event: events.Event) -> None:
    notices.notice(event)
    assert not caplog.records


def test_a_storm_is_held_back_and_counted(notices: Notices, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(1000):
        notices.notice(opened())
    assert len(caplog.records) == 5
    clock.now += 10.0
    notices.notice(opened())
    assert caplog.records[-1].getMessage().endswith("(995 like this were held back)")


def test_an_open_circuit_is_not_hidden_by_the_ones_before(
    notices: Notices, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        notices.notice(opened())
        clock.now += 1.0
        notices.notice(events.CircuitClosed(pipeline="embedder", strategy="breaker", open_for=1.0))
        clock.now += 1.0
    notices.notice(opened())
    assert "opened" in caplog.records[-1].getMessage()
    assert len(caplog.records) == 5


def test_observed_events_say_so(notices: Notices, caplog: pytest.LogCaptureFixture) -> None:
    notices.notice(events.CircuitClosed(pipeline="e", open_for=1.0, observed=True))
    assert caplog.records[0].getMessage() == "e circuit closed after 1 s (observed only)"


def test_a_partition_cannot_start_a_line_of_its_own(notices: Notices, caplog: pytest.LogCaptureFixture) -> None:
    notices.notice(opened(partition="x\n2026-01-01 ERROR root: gone"))
    assert "\n" not in caplog.records[0].getMessage()
    assert "\n" not in vars(caplog.records[0])["asyncguard.partition"]


def test_a_quiet_logger_costs_no_turn(notices: Notices, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "asyncguard"):
        for _ in range(100):
            notices.notice(opened())
    notices.notice(opened())
    assert len(caplog.records) == 1

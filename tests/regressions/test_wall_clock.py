"""The wall clock jumps (NTP, a suspended machine, summer time by hand): nothing but dates may notice."""

from __future__ import annotations

import ast
import asyncio
import re
import time
from pathlib import Path

import pytest

import asyncguard as ag

PACKAGE = Path(ag.__file__).parent
JUMPS = pytest.mark.parametrize("jump", [-3600.0, 3600.0])


@pytest.fixture
def wall(monkeypatch):
    """The wall clock, to be moved."""
    shift, real = [0.0], time.time

    def move(seconds):
        shift[0] += seconds

    monkeypatch.setattr(time, "time", lambda: real() + shift[0])
    monkeypatch.setattr(time, "time_ns", lambda: int((real() + shift[0]) * 1e9))
    return move


@JUMPS
def test_a_rate_allows_what_it_allows(wall, jump):
    """Elsewhere an hour back means that nothing is allowed for an hour."""
    limit = ag.rate_limit("10/day", max_wait=0)
    call = limit(lambda: None)
    for _ in range(5):
        call()
    wall(jump)
    for _ in range(5):
        call()
    with pytest.raises(ag.RateLimitedError):
        call()


@JUMPS
def test_a_circuit_stays_open_as_long_as_it_was_to(wall, jump):
    circuit = ag.circuit_breaker(consecutive_failures=1, open_for=600.0, max_open_for=600.0)

    @circuit
    def call():
        raise ConnectionError

    with pytest.raises(ConnectionError):
        call()
    wall(jump)
    with pytest.raises(ag.CircuitOpenError) as caught:
        call()
    assert 0 < caught.value.retry_after <= 600.0


@JUMPS
def test_an_entry_lives_as_long_as_it_was_to(wall, jump):
    calls = []

    @ag.cache_result(600)
    def call():
        calls.append(1)

    call()
    wall(jump)
    call()
    assert calls == [1]


@JUMPS
def test_a_deadline_is_as_far_away_as_it_was(wall, jump):
    with ag.deadline(600):
        wall(jump)
        assert 0 < ag.remaining() <= 600

    @ag.timeout(600)
    async def call():
        wall(jump)
        await asyncio.sleep(0)
        return ag.remaining()

    assert 0 < asyncio.run(call()) <= 600


@JUMPS
def test_a_retry_goes_on_and_tells_no_hour(wall, jump):
    calls = []

    @ag.retry(max_retries=3, initial_delay=0, max_delay=0, budget=None)
    def call():
        calls.append(1)
        wall(jump)
        raise ConnectionError

    with ag.deadline(600), pytest.raises(ConnectionError) as raised:
        call()
    assert len(calls) == 4
    (note,) = raised.value.__notes__
    assert "gave up: max_retries" in note
    assert 0 <= float(re.search(r"([-\d.]+) s, gave up", note)[1]) < 600


@JUMPS
def test_a_budget_neither_fills_nor_empties(wall, jump):
    calls = []
    budget = ag.RetryBudget(ratio=0, min_per_second=0.2)  # two retries in ten seconds

    @ag.retry(max_retries=10, initial_delay=0, max_delay=0, budget=budget)
    def call():
        calls.append(1)
        wall(jump)
        raise ConnectionError

    with pytest.raises(ConnectionError):
        call()
    assert len(calls) == 3


READS_DATES = {
    "strategies/_retry_run.py",  # Retry-After may be a date
    "strategies/rate_limit.py",  # so may x-ratelimit-reset
}
WALL_CLOCK = {"time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "datetime.today", "date.today"}


def readings(source):
    """Return the wall clocks that a source text reads."""
    found = [ast.unparse(node) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute)]
    return {name for name in found if name.removeprefix("datetime.") in WALL_CLOCK or name in WALL_CLOCK}


def test_the_wall_clock_is_read_for_dates_alone():
    edges = ("cli/", "batch/", "telemetry/", "integrations/", "stores/")  # what they write down is for people
    files = {path.relative_to(PACKAGE).as_posix(): path for path in PACKAGE.rglob("*.py")}
    found = {name for name, path in files.items() if readings(path.read_text(encoding="utf-8"))}
    assert {name for name in found if not name.startswith(edges)} == READS_DATES


@pytest.mark.parametrize("line", ["x = time.time()", "now = datetime.datetime.now", "y = datetime.utcnow()"])
def test_the_check_sees_a_reading(line):
    assert readings(line)
    assert not readings("time.monotonic()")

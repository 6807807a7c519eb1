"""The race of attempts, without time and without tasks."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest

from asyncguard._machines.hedging import Race, fate, leave_note
from asyncguard.errors import BulkheadFullError, RejectedError


@pytest.mark.parametrize(
    ("number", "error", "kind", "expected"),
    [
        (1, ConnectionError(), "transient", "again"),
        (2, ConnectionError(), "transient", "again"),
        (1, TimeoutError(), "timeout", "again"),
        (1, OSError(), "throttle", "again"),
        (1, ValueError(), "permanent", "final"),
        (1, OSError(), "unknown", "final"),
        (2, ValueError(), "permanent", "out"),
        (1, RejectedError(), "permanent", "out"),
        (2, BulkheadFullError(), "permanent", "out"),
        (1, KeyboardInterrupt(), "", "final"),
        (2, KeyboardInterrupt(), "", "final"),
    ],
)
def test_what_a_failure_means(number, error, kind, expected):
    assert fate(number, error, kind) == expected


def test_attempts_start_one_delay_after_the_other():
    """The example of gRPC A6: at most four, a delay of 500 ms: sent at 1, 501, 1001 and 1501 ms."""
    race, now, sent = Race(0.5, 4), 0.001, []
    while True:
        sent.append(now)
        race.begin(now)
        pause = race.pause(now)
        if pause == math.inf:
            break
        now += pause
    assert sent == pytest.approx([0.001, 0.501, 1.001, 1.501])


def test_a_failure_that_may_pass_wants_the_next_at_once_and_its_delay_counts_from_there():
    race = Race(0.5, 3)
    race.begin(0.0)
    assert race.pause(0.1) == pytest.approx(0.4)
    race.failed(1, "again")
    assert race.pause(0.1) == 0.0
    assert not race.over
    race.begin(0.1)
    assert race.pause(0.1) == pytest.approx(0.5)


def test_the_first_success_wins_and_later_ones_do_not_count():
    race = Race(0.5, 3)
    for now in (0.0, 0.5, 1.0):
        race.begin(now)
    race.failed(1, "again")
    assert race.succeeded(3)
    assert race.over
    assert race.winner == 3
    assert race.running == {2}
    assert not race.succeeded(2)
    assert race.winner == 3
    assert race.pause(9.0) == math.inf


def test_a_copy_that_is_refused_ends_nothing():
    race = Race(0.5, 3)
    race.begin(0.0)
    race.begin(0.5)
    race.failed(2, "out")
    assert not race.over
    assert race.pause(9.0) == math.inf  # and none is added
    assert race.succeeded(1)


def test_the_original_that_is_refused_waits_for_its_copy():
    race = Race(0.5, 2)
    race.begin(0.0)
    race.begin(0.5)
    race.failed(1, "out")
    assert not race.over
    assert race.succeeded(2)


def test_a_refusal_of_the_budget_ends_it_only_if_nothing_runs():
    race = Race(0.5, 2)
    race.begin(0.0)
    race.refuse()
    assert not race.over
    race.failed(1, "again")
    assert race.over
    assert race.winner == 0


def test_it_is_decided_exactly_when_nothing_runs_and_nothing_may_start():
    """Every order of three attempts and of what they end with."""
    for order in itertools.permutations((1, 2, 3)):
        for ends in itertools.product(("ok", "again", "out", "final"), repeat=3):
            race = Race(0.0, 3)
            for _ in order:
                race.begin(0.0)
            for number, end in zip(order, ends, strict=True):
                before = race.over
                if end == "ok":
                    assert race.succeeded(number) is not before
                elif not before:
                    race.failed(number, end)
            assert race.over
            decisive = next((pair for pair in zip(order, ends, strict=True) if pair[1] in {"ok", "final"}), (0, ""))
            assert race.winner == (decisive[0] if decisive[1] == "ok" else 0)


def test_nothing_counts_after_the_caller_has_left():
    race = Race(0.5, 2)
    race.begin(0.0)
    race.stop()
    assert race.over
    assert not race.succeeded(1)
    assert race.winner == 0


def test_the_pause_is_over_when_the_timer_says_so():
    """A timer may fire a hair early by the clock; waiting again for nothing would spin."""
    race = Race(0.5, 2)
    race.begin(0.0)
    race.late()
    assert race.pause(0.4999) == 0.0


def test_a_clock_that_goes_back_gives_no_negative_time():
    race = Race(0.5, 2)
    race.begin(10.0)
    assert race.elapsed(1, 3.0) == 0.0


def test_the_note_is_replaced_and_others_are_kept():
    error = ValueError()
    error.add_note("the user's")
    for number in range(3):
        leave_note(error, f"take {number}")
    assert error.__notes__ == ["the user's", "asyncguard.hedge: take 2"]


def test_a_frozen_exception_takes_the_note():
    @dataclasses.dataclass(frozen=True)
    class FrozenError(Exception):
        code: int

    error = FrozenError(3)
    leave_note(error, "text")
    assert error.__notes__ == ["asyncguard.hedge: text"]

"""A burst passes, then one message per interval; what was held back is counted."""

from __future__ import annotations

import pytest

from asyncguard._machines.throttle import Throttle


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_burst_passes_and_then_one_per_interval(clock: Clock) -> None:
    throttle = Throttle(clock, burst=3, every=10.0)
    assert [throttle.ask("a") for _ in range(5)] == [0, 0, 0, None, None]
    clock.now += 9.9
    assert throttle.ask("a") is None
    clock.now += 0.2
    assert throttle.ask("a") == 3
    assert throttle.ask("a") is None


def test_keys_do_not_hide_each_other(clock: Clock) -> None:
    throttle = Throttle(clock, burst=1)
    assert throttle.ask("opened") == 0
    assert throttle.ask("closed") == 0
    assert throttle.ask("opened") is None


def test_silence_brings_the_burst_back_and_no_more(clock: Clock) -> None:
    throttle = Throttle(clock, burst=2, every=1.0)
    throttle.ask("a")
    clock.now += 1000.0
    assert [throttle.ask("a") for _ in range(3)] == [0, 0, None]


def test_the_keys_are_bounded_and_the_longest_silent_goes(clock: Clock) -> None:
    throttle = Throttle(clock, burst=1, most_keys=2)
    throttle.ask("a")
    throttle.ask("b")
    throttle.ask("a")  # held back, but heard of
    throttle.ask("c")
    assert throttle.ask("a") is None
    assert throttle.ask("b") == 0


def test_clear_forgets(clock: Clock) -> None:
    throttle = Throttle(clock, burst=1)
    throttle.ask("a")
    throttle.clear()
    assert throttle.ask("a") == 0


def test_a_fork_while_the_lock_is_held_does_no_harm(clock: Clock) -> None:
    throttle = Throttle(clock)
    throttle._lock.acquire()
    throttle.after_fork()
    assert throttle.ask("a") == 0


@pytest.mark.parametrize("option", [{"burst": 0}, {"every": 0.0}, {"most_keys": 0}])
def test_bad_options_are_refused(clock: Clock, option: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(option))):
        Throttle(clock, **option)  # type: ignore[arg-type]

"""The circuit on an injected clock: what each number means, what is remembered, and who gets in."""

from __future__ import annotations

import math
import pickle
import threading
from collections import Counter
from typing import Any

import pytest

from asyncguard._machines.circuit import Circuit
from asyncguard._machines.circuit_rules import CircuitRules
from asyncguard._machines.circuit_words import CircuitState
from asyncguard.errors import CircuitOpenError
from asyncguard.events import CircuitClosed, CircuitHalfOpened, CircuitOpened


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0
        self.reads = 0

    def __call__(self) -> float:
        self.reads += 1
        return self.now


class Lock:
    """A lock that counts who takes it."""

    taken = 0

    def __enter__(self) -> None:
        self.taken += 1

    def __exit__(self, *error: object) -> None:
        pass


@pytest.fixture
def clock() -> Clock:
    return Clock()


def make(clock: Clock, **rules: Any) -> Circuit:
    return Circuit(CircuitRules(**{"minimum_calls": 2, "window_calls": 10, **rules}), clock, "embedder")


def call(circuit: Circuit, outcome: str = "ok", elapsed: float = 0.0) -> None:
    try:
        permit = circuit.take()
    except LookupError:
        permit = circuit.admit()
    if outcome == "ok":
        circuit.succeeded(permit, elapsed)
    else:
        circuit.failed(permit, elapsed, ConnectionError(outcome))
    circuit.release(permit)


def trip(circuit: Circuit, failures: int = 2) -> None:
    for _ in range(failures):
        call(circuit, "bad")
    assert circuit.state is CircuitState.OPEN


def refusal(circuit: Circuit) -> CircuitOpenError:
    with pytest.raises(CircuitOpenError) as caught:
        circuit.admit()
    return caught.value


# --- the happy path ---------------------------------------------------------------------------------------------------


def test_a_closed_circuit_that_counts_calls_takes_no_lock_and_reads_no_clock(clock: Clock) -> None:
    circuit = make(clock, window_calls=100)
    for _ in range(5):
        call(circuit)
    circuit._lock = lock = Lock()  # type: ignore[assignment]
    clock.reads = 0
    for _ in range(500):
        call(circuit)
    assert (clock.reads, lock.taken) == (0, 0)


def test_a_closed_circuit_that_counts_calls_takes_no_lock_for_good_calls_beside_bad_ones(clock: Clock) -> None:
    circuit = make(clock, window_calls=100, minimum_calls=3)
    for outcome in ("ok", "ok", "ok", "bad"):
        call(circuit, outcome)
    circuit._lock = lock = Lock()  # type: ignore[assignment]
    for _ in range(200):
        call(circuit)
    assert lock.taken == 0


def test_a_closed_circuit_that_counts_seconds_looks_once_in_sixteen_calls(clock: Clock) -> None:
    circuit = make(clock, window_calls=0)
    for _ in range(40):
        call(circuit)
    circuit._lock = lock = Lock()  # type: ignore[assignment]
    clock.reads = 0
    for _ in range(1600):
        call(circuit)
    assert clock.reads <= 101
    assert lock.taken <= 101


# --- when it opens ----------------------------------------------------------------------------------------------------


def test_it_opens_at_the_failure_rate_and_not_below(clock: Clock) -> None:
    circuit = make(clock, window_calls=10, minimum_calls=10)
    for outcome in ["bad"] * 4 + ["ok"] * 6:
        call(circuit, outcome)
    assert circuit.state is CircuitState.CLOSED
    call(circuit, "bad")  # the oldest failure leaves the window
    assert circuit.state is CircuitState.CLOSED
    for outcome in ["bad"] * 4:
        call(circuit, outcome)
    assert circuit.state is CircuitState.OPEN


def test_a_good_call_that_makes_the_minimum_opens_it_too(clock: Clock) -> None:
    circuit = make(clock, minimum_calls=4)
    for outcome in ["bad", "bad", "ok"]:
        call(circuit, outcome)
    assert circuit.state is CircuitState.CLOSED
    call(circuit, "ok")
    assert circuit.state is CircuitState.OPEN


def test_a_window_smaller_than_the_minimum_counts_as_the_minimum(clock: Clock) -> None:
    circuit = make(clock, window_calls=5, minimum_calls=20)
    trip(circuit, failures=5)


def test_it_opens_when_too_many_calls_are_slow(clock: Clock) -> None:
    circuit = make(clock, minimum_calls=4, slow_call=2.0, slow_call_rate=0.75)
    assert circuit.timed
    for elapsed in (2.0, 2.1, 2.1):
        call(circuit, elapsed=elapsed)
    assert circuit.state is CircuitState.CLOSED
    call(circuit, elapsed=9.0)
    assert circuit.state is CircuitState.OPEN
    assert "3 slow" in str(refusal(circuit))


def test_a_slow_failure_is_both(clock: Clock) -> None:
    circuit = make(clock, minimum_calls=4, failure_rate=1.0, slow_call=2.0, slow_call_rate=0.5)
    for outcome in ("bad", "bad", "ok"):
        call(circuit, outcome, elapsed=3.0 if outcome == "bad" else 0.0)
    call(circuit)
    assert circuit.state is CircuitState.OPEN


def test_failures_in_a_row_open_it_below_the_minimum(clock: Clock) -> None:
    circuit = make(clock, window_calls=100, minimum_calls=100, consecutive_failures=3)
    for outcome in ("bad", "bad", "ok", "bad", "bad"):
        call(circuit, outcome)
    assert circuit.state is CircuitState.CLOSED
    call(circuit, "bad")
    assert circuit.state is CircuitState.OPEN


def test_failures_that_have_left_the_window_of_time_do_not_open_it(clock: Clock) -> None:
    circuit = make(clock, window_calls=0, window_seconds=60.0, minimum_calls=4)
    for _ in range(3):
        call(circuit, "bad")
    clock.now += 61.0
    for _ in range(3):
        call(circuit, "bad")
    assert circuit.state is CircuitState.CLOSED
    call(circuit, "bad")
    assert circuit.state is CircuitState.OPEN


def test_old_good_calls_that_leave_the_window_may_open_it(clock: Clock) -> None:
    circuit = make(clock, window_calls=0, window_seconds=60.0, minimum_calls=4)
    for _ in range(7):  # looked at with the 7th: none of them is taken for younger
        call(circuit)
    clock.now += 50.0
    for outcome in ("bad", "bad", "ok"):
        call(circuit, outcome)
    clock.now += 9.0
    call(circuit)
    assert circuit.state is CircuitState.CLOSED
    clock.now += 2.0
    call(circuit)  # 2 of 5 now: the seven have expired
    assert circuit.state is CircuitState.CLOSED
    call(circuit, "bad")
    assert circuit.state is CircuitState.OPEN


# --- open and half-open -----------------------------------------------------------------------------------------------


def test_an_open_circuit_refuses_with_the_numbers(clock: Clock) -> None:
    circuit = make(clock, open_for=30.0)
    trip(circuit)
    clock.now += 17.6
    error = refusal(circuit)
    assert error.retry_after == pytest.approx(12.4)
    assert str(error) == "embedder: circuit OPEN 12.4 s more, 2 of 2 failed, last ConnectionError 17.6 s ago"
    assert pickle.loads(pickle.dumps(error)).retry_after == error.retry_after


def test_200_simultaneous_callers_get_exactly_the_probes(clock: Clock) -> None:
    circuit = make(clock, half_open_calls=3)
    trip(circuit)
    clock.now += 30.0
    results: Counter[str] = Counter()
    barrier = threading.Barrier(20)

    def ask() -> None:
        barrier.wait()
        for _ in range(10):
            try:
                circuit.admit()
                results["in"] += 1
            except CircuitOpenError:
                results["out"] += 1

    threads = [threading.Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {"in": 3, "out": 197}


def test_it_closes_as_soon_as_the_probes_cannot_fail_any_more(clock: Clock) -> None:
    circuit = make(clock, half_open_calls=3)
    trip(circuit)
    clock.now += 30.0
    probes = [circuit.admit() for _ in range(3)]
    circuit.succeeded(probes[0], 0.0)
    assert circuit.state is CircuitState.HALF_OPEN
    circuit.succeeded(probes[1], 0.0)
    assert circuit.state is CircuitState.CLOSED
    circuit.failed(probes[2], 0.0, ConnectionError())
    assert circuit.state is CircuitState.CLOSED


def test_it_opens_as_soon_as_the_probes_cannot_succeed_any_more(clock: Clock) -> None:
    circuit = make(clock, half_open_calls=4)
    trip(circuit)
    clock.now += 30.0
    probes = [circuit.admit() for _ in range(4)]
    circuit.failed(probes[0], 0.0, ConnectionError())
    assert circuit.state is CircuitState.HALF_OPEN
    circuit.failed(probes[1], 0.0, ConnectionError())
    assert circuit.state is CircuitState.OPEN


def test_a_cancelled_probe_gives_its_place_to_another(clock: Clock) -> None:
    circuit = make(clock, half_open_calls=1)
    trip(circuit)
    clock.now += 30.0
    circuit.abandoned(circuit.admit())
    circuit.refund(circuit.admit())
    call(circuit)
    assert circuit.state is CircuitState.CLOSED


def test_a_lost_probe_opens_the_circuit_again_instead_of_blocking_it_for_ever(clock: Clock) -> None:
    circuit = make(clock, half_open_calls=1, open_for=30.0)
    trip(circuit)
    clock.now += 30.0
    lost = circuit.admit()
    clock.now += 29.0
    assert refusal(circuit).retry_after is None
    clock.now += 1.0
    assert refusal(circuit).retry_after == 60.0
    clock.now += 60.0
    call(circuit)
    assert circuit.state is CircuitState.CLOSED
    circuit.failed(lost, 0.0, ConnectionError())
    assert circuit.describe() == "CLOSED, 0 of 0 failed"


def test_peek_finds_a_lost_probe_as_well(clock: Clock) -> None:
    circuit = make(clock, half_open_calls=1)
    trip(circuit)
    clock.now += 30.0
    circuit.admit()
    clock.now += 30.0
    with pytest.raises(CircuitOpenError, match=r"OPEN 60\.0 s more"):
        circuit.peek()
    clock.now += 60.0
    circuit.peek()


def test_peek_takes_no_probe(clock: Clock) -> None:
    circuit = make(clock, half_open_calls=1)
    circuit.peek()
    trip(circuit)
    with pytest.raises(CircuitOpenError):
        circuit.peek()
    clock.now += 30.0
    for _ in range(5):
        circuit.peek()
    assert circuit.state is CircuitState.OPEN
    circuit.admit()
    with pytest.raises(CircuitOpenError, match="HALF-OPEN, waits for 1 of 1 probes"):
        circuit.peek()


@pytest.mark.parametrize("late", ["succeeded", "failed"])
def test_a_late_result_of_the_closed_era_decides_nothing(clock: Clock, late: str) -> None:
    circuit = make(clock, half_open_calls=1)
    slow = circuit.take()
    trip(circuit)
    report = (slow, 0.0) if late == "succeeded" else (slow, 0.0, ConnectionError())
    getattr(circuit, late)(*report)
    assert circuit.state is CircuitState.OPEN
    assert refusal(circuit).retry_after == 30.0
    clock.now += 30.0
    probe = circuit.admit()
    getattr(circuit, late)(*report)
    assert circuit.state is CircuitState.HALF_OPEN
    circuit.succeeded(probe, 0.0)
    assert circuit.state is CircuitState.CLOSED


def test_the_pause_grows_with_each_opening_up_to_its_maximum_and_starts_anew_after_a_closing(clock: Clock) -> None:
    circuit = make(clock, half_open_calls=1, open_for=10.0, open_factor=3.0, max_open_for=50.0)
    trip(circuit)
    pauses = []
    for _ in range(4):
        pause = refusal(circuit).retry_after
        assert pause is not None
        pauses.append(pause)
        clock.now += pause
        call(circuit, "bad")
    assert pauses == [10.0, 30.0, 50.0, 50.0]
    clock.now += 50.0
    call(circuit)
    trip(circuit)
    assert refusal(circuit).retry_after == 10.0


def test_slow_probes_open_it_again(clock: Clock) -> None:
    circuit = make(clock, half_open_calls=2, slow_call=1.0, slow_call_rate=0.5)
    trip(circuit)
    clock.now += 30.0
    call(circuit, elapsed=5.0)
    assert circuit.state is CircuitState.OPEN


# --- by hand ----------------------------------------------------------------------------------------------------------


def test_forced_open_stays_until_it_is_closed(clock: Clock) -> None:
    circuit = make(clock)
    circuit.force_open()
    clock.now += 1e9
    error = refusal(circuit)
    assert error.retry_after is None
    assert "FORCED OPEN until close() or reset()" in str(error)
    with pytest.raises(CircuitOpenError):
        circuit.peek()
    circuit.close()
    call(circuit)
    assert circuit.state is CircuitState.CLOSED


def test_opened_by_hand_it_probes_after_the_usual_time(clock: Clock) -> None:
    circuit = make(clock, half_open_calls=1)
    circuit.open()
    assert refusal(circuit).retry_after == 30.0
    clock.now += 30.0
    call(circuit)
    assert circuit.state is CircuitState.CLOSED


def test_reset_forgets_what_was_counted_and_close_does_not_touch_a_closed_circuit(clock: Clock) -> None:
    circuit = make(clock, minimum_calls=3)
    call(circuit, "bad")
    circuit.close()
    assert "1 of 1 failed" in circuit.describe()
    circuit.reset()
    assert circuit.describe() == "CLOSED, 0 of 0 failed"
    circuit.force_open()
    circuit.reset()
    assert circuit.state is CircuitState.CLOSED


def test_what_happened_is_told_in_order(clock: Clock) -> None:
    circuit = make(clock, half_open_calls=1)
    trip(circuit)
    clock.now += 30.0
    call(circuit)
    assert list(circuit.news) == [
        (CircuitOpened, {"open_for": 30.0, "calls": 2, "failed": 2, "slow": 0, "error": "ConnectionError"}),
        (CircuitHalfOpened, {"probes": 1}),
        (CircuitClosed, {"open_for": 30.0}),
    ]


# --- the rest ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("jump", [-3600.0, -1e9])
def test_a_clock_that_goes_back_never_prolongs_an_opening(clock: Clock, jump: float) -> None:
    circuit = make(clock, open_for=30.0)
    trip(circuit)
    clock.now += jump
    assert refusal(circuit).retry_after == 30.0
    clock.now += 30.0
    call(circuit)
    assert circuit.state is CircuitState.HALF_OPEN
    circuit.admit(), circuit.admit()
    clock.now += jump
    refusal(circuit)
    clock.now += 30.0
    assert refusal(circuit).retry_after == 60.0, "two hang"


def test_a_clock_that_jumps_ahead_ends_an_opening(clock: Clock) -> None:
    circuit = make(clock, open_for=30.0)
    trip(circuit)
    clock.now += 3600.0
    call(circuit)
    assert circuit.state is CircuitState.HALF_OPEN


def test_other_rules_keep_the_state_and_calls_in_flight_end_as_they_began(clock: Clock) -> None:
    circuit = make(clock, open_for=30.0)
    flying = circuit.take()
    circuit.configure(CircuitRules(minimum_calls=2, window_calls=10, slow_call=1.0))
    circuit.succeeded(flying, 1e9)  # timed from 0: nobody had asked for the time when it started
    assert circuit.describe() == "CLOSED, 0 of 0 failed"
    trip(circuit)
    circuit.configure(CircuitRules(minimum_calls=2, window_calls=10, failure_rate=0.9))
    assert circuit.state is CircuitState.OPEN
    assert not circuit.timed


def test_other_thresholds_keep_what_was_counted(clock: Clock) -> None:
    circuit = make(clock, minimum_calls=3)
    call(circuit, "bad")
    circuit.configure(CircuitRules(minimum_calls=3, window_calls=10, failure_rate=0.9))
    assert circuit.describe() == "CLOSED, 1 of 1 failed, last ConnectionError 0.0 s ago"


def test_only_a_closed_circuit_without_bad_calls_is_idle(clock: Clock) -> None:
    circuit = make(clock, window_calls=0, minimum_calls=3)
    call(circuit)
    assert circuit.idle()
    call(circuit, "bad")
    assert not circuit.idle()
    clock.now += 61.0
    assert circuit.idle()
    circuit.force_open()
    assert not circuit.idle()


def test_after_a_fork_the_lock_is_new_and_no_probe_is_in_flight(clock: Clock) -> None:
    circuit = make(clock, half_open_calls=1)
    trip(circuit)
    clock.now += 30.0
    circuit.admit()
    circuit._lock.acquire()
    circuit.after_fork()
    call(circuit)
    assert circuit.state is CircuitState.CLOSED


def test_a_stale_permit_after_a_fork_or_a_closing_is_harmless(clock: Clock) -> None:
    circuit = make(clock)
    permit = circuit.take()
    circuit.reset()
    for _ in range(10):
        circuit.failed(permit, 0.0, ConnectionError())
        circuit.succeeded(permit, math.inf)
        circuit.abandoned(permit)
    assert circuit.describe() == "CLOSED, 0 of 0 failed"


def test_under_threads_no_outcome_is_lost(clock: Clock) -> None:
    circuit = make(clock, window_calls=10**6, minimum_calls=10**6)

    def work() -> None:
        for i in range(1000):
            call(circuit, "bad" if i % 50 == 0 else "ok")

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert circuit.describe().startswith("CLOSED, 120 of 6000 failed")


def test_a_call_that_the_garbage_collector_ends_on_the_thread_that_holds_the_lock_does_not_wait_for_itself() -> None:
    circuit = Circuit(CircuitRules(), clock=lambda: 0.0)
    with circuit._lock:
        assert circuit._lock.acquire(blocking=False), "the lock is not reentrant: `abandoned` would deadlock"
        circuit._lock.release()

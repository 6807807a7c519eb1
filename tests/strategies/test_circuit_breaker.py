"""`circuit_breaker` around functions: what counts, who is refused, what is told, and the state in the user's hands."""

from __future__ import annotations

import asyncio
import pickle
import threading
from datetime import timedelta
from typing import Any

import anyio
import pytest

import asyncguard as ag
from asyncguard import testing
from asyncguard.errors import CallTimeoutError, CircuitOpenError, RateLimitedError, RejectedError
from asyncguard.events import CallRejected, CircuitClosed, CircuitHalfOpened, CircuitOpened
from asyncguard.strategies.circuit_breaker import CircuitBreaker, CircuitState


class StatusError(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def breaker(**options: Any) -> CircuitBreaker:
    return ag.circuit_breaker(**{"window": 10, "minimum_calls": 2, "name": "service", **options})


async def answer(error: BaseException | None = None) -> str:
    if error is not None:
        raise error
    return "answer"


def answer_now(error: BaseException | None = None) -> str:
    if error is not None:
        raise error
    return "answer"


async def fail(fn: Any, times: int = 2) -> None:
    for _ in range(times):
        with pytest.raises(ConnectionError):
            await fn(ConnectionError())


# --- what counts ------------------------------------------------------------------------------------------------------


def test_it_opens_refuses_probes_and_closes(backend: Any) -> None:
    circuit = breaker(minimum_calls=3, half_open_calls=1)
    ask = circuit(answer)

    async def main() -> None:
        assert await ask() == "answer"
        await fail(ask)
        with pytest.raises(CircuitOpenError) as caught:
            await ask()
        assert caught.value.strategy == "service"
        assert caught.value.retry_after == pytest.approx(30.0)
        assert "OPEN 30.0 s more, 2 of 3 failed, last ConnectionError" in str(caught.value)
        await anyio.sleep(30)
        assert circuit.state == "open"
        assert await ask() == "answer"
        assert circuit.state is CircuitState.CLOSED

    testing.run(main, backend=backend)


def test_the_sync_side_is_the_same_circuit() -> None:
    circuit = breaker(half_open_calls=1)
    ask, ask_now = circuit(answer), circuit(answer_now)

    async def main() -> None:
        await fail(ask)
        with pytest.raises(CircuitOpenError):
            ask_now()
        await asyncio.sleep(30)
        assert ask_now() == "answer"
        assert await ask() == "answer"

    testing.run(main)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("bad input"),
        KeyError("bad input"),
        StatusError(404),
        StatusError(429),
        RateLimitedError("ours"),
        RejectedError("ours"),
    ],
    ids=repr,
)
def test_mistakes_of_the_caller_throttling_and_rejections_are_neutral(error: Exception) -> None:
    circuit = breaker()
    ask = circuit(answer_now)
    for _ in range(20):
        with pytest.raises(type(error)):
            ask(error)
    assert circuit.describe() == ["CLOSED, 0 of 0 failed"]
    assert not ag.is_dependency_failure(error)


@pytest.mark.parametrize(
    "error",
    [
        ConnectionError(),
        TimeoutError(),
        CallTimeoutError("ours"),
        StatusError(503),
        OSError("unknown"),
        Exception("who knows"),
    ],
    ids=repr,
)
def test_transient_timeout_and_unknown_errors_are_failures(error: Exception) -> None:
    circuit = breaker()
    ask = circuit(answer_now)
    for _ in range(2):
        with pytest.raises(type(error)):
            ask(error)
    assert circuit.state == "open"
    assert ag.is_dependency_failure(error)


@pytest.mark.parametrize("on", [ValueError, (KeyError, ValueError), lambda error: isinstance(error, ValueError)])
def test_on_says_which_errors_are_failures(on: Any) -> None:
    circuit = breaker(on=on)
    ask = circuit(answer_now)
    with testing.virtual_clock():
        for error in (ConnectionError(), ValueError(), ValueError()):
            with pytest.raises(type(error)):
                ask(error)
        assert circuit.describe()[0].startswith("OPEN 30.0 s more, 2 of 2 failed, last ValueError")


def test_a_rejection_is_no_failure_even_if_every_exception_is() -> None:
    circuit = breaker(on=Exception)
    ask = circuit(answer_now)
    for _ in range(5):
        with pytest.raises(RejectedError):
            ask(RejectedError("a gate inside"))
    assert circuit.state == "closed"


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError])
def test_interrupts_and_cancellation_are_neutral_and_give_a_probe_back(error: type[BaseException]) -> None:
    circuit = breaker(half_open_calls=1)
    ask = circuit(answer_now)
    with testing.virtual_clock() as clock:
        for _ in range(2):
            with pytest.raises(ConnectionError):
                ask(ConnectionError())
        clock.advance(30)
        for _ in range(3):
            with pytest.raises(error):
                ask(error())
            assert circuit.state == "half_open"
        assert ask() == "answer"
        assert circuit.state == "closed"


# --- half-open --------------------------------------------------------------------------------------------------------


def test_200_simultaneous_callers_make_three_calls(backend: Any) -> None:
    circuit = breaker()
    ask = circuit(answer)
    calls: list[int] = []

    @circuit
    async def slow() -> None:
        calls.append(1)
        await anyio.sleep(1)

    async def one() -> None:
        try:
            await slow()
        except CircuitOpenError:
            refused.append(1)

    refused: list[int] = []

    async def main() -> None:
        await fail(ask)
        await anyio.sleep(30)
        async with anyio.create_task_group() as group:
            for _ in range(200):
                group.start_soon(one)
        assert (len(calls), len(refused)) == (3, 197)
        assert circuit.state == "closed"

    testing.run(main, backend=backend)


def test_a_cancelled_probe_is_given_back(backend: Any) -> None:
    circuit = breaker(half_open_calls=1)
    ask = circuit(answer)
    hang = circuit(lambda_sleep)

    async def main() -> None:
        await fail(ask)
        await anyio.sleep(30)
        with anyio.move_on_after(1):
            await hang(100)
        assert circuit.state == "half_open"
        assert await ask() == "answer"
        assert circuit.state == "closed"

    testing.run(main, backend=backend)


async def lambda_sleep(seconds: float) -> None:
    await anyio.sleep(seconds)


def test_a_probe_that_hangs_opens_it_again_and_its_late_result_counts_for_nothing(backend: Any) -> None:
    circuit = breaker(half_open_calls=1)
    ask, hang = circuit(answer), circuit(lambda_sleep)

    async def main() -> None:
        await fail(ask)
        await anyio.sleep(30)
        async with anyio.create_task_group() as group:
            group.start_soon(hang, 70)
            await anyio.sleep(31)
            with pytest.raises(CircuitOpenError) as caught:
                await ask()
            assert caught.value.retry_after == pytest.approx(60.0)
        assert circuit.state == "open"
        await anyio.sleep(60)
        assert await ask() == "answer"

    testing.run(main, backend=backend)


def test_ten_threads_are_in_the_function_at_once() -> None:
    """No lock is held while the function runs."""
    together = threading.Barrier(10, timeout=60)
    ask = breaker()(together.wait)
    threads = [threading.Thread(target=ask) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not together.broken


# --- in a block with other gates --------------------------------------------------------------------------------------


def test_a_call_that_was_queued_when_the_circuit_opened_is_not_made(backend: Any) -> None:
    circuit = breaker(minimum_calls=1)
    calls: list[str] = []

    @ag.guard(circuit, ag.bulkhead(1))
    async def ask(name: str) -> None:
        calls.append(name)
        await anyio.sleep(1)
        raise ConnectionError

    async def one(name: str) -> None:
        try:
            await ask(name)
        except (ConnectionError, CircuitOpenError) as error:
            ends.append(type(error).__name__)

    ends: list[str] = []

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(one, "first")
            group.start_soon(one, "queued")
        assert len(calls) == 1
        assert sorted(ends) == ["CircuitOpenError", "ConnectionError"]

    testing.run(main, backend=backend)


def test_an_open_circuit_refuses_before_anybody_queues(backend: Any) -> None:
    circuit, slots = breaker(), ag.bulkhead(1)
    circuit_only, both = circuit(answer), ag.guard(circuit, slots)(answer)

    async def main() -> None:
        await fail(circuit_only)
        async with slots.permit():
            with pytest.raises(CircuitOpenError):
                await both()

    testing.run(main, backend=backend)


def test_time_in_a_queue_is_not_slowness_of_the_dependency(backend: Any) -> None:
    circuit = breaker(slow_call=2.0, slow_call_rate=0.5)

    @ag.guard(circuit, ag.bulkhead(1))
    async def ask() -> None:
        await anyio.sleep(1)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(8):
                group.start_soon(ask)
        assert circuit.describe() == ["CLOSED, 0 of 8 failed"]

    testing.run(main, backend=backend)


def test_slow_calls_open_it(backend: Any) -> None:
    circuit = breaker(slow_call=timedelta(seconds=2))
    slow = circuit(lambda_sleep)

    async def main() -> None:
        for _ in range(2):
            await slow(3)
        with pytest.raises(CircuitOpenError, match="0 of 2 failed, 2 slow"):
            await slow(0)

    testing.run(main, backend=backend)


def test_a_token_is_refunded_when_the_circuit_refuses_at_the_last_moment(backend: Any) -> None:
    circuit, limit = breaker(half_open_calls=1), ag.rate_limit("1/h burst 2")
    alone, both = circuit(answer), ag.guard(circuit, limit)(lambda_sleep)

    async def main() -> None:
        await fail(alone)
        await anyio.sleep(30)
        async with anyio.create_task_group() as group:
            group.start_soon(both, 5)
            await anyio.sleep(1)
            for _ in range(3):
                with pytest.raises(CircuitOpenError):
                    await both(0)
        assert limit.peek() == 0.0
        assert limit.peek(2) > 3000

    testing.run(main, backend=backend)


# --- what is told -----------------------------------------------------------------------------------------------------


def test_events_tell_what_happened_and_why(backend: Any) -> None:
    heard: list[Any] = []
    circuit = breaker(half_open_calls=1, on_event=heard.append)
    ask = circuit(answer)

    async def main() -> None:
        await fail(ask)
        with pytest.raises(CircuitOpenError):
            await ask()
        await anyio.sleep(30)
        await ask()

    testing.run(main, backend=backend)
    assert [type(event) for event in heard] == [CircuitOpened, CallRejected, CircuitHalfOpened, CircuitClosed]
    opened, rejected, half, closed = heard
    assert (opened.strategy, opened.calls, opened.failed, opened.error, opened.open_for) == (
        "service",
        2,
        2,
        "ConnectionError",
        30.0,
    )
    assert (rejected.reason, rejected.retry_after) == ("open", pytest.approx(30.0))
    assert half.probes == 1
    assert closed.open_for == pytest.approx(30.0)
    assert all(event.pipeline.endswith("answer") for event in heard)


def test_a_hook_that_fails_changes_nothing() -> None:
    def broken(event: object) -> None:
        raise RuntimeError("hook")

    circuit = breaker(on_event=broken)
    ask = circuit(answer_now)
    for _ in range(2):
        with pytest.raises(ConnectionError):
            ask(ConnectionError())
    with pytest.raises(CircuitOpenError):
        ask()


def test_changes_by_hand_are_told_as_well() -> None:
    heard: list[Any] = []
    circuit = breaker(on_event=heard.append)
    circuit.open()
    circuit.close()
    assert [type(event) for event in heard] == [CircuitOpened, CircuitClosed]


def test_status_says_where_it_is_and_why() -> None:
    circuit = breaker()
    ask = circuit(answer_now)
    for _ in range(2):
        with pytest.raises(ConnectionError):
            ask(ConnectionError())
    lines = [str(fact) for fact in ag.status() if "answer_now" in str(fact) and "OPEN" in str(fact)]
    assert any("service: OPEN 30.0 s more, 2 of 2 failed, last ConnectionError 0.0 s ago" in line for line in lines)


# --- by hand, per partition, and modes --------------------------------------------------------------------------------


def test_the_state_by_hand() -> None:
    circuit = breaker()
    ask = circuit(answer_now)
    circuit.force_open()
    assert circuit.state == "forced_open"
    with pytest.raises(CircuitOpenError, match="FORCED OPEN"):
        ask()
    circuit.close()
    assert ask() == "answer"
    circuit.open()
    assert circuit.state == "open"
    circuit.reset()
    assert ask() == "answer"


def test_each_partition_has_a_circuit_of_its_own() -> None:
    circuit = breaker(partition=lambda tenant, error=None: tenant)

    @circuit
    def ask(tenant: str, error: Exception | None = None) -> str:
        return answer_now(error)

    for _ in range(2):
        with pytest.raises(ConnectionError):
            ask("acme", ConnectionError())
    with pytest.raises(CircuitOpenError) as caught:
        ask("acme")
    assert caught.value.partition == "acme"
    assert "service[acme]: circuit OPEN" in str(caught.value)
    assert ask("other") == "answer"
    assert circuit.states == {"acme": "open", "other": "closed"}
    assert circuit.state == "open"
    assert circuit.describe()[0].startswith("[acme] OPEN")
    assert circuit.describe()[1] == "1 of 2 circuits closed"
    circuit.close(partition="acme")
    assert ask("acme") == "answer"
    circuit.open(partition="other")
    assert circuit.states == {"acme": "closed", "other": "open"}


def test_forced_open_holds_for_partitions_to_come() -> None:
    circuit = breaker(partition=lambda tenant: tenant)
    ask = circuit(lambda tenant: tenant)
    circuit.force_open()
    with pytest.raises(CircuitOpenError):
        ask("new")
    circuit.reset()
    assert ask("newer") == "newer"
    assert ask("new") == "new"


def test_observing_it_decides_and_tells_and_refuses_nothing(backend: Any) -> None:
    heard: list[Any] = []
    circuit = breaker(mode="observe", on_event=heard.append)
    ask = circuit(answer)

    async def main() -> None:
        await fail(ask)
        assert await ask() == "answer"
        assert circuit.state == "open"

    testing.run(main, backend=backend)
    assert [type(event) for event in heard] == [CircuitOpened, CallRejected]
    assert all(event.observed for event in heard)


def test_switched_off_it_counts_nothing() -> None:
    circuit = breaker(mode="off")
    ask = circuit(answer_now)
    for _ in range(9):
        with pytest.raises(ConnectionError):
            ask(ConnectionError())
    assert circuit.describe() == ["CLOSED, 0 of 0 failed"]


def test_options_change_in_place_and_an_invalid_change_changes_nothing() -> None:
    circuit = breaker(minimum_calls=5)
    ask = circuit(answer_now)
    with pytest.raises(ValueError, match="failure_rate"):
        circuit.configure(failure_rate=2.0, open_for=1.0)
    assert circuit.options.open_for == 30.0
    circuit.configure(minimum_calls=1, slow_call=2.0)
    with pytest.raises(ConnectionError):
        ask(ConnectionError())
    assert circuit.state == "open"
    with circuit.override(mode="off"):
        assert ask() == "answer"
    with pytest.raises(CircuitOpenError):
        ask()


def test_errors_may_be_judged_otherwise_for_a_block() -> None:
    circuit = breaker(minimum_calls=1)
    ask = circuit(answer_now)
    with circuit.override(on=ValueError), pytest.raises(ConnectionError):
        ask(ConnectionError())
    assert circuit.state == "closed"


def test_it_pickles_as_its_options_and_the_state_stays_behind() -> None:
    circuit = breaker(window=timedelta(minutes=2), on=(ValueError, KeyError))
    circuit.force_open()
    copy = pickle.loads(pickle.dumps(circuit))
    assert copy.options == circuit.options
    assert (copy.name, copy.state) == ("service", "closed")


def test_under_a_virtual_clock_it_is_another_circuit() -> None:
    circuit = breaker()
    circuit.force_open()
    with testing.virtual_clock():
        assert circuit.state == "closed"
    assert circuit.state == "forced_open"


def test_the_block_form_counts_as_a_call(backend: Any) -> None:
    circuit = breaker()

    async def main() -> None:
        for _ in range(2):
            with pytest.raises(ConnectionError):
                async with circuit.permit():
                    raise ConnectionError
        with pytest.raises(CircuitOpenError):
            async with circuit.permit():
                pass

    testing.run(main, backend=backend)


# --- options ----------------------------------------------------------------------------------------------------------

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("failure_rate", [0, -0.1, 1.1, NAN, True, "0.5"]),
        ("window", [0, -1, 1.5, True, timedelta(0), timedelta(seconds=-1), "60 s", None]),
        ("minimum_calls", [0, -1, 1.5, True, NAN]),
        ("open_for", [0, -1, NAN, INF, True, "30", timedelta(0)]),
        ("slow_call", [0, -1, NAN, INF, True]),
        ("slow_call_rate", [0, -1, 1.01, NAN, True]),
        ("consecutive_failures", [0, -1, 1.5, True]),
        ("open_factor", [0.9, -1, NAN, INF, True]),
        ("max_open_for", [0, -1, NAN, INF, 29.9]),
        ("half_open_calls", [0, -1, 1.5, True]),
        ("mode", ["on", None]),
    ],
)
def test_an_option_out_of_range_is_refused_by_name(option: str, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(ValueError, match=rf"^{option} must be .*got "):
            ag.circuit_breaker(**{option: value})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"on": KeyboardInterrupt}, "on must not hold KeyboardInterrupt"),
        ({"on": 3}, "on must be an exception class"),
        ({"partition": "host"}, "partition must be a callable"),
        ({"on_event": 3}, "on_event must be a callable"),
        ({"name": ""}, "name must be a non-empty string"),
    ],
)
def test_an_option_of_the_wrong_type_is_refused_by_name(options: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        ag.circuit_breaker(**options)


def test_durations_may_be_timedeltas() -> None:
    options = ag.circuit_breaker(
        open_for=timedelta(minutes=1), slow_call=timedelta(seconds=2), max_open_for=timedelta(hours=1)
    ).options
    assert (options.open_for, options.slow_call, options.max_open_for) == (60.0, 2.0, 3600.0)

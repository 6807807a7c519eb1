"""`adaptive_concurrency` around functions: what it learns from, whom it lets in, what it tells, how it is changed."""

from __future__ import annotations

import asyncio
import json
import math
import pickle
import random
import threading
from collections import deque
from pathlib import Path
from typing import Any

import anyio
import pytest

import asyncguard as ag
from asyncguard import testing
from asyncguard._runtime import clock as clocks
from asyncguard.errors import BlockingWaitError, BulkheadFullError, CallTimeoutError, DeadlineExceededError
from asyncguard.events import CallQueued, CallRejected, LimitChanged
from asyncguard.strategies.adaptive_concurrency import AdaptiveConcurrency, adaptive_concurrency

REFERENCE = json.loads((Path(__file__).parents[1] / "reference" / "adaptive.json").read_text(encoding="utf-8"))


class StatusError(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


async def answer(seconds: float = 0.05, error: Exception | None = None) -> str:
    await anyio.sleep(seconds)
    if error is not None:
        raise error
    return "answer"


def answer_now(error: BaseException | None = None) -> str:
    clocks.current().sleep_sync(0.05)
    if error is not None:
        raise error
    return "answer"


async def many(fn: Any, calls: int, *args: Any) -> None:
    async with anyio.create_task_group() as group:
        for _ in range(calls):
            group.start_soon(fn, *args)


# --- the simulated server ---------------------------------------------------------------------------------------------


class Server:
    """Works on so many calls at once and queues the rest, first come first served."""

    def __init__(self, slots: int, base: float) -> None:
        self.slots, self.base = slots, base
        self.running, self.done = 0, 0
        self.queue: deque[asyncio.Future[None]] = deque()
        self.random = random.Random(3)

    async def work(self) -> None:
        if self.running >= self.slots:
            self.queue.append(asyncio.get_running_loop().create_future())
            await self.queue[-1]
        else:
            self.running += 1
        await asyncio.sleep(self.base * self.random.uniform(0.8, 1.2))
        self.done += 1
        self.running -= 1
        while self.queue and self.running < self.slots:
            self.running += 1
            self.queue.popleft().set_result(None)


async def saturate(server: Server, limiter: AdaptiveConcurrency, seconds: float) -> None:
    """Clients that always have another call, for so long."""
    call, loop = limiter(server.work), asyncio.get_running_loop()
    end = loop.time() + seconds

    async def client() -> None:
        while loop.time() < end:
            await call()

    await asyncio.gather(*[client() for _ in range(60)])


def test_on_a_server_of_20_slots_the_limit_stays_at_20_to_30_and_follows_a_halved_capacity() -> None:
    case = REFERENCE["server_of_20_slots"]
    server, moves = Server(case["slots"], case["base"]), testing.Recorded()
    limiter = adaptive_concurrency(on_event=moves.append)

    async def main() -> None:
        await saturate(server, limiter, 30.0)  # it has found its place, and probes seldom by now
        moves.clear()
        before, seconds = server.done, 40.0
        assert case["limit"][0] <= limiter.limit <= case["limit"][1]
        await saturate(server, limiter, seconds)
        best = case["slots"] / case["base"] * seconds
        assert server.done - before >= case["throughput"] * best
        assert all(case["limit"][0] <= move.new <= case["limit"][1] for move in moves.of(LimitChanged))
        server.slots //= 2
        await saturate(server, limiter, 10.0)
        assert case["halved_limit"][0] <= limiter.limit <= case["halved_limit"][1]
        server.slots *= 2
        await saturate(server, limiter, 10.0)
        assert case["limit"][0] <= limiter.limit <= case["limit"][1]
        assert all(gate.idle() for gate in limiter.gates())

    testing.run(main)


def test_a_dependency_that_becomes_slower_is_not_taken_for_a_full_one() -> None:
    server = Server(20, 0.05)
    limiter = adaptive_concurrency()

    async def main() -> None:
        await saturate(server, limiter, 5.0)
        server.base *= 2
        await saturate(server, limiter, 20.0)
        assert 20 <= limiter.limit <= 30

    testing.run(main)


def test_a_first_guess_that_is_far_too_high_is_corrected() -> None:
    server = Server(5, 0.05)
    limiter = adaptive_concurrency(initial=50)

    async def main() -> None:
        await saturate(server, limiter, 60.0)
        assert 5 <= limiter.limit <= 15

    testing.run(main)


# --- what it learns from ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [TimeoutError(), CallTimeoutError("ours"), StatusError(429), ExceptionGroup("all", [TimeoutError()])],
    ids=repr,
)
def test_timeouts_and_throttling_are_drops(error: Exception) -> None:
    limiter = adaptive_concurrency()

    async def main() -> None:
        with pytest.raises(type(error)):
            await limiter(answer)(0.05, error)
        assert limiter.limit == 18

    testing.run(main)


@pytest.mark.parametrize(
    "error",
    [ValueError(), ConnectionError(), StatusError(503), StatusError(404), DeadlineExceededError(), BulkheadFullError()],
    ids=repr,
)
def test_other_errors_say_nothing(error: Exception) -> None:
    limiter = adaptive_concurrency()

    async def main() -> None:
        for _ in range(60):
            with pytest.raises(type(error)):
                await limiter(answer)(0.05, error)
        assert limiter.limit == 20
        assert "latency" not in limiter.describe()[0]

    testing.run(main)


def test_a_burst_of_throttled_calls_costs_one_step(backend: Any) -> None:
    limiter = adaptive_concurrency()

    @limiter
    async def throttled() -> None:
        await anyio.sleep(0.05)
        raise StatusError(429)

    async def main() -> None:
        async def caught() -> None:
            with pytest.raises(StatusError):
                await throttled()

        await many(caught, 20)
        assert limiter.limit == 18

    testing.run(main, backend=backend)


def test_cancelled_calls_leave_no_sample_and_no_slot(backend: Any) -> None:
    limiter = adaptive_concurrency(initial=2, max_limit=2)
    call = limiter(answer)

    async def main() -> None:
        for _ in range(60):
            with anyio.move_on_after(0.01):
                await many(call, 5, 1.0)
        assert limiter.describe() == ["limit 2 (1..2); 0 running, queue 0/20"]

    testing.run(main, backend=backend)


def test_a_timeout_around_each_attempt_is_seen_one_around_the_whole_is_not() -> None:
    inside, outside = adaptive_concurrency(), adaptive_concurrency()
    attempt = ag.guard(inside, ag.timeout(1.0, scope="attempt"))(answer)
    total = ag.guard(outside, ag.timeout(1.0))(answer)

    async def main() -> None:
        for call in (attempt, total):
            with pytest.raises(CallTimeoutError):
                await call(5.0)
        assert (inside.limit, outside.limit) == (18, 20)

    testing.run(main)


def test_full_use_without_queueing_grows_and_light_use_does_not(backend: Any) -> None:
    full, light = adaptive_concurrency(), adaptive_concurrency()

    async def main() -> None:
        for _ in range(8):
            await many(full(answer), 20)
            await many(light(answer), 9)
        assert full.limit > 20
        assert light.limit == 20

    testing.run(main, backend=backend)


def test_waiting_in_the_queue_is_no_latency() -> None:
    limiter = adaptive_concurrency(initial=1, max_limit=1, max_queue=500, max_wait=60)

    async def main() -> None:
        await many(limiter(answer), 60)
        assert "50 ms latency" in limiter.describe()[0]

    testing.run(main)


def test_aimd_gives_way_to_drops_only() -> None:
    limiter = adaptive_concurrency(algorithm="aimd", max_queue=500, max_wait=60)
    call = limiter(answer)

    async def main() -> None:
        await many(call, 50)
        assert limiter.limit == 21
        await many(call, 80, 5.0)
        assert limiter.limit == 22
        with pytest.raises(TimeoutError):
            await call(0.05, TimeoutError())
        assert limiter.limit == 19

    testing.run(main)


# --- both colours, block form -----------------------------------------------------------------------------------------


def test_the_sync_side_shares_the_limit() -> None:
    limiter = adaptive_concurrency()
    call = limiter(answer_now)
    with testing.virtual_clock():
        assert call() == "answer"
        with pytest.raises(TimeoutError):
            call(TimeoutError())
        assert limiter.limit == 18
        with pytest.raises(KeyboardInterrupt):
            call(KeyboardInterrupt())
        assert limiter.describe() == ["limit 18 (1..200); 0 running, queue 0/180"]


def test_the_block_form_learns_too() -> None:
    limiter = adaptive_concurrency()

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with limiter.permit():
                raise TimeoutError
        with pytest.raises(TimeoutError), limiter.permit():
            raise TimeoutError
        assert limiter.limit == 16

    testing.run(main)


def test_a_block_takes_one_slot() -> None:
    with pytest.raises(TypeError, match="every call takes one slot"):
        adaptive_concurrency().permit(cost=2)


def test_a_call_from_inside_of_the_last_call_is_refused_instead_of_waiting_for_itself(backend: Any) -> None:
    limiter = adaptive_concurrency(initial=1, max_limit=1)

    @limiter
    async def again(times: int) -> None:
        if times:
            await again(times - 1)

    async def main() -> None:
        with pytest.raises(BulkheadFullError, match="wait for itself"):
            await again(1)
        async with limiter.permit():
            with pytest.raises(BulkheadFullError, match="wait for itself"):
                await again(0)
        assert all(gate.idle() for gate in limiter.gates())

    testing.run(main, backend=backend)


def test_a_sync_caller_on_the_thread_of_a_loop_is_refused_instead_of_blocked() -> None:
    limiter = adaptive_concurrency(initial=1, max_limit=1)

    async def main() -> None:
        release = asyncio.Event()
        holding = asyncio.create_task(limiter(release.wait)())
        await asyncio.sleep(0)
        with pytest.raises(BlockingWaitError, match="would block the event loop"):
            limiter(answer_now)()
        release.set()
        await holding
        assert limiter.gate.idle()

    asyncio.run(main())


def test_four_loops_in_four_threads_never_exceed_a_limit_of_three_and_leave_nothing_behind() -> None:
    limiter = adaptive_concurrency(initial=3, min_limit=3, max_limit=3, max_queue=2_000, max_wait=60)
    running, peak, lock = 0, 0, threading.Lock()

    @limiter
    async def work() -> None:
        nonlocal running, peak
        with lock:
            running += 1
            peak = max(peak, running)
        try:
            await asyncio.sleep(0)
        finally:
            with lock:
                running -= 1

    async def jobs(seed: int) -> None:
        rng = random.Random(seed)
        tasks = [asyncio.create_task(work()) for _ in range(100)]
        for task in tasks:
            if rng.random() < 0.3:
                await asyncio.sleep(0)
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    threads = [threading.Thread(target=lambda seed=seed: asyncio.run(jobs(seed))) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert peak <= 3
    assert limiter.gate.idle()
    assert len(limiter.gate.free) == 3


# --- queue and refusals -----------------------------------------------------------------------------------------------


def test_a_full_queue_and_a_long_wait_are_refused_with_the_limit_in_the_message(backend: Any) -> None:
    limiter = adaptive_concurrency(initial=1, max_queue=1, max_wait=2.0, name="embedder")
    call = limiter(answer)

    async def main() -> None:
        async with anyio.create_task_group() as group, limiter.permit():
            group.start_soon(late)
            await anyio.sleep(0.1)
            with pytest.raises(BulkheadFullError, match=r"embedder: .*limit 1 \(1\.\.200\)") as caught:
                await call()
            assert caught.value.strategy == "embedder"
            await anyio.sleep(5.0)
        assert limiter.describe()[0].endswith("0 running, queue 0/1")

    async def late() -> None:
        with pytest.raises(BulkheadFullError, match="came free in time"):
            await call()

    with testing.record_events() as recorded:
        testing.run(main, backend=backend)
    assert [event.reason for event in recorded.of(CallRejected)] == ["full", "full"]


# --- events, partitions, modes ----------------------------------------------------------------------------------------


def test_a_change_is_told_to_hook_and_subscribers_with_its_place() -> None:
    heard: list[Any] = []
    limiter = adaptive_concurrency(partition=lambda host: host, name="api", on_event=heard.append)

    @limiter
    async def ask(host: str) -> None:
        raise TimeoutError

    async def main() -> None:
        with pytest.raises(TimeoutError):
            await ask("a")
        assert limiter.limits == {"a": 18}
        assert limiter.limit == 20

    with testing.record_events() as recorded:
        testing.run(main)
    assert heard == list(recorded)
    [event] = recorded.of(LimitChanged)
    assert (event.strategy, event.partition, event.old, event.new) == ("api", "a", 20, 18)
    assert event.pipeline.endswith("ask")


def test_partitions_have_limits_of_their_own_and_status_shows_the_lowest_first() -> None:
    limiter = adaptive_concurrency(initial=10, partition=lambda host, error: host)

    @limiter
    def ask(host: str, error: Exception | None) -> None:
        if error is not None:
            raise error

    with testing.virtual_clock():
        ask("a", None)
        with pytest.raises(TimeoutError):
            ask("b", TimeoutError())
        assert limiter.limits == {"a": 10, "b": 9}
        assert limiter.describe() == [
            "[b] limit 9 (1..200); 0 running, queue 0/90",
            "[a] limit 10 (1..200); 0 running, queue 0/100",
            "2 partitions",
        ]


def test_status_says_the_limit_the_load_and_the_latencies() -> None:
    limiter = adaptive_concurrency(max_limit=20)
    pipeline = ag.guard(limiter, name="embedder")
    call = pipeline(answer)

    async def main() -> None:
        await many(call, 20)
        for _ in range(4):
            await many(call, 20)
        line = next(str(fact) for fact in ag.status() if fact.pipeline == "embedder")
        expected = (
            "embedder adaptive_concurrency: limit 20 (1..20), 50 ms latency, 50 ms unloaded; 0 running, queue 0/200"
        )
        assert line == expected

    testing.run(main)


def test_observing_refuses_nobody_and_says_what_it_would_have_done() -> None:
    limiter = adaptive_concurrency(initial=1, max_queue=0, mode="observe")

    async def main() -> None:
        await many(limiter(answer), 3)
        with pytest.raises(TimeoutError):
            await limiter(answer)(0.05, TimeoutError())

    with testing.record_events() as recorded:
        testing.run(main)
    assert [type(event) for event in recorded] == [CallRejected, CallRejected]
    assert all(event.observed for event in recorded)


def test_off_does_nothing() -> None:
    limiter = adaptive_concurrency(initial=1, max_queue=0, mode="off")

    async def main() -> None:
        await many(limiter(answer), 3)

    with testing.record_events() as recorded:
        testing.run(main)
    assert not recorded


# --- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"initial": 0}, "initial must be an integer at least 1 and at most 200"),
        ({"initial": True}, "initial must be"),
        ({"initial": 300}, "at most 200, got 300"),
        ({"initial": 5, "min_limit": 6}, "initial must be an integer at least 6"),
        ({"min_limit": 0}, "min_limit must be an integer at least 1"),
        ({"min_limit": 1.5}, "min_limit must be"),
        ({"max_limit": 0}, "max_limit must be an integer at least 1"),
        ({"min_limit": 30, "max_limit": 20}, "max_limit must be an integer at least 30"),
        ({"max_limit": math.inf}, "max_limit must be"),
        ({"algorithm": "gradient2"}, "algorithm must be one of 'vegas', 'aimd', got 'gradient2'"),
        ({"max_queue": -1}, "max_queue must be"),
        ({"max_wait": math.nan}, "max_wait must be"),
    ],
    ids=str,
)
def test_options_out_of_range_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        adaptive_concurrency(**options)


def test_configure_moves_the_limit_into_the_new_bounds_and_says_so() -> None:
    limiter = adaptive_concurrency(partition=lambda host: host)

    @limiter
    def ask(host: str) -> None:
        """Answer."""

    ask("a")
    with testing.record_events() as recorded:
        limiter.configure(max_limit=10, initial=5)
        with pytest.raises(ValueError, match="initial"):
            limiter.configure(max_limit=4)
    assert (limiter.limit, limiter.limits) == (10, {"a": 10})
    assert [(event.partition, event.old, event.new) for event in recorded] == [("", 20, 10), ("a", 20, 10)]
    ask("b")
    assert limiter.limits == {"a": 10, "b": 5}


def test_a_block_has_no_limit_of_its_own() -> None:
    with (
        pytest.raises(TypeError, match="max_limit is the same for all calls"),
        adaptive_concurrency().override(max_limit=3),
    ):
        pass


def test_it_pickles_as_its_options_and_leaves_what_was_learnt_behind() -> None:
    limiter = adaptive_concurrency(initial=8, algorithm="aimd", name="api")
    limiter(answer_now)
    with pytest.raises(TimeoutError), limiter.permit():
        raise TimeoutError
    copy = pickle.loads(pickle.dumps(limiter))
    assert (copy.options, copy.name, copy.limit) == (limiter.options, "api", 8)
    assert limiter.limit == 7


def test_the_place_in_a_guard_is_next_to_the_bulkhead_and_a_retry_inside_is_warned_about() -> None:
    pipeline = ag.guard(ag.rate_limit("1/s"), adaptive_concurrency(), ag.circuit_breaker())
    assert [strategy.kind for strategy in pipeline] == ["circuit_breaker", "adaptive_concurrency", "rate_limit"]
    with pytest.warns(UserWarning, match="the sleep counts as latency"):
        adaptive_concurrency()(ag.retry(max_retries=1)(answer))


def test_a_slot_that_comes_free_goes_to_who_waits(backend: Any) -> None:
    limiter = adaptive_concurrency(initial=1, max_limit=1)

    async def main() -> None:
        await many(limiter(answer), 3)

    with testing.record_events() as recorded:
        testing.run(main, backend=backend)
    assert [event.ahead for event in recorded.of(CallQueued)] == [0, 1]

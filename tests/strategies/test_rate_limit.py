"""`rate_limit` around functions: when calls start, who is refused, what is given back, and what services say."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import threading
from datetime import timedelta
from itertools import pairwise
from typing import Any

import anyio
import pytest

import asyncguard as ag
from asyncguard import testing
from asyncguard.errors import BlockingWaitError, RateLimitedError
from asyncguard.events import CallAdmitted, CallQueued, CallRejected
from asyncguard.strategies.rate_limit import Rate, RateLimit


class Starts:
    """A guarded function that notes when it was called."""

    def __init__(self, limit: RateLimit, seconds: float = 0.0) -> None:
        self.times: list[float] = []
        self.call = limit(self.note)
        self.seconds = seconds
        self.zero = 0.0

    async def note(self, *args: Any, **kwargs: Any) -> None:
        self.times.append(round(anyio.current_time() - self.zero, 6))
        await anyio.sleep(self.seconds)

    async def many(self, count: int) -> None:
        self.zero = anyio.current_time()
        async with anyio.create_task_group() as group:
            for _ in range(count):
                group.start_soon(self.call)


# --- when calls start -------------------------------------------------------------------------------------------------


def test_20_per_second_deliver_20_per_second_with_30_waiters(backend: Any) -> None:
    starts = Starts(ag.rate_limit("20/s burst 1"))

    async def main() -> None:
        await starts.many(31)

    testing.run(main, backend=backend)
    assert starts.times == pytest.approx([0.05 * i for i in range(31)])


def test_a_burst_starts_at_once_and_the_rest_at_the_rate(backend: Any) -> None:
    starts = Starts(ag.rate_limit("10/s burst 3"))

    async def main() -> None:
        await starts.many(6)

    testing.run(main, backend=backend)
    assert starts.times == pytest.approx([0, 0, 0, 0.1, 0.2, 0.3])


def test_callers_start_in_the_order_in_which_they_came(backend: Any) -> None:
    limit = ag.rate_limit("10/s burst 1")
    order: list[int] = []

    @limit
    async def call(i: int) -> None:
        order.append(i)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for i in range(20):
                group.start_soon(call, i)
                await anyio.sleep(0.001)

    testing.run(main, backend=backend)
    assert order == sorted(order)


def test_no_second_holds_more_calls_than_the_rate_behind_a_queue(backend: Any) -> None:
    """Tokens paid in front of a queue would burst out of it: 101 calls in a second at 10/s."""
    slots, limit = ag.bulkhead(1, max_queue=200, max_wait=60), ag.rate_limit("10/s burst 1", max_wait=60)
    times: list[float] = []

    @ag.guard(slots, limit)
    async def call(seconds: float) -> None:
        times.append(anyio.current_time())
        await anyio.sleep(seconds)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(call, 5)
            await anyio.sleep(0.1)
            for _ in range(100):
                group.start_soon(call, 0)

    testing.run(main, backend=backend)
    assert len(times) == 101
    assert all(later - earlier > 0.0999 for earlier, later in pairwise(times))


def test_a_cancelled_waiter_gives_its_turn_to_the_next(backend: Any) -> None:
    starts = Starts(ag.rate_limit("1/s"))

    async def main() -> None:
        starts.zero = anyio.current_time()
        await starts.call()
        async with anyio.create_task_group() as group, anyio.create_task_group() as doomed:
            doomed.start_soon(starts.call)
            await anyio.sleep(0.1)
            group.start_soon(starts.call)
            group.start_soon(starts.call)
            await anyio.sleep(0.1)
            doomed.cancel_scope.cancel()

    testing.run(main, backend=backend)
    assert starts.times == pytest.approx([0, 1, 2])


@pytest.mark.parametrize("cancelled", [0, 3, 9, 5])
def test_whoever_is_cancelled_the_others_start_at_the_rate(backend: Any, cancelled: int) -> None:
    starts = Starts(ag.rate_limit("10/s burst 1"))
    scopes: list[anyio.CancelScope] = []

    async def one() -> None:
        with anyio.CancelScope() as scope:
            scopes.append(scope)
            await starts.call()

    async def main() -> None:
        starts.zero = anyio.current_time()
        await starts.call()
        async with anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(one)
            await anyio.sleep(0.01)
            scopes[cancelled].cancel()

    testing.run(main, backend=backend)
    assert starts.times == pytest.approx([0.1 * i for i in range(10)])


def test_sync_callers_wait_as_well() -> None:
    limit = ag.rate_limit("10/s burst 1")
    with testing.virtual_clock() as clock:
        times: list[float] = []

        @limit
        def call() -> None:
            times.append(round(clock.now() - start, 6))

        start = clock.now()
        for _ in range(4):
            call()
    assert times == pytest.approx([0, 0.1, 0.2, 0.3])


def test_sync_and_async_callers_share_the_rate() -> None:
    limit = ag.rate_limit("1/h burst 2", max_wait=0)
    call, call_now = limit(lambda_async), limit(lambda: None)

    async def main() -> None:
        call_now()
        await call()
        with pytest.raises(RateLimitedError):
            call_now()

    testing.run(main)


async def lambda_async() -> None:
    pass


def test_a_sync_caller_does_not_block_the_loop_it_runs_on() -> None:
    limit = ag.rate_limit("1/h", max_wait=1e6)
    call = limit(lambda: None)

    async def main() -> None:
        call()
        with pytest.raises(BlockingWaitError, match="make the function async"):
            call()

    asyncio.run(main())
    assert limit.peek() == pytest.approx(3600, abs=600)


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_a_wait_beyond_max_wait_is_refused_at_once_and_takes_nothing(backend: Any) -> None:
    limit = ag.rate_limit("1/s", max_wait=1.5, name="openai")
    starts = Starts(limit)

    async def main() -> None:
        await starts.call()
        before = anyio.current_time()
        async with anyio.create_task_group() as group:
            group.start_soon(starts.call)
            await anyio.sleep(0.01)
            for _ in range(5):
                with pytest.raises(
                    RateLimitedError, match=r"openai: 1/s allows this call in 1.99 s, and it may wait for 1.5 s"
                ) as caught:
                    await starts.call()
                assert caught.value.retry_after == pytest.approx(1.99)
                assert caught.value.strategy == "openai"
            assert anyio.current_time() == pytest.approx(before + 0.01)
        await starts.call()
        assert anyio.current_time() == pytest.approx(before + 2.0)

    testing.run(main, backend=backend)


def test_a_wait_beyond_the_deadline_is_refused_at_once(backend: Any) -> None:
    limit = ag.rate_limit("1/s", max_wait=60)
    call = limit(lambda_async)

    async def main() -> None:
        await call()
        before = anyio.current_time()
        with ag.deadline(0.5), pytest.raises(RateLimitedError):
            await call()
        assert anyio.current_time() == before

    testing.run(main, backend=backend)


def test_a_cost_above_the_burst_is_an_error_at_once() -> None:
    limit = ag.rate_limit(Rate("1000/min", cost=len))
    call = limit(lambda text: None)
    with pytest.raises(
        ValueError, match="the cost for 1000/min must be a number at least 0 and at most 1000, got 1001"
    ):
        call("x" * 1001)
    call("x" * 1000)


# --- costs ------------------------------------------------------------------------------------------------------------


def test_requests_and_tokens_are_limited_together(backend: Any) -> None:
    limit = ag.rate_limit("60/min burst 60", Rate("600/min", cost=len))
    starts = Starts(limit)

    async def main() -> None:
        starts.zero = anyio.current_time()
        for _ in range(3):
            await starts.call("x" * 300)
        for _ in range(2):
            await starts.call("")

    limit.configure(max_wait=60)
    testing.run(main, backend=backend)
    assert starts.times == pytest.approx([0, 0, 30, 30, 30])


def test_usage_that_is_known_afterwards_corrects_the_estimate(backend: Any) -> None:
    limit = ag.rate_limit(Rate("600/min", cost=lambda estimate, actual: estimate), max_wait=60)

    @limit
    async def complete(estimate: int, actual: int) -> None:
        ag.current_permit(limit).reconcile(actual)

    async def main() -> None:
        await complete(600, 100)
        assert limit.peek(500) == pytest.approx(0.0)
        await complete(500, 800)
        assert limit.peek(1) == pytest.approx(30.1)

    testing.run(main, backend=backend)


def test_a_block_that_says_its_cost_is_not_asked_what_its_arguments_cost(backend: Any) -> None:
    limit = ag.rate_limit(Rate("600/min", cost=len), max_wait=60)

    async def main() -> None:
        async with limit.permit(cost=500):
            assert limit.peek(200) == pytest.approx(10.0)

    testing.run(main, backend=backend)


def test_the_block_form_takes_and_corrects_a_cost(backend: Any) -> None:
    limit = ag.rate_limit("600/min", max_wait=60)

    async def main() -> None:
        async with limit.permit(cost=500) as permit:
            assert limit.peek(200) == pytest.approx(10.0)
            permit.reconcile(100)
        assert limit.peek(500) == pytest.approx(0.0)
        with limit.permit(cost=500):
            pass
        assert limit.peek(1) > 0

    testing.run(main, backend=backend)


def test_outside_of_a_call_there_is_no_permit_to_correct() -> None:
    with pytest.raises(LookupError, match="no permit of rate_limit is held here"):
        ag.current_permit(ag.rate_limit("1/s"))


def test_a_cost_function_that_fails_fails_the_call_and_takes_nothing(backend: Any) -> None:
    def broken(x: int) -> float:
        raise RuntimeError("no idea")

    limit = ag.rate_limit("9/s", Rate("9/min", cost=broken))

    async def main() -> None:
        with pytest.raises(RuntimeError, match="no idea"):
            await limit(one_argument)(1)
        assert limit.describe() == ["9/s: 9 left, 9/min: 9 left; 0 waiting"]

    testing.run(main, backend=backend)


async def one_argument(x: int) -> None:
    pass


# --- what services say ------------------------------------------------------------------------------------------------


def test_headers_of_a_response_keep_the_next_call_from_a_429(backend: Any) -> None:
    limit = ag.rate_limit("600/min", Rate("60000/min", cost=lambda: 1000), max_wait=60)

    async def main() -> None:
        limit.update_from_headers(
            {
                "x-ratelimit-remaining-requests": "100",
                "x-ratelimit-remaining-tokens": "0",
                "x-ratelimit-reset-tokens": "7s",
            }
        )
        assert limit.peek(1) == pytest.approx(7.0)
        assert limit.describe()[0].startswith("600/min: 100 left")
        limit.update_from_headers({"retry-after": "20"})
        assert limit.peek(1) == pytest.approx(20.0)
        limit.update_from_headers({"x-ratelimit-remaining-requests": "599", "date": "nonsense"})
        assert limit.peek(1) == pytest.approx(20.0)

    testing.run(main, backend=backend)


# --- partitions, modes, the rest --------------------------------------------------------------------------------------


def test_a_key_never_delays_another(backend: Any) -> None:
    limit = ag.rate_limit("1/s", max_wait=60, partition=lambda key: key)
    times: dict[str, float] = {}

    @limit
    async def call(key: str) -> None:
        times[key] = anyio.current_time() - start

    async def main() -> None:
        nonlocal start
        start = anyio.current_time()
        async with anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(call, "a")
            await anyio.sleep(0.5)
            await call("b")
            assert times["b"] == pytest.approx(0.5)
        assert times["a"] == pytest.approx(9.0)

    start = 0.0
    testing.run(main, backend=backend)
    assert limit.peek(partition="a") == 0.0


def test_1100_other_keys_do_not_free_the_one_that_is_limited() -> None:
    limit = ag.rate_limit("1/h", max_wait=0, partition=lambda key: key)
    call = limit(lambda key: None)
    call("limited")
    for key in range(1100):
        call(key)
    with pytest.raises(RateLimitedError) as caught:
        call("limited")
    assert caught.value.partition == "limited"
    assert limit.describe()[-1] == "1101 of 1101 partitions in use"
    assert limit.peek(partition="limited") > 3000


def test_threads_together_never_exceed_the_burst() -> None:
    limit = ag.rate_limit("1/h burst 100", max_wait=0)
    made: list[int] = []
    call = limit(lambda: made.append(1))

    def work() -> None:
        for _ in range(100):
            with contextlib.suppress(RateLimitedError):
                call()

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 100


def test_several_event_loops_share_one_rate() -> None:
    limit = ag.rate_limit("1000/s burst 1", max_wait=30)
    made: list[int] = []

    @limit
    async def call() -> None:
        made.append(1)

    async def many() -> None:
        await asyncio.gather(*[call() for _ in range(25)])

    threads = [threading.Thread(target=lambda: asyncio.run(many())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 75
    assert "; 0 waiting" in limit.describe()[0]


def test_events_tell_who_waited_and_who_was_refused(backend: Any) -> None:
    heard: list[Any] = []
    limit = ag.rate_limit("1/s", max_wait=1, on_event=heard.append)
    call = limit(lambda_async)

    async def main() -> None:
        await call()
        await call()
        async with anyio.create_task_group() as group:
            group.start_soon(call)
            await anyio.sleep(0.5)
            with pytest.raises(RateLimitedError):
                await call()

    testing.run(main, backend=backend)
    assert [type(event) for event in heard] == [CallQueued, CallAdmitted, CallQueued, CallRejected, CallAdmitted]
    assert heard[1].waited == pytest.approx(1.0)
    assert (heard[3].reason, heard[3].retry_after) == ("rate", pytest.approx(1.5))


def test_observing_it_never_makes_anybody_wait(backend: Any) -> None:
    heard: list[Any] = []
    limit = ag.rate_limit("1/s", mode="observe", on_event=heard.append)
    starts = Starts(limit)

    async def main() -> None:
        await starts.many(3)

    testing.run(main, backend=backend)
    assert starts.times == [0, 0, 0]
    assert [type(event) for event in heard] == [CallRejected, CallRejected]
    assert heard[0].observed


def test_rates_change_in_place(backend: Any) -> None:
    limit = ag.rate_limit("1/s burst 1", max_wait=60)
    starts = Starts(limit)

    async def main() -> None:
        starts.zero = anyio.current_time()
        await starts.call()
        await starts.call()
        limit.configure(rates="10/s burst 1")
        for _ in range(3):
            await starts.call()

    testing.run(main, backend=backend)
    assert starts.times == pytest.approx([0, 1, 2, 2.1, 2.2])
    with pytest.raises(ValueError, match="a rate must be like"):
        limit.configure(rates="often")
    assert [str(rate) for rate in limit.options.rates] == ["10/s burst 1"]


def test_it_pickles_as_its_options() -> None:
    limit = ag.rate_limit("10/s", Rate("5/min", cost=len), name="openai")
    copy = pickle.loads(pickle.dumps(limit))
    assert copy.options == limit.options
    assert copy.name == "openai"


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (("often",), {}, ValueError, 'a rate must be like "100/s"'),
        (("0/s",), {}, ValueError, "with numbers greater than 0, got '0/s'"),
        ((100,), {}, TypeError, "a rate must be a text like"),
        (("1/s", None), {}, TypeError, "a rate must be a text like"),
        (("1/s",), {"max_wait": -1}, ValueError, "max_wait must be a duration"),
        (("1/s",), {"max_wait": float("nan")}, ValueError, "max_wait must be a duration"),
        (("1/s",), {"max_wait": True}, ValueError, "max_wait must be a duration"),
        (("1/s",), {"mode": "maybe"}, ValueError, "mode must be one of"),
        (("1/s",), {"partition": 3}, TypeError, "partition must be a callable"),
    ],
)
def test_an_option_out_of_range_is_refused_by_name(
    arguments: tuple[Any, ...], options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        ag.rate_limit(*arguments, **options)


def test_at_least_one_rate_is_needed() -> None:
    with pytest.raises(ValueError, match="at least one rate"):
        ag.rate_limit("1/s").configure(rates=())
    with pytest.raises(TypeError):
        ag.rate_limit()  # type: ignore[call-arg]


def test_max_wait_may_be_a_timedelta() -> None:
    assert ag.rate_limit("1/s", max_wait=timedelta(minutes=1)).options.max_wait == 60.0


HEADERS = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "7s"}


def test_what_a_service_says_needs_its_partition() -> None:
    limit = ag.rate_limit("100/s", name="quota", partition=lambda key: key)
    limit(lambda key: key)("a")
    for ask in (limit.peek, lambda: limit.update_from_headers(HEADERS)):
        with pytest.raises(TypeError, match="quota: every partition has its own rates; say which is meant, partition="):
            ask()
    limit.update_from_headers(HEADERS, partition="a")
    assert limit.peek(partition="a") == pytest.approx(7.0, abs=0.5)
    assert limit.peek(partition=None) == 0.0  # the key of a ContextVar that is not set
    limit.update_from_headers(HEADERS, partition=None)
    assert limit.peek(partition=None) == pytest.approx(7.0, abs=0.5)


def test_it_needs_it_if_the_pipeline_has_the_partitions_too() -> None:
    limit = ag.rate_limit("100/s")
    guarded = ag.guard(limit, partition=lambda key: key)(lambda key: key)
    assert limit.peek() == 0.0
    guarded("a")
    with pytest.raises(TypeError, match="partition="):
        limit.update_from_headers(HEADERS)
    plain = limit(lambda: 1)
    limit.update_from_headers(HEADERS)  # for those without one
    assert limit.peek() == pytest.approx(7.0, abs=0.5)
    assert limit.peek(partition=None) == pytest.approx(7.0, abs=0.5)
    assert limit.peek(partition="a") == 0.0
    assert plain.__asyncguard__

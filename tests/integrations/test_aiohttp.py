"""guard_middleware against a real server on loopback that misbehaves on the wire."""
# ruff: noqa: SIM117 - nested blocks show whose life is longer: server, session, response

from __future__ import annotations

import asyncio
import io
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from asyncguard import (
    BulkheadFullError,
    CallTimeoutError,
    CircuitOpenError,
    RateLimitedError,
    bulkhead,
    circuit_breaker,
    deadline,
    guard,
    hedge,
    monitor,
    rate_limit,
    retry,
    testing,
    timeout,
)
from asyncguard.events import CallFinished, CallTimedOut, RetryScheduled
from asyncguard.integrations.aiohttp import GuardMiddleware, guard_middleware, host_of
from asyncguard.strategies.fallback import fallback
from tests.integrations import wire as wires

wire, reply = wires.wire, wires.reply
QUICK = {"initial_delay": 0.001, "max_delay": 0.002, "budget": None}


def session(middleware: GuardMiddleware, **options: Any) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(middlewares=(middleware,), **options)


def run(main: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(main(), 120))


def run_on_virtual_time(main: Callable[[], Awaitable[None]]) -> None:
    """Time passes only when the wire is quiet, however slow the machine is."""
    with testing.virtual_clock() as clock, asyncio.Runner(loop_factory=lambda: wires.QuietLoop(clock)) as runner:
        runner.run(asyncio.wait_for(main(), 3600))


# --- retry by status --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 529])
def test_a_failing_status_is_retried_before_the_body_is_handed_out(status: int) -> None:
    async def main() -> None:
        async with wire(reply(status, b"no"), reply(200, b"yes")) as server:
            async with session(guard_middleware(retry(**QUICK))) as client, client.get(server.url) as response:
                assert (response.status, await response.text()) == (200, "yes")
            assert len(server.seen) == 2
            assert server.connections == 1  # the body of the failed response was drained, its connection reused

    run(main)


@pytest.mark.parametrize("status", [200, 204, 301, 400, 401, 404, 409, 422])
def test_other_statuses_are_answers(status: int) -> None:
    async def main() -> None:
        async with wire(reply(status, b"")) as server:
            async with session(guard_middleware(retry(**QUICK))) as client:
                async with client.get(server.url, allow_redirects=False) as response:
                    assert response.status == status
            assert len(server.seen) == 1

    run(main)


def test_a_service_that_says_try_again_is_obeyed() -> None:
    async def main() -> None:
        async with wire(reply(409, x_should_retry="true"), reply(503, x_should_retry="false")) as server:
            async with session(guard_middleware(retry(**QUICK))) as client, client.get(server.url) as response:
                assert response.status == 503
            assert len(server.seen) == 2

    run(main)


def test_the_caller_gets_the_last_response_whole() -> None:
    async def main() -> None:
        async with wire(*[reply(503, b"first")] * 2, wires.large(503)) as server:
            async with session(guard_middleware(retry(max_retries=2, **QUICK))) as client:
                async with client.get(server.url) as response:
                    assert response.status == 503
                    assert len(await response.read()) == 4_000_000
            assert len(server.seen) == 3

    run(main)


def test_when_both_copies_of_a_hedged_request_fail_the_caller_gets_a_response_whole() -> None:
    async def main() -> None:
        both = hedge(delay=60, max_extra_load=1.0)  # a failed copy starts the other at once
        async with wire(reply(503, b"first"), reply(503, b"second")) as server:
            async with session(guard_middleware(both)) as client:
                async with client.get(server.url) as response:
                    assert (response.status, await response.text()) == (503, "first")
            assert len(server.seen) == 2

    run(main)


def test_a_retried_hedge_leaves_no_connection_behind() -> None:
    async def main() -> None:
        guards = guard_middleware(retry(max_retries=1, **QUICK), hedge(delay=60, max_extra_load=1.0))
        async with wire(*[wires.large(503)] * 3, reply()) as server:
            connector = aiohttp.TCPConnector(limit=2)  # two copies of one attempt, and none of the attempt before
            async with session(guards, connector=connector) as client:
                async with client.get(server.url) as response:
                    assert response.status == 200
            assert len(server.seen) == 4

    run(main)


def test_raise_for_status_still_raises() -> None:
    async def main() -> None:
        async with wire(reply(503)) as server:
            async with session(guard_middleware(retry(max_retries=1, **QUICK)), raise_for_status=True) as client:
                with pytest.raises(aiohttp.ClientResponseError) as caught:
                    await client.get(server.url)
            assert caught.value.status == 503
            assert len(server.seen) == 2

    run(main)


def test_large_failed_bodies_leave_no_connection_behind() -> None:
    async def main() -> None:
        async with wire(wires.large(503), wires.large(503), reply()) as server:
            connector = aiohttp.TCPConnector(limit=1)  # a leaked connection would block the next attempt for ever
            async with session(guard_middleware(retry(**QUICK)), connector=connector) as client:
                async with client.get(server.url) as response:
                    assert response.status == 200

    run(main)


def test_retry_after_is_obeyed_on_virtual_time() -> None:
    async def main() -> None:
        async with wire(reply(429, retry_after="30"), reply(200)) as server:
            with testing.virtual_clock() as clock, testing.record_events() as events:
                start = clock.now()
                async with session(guard_middleware(retry())) as client, client.get(server.url) as response:
                    assert response.status == 200
                assert clock.now() - start >= 30
            assert [event.kind for event in events.of(RetryScheduled)] == ["throttle"]

    run(main)


def test_retry_after_longer_than_allowed_hands_out_the_429() -> None:
    async def main() -> None:
        async with wire(reply(429, retry_after="300")) as server:
            async with session(guard_middleware(retry(max_retry_after=60))) as client:
                async with client.get(server.url) as response:
                    assert response.status == 429
            assert len(server.seen) == 1

    run(main)


def test_retry_after_ms() -> None:
    async def main() -> None:
        async with wire(reply(503, retry_after_ms="50"), reply(200)) as server:
            start = time.monotonic()
            async with session(guard_middleware(retry(**QUICK))) as client, client.get(server.url) as response:
                assert response.status == 200
            assert time.monotonic() - start >= 0.05

    run(main)


# --- what may be sent again -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "again"),
    [("GET", 2), ("HEAD", 2), ("OPTIONS", 2), ("PUT", 2), ("DELETE", 2), ("POST", 1), ("PATCH", 1)],
)
def test_only_idempotent_methods_are_retried(method: str, again: int) -> None:
    async def main() -> None:
        async with wire(reply(503), reply(200)) as server:
            async with session(guard_middleware(retry(**QUICK))) as client:
                async with client.request(method, server.url) as response:
                    assert response.status == (200 if again == 2 else 503)
            assert len(server.seen) == again

    run(main)


@pytest.mark.parametrize(
    "methods",
    [{"POST"}, ["get", "post"], "Post", lambda request: request.url.path == "/"],
    ids=["names", "small letters", "one name", "function of the request"],
)
def test_other_methods_when_told_so(methods: Any) -> None:
    async def main() -> None:
        async with wire(reply(503), reply(200)) as server:
            async with session(guard_middleware(retry(**QUICK), retry_methods=methods)) as client:
                async with client.post(server.url, json={"a": 1}) as response:
                    assert response.status == 200
            assert [each.body for each in server.seen] == [b'{"a": 1}'] * 2

    run(main)


async def streamed() -> AsyncIterator[bytes]:
    yield b"once"


def form() -> aiohttp.FormData:
    data = aiohttp.FormData()
    data.add_field("file", b"bytes", filename="a.txt")
    return data


class Unseekable(io.BytesIO):
    def seekable(self) -> bool:
        return False


@pytest.mark.parametrize(
    ("make", "again"),
    [
        (lambda: b"bytes", 2),
        (lambda: "text", 2),
        (lambda: {"a": "form"}, 2),
        (form, 2),
        (lambda: io.BytesIO(b"file"), 2),
        (lambda: Unseekable(b"pipe"), 1),
        (streamed, 1),
    ],
    ids=["bytes", "text", "form", "multipart", "file", "pipe", "stream"],
)
def test_a_body_that_cannot_be_sent_twice_is_sent_once(make: Callable[[], Any], again: int) -> None:
    async def main() -> None:
        async with wire(reply(503), reply(200)) as server:
            async with session(guard_middleware(retry(**QUICK))) as client:
                async with client.put(server.url, data=make()) as response:
                    assert response.status == (200 if again == 2 else 503)
            assert len(server.seen) == again
            assert all(each.body for each in server.seen)
            assert len({len(each.body) for each in server.seen}) == 1

    run(main)


# --- faults on the wire -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["reset", "hang_up"])
def test_a_broken_connection_is_retried(fault: str) -> None:
    async def main() -> None:
        async with wire(getattr(wires, fault), reply(200)) as server:
            async with session(guard_middleware(retry(**QUICK))) as client, client.get(server.url) as response:
                assert await response.text() == "fine"

    run(main)


def test_a_broken_connection_of_a_post_is_not() -> None:
    async def main() -> None:
        async with wire(wires.reset, reply(200)) as server:
            async with session(guard_middleware(retry(**QUICK))) as client:
                with pytest.raises(aiohttp.ClientConnectionError):
                    await client.post(server.url, data=b"x")
            assert len(server.seen) == 1

    run(main)


def test_a_silent_server_is_cut_per_attempt_and_tried_again() -> None:
    async def main() -> None:
        async with wire(wires.silent, reply(200)) as server:
            patient = retry(max_retries=50, **QUICK)
            guarded = guard_middleware(timeout(60), patient, timeout(0.1, scope="attempt"))
            async with session(guarded) as client, client.get(server.url) as response:
                assert await response.text() == "fine"
            assert len(server.seen) >= 2  # more where the machine stood still

    run(main)


def test_a_truncated_body_reaches_whoever_reads_it() -> None:
    async def main() -> None:
        gate = bulkhead(1)
        async with wire(wires.truncated) as server, session(guard_middleware(timeout(60), gate)) as client:
            async with client.get(server.url) as response:
                with pytest.raises(aiohttp.ClientPayloadError):
                    await response.read()
            assert all(each.idle() for each in gate.gates())

    run(main)


@pytest.mark.parametrize("fault", ["stalled", "drip"])
def test_the_deadline_of_the_call_binds_the_body(fault: str) -> None:
    async def main() -> None:
        gate = bulkhead(1)
        with testing.record_events() as events:
            async with wire(getattr(wires, fault)) as server, session(guard_middleware(timeout(0.2), gate)) as client:
                async with client.get(server.url) as response:
                    with pytest.raises(
                        CallTimeoutError, match=r"aiohttp did not finish its body within 0\.2 s"
                    ) as caught:
                        await response.read()
                assert caught.value.seconds == 0.2
                assert all(each.idle() for each in gate.gates())
        assert len(events.of(CallTimedOut)) == 1

    run_on_virtual_time(main)


def test_the_deadline_binds_a_body_that_is_read_in_pieces() -> None:
    async def main() -> None:
        pieces: list[bytes] = []
        async with wire(wires.drip) as server, session(guard_middleware(timeout(0.2))) as client:
            while not pieces:  # on real time, and the machine may stand still before the answer begins
                with pytest.raises(CallTimeoutError):
                    async with client.get(server.url) as response:
                        async for piece in response.content.iter_any():
                            pieces.append(piece)

    run(main)


def test_an_attempt_has_to_answer_in_time_the_body_has_until_the_end_of_the_call() -> None:
    async def main() -> None:
        async with wire(wires.drip) as server:
            guarded = guard_middleware(timeout(0.3), retry(**QUICK), timeout(0.1, scope="attempt"))
            async with session(guarded) as client, client.get(server.url) as response:
                start = asyncio.get_running_loop().time()
                with pytest.raises(CallTimeoutError, match=r"0\.3 s"):
                    await response.read()
                assert asyncio.get_running_loop().time() - start == pytest.approx(0.3)
            assert len(server.seen) == 1  # a body that was handed out is not fetched again

    run_on_virtual_time(main)


def test_a_deadline_around_the_call_binds_it_too() -> None:
    async def main() -> None:
        async with wire(wires.drip) as server, session(guard_middleware(timeout(30))) as client:
            with pytest.raises(CallTimeoutError), deadline(0.2):
                async with client.get(server.url) as response:
                    await response.read()

    run(main)


def test_a_body_that_is_read_in_time_leaves_no_timer() -> None:
    async def main() -> None:
        async with wire(wires.large()) as server, session(guard_middleware(timeout(0.2))) as client:
            async with client.get(server.url) as response:
                assert len(await response.read()) == 4_000_000
            with testing.record_events() as events:
                await asyncio.sleep(0.3)  # past the deadline: nothing may fire any more
            assert events == []

    run_on_virtual_time(main)


# --- permits ----------------------------------------------------------------------------------------------------------


def test_permits_are_held_until_the_body_is_read() -> None:
    async def main() -> None:
        gate = bulkhead(1, max_queue=0)
        async with wire(wires.large(), reply()) as server, session(guard_middleware(gate)) as client:
            async with client.get(server.url) as response:
                with pytest.raises(BulkheadFullError):
                    await client.get(server.url)
                await response.read()
                async with client.get(server.url) as second:
                    assert second.status == 200

    run(main)


@pytest.mark.parametrize("end", ["release", "close"])
def test_permits_are_given_back_when_the_response_is_closed_unread(end: str) -> None:
    async def main() -> None:
        gate = bulkhead(1, max_queue=0)
        async with wire(wires.large(), reply()) as server, session(guard_middleware(gate)) as client:
            response = await client.get(server.url)
            getattr(response, end)()
            async with client.get(server.url) as second:
                assert second.status == 200

    run(main)


def test_permits_are_given_back_when_the_caller_is_cancelled() -> None:
    async def main() -> None:
        gate = bulkhead(1, max_queue=0)
        async with wire(wires.silent, wires.stalled, reply()) as server, session(guard_middleware(gate)) as client:
            for number in range(2):
                task = asyncio.ensure_future(_read(client, server.url))
                while len(server.seen) == number:  # noqa: ASYNC110 - the server sets no event
                    await asyncio.sleep(0.001)
                await asyncio.sleep(0.05)  # time for the half of the body that comes
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            assert await _read(client, server.url) == b"fine"

    run(main)


async def _read(client: aiohttp.ClientSession, url: str) -> bytes:
    async with client.get(url) as response:
        return await response.read()


def test_a_retry_does_not_keep_the_permit_of_the_failed_attempt() -> None:
    async def main() -> None:
        gate = bulkhead(1, max_queue=0)
        async with wire(wires.large(503), reply()) as server:
            async with session(guard_middleware(retry(**QUICK), gate)) as client:
                assert await _read(client, server.url) == b"fine"
            assert all(each.idle() for each in gate.gates())

    run(main)


# --- partitions and other strategies ----------------------------------------------------------------------------------


def test_one_circuit_per_host() -> None:
    async def main() -> None:
        breaker = circuit_breaker(minimum_calls=2, failure_rate=0.5)
        async with wire(reply(503)) as bad, wire(reply(200)) as good:
            async with session(guard_middleware(breaker)) as client:
                for _ in range(2):
                    async with client.get(bad.url) as response:
                        assert response.status == 503
                with pytest.raises(CircuitOpenError, match=r"\[127\.0\.0\.1:.*last HTTP503"):
                    await client.get(bad.url)
                async with client.get(good.url) as response:
                    assert response.status == 200
            assert len(bad.seen) == 2

    run(main)


def test_one_circuit_for_all_when_told_so() -> None:
    async def main() -> None:
        breaker = circuit_breaker(minimum_calls=2)
        async with wire(reply(503)) as bad, wire(reply(200)) as good:
            async with session(guard_middleware(breaker, partition=None)) as client:
                for _ in range(2):
                    (await client.get(bad.url)).release()
                with pytest.raises(CircuitOpenError):
                    await client.get(good.url)

    run(main)


def test_a_client_error_does_not_open_the_circuit() -> None:
    async def main() -> None:
        breaker = circuit_breaker(minimum_calls=2)
        async with wire(*[reply(429)] * 3, *[reply(404)] * 3, reply(200)) as server:
            async with session(guard_middleware(breaker)) as client:
                statuses = [(await client.get(server.url)).status for _ in range(7)]
            assert statuses == [429] * 3 + [404] * 3 + [200]

    run(main)


def test_what_a_response_says_is_left_reaches_the_rate_limit() -> None:
    async def main() -> None:
        limit = rate_limit("100/s burst 100", max_wait=0.0)
        headers = {"x_ratelimit_remaining_requests": "0", "x_ratelimit_reset_requests": "60s"}
        async with wire(reply(200, **headers)) as server, session(guard_middleware(limit)) as client:
            assert await _read(client, server.url) == b"fine"
            with pytest.raises(RateLimitedError):
                await client.get(server.url)
            assert len(server.seen) == 1

    run(main)


def test_a_pipeline_in_the_canonical_order() -> None:
    async def main() -> None:
        pipeline = guard(bulkhead(4), retry(**QUICK), timeout(60), name="search")
        middleware = guard_middleware(pipeline)
        assert [each.kind for each in middleware.pipeline] == ["timeout", "retry", "bulkhead"]
        async with wire(reply(503), reply(200)) as server, session(middleware) as client:
            with testing.record_events() as events:
                assert await _read(client, server.url) == b"fine"
            assert {event.pipeline for event in events} == {"search"}
            assert {event.partition for event in events} == {server.url.removeprefix("http://").strip("/")}

    run(main)


def test_a_pipeline_beside_other_strategies_is_refused() -> None:
    with pytest.raises(TypeError, match="strategies or one pipeline"):
        guard_middleware(guard(retry()), timeout(1))


def test_a_fallback_answers_with_what_it_has() -> None:
    async def main() -> None:
        async with wire(reply(503), reply(200, b"other")) as server:
            spare = server.url + "spare"

            async def elsewhere(error: Exception, request: aiohttp.ClientRequest) -> aiohttp.ClientResponse:
                return await client.get(spare, middlewares=())

            async with session(guard_middleware(fallback(elsewhere))) as client:
                assert await _read(client, server.url) == b"other"

    run(main)


def test_redirects_are_requests_of_their_own() -> None:
    async def main() -> None:
        async with wire(reply(302, b"", location="/there"), reply(503), reply(200, b"there")) as server:
            async with session(guard_middleware(retry(**QUICK), bulkhead(1, max_queue=0))) as client:
                assert await _read(client, server.url) == b"there"
            assert [each.path for each in server.seen] == ["/", "/there", "/there"]

    run(main)


def test_a_web_socket_outlives_the_deadline_and_holds_no_permit() -> None:
    async def echo(request: web.BaseRequest) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(message.data)
        return socket

    async def main() -> None:
        gate = bulkhead(1, max_queue=0)
        server = await asyncio.get_running_loop().create_server(web.Server(echo), "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        async with session(guard_middleware(timeout(0.1), gate)) as client, client.ws_connect(url) as socket:
            assert all(each.idle() for each in gate.gates())
            await asyncio.sleep(0.15)
            await socket.send_str("still there")
            assert await socket.receive_str(timeout=60) == "still there"
        server.close()

    run_on_virtual_time(main)


def test_a_monitored_call_lasts_until_its_body_is_read() -> None:
    async def main() -> None:
        async with wire(reply(503), wires.large(), reply(404)) as server:
            with testing.record_events() as events:
                async with session(guard_middleware(monitor(), timeout(60), retry(**QUICK))) as client:
                    async with client.get(server.url) as response:
                        assert events.of(CallFinished) == []
                        await response.read()
                    (await client.get(server.url)).release()
            finished = [(event.outcome, event.attempts) for event in events.of(CallFinished)]
            assert finished == [("ok", 2), ("ok", 1)]

    run(main)


def test_many_requests_at_once_share_the_permits() -> None:
    async def main() -> None:
        async with wire(reply()) as server:
            async with session(guard_middleware(timeout(60), retry(), bulkhead(4, max_queue=100))) as client:
                bodies = await asyncio.gather(*[_read(client, server.url) for _ in range(50)])
            assert bodies == [b"fine"] * 50
            assert server.connections <= 4

    run(main)


def test_the_response_is_aiohttps_own() -> None:
    async def main() -> None:
        async with wire(reply()) as server, session(guard_middleware(timeout(60), bulkhead(1))) as client:
            async with client.get(server.url) as response:
                assert type(response) is aiohttp.ClientResponse

    run(main)


def test_hosts_by_name_and_port() -> None:
    class Request:
        def __init__(self, url: str) -> None:
            self.url = aiohttp.client.URL(url)

    assert host_of(Request("https://user:secret@example.org/a")) == "example.org"  # type: ignore[arg-type]
    assert host_of(Request("http://example.org:8080/a")) == "example.org:8080"  # type: ignore[arg-type]


def test_importing_the_integration_does_not_load_aiohttp() -> None:
    code = "import sys, asyncguard.integrations.aiohttp; assert 'aiohttp' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)

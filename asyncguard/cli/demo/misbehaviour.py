"""How each fault looks on the wire. Faults that need no vector cost the model nothing."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import numpy as np
    import numpy.typing as npt

RETRY_AFTER = 1  # seconds; whole, as HTTP wants it
LONGEST = 12.0  # seconds that a stall or a drip lasts if nobody gives up
DRIPS = 40


async def too_many(_request: web.Request, _stopping: asyncio.Event) -> web.StreamResponse:
    """429: come back in a second."""
    body = {"error": {"type": "rate_limit_exceeded", "message": "too many requests"}}
    return web.json_response(body, status=429, headers={"Retry-After": str(RETRY_AFTER)})


async def unavailable(_request: web.Request, _stopping: asyncio.Event) -> web.StreamResponse:
    """503: no word on when."""
    return web.json_response({"error": {"type": "overloaded", "message": "try again later"}}, status=503)


async def reset(request: web.Request, _stopping: asyncio.Event) -> web.StreamResponse:
    """A TCP reset instead of an answer."""
    transport = request.transport
    if transport is not None:
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    return web.Response(status=500)  # nobody sees it


async def stall(request: web.Request, stopping: asyncio.Event) -> web.StreamResponse:
    """Take the request and say nothing, then hang up."""
    await _pause(stopping, LONGEST)
    return await reset(request, stopping)


async def truncated(_request: web.Request, _stopping: asyncio.Event) -> web.StreamResponse:
    """Status 200, a length that is right, and half a JSON document."""
    body = '{"object": "list", "model": "all-MiniLM-L6-v2-int8", "data": [{"object": "embedding", "embedd'
    return web.Response(text=body, content_type="application/json")


async def drip(request: web.Request, body: str, stopping: asyncio.Event) -> web.StreamResponse:
    """A good answer, a few bytes at a time: each read is quick, so only a deadline over the whole call helps."""
    data = body.encode()
    size = -(-len(data) // DRIPS)
    response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": str(len(data))})
    with contextlib.suppress(ConnectionError):  # they gave up; who would not
        await response.prepare(request)
        for at in range(0, len(data), size):
            await response.write(data[at : at + size])
            await _pause(stopping, LONGEST / DRIPS)
        await response.write_eof()
    return response


async def _pause(stopping: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stopping.wait(), seconds)


def poisoned(vectors: list[npt.NDArray[np.float32]]) -> list[npt.NDArray[np.float32]]:
    """Copies, one number of the first one not a number."""
    first = vectors[0].copy()
    first[len(first) // 2] = float("nan")
    return [first, *vectors[1:]]


WITHOUT_VECTORS: dict[str | None, Callable[[web.Request, asyncio.Event], Awaitable[web.StreamResponse]]] = {
    "429": too_many,
    "503": unavailable,
    "reset": reset,
    "stall": stall,
    "truncated": truncated,
    "outage": unavailable,
}

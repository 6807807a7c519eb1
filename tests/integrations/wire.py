"""A server on loopback that answers as it is told: statuses, resets, stalls, drips and truncated bodies."""

from __future__ import annotations

import asyncio
import contextlib
import selectors
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from asyncguard import testing

QUIET = 0.02  # seconds
Act = Callable[["Exchange"], Awaitable[None]]


@dataclass
class Exchange:
    """One request and where its answer goes."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    writer: asyncio.StreamWriter

    def head(self, status: int, length: int, headers: dict[str, str] | None = None) -> None:
        lines = [f"HTTP/1.1 {status} Said", f"Content-Length: {length}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        self.writer.write("\r\n".join([*lines, "", ""]).encode())


@dataclass
class Wire:
    """The server: `acts` answer one request each, in order; the last one answers all that follow."""

    acts: list[Act]
    url: str = ""
    seen: list[Exchange] = field(default_factory=list)
    connections: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while not writer.is_closing():
                exchange = await read_request(reader, writer)
                self.seen.append(exchange)
                await self.acts[min(len(self.seen), len(self.acts)) - 1](exchange)
                await writer.drain()
        writer.close()


async def read_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Exchange:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    method, path, _ = head[0].split(" ")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    if headers.get("transfer-encoding") == "chunked":
        while size := int(await reader.readline(), 16):
            body += await reader.readexactly(size)
            await reader.readline()
        await reader.readline()
    return Exchange(method, path, headers, body, writer)


@contextlib.asynccontextmanager
async def wire(*acts: Act) -> AsyncIterator[Wire]:
    told = Wire(list(acts))
    server = await asyncio.start_server(told.serve, "127.0.0.1", 0)
    told.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    try:
        yield told
    finally:
        server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            if "Wire.serve" in repr(task.get_coro()):
                task.cancel()
                await asyncio.wait([task])


class QuietSelector(testing._JumpingSelector):
    """Before the clock jumps, nothing may have come over the wire for a moment of real time."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = selectors.DefaultSelector.select(self, QUIET) if timeout is not None and timeout > 0 else []
        return ready or super().select(timeout)


class QuietLoop(testing.VirtualLoop):
    """A loop on virtual time whose client and server may talk over real sockets."""

    def __init__(self, clock: testing.VirtualClock) -> None:
        asyncio.SelectorEventLoop.__init__(self, QuietSelector(clock))
        self.virtual: Any = clock
        self._clock_resolution = 1e-9


def reply(status: int = 200, body: bytes = b"fine", **headers: str) -> Act:
    """A whole answer; `retry_after="1"` is the header retry-after."""

    async def act(exchange: Exchange) -> None:
        exchange.head(status, len(body), {name.replace("_", "-"): value for name, value in headers.items()})
        if exchange.method != "HEAD":
            exchange.writer.write(body)

    return act


async def reset(exchange: Exchange) -> None:
    """RST instead of an answer."""
    raw = exchange.writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    exchange.writer.transport.abort()


async def hang_up(exchange: Exchange) -> None:
    """FIN instead of an answer."""
    exchange.writer.close()


async def truncated(exchange: Exchange) -> None:
    """Half of the body, then the end."""
    exchange.head(200, 1000)
    exchange.writer.write(b"x" * 500)
    await exchange.writer.drain()
    exchange.writer.close()


async def silent(exchange: Exchange) -> None:
    """Nothing, for ever."""
    await asyncio.Event().wait()


async def stalled(exchange: Exchange) -> None:
    """Half of the body, then nothing for ever."""
    exchange.head(200, 1000)
    exchange.writer.write(b"x" * 500)
    await exchange.writer.drain()
    await asyncio.Event().wait()


async def drip(exchange: Exchange) -> None:
    """A body of ten seconds, a byte at a time: no timeout per read ever fires."""
    exchange.head(200, 1000)
    for _ in range(1000):
        exchange.writer.write(b"x")
        await exchange.writer.drain()
        await asyncio.sleep(0.01)


def large(status: int = 200, size: int = 4_000_000) -> Act:
    """A body that does not fit into the buffers, so that it ends only when it is read."""

    async def act(exchange: Exchange) -> None:
        exchange.head(status, size)
        exchange.writer.write(b"x" * size)

    return act

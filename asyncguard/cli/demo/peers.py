"""The job as one would write it today in ten minutes: stamina's retry, a semaphore, aiohttp's and asyncpg's timeouts.

It is written to be good: what these libraries offer out of the box is used, nothing more is built by hand.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import aiohttp
import asyncpg
import stamina

from asyncguard.cli.demo.bare import INSERT, Bare, rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncguard.cli.demo.corpus import Document
    from asyncguard.cli.demo.pipeline import Vectors

REQUEST_TIMEOUT = aiohttp.ClientTimeout(total=3)
HTTP_ERRORS = (aiohttp.ClientError, TimeoutError)
DATABASE_ERRORS = (asyncpg.PostgresConnectionError, asyncpg.InterfaceError, TimeoutError)


class Stamina(Bare):
    """The bare functions, retried, with a bound on concurrency and on the time of each request."""

    def __init__(self, http: aiohttp.ClientSession, url: str, pool: asyncpg.Pool[Any]) -> None:
        super().__init__(http, url, pool)
        self.slots = asyncio.Semaphore(4)

    @stamina.retry(on=HTTP_ERRORS, attempts=6, timeout=30)
    async def embed(self, texts: list[str]) -> Vectors:
        """As the bare one, four at a time, three seconds each."""
        url, asked = f"{self.url}/v1/embeddings", {"input": texts, "encoding_format": "base64"}
        async with self.slots, self.http.post(url, json=asked, timeout=REQUEST_TIMEOUT) as response:
            response.raise_for_status()
            return rows((await response.json())["data"])

    @stamina.retry(on=DATABASE_ERRORS, attempts=6, timeout=30)
    async def store(self, documents: Sequence[Document], vectors: Vectors) -> None:
        """As the bare one, with asyncpg's own timeouts."""
        written = [(one.number, one.title, one.text, row) for one, row in zip(documents, vectors, strict=True)]
        async with self.pool.acquire(timeout=1) as connection:
            await connection.executemany(INSERT, written, timeout=1)

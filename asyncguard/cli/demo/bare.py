"""The job without any protection: what is left when the decorators of guarded.py are taken away."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import numpy as np

from asyncguard.cli.demo.pipeline import Answer, Hit

if TYPE_CHECKING:
    from collections.abc import Sequence

    import aiohttp
    import asyncpg

    from asyncguard.cli.demo.corpus import Document
    from asyncguard.cli.demo.pipeline import Vectors

INSERT = """
insert into documents (id, title, body, embedding) values ($1, $2, $3, $4)
on conflict (id) do update set embedding = excluded.embedding
"""
NEAREST = "select id, title, 1 - (embedding <=> $1) as score from documents order by embedding <=> $1, id limit 10"


class Bare:
    """Plain functions over plain clients."""

    def __init__(self, http: aiohttp.ClientSession, url: str, pool: asyncpg.Pool[Any]) -> None:
        self.http = http
        self.url = url
        self.pool = pool

    async def embed(self, texts: list[str]) -> Vectors:
        """Vectors of shape (len(texts), 384)."""
        asked = {"input": texts, "encoding_format": "base64"}
        async with self.http.post(f"{self.url}/v1/embeddings", json=asked) as response:
            response.raise_for_status()
            return rows((await response.json())["data"])

    async def store(self, documents: Sequence[Document], vectors: Vectors) -> None:
        """One transaction for the batch."""
        written = [(one.number, one.title, one.text, row) for one, row in zip(documents, vectors, strict=True)]
        async with self.pool.acquire() as connection:
            await connection.executemany(INSERT, written)

    async def answer(self, question: str) -> Answer:
        """Embed the question and look."""
        vector = (await self.embed([question]))[0]
        found = await self.pool.fetch(NEAREST, vector)
        return Answer(question, [Hit(row["id"], row["title"], row["score"]) for row in found])


def rows(data: list[dict[str, Any]]) -> Vectors:
    """Decode the response's base64 float32."""
    return np.stack([np.frombuffer(base64.b64decode(item["embedding"]), dtype="<f4") for item in data])

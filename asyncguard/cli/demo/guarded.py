"""The job as you would write it with asyncguard: this is the file to copy from.

Three functions say what they do. What may go wrong is said above them, in one place each, and `guard` puts the
strategies into the order in which they do no harm: `print(pipeline_of(Guarded.embed).explain())` says which, and why.
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from annotated_types import Len

from asyncguard import (
    TRANSIENT,
    Array,
    InputValidationError,
    bulkhead,
    cache_items,
    cache_result,
    circuit_breaker,
    fallback,
    guard,
    memory_guard,
    monitor,
    rate_limit,
    retry,
    timeout,
    validate_input,
)
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
BY_WORDS = """
select id, title, ts_rank(to_tsvector('english', body), query) as score
from documents, to_tsquery('english', $1) as query order by score desc, id limit 10
"""


def worth_repeating(error: Exception) -> bool:
    """What may pass by itself, and answers that are broken: half a JSON document, vectors that are not finite."""
    return TRANSIENT(error) or isinstance(error, (InputValidationError, json.JSONDecodeError))


embedding_service = guard(
    monitor("demo.embed"),
    validate_input(texts=Annotated[list[str], Len(1, 64)]),
    cache_items(3600, over="texts", max_entries=20_000),
    timeout(120),  # a batch job has time; a question brings its own, shorter deadline
    retry(on=worth_repeating, max_retries=None, max_delay=3, retry_rejected=True),
    circuit_breaker(window=20, minimum_calls=10, open_for=1.0, max_open_for=4.0),
    bulkhead(4, max_wait=30),
    memory_guard(limit=2**30, initial_estimate=2**20),
    rate_limit("12/s burst 4"),
    timeout(2.5, scope="attempt"),
)

database = guard(
    monitor("demo.store"),
    timeout(30),
    retry(),
    bulkhead(4, max_wait=20),
    timeout(0.8, scope="attempt"),
)


@validate_input(returns=Array(("batch", 384), "float32", finite=True))
def vectors_in(answer: dict[str, Any]) -> Vectors:
    """Decode the rows of an embeddings response; a NaN among them is an error here, inside of the retry."""
    return np.stack([np.frombuffer(base64.b64decode(item["embedding"]), dtype="<f4") for item in answer["data"]])


async def by_words(_error: Exception, job: Guarded, question: str) -> Answer:
    """A poorer answer is better than none: PostgreSQL's text search needs no embedding."""
    words = " | ".join(word for word in question.replace("?", "").split() if word.isalnum())
    found = await job.pool.fetch(BY_WORDS, words)
    return Answer(question, [Hit(row["id"], row["title"], row["score"]) for row in found], degraded=True)


class Guarded:
    """Plain functions over plain clients, and what protects them."""

    def __init__(self, http: aiohttp.ClientSession, url: str, pool: asyncpg.Pool[Any]) -> None:
        self.http = http
        self.url = url
        self.pool = pool

    @embedding_service
    async def embed(self, texts: list[str]) -> Vectors:
        """Vectors of shape (len(texts), 384)."""
        asked = {"input": texts, "encoding_format": "base64"}
        async with self.http.post(f"{self.url}/v1/embeddings", json=asked) as response:
            response.raise_for_status()
            return vectors_in(await response.json())

    @database
    async def store(self, documents: Sequence[Document], vectors: Vectors) -> None:
        """One transaction for the batch; doing it twice changes nothing, so it may be repeated."""
        written = [(one.number, one.title, one.text, row) for one, row in zip(documents, vectors, strict=True)]
        async with self.pool.acquire() as connection:
            await connection.executemany(INSERT, written)

    @guard(monitor("demo.answer"), fallback(by_words), cache_result(2.0), timeout(2))
    async def answer(self, question: str) -> Answer:
        """Embed the question and look; a user waits two seconds at most."""
        vector = (await self.embed([question]))[0]
        found = await self.pool.fetch(NEAREST, vector)
        return Answer(question, [Hit(row["id"], row["title"], row["score"]) for row in found])

"""Was the job done right? Judged from outside, against the service's own clean vectors and PostgreSQL itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from asyncguard.cli.demo.bare import NEAREST, rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    import aiohttp
    import asyncpg

    from asyncguard.cli.demo.corpus import Document
    from asyncguard.cli.demo.pipeline import Vectors

QUERIES = 100
NEIGHBOURS = 10
TIE = 1e-5  # cosine; PostgreSQL adds up in float32, and equal texts are equally near


@dataclass(frozen=True, slots=True)
class Verdict:
    """`lost` documents have no row, `wrong` ones a row whose vector is not bit for bit the service's own."""

    documents: int
    stored: int
    lost: list[int]
    wrong: list[int]
    recall: float

    @property
    def perfect(self) -> bool:
        """Nothing lost, nothing wrong, everything found."""
        return not self.lost and not self.wrong and self.recall == 1.0


async def judge(
    http: aiohttp.ClientSession, url: str, pool: asyncpg.Pool[Any], documents: Sequence[Document]
) -> Verdict:
    """Compare what is stored with what is true, and search with some of the documents' own vectors."""
    clean = await truth(http, url, [document.text for document in documents])
    stored = {row["id"]: row["embedding"] for row in await pool.fetch("select id, embedding from documents")}
    lost = [one.number for one in documents if one.number not in stored]
    wrong = [one for one in stored if not np.array_equal(stored[one], clean[one])]
    return Verdict(len(documents), len(stored), lost, wrong, await _recall(pool, clean))


async def truth(http: aiohttp.ClientSession, url: str, texts: list[str]) -> Vectors:
    """The clean vectors; the service computes only those it has never been asked for."""
    async with http.post(f"{url}/clean", json={"input": texts}) as response:
        response.raise_for_status()
        return rows((await response.json())["data"])


async def _recall(pool: asyncpg.Pool[Any], clean: Vectors) -> float:
    queries = range(0, len(clean), max(1, len(clean) // QUERIES))
    found = [await _found(pool, clean, clean[query]) for query in queries]
    return float(np.mean(found))


async def _found(pool: asyncpg.Pool[Any], clean: Vectors, query: Vectors) -> float:
    """The share of the ten nearest that PostgreSQL found; documents that are equally near may stand for each other."""
    near = clean.astype(np.float64) @ query.astype(np.float64)
    expected = min(NEIGHBOURS, len(clean))
    worst = float(np.sort(near)[-expected]) - TIE
    found = [float(near[row["id"]]) for row in await pool.fetch(NEAREST, query)]
    return sum(similarity >= worst for similarity in found) / expected

"""The three functions that the job is made of, as every variant (bare, stamina, guarded) has them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

    import aiohttp
    import asyncpg
    import numpy as np
    import numpy.typing as npt

    from asyncguard.cli.demo.corpus import Document

    Vectors: TypeAlias = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Hit:
    """A document that was found. `score` is the cosine similarity, or the text rank of a degraded answer."""

    number: int
    title: str
    score: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What was found for a question; `degraded` if by words because the embedding service was out of reach."""

    question: str
    hits: list[Hit]
    degraded: bool = False


class Variant(Protocol):
    """One way to write the job."""

    def __init__(self, http: aiohttp.ClientSession, url: str, pool: asyncpg.Pool[Any]) -> None:
        """Over clients that the caller opens and closes."""

    async def embed(self, texts: list[str]) -> Vectors:
        """Vectors of shape (len(texts), 384), float32."""
        ...

    async def store(self, documents: Sequence[Document], vectors: Vectors) -> None:
        """Write rows; writing the same ones again changes nothing."""

    async def answer(self, question: str) -> Answer:
        """The ten nearest documents."""
        ...

"""Functions with names that every process knows, to be cached in stores by tests."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pydantic

calls: list[object] = []
gate: asyncio.Event | None = None


class Answer(pydantic.BaseModel):
    text: str
    score: float


class Client:
    def __init__(self, model: str) -> None:
        self.model = model

    async def ask(self, text: str) -> str:
        calls.append((self.model, text))
        return f"{self.model}: {text}"


class KeyedClient(Client):
    def __cache_key__(self) -> str:
        return self.model


async def embed(text: str, scale: float = 1.0) -> list[float]:
    calls.append(text)
    if gate is not None:
        await gate.wait()
    return [len(text) * scale]


async def answer(text: str) -> Answer:
    calls.append(text)
    return Answer(text=text, score=0.5)


async def vector(array: np.ndarray) -> np.ndarray:
    calls.append(array.shape)
    return array * 2


async def nothing(text: str) -> None:
    calls.append(text)


async def failing(text: str) -> str:
    calls.append(text)
    raise LookupError(text)


async def lock(text: str) -> threading.Lock:
    calls.append(text)
    return threading.Lock()


async def lengths(texts: list[str]) -> list[int]:
    calls.append(list(texts))
    return [len(text) for text in texts]


async def rows(texts: list[str]) -> np.ndarray:
    calls.append(list(texts))
    return np.array([[len(text), 1] for text in texts], dtype="f4")


async def answers(texts: tuple[str, ...]) -> tuple[Answer, ...]:
    calls.append(list(texts))
    return tuple(Answer(text=text, score=1.0) for text in texts)


def plain(text: str) -> int:
    return len(text)


async def slow_lengths(texts: list[str]) -> list[int]:
    calls.append(list(texts))
    await asyncio.sleep(0.2)
    return [len(text) for text in texts]


async def scaled(texts: list[str], scale: int = 1) -> list[int]:
    calls.append(list(texts))
    return [scale * len(text) for text in texts]


async def picky(texts: list[str]) -> list[int]:
    calls.append(list(texts))
    if "bad" in texts:
        raise ValueError("bad")
    return [len(text) for text in texts]


async def slow(text: str) -> str:
    calls.append(text)
    await asyncio.sleep(0.3)
    return text.upper()

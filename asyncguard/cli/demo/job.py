"""The job: embed every batch and store it, with a few workers. The same loop drives every variant.

A rejection (circuit open, rate, memory: the call was not made) is no failure of the batch: the batch goes back to the
front and the worker pauses for as long as the rejection says. Everything else that leaves the functions is a failure
of the batch. (This is the small form of what a batch helper of the library does.)
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from asyncguard.errors import RejectedError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asyncguard.cli.demo.corpus import Document
    from asyncguard.cli.demo.journal import Journal
    from asyncguard.cli.demo.pipeline import Variant

    Batch = list[Document]

BATCH = 8  # documents
WORKERS = 8
PATIENCE = 90.0  # seconds of pausing in a row, without one success, before a rejection counts as a failure


@dataclass(frozen=True, slots=True)
class Failure:
    """A batch that was given up, and why."""

    batch: Batch
    error: Exception


@dataclass(slots=True)
class Job:
    """What is to do, and what was done."""

    variant: Variant
    journal: Journal
    waiting: deque[Batch]
    stored: int = 0
    paused: float = 0.0  # since the last success
    failures: list[Failure] = field(default_factory=list[Failure])

    async def run(self) -> None:
        """Until nothing is waiting. Cancelling it cancels the workers."""
        async with asyncio.TaskGroup() as workers:
            for number in range(WORKERS):
                workers.create_task(self._work(), name=f"worker {number}")

    async def _work(self) -> None:
        while self.waiting:
            batch = self.waiting.popleft()
            try:
                await self._one(batch)
            except RejectedError as rejection:
                await self._pause(batch, rejection)
            except Exception as error:  # noqa: BLE001 - one bad batch does not stop the job
                self.failures.append(Failure(batch, error))

    async def _one(self, batch: Batch) -> None:
        with self.journal.call(name_of(batch)):
            vectors = await self.variant.embed([document.text for document in batch])
            await self.variant.store(batch, vectors)
        self.stored += len(batch)
        self.paused = 0.0

    async def _pause(self, batch: Batch, rejection: RejectedError) -> None:
        seconds = rejection.retry_after or 0.5
        if self.paused > PATIENCE:
            self.failures.append(Failure(batch, rejection))
            return
        self.waiting.appendleft(batch)
        self.paused += seconds / WORKERS
        self.journal.pauses.append((self.journal.now(), seconds, type(rejection).__name__))
        await asyncio.sleep(seconds)


def name_of(batch: Batch) -> str:
    """What the reports call it."""
    return f"documents {batch[0].number} to {batch[-1].number}"


def batches(documents: Iterable[Document]) -> list[Batch]:
    """Cut into batches, in order."""
    listed = list(documents)
    return [listed[at : at + BATCH] for at in range(0, len(listed), BATCH)]

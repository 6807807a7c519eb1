"""Users who ask questions while the documents come in: one question a second time soon after the first, as people do.

They are why a circuit that is open must still answer: `fallback` gives them a search by words.
"""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from asyncguard.cli.demo.corpus import QUESTIONS
from asyncguard.cli.demo.pipeline import Answer

if TYPE_CHECKING:
    from asyncguard.cli.demo.journal import Journal
    from asyncguard.cli.demo.pipeline import Variant

EVERY = 0.25  # seconds between two questions
ASKED = 2  # times each


@dataclass(slots=True)
class Users:
    """What they asked and got."""

    variant: Variant
    journal: Journal
    answers: list[Answer] = field(default_factory=list[Answer])
    errors: list[Exception] = field(default_factory=list[Exception])
    leaving: bool = False

    @property
    def asked(self) -> int:
        """Questions that are over, well or not."""
        return len(self.answers) + len(self.errors)

    async def run(self) -> None:
        """Until `leaving` is set; then until everybody has an answer. Nobody waits for the one before."""
        popular = itertools.chain.from_iterable(itertools.repeat(question, ASKED) for question in QUESTIONS)
        async with asyncio.TaskGroup() as group:
            for question in itertools.cycle(popular):
                if self.leaving:
                    return
                group.create_task(self.ask(question))
                await asyncio.sleep(EVERY)

    async def ask(self, question: str) -> Answer | None:
        """One question; an error is counted and reported, and stops nobody."""
        try:
            with self.journal.call(f"question: {question}"):
                self.answers.append(await self.variant.answer(question))
        except Exception as error:  # noqa: BLE001 - the reports show it
            self.errors.append(error)
            return None
        return self.answers[-1]

"""Live progress: one line that rewrites itself on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, TextIO

from asyncguard import events
from asyncguard.cli.demo import facts

if TYPE_CHECKING:
    from asyncguard.cli.demo.job import Job
    from asyncguard.cli.demo.journal import Journal

EVERY_TERMINAL = 0.1  # seconds
EVERY_PLAIN = 2.5


class Progress:
    """Writes to `out`. Use `say` for a line that stays."""

    def __init__(self, out: TextIO | None = None) -> None:
        self.out = out or sys.stderr
        self.terminal = self.out.isatty()

    def say(self, text: str) -> None:
        """A line of its own."""
        self.out.write(f"\r\x1b[K{text}\n" if self.terminal else f"{text}\n")
        self.out.flush()

    async def watch(self, job: Job, journal: Journal, total: int) -> None:
        """Until cancelled."""
        try:
            while True:
                self._show(status_line(job, journal, total))
                await asyncio.sleep(EVERY_TERMINAL if self.terminal else EVERY_PLAIN)
        finally:
            self._show("")

    def _show(self, line: str) -> None:
        if self.terminal:
            self.out.write(f"\r\x1b[K{line}")
            self.out.flush()
        elif line:
            self.say(line)


def status_line(job: Job, journal: Journal, total: int) -> str:
    """How far, how busy, what the guards do."""
    seconds = journal.now() - journal.started
    retries = sum(isinstance(event, events.RetryScheduled) for _, event in journal.events)
    busy = f"{facts.counted(journal.requests, 'request')} in flight"
    parts = [f"{seconds:5.1f} s", f"{job.stored:>5}/{total} stored", busy]
    if journal.guarded:
        parts += [facts.counted(retries, "retry", "retries"), f"circuit {circuit_state(journal)}"]
    if job.failures:
        parts.append(f"{facts.counted(len(job.failures), 'batch', 'batches')} LOST")
    return "  " + " | ".join(parts)


def circuit_state(journal: Journal) -> str:
    """What the circuit breaker said last."""
    names: dict[type[events.Event], str] = {
        events.CircuitOpened: "OPEN",
        events.CircuitHalfOpened: "half-open",
        events.CircuitClosed: "closed",
    }
    said = [names[type(event)] for _, event in journal.events if type(event) in names]
    return said[-1] if said else "closed"

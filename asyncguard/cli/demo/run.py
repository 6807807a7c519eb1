"""One run of the job, from nothing to a judged result: start the parts, work, ask, judge, take everything down."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asyncguard import subscribe
from asyncguard.cli.demo import audit, database, faults, job, referee
from asyncguard.cli.demo.corpus import QUESTIONS
from asyncguard.cli.demo.journal import Journal, Sample
from asyncguard.cli.demo.parts import Parts
from asyncguard.cli.demo.pipeline import Answer
from asyncguard.cli.demo.users import Users
from asyncguard.telemetry.logs import JSONFormatter

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

    import aiohttp
    import asyncpg

    from asyncguard.cli.demo.corpus import Document
    from asyncguard.cli.demo.pipeline import Variant
    from asyncguard.cli.demo.progress import Progress

DATABASE_PAUSE = 1.5  # seconds
OUTAGE_AT = 0.5  # of the batches; questions count too, so a little earlier
SAMPLE_EVERY = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the command line asked for."""

    seed: int = 7
    faults: str = "mild"
    keep: bool = False


@dataclass(slots=True)
class Result:
    """Everything that the reports show."""

    name: str
    settings: Settings
    documents: list[Document]
    job: job.Job
    journal: Journal
    users: Users
    handled: list[audit.Handled] = field(default_factory=list[audit.Handled])
    requests: int = 0
    verdict: referee.Verdict | None = None
    answers: list[Answer] = field(default_factory=list[Answer])
    database_paused: tuple[float, float] | None = None
    folder: Path | None = None

    @property
    def unexplained(self) -> list[audit.Handled]:
        """Faults of the service's log that nothing of ours accounts for."""
        return [one for one in self.handled if one.by == audit.UNEXPLAINED]

    @property
    def good(self) -> bool:
        """Nothing lost, nothing wrong, recall 1.0, no user left without an answer, every fault accounted for."""
        perfect = self.verdict is not None and self.verdict.perfect
        return perfect and not self.job.failures and not self.users.errors and not self.unexplained


@dataclass(frozen=True, slots=True)
class Running:
    """The parts, up and reachable."""

    parts: Parts
    service: int
    database: int
    url: str
    pool: asyncpg.Pool[Any]


def variant_named(name: str) -> type[Variant]:
    """The way to write the job. Imported here: each needs what the others do not."""
    if name == "bare":
        from asyncguard.cli.demo.bare import Bare

        return Bare
    if name == "stamina":
        from asyncguard.cli.demo.peers import Stamina

        return Stamina
    from asyncguard.cli.demo.guarded import Guarded

    return Guarded


async def run(settings: Settings, name: str, texts: list[Document], progress: Progress) -> Result:
    """Run one variant. However this is left, nothing of it stays."""
    import aiohttp

    variant = variant_named(name)
    journal = Journal(guarded=name == "guarded")
    progress.say(f"{name}: starting PostgreSQL and the embedding service")
    async with Parts.started(keep=settings.keep) as parts:
        with _logging_to(parts.folder / "asyncguard.log"):
            async with (
                _running(parts, schedule(settings, texts)) as up,
                aiohttp.ClientSession(trace_configs=[journal.tracing()]) as http,
            ):
                work = job.Job(variant(http, up.url, up.pool), journal, deque(job.batches(texts)))
                result = Result(name, settings, texts, work, journal, Users(work.variant, journal))
                await _work(result, up, progress)
                await _judge(result, up, http)
        result.folder = parts.folder if settings.keep else None
    return result


@contextlib.contextmanager
def _logging_to(path: Path) -> Generator[None, None, None]:
    """One JSON record per guarded call goes into a file of the temporary folder; the terminal is for the progress."""
    logger = logging.getLogger("asyncguard")
    before = logger.level, logger.propagate
    handler = logging.FileHandler(path)
    handler.setFormatter(JSONFormatter())
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.level, logger.propagate = before
        handler.close()


def schedule(settings: Settings, texts: list[Document]) -> faults.Schedule:
    """The same for every variant."""
    batches = [[one.text for one in batch] for batch in job.batches(texts)]
    keys = faults.keys_of(batches + [[question] for question in QUESTIONS])
    half_way = round(OUTAGE_AT * len(batches))
    return faults.deal(settings.seed, faults.LEVELS[settings.faults], keys, outage_after=half_way)


@contextlib.asynccontextmanager
async def _running(parts: Parts, plan: faults.Schedule) -> AsyncGenerator[Running, None]:
    (service, url), server = await asyncio.gather(_start_service(parts, plan), database.start(parts))
    pool = await database.connect(parts.folder)
    try:
        yield Running(parts, service, server, url, pool)
    finally:
        pool.terminate()  # not close: the server may be frozen, and everything in it is thrown away


async def _start_service(parts: Parts, plan: faults.Schedule) -> tuple[int, str]:
    (parts.folder / "service.json").write_text(json.dumps(plan.as_json()), encoding="utf-8")
    command = (sys.executable, "-m", "asyncguard.cli.demo.service", str(parts.folder))
    pid = await parts.spawn(*command, log="service.log", stop=signal.SIGTERM)
    port = parts.folder / "port"
    await parts.ready(pid, port.exists, "service.log")
    return pid, f"http://127.0.0.1:{port.read_text(encoding='utf-8')}"


async def _work(result: Result, up: Running, progress: Progress) -> None:
    """The job, with users, mischief, a progress display and a note taker beside it; then three questions."""
    journal = result.journal
    unsubscribe = subscribe(journal.hear)
    users = asyncio.create_task(result.users.run())
    watching = [
        asyncio.create_task(_take_notes(result, up)),
        asyncio.create_task(_freeze_database(result, up)),
        asyncio.create_task(progress.watch(result.job, journal, len(result.documents))),
    ]
    journal.started = journal.now()
    try:
        await result.job.run()
        result.users.leaving = True
        await users
        journal.ended = journal.now()
        result.answers = list(filter(None, [await result.users.ask(question) for question in QUESTIONS[:3]]))
    finally:
        await _cancelled(users, *watching)
        unsubscribe()


async def _cancelled(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _freeze_database(result: Result, up: Running) -> None:
    """Once, when most is stored, and not for `--faults none`."""
    if result.settings.faults == "none":
        return
    while result.job.stored < 0.75 * len(result.documents):  # noqa: ASYNC110 - nothing to wait on but a number
        await asyncio.sleep(SAMPLE_EVERY)
    now = result.journal.now()
    up.parts.pause(up.database, DATABASE_PAUSE)
    result.database_paused = (now, now + DATABASE_PAUSE)


async def _take_notes(result: Result, up: Running) -> None:
    import psutil

    processes = [psutil.Process(os.getpid()), psutil.Process(up.service)]
    journal = result.journal
    while True:
        memory = sum(process.memory_info().rss for process in processes)
        sample = Sample(journal.now(), journal.in_flight, journal.requests, result.job.stored, memory)
        journal.samples.append(sample)
        await asyncio.sleep(SAMPLE_EVERY)


async def _judge(result: Result, up: Running, http: aiohttp.ClientSession) -> None:
    log = audit.read_log(up.parts.folder / "service.jsonl")
    result.requests = len(log)
    result.handled = audit.explain(log, result.journal)
    result.verdict = await referee.judge(http, up.url, up.pool, result.documents)

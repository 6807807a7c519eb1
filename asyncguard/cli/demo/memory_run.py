"""Run the same calls in a container once for each contender, and keep what was used, promised, and done over time."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import asyncguard
from asyncguard.cli.demo import memory_box
from asyncguard.cli.demo.memory_box import Box
from asyncguard.cli.demo.parts import PartError, Parts

if TYPE_CHECKING:
    from collections.abc import Callable

CONTENDERS = {
    "none": "no guard",
    "psutil": "a psutil loop (85 %)",
    "check": "a loop on the true use (85 %)",
    "guard": "@memory_guard()",
}
MIB = 1 << 20
EVERY = 0.005  # seconds
LONGEST = 180.0
KILLED = -signal.SIGKILL
SHELL_KILLED = 128 + signal.SIGKILL


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the command line asked for; `simulated` says why there is no real container, "" if there is one."""

    calls: int = 60
    seed: int = 1
    limit: int = 256 * MIB
    simulated: str = ""


@dataclass(slots=True)
class Run:
    """How one contender fared. Times are seconds since its calls began, sizes bytes."""

    name: str
    settings: Settings
    status: int = 0
    kills: int = 0
    peak: int = 0
    seconds: float = 0.0
    done: int = 0
    most: int = 0
    learned: int | None = None
    used: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    promised: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])

    @property
    def killed(self) -> bool:
        """Whether it was killed for its memory."""
        return self.status == KILLED

    @property
    def finished(self) -> bool:
        """Whether all calls were made, below the limit."""
        return self.status == 0 and self.done == self.settings.calls and not self.kills


class Container(Protocol):
    """Where the calls run."""

    kills: int
    peak: int

    def inside(self, *command: str) -> list[str]:
        """Return the command that runs `command` inside."""
        ...

    def look(self, pid: int) -> int | None:
        """Return the bytes in use, None if they cannot be read; `pid` is the process of the calls."""
        ...


class Real:
    """A memory cgroup: the kernel kills."""

    kills = peak = 0

    def __init__(self, box: Box) -> None:
        self._box = box
        self.inside = box.inside

    def look(self, pid: int) -> int | None:
        """Return what the group uses without page cache, and note what the kernel says."""
        del pid
        with contextlib.suppress(OSError):
            self.kills, self.peak = self._box.kills, self._box.peak
            return self._box.used
        return None


class Simulated:
    """No container can be made: we look ourselves what the process holds, and kill it above the limit."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.kills = self.peak = 0

    def inside(self, *command: str) -> list[str]:
        """Return the command as it is."""
        return list(command)

    def look(self, pid: int) -> int | None:
        """Return what the process holds without files, and do what the kernel would do."""
        held = held_by(pid)
        self.peak = max(self.peak, held or 0)
        if held is not None and held > self._limit and not self.kills:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                self.kills = 1
        return held


def held_by(pid: int) -> int | None:
    """Return what a process holds in bytes, without files; None if it has ended."""
    try:
        resident, files = Path(f"/proc/{pid}/statm").read_text().split()[1:3]
    except (OSError, ValueError):
        return None if sys.platform == "linux" else _held_elsewhere(pid)
    return (int(resident) - int(files)) * os.sysconf("SC_PAGE_SIZE")


def _held_elsewhere(pid: int) -> int | None:
    import psutil

    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return None


async def run_all(settings: Settings, names: list[str], say: Callable[[str], None]) -> list[Run]:
    """Run the contenders one after the other; whatever happens, no process and no group is left."""
    async with Parts.started() as parts:
        runs: list[Run] = []
        for name in names:
            say(f"  {CONTENDERS[name]} ...")
            runs.append(await _run(parts, settings, name))
        return runs


async def _run(parts: Parts, settings: Settings, name: str) -> Run:
    if settings.simulated:
        return await _watched(parts, settings, name, Simulated(settings.limit))
    box = Box(settings.limit)
    parts.say(op="remove", path=str(box.path))  # first: it goes also if we are killed in between
    try:
        box.make()
        return await _watched(parts, settings, name, Real(box))
    finally:
        await asyncio.to_thread(box.remove)


async def _watched(parts: Parts, settings: Settings, name: str, container: Container) -> Run:
    bound = settings.limit if settings.simulated else 0
    arguments = [name, str(settings.calls), str(settings.seed), str(bound)]
    pid = await parts.spawn(*container.inside(*_program(*arguments)), log=f"{name}.jsonl", stop=signal.SIGKILL)
    looks: list[tuple[float, int]] = []
    async with asyncio.timeout(LONGEST):
        while pid not in parts.exited:
            held = container.look(pid)
            if held is not None:
                looks.append((time.monotonic(), held))
            await asyncio.sleep(EVERY)
    container.look(pid)
    run = Run(name, settings, parts.exited[pid], container.kills, container.peak)
    _read(run, parts.folder / f"{name}.jsonl", looks)
    return run


def _program(*arguments: str) -> list[str]:
    """Run the job with the asyncguard that we are, wherever it was imported from."""
    root = str(Path(asyncguard.__file__).parents[1])
    code = f"import sys; sys.path.insert(0, {root!r}); from asyncguard.cli.demo import memory_job; memory_job.main()"
    return [sys.executable, "-c", code, *arguments]


def _read(run: Run, log: Path, looks: list[tuple[float, int]]) -> None:
    """Join what the calls wrote with what was seen from outside."""
    said, other = _lines(log)
    start = next((each["start"] for each in said if "start" in each), None)
    if start is None or run.status not in {0, KILLED, SHELL_KILLED}:
        message = f"the calls of {run.name!r} ended with status {run.status}: {' | '.join(other[-3:]) or 'no word'}"
        raise PartError(message)
    samples = [each for each in said if "at" in each]
    last = said[-1]
    run.used = [(at - start, held) for at, held in looks if at >= start]
    run.promised = [(each["at"] - start, each["promised"]) for each in samples]
    run.seconds = last.get("end", max([start, *(at for at, _ in looks)])) - start
    run.done = last.get("done", 0)
    run.learned = last.get("learned")
    run.most = last.get("most", max((each["most"] for each in samples), default=0))


def _lines(log: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Return what was said in JSON, and the rest: a line that death cut off, or an error."""
    said: list[dict[str, Any]] = []
    other: list[str] = []
    for line in log.read_text(errors="replace").splitlines():
        try:
            said.append(json.loads(line))
        except ValueError:
            other.append(line)
    return said, other


def why_simulated() -> str:
    """Say why there is no real container here, "" if there is one: tried out, since much can forbid it."""
    try:
        box = Box(64 * MIB)
        box.make()
        box.remove()
    except (memory_box.BoxError, OSError) as error:
        return str(error)
    return ""

"""`asyncguard demo memory` from the command line to the exit status."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
import sys
from typing import TYPE_CHECKING

from asyncguard.cli.demo.memory_run import CONTENDERS, MIB, Settings, run_all, why_simulated

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from asyncguard.cli.demo.memory_run import Run

NOT_GOOD = 1
CANNOT = 2
SIGNALLED = 128
FILE = "memory.html"


def run(asked: argparse.Namespace) -> int:
    """0: with the guard every call was made. 1: it was not. 2: the demo could not run. 128 + n: ended by signal n."""
    problem = _cannot_run(asked.out)
    if problem:
        return _complain(problem)
    from asyncguard.cli.demo import memory_report
    from asyncguard.cli.demo.parts import PartError

    settings = Settings(calls=asked.calls, seed=asked.seed, limit=asked.limit * MIB, simulated=_simulated(asked))
    _say(f"asyncguard demo memory: {memory_report.title(settings)}\n{memory_report.where(settings)}\n")
    signals: list[int] = []
    try:
        runs = asyncio.run(_all(settings, signals))
    except (asyncio.CancelledError, KeyboardInterrupt):
        number = signal.Signals(signals[0] if signals else signal.SIGINT)
        return _complain(f"interrupted by {number.name}; everything it had started is gone", SIGNALLED + number)
    except TimeoutError:
        return _complain("a run was not over after three minutes; is the machine very busy?")
    except PartError as error:
        return _complain(str(error))
    return _reported(runs, asked.out)


def _simulated(asked: argparse.Namespace) -> str:
    return "--simulate was given" if asked.simulate else why_simulated()


def _cannot_run(out: Path) -> str:
    if sys.platform == "win32":
        return "the demo needs Linux or macOS: it kills real processes"
    if sys.platform != "linux" and importlib.util.find_spec("psutil") is None:
        return "the demo needs psutil: pip install psutil"
    if not out.is_dir() or not os.access(out, os.W_OK):
        return f"--out {out}: no such folder, or it is not writable; name another"
    return ""


async def _all(settings: Settings, signals: list[int]) -> list[Run]:
    from asyncguard.cli.demo.command import leave_on_signals

    leave_on_signals(signals)
    return await run_all(settings, list(CONTENDERS), _say)


def _reported(runs: list[Run], out: Path) -> int:
    from asyncguard.cli.demo import memory_report

    path = out / FILE
    path.write_text(memory_report.document(runs), encoding="utf-8")
    _say(f"\n{memory_report.table(runs)}\n\n{memory_report.conclusion(runs[-1])}\nTimeline: {path.resolve()}")
    return 0 if runs[-1].finished else NOT_GOOD


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _complain(message: str, status: int = CANNOT) -> int:
    sys.stderr.write(f"asyncguard demo memory: {message}\n")
    return status

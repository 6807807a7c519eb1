"""The `asyncguard` command. Only argparse is imported until a subcommand is chosen."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

LEAST_LIMIT = 96  # MiB

EXAMPLES = """\
examples:
  asyncguard demo                          a real embedding job under real faults, in about a minute
  asyncguard demo --unguarded              the same without protection: it fails, and says where
  asyncguard demo --compare                bare, stamina and guarded, side by side
  asyncguard demo --faults severe --seed 3 --documents 7000
  asyncguard demo memory                   sixty calls in 256 MiB: who is killed, who finishes
  asyncguard doctor                        what asyncguard finds on this machine
  asyncguard doctor --store redis://127.0.0.1:6379 --json
"""
DEMO = """\
Embeds the standard library's docstrings with a real model behind a real HTTP service that misbehaves on a seeded
schedule, stores them in a real PostgreSQL with pgvector, and answers questions from it. Everything runs on this
machine, loopback only, and is gone afterwards. Exit status 0 means: nothing lost, nothing wrong, recall 1.0, every
fault accounted for.
"""
MEMORY = """\
Runs the same concurrent calls in a container of 256 MiB (a memory cgroup, where root may make one; simulated elsewhere)
without a guard, with the usual psutil loop, with a loop that looks at the right number, and with memory_guard. Exit
status 0 means: with the guard every call was made and nobody was killed.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit status."""
    asked = parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = asked.run
    try:
        return run(asked)
    except KeyboardInterrupt:  # where a command does not handle it: while importing, while printing
        return 128 + signal.SIGINT


def parser() -> argparse.ArgumentParser:
    """All subcommands."""
    top = argparse.ArgumentParser(
        prog="asyncguard",
        description="Resilience for machine-learning code: see it at work, and see what it finds on this machine.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action=_Version, nargs=0, help="show the version of asyncguard and of Python")
    commands = top.add_subparsers(required=True, metavar="{demo,doctor}")
    _demo(commands.add_parser("demo", help="a real embedding job under real faults", description=DEMO))
    _doctor(commands.add_parser("doctor", help="what asyncguard finds on this machine"))
    return top


def _demo(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_run_demo)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--documents", type=_count("documents"), default=1000, metavar="N", help="how many (default 1000)"
    )
    parser.add_argument("--seed", type=int, default=7, help="of the faults: same seed, same faults (default 7)")
    parser.add_argument("--faults", choices=("none", "mild", "severe"), default="mild", help="default mild")
    variant = parser.add_mutually_exclusive_group()
    variant.add_argument("--unguarded", action="store_true", help="run it without protection: it fails")
    variant.add_argument("--compare", action="store_true", help="run it bare, with stamina, and guarded")
    parser.add_argument("--keep", action="store_true", help="keep the temporary folder: database, logs, schedule")
    parser.add_argument("--out", type=Path, default=Path(), metavar="DIR", help="where report.html goes (default here)")
    others = parser.add_subparsers(metavar="{memory}")
    _memory(others.add_parser("memory", help="who survives in a small container", description=MEMORY))


def _memory(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_run_memory)
    parser.add_argument("--calls", type=_count("calls"), default=60, metavar="N", help="at the same time (default 60)")
    parser.add_argument("--limit", type=_mebibytes, default=256, metavar="MIB", help="of the container (default 256)")
    parser.add_argument("--seed", type=int, default=1, help="of the sizes of the calls (default 1)")
    parser.add_argument("--simulate", action="store_true", help="without a cgroup, as where none can be made")
    # Without a default of its own: that would overwrite what is given in front of `memory`.
    parser.add_argument(
        "--out", type=Path, default=argparse.SUPPRESS, metavar="DIR", help="where memory.html goes (default here)"
    )


def _doctor(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_run_doctor)
    parser.add_argument("--json", action="store_true", help="as JSON instead of a table")
    parser.add_argument("--store", metavar="URL", help="can this store be reached? e.g. redis://127.0.0.1:6379")


class _Version(argparse.Action):
    """Says the version; it is looked up only when asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from asyncguard import __version__

        sys.stdout.write(f"asyncguard {__version__}, Python {sys.version.split()[0]}\n")
        parser.exit()


def _count(what: str) -> Callable[[str], int]:
    def count(text: str) -> int:
        number = int(text) if text.isdecimal() else 0
        if number < 1:
            message = f"expected a number of {what}, at least 1, got {text}"
            raise argparse.ArgumentTypeError(message)
        return number

    return count


def _mebibytes(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if number < LEAST_LIMIT:
        message = f"expected MiB, at least {LEAST_LIMIT} (one call and Python itself have to fit), got {text}"
        raise argparse.ArgumentTypeError(message)
    return number


def _run_demo(asked: argparse.Namespace) -> int:
    from asyncguard.cli.demo import command

    return command.run(asked)


def _run_memory(asked: argparse.Namespace) -> int:
    from asyncguard.cli.demo import memory

    return memory.run(asked)


def _run_doctor(asked: argparse.Namespace) -> int:
    from asyncguard.cli.doctor import doctor

    return doctor(store=asked.store, as_json=asked.json)


if __name__ == "__main__":
    sys.exit(main())

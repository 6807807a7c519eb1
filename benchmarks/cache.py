"""What a hit, a miss, an entry and a stampede cost, beside the caches of other libraries.

    python benchmarks/cache.py [--rounds N] [--only WORD] [--json FILE] [--check]

All caches of a row run in every round, in random order, with the garbage collector off; the figures are medians over
the rounds of the process's CPU time per call. Before a cache is timed it is asked whether it can tell two arguments
apart that differ in one element: WRONG if it answers one with the result of the other. `--check` exits with 1 where
one of our goals is missed. See benchmarks/README.md for how to read it.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parent))

import cache_parts as parts
from cache_bytes import entry_bytes
from cache_calls import hits, misses
from cache_peers import OURS, installed
from cache_report import Report
from cache_stampede import CASES, WAITERS, cancellations, stampedes
from overhead import machine

if TYPE_CHECKING:
    from collections.abc import Callable

RESULTS = Path(__file__).parent / "results" / "cache.json"


def stampede_section(report: Report, names: list[str]) -> None:
    print("\nStampede, 1,000 callers of a cold key: calls of the function / callers that got its answer")
    found = stampedes(names)
    for name, row in found.items():
        print(f"  {name:<18}" + "  ".join(f"{case}: {row[case]}{'' if row[case].right else ' *'}" for case in CASES))
    report.sections["stampede"] = {
        name: {case: {"right": one.right, "text": str(one)} for case, one in row.items()} for name, row in found.items()
    }
    wrong = [case for case in CASES if not found[OURS][case].right]
    report.goal("stampede, columns that are wrong", len(wrong), 0)


def cancellation_section(report: Report, names: list[str]) -> None:
    print(f"\nOne cancellation among {WAITERS:,} waiters, us")
    found = cancellations([name for name in names if name in {OURS, "async-lru"}])
    print("  " + "  ".join(f"{name} {us:.1f}" for name, us in found.items()))
    report.sections["cancellation_us"] = found
    report.goal("a cancellation, us", found[OURS], 50.0)


def hashing_section(report: Report, names: list[str], rounds: int) -> None:
    print("\nDigest of a float32 array, us (GB/s)")
    report.sections["hashing_us"] = section = {}
    for nbytes, functions in parts.hashers().items():
        section[str(nbytes)] = row = parts.time_plain(functions, rounds)
        cells = (f"{name} {us:,.2f} ({nbytes / us / 1000:.1f})" for name, us in row.items())
        print(f"  {nbytes:>12,} B  " + "  ".join(cells))


def batch_section(report: Report, names: list[str], rounds: int) -> None:
    print("\nHits of cache_items, us: all items in one call / one cache_result hit for each item")
    report.sections["items_us"] = section = {}
    for number in (1, 8, 64, 512):
        section[str(number)] = row = parts.batch_against_gets(number, rounds)
        print(f"  {number:>4} items  " + "  ".join(f"{name} {us:.2f}" for name, us in row.items()))


def sections(rounds: int) -> dict[str, Callable[[Report, list[str]], None]]:
    return {
        "hit": lambda report, names: hits(report, names, rounds),
        "miss": lambda report, names: misses(report, names, max(3, rounds // 2)),
        "bytes": entry_bytes,
        "stampede": stampede_section,
        "cancellation": cancellation_section,
        "hashing": lambda report, names: hashing_section(report, names, rounds),
        "items": lambda report, names: batch_section(report, names, rounds),
    }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=101)
    parser.add_argument("--only", default="", help="only the sections whose name contains this")
    parser.add_argument("--json", type=Path, default=None, help=f"default: {RESULTS.name} in results, for a whole run")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a goal is missed")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    names, missing = installed()
    print(f"Python {sys.version.split()[0]}; not installed: {', '.join(missing) or 'none'}")
    report = Report()
    for name, run in sections(options.rounds).items():
        if options.only in name:
            run(report, names)
    path = options.json or (None if options.only else RESULTS)
    if path is not None:
        everything = {"machine": machine(), "missing": missing, "goals": report.goals, **report.sections}
        path.write_text(json.dumps(everything, indent=2) + "\n", encoding="utf-8")
    failed = [goal["goal"] for goal in report.goals if not goal["met"]]
    print(f"\nmissed: {', '.join(failed) or 'none'}")
    return int(options.check and bool(failed))


if __name__ == "__main__":
    sys.exit(main())

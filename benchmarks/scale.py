"""What a call costs with 10, 1,000 and 100,000 of whatever it might depend on: window, partitions, waiters.

    python benchmarks/scale.py [--rounds N] [--only WORD] [--json FILE] [--check]

All three sizes of a case run in every round, in random order, with the garbage collector off; the figure is the median
over the rounds of the process's CPU time per operation. `--check` exits with 1 where 100,000 cost more than the stated
multiple of 10: 4 where the work is the same, 8 where it is a logarithm (17 steps against 4), both with room for the
caches of a processor, which hold the state of 10 and not that of 100,000.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from overhead import machine
from scale_partitions import partition_cases
from scale_waiters import waiter_cases
from scale_windows import window_cases

SIZES = (10, 1_000, 100_000)
CONSTANT, LOGARITHMIC = 4.0, 8.0
Operation = Callable[[], object]
RESULTS = Path(__file__).parent / "results" / "scale.json"


@dataclass
class Row:
    """The medians of a case in microseconds per operation, by size."""

    group: str
    name: str
    bound: float
    us: dict[int, float] = field(default_factory=dict[int, float])

    @property
    def ratio(self) -> float:
        return self.us[SIZES[-1]] / self.us[SIZES[0]]

    @property
    def missed(self) -> bool:
        return self.ratio > self.bound


def cases() -> Iterator[tuple[str, str, bool, Callable[[int], Operation]]]:
    """Yield group, name, whether it may cost a logarithm, and what makes the operation for a size."""
    for name, make in window_cases():
        yield "window", name, False, make
    for name, make in partition_cases():
        yield "partitions", name, False, make
    for name, logarithmic, make in waiter_cases():
        yield "waiters", name, logarithmic, make


def run(row: Row, make: Callable[[int], Operation], rounds: int, calls: int) -> Row:
    samples: dict[int, list[float]] = {size: [] for size in SIZES}
    order = list(SIZES)
    gc.collect()
    gc.disable()
    try:
        operations = {size: make(size) for size in SIZES}
        for operation in operations.values():
            sample(operation, calls)
        for _ in range(rounds):
            random.shuffle(order)
            for size in order:
                samples[size].append(sample(operations[size], calls))
    finally:
        gc.enable()
    row.us = {size: statistics.median(samples[size]) / 1e3 for size in SIZES}
    return row


def sample(operation: Operation, calls: int) -> float:
    clock = time.process_time_ns
    start = clock()
    for _ in range(calls):
        operation()
    return (clock() - start) / calls


def line(row: Row) -> str:
    figures = "".join(f"{row.us[size]:>12.2f}" for size in SIZES)
    verdict = "  MISSED" if row.missed else ""
    return f"{row.group:<11}{row.name:<56}{figures}{row.ratio:>8.2f}{row.bound:>7.0f}{verdict}"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--calls", type=int, default=100, help="operations per sample")
    parser.add_argument("--only", default="", help="only cases whose group or name contains this")
    parser.add_argument("--json", type=Path, help=f"where to write the medians (all cases: {RESULTS.name})")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a bound is exceeded")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    print(f"microseconds per operation, medians of {options.rounds} rounds of {options.calls}, CPU time")
    print(f"{'':<67}{''.join(f'{size:>12,}' for size in SIZES)}{'ratio':>8}{'bound':>7}")
    rows: list[Row] = []
    for group, name, logarithmic, make in cases():
        if options.only in f"{group} {name}":
            row = Row(group, name, LOGARITHMIC if logarithmic else CONSTANT)
            rows.append(run(row, make, options.rounds, options.calls))
            print(line(rows[-1]), flush=True)
    target = options.json or (None if options.only else RESULTS)
    if target is not None:
        report = {"machine": machine(), "rows": [asdict(row) | {"ratio": round(row.ratio, 2)} for row in rows]}
        target.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    missed = [row.name for row in rows if row.missed]
    print("missed: " + ("; ".join(missed) or "none"))
    return int(options.check and bool(missed))


if __name__ == "__main__":
    sys.exit(main())

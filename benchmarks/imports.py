"""What importing asyncguard costs over an interpreter that has imported asyncio: the median of many fresh processes.

    python benchmarks/imports.py [--processes N] [--json FILE] [--check]

Names are loaded when they are first used, so there are two rows: the bare import, and four strategies on a function.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

GOAL_MS = 25.0
STATEMENTS = {
    "import asyncguard": "import asyncguard",
    "and use four strategies": """
from asyncguard import circuit_breaker, guard, retry, timeout, bulkhead
@guard(timeout(10), retry(), circuit_breaker(), bulkhead(10))
async def call(): ...
""",
}
PROGRAM = """
import asyncio, json, sys, time
before, start, cpu = set(sys.modules), time.perf_counter(), time.process_time()
{statement}
wall, cpu = time.perf_counter() - start, time.process_time() - cpu
print(json.dumps({{"wall": 1e3 * wall, "cpu": 1e3 * cpu, "modules": sorted(set(sys.modules) - before)}}))
"""


@dataclass
class Cost:
    """Milliseconds, and the modules that were loaded."""

    wall: float
    cpu: float
    modules: list[str]

    def foreign(self) -> str:
        tops = {name.partition(".")[0] for name in self.modules}
        return ", ".join(sorted(tops - set(sys.stdlib_module_names) - {"asyncguard"})) or "none"


def once(statement: str) -> Cost:
    program = PROGRAM.format(statement=statement)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return Cost(**json.loads(done.stdout))


def measure(statement: str, processes: int) -> Cost:
    once(statement)  # writes the bytecode
    costs = [once(statement) for _ in range(processes)]
    return Cost(statistics.median(c.wall for c in costs), statistics.median(c.cpu for c in costs), costs[0].modules)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=31)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--check", action="store_true", help=f"exit with 1 above {GOAL_MS:.0f} ms")
    options = parser.parse_args()
    print(f"over asyncio, medians of {options.processes} processes, goal {GOAL_MS:.0f} ms")
    rows = {name: measure(statement, options.processes) for name, statement in STATEMENTS.items()}
    for name, cost in rows.items():
        print(
            f"{name:<26}{cost.wall:6.1f} ms ({cost.cpu:.1f} of CPU)  {len(cost.modules):3} modules, "
            f"not of the standard library: {cost.foreign()}"
        )
    if options.json is not None:
        report = {"python": platform.python_version(), "rows": {name: asdict(cost) for name, cost in rows.items()}}
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return int(options.check and any(cost.wall > GOAL_MS for cost in rows.values()))


if __name__ == "__main__":
    sys.exit(main())

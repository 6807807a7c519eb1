"""Sixty concurrent calls on a real GPU that has room for ten: who runs out of memory, with and without the guard.

    python benchmarks/gpu_memory.py [--gib 4] [--calls 60] [--json FILE] [--check]

Each contender is a process of its own, which may use `--gib` GiB of the GPU (`set_per_process_memory_fraction`). A call
takes 7 to 14 % of that, as in the kill test on the machine's memory. Where there is no GPU it says so and exits with 0.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

CONTENDERS = {"none": "no guard", "stated": "memory_guard(estimate=...)", "learned": "memory_guard()"}
SMALLEST, BIGGEST = 18 / 256, 36 / 256  # of what may be used
GIB = 1 << 30


def why_not() -> str:
    """Say why it cannot run here, "" if it can."""
    try:
        import torch
    except ImportError as error:
        return f"torch is not installed ({error})"
    if not torch.cuda.is_available():
        return f"torch {torch.__version__} finds no GPU that it can use"
    return ""


class Calls:
    def __init__(self, torch: Any) -> None:
        self.torch = torch
        self.running = self.most = self.done = self.failed = 0

    async def embed(self, size: int) -> None:
        """A quarter for the input, the rest for the activations, and some work with both."""
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            tokens = await asyncio.to_thread(self.touched, size // 4)
            await asyncio.sleep(0.02)
            hidden = await asyncio.to_thread(self.touched, size * 3 // 4)
            await asyncio.sleep(0.05)
            float((tokens.sum() + hidden.sum()).item())
            self.done += 1
        finally:
            self.running -= 1

    def touched(self, size: int) -> Any:
        return self.torch.ones(size // 4, dtype=self.torch.float32, device="cuda:0")


async def contend(mode: str, count: int, gib: float, seed: int) -> dict[str, Any]:
    import torch

    import asyncguard as ag

    total = torch.cuda.get_device_properties(0).total_memory
    bound = min(int(gib * GIB), int(0.9 * torch.cuda.mem_get_info(0)[0]))
    torch.cuda.set_per_process_memory_fraction(bound / total, 0)
    torch.ones(1, device="cuda:0")  # the context, and the model that every service has loaded
    calls, sizes = Calls(torch), random.Random(seed)
    guard, call = None, calls.embed
    if mode != "none":
        estimate: Any = "auto" if mode == "learned" else lambda size: size
        guard = ag.memory_guard(device="cuda:0", estimate=estimate, max_wait=600.0, name="embed")
        call = guard(calls.embed)
    start = time.perf_counter()
    jobs = (call(int(sizes.uniform(SMALLEST, BIGGEST) * bound)) for _ in range(count))
    results = await asyncio.gather(*jobs, return_exceptions=True)
    errors = [result for result in results if isinstance(result, BaseException)]
    strange = [error for error in errors if not isinstance(error, torch.OutOfMemoryError)]
    if strange:
        raise strange[0]
    return {
        "gpu": torch.cuda.get_device_name(0),
        "torch": torch.__version__,
        "limit": bound,
        "done": calls.done,
        "out_of_memory": len(errors),
        "peak": torch.cuda.max_memory_allocated(0),
        "at_once": calls.most,
        "seconds": round(time.perf_counter() - start, 2),
        "status": guard.describe() if guard is not None else [],
    }


def run(mode: str, asked: argparse.Namespace) -> dict[str, Any]:
    options = ["--calls", str(asked.calls), "--gib", str(asked.gib), "--seed", str(asked.seed)]
    command = [sys.executable, str(Path(__file__)), "--contender", mode, *options]
    ran = subprocess.run(command, check=False, capture_output=True, text=True, timeout=900)
    if ran.returncode:
        raise SystemExit(f"{mode}: exit {ran.returncode}\n{ran.stdout}{ran.stderr}")
    found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return found


def table(results: dict[str, dict[str, Any]], calls: int) -> str:
    lines = [f"{'':<28}{'done':>10}{'out of memory':>15}{'peak of limit':>15}{'at once':>9}{'seconds':>9}"]
    for mode, row in results.items():
        lines.append(
            f"{CONTENDERS[mode]:<28}{row['done']:>4} of {calls:>2}{row['out_of_memory']:>15}"
            f"{row['peak'] / row['limit']:>15.0%}{row['at_once']:>9}{row['seconds']:>9.1f}"
        )
    return "\n".join(lines)


def good(results: dict[str, dict[str, Any]], calls: int) -> bool:
    guarded = [row for mode, row in results.items() if mode != "none"]
    return results["none"]["out_of_memory"] > 0 and all(row["done"] == calls for row in guarded)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gib", type=float, default=4.0)
    parser.add_argument("--calls", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--check", action="store_true", help="exit 1 unless only the unguarded run out of memory")
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.contender:
        print(json.dumps(asyncio.run(contend(asked.contender, asked.calls, asked.gib, asked.seed))))
        return 0
    reason = why_not()
    if reason:
        print(f"No GPU here: {reason}. Nothing was measured.")
        return 0
    results = {mode: run(mode, asked) for mode in CONTENDERS}
    first = results["none"]
    print(f"{asked.calls} calls, {first['gpu']}, {first['limit'] / GIB:.1f} GiB of it, torch {first['torch']}")
    print(table(results, asked.calls))
    for row in results.values():
        print(*row["status"], sep="\n", end="\n" if row["status"] else "")
    if asked.json:
        asked.json.write_text(json.dumps(results, indent=2) + "\n")
    return 0 if not asked.check or good(results, asked.calls) else 1


if __name__ == "__main__":
    sys.exit(main())

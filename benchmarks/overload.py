"""What the strategies do when there is too much of everything: simulations on virtual time, with asyncguard's own code.

    python benchmarks/overload.py [--runs N] [--out FOLDER] [--check]

1. Contention: clients that all write one record and back off (the simulator of Marc Brooker, "Exponential Backoff And
   Jitter", AWS 2015), with the machine behind `retry`.
2. `adaptive_concurrency` on a server whose capacity and speed change, over time.
3. A retry storm after an outage, with and without a retry budget.

Writes overload.json and two plots into benchmarks/results. Nothing is timed: the figures are the same on any machine.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path

import overload_plots as plots
from overload_adaptive import PHASES, simulate_adaptive, summary
from overload_jitter import TOLERANCE, Row, contention, table
from overload_storm import BACK_AFTER, recovered, simulate_storm

from asyncguard import RetryBudget

RESULTS = Path(__file__).parent / "results"


def jitter(runs: int) -> list[Row]:
    rows = contention(runs)
    print(f"1. contention, means of {runs} runs: ms until all are done / calls (published figures in brackets)")
    print(table(rows))
    return rows


def adaptive(out: Path) -> list[dict[str, object]]:
    runs = [simulate_adaptive(name) for name in ("vegas", "aimd", "none")]
    (out / "overload-adaptive.svg").write_text(plots.adaptive(runs), encoding="utf-8")
    print("\n2. adaptive concurrency under 200 clients: limit, ms per call, share of the possible throughput")
    rows = [row for run in runs for row in summary(run)]
    for row in rows:
        print("{algorithm:<6}{phase:<18}limit {limit:>4}   {latency:>4} ms   {share:.1%}".format(**row))
    return rows


def storm(out: Path) -> dict[str, object]:
    runs = {"without a budget": simulate_storm(None), "with the default budget": simulate_storm(RetryBudget())}
    (out / "overload-storm.svg").write_text(plots.storm(runs), encoding="utf-8")
    print("\n3. an outage of 5 s under 50 calls/s, at a service that takes 100/s")
    rows = {name: run.row() for name, run in runs.items()}
    for name, row in rows.items():
        print(f"{name:<25}{json.dumps(row)}")
    return rows


def misses(rows: list[Row], limits: list[dict[str, object]], storms: dict[str, object]) -> list[str]:
    found = [f"contention: {row.name} is {row.off:.1%} off" for row in rows if row.counts and row.off > TOLERANCE]
    steady = next(row for row in limits if row["algorithm"] == "vegas" and row["phase"] == PHASES[0].name)
    if not (20 <= steady["limit"] <= 30 and steady["share"] >= 0.99):
        found.append(f"adaptive: limit {steady['limit']}, throughput {steady['share']:.1%}")
    if recovered(storms["without a budget"]) or not recovered(storms["with the default budget"]):
        found.append(f"storm: within {BACK_AFTER} s only the run with a budget should be back")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100, help="runs of each row of the contention table")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the JSON and the plots go")
    parser.add_argument("--check", action="store_true", help="exit with 1 where a goal is missed")
    options = parser.parse_args()
    logging.getLogger("asyncguard").setLevel(logging.ERROR)  # thousands of retries give up here, on purpose
    options.out.mkdir(parents=True, exist_ok=True)
    rows, limits, storms = jitter(options.runs), adaptive(options.out), storm(options.out)
    report = {"contention": [row.facts() for row in rows], "adaptive": limits, "storm": storms}
    (options.out / "overload.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    missed = misses(rows, limits, storms)
    print("\nmissed: " + ("; ".join(missed) or "nothing"))
    return int(options.check and bool(missed))


if __name__ == "__main__":
    sys.exit(main())

"""Draw docs/images/memory-guard.svg: what sixty calls use in a container of 256 MiB, with and without the guard.

    python benchmarks/memory_picture.py [--out FILE]

The data are those of `asyncguard demo memory`, run here and now in a real memory cgroup; where none can be made it says
so and draws nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from asyncguard.cli.demo import memory_report
from asyncguard.cli.demo.memory_run import CONTENDERS, Settings, run_all, why_simulated

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncguard.cli.demo.memory_run import Run

OUT = Path(__file__).resolve().parents[1] / "docs" / "images" / "memory-guard.svg"
SHOWN = ["none", "check", "guard"]
WIDTH, HEAD, TITLE = 1040, 34, 24
STYLE = """
svg { font: 10.5px "DejaVu Sans", system-ui, sans-serif; } text { fill: #667085; }
.title { font-size: 14px; font-weight: 600; fill: #1c2430; } .key { font-size: 12px; }
.tick { text-anchor: middle; } .tick.left { text-anchor: end; }
.grid { stroke: #e4e8ee; } .line { fill: none; stroke-width: 1.6; } .area { stroke: none; }
"""


def drawing(runs: Sequence[Run]) -> str:
    """One plot below the other, all over the same time, with what their colours mean on top."""
    seconds, y, parts = memory_report.longest(runs), HEAD, [key()]
    for run in runs:
        plot = memory_report.plot(run, seconds)
        parts.append(f'<g transform="translate(0,{y})"><text class="title" x="4" y="14">{CONTENDERS[run.name]}</text>')
        parts.append(f'<g transform="translate(0,{TITLE})">{"".join(plot.parts)}</g></g>')
        y += TITLE + plot.height
    label = f"Memory over time. {memory_report.title(runs[0].settings)}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" role="img" aria-label="{label}">'
        f"<style>{STYLE}{memory_report.STYLE}</style>"
        f'<rect width="{WIDTH}" height="{y}" fill="#ffffff"/>{"".join(parts)}</svg>\n'
    )


def key() -> str:
    """What each colour means."""
    parts, x = list[str](), 4
    for name, words in memory_report.LEGEND:
        parts.append(f'<rect class="{name}" x="{x}" y="8" width="11" height="11" rx="2"/>')
        parts.append(f'<text class="key" x="{x + 16}" y="18">{words}</text>')
        x += 40 + round(6.9 * len(words))
    return "".join(parts)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT)
    asked = parser.parse_args()
    reason = why_simulated()
    if reason:
        print(f"No memory cgroup can be made here: {reason}. Nothing was drawn.")
        return 0
    runs = asyncio.run(run_all(Settings(), SHOWN, print))
    print(memory_report.table(runs))
    if not runs[-1].finished:
        return 1
    asked.out.write_text(drawing(runs), encoding="utf-8")
    print(asked.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())

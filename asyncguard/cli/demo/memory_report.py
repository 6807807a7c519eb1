"""The outcome as a table on the terminal, and as a page with a timeline of what was used, promised and allowed."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from asyncguard.cli.demo import memory_job, page
from asyncguard.cli.demo.memory_run import CONTENDERS, MIB
from asyncguard.cli.demo.svg import Plot

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncguard.cli.demo.memory_run import Run, Settings

HEAD = ["", "calls done", "ended", "peak", "at once", "seconds"]
HEIGHT = 150  # pixels of a plot
TOP = 1.12  # of the limit
THRESHOLD = memory_job.THRESHOLD
LEGEND = [
    ("used", "in use, page cache left out"),
    ("promised", "promised to running calls, on top of what was in use at the start"),
    ("ceiling", f"threshold, {THRESHOLD:.0%}"),
    ("limit", "limit"),
]
STYLE = """
.used.line { stroke: #3b6fb6; } .used.area { fill: #3b6fb6; opacity: 0.30; }
.promised.line { stroke: #1a7f4b; stroke-width: 1.4; }
.limit.line { stroke: #b42318; stroke-width: 1.4; } .ceiling.line { stroke: #e69f00; stroke-dasharray: 5 4; }
svg .died, svg .well { font-size: 12px; font-weight: 600; } svg .died { fill: #b42318; } svg .well { fill: #1a7f4b; }
rect.used { fill: #3b6fb6; opacity: 0.5; } rect.promised { fill: #1a7f4b; } rect.ceiling { fill: #e69f00; }
rect.limit { fill: #b42318; }
"""


def table(runs: Sequence[Run]) -> str:
    """One line for each contender."""
    rows = [HEAD, *(_row(run) for run in runs)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(HEAD))]
    lines = ("  ".join([row[0].ljust(widths[0]), *_right(row[1:], widths[1:])]).rstrip() for row in rows)
    return "\n".join(lines)


def _right(cells: list[str], widths: list[int]) -> list[str]:
    return [cell.rjust(width) for cell, width in zip(cells, widths, strict=True)]


def _row(run: Run) -> list[str]:
    peak = f"{run.peak / MIB:.0f} MiB" if run.peak else "?"
    done = f"{run.done} of {run.settings.calls}"
    return [CONTENDERS[run.name], done, ended(run), peak, str(run.most), f"{run.seconds:.1f}"]


def ended(run: Run) -> str:
    """How it ended, in words; a shell shows a death by SIGKILL as 137."""
    if run.killed:
        return "killed, exit 137"
    return "exit 0" if run.status == 0 else f"exit {run.status}"


def title(settings: Settings) -> str:
    """What was run."""
    sizes = f"{memory_job.SMALLEST} to {memory_job.BIGGEST} MiB each"
    return f"{settings.calls} embedding calls at the same time, {sizes}, in {settings.limit / MIB:.0f} MiB"


def where(settings: Settings) -> str:
    """Who kills."""
    if not settings.simulated:
        return "In a memory cgroup of its own: the kernel kills whoever goes above the limit."
    return (
        f"No memory cgroup could be made ({settings.simulated}), so this is a simulation: the guard has limit=, and "
        "the demo looks every 5 ms and kills whoever holds more."
    )


def conclusion(run: Run) -> str:
    """Whether the guard did what it promises; `run` is its run."""
    if not run.finished:
        return f"FAILED: with the guard {run.done} of {run.settings.calls} calls were made, {ended(run)}."
    learned = f" It learned that a call takes {run.learned / MIB:.0f} MiB." if run.learned else ""
    return f"Good: with the guard every call was made and nobody was killed.{learned}"


def document(runs: Sequence[Run]) -> str:
    """The page."""
    settings, guard = runs[0].settings, runs[-1]
    style = "good" if guard.finished else "bad"
    boxes = "".join(
        f'<span><svg viewBox="0 0 11 11"><rect class="{name}" width="11" height="11" rx="2"/></svg>{words}</span>'
        for name, words in LEGEND
    )
    plots = "".join(f"<h2>{html.escape(CONTENDERS[run.name])}</h2>{plot(run, longest(runs)).render()}" for run in runs)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>asyncguard demo memory</title>'
        f'<meta name="viewport" content="width=device-width"><style>{page.STYLE}{STYLE}</style></head><body><main>'
        f'<h1>{html.escape(title(settings))}</h1><p class="sub">{html.escape(where(settings))}</p>'
        f'<p class="verdict {style}">{html.escape(conclusion(guard))}</p>'
        f'{page.table(HEAD, [_row(run) for run in runs])}<div class="legend" style="margin-top:18px">{boxes}</div>'
        f"{plots}</main></body></html>\n"
    )


def longest(runs: Sequence[Run]) -> float:
    """Return the seconds of the longest run: all plots have the same axis."""
    return max(0.1, *(run.seconds for run in runs)) * 1.02


def plot(run: Run, seconds: float) -> Plot:
    """Draw what was used, promised and allowed over time."""
    limit = run.settings.limit
    drawn = Plot(seconds=seconds, high=limit * TOP, height=HEIGHT, label=f"memory over time: {CONTENDERS[run.name]}")
    drawn.values([(0.0, "0"), (limit / 2, f"{limit / MIB / 2:.0f}"), (limit, f"{limit / MIB:.0f} MiB")])
    drawn.steps(thinned(run.used), "used", filled=True)
    if run.name == "guard":
        base = run.used[0][1] if run.used else 0.0
        drawn.steps(thinned([(at, base + promised) for at, promised in run.promised]), "promised")
        drawn.steps([(0.0, THRESHOLD * limit), (seconds, THRESHOLD * limit)], "ceiling")
    drawn.steps([(0.0, limit), (seconds, limit)], "limit")
    _end(drawn, run)
    drawn.times()
    return drawn


def _end(drawn: Plot, run: Run) -> None:
    words = f"{ended(run)}, {run.done} of {run.settings.calls} calls done"
    if run.killed:
        drawn.text(drawn.x(run.seconds) + 8, drawn.y(run.settings.limit) + 18, f"✕ {words}", "died")
    else:
        drawn.text(drawn.x(run.seconds * 0.02), drawn.y(run.settings.limit * 1.03), words, "well")


def thinned(points: Sequence[tuple[float, float]], most: int = 700) -> list[tuple[float, float]]:
    """At most so many points; of those that fall together the highest stays."""
    size = -(-len(points) // most) or 1
    groups = (points[at : at + size] for at in range(0, len(points), size))
    return [(group[0][0], max(value for _, value in group)) for group in groups]

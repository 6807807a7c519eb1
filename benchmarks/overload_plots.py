"""The plots of overload.py, as SVG that stands alone."""

from __future__ import annotations

from overload_adaptive import PHASES, STEP, Run
from overload_storm import ARRIVALS, CAPACITY, OUTAGE, SECONDS, Storm

from asyncguard.cli.demo.svg import Plot, marks

WIDTH, HEIGHT, TITLE = 1040, 230, 26
STYLE = """
svg { background: #fff; font: 12px system-ui, sans-serif } text { fill: #444 }
.title { font-weight: 600; font-size: 14px; fill: #111 } .left { text-anchor: end } .tick { text-anchor: middle }
.tick.left { text-anchor: end } .band-name { text-anchor: middle; font-size: 11px } .grid { stroke: #e5e5e5 }
.line { fill: none; stroke-width: 1.6 } .area { opacity: .12; stroke: none }
.vegas { stroke: #0b6e4f; fill: #0b6e4f } .aimd { stroke: #b3541e; fill: #b3541e } .none { stroke: #888; fill: #888 }
.best { stroke: #222; stroke-dasharray: 4 3; fill: #222 } .requests { stroke: #b3261e; fill: #b3261e }
.succeeded { stroke: #0b6e4f; fill: #0b6e4f } .phase { fill: #f6f6f6 } .outage { fill: #fbe3e1 }
path.line { fill: none } .key { stroke: none; font-weight: 400; font-size: 12px }
"""


def sheet(panels: list[tuple[str, dict[str, str], Plot]]) -> str:
    """Return panels (title, what each style of line is, plot) below one another as one file."""
    height = len(panels) * (HEIGHT + TITLE)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}"><style>{STYLE}</style>']
    for number, (title, names, plot) in enumerate(panels):
        top = number * (HEIGHT + TITLE)
        keys = "".join(f'<tspan class="{style} key" dx="18">{words}</tspan>' for style, words in names.items())
        parts.append(f'<text class="title" x="12" y="{top + 18}">{title}{keys}</text>')
        parts.append(plot.render().replace("<svg ", f'<svg y="{top + TITLE}" width="{WIDTH}" height="{HEIGHT}" ', 1))
    return "\n".join([*parts, "</svg>", ""])


def plot_of(seconds: float, high: float, label: str) -> Plot:
    plot = Plot(seconds=seconds, high=high, height=HEIGHT, width=WIDTH, label=label)
    plot.values(marks(high))
    plot.times()
    return plot


def adaptive(runs: list[Run]) -> str:
    limited = [run for run in runs if run.algorithm != "none"]
    names = {"vegas": "vegas", "aimd": "aimd (429 if 20 wait)", "best": "what the server can do"}
    limit = _phases(70, "limit over time")
    latency = _phases(1100, "latency over time, in ms")
    rate = _phases(450, "calls per second over time")
    for run in limited:
        limit.steps([(sample.at, min(sample.limit, 70)) for sample in run.samples], run.algorithm)
    for run in runs:
        means = [(sample.at, 1e3 * sample.seconds / max(sample.done, 1)) for sample in run.samples]
        latency.steps([(at, min(mean, 1100)) for at, mean in means], run.algorithm)
        rate.steps([(sample.at, min(sample.done / STEP, 450)) for sample in run.samples], run.algorithm)
    limit.steps(_best(lambda phase: phase.slots), "best")
    latency.steps(_best(lambda phase: 1e3 * phase.base), "best")
    rate.steps(_best(lambda phase: phase.slots / phase.base), "best")
    everything = {**names, "none": "no limit: all 200 clients"}
    return sheet([
        ("Limit", names, limit), ("Latency of a call, ms", everything, latency), ("Calls per second", everything, rate),
    ])  # fmt: skip


def _best(value) -> list[tuple[float, float]]:
    starts = [0.0, *(phase.until for phase in PHASES)]
    points = [(start, float(value(phase))) for start, phase in zip(starts, PHASES, strict=False)]
    return [*points, (PHASES[-1].until, points[-1][1])]


def _phases(high: float, label: str) -> Plot:
    plot = plot_of(PHASES[-1].until, high, label)
    starts = [0.0, *(phase.until for phase in PHASES)]
    for number, (start, phase) in enumerate(zip(starts, PHASES, strict=False)):
        if number % 2:
            plot.bar((start, phase.until, 0, high), "phase")
        plot.text((plot.x(start) + plot.x(phase.until)) / 2, 14, phase.name, "band-name")
    plot.values(marks(high))
    return plot


def storm(runs: dict[str, Storm]) -> str:
    names = {
        "requests": "requests that reach the service, per second",
        "succeeded": f"calls that succeed, of {ARRIVALS} per second",
        "best": f"what the service takes: {CAPACITY} per second",
    }
    return sheet([(f"Retries {name}", names, _storm(run)) for name, run in runs.items()])


def _storm(run: Storm) -> Plot:
    high = 350
    plot = plot_of(SECONDS, high, "requests and successes per second over time")
    plot.band(*OUTAGE, "outage", "outage")
    plot.values(marks(high))
    for counts, style in ((run.requests, "requests"), (run.succeeded, "succeeded")):
        plot.steps([(float(second), min(counts[second], high)) for second in range(SECONDS)], style, filled=True)
    plot.steps([(0.0, CAPACITY), (float(SECONDS), CAPACITY)], "best")
    return plot

"""Just enough SVG for the report's plots: scales, axes, bars, steps. Colours are CSS classes of the page."""

from __future__ import annotations

import html
from dataclasses import dataclass, field

LEFT, RIGHT, TOP, BOTTOM = 52, 12, 20, 24


@dataclass(slots=True)
class Plot:
    """One drawing. Data go in as seconds and values; `high` is the top of the value axis."""

    seconds: float
    high: float
    height: int
    width: int = 1040
    label: str = ""
    parts: list[str] = field(default_factory=list[str])

    def x(self, at: float) -> float:
        """Where a time is."""
        share = min(max(at / self.seconds, 0.0), 1.0)
        return round(LEFT + share * (self.width - LEFT - RIGHT), 1)

    def y(self, value: float) -> float:
        """Where a value is."""
        return round(self.height - BOTTOM - value / self.high * (self.height - TOP - BOTTOM), 1)

    def bar(self, box: tuple[float, float, float, float], style: str, title: str = "") -> None:
        """A filled rectangle (from, to, low, high), at least two pixels wide, with a tooltip."""
        start, end, low, high = box
        left, right, top, bottom = self.x(start), self.x(end), self.y(high), self.y(low)
        shown = f"<title>{html.escape(title)}</title>" if title else ""
        size = f'width="{max(right - left, 2.0):.1f}" height="{bottom - top:.1f}"'
        self.parts.append(f'<rect class="{style}" x="{left}" y="{top}" {size}>{shown}</rect>')

    def band(self, start: float, end: float, style: str, words: str) -> None:
        """A background over the whole height, named above it."""
        self.bar((start, end, 0, self.high), style, words)
        middle = (self.x(start) + self.x(end)) / 2
        self.text(middle, TOP - 6, words, "band-name")

    def steps(self, points: list[tuple[float, float]], style: str, *, filled: bool = False) -> None:
        """A line that holds each value until the next point."""
        if not points:
            return
        path = f"M{self.x(points[0][0])},{self.y(points[0][1])}"
        path += "".join(f"H{self.x(at)}V{self.y(value)}" for at, value in points[1:])
        if filled:
            area = f"{path}V{self.y(0)}H{self.x(points[0][0])}Z"
            self.parts.append(f'<path class="{style} area" d="{area}"/>')
        self.parts.append(f'<path class="{style} line" d="{path}"/>')

    def text(self, x: float, y: float, words: str, style: str) -> None:
        """Words at a place in pixels."""
        self.parts.append(f'<text class="{style}" x="{x:.1f}" y="{y:.1f}">{html.escape(words)}</text>')

    def values(self, marks: list[tuple[float, str]]) -> None:
        """Grid lines with their names at the left."""
        for value, words in marks:
            y = self.y(value)
            self.parts.append(f'<line class="grid" x1="{LEFT}" x2="{self.width - RIGHT}" y1="{y}" y2="{y}"/>')
            self.text(LEFT - 6, y + 3.5, words, "tick left")

    def times(self) -> None:
        """Ticks of whole seconds, about ten of them."""
        step = nice_step(self.seconds, 12)
        tick = 0.0
        while tick <= self.seconds:
            self.text(self.x(tick), self.height - 8, f"{tick:g} s", "tick")
            tick += step

    def render(self) -> str:
        """The element."""
        inside = "".join(self.parts)
        return (
            f'<svg viewBox="0 0 {self.width} {self.height}" role="img" aria-label="{html.escape(self.label)}">'
            f"{inside}</svg>"
        )


def nice_step(span: float, most: int) -> float:
    """A step of 1, 2 or 5 times a power of ten that gives at most `most` marks."""
    step = 1e-3
    factors = (2.0, 2.5, 2.0)
    turn = 0
    while span / step > most:
        step *= factors[turn % 3]
        turn += 1
    return round(step, 6)


def marks(high: float, unit: float = 1.0, most: int = 4) -> list[tuple[float, str]]:
    """Round values from 0 to `high`; their names count in `unit`."""
    step = max(nice_step(high / unit, most), 1.0) * unit
    count = int(high / step)
    return [(step * number, f"{step * number / unit:g}") for number in range(count + 1)]


def lanes(spans: list[tuple[float, float]]) -> list[int]:
    """For each span, in order of start, the lowest lane that is free then."""
    free_at: list[float] = []
    chosen: list[int] = []
    for start, end in spans:
        lane = next((number for number, free in enumerate(free_at) if free <= start), len(free_at))
        free_at[lane : lane + 1] = [end]
        chosen.append(lane)
    return chosen

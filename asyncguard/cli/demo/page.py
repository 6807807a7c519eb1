"""report.html: one file, inline SVG and CSS, no script, nothing from another host."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from asyncguard.cli.demo import facts, plots, report
from asyncguard.cli.demo.faults import MEANING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from asyncguard.cli.demo.run import Result

STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --quiet: #667085; --line: #e4e8ee; --paper: #ffffff; --card: #f7f8fa;
  --good: #1a7f4b; --bad: #b42318; --call: #b9c4d3; --mark: #3b6fb6; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ef; --quiet: #98a2b3; --line: #2b3442; --paper: #10151d;
  --card: #18202b; --good: #4cc38a; --bad: #ff8575; --call: #48566b; --mark: #7ba7e0; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 14px/1.45 "DejaVu Sans", system-ui, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 28px 40px 48px; }
h1 { font-size: 22px; margin: 0 0 2px; } h2 { font-size: 15px; margin: 26px 0 6px; }
.sub { color: var(--quiet); margin: 0 0 16px; } .verdict { font-weight: 600; }
.good { color: var(--good); } .bad { color: var(--bad); }
.tiles { display: grid; grid-template-columns: repeat(6, 1fr); gap: 10px; margin: 14px 0 8px; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 9px 12px; }
.tile b { display: block; font-size: 20px; font-variant-numeric: tabular-nums; white-space: nowrap; }
.tile span { color: var(--quiet); font-size: 12px; }
svg { display: block; width: 100%; height: auto; } svg text { font-size: 10.5px; fill: var(--quiet); }
.tick { text-anchor: middle; } .tick.left { text-anchor: end; } .band-name { text-anchor: middle; }
.grid { stroke: var(--line); } .line { fill: none; stroke-width: 1.6; } .area { stroke: none; opacity: 0.16; }
.stored.line { stroke: var(--good); } .stored.area { fill: var(--good); }
.calls.line { stroke: var(--call); } .calls.area { fill: var(--call); opacity: 0.35; }
.requests.line { stroke: var(--mark); } rect.calls { fill: var(--call); } rect.requests { fill: var(--mark); }
.memory.line { stroke: #7a5195; } .memory.area { fill: #7a5195; }
.outage-band { fill: var(--bad); opacity: 0.10; } .freeze-band { fill: var(--mark); opacity: 0.14; }
.closed { fill: #8fd0ab; } .open { fill: #e0523f; } .half_open { fill: #efb13b; }
.ok { fill: var(--call); } .f429 { fill: #e69f00; } .f503 { fill: #cc79a7; } .freset { fill: #d55e00; }
.fstall { fill: #7a5195; } .fdrip { fill: #2f7fc1; } .ftruncated { fill: #009e73; } .fnan { fill: #b8a000; }
.foutage { fill: #a83232; }
.legend { display: flex; flex-wrap: wrap; gap: 3px 16px; font-size: 12px; color: var(--quiet); margin: 4px 0 2px; }
.legend svg { display: inline-block; width: 11px; height: 11px; margin-right: 5px; vertical-align: -1px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
td, th { text-align: left; padding: 4px 12px 4px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--quiet); font-weight: 500; font-size: 12px; } td:first-child { white-space: nowrap; }
.two { display: grid; grid-template-columns: 1fr 1fr; gap: 0 36px; } details { margin-top: 8px; }
summary { cursor: pointer; color: var(--quiet); } code { font-size: 12px; }
@media (max-width: 800px) { .two { grid-template-columns: 1fr; } .tiles { grid-template-columns: repeat(2, 1fr); } }
"""


def page(results: Sequence[Result]) -> str:
    """The whole document; the last result (guarded, when compared) is shown in full, the others beside it."""
    main = results[-1]
    parts = [_head(main), _tiles(main)]
    if len(results) > 1:
        parts.append(_comparison(results))
    parts += [_plots(result, named=len(results) > 1) for result in reversed(results)]
    parts += [_tables(main), _details(main)]
    title = f"asyncguard demo: {main.name}"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>'
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )


def _head(result: Result) -> str:
    style = "good" if result.good else "bad"
    return (
        f"<h1>An embedding job under faults, {html.escape(NAMES[result.name])}</h1>"
        f'<p class="sub">{html.escape(report.title(result))}</p>'
        f'<p class="verdict {style}">{html.escape(report.conclusion(result))}</p>'
    )


IN_FLIGHT = [("calls", "calls of the job"), ("requests", "requests on the wire")]
CIRCUIT = [("closed", "circuit closed"), ("open", "open: calls are kept away"), ("half_open", "half-open: probes")]
NAMES = {"bare": "without protection", "stamina": "with stamina and a semaphore", "guarded": "guarded by asyncguard"}


def _tiles(result: Result) -> str:
    verdict, journal = result.verdict, result.journal
    assert verdict is not None  # noqa: S101 - a result that is reported has been judged
    seconds = facts.batch_seconds(journal)
    tiles = [
        (f"{verdict.stored:,} / {verdict.documents:,}", "documents stored"),
        (f"{verdict.recall:.3f}", "recall@10, exact search"),
        (f"{len(result.handled)}", f"of {result.requests} requests met a fault"),
        (f"{len(result.users.answers)} / {result.users.asked}", "users' questions answered"),
        (f"{facts.percentile(seconds, 0.5):.2f} / {facts.percentile(seconds, 0.99):.1f} s", "a batch, p50 / p99"),
        (f"{journal.ended - journal.started:.1f} s", "the whole job"),
    ]
    inside = "".join(f'<div class="tile"><b>{number}</b><span>{words}</span></div>' for number, words in tiles)
    return f'<div class="tiles">{inside}</div>'


def _plots(result: Result, *, named: bool) -> str:
    name = f"{NAMES[result.name]}: " if named else ""
    circuit = f"{plots.circuit(result)}{_boxes(CIRCUIT)}" if result.journal.guarded else ""
    memory = "" if named else f"<h2>Memory of client and service, MiB</h2>{plots.memory(result)}"
    return (
        f"<h2>{html.escape(name)}Every request to the service, and the fault it met</h2>"
        f"{_legend(result)}{plots.requests(result)}{circuit}"
        f'<div class="two"><div><h2>Documents stored</h2>{plots.stored(result)}</div>'
        f"<div><h2>In flight</h2>{plots.in_flight(result)}{_boxes(IN_FLIGHT)}</div></div>"
        f"{memory}"
    )


def _legend(result: Result) -> str:
    came = [("ok", "answered")] + [(f"f{row.fault}", MEANING[row.fault]) for row in facts.by_fault(result.handled)]
    return _boxes(came)


def _boxes(named: Iterable[tuple[str, str]]) -> str:
    box = '<svg viewBox="0 0 11 11"><rect class="{}" width="11" height="11" rx="2"/></svg>'
    spans = "".join(f"<span>{box.format(style)}{words}</span>" for style, words in named)
    return f'<div class="legend">{spans}</div>'


def _tables(result: Result) -> str:
    handled = [
        [MEANING[row.fault], f"{len(row.ids)}", "; ".join(f"{count}x {what}" for what, count in row.by)]
        for row in facts.by_fault(result.handled)
    ]
    if result.database_paused:
        handled.append(["PostgreSQL frozen", "1", report.database_pause(result)])
    title = "<h2>Faults by the service's own log, and what handled them</h2>"
    faults = title + table(["fault", "requests", "handled by"], handled)
    answers = "".join(
        f"<p><b>{html.escape(report.question_of(answer))}</b><br>"
        + "<br>".join(f"<code>{html.escape(hit.title)}</code> {hit.score:.2f}" for hit in answer.hits[:3])
        for answer in result.answers
    )
    if not result.journal.guarded:
        return f"{faults}<h2>Three answers</h2>{answers}"
    decorators = table(["decorator", "what it did"], facts.decorators(result))
    beside = f"<div><h2>What each decorator did</h2>{decorators}</div><div><h2>Three answers</h2>{answers}</div>"
    return f'{faults}<div class="two">{beside}</div>'


def _details(result: Result) -> str:
    start = result.journal.started
    rows = [[one.id, f"{one.at - start:.2f} s", MEANING[one.fault], one.by] for one in result.handled]
    inside = table(["request", "at", "fault", "handled by"], rows)
    return f"<details><summary>All {len(rows)} faults, request by request</summary>{inside}</details>"


def _comparison(results: Sequence[Result]) -> str:
    inside = table(["", *(result.name for result in results)], report.comparison_rows(results))
    return f"<h2>The same job under the same faults</h2>{inside}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; every cell is escaped."""
    top = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{top}</tr>{body}</table>"

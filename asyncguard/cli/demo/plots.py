"""The plots of report.html, all over the same time axis."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from asyncguard import events
from asyncguard.cli.demo import faults
from asyncguard.cli.demo.svg import Plot, lanes, marks

if TYPE_CHECKING:
    from asyncguard.cli.demo.journal import Attempt, Journal
    from asyncguard.cli.demo.run import Result

LANE = 13  # pixels
HALF = 500  # pixels; two plots stand side by side
MIB = 2**20


def requests(result: Result) -> str:
    """One bar for each request, coloured by the fault it met."""
    attempts = sorted(
        (one for call in result.journal.calls for one in call.attempts), key=lambda attempt: attempt.started
    )
    met = {one.id: one for one in result.handled}
    spans = [(one.started, over(result, one)) for one in attempts]
    rows = lanes(spans)
    high = max(rows, default=0) + 1
    plot = _plot(result, high=high, height=46 + LANE * high, label="requests over time")
    _bands(plot, result)
    zero = result.journal.started
    for attempt, (start, end), row in zip(attempts, spans, rows, strict=True):
        fault = met.get(attempt.id)
        style = f"f{fault.fault}" if fault else "ok"
        told = f"{faults.MEANING[fault.fault]}: {fault.by}" if fault else "answered"
        box = (start - zero, end - zero, row + 0.12, row + 0.88)
        plot.bar(box, style, f"{attempt.id} {told}")
    plot.times()
    return plot.render()


def over(result: Result, attempt: Attempt) -> float:
    """When a request was really over: the hooks of the client see the end of the headers, a drip comes after them."""
    call = next(call for call in result.journal.calls if attempt in call.attempts)
    if attempt.id not in {one.id for one in result.handled if one.fault == "drip"}:
        return attempt.ended or call.ended
    said = [at for at, event in call.events if isinstance(event, (events.CallTimedOut, events.RetryScheduled))]
    return min((at for at in said if at > attempt.started), default=call.ended)


def _plot(result: Result, *, high: float, height: int, label: str, width: int = 1040) -> Plot:
    seconds = max(result.journal.ended - result.journal.started, 0.1)
    return Plot(seconds=seconds, high=high, height=height, width=width, label=label)


def _bands(plot: Plot, result: Result) -> None:
    zero = result.journal.started
    out = [one.at for one in result.handled if one.fault == faults.OUTAGE]
    if out:
        seconds = faults.LEVELS[result.settings.faults].outage
        plot.band(min(out) - zero, min(out) - zero + seconds, "outage-band", f"outage, {seconds:g} s")
    if result.database_paused:
        start, end = result.database_paused
        plot.band(start - zero, end - zero, "freeze-band", "database frozen")


def circuit(result: Result) -> str:
    """The state of the circuit as a coloured ribbon."""
    plot = _plot(result, high=1, height=60, label="state of the circuit breaker")
    plot.text(46, 31, "circuit", "tick left")
    for start, end, state in circuit_states(result.journal):
        plot.bar((start, end, 0.1, 0.9), state, f"circuit {state} from {start:.1f} s to {end:.1f} s")
    return plot.render()


def circuit_states(journal: Journal) -> list[tuple[float, float, str]]:
    """(from, to, state) in seconds of the job, without gaps."""
    names: dict[type[events.Event], str] = {
        events.CircuitOpened: "open",
        events.CircuitHalfOpened: "half_open",
        events.CircuitClosed: "closed",
    }
    changes = [(at - journal.started, names[type(event)]) for at, event in journal.events if type(event) in names]
    end = journal.ended - journal.started
    points = [(0.0, "closed"), *changes, (end, "")]
    return [(start, stop, state) for (start, state), (stop, _) in pairwise(points) if stop > start]


def stored(result: Result) -> str:
    """Documents in the database."""
    total = len(result.documents)
    plot = _plot(result, high=total * 1.02, height=170, width=HALF, label="documents stored over time")
    plot.values(marks(total))
    _bands(plot, result)
    zero = result.journal.started
    plot.steps([(one.at - zero, one.stored) for one in result.journal.samples], "stored", filled=True)
    plot.times()
    return plot.render()


def in_flight(result: Result) -> str:
    """Calls of the job, and HTTP requests on the wire."""
    samples = result.journal.samples
    high = max((one.in_flight for one in samples), default=1) + 1
    plot = _plot(result, high=high, height=170, width=HALF, label="calls and requests in flight")
    plot.values(marks(high))
    _bands(plot, result)
    zero = result.journal.started
    plot.steps([(one.at - zero, one.in_flight) for one in samples], "calls", filled=True)
    plot.steps([(one.at - zero, one.requests) for one in samples], "requests")
    plot.times()
    return plot.render()


def memory(result: Result) -> str:
    """Resident memory of the client and the service together."""
    samples = result.journal.samples
    high = max((one.memory for one in samples), default=MIB) * 1.1
    plot = _plot(result, high=high, height=130, label="memory in MiB")
    plot.values(marks(high, MIB))
    zero = result.journal.started
    plot.steps([(one.at - zero, one.memory) for one in samples], "memory", filled=True)
    plot.times()
    return plot.render()

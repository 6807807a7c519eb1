"""The report on the terminal."""

from __future__ import annotations

import platform
import textwrap
from typing import TYPE_CHECKING

from asyncguard.cli.demo import facts
from asyncguard.cli.demo.faults import MEANING
from asyncguard.cli.demo.job import name_of
from asyncguard.events import CallTimedOut

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncguard.cli.demo.pipeline import Answer
    from asyncguard.cli.demo.referee import Verdict
    from asyncguard.cli.demo.run import Result

WIDTH = 110


def report(result: Result) -> str:
    """One run, whole."""
    parts = [title(result), _summary(result), _faults(result)]
    if result.journal.guarded:
        parts.append(_decorators(result))
    if result.job.failures:
        parts.append(_failures(result))
    return "\n\n".join([*parts, _answers(result.answers), conclusion(result)])


def title(result: Result) -> str:
    """What was run."""
    settings = result.settings
    what = f"{len(result.documents):,} docstrings of Python {platform.python_version()}"
    return f"asyncguard demo, {result.name}: {what}, faults {settings.faults}, seed {settings.seed}"


def _summary(result: Result) -> str:
    return "\n".join(f"  {name:<11}{text}" for name, text in summary(result))


def summary(result: Result) -> list[tuple[str, str]]:
    """The few facts that matter, each in a line."""
    journal, verdict = result.journal, result.verdict
    assert verdict is not None  # noqa: S101 - a result that is reported has been judged
    seconds = facts.batch_seconds(journal)
    texts = len({document.text for document in result.documents})
    return [
        ("documents", f"{_damage(verdict)}; {texts:,} different texts"),
        ("recall@10", f"{verdict.recall:.4f}, exact search, against the service's own clean vectors"),
        ("time", f"{journal.ended - journal.started:.1f} s; a batch of documents: {_percentiles(seconds)}"),
        ("requests", f"{result.requests} to the service, {len(result.handled)} of them met a fault"),
        ("cache", f"{facts.saved_texts(journal)} texts did not have to be embedded again"),
        ("users", _users(result)),
    ]


def _damage(verdict: Verdict) -> str:
    stored = f"{verdict.stored:,} of {verdict.documents:,} stored"
    return f"{stored}, {len(verdict.lost)} lost, {len(verdict.wrong)} with a wrong vector"


def _percentiles(seconds: list[float]) -> str:
    return f"p50 {facts.percentile(seconds, 0.5):.2f} s, p99 {facts.percentile(seconds, 0.99):.2f} s"


def _users(result: Result) -> str:
    users = result.users
    words = sum(answer.degraded for answer in users.answers)
    return f"{users.asked} questions asked meanwhile, {len(users.errors)} without an answer, {words} answered by words"


def _faults(result: Result) -> str:
    lines = ["Faults by the service's own log, and what handled each (call.attempt)"]
    for row in facts.by_fault(result.handled):
        by = "; ".join(f"{count}x {what}" for what, count in row.by)
        first = f"  {len(row.ids):>3} {MEANING[row.fault]:<29} {by}"
        lines.append(textwrap.fill(first, WIDTH, subsequent_indent=" " * 36))
        lines.append(textwrap.fill(" ".join(row.ids), WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6))
    if result.database_paused:
        start, end = result.database_paused
        lines.append(f"    and PostgreSQL frozen for {end - start:.1f} s (SIGSTOP): {database_pause(result)}")
    return "\n".join(lines if len(lines) > 1 else [*lines, "  none"])


def database_pause(result: Result) -> str:
    """What came of the calls that were in the database then."""
    start, end = result.database_paused or (0.0, 0.0)
    hit = [call for call in result.journal.calls if call.started < end and call.ended > start]
    said = [event for call in hit for _, event in call.events]
    cut = sum(isinstance(event, CallTimedOut) and event.pipeline.endswith("store") for event in said)
    lost = sum(call.error is not None for call in hit)
    attempts = facts.counted(cut, "attempt")
    return f"{facts.counted(len(hit), 'call')} under way, {attempts} cut off and repeated, {lost} failed"


def _decorators(result: Result) -> str:
    rows = [f"  {name:<16} {text}" for name, text in facts.decorators(result)]
    return "\n".join(["What each decorator did", *rows])


def _failures(result: Result) -> str:
    lines = [f"Lost: {facts.counted(len(result.job.failures), 'batch', 'batches')}. Where:"]
    for failure in result.job.failures[:6]:
        error = textwrap.shorten(str(failure.error).partition(", url=")[0], 70) or "no message"
        lines.append(f"  {name_of(failure.batch)}: {type(failure.error).__name__}: {error}")
    if len(result.job.failures) > 6:  # noqa: PLR2004 - as many as are shown
        lines.append(f"  and {len(result.job.failures) - 6} more")
    return "\n".join(lines)


def _answers(answers: Sequence[Answer]) -> str:
    lines: list[str] = []
    for answer in answers:
        found = ", ".join(f"{hit.title} ({hit.score:.2f})" for hit in answer.hits[:3])
        lines += [question_of(answer), f"  {found or 'nothing found'}"]
    return "\n".join(lines or ["No question was answered at the end."])


def question_of(answer: Answer) -> str:
    """The question, and whether words had to do instead of vectors."""
    return f"{answer.question} (answered by words)" if answer.degraded else answer.question


def conclusion(result: Result) -> str:
    """All was well, or what was not."""
    if result.good:
        return "Good: nothing lost, nothing wrong, recall 1.0, every fault accounted for."
    why = {
        f"{facts.counted(len(result.job.failures), 'batch', 'batches')} failed": result.job.failures,
        "the stored data is not what it should be": not (result.verdict and result.verdict.perfect),
        f"{facts.counted(len(result.users.errors), 'user')} got no answer": result.users.errors,
        f"{facts.counted(len(result.unexplained), 'fault')} unexplained": result.unexplained,
    }
    return "FAILED: " + ", ".join(text for text, is_so in why.items() if is_so) + "."


def comparison(results: Sequence[Result]) -> str:
    """The same job under the same faults, one column a variant."""
    table = [["", *(result.name for result in results)]]
    table += [[name, *columns] for name, *columns in comparison_rows(results)]
    widths = [max(len(row[at]) for row in table) for at in range(len(table[0]))]
    return "\n".join(_line(row, widths) for row in table)


def _line(row: list[str], widths: list[int]) -> str:
    first, *rest = zip(row, widths, strict=True)
    return "  ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest)])


def comparison_rows(results: Sequence[Result]) -> list[list[str]]:
    """Facts by variant."""
    facts_of = [_facts(result) for result in results]
    return [[name, *(column[name] for column in facts_of)] for name in facts_of[0]]


def _facts(result: Result) -> dict[str, str]:
    verdict, journal = result.verdict, result.journal
    assert verdict is not None  # noqa: S101 - a result that is reported has been judged
    return {
        "documents stored": f"{verdict.stored:,}",
        "documents lost": f"{len(verdict.lost):,}",
        "recall@10": f"{verdict.recall:.4f}",
        "users without an answer": f"{len(result.users.errors)} of {result.users.asked}",
        "requests to the service": f"{result.requests}",
        "requests that met a fault": f"{len(result.handled)}",
        "seconds": f"{journal.ended - journal.started:.1f}",
        "batches that were stored": _percentiles(facts.batch_seconds(journal)),
    }

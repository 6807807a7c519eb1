"""The report on the terminal."""

from __future__ import annotations

import platform
import textwrap
from typing import TYPE_CHECKING

from asyncguard.cli.demo import facts
from asyncguard.cli.demo.faults import MEANING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncguard.cli.demo.pipeline import Answer
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
        (
            "documents",
            f"{verdict.stored:,} of {verdict.documents:,} stored ({texts:,} different texts), "
            f"{len(verdict.lost)} lost, {len(verdict.wrong)} with a wrong vector",
        ),
        ("recall@10", f"{verdict.recall:.4f}, exact search, against the service's own clean vectors"),
        (
            "time",
            f"{journal.ended - journal.started:.1f} s; a batch of documents: p50 "
            f"{facts.percentile(seconds, 0.5):.2f} s, p99 {facts.percentile(seconds, 0.99):.2f} s",
        ),
        (
            "requests",
            f"{result.requests} to the service, {len(result.handled)} of them met a fault; "
            f"{facts.saved_texts(journal)} texts came from the cache",
        ),
        ("users", _users(result)),
    ]


def _users(result: Result) -> str:
    answered, failed = len(result.users.answers), len(result.users.errors)
    degraded = sum(answer.degraded for answer in result.users.answers)
    return f"{answered + failed} questions asked meanwhile, {failed} without an answer, {degraded} answered by words only"


def _faults(result: Result) -> str:
    lines = ["Faults by the service's own log, and what handled each (call.attempt)"]
    for row in facts.by_fault(result.handled):
        by = "; ".join(f"{count}x {what}" for what, count in row.by)
        lines.append(f"  {len(row.ids):>3} {MEANING[row.fault]:<29} {by}")
        lines.append(textwrap.fill(" ".join(row.ids), WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6))
    if result.database_paused:
        start, end = result.database_paused
        lines.append(f"    and PostgreSQL frozen for {end - start:.1f} s (SIGSTOP): {database_pause(result)}")
    return "\n".join(lines if len(lines) > 1 else [*lines, "  none"])


def database_pause(result: Result) -> str:
    """What came of the calls that were in the database then."""
    start, end = result.database_paused or (0.0, 0.0)
    hit = [call for call in result.journal.calls if call.started < end and call.ended > start]
    cut = sum(type(event).__name__ == "CallTimedOut" and event.pipeline.endswith("store") for call in hit for _, event in call.events)
    lost = sum(call.error is not None for call in hit)
    return f"{len(hit)} calls were under way, {cut} attempts cut off and repeated, {lost} failed"


def _decorators(result: Result) -> str:
    rows = [f"  {name:<16} {text}" for name, text in facts.decorators(result)]
    return "\n".join(["What each decorator did", *rows])


def _failures(result: Result) -> str:
    lines = [f"Lost: {len(result.job.failures)} batches. Where:"]
    for failure in result.job.failures[:6]:
        error = textwrap.shorten(str(failure.error).partition(", url=")[0], 70) or "no message"
        lines.append(f"  {failure.call.what}: {type(failure.error).__name__}: {error}")
    if len(result.job.failures) > 6:  # noqa: PLR2004 - as many as are shown
        lines.append(f"  and {len(result.job.failures) - 6} more")
    return "\n".join(lines)


def _answers(answers: Sequence[Answer]) -> str:
    lines: list[str] = []
    for answer in answers:
        found = ", ".join(f"{hit.title} ({hit.score:.2f})" for hit in answer.hits[:3])
        lines += [answer.question, f"  {found or 'nothing found'}"]
    return "\n".join(lines or ["No question was answered at the end."])


def conclusion(result: Result) -> str:
    if result.good:
        return "Good: nothing lost, nothing wrong, recall 1.0, every fault accounted for."
    why = {
        f"{len(result.job.failures)} batches failed": result.job.failures,
        "the stored data is not what it should be": not (result.verdict and result.verdict.perfect),
        f"{len(result.users.errors)} users got no answer": result.users.errors,
        f"{len(result.unexplained)} faults unexplained": result.unexplained,
    }
    return "FAILED: " + ", ".join(text for text, is_so in why.items() if is_so) + "."


def comparison(results: Sequence[Result]) -> str:
    """The same job under the same faults, one column a variant."""
    table = [["", *(result.name for result in results)]]
    table += [[name, *columns] for name, *columns in comparison_rows(results)]
    widths = [max(len(row[at]) for row in table) for at in range(len(table[0]))]
    return "\n".join("  ".join(cell.rjust(width) if at else cell.ljust(width) for at, (cell, width) in enumerate(zip(row, widths, strict=True))) for row in table)


def comparison_rows(results: Sequence[Result]) -> list[list[str]]:
    """Facts by variant."""
    facts_of = [_facts(result) for result in results]
    return [[name, *(column[name] for column in facts_of)] for name in facts_of[0]]


def _facts(result: Result) -> dict[str, str]:
    verdict, journal = result.verdict, result.journal
    assert verdict is not None  # noqa: S101 - a result that is reported has been judged
    seconds = facts.batch_seconds(journal)
    return {
        "documents stored": f"{verdict.stored:,}",
        "documents lost": f"{len(verdict.lost):,}",
        "recall@10": f"{verdict.recall:.4f}",
        "users without an answer": f"{len(result.users.errors)} of {len(result.users.errors) + len(result.users.answers)}",
        "requests to the service": f"{result.requests}",
        "requests that met a fault": f"{len(result.handled)}",
        "seconds": f"{journal.ended - journal.started:.1f}",
        "batch p50, p99 (stored ones)": f"{facts.percentile(seconds, 0.5):.2f}, {facts.percentile(seconds, 0.99):.2f} s",
    }

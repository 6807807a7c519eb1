"""The numbers that both reports show, counted from the journal."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from asyncguard import events

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from asyncguard.cli.demo.audit import Handled
    from asyncguard.cli.demo.journal import Journal
    from asyncguard.cli.demo.run import Result

CacheEvent = events.CacheHit | events.CacheJoined | events.CacheMissed
EventT = TypeVar("EventT", bound=events.Event)


WORDS = {"permanent": "broken answers", "throttle": "throttled", "timeout": "timed out", "rejected": "kept away"}


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of fault: who met it, by what it was handled, and whether all of it was."""

    fault: str
    ids: list[str]
    by: list[tuple[str, int]]
    survived: bool


def counted(number: int, one: str, many: str = "") -> str:
    """A number with its noun: 1 batch, 2 batches."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def percentile(values: Iterable[float], share: float) -> float:
    """The nearest-rank percentile, 0 of nothing."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0


def batch_seconds(journal: Journal) -> list[float]:
    """How long each batch took that was embedded and stored: queueing, retries and pauses of its call included."""
    return [call.seconds for call in journal.calls if call.what.startswith("documents") and call.error is None]


def by_fault(handled: Sequence[Handled]) -> list[Row]:
    """One row for each kind of fault that came, the most frequent first."""
    kinds = Counter(one.fault for one in handled)
    return [_row(kind, [one for one in handled if one.fault == kind]) for kind, _ in kinds.most_common()]


def _row(kind: str, of_kind: list[Handled]) -> Row:
    by = Counter(one.by for one in of_kind).most_common()
    return Row(kind, [one.id for one in of_kind], by, all(one.survived for one in of_kind))


def said(journal: Journal, kind: type[EventT]) -> list[EventT]:
    """All events of a kind."""
    return [event for _, event in journal.events if isinstance(event, kind)]


def decorators(result: Result) -> list[tuple[str, str]]:
    """What each decorator did for the job: (its name, a sentence)."""
    journal = result.journal
    return [
        ("retry", _retry(journal)),
        ("timeout", f"{counted(len(said(journal, events.CallTimedOut)), 'call')} cut off that would have hung"),
        ("circuit_breaker", _circuit(journal)),
        ("validate_input", f"{len(said(journal, events.InputRejected))} answers refused that were not finite numbers"),
        ("cache_items", _cache(journal, "embed", "texts")),
        ("cache_result", _cache(journal, "answer", "answers")),
        ("bulkhead", _queued(journal, "bulkhead")),
        ("rate_limit", _queued(journal, "rate_limit")),
        ("memory_guard", _memory(journal)),
        ("fallback", f"{len(said(journal, events.FallbackUsed))} questions answered by words, not late or not at all"),
        ("monitor", f"{len(said(journal, events.CallFinished))} calls recorded"),
    ]


def _retry(journal: Journal) -> str:
    again = said(journal, events.RetryScheduled)
    kinds = ", ".join(
        f"{count} {WORDS.get(kind, kind)}" for kind, count in Counter(event.kind for event in again).most_common()
    )
    gave_up = len(said(journal, events.RetryGaveUp))
    return f"{counted(len(again), 'attempt')} repeated ({kinds or 'none'}), {counted(gave_up, 'call')} given up"


def _circuit(journal: Journal) -> str:
    opened = len(said(journal, events.CircuitOpened))
    away = sum(event.reason == "open" for event in said(journal, events.CallRejected))
    return f"opened {counted(opened, 'time')}, kept {counted(away, 'call')} away from a service that was down"


def _cache(journal: Journal, function: str, what: str) -> str:
    saved = items_of(journal, function, events.CacheHit, events.CacheJoined)
    return f"{saved} {what} not asked for again, {items_of(journal, function, events.CacheMissed)} asked for"


def _queued(journal: Journal, strategy: str) -> str:
    waits = [event.waited for event in said(journal, events.CallAdmitted) if strategy in event.strategy]
    return f"{counted(len(waits), 'call')} waited for their turn, {percentile(waits, 0.5) * 1000:.0f} ms in the median"


def _memory(journal: Journal) -> str:
    decided = Counter(event.decision for event in said(journal, events.MemoryDecided))
    most = max((event.reserved for event in said(journal, events.MemoryDecided)), default=0)
    words = ", ".join(f"{count} {decision}" for decision, count in decided.most_common())
    return f"{words or 'nothing to decide'}; at most {most / 2**20:.0f} MiB promised to running calls"


def saved_texts(journal: Journal) -> int:
    """Texts that cache_items took from memory, or from a call already under way."""
    return items_of(journal, "embed", events.CacheHit, events.CacheJoined)


def items_of(journal: Journal, function: str, *kinds: type[CacheEvent]) -> int:
    """The items that events of these kinds tell of, at one function."""
    events_ = [event for kind in kinds for event in said(journal, kind)]
    return sum(event.items for event in events_ if event.pipeline.endswith(function))

"""Which request meets which fault: a schedule made in advance from a seed.

Exactly reproducible: the schedule. It is a function of the seed, the level and the batches, and belongs to the text
of a batch and to how often that batch has been asked for, not to time or order. So the same seed deals the same
faults to the same batches, however the calls interleave, and bare, stamina and guarded meet the same ones.
Not exactly reproducible: which requests fall into the outage. It starts when a given number of batches has been asked
for and lasts for seconds; who asks during those seconds depends on timing. And a client that gives a batch up never
meets the faults that waited for its next attempts.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

KINDS = ("429", "503", "reset", "stall", "drip", "truncated", "nan")
OUTAGE = "outage"
MEANING = {
    "429": "429 with Retry-After",
    "503": "503 Service Unavailable",
    "reset": "connection reset",
    "stall": "no answer at all",
    "drip": "body in slow drips",
    "truncated": "JSON cut in half, status 200",
    "nan": "NaN in a vector, status 200",
    OUTAGE: "full outage",
}


@dataclass(frozen=True, slots=True)
class Level:
    """How bad it is. `share` of the batches meet a fault, each further attempt of theirs with `again`."""

    share: float
    again: float
    most: int  # in a row, for one batch
    outage: float  # seconds


LEVELS = {
    "none": Level(share=0.0, again=0.0, most=0, outage=0.0),
    "mild": Level(share=0.2, again=0.2, most=2, outage=3.0),
    "severe": Level(share=0.4, again=0.4, most=3, outage=6.0),
}


@dataclass(frozen=True, slots=True)
class Schedule:
    """Faults by the key of a batch, in the order of its attempts; the outage starts at the `outage_after`-th batch."""

    faults: dict[str, list[str]]
    outage_after: int
    outage_seconds: float

    def as_json(self) -> dict[str, Any]:
        """For the service, which is another process."""
        return asdict(self)


def digest(text: str) -> str:
    """A short name for a text, the same everywhere."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def keys_of(batches: Iterable[Sequence[str]]) -> list[str]:
    """One key a batch: its first text that occurs once in all batches, so that no cache ever takes it out.

    A batch that has none is left alone.
    """
    listed = [[digest(text) for text in batch] for batch in batches]
    times = Counter(key for batch in listed for key in batch)
    return [key for batch in listed for key in [key for key in batch if times[key] == 1][:1]]


def deal(seed: int, level: Level, keys: Sequence[str], *, outage_after: int) -> Schedule:
    """Choose the batches, and deal them the kinds in turn, so that each kind comes as often as any other."""
    rng = random.Random(seed)
    unlucky = rng.sample(keys, k=round(level.share * len(keys)))
    deck = rng.sample(KINDS, k=len(KINDS))
    faults: dict[str, list[str]] = {key: [] for key in keys}
    for place, key in enumerate(unlucky):
        faults[key].append(deck[place % len(deck)])
        while len(faults[key]) < level.most and rng.random() < level.again:
            faults[key].append(rng.choice(KINDS))
    return Schedule(faults, outage_after=outage_after, outage_seconds=level.outage)


class Injector:
    """Deals the scheduled faults to the requests that come. `clock` gives monotonic seconds."""

    def __init__(self, schedule: Schedule, clock: Callable[[], float]) -> None:
        self._schedule = schedule
        self._clock = clock
        self._asked: dict[str, int] = {}  # how often each batch was asked for, requests in the outage not counted
        self._outage_until: float | None = None

    def fault_of(self, texts: Sequence[str]) -> str | None:
        """The fault that is due for a request of these texts (their digests); asking counts."""
        key = next((text for text in texts if text in self._schedule.faults), None)
        if key is not None:
            self._begin_outage(new=key not in self._asked)
            self._asked.setdefault(key, 0)
        if self._outage_until is not None and self._clock() < self._outage_until:
            return OUTAGE  # the batch's own faults wait until the service is back
        return None if key is None else self._due(key)

    def _begin_outage(self, *, new: bool) -> None:
        reached = new and len(self._asked) >= self._schedule.outage_after
        if reached and self._outage_until is None:
            self._outage_until = self._clock() + self._schedule.outage_seconds

    def _due(self, key: str) -> str | None:
        nth = self._asked[key]
        self._asked[key] = nth + 1
        due = self._schedule.faults[key]
        return due[nth] if nth < len(due) else None

"""What happened, as frozen facts: one class per event, named after it.

Handlers (`on_event=` of a strategy, `asyncguard.subscribe`) receive these. New fields may be added; none goes away.
Nothing of the user's data is in them, except the exception that was raised and the partition, in which what looks like
a secret is redacted.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "AttemptStarted",
    "CacheErrored",
    "CacheEvicted",
    "CacheHit",
    "CacheJoined",
    "CacheMissed",
    "CacheRefreshed",
    "CacheStored",
    "CallAdmitted",
    "CallFinished",
    "CallQueued",
    "CallRejected",
    "CallStarted",
    "CallTimedOut",
    "CancellationSwallowed",
    "ChaosInjected",
    "CircuitClosed",
    "CircuitHalfOpened",
    "CircuitOpened",
    "DriftChanged",
    "Event",
    "FallbackUsed",
    "HedgeFinished",
    "HedgeStarted",
    "InputRejected",
    "LimitChanged",
    "MemoryDecided",
    "MemoryReclaimed",
    "RetryGaveUp",
    "RetryScheduled",
    "TargetParked",
    "WorkAbandoned",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """The facts that every event has.

    `pipeline` is the name of the guarded function or pipeline, `strategy` the name of the strategy, `partition` the
    partition it decided for (empty without one). `observed` is true if the strategy only observes: it reports what it
    would have done and did not do it.
    """

    pipeline: str = ""
    strategy: str = ""
    partition: str = ""
    observed: bool = False


# --- attempts -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptStarted(Event):
    """A further attempt (the second or later) starts. `attempt` counts from 1."""

    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryScheduled(Event):
    """An attempt failed and the next starts after `delay` seconds. `kind` is the classification of the error."""

    attempt: int
    delay: float
    kind: str
    error: Exception | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryGaveUp(Event):
    """No further attempt: `reason` says why (max_retries, deadline, budget, retry_after, ...)."""

    attempts: int
    elapsed: float
    reason: str
    kind: str
    error: Exception | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetParked(Event):
    """A target asked for a pause: all callers of the strategy and partition wait `delay` seconds."""

    delay: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HedgeStarted(Event):
    """A second copy of the call starts because the first took longer than `delay` seconds, or failed."""

    attempt: int
    delay: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HedgeFinished(Event):
    """A hedged call is over; `winner` is the number of the attempt that won (1 is the original), 0 if all failed."""

    attempts: int
    winner: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FallbackUsed(Event):
    """The call failed and fallback number `position` (from 1) answered instead: the result is degraded."""

    position: int
    error: Exception


# --- time -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class CallTimedOut(Event):
    """The call was cancelled (or, sync, found late) after `seconds`."""

    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CancellationSwallowed(Event):
    """The deadline was over and the function was cancelled, but it swallowed the cancellation and returned."""

    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkAbandoned(Event):
    """The caller left, the work goes on (in a thread): its permits are kept until it ends. `running` counts such."""

    running: int


# --- admission ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRejected(Event):
    """The call was not let in. `reason` is a short word (open, full, late, rate, memory, deadline, ...)."""

    reason: str
    retry_after: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CallQueued(Event):
    """The call waits for its turn behind `ahead` others."""

    ahead: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CallAdmitted(Event):
    """A call that had to wait was let in after `waited` seconds."""

    waited: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitOpened(Event):
    """The circuit opened for `open_for` seconds: `failed` and `slow` of the last `calls` calls."""

    open_for: float
    calls: int
    failed: int
    slow: int
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitHalfOpened(Event):
    """The circuit lets `probes` calls through to see whether the dependency is back."""

    probes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitClosed(Event):
    """The dependency is back: the circuit closed after `open_for` seconds."""

    open_for: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitChanged(Event):
    """The adaptive concurrency limit moved."""

    old: int
    new: int


# --- memory ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryDecided(Event):
    """A decision of the memory guard: admitted, waited, forced or rejected. Sizes are bytes, `waited` seconds.

    `reserved` is promised to running calls of this process, `elsewhere` by other processes that share the memory.
    """

    decision: str
    used: int
    limit: int
    reserved: int
    need: int
    waited: float
    elsewhere: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryReclaimed(Event):
    """Memory was given back under pressure by `method` (cache, malloc_trim, gc): `freed` bytes in `seconds`."""

    method: str
    freed: int
    seconds: float


# --- cache ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheHit(Event):
    """`items` values came from the cache; `stale` if past their time to live. `age` is the oldest, in seconds."""

    age: float
    stale: bool = False
    items: int = 1
    layer: str = "memory"


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheMissed(Event):
    """`items` values were not in the cache and are computed."""

    items: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheJoined(Event):
    """The call waits for a computation that another call of the same key has started."""

    items: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheStored(Event):
    """`items` values were stored. `nbytes` is their estimated size, 0 if not measured."""

    items: int = 1
    nbytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheRefreshed(Event):
    """A background refresh ended; `ok` says whether it brought a value."""

    ok: bool
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheEvicted(Event):
    """`items` values left the cache because of `reason` (size, bytes, expired, invalidated, trimmed)."""

    items: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheErrored(Event):
    """A store failed or held something unreadable; the call went on without it."""

    operation: str
    error: str


# --- values and scope -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class InputRejected(Event):
    """Arguments or a result broke rules; `action` is raise, fallback or observe. `rules` are `parameter:rule`."""

    rules: tuple[str, ...]
    action: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CallStarted(Event):
    """A monitored call started."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallFinished(Event):
    """A monitored call ended with `outcome` (ok, error, fallback, cancelled, rejected) after `duration` seconds."""

    duration: float
    outcome: str
    error_type: str
    attempts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftChanged(Event):
    """The state of a drift detector changed to `state` (ok, suspect, drift, insufficient)."""

    field: str
    state: str
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ChaosInjected(Event):
    """A fault was injected on purpose: latency, error, result or cancellation."""

    fault: str

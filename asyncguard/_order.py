"""The canonical order of strategies, the reason of each place, and the pairs that do harm when turned around."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from asyncguard._strategy import Strategy

PLACES: dict[str, tuple[int, str]] = {
    "monitor": (10, "sees everything that happens to the call"),
    "validate_input": (20, "an invalid input never becomes valid by retrying"),
    "fallback": (30, "answers when everything inside has failed"),
    "cache_result": (40, "a hit must cost nothing"),
    "cache_items": (40, "a hit must cost nothing"),
    "timeout": (50, "bounds the whole call, retries and waits included"),
    "retry": (60, "each attempt takes its own permits"),
    "hedge": (70, "each copy of the call takes its own permits"),
    "circuit_breaker": (80, "rejects before anyone queues, and is checked again right before the call"),
    "bulkhead": (90, "bounds how many calls run at once"),
    "adaptive_concurrency": (91, "bounds how many calls run at once, by what the dependency can take"),
    "memory_guard": (100, "reserves bytes only for calls that may otherwise run"),
    "rate_limit": (110, "the token is taken last: paid in front of a queue it would burst out of it"),
    "attempt_timeout": (120, "bounds a single attempt, without the waits"),
    "chaos": (130, "stands in for a function that misbehaves"),
}
"""Kind -> (place, reason), outermost first. A timeout of scope "attempt" has a place of its own."""

_HARMFUL: dict[tuple[str, str], str] = {
    ("bulkhead", "retry"): "the slot is held while the retry sleeps",
    ("adaptive_concurrency", "retry"): "the slot is held while the retry sleeps, and the sleep counts as latency",
    ("memory_guard", "retry"): "the bytes stay reserved while the retry sleeps",
    ("rate_limit", "retry"): "only the first attempt pays a token, the others exceed the rate",
    ("circuit_breaker", "retry"): "the breaker sees one outcome for several attempts and opens late",
    ("retry", "cache_result"): "a cache inside a retry computes keys again for every attempt and hides nothing",
    ("retry", "cache_items"): "a cache inside a retry computes keys again for every attempt and hides nothing",
    ("retry", "validate_input"): "an invalid input never becomes valid by retrying",
    ("retry", "fallback"): "the fallback answers the first failure, so nothing is ever retried",
    ("circuit_breaker", "fallback"): "the fallback hides the failures from the breaker, so it never opens",
    ("adaptive_concurrency", "fallback"): "the fallback hides the failures, so the limit never falls because of them",
    ("cache_result", "fallback"): "what the fallback answers is kept as if the function had answered it",
    ("cache_items", "fallback"): "what the fallback answers is kept as if the function had answered it",
    ("circuit_breaker", "cache_result"): "hits count as successes of the dependency and keep the circuit closed",
    ("circuit_breaker", "cache_items"): "hits count as successes of the dependency and keep the circuit closed",
    ("bulkhead", "hedge"): "both copies share one slot, so the limit does not hold",
    ("adaptive_concurrency", "hedge"): "both copies share one slot, so the limit does not hold",
    ("memory_guard", "hedge"): "both copies share the bytes of one call",
    ("rate_limit", "hedge"): "only the first copy pays a token, the other exceeds the rate",
    ("bulkhead", "cache_result"): "hits queue behind misses",
    ("bulkhead", "cache_items"): "hits queue behind misses",
    ("adaptive_concurrency", "cache_result"): "hits queue behind misses, and count as fast answers of the dependency",
    ("adaptive_concurrency", "cache_items"): "hits queue behind misses, and count as fast answers of the dependency",
    ("memory_guard", "cache_result"): "hits reserve bytes that they do not need",
    ("memory_guard", "cache_items"): "hits reserve bytes that they do not need",
    ("rate_limit", "bulkhead"): "tokens paid in front of a queue burst out of it",
    ("rate_limit", "adaptive_concurrency"): "tokens paid in front of a queue burst out of it",
    ("rate_limit", "memory_guard"): "tokens paid in front of a queue burst out of it",
    ("rate_limit", "cache_result"): "hits pay tokens",
    ("rate_limit", "cache_items"): "hits pay tokens",
    ("attempt_timeout", "retry"): "a timeout of scope 'attempt' outside of the retry bounds all attempts together",
}


@dataclass(frozen=True, slots=True)
class Misplaced:
    """Two strategies of a pipeline whose order does harm; `outer` and `inner` are their positions from outside."""

    outer: int
    inner: int
    text: str

    class OrderWarning(UserWarning):
        """Stacked decorators are in an order that does harm."""

    Warning: ClassVar[type[UserWarning]] = OrderWarning

    def __str__(self) -> str:
        return self.text


def reason_at(strategies: Sequence[Strategy[Any, Any]], position: int) -> str:
    """Return what a strategy is good for where it stands: a timeout that a retry encloses bounds one attempt only."""
    role = strategies[position].role
    enclosed = any(outer.role == "retry" for outer in strategies[:position])
    return "bounds each attempt of the retry around it" if role == "timeout" and enclosed else PLACES[role][1]


def harmful_pairs(strategies: Sequence[Strategy[Any, Any]]) -> Iterator[Misplaced]:
    """Yield each pair whose order does harm, with the reason."""
    for i, outer in enumerate(strategies):
        for j in range(i + 1, len(strategies)):
            reason = _HARMFUL.get((outer.role, strategies[j].role))
            if reason is not None:
                text = f"{strategies[j].name} inside {outer.name}: {reason}; turn them around, or use guard(...)"
                yield Misplaced(i, j, text)

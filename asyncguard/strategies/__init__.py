"""Floor 3: one file per strategy: its options, the strategy, its drivers if it has its own, the decorator.

The classes are here, each loaded when it is first used: `pipeline_of(fn)[CacheResult]`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asyncguard.strategies.adaptive_concurrency import AdaptiveConcurrency as AdaptiveConcurrency
    from asyncguard.strategies.bulkhead import Bulkhead as Bulkhead
    from asyncguard.strategies.cache_items import CacheItems as CacheItems
    from asyncguard.strategies.cache_result import CacheResult as CacheResult
    from asyncguard.strategies.chaos import Chaos as Chaos
    from asyncguard.strategies.circuit_breaker import CircuitBreaker as CircuitBreaker
    from asyncguard.strategies.fallback import Fallback as Fallback
    from asyncguard.strategies.hedge import Hedge as Hedge
    from asyncguard.strategies.memory_guard import MemoryGuard as MemoryGuard
    from asyncguard.strategies.monitor import Monitor as Monitor
    from asyncguard.strategies.rate_limit import RateLimit as RateLimit
    from asyncguard.strategies.retry import Retry as Retry
    from asyncguard.strategies.timeout import Timeout as Timeout
    from asyncguard.strategies.validate_input import ValidateInput as ValidateInput

_MODULE_OF = {
    "AdaptiveConcurrency": "adaptive_concurrency",
    "Bulkhead": "bulkhead",
    "CacheItems": "cache_items",
    "CacheResult": "cache_result",
    "Chaos": "chaos",
    "CircuitBreaker": "circuit_breaker",
    "Fallback": "fallback",
    "Hedge": "hedge",
    "MemoryGuard": "memory_guard",
    "Monitor": "monitor",
    "RateLimit": "rate_limit",
    "Retry": "retry",
    "Timeout": "timeout",
    "ValidateInput": "validate_input",
}

__all__ = sorted(_MODULE_OF)  # noqa: PLE0605 - the names above, in one place # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module 'asyncguard.strategies' has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f"asyncguard.strategies.{module}"), name)
    return value


def __dir__() -> list[str]:
    return list(__all__)

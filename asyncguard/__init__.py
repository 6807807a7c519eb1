"""asyncguard: async-first resilience for machine learning in production.

Everything public is here; each part is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asyncguard._machines.budget import RetryBudget as RetryBudget
    from asyncguard._machines.classify import TRANSIENT as TRANSIENT
    from asyncguard._machines.classify import classify as classify
    from asyncguard._machines.classify import register_classifier as register_classifier
    from asyncguard._machines.rates import Rate as Rate
    from asyncguard._machines.rules import Array as Array
    from asyncguard._machines.rules import Columns as Columns
    from asyncguard._machines.rules import Keys as Keys
    from asyncguard._permits import current_permit as current_permit
    from asyncguard._pipeline import Pipeline as Pipeline
    from asyncguard._pipeline import guard as guard
    from asyncguard._pipeline import pipeline_of as pipeline_of
    from asyncguard._runtime.colour import as_async as as_async
    from asyncguard._runtime.deadlines import detached as detached
    from asyncguard._runtime.deadlines import remaining as remaining
    from asyncguard._runtime.dispatch import subscribe as subscribe
    from asyncguard._status import aclose as aclose
    from asyncguard._status import status as status
    from asyncguard.errors import BlockingWaitError as BlockingWaitError
    from asyncguard.errors import BulkheadFullError as BulkheadFullError
    from asyncguard.errors import CallTimeoutError as CallTimeoutError
    from asyncguard.errors import CircuitOpenError as CircuitOpenError
    from asyncguard.errors import DeadlineExceededError as DeadlineExceededError
    from asyncguard.errors import GuardError as GuardError
    from asyncguard.errors import InputValidationError as InputValidationError
    from asyncguard.errors import MemoryPressureError as MemoryPressureError
    from asyncguard.errors import RateLimitedError as RateLimitedError
    from asyncguard.errors import RejectedError as RejectedError
    from asyncguard.stores import AiocacheStore as AiocacheStore
    from asyncguard.strategies.adaptive_concurrency import adaptive_concurrency as adaptive_concurrency
    from asyncguard.strategies.bulkhead import bulkhead as bulkhead
    from asyncguard.strategies.cache_items import cache_items as cache_items
    from asyncguard.strategies.cache_result import cache_bypass as cache_bypass
    from asyncguard.strategies.cache_result import cache_refresh as cache_refresh
    from asyncguard.strategies.cache_result import cache_result as cache_result
    from asyncguard.strategies.chaos import chaos as chaos
    from asyncguard.strategies.circuit_breaker import circuit_breaker as circuit_breaker
    from asyncguard.strategies.circuit_breaker import is_dependency_failure as is_dependency_failure
    from asyncguard.strategies.deadline import deadline as deadline
    from asyncguard.strategies.fallback import fallback as fallback
    from asyncguard.strategies.hedge import hedge as hedge
    from asyncguard.strategies.memory_guard import memory_guard as memory_guard
    from asyncguard.strategies.monitor import monitor as monitor
    from asyncguard.strategies.rate_limit import rate_limit as rate_limit
    from asyncguard.strategies.retry import current_attempt as current_attempt
    from asyncguard.strategies.retry import failing_status as failing_status
    from asyncguard.strategies.retry import retry as retry
    from asyncguard.strategies.timeout import timeout as timeout
    from asyncguard.strategies.validate_input import validate_input as validate_input

_HOME = {
    "_machines.budget": ("RetryBudget",),
    "_machines.classify": ("TRANSIENT", "classify", "register_classifier"),
    "_machines.rates": ("Rate",),
    "_machines.rules": ("Array", "Columns", "Keys"),
    "_permits": ("current_permit",),
    "_pipeline": ("Pipeline", "guard", "pipeline_of"),
    "_runtime.colour": ("as_async",),
    "_runtime.deadlines": ("detached", "remaining"),
    "_runtime.dispatch": ("subscribe",),
    "_status": ("aclose", "status"),
    "errors": (
        "BlockingWaitError",
        "BulkheadFullError",
        "CallTimeoutError",
        "CircuitOpenError",
        "DeadlineExceededError",
        "GuardError",
        "InputValidationError",
        "MemoryPressureError",
        "RateLimitedError",
        "RejectedError",
    ),
    "stores": ("AiocacheStore",),
    "strategies.adaptive_concurrency": ("adaptive_concurrency",),
    "strategies.bulkhead": ("bulkhead",),
    "strategies.cache_items": ("cache_items",),
    "strategies.cache_result": ("cache_bypass", "cache_refresh", "cache_result"),
    "strategies.chaos": ("chaos",),
    "strategies.circuit_breaker": ("circuit_breaker", "is_dependency_failure"),
    "strategies.fallback": ("fallback",),
    "strategies.hedge": ("hedge",),
    "strategies.memory_guard": ("memory_guard",),
    "strategies.monitor": ("monitor",),
    "strategies.rate_limit": ("rate_limit",),
    "strategies.retry": ("current_attempt", "failing_status", "retry"),
    "strategies.deadline": ("deadline",),
    "strategies.timeout": ("timeout",),
    "strategies.validate_input": ("validate_input",),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__version__ = "0.1.0"
__all__ = sorted(_MODULE_OF)  # noqa: PLE0605 - the names above, in one place # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    module = _MODULE_OF.get(name)
    if module is None:
        message = f"module 'asyncguard' has no attribute {name!r}"
        raise AttributeError(message)
    value = getattr(importlib.import_module(f"asyncguard.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]

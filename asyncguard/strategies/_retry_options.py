"""The options of `retry`, checked when they are made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

from asyncguard._machines import checks
from asyncguard._machines.attempts import OnOption, Policy
from asyncguard._machines.backoff import Backoff, Jitter, check_jitter
from asyncguard._machines.budget import RetryBudget
from asyncguard._machines.classify import TRANSIENT
from asyncguard._machines.partition_keys import PartitionBy, check_partition
from asyncguard._strategy import Options

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["RetryOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryOptions(Options):
    """The options of `retry`."""

    on: OnOption = TRANSIENT
    max_retries: int | None = 5
    initial_delay: float = 0.2
    backoff_factor: float = 2.0
    max_delay: float = 20.0
    jitter: Jitter = "full"
    on_result: Callable[[Any], Any] | None = None
    max_retry_after: float = 60.0
    budget: RetryBudget | Literal["default"] | None = "default"
    retry_rejected: bool = False
    retry_exhausted: bool = False
    partition: PartitionBy | None = None

    def __post_init__(self) -> None:
        """Check the options."""
        Options.__post_init__(self)
        self.set("on", checks.errors("on", self.on))
        if self.max_retries is not None:
            checks.integer("max_retries", self.max_retries)
        self.set("initial_delay", checks.duration("initial_delay", self.initial_delay))
        self.set("backoff_factor", checks.number("backoff_factor", self.backoff_factor, least=1.0))
        self.set("max_delay", checks.duration("max_delay", self.max_delay))
        if self.max_delay < self.initial_delay:
            raise checks.fail("max_delay", self.max_delay, f"at least initial_delay ({self.initial_delay:g})")
        self.set("jitter", check_jitter(self.jitter))
        if self.on_result is not None:
            checks.function("on_result", self.on_result)
        self.set("max_retry_after", checks.duration("max_retry_after", self.max_retry_after))
        budget = cast("object", self.budget)
        if budget not in (None, "default") and not isinstance(budget, RetryBudget):
            raise checks.wrong_type("budget", budget, "'default', a RetryBudget, or None")
        checks.boolean("retry_rejected", self.retry_rejected)
        checks.boolean("retry_exhausted", self.retry_exhausted)
        check_partition(self.partition)

    def policy(self) -> Policy:
        """Return what the machine needs to decide."""
        backoff = Backoff(self.initial_delay, self.backoff_factor, self.max_delay, self.jitter)
        on = cast("checks.Errors", self.on)
        return Policy(on, self.max_retries, backoff, self.max_retry_after, self.retry_rejected, self.retry_exhausted)

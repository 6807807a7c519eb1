"""`rate_limit`: no more calls, tokens or rows per second than allowed. The arithmetic is in `_machines.bucket`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, cast

from asyncguard._admission import AdmissionOptions, AdmissionStrategy
from asyncguard._machines import checks
from asyncguard._machines.bucket import Bucket
from asyncguard._machines.gate import wake
from asyncguard._machines.partition_words import listed
from asyncguard._machines.quota_headers import quotas
from asyncguard._machines.rate_costs import Priced
from asyncguard._machines.rates import Rate, rate_of
from asyncguard._runtime import clock as clocks

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping
    from datetime import timedelta

    from asyncguard._machines.gate import Request
    from asyncguard._machines.partition_keys import PartitionBy
    from asyncguard._modes import Mode
    from asyncguard._runtime.clock import Clock
    from asyncguard.events import Event

__all__ = ["Rate", "RateLimit", "RateLimitOptions", "rate_limit"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimitOptions(AdmissionOptions):
    """The options of `rate_limit`."""

    rates: tuple[Rate, ...]

    def __post_init__(self) -> None:
        """Check the options."""
        AdmissionOptions.__post_init__(self)
        given = cast("object", self.rates)  # `configure(rates="50/s")` may give a single one
        given = tuple(cast("Iterable[object]", given)) if isinstance(given, tuple | list) else (given,)
        if not given:
            raise ValueError('rate_limit needs at least one rate, like "100/s burst 200"')
        self.set("rates", tuple(rate_of(each) for each in given))

    @property
    def weigh(self) -> bool:
        """Whether some rate asks what a call costs."""
        return any(rate.cost is not None for rate in self.rates)


class RateLimit(AdmissionStrategy[RateLimitOptions, Bucket]):
    """The rates of one service, or of each partition of it."""

    kind: ClassVar[str] = "rate_limit"
    shared: ClassVar[frozenset[str]] = frozenset({"rates"})
    rejection: ClassVar[str] = "rate"

    def new_gate(self, clock: Clock, partition: str) -> Bucket:
        """Build the rates of one partition."""
        label = f"{self.name}[{partition}]" if partition else self.name
        return Bucket(self.options.rates, _nanoseconds(clock), label)

    @property
    def weighs(self) -> bool:
        """Whether the arguments say what a call costs."""
        return self.options.weigh

    def fill(self, request: Request) -> None:
        """Ask every rate what the call costs, unless it was said."""
        if request.stated:
            return
        rates = self.options.rates
        costs = [1 if rate.cost is None else rate.cost(*request.args, **request.kwargs) for rate in rates]
        request.cost = Priced(rates, costs)

    def reconfigured(self) -> None:
        """Take the new rates; they begin behind the places that are reserved."""
        for gate in self.gates():
            gate.configure(self.options.rates)

    def peek(self, cost: float = 1, *, partition: Hashable = ...) -> float:
        """Return in how many seconds a call of that cost could start, 0.0 if now. Takes nothing.

        Raises ValueError for a cost above the burst, TypeError without `partition` if the rates are per partition.
        """
        return self._gate(partition).wait(cost)

    def update_from_headers(self, headers: Mapping[str, str], *, partition: Hashable = ...) -> None:
        """Take over what a response says is left, so that the next call does not meet a 429.

        Understands `x-ratelimit-*` (OpenAI, GitHub and others), `anthropic-ratelimit-*`, `ratelimit-*` and
        `Retry-After`. What it says about tokens goes to the rates with a `cost`, the rest to those without. A service
        never makes us believe in more than our own rates. Raises TypeError without `partition` if the rates are per
        partition.
        """
        gate = self._gate(partition)
        for quota in quotas(headers, time.time()):
            wake(gate.limit(quota.remaining, quota.reset, weighed=quota.tokens))

    def _gate(self, partition: Hashable) -> Bucket:
        gates = self.core_here()
        if partition is not None and partition is not ...:
            return gates.partitions.get(partition)
        if not self._partitioned():
            return gates.single
        if partition is None:  # a key as well: that of a ContextVar that is not set
            return gates.partitions.get(None)
        raise TypeError(f"{self.name}: every partition has its own rates; say which is meant, partition=...")

    def _partitioned(self) -> bool:
        if self.options.partition is not None or not len(self.core_here().partitions):
            return self.options.partition is not None
        return all(site.pipeline.partition is not None for site in self.sites() if site is not self._own_site)

    def describe(self) -> list[str]:
        """Say what is left of each rate; with partitions, of those that are not at rest, the longest wait first."""
        gates = self.core_here()
        if self.options.partition is None and not len(gates.partitions):
            return [gates.single.describe()]
        busy = [(key, each) for key, each in gates.partitions.items() if not each.idle()]
        lines = listed(busy, Bucket.describe, lambda bucket: (-len(bucket.queue), -round(bucket.pause(), 1)))
        return [*lines, f"{len(busy)} of {len(gates.partitions)} partitions in use"]


def _nanoseconds(clock: Clock) -> Callable[[], int]:
    """Return the clock as whole nanoseconds; a virtual one counts in floats."""
    return time.monotonic_ns if clock is clocks.REAL else lambda: round(clock.now() * 1e9)


def rate_limit(
    rate: str | Rate,
    /,
    *more: str | Rate,
    max_wait: float | timedelta = 10.0,
    partition: PartitionBy | None = None,
    name: str | None = None,
    mode: Mode = "enforce",
    on_event: Callable[[Event], object] | None = None,
) -> RateLimit:
    """Let calls start at no more than a rate; the others wait for their turn, first come first served.

    `rate` and `more` are texts like `"100/s burst 200"` or `Rate`s with a cost of their own; a call starts when all of
    them allow it, and takes from all or none: `rate_limit("10000/min", Rate("2000000/min", cost=estimate_tokens))`.

    :param max_wait: seconds that a caller waits at most, never past its deadline; longer waits are refused at once
        and take nothing.
    :param partition: a callable on the arguments or a ContextVar: each partition (key, model, tenant) has its own
        rates.

    The limit holds for this process. The decorator raises RateLimitedError for a call that would wait too long and
    ValueError for a cost above the burst; BlockingWaitError if a sync caller would have to wait on the thread of an
    event loop. The generic cell rate algorithm (ITU-T I.371) in whole nanoseconds.
    """
    checks.bare("rate_limit", rate, '@rate_limit("100/s")')
    return RateLimit(
        RateLimitOptions(
            rates=cast("tuple[Rate, ...]", (rate, *more)),
            max_wait=cast("float", max_wait),
            partition=partition,
            name=name,
            mode=mode,
            on_event=on_event,
        )
    )

"""Floor 2: permits as the user meets them: the block form, and correcting the permit of the running call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asyncguard._machines.gate import wake
from asyncguard._passage import open_async, open_sync, permits

if TYPE_CHECKING:
    from asyncguard._passage import Args, Gatekeeper, Kwargs, Passage
    from asyncguard._pipeline import Site

__all__ = ["HeldPermit", "PermitBlock", "current_permit"]


class HeldPermit:
    """A permit while it is held: what a decorated function may correct about it."""

    __slots__ = ("gate", "permit", "strategy")

    def __init__(self, strategy: Gatekeeper, gate: Any, permit: Any) -> None:
        self.strategy = strategy
        self.gate = gate
        self.permit = permit

    def reconcile(self, actual: float) -> None:
        """Correct the cost that was estimated before the call by what it really was (tokens used)."""
        if self.permit is not None:  # None: the strategy is off, or only observes
            wake(self.gate.reconcile(self.permit, actual))


def current_permit(strategy: Gatekeeper) -> HeldPermit:
    """Return the permit that the running call holds of `strategy`; LookupError if it holds none.

    Only strategies with a cost or weight of each call show their permits.
    """
    for held in permits.get():
        if held[0] is strategy:
            return HeldPermit(*held)
    message = f"no permit of {strategy.name} is held here; it must have a cost= (or weight=) and be around this call"
    raise LookupError(message)


class PermitBlock:
    """The block form of an admission strategy; use it once."""

    def __init__(self, strategy: Gatekeeper, args: Args, kwargs: Kwargs, cost: Any) -> None:
        self._strategy = strategy
        self._args = args
        self._kwargs = kwargs
        self._cost = cost
        self._used = False
        self._passage: Passage | None = None

    async def __aenter__(self) -> HeldPermit:
        strategy, site = self._strategy, self._site()
        return self._entered(await open_async((strategy,), site, self._args, self._kwargs, self._cost))

    def __enter__(self) -> HeldPermit:
        strategy, site = self._strategy, self._site()
        return self._entered(open_sync((strategy,), site, self._args, self._kwargs, self._cost))

    def _site(self) -> Site:
        if self._used:  # two blocks with one object would give back one permit twice and the other never
            raise RuntimeError(f"a permit block is used once: call {self._strategy.name}.permit() for each block")
        self._used = True
        return self._strategy.own_site()

    def _entered(self, passage: Passage) -> HeldPermit:
        self._passage = passage
        passage.begin()
        for strategy, gate, _, permit in passage.entries:
            return HeldPermit(strategy, gate, permit)
        return HeldPermit(self._strategy, self._strategy.gate, None)  # mode off or observe: there is nothing to hold

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._leave(error)

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._leave(error)

    def _leave(self, error: BaseException | None) -> None:
        passage, self._passage = self._passage, None
        if passage is not None:
            passage.close(error)

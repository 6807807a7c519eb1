"""What a call takes of each rate: asked of the caller, or computed for rates that may be others when it comes in."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from operator import is_
from typing import TYPE_CHECKING, Any, cast

from asyncguard._machines import checks

if TYPE_CHECKING:
    from asyncguard._machines.gcra import Line
    from asyncguard._machines.rates import Rate

__all__ = ["Costs", "Priced", "cost_of", "costs_of", "fitted", "spread"]

Costs = list[float]
"""A permit: what the call took of each rate, in units of the rate."""


class Priced(list[Any]):
    """What a call costs under each of some rates, which may be others when it comes in."""

    __slots__ = ("rates",)

    def __init__(self, rates: Sequence[Rate], costs: Iterable[Any]) -> None:
        super().__init__(costs)
        self.rates = rates

    def fits(self, lines: Sequence[Line]) -> bool:
        """Tell whether these are still the rates."""
        return len(self.rates) == len(lines) and all(map(is_, self.rates, (line.rate for line in lines)))


def fitted(costs: Sequence[Any], lines: Sequence[Line]) -> Costs:
    """Return the costs of a call that was priced, or let in, before the rates changed: it is no error of its caller."""
    given = [cost_of("a cost", each) for each in costs] + [1] * len(lines)
    return [min(each, float(line.rate.burst)) for line, each in zip(lines, given, strict=False)]


def cost_of(what: str, cost: Any, most: float = math.inf) -> float:
    """Return a cost, a whole number as an int; ValueError if it is none."""
    if hasattr(cost, "__index__") and not isinstance(cost, bool):  # NumPy's integers, too
        cost = int(cost)
    number = checks.number(what, cost, least=0.0, most=most)
    return cost if isinstance(cost, int) else number


def costs_of(cost: Any, lines: Sequence[Line]) -> Costs:
    """Return what a call takes of each rate; ValueError for a cost that is none, or that no burst allows."""
    if isinstance(cost, Priced) and not cost.fits(lines):
        return fitted(cost, lines)
    given = cast("Sequence[Any]", cost) if isinstance(cost, list | tuple) else spread(cost, lines)
    return [
        cost_of(f"the cost for {line.rate}", each, most=float(line.rate.burst))
        for line, each in zip(lines, given, strict=True)
    ]


def spread(cost: Any, lines: Sequence[Line]) -> list[Any]:
    """Return a single cost for each rate: it is for the rates that weigh calls; where none does, for all of them."""
    weighed = any(line.rate.cost is not None for line in lines)
    return [cost if line.rate.cost is not None or not weighed else 1 for line in lines]

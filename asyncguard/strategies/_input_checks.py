"""The options of `validate_input`, and what runs at each place where it stands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from asyncguard._machines.checks import wrong_type
from asyncguard._machines.rules_base import Dims
from asyncguard._machines.rules_basic import rule_of
from asyncguard._machines.rules_plan import Args, Kwargs, Passes, Plan
from asyncguard._strategy import Options
from asyncguard.strategies._answers import NOTHING
from asyncguard.strategies._hints import rules_from_hints
from asyncguard.strategies._schema import adapt

if TYPE_CHECKING:
    from asyncguard.strategies.validate_input import ValidateInput

    Call = Callable[..., Any]

__all__ = ["Checks", "ValidateInputOptions", "mapping", "plan_for"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidateInputOptions(Options):
    """The options of `validate_input`. Without `rules`, those of the parameters come from the hints of the function."""

    rules: Mapping[str, Any] = field(default_factory=dict[str, Any])
    returns: Any = NOTHING
    fallback: Any = NOTHING

    def __post_init__(self) -> None:
        """Check the options and turn specifications into rules."""
        Options.__post_init__(self)
        self.set("rules", {name: rule_of(spec, adapt) for name, spec in mapping("rules", self.rules).items()})
        self.set("returns", NOTHING if self.returns is NOTHING else rule_of(self.returns, adapt))


def mapping(option: str, value: Any) -> Mapping[str, Any]:
    """Return `value` if it is a mapping."""
    if not isinstance(value, Mapping):
        raise wrong_type(option, value, "a mapping of parameter name to rule")
    return cast("Mapping[str, Any]", value)


class Checks:
    """The rules of one function at one place, rebuilt when the strategy is configured.

    `passes` is the whole happy path where yes or no is all there is to say; None sends a call the long way.
    """

    __slots__ = ("__weakref__", "_options", "_plan", "function", "passes", "strategy")

    def __init__(self, strategy: ValidateInput, function: Call) -> None:
        self.strategy = strategy
        self.function = function
        strategy.places.add(self)
        self.use(strategy.options)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.strategy, self.function)

    def use(self, options: ValidateInputOptions) -> None:
        """Build the plan for these options; hints that cannot be read yet are left to the first call."""
        self._options = options
        self._plan = plan_for(self.function, options)
        self.expose()

    def plan(self, options: ValidateInputOptions) -> Plan:
        """Return the plan for the options in force."""
        if options is not self._options:
            return final_plan(self.function, options)
        if self._plan is None:
            self._plan = final_plan(self.function, options)
            self.expose()
        return self._plan

    def expose(self) -> None:
        """Open the happy path where it may be taken: not in another mode, under an override or with `returns`."""
        plan = self._plan
        self.passes = None if plan is None or plan.result is not None or self.strategy.special else plan.passes
        if plan is not None and plan.binds and self.passes is not None:
            self.passes = _binding(self.passes)


def _binding(passes: Passes) -> Passes:
    def bound(args: Args, kwargs: Kwargs, dims: Dims) -> bool:  # noqa: ARG001 - a new one for each call
        return passes(args, kwargs, {})

    return bound


def plan_for(function: Call, options: ValidateInputOptions) -> Plan | None:
    """Return the plan of a function; None if its hints have to wait for the first call.

    Raises TypeError for a rule on a parameter that the function does not have.
    """
    result = None if options.returns is NOTHING else options.returns
    rules = options.rules or rules_from_hints(function, final=False)
    return None if rules is None else Plan(function, rules, result)


def final_plan(function: Call, options: ValidateInputOptions) -> Plan:
    """Return the plan; a hint that still cannot be read is left out, with a warning."""
    plan = plan_for(function, options)
    if plan is not None:
        return plan
    result = None if options.returns is NOTHING else options.returns
    return Plan(function, rules_from_hints(function, final=True) or {}, result)

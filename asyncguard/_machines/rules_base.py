"""What a validation rule is, and what it reports: never the data, only where it is and what is wrong with it.

A rule answers twice. Its `tester` is the happy path: a function that only says yes or no. `examine` runs when a test
said no (or where there is none, because the rule converts the value): it names every violation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from asyncguard._machines.text import escape
from asyncguard.errors import InputValidationError, Violation

__all__ = ["MOST_VIOLATIONS", "Dims", "Location", "Passes", "Report", "Rule", "Test", "clean", "failure"]

MOST_VIOLATIONS = 10
LONGEST_TEXT = 200

Dims = dict[str, int] | None
Test = Callable[[object, Dims], bool]
Passes = Callable[[tuple[Any, ...], dict[str, Any], Dims], bool]


def clean(text: str, longest: int = LONGEST_TEXT) -> str:
    """Return `text` with control characters escaped (one line stays one line) and cut to `longest` characters."""
    text = escape(text[: longest + 1])
    return text if len(text) <= longest else text[: longest - 3] + "..."


@dataclass(slots=True)
class Report:
    """What one look at the arguments (or at the result) of one call found."""

    function: str
    dims: dict[str, int] = field(default_factory=dict[str, int])
    origins: dict[str, str] = field(default_factory=dict[str, str])
    violations: list[Violation] = field(default_factory=list[Violation])
    unlisted: int = 0

    def add(self, violation: Violation) -> None:
        """Keep the first `MOST_VIOLATIONS`, count the others."""
        if len(self.violations) < MOST_VIOLATIONS:
            self.violations.append(violation)
        else:
            self.unlisted += 1

    def rules(self) -> tuple[str, ...]:
        """Return `parameter:rule` of what is broken, each once, for counters."""
        return tuple(dict.fromkeys(f"{each.parameter}:{each.rule}" for each in self.violations))


@dataclass(frozen=True, slots=True)
class Location:
    """Where a rule looks: a parameter (`return` for the result) and a path in its value."""

    report: Report
    parameter: str
    path: str = ""

    def broken(self, rule: str, expected: str, actual: str, where: str = "") -> None:
        """Report a violation; with `where`, `actual` is a whole clause (`3 of 9 values are not finite`)."""
        facts = (clean(expected), clean(actual))
        self.report.add(Violation(self.parameter, rule, *facts, path=clean(self.path), where=clean(where)))

    def inside(self, path: str) -> Location:
        """Return the place one step further in."""
        return Location(self.report, self.parameter, self.path + path)


class Rule:
    """What every rule can do. The base class accepts everything."""

    __slots__ = ()

    def names(self) -> Iterable[str]:
        """Return the named dimensions, one entry for each time a name is written."""
        return ()

    def tester(self, shared: frozenset[str]) -> Test | None:  # noqa: ARG002 - only Array binds names
        """Return a function that says yes or no, or None if the value has to be examined.

        `shared` are the dimension names written more than once in all rules of the function: only they need binding,
        in the dict that the test receives.
        """
        return None

    def converter(self) -> Callable[[Any], Any] | None:
        """Return a function that converts a good value and raises for a bad one, for rules without a tester."""
        return None

    def examine(self, value: object, at: Location) -> object:  # noqa: ARG002 - the base class accepts everything
        """Report what is wrong with `value` and return what the function should receive in its place."""
        return value


def failure(report: Report, strategy: str) -> InputValidationError:
    """Return the error that lists the violations of `report`."""
    error = InputValidationError(_message(report), strategy=strategy)
    error.function = report.function
    error.violations = tuple(report.violations)
    return error


def _message(report: Report) -> str:
    parts: list[str] = []
    last = ""
    for each in report.violations:
        place = f"{report.function}({each.parameter}{each.path}): "
        parts.append(clean(_clause(each) if place == last else place + _clause(each)))
        last = place
    more = [f"and {report.unlisted} more"] if report.unlisted else []
    return "; ".join(parts + more)


def _clause(violation: Violation) -> str:
    if violation.where:
        return f"{violation.rule}: {violation.actual}, {violation.where}"
    return f"{violation.rule}: expected {violation.expected}, got {violation.actual}"

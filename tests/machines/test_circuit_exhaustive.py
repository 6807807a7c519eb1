"""Every sequence of events against a slow model, and proof that the search would see a broken machine."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from asyncguard._machines.circuit import Circuit
from asyncguard._machines.circuit_rules import CircuitRules
from tests.machines.circuit_model import search

LENGTH = 9  # 7 is what the design asks for; the longest of our own mistakes needed 9
RULES: dict[str, dict[str, Any]] = {
    "one call": {"minimum_calls": 1, "half_open_calls": 1, "open_for": 1.0, "open_factor": 4.0, "max_open_for": 3.0},
    "last calls": {"window_calls": 3, "minimum_calls": 2, "half_open_calls": 2, "open_for": 2.0},
    "slow calls": {"window_calls": 3, "minimum_calls": 2, "failure_rate": 0.6, "slow_call": 5.0, "open_for": 1.0},
    "in a row": {"minimum_calls": 9, "consecutive_failures": 2, "slow_call": 5.0, "failure_rate": 1.0, "open_for": 1.0},
}

MUTANTS = {
    "late failures count for the present": (
        "circuit", "if permit is not self._epoch:", "permit = self._epoch\n            if False:",
    ),
    "late successes count for the present": (
        "circuit", "if permit is self._epoch:", "permit = self._epoch\n            if True:",
    ),
    "one probe too many": ("probes", ">= self.allowed", "> self.allowed"),
    "a cancelled probe is lost": ("circuit", "permit.give_back()", "pass"),
    "hanging probes are waited for": ("circuit", "if self._epoch.hang(", "if False and self._epoch.hang("),
    "half-open closes too early": ("circuit_rules", "probes.failed + missing", "probes.failed"),
    "the pause does not grow": ("circuit", "self._pause * self._rules.open_factor", "self._pause"),
    "the pause grows without bound": ("circuit", "min(self._rules.max_open_for, self._pause", "max(0.0, self._pause"),
    "a good call does not end a row": ("window", "if number == self._last_failed + 1 else 1", "if True else 1"),
    "the call that makes the minimum is not heard": ("window", "look=min(minimum, size)", "look=NEVER"),
    "a failure stays one call too long": ("window", "<= self._at - self._size", "< self._at - self._size"),
    "more than the rate instead of at least": ("circuit_rules", ">= self.failure_rate", "> self.failure_rate"),
    "peek takes a probe": (
        "circuit",
        "    raise self._refusal(now)\n\n    def admit",
        "    raise self._refusal(now)\n                self._probe(now)\n\n    def admit",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RULES)
def test_no_sequence_of_events_differs_from_the_model(name: str) -> None:
    found = search(Circuit, CircuitRules(**RULES[name]), 1.0, LENGTH)
    print(f"{name}: {found.sequences} sequences up to length {LENGTH}, {found.states} distinct states")
    assert not found.witness, found.reason
    assert found.sequences > 1_000_000


@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_search_catches_a_broken_breaker(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    circuit, rules = broken(*MUTANTS[mutant], monkeypatch)
    assert any(search(circuit, rules(**RULES[name]), 1.0, LENGTH).witness for name in RULES)


def broken(module: str, old: str, new: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """Load the machine anew with one line changed."""
    for name in ("window", "probes", "circuit_rules", "circuit_words", "circuit"):
        full = f"asyncguard._machines.{name}"
        spec = importlib.util.find_spec(full)
        assert spec is not None
        assert spec.origin is not None
        source = Path(spec.origin).read_text(encoding="utf-8")
        if name == module:
            assert source.count(old) == 1, f"{old!r} is not in {name} exactly once"
            source = source.replace(old, new)
        loaded = ModuleType(full)
        monkeypatch.setitem(sys.modules, full, loaded)
        exec(compile(source, full, "exec"), loaded.__dict__)  # noqa: S102 - our own source
    return sys.modules["asyncguard._machines.circuit"].Circuit, sys.modules[
        "asyncguard._machines.circuit_rules"
    ].CircuitRules

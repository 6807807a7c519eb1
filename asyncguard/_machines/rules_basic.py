"""Rules that need no library: required keys, functions, objects that validate, several rules on one value."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

from asyncguard._machines.checks import is_async, wrong_type
from asyncguard._machines.rules_base import Dims, Location, Rule, Test

__all__ = ["ALLOWED", "Every", "Keys", "Predicate", "Validates", "rule_of"]

ALLOWED = (
    "a rule (Array, Keys, Columns), a type or pydantic model, a constraint of annotated_types, "
    "an object with .validate, a sync function, or a tuple of them"
)
Adapt = Callable[[object], Rule]
Nested = Mapping[str, object]


class Keys(Rule):
    """A mapping that has the named keys: `Keys("user_id", "lang", user=Keys("id"))`.

    A keyword (or, for keys that are no identifiers, an entry of a mapping) gives the rule for the value of a key, which
    is required as well. Only presence and rules are checked; the mapping itself is passed on as it is.
    """

    __slots__ = ("names_", "nested", "required")

    def __init__(self, *names: str | Nested, **nested: object) -> None:
        merged: dict[str, object] = {}
        for each in names:
            merged.update({each: None} if isinstance(each, str) else _mapping(each))
        merged.update(nested)
        if not merged:
            raise wrong_type("Keys", (), "given at least one key")
        self.required: frozenset[str] = frozenset(merged)
        self.names_: tuple[str, ...] = tuple(merged)
        self.nested: dict[str, object] = {key: spec for key, spec in merged.items() if spec is not None}

    def __repr__(self) -> str:
        return f"Keys({', '.join(map(repr, self.names_))})"

    def resolved(self, adapt: Adapt) -> Rule:
        """Return the same with every nested specification turned into a rule."""
        if not self.nested:
            return self
        copy = Keys(*self.names_)
        copy.nested = {key: rule_of(spec, adapt) for key, spec in self.nested.items()}
        return copy

    def names(self) -> Iterable[str]:
        """Return the named dimensions of the nested rules."""
        return [name for rule in self.nested.values() if isinstance(rule, Rule) for name in rule.names()]

    def tester(self, shared: frozenset[str]) -> Test | None:
        """Return the happy path, if every nested rule has one."""
        required, nested = self.required, _testers(self.nested, shared)
        if nested is None:
            return None

        def test(value: Any, dims: Dims) -> bool:
            try:
                return required <= value.keys() and all(each(value[key], dims) for key, each in nested)
            except Exception:  # noqa: BLE001 - the keys of a frame are no set; examine says what is wrong, if anything
                return False

        return test

    def examine(self, value: Any, at: Location) -> Any:
        """Report missing keys by name; the keys that are there are the caller's data and are not named."""
        if not hasattr(value, "keys") or not hasattr(value, "__getitem__"):
            at.broken("type", "a mapping", type(value).__name__)
            return value
        present = set(value.keys())
        missing = [key for key in self.names_ if key not in present]
        if missing:
            at.broken("keys", _listed(self.names_), "no " + _listed(missing))
        for key, rule in self.nested.items():
            if key in present and isinstance(rule, Rule):
                rule.examine(value[key], at.inside(f"[{key!r}]"))
        return value


class Predicate(Rule):
    """A sync function of the value: False is a violation, a text is one too and says what was expected.

    `None` and everything else that is true is fine. An exception is a violation; its message may hold the data, so
    only its type is reported.
    """

    __slots__ = ("check",)

    def __init__(self, check: Callable[[Any], object]) -> None:
        if is_async(check):
            raise wrong_type("a rule", check, "a sync function")
        self.check = check

    def tester(self, shared: frozenset[str]) -> Test:  # noqa: ARG002 - binds nothing
        """Return the happy path: on failure the function runs a second time, to say what was wrong."""
        check = self.check

        def test(value: object, dims: Dims) -> bool:  # noqa: ARG001
            try:
                answer = check(value)
                return answer is None or (not isinstance(answer, str) and bool(answer))
            except Exception:  # noqa: BLE001 - whatever the user's rule raises is a violation, and examine names it
                return False

        return test

    def examine(self, value: object, at: Location) -> object:
        """Report what the function said."""
        name = getattr(self.check, "__name__", type(self.check).__name__)
        try:
            answer = self.check(value)
            holds = answer is None or bool(answer)  # an array of answers is neither true nor false
        except Exception as error:  # noqa: BLE001 - a violation
            at.broken(name, "no error", type(error).__name__)
            return value
        if isinstance(answer, str):
            at.broken(name, answer, type(value).__name__)
        elif not holds:
            at.broken(name, "it to hold", "False")
        return value


class Validates(Rule):
    """Any object with `.validate(value)`, as pandera and patito schemas have.

    What it raises is a violation (by type only: messages of schemas hold data), and so is False. A converted value of
    the same type is passed on.
    """

    __slots__ = ("schema",)

    def __init__(self, schema: Any) -> None:
        self.schema = schema

    def examine(self, value: object, at: Location) -> object:
        """Run the schema."""
        try:
            answer = self.schema.validate(value)
        except Exception as error:  # noqa: BLE001 - a violation
            at.broken("schema", f"what {_schema_name(self.schema)} accepts", type(error).__name__)
            return value
        if answer is False:
            at.broken("schema", f"what {_schema_name(self.schema)} accepts", "False")
        return answer if type(answer) is type(value) and not isinstance(answer, bool) else value


class Every(Rule):
    """Several rules on one value, in turn; each sees what the one before it made of the value."""

    __slots__ = ("rules",)

    def __init__(self, rules: Iterable[Rule]) -> None:
        self.rules = tuple(rules)

    def names(self) -> Iterable[str]:
        """Return the named dimensions of all of them."""
        return [name for rule in self.rules for name in rule.names()]

    def tester(self, shared: frozenset[str]) -> Test | None:
        """Return the happy path, if each rule has one."""
        tests = _testers(dict(enumerate(self.rules)), shared)
        return functools.reduce(_both, [test for _, test in tests]) if tests else None

    def examine(self, value: object, at: Location) -> object:
        """Examine with each; after a wrong type the others have nothing to say."""
        for rule in self.rules:
            before = len(at.report.violations)
            value = rule.examine(value, at)
            if any(each.rule == "type" for each in at.report.violations[before:]):
                break
        return value


def rule_of(spec: Any, adapt: Adapt) -> Rule:
    """Return the rule that `spec` means; `adapt` turns types and constraints into a rule (pydantic, one floor up).

    Raises TypeError if it means none.
    """
    if isinstance(spec, Keys):
        return spec.resolved(adapt)
    if isinstance(spec, Rule):
        return spec
    if isinstance(spec, tuple | list):
        return Every([rule_of(each, adapt) for each in cast("list[Any]", spec)])
    if _validates(spec):
        return Validates(spec)
    if inspect.isroutine(spec) or (callable(spec) and not isinstance(spec, type) and _own_call(spec)):
        return Predicate(spec)
    return adapt(spec)


def _validates(spec: object) -> bool:
    """Return whether `spec` is a schema, or a schema class whose `validate` is a class method (pandera, patito)."""
    validate = getattr(spec, "validate", None)
    if not isinstance(spec, type):
        return callable(validate) and not hasattr(spec, "__origin__")
    homes = {base.__module__.partition(".")[0] for base in spec.__mro__}
    return inspect.ismethod(validate) and ("patito" in homes or "pydantic" not in homes)


def _own_call(spec: object) -> bool:
    """Return whether `spec` is an object made to be called, not a typing construct or a constraint."""
    return not hasattr(spec, "__origin__") and type(spec).__module__.partition(".")[0] not in {
        "typing",
        "types",
        "typing_extensions",
        "annotated_types",
    }


def _testers(rules: Mapping[Any, object], shared: frozenset[str]) -> tuple[tuple[Any, Test], ...] | None:
    tests = [(key, rule.tester(shared)) for key, rule in rules.items() if isinstance(rule, Rule)]
    found = tuple((key, test) for key, test in tests if test is not None)
    return found if len(found) == len(tests) else None


def _both(first: Test, second: Test) -> Test:
    return lambda value, dims: first(value, dims) and second(value, dims)


def _mapping(each: object) -> Nested:
    if not isinstance(each, Mapping):
        raise wrong_type("Keys", each, "key names, or a mapping of key to rule")
    return cast("Nested", each)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))


def _schema_name(schema: object) -> str:
    return schema.__name__ if isinstance(schema, type) else type(schema).__name__

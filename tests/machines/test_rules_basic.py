"""Keys, predicates, schemas, several rules on one value, and what a report may say."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from asyncguard._machines.rules import Array, Keys
from asyncguard._machines.rules_base import MOST_VIOLATIONS, Location, Report, Rule, clean, failure
from asyncguard._machines.rules_basic import Every, Predicate, Validates, rule_of


def no_type(spec: object) -> Rule:
    raise TypeError(spec)


def text(spec: object, value: object, *, happy: bool = True) -> str:
    rule = rule_of(spec, no_type)
    report = Report("f")
    rule.examine(value, Location(report, "x"))
    test = rule.tester(frozenset())
    if happy:
        assert test is not None
        assert test(value, None) is not bool(report.violations)
    return str(failure(report, "v")) if report.violations else ""


def test_missing_keys_are_named_and_those_that_are_there_are_not() -> None:
    assert text(Keys("user_id", "lang"), {"user_id": 1, "lang": "x"}) == ""
    message = text(Keys("user_id", "lang"), {"user_id": 1, "anna@example.org": 1})
    assert message == "f(x): keys: expected 'user_id', 'lang', got no 'lang'"


def test_keys_nest_and_say_where() -> None:
    rule = Keys("id", user=Keys("name", vector=Array((2,))))
    assert text(rule, {"id": 1, "user": {"name": "n", "vector": np.zeros(2)}}) == ""
    message = text(rule, {"id": 1, "user": {"vector": np.zeros(3)}})
    assert message == (
        "f(x['user']): keys: expected 'name', 'vector', got no 'name'; "
        "f(x['user']['vector']): shape: expected (2,), got (3,)"
    )


def test_keys_that_are_no_identifiers_come_in_a_mapping() -> None:
    rule = Keys({"user-id": lambda value: isinstance(value, int)}, "lang")
    assert text(rule, {"user-id": 1, "lang": 2}) == ""
    assert "x['user-id']" in text(rule, {"user-id": "1", "lang": 2})


@pytest.mark.parametrize("value", [None, 3, ["user_id"], "user_id"])
def test_something_else_than_a_mapping(value: object) -> None:
    assert text(Keys("user_id"), value) == f"f(x): type: expected a mapping, got {type(value).__name__}"


def test_keys_need_at_least_one_name() -> None:
    with pytest.raises(TypeError, match="at least one key"):
        Keys()
    with pytest.raises(TypeError, match="key names"):
        Keys(3)


def test_a_predicate_says_yes_no_or_what_it_expected() -> None:
    def even(value: int) -> bool:
        return value % 2 == 0

    def small(value: int) -> str | None:
        return None if value < 10 else "a number below 10"

    assert text(even, 2) == ""
    assert text(even, 3) == "f(x): even: expected it to hold, got False"
    assert text(small, 3) == ""
    assert text(small, 30) == "f(x): small: expected a number below 10, got int"
    assert "expected it to hold" in text(lambda value: np.bool_(value > 1), 0)


def test_what_a_predicate_raises_is_a_violation_without_its_message() -> None:
    def check(value: str) -> None:
        raise ValueError(value)

    message = text(check, "my password")
    assert message == "f(x): check: expected no error, got ValueError"


def test_an_interrupt_in_a_predicate_passes() -> None:
    def check(value: object) -> None:
        raise KeyboardInterrupt

    rule = Predicate(check)
    with pytest.raises(KeyboardInterrupt):
        rule.examine(1, Location(Report("f"), "x"))
    with pytest.raises(KeyboardInterrupt):
        rule.tester(frozenset())(1, None)


def test_an_async_rule_is_refused() -> None:
    async def check(value: object) -> None: ...

    class Check:
        async def __call__(self, value: object) -> None: ...

    for spec in (check, Check()):
        with pytest.raises(TypeError, match="sync function"):
            rule_of(spec, no_type)


class Doubling:
    """A schema that converts, as pandera's may."""

    def validate(self, value: list[int]) -> list[int]:
        if not value:
            raise ValueError(value)
        return value * 2


def test_an_object_with_validate_is_a_rule_and_its_result_is_passed_on() -> None:
    rule = rule_of(Doubling(), no_type)
    assert isinstance(rule, Validates)
    assert rule.examine([1], Location(Report("f"), "x")) == [1, 1]
    assert text(Doubling(), [], happy=False) == "f(x): schema: expected what Doubling accepts, got ValueError"


def test_a_schema_that_answers_with_true_or_none_changes_nothing() -> None:
    class Schema:
        def validate(self, value: object) -> object:
            return {1: None, 2: True, 3: False}[value]

    for value in (1, 2):
        assert rule_of(Schema(), no_type).examine(value, Location(Report("f"), "x")) == value
    assert "expected what Schema accepts, got False" in text(Schema(), 3, happy=False)


def test_a_schema_class_with_a_class_method_is_a_rule() -> None:
    class Frame:
        @classmethod
        def validate(cls, value: object) -> None:
            raise KeyError(value)

    assert text(Frame, 1, happy=False) == "f(x): schema: expected what Frame accepts, got KeyError"


def test_several_rules_in_turn() -> None:
    spec = (Array((None,)), lambda value: value.sum() == 1)
    assert text(spec, np.ones(1)) == ""
    assert text(spec, np.ones(2)) == "f(x): <lambda>: expected it to hold, got False"
    assert text(spec, 3) == "f(x): type: expected an array, got int"


def test_a_rule_sees_what_the_one_before_made_of_the_value() -> None:
    rule = rule_of([Doubling(), lambda value: len(value) == 2], no_type)
    report = Report("f")
    assert rule.examine([7], Location(report, "x")) == [7, 7]
    assert not report.violations
    assert isinstance(rule, Every)
    assert rule.tester(frozenset()) is None


def test_what_is_no_rule_is_left_to_who_knows_types() -> None:
    with pytest.raises(TypeError, match="nonsense"):
        rule_of("nonsense", no_type)


def test_at_most_ten_violations_of_two_hundred_characters_on_one_line() -> None:
    keys = {f"key{number}\n{'x' * 500}": lambda value: "a\x1b[31m\u2028number" for number in range(15)}
    report = Report("f")
    rule = rule_of(Keys(keys), no_type)
    rule.examine(dict.fromkeys(keys), Location(report, "x"))
    error = failure(report, "v")
    assert len(error.violations) == MOST_VIOLATIONS
    assert str(error).endswith("; and 5 more")
    assert all(len(part) <= 200 for part in str(error).split("; "))
    assert str(error).isprintable()
    assert str(error.violations[0]).isprintable()


def test_control_characters_are_escaped_also_where_text_is_cut() -> None:
    assert clean("a\nb\x85\u2028\ud800") == "a\\nb\\x85\\u2028\\ud800"
    assert len(clean("\n" * 500)) == 200
    assert clean("ä" * 200) == "ä" * 200


def test_the_error_pickles_with_its_facts() -> None:
    report = Report("f")
    Location(report, "x").broken("shape", "(2,)", "(3,)")
    error = failure(report, "v")
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.function, copy.violations, copy.strategy) == (str(error), "f", error.violations, "v")
    assert report.rules() == ("x:shape",)

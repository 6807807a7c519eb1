"""Where a rule finds its argument, without binding the signature on every call."""

from __future__ import annotations

import functools
import inspect

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncguard._machines.rules import Array
from asyncguard._machines.rules_base import Location, Report, Rule, Test, failure
from asyncguard._machines.rules_plan import Plan, short_name


class Recorded(Rule):
    """Records what it is shown and changes nothing, or passes on something else."""

    def __init__(self, *, happy: bool = True, new: object = None) -> None:
        self.seen: list[object] = []
        self.happy = happy
        self.new = new

    def tester(self, shared: frozenset[str]) -> Test | None:
        return (lambda value, dims: self.seen.append(value) is None) if self.happy else None

    def examine(self, value: object, at: Location) -> object:
        self.seen.append(value)
        return value if self.new is None else self.new


def function(a, /, b, c=3, *rest, d, e=5, **more):
    raise AssertionError


@given(st.lists(st.integers(), max_size=5), st.dictionaries(st.sampled_from("abcde"), st.integers()))
def test_arguments_are_found_where_signature_bind_finds_them(args: list[int], kwargs: dict[str, int]) -> None:
    rules = {name: Recorded() for name in ("a", "b", "c", "d", "e")}
    plan = Plan(function, rules, None)
    try:
        bound = inspect.signature(function).bind(*args, **kwargs).arguments
    except TypeError:
        return  # the function itself will complain
    assert plan.passes is not None
    assert plan.passes(tuple(args), kwargs, None)
    seen = {name: rule.seen[0] for name, rule in rules.items() if rule.seen}
    assert seen == {name: value for name, value in bound.items() if name in rules}


@given(st.lists(st.integers(), min_size=2, max_size=5), st.dictionaries(st.sampled_from("de"), st.integers()))
def test_a_replaced_argument_arrives_where_the_old_one_was(args: list[int], kwargs: dict[str, int]) -> None:
    kwargs.setdefault("d", 1)
    names = ("b", "c", "d")
    plan = Plan(function, {name: Recorded(happy=False, new=name) for name in names}, None)
    before = inspect.signature(function).bind(*args, **kwargs).arguments
    new_args, new_kwargs, _ = plan.examine(tuple(args), kwargs)
    after = inspect.signature(function).bind(*new_args, **new_kwargs).arguments
    assert after == {name: name if name in names else value for name, value in before.items()}


def test_a_missing_argument_is_left_to_the_function() -> None:
    rule = Recorded()
    plan = Plan(function, {"b": rule}, None)
    assert plan.passes is not None
    assert plan.passes((), {}, None)
    assert plan.examine((), {})[2].violations == []
    assert not rule.seen


def test_a_rule_on_the_variable_arguments_sees_all_of_them() -> None:
    rule = Recorded()
    plan = Plan(function, {"rest": rule}, None)
    assert plan.passes is not None
    assert plan.passes((1, 2, 3, 4, 5), {"d": 1}, None)
    assert rule.seen == [(4, 5)]
    changed = Plan(function, {"rest": Recorded(happy=False, new=(9,))}, None)
    assert changed.examine((1, 2, 3, 4, 5), {})[0] == (1, 2, 3, 9)


@pytest.mark.parametrize(
    "call", [((np.zeros((2, 3)), np.zeros(2)), {}), ((np.zeros((2, 3)),), {"y": np.zeros(2)})], ids=["both", "keyword"]
)
def test_named_dimensions_agree_across_parameters(call: tuple[tuple[object, ...], dict[str, object]]) -> None:
    plan = Plan(lambda x, y: None, {"x": Array(("batch", 3)), "y": Array(("batch",))}, None)
    assert plan.binds
    assert plan.passes is not None
    assert plan.passes(*call, {})


def test_the_message_says_where_a_dimension_was_bound() -> None:
    plan = Plan(lambda x, y: None, {"x": Array(("batch", 3)), "y": Array(("batch",))}, Array(("batch", 7)))
    assert plan.passes is not None
    assert not plan.passes((np.zeros((2, 3)), np.zeros(4)), {}, {})
    report = plan.examine((np.zeros((2, 3)), np.zeros(4)), {})[2]
    assert "(y): shape: expected (batch,) with batch = 2 (from x), got (4,)" in str(failure(report, "v"))
    _, found = plan.examine_result(np.zeros((5, 7)), {"batch": 2})
    assert "(return): shape: expected (batch, 7) with batch = 2, got (5, 7)" in str(failure(found, "v"))


def test_a_shape_that_does_not_fit_binds_nothing() -> None:
    plan = Plan(lambda x, y: None, {"x": Array(("batch", 3)), "y": Array(("batch",))}, None)
    report = plan.examine((np.zeros((2, 4)), np.zeros(5)), {})[2]
    assert [each.parameter for each in report.violations] == ["x"]


def test_names_used_once_need_no_dict() -> None:
    plan = Plan(lambda x, y: None, {"x": Array(("batch", 3)), "y": Array(("other",))}, None)
    assert not plan.binds


def test_an_unknown_parameter_is_named_with_those_there_are() -> None:
    with pytest.raises(TypeError, match=r"has no parameter 'z'; it has: x, y"):
        Plan(lambda x, y: None, {"z": Array()}, None)


def test_keyword_collections_cannot_have_rules() -> None:
    with pytest.raises(TypeError, match=r"\*\*more"):
        Plan(function, {"more": Array()}, None)


def test_a_function_without_a_signature_is_refused() -> None:
    with pytest.raises(TypeError, match="has no signature"):
        Plan(dict.update, {"x": Array()}, None)


def test_names_of_functions_in_messages() -> None:
    class Service:
        def embed(self) -> None: ...

        def __call__(self) -> None: ...

    assert short_name(Service.embed) == "Service.embed"
    assert short_name(functools.partial(Service().embed)) == "Service.embed"
    assert short_name(Service()) == "Service"


def test_dims_of_the_result_are_checked_on_the_happy_path_too() -> None:
    plan = Plan(lambda x: None, {"x": Array(("n",))}, Array(("n",)))
    dims: dict[str, int] = {}
    assert plan.passes is not None
    assert plan.result_passes is not None
    assert plan.passes((np.zeros(3),), {}, dims)
    assert plan.result_passes(np.zeros(3), dims)
    assert not plan.result_passes(np.zeros(4), dims)
    assert Report("f").rules() == ()

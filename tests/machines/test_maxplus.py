"""Steps of a queue in the max-plus algebra, and their segment tree, against doing one step after the other."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncguard._machines import maxplus
from asyncguard._machines.maxplus import NEVER, Segments, Step, apply, then

NUMBERS = st.one_of(st.just(NEVER), st.integers(-50, 50))


def steps_of(rates: int) -> st.SearchStrategy[Step]:
    row = st.tuples(*[NUMBERS] * (rates + 2))
    return st.tuples(st.tuples(*[row] * rates), st.one_of(st.just(NEVER), st.integers(0, 50)))


def times_of(rates: int) -> st.SearchStrategy[list[float]]:
    return st.tuples(*[st.integers(0, 100)] * rates, NUMBERS).map(list)


def fold(steps: list[Step], times: list[float]) -> list[float]:
    for step in steps:
        times = apply(step, times)
    return times


@pytest.mark.parametrize("rates", [1, 2, 3])
@given(st.data())
def test_two_steps_joined_do_what_they_do_one_after_the_other(rates: int, data: st.DataObject) -> None:
    one, other = data.draw(steps_of(rates)), data.draw(steps_of(rates))
    times = data.draw(times_of(rates))
    assert apply(then(one, other), times) == fold([one, other], times)


@pytest.mark.parametrize("rates", [1, 2])
@given(st.data())
def test_the_tree_knows_what_any_beginning_of_the_queue_does(rates: int, data: st.DataObject) -> None:
    tree, kept = Segments(), dict[int, Step]()
    changes = st.lists(st.tuples(st.integers(0, 40), st.one_of(st.none(), steps_of(rates))), max_size=30)
    for number, step in data.draw(changes):
        if step is None and number in kept:
            del kept[number]
            changed = (
                {other: data.draw(steps_of(rates)) for other in data.draw(st.sets(st.sampled_from([*kept])))}
                if kept
                else None
            )
            tree.drop(number, changed)
            kept.update(changed or {})
        elif step is not None:
            tree.put(number, step)
            kept[number] = step
        times = data.draw(times_of(rates))
        check(tree, dict(sorted(kept.items())), times)


def check(tree: Segments, kept: dict[int, Step], times: list[float]) -> None:
    whole = tree.whole()
    assert (times if whole is None else apply(whole, times)) == fold(list(kept.values()), times)
    assert tree.first() == next(iter(kept), None)
    for number in range(42):
        ahead = fold([step for other, step in kept.items() if other < number], times)
        if number in kept:
            assert fold(list(tree.before(number)), times) == ahead
            assert tree.following(number) == next((other for other in kept if other > number), None)


@pytest.mark.parametrize("count", [1 << 7, 1 << 12])
def test_the_work_grows_with_the_logarithm_of_the_queue(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    joined = [0]

    def counted(one: Step, other: Step) -> Step:
        joined[0] += 1
        return then(one, other)

    monkeypatch.setattr(maxplus, "then", counted)
    tree, step, rng = Segments(), (((1, 1, 0),), 0), random.Random(3)

    def work(do: Any, *args: Any) -> int:
        joined[0] = 0
        steps = do(*args)
        return joined[0] + (0 if steps is None or isinstance(steps, int) else len(list(steps)))

    numbers = list(range(count))
    assert max(work(tree.put, number, step) for number in numbers) <= math.log2(count)
    rng.shuffle(numbers)
    assert max(work(tree.before, number) for number in numbers[:200]) <= math.log2(count)
    assert max(work(tree.drop, number) for number in numbers) <= math.log2(count)
    assert tree.whole() is None
    assert not any(tree._levels), "nothing is left of those who went"

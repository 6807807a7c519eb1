"""The line on an error, and what is read from it: one line at most, fresh or old, from inside or from here."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import pickle
import traceback
from dataclasses import dataclass

import pytest

from asyncguard._machines import giveup

HERE, INSIDE = 1, 2


def note(error):
    return getattr(error, "__notes__", [])


def test_there_is_one_line_however_often_it_is_left():
    error = ValueError()
    error.add_note("of the user")
    for number in range(200):
        giveup.leave_note(error, f"{number} attempts", HERE)
    assert note(error) == ["of the user", "asyncguard.retry: 199 attempts"]


def test_a_line_is_fresh_only_for_those_who_began_before():
    error, before = ValueError(), giveup.given
    giveup.leave_note(error, "gave up", INSIDE)
    assert giveup.exhausted(error, before, HERE)
    assert not giveup.exhausted(error, giveup.given, HERE)


def test_a_line_of_the_same_place_is_not_from_inside():
    error, before = ValueError(), giveup.given
    giveup.leave_note(error, "gave up", HERE)
    assert not giveup.exhausted(error, before, HERE)


def test_a_line_is_seen_on_a_cause_and_on_a_leaf_but_not_on_what_was_merely_handled():
    inner, before = ValueError(), giveup.given
    giveup.leave_note(inner, "gave up", INSIDE)
    wrapped = RuntimeError()
    wrapped.__cause__ = inner
    assert giveup.exhausted(wrapped, before, HERE)
    assert giveup.exhausted(ExceptionGroup("g", [KeyError(), wrapped]), before, HERE)
    handled = RuntimeError()
    handled.__context__ = inner
    assert not giveup.exhausted(handled, before, HERE)


def test_an_old_line_is_taken_away_and_a_fresh_one_and_other_notes_are_not():
    error = ValueError()
    error.add_note("of the user")
    giveup.leave_note(error, "gave up", INSIDE)
    giveup.withdraw_note(error, giveup.given - 1)
    assert len(note(error)) == 2
    giveup.withdraw_note(error, giveup.given)
    assert note(error) == ["of the user"]


@pytest.mark.parametrize("through", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
def test_it_pickles_as_plain_text_and_is_replaced_there_too(through):
    error = ValueError()
    giveup.leave_note(error, "3 attempts", HERE)
    again = pickle.loads(pickle.dumps(error))
    assert note(again) == ["asyncguard.retry: 3 attempts"]
    assert type(note(again)[0]) is str
    giveup.leave_note(again, "5 attempts", HERE)
    assert note(again) == ["asyncguard.retry: 5 attempts"]
    assert through(error).args == ()


def test_an_error_that_cannot_be_written_to_gets_its_line_all_the_same():
    @dataclass(frozen=True)
    class Frozen(Exception):  # noqa: N818
        code: int

    error, before = Frozen(5), giveup.given
    giveup.leave_note(error, "gave up", INSIDE)
    assert giveup.exhausted(error, before, HERE)
    giveup.forget_frames(error, None)


def test_notes_that_are_no_list_are_left_to_whoever_put_them_there():
    error = ValueError()
    error.__notes__ = "text"
    assert not giveup.exhausted(error, 0, HERE)
    giveup.withdraw_note(error, 10**9)
    assert error.__notes__ == "text"


def raised(error, cause=None):
    try:
        raise error from cause  # noqa: TRY301 - for its traceback
    except Exception as caught:  # noqa: BLE001
        return caught


def test_frames_are_forgotten_along_causes_contexts_and_groups():
    cause, leaf = raised(KeyError()), raised(OSError())
    error = raised(ExceptionGroup("g", [leaf]), cause)
    giveup.forget_frames(error, None)
    assert [each.__traceback__ for each in (error, cause, leaf)] == [None] * 3


def test_the_error_that_the_caller_handles_keeps_its_own():
    outer = raised(KeyError())
    error = raised(ValueError())
    error.__context__ = outer
    giveup.forget_frames(error, outer)
    assert error.__traceback__ is None
    assert traceback.extract_tb(outer.__traceback__)


def test_errors_that_cause_each_other_are_no_endless_loop():
    first, second = ValueError(), KeyError()
    first.__cause__, second.__cause__ = second, first
    giveup.forget_frames(first, None)
    assert not giveup.exhausted(first, 0, HERE)


def test_a_chain_without_end_is_followed_only_so_far():
    error = ValueError()
    for _ in range(500):
        outer = RuntimeError()
        outer.__cause__ = error
        error = outer
    giveup.leave_note(error, "gave up", INSIDE)
    assert giveup.exhausted(error, 0, HERE)


def test_serial_numbers_of_many_tasks_only_grow():
    async def main():
        seen = []

        async def one():
            for _ in range(20):
                before = giveup.given
                giveup.leave_note(ValueError(), "x", HERE)
                seen.append(giveup.given > before)
                await asyncio.sleep(0)

        async with asyncio.TaskGroup() as group:
            for _ in range(5):
                group.create_task(one())
        return seen

    with contextlib.closing(asyncio.new_event_loop()) as loop:
        assert all(loop.run_until_complete(main()))

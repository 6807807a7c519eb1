"""One exception object that is raised again and again: a constant of the module, a mock's `side_effect`."""

from __future__ import annotations

import traceback

import pytest

import asyncguard as ag
from asyncguard import testing


def stack():
    """Everything that may write on an error or keep it."""
    return (
        ag.monitor("one.error"),
        ag.fallback(again),
        ag.timeout(3600),
        ag.retry(name="outer", max_retries=1, budget=None),
        ag.retry(name="inner", max_retries=1, budget=None),
        ag.hedge(delay=60, max_extra_load=1.0),
        ag.circuit_breaker(minimum_calls=10_000),
        ag.bulkhead(1),
        ag.rate_limit("1000/s"),
    )


def again(error, *_args, **_kwargs):
    raise error


def depth(error):
    return len(list(traceback.walk_tb(error.__traceback__)))


@pytest.mark.parametrize("colour", ["asyncio", "trio", "sync"])
def test_200_calls_leave_the_notes_of_one(colour):
    error = ConnectionError("one instance")
    error.add_note("the user's own")
    notes = []

    def call():
        raise error

    async def call_async():
        raise error

    async def main():
        guarded = ag.Pipeline(*stack())(call_async)
        for _ in range(200):
            note(await caught(guarded))

    async def caught(guarded):
        with pytest.raises(ConnectionError) as raised:
            await guarded()
        return raised.value

    def note(raised):
        assert raised is error
        notes.append(list(error.__notes__))
        error.__traceback__ = None  # what the caller keeps is his

    if colour == "sync":
        with testing.virtual_clock():
            guarded = ag.Pipeline(*stack())(call)
            for _ in range(200):
                with pytest.raises(ConnectionError) as raised:
                    guarded()
                note(raised.value)
    else:
        testing.run(main, backend=colour)
    assert notes[0][0] == "the user's own"
    assert {len(each) for each in notes} == {len(notes[0])}
    assert len(notes[0]) <= 4


@pytest.mark.parametrize("colour", ["asyncio", "trio", "sync"])
def test_200_attempts_leave_the_traceback_of_one(colour):
    """Two frames for each attempt: 408 of them after 200."""
    error = ConnectionError("one instance")
    strategy = ag.retry(max_retries=200, budget=None)

    def call():
        raise error

    async def call_async():
        raise error

    with pytest.raises(ConnectionError):
        if colour == "sync":
            with testing.virtual_clock():
                strategy(call)()
        else:
            testing.run(strategy(call_async), backend=colour)
    assert depth(error) < 20
    assert error.__context__ is None


def test_the_arguments_of_earlier_attempts_are_not_kept_by_the_error():
    """Frames in a traceback pin what their functions had in hand: tensors, in the middle of an outage."""
    error = ConnectionError("one instance")

    def call(held):
        raise error

    with testing.virtual_clock(), pytest.raises(ConnectionError):
        ag.retry(max_retries=50, budget=None)(call)("tensor")
    frames = [frame.f_locals for frame, _ in traceback.walk_tb(error.__traceback__) if frame.f_code is call.__code__]
    assert [frame["held"] for frame in frames] == ["tensor"]

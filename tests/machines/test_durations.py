"""Durations and numbers of things, in words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncguard._machines.durations import counted, in_words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0, "0 s"),
        (4.1e-6, "4.1 us"),
        (2e-8, "0.02 us"),
        (0.00227, "0.00227 s"),
        (0.0309, "0.0309 s"),
        (1.0, "1 s"),
        (999.6, "1000 s"),
        (3600.0, "3600 s"),
        (2_592_000.0, "2592000 s"),
        (float("inf"), "inf s"),
    ],
)
def test_a_duration_is_a_plain_number_with_its_unit(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


@given(st.floats(1e-12, 1e12), st.integers(1, 6))
def test_no_duration_has_an_exponent_and_it_is_right_to_its_digits(seconds: float, digits: int) -> None:
    number, unit = in_words(seconds, digits).split(" ")
    assert "e" not in number
    exact = seconds if unit == "s" else seconds * 1e6
    assert abs(float(number) - exact) <= max(exact * 10 ** (1 - digits), 10**-digits)


def test_one_thing_has_no_plural() -> None:
    assert [counted(count, "call") for count in (0, 1, 2)] == ["0 calls", "1 call", "2 calls"]

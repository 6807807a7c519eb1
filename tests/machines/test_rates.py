"""What reads as a rate, and what does not."""

from __future__ import annotations

import pickle
from fractions import Fraction
from typing import Any

import pytest

from asyncguard._machines.rates import Rate, rate_of

SECOND = 10**9


@pytest.mark.parametrize(
    ("text", "limit", "seconds", "burst"),
    [
        ("100/s", 100, 1, 100),
        ("100/s burst 200", 100, 1, 200),
        ("10000/min", 10000, 60, 10000),
        ("2_000_000/minute", 2_000_000, 60, 2_000_000),
        (" 5 per 2 s ", 5, 2, 5),
        ("5/2s", 5, 2, 5),
        ("0.5/s", Fraction(1, 2), 1, 1),
        ("0.1/s", Fraction(1, 10), 1, 1),
        ("3/500ms", 3, Fraction(1, 2), 3),
        ("1/h", 1, 3600, 1),
        ("24/2 days burst 3", 24, 172800, 3),
        ("60/MIN Burst 2.5", 60, 60, Fraction(5, 2)),
    ],
)
def test_a_rate_is_read_exactly(text: str, limit: Any, seconds: Any, burst: Any) -> None:
    rate = Rate(text)
    assert (rate.limit, rate.period, rate.burst) == (limit, seconds * SECOND, burst)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "100",
        "100/",
        "/s",
        "100/x",
        "-1/s",
        "0/s",
        "1/0s",
        "1/s burst 0",
        "nan/s",
        "inf/s",
        "1e3/s",
        "1/s burst",
        "100 s",
        "\u0661/s",
        10,
        None,
        1.5,
    ],
)
def test_what_is_no_rate_is_refused_with_an_example(text: Any) -> None:
    with pytest.raises(ValueError, match='a rate must be like "100/s"'):
        Rate(text)


def test_a_cost_is_a_function() -> None:
    assert Rate("1/s", cost=len).cost is len
    with pytest.raises(TypeError, match="cost must be a callable"):
        Rate("1/s", cost=3)  # type: ignore[arg-type]


def test_a_rate_survives_pickling_and_prints_as_it_was_written() -> None:
    rate = pickle.loads(pickle.dumps(Rate("100/s burst 200", cost=len)))
    assert rate == Rate("100/s burst 200", cost=len)
    assert str(rate) == "100/s burst 200"


def test_a_text_and_a_rate_mean_the_same() -> None:
    rate = Rate("1/s")
    assert rate_of("1/s") == rate
    assert rate_of(rate) is rate
    with pytest.raises(TypeError, match="a rate must be a text like"):
        rate_of(10)

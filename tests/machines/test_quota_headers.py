"""What responses say about their rates: real headers of OpenAI, Anthropic, GitHub, the IETF drafts; and nonsense."""

from __future__ import annotations

from typing import Any

import pytest

from asyncguard._machines.quota_headers import Quota, quotas

WALL = 1_700_000_000.0


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, []),
        (
            {
                "x-ratelimit-limit-requests": "60",
                "x-ratelimit-remaining-requests": "59",
                "x-ratelimit-remaining-tokens": "149984",
                "x-ratelimit-reset-requests": "1s",
                "x-ratelimit-reset-tokens": "6m0s",
            },
            [Quota(59, 1.0, tokens=False), Quota(149984, 360.0, tokens=True)],
        ),
        ({"X-RateLimit-Remaining-Requests": "0", "X-RateLimit-Reset-Requests": "20ms"}, [Quota(0, 0.02, tokens=False)]),
        (
            {"x-ratelimit-remaining-requests": "7", "x-ratelimit-reset-requests": "1h2m3.5s"},
            [Quota(7, 3723.5, tokens=False)],
        ),
        (
            {
                "anthropic-ratelimit-requests-remaining": "3",
                "anthropic-ratelimit-requests-reset": "2023-11-14T22:13:50Z",
                "anthropic-ratelimit-tokens-remaining": "9000",
                "anthropic-ratelimit-tokens-reset": "2023-11-14T22:13:20",
            },
            [Quota(3, 30.0, tokens=False), Quota(9000, 0.0, tokens=True)],
        ),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1700000060"}, [Quota(0, 60.0, tokens=False)]),
        ({"ratelimit-remaining": "10", "ratelimit-reset": "5"}, [Quota(10, 5.0, tokens=False)]),
        ({"ratelimit": '"default";r=50;t=30'}, [Quota(50, 30.0, tokens=False)]),
        ({"ratelimit": "limit=10, r=4"}, [Quota(4, None, tokens=False)]),
        ({"retry-after": "7"}, [Quota(0, 7.0, tokens=False), Quota(0, 7.0, tokens=True)]),
        ({"retry-after-ms": "1500"}, [Quota(0, 1.5, tokens=False), Quota(0, 1.5, tokens=True)]),
        ({"x-ratelimit-remaining": "many"}, []),
        ({"x-ratelimit-remaining": "5", "x-ratelimit-reset": "soon"}, [Quota(5, None, tokens=False)]),
        ({"x-ratelimit-remaining": "-5"}, []),
        ({"x-ratelimit-remaining": "nan", "retry-after": "1e3"}, []),
        ({"retry-after": "9" * 40}, []),
    ],
)
def test_headers_are_read_and_nonsense_is_nothing(headers: dict[str, str], expected: list[Quota]) -> None:
    assert quotas(headers, WALL) == expected


def test_a_date_of_the_same_response_is_better_than_our_clock() -> None:
    headers = {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1700000060", "date": "Tue, 14 Nov 2023 22:13:20 GMT"}
    assert quotas(headers, WALL - 86400) == [Quota(0, 60.0, tokens=False)]


@pytest.mark.parametrize("headers", [None, [], 5])
def test_what_has_no_headers_says_nothing(headers: Any) -> None:
    assert quotas(headers, WALL) == []

"""The lines of a few partitions."""

from __future__ import annotations

from asyncguard._machines.partition_words import MOST_LINES, listed


def test_the_smallest_rank_comes_first_and_equal_ones_keep_their_order() -> None:
    assert listed([("a", 3), ("b", 1), ("c", 1)], str, lambda each: each) == ["[b] 1", "[c] 1", "[a] 3"]


def test_beyond_a_few_only_their_number_is_told() -> None:
    lines = listed([(number, number) for number in range(300)], str, lambda each: -each)
    assert lines[:2] == ["[299] 299", "[298] 298"]
    assert lines[MOST_LINES:] == ["... and 292 more"]


def test_as_many_as_are_shown_need_no_such_line() -> None:
    assert len(listed([(number, "") for number in range(MOST_LINES)], str, id)) == MOST_LINES


def test_a_key_that_looks_like_a_secret_is_not_shown() -> None:
    assert listed([("sk-" + "a1B2" * 8, "busy")], str, len)[0].startswith("[[redacted ")

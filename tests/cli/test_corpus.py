"""The documents: the same ones in the same order, with some delivered twice."""

from __future__ import annotations

import pytest

from asyncguard.cli.demo.corpus import QUESTIONS, documents


@pytest.fixture(scope="module")
def hundred():
    return documents(100)


def test_the_order_is_always_the_same_and_a_short_run_is_the_beginning_of_a_long_one(hundred):
    assert documents(60) == hundred[:60]


def test_numbers_are_unique_and_in_order(hundred):
    assert [document.number for document in hundred] == list(range(100))


def test_about_one_document_in_ten_has_a_text_that_came_before(hundred):
    repeats = len(hundred) - len({document.text for document in hundred})
    assert 8 <= repeats <= 15


def test_texts_say_something_and_titles_are_dotted_names(hundred):
    assert all(len(document.text.split()) >= 5 for document in hundred)
    assert all(document.title.replace(".", "").isidentifier() for document in hundred)


def test_a_small_run_has_something_of_many_modules(hundred):
    assert len({document.title.partition(".")[0] for document in hundred}) > 15


def test_there_are_questions_for_every_second_of_a_short_run():
    assert len(set(QUESTIONS)) == len(QUESTIONS) > 10

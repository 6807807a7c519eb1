"""The index names tests that exist, and every test of this folder is in it. Read by ast: nothing is run."""

from __future__ import annotations

import ast
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from tests.regressions.index import LIST
from tests.regressions.peers import PEERS

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
ROWS = [*LIST, *PEERS]
NAMED = {test for _what, _whose, *tests in ROWS for test in tests}


def names_in(source):
    """Return the names of the tests that pytest would collect from a source text: those of the module itself."""
    nodes = (node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return Counter(node.name for node in nodes if node.name.startswith("test"))


@cache
def names_of(path):
    return names_in((ROOT / path).read_text(encoding="utf-8")) if (ROOT / path).is_file() else Counter()


@pytest.mark.parametrize("row", ROWS, ids=[f"{row[0]} ({row[1]})" for row in ROWS])
def test_every_line_names_tests_that_exist(row):
    what, whose, *tests = row
    assert what
    assert whose
    assert tests, "a line without a test is a wish"
    missing = [test for test in tests if test.split("::")[1] not in names_of(test.split("::")[0])]
    assert not missing, f"{missing} is gone or renamed: put the test in its place that holds this now"
    assert len(tests) == len(set(tests))


def test_every_test_of_this_folder_is_named():
    here = {
        f"{path.relative_to(ROOT).as_posix()}::{name}"
        for path in HERE.glob("test_*.py")
        if path != Path(__file__)
        for name in names_of(path.relative_to(ROOT).as_posix())
    }
    assert here
    assert here - NAMED == set()


def test_no_line_is_there_twice():
    assert [row for row, times in Counter(row[0] for row in ROWS).items() if times > 1] == []


def test_no_test_of_a_file_that_is_named_hides_another_of_its_name():
    """Of two functions of one name Python keeps the last, and pytest says nothing."""
    files = {test.split("::")[0] for test in NAMED}
    assert {f"{path}::{name}" for path in files for name, times in names_of(path).items() if times > 1} == set()


def test_only_what_pytest_collects_counts():
    source = """
def test_yes(): ...
async def test_also(): ...
def helper():
    def test_no(): ...
text = "def test_neither(): ..."
"""
    assert set(names_in(source)) == {"test_yes", "test_also"}

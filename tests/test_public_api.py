"""The names that users see: few, explained in place, and on a page."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

import asyncguard

ROOT = Path(__file__).parents[1]
PAGES = [*(ROOT / "docs" / "reference").glob("*.md"), *(ROOT / "docs" / "strategies").glob("[!_]*.md")]
MOST = 49

# Values, not classes or functions: their pages say what they are.
VALUES = {"TRANSIENT", "__version__"}


def test_the_names_are_few_and_sorted() -> None:
    names = [name for name in asyncguard.__all__ if name != "__version__"]
    assert len(names) <= MOST
    assert len(set(names)) == len(names)


def test_dir_shows_every_public_name() -> None:
    assert set(asyncguard.__all__) <= set(dir(asyncguard))


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = asyncguard.no_such_name


@pytest.mark.parametrize("name", asyncguard.__all__)
def test_the_name_exists_and_says_what_it_is(name: str) -> None:
    value = getattr(asyncguard, name)
    if name not in VALUES:
        assert (inspect.getdoc(value) or "").strip(), f"asyncguard.{name} has no docstring"
        assert value.__doc__ not in {None, getattr(type(value), "__doc__", None)}


@pytest.mark.parametrize("name", asyncguard.__all__)
def test_the_name_is_on_a_page(name: str) -> None:
    word = re.compile(rf"(?<![\w.]){re.escape(name)}(?!\w)")
    pages = [page.name for page in PAGES if word.search(page.read_text(encoding="utf-8"))]
    assert pages, f"{name} is on no page of docs/reference or docs/strategies"


@pytest.mark.parametrize("name", [name for name in asyncguard.__all__ if name[0].islower()])
def test_options_are_keyword_only_behind_what_everybody_sets(name: str) -> None:
    """Rule 16: the positional parameters are the one or two that need no name."""
    value = getattr(asyncguard, name)
    if not inspect.isfunction(value):
        return
    kinds = [parameter.kind for parameter in inspect.signature(value).parameters.values()]
    positional = kinds.count(inspect.Parameter.POSITIONAL_OR_KEYWORD) + kinds.count(inspect.Parameter.POSITIONAL_ONLY)
    assert positional <= 2

"""Every python block of README.md and docs/ runs, and every link between pages leads somewhere."""

from __future__ import annotations

import sys
from pathlib import Path
from textwrap import dedent
from types import ModuleType

import pytest

from tests.docs.blocks import PageError, blocks_of, broken_links, run_page

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """A real module, so that pickling, dataclasses and forward references work; files land in a temporary folder."""
    module = ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)
    monkeypatch.chdir(tmp_path)
    return module


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_code_of_the_page_runs(page: Path, module: ModuleType) -> None:
    problem = ""
    try:
        run_page(blocks_of(page, ROOT), module)
    except PageError as error:
        problem = str(error)
    if problem:  # outside of `except`: the line of the page says more than our frames
        pytest.fail(problem, pytrace=False)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_to_other_pages_lead_somewhere(page: Path) -> None:
    assert broken_links(page) == []


def run_text(text: str, tmp_path: Path, module: ModuleType) -> None:
    page = tmp_path / "page.md"
    page.write_text(dedent(text), encoding="utf-8")
    run_page(blocks_of(page, tmp_path), module)


def test_blocks_share_names_and_may_await(tmp_path: Path, module: ModuleType) -> None:
    text = """
        ```python
        async def double(x):
            return 2 * x
        ```

        1. in a list

           ```python
           answer = await double(21)
           ```

        ```python real-loop
        answer += await double(1)
        ```
    """
    run_text(text, tmp_path, module)
    assert module.answer == 44


def test_the_blocks_of_a_page_share_one_virtual_clock(tmp_path: Path, module: ModuleType) -> None:
    text = """
        ```python
        import asyncio
        from asyncguard._runtime import clock
        start = clock.current().now()
        ```

        ```python
        await asyncio.sleep(3600)
        ```

        ```python
        clock.current().sleep_sync(60)
        assert clock.current().now() - start >= 3660
        ```

        ```python real-loop
        assert clock.current() is clock.REAL
        ```
    """
    run_text(text, tmp_path, module)


def test_a_failing_block_is_reported_with_file_and_line(tmp_path: Path, module: ModuleType) -> None:
    text = "# Title\n\n```python\nx = 1\n\nassert x == 2\n```\n"
    with pytest.raises(PageError, match=r"^page\.md:6: AssertionError"):
        run_text(text, tmp_path, module)


def test_a_syntax_error_is_reported_with_file_and_line(tmp_path: Path, module: ModuleType) -> None:
    with pytest.raises(PageError, match=r"(?s)^page\.md:4: .*SyntaxError"):
        run_text("\n\n```python\nx = = 1\n```\n", tmp_path, module)


@pytest.mark.parametrize("info", ["no-run", "no-run:", "skip", "no-run because"])
def test_a_block_is_left_out_only_with_a_reason(info: str, tmp_path: Path, module: ModuleType) -> None:
    with pytest.raises(PageError, match=r"^page\.md:2: "):
        run_text(f"```python {info}\n1 / 0\n```\n", tmp_path, module)


def test_a_block_with_a_reason_is_compiled_and_not_run(tmp_path: Path, module: ModuleType) -> None:
    run_text("```python no-run: needs a GPU\n1 / 0\n```\n", tmp_path, module)
    with pytest.raises(PageError, match="SyntaxError"):
        run_text("```python no-run: needs a GPU\n1 /\n```\n", tmp_path, module)


def test_output_on_the_page_is_what_is_printed(tmp_path: Path, module: ModuleType) -> None:
    run_text("```python\nprint('took 0.12 s')\n```\n\n```text output\ntook ... s\n```\n", tmp_path, module)
    with pytest.raises(PageError, match=r"^page\.md:6: the page says"):
        run_text("```python\nprint('no')\n```\n\n```text output\nyes\n```\n", tmp_path, module)


def test_a_link_to_nowhere_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("[a](page.md) [b](https://example.org) [c](#here) [d](missing.md#part)", encoding="utf-8")
    assert broken_links(page) == ["missing.md"]

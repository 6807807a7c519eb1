"""Python in Markdown: find the blocks of a page and run them in order, as one program that a reader types along.

```python                        runs; `await` at the top is fine (asyncguard's virtual time: sleeps are instant)
```python real-loop              runs on asyncio and real time: a block that talks to a real server
```python no-run: the reason     is only compiled
```text output                   what the block before has printed (`...` stands for anything)
"""

from __future__ import annotations

import ast
import asyncio
import doctest
import inspect
import re
import traceback
from contextlib import contextmanager, redirect_stdout
from contextvars import Context
from dataclasses import dataclass
from io import StringIO
from types import ModuleType
from typing import TYPE_CHECKING, Any

from asyncguard import testing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

REAL = "real-loop"
FENCE = re.compile(r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<body>.*?)^(?P=indent)```[ ]*$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!\w+:|#)(?P<target>[^)#\s]+)")


class PageError(AssertionError):
    """A block does not do what its page says; the message starts with file:line."""


@dataclass(frozen=True)
class Block:
    """One fenced block: `line` is that of its first line of code."""

    page: str
    line: int
    language: str
    info: str
    code: str

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(page: Path, root: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found: list[Block] = []
    for match in FENCE.finditer(text):
        language, _, info = match["info"].strip().partition(" ")
        code = re.sub(rf"^{match['indent']}", "", match["body"], flags=re.MULTILINE)
        line = text.count("\n", 0, match.start("body")) + 1
        found.append(Block(str(page.relative_to(root)), line, language, info.strip(), code))
    return [block for block in found if block.language == "python" or block.info == "output"]


def broken_links(page: Path) -> list[str]:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    return [match["target"] for match in LINK.finditer(text) if not (page.parent / match["target"]).exists()]


@contextmanager
def virtual_time() -> Iterator[asyncio.Runner]:
    """One virtual clock and one loop for a whole page: its blocks, sync and async, see the same state of a strategy."""
    with testing.virtual_clock() as clock, asyncio.Runner(loop_factory=lambda: testing.VirtualLoop(clock)) as runner:
        yield runner


def run_page(blocks: list[Block], module: ModuleType) -> None:
    """Run the blocks of one page in the namespace of `module`; raise a PageError at the first that is wrong."""
    printed = ""
    with virtual_time() as runner:
        for block in blocks:
            if block.language == "python":
                printed = run_block(block, module, runner)
            else:
                compare(block, printed)


def run_block(block: Block, module: ModuleType, runner: asyncio.Runner) -> str:
    is_run = to_be_run(block)
    output = StringIO()
    try:
        code = compiled(block)
        with redirect_stdout(output):
            if is_run:
                execute(block, code, module, runner)
    except Exception as error:
        raise PageError(f"{block.page}:{line_of(error, block)}: {said(error)}") from error
    return output.getvalue()


def to_be_run(block: Block) -> bool:
    if block.info in {"", REAL}:
        return True
    word, _, reason = block.info.partition(":")
    if word == "no-run" and reason.strip():
        return False
    raise PageError(f"{block.place}: ```python {block.info}: say nothing, `{REAL}`, or `no-run: the reason`")


def line_of(error: Exception, block: Block) -> int:
    if isinstance(error, SyntaxError) and error.filename == block.page:
        return error.lineno or block.line
    frames = traceback.extract_tb(error.__traceback__)
    return next((frame.lineno or block.line for frame in reversed(frames) if frame.filename == block.page), block.line)


def said(error: Exception) -> str:
    return "".join(traceback.format_exception_only(error)).strip()


def compiled(block: Block) -> Any:
    # Empty lines in front: the line numbers of a traceback are those of the page.
    source = "\n" * (block.line - 1) + block.code
    return compile(source, block.page, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)


def execute(block: Block, code: Any, module: ModuleType, runner: asyncio.Runner) -> None:
    if block.info == REAL:  # an empty context has no virtual clock
        Context().run(start, code, module, asyncio.run)
    else:
        start(code, module, runner.run)


def start(code: Any, module: ModuleType, wait_for: Callable[[Any], object]) -> None:
    result = eval(code, module.__dict__)  # noqa: S307 - our own pages
    if code.co_flags & inspect.CO_COROUTINE:
        wait_for(result)


def compare(block: Block, printed: str) -> None:
    checker, flags = doctest.OutputChecker(), doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    if not checker.check_output(block.code, printed, flags):
        raise PageError(f"{block.place}: the page says\n{block.code}\nbut the block before prints\n{printed}")

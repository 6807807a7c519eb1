"""The README is run as it stands by tests/docs; here is what that rests on."""

from __future__ import annotations

import ast
from pathlib import Path

import asyncguard as ag
from tests.docs import blocks

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"


def test_every_example_of_the_readme_is_one_that_is_run():
    """An option that was renamed is a TypeError in somebody's first minute."""
    fences = README.read_text(encoding="utf-8").count("```python")
    found = [block for block in blocks.blocks_of(README, ROOT) if block.language == "python"]
    assert len(found) == fences > 0
    assert not [block for block in found if block.info.startswith("no-run")], "the README is short: all of it runs"


def test_every_name_that_the_readme_imports_or_uses_is_public():
    used = set()
    for block in blocks.blocks_of(README, ROOT):
        if block.language != "python":
            continue
        for node in ast.walk(ast.parse(block.code)):
            if isinstance(node, ast.ImportFrom) and node.module == "asyncguard":
                used |= {alias.name for alias in node.names}
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "ag":
                used.add(node.attr)
    assert used
    assert used <= set(ag.__all__) | {"testing", "events", "errors"}

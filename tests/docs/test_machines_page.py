"""The page about machines and drivers names files that there are, and every file of the floor that drives them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "asyncguard"
PAGE = (ROOT / "docs/explanation/machines-and-drivers.md").read_text()
ROWS = [line for line in PAGE[PAGE.index("### Which file does what") :].splitlines() if line.startswith("|")]
NAMED = sorted({name for row in ROWS for name in re.findall(r"`([\w/]+)`", row)})


@pytest.mark.parametrize("name", NAMED)
def test_a_file_that_is_named_exists(name: str) -> None:
    found = [PACKAGE / name, PACKAGE / f"{name}.py", PACKAGE / "_machines" / f"{name}.py"]
    assert any(each.exists() for each in found)


def test_no_file_that_wraps_functions_is_left_out() -> None:
    assert {path.stem for path in PACKAGE.glob("_[a-z]*.py")} <= set(NAMED)

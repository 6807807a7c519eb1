"""The supervisor: whatever happens to the demo, no process and no folder is left."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from asyncguard.cli.demo import supervisor

if sys.platform == "win32":
    pytest.skip("needs signals", allow_module_level=True)

SLEEP = "import time; time.sleep(600)"
STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(600)
"""
FAMILY = "import os, time; os.fork() or os.setsid(); time.sleep(600)"


class Demo:
    """The other end of the pipe."""

    def __init__(self, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", supervisor.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | environment,
        )
        self.folder = Path(self.heard()["folder"])

    def say(self, **message: object) -> None:
        self.process.stdin.write(json.dumps(message).encode() + b"\n")
        self.process.stdin.flush()

    def heard(self) -> dict[str, object]:
        return json.loads(self.process.stdout.readline())

    def spawn(self, program: str) -> int:
        self.say(op="spawn", argv=[sys.executable, "-c", program], log=str(self.folder / "log"), stop=signal.SIGTERM)
        return self.heard()["pid"]

    def wait_for(self, words: str) -> None:
        log = self.folder / "log"
        until(lambda: log.exists() and words in log.read_text())

    def leave(self) -> int:
        self.process.stdin.close()
        return self.process.wait(60)


@pytest.fixture
def demo():
    one = Demo()
    with one.process:
        yield one


def until(condition, patience: float = 60.0) -> None:
    """Other processes set no event: look again and again."""
    late = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < late, "it did not happen"
        time.sleep(0.005)


def running(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_when_the_pipe_closes_everything_ends_and_the_folder_goes(demo):
    pids = [demo.spawn(SLEEP), demo.spawn(SLEEP)]
    assert demo.leave() == 0
    assert not any(map(running, pids))
    assert not demo.folder.exists()


def test_a_part_that_ignores_its_signal_is_killed(demo):
    pid = demo.spawn(STUBBORN)
    demo.wait_for("deaf")
    demo.leave()
    assert not running(pid)


def test_processes_that_left_their_group_are_found_and_killed(demo):
    pid = demo.spawn(FAMILY)
    until(lambda: supervisor.descendants(pid))
    family = [pid, *supervisor.descendants(pid)]
    demo.leave()
    assert not any(map(running, family))


def test_a_paused_part_ends_too(demo):
    pid = demo.spawn(SLEEP)
    demo.say(op="pause", pid=pid, seconds=600.0)
    demo.leave()
    assert not running(pid)


def test_a_paused_part_goes_on_after_its_pause(demo):
    pid = demo.spawn("import time\nwhile True: print('alive', flush=True); time.sleep(0.01)")
    demo.wait_for("alive")
    demo.say(op="pause", pid=pid, seconds=0.05)
    demo.spawn(SLEEP)  # its answer says that the pause was carried out
    log = demo.folder / "log"
    before = log.stat().st_size
    until(lambda: log.stat().st_size > before + 60)


def test_several_wishes_in_one_breath_are_all_carried_out(demo):
    spawn = {"op": "spawn", "argv": [sys.executable, "-c", SLEEP], "log": os.devnull, "stop": int(signal.SIGTERM)}
    demo.process.stdin.write((json.dumps(spawn) + "\n").encode() * 3)
    demo.process.stdin.flush()
    assert len({demo.heard()["pid"] for _ in range(3)}) == 3


def test_the_end_of_a_part_is_told_with_its_status(demo):
    pid = demo.spawn("raise SystemExit(3)")
    assert demo.heard() == {"exit": pid, "code": 3}


def test_nobody_else_collects_a_part_that_ended_at_once(tmp_path):
    parts = supervisor.Supervisor(tmp_path)
    pid = parts._start([sys.executable, "-c", ""], os.devnull, signal.SIGTERM, None, None)
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        subprocess._cleanup()  # as the next Popen does
        assert os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None
    finally:
        os.waitpid(pid, 0)


def test_a_program_that_is_not_there_is_an_error_and_not_the_end(demo):
    demo.say(op="spawn", argv=["/no/such/program"], log=os.devnull, stop=signal.SIGTERM)
    assert "/no/such/program" in demo.heard()["error"]
    assert running(demo.spawn(SLEEP))


def test_ctrl_c_does_not_reach_it_and_sigterm_ends_it_cleanly(demo):
    pid = demo.spawn(SLEEP)
    demo.process.send_signal(signal.SIGINT)
    demo.process.send_signal(signal.SIGHUP)
    assert running(demo.spawn(SLEEP))
    demo.process.send_signal(signal.SIGTERM)
    assert demo.process.wait(60) == 0
    assert not running(pid)
    assert not demo.folder.exists()


def test_the_folder_stays_if_it_is_to_be_kept(tmp_path):
    demo = Demo(TMPDIR=str(tmp_path))
    with demo.process:
        demo.say(op="keep")
        demo.leave()
    assert demo.folder.parent == tmp_path
    assert demo.folder.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_even_when_the_supervisor_itself_is_killed_its_parts_end(demo):
    pid = demo.spawn(SLEEP)
    demo.process.kill()
    demo.process.wait(60)
    until(lambda: not running(pid))
    shutil.rmtree(demo.folder)  # nobody is left who could have done it

"""Starts the demo's parts, and takes them down whatever happens to the demo.

It is a process of its own, in a session of its own, so Ctrl-C does not reach it. The demo talks to it over a pipe.
When that pipe closes, because the demo said goodbye, failed, or was killed with SIGKILL, the supervisor stops every
process it has started, with their descendants, and removes the temporary folder. It runs as a plain script on the
standard library alone (`python -I -S supervisor.py`), in one thread, so forking is safe and starting is quick.

One JSON object a line. In: `{"op": "spawn", "argv", "log", "stop", "uid", "gid"}`, `{"op": "pause", "pid",
"seconds"}`, `{"op": "keep"}`, `{"op": "remove", "path"}` (an empty folder such as a cgroup, when all is over). Out:
`{"folder"}` first, then `{"pid"}` or `{"error"}` for each spawn, and `{"exit", "code"}` for each child that ended.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
GOODBYE = b"!"
GRACE = 2.0  # seconds in which a part may stop by itself before it is killed


def prctl(option: int, value: int) -> None:
    """On Linux only: the pipe does the work, this is the second line, for when the supervisor itself is killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def parents() -> dict[int, int]:
    """Which process has which parent: from /proc, or from `ps` where there is none."""
    if Path("/proc/self/stat").exists():
        return dict(filter(None, map(_parent, Path("/proc").glob("[0-9]*/stat"))))
    table = subprocess.run(["/bin/ps", "-A", "-o", "pid=,ppid="], check=False, capture_output=True, text=True)
    return {int(pid): int(parent) for pid, parent in map(str.split, table.stdout.splitlines())}


def _parent(stat: Path) -> tuple[int, int] | None:
    try:
        after_name = stat.read_text(errors="replace").rpartition(")")[2].split()
    except OSError:  # it ended while we looked
        return None
    return int(stat.parent.name), int(after_name[1])


def descendants(root: int) -> list[int]:
    """The processes below `root`. Process groups would not do: PostgreSQL's processes each make their own."""
    table = parents()
    found = [root]
    for pid in found:
        found += [child for child, parent in table.items() if parent == pid]
    return found[1:]


def send(number: int, *pids: int) -> None:
    """Signal processes that may be gone already."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


class Supervisor:
    """Children by process id, in the order in which they were started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.keep = False
        self.unread = b""
        self.stop_signals: dict[int, int] = {}
        self.resume_at: dict[int, float] = {}
        self.empty_folders: list[Path] = []
        self.operations: dict[str, Callable[..., None]] = {
            "spawn": self.spawn, "pause": self.pause, "keep": self.kept, "remove": self.remove,
        }  # fmt: skip

    def say(self, **message: object) -> None:
        """Tell the demo, which may no longer be there."""
        with contextlib.suppress(OSError):
            os.write(1, json.dumps(message).encode() + b"\n")

    def spawn(self, *, argv: list[str], log: str, stop: int, uid: int | None = None, gid: int | None = None) -> None:
        """Start a part in its own session, as another user if asked to, and say its process id."""
        try:
            pid = self._start(argv, log, stop, uid, gid)
        except (OSError, subprocess.SubprocessError) as error:
            self.say(error=f"{argv[0]}: {error}")
        else:
            self.stop_signals[pid] = stop
            self.say(pid=pid)

    def _start(self, argv: list[str], log: str, stop: int, uid: int | None, gid: int | None) -> int:
        with Path(log).open("ab") as output:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                user=uid,
                group=gid,
                extra_groups=None if uid is None else [],
                preexec_fn=lambda: prctl(PR_SET_PDEATHSIG, stop),  # noqa: PLW1509 - there is one thread here
            )
        process.returncode = 0  # not known, but ours to find out: else the module itself collects it, and says nothing
        return process.pid

    def pause(self, *, pid: int, seconds: float) -> None:
        """SIGSTOP the part and everything below it, and SIGCONT it later, also if the demo dies meanwhile."""
        send(signal.SIGSTOP, pid, *descendants(pid))
        self.resume_at[pid] = time.monotonic() + seconds

    def kept(self) -> None:
        """Leave the folder where it is when all is over."""
        self.keep = True

    def remove(self, *, path: str) -> None:
        """Remove an empty folder when all is over, if it is there then."""
        self.empty_folders.append(Path(path))

    def resume_due(self) -> float | None:
        """Continue what was paused long enough; the seconds until the next one."""
        for pid, due in list(self.resume_at.items()):
            if time.monotonic() >= due:
                send(signal.SIGCONT, pid, *descendants(pid))
                del self.resume_at[pid]
        return max(0.0, min(self.resume_at.values()) - time.monotonic()) if self.resume_at else None

    def reap(self) -> None:
        """Collect every child that has ended, adopted ones too."""
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if self.stop_signals.pop(ended[0], None) is not None:
                    self.say(exit=ended[0], code=os.waitstatus_to_exitcode(ended[1]))

    def serve(self) -> None:
        """Obey until the pipe closes."""
        wake = wake_on_signals()
        with selectors.DefaultSelector() as selector:
            selector.register(0, selectors.EVENT_READ, self.read)
            selector.register(wake, selectors.EVENT_READ, lambda: GOODBYE not in os.read(wake, 512))
            while all(key.data() for key, _ in selector.select(self.resume_due())):
                self.reap()

    def read(self) -> bool:
        """Carry out what has come; false when the demo has closed the pipe or is gone."""
        data = os.read(0, 65536)  # not a buffered reader: what it kept back, select would not see
        *lines, self.unread = (self.unread + data).split(b"\n")
        for line in lines:
            message: dict[str, Any] = json.loads(line)
            self.operations[message.pop("op")](**message)
        return bool(data)

    def close(self) -> None:
        """Stop the parts, the last one first; kill what does not stop; remove the folder."""
        for pid, number in reversed(self.stop_signals.items()):
            send(signal.SIGCONT, pid, *descendants(pid))
            send(number, pid)
        self._wait(GRACE)
        for pid in descendants(os.getpid()):
            send(signal.SIGKILL, pid)
        self._wait(1.0)
        for empty in self.empty_folders:
            _rmdir(empty)
        if not self.keep:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        self.reap()
        while descendants(os.getpid()) and time.monotonic() < until:
            time.sleep(0.01)
            self.reap()


def _rmdir(folder: Path) -> None:
    """A cgroup is busy for a moment after its last process has ended."""
    for _ in range(100):
        with contextlib.suppress(OSError):
            folder.rmdir()
        if not folder.exists():
            return
        time.sleep(0.01)


def wake_on_signals() -> int:
    """A pipe that becomes readable when a child ends, and when SIGTERM says that all is over."""
    wake, wakeup = os.pipe()
    os.set_blocking(wakeup, False)
    signal.signal(signal.SIGCHLD, functools.partial(_tell, wakeup, b"child"))
    signal.signal(signal.SIGTERM, functools.partial(_tell, wakeup, GOODBYE))
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    return wake


def _tell(pipe: int, word: bytes, _number: int, _frame: object) -> None:
    os.write(pipe, word)


def main() -> None:
    """Make the folder, say where it is, obey, and clean up."""
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    supervisor = Supervisor(Path(tempfile.mkdtemp(prefix="asyncguard-demo-")))
    try:
        supervisor.folder.chmod(0o711)  # PostgreSQL may run as another user below it
        supervisor.say(folder=str(supervisor.folder))
        supervisor.serve()
    finally:
        supervisor.close()


if __name__ == "__main__":
    main()

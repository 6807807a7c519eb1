"""Which directories of the cgroup tree bound this process: its own group and every ancestor that can be seen.

Shaped after what the JVM, .NET and automemlimit found out the hard way: the mount is found in /proc/self/mountinfo
and the group in /proc/self/cgroup; fixed paths are wrong in nested groups, in Docker and on hybrid systems. Formats:
proc_pid_mountinfo(5), cgroups(7), Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst of the kernel.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

__all__ = ["Group", "groups", "limit_of", "parked_bytes"]

UNLIMITED = 1 << 62
"""Version 1 writes "no limit" as the largest number of whole pages, which differs between kernels."""

_NUMBERS = re.compile(rb"^(\w+) (\d+)$", re.MULTILINE)
_OCTAL = re.compile(r"\\([0-7]{3})")


class Mount(NamedTuple):
    """A mounted hierarchy: `root` is the group that stands at `point`."""

    version: int
    root: str
    point: str


@dataclass(frozen=True, slots=True)
class Group:
    """One directory of the memory controller. `top`: nothing above it can be seen. `guessed`: it may not be ours."""

    version: int
    path: Path
    top: bool = False
    guessed: bool = False

    @property
    def usage(self) -> Path:
        """The file with the bytes in use, page cache included."""
        return self.path / ("memory.current" if self.version == 2 else "memory.usage_in_bytes")  # noqa: PLR2004

    @property
    def stat(self) -> Path:
        """The file that says what the bytes are."""
        return self.path / "memory.stat"


def groups(root: Path) -> list[Group]:
    """Return our own group and its ancestors, innermost first; empty if there are none or nothing can be read."""
    try:
        mounts = list(_mounts((root / "proc/self/mountinfo").read_text(errors="surrogateescape")))
        ours = dict(_ours((root / "proc/self/cgroup").read_text(errors="surrogateescape")))
    except OSError:
        return []
    for version in (1, 2):  # on a hybrid system the memory controller is where version 1 has it
        for mount in reversed(mounts):  # the last mount on a point hides those before it
            if mount.version == version and version in ours:
                return _walk(root, mount, ours[version])
    return []


def _mounts(text: str) -> Iterator[Mount]:
    for line in text.splitlines():
        head, dash, tail = line.partition(" - ")
        fields, kind = head.split(" "), tail.split(" ")
        if not dash or len(fields) < 5 or len(kind) < 3:  # noqa: PLR2004 - garbage
            continue
        if kind[0] == "cgroup2" or (kind[0] == "cgroup" and "memory" in kind[2].split(",")):
            yield Mount(2 if kind[0] == "cgroup2" else 1, _unescaped(fields[3]), _unescaped(fields[4]))


def _unescaped(path: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), path)


def _ours(text: str) -> Iterator[tuple[int, str]]:
    for line in text.splitlines():
        number, _, rest = line.partition(":")
        controllers, colon, path = rest.partition(":")
        if not colon:
            continue
        if "memory" in controllers.split(","):
            yield 1, path
        elif number == "0" and not controllers:
            yield 2, path


def _walk(root: Path, mount: Mount, path: str) -> list[Group]:
    point = root / mount.point.lstrip("/")
    inside = _inside(mount.root, path)
    here = point / (inside or "").lstrip("/")
    while here != point and not here.is_dir():  # what is not mounted here is bounded by what is
        here = here.parent
    found: list[Group] = []
    while True:
        found.append(Group(mount.version, here, top=here == point, guessed=inside is None))
        if here == point or not _counts_children(here.parent):
            return found
        here = here.parent


def _inside(mount_root: str, path: str) -> str | None:
    """Return our path below the mount, None if it cannot be known.

    A mount from outside of our cgroup namespace has a root like `/..`, and a process that was moved out of it a path
    like `/../other`: neither names the directory that is ours.
    """
    if ".." in PurePosixPath(mount_root).parts or ".." in PurePosixPath(path).parts:
        return None
    if mount_root == "/":
        return path
    return path.removeprefix(mount_root) if f"{path}/".startswith(f"{mount_root}/") else None


def _counts_children(parent: Path) -> bool:
    """Tell whether a parent's limit bounds its children: version 1 had a switch for it."""
    try:
        return (parent / "memory.use_hierarchy").read_bytes().strip() != b"0"
    except OSError:
        return True


def limit_of(group: Group) -> int | None:
    """Return the limit of a group in bytes, None without one.

    `memory.high` is a limit too: above it the kernel throttles allocations so hard that a service stands still.
    """
    if group.version == 2:  # noqa: PLR2004
        limits = [_bytes_in(group.path / "memory.max"), _bytes_in(group.path / "memory.high")]
    else:
        limits = [_bytes_in(group.path / "memory.limit_in_bytes"), _above(group)]
    return min((limit for limit in limits if limit is not None), default=None)


def _above(group: Group) -> int | None:
    """Return the limit of the ancestors that cannot be seen (a container's view ends at its own group), version 1."""
    if not group.top:
        return None
    try:
        return _limit(int(_numbers(group.stat.read_bytes()).get(b"hierarchical_memory_limit", 0)))
    except OSError:
        return None


def _bytes_in(path: Path) -> int | None:
    try:
        return _limit(int(path.read_bytes()))
    except (OSError, ValueError):  # missing, or "max", or garbage
        return None


def _limit(value: int) -> int | None:
    return value if 0 < value < UNLIMITED else None


def _numbers(stat: bytes) -> dict[bytes, int]:
    return {name: int(value) for name, value in _NUMBERS.findall(stat)}


def parked_bytes(group: Group, stat: bytes) -> tuple[int, int]:
    """Return from memory.stat what the kernel can take back at once, and what cannot be less in use, both in bytes.

    Page cache is no pressure, whether read once (inactive) or often (active); tmpfs is, and counts as `shmem`.
    """
    numbers = _numbers(stat)
    total = b"total_" if b"total_inactive_file" in numbers else b""  # version 1: with the groups below
    anonymous = b"anon" if group.version == 2 else b"rss"  # noqa: PLR2004
    cache = sum(numbers.get(total + name, 0) for name in (b"inactive_file", b"active_file"))
    floor = sum(numbers.get(total + name, 0) for name in (anonymous, b"shmem"))
    return cache + numbers.get(b"slab_reclaimable", 0), floor  # the last is not in version 1

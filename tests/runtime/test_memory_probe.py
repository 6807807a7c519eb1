"""The memory probe on trees of files that look like other machines, and on this one."""

from __future__ import annotations

import logging
import os
import resource
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from asyncguard._machines.levels import PROCESS, Reading
from asyncguard._runtime import cgroup
from asyncguard._runtime.memory_probe import LOOK_AGAIN, MemoryProbe

MIB = 1 << 20
PAGE = os.sysconf("SC_PAGE_SIZE")
NONE_V1 = "9223372036854771712\n"

V2_MOUNT = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n"
V1_MOUNT = "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
MEMINFO = "MemTotal: {total} kB\nMemFree: 1 kB\nMemAvailable: {free} kB\n"


class Tree:
    """A machine made of files, 8 GiB with 6 GiB free, and a clock that the test moves."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.now = 100.0
        self.machine(8192, 6144)
        self.write("proc/self/statm", f"{4000} {300} {100} 1 0 500 0\n")

    def write(self, path: str, text: str | int) -> None:
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n" if isinstance(text, int) else text)

    def machine(self, total: int, free: int) -> None:
        self.write("proc/meminfo", MEMINFO.format(total=total << 10, free=free << 10))

    def v2(self, group: str, mount: str = V2_MOUNT) -> None:
        self.write("proc/self/mountinfo", mount)
        self.write("proc/self/cgroup", f"0::{group}\n")

    def v1(self, group: str, mount: str = V1_MOUNT) -> None:
        self.write("proc/self/mountinfo", mount)
        self.write("proc/self/cgroup", f"7:cpu,cpuacct:/x\n4:memory:{group}\n0::/\n")

    def group2(
        self, path: str, *, limit: str | int = "max\n", high: str | int = "max\n", usage: int = 0, stat: str = ""
    ) -> None:
        base = f"sys/fs/cgroup{path}".rstrip("/")
        self.write(f"{base}/memory.max", limit)
        self.write(f"{base}/memory.high", high)
        self.write(f"{base}/memory.current", usage)
        self.write(f"{base}/memory.stat", stat)

    def group1(self, path: str, *, limit: str | int = NONE_V1, usage: int = 0, stat: str = "") -> None:
        base = f"sys/fs/cgroup/memory{path}".rstrip("/")
        self.write(f"{base}/memory.limit_in_bytes", limit)
        self.write(f"{base}/memory.usage_in_bytes", usage)
        self.write(f"{base}/memory.stat", stat)

    def probe(self, address_space: int | None = None) -> MemoryProbe:
        return MemoryProbe(self.root, clock=lambda: self.now, address_space=lambda: address_space)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def binding(reading: Reading) -> tuple[int, int | None]:
    level = reading.binding()
    assert level is not None
    return level.used, level.limit


def levels(reading: Reading) -> dict[str, tuple[int, int | None]]:
    return {Path(level.name).name: (level.used, level.limit) for level in reading.levels}


# --- what is used, and of what ---


def test_version_2_subtracts_page_cache_and_reclaimable_slab(tree: Tree) -> None:
    tree.v2("/app")
    stat = f"anon {90 * MIB}\nfile 99\ninactive_file {100 * MIB}\nactive_file {50 * MIB}\nslab_reclaimable {10 * MIB}\n"
    tree.group2("/app", limit=512 * MIB, usage=400 * MIB, stat=stat)
    assert binding(tree.probe().read()) == (240 * MIB, 512 * MIB)


def test_version_1_counts_the_groups_below_and_not_the_page_cache(tree: Tree) -> None:
    tree.v1("/app")
    stat = f"inactive_file 1\nactive_file 1\ntotal_inactive_file {100 * MIB}\ntotal_active_file {50 * MIB}\n"
    tree.group1("/app", limit=512 * MIB, usage=400 * MIB, stat=stat)
    assert binding(tree.probe().read()) == (250 * MIB, 512 * MIB)


def test_tmpfs_counts_as_used(tree: Tree) -> None:
    tree.v2("/app")
    stat = f"anon {30 * MIB}\nshmem {100 * MIB}\ninactive_file {400 * MIB}\nactive_file {0}\n"
    tree.group2("/app", limit=512 * MIB, usage=480 * MIB, stat=stat)
    assert binding(tree.probe().read())[0] == 130 * MIB


def test_used_is_never_below_anonymous_memory_and_tmpfs(tree: Tree) -> None:
    tree.v1("/app")
    stat = f"total_rss {70 * MIB}\ntotal_shmem {20 * MIB}\ntotal_inactive_file {300 * MIB}\n"
    tree.group1("/app", limit=512 * MIB, usage=310 * MIB, stat=stat)
    assert binding(tree.probe().read())[0] == 90 * MIB


def test_without_memory_stat_all_of_the_usage_counts(tree: Tree) -> None:
    tree.v2("/app")
    tree.group2("/app", limit=512 * MIB, usage=400 * MIB)
    (tree.root / "sys/fs/cgroup/app/memory.stat").unlink()
    assert binding(tree.probe().read()) == (400 * MIB, 512 * MIB)


def test_memory_high_is_a_limit_too(tree: Tree) -> None:
    tree.v2("/app")
    tree.group2("/app", limit=512 * MIB, high=256 * MIB, usage=MIB)
    assert binding(tree.probe().read()) == (MIB, 256 * MIB)


# --- which level binds ---


def test_a_limit_on_the_parent_is_found(tree: Tree) -> None:
    tree.v2("/pod/app")
    tree.group2("/pod", limit=300 * MIB, usage=200 * MIB)
    tree.group2("/pod/app", usage=50 * MIB)
    assert binding(tree.probe().read()) == (200 * MIB, 300 * MIB)


def test_a_fuller_parent_binds_although_its_limit_is_bigger(tree: Tree) -> None:
    tree.v2("/pod/app")
    tree.group2("/pod", limit=1000 * MIB, usage=950 * MIB)
    tree.group2("/pod/app", limit=400 * MIB, usage=100 * MIB)
    assert binding(tree.probe().read()) == (950 * MIB, 1000 * MIB)


def test_a_full_machine_binds_before_an_empty_container(tree: Tree) -> None:
    tree.v2("/app")
    tree.machine(8192, 100)
    tree.group2("/app", limit=4096 * MIB, usage=50 * MIB)
    assert binding(tree.probe().read()) == (8092 * MIB, 8192 * MIB)


def test_without_any_limit_the_machine_is_the_limit(tree: Tree) -> None:
    tree.v2("/")
    reading = tree.probe().read()
    assert (binding(reading), reading.source) == ((2048 * MIB, 8192 * MIB), "system")


def test_a_limited_address_space_is_a_level(tree: Tree) -> None:
    reading = tree.probe(address_space=4200 * PAGE).read()
    assert levels(reading)["address space"] == (4000 * PAGE, 4200 * PAGE)
    assert binding(reading) == (4000 * PAGE, 4200 * PAGE)


def test_the_process_is_a_level_without_a_limit_that_leaves_files_out(tree: Tree) -> None:
    assert levels(tree.probe().read())[PROCESS] == (200 * PAGE, None)


# --- where the group is ---


def test_on_a_hybrid_system_the_memory_controller_of_version_1_counts(tree: Tree) -> None:
    tree.v1("/app", V1_MOUNT + "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n")
    tree.group1("/app", limit=100 * MIB, usage=MIB)
    assert binding(tree.probe().read()) == (MIB, 100 * MIB)


def test_on_a_hybrid_system_with_memory_in_version_2_that_counts(tree: Tree) -> None:
    tree.write("proc/self/mountinfo", "9 1 0:1 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n" + V2_MOUNT)
    tree.write("proc/self/cgroup", "3:pids:/app\n0::/app\n")
    tree.group2("/app", limit=100 * MIB, usage=MIB)
    assert binding(tree.probe().read()) == (MIB, 100 * MIB)


@pytest.mark.parametrize("inner", ["", "/worker"])
def test_a_docker_prefix_is_taken_off(tree: Tree, inner: str) -> None:
    mount = "35 31 0:32 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"
    tree.v1(f"/docker/abc{inner}", mount)
    tree.group1(inner, limit=100 * MIB, usage=MIB)
    assert binding(tree.probe().read()) == (MIB, 100 * MIB)


def test_a_group_whose_name_begins_like_the_prefix_is_another_one(tree: Tree) -> None:
    tree.v1("/docker/abcdef", "35 31 0:32 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n")
    tree.group1("", limit=100 * MIB, usage=MIB)
    tree.group1("/def", limit=50 * MIB, usage=MIB)
    assert binding(tree.probe().read())[1] == 100 * MIB


def test_a_limit_above_what_the_container_sees_is_known_in_version_1(tree: Tree) -> None:
    tree.v1("/docker/abc", "35 31 0:32 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n")
    tree.group1("", usage=MIB, stat=f"hierarchical_memory_limit {300 * MIB}\n")
    assert binding(tree.probe().read()) == (MIB, 300 * MIB)


def test_a_parent_that_does_not_count_its_children_is_left_out_in_version_1(tree: Tree) -> None:
    tree.v1("/pod/app")
    tree.group1("/pod", limit=10 * MIB, usage=MIB)
    tree.group1("/pod/app", limit=100 * MIB, usage=MIB)
    tree.write("sys/fs/cgroup/memory/pod/memory.use_hierarchy", 0)
    assert binding(tree.probe().read())[1] == 100 * MIB


@pytest.mark.parametrize(("root", "group"), [("/..", "/"), ("/../..", "/app"), ("/", "/../other")])
def test_a_namespace_that_hides_our_group_falls_back_to_the_mount_and_says_so_once(
    tree: Tree, root: str, group: str, caplog: pytest.LogCaptureFixture
) -> None:
    tree.v2(group, f"30 23 0:26 {root} /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
    tree.group2("", limit=100 * MIB, usage=MIB)
    probe = tree.probe()
    for _ in range(3):
        assert binding(probe.read()) == (MIB, 100 * MIB)
        tree.now += 2 * LOOK_AGAIN
    assert [
        record.message.startswith("asyncguard: the memory cgroup of this process is outside")
        for record in caplog.records
    ] == [True]


def test_octal_escapes_in_the_mount_table_are_read(tree: Tree) -> None:
    tree.v2("/a", "30 23 0:26 / /sys/fs/my\\040cgroup\\134 rw - cgroup2 cgroup2 rw\n")
    base = "sys/fs/my cgroup\\/a"
    for name, value in (("max", 100 * MIB), ("current", MIB)):
        tree.write(f"{base}/memory.{name}", value)
    assert binding(tree.probe().read()) == (MIB, 100 * MIB)


def test_a_group_path_may_hold_colons(tree: Tree) -> None:
    tree.v2("/system.slice/a:b.service")
    tree.group2("/system.slice/a:b.service", limit=100 * MIB, usage=MIB)
    assert binding(tree.probe().read()) == (MIB, 100 * MIB)


def test_of_two_mounts_on_one_point_the_last_is_the_one_that_is_seen(tree: Tree) -> None:
    hidden = "29 23 0:26 /elsewhere /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
    tree.v2("/app", hidden + V2_MOUNT)
    tree.group2("/app", limit=100 * MIB, usage=MIB)
    assert binding(tree.probe().read()) == (MIB, 100 * MIB)


def test_a_group_that_is_not_mounted_here_is_bounded_by_what_is(tree: Tree) -> None:
    tree.v2("/host/only/here")
    tree.group2("/host", limit=100 * MIB, usage=MIB)
    assert binding(tree.probe().read()) == (MIB, 100 * MIB)


# --- changes while running ---


def test_a_limit_changed_while_running_is_seen_within_five_seconds(tree: Tree) -> None:
    tree.v2("/app")
    tree.group2("/app", limit=100 * MIB, usage=MIB)
    probe = tree.probe()
    assert binding(probe.read())[1] == 100 * MIB
    tree.write("sys/fs/cgroup/app/memory.max", 200 * MIB)
    tree.now += LOOK_AGAIN
    assert binding(probe.read())[1] == 200 * MIB


def test_usage_is_read_anew_each_time_and_the_limit_is_not(tree: Tree) -> None:
    tree.v2("/app")
    tree.group2("/app", limit=100 * MIB, usage=MIB)
    probe = tree.probe()
    probe.read()
    tree.write("sys/fs/cgroup/app/memory.max", 200 * MIB)
    tree.write("sys/fs/cgroup/app/memory.current", 2 * MIB)
    assert binding(probe.read()) == (2 * MIB, 100 * MIB)


def test_a_process_moved_to_another_group_is_followed(tree: Tree) -> None:
    tree.v2("/a")
    tree.group2("/a", limit=100 * MIB, usage=MIB)
    tree.group2("/b", limit=50 * MIB, usage=MIB)
    probe = tree.probe()
    probe.read()
    tree.v2("/b")
    tree.now += LOOK_AGAIN
    assert binding(probe.read())[1] == 50 * MIB


def test_a_descriptor_closed_behind_our_back_is_opened_again(tree: Tree) -> None:
    tree.v2("/app")
    tree.group2("/app", limit=100 * MIB, usage=MIB)
    probe = tree.probe()
    probe.read()
    kept = probe._groups[0]._usage
    os.close(kept._fd)
    assert binding(probe.read()) == (MIB, 100 * MIB)


def test_descriptors_are_closed_with_the_probe(tree: Tree) -> None:
    tree.v2("/app")
    tree.group2("/app", limit=100 * MIB, usage=MIB)
    probe = tree.probe()
    probe.read()
    fds = [probe._groups[0]._usage._fd, probe._meminfo._fd, probe._statm._fd]
    probe.after_fork()
    for fd in fds:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


def test_a_descriptor_that_another_file_has_taken_over_is_let_go_and_not_closed(tree: Tree, tmp_path: Path) -> None:
    tree.v2("/app")
    tree.group2("/app", limit=100 * MIB, usage=MIB)
    probe = tree.probe()
    known = probe.read()
    group = probe._groups[0]
    taken_over = [file._fd for file in (group._usage, group._stat, probe._meminfo, probe._statm) if file._fd >= 0]
    (tmp_path / "log").write_text("something else\n")
    log = os.open(tmp_path / "log", os.O_RDONLY)
    for fd in taken_over:
        os.dup2(log, fd)
    tree.now += LOOK_AGAIN
    assert probe.read() == known
    probe.after_fork()
    for fd in taken_over:
        assert os.path.sameopenfile(fd, log)
        os.close(fd)
    os.close(log)


def test_a_descriptor_that_another_file_has_taken_over_is_not_closed_with_the_probe(tree: Tree, tmp_path: Path) -> None:
    probe = tree.probe()
    probe.read()
    (tmp_path / "log").write_text("something else\n")
    log = os.open(tmp_path / "log", os.O_RDONLY)
    taken_over = probe._meminfo._fd
    os.dup2(log, taken_over)
    probe.after_fork()
    assert os.path.sameopenfile(taken_over, log)
    os.close(taken_over)
    os.close(log)


# --- nothing to be read ---


@pytest.mark.parametrize("garbage", ["", "banana\n", "-5\n", "0\n", "1e9\n", "\x00\xff\n"])
def test_garbage_for_a_limit_is_no_limit(tree: Tree, garbage: str) -> None:
    tree.v2("/app")
    tree.group2("/app", limit=garbage, usage=MIB)
    assert tree.probe().read().source == "system"


def test_garbage_for_a_usage_leaves_the_level_out(tree: Tree) -> None:
    tree.v2("/app")
    tree.group2("/app", limit=100 * MIB, usage=MIB)
    tree.write("sys/fs/cgroup/app/memory.current", "banana\n")
    assert binding(tree.probe().read())[1] == 8192 * MIB


@pytest.mark.parametrize(
    "garbage", ["", "\n", "a b c\n", "1 2 3 4 5 6\n", "30 23 0:26 / /sys/fs/cgroup rw - cgroup2\n"]
)
def test_garbage_in_the_mount_table_leaves_the_machine(tree: Tree, garbage: str) -> None:
    tree.v2("/app", garbage)
    tree.write("proc/self/cgroup", "0::/app\nbroken\n")
    assert tree.probe().read().source == "system"


def test_without_mem_available_free_and_cached_memory_counts_as_free(tree: Tree) -> None:
    tree.write("proc/meminfo", "MemTotal: 8192 kB\nMemFree: 1024 kB\nBuffers: 24 kB\nCached: 1000 kB\n")
    assert binding(tree.probe().read()) == ((8192 - 2048) << 10, 8192 << 10)


def test_a_container_without_meminfo_still_has_its_own_limit(tree: Tree) -> None:
    tree.v2("/app")
    tree.group2("/app", limit=100 * MIB, usage=MIB)
    (tree.root / "proc/meminfo").unlink()
    reading = tree.probe().read()
    assert (binding(reading), reading.source) == ((MIB, 100 * MIB), "cgroup")


class BrokenPsutil:
    def virtual_memory(self) -> None:
        raise ValueError("no such field in /proc/meminfo")


@pytest.mark.parametrize("psutil", [None, BrokenPsutil()], ids=["missing", "broken"])
def test_with_nothing_to_read_the_source_is_none_with_one_warning(
    tmp_path: Path, psutil: object, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "psutil", psutil)
    probe = MemoryProbe(tmp_path)
    readings = [probe.read() for _ in range(3)]
    assert {reading.source for reading in readings} == {"none"}
    assert readings[0].binding() is None
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "only reservations are counted" in caplog.text


def test_elsewhere_psutil_answers(tmp_path: Path) -> None:
    reading = MemoryProbe(tmp_path).read()
    assert reading.source == "psutil"
    assert levels(reading)["machine"][1] == os.sysconf("SC_PHYS_PAGES") * PAGE


def test_a_process_that_cannot_be_read_holds_nothing(tree: Tree) -> None:
    tree.write("proc/self/statm", "banana\n")
    assert levels(tree.probe().read())[PROCESS] == (0, None)


def test_without_the_resource_module_the_address_space_has_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "resource", None)
    assert "address space" not in levels(MemoryProbe().read())


def test_an_error_nobody_thought_of_does_not_leave_the_probe(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "groups", lambda root: 1 / 0)
    assert tree.probe().read().source == "none"


# --- this machine ---


def test_describe_says_where_the_limit_comes_from(tree: Tree) -> None:
    tree.v2("/app")
    tree.group2("/app", limit=100 * MIB, usage=MIB)
    facts = tree.probe().describe()
    assert (facts["source"], facts["limit"], facts["used"]) == ("cgroup", 100 * MIB, MIB)
    assert facts["cgroup_version"] == 2
    assert str(facts["cgroup"]).endswith("sys/fs/cgroup/app")


@pytest.mark.skipif(sys.platform != "linux", reason="compares with /proc and /sys of Linux")
def test_the_machine_of_this_test_is_read_right() -> None:
    probe = MemoryProbe()
    found = levels(probe.read())
    meminfo = {line.split()[0]: int(line.split()[1]) for line in Path("/proc/meminfo").read_text().splitlines()}
    assert found["machine"][1] == meminfo["MemTotal:"] << 10
    for group in cgroup.groups(Path("/")):
        own = cgroup.limit_of(group)
        if own is not None and own < 8 << 40:
            assert found[group.path.name][1] == own
            assert abs(found[group.path.name][0] - int(group.usage.read_text())) <= int(group.usage.read_text())


@pytest.mark.skipif(sys.platform != "linux", reason="/proc/self is Linux")
def test_a_forked_child_reads_its_own_process() -> None:
    program = textwrap.dedent(
        """
        import os
        from asyncguard._machines.levels import PROCESS
        from asyncguard._runtime import memory_probe
        held = lambda: next(level.used for level in memory_probe.shared().read().levels if level.name == PROCESS)
        before = held()
        pid = os.fork()
        if pid == 0:
            ballast = b"x" * (64 << 20)
            os._exit(0 if held() - before > 50 << 20 else 1)
        raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        """
    )
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == 0


def test_the_address_space_of_this_process_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (1 << 40, 1 << 40))
    assert levels(MemoryProbe().read())["address space"][1] == 1 << 40

"""The memory of GPUs: from torch where it uses them, else from the driver, else not at all; never by starting CUDA."""

from __future__ import annotations

import inspect
import logging
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from asyncguard._machines.levels import PROCESS, Level, Reading
from asyncguard._runtime import gpu_memory, gpu_torch
from asyncguard._runtime.gpu_memory import Gpu
from asyncguard._runtime.gpu_nvml import Nvml, NvmlError, visible
from asyncguard._runtime.shared_ledger import SharedLedger
from tests.runtime.gpu_fakes import UUID, FakeCuda, FakeDriver, install

GIB = 1 << 30
BIG = ("GPU-1111", 70 * GIB, 80 * GIB)  # more than 32 bits hold
SMALL = (f"GPU-{UUID}", 1 * GIB, 16 * GIB)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def no_driver() -> Any:
    raise OSError("libnvidia-ml.so.1: cannot open shared object file")


def nvml(*gpus: tuple[str, int, int], **options: Any) -> Nvml:
    return Nvml(lambda: FakeDriver(*gpus, **options))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return install(monkeypatch, FakeCuda())


def a_gpu(clock: Clock, index: int = 0, **options: Any) -> Gpu:
    return Gpu(index, nvml=options.pop("nvml", Nvml(no_driver)), clock=clock, **options)


def used(reading: Reading) -> dict[str, tuple[int, int | None]]:
    return {level.name: (level.used, level.limit) for level in reading.levels}


# --- torch ---


def test_what_the_allocator_keeps_and_can_use_again_is_not_in_use(cuda: FakeCuda, clock: Clock) -> None:
    cuda.others = 100
    cuda.alloc(300)
    gpu = a_gpu(clock)
    assert used(gpu.read()) == {"cuda:0": (400, 1000), PROCESS: (300, None)}
    cuda.free(200)
    assert cuda.free_bytes(0) == 600  # for the driver nothing has changed
    assert used(gpu.read()) == {"cuda:0": (200, 1000), PROCESS: (100, None)}
    assert gpu.read().source == "torch"


def test_a_block_that_a_stream_still_reads_is_in_use(cuda: FakeCuda, clock: Clock) -> None:
    cuda.alloc(300)
    cuda.allocators[0].pending, cuda.allocators[0].allocated = 200, 100
    assert used(a_gpu(clock).read())["cuda:0"] == (300, 1000)


def test_an_allocator_that_does_not_count_active_blocks_is_taken_by_its_tensors(cuda: FakeCuda, clock: Clock) -> None:
    cuda.native = False
    cuda.alloc(300)
    assert used(a_gpu(clock).read())["cuda:0"] == (300, 1000)


def test_what_other_processes_use_is_looked_at_seldom_and_what_torch_holds_always(cuda: FakeCuda, clock: Clock) -> None:
    cuda.alloc(100)
    gpu = a_gpu(clock)
    gpu.read()
    cuda.others = 500
    cuda.alloc(50)
    assert used(gpu.read())["cuda:0"] == (150, 1000)
    assert cuda.asked_driver == 1
    clock.now += 60.0
    assert used(gpu.read())["cuda:0"] == (650, 1000)


def test_a_share_of_the_gpu_is_one_more_level_of_this_process_alone(cuda: FakeCuda, clock: Clock) -> None:
    cuda.others = 500
    cuda.alloc(100)
    cuda.allocators[0].fraction = 0.25
    [*_, share] = a_gpu(clock).read().levels
    assert share == Level("cuda:0, share of this process", 250, 100, own=True)


def test_a_torch_without_shares_is_read_all_the_same(
    cuda: FakeCuda, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeCuda, "get_per_process_memory_fraction", None)
    cuda.alloc(100)
    assert used(a_gpu(clock).read())["cuda:0"] == (100, 1000)


def test_each_gpu_is_read_by_its_own_number(cuda: FakeCuda, clock: Clock) -> None:
    cuda.alloc(100, 0)
    cuda.alloc(300, 1)
    assert used(a_gpu(clock, 1).read())["cuda:1"] == (300, 1000)


def test_a_gpu_that_torch_has_not_touched_is_asked_about_through_the_driver(cuda: FakeCuda, clock: Clock) -> None:
    cuda.alloc(100, 0)
    gpu = a_gpu(clock, 1, nvml=nvml(SMALL, BIG))
    assert gpu.read().source == "nvml"
    assert cuda.asked_driver == 0
    cuda.alloc(10, 1)
    assert gpu.read().source == "torch"
    cuda.free(10, 1)
    cuda.allocators[1].cached = cuda.allocators[1].most_reserved = 0  # emptied, and its peak forgotten
    assert gpu.read().source == "torch"


@pytest.mark.parametrize("half", [None, ModuleType("torch")])
def test_a_torch_that_is_not_there_or_only_half_imported_is_let_alone(
    half: ModuleType | None, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", half)
    gpu = a_gpu(clock)
    assert gpu.read().source == "none"
    assert (gpu.start(), gpu.stop(), gpu.torch.reserved()) == (None, None, 0)
    gpu.torch.empty_cache()


def test_a_torch_that_does_not_use_cuda_yet_is_asked_nothing(cuda: FakeCuda, clock: Clock) -> None:
    cuda.initialized = False
    gpu = a_gpu(clock, nvml=nvml(SMALL))
    assert used(gpu.read()) == {"cuda:0": (1 * GIB, 16 * GIB), PROCESS: (0, None)}
    assert gpu_torch.current_device() is None
    assert cuda.contexts == set()


# --- the driver ---


def test_the_driver_tells_sizes_beyond_32_bits_and_is_started_once(clock: Clock) -> None:
    driver = FakeDriver(SMALL, BIG)
    asked = Nvml(lambda: driver)
    assert asked.memory(1) == (70 * GIB, 80 * GIB)
    assert asked.memory(0) == (1 * GIB, 16 * GIB)
    assert asked.memory("GPU-1111") == (70 * GIB, 80 * GIB)
    assert asked.uuid(1) == "GPU-1111"
    assert driver.inits == 1
    asked.after_fork()
    asked.memory(0)
    assert driver.inits == 2


def test_a_driver_that_cannot_be_started_is_tried_again_after_a_while_and_not_at_every_reading(clock: Clock) -> None:
    drivers: list[Any] = [None, None, FakeDriver(SMALL)]
    tries: list[float] = []

    def load() -> Any:
        tries.append(clock.now)
        found = drivers.pop(0)
        if found is None:
            raise OSError("no such file")
        return found

    asked = Nvml(load, clock)
    for clock.now in (0.0, 0.1, 4.9, 5.0, 9.9):
        with pytest.raises(NvmlError, match="no such file"):
            asked.memory(0)
    clock.now = 10.0
    assert asked.memory(0) == (1 * GIB, 16 * GIB)
    assert tries == [0.0, 5.0, 10.0]


def test_a_uuid_may_be_cut_short_as_cuda_allows_but_not_be_ambiguous() -> None:
    asked = nvml(SMALL, BIG, ("GPU-1122", 0, GIB))
    assert asked.memory("GPU-111") == (70 * GIB, 80 * GIB)
    with pytest.raises(NvmlError, match="nvmlDeviceGetHandleByUUID: Not Found"):
        asked.memory("GPU-11")
    with pytest.raises(NvmlError, match="Invalid Argument"):
        asked.memory(3)


@pytest.mark.parametrize(
    ("driver", "why"),
    [
        (Nvml(no_driver), "no NVIDIA driver: libnvidia-ml.so.1"),
        (Nvml(object), "no NVIDIA driver"),
        (nvml(SMALL, started=9), "nvmlInit_v2: Driver Not Loaded"),
        (nvml(SMALL, forbidden=True), "Insufficient Permissions"),  # MIG in a container
        (nvml(), "Invalid Argument"),
    ],
)
def test_where_nothing_can_be_read_reservations_count_and_there_is_one_warning(
    driver: Nvml, why: str, clock: Clock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    gpu = a_gpu(clock, nvml=driver)
    for _ in range(3):
        assert gpu.read() == Reading((Level(PROCESS, None, 0, own=True),), "none")
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert why in record.getMessage()
    assert "cuda:0" in record.getMessage()


def test_a_torch_that_fails_costs_a_reading_and_no_call(
    cuda: FakeCuda, clock: Clock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: FakeCuda, device: int) -> Any:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    cuda.alloc(100)
    for name in ("memory_stats_as_nested_dict", "reset_peak_memory_stats", "max_memory_allocated"):
        monkeypatch.setattr(FakeCuda, name, broken)
    gpu = a_gpu(clock)
    assert gpu.read().source == "none"
    assert (gpu.start(), gpu.stop()) == (None, None)
    assert "illegal memory access" in caplog.text


@pytest.mark.parametrize(
    ("listed", "index", "found"),
    [
        (None, 3, 3),
        ("2,5", 0, 2),
        ("2, 5", 1, 5),
        ("1gpu2,2ampere", 1, 2),  # CUDA reads the number that a word begins with
        ("GPU-a,GPU-b", 1, "GPU-b"),
        ("MIG-a", 0, "MIG-a"),
    ],
)
def test_the_visible_devices_are_numbered_as_cuda_does(listed: str | None, index: int, found: int | str) -> None:
    assert visible(index, listed) == found


@pytest.mark.parametrize(
    ("listed", "index"), [("", 0), ("-1", 0), ("0,-1,1", 1), ("0,0", 0), ("none", 0), ("0", 1), ("GPU-a,1", 1)]
)
def test_a_device_that_is_not_visible_is_an_error_that_says_so(listed: str, index: int) -> None:
    with pytest.raises(NvmlError, match=f"no cuda:{index}"):
        visible(index, listed)


def test_the_environment_is_obeyed(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")
    assert used(a_gpu(clock, nvml=nvml(SMALL, BIG)).read())["cuda:0"] == (70 * GIB, 80 * GIB)


# --- the peak, and what can be given back ---


def test_the_peak_of_a_call_is_that_of_its_tensors_above_what_was_there(cuda: FakeCuda, clock: Clock) -> None:
    cuda.alloc(100)
    cuda.alloc(500)
    cuda.free(500)
    gpu = a_gpu(clock)
    assert gpu.start() == 100
    cuda.alloc(200)
    cuda.free(200)
    cuda.alloc(50)
    assert gpu.stop() == 200


def test_a_call_that_starts_cuda_itself_has_taken_all_that_was_allocated(cuda: FakeCuda, clock: Clock) -> None:
    cuda.initialized = False
    gpu = a_gpu(clock)
    assert gpu.start() is None
    cuda.initialized = True
    cuda.alloc(300)
    assert gpu.stop() == 300


def wait(gpu: Gpu) -> None:
    thread = gpu.reclaimer._thread
    if thread is not None:
        thread.join(60)


def test_under_pressure_the_cache_of_this_gpu_is_emptied_on_a_thread(cuda: FakeCuda, clock: Clock) -> None:
    cuda.alloc(300, 1)
    cuda.free(200, 1)
    gpu, steps = a_gpu(clock, 1), list[tuple[str, int]]()
    assert gpu.reclaimer.ask(lambda method, freed, seconds: steps.append((method, freed)), lambda freed: None)
    wait(gpu)
    assert steps == [("gc", 0), ("empty_cache", 200)]
    assert (cuda.emptied, cuda.current, cuda.contexts) == ([1], 0, {1})


def test_the_cache_of_a_gpu_that_is_not_in_use_is_let_alone(cuda: FakeCuda, clock: Clock) -> None:
    a_gpu(clock).torch.empty_cache()
    assert cuda.emptied == []


# --- which one ---


@pytest.fixture
def no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_memory, "_gpus", {})
    monkeypatch.setattr(gpu_memory, "_nvml", Nvml(no_driver))
    monkeypatch.setattr("atexit.register", lambda *_: None)


@pytest.mark.usefixtures("no_gpus")
def test_the_same_gpu_is_the_same_object_whatever_it_is_called(cuda: FakeCuda) -> None:
    cuda.current = 1
    assert gpu_memory.gpu("cuda") is gpu_memory.gpu("cuda:1")
    assert gpu_memory.gpu("cuda:0") is not gpu_memory.gpu("cuda:1")
    assert gpu_memory.gpu("cuda:01").name == "cuda:1"


@pytest.mark.usefixtures("no_gpus")
def test_without_a_number_it_is_the_first_and_a_torch_that_uses_another_is_worth_a_warning(
    cuda: FakeCuda, caplog: pytest.LogCaptureFixture
) -> None:
    cuda.initialized = False
    gpu = gpu_memory.gpu("cuda")
    assert gpu.index == 0
    cuda.initialized, cuda.current = True, 1
    gpu.read()
    gpu.read()
    assert sum("torch now uses cuda:1" in record.getMessage() for record in caplog.records) == 1


def test_all_processes_agree_on_the_name_of_a_gpu(cuda: FakeCuda, clock: Clock) -> None:
    from_driver = a_gpu(clock, nvml=nvml(SMALL))
    assert from_driver._key() == f"gpu-{UUID}"
    cuda.uuid = UUID.upper()
    assert a_gpu(clock)._key() == f"gpu-{UUID}"


@pytest.mark.skipif(sys.platform != "linux", reason="shared memory as Linux has it")
def test_the_table_of_a_gpu_is_found_by_its_name(cuda: FakeCuda, clock: Clock, tmp_path: Path) -> None:
    cuda.uuid = UUID
    table = SharedLedger(a_gpu(clock)._key, tmp_path, clock)
    assert table.connect() is not None
    [file] = tmp_path.iterdir()
    assert file.name.endswith(f"-gpu-{UUID}")
    table.close()


def test_a_gpu_without_a_name_is_shared_with_nobody(cuda: FakeCuda, clock: Clock) -> None:
    assert a_gpu(clock)._key() is None
    assert a_gpu(clock).shared.connect() is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_asks_anew(cuda: FakeCuda, clock: Clock) -> None:
    cuda.alloc(100)
    gpu = a_gpu(clock)
    gpu.read()
    gpu.start()
    gpu.after_fork()
    cuda.initialized = False  # torch says so itself in a forked child
    assert gpu.read().source == "none"
    assert gpu.stop() is None


# --- the real torch, where it is installed ---


@pytest.mark.parametrize(
    "name",
    [
        "is_initialized", "current_device", "mem_get_info", "memory_stats_as_nested_dict", "memory_allocated",
        "max_memory_allocated", "reset_peak_memory_stats", "get_per_process_memory_fraction", "get_device_properties",
        "empty_cache", "device",
    ],
)  # fmt: skip
def test_the_fake_has_the_names_and_parameters_of_the_real_torch(name: str) -> None:
    cuda = pytest.importorskip("torch").cuda
    assert name in cuda.__all__
    real, fake = inspect.signature(getattr(cuda, name)), inspect.signature(getattr(FakeCuda(), name))
    assert list(real.parameters) == list(fake.parameters)


def test_the_statistics_have_the_real_torch_s_names() -> None:
    documented = inspect.cleandoc(pytest.importorskip("torch").cuda.memory_stats.__doc__ or "")
    for name in ("allocated_bytes", "active_bytes", "reserved_bytes"):
        assert f'"{name}.{{all,large_pool,small_pool}}.{{current,peak,allocated,freed}}"' in documented


REAL = """
import sys
import asyncguard
from asyncguard._runtime.gpu_memory import gpu
assert "torch" not in sys.modules
first = gpu("cuda")
first.read()
assert "torch" not in sys.modules, "it imported torch"
import torch
first.read(), first.start(), first.stop(), first.torch.empty_cache(), first._key()
assert not torch.cuda.is_initialized(), "it started CUDA"
"""


def test_with_the_real_torch_nothing_is_imported_and_cuda_is_not_started() -> None:
    pytest.importorskip("torch")
    path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    subprocess.run([sys.executable, "-c", REAL], check=True, env=os.environ | {"PYTHONPATH": path})

"""`memory_guard(device=...)`: the ledger of a GPU, which torch fills. The GPU is a fake one, with torch's own rules."""

from __future__ import annotations

import asyncio
import contextvars
import importlib
import pickle
import weakref
from typing import Any

import pytest
import trio

import asyncguard as ag
from asyncguard import events, testing
from asyncguard._machines.device_ledger import DeviceLedger, out_of_device_memory
from asyncguard._runtime import clock as clocks
from asyncguard._runtime import gpu_memory
from asyncguard._runtime.gpu_nvml import Nvml
from asyncguard.errors import MemoryPressureError
from tests.runtime.gpu_fakes import FakeCuda, OutOfMemoryError, install
from tests.runtime.test_gpu_memory import no_driver
from tests.strategies.memory_machine import Machine, machine

__all__ = ["machine"]  # a fixture

TOTAL = 1000


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    """A GPU in use, with an empty ledger."""
    made = install(monkeypatch, FakeCuda(TOTAL))
    made.alloc(100)  # the model
    module = importlib.import_module("asyncguard.strategies.memory_guard")
    monkeypatch.setattr(module, "_ledgers", weakref.WeakValueDictionary())
    monkeypatch.setattr(gpu_memory, "_gpus", {})
    monkeypatch.setattr(gpu_memory, "_nvml", Nvml(no_driver))
    monkeypatch.setattr("atexit.register", lambda *_: None)
    return made


async def sleep(seconds: float) -> None:
    await clocks.library_sleep(seconds)


async def together(function: Any, count: int) -> None:
    if not clocks.in_trio():
        await asyncio.gather(*(function() for _ in range(count)))
        return
    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(function)


class Model:
    """Allocates late: everybody has looked by then."""

    def __init__(self, cuda: FakeCuda, size: int = 200) -> None:
        self.cuda = cuda
        self.size = size
        self.most = self.done = self.running = 0

    async def __call__(self) -> None:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await sleep(0.1)
            self.cuda.alloc(self.size)
            await sleep(0.1)
            self.cuda.free(self.size)
            self.done += 1
        finally:
            self.running -= 1


def guarded(model: Model, **options: Any) -> Any:
    guard = ag.memory_guard(0.9, device="cuda:0", max_wait=60.0, **options)

    @guard
    async def embed() -> None:
        await model()

    return embed


def test_without_the_guard_calls_run_out_of_the_gpus_memory(cuda: FakeCuda) -> None:
    model = Model(cuda)
    with pytest.raises(OutOfMemoryError):
        asyncio.run(together(model, 10))


def test_calls_that_allocate_late_stay_below_the_limit_of_the_gpu(cuda: FakeCuda, backend: str) -> None:
    model = Model(cuda)
    testing.run(lambda: together(guarded(model, estimate=200), 10), backend=backend)
    assert (model.done, model.most) == (10, 4)  # 100 + 4 * 200 <= 900
    assert cuda.allocators[0].most_reserved <= 900


def test_what_a_call_takes_is_learned_from_torchs_peak(cuda: FakeCuda, backend: str) -> None:
    model = Model(cuda)
    testing.run(lambda: together(guarded(model), 40), backend=backend)
    assert model.done == 40
    assert model.most == 3  # 100 + 3 * 240 <= 900


def test_the_size_learned_is_the_peak_and_a_margin_and_what_is_cached_does_not_matter(cuda: FakeCuda) -> None:
    guard = ag.memory_guard(0.9, device="cuda:0")
    cuda.alloc(300)
    cuda.free(300)

    @guard
    def embed() -> None:
        cuda.alloc(200)
        cuda.free(200)

    embed()
    assert guard.gate.learner is not None
    assert guard.gate.learner.need == 240
    embed()
    assert guard.gate.learner.need == 240


def test_a_gpu_that_runs_out_raises_the_estimate_and_its_error_leaves_as_it_is(cuda: FakeCuda) -> None:
    guard = ag.memory_guard(0.9, device="cuda:0", initial_estimate=200)
    error = OutOfMemoryError("CUDA out of memory. Tried to allocate ...")

    @guard
    def embed() -> None:
        raise error

    with pytest.raises(OutOfMemoryError) as raised:
        embed()
    assert raised.value is error
    assert not hasattr(error, "__notes__")
    assert guard.gate.learner is not None
    assert guard.gate.learner.need == 400
    assert guard.gate.ledger.standing() == (0, 0)


def test_a_machine_that_runs_out_says_nothing_about_the_gpu_and_the_other_way_round(
    cuda: FakeCuda, machine: Machine
) -> None:
    gpu = ag.memory_guard(0.9, device="cuda:0", initial_estimate=200)
    host = ag.memory_guard(0.9, initial_estimate=200)
    for guard, error in ((gpu, MemoryError()), (host, OutOfMemoryError())):
        with pytest.raises(type(error)):
            guard(_raise)(error)
        assert guard.gate.learner is not None
        assert guard.gate.learner.need == 200


def _raise(error: Exception) -> None:
    raise error


def test_such_an_error_is_transient_and_a_retry_comes_back_with_twice_the_bytes(cuda: FakeCuda, backend: str) -> None:
    guard = ag.memory_guard(0.9, device="cuda:0", initial_estimate=200)
    promised: list[int] = []

    @ag.guard(ag.retry(max_retries=2), guard)
    async def embed() -> str:
        promised.append(guard.core_here().single.ledger.standing()[0])
        if len(promised) == 1:
            raise OutOfMemoryError("CUDA out of memory")
        return "done"

    assert ag.classify(OutOfMemoryError("CUDA out of memory")) == "transient"
    assert testing.run(embed, backend=backend) == "done"
    assert promised == [200, 400]


@pytest.mark.parametrize(
    ("module", "name", "is_one"),
    [
        ("torch", "OutOfMemoryError", True),
        ("torch.cuda", "OutOfMemoryError", True),  # before torch 2.5
        ("cupy.cuda.memory", "OutOfMemoryError", True),
        ("redis.exceptions", "OutOfMemoryError", False),
        ("torch", "AcceleratorError", False),
    ],
)
def test_errors_are_known_by_name_and_so_are_those_derived_from_them(module: str, name: str, is_one: bool) -> None:
    kind = type(name, (RuntimeError,), {"__module__": module})
    mine = type("MyError", (kind,), {})
    assert out_of_device_memory(kind()) is is_one
    assert out_of_device_memory(mine()) is is_one


def test_a_call_that_can_never_fit_on_the_gpu_is_refused_with_its_numbers(cuda: FakeCuda) -> None:
    guard = ag.memory_guard(0.9, device="cuda:0", estimate=901)
    with pytest.raises(MemoryPressureError, match=r"\(cuda:0\)") as refused:
        guard(lambda: None)()
    error = refused.value
    assert (error.permanent, error.used, error.limit, error.need) == (True, 100, TOTAL, 901)


def test_the_gpu_and_the_machine_have_a_ledger_each_and_so_has_each_gpu(cuda: FakeCuda, machine: Machine) -> None:
    host, first, again, second = (
        ag.memory_guard(estimate=1, device=device) for device in (None, "cuda:0", "cuda", "cuda:1")
    )
    ledgers = [guard.gate.ledger for guard in (host, first, again, second)]
    assert ledgers[1] is ledgers[2]
    assert len({id(ledger) for ledger in ledgers}) == 3
    assert [isinstance(ledger, DeviceLedger) for ledger in ledgers] == [False, True, True, True]


def test_processes_share_the_ledger_of_a_gpu_unless_told_not_to(cuda: FakeCuda) -> None:
    alone = ag.memory_guard(estimate=1, device="cuda:1", share="process")
    assert alone.gate.ledger.connect is None
    together = ag.memory_guard(estimate=1, device="cuda:0")
    assert together.gate.ledger.connect == gpu_memory.gpu("cuda:0").shared.connect


def test_a_call_may_need_both_the_machine_and_the_gpu(cuda: FakeCuda, machine: Machine, backend: str) -> None:
    host = ag.memory_guard(0.9, estimate=300, name="host")
    gpu = ag.memory_guard(0.9, estimate=200, device="cuda:0", name="gpu")
    seen: list[tuple[int, int]] = []

    @host
    @gpu
    async def embed() -> None:
        seen.append((host.core_here().single.ledger.standing()[0], gpu.core_here().single.ledger.standing()[0]))

    testing.run(embed, backend=backend)
    assert seen == [(300, 200)]


def test_a_guarded_call_inside_of_another_draws_on_its_bytes_on_the_same_gpu_only(
    cuda: FakeCuda, machine: Machine
) -> None:
    outer = ag.memory_guard(0.9, estimate=300, device="cuda:0")
    inner, host = ag.memory_guard(0.9, estimate=200, device="cuda"), ag.memory_guard(0.9, estimate=200)
    seen: list[tuple[int, int]] = []

    def look() -> None:
        seen.append((outer.gate.ledger.standing()[0], host.gate.ledger.standing()[0]))

    def call(guarded: Any) -> None:
        guarded()

    outer(call)(inner(look))
    outer(call)(host(look))
    assert seen == [(300, 0), (300, 200)]


def test_under_pressure_the_gpus_own_memory_is_given_back_and_told(cuda: FakeCuda) -> None:
    told: list[Any] = []
    guard = ag.memory_guard(0.9, estimate=400, device="cuda:0", on_pressure="raise", on_event=told.append)
    cuda.alloc(500)
    cuda.free(200)

    @guard
    def outer() -> None:
        cuda.alloc(400)
        with pytest.raises(MemoryPressureError):
            contextvars.Context().run(guard(lambda: None))
        cuda.free(400)

    outer()
    thread = gpu_memory.gpu("cuda:0").reclaimer._thread
    if thread is not None:
        thread.join(60)
    methods = [event.method for event in told if isinstance(event, events.MemoryReclaimed)]
    assert methods[-1:] == ["empty_cache"]
    assert "cache" not in methods  # what caches of the machine hold does not help a GPU
    assert cuda.emptied == [0]


def test_what_the_guard_says_names_the_gpu(cuda: FakeCuda) -> None:
    guard = ag.memory_guard(estimate=1, device="cuda:0")
    guard(lambda: None)()
    [line] = guard.describe()
    assert "(cuda:0)" in line


def test_the_gpu_of_a_guard_cannot_be_changed(cuda: FakeCuda) -> None:
    guard = ag.memory_guard(device="cuda:0")
    with pytest.raises(TypeError, match="device of memory_guard cannot be changed"):
        guard.configure(device="cuda:1")
    with pytest.raises(TypeError, match="device of memory_guard cannot be changed"), guard.override(device=None):
        pass


def test_a_guard_of_a_gpu_can_be_pickled(cuda: FakeCuda) -> None:
    again = pickle.loads(pickle.dumps(ag.memory_guard(device="cuda:1", estimate=5)))
    assert again.options.device == "cuda:1"
    assert isinstance(again.gate.ledger, DeviceLedger)


def test_without_any_gpu_calls_go_on_and_there_is_one_warning(cuda: FakeCuda, caplog: pytest.LogCaptureFixture) -> None:
    cuda.initialized = False
    guard = ag.memory_guard(device="cuda:0")
    embed = guard(lambda: "done")
    assert [embed() for _ in range(3)] == ["done"] * 3
    assert sum("cannot be read" in record.getMessage() for record in caplog.records) == 1


def test_where_the_gpu_cannot_be_read_an_own_limit_holds_all_the_same(cuda: FakeCuda) -> None:
    cuda.initialized = False
    guard = ag.memory_guard(1.0, device="cuda:0", estimate=600, limit=1000, on_pressure="raise")

    async def main() -> list[Any]:
        @guard
        async def embed() -> None:
            await sleep(0.1)

        return await asyncio.gather(embed(), embed(), return_exceptions=True)

    first, second = asyncio.run(main())
    assert first is None
    assert isinstance(second, MemoryPressureError)

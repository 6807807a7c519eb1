"""One gate per key: bounded, least recently used, and never one that still knows something."""

from __future__ import annotations

import threading
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import pytest

from asyncguard._machines.bucket import Bucket
from asyncguard._machines.partition_keys import check_partition, partition_key
from asyncguard._machines.partitions import Partitions
from asyncguard._machines.rates import Rate


@dataclass(eq=False)
class Gate:
    key: Any
    busy: bool = False

    def idle(self) -> bool:
        return not self.busy


def test_each_key_has_one_gate() -> None:
    partitions = Partitions(Gate)
    assert partitions.get("a") is partitions.get("a")
    assert partitions.get("a") is not partitions.get("b")
    assert [gate.key for gate in partitions] == ["a", "b"]


def test_the_least_recently_used_goes_first() -> None:
    partitions = Partitions(Gate, limit=3)
    for key in "abc":
        partitions.get(key)
    partitions.get("a")
    partitions.get("d")
    assert [key for key, _ in partitions.items()] == ["c", "a", "d"]


def test_one_that_is_not_idle_never_goes_even_if_the_map_has_to_grow() -> None:
    partitions = Partitions(Gate, limit=3)
    for key in "abcde":
        partitions.get(key).busy = key != "c"
    assert [key for key, _ in partitions.items()] == ["a", "b", "d", "e"]
    for gate in partitions:
        gate.busy = False
    partitions.get("f")
    assert [key for key, _ in partitions.items()] == ["d", "e", "f"]


def test_the_map_is_bounded() -> None:
    partitions = Partitions(Gate, limit=64)
    for key in range(10_000):
        partitions.get(key)
        assert len(partitions) <= 64


def test_asking_whether_gates_are_idle_costs_little_per_key_even_when_none_is() -> None:
    asked = 0

    class Busy(Gate):
        def idle(self) -> bool:
            nonlocal asked
            asked += 1
            return False

    partitions = Partitions(Busy, limit=80)
    for key in range(800):
        partitions.get(key)
    assert len(partitions) == 800
    assert asked < 800 * 800 / 10


def test_1100_keys_do_not_make_a_limiter_forget_the_one_that_is_limited() -> None:
    now = 10**12
    partitions = Partitions(lambda _: Bucket([Rate("1/min")], lambda: now), limit=1024)
    partitions.get("limited").take()
    for key in range(1100):
        partitions.get(key)
    with pytest.raises(LookupError):
        partitions.get("limited").take()
    now += 60 * 10**9
    for key in range(2000, 3200):
        partitions.get(key)
    assert len(partitions) <= 1024


def test_threads_share_one_gate_per_key() -> None:
    partitions = Partitions(Gate, limit=100)
    seen: list[Gate] = []

    def work() -> None:
        seen.extend(partitions.get(i % 10) for i in range(500))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(gate) for gate in seen}) == 10


def test_a_key_comes_from_the_arguments_or_from_the_context() -> None:
    tenant: ContextVar[str] = ContextVar("tenant")
    assert partition_key(lambda x, model: model, (1,), {"model": "m"}) == "m"
    assert partition_key(tenant, (), {}) is None
    token = tenant.set("acme")
    assert partition_key(tenant, (), {}) == "acme"
    tenant.reset(token)


def test_partition_is_a_callable_or_a_context_variable() -> None:
    assert check_partition(None) is None
    assert check_partition(len) is len
    with pytest.raises(TypeError, match="partition must be a callable on the arguments, or a ContextVar, got 'host'"):
        check_partition("host")


def test_a_fork_renews_the_lock_and_keeps_the_gates() -> None:
    partitions = Partitions(Gate, limit=2)
    partitions.get("a").busy = True
    held = partitions._lock
    partitions.after_fork()
    assert partitions._lock is not held
    assert len(partitions) == 1


@pytest.mark.parametrize("limit", [0, -1, True, 1.5])
def test_the_bound_is_a_number_of_gates(limit: Any) -> None:
    with pytest.raises(ValueError, match="limit must be an integer"):
        Partitions(Gate, limit)

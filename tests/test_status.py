"""What `status()` says of partitions, of modes, and of a strategy that is in several places."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

import asyncguard as ag
from asyncguard import testing


def key(of: object) -> Any:
    return of


def lines(name: str) -> list[str]:
    return [str(fact).removeprefix(f"{name} ") for fact in ag.status() if fact.pipeline == name]


def while_calls_run(strategy: Any, keys: list[object], name: str, backend: str = "asyncio") -> list[str]:
    """Return the lines after a tenth of a second, while the calls of these keys take a second each."""

    async def body(_key: object) -> None:
        await anyio.sleep(1)

    guarded = ag.Pipeline(strategy, name=name)(body)
    seen: list[str] = []

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for each in keys:
                group.start_soon(guarded, each)
            await anyio.sleep(0.1)
            seen.extend(lines(name))

    testing.run(main, backend=backend)  # type: ignore[arg-type]
    return seen


def test_the_fullest_partitions_of_a_bulkhead_are_named_and_no_gate_that_nobody_uses(backend: str) -> None:
    seen = while_calls_run(ag.bulkhead(1, partition=key), ["a", "b", "b", "b", "c", "c"], f"full_{backend}", backend)
    assert seen == [
        "bulkhead: [b] 1 of 1 running, queue 2/10",
        "bulkhead: [c] 1 of 1 running, queue 1/10",
        "bulkhead: [a] 1 of 1 running, queue 0/10",
    ]


def test_of_three_hundred_tenants_a_few_are_shown_and_the_others_counted() -> None:
    seen = while_calls_run(ag.bulkhead(1, partition=key), [*range(300), 299, 298], "tenants")
    assert seen[:2] == [f"bulkhead: [{each}] 1 of 1 running, queue 1/10" for each in (299, 298)]
    assert (len(seen), seen[-1]) == (9, "bulkhead: ... and 292 more")


def test_every_partition_of_a_memory_guard_is_named_once() -> None:
    seen = while_calls_run(ag.memory_guard(estimate=5, partition=key), ["a", "a", "b"], "bytes")
    assert [line.split(" ", 2)[1] for line in seen] == ["[a]", "[b]"]


def test_the_partition_of_a_pipeline_is_shown_as_well() -> None:
    slots = ag.bulkhead(1)

    @ag.guard(slots, partition=key, name="of a pipeline")
    def work(_key: str) -> None:
        """Do nothing."""

    assert lines("of a pipeline") == ["bulkhead: 0 of 1 running, queue 0/10"]
    work("a")
    assert lines("of a pipeline") == ["bulkhead: [a] 0 of 1 running, queue 0/10"]
    with slots.permit():
        assert slots.describe() == ["1 of 1 running, queue 0/10", "[a] 0 of 1 running, queue 0/10"]


def test_before_the_first_call_no_partition_is_in_use() -> None:
    for strategy in (ag.bulkhead(1, partition=key), ag.hedge(partition=key), ag.memory_guard(partition=key)):
        assert strategy.describe() == ["no partition in use"]


def test_a_rate_limit_never_has_less_than_nothing_left() -> None:
    seen = while_calls_run(ag.rate_limit("1/s burst 1", partition=key), ["a", "a", "a", "b"], "rates")
    assert seen == [
        "rate_limit: [a] 1/s burst 1: 0 left; 2 waiting, next in 0.9 s",
        "rate_limit: [b] 1/s burst 1: 0.1 left; 0 waiting, next in 0.9 s",
        "rate_limit: 2 of 2 partitions in use",
    ]


# --- modes ---


def test_what_is_not_enforced_says_so() -> None:
    @ag.guard(ag.retry(mode="observe"), ag.bulkhead(1, mode="off"), ag.timeout(1, mode="off"), name="modes")
    def svc() -> None:
        """Do nothing."""

    svc()
    assert lines("modes") == [
        "bulkhead (off): 0 of 1 running, queue 0/10",
        "retry (observe): budget: 100 retries left",
        "timeout (off): taken out",
    ]


def test_the_mode_of_the_environment_and_of_a_block_are_those_in_force(monkeypatch: pytest.MonkeyPatch) -> None:
    slots = ag.bulkhead(1)
    ag_slots = ag.Pipeline(slots, name="forced")
    with slots.override(mode="off"):
        assert lines("forced") == ["bulkhead (off): 0 of 1 running, queue 0/10"]
    monkeypatch.setattr("asyncguard._modes.FORCED", [("forced.bulkhead", "observe")])
    assert lines("forced") == ["bulkhead (observe): 0 of 1 running, queue 0/10"]
    assert ag_slots.name == "forced"


# --- one strategy, several pipelines ---


def test_what_is_done_by_hand_and_blocks_add_no_line_of_their_own() -> None:
    breaker = ag.circuit_breaker(name="by hand")

    @breaker
    def called() -> None:
        """Do nothing."""

    called()
    breaker.force_open()
    breaker.close()
    with breaker.permit():
        pass
    found = [fact for fact in ag.status() if fact.strategy == "by hand"]
    assert [fact.pipeline.rsplit(".", 1)[-1] for fact in found] == ["called"]


def test_a_strategy_that_is_only_used_in_blocks_is_shown_under_its_own_name() -> None:
    slots = ag.bulkhead(1, name="only blocks")
    with slots.permit():
        assert lines("only blocks") == ["only blocks: 1 of 1 running, queue 0/10"]


def test_a_strategy_in_two_pipelines_of_one_name_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    slots = ag.bulkhead(1)
    told = iter(range(9))
    monkeypatch.setattr(slots, "describe", lambda: [f"asked {next(told)}"])
    pipelines = [ag.Pipeline(ag.retry(), slots, name="same"), ag.Pipeline(slots, name="same")]
    assert [line for line in lines("same") if "bulkhead" in line] == ["bulkhead: asked 0"]
    assert len(pipelines) == 2

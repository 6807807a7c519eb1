"""The fault schedule: the same seed deals the same faults to the same batches, in whatever order they come."""

from __future__ import annotations

import json
import random
from collections import Counter

import pytest

from asyncguard.cli.demo.faults import KINDS, LEVELS, OUTAGE, Injector, Schedule, deal, digest, keys_of

KEYS = [digest(f"text {number}") for number in range(140)]


def dealt(seed: int, level: str) -> Schedule:
    return deal(seed, LEVELS[level], KEYS, outage_after=70)


def faults_met(schedule: Schedule, order: list[str]) -> dict[str, list[str | None]]:
    """What each batch meets when it is asked for again until it is answered."""
    injector = Injector(schedule, lambda: 0.0)
    waiting = list(order)
    met: dict[str, list[str | None]] = {key: [] for key in order}
    while waiting:
        key = waiting.pop(0)
        met[key].append(injector.fault_of([key]))
        if met[key][-1] is not None:
            waiting.append(key)
    return met


@pytest.mark.parametrize("level", ["mild", "severe"])
def test_the_same_seed_deals_the_same_faults(level):
    assert dealt(7, level) == dealt(7, level)


def test_another_seed_deals_other_faults():
    assert dealt(7, "mild").faults != dealt(8, "mild").faults


def test_the_order_of_requests_does_not_change_what_a_batch_meets():
    schedule = Schedule(dealt(3, "severe").faults, outage_after=len(KEYS) + 1, outage_seconds=0.0)
    shuffled = random.Random(1).sample(KEYS, k=len(KEYS))
    assert faults_met(schedule, KEYS) == faults_met(schedule, shuffled)


def test_every_kind_comes_about_as_often_as_any_other():
    first = [each[0] for each in dealt(7, "mild").faults.values() if each]
    times = Counter(first)
    assert set(times) == set(KINDS)
    assert max(times.values()) - min(times.values()) <= 1


def test_severe_is_worse_than_mild_and_none_is_nothing():
    totals = {name: sum(map(len, dealt(7, name).faults.values())) for name in LEVELS}
    assert totals["none"] == 0 < totals["mild"] < totals["severe"]
    assert dealt(7, "none").outage_seconds == 0.0


def test_no_batch_meets_more_faults_in_a_row_than_the_level_allows():
    assert max(map(len, dealt(7, "severe").faults.values())) <= LEVELS["severe"].most


def test_the_key_of_a_batch_is_a_text_that_no_cache_takes_out():
    keys = keys_of([["twice", "a", "b"], ["twice", "c"], ["d"]])
    assert keys == [digest("a"), digest("c"), digest("d")]


def test_a_batch_of_repeated_texts_alone_has_no_key():
    assert keys_of([["twice"], ["twice", "a"]]) == [digest("a")]


def test_the_outage_hits_everybody_and_the_batchs_own_faults_wait_for_its_end():
    now = [0.0]
    schedule = Schedule({"a": [], "b": ["503"]}, outage_after=1, outage_seconds=3.0)
    injector = Injector(schedule, lambda: now[0])
    assert injector.fault_of(["a"]) is None
    assert injector.fault_of(["b"]) == OUTAGE
    assert injector.fault_of(["a question"]) == OUTAGE
    now[0] = 3.0
    assert injector.fault_of(["b"]) == "503"
    assert injector.fault_of(["b"]) is None


def test_there_is_one_outage_only():
    now = [0.0]
    injector = Injector(Schedule({"a": [], "b": []}, outage_after=0, outage_seconds=1.0), lambda: now[0])
    assert injector.fault_of(["a"]) == OUTAGE
    now[0] = 5.0
    assert injector.fault_of(["b"]) is None


def test_the_schedule_survives_the_way_to_the_service():
    schedule = dealt(7, "mild")
    assert Schedule(**json.loads(json.dumps(schedule.as_json()))) == schedule

"""Caches give back entries under memory pressure."""

from __future__ import annotations

import threading

import asyncguard as ag
from asyncguard._runtime.reclaim import Reclaimer


def test_a_cache_is_trimmed_by_the_reclaimer():
    cache = ag.cache_result(60)

    @cache
    def double(x):
        return 2 * x

    for x in range(10):
        double(x)
    told = []
    done = threading.Event()
    Reclaimer().ask(lambda method, freed, seconds: told.append(method), lambda freed: done.set())
    assert done.wait(30)
    assert "cache" in told
    assert cache.info().entries <= 5
    assert double(3) == 6

"""Threads change places often here, as they would by chance on a busy machine."""

from __future__ import annotations

import sys

import pytest


@pytest.fixture(autouse=True)
def threads_change_places_often():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)

"""`memory_guard`: a call starts when the bytes it needs are free. The ledger is in `_machines.ledger`.

A check of the memory in use does not prevent an out-of-memory kill: sixty calls all look before any of them allocates.
What is counted here is what has been promised to running calls on top of what is used.
"""

from __future__ import annotations

import math
import re
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from asyncguard import events
from asyncguard._admission import PER_CALL, AdmissionOptions, AdmissionStrategy, wake
from asyncguard._machines import checks
from asyncguard._machines.estimate import ArgumentBytes, Learner
from asyncguard._machines.ledger import Ledger
from asyncguard._machines.levels import Bounds
from asyncguard._machines.memory_gate import MemoryGate
from asyncguard._machines.memory_words import mebibytes
from asyncguard._runtime import clock as clocks
from asyncguard._runtime import memory_probe, reclaim
from asyncguard._runtime.peak import PeakMeter
from asyncguard.strategies import _memory_drivers
from asyncguard.strategies._argument_bytes import argument_bytes

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    from asyncguard._machines.gate import Request
    from asyncguard._machines.ledger import Reservation
    from asyncguard._machines.levels import Reading
    from asyncguard._machines.memory_words import Decision
    from asyncguard._machines.partitions import PartitionBy
    from asyncguard._pipeline import Site
    from asyncguard._runtime.clock import Clock
    from asyncguard._runtime.colour import Kind
    from asyncguard._strategy import Strategy
    from asyncguard.events import Event

Estimate = int | Literal["auto"] | "Callable[..., float]"

HYSTERESIS = 0.05
_DEVICE = re.compile(r"cuda(:\d+)?")

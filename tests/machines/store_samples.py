"""Values whose keys in a store are written down in golden_keys.json; run as a program it prints them as JSON."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import functools
import hashlib
import ipaddress
import json
import pathlib
import re
import uuid
import zoneinfo
from collections import Counter, OrderedDict, defaultdict, deque

import attrs
import msgspec
import numpy as np
import pydantic

from asyncguard._machines.canonical import encode


class Colour(enum.Enum):
    RED = 1


class Right(enum.IntFlag):
    READ = 1
    WRITE = 2


@dataclasses.dataclass(slots=True)
class Point:
    x: float
    y: float = dataclasses.field(default=0.0, compare=False)


@attrs.define
class Span:
    start: int
    stop: int


class Record(msgspec.Struct):
    name: str
    tags: set[str]


class Model(pydantic.BaseModel):
    x: float
    token: pydantic.SecretStr = pydantic.SecretStr("")
    _tenant: str = pydantic.PrivateAttr("t")


class Own:
    def __cache_key__(self):
        return ("own", 1)


def function():
    pass


class Text(str):
    __slots__ = ()


BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
SAMPLES = {
    "none": None,
    "numbers": [True, False, 0, -1, 255, -128, 10**30, 1.5, -0.0, float("nan"), complex(1, -0.0)],
    "floats": [0.5] * 20,
    "texts": ["", "a", "ä€😀", "\ud800", b"", b"\x00\xff", bytearray(b"a")],
    "sets": [{f"t{n}" for n in range(20)}, frozenset({1, "1", (1, 2)}), {float("nan"), float("nan")}],
    "dicts": {"b": {"y": 1, "x": [2.0]}, "a": None, 3: (), (1, 2): "pair"},
    "containers": [OrderedDict(b=1, a=2), defaultdict(list, a=[1]), Counter("abca"), deque([1, 2], 3), Text("a")],
    "moments": [
        dt.datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN, fold=1),
        dt.datetime(2024, 1, 1, tzinfo=dt.UTC),
        dt.date(2024, 1, 1),
        dt.time(1, 2, 3, 4),
        dt.timedelta(-1, 5),
        dt.timezone(dt.timedelta(hours=1), "X"),
    ],
    "values": [
        decimal.Decimal("1.00"),
        fractions.Fraction(1, 3),
        uuid.UUID(int=7),
        pathlib.PurePosixPath("a/b"),
        ipaddress.ip_network("10.0.0.0/8"),
        re.compile("a+", re.IGNORECASE),
        range(3),
        slice(1, None),
        memoryview(b"abcdef")[::2],
        ...,
    ],
    "names": [
        int,
        Colour,
        function,
        len,
        list[int],
        int | None,
        functools.partial(function, 1, a=2),
        np.float32,
        np.add,
    ],
    "objects": [Colour.RED, Right.READ | Right.WRITE, Point(1, 2), Span(1, 2), Record("a", {"x", "y"}), Own()],
    "model": Model(x=1, token="secret"),
    "array": np.arange(32 * 768, dtype="<f4").reshape(32, 768),
    "arrays": [
        np.asfortranarray(np.arange(600.0).reshape(20, 30)),
        np.arange(600.0)[::3],
        np.arange(600, dtype=">i4"),
        np.zeros((0, 768)),
        np.array(1.5),
        np.array([("a", 1)], [("name", "U3"), ("n", "<i2")]),
        np.array([1, "a", None], dtype=object),
        np.array(["2024-01-01", "NaT"], "M8[D]"),
        np.float64("nan"),
        np.dtype("<f4"),
    ],
}


def digests() -> dict[str, str]:
    """Return the SHA-256 of the encoding of each sample."""
    return {name: hashlib.sha256(encode(value)).hexdigest() for name, value in SAMPLES.items()}


if __name__ == "__main__":
    from tests.machines import store_samples

    print(json.dumps(store_samples.digests(), indent=1))

"""What is a key and what is not, class by class."""

from __future__ import annotations

import array
import collections
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import functools
import hashlib
import ipaddress
import pathlib
import re
import struct
import threading
import types
import uuid
import zoneinfo

import pytest
import xxhash

from asyncguard._machines import digests, keys
from asyncguard._machines.canonical import encode
from asyncguard._machines.keys import UnkeyableError, freeze


class Colour(enum.Enum):
    RED = "BLUE"
    BLUE = "RED"


class Number(enum.IntEnum):
    ONE = 1


class Right(enum.Flag):
    READ = 1
    WRITE = 2


class Text(str):
    __slots__ = ("language",)


class Labels(dict):
    pass


@dataclasses.dataclass
class Point:
    x: float
    y: float


@dataclasses.dataclass
class Place:
    x: float
    y: float


class Named(Point):
    def __init__(self, x, y, name):
        super().__init__(x, y)
        self.name = name


class Keyed:
    def __init__(self, key, noise=None):
        self.key = key
        self.noise = noise

    def __cache_key__(self):
        return self.key


class ByValue:
    def __init__(self, value):
        self.value = value

    def __eq__(self, other):
        return isinstance(other, ByValue) and self.value == other.value

    def __hash__(self):
        return hash(self.value)


class Plain:
    pass


@dataclasses.dataclass(slots=True)
class Compared:
    """Fields that are left out of its equality may decide about the result all the same."""

    noise: int = dataclasses.field(compare=False)


class Zone(dt.tzinfo):
    def utcoffset(self, when):
        return dt.timedelta(0)

    dst = utcoffset


class Shown(list):
    """Shows something else than it holds."""

    def __iter__(self):
        return iter([1, 2.5])


class Odd(int):
    def __int__(self):
        return 7

    def __eq__(self, other):
        raise RuntimeError

    def __hash__(self):
        raise RuntimeError


def text(value, language):
    made = Text(value)
    made.language = language
    return made


UTC = dt.UTC
BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
Pair = collections.namedtuple("Pair", "a b")  # noqa: PYI024 - the untyped form is what is tested


def closure(number):
    def inner():
        return number

    return inner


FIRST, SECOND = closure(1), closure(2)

DIFFERENT = [
    (Colour.RED, Colour.BLUE),
    (Number.ONE, 1),
    (Right.READ, Right.WRITE),
    (Right.READ | Right.WRITE, Right.READ),
    (Text("a"), "a"),
    (text("a", "de"), text("a", "en")),
    (Labels(a=1), {"a": 1}),
    (collections.OrderedDict(a=1, b=2), collections.OrderedDict(b=2, a=1)),
    (collections.defaultdict(int, a=1), collections.defaultdict(list, a=1)),
    (collections.Counter("ab"), {"a": 1, "b": 1}),
    (collections.deque([1], 3), collections.deque([1], 4)),
    (Pair(1, 2), (1, 2)),
    (Point(1, 2), Place(1, 2)),
    (Point(1, 2), Point(1, 2.0)),
    (Named(1, 2, "a"), Named(1, 2, "b")),
    (Keyed(1), Keyed(True)),
    (ByValue(1), ByValue(2)),
    (decimal.Decimal("1.0"), decimal.Decimal("1.00")),
    (fractions.Fraction(1, 2), fractions.Fraction(1, 3)),
    (dt.datetime(2024, 1, 1, 12, tzinfo=UTC), dt.datetime(2024, 1, 1, 13, tzinfo=BERLIN)),
    (
        dt.datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN),
        dt.datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=BERLIN),
    ),
    (dt.date(2024, 1, 1), dt.datetime(2024, 1, 1)),  # noqa: DTZ001 - a naive one is what is tested
    (dt.timedelta(1), dt.timedelta(1, 1)),
    (dt.time(1, 2), dt.time(1, 3)),
    (UTC, BERLIN),
    (pathlib.PurePosixPath("a"), pathlib.PureWindowsPath("a")),
    (uuid.UUID(int=1), uuid.UUID(int=2)),
    (ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1")),
    (range(3), range(4)),
    (slice(1, 2), slice(1, 2, 1)),
    (re.compile("a"), re.compile("a", re.IGNORECASE)),
    (memoryview(b"ab"), b"ab"),
    (FIRST, SECOND),
    (functools.partial(max, 1), functools.partial(max, True)),
    (int, float),
    (len, max),
    (Plain, Point),
    (types.MappingProxyType({"a": 1}), {"a": 1}),
    (..., NotImplemented),
    (list[int], list[str]),
    (Keyed("a").__cache_key__, Keyed("b").__cache_key__),
    (dt.timezone(dt.timedelta(hours=1), "X"), dt.timezone(dt.timedelta(hours=2), "X")),
    (array.array("b", [1]), array.array("B", [1])),
    (memoryview(array.array("b", [1])), memoryview(array.array("B", [1]))),
    (int | str, int | None),
    ([1.0, 2.0], [1.0, 2]),
    ([0.0], [-0.0]),
    ([1.0], (1.0,)),
    ([1.0, [2.0]], [1.0, 2.0]),
    ([float(n) for n in range(99)], [float(n) for n in range(98)]),
    (Compared(1), Compared(2)),
    (Right(0), Right.READ),
]


@pytest.mark.parametrize(("a", "b"), DIFFERENT, ids=range(len(DIFFERENT)))
def test_values_that_differ_in_class_or_content_have_different_keys(a, b):
    assert freeze(a) != freeze(b)
    assert hash(freeze(a)) == hash(freeze(a))


SAME = [
    lambda: Colour.RED,
    lambda: Right.READ | Right.WRITE,
    lambda: text("a", "de"),
    lambda: Labels(a=[1, 2]),
    lambda: collections.OrderedDict(a=1),
    lambda: collections.defaultdict(list, a=[1]),
    lambda: collections.deque([1]),
    lambda: Pair(1, [2]),
    lambda: Point(float("nan"), 2),
    lambda: Named(1, 2, ["b"]),
    lambda: Keyed(["a"], noise=object()),
    lambda: ByValue("a"),
    lambda: decimal.Decimal("NaN"),
    lambda: dt.datetime(2024, 1, 1, 12, tzinfo=UTC),
    lambda: dt.timedelta(1),
    lambda: pathlib.PurePosixPath("a"),
    lambda: uuid.UUID(int=1),
    lambda: slice(1, 2),
    lambda: re.compile("a"),
    lambda: memoryview(b"a" * 100),
    lambda: functools.partial(max, [1], key=len),
    lambda: types.MappingProxyType({"a": [1]}),
    lambda: FIRST,
    lambda: Plain,
    lambda: None,
    lambda: array.array("d", [1.0] * 99),
    lambda: memoryview(b"abcdef")[::2],
    lambda: [float(n) for n in range(99)],
    lambda: [float("nan"), -0.0],
    lambda: dict[str, list[int]],
    lambda: Colour["RED"],
    lambda: "\ud800",
    lambda: 10**5000,
]


@pytest.mark.parametrize("make", SAME, ids=range(len(SAME)))
def test_a_value_made_twice_has_one_key(make):
    assert freeze(make()) == freeze(make())
    assert hash(freeze(make())) == hash(freeze(make()))


UNKEYABLE = [
    Plain(),
    object(),
    threading.Lock(),
    iter([1]),
    (number for number in range(3)),
    [Plain()],
    {"client": Plain()},
    {"a": {1, (Plain(),)}},
    Point(Plain(), 1),
    functools.partial(max, Plain()),
    ValueError("a"),
    Keyed(Plain()),
    Zone(),
    dt.datetime(2024, 1, 1, tzinfo=Zone()),
]


@pytest.mark.parametrize("value", UNKEYABLE, ids=range(len(UNKEYABLE)))
def test_what_equals_only_itself_has_no_key(value):
    with pytest.raises(UnkeyableError, match="equals only itself"):
        freeze(value)


def test_an_object_that_lives_at_the_address_of_a_dead_one_never_has_its_key():
    for _ in range(50):
        with pytest.raises(UnkeyableError):
            freeze(Plain())


def test_a_container_that_contains_itself_has_no_key():
    cyclic = []
    cyclic.append(cyclic)
    with pytest.raises(UnkeyableError, match="contains itself"):
        freeze(cyclic)


def test_a_value_class_whose_hash_fails_has_no_key():
    with pytest.raises(UnkeyableError, match="no hash"):
        freeze(ByValue([1]))


def test_texts_and_bytes_of_one_content_never_meet_in_a_dict_which_warns_with_python_bb():
    assert type(freeze(b"a")) is tuple


def test_the_table_of_types_is_bounded(monkeypatch):
    monkeypatch.setattr(keys, "_MOST_TYPES", 20)
    freezing = keys.Freezing(digests.function)
    for number in range(50):
        freezing.freeze(type(f"Made{number}", (int,), {})(1))
        assert len(freezing._table) <= 20
    assert freezing.freeze([1]) == freeze([1])


def test_a_field_that_was_never_set_is_part_of_the_key():
    half = object.__new__(Point)
    half.x = 1
    assert freeze(half) != freeze(Point(1, None))


def test_equal_members_of_a_union_in_another_order_are_equal():
    assert freeze(int | str) == freeze(str | int)


def test_a_subclass_of_a_builtin_runs_none_of_its_own_comparisons():
    assert freeze(Odd(3)) == freeze(Odd(3)) != freeze(Odd(4))
    assert hash(freeze(Odd(3))) == hash(freeze(Odd(3)))


def test_a_list_is_what_it_shows_when_it_is_read():
    assert freeze(Shown()) == freeze(Shown([1.0])) == (Shown, (list, (1, (float, 2.5))), None)


def test_a_view_of_memory_that_was_released_has_no_key():
    view = memoryview(b"a")
    view.release()
    with pytest.raises(UnkeyableError, match="released"):
        freeze(view)


def test_the_order_in_which_flags_and_names_were_given_is_no_part_of_the_key():
    assert freeze(Right.READ | Right.WRITE) == freeze(Right.WRITE | Right.READ) == (Right, 3)


def digests_of(numbers):
    """What stands for a long list: 16 bytes in the process, 32 in a store."""
    content = array.array("d", numbers).tobytes()
    return xxhash.xxh3_128_digest(content), hashlib.sha256(content).digest()


@pytest.mark.parametrize("kind", [list, tuple, lambda numbers: array.array("d", numbers)])
def test_a_short_list_made_of_the_digest_of_a_long_one_does_not_share_its_key(kind):
    long = [float(each) for each in range(100)]
    for digest in digests_of(long):
        forged = struct.unpack(f"<{len(digest) // 8}d", digest)
        assert freeze(kind(forged)) != freeze(kind(long))
        assert encode(kind(forged)) != encode(kind(long))


class Money(decimal.Decimal):
    currency: str

    def __str__(self):
        return f"{float(self):.1f}"


class Marked(dt.datetime):
    __slots__ = ("mark",)


class Labelled(collections.deque):
    pass


def with_attribute(value, name, attribute):
    setattr(value, name, attribute)
    return value


@pytest.mark.parametrize(
    ("one", "same", "other"),
    [
        tuple(with_attribute(Money("1"), "currency", each) for each in ("EUR", "EUR", "USD")),
        tuple(with_attribute(Marked(2026, 1, 1), "mark", each) for each in ([1], [1], [2])),
        tuple(with_attribute(Labelled([1]), "name", each) for each in "aab"),
        (Money("1.01"), Money("1.01"), Money("1.02")),
    ],
    ids=["attribute", "slot", "container", "text of its own"],
)
def test_what_a_subclass_of_a_standard_class_holds_is_part_of_the_key(one, same, other):
    assert freeze(one) == freeze(same) != freeze(other)
    assert encode(one) == encode(same) != encode(other)

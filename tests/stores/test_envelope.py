"""What comes back from a store is what was written under that key, or nothing: never something else, never an error."""

from __future__ import annotations

import hashlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncguard.stores import _envelope
from asyncguard.stores._envelope import pack, unpack

NOW = 1_700_000_000.0
KEY = "ag1:n:m.f::" + "0" * 64
PAYLOADS = st.binary(max_size=200)


def packed(payload=b"payload", **changes):
    facts = {"created": NOW - 10, "ttl": 60.0, "took": 0.25, **changes}
    return pack(KEY, 1, payload, **facts)


@given(PAYLOADS, st.floats(0, NOW), st.floats(0, 1e9), st.floats(0, 1e9))
def test_what_was_packed_is_unpacked(payload, created, ttl, took):
    found = unpack(KEY, packed(payload, created=created, ttl=ttl, took=took), NOW)
    assert found is not None
    assert bytes(found.payload) == payload
    assert abs(found.created - created) <= 2e-6
    assert abs(found.ttl - ttl) <= 2e-6 + ttl * 1e-12
    assert found.begun <= created - took + 1e-6


@given(PAYLOADS)
def test_every_flipped_bit_is_noticed(payload):
    data = bytearray(packed(payload))
    for at in range(8 * len(data)):
        data[at // 8] ^= 1 << at % 8
        assert unpack(KEY, bytes(data), NOW) is None
        data[at // 8] ^= 1 << at % 8
    assert unpack(KEY, bytes(data), NOW) is not None


@given(PAYLOADS, st.data())
def test_what_is_cut_off_or_longer_is_noticed(payload, data):
    whole = packed(payload)
    assert unpack(KEY, whole[: data.draw(st.integers(0, len(whole) - 1))], NOW) is None
    assert unpack(KEY, whole + data.draw(st.binary(min_size=1, max_size=3)), NOW) is None


@given(st.one_of(st.binary(max_size=300), st.binary(max_size=300).map(lambda rest: b"AG1" + rest)))
def test_random_bytes_are_nothing(data):
    assert unpack(KEY, data, NOW) is None


@pytest.mark.parametrize("value", [None, "AG1" * 20, 3, [], memoryview(b"AG1")])
def test_what_is_not_bytes_is_nothing(value):
    assert unpack(KEY, value, NOW) is None


def test_a_value_of_another_key_is_nothing():
    assert unpack(KEY + "x", packed(), NOW) is None


def sealed(fields: bytes, payload: bytes) -> bytes:
    return fields + _envelope._checksum(KEY, fields, payload) + payload


def test_another_version_or_an_unknown_form_are_nothing_even_with_a_right_checksum():
    fields = packed()[:29]
    assert unpack(KEY, sealed(fields, b"x"), NOW) is not None
    assert unpack(KEY, sealed(b"AG2" + fields[3:], b"x"), NOW) is None
    assert unpack(KEY, sealed(fields[:3] + b"\x04" + fields[4:], b"x"), NOW) is None


def test_a_clock_that_is_a_little_ahead_is_forgiven_and_one_that_is_far_ahead_is_not():
    found = unpack(KEY, packed(created=NOW + 4), NOW)
    assert found is not None
    assert found.created == NOW
    assert unpack(KEY, packed(created=NOW + 6), NOW) is None


def test_the_layout_is_the_one_that_is_written_down():
    data = packed(b"payload")
    assert struct.unpack("<3sBBQQQ", data[:29]) == (b"AG1", 0, 1, int(NOW - 10) * 10**6, 60_000_000, 250_001)
    assert data[37:] == b"payload"
    assert hashlib.sha256(data).hexdigest() == "c5ba148b9e2f6a6c2327ea701238f643c8acace6913973486d58efb870bf8fbf"

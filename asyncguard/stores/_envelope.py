"""What is written to a store: the value's bytes in an envelope that says when they were made and for how long.

    offset  bytes  content
    0       3      b"AG1"
    3       1      form: 0 a whole value, 1 to 3 a row of a list, a tuple, a numpy array
    4       1      codec: how the payload is written (see `_codec`)
    5       8      created: microseconds since 1970 on the writer's clock
    13      8      ttl: microseconds
    21      8      took: microseconds from the beginning of the computation to `created`
    29      8      checksum: XXH3-64 of the payload, seeded with that of the key and of the fields above
    37             payload

The checksum covers the key, so that an envelope under another key, or the reply to another request, is none of ours.
It guards against accidents and not against somebody who writes to the store: nothing in an envelope is ever executed.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

_FIELDS = struct.Struct("<3sBBQQQ")
_MAGIC = b"AG1"
_CHECKSUM = 8
_HEADER = _FIELDS.size + _CHECKSUM
_MOST = 2**63 - 1
_UNIT = 1e6
_FORMS = 4

SKEW = 5.0
"""Seconds by which the clock of another machine may be ahead; what was made later than that is not believed."""


class Envelope(NamedTuple):
    """What was in a store: moments in seconds since 1970, durations in seconds."""

    form: int
    codec: int
    created: float
    ttl: float
    took: float
    payload: memoryview

    @property
    def begun(self) -> float:
        """When its computation began: an invalidation after that means it, whenever it was written."""
        return self.created - self.took


def pack(  # noqa: PLR0913 - what is in an envelope
    key: str, codec: int, payload: bytes, *, created: float, ttl: float, took: float, form: int = 0
) -> bytes:
    """Return the envelope of a value."""
    spans = (int(created * _UNIT), int(min(_MOST, ttl * _UNIT)), int(min(_MOST, took * _UNIT + 1)))
    fields = _FIELDS.pack(_MAGIC, form, codec, *spans)
    return b"".join((fields, _checksum(key, fields, payload), payload))


def unpack(key: str, data: object, now: float) -> Envelope | None:
    """Return what is in an envelope, None if it is not one of ours, is damaged, or comes from the future."""
    if not isinstance(data, bytes | bytearray) or len(data) < _HEADER or not data.startswith(_MAGIC):
        return None
    fields, payload = bytes(data[: _FIELDS.size]), memoryview(data)[_HEADER:]
    _, form, codec, created, ttl, took = _FIELDS.unpack(fields)
    if form >= _FORMS or _checksum(key, fields, payload) != data[_FIELDS.size : _HEADER]:
        return None
    if created / _UNIT > now + SKEW:
        return None
    return Envelope(form, codec, min(now, created / _UNIT), ttl / _UNIT, took / _UNIT, payload)


def _checksum(key: str, fields: bytes, payload: bytes | memoryview) -> bytes:
    import xxhash

    return xxhash.xxh3_64_digest(payload, xxhash.xxh3_64_intdigest(fields + key.encode()))

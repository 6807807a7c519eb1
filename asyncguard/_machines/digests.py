"""The digest of large buffers inside keys: 128 bits of XXH3 (about 60 GB/s), else SHA-256.

XXH3 is not a cryptographic hash. It is right within one process, whose memory nobody else writes; a shared store needs
SHA-256. Source: https://github.com/Cyan4973/xxHash.
"""

from __future__ import annotations

import functools
import hashlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

SMALL = 64
"""Up to so many bytes a buffer is kept as it is: that is as quick as hashing it."""


def of_bytes(data: bytes) -> bytes:
    """Return the bytes if they are few, else their digest (16 or 32 bytes)."""
    return data if len(data) <= SMALL else of_buffer(data)


def of_buffer(buffer: Any) -> bytes:
    """Return the digest of a contiguous buffer."""
    return function()(buffer)


@functools.cache
def function() -> Callable[[Any], bytes]:
    """Return the hash function, from a contiguous buffer to bytes; loaded with the first array."""
    try:
        import xxhash
    except ImportError:
        return _sha256
    return xxhash.xxh3_128_digest


def _sha256(buffer: Any) -> bytes:
    return hashlib.sha256(buffer).digest()

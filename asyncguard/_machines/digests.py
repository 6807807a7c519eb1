"""The digest of large buffers inside keys: 128 bits of XXH3 (about 60 GB/s), else SHA-256 (about 2 GB/s).

XXH3 is not a cryptographic hash. It is right within one process, whose memory nobody else writes; a shared store needs
SHA-256. Source: https://github.com/Cyan4973/xxHash.
"""

from __future__ import annotations

import functools
import hashlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncguard._machines.keys_base import Digest

SMALL = 64
"""Up to so many bytes a buffer is kept as it is: that is as quick as hashing it."""


def short(data: bytes, function: Callable[[], Digest]) -> bytes:
    """Return the bytes if they are few, else their digest (16 or 32 bytes)."""
    return data if len(data) <= SMALL else function()(data)


@functools.cache
def function() -> Digest:
    """Return the hash function for keys of this process, from a contiguous buffer to bytes; loaded when first used."""
    try:
        import xxhash
    except ImportError:
        return sha256
    return xxhash.xxh3_128_digest


def sha256(buffer: Any) -> bytes:
    """Return the SHA-256 of a contiguous buffer, for keys that other processes read."""
    return hashlib.sha256(buffer).digest()

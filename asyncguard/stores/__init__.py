"""Values beyond this process: what a cache keeps in Redis, Valkey, memcached or another backend of aiocache."""

from __future__ import annotations

from asyncguard.stores._aiocache import AiocacheStore
from asyncguard.stores._codec import Codec
from asyncguard.stores._facts import StoreInfo

__all__ = ["AiocacheStore", "Codec", "StoreInfo"]

"""What may be a partition, and what is shown of it: no code of the user in a lock, no secret in a message."""

from __future__ import annotations

import enum
import gc
import math
import threading
import uuid
import warnings
from collections import namedtuple
from contextvars import ContextVar
from dataclasses import FrozenInstanceError, dataclass
from typing import Any

import numpy as np
import pytest

import asyncguard as ag
from asyncguard._machines.partition_keys import LONGEST_KEY, canonical, check_partition, in_words, partition_key
from asyncguard._machines.partitions import Partitions

TOKEN = "sk-live-abcdefghijklmnop123456"
TENANT = uuid.UUID(int=7)


class Gate:
    def idle(self) -> bool:
        return True


class Model(enum.Enum):
    SMALL = "s"

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class Text(enum.StrEnum):
    ACME = "acme"


class Number(enum.IntEnum):
    ONE = 1


class OddEnum(enum.Enum):
    A = 1

    def __hash__(self) -> int:
        return 1


class OddText(str):
    """A str with code of its own in every place where a lookup or a message would call it."""

    __slots__ = ()

    def _refuse(self, *_: object) -> Any:
        raise AssertionError("code of the user ran")

    __hash__ = __eq__ = __str__ = __repr__ = __format__ = __len__ = _refuse


Host = namedtuple("Host", "name port")  # noqa: PYI024 - as users write it


@dataclass(frozen=True)
class Tenant:
    name: str


class Secretive:
    """Says too much, or fails, whenever it is shown."""

    def __repr__(self) -> str:
        raise RuntimeError(TOKEN)

    __str__ = __repr__


def kind_of(value: object) -> str:
    """Name a case: pytest would show some of these values, and they fail when they are shown."""
    return type(value).__name__


# --- what is a key ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ("acme", "acme"),
        (3, 3),
        (True, True),
        (None, None),
        (b"x", b"x"),
        (math.inf, math.inf),
        (TENANT, TENANT),
        (Model.SMALL, Model.SMALL),
        (Text.ACME, "acme"),
        (Number.ONE, 1),
        (OddText("acme"), "acme"),
        (np.str_("acme"), "acme"),
        (np.int64(3), 3),
        (np.array(3), 3),
        (Host("a", 1), ("a", 1)),
        (("a", (Text.ACME, 2)), ("a", ("acme", 2))),
    ],
    ids=kind_of,
)
def test_a_key_is_a_value_of_python_itself(given: Any, key: Any) -> None:
    found = canonical(given)
    assert found == key
    assert type(found) is type(key)


def test_the_parts_of_a_tuple_are_made_canonical_too() -> None:
    (part,) = canonical((OddText("acme"),))  # type: ignore[misc]
    assert type(part) is str


class Sized:
    def __index__(self) -> int:
        raise RuntimeError("not now")


@pytest.mark.parametrize(
    "given",
    [[1], {"a": 1}, Tenant("a"), Secretive(), object(), Gate, len, OddEnum.A, ("a", [1]), np.array([1, 2]), Sized()],
    ids=kind_of,
)
def test_an_object_is_no_key_and_the_error_says_what_to_return(given: Any) -> None:
    with pytest.raises(TypeError, match=r"the key of partition= must be a str, int, .* return what names it") as caught:
        canonical(given)
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize("given", [math.nan, np.float64("nan"), ("a", math.nan)], ids=kind_of)
def test_nan_is_no_key_it_would_never_be_found_again(given: Any) -> None:
    with pytest.raises(ValueError, match="the key of partition= must not be NaN"):
        canonical(given)


def test_a_function_that_returns_a_coroutine_is_told_so_and_the_coroutine_is_closed() -> None:
    async def tenant() -> str:
        return "acme"

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(TypeError, match="got coroutine; partition= is not awaited"):
            partition_key(lambda: tenant(), (), {})  # noqa: PLW0108 - a coroutine function itself is refused earlier
        gc.collect()


def test_what_a_partition_function_raises_leaves_as_it_is_with_a_note_that_names_the_parameter() -> None:
    def tenant_of(request: dict[str, str]) -> str:
        return request["tenant"]

    with pytest.raises(KeyError, match="tenant") as caught:
        partition_key(tenant_of, ({},), {})
    (note,) = caught.value.__notes__
    assert note.startswith("asyncguard: raised by partition=tenant_of, which gets the arguments of the call")


def test_the_note_is_never_written_twice_and_can_be_written_to_a_frozen_error() -> None:
    @dataclass(frozen=True)
    class Frozen(Exception):  # noqa: N818
        code: int

    error = Frozen(1)
    with pytest.raises(FrozenInstanceError):
        error.code = 2  # type: ignore[misc]

    def fails() -> str:
        raise error

    for _ in range(3):
        with pytest.raises(Frozen):
            partition_key(fails, (), {})
    assert len(error.__notes__) == 1


def test_an_interrupt_in_a_partition_function_passes_untouched() -> None:
    def interrupted() -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        partition_key(interrupted, (), {})
    assert not hasattr(caught.value, "__notes__")


def test_a_context_variable_gives_the_key_and_is_the_partition_none_while_unset() -> None:
    tenant: ContextVar[Any] = ContextVar("tenant")
    assert check_partition(tenant) is tenant
    assert partition_key(tenant, (), {}) is None
    token = tenant.set(Tenant("acme"))
    with pytest.raises(TypeError, match="got Tenant"):
        partition_key(tenant, (), {})
    tenant.reset(token)


# --- no code of the user in a lock ------------------------------------------------------------------------------------


def test_a_lookup_runs_no_code_of_the_key() -> None:
    partitions = Partitions(lambda _key: Gate())
    assert partitions.get(OddText("acme")) is partitions.get("acme")
    assert partitions.find(OddText("acme"))[1] == "acme"


def test_the_lock_of_a_map_is_free_while_the_user_decides_on_a_key() -> None:
    limit = ag.bulkhead(1, partition=lambda model: model)
    free: list[bool] = []

    class Watching:
        def __index__(self) -> int:
            lock: threading.Lock = limit.core.partitions._lock
            free.append(lock.acquire(blocking=False))
            lock.release()
            return 5

    with limit.permit(Watching()):
        assert [key for key, _ in limit.core.partitions.items()] == [5]
    assert free == [True]


# --- in words ---------------------------------------------------------------------------------------------------------


WORDS: list[tuple[Any, str]] = [
    ("acme", "acme"),
    ("gpt-4o-mini-2024-07-18", "gpt-4o-mini-2024-07-18"),
    ("Meta-Llama-3.1-8B-Instruct", "Meta-Llama-3.1-8B-Instruct"),
    ("api.eu-west-1.example.com:8443", "api.eu-west-1.example.com:8443"),
    ("123456789012345678", "123456789012345678"),
    (4111111111111111, "4111111111111111"),
    (None, "None"),
    (b"x", "b'x'"),
    (TENANT, "00000000-0000-0000-0000-000000000007"),
    (Model.SMALL, "Model.SMALL"),
    (("acme", 3, Model.SMALL), "(acme, 3, Model.SMALL)"),
    ("x" * 1000, "x" * (LONGEST_KEY - 1) + "…"),
    (10**5000, hex(10**5000)[: LONGEST_KEY - 1] + "…"),
]


@pytest.mark.parametrize(("key", "words"), WORDS, ids=[words[:40] for _, words in WORDS])
def test_a_key_in_words(key: Any, words: str) -> None:
    assert in_words(key) == words


SECRETS = [
    TOKEN,
    "hf_abcdefghijklmnopqrstuvwx",
    "alice@example.com",
    "https://user:hunter2@example.com/",
    "Bearer abcdefgh12345678",
    "api_key=hunter2",
    "0123456789abcdef0123456789abcdef",
    "pQ8rT2vXz5nB7mK1wY4cL9dF3gH6",
]


@pytest.mark.parametrize("secret", SECRETS)
def test_what_looks_like_a_secret_is_shown_as_a_number_of_its_own(secret: str) -> None:
    words = in_words(secret)
    assert words.startswith("[redacted ")
    assert words == in_words(secret)
    assert words != in_words(secret + "x")
    assert in_words(("acme", secret)) == f"(acme, {words})"
    assert secret not in in_words(secret.encode())


def test_a_lone_surrogate_can_be_in_a_secret() -> None:
    assert in_words(f"{TOKEN} \ud800").startswith("[redacted ")


@pytest.mark.parametrize("secret", SECRETS[:3])
def test_a_secret_partition_is_in_no_message_event_log_or_status(secret: str, caplog: pytest.LogCaptureFixture) -> None:
    def fails(_key: str) -> None:
        raise ConnectionError("down")

    heard: list[str] = []
    options: dict[str, Any] = {"partition": lambda key: key, "on_event": lambda event: heard.append(repr(event))}
    breaker = ag.circuit_breaker(window=1, minimum_calls=1, **options)
    rate = ag.rate_limit("1/h", max_wait=0, **options)
    slots = ag.bulkhead(1, max_queue=0, **options)
    adaptive = ag.adaptive_concurrency(initial=1, max_limit=1, max_queue=0, **options)
    memory = ag.memory_guard(estimate=2**60, on_pressure="raise", **options)
    hedge = ag.hedge(**options)
    retry = ag.retry(max_retries=0, **options)
    said: list[str] = []
    for strategy in (breaker, rate, slots, adaptive, memory, retry, hedge):
        guarded = strategy(fails)

        def again(key: str, guarded: Any = guarded) -> None:
            guarded(key)

        with pytest.raises(Exception, match=r".") as first:
            again(secret)
        with pytest.raises(Exception, match=r".") as second:
            if strategy in {slots, adaptive}:
                with strategy.permit(secret):
                    again(secret)
            again(secret)
        said += [repr(first.value), repr(vars(first.value)), repr(second.value), repr(vars(second.value))]
        said += strategy.describe()
    breaker.force_open(partition=secret)
    said += [str(breaker.describe()), str(ag.status())]
    said += [repr(vars(record)) for record in caplog.records]
    assert caplog.records
    assert len(heard) > 3
    assert any("[redacted " in text for text in said)
    for text in said + heard:
        assert secret not in text


def test_the_name_of_a_pipeline_and_status_are_fine_with_a_key_that_cannot_be_shown() -> None:
    limit = ag.bulkhead(1, max_queue=0, partition=lambda model: model)
    with limit.permit(Model.SMALL), pytest.raises(ag.BulkheadFullError, match=r"\[Model\.SMALL\]") as caught:
        limit(lambda model: None)(Model.SMALL)
    assert caught.value.partition == "Model.SMALL"
    assert limit.describe()


@pytest.mark.parametrize("key", [Secretive(), Tenant("acme"), math.nan], ids=["hostile", "object", "nan"])
@pytest.mark.parametrize("kind", ["retry", "hedge", "bulkhead", "rate_limit", "circuit_breaker", "pipeline"])
def test_every_strategy_refuses_a_key_at_the_call_and_does_not_call(kind: str, key: Any) -> None:
    made: dict[str, Any] = {
        "retry": lambda: ag.retry(partition=lambda: key),
        "hedge": lambda: ag.hedge(partition=lambda: key),
        "bulkhead": lambda: ag.bulkhead(1, partition=lambda: key),
        "rate_limit": lambda: ag.rate_limit("1/s", partition=lambda: key),
        "circuit_breaker": lambda: ag.circuit_breaker(partition=lambda: key),
        "pipeline": lambda: ag.guard(ag.bulkhead(1), partition=lambda: key),
    }
    called: list[int] = []
    with pytest.raises((TypeError, ValueError), match="the key of partition= must"):
        made[kind]()(lambda: called.append(1))()
    assert not called

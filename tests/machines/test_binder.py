"""The binder agrees with `inspect.Signature.bind` on every call, and the keyer names what is wrong."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextvars import ContextVar
from typing import IO, TYPE_CHECKING, Annotated, Any, Protocol

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncguard._machines.binder import Binder, MismatchError, signature_of
from asyncguard._machines.keyer import Keyer

if TYPE_CHECKING:
    from somewhere import Unknown

FUNCTIONS = [
    lambda a: None,
    lambda a, b=2: None,
    lambda a, b=2, c=3: None,
    lambda a, /, b: None,
    lambda a, b=2, /: None,
    lambda *args: None,
    lambda **kwargs: None,
    lambda a, *args, b=5, **kwargs: None,
    lambda a, *, b: None,
    lambda a, /, **kwargs: None,
    lambda: None,
    lambda _0, _1=5, *_2, _3=6, **_4: None,
    lambda a=(lambda: 1), b=object: None,
]


@given(
    st.sampled_from(range(len(FUNCTIONS))),
    st.lists(st.integers(0, 3), max_size=4),
    st.dictionaries(st.sampled_from("abcx"), st.integers(4, 7), max_size=3),
)
def test_a_call_is_bound_as_the_signature_binds_it(which, args, kwargs):
    function = FUNCTIONS[which]
    signature = inspect.signature(function)
    binder = Binder(signature)
    try:
        function(*args, **kwargs)  # `bind` of Python 3.13.0 takes a call of `a, /, **kwargs` that lacks `a`
    except TypeError:
        with pytest.raises(MismatchError):
            binder(tuple(args), kwargs)
        return
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    assert dict(zip(binder.names, binder(tuple(args), kwargs), strict=True)) == bound.arguments


def test_the_arguments_of_the_caller_are_left_as_they_are():
    kwargs = {"b": 1, "x": 2}
    Binder(inspect.signature(FUNCTIONS[7]))((1,), kwargs)
    assert kwargs == {"b": 1, "x": 2}


def test_a_builtin_without_a_signature_has_none():
    assert signature_of(dict.fromkeys) is None or isinstance(signature_of(dict.fromkeys), inspect.Signature)
    assert signature_of(type) is None


class Client:
    pass


class Interface(Protocol):
    def send(self) -> None: ...


def keyer(function: Any, **options: Any) -> Keyer:
    return Keyer(function, "f", **options)


def test_the_same_call_written_differently_has_one_key():
    made = keyer(lambda a, b=2, *, c=3: None)
    keys = [
        made((1,), {}),
        made((1, 2), {}),
        made((), {"a": 1}),
        made((), {"c": 3, "b": 2, "a": 1}),
        made((1,), {"c": 3}),
    ]
    assert len(set(keys)) == 1
    assert made((1,), {"c": 4}) not in keys


def test_ignored_arguments_are_no_part_of_the_key():
    made = keyer(lambda a, client=None, **more: None, ignore=("client", "trace"))
    assert made((1, Client()), {}) == made((1,), {}) == made((1,), {"trace": 5})
    assert made((1,), {"other": 5}) != made((1,), {})


def test_an_ignored_name_that_is_no_parameter_is_an_error_naming_both():
    with pytest.raises(ValueError, match=r"ignore must name parameters of f \(a, b\), got 'c'"):
        keyer(lambda a, b: None, ignore=("c",))


def test_an_argument_without_a_key_is_an_error_naming_the_parameter_and_what_to_do():
    made = keyer(lambda text, client: None)
    for call in [(("a", Client()), {}), (("a",), {"client": [Client()]})]:
        with pytest.raises(
            TypeError, match=r"f: the argument 'client' cannot .*Client equals only itself.*ignore=.*key="
        ):
            made(*call)


def test_a_sentinel_default_has_a_key_and_only_as_the_default():
    sentinel = object()
    made = keyer(lambda a, b=sentinel: None)
    assert made((1,), {}) == made((1, sentinel), {})
    with pytest.raises(TypeError, match="'b'"):
        made((1, object()), {})


def test_context_variables_are_part_of_the_key_set_or_not():
    tenant: ContextVar[object] = ContextVar("tenant")
    made = keyer(lambda a: None, vary_on=(tenant,))
    unset = made((1,), {})
    token = tenant.set("x")
    assert made((1,), {}) != unset
    assert made((1,), {}) == made((1,), {})
    tenant.reset(token)
    assert made((1,), {}) == unset


def test_arguments_that_do_not_fit_the_signature_shown_still_make_a_key():
    def shown(session, x):
        pass

    made = keyer(shown)
    assert made((1,), {}) == made((1,), {})
    assert made((1,), {}) != made((2,), {})
    assert made((), {"y": 1}) != made((1,), {})
    with pytest.raises(TypeError, match=r"args\[0\]"):
        made((Client(),), {})
    with pytest.raises(TypeError, match="missing a required argument"):
        made.bind((1,), {})


def test_one_plain_parameter_and_nothing_else_is_quick():
    assert keyer(lambda a: None).quick
    assert keyer(lambda a, /: None).quick
    assert not keyer(lambda a, b=1: None).quick
    assert not keyer(lambda *a: None).quick
    assert not keyer(lambda **a: None).quick
    assert not keyer(lambda *, a: None).quick
    assert not keyer(lambda a: None, vary_on=(ContextVar("v"),)).quick


def annotated(client: Client, text: str) -> None:
    pass


def in_list(clients: list[Client]) -> None:
    pass


def in_dict(clients: dict[str, Client]) -> None:
    pass


def optional(client: Client | None = None) -> None:
    pass


def iterated(items: Iterator[str]) -> None:
    pass


def opened(file: IO[bytes]) -> None:
    pass


def hidden(client: Annotated[Client, "the client"]) -> None:
    pass


@pytest.mark.parametrize("function", [annotated, in_list, in_dict, optional, iterated, opened, hidden])
def test_an_annotation_that_tells_of_no_key_is_an_error_at_decoration(function):
    with pytest.raises(TypeError, match=r"f: the argument .* equals only itself.*ignore="):
        keyer(function).check_annotations(function)
    first = next(iter(inspect.signature(function).parameters))
    keyer(function, ignore=(first,)).check_annotations(function)


def open_ended(a: int, b: object, c: Any, d: Interface, e: Unknown) -> None:
    pass


def keyable(a: Client | int, b: list[Any], c: type[Client], d: "no annotation") -> None:  # noqa: F722
    pass


def test_an_annotation_that_leaves_it_open_is_no_error():
    for function in (open_ended, keyable):
        keyer(function).check_annotations(function)

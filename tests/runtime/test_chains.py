"""What is built around a function is found by identity and gone with the function."""

from __future__ import annotations

import gc

import pytest

from asyncguard._runtime.chains import Chains, Target


class Client:
    def embed(self, text: str) -> str:
        return text

    def plain(self, text: str) -> tuple[str, str]:
        return "a", text

    def hidden(self, text: str) -> str:
        return text


def test_a_key_that_lies_finds_nothing():
    chains: Chains[str] = Chains()
    one, two = Client(), Client()
    target = chains.target(one.embed)
    assert target is not None
    chains.keep(one.embed, target, "one")
    entry = chains._built.popitem()[1]
    chains._built[id(two), id(Client.embed)] = entry  # as if `one` were gone and `two` had its address
    assert chains.get(two.embed) is None
    assert chains.get(Client.embed) is None
    chains._built[id(len), 0] = entry
    assert chains.get(len) is None
    chains._built[id(one), id(Client.hidden)] = entry
    assert chains.get(one.hidden) is None


def test_a_function_that_is_gone_says_so():
    client = Client()
    target = Target(client.plain)
    call = target.caller()
    assert call("x") == ("a", "x")
    del client
    gc.collect()
    for use in (target.find, lambda: call("x")):
        with pytest.raises(ReferenceError, match=r"Client\.plain is gone"):
            use()
    target = Target(lambda: 1)
    with pytest.raises(ReferenceError, match="lambda> is gone"):
        target.caller()()

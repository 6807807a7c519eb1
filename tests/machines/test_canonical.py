"""Keys of shared stores: the same in every process and Python, and refused where they could not be."""

from __future__ import annotations

import datetime as dt
import json
import os
import pathlib
import subprocess
import sys
import types

import numpy as np
import pytest

from asyncguard._machines import canonical
from asyncguard._machines.canonical import UnkeyableError, encode, encode_key
from asyncguard._machines.keyer import Keyer
from tests.machines import store_samples

GOLDEN = json.loads((pathlib.Path(__file__).parent / "golden_keys.json").read_text())


def test_the_keys_are_those_written_down_for_all_versions_of_python():
    assert store_samples.digests() == GOLDEN


@pytest.mark.parametrize("seed", ["0", "1"])
def test_another_process_with_other_hashes_makes_the_same_keys(seed):
    root = pathlib.Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(root)}
    command = [sys.executable, str(root / "tests/machines/store_samples.py")]
    done = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, check=True, timeout=60)
    assert json.loads(done.stdout) == GOLDEN


def local_function():
    def inner():
        pass

    return inner


def local_class():
    class Local:
        def __init__(self, x=1):
            self.x = x

        def __cache_key__(self):
            return self.x

    return Local


class Equal:
    def __init__(self, value):
        self.value = value

    def __eq__(self, other):
        return isinstance(other, Equal) and self.value == other.value

    def __hash__(self):
        return hash(self.value)


Twice = type("Twice", (int,), {"__module__": __name__})
First = Twice
Twice = type("Twice", (int,), {"__module__": __name__})

REFUSED = [
    (lambda: None, "a lambda"),
    (local_function(), r"local_function.<locals>.inner is local"),
    (local_class(), r"local_class.<locals>.Local is local"),
    (local_class()(), "is local"),
    ([local_class()()], "is local"),
    (First(1), "is not what its module has under that name"),
    (Equal(1), "in this process only"),
    ({"a": Equal(1)}, "in this process only"),
    ([].append, "belongs to no module"),
    ("a".upper, "belongs to no module"),
    (np, "in this process only"),
    (np.frompyfunc(lambda x: x, 1, 1), "in this process only"),
    (int.__add__, "in this process only"),
    (types.FunctionType((lambda: None).__code__, {"__name__": "__main__"}, "f"), "lambda|__main__"),
    (object(), "equals only itself"),
]


@pytest.mark.parametrize(("value", "why"), REFUSED, ids=range(len(REFUSED)))
def test_what_means_something_in_this_process_only_has_no_key_for_a_store(value, why):
    with pytest.raises(UnkeyableError, match=why):
        encode(value)


def test_a_class_of_the_program_is_refused_since_every_program_has_a_main(monkeypatch):
    program = types.ModuleType("__main__")
    program.Point = type("Point", (int,), {"__module__": "__main__"})
    monkeypatch.setitem(sys.modules, "__main__", program)
    with pytest.raises(UnkeyableError, match=r"Point is defined in __main__.*python -m"):
        encode(program.Point(1))


def test_what_contains_itself_is_refused():
    cyclic = []
    cyclic.append(cyclic)
    with pytest.raises(UnkeyableError, match="contains itself"):
        encode(cyclic)


def test_keys_of_large_buffers_rest_on_sha256_also_when_the_process_uses_another_hash():
    import hashlib

    array = np.arange(1000.0)
    assert hashlib.sha256(array).digest() in encode(array)
    assert hashlib.sha256(bytes(array)).digest() in encode(memoryview(bytes(array)))
    assert hashlib.sha256(bytes(array)).digest() in encode([array.tolist()])


def test_two_matrices_that_differ_in_one_element_never_share():
    one = np.zeros((32, 768), "f4")
    two = one.copy()
    seen = {encode(one)}
    for at in range(0, one.size, 997):
        two.reshape(-1)[at] = 1
        seen.add(encode(two))
        two.reshape(-1)[at] = 0
    assert len(seen) == 1 + len(range(0, one.size, 997))


def test_dtypes_of_one_layout_and_different_meaning_differ():
    plain = np.dtype([("a", "f4"), ("b", "i2")])
    others = [
        np.dtype([("b", "f4"), ("a", "i2")]),
        np.dtype([("a", "i4"), ("b", "i2")]),
        np.dtype({"names": ["a", "b"], "formats": ["f4", "i2"], "offsets": [2, 0]}),
        np.dtype({"names": ["a", "b"], "formats": ["f4", "i2"], "itemsize": 8}),
        np.dtype([(("title", "a"), "f4"), ("b", "i2")]),
        np.dtype([("a", "f4", (1,)), ("b", "i2")]),
        np.dtype("V6"),
        np.dtype(">f4"),
        np.dtype("M8[s]"),
        np.dtype("M8[ms]"),
    ]
    assert len({encode(each) for each in [plain, *others]}) == len(others) + 1
    assert encode(np.zeros(0, plain)) == encode(np.zeros(0, plain.newbyteorder("=")))


def test_a_hash_can_go_on_from_where_another_one_is():
    base = canonical.Hash("a", 1)
    forked = base.fork().add(encode("x"))
    assert forked.hex() == canonical.Hash("a", 1, "x").hex() != base.hex()
    assert canonical.Hash("ab").hex() != canonical.Hash("a", "b").hex()


# --- keys of calls ----------------------------------------------------------------------------------------------------


def keyer(function, **options):
    return Keyer(function, "f", **options).for_store()


def test_the_same_call_written_differently_has_one_key_in_a_store():
    made = keyer(lambda text, model="small", *, client=None: None, ignore=("client",))
    keys = [made(("a",), {}), made((), {"text": "a", "model": "small"}), made(("a",), {"client": object()})]
    assert len({encode_key(each) for each in keys}) == 1
    assert encode_key(made(("a", "large"), {})) != encode_key(keys[0])
    assert encode_key(made(("a", Twice), {})) != encode_key(keys[0])


def test_an_argument_that_a_store_cannot_have_is_an_error_naming_it():
    with pytest.raises(TypeError, match=r"f: the argument 'b' cannot .*in this process only.*ignore=\('b',\)"):
        keyer(lambda a, b: None)((1, Equal(1)), {})


def test_arguments_and_members_never_run_into_each_other():
    made = keyer(lambda a, b: None)
    calls = [("a", "bc"), ("ab", "c"), (["a"], "bc"), ("a", ["bc"]), (("a", "b"), "c"), (b"a", "bc"), (1, "bc")]
    assert len({encode_key(made(call, {})) for call in calls}) == len(calls)


def test_moments_of_one_instant_in_two_zones_differ():
    here = dt.datetime(2024, 1, 1, 13, tzinfo=store_samples.BERLIN)
    assert here == here.astimezone(dt.UTC)
    assert encode(here) != encode(here.astimezone(dt.UTC))

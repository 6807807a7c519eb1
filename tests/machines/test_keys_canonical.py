"""Two values share a key exactly when a slow canonical encoding of them is equal."""

from __future__ import annotations

import struct

from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from asyncguard._machines.keys import freeze

ATOMS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([0.0, -0.0, 1.0, 2.0, float("nan"), -float("nan"), float("inf")]),
    st.sampled_from([0j, complex(1, 0), complex(0.0, -0.0)]),
    st.sampled_from(["", "a", "ab", "1", "True", "None"]),
    st.sampled_from([b"", b"a", b"1"]),
    st.sampled_from([bytearray(b"a"), bytearray(b"")]),
)
HASHABLE = st.recursive(
    ATOMS.filter(lambda value: not isinstance(value, bytearray)),
    lambda inner: st.one_of(st.tuples(inner), st.tuples(inner, inner), st.frozensets(inner, max_size=3)),
    max_leaves=4,
)
VALUES = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(HASHABLE, inner, max_size=3),
        st.sets(HASHABLE, max_size=3),
        st.frozensets(HASHABLE, max_size=3),
    ),
    max_leaves=8,
)


def canonical(value: object) -> bytes:
    """Encode a value by type, length and content; unordered containers by their sorted members."""
    kind = type(value).__name__.encode()
    if isinstance(value, float):
        content = struct.pack("<d", value)
    elif isinstance(value, complex):
        content = struct.pack("<dd", value.real, value.imag)
    elif isinstance(value, dict):
        content = b"".join(sorted(canonical((key, each)) for key, each in value.items()))
    elif isinstance(value, (set, frozenset)):
        content = b"".join(sorted(map(canonical, value)))
    elif isinstance(value, (list, tuple)):
        content = b"".join(map(canonical, value))
    else:
        content = value if isinstance(value, bytes) else repr(value).encode()
    return b"%d:%s%d:%s" % (len(kind), kind, len(content), content)


def rebuilt(value: object) -> object:
    """Make an equal value out of new objects, unordered containers filled the other way round."""
    if isinstance(value, dict):
        return {rebuilt(key): rebuilt(each) for key, each in reversed(list(value.items()))}
    if isinstance(value, (list, tuple)):
        return type(value)([rebuilt(each) for each in value])
    if isinstance(value, (set, frozenset)):
        return type(value)([rebuilt(each) for each in reversed(list(value))])
    return struct.unpack("<d", struct.pack("<d", value))[0] if isinstance(value, float) else value


@given(VALUES, VALUES)
@example(1, True)
@example(1, 1.0)
@example(0.0, -0.0)
@example([1, "a"], (1, "a"))
@example(["a", "b"], ["ab"])
@example([["a"], "b"], ["a", ["b"]])
@example("a", b"a")
@example({1: "x"}, {True: "x"})
@example({float("nan"), float("nan")}, {float("nan")})
@example({"a": 1}, [("a", 1)])
def test_two_values_share_a_key_exactly_when_their_canonical_encodings_are_equal(a, b):
    assert (freeze(a) == freeze(b)) == (canonical(a) == canonical(b))


@given(VALUES)
def test_a_value_made_again_from_new_objects_has_the_same_key_and_hash(value):
    again = rebuilt(value)
    assume(canonical(again) == canonical(value))
    assert freeze(again) == freeze(value)
    assert hash(freeze(again)) == hash(freeze(value))


@given(st.lists(VALUES, min_size=2, max_size=12))
@settings(max_examples=50)
def test_in_a_dict_of_keys_there_are_as_many_as_there_are_canonical_encodings(values):
    assert len({freeze(value) for value in values}) == len({canonical(value) for value in values})

"""The names of element types, of all libraries: a name with a slip of the pen would refuse every array."""

from __future__ import annotations

import difflib
import re

__all__ = ["checked_name"]

_NUMBERS = {
    "int": (1, 2, 3, 4, 5, 6, 7, 8, 16, 32, 64, 128),
    "uint": (1, 2, 3, 4, 5, 6, 7, 8, 16, 32, 64, 128),
    "float": (16, 32, 64, 80, 96, 128, 256),
    "bfloat": (16,),
    "complex": (32, 64, 128, 160, 192, 256, 512),
    "bits": (8, 16),
    "qint": (8, 32),
    "quint": (8,),
    "date": (32, 64),
    "time": (32, 64),
    "datetime": (64,),
    "timedelta": (64,),
}
_WORDS = """
    bool bool_ boolean byte ubyte short ushort int int_ intc intp uint uintc uintp long ulong longlong ulonglong
    half halffloat single double longdouble float float_ csingle cdouble clongdouble complex complex_
    object object_ str str_ string large_string unicode utf8 bytes bytes_ binary large_binary void
    date time datetime timestamp duration decimal category categorical enum list array struct null unknown geometry
    bits1x8 bits2x4 bits4x2 quint2x4 quint4x2
    signedinteger unsignedinteger integer floating complexfloating inexact number
"""
_KNOWN = frozenset(_WORDS.split()) | {f"{kind}{bits}" for kind, widths in _NUMBERS.items() for bits in widths}
_ALLOWED = "a name such as 'float32', 'int64', 'bool', 'str', 'datetime64', or 'floating', 'integer', 'number'"
_CODE = re.compile(r"[?bBhHiIlLqQpPnNuefdgFDGSUVOMmac]\d{0,4}|float\d_e\d+m\d+[a-z]*(_x\d)?|stringdtype\d*")
_WITH_PARAMETERS = re.compile(r"[.,:\[({]|.<")  # `datetime64[ns]`, `List(Int64)`, `key<fry>`: whose library knows


def checked_name(name: str) -> str:
    """Return the name of a dtype; raise ValueError if no library that is known has it.

    Names with parameters, and with a dot in front of which a library stands, are left to that library.
    """
    bare = name.lstrip("<>=|")
    if (
        _WITH_PARAMETERS.search(name)
        or bare.lower() in _KNOWN
        or _CODE.fullmatch(bare)
        or _CODE.fullmatch(bare.lower())
    ):
        return name
    close = difflib.get_close_matches(bare.lower(), sorted(_KNOWN), 1)
    advice = f"did you mean {close[0]!r}? " if close else ""
    message = f"dtype must be {_ALLOWED}, got {name!r}; {advice}A dtype of your own is given itself, not by name"
    raise ValueError(message)

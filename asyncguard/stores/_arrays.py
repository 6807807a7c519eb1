"""numpy arrays as bytes: dtype, shape and the buffer in C order; what comes back owns its memory and is writable.

Plain dtypes have a header of our own, which costs less than a microsecond; structured ones go as NPY, numpy's own
format (NEP 1), without its pickled objects. Dtypes of objects, and those whose description is not all of them (bfloat16
is laid out like any two bytes), are refused, as are subclasses of arrays.
"""

from __future__ import annotations

import io
import math
import struct
import sys
from typing import Any

_PLAIN = frozenset("biufcSUmM?")
_HEADER = struct.Struct("<BB")  # length of the dtype, number of dimensions
_NPY = b"\x93NUMPY"


def is_array(value: Any) -> bool:
    """Tell whether a value is exactly a numpy array."""
    numpy = sys.modules.get("numpy")
    return type(value) is getattr(numpy, "ndarray", None)


def is_scalar(value: Any) -> bool:
    """Tell whether a value is one number (moment, text) of numpy's."""
    numpy = sys.modules.get("numpy")
    return isinstance(value, getattr(numpy, "generic", ()))


def pack(array: Any) -> bytes:
    """Return the bytes of an array; raises TypeError for one that cannot be written."""
    dtype = array.dtype
    if dtype.kind not in _PLAIN or dtype.metadata or dtype.itemsize == 0:
        return _npy(array)
    layout = dtype.str.encode()
    shape = struct.pack(f"<{array.ndim}Q", *array.shape)
    return b"".join((_HEADER.pack(len(layout), array.ndim), layout, shape, array.tobytes()))


def unpack(data: bytes | memoryview) -> Any:
    """Return the array; raises ValueError (or another Exception of numpy's) for bytes that are none of ours."""
    import numpy as np

    if bytes(data[:6]) == _NPY:
        return np.load(io.BytesIO(data), allow_pickle=False)
    length, dimensions = _HEADER.unpack_from(data)
    start = _HEADER.size + length
    dtype = np.dtype(bytes(data[_HEADER.size : start]).decode("ascii"))
    if dtype.kind not in _PLAIN:
        raise ValueError("no dtype that is written in this way")
    shape = struct.unpack_from(f"<{dimensions}Q", data, start)
    content = memoryview(data)[start + 8 * dimensions :]
    if math.prod(shape) * dtype.itemsize != len(content):
        raise ValueError("the buffer is of another size than the shape says")
    return np.ndarray(shape, dtype, bytearray(content)) if len(content) else np.empty(shape, dtype)


def _npy(array: Any) -> bytes:
    import numpy as np

    dtype = array.dtype
    described = None if dtype.hasobject else np.lib.format.descr_to_dtype(np.lib.format.dtype_to_descr(dtype))
    if described != dtype or dtype.kind != "V" or dtype.fields is None or dtype.metadata:
        raise TypeError(f"arrays of dtype {dtype.name} cannot be written")
    out = io.BytesIO()
    np.lib.format.write_array(out, np.ascontiguousarray(array) if array.ndim else array, allow_pickle=False)
    return out.getvalue()


def pack_scalar(value: Any) -> bytes:
    """Return the bytes of a numpy scalar."""
    import numpy as np

    array = np.asarray(value)
    if array.dtype.type is not type(value):
        raise TypeError(f"{type(value).__name__} cannot be written")
    return pack(array)


def unpack_scalar(data: bytes) -> Any:
    """Return the numpy scalar."""
    array = unpack(data)
    if array.shape != ():
        raise ValueError("not a scalar")
    return array[()]

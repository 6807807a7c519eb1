"""Keys of arrays and tensors: class, dtype, shape and a digest of the whole content, never a sample, never `repr`.

Content is compared in C order, so that equal arrays in C and Fortran order share a key. The libraries are not
imported here: whoever passes an array has loaded its library.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable
from typing import Any

from asyncguard._machines import digests
from asyncguard._machines.keys_base import Digest, Freeze, Freezer, UnkeyableError
from asyncguard._machines.owners import without_kept

_NUMBERS = "biufc"  # the kinds of dtypes whose arrays export their buffer
_PADDED = "gG"  # long doubles
_X87 = 63  # bits of their mantissa, besides the leading one
_ARRAY_LIBRARIES = frozenset({"jax", "jaxlib", "cupy", "tensorflow", "mlx"})


def rule(kind: type, freeze: Freeze, function: Callable[[], Digest]) -> Freezer | None:
    """Return the freezer of an array class, None if it is none."""
    numpy = sys.modules.get("numpy")
    if numpy is not None and hasattr(numpy, "ufunc"):  # else another thread is still importing it
        if issubclass(kind, numpy.generic):
            return lambda value: _scalar(value, kind, freeze)
        if issubclass(kind, numpy.ndarray):
            return _numpy(kind, numpy, freeze, function)
        if issubclass(kind, numpy.dtype | numpy.ufunc):
            return lambda value: (kind, value)
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "Tensor"):
        if issubclass(kind, torch.Tensor):
            return lambda value: _torch(value, kind, torch, function)
        if kind in {torch.dtype, torch.device, torch.layout, torch.memory_format}:
            return lambda value: (kind, str(value))
    return (lambda value: _on_host(value, kind, freeze)) if numpy is not None and _is_array(kind) else None


# --- numpy ----------------------------------------------------------------------------------------------------------


def _scalar(value: Any, kind: type, freeze: Freeze) -> Hashable:
    dtype = value.dtype
    return (kind, dtype, freeze(value.item()) if dtype.hasobject else _without_padding(value).tobytes())


def _numpy(kind: type, numpy: Any, freeze: Freeze, function: Callable[[], Digest]) -> Freezer:
    if issubclass(kind, numpy.ma.MaskedArray):
        return lambda value: _masked(value, kind, numpy, freeze)
    if kind in {numpy.ndarray, numpy.matrix, numpy.memmap, numpy.recarray}:
        return _plain(kind, freeze, function)
    return lambda value: (_array(value, kind, freeze, function), freeze(without_kept(getattr(value, "__dict__", None))))


def _masked(value: Any, kind: type, numpy: Any, freeze: Freeze) -> Hashable:
    if value is numpy.ma.masked:
        return (kind,)
    return (kind, freeze(value.filled()), freeze(numpy.ma.getmaskarray(value)), freeze(value.fill_value))


def _plain(kind: type, freeze: Freeze, function: Callable[[], Digest]) -> Freezer:
    """Return the freezer of plain arrays: numbers in C order are hashed where they lie."""
    digest = function()

    def freezer(value: Any) -> Hashable:
        dtype = value.dtype
        if dtype.kind in _NUMBERS and value.nbytes > digests.SMALL and dtype.char not in _PADDED:
            try:
                return (kind, dtype, value.shape, digest(value))
            except (BufferError, ValueError):  # not in C order
                pass
        return _array(value, kind, freeze, function)

    return freezer


def _array(value: Any, kind: type, freeze: Freeze, function: Callable[[], Digest]) -> Hashable:
    dtype, shape = value.dtype, value.shape
    if dtype.hasobject:  # the buffer holds addresses: of objects, or of texts of any length
        return (kind, dtype, shape, tuple([freeze(each) for each in value.ravel().tolist()]))
    content = _without_padding(value)
    if content.nbytes <= digests.SMALL:
        return (kind, dtype, shape, content.tobytes())
    whole = sys.modules["numpy"].ascontiguousarray(content)
    return (kind, dtype, shape, function()(whole.reshape(-1).view("u1")))  # datetimes export no buffer, bytes do


def _without_padding(value: Any) -> Any:
    """Return the bytes that matter of x87 numbers: 10 of 16, and whatever lay there before in the others."""
    if value.dtype.char not in _PADDED:
        return value
    numpy = sys.modules["numpy"]
    native = numpy.asarray(value, value.dtype.newbyteorder("="), order="C")
    rows = native.reshape(-1).view("g").view("u1").reshape(-1, numpy.longdouble().itemsize)
    return rows[:, :10] if numpy.finfo("g").nmant == _X87 else rows


# --- tensors ----------------------------------------------------------------------------------------------------------


def _torch(value: Any, kind: type[Any], torch: Any, function: Callable[[], Digest]) -> Hashable:
    """Freeze a torch tensor; the device is no part of the key, the dtype is."""
    if value.layout is not torch.strided or value.is_quantized:
        raise UnkeyableError(kind, "is sparse or quantized")
    try:
        flat = value.detach().resolve_conj().resolve_neg().cpu().contiguous().reshape(-1)
        content = flat.view(torch.uint8).numpy()
    except Exception as error:  # on the device "meta" there is no content, nested ones have no shape
        raise UnkeyableError(kind, f"cannot be read as an array ({error})") from error
    digest = content.tobytes() if content.nbytes <= digests.SMALL else function()(content)
    return (kind, str(value.dtype), tuple(value.shape), digest)


def _is_array(kind: type) -> bool:
    """Tell an array of another library: one of the array API standard, or one that behaves like a torch tensor.

    What merely converts to an array is none: an array with labels (xarray) would lose them.
    """
    if all(hasattr(kind, name) for name in ("detach", "cpu", "dtype", "shape")):
        return True
    if all(hasattr(kind, name) for name in ("__array_namespace__", "__dlpack__", "dtype", "shape")):
        return True
    roots = {base.__module__.partition(".")[0] for base in kind.__mro__}
    return hasattr(kind, "dtype") and not roots.isdisjoint(_ARRAY_LIBRARIES)


def _on_host(value: Any, kind: type[Any], freeze: Freeze) -> Hashable:
    numpy = sys.modules["numpy"]
    try:
        if hasattr(value, "detach"):
            value = value.detach().cpu()
        host = value.get() if hasattr(value, "__cuda_array_interface__") else numpy.asarray(value)
    except Exception as error:
        raise UnkeyableError(kind, f"cannot be read as an array ({error})") from error
    return (kind, str(value.dtype), freeze(host))

"""Keys of arrays and tensors: class, dtype, shape and a digest of the whole content, never a sample, never `repr`.

Content is compared in C order, so that equal arrays in C and Fortran order share a key. The libraries are not
imported here: whoever passes an array has loaded its library.
"""

from __future__ import annotations

import sys
from collections.abc import Hashable
from typing import Any

from asyncguard._machines import digests
from asyncguard._machines.keys_base import Freeze, Freezer, UnkeyableError

_NUMBERS = "biufc"  # the kinds of dtypes whose arrays export their buffer
_ARRAY_LIBRARIES = frozenset({"jax", "jaxlib", "cupy", "tensorflow", "mlx"})


def rule(kind: type, freeze: Freeze) -> Freezer | None:
    """Return the freezer of an array class, None if it is none."""
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        if issubclass(kind, numpy.generic):
            return lambda value: (kind, value.dtype, value.tobytes())
        if issubclass(kind, numpy.ndarray):
            return _numpy(kind, numpy, freeze)
        if issubclass(kind, numpy.dtype | numpy.ufunc):
            return lambda value: (kind, value)
    torch = sys.modules.get("torch")
    if torch is not None and issubclass(kind, torch.Tensor):
        return lambda value: _torch(value, kind, torch)
    return (lambda value: _on_host(value, kind, freeze)) if numpy is not None and _is_array(kind) else None


# --- numpy ----------------------------------------------------------------------------------------------------------


def _numpy(kind: type, numpy: Any, freeze: Freeze) -> Freezer:
    if issubclass(kind, numpy.ma.MaskedArray):
        return lambda value: (kind, freeze(value.filled()), freeze(numpy.ma.getmaskarray(value)))
    if kind in {numpy.ndarray, numpy.matrix, numpy.memmap, numpy.recarray}:
        return _plain(kind, freeze)
    return lambda value: (_array(value, kind, freeze), freeze(getattr(value, "__dict__", None)))


def _plain(kind: type, freeze: Freeze) -> Freezer:
    """Return the freezer of plain arrays: numbers in C order are hashed where they lie."""
    digest = digests.function()

    def freezer(value: Any) -> Hashable:
        dtype = value.dtype
        if dtype.kind in _NUMBERS and value.nbytes > digests.SMALL:
            try:
                return (kind, dtype, value.shape, digest(value))
            except (BufferError, ValueError):  # not in C order
                pass
        return _array(value, kind, freeze)

    return freezer


def _array(value: Any, kind: type, freeze: Freeze) -> Hashable:
    dtype, shape = value.dtype, value.shape
    if dtype.hasobject:
        return (kind, dtype, shape, tuple([freeze(each) for each in value.ravel().tolist()]))
    if value.nbytes <= digests.SMALL:
        return (kind, dtype, shape, value.tobytes())
    if not value.flags.c_contiguous:
        value = value.copy(order="C")
    content = value if dtype.kind in _NUMBERS else value.reshape(-1).view("u1")  # datetimes export no buffer
    return (kind, dtype, shape, digests.of_buffer(content))


# --- tensors ----------------------------------------------------------------------------------------------------------


def _torch(value: Any, kind: type[Any], torch: Any) -> Hashable:
    """Freeze a torch tensor; the device is no part of the key, the dtype is."""
    if value.layout is not torch.strided or value.is_quantized:
        raise UnkeyableError(kind, "is sparse or quantized")
    flat = value.detach().resolve_conj().resolve_neg().cpu().contiguous().reshape(-1)
    content = flat.view(torch.uint8).numpy()
    digest = content.tobytes() if content.nbytes <= digests.SMALL else digests.of_buffer(content)
    return (kind, str(value.dtype), tuple(value.shape), digest)


def _is_array(kind: type) -> bool:
    """Tell an array of another library, or something that behaves like a torch tensor.

    What merely converts to an array is none: an array with labels (xarray) would lose them.
    """
    if all(hasattr(kind, name) for name in ("detach", "cpu", "dtype", "shape")):
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

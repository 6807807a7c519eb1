"""Keys of data frames: names, dtypes, index and the content of every column.

`pandas.util.hash_pandas_object` ignores the names of columns and their dtypes, so it is not used. pandas goes column by
column; polars and Arrow through their IPC format, which holds schema and content.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Hashable
from typing import Any

from asyncguard._machines import digests, keys_builtins
from asyncguard._machines.keys_base import Digest, Freeze, Freezer, UnkeyableError


def rule(kind: type, freeze: Freeze, function: Callable[[], Digest]) -> Freezer | None:
    """Return the freezer of a frame, series or index, None if it is none."""
    return _pandas(kind, freeze) or _polars(kind, function) or _arrow(kind, function)


def _pandas(kind: type, freeze: Freeze) -> Freezer | None:
    pandas = sys.modules.get("pandas")
    if pandas is None or not hasattr(pandas, "DataFrame"):
        return None
    rules: list[tuple[Any, Freezer]] = [
        (pandas.DataFrame, lambda value: _frame(value, kind, freeze)),
        (pandas.Series, lambda value: _series(value, kind, freeze)),
        (pandas.Index, lambda value: _index(value, freeze)),
        ((type(pandas.NA), type(pandas.NaT)), lambda _value: (kind,)),
        (pandas.api.extensions.ExtensionArray, lambda value: (kind, _values(value, freeze))),
        (pandas.Timestamp, lambda value: (kind, freeze(value.asm8), value.fold, keys_builtins.zone_of(value))),
        (pandas.Timedelta, lambda value: (kind, freeze(value.asm8))),
    ]
    return next((freezer for bases, freezer in rules if issubclass(kind, bases)), None)


def _frame(value: Any, kind: type, freeze: Freeze) -> Hashable:
    columns = tuple([_values(column, freeze) for _, column in value.items()])
    return (kind, _index(value.columns, freeze), _index(value.index, freeze), columns, freeze(value.attrs))


def _series(value: Any, kind: type, freeze: Freeze) -> Hashable:
    return (kind, freeze(value.name), _index(value.index, freeze), _values(value, freeze), freeze(value.attrs))


def _index(value: Any, freeze: Freeze) -> Hashable:
    kind = value.__class__
    names = freeze(tuple(value.names))
    if value.nlevels > 1:
        levels = [_values(value.get_level_values(level), freeze) for level in range(value.nlevels)]
        return (kind, names, tuple(levels))
    return (kind, names, _values(value, freeze))


def _values(value: Any, freeze: Freeze) -> Hashable:
    """Freeze a column by its dtype and content; extension types (nullable, text, zones) go value by value."""
    dtype = str(value.dtype)
    if dtype == "category":
        held = getattr(value, "array", value)
        return (dtype, _index(held.categories, freeze), bool(held.ordered), freeze(held.codes))
    plain = type(value.dtype).__module__.partition(".")[0] == "numpy"
    return (dtype, freeze(value.to_numpy() if plain else value.tolist()))


def _polars(kind: type, function: Callable[[], Digest]) -> Freezer | None:
    polars = sys.modules.get("polars")
    if polars is None or not hasattr(polars, "DataFrame"):
        return None
    if issubclass(kind, polars.DataFrame):
        return lambda value: (kind, _ipc(value, function))
    if issubclass(kind, polars.Series):
        return lambda value: (kind, _ipc(value.to_frame(), function))
    return None


def _ipc(frame: Any, function: Callable[[], Digest]) -> bytes:
    out = io.BytesIO()
    try:
        frame.rechunk().write_ipc(out)
    except Exception as error:
        raise UnkeyableError(frame.__class__, f"cannot be written as Arrow data ({error})") from error
    return digests.short(out.getvalue(), function)


def _arrow(kind: type, function: Callable[[], Digest]) -> Freezer | None:
    arrow = sys.modules.get("pyarrow")
    if arrow is None or not hasattr(arrow, "Table"):
        return None
    if issubclass(kind, arrow.Table):
        return lambda value: (kind, _stream(value, arrow, function))
    if issubclass(kind, arrow.RecordBatch):
        return lambda value: (kind, _stream(arrow.Table.from_batches([value]), arrow, function))
    if issubclass(kind, arrow.Array | arrow.ChunkedArray):
        return lambda value: (kind, _stream(arrow.table({"": value}), arrow, function))
    return None


def _stream(table: Any, arrow: Any, function: Callable[[], Digest]) -> bytes:
    out = io.BytesIO()
    whole = table.combine_chunks()
    with arrow.ipc.new_stream(out, whole.schema) as writer:
        writer.write_table(whole)
    return digests.short(out.getvalue(), function)

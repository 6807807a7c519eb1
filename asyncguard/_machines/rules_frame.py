"""The `Columns` rule: names, types, missing values and ranges of the columns of pandas and polars data frames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from asyncguard._machines import checks
from asyncguard._machines.rules_base import Location, Rule
from asyncguard._machines.rules_dtype import Dtypes, dtype_name
from asyncguard._machines.rules_numbers import CANNOT, Bound, bounds

__all__ = ["Column", "Columns"]


@dataclass(frozen=True, slots=True)
class Column:
    """What one column has to be: its type by name, whether values may be missing, and their range.

    `nulls=False` forbids missing values; NaN counts as missing. Missing values are in every range.
    """

    dtype: object = None
    nulls: bool = field(default=True, kw_only=True)
    ge: float | None = field(default=None, kw_only=True)
    gt: float | None = field(default=None, kw_only=True)
    le: float | None = field(default=None, kw_only=True)
    lt: float | None = field(default=None, kw_only=True)
    _dtypes: Dtypes | None = field(default=None, init=False, repr=False, compare=False)
    _range: tuple[Bound, ...] = field(default=(), init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the options."""
        checks.boolean("nulls", self.nulls)
        object.__setattr__(self, "_dtypes", None if self.dtype is None else Dtypes(self.dtype))
        object.__setattr__(self, "_range", bounds(self.ge, self.gt, self.le, self.lt))

    def examine(self, series: Any, at: Location) -> None:
        """Report what is wrong with the column."""
        if self._dtypes is not None and not self._dtypes.accept(series.dtype):
            at.broken("dtype", str(self._dtypes), dtype_name(series.dtype))
        if not self.nulls:
            self._report("nulls", "missing", _missing(series), at)
        for limit in self._range:
            try:
                _check_numeric(series)
                outside = ~limit.holds(series, limit.limit) & ~_missing(series)
            except CANNOT:
                at.broken(limit.rule, "numbers", dtype_name(series.dtype))
                continue
            self._report(limit.rule, f"not {limit}", outside, at)

    def _report(self, rule: str, text: str, mask: Any, at: Location) -> None:
        count = int(mask.sum() or 0)
        if count:
            row = [bool(each) for each in mask.to_list()].index(True)
            actual = f"{count} of {len(mask)} values {'is' if count == 1 else 'are'} {text}"
            at.broken(rule, f"no values that are {text}", actual, f"first at row {row}")


class Columns(Rule):
    """A data frame that has the named columns: `Columns("city", price=Column("float64", nulls=False, ge=0))`.

    A plain name asks only that the column is there, a type name (`price="float64"`) for its type, a `Column` for the
    rest. Columns whose names are no identifiers go into a mapping: `Columns({"unit price": "float64"})`. Other columns
    may be there; they are not looked at.
    """

    __slots__ = ("columns",)

    def __init__(self, *names: str | Mapping[str, object], **columns: object) -> None:
        merged: dict[str, object] = {}
        for each in names:
            merged.update({each: None} if isinstance(each, str) else each)
        merged.update(columns)
        if not merged:
            raise checks.wrong_type("Columns", (), "given at least one column")
        self.columns: dict[str, Column | None] = {name: _column(spec) for name, spec in merged.items()}

    def __repr__(self) -> str:
        return f"Columns({', '.join(map(repr, self.columns))})"

    def examine(self, value: Any, at: Location) -> Any:
        """Report missing columns, then what is wrong with each that is there."""
        if hasattr(value, "collect") or not hasattr(value, "columns") or not hasattr(value, "__getitem__"):
            at.broken("type", "a data frame", type(value).__name__)
            return value
        present = list(value.columns)
        missing = [name for name in self.columns if name not in present]
        if missing:
            at.broken("columns", ", ".join(map(repr, self.columns)), "no " + ", ".join(map(repr, missing)))
        for name, column in self.columns.items():
            if present.count(name) > 1:
                at.inside(f"[{name!r}]").broken("columns", "one column of this name", str(present.count(name)))
            elif column is not None and name in present:
                column.examine(value[name], at.inside(f"[{name!r}]"))
        return value


def _column(spec: object) -> Column | None:
    return spec if spec is None or isinstance(spec, Column) else Column(spec)


def _check_numeric(series: Any) -> None:
    """Raise TypeError for a polars column that is not of numbers: polars compares text with numbers to nothing."""
    numeric = getattr(series.dtype, "is_numeric", None)
    if numeric is not None and not numeric():
        raise TypeError("not numbers")


def _missing(series: Any) -> Any:
    if hasattr(series, "isna"):
        return series.isna()
    nulls = series.is_null()
    return nulls | series.is_nan().fill_null(value=True) if dtype_name(series.dtype).startswith("Float") else nulls

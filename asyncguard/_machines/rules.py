"""The rules of `validate_input` that users write; what a rule is stands in `rules_base`."""

from __future__ import annotations

from asyncguard._machines.rules_array import Array
from asyncguard._machines.rules_basic import Keys
from asyncguard._machines.rules_frame import Column, Columns

__all__ = ["Array", "Column", "Columns", "Keys"]

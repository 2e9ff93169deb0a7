"""The space that a search explores: data (`axes`), read from TOML (`reading`), and checked (`checks`)."""

from __future__ import annotations

from autocut.space.axes import RULES, Axis, AxisRule, Space, axis_values, every_recipe, fit_space
from autocut.space.reading import SpaceFile, load_space, parse_space, read_recipe, read_space_file, shipped_spaces
from autocut.space.students import with_students

__all__ = [
    "RULES",
    "Axis",
    "AxisRule",
    "Space",
    "SpaceFile",
    "axis_values",
    "every_recipe",
    "fit_space",
    "load_space",
    "parse_space",
    "read_recipe",
    "read_space_file",
    "shipped_spaces",
    "with_students",
]

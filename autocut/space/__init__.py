"""The space that a search explores: data (`axes`), read from TOML (`reading`), checked (`checks`), fitted to a task (`fitting`)."""

from __future__ import annotations

from autocut.space.axes import RULES, Axis, AxisRule, Space
from autocut.space.fitting import fit_space
from autocut.space.grid import axis_values, every_recipe
from autocut.space.reading import SpaceFile, load_space, parse_space, read_recipe, read_space_file, shipped_spaces

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
]

"""The space that a search explores: neutral data (`axes`), read from TOML (`reading`) and checked (`checks`)."""

from __future__ import annotations

from autocut.space.axes import RULES, Axis, AxisRule, Space
from autocut.space.reading import load_space, parse_space, read_recipe, shipped_spaces

__all__ = ["RULES", "Axis", "AxisRule", "Space", "load_space", "parse_space", "read_recipe", "shipped_spaces"]

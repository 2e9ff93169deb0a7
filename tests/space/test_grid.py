"""Every recipe of a finite space."""

from __future__ import annotations

import pytest

from autocut.errors import SpaceError
from autocut.recipe import Recipe
from autocut.space import SpaceFile, every_recipe, parse_space

KNOWN = {"prune.method": ("none", "structured"), "quantize.dtype": ("fp32", "bf16")}
TEXT = """
schema_version = 1
[objectives]
accuracy = "maximize"
usd_per_million = "minimize"
[axes."prune.method"]
choices = ["none", "structured"]
[axes."prune.ratio"]
range = [0.2, 0.6]
step = 0.2
when."prune.method" = ["structured"]
[axes."train.epochs"]
choices = [0, 1]
[axes."train.lr_scale"]
choices = [0.5, 1.0]
when."train.epochs" = [1]
[axes."quantize.dtype"]
choices = ["fp32", "bf16"]
"""


def test_every_combination_is_there_once():
    """(1 untouched + 3 ratios) x (untrained + 2 rates) x 2 dtypes."""
    recipes = every_recipe(parse_space(SpaceFile("small", TEXT, "small.toml"), KNOWN))

    assert len(recipes) == len(set(recipes)) == 4 * 3 * 2
    assert recipes[0] == Recipe()
    assert sorted({recipe["prune.ratio"] for recipe in recipes if "prune.ratio" in recipe}) == [0.2, 0.4, 0.6]


def test_a_continuous_axis_has_no_end():
    """The error names the axis."""
    space = parse_space(SpaceFile("endless", TEXT.replace("step = 0.2\n", ""), "endless.toml"), KNOWN)

    with pytest.raises(SpaceError, match=r"prune\.ratio must have choices or a step"):
        every_recipe(space)

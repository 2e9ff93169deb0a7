"""The axis that says whether a model is pruned before or after its training."""

from __future__ import annotations

import pytest

from autocut.recipe import LEFT_OUT, Recipe
from autocut.space import every_recipe, read_recipe

from .test_space import HEAD, RATIO, faults, parse

BOTH = (
    HEAD
    + '[axes."prune.method"]\nchoices = ["none", "structured"]\n'
    + RATIO.replace("step = 0.1", "step = 0.35")
    + '[axes."train.epochs"]\nchoices = [0, 2]\n'
)
WHEN = '[axes."prune.when"]\nchoices = ["before_training", "after_training"]\n'
IF_CUT, IF_TRAINED = 'when."prune.method" = ["structured"]\n', 'when."train.epochs" = [2]\n'
AWARE = '[axes."train.quantization_aware"]\nchoices = ["none", "int8"]\nwhen."train.epochs" = [2]\n'
INT8 = '[axes."quantize.dtype"]\nchoices = ["fp32", "int8_static"]\n'
PARENT = '[axes."prune.parent_ratio"]\nchoices = [0.2]\nwhen."prune.method" = ["structured"]\nwhen."train.epochs" = [2]\n'


def test_a_space_of_both_orders_has_each_recipe_once():
    """3 ratios, not trained or in 2 orders, and the whole model, trained or not: no two names of one model."""
    recipes = every_recipe(parse(BOTH + WHEN + IF_CUT + IF_TRAINED))

    assert len(recipes) == len(set(recipes)) == 3 * (1 + 2) + 2
    assert len({recipe.describe() for recipe in recipes}) == len(recipes)
    assert sum(recipe.prunes_last for recipe in recipes) == 3


@pytest.mark.parametrize(("condition", "missing"), [(IF_TRAINED, "prune.method 'none'"), (IF_CUT, "train.epochs 0")])
def test_the_order_needs_a_cut_and_a_training(condition, missing):
    """Otherwise the sampler would learn from a setting without effect."""
    (found,) = faults(BOTH + WHEN + condition)

    assert found.message == f"prune.when has no effect with {missing}, so it must be conditional"
    assert found.hint.startswith(f'write when."{missing.split()[0]}" = [')


def test_an_awareness_of_a_dtype_and_a_cut_after_it_are_refused():
    """The cut would undo what the training has rounded for."""
    (found,) = faults(BOTH + WHEN + IF_CUT + IF_TRAINED + AWARE + INT8)
    space = parse(BOTH + WHEN + IF_CUT + IF_TRAINED + 'when."train.quantization_aware" = ["none"]\n' + AWARE + INT8)

    told = (
        "prune.when must be conditional on train.quantization_aware 'none': a training that is aware of a dtype comes after the cut"
    )
    assert (found.message, found.hint) == (told, 'write when."train.quantization_aware" = ["none"]')
    assert not any(recipe.prunes_last and "train.quantization_aware" in recipe for recipe in every_recipe(space))


def test_iterative_pruning_and_a_cut_after_the_training_are_refused():
    """Between two cuts after the training nothing is trained."""
    (found,) = faults(BOTH + WHEN + IF_CUT + IF_TRAINED + PARENT)
    assert found.message.startswith("prune.parent_ratio must be conditional on prune.when 'before_training': nothing is trained")
    assert found.hint == 'write when."prune.when" = ["before_training"]'

    space = parse(BOTH + WHEN + IF_CUT + IF_TRAINED + PARENT + 'when."prune.when" = ["before_training"]\n')
    recipes = every_recipe(space)
    assert len(recipes) == len(set(recipes))
    assert not any(recipe.prunes_last and "prune.parent_ratio" in recipe for recipe in recipes)


STUDENT = '[axes."model.student"]\nchoices = ["none"]\nwhen."train.epochs" = [2]\n'


@pytest.mark.parametrize(
    ("axes", "parent"),
    [(AWARE + INT8 + WHEN + IF_CUT + IF_TRAINED, "train.quantization_aware"), (STUDENT, "prune.method")],
)
def test_whatever_stands_in_a_condition_is_a_fault_and_no_crash(axes, parent):
    """TOML has lists in lists."""
    found = faults(BOTH + axes + f'when."{parent}" = [["none"]]\n')

    assert any(f"must list values that {parent} takes" in fault.message for fault in found)


def test_a_recipe_file_says_the_order(tmp_path):
    """Written out, left out, or refused by its name."""
    space, file = parse(BOTH + WHEN + IF_CUT + IF_TRAINED), tmp_path / "mine.toml"
    cut = '"prune.method" = "structured"\n"prune.ratio" = 0.45\n"train.epochs" = 2\n'
    file.write_text(cut + '"prune.when" = "after_training"\n')
    assert read_recipe(file, space).prunes_last

    file.write_text(cut)
    assert not read_recipe(file, space).prunes_last
    plain = parse(BOTH)
    assert plain.why_not(Recipe({**read_recipe(file, space), "prune.when": "after_training"})) == (
        "prune.when is no axis of this space, got 'after_training'"
    )
    assert space.why_not(Recipe({**read_recipe(file, space), "prune.when": "later"})) == (
        "prune.when must be one of before_training, after_training, got 'later'"
    )


@pytest.mark.parametrize("name", sorted(LEFT_OUT))
def test_a_condition_holds_for_a_setting_that_the_recipe_leaves_out(name):
    """A recipe does not spell what it leaves out, and yet it has that value."""
    space = parse(BOTH)
    conditional = space.axis("prune.ratio").__class__("prune.ratio", (0.1,), when={name: (LEFT_OUT[name],)})

    assert space.is_active(conditional, {})
    assert not space.is_active(conditional, {name: 0.5})

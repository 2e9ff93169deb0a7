"""The ladder: its knobs, its steps over what is not measured, and what it needs."""

import pytest

from autocut.attribution.ladder import build_ladder, wanted_pairs, wanted_recipes
from autocut.attribution.turned import knobs_of, longer_trained
from autocut.recipe import UNTOUCHED, Recipe
from autocut.stages.train import curricula


def known_of(*rungs):
    """Rungs by recipe."""
    return {rung.recipe: rung for rung in rungs}


def test_knobs_are_turned_one_after_the_other_and_the_last_rung_is_the_recipe(settings):
    """Pruned, trained, distilled, compiled, then quantized: int8 is real only in its mode."""
    recipe = Recipe(settings.prune | settings.train | settings.distill | settings.mode | settings.dtype)
    knobs = knobs_of(recipe)

    assert [knob.name for knob in knobs] == ["structured 0.5", "4 epochs", "distill kl T=2 alpha=0.5", "onnxruntime", "int8_static"]
    assert knobs[-1].rung == recipe
    assert (knobs[-1].alone, knobs[-1].base) == (Recipe(settings.mode | settings.dtype), Recipe(settings.mode))
    assert (knobs[2].alone, knobs[2].base) == (Recipe(settings.train | settings.distill), Recipe(settings.train))
    assert (knobs[1].alone, knobs[1].base) == (Recipe(settings.train), UNTOUCHED)


def test_what_is_pruned_last_is_turned_last_of_the_weights(settings):
    """The rungs before it are those of the training that other cuts share. Alone it is the cut without a training."""
    trained = settings.train | settings.distill
    recipe = Recipe(settings.prune | trained | settings.mode | {"prune.when": "after_training"})
    training, distilled, pruned, lowered = knobs_of(recipe)

    assert (training.rung, distilled.rung) == (Recipe(settings.train), Recipe(trained))
    assert pruned.rung == recipe.prefix
    assert (pruned.name, pruned.alone) == ("structured 0.5 after training", Recipe(settings.prune))
    assert lowered.rung == recipe


def test_the_untouched_model_has_no_knob():
    """There is nothing to explain."""
    assert knobs_of(UNTOUCHED) == ()
    assert longer_trained(UNTOUCHED) is None


def test_every_setting_of_a_recipe_belongs_to_a_knob(settings):
    """The last rung is the recipe, iterative pruning and orders of a curriculum included."""
    schedule = next(name for name in curricula if name != "none")
    more = {"prune.parent_ratio": 0.25, "curriculum.schedule": schedule, "curriculum.start": 0.5, "train.lr_scale": 1.5}
    recipe = Recipe(settings.prune | settings.train | settings.mode | more | {"train.quantization_aware": "int8"})

    assert knobs_of(recipe)[-1].rung == recipe
    assert knobs_of(recipe)[0].rung == Recipe(settings.prune)


def test_knobs_that_do_alone_what_they_do_together_multiply(rung, settings):
    """2x and 3x make 6x."""
    base, mode = rung({}), rung(settings.mode, speedup=3.0)
    prune, both = rung(settings.prune, speedup=2.0), rung(settings.prune | settings.mode, speedup=6.1)
    ladder = build_ladder(both.recipe, known_of(base, mode, prune, both), {})

    assert [step.name for step in ladder.steps] == ["structured 0.5", "onnxruntime"]
    assert ladder.apart.speedup.value == pytest.approx(6.0)
    assert ladder.whole.speedup.value == 6.1
    assert ladder.knobs_multiply is True
    assert not any(step.interacts for step in ladder.steps)


def test_a_knob_that_does_less_after_another_one_is_named(rung, settings):
    """Small models gain less from a dtype."""
    base, mode = rung({}), rung(settings.mode, speedup=3.0)
    prune, both = rung(settings.prune, speedup=2.0), rung(settings.prune | settings.mode, speedup=2.1)
    ladder = build_ladder(both.recipe, known_of(base, mode, prune, both), {})

    assert ladder.knobs_multiply is False
    assert [step.interacts for step in ladder.steps] == [False, True]


def test_a_step_over_a_rung_that_was_not_measured_turns_several_knobs(rung, settings):
    """Nothing is inferred, and what is not known alone makes the question of multiplying open."""
    recipe = settings.prune | settings.train | settings.mode
    known = known_of(rung({}), rung(settings.prune | settings.train, accuracy=0.97), rung(recipe, speedup=4.0))
    ladder = build_ladder(Recipe(recipe), known, {})

    assert [step.name for step in ladder.steps] == ["structured 0.5 + 4 epochs", "onnxruntime"]
    assert [step.stages for step in ladder.steps] == [("prune", "train"), ("compile",)]
    assert (ladder.apart, ladder.knobs_multiply, ladder.longer_training) == (None, None, None)


def test_longer_training_of_the_untouched_model_is_told_apart(rung, settings):
    """What more epochs give to any model is not won by the recipe."""
    recipe = settings.train | settings.mode
    known = known_of(rung({}), rung(settings.train, accuracy=0.99), rung(recipe, accuracy=0.985, speedup=2.0))
    ladder = build_ladder(Recipe(recipe), known, {})

    assert ladder.longer_training.accuracy.value == pytest.approx(0.01)
    assert ladder.beyond_training.accuracy.value == pytest.approx(-0.005)
    assert longer_trained(Recipe(settings.train)) is None


def test_an_iteratively_pruned_child_is_compared_with_all_epochs_that_it_saw(settings):
    """It was trained after each pruning: 4 epochs twice. Alone, as many epochs stand for its training."""
    child = Recipe(settings.prune | settings.train | settings.distill | {"prune.parent_ratio": 0.25})
    pruned, trained, distilled = knobs_of(child)

    assert longer_trained(child) == trained.alone == distilled.base == Recipe({"train.epochs": 8})
    assert distilled.alone == Recipe({"train.epochs": 8} | settings.distill)
    assert (pruned.name, trained.name) == ("structured 0.5", "8 epochs")
    assert (trained.rung["train.epochs"], distilled.rung) == (4, child)


def test_what_is_wanted_is_what_the_ladder_reads(rung, settings):
    """With everything that is wanted, nothing is left open."""
    recipe = Recipe(settings.prune | settings.train | settings.distill | settings.mode | settings.dtype)
    wanted = wanted_recipes(recipe)
    known = {one: rung(dict(one) if one != UNTOUCHED else {}) for one in wanted}
    pairs = wanted_pairs(recipe, known)
    ladder = build_ladder(recipe, known, dict.fromkeys(pairs, known[recipe].measurement.accuracy.difference))

    assert wanted[:2] == (UNTOUCHED, recipe)
    assert len(ladder.steps) == 5
    assert ladder.apart is not None
    assert all(effect.is_paired for step in ladder.steps for effect in (step.effect, step.apart))
    assert all(before != UNTOUCHED for before, _ in pairs)


def test_small_differences_that_add_up_name_the_largest(rung, settings):
    """No step is sure, the whole is: the reader learns where to look."""
    recipe = settings.prune | settings.mode | settings.dtype
    pruned_mode, mode = settings.prune | settings.mode, settings.mode
    known = known_of(
        rung({}), rung(settings.prune, speedup=2.0), rung(mode, speedup=2.0), rung(mode | settings.dtype, speedup=4.0),
        rung(pruned_mode, speedup=4.12), rung(recipe, speedup=8.6),
    )  # fmt: skip
    ladder = build_ladder(Recipe(recipe), known, {})

    assert ladder.knobs_multiply is False
    assert not any(step.interacts for step in ladder.steps)
    assert [step.name for step in ladder.interacting] == ["int8_static"]

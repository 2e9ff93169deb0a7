"""The sentences below a ladder."""

import pytest

from autocut.attribution.ladder import build_ladder, wanted_pairs
from autocut.attribution.sentences import importance_sentence, sentences_of
from autocut.attribution.words import say_accuracy, say_effect, say_percent
from autocut.measurement import Interval
from autocut.recipe import Recipe
from autocut.study.importance import ValueImportance


def told(recipe, *rungs, paired=True):
    """The sentences about `recipe`, whose rungs were compared on the same examples."""
    known = {rung.recipe: rung for rung in rungs}
    differences = {}
    for before, after in wanted_pairs(Recipe(recipe), known) if paired else ():
        change = known[after].values["accuracy"] - known[before].values["accuracy"]
        differences[before, after] = Interval(change, change - 0.001, change + 0.001)
    return "\n".join(sentences_of(build_ladder(Recipe(recipe), known, differences), 5, rungs[0]))


def test_who_bought_what_is_named(rung, settings):
    """Speed, accuracy and size each have a sentence; what bought nothing is named."""
    prune, trained = settings.prune, settings.prune | settings.train
    distilled, whole = trained | settings.distill, trained | settings.distill | settings.mode
    text = told(
        whole, rung({}, size=1000), rung(prune, 0.5, 2.0, 300), rung(trained, 0.97, 2.0, 300),
        rung(distilled, 0.97, 2.0, 300), rung(whole, 0.97, 6.0, 300),
    )  # fmt: skip

    assert text.splitlines()[0].startswith("Trial 5 (structured 0.5 + 4 epochs + distill kl")
    assert "The most speed comes from onnxruntime: 3x (2.92 to 3.09); structured 0.5 adds 2x (1.96 to 2.04)." in text
    assert "Of the accuracy, structured 0.5 costs 48.0 points" in text
    assert "4 epochs brings 47.0 points" in text
    assert "Smaller files come from structured 0.5 (3.33x smaller)." in text
    assert "Bought nothing: distill kl T=2 alpha=0.5." in text
    assert "multiply" not in text, "nothing was measured alone"


def test_knobs_that_do_not_multiply_are_named_with_what_they_do_alone(rung, settings):
    """A small model gains less from a runtime."""
    whole = settings.prune | settings.mode
    rungs = rung({}), rung(settings.prune, speedup=2.0), rung(settings.mode, speedup=3.0), rung(whole, speedup=2.2)
    text = told(whole, *rungs)

    assert "The knobs do not multiply: alone they would make 6x" in text
    assert "onnxruntime depends on the knobs before it: here 1.1x faster; alone 3x faster." in text
    assert "The knobs multiply: alone they make 6x" in told(whole, *rungs[:3], rung(whole, speedup=6.05))


def test_a_tie_is_called_a_tie(rung, settings):
    """Not a small gain."""
    text = told(settings.mode, rung({}), rung(settings.mode, speedup=1.01))

    assert "a tie in speed (0.99x to 1.03x), a tie in accuracy: 0.0 points (-0.5 to +0.5)" in text


def test_longer_training_and_unpaired_steps_are_told(rung, settings):
    """Both change what a reader may conclude."""
    whole = settings.train | settings.mode
    rungs = rung({}), rung(settings.train, accuracy=0.99), rung(whole, accuracy=0.985, speedup=2.0)

    assert "The untouched model trained as long (4 epochs), compared with the untouched one: " in told(whole, *rungs)
    assert "The recipe, compared with that longer training: 2x faster" in told(whole, *rungs)
    assert "same examples" not in told(whole, *rungs)
    assert "wider interval: the accuracy of onnxruntime." in told(whole, *rungs, paired=False)


@pytest.mark.parametrize(
    ("difference", "is_share", "text"),
    [
        ((-0.006, -0.013, 0.001), True, "-0.6 points (-1.3 to +0.1)"),
        ((-1e-12, -1e-12, -1e-12), True, "0.0 points"),
        ((-0.0001, -0.0002, 0.0001), True, "-0.01 points (-0.02 to +0.01)"),
        ((-0.5, -0.75, -0.25), False, "-0.5 (-0.75 to -0.25)"),
    ],
)
def test_a_difference_has_the_unit_of_the_metric(difference, is_share, text):
    """Points for a share, nothing for an error in kilometres; what rounds to zero has no sign."""
    assert say_accuracy(Interval(*difference), is_share=is_share) == text


def test_slower_is_said_as_slower(rung, settings):
    """0.5x faster is no English."""
    ladder = build_ladder(Recipe(settings.mode), {one.recipe: one for one in (rung({}), rung(settings.mode, speedup=0.5))}, {})

    assert say_effect(ladder.whole, is_share=True).startswith("2x slower (1.96 to 2.04)")
    assert (say_percent(0.43), say_percent(1.0), say_percent(1.05)) == ("-57%", "0%", "+5%")


def test_importance_names_what_matters():
    """Small shares are noise."""
    importance = ValueImportance("accuracy", 46, 5, {"prune.ratio": 0.8, "train.epochs": 0.16, "distill.alpha": 0.04})

    assert importance_sentence(importance) == (
        "accuracy: the best 5 of 46 trials differ from the others in prune.ratio (80%), train.epochs (16%)"
    )

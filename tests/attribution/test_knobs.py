"""What `search` and `select` say about the knobs of a trial."""

from pathlib import Path

from autocut.attribution.evidence import Evidence
from autocut.attribution.knobs import knob_sentence
from autocut.measurement import Interval
from autocut.recipe import UNTOUCHED, Recipe

FOLDER = Path("studies/digits")


def said(recipe, *rungs):
    """The sentence for trial 3, which has `recipe`."""
    return knob_sentence(Evidence({rung.recipe: rung for rung in rungs}, {}, {}), FOLDER, 3, Recipe(recipe))


def test_every_measured_step_is_told(rung, settings):
    """In the order of the ladder; what may be chance is no change."""
    recipe = settings.prune | settings.mode
    rungs = rung({}), rung(settings.prune, 0.9, 2.0, 400), rung(recipe, 0.9, 4.0, 400)

    assert said(recipe, *rungs) == (
        "trial 3 is structured 0.5 + onnxruntime: 4x faster as one process, accuracy -8.0 points, 2.5x smaller; "
        "step by step: structured 0.5 (2x faster, accuracy -8.0 points, 2.5x smaller), then onnxruntime (2x faster)"
    )


def test_a_step_that_was_not_measured_is_told_with_the_next_and_a_command_tells_more(rung, settings):
    """A part of it may be known alone. Gains do not multiply, so nothing is inferred."""
    recipe = settings.prune | settings.train | settings.mode | settings.dtype
    rungs = (
        rung({}),
        rung(settings.mode, speedup=3.0),
        rung(recipe, speedup=6.0),
        rung(settings.prune | settings.train, speedup=2.0),
    )

    assert said(recipe, *rungs) == (
        "trial 3 is structured 0.5 + 4 epochs + int8_static + onnxruntime: 6x faster as one process; "
        "step by step: structured 0.5 + 4 epochs together (2x faster), then onnxruntime + int8_static together (3x faster); "
        "alone: onnxruntime (3x faster); each knob apart: autocut explain studies/digits 3"
    )


def test_one_knob_is_the_whole(rung, settings):
    """There are no steps."""
    assert said(settings.mode, rung({}), rung(settings.mode)) == "trial 3 is onnxruntime alone: no sure change"
    assert (
        said(settings.mode, rung({}), rung(settings.mode, speedup=0.5)) == "trial 3 is onnxruntime alone: 2x slower as one process"
    )


def test_a_metric_that_is_no_share_has_no_points(rung, settings):
    """An error in kilometres stays one."""
    before, after = rung({}, accuracy=-12.0), rung(settings.mode, accuracy=-12.5, difference=Interval(-0.5, -0.6, -0.4))

    assert said(settings.mode, before, after) == "trial 3 is onnxruntime alone: accuracy -0.5"


def test_what_cannot_be_compared_is_only_named(rung, settings):
    """The untouched model turns nothing, and without it there is no effect."""
    assert "is the untouched model" in said(UNTOUCHED, rung({}))
    assert said(settings.mode, rung(settings.mode)) == "trial 3 is onnxruntime"

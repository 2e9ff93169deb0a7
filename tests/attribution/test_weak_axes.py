"""Which axes brought nothing in a study."""

import pytest

from autocut.attribution.evidence import Evidence
from autocut.attribution.weak_axes import axis_verdicts, weak_axes_sentence
from autocut.measurement import Interval


@pytest.fixture
def evidence(rung, settings):
    """Four trainings with and without a teacher, and each lowering of them: the teacher changes nothing, the mode is faster."""
    rungs = [rung({})]
    for epochs in (1, 2, 4, 8):
        plain = {**settings.prune, "train.epochs": epochs}
        rungs += [rung({**plain, **mode}, speedup=2.0 * speed) for mode, speed in (({}, 1.0), (settings.mode, 1.5))]
        rungs.append(rung({**plain, **settings.distill}, speedup=2.0))
    return Evidence({one.recipe: one for one in rungs}, {}, {})


def test_an_axis_that_was_compared_and_brought_nothing_is_named(evidence):
    """With the number of comparisons, because more of them may still find something."""
    assert weak_axes_sentence(evidence) == "brought nothing for sure in this study: distillation (4 comparisons)"


def test_one_sure_gain_is_enough(evidence, rung, settings):
    """An axis that helps one model is no weak axis; a gain that may be chance among many does not count."""
    recipe = next(recipe for recipe in evidence.known if recipe.changes("distill.loss"))
    plain = next(one for one in evidence.known if one["train.epochs"] == recipe["train.epochs"] and len(one) < len(recipe))
    for difference, is_named in ((Interval(0.01, 0.008, 0.012), False), (Interval(0.01, 0.0001, 0.02), True)):
        paired = Evidence(evidence.known, {(plain, recipe): difference}, {})
        assert ("distillation" in weak_axes_sentence(paired)) == is_named


def test_too_few_comparisons_say_nothing(rung, settings):
    """Nor does a study with one trial."""
    rungs = [rung({}), rung(settings.mode)]
    found = Evidence({one.recipe: one for one in rungs}, {}, {})

    assert weak_axes_sentence(found) == ""
    assert {verdict.stage: verdict.pairs for verdict in axis_verdicts(found)}["compile"] == 1

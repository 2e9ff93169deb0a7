"""A study goes on although its space has gained methods."""

from __future__ import annotations

from dataclasses import replace

from autocut.execution.resumed_space import left_out, space_document, space_of_study
from autocut.recipe import KEEP_FLOAT
from autocut.space import fit_space, load_space
from autocut.stages.methods import known_methods, unfit_methods
from autocut.study import create_study, stored_space
from tests.fakes import COST


def regression_space():
    """The default space, as a regression explores it."""
    return fit_space(load_space("default", known_methods()), unfit_methods("regression", is_pretrained=False))


def without(space, name):
    """The document of `space` before `name` was one of the losses."""
    return space_document(fit_space(space, {"distill.loss": [name]}))


def test_a_study_that_was_begun_without_a_method_goes_on_without_it():
    """Optuna's parameters keep their choices, and what is left out is named."""
    space = regression_space()
    stored = without(space, "mse")
    resumed = space_of_study(space, stored)

    assert space_document(resumed) == stored != space_document(space)
    assert resumed.axis("distill.alpha") is None
    assert left_out(space, resumed) == ["distill.loss mse"]


def test_a_study_that_was_begun_before_layers_could_stay_float_goes_on_without_them():
    """Its recipes kept none, which is what the new axis calls 0."""
    space = regression_space()
    before = replace(space, axes=tuple(axis for axis in space if axis.name != KEEP_FLOAT))
    resumed = space_of_study(space, space_document(before))

    assert resumed.axis(KEEP_FLOAT) is None
    assert left_out(space, resumed) == [f"{KEEP_FLOAT} 0", f"{KEEP_FLOAT} 4"]
    always = tuple(replace(axis, choices=(2, 4)) if axis.name == KEEP_FLOAT else axis for axis in space)
    assert space_of_study(changed := replace(space, axes=always), space_document(before)) is changed


def test_the_same_space_is_left_as_it_is():
    """Nothing is named."""
    space = regression_space()

    assert space_document(space_of_study(space, space_document(space))) == space_document(space)
    assert left_out(space, space) == []


def test_a_space_that_differs_in_more_than_new_choices_stays_as_asked_and_is_refused_later():
    """Another range, or a choice that the space has lost."""
    space = regression_space()
    ratio = space.axis("prune.ratio")
    moved = replace(space, axes=tuple(replace(axis, high=0.5) if axis is ratio else axis for axis in space))

    assert space_of_study(moved, space_document(space)) is moved
    smaller = fit_space(space, {"distill.loss": ["mse"]})
    assert space_of_study(smaller, space_document(space)) is smaller


def test_the_space_of_a_stored_study_is_read_without_opening_it(tmp_path):
    """None where there is no study yet, or nothing was measured in it."""
    assert stored_space(tmp_path / "none") is None
    document = space_document(regression_space())
    study = create_study(
        tmp_path / "study", name="tiny", task_fingerprint="f", space_json=document, objectives={"accuracy": "maximize"}, seed=0
    )
    assert stored_space(tmp_path / "study") is None
    study.set_reference(COST)
    study.close()

    assert stored_space(tmp_path / "study") == document

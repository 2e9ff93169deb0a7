"""The spaces that come with autocut, checked against the registered methods."""

from __future__ import annotations

import functools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autocut.recipe import Recipe
from autocut.space import load_space, shipped_spaces
from autocut.stages.methods import known_methods as import_methods

NAMES = ("default", "deploy-only", "gpu", "quantization-aware", "quick", "training-only")


known_methods = functools.cache(import_methods)


def draw(space, seed):
    """Draw a random recipe of `space`, axis by axis, as a sampler does."""
    source = random.Random(seed)
    settings = {}
    for axis in space:
        if space.is_active(axis, settings):
            steps = round((axis.high - axis.low) / axis.step) if axis.step else 0
            between = (
                axis.low + source.randint(0, steps) * axis.step if axis.step else source.uniform(axis.low or 0, axis.high or 0)
            )
            settings[axis.name] = source.choice(axis.choices) if axis.choices else between
    return Recipe(settings)


def test_the_shipped_spaces_are_found_from_any_directory(tmp_path, monkeypatch):
    """A wheel contains them; an editable install finds them in the repository."""
    monkeypatch.chdir(tmp_path)
    assert tuple(shipped_spaces()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_space_names_only_registered_methods(name):
    """Loading checks every name, range, condition and anchor."""
    space = load_space(name, known_methods())
    assert len(space.objectives) >= 2
    assert space.anchors
    assert space.description


@pytest.mark.parametrize("name", NAMES)
@given(seed=st.integers(0, 10_000))
def test_a_shipped_space_contains_whatever_is_drawn_from_it(name, seed):
    """Conditions, grids and recipes agree."""
    space = load_space(name, known_methods())
    assert space.why_not(draw(space, seed)) is None


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_space_contains_the_untouched_model(name):
    """The untouched model is the first baseline of every search."""
    assert load_space(name, known_methods()).contains(Recipe())


def test_the_training_space_charges_for_training():
    """This space is for a lower training bill."""
    assert "train_usd" in load_space("training-only", known_methods()).objectives

"""The study of selection bias: what it plants, and that the code under study sees it as it should."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

FILE = Path(__file__).parents[2] / "studies" / "selection_bias" / "measure.py"


@pytest.fixture(scope="module")
def study():
    """The study's functions."""
    spec = importlib.util.spec_from_file_location("selection_bias_measure", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_candidates_have_the_untouched_models_true_accuracy_and_most_of_its_answers(study):
    """They differ by noise alone: in about 0.1 x 2 x 0.9 x 0.1 of the answers."""
    answers = study._answers(np.random.default_rng(0), 50, 4000)

    assert answers.shape == (51, 4000)
    assert answers[1:].mean() == pytest.approx(study.TRUE_ACCURACY, abs=0.01)
    assert (answers[1:] != answers[0]).mean() == pytest.approx(0.018, abs=0.003)


def test_the_best_of_many_looks_too_good_on_validation_and_nothing_was_won(study, tmp_path):
    """Four small repeats: validation is above the truth by more than the test split is, and each says that nothing was won."""
    repeats = [study.repeat(seed, tmp_path / str(seed), candidates=40, examples=500) for seed in range(4)]

    chosen, _ = study.summarize([one.best_validation_error for one in repeats])
    reported, _ = study.summarize([one.best_test_error for one in repeats])
    assert chosen > reported
    assert [one.tells_nothing_was_won for one in repeats] == [True] * 4
    assert [one.false_win for one in repeats] == [False] * 4

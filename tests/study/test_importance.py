"""Which settings separate the best trials from the others."""

import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution

from autocut.errors import NoResultError
from autocut.measurement import Accuracy, Cost, Interval, Latency, Measurement
from autocut.recipe import Recipe
from autocut.study import create_study
from autocut.study.importance import FEWEST_TRIALS, importances

ONE = Interval(1.0, 1.0, 1.0)
COST = Cost((Latency(1, 64, ONE, None, None, 1.0, ONE, 1.0),), 5, 4, 1, 1.0, "here")
MEASUREMENT = Measurement(Accuracy("validation", 10, ONE), COST)
MODES = ["eager", "onnxruntime"]
WHEN = ["before_training", "after_training"]
SPACE = {
    "prune.when": CategoricalDistribution(WHEN),
    "prune.ratio": FloatDistribution(0.0, 1.0),
    "train.lr_scale": FloatDistribution(0.0, 1.0),
    "compile.mode": CategoricalDistribution(MODES),
}


@pytest.fixture
def study(tmp_path):
    """An open study of accuracy and size without trials."""
    opened = create_study(
        tmp_path / "study", name="tiny", task_fingerprint="t", space_json="{}", seed=0,
        objectives={"accuracy": "maximize", "size_bytes": "minimize"},
    )  # fmt: skip
    yield opened
    opened.close()


def add(study, count, values, violation=0.0, seed=0):
    """Add random trials; `values(params)` gives accuracy and size."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        params = {
            "prune.when": str(rng.choice(WHEN)),
            "prune.ratio": rng.random(),
            "train.lr_scale": rng.random(),
            "compile.mode": str(rng.choice(MODES)),
        }
        accuracy, size = values(params)
        found = {"accuracy": accuracy, "size_bytes": size}
        study.complete(None, Recipe(), params, SPACE, found, MEASUREMENT, {"limit": violation})


def planted(params):
    """Accuracy comes from the learning rate alone, size from pruning alone."""
    return 1 - abs(params["train.lr_scale"] - 0.3), 100 * (1 - params["prune.ratio"])


def test_the_setting_that_was_planted_comes_first(study):
    """For each value another one; high accuracy is good, a large size is not."""
    add(study, 60, planted)
    accuracy, size = importances(study)

    assert (accuracy.value, accuracy.trials, accuracy.best) == ("accuracy", 60, 6)
    assert next(iter(accuracy.shares)) == "train.lr_scale"
    assert accuracy.shares["train.lr_scale"] > 0.6
    assert next(iter(size.shares)) == "prune.ratio"
    assert sum(accuracy.shares.values()) == pytest.approx(1.0)


def test_cost_is_not_put_down_to_training(study):
    """Settings that come together look alike, but cost does not depend on weights."""
    add(study, 40, lambda params: (0.5, 100 * (1 - params["train.lr_scale"])))
    (size,) = importances(study)

    assert size.value == "size_bytes", "all accuracies are equal"
    assert not {"train.lr_scale", "prune.when"} & size.shares.keys()


def test_trials_that_break_a_limit_do_not_count(study):
    """The smallest ones are broken: they would be the best."""
    add(study, FEWEST_TRIALS, planted)
    before = importances(study)
    add(study, 20, lambda params: (0.0, 0.0), violation=1.0, seed=1)

    assert importances(study) == before


def test_too_few_trials_are_refused(study):
    """Chance would look like a reason."""
    add(study, FEWEST_TRIALS - 1, planted)

    with pytest.raises(NoResultError, match=f"at least {FEWEST_TRIALS} measured trials within the limits, got {FEWEST_TRIALS - 1}"):
        importances(study)


def test_trials_that_are_all_alike_are_refused(study):
    """There is nothing to tell apart."""
    add(study, FEWEST_TRIALS, lambda params: (0.5, 1.0))

    with pytest.raises(NoResultError, match="all alike"):
        importances(study)


def test_it_is_the_same_every_time(study):
    """Nothing in it is random."""
    add(study, 30, planted)

    assert importances(study) == importances(study)

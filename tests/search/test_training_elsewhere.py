"""When a node that only trains is to train for a job."""

from types import SimpleNamespace

import pytest

from autocut.recipe import Recipe
from autocut.search.estimates import is_worth_training_elsewhere
from autocut.search.jobs import Job, JobKind

TRAINED = Recipe({"train.epochs": 2, "train.lr_scale": 1.0})
ORT = TRAINED.with_lowering("fp32", "onnxruntime")


@pytest.mark.parametrize(
    ("kind", "recipes", "train_s", "is_free", "worth"),
    [
        ("measure", (TRAINED, ORT), 5.0, False, True),
        ("measure", (TRAINED, ORT), 5.0, True, True),
        ("measure", (TRAINED, ORT), 2.0, True, False),  # two lowerings share one training of two seconds
        ("measure", (TRAINED, ORT), 2.0, False, True),
        ("measure", (Recipe(),), 5.0, False, False),
        ("price", (TRAINED,), 5.0, False, False),
    ],
)
def test_a_training_goes_elsewhere_where_that_saves_time(kind, recipes, train_s, is_free, worth):
    """A free node would begin at once, and another process takes three seconds to start."""
    planner = SimpleNamespace(process_s=lambda: 3.0, train_s=lambda recipe: train_s)
    job = Job(1, JobKind(kind), recipes, 0.0, "test")

    assert is_worth_training_elsewhere(SimpleNamespace(planner=planner, trained=set()), job, is_free) is worth
    assert not is_worth_training_elsewhere(SimpleNamespace(planner=planner, trained={TRAINED.prefix}), job, is_free)

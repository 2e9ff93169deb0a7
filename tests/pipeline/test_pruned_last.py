"""Trained first, then pruned: the stages of both orders."""

from __future__ import annotations

import pytest
import torch

from autocut.errors import InfeasibleRecipeError
from autocut.recipe import Recipe
from autocut.stages.prune import PruneData, pruners
from autocut.task.batches import take

TRAINING = Recipe({"train.epochs": 1, "train.lr_scale": 0.5, "distill.loss": "kl", "distill.temperature": 2.0})
CUTS = [("structured", 0.25), ("structured", 0.75), ("structured_taylor", 0.5), ("l1_unstructured", 0.5), ("low_rank", 0.5)]


def cut(method, ratio, when="after_training"):
    """The training with a cut."""
    return Recipe({**TRAINING, "prune.method": method, "prune.ratio": ratio, "prune.when": when})


def test_every_cut_starts_from_one_training(make_pipeline):
    """Of the whole model, which is also a model by itself. It is made once, and each model is charged for it."""
    pipeline, made = make_pipeline()
    models = [pipeline.prefix(cut(method, ratio)) for method, ratio in CUTS]
    whole = pipeline.prefix(TRAINING)

    assert (made.count("train"), made.count("prune")) == (1, len(CUTS))
    assert len({model.key for model in models}) == len(CUTS)
    for model in models:
        assert model.lineage[:-1] == whole.lineage
        assert model.samples_seen == whole.samples_seen
        assert model.train_seconds > whole.train_seconds


@pytest.mark.parametrize(("method", "ratio"), CUTS)
def test_the_cut_is_that_of_the_trained_model(make_pipeline, method, ratio):
    """Oracle: the pruner by itself, on the whole model's trained weights. Nothing changes the weights after it."""
    pipeline, _ = make_pipeline()
    whole, task = pipeline.prefix(TRAINING).model, pipeline.runner.context.task
    batches = pipeline.runner.context.samples.batches(8, task.batch_size)
    alone = pruners[method](whole, ratio, PruneData(take(batches[0][0], 2), batches, task.metric_kind.loss, whole))

    made = pipeline.prefix(cut(method, ratio))
    torch.testing.assert_close(made.model.state_dict(), alone.model.state_dict(), rtol=0, atol=0)
    assert made.masks.keys() == alone.masks.keys()


@pytest.mark.parametrize(("method", "ratio"), [one for one in CUTS if one[0] != "l1_unstructured"])
def test_both_orders_have_one_structure_which_is_timed_once(make_pipeline, method, ratio):
    """Tensors of the same shapes. Zeros that are scattered over a matrix lie elsewhere, but as many."""
    pipeline, made = make_pipeline()
    first, last = pipeline.prefix(cut(method, ratio, "before_training")), pipeline.prefix(cut(method, ratio))
    assert first.key != last.key
    assert first.structure == last.structure

    costs = [pipeline.cost(model, "fp32", "eager") for model in (first, last)]
    assert costs[0] == costs[1]
    assert made.count("cost") == 2  # the untouched model's, and this one


def test_a_ratio_that_removes_nothing_is_infeasible_after_a_training_too(make_pipeline):
    """A knob that changed nothing is an error, in either order."""
    pipeline, _ = make_pipeline()
    with pytest.raises(InfeasibleRecipeError, match=r"prune.ratio 1e-05"):
        pipeline.prefix(cut("structured", 1e-5))

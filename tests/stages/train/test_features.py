"""Distillation from features: what is compared, between which layers, and what cannot be compared."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from autocut.errors import InfeasibleRecipeError
from autocut.stages.train import Teacher, feature_losses, train_model
from autocut.stages.train.features import last_layer
from autocut.stages.train.teacher import run_teacher

SIMILARITY = {
    "train.epochs": 4,
    "train.lr_scale": 5.0,
    "distill.loss": "kl",
    "distill.alpha": 0.5,
    "distill.features": "similarity",
}


def narrow(seed: int) -> nn.Module:
    """The blob task's model with a quarter of its width."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 3))


def test_similarity_is_that_of_the_paper():
    """Two examples, by hand: rows of the products (1, 1), (1, 2) and (1, 0), (0, 1), scaled to length 1."""
    student, teacher = torch.tensor([[1.0, 0.0], [1.0, 1.0]]), torch.eye(2)
    half, fifth = 2**-0.5, 5**-0.5
    rows = [(half - 1) ** 2 + half**2, fifth**2 + (2 * fifth - 1) ** 2]

    found = feature_losses["similarity"](student, teacher)

    torch.testing.assert_close(found, torch.tensor(3 * sum(rows) / 2))


def test_only_relations_between_examples_count():
    """Features of another width, turned and scaled, are as good; others are not. The rest of the shape does not matter."""
    torch.manual_seed(0)
    features = torch.randn(6, 4)
    turned = 3 * torch.cat([features, torch.zeros(6, 5)], dim=1) @ torch.linalg.qr(torch.randn(9, 9))[0]
    compare = feature_losses["similarity"]

    torch.testing.assert_close(compare(turned.view(6, 3, 3), features), torch.tensor(0.0), atol=1e-5, rtol=0)
    assert compare(torch.randn(6, 4), features) > 0.1


def test_the_last_layer_is_the_one_that_is_called_last():
    """Not the one that is defined last."""

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.head, self.body = nn.Linear(4, 2), nn.Conv1d(1, 1, 3, padding=1)

        def forward(self, inputs):
            return self.head(self.body(inputs[:, None])[:, 0]).softmax(1)

    model = Model().train()

    assert last_layer(model, torch.randn(3, 4)) == "head"
    assert model.training
    with pytest.raises(InfeasibleRecipeError, match=r"distill\.features needs a linear or convolutional layer"):
        last_layer(nn.ReLU(), torch.randn(3, 4))


def test_a_narrow_student_gets_features_like_its_teachers(task):
    """More than one that is taught by outputs alone: on other examples too."""
    teacher = train_model(task.build_model(), task, {"train.epochs": 6, "train.lr_scale": 5.0}).model
    inputs, _ = next(iter(task.loader(task.validation_data, 32)))

    def unlike(settings) -> float:
        """How far a student's features are from the teacher's, before their last layers."""
        losses = []
        for seed in range(3):
            student = train_model(narrow(seed), task, settings, teacher=Teacher(teacher), seed=seed).model
            losses.append(feature_losses["similarity"](run_teacher(student[:4], inputs), run_teacher(teacher[:4], inputs)))
        return float(torch.stack(losses).mean())

    assert unlike(SIMILARITY) < 0.8 * unlike({**SIMILARITY, "distill.features": "none"})


def test_the_teacher_is_left_as_it_was(task):
    """Neither trained nor watched afterwards; and a training that goes on from a checkpoint is the same one."""
    teacher = task.build_model(seed=5)
    before = copy.deepcopy(teacher.state_dict())

    one, other = (train_model(task.build_model(), task, SIMILARITY, teacher=Teacher(teacher)).model for _ in range(2))

    torch.testing.assert_close(one.state_dict(), other.state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(teacher.state_dict(), before, rtol=0, atol=0)
    assert not any(layer._forward_pre_hooks for model in (teacher, one) for layer in model.modules())


class TimeFirst(nn.Module):
    """(n, 8) -> (n, 3); what goes into its last layer has eight steps first."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(1, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        """Take the mean over the steps after the last layer."""
        return self.head(inputs.T[:, :, None]).mean(0)


@pytest.mark.parametrize("student", [True, False])
def test_features_without_the_examples_first_are_refused(make_task, student):
    """Before the first step, for the student and for its teacher."""
    task, models = make_task(model=TimeFirst), (TimeFirst(), narrow(0))
    model, teacher = models if student else models[::-1]

    with pytest.raises(InfeasibleRecipeError, match=rf"last layer of {'the model' if student else 'its teacher'}, got the shape"):
        train_model(model, task, SIMILARITY, teacher=Teacher(teacher))

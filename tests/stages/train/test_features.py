"""Distillation from features: what is compared, between which layers, and what cannot be compared."""

from __future__ import annotations

import contextlib
import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from autocut.errors import InfeasibleRecipeError
from autocut.stages.train import CPU, Teacher, feature_losses, train_model
from autocut.stages.train.features import FeatureDistillation, FeaturePairs, feature_pairs, last_layer
from autocut.stages.train.teacher import run_teacher

SIMILARITY = {
    "train.epochs": 4,
    "train.lr_scale": 5.0,
    "distill.loss": "kl",
    "distill.alpha": 0.5,
    "distill.features": "similarity",
}


HINT = {**SIMILARITY, "distill.features": "hint"}


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


@pytest.mark.parametrize("name", feature_losses.names())
def test_a_feature_loss_is_a_scalar_that_leaves_its_inputs_alone(name):
    """It has a gradient, and is 0 for the teacher's own features; widths differ where the method asks for no adapter."""
    torch.manual_seed(0)
    teacher = torch.randn(6, 4, 3)
    student = torch.randn(6, 4, 3 if feature_losses.method(name).options.adapts else 5, requires_grad=True)
    before = student.detach().clone(), teacher.clone()

    loss = feature_losses[name](student, teacher)

    assert (loss.shape, loss.item() > 0, loss.requires_grad) == ((), name != "none", name != "none")
    torch.testing.assert_close((student.detach(), teacher), before, rtol=0, atol=0)
    torch.testing.assert_close(feature_losses[name](teacher, teacher), torch.tensor(0.0), rtol=0, atol=1e-6)


def test_a_hint_is_the_share_of_the_teachers_square_that_is_missed():
    """By hand; scaling both changes nothing, and a teacher of zeros gives a number."""
    student, teacher = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0]])
    compare = feature_losses["hint"]

    torch.testing.assert_close(compare(student, teacher), torch.tensor(8 / 25))
    torch.testing.assert_close(compare(10 * student, 10 * teacher), torch.tensor(8 / 25))
    assert compare(0 * student, 0 * teacher) == 0


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


def test_a_hint_teaches_the_student_and_its_adapter(make_task):
    """Steps on this loss alone bring the features near the teacher's: nearer than an adapter does by itself."""
    task = make_task(features={"2": "2"})
    teacher, (inputs, _) = task.build_model(seed=5), next(iter(task.loader(task.train_data, 97)))

    def left(learns: bool) -> float:
        student = narrow(0).requires_grad_(learns)
        distillation = FeatureDistillation(pairs_of(task, student, teacher), HINT, student, Teacher(teacher), CPU, seed=0)
        trained = [*student.parameters(), *distillation.adapters.parameters()]
        optimizer = torch.optim.Adam([parameter for parameter in trained if parameter.requires_grad], lr=0.03)
        for _ in range(100):
            with distillation.watching():
                student(inputs)
            loss = distillation.loss(inputs)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return loss.item()

    assert left(learns=True) < 0.9 * left(learns=False) < 0.9


@pytest.mark.parametrize("settings", [SIMILARITY, HINT])
def test_the_teacher_is_left_as_it_was(task, settings):
    """Neither trained nor watched afterwards; and the same training has the same weights."""
    teacher = task.build_model(seed=5)
    before = copy.deepcopy(teacher.state_dict())

    one, other = (train_model(narrow(0), task, settings, teacher=Teacher(teacher)).model for _ in range(2))

    assert one.state_dict().keys() == narrow(0).state_dict().keys()

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


def test_a_training_with_a_hint_that_was_killed_goes_on_to_the_same_weights(task, tmp_path):
    """The adapter is in the checkpoint, as the optimizer's state for it is."""
    teacher, path = Teacher(task.build_model(seed=5)), tmp_path / "checkpoint.pt"
    through = train_model(narrow(0), task, HINT, teacher=teacher).model

    def die(epoch) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_model(narrow(0), task, HINT, teacher=teacher, checkpoint=path, on_epoch=die)
    first = torch.load(path, weights_only=True)["adapters"]
    resumed = train_model(narrow(0), task, HINT, teacher=teacher, checkpoint=path).model
    last = torch.load(path, weights_only=True)["adapters"]

    torch.testing.assert_close(resumed.state_dict(), through.state_dict(), rtol=0, atol=0)
    assert first.keys() == last.keys() == {"0.weight", "0.bias"}
    assert not any(torch.equal(first[name], last[name]) for name in first)


class Narrow(nn.Module):
    """A student whose layers have names of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(8, 6), nn.Linear(6, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits."""
        return self.head(self.body(inputs).relu())


def pairs_of(task, model: nn.Module, teacher: nn.Module, settings=HINT) -> FeaturePairs:
    """The layers that a training of `model` compares."""
    return feature_pairs(settings, model, task, Teacher(teacher), contextlib.nullcontext)


def test_each_model_uses_the_named_layers_that_it_has(make_task):
    """A cut model keeps the names of the model; a student has others; one that has none of them cannot be taught so."""
    task = make_task(features={"0": "1", "2": "2", "body": "2"})
    teacher = task.build_model()

    assert pairs_of(task, narrow(0), teacher) == FeaturePairs((("0", "1"), ("2", "2")), (((8,), (32,)),) * 2, at_inputs=False)
    assert pairs_of(task, Narrow(), teacher) == FeaturePairs((("body", "2"),), (((6,), (32,)),), at_inputs=False)
    assert pairs_of(make_task(), Narrow(), teacher) == FeaturePairs((("head", "4"),), (((6,), (32,)),), at_inputs=True)
    assert pairs_of(task, Narrow(), teacher, {}) == FeaturePairs()
    with pytest.raises(
        InfeasibleRecipeError, match=r"needs a layer of task\.features in the model that is trained, got none of 0, 2"
    ):
        pairs_of(task, nn.ModuleDict({"other": nn.Linear(8, 3)}), teacher)


def test_named_layers_are_compared_at_what_they_give(make_task):
    """The loss is the mean over the pairs: here the oracle computes the layers by itself."""
    task = make_task(features={"0": "0", "2": "2"})
    student, teacher = task.build_model(seed=1), task.build_model(seed=2)
    pairs, (inputs, _) = pairs_of(task, student, teacher), next(iter(task.loader(task.train_data, 16)))
    distillation = FeatureDistillation(pairs, HINT, student, Teacher(teacher), CPU, seed=0)

    with distillation.watching():
        student(inputs)
    expected = [feature_losses["hint"](student[:end](inputs), teacher[:end](inputs)) for end in (1, 3)]

    torch.testing.assert_close(distillation.loss(inputs), torch.stack(expected).mean())
    assert not list(distillation.adapters.parameters())  # widths agree


@pytest.mark.parametrize("shapes", [((4, 5, 5), (6, 5, 5)), ((7, 4), (7, 6)), ((4,), (6,))])
def test_an_adapter_brings_channels_tokens_and_rows_to_the_teachers_width(shapes):
    """Channels as a convolution of size 1 does, the last dimension as a linear layer does."""
    own, wanted = map(torch.Size, shapes)
    pairs = FeaturePairs((("0", "0"),), ((own, wanted),))
    (adapter,) = FeatureDistillation(pairs, HINT, nn.Sequential(nn.ReLU()), Teacher(nn.Sequential(nn.ReLU())), CPU, seed=0).adapters
    features = torch.randn(3, *own)

    by_hand = (
        functional.conv2d(features, adapter.weight[:, :, None, None], adapter.bias)
        if len(own) == 3
        else functional.linear(features, adapter.weight, adapter.bias)
    )
    torch.testing.assert_close(adapter(features), by_hand)
    assert adapter(features).shape == (3, *wanted)


def test_features_of_another_size_are_infeasible_for_a_hint_alone(make_task):
    """A linear map of widths cannot make pixels; similarities need no such map."""

    class Pictures(nn.Module):
        def __init__(self, stride: int) -> None:
            super().__init__()
            self.body, self.head = nn.Conv2d(1, 4 * stride, 3, stride, 1), nn.Linear(4 * stride, 3)

        def forward(self, images: Tensor) -> Tensor:
            return self.head(self.body(images).mean((2, 3)))

    images = {name: (torch.randn(40, 1, 8, 8), torch.arange(40) % 3) for name in ("train", "validation", "test")}
    task = make_task(model=lambda: Pictures(1), features={"body": "body"}, **images)
    with pytest.raises(
        InfeasibleRecipeError, match=r"differ from the teacher's in width alone, got \(8, 4, 4\) beside \(4, 8, 8\)"
    ):
        train_model(Pictures(2), task, HINT, teacher=Teacher(Pictures(1)))
    train_model(Pictures(2), task, {**SIMILARITY, "train.epochs": 1}, teacher=Teacher(Pictures(1)))


def test_a_teacher_that_takes_no_smaller_inputs_keeps_them_whole(make_task):
    """It would run beside the student at each step; a teacher whose answers alone count sees whole inputs."""

    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(1, 3)

        def forward(self, images: Tensor) -> Tensor:
            return self.head(images.mean((2, 3)))

    flat = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    images = {name: (torch.randn(40, 1, 8, 8), torch.arange(40) % 3) for name in ("train", "validation", "test")}
    task, growing = make_task(model=Pooled, **images), {**SIMILARITY, "train.input_growth": "progressive_resizing"}
    with pytest.raises(
        InfeasibleRecipeError,
        match=r"^distill\.features with .* needs a teacher that takes inputs \(n, 1, 4, 4\), got RuntimeError",
    ):
        train_model(Pooled(), task, growing, teacher=Teacher(flat))
    train_model(Pooled(), task, {**growing, "distill.features": "none"}, teacher=Teacher(flat))
    train_model(Pooled(), task, growing, teacher=Teacher(Pooled()))

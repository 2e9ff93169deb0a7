"""The trainer: it learns, it can be repeated, stopped and resumed, and it keeps its promises about masks and samples."""

from __future__ import annotations

import contextlib
import copy
import random
import time
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from autocut.errors import DeadlineError, DivergedError, InfeasibleRecipeError, StudyError
from autocut.stages.prune import PruneData, pruners
from autocut.stages.train import Teacher, curricula, distillations, orders, teacher_logits, train_model, trainer
from autocut.stages.train.loss import TrainingLoss, counted
from autocut.stages.train.plan import DEFAULTS
from autocut.task.kinds import Meaning


class SleepyOptimizer(torch.optim.SGD):
    """Waits in every step, as for a disk."""

    def __init__(self, parameters) -> None:
        super().__init__(parameters, lr=0.1)

    def step(self, closure=None):
        """Step late."""
        time.sleep(0.05)
        return super().step(closure)


@pytest.fixture
def model(task):
    """The blob task's untrained model."""
    return task.build_model()


def assert_same_weights(left: nn.Module, right: nn.Module) -> None:
    """Equal to the last bit, buffers included."""
    torch.testing.assert_close(left.state_dict(), right.state_dict(), rtol=0, atol=0)


def accuracy(model: nn.Module, task) -> float:
    """Share of right answers on the validation split."""
    inputs, labels = next(iter(task.loader(task.validation_data, 32)))
    return float((model(inputs).argmax(1) == labels).float().mean())


def test_training_learns_and_leaves_its_input_alone(task, model):
    """The copy gets better, the given model stays."""
    before = copy.deepcopy(model)
    trained = train_model(model, task, {"train.epochs": 8, "train.lr_scale": 5.0})

    assert_same_weights(model, before)
    assert not trained.model.training
    assert accuracy(trained.model, task) > max(0.7, accuracy(model, task))
    assert trained.history[-1].train_loss < trained.history[0].train_loss


def test_samples_are_counted(task, model):
    """97 examples in batches of 16 leave one over, which batch normalization cannot train on."""
    trained = train_model(model, task, {"train.epochs": 2})

    assert trained.samples_seen == 2 * 96
    assert [record.samples_seen for record in trained.history] == [96, 192]
    assert trained.seconds == trained.history[-1].seconds > 0


def test_no_epochs_change_nothing(task, model):
    """Zero epochs are no training."""
    trained = train_model(model, task, {})

    assert_same_weights(trained.model, model)
    assert (trained.samples_seen, trained.history) == (0, ())


@pytest.mark.parametrize("schedule", curricula.names())
@pytest.mark.parametrize("order", orders.names())
def test_the_same_seed_gives_the_same_weights(task, model, schedule, order):
    """Whatever the global random state is, and it is left as it was."""
    settings = {"train.epochs": 2, "curriculum.schedule": schedule, "curriculum.order": order}
    difficulty = np.linspace(1, 0, 97)
    first = train_model(model, task, settings, difficulty=difficulty, seed=3).model
    torch.manual_seed(99)
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    second = train_model(model, task, settings, difficulty=difficulty, seed=3).model

    assert_same_weights(first, second)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == states[1:]


def test_another_seed_gives_other_weights(task, model):
    """The seed decides something."""
    one, other = (train_model(model, task, {"train.epochs": 1}, seed=seed).model for seed in (0, 1))
    assert not torch.equal(one[0].weight, other[0].weight)


@pytest.mark.parametrize("schedule", [name for name in curricula.names() if name != "none"])
def test_the_random_control_sees_as_many_samples_at_every_epoch(task, model, schedule):
    """Otherwise a gain of the order would be a gain of less data."""
    settings = {"train.epochs": 4, "curriculum.schedule": schedule, "curriculum.start": 0.3}
    easy, control = (
        train_model(model, task, {**settings, "curriculum.order": order}, difficulty=np.random.default_rng(0).random(97))
        for order in ("easy_first", "random")
    )

    assert [record.samples_seen for record in easy.history] == [record.samples_seen for record in control.history]
    assert easy.samples_seen < 4 * 96
    assert not torch.equal(easy.model[0].weight, control.model[0].weight)


def test_easy_examples_come_first(make_task, model):
    """Over the first 40% of its samples, a step reads the easiest examples alone; then any."""
    task = make_task(train=(torch.arange(97.0).repeat(8, 1).T, torch.zeros(97, dtype=torch.long)))
    read = []
    seeing = nn.Sequential(nn.BatchNorm1d(8), *model)
    hook = seeing[0].register_forward_pre_hook(lambda module, inputs: read.extend(inputs[0][:, 0].tolist()))
    settings = {"train.epochs": 2, "curriculum.schedule": "step", "curriculum.start": 0.33}
    trained = train_model(seeing, task, settings, difficulty=np.arange(97)[::-1].copy())
    hook.remove()

    easy_part = read[: int(0.38 * trained.samples_seen)]
    assert sorted(easy_part[:32]) == list(range(65, 97))
    assert easy_part[:32] != sorted(easy_part[:32])
    assert min(easy_part) == 65
    assert min(read) < 10


def test_masks_stay_zero_through_training(task, model):
    """Weight decay and momentum must not bring pruned weights back; the others move."""
    inputs, _ = next(iter(task.loader(task.train_data, 16)))
    pruned = pruners["l1_unstructured"](model, 0.5, PruneData(inputs, [], task.metric_kind.loss))
    trained = train_model(pruned.model, task, {"train.epochs": 2}, masks=pruned.masks).model

    for name, mask in pruned.masks.items():
        before, after = pruned.model.get_parameter(name), trained.get_parameter(name)
        assert not after[~mask].any()
        assert (after[mask] != before[mask]).all()


@pytest.mark.parametrize("name", [loss.name for loss in distillations if loss.options.meaning is Meaning.CLASSES])
def test_distillation_brings_the_student_to_the_teacher(task, model, name):
    """At alpha 1 the labels do not count: the student answers as the teacher does."""
    teacher = train_model(model, task, {"train.epochs": 6, "train.lr_scale": 5.0}).model
    settings = {"train.epochs": 20, "train.lr_scale": 10.0, "distill.loss": name, "distill.alpha": 1.0, "distill.temperature": 2.0}
    student = train_model(task.build_model(seed=7), task, settings, teacher=Teacher(teacher, teacher_logits(teacher, task))).model
    inputs, _ = next(iter(task.loader(task.validation_data, 32)))

    assert (student(inputs).argmax(1) == teacher(inputs).argmax(1)).float().mean() > 0.8


@pytest.mark.parametrize("name", [loss.name for loss in distillations if loss.options.meaning is Meaning.CLASSES])
def test_a_teacher_without_weight_teaches_nothing(task, model, name):
    """At alpha 0 the weights are those of the plain training, to the last bit."""
    taught, plain = (
        train_model(model, task, {"train.epochs": 2, "distill.loss": loss, "distill.alpha": 0}, teacher=Teacher(model)).model
        for loss in (name, "none")
    )

    assert_same_weights(taught, plain)


def test_alpha_that_decays_is_half_in_the_middle_and_ends_at_zero(task):
    """The oracle mixes the losses by hand."""
    settings = {**DEFAULTS, "distill.loss": "kl", "distill.alpha": 0.8, "distill.decay": "linear"}
    outputs, logits, targets = torch.randn(6, 3), torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 2])
    label, teacher = (
        TrainingLoss(task.metric_kind, {**DEFAULTS, "distill.loss": "kl", "distill.alpha": alpha})(outputs, targets, logits)
        for alpha in (0.0, 1.0)
    )
    mixed = [TrainingLoss(task.metric_kind, settings)(outputs, targets, logits, progress) for progress in (0.0, 0.5, 1.0)]

    torch.testing.assert_close(mixed, [0.2 * label + 0.8 * teacher, 0.6 * label + 0.4 * teacher, label])


def test_alpha_that_decays_changes_a_training(task, model):
    """From the first batch, but not before it."""
    settings = {"train.epochs": 2, "distill.loss": "kl"}
    steady, decaying = (
        train_model(model, task, settings | {"distill.decay": decay}, teacher=Teacher(task.build_model(seed=5))).model
        for decay in ("none", "linear")
    )

    assert not torch.equal(steady[0].weight, decaying[0].weight)


def test_stored_and_running_teachers_teach_alike(task, model):
    """The table is an optimization, found by position in the training set."""
    teacher = task.build_model(seed=5)
    settings = {"train.epochs": 2, "distill.loss": "kl"}
    stored = train_model(model, task, settings, teacher=Teacher(teacher, teacher_logits(teacher, task))).model
    running = train_model(model, task, settings, teacher=Teacher(teacher)).model

    torch.testing.assert_close(stored.state_dict(), running.state_dict(), rtol=1e-3, atol=1e-4)


def test_distillation_that_does_not_fit_the_kind_is_infeasible(make_task):
    """There is no distribution in a regression's output."""
    task = make_task(kind="regression", model=lambda: nn.Linear(8, 1), train=(torch.randn(20, 8), torch.randn(20, 1)))
    with pytest.raises(InfeasibleRecipeError, match="regression"):
        train_model(task.build_model(), task, {"train.epochs": 1, "distill.loss": "kl"}, teacher=Teacher(task.build_model()))


def test_distillation_that_does_not_fit_the_outputs_is_infeasible_before_the_first_step(make_task):
    """One logit for two classes is no distribution: the loss would be zero, or NaN, whatever the teacher says."""
    task = make_task(
        model=lambda: nn.Linear(8, 1), train=(torch.randn(20, 8), torch.ones(20)), loss=lambda outputs, targets: outputs.sum() * 0
    )
    stops = iter([])
    with pytest.raises(InfeasibleRecipeError, match=r"at least 2 classes, got \(2, 1\)"):
        train_model(
            task.build_model(), task, {"train.epochs": 1, "distill.loss": "kl"}, teacher=Teacher(nn.Linear(8, 1)),
            stop=lambda: next(stops),
        )  # fmt: skip


def test_looking_at_the_outputs_first_changes_no_weights(task, model, monkeypatch):
    """Neither random state nor batch statistics move."""
    settings = {"train.epochs": 1, "distill.loss": "kl"}
    looked = train_model(model, task, settings, teacher=Teacher(model)).model
    monkeypatch.setattr(trainer, "check_training", lambda *_: None)

    assert_same_weights(looked, train_model(model, task, settings, teacher=Teacher(model)).model)


def test_padding_is_not_distilled(make_task):
    """Positions that the task's loss ignores do not count."""
    tokens = torch.randint(0, 5, (24, 6))
    targets = tokens.clone()
    targets[:, 3:] = -100

    class Babbler(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(5, 5)

        def forward(self, x):
            return self.table(x)

    task = make_task(kind="language_modeling", model=Babbler, train=(tokens, targets), batch_size=8)
    student, teacher = task.build_model(seed=1), task.build_model(seed=2)
    table = teacher_logits(teacher, task)
    garbled = table.clone()
    garbled[:, 3:] = 100 * torch.randn(24, 3, 5)
    settings = {"train.epochs": 1, "distill.loss": "kl"}
    right, other = (train_model(student, task, settings, teacher=Teacher(teacher, logits)).model for logits in (table, garbled))

    assert_same_weights(right, other)


@pytest.mark.parametrize(("kind", "name", "width"), [("multilabel", "kl_sigmoid", 3), ("regression", "mse", 2)])
def test_labels_and_numbers_bring_the_student_to_the_teacher_too(make_task, kind, name, width):
    """Each by a loss of its own."""
    inputs = torch.randn(97, 8, generator=torch.Generator().manual_seed(4))
    targets = (inputs[:, :width] > 0.3).float() if kind == "multilabel" else inputs[:, :width]
    task = make_task(kind=kind, model=lambda: nn.Linear(8, width), train=(inputs, targets), validation=(inputs, targets))
    teacher, student = task.build_model(seed=5), task.build_model(seed=7)
    settings = {"train.epochs": 40, "train.lr_scale": 50.0, "distill.loss": name, "distill.alpha": 1.0, "distill.temperature": 2.0}
    taught = train_model(student, task, settings, teacher=Teacher(teacher, teacher_logits(teacher, task))).model

    assert (taught(inputs) - teacher(inputs)).abs().max() < 0.1


def test_pixels_are_distilled_over_their_classes_and_ignored_ones_are_not(make_task):
    """The classes are the second dimension of a picture's outputs, not the last."""
    pictures, targets = torch.randn(16, 1, 3, 5), torch.randint(0, 4, (16, 3, 5))
    targets[:, 2] = -100
    task = make_task(kind="segmentation", model=lambda: nn.Conv2d(1, 4, 1), train=(pictures, targets), batch_size=16)
    student, teacher = task.build_model(seed=1), task.build_model(seed=2)
    outputs, logits, _ = counted(student(pictures), teacher(pictures), targets, task.metric_kind)

    assert outputs.shape == logits.shape == (16 * 2 * 5, 4)
    torch.testing.assert_close(outputs[7], student(pictures)[0, :, 1, 2])
    train_model(student, task, {"train.epochs": 1, "distill.loss": "kl"}, teacher=Teacher(teacher))


@pytest.mark.parametrize("order", orders.names())
def test_a_killed_training_goes_on_to_the_same_weights(task, model, tmp_path, order):
    """The checkpoint holds all that matters; the time and the samples of before are kept."""
    settings = {"train.epochs": 4, "curriculum.schedule": "linear", "curriculum.order": order}
    train_model = partial(trainer.train_model, difficulty=np.linspace(1, 0, 97))
    through = train_model(model, task, settings, seed=2)
    told: list[int] = []

    def die_in_the_third(epoch) -> None:
        told.append(epoch.number)
        if epoch.number == 2:
            raise KeyboardInterrupt

    path = tmp_path / "checkpoint.pt"
    with pytest.raises(KeyboardInterrupt):
        train_model(model, task, settings, seed=2, checkpoint=path, on_epoch=die_in_the_third)
    resumed = train_model(model, task, settings, seed=2, checkpoint=path, on_epoch=lambda epoch: told.append(epoch.number))

    assert told == [1, 2, 2, 3, 4]
    assert_same_weights(resumed.model, through.model)
    assert resumed.samples_seen == through.samples_seen
    assert list(tmp_path.iterdir()) == [path]


def test_a_training_counts_its_cpu_seconds_and_not_those_of_a_slow_disk(make_task, model, monkeypatch):
    """What it is charged must not depend on who else works meanwhile."""
    task = make_task(epochs=1)
    monkeypatch.setattr(type(task), "build_optimizer", lambda self, parameters: SleepyOptimizer(parameters))
    trained = train_model(model, task, {"train.epochs": 1})

    assert 0 < trained.cpu_seconds < trained.seconds / 2
    assert trained.cpu_seconds == trained.history[-1].cpu_seconds


def test_a_checkpoint_of_an_earlier_autocut_counts_its_wall_seconds(task, model, tmp_path):
    """It knows nothing of CPU seconds; a training that was interrupted by the upgrade goes on."""
    path = tmp_path / "checkpoint.pt"
    trained = train_model(model, task, {"train.epochs": 2}, checkpoint=path)
    state = torch.load(path, weights_only=True)
    state["history"] = [{name: value for name, value in record.items() if name != "cpu_seconds"} for record in state["history"]]
    torch.save(state, path)

    assert train_model(model, task, {"train.epochs": 2}, checkpoint=path).cpu_seconds == trained.seconds


@pytest.mark.parametrize("change", [{"seed": 1}, {"settings": {"train.epochs": 2, "train.lr_scale": 2.0}}])
def test_a_checkpoint_of_other_settings_is_refused(task, model, tmp_path, change):
    """Going on from another training would make the stage key lie."""
    path = tmp_path / "checkpoint.pt"
    arguments = {"settings": {"train.epochs": 2}, "seed": 0}
    train_model(model, task, **arguments, checkpoint=path)
    with pytest.raises(StudyError, match="other settings"):
        train_model(model, task, **{**arguments, **change}, checkpoint=path)


def test_a_damaged_checkpoint_is_told(task, model, tmp_path):
    """Subject, rule, and what to type."""
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(StudyError, match="cannot be read") as caught:
        train_model(model, task, {"train.epochs": 1}, checkpoint=path)
    assert caught.value.hint == f"delete {path}"


def test_training_stops_at_a_batch_boundary(task, model, tmp_path):
    """The deadline is consulted before every batch; whole epochs stay on disk."""
    asked = iter([False] * 8 + [True])
    path = tmp_path / "checkpoint.pt"
    with pytest.raises(DeadlineError, match="epoch 2 of 3, after 32 of 96"):
        train_model(model, task, {"train.epochs": 3}, checkpoint=path, stop=lambda: next(asked))
    assert path.exists()


def test_every_batch_passes_the_gate(task, model):
    """Another process may hold the machine between two batches, and the wait is not training time."""
    entered = []

    @contextlib.contextmanager
    def gate():
        entered.append(True)
        yield

    train_model(model, task, {"train.epochs": 2}, gate=gate)
    assert len(entered) == 2 * 6


def test_a_loss_that_is_not_finite_ends_the_trial(make_task, model):
    """With the place where it happened."""
    task = make_task(loss=lambda outputs, targets: outputs.sum() * torch.inf)
    with pytest.raises(DivergedError, match="after 0 samples"):
        train_model(model, task, {"train.epochs": 1})


def test_a_callback_sees_the_model_in_eval_mode_and_changes_nothing(task, model):
    """Evaluating at a rung must not alter the training that goes on."""
    seen = []

    def evaluate(epoch) -> None:
        seen.append((epoch.number, epoch.epochs, epoch.model.training))
        epoch.model(torch.randn(4, 8))
        torch.rand(3)

    watched = train_model(model, task, {"train.epochs": 2}, on_epoch=evaluate).model

    assert seen == [(1, 2, False), (2, 2, False)]
    assert_same_weights(watched, train_model(model, task, {"train.epochs": 2}).model)


def test_frozen_parameters_do_not_move(task, model):
    """The user froze them."""
    model[0].weight.requires_grad_(False)
    trained = train_model(model, task, {"train.epochs": 1}).model
    assert torch.equal(trained[0].weight, model[0].weight)


@pytest.mark.parametrize("name", ["structured", "structured_taylor"])
def test_a_pruned_model_recovers(task, model, name):
    """Prune, then train: the smaller model learns the task."""
    inputs, labels = next(iter(task.loader(task.train_data, 64)))
    pruned = pruners[name](model, 0.5, PruneData(inputs, [(inputs, labels)], task.metric_kind.loss)).model
    trained = train_model(pruned, task, {"train.epochs": 12, "train.lr_scale": 10.0}).model

    assert trained[0].out_features == 16
    assert accuracy(trained, task) > 0.7

"""Training on another device than the CPU: all that it touches is moved, and nothing of the device is left in what it leaves."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from autocut.errors import InfeasibleRecipeError, InputError, OutOfMemoryError
from autocut.stages.device import on_cpu
from autocut.stages.prune import PruneData, pruners
from autocut.stages.train import CPU, Device, Teacher, sample_seconds, teacher_logits, train_model
from tests import second_device

SECOND = Device(second_device.KIND)
DISTILLED = {"train.epochs": 2, "distill.loss": "kl", "distill.alpha": 0.5}
AWARE = {**DISTILLED, "train.quantization_aware": "int8"}
WEIGHTED = {**DISTILLED, "curriculum.schedule": "hold", "curriculum.order": "infobatch"}


@pytest.fixture
def model(task):
    """The blob task's untrained model."""
    return task.build_model()


def assert_same_weights(left: nn.Module, right: nn.Module) -> None:
    """Equal to the last bit, buffers included, and plain tensors of the CPU on both sides."""
    for tensor in (*left.state_dict().values(), *right.state_dict().values()):
        assert (type(tensor), tensor.device.type) == (torch.Tensor, "cpu")
    torch.testing.assert_close(left.state_dict(), right.state_dict(), rtol=0, atol=0)


def test_the_second_device_refuses_tensors_of_the_cpu(model):
    """The double is worth something: what is forgotten on the way fails as it would on a GPU."""
    placed = SECOND.place(copy.deepcopy(model))
    with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
        placed(torch.randn(4, 8))

    assert placed(torch.randn(4, 8).to(second_device.KIND)).device.type == second_device.KIND


@pytest.mark.parametrize("stored", [True, False], ids=["stored logits", "running teacher"])
@pytest.mark.parametrize(
    "settings", [{"train.epochs": 2}, DISTILLED, AWARE, WEIGHTED], ids=["plain", "distilled", "aware", "weighted"]
)
def test_a_training_elsewhere_gives_the_weights_of_a_training_here(task, model, settings, stored):
    """Inputs, targets, masks, logits and the teacher are moved; model and teacher are left alone."""
    pruned = pruners["l1_unstructured"](model, 0.5, PruneData(torch.randn(2, 8), [], task.metric_kind.loss, model))
    taught_by = task.build_model(seed=3)
    before = copy.deepcopy((pruned.model, taught_by))

    def train(device):
        logits = teacher_logits(taught_by, task, device=device) if stored else None
        teacher = Teacher(taught_by, logits)
        return train_model(pruned.model, task, settings, masks=pruned.masks, teacher=teacher, device=device)

    here, there = train(CPU), train(SECOND)

    assert_same_weights(there.model, here.model)
    assert [record.train_loss for record in there.history] == [record.train_loss for record in here.history]
    for given, kept in zip((pruned.model, taught_by), before, strict=True):
        assert_same_weights(given, kept)
    assert b"second_device" not in pickle.dumps(there.model)


def test_what_goes_to_a_gpu_is_pinned_and_not_waited_for(monkeypatch):
    """A copy from memory that is not pinned would keep this process waiting. torch's own calls are replaced: no GPU is needed."""
    steps = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: steps.append("pinned") or tensor)
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, *where, **how: steps.append((where, how)) or tensor)
    Device("cuda").move(torch.ones(2))

    assert steps == ["pinned", (("cuda",), {"non_blocking": True})]


def test_inputs_of_every_form_are_moved():
    """A dict of tensors, as transformers take it."""
    moved = SECOND.move_inputs({"ids": torch.arange(3), "mask": torch.ones(3)})

    assert {tensor.device.type for tensor in moved.values()} == {second_device.KIND}


@pytest.mark.parametrize(("first", "then"), [(SECOND, CPU), (CPU, SECOND)], ids=["there, then here", "here, then there"])
def test_a_checkpoint_is_of_no_device_and_goes_on_at_the_other(task, model, tmp_path, first, then):
    """The optimizer's state too: what both gave together is what one gives alone."""
    settings, path = {"train.epochs": 4}, tmp_path / "training.pt"
    through = train_model(model, task, settings)

    def die_in_the_third(epoch):
        if epoch.number == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_model(model, task, settings, checkpoint=path, on_epoch=die_in_the_third, device=first)
    saved = torch.load(path, weights_only=True)
    moments = [value for state in saved["optimizer"]["state"].values() for value in state.values()]
    resumed = train_model(model, task, settings, checkpoint=path, device=then)

    assert {(type(tensor), tensor.device.type) for tensor in (*saved["model"].values(), *moments)} == {(torch.Tensor, "cpu")}
    assert resumed.resumed_samples == 2 * 96
    assert_same_weights(resumed.model, through.model)


def test_a_callback_gets_the_model_where_it_trains(task, model):
    """Rungs are scored there."""
    places = []
    train_model(
        model, task, {"train.epochs": 1}, on_epoch=lambda epoch: places.append(next(epoch.model.parameters())), device=SECOND
    )

    assert [parameter.device.type for parameter in places] == [second_device.KIND]


class Keeping(nn.Module):
    """Keeps tensors that are neither parameters nor buffers; one of them it makes at its first call."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 3)
        self.scales = {"out": [torch.full((3,), 2.0)]}
        self.positions = None

    def forward(self, inputs):
        """Scale the outputs, and shift them."""
        if self.positions is None:
            self.positions = torch.arange(3, device=inputs.device)
        return self.layer(inputs) * self.scales["out"][0] + self.positions


def test_what_a_model_keeps_beside_its_parameters_goes_with_it_there_and_back(make_task):
    """`Module.to` leaves it behind: the training would fail there, or the trained model here."""
    task = make_task(model=Keeping)
    model = task.build_model()
    here, there = (train_model(model, task, {"train.epochs": 2}, device=device).model for device in (CPU, SECOND))

    assert_same_weights(there, here)
    assert {type(tensor) for tensor in (there.positions, *there.scales["out"], *model.scales["out"])} == {torch.Tensor}
    assert there(torch.ones(2, 8)).tolist() == here(torch.ones(2, 8)).tolist()
    assert b"second_device" not in pickle.dumps(there)


class LeftBehind(nn.Module):
    """Makes a tensor without saying where."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 3)

    def forward(self, inputs):
        """Shift the outputs."""
        return self.layer(inputs) + torch.arange(3)


def test_a_model_that_leaves_a_tensor_on_the_cpu_is_told_what_to_do(make_task):
    """Nobody sees that on a CPU; on a GPU the first step fails."""
    task = make_task(model=LeftBehind)
    with pytest.raises(InfeasibleRecipeError, match=r"task must compute on the device .* got: Expected all .*device=inputs.device"):
        train_model(task.build_model(), task, {"train.epochs": 1}, device=SECOND)

    assert train_model(task.build_model(), task, {"train.epochs": 1}).samples_seen == 96


def test_a_device_without_memory_for_the_model_ends_the_trial(task, model, monkeypatch):
    """It may end before the first batch, when the model is placed."""

    def place(self, placed):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nMore")

    monkeypatch.setattr(Device, "place", place)
    with pytest.raises(OutOfMemoryError, match=r"more memory than there is: CUDA out of memory\. Tried to allocate 2 GiB\.$"):
        train_model(model, task, {"train.epochs": 1}, device=SECOND)


def test_a_clock_is_read_only_after_the_device_is_done(task, model):
    """A device queues its work: every timed batch is waited for, and the last one of each epoch."""
    second_device.module.calls.clear()
    sample_seconds(model, task, device=SECOND)
    timed = second_device.module.calls.count("synchronize")
    train_model(model, task, {"train.epochs": 2}, device=SECOND)

    assert timed >= 4
    assert second_device.module.calls.count("synchronize") == timed + 2


def test_on_a_gpu_float32_is_float32_and_sums_have_one_order_within_a_training_alone():
    """The settings are the process's: what is timed there later must not have them."""
    units = (torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.cudnn.rnn)

    def settings():
        fills = torch.utils.deterministic.fill_uninitialized_memory
        return [unit.fp32_precision for unit in units], torch.get_deterministic_debug_mode(), fills

    before = settings()
    with Device("cuda").exact():
        within = settings()

    assert within == (["ieee"] * 3, 1, False)
    assert settings() == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_told_by_the_worker_that_wants_it():
    """A finished study may be opened on another machine than the one that trained it."""
    with pytest.raises(InputError, match="device must be one that this process can open, got cuda: ") as caught:
        Device("cuda").open()

    assert "--train-on cpu" in caught.value.hint


def test_a_state_keeps_its_version():
    """`load_state_dict` of batch normalization asks for it."""
    state = nn.BatchNorm1d(2).state_dict()

    assert on_cpu(state)._metadata == state._metadata
    assert on_cpu({"steps": [1, (state["weight"],)]})["steps"][1][0] is state["weight"]

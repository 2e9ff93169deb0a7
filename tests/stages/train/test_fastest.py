"""The way of training that is chosen: faster by a margin, borne by every model that will be trained, and worth a probe."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from autocut import Task
from autocut.precision import PRECISIONS, TrainingWay
from autocut.stages.train import Device, Teacher, fastest, fastest_way, train_model

IMAGES = torch.randn(64, 2, 6, 6, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(64) % 3


class Net(nn.Module):
    """A small convolutional network, with a kernel of one pixel; `ends` says how its images become rows."""

    def __init__(self, ends=torch.Tensor.flatten):
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3)
        self.second = nn.Conv2d(4, 4, 1)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(64, 3)
        self.ends = ends

    def forward(self, images):
        """(n, 2, 6, 6) -> (n, 3)."""
        hidden = functional.relu(self.norm(self.second(self.first(images))))
        return self.head(self.ends(hidden, 1))


class Pooled(Net):
    """It takes images of any size."""

    def __init__(self):
        super().__init__(lambda hidden, _: functional.adaptive_avg_pool2d(hidden, 4).flatten(1))


def viewed(hidden, _):
    """What many networks do before their last layer: it needs images that lie channel by channel."""
    return hidden.view(len(hidden), -1)


def one_dtype(hidden, _):
    """It adds to a tensor of its own, which torch refuses for bfloat16."""
    return hidden.new_zeros(len(hidden), 64, dtype=torch.float32).index_add(1, torch.arange(64), hidden.flatten(1))


def strided(hidden, _):
    """It reads the memory as if it lay channel by channel, and raises nothing where it does not."""
    return torch.as_strided(hidden, (len(hidden), 64), (64, 1))


def make_task(model=Net, **changes):
    """A task whose model is built by `model`."""
    return Task("images", model, train=(IMAGES, LABELS), test=(IMAGES + 1, LABELS), batch_size=8, epochs=2, **changes)


@pytest.fixture
def paces(monkeypatch):
    """Say how long a sample takes in each way, instead of timing it. Each step is taken all the same."""
    known = {}
    timed = fastest.sample_seconds

    def sample_seconds(model, task, *, device):
        timed(model, task, device=device)
        return known[device.precision, device.memory_format]

    monkeypatch.setattr(fastest, "sample_seconds", sample_seconds)

    def put(plain=1.0, channels_last=1.0, mixed=1.0, both=1.0):
        layouts = ("contiguous", "channels_last")
        known.update(zip([(p, layout) for p in PRECISIONS for layout in layouts], (plain, channels_last, mixed, both), strict=True))

    put()
    return put


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ({}, TrainingWay(sample_s=1.0)),
        ({"mixed": 0.9, "channels_last": 0.9}, TrainingWay(sample_s=1.0)),
        ({"mixed": 0.5}, TrainingWay("bf16", "contiguous", 2.0, 0.5)),
        ({"channels_last": 0.8}, TrainingWay("fp32", "channels_last", 1.25, 0.8)),
        ({"mixed": 0.5, "both": 0.25}, TrainingWay("bf16", "channels_last", 4.0, 0.25)),
        ({"mixed": 0.5, "channels_last": 0.52, "both": 0.9}, TrainingWay("fp32", "channels_last", 1 / 0.52, 0.52)),
    ],
)
def test_another_way_must_be_clearly_faster(paces, seconds, expected):
    """The plain one is kept otherwise, and of two that are as fast the plainer one."""
    paces(**seconds)

    assert fastest_way(make_task(), "cpu", PRECISIONS) == expected


def test_trainings_of_seconds_keep_to_the_plain_way(paces):
    """There is nothing to gain."""
    paces(plain=1e-2, mixed=1e-3)

    assert fastest_way(make_task(), "cpu", PRECISIONS) == TrainingWay(sample_s=1e-2)


def test_who_asks_for_a_precision_gets_it_in_the_faster_layout(paces):
    """The plain way is then that precision."""
    paces(plain=1.0, mixed=2.0, both=0.5)

    assert fastest_way(make_task(), "cpu", ["bf16"]) == TrainingWay("bf16", "channels_last", 4.0, 0.5)
    assert fastest_way(make_task(), "cpu", ["fp32"]) == TrainingWay(sample_s=1.0)


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        (viewed, TrainingWay("bf16", "contiguous", 2.0, 0.5)),
        (strided, TrainingWay("bf16", "contiguous", 2.0, 0.5)),
        (one_dtype, TrainingWay("fp32", "channels_last", 1.25, 0.8)),
    ],
)
@pytest.mark.parametrize("role", ["model", "student", "teacher"])
def test_what_a_model_does_not_bear_is_left_out(paces, ends, expected, role):
    """It fails there, or answers something else. Students are trained in the same way, and the teacher runs in it."""
    paces(channels_last=0.8, mixed=0.5, both=0.25)
    roles = {"model": {"model": lambda: Net(ends)}, "student": {"students": {"small": lambda: Net(ends)}}}
    task = make_task(**roles.get(role, {"teacher": lambda: Net(ends)}))

    assert fastest_way(task, "cpu", PRECISIONS) == expected


def test_a_model_without_convolutions_has_one_layout(monkeypatch):
    """Nothing else is timed."""
    ways = []
    monkeypatch.setattr(fastest, "sample_seconds", lambda model, task, *, device: ways.append(device) or 1.0)
    task = make_task(lambda: nn.Sequential(nn.Flatten(), nn.Linear(72, 3)))
    fastest_way(task, "cpu", PRECISIONS)

    assert {(way.precision, way.memory_format) for way in ways} == {("fp32", "contiguous"), ("bf16", "contiguous")}


def test_a_short_search_does_not_spend_its_time_on_the_question(paces):
    """The seconds of a sample are known in any case."""
    paces(mixed=0.5)

    assert fastest_way(make_task(), "cpu", PRECISIONS, most_s=0.0) == TrainingWay(sample_s=1.0)


def test_a_slow_model_is_timed_with_a_few_examples(monkeypatch):
    """Steps of minutes would spend the budget on the question of how to spend it."""
    sizes = []
    monkeypatch.setattr(fastest, "sample_seconds", lambda model, task, *, device: sizes.append(task.batch_size) or 0.3)
    fastest_way(make_task(), "cpu", PRECISIONS)

    assert sizes[0] == 4
    assert set(sizes[1:]) == {6}  # of 8: two seconds have room for them


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"train.ema": 0.9},
        {"train.input_growth": "progressive_resizing"},
        {"distill.loss": "kl", "distill.features": "similarity"},
        {"distill.loss": "kl", "distill.features": "hint"},
        {"train.quantization_aware": "int8"},
    ],
    ids=str,
)
def test_channels_last_gives_nearly_the_same_weights_laid_out_as_they_were(settings):
    """Kernels of one pixel too, whose strides are true in both layouts."""
    task = make_task(Pooled, optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.01, momentum=0.9))
    model, teacher = task.build_model(), Teacher(task.build_model(seed=3))
    ways = [Device(), Device(memory_format="channels_last")]
    settings = {"train.epochs": 2, **settings}
    plain, last = (train_model(model, task, settings, teacher=teacher, device=way).model for way in ways)

    torch.testing.assert_close(last.state_dict(), plain.state_dict(), rtol=1e-3, atol=1e-4)
    strides = [{name: value.stride() for name, value in one.state_dict().items()} for one in (model, plain, last)]
    assert strides[0] == strides[1] == strides[2]


@pytest.mark.parametrize("first", ["contiguous", "channels_last"])
def test_a_checkpoint_goes_on_in_the_layout_of_its_training(tmp_path, first):
    """Of the optimizer's state too."""
    task, path = make_task(), tmp_path / "training.pt"
    model, way = task.build_model(), Device(memory_format=first)

    def die(epoch):
        if epoch.number == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_model(model, task, {"train.epochs": 2}, checkpoint=path, on_epoch=die, device=way)
    resumed = train_model(model, task, {"train.epochs": 2}, checkpoint=path, device=way)
    through = train_model(model, task, {"train.epochs": 2}, device=way)

    assert resumed.resumed_samples > 0
    torch.testing.assert_close(resumed.model.state_dict(), through.model.state_dict(), rtol=0, atol=0)

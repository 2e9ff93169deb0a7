"""A model of several outputs: one is picked by name or position, and what cannot be picked is refused."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from autocut import Task
from autocut.errors import TaskError
from autocut.task.batches import call
from autocut.task.check import faults_of
from autocut.task.outputs import output_tensor, pick_output

MAIN, AUX = torch.ones(2, 3), torch.zeros(2, 3)


@dataclass
class Answer:
    """What a model of two heads may answer with."""

    out: Tensor
    aux: Tensor | None = None


Pair = namedtuple("Pair", ["out", "aux"])


class TwoHeads(nn.Module):
    """(n, 4) -> an `Answer` of two times (n, 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.out, self.aux = nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Answer:
        """Both heads."""
        return Answer(self.out(x), self.aux(x))


def task_of(model, **settings):
    """A task on random data with three classes."""
    generator = torch.Generator().manual_seed(0)
    splits = {name: (torch.randn(40, 4, generator=generator), torch.arange(40) % 3) for name in ("train", "validation", "test")}
    return Task("heads", model, **splits, pretrained=False, **settings)


@pytest.mark.parametrize("output", [{"out": MAIN, "aux": AUX}, Answer(MAIN, AUX), Pair(MAIN, AUX)])
def test_an_output_is_picked_by_name(output):
    """Of a dict, a dataclass and a named tuple alike."""
    assert pick_output(output, "out") is MAIN
    assert pick_output(output, "aux") is AUX


@pytest.mark.parametrize("output", [(MAIN, AUX), [MAIN, AUX], {"out": MAIN, "aux": AUX}])
def test_an_output_is_picked_by_position(output):
    """Of whatever has an order."""
    assert pick_output(output, 1) is AUX


@pytest.mark.parametrize(
    ("output", "choice", "message", "hint"),
    [
        (Answer(MAIN, AUX), "uot", "one of the model's outputs 'out', 'aux', got 'uot'", "did you mean 'out'?"),
        ((MAIN, AUX), 2, "one of the model's outputs 0, 1, got 2", "output=0"),
        (Answer(MAIN), "aux", "must name a tensor, got 'aux', which is a NoneType", "output='out'"),
        (MAIN, "logits", "must be left out for a model that answers with one Tensor", "leave output= out"),
    ],
)
def test_what_cannot_be_picked_is_refused(output, choice, message, hint):
    """The message lists what there is, the hint says what to type."""
    with pytest.raises(TaskError, match=message) as caught:
        pick_output(output, choice)
    assert caught.value.hint == hint


def test_an_output_without_a_rule_is_refused_with_a_name_to_pick():
    """A segmentation model's "out" has no rule of its own."""
    with pytest.raises(TaskError, match="got dict") as caught:
        output_tensor({"out": MAIN})
    assert caught.value.hint == "name the output: output='out'"

    with pytest.raises(TaskError, match="got str"):
        output_tensor("logits")


def test_the_task_s_model_answers_with_the_picked_output():
    """Everything after the task sees one tensor."""
    task = task_of(TwoHeads, output="aux")
    model, x = task.build_model(), torch.randn(5, 4)

    assert torch.equal(call(model, x), model.model.aux(x))
    assert faults_of(task) == []


def test_check_tells_an_output_that_does_not_exist_and_one_that_must_be_named():
    """Both are faults of the task, not errors of its code."""
    (wrong,) = faults_of(task_of(TwoHeads, output="logits"))
    (missing,) = faults_of(task_of(TwoHeads))

    assert "one of the model's outputs 'out', 'aux', got 'logits'" in wrong.message
    assert missing.hint == "name the output: output='out'"


def test_check_tells_a_wrapped_model_that_is_built_once():
    """The wrapper is new each time, the model in it is not."""
    model = TwoHeads()

    assert any("must build a new module each time" in fault.message for fault in faults_of(task_of(lambda: model, output="out")))

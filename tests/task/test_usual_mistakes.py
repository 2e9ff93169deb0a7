"""`autocut check` of the mistakes that people make most: one fault each, and a hint that says what to type."""

from __future__ import annotations

import pytest

from autocut.task.check import check_task

TASK = """
import torch
from torch import nn
from autocut import Task

x = torch.randn(90, 4, generator=torch.Generator().manual_seed(0))
y = x[:, :3].argmax(1)

def build():
    return nn.Linear(4, 3)

class Net(nn.Module):
    def __init__(self, width):
        super().__init__()

class OnGpu(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x):
        raise RuntimeError("No CUDA GPUs are available")

def of_another_model():
    model = build()
    model.load_state_dict({"module.weight": model.weight})
    return model

settings = dict(name="tiny", model=build, train=(x[:60], y[:60]), test=(x[60:], y[60:]))
"""

MISTAKES = {
    "targets=torch.nn.functional.one_hot(y, 3)": ("must have shape (n,)", "targets.argmax(1)"),
    "targets=y[:, None]": ("must have shape (n,)", "targets.squeeze(1)"),
    "inputs=x.double()": ("must run on a batch", "float32: .float()"),
    "inputs=x.to(torch.uint8)": ("must run on a batch", "pixels / 255"),
    "model=lambda: build().state_dict()": ("got OrderedDict", "net.load_state_dict(weights)"),
    "model=lambda: torch.load('/nowhere/best.pt')": ("FileNotFoundError", "Path(__file__).parent"),
    "model=of_another_model": ('Missing key(s) in state_dict: "weight"', "traceback"),
    "model=Net": ("missing 1 required positional argument", "lambda: Net(...)"),
    "model=OnGpu": ("No CUDA GPUs", "map_location='cpu'"),
    "model=build()": ("got the model itself", "model=build_model"),
    "loss='cross_entropy'": ("task.loss must be a function", "give the function"),
    "optimizer=torch.optim.SGD(build().parameters(), lr=0.1)": ("task.optimizer must be a function", "give the function"),
    "batch_size=0": ("task.batch_size must be an integer", "batch_size=1"),
    "epoch=3": ("unexpected keyword argument 'epoch'", "did you mean 'epochs'?"),
    "learning_rate=3": ("unexpected keyword argument", "one of name, model, train, test"),
}


def faults_of_file(folder, code):
    """Faults of a task file; the worker process is left out."""
    file = folder / "task.py"
    file.write_text(code)
    asked = []
    faults = check_task(file, lambda place, path: asked.append(path) or {"error": "not asked here"})
    return [fault for fault in faults if "worker process" not in fault.message]


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_usual_mistake_is_one_fault_with_the_fitting_hint(tmp_path, mistake):
    """What follows from a mistake is no fault of its own: a reader would look for it in the wrong place."""
    changed, _, value = mistake.partition("=")
    if changed in ("inputs", "targets"):
        pair = f"({value}, y)" if changed == "inputs" else f"(x, {value})"
        mistake = f"train=tuple(part[:60] for part in {pair}), test=tuple(part[60:] for part in {pair})"
    message, hint = MISTAKES[f"{changed}={value}"]

    (fault,) = faults_of_file(tmp_path, f"{TASK}\ntask = Task(**{{**settings, **dict({mistake})}})\n")

    assert message in fault.message
    assert hint in fault.hint


@pytest.mark.parametrize("line", ["import sys; sys.exit(2)", "raise EOFError"])
def test_a_file_that_asks_or_exits_gets_the_guard(tmp_path, line):
    """Its command line is autocut's, and nobody can answer a worker process."""
    (fault,) = faults_of_file(tmp_path, f"{line}\n{TASK}")

    assert '__name__ == "__main__"' in fault.hint


def test_a_nan_is_told_once_and_not_as_an_answer_that_differs(tmp_path):
    """NaN is not equal to itself, but dropout is not the reason."""
    faults = faults_of_file(tmp_path, f"{TASK}\nx[7, 2] = float('nan')\ntask = Task(**settings)\n")

    assert "must be finite" in faults[0].message
    assert not any("the same twice" in fault.message for fault in faults)

"""A model is exported with a free batch size, or the user's line that fixes it is named."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from autocut.errors import CompilerError
from autocut.stages.graph import export_model
from autocut.task.check import faults_of
from autocut.task.task import Task


class Flattens(nn.Module):
    """Takes the batch size with len()."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x):
        """(n, 2, 2) -> (n, 3)."""
        return self.layer(x.view(len(x), -1))


class Loops(Flattens):
    """Goes through the examples one by one."""

    def forward(self, x):
        """(n, 2, 2) -> (n, 3)."""
        return torch.stack([self.layer(row.flatten()) for row in x])


class Branches(Flattens):
    """Looks at a value."""

    def forward(self, x):
        """(n, 2, 2) -> (n, 3)."""
        flat = x.flatten(1)
        if flat.sum() > 0:
            flat = flat * 2
        return self.layer(flat)


class Remembers(Flattens):
    """Keeps what only the first batch size fits."""

    def forward(self, x):
        """(n, 2, 2) -> (n, 3)."""
        shift = torch.zeros(2 if torch.compiler.is_exporting() else len(x), 3)
        return self.layer(x.flatten(1)) + shift


class Differs(Flattens):
    """Computes something else where it is exported."""

    def forward(self, x):
        """(n, 2, 2) -> (n, 3)."""
        return self.layer(x.flatten(1)) * (2 if torch.compiler.is_exporting() else 1)


def faults(model):
    """Faults of a small task."""
    splits = {}
    for seed, name in enumerate(("train", "validation", "test")):
        x = torch.randn(60, 2, 2, generator=torch.Generator().manual_seed(seed))
        splits[name] = TensorDataset(x, x.flatten(1)[:, :3].argmax(1))
    return faults_of(Task(name="tiny", model=model, pretrained=False, **splits))


def test_len_of_the_batch_is_no_fault():
    """The second way of exporting keeps it free."""
    assert faults(Flattens) == []


def test_the_graph_of_a_model_that_calls_len_takes_every_batch_size():
    """And answers as the model does."""
    model = Flattens().eval()
    graph = export_model(model, torch.randn(8, 2, 2)).module()

    for count in (1, 5):
        x = torch.randn(count, 2, 2, generator=torch.Generator().manual_seed(count))
        torch.testing.assert_close(graph(x), model(x))


@pytest.mark.parametrize(
    ("model", "message", "hint"),
    [
        (
            Loops,
            "got a batch size that the code turns into a constant in test_free_batch_size.py, line",
            "not in a loop over its examples",
        ),
        (Branches, "got code that depends on the values of a tensor in test_free_batch_size.py, line", "torch.where()"),
        (Differs, "must answer the same when torch.export has exported it", "keep nothing from one call to the next"),
        (Remembers, "must be exportable by torch.export with a free batch size", ""),
    ],
)
def test_what_fixes_the_batch_size_is_named_with_its_line(model, message, hint):
    """The hint speaks of what the line does."""
    (fault,) = faults(model)

    assert message in fault.message
    assert hint in fault.hint
    assert "TORCH_LOGS" not in fault.message


def test_a_refusal_of_both_ways_ends_one_trial(capfd):
    """What torch prints on its way stays off the screen."""
    with pytest.raises(CompilerError, match="Constraints violated"):
        export_model(Loops().eval(), torch.randn(8, 2, 2))

    assert capfd.readouterr() == ("", "")

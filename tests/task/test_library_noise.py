"""What libraries say about themselves stays off the screen; what people print does not."""

from __future__ import annotations

import logging
import warnings

from autocut.task.check import check_task

NOISY = """
import logging, warnings
import torch
from torch import nn
from autocut import Task

warnings.warn("a library's advice")
logging.getLogger("some.library").warning("a library's log line")
print("the user's own line")

def split(seed):
    x = torch.randn(60, 4, generator=torch.Generator().manual_seed(seed))
    return x, x[:, :3].argmax(1)

class Model(nn.Linear):
    def forward(self, x):
        warnings.warn("advice in every call")
        return super().forward(x)

def model():
    return Model(4, 3)

task = Task(name="tiny", model=model, train=split(0), validation=split(1), test=split(2))
"""


def test_the_check_hides_what_libraries_say_and_nothing_that_the_user_prints(tmp_path, capfd):
    """While the task is imported and while its model runs."""
    (tmp_path / "task.py").write_text(NOISY)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert check_task(tmp_path / "task.py") == []
    printed = capfd.readouterr()

    assert caught == []
    assert printed.out == "the user's own line\n"
    assert printed.err == ""
    assert logging.root.manager.disable == logging.NOTSET

"""For every test: one thread, so that what runs beside it does not decide how long it takes."""

import os
import textwrap

import pytest

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

SMALL_TASK = """
    import torch
    from sklearn.datasets import load_digits
    from torch import nn
    from autocut import Task

    images, labels = load_digits(return_X_y=True)
    images = torch.tensor(images / 16.0, dtype=torch.float32)
    labels = torch.tensor(labels)


    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

        def forward(self, images):
            return self.layers(images)


    task = Task(
        name="small", model=Net, train=(images[:700], labels[:700]), validation=(images[700:1000], labels[700:1000]),
        test=(images[1000:1300], labels[1000:1300]), batch_size=64, epochs=4, serving_batch_sizes=(1, 8), pretrained=False,
    )
"""


@pytest.fixture
def small_task_file(tmp_path):
    """A task of an MLP on a part of the digits, which trains in a second."""
    path = tmp_path / "task.py"
    path.write_text(textwrap.dedent(SMALL_TASK))
    return path

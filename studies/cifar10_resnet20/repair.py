"""What does repair without training bring? Accuracy of the published ResNet-20 right after a cut: as cut, then repaired.

    AUTOCUT_DATA=/data python studies/cifar10_resnet20/repair.py

The first repair takes the statistics of batch normalization again, the second one also refits the last linear layer, both on 1,024
training images. Accuracies are of 2,048 images of the validation half. Nothing is trained.
"""

from __future__ import annotations

import copy
import sys
import time
from pathlib import Path

import torch
from torch import nn

from autocut.pipeline.samples import Samples
from autocut.stages.prune import PruneData, structured
from autocut.stages.prune.batch_norm import reestimate_batch_norm
from autocut.stages.prune.last_layer import refit_last_layer
from autocut.task.batches import call, take
from autocut.task.kinds import kinds

sys.path.insert(0, str(Path(__file__).parent))
from task import task

RATIOS = (0.1, 0.3, 0.4, 0.5, 0.6)
IMAGES = 2048


def main() -> None:
    """Print a row for each method and ratio."""
    torch.set_num_threads(1)
    batches = Samples(task, 0).batches(8, task.batch_size)
    model, data = task.build_model(), PruneData(take(batches[0][0], 2), batches, kinds[task.kind]().loss)
    images, labels = next(iter(task.loader(task.validation_data, IMAGES)))

    def accuracy(of: nn.Module) -> float:
        with torch.no_grad():
            return float((call(of, images).argmax(1) == labels).double().mean())

    print(f"{'untouched':18} {accuracy(model):8.4f}")
    print(f"{'method':18} ratio  as cut  statistics  last layer  seconds of the refit")
    # What the methods themselves repair is done here by hand, one repair after the other.
    structured.reestimate_batch_norm = structured.refit_last_layer = lambda *_: None  # type: ignore[assignment,attr-defined]
    for prune in (structured.prune_structured, structured.prune_structured_taylor, structured.prune_structured_random):
        for ratio in RATIOS:
            cut = prune(model, ratio, data).model
            restored = copy.deepcopy(cut)
            reestimate_batch_norm(restored, batches)
            refitted, started = copy.deepcopy(restored), time.perf_counter()
            refit_last_layer(refitted, model, batches)
            took = time.perf_counter() - started
            row = " ".join(f"{accuracy(one):11.4f}" for one in (cut, restored, refitted))
            print(f"{prune.__name__.removeprefix('prune_'):18} {ratio:4} {row} {took:11.2f}", flush=True)


if __name__ == "__main__":
    main()

"""How fast are cuts of this network? Milliseconds and speed-ups over eager float32, each timed in turns with it, one thread.

    AUTOCUT_DATA=/data CIFAR10_RESNET18_WEIGHTS=resnet18.pt python studies/cifar10_resnet18/cuts.py
    AUTOCUT_DATA=/data CIFAR10_RESNET18_WEIGHTS=resnet18.pt python studies/cifar10_resnet18/cuts.py --recover 4

The first form trains nothing. The second form cuts half of the channels, trains the cut network for a few epochs as `train.py` does
(bfloat16, all cores), and scores it on the validation half. Random weights would not do: int8 was slower with them.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from autocut.measure.latency import measure_latency
from autocut.stages import lowering
from autocut.stages.lowering import Predict
from autocut.stages.prune import PruneData, pruners
from autocut.task.batches import Inputs, call

sys.path.insert(0, str(Path(__file__).parent))
import train
from resnet18 import resnet18
from sibling import data, published

INT8, BF16, INT8_ONNX = ("int8_static", "openvino"), ("bf16", "openvino"), ("int8_static", "onnxruntime")
ROWS = (
    *((ratio, INT8) for ratio in (0.0, 0.2, 0.35, 0.4, 0.45, 0.5, 0.7)),
    *((ratio, pair) for pair in (BF16, INT8_ONNX) for ratio in (0.0, 0.5)),
)
BATCH_SIZES = (1, 32)
RECOVERED, RATE = 0.5, 0.05
"""The ratio of the cut that is trained, and its highest learning rate."""


def main() -> None:
    """Print a row for each ratio and lowering."""
    asked = _arguments()
    torch.manual_seed(0)
    images = data.train()
    batches = [images.fetch_batch(torch.arange(first, first + 128)) for first in (0, 128)]
    network = resnet18().eval()
    if asked.recover:
        cut = _cut(network, RECOVERED, batches)
        print(
            f"structured {RECOVERED:g}, not trained: {_right(_eager(cut)):.4f}, untouched {_right(_eager(network)):.4f}", flush=True
        )
        _recover(cut, asked.recover)
        rows = [(RECOVERED, INT8, cut), (RECOVERED, BF16, cut)]
    else:
        rows = [(ratio, pair, _cut(network, ratio, batches)) for ratio, pair in ROWS]
    torch.set_num_threads(1)
    for ratio, (dtype, mode), cut in rows:
        parameters = sum(parameter.numel() for parameter in cut.parameters())
        with tempfile.TemporaryDirectory() as folder:
            lowering.lower(cut, dtype, mode, [batches[0][0]], Path(folder), batch_sizes=BATCH_SIZES)
            predict = lowering.load(Path(folder), mode, threads=1)
            words = _timed(predict, _eager(network), batches[0][0])
            if asked.recover:
                words.append(f"validation {_right(predict):.4f}")
        print(f"{f'structured {ratio:<4g} {parameters / 1e6:5.2f}M {dtype} + {mode}':48}", *words, sep="  ", flush=True)


def _cut(network: nn.Module, ratio: float, batches: Sequence[tuple[Tensor, Tensor]]) -> nn.Module:
    prune_data = PruneData(batches[0][0][:2], batches, nn.functional.cross_entropy)
    return pruners["structured"](network, ratio, prune_data).model if ratio else network


def _recover(cut: nn.Module, epochs: int) -> None:
    """Train `cut` itself from the answers of the published ResNet-56."""
    cut.to(memory_format=torch.channels_last)
    teacher = published.resnet56().eval().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(cut.parameters(), lr=RATE, momentum=0.9, nesterov=True, weight_decay=train.DECAY)
    for epoch in range(epochs):
        generator, started = torch.Generator().manual_seed(1000 + epoch), time.perf_counter()
        loss = train.train_epoch(cut, teacher, optimizer, train.batches(data.train(), generator, epoch, epochs, RATE))
        print(f"epoch {epoch + 1} of {epochs}: loss {loss:.4f}, {time.perf_counter() - started:.1f} s", flush=True)
    cut.eval().to(memory_format=torch.contiguous_format)


def _right(predict: Predict) -> float:
    """Share of the validation half that is classified right."""
    images = data.validation()
    found = 0
    for indices in torch.arange(len(images)).split(250):
        inputs, labels = images.fetch_batch(indices)
        found += int((predict(inputs).argmax(1) == labels).sum())
    return found / len(images)


def _timed(predict: Predict, eager: Predict, images: Tensor) -> list[str]:
    """Milliseconds and speed-up, with its interval, at each batch size."""
    words = []
    for size in BATCH_SIZES:
        found = measure_latency(predict, eager, images[:size], max_seconds=4.0)
        gain = found.speedup
        words.append(f"batch {size}: {found.p50_ms.value:.2f} ms, {gain.value:.1f}x ({gain.low:.1f} to {gain.high:.1f})")
    return words


def _eager(network: nn.Module) -> Predict:
    def predict(inputs: Inputs) -> Tensor:
        with torch.no_grad():
            return call(network, inputs)

    return predict


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--recover", type=int, default=0, metavar="EPOCHS", help="train a cut of half of the channels, and score it"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()

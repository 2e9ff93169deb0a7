"""How fast are cuts of this network? Milliseconds and speed-ups over eager float32, each timed in turns with it, one thread.

    AUTOCUT_DATA=/data python studies/cifar10_resnet18/cuts.py

Nothing is trained, and the weights are random: cost does not depend on them. It needs the training images alone, to calibrate int8.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

from autocut.measure.latency import measure_latency
from autocut.stages import lowering
from autocut.stages.lowering import Predict
from autocut.stages.prune import PruneData, pruners
from autocut.task.batches import Inputs, call

sys.path.insert(0, str(Path(__file__).parent))
from resnet18 import ResNet18
from sibling import data

RATIOS = (0.0, 0.2, 0.35, 0.4, 0.45, 0.5, 0.7)
LOWERINGS = (("int8_static", "openvino"), ("bf16", "openvino"), ("int8_static", "onnxruntime"))
BATCH_SIZES = (1, 32)


def main() -> None:
    """Print a row for each ratio and lowering."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    network, images = ResNet18().eval(), data.train()
    batches = [images.fetch_batch(torch.arange(first, first + 128)) for first in (0, 128)]
    prune_data = PruneData(batches[0][0][:2], batches, nn.functional.cross_entropy)
    for dtype, mode in LOWERINGS:
        for ratio in RATIOS:
            cut = pruners["structured"](network, ratio, prune_data).model if ratio else network
            parameters = sum(parameter.numel() for parameter in cut.parameters())
            row = f"structured {ratio:<4g} {parameters / 1e6:5.2f}M {dtype} + {mode}"
            print(f"{row:48}", *_timed(cut, dtype, mode, network, batches[0][0]), sep="  ", flush=True)


def _timed(cut: nn.Module, dtype: str, mode: str, network: nn.Module, images: Tensor) -> list[str]:
    """Milliseconds and speed-up, with its interval, at each batch size."""
    with tempfile.TemporaryDirectory() as folder:
        lowering.lower(cut, dtype, mode, [images], Path(folder), batch_sizes=BATCH_SIZES)
        predict, words = lowering.load(Path(folder), mode, threads=1), []
        for size in BATCH_SIZES:
            found = measure_latency(predict, _eager(network), images[:size], max_seconds=4.0)
            gain = found.speedup
            words.append(f"batch {size}: {found.p50_ms.value:.2f} ms, {gain.value:.1f}x ({gain.low:.1f} to {gain.high:.1f})")
        return words


def _eager(network: nn.Module) -> Predict:
    def predict(inputs: Inputs) -> Tensor:
        with torch.no_grad():
            return call(network, inputs)

    return predict


if __name__ == "__main__":
    main()

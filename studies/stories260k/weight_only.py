"""What weights in integers cost: perplexity and bytes of the weight-only dtypes in each runtime.

    AUTOCUT_DATA=/data python studies/stories260k/weight_only.py

Perplexity is that of the validation split; its change is paired with the untouched model. Nothing is timed.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch

from autocut.measure.accuracy import score_model, to_accuracy
from autocut.pipeline.samples import Samples
from autocut.stages import lowering
from autocut.task.batches import call

sys.path.insert(0, str(Path(__file__).parent))
from task import task

DTYPES = ("fp32", "int8_weight_only", "int4_weight_only")
MODES = ("eager", "onnxruntime", "openvino")


def main() -> None:
    """Print a row for each pair that can run."""
    torch.set_num_threads(1)
    model, calibration = task.build_model().eval(), Samples(task, task.seed).calibration
    batches = list(task.loader(task.validation_data, task.batch_size))
    untouched = score_model(lambda inputs: call(model, inputs), batches, task.metric_kind)
    before = -to_accuracy("validation", untouched, task.metric_kind).metric.value
    print(f"untouched: perplexity {before:.3f}")
    for mode in MODES:
        for dtype in DTYPES:
            if lowering.infeasible_reason(dtype, mode) is not None:
                continue
            with tempfile.TemporaryDirectory() as folder:
                lowering.lower(model, dtype, mode, calibration, Path(folder))
                scores = score_model(lowering.load(Path(folder), mode), batches, task.metric_kind)
                size = sum(file.stat().st_size for file in Path(folder).iterdir())
            change = to_accuracy("validation", scores, task.metric_kind, untouched).difference
            if change is None:
                raise RuntimeError("two scores of the same examples give a paired difference")
            ends = f"{-change.high / before:+.1%} to {-change.low / before:+.1%}"
            print(f"{mode:12} {dtype:17} {-change.value / before:+7.2%} ({ends})  {size / 1e3:6.0f} kB", flush=True)


if __name__ == "__main__":
    main()

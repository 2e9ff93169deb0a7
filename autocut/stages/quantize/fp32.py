"""Full precision: the model as it is."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from torch import nn

from autocut.stages.quantize import any_gpu, quantizers
from autocut.task.batches import Inputs


@quantizers.register("fp32", gpu=any_gpu, output_tolerance=1e-3)
def quantize_fp32(model: nn.Module, calibration: Sequence[Inputs]) -> nn.Module:  # noqa: ARG001
    """Keep every number as it is."""
    return copy.deepcopy(model).eval()

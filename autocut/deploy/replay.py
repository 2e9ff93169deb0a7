"""What a loaded bundle answers to stored examples, and the inputs that it is timed on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autocut.deploy.bundle import Deployed
from autocut.deploy.examples import ExampleBatch, StoredArray, metric_of, output_array, scores_of
from autocut.deploy.manifest import Manifest
from autocut.task.batches import Inputs, batch_length, pad, take
from autocut.task.dimensions import resized


@dataclass(frozen=True, eq=False)
class Replay:
    """What a bundle gave on examples.

    `deviation` is that of its outputs from the stored ones. `metric` is that of `kind`, None where it is not defined, or where the
    metric is the user's own code. `scores` has those of each batch.
    """

    deviation: float
    metric: float | None
    scores: tuple[StoredArray | None, ...]


def replay(deployed: Deployed, examples: Sequence[ExampleBatch], kind: str | None) -> Replay:
    """Run `deployed` on `examples`, batch by batch. It keeps no whole outputs."""
    parts, scores = [], []
    for batch in examples:
        output = output_array(deployed.predict(batch.inputs))
        parts.append(batch.kept_part(output))
        scores.append(scores_of(kind, output, batch.targets))
    return Replay(deviation(parts, examples), metric_of(kind, examples, scores), tuple(scores))


def deviation(outputs: Sequence[StoredArray], examples: Sequence[ExampleBatch]) -> float:
    """Return the largest difference to the stored outputs, relative to the largest of them; infinity if shapes or NaNs differ.

    Where `examples` keep a part of their outputs, `outputs` are such parts.
    """
    worst, largest = 0.0, 0.0
    for output, batch in zip(outputs, examples, strict=True):
        if output.shape != batch.outputs.shape or not np.array_equal(np.isfinite(output), np.isfinite(batch.outputs)):
            return float("inf")
        finite = np.isfinite(batch.outputs)
        reference, found = batch.outputs[finite].astype(np.float64), output[finite].astype(np.float64)
        worst = max(worst, float(np.abs(found - reference).max(initial=0.0)))
        largest = max(largest, float(np.abs(reference).max(initial=0.0)))
    return worst / largest if largest else worst


def timing_inputs(manifest: Manifest, examples: Sequence[ExampleBatch], batch_size: int) -> Inputs:
    """Return real inputs of `batch_size`, because the claim was measured on real ones.

    Examples are repeated up to the batch size, and cut or repeated to the lengths of the claim.
    """
    longest = max(examples, key=len).inputs
    shapes = {signature.name: signature.shape for signature in manifest.inputs}
    sizes = (manifest.timed_sizes or {}).get(batch_size, {})
    sized = take(longest, batch_size) if batch_length(longest) >= batch_size else pad(longest, batch_size)
    return resized(sized, shapes, sizes)

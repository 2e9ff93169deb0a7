"""The fresh process of `autocut remeasure` and `autocut compare`: load one or two bundles, time them, replay their examples.

    python -P -m autocut.deploy.rerun_process --parent PID --ready DESCRIPTOR --measured DESCRIPTOR

`answering` describes the descriptors, `rerun` the question. The report is JSON, one `Rerun`. The first bundle is loaded before any
other model, so its cold start is that of a process of its own.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from autocut.deploy.answering import HandBack, answer
from autocut.deploy.bundle import Deployed, load
from autocut.deploy.examples import ExampleBatch, StoredArray, read_examples
from autocut.deploy.manifest import EXAMPLES, MODEL_FOLDER
from autocut.deploy.pickles import refuse_pickles
from autocut.deploy.replay import Replay, replay, timing_inputs
from autocut.deploy.rerun import Rerun, RerunSide
from autocut.errors import AutocutError, BundleError
from autocut.measure.accuracy import Scores, to_accuracy
from autocut.measure.footprint import size_bytes
from autocut.measure.latency import measure_latency
from autocut.measure.machine import machine_fingerprint
from autocut.measurement import Accuracy, Latency
from autocut.recipe import UNTOUCHED
from autocut.stages import lowering
from autocut.stages.device import Device
from autocut.stages.lowering import Predict
from autocut.stages.quantize import output_tolerance
from autocut.task.batches import take, to_numpy
from autocut.task.kinds import join_targets, kinds

_SAMPLES = 64
_SPLIT = "examples"
"""Name of the split of an accuracy: these are the examples in the bundle, not a whole split."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Answer one question."""
    answer(_respond, arguments)


def _respond(question: Mapping[str, Any], hand_back: HandBack) -> Rerun:
    paths = {name: None if question[name] is None else Path(question[name]) for name in ("bundle", "untouched", "other")}
    bundle = paths["bundle"] or Path()
    torch.set_num_threads(question["threads"])
    try:
        return run(bundle, question["threads"], untouched=paths["untouched"], other=paths["other"], hand_back=hand_back)
    except AutocutError as error:
        return Rerun(failure=error.message)


def run(
    bundle: Path, threads: int, *, untouched: Path | None = None, other: Path | None = None, hand_back: HandBack = lambda: None
) -> Rerun:
    """Load and measure the bundle in this process; see `rerun.rerun` for the arguments.

    Raises:
        BundleError: a folder is no readable bundle.
        VerificationError: a file differs from the one that the manifest names.
    """
    first = _load(bundle, threads)
    second = None if other is None else _load(other, threads)
    _require_one_device(first, second)
    against = None if untouched is None else _load_untouched(untouched, threads, first.deployed.device)
    sizes = _batch_sizes(first, second)
    of_first = _time(first, second.deployed.predict if second else against, first, sizes)
    of_second = () if second is None else _time(second, first.deployed.predict, first, sizes)
    hand_back()
    answers = _replay(first)
    side = _side(first, of_first, answers, first.cold_start_ms)
    if second is None:
        return Rerun(machine=machine_fingerprint(), side=side)
    others = _replay(second)
    shared = _shared_accuracy(second, others, first, answers)
    return Rerun(None, machine_fingerprint(), side, _side(second, of_second, others, None), shared)


@dataclass(frozen=True)
class _Loaded:
    deployed: Deployed
    examples: tuple[ExampleBatch, ...]
    cold_start_ms: float

    @property
    def kind(self) -> str | None:
        """Kind of the metric on the examples; None where it is not defined there."""
        claim = self.deployed.manifest.verification
        return None if claim.synthetic else claim.kind


def _load(folder: Path, threads: int) -> _Loaded:
    examples = read_examples(folder / EXAMPLES)
    started = time.perf_counter()
    deployed = load(folder, threads)
    deployed.predict(take(examples[0].inputs, 1))
    return _Loaded(deployed, examples, (time.perf_counter() - started) * 1e3)


def _require_one_device(first: _Loaded, second: _Loaded | None) -> None:
    """Calls on a GPU and on the processor cannot take turns on the same inputs.

    Raises:
        BundleError: the bundles are for two devices.
    """
    kinds_of = [one.deployed.device.kind for one in (first, second) if one is not None]
    if len(set(kinds_of)) > 1:
        raise BundleError(f"bundles must be for one device to be compared, got {' and '.join(kinds_of)}")


def _load_untouched(artifact: Path, threads: int, device: Device) -> Predict:
    refuse_pickles(artifact)
    return lowering.load(artifact, UNTOUCHED.lowering[1], threads, device)


def _batch_sizes(first: _Loaded, second: _Loaded | None) -> list[int]:
    """Return the batch sizes at which all bundles were measured."""
    known = [[latency.batch_size for latency in one.deployed.manifest.measurement.cost.latencies] for one in (first, second) if one]
    return [size for size in known[0] if all(size in sizes for sizes in known)]


def _time(candidate: _Loaded, baseline: Predict | None, source: _Loaded, sizes: Sequence[int]) -> tuple[Latency, ...]:
    """Time `candidate` by turns with `baseline`, on inputs of the bundle `source`, which lie on the candidate's device."""
    manifest, move = source.deployed.manifest, candidate.deployed.device.move_inputs
    return tuple(
        measure_latency(
            candidate.deployed.predict, baseline, move(timing_inputs(manifest, source.examples, size)), samples=_SAMPLES
        )
        for size in sizes
    )


def _replay(loaded: _Loaded) -> Replay:
    return replay(loaded.deployed, loaded.examples, loaded.kind)


def _side(loaded: _Loaded, latencies: tuple[Latency, ...], answers: Replay, cold_start_ms: float | None) -> RerunSide:
    scores = _scores(answers)
    accuracy = None
    if answers.metric is not None and scores is not None and loaded.kind is not None:
        rows = np.arange(len(scores))
        accuracy = to_accuracy(_SPLIT, _chosen(loaded, scores, rows), kinds[loaded.kind]())
    tolerance = output_tolerance(loaded.deployed.manifest.dtype)
    size = size_bytes(loaded.deployed.folder / MODEL_FOLDER)
    return RerunSide(latencies, accuracy, answers.deviation, tolerance, size, cold_start_ms)


def _scores(answers: Replay) -> StoredArray | None:
    known = [part for part in answers.scores if part is not None]
    return np.concatenate(known) if known and len(known) == len(answers.scores) else None


def _chosen(loaded: _Loaded, scores: StoredArray, rows: StoredArray) -> Scores:
    targets = join_targets([batch.targets for batch in loaded.examples])
    return Scores(scores[rows], targets[rows])


def _shared_accuracy(first: _Loaded, answers: Replay, second: _Loaded, others: Replay) -> tuple[Accuracy, Accuracy] | None:
    """Return the accuracy of both on the examples that both carry, of the second one with its paired difference to the first.

    Examples are the same if inputs and target are, bit by bit.
    """
    before, after = _scores(answers), _scores(others)
    if before is None or after is None or first.kind is None or first.kind != second.kind:
        return None
    known = {identity: row for row, identity in enumerate(_identities(second.examples))}
    pairs = [(row, known[identity]) for row, identity in enumerate(_identities(first.examples)) if identity in known]
    if not pairs:
        return None
    rows, other_rows = np.array(pairs).T
    kind = kinds[first.kind]()
    reference = _chosen(first, before, rows)
    try:
        of_first = to_accuracy(_SPLIT, reference, kind)
        # Same examples, same targets: those of the first, because batches of other lengths are padded otherwise.
        return of_first, to_accuracy(_SPLIT, Scores(after[other_rows], reference.targets), kind, reference)
    except AutocutError:
        return None  # the metric is not defined on so few examples


def _identities(examples: Sequence[ExampleBatch]) -> list[bytes]:
    found = []
    for batch in examples:
        arrays = [*sorted(to_numpy(batch.inputs).items()), ("targets", batch.targets)]
        for row in range(len(batch)):
            digest = hashlib.sha256()
            for name, array in arrays:
                digest.update(f"{name} {array.dtype} {array.shape[1:]}".encode() + np.ascontiguousarray(array[row]).tobytes())
            found.append(digest.digest())
    return found


if __name__ == "__main__":
    main()

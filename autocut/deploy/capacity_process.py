"""What the whole machine serves, measured in forks of a fresh process: of a bundle's model, or of the untouched one.

    python -P -m autocut.deploy.capacity_process --parent PID --ready DESCRIPTOR --measured DESCRIPTOR

`answering` describes the descriptors. A question has `layouts`, `processors`, `batch_size`, `most_s`, `report`, and one of these:

    model, mode, inputs     the files of a bundle's model, and a file of inputs
    bundle                  a bundle, whose own examples are the inputs
    task, pickled, inputs   the untouched model as the stage cache has it, and the task file that its classes come from

Only the last one runs the user's code, and no bundle is measured in that process. The report is JSON, one `FoundLayouts`.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import nn

from autocut.deploy.bundle import check_bundle
from autocut.deploy.examples import read_examples
from autocut.deploy.layouts import FoundLayouts
from autocut.deploy.manifest import EXAMPLES, MODEL_FOLDER, read_manifest
from autocut.deploy.replay import timing_inputs
from autocut.errors import AutocutError
from autocut.measure.capacity import CopyFailedError, Load, measure_layouts
from autocut.measure.parent_death import die_with
from autocut.stages import lowering
from autocut.task.batches import Inputs


def main() -> None:
    """Answer questions."""
    from autocut.deploy.answering import answer

    def refuse(question: Mapping[str, Any], hand_back: Callable[[], None]) -> FoundLayouts:  # noqa: ARG001
        return FoundLayouts("this process measures layouts alone")

    answer(refuse)


def answer_in_fork(question: Mapping[str, Any]) -> FoundLayouts:
    """Answer `question` in a fork of this process, which must have run no model yet."""
    fork = multiprocessing.get_context("fork")
    here, there = fork.Pipe(duplex=False)
    process = fork.Process(target=_answer, args=(question, there, os.getpid()))
    process.start()
    there.close()
    try:
        found: FoundLayouts = here.recv()
    except EOFError:
        process.join()
        return FoundLayouts(f"it died, exit code {process.exitcode}")
    process.join()
    return found


def _answer(question: Mapping[str, Any], connection: Connection, parent: int) -> None:
    die_with(parent)
    torch.set_num_threads(1)  # the copies are forks: no thread may be started here
    try:
        connection.send(_measure(question))
    except (AutocutError, CopyFailedError) as error:
        connection.send(FoundLayouts(str(error)))


def _measure(question: Mapping[str, Any]) -> FoundLayouts:
    shapes = [(copies, threads) for copies, threads in question["layouts"]]
    load = _source(question)
    layouts, left_out = measure_layouts(load, question["batch_size"], shapes, question["processors"], question["most_s"])
    return FoundLayouts(None if layouts else "; ".join(left_out), layouts, left_out)


def _source(question: Mapping[str, Any]) -> Load:
    """Return what loads the model of `question`. Inputs, and weights of the untouched model, are read here, once for all copies."""
    if "bundle" in question:
        bundle = Path(question["bundle"])
        manifest = read_manifest(bundle)
        check_bundle(bundle, manifest)
        examples = read_examples(bundle / EXAMPLES)
        return _lowered(bundle / MODEL_FOLDER, manifest.mode, timing_inputs(manifest, examples, question["batch_size"]))
    inputs: Inputs = torch.load(question["inputs"], weights_only=True)
    if "model" in question:
        return _lowered(Path(question["model"]), question["mode"], inputs)
    return _untouched(question["task"], Path(question["pickled"]), inputs)


def _lowered(folder: Path, mode: str, inputs: Inputs) -> Load:
    def load(threads: int) -> Callable[[], object]:
        predict = lowering.load(folder, mode, threads)
        return lambda: predict(inputs)

    return load


def _untouched(task: str | None, folder: Path, inputs: Inputs) -> Load:
    from autocut.pipeline.measuring_stages import run_eagerly
    from autocut.stages.model_files import restore_model
    from autocut.task.loading import load_task

    load_task(task)  # the pickle names classes of this file
    model: nn.Module = restore_model(folder)[0]

    def load(threads: int) -> Callable[[], object]:  # noqa: ARG001 -- torch has them
        predict = run_eagerly(model)
        return lambda: predict(inputs)

    return load


if __name__ == "__main__":
    main()

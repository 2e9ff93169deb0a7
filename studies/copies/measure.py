"""What a machine serves in each layout: copies of a model in processes of their own, with some threads each, all at once.

The untouched model and two of its lowerings, measured as a finalization measures them, round by round. Weights do not matter, so
nothing is trained.

    python studies/copies/measure.py                                      # the embedded digits task
    python studies/copies/measure.py --task studies/fashion_mnist/task.py
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from autocut.deploy.fresh_process import FreshProcess
from autocut.deploy.layouts import FoundLayouts, ask_layouts, processors_here
from autocut.measure.capacity import shapes_for
from autocut.measurement import LOADED, Capacity, Layout
from autocut.pipeline.samples import Samples
from autocut.stages import lowering
from autocut.stages.model_files import save_model
from autocut.task.loading import load_task

_COMMAND = (sys.executable, "-P", "-m", "autocut.deploy.capacity_process")
_PAIRS = (("fp32", "onnxruntime"), ("int8_static", "onnxruntime"))
_MOST_S = 120.0


def write_models(task_path: str | None, folder: Path) -> dict[str, dict[str, object]]:
    """Write the untouched model and its lowerings to `folder`; return a question by name for each (`capacity_process`)."""
    torch.set_num_threads(1)
    task = load_task(task_path)
    samples, size = Samples(task, seed=0), max(task.serving_batch_sizes)
    torch.manual_seed(0)
    model = task.build_model().eval()
    torch.save(samples.serving_inputs(size), folder / "inputs.pt")
    same = {"inputs": str(folder / "inputs.pt"), "batch_size": size, "layouts": shapes_for(processors_here())}
    (folder / "untouched").mkdir()
    save_model(folder / "untouched", model, {})
    questions = {"untouched": {**same, "task": str(task.path), "pickled": str(folder / "untouched")}}
    for dtype, mode in _PAIRS:
        (to := folder / f"{dtype}-{mode}").mkdir()
        lowering.lower(model, dtype, mode, samples.calibration, to, batch_sizes=task.serving_batch_sizes)
        questions[f"{dtype} {mode}"] = {**same, "model": str(to), "mode": mode}
    return questions


def measure(question: Mapping[str, object]) -> FoundLayouts:
    """Measure all layouts once, in forks of a fresh process."""
    with FreshProcess(1, _COMMAND, os.environ) as fresh, tempfile.TemporaryDirectory() as scratch:
        turn = contextlib.nullcontext
        found = ask_layouts(fresh, question, Path(scratch), _MOST_S, alone=turn, working=turn)
    if found.failure is not None:
        raise SystemExit(found.failure)
    return found


def report(rounds: Mapping[str, list[FoundLayouts]], batch_size: int) -> None:
    """Print what each model served in each layout, and how often each was chosen. Rounds beside other programs do not count."""
    for name, found in rounds.items():
        calm = [one.layouts for one in found if all(layout.load <= LOADED for layout in one.layouts)]
        if not calm:
            print(f"{name:<24} all {len(found)} rounds were disturbed: run it again when nothing else runs here", flush=True)
            continue
        by_shape = defaultdict[str, list[Layout]](list)
        for layouts in calm:
            for layout in layouts:
                by_shape[str(layout)].append(layout)
        alone = np.median([layouts[0].per_s.value for layouts in calm])
        for shape, layouts in by_shape.items():
            served = np.array([layout.per_s.value for layout in layouts])
            middle = float(np.median(served))
            held = sum(layout.per_s.low <= middle <= layout.per_s.high for layout in layouts)
            print(
                f"{name:<24} {shape:<19} {middle:9,.0f}/s  {middle / alone:5.2f}x  spread {np.ptp(served) / middle:6.1%}  "
                f"interval holds the median {held} of {len(layouts)}",
                flush=True,
            )
        chosen = Counter(str(Capacity(batch_size, processors_here(), layouts, layouts).best) for layouts in calm)
        counted = ", ".join(f"{shape} ({count})" for shape, count in chosen.most_common())
        print(f"{name:<24} chosen: {counted}; {len(found) - len(calm)} of {len(found)} rounds were disturbed", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", help="a task file; default: the embedded digits task")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="autocut-copies-") as folder:
        questions = write_models(arguments.task, Path(folder))
        rounds: dict[str, list[FoundLayouts]] = {name: [] for name in questions}
        for _ in range(arguments.repeats):
            for name, question in questions.items():
                rounds[name].append(measure(question))
        report(rounds, max(load_task(arguments.task).serving_batch_sizes))


if __name__ == "__main__":
    main()

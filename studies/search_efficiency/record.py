"""Record an exhaustive table once: every prefix of a small space, with every lowering, as the pipeline makes and measures them.

A prefix is written as soon as it is done, so the recording can be stopped and started again; what the stage cache has is not made
twice. The table at the end is one compact file, and `replay.py` runs any strategy against it in simulated time.

    python studies/search_efficiency/record.py digits
    AUTOCUT_DATA=/data python studies/search_efficiency/record.py fashion_mnist
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import shutil
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import table
from torch import Tensor

from autocut.errors import TrialError
from autocut.measure.quiet import QuietLock
from autocut.measurement import Rung
from autocut.pipeline.pipeline import Pipeline
from autocut.pipeline.stage_cache import Entry, StageCache
from autocut.recipe import PARENT_RATIO, Recipe
from autocut.space import every_recipe, load_space
from autocut.stages.compile import modes
from autocut.stages.graph import Signature, load_graph
from autocut.stages.lowering import infeasible_reason, load, numerics
from autocut.stages.methods import known_methods
from autocut.stages.model_files import Prefix
from autocut.task.batches import Inputs
from autocut.task.splits import length
from autocut.task.task import load_task

HERE = Path(__file__).parent
TASKS = {"digits": None, "digits_training": None, "fashion_mnist": str(HERE.parent / "fashion_mnist" / "task.py")}
CHILDREN = {"digits": 3, "digits_training": 0, "fashion_mnist": 0}
"""Parents of each trained prefix that are recorded too, for weight inheritance; none where that would take hours."""
SEED = 0
CACHE_BYTES = 8 * 2**30


class RecordingPipeline(Pipeline):
    """A pipeline that scores int8 graphs of Inductor with torch's own reference kernels.

    Compiling each of several hundred checkpoints, only to ask how accurate it is, takes a night. The graph is the one that
    Inductor compiles; `spot_check` says on how many recipes its compiled form was scored too, and how far it was off.
    """

    def _predict(self, prefix: Prefix, dtype: str, mode: str) -> Callable[[Inputs], Tensor]:
        if mode != "aot_inductor" or dtype in ("fp32", "bf16"):
            return super()._predict(prefix, dtype, mode)
        return self.reference_kernels(prefix, dtype, mode)

    def reference_kernels(self, prefix: Prefix, dtype: str, mode: str) -> Callable[[Inputs], Tensor]:
        """The quantized graph of a prefix, run operator by operator."""
        folder = self.graph(prefix, dtype, mode).folder
        module, signature = load_graph(folder).module(check_guards=False), Signature.read(folder)
        return lambda inputs: module(*signature.positional(inputs))


def prefixes_of(space_path: Path) -> tuple[list[Recipe], list[tuple[str, str]]]:
    """Every prefix of the space, the untrained ones first, and every lowering that this machine can run."""
    space = load_space(str(space_path), known_methods())
    recipes = every_recipe(space)
    prefixes = sorted(dict.fromkeys(recipe.prefix for recipe in recipes), key=lambda prefix: int(prefix["train.epochs"]))
    lowerings = [
        lowering for lowering in dict.fromkeys(recipe.lowering for recipe in recipes) if infeasible_reason(*lowering) is None
    ]
    return prefixes + children_of(prefixes, CHILDREN[space_path.stem]), lowerings


def children_of(prefixes: Sequence[Recipe], steps: int) -> list[Recipe]:
    """Every trained, structurally pruned prefix as the child of its next `steps` less pruned parents."""
    ratios = sorted({float(prefix["prune.ratio"]) for prefix in prefixes if "prune.ratio" in prefix})
    return [
        Recipe({**prefix, PARENT_RATIO: parent})
        for prefix in prefixes
        if prefix["prune.method"] == "structured" and prefix.is_trained
        for parent in [ratio for ratio in ratios if ratio < float(prefix["prune.ratio"])][::-1][:steps]
    ]


class Recorder:
    """Runs prefixes with all their lowerings, and keeps what the pipeline tells meanwhile."""

    def __init__(self, name: str, out: Path) -> None:
        self.stages: list[dict[str, Any]] = []
        self.rungs: list[Rung] = []
        self.shared: dict[str, float] = {}
        self.cache = StageCache(out / "stages", CACHE_BYTES)
        self.pipeline = RecordingPipeline(
            load_task(TASKS[name]), self.cache, QuietLock(), seed=SEED,
            observe=self._observe, on_rung=self.rungs.append,
        )  # fmt: skip
        self.pipeline.cost(self.pipeline.baseline, "fp32", "eager")

    def record(self, prefix: Recipe, lowerings: Sequence[tuple[str, str]]) -> dict[str, Any]:
        """Make one prefix and measure all its lowerings; what it gives is one plain document."""
        if prefix.parent is not None:
            self.pipeline.prefix(prefix.parent)
        self._forget()
        made = self.pipeline.prefix(prefix)
        if len(self.rungs) != prefix["train.epochs"]:
            self._forget_training()  # an earlier recording was stopped in the middle: its first rungs were not recorded
            made = self.pipeline.prefix(prefix)
        document: dict[str, Any] = {
            "recipe": dict(prefix),
            "structure": made.structure,
            "train_seconds": made.train_seconds,
            "samples_seen": made.samples_seen,
            "stages": list(self.stages),
            "rungs": [[rung.epoch, rung.metric] for rung in self.rungs],
            "lowerings": {f"{dtype}/{mode}": self._lowering(prefix, dtype, mode) for dtype, mode in lowerings},
        }
        return {**document, "shared": self.shared}

    def _lowering(self, prefix: Recipe, dtype: str, mode: str) -> dict[str, Any]:
        self.stages.clear()
        try:
            measurement = self.pipeline.measure(prefix.with_lowering(dtype, mode)).measurement
        except TrialError as error:
            return {"failed": error.message}
        return {
            "accuracy": asdict(measurement.accuracy),
            "cost": asdict(measurement.cost),
            "numerics": numerics(dtype, mode),
            "stages": list(self.stages),
        }

    def _observe(self, entry: Entry, category: str) -> None:
        if entry.stage in ("baseline", "teacher", "difficulty"):
            self.shared[entry.stage] = entry.seconds
        self.stages.append(
            {"key": entry.key, "stage": entry.stage, "method": entry.method, "seconds": entry.seconds, "category": category}
        )

    def _forget(self) -> None:
        self.stages.clear()
        self.rungs.clear()

    def _forget_training(self) -> None:
        key = [stage["key"] for stage in self.stages if stage["stage"] == "train"][-1]
        shutil.rmtree(self.cache.folder / "entries" / key)
        self._forget()


def work(name: str, space_path: Path, out: Path, share: int, shares: int) -> None:
    """Record every `shares`-th prefix that is not there yet; the untrained ones, which time the structures, come first."""
    import torch

    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    recorder = Recorder(name, out)
    prefixes, lowerings = prefixes_of(space_path)
    for prefix in prefixes[share::shares]:
        path = out / "prefixes" / f"{prefix.fingerprint}.json"
        if path.exists():
            continue
        started = time.perf_counter()
        draft = path.with_suffix(f".{os.getpid()}")
        draft.write_text(json.dumps(recorder.record(prefix, lowerings)))
        draft.replace(path)
        print(f"{prefix.describe()}: {time.perf_counter() - started:.1f} s", flush=True)


def spot_check(name: str, space_path: Path, out: Path, count: int = 4) -> list[dict[str, Any]]:
    """Score a few int8 graphs compiled by Inductor as well, to say how far the reference kernels are from them."""
    pipeline = Recorder(name, out).pipeline
    prefixes, lowerings = prefixes_of(space_path)
    inductor = [dtype for dtype, mode in lowerings if mode == "aot_inductor" and dtype not in ("fp32", "bf16")]
    rows = []
    for prefix, dtype in zip(prefixes[:: max(1, len(prefixes) // count)], inductor * count, strict=False):
        made = pipeline.prefix(prefix)
        compiled = load(pipeline.artifact(made, dtype, "aot_inductor").folder, "aot_inductor")
        graph = pipeline.reference_kernels(made, dtype, "aot_inductor")
        loader = list(pipeline.task.loader(pipeline.task.validation_data, pipeline.task.batch_size))
        same = sum(int((compiled(inputs).argmax(1) == graph(inputs).argmax(1)).sum()) for inputs, _ in loader)
        examples = sum(len(targets) for _, targets in loader)
        rows.append({"recipe": prefix.describe(), "dtype": dtype, "same_prediction": same, "of": examples})
    return rows


def pack(name: str, space_path: Path, out: Path) -> dict[str, Any]:
    """Put the documents of all prefixes into one: what belongs to a structure or to the untouched model is there once."""
    prefixes, lowerings = prefixes_of(space_path)
    documents = [json.loads((out / "prefixes" / f"{prefix.fingerprint}.json").read_text()) for prefix in prefixes]
    structures: dict[str, dict[str, Any]] = {}
    shared: dict[str, float] = {}
    seconds: dict[str, list[float]] = {}
    for document in documents:
        costs = structures.setdefault(document["structure"], {})
        for lowering, found in document["lowerings"].items():
            if "failed" in found:
                continue
            costs.setdefault(lowering, {"cost": found["cost"], "compile": [], "cost_s": []})
            # The last of its name is its own: the untouched model's, to which it is compared, comes before.
            for (stage, method), taken in {(one["stage"], one["method"]): one["seconds"] for one in found["stages"]}.items():
                seconds.setdefault(f"{stage} {method}", []).append(taken)
                if method == lowering and stage in ("compile", "cost"):
                    costs[lowering]["compile" if stage == "compile" else "cost_s"].append(taken)
        shared |= document["shared"]
    for costs in structures.values():
        for lowering, found in costs.items():
            costs[lowering] = {
                "cost": found["cost"],
                "compile_s": round(statistics.median(found["compile"] or [0.0]), 3),
                "measure_s": round(statistics.median(found["cost_s"]), 3),
            }
    return {
        "schema_version": table.SCHEMA_VERSION,
        "task": name,
        "command": f"python studies/search_efficiency/record.py {name}",
        "seed": SEED,
        "versions": {"python": platform.python_version(), **_versions()},
        "space": space_path.read_text(),
        "graphs": {f"{dtype}/{mode}": numerics(dtype, mode) for dtype, mode in lowerings},
        "priors": {f"{dtype}/{mode}": float(modes.method(mode).options.get("seconds", 30)) for dtype, mode in lowerings},
        "train_samples": length(load_task(TASKS[name]).train_data),
        "shared_s": shared,
        "median_s": {what: round(statistics.median(all_), 3) for what, all_ in sorted(seconds.items())},
        "spot_check": json.loads((out / "spot_check.json").read_text()),
        "structures": structures,
        "prefixes": [_packed(document) for document in documents],
    }


def _packed(document: dict[str, Any]) -> dict[str, Any]:
    """One prefix: seconds of its own stages, its rungs, and an accuracy for each quantized graph."""
    accuracies: dict[str, Any] = {}
    seconds: dict[str, float] = {}
    for found in document["lowerings"].values():
        if "failed" in found:
            continue
        accuracies[found["numerics"]] = _rounded(found["accuracy"])
        for stage in found["stages"]:
            if stage["stage"] in ("accuracy", "quantize", "convert"):
                seconds[f"{stage['stage']} {stage['method']}"] = round(stage["seconds"], 3)
    own = {stage["stage"]: stage["seconds"] for stage in document["stages"]}  # the last of its name: a parent's come before
    return {
        "recipe": document["recipe"],
        "structure": document["structure"],
        "train_seconds": round(document["train_seconds"], 3),
        "samples_seen": document["samples_seen"],
        "prune_s": round(own.get("prune", 0.0), 3),
        "train_s": round(own.get("train", 0.0), 3),
        "rungs": [[epoch, round(metric, 5)] for epoch, metric in document["rungs"]],
        "accuracies": accuracies,
        "seconds": seconds,
        "failed": {lowering: found["failed"] for lowering, found in document["lowerings"].items() if "failed" in found},
    }


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(inner) for name, inner in value.items()}
    return round(value, 5) if isinstance(value, float) else value


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("torch", "torchao", "torch-pruning", "onnxruntime")}


def main() -> None:
    """Record with a process a core, spot-check, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--out", type=Path, help="where the recording lives until it is packed; default: runs/NAME here")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    name, space_path = arguments.task, HERE / f"{arguments.task}.toml"
    out = arguments.out or HERE / "runs" / name
    (out / "prefixes").mkdir(parents=True, exist_ok=True)
    spawn = multiprocessing.get_context("spawn")
    workers = [
        spawn.Process(target=work, args=(name, space_path, out, share, arguments.workers)) for share in range(arguments.workers)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if any(worker.exitcode for worker in workers):
        raise SystemExit("a worker failed; run the same command again to go on")
    checked = out / "spot_check.json"
    if not checked.exists():
        checked.write_text(json.dumps(spot_check(name, space_path, out)))
    target = HERE / f"{name}.table.json.gz"
    table.write(pack(name, space_path, out), target)
    print(f"{target.name}: {target.stat().st_size / 1e3:.0f} kB. {out / 'stages'} is needed no more.")


if __name__ == "__main__":
    main()

"""Where a search trains and serves: what `--train-on` and `--serve-on` ask for, and what this machine has, before anything starts.

The driver imports no torch. That torch is a CPU build is read from its installed files; whether a GPU can be used is asked of a
process of its own, because a process that has opened a GPU must not be forked:

    python -m autocut.execution.training_device
"""

from __future__ import annotations

import importlib.util
import json
import os
import runpy
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from autocut.config import SearchConfig
from autocut.counting import format_count
from autocut.errors import InputError
from autocut.measure.quiet import QuietLock
from autocut.precision import MIXED

CHOICES = ("cpu", "cuda", "auto")
SERVING_CHOICES = ("cpu", "cuda")
_ANSWER_S = 120.0
_HINT = "--train-on cpu, or auto, which trains on a GPU where there is one"
_SERVING_HINT = "--serve-on cpu, or search on a machine that has one"
_IN_USE_BYTES = 10**9
"""A process that has opened a GPU has about half of this there."""


@dataclass(frozen=True)
class FoundGpu:
    """What torch finds: the `name` of the first visible GPU, or the `reason` why none can be used.

    `used_bytes` of its memory are in use, by the process that looks and all others.
    """

    name: str | None = None
    reason: str | None = None
    used_bytes: int = 0


def placed(config: SearchConfig) -> tuple[SearchConfig, list[str]]:
    """Return `config` with `train_on` cpu or cuda, and what the user should know about both devices.

    Raises:
        InputError: cuda is asked for and cannot be had, a cluster is to use anything but its processors, or what serves on a GPU
            has several workers or the price of a machine without one.
    """
    asked = {"--train-on": config.train_on, "--serve-on": config.serve_on}
    elsewhere = {flag: device for flag, device in asked.items() if device != "cpu"}
    if not elsewhere:
        return config, []
    if config.ray_address is not None:
        flag, device = next(iter(elsewhere.items()))
        raise InputError(
            f"{flag} must be cpu with --ray-address, got {device}: autocut looks for no GPU on nodes of a cluster",
            f"{flag} cpu, or search without --ray-address on the machine that has the GPU",
        )
    found = find_gpu()
    lines: list[str] = []
    if config.serve_on != "cpu":
        lines += _serving(config, found)
    if config.train_on == "cpu":
        return config, lines
    if found.name is not None:
        served = "the CPU, which serves them, scores and times them" if config.serve_on == "cpu" else "it serves them too"
        lines.append(f"training: on {found.name} (cuda), one model at a time; {served}")
        return replace(config, train_on="cuda"), lines
    if config.train_on == "cuda":
        raise InputError(f"--train-on cuda must find a GPU that torch can use, got none: {found.reason}", _HINT)
    return replace(config, train_on="cpu"), [f"training: on the CPU: --train-on auto found no GPU: {found.reason}"]


def _serving(config: SearchConfig, found: FoundGpu) -> list[str]:
    """Say what serves, and what may disturb it; see `placed` for what is refused."""
    from autocut.measure.processor import this_host
    from autocut.price import fit_hint, gpus_of

    if found.name is None:
        raise InputError(f"--serve-on cuda must find a GPU that torch can use, got none: {found.reason}", _SERVING_HINT)
    if config.workers != 1:
        raise InputError(
            f"--workers must be 1 with --serve-on cuda, got {config.workers}: models are compiled, scored and timed on one GPU",
            "leave --workers out",
        )
    priced = 1 if config.price_per_hour is not None else gpus_of(config.instance)
    if not priced:
        raise InputError(f"--instance must have a GPU with --serve-on cuda, got {config.instance}", fit_hint(this_host()))
    lines = [f"serving: on {found.name} (cuda): models are scored and timed there, and their bundles are for it"]
    if priced > 1:
        lines.append(
            f"{config.instance} has {format_count(priced, 'GPU')}, and a model here has one: "
            "--price-per-hour takes the price of its share"
        )
    if found.used_bytes > _IN_USE_BYTES:
        held = f"{found.used_bytes / 1e9:.1f} GB of the GPU's memory are in use"
        lines.append(f"{held}: what other programs do there disturbs the timings")
    return lines


def refuse_idle(asked: Mapping[str, str], space: str) -> None:
    """Refuse what would change trainings (flag -> value), for a task that brings its weights and a `space` without trainings.

    Raises:
        InputError: a knob would change nothing.
    """
    nothing = f"none: the task brings its weights, and space {space} trains nothing"
    for flag, value in asked.items():
        if value in ("cuda", MIXED):
            raise InputError(f"{flag} {value} must have a model to train, got {nothing}", f"leave {flag} out")


def find_gpu() -> FoundGpu:
    """Look for a GPU: at once where torch is built without, else within seconds."""
    reason = _reason_of_build()
    if reason is not None:
        return FoundGpu(reason=reason)
    with QuietLock().shared():  # importing torch would disturb a search that times
        try:
            asked = subprocess.run(
                [sys.executable, "-P", "-m", __name__], capture_output=True, text=True, timeout=_ANSWER_S, check=False,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return FoundGpu(reason=f"it did not open within {_ANSWER_S:g} s")
    try:
        return FoundGpu(**json.loads(asked.stdout))
    except (ValueError, TypeError):
        said = asked.stderr.strip().splitlines() or [f"exit code {asked.returncode}"]
        return FoundGpu(reason=f"the process that opens it failed: {said[-1]}")


def _reason_of_build() -> str | None:
    """Say that the installed torch is a CPU build; None where it is built for GPUs, or does not tell."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return "torch is not installed"
    told = Path(spec.origin).with_name("version.py")
    if not told.is_file():
        return None
    build = runpy.run_path(str(told))  # assignments alone
    if build.get("cuda") or build.get("hip") or "cuda" not in build:
        return None
    return f"torch {build.get('__version__')} is a CPU build (install one for CUDA)"


def _look() -> FoundGpu:
    """Open the first visible GPU in this process."""
    import torch

    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
        free, total = torch.cuda.mem_get_info()
        return FoundGpu(name=torch.cuda.get_device_name(0), used_bytes=total - free)
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was built for CUDA
        return FoundGpu(reason=str(error).strip().partition("\n")[0] or type(error).__name__)


if __name__ == "__main__":
    found = _look()
    sys.stdout.write(json.dumps(asdict(found)))

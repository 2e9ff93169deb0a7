"""Compile: turn a graph into what production runs.

A mode is one file of this folder. It registers a function that writes the artifact, and says in `ModeOptions` how the artifact is
loaded, which files it consists of and how a person runs them::

    def load_name(folder: Path, signature: Signature, threads: int) -> Run:
        model = runtime.load(folder / "model.bin", threads)
        return lambda *arguments: model(*arguments)

    def run_lines(call: ExampleCall) -> str:
        return call.in_torch("import runtime", f"model = runtime.load({call.files[0]!r}, {call.threads})")

    @modes.register(
        "name", requires=("runtime",), runs_with=("runtime",), load=load_name, files="model.bin", run_lines=run_lines, seconds=5
    )
    def compile_name(job: CompileJob, folder: Path) -> Signature:
        "Compile with my runtime."  # the line that `autocut methods` shows
        runtime.convert(load_graph(job.graph), folder / "model.bin")
        return job.signature

A mode that runs on a GPU registers in `cuda_modes` in the same way. One name may be in both registries: "eager" runs operator by
operator wherever a model is served. What a mode of a GPU loads takes tensors of the GPU, and gives one.

A mode that quantizes by itself has a registry of its own quantizers, and names it as its `quantizers` (`onnxruntime`).

The function translates what its library raises (`stages.compilers.translated`). A model that the mode cannot take raises
`InfeasibleRecipeError`. Raise `version` when the mode writes something else.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from autocut.registry import Method, MethodOptions, Registry, import_all
from autocut.stages.graph import Signature
from autocut.task.batches import Inputs

Run = Callable[..., Tensor]
"""Takes the input tensors by position."""


@dataclass(frozen=True)
class CompileJob:
    """What a mode compiles: the graph in folder `graph`, for `dtype`, to be served in batches of `batch_sizes`.

    `keep_float` layers stay float, if the mode has a quantizer of its own for the dtype. Where the mode registers `convert`, the
    folder holds what `convert` has made of the graph. Others share it: nothing in it may change.
    """

    graph: Path
    signature: Signature
    dtype: str
    calibration: Sequence[Inputs]
    batch_sizes: tuple[int, ...]
    keep_float: int = 0


@dataclass(frozen=True, kw_only=True)
class OwnQuantizerOptions(MethodOptions):
    """What a quantizer of a mode's own says.

    `keeps_float`: its function takes `keep_float`, as a dtype's may. `seconds_per_100mb`: as a dtype's.
    """

    keeps_float: bool = False
    seconds_per_100mb: float | None = None


@dataclass(frozen=True)
class ExampleCall:
    """What the README of a bundle calls the model with.

    `files` are the artifact's files that the mode registers, by their names inside the bundle's folder `bundle`. `tensors` and
    `arrays` are an example of each input in the graph's order, as torch and as numpy code. `threads` were used for measuring.
    """

    bundle: Path
    files: tuple[str, ...]
    tensors: tuple[str, ...]
    arrays: tuple[str, ...]
    threads: int

    def in_torch(self, *load: str) -> str:
        """Return code that runs the lines `load`, which make `model`, and calls it."""
        call = (f"inputs = ({', '.join(self.tensors)},)", "with torch.inference_mode():", "    output = model(*inputs)")
        return "\n".join(("import torch", *load, *call))

    def on_cuda(self, *load: str) -> str:
        """Return code as `in_torch` does, for a `model` on a GPU: inputs are moved there, and the output back to the CPU."""
        inputs = ", ".join(f"{tensor}.to('cuda')" for tensor in self.tensors)
        call = (f"inputs = ({inputs},)", "with torch.inference_mode():", "    output = model(*inputs).cpu()")
        return "\n".join(("import torch", *load, *call))


def _nothing(dtype: str) -> None:  # noqa: ARG001  (the signature of these options)
    return None


@dataclass(frozen=True, kw_only=True)
class ModeOptions(MethodOptions):
    """What a compile mode says of itself, besides the function that writes its artifact.

    Attributes:
        load: Loads the artifact: (folder, signature, threads) -> a function of the input tensors.
        files: Glob pattern of the files that the artifact consists of, besides the signature.
        run_lines: Code for the README and the server of a bundle that runs these files without autocut. It loads the model, then
            uses the inputs, and leaves the result in `output`.
        runs_with: Importable modules that run the artifact, besides torch; a bundle names their versions.
        seconds: What the mode takes until it runs, on one core, as long as nothing was measured.
        seconds_per_100mb: What it takes for each 100 MB of float32 weights, without the dtype's own work; None: not known.
        speedup: First guess of the speed-up over eager, in the same dtype, for a mode that `search.first_guesses` does not know.
            None: no guess.
        infeasible: Reason why the mode cannot run the dtype on this machine, or None. It is cheap and compiles nothing.
        numerics: Name of the dtype's arithmetic where it is not that of the dtype's own quantizer. Pairs of one name share one
            accuracy.
        context: What else decides the artifact, such as threads or the instruction set. It becomes part of the stage key.
        convert: (graph, folder) -> None: writes to `folder` what the mode makes of a graph before it looks at the dtype, such as
            the same graph in the mode's own format. All dtypes of the graph share it. The mode gets `folder` as `CompileJob.graph`.
        takes_any_threads: Whether the artifact runs with the number of threads that it is loaded with, and nothing is compiled for
            another number. Scoring then uses every free core.
        quantizers: Registry of the mode's own quantizers. The mode starts from the graph of the untouched dtype.
        names_its_libraries: The versions of what the mode requires are in its `context`, and decide its own artifacts alone. So
            they are left out of the keys of all other stages: a new version of them costs no training.
        is_machine_code: Whether the artifact runs only on the kind of device that it was compiled on, such as a GPU of one compute
            capability. A mode of the processor says so with its `context`.
        free_dimensions: Whether the mode takes models with free dimensions besides the batch (`Signature.free`).
    """

    load: Callable[[Path, Signature, int], Run]
    files: str
    run_lines: Callable[[ExampleCall], str]
    runs_with: tuple[str, ...] = ()
    seconds: float = 30.0
    seconds_per_100mb: float | None = None
    speedup: float | None = None
    infeasible: Callable[[str], str | None] = _nothing
    numerics: Callable[[str], str | None] = _nothing
    context: Callable[[str], str | None] = _nothing
    convert: Callable[[Path, Path], None] | None = None
    quantizers: Registry[Any, OwnQuantizerOptions] | None = None
    takes_any_threads: bool = False
    names_its_libraries: bool = False
    free_dimensions: bool = True
    is_machine_code: bool = False


Compiler = Callable[[CompileJob, Path], Signature]

modes: Registry[Compiler, ModeOptions] = Registry("compile.mode", ModeOptions)
"""Modes that run on the processor."""
cuda_modes: Registry[Compiler, ModeOptions] = Registry("compile.mode on cuda", ModeOptions)
"""Modes that run on an NVIDIA GPU."""
BY_DEVICE = {"cpu": modes, "cuda": cuda_modes}


def modes_on(device: str) -> Registry[Compiler, ModeOptions]:
    """Return the modes that run on devices of this kind."""
    return BY_DEVICE[device]


def mode_names() -> tuple[str, ...]:
    """Names of all modes, whatever device they run on: those of the processor first."""
    return tuple(dict.fromkeys(name for registry in BY_DEVICE.values() for name in registry.names()))


def every_mode() -> Iterator[Method[Compiler, ModeOptions]]:
    """Every mode of every device."""
    for registry in BY_DEVICE.values():
        yield from registry


import_all(sys.modules[__name__])

"""Compile: turn a graph into what production runs.

A mode is one file of this folder. It registers a function that writes the artifact, and names the one that loads it again::

    @modes.register("name", load=load_name)
    def compile_name(job: Job, folder: Path) -> Signature: ...

    def load_name(folder: Path, signature: Signature, threads: int) -> Run: ...

Options besides `load`, all of them optional, and functions of the dtype where nothing else is said:

    infeasible   reason why the mode cannot run it here, or None; cheap, compiles nothing
    graph        the dtype whose exported graph the mode starts from; the dtype itself where nothing is said
    numerics     name of the arithmetic; pairs of one name share one accuracy; the dtype and its version where nothing is said
    seconds      a plain number: what the mode takes until it runs, on one core, before anything was measured
    context      what else decides the artifact, such as threads or the instruction set, as a string
    convert      not a function of the dtype but (graph, folder) -> None: writes to `folder` what the mode makes of a graph before
                 it looks at the dtype, such as the same graph in the mode's own format. All dtypes of the graph share it, and
                 `compile_name` gets `folder` as its `job.graph`. Raise the mode's version when what it writes changes
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from autocut.registry import Registry, import_all
from autocut.stages.graph import Signature
from autocut.task.batches import Inputs

Run = Callable[..., Tensor]
"""Takes the input tensors by position."""


@dataclass(frozen=True)
class Job:
    """What a mode compiles: the graph in folder `graph`, for `dtype`, to be served in batches of `batch_sizes`.

    Where the mode registers `convert`, the folder holds what that has made of the graph. Others share it: nothing in it may change.
    """

    graph: Path
    signature: Signature
    dtype: str
    calibration: Sequence[Inputs]
    batch_sizes: tuple[int, ...]


Compiler = Callable[[Job, Path], Signature]

modes: Registry[Compiler] = Registry("compile.mode")

import_all(sys.modules[__name__])

"""The exported graph: every quantized module is exported to one, and every compile mode starts from one.

A graph folder holds two files. Neither needs the user's code:

    graph.pt2         a `torch.export` archive without sample inputs; takes the input tensors by position, gives one tensor
    signature.json    how the task calls its model: form, names, shapes and dtypes of the inputs

The batch dimension is dynamic from 1 upwards.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram

from autocut.errors import BundleError
from autocut.stages.archive import read_archive
from autocut.stages.compilers import quietly, translated
from autocut.task.batches import Inputs, batch_length, call, pad, take, tensors
from autocut.task.exporting import export_program

GRAPH_VERSION = 2
"""Part of the key of each stage that starts from a graph: raise it when graph folders change."""
GRAPH_FILE = "graph.pt2"
SIGNATURE_FILE = "signature.json"

_EXAMPLE_BATCH = 32  # more than 1, because torch takes an example of 1 for a constant


@dataclass(frozen=True)
class Signature:
    """How a task calls its model; the leading None of each shape is the batch.

    `batch_sizes` are the only sizes that the compiled code takes; None means any. `freezing` says whether a compiler that works at
    load time may fold weights.
    """

    form: str  # "tensor" | "tuple" | "dict"
    names: tuple[str, ...]
    shapes: tuple[tuple[int | None, ...], ...]
    dtypes: tuple[str, ...]
    batch_sizes: tuple[int, ...] | None = None
    freezing: bool = True

    @staticmethod
    def of(inputs: Inputs) -> Signature:
        """Return the signature of one batch."""
        named = tensors(inputs)
        form = "tensor" if isinstance(inputs, Tensor) else "tuple" if isinstance(inputs, tuple) else "dict"
        return Signature(
            form,
            tuple(named),
            tuple((None, *tensor.shape[1:]) for tensor in named.values()),
            tuple(str(tensor.dtype).removeprefix("torch.") for tensor in named.values()),
        )

    @staticmethod
    def read(folder: Path) -> Signature:
        """Read `signature.json`.

        Raises:
            BundleError: the file is missing or damaged.
        """
        path = folder / SIGNATURE_FILE
        try:
            document = json.loads(path.read_text())
            sizes = document["batch_sizes"]
            return Signature(
                str(document["form"]),
                tuple(document["names"]),
                tuple(tuple(shape) for shape in document["shapes"]),
                tuple(document["dtypes"]),
                None if sizes is None else tuple(sizes),
                bool(document["freezing"]),
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BundleError(f"{path} must be a readable signature, got {error!r}", "export the model again") from None

    def write(self, folder: Path) -> None:
        """Write `signature.json`."""
        (folder / SIGNATURE_FILE).write_text(json.dumps(asdict(self), indent=1) + "\n")

    def compiled_for(self, batch_sizes: Iterable[int], *, freezing: bool = True) -> Signature:
        """Return the signature of a compiled form that takes only batches of `batch_sizes`."""
        return replace(self, batch_sizes=tuple(sorted(set(batch_sizes))), freezing=freezing)

    def placeholder(self, batch_size: int) -> tuple[Tensor, ...]:
        """Zeros in the shapes of the inputs, for compilers that need an example call."""
        return tuple(
            torch.zeros([batch_size if size is None else size for size in shape], dtype=getattr(torch, dtype))
            for shape, dtype in zip(self.shapes, self.dtypes, strict=True)
        )

    def positional(self, inputs: Inputs) -> tuple[Tensor, ...]:
        """Tensors of `inputs` in the order of the graph, contiguous.

        Names, shapes and dtypes are checked here, because machine code checks nothing and would read the wrong memory.

        Raises:
            ValueError: an input is missing, superfluous, or of another dtype or shape than the model was exported with.
        """
        named = tensors(inputs)
        if named.keys() != set(self.names):
            raise ValueError(f"model takes the inputs {', '.join(self.names)}, got {', '.join(named)}")
        for name, shape, dtype in zip(self.names, self.shapes, self.dtypes, strict=True):
            tensor = named[name]
            if tensor.dtype is not getattr(torch, dtype) or tensor.dim() != len(shape) or tensor.shape[1:] != shape[1:]:
                sizes = ", ".join("n" if size is None else str(size) for size in shape)
                raise ValueError(f"input {name} must be {dtype} of shape ({sizes}), got {tensor.dtype} of {tuple(tensor.shape)}")
        return tuple(named[name].contiguous() for name in self.names)


class PositionalModel(nn.Module):
    """Wraps a model of any calling form so that it takes tensors by position and returns one tensor."""

    def __init__(self, model: nn.Module, signature: Signature) -> None:
        super().__init__()
        self.model = model
        self.form = signature.form
        self.names = signature.names

    def forward(self, *arguments: Tensor) -> Tensor:
        """Call the model in its own form and pick the output tensor."""
        if self.form == "dict":
            return call(self.model, dict(zip(self.names, arguments, strict=True)))
        return call(self.model, arguments)


def export_model(model: nn.Module, inputs: Inputs) -> ExportedProgram:
    """Export `model`, called in the form of `inputs`, with a dynamic batch dimension.

    Raises:
        CompilerError: `torch.export` refuses the model, or fixes the batch size.
    """
    batch = Dim("batch", min=1)
    example = pad(take(inputs, _EXAMPLE_BATCH), max(2, min(batch_length(inputs), _EXAMPLE_BATCH)))
    shapes = torch.export.ShapesCollection()  # type: ignore[no-untyped-call]
    for tensor in tensors(example).values():
        shapes[tensor] = {0: batch}
    arguments = () if isinstance(example, dict) else (example,) if isinstance(example, Tensor) else example
    keywords = example if isinstance(example, dict) else None
    with translated("torch.export"):
        return export_program(model, arguments, keywords, shapes)


def save_graph(program: ExportedProgram, signature: Signature, folder: Path) -> None:
    """Write a graph folder.

    Two things are left out: the sample inputs, because torch would pickle them, and the line of source of each operation. These
    lines are most of a small graph, and do not concern the people who get the model.
    """
    program._example_inputs = None  # torch 2.13: `export.save` has no switch for it
    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)
    with translated("torch.export"), quietly():
        torch.export.save(program, folder / GRAPH_FILE)
    signature.write(folder)


def load_graph(folder: Path) -> ExportedProgram:
    """Read the graph in `folder` without unpickling anything.

    Raises:
        BundleError: the archive is damaged or would need a pickle.
    """
    with quietly():
        # Graphs made by the int8 quantizers call operators that torchao registers on import.
        import torchao.quantization.pt2e.quantizer.x86_inductor_quantizer
        import torchao.quantization.quant_primitives  # noqa: F401

        return read_archive(folder / GRAPH_FILE)

"""The exported graph: every quantized module is exported to one, and every compile mode starts from one.

A graph folder holds two files. Neither needs the user's code:

    graph.pt2         a `torch.export` archive without sample inputs; takes the input tensors by position, gives one tensor
    signature.json    how the task calls its model: form, names, shapes and dtypes of the inputs

The batch dimension is free from 1 upwards. Other dimensions are free where the task names them (`autocut.task.dimensions`), within
the limits that `torch.export` finds in the model's code.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram

from autocut.errors import BundleError, quoted
from autocut.stages.archive import read_archive
from autocut.stages.compilers import quietly, translated
from autocut.task.batches import Inputs, batch_length, pad, take, tensors
from autocut.task.dimensions import Dynamic, NamedShape, named_shape
from autocut.task.exporting import Free, PositionalModel, export_program

GRAPH_VERSION = 2
"""Part of the key of each stage that starts from a graph: raise it when graph folders change."""
GRAPH_FILE = "graph.pt2"
SIGNATURE_FILE = "signature.json"

Limits = tuple[int, int | None]
"""Smallest and largest size of a free dimension; None means any."""

_ASSUMED_LEAST = 2
_UNBOUNDED = 2**31  # torch writes several sorts of infinity
_EXAMPLE_BATCH = 32  # more than 1, because torch takes an example of 1 for a constant


@dataclass(frozen=True)
class Signature:
    """How a task calls its model; the leading None of each shape is the batch, a name is a free dimension.

    `batch_sizes` are the only sizes that the compiled code takes; None means any. `freezing` says whether a compiler that works at
    load time may fold weights. `limits` holds the smallest and the largest size of each free dimension (None: any), by its name,
    and `output` the shape of the output; both only where a dimension is free.
    """

    form: str  # "tensor" | "tuple" | "dict"
    names: tuple[str, ...]
    shapes: tuple[NamedShape, ...]
    dtypes: tuple[str, ...]
    batch_sizes: tuple[int, ...] | None = None
    freezing: bool = True
    limits: Mapping[str, Limits] = field(default_factory=dict)
    output: NamedShape | None = None

    @staticmethod
    def of(inputs: Inputs, dynamic: Dynamic | None = None) -> Signature:
        """Return the signature of one batch, with the free dimensions of `dynamic`."""
        named = tensors(inputs)
        form = "tensor" if isinstance(inputs, Tensor) else "tuple" if isinstance(inputs, tuple) else "dict"
        return Signature(
            form,
            tuple(named),
            tuple(named_shape(name, tensor.shape, dynamic) for name, tensor in named.items()),
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
            return _signature_of(json.loads(path.read_text()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
            raise BundleError(f"{path} must be a readable signature, got {quoted(error)}", "export the model again") from None

    def write(self, folder: Path) -> None:
        """Write `signature.json`. A model without free dimensions gets the file that it always got."""
        document = {name: value for name, value in asdict(self).items() if name not in ("limits", "output") or value}
        (folder / SIGNATURE_FILE).write_text(json.dumps(document, indent=1) + "\n")

    def compiled_for(self, batch_sizes: Iterable[int], *, freezing: bool = True) -> Signature:
        """Return the signature of a compiled form that takes only batches of `batch_sizes`."""
        return replace(self, batch_sizes=tuple(sorted(set(batch_sizes))), freezing=freezing)

    @property
    def free(self) -> Free:
        """The free dimensions of each input, besides the batch."""
        return tuple(tuple(axis for axis, size in enumerate(shape) if isinstance(size, str)) for shape in self.shapes)

    @property
    def dynamic(self) -> Dynamic:
        """The free dimensions by input, as `Task.dynamic` names them."""
        named = {
            name: {axis: size for axis, size in enumerate(shape) if isinstance(size, str)}
            for name, shape in zip(self.names, self.shapes, strict=True)
        }
        return {name: axes for name, axes in named.items() if axes}

    def placeholder(self, batch_size: int) -> tuple[Tensor, ...]:
        """Zeros in the shapes of the inputs, for compilers that need an example call.

        Raises:
            ValueError: a dimension is free, so the shape is not known.
        """
        if any(self.free):
            raise ValueError(f"a placeholder must have known shapes, got {self.shapes}")
        return tuple(
            torch.zeros([size if isinstance(size, int) else batch_size for size in shape], dtype=getattr(torch, dtype))
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
        sizes: dict[str, int] = {}
        for name, shape, dtype in zip(self.names, self.shapes, self.dtypes, strict=True):
            tensor = named[name]
            fits = tensor.dim() == len(shape) and (tensor.shape[1:] == shape[1:] or _fits(tensor.shape, shape, sizes))
            if not fits or tensor.dtype is not getattr(torch, dtype):
                spelled = ", ".join("n" if size is None else str(size) for size in shape)
                known = "".join(f" with {free} {size}" for free, size in sizes.items() if free in shape)
                got = f"{tensor.dtype} of {tuple(tensor.shape)}"
                raise ValueError(f"input {name} must be {dtype} of shape ({spelled}){known}, got {got}")
        for free, (least, most) in self.limits.items():
            if not least <= sizes[free] <= (sizes[free] if most is None else most):
                raise ValueError(f"{free} must be {least} or more{'' if most is None else f', up to {most}'}, got {sizes[free]}")
        return tuple(named[name].contiguous() for name in self.names)


def _signature_of(document: Any) -> Signature:
    """Return the signature that a file holds. It may come from a stranger: what it says names files and the memory that is read.

    Raises:
        ValueError: it does not fit together, or is none. So may `KeyError`, `TypeError`, `AttributeError` and `IndexError`.
    """
    names, shapes, dtypes, sizes = (document[name] for name in ("names", "shapes", "dtypes", "batch_sizes"))
    limits = {name: (least, most) for name, (least, most) in document.get("limits", {}).items()}
    output = document.get("output")
    free = {size for shape in shapes for size in shape if isinstance(size, str)}
    rules = {
        "form": document["form"] in ("tensor", "tuple", "dict") and (document["form"] != "tensor" or len(names) == 1),
        "names": isinstance(names, list) and all(isinstance(name, str) for name in names) and len({*names}) == len(names) > 0,
        "shapes": len(shapes) == len(names) and all(map(_is_shape, shapes)),
        "dtypes": len(dtypes) == len(names) and all(isinstance(getattr(torch, name, None), torch.dtype) for name in dtypes),
        "batch_sizes": sizes is None or (all(_is_size(size) for size in sizes) and sorted({*sizes}) == sizes != []),
        "limits": {*limits} <= free
        and all(_is_size(least) and (most is None or _is_size(most)) for least, most in limits.values()),
        "output": not output or _is_shape(output),
    }
    if broken := [name for name, holds in rules.items() if not holds]:
        raise ValueError(f"no such {broken[0]}: {document.get(broken[0])}")
    return Signature(
        document["form"], tuple(names), tuple(map(tuple, shapes)), tuple(dtypes), None if sizes is None else tuple(sizes),
        bool(document["freezing"]), limits, tuple(output) if output else None,
    )  # fmt: skip


def _is_shape(shape: Any) -> bool:
    """Whether `shape` is a list of the batch, None, and of sizes and names."""
    return isinstance(shape, list) and shape[0] is None and all(isinstance(size, str) or _is_size(size, 0) for size in shape[1:])


def _is_size(size: Any, least: int = 1) -> bool:
    return isinstance(size, int) and not isinstance(size, bool) and size >= least


def _fits(sizes: Sequence[int], shape: NamedShape, free: dict[str, int]) -> bool:
    """Whether a tensor of `sizes` has `shape`; `free` gets the size of each name, and holds those of the tensors before."""
    return all(
        size == (free.setdefault(wanted, size) if isinstance(wanted, str) else wanted)
        for size, wanted in zip(sizes[1:], shape[1:], strict=True)
    )


def free_dimensions(model: nn.Module) -> Free:
    """The free dimensions of each input of `model`, if `lower_graph` made it; a quantizer that exports hands them on."""
    return model.free if isinstance(model, PositionalModel) else ()


def export_model(model: nn.Module, inputs: Inputs, free: Free = ()) -> ExportedProgram:
    """Export `model`, called in the form of `inputs`, with a free batch dimension.

    Args:
        model: Called in the form of `inputs`.
        inputs: A batch; a few rows are used.
        free: Other free dimensions, for each input in order. `torch.export` finds out which sizes the model takes.

    Raises:
        CompilerError: `torch.export` refuses the model, or fixes the batch size or a free dimension.
    """
    batch = Dim("batch", min=1)
    example = pad(take(inputs, _EXAMPLE_BATCH), max(2, min(batch_length(inputs), _EXAMPLE_BATCH)))
    shapes = torch.export.ShapesCollection()  # type: ignore[no-untyped-call]
    for tensor, axes in itertools.zip_longest(tensors(example).values(), free, fillvalue=()):
        shapes[tensor] = {0: batch} | dict.fromkeys(axes, Dim.DYNAMIC)
    arguments = () if isinstance(example, dict) else (example,) if isinstance(example, Tensor) else example
    keywords = example if isinstance(example, dict) else None
    with translated("torch.export"):
        return export_program(model, arguments, keywords, shapes)


def with_limits(signature: Signature, program: ExportedProgram) -> Signature:
    """Return `signature` with what `program` says of its free dimensions: the sizes that it takes, and the shape of the output.

    torch counts from 2, because it takes 0 and 1 for constants. That is no limit of the model: it counts as 1 here.
    """
    if not any(signature.free):
        return signature
    limits: dict[str, Limits] = {}
    symbols: dict[Any, Any] = {}
    values = {node.name: node.meta["val"] for node in program.graph.nodes if "val" in node.meta}
    for shape, name in zip(signature.shapes, program.graph_signature.user_inputs, strict=True):
        for free, size in zip(shape, values[str(name)].shape, strict=True):
            if isinstance(free, str):
                limits[free] = _both(limits.get(free, (1, None)), _limits_of(size, program))
                symbols[size.node.expr] = type(size.node.expr)(free)
    output = values[str(program.graph_signature.user_outputs[0])].shape
    named = (size if isinstance(size, int) else str(size.node.expr.xreplace(symbols)) for size in output[1:])
    return replace(signature, limits=limits, output=(None, *named))


def _limits_of(size: Any, program: ExportedProgram) -> Limits:
    bounds = program.range_constraints.get(size.node.expr)
    if bounds is None:
        return 1, None
    least = int(bounds.lower)
    return least if least > _ASSUMED_LEAST else 1, int(bounds.upper) if bounds.upper < _UNBOUNDED else None


def _both(one: Limits, other: Limits) -> Limits:
    """The sizes that are within both limits."""
    most = [limits[1] for limits in (one, other) if limits[1] is not None]
    return max(one[0], other[0]), min(most, default=None)


def save_graph(program: ExportedProgram, signature: Signature, folder: Path) -> None:
    """Write a graph folder.

    Two things are left out: the sample inputs, because torch would pickle them, and the line of source and the history of each
    operation. They are most of a small graph, and do not concern the people who get the model.
    """
    program._example_inputs = None  # torch 2.13: `export.save` has no switch for it
    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)
            node.meta.pop("from_node", None)  # what it was in the graph before conversion
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

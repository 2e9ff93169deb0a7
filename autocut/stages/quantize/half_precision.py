"""Shared by the dtypes of 16-bit floating point: convert the exported graph, not the module.

`module.to(torch.bfloat16)` fails on every model that makes a float32 tensor inside: a mask, pixels / 255, a spectrogram. So the
graph is converted by the rules of autocast. Matrix products and convolutions compute in 16 bits, and their weights are stored so.
Other operators take what they get. An operator stays in float32 if it gets both, if it has no kernel of 16 bits, or if its numbers
leave the range of 16 bits. Inputs and outputs of the model stay as they are.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from autocut.errors import InfeasibleRecipeError
from autocut.stages.calibration import in_steps
from autocut.stages.compilers import quietly, translated
from autocut.stages.graph import export_model, free_dimensions
from autocut.task.batches import Inputs, take, tensors

_ATEN = torch.ops.aten
_PRODUCTS = frozenset(
    (
        _ATEN.linear, _ATEN.matmul, _ATEN.mm, _ATEN.bmm, _ATEN.addmm, _ATEN.baddbmm, _ATEN.addbmm, _ATEN.mv, _ATEN.addmv,
        _ATEN.einsum, _ATEN.scaled_dot_product_attention, _ATEN.conv1d, _ATEN.conv2d, _ATEN.conv3d, _ATEN.convolution,
        _ATEN.conv_transpose1d, _ATEN.conv_transpose2d, _ATEN.conv_transpose3d, _ATEN.lstm, _ATEN.gru,
    )
)  # fmt: skip
"""What computes in 16 bits: what autocast lists for processors, and recurrent layers. Names as in graphs of torch 2.13."""
_LOOKUPS = frozenset((_ATEN.embedding,))
"""Their weights are stored in 16 bits, but they compute nothing."""
_NORMS = frozenset((_ATEN._native_batch_norm_legit_no_training, _ATEN.batch_norm, _ATEN.layer_norm, _ATEN.group_norm))
"""They take numbers of 16 bits beside weights of 32, and sum in float32."""
_SENSITIVE = frozenset(
    (
        _ATEN.pow,
        _ATEN.exp,
        _ATEN.expm1,
        _ATEN.log,
        _ATEN.log2,
        _ATEN.log10,
        _ATEN.log1p,
        _ATEN.rsqrt,
        _ATEN.reciprocal,
        _ATEN.cumsum,
        _ATEN.cumprod,
        _ATEN.prod,
        _ATEN.norm,
        _ATEN.logsumexp,
    )
)
"""What autocast keeps in float32 on accelerators: it loses more digits than 16 bits have."""
_ASSERTIONS = frozenset((_ATEN._assert_tensor_metadata,))
"""The exporter notes at each cast the dtype that it found. That is no longer true afterwards."""

_TRIAL_EXAMPLES = 8
"""A large model takes a second an example, and each operator runs up to three times."""
_AS_WIDE = 0.9


def convert_to_half(model: nn.Module, calibration: Sequence[Inputs], name: str, dtype: torch.dtype) -> nn.Module:
    """Export `model` and let its products and convolutions compute in `dtype`.

    Args:
        model: Takes and gives float32 or integers. Not modified.
        calibration: Batches of typical inputs. They show which operators have no kernel for `dtype`, and which leave its range.
        name: The dtype's name, for errors.
        dtype: A floating dtype of 16 bits.

    Returns:
        A graph that takes the tensors of a batch by position.

    Raises:
        InfeasibleRecipeError: no product of the model computes in `dtype`.
        CompilerError: the model cannot be exported.
    """
    program = export_model(copy.deepcopy(model).eval(), calibration[0], free_dimensions(model))
    with translated("torch.export"), quietly(), torch.no_grad():
        # Without in-place operators: they would write to the copy that a cast makes.
        module = program.run_decompositions({}).module(check_guards=False)
    if not isinstance(module, fx.GraphModule):
        raise TypeError(f"torch.export must give a graph, got {type(module).__name__}")
    _loosen(module)
    trial = _Trial(module, dtype)
    with translated("torch"), quietly(), torch.no_grad():
        trial.settle(_trial_batches(calibration, dtype))
        if not any(choice is dtype and _operator(node) in _PRODUCTS for node, choice in trial.choices.items()):
            raise InfeasibleRecipeError(
                f"{name} must change at least one product or convolution, but the model has none that it can"
            )
        _insert_casts(module, trial)
    return module


def _trial_batches(calibration: Sequence[Inputs], dtype: torch.dtype) -> list[Inputs]:
    """Return a few examples: they show which kernels there are. Whose range is that of float32 needs no more than one batch."""
    is_as_wide = torch.finfo(dtype).max > _AS_WIDE * torch.finfo(torch.float32).max
    return [take(inputs, _TRIAL_EXAMPLES) for inputs in calibration[: 1 if is_as_wide else None]]


class _Trial(fx.Interpreter):
    """Runs a graph on real numbers and chooses a dtype for each operator; None leaves its arguments as they are.

    `choices` and `dtypes` (of what each node gives) are those of the last run. `constants` holds what depends on no input.
    """

    def __init__(self, module: fx.GraphModule, dtype: torch.dtype) -> None:
        super().__init__(module)
        self.dtype = dtype
        self.choices: dict[fx.Node, torch.dtype | None] = {}
        self.dtypes: dict[fx.Node, torch.dtype] = {}
        self.constants: dict[fx.Node, Tensor] = {}
        self._stays_float: set[fx.Node] = set()

    def settle(self, calibration: Sequence[Inputs]) -> None:
        """Run all batches, until no operator changes its dtype."""
        before = -1
        while before != len(self._stays_float):
            before = len(self._stays_float)
            for inputs in in_steps(calibration):
                self.run(*tensors(inputs).values())

    def run_node(self, n: fx.Node) -> Any:
        """Run one operator in the dtype that suits it."""
        if n.op != "call_function":
            result = super().run_node(n)
        else:
            args, kwargs = self.fetch_args_kwargs_from_env(n)
            result = self._run_operator(n, args, kwargs)
        if isinstance(result, Tensor):
            self.dtypes[n] = result.dtype
            if n.op == "get_attr" or (n.op == "call_function" and self._is_constant(n)):
                self.constants[n] = result
        return result

    def _is_constant(self, node: fx.Node) -> bool:
        is_random = isinstance(node.target, torch._ops.OpOverload) and torch.Tag.nondeterministic_seeded in node.target.tags
        inputs = node.all_input_nodes
        return bool(inputs) and not is_random and all(source in self.constants for source in inputs)

    def _run_operator(self, node: fx.Node, args: Any, kwargs: Any) -> Any:
        found = {leaf.dtype for leaf in tree_leaves((args, kwargs)) if _is_float(leaf)}
        for choice in self._wanted(node, found):
            self.choices[node] = choice
            try:
                result = node.target(*_cast(args, choice), **_cast(kwargs, choice))  # type: ignore[operator]
            except (RuntimeError, NotImplementedError):
                continue  # no kernel for this dtype
            if choice is torch.float32 or self.dtype not in found | {choice} or _is_finite(result):
                return result
            in_float = node.target(*_cast(args, torch.float32), **_cast(kwargs, torch.float32))  # type: ignore[operator]
            if not _is_finite(in_float):
                return result  # infinite by intention, such as a mask
            self._stays_float.add(node)
        self.choices[node] = torch.float32
        return node.target(*_cast(args, torch.float32), **_cast(kwargs, torch.float32))  # type: ignore[operator]

    def _wanted(self, node: fx.Node, found: set[torch.dtype]) -> list[torch.dtype | None]:
        """Dtypes to try, before float32."""
        operator = _operator(node)
        if node in self._stays_float or not found or not found <= {torch.float32, self.dtype}:
            return [] if self.dtype in found else [None]
        if operator in _PRODUCTS or operator in _LOOKUPS:
            return [self.dtype]
        if self.dtype not in found or operator in _NORMS:
            return [None]
        is_mixed = len(found) > 1 or operator in _SENSITIVE or operator is None
        return [] if is_mixed else [None]


def _operator(node: fx.Node) -> torch._ops.OpOverloadPacket | None:
    """Return an operator of torch, whatever its overload; None for Python's own functions and for control flow."""
    return node.target.overloadpacket if isinstance(node.target, torch._ops.OpOverload) else None


def _is_float(value: object) -> bool:
    return isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex())


def _cast(values: Any, dtype: torch.dtype | None) -> Any:
    """Cast the floating tensors in `values`, but not complex ones."""
    if dtype is None:
        return values
    return tree_map_only(Tensor, lambda tensor: tensor.to(dtype) if tensor.is_floating_point() else tensor, values)


def _is_finite(result: Any) -> bool:
    return all(bool(leaf.isfinite().all()) for leaf in tree_leaves(result) if _is_float(leaf))


def _loosen(module: fx.GraphModule) -> None:
    """Drop what the exporter took for granted: dtypes at casts, and how a product lies in memory."""
    for node in list(module.graph.nodes):
        if node.target in (torch.ops.aten.view.default, torch.ops.aten._unsafe_view.default):
            node.target = torch.ops.aten.reshape.default
        elif _operator(node) in _ASSERTIONS:
            module.graph.erase_node(node)


def _insert_casts(module: fx.GraphModule, trial: _Trial) -> None:
    """Write the choices of `trial` into the graph. What depends on no input is cast beforehand and stored."""
    casts: dict[tuple[fx.Node, torch.dtype], fx.Node] = {}
    stored: dict[int, str] = {}

    def cast(source: fx.Node, dtype: torch.dtype) -> fx.Node:
        found = trial.dtypes.get(source)
        if found is None or not found.is_floating_point or found is dtype:
            return source
        if (source, dtype) not in casts:
            with module.graph.inserting_after(source):
                constant = trial.constants.get(source)
                if constant is not None and dtype is trial.dtype and constant.numel() <= _numbers_behind(source, trial):
                    name = stored.setdefault(id(constant), f"half_{len(stored)}")
                    setattr(module, name, nn.Parameter(constant.to(dtype), requires_grad=False))
                    casts[source, dtype] = module.graph.get_attr(name)
                else:
                    casts[source, dtype] = module.graph.call_function(torch.ops.aten.to.dtype, (source, dtype))
        return casts[source, dtype]

    for node in list(module.graph.nodes):
        choice = torch.float32 if node.op == "output" else trial.choices.get(node)
        if choice is not None:
            for source in node.all_input_nodes:
                node.replace_input_with(source, cast(source, choice))
    module.graph.eliminate_dead_code()
    module.graph.lint()
    module.recompile()
    drop_unused(module)


def _numbers_behind(node: fx.Node, trial: _Trial) -> int:
    """How many numbers are stored for a constant: what is expanded from a few is not worth storing."""
    if node.op == "get_attr":
        return trial.constants[node].numel()
    return sum(_numbers_behind(source, trial) for source in node.all_input_nodes)


def drop_unused(module: fx.GraphModule) -> None:
    """Drop the float weights that conversion leaves behind. Nothing reads them, but they would be saved."""
    used = {str(node.target) for node in module.graph.nodes if node.op == "get_attr"}
    for name in [name for name, _ in _weights(module) if name not in used]:
        owner, _, attribute = name.rpartition(".")
        delattr(module.get_submodule(owner), attribute)


def _weights(module: fx.GraphModule) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)

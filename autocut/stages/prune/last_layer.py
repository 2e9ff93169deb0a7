"""Repair without training: the last linear layer learns to answer as before the cut, by least squares."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from autocut.task.batches import Inputs, call
from autocut.task.splits import spread
from autocut.task.task import evaluation_mode

_ROWS = 512
"""Of a batch so many rows count at most, and each position of a sequence is a row..."""
_NUMBERS = 1 << 22
"""... and fewer where each row has many answers."""
_HELD_OUT = 4
"""One row of so many is not fitted: it tells which ridge is best, and whether any of them is better than none."""
_RIDGES = (0.01, 0.1, 1.0, 10.0)
"""Weights of staying as it was, relative to the mean variance of a column."""


@torch.no_grad()
def refit_last_layer(pruned: nn.Module, whole: nn.Module, batches: Sequence[tuple[Inputs, Tensor]]) -> None:
    """Change the last linear layer of `pruned`, in place, so that the model answers on `batches` as `whole` does.

    A cut changes the features that the last layer reads. What this changes in its answers is predicted from the features that are
    left, by ridge regression (with an intercept where the layer has a bias), and taken back. Examples that are held out choose the
    ridge. Nothing changes where they are not answered better, or where the model's answer is not the output of a linear layer with
    a weight of its own that runs once.

    References:
        Kwon et al. 2022 (the same for the layers of a transformer), https://arxiv.org/abs/2204.09656
    """
    inputs = [given for given, _ in batches]
    with evaluation_mode(pruned), evaluation_mode(whole):
        layer = _last_layer(pruned, inputs[0]) if inputs else None
        if layer is None:
            return
        read, missing = _rows(pruned, whole, layer, inputs)
    if not (read.isfinite().all() and missing.isfinite().all()):
        return  # whoever scores or trains the model says so
    if (found := _regression(read, missing, has_intercept=layer.bias is not None)) is not None:
        change, shift = found
        layer.weight.add_(change)
        if layer.bias is not None:
            layer.bias.add_(shift)


def _last_layer(model: nn.Module, inputs: Inputs) -> nn.Linear | None:
    """Return the linear layer whose output is the answer of `model`; None where there is none that can be changed by itself."""
    ran: list[tuple[nn.Linear, Tensor]] = []

    def note(module: nn.Module, _: object, output: Tensor) -> None:
        if isinstance(module, nn.Linear):
            ran.append((module, output))

    hooks = [module.register_forward_hook(note) for module in model.modules() if isinstance(module, nn.Linear)]
    try:
        answer = call(model, inputs)
    finally:
        for hook in hooks:
            hook.remove()
    if not ran:
        return None
    layer, output = ran[-1]
    owners = sum(parameter is layer.weight for _, parameter in model.named_parameters(remove_duplicate=False))
    is_answer = output.shape == answer.shape and output.data_ptr() == answer.data_ptr()
    return layer if is_answer and owners == 1 and [module for module, _ in ran].count(layer) == 1 else None


def _rows(pruned: nn.Module, whole: nn.Module, layer: nn.Linear, inputs: Sequence[Inputs]) -> tuple[Tensor, Tensor]:
    """Return what `layer` reads, shape (rows, in), and what its answers lack, shape (rows, out)."""
    reads: list[Tensor] = []
    missing: list[Tensor] = []
    most = max(1, min(_ROWS, _NUMBERS // layer.out_features))
    hook = layer.register_forward_pre_hook(lambda _, args: reads.append(args[0].flatten(0, -2)))
    try:
        for given in inputs:
            lack = (call(whole, given) - call(pruned, given)).flatten(0, -2)
            chosen = spread(len(lack), most)
            reads[-1] = reads[-1][chosen]
            missing.append(lack[chosen])
    finally:
        hook.remove()
    return torch.cat(reads).double(), torch.cat(missing).double()


def _regression(read: Tensor, missing: Tensor, *, has_intercept: bool) -> tuple[Tensor, Tensor] | None:
    """Return what to add to the weight and the bias, by the ridge that is best on the rows held out; None where none helps."""
    fitted = len(read) - len(read) // _HELD_OUT
    mean = read[:fitted].mean(0) if has_intercept else torch.zeros_like(read[0])
    level = missing[:fitted].mean(0) if has_intercept else torch.zeros_like(missing[0])
    left, sizes, right = torch.linalg.svd(read[:fitted] - mean, full_matrices=False)
    projected = left.T @ (missing[:fitted] - level)
    best, least = None, float(missing[fitted:].square().sum())
    for ridge in _RIDGES:
        weight = ridge * sizes.square().sum() / read.shape[1]
        change = (right.T @ ((sizes / (sizes.square() + weight))[:, None] * projected)).T
        shift = level - change @ mean
        error = float((missing[fitted:] - read[fitted:] @ change.T - shift).square().sum())
        if error < least:
            best, least = (change.to(torch.get_default_dtype()), shift.to(torch.get_default_dtype())), error
    return best

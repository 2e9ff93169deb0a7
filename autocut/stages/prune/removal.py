"""Parts of hidden layers removed from a model, each under a check.

The check: with the removed columns of the reader set to zero, the model answers as it does when they are gone. Equal answers mean
that exactly these parts went. The layers have random weights meanwhile, with which no head is like another. A hidden layer for
which the answers differ is left whole.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from autocut.stages.prune.head_counts import HeadCounts, Number
from autocut.stages.prune.layers import TRACING_ERRORS, answer, first_line, is_close
from autocut.stages.prune.parts import Hidden
from autocut.task.batches import Inputs
from autocut.task.task import evaluation_mode


def remove_parts(model: nn.Module, kept: Mapping[Hidden, Tensor], inputs: Inputs) -> dict[Hidden, str]:
    """Keep only some parts of hidden layers of `model`, in place; return the layers that were left whole, and why.

    Args:
        model: Its linear layers are replaced by narrower ones, and numbers in its modules follow.
        kept: The sorted numbers of the parts that stay, at least one.
        inputs: A few examples, to compare answers.
    """
    known: dict[type[nn.Module], tuple[Number, ...]] = {}
    with evaluation_mode(model):
        reasons = {hidden: _remove(model, hidden, parts, inputs, known) for hidden, parts in kept.items()}
    return {hidden: reason for hidden, reason in reasons.items() if reason}


def _remove(
    model: nn.Module, hidden: Hidden, parts: Tensor, inputs: Inputs, known: dict[type[nn.Module], tuple[Number, ...]]
) -> str:
    """Remove all but `parts`; return why that cannot be, with everything as it was, or an empty string."""
    counts = HeadCounts(model, hidden, len(parts))
    twins = {name: _random_twin(model.get_submodule(name)) for name in (*hidden.writers, hidden.reader)}
    layers = _put(model, twins)
    wanted = _silenced_answer(model, hidden, parts, inputs)
    _put(model, _narrow(twins, hidden, parts))
    reasons: list[str] = []

    def is_right() -> bool:
        try:
            found = answer(model, inputs)
        except TRACING_ERRORS as error:
            reasons.append(first_line(error))
            return False
        if found.shape == wanted.shape and is_close(found, wanted):
            return True
        reasons.append("the model is another one without them")
        return False

    is_cut = counts.follow(is_right, known)
    _put(model, _narrow(layers, hidden, parts) if is_cut else layers)
    return "" if is_cut else reasons[0]


def _random_twin(layer: nn.Module) -> nn.Module:
    """Return a layer of random weights: untrained attention looks everywhere alike, and so with other heads too."""
    twin, generator = copy.deepcopy(layer), torch.Generator().manual_seed(0)
    for parameter in twin.parameters():
        noise = torch.randn(parameter.shape, generator=generator) * parameter.shape[-1] ** -0.5
        parameter.data.copy_(noise)
    return twin


@torch.no_grad()
def _silenced_answer(model: nn.Module, hidden: Hidden, parts: Tensor, inputs: Inputs) -> Tensor:
    weight = model.get_parameter(f"{hidden.reader}.weight")
    before = weight.detach().clone()
    gone = torch.ones(weight.shape[1], dtype=torch.bool)
    gone[hidden.columns(parts)] = False
    weight[:, gone] = 0
    found = answer(model, inputs)
    weight.copy_(before)
    return found


def _narrow(layers: Mapping[str, nn.Module], hidden: Hidden, parts: Tensor) -> dict[str, nn.Module]:
    narrow = {name: copy.deepcopy(layer) for name, layer in layers.items()}
    for name in hidden.writers:
        rows = hidden.rows(name, parts)
        narrow[name].out_features = len(rows)  # type: ignore[assignment]
        _keep(narrow[name], "weight", rows)
        _keep(narrow[name], "bias", rows)
    columns = hidden.columns(parts)
    narrow[hidden.reader].in_features = len(columns)  # type: ignore[assignment]
    _keep(narrow[hidden.reader], "weight", (slice(None), columns))
    return narrow


def _keep(layer: nn.Module, name: str, which: Tensor | tuple[slice, Tensor]) -> None:
    parameter = getattr(layer, name)
    if parameter is not None:
        setattr(layer, name, nn.Parameter(parameter.detach()[which].clone(), requires_grad=parameter.requires_grad))


def _put(model: nn.Module, layers: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """Put `layers` in their places, and return those that were there."""
    before = {name: model.get_submodule(name) for name in layers}
    for name, layer in layers.items():
        parent, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(parent), attribute, layer)
    return before

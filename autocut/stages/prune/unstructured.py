"""Single weights set to zero: a smaller compressed file, but no speed on dense kernels."""

from __future__ import annotations

import copy

from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune

from autocut.errors import InfeasibleRecipeError
from autocut.stages.prune import Pruned, PruneData, pruners
from autocut.stages.prune.layers import last_to_run, layers_of


@pruners.register("l1_unstructured")
def prune_l1_unstructured(model: nn.Module, ratio: float, data: PruneData) -> Pruned:
    """Zero the weights of smallest magnitude, ranked over all layers together.

    Weights of convolutions, linear layers and attention projections take part. Biases, normalization and embeddings do not. Neither
    does the layer that runs last, unless it is the only one: it has few weights, and every class depends on them. The tensors keep
    their shapes, so a dense kernel runs no faster. The example batch is run to find the layer that runs last.

    Raises:
        InfeasibleRecipeError: No layer takes part, or the ratio is less than one weight.

    References:
        Han et al. 2015, https://arxiv.org/abs/1506.02626; `torch.nn.utils.prune.global_unstructured`.
    """
    pruned = copy.deepcopy(model)
    weights = _prunable_weights(pruned, data)
    total = sum(module.get_parameter(name).numel() for module, name in weights)
    if round(ratio * total) < 1:
        raise InfeasibleRecipeError(f"prune.ratio {ratio} of {total} prunable weights removes none")
    torch_prune.global_unstructured(weights, pruning_method=torch_prune.L1Unstructured, amount=float(ratio))
    names = {module: name for name, module in pruned.named_modules()}
    masks: dict[str, Tensor] = {}
    for module, name in weights:
        masks[".".join(filter(None, (names[module], name)))] = module.get_buffer(f"{name}_mask").bool()
        torch_prune.remove(module, name)  # type: ignore[no-untyped-call]
    return Pruned(pruned, masks)


def _prunable_weights(model: nn.Module, data: PruneData) -> list[tuple[nn.Module, str]]:
    layers, last = layers_of(model), last_to_run(model, data.inputs)
    kept = [layer for layer in layers if layer is not last] if len(layers) > 1 else layers
    weights: list[tuple[nn.Module, str]] = [(layer, "weight") for layer in kept]
    attentions = [module for module in model.modules() if isinstance(module, nn.MultiheadAttention)]
    weights += [(module, "in_proj_weight") for module in attentions if module.in_proj_weight is not None]
    return _without_shared(weights)


def _without_shared(weights: list[tuple[nn.Module, str]]) -> list[tuple[nn.Module, str]]:
    """Keep the first owner of each tensor: a mask by name must meet exactly one parameter."""
    owners = {id(module.get_parameter(name)): (module, name) for module, name in reversed(weights)}
    return list(reversed(owners.values()))

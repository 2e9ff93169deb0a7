"""Folds weights that a model computes in every call into plain parameters.

Weight normalization, spectral normalization, orthogonal weights, a user's own parametrizations and the masks of
`torch.nn.utils.prune` replace a parameter by a function of others. Such a model cannot be copied or pickled, and the result of the
function is all that a served model needs. So `Task.build_model` folds them with the function that their library has for it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

from torch import Tensor, nn
from torch.nn.utils import parametrize, prune, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from autocut.counting import format_count

_PRUNING = "pruning mask"


@dataclass(frozen=True)
class Folded:
    """What was folded: the full names of the weights by the kind of computation, and the masks of pruned weights.

    A mask is True where a weight is kept, as in `stages.train`.
    """

    weights: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    masks: Mapping[str, Tensor] = field(default_factory=dict)

    def notes(self) -> list[str]:
        """One sentence for the user for each kind of computation."""
        return [
            f"task.model: {kind} of {_some(names)} is folded into plain weights"
            + (", and its zeros stay zero when the model is trained" if kind == _PRUNING else "")
            for kind, names in self.weights.items()
        ]


def fold_weights(model: nn.Module) -> Folded:
    """Replace every computed weight of `model`, which is in eval mode, by a parameter that has its present value."""
    weights: dict[str, tuple[str, ...]] = {}
    masks: dict[str, Tensor] = {}
    for name, module in list(model.named_modules()):
        for kind, tensor_name, fold in list(_computed(module)):
            full_name = f"{name}.{tensor_name}".lstrip(".")
            if kind == _PRUNING:
                masks[full_name] = getattr(module, f"{tensor_name}_mask").bool()
            trained = _is_trained(module, tensor_name)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch 2.13 calls the older functions deprecated
                fold()
            _make_parameter(module, tensor_name, requires_grad=trained)
            _forget_old_checkpoints(module)
            weights[kind] = (*weights.get(kind, ()), full_name)
    return Folded(weights, masks)


def _computed(module: nn.Module) -> Iterator[tuple[str, str, Callable[[], object]]]:
    """Kind, name and folding function of each computed weight that belongs to `module` itself."""
    if parametrize.is_parametrized(module):
        for name, parametrizations in module.parametrizations.items():  # type: ignore[union-attr, operator]  # torch 2.13: a ModuleDict
            kinds = " and ".join(_plain_name(type(part).__name__) for part in parametrizations)
            yield kinds, name, partial(parametrize.remove_parametrizations, module, name, leave_parametrized=True)
    for hook in module._forward_pre_hooks.values():  # these hooks are how the older functions of torch mark a module
        if isinstance(hook, WeightNorm):
            yield "weight_norm", hook.name, partial(remove_weight_norm, module, hook.name)
        elif isinstance(hook, SpectralNorm):
            yield "spectral_norm", hook.name, partial(remove_spectral_norm, module, hook.name)
        elif isinstance(hook, prune.BasePruningMethod):
            yield _PRUNING, hook._tensor_name, partial(prune.remove, module, hook._tensor_name)


def _plain_name(class_name: str) -> str:
    """Name of the function that users call: torch's classes are named ``_WeightNorm``, ``_SpectralNorm`` and ``_Orthogonal``."""
    known = {"_WeightNorm": "weight_norm", "_SpectralNorm": "spectral_norm", "_Orthogonal": "orthogonal"}
    return known.get(class_name, class_name)


def _is_trained(module: nn.Module, tensor_name: str) -> bool:
    """Whether one of the parameters that the weight is computed from requires grad."""
    if parametrize.is_parametrized(module, tensor_name):
        sources = module.get_submodule(f"parametrizations.{tensor_name}")
        return any(parameter.requires_grad for parameter in sources.parameters())
    parts = (f"{tensor_name}{suffix}" for suffix in ("_g", "_v", "_orig"))
    return any(name in module._parameters and module.get_parameter(name).requires_grad for name in parts)


def _make_parameter(module: nn.Module, tensor_name: str, *, requires_grad: bool) -> None:
    """Register the folded weight as a parameter: torch makes a buffer of one that is frozen."""
    setattr(module, tensor_name, nn.Parameter(getattr(module, tensor_name).detach(), requires_grad=requires_grad))


def _forget_old_checkpoints(module: nn.Module) -> None:
    """Remove the hook that torch (2.13) leaves on a module after weight normalization: it is a local function, so pickle fails."""
    hooks = module._load_state_dict_pre_hooks
    for key, hook in list(hooks.items()):
        if getattr(getattr(hook, "hook", hook), "__name__", "") == "_weight_norm_compat_hook":
            del hooks[key]


def _some(names: tuple[str, ...]) -> str:
    """The first name, and the number of the others."""
    others = len(names) - 1
    return names[0] + (f" and {format_count(others, 'other')}" if others else "")

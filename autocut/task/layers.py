"""Layers of a model by name, and what they get or give while the model answers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from torch import Tensor, nn


def layer_names(model: nn.Module) -> list[str]:
    """Return the names of all layers, as `nn.Module.get_submodule` takes them; the model itself is none."""
    return [name for name, _ in model.named_modules() if name]


@contextlib.contextmanager
def watched_layers(model: nn.Module, names: Iterable[str], *, inputs: bool = False) -> Iterator[dict[str, Tensor | None]]:
    """Within it, the mapping gets what each of the layers `names` gives, or with `inputs` gets, each time the layer is called.

    That is the first tensor where it is a tuple or a list; None where there is no tensor. A layer that was not called has no entry.
    """
    seen: dict[str, Tensor | None] = {}

    def keep(name: str) -> Callable[..., None]:
        def take(_: nn.Module, given: Any, result: Any = None) -> None:
            seen.pop(name, None)  # so that the layer that was called last stands last
            seen[name] = _first_tensor(given if inputs else result)

        return take

    with contextlib.ExitStack() as hooks:
        for name in names:
            layer = model.get_submodule(name)
            hook = layer.register_forward_pre_hook(keep(name)) if inputs else layer.register_forward_hook(keep(name))
            hooks.callback(hook.remove)
        yield seen


def _first_tensor(value: Any) -> Tensor | None:
    if isinstance(value, (tuple, list)) and value:
        value = value[0]
    return value if isinstance(value, Tensor) else None

"""A model between two stages: its file, and the hash of what its latency depends on."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from autocut.task.file import module_here


@dataclass(frozen=True)
class Prefix:
    """A model ready for its lowerings: its weights, the keys of the stages that made them, and the cost of training.

    `structure` is a hash of what latency depends on. `train_seconds` is what pruning and training on this path take one process
    alone: CPU seconds, divided by its threads.
    """

    model: nn.Module
    masks: Mapping[str, torch.Tensor]
    lineage: tuple[str, ...]
    train_seconds: float
    samples_seen: int
    structure: str

    @property
    def key(self) -> str:
        """Key of the last stage of the path."""
        return self.lineage[-1]


def structure_of(model: nn.Module) -> str:
    """Hash of what latency depends on: layers, shapes, dtypes, and the share of zeros in steps of 1%."""
    layers = [(name, type(module).__name__) for name, module in model.named_modules()]
    tensors = [
        (name, tuple(tensor.shape), str(tensor.dtype), round(float((tensor == 0).float().mean()), 2) if tensor.dim() > 1 else 0.0)
        for name, tensor in model.state_dict().items()
    ]
    return hashlib.sha256(json.dumps([layers, tensors]).encode()).hexdigest()[:16]


def save_model(folder: Path, model: nn.Module, masks: Mapping[str, torch.Tensor]) -> None:
    """Write a model, in eval mode, and the masks of its unstructured zeros to `folder`."""
    # The user's constructor cannot make a pruned module's shapes again, so the module itself is pickled. The stage cache reads only
    # what this user's key has signed. Bundles, which other people get, never hold a pickle.
    torch.save({"model": model.eval(), "masks": dict(masks)}, folder / "model.pt")


def restore_model(folder: Path) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    """Read what `save_model` wrote, in an entry that the stage cache has found: it runs what the pickle says."""
    reader = SimpleNamespace(__name__=pickle.__name__, Unpickler=_Unpickler)
    saved = torch.load(folder / "model.pt", weights_only=False, pickle_module=reader)
    return saved["model"].eval(), saved["masks"]


class _Unpickler(pickle.Unpickler):
    """Finds the classes of a task file, wherever the file lies now."""

    def find_class(self, module: str, name: str) -> Any:
        """See `pickle.Unpickler`."""
        return super().find_class(module_here(module), name)

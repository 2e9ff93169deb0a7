"""Tasks that come with autocut, and functions that make a task of what other libraries give.

    task = from_transformers(model, tokenizer, {"train": rows, "test": rows}, name="reviews")
    task = from_dataframe(frame, "price", build_model, name="houses", kind="regression")
    task = from_torchvision_folder(build_model, "pictures/", name="fruit", pretrained=True)

A timm model, a Lightning module or a plain `nn.Module` needs no function: give it to `Task` itself.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autocut.tasks.pictures import from_torchvision_folder
    from autocut.tasks.tables import from_dataframe
    from autocut.tasks.texts import from_transformers

__all__ = ["from_dataframe", "from_torchvision_folder", "from_transformers"]


def __getattr__(name: str) -> Any:
    """Import torch only when a name needs it."""
    homes = {
        "from_dataframe": "autocut.tasks.tables",
        "from_torchvision_folder": "autocut.tasks.pictures",
        "from_transformers": "autocut.tasks.texts",
    }
    if name not in homes:
        raise AttributeError(f"module 'autocut.tasks' has no attribute {name!r}")
    return getattr(importlib.import_module(homes[name]), name)

"""What of a task's untouched model decides which family of models it is like (`search.first_guesses`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from autocut.search.first_guesses import ModelTraits

if TYPE_CHECKING:
    from autocut.task.task import Task


def traits_of(task: Task) -> ModelTraits:
    """Look at the layers of the model of `task`; nothing is run.

    Attention is found by the name of a layer's class, because there are many classes and few bear another name.
    """
    model = task.build_model()
    layers = list(model.modules())
    convolutions = sum(isinstance(layer, nn.modules.conv._ConvNd) for layer in layers)
    products = convolutions + sum(isinstance(layer, nn.Linear) for layer in layers)
    return ModelTraits(
        convolutions=round(convolutions / products, 3) if products else 0.0,
        attention=any("attention" in type(layer).__name__.lower() for layer in layers),
        embeddings=any(isinstance(layer, nn.Embedding) for layer in layers),
        causal=task.metric_kind.shifts_tokens,
        parameters=sum(weights.numel() for weights in model.parameters()),
    )

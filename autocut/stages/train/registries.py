"""The registries of training methods. A method is one file of this folder.

A curriculum (``curriculum.schedule``) says which share of the training data is in use, and takes no options::

    @curricula.register("quadratic")
    def pace_quadratic(progress: float, start: float) -> float:
        "Add data slowly at first, then fast."
        return min(1.0, start + (1 - start) * (progress / FULL_DATA_AT) ** 2)

`progress` counts samples seen of those planned, in [0, 1], and 0 < start <= 1. The share never falls, and is 1 at progress 1.

An order (``curriculum.order``) says in which order examples come into use, as indices of the training set::

    @orders.register("hard_first", needs_difficulty=True)
    def order_hard_first(difficulty: NDArray[np.float64], generator: np.random.Generator) -> NDArray[np.int64]:
        "Bring the examples with the largest teacher loss into use first."
        return np.argsort(-difficulty, kind="stable")

A distillation loss (``distill.loss``) compares the outputs of student and teacher, of shape (n, ...), in a scalar. Classes are the
last dimension, and outputs that do not count (padding) are left out. With ``needs_targets=True`` it gets the targets, too::

    @distillations.register("l1", meaning=Meaning.NUMBERS)
    def distill_l1(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        "Mean absolute difference of the outputs."
        return functional.l1_loss(student, teacher)

A feature loss (``distill.features``) compares what a layer of the student and one of the teacher compute, of shapes (n, ...) with
the same n and widths that may differ, in a scalar that is added to the loss. With ``adapts=True`` the widths agree::

    @feature_losses.register("norms")
    def compare_norms(student: Tensor, teacher: Tensor) -> Tensor:
        "Mean squared difference of the features' lengths."
        return functional.mse_loss(student.flatten(1).norm(dim=1), teacher.flatten(1).norm(dim=1))

A fake quantizer (``train.quantization_aware``) rounds the operands of a product, as integers would give them back, and lets
gradients pass. The weight has shape (outputs, ...). The name begins the names of the dtypes that it prepares for::

    @fake_quantizers.register("int3")
    def fake_quantize_int3(inputs: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        "Weights as 8 steps of one scale."
        step = weight.detach().abs().max() / 4
        return inputs, weight + ((weight / step).round().clamp(-4, 3) * step - weight).detach()

A growth of inputs (``train.input_growth``) gives inputs a smaller size, of which `share` says how much of each side or of a length
is left, 0 < share <= 1. At 1 it returns them as they are. The trainer decides when the share grows (`input_growth.py`)::

    @input_growths.register("center_crop", logits_dimensions=2)
    def crop_images(inputs: Inputs, share: float) -> Inputs:
        "Begin with the middle of each image."
        return transform(inputs, lambda images: middle_of(images, share))

The first line of a docstring is what `autocut methods` shows. Raise `version` when the results change.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from autocut.registry import MethodOptions, Registry
from autocut.task.batches import Inputs
from autocut.task.kinds import Kind, Meaning

Pacing = Callable[[float, float], float]
Order = Callable[[NDArray[np.float64], np.random.Generator], NDArray[np.int64]]
Distillation = Callable[..., Tensor]
"""(student, teacher, temperature) -> the loss; with the targets after them where the loss `needs_targets`."""
FeatureLoss = Callable[[Tensor, Tensor], Tensor]
Weighing = Callable[[NDArray[np.float64], NDArray[np.int64]], NDArray[np.float64]]
FakeQuantizer = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
GrowInputs = Callable[[Inputs, float], Inputs]


@dataclass(frozen=True, kw_only=True)
class OrderOptions(MethodOptions):
    """What an order asks of the training.

    `needs_difficulty`: it looks at the teacher's loss on each example; else only the number of examples matters.
    `follows_training`: it is asked before each epoch, with the model's own losses on the examples that it has seen. `weigh` may
    then give the examples of an epoch weights: it gets the losses, shape (n,), and the indices of these examples.
    """

    needs_difficulty: bool = False
    follows_training: bool = False
    weigh: Weighing | None = None


@dataclass(frozen=True, kw_only=True)
class DistillationOptions(MethodOptions):
    """What a distillation loss asks of the outputs.

    `meaning`: what the outputs must mean. None: it takes any outputs. `classes`: the loss takes logits of at least so many classes
    that exclude each other, which is its `meaning` then. `needs_targets`: it takes the targets, too, as a fourth argument.
    """

    classes: int | None = None
    needs_targets: bool = False
    meaning: Meaning | None = None

    def __post_init__(self) -> None:
        """Fill in what `classes` implies."""
        if self.classes is not None:
            object.__setattr__(self, "meaning", Meaning.CLASSES)

    def takes(self, kind_name: str, kind: Kind) -> bool:
        """Whether the loss fits the kind, whose outputs must mean what the loss takes."""
        return super().takes(kind_name, kind) and self.meaning in (None, kind.meaning)


@dataclass(frozen=True, kw_only=True)
class GrowthOptions(MethodOptions):
    """What a growth of inputs does.

    `is_prefix`: a smaller input is the first part of the input along dimension 1. So outputs for each position, and their targets,
    are cut there too. Other methods take no outputs that have the size of the inputs. `logits_dimensions`: the most that logits
    may have, such as 2 for one row an example.
    """

    is_prefix: bool = False
    logits_dimensions: int | None = None

    def takes(self, kind_name: str, kind: Kind) -> bool:
        """Whether the method fits the kind, whose logits must not have more dimensions than it takes."""
        dimensions = len(kind.logits_shape or ())
        return super().takes(kind_name, kind) and (self.logits_dimensions is None or dimensions <= self.logits_dimensions)


@dataclass(frozen=True, kw_only=True)
class FeatureOptions(MethodOptions):
    """What a feature loss asks of the features.

    `adapts`: a linear map, which is trained with the student and thrown away, brings the student's features to the teacher's width.
    """

    adapts: bool = False


curricula: Registry[Pacing, MethodOptions] = Registry("curriculum.schedule", MethodOptions)
orders: Registry[Order, OrderOptions] = Registry("curriculum.order", OrderOptions)
distillations: Registry[Distillation, DistillationOptions] = Registry("distill.loss", DistillationOptions)
feature_losses: Registry[FeatureLoss, FeatureOptions] = Registry("distill.features", FeatureOptions)
fake_quantizers: Registry[FakeQuantizer, MethodOptions] = Registry("train.quantization_aware", MethodOptions)
input_growths: Registry[GrowInputs, GrowthOptions] = Registry("train.input_growth", GrowthOptions)

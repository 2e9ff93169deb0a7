"""Distillation from features: the student computes inside what the teacher computes, not only the same answers.

The layers are those that the task names (`Task.features`), of which a model has those of its own: a cut model keeps its names, a
student has others. Without them it is what goes into the last layers. The teacher runs beside the student at each step, on the same
inputs.

Features may have another width in a student. A method either does not mind, or asks for an adapter: a linear map of the student's
width to the teacher's. It is trained with the student and thrown away.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from autocut.counting import format_count
from autocut.errors import InfeasibleRecipeError
from autocut.recipe import FEATURES, LEFT_OUT, Value
from autocut.stages.device import Device, on_cpu
from autocut.stages.train.registries import feature_losses
from autocut.stages.train.teacher import Gate, Teacher, run_teacher, sample_examples
from autocut.task.batches import Inputs, batch_length
from autocut.task.layers import layer_names, watched_layers
from autocut.task.task import Task, seeded

_WEIGHT = 3.0
"""Of the loss of `similarity`. The paper has 3000 for a mean over all pairs, which is 12 for a batch of 256. Beside `kl`, 10 cost
accuracy on the digits, where 1 and 3 tied with `kl` alone (`studies/training_axes`)."""
_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class FeaturePairs:
    """The layers that a training compares: (layer of the student, layer of the teacher), with the shapes of one example.

    `at_inputs`: what goes into the layers is compared, not what comes out.
    """

    names: tuple[tuple[str, str], ...] = ()
    shapes: tuple[tuple[torch.Size, torch.Size], ...] = ()
    at_inputs: bool = False


class FeatureDistillation:
    """Compares the features of a student and a teacher in `pairs`, as `settings` say; without pairs, `loss` is 0.

    Args:
        pairs: What `feature_pairs` has found.
        settings: Of the training.
        student: Where it trains.
        teacher: Needed where there are pairs.
        device: Where the student is.
        seed: Of the adapters' first weights.
    """

    def __init__(
        self,
        pairs: FeaturePairs,
        settings: Mapping[str, Value],
        student: nn.Module,
        teacher: Teacher | None,
        device: Device,
        seed: int,
    ) -> None:
        self._pairs = pairs
        method = feature_losses.method(_name(settings))
        self._compare = method.function
        self._student = student
        self._teacher = device.placed_copy(teacher.model) if pairs.names and teacher is not None else None
        with seeded(seed):
            adapters = [_adapter(*shapes) if method.options.adapts else nn.Identity() for shapes in pairs.shapes]
        self.adapters = nn.ModuleList(adapters)
        device.place(self.adapters)
        self._seen: dict[str, Tensor | None] = {}

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Within it, the student answers a batch, and its features are kept for `loss`."""
        with watched_layers(self._student, [own for own, _ in self._pairs.names], inputs=self._pairs.at_inputs) as self._seen:
            yield

    def loss(self, inputs: Inputs) -> Tensor | float:
        """Return the mean loss of the pairs for the batch `inputs`, which the student has just answered."""
        if self._teacher is None:
            return 0.0
        with watched_layers(self._teacher, [taught for _, taught in self._pairs.names], inputs=self._pairs.at_inputs) as taught:
            run_teacher(self._teacher, inputs)
        losses = [
            self._compare(self.adapters[at](_features(self._seen, own)), _features(taught, teachers))
            for at, (own, teachers) in enumerate(self._pairs.names)
        ]
        return torch.stack(losses).mean()

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps."""
        state: dict[str, Tensor] = on_cpu(self.adapters.state_dict())
        return state


def feature_pairs(settings: Mapping[str, Value], model: nn.Module, task: Task, teacher: Teacher | None, gate: Gate) -> FeaturePairs:
    """Let student and teacher answer two training examples, where `settings` ask to compare their features, and return the layers.

    Raises:
        InfeasibleRecipeError: one of them has no such layer, or what it computes does not have the examples first, or has a shape
            from which no adapter leads to the teacher's.
    """
    name = _name(settings)
    if name == LEFT_OUT[FEATURES] or teacher is None:
        return FeaturePairs()
    with gate(), seeded(0):  # an adapter that is only tried draws random weights
        inputs, _ = sample_examples(task, 2)
        names = _named_pairs(task, model) or ((last_layer(model, inputs), last_layer(teacher.model, inputs)),)
        own, taught = zip(*names, strict=True)
        at_inputs = task.features is None
        own_shapes = _shapes(model, own, inputs, "the model", at_inputs=at_inputs)
        taught_shapes = _shapes(teacher.model, taught, inputs, "its teacher", at_inputs=at_inputs)
        shapes = tuple(zip(own_shapes, taught_shapes, strict=True))
        if feature_losses.method(name).options.adapts:
            for pair in shapes:
                _adapter(*pair)
    return FeaturePairs(names, shapes, at_inputs)


def last_layer(model: nn.Module, inputs: Inputs) -> str:
    """Return the name of the linear or convolutional layer that `model` calls last when it answers `inputs`.

    Raises:
        InfeasibleRecipeError: it calls none.
    """
    layers = [name for name, layer in model.named_modules() if isinstance(layer, _LAYERS)]
    with watched_layers(model, layers, inputs=True) as seen:
        run_teacher(model, inputs)
    if not seen:
        raise InfeasibleRecipeError(f"{FEATURES} needs a linear or convolutional layer at the end of the model, got none")
    return next(reversed(seen))


def _named_pairs(task: Task, model: nn.Module) -> tuple[tuple[str, str], ...]:
    """Return the pairs of the task whose first layer `model` has; none where the task names no layers."""
    if task.features is None:
        return ()
    own = set(layer_names(model))
    pairs = tuple((name, taught) for name, taught in task.features.items() if name in own)
    if not pairs:
        raise InfeasibleRecipeError(
            f"{FEATURES} needs a layer of task.features in the model that is trained, got none of {', '.join(task.features)}"
        )
    return pairs


def _shapes(model: nn.Module, layers: Sequence[str], inputs: Inputs, subject: str, *, at_inputs: bool) -> list[torch.Size]:
    """Return the shape of one example at each of `layers` of `model`, which answers `inputs`."""
    examples = batch_length(inputs)
    with watched_layers(model, layers, inputs=at_inputs) as seen:
        run_teacher(model, inputs)
    shapes = list[torch.Size]()
    for layer in layers:
        features = seen.get(layer)
        if features is None or features.dim() < 2 or len(features) != examples:
            where = "what goes into the last layer" if at_inputs else f"what the layer {layer!r} gives"
            got = "no tensor" if features is None else f"the shape {tuple(features.shape)}"
            raise InfeasibleRecipeError(
                f"{FEATURES} needs the {format_count(examples, 'example')} first in {where} of {subject}, got {got}"
            )
        shapes.append(features.shape[1:])
    return shapes


def _features(seen: Mapping[str, Tensor | None], layer: str) -> Tensor:
    features = seen.get(layer)
    if features is None:
        raise InfeasibleRecipeError(f"{FEATURES} needs layers that are called in training too, got {layer!r} without a tensor")
    return features.float() if features.dtype == torch.bfloat16 else features  # mixed precision


class _Adapter(nn.Linear):
    """A linear map along one dimension; for the channels of an image it is a convolution of size 1."""

    def __init__(self, dimension: int, width: int, wanted: int) -> None:
        super().__init__(width, wanted)
        self._dimension = dimension

    def forward(self, features: Tensor) -> Tensor:
        """Map `features`, shape (n, ..., width, ...), to (n, ..., wanted, ...)."""
        return super().forward(features.movedim(self._dimension, -1)).movedim(-1, self._dimension)


def _adapter(own: torch.Size, wanted: torch.Size) -> nn.Module:
    """Make what brings features of the shape `own` to the shape `wanted`, both of one example.

    Raises:
        InfeasibleRecipeError: they differ in more than their width, which is the first dimension or the last.
    """
    if own == wanted:
        return nn.Identity()
    differ = [at for at in range(len(own)) if own[at] != wanted[at]] if len(own) == len(wanted) else []
    if len(differ) != 1 or differ[0] not in (0, len(own) - 1):
        raise InfeasibleRecipeError(
            f"{FEATURES} needs features that differ from the teacher's in width alone, got {tuple(own)} beside {tuple(wanted)}"
        )
    return _Adapter(1 + differ[0], own[differ[0]], wanted[differ[0]])


def _name(settings: Mapping[str, Value]) -> str:
    return str(settings.get(FEATURES, LEFT_OUT[FEATURES]))


@feature_losses.register("none")
def compare_nothing(student: Tensor, teacher: Tensor) -> Tensor:  # noqa: ARG001
    """Compare outputs alone."""
    return student.new_zeros(())


@feature_losses.register("similarity")
def compare_similarity(student: Tensor, teacher: Tensor) -> Tensor:
    """Compare how alike each two examples of a batch are in the features.

    Similarities are the products of all pairs of features, each row scaled to length 1. Their widths need not agree.

    Args:
        student: Shape (n, ...).
        teacher: Shape (n, ...), the same examples.

    References:
        Tung and Mori 2019, https://arxiv.org/abs/1907.09682
    """
    of_student, of_teacher = (
        functional.normalize((features := given.flatten(1)) @ features.T, dim=1) for given in (student, teacher)
    )
    return _WEIGHT * (of_student - of_teacher).square().sum(dim=1).mean()
